//! A statement in a warehouse: started, waited for, cancelled.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::reply::{self, Answer, Chunk, State};
use crate::datasource::QueryError;
use crate::datasource::web::{Deadline, Server};

/// One SQL warehouse.
pub(super) struct Warehouse {
    server: Server,
    id: String,
    catalog: Option<String>,
    /// Starts under way, and cancellations: they go on where nobody waits for the statement any more.
    tasks: TaskTracker,
}

impl Warehouse {
    pub(super) fn new(server: Server, id: String, catalog: Option<String>) -> Self {
        Self { server, id, catalog, tasks: TaskTracker::new() }
    }

    /// What `probe` says; wakes no warehouse.
    pub(super) async fn describe(&self, deadline: Deadline) -> Result<String, QueryError> {
        let request = self.server.get(&format!("/api/2.0/sql/warehouses/{}", self.id), &[], deadline)?;
        self.server.read(&request, reply::words, reply::describe).await
    }

    /// Returns when nothing is left to be cancelled, or after [`CANCEL_LIMIT`].
    pub(super) async fn close(&self) {
        self.tasks.close();
        if tokio::time::timeout(CANCEL_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!(statements = self.tasks.len(), "statements may go on in Databricks");
        }
    }

    async fn cancel(&self, statement: &str) {
        let path = format!("{STATEMENTS}/{statement}/cancel");
        let sent = async {
            let deadline = Deadline::after(CANCEL_LIMIT);
            let request = self.server.post(&path, &[], "application/json", b"{}".to_vec(), deadline)?;
            self.server.send(&request, reply::words).await.map(drop)
        };
        if let Err(error) = sent.await {
            tracing::warn!(%error, statement, "a statement could not be cancelled, it may go on in Databricks");
        }
    }
}

/// A statement that was started. Cancelled in the warehouse when this is dropped before it has ended.
pub(super) struct Statement {
    warehouse: Arc<Warehouse>,
    id: String,
    is_over: bool,
}

impl Statement {
    /// Starts `query` and waits for its result, of which the answer has the first chunk.
    pub(super) async fn run(
        warehouse: &Arc<Warehouse>,
        query: &str,
        deadline: Deadline,
    ) -> Result<(Self, Answer), QueryError> {
        let mut answer = start(warehouse, query, deadline).await?;
        let id = reply::id(&answer.statement_id)?.to_owned();
        let mut statement = Self { warehouse: Arc::clone(warehouse), id, is_over: false };
        let (mut pause, mut misses) = (FIRST_PAUSE, 0);
        while answer.status.state.is_under_way() {
            tokio::time::sleep(pause.min(deadline.left()?)).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
            answer = match statement.get("", deadline).await {
                Ok(later) => later,
                // It is asked again: a busy front end ends no statement.
                Err(QueryError::Unavailable(_)) if misses < MAX_MISSES => {
                    misses += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            misses = 0;
        }
        statement.is_over = true;
        match answer.status.state {
            State::Succeeded => Ok((statement, answer)),
            _ => Err(answer.status.failure()),
        }
    }

    /// A part of the result.
    pub(super) async fn chunk(&self, index: u64, deadline: Deadline) -> Result<Chunk, QueryError> {
        self.get(&format!("/result/chunks/{index}"), deadline).await
    }

    async fn get<T>(&self, part: &str, deadline: Deadline) -> Result<T, QueryError>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let request = self.warehouse.server.get(&format!("{STATEMENTS}/{}{part}", self.id), &[], deadline)?;
        self.warehouse.server.read(&request, reply::words, reply::read).await
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let (warehouse, id) = (Arc::clone(&self.warehouse), std::mem::take(&mut self.id));
        // Outside of a runtime nothing is left that could send.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = warehouse.tasks.clone();
            tasks.spawn_on(async move { warehouse.cancel(&id).await }, &runtime);
        }
    }
}

/// Asks for the statement's start, which answers at once with its id: waiting is left to us, since only who knows the
/// id can cancel.
///
/// A task of its own sends it, so that whoever stops waiting meanwhile leaves no statement behind that runs.
async fn start(warehouse: &Arc<Warehouse>, query: &str, deadline: Deadline) -> Result<Answer, QueryError> {
    let mut body = json!({
        "warehouse_id": warehouse.id,
        "statement": query,
        "wait_timeout": "0s",
        "on_wait_timeout": "CONTINUE",
        "disposition": "INLINE",
        "format": "JSON_ARRAY",
        "byte_limit": BYTE_LIMIT,
    });
    if let Some(catalog) = &warehouse.catalog {
        body["catalog"] = Value::from(catalog.as_str());
    }
    let body = body.to_string().into_bytes();
    let mut request = warehouse.server.post(STATEMENTS, &[], "application/json", body, deadline)?;
    request.timeout += CANCEL_LIMIT;
    let (give, given) = oneshot::channel();
    let sender = Arc::clone(warehouse);
    warehouse.tasks.spawn(async move {
        let answer: Result<Answer, _> = sender.server.read(&request, reply::words, reply::read).await;
        if let Err(Ok(answer)) = give.send(answer)
            && answer.status.state.is_under_way()
            && let Ok(id) = reply::id(&answer.statement_id)
        {
            sender.cancel(id).await;
        }
    });
    match tokio::time::timeout(deadline.left()?, given).await {
        Ok(answer) => answer.map_err(|_| QueryError::Unavailable("the request was given up".into()))?,
        Err(_) => Err(deadline.is_up()),
    }
}

const STATEMENTS: &str = "/api/2.0/sql/statements";
/// An inline result of more than 25 MiB is an error; one that is limited is cut, and says so.
const BYTE_LIMIT: u64 = 24 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Questions in a row for a statement's state that may fail.
const MAX_MISSES: u32 = 3;
const CANCEL_LIMIT: Duration = Duration::from_secs(5);
