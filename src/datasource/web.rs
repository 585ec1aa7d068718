//! A store that speaks HTTP: where it is, who we are there, and what its answers mean.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::time::Instant;

use super::{QueryError, SettingsError, bounded};
use crate::config::{Secret, Url, section};
use crate::http::{Destination, Http, HttpError, Reply, Request};

section! {
    /// Who we are to a store that speaks HTTP, and how it is known for the one.
    pub struct Access {
        /// The name for HTTP's basic authentication; none by default.
        pub username: Option<String>,
        /// The password that goes with `username`, e.g. `{env: LOGS_PASSWORD}`.
        pub password: Option<Secret>,
        /// Whether the server's certificate is verified. clickdetect's default was `false`; of Elasticsearch and OpenSearch it
        /// verified none.
        pub verify: bool = "true",
        /// A file of certificates (PEM) that are trusted besides the system's, e.g. `/etc/ssl/logs-ca.pem`.
        pub ca: Option<PathBuf>,
    }
}

impl Access {
    /// The server at `url`. Each request has `headers`, names in lower case, and the login unless they hold another.
    /// Fails where `ca` cannot be read, or the system has no certificates to verify the server with.
    pub(super) fn server(
        &self,
        url: &Url,
        headers: impl IntoIterator<Item = (String, Secret)>,
    ) -> Result<Server, SettingsError> {
        let mut headers: Vec<_> = headers.into_iter().collect();
        if !headers.iter().any(|(name, _)| name == AUTHORIZATION) {
            headers.extend(basic(self.username.as_deref(), self.password.as_ref()));
        }
        Server::new(url, self.verify, self.ca.clone(), headers)
    }
}

/// One server, with a client of its own that reaches nothing else.
pub(super) struct Server {
    http: Http,
    /// Its path without a slash at the end.
    base: Destination,
    /// Sent with every request; names in lower case.
    headers: Vec<(String, Secret)>,
}

/// Finds a store's own message in the body of an answer that is an error; `None` where it has none.
pub(super) type Words = fn(&[u8]) -> Option<String>;

impl Server {
    /// Fails where `ca` cannot be read, or the system has no certificates to verify the server with.
    pub(super) fn new(
        url: &Url,
        verify: bool,
        ca: Option<PathBuf>,
        headers: Vec<(String, Secret)>,
    ) -> Result<Self, SettingsError> {
        let url = url.as_str().trim_end_matches('/').parse().unwrap_or_else(|()| url.clone());
        let base = Destination { url, verify, ca };
        let http = Http::new([base.clone()]).map_err(|error| SettingsError(error.to_string()))?;
        Ok(Self { http, base, headers })
    }

    /// `GET` of a path that begins with `/`, below the server's own, with `query` encoded.
    pub(super) fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        deadline: Deadline,
    ) -> Result<Request, QueryError> {
        self.request("GET", path, query, deadline)
    }

    /// `POST` of `body`.
    pub(super) fn post(
        &self,
        path: &str,
        query: &[(&str, &str)],
        content_type: &str,
        body: Vec<u8>,
        deadline: Deadline,
    ) -> Result<Request, QueryError> {
        let mut request = self.request("POST", path, query, deadline)?;
        request.headers.push(("content-type".into(), Secret::new(content_type)));
        request.body = body;
        Ok(request)
    }

    /// A request without a body, whatever its method.
    pub(super) fn request(
        &self,
        method: &'static str,
        path: &str,
        query: &[(&str, &str)],
        deadline: Deadline,
    ) -> Result<Request, QueryError> {
        let url = below(&self.base.url, path, query)
            .ok_or_else(|| QueryError::Refused(format!("`{path}` makes no address")))?;
        Ok(Request {
            method,
            to: Destination { url, ..self.base.clone() },
            headers: self.headers.clone(),
            body: Vec::new(),
            timeout: deadline.left()?,
        })
    }

    /// Sends `request`, and returns the body of a good answer (2xx) as it comes.
    pub(super) async fn send(&self, request: &Request, words: Words) -> Result<Body, QueryError> {
        let mut reply = self.http.open(request).await.map_err(|error| unanswered(error, request.timeout))?;
        let status = reply.status();
        if (200..300).contains(&status) {
            return Ok(Body { reply, limit: request.timeout, buffer: BytesMut::new(), is_ended: false });
        }
        let body = reply.beginning(MAX_ERROR_BYTES).await;
        let said = words(&body).unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
        Err(refusal(status, &redacted(request, said), reply.header("location"), request.timeout))
    }

    /// Sends `request`, and gives the whole body of a good answer to `read`, on a thread where that may take its time.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        request: &Request,
        words: Words,
        read: impl FnOnce(&[u8]) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let body = self.send(request, words).await?.whole().await?;
        tokio::task::spawn_blocking(move || read(&body))
            .await
            .map_err(|error| QueryError::Unreadable(format!("reading it failed inside: {error}")))?
    }
}

/// The body of a good answer.
pub(super) struct Body {
    reply: Reply,
    limit: Duration,
    buffer: BytesMut,
    is_ended: bool,
}

impl Body {
    /// The next piece as it came, `None` at the end; for a reader that takes nothing but pieces.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, QueryError> {
        let piece = self.reply.chunk().await.map_err(|error| match error {
            HttpError::TimedOut { .. } => QueryError::TimedOut { limit: self.limit },
            error => QueryError::Unreadable(format!("it broke off: {error}")),
        })?;
        self.is_ended = piece.is_none();
        Ok(piece)
    }

    /// All of it, [`MAX_BODY_BYTES`] at most.
    pub(super) async fn whole(mut self) -> Result<Vec<u8>, QueryError> {
        while self.fill().await? {
            if self.buffer.len() > MAX_BODY_BYTES {
                return Err(QueryError::Refused(format!(
                    "the answer has more than {MAX_BODY_BYTES} bytes: let the query return less"
                )));
            }
        }
        Ok(self.buffer.into())
    }

    /// The next line without its end, `None` after the last; empty lines are passed over. A line takes
    /// [`MAX_LINE_BYTES`] at most.
    pub(super) async fn line(&mut self) -> Result<Option<BytesMut>, QueryError> {
        let mut searched = 0;
        loop {
            let end = self.buffer[searched..].iter().position(|&byte| byte == b'\n').map(|at| searched + at);
            let line = match end {
                Some(end) => {
                    let line = self.buffer.split_to(end);
                    self.buffer.advance(1);
                    line
                }
                None if self.is_ended && self.buffer.is_empty() => return Ok(None),
                None if self.is_ended => self.buffer.split(),
                None => {
                    searched = self.buffer.len();
                    if searched > MAX_LINE_BYTES {
                        let message =
                            format!("a row has more than {MAX_LINE_BYTES} bytes: select less of it");
                        return Err(QueryError::Refused(message));
                    }
                    self.fill().await?;
                    continue;
                }
            };
            searched = 0;
            if !line.trim_ascii().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    async fn fill(&mut self) -> Result<bool, QueryError> {
        if let Some(piece) = self.piece().await? {
            self.buffer.extend_from_slice(&piece);
        }
        Ok(!self.is_ended)
    }
}

/// When a query's time is up, over all the requests that it takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    pub(super) fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    /// What is left of it; fails where nothing is.
    pub(super) fn left(&self) -> Result<Duration, QueryError> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.is_up()) } else { Ok(left) }
    }

    /// `error` as the query's: where one request's time was up, so was the query's.
    pub(super) fn said(&self, error: QueryError) -> QueryError {
        if matches!(error, QueryError::TimedOut { .. }) { self.is_up() } else { error }
    }

    /// What is said when nothing is left.
    pub(super) fn is_up(&self) -> QueryError {
        QueryError::TimedOut { limit: self.limit }
    }
}

/// The header for HTTP's basic authentication; none where there is no name.
pub(super) fn basic(username: Option<&str>, password: Option<&Secret>) -> Option<(String, Secret)> {
    let username = username.filter(|name| !name.is_empty())?;
    let pair = format!("{username}:{}", password.map_or("", Secret::reveal));
    Some((AUTHORIZATION.into(), Secret::new(format!("Basic {}", STANDARD.encode(pair)))))
}

const AUTHORIZATION: &str = "authorization";

/// `text` as one segment of a path. Escapes that it has already stay, e.g. `%3Clogs-%7Bnow%2Fd%7D%3E`.
pub(super) fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        let is_escape =
            || text.as_bytes().get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
        match byte {
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b'*'
            | b','
            | b':'
            | b'+' => {
                segment.push(char::from(byte));
            }
            b'%' if is_escape() => segment.push('%'),
            byte => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

/// `url` with `path` and `query` behind it.
fn below(url: &Url, path: &str, query: &[(&str, &str)]) -> Option<Url> {
    let mut parsed = reqwest::Url::parse(url.as_str()).ok()?;
    let path = format!("{}{path}", parsed.path().trim_end_matches('/'));
    parsed.set_path(&path);
    if !query.is_empty() {
        parsed.query_pairs_mut().extend_pairs(query);
    }
    parsed.as_str().parse().ok()
}

/// What an answer says without the secrets of its request: servers and proxies like to repeat what they were sent.
fn redacted(request: &Request, said: String) -> String {
    let values =
        request.headers.iter().filter(|(name, _)| name != "content-type").map(|(_, value)| value.reveal());
    values.flat_map(secrets_of).fold(said, |said, secret| said.replace(&secret, "***"))
}

/// What of a header's value is secret: behind the scheme (`Basic`, `ApiKey`) all, and the password in a basic login.
fn secrets_of(value: &str) -> Vec<String> {
    let words: Vec<&str> = value.split_whitespace().collect();
    let mut secrets: Vec<String> =
        words[usize::from(words.len() > 1)..].iter().map(|word| (*word).to_owned()).collect();
    if let Some(pair) = value.strip_prefix("Basic ").and_then(|encoded| STANDARD.decode(encoded).ok()) {
        secrets
            .extend(String::from_utf8_lossy(&pair).split_once(':').map(|(_, password)| password.to_owned()));
    }
    // A shorter one stands in innocent text too.
    secrets.retain(|secret| secret.len() >= 4);
    secrets
}

fn unanswered(error: HttpError, limit: Duration) -> QueryError {
    match error {
        HttpError::TimedOut { .. } => QueryError::TimedOut { limit },
        error => QueryError::Unavailable(error.to_string()),
    }
}

/// What an answer that is not 2xx says.
fn refusal(status: u16, said: &str, location: Option<&str>, limit: Duration) -> QueryError {
    let message = match bounded(said) {
        said if said.is_empty() => format!("HTTP {status}"),
        said => format!("HTTP {status}: {said}"),
    };
    match status {
        401 | 403 | 407 => QueryError::Denied(message),
        408 | 504 => QueryError::TimedOut { limit },
        425 | 429 | 500..=599 => QueryError::Unavailable(message),
        300..=399 => {
            let location = bounded(location.unwrap_or_default());
            QueryError::Unavailable(format!(
                "HTTP {status}: redirects are not followed: set `url` to where it leads: `{location}`"
            ))
        }
        _ => QueryError::Refused(message),
    }
}

/// Of an answer that is an error.
const MAX_ERROR_BYTES: usize = 16 << 10;
/// Of a body that is read as a whole.
const MAX_BODY_BYTES: usize = 64 << 20;
const MAX_LINE_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_go_behind_the_servers_own_path() {
        let at = |url: &str| below(&url.parse().unwrap(), "/a b/_search", &[("q", "x&y=ü")]).unwrap();
        for url in ["https://es.example/es", "https://es.example/es/"] {
            assert_eq!(at(url).as_str(), "https://es.example/es/a%20b/_search?q=x%26y%3D%C3%BC");
        }
        assert_eq!(
            at("http://es.example:9200").as_str(),
            "http://es.example:9200/a%20b/_search?q=x%26y%3D%C3%BC"
        );
    }

    #[test]
    fn a_segment_of_a_path_has_no_meaning_but_its_text() {
        assert_eq!(segment("logs-*,other:a_b"), "logs-*,other:a_b");
        assert_eq!(segment("<logs-{now/d}>"), "%3Clogs-%7Bnow%2Fd%7D%3E");
        assert_eq!(segment("%3Clogs%3E?x=100%"), "%3Clogs%3E%3Fx%3D100%25");
    }

    #[test]
    fn each_class_of_answer_is_told_apart() {
        let limit = Duration::from_secs(5);
        let of = |status| refusal(status, " no ", Some("https://b.example/"), limit);
        assert!(matches!(of(400), QueryError::Refused(text) if text == "HTTP 400: no"));
        assert!(matches!(of(404), QueryError::Refused(_)));
        assert!(matches!(of(401), QueryError::Denied(text) if text == "HTTP 401: no"));
        assert!(matches!(of(403), QueryError::Denied(_)));
        assert!(matches!(of(429), QueryError::Unavailable(text) if text == "HTTP 429: no"));
        assert!(matches!(of(500), QueryError::Unavailable(_)));
        assert!(matches!(of(504), QueryError::TimedOut { .. }));
        assert!(matches!(of(302), QueryError::Unavailable(text) if text.contains("`https://b.example/`")));
        assert!(matches!(refusal(404, "", None, limit), QueryError::Refused(text) if text == "HTTP 404"));
    }

    #[test]
    fn an_answer_that_repeats_a_login_is_told_without_it() {
        let mut request = Request {
            method: "GET",
            to: Destination { url: "http://a.example/".parse().unwrap(), verify: true, ca: None },
            headers: vec![basic(Some("ana"), Some(&Secret::new("hunter2"))).unwrap()],
            body: Vec::new(),
            timeout: Duration::from_secs(1),
        };
        request.headers.push(("content-type".into(), Secret::new("application/json")));
        let said = "no Basic YW5hOmh1bnRlcjI= here: ana, hunter2 (application/json)".to_owned();
        assert_eq!(redacted(&request, said), "no Basic *** here: ana, *** (application/json)");
    }

    #[test]
    fn a_login_without_a_name_is_none() {
        let password = Secret::new("s3cret");
        assert_eq!(basic(None, Some(&password)), None);
        assert_eq!(basic(Some(""), Some(&password)), None);
        let (name, value) = basic(Some("ana"), Some(&password)).unwrap();
        assert_eq!((name.as_str(), value.reveal()), ("authorization", "Basic YW5hOnMzY3JldA=="));
    }
}
