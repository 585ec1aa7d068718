use serde_json::json;

use super::super::recorded::{Case, answer, body, compare_but, config, done};
use super::*;

fn opsgenie() -> Opsgenie {
    Opsgenie::new(&config("{api_key: k3y-of-opsgenie}"))
}

#[test]
fn an_alert_is_clickdetects() {
    let differs = |_: &crate::alert::Alert, mut sent: Json| {
        if sent["source"] == "clickdetect" {
            sent["source"] = "watchpost".into();
        }
        sent
    };
    let with_verdict = [("opsgenie", "verdict"), ("opsgenie-all", "verdict")];
    compare_but("opsgenie", |yaml| Box::new(Opsgenie::new(&config(yaml))), &with_verdict, differs);
}

#[test]
fn each_band_has_a_priority() {
    let opsgenie = opsgenie();
    assert_eq!(
        [0, 20, 40, 60, 80, 100].map(|level| opsgenie.priority(level)),
        ["P5", "P4", "P3", "P2", "P1", "P1"]
    );
}

#[test]
fn what_passes_opsgenies_limits_is_cut() {
    let mut case = Case::new();
    let long = "ä".repeat(20_000);
    for field in ["name", "description", "id"] {
        case.alert.rule.insert(field.into(), long.as_str().into());
    }
    case.alert.rule.insert("tags".into(), vec!["t".repeat(60); 30].into());
    case.alert.detector.insert("name".into(), long.as_str().into());
    let sent = body(&case.compose(&opsgenie()));
    let length = |value: &Json| value.as_str().unwrap().chars().count();
    assert_eq!(length(&sent["message"]), 130);
    assert_eq!(length(&sent["alias"]), 512);
    assert_eq!(length(&sent["description"]), 15_000);
    let tags = sent["tags"].as_array().unwrap();
    assert_eq!((tags.len(), length(&tags[0])), (20, 50));
    let details: usize = sent["details"].as_object().unwrap().values().map(length).sum();
    assert!(details <= 8_000, "{details}");
}

#[test]
fn a_verdict_is_a_note_on_the_rules_alert() {
    let mut case = Case::new();
    case.triage = done();
    let first = body(&case.compose(&opsgenie()));
    case.alert.rule.insert("id".into(), "ssh/1 ü".into());
    case.is_update = true;
    case.receipt = Some("43a29c5c-3dbf-4fa4-9c26-f4f71023e120".into());
    let update = case.compose(&opsgenie());
    assert_eq!(update.method, "POST");
    assert_eq!(
        update.to.url.as_str(),
        "https://api.opsgenie.com/v2/alerts/ssh%2F1%20%C3%BC/notes?identifierType=alias"
    );
    assert_eq!(body(&update), json!({ "note": first["note"], "source": "watchpost" }));
    let note = first["note"].as_str().unwrap();
    assert!(
        note.starts_with(
            "Alert 00112233445566778899aabbccddeeff (2026-01-01T00:00:00Z to 2026-01-01T00:05:00Z)\n\nVerdict: "
        ),
        "{note}"
    );
}

#[test]
fn an_update_of_an_alert_that_never_arrived_is_the_alert() {
    let mut case = Case::new();
    case.triage = done();
    case.is_update = true;
    let update = case.compose(&opsgenie());
    assert_eq!(update.to.url.as_str(), "https://api.opsgenie.com/v2/alerts");
    assert_eq!(body(&update)["alias"], "ssh-1");
    assert!(body(&update)["note"].as_str().unwrap().contains("Verdict: "));
}

#[test]
fn answers_are_told_apart() {
    let opsgenie = opsgenie();
    let taken = answer(202, r#"{"result":"Request will be processed","took":0.302,"requestId":"43a29c5c"}"#);
    assert_eq!(opsgenie.judge(&taken), Meaning::Delivered);
    assert_eq!(opsgenie.receipt(&taken).as_deref(), Some("43a29c5c"));
    for (status, meaning) in [
        (422, Meaning::Refused),
        (401, Meaning::Refused),
        (429, Meaning::Later { after: None }),
        (503, Meaning::Later { after: None }),
    ] {
        assert_eq!(opsgenie.judge(&answer(status, "{}")), meaning, "{status}");
    }
    let count = answer(200, r#"{"data":{"count":7},"took":0.051,"requestId":"r"}"#);
    assert_eq!(opsgenie.probed(&[count]).unwrap(), "Opsgenie takes the key");
    let key = answer(422, r#"{"message":"Key format is not valid!","took":0.0,"requestId":"r"}"#);
    assert!(opsgenie.probed(&[key]).unwrap_err().starts_with("422: "));
    assert!(opsgenie.probed(&[answer(403, "")]).unwrap().contains("may not read"));
}

/// Opsgenie's own description of its API: each field is known there and of its type.
fn assert_fits(body: &Json, definition: &str) {
    let text = include_str!("../../../tests/data/opsgenie/openapi.json");
    let contract: Json = serde_json::from_str(text).unwrap();
    let mut known = serde_json::Map::new();
    let own = &contract["definitions"][definition];
    for part in [own].into_iter().chain(own["allOf"].as_array().into_iter().flatten()) {
        let name = part["$ref"].as_str().and_then(|path| path.rsplit('/').next());
        let part = name.map_or(part.clone(), |name| contract["definitions"][name].clone());
        known.extend(part["properties"].as_object().cloned().unwrap_or_default());
        for required in part["required"].as_array().into_iter().flatten() {
            assert!(body.get(required.as_str().unwrap()).is_some(), "{required} is missing");
        }
    }
    assert!(known.len() >= 3, "{definition}: {known:?}");
    for (field, value) in body.as_object().unwrap() {
        let rule = known.get(field).unwrap_or_else(|| panic!("Opsgenie knows no `{field}`"));
        let fits = match rule["type"].as_str().unwrap() {
            "string" => value.is_string(),
            "array" => value.as_array().unwrap().iter().all(Json::is_string),
            "object" => value.as_object().unwrap().values().all(Json::is_string),
            other => panic!("{other}"),
        };
        let allowed = rule["enum"].as_array().is_none_or(|values| values.contains(value));
        assert!(fits && allowed, "{field}: {value}");
    }
}

#[test]
fn alert_and_note_fit_opsgenies_own_description() {
    let mut case = Case::new();
    assert_fits(&body(&case.compose(&opsgenie())), "CreateAlertPayload");
    case.triage = done();
    assert_fits(&body(&case.compose(&opsgenie())), "CreateAlertPayload");
    case.is_update = true;
    case.receipt = Some("43a29c5c".into());
    assert_fits(&body(&case.compose(&opsgenie())), "AddNoteToAlertPayload");
}
