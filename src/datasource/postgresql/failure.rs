//! What PostgreSQL's errors mean. <https://www.postgresql.org/docs/current/errcodes-appendix.html>

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, ErrorPosition};

use crate::datasource::{QueryError, bounded};

/// Why there is no connection.
pub(super) fn of_connect(error: &Error, host: &str) -> QueryError {
    if let Some(told) = error.as_db_error() {
        let text = format!("{host}: {}", message(told, ""));
        // A wrong password; a database that this user may not connect to.
        let is_denied = class(told) == "28" || told.code().code() == "42501";
        return if is_denied { QueryError::Denied(text) } else { QueryError::Unavailable(text) };
    }
    let reason = reason(error);
    // Words of the library, which tells these by nothing else.
    if error.to_string().starts_with("authentication error")
        || error.to_string().starts_with("invalid configuration")
    {
        return QueryError::Denied(format!("{host}: {reason}"));
    }
    QueryError::Unavailable(format!("{host} cannot be reached: {reason}"))
}

/// Why a query gave no rows; `has_begun` where it was running.
pub(super) fn of_query(
    error: &Error,
    query: &str,
    limit: Duration,
    host: &str,
    has_begun: bool,
) -> QueryError {
    let Some(told) = error.as_db_error() else {
        let reason = reason(error);
        return match has_begun {
            true => QueryError::Unreadable(format!("it broke off: {reason}")),
            false => QueryError::Unavailable(format!("{host} closed the connection: {reason}")),
        };
    };
    let text = message(told, query);
    match told.code().code() {
        "57014" if told.message().contains("statement timeout") => QueryError::TimedOut { limit },
        "42501" => QueryError::Denied(text),
        _ => match class(told) {
            // Connection, transaction rollback, resources, intervention of an operator, system.
            "08" | "40" | "53" | "57" | "57P" | "58" => QueryError::Unavailable(text),
            _ => QueryError::Refused(text),
        },
    }
}

/// Whether the server has ended the query and goes on with the connection.
pub(super) fn is_usable(error: &Error) -> bool {
    error.as_db_error().is_some_and(|told| class(told) != "57P" && class(told) != "08")
}

/// The class of an error, and of those that end a connection `57P`.
fn class(told: &DbError) -> &str {
    let code = told.code().code();
    let digits = if code.starts_with("57P") { 3 } else { 2 };
    code.get(..digits).unwrap_or_default()
}

/// The server's own words, with where in `query` it stopped.
fn message(told: &DbError, query: &str) -> String {
    let mut text = told.message().to_owned();
    for more in [told.detail(), told.hint()].into_iter().flatten() {
        text.push_str(": ");
        text.push_str(more);
    }
    if let Some(ErrorPosition::Original(position)) = told.position()
        && *position > 0
        && !query.is_empty()
    {
        let before: String = query.chars().take(*position as usize - 1).collect();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        text.push_str(&format!(" (line {line}, column {column} of the query)"));
    }
    bounded(&text)
}

/// What lies beneath, or where nothing does, the outermost words.
fn reason(error: &Error) -> String {
    let mut reasons = Vec::new();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !reasons.contains(&text) {
            reasons.push(text);
        }
        source = inner.source();
    }
    if reasons.is_empty() { error.to_string() } else { bounded(&reasons.join(": ")) }
}
