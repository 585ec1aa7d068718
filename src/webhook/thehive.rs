//! TheHive: an alert by `POST /api/v1/alert`, its verdict later by `PATCH` of the same
//! (<https://docs.strangebee.com/thehive/api-docs/>).
//!
//! What differs from clickdetect: `sourceRef` is the alert's id and no random number, so that TheHive, to which `type`,
//! `source` and `sourceRef` together are one alert, answers a repeated message with "already exist", which counts as
//! delivered. `source` is `watchpost`. `type` is `thehive`, as clickdetect sends it whatever its manual says, since the
//! key `type` names the kind of the webhook; `alert_type` sets it. In `summary` what Markdown would obey is written by
//! its number, which is the same JSON. A verdict is added to the description.

use serde_json::{Map, Value as Json, json};

use super::facts::{self, Facts, clip};
use super::{Band, ComposeError, Meaning, Message, Outgoing, Probe, SeverityMap, Webhook, commonmark, web};
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};
use crate::http::Answer;

section! {
    /// Raises each alert in TheHive (4 or 5).
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// Where TheHive answers, e.g. `https://thehive.example`.
        pub url: Url,
        /// The key of an account that may create alerts, e.g. `{env: THEHIVE_KEY}`.
        pub api_key: Secret,
        /// TheHive's `type` of the alerts.
        pub alert_type: String = "thehive",
        /// TheHive's `source` of the alerts. clickdetect's default was `clickdetect`.
        pub source: String = "watchpost",
        /// The lowest level of each severity, e.g. `{critical: 90}`: informational and low are TheHive's 1, medium 2,
        /// high 3, critical 4.
        pub severity_map: SeverityMap = "{}",
        /// Traffic Light Protocol, 0 (clear) to 4 (red in TheHive 5; 3 is red in TheHive 4).
        #[read(protocol)]
        pub tlp: u8 = "2",
        /// Permissible Actions Protocol, 0 (clear) to 3 (red); 4 is passed on.
        #[read(protocol)]
        pub pap: u8 = "2",
    }
    shared { pub exchange: web::Exchange }
}

fn protocol(node: &Node, reader: &mut Reader<'_>) -> Option<u8> {
    match u8::from_yaml(node, reader)? {
        level @ 0..=4 => Some(level),
        _ => reader.refuse(node, "a level from 0 to 4"),
    }
}

/// Raises alerts in TheHive.
pub struct TheHive {
    endpoint: web::Endpoint,
    alert_type: String,
    source: String,
    severity_map: SeverityMap,
    tlp: u8,
    pap: u8,
}

impl TheHive {
    pub fn new(config: &Config) -> Self {
        let endpoint = web::Endpoint::new(&config.url, &config.exchange)
            .with_header("authorization", Secret::new(format!("Bearer {}", config.api_key.reveal())));
        Self {
            endpoint,
            alert_type: config.alert_type.clone(),
            source: config.source.clone(),
            severity_map: config.severity_map,
            tlp: config.tlp,
            pap: config.pap,
        }
    }

    fn severity(&self, level: u8) -> u8 {
        match self.severity_map.band(level) {
            Band::Informational | Band::Low => 1,
            Band::Medium => 2,
            Band::High => 3,
            Band::Critical => 4,
        }
    }

    fn alert(&self, message: &Message<'_>) -> Result<Json, ComposeError> {
        let facts = Facts::new(message);
        // An update that has no alert to change is an alert of its own.
        let suffix = if message.is_update { "-update" } else { "" };
        Ok(json!({
            "type": self.alert_type,
            "source": self.source,
            "sourceRef": format!("{}{suffix}", message.alert.id),
            "title": clip(facts.name, MAX_TITLE),
            "description": description(&facts, message),
            "severity": self.severity(facts.level),
            "tlp": self.tlp,
            "pap": self.pap,
            "tags": facts.tags,
            "summary": commonmark::escape_json(&facts.dumped()?),
        }))
    }
}

/// Markdown to TheHive. The rule's is the operator's, the verdict may hold text of the log.
fn description(facts: &Facts<'_>, message: &Message<'_>) -> String {
    match facts::verdict(message.triage) {
        Some(verdict) => format!("{}\n\n{}", facts.description_or_name(), commonmark::escape(&verdict)),
        None => facts.description_or_name().to_owned(),
    }
}

impl Webhook for TheHive {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let request = match message.receipt {
            Some(id) if message.is_update => {
                let description = description(&Facts::new(message), message);
                let path = format!("/api/v1/alert/{}", web::segment(id));
                self.endpoint.json("PATCH", &path, &json!({ "description": description }))?
            }
            _ => self.endpoint.json("POST", "/api/v1/alert", &self.alert(message)?)?,
        };
        Ok(Outgoing::Http(request))
    }

    fn endpoint(&self) -> Option<&web::Endpoint> {
        Some(&self.endpoint)
    }

    /// A `400` that says the alert is there already answers a message whose first answer was lost: `CreateError`,
    /// "Alert TYPE:SOURCE:REF already exist in organisation ORG".
    fn judge(&self, answer: &Answer) -> Meaning {
        if answer.status == 400 && String::from_utf8_lossy(&answer.body).contains("already exist") {
            return Meaning::Delivered;
        }
        web::judge(answer)
    }

    fn receipt(&self, answer: &Answer) -> Option<String> {
        web::told(answer, "/_id")
    }

    fn probe(&self) -> Vec<Probe> {
        let paths = ["/api/v1/status/public", "/api/v1/user/current"];
        let requests = paths.iter().filter_map(|path| self.endpoint.request("GET", path).ok());
        requests.map(Probe::Http).collect()
    }

    /// TheHive 4 has no `/public`, and tells its version to everybody; whether the key is good the second answer says.
    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        let [status, user] = answers else { return Err("it was not asked".into()) };
        if user.status != 200 {
            return Err(format!("it does not take the key: {}: {}", user.status, web::words(user)));
        }
        let login = web::told(user, "/login").ok_or("what answers there is not TheHive")?;
        let versions: Map<String, Json> = serde_json::from_slice(&status.body).unwrap_or_default();
        let version = versions.get("versions").and_then(|all| all.get("TheHive")).and_then(Json::as_str);
        let version = version.or_else(|| versions.get("version").and_then(Json::as_str));
        Ok(format!("TheHive {}, as {login}", version.unwrap_or("of an unknown version")))
    }
}

/// Of TheHive's field `title`, in characters.
const MAX_TITLE: usize = 512;

#[cfg(test)]
mod tests;
