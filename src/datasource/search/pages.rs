//! More hits than the store gives in one answer: by `search_after`, over a point in time.
//!
//! Elasticsearch: <https://www.elastic.co/docs/reference/elasticsearch/rest-apis/paginate-search-results>; OpenSearch:
//! <https://docs.opensearch.org/latest/search-plugins/searching-data/point-in-time/>.

use serde_json::{Value, json};

use super::super::kept::Kept;
use super::super::web::Deadline;
use super::super::{Limits, QueryError, Rows};
use super::body::Body;
use super::lease::{Lease, closing_time};
use super::reply::{Reply, Total, Wanted};
use super::{JSON, LEFT_OUT, MAX_RESULT_WINDOW, Search, words};

impl Search {
    /// Up to `size` hits. Only those that the limits keep are fetched: how many there are the store says itself.
    pub(super) async fn pages(&self, mut body: Body, size: u64, limits: &Limits) -> Result<Rows, QueryError> {
        if let Some(name) =
            NOT_PAGED.into_iter().find(|name| body.has(name) && (*name != "from" || body.from() > 0))
        {
            let message =
                format!("`{name}` does not go with a `size` above {MAX_RESULT_WINDOW}: remove one of them");
            return Err(QueryError::Refused(message));
        }
        let has_aggregations = body.has_aggregations();
        body.drop_aggregations();
        body.set("track_total_hits", true);
        let wanted = size.min(u64::try_from(limits.rows).unwrap_or(u64::MAX));

        let mut pages = if wanted <= MAX_RESULT_WINDOW {
            body.set("size", wanted);
            let deadline = Deadline::after(limits.time);
            let has_own_time = body.has("timeout");
            let kept = Kept::new(limits);
            let reply =
                self.ask(&self.indices, body.bytes(), has_own_time, Wanted::Hits, kept, deadline).await?;
            Pages { seen: reply.hits, total: reply.total, kept: reply.kept }
        } else {
            let closing = closing_time(limits.time);
            let mut point = Lease::new(&self.server, self.dialect.close);
            let pages =
                self.walk(&mut point, body, wanted, limits, Deadline::after(limits.time - closing)).await;
            point.close(closing).await;
            pages?
        };
        let Some(Total { value: total, is_exact: true }) = pages.total else {
            return Err(QueryError::Unreadable("it does not tell how many hits there are".into()));
        };
        let due = total.min(wanted);
        if pages.seen != due && !(pages.kept.is_full() && pages.seen < due) {
            return Err(QueryError::Unreadable(format!("{} of {due} hits came", pages.seen)));
        }
        pages.kept.count_on(total.min(size) - pages.seen);
        if total > size {
            pages.kept.note(format!("{size} of {total} hits (the query's `size`)"));
        }
        if has_aggregations {
            pages.kept.note(LEFT_OUT);
        }
        Ok(pages.kept.into_rows())
    }

    async fn walk(
        &self,
        point: &mut Lease,
        mut body: Body,
        wanted: u64,
        limits: &Limits,
        deadline: Deadline,
    ) -> Result<Pages, QueryError> {
        let (path, name) = self.dialect.open;
        let path = format!("{}/{path}", self.indices);
        let request = self.server.post(&path, &[("keep_alive", KEEP_ALIVE)], JSON, Vec::new(), deadline)?;
        let opened = self.server.read(&request, words::said, move |body| {
            let opened: Value = serde_json::from_slice(body).unwrap_or_default();
            let id = opened.get(name).and_then(Value::as_str).map(str::to_owned);
            id.ok_or_else(|| {
                QueryError::Unreadable(format!("it has no `{name}`: no point in time was opened"))
            })
        });
        point.id = Some(opened.await?);

        let has_own_time = body.has("timeout");
        let mut orders = self.dialect.ties.iter();
        let unordered = body.clone();
        body.order(orders.next().copied().unwrap_or_default());
        let mut pages = Pages { kept: Kept::new(limits), seen: 0, total: None };
        let mut last = None;
        loop {
            let size = PAGE.min(wanted - pages.seen);
            body.set("size", size);
            body.set("pit", json!({ "id": point.id, "keep_alive": KEEP_ALIVE }));
            let kept = if pages.seen == 0 { Kept::new(limits) } else { pages.kept };
            let bytes = body.bytes_after_hit(last.as_deref());
            let asked = self.ask("", bytes, has_own_time, Wanted::Hits, kept, deadline).await;
            let reply: Reply = match (asked, orders.next()) {
                // Says this server of the first tie that it does not know it?
                (Err(QueryError::Refused(said)), Some(ties))
                    if pages.seen == 0 && said.contains("_shard_doc") =>
                {
                    body = unordered.clone();
                    body.order(ties);
                    pages.kept = Kept::new(limits);
                    continue;
                }
                (asked, _) => asked?,
            };
            point.id = reply.point.or(point.id.take());
            pages.seen += reply.hits;
            pages.kept = reply.kept;
            if pages.total.is_none() {
                pages.total = reply.total;
                body.set("track_total_hits", false);
            }
            if reply.hits < size || pages.seen >= wanted || pages.kept.is_full() {
                return Ok(pages);
            }
            last = Some(reply.last.ok_or_else(|| QueryError::Unreadable("a hit has no `sort`".into()))?);
        }
    }
}

struct Pages {
    kept: Kept,
    seen: u64,
    total: Option<Total>,
}

/// What the store refuses beside `search_after` or a point in time, or what counts otherwise than by hits.
const NOT_PAGED: [&str; 6] = ["from", "search_after", "pit", "collapse", "slice", "scroll"];
/// Half of what the store allows, so that its memory for one answer stays small.
const PAGE: u64 = 5_000;
/// Renewed by each page.
const KEEP_ALIVE: &str = "1m";
