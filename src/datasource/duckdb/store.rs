//! The open database, its connections, and one query from checkout to rows. Blocks: runs on blocking threads.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ::duckdb::{Config as Flags, Connection};

use super::kept::Batches;
use super::statement::Checks;
use super::{Config, Running, storage};
use crate::datasource::{Limits, QueryError, Rows, bounded};

/// Opens on demand, and again when the file was replaced.
pub(super) struct Store {
    config: Config,
    base: PathBuf,
    /// `None` in memory.
    file: Option<PathBuf>,
    open: Mutex<Option<Database>>,
    checks: Checks,
}

/// An open database and its connections that wait for a query.
struct Database {
    root: Connection,
    /// Where a session looks for tables, where that is not DuckDB's default.
    search_path: Option<String>,
    stamp: Option<Stamp>,
    idle: Vec<Connection>,
}

/// Tells a file from one that was put in its place: device, inode, length, and time of change in nanoseconds.
type Stamp = (u64, u64, u64, i128);

impl Store {
    pub(super) fn new(config: Config, base: &Path) -> Self {
        let file = (config.database != ":memory:").then(|| base.join(&config.database));
        Self { config, base: base.to_owned(), file, open: Mutex::new(None), checks: Checks::default() }
    }

    pub(super) fn query(&self, query: &str, limits: &Limits, running: &Running) -> Result<Rows, QueryError> {
        if running.is_cancelled() {
            return Err(cancelled());
        }
        let (connection, stamp) = self.checkout()?;
        let Some(interruptible) = running.begin(connection.interrupt_handle()) else {
            return Err(cancelled());
        };
        let rows =
            self.checks.check(&connection, query).and_then(|()| read(&connection, query, limits, running));
        let is_clean = interruptible.end();
        match &rows {
            Err(QueryError::Refused(text)) if text.contains("has been invalidated") => *self.lock() = None,
            _ if is_clean => self.give_back(connection, stamp),
            _ => {}
        }
        rows
    }

    /// Opens the database as a query would, and says which DuckDB it is.
    pub(super) fn probe(&self) -> Result<String, QueryError> {
        let (connection, stamp) = self.checkout()?;
        let version: String = connection
            .query_row("SELECT version()", [], |row| row.get(0))
            .map_err(|error| unavailable(&error))?;
        self.give_back(connection, stamp);
        Ok(format!("DuckDB {version}"))
    }

    fn checkout(&self) -> Result<(Connection, Option<Stamp>), QueryError> {
        let stamp = self.file.as_deref().map(stamp).transpose()?;
        let mut open = self.lock();
        if open.as_ref().is_none_or(|database| database.stamp != stamp) {
            // The old one first: two would take twice the memory limit.
            *open = None;
            *open = Some(self.open(stamp)?);
        }
        let database = open.as_mut().expect("it was opened above");
        let connection = match database.idle.pop() {
            Some(connection) => connection,
            None => database.session().map_err(|error| unavailable(&error))?,
        };
        Ok((connection, stamp))
    }

    fn give_back(&self, connection: Connection, stamp: Option<Stamp>) {
        if let Some(database) = self.lock().as_mut()
            && database.stamp == stamp
            && database.idle.len() < IDLE_CONNECTIONS
        {
            database.idle.push(connection);
        }
    }

    fn open(&self, stamp: Option<Stamp>) -> Result<Database, QueryError> {
        let flags = self.flags().map_err(|error| unavailable(&error))?;
        let root = Connection::open_in_memory_with_flags(flags).map_err(|error| unavailable(&error))?;
        // Where there is no time zone data, timestamps are UTC anyway.
        let search_path = (|| {
            root.execute_batch("SET GLOBAL arrow_lossless_conversion = true")?;
            if has_setting(&root, "TimeZone")? {
                root.execute_batch("SET GLOBAL TimeZone = 'UTC'")?;
            }
            match &self.file {
                Some(file) => attach(&root, file).map(Some),
                None => Ok(None),
            }
        })()
        .map_err(|error: ::duckdb::Error| unavailable(&error))?;
        let database = Database { root, search_path, stamp, idle: Vec::new() };
        storage::open(&database.root, &self.config)?;
        let init = database.session().map_err(|error| unavailable(&error))?;
        if let Some(sql) = &self.config.init {
            init.execute_batch(sql)
                .map_err(|error| QueryError::Unavailable(format!("init: {}", text(&error))))?;
        }
        init.execute_batch("SET GLOBAL lock_configuration = true").map_err(|error| unavailable(&error))?;
        Ok(database)
    }

    /// A database in memory even where there is a file, which is attached to it: so `init` has a place to create
    /// views for every session although the file is read-only.
    fn flags(&self) -> ::duckdb::Result<Flags> {
        Flags::default()
            .with("threads", self.config.threads.max(1).to_string())?
            .with("memory_limit", &self.config.memory_limit)?
            .with("temp_directory", "")?
            .with("autoinstall_known_extensions", "false")?
            .with("autoload_known_extensions", "false")?
            .with("allow_community_extensions", "false")?
            .with("allow_persistent_secrets", "false")?
            .with("file_search_path", self.base.to_string_lossy())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Database>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database {
    fn session(&self) -> ::duckdb::Result<Connection> {
        let session = self.root.try_clone()?;
        if let Some(path) = &self.search_path {
            session.execute_batch(&format!("SET search_path = {}", quoted(path)))?;
        }
        Ok(session)
    }
}

/// Streams the rows, so that memory is that of the kept ones, and counts all of them.
fn read(
    connection: &Connection,
    query: &str,
    limits: &Limits,
    running: &Running,
) -> Result<Rows, QueryError> {
    let mut statement = connection.prepare(query).map_err(|error| refused(&error))?;
    drop(statement.stream_arrow([]).map_err(|error| refused(&error))?);
    let mut kept = Batches::new(&statement.schema(), limits);
    while let Some(batch) = statement.step().map_err(|error| refused(&error))? {
        if running.is_cancelled() {
            return Err(cancelled());
        }
        kept.push(&batch);
    }
    Ok(kept.into_rows())
}

/// Attaches `file` read-only and returns the search path: what `init` creates goes to memory and is found first,
/// then the tables of the file.
fn attach(root: &Connection, file: &Path) -> ::duckdb::Result<String> {
    root.execute_batch(&format!("ATTACH {} (READ_ONLY)", quoted(&file.to_string_lossy())))?;
    let name: String = root.query_row(
        "SELECT database_name FROM duckdb_databases() WHERE NOT internal AND path IS NOT NULL",
        [],
        |row| row.get(0),
    )?;
    Ok(format!("memory.main,\"{}\".main", name.replace('"', "\"\"")))
}

fn has_setting(root: &Connection, name: &str) -> ::duckdb::Result<bool> {
    root.query_row("SELECT count(*) > 0 FROM duckdb_settings() WHERE name = ?", [name], |row| row.get(0))
}

fn stamp(file: &Path) -> Result<Stamp, QueryError> {
    let meta = fs::metadata(file)
        .map_err(|error| QueryError::Unavailable(format!("`{}`: {error}", file.display())))?;
    let changed = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    Ok((meta.dev(), meta.ino(), meta.len(), changed))
}

fn unavailable(error: &::duckdb::Error) -> QueryError {
    QueryError::Unavailable(text(error))
}

/// Files that cannot be read say nothing against the query: they may be back for the next tick.
pub(super) fn refused(error: &::duckdb::Error) -> QueryError {
    let text = text(error);
    if text.starts_with("IO Error") { QueryError::Unavailable(text) } else { QueryError::Refused(text) }
}

fn cancelled() -> QueryError {
    QueryError::Refused("cancelled".into())
}

/// DuckDB's own words, with its `LINE 1:` marker.
fn text(error: &::duckdb::Error) -> String {
    bounded(&error.to_string())
}

pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Connections kept for the next query. Each costs little; a burst of slow queries shall not leave them behind.
const IDLE_CONNECTIONS: usize = 8;
