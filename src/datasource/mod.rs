//! The stores where a site's logs already are.
//!
//! A kind is one file: its `Config` (whose doc comments are the operator's reference) and its [`Datasource`].

pub mod duckdb;

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
        Duckdb(duckdb::Config) = "duckdb",
    }
    default "duckdb"
    planned {
        "clickhouse", "databricks", "elasticsearch", "loki", "opensearch", "opensearch_ppl", "postgresql",
        "victorialogs",
    }
}

impl Config {
    /// The datasource that the configuration describes; `dir` is the runner's folder. Opens nothing yet.
    pub fn build(&self, dir: &Path) -> Arc<dyn Datasource> {
        match self {
            Self::Duckdb(config) => Arc::new(duckdb::DuckDb::new(config.clone(), dir)),
        }
    }
}

/// A store that answers detection queries.
#[async_trait]
pub trait Datasource: Send + Sync {
    /// Rows that `query` returns; `window` is for kinds that take the range beside the query.
    ///
    /// Dropping the future cancels the query in the store, not only the wait for it.
    async fn query(&self, query: &str, window: Window, limits: &Limits) -> Result<Rows, QueryError>;

    /// The non-secret settings, as rule templates see them (`{{ datasource.database }}`), `type` included.
    fn settings(&self) -> &Map<String, Value>;
}

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
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The store cannot be reached or opened: every rule on it will fail until it is back.
    #[error("datasource is not available: {0}")]
    Unavailable(String),
    /// The store refused the query, with the store's own message: it will refuse it again.
    #[error("query refused: {0}")]
    Refused(String),
    #[error("query did not finish within {limit:?} (`timeout`)")]
    TimedOut { limit: Duration },
}
