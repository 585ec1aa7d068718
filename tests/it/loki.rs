//! Loki: against a fake that pages as Loki does, and with the answers of a real one.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use watchpost::datasource::{Limits, QueryError};

use crate::datasources_http::{START_S, ask, build, limits, problems, row, window};
use crate::fake::{Asked, Fake, Reply};

const LINES: &str = "{app=\"sshd\"} |= \"Failed\"";

/// A Loki that has so many lines in the window, at even distances, in three streams.
pub(crate) fn answer(asked: &Asked, rows: usize) -> Reply {
    let distance = 300_000_000_000 / rows.max(1) as i64;
    let times: Vec<i64> = (0..rows as i64).map(|n| START_S * 1_000_000_000 + n * distance).collect();
    lines(asked, &times)
}

/// A Loki with lines at these nanoseconds, in order.
fn lines(asked: &Asked, times: &[i64]) -> Reply {
    assert_eq!(asked.line(), "GET /loki/api/v1/query_range");
    assert_eq!(asked.header("x-scope-orgid"), Some("fake"));
    assert_eq!(asked.body, b"");
    let names: Vec<&str> = asked.query.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["query", "start", "end", "limit", "direction"]);
    assert_eq!((asked.argument("query"), asked.argument("direction")), (Some(LINES), Some("backward")));
    let number = |name: &str| asked.argument(name).unwrap().parse::<i64>().unwrap();
    let (start, end, limit) = (number("start"), number("end"), number("limit"));
    assert_eq!(start, START_S * 1_000_000_000);
    assert!(start < end && end <= start + 300_000_000_000);
    if limit > 5_000 {
        return Reply::recorded("loki/err_limit.txt");
    }
    let found = times.iter().enumerate().rev().filter(|(_, time)| (start..end).contains(time));
    let mut streams: Vec<Vec<Value>> = vec![Vec::new(); 3];
    for (n, time) in found.take(limit as usize) {
        streams[n % 3].push(json!([time.to_string(), format!("line {n}")]));
    }
    let streams = streams.into_iter().enumerate().filter(|(_, values)| !values.is_empty());
    let streams = streams.map(|(n, values)| json!({"stream": {"host": format!("h{n}")}, "values": values}));
    let result: Vec<Value> = streams.collect();
    Reply::json(
        200,
        &json!({"status": "success", "data": {"resultType": "streams", "result": result, "stats": {}}}),
    )
}

#[tokio::test]
async fn lines_come_newest_first_with_their_labels() {
    let fake = Fake::start(|asked| answer(asked, 3));
    let rows = ask(build(&format!("{{type: loki, url: '{}'}}", fake.url())).as_ref(), LINES).await.unwrap();
    assert_eq!(row(&rows, 0), json!({"timestamp": "1795342500000000000", "line": "line 0", "host": "h0"}));
    assert_eq!(rows.count, 3);
    assert_eq!(fake.asked()[0].argument("end"), Some("1795342800000000000"));
}

#[tokio::test]
async fn a_window_of_many_lines_takes_several_requests_and_no_line_is_lost_or_counted_twice() {
    for rows in [9, 10, 11, 18, 19, 20, 100] {
        let fake = Fake::start(move |asked| answer(asked, rows));
        let loki = build(&format!("{{type: loki, url: '{}', page: 10}}", fake.url()));
        let found = ask(loki.as_ref(), LINES).await.unwrap();
        let mut told: Vec<&str> = found.rows.iter().map(|row| row["line"].as_str().unwrap()).collect();
        told.sort_unstable();
        told.dedup();
        assert_eq!((found.count as usize, told.len(), found.cut), (rows, rows, None));
    }
}

#[tokio::test]
async fn lines_of_the_same_time_are_not_lost_between_two_requests() {
    let second = 1_000_000_000;
    let at = |seconds: i64, times: usize| vec![(START_S + seconds) * second; times];
    // Seven of the same nanosecond lie across the border of pages of 10.
    let times = [at(1, 5), at(2, 7), at(3, 6)].concat();
    let fake = Fake::start(move |asked| lines(asked, &times));
    let loki = build(&format!("{{type: loki, url: '{}', page: 10}}", fake.url()));
    let found = ask(loki.as_ref(), LINES).await.unwrap();
    assert_eq!((found.count, found.rows.len(), found.cut), (18, 18, None));
    // Of more than fit into an answer, nobody can tell how many there are; those before are found all the same.
    let times = [at(1, 5), at(2, 25), at(3, 6)].concat();
    let fake = Fake::start(move |asked| lines(asked, &times));
    let loki = build(&format!("{{type: loki, url: '{}', page: 10}}", fake.url()));
    let found = ask(loki.as_ref(), LINES).await.unwrap();
    assert_eq!(found.count, 6 + 10 + 5);
    assert_eq!(
        found.cut.unwrap(),
        "there may be more lines than were counted: 10 have the same time (`page`)"
    );
}

#[tokio::test]
async fn counting_stops_somewhere_and_says_so() {
    let fake = Fake::start(move |asked| answer(asked, 100));
    let loki = build(&format!("{{type: loki, url: '{}', page: 10, max_lines: 30}}", fake.url()));
    let found =
        loki.query(LINES, window(), &Limits { rows: 5, ..limits(Duration::from_secs(60)) }).await.unwrap();
    assert_eq!((found.count, found.rows.len(), fake.asked().len()), (36, 5, 4));
    assert_eq!(
        found.cut.unwrap(),
        "kept 5 of 36 rows (max_rows); there may be more lines than were counted (`max_lines`)"
    );
}

#[tokio::test]
async fn a_server_that_pays_no_heed_to_range_and_limit_is_not_asked_for_ever() {
    let canned = |lines: usize| {
        let values: Vec<Value> = (0..lines).map(|n| json!([format!("{}", 5_000 + n), "x"])).collect();
        let result = json!([{"stream": {}, "values": values}]);
        json!({"status": "success", "data": {"resultType": "streams", "result": result}})
    };
    let all = canned(25);
    let fake = Fake::start(move |_| Reply::json(200, &all));
    let loki = build(&format!("{{type: loki, url: '{}', page: 10}}", fake.url()));
    assert_eq!(ask(loki.as_ref(), LINES).await.unwrap().count, 25);
    let same = canned(10);
    let fake = Fake::start(move |_| Reply::json(200, &same));
    let loki = build(&format!("{{type: loki, url: '{}', page: 10}}", fake.url()));
    let found = ask(loki.as_ref(), LINES).await.unwrap();
    assert!(found.count == 10 && fake.asked().len() <= 2, "{} after {}", found.count, fake.asked().len());
}

#[tokio::test]
async fn numbers_are_computed_once_at_the_windows_end() {
    let query = "sum by (host) (count_over_time({app=~\".+\"}[5m]))";
    let fake = Fake::start(move |asked| {
        assert_eq!(asked.line(), "GET /loki/api/v1/query_range");
        assert_eq!(asked.header("x-scope-orgid"), Some("soc|it"));
        assert_eq!(asked.argument("query"), Some(query));
        Reply::recorded("loki/range_matrix.txt")
    });
    let loki = build(&format!("{{type: loki, url: '{}', org_id: 'soc|it'}}", fake.url()));
    let found = ask(loki.as_ref(), query).await.unwrap();
    // The last value of each series: 2 and 1.
    assert_eq!((found.count, found.rows.len(), found.cut), (3, 7, None));
    let asked = fake.asked();
    let range = |at: usize| ["start", "end", "step"].map(|name| asked[at].argument(name).unwrap().to_owned());
    let end = "1795342800000000000";
    assert_eq!(range(0), [end, end, "1"]);
    let loki = build(&format!("{{type: loki, url: '{}', org_id: 'soc|it', step: 15s}}", fake.url()));
    ask(loki.as_ref(), query).await.unwrap();
    let asked = fake.asked();
    let range = ["start", "end", "step"].map(|name| asked[1].argument(name).unwrap());
    assert_eq!(range, ["1795342500000000000", end, "15"]);
}

#[tokio::test]
async fn what_a_real_loki_says_is_understood() {
    for (file, count) in
        [("range_streams", 2), ("range_streams_empty", 0), ("range_json", 1), ("range_categorized", 1)]
    {
        let fake = Fake::start(move |_| Reply::recorded(&format!("loki/{file}.txt")));
        let loki = build(&format!("{{type: loki, url: '{}'}}", fake.url()));
        assert_eq!(ask(loki.as_ref(), LINES).await.unwrap().count, count, "{file}");
    }
    let refused = [
        (
            "err_parse",
            "HTTP 400: parse error at line 1, col 12: syntax error: unexpected $end, expecting } or ,",
        ),
        (
            "err_limit",
            "HTTP 400: max entries limit per query exceeded, limit > max_entries_limit_per_query (500000 > 5000): set \
             the datasource's `page` to what the server allows",
        ),
        (
            "err_range",
            "HTTP 400: the query time range exceeds the limit (query length: 555555h33m19s, limit: 30d1h)",
        ),
    ];
    for (file, told) in refused {
        let fake = Fake::start(move |_| Reply::recorded(&format!("loki/{file}.txt")));
        let loki = build(&format!("{{type: loki, url: '{}'}}", fake.url()));
        let error = ask(loki.as_ref(), LINES).await.unwrap_err();
        assert!(matches!(&error, QueryError::Refused(text) if text == told), "{error:?}");
    }
    let fake = Fake::start(|asked| {
        assert_eq!(asked.header("x-scope-orgid"), None);
        Reply::recorded("loki/err_noorg.txt")
    });
    let loki = build(&format!("{{type: loki, url: '{}', org_id: ''}}", fake.url()));
    let error = ask(loki.as_ref(), LINES).await.unwrap_err();
    assert!(matches!(&error, QueryError::Denied(text) if text == "HTTP 401: no org id"), "{error:?}");
}

#[tokio::test]
async fn a_probe_tells_the_version_or_at_least_that_queries_are_let_through() {
    let probe = |fake: &Fake| {
        let loki = build(&format!("{{type: loki, url: '{}/gateway'}}", fake.url()));
        async move { loki.probe(Duration::from_secs(10)).await }
    };
    let fake = Fake::start(|asked| {
        assert_eq!(asked.line(), "GET /gateway/loki/api/v1/status/buildinfo");
        Reply::json(200, &json!({"version": "3.5.0", "revision": "x"}))
    });
    assert_eq!(probe(&fake).await.unwrap(), "Loki 3.5.0");
    let fake = Fake::start(|asked| match asked.line().as_str() {
        "GET /gateway/loki/api/v1/labels" => Reply::json(200, &json!({"status": "success", "data": []})),
        _ => Reply::text(404, "404 page not found"),
    });
    assert_eq!(probe(&fake).await.unwrap(), "Loki");
    let fake = Fake::start(|_| Reply::text(401, "no"));
    assert!(matches!(probe(&fake).await, Err(QueryError::Denied(_))));
}

#[test]
fn settings_that_cannot_work_are_refused_with_their_place() {
    insta::assert_snapshot!(
        problems("type: loki\nurl: localhost:3100\norg_id: \"a\\nb\"\npage: 1\nstep: 0s\nuser: ana\n"),
        @r"
    runner.yml:6:1: unknown key `user`; known are `url`, `org_id`, `step`, `page`, `max_lines`, `username`, `password`, `verify`, `ca`
    runner.yml:2:6: url: this is not an address: write one that starts with `http://` or `https://`
    runner.yml:3:9: org_id: `a\nb` is not a tenant: it goes into one line of a header
    runner.yml:5:7: step: `0s` is not longer than nothing, e.g. `15s`
    runner.yml:4:7: page: `1` is not between 2 and 1000000
    "
    );
}

#[tokio::test]
async fn rules_share_a_datasource() {
    let fake = Fake::start(|asked| answer(asked, 3));
    let loki = build(&format!("{{type: loki, url: '{}'}}", fake.url()));
    let asking = (0..20).map(|_| {
        let loki = Arc::clone(&loki);
        tokio::spawn(async move { ask(loki.as_ref(), LINES).await.unwrap().count })
    });
    for count in asking.collect::<Vec<_>>() {
        assert_eq!(count.await.unwrap(), 3);
    }
}
