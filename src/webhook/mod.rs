//! Where alerts go.
//!
//! A kind is one file: its `Config`, and a [`Webhook`] that composes a message. Composing is pure, so that
//! every kind is tested by snapshot; only `delivery` opens connections.

pub mod generic;
pub mod stdout;

use std::time::Duration;

use crate::alert::Alert;
use crate::config::kinds;
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
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError>;
}

/// What is to be told about an alert.
pub struct Message<'a> {
    pub alert: &'a Alert,
    /// What triage had to say when this message was first attempted; retries say the same.
    pub triage: &'a Triage,
    /// Whether this follows an earlier message about the same alert that went out while triage was pending.
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

/// One HTTP request, ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub method: &'static str,
    pub url: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// For the whole exchange, connect to last byte of the answer.
    pub timeout: Duration,
    /// Whether the server's certificate is verified.
    pub verify: bool,
}

/// The message cannot be composed: trying again will not help, it goes to the dead letters.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ComposeError(pub String);
