//! HTTP POST to any receiver.
//!
//! Beside the operator's headers each request carries `idempotency-key` (the same for every attempt of one
//! message), `watchpost-alert-id` (the same for an alert and its update), and `watchpost-update: true` where it
//! brings what triage added after a message that went out before its end.

use super::template::{self, Style, Template};
use super::web::{self, Endpoint};
use super::{ComposeError, Message, Outgoing, Probe, Webhook, payload};
use crate::config::{Secret, Url, section};
use crate::http::{Answer, Request};

section! {
    /// Posts each alert as JSON to an HTTP receiver.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// Where alerts are posted, e.g. `https://soc.example/alerts`.
        pub url: Url,
        /// The body, a Jinja template, e.g. `{"rule": {{ rule | tojson }}}`; the default is clickdetect's body.
        #[read(web::template)]
        pub template: Option<String>,
    }
    shared { pub exchange: web::Exchange }
}

/// Posts to one address.
pub struct Generic {
    endpoint: Endpoint,
    template: Option<Template>,
}

impl Generic {
    /// Fails where `template` is no template.
    pub fn new(config: &Config) -> Result<Self, ComposeError> {
        let mut endpoint = Endpoint::new(&config.url, &config.exchange);
        let content_type = endpoint.header("content-type").unwrap_or_default();
        let is_json = is_json(content_type);
        if content_type.is_empty() {
            endpoint = endpoint.without_header("content-type");
        }
        // Ours are promises to the receiver: nobody else writes them.
        let endpoint = OURS.into_iter().fold(endpoint, Endpoint::without_header);
        let style = if is_json { Style::Json(template::as_it_is) } else { Style::Text(template::plain) };
        let template = config.template.as_deref().map(|source| Template::new(source, style));
        Ok(Self { endpoint, template: template.transpose().map_err(ComposeError)? })
    }

    fn body(&self, message: &Message<'_>) -> Result<Vec<u8>, ComposeError> {
        match &self.template {
            Some(template) => template.render(&payload::variables(message)).map_err(ComposeError),
            None => {
                serde_json::to_vec(&payload::body(message)).map_err(|error| ComposeError(error.to_string()))
            }
        }
    }
}

impl Webhook for Generic {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let mut request = self.endpoint.with_body("POST", "", self.body(message)?)?;
        let mut add = |name: &str, value: &str| request.headers.push((name.to_owned(), Secret::new(value)));
        add(IDEMPOTENCY_KEY, message.idempotency_key);
        add(ALERT_ID, &message.alert.id);
        if message.is_update {
            add(UPDATE, "true");
        }
        Ok(Outgoing::Http(request))
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    /// Any answer will do: who takes alerts by POST need not know anything else.
    fn probe(&self) -> Vec<Probe> {
        let request = self.endpoint.request("HEAD", "").ok();
        request.map(|request| Probe::Http(Request { headers: Vec::new(), ..request })).into_iter().collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status.to_string()).collect();
        Ok(format!("answers HTTP {}", statuses.join(", ")))
    }
}

/// `application/json`, `application/problem+json; charset=utf-8`, ...; nothing at all becomes the first.
fn is_json(content_type: &str) -> bool {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media.is_empty() || media.ends_with("/json") || media.ends_with("+json")
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const ALERT_ID: &str = "watchpost-alert-id";
const UPDATE: &str = "watchpost-update";
const OURS: [&str; 3] = [IDEMPOTENCY_KEY, ALERT_ID, UPDATE];

#[cfg(test)]
mod tests {
    use super::super::payload::tests::{alert, done};
    use super::*;
    use crate::triage::Triage;
    use serde_json::Value as Json;

    fn config(headers: &[(&str, &str)], template: Option<&str>) -> Config {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect();
        Config {
            name: None,
            url: "https://soc.example/alerts?token=s3cret".parse().unwrap(),
            template: template.map(str::to_owned),
            exchange: web::Exchange { headers, ..web::Exchange::default() },
        }
    }

    fn compose(config: &Config, triage: &Triage, is_update: bool) -> Result<Request, ComposeError> {
        let message = Message { alert: &alert(), triage, is_update, idempotency_key: "0123", receipt: None };
        match Generic::new(config)?.compose(&message)? {
            Outgoing::Http(request) => Ok(request),
            other => panic!("{other:?}"),
        }
    }

    fn headers(request: &Request) -> Vec<String> {
        request.headers.iter().map(|(name, value)| format!("{name}: {}", value.reveal())).collect()
    }

    #[test]
    fn a_request_carries_the_operators_headers_and_ours() {
        let config = config(&[("Authorization", "Bearer s3cret"), ("Idempotency-Key", "mine")], None);
        let request = compose(&config, &Triage::Skipped, false).unwrap();
        assert_eq!(
            headers(&request),
            [
                "authorization: Bearer s3cret",
                "content-type: application/json",
                "idempotency-key: 0123",
                "watchpost-alert-id: 00112233445566778899aabbccddeeff",
            ]
        );
        assert!(!format!("{request:?}").contains("s3cret"));
        let update = compose(&config, &done(), true).unwrap();
        assert_eq!(headers(&update).last().unwrap(), "watchpost-update: true");
    }

    #[test]
    fn clickdetects_own_templates_give_json() {
        for template in [
            r#"{ "rule": {{ rule }}, "data": {{ data }}, "detector": {{ detector }}, "time": {{ time }} }"#,
            r#"{"rule": {{ rule | tojson }}, "data": {{ data | tojson }}, "detector": {{ detector | tojson }}, "time": {{ time | tojson }} }"#,
        ] {
            let request = compose(&config(&[], Some(template)), &Triage::Skipped, false).unwrap();
            let sent: Json = serde_json::from_slice(&request.body).unwrap();
            let default = compose(&config(&[], None), &Triage::Skipped, false).unwrap();
            assert_eq!(sent, serde_json::from_slice::<Json>(&default.body).unwrap());
        }
    }

    #[test]
    fn a_template_sees_verdict_alert_and_triage() {
        let template = "{{ alert.id }} {{ alert.created_at }} {{ triage }} {{ clickagentic.severity }} {{ datasource.type }} {{ time.endtime }}";
        let config = config(&[("content-type", "text/plain")], Some(template));
        let body = compose(&config, &done(), false).unwrap().body;
        insta::assert_snapshot!(String::from_utf8(body).unwrap(), @r#"00112233445566778899aabbccddeeff 2026-01-01T00:05:01.25Z done High duckdb 1767225900.0"#);
        let pending = compose(&config, &Triage::Pending, false).unwrap().body;
        assert!(String::from_utf8(pending).unwrap().contains(" pending  duckdb "));
    }

    #[test]
    fn a_body_that_its_template_makes_no_json_is_sent_as_it_was_written() {
        let request =
            compose(&config(&[], Some("not {json: {{ rule.name }}")), &Triage::Skipped, false).unwrap();
        assert_eq!(request.body, b"not {json: SSH login loop");
    }

    #[test]
    fn a_broken_template_is_found_when_the_webhook_is_made() {
        let error = Generic::new(&config(&[], Some("{% if %}"))).err().unwrap().to_string();
        assert!(error.starts_with("template line 1: "), "{error}");
    }
}
