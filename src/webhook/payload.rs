//! What a message says, as data: the default body, and the variables of templates.

use serde_json::{Map, Value, json};

use super::Message;
use crate::clock::Timestamp;
use crate::triage::{Triage, Verdict};

/// The default body: field for field what clickdetect 1.18.4 sends, with `clickagentic` once there is a verdict,
/// and, where triage is on for the alert, `triage` (`pending`, `done`, `failed`) and `triage_error`.
pub fn body(message: &Message<'_>) -> Map<String, Value> {
    let alert = message.alert;
    let mut body = Map::new();
    body.insert("rule".into(), Value::Object(alert.rule.clone()));
    let mut data = Map::new();
    data.insert("len".into(), alert.data.len.into());
    data.insert("value".into(), alert.data.value.iter().cloned().map(Value::Object).collect());
    data.insert("datasource".into(), alert.data.datasource.as_str().into());
    if let Some(cut) = &alert.data.cut {
        data.insert("cut".into(), cut.as_str().into());
    }
    body.insert("data".into(), Value::Object(data));
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

/// What a template sees: the default body's fields, `datasource`, and `alert` (`id`, `created_at`).
pub fn variables(message: &Message<'_>) -> Map<String, Value> {
    let mut variables = body(message);
    variables.insert("datasource".into(), Value::Object(message.alert.datasource.clone()));
    let alert = json!({ "id": message.alert.id, "created_at": message.alert.created_at.to_string() });
    variables.insert("alert".into(), alert);
    variables
}

/// clickagentic's fields, in its order; what the verdict cost stays here.
fn clickagentic(verdict: &Verdict) -> Value {
    json!({
        "title": verdict.title,
        "summary": verdict.summary,
        "severity": verdict.severity,
        "confidence": verdict.confidence,
        "false_positive_score": verdict.false_positive_score,
        "risk_score": verdict.risk_score,
        "explanation": verdict.explanation,
        "mitigations": verdict.mitigations,
        "affected_entities": verdict.affected_entities,
        "recommended_action": verdict.recommended_action,
    })
}

/// clickdetect's times are floats, also where they are whole.
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
