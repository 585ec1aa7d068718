//! OpenSearch PPL, against a fake that says what the documentation says.

use std::time::Duration;

use serde_json::{Value, json};
use watchpost::datasource::QueryError;

use crate::datasources_http::{BASIC, ask, build, problems, row};
use crate::fake::{Fake, Reply};

#[tokio::test]
async fn an_alias_is_a_columns_name_and_the_size_is_the_count() {
    let query = "source=wazuh-alerts-* | where `rule.id` = '502' | fields agent.name, \"é\"";
    let fake = Fake::start(move |asked| {
        assert_eq!(asked.line(), "POST /search/_plugins/_ppl");
        assert_eq!(asked.header("authorization"), Some(BASIC));
        assert_eq!(asked.json(), json!({"query": query}));
        Reply::json(
            200,
            &json!({"schema": [{"name": "agent.name", "alias": "agent", "type": "string"}], "datarows": [["a"], [null]],
                "total": 2, "size": 2}),
        )
    });
    let yaml =
        format!("{{type: opensearch-ppl, url: '{}/search', username: ana, password: s3cret}}", fake.url());
    let found = ask(build(&yaml).as_ref(), query).await.unwrap();
    assert_eq!(
        (found.count, row(&found, 0), row(&found, 1)),
        (2, json!({"agent": "a"}), json!({"agent": null}))
    );
}

#[tokio::test]
async fn the_servers_message_is_told_with_its_class() {
    let syntax = json!({"error": {"reason": "Invalid Query", "details": "Failed to parse query due to offending symbol [x]",
        "type": "SyntaxCheckException"}, "status": 400});
    let index = json!({"error": {"reason": "Error occurred in OpenSearch engine: no such index [a]",
        "details": "[a] IndexNotFoundException[no such index [a]]", "type": "IndexNotFoundException"}, "status": 404});
    let inside = json!({"error": {"reason": "There was internal problem at backend", "details": "null",
        "type": "NullPointerException"}, "status": 500});
    let denied = json!({"error": {"root_cause": [], "type": "security_exception",
        "reason": "no permissions for [indices:data/read/search]"}, "status": 403});
    let said = |status: u16, body: Value| async move {
        let fake = Fake::start(move |_| Reply::json(status, &body));
        ask(build(&format!("{{type: opensearch-ppl, url: '{}'}}", fake.url())).as_ref(), "x")
            .await
            .unwrap_err()
    };
    let error = said(400, syntax).await;
    assert!(
        matches!(&error, QueryError::Refused(text) if text == "HTTP 400: SyntaxCheckException: Invalid Query: Failed to \
            parse query due to offending symbol [x]"),
        "{error:?}"
    );
    assert!(
        matches!(said(404, index).await, QueryError::Refused(text) if text.contains("no such index [a]"))
    );
    assert!(
        matches!(said(500, inside).await, QueryError::Unavailable(text) if text.contains("NullPointerException"))
    );
    assert!(
        matches!(said(403, denied).await, QueryError::Denied(text) if text.contains("no permissions for"))
    );
}

#[tokio::test]
async fn a_probe_tells_the_version() {
    let fake = Fake::start(|asked| {
        assert_eq!(asked.line(), "GET /");
        Reply::json(200, &json!({"version": {"distribution": "opensearch", "number": "2.19.1"}}))
    });
    let ppl = build(&format!("{{type: opensearch-ppl, url: '{}'}}", fake.url()));
    assert_eq!(ppl.probe(Duration::from_secs(10)).await.unwrap(), "OpenSearch 2.19.1");
}

#[test]
fn settings_that_cannot_work_are_refused_with_their_place() {
    insta::assert_snapshot!(problems("type: opensearch-ppl\nindex: logs\n"), @r"
    runner.yml:2:1: unknown key `index`; known are `url`, `size_limit`, `username`, `password`, `verify`, `ca`
    runner.yml:1:1: the key `url` (address) is missing
    ");
}
