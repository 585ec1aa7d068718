//! Aggregations become rows: one for each bucket of the innermost level.
//!
//! A row has the keys of the buckets around it in columns named as their aggregations, `doc_count`, and what was computed
//! in the bucket and around it: a metric `m` as column `m`, one of several values as `m.avg`, `m.max` ... A single bucket
//! (`filter`, `missing`, `nested` ...) is a number, how many documents are in it; what was computed inside is `NAME.m`.
//! A text that the store gives beside a number (`key_as_string`) stands for the number.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::json::Json;
use super::super::kept::Kept;
use super::super::{QueryError, bounded};
use super::hits::{self, add};
use super::reply::Named;

type Row = Map<String, Value>;
/// Composite aggregations with the key of their last bucket.
type More = Vec<(String, Box<RawValue>)>;

/// Gives the rows of `aggregations` to `kept`. Returns the composite ones that have more buckets.
pub(super) fn rows(aggregations: Named, kept: &mut Kept) -> Result<More, QueryError> {
    let mut more = Vec::new();
    let mut level = Row::new();
    for (name, written) in aggregations.0 {
        let value = Json::new(written.get().as_bytes()).any().map_err(|error| unreadable(&name, &error))?;
        if value.get("buckets").and_then(Value::as_array).is_some_and(|buckets| !buckets.is_empty()) {
            let composite: Composite =
                serde_json::from_str(written.get()).map_err(|error| unreadable(&name, &error))?;
            more.extend(composite.after_key.map(|key| (name.clone(), key)));
        }
        level.insert(name, value);
    }
    Walk { kept }.level(level, Row::new(), true)?;
    Ok(more)
}

#[derive(Deserialize)]
struct Composite {
    #[serde(default)]
    after_key: Option<Box<RawValue>>,
}

fn unreadable(name: &str, error: &dyn std::error::Error) -> QueryError {
    QueryError::Unreadable(bounded(&format!("aggregation `{name}`: {error}")))
}

struct Walk<'a> {
    kept: &'a mut Kept,
}

/// What an aggregation gave, told by its shape.
enum Shape {
    Buckets,
    /// With how many documents are in it.
    Single,
    TopHits,
    Metric,
}

impl Shape {
    fn of(value: &Value) -> Self {
        let is = |name: &str, is: fn(&Value) -> bool| value.get(name).is_some_and(is);
        if is("buckets", |buckets| buckets.is_array() || buckets.is_object()) {
            Self::Buckets
        } else if is("doc_count", Value::is_u64) {
            Self::Single
        } else if value.pointer("/hits/hits").is_some() {
            Self::TopHits
        } else {
            Self::Metric
        }
    }
}

impl Walk<'_> {
    /// What was computed in one bucket (or outside of all), where `row` has the keys and numbers around it.
    fn level(
        &mut self,
        level: Map<String, Value>,
        mut row: Row,
        is_outermost: bool,
    ) -> Result<(), QueryError> {
        let mut deeper = Vec::new();
        for (name, value) in level {
            part(&name, &name, value, &mut row, &mut deeper);
        }
        if deeper.is_empty() {
            self.kept.take(row);
            return Ok(());
        }
        // Two of one name, in two single buckets: each is named with its bucket.
        let is_twice = |name: &str| deeper.iter().filter(|(_, known, _)| known == name).count() > 1;
        let twice: Vec<bool> = deeper.iter().map(|(_, name, _)| is_twice(name)).collect();
        for ((path, name, value), is_twice) in deeper.into_iter().zip(twice) {
            let is_outermost = is_outermost && path == name;
            self.buckets(if is_twice { &path } else { &name }, value, &row, is_outermost)?;
        }
        Ok(())
    }

    fn buckets(
        &mut self,
        name: &str,
        aggregation: Value,
        around: &Row,
        is_outermost: bool,
    ) -> Result<(), QueryError> {
        let Value::Object(mut aggregation) = aggregation else { return Ok(()) };
        self.note(name, &aggregation, is_outermost);
        match aggregation.remove("buckets") {
            Some(Value::Array(buckets)) => {
                for (index, bucket) in buckets.into_iter().enumerate() {
                    self.bucket(name, Value::from(index), bucket, around)?;
                }
            }
            Some(Value::Object(buckets)) => {
                for (key, mut bucket) in buckets {
                    // Where buckets have names, these are their keys, e.g. `filters`.
                    if let Some(bucket) = bucket.as_object_mut() {
                        bucket.shift_remove("key");
                        bucket.shift_remove("key_as_string");
                    }
                    self.bucket(name, key.into(), bucket, around)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// `otherwise` is the key of one that has none.
    fn bucket(
        &mut self,
        name: &str,
        otherwise: Value,
        bucket: Value,
        around: &Row,
    ) -> Result<(), QueryError> {
        let Value::Object(mut bucket) = bucket else {
            return Err(QueryError::Unreadable(bounded(&format!("a bucket of `{name}` is not an object"))));
        };
        let mut row = around.clone();
        row.shift_remove(DOC_COUNT);
        let text = bucket.shift_remove("key_as_string");
        match (bucket.shift_remove("key"), text) {
            // Composite: a key of several, each with its name.
            (Some(Value::Object(keys)), _) => {
                keys.into_iter().for_each(|(part, key)| add(&mut row, &part, key))
            }
            // `multi_terms`: the text is the parts with bars between.
            (Some(key @ Value::Array(_)), _) | (Some(key), None) | (_, Some(key)) => add(&mut row, name, key),
            (None, None) => add(&mut row, name, otherwise),
        }
        if let Some(count) = bucket.shift_remove(DOC_COUNT) {
            add(&mut row, DOC_COUNT, count);
        }
        let (inside, beside): (Row, Row) = bucket.into_iter().partition(|(_, value)| value.is_object());
        // e.g. `from` and `to` of a range, `score` of a significant term.
        for (part, value) in texts(beside) {
            add(&mut row, &format!("{name}.{part}"), value);
        }
        self.level(inside, row, false)
    }

    fn note(&mut self, name: &str, aggregation: &Row, is_outermost: bool) {
        let number = |name: &str| aggregation.get(name).and_then(Value::as_u64).filter(|&number| number > 0);
        if number("sum_other_doc_count").is_some() {
            self.kept.note(format!("`{name}` has more buckets (its `size`)"));
        }
        if number("doc_count_error_upper_bound").is_some() {
            self.kept.note(format!("counts of `{name}` are approximate (its `shard_size`)"));
        }
        if !is_outermost && aggregation.contains_key("after_key") {
            self.kept.note(format!(
                "`{name}` may have more buckets: only an outermost `composite` is read to its end"
            ));
        }
    }
}

/// One part of a level: a column, columns, or buckets further in. `path` is its name with those of the single buckets
/// around it.
fn part(path: &str, name: &str, value: Value, row: &mut Row, deeper: &mut Vec<(String, String, Value)>) {
    match Shape::of(&value) {
        Shape::Buckets => deeper.push((path.to_owned(), name.to_owned(), value)),
        Shape::TopHits => add(row, path, hits::rows(value)),
        Shape::Metric => metric(path, value, row),
        Shape::Single => {
            let Value::Object(mut single) = value else { return };
            if let Some(count) = single.shift_remove(DOC_COUNT) {
                add(row, path, count);
            }
            for (inner, value) in texts(single) {
                part(&format!("{path}.{inner}"), &inner, value, row, deeper);
            }
        }
    }
}

fn metric(name: &str, value: Value, row: &mut Row) {
    let parts = match value {
        Value::Object(parts) if !parts.is_empty() => parts,
        value => return add(row, name, value),
    };
    for (part, value) in texts(parts) {
        match part.as_str() {
            "value" => add(row, name, value),
            // Percentiles, by their number or in a list.
            "values" => values(name, value, row),
            part => metric(&format!("{name}.{part}"), value, row),
        }
    }
}

fn values(name: &str, value: Value, row: &mut Row) {
    match value {
        Value::Object(values) => {
            texts(values).for_each(|(key, value)| add(row, &format!("{name}.{key}"), value));
        }
        Value::Array(values) if values.iter().all(|value| value.get("key").is_some()) => {
            for mut value in values {
                let mut part = |part: &str| value.get_mut(part).map(Value::take).unwrap_or_default();
                add(row, &format!("{name}.{}", part("key")), part("value"));
            }
        }
        value => add(row, name, value),
    }
}

/// The parts, where `x_as_string` takes the place of `x`.
fn texts(mut parts: Row) -> impl Iterator<Item = (String, Value)> {
    let names: Vec<String> =
        parts.keys().filter_map(|name| Some(name.strip_suffix(AS_TEXT)?.to_owned())).collect();
    for name in names.iter().filter(|name| !name.is_empty()) {
        if parts.contains_key(name) {
            let text = parts.shift_remove(&format!("{name}{AS_TEXT}"));
            if let (Some(number), Some(text)) = (parts.get_mut(name), text) {
                *number = text;
            }
        }
    }
    parts.into_iter()
}

const DOC_COUNT: &str = "doc_count";
const AS_TEXT: &str = "_as_string";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasource::{Limits, Rows};
    use proptest::prelude::*;
    use serde_json::json;

    fn read(aggregations: Value) -> (Rows, Vec<(String, String)>) {
        let named = serde_json::from_str(&aggregations.to_string()).unwrap();
        let mut kept = Kept::new(&Limits::default());
        let more = rows(named, &mut kept).unwrap();
        let more = more.into_iter().map(|(name, key)| (name, key.get().to_owned())).collect();
        (kept.into_rows(), more)
    }

    fn table(aggregations: Value) -> Vec<String> {
        read(aggregations).0.rows.into_iter().map(|row| Value::from(row).to_string()).collect()
    }

    #[test]
    fn each_innermost_bucket_is_a_row_with_the_keys_and_numbers_around_it() {
        let rows = table(json!({
            "by_user": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [
                {"key": "root", "doc_count": 5, "hosts": {"value": 2}, "by_minute": {"buckets": [
                    {"key_as_string": "10:00", "key": 36000, "doc_count": 3, "last": {"value": 1.0, "value_as_string": "10:00:59"}},
                    {"key_as_string": "10:01", "key": 36060, "doc_count": 2, "last": {"value": null}}]}},
                {"key": "ana", "doc_count": 0, "hosts": {"value": 0}, "by_minute": {"buckets": []}}]},
            "most": {"value": 5.0, "keys": ["root"]}
        }));
        insta::assert_snapshot!(rows.join("\n"), @r#"
        {"most":5.0,"most.keys":["root"],"by_user":"root","hosts":2,"by_minute":"10:00","doc_count":3,"last":"10:00:59"}
        {"most":5.0,"most.keys":["root"],"by_user":"root","hosts":2,"by_minute":"10:01","doc_count":2,"last":null}
        "#);
    }

    #[test]
    fn metrics_of_several_values_become_columns_of_their_own() {
        let rows = table(json!({"by": {"buckets": [{"key": 1, "doc_count": 2,
            "s": {"count": 2, "min": 1.0, "max_as_string": "3", "max": 3.0, "std_deviation_bounds": {"upper": 4.0}},
            "p": {"values": {"50.0": 1.5, "99.9": 3.0}},
            "q": {"values": [{"key": 50.0, "value": 1.5}]},
            "script": {"value": {"a": [1]}},
            "top": {"hits": {"total": {"value": 2}, "hits": [{"_index": "l", "_id": "7", "_source": {"user": "x"}}]}},
            "failed": {"doc_count": 1, "hosts": {"value": 1}},
            "none": {}
        }]}}));
        insta::assert_snapshot!(rows.join("\n"), @r#"{"by":1,"doc_count":2,"s.count":2,"s.min":1.0,"s.max":"3","s.std_deviation_bounds.upper":4.0,"p.50.0":1.5,"p.99.9":3.0,"q.50.0":1.5,"script":{"a":[1]},"top":[{"_id":"7","_index":"l","user":"x"}],"failed":1,"failed.hosts":1,"none":{}}"#);
    }

    #[test]
    fn keys_of_every_kind_of_bucket_are_columns() {
        insta::assert_snapshot!(
            table(json!({"f": {"buckets": {"a": {"doc_count": 1}, "_other_": {"doc_count": 0}}}})).join("\n"), @r#"
        {"f":"a","doc_count":1}
        {"f":"_other_","doc_count":0}
        "#);
        insta::assert_snapshot!(table(json!({"f": {"buckets": [{"doc_count": 1}, {"doc_count": 18}]}})).join("\n"), @r#"
        {"f":0,"doc_count":1}
        {"f":1,"doc_count":18}
        "#);
        insta::assert_snapshot!(table(json!({"c": {"buckets": [{"key": {"user": "a", "doc_count": 7}, "doc_count": 1}]}})).join("\n"), @r#"{"user":"a","doc_count":7,"doc_count_2":1}"#);
        insta::assert_snapshot!(table(json!({"m": {"buckets": [{"key": ["a", 1], "key_as_string": "a|1", "doc_count": 1}]}})).join("\n"), @r#"{"m":["a",1],"doc_count":1}"#);
        insta::assert_snapshot!(
            table(json!({"r": {"buckets": [{"key": "*-2.0", "to": 2.0, "to_as_string": "two", "doc_count": 1}]}})).join("\n"), @r#"{"r":"*-2.0","doc_count":1,"r.to":"two"}"#);
        insta::assert_snapshot!(
            table(json!({"k": {"buckets": {"2026": {"key_as_string": "2026", "key": 1, "doc_count": 1}}}})).join("\n"), @r#"{"k":"2026","doc_count":1}"#);
    }

    #[test]
    fn buckets_in_single_buckets_keep_their_name_where_it_is_theirs_alone() {
        let by = |key: &str| json!({"buckets": [{"key": key, "doc_count": 1}]});
        insta::assert_snapshot!(table(json!({"failed": {"doc_count": 3, "by_user": by("a")}})).join("\n"), @r#"{"failed":3,"by_user":"a","doc_count":1}"#);
        insta::assert_snapshot!(table(json!({
            "failed": {"doc_count": 3, "by_user": by("a")}, "good": {"doc_count": 9, "by_user": by("b")}
        })).join("\n"), @r#"
        {"failed":3,"good":9,"failed.by_user":"a","doc_count":1}
        {"failed":3,"good":9,"good.by_user":"b","doc_count":1}
        "#);
    }

    #[test]
    fn without_buckets_there_is_one_row() {
        assert_eq!(table(json!({"n": {"value": 5}, "failed": {"doc_count": 0}})), [r#"{"n":5,"failed":0}"#]);
    }

    #[test]
    fn more_buckets_and_approximate_counts_are_said() {
        let bucket = |more: u64| {
            json!({"key": "a", "doc_count": 1, "by_host": {"sum_other_doc_count": more,
                "doc_count_error_upper_bound": 1, "buckets": [{"key": "h", "doc_count": 1}]}})
        };
        let (rows, more) = read(json!({"by_user": {"buckets": [bucket(1), bucket(2), bucket(3)]},
            "c": {"after_key": {"n": 0.1}, "buckets": [{"key": {"n": 0.1}, "doc_count": 1}]},
            "end": {"after_key": {"n": 1}, "buckets": []}}));
        assert_eq!(more, [("c".to_owned(), r#"{"n":0.1}"#.to_owned())]);
        assert_eq!(
            rows.cut.unwrap(),
            "`by_host` has more buckets (its `size`); counts of `by_host` are approximate (its `shard_size`)"
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let name = prop_oneof![
            "[a-c]",
            Just("buckets".to_owned()),
            Just("key".into()),
            Just("doc_count".into()),
            Just("value".into()),
            Just("values".into()),
            Just("hits".into()),
            Just("a_as_string".into())
        ];
        let leaf =
            prop_oneof![Just(Value::Null), any::<u64>().prop_map(Value::from), "[a-z]".prop_map(Value::from)];
        leaf.prop_recursive(6, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                prop::collection::btree_map(name.clone(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(value in any_json()) {
            if let Ok(named) = serde_json::from_str(&value.to_string()) {
                rows(named, &mut Kept::new(&Limits::default())).ok();
            }
        }
    }
}
