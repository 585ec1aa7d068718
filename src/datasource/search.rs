//! What Elasticsearch and OpenSearch have in common: a rule is a `_search` body whose hits or buckets become rows, or a
//! query in the store's language that gives a table.

mod body;
mod buckets;
mod hits;
mod language;
mod lease;
mod pages;
mod reply;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::body::{Body, Query};
use self::reply::{Reply, Wanted};
use super::feed::parsed;
use super::kept::Kept;
use super::web::{self, Deadline, Server};
use super::{Limits, QueryError, Rows, bounded};
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, section};
use crate::http::Request;

pub(super) use self::language::{Cursor, Language};
pub(super) use self::lease::Close;
pub(super) use self::table::Names;

/// In what the two differ.
pub(super) struct Dialect {
    /// What opens a point in time behind an index, e.g. `_pit`, and where its id is in the answer.
    pub(super) open: (&'static str, &'static str),
    pub(super) close: Close,
    /// What tells any two hits of a point in time apart; the later for servers that do not know the earlier.
    pub(super) ties: &'static [&'static [&'static str]],
    /// Of a rule that is not JSON.
    pub(super) language: Language,
}

section! {
    /// What is searched, and what counts as an answer.
    pub struct Scope {
        /// What is searched: a name, an alias or a pattern, several with commas or as a list, e.g.
        /// `wazuh-alerts-*,winlogbeat-*`.
        #[read(index)]
        pub index: Vec<String>,
        /// Hits for a rule without a `size` of its own.
        ///
        /// 10 is what the store takes, and so what clickdetect counts: a rule that fires at more hits than that never
        /// fires. Set it to e.g. 10000, or give the rule a `size`. From 10001 on hits are read in pages.
        pub size: u64 = "10",
        /// Whether an answer counts in which shards or clusters are missing, or whose time was up. What is missing is
        /// said with the alert, and is not searched again.
        pub allow_partial: bool = "false",
        /// Whether it is an answer without rows when `index` matches no index. Such an answer is also all that a login
        /// gets that may read none, which is why it is an error otherwise.
        pub allow_no_indices: bool = "false",
    }
}

/// One store.
pub(super) struct Search {
    server: Arc<Server>,
    dialect: &'static Dialect,
    /// `/INDEX,INDEX`, ready for a path.
    indices: String,
    size: u64,
    allow_partial: bool,
    allow_no_indices: bool,
}

impl Search {
    pub(super) fn new(server: Server, scope: &Scope, dialect: &'static Dialect) -> Self {
        Self {
            server: Arc::new(server),
            dialect,
            indices: format!("/{}", web::segment(&scope.index.join(","))),
            size: scope.size,
            allow_partial: scope.allow_partial,
            allow_no_indices: scope.allow_no_indices,
        }
    }

    pub(super) async fn query(&self, query: &str, limits: &Limits) -> Result<Rows, QueryError> {
        let rows = match Query::read(query)? {
            Query::Search(body) => self.search(*body, limits).await,
            Query::Language(query) => self.table(&query, limits).await,
        };
        rows.map_err(|error| Deadline::after(limits.time).said(error))
    }

    /// Name and version, where the login may see them, and whether the index can be searched.
    pub(super) async fn probe(&self, limit: Duration) -> Result<String, QueryError> {
        let probe = async {
            let deadline = Deadline::after(limit);
            let request = self.server.get("/", &[], deadline)?;
            let version = match self.server.read(&request, words::said, version).await {
                Err(QueryError::Denied(_)) => "a store whose version this login may not see".to_owned(),
                version => version?,
            };
            let nothing = json!({ "size": 0, "track_total_hits": false }).to_string().into_bytes();
            let kept = Kept::new(&Limits::default());
            self.ask(&self.indices, nothing, false, Wanted::Hits, kept, deadline).await?;
            Ok(version)
        };
        probe.await.map_err(|error| Deadline::after(limit).said(error))
    }

    async fn search(&self, mut body: Body, limits: &Limits) -> Result<Rows, QueryError> {
        // Without a `size` the store returns 10 hits, and 10 is what clickdetect compares with the rule's size: a rule
        // that was written for it means the same here. A rule like `>50` then never fires, so the number of all hits is
        // said with the alert, and the datasource's `size` raises it for all such rules.
        if !body.has("size") && self.size != DEFAULT_SIZE {
            body.set("size", self.size);
        }
        if body.is_of_buckets() {
            return self.buckets(body, limits).await;
        }
        let size = body.size().unwrap_or(DEFAULT_SIZE);
        if size > MAX_RESULT_WINDOW {
            return self.pages(body, size, limits).await;
        }
        let (kept, deadline) = (Kept::new(limits), Deadline::after(limits.time));
        let has_own_time = body.has("timeout");
        let reply = self.ask(&self.indices, body.bytes(), has_own_time, Wanted::Hits, kept, deadline).await?;
        let mut kept = reply.kept;
        if let Some(total) = reply.total.filter(|total| total.value > reply.hits + body.from()) {
            let more = if total.is_exact { "" } else { "more than " };
            let why = if body.has("size") { "the query's `size`" } else { "the query has no `size`" };
            kept.note(format!("{} of {more}{} hits ({why})", reply.hits, total.value));
        }
        if body.has_aggregations() {
            kept.note(LEFT_OUT);
        }
        if body.has("terminate_after") && reply.is_ended_early {
            kept.note("the search ended early (the query's `terminate_after`)");
        }
        Ok(kept.into_rows())
    }

    /// Rows of buckets; those of `composite` aggregations to the end.
    async fn buckets(&self, mut body: Body, limits: &Limits) -> Result<Rows, QueryError> {
        body.fill_composites();
        let deadline = Deadline::after(limits.time);
        let has_own_time = body.has("timeout");
        let ask = |bytes, kept| self.ask(&self.indices, bytes, has_own_time, Wanted::Buckets, kept, deadline);
        let first = ask(body.bytes(), Kept::new(limits)).await?;
        let mut kept = first.kept;
        for (name, mut after) in first.more {
            while let Some(next) = body.bytes_after_bucket(&name, &after) {
                let reply = ask(next, kept).await?;
                kept = reply.kept;
                match reply.more.into_iter().next() {
                    None => break,
                    Some((_, same)) if same.get() == after.get() => {
                        let message = format!("`{name}` gives the same buckets again");
                        return Err(QueryError::Unreadable(bounded(&message)));
                    }
                    Some((_, next)) => after = next,
                }
            }
        }
        Ok(kept.into_rows())
    }

    /// One request to `_search` below `path`, and whether its answer is whole.
    async fn ask(
        &self,
        path: &str,
        body: Vec<u8>,
        has_own_time: bool,
        wanted: Wanted,
        kept: Kept,
        deadline: Deadline,
    ) -> Result<Reply, QueryError> {
        let time = format!("{}ms", deadline.left()?.as_millis().max(1));
        let is_partial_good = if self.allow_partial { "true" } else { "false" };
        let mut arguments = vec![("allow_partial_search_results", is_partial_good)];
        // As an argument it takes the place of what the query says.
        if !has_own_time {
            arguments.push(("timeout", &time));
        }
        let request = self.server.post(&format!("{path}/_search"), &arguments, JSON, body, deadline)?;
        let answer = self.send(&request).await?;
        let mut reply = parsed(answer, move |feed| reply::read(feed, wanted, kept)).await?;

        let missing = match (reply.missing.take(), reply.is_timed_out) {
            (Some(missing), _) => Some(missing),
            (None, true) if has_own_time => Some("the query's own `timeout` ended the search".to_owned()),
            (None, true) if self.allow_partial => Some("the search was not finished in time".to_owned()),
            (None, true) => return Err(QueryError::TimedOut { limit: request.timeout }),
            (None, false) => None,
        };
        if let Some(missing) = missing {
            if !self.allow_partial {
                return Err(QueryError::Unavailable(bounded(&format!("the answer is partial: {missing}"))));
            }
            reply.kept.note(bounded(&format!("partial: {missing}")));
        }
        if reply.is_of_nothing && !self.allow_no_indices {
            return Err(QueryError::Refused(
                "`index` matches no index, or none that this login may read".into(),
            ));
        }
        Ok(reply)
    }

    async fn send(&self, request: &Request) -> Result<web::Body, QueryError> {
        self.server.send(request, words::said).await.map_err(|error| match error {
            // Where partial results are refused, the end of the time is an error: 500, 504 or 429 by version.
            QueryError::Unavailable(said) if said.contains("Time exceeded") => {
                QueryError::TimedOut { limit: request.timeout }
            }
            error => error,
        })
    }
}

/// Of `GET /`: `{"version": {"number", "distribution"?}, "tagline"}`.
fn version(body: &[u8]) -> Result<String, QueryError> {
    let root: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |path| root.pointer(path).and_then(Value::as_str);
    let name = match (text("/version/distribution"), text("/tagline")) {
        (Some("opensearch"), _) => "OpenSearch",
        (_, Some("You Know, for Search")) => "Elasticsearch",
        _ => return Err(QueryError::Unreadable("neither Elasticsearch nor OpenSearch answers there".into())),
    };
    Ok(bounded(&format!("{name} {}", text("/version/number").unwrap_or_default())))
}

/// Reads a setting `index`: a name or pattern, or a list of them.
fn index(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let names = Vec::<String>::from_yaml(node, reader)?;
    match names.is_empty() || names.iter().any(|name| name.trim().is_empty()) {
        true => reader.refuse(node, "an index, e.g. `wazuh-alerts-*`, or a list of them"),
        false => Some(names),
    }
}

const JSON: &str = "application/json";
const LEFT_OUT: &str = "aggregations are left out: they become rows where `size` is 0";
/// What the store takes where a query has no `size`.
const DEFAULT_SIZE: u64 = 10;
/// `index.max_result_window` where nobody changed it: hits that one answer has at most.
const MAX_RESULT_WINDOW: u64 = 10_000;
