//! HTTP POST to any receiver.
//!
//! Beside the operator's headers each request carries `idempotency-key` (the same for every attempt of one
//! message), `watchpost-alert-id` (the same for an alert and its update), and `watchpost-update: true` where it
//! brings the verdict after a message that had to go without.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};
use crate::http::{Destination, Request};
use crate::rule::template;

use super::template::Template;
use super::{ComposeError, Message, Outgoing, Webhook, payload};

section! {
    /// Posts each alert as JSON to an HTTP receiver.
    pub struct Config {
        /// Where alerts are posted, e.g. `https://soc.example/alerts`.
        pub url: Url,
        /// Headers of the request, e.g. `Authorization: {env: SOC_TOKEN}`; names in any case.
        #[read(headers)]
        pub headers: BTreeMap<String, Secret> = "{}",
        /// For the whole exchange, connect to last byte: seconds or a duration.
        #[read(timeout)]
        pub timeout: Duration = "10s",
        /// Whether the receiver's certificate is verified. clickdetect's default was `false`.
        pub verify: bool = "true",
        /// The body, a Jinja template, e.g. `{"rule": {{ rule | tojson }}}`; the default is clickdetect's body.
        #[read(body)]
        pub template: Option<String>,
        /// Certificates (PEM) that are trusted besides the system's.
        pub ca: Option<PathBuf>,
    }
}

/// Posts to one address.
pub struct Generic {
    destination: Destination,
    headers: Vec<(String, Secret)>,
    timeout: Duration,
    template: Option<Template>,
}

impl Generic {
    /// Fails where `template` is no template.
    pub fn new(config: &Config) -> Result<Self, ComposeError> {
        let mut headers: Vec<_> =
            config.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        let content_type = headers.iter().find(|(name, _)| name == "content-type");
        let is_json = content_type.is_none_or(|(_, value)| is_json(value.reveal()));
        if content_type.is_none_or(|(_, value)| value.reveal().is_empty()) {
            headers.retain(|(name, _)| name != "content-type");
            headers.push(("content-type".into(), Secret::new("application/json")));
        }
        // Ours are promises to the receiver: nobody else writes them.
        headers.retain(|(name, _)| !OURS.contains(&name.as_str()));
        let template = config.template.as_deref().map(|source| Template::new(source, is_json));
        Ok(Self {
            destination: Destination { url: config.url.clone(), verify: config.verify, ca: config.ca.clone() },
            headers,
            timeout: config.timeout,
            template: template.transpose().map_err(ComposeError)?,
        })
    }

    fn body(&self, message: &Message<'_>) -> Result<Vec<u8>, ComposeError> {
        match &self.template {
            Some(template) => template.render(&payload::variables(message)).map_err(ComposeError),
            None => serde_json::to_vec(&payload::body(message)).map_err(|error| ComposeError(error.to_string())),
        }
    }
}

impl Webhook for Generic {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let mut headers = self.headers.clone();
        let mut add = |name: &str, value: &str| headers.push((name.to_owned(), Secret::new(value)));
        add(IDEMPOTENCY_KEY, message.idempotency_key);
        add(ALERT_ID, &message.alert.id);
        if message.is_update {
            add(UPDATE, "true");
        }
        Ok(Outgoing::Http(Request {
            method: "POST",
            to: self.destination.clone(),
            headers,
            body: self.body(message)?,
            timeout: self.timeout,
        }))
    }

    fn destination(&self) -> Option<Destination> {
        Some(self.destination.clone())
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

fn timeout(node: &Node, reader: &mut Reader<'_>) -> Option<Duration> {
    let timeout = Duration::from_yaml(node, reader)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(600)).contains(&timeout);
    if fits { Some(timeout) } else { reader.refuse(node, "between 0.1s and 10m") }
}

/// Names in lower case, as HTTP compares them.
fn headers(node: &Node, reader: &mut Reader<'_>) -> Option<BTreeMap<String, Secret>> {
    let headers = BTreeMap::<String, Secret>::from_yaml(node, reader)?;
    let mut good = true;
    for entry in node.entries().unwrap_or_default() {
        let value = headers.get(&entry.key).map_or("", Secret::reveal);
        let name_fits = !entry.key.is_empty()
            && entry.key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        let value_fits = value.chars().all(|character| character == '\t' || !character.is_control());
        if !(name_fits && value_fits) {
            reader.within(&entry.key, |reader| {
                reader.error(entry.at, "not a header: a name takes letters, digits and `-`, a value no line breaks");
            });
            good = false;
        }
    }
    good.then(|| headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
}

fn body(node: &Node, reader: &mut Reader<'_>) -> Option<Option<String>> {
    let source = String::from_yaml(node, reader)?;
    template::check(&source, node, template::MESSAGE, &template::environment(), reader).then_some(Some(source))
}
