//! Where alerts go.
//!
//! A kind is one file: its `Config`, and a [`Webhook`] that composes a message. Composing is pure, so that
//! every kind is tested by snapshot; only [`delivery`] opens connections.

pub mod generic;
pub mod stdout;

mod attempt;
pub mod delivery;
mod payload;
mod severity;
mod template;
mod web;
mod words;

use std::sync::Arc;
use std::time::Duration;

use crate::alert::Alert;
use crate::config::kinds;
use crate::http::{Answer, Destination, Request};
use crate::triage::Triage;

pub use attempt::Meaning;
pub use severity::{Band, SeverityMap};

kinds! {
    /// Where alerts go.
    pub enum Config: "webhook" {
        Generic(generic::Config) = "generic",
        Stdout(stdout::Config) = "stdout",
    }
    default "generic"
    planned {
        "alertmanager", "discord", "email", "forgejo", "iris", "matrix", "opsgenie", "slack", "teams", "telegram",
        "thehive",
    }
}

/// A destination.
///
/// It tells of an alert in one message, and of what triage added later in an update of that message where the
/// destination can change one ([`Webhook::receipt`]), else in a second message.
pub trait Webhook: Send + Sync {
    /// The message that tells of an alert. Opens nothing, waits for nothing; the same message composes to the same
    /// bytes at every attempt.
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError>;

    /// Where its requests go; `None` where it sends none.
    fn destination(&self) -> Option<Destination> {
        None
    }

    /// The longest wait between two attempts that nobody asked for, 1 second or more.
    fn retry_max_wait(&self) -> Duration {
        Duration::from_secs(15 * 60)
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
    fn prepared(&self, answer: &Answer) -> Result<(), String> {
        drop(answer);
        Ok(())
    }

    /// What an answer means for its message. A kind that is told here that its login is over forgets it.
    fn judge(&self, answer: &Answer) -> Meaning {
        Meaning::of_status(answer.status)
    }

    /// Where the destination put the message, out of the answer that took it; kept, and given to the update as
    /// [`Message::receipt`].
    fn receipt(&self, answer: &Answer) -> Option<String> {
        drop(answer);
        None
    }

    /// A request that changes nothing at the destination, for `check --connect`.
    fn probe(&self) -> Option<Request> {
        None
    }

    /// What answers there, with its version where it says one, out of the answer to [`Webhook::probe`]; or what is
    /// wrong with it, in words.
    fn probed(&self, answer: &Answer) -> Result<String, String> {
        match answer.status {
            200..=299 => Ok(format!("answers HTTP {}", answer.status)),
            status => Err(format!("answers HTTP {status}")),
        }
    }
}

/// Messages that one webhook is given at a time, unless it says otherwise.
const SLOTS: usize = 8;

/// The destination that `config` describes. `colour` is for those that a person reads: standard output is a
/// terminal and nobody said no.
pub fn build(config: &Config, colour: bool) -> Result<Arc<dyn Webhook>, ComposeError> {
    Ok(match config {
        Config::Generic(config) => Arc::new(generic::Generic::new(config)?),
        Config::Stdout(config) => Arc::new(stdout::Stdout::new(config, colour)),
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
