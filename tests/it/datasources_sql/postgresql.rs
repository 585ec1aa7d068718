//! PostgreSQL.

use super::*;
use crate::proxy::Proxy;
use crate::services::service;

fn at(address: &str, more: &str) -> Arc<dyn Datasource> {
    let (host, port) = address.split_once(':').unwrap();
    datasource(&format!(
        "{{type: postgresql, host: {host}, port: {port}, database: logs, username: watch, password: s3cret watch{more}}}"
    ))
}

pub(super) fn connected() -> Option<Arc<dyn Datasource>> {
    service("POSTGRESQL").map(|address| at(&address, ""))
}

/// Runs `sql` as the user that may write.
async fn write(sql: &str) {
    let address = service("POSTGRESQL").unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let login = format!("host={host} port={port} user=watch password='s3cret watch' dbname=logs");
    let (client, connection) = tokio_postgres::connect(&login, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

/// How many queries that [`slow`] made with `mark` still run in the server.
async fn running(source: &dyn Datasource, mark: u32) -> u64 {
    let held = format!(
        "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory' AND objid = {mark} AND granted"
    );
    rows(source, &held).await[0]["n"].as_u64().unwrap()
}

/// Runs for minutes, known by a lock that it holds meanwhile: what `pg_stat_activity` shows of it is a `FETCH`.
fn slow(mark: u32) -> String {
    format!("SELECT 1 AS a WHERE pg_advisory_xact_lock({mark}) IS NOT NULL AND pg_sleep(600) IS NOT NULL")
}

#[tokio::test]
async fn postgresql_every_type_becomes_json_without_loss() {
    let Some(source) = connected() else { return };
    write(
        "DROP TABLE IF EXISTS of_types; DROP TYPE IF EXISTS of_types_mood, of_types_pair CASCADE;
         DROP DOMAIN IF EXISTS of_types_port CASCADE;
         CREATE TYPE of_types_mood AS ENUM ('calm', 'alarmed');
         CREATE TYPE of_types_pair AS (n bigint, \"some text\" text, at timestamptz);
         CREATE DOMAIN of_types_port AS integer CHECK (VALUE BETWEEN 0 AND 65535)",
    )
    .await;
    let found = rows(
        &*source,
        r#"SELECT true AS bool, NULL AS none, 1::smallint AS i2, -2147483648 AS i4, (-9223372036854775808) AS i8,
            12.340 AS numeric, 42::numeric AS whole, 123456789012345678901234567890 AS long, 'NaN'::numeric AS no_number,
            0.1::real AS f4, 2.5e-10::float8 AS f8, 1::float8 AS one, 'NaN'::float8 AS nan, '-Infinity'::float8 AS inf,
            '1234.50'::money AS money, 'x'::"char" AS char, 'pad'::char(5) AS padded, 'é "q" \ '::text AS text,
            '\x00ff'::bytea AS bytea, date '2026-11-23' AS date, time '10:00:00.5' AS time, timetz '10:00:00+02' AS timetz,
            timestamp '2026-11-23 10:00:00.123456' AS stamp, timestamptz '2026-11-23 10:00:00+02' AS stamptz,
            'infinity'::timestamptz AS forever, timestamptz '0044-03-15 10:00:00+00 BC' AS caesar,
            interval '1 year 2 months 3 days 4 hours 5 minutes 6.5 seconds' AS span, interval '-1 hour' AS back,
            '61f0c404-5cb3-11e7-907b-a6006ad3dba0'::uuid AS uuid, '10.0.0.1'::inet AS inet, '10.0.0.0/8'::cidr AS cidr,
            '08:00:2b:01:02:03'::macaddr AS mac, '08:00:2b:01:02:03:04:05'::macaddr8 AS mac8,
            '{"a": [1, 2.5, null], "n": 18446744073709551616}'::json AS json, '{"b": {"c": "d"}}'::jsonb AS jsonb,
            '$.a[*]'::jsonpath AS path, B'101' AS bit, '11'::varbit AS varbit, '<a>1</a>'::xml AS xml,
            point(1.5, 2) AS point, box(point(0, 0), point(1, 1)) AS box, circle(point(0, 0), 2) AS circle,
            ARRAY[1, 2, NULL] AS list, ARRAY[[1, 2], [3, 4]] AS lists, ARRAY['a', 'b,c', '"', NULL] AS texts,
            ARRAY[timestamptz '2026-11-23 10:00:00+02'] AS stamps, '{}'::int[] AS empty, '[0:1]={1,2}'::int[] AS bounds,
            'alarmed'::of_types_mood AS mood, ARRAY['calm'::of_types_mood] AS moods, 443::of_types_port AS port,
            ROW(1, 'x, "y"', timestamptz '2026-11-23 10:00:00+02')::of_types_pair AS pair,
            ARRAY[ROW(2, NULL, NULL)::of_types_pair] AS pairs, ROW(1, 'a') AS record,
            int4range(1, 10) AS range, '{[1,3), [5,7)}'::int4multirange AS ranges, 'a=>1, b=>NULL'::hstore AS hstore,
            to_tsvector('english', 'logs are read') AS words, '16/B374D848'::pg_lsn AS lsn, 'pg_class'::regclass AS class,
            17::oid AS oid, 'x'::name AS name, '1 2'::int2vector AS vector, 1 AS bool"#,
    )
    .await;
    // As text: it is too long for the macro.
    let expected = r#"{
            "bool": true, "none": null, "i2": 1, "i4": -2147483648, "i8": -9223372036854775808,
            "numeric": "12.340", "whole": 42, "long": "123456789012345678901234567890", "no_number": "NaN",
            "f4": 0.1, "f8": 2.5e-10, "one": 1.0, "nan": "NaN", "inf": "-Infinity", "money": "$1,234.50", "char": "x",
            "padded": "pad  ", "text": "é \"q\" \\ ", "bytea": "AP8=", "date": "2026-11-23",
            "time": "10:00:00.5", "timetz": "10:00:00+02", "stamp": "2026-11-23T10:00:00.123456",
            "stamptz": "2026-11-23T08:00:00Z", "forever": "infinity", "caesar": "0044-03-15T10:00:00+00 BC",
            "span": "P1Y2M3DT4H5M6.5S", "back": "PT-1H", "uuid": "61f0c404-5cb3-11e7-907b-a6006ad3dba0",
            "inet": "10.0.0.1", "cidr": "10.0.0.0/8", "mac": "08:00:2b:01:02:03",
            "mac8": "08:00:2b:01:02:03:04:05", "json": {"a": [1, 2.5, null], "n": "18446744073709551616"},
            "jsonb": {"b": {"c": "d"}}, "path": "$.\"a\"[*]", "bit": "101", "varbit": "11", "xml": "<a>1</a>",
            "point": "(1.5,2)", "box": "(1,1),(0,0)", "circle": "<(0,0),2>", "list": [1, 2, null],
            "lists": [[1, 2], [3, 4]], "texts": ["a", "b,c", "\"", null], "stamps": ["2026-11-23T08:00:00Z"],
            "empty": [], "bounds": [1, 2], "mood": "alarmed", "moods": ["calm"], "port": 443,
            "pair": {"n": 1, "some text": "x, \"y\"", "at": "2026-11-23T08:00:00Z"},
            "pairs": [{"n": 2, "some text": null, "at": null}], "record": "(1,a)", "range": "[1,10)",
            "ranges": "{[1,3),[5,7)}", "hstore": {"a": "1", "b": null}, "words": "'log':1 'read':3",
            "lsn": "16/B374D848", "class": "pg_class", "oid": 17, "name": "x", "vector": "1 2", "bool_2": 1
    }"#;
    assert_eq!(found[0], serde_json::from_str::<Value>(expected).unwrap());
}

#[tokio::test]
async fn postgresql_rows_are_counted_past_the_limits() {
    let Some(source) = connected() else { return };
    let query = "SELECT i AS n FROM generate_series(1, 100000) AS t(i)";
    let many = ask(&*source, query, Limits::default()).await.unwrap();
    assert_eq!((many.count, many.rows.len()), (100_000, 1_000));
    assert_eq!(many.rows[999], object(json!({"n": 1_000})));
    assert_eq!(many.cut.as_deref(), Some("kept 1000 of 100000 rows (max_rows)"));
    let all = Limits { rows: 1_000_000, bytes: 1 << 30, ..Limits::default() };
    let all = ask(&*source, query, all).await.unwrap();
    assert_eq!((all.count, all.rows.len(), all.cut), (100_000, 100_000, None));
    let few = Limits { bytes: 1_000, ..Limits::default() };
    let few = ask(&*source, query, few).await.unwrap();
    assert!(few.count == 100_000 && few.rows.len() < 200, "{few:?}");
    for (limit, rows) in [(1, 1), (1, 2), (2, 2), (3, 2)] {
        let limits = Limits { rows: limit, ..Limits::default() };
        let query = format!("SELECT i AS n FROM generate_series(1, {rows}) AS t(i)");
        let found = ask(&*source, &query, limits).await.unwrap();
        assert_eq!((found.count, found.rows.len()), (rows, limit.min(rows as usize)));
    }
    assert_eq!(rows(&*source, "SELECT 1 WHERE false").await, json!([]));
}

#[test]
fn postgresql_a_million_rows_cost_the_memory_of_those_that_are_kept() {
    if connected().is_none() {
        return;
    }
    let grown = growth("postgresql");
    assert!(grown < MAX_GROWTH, "{grown}");
}

#[tokio::test]
async fn postgresql_a_parallel_plan_stays_one_and_its_rows_are_counted() {
    let Some(source) = connected() else { return };
    write(
        "DROP TABLE IF EXISTS of_parallel; CREATE TABLE of_parallel AS SELECT i FROM generate_series(1, 300000) AS t(i);
         ALTER TABLE of_parallel SET (parallel_workers = 2); ANALYZE of_parallel",
    )
    .await;
    let query = "SELECT i, sqrt(i) FROM of_parallel WHERE hashint4(i) % 10 = 0 AND hashint4(i * 2) % 2 = 0";
    let plan = rows(&*source, &format!("EXPLAIN {query}")).await.to_string();
    assert!(plan.contains("Gather"), "{plan}");
    let counted = rows(&*source, &format!("SELECT count(*) AS n FROM ({query}) AS t")).await;
    let found = ask(&*source, query, Limits::default()).await.unwrap();
    assert_eq!(json!(found.count), counted[0]["n"]);
    assert!(found.count > 1_000 && found.rows.len() == 1_000, "{}", found.count);
}

#[tokio::test]
async fn postgresql_an_error_after_the_first_rows_is_an_error_and_not_the_end() {
    let Some(source) = connected() else { return };
    for limit in [10, 1_000_000] {
        let limits = Limits { rows: limit, ..Limits::default() };
        let query = "SELECT 1 / (90000 - i) AS n FROM generate_series(1, 100000) AS t(i)";
        let error = ask(&*source, query, limits).await.unwrap_err();
        assert!(matches!(&error, QueryError::Refused(text) if text == "division by zero"), "{error:?}");
    }
    assert_eq!(rows(&*source, "SELECT 1 AS a").await, json!([{"a": 1}]));
}

#[tokio::test]
async fn postgresql_refuses_in_its_own_words_and_goes_on() {
    let Some(source) = connected() else { return };
    write("CREATE TABLE IF NOT EXISTS of_refusals (a int)").await;
    let text = refusal(&*source, "SELECT a\n  FROM nowhere").await;
    assert_eq!(text, "relation \"nowhere\" does not exist (line 2, column 8 of the query)");
    for (query, told) in [
        ("INSERT INTO of_refusals VALUES (1) RETURNING a", "read-only transaction"),
        ("INSERT INTO of_refusals VALUES (1)", "returns no columns"),
        ("WITH x AS (INSERT INTO of_refusals VALUES (1) RETURNING a) SELECT * FROM x", "data-modifying"),
        ("EXPLAIN ANALYZE INSERT INTO of_refusals VALUES (1)", "read-only transaction"),
        ("SELECT * FROM of_refusals FOR UPDATE", "read-only transaction"),
        (
            "SELECT nextval(pg_get_serial_sequence('of_refusals', 'a')), set_config('transaction_read_only', 'off', true)",
            "read",
        ),
        ("CREATE TABLE of_no (a int)", "returns no columns"),
        ("SET statement_timeout = 0", "returns no columns"),
        ("COMMIT", "returns no columns"),
        ("DO $$ BEGIN DELETE FROM of_refusals; END $$", "returns no columns"),
        ("SELECT 1; SELECT 2", "multiple commands"),
        ("SELECT 1; DROP TABLE of_refusals", "multiple commands"),
        ("SELECT $1::int", "has parameters"),
        ("SELECT", "returns no columns"),
        ("", "returns no columns"),
        ("-- nothing", "returns no columns"),
    ] {
        let text = refusal(&*source, query).await;
        assert!(text.contains(told), "{query}: {text}");
    }
    assert_eq!(rows(&*source, "SELECT count(*) AS n FROM of_refusals").await, json!([{"n": 0}]));
}

#[tokio::test]
async fn postgresql_takes_what_people_write() {
    let Some(source) = connected() else { return };
    write(
        "CREATE TABLE IF NOT EXISTS of_people (a int); TRUNCATE of_people; INSERT INTO of_people VALUES (7)",
    )
    .await;
    assert_eq!(rows(&*source, "SELECT 1 AS a, 2 AS a;").await, json!([{"a": 1, "a_2": 2}]));
    assert_eq!(rows(&*source, "SELECT 1 AS a; -- done").await, json!([{"a": 1}]));
    assert_eq!(rows(&*source, "-- note\nSELECT 1 AS a -- done").await, json!([{"a": 1}]));
    assert_eq!(rows(&*source, "WITH x AS (SELECT 'a?b' AS q) SELECT * FROM x").await, json!([{"q": "a?b"}]));
    assert_eq!(
        rows(&*source, "VALUES (1, 'x'), (2, NULL)").await,
        json!([{"column1": 1, "column2": "x"}, {"column1": 2, "column2": null}])
    );
    assert_eq!(rows(&*source, "TABLE of_people").await, json!([{"a": 7}]));
    assert_eq!(
        rows(&*source, "(SELECT 1 AS a) UNION (SELECT 2) ORDER BY a").await,
        json!([{"a": 1}, {"a": 2}])
    );
    assert_eq!(rows(&*source, "SHOW transaction_read_only").await, json!([{"transaction_read_only": "on"}]));
    assert!(rows(&*source, "EXPLAIN SELECT 1").await[0]["QUERY PLAN"].is_string());
    assert_eq!(
        rows(&*source, "SELECT current_setting('application_name') AS a").await,
        json!([{"a": "watchpost"}])
    );
    assert!(source.probe(Duration::from_secs(5)).await.unwrap().starts_with("PostgreSQL 1"));
}

#[tokio::test]
async fn postgresql_denies_a_wrong_password_and_what_the_user_may_not_see() {
    let Some(address) = service("POSTGRESQL") else { return };
    let (host, port) = address.split_once(':').unwrap();
    let place = format!("type: postgresql, host: {host}, port: {port}");
    let source = datasource(&format!("{{{place}, database: logs, username: watch, password: s3cret wrong}}"));
    let error = failure(&*source, "SELECT 1").await;
    assert!(
        matches!(&error, QueryError::Denied(text) if text.contains("password authentication failed")),
        "{error:?}"
    );
    let source =
        datasource(&format!("{{{place}, database: nowhere, username: watch, password: s3cret watch}}"));
    let error = failure(&*source, "SELECT 1").await;
    assert!(
        matches!(&error, QueryError::Unavailable(text) if text.contains("\"nowhere\" does not exist")),
        "{error:?}"
    );
    write("CREATE TABLE IF NOT EXISTS of_denials (a int)").await;
    let source =
        datasource(&format!("{{{place}, database: logs, username: reader, password: s3cret reader}}"));
    let error = failure(&*source, "SELECT * FROM of_denials").await;
    assert!(matches!(&error, QueryError::Denied(text) if text.contains("permission denied")), "{error:?}");
}

#[tokio::test]
async fn postgresql_that_is_not_there_is_unavailable() {
    let source = at(&format!("127.0.0.1:{}", nowhere().await), "");
    let error = failure(&*source, "SELECT 1").await;
    assert!(
        matches!(&error, QueryError::Unavailable(text) if text.contains("cannot be reached") && text.contains("refused")),
        "{error:?}"
    );
    let error = failure(&*at("no-such-host.invalid:5432", ""), "SELECT 1").await;
    assert!(matches!(error, QueryError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn postgresql_over_tls_is_verified_where_the_operator_wants_it() {
    let Some(address) = service("POSTGRESQL") else { return };
    let tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for settings in [", tls: require", ", verify: true", ", ca: self-signed.pem"] {
        let error = failure(&*at(&address, settings), "SELECT 1").await;
        assert!(
            matches!(&error, QueryError::Unavailable(text) if text.contains("certificate")),
            "{settings}: {error:?}"
        );
    }
    for settings in [
        "",
        ", tls: prefer",
        ", tls: require, verify: false",
        ", ca: authority.pem",
        ", tls: require, ca: authority.pem, verify: true",
    ] {
        assert_eq!(rows(&*at(&address, settings), tls).await, json!([{"ssl": true}]), "{settings}");
    }
    assert_eq!(rows(&*at(&address, ", tls: off"), tls).await, json!([{"ssl": false}]));
}

#[tokio::test]
async fn postgresql_ends_a_query_whose_time_is_up_or_for_which_nobody_waits() {
    let Some(source) = connected() else { return };
    let limits = within(Duration::from_millis(700));
    let began = Instant::now();
    let answer = ask(&*source, &slow(1), limits).await;
    assert!(matches!(answer, Err(QueryError::TimedOut { limit }) if limit == limits.time), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    soon("it still runs", async || running(&*source, 1).await == 0).await;

    let asking = tokio::spawn({
        let source = source.clone();
        async move { ask(&*source, &slow(2), Limits::default()).await }
    });
    soon("it never began", async || running(&*source, 2).await == 1).await;
    asking.abort();
    soon("it still runs", async || running(&*source, 2).await == 0).await;
}

#[tokio::test]
async fn postgresql_a_reply_that_is_cut_is_unreadable() {
    let Some(address) = service("POSTGRESQL") else { return };
    let proxy = Proxy::start(&address).await;
    let source = at(&proxy.address.to_string(), ", tls: off");
    let query = "SELECT i, 'some text' AS t FROM generate_series(1, 200000) AS t(i)";
    let all = Limits { rows: 1_000_000, bytes: 1 << 30, ..Limits::default() };
    for bytes in [5_000, 50_000, 500_000] {
        proxy.cut_after(bytes);
        let error = ask(&*source, query, all).await.unwrap_err();
        assert!(
            matches!(&error, QueryError::Unreadable(text) if text.contains("broke off")),
            "{bytes}: {error:?}"
        );
    }
    proxy.cut_after(usize::MAX);
    assert_eq!(ask(&*source, query, all).await.unwrap().count, 200_000);
}

#[tokio::test]
async fn postgresql_that_was_restarted_is_asked_again_at_once() {
    let Some(address) = service("POSTGRESQL") else { return };
    let proxy = Proxy::start(&address).await;
    let source = at(&proxy.address.to_string(), "");
    assert_eq!(rows(&*source, "SELECT 1 AS a").await, json!([{"a": 1}]));
    proxy.go_away();
    assert!(matches!(failure(&*source, "SELECT 1").await, QueryError::Unavailable(_)));
    proxy.come_back();
    let pid = rows(&*source, "SELECT pg_backend_pid() AS pid").await[0]["pid"].clone();
    assert_eq!(
        rows(&*source, "SELECT pg_backend_pid() AS pid").await,
        json!([{"pid": pid}]),
        "it is used again"
    );
    // As a restart ends it: while it waits, without a word from us.
    write(&format!("SELECT pg_terminate_backend({pid})")).await;
    let other = rows(&*source, "SELECT pg_backend_pid() AS pid").await[0]["pid"].clone();
    assert_ne!(other, pid);
}

#[tokio::test]
async fn postgresql_opens_no_more_connections_than_it_may() {
    let Some(address) = service("POSTGRESQL") else { return };
    let proxy = Proxy::start(&address).await;
    let source = at(&proxy.address.to_string(), ", connections: 2");
    let asked = (0..6).map(|_| ask(&*source, "SELECT 1 AS a, pg_sleep(0.1)::text AS s", Limits::default()));
    for answer in futures_util::future::join_all(asked).await {
        assert_eq!(answer.unwrap().count, 1);
    }
    assert_eq!(proxy.most(), 2);
}
