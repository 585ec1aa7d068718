//! ClickHouse.

use super::*;
use crate::proxy::Proxy;
use crate::services::service;

/// `host: ..., port: ...` of the real server; `None` where no services run.
fn place(name: &str) -> Option<String> {
    let address = service(name)?;
    let (host, port) = address.split_once("://").unwrap().1.split_once(':').unwrap();
    Some(format!("host: {host}, port: {port}"))
}

fn with(place: &str, more: &str) -> Arc<dyn Datasource> {
    datasource(&format!("{{type: clickhouse, {place}, password: secret{more}}}"))
}

pub(super) fn connected() -> Option<Arc<dyn Datasource>> {
    place("CLICKHOUSE").map(|place| with(&place, ""))
}

/// Runs for minutes.
const SLOW: &str = "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 42";

/// How many queries that hold `text` run in the server.
async fn running(source: &dyn Datasource, text: &str) -> u64 {
    let query = format!(
        "SELECT count() AS n FROM system.processes WHERE query LIKE '%{text}%' AND query NOT LIKE '%system.processes%'"
    );
    rows(source, &query).await[0]["n"].as_u64().unwrap()
}

#[tokio::test]
async fn clickhouse_every_type_becomes_json_without_loss() {
    let Some(source) = connected() else { return };
    let found = rows(
        &*source,
        r#"SELECT
            toUInt64(18446744073709551615) AS u64, toInt64(-9223372036854775808) AS i64, toInt8(-1) AS i8,
            toDecimal64('12.34', 3) AS decimal, toDecimal32(12, 0) AS whole, toDecimal64('-0.001', 10) AS small,
            toFloat32(0.1) AS f32, toFloat64(1) AS f64, nan AS nan, -inf AS inf,
            true AS bool, NULL AS nothing, CAST(NULL, 'Nullable(UInt8)') AS none,
            toDate('2026-11-23') AS date, toDate32('1925-01-01') AS date32,
            toDateTime('2026-11-23 10:00:00', 'Europe/Berlin') AS time,
            toDateTime64('2026-11-23 10:00:00.123', 3, 'UTC') AS time64,
            toIntervalDay(3) AS days, toIntervalMillisecond(1250) AS millis,
            'é "quoted" \n\t\\ \0' AS text, unhex('636166E9') AS bytes, toFixedString('abc', 5) AS fixed,
            CAST('b', 'Enum8(\'a\' = 1, \'b\' = 2)') AS enum, toLowCardinality('low') AS low,
            toUUID('61f0c404-5cb3-11e7-907b-a6006ad3dba0') AS uuid, toIPv4('10.0.0.1') AS ip4, toIPv6('fe80::1') AS ip6,
            [1, 2]::Array(UInt64) AS list, [[nan], []]::Array(Array(Float64)) AS lists, (1, 'x') AS tuple,
            CAST((1, '1.5'), 'Tuple(`source ip` UInt8, b Decimal(9, 2))') AS named,
            map('a', 1, 'b', 2) AS map, map('a', 1, 'a', 2) AS twice, map(1, [1.5]) AS keys,
            '{"a": {"b": [1, "x"]}, "n": 18446744073709551615}'::JSON AS json, toUInt8(42)::Dynamic AS dynamic,
            CAST(3.5, 'Variant(Float64, String)') AS variant, (1.5, 2)::Point AS point, '{}' AS braces"#,
    )
    .await;
    // As text: it is too long for the macro.
    let expected = r#"{
            "u64": 18446744073709551615, "i64": -9223372036854775808, "i8": -1, "decimal": "12.340",
            "whole": 12, "small": "-0.0010000000", "f32": 0.1, "f64": 1.0, "nan": "NaN", "inf": "-Infinity",
            "bool": true, "nothing": null, "none": null, "date": "2026-11-23", "date32": "1925-01-01",
            "time": "2026-11-23T09:00:00Z", "time64": "2026-11-23T10:00:00.123Z", "days": "P3D",
            "millis": "PT1.25S", "text": "é \"quoted\" \n\t\\ \u0000", "bytes": "caf\\xE9", "fixed": "abc",
            "enum": "b", "low": "low", "uuid": "61f0c404-5cb3-11e7-907b-a6006ad3dba0", "ip4": "10.0.0.1",
            "ip6": "fe80::1", "list": [1, 2], "lists": [["NaN"], []], "tuple": [1, "x"],
            "named": {"source ip": 1, "b": "1.50"}, "map": {"a": 1, "b": 2}, "twice": {"a": 1, "a_2": 2},
            "keys": {"1": [1.5]}, "json": {"a": {"b": [1, "x"]}, "n": 18446744073709551615}, "dynamic": 42,
            "variant": 3.5, "point": [1.5, 2], "braces": "{}"
    }"#;
    assert_eq!(found[0], serde_json::from_str::<Value>(expected).unwrap());
    let long = rows(
        &*source,
        r#"SELECT * FROM format(JSONEachRow, 'i Int128, u UInt256', '{"i": "-170141183460469231731687303715884105728", "u": 115792089237316195423570985008687907853269984665640564039457584007913129639935}')"#,
    )
    .await;
    assert_eq!(
        long,
        json!([{
            "i": "-170141183460469231731687303715884105728",
            "u": "115792089237316195423570985008687907853269984665640564039457584007913129639935",
        }])
    );
}

#[tokio::test]
async fn clickhouse_rows_are_counted_past_the_limits() {
    let Some(source) = connected() else { return };
    let many = ask(&*source, "SELECT number AS n FROM numbers(100000)", Limits::default()).await.unwrap();
    assert_eq!((many.count, many.rows.len()), (100_000, 1_000));
    assert_eq!(many.rows[999], object(json!({"n": 999})));
    assert_eq!(many.cut.as_deref(), Some("kept 1000 of 100000 rows (max_rows)"));
    let all = Limits { rows: 1_000_000, bytes: 1 << 30, ..Limits::default() };
    let all = ask(&*source, "SELECT number AS n FROM numbers(100000)", all).await.unwrap();
    assert_eq!((all.count, all.rows.len(), all.cut), (100_000, 100_000, None));
    let few = Limits { bytes: 1_000, ..Limits::default() };
    let few = ask(&*source, "SELECT number AS n FROM numbers(100000)", few).await.unwrap();
    assert!(few.count == 100_000 && few.rows.len() < 200, "{few:?}");
    assert_eq!(rows(&*source, "SELECT 1 WHERE 0").await, json!([]));
}

#[test]
fn clickhouse_a_million_rows_cost_the_memory_of_those_that_are_kept() {
    if connected().is_none() {
        return;
    }
    let grown = growth("clickhouse");
    assert!(grown < MAX_GROWTH, "{grown}");
}

#[tokio::test]
async fn clickhouse_an_error_after_the_first_rows_is_an_error_and_not_the_end() {
    let Some(source) = connected() else { return };
    for limit in [10, 1_000_000_000] {
        let limits = Limits { rows: limit, ..Limits::default() };
        let query = "SELECT throwIf(number = 4000000) FROM numbers(5000000) SETTINGS max_threads = 1";
        let error = ask(&*source, query, limits).await.unwrap_err();
        let QueryError::Refused(text) = error else { panic!("{error:?}") };
        assert!(text.contains("Value passed to 'throwIf' function is non-zero"), "{text}");
    }
}

#[tokio::test]
async fn clickhouse_refuses_in_its_own_words() {
    let Some(source) = connected() else { return };
    let text = refusal(&*source, "SELECT nme FROM (SELECT 1 AS name)").await;
    assert!(text.starts_with("Unknown expression identifier `nme`") && text.contains("'name'"), "{text}");
    for (query, told) in [
        ("INSERT INTO FUNCTION null('a Int8') VALUES (1)", "readonly mode"),
        ("CREATE TABLE t (a Int8) ENGINE = Memory", "readonly mode"),
        ("SELECT 1; SELECT 2", "Multi-statements"),
        ("SELECT 1 FORMAT JSON", "no `FORMAT`"),
        ("SELECT 1 +", "Syntax error"),
        ("", "empty"),
    ] {
        let text = refusal(&*source, query).await;
        assert!(text.contains(told), "{query}: {text}");
    }
    assert!(
        matches!(failure(&*source, "SET max_threads = 1").await, QueryError::Unreadable(text) if text.contains("no result"))
    );
}

#[tokio::test]
async fn clickhouse_takes_what_people_write() {
    let Some(source) = connected() else { return };
    assert_eq!(
        rows(&*source, "SELECT a, a FROM (SELECT 1 AS a); -- done").await,
        json!([{"a": 1, "a_2": 1}])
    );
    assert_eq!(rows(&*source, "WITH x AS (SELECT 'a?b' AS q) SELECT * FROM x").await, json!([{"q": "a?b"}]));
    assert_eq!(rows(&*source, "SELECT 1 AS a SETTINGS max_threads = 1").await, json!([{"a": 1}]));
    assert_eq!(
        rows(
            &*source,
            "SELECT number % 2 AS a, count() AS n FROM numbers(3) GROUP BY a WITH TOTALS ORDER BY a"
        )
        .await,
        json!([{"a": 0, "n": 2}, {"a": 1, "n": 1}])
    );
    assert!(!rows(&*source, "SHOW DATABASES").await.as_array().unwrap().is_empty());
    assert!(!rows(&*source, "EXPLAIN SELECT 1").await.as_array().unwrap().is_empty());
    assert!(source.probe(Duration::from_secs(5)).await.unwrap().starts_with("ClickHouse 2"));
}

#[tokio::test]
async fn clickhouse_settings_are_sent_and_databases_chosen() {
    let Some(place) = place("CLICKHOUSE") else { return };
    let source = with(&place, ", database: system, settings: {max_threads: 3}");
    assert_eq!(
        rows(&*source, "SELECT getSetting('max_threads') AS n, currentDatabase() AS d").await,
        json!([{"n": 3, "d": "system"}])
    );
    let source = with(&place, ", settings: {no_such_setting: 3}");
    assert!(refusal(&*source, "SELECT 1").await.contains("no_such_setting"));
    let source = with(&place, ", database: nowhere");
    assert!(refusal(&*source, "SELECT 1").await.contains("nowhere"));
}

#[tokio::test]
async fn clickhouse_a_user_that_may_set_nothing_still_reads() {
    let Some(place) = place("CLICKHOUSE") else { return };
    let source =
        datasource(&format!("{{type: clickhouse, {place}, username: reader, password: s3cret reader}}"));
    for _ in 0..2 {
        let found = rows(&*source, "SELECT toUInt64(18446744073709551615) AS n, toDecimal64('1.5', 3) AS d, toDateTime('2026-11-23 10:00:00') AS t").await;
        assert_eq!(found, json!([{"n": u64::MAX, "d": "1.500", "t": "2026-11-23T10:00:00"}]));
    }
    assert!(refusal(&*source, "INSERT INTO FUNCTION null('a Int8') VALUES (1)").await.contains("readonly"));
}

#[tokio::test]
async fn clickhouse_denies_a_wrong_password() {
    let Some(place) = place("CLICKHOUSE") else { return };
    let source = datasource(&format!("{{type: clickhouse, {place}, password: s3cret ü}}"));
    let error = failure(&*source, "SELECT 1").await;
    assert!(
        matches!(&error, QueryError::Denied(text) if text.contains("Authentication failed")),
        "{error:?}"
    );
    assert!(matches!(source.probe(Duration::from_secs(5)).await, Err(QueryError::Denied(_))));
}

#[tokio::test]
async fn clickhouse_that_is_not_there_is_unavailable_and_another_host_is_asked() {
    let dead = nowhere().await;
    let error = failure(&*with(&format!("host: 127.0.0.1, port: {dead}"), ""), "SELECT 1").await;
    assert!(
        matches!(&error, QueryError::Unavailable(text) if text.contains(&format!("127.0.0.1:{dead} cannot be reached")) && text.contains("refused")),
        "{error:?}"
    );
    let Some(address) = service("CLICKHOUSE") else { return };
    let alive = address.strip_prefix("http://").unwrap();
    let proxy = Proxy::start(alive).await;
    let source = with(&format!("host: ['127.0.0.1:{dead}', '{}', '{alive}']", proxy.address), "");
    for _ in 0..3 {
        assert_eq!(rows(&*source, "SELECT 1 AS a").await, json!([{"a": 1}]));
    }
    proxy.go_away();
    for _ in 0..3 {
        assert_eq!(rows(&*source, "SELECT 1 AS a").await, json!([{"a": 1}]));
    }
    // A host that takes connections and says nothing costs one query its time, and no more.
    let silent = answering(b"").await;
    let source = with(&format!("host: ['127.0.0.1:{silent}', '{alive}']"), "");
    let limits = within(Duration::from_millis(500));
    assert!(matches!(ask(&*source, "SELECT 1 AS a", limits).await, Err(QueryError::TimedOut { .. })));
    assert_eq!(rows(&*source, "SELECT 1 AS a").await, json!([{"a": 1}]));
    // A refused query is not asked elsewhere.
    let source = with(&format!("host: ['{alive}', '127.0.0.1:{dead}']"), "");
    assert!(refusal(&*source, "SELECT 1 +").await.contains("Syntax error"));
}

#[tokio::test]
async fn clickhouse_over_tls_is_verified_unless_the_operator_says_otherwise() {
    let Some(place) = place("CLICKHOUSE_TLS") else { return };
    for settings in [", verify: true", ", secure: true", ", secure: true, ca: self-signed.pem"] {
        let error = failure(&*with(&place, settings), "SELECT 1").await;
        assert!(
            matches!(&error, QueryError::Unavailable(text) if text.contains("certificate")),
            "{settings}: {error:?}"
        );
    }
    for settings in [
        ", verify: true, ca: authority.pem",
        ", secure: true, ca: authority.pem",
        ", secure: true, verify: false",
    ] {
        assert_eq!(rows(&*with(&place, settings), "SELECT 1 AS a").await, json!([{"a": 1}]), "{settings}");
    }
    let error = failure(&*with(&place, ""), "SELECT 1").await;
    assert!(matches!(error, QueryError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn clickhouse_ends_a_query_whose_time_is_up_or_for_which_nobody_waits() {
    let Some(source) = connected() else { return };
    let limits = within(Duration::from_millis(1_500));
    let began = Instant::now();
    let answer = ask(&*source, &format!("{SLOW} AND 'time is up' != ''"), limits).await;
    assert!(matches!(answer, Err(QueryError::TimedOut { limit }) if limit == limits.time), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    soon("it still runs", async || running(&*source, "time is up").await == 0).await;

    let asking = tokio::spawn({
        let source = source.clone();
        async move { ask(&*source, &format!("{SLOW} AND 'nobody waits' != ''"), Limits::default()).await }
    });
    soon("it never began", async || running(&*source, "nobody waits").await == 1).await;
    asking.abort();
    soon("it still runs", async || running(&*source, "nobody waits").await == 0).await;
}

#[tokio::test]
async fn clickhouse_a_reply_that_is_cut_is_unreadable_wherever_it_is_cut() {
    let Some(address) = service("CLICKHOUSE") else { return };
    let proxy = Proxy::start(address.strip_prefix("http://").unwrap()).await;
    let source = with(&format!("host: '{}'", proxy.address), "");
    let query = "SELECT number AS n, 'some text' AS t FROM numbers(200000)";
    for bytes in [2_000, 20_000, 200_000] {
        proxy.cut_after(bytes);
        let error = failure(&*source, query).await;
        assert!(
            matches!(&error, QueryError::Unreadable(text) if text.contains("broke off")),
            "{bytes}: {error:?}"
        );
    }
    // Not even the headers came: nothing tells that a server is there.
    proxy.cut_after(10);
    assert!(matches!(failure(&*source, query).await, QueryError::Unavailable(_)));
    proxy.cut_after(usize::MAX);
    assert_eq!(ask(&*source, query, Limits::default()).await.unwrap().count, 200_000);
}

#[tokio::test]
async fn clickhouse_that_was_restarted_is_asked_again() {
    let Some(address) = service("CLICKHOUSE") else { return };
    let proxy = Proxy::start(address.strip_prefix("http://").unwrap()).await;
    let source = with(&format!("host: '{}'", proxy.address), "");
    assert_eq!(rows(&*source, "SELECT 1 AS a").await, json!([{"a": 1}]));
    proxy.go_away();
    assert!(matches!(failure(&*source, "SELECT 1").await, QueryError::Unavailable(_)));
    proxy.come_back();
    assert_eq!(rows(&*source, "SELECT 1 AS a").await, json!([{"a": 1}]));
}
