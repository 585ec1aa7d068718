//! Where alerts go.
//!
//! A kind is one file: its `Config`, and a [`Webhook`] that composes a message. Composing is pure, so that
//! every kind is tested by snapshot; only [`delivery`] opens connections.

pub mod alertmanager;
pub mod discord;
pub mod email;
pub mod forgejo;
pub mod generic;
pub mod iris;
pub mod matrix;
pub mod opsgenie;
pub mod slack;
pub mod stdout;
pub mod teams;
pub mod telegram;
pub mod thehive;

mod attempt;
mod commonmark;
pub mod delivery;
mod facts;
mod payload;
mod probe;
#[cfg(test)]
mod recorded;
mod severity;
mod template;
mod web;
mod words;

use std::sync::Arc;
use std::time::Duration;

use crate::alert::Alert;
use crate::config::kinds;
use crate::http::{Answer, Destination, Request};
use crate::mail::{Mail, Relay};
use crate::triage::Triage;

pub use attempt::Meaning;
pub use probe::{LookError, Probe, look};
pub use severity::{Band, SeverityMap};
pub use web::{Endpoint, Exchange};

kinds! {
    /// Where alerts go.
    pub enum Config: "webhook" {
        Alertmanager(alertmanager::Config) = "alertmanager",
        Discord(discord::Config) = "discord",
        Email(email::Config) = "email",
        Forgejo(forgejo::Config) = "forgejo",
        Generic(generic::Config) = "generic",
        Iris(iris::Config) = "iris",
        Matrix(matrix::Config) = "matrix",
        Opsgenie(opsgenie::Config) = "opsgenie",
        Slack(slack::Config) = "slack",
        Stdout(stdout::Config) = "stdout",
        Teams(teams::Config) = "teams",
        Telegram(telegram::Config) = "telegram",
        TheHive(thehive::Config) = "thehive",
    }
    default "generic"
}

/// A destination.
///
/// It tells of an alert in one message, and of what triage added later in an update of that message where the
/// destination can change one ([`Webhook::receipt`]), else in a second message.
pub trait Webhook: Send + Sync {
    /// The message that tells of an alert. Opens nothing, waits for nothing; the same message composes to the same
    /// bytes at every attempt.
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError>;

    /// Where its requests go, and how; `None` where it sends none.
    fn endpoint(&self) -> Option<&Endpoint> {
        None
    }

    /// The server of its requests.
    fn destination(&self) -> Option<Destination> {
        self.endpoint().map(Endpoint::destination)
    }

    /// Where its mails go; `None` where it sends none.
    fn relay(&self) -> Option<&Relay> {
        None
    }

    /// The longest wait between two attempts that nobody asked for, 1 second or more.
    fn retry_max_wait(&self) -> Duration {
        self.endpoint().map_or(Duration::from_secs(15 * 60), Endpoint::retry_max_wait)
    }

    /// Messages that may be on their way at one time.
    fn slots(&self) -> usize {
        if self.destination().is_some() { SLOTS } else { 1 }
    }

    /// A request whose answer composing needs and does not have: a login, a list of ids. It is sent before the
    /// message, and its answer goes to [`Webhook::prepared`].
    fn preparation(&self) -> Option<Request> {
        None
    }

    /// Takes the answer to a preparation, of status 2xx. Fails, in words, where it is not what was asked for.
    fn prepared(&self, _answer: &Answer) -> Result<(), String> {
        Ok(())
    }

    /// Whether messages can be composed without what a preparation asked for, the answer to which was not 2xx; then
    /// it is not asked for again.
    fn forgoes(&self, _asked: &Request, _answer: &Answer) -> bool {
        false
    }

    /// What an answer means for its message. A kind that is told here that its login is over forgets it.
    fn judge(&self, answer: &Answer) -> Meaning {
        Meaning::of_status(answer.status)
    }

    /// Where the destination put the message, out of the answer that took it; kept, and given to the update as
    /// [`Message::receipt`].
    fn receipt(&self, _answer: &Answer) -> Option<String> {
        None
    }

    /// What to ask of the destination that changes nothing there, for `check --connect`; [`look`] asks it, after the
    /// preparations. Empty where nobody can be asked.
    fn probe(&self) -> Vec<Probe> {
        Vec::new()
    }

    /// What answers there, with its version where it says one, out of the answers to [`Webhook::probe`], in its order;
    /// or what is wrong with it, in words.
    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        match answers.iter().find(|answer| !(200..300).contains(&answer.status)) {
            Some(wrong) => Err(format!("{}: {}", wrong.status, String::from_utf8_lossy(&wrong.body))),
            None => Ok("answers".into()),
        }
    }
}

/// Messages that one webhook is given at a time, unless it says otherwise.
const SLOTS: usize = 8;
/// Of a destination's answer, for the webhook to read. DFIR-IRIS answers with the whole alert.
const MAX_READ_BYTES: usize = 1 << 20;
/// Requests before one message.
const MAX_PREPARATIONS: usize = 8;

/// The destination that `config` describes. `colour` is for those that a person reads: standard output is a
/// terminal and nobody said no.
pub fn build(config: &Config, colour: bool) -> Result<Arc<dyn Webhook>, ComposeError> {
    Ok(match config {
        Config::Alertmanager(config) => Arc::new(alertmanager::Alertmanager::new(config)),
        Config::Discord(config) => Arc::new(discord::Discord::new(config)?),
        Config::Email(config) => Arc::new(email::Email::new(config)?),
        Config::Forgejo(config) => Arc::new(forgejo::Forgejo::new(config)?),
        Config::Generic(config) => Arc::new(generic::Generic::new(config)?),
        Config::Iris(config) => Arc::new(iris::Iris::new(config)),
        Config::Matrix(config) => Arc::new(matrix::Matrix::new(config)?),
        Config::Opsgenie(config) => Arc::new(opsgenie::Opsgenie::new(config)),
        Config::Slack(config) => Arc::new(slack::Slack::new(config)?),
        Config::Stdout(config) => Arc::new(stdout::Stdout::new(config, colour)),
        Config::Teams(config) => Arc::new(teams::Teams::new(config)?),
        Config::Telegram(config) => Arc::new(telegram::Telegram::new(config)?),
        Config::TheHive(config) => Arc::new(thehive::TheHive::new(config)),
    })
}

/// What is to be told about an alert.
pub struct Message<'a> {
    pub alert: &'a Alert,
    /// What triage had to say when this message was first attempted; retries say the same.
    pub triage: &'a Triage,
    /// Whether this follows an earlier message about the same alert that went out before triage had ended.
    pub is_update: bool,
    /// The same for every attempt of one delivery.
    pub idempotency_key: &'a str,
    /// For an update: where the destination put the first message ([`Webhook::receipt`]); `None` where that is not
    /// known or never arrived, so that the update has to stand for itself.
    pub receipt: Option<&'a str>,
}

/// A composed message.
#[derive(Debug, Clone, PartialEq)]
pub enum Outgoing {
    Http(Request),
    /// Goes to [`Webhook::relay`]; its answer comes as HTTP's would, with SMTP's code for a status.
    Mail(Mail),
    /// Text for standard output, ending in a newline; control characters in it are already escaped.
    Stdout(String),
}

/// The message cannot be composed: trying again will not help, it goes to the dead letters.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ComposeError(pub String);

/// The word for a level, in clickdetect's bands.
pub fn severity(level: u8) -> &'static str {
    SeverityMap::default().band(level).word()
}
