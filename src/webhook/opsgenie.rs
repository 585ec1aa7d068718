//! Opsgenie: an alert by `POST /v2/alerts`, its verdict as a note on it
//! (<https://docs.opsgenie.com/docs/alert-api>; the service ends on 2027-04-05).
//!
//! What differs from clickdetect: `source` is `watchpost`; what passes Opsgenie's limits, and would be refused, is
//! cut; a verdict is a note. As in clickdetect, `alias` is the rule's id: while an alert of a rule is open, the next one
//! of that rule counts it up instead of opening a second.

use serde_json::{Value as Json, json};

use super::facts::{self, Facts, clip};
use super::template::plain;
use super::{Band, ComposeError, Meaning, Message, Outgoing, Probe, SeverityMap, Webhook, web, words};
use crate::config::{Secret, Url, section};
use crate::http::Answer;

section! {
    /// Raises each alert in Opsgenie.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// Opsgenie's alert API; `https://api.eu.opsgenie.com/v2/alerts` for accounts in the EU.
        pub url: Url = "https://api.opsgenie.com/v2/alerts",
        /// The key of an API integration, e.g. `{env: OPSGENIE_KEY}`.
        pub api_key: Secret,
        /// Opsgenie's `source` of the alerts. clickdetect's default was `clickdetect`.
        pub source: String = "watchpost",
        /// The lowest level of each severity, e.g. `{critical: 90}`: informational is P5, low P4, medium P3, high P2,
        /// critical P1.
        pub severity_map: SeverityMap = "{}",
    }
    shared { pub exchange: web::Exchange }
}

/// Raises alerts in Opsgenie.
pub struct Opsgenie {
    endpoint: web::Endpoint,
    source: String,
    severity_map: SeverityMap,
}

impl Opsgenie {
    pub fn new(config: &Config) -> Self {
        // Paths go behind it, and as in clickdetect a slash at its end is none.
        let url = config.url.as_str().trim().trim_end_matches('/').parse();
        let url = url.unwrap_or_else(|()| config.url.clone());
        let endpoint = web::Endpoint::new(&url, &config.exchange)
            .with_header("authorization", Secret::new(format!("GenieKey {}", config.api_key.reveal())));
        Self { endpoint, source: clip(&config.source, MAX_SOURCE), severity_map: config.severity_map }
    }

    fn priority(&self, level: u8) -> &'static str {
        match self.severity_map.band(level) {
            Band::Informational => "P5",
            Band::Low => "P4",
            Band::Medium => "P3",
            Band::High => "P2",
            Band::Critical => "P1",
        }
    }

    fn alert(&self, message: &Message<'_>) -> Json {
        let facts = Facts::new(message);
        let detector = |field: &str| {
            let value = message.alert.detector.get(field).and_then(Json::as_str);
            clip(value.unwrap_or("None"), MAX_DETAIL)
        };
        let tags = facts.tags.iter().take(MAX_TAGS).map(|tag| clip(tag, MAX_TAG));
        let mut alert = json!({
            "message": clip(facts.name, MAX_MESSAGE),
            "description": words::within(facts.description_or_name(), MAX_DESCRIPTION, |_| 1),
            "priority": self.priority(facts.level),
            "source": self.source,
            "alias": alias(message),
            "tags": tags.collect::<Vec<_>>(),
            "details": {
                "rule_id": clip(message.alert.rule_id(), MAX_DETAIL),
                "detector": detector("name"),
                "tenant": detector("tenant"),
            },
        });
        if let Some(note) = note(message) {
            alert["note"] = note.into();
        }
        alert
    }
}

/// As clickdetect's; Opsgenie refuses a longer one.
fn alias(message: &Message<'_>) -> String {
    clip(message.alert.rule_id(), MAX_ALIAS)
}

/// Many alerts of a rule share one of Opsgenie's, so a note says which it speaks of.
fn note(message: &Message<'_>) -> Option<String> {
    let verdict = facts::verdict(message.triage)?;
    let window = message.alert.window;
    let note = format!("Alert {} ({} to {})\n\n{verdict}", message.alert.id, window.start, window.end);
    Some(words::within(&plain(&note), MAX_NOTE, |_| 1))
}

impl Webhook for Opsgenie {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let request = match (message.receipt, note(message)) {
            (Some(_), Some(note)) if message.is_update => {
                let path = format!("/{}/notes?identifierType=alias", web::segment(&alias(message)));
                let body = json!({ "note": note, "source": self.source });
                self.endpoint.json("POST", &path, &body)?
            }
            _ => self.endpoint.json("POST", "", &self.alert(message))?,
        };
        Ok(Outgoing::Http(request))
    }

    fn endpoint(&self) -> Option<&web::Endpoint> {
        Some(&self.endpoint)
    }

    fn judge(&self, answer: &Answer) -> Meaning {
        web::judge(answer)
    }

    /// That Opsgenie took the alert; a note finds it by its alias.
    fn receipt(&self, answer: &Answer) -> Option<String> {
        web::told(answer, "/requestId")
    }

    fn probe(&self) -> Vec<Probe> {
        self.endpoint.request("GET", "/count").map(Probe::Http).into_iter().collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        match answers {
            [answer] if answer.status == 200 && !web::is_page(answer) => Ok("Opsgenie takes the key".into()),
            // A key that may only create alerts is enough for us.
            [answer] if answer.status == 403 => {
                Ok("Opsgenie knows the key, which may not read alerts; sending was not tried".into())
            }
            [answer] => Err(format!("{}: {}", answer.status, web::words(answer))),
            _ => Err("`url` makes no address".into()),
        }
    }
}

// Characters, by the alert API's reference; of a detail only the sum (8000) is given there.
const MAX_MESSAGE: usize = 130;
const MAX_ALIAS: usize = 512;
const MAX_DESCRIPTION: usize = 15_000;
const MAX_SOURCE: usize = 100;
const MAX_TAGS: usize = 20;
const MAX_TAG: usize = 50;
const MAX_DETAIL: usize = 2_000;
const MAX_NOTE: usize = 25_000;

#[cfg(test)]
mod tests;
