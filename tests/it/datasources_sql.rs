//! `clickhouse` and `postgresql` against real servers (`make services`), and against what is no such server.

mod clickhouse;
mod postgresql;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use watchpost::clock::Window;
use watchpost::config::{FromYaml as _, Reader};
use watchpost::datasource::{Config, Datasource, Limits, QueryError, Rows};

/// The datasource that `settings` describe, as a runner would.
fn datasource(settings: &str) -> Arc<dyn Datasource> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    let mut reader = Reader::new("runner.yml", settings, &dir, None);
    let node = reader.parse().unwrap();
    let config = Config::from_yaml(&node, &mut reader);
    let config = config.unwrap_or_else(|| panic!("{settings}: {:?}", reader.into_diagnostics()));
    assert!(!format!("{config:?} {}", config.to_json()).contains("s3cret"), "{config:?}");
    config.build(&dir).unwrap()
}

async fn ask(source: &dyn Datasource, query: &str, limits: Limits) -> Result<Rows, QueryError> {
    let window = Window::from_seconds(1_700_000_000, 1_700_000_300).unwrap();
    let answer = source.query(query, window, &limits).await;
    if let Err(error) = &answer {
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }
    answer
}

async fn rows(source: &dyn Datasource, query: &str) -> Value {
    let rows = ask(source, query, Limits::default()).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    assert_eq!(rows.count, rows.rows.len() as u64);
    Value::Array(rows.rows.into_iter().map(Value::Object).collect())
}

async fn failure(source: &dyn Datasource, query: &str) -> QueryError {
    match ask(source, query, Limits::default()).await {
        Err(error) => error,
        Ok(rows) => panic!("{query}: {rows:?}"),
    }
}

async fn refusal(source: &dyn Datasource, query: &str) -> String {
    match failure(source, query).await {
        QueryError::Refused(text) => text,
        other => panic!("{query}: {other:?}"),
    }
}

fn within(time: Duration) -> Limits {
    Limits { time, ..Limits::default() }
}

/// An address where nobody listens.
async fn nowhere() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A server that answers every connection with `answer`, whatever it is asked; without one, it says nothing.
async fn answering(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = [0; 4096];
                let read = stream.read(&mut asked).await.unwrap_or(0);
                if read > 0 && !answer.is_empty() {
                    stream.write_all(answer).await.unwrap();
                } else {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            });
        }
    });
    port
}

/// Waits until `is_gone` says so, which must be soon.
async fn soon(what: &str, mut is_gone: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_gone().await {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks for a million rows in a process of its own, since other tests share this one's memory, and says by how many
/// bytes its peak grew.
fn growth(kind: &str) -> u64 {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "datasources_sql::a_million_rows_in_a_process_of_their_own",
            "--ignored",
            "--nocapture",
        ])
        .env("WATCHPOST_MILLION", kind)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout).into_owned();
    let grown = told.lines().find_map(|line| line.split("peak grew by ").nth(1)?.parse().ok());
    grown.unwrap_or_else(|| panic!("{told}{}", String::from_utf8_lossy(&child.stderr)))
}

#[tokio::test]
#[ignore = "run by the tests of each kind, each time in a process of its own"]
async fn a_million_rows_in_a_process_of_their_own() {
    let kind = std::env::var("WATCHPOST_MILLION").unwrap_or_default();
    let (source, from) = match kind.as_str() {
        "clickhouse" => (clickhouse::connected().unwrap(), "numbers(1000000)"),
        "postgresql" => (postgresql::connected().unwrap(), "generate_series(0, 999999) AS t(number)"),
        _ => return,
    };
    let query =
        format!("SELECT number, concat('a log line that is not short, number ', number) AS line FROM {from}");
    let few = format!("SELECT * FROM ({query}) AS t LIMIT 1000");
    assert_eq!(ask(&*source, &few, Limits::default()).await.unwrap().count, 1_000);
    let before = peak();
    let rows = ask(&*source, &query, Limits::default()).await.unwrap();
    assert_eq!((rows.count, rows.rows.len()), (1_000_000, 1_000));
    println!("peak grew by {}", peak() - before);
}

/// The most memory that this process has held, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// The million rows are 50 MB.
const MAX_GROWTH: u64 = 8 << 20;

fn object(value: Value) -> serde_json::Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[tokio::test]
async fn what_speaks_another_protocol_is_unavailable_or_unreadable_and_never_no_rows() {
    let http = |status: &str, body: &str| -> &'static [u8] {
        let text =
            format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        Box::leak(text.into_boxed_str()).as_bytes()
    };
    let rubbish = http("200 OK", "<html>hello</html>");
    for (answer, told) in [
        (http("500 Internal Server Error", "oops"), "datasource is not available"),
        (http("500 Internal Server Error", ""), "datasource is not available"),
        (http("429 Too Many Requests", "slow down"), "datasource is not available"),
        (http("503 Service Unavailable", ""), "datasource is not available"),
        (http("302 Found", ""), "datasource is not available"),
        (http("401 Unauthorized", ""), "access denied"),
        (rubbish, "reply cannot be read"),
        (http("200 OK", ""), "reply cannot be read"),
        (http("200 OK", "[\"a\"]\n[\"UInt8\"]\n[1"), "reply cannot be read"),
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\n[\"a\"]\n[\"UInt8\"]\n[1]\n"[..],
            "reply cannot be read",
        ),
        (&b"no HTTP\r\n\r\n"[..], "datasource is not available"),
    ] {
        let port = answering(answer).await;
        let source =
            datasource(&format!("{{type: clickhouse, host: 127.0.0.1, port: {port}, password: s3cret}}"));
        let error = failure(&*source, "SELECT 1").await;
        let shown = String::from_utf8_lossy(answer);
        assert!(error.to_string().starts_with(told), "{shown}: {error}");
        assert!(source.probe(Duration::from_secs(5)).await.is_err(), "{shown}");
    }
    for answer in [rubbish, &b"S"[..], &b"E\0\0\0\x04"[..]] {
        let port = answering(answer).await;
        let source = datasource(&format!(
            "{{type: postgresql, host: 127.0.0.1, port: {port}, database: d, username: u, password: s3cret}}"
        ));
        let error = ask(&*source, "SELECT 1", within(Duration::from_secs(2))).await.unwrap_err();
        assert!(matches!(error, QueryError::Unavailable(_) | QueryError::TimedOut { .. }), "{error:?}");
    }
    let silent = answering(b"").await;
    for settings in [
        format!("{{type: clickhouse, host: 127.0.0.1, port: {silent}}}"),
        format!(
            "{{type: postgresql, host: 127.0.0.1, port: {silent}, database: d, username: u, password: s3cret}}"
        ),
    ] {
        let limits = within(Duration::from_millis(300));
        let error = ask(&*datasource(&settings), "SELECT 1", limits).await.unwrap_err();
        assert!(matches!(error, QueryError::TimedOut { limit } if limit == limits.time), "{error:?}");
    }
}

#[test]
fn settings_of_each_kind_tell_no_secret() {
    for (settings, told) in [
        (
            "{type: clickhouse, host: h, username: s3cret, password: s3cret}",
            json!({"type": "clickhouse", "database": "default", "port": 8123, "verify": false}),
        ),
        (
            "{type: postgresql, host: h, username: s3cret-user, password: x, database: d}",
            json!({"type": "postgresql", "database": "d", "host": "h", "port": 5432}),
        ),
    ] {
        let dir = Path::new("/");
        let mut reader = Reader::new("runner.yml", settings, dir, None);
        let node = reader.parse().unwrap();
        let source = Config::from_yaml(&node, &mut reader).unwrap().build(dir).unwrap();
        assert_eq!(source.settings(), &object(told));
    }
}
