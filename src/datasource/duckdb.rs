//! Embedded DuckDB: queries over a database file, or over JSON, CSV and Parquet files where they lie.

mod cells;
mod kept;
mod statement;
mod storage;
mod store;
#[cfg(test)]
mod tests;
mod threads;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::duckdb::InterruptHandle;
use async_trait::async_trait;
use serde_json::{Map, Value, json};

use self::store::Store;
use self::threads::Threads;
use super::{Datasource, Limits, QueryError, Rows, SettingsError};
use crate::clock::Window;
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, section, units};

pub use self::storage::Kind as StorageKind;

section! {
    /// DuckDB inside this process: SQL over a database file, or over JSON, CSV and Parquet files.
    ///
    /// A rule is one statement that only reads (`SELECT`, `FROM`, `WITH`, `VALUES`, `DESCRIBE`, `SUMMARIZE`);
    /// anything else is refused. Relative paths in queries (`read_json('logs/*.jsonl')`) start at the runner's
    /// folder. Nothing is fetched from a network: extensions are neither installed nor loaded by themselves.
    pub struct Config {
        /// `:memory:`, or the path of a database file, which is opened read-only, e.g.
        /// `/var/lib/logs/events.duckdb`.
        ///
        /// DuckDB holds a shared lock on the file, so another process cannot write it meanwhile: let it write a
        /// new file and rename it over the old one, which is noticed with the next query.
        #[read(database)]
        pub database: String = ":memory:",
        /// SQL that runs once whenever the database is opened, before anything is locked, e.g.
        /// `CREATE VIEW events AS FROM read_json('logs/*.jsonl')`.
        ///
        /// The database file stays read-only: what `init` creates lives in memory, beside the file's own tables,
        /// and every rule sees it. (Not so `TEMP` objects, `USE` and settings of a session: rules run in other
        /// sessions.) It may `LOAD` an extension that is installed on this machine and `CREATE SECRET`.
        pub init: Option<String>,
        /// Threads that one query may use. 1 is best for many small rules; they still run beside each other.
        #[read(threads)]
        pub threads: usize = "1",
        /// Memory for all queries together, e.g. `512MB`. A query that needs more fails; nothing is spilled to disk.
        #[read(memory_limit)]
        pub memory_limit: String = "1GB",
        /// The access key of object storage. With it, rules and `init` read `s3://`, `gcs://` and `r2://` addresses,
        /// e.g. `FROM read_parquet('s3://logs/auth/*.parquet')`.
        ///
        /// That takes DuckDB's extension `httpfs`, which must lie on this machine already
        /// (`~/.duckdb/extensions/VERSION/PLATFORM/httpfs.duckdb_extension`): nothing is fetched.
        pub s3_key: Option<Secret>,
        /// The secret that belongs to `s3_key`, e.g. `{env: S3_SECRET}`.
        pub s3_secret: Option<Secret>,
        /// Where the storage answers, e.g. `minio.example:9000`; without it, where the provider's own does
        /// (`s3.amazonaws.com`).
        pub s3_host: Option<String>,
        /// The region, e.g. `eu-central-1`.
        pub s3_region: String = "us-east-1",
        /// Whose storage it is: `s3` (Amazon, and all that speak like it), `gcs` (Google) or `r2` (Cloudflare).
        pub s3_type: StorageKind = "s3",
        /// The account at Cloudflare, for `s3_type: r2`.
        pub r2_account: String = "",
        /// Whether TLS is used to object storage.
        pub ssl: bool = "true",
        /// Whether the certificate of object storage is verified.
        pub verify: bool = "true",
    }
}

impl Default for Config {
    fn default() -> Self {
        crate::config::defaults()
    }
}

impl Config {
    /// Fails where settings cannot work together.
    pub fn check(&self) -> Result<(), SettingsError> {
        storage::check(self)
    }
}

/// The datasource `duckdb`.
///
/// A cell becomes the JSON that `cells` describes.
pub struct DuckDb {
    store: Arc<Store>,
    threads: Threads,
    settings: Map<String, Value>,
}

impl DuckDb {
    /// Opens nothing: the first query does, and each later one tries again while that fails.
    ///
    /// `base` is where relative paths start, of the database and in queries.
    pub fn new(config: Config, base: &Path) -> Self {
        let settings = Map::from_iter([
            ("type".to_owned(), json!("duckdb")),
            ("database".to_owned(), json!(config.database)),
            ("s3_host".to_owned(), json!(config.s3_host.as_deref().unwrap_or("s3.amazonaws.com"))),
            ("s3_region".to_owned(), json!(config.s3_region)),
            ("s3_type".to_owned(), config.s3_type.to_json()),
            ("r2_account".to_owned(), json!(config.r2_account)),
            ("ssl".to_owned(), json!(config.ssl)),
            ("verify".to_owned(), json!(config.verify)),
        ]);
        Self { store: Arc::new(Store::new(config, base)), threads: Threads::default(), settings }
    }
}

#[async_trait]
impl Datasource for DuckDb {
    async fn query(&self, query: &str, _window: Window, limits: &Limits) -> Result<Rows, QueryError> {
        let running = Arc::new(Running::default());
        let cancel = CancelOnDrop(running.clone());
        let (store, query, limits) = (self.store.clone(), query.to_owned(), *limits);
        let thread = self
            .threads
            .run(move || store.query(&query, &limits, &running))
            .map_err(|error| QueryError::Unavailable(format!("no thread for the query: {error}")))?;
        let answer = tokio::time::timeout(limits.time, thread).await;
        drop(cancel);
        let ended = answer.map_err(|_| QueryError::TimedOut { limit: limits.time })?;
        ended.map_err(|_| QueryError::Refused("DuckDB failed inside, see standard error".into()))?
    }

    async fn probe(&self, limit: Duration) -> Result<String, QueryError> {
        let store = self.store.clone();
        let thread = self.threads.run(move || store.probe());
        let thread =
            thread.map_err(|error| QueryError::Unavailable(format!("no thread for the query: {error}")))?;
        let answer = tokio::time::timeout(limit, thread).await.map_err(|_| QueryError::TimedOut { limit })?;
        answer.map_err(|_| QueryError::Refused("DuckDB failed inside, see standard error".into()))?
    }

    fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }
}

/// A query on its thread, as seen by whoever may stop it.
#[derive(Default)]
struct Running(Mutex<Phase>);

#[derive(Default)]
enum Phase {
    #[default]
    Waiting,
    Running(Arc<InterruptHandle>),
    /// With the connection, where the query had begun and has not ended yet.
    Cancelled(Option<Arc<InterruptHandle>>),
    Done,
}

impl Running {
    /// From now on `connection` works on this query alone, until the guard is dropped. None when the query was
    /// cancelled before.
    ///
    /// The guard has to go before the connection does: an interrupt of a connection that is being closed reads memory
    /// that is free already (`InnerConnection::close` of duckdb 1.x disconnects before it clears its handle).
    fn begin(&self, connection: Arc<InterruptHandle>) -> Option<Interruptible<'_>> {
        let mut phase = self.lock();
        matches!(*phase, Phase::Waiting).then(|| {
            *phase = Phase::Running(connection);
            Interruptible(self)
        })
    }

    fn is_cancelled(&self) -> bool {
        matches!(*self.lock(), Phase::Cancelled(_))
    }

    /// Nobody waits for the query any more.
    fn cancel(&self) {
        let mut phase = self.lock();
        *phase = match std::mem::replace(&mut *phase, Phase::Done) {
            Phase::Running(connection) => Phase::Cancelled(Some(connection)),
            Phase::Waiting => Phase::Cancelled(None),
            ended @ (Phase::Cancelled(_) | Phase::Done) => ended,
        };
    }

    /// Interrupts a query that was cancelled and has not ended yet; false where there is none.
    fn interrupt(&self) -> bool {
        // Under the lock, so that the connection is there as long as this takes.
        match &*self.lock() {
            Phase::Cancelled(Some(connection)) => {
                connection.interrupt();
                true
            }
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection at work, which may be interrupted until this is dropped.
struct Interruptible<'r>(&'r Running);

impl Interruptible<'_> {
    /// From now on nobody interrupts the connection. False when somebody did, and may have been late.
    fn end(self) -> bool {
        let phase = std::mem::replace(&mut *self.0.lock(), Phase::Done);
        matches!(phase, Phase::Running(_))
    }
}

impl Drop for Interruptible<'_> {
    fn drop(&mut self) {
        *self.0.lock() = Phase::Done;
    }
}

/// Stops the query's thread when nobody waits for its rows any more: at the time limit, at shutdown.
struct CancelOnDrop(Arc<Running>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
        // DuckDB forgets an interrupt that comes just before a statement starts, so it is repeated until the query
        // has ended. A cancelled connection is not used again, so this hits no other query.
        if self.0.interrupt()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let running = Arc::clone(&self.0);
            runtime.spawn_blocking(move || {
                while running.interrupt() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
        }
    }
}

/// `:memory:`, or a path relative to the runner.
fn database(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let database = String::from_yaml(node, reader)?;
    if database == ":memory:" {
        return Some(database);
    }
    if database.is_empty() {
        return reader.refuse(node, "a path or `:memory:`");
    }
    Some(reader.dir().join(database).to_string_lossy().into_owned())
}

fn threads(node: &Node, reader: &mut Reader<'_>) -> Option<usize> {
    let threads = usize::from_yaml(node, reader)?;
    if (1..=1024).contains(&threads) { Some(threads) } else { reader.refuse(node, "between 1 and 1024") }
}

fn memory_limit(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let size = String::from_yaml(node, reader)?;
    match units::bytes(&size) {
        Ok(_) => Some(size),
        Err(message) => {
            reader.error(node.at, message);
            None
        }
    }
}
