//! A hit becomes a row.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What is read of a hit. What every hit has and nobody asked for (`_score`, `_ignored`, `_routing`) is left out, as
/// clickdetect does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hit {
    #[serde(rename = "_id")]
    id: Option<Value>,
    #[serde(rename = "_index")]
    index: Option<Value>,
    #[serde(rename = "_source")]
    source: Option<Map<String, Value>>,
    fields: Option<Map<String, Value>>,
    highlight: Option<Value>,
    inner_hits: Option<Map<String, Value>>,
    matched_queries: Option<Value>,
    #[serde(rename = "_version")]
    version: Option<Value>,
    #[serde(rename = "_seq_no")]
    seq_no: Option<Value>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<Value>,
    #[serde(rename = "_explanation")]
    explanation: Option<Value>,
    /// As it was written: sent back to get what follows, and a number that was rounded would pass over hits.
    pub(super) sort: Option<Box<RawValue>>,
}

/// What is read of a hit that is only counted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Counted {
    pub(super) sort: Option<Box<RawValue>>,
}

impl Hit {
    /// `_id`, `_index`, the fields of `_source`, and what else the query asked for: `fields` as columns where the
    /// source does not have them, `highlight`, `inner_hits` and so on in columns of their names.
    pub(super) fn into_row(self) -> Map<String, Value> {
        let mut row = Map::new();
        let named = [("_id", self.id), ("_index", self.index)];
        row.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        row.extend(self.source.unwrap_or_default());
        for (name, value) in self.fields.unwrap_or_default() {
            let value = alone(value);
            // `collapse` gives its field back unasked.
            if at(&row, &name) != Some(&value) {
                add(&mut row, &name, value);
            }
        }
        let asked = [
            ("highlight", self.highlight),
            ("inner_hits", self.inner_hits.map(|named| Value::Object(inner(named)))),
            ("matched_queries", self.matched_queries),
            ("_version", self.version),
            ("_seq_no", self.seq_no),
            ("_primary_term", self.primary_term),
            ("_explanation", self.explanation),
        ];
        for (name, value) in asked {
            if let Some(value) = value {
                add(&mut row, name, value);
            }
        }
        row
    }
}

/// `{"hits": {"hits": [...]}}` of inner hits and of `top_hits`: its rows; anything else stays as it is.
pub(super) fn rows(value: Value) -> Value {
    let hits = match value.pointer("/hits/hits") {
        Some(Value::Array(hits)) => hits,
        _ => return value,
    };
    let read = |hit: &Value| Hit::deserialize(hit).map(|hit| Value::Object(hit.into_row()));
    hits.iter().map(|hit| read(hit).unwrap_or_else(|_| hit.clone())).collect()
}

fn inner(named: Map<String, Value>) -> Map<String, Value> {
    named.into_iter().map(|(name, value)| (name, rows(value))).collect()
}

/// A column of that name; `NAME_2`, `NAME_3` ... where it is taken, so that nothing is lost.
pub(super) fn add(row: &mut Map<String, Value>, name: &str, value: Value) {
    let name = match row.contains_key(name) {
        false => name.to_owned(),
        true => (2_u64..)
            .map(|n| format!("{name}_{n}"))
            .find(|name| !row.contains_key(name))
            .expect("there are more numbers than columns"),
    };
    row.insert(name, value);
}

/// Fields are lists always, of one mostly.
fn alone(value: Value) -> Value {
    match value {
        Value::Array(mut items) if items.len() == 1 => items.remove(0),
        value => value,
    }
}

/// What stands at `a.b`: a column of that name, or `b` inside of `a`.
fn at<'a>(row: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    row.get(path).or_else(|| {
        path.match_indices('.').find_map(|(dot, _)| at(row.get(&path[..dot])?.as_object()?, &path[dot + 1..]))
    })
}

/// Numbers beyond 64 bits, which have come rounded to the nearest that a float can be.
pub(super) fn rounded(value: &Value) -> usize {
    match value {
        Value::Number(number) => {
            // Every whole number that fits is not a float here.
            usize::from(
                number
                    .as_f64()
                    .is_some_and(|n| number.is_f64() && n.fract() == 0.0 && n.abs() >= 2f64.powi(63)),
            )
        }
        Value::Array(items) => items.iter().map(rounded).sum(),
        Value::Object(entries) => entries.values().map(rounded).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(hit: Value) -> Value {
        Value::Object(Hit::deserialize(&hit).unwrap().into_row())
    }

    #[test]
    fn id_and_index_come_first_and_the_source_stays_as_it_is() {
        let hit = json!({"_index": "logs", "_id": "1", "_score": 1.5, "_ignored": ["msg"],
            "_source": {"user": {"name": "root"}, "n": u64::MAX, "tags": []}, "sort": [1]});
        assert_eq!(
            row(hit).to_string(),
            r#"{"_id":"1","_index":"logs","user":{"name":"root"},"n":18446744073709551615,"tags":[]}"#
        );
    }

    #[test]
    fn fields_are_columns_where_the_source_does_not_have_them() {
        let hit = json!({"_index": "logs", "_id": "1", "fields": {"user": ["root"], "tags": ["a", "b"]}});
        assert_eq!(row(hit), json!({"_id": "1", "_index": "logs", "user": "root", "tags": ["a", "b"]}));
        let hit = json!({"_id": "1", "_source": {"user": {"name": "root"}, "time": "10:00"},
            "fields": {"user.name": ["root"], "time": [36000], "day": ["Sunday"]}});
        assert_eq!(
            row(hit),
            json!({"_id": "1", "user": {"name": "root"}, "time": "10:00", "time_2": 36000, "day": "Sunday"})
        );
    }

    #[test]
    fn what_else_was_asked_for_stands_behind() {
        let hit = json!({"_id": "1", "_source": {"highlight": 7}, "highlight": {"msg": ["<em>x</em>"]},
            "matched_queries": ["a"], "_version": 3, "inner_hits": {"latest": {"hits": {"total": {"value": 1},
            "hits": [{"_index": "logs", "_id": "2", "_nested": {"offset": 0}, "_source": {"a": 1}}]}}}});
        assert_eq!(
            row(hit),
            json!({"_id": "1", "highlight": 7, "highlight_2": {"msg": ["<em>x</em>"]},
                "inner_hits": {"latest": [{"_id": "2", "_index": "logs", "a": 1}]}, "matched_queries": ["a"],
                "_version": 3})
        );
        assert_eq!(rows(json!({"value": 5})), json!({"value": 5}));
    }

    #[test]
    fn only_whole_numbers_beyond_64_bits_count_as_rounded() {
        let value: Value = serde_json::from_str(
            "[18446744073709551615, 18446744073709551616, -9223372036854775808, {\"a\": -9223372036854775809}, 0.1]",
        )
        .unwrap();
        assert_eq!(rounded(&value), 2);
    }
}
