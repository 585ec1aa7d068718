//! Prometheus Alertmanager: an alert by `POST /api/v2/alerts`
//! (<https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>).
//!
//! Alerts with the same labels are one alert there, so a verdict is sent as the same alert once more, its annotations
//! extended by `verdict`. What differs from clickdetect: the label `source` is `watchpost`, and a label without a value
//! in `labels` is none.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::{Map, Value as Json, json};

use super::facts::{self, Facts};
use super::template::plain;
use super::{Band, ComposeError, Meaning, Message, Outgoing, Probe, SeverityMap, Webhook, web};
use crate::clock::Timestamp;
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Url, section};
use crate::http::Answer;
use crate::rule::template;

section! {
    /// Sends each alert to Prometheus Alertmanager, which groups, silences and routes it.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// Where Alertmanager answers, without `/api/v2/alerts`, e.g. `http://alertmanager:9093`.
        pub url: Url,
        /// Labels besides ours and before them, e.g. `{environment: production}`. One without a value takes ours away.
        #[read(labels)]
        pub labels: BTreeMap<String, String> = "{}",
        /// The lowest level of each severity, e.g. `{critical: 90}`: the label `severity` is `info`, `low`, `medium`,
        /// `high` or `critical`.
        pub severity_map: SeverityMap = "{}",
        /// What the alert links to, e.g. `https://watchpost.example`.
        pub generator_url: String = "",
        /// Seconds from the begin of the alert's window until Alertmanager takes it for resolved; with 0
        /// Alertmanager's own `resolve_timeout` counts.
        pub expire_after: u32 = "0",
    }
    shared { pub exchange: web::Exchange }
}

/// Values as Python's `str` writes what YAML reads: `true` is `True`.
fn labels(node: &Node, reader: &mut Reader<'_>) -> Option<BTreeMap<String, String>> {
    if node.entries().is_none() {
        return reader.refuse(node, "a map of `name: value` lines");
    }
    let mut labels = BTreeMap::new();
    for entry in node.entries().unwrap_or_default() {
        let is_name = entry.key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !entry.key.starts_with(|first: char| first.is_ascii_digit());
        if entry.key.is_empty() {
            reader.error(entry.at, "this label has no name");
            return None;
        }
        if !is_name {
            let name = crate::config::clip(&entry.key);
            reader.warn(
                entry.at,
                format!("Alertmanager before 0.27 refuses alerts with a label `{name}`: it takes letters, digits and `_`"),
            );
        }
        let value = reader.within(&entry.key, |reader| label(&entry.value, reader))?;
        labels.insert(entry.key.clone(), value);
    }
    Some(labels)
}

fn label(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    if node.is_null() {
        return Some(String::new());
    }
    // Where `{env: NAME}` stands, its text.
    if let Ok(Some(scalar)) = reader.scalar(node)
        && node.scalar().is_none()
    {
        return Some(scalar.text.clone());
    }
    let value = Json::from_yaml(node, reader)?;
    let map = Map::from_iter([("value".to_owned(), value)]);
    let value = template::value(&map).get_attr("value").unwrap_or_default();
    Some(template::text(&value))
}

/// Sends alerts to Alertmanager.
pub struct Alertmanager {
    endpoint: web::Endpoint,
    labels: BTreeMap<String, String>,
    severity_map: SeverityMap,
    generator_url: String,
    expire_after: Duration,
}

impl Alertmanager {
    pub fn new(config: &Config) -> Self {
        let endpoint = web::Endpoint::new(&config.url, &config.exchange);
        Self {
            endpoint,
            labels: config.labels.clone(),
            severity_map: config.severity_map,
            generator_url: config.generator_url.clone(),
            expire_after: Duration::from_secs(config.expire_after.into()),
        }
    }

    fn severity(&self, level: u8) -> &'static str {
        match self.severity_map.band(level) {
            Band::Informational => "info",
            Band::Low => "low",
            Band::Medium => "medium",
            Band::High => "high",
            Band::Critical => "critical",
        }
    }

    /// Alertmanager takes texts only, and refuses an alert with an empty label.
    fn labels(&self, message: &Message<'_>, level: u8) -> BTreeMap<String, String> {
        let text = |map: &Map<String, Json>, field: &str| match map.get(field) {
            None | Some(Json::Null) => String::new(),
            Some(Json::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let (rule, detector) = (&message.alert.rule, &message.alert.detector);
        let mut labels = BTreeMap::from([
            ("alertname".to_owned(), text(rule, "name")),
            ("severity".to_owned(), self.severity(level).to_owned()),
            ("level".to_owned(), level.to_string()),
            ("rule_id".to_owned(), text(rule, "id")),
            ("group".to_owned(), text(rule, "group")),
            ("detector".to_owned(), text(detector, "name")),
            ("tenant".to_owned(), text(detector, "tenant")),
            ("source".to_owned(), "watchpost".to_owned()),
        ]);
        labels.extend(self.labels.clone());
        labels.retain(|_, value| !value.is_empty());
        labels
    }

    fn alert(&self, message: &Message<'_>) -> Result<Json, ComposeError> {
        let facts = Facts::new(message);
        let start = message.alert.window.start;
        let mut annotations = json!({
            "summary": facts.name,
            "description": facts.description_or_name(),
            "tags": facts.tags.join(","),
            "results": facts.dumped()?,
        });
        if let Some(verdict) = facts::verdict(message.triage) {
            annotations["verdict"] = plain(&verdict).into();
        }
        let mut alert = json!({
            "labels": self.labels(message, facts.level),
            "annotations": annotations,
            "startsAt": iso(start),
        });
        if !self.expire_after.is_zero() {
            alert["endsAt"] = iso(start.saturating_add(self.expire_after).unwrap_or(Timestamp::MAX)).into();
        }
        if !self.generator_url.is_empty() {
            alert["generatorURL"] = self.generator_url.as_str().into();
        }
        Ok(alert)
    }
}

/// As Python's `isoformat` writes a time in UTC: `2026-01-01T00:00:00+00:00`, and microseconds where there are some.
fn iso(at: Timestamp) -> String {
    let at = at.to_zoned(TimeZone::UTC);
    let format = if at.subsec_nanosecond() < 1_000 {
        "%Y-%m-%dT%H:%M:%S+00:00"
    } else {
        "%Y-%m-%dT%H:%M:%S.%6f+00:00"
    };
    at.strftime(format).to_string()
}

impl Webhook for Alertmanager {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let alerts = Json::Array(vec![self.alert(message)?]);
        Ok(Outgoing::Http(self.endpoint.json("POST", "/api/v2/alerts", &alerts)?))
    }

    fn endpoint(&self) -> Option<&web::Endpoint> {
        Some(&self.endpoint)
    }

    fn judge(&self, answer: &Answer) -> Meaning {
        web::judge(answer)
    }

    fn probe(&self) -> Vec<Probe> {
        self.endpoint.request("GET", "/api/v2/status").map(Probe::Http).into_iter().collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        match answers {
            [answer] if answer.status == 200 => web::told(answer, "/versionInfo/version")
                .map(|version| format!("Alertmanager {version}"))
                .ok_or_else(|| "what answers there is not Alertmanager".into()),
            [answer] => Err(format!("{}: {}", answer.status, web::words(answer))),
            _ => Err("`url` makes no address".into()),
        }
    }
}

#[cfg(test)]
mod tests;
