//! What webhooks share that speak HTTP: their settings, and JSON to an address below one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::{ComposeError, Meaning};
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, defaults, section};
use crate::http::{Answer, Destination, Request};
use crate::rule::template as rule_template;

section! {
    /// How messages reach a receiver that speaks HTTP.
    pub struct Exchange {
        /// Headers of every request, e.g. `Authorization: {env: SOC_TOKEN}`; names in any case. A kind with a key or a login
        /// of its own writes its own `Authorization` in the place of this one.
        #[read(headers)]
        pub headers: BTreeMap<String, Secret> = "{}",
        /// Whether the server's certificate is verified. clickdetect's default was `false` for most kinds.
        pub verify: bool = "true",
        /// Certificates (PEM) that are trusted besides the system's.
        pub ca: Option<PathBuf>,
        /// For a whole exchange, connect to last byte: seconds or a duration.
        #[read(timeout)]
        pub timeout: Duration = "10s",
        /// The longest wait between two attempts, 1 second to 1 hour. Waits grow up to it, and attempts go on for
        /// a day at least.
        #[read(retry_max_wait)]
        pub retry_max_wait: Duration = "15m",
    }
}

impl Default for Exchange {
    fn default() -> Self {
        defaults()
    }
}

/// Where a kind's requests go, and how.
#[derive(Clone, Debug)]
pub struct Endpoint {
    base: Destination,
    /// Sent with every request; names in lower case.
    headers: Vec<(String, Secret)>,
    timeout: Duration,
    retry_max_wait: Duration,
}

impl Endpoint {
    /// With the operator's headers; those added later take the place of one with the same name.
    pub(super) fn new(url: &Url, exchange: &Exchange) -> Self {
        let trimmed = url.as_str().trim().parse().unwrap_or_else(|()| url.clone());
        let url = if url.has_secret_path() { trimmed.with_secret_path() } else { trimmed };
        let endpoint = Self {
            base: Destination { url, verify: exchange.verify, ca: exchange.ca.clone() },
            headers: Vec::new(),
            timeout: exchange.timeout,
            retry_max_wait: exchange.retry_max_wait,
        };
        let headers = exchange.headers.iter();
        headers.fold(endpoint, |endpoint, (name, value)| endpoint.with_header(name, value.clone()))
    }

    /// With a header on every request; the name in any case.
    pub(super) fn with_header(self, name: &str, value: Secret) -> Self {
        let name = name.to_ascii_lowercase();
        let mut endpoint = self.without_header(&name);
        endpoint.headers.push((name, value));
        endpoint
    }

    /// `name` is in lower case.
    pub(super) fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    /// What every request says under a name, which is in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.reveal())
    }

    pub(super) fn destination(&self) -> Destination {
        self.base.clone()
    }

    pub(super) fn retry_max_wait(&self) -> Duration {
        self.retry_max_wait
    }

    /// A request without a body; `path` is empty or begins with `/`, and is already encoded ([`segment`]).
    pub(super) fn request(&self, method: &'static str, path: &str) -> Result<Request, ComposeError> {
        let url = self.below(path).ok_or_else(|| ComposeError(format!("`{path}` makes no address")))?;
        Ok(Request {
            method,
            to: Destination { url, ..self.base.clone() },
            headers: self.headers.clone(),
            body: Vec::new(),
            timeout: self.timeout,
        })
    }

    /// A request with `body` as JSON.
    pub(super) fn json(
        &self,
        method: &'static str,
        path: &str,
        body: &Json,
    ) -> Result<Request, ComposeError> {
        let body = serde_json::to_vec(body).map_err(|error| ComposeError(error.to_string()))?;
        self.with_body(method, path, body)
    }

    /// A request with `body`, which is JSON unless the operator's headers say something else.
    pub(super) fn with_body(
        &self,
        method: &'static str,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Request, ComposeError> {
        let mut request = self.request(method, path)?;
        if self.header("content-type").is_none() {
            request.headers.push(("content-type".into(), Secret::new("application/json")));
        }
        request.body = body;
        Ok(request)
    }

    /// Without a path the address as the operator wrote it. Its query, where there is one, stays behind the path.
    fn below(&self, path: &str) -> Option<Url> {
        if path.is_empty() {
            return Some(self.base.url.clone());
        }
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut url = reqwest::Url::parse(self.base.url.as_str()).ok()?;
        if !path.is_empty() {
            let whole = format!("{}{path}", url.path().trim_end_matches('/'));
            url.set_path(&whole);
        }
        if let Some(query) = query {
            let known = url.query().map(|known| format!("{known}&")).unwrap_or_default();
            url.set_query(Some(&format!("{known}{query}")));
        }
        let url: Url = url.as_str().parse().ok()?;
        Some(if self.base.url.has_secret_path() { url.with_secret_path() } else { url })
    }
}

/// One segment of a path, encoded, so that what an answer or an operator gave cannot lead to another path.
pub(super) fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Whether an answer is a page for people, where an API answers with data: a login in front of it, a wall, a proxy's
/// word of maintenance. Who is given a page has given nothing.
pub(super) fn is_page(answer: &Answer) -> bool {
    answer.body.trim_ascii_start().starts_with(b"<")
}

/// What an answer of an API means: as its status says, but a page is no answer of it.
pub(super) fn judge(answer: &Answer) -> Meaning {
    match Meaning::of_status(answer.status) {
        Meaning::Delivered if is_page(answer) => Meaning::Later { after: None },
        meaning => meaning,
    }
}

/// An address whose path is a secret: whoever knows it may post.
pub(super) fn secret_url(node: &Node, reader: &mut Reader<'_>) -> Option<Url> {
    Url::from_yaml(node, reader).map(Url::with_secret_path)
}

/// An answer's body as text; for people, so it still is to be made safe.
pub(super) fn words(answer: &Answer) -> Cow<'_, str> {
    String::from_utf8_lossy(&answer.body)
}

/// A number or a text at `pointer` of an answer in JSON, as a [`receipt`](super::Webhook::receipt).
pub(super) fn told(answer: &Answer, pointer: &str) -> Option<String> {
    match serde_json::from_slice::<Json>(&answer.body).ok()?.pointer(pointer)? {
        Json::Number(number) => Some(number.to_string()),
        Json::String(text) if (1..=MAX_RECEIPT_BYTES).contains(&text.len()) => Some(text.clone()),
        _ => None,
    }
}

const MAX_RECEIPT_BYTES: usize = 200;

pub(super) fn timeout(node: &Node, reader: &mut Reader<'_>) -> Option<Duration> {
    let timeout = Duration::from_yaml(node, reader)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(600)).contains(&timeout);
    if fits { Some(timeout) } else { reader.refuse(node, "between 0.1s and 10m") }
}

pub(super) fn retry_max_wait(node: &Node, reader: &mut Reader<'_>) -> Option<Duration> {
    let wait = Duration::from_yaml(node, reader)?;
    let fits = (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&wait);
    if fits { Some(wait) } else { reader.refuse(node, "between 1s and 1h") }
}

/// Names in lower case, as HTTP compares them.
pub(super) fn headers(node: &Node, reader: &mut Reader<'_>) -> Option<BTreeMap<String, Secret>> {
    let headers = BTreeMap::<String, Secret>::from_yaml(node, reader)?;
    let mut good = true;
    for entry in node.entries().unwrap_or_default() {
        let value = headers.get(&entry.key).map_or("", Secret::reveal);
        let name_fits = !entry.key.is_empty()
            && entry
                .key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        let value_fits = value.chars().all(|character| character == '\t' || !character.is_control());
        if !(name_fits && value_fits) {
            reader.within(&entry.key, |reader| {
                reader.error(
                    entry.at,
                    "not a header: a name takes letters, digits and `-`, a value no line breaks",
                );
            });
            good = false;
        }
    }
    good.then(|| headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
}

/// A template whose syntax is good.
pub(super) fn template(node: &Node, reader: &mut Reader<'_>) -> Option<Option<String>> {
    let source = String::from_yaml(node, reader)?;
    rule_template::check(&source, node, rule_template::MESSAGE, &rule_template::environment(), reader)
        .then_some(Some(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::new(&url.parse().unwrap(), &Exchange::default())
    }

    #[test]
    fn paths_go_behind_the_address_and_cannot_leave_it() {
        let at =
            |url: &str, path: &str| endpoint(url).request("GET", path).unwrap().to.url.as_str().to_owned();
        assert_eq!(at("https://iris.example/", "/alerts/add"), "https://iris.example/alerts/add");
        assert_eq!(
            at("https://a.example/iris?cid=1", "/alerts/add?x=2"),
            "https://a.example/iris/alerts/add?cid=1&x=2"
        );
        assert_eq!(at("https://hook.example/T/B/?sig=s", ""), "https://hook.example/T/B/?sig=s");
        assert_eq!(at("https://hook.example/T/?a=1", "?wait=true"), "https://hook.example/T/?a=1&wait=true");
        let path = format!("/rooms/{}/send", segment("!a/../b:c?#é"));
        assert_eq!(
            at("https://m.example", &path),
            "https://m.example/rooms/%21a%2F%2E%2E%2Fb%3Ac%3F%23%C3%A9/send"
        );
    }

    #[test]
    fn a_header_is_sent_once_and_ours_is_the_last_word() {
        let headers = BTreeMap::from([("Authorization".to_owned(), Secret::new("theirs"))]);
        let exchange = Exchange { headers, ..Exchange::default() };
        let endpoint = Endpoint::new(&"https://a.example".parse().unwrap(), &exchange)
            .with_header("authorization", Secret::new("ours"));
        let request = endpoint.json("POST", "", &Json::Null).unwrap();
        let sent: Vec<_> =
            request.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
        assert_eq!(sent, [("authorization", "ours"), ("content-type", "application/json")]);
    }
}
