//! What a result looks like: types, names, limits.

use super::*;

#[tokio::test]
async fn every_type_becomes_the_json_that_a_reader_expects() {
    let source = memory("");
    let table = [
        ("true", json!(true)),
        ("NULL", json!(null)),
        ("(-128)::TINYINT", json!(-128)),
        ("(-32768)::SMALLINT", json!(-32768)),
        ("(-2147483648)::INTEGER", json!(-2147483648_i64)),
        ("(-9223372036854775808)::BIGINT", json!(i64::MIN)),
        ("255::UTINYINT", json!(255)),
        ("65535::USMALLINT", json!(65535)),
        ("4294967295::UINTEGER", json!(4294967295_u32)),
        ("18446744073709551615::UBIGINT", json!(u64::MAX)),
        ("9007199254740993::BIGINT", json!(9007199254740993_i64)),
        ("7::HUGEINT", json!(7)),
        ("18446744073709551615::HUGEINT", json!(u64::MAX)),
        (
            "'-170141183460469231731687303715884105728'::HUGEINT",
            json!("-170141183460469231731687303715884105728"),
        ),
        ("7::UHUGEINT", json!(7)),
        (
            "'340282366920938463463374607431768211455'::UHUGEINT",
            json!("340282366920938463463374607431768211455"),
        ),
        ("77::BIGNUM", json!("77")),
        ("0::BIGNUM", json!("0")),
        ("(-256)::BIGNUM", json!("-256")),
        (
            "'123456789012345678901234567890123456789012345'::BIGNUM",
            json!("123456789012345678901234567890123456789012345"),
        ),
        ("0.1::FLOAT", json!(0.1)),
        ("1.5::DOUBLE", json!(1.5)),
        ("'nan'::DOUBLE", json!("NaN")),
        ("'inf'::FLOAT", json!("Infinity")),
        ("'-inf'::DOUBLE", json!("-Infinity")),
        ("12.340::DECIMAL(5,3)", json!("12.340")),
        ("(-0.05)::DECIMAL(4,2)", json!("-0.05")),
        ("42::DECIMAL(18,0)", json!(42)),
        (
            "'1234567890123456789012345678.0123456789'::DECIMAL(38,10)",
            json!("1234567890123456789012345678.0123456789"),
        ),
        (
            "'99999999999999999999999999999999999999'::DECIMAL(38,0)",
            json!("99999999999999999999999999999999999999"),
        ),
        ("DATE '2026-11-23'", json!("2026-11-23")),
        ("DATE '1969-12-31'", json!("1969-12-31")),
        ("DATE '0044-03-15 (BC)'", json!("-000043-03-15")),
        ("DATE '2000-02-29'", json!("2000-02-29")),
        ("'infinity'::DATE", json!("infinity")),
        ("'-infinity'::DATE", json!("-infinity")),
        ("TIME '10:00:00'", json!("10:00:00")),
        ("TIME '23:59:59.000001'", json!("23:59:59.000001")),
        ("TIMETZ '10:00:00+02'", json!("10:00:00+02:00")),
        ("TIMETZ '10:00:00.5-05:30'", json!("10:00:00.500000-05:30")),
        ("TIMESTAMP '2026-11-23 10:00:00'", json!("2026-11-23T10:00:00")),
        ("TIMESTAMP '2026-11-23 10:00:00.123456'", json!("2026-11-23T10:00:00.123456")),
        ("TIMESTAMP '1969-12-31 23:59:59.5'", json!("1969-12-31T23:59:59.500000")),
        ("TIMESTAMP '294247-01-10 04:00:54.775806'", json!("+294247-01-10T04:00:54.775806")),
        ("TIMESTAMP_S '2026-11-23 10:00:00'", json!("2026-11-23T10:00:00")),
        ("TIMESTAMP_MS '2026-11-23 10:00:00.120'", json!("2026-11-23T10:00:00.120")),
        ("TIMESTAMP_NS '2026-11-23 10:00:00.123456789'", json!("2026-11-23T10:00:00.123456789")),
        ("TIMESTAMPTZ '2026-11-23 10:00:00+02'", json!("2026-11-23T08:00:00Z")),
        ("'infinity'::TIMESTAMP", json!("infinity")),
        ("'-infinity'::TIMESTAMPTZ", json!("-infinity")),
        ("INTERVAL '1 year 2 months 3 days 04:05:06.5'", json!("P1Y2M3DT4H5M6.5S")),
        ("INTERVAL (-90) SECOND", json!("PT-1M-30S")),
        ("INTERVAL 0 SECOND", json!("PT0S")),
        ("'å\n\"'", json!("å\n\"")),
        ("'a'::ENUM('b', 'a')", json!("a")),
        ("NULL::ENUM('b', 'a')", json!(null)),
        ("'00112233-4455-6677-8899-aabbccddeeff'::UUID", json!("00112233-4455-6677-8899-aabbccddeeff")),
        ("'\\xFF\\x00a'::BLOB", json!("/wBh")),
        ("''::BLOB", json!("")),
        ("'0101'::BIT", json!("0101")),
        ("'110110011'::BIT", json!("110110011")),
        (r#"'{"z": [1, 2.5, null], "a": "b"}'::JSON"#, json!({"z": [1, 2.5, null], "a": "b"})),
        ("[1, NULL, 3]", json!([1, null, 3])),
        ("[]::INTEGER[]", json!([])),
        ("[1, 2]::INTEGER[2]", json!([1, 2])),
        ("{'a': 1, 'b': 'x'}", json!({"a": 1, "b": "x"})),
        ("row(1, 'a')", json!([1, "a"])),
        ("MAP {'a': 1, 'b': NULL}", json!({"a": 1, "b": null})),
        ("MAP {1: 'x'}", json!([{"key": 1, "value": "x"}])),
        ("union_value(n := 5)::UNION(n INTEGER, t VARCHAR)", json!(5)),
        ("union_value(t := 'x')::UNION(n INTEGER, t VARCHAR)", json!("x")),
        (
            "[{'m': MAP {'k': [1::HUGEINT]}, 'u': '00112233-4455-6677-8899-aabbccddeeff'::UUID, 'd': 1.50, 'n': NULL}]",
            json!([{"m": {"k": [1]}, "u": "00112233-4455-6677-8899-aabbccddeeff", "d": "1.50", "n": null}]),
        ),
    ];
    for (expression, expected) in table {
        let found = values(&source, &format!("SELECT {expression} AS cell")).await;
        assert_eq!(found, json!([{ "cell": expected }]), "{expression}");
    }
}

#[tokio::test]
async fn all_types_of_duckdb_come_through() {
    let source = memory("");
    let found = rows(&source, "FROM test_all_types()").await.unwrap();
    assert_eq!((found.count, found.rows.len()), (3, 3));
    let text = serde_json::to_string(&found.rows).unwrap();
    assert!(!text.contains("[no JSON for"), "{text}");
    assert!(found.rows[2].values().all(Value::is_null), "the third row is NULL: {:?}", found.rows[2]);
}

#[tokio::test]
async fn a_column_name_that_comes_twice_loses_no_value() {
    let source = memory("");
    let found = values(&source, "SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a").await;
    assert_eq!(found, json!([{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]));
}

#[tokio::test]
async fn a_million_rows_are_counted_and_the_first_are_kept() {
    let source = memory("");
    let limits = Limits { rows: 10, ..Limits::default() };
    let found = source.query("SELECT i FROM range(1000000) t(i)", window(), &limits).await.unwrap();
    assert_eq!((found.count, found.rows.len()), (1_000_000, 10));
    assert_eq!(found.rows[9]["i"], json!(9));
    assert_eq!(found.cut.as_deref(), Some("kept 10 of 1000000 rows (max_rows)"));
}

#[tokio::test]
async fn as_many_rows_as_the_limit_are_not_cut() {
    let source = memory("");
    let limits = Limits { rows: 10, ..Limits::default() };
    let found = source.query("SELECT i FROM range(10) t(i)", window(), &limits).await.unwrap();
    assert_eq!((found.count, found.rows.len(), found.cut), (10, 10, None));
}

#[tokio::test]
async fn rows_beyond_the_bytes_are_dropped_from_the_end() {
    let source = memory("");
    let limits = Limits { bytes: 10_000, ..Limits::default() };
    let found =
        source.query("SELECT i, repeat('x', 90) AS text FROM range(500) t(i)", window(), &limits).await;
    let found = found.unwrap();
    assert_eq!(found.count, 500);
    assert_eq!(found.rows.len(), 91, "a row takes 109 bytes");
    assert!(serde_json::to_string(&found.rows).unwrap().len() <= limits.bytes);
    assert_eq!(found.cut.as_deref(), Some("kept 91 of 500 rows (max_bytes)"));
}

#[tokio::test]
async fn a_giant_cell_is_cut_at_a_character_and_says_so() {
    let source = memory("");
    let limits = Limits { bytes: 4_000, ..Limits::default() };
    for (expression, ending) in [
        ("repeat('é', 524288)", "…[cut: 1048576 bytes]"),
        ("repeat(chr(1), 1048576)", "…[cut: 1048576 bytes]"),
        ("repeat('x', 1048576)::BLOB", "…[cut: 1048576 bytes]"),
        ("'\"' || repeat('x', 1048574) || '\"'", "…[cut: 1048576 bytes]"),
    ] {
        let query = format!("SELECT {expression} AS big, 7 AS small");
        let found = source.query(&query, window(), &limits).await.unwrap();
        assert_eq!(found.cut.as_deref(), Some("cut 1 long value"), "{expression}");
        let big = found.rows[0]["big"].as_str().unwrap();
        assert!(big.ends_with(ending) && big.len() > ending.len() + 50, "{big}");
        assert_eq!(found.rows[0]["small"], json!(7));
        assert!(serde_json::to_string(&found.rows).unwrap().len() <= limits.bytes);
    }
    for nested in ["range(1000000)", "[repeat('x', 1000000)]", "{'a': repeat('x', 1000000)}"] {
        let found = source.query(&format!("SELECT {nested} AS big"), window(), &limits).await.unwrap();
        assert_eq!(found.rows.len(), 1);
        let text = serde_json::to_string(&found.rows).unwrap();
        assert!(text.contains("…[cut: 1000000 ") && text.len() <= limits.bytes, "{text}");
    }
}

#[tokio::test]
async fn a_first_row_of_many_giant_cells_still_shows_each() {
    let source = memory("");
    let limits = Limits { bytes: 4_000, ..Limits::default() };
    let columns = (0..20).map(|n| format!("repeat('x', 100000) AS c{n}")).collect::<Vec<_>>().join(", ");
    let found = source.query(&format!("SELECT {columns}"), window(), &limits).await.unwrap();
    assert_eq!((found.count, found.rows.len()), (1, 1));
    assert_eq!(found.cut.as_deref(), Some("cut 20 long values"));
    assert!(serde_json::to_string(&found.rows).unwrap().len() <= limits.bytes);
}

#[tokio::test]
async fn what_is_kept_fits_the_bytes() {
    let source = memory("");
    for columns in [
        "(9223372036854775807 - i)::BIGINT AS n",
        "i AS n",
        "1 / (i + 7) AS x, now() AS t",
        "[i, i] AS l, {'a': i} AS s",
    ] {
        for bytes in [500, 5_000, 50_000] {
            let limits = Limits { bytes, rows: 100_000, ..Limits::default() };
            let query = format!("SELECT {columns} FROM range(100000) r(i)");
            let found = source.query(&query, window(), &limits).await.unwrap();
            let kept = serde_json::to_string(&found.rows).unwrap().len();
            assert!(kept <= bytes && kept > bytes * 3 / 4, "{columns}: {kept} of {bytes}");
        }
    }
}
