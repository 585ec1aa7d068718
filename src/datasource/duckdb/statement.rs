//! What a rule may be: one statement that only reads.

use std::borrow::Cow;
use std::sync::LazyLock;

use ::duckdb::Connection;
use regex::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::store::refused;
use crate::datasource::QueryError;

/// Refuses what is not exactly one reading statement, by DuckDB's own parser.
///
/// The crate runs all but the last statement of a text when it *prepares* it, so this comes before.
pub(super) fn check(connection: &Connection, query: &str) -> Result<(), QueryError> {
    let tree: String = connection
        .prepare_cached("SELECT json_serialize_sql(?::VARCHAR)")
        .and_then(|mut statement| statement.query_row([query], |row| row.get(0)))
        .map_err(|error| refused(&error))?;
    let parsed: Parsed<'_> = serde_json::from_str(&tree)
        .map_err(|error| QueryError::Refused(format!("DuckDB's parser answered `{error}`")))?;
    let reason = match (parsed.error_type.as_deref(), parsed.statements.len()) {
        (Some("not implemented"), _) => {
            "only a statement that reads is allowed here, e.g. `SELECT`, `FROM` or `WITH`; what changes or sets \
             something belongs into `init` (`PIVOT` needs its values: `PIVOT t ON c IN (...)`)"
                .to_owned()
        }
        (Some(_), _) => parsed.message(query),
        (None, 0) => "the query is empty".to_owned(),
        (None, 1) => match WRITERS.captures(&tree) {
            None => return Ok(()),
            Some(found) => format!("`{}` is not allowed here: it can change more than it reads", &found[1]),
        },
        (None, n) => format!("{n} statements, and only one is allowed here"),
    };
    Err(QueryError::Refused(reason))
}

/// The answer of `json_serialize_sql`.
#[derive(Deserialize)]
struct Parsed<'a> {
    #[serde(borrow)]
    error_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error_message: Option<Cow<'a, str>>,
    /// Bytes before the error, as text.
    #[serde(borrow)]
    position: Option<Cow<'a, str>>,
    #[serde(default)]
    statements: Vec<IgnoredAny>,
}

impl Parsed<'_> {
    fn message(&self, query: &str) -> String {
        let said = self.error_message.as_deref().unwrap_or("syntax error").trim();
        let before = self.position.as_deref().and_then(|at| query.get(..at.parse().ok()?));
        match before {
            Some(before) => {
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
                format!("Parser Error: {said} (line {line}, column {column} of the query)")
            }
            None => format!("Parser Error: {said}"),
        }
    }
}

/// Functions that a `SELECT` can call and that write files, change settings, or run SQL that was not checked. Quotes
/// inside the query's own strings are escaped in the tree, so only names of functions match.
static WRITERS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?i)"function_name":"((?:enable|disable)_\w+|truncate_duckdb_logs|write_log|checkpoint|force_checkpoint|verify_\w+|query|json_execute_serialized_sql|import_database|copy_database|add_parquet_key)""#,
    )
    .expect("a constant pattern")
});
