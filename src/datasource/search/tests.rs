//! Answers of `_search`, recorded and made up.

use proptest::prelude::*;
use serde_json::Value;

use super::reply::{Reply, Total, Wanted, read};
use super::version;
use crate::datasource::kept::Kept;
use crate::datasource::{Limits, QueryError, Rows};

fn recorded(file: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn reply(body: &[u8], wanted: Wanted) -> Result<Reply, QueryError> {
    read(body, wanted, Kept::new(&Limits::default()))
}

fn lines(rows: Rows) -> String {
    let lines: Vec<String> = rows.rows.into_iter().map(|row| Value::from(row).to_string()).collect();
    lines.join("\n")
}

#[test]
fn hits_become_rows_and_their_numbers_stay_exact() {
    let first = reply(&recorded("elasticsearch/hits.json"), Wanted::Hits).unwrap();
    assert_eq!((first.hits, first.total), (2, Some(Total { value: 7, is_exact: true })));
    assert_eq!(first.last.unwrap().get(), "[9007199254740995]");
    insta::assert_snapshot!(lines(first.kept.into_rows()), @r#"
        {"_id":"1","_index":"logs","@timestamp":"2026-11-29T10:01:00Z","f":1.5,"msg":"failed login number 1","n":9007199254740991,"raw":{"big":1.2345678901234568e+29,"dec":0.12345678901234568,"x":[1,{"y":null}]},"src":"10.0.0.1","tags":["a","b"],"u":18446744073709551614,"user":"u1"}
        {"_id":"5","_index":"logs","@timestamp":"2026-11-29T10:00:00Z","f":1.5,"msg":"failed login number 5","n":9007199254740995,"raw":{"big":1.2345678901234568e+29,"dec":0.12345678901234568,"x":[1,{"y":null}]},"src":"10.0.0.5","tags":["a","b"],"u":18446744073709551610,"user":"u1"}
        "#);
    let second = reply(&recorded("opensearch/hits.json"), Wanted::Hits).unwrap();
    insta::assert_snapshot!(lines(second.kept.into_rows()), @r#"
        {"_id":"1","_index":"logs","user":"u1","src":"10.0.0.1","n":9007199254740991,"u":18446744073709551614,"f":1.5,"@timestamp":"2026-11-29T10:01:00Z","msg":"failed login number 1","tags":["a","b"],"raw":{"x":[1,{"y":null}],"big":"123456789012345678901234567890","dec":0.12345678901234568}}
        {"_id":"5","_index":"logs","user":"u1","src":"10.0.0.5","n":9007199254740995,"u":18446744073709551610,"f":1.5,"@timestamp":"2026-11-29T10:00:00Z","msg":"failed login number 5","tags":["a","b"],"raw":{"x":[1,{"y":null}],"big":"123456789012345678901234567890","dec":0.12345678901234568}}
        "#);
}

#[test]
fn fields_and_highlights_are_in_the_row_where_there_is_no_source() {
    for store in ["elasticsearch", "opensearch"] {
        let reply = reply(&recorded(&format!("{store}/fields.json")), Wanted::Hits).unwrap();
        insta::allow_duplicates! {
            insta::assert_snapshot!(lines(reply.kept.into_rows()), @r#"
        {"_id":"1","_index":"logs","@timestamp":"2026-11-29T10:01:00.000Z","tags":["a","b"],"user":"u1","highlight":{"msg":["failed <em>login</em> number 1"]}}
        {"_id":"2","_index":"logs","@timestamp":"2026-11-29T10:02:00.000Z","tags":["a","b"],"user":"u2","highlight":{"msg":["failed <em>login</em> number 2"]}}
        "#);
        }
    }
    let collapsed = reply(&recorded("opensearch/inner_hits.json"), Wanted::Hits).unwrap();
    insta::assert_snapshot!(lines(collapsed.kept.into_rows()), @r#"{"_id":"1","_index":"logs","user":"u1","src":"10.0.0.1","n":9007199254740991,"u":18446744073709551614,"f":1.5,"@timestamp":"2026-11-29T10:01:00Z","msg":"failed login number 1","tags":["a","b"],"raw":{"x":[1,{"y":null}],"big":"123456789012345678901234567890","dec":0.12345678901234568},"inner_hits":{"latest":[{"_id":"1","_index":"logs","n":9007199254740991}]}}"#);
}

#[test]
fn buckets_become_rows() {
    for store in ["elasticsearch", "opensearch"] {
        let reply = reply(&recorded(&format!("{store}/buckets.json")), Wanted::Buckets).unwrap();
        let rows = reply.kept.into_rows();
        assert_eq!(rows.cut.as_deref(), Some("`by_user` has more buckets (its `size`)"));
        insta::allow_duplicates! {
            insta::assert_snapshot!(lines(rows), @r#"
        {"by_user":"u1","by_minute":"2026-11-29T10:00:00.000Z","doc_count":4,"hosts":4,"size.avg":1.5,"size.count":4,"size.max":1.5,"size.min":1.5,"size.sum":6.0}
        {"by_user":"u1","by_minute":"2026-11-29T10:02:00.000Z","doc_count":2,"hosts":2,"size.avg":1.5,"size.count":2,"size.max":1.5,"size.min":1.5,"size.sum":3.0}
        {"by_user":"u1","by_minute":"2026-11-29T10:04:00.000Z","doc_count":1,"hosts":1,"size.avg":1.5,"size.count":1,"size.max":1.5,"size.min":1.5,"size.sum":1.5}
        {"by_user":"u0","by_minute":"2026-11-29T10:00:00.000Z","doc_count":2,"hosts":2,"size.avg":1.5,"size.count":2,"size.max":1.5,"size.min":1.5,"size.sum":3.0}
        {"by_user":"u0","by_minute":"2026-11-29T10:02:00.000Z","doc_count":2,"hosts":2,"size.avg":1.5,"size.count":2,"size.max":1.5,"size.min":1.5,"size.sum":3.0}
        {"by_user":"u0","by_minute":"2026-11-29T10:04:00.000Z","doc_count":2,"hosts":2,"size.avg":1.5,"size.count":2,"size.max":1.5,"size.min":1.5,"size.sum":3.0}
        "#);
        }
    }
    let metrics = reply(&recorded("opensearch/metrics.json"), Wanted::Buckets).unwrap();
    insta::assert_snapshot!(lines(metrics.kept.into_rows()), @r#"
        {"by_user":"u1","doc_count":7,"early":3,"mx":"2026-11-29T10:04:00.000Z","p.50.0":1.5,"p.99.9":1.5,"t":[{"_id":"1","_index":"logs","user":"u1"}]}
        {"by_user":"u0","doc_count":6,"early":2,"mx":"2026-11-29T10:04:00.000Z","p.50.0":1.5,"p.99.9":1.5,"t":[{"_id":"4","_index":"logs","user":"u0"}]}
        "#);
    let composite = reply(&recorded("opensearch/composite.json"), Wanted::Buckets).unwrap();
    assert_eq!(composite.more[0].1.get(), r#"{"n":9007199254741002,"user":"u0"}"#);
    insta::assert_snapshot!(lines(composite.kept.into_rows()), @r#"
        {"n":9007199254740994,"user":"u0","doc_count":1}
        {"n":9007199254740998,"user":"u0","doc_count":1}
        {"n":9007199254741002,"user":"u0","doc_count":1}
        "#);
}

#[test]
fn an_answer_without_hits_is_one() {
    for store in ["elasticsearch", "opensearch"] {
        let reply = reply(&recorded(&format!("{store}/empty.json")), Wanted::Hits).unwrap();
        assert_eq!((reply.hits, reply.is_of_nothing, reply.missing), (0, false, None));
        assert_eq!(reply.kept.into_rows(), Rows::default());
    }
}

#[test]
fn what_was_not_searched_is_said() {
    let missing = |file: &str| reply(&recorded(file), Wanted::Hits).unwrap().missing.unwrap();
    assert_eq!(
        missing("elasticsearch/partial.json"),
        "2 of 5 shards did not answer: query_shard_exception: failed to create query: For input string: \"abc\""
    );
    assert_eq!(missing("elasticsearch/clusters.json"), "1 of 3 clusters did not answer");
    for store in ["elasticsearch", "opensearch"] {
        assert!(reply(&recorded(&format!("{store}/no_index.json")), Wanted::Hits).unwrap().is_of_nothing);
    }
    let late = br#"{"timed_out": true, "terminated_early": true, "hits": {"total": 5, "hits": []}}"#;
    let late = reply(late, Wanted::Hits).unwrap();
    assert!(late.is_timed_out && late.is_ended_early);
    assert_eq!(late.total, Some(Total { value: 5, is_exact: true }));
}

#[test]
fn totals_of_every_version_are_read() {
    let total = |text: &str| {
        let body = format!(r#"{{"hits": {{"total": {text}, "max_score": null, "hits": []}}}}"#);
        reply(body.as_bytes(), Wanted::Hits).unwrap().total
    };
    assert_eq!(
        total(r#"{"value": 10000, "relation": "gte"}"#),
        Some(Total { value: 10_000, is_exact: false })
    );
    assert_eq!(total("12"), Some(Total { value: 12, is_exact: true }));
    assert_eq!(total("null"), None);
}

#[test]
fn hits_past_the_limit_are_counted_and_where_they_stand_is_known() {
    let hits: Vec<String> =
        (0..50).map(|n| format!(r#"{{"_id": "{n}", "_source": {{"n": {n}}}, "sort": [{n}.10]}}"#)).collect();
    let body = format!(r#"{{"hits": {{"hits": [{}]}}}}"#, hits.join(","));
    let limits = Limits { rows: 3, ..Limits::default() };
    let reply = read(body.as_bytes(), Wanted::Hits, Kept::new(&limits)).unwrap();
    assert_eq!((reply.hits, reply.last.unwrap().get()), (50, "[49.10]"));
    let rows = reply.kept.into_rows();
    assert_eq!((rows.count, rows.rows.len(), rows.rows[2]["n"].as_u64()), (50, 3, Some(2)));
}

#[test]
fn what_is_no_whole_answer_of_search_is_unreadable() {
    let whole = recorded("opensearch/hits.json");
    for bytes in 0..whole.len() - 2 {
        let error = reply(&whole[..bytes], Wanted::Hits).err().unwrap();
        assert!(matches!(error, QueryError::Unreadable(_)), "{bytes}: {error}");
    }
    for body in [
        "<html>502</html>",
        "[]",
        "{}",
        r#"{"hits": []}"#,
        r#"{"hits": {}}"#,
        r#"{"hits": {"hits": {}}}"#,
        r#"{"hits": {"hits": [1]}}"#,
        r#"{"hits": {"hits": [{"_source": [1]}]}}"#,
        r#"{"hits": {"hits": []}, "hits": {"hits": []}}"#,
        r#"{"timed_out": "perhaps", "hits": {"hits": []}}"#,
        r#"{"_shards": 5, "hits": {"hits": []}}"#,
    ] {
        let error = reply(body.as_bytes(), Wanted::Hits).err().unwrap_or_else(|| panic!("{body}"));
        assert!(matches!(error, QueryError::Unreadable(_)), "{body}: {error}");
    }
    assert!(reply(b"{\"hits\": {\"hits\": [{\"_source\": {\"a\": \"\xff\"}}]}}", Wanted::Hits).is_err());
    let without = reply(&recorded("opensearch/empty.json"), Wanted::Buckets).err().unwrap().to_string();
    assert_eq!(without, "reply cannot be read: it has no `aggregations`, which were asked for");
}

#[test]
fn numbers_stay_exact_whatever_their_length() {
    let body = br#"{"hits": {"hits": [{"_source": {"a": 18446744073709551615, "b": 18446744073709551616, "c": 0.30000000000000004}}]}}"#;
    let rows = reply(body, Wanted::Hits).unwrap().kept.into_rows();
    assert_eq!(
        lines(rows),
        r#"{"a":18446744073709551615,"b":"18446744073709551616","c":0.30000000000000004}"#
    );
}

#[test]
fn the_product_is_told_by_what_it_says_of_itself() {
    let es = br#"{"version": {"number": "8.15.3"}, "tagline": "You Know, for Search"}"#;
    assert_eq!(version(es).unwrap(), "Elasticsearch 8.15.3");
    let os = br#"{"version": {"number": "3.8.0", "distribution": "opensearch"}, "tagline": "The OpenSearch Project"}"#;
    assert_eq!(version(os).unwrap(), "OpenSearch 3.8.0");
    for other in ["", "<html>", "{}", r#"{"version": {"number": "1"}}"#] {
        assert!(matches!(version(other.as_bytes()), Err(QueryError::Unreadable(_))), "{other}");
    }
}

proptest! {
    #[test]
    fn rubbish_never_panics(
        body in r#"(\{|\}|\[|\]|"hits"|"total"|"sort"|"_source"|"_shards"|"fields"|"aggregations"|"buckets"|:|,|1|null| ){0,40}"#,
    ) {
        reply(body.as_bytes(), Wanted::Hits).ok();
        reply(body.as_bytes(), Wanted::Buckets).ok();
    }

    #[test]
    fn a_damaged_answer_never_panics(place in 0usize..800, byte in any::<u8>()) {
        for file in ["opensearch/metrics.json", "opensearch/inner_hits.json", "elasticsearch/partial.json"] {
            let mut body = recorded(file);
            let place = place % body.len();
            body[place] = byte;
            reply(&body, Wanted::Hits).ok();
            reply(&body, Wanted::Buckets).ok();
        }
    }
}
