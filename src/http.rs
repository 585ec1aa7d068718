//! The one HTTP client. It reaches the destinations that the configuration names and nothing else: no proxy
//! from the environment, no redirect followed, no connection to any other host.

pub mod tls;

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::config::{Secret, Url};

/// A place that the configuration names, and how far it is trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub url: Url,
    /// Whether the server's certificate is verified.
    pub verify: bool,
    /// Certificates (PEM) that are trusted besides the system's.
    pub ca: Option<PathBuf>,
}

/// One request, ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: &'static str,
    /// Same scheme, host and port as a [`Destination`] with the same trust, or it is not sent.
    pub to: Destination,
    /// Names in lower case.
    pub headers: Vec<(String, Secret)>,
    pub body: Vec<u8>,
    /// For the whole exchange, connect to last byte of the answer.
    pub timeout: Duration,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.method, self.to.url, self.body.len())
    }
}

impl Request {
    /// `text`, e.g. of an answer, without what this request keeps secret: its headers' values, its query and, where
    /// that is a secret, its path. Servers and proxies like to repeat what they were sent.
    pub fn redact(&self, text: &str) -> String {
        let mut secrets: Vec<String> = Vec::new();
        for (name, value) in &self.headers {
            if !PUBLIC_HEADERS.contains(&name.as_str()) {
                // `Bearer TOKEN` is a secret, and so is `TOKEN`.
                secrets.extend(value.reveal().split_whitespace().map(str::to_owned));
            }
        }
        if let Ok(url) = parse(&self.to.url) {
            secrets.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
            secrets
                .extend(url.query().into_iter().flat_map(|query| query.split(['&', '='])).map(str::to_owned));
            secrets.extend(url.password().map(str::to_owned));
            if self.to.url.has_secret_path() {
                secrets.push(url.path().to_owned());
                // Of `/bot123:TOKEN/sendMessage` the token alone is one too.
                secrets.extend(
                    url.path().split('/').flat_map(|segment| segment.split([':', '%'])).map(str::to_owned),
                );
            }
        }
        // A word of a language is no secret, and too short a one would take innocent text with it.
        secrets.retain(|secret| {
            secret.len() >= 6 && !secret.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-')
        });
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// As the server wrote it.
    pub retry_after: Option<String>,
    /// Where a redirect points; it is not followed.
    pub location: Option<String>,
    /// The beginning of the body, as long as the caller asked for.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The destination's settings cannot work; found before the first request.
    #[error("{destination}: {reason}")]
    Settings { destination: Url, reason: String },
    /// A bug or a trick: nothing was sent.
    #[error("{0} is not a destination of the configuration: nothing was sent")]
    Forbidden(Url),
    /// Worth another attempt.
    #[error("{host} did not answer within {limit:?}")]
    TimedOut { host: String, limit: Duration },
    /// Name not known, connection refused or cut, certificate not trusted: worth another attempt.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable { host: String, reason: String },
    /// Not a request that can be sent, e.g. a header's value with a line break in it.
    #[error("the request to {host} cannot be sent: {reason}")]
    Invalid { host: String, reason: String },
}

/// The client. One for the process, since connections are kept and used again.
pub struct Http {
    routes: Vec<Route>,
}

struct Route {
    destination: Destination,
    origin: String,
    client: reqwest::Client,
}

impl Http {
    /// A client that can reach `destinations` and nothing else.
    ///
    /// Fails where `ca` cannot be read, or where an `https` destination is to be verified and the system has no
    /// certificates to verify it with.
    pub fn new(destinations: impl IntoIterator<Item = Destination>) -> Result<Self, HttpError> {
        let mut routes: Vec<Route> = Vec::new();
        for destination in destinations {
            let settings =
                |reason: String| HttpError::Settings { destination: destination.url.clone(), reason };
            let url = parse(&destination.url).map_err(settings)?;
            let same = routes.iter().find(|route| route.trusts_like(&destination, url.scheme()));
            let client = match same {
                Some(route) => route.client.clone(),
                None => client(&destination, url.scheme()).map_err(settings)?,
            };
            routes.push(Route { origin: url.origin().ascii_serialization(), destination, client });
        }
        Ok(Self { routes })
    }

    /// Sends `request` once and returns what came back, with the first `keep` bytes of its body. A body that breaks
    /// off is worth no error: the status has come and counts.
    pub async fn send(&self, request: &Request, keep: usize) -> Result<Answer, HttpError> {
        let mut reply = self.open(request).await?;
        let header = |name| reply.header(name).map(str::to_owned);
        let (retry_after, location) = (header("retry-after"), header("location"));
        let body = reply.beginning(keep).await;
        Ok(Answer { status: reply.status(), retry_after, location, body })
    }

    /// Sends `request` once and returns when status and headers have come; the body is read from the [`Reply`].
    /// Dropping it closes the connection.
    pub async fn open(&self, request: &Request) -> Result<Reply, HttpError> {
        let host = host(&request.to.url);
        let invalid = |reason: String| HttpError::Invalid { host: host.clone(), reason };
        let url = parse(&request.to.url).map_err(invalid)?;
        let origin = url.origin().ascii_serialization();
        let route = self
            .routes
            .iter()
            .find(|route| route.origin == origin && route.trusts_like(&request.to, url.scheme()))
            .ok_or_else(|| HttpError::Forbidden(request.to.url.clone()))?;

        let method = reqwest::Method::from_bytes(request.method.as_bytes());
        let method = method.map_err(|error| invalid(error.to_string()))?;
        let mut builder = route.client.request(method, url).timeout(request.timeout);
        for (name, value) in &request.headers {
            builder = builder.header(name, value.reveal());
        }
        let sent = builder.body(request.body.clone()).send().await;
        match sent {
            Ok(response) => Ok(Reply { response, host, limit: request.timeout }),
            Err(error) if error.is_builder() => Err(HttpError::Invalid { host, reason: reason(&error) }),
            Err(error) => Err(no_answer(&error, &host, request.timeout)),
        }
    }
}

/// What is coming back.
pub struct Reply {
    response: reqwest::Response,
    host: String,
    limit: Duration,
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// `host` or `host:port`, for messages.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// A header's value, where it is text; the name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The next piece of the body, `None` at its end. Fails where the body breaks off or the request's time is up.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        self.response.chunk().await.map_err(|error| no_answer(&error, &self.host, self.limit))
    }

    /// The first `keep` bytes, or what came of them. Reads on past them, so that the connection can be used again,
    /// but stops at [`MAX_DRAINED_BYTES`].
    pub async fn beginning(&mut self, keep: usize) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut read = 0;
        while let Ok(Some(chunk)) = self.chunk().await {
            read += chunk.len();
            let room = keep.saturating_sub(kept.len()).min(chunk.len());
            kept.extend_from_slice(&chunk[..room]);
            if read >= MAX_DRAINED_BYTES.max(keep) {
                break;
            }
        }
        kept
    }
}

fn no_answer(error: &reqwest::Error, host: &str, limit: Duration) -> HttpError {
    let host = host.to_owned();
    if error.is_timeout() {
        HttpError::TimedOut { host, limit }
    } else {
        HttpError::Unreachable { host, reason: reason(error) }
    }
}

impl Route {
    fn trusts_like(&self, other: &Destination, scheme: &str) -> bool {
        self.destination.verify == other.verify
            && self.destination.ca == other.ca
            && self.origin.split(':').next() == Some(scheme)
    }
}

fn client(destination: &Destination, scheme: &str) -> Result<reqwest::Client, String> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls::config(destination, scheme == "https")?)
        .user_agent(concat!("watchpost/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .build()
        .map_err(|error| reason(&error))
}

fn parse(url: &Url) -> Result<reqwest::Url, String> {
    reqwest::Url::parse(url.as_str()).map_err(|error| error.to_string())
}

/// For messages: never the path or the query, which may be secret.
fn host(url: &Url) -> String {
    let Ok(url) = reqwest::Url::parse(url.as_str()) else { return "***".to_owned() };
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (host, _) => host.unwrap_or("***").to_owned(),
    }
}

/// What lies beneath: the outer layers only say that sending failed, and name the whole URL.
fn reason(error: &reqwest::Error) -> String {
    let mut reasons: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !reasons.iter().any(|known| known.contains(&text)) {
            reasons.push(text);
        }
        source = inner.source();
    }
    match reasons.len() {
        0 => "the request failed".to_owned(),
        // e.g. `client error (Connect)`, a word of the library.
        1 => reasons.remove(0),
        _ => reasons[1..].join(": "),
    }
}

/// An address in the site's own network answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than the idle time of common servers and proxies, which close without a word.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_DRAINED_BYTES: usize = 64 << 10;
/// Headers whose values are no secrets.
const PUBLIC_HEADERS: [&str; 6] =
    ["content-type", "accept", "user-agent", "idempotency-key", "watchpost-alert-id", "watchpost-update"];

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(url: &str) -> Destination {
        Destination { url: url.parse().unwrap(), verify: true, ca: None }
    }

    fn request(to: Destination) -> Request {
        let headers = vec![("authorization".to_owned(), Secret::new("Bearer s3cret"))];
        Request { method: "POST", to, headers, body: b"{}".to_vec(), timeout: Duration::from_secs(5) }
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_host_port_or_scheme_that_the_configuration_does_not_name() {
        let http = Http::new([destination("http://127.0.0.1:9/alerts")]).unwrap();
        for other in ["http://127.0.0.2:9/alerts", "http://127.0.0.1:10/alerts", "https://127.0.0.1:9/alerts"]
        {
            let error = http.send(&request(destination(other)), 10).await.unwrap_err();
            assert!(matches!(error, HttpError::Forbidden(_)), "{other}: {error}");
        }
        let trusting = Destination { verify: false, ..destination("http://127.0.0.1:9/alerts") };
        assert!(matches!(http.send(&request(trusting), 10).await, Err(HttpError::Forbidden(_))));
    }

    #[test]
    fn a_destination_whose_certificates_cannot_be_read_is_refused_at_the_start() {
        let missing = Destination {
            ca: Some("/no/such/ca.pem".into()),
            ..destination("https://soc.example/x?key=s3cret")
        };
        let error = Http::new([missing]).err().unwrap().to_string();
        assert!(error.starts_with("https://soc.example/x: `ca`: cannot read `/no/such/ca.pem`"), "{error}");
    }

    #[test]
    fn an_answer_that_repeats_a_secret_is_kept_without_it() {
        let mut request = request(Destination {
            url: "https://h.example/bot123456:AA-bb_77/sendMessage?sig=k3y%2Fk3y"
                .parse::<Url>()
                .unwrap()
                .with_secret_path(),
            ..destination("https://h.example/")
        });
        request.headers.push(("content-type".to_owned(), Secret::new("text/plain; v=100000")));
        let echo = "no /bot123456:AA-bb_77/sendMessage?sig=k3y%2Fk3y here (AA-bb_77, k3y/k3y, Bearer s3cret) text/plain; v=100000";
        let kept = request.redact(echo);
        assert_eq!(kept, "no ***?sig=*** here (***, ***, Bearer ***) text/plain; v=100000");
        let public = Request { to: destination("https://h.example/alerts/2026-a"), ..request };
        assert_eq!(public.redact("404 for /alerts/2026-a"), "404 for /alerts/2026-a");
    }

    #[tokio::test]
    async fn errors_and_debug_output_name_the_host_and_no_secret() {
        let to = destination("http://127.0.0.1:1/hook/s3cret?token=s3cret");
        let http = Http::new([to.clone()]).unwrap();
        let error = http.send(&request(to.clone()), 10).await.unwrap_err();
        assert!(error.to_string().starts_with("127.0.0.1:1 cannot be reached: "), "{error}");
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        assert!(!format!("{:?}", request(destination("http://a.example/?token=s3cret"))).contains("s3cret"));
    }
}
