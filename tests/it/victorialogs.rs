//! VictoriaLogs: against a fake that is strict, and with the answers of a real one.

use std::time::Duration;

use serde_json::{Value, json};
use watchpost::datasource::QueryError;

use crate::datasources_http::{ask, build, form, problems, row};
use crate::fake::{Asked, Fake, Reply};

const QUERY: &str = "\"Failed password\" | fields n";

pub(crate) fn answer(asked: &Asked, rows: usize) -> Reply {
    assert_eq!(asked.line(), "POST /select/logsql/query");
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!((asked.header("accountid"), asked.header("projectid")), (Some("0"), Some("0")));
    assert!(asked.query.is_empty());
    let mut form = form(asked);
    let timeout = form.remove("timeout").unwrap();
    let timeout: u64 = timeout.as_str().unwrap().strip_suffix('s').unwrap().parse().unwrap();
    assert!((1..=60).contains(&timeout));
    assert_eq!(
        Value::from(form),
        json!({"query": QUERY, "start": "2026-11-22T10:15:00Z", "end": "2026-11-22T10:20:00Z",
            "extra_filters": "_time:[2026-11-22T10:15:00Z, 2026-11-22T10:20:00Z)"})
    );
    let lines: String = (0..rows).map(|n| format!("{{\"n\":\"{n}\"}}\n")).collect();
    Reply::new(200, "application/stream+json", lines)
}

#[tokio::test]
async fn what_a_real_victorialogs_says_is_understood() {
    for (file, count) in
        [("query", 1), ("query_empty", 0), ("query_stats", 2), ("query_tenant7_real_header", 1)]
    {
        let fake = Fake::start(move |_| Reply::recorded(&format!("victorialogs/{file}.txt")));
        let logs = build(&format!("{{type: victorialogs, url: '{}'}}", fake.url()));
        assert_eq!(ask(logs.as_ref(), QUERY).await.unwrap().count, count, "{file}");
    }
    let fake = Fake::start(move |_| Reply::recorded("victorialogs/query_err.txt"));
    let logs = build(&format!("{{type: victorialogs, url: '{}'}}", fake.url()));
    let error = ask(logs.as_ref(), QUERY).await.unwrap_err();
    assert!(
        matches!(&error, QueryError::Refused(text) if text.starts_with("HTTP 400: cannot parse query [_time:5m | stats by (]: ")),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_tenant_is_sent_as_the_server_reads_it() {
    let fake = Fake::start(|asked| match (asked.header("accountid"), asked.header("projectid")) {
        (Some("7"), Some("12")) => Reply::recorded("victorialogs/query_tenant7_real_header.txt"),
        _ => Reply::text(200, ""),
    });
    let logs =
        build(&format!("{{type: victorialogs, url: '{}', account_id: 7, project_id: '12'}}", fake.url()));
    assert_eq!(row(&ask(logs.as_ref(), QUERY).await.unwrap(), 0)["_msg"], "tenant seven");
    assert_eq!(logs.settings()["account_id"], "7");
}

#[tokio::test]
async fn a_failure_after_rows_were_sent_is_no_result() {
    for rows in [0, 5, 2_000] {
        let fake = Fake::start(move |asked| {
            let mut lines: Vec<u8> =
                (0..rows).flat_map(|n| format!("{{\"n\":\"{n}\"}}\n").into_bytes()).collect();
            lines.extend_from_slice(b"cannot execute query [*]: not enough memory\n");
            assert_eq!(asked.method, "POST");
            Reply::new(200, "application/stream+json", lines)
        });
        let logs = build(&format!("{{type: victorialogs, url: '{}'}}", fake.url()));
        let error = ask(logs.as_ref(), QUERY).await.unwrap_err();
        assert!(
            matches!(&error, QueryError::Unreadable(text) if text.ends_with("cannot execute query [*]: not enough memory")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_probe_asks_and_tells_the_version_where_it_may() {
    for may in [true, false] {
        let fake = Fake::start(move |asked| match asked.line().as_str() {
            "POST /select/logsql/query" => {
                assert_eq!(form(asked)["end"], "1970-01-01T00:00:01Z");
                Reply::text(200, "")
            }
            "GET /metrics" if may => {
                Reply::text(200, "vm_app_version{version=\"x\", short_version=\"v1.25.1\"} 1\n")
            }
            "GET /metrics" => Reply::text(401, "no"),
            line => panic!("{line}"),
        });
        let logs = build(&format!("{{type: victorialogs, url: '{}'}}", fake.url()));
        let told = logs.probe(Duration::from_secs(10)).await.unwrap();
        assert_eq!(told, if may { "VictoriaLogs 1.25.1" } else { "VictoriaLogs" });
    }
    let fake = Fake::start(|_| Reply::text(401, "no"));
    let logs = build(&format!("{{type: victorialogs, url: '{}'}}", fake.url()));
    assert!(matches!(logs.probe(Duration::from_secs(10)).await, Err(QueryError::Denied(_))));
}

#[test]
fn settings_that_cannot_work_are_refused_with_their_place() {
    insta::assert_snapshot!(
        problems("type: victorialogs\nurl: localhost:9428\naccount_id: soc\nproject_id: 4294967296\n"),
        @r"
    runner.yml:2:6: url: this is not an address: write one that starts with `http://` or `https://`
    runner.yml:3:13: account_id: `soc` is not a whole number, 0 or more
    runner.yml:4:13: project_id: `4294967296` is not a number from 0 to 4294967295
    "
    );
}
