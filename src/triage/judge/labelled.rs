//! Labelled alerts from a file, for `watchpost eval`: one JSON object a line with `alert` and `label`, and optionally `id`,
//! `source`, `family`, `scenario` and `severity`.
//!
//! `alert` is one of ours (`watchpost alerts --json`), or anything else: then the rule's name is looked for in the places where
//! common tools put it, and all the rest is one row. `alert.context`, as in AIT's alert data, is read as [`History`].

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::alert::{Alert, Data, identity};
use crate::clock::{Timestamp, Window};
use crate::triage::history::{Around, Counts, Entity, History};

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Labelled {
    pub alert: Alert,
    /// What the file says of earlier alerts; what it does not say is counted over the file.
    pub history: Option<History>,
    pub is_threat: bool,
    pub source: String,
    pub family: String,
    /// The site it came from, where several are in one file: nobody knows the others' past.
    pub scenario: String,
    pub time: Timestamp,
}

/// `None` for a label that is neither: duplicates and alerts that nobody could evaluate.
pub fn parse(line: &str) -> Result<Option<Labelled>, String> {
    #[derive(Deserialize)]
    struct Line {
        alert: Map<String, Value>,
        label: String,
        #[serde(default)]
        id: Value,
        #[serde(default)]
        source: String,
        #[serde(default)]
        family: String,
        #[serde(default)]
        scenario: String,
    }
    let line: Line = serde_json::from_str(line).map_err(|error| format!("not a labelled alert: {error}"))?;
    let is_threat = match line.label.trim().to_lowercase().as_str() {
        "tp" | "true_positive" | "true positive" => true,
        "fp" | "false_positive" | "false positive" | "btp" | "benign_true_positive" => false,
        "dup" | "duplicate" | "ne" | "not_evaluable" => return Ok(None),
        other => {
            let short: String = other.chars().take(40).collect();
            return Err(format!("label: `{}` is none: write tp, btp, fp, dup or ne", short.escape_debug()));
        }
    };
    let whole = Value::Object(line.alert.clone());
    let (alert, history) = match serde_json::from_value::<Alert>(whole) {
        Ok(alert) => (alert, None),
        Err(_) => foreign(line.alert, &line.id),
    };
    let time = alert.window.end;
    Ok(Some(Labelled {
        alert,
        history,
        is_threat,
        source: line.source,
        family: line.family,
        scenario: line.scenario,
        time,
    }))
}

fn foreign(mut alert: Map<String, Value>, id: &Value) -> (Alert, Option<History>) {
    let context = alert.remove("context");
    let second =
        ["time", "timestamp", "@timestamp"].iter().find_map(|name| second(alert.get(*name)?)).unwrap_or(1);
    let mut rule = Map::new();
    let own = alert.remove("rule");
    let named = |own: &Value| ["description", "name", "title"].iter().find_map(|name| text(own.get(*name)?));
    let name = own
        .as_ref()
        .and_then(|own| text(own).or_else(|| named(own)))
        .or_else(|| ["rule_title", "rule_name"].iter().find_map(|name| text(&alert.remove(*name)?)));
    rule.insert("name".into(), json!(name.unwrap_or_default()));
    if let Some(Value::Object(own)) = &own {
        // Wazuh's levels end at 16.
        let level =
            own.get("level").and_then(Value::as_u64).map(|level| if level <= 16 { level * 6 } else { level });
        rule.insert("level".into(), json!(level.unwrap_or_default().min(100)));
        for (from, to) in [("groups", "tags"), ("tags", "tags"), ("group", "group"), ("id", "id")] {
            if let Some(value) = own.get(from) {
                rule.insert(to.into(), value.clone());
            }
        }
    }
    for (from, to) in [("rule_tags", "tags"), ("rule_description", "description"), ("level", "level")] {
        if let Some(value) = alert.remove(from) {
            rule.insert(to.into(), value);
        }
    }
    if text(rule.get("id").unwrap_or(&Value::Null)).is_none() {
        rule.insert("id".into(), rule["name"].clone());
    }
    let window = Window::from_seconds(second - 1, second).unwrap_or(NOWHEN);
    let rule_id = rule["id"].as_str().unwrap_or_default().to_owned();
    let history = context.as_ref().and_then(|context| past(context, &alert));
    let alert = Alert {
        id: text(id).unwrap_or_else(|| identity("", &rule_id, window)),
        rule,
        detector: Map::new(),
        datasource: Map::new(),
        data: Data { len: 1, value: vec![alert], datasource: String::new(), cut: None },
        window,
        created_at: window.end,
    };
    (alert, history)
}

/// AIT's look-back counts: the rule's on the host, its hosts, and what fired on the host within ten minutes.
fn past(context: &Value, row: &Map<String, Value>) -> Option<History> {
    let count = |name: &str| context.get(name)?.as_u64();
    let host = row.get("host").and_then(Value::as_str).unwrap_or_default();
    let pair = Counts {
        day: count("same_rule_same_host_last_24h")?,
        ever: count("same_rule_same_host_ever")?,
        ..Counts::default()
    };
    let list = context.get("alerts_on_host_last_10min").and_then(Value::as_array);
    let around = list.into_iter().flatten().filter_map(|other| {
        let rule = other.get("rule")?.as_str()?.to_owned();
        Some(Around { rule, name: None, count: other.get("count")?.as_u64()? })
    });
    Some(History {
        pairs: vec![(Entity::new(crate::triage::observable::Kind::Host, host), pair)],
        around: around.take(crate::triage::history::MAX_AROUND).collect(),
        others_with_rule: count("hosts_with_rule_ever").unwrap_or_default(),
        is_complete: true,
        ..History::default()
    })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Unix seconds, or a date with its zone.
fn second(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_f64().map(|second| second as i64),
        Value::String(text) => {
            // Wazuh writes `+0000`.
            let zoned = jiff::fmt::strtime::parse("%Y-%m-%dT%H:%M:%S%.f%z", text).ok()?.to_timestamp().ok();
            text.parse::<Timestamp>().ok().or(zoned).map(|time| time.as_second())
        }
        _ => None,
    }
}

const NOWHEN: Window = Window { start: Timestamp::UNIX_EPOCH, end: Timestamp::UNIX_EPOCH };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_of_the_ait_data_has_its_rule_its_host_and_its_past() {
        let line = json!({ "id": "a", "source": "ait", "scenario": "fox", "label": "TP", "alert": {
            "time": 1_642_137_853, "detector": "AMiner", "rule": "New request method.", "host": "webserver",
            "ip": "172.21.129.224", "context": { "same_rule_same_host_last_24h": 2, "same_rule_same_host_ever": 5,
            "hosts_with_rule_ever": 3, "alerts_on_host_last_10min": [{ "rule": "AMiner: New event.", "count": 9 }] } } });
        let found = parse(&line.to_string()).unwrap().unwrap();
        let history = found.history.unwrap();
        assert_eq!((found.alert.rule_name(), found.time.as_second()), ("New request method.", 1_642_137_853));
        assert_eq!((history.pairs[0].1.day, history.pairs[0].1.ever, history.others_with_rule), (2, 5, 3));
        assert_eq!((history.around[0].rule.as_str(), history.around[0].count), ("AMiner: New event.", 9));
        assert!(found.alert.data.value[0].get("context").is_none() && found.is_threat);
    }

    #[test]
    fn wazuhs_and_sigmas_shapes_name_their_rule() {
        let wazuh = json!({ "label": "FP", "alert": { "timestamp": "2025-07-04T21:47:36.997+0000",
            "rule": { "level": 12, "description": "PowerShell ran", "id": "92", "groups": ["sysmon"] }, "agent": { "name": "w" } } });
        let found = parse(&wazuh.to_string()).unwrap().unwrap();
        assert_eq!(
            (found.alert.rule_name(), found.alert.level(), found.is_threat),
            ("PowerShell ran", 72, false)
        );
        assert_eq!(found.time.to_string(), "2025-07-04T21:47:36Z");
        let sigma = json!({ "label": "tp", "alert": { "rule_title": "Encoded", "event": { "Image": "x" } } });
        assert_eq!(parse(&sigma.to_string()).unwrap().unwrap().alert.rule_name(), "Encoded");
    }

    #[test]
    fn what_is_no_label_is_said_and_what_is_neither_is_left_out() {
        let line = |label: &str| json!({ "label": label, "alert": {} }).to_string();
        assert_eq!(parse(&line("dup")), Ok(None));
        assert!(parse(&line("evil")).unwrap_err().starts_with("label: `evil` is none"));
        assert!(parse("[]").unwrap_err().starts_with("not a labelled alert"));
    }
}
