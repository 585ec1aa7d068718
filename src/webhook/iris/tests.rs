use serde_json::{Map, json};

use super::super::recorded::{Case, answer, body, compare_but, config, done};
use super::*;

const SETTINGS: &str = "{url: https://iris.example, api_key: k3y-of-iris, customer_id: 1}";

/// The body of what a real IRIS 2.4.20 answered.
fn recorded(name: &str) -> Answer {
    let path = format!("{}/tests/data/iris/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let (head, body) =
        text.replace("\r\n", "\n").split_once("\n\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let status = head.lines().nth(1).unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    answer(status, body.trim())
}

/// Its lists of types are not recorded: entries as its source makes them.
const IOC_TYPES: &str = r#"{"status":"success","message":"","data":[
    {"type_id":76,"type_name":"ip-any","type_description":"","type_taxonomy":null,"type_validation_regex":null,"type_validation_expect":null},
    {"type_id":90,"type_name":"md5","type_description":"","type_taxonomy":null,"type_validation_regex":"[a-f0-9]{32}","type_validation_expect":"32 hexadecimal characters"},
    {"type_id":20,"type_name":"domain","type_description":"","type_taxonomy":null,"type_validation_regex":"never","type_validation_expect":null}]}"#;
const ASSET_TYPES: &str = r#"{"status":"success","message":"","data":[
    {"asset_id":1,"asset_name":"Account","asset_description":"Generic Account"},
    {"asset_id":3,"asset_name":"Linux - Server","asset_description":"Linux server"}]}"#;

fn prepared(settings: &str) -> Iris {
    let iris = Iris::new(&config(settings));
    let lists =
        [recorded("severities"), recorded("statuses"), answer(200, IOC_TYPES), answer(200, ASSET_TYPES)];
    for list in lists {
        assert!(iris.preparation().is_some());
        iris.prepared(&list).unwrap();
    }
    assert!(iris.preparation().is_none());
    iris
}

#[test]
fn an_alert_is_clickdetects_but_for_what_iris_refuses() {
    let names = |sent: &Json| match sent["alert_severity_id"].as_i64().unwrap() {
        1 => 3,
        2 => 4,
        3 => 1,
        4 => 5,
        5 => 6,
        other => panic!("{other}"),
    };
    let differs = |alert: &crate::alert::Alert, mut sent: Json| {
        sent["alert_source_event_time"] = "2026-01-01T00:00:00.000000".into();
        sent["alert_severity_id"] = names(&sent).into();
        sent["alert_source"] = "duckdb".into();
        sent["alert_source_ref"] = alert.id.as_str().into();
        sent
    };
    // Without types of IOCs and assets none are sent.
    let build = |yaml: &str| {
        let iris = Iris::new(&config(yaml));
        for list in ["severities", "statuses"] {
            iris.prepared(&recorded(list)).unwrap();
        }
        Box::new(iris) as Box<dyn Webhook>
    };
    compare_but("iris", build, &[("iris", "verdict"), ("iris-all", "verdict")], differs);
}

#[test]
fn lists_are_asked_for_in_turn_and_told_apart_by_what_they_hold() {
    let iris = Iris::new(&config(SETTINGS));
    let mut asked = Vec::new();
    for list in
        [recorded("severities"), recorded("statuses"), answer(200, IOC_TYPES), answer(200, ASSET_TYPES)]
    {
        let request = iris.preparation().unwrap();
        asked.push(format!("{} {}", request.method, request.to.url.as_str()));
        iris.prepared(&list).unwrap();
        // Two messages at a time ask twice.
        iris.prepared(&list).unwrap();
    }
    assert_eq!(
        asked,
        [
            "GET https://iris.example/manage/severities/list",
            "GET https://iris.example/manage/alert-status/list",
            "GET https://iris.example/manage/ioc-types/list",
            "GET https://iris.example/manage/asset-type/list",
        ]
    );
    for rubbish in ["<html>", "{}", r#"{"status":"success","data":[]}"#, r#"{"data":[{"id":1}]}"#] {
        let error = iris.prepared(&answer(200, rubbish)).unwrap_err();
        assert!(error.starts_with("what answers there is not DFIR-IRIS: "), "{error}");
    }
}

#[test]
fn an_iris_without_lists_of_types_gets_alerts_without_iocs() {
    let iris = Iris::new(&config(SETTINGS));
    let severities = iris.preparation().unwrap();
    assert!(!iris.forgoes(&severities, &answer(404, "")), "no alert goes without a severity");
    iris.prepared(&recorded("severities")).unwrap();
    while let Some(asked) = iris.preparation() {
        assert!(!iris.forgoes(&asked, &answer(401, "")));
        assert!(!iris.forgoes(&asked, &answer(500, "")));
        assert!(iris.forgoes(&asked, &answer(404, "")));
    }
    let sent = body(&Case::new().compose(&iris));
    assert_eq!((&sent["alert_severity_id"], &sent["alert_status_id"]), (&json!(5), &json!(2)));
    assert_eq!((&sent["alert_iocs"], &sent["alert_assets"]), (&Json::Null, &Json::Null));
}

#[test]
fn severities_go_by_name_and_ids_may_be_any() {
    let iris = prepared(SETTINGS);
    let id = |level| iris.severity(level).unwrap();
    assert_eq!([0, 20, 40, 60, 80].map(id), [3, 4, 1, 5, 6]);
    let own = r#"{"data":[{"severity_id":70,"severity_name":"unspecified"},{"severity_id":71,"severity_name":"CRITICAL"}]}"#;
    iris.prepared(&answer(200, own)).unwrap();
    assert_eq!([0, 80].map(|level| iris.severity(level).unwrap()), [70, 71]);
    iris.prepared(&answer(200, r#"{"data":[{"severity_id":1,"severity_name":"P1"}]}"#)).unwrap();
    assert_eq!(
        iris.severity(80).unwrap_err().to_string(),
        "DFIR-IRIS has no severity `critical`, nor `unspecified`"
    );
}

#[test]
fn what_rows_name_comes_as_iocs_and_assets() {
    let iris = prepared(SETTINGS);
    let mut case = Case::new();
    let row = json!({
        "user": "root", "src_ip": "203.0.113.9", "dst_ip": "10.0.0.6", "host": "web-1",
        "hash": "d41d8cd98f00b204e9800998ecf8427e", "domain": "evil.example",
    });
    case.alert.data.value = vec![row.as_object().unwrap().clone()];
    let sent = body(&case.compose(&iris));
    let told = |field: &str, name: &str, kind: &str| -> Vec<String> {
        let found = sent[field].as_array().unwrap().iter();
        found.map(|one| format!("{} {}", one[kind], one[name].as_str().unwrap())).collect()
    };
    assert_eq!(
        told("alert_iocs", "ioc_value", "ioc_type_id"),
        ["76 203.0.113.9", "90 d41d8cd98f00b204e9800998ecf8427e"],
        "a domain does not fit what this IRIS takes for one"
    );
    assert_eq!(told("alert_assets", "asset_name", "asset_type_id"), ["1 root", "3 10.0.0.6", "3 web-1"]);
    insta::assert_snapshot!(sent["alert_iocs"][0], @r#"{"ioc_value":"203.0.113.9","ioc_description":"from column src_ip","ioc_tlp_id":2,"ioc_type_id":76,"ioc_tags":""}"#);
    insta::assert_snapshot!(sent["alert_assets"][1], @r#"{"asset_name":"10.0.0.6","asset_type_id":3,"asset_description":"from column dst_ip","asset_ip":"10.0.0.6","asset_domain":"","asset_tags":""}"#);
}

#[test]
fn a_verdict_is_the_note_and_a_later_one_changes_it() {
    let iris = prepared(SETTINGS);
    let mut case = Case::new();
    case.triage = done();
    let first = body(&case.compose(&iris));
    assert!(first["alert_note"].as_str().unwrap().starts_with("Verdict: Login loop against root\n"));
    case.is_update = true;
    case.receipt = iris.receipt(&recorded("alert_add"));
    assert_eq!(case.receipt.as_deref(), Some("3"));
    let update = case.compose(&iris);
    assert_eq!((update.method, update.to.url.as_str()), ("POST", "https://iris.example/alerts/update/3"));
    assert_eq!(body(&update), json!({ "alert_note": first["alert_note"], "alert_owner_id": -1 }));
    case.receipt = None;
    assert_eq!(case.compose(&iris).to.url.as_str(), "https://iris.example/alerts/add");
}

#[test]
fn a_source_is_never_empty() {
    let iris = prepared(SETTINGS);
    let mut case = Case::new();
    let source = |case: &Case| body(&case.compose(&iris))["alert_source"].clone();
    case.alert.datasource.insert("name".into(), "logs of the edge".into());
    assert_eq!(source(&case), "logs of the edge");
    case.alert.datasource = Map::new();
    assert_eq!(source(&case), "duckdb");
    case.alert.data.datasource = String::new();
    assert_eq!(source(&case), "watchpost");
}

#[test]
fn real_answers_are_told_apart() {
    let iris = prepared(SETTINGS);
    assert_eq!(iris.judge(&recorded("alert_add")), Meaning::Delivered);
    assert_eq!(iris.judge(&recorded("alert_badkey")), Meaning::Refused);
    assert!(iris.preparation().is_none());
    for refusal in ["alert_bad_customer", "alert_empty_time", "alert_missing", "alert_time_dict"] {
        assert_eq!(iris.judge(&recorded(refusal)), Meaning::Refused, "{refusal}");
    }
    assert!(iris.preparation().is_some(), "after a refusal ids are looked up again");
    assert_eq!(iris.judge(&answer(200, r#"{"status":"error","message":"no","data":[]}"#)), Meaning::Refused);
    assert_eq!(iris.judge(&answer(200, "<html>")), Meaning::Later { after: None });
    assert_eq!(iris.probed(&[recorded("versions")]).unwrap(), "DFIR-IRIS v2.4.20");
    assert!(iris.probed(&[recorded("ping")]).is_err());
    assert!(iris.probed(&[recorded("alert_badkey")]).unwrap_err().starts_with("401: "));
}
