//! DFIR-IRIS: an alert by `POST /alerts/add`, its verdict later as the note of the same, `POST /alerts/update/{id}`
//! (<https://docs.dfir-iris.org/latest/operations/api/>; checked against recorded answers of 2.4.20).
//!
//! What differs from clickdetect, whose alerts every IRIS refuses: `alert_source_event_time` is the begin of the window
//! as a date-time; severity and status are found by their names ([`lists`]), since their ids differ from site to site;
//! `alert_source` is the datasource's name or else its kind. New are `alert_source_ref` (the alert's id), addresses,
//! hosts, users and files of the rows as `alert_iocs` and `alert_assets`, and the verdict in `alert_note`.

mod lists;
mod observed;

use jiff::tz::TimeZone;
use serde_json::{Value as Json, json};

use self::lists::{List, Lists};
use super::facts::{self, Facts};
use super::template::plain;
use super::{ComposeError, Meaning, Message, Outgoing, Probe, SeverityMap, Webhook, web, words};
use crate::config::{Secret, Url, section};
use crate::http::{Answer, Request};

section! {
    /// Raises each alert in DFIR-IRIS, with what its rows name as IOCs and assets.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// Where IRIS answers, e.g. `https://iris.example`.
        pub url: Url,
        /// The key of an account with the permission `alerts_write`, e.g. `{env: IRIS_KEY}`.
        pub api_key: Secret,
        /// The customer whose alerts these are, as IRIS numbers it: the `#` under Manage, Customers.
        pub customer_id: u64,
        /// The lowest level of each severity, e.g. `{critical: 90}`: the words are those of IRIS.
        pub severity_map: SeverityMap = "{}",
        /// IRIS's asset type for hosts of the rows; IRIS has none for hosts of any kind. E.g. `Windows - Computer`.
        pub host_type: String = "Linux - Server",
    }
    shared { pub exchange: web::Exchange }
}

/// Raises alerts in DFIR-IRIS.
pub struct Iris {
    endpoint: web::Endpoint,
    customer_id: u64,
    severity_map: SeverityMap,
    host_type: String,
    lists: Lists,
}

impl Iris {
    pub fn new(config: &Config) -> Self {
        let endpoint = web::Endpoint::new(&config.url, &config.exchange)
            .with_header("authorization", Secret::new(format!("Bearer {}", config.api_key.reveal())));
        Self {
            endpoint,
            customer_id: config.customer_id,
            severity_map: config.severity_map,
            host_type: config.host_type.clone(),
            lists: Lists::default(),
        }
    }

    /// A site may have renamed what it does not use.
    fn severity(&self, level: u8) -> Result<i64, ComposeError> {
        let word = self.severity_map.band(level).word();
        let id =
            self.lists.id(List::Severities, word).or_else(|| self.lists.id(List::Severities, "unspecified"));
        id.ok_or_else(|| ComposeError(format!("DFIR-IRIS has no severity `{word}`, nor `unspecified`")))
    }

    fn alert(&self, message: &Message<'_>) -> Result<Json, ComposeError> {
        let facts = Facts::new(message);
        let status = self.lists.id(List::Statuses, "new").unwrap_or(NEW);
        let mut alert = json!({
            "alert_title": facts.name,
            "alert_description": facts.description,
            "alert_source": source(message),
            "alert_source_ref": message.alert.id,
            "alert_severity_id": self.severity(facts.level)?,
            "alert_status_id": status,
            "alert_source_event_time": event_time(message),
            "alert_note": note(message).unwrap_or_default(),
            "alert_tags": facts.tags.join(", "),
            "alert_source_content": facts.data,
            "alert_customer_id": self.customer_id,
        });
        let observed = observed::of(message.alert, &self.lists, &self.host_type);
        for (field, found) in [("alert_iocs", observed.iocs), ("alert_assets", observed.assets)] {
            if !found.is_empty() {
                alert[field] = found.into();
            }
        }
        Ok(alert)
    }
}

/// IRIS takes no alert without one.
fn source<'a>(message: &Message<'a>) -> &'a str {
    let named = |field: &str| message.alert.datasource.get(field).and_then(Json::as_str);
    let names = [named("name"), named("type"), Some(message.alert.data.datasource.as_str())];
    names.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or("watchpost")
}

/// IRIS keeps times without a zone and reads them as UTC.
fn event_time(message: &Message<'_>) -> String {
    message.alert.window.start.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
}

fn note(message: &Message<'_>) -> Option<String> {
    let verdict = facts::verdict(message.triage)?;
    Some(words::within(&plain(&verdict), MAX_NOTE, |_| 1))
}

impl Webhook for Iris {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let request = match message.receipt {
            Some(id) if message.is_update => {
                // Without an owner IRIS would give an alert that nobody owns to the account of our key.
                let update = json!({ "alert_note": note(message).unwrap_or_default(), "alert_owner_id": -1 });
                self.endpoint.json("POST", &format!("/alerts/update/{}", web::segment(id)), &update)?
            }
            _ => self.endpoint.json("POST", "/alerts/add", &self.alert(message)?)?,
        };
        Ok(Outgoing::Http(request))
    }

    fn endpoint(&self) -> Option<&web::Endpoint> {
        Some(&self.endpoint)
    }

    fn preparation(&self) -> Option<Request> {
        self.endpoint.request("GET", self.lists.missing()?.path()).ok()
    }

    fn prepared(&self, answer: &Answer) -> Result<(), String> {
        self.lists.take(&answer.body)
    }

    /// An older IRIS, or one that shows its lists to nobody: alerts go without IOCs and assets, as `New` has the id that it has everywhere.
    fn forgoes(&self, asked: &Request, answer: &Answer) -> bool {
        [403, 404].contains(&answer.status) && self.lists.forgo(asked.to.url.as_str())
    }

    /// A refusal may come of ids that are no more: the next message looks them up again.
    fn judge(&self, answer: &Answer) -> Meaning {
        if answer.status == 400 {
            self.lists.forget();
        }
        match web::judge(answer) {
            Meaning::Delivered if web::told(answer, "/status").is_some_and(|status| status == "error") => {
                Meaning::Refused
            }
            meaning => meaning,
        }
    }

    fn receipt(&self, answer: &Answer) -> Option<String> {
        web::told(answer, "/data/alert_id")
    }

    fn probe(&self) -> Vec<Probe> {
        self.endpoint.request("GET", "/api/versions").map(Probe::Http).into_iter().collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        match answers {
            [answer] if answer.status == 200 => web::told(answer, "/data/iris_current")
                .map(|version| format!("DFIR-IRIS {version}"))
                .ok_or_else(|| "what answers there is not DFIR-IRIS".into()),
            [answer] => Err(format!("{}: {}", answer.status, web::words(answer))),
            _ => Err("`url` makes no address".into()),
        }
    }
}

/// The status `New` of an IRIS whose ids nobody changed.
const NEW: i64 = 2;
/// Characters; IRIS has no limit.
const MAX_NOTE: usize = 20_000;

#[cfg(test)]
mod tests;
