//! What an answer that is an error says, and why an answer is not whole.

use serde_json::Value;

/// The reason in the body of an error: `{"error": {"root_cause": [{"type", "reason"}], "type", "reason",
/// "caused_by"}}` or `{"error": "text"}`.
pub(super) fn said(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    match body.get("error")? {
        Value::String(text) => Some(text.clone()),
        // OpenSearch's SQL: `reason` is a heading, `details` says it.
        error @ Value::Object(_) => reason(error).map(|said| match text(error, "details") {
            Some(details) if !said.contains(details) => format!("{said}: {details}"),
            _ => said,
        }),
        _ => None,
    }
}

/// `TYPE: REASON`, and what lies deepest beneath where that says more. An outer `all shards failed` says nothing.
pub(super) fn reason(error: &Value) -> Option<String> {
    let root = error.pointer("/root_cause/0").unwrap_or(error);
    let mut said = match (text(root, "type"), text(root, "reason")) {
        (Some(kind), Some(reason)) => format!("{kind}: {reason}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => return None,
    };
    let shard = error.pointer("/failed_shards/0/reason");
    for error in [Some(error), Some(root), shard].into_iter().flatten() {
        let mut deepest = None;
        let mut cause = error.get("caused_by");
        while let Some(inner) = cause {
            deepest = text(inner, "reason").or(deepest);
            cause = inner.get("caused_by");
        }
        if let Some(deepest) = deepest.filter(|deepest| !said.contains(deepest)) {
            said.push_str(": ");
            said.push_str(deepest);
        }
    }
    Some(said)
}

fn text<'a>(error: &'a Value, name: &str) -> Option<&'a str> {
    error.get(name)?.as_str().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recorded(file: &str) -> String {
        let path = format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"));
        said(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn the_deepest_reason_is_said() {
        assert_eq!(
            recorded("elasticsearch/error_index.json"),
            "index_not_found_exception: no such index [nope]"
        );
        assert_eq!(
            recorded("elasticsearch/error_query.json"),
            "parsing_exception: unknown query [foo]: [1:19] unknown field [foo]"
        );
        assert_eq!(
            recorded("opensearch/error_number.json"),
            "query_shard_exception: failed to create query: For input string: \"abc\""
        );
        assert_eq!(
            recorded("opensearch/error_handler.json"),
            "no handler found for uri [/_plugins/_sql] and method [POST]"
        );
        assert_eq!(
            recorded("opensearch/error_sql.json"),
            "IndexNotFoundException: Error occurred in OpenSearch engine: no such index [nope]: [nope] \
             IndexNotFoundException[no such index [nope]]\nFor more details, please send request for Json format \
             to see the raw response from OpenSearch engine."
        );
        assert_eq!(
            recorded("elasticsearch/error_rejected.json"),
            "es_rejected_execution_exception: rejected execution of coordinating operation \
             [coordinating_and_primary_bytes=0, max_coordinating_and_primary_bytes=107374182]"
        );
    }

    #[test]
    fn what_is_no_error_of_the_store_says_nothing() {
        for body in ["", "<html>502</html>", "[]", "{}", r#"{"error": 5}"#, r#"{"error": {}}"#] {
            assert_eq!(said(body.as_bytes()), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(body in r#"(\{|\}|\[|\]|"error"|"reason"|"caused_by"|"root_cause"|:|,|"x"|1| ){0,30}"#) {
            said(body.as_bytes());
        }
    }
}
