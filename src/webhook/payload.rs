//! What a message says, as data: the default body, and the variables of templates.

use serde_json::{Map, Value, json};

use super::Message;
use crate::alert::Alert;
use crate::clock::Timestamp;
use crate::triage::{Triage, clickagentic};

/// The default body: field for field what clickdetect 1.18.4 sends, with `clickagentic` once there is a verdict,
/// and, where triage is on for the alert, `triage` (`pending`, `judged`: the text is code's and the model's may follow,
/// `done`, `blind`: the verdict is not told, `failed`) and `triage_error`.
pub(super) fn body(message: &Message<'_>) -> Map<String, Value> {
    let alert = message.alert;
    let mut body = Map::new();
    body.insert("rule".into(), Value::Object(alert.rule.clone()));
    body.insert("data".into(), Value::Object(data(alert)));
    let mut detector = alert.detector.clone();
    if !detector.contains_key("datasource") {
        detector.insert("datasource".into(), Value::Object(alert.datasource.clone()));
    }
    body.insert("detector".into(), Value::Object(detector));
    let time = json!({ "startime": seconds(alert.window.start), "endtime": seconds(alert.window.end) });
    body.insert("time".into(), time);
    match message.triage {
        Triage::Skipped => {}
        Triage::Pending => {
            body.insert("triage".into(), "pending".into());
        }
        Triage::Blind => {
            body.insert("triage".into(), "blind".into());
        }
        Triage::Judged { verdict } => {
            body.insert("clickagentic".into(), clickagentic(verdict));
            body.insert("triage".into(), "judged".into());
        }
        Triage::Done { verdict } => {
            body.insert("clickagentic".into(), clickagentic(verdict));
            body.insert("triage".into(), "done".into());
        }
        Triage::Failed { reason } => {
            body.insert("triage".into(), "failed".into());
            body.insert("triage_error".into(), reason.as_str().into());
        }
    }
    body
}

/// The rows, as the default body carries them.
pub(super) fn data(alert: &Alert) -> Map<String, Value> {
    let mut data = Map::new();
    data.insert("len".into(), alert.data.len.into());
    data.insert("value".into(), alert.data.value.iter().cloned().map(Value::Object).collect());
    data.insert("datasource".into(), alert.data.datasource.as_str().into());
    if let Some(cut) = &alert.data.cut {
        data.insert("cut".into(), cut.as_str().into());
    }
    data
}

/// What a template sees: the default body's fields, `datasource`, and `alert` (`id`, `created_at`).
pub(super) fn variables(message: &Message<'_>) -> Map<String, Value> {
    let mut variables = body(message);
    variables.insert("datasource".into(), Value::Object(message.alert.datasource.clone()));
    let alert = json!({ "id": message.alert.id, "created_at": message.alert.created_at.to_string() });
    variables.insert("alert".into(), alert);
    variables
}

/// clickdetect's times are floats, also where they are whole.
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::alert::Data;
    use crate::clock::Window;
    use crate::triage::opinion::Opinion;
    use crate::triage::verdict::{Cost, Severity, Verdict};

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    pub(in crate::webhook) fn alert() -> Alert {
        Alert {
            id: "00112233445566778899aabbccddeeff".into(),
            rule: map(json!({
                "id": "ssh-1", "name": "SSH login loop", "level": 75, "size": ">0", "active": true, "rule": "SELECT 1",
                "author": ["Jo"], "group": "ssh", "tags": ["attack.t1110"], "data": {}, "description": "Many failures",
                "detector": {}, "path": "/rules/ssh.yml", "sigma": false,
            })),
            detector: map(json!({
                "name": "sshd", "for_time": "5m", "description": "", "rules": ["rules/*.yml"], "webhooks": ["soc"],
                "data": {}, "tenant": "default", "active": true,
                "datasource": {"type": "duckdb", "database": ":memory:"}, "sigma": false, "max_detector_time": null,
            })),
            datasource: map(json!({"type": "duckdb", "database": ":memory:"})),
            data: Data {
                len: 7,
                value: vec![map(json!({"user": "root", "ip": "203.0.113.9", "n": 7}))],
                datasource: "duckdb".into(),
                cut: None,
            },
            window: Window::from_seconds(1_767_225_600, 1_767_225_900).unwrap(),
            created_at: Timestamp::from_millisecond(1_767_225_901_250).unwrap(),
        }
    }

    pub(in crate::webhook) fn done() -> Triage {
        Triage::Done {
            verdict: Box::new(Verdict {
                title: "Login loop against root".into(),
                summary: "203.0.113.9 failed 7 times as root.".into(),
                severity: Severity::High,
                note: None,
                critical_asset: None,
                opinion: Opinion::default(),
                confidence: 70,
                false_positive_score: 5,
                risk_score: 80,
                explanation: "Guessing.".into(),
                mitigations: vec!["Block the address".into(), "Turn off password logins".into()],
                affected_entities: vec!["root".into(), "203.0.113.9".into()],
                recommended_action: "Block 203.0.113.9".into(),
                judgement: None,
                claims: Vec::new(),
                record: None,
                recommends: None,
                lowered: None,
                hostile_text: None,
                cost: Cost::default(),
            }),
        }
    }

    fn body_with(triage: &Triage) -> Map<String, Value> {
        body(&Message { alert: &alert(), triage, is_update: false, idempotency_key: "k", receipt: None })
    }

    #[test]
    fn without_triage_the_body_is_clickdetects_to_the_field() {
        insta::assert_snapshot!(Value::Object(body_with(&Triage::Skipped)), @r#"{"rule":{"id":"ssh-1","name":"SSH login loop","level":75,"size":">0","active":true,"rule":"SELECT 1","author":["Jo"],"group":"ssh","tags":["attack.t1110"],"data":{},"description":"Many failures","detector":{},"path":"/rules/ssh.yml","sigma":false},"data":{"len":7,"value":[{"user":"root","ip":"203.0.113.9","n":7}],"datasource":"duckdb"},"detector":{"name":"sshd","for_time":"5m","description":"","rules":["rules/*.yml"],"webhooks":["soc"],"data":{},"tenant":"default","active":true,"datasource":{"type":"duckdb","database":":memory:"},"sigma":false,"max_detector_time":null},"time":{"startime":1767225600.0,"endtime":1767225900.0}}"#);
    }

    #[test]
    fn a_verdict_adds_clickagentics_fields_and_no_others() {
        let body = body_with(&done());
        let keys: Vec<_> = body.keys().collect();
        assert_eq!(keys, ["rule", "data", "detector", "time", "clickagentic", "triage"]);
        assert_eq!(body["triage"], "done");
        insta::assert_snapshot!(body["clickagentic"], @r#"{"title":"Login loop against root","summary":"203.0.113.9 failed 7 times as root.","severity":"High","confidence":70,"false_positive_score":5,"risk_score":80,"explanation":"Guessing.","mitigations":["Block the address","Turn off password logins"],"affected_entities":["root","203.0.113.9"],"recommended_action":"Block 203.0.113.9"}"#);
    }

    #[test]
    fn pending_judged_blind_and_failed_triage_are_said() {
        let pending = body_with(&Triage::Pending);
        assert_eq!((pending.get("triage"), pending.get("clickagentic")), (Some(&json!("pending")), None));
        let blind = body_with(&Triage::Blind);
        assert_eq!((blind.get("triage"), blind.get("clickagentic")), (Some(&json!("blind")), None));
        let Triage::Done { verdict } = done() else { unreachable!("it is done") };
        let judged = body_with(&Triage::Judged { verdict });
        assert_eq!(judged["triage"], "judged");
        assert_eq!(judged["clickagentic"], body_with(&done())["clickagentic"]);
        let failed = body_with(&Triage::Failed { reason: "no model".into() });
        assert_eq!((&failed["triage"], &failed["triage_error"]), (&json!("failed"), &json!("no model")));
    }

    #[test]
    fn what_was_cut_is_said() {
        let mut alert = alert();
        alert.data.cut = Some("kept 1 of 7 rows".into());
        let message = Message {
            alert: &alert,
            triage: &Triage::Skipped,
            is_update: false,
            idempotency_key: "k",
            receipt: None,
        };
        assert_eq!(body(&message)["data"]["cut"], "kept 1 of 7 rows");
    }
}
