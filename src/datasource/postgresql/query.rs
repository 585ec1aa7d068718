//! One query on one connection.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use serde_json::Map;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow, Statement};

use super::pool::{Link, Wire};
use super::{cells, failure, statement};
use crate::datasource::kept::{Kept, distinct};
use crate::datasource::{Limits, QueryError, Rows};

/// Why there are no rows.
pub(super) struct Failed {
    pub error: QueryError,
    /// The server has ended the query, and the connection can be used again.
    pub is_ended: bool,
    /// The connection was gone before anything was asked.
    pub is_stale: bool,
}

/// Runs `query` in a transaction that only reads, and leaves that open.
///
/// The server writes values as text, whose forms PostgreSQL guarantees for every type, those of extensions too; the
/// types come from preparing the statement, which also refuses a second one. Rows are fetched through a cursor: those
/// that are not kept are counted by moving it to the end, and are neither written nor sent. But a plan that uses
/// several processes would use one behind a cursor, so it is streamed and its rows are counted as they come.
pub(super) async fn run(link: &mut Link, query: &str, limits: &Limits, host: &str) -> Result<Rows, Failed> {
    let (client, wire) = link.parts();
    let is_plan = statement::is_plan(query);
    let begun = begin(client, wire, query, is_plan, limits).await;
    let (statement, is_parallel) = begun.map_err(|(error, is_stale)| Failed {
        is_ended: failure::is_usable(&error),
        is_stale,
        error: failure::of_query(&error, query, limits.time, host, false),
    })?;
    if let Some(reason) = unfit(&statement) {
        return Err(Failed { error: QueryError::Refused(reason), is_ended: true, is_stale: false });
    }
    let is_parallel = is_parallel.map_err(|error| Failed {
        is_ended: failure::is_usable(&error),
        is_stale: false,
        // Its places are those of `EXPLAIN`.
        error: failure::of_query(&error, "", limits.time, host, false),
    })?;
    let mut taking = Taking::new(&statement, limits);
    let read = if is_plan && !is_parallel {
        taking.through_cursor(client, wire, query, limits).await
    } else {
        taking.directly(client, wire, query).await
    };
    match read {
        Ok(()) => Ok(taking.kept.into_rows()),
        Err(error) => Err(Failed {
            is_ended: failure::is_usable(&error),
            is_stale: false,
            error: failure::of_query(&error, query, limits.time, host, true),
        }),
    }
}

/// Opens the transaction and prepares `query`; says whether its plan is a parallel one. All in one round trip. The
/// error comes with whether already the first statement failed, which a connection that is alive runs.
async fn begin(
    client: &Client,
    wire: &mut Wire,
    query: &str,
    is_plan: bool,
    limits: &Limits,
) -> Result<(Statement, Result<bool, Error>), (Error, bool)> {
    // Nothing here changes what a query means, but how an interval is written where the query itself makes text of it.
    let begin = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {}; SET LOCAL cursor_tuple_fraction = 1; \
         SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'iso_8601'; SET LOCAL bytea_output = 'hex'; \
         SET LOCAL extra_float_digits = 3",
        limits.time.as_millis().max(1)
    );
    let explain = format!("EXPLAIN (COSTS OFF) {query}");
    let answers = wire.drive(async {
        let explained = async {
            if !is_plan {
                return Ok(false);
            }
            let lines = client.simple_query(&explain).await?;
            Ok(statement::is_parallel(lines.iter().filter_map(|line| match line {
                SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten(),
                _ => None,
            })))
        };
        // Each is sent before the answer to the one before has come; where one fails, so do those after it.
        Ok(tokio::join!(client.batch_execute(&begin), client.prepare(query), explained))
    });
    match answers.await {
        Ok((Err(error), _, _)) | Err(error) => Err((error, true)),
        Ok((_, Err(error), _)) => Err((error, false)),
        Ok((Ok(()), Ok(statement), is_parallel)) => Ok((statement, is_parallel)),
    }
}

/// Why the statement is no rule.
fn unfit(statement: &Statement) -> Option<String> {
    if statement.columns().is_empty() {
        return Some("the query returns no columns: a rule reads, e.g. with `SELECT`".into());
    }
    (!statement.params().is_empty()).then(|| "the query has parameters (`$1`): write the values".into())
}

struct Taking {
    names: Vec<String>,
    types: Vec<Type>,
    kept: Kept,
}

impl Taking {
    fn new(statement: &Statement, limits: &Limits) -> Self {
        let columns: Vec<&str> = statement.columns().iter().map(|column| column.name()).collect();
        Self {
            names: distinct(&columns),
            types: statement.columns().iter().map(|column| column.type_().clone()).collect(),
            kept: Kept::new(limits),
        }
    }

    async fn through_cursor(
        &mut self,
        client: &Client,
        wire: &mut Wire,
        query: &str,
        limits: &Limits,
    ) -> Result<(), Error> {
        let declare = format!("DECLARE watchpost NO SCROLL CURSOR FOR {query}");
        let fetch = format!("FETCH FORWARD {} FROM watchpost", limits.rows.saturating_add(1).min(MAX_FETCH));
        let fetched = wire.drive(async {
            let (declared, fetched) = tokio::join!(client.batch_execute(&declare), self.take(client, &fetch));
            declared.and(fetched)
        });
        if fetched.await? <= limits.rows as u64 {
            return Ok(());
        }
        let moved = wire.drive(self.take(client, "MOVE FORWARD ALL FROM watchpost")).await?;
        self.kept.count_on(moved);
        Ok(())
    }

    async fn directly(&mut self, client: &Client, wire: &mut Wire, query: &str) -> Result<(), Error> {
        wire.drive(self.take(client, query)).await.map(|_| ())
    }

    /// Takes the rows of `statement`; returns how many the server says there were.
    async fn take(&mut self, client: &Client, statement: &str) -> Result<u64, Error> {
        let mut answers = pin!(client.simple_query_raw(statement).await?);
        let mut count = 0;
        while let Some(answer) = answers.try_next().await? {
            match answer {
                SimpleQueryMessage::Row(_) if self.kept.is_full() => self.kept.count_on(1),
                SimpleQueryMessage::Row(row) => {
                    let row = self.row(&row)?;
                    self.kept.take(row);
                }
                SimpleQueryMessage::CommandComplete(rows) => count = rows,
                _ => {}
            }
        }
        Ok(count)
    }

    fn row(&self, row: &SimpleQueryRow) -> Result<Map<String, serde_json::Value>, Error> {
        let mut cells = Map::with_capacity(self.names.len());
        for (at, (name, kind)) in self.names.iter().zip(&self.types).enumerate() {
            let cell = row.try_get(at)?.map_or(serde_json::Value::Null, |text| cells::cell(kind, text));
            cells.insert(name.clone(), cell);
        }
        Ok(cells)
    }
}

/// What the server takes as a number of rows, a `bigint`, is more than any alert keeps.
const MAX_FETCH: usize = i32::MAX as usize;
