//! Whether what the configuration names answers: every datasource and webhook is tried side by side, and no alert is
//! sent.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::config::Runner;
use crate::datasource::{self, QueryError};
use crate::http::{Http, HttpError};
use crate::mail::MailError;
use crate::webhook::{self, LookError};

/// One datasource or webhook, and what came of trying it.
#[derive(Debug)]
pub struct Connection {
    /// `datasource` or `webhook`.
    pub family: &'static str,
    pub name: String,
    pub kind: &'static str,
    pub result: Result<Answers, Failure>,
    pub took: Duration,
}

/// Nothing is wrong, as far as that can be tried.
#[derive(Debug)]
pub enum Answers {
    /// What answers, e.g. `PostgreSQL 15.18`.
    As(String),
    /// Why there is nothing to try.
    Untried(&'static str),
}

/// What is wrong.
#[derive(Debug)]
pub struct Failure {
    pub state: State,
    /// In words, which can be a stranger's.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A setting cannot work, found before anything was opened.
    Settings,
    Unreachable,
    Certificate,
    Denied,
    TimedOut,
    /// It answers, and will not do what it was asked.
    Refused,
    /// It answers, and not as such a service does.
    Unreadable,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            Self::Settings => "cannot work",
            Self::Unreachable => "unreachable",
            Self::Certificate => "certificate",
            Self::Denied => "denied",
            Self::TimedOut => "timed out",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Tries every datasource and webhook of `runner` at the same time, each for `limit` at most. In the file's order.
pub async fn connect(runner: &Runner, limit: Duration) -> Vec<Connection> {
    let datasources = runner.datasources.iter().map(|(name, config)| async move {
        let began = Instant::now();
        let result = in_time(limit, try_datasource(runner, config, limit)).await;
        let (name, kind) = (name.clone(), config.kind());
        Connection { family: "datasource", name, kind, result, took: began.elapsed() }
    });
    let webhooks = runner.webhooks.iter().map(|(name, config)| async move {
        let began = Instant::now();
        let result = in_time(limit, try_webhook(config)).await;
        let (name, kind) = (name.clone(), config.kind());
        Connection { family: "webhook", name, kind, result, took: began.elapsed() }
    });
    let (mut all, webhooks) = tokio::join!(join_all(datasources), join_all(webhooks));
    all.extend(webhooks);
    all
}

/// Whatever a driver does, the operator does not wait longer.
async fn in_time(
    limit: Duration,
    trying: impl Future<Output = Result<Answers, Failure>>,
) -> Result<Answers, Failure> {
    // A little more, so that the driver's own words win.
    let more = limit + Duration::from_millis(500);
    tokio::time::timeout(more, trying).await.unwrap_or_else(|_| Err(timed_out(limit)))
}

async fn try_datasource(
    runner: &Runner,
    config: &datasource::Config,
    limit: Duration,
) -> Result<Answers, Failure> {
    let built = config.build(&runner.dir).map_err(|error| settings(error.to_string()))?;
    let told = built.probe(limit).await;
    built.close().await;
    told.map(Answers::As).map_err(|error| match error {
        QueryError::Unavailable(reason) => unreachable(reason),
        QueryError::Denied(reason) => Failure { state: State::Denied, reason },
        QueryError::Refused(reason) => Failure { state: State::Refused, reason },
        QueryError::TimedOut { limit } => timed_out(limit),
        QueryError::Unreadable(reason) => Failure { state: State::Unreadable, reason },
    })
}

async fn try_webhook(config: &webhook::Config) -> Result<Answers, Failure> {
    let webhook = webhook::build(config, false).map_err(|error| settings(error.to_string()))?;
    // A client for each, so that one whose `ca` cannot be read does not keep the others from being tried.
    let http = Http::new(webhook.destination()).map_err(|error| settings(error.to_string()))?;
    let Some(told) = webhook::look(webhook.as_ref(), &http).await else {
        let is_remote = webhook.destination().is_some();
        let why =
            if is_remote { "nothing is asked of it before an alert is sent" } else { "opens no connection" };
        return Ok(Answers::Untried(why));
    };
    told.map(Answers::As).map_err(|error| match error {
        LookError::Http(HttpError::TimedOut { limit, .. })
        | LookError::Mail(MailError::TimedOut { limit, .. }) => timed_out(limit),
        LookError::Http(HttpError::Unreachable { .. }) | LookError::Mail(MailError::Unreachable { .. }) => {
            unreachable(error.to_string())
        }
        LookError::Http(_) | LookError::Mail(_) => settings(error.to_string()),
        LookError::Denied(reason) => Failure { state: State::Denied, reason },
        LookError::Wrong(reason) => Failure { state: State::Refused, reason },
    })
}

fn settings(reason: String) -> Failure {
    Failure { state: State::Settings, reason }
}

fn timed_out(limit: Duration) -> Failure {
    Failure { state: State::TimedOut, reason: format!("no answer within {limit:?}") }
}

fn unreachable(reason: String) -> Failure {
    // rustls's words, which every driver of ours passes on.
    if reason.contains("invalid peer certificate") {
        let reason = format!("{reason}: name its authority's file in `ca`, if you trust it");
        return Failure { state: State::Certificate, reason };
    }
    Failure { state: State::Unreachable, reason }
}
