use super::super::recorded::{Case, answer, body, compare_but, config, done, refused, told};
use super::*;

fn manager(settings: &str) -> Alertmanager {
    Alertmanager::new(&config(&format!("{{url: http://manager.example:9093/am/, {settings}}}")))
}

#[test]
fn an_alert_is_clickdetects() {
    let differs = |_: &crate::alert::Alert, mut sent: Json| {
        if sent[0]["labels"]["source"] == "clickdetect" {
            sent[0]["labels"]["source"] = "watchpost".into();
        }
        sent
    };
    let with_verdict = [("alertmanager", "verdict"), ("alertmanager-all", "verdict")];
    let build = |yaml: &str| Box::new(Alertmanager::new(&config(yaml))) as Box<dyn Webhook>;
    compare_but("alertmanager", build, &with_verdict, differs);
}

#[test]
fn a_verdict_is_one_more_annotation_of_the_same_alert() {
    let manager = manager("");
    let mut case = Case::new();
    let first = case.compose(&manager);
    case.triage = done();
    case.is_update = true;
    let update = case.compose(&manager);
    assert_eq!((update.method, &update.to), (first.method, &first.to));
    let (first, mut update) = (body(&first), body(&update));
    let verdict = update[0]["annotations"].as_object_mut().unwrap().remove("verdict").unwrap();
    assert!(verdict.as_str().unwrap().starts_with("Verdict: Login loop against root\n"), "{verdict}");
    assert_eq!(first, update);
}

#[test]
fn labels_are_texts_as_python_writes_them_and_empty_ones_are_none() {
    let labels = "labels: {a: yes, b: 1.50, c: 010, d: , e: '', group: '', source: clickdetect, f: [x, 1]}";
    let sent = body(&Case::new().compose(&manager(labels)));
    insta::assert_snapshot!(sent[0]["labels"], @r#"{"a":"True","alertname":"SSH login loop","b":"1.5","c":"8","detector":"sshd","f":"['x', 1]","level":"75","rule_id":"ssh-1","severity":"high","source":"clickdetect","tenant":"default"}"#);
}

#[test]
fn an_alert_ends_when_it_is_told_to() {
    let at = |settings: &str, field: &str| body(&Case::new().compose(&manager(settings)))[0][field].clone();
    assert_eq!(at("", "startsAt"), "2026-01-01T00:00:00+00:00");
    assert_eq!(at("", "endsAt"), Json::Null);
    assert_eq!(at("expire_after: 90", "endsAt"), "2026-01-01T00:01:30+00:00");
    assert_eq!(at("", "generatorURL"), Json::Null);
    assert_eq!(at("generator_url: https://w.example", "generatorURL"), "https://w.example");
    assert_eq!(iso(Timestamp::from_millisecond(1_500).unwrap()), "1970-01-01T00:00:01.500000+00:00");
}

#[test]
fn a_label_that_old_alertmanagers_refuse_is_warned_of() {
    let problems = told::<Config>("{url: http://m.example, labels: {team-name: soc}}");
    assert!(problems.starts_with("labels: Alertmanager before 0.27 refuses"), "{problems}");
    assert_eq!(
        refused::<Config>("{url: http://m.example, labels: soc}"),
        "labels: `soc` is not a map of `name: value` lines"
    );
}

#[test]
fn answers_are_told_apart() {
    let manager = manager("");
    assert_eq!(manager.judge(&answer(200, "")), Meaning::Delivered);
    assert_eq!(manager.judge(&answer(400, "\"bad labels\"")), Meaning::Refused);
    assert_eq!(manager.judge(&answer(200, "<html>")), Meaning::Later { after: None });
    let status = answer(200, r#"{"cluster":{"status":"disabled"},"versionInfo":{"version":"0.25.0"}}"#);
    assert_eq!(manager.probed(&[status]).unwrap(), "Alertmanager 0.25.0");
    assert!(manager.probed(&[answer(200, "{}")]).is_err());
    assert!(manager.probed(&[answer(404, "no")]).is_err());
}
