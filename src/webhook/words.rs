//! The text of an alert, for destinations that people read: clickdetect's template, or the operator's.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use super::template::{Escape, Style, Template};
use super::{ComposeError, Message, payload};
use crate::text;
use crate::triage::{Triage, clickagentic};

/// A text template and how its destination wants values.
#[derive(Debug)]
pub(super) struct Words {
    template: Template,
    escape: Escape,
}

impl Words {
    /// `source` is the operator's template, `None` is [`TEMPLATE`]. Fails where it is none.
    pub(super) fn new(source: Option<&str>, escape: Escape) -> Result<Self, ComposeError> {
        let template =
            Template::new(source.unwrap_or(TEMPLATE), Style::Text(escape)).map_err(ComposeError)?;
        Ok(Self { template, escape })
    }

    /// The text of `message`.
    pub(super) fn of(&self, message: &Message<'_>) -> Result<String, ComposeError> {
        let bytes = self.template.render(&payload::variables(message)).map_err(ComposeError)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The text of `message` where it cannot change an earlier message: an update then says first what it belongs to.
    pub(super) fn standing(&self, message: &Message<'_>) -> Result<String, ComposeError> {
        let text = self.of(message)?;
        if !message.is_update || message.receipt.is_some() {
            return Ok(text);
        }
        Ok(format!("{}\n{text}", (self.escape)(&belongs(message))))
    }
}

/// Which alert an update is about.
pub(super) fn belongs(message: &Message<'_>) -> String {
    let alert = message.alert;
    format!(
        "[UPDATE] What triage says of the alert `{}` of {} to {} ({})",
        text::escape_within(alert.rule_name(), 200),
        alert.window.start,
        alert.window.end,
        alert.id
    )
}

/// Whether more may follow this message, so that it is worth knowing where the destination put it.
pub(super) fn is_early(message: &Message<'_>) -> bool {
    matches!(message.triage, Triage::Pending | Triage::Judged { .. })
}

/// Whether what was found, or what triage says of it, holds a link that a chat would fetch to show what is behind it.
pub(super) fn holds_link(message: &Message<'_>) -> bool {
    any_text(message, |text| text.contains("://") || text.contains("www."))
}

/// Whether `holds` is true of any text in the rows or in what triage says of them.
pub(super) fn any_text(message: &Message<'_>, holds: impl Fn(&str) -> bool) -> bool {
    let verdict = match message.triage {
        Triage::Judged { verdict } | Triage::Done { verdict } => Some(clickagentic(verdict)),
        _ => None,
    };
    let mut left: Vec<&Json> =
        message.alert.data.value.iter().flat_map(Map::values).chain(&verdict).collect();
    while let Some(value) = left.pop() {
        match value {
            Json::String(text) if holds(text) => return true,
            Json::Array(items) => left.extend(items),
            Json::Object(fields) => left.extend(fields.values()),
            _ => {}
        }
    }
    false
}

/// `text` with a mark without width at each place that `place` finds in what is left of it, so that it reads as before
/// and what stood there is no mention and no link any more.
pub(super) fn broken(text: Cow<'_, str>, place: impl Fn(&str) -> Option<usize>) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest: &str = &text;
    while let Some(at) = place(rest) {
        out.push_str(&rest[..at]);
        out.push(WITHOUT_WIDTH);
        rest = &rest[at..];
    }
    if out.is_empty() {
        return text;
    }
    out.push_str(rest);
    out.into()
}

/// U+200B. What log text itself brings of it is shown as `\u{200b}`.
const WITHOUT_WIDTH: char = '\u{200b}';

/// `text` within `max` units of `length`, e.g. characters or UTF-16 units; what is cut is said at the end.
pub(super) fn within(text: &str, max: usize, length: fn(char) -> usize) -> String {
    if text.chars().map(length).sum::<usize>() <= max {
        return text.to_owned();
    }
    let room = max.saturating_sub(CUT.chars().map(length).sum());
    let mut used = 0;
    let kept = text.chars().take_while(|character| {
        used += length(*character);
        used <= room
    });
    kept.chain(CUT.chars()).collect()
}

const CUT: &str = "\n… (cut: see `watchpost alerts`)";

/// clickdetect 1.18.4's text, word for word.
const TEMPLATE: &str = r#"
[ALERT] {{ rule.name }}
{% if rule.description %}
{{ rule.description }}
{% endif %}
Rule ID: {{ rule.id }}
Level: {{ rule.level }}
Group: {{ rule.group or "-" }}
Tags: {{ rule.tags | to_list or "-" }}
Author: {{ rule.author | to_list or "-" }}
Detector: {{ detector.name }} (tenant: {{ detector.tenant }})
Interval: {{ detector.for_time }}
Matches: {{ data.len }}
Results: {{ data.value }}
{% if clickagentic is defined %}
--- clickagentic
## plugin - Clickagentic
Title: {{ clickagentic.title }}
Summary: {{ clickagentic.summary }}
Severity: {{ clickagentic.severity }} (confidence: {{ clickagentic.confidence }}%)
Risk Score: {{ clickagentic.risk_score }}%
False Positive Score: {{ clickagentic.false_positive_score }}%
Explanation: {{ clickagentic.explanation }}
{% if clickagentic.affected_entities %}Affected Entities:
{% for e in clickagentic.affected_entities %}- {{ e }}
{% endfor %}{% endif %}Mitigations:
{% for m in clickagentic.mitigations %}- {{ m }}
{% endfor %}{% if clickagentic.recommended_action %}Recommended Action: {{ clickagentic.recommended_action }}
{% endif %}{% endif %}"#;

#[cfg(test)]
mod tests {
    use super::super::payload::tests::{alert, done};
    use super::super::template::plain;
    use super::*;
    use crate::triage::Triage;

    fn text(triage: &Triage) -> String {
        let message =
            Message { alert: &alert(), triage, is_update: false, idempotency_key: "k", receipt: None };
        Words::new(None, plain).unwrap().of(&message).unwrap()
    }

    #[test]
    fn the_text_is_clickdetects() {
        insta::assert_snapshot!(text(&Triage::Skipped), @r"

        [ALERT] SSH login loop

        Many failures

        Rule ID: ssh-1
        Level: 75
        Group: ssh
        Tags: attack.t1110
        Author: Jo
        Detector: sshd (tenant: default)
        Interval: 5m
        Matches: 7
        Results: [{'user': 'root', 'ip': '203.0.113.9', 'n': 7}]
        ");
    }

    #[test]
    fn a_verdict_is_told_in_clickagentics_words() {
        let text = text(&done());
        let verdict = text.split_once("--- clickagentic").unwrap().1;
        insta::assert_snapshot!(verdict, @r"

        ## plugin - Clickagentic
        Title: Login loop against root
        Summary: 203.0.113.9 failed 7 times as root.
        Severity: High (confidence: 70%)
        Risk Score: 80%
        False Positive Score: 5%
        Explanation: Guessing.
        Affected Entities:
        - root
        - 203.0.113.9
        Mitigations:
        - Block the address
        - Turn off password logins
        Recommended Action: Block 203.0.113.9
        ");
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = "ä".repeat(3_000);
        let cut = within(&long, 2_000, |_| 1);
        assert_eq!(cut.chars().count(), 2_000);
        assert!(cut.ends_with("… (cut: see `watchpost alerts`)"), "{cut}");
        assert_eq!(within(&long, 3_000, |_| 1), long);
    }
}
