mod rows;

use std::path::PathBuf;
use std::time::Instant;

use super::*;

fn duckdb(config: Config, base: &Path) -> DuckDb {
    DuckDb::new(config, base)
}

fn memory(init: &str) -> DuckDb {
    let config = Config { init: Some(init.to_owned()).filter(|sql| !sql.is_empty()), ..Config::default() };
    duckdb(config, Path::new("/nonexistent"))
}

fn window() -> Window {
    Window::from_seconds(1_700_000_000, 1_700_000_300).unwrap()
}

async fn rows(source: &DuckDb, query: &str) -> Result<Rows, QueryError> {
    source.query(query, window(), &Limits::default()).await
}

async fn values(source: &DuckDb, query: &str) -> Value {
    let rows = rows(source, query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    Value::Array(rows.rows.into_iter().map(Value::Object).collect())
}

async fn refusal(source: &DuckDb, query: &str) -> String {
    match rows(source, query).await {
        Err(QueryError::Refused(text)) => text,
        other => panic!("{query}: expected a refusal, got {other:?}"),
    }
}

/// A database file with `events(id)`: `1..=rows`.
fn write_database(path: &Path, rows: u32) {
    let writer = ::duckdb::Connection::open(path).unwrap();
    writer
        .execute_batch(&format!(
            "CREATE TABLE events AS SELECT i::INTEGER AS id FROM range(1, {rows} + 1) t(i)"
        ))
        .unwrap();
}

fn in_file(base: &Path) -> DuckDb {
    duckdb(Config { database: "events.duckdb".into(), ..Config::default() }, base)
}

/// Runs for minutes, in DuckDB's executor.
const SLOW: &str = "SELECT count(*) FROM range(10000000) a(i), range(10000000) b(j) WHERE hash(i + j) = 42";

#[tokio::test]
async fn an_error_in_the_middle_of_a_stream_is_an_error_and_not_the_end() {
    let source = memory("");
    let query =
        "SELECT CASE WHEN i = 900000 THEN error('late') ELSE i::VARCHAR END AS i FROM range(1000000) t(i)";
    let text = refusal(&source, query).await;
    assert!(text.contains("late"), "{text}");
}

#[tokio::test]
async fn a_bad_query_is_refused_in_duckdbs_words() {
    let source = memory("");
    let text = refusal(&source, "SELECT nme FROM (SELECT 1 AS name)").await;
    assert!(text.starts_with("Binder Error: Referenced column \"nme\" not found"), "{text}");
    assert!(text.contains("LINE 1: SELECT nme"), "{text}");
    let text = refusal(&source, "SELECT 1\nFROM FROM x").await;
    assert_eq!(text, "Parser Error: syntax error at or near \"FROM\" (line 2, column 6 of the query)");
    assert!(refusal(&source, "SELECT ?").await.contains("parameters"));
    assert!(refusal(&source, "SELECT 1 \0").await.contains("nul"));
    assert_eq!(refusal(&source, " -- nothing").await, "the query is empty");
}

#[tokio::test]
async fn what_only_reads_is_allowed() {
    let source = memory("CREATE TABLE t AS SELECT 1 AS a; CREATE MACRO twice(x) AS 2 * x");
    for query in [
        "FROM t",
        "SELECT * FROM t; -- done",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "VALUES (1)",
        "DESCRIBE t",
        "SUMMARIZE t",
        "PIVOT t ON a IN (1) USING count(*)",
        "SELECT twice(a) FROM t",
        "SELECT '\"function_name\":\"enable_logging\"'",
        "SELECT 1 WHERE now() - INTERVAL 5 MINUTE < now()",
    ] {
        assert!(rows(&source, query).await.is_ok_and(|rows| rows.count > 0), "{query}");
    }
}

#[tokio::test]
async fn what_writes_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_database(&folder.path().join("events.duckdb"), 3);
    let config = Config { init: Some("CREATE TABLE t AS SELECT 1 AS a".into()), ..Config::default() };
    let path = folder.path().display();
    for source in [duckdb(config, folder.path()), in_file(folder.path())] {
        for query in [
            "INSERT INTO t VALUES (2)".to_owned(),
            "WITH x AS (SELECT 2) INSERT INTO t SELECT * FROM x".to_owned(),
            "INSERT INTO events VALUES (2)".to_owned(),
            "SELECT 1; DROP TABLE t".to_owned(),
            "DROP TABLE t; SELECT 1".to_owned(),
            "SELECT 1; SELECT 2".to_owned(),
            format!("COPY (SELECT 1) TO '{path}/out.csv'"),
            format!("ATTACH '{path}/other.duckdb'"),
            format!("EXPORT DATABASE '{path}/out'"),
            "EXPLAIN ANALYZE INSERT INTO t VALUES (2)".to_owned(),
            "INSTALL httpfs".to_owned(),
            "LOAD httpfs".to_owned(),
            "SET threads = 8".to_owned(),
            "PRAGMA enable_profiling".to_owned(),
            "CALL enable_logging()".to_owned(),
            "CREATE TEMP TABLE x AS SELECT 1".to_owned(),
            format!("FROM enable_logging(storage = 'file', storage_path = '{path}/out')"),
            format!("FROM ENABLE_LOGGING(storage = 'file', storage_path = '{path}/out')"),
            format!("FROM main.\"enable_logging\"(storage = 'file', storage_path = '{path}/out')"),
            format!("FROM query('FROM enable_logging(storage = ''file'', storage_path = ''{path}/out'')')"),
            format!("SELECT (SELECT count(*) FROM enable_profiling(save_location = '{path}/out'))"),
        ] {
            refusal(&source, &query).await;
        }
        let names: Vec<_> =
            folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["events.duckdb"], "nothing was written");
    }
}

#[tokio::test]
async fn nothing_is_fetched_and_the_configuration_is_locked() {
    let source = memory("");
    let query = "SELECT name, value FROM duckdb_settings() WHERE name IN ('autoinstall_known_extensions',
        'autoload_known_extensions', 'allow_community_extensions', 'allow_unsigned_extensions',
        'allow_persistent_secrets', 'lock_configuration', 'temp_directory', 'threads') ORDER BY name";
    let found = values(&source, query).await;
    let settings: Vec<_> =
        found.as_array().unwrap().iter().map(|row| (&row["name"], &row["value"])).collect();
    assert_eq!(
        json!(settings),
        json!([
            ["allow_community_extensions", "false"],
            ["allow_persistent_secrets", "false"],
            ["allow_unsigned_extensions", "false"],
            ["autoinstall_known_extensions", "false"],
            ["autoload_known_extensions", "false"],
            ["lock_configuration", "true"],
            ["temp_directory", ""],
            ["threads", "1"],
        ])
    );
}

#[tokio::test]
async fn json_csv_and_parquet_files_are_read_where_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    std::fs::write(
        logs.join("a.jsonl"),
        "{\"user\": \"root\", \"port\": 22}\n{\"user\": \"eve\", \"port\": 2222}\n",
    )
    .unwrap();
    std::fs::write(logs.join("b.csv"), "user,port\nroot,22\neve,2222\n").unwrap();
    let writer = ::duckdb::Connection::open_in_memory().unwrap();
    writer.execute_batch(&format!("COPY (FROM '{0}/b.csv') TO '{0}/c.parquet'", logs.display())).unwrap();
    let source = duckdb(Config::default(), folder.path());
    for from in [
        "read_json('logs/*.jsonl')",
        "'logs/a.jsonl'",
        "read_csv('logs/b.csv')",
        "read_parquet('logs/*.parquet')",
    ] {
        let found = values(&source, &format!("SELECT user, port FROM {from} WHERE port > 1000")).await;
        assert_eq!(found, json!([{"user": "eve", "port": 2222}]), "{from}");
    }
    let missing = rows(&source, "FROM read_json('missing/*.jsonl')").await;
    assert!(
        matches!(&missing, Err(QueryError::Unavailable(text)) if text.contains("missing/*.jsonl")),
        "{missing:?}"
    );
}

#[tokio::test]
async fn init_makes_views_that_every_session_sees_even_beside_a_read_only_file() {
    let folder = tempfile::tempdir().unwrap();
    write_database(&folder.path().join("events.duckdb"), 3);
    let config = Config {
        database: "events.duckdb".into(),
        init: Some(
            "CREATE VIEW late AS SELECT id FROM events WHERE id > 1; CREATE TABLE own AS SELECT 9 AS n"
                .into(),
        ),
        ..Config::default()
    };
    let source = duckdb(config, folder.path());
    let query = "SELECT (SELECT count(*) FROM late) AS l, (SELECT n FROM own) AS o, (SELECT count(*) FROM events) AS e";
    let expected = Map::from_iter([("l".into(), json!(2)), ("o".into(), json!(9)), ("e".into(), json!(3))]);
    let (one, two, three) = tokio::join!(rows(&source, query), rows(&source, query), rows(&source, query));
    for found in [one, two, three] {
        assert_eq!(found.unwrap().rows, std::slice::from_ref(&expected));
    }
    let source = memory("CREATE VIEW v AS FROM nowhere");
    let error = rows(&source, "SELECT 1").await.unwrap_err().to_string();
    assert!(
        error.starts_with("datasource is not available: init: Catalog Error: Table with name nowhere"),
        "{error}"
    );
}

#[tokio::test]
async fn a_query_over_its_time_is_stopped_and_the_next_one_runs() {
    let source = memory("");
    let limits = Limits { time: Duration::from_millis(300), ..Limits::default() };
    let began = Instant::now();
    let answer = source.query(SLOW, window(), &limits).await;
    assert!(matches!(answer, Err(QueryError::TimedOut { limit }) if limit == limits.time), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(values(&source, "SELECT 1 AS a").await, json!([{"a": 1}]));
    stops_working(&source).await;
}

#[tokio::test]
async fn a_stream_without_end_is_stopped_at_its_time() {
    let source = memory("");
    let limits = Limits { time: Duration::from_millis(300), rows: 5, ..Limits::default() };
    let answer = source.query("SELECT i FROM range(1000000000000) t(i)", window(), &limits).await;
    assert!(matches!(answer, Err(QueryError::TimedOut { .. })), "{answer:?}");
    stops_working(&source).await;
}

#[tokio::test]
async fn dropping_the_wait_stops_the_query_and_waits_for_nothing() {
    for threads in [1, 3] {
        let source = duckdb(Config { threads, ..Config::default() }, Path::new("/"));
        assert!(tokio::time::timeout(Duration::from_millis(300), rows(&source, SLOW)).await.is_err());
        let began = Instant::now();
        assert_eq!(values(&source, "SELECT 1 AS a").await, json!([{"a": 1}]));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        stops_working(&source).await;
    }
}

#[tokio::test]
async fn a_shape_that_passed_does_not_let_another_statement_pass() {
    let source = memory("CREATE TABLE t AS SELECT 1 AS a");
    for n in 1..4 {
        assert_eq!(values(&source, &format!("SELECT a FROM t WHERE a < {n}0")).await, json!([{"a": 1}]));
        refusal(&source, &format!("SELECT a FROM t WHERE a < {n}0; DELETE FROM t")).await;
        refusal(&source, &format!("DELETE FROM t WHERE a < {n}0")).await;
    }
}

/// Each query's thread holds the store, until DuckDB has left it.
async fn stops_working(source: &DuckDb) {
    let began = Instant::now();
    while Arc::strong_count(&source.store) > 1 {
        assert!(began.elapsed() < Duration::from_secs(5), "a query is still running");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_wait_dropped_at_any_moment_leaves_nothing_running() {
    let source = memory("");
    for micros in (0..4_000).step_by(40) {
        let wait = tokio::time::timeout(Duration::from_micros(micros), rows(&source, SLOW));
        assert!(wait.await.is_err());
    }
    stops_working(&source).await;
    assert_eq!(values(&source, "SELECT 1 AS a").await, json!([{"a": 1}]));
}

#[test]
fn nobody_interrupts_a_connection_that_may_be_gone() {
    let connection = ::duckdb::Connection::open_in_memory().unwrap();
    for is_cancelled in [true, false] {
        let running = Running::default();
        let interruptible = running.begin(connection.interrupt_handle()).unwrap();
        assert!(!running.interrupt(), "somebody still waits");
        if is_cancelled {
            running.cancel();
            assert!(running.interrupt() && running.interrupt(), "until the query has ended");
        }
        assert_eq!(interruptible.end(), !is_cancelled);
        running.cancel();
        assert!(!running.interrupt());
    }
    let running = Running::default();
    let panics = std::panic::AssertUnwindSafe(|| {
        let _interruptible = running.begin(connection.interrupt_handle()).unwrap();
        running.cancel();
        panic!("while it reads");
    });
    assert!(std::panic::catch_unwind(panics).is_err());
    assert!(!running.interrupt());
}

#[tokio::test]
async fn slow_queries_do_not_hold_up_a_quick_one() {
    let source = Arc::new(memory(""));
    let slow: Vec<_> = (0..6)
        .map(|_| {
            let source = source.clone();
            tokio::spawn(async move { rows(&source, SLOW).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    assert_eq!(values(&source, "SELECT 1 AS a").await, json!([{"a": 1}]));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    slow.iter().for_each(tokio::task::JoinHandle::abort);
    for query in slow {
        assert!(query.await.unwrap_err().is_cancelled(), "it was still running");
    }
    stops_working(&source).await;
}

#[tokio::test]
async fn too_little_memory_is_an_error_and_the_next_query_runs() {
    let source = duckdb(Config { memory_limit: "20MB".into(), ..Config::default() }, Path::new("/"));
    let text =
        refusal(&source, "SELECT i, repeat(i::VARCHAR, 20) AS t FROM range(3000000) t(i) ORDER BY t DESC")
            .await;
    assert!(text.starts_with("Out of Memory Error"), "{text}");
    assert_eq!(values(&source, "SELECT 1 AS a").await, json!([{"a": 1}]));
}

#[tokio::test]
async fn a_database_that_is_missing_is_unavailable_until_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let source = in_file(folder.path());
    let count = "SELECT count(*) AS n FROM events";
    for _ in 0..10 {
        let answer = rows(&source, count).await;
        assert!(
            matches!(&answer, Err(QueryError::Unavailable(text)) if text.contains("events.duckdb")),
            "{answer:?}"
        );
    }
    let path = folder.path().join("events.duckdb");
    write_database(&path, 3);
    assert_eq!(values(&source, count).await, json!([{"n": 3}]));

    let away: PathBuf = folder.path().join("away");
    std::fs::rename(&path, &away).unwrap();
    assert!(matches!(rows(&source, count).await, Err(QueryError::Unavailable(_))));
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(values(&source, count).await, json!([{"n": 3}]));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_unavailable_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.duckdb"), "x".repeat(20_000)).unwrap();
    let answer = rows(&in_file(folder.path()), "SELECT 1").await;
    assert!(
        matches!(&answer, Err(QueryError::Unavailable(text)) if text.contains("not a valid DuckDB")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_database_that_was_replaced_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.duckdb");
    write_database(&path, 3);
    let source = in_file(folder.path());
    let count = "SELECT count(*) AS n FROM events";
    assert_eq!(values(&source, count).await, json!([{"n": 3}]));
    write_database(&folder.path().join("next"), 5);
    std::fs::rename(folder.path().join("next"), &path).unwrap();
    assert_eq!(values(&source, count).await, json!([{"n": 5}]));
}

#[test]
fn settings_tell_the_database_and_not_the_init() {
    let source = memory("CREATE SECRET s (TYPE s3, SECRET 'hunter2')");
    let told = json!({
        "type": "duckdb", "database": ":memory:", "s3_host": "s3.amazonaws.com", "s3_region": "us-east-1",
        "s3_type": "s3", "r2_account": "", "ssl": true, "verify": true,
    });
    assert_eq!(Value::Object(source.settings().clone()), told);
}

#[tokio::test]
async fn object_storage_without_its_extension_says_what_to_install_where_and_not_the_key() {
    let config = Config {
        s3_key: Some(Secret::new("AKIAHUNTER")),
        s3_secret: Some(Secret::new("hunter2")),
        ..Config::default()
    };
    assert!(!format!("{config:?} {}", config.to_json()).to_lowercase().contains("hunter"));
    let source = duckdb(config, Path::new("/"));
    let answer = rows(&source, "SELECT 1").await;
    let Err(QueryError::Unavailable(text)) = answer else { panic!("{answer:?}") };
    assert!(text.starts_with("`s3_key` needs DuckDB's extension `httpfs`, and `/"), "{text}");
    assert!(text.contains("/httpfs.duckdb_extension` is not there: put the one of DuckDB v1."), "{text}");
    assert!(!text.to_lowercase().contains("hunter"), "{text}");
    assert!(!Value::Object(source.settings().clone()).to_string().to_lowercase().contains("hunter"));
}
