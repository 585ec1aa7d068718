//! VictoriaLogs: LogsQL over its HTTP API.
//!
//! <https://docs.victoriametrics.com/victorialogs/querying/#querying-logs>

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use super::kept::Kept;
use super::web::{Access, Deadline, Server};
use super::{Datasource, Limits, QueryError, Rows, SettingsError, bounded};
use crate::clock::{Timestamp, Window};
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};
use crate::http::Request;

section! {
    /// VictoriaLogs.
    ///
    /// A rule is a LogsQL query, e.g. `"Failed password" | stats by (host) count() failed`, over the window's logs; `_time`
    /// filters of its own are not needed, and relative ones (`_time:5m`) start at the window's end. Its count is the
    /// number of rows, without clickdetect's limit of 5,000. Needs VictoriaLogs 1.4 or newer.
    pub struct Config {
        /// Where VictoriaLogs listens, e.g. `https://logs.example:9428`.
        pub url: Url,
        /// The tenant's account, 0 to 4294967295, sent as `AccountID`. (clickdetect sent a header that the server
        /// does not read, and so always searched tenant 0.)
        #[read(tenant)]
        pub account_id: String = "0",
        /// The tenant's project, 0 to 4294967295, sent as `ProjectID`.
        #[read(tenant)]
        pub project_id: String = "0",
    }
    shared { pub access: Access }
}

/// The datasource `victorialogs`.
pub struct VictoriaLogs {
    server: Server,
    settings: Map<String, Value>,
}

impl VictoriaLogs {
    pub fn new(config: Config) -> Result<Self, SettingsError> {
        let settings = Map::from_iter([
            ("type".to_owned(), json!("victorialogs")),
            ("url".to_owned(), json!(config.url.without_secrets())),
            ("verify".to_owned(), json!(config.access.verify)),
            ("account_id".to_owned(), json!(config.account_id)),
            ("project_id".to_owned(), json!(config.project_id)),
        ]);
        let tenant = [("accountid", config.account_id), ("projectid", config.project_id)];
        let tenant = tenant.map(|(name, id)| (name.to_owned(), Secret::new(id)));
        let server = config.access.server(&config.url, tenant)?;
        Ok(Self { server, settings })
    }

    /// The request for `query` over `[start, end)`.
    ///
    /// Servers differ in whether `end` belongs to the range (it does in 1.25, later not), so that a filter says it
    /// again without doubt. Both are there, since only `start` and `end` also hold for subqueries and set what
    /// `_time:5m` is relative to.
    fn request(
        &self,
        query: &str,
        start: Timestamp,
        end: Timestamp,
        deadline: Deadline,
    ) -> Result<Request, QueryError> {
        let range = format!("_time:[{start}, {end})");
        let (start, end) = (start.to_string(), end.to_string());
        // The server stops at the same time as we do, even where a proxy holds the connection.
        let timeout = format!("{}s", deadline.left()?.as_secs_f64().ceil());
        let form = form(&[
            ("query", query),
            ("start", &start),
            ("end", &end),
            ("extra_filters", &range),
            ("timeout", &timeout),
        ]);
        self.server.post("/select/logsql/query", &[], "application/x-www-form-urlencoded", form, deadline)
    }
}

#[async_trait]
impl Datasource for VictoriaLogs {
    async fn query(&self, query: &str, window: Window, limits: &Limits) -> Result<Rows, QueryError> {
        let deadline = Deadline::after(limits.time);
        let rows = async {
            let request = self.request(query, window.start, window.end, deadline)?;
            let mut body = self.server.send(&request, |_| None).await?;
            let mut kept = Kept::new(limits);
            while let Some(line) = body.line().await? {
                if kept.is_full() {
                    looks_like_row(&line)?;
                    kept.count_on(1);
                } else {
                    kept.push(&row(&line)?);
                }
            }
            Ok(kept.into_rows())
        };
        rows.await.map_err(|error| deadline.said(error))
    }

    async fn probe(&self, limit: Duration) -> Result<String, QueryError> {
        let deadline = Deadline::after(limit);
        // A query over a second of 1970: it costs nothing, and says whether we may ask.
        let second = Timestamp::from_second(1).expect("a second after 1970 is a time");
        let request = self.request("*", Timestamp::UNIX_EPOCH, second, deadline)?;
        let body = self.server.send(&request, |_| None).await?.whole().await?;
        body.split(|byte| *byte == b'\n')
            .filter(|line| !line.trim_ascii().is_empty())
            .try_for_each(looks_like_row)?;
        let request = self.server.get("/metrics", &[], deadline)?;
        let version = match self.server.send(&request, |_| None).await {
            Ok(metrics) => metrics.whole().await.ok().and_then(|metrics| version(&metrics)),
            // Not everybody may read them.
            Err(_) => None,
        };
        Ok(version.map_or_else(|| "VictoriaLogs".to_owned(), |version| format!("VictoriaLogs {version}")))
    }

    fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }
}

/// A line of an answer.
fn row(line: &[u8]) -> Result<Map<String, Value>, QueryError> {
    looks_like_row(line)?;
    serde_json::from_slice(line).map_err(|error| {
        QueryError::Unreadable(format!(
            "a line is no JSON ({error}): {}",
            bounded(&String::from_utf8_lossy(line))
        ))
    })
}

/// Tells rows from what the server writes where a query fails after rows were sent: its message, as a last line.
fn looks_like_row(line: &[u8]) -> Result<(), QueryError> {
    let line = line.trim_ascii();
    if line.starts_with(b"{") && line.ends_with(b"}") {
        return Ok(());
    }
    Err(QueryError::Unreadable(format!("instead of a row came: {}", bounded(&String::from_utf8_lossy(line)))))
}

/// From `vm_app_version{version="...", short_version="v1.25.1"} 1`.
fn version(metrics: &[u8]) -> Option<String> {
    let metrics = std::str::from_utf8(metrics).ok()?;
    let line = metrics.lines().find(|line| line.starts_with("vm_app_version{"))?;
    let (_, version) = line.split_once("short_version=\"")?;
    let (version, _) = version.split_once('"')?;
    Some(bounded(version.trim_start_matches('v'))).filter(|version| !version.is_empty())
}

/// `name=value&...`, escaped.
fn form(fields: &[(&str, &str)]) -> Vec<u8> {
    // The one place of an address that has this form, so that its encoder does.
    let mut url = reqwest::Url::parse("http://form").expect("this is an address");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().as_bytes().to_vec()
}

fn tenant(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    u32::from_yaml(node, reader).map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recorded(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/data/victorialogs/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.trim_end().as_bytes().to_vec()
    }

    #[test]
    fn a_line_is_a_row() {
        assert_eq!(
            Value::from(row(&recorded("query")).unwrap()),
            json!({"_time": "2026-11-22T10:17:16Z",
                "_stream_id": "000000000000000092462c353d9930b00caacabb3af12a2c", "_stream": "{host=\"h1\"}",
                "_msg": "Failed password for root from 192.0.2.66", "host": "h1", "level": "warn"})
        );
    }

    #[test]
    fn a_message_among_the_rows_is_an_error() {
        for line in ["cannot execute query [*]: out of memory", "", "{", "[{}]", "null"] {
            assert!(looks_like_row(line.as_bytes()).is_err(), "{line}");
        }
        let error = row(b"{\"a\":1} unexpected }").unwrap_err().to_string();
        assert!(error.starts_with("reply cannot be read: a line is no JSON"), "{error}");
    }

    #[test]
    fn the_version_stands_among_the_metrics() {
        let metrics = b"# TYPE a gauge\na 1\nvm_app_version{version=\"victoria-logs-2025-tags-v1.25.1\", \
            short_version=\"v1.25.1\"} 1\n";
        assert_eq!(version(metrics).unwrap(), "1.25.1");
        assert_eq!(version(b"a 1\n\xff"), None);
    }

    #[test]
    fn a_form_is_escaped() {
        assert_eq!(
            form(&[("query", "a=\"b\" & c+d\u{e9}"), ("x", "1")]),
            b"query=a%3D%22b%22+%26+c%2Bd%C3%A9&x=1"
        );
    }

    proptest! {
        #[test]
        fn rubbish_is_an_error_and_no_panic(bytes: Vec<u8>, at: usize, byte: u8) {
            assert!(row(&bytes).is_err() || bytes.contains(&b'{'));
            let mut line = recorded("query");
            let place = at % line.len();
            line[place] = byte;
            drop(row(&line));
            drop(version(&bytes));
        }
    }
}
