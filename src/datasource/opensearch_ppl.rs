//! OpenSearch's Piped Processing Language, as its SQL plugin answers it.
//!
//! <https://docs.opensearch.org/latest/sql-and-ppl/sql-and-ppl-api/index/>

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::kept::{Kept, distinct};
use super::web::{Access, Deadline, Server};
use super::{Datasource, Limits, QueryError, Rows, SettingsError, bounded};
use crate::clock::Window;
use crate::config::{Url, section};

section! {
    /// OpenSearch, asked in its Piped Processing Language (PPL).
    ///
    /// A rule is a PPL query with its own index and time range, since the plugin takes none beside the query, e.g.
    /// `source=wazuh-alerts-* | where timestamp >= FROM_UNIXTIME({{ startime }}) and timestamp < FROM_UNIXTIME({{ endtime
    /// }})`. Its count is the answer's `size`.
    pub struct Config {
        /// Where OpenSearch listens, e.g. `https://opensearch.example:9200`.
        pub url: Url,
        /// What the server's own `plugins.query.size_limit` is: it silently returns no more rows. An alert with as many
        /// says that there may be more.
        pub size_limit: u64 = "10000",
    }
    shared { pub access: Access }
}

/// The datasource `opensearch-ppl`.
pub struct OpensearchPpl {
    server: Server,
    size_limit: u64,
    settings: Map<String, Value>,
}

impl OpensearchPpl {
    pub fn new(config: Config) -> Result<Self, SettingsError> {
        let settings = Map::from_iter([
            ("type".to_owned(), json!("opensearch-ppl")),
            ("url".to_owned(), json!(config.url.without_secrets())),
            ("verify".to_owned(), json!(config.access.verify)),
        ]);
        let server = config.access.server(&config.url, None)?;
        Ok(Self { server, size_limit: config.size_limit, settings })
    }
}

#[async_trait]
impl Datasource for OpensearchPpl {
    async fn query(&self, query: &str, _window: Window, limits: &Limits) -> Result<Rows, QueryError> {
        let body = json!({"query": query}).to_string().into_bytes();
        let deadline = Deadline::after(limits.time);
        let request = self.server.post("/_plugins/_ppl", &[], "application/json", body, deadline)?;
        let (limits, size_limit) = (*limits, self.size_limit);
        let rows = self.server.read(&request, words, move |body| read(body, &limits, size_limit)).await;
        rows.map_err(|error| deadline.said(error))
    }

    async fn probe(&self, limit: Duration) -> Result<String, QueryError> {
        let request = self.server.get("/", &[], Deadline::after(limit))?;
        self.server.read(&request, words, name).await
    }

    fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }
}

#[derive(Deserialize)]
struct Answer {
    schema: Vec<Column>,
    datarows: Vec<Vec<Value>>,
    size: u64,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    /// What the query calls it.
    alias: Option<String>,
}

fn read(body: &[u8], limits: &Limits, size_limit: u64) -> Result<Rows, QueryError> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| QueryError::Unreadable(format!("it is not what PPL answers: {error}")))?;
    let columns: Vec<&str> =
        answer.schema.iter().map(|column| column.alias.as_deref().unwrap_or(&column.name)).collect();
    let names = distinct(&columns);
    let found = answer.datarows.len() as u64;
    if found > answer.size {
        return Err(QueryError::Unreadable(format!("it has {found} rows and says {}", answer.size)));
    }
    let mut kept = Kept::new(limits);
    for cells in answer.datarows {
        if cells.len() != names.len() {
            let (cells, columns) = (cells.len(), names.len());
            return Err(QueryError::Unreadable(format!(
                "a row of it has {cells} cells for {columns} columns"
            )));
        }
        if kept.is_full() {
            kept.count_on(1);
        } else {
            kept.push(&names.iter().cloned().zip(cells).collect());
        }
    }
    if size_limit > 0 && found >= size_limit {
        kept.note(format!(
            "there may be more than {found} rows: OpenSearch returns no more (`plugins.query.size_limit`)"
        ));
    } else if answer.size > found {
        kept.note(format!("OpenSearch sent {found} of {} rows", answer.size));
    }
    Ok(Rows { count: answer.size, ..kept.into_rows() })
}

/// `{"error": {"reason", "details", "type"}, "status"}`; the security plugin answers in words.
fn words(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let error = &body["error"];
    if let Some(text) = error.as_str() {
        return Some(text.to_owned());
    }
    let texts = ["type", "reason", "details"].map(|field| error[field].as_str().unwrap_or_default());
    let mut told: Vec<&str> = Vec::new();
    for text in texts {
        if !text.is_empty() && !told.contains(&text) {
            told.push(text);
        }
    }
    (!told.is_empty()).then(|| told.join(": "))
}

/// `OpenSearch 2.19.1`, from the server's greeting.
fn name(body: &[u8]) -> Result<String, QueryError> {
    let greeting: Value = serde_json::from_slice(body)
        .map_err(|error| QueryError::Unreadable(format!("it is not how OpenSearch greets: {error}")))?;
    let version = greeting["version"]["number"].as_str();
    let version =
        version.ok_or_else(|| QueryError::Unreadable("OpenSearch does not tell its version".into()))?;
    Ok(format!("OpenSearch {}", bounded(version)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The documented example, with a column of each type.
    const ANSWER: &str = r#"{
        "schema": [{"name": "firstname", "type": "string"}, {"name": "age", "type": "bigint"},
            {"name": "avg(balance)", "type": "double", "alias": "balance"}, {"name": "ok", "type": "boolean"},
            {"name": "at", "type": "timestamp"}, {"name": "geo", "type": "struct"}, {"name": "tags", "type": "array"},
            {"name": "age", "type": "integer"}, {"name": "none", "type": "undefined"}],
        "datarows": [["Amber", 9007199254740993, 1.5, true, "2026-11-22 10:17:16", {"lat": 1.0}, ["a", 2], 7, null]],
        "total": 1,
        "size": 1
    }"#;

    fn read(body: &str) -> Result<Rows, QueryError> {
        super::read(body.as_bytes(), &Limits::default(), 3)
    }

    #[test]
    fn schema_and_datarows_become_rows() {
        let rows = read(ANSWER).unwrap();
        assert_eq!((rows.count, rows.cut), (1, None));
        assert_eq!(
            Value::from(rows.rows[0].clone()),
            json!({"firstname": "Amber", "age": 9007199254740993_u64, "balance": 1.5, "ok": true,
                "at": "2026-11-22 10:17:16", "geo": {"lat": 1.0}, "tags": ["a", 2], "age_2": 7, "none": null})
        );
        assert_eq!(read(r#"{"schema":[],"datarows":[],"total":0,"size":0}"#).unwrap(), Rows::default());
    }

    #[test]
    fn the_servers_own_limit_is_said() {
        let of = |rows: usize, size: usize| json!({"schema": [{"name": "a", "type": "long"}], "datarows": vec![[1]; rows], "total": rows, "size": size});
        let rows = read(&of(3, 3).to_string()).unwrap();
        assert_eq!(rows.count, 3);
        assert_eq!(
            rows.cut.unwrap(),
            "there may be more than 3 rows: OpenSearch returns no more (`plugins.query.size_limit`)"
        );
        let rows = read(&of(2, 7).to_string()).unwrap();
        assert_eq!((rows.count, rows.cut.as_deref()), (7, Some("OpenSearch sent 2 of 7 rows")));
        assert!(read(&of(2, 1).to_string()).is_err());
    }

    #[test]
    fn what_ppl_does_not_say_is_refused() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"schema":[],"datarows":[],"total":0}"#,
            r#"{"schema":[{"name":"a","type":"long"}],"datarows":[[1,2]],"total":1,"size":1}"#,
            r#"{"schema":[{"name":"a","type":"long"}],"datarows":[{"a":1}],"total":1,"size":1}"#,
        ] {
            assert!(matches!(read(body), Err(QueryError::Unreadable(_))), "{body}");
        }
    }

    #[test]
    fn errors_are_told_in_the_servers_words() {
        let said = |text: &str| words(text.as_bytes());
        assert_eq!(
            said(r#"{"error":{"reason":"Invalid Query","details":"[x] is not a valid term","type":"SyntaxCheckException"},"status":400}"#).unwrap(),
            "SyntaxCheckException: Invalid Query: [x] is not a valid term"
        );
        assert_eq!(
            said(r#"{"error":{"reason":"no such index [a]","details":"no such index [a]","type":"IndexNotFoundException"}}"#).unwrap(),
            "IndexNotFoundException: no such index [a]"
        );
        assert_eq!(said(r#"{"error":"Incorrect HTTP method"}"#).unwrap(), "Incorrect HTTP method");
        assert_eq!(said("Unauthorized"), None);
        assert_eq!(said("{}"), None);
    }

    #[test]
    fn the_greeting_tells_the_version() {
        let greeting = br#"{"version":{"distribution":"opensearch","number":"2.19.1"},"tagline":"x"}"#;
        assert_eq!(name(greeting).unwrap(), "OpenSearch 2.19.1");
        assert!(name(b"hello").is_err());
    }

    proptest! {
        #[test]
        fn rubbish_is_an_error_and_no_panic(bytes: Vec<u8>, at: usize, byte: u8) {
            assert!(super::read(&bytes, &Limits::default(), 1).is_err());
            let mut body = ANSWER.as_bytes().to_vec();
            let place = at % body.len();
            body[place] = byte;
            drop(super::read(&body, &Limits::default(), 1));
            drop(words(&body));
            drop(name(&body));
        }
    }
}
