//! What a rule may be: one statement that only reads.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};

use ::duckdb::Connection;
use regex::Regex;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::store::refused;
use crate::datasource::QueryError;

/// The queries that passed, by their shape, so that a rule is checked once and not every tick: the check costs
/// about 35 µs of processor time, the planning of a small query 150 µs.
#[derive(Default)]
pub(super) struct Checks {
    passed: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl Checks {
    /// Refuses what is not exactly one reading statement, by DuckDB's own parser.
    ///
    /// The crate runs all but the last statement of a text when it *prepares* it, so this comes before.
    pub(super) fn check(&self, connection: &Connection, query: &str) -> Result<(), QueryError> {
        let shape = self.hasher.hash_one(shape(query));
        if self.lock().contains(&shape) {
            return Ok(());
        }
        check(connection, query)?;
        let mut passed = self.lock();
        if passed.len() >= SHAPES {
            passed.clear();
        }
        passed.insert(shape);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shapes remembered; 16 bytes each.
const SHAPES: usize = 50_000;

/// `query` with each number as `0`, because a rule's text differs from tick to tick in its times. Digits in a name or
/// in the tag of a `$tag1$` quotation stay, so two queries of one shape are the same kind of statement.
fn shape(query: &str) -> String {
    let mut shape = String::with_capacity(query.len());
    let (mut before, mut is_number) = (' ', false);
    for char in query.chars() {
        let begins = !(before.is_alphanumeric() || matches!(before, '_' | '$') || !before.is_ascii());
        let continues = is_number;
        is_number = char.is_ascii_digit() && (begins || is_number);
        if !is_number {
            shape.push(char);
        } else if !continues {
            shape.push('0');
        }
        before = char;
    }
    shape
}

fn check(connection: &Connection, query: &str) -> Result<(), QueryError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_left_out_of_a_shape() {
        assert_eq!(shape("SELECT 12, t1.a FROM t1 WHERE x>=1700000000"), "SELECT 0, t1.a FROM t1 WHERE x>=0");
        assert_eq!(shape("'2026-11-23'"), "'0-0-0'");
        for (one, other) in
            [("FROM t1", "FROM t2"), ("$a1$ ;", "$a2$ ;"), ("$1", "$2"), ("é1", "é2"), ("1;2", "12")]
        {
            assert_ne!(shape(one), shape(other));
        }
    }
}
