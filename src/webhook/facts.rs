//! The fields of an alert as destinations with records of their own want them: tickets, incidents, pages.

use serde_json::{Map, Value};

use super::{ComposeError, Message, payload};
use crate::rule::template;
use crate::triage::Triage;

/// What clickdetect's senders take out of its default body.
pub(super) struct Facts<'a> {
    /// The rule's.
    pub(super) name: &'a str,
    /// The rule's, or empty.
    pub(super) description: &'a str,
    pub(super) tags: Vec<&'a str>,
    pub(super) level: u8,
    /// `len`, `value`, `datasource`, and `cut` where something was cut.
    pub(super) data: Map<String, Value>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(message: &Message<'a>) -> Self {
        let rule = &message.alert.rule;
        let tags = rule.get("tags").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        Self {
            name: message.alert.rule_name(),
            description: rule.get("description").and_then(Value::as_str).unwrap_or_default(),
            tags: tags.iter().filter_map(Value::as_str).collect(),
            level: message.alert.level(),
            data: payload::data(message.alert),
        }
    }

    pub(super) fn description_or_name(&self) -> &'a str {
        if self.description.is_empty() { self.name } else { self.description }
    }

    /// The data as Python's `json.dumps` writes it.
    pub(super) fn dumped(&self) -> Result<String, ComposeError> {
        template::json(&template::value(&self.data)).map_err(|error| ComposeError(error.to_string()))
    }
}

/// What triage has to say, as a text of a few lines; `None` where it says nothing yet or is not to be told.
pub(super) fn verdict(triage: &Triage) -> Option<String> {
    let verdict = match triage {
        Triage::Skipped | Triage::Pending | Triage::Blind => return None,
        Triage::Failed { reason } => return Some(format!("Triage failed: {reason}")),
        Triage::Judged { verdict } | Triage::Done { verdict } => verdict,
    };
    let mut lines = vec![
        format!("Verdict: {}", verdict.title),
        format!(
            "Severity: {} (confidence: {}%), risk score: {}%, false positive score: {}%",
            verdict.severity.as_str(),
            verdict.confidence,
            verdict.risk_score,
            verdict.false_positive_score
        ),
        String::new(),
        verdict.summary.clone(),
        String::new(),
        verdict.explanation.clone(),
        String::new(),
    ];
    if !verdict.affected_entities.is_empty() {
        lines.push(format!("Affected entities: {}", verdict.affected_entities.join(", ")));
    }
    lines.push("Mitigations:".into());
    lines.extend(verdict.mitigations.iter().map(|step| format!("- {step}")));
    if !verdict.recommended_action.is_empty() {
        lines.push(format!("Recommended action: {}", verdict.recommended_action));
    }
    Some(lines.join("\n"))
}

/// The first `max` characters of a text on one line, the last of them `…` where something was cut.
pub(super) fn clip(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::payload::tests::{alert, done};
    use super::*;

    #[test]
    fn a_verdict_is_a_few_lines() {
        insta::assert_snapshot!(verdict(&done()).unwrap(), @r"
        Verdict: Login loop against root
        Severity: High (confidence: 70%), risk score: 80%, false positive score: 5%

        203.0.113.9 failed 7 times as root.

        Guessing.

        Affected entities: root, 203.0.113.9
        Mitigations:
        - Block the address
        - Turn off password logins
        Recommended action: Block 203.0.113.9
        ");
        assert_eq!(
            verdict(&Triage::Failed { reason: "no model".into() }).unwrap(),
            "Triage failed: no model"
        );
        for silent in [Triage::Skipped, Triage::Pending, Triage::Blind] {
            assert_eq!(verdict(&silent), None);
        }
    }

    #[test]
    fn data_is_written_as_pythons_json_dumps_writes_it() {
        let mut alert = alert();
        alert.data.value[0].insert("user".into(), "Jörg \"x\" 🕵".into());
        let message = Message {
            alert: &alert,
            triage: &Triage::Skipped,
            is_update: false,
            idempotency_key: "k",
            receipt: None,
        };
        insta::assert_snapshot!(Facts::new(&message).dumped().unwrap(), @r#"{"len": 7, "value": [{"user": "J\u00f6rg \"x\" \ud83d\udd75", "ip": "203.0.113.9", "n": 7}], "datasource": "duckdb"}"#);
    }

    #[test]
    fn what_is_too_long_is_clipped_by_characters() {
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("äöüß", 3), "äö…");
    }
}
