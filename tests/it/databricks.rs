//! Databricks: against a fake of the Statement Execution API. The official Python connector (4.9.0, `use_sea=True`)
//! was held against it by hand: it logs in, polls and reads the first chunk, all that it does over this API.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use watchpost::datasource::{Limits, QueryError};

use crate::datasources_http::{ask, build, limits, problems, row, window};
use crate::fake::{Asked, Fake, Reply};

const STATEMENTS: &str = "/api/2.0/sql/statements";
const ID: &str = "01f188bb-89a8-116e-821e-50548abbb768";

/// A warehouse whose statement runs at first, and then has so many rows, in chunks of 30,000.
pub(crate) fn answer(asked: &Asked, rows: usize) -> Reply {
    match asked.line().strip_prefix(&format!("GET {STATEMENTS}/{ID}")) {
        None if asked.line() == format!("POST {STATEMENTS}/{ID}/cancel") => {
            assert_eq!(asked.json(), json!({}));
            Reply::json(200, &json!({}))
        }
        None => started(asked, "SELECT n FROM events"),
        Some("") => {
            assert_eq!(asked.header("authorization"), Some("Bearer s3cret"));
            succeeded(
                json!([{"name": "n", "type_text": "INT", "type_name": "INT", "position": 0}]),
                chunk(0, rows),
                rows,
            )
        }
        Some(part) => {
            let index = part.strip_prefix("/result/chunks/").unwrap().parse().unwrap();
            Reply::json(200, &chunk(index, rows))
        }
    }
}

fn started(asked: &Asked, statement: &str) -> Reply {
    assert_eq!(asked.line(), format!("POST {STATEMENTS}"));
    assert_eq!(asked.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(
        asked.json(),
        json!({"warehouse_id": "abc", "statement": statement, "wait_timeout": "0s", "on_wait_timeout": "CONTINUE",
            "disposition": "INLINE", "format": "JSON_ARRAY", "byte_limit": 25165824})
    );
    state("PENDING")
}

fn state(state: &str) -> Reply {
    Reply::json(200, &json!({"statement_id": ID, "status": {"state": state}}))
}

fn succeeded(columns: Value, result: Value, rows: usize) -> Reply {
    let count = columns.as_array().unwrap().len();
    Reply::json(
        200,
        &json!({"statement_id": ID, "status": {"state": "SUCCEEDED"}, "manifest": {"format": "JSON_ARRAY",
            "schema": {"column_count": count, "columns": columns}, "total_chunk_count": rows.div_ceil(CHUNK).max(1),
            "total_row_count": rows, "total_byte_count": rows * 4, "truncated": false}, "result": result}),
    )
}

fn chunk(index: usize, rows: usize) -> Value {
    let (start, end) = (index * CHUNK, ((index + 1) * CHUNK).min(rows));
    let data: Vec<Value> = (start..end).map(|n| json!([n.to_string()])).collect();
    let mut chunk =
        json!({"chunk_index": index, "row_offset": start, "row_count": data.len(), "data_array": data});
    if end < rows {
        chunk["next_chunk_index"] = json!(index + 1);
        chunk["next_chunk_internal_link"] = json!(format!("{STATEMENTS}/{ID}/result/chunks/{}", index + 1));
    }
    chunk
}

const CHUNK: usize = 30_000;

fn at(fake: &Fake) -> Arc<dyn watchpost::datasource::Datasource> {
    let url = fake.url();
    build(&format!("{{type: databricks, host: '{url}', path: /sql/1.0/warehouses/abc, token: s3cret}}"))
}

#[tokio::test]
async fn chunks_are_fetched_as_far_as_rows_are_kept() {
    for (keep, chunks) in [(1_000, 0), (30_000, 1), (70_000, 2), (100_000, 3)] {
        let fake = Fake::start(|asked| answer(asked, 100_000));
        let few = Limits { rows: keep, bytes: 64 << 20, ..limits(Duration::from_secs(60)) };
        let found = at(&fake).query("SELECT n FROM events", window(), &few).await.unwrap();
        assert_eq!((found.count, found.rows.len()), (100_000, keep));
        assert_eq!(Value::from(found.rows[keep - 1].clone()), json!({"n": keep - 1}));
        let fetched = fake.asked().iter().filter(|asked| asked.path.contains("/chunks/")).count();
        assert_eq!(fetched, chunks, "{keep}");
    }
}

#[tokio::test]
async fn every_type_of_a_row_is_kept_without_loss() {
    let types = [
        ("BOOLEAN", "true", json!(true)),
        ("LONG", "-9223372036854775808", json!(i64::MIN)),
        ("DOUBLE", "0.1", json!(0.1)),
        (
            "DECIMAL",
            "123456789012345678901234567890.12345678",
            json!("123456789012345678901234567890.12345678"),
        ),
        ("STRING", "é\u{1f512} \"x\"", json!("é\u{1f512} \"x\"")),
        ("DATE", "2026-11-22", json!("2026-11-22")),
        ("TIMESTAMP", "2026-11-22T10:17:16.000Z", json!("2026-11-22T10:17:16.000Z")),
        ("ARRAY", "[1,2]", json!([1, 2])),
        ("MAP", "{\"k\":\"v\"}", json!({"k": "v"})),
        ("STRUCT", "{\"a\":{\"b\":null}}", json!({"a": {"b": null}})),
        ("BINARY", "DEADBEEF", json!("DEADBEEF")),
    ];
    let columns: Vec<Value> = (types.iter().enumerate())
        .map(|(at, (name, ..))| json!({"name": name, "type_name": name, "type_text": name, "position": at}))
        .collect();
    let cells: Vec<&str> = types.iter().map(|(_, text, _)| *text).collect();
    let nulls = vec![Value::Null; types.len()];
    let result = json!({"chunk_index": 0, "row_offset": 0, "row_count": 2, "data_array": [cells, nulls]});
    let fake = Fake::start(move |asked| match asked.method.as_str() {
        "POST" => state("RUNNING"),
        _ => succeeded(json!(columns), result.clone(), 2),
    });
    let found = ask(at(&fake).as_ref(), "SELECT * FROM types").await.unwrap();
    for (name, _, value) in &types {
        assert_eq!(&row(&found, 0)[name], value);
        assert_eq!(row(&found, 1)[name], Value::Null);
    }
}

#[tokio::test]
async fn the_catalog_is_sent_where_there_is_one() {
    let fake = Fake::start(|asked| {
        assert_eq!(asked.json()["catalog"], "main");
        Reply::json(
            200,
            &json!({"statement_id": ID, "status": {"state": "FAILED", "error":
            {"error_code": "BAD_REQUEST", "message": "[PARSE_SYNTAX_ERROR] Syntax error at or near 'SELEC'"}}}),
        )
    });
    let (url, path) = (fake.url(), "/sql/1.0/endpoints/abc");
    let databricks =
        build(&format!("{{type: databricks, host: '{url}', path: {path}, token: x, catalog: main}}"));
    assert_eq!(databricks.settings()["catalog"], "main");
    // A statement that failed comes with HTTP 200.
    let error = ask(databricks.as_ref(), "SELEC").await.unwrap_err();
    let told = "BAD_REQUEST: [PARSE_SYNTAX_ERROR] Syntax error at or near 'SELEC'";
    assert!(matches!(&error, QueryError::Refused(text) if text == told), "{error:?}");
    assert_eq!(fake.asked().len(), 1, "nothing is left to be cancelled");
}

/// A warehouse in which a statement runs until it is cancelled, and what it was asked.
fn endless() -> Fake {
    Fake::start(|asked| match asked.line() {
        line if line == format!("POST {STATEMENTS}/{ID}/cancel") => Reply::json(200, &json!({})),
        line if line == format!("POST {STATEMENTS}") => state("PENDING"),
        line => {
            assert_eq!(line, format!("GET {STATEMENTS}/{ID}"));
            state("RUNNING")
        }
    })
}

fn cancels(fake: &Fake) -> usize {
    fake.asked().iter().filter(|asked| asked.line() == format!("POST {STATEMENTS}/{ID}/cancel")).count()
}

#[tokio::test]
async fn a_statement_whose_time_is_up_is_cancelled_in_the_warehouse() {
    let fake = endless();
    let databricks = at(&fake);
    let error =
        databricks.query("SELECT 1", window(), &limits(Duration::from_millis(400))).await.unwrap_err();
    assert!(matches!(error, QueryError::TimedOut { .. }), "{error:?}");
    databricks.close().await;
    assert_eq!(cancels(&fake), 1);
}

#[tokio::test]
async fn a_statement_that_nobody_waits_for_is_cancelled_before_the_process_ends() {
    let fake = endless();
    let databricks = at(&fake);
    let limit = limits(Duration::from_secs(60));
    let query = databricks.query("SELECT 1", window(), &limit);
    assert!(tokio::time::timeout(Duration::from_millis(300), query).await.is_err());
    databricks.close().await;
    assert_eq!(cancels(&fake), 1);
}

#[tokio::test]
async fn a_statement_is_cancelled_although_nobody_waited_for_its_id() {
    let fake = Fake::start(|asked| {
        if asked.line() == format!("POST {STATEMENTS}") {
            std::thread::sleep(Duration::from_millis(400));
            return state("PENDING");
        }
        Reply::json(200, &json!({}))
    });
    let databricks = at(&fake);
    let began = Instant::now();
    let error =
        databricks.query("SELECT 1", window(), &limits(Duration::from_millis(100))).await.unwrap_err();
    assert!(
        matches!(error, QueryError::TimedOut { .. }) && began.elapsed() < Duration::from_millis(350),
        "{error:?}"
    );
    databricks.close().await;
    assert_eq!(cancels(&fake), 1);
}

#[tokio::test]
async fn a_busy_front_end_ends_no_statement() {
    let (asked_before, rows) = (AtomicUsize::new(0), 3);
    let fake = Fake::start(move |asked| match asked.method.as_str() {
        "GET" => match asked_before.fetch_add(1, Ordering::SeqCst) {
            0 => state("RUNNING"),
            1 => Reply::json(429, &json!({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"})),
            2 => Reply::text(503, "upstream"),
            _ => answer(asked, rows),
        },
        _ => answer(asked, rows),
    });
    assert_eq!(ask(at(&fake).as_ref(), "SELECT n FROM events").await.unwrap().count, 3);
    assert_eq!(cancels(&fake), 0);
}

#[tokio::test]
async fn a_result_that_misses_rows_is_no_result() {
    let total = Arc::new(Mutex::new(0));
    let told = Arc::clone(&total);
    let columns = json!([{"name": "n", "type_name": "INT"}]);
    let fake = Fake::start(move |asked| match asked.method.as_str() {
        "POST" => state("PENDING"),
        _ => succeeded(columns.clone(), chunk(0, 3), *told.lock().unwrap()),
    });
    let databricks = at(&fake);
    for rows in [2, 4] {
        *total.lock().unwrap() = rows;
        let error = ask(databricks.as_ref(), "SELECT 1").await.unwrap_err();
        assert!(
            matches!(&error, QueryError::Unreadable(text) if *text == format!("3 rows came, the manifest says {rows}")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn an_id_that_leads_elsewhere_is_not_followed() {
    let fake = Fake::start(|asked| {
        assert_eq!(asked.line(), format!("POST {STATEMENTS}"));
        Reply::json(
            200,
            &json!({"statement_id": "../../2.0/clusters/delete", "status": {"state": "PENDING"}}),
        )
    });
    assert!(matches!(ask(at(&fake).as_ref(), "SELECT 1").await, Err(QueryError::Unreadable(_))));
}

#[tokio::test]
async fn a_probe_tells_of_the_warehouse_and_does_not_wake_it() {
    let fake = Fake::start(|asked| {
        assert_eq!(asked.line(), "GET /api/2.0/sql/warehouses/abc");
        assert_eq!(asked.header("authorization"), Some("Bearer s3cret"));
        Reply::json(
            200,
            &json!({"id": "abc", "name": "Security", "state": "STOPPED", "cluster_size": "Small"}),
        )
    });
    let told = at(&fake).probe(Duration::from_secs(10)).await.unwrap();
    assert_eq!(told, "Databricks SQL warehouse `Security` (STOPPED)");
    let fake =
        Fake::start(|_| Reply::json(404, &json!({"error_code": "NOT_FOUND", "message": "no warehouse abc"})));
    let error = at(&fake).probe(Duration::from_secs(10)).await.unwrap_err();
    assert!(
        matches!(&error, QueryError::Refused(text) if text == "HTTP 404: NOT_FOUND: no warehouse abc"),
        "{error:?}"
    );
}

#[test]
fn settings_that_cannot_work_are_refused_with_their_place() {
    insta::assert_snapshot!(
        problems("type: databricks\nhost: a.example/sql\npath: sql/protocolv1/o/123/0923-164208-meows279\ntoken: {a: b}\n"),
        @r"
    runner.yml:2:7: host: `a.example/sql` is not a host name, e.g. `adb-1234567890123456.7.azuredatabricks.net`
    runner.yml:3:7: path: this is the path of a cluster, and clusters do not run statements over HTTP: give a SQL warehouse's, e.g. `/sql/1.0/warehouses/abcdef1234567890`
    runner.yml:4:8: token: a secret stands here: write a text, `{env: NAME}` or `{file: PATH}`
    "
    );
    insta::assert_snapshot!(problems("type: databricks\nhost: a.example\npath: /sql/1.0/warehouses\ntoken: s3cret\n"), @"runner.yml:3:7: path: `/sql/1.0/warehouses` is not the HTTP path of a SQL warehouse, e.g. `/sql/1.0/warehouses/abcdef1234567890`");
}
