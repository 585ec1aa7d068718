//! Where alerts go.
//!
//! A kind is one file: its `Config`, and a [`Webhook`] that composes a message. Composing is pure, so that
//! every kind is tested by snapshot; only [`delivery`] opens connections.

pub mod generic;
pub mod stdout;

mod attempt;
pub mod delivery;
mod payload;
mod template;

use std::sync::Arc;
use std::time::Duration;

use crate::alert::Alert;
use crate::config::kinds;
use crate::http::{Destination, Request};
use crate::triage::Triage;

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
pub trait Webhook: Send + Sync {
    /// The message that tells of an alert. Opens nothing, waits for nothing.
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError>;

    /// Where its requests go; `None` where it sends none.
    fn destination(&self) -> Option<Destination> {
        None
    }

    /// The longest wait between two attempts that nobody asked for, 1 second or more.
    fn retry_max_wait(&self) -> Duration {
        Duration::from_secs(15 * 60)
    }
}

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
    match level {
        80.. => "critical",
        60.. => "high",
        40.. => "medium",
        20.. => "low",
        _ => "informational",
    }
}
