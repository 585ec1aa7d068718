use serde_json::json;

use super::super::recorded::{Case, answer, body, compare_but, config, done, refused};
use super::*;
use crate::triage::Triage;

const SETTINGS: &str = "{url: https://thehive.example, api_key: k3y-of-thehive}";

fn hive() -> TheHive {
    TheHive::new(&config(SETTINGS))
}

#[test]
fn an_alert_is_clickdetects_but_for_its_reference() {
    let differs = |alert: &crate::alert::Alert, mut sent: Json| {
        sent["sourceRef"] = alert.id.as_str().into();
        if sent["source"] == "clickdetect" {
            sent["source"] = "watchpost".into();
        }
        sent
    };
    let with_verdict = [("thehive", "verdict"), ("thehive-all", "verdict")];
    compare_but("thehive", |yaml| Box::new(TheHive::new(&config(yaml))), &with_verdict, differs);
}

#[test]
fn each_band_has_a_severity_of_1_to_4() {
    let hive = hive();
    assert_eq!([0, 19, 20, 40, 60, 80, 100].map(|level| hive.severity(level)), [1, 1, 1, 2, 3, 4, 4]);
}

#[test]
fn a_verdict_comes_with_the_description_and_later_by_a_patch_of_it() {
    let mut case = Case::new();
    case.triage = done();
    let first = case.compose(&hive());
    let description = body(&first)["description"].as_str().unwrap().to_owned();
    assert!(description.starts_with("Many failures\n\nVerdict: Login loop against root\n"), "{description}");
    case.is_update = true;
    case.receipt = Some("~40 96/x".into());
    let update = case.compose(&hive());
    assert_eq!(update.method, "PATCH");
    assert_eq!(update.to.url.as_str(), "https://thehive.example/api/v1/alert/~40%2096%2Fx");
    assert_eq!(body(&update), json!({ "description": description }));
}

#[test]
fn an_update_of_an_alert_that_is_not_known_is_an_alert_of_its_own() {
    let mut case = Case::new();
    case.triage = done();
    case.is_update = true;
    let update = case.compose(&hive());
    assert_eq!((update.method, update.to.url.as_str()), ("POST", "https://thehive.example/api/v1/alert"));
    assert_eq!(body(&update)["sourceRef"], "00112233445566778899aabbccddeeff-update");
}

#[test]
fn log_text_is_no_markdown_to_thehive() {
    let image = "![x](http://evil.example/p.png) <img src=http://evil.example/p.png>";
    let mut case = Case::with_user(image);
    let Triage::Done { mut verdict } = done() else { unreachable!("`done` is done") };
    verdict.summary = format!("@admin {image}");
    case.triage = Triage::Done { verdict };
    let sent = body(&case.compose(&hive()));
    for field in ["description", "summary"] {
        let text = sent[field].as_str().unwrap();
        assert!(!text.contains("](") && !text.contains(" <img"), "{text}");
    }
    let summary: Json = serde_json::from_str(sent["summary"].as_str().unwrap()).unwrap();
    assert_eq!(summary["value"][0]["user"], image);
}

#[test]
fn a_long_title_is_clipped() {
    let mut case = Case::new();
    case.alert.rule.insert("name".into(), "ä".repeat(600).into());
    let title = body(&case.compose(&hive()))["title"].as_str().unwrap().to_owned();
    assert_eq!(title.chars().count(), 512);
}

#[test]
fn an_alert_that_is_there_already_is_delivered() {
    let already =
        r#"{"type":"CreateError","message":"Alert thehive:watchpost:00 already exist in organisation SOC"}"#;
    let hive = hive();
    assert_eq!(hive.judge(&answer(400, already)), Meaning::Delivered);
    assert_eq!(hive.receipt(&answer(400, already)), None);
    assert_eq!(
        hive.judge(&answer(400, r#"{"type":"BadRequest","message":"missing title"}"#)),
        Meaning::Refused
    );
    assert_eq!(hive.judge(&answer(401, "{}")), Meaning::Refused);
    assert_eq!(hive.judge(&answer(429, "")), Meaning::Later { after: None });
    assert_eq!(hive.judge(&answer(200, " <!DOCTYPE html><title>Log in")), Meaning::Later { after: None });
    assert_eq!(hive.judge(&answer(201, r#"{"_id":"~4096"}"#)), Meaning::Delivered);
    assert_eq!(hive.receipt(&answer(201, r#"{"_id":"~4096"}"#)).as_deref(), Some("~4096"));
    assert_eq!(hive.receipt(&answer(201, "rubbish")), None);
}

#[test]
fn a_probe_says_version_and_login_and_finds_a_wrong_key() {
    let hive = hive();
    let status = answer(200, r#"{"versions":{"TheHive":"5.4.2"}}"#);
    let user = answer(200, r#"{"_id":"~1","login":"watchpost@soc"}"#);
    assert_eq!(hive.probed(&[status.clone(), user.clone()]).unwrap(), "TheHive 5.4.2, as watchpost@soc");
    assert_eq!(
        hive.probed(&[answer(404, ""), user]).unwrap(),
        "TheHive of an unknown version, as watchpost@soc"
    );
    let wrong = answer(401, r#"{"message":"Authentication failure"}"#);
    let error = hive.probed(&[status.clone(), wrong]).unwrap_err();
    assert_eq!(error, r#"it does not take the key: 401: {"message":"Authentication failure"}"#);
    assert_eq!(
        hive.probed(&[status, answer(200, "<html>")]).unwrap_err(),
        "what answers there is not TheHive"
    );
    assert_eq!(hive.probe().len(), 2);
}

#[test]
fn levels_of_the_protocols_are_0_to_4() {
    let problems = refused::<Config>("{url: https://thehive.example, api_key: k, tlp: 5, pap: red}");
    assert_eq!(problems, "tlp: `5` is not a level from 0 to 4\npap: `red` is not a whole number, 0 or more");
}
