//! Alerts into the chats where people read them: Slack, Discord, Telegram, Teams, Matrix.
//!
//! Of the first four no server can be had: fakes, as strict as the vendors' documents, stand for them. Matrix is both: a
//! fake that fails as told, and Synapse.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use watchpost::config::{FromYaml as _, Reader, Secret};
use watchpost::http::{Answer, Destination, Http, Request};
use watchpost::store::queue;
use watchpost::triage::Triage;
use watchpost::webhook;

use crate::delivery::Site;
use crate::fake::{Asked, Fake, Reply};
use crate::services::service;

const KINDS: [&str; 5] = ["slack", "discord", "telegram", "teams", "matrix"];

/// A chat, and what people see in it.
struct Chat {
    kind: &'static str,
    fake: Fake,
    room: Arc<Mutex<Room>>,
}

#[derive(Default)]
struct Room {
    /// The text of each message, changed where it was edited.
    messages: Vec<String>,
    /// How often a message was edited.
    edits: usize,
    logins: usize,
    /// What is answered instead, to the next requests that bring a message.
    faults: VecDeque<Reply>,
}

impl Chat {
    fn start(kind: &'static str) -> Self {
        Self::start_with(kind, Fake::start)
    }

    /// Over TLS, with a certificate that nobody vouches for.
    fn start_tls(kind: &'static str) -> Self {
        Self::start_with(kind, |answer| Fake::start_tls("self-signed", answer))
    }

    fn start_with(kind: &'static str, start: impl FnOnce(Box<Service>) -> Fake) -> Self {
        let room: Arc<Mutex<Room>> = Arc::default();
        let inside = Arc::clone(&room);
        let fake = start(Box::new(move |asked| {
            let mut room = inside.lock().unwrap();
            match kind {
                "slack" => slack(asked, &mut room),
                "discord" => discord(asked, &mut room),
                "telegram" => telegram(asked, &mut room),
                "teams" => teams(asked, &mut room),
                _ => matrix(asked, &mut room),
            }
        }));
        Self { kind, fake, room }
    }

    /// The webhook's settings, with some more.
    fn hook(&self, more: &str) -> webhook::Config {
        hook(self.kind, &self.fake.url(), SECRET, more)
    }

    fn fail(&self, with: Reply) {
        self.room.lock().unwrap().faults.push_back(with);
    }

    fn messages(&self) -> Vec<String> {
        self.room.lock().unwrap().messages.clone()
    }
}

type Service = dyn Fn(&Asked) -> Reply + Send + Sync;

fn hook(kind: &str, address: &str, secret: &str, more: &str) -> webhook::Config {
    let own = match kind {
        "slack" => format!("url: '{address}/services/T000/B000/{secret}'"),
        "discord" => format!("url: '{address}/api/webhooks/1/{secret}?thread_id=7'"),
        "telegram" => format!("url: '{address}', token: '123456:{secret}', chat_id: '-1001'"),
        "teams" => format!("url: '{address}/webhookb2/a@b/IncomingWebhook/{secret}'"),
        _ => format!("url: '{address}', username: watchpost, password: {secret}, room_id: '!r:fake'"),
    };
    settings(&format!("{{type: {kind}, {own}{more}}}"))
}

fn settings(yaml: &str) -> webhook::Config {
    let mut reader = Reader::new("runner.yml", yaml, Path::new(""), None);
    let read = reader.parse().and_then(|node| webhook::Config::from_yaml(&node, &mut reader));
    let problems = reader.into_diagnostics();
    assert!(problems.is_empty(), "{problems:#?}");
    read.unwrap()
}

/// In every address, token or password of a hook.
const SECRET: &str = "s3cret-0f-the-h00k";

fn slack(asked: &Asked, room: &mut Room) -> Reply {
    if asked.line() != format!("POST /services/T000/B000/{SECRET}") {
        return Reply::text(404, "no_service");
    }
    if let Some(fault) = room.faults.pop_front() {
        return fault;
    }
    assert_eq!(asked.header("content-type"), Some("application/json"));
    let body = asked.json();
    let known = ["text", "unfurl_links", "unfurl_media"];
    assert!(body.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())), "{body}");
    let text = body["text"].as_str().unwrap_or_default();
    if text.is_empty() || text.chars().count() > 40_000 {
        return Reply::text(400, "invalid_payload");
    }
    room.messages.push(text.to_owned());
    Reply::text(200, "ok")
}

fn discord(asked: &Asked, room: &mut Room) -> Reply {
    let base = format!("/api/webhooks/1/{SECRET}");
    let Some(path) = asked.path.strip_prefix(&base) else {
        return Reply::json(401, &json!({"message": "Invalid Webhook Token", "code": 50027}));
    };
    if let Some(fault) = room.faults.pop_front() {
        return fault;
    }
    assert_eq!(asked.argument("thread_id"), Some("7"), "the operator's query stays");
    let body = asked.json();
    let content = body["content"].as_str().unwrap_or_default();
    if content.trim().is_empty() || content.chars().count() > 2_000 {
        return Reply::json(400, &json!({"code": 50035, "message": "Invalid Form Body"}));
    }
    let number = match (asked.method.as_str(), path.strip_prefix("/messages/90")) {
        ("POST", None) => {
            assert_eq!(path, "");
            room.messages.push(content.to_owned());
            room.messages.len() - 1
        }
        ("PATCH", Some(number)) => match number.parse::<usize>() {
            Ok(number) if number < room.messages.len() => {
                room.messages[number] = content.to_owned();
                room.edits += 1;
                number
            }
            _ => return Reply::json(404, &json!({"message": "Unknown Message", "code": 10008})),
        },
        _ => return Reply::json(405, &json!({"message": "405: Method Not Allowed", "code": 0})),
    };
    match (asked.method.as_str(), asked.argument("wait")) {
        ("PATCH", _) | (_, Some("true")) => {
            Reply::json(200, &json!({"id": format!("90{number}"), "content": content}))
        }
        _ => Reply::new(204, "text/html", ""),
    }
}

fn telegram(asked: &Asked, room: &mut Room) -> Reply {
    let fails = |code: u16, why: &str| {
        Reply::json(code, &json!({"ok": false, "error_code": code, "description": why}))
    };
    let Some(method) = asked.path.strip_prefix(&format!("/bot123456:{SECRET}/")) else {
        return fails(401, "Unauthorized");
    };
    if let Some(fault) = room.faults.pop_front() {
        return fault;
    }
    let body = asked.json();
    let text = body["text"].as_str().unwrap_or_default();
    if body["chat_id"] != "-1001" {
        return fails(400, "Bad Request: chat not found");
    }
    if text.trim().is_empty() || text.encode_utf16().count() > 4_096 {
        return fails(400, "Bad Request: message is too long");
    }
    let number = match method {
        "sendMessage" => {
            room.messages.push(text.to_owned());
            room.messages.len() - 1
        }
        "editMessageText" => match body["message_id"].as_u64().and_then(|id| usize::try_from(id).ok()) {
            Some(number) if number < room.messages.len() => {
                if room.messages[number] == text {
                    return fails(
                        400,
                        "Bad Request: message is not modified: specified new message content and reply markup are exactly the same as a current content",
                    );
                }
                room.messages[number] = text.to_owned();
                room.edits += 1;
                number
            }
            _ => return fails(400, "Bad Request: message to edit not found"),
        },
        _ => return fails(404, "Not Found"),
    };
    Reply::json(
        200,
        &json!({"ok": true, "result": {"message_id": number, "chat": {"id": -1001}, "text": text}}),
    )
}

fn teams(asked: &Asked, room: &mut Room) -> Reply {
    if asked.line() != format!("POST /webhookb2/a@b/IncomingWebhook/{SECRET}") {
        return Reply::text(404, "No webhook");
    }
    if let Some(fault) = room.faults.pop_front() {
        return fault;
    }
    assert_eq!(asked.header("content-type"), Some("application/json"));
    let card = asked.json();
    if card["@type"] != "MessageCard" || card["summary"].as_str().is_none_or(str::is_empty) {
        return Reply::text(400, "Summary or Text is required.");
    }
    if asked.body.len() > 28 << 10 {
        return Reply::text(
            200,
            "Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 413 with ContextId x",
        );
    }
    room.messages.push(card.to_string());
    Reply::text(200, "1")
}

fn matrix(asked: &Asked, room: &mut Room) -> Reply {
    let fails = |status: u16, code: &str| Reply::json(status, &json!({"errcode": code, "error": code}));
    let path = asked.path.strip_prefix("/_matrix/client/v3").unwrap();
    if path == "/login" {
        let body = asked.json();
        if (&body["identifier"]["user"], &body["password"]) != (&json!("watchpost"), &json!(SECRET)) {
            return fails(403, "M_FORBIDDEN");
        }
        assert!(body["device_id"].as_str().unwrap().starts_with("WATCHPOST"), "{body}");
        room.logins += 1;
        let token = format!("{SECRET}-token{}", room.logins);
        return Reply::json(
            200,
            &json!({"user_id": "@watchpost:fake", "access_token": token, "device_id": body["device_id"]}),
        );
    }
    if asked.header("authorization") != Some(&format!("Bearer {SECRET}-token{}", room.logins)) {
        return fails(401, "M_UNKNOWN_TOKEN");
    }
    if asked.line() == "GET /_matrix/client/v3/rooms/%21r%3Afake/state/m.room.encryption" {
        return fails(404, "M_NOT_FOUND");
    }
    let transaction = path.strip_prefix("/rooms/%21r%3Afake/send/m.room.message/");
    assert!(asked.method == "PUT" && transaction.is_some_and(|id| id.len() >= 16), "{}", asked.line());
    if let Some(fault) = room.faults.pop_front() {
        return fault;
    }
    let content = asked.json();
    assert_eq!((&content["msgtype"], &content["m.mentions"]), (&json!("m.text"), &json!({})));
    if asked.body.len() > 60_000 {
        return fails(413, "M_TOO_LARGE");
    }
    let number = match content["m.relates_to"]["event_id"].as_str() {
        None => {
            room.messages.push(content["body"].as_str().unwrap().to_owned());
            room.messages.len() - 1
        }
        Some(event) => {
            assert_eq!(content["m.relates_to"]["rel_type"], "m.replace");
            let number: usize = event.strip_prefix("$e").unwrap().parse().unwrap();
            room.messages[number] = content["m.new_content"]["body"].as_str().unwrap().to_owned();
            room.edits += 1;
            number
        }
    };
    Reply::json(200, &json!({"event_id": format!("$e{number}")}))
}

/// How a kind that is limited says so, with the seconds it asks for.
fn limited(kind: &str) -> (Reply, u64) {
    match kind {
        "slack" => (Reply::text(429, "rate_limited").header("retry-after", "120"), 120),
        "discord" => {
            let body =
                json!({"message": "You are being rate limited.", "retry_after": 119.3, "global": false});
            (Reply::json(429, &body).header("retry-after", "1"), 120)
        }
        "telegram" => {
            let body = json!({"ok": false, "error_code": 429, "description": "Too Many Requests: retry after 120", "parameters": {"retry_after": 120}});
            (Reply::json(429, &body), 120)
        }
        "teams" => (Reply::text(429, "").header("retry-after", "120"), 120),
        _ => (
            Reply::json(
                429,
                &json!({"errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests", "retry_after_ms": 119_500}),
            ),
            120,
        ),
    }
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_one_message_and_nothing_follows() {
    for kind in KINDS {
        let chat = Chat::start(kind);
        let site = Site::start(&[("chat", chat.hook(""))]).await;
        site.alert("x", 50, &["chat"], false).await;
        site.until_all("done").await;
        site.advance(Duration::from_secs(86_400)).await;
        let messages = chat.messages();
        assert_eq!(messages.len(), 1, "{kind}: {messages:#?}");
        assert!(messages[0].contains("Rule") && messages[0].contains("root"), "{kind}: {}", messages[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn every_request_carries_the_operators_headers() {
    for kind in KINDS {
        let chat = Chat::start(kind);
        let site = Site::start(&[("chat", chat.hook(", headers: {X-Proxy-Token: 'Basic c29j'}"))]).await;
        site.alert("x", 50, &["chat"], false).await;
        site.until_all("done").await;
        let asked = chat.fake.asked();
        assert!(!asked.is_empty());
        for asked in asked {
            assert_eq!(asked.header("x-proxy-token"), Some("Basic c29j"), "{kind}: {}", asked.line());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_until_it_is_taken() {
    for kind in KINDS {
        let chat = Chat::start(kind);
        let page = "<!DOCTYPE html><title>Sign in to the network</title>";
        let faults = [
            Reply::text(500, "oops"),
            Reply::text(503, ""),
            Reply::new(200, "text/html", page),
            Reply::cut(),
            limited(kind).0,
        ];
        let count = faults.len() as u32;
        faults.into_iter().for_each(|fault| chat.fail(fault));
        let site = Site::start(&[("chat", chat.hook(""))]).await;
        site.alert("x", 50, &["chat"], false).await;
        for attempt in 1..=count {
            site.until(|rows| rows[0].state == "due" && rows[0].attempts == attempt).await;
            assert!(chat.messages().is_empty(), "{kind}");
            site.advance(Duration::from_secs(900)).await;
        }
        let rows = site.until_all("done").await;
        assert_eq!((rows[0].attempts, chat.messages().len()), (count + 1, 1), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_that_a_chat_asks_for_is_kept() {
    for kind in KINDS {
        let chat = Chat::start(kind);
        let (fault, seconds) = limited(kind);
        chat.fail(fault);
        let site = Site::start(&[("chat", chat.hook(""))]).await;
        site.alert("x", 50, &["chat"], false).await;
        let rows = site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
        let now = site.clock.now().as_millisecond();
        let wait = rows[0].next_attempt_at.saturating_sub(now);
        assert!((seconds as i64 * 1000 - 1_500..=seconds as i64 * 1000).contains(&wait), "{kind}: {wait} ms");
        site.advance(Duration::from_secs(seconds)).await;
        site.until_all("done").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_says_nothing_is_left_after_the_time_out() {
    for kind in KINDS {
        let chat = Chat::start(kind);
        chat.fail(Reply::hang());
        let site = Site::start(&[("chat", chat.hook(", timeout: 2"))]).await;
        site.alert("x", 50, &["chat"], false).await;
        site.until(|_| chat.room.lock().unwrap().faults.is_empty()).await;
        site.advance(Duration::from_secs(3)).await;
        let rows = site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
        assert!(
            rows[0].last_answer.as_ref().unwrap().contains("did not answer within 2s"),
            "{kind}: {rows:?}"
        );
        site.advance(Duration::from_secs(60)).await;
        site.until_all("done").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_counts_by_its_status() {
    for kind in KINDS {
        let chat = Chat::start(kind);
        chat.fail(Reply::text(500, "a long story of what went wrong").cut_after(6));
        let site = Site::start(&[("chat", chat.hook(""))]).await;
        site.alert("x", 50, &["chat"], false).await;
        site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
        site.advance(Duration::from_secs(60)).await;
        site.until_all("done").await;
        assert_eq!(chat.messages().len(), 1, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_refused_at_once_and_shown_nowhere() {
    for kind in KINDS {
        let chat = Chat::start(kind);
        let log = Log::default();
        let listening = log.listen();
        let site = Site::start(&[("chat", hook(kind, &chat.fake.url(), "wr0ng-s3cret", ""))]).await;
        site.alert("x", 50, &["chat"], false).await;
        let rows = site.until_all("dead").await;
        drop(listening);
        assert!(chat.messages().is_empty(), "{kind}");
        let shown = format!("{rows:?} {}", log.text());
        assert!(shown.contains("not delivered: moved to the dead letters"), "{kind}: {shown}");
        assert!(!shown.contains("wr0ng-s3cret"), "{kind}: {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_repeats_the_request_is_kept_without_its_secrets() {
    for kind in KINDS {
        let log = Log::default();
        let listening = log.listen();
        let echo = Fake::start(|asked| {
            let headers = asked.header("authorization").unwrap_or_default();
            Reply::text(400, &format!("bad request: {} {headers}", asked.line()))
        });
        let site = Site::start(&[("chat", hook(kind, &echo.url(), SECRET, ""))]).await;
        site.alert("x", 50, &["chat"], false).await;
        let rows = site.until_all("dead").await;
        drop(listening);
        let shown = format!("{rows:?} {}", log.text());
        assert!(shown.contains("400: bad request"), "{kind}: {shown}");
        assert!(!shown.contains(SECRET), "{kind}: {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_not_there_is_tried_again_and_its_secret_not_shown() {
    for kind in KINDS {
        // The port was free a moment ago.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = Log::default();
        let listening = log.listen();
        let site = Site::start(&[("chat", hook(kind, &format!("http://{nobody}"), SECRET, ""))]).await;
        site.alert("x", 50, &["chat"], false).await;
        let rows = site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
        drop(listening);
        let shown = format!("{rows:?} {}", log.text());
        assert!(shown.contains(&format!("{nobody} cannot be reached")), "{kind}: {shown}");
        assert!(!shown.contains(SECRET), "{kind}: {shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_nobody_vouches_for_is_told_nothing() {
    for kind in KINDS {
        let chat = Chat::start_tls(kind);
        let site = Site::start(&[("chat", chat.hook(""))]).await;
        site.alert("x", 50, &["chat"], false).await;
        let rows = site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
        let answer = rows[0].last_answer.as_ref().unwrap();
        assert!(answer.contains("certificate") && !answer.contains(SECRET), "{kind}: {answer}");
        assert!(chat.fake.asked().is_empty(), "{kind}");
        let vouched = format!(", ca: '{}'", crate::fake::data("tls/self-signed.pem").display());
        for trust in [vouched.as_str(), ", verify: false"] {
            let site = Site::start(&[("chat", chat.hook(trust))]).await;
            site.alert("x", 50, &["chat"], false).await;
            site.until_all("done").await;
        }
        assert_eq!(chat.messages().len(), 2, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_triage_adds_changes_the_message_or_says_what_it_belongs_to() {
    for kind in KINDS {
        let chat = Chat::start(kind);
        let site = Site::start(&[("chat", chat.hook(""))]).await;
        site.alert("x", 50, &["chat"], true).await;
        site.advance(Duration::from_secs(31)).await;
        site.until_all("done").await;
        let early = chat.messages();
        assert!(early.len() == 1 && !early[0].contains("Summary of it"), "{kind}: {early:#?}");
        judge(&site, "x").await;
        site.until(|rows| rows.len() == 2 && rows.iter().all(|row| row.state == "done")).await;
        let (messages, edits) = (chat.messages(), chat.room.lock().unwrap().edits);
        match kind {
            "slack" | "teams" => {
                assert_eq!((messages.len(), edits), (2, 0), "{kind}: {messages:#?}");
                assert_eq!(messages[0], early[0]);
                let belongs = "[UPDATE] What triage says of the alert `Rule` of ";
                assert!(
                    messages[1].contains(belongs) && messages[1].contains("(x)"),
                    "{kind}: {}",
                    messages[1]
                );
            }
            _ => assert_eq!((messages.len(), edits), (1, 1), "{kind}: {messages:#?}"),
        }
        assert!(messages.last().unwrap().contains("Summary of it"), "{kind}: {messages:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_changes_nothing_is_delivered() {
    for kind in ["discord", "telegram", "matrix"] {
        let chat = Chat::start(kind);
        let site = Site::start(&[("chat", chat.hook(""))]).await;
        site.alert("x", 50, &["chat"], true).await;
        site.advance(Duration::from_secs(31)).await;
        site.until_all("done").await;
        // No verdict came: the text is the same.
        site.settle("x").await;
        site.until(|rows| rows.len() == 2 && rows.iter().all(|row| row.state == "done")).await;
        assert_eq!(chat.messages().len(), 1, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_longer_than_a_chat_takes_is_cut_and_arrives() {
    for kind in KINDS {
        let chat = Chat::start(kind);
        let site = Site::start(&[("chat", chat.hook(""))]).await;
        let id = "x".repeat(100_000);
        site.alert(&id, 50, &["chat"], false).await;
        site.until_all("done").await;
        assert!(chat.messages()[0].contains("(cut: see `watchpost alerts`)"), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_matrix_login_that_is_over_is_made_again_with_the_same_device() {
    let chat = Chat::start("matrix");
    let site = Site::start(&[("chat", chat.hook(""))]).await;
    site.alert("x", 50, &["chat"], false).await;
    site.until_all("done").await;
    // Another login ends that of before.
    chat.room.lock().unwrap().logins += 1;
    site.alert("y", 50, &["chat"], false).await;
    site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
    site.advance(Duration::from_secs(60)).await;
    site.until_all("done").await;
    let logins = chat.fake.asked().into_iter().filter(|asked| asked.path.ends_with("/login"));
    let devices: Vec<Value> = logins.map(|asked| asked.json()["device_id"].clone()).collect();
    assert!(devices.len() == 2 && devices[0] == devices[1], "{devices:?}");
    assert_eq!(chat.messages().len(), 2);
}

#[tokio::test]
async fn a_real_matrix_server_gets_one_message_which_the_verdict_edits() {
    let Some(server) = Synapse::find().await else { return };
    for (room, invites) in [("by-invitation", true), ("public", false)] {
        let (id, alias) = server.room(room, invites, json!([])).await;
        let room_id = if invites { &id } else { &alias };
        let site = Site::start(&[("chat", server.hook(room_id, "watchpost-s3cret"))]).await;
        tokio::time::pause();
        site.alert("x", 50, &["chat"], true).await;
        site.advance(Duration::from_secs(31)).await;
        site.until_all("done").await;
        judge(&site, "x").await;
        site.until(|rows| rows.len() == 2 && rows.iter().all(|row| row.state == "done")).await;
        tokio::time::resume();
        let events = server.messages(&id).await;
        assert_eq!(events.len(), 2, "{room}: {events:#?}");
        let (first, edit) = (&events[0], &events[1]);
        assert_eq!(first["sender"], "@watchpost:localhost");
        assert_eq!(
            (&first["content"]["msgtype"], first["content"].get("formatted_body")),
            (&json!("m.text"), None)
        );
        assert!(first["content"]["body"].as_str().unwrap().contains("[ALERT] Rule"));
        assert_eq!(
            edit["content"]["m.relates_to"],
            json!({"rel_type": "m.replace", "event_id": first["event_id"]})
        );
        assert!(edit["content"]["m.new_content"]["body"].as_str().unwrap().contains("Summary of it"));
    }
}

#[tokio::test]
async fn a_real_matrix_server_sees_one_device_however_often_watchpost_starts() {
    let Some(server) = Synapse::find().await else { return };
    let (id, _) = server.room("devices", false, json!([])).await;
    // An account that no other test uses.
    let hook = server.hook_as("keeper", &id, "keeper-s3cret");
    let before = server.devices("keeper").await.len();
    for start in 0..3 {
        let site = Site::start(&[("chat", hook.clone())]).await;
        site.alert(&format!("x{start}"), 50, &["chat"], false).await;
        site.until_all("done").await;
    }
    // One of Watchpost's, and one of this test's second login.
    assert_eq!(server.devices("keeper").await.len(), before + 1 + 1);
    assert_eq!(server.messages(&id).await.len(), 3);
}

#[tokio::test]
async fn a_real_matrix_server_takes_a_retry_for_the_same_message() {
    let Some(server) = Synapse::find().await else { return };
    let (id, _) = server.room("retry", true, json!([])).await;
    let site = Site::start(&[("chat", server.hook(&id, "watchpost-s3cret"))]).await;
    site.alert("x", 50, &["chat"], false).await;
    let rows = site.until_all("done").await;
    // As after a crash: the row is sent again, by a process that logs in anew.
    let row = rows[0].id;
    let again = move |tx: &rusqlite::Transaction<'_>| {
        tx.execute("UPDATE deliveries SET state = 'sending' WHERE id = ?1", [row]).map(drop)
    };
    site.store.write(again).await.unwrap();
    tokio::time::pause();
    let dir = site.stop().await;
    tokio::time::resume();
    let site = Site::start_in(dir, &[("chat", server.hook(&id, "watchpost-s3cret"))]).await;
    site.until_all("done").await;
    assert_eq!(server.messages(&id).await.len(), 1);
}

#[tokio::test]
async fn a_real_matrix_server_refuses_what_cannot_be_and_says_why() {
    let Some(server) = Synapse::find().await else { return };
    let encryption = json!([{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]);
    let (encrypted, _) = server.room("encrypted", true, encryption).await;
    let (closed, _) = server.room("closed", false, json!([])).await;
    server.close(&closed).await;
    let (open, _) = server.room("open", true, json!([])).await;
    for (room, password, state, says) in [
        (&encrypted, "watchpost-s3cret", "due", "is encrypted: Watchpost sends to text rooms only"),
        (&closed, "watchpost-s3cret", "dead", "M_FORBIDDEN"),
        (&open, "wr0ng-s3cret", "dead", "Invalid username or password"),
    ] {
        let site = Site::start(&[("chat", server.hook(room, password))]).await;
        site.alert("x", 50, &["chat"], false).await;
        let rows = site.until(|rows| rows[0].state == state && rows[0].attempts > 0).await;
        let answer = rows[0].last_answer.as_ref().unwrap();
        assert!(answer.contains(says) && !answer.contains("s3cret"), "{answer}");
        assert!(server.messages(room).await.is_empty());
    }
}

#[tokio::test]
async fn check_asks_a_real_matrix_server_as_the_account() {
    let Some(server) = Synapse::find().await else { return };
    let (id, _) = server.room("check", true, json!([])).await;
    let look = async |config: webhook::Config| {
        let webhook = webhook::build(&config, false).unwrap();
        let http = Http::new(webhook.destination()).unwrap();
        webhook::look(webhook.as_ref(), &http).await.unwrap().map_err(|error| error.to_string())
    };
    let told = look(server.hook(&id, "watchpost-s3cret")).await.unwrap();
    assert!(told.starts_with("Matrix v1.") && told.ends_with("as `@watchpost:localhost`"), "{told}");
    let wrong = look(server.hook(&id, "wr0ng-s3cret")).await.unwrap_err();
    assert!(wrong.contains("Invalid username or password") && !wrong.contains("s3cret"), "{wrong}");
}

/// The Synapse of `make services`, seen by the account `analyst`, who owns the rooms.
struct Synapse {
    address: String,
    http: Http,
    token: String,
}

impl Synapse {
    async fn find() -> Option<Self> {
        let address = service("MATRIX")?;
        let to = Destination { url: address.parse().unwrap(), verify: true, ca: None };
        let mut synapse = Self { address, http: Http::new([to]).unwrap(), token: String::new() };
        synapse.token = synapse.log_in("analyst").await;
        Some(synapse)
    }

    fn hook(&self, room: &str, password: &str) -> webhook::Config {
        self.hook_as("watchpost", room, password)
    }

    fn hook_as(&self, user: &str, room: &str, password: &str) -> webhook::Config {
        let address = &self.address;
        settings(&format!(
            "{{type: matrix, url: '{address}', username: {user}, password: {password}, room_id: '{room}'}}"
        ))
    }

    async fn log_in(&self, user: &str) -> String {
        let identifier = json!({"type": "m.id.user", "user": user});
        let login = json!({"type": "m.login.password", "identifier": identifier, "password": format!("{user}-s3cret")});
        self.ask("", "POST", "/login", login).await["access_token"].as_str().unwrap().to_owned()
    }

    /// A new room and its alias; `invites` is whether Watchpost must be invited, and is.
    async fn room(&self, name: &str, invites: bool, initial_state: Value) -> (String, String) {
        let name = format!("{name}-{:08x}", rand::random::<u32>());
        let (preset, invite) = if invites {
            ("private_chat", json!(["@watchpost:localhost"]))
        } else {
            ("public_chat", json!([]))
        };
        let room = json!({"preset": preset, "invite": invite, "room_alias_name": name, "initial_state": initial_state});
        let room = self.ask(&self.token, "POST", "/createRoom", room).await;
        (room["room_id"].as_str().unwrap().to_owned(), format!("#{name}:localhost"))
    }

    async fn close(&self, room: &str) {
        let path = format!("/rooms/{}/state/m.room.join_rules", escaped(room));
        self.ask(&self.token, "PUT", &path, json!({"join_rule": "invite"})).await;
    }

    /// Oldest first.
    async fn messages(&self, room: &str) -> Vec<Value> {
        let path = format!("/rooms/{}/messages?dir=b&limit=100", escaped(room));
        let page = self.ask(&self.token, "GET", &path, Value::Null).await;
        let events = page["chunk"].as_array().unwrap().iter().rev();
        events.filter(|event| event["type"] == "m.room.message").cloned().collect()
    }

    async fn devices(&self, user: &str) -> Vec<Value> {
        let token = self.log_in(user).await;
        self.ask(&token, "GET", "/devices", Value::Null).await["devices"].as_array().unwrap().clone()
    }

    async fn ask(&self, token: &str, method: &'static str, path: &str, body: Value) -> Value {
        let url = format!("{}/_matrix/client/v3{path}", self.address);
        let mut headers = vec![("content-type".to_owned(), "application/json".into())];
        headers.push(("authorization".to_owned(), format!("Bearer {token}")));
        let headers =
            headers.into_iter().map(|(name, value): (String, String)| (name, Secret::new(value))).collect();
        let request = Request {
            method,
            to: Destination { url: url.parse().unwrap(), verify: true, ca: None },
            headers,
            body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() },
            timeout: Duration::from_secs(30),
        };
        let Answer { status, body, .. } = self.http.send(&request, 1 << 20).await.unwrap();
        let text = String::from_utf8_lossy(&body);
        assert_eq!(status, 200, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

fn escaped(room: &str) -> String {
    room.replace('!', "%21").replace(':', "%3A")
}

/// Triage ends with a verdict.
async fn judge(site: &Site, id: &str) {
    let verdict = json!({
        "title": "Title of it", "summary": "Summary of it", "severity": "High", "confidence": 50, "risk_score": 60,
        "explanation": "e", "false_positive_score": 10, "mitigations": ["m"], "affected_entities": ["root"],
        "recommended_action": "r", "cost": {"model": "tiny", "model_sha256": "00", "seconds_to_verdict": 1.5},
    });
    let triage = Triage::Done { verdict: serde_json::from_value(verdict).unwrap() };
    let (id, now) = (id.to_owned(), site.clock.now());
    site.store.write(move |tx| queue::settle(tx, &id, &triage, now)).await.unwrap();
    site.store.signals().outbox_changed.notify_one();
}

/// What this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let written = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || written.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
