//! ClickHouse over HTTP.

mod failure;
mod hosts;
mod kinds;
mod reading;
mod statement;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};

use self::hosts::{Hosts, Login};
use super::{Datasource, Limits, QueryError, Rows, SettingsError};
use crate::clock::Window;
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};

section! {
    /// ClickHouse over HTTP: SQL over one server, or several with the same data.
    ///
    /// A rule is one statement that only reads; the server refuses anything else (`readonly`). It has no `FORMAT` of
    /// its own. Rows beyond `max_rows` are counted and not kept. A query whose time is up is ended in the server too.
    /// The user needs no more than `SELECT`; give its profile `readonly = 2` rather than 1, or the server lets nobody
    /// choose how times and special numbers are written.
    pub struct Config {
        /// Name or address of the server, e.g. `10.0.0.5`, with a port of its own or without: `10.0.0.5:9123`. A list is
        /// several servers with the same data, best first: one that does not answer is passed over, and for half a
        /// minute asked last. Needed unless there is a `url`.
        #[read(hosts)]
        pub host: Vec<String> = "[]",
        /// The port of ClickHouse's HTTP interface, also where TLS is used (there it is often 8443).
        pub port: u16 = "8123",
        /// The whole address instead of `host`, `port` and `secure`, e.g. `https://logs.example/clickhouse`.
        pub url: Option<Url>,
        /// Who asks.
        pub username: String = "default",
        /// `default` where nothing is written, as in clickdetect.
        pub password: Secret = "default",
        /// The database of tables that are named without one.
        pub database: String = "default",
        /// Whether TLS is used, e.g. `true`. Where this is not written, `verify: true` means yes, as in clickdetect, and
        /// anything else no; a `url` says it by itself.
        pub secure: Option<bool>,
        /// Whether the server's certificate is verified: yes, unless this is `false`.
        pub verify: Option<bool>,
        /// Certificates (PEM) that are trusted besides the system's, e.g. `/etc/watchpost/clickhouse-ca.pem`.
        pub ca: Option<PathBuf>,
        /// ClickHouse's settings for every query, e.g. `{max_threads: 2, max_memory_usage: 2000000000}`.
        #[read(settings)]
        pub settings: BTreeMap<String, String> = "{}",
    }
}

/// The datasource `clickhouse`.
///
/// A value becomes the JSON that `kinds` describes.
pub struct ClickHouse {
    hosts: Hosts,
    settings: Map<String, Value>,
}

impl ClickHouse {
    /// Opens nothing: the first query does.
    pub fn new(config: &Config) -> Result<Self, SettingsError> {
        let urls = config.urls()?;
        let is_secure = urls.iter().any(|url| url.as_str().starts_with("https:"));
        if config.ca.is_some() && !is_secure {
            return Err(wrong("`ca` is for TLS, which is not used: write `secure: true`"));
        }
        let login =
            Login { username: &config.username, password: &config.password, database: &config.database };
        let verify = config.verify.unwrap_or(true);
        let hosts = Hosts::new(&urls, verify, config.ca.as_ref(), &login, config.settings.clone())?;
        let port = config
            .url
            .as_ref()
            .and_then(|url| reqwest::Url::parse(url.as_str()).ok()?.port_or_known_default());
        let settings = Map::from_iter([
            ("type".to_owned(), json!("clickhouse")),
            ("database".to_owned(), json!(config.database)),
            ("port".to_owned(), json!(port.unwrap_or(config.port))),
            ("verify".to_owned(), json!(config.verify.unwrap_or(false))),
        ]);
        Ok(Self { hosts, settings })
    }
}

impl Config {
    /// Where the servers are, best first.
    fn urls(&self) -> Result<Vec<Url>, SettingsError> {
        match (&self.url, self.host.as_slice()) {
            (None, []) => Err(wrong("the key `host` is missing: write e.g. `host: 10.0.0.5`")),
            (Some(_), [_, ..]) => Err(wrong("`host` and `url` are both here: keep one")),
            (Some(url), []) => {
                let is_https = url.as_str().starts_with("https:");
                if self.secure.is_some_and(|secure| secure != is_https) {
                    return Err(wrong("`secure` says other than `url`: remove it"));
                }
                let parsed =
                    reqwest::Url::parse(url.as_str()).map_err(|_| wrong("`url` is not an address"))?;
                if !parsed.username().is_empty() || parsed.password().is_some() || parsed.query().is_some() {
                    return Err(wrong(
                        "`url` takes no login and no query: use `username`, `password` and `settings`",
                    ));
                }
                Ok(vec![url.clone()])
            }
            (None, hosts) => {
                // clickdetect's `verify` switches TLS on.
                let scheme = if self.secure.unwrap_or(self.verify == Some(true)) { "https" } else { "http" };
                let url = |host: &String| address(scheme, host, self.port);
                hosts.iter().map(|host| url(host).ok_or_else(|| wrong("`host` is not a host"))).collect()
            }
        }
    }
}

#[async_trait]
impl Datasource for ClickHouse {
    async fn query(&self, query: &str, _window: Window, limits: &Limits) -> Result<Rows, QueryError> {
        if query.trim().is_empty() {
            return Err(QueryError::Refused("the query is empty".into()));
        }
        if statement::has_format(query) {
            return Err(QueryError::Refused("a rule has no `FORMAT` of its own here: remove it".into()));
        }
        let answer = tokio::time::timeout(limits.time, self.hosts.query(query, limits));
        answer.await.unwrap_or(Err(QueryError::TimedOut { limit: limits.time }))
    }

    async fn probe(&self, limit: Duration) -> Result<String, QueryError> {
        let limits = Limits { time: limit, ..Limits::default() };
        let answer = tokio::time::timeout(limit, self.hosts.query("SELECT version() AS version", &limits));
        let rows = answer.await.unwrap_or(Err(QueryError::TimedOut { limit }))?;
        let version = rows.rows.first().and_then(|row| row.get("version")).and_then(Value::as_str);
        version
            .map(|version| format!("ClickHouse {version}"))
            .ok_or_else(|| QueryError::Unreadable("it tells no version".into()))
    }

    fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }
}

fn wrong(message: &str) -> SettingsError {
    SettingsError(message.to_owned())
}

/// The address of `host`, which may have a port of its own and may be an IPv6 address.
fn address(scheme: &str, host: &str, port: u16) -> Option<Url> {
    let host = match host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    };
    let mut url = reqwest::Url::parse(&format!("{scheme}://{host}")).ok()?;
    let is_bare =
        url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    if !is_bare || host.contains(['/', '?', '#', '@', '\\']) {
        return None;
    }
    // A port that is the scheme's own is not told by `port()`.
    let has_port =
        host.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    if !has_port {
        url.set_port(Some(port)).ok()?;
    }
    url.as_str().parse().ok()
}

fn hosts(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let hosts = Vec::<String>::from_yaml(node, reader)?;
    if hosts.iter().all(|host| address("http", host, 8123).is_some()) {
        return Some(hosts);
    }
    reader
        .error(node.at, "not a host: write a name or an address, e.g. `10.0.0.5`; a whole address is `url`");
    None
}

fn settings(node: &Node, reader: &mut Reader<'_>) -> Option<BTreeMap<String, String>> {
    let settings = BTreeMap::<String, String>::from_yaml(node, reader)?;
    let mut good = true;
    for entry in node.entries().unwrap_or_default() {
        let name = entry.key.as_str();
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let message = match name {
            _ if !is_name => "not the name of a setting: letters, digits and `_`",
            _ if OURS.contains(&name) || name.starts_with("param_") => "this one is ours to say: remove it",
            _ => continue,
        };
        reader.within(name, |reader| reader.error(entry.at, message));
        good = false;
    }
    good.then_some(settings)
}

/// What an address can say that is no setting, and the settings on which reading a result depends.
const OURS: [&str; 23] = [
    "add_http_cors_header",
    "buffer_size",
    "client_protocol_version",
    "close_session",
    "compress",
    "database",
    "date_time_output_format",
    "decompress",
    "default_format",
    "enable_http_compression",
    "output_format_json_quote_64bit_integers",
    "output_format_json_quote_decimals",
    "output_format_json_quote_denormals",
    "output_format_json_validate_utf8",
    "password",
    "query",
    "query_id",
    "quota_key",
    "readonly",
    "role",
    "session_id",
    "stacktrace",
    "user",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn config(settings: &str) -> Result<Config, String> {
        let mut reader = Reader::new("runner.yml", settings, std::path::Path::new("/etc"), None);
        let node = reader.parse().unwrap();
        let config = Config::from_yaml(&node, &mut reader);
        let problems = reader.into_diagnostics();
        config
            .filter(|_| problems.is_empty())
            .ok_or_else(|| problems.iter().map(ToString::to_string).collect())
    }

    fn urls(settings: &str) -> Result<Vec<String>, String> {
        let urls = config(settings)?.urls().map_err(|error| error.to_string())?;
        Ok(urls.iter().map(|url| url.as_str().to_owned()).collect())
    }

    fn one(settings: &str) -> String {
        urls(settings).unwrap().concat()
    }

    #[test]
    fn clickdetects_settings_reach_the_same_server() {
        assert_eq!(one("{host: localhost}"), "http://localhost:8123/");
        assert_eq!(one("{host: ch.example, port: 8443, verify: true}"), "https://ch.example:8443/");
        assert_eq!(one("{host: ch.example, verify: false}"), "http://ch.example:8123/");
        let config = config("{host: a, verify: true}").unwrap();
        assert_eq!((config.username.as_str(), config.password.reveal()), ("default", "default"));
        let source = ClickHouse::new(&config).unwrap();
        let told = json!({"type": "clickhouse", "database": "default", "port": 8123, "verify": true});
        assert_eq!(Value::Object(source.settings().clone()), told);
    }

    #[test]
    fn tls_is_what_the_operator_says() {
        assert_eq!(one("{host: a, secure: true, verify: false}"), "https://a:8123/");
        assert_eq!(one("{host: a, secure: false, verify: true}"), "http://a:8123/");
        assert_eq!(one("{url: 'https://a.example/ch'}"), "https://a.example/ch");
        let missing = config("{host: a, ca: ca.pem}").unwrap();
        assert!(ClickHouse::new(&missing).err().unwrap().to_string().contains("`secure: true`"));
    }

    #[test]
    fn several_hosts_may_have_ports_of_their_own() {
        let urls = urls("{host: [a, 'b:9000', '::1', '[::2]:80'], port: 8124}").unwrap();
        assert_eq!(urls, ["http://a:8124/", "http://b:9000/", "http://[::1]:8124/", "http://[::2]/"]);
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for (settings, told) in [
            ("{}", "`host` is missing"),
            ("{host: a, url: 'http://b'}", "keep one"),
            ("{url: 'http://b', secure: true}", "`secure` says other"),
            ("{url: 'http://me:pw@b'}", "takes no login"),
            ("{host: 'http://a'}", "not a host"),
            ("{host: 'a/b'}", "not a host"),
            ("{host: 'a b'}", "not a host"),
            ("{host: a, settings: {readonly: 0}}", "ours to say"),
            ("{host: a, settings: {'a b': 0}}", "not the name of a setting"),
            ("{host: a, port: 70000}", "65535"),
        ] {
            let error = urls(settings).unwrap_err();
            assert!(error.contains(told), "{settings}: {error}");
        }
    }
}
