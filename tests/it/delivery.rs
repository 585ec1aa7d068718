//! From the outbox to the receiver: retries, dead letters, updates, crashes, certificates.
//!
//! Time stands still and is moved by hand; sockets and the store are real.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use watchpost::alert::{Alert, Data};
use watchpost::clock::{Clock, Window};
use watchpost::http::{Destination, Http, HttpError, Request};
use watchpost::store::alerts::{self, Handling, Queueing};
use watchpost::store::outbox::{self, Delivery as Row, Which};
use watchpost::store::{Access, Store, queue};
use watchpost::triage::Triage;
use watchpost::webhook::delivery::{Delivery, GRACE};
use watchpost::webhook::{self, generic, stdout};

use crate::receiver::{Answer, Receiver};

/// The outbox with its worker, and a clock that only [`Site::advance`] moves.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    printed: Arc<Mutex<String>>,
    shutdown: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
    /// While a blocking task runs, tokio does not move its paused time by itself.
    _still: mpsc::Sender<()>,
}

impl Site {
    pub(crate) async fn start(webhooks: &[(&str, webhook::Config)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), webhooks).await
    }

    pub(crate) async fn start_in(dir: tempfile::TempDir, webhooks: &[(&str, webhook::Config)]) -> Self {
        let (still, end) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || end.recv());
        let store = Store::open(&dir.path().join("watchpost.db"), Access::Service).unwrap();
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let built: HashMap<_, _> = webhooks
            .iter()
            .map(|(name, config)| ((*name).to_owned(), webhook::build(config, false).unwrap()))
            .collect();
        let http = Http::new(built.values().filter_map(|webhook| webhook.destination())).unwrap();
        let printed = Arc::new(Mutex::new(String::new()));
        let page = Arc::clone(&printed);
        let print = Arc::new(move |text: &str| {
            page.lock().unwrap().push_str(text);
            Ok(())
        });
        let shutdown = CancellationToken::new();
        let delivery = Delivery::new(store.clone(), built, http, clock, print);
        let worker = tokio::spawn(delivery.run(shutdown.clone()));
        Self { dir, store, clock, printed, shutdown, worker, _still: still }
    }

    /// Saves an alert; with `triage` its delivery waits 30 seconds for the verdict.
    pub(crate) async fn alert(&self, id: &str, level: u8, webhooks: &[&str], triage: bool) {
        let alert = alert(id, level, self.clock.now());
        let hold_until = self.clock.now().checked_add(Duration::from_secs(30)).unwrap();
        let handling = Handling {
            webhooks: webhooks.iter().map(|name| (*name).to_owned()).collect(),
            triage: triage.then_some(Queueing { hold_until, capacity: 100 }),
        };
        self.store.write(move |tx| alerts::insert(tx, "d", &alert, &handling)).await.unwrap();
        self.store.signals().outbox_changed.notify_one();
    }

    pub(crate) async fn settle(&self, id: &str) {
        let (id, now) = (id.to_owned(), self.clock.now());
        let triage = Triage::Failed { reason: "no model".into() };
        self.store.write(move |tx| queue::settle(tx, &id, &triage, now)).await.unwrap();
        self.store.signals().outbox_changed.notify_one();
    }

    pub(crate) async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
        breathe().await;
    }

    pub(crate) async fn rows(&self) -> Vec<Row> {
        self.store.read(|connection| outbox::list(connection, false, 1_000)).await.unwrap()
    }

    /// Waits, in real time, until the deliveries are as `told`.
    pub(crate) async fn until(&self, told: impl Fn(&[Row]) -> bool) -> Vec<Row> {
        let began = Instant::now();
        loop {
            let rows = self.rows().await;
            if told(&rows) {
                return rows;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{rows:#?}");
            breathe().await;
        }
    }

    pub(crate) async fn until_all(&self, state: &str) -> Vec<Row> {
        self.until(|rows| !rows.is_empty() && rows.iter().all(|row| row.state == state)).await
    }

    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        breathe().await;
        tokio::time::advance(GRACE + Duration::from_secs(1)).await;
        self.worker.await.unwrap();
        self.dir
    }
}

/// Lets sockets and the store's thread work, for a moment of real time.
async fn breathe() {
    tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(10))).await.unwrap();
}

pub(crate) fn alert(id: &str, level: u8, created_at: watchpost::clock::Timestamp) -> Alert {
    let map = |value: serde_json::Value| value.as_object().unwrap().clone();
    Alert {
        id: id.into(),
        rule: map(json!({"id": id, "name": "Rule", "level": level})),
        detector: map(json!({"name": "d", "tenant": "default"})),
        datasource: map(json!({"type": "duckdb"})),
        data: Data {
            len: 1,
            value: vec![map(json!({"user": "root"}))],
            datasource: "duckdb".into(),
            cut: None,
        },
        window: Window::from_seconds(0, 60).unwrap(),
        created_at,
    }
}

fn hook(receiver: &Receiver) -> webhook::Config {
    webhook::Config::Generic(generic::Config {
        name: None,
        url: receiver.url().parse().unwrap(),
        template: None,
        exchange: webhook::Exchange::default(),
    })
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_delivered_once_and_stays_delivered() {
    let receiver = Receiver::start([]).await;
    let site = Site::start(&[("soc", hook(&receiver))]).await;
    site.alert("x", 50, &["soc"], false).await;
    let rows = site.until_all("done").await;
    site.advance(Duration::from_secs(86_400)).await;
    let received = receiver.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].headers["idempotency-key"], rows[0].idempotency_key);
    assert_eq!(received[0].headers["watchpost-alert-id"], "x");
    assert_eq!(received[0].headers["user-agent"], concat!("watchpost/", env!("CARGO_PKG_VERSION")));
    assert_eq!(received[0].body["rule"]["id"], "x");
    assert_eq!(received[0].body["time"]["endtime"].to_string(), "60.0");
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_with_the_same_key_and_words() {
    use Answer::{Cut, Status};
    let troubles = [Status(408), Status(425), Status(429), Status(500), Status(503), Cut];
    let receiver = Receiver::start(troubles.clone()).await;
    let site = Site::start(&[("soc", hook(&receiver))]).await;
    site.alert("x", 50, &["soc"], false).await;
    for attempt in 1..=troubles.len() as u32 {
        site.until(|rows| rows[0].state == "due" && rows[0].attempts == attempt).await;
        site.advance(Duration::from_secs(900)).await;
    }
    let rows = site.until_all("done").await;
    assert_eq!(rows[0].attempts as usize, troubles.len() + 1);
    let received = receiver.received();
    assert_eq!(received.len(), troubles.len() + 1);
    for one in &received {
        assert_eq!(one.headers["idempotency-key"], rows[0].idempotency_key);
        assert_eq!(one.body, received[0].body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_goes_to_the_dead_letters_and_comes_back_on_request() {
    let redirect = Answer::Full(302, "location: http://elsewhere.example/\r\n", "");
    let script = [Answer::Full(401, "", "who are\u{1b}[31m you?"), redirect, Answer::Status(404)];
    let receiver = Receiver::start(script).await;
    let site = Site::start(&[("soc", hook(&receiver))]).await;
    site.alert("x", 50, &["soc"], false).await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        let rows = site.until_all("dead").await;
        answers.push(rows[0].last_answer.clone().unwrap());
        site.advance(Duration::from_secs(86_400)).await;
        assert_eq!(receiver.received().len(), answers.len(), "dead is dead");
        let now = site.clock.now().as_millisecond();
        assert_eq!(site.store.write(move |tx| outbox::retry(tx, Which::AllDead, now)).await.unwrap(), 1);
        site.store.signals().outbox_changed.notify_one();
        let sent = answers.len() + 1;
        site.until(|rows| {
            receiver.received().len() == sent && rows[0].state != "due" && rows[0].state != "sending"
        })
        .await;
    }
    site.until_all("done").await;
    assert_eq!(
        answers,
        [
            "401: who are\\u{1b}[31m you?",
            "302: redirects are not followed: set `url` to where it leads: `http://elsewhere.example/`",
            "404: ",
        ]
    );
    let keys: Vec<_> = receiver.received().iter().map(|one| one.headers["idempotency-key"].clone()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_another_process_asked_for_it_needs_no_signal() {
    let receiver = Receiver::start([Answer::Status(400)]).await;
    let site = Site::start(&[("soc", hook(&receiver))]).await;
    site.alert("x", 50, &["soc"], false).await;
    site.until_all("dead").await;
    let command = Store::open(&site.dir.path().join("watchpost.db"), Access::Command).unwrap();
    let now = site.clock.now().as_millisecond();
    command.write(move |tx| outbox::retry(tx, Which::AllDead, now)).await.unwrap();
    site.advance(Duration::from_secs(31)).await;
    site.until_all("done").await;
}

#[tokio::test(start_paused = true)]
async fn the_receivers_retry_after_is_waited_for() {
    let receiver = Receiver::start([Answer::Full(429, "retry-after: 120\r\n", "")]).await;
    let site = Site::start(&[("soc", hook(&receiver))]).await;
    site.alert("x", 50, &["soc"], false).await;
    site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
    for _ in 0..7 {
        site.advance(Duration::from_secs(17)).await;
    }
    assert_eq!(receiver.received().len(), 1, "119 seconds have passed");
    site.advance(Duration::from_secs(2)).await;
    site.until_all("done").await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_was_gone_for_an_hour_gets_its_alerts() {
    let receiver = Receiver::start([]).await;
    receiver.answer_from_now_on(Answer::Cut);
    let site = Site::start(&[("soc", hook(&receiver))]).await;
    for id in ["x", "y", "z"] {
        site.alert(id, 50, &["soc"], false).await;
    }
    for _ in 0..60 {
        site.advance(Duration::from_secs(60)).await;
    }
    site.until_all("due").await;
    assert!(receiver.received().len() >= 15, "{}", receiver.received().len());
    receiver.answer_from_now_on(Answer::Status(204));
    // The clock may jump over the time-out of a request under way, which then waits once more.
    for _ in 0..120 {
        site.advance(Duration::from_secs(60)).await;
        if site.rows().await.iter().all(|row| row.state == "done") {
            break;
        }
    }
    let rows = site.until_all("done").await;
    assert_eq!(rows.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_is_late_follows_as_one_update() {
    let receiver = Receiver::start([Answer::Status(503)]).await;
    let site = Site::start(&[("soc", hook(&receiver))]).await;
    site.alert("x", 50, &["soc"], true).await;
    site.advance(Duration::from_secs(29)).await;
    assert_eq!(receiver.received().len(), 0, "it waits for the verdict");
    site.advance(Duration::from_secs(1)).await;
    site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
    site.settle("x").await;
    breathe().await;
    assert_eq!(receiver.received().len(), 1, "no update before the first message");
    site.advance(Duration::from_secs(900)).await;
    site.until_all("done").await;
    let told: Vec<_> = receiver
        .received()
        .iter()
        .map(|one| {
            (one.body["triage"].as_str().unwrap().to_owned(), one.headers.contains_key("watchpost-update"))
        })
        .collect();
    assert_eq!(told, [("pending".into(), false), ("pending".into(), false), ("failed".into(), true)]);
    let keys: Vec<_> = receiver.received().iter().map(|one| one.headers["idempotency-key"].clone()).collect();
    assert!(keys[0] == keys[1] && keys[1] != keys[2], "{keys:?}");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_in_time_comes_with_the_first_message() {
    let receiver = Receiver::start([]).await;
    let site = Site::start(&[("soc", hook(&receiver))]).await;
    site.alert("x", 50, &["soc"], true).await;
    site.advance(Duration::from_secs(3)).await;
    site.settle("x").await;
    site.until_all("done").await;
    site.advance(Duration::from_secs(60)).await;
    let received = receiver.received();
    assert_eq!((received.len(), &received[0].body["triage"]), (1, &json!("failed")));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_holds_up_no_other() {
    let (hanging, quick) = (Receiver::start([]).await, Receiver::start([]).await);
    hanging.answer_from_now_on(Answer::Hang);
    let site = Site::start(&[("slow", hook(&hanging)), ("quick", hook(&quick))]).await;
    for id in 0..30 {
        site.alert(&id.to_string(), 50, &["slow", "quick"], false).await;
    }
    let rows = site
        .until(|rows| rows.iter().filter(|row| row.webhook == "quick" && row.state == "done").count() == 30)
        .await;
    let slow = |state: &str| rows.iter().filter(|row| row.webhook == "slow" && row.state == state).count();
    assert_eq!((slow("done"), slow("sending"), slow("due")), (0, 8, 22));
}

#[tokio::test(start_paused = true)]
async fn what_shutdown_cuts_off_is_sent_by_the_next_start_with_the_same_key() {
    let receiver = Receiver::start([Answer::Hang]).await;
    let webhooks = [("soc", hook(&receiver))];
    let site = Site::start(&webhooks).await;
    site.alert("x", 50, &["soc"], false).await;
    site.until(|rows| rows[0].state == "sending" && receiver.received().len() == 1).await;
    let dir = site.stop().await;
    let site = Site::start_in(dir, &webhooks).await;
    site.until_all("done").await;
    let received = receiver.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].headers["idempotency-key"], received[1].headers["idempotency-key"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_end_is_read_to_its_bound() {
    let receiver = Receiver::start([Answer::Endless]).await;
    let site = Site::start(&[("soc", hook(&receiver))]).await;
    site.alert("x", 50, &["soc"], false).await;
    let rows = site.until_all("dead").await;
    let answer = rows[0].last_answer.as_ref().unwrap();
    assert!(answer.starts_with("400: xxx") && answer.chars().count() <= 2048, "{}", answer.len());
}

#[tokio::test(start_paused = true)]
async fn standard_output_gets_what_the_printer_takes() {
    let site = Site::start(&[(
        "terminal",
        webhook::Config::Stdout(stdout::Config { format: stdout::Format::Json }),
    )])
    .await;
    site.alert("x", 50, &["terminal"], false).await;
    site.until_all("done").await;
    let printed = site.printed.lock().unwrap().clone();
    let line: serde_json::Value = serde_json::from_str(printed.trim_end()).unwrap();
    assert_eq!((&line["alert_id"], &line["rule"]["name"]), (&json!("x"), &json!("Rule")));
}

#[tokio::test]
async fn a_certificate_is_believed_only_when_it_is_vouched_for() {
    for (server, vouches) in [("self-signed", "self-signed.pem"), ("signed", "authority.pem")] {
        let address = serve_tls(&tls(&format!("{server}.pem")), &tls(&format!("{server}.key")));
        let send = |verify: bool, ca: Option<PathBuf>| post(format!("https://{address}/"), verify, ca);
        let refused = send(true, None).await.unwrap_err().to_string();
        assert!(refused.contains("certificate"), "{server}: {refused}");
        assert_eq!(send(true, Some(tls(vouches))).await.unwrap(), 200, "{server}");
        assert_eq!(send(false, None).await.unwrap(), 200, "{server}");
        let other = if server == "signed" { "self-signed.pem" } else { "authority.pem" };
        assert!(send(true, Some(tls(other))).await.is_err(), "{server}");
        // The name counts also for a certificate that stands in the file itself.
        let port = address.rsplit(':').next().unwrap();
        let elsewhere =
            post(format!("https://localhost:{port}/"), true, Some(tls(vouches))).await.unwrap_err();
        assert!(elsewhere.to_string().contains("certificate"), "{server}: {elsewhere}");
    }
}

async fn post(url: String, verify: bool, ca: Option<PathBuf>) -> Result<u16, HttpError> {
    let to = Destination { url: url.parse().unwrap(), verify, ca };
    let timeout = Duration::from_secs(10);
    let request =
        Request { method: "POST", to: to.clone(), headers: Vec::new(), body: b"{}".to_vec(), timeout };
    Http::new([to])?.send(&request, 100).await.map(|answer| answer.status)
}

/// A certificate or key of tests/data/tls.
pub(crate) fn tls(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

/// A server that answers 200 to every connection that trusts it; it ends with the process.
pub(crate) fn serve_tls(certificate: &Path, key: &Path) -> String {
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
            // A client that does not trust us ends the handshake, and `read` fails.
            if stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .unwrap();
                stream.flush().unwrap();
            }
        }
    });
    address
}
