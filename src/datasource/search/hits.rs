//! A hit becomes a row.

use serde_json::{Map, Value};

/// `_id`, `_index`, the fields of `_source`, and what else the query asked for: `fields` as columns where the source does
/// not have them, `highlight`, `inner_hits` and so on in columns of their names. What every hit has and nobody asked for
/// (`_score`, `_ignored`, `_routing`) is left out, as clickdetect does. `None` where that is no hit.
pub(super) fn row(mut hit: Map<String, Value>) -> Option<Map<String, Value>> {
    let mut part = |name: &str| hit.swap_remove(name).filter(|value| !value.is_null());
    let mut row = Map::new();
    for name in ["_id", "_index"] {
        row.extend(part(name).map(|value| (name.to_owned(), value)));
    }
    match part("_source") {
        None => {}
        Some(Value::Object(source)) => row.extend(source),
        Some(_) => return None,
    }
    if let Some(Value::Object(fields)) = part("fields") {
        for (name, value) in fields {
            let value = alone(value);
            // `collapse` gives its field back unasked.
            if at(&row, &name) != Some(&value) {
                add(&mut row, &name, value);
            }
        }
    }
    if let Some(value) = part("highlight") {
        add(&mut row, "highlight", value);
    }
    if let Some(Value::Object(named)) = part("inner_hits") {
        let named: Map<String, Value> = named.into_iter().map(|(name, value)| (name, rows(value))).collect();
        add(&mut row, "inner_hits", named.into());
    }
    for name in ["matched_queries", "_version", "_seq_no", "_primary_term", "_explanation"] {
        if let Some(value) = part(name) {
            add(&mut row, name, value);
        }
    }
    Some(row)
}

/// `{"hits": {"hits": [...]}}` of inner hits and of `top_hits`: its rows; anything else stays as it is.
pub(super) fn rows(mut value: Value) -> Value {
    match value.pointer_mut("/hits/hits").map(Value::take) {
        Some(Value::Array(hits)) => hits
            .into_iter()
            .map(|hit| match hit {
                Value::Object(hit) => row(hit).map_or(Value::Null, Value::Object),
                other => other,
            })
            .collect(),
        Some(other) => other,
        None => value,
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(hit: Value) -> Value {
        let Value::Object(hit) = hit else { panic!("{hit}") };
        super::row(hit).unwrap().into()
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
        assert_eq!(super::row(Map::from_iter([("_source".to_owned(), json!([1]))])), None);
    }
}
