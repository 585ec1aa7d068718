//! What a rule says: a `_search` body, or a query in the store's own language.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::{QueryError, bounded};

/// A rule's query, rendered.
#[derive(Debug)]
pub(super) enum Query {
    /// JSON: for `_search`.
    Search(Box<Body>),
    /// Anything else: ES|QL or SQL.
    Language(String),
}

/// A `_search` body.
#[derive(Clone, Debug)]
pub(super) struct Body {
    /// As the rule has it; sent like that where nothing was set, since our numbers are 64 bits wide.
    text: Option<String>,
    tree: Map<String, Value>,
}

impl Query {
    pub(super) fn read(query: &str) -> Result<Self, QueryError> {
        let text = query.trim();
        if text.is_empty() {
            return Err(QueryError::Refused("the query is empty".into()));
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(tree)) => Ok(Self::Search(Box::new(Body { text: Some(text.to_owned()), tree }))),
            Ok(_) => Err(QueryError::Refused("the query is JSON, but not an object `{...}`".into())),
            // No query of ES|QL or SQL begins with a brace.
            Err(error) if text.starts_with('{') => Err(QueryError::Refused(format!(
                "the query begins like a `_search` body and is not JSON: {}",
                bounded(&error.to_string())
            ))),
            Err(_) => Ok(Self::Language(text.to_owned())),
        }
    }
}

impl Body {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match &self.text {
            Some(text) => text.clone().into_bytes(),
            None => Value::Object(self.tree.clone()).to_string().into_bytes(),
        }
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.text = None;
        self.tree.insert(name.to_owned(), value.into());
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.tree.get(name).is_some_and(|value| !value.is_null())
    }

    /// The hits that it asks for. A text with a number in it is one, as for the store.
    pub(super) fn size(&self) -> Option<u64> {
        self.number("size")
    }

    pub(super) fn from(&self) -> u64 {
        self.number("from").unwrap_or(0)
    }

    fn number(&self, name: &str) -> Option<u64> {
        match self.tree.get(name)? {
            Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        }
    }

    pub(super) fn has_aggregations(&self) -> bool {
        AGGREGATIONS.iter().any(|name| self.has(name))
    }

    /// Whether buckets are what it is about.
    pub(super) fn is_of_buckets(&self) -> bool {
        self.size() == Some(0) && self.has_aggregations()
    }

    /// Lets `composite` aggregations that do not say how many buckets come at a time (10 then) give many.
    pub(super) fn fill_composites(&mut self) {
        let mut is_filled = false;
        for (_, composite) in self.composites_mut() {
            if !composite.contains_key("size") {
                composite.insert("size".into(), json!(COMPOSITE_PAGE));
                is_filled = true;
            }
        }
        if is_filled {
            self.text = None;
        }
    }

    /// The body for the buckets of the composite aggregation `name` behind `after`, and nothing else.
    pub(super) fn bytes_after_bucket(&self, name: &str, after: &RawValue) -> Option<Vec<u8>> {
        let (aggregations, aggregation) = AGGREGATIONS.iter().find_map(|aggregations| {
            Some((*aggregations, self.tree.get(*aggregations)?.get(name)?.as_object()?))
        })?;
        let composite = with(aggregation.get("composite")?.as_object()?, "after", after.get());
        let aggregation = with(aggregation, "composite", &composite);
        let alone = with(&Map::new(), name, &aggregation);
        Some(with(&self.tree, aggregations, &alone).into_bytes())
    }

    /// The body for the hits behind `last`.
    pub(super) fn bytes_after_hit(&self, last: Option<&RawValue>) -> Vec<u8> {
        match last {
            None => self.bytes(),
            Some(last) => with(&self.tree, "search_after", last.get()).into_bytes(),
        }
    }

    /// The settings of the outermost composite aggregations.
    fn composites_mut(&mut self) -> impl Iterator<Item = (&String, &mut Map<String, Value>)> {
        (self.tree.iter_mut())
            .filter(|(name, _)| AGGREGATIONS.contains(&name.as_str()))
            .filter_map(|(_, aggregations)| aggregations.as_object_mut())
            .flat_map(|aggregations| aggregations.iter_mut())
            .filter_map(|(name, aggregation)| {
                Some((name, aggregation.get_mut("composite")?.as_object_mut()?))
            })
    }

    /// Its order with `ties` behind, so that no two hits are at the same place. Without an order of its own it is that
    /// of `ties`: for a score all hits would have to be sorted, and all are read anyway.
    pub(super) fn order(&mut self, ties: &[&str]) {
        let mut order = match self.tree.get("sort") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(order)) => order.clone(),
            Some(one) => vec![one.clone()],
        };
        order.extend(ties.iter().map(|tie| json!({ *tie: "asc" })));
        self.set("sort", order);
    }

    pub(super) fn drop_aggregations(&mut self) {
        for name in AGGREGATIONS {
            if self.tree.shift_remove(name).is_some() {
                self.text = None;
            }
        }
    }
}

/// `object` with `value` at `name`, where `value` is text, so that its numbers stay as the store wrote them.
fn with(object: &Map<String, Value>, name: &str, value: &str) -> String {
    let rest: Map<String, Value> = object
        .iter()
        .filter(|(known, _)| *known != name)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let comma = if rest.is_empty() { "" } else { "," };
    format!("{{{}:{value}{comma}{}", Value::from(name), &Value::Object(rest).to_string()[1..])
}

/// The store takes both.
const AGGREGATIONS: [&str; 2] = ["aggs", "aggregations"];
/// Buckets of a composite aggregation in one answer; the store allows 65,536 of all aggregations together
/// (`search.max_buckets`).
const COMPOSITE_PAGE: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Body {
        match Query::read(text).unwrap() {
            Query::Search(body) => *body,
            Query::Language(_) => panic!("{text} is no body"),
        }
    }

    #[test]
    fn a_body_that_nothing_was_set_in_is_sent_as_it_was_written() {
        let text = r#"{"query": {"term": {"id": 123456789012345678901234567890}}, "size":"20"}"#;
        let mut sent = body(&format!("\n {text} \n"));
        assert_eq!(sent.bytes(), text.as_bytes());
        assert_eq!((sent.size(), sent.from(), sent.has_aggregations()), (Some(20), 0, false));
        sent.fill_composites();
        assert_eq!(sent.bytes(), text.as_bytes());
        sent.set("size", 5);
        assert!(sent.bytes().ends_with(br#""size":5}"#));
    }

    #[test]
    fn what_is_not_json_is_a_query_in_the_stores_language() {
        let Query::Language(text) = Query::read(" FROM logs | LIMIT 5\n").unwrap() else { panic!() };
        assert_eq!(text, "FROM logs | LIMIT 5");
        for (query, said) in [
            ("", "the query is empty"),
            ("[]", "but not an object"),
            ("17", "but not an object"),
            ("{\"size\": 1,}", "is not JSON: trailing comma at line 1 column 12"),
        ] {
            let error = Query::read(query).unwrap_err().to_string();
            assert!(error.starts_with("query refused: ") && error.contains(said), "{error}");
        }
    }

    #[test]
    fn an_order_gets_a_last_word_for_ties() {
        let order = |text: &str| {
            let mut body = body(text);
            body.order(&["_shard_doc"]);
            body.tree["sort"].to_string()
        };
        assert_eq!(order("{}"), r#"[{"_shard_doc":"asc"}]"#);
        assert_eq!(order(r#"{"sort": "user"}"#), r#"["user",{"_shard_doc":"asc"}]"#);
        assert_eq!(order(r#"{"sort": {"a": "desc"}}"#), r#"[{"a":"desc"},{"_shard_doc":"asc"}]"#);
        assert_eq!(order(r#"{"sort": ["a", "b"]}"#), r#"["a","b",{"_shard_doc":"asc"}]"#);
    }

    #[test]
    fn the_next_buckets_are_asked_for_alone() {
        let mut body = body(
            r#"{"size": 0, "aggs": {"max": {"max": {"field": "n"}},
                "by": {"composite": {"sources": []}, "aggs": {"m": {"min": {"field": "n"}}}}}}"#,
        );
        assert!(body.is_of_buckets());
        body.fill_composites();
        let after: Box<RawValue> = serde_json::from_str(r#"{"n": 0.30000000000000004}"#).unwrap();
        let next = body.bytes_after_bucket("by", &after).unwrap();
        assert_eq!(
            String::from_utf8(next).unwrap(),
            r#"{"aggs":{"by":{"composite":{"after":{"n": 0.30000000000000004},"sources":[],"size":1000},"#
                .to_owned()
                + r#""aggs":{"m":{"min":{"field":"n"}}}}},"size":0}"#
        );
        assert_eq!(body.bytes_after_bucket("max", &after), None);
        assert!(body.bytes_after_hit(Some(&after)).starts_with(br#"{"search_after":{"n": 0.3"#));
    }
}
