//! The stores where a site's logs already are.
//!
//! A kind is one file: its `Config` (whose doc comments are the operator's reference) and its [`Datasource`].

pub mod clickhouse;
pub mod databricks;
pub mod duckdb;
pub mod loki;
pub mod opensearch_ppl;
pub mod postgresql;
pub mod victorialogs;

mod cancel;
pub mod elasticsearch;
mod feed;
mod json;
mod kept;
pub mod opensearch;
mod room;
mod search;
mod web;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::clock::Window;
use crate::config::kinds;

kinds! {
    /// Where queries run.
    pub enum Config: "datasource" {
        Clickhouse(clickhouse::Config) = "clickhouse",
        Databricks(databricks::Config) = "databricks",
        Duckdb(duckdb::Config) = "duckdb",
        Elasticsearch(elasticsearch::Config) = "elasticsearch",
        Loki(loki::Config) = "loki",
        Opensearch(opensearch::Config) = "opensearch",
        OpensearchPpl(opensearch_ppl::Config) = "opensearch-ppl",
        Postgresql(postgresql::Config) = "postgresql",
        Victorialogs(victorialogs::Config) = "victorialogs",
    }
    default "clickhouse"
}

impl Config {
    /// The datasource that the configuration describes; `dir` is the runner's folder. Opens nothing yet; fails where
    /// the settings cannot work, e.g. a `ca` that cannot be read.
    pub fn build(&self, dir: &Path) -> Result<Arc<dyn Datasource>, SettingsError> {
        Ok(match self {
            Self::Clickhouse(config) => Arc::new(clickhouse::ClickHouse::new(config)?),
            Self::Databricks(config) => Arc::new(databricks::Databricks::new(config.clone())?),
            Self::Duckdb(config) => {
                config.check()?;
                Arc::new(duckdb::DuckDb::new(config.clone(), dir))
            }
            Self::Elasticsearch(config) => Arc::new(elasticsearch::Elasticsearch::new(config.clone())?),
            Self::Loki(config) => Arc::new(loki::Loki::new(config.clone())?),
            Self::Opensearch(config) => Arc::new(opensearch::Opensearch::new(config.clone())?),
            Self::OpensearchPpl(config) => Arc::new(opensearch_ppl::OpensearchPpl::new(config.clone())?),
            Self::Postgresql(config) => Arc::new(postgresql::PostgreSql::new(config)?),
            Self::Victorialogs(config) => Arc::new(victorialogs::VictoriaLogs::new(config.clone())?),
        })
    }
}

/// A store that answers detection queries.
///
/// It connects by itself, again after it was lost, and keeps no session that a later query depends on.
#[async_trait]
pub trait Datasource: Send + Sync {
    /// Rows that `query` returns; `window` is for kinds that take the range beside the query.
    ///
    /// Ends within `limits.time`. Dropping the future cancels the query in the store, not only the wait for it.
    async fn query(&self, query: &str, window: Window, limits: &Limits) -> Result<Rows, QueryError>;

    /// Connects and logs in, within `limit`, and says what answers, e.g. `PostgreSQL 15.18`; for `check --connect`.
    async fn probe(&self, limit: Duration) -> Result<String, QueryError>;

    /// The non-secret settings, as rule templates see them (`{{ datasource.database }}`), `type` included.
    fn settings(&self) -> &Map<String, Value>;

    /// Returns when queries that were dropped are cancelled in the store, some seconds later at most. For kinds where
    /// that takes a message: called once, before the process ends.
    async fn close(&self) {}
}

/// Settings that cannot work, in words: which, why, and what to write.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub String);

/// What one query may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub time: Duration,
    /// Rows kept with the alert; more are counted where the store can tell, and dropped.
    pub rows: usize,
    /// Bytes of JSON kept with the alert; what would pass them is cut, longest cells first.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_secs(60), rows: 1_000, bytes: 4 << 20 }
    }
}

/// What a query returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Compared with the rule's `size`. Not always `rows.len()`: `rows` stops at the limits, this counts on.
    pub count: u64,
    pub rows: Vec<Map<String, Value>>,
    /// What the limits cut, in words for the analyst, e.g. `kept 1000 of 250000 rows (max_rows)`.
    pub cut: Option<String>,
}

/// Why there are no rows. In every case the window was not searched, and the rule's cursor stays.
///
/// No variant's text holds a secret; a store's own message is bounded and, since it can quote a log line, is escaped by
/// who shows it.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The store cannot be reached or opened, or says that it is busy: every rule on it will fail until it is back.
    #[error("datasource is not available: {0}")]
    Unavailable(String),
    /// The store does not let us in, or not at this data.
    #[error("access denied: {0}")]
    Denied(String),
    /// The store refused the query, with the store's own message: it will refuse it again.
    #[error("query refused: {0}")]
    Refused(String),
    #[error("query did not finish within {limit:?} (`timeout`)")]
    TimedOut { limit: Duration },
    /// An answer came that is not what such a store says, or broke off: nothing of it is used.
    #[error("reply cannot be read: {0}")]
    Unreadable(String),
}

/// A store's message, of which at most [`MESSAGE_CHARS`] characters are kept.
fn bounded(message: &str) -> String {
    let message = message.trim();
    match message.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

/// Of a store's message, since it can quote a cell.
const MESSAGE_CHARS: usize = 1_000;
