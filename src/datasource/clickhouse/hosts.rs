//! The servers, and a query at one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clickhouse::Client;
use clickhouse::query::BytesCursor;
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;

use super::failure::{self, Exception};
use super::reading::{Fault, Reading};
use crate::config::{Secret, Url};
use crate::datasource::cancel::Cancel;
use crate::datasource::web::basic;
use crate::datasource::{Limits, QueryError, Rows, SettingsError};
use crate::http::{Destination, tls};

/// Servers that all have the same data, best first.
pub(super) struct Hosts {
    hosts: Vec<Host>,
    /// The operator's, sent with every query.
    settings: BTreeMap<String, String>,
}

/// Who asks, and how.
pub(super) struct Login<'a> {
    pub username: &'a str,
    pub password: &'a Secret,
    pub database: &'a str,
}

struct Host {
    /// `name:port`, for messages.
    name: String,
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When it was last found down.
    down: Option<Instant>,
    /// Of our settings, those that the server does not take from this user.
    without: Without,
}

#[derive(Clone, Default)]
struct Without {
    all: bool,
    names: BTreeSet<&'static str>,
}

impl Hosts {
    /// Opens no connection. Fails where `ca` cannot be read.
    pub(super) fn new(
        urls: &[Url],
        verify: bool,
        ca: Option<&PathBuf>,
        login: &Login<'_>,
        settings: BTreeMap<String, String>,
    ) -> Result<Self, SettingsError> {
        let hosts = urls.iter().map(|url| {
            let destination = Destination { url: url.clone(), verify, ca: ca.cloned() };
            Host::new(destination, login, urls.len() > 1)
        });
        Ok(Self { hosts: hosts.collect::<Result<_, _>>().map_err(SettingsError)?, settings })
    }

    /// The rows from the first host that answers. One that does not is passed over, and for [`REST`] asked after the
    /// others.
    pub(super) async fn query(&self, query: &str, limits: &Limits) -> Result<Rows, QueryError> {
        let mut order: Vec<&Host> = self.hosts.iter().collect();
        order.sort_by_key(|host| host.lock().down.filter(|since| since.elapsed() < REST));
        let mut unavailable = None;
        for host in order {
            // Where the time is up meanwhile, this is dropped, and the next query asks another host first.
            let mut asked = Asked { host, is_answered: false };
            match host.query(query, &self.settings, limits).await {
                // What the best one says is what the operator needs.
                Err(error @ QueryError::Unavailable(_)) => {
                    unavailable.get_or_insert(error);
                }
                answer => {
                    asked.is_answered = true;
                    return answer;
                }
            }
        }
        Err(unavailable.unwrap_or_else(|| QueryError::Unavailable("no host is configured".into())))
    }
}

/// Notes on drop whether the host is up.
struct Asked<'a> {
    host: &'a Host,
    is_answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.host.lock().down = (!self.is_answered).then(Instant::now);
    }
}

impl Host {
    fn new(destination: Destination, login: &Login<'_>, has_others: bool) -> Result<Self, String> {
        let url = reqwest::Url::parse(destination.url.as_str()).map_err(|error| error.to_string())?;
        let is_https = url.scheme() == "https";
        let mut config = tls::config(&destination, is_https)?;
        // The connector says by itself what it speaks.
        config.alpn_protocols.clear();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(if has_others { CONNECT_TIME_OF_SEVERAL } else { CONNECT_TIME }));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Hyper::builder(TokioExecutor::new()).pool_idle_timeout(IDLE_TIME).build(connector);
        let mut client = Client::with_http_client(http)
            .with_url(destination.url.as_str())
            .with_database(login.database)
            .with_product_info("watchpost", env!("CARGO_PKG_VERSION"));
        // Not ClickHouse's own headers, which take no letters beyond ASCII.
        if let Some((name, value)) = basic(Some(login.username), Some(login.password)) {
            client = client.with_header(name, value.reveal());
        }
        let name = url.host_str().unwrap_or_default();
        let name = match url.port_or_known_default() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        Ok(Self { name, client, state: Mutex::default() })
    }

    /// Asks, and again with fewer settings where the server does not take them all from this user.
    async fn query(
        &self,
        query: &str,
        operators: &BTreeMap<String, String>,
        limits: &Limits,
    ) -> Result<Rows, QueryError> {
        loop {
            let without = self.lock().without.clone();
            let id = format!("watchpost-{:032x}", rand::random::<u128>());
            let mut request = self.client.query_raw(query).with_setting("query_id", &id);
            for (name, value) in operators {
                request = request.with_setting(name, value);
            }
            for (name, value) in ours(limits) {
                if !without.all && !without.names.contains(name) {
                    request = request.with_setting(name, value);
                }
            }
            let cancel = Cancel::new(kill(self.client.clone(), id));
            let exception = match read(request.fetch_bytes(FORMAT), limits, &self.name).await {
                Ok(rows) => {
                    cancel.disarm();
                    return Ok(rows);
                }
                Err(Failed::ByServer(exception)) => {
                    cancel.disarm();
                    exception
                }
                Err(Failed::Unreached(error)) => {
                    cancel.disarm();
                    return Err(error);
                }
                Err(Failed::Otherwise(error)) => return Err(error),
            };
            if failure::is_timeout(&exception) {
                return Err(failure::timed_out(limits.time));
            }
            if !self.learn(&exception, &without) {
                return Err(exception.into());
            }
        }
    }

    /// Whether asking again with fewer settings is worth it. Never gives up `readonly` alone: where that cannot be set
    /// together with others, the user's own profile has it.
    fn learn(&self, exception: &Exception, asked: &Without) -> bool {
        if !exception.is_about_settings() || asked.all {
            return false;
        }
        if exception.is_about_all_settings() {
            self.lock().without.all = true;
            return true;
        }
        let is_named = |name: &&str| !asked.names.contains(name) && exception.message.contains(name);
        let Some(name) = OPTIONAL.iter().copied().find(is_named) else { return false };
        self.lock().without.names.insert(name);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why one host gave no rows.
enum Failed {
    ByServer(Exception),
    /// There was no connection, so nothing runs there.
    Unreached(QueryError),
    Otherwise(QueryError),
}

async fn read(
    cursor: clickhouse::error::Result<BytesCursor>,
    limits: &Limits,
    host: &str,
) -> Result<Rows, Failed> {
    let mut reading = Reading::new(limits);
    let mut cursor = match cursor {
        Ok(cursor) => cursor,
        Err(error) => return Err(Failed::Unreached(failure::of_client(error, host))),
    };
    let fault = loop {
        match cursor.next().await {
            Ok(Some(piece)) if reading.push(&piece) => {}
            Ok(_) => match reading.finish() {
                Ok(rows) => return Ok(rows),
                Err(fault) => break fault,
            },
            Err(clickhouse::error::Error::BadResponse(text)) if Exception::parse(&text).is_some() => {
                break Exception::parse(&text).map_or(Fault::Unreadable(text), Fault::Exception);
            }
            Err(error) => match failure::of_client(error, host) {
                QueryError::Unreadable(reason) => break reading.broke_off(reason),
                error => return Err(Failed::Unreached(error)),
            },
        }
    };
    Err(match fault {
        Fault::Exception(exception) => Failed::ByServer(exception),
        fault => Failed::Otherwise(fault.into()),
    })
}

/// What we set, so that a query ends, only reads, and its result can be read without loss.
///
/// Not `limit`, which would spare sending what is only counted: it also cuts the sides of a JOIN or an EXCEPT (tried
/// with 26.5), so that rows are missing.
fn ours(limits: &Limits) -> [(&'static str, String); 8] {
    // Whole seconds, as older servers want them; the exact limit is kept on our side.
    let seconds = limits.time.as_secs() + u64::from(limits.time.subsec_nanos() > 0);
    [
        ("readonly", "2".to_owned()),
        ("max_execution_time", seconds.max(1).to_string()),
        ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
        ("date_time_output_format", "iso".to_owned()),
        ("output_format_json_quote_64bit_integers", "0".to_owned()),
        ("output_format_json_quote_denormals", "1".to_owned()),
        ("output_format_json_quote_decimals", "1".to_owned()),
        ("output_format_json_validate_utf8", "0".to_owned()),
    ]
}

/// Those of [`ours`] without which a query is still safe to ask.
const OPTIONAL: [&str; 7] = [
    "max_execution_time",
    "cancel_http_readonly_queries_on_client_close",
    "date_time_output_format",
    "output_format_json_quote_64bit_integers",
    "output_format_json_quote_denormals",
    "output_format_json_quote_decimals",
    "output_format_json_validate_utf8",
];

/// A user may end its own queries, whatever else it may not.
async fn kill(client: Client, id: String) {
    let query = format!("KILL QUERY WHERE query_id = '{id}' ASYNC");
    if let Err(error) = client.query_raw(&query).execute().await {
        tracing::debug!(%error, id, "a query could not be ended in ClickHouse");
    }
}

/// One line a row, whatever is in it.
const FORMAT: &str = "JSONCompactEachRowWithNamesAndTypes";
/// How long a host that was down is asked last.
const REST: Duration = Duration::from_secs(30);
const CONNECT_TIME: Duration = Duration::from_secs(5);
const CONNECT_TIME_OF_SEVERAL: Duration = Duration::from_secs(2);
/// Shorter than a server's `keep_alive_timeout`, 3 seconds in older versions.
const IDLE_TIME: Duration = Duration::from_secs(2);
