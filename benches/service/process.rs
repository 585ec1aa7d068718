//! A running `watchpost`, as the system sees it, and a receiver on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use jiff::Timestamp;
use serde_json::Value;

/// The executable, built with the bench's profile.
pub fn watchpost() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
    command
        .env("WATCHPOST_LOG", "error")
        .env("WATCHPOST_MODELS", concat!(env!("CARGO_MANIFEST_DIR"), "/models"));
    command
}

/// Standard output of a verb that has to end well.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{command:?} ended with {}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// `watchpost run` over the `runner.yml` of a folder. Killed when dropped.
pub struct Service<'a> {
    child: Child,
    dir: &'a Path,
    pub started: Instant,
}

impl<'a> Service<'a> {
    pub fn start(dir: &'a Path) -> Result<Self> {
        let started = Instant::now();
        let child = watchpost().arg("run").current_dir(dir).stdout(Stdio::null()).spawn()?;
        Ok(Self { child, dir, started })
    }

    /// User and system time of all its threads so far, in steps of 10 ms.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = self.proc("stat")?;
        // The second field is the name, in brackets, and may hold anything.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        let ticks = |place: usize| -> Result<u64> { Ok(fields.get(place).context("stat")?.parse()?) };
        Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS_PER_SECOND))
    }

    pub fn memory(&self) -> Result<Memory> {
        let status = self.proc("status")?;
        let bytes = |key: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).context("status")?;
            let kb: u64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse()?;
            Ok(kb * 1024)
        };
        Ok(Memory { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")?, peak: bytes("VmHWM")? })
    }

    fn proc(&self, file: &str) -> Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).context("the service has ended")
    }

    /// What a verb says of the running service, a JSON value a line or one in all.
    pub fn ask(&self, verb: &[&str]) -> Result<Vec<Value>> {
        let text = output(watchpost().args(verb).arg("--json").current_dir(self.dir))?;
        Ok(serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>()?)
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `USER_HZ`, 100 on every Linux that Rust's standard library runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Bytes of a process.
#[derive(Clone, Copy)]
pub struct Memory {
    /// With the pages of executable and libraries that were touched.
    pub resident: u64,
    /// Its own: heap and stacks.
    pub anonymous: u64,
    /// The largest `resident` so far.
    pub peak: u64,
}

/// Takes every message and notes when it came.
pub struct Receiver {
    pub address: SocketAddr,
    arrivals: Arrivals,
    _runtime: tokio::runtime::Runtime,
}

type Arrivals = Arc<Mutex<Vec<Arrival>>>;

#[derive(Clone)]
pub struct Arrival {
    pub alert: String,
    pub rule: String,
    pub at: Timestamp,
    pub instant: Instant,
}

impl Receiver {
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let arrivals = Arrivals::default();
        let router = Router::new().route("/", post(receive)).with_state(arrivals.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        drop(runtime.spawn(async move { axum::serve(listener, router).await }));
        Ok(Self { address, arrivals, _runtime: runtime })
    }

    /// All so far. An alert that came twice is there twice.
    pub fn arrivals(&self) -> Vec<Arrival> {
        lock(&self.arrivals).clone()
    }

    /// When the first alert of `rule` came.
    pub fn wait_for(&self, rule: &str, limit: Duration) -> Result<Instant> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(arrival) = lock(&self.arrivals).iter().find(|arrival| arrival.rule == rule) {
                return Ok(arrival.instant);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("no alert of rule `{rule}` within {limit:?}")
    }

    /// From each alert's `created_at`, as `alerts` lists them, to its first arrival. Sorted.
    pub fn delays(&self, alerts: &[Value]) -> Result<Vec<Duration>> {
        let mut first: HashMap<String, Timestamp> = HashMap::new();
        for arrival in self.arrivals() {
            first.entry(arrival.alert).or_insert(arrival.at);
        }
        let mut delays = Vec::new();
        for alert in alerts {
            let created: Timestamp = alert["created_at"].as_str().context("created_at")?.parse()?;
            if let Some(at) = alert["id"].as_str().and_then(|id| first.get(id)) {
                delays.push(Duration::try_from(at.duration_since(created)).unwrap_or_default());
            }
        }
        delays.sort();
        Ok(delays)
    }
}

async fn receive(State(arrivals): State<Arrivals>, headers: HeaderMap, body: Bytes) {
    let (at, instant) = (Timestamp::now(), Instant::now());
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let alert = headers.get("watchpost-alert-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let rule = body["rule"]["id"].as_str().unwrap_or_default().to_owned();
    lock(&arrivals).push(Arrival { alert: alert.to_owned(), rule, at, instant });
}

fn lock(arrivals: &Arrivals) -> MutexGuard<'_, Vec<Arrival>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}
