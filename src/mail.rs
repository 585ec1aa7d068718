//! The SMTP client: a connection for each mail, to the relay of the configuration and to no other. The dialogue is
//! lettre's; the connection and its TLS are ours, so that certificates are trusted here as everywhere.

mod line;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lettre::address::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{self, Data, Rcpt};
use lettre::transport::smtp::extension::{Extension, MailParameter};
use lettre::transport::smtp::response::Response;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use self::line::Line;
use crate::config::Secret;
use crate::http::Answer;

/// How a connection is kept from being read on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte, commonly port 465.
    Tls,
    /// TLS before anything that matters; a relay that does not offer it is refused, never spoken to in the clear.
    StartTls,
    /// In the clear.
    None,
}

/// A mail server that takes mail from us. Made from the configuration alone: no message says where it goes.
pub struct Relay {
    host: String,
    port: u16,
    security: Security,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    login: Option<(String, Secret)>,
    timeout: Duration,
}

/// A mail, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its `Message-ID`, in angle brackets.
    pub id: String,
    pub from: Address,
    /// One or more.
    pub to: Vec<Address>,
    /// Headers and body, lines ended by CR LF, ASCII.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mail {} to {} ({} bytes)", self.id, self.to.len(), self.bytes.len())
    }
}

/// Why there is no answer; each is worth another attempt.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("{relay} did not answer within {limit:?}")]
    TimedOut { relay: String, limit: Duration },
    /// Name not known, connection refused or cut, certificate not trusted, or not a word of SMTP.
    #[error("{relay} cannot be reached: {reason}")]
    Unreachable { relay: String, reason: String },
    /// The relay does not do what the configuration asks for: no STARTTLS, no login.
    #[error("{relay} {reason}")]
    Unfit { relay: String, reason: String },
}

impl Relay {
    /// `tls` is a client's trust; the login, name and password, is sent as the relay asks for it. `timeout` is for a
    /// whole exchange, connect to last answer. Fails where `host` is no name.
    pub fn new(
        host: &str,
        port: u16,
        security: Security,
        mut tls: ClientConfig,
        login: Option<(String, Secret)>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| format!("`{host}` is not a host's name"))?;
        tls.alpn_protocols.clear();
        Ok(Self { host: host.to_owned(), port, security, name, tls: Arc::new(tls), login, timeout })
    }

    /// Hands `mail` over. The answer is the relay's last word as if it were HTTP's: its code as the status, its text as
    /// the body. Where some recipients are refused and others taken, the text says which.
    pub async fn send(&self, mail: &Mail) -> Result<Answer, MailError> {
        self.within(self.deliver(mail)).await
    }

    /// Connects, secures the connection and logs in, and sends nothing. The answer's body is the relay's name.
    pub async fn greet(&self) -> Result<Answer, MailError> {
        self.within(async {
            let mut connection = self.connect().await?;
            let words = connection.server_info().name().to_owned();
            self.leave(&mut connection).await;
            Ok(Answer { status: 220, retry_after: None, location: None, body: words.into_bytes() })
        })
        .await
    }

    async fn within(
        &self,
        dialogue: impl Future<Output = Result<Answer, Ended>>,
    ) -> Result<Answer, MailError> {
        match tokio::time::timeout(self.timeout, dialogue).await {
            Ok(Ok(answer)) | Ok(Err(Ended::Refused(answer))) => Ok(self.without_secrets(answer)),
            Ok(Err(Ended::Broken(error))) => Err(error),
            Err(_) => Err(MailError::TimedOut { relay: self.to_string(), limit: self.timeout }),
        }
    }

    async fn deliver(&self, mail: &Mail) -> Result<Answer, Ended> {
        let mut connection = self.connect().await?;
        let mut options = Vec::new();
        if mail.to.iter().chain([&mail.from]).any(|address| !address.to_string().is_ascii()) {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(self.unfit("takes no addresses with letters beyond ASCII (SMTPUTF8)"));
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        self.heard(
            "the sender",
            connection.command(commands::Mail::new(Some(mail.from.clone()), options)).await,
        )?;
        let (mut taken, mut refused) = (0, Vec::new());
        for address in &mail.to {
            match self
                .heard("the recipient", connection.command(Rcpt::new(address.clone(), Vec::new())).await)
            {
                Ok(_) => taken += 1,
                // Another time all of them may be taken; sent now, it would come twice to some.
                Err(Ended::Refused(answer)) if answer.status >= 500 => refused.push((address, answer)),
                Err(ended) => return Err(ended),
            }
        }
        if taken == 0 {
            let last = refused.pop().map(|(_, answer)| Ended::Refused(answer));
            return Err(last.unwrap_or_else(|| self.unfit("was given no recipient")));
        }
        self.heard("the mail", connection.command(Data).await)?;
        let answer = self.heard("the mail", connection.message(&mail.bytes).await)?;
        self.leave(&mut connection).await;
        let mut body = words(&answer);
        for (address, answer) in refused {
            body.push_str(&format!("; not to {address}: {}: ", answer.status));
            body.push_str(&String::from_utf8_lossy(&answer.body));
        }
        Ok(reply(answer.code().into(), body))
    }

    /// A connection that may be given a mail.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Ended> {
        let line = Line::open(&self.host, self.port, self.security, &self.name, &self.tls).await;
        let line = line.map_err(|failed| match failed {
            line::Failed::Io(reason) => self.unreachable(reason),
            line::Failed::Refused(status, words) => Ended::Refused(reply(status, words)),
            line::Failed::NoStartTls => {
                self.unfit("offers no STARTTLS, and nothing is sent to it in the clear")
            }
        })?;
        let name = line.own_name();
        let opened = AsyncSmtpConnection::connect_with_transport(Box::new(line), &name).await;
        let mut connection = self.heard("the greeting", opened)?;
        if let Some((user, password)) = &self.login {
            let credentials = Credentials::new(user.clone(), password.reveal().to_owned());
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            if connection.server_info().get_auth_mechanism(&mechanisms).is_none() {
                return Err(self.unfit("offers no login by password (AUTH PLAIN or LOGIN)"));
            }
            self.heard("the login", connection.auth(&mechanisms, &credentials).await)?;
        }
        Ok(connection)
    }

    /// What was said is said; whether the relay hears us go is no matter.
    async fn leave(&self, connection: &mut AsyncSmtpConnection) {
        drop(tokio::time::timeout(GOODBYE, connection.quit()).await);
    }

    fn heard<T>(&self, what: &str, told: Result<T, lettre::transport::smtp::Error>) -> Result<T, Ended> {
        told.map_err(|error| {
            let mut reason = error.to_string();
            if let Some(inner) = std::error::Error::source(&error) {
                reason = inner.to_string();
            }
            match error.status() {
                Some(code) => Ended::Refused(reply(code.into(), format!("{what} was refused: {reason}"))),
                None => self.unreachable(format!("{what}: {reason}")),
            }
        })
    }

    fn unreachable(&self, reason: String) -> Ended {
        Ended::Broken(MailError::Unreachable { relay: self.to_string(), reason })
    }

    fn unfit(&self, reason: &str) -> Ended {
        Ended::Broken(MailError::Unfit { relay: self.to_string(), reason: reason.to_owned() })
    }

    /// A relay may repeat what it was sent, and its answer is kept.
    fn without_secrets(&self, mut answer: Answer) -> Answer {
        use base64::Engine as _;
        use base64::prelude::BASE64_STANDARD;
        if let Some((user, password)) = &self.login {
            let password = password.reveal();
            let sent = [
                BASE64_STANDARD.encode(format!("\u{0}{user}\u{0}{password}")),
                BASE64_STANDARD.encode(password),
                password.to_owned(),
            ];
            let mut body = String::from_utf8_lossy(&answer.body).into_owned();
            for secret in sent.iter().filter(|secret| !secret.is_empty()) {
                body = body.replace(secret.as_str(), "***");
            }
            answer.body = body.into_bytes();
        }
        answer
    }
}

/// `host:port`, for messages.
impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.security)
    }
}

/// How a dialogue ended before its end.
enum Ended {
    /// The relay said no, now (4xx) or for good (5xx).
    Refused(Answer),
    Broken(MailError),
}

fn reply(status: u16, words: String) -> Answer {
    Answer { status, retry_after: None, location: None, body: words.into_bytes() }
}

fn words(response: &Response) -> String {
    response.message().collect::<Vec<_>>().join(" ")
}

/// For the relay's answer to our goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
