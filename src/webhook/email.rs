//! Mail: each alert as a text and an HTML part, its verdict later as an answer to the first mail.
//!
//! What differs from clickdetect: certificates are verified, a login is optional for a relay that asks for none, port 465
//! means TLS, the mail has an HTML part, and values cannot add a line to the subject. The `Message-ID` is made from the
//! message's idempotency key, so that a mail that was sent twice is one to whoever reads it.

mod address;
mod html;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use lettre::Message as Letter;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};

use self::address::{Mailboxes, Sender};
use super::facts::clip;
use super::template::plain;
use super::words::{self, Words};
use super::{ComposeError, Meaning, Message, Outgoing, Probe, Webhook, web};
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, section, words};
use crate::http::{Answer, Destination, tls};
use crate::mail::{Mail, Relay, Security};

section! {
    /// Mails each alert.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// The mail server that takes our mail, e.g. `smtp.example.com`.
        pub host: String,
        /// 587 for STARTTLS, 465 for TLS from the first byte, 25 for a relay of the site's own.
        #[read(port)]
        pub port: u16 = "587",
        /// The name to log in by; without one nobody logs in.
        pub username: Option<String>,
        /// Its password, e.g. `{env: SMTP_PASSWORD}`.
        pub password: Option<Secret>,
        /// Who sends, e.g. `Watchpost <watchpost@example.com>`.
        pub from: Sender,
        /// Who gets it: an address or a list, e.g. `[soc@example.com, "On call <oncall@example.com>"]`.
        pub to: Mailboxes,
        /// TLS from the first byte. As in clickdetect; `tls` says more.
        pub use_tls: bool = "false",
        /// `auto`: TLS from the first byte with `use_tls` or on port 465, else `starttls`. `tls`: from the first byte.
        /// `starttls`: before the login and the mail; a server that does not offer it gets nothing. `none`: in the
        /// clear, without a login unless the server is on this machine.
        pub tls: Encryption = "auto",
        /// Whether the server's certificate is verified.
        pub verify: bool = "true",
        /// Certificates (PEM) that are trusted besides the system's.
        pub ca: Option<PathBuf>,
        /// The subject, a Jinja template. The default is clickdetect's, which filters of mailboxes may know.
        #[read(web::template)]
        pub subject: Option<String> = "[ALERT] ClickDetect - {{ rule.name }}",
        /// The text, a Jinja template; the default is clickdetect's text. With one of yours the HTML part shows the same.
        #[read(web::template)]
        pub template: Option<String>,
        /// For a whole exchange, connect to last answer: seconds or a duration.
        #[read(web::timeout)]
        pub timeout: Duration = "30s",
        /// The longest wait between two attempts, 1 second to 1 hour.
        #[read(web::retry_max_wait)]
        pub retry_max_wait: Duration = "15m",
    }
}

words! {
    /// What `tls` says.
    pub enum Encryption: "an encryption" {
        Auto = "auto",
        Tls = "tls",
        StartTls = "starttls",
        None = "none",
    }
}

fn port(node: &Node, reader: &mut Reader<'_>) -> Option<u16> {
    let port = u64::from_yaml(node, reader)?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    port.or_else(|| reader.refuse(node, "a port, 1 to 65535"))
}

/// Sends mails.
pub struct Email {
    relay: Relay,
    from: Mailbox,
    to: Vec<Mailbox>,
    subject: Words,
    text: Words,
    is_own_text: bool,
    retry_max_wait: Duration,
}

impl Email {
    /// Fails where a template is none, the certificates cannot be read, or a password would be sent in the clear.
    pub fn new(config: &Config) -> Result<Self, ComposeError> {
        Ok(Self {
            relay: relay(config).map_err(ComposeError)?,
            from: config.from.0.clone(),
            to: config.to.0.clone(),
            subject: Words::new(config.subject.as_deref(), plain)?,
            text: Words::new(config.template.as_deref(), plain)?,
            is_own_text: config.template.is_some(),
            retry_max_wait: config.retry_max_wait,
        })
    }

    /// One line, whatever the values hold: a line break would begin a header of their own.
    fn subject(&self, message: &Message<'_>) -> Result<String, ComposeError> {
        let subject = self.subject.of(message)?.replace(char::is_control, " ");
        Ok(clip(subject.trim(), MAX_SUBJECT))
    }
}

fn relay(config: &Config) -> Result<Relay, String> {
    let security = match (config.tls, config.use_tls) {
        (Encryption::StartTls | Encryption::None, true) => {
            return Err("`use_tls: true` and `tls` contradict each other: leave out `use_tls`".into());
        }
        (Encryption::Tls, _) | (Encryption::Auto, true) => Security::Tls,
        (Encryption::Auto, false) if config.port == SMTPS => Security::Tls,
        (Encryption::Auto | Encryption::StartTls, false) => Security::StartTls,
        (Encryption::None, false) => Security::None,
    };
    let login = match (&config.username, &config.password) {
        (Some(username), Some(password)) => Some((username.clone(), password.clone())),
        (None, None) => None,
        (Some(_), None) => return Err("`username` needs a `password`".into()),
        (None, Some(_)) => return Err("`password` needs a `username`".into()),
    };
    let is_here = config.host == "localhost"
        || config.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    if security == Security::None && login.is_some() && !is_here {
        return Err("with `tls: none` the password could be read on its way: use `starttls` or `tls`".into());
    }
    let host = if config.host.contains(':') { format!("[{}]", config.host) } else { config.host.clone() };
    let url = format!("https://{host}:{}", config.port).parse();
    let url = url.map_err(|()| format!("`host`: `{}` is not a host's name", config.host))?;
    let destination = Destination { url, verify: config.verify, ca: config.ca.clone() };
    let trust = tls::config(&destination, security != Security::None)?;
    Relay::new(&config.host, config.port, security, trust, login, config.timeout)
        .map_err(|reason| format!("`host`: {reason}"))
}

impl Webhook for Email {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let text = words::within(&self.text.of(message)?, MAX_TEXT_BYTES, char::len_utf8);
        let html = match self.is_own_text {
            true => html::of_text(&text)?,
            false => html::of(message)?,
        };
        let id = format!("<{}@{}>", message.idempotency_key, self.from.email.domain());
        let sent = SystemTime::from(message.alert.created_at).max(SystemTime::UNIX_EPOCH);
        let automatic = HeaderValue::new(AUTO_SUBMITTED, "auto-generated".into());
        let mut letter = Letter::builder()
            .from(self.from.clone())
            .subject(self.subject(message)?)
            .date(sent)
            .message_id(Some(id.clone()))
            .raw_header(automatic);
        for mailbox in &self.to {
            letter = letter.to(mailbox.clone());
        }
        if let (true, Some(first)) = (message.is_update, message.receipt) {
            letter = letter.in_reply_to(first.to_owned()).references(first.to_owned());
        }
        let parts = MultiPart::alternative()
            .boundary(format!("watchpost-{}", message.idempotency_key))
            .singlepart(SinglePart::plain(text))
            .singlepart(SinglePart::html(html));
        let letter = letter.multipart(parts).map_err(|error| ComposeError(error.to_string()))?;
        Ok(Outgoing::Mail(Mail {
            id,
            from: self.from.email.clone(),
            to: self.to.iter().map(|mailbox| mailbox.email.clone()).collect(),
            bytes: letter.formatted(),
        }))
    }

    fn relay(&self) -> Option<&Relay> {
        Some(&self.relay)
    }

    /// Mail servers count the connections of each client.
    fn slots(&self) -> usize {
        2
    }

    fn retry_max_wait(&self) -> Duration {
        self.retry_max_wait
    }

    /// RFC 5321, 4.2.1: 4xx is for now, 5xx for good.
    fn judge(&self, answer: &Answer) -> Meaning {
        match answer.status {
            200..=299 => Meaning::Delivered,
            400..=499 => Meaning::Later { after: None },
            _ => Meaning::Refused,
        }
    }

    fn probe(&self) -> Vec<Probe> {
        vec![Probe::Mail]
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        match answers {
            [answer] if answer.status == 220 => Ok(format!("mail server {}", web::words(answer))),
            [answer] => Err(format!("{}: {}", answer.status, web::words(answer))),
            _ => Err("it was not asked".into()),
        }
    }
}

const AUTO_SUBMITTED: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");
const SMTPS: u16 = 465;
const MAX_SUBJECT: usize = 200;
/// Servers commonly take 10 MB, and quoting makes a text up to three times as long.
const MAX_TEXT_BYTES: usize = 1_000_000;

#[cfg(test)]
mod tests;
