//! The datasources `elasticsearch` and `opensearch`: against stand-ins of the real servers, and against one that answers
//! as the vendors' documents say where those lack something.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use watchpost::clock::Window;
use watchpost::config::{FromYaml, Reader, Secret};
use watchpost::datasource::{Config, Datasource, Limits, QueryError, Rows};
use watchpost::http::{Destination, Http, Request};

use crate::fake::{Asked, Fake, Reply, data};
use crate::services::service;

/// As the runner's file makes it.
fn datasource(yaml: &str) -> Arc<dyn Datasource> {
    let mut reader = Reader::new("runner.yml", yaml, Path::new("."), None);
    let config = reader.parse().and_then(|node| Config::from_yaml(&node, &mut reader));
    let config = config.unwrap_or_else(|| panic!("{:?}", reader.into_diagnostics()));
    config.build(Path::new(".")).unwrap()
}

fn at(kind: &str, url: &str) -> Arc<dyn Datasource> {
    datasource(&format!("type: {kind}\nurl: {url}\nindex: logs\n"))
}

async fn query(source: &Arc<dyn Datasource>, query: &str, limits: Limits) -> Result<Rows, QueryError> {
    source.query(query, Window::from_seconds(0, 60).unwrap(), &limits).await
}

fn within(time: Duration) -> Limits {
    Limits { time, ..Limits::default() }
}

const KINDS: [&str; 2] = ["elasticsearch", "opensearch"];
const ALL: &str = r#"{"query": {"match_all": {}}}"#;

/// An answer of `_search`.
fn found(hits: &[Value], total: u64) -> Reply {
    Reply::json(
        200,
        &json!({"took": 1, "timed_out": false, "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0},
            "hits": {"total": {"value": total, "relation": "eq"}, "max_score": null, "hits": hits}}),
    )
}

fn hit(n: u64) -> Value {
    json!({"_index": "logs", "_id": n.to_string(), "_score": null, "_source": {"n": n, "user": format!("u{}", n % 7)},
        "sort": [n]})
}

/// What both stores refuse is refused here too.
fn searched(asked: &Asked) -> Value {
    assert_eq!(asked.line(), "POST /logs/_search");
    assert_eq!(asked.header("content-type"), Some("application/json"));
    assert_eq!(asked.argument("allow_partial_search_results"), Some("false"));
    asked.json()
}

// -- the real servers' stand-ins

struct Store {
    url: String,
    http: Http,
}

impl Store {
    fn of(kind: &str) -> Option<Self> {
        let url = service(&kind.to_uppercase())?;
        let to = Destination { url: url.parse().unwrap(), verify: true, ca: None };
        Some(Self { url, http: Http::new([to]).unwrap() })
    }

    /// An index of that name, with these documents and no others; their ids are 0, 1, 2 ...
    async fn index(&self, name: &str, mappings: Value, documents: impl Iterator<Item = Value>) {
        self.ask("DELETE", name, "").await;
        let body = json!({ "mappings": { "properties": mappings } }).to_string();
        self.ask("PUT", name, &body).await;
        let documents: Vec<Value> = documents.collect();
        for (part, documents) in documents.chunks(10_000).enumerate() {
            let lines: Vec<String> = (documents.iter().enumerate())
                .map(|(n, document)| {
                    format!("{{\"index\":{{\"_id\":\"{}\"}}}}\n{document}\n", part * 10_000 + n)
                })
                .collect();
            let answer = self.ask("POST", &format!("{name}/_bulk?refresh=true"), &lines.concat()).await;
            assert!(answer.contains("\"errors\":false"), "{answer}");
        }
    }

    /// The beginning of the answer.
    async fn ask(&self, method: &'static str, path: &str, body: &str) -> String {
        let url = format!("{}/{path}", self.url).parse().unwrap();
        let request = Request {
            method,
            to: Destination { url, verify: true, ca: None },
            headers: vec![("content-type".to_owned(), Secret::new("application/json"))],
            body: body.as_bytes().to_vec(),
            timeout: Duration::from_secs(60),
        };
        let answer = self.http.send(&request, 1_000).await.unwrap();
        String::from_utf8_lossy(&answer.body).into_owned()
    }
}

#[tokio::test]
async fn every_type_comes_as_it_was_stored() {
    let document = json!({"k": "root", "l": i64::MIN, "u": u64::MAX, "d": 1.5, "b": true, "t": "2026-11-29T10:00:00.123Z",
        "ip": "2001:db8::1", "txt": "caf\u{e9} \"\u{1F600}\"\n", "list": ["a", "b"], "none": null,
        "o": {"x": [1, {"y": null}], "z": {}}, "bin": "aGk="});
    for kind in KINDS {
        let Some(store) = Store::of(kind) else { return };
        let mappings = json!({"k": {"type": "keyword"}, "l": {"type": "long"}, "u": {"type": "unsigned_long"},
            "d": {"type": "double"}, "b": {"type": "boolean"}, "t": {"type": "date"}, "ip": {"type": "ip"},
            "txt": {"type": "text"}, "list": {"type": "keyword"}, "o": {"type": "object", "enabled": false},
            "bin": {"type": "binary"}});
        store.index("types", mappings, std::iter::once(document.clone())).await;
        let source = datasource(&format!("type: {kind}\nurl: {}\nindex: types\n", store.url));
        let rows = query(&source, ALL, Limits::default()).await.unwrap();
        let mut expected = json!({"_id": "0", "_index": "types"});
        expected.as_object_mut().unwrap().extend(document.as_object().unwrap().clone());
        assert_eq!((rows.count, Value::from(rows.rows[0].clone())), (1, expected), "{kind}");
        let names: Vec<&str> = rows.rows[0].keys().take(2).map(String::as_str).collect();
        assert_eq!((names, rows.cut), (vec!["_id", "_index"], None));
    }
}

#[tokio::test]
async fn a_body_without_a_size_counts_ten_hits_as_the_store_and_says_how_many_there_are() {
    for kind in KINDS {
        let Some(store) = Store::of(kind) else { return };
        store.index("ten", json!({"n": {"type": "long"}}), (0..25).map(|n| json!({ "n": n }))).await;
        let source = datasource(&format!("type: {kind}\nurl: {}\nindex: ten\n", store.url));
        let rows = query(&source, ALL, Limits::default()).await.unwrap();
        assert_eq!((rows.count, rows.rows.len()), (10, 10));
        assert_eq!(rows.cut.as_deref(), Some("10 of 25 hits (the query has no `size`)"));
        let rows = query(&source, r#"{"size": 20}"#, Limits::default()).await.unwrap();
        assert_eq!((rows.count, rows.cut.as_deref()), (20, Some("20 of 25 hits (the query's `size`)")));
        let raised = datasource(&format!("type: {kind}\nurl: {}\nindex: [ten]\nsize: 20000\n", store.url));
        let rows = query(&raised, ALL, Limits::default()).await.unwrap();
        assert_eq!((rows.count, rows.rows.len(), rows.cut), (25, 25, None));
        let rows = query(&raised, r#"{"query": {"term": {"n": 100}}}"#, Limits::default()).await.unwrap();
        assert_eq!(rows, Rows::default());
    }
}

#[tokio::test]
async fn a_hundred_thousand_hits_come_page_by_page_each_once() {
    for kind in KINDS {
        let Some(store) = Store::of(kind) else { return };
        // Elasticsearch's stand-in takes minutes for as many as that of OpenSearch takes in seconds.
        let count = if kind == "elasticsearch" { 20_000 } else { 100_000 };
        let documents =
            (0..count).map(|n: u64| json!({"n": n, "user": format!("u{}", n % 7), "msg": "failed login"}));
        let mappings = json!({"n": {"type": "long"}, "user": {"type": "keyword"}, "msg": {"type": "text"}});
        store.index("many", mappings, documents).await;
        let source = datasource(&format!("type: {kind}\nurl: {}\nindex: many\n", store.url));
        let limits = Limits { time: Duration::from_secs(120), rows: 200_000, bytes: 1 << 30 };
        let begin = Instant::now();
        let rows = query(&source, r#"{"size": 150000, "sort": ["user"]}"#, limits).await.unwrap();
        eprintln!("{kind}: {:.0} rows a second", rows.count as f64 / begin.elapsed().as_secs_f64());
        assert_eq!((rows.count, rows.rows.len(), rows.cut), (count, count as usize, None), "{kind}");
        let mut seen: Vec<u64> = rows.rows.iter().map(|row| row["n"].as_u64().unwrap()).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..count), "{kind}: a hit is missing or came twice");
        assert!(rows.rows.is_sorted_by_key(|row| row["user"].as_str().unwrap().to_owned()));

        if count < 100_000 {
            continue;
        }
        // What is not kept is not fetched, but counted.
        let rows = query(&source, r#"{"size": 150000}"#, Limits::default()).await.unwrap();
        assert_eq!((rows.count, rows.rows.len()), (100_000, 1_000));
        assert_eq!(rows.cut.as_deref(), Some("kept 1000 of 100000 rows (max_rows)"));
        let rows =
            query(&source, r#"{"size": 50000, "sort": [{"n": "desc"}]}"#, Limits::default()).await.unwrap();
        assert_eq!((rows.count, rows.rows[999]["n"].as_u64()), (50_000, Some(99_000)));
        let cut = "kept 1000 of 50000 rows (max_rows); 50000 of 100000 hits (the query's `size`)";
        assert_eq!(rows.cut.as_deref(), Some(cut));
    }
}

#[tokio::test]
async fn buckets_of_an_aggregation_become_rows() {
    for kind in KINDS {
        let Some(store) = Store::of(kind) else { return };
        let documents = (0..100).map(|n| {
            json!({"user": format!("u{}", n % 3), "host": format!("h{}", n % 2), "bytes": n,
                "t": format!("2026-11-29T10:{:02}:00Z", n / 50)})
        });
        let mappings = json!({"user": {"type": "keyword"}, "host": {"type": "keyword"}, "bytes": {"type": "long"},
            "t": {"type": "date"}});
        store.index("buckets", mappings, documents).await;
        let source = datasource(&format!("type: {kind}\nurl: {}\nindex: buckets\n", store.url));
        let body = r#"{"size": 0, "aggs": {"user": {"terms": {"field": "user", "order": {"_key": "asc"}}, "aggs": {
            "most": {"max": {"field": "bytes"}},
            "minute": {"date_histogram": {"field": "t", "fixed_interval": "1m"}, "aggs": {
                "hosts": {"cardinality": {"field": "host"}}}}}}}}"#;
        let rows = query(&source, body, Limits::default()).await.unwrap();
        assert_eq!((rows.count, rows.cut), (6, None), "{kind}");
        assert_eq!(
            Value::from(rows.rows[3].clone()),
            json!({"user": "u1", "most": 97.0, "minute": "2026-11-29T10:01:00.000Z", "doc_count": 16, "hosts": 2})
        );
        let body = r#"{"size": 0, "aggs": {"user": {"terms": {"field": "user", "size": 1}}}}"#;
        let rows = query(&source, body, Limits::default()).await.unwrap();
        assert_eq!((rows.count, rows.cut.as_deref()), (1, Some("`user` has more buckets (its `size`)")));
    }
}

#[tokio::test]
async fn a_composite_aggregation_is_read_to_its_end() {
    let Some(store) = Store::of("opensearch") else { return };
    store.index("composite", json!({"n": {"type": "long"}}), (0..2_500).map(|n| json!({ "n": n / 2 }))).await;
    let source = datasource(&format!("type: opensearch\nurl: {}\nindex: composite\n", store.url));
    for size in ["", r#""size": 100, "#] {
        let body = format!(
            r#"{{"size": 0, "aggs": {{"by": {{"composite": {{{size}"sources": [{{"n": {{"terms": {{"field": "n"}}}}}}]}}}}}}}}"#
        );
        let limits = Limits { rows: 1_100, ..Limits::default() };
        let rows = query(&source, &body, limits).await.unwrap();
        assert_eq!((rows.count, rows.rows.len()), (1_250, 1_100));
        assert_eq!(Value::from(rows.rows[1_099].clone()), json!({"n": 1099, "doc_count": 2}));
    }
}

#[tokio::test]
async fn the_stores_own_reason_is_told_and_a_missing_index_is_not_an_empty_answer() {
    for kind in KINDS {
        let Some(store) = Store::of(kind) else { return };
        store.index("reasons", json!({"n": {"type": "long"}}), std::iter::once(json!({"n": 1}))).await;
        let source = datasource(&format!("type: {kind}\nurl: {}\nindex: reasons\n", store.url));
        let refused = |result: Result<Rows, QueryError>| match result.unwrap_err() {
            QueryError::Refused(said) => said,
            error => panic!("{error}"),
        };
        let said = refused(
            query(&source, r#"{"query": {"range": {"n": {"gte": "abc"}}}}"#, Limits::default()).await,
        );
        assert!(
            said.contains("HTTP 400: query_shard_exception: ") && said.contains(r#"For input string: "abc""#),
            "{said}"
        );
        let said = refused(query(&source, r#"{"query": {"foo": {}}}"#, Limits::default()).await);
        assert!(said.contains("unknown query [foo]"), "{said}");
        let said = refused(query(&source, "SELECT 1", Limits::default()).await);
        assert!(said.starts_with("as ") && said.contains("since the query is not JSON: HTTP 4"), "{said}");

        let nowhere = datasource(&format!("type: {kind}\nurl: {}\nindex: nope\n", store.url));
        let said = refused(query(&nowhere, ALL, Limits::default()).await);
        assert_eq!(said, "HTTP 404: index_not_found_exception: no such index [nope]");
        assert!(nowhere.probe(Duration::from_secs(5)).await.is_err());
        let pattern = format!("type: {kind}\nurl: {}\nindex: nope-*\n", store.url);
        let said = refused(query(&datasource(&pattern), ALL, Limits::default()).await);
        assert_eq!(said, "`index` matches no index, or none that this login may read");
        let allowed = datasource(&format!("{pattern}allow_no_indices: true\n"));
        assert_eq!(query(&allowed, ALL, Limits::default()).await.unwrap(), Rows::default());
        let body = r#"{"size": 0, "aggs": {"a": {"terms": {"field": "n"}}}}"#;
        assert_eq!(query(&allowed, body, Limits::default()).await.unwrap(), Rows::default());
    }
}

#[tokio::test]
async fn a_probe_says_what_answers() {
    for (kind, version) in [("elasticsearch", "Elasticsearch 8.15.3"), ("opensearch", "OpenSearch 3.8.0")] {
        let Some(store) = Store::of(kind) else { return };
        store.index("probe", json!({}), std::iter::empty()).await;
        let source = datasource(&format!("type: {kind}\nurl: {}\nindex: probe\n", store.url));
        assert_eq!(source.probe(Duration::from_secs(5)).await.unwrap(), version);
    }
}

// -- what goes wrong

#[tokio::test]
async fn a_wrong_password_is_denied_and_no_error_shows_a_secret() {
    for (login, header) in [
        ("username: ana\npassword: s3cret", "Basic YW5hOnMzY3JldA=="),
        ("api_key: s3cretkey\nusername: ana\npassword: s3cret", "ApiKey s3cretkey"),
    ] {
        let fake = Fake::start(move |asked| {
            assert_eq!(asked.header("authorization"), Some(header));
            let said = format!("unable to authenticate [{header}] for [{}]", asked.path);
            Reply::json(401, &json!({"error": {"type": "security_exception", "reason": said}, "status": 401}))
        });
        let kind = if login.starts_with("api_key") { "elasticsearch" } else { "opensearch" };
        let source = datasource(&format!("type: {kind}\nurl: {}\nindex: logs\n{login}\n", fake.url()));
        for error in [
            query(&source, ALL, Limits::default()).await.unwrap_err(),
            query(&source, "SELECT 1", Limits::default()).await.unwrap_err(),
            query(&source, r#"{"size": 20000}"#, Limits { rows: 20_000, ..Limits::default() })
                .await
                .unwrap_err(),
        ] {
            assert!(
                matches!(&error, QueryError::Denied(said) if said.contains("security_exception")),
                "{error}"
            );
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
            assert!(!format!("{error} {error:?}").contains("YW5h"), "{error}");
        }
        let shown = serde_json::to_string(source.settings()).unwrap();
        assert!(!shown.contains("s3cret") && !shown.contains("ana"), "{shown}");
    }
}

#[test]
fn settings_are_those_of_clickdetect() {
    let settings = |yaml: &str| Value::from(datasource(yaml).settings().clone()).to_string();
    assert_eq!(
        settings(
            "type: elasticsearch\nurl: http://es.example:9200\nindex: a-*\nusername: u\npassword: p\nverify: false"
        ),
        r#"{"type":"elasticsearch","url":"http://es.example:9200","index":"a-*","api_key":null,"verify":false}"#
    );
    assert_eq!(
        settings("type: elasticsearch\nurl: http://u:p@es.example\nindex: [a, b]\napi_key: k"),
        r#"{"type":"elasticsearch","url":"http://es.example/","index":"a,b","api_key":"***","verify":true}"#
    );
    assert_eq!(
        settings("type: opensearch\nurl: https://os.example\nindex: a"),
        r#"{"type":"opensearch","url":"https://os.example","index":"a","verify":true}"#
    );
}

#[tokio::test]
async fn a_host_that_is_not_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for kind in KINDS {
        for url in [url.as_str(), "http://nowhere.invalid:9200"] {
            let error = query(&at(kind, url), ALL, Limits::default()).await.unwrap_err();
            assert!(
                matches!(&error, QueryError::Unavailable(said) if said.contains("cannot be reached")),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn an_authority_that_nobody_knows_is_not_trusted_until_it_is_named() {
    let fake = Fake::start_tls("signed", |asked| {
        searched(asked);
        found(&[hit(1)], 1)
    });
    for kind in KINDS {
        let yaml = format!("type: {kind}\nurl: {}\nindex: logs\n", fake.url());
        let error = query(&datasource(&yaml), ALL, Limits::default()).await.unwrap_err();
        assert!(matches!(&error, QueryError::Unavailable(said) if said.contains("certificate")), "{error}");
        let ca = data("tls/authority.pem");
        let named = datasource(&format!("{yaml}ca: {}\n", ca.display()));
        assert_eq!(query(&named, ALL, Limits::default()).await.unwrap().count, 1);
        let trusting = datasource(&format!("{yaml}verify: false\n"));
        assert_eq!(query(&trusting, ALL, Limits::default()).await.unwrap().count, 1);
    }
}

#[tokio::test]
async fn a_query_ends_in_its_time_and_the_store_notices() {
    for (begin, query_text) in [(None, ALL), (Some(40), ALL), (None, "FROM logs"), (Some(20), "FROM logs")] {
        let fake = Fake::start(move |asked| {
            if asked.path == "/logs/_search" {
                let time = asked.argument("timeout").unwrap();
                assert!(time.strip_suffix("ms").unwrap().parse::<u64>().unwrap() <= 300, "{time}");
            }
            match begin {
                None => Reply::hang(),
                Some(bytes) => found(&[hit(1)], 1).hang_after(bytes),
            }
        });
        for kind in KINDS {
            let time = Duration::from_millis(300);
            let begin = Instant::now();
            let error = query(&at(kind, &fake.url()), query_text, within(time)).await.unwrap_err();
            assert!(matches!(error, QueryError::TimedOut { limit } if limit == time), "{error}");
            assert!(begin.elapsed() < 3 * time, "{:?}", begin.elapsed());
        }
        until(|| fake.left() == 2).await;
    }
}

#[tokio::test]
async fn the_stores_own_end_of_time_is_a_time_out() {
    let by_reply = Fake::start(|asked| match searched(asked)["size"].as_u64() {
        Some(1) => Reply::json(
            500,
            &json!({"error": {"root_cause": [{"type": "query_phase_execution_exception",
            "reason": "Time exceeded"}], "type": "search_phase_execution_exception", "reason": "all shards failed"}}),
        ),
        _ => Reply::json(200, &json!({"timed_out": true, "hits": {"hits": [hit(1)]}})),
    });
    for kind in KINDS {
        let source = at(kind, &by_reply.url());
        for body in [r#"{"size": 1}"#, r#"{"size": 2}"#] {
            let error = query(&source, body, Limits::default()).await.unwrap_err();
            assert!(
                matches!(error, QueryError::TimedOut { limit } if limit == Limits::default().time),
                "{error}"
            );
        }
        // It was the query that asked for so little time, and keeps it.
        let error = query(&source, r#"{"size": 2, "timeout": "1ms"}"#, Limits::default()).await.unwrap_err();
        assert!(matches!(&error, QueryError::Unavailable(said) if said.contains("own `timeout`")), "{error}");
        assert_eq!(by_reply.asked().last().unwrap().argument("timeout"), None);
    }
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_no_answer() {
    let whole = found(&(0..200).map(hit).collect::<Vec<_>>(), 200);
    for kind in KINDS {
        for bytes in [0, 1, 100, 10_000] {
            let cut = whole.clone().cut_after(bytes);
            let fake = Fake::start(move |_| cut.clone());
            let error = query(&at(kind, &fake.url()), ALL, Limits::default()).await.unwrap_err();
            assert!(matches!(&error, QueryError::Unreadable(said) if said.contains("broke off")), "{error}");
        }
        let fake = Fake::start(|_| Reply::cut());
        let error = query(&at(kind, &fake.url()), ALL, Limits::default()).await.unwrap_err();
        assert!(matches!(error, QueryError::Unavailable(_)), "{error}");
    }
}

#[tokio::test]
async fn a_store_in_trouble_is_unavailable_and_its_reason_is_told() {
    let error =
        |kind: &str, reason: &str| json!({"error": {"root_cause": [], "type": kind, "reason": reason}});
    let cases = [
        (500, error("null_pointer_exception", "x"), "HTTP 500: null_pointer_exception: x"),
        (
            429,
            error("es_rejected_execution_exception", "queue full"),
            "HTTP 429: es_rejected_execution_exception: queue full",
        ),
        (
            503,
            error("no_shard_available_action_exception", "No shard"),
            "HTTP 503: no_shard_available_action_exception: No shard",
        ),
        (502, json!("<html>bad gateway"), "HTTP 502: \"<html>bad gateway\""),
    ];
    for (status, body, expected) in cases {
        let fake = Fake::start(move |_| Reply::json(status, &body));
        for kind in KINDS {
            for text in [ALL, "FROM logs", r#"{"size": 0, "aggs": {"a": {"max": {"field": "n"}}}}"#] {
                let error = query(&at(kind, &fake.url()), text, Limits::default()).await.unwrap_err();
                assert!(matches!(&error, QueryError::Unavailable(said) if said == expected), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn rubbish_with_a_good_status_is_unreadable() {
    let long = format!(r#"{{"hits": {{"hits": [{{"_id": "{}"#, "x".repeat(1 << 20));
    for body in
        ["", "<html>login</html>", "{}", "null", "[1, 2]", r#"{"hits": {"hits": [7]}}"#, long.as_str()]
    {
        let reply = Reply::new(200, "application/json", body);
        let fake = Fake::start(move |_| reply.clone());
        for kind in KINDS {
            for text in [
                ALL,
                "FROM logs",
                r#"{"size": 0, "aggs": {"a": {"max": {"field": "n"}}}}"#,
                r#"{"size": 20000}"#,
            ] {
                let error = query(&at(kind, &fake.url()), text, Limits::default()).await.unwrap_err();
                assert!(matches!(error, QueryError::Unreadable(_)), "{kind} {text}: {error}");
            }
            assert!(matches!(
                at(kind, &fake.url()).probe(Duration::from_secs(5)).await,
                Err(QueryError::Unreadable(_))
            ));
        }
    }
}

#[tokio::test]
async fn a_partial_answer_is_a_window_that_was_not_searched_unless_that_is_allowed() {
    for file in ["elasticsearch/partial.json", "elasticsearch/clusters.json"] {
        let body: Value = serde_json::from_slice(&std::fs::read(data(file)).unwrap()).unwrap();
        let fake = Fake::start(move |_| Reply::json(200, &body));
        for kind in KINDS {
            let error = query(&at(kind, &fake.url()), ALL, Limits::default()).await.unwrap_err();
            assert!(
                matches!(&error, QueryError::Unavailable(said) if said.starts_with("the answer is partial: ")),
                "{error}"
            );
            let yaml = format!("type: {kind}\nurl: {}\nindex: logs\nallow_partial: true\n", fake.url());
            let rows = query(&datasource(&yaml), ALL, Limits::default()).await.unwrap();
            assert!(rows.cut.unwrap().starts_with("partial: "));
            assert_eq!(fake.asked().last().unwrap().argument("allow_partial_search_results"), Some("true"));
        }
    }
    let partial = json!({"is_partial": true, "columns": [{"name": "n", "type": "long"}], "values": [[1]]});
    let fake = Fake::start(move |_| Reply::json(200, &partial));
    let error = query(&at("elasticsearch", &fake.url()), "FROM logs", Limits::default()).await.unwrap_err();
    assert!(matches!(error, QueryError::Unavailable(_)), "{error}");
}

// -- what the stand-ins lack

#[tokio::test]
async fn the_body_and_the_index_go_out_as_they_were_written() {
    let fake = Fake::start(|asked| {
        assert_eq!(asked.path, "/es/%3Clogs-%7Bnow%2Fd%7D%3E,other-*/_search");
        assert_eq!(asked.body, br#"{ "size":3, "query": {"term": {"n": 123456789012345678901234567890}}}"#);
        found(&[], 0)
    });
    let yaml = format!("type: opensearch\nurl: {}/es/\nindex: ['<logs-{{now/d}}>', 'other-*']\n", fake.url());
    let body = r#"{ "size":3, "query": {"term": {"n": 123456789012345678901234567890}}}"#;
    assert_eq!(query(&datasource(&yaml), body, Limits::default()).await.unwrap(), Rows::default());
}

/// A point in time over `many` hits, as both vendors document it; `knows` is the tie that the server can sort by.
fn paging(kind: &'static str, many: u64, knows: &'static str) -> Fake {
    let opened = AtomicU64::new(0);
    Fake::start(move |asked| {
        let (open, id) = match kind {
            "elasticsearch" => ("POST /logs/_pit", "id"),
            _ => ("POST /logs/_search/point_in_time", "pit_id"),
        };
        let line = asked.line();
        if line == open {
            assert_eq!(asked.argument("keep_alive"), Some("1m"));
            assert!(asked.body.is_empty());
            opened.store(1, Ordering::SeqCst);
            return Reply::json(200, &json!({ id: "point-1", "_shards": {"failed": 0} }));
        }
        match line.as_str() {
            "DELETE /_pit" if kind == "elasticsearch" => {
                let now = opened.swap(0, Ordering::SeqCst);
                assert_eq!(asked.json(), json!({ "id": format!("point-{now}") }));
                return Reply::json(200, &json!({"succeeded": true, "num_freed": 1}));
            }
            "DELETE /_search/point_in_time" if kind == "opensearch" => {
                let now = opened.swap(0, Ordering::SeqCst);
                assert_eq!(asked.json(), json!({ "pit_id": [format!("point-{now}")] }));
                return Reply::json(200, &json!({"pits": [{"successful": true}]}));
            }
            _ => assert_eq!(line, "POST /_search"),
        }
        let body = asked.json();
        let now = opened.load(Ordering::SeqCst);
        assert_eq!(body["pit"], json!({"id": format!("point-{now}"), "keep_alive": "1m"}));
        let order = body["sort"].as_array().unwrap();
        if !order.iter().any(|tie| tie.get(knows).is_some()) {
            let reason = "No mapping found for [_shard_doc] in order to sort on";
            return Reply::json(400, &json!({"error": {"type": "query_shard_exception", "reason": reason}}));
        }
        let begin = match body.get("search_after") {
            None => 0,
            // Sent back with all its digits.
            Some(after) => {
                let text = String::from_utf8(asked.body.clone()).unwrap();
                assert!(
                    text.contains(&format!(
                        r#""search_after":[0.30000000000000004,{after}]"#,
                        after = after[1]
                    )),
                    "{text}"
                );
                after[1].as_u64().unwrap() + 1
            }
        };
        let size = body["size"].as_u64().unwrap();
        assert!(size <= 10_000, "more than a window");
        let hits: Vec<String> = (begin..many.min(begin + size))
            .map(|n| format!(r#"{{"_index":"logs","_id":"{n}","_source":{{"n":{n}}},"sort":[0.30000000000000004,{n}]}}"#))
            .collect();
        opened.store(now + 1, Ordering::SeqCst);
        Reply::new(
            200,
            "application/json",
            format!(
                r#"{{"pit_id":"point-{}","timed_out":false,"_shards":{{"total":1,"failed":0}},"hits":{{{}"hits":[{}]}}}}"#,
                now + 1,
                if body["track_total_hits"] == true {
                    format!(r#""total":{{"value":{many},"relation":"eq"}},"#)
                } else {
                    String::new()
                },
                hits.join(","),
            ),
        )
    })
}

const MANY: Limits = Limits { time: Duration::from_secs(60), rows: 100_000, bytes: 1 << 30 };

#[tokio::test]
async fn pages_are_of_one_point_in_time_which_is_closed_again() {
    for (kind, tie) in [("elasticsearch", "_shard_doc"), ("opensearch", "_shard_doc"), ("opensearch", "_id")]
    {
        let fake = paging(kind, 12_345, tie);
        let source = at(kind, &fake.url());
        let rows = query(&source, r#"{"size": 20000, "sort": [{"score": "asc"}]}"#, MANY).await.unwrap();
        assert_eq!((rows.count, rows.rows.len(), rows.cut), (12_345, 12_345, None));
        assert!(rows.rows.iter().enumerate().all(|(n, row)| row["n"] == n));
        assert!(fake.asked().last().unwrap().method == "DELETE");
        let rows = query(&source, r#"{"size": 10001}"#, MANY).await.unwrap();
        assert_eq!(
            (rows.count, rows.cut.as_deref()),
            (10_001, Some("10001 of 12345 hits (the query's `size`)"))
        );
        let few = Limits { bytes: 2_000, ..MANY };
        let rows = query(&source, r#"{"size": 20000}"#, few).await.unwrap();
        assert_eq!(rows.count, 12_345);
        assert!(rows.cut.unwrap().ends_with(" of 12345 rows (max_bytes)"));
        for name in ["from", "search_after", "collapse"] {
            let error =
                query(&source, &format!(r#"{{"size": 20000, "{name}": 5}}"#), MANY).await.unwrap_err();
            assert!(matches!(&error, QueryError::Refused(said) if said.contains(name)), "{error}");
        }
    }
}

#[tokio::test]
async fn a_point_in_time_is_closed_after_an_error_and_when_nobody_waits_any_more() {
    for hangs in [false, true] {
        let fake = Fake::start(move |asked| match asked.line().as_str() {
            "POST /logs/_pit" => Reply::json(200, &json!({"id": "point"})),
            "POST /_search" if hangs => Reply::hang(),
            "POST /_search" => Reply::json(503, &json!({"error": "busy"})),
            line => {
                assert_eq!((line, asked.json()), ("DELETE /_pit", json!({"id": "point"})));
                Reply::json(200, &json!({"succeeded": true}))
            }
        });
        let source = at("elasticsearch", &fake.url());
        let body = r#"{"size": 20000}"#;
        let limits = Limits { time: Duration::from_secs(2), ..MANY };
        let begin = Instant::now();
        let error = query(&source, body, limits).await.unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(4));
        match hangs {
            true => {
                assert!(matches!(error, QueryError::TimedOut { limit } if limit == limits.time), "{error}")
            }
            false => assert!(
                matches!(&error, QueryError::Unavailable(said) if said == "HTTP 503: busy"),
                "{error}"
            ),
        }
        assert_eq!(fake.asked().last().unwrap().line(), "DELETE /_pit");
        if hangs {
            // As at shutdown: the query is dropped while its page is on the way.
            let count = |line: &str| fake.asked().iter().filter(|asked| asked.line() == line).count();
            tokio::select! {
                _ = query(&source, body, MANY) => panic!("the page hangs"),
                () = until(|| count("POST /_search") == 2) => {}
            }
            until(|| count("DELETE /_pit") == 2).await;
        }
    }
}

async fn until(is: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(20), "it does not become so");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn hits_that_are_missing_from_the_pages_are_no_answer() {
    let fake = Fake::start(|asked| match asked.path.as_str() {
        "/logs/_pit" => Reply::json(200, &json!({"id": "point"})),
        "/_search" => found(&[hit(1)], 15_000),
        "/logs/_search" => found(&[hit(1), hit(2)], 15_000),
        _ => Reply::json(200, &json!({"succeeded": true})),
    });
    for limits in [MANY, Limits::default()] {
        let error = query(&at("elasticsearch", &fake.url()), r#"{"size": 20000}"#, limits).await.unwrap_err();
        assert!(matches!(&error, QueryError::Unreadable(said) if said.contains(" hits came")), "{error}");
    }
}

#[tokio::test]
async fn esql_is_asked_where_the_rule_is_no_json() {
    let fake = Fake::start(|asked| {
        assert_eq!(asked.line(), "POST /_query");
        assert!(asked.query.is_empty());
        let rows = match asked.json() {
            asked if asked == json!({"query": "FROM logs | LIMIT 2"}) => 2,
            asked if asked == json!({"query": "FROM logs"}) => 1_000,
            asked if asked == json!({"query": "FROM logs | LIMIT 20000"}) => 10_000,
            asked => panic!("{asked}"),
        };
        let values: Vec<Value> = (0..rows).map(|n| json!([n, ["a", "b"], null])).collect();
        Reply::json(
            200,
            &json!({"took": 1, "is_partial": false, "columns": [{"name": "n", "type": "long"},
            {"name": "tags", "type": "keyword"}, {"name": "none", "type": "null"}], "values": values}),
        )
    });
    let source = at("elasticsearch", &fake.url());
    let rows = query(&source, "\nFROM logs | LIMIT 2\n", Limits::default()).await.unwrap();
    assert_eq!((rows.count, rows.cut), (2, None));
    assert_eq!(Value::from(rows.rows[1].clone()), json!({"n": 1, "tags": ["a", "b"], "none": null}));
    let rows = query(&source, "FROM logs", Limits::default()).await.unwrap();
    assert_eq!(rows.cut.as_deref(), Some("ES|QL gives 1000 rows without a `LIMIT`: there may be more"));
    let rows = query(&source, "FROM logs | LIMIT 20000", MANY).await.unwrap();
    assert_eq!(rows.cut.as_deref(), Some("ES|QL gives 10000 rows at most: there may be more"));
}

/// OpenSearch's SQL over `many` rows, as <https://docs.opensearch.org/latest/sql-and-ppl/sql-and-ppl-api/index/> has it.
fn sql(many: u64, breaks_at: Option<u64>) -> Fake {
    Fake::start(move |asked| {
        let body = asked.json();
        let begin = match asked.line().as_str() {
            "POST /_plugins/_sql" if body.get("cursor").is_none() => {
                assert_eq!(body, json!({"query": "SELECT n FROM logs", "fetch_size": 5_000}));
                0
            }
            "POST /_plugins/_sql" => {
                assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
                body["cursor"].as_str().unwrap().strip_prefix("d:").unwrap().parse().unwrap()
            }
            line => {
                assert_eq!(line, "POST /_plugins/_sql/close");
                assert!(body["cursor"].as_str().unwrap().starts_with("d:"));
                return Reply::json(200, &json!({"succeeded": true}));
            }
        };
        if breaks_at.is_some_and(|at| begin >= at) {
            return Reply::json(
                503,
                &json!({"error": {"reason": "There was internal problem at backend",
                "details": "all shards failed", "type": "SearchPhaseExecutionException"}, "status": 503}),
            );
        }
        let end = many.min(begin + 5_000);
        let mut reply = json!({"datarows": (begin..end).map(|n| json!([n])).collect::<Vec<_>>()});
        if begin == 0 {
            reply["schema"] = json!([{"name": "n", "type": "long"}]);
            reply["total"] = many.into();
            reply["status"] = 200.into();
        }
        if end < many {
            reply["cursor"] = format!("d:{end}").into();
        }
        Reply::json(200, &reply)
    })
}

#[tokio::test]
async fn sql_is_asked_where_the_rule_is_no_json_and_read_by_cursor() {
    let fake = sql(12_000, None);
    let rows = query(&at("opensearch", &fake.url()), "SELECT n FROM logs", Limits::default()).await.unwrap();
    assert_eq!((rows.count, rows.rows.len()), (12_000, 1_000));
    assert_eq!(Value::from(rows.rows[999].clone()), json!({"n": 999}));
    assert_eq!(fake.asked().len(), 3);
    let fake = sql(0, None);
    let rows = query(&at("opensearch", &fake.url()), "SELECT n FROM logs", Limits::default()).await.unwrap();
    assert_eq!(rows, Rows::default());
}

#[tokio::test]
async fn a_cursor_that_breaks_is_closed_and_none_of_its_rows_are_an_answer() {
    let fake = sql(12_000, Some(5_000));
    let error =
        query(&at("opensearch", &fake.url()), "SELECT n FROM logs", Limits::default()).await.unwrap_err();
    assert!(matches!(&error, QueryError::Unavailable(said) if said.contains("all shards failed")), "{error}");
    assert_eq!(fake.asked().last().unwrap().line(), "POST /_plugins/_sql/close");
}

#[tokio::test]
async fn aggregations_beside_hits_are_said_to_be_left_out() {
    let fake = Fake::start(|asked| {
        let mut body: Value = json!({"aggregations": {"a": {"value": 1}}});
        body["hits"] = json!({"total": 1, "hits": [hit(searched(asked)["size"].as_u64().unwrap())]});
        Reply::json(200, &body)
    });
    let body = r#"{"size": 5, "aggs": {"a": {"max": {"field": "n"}}}}"#;
    let rows = query(&at("opensearch", &fake.url()), body, Limits::default()).await.unwrap();
    assert_eq!(rows.cut.as_deref(), Some("aggregations are left out: they become rows where `size` is 0"));
}

#[tokio::test]
async fn a_login_that_may_not_see_the_version_can_still_search() {
    let fake = Fake::start(|asked| match asked.path.as_str() {
        "/" => {
            Reply::json(403, &json!({"error": {"type": "security_exception", "reason": "no permissions"}}))
        }
        _ => found(&[], 0),
    });
    let said = at("opensearch", &fake.url()).probe(Duration::from_secs(5)).await.unwrap();
    assert_eq!(said, "a store whose version this login may not see");
}
