//! What the Statement Execution API answers.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cells::cell;
use crate::datasource::kept::{Kept, distinct};
use crate::datasource::{Limits, QueryError, Rows, bounded};

/// Of a statement: at its start, and whenever it is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) statement_id: String,
    pub(super) status: Status,
    manifest: Option<Manifest>,
    result: Option<Chunk>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) state: State,
    error: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum State {
    Pending,
    Running,
    Succeeded,
    Failed,
    Canceled,
    Closed,
}

#[derive(Debug, Deserialize)]
struct Failure {
    error_code: Option<String>,
    message: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    schema: Schema,
    total_row_count: Option<u64>,
    #[serde(default)]
    truncated: bool,
}

#[derive(Debug, Default, Deserialize)]
struct Schema {
    #[serde(default)]
    columns: Vec<Column>,
}

#[derive(Debug, Deserialize)]
struct Column {
    name: String,
    type_name: String,
}

/// A part of the result.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Chunk {
    /// Texts and nulls.
    #[serde(default)]
    data_array: Option<Vec<Vec<Value>>>,
    next_chunk_index: Option<u64>,
}

impl State {
    pub(super) fn is_under_way(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }
}

impl Status {
    /// Why there is no result; a statement that failed comes with HTTP 200.
    pub(super) fn failure(self) -> QueryError {
        let error = self.error.unwrap_or(Failure { error_code: None, message: None });
        let code = error.error_code.unwrap_or_default();
        let told = [code.as_str(), error.message.as_deref().unwrap_or_default()];
        let told: Vec<&str> = told.into_iter().filter(|text| !text.is_empty()).collect();
        let message = match bounded(&told.join(": ")) {
            told if told.is_empty() => format!("the statement's state is {:?}", self.state),
            told => told,
        };
        match code.as_str() {
            // The codes are those of the API's `ServiceError`.
            "UNAUTHENTICATED" | "PERMISSION_DENIED" => QueryError::Denied(message),
            "ABORTED"
            | "DEADLINE_EXCEEDED"
            | "INTERNAL_ERROR"
            | "IO_ERROR"
            | "REQUEST_LIMIT_EXCEEDED"
            | "RESOURCE_EXHAUSTED"
            | "SERVICE_UNDER_MAINTENANCE"
            | "TEMPORARILY_UNAVAILABLE"
            | "WORKSPACE_TEMPORARILY_UNAVAILABLE" => QueryError::Unavailable(message),
            _ if self.state == State::Failed => QueryError::Refused(message),
            // Somebody stopped it, or its result is gone.
            _ => QueryError::Unavailable(message),
        }
    }
}

/// The rows of a result, chunk by chunk.
pub(super) struct Found {
    names: Vec<String>,
    types: Vec<String>,
    kept: Kept,
    total: Option<u64>,
    is_cut: bool,
    /// The chunk that was read last, and the one after it.
    at: u64,
    next: Option<u64>,
}

impl Found {
    /// Takes the first chunk.
    pub(super) fn new(answer: Answer, limits: &Limits) -> Result<Self, QueryError> {
        let Some(manifest) = answer.manifest else { return Err(unreadable("the result has no manifest")) };
        let columns: Vec<&str> = manifest.schema.columns.iter().map(|column| column.name.as_str()).collect();
        let mut found = Self {
            names: distinct(&columns),
            types: manifest.schema.columns.into_iter().map(|column| column.type_name).collect(),
            kept: Kept::new(limits),
            total: manifest.total_row_count,
            is_cut: manifest.truncated,
            at: 0,
            next: None,
        };
        found.push(answer.result.unwrap_or_default())?;
        Ok(found)
    }

    /// Which chunk to get; none where all is here, or the rest needs only to be counted.
    pub(super) fn next_chunk(&mut self) -> Result<Option<u64>, QueryError> {
        if self.kept.is_full() && self.total.is_some() {
            return Ok(None);
        }
        let Some(next) = self.next.take() else { return Ok(None) };
        if next <= self.at {
            return Err(unreadable("the chunks of the result run in a circle"));
        }
        self.at = next;
        Ok(Some(next))
    }

    pub(super) fn push(&mut self, chunk: Chunk) -> Result<(), QueryError> {
        self.next = chunk.next_chunk_index;
        for cells in chunk.data_array.unwrap_or_default() {
            if cells.len() != self.names.len() {
                return Err(unreadable(&format!(
                    "a row has {} cells for {} columns",
                    cells.len(),
                    self.names.len()
                )));
            }
            if self.kept.is_full() {
                self.kept.count_on(1);
                continue;
            }
            let cells = cells.into_iter().zip(&self.types).map(|(value, kind)| cell(value, kind));
            self.kept.push(&self.names.iter().cloned().zip(cells).collect());
        }
        Ok(())
    }

    pub(super) fn into_rows(mut self) -> Result<Rows, QueryError> {
        if let Some(total) = self.total {
            let missing = total.checked_sub(self.kept.count());
            match missing {
                Some(0) => {}
                Some(missing) if self.kept.is_full() => self.kept.count_on(missing),
                _ => {
                    let came = self.kept.count();
                    return Err(unreadable(&format!("{came} rows came, the manifest says {total}")));
                }
            }
        }
        if self.is_cut {
            self.kept.note("there are more rows than were counted: Databricks cut the result at 24 MiB");
        }
        Ok(self.kept.into_rows())
    }
}

/// A body of a good answer.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, QueryError> {
    serde_json::from_slice(body)
        .map_err(|error| unreadable(&format!("it is not what Databricks answers: {error}")))
}

/// An id that can be a part of a path.
pub(super) fn id(text: &str) -> Result<&str, QueryError> {
    let is_plain =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_plain { Ok(text) } else { Err(unreadable("the statement has no id")) }
}

/// `{"error_code", "message"}`.
pub(super) fn words(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = |name: &str| body[name].as_str().filter(|text| !text.is_empty());
    match (text("error_code"), text("message")) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (code, message) => code.or(message).map(str::to_owned),
    }
}

/// Of a warehouse, e.g. ``Databricks SQL warehouse `Security` (RUNNING)``.
pub(super) fn describe(body: &[u8]) -> Result<String, QueryError> {
    let warehouse: Value = read(body)?;
    let text = |name: &str| warehouse[name].as_str().map(bounded);
    let (Some(name), Some(state)) = (text("name"), text("state")) else {
        return Err(unreadable("it does not describe a warehouse"));
    };
    Ok(format!("Databricks SQL warehouse `{name}` ({state})"))
}

fn unreadable(what: &str) -> QueryError {
    QueryError::Unreadable(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::Duration;

    fn answer(rows: &[[&str; 1]], total: u64, next: Option<u64>) -> Answer {
        let body = json!({
            "statement_id": "01ee-4",
            "status": {"state": "SUCCEEDED"},
            "manifest": {"format": "JSON_ARRAY", "schema": {"column_count": 1, "columns":
                [{"name": "n", "type_text": "INT", "type_name": "INT", "position": 0}]},
                "total_row_count": total, "total_chunk_count": 1, "truncated": false},
            "result": {"chunk_index": 0, "row_offset": 0, "row_count": rows.len(), "data_array": rows,
                "next_chunk_index": next}
        });
        read(body.to_string().as_bytes()).unwrap()
    }

    fn limits(rows: usize) -> Limits {
        Limits { time: Duration::from_secs(1), rows, bytes: 10_000 }
    }

    #[test]
    fn chunks_are_read_until_all_rows_that_are_kept_are_here() {
        let mut found = Found::new(answer(&[["1"], ["2"]], 5, Some(1)), &limits(3)).unwrap();
        assert_eq!(found.next_chunk().unwrap(), Some(1));
        found
            .push(
                serde_json::from_value(json!({"data_array": [["3"], ["4"]], "next_chunk_index": 2})).unwrap(),
            )
            .unwrap();
        assert_eq!(found.next_chunk().unwrap(), None, "what is left is only counted");
        let rows = found.into_rows().unwrap();
        assert_eq!((rows.count, rows.rows.len()), (5, 3));
        assert_eq!(Value::from(rows.rows[2].clone()), json!({"n": 3}));
    }

    #[test]
    fn rows_that_are_missing_or_too_many_are_an_error() {
        for total in [1, 3] {
            let found = Found::new(answer(&[["1"], ["2"]], total, None), &limits(10)).unwrap();
            assert!(matches!(found.into_rows(), Err(QueryError::Unreadable(_))), "{total}");
        }
        let mut found = Found::new(answer(&[["1"]], 9, Some(0)), &limits(10)).unwrap();
        assert!(found.next_chunk().is_err());
    }

    #[test]
    fn a_result_that_was_cut_is_said() {
        let mut body = answer(&[["1"]], 1, None);
        body.manifest.as_mut().unwrap().truncated = true;
        let rows = Found::new(body, &limits(10)).unwrap().into_rows().unwrap();
        assert_eq!(
            rows.cut.unwrap(),
            "there are more rows than were counted: Databricks cut the result at 24 MiB"
        );
    }

    #[test]
    fn a_statement_that_failed_says_why() {
        let failure = |status: Value| serde_json::from_value::<Status>(status).unwrap().failure();
        let refused = json!({"state": "FAILED",
            "error": {"error_code": "BAD_REQUEST", "message": "[TABLE_OR_VIEW_NOT_FOUND] no `x`"}});
        assert!(
            matches!(failure(refused), QueryError::Refused(text) if text == "BAD_REQUEST: [TABLE_OR_VIEW_NOT_FOUND] no `x`")
        );
        let busy = json!({"state": "FAILED", "error": {"error_code": "TEMPORARILY_UNAVAILABLE"}});
        assert!(matches!(failure(busy), QueryError::Unavailable(_)));
        let denied =
            json!({"state": "FAILED", "error": {"error_code": "PERMISSION_DENIED", "message": "no"}});
        assert!(matches!(failure(denied), QueryError::Denied(_)));
        let gone = failure(json!({"state": "CANCELED"}));
        assert!(matches!(gone, QueryError::Unavailable(text) if text == "the statement's state is Canceled"));
    }

    #[test]
    fn errors_are_told_in_the_apis_words() {
        let said = |text: &str| words(text.as_bytes());
        assert_eq!(said(r#"{"error_code":"NOT_FOUND","message":"no"}"#).unwrap(), "NOT_FOUND: no");
        assert_eq!(said(r#"{"message":"no"}"#).unwrap(), "no");
        assert_eq!(said("<html>"), None);
    }

    #[test]
    fn an_id_cannot_lead_to_another_path() {
        assert!(id("01ee-a_B").is_ok());
        for text in ["", "../warehouses", "a/b", "a?b", "a b"] {
            assert!(id(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_is_an_error_and_no_panic(bytes: Vec<u8>, at: usize, byte: u8) {
            assert!(read::<Answer>(&bytes).is_err());
            drop(words(&bytes));
            let mut body = json!({"statement_id": "a", "status": {"state": "SUCCEEDED"}, "manifest": {"schema":
                {"columns": [{"name": "n", "type_name": "MAP"}]}, "total_row_count": 1}, "result": {"data_array":
                [["{\"a\":1}"]], "next_chunk_index": null}}).to_string().into_bytes();
            let place = at % body.len();
            body[place] = byte;
            if let Ok(answer) = read::<Answer>(&body)
                && let Ok(found) = Found::new(answer, &limits(1))
            {
                drop(found.into_rows());
            }
        }
    }
}
