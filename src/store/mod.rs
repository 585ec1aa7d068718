//! The one place that speaks SQL to our own database: SQLite in WAL mode.
//!
//! All writes go through one thread that commits in groups: what waits is applied, each in a savepoint of
//! its own, and committed together, so that a thousand rules cost one sync to disk and not a thousand. A
//! caller hears of success only after the commit. Reads have connections of their own and never wait for it.

pub mod alerts;
pub mod closings;
pub mod history;
pub mod judges;
pub mod measured;
mod migrations;
pub mod outbox;
pub mod paces;
pub mod queue;
pub mod rules;
mod series;
#[cfg(test)]
mod testing;
pub mod trust;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction};
use tokio::sync::{Notify, Semaphore, oneshot};

/// The database, shared by all tasks; clones are handles to the same one.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    jobs: mpsc::SyncSender<Box<dyn Job>>,
    readers: Mutex<Vec<Connection>>,
    reading: Semaphore,
    signals: Signals,
    /// Held while the service runs on this store; released by the system when the process ends, however.
    _lock: Option<File>,
}

/// What waits for new work, woken by who saved it: no polling.
#[derive(Default)]
pub struct Signals {
    /// An alert came into the triage queue, from a search or from one step to the next.
    pub alert_saved: Notify,
    /// A delivery may be due earlier than the outbox knew.
    pub outbox_changed: Notify,
}

/// Why the store did not do it. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store `{path}`: {reason}")]
    Open { path: String, reason: String },
    #[error(
        "store `{path}` is in use by another watchpost ({owner}); stop it, or give this one a `store:` of its own"
    )]
    InUse { path: String, owner: String },
    #[error("store: {0}")]
    Sql(#[from] rusqlite::Error),
    #[error("store is closed")]
    Closed,
}

/// Who opens the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The service: the only one of its kind on this store at a time.
    Service,
    /// A command beside it (`alerts`, `deliveries retry`, ...): the store must exist.
    Command,
}

impl Store {
    /// Opens `path`, creating it for the service, and brings its tables up to date.
    ///
    /// Fails where the folder does not exist or cannot be written, the disk is full, the file is no database
    /// or of a newer watchpost, or another service holds it.
    pub fn open(path: &Path, access: Access) -> Result<Self, StoreError> {
        let lock = match access {
            Access::Service => Some(lock(path)?),
            Access::Command if !path.exists() => {
                return Err(open_error(
                    path,
                    "no such file: has `watchpost run` been started with this runner?",
                ));
            }
            Access::Command => None,
        };
        let mut writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        let is_done = migrations::is_done(&writer).map_err(|error| open_error(path, error))?;
        if access == Access::Service {
            migrations::run(&mut writer).map_err(|error| open_error(path, error))?;
        } else if !is_done {
            bring_up_to_date(&mut writer, path)?;
        }
        let (jobs, queue) = mpsc::sync_channel(4096);
        std::thread::Builder::new()
            .name("store".into())
            .spawn(move || write_in_groups(writer, &queue))
            .map_err(|error| open_error(path, error))?;
        let inner = Inner {
            path: path.to_owned(),
            jobs,
            readers: Mutex::default(),
            reading: Semaphore::new(MAX_READERS),
            signals: Signals::default(),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn signals(&self) -> &Signals {
        &self.inner.signals
    }

    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Runs `work` in the writer's transaction and returns after the commit. Where `work` fails nothing of
    /// it remains, and nobody else's work is touched.
    pub async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Box<dyn Job> = Box::new(Write { work: Some(work), result: None, answer: Some(answer) });
        // The queue is long and the writer fast; where it is full all the same, wait without a thread.
        let mut job = Some(job);
        while let Some(waiting) = job.take() {
            match self.inner.jobs.try_send(waiting) {
                Ok(()) => {}
                Err(mpsc::TrySendError::Full(back)) => {
                    job = Some(back);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(StoreError::Closed),
            }
        }
        answered.await.map_err(|_| StoreError::Closed)?.map_err(StoreError::Sql)
    }

    /// Runs `work` on a reading connection, on a blocking thread. Few run at a time: a thousand rules that start
    /// together would take a thread and a connection each, and their memory stays.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let _turn = self.inner.reading.acquire().await.map_err(|_| StoreError::Closed)?;
        let store = self.clone();
        tokio::task::spawn_blocking(move || store.read_here(work)).await.map_err(|_| StoreError::Closed)?
    }

    /// [`Store::read`] on this thread, for commands.
    pub fn read_here<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => connect(&self.inner.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?,
        };
        let result = work(&reader)?;
        let mut readers = self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < MAX_READERS {
            readers.push(reader);
        }
        Ok(result)
    }
}

/// One piece of work for the writer. Type-erased so that one queue serves all results.
trait Job: Send {
    /// Runs inside a savepoint; an error undoes it.
    fn run(&mut self, transaction: &Transaction<'_>) -> bool;
    /// Tells the caller: what `run` said, or why the commit failed.
    fn settle(self: Box<Self>, commit: Option<&rusqlite::Error>);
}

struct Write<T, F> {
    work: Option<F>,
    result: Option<rusqlite::Result<T>>,
    answer: Option<oneshot::Sender<rusqlite::Result<T>>>,
}

impl<T, F> Job for Write<T, F>
where
    T: Send,
    F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> bool {
        let Some(work) = self.work.take() else { return false };
        let result = work(transaction);
        let succeeded = result.is_ok();
        self.result = Some(result);
        succeeded
    }

    fn settle(mut self: Box<Self>, commit: Option<&rusqlite::Error>) {
        let result = match (self.result.take(), commit) {
            (Some(Ok(_)) | None, Some(error)) => Err(copy_of(error)),
            (Some(result), _) => result,
            (None, None) => Err(rusqlite::Error::ExecuteReturnedResults),
        };
        if let Some(answer) = self.answer.take() {
            // The caller may have gone (its task was cancelled): what is committed stays committed.
            drop(answer.send(result));
        }
    }
}

fn write_in_groups(mut connection: Connection, queue: &mpsc::Receiver<Box<dyn Job>>) {
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(MAX_GROUP - 1));
        let failure = commit(&mut connection, &mut group).err();
        if let Some(error) = &failure {
            tracing::error!(%error, jobs = group.len(), "store: nothing of this group was saved");
        }
        for job in group {
            job.settle(failure.as_ref());
        }
    }
}

fn commit(connection: &mut Connection, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    for job in group {
        transaction.prepare_cached("SAVEPOINT job")?.execute([])?;
        let undo = !job.run(&transaction);
        if undo {
            transaction.prepare_cached("ROLLBACK TO job")?.execute([])?;
        }
        transaction.prepare_cached("RELEASE job")?.execute([])?;
    }
    transaction.commit()
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // An alert that was reported as saved is on the disk also after a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // What a savepoint would take back, some pages an alert, would go through a temporary file.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // All that a saved alert takes: the 16 of the library would prepare some of them again for each alert.
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|error| {
        open_error(path, format!("{error}; give `store:` a path in a folder that watchpost may write to"))
    })
}

/// Tables of an older watchpost, met by a command: its service must not run on them meanwhile.
fn bring_up_to_date(writer: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let _lock = lock(path).map_err(|error| match error {
        StoreError::InUse { owner, .. } => {
            open_error(path, format!("an older watchpost runs on it ({owner}): restart it, then try again"))
        }
        error => error,
    })?;
    migrations::run(writer).map_err(|error| open_error(path, error))
}

/// Takes the lock file beside the store, and writes into it who holds it.
fn lock(path: &Path) -> Result<File, StoreError> {
    let lock_path = PathBuf::from(format!("{}.lock", path.display()));
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(|error| open_error(path, format!("cannot write `{}`: {error}", lock_path.display())))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let owner = match file.read_to_string(&mut owner) {
                Ok(_) if !owner.trim().is_empty() => owner.trim().to_owned(),
                _ => "its process id is not known".to_owned(),
            };
            return Err(StoreError::InUse { path: path.display().to_string(), owner });
        }
        Err(TryLockError::Error(error)) => return Err(open_error(path, error)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "process {}", std::process::id()))
        .map_err(|error| open_error(path, error))?;
    Ok(file)
}

fn open_error(path: &Path, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Open { path: path.display().to_string(), reason: reason.to_string() }
}

/// `rusqlite::Error` cannot be cloned, and one failed commit has many callers.
fn copy_of(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()),
        other => rusqlite::Error::ToSqlConversionFailure(other.to_string().into()),
    }
}

/// Jobs in one commit: bounds how long the first of them waits.
const MAX_GROUP: usize = 512;
/// Connections that read at one time, and that are kept.
const MAX_READERS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("test.db"), Access::Service).unwrap();
        (dir, store)
    }

    fn count(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("SELECT count(*) FROM gaps", [], |row| row.get(0))
    }

    const INSERT: &str = "INSERT INTO gaps (detector, rule, start_s, end_s, reason, recorded_ms) VALUES ('d', 'r', 0, 1, 'x', 0)";

    #[tokio::test]
    async fn one_failed_write_takes_no_other_with_it() {
        let (_dir, store) = store();
        let (good, bad, also_good) = tokio::join!(
            store.write(|tx| tx.execute(INSERT, [])),
            store.write(|tx| {
                tx.execute(INSERT, [])?;
                tx.execute("INSERT INTO nowhere VALUES (1)", [])
            }),
            store.write(|tx| tx.execute(INSERT, [])),
        );
        assert!(good.is_ok() && also_good.is_ok());
        assert!(bad.unwrap_err().to_string().contains("nowhere"));
        assert_eq!(store.read(count).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_second_service_on_one_store_is_refused_and_told_who_holds_it() {
        let (dir, store) = store();
        let path = dir.path().join("test.db");
        let refused = Store::open(&path, Access::Service).err().unwrap().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(Store::open(&path, Access::Command).is_ok());
        drop(store);
        assert!(Store::open(&path, Access::Service).is_ok());
    }

    #[test]
    fn a_command_does_not_create_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none.db");
        let error = Store::open(&path, Access::Command).err().unwrap().to_string();
        assert!(error.contains("no such file"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_command_brings_older_tables_up_to_date_unless_their_service_runs() {
        let (dir, store) = store();
        let path = dir.path().join("test.db");
        let age = |store: &Store| {
            let older = "ALTER TABLE deliveries DROP COLUMN receipt; PRAGMA user_version = 8";
            store.read_here(|connection| connection.execute_batch(older)).unwrap();
        };
        age(&store);
        let error = Store::open(&path, Access::Command).err().unwrap().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())) && error.contains("restart"),
            "{error}"
        );
        drop(store);
        let store = Store::open(&path, Access::Command).unwrap();
        assert_eq!(store.read_here(|connection| closings::list(connection, None, None, 1)).unwrap(), []);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        std::fs::write(&path, "this is a text file, long enough to be taken for a header of a database")
            .unwrap();
        let error = Store::open(&path, Access::Service).err().unwrap().to_string();
        assert!(error.contains("not a database"), "{error}");
    }
}
