//! Grafana Loki: LogQL over its HTTP API.
//!
//! <https://grafana.com/docs/loki/latest/reference/loki-http-api/>

mod reply;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use self::reply::{Found, Stream};
use super::kept::Kept;
use super::web::{Access, Deadline, Server};
use super::{Datasource, Limits, QueryError, Rows, SettingsError};
use crate::clock::Window;
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};

section! {
    /// Grafana Loki.
    ///
    /// A rule is a LogQL query. One for lines (`{job="app"} |= "error"`) searches the window; its count is the number of
    /// lines. One for numbers (`sum by (host) (count_over_time({job="sshd"} [5m]))`) is computed once, at the window's
    /// end, so let its range be the detector's `for`; its count is the integer sum over all series.
    pub struct Config {
        /// Where Loki listens, e.g. `https://loki.example:3100`.
        pub url: Url,
        /// The tenant, sent as `X-Scope-OrgID`; several as `a|b` where the server allows it. Empty: not sent.
        #[read(org_id)]
        pub org_id: String = "fake",
        /// For queries for numbers: computes them every so often over the whole window, with a row for each time, e.g.
        /// `15s`. The count is then the sum of each series' last value. Servers move the times to multiples of
        /// `step`, also beyond the window.
        #[read(step)]
        pub step: Option<Duration>,
        /// Lines in one answer, 2 to 1000000; a server refuses more than its `max_entries_limit_per_query`. Windows with
        /// more lines take several requests. Fewer help where lines are long: an answer may have 64 MiB.
        #[read(page)]
        pub page: u64 = "5000",
        /// Lines of a window that are counted at most. Where there may be more, the alert says so.
        pub max_lines: u64 = "100000",
    }
    shared { pub access: Access }
}

/// The datasource `loki`.
pub struct Loki {
    server: Server,
    step: Option<Duration>,
    page: u64,
    max_lines: u64,
    settings: Map<String, Value>,
}

impl Loki {
    pub fn new(config: Config) -> Result<Self, SettingsError> {
        let settings = Map::from_iter([
            ("type".to_owned(), json!("loki")),
            ("url".to_owned(), json!(config.url.without_secrets())),
            ("verify".to_owned(), json!(config.access.verify)),
            ("org_id".to_owned(), json!(config.org_id)),
        ]);
        let tenant = Some(config.org_id).filter(|id| !id.is_empty());
        let tenant = tenant.map(|id| ("x-scope-orgid".to_owned(), Secret::new(id)));
        let server = config.access.server(&config.url, tenant)?;
        Ok(Self { server, step: config.step, page: config.page, max_lines: config.max_lines, settings })
    }

    async fn ask(&self, arguments: &[(&str, &str)], deadline: Deadline) -> Result<Found, QueryError> {
        let request = self.server.get("/loki/api/v1/query_range", arguments, deadline)?;
        self.server.read(&request, |_| None, reply::read).await.map_err(hint)
    }

    /// Lines, from the window's end to its start, page by page.
    async fn lines(
        &self,
        query: &str,
        window: Window,
        limits: &Limits,
        deadline: Deadline,
    ) -> Result<Rows, QueryError> {
        let page = self.page.to_string();
        let start = window.start.as_nanosecond().to_string();
        let mut end = window.end.as_nanosecond();
        let mut kept = Kept::new(limits);
        let mut is_first = true;
        loop {
            let end_text = end.to_string();
            let arguments = [
                ("query", query),
                ("start", &start),
                ("end", &end_text),
                ("limit", &page),
                ("direction", "backward"),
            ];
            let streams = match self.ask(&arguments, deadline).await? {
                Found::Lines(streams) => streams,
                Found::Samples(samples) => return Ok(samples.into_rows(limits)),
            };
            let page = Page::of(&streams, self.page);
            let Some((oldest, newest)) = page.is_full.then_some(page.span).flatten() else {
                take(streams, None, &mut kept);
                return Ok(kept.into_rows());
            };
            let is_astray = oldest < window.start.as_nanosecond() || newest >= end;
            if is_astray {
                if is_first {
                    take(streams, None, &mut kept);
                }
                kept.note("there may be more lines than were counted: Loki did not keep to the time range");
                return Ok(kept.into_rows());
            }
            if newest == oldest {
                // Time cannot tell those apart of which there are more than fit into an answer.
                take(streams, None, &mut kept);
                kept.note(format!(
                    "there may be more lines than were counted: {} have the same time (`page`)",
                    self.page
                ));
                end = oldest;
            } else {
                // Of the oldest time there may be more: the next page begins with it.
                take(streams, Some(oldest), &mut kept);
                end = oldest + 1;
            }
            if end <= window.start.as_nanosecond() {
                return Ok(kept.into_rows());
            }
            if kept.count() >= self.max_lines {
                kept.note("there may be more lines than were counted (`max_lines`)");
                return Ok(kept.into_rows());
            }
            is_first = false;
        }
    }

    /// Numbers. Loki's front end moves `start` down and `end` up to multiples of `step`; windows lie on whole seconds,
    /// so that a `step` of one leaves their end where it is, and a range that has no length is computed once.
    /// (pkg/querier/queryrange/splitters.go)
    async fn numbers(
        &self,
        query: &str,
        window: Window,
        limits: &Limits,
        deadline: Deadline,
    ) -> Result<Rows, QueryError> {
        let end = window.end.as_nanosecond().to_string();
        let (start, step) = match self.step {
            None => (end.clone(), "1".to_owned()),
            Some(step) => (window.start.as_nanosecond().to_string(), step.as_secs_f64().to_string()),
        };
        let arguments = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        match self.ask(&arguments, deadline).await? {
            Found::Samples(samples) => Ok(samples.into_rows(limits)),
            Found::Lines(streams) => {
                let mut kept = Kept::new(limits);
                take(streams, None, &mut kept);
                Ok(kept.into_rows())
            }
        }
    }
}

#[async_trait]
impl Datasource for Loki {
    async fn query(&self, query: &str, window: Window, limits: &Limits) -> Result<Rows, QueryError> {
        let deadline = Deadline::after(limits.time);
        let found = if is_for_lines(query) {
            self.lines(query, window, limits, deadline).await
        } else {
            self.numbers(query, window, limits, deadline).await
        };
        found.map_err(|error| deadline.said(error))
    }

    async fn probe(&self, limit: Duration) -> Result<String, QueryError> {
        let deadline = Deadline::after(limit);
        let request = self.server.get("/loki/api/v1/status/buildinfo", &[], deadline)?;
        match self.server.read(&request, |_| None, |body| Ok(reply::version(body))).await {
            Ok(Some(version)) => Ok(format!("Loki {version}")),
            // Some gateways let through no more than queries.
            Ok(None) | Err(QueryError::Refused(_)) => {
                let request = self.server.get("/loki/api/v1/labels", &[], deadline)?;
                self.server.send(&request, |_| None).await?.whole().await?;
                Ok("Loki".to_owned())
            }
            Err(error) => Err(error),
        }
    }

    fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }
}

/// How much an answer holds, and of what times.
struct Page {
    is_full: bool,
    /// Nanoseconds of the oldest line and the newest.
    span: Option<(i128, i128)>,
}

impl Page {
    fn of(streams: &[Stream], limit: u64) -> Self {
        let times = || streams.iter().flat_map(Stream::times);
        let span = times().min().zip(times().max());
        // A server that gives more than it was asked for gives all.
        Self { is_full: times().count() as u64 == limit, span }
    }
}

/// Counts and keeps lines that are newer than `after`.
fn take(streams: Vec<Stream>, after: Option<i128>, kept: &mut Kept) {
    for stream in streams {
        for line in stream.lines(after) {
            if kept.is_full() {
                kept.count_on(1);
            } else {
                kept.push(&stream.row(line));
            }
        }
    }
}

/// Whether LogQL asks for lines: it then begins with a selector, maybe behind brackets and comments.
fn is_for_lines(query: &str) -> bool {
    let mut rest = query;
    loop {
        rest = rest.trim_start_matches(|char: char| char.is_whitespace() || char == '(');
        match rest.strip_prefix('#') {
            Some(comment) => rest = comment.split_once('\n').map_or("", |(_, rest)| rest),
            None => return rest.starts_with('{'),
        }
    }
}

fn hint(error: QueryError) -> QueryError {
    match error {
        QueryError::Refused(message) if message.contains("max_entries_limit_per_query") => {
            QueryError::Refused(format!("{message}: set the datasource's `page` to what the server allows"))
        }
        error => error,
    }
}

fn org_id(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let tenant = String::from_yaml(node, reader)?;
    if tenant.chars().any(char::is_control) {
        return reader.refuse(node, "a tenant: it goes into one line of a header");
    }
    Some(tenant)
}

fn step(node: &Node, reader: &mut Reader<'_>) -> Option<Option<Duration>> {
    let step = Duration::from_yaml(node, reader)?;
    // Loki refuses more than 11,000 points a series.
    if step.is_zero() { reader.refuse(node, "longer than nothing, e.g. `15s`") } else { Some(Some(step)) }
}

fn page(node: &Node, reader: &mut Reader<'_>) -> Option<u64> {
    let lines = u64::from_yaml(node, reader)?;
    if (2..=1_000_000).contains(&lines) { Some(lines) } else { reader.refuse(node, "between 2 and 1000000") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_for_lines_is_told_from_one_for_numbers() {
        for query in [
            r#"{app="x"}"#,
            " \n({app=\"x\"} |= `y`)",
            "# sum(\n{app=\"x\"} | json",
            "# a\n\n # b\n ( # c\n {a=\"b\"})",
        ] {
            assert!(is_for_lines(query), "{query}");
        }
        for query in [
            "sum(count_over_time({app=\"x\"}[5m]))",
            "(rate({a=\"b\"}[1m]) > 3)",
            "1 + 1",
            "",
            "# {",
            "vector(1)",
        ] {
            assert!(!is_for_lines(query), "{query}");
        }
    }
}
