//! Alerts into the tools where people work on them: DFIR-IRIS, Forgejo, TheHive, Opsgenie, Alertmanager.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};
use watchpost::config::{FromYaml as _, Reader};
use watchpost::http::{Destination, Http, Request};
use watchpost::webhook;

use crate::delivery::Site;
use crate::fake::{Asked, Fake, Reply};
use crate::services::service;

/// The settings of a webhook, as a runner has them.
pub(crate) fn settings(yaml: &str) -> webhook::Config {
    let mut reader = Reader::new("runner.yml", yaml, Path::new(""), None);
    let read = reader.parse().and_then(|node| webhook::Config::from_yaml(&node, &mut reader));
    let problems = reader.into_diagnostics();
    assert!(problems.is_empty(), "{problems:#?}");
    read.unwrap()
}

const KEY: &str = "k3y-that-nobody-may-see";

/// A service, and what it keeps.
struct Tool {
    kind: &'static str,
    /// Settings without address and certificates.
    settings: String,
    /// The request that brings an alert, and that which brings its verdict.
    first: &'static str,
    update: &'static str,
    fake: Fake,
    kept: Arc<Mutex<Vec<Value>>>,
    faults: Faults,
}

/// What is answered once, each to a request whose line begins so.
type Faults = Arc<Mutex<VecDeque<(&'static str, Fault)>>>;

#[derive(Clone, Debug)]
enum Fault {
    /// Instead of doing what was asked.
    Answer(Reply),
    /// After doing it.
    Late(Reply),
}

impl Tool {
    fn start(kind: &'static str) -> Self {
        let (kept, faults): (Arc<Mutex<Vec<Value>>>, Faults) = Default::default();
        let (keep, fail) = (Arc::clone(&kept), Arc::clone(&faults));
        let (settings, first, update) = match kind {
            "iris" => {
                (format!("api_key: {KEY}, customer_id: 1"), "POST /alerts/add", "POST /alerts/update/1")
            }
            "forgejo" => (
                format!("token: {KEY}, owner: soc, repository: alerts"),
                "POST /api/v1/repos/soc/alerts/issues",
                "PATCH /api/v1/repos/soc/alerts/issues/1",
            ),
            "thehive" => (format!("api_key: {KEY}"), "POST /api/v1/alert", "PATCH /api/v1/alert/~1"),
            "opsgenie" => (format!("api_key: {KEY}"), "POST /v2/alerts", "POST /v2/alerts/x/notes"),
            other => panic!("{other}"),
        };
        let fake = Fake::start(move |asked| {
            let fault = {
                let mut faults = fail.lock().unwrap();
                let at = faults.iter().position(|(line, _)| asked.line().starts_with(line));
                at.and_then(|at| faults.remove(at)).map(|(_, fault)| fault)
            };
            if let Some(Fault::Answer(reply)) = fault {
                return reply;
            }
            let mut kept = keep.lock().unwrap();
            let (status, body) = match kind {
                "iris" => iris(asked, &mut kept),
                "forgejo" => forgejo(asked, &mut kept),
                "thehive" => thehive(asked, &mut kept),
                _ => opsgenie(asked, &mut kept),
            };
            match fault {
                Some(Fault::Late(reply)) => reply,
                _ => Reply::new(status, "application/json", body),
            }
        });
        Self { kind, settings, first, update, fake, kept, faults }
    }

    fn fail(&self, line: &'static str, fault: Fault) {
        self.faults.lock().unwrap().push_back((line, fault));
    }

    fn config(&self, more: &str) -> webhook::Config {
        let path = if self.kind == "opsgenie" { "/v2/alerts" } else { "" };
        let (kind, address, own) = (self.kind, self.fake.address(), &self.settings);
        settings(&format!("{{type: {kind}, url: 'http://{address}{path}', {own}, {more}}}"))
    }

    fn kept(&self) -> Vec<Value> {
        self.kept.lock().unwrap().clone()
    }

    /// What arrived, without preparations.
    fn sent(&self) -> Vec<String> {
        self.fake.asked().iter().map(Asked::line).filter(|line| !line.starts_with("GET ")).collect()
    }
}

const TOOLS: [&str; 4] = ["iris", "forgejo", "thehive", "opsgenie"];

/// `null` where there is none.
fn body_of(asked: &Asked) -> Value {
    if asked.body.is_empty() { Value::Null } else { asked.json() }
}

fn refuse(status: u16, body: Value) -> (u16, String) {
    (status, body.to_string())
}

/// By its recorded answers (tests/data/iris) and its source, 2.4.20.
fn iris(asked: &Asked, kept: &mut Vec<Value>) -> (u16, String) {
    let recorded = |name: &str| {
        let path = format!("{}/tests/data/iris/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path)
            .unwrap()
            .replace("\r\n", "\n")
            .split_once("\n\n")
            .unwrap()
            .1
            .trim()
            .to_owned()
    };
    let error = |message: &str| refuse(400, json!({ "status": "error", "message": message, "data": [] }));
    let given = asked.header("authorization");
    if given != Some(&format!("Bearer {KEY}")) {
        return refuse(
            401,
            json!({ "status": "error", "message": format!("Authentication required, not {given:?}"), "data": [] }),
        );
    }
    let body = &body_of(asked);
    match asked.line().as_str() {
        "GET /manage/severities/list" => (200, recorded("severities")),
        "GET /manage/alert-status/list" => (200, recorded("statuses")),
        "GET /manage/ioc-types/list" => (
            200,
            json!({ "status": "success", "data": [{ "type_id": 76, "type_name": "ip-any" }] }).to_string(),
        ),
        "GET /manage/asset-type/list" => (
            200,
            json!({ "status": "success", "data": [{ "asset_id": 1, "asset_name": "Account" }] }).to_string(),
        ),
        "GET /api/versions" => (200, recorded("versions")),
        "POST /alerts/add" => {
            let required =
                ["alert_title", "alert_source", "alert_severity_id", "alert_status_id", "alert_customer_id"];
            if let Some(missing) =
                required.iter().find(|field| body[**field].is_null() || body[**field] == "")
            {
                return error(&format!("{{'{missing}': ['Missing data for required field.']}}"));
            }
            if body["alert_customer_id"] != 1 {
                return (400, recorded("alert_bad_customer"));
            }
            let time = body["alert_source_event_time"].as_str().unwrap_or_default();
            if time.parse::<jiff::civil::DateTime>().is_err() {
                return (400, recorded("alert_time_dict"));
            }
            let severities: Value = serde_json::from_str(&recorded("severities")).unwrap();
            let known = severities["data"].as_array().unwrap();
            if !known.iter().any(|one| one["severity_id"] == body["alert_severity_id"]) {
                return error("ForeignKeyViolation: alerts_alert_severity_id_fkey");
            }
            let types = [("alert_iocs", "ioc_type_id", 76), ("alert_assets", "asset_type_id", 1)];
            for (list, field, id) in types {
                let empty = Vec::new();
                if body[list].as_array().unwrap_or(&empty).iter().any(|one| one[field] != id) {
                    return error(&format!("{{'{field}': ['Invalid type ID']}}"));
                }
            }
            kept.push(body.clone());
            (200, json!({ "status": "success", "message": "", "data": { "alert_id": kept.len(), "alert_source_content": body["alert_source_content"] } }).to_string())
        }
        line => match line.strip_prefix("POST /alerts/update/").and_then(|id| id.parse::<usize>().ok()) {
            Some(id) if (1..=kept.len()).contains(&id) => {
                merge(&mut kept[id - 1], body);
                (200, json!({ "status": "success", "data": { "alert_id": id } }).to_string())
            }
            Some(_) => error("Alert not found"),
            None => (404, "<!doctype html><title>404 Not Found</title>".into()),
        },
    }
}

/// By its API's description (`/api/swagger` of a Forgejo).
fn forgejo(asked: &Asked, kept: &mut Vec<Value>) -> (u16, String) {
    let given = asked.header("authorization");
    if given != Some(&format!("token {KEY}")) {
        return refuse(
            401,
            json!({ "message": format!("invalid username, password or token {given:?}"), "url": "/api/swagger" }),
        );
    }
    let body = &body_of(asked);
    let is_text = |field: &str| body[field].as_str().is_some_and(|text| !text.is_empty());
    match asked.line().as_str() {
        "GET /api/v1/user" => (200, json!({ "id": 1, "login": "watchpost" }).to_string()),
        "GET /api/v1/version" => (200, json!({ "version": "12.0.1+gitea-1.22.0" }).to_string()),
        "GET /api/v1/repos/soc/alerts/issues" => (200, "[]".into()),
        "POST /api/v1/repos/soc/alerts/issues" => {
            if !is_text("title") || body["title"].as_str().unwrap().chars().count() > 255 || !is_text("body")
            {
                return refuse(422, json!({ "message": "[Title]: Required" }));
            }
            kept.push(body.clone());
            (201, json!({ "id": 100 + kept.len(), "number": kept.len() }).to_string())
        }
        line => match line
            .strip_prefix("PATCH /api/v1/repos/soc/alerts/issues/")
            .and_then(|n| n.parse::<usize>().ok())
        {
            Some(number) if (1..=kept.len()).contains(&number) => {
                merge(&mut kept[number - 1], body);
                (201, json!({ "number": number }).to_string())
            }
            _ => refuse(404, json!({ "message": "The target couldn't be found." })),
        },
    }
}

/// By its API's reference, and TheHive 4's source for what it says of an alert that is there already.
fn thehive(asked: &Asked, kept: &mut Vec<Value>) -> (u16, String) {
    let given = asked.header("authorization");
    if given != Some(&format!("Bearer {KEY}")) {
        return refuse(
            401,
            json!({ "type": "AuthenticationError", "message": format!("Authentication failure {given:?}") }),
        );
    }
    let body = &body_of(asked);
    match asked.line().as_str() {
        "GET /api/v1/status/public" => (200, json!({ "versions": { "TheHive": "5.4.2" } }).to_string()),
        "GET /api/v1/user/current" => (200, json!({ "_id": "~1", "login": "watchpost@soc" }).to_string()),
        "POST /api/v1/alert" => {
            let texts = ["type", "source", "sourceRef", "title", "description", "summary"];
            if let Some(wrong) = texts.iter().find(|field| !body[**field].is_string()) {
                return refuse(
                    400,
                    json!({ "type": "BadRequest", "message": format!("Invalid format for {wrong}") }),
                );
            }
            let numbers = [("severity", 1..=4), ("tlp", 0..=4), ("pap", 0..=3)];
            if let Some((wrong, _)) = numbers
                .iter()
                .find(|(field, range)| !body[*field].as_u64().is_some_and(|n| range.contains(&n)))
            {
                return refuse(
                    400,
                    json!({ "type": "BadRequest", "message": format!("Invalid format for {wrong}") }),
                );
            }
            let same =
                |one: &Value| ["type", "source", "sourceRef"].iter().all(|field| one[*field] == body[*field]);
            if kept.iter().any(same) {
                let message = format!(
                    "Alert {}:{}:{} already exist in organisation SOC",
                    body["type"], body["source"], body["sourceRef"]
                );
                return refuse(400, json!({ "type": "CreateError", "message": message }));
            }
            kept.push(body.clone());
            (201, json!({ "_id": format!("~{}", kept.len()), "_type": "Alert" }).to_string())
        }
        line => match line.strip_prefix("PATCH /api/v1/alert/~").and_then(|n| n.parse::<usize>().ok()) {
            Some(number) if (1..=kept.len()).contains(&number) => {
                merge(&mut kept[number - 1], body);
                (204, String::new())
            }
            _ => refuse(404, json!({ "type": "NotFoundError", "message": "Alert not found" })),
        },
    }
}

/// By the limits of its alert API's reference.
fn opsgenie(asked: &Asked, kept: &mut Vec<Value>) -> (u16, String) {
    let given = asked.header("authorization");
    let answer = |status: u16, mut body: Value| {
        body["took"] = json!(0.1);
        body["requestId"] = "43a29c5c-3dbf-4fa4-9c26-f4f71023e120".into();
        (status, body.to_string())
    };
    if given != Some(&format!("GenieKey {KEY}")) {
        return answer(422, json!({ "message": format!("Key format is not valid! {given:?}") }));
    }
    let body = &body_of(asked);
    let fits = |value: &Value, max: usize| {
        value.as_str().is_some_and(|text| (1..=max).contains(&text.chars().count()))
    };
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/v2/alerts/count") => answer(200, json!({ "data": { "count": 0 } })),
        ("POST", "/v2/alerts") => {
            let known = ["message", "alias", "description", "priority", "source", "tags", "details", "note"];
            let object = body.as_object().unwrap();
            if let Some(unknown) = object.keys().find(|key| !known.contains(&key.as_str())) {
                return answer(422, json!({ "message": format!("unknown field {unknown}") }));
            }
            let texts = [("message", 130), ("alias", 512), ("description", 15_000), ("source", 100)];
            if let Some((wrong, _)) = texts.iter().find(|(field, max)| !fits(&body[*field], *max)) {
                return answer(422, json!({ "message": format!("{wrong} is not valid") }));
            }
            let tags = body["tags"].as_array().unwrap();
            let details = body["details"].as_object().unwrap();
            let priority =
                ["P1", "P2", "P3", "P4", "P5"].contains(&body["priority"].as_str().unwrap_or_default());
            if tags.len() > 20
                || tags.iter().any(|tag| !fits(tag, 50))
                || !details.values().all(Value::is_string)
                || !priority
            {
                return answer(422, json!({ "message": "tags, details or priority are not valid" }));
            }
            match kept.iter_mut().find(|one| one["alias"] == body["alias"]) {
                Some(open) => open["count"] = (open["count"].as_u64().unwrap_or(1) + 1).into(),
                None => kept.push(body.clone()),
            }
            answer(202, json!({ "result": "Request will be processed" }))
        }
        ("POST", path) => {
            let alias = path.strip_prefix("/v2/alerts/").and_then(|rest| rest.strip_suffix("/notes"));
            let is_by_alias = asked.argument("identifierType") == Some("alias");
            if alias.is_none() || !is_by_alias || !fits(&body["note"], 25_000) {
                return answer(404, json!({ "message": "no such resource" }));
            }
            if let Some(open) = kept.iter_mut().find(|one| one["alias"].as_str() == alias) {
                merge(open, body);
            }
            answer(202, json!({ "result": "Request will be processed" }))
        }
        _ => answer(405, json!({ "message": "no" })),
    }
}

fn merge(into: &mut Value, from: &Value) {
    let from: Map<String, Value> = from.as_object().unwrap().clone();
    into.as_object_mut().unwrap().extend(from);
}

#[tokio::test(start_paused = true)]
async fn a_late_verdict_changes_the_ticket_and_makes_no_second_one() {
    for kind in TOOLS {
        let tool = Tool::start(kind);
        let site = Site::start(&[("tool", tool.config(""))]).await;
        site.alert("x", 50, &["tool"], true).await;
        site.advance(Duration::from_secs(31)).await;
        site.until_all("done").await;
        let early = tool.kept();
        assert!(early.len() == 1 && !early[0].to_string().contains("Triage failed"), "{kind}: {early:?}");
        site.settle("x").await;
        let rows = site.until(|rows| rows.len() == 2 && rows.iter().all(|row| row.state == "done")).await;
        assert_eq!(tool.sent(), [tool.first, tool.update], "{kind}: {rows:#?}");
        let kept = tool.kept();
        assert_eq!(kept.len(), 1, "{kind}");
        let told = kept[0].to_string();
        // Forgejo's text is clickdetect's, which has no word for a triage that failed.
        assert!(told.contains("Triage failed: no model") || kind == "forgejo", "{kind}: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_and_tokens_are_asked_for_once() {
    for (kind, asked) in [("iris", 4), ("forgejo", 1), ("thehive", 0), ("opsgenie", 0)] {
        let tool = Tool::start(kind);
        let site = Site::start(&[("tool", tool.config(""))]).await;
        for id in ["x", "y", "z"] {
            site.alert(id, 50, &["tool"], false).await;
            site.until_all("done").await;
        }
        let gets = tool.fake.asked().iter().filter(|asked| asked.method == "GET").count();
        assert_eq!((gets, tool.kept().len()), (asked, 3), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_a_dead_letter_that_does_not_repeat_it() {
    for kind in TOOLS {
        let tool = Tool::start(kind);
        let wrong = "wr0ng-key-of-the-site";
        let address = tool.fake.address();
        let path = if kind == "opsgenie" { "/v2/alerts" } else { "" };
        let own = tool.settings.replace(KEY, wrong);
        let config = settings(&format!("{{type: {kind}, url: 'http://{address}{path}', {own}}}"));
        assert!(!format!("{config:?} {}", config.to_json()).contains(wrong), "{kind}");
        let site = Site::start(&[("tool", config)]).await;
        site.alert("x", 50, &["tool"], false).await;
        let rows = site.until_all("dead").await;
        let answer = rows[0].last_answer.clone().unwrap();
        let status = if kind == "opsgenie" { "422: " } else { "401: " };
        assert!(answer.starts_with(status) && !answer.contains(wrong), "{kind}: {answer}");
        assert!(tool.kept().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_until_it_arrives() {
    let faults = [
        ("500", Reply::text(500, "oops")),
        ("429", Reply::text(429, "slow down").header("retry-after", "7")),
        ("cut", Reply::cut()),
        ("hang", Reply::hang()),
        ("page", Reply::new(200, "text/html", "<!DOCTYPE html><title>Log in</title>")),
    ];
    for kind in TOOLS {
        for (name, reply) in &faults {
            let tool = Tool::start(kind);
            tool.fail(tool.first, Fault::Answer(reply.clone()));
            let site = Site::start(&[("tool", tool.config("timeout: 5"))]).await;
            site.alert("x", 50, &["tool"], false).await;
            if *name == "hang" {
                while tool.sent().is_empty() {
                    site.advance(Duration::ZERO).await;
                }
                site.advance(Duration::from_secs(6)).await;
            }
            site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
            site.advance(Duration::from_secs(900)).await;
            let rows = site.until_all("done").await;
            assert_eq!((rows[0].attempts, tool.kept().len()), (2, 1), "{kind}: {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_preparation_that_fails_is_tried_again_and_loses_nothing() {
    for (kind, first) in [("iris", "GET /manage/severities"), ("forgejo", "GET /api/v1/user")] {
        for reply in [Reply::text(503, ""), Reply::cut(), Reply::text(200, "<html>")] {
            let tool = Tool::start(kind);
            tool.fail(first, Fault::Answer(reply.clone()));
            let site = Site::start(&[("tool", tool.config(""))]).await;
            site.alert("x", 50, &["tool"], false).await;
            site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
            site.advance(Duration::from_secs(900)).await;
            site.until_all("done").await;
            assert_eq!(tool.kept().len(), 1, "{kind}: {reply:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rubbish_for_an_answer_costs_the_receipt_and_no_alert() {
    for kind in TOOLS {
        let tool = Tool::start(kind);
        tool.fail(tool.first, Fault::Answer(Reply::text(200, "\u{1b}[2J{{{ rubbish")));
        let site = Site::start(&[("tool", tool.config(""))]).await;
        site.alert("x", 50, &["tool"], true).await;
        site.advance(Duration::from_secs(31)).await;
        let rows = site.until_all("done").await;
        assert_eq!(rows[0].last_answer.as_deref(), Some("\\u{1b}[2J{{{ rubbish"), "{kind}");
        site.settle("x").await;
        site.until(|rows| rows.len() == 2 && rows.iter().all(|row| row.state == "done")).await;
        assert_eq!(tool.sent(), [tool.first, tool.first], "{kind}: the update stands for itself");
    }
}

#[tokio::test(start_paused = true)]
async fn an_alert_whose_answer_was_lost_is_not_raised_twice_in_thehive() {
    let tool = Tool::start("thehive");
    tool.fail(tool.first, Fault::Late(Reply::cut()));
    let site = Site::start(&[("tool", tool.config(""))]).await;
    site.alert("x", 50, &["tool"], true).await;
    site.advance(Duration::from_secs(31)).await;
    site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
    site.advance(Duration::from_secs(900)).await;
    let rows = site.until_all("done").await;
    assert_eq!(rows[0].last_status, Some(400), "it is there already");
    assert_eq!(tool.kept().len(), 1);
    site.settle("x").await;
    site.until(|rows| rows.len() == 2 && rows.iter().all(|row| row.state == "done")).await;
    let refs: Vec<_> = tool.kept().iter().map(|one| one["sourceRef"].clone()).collect();
    assert_eq!(refs, ["x", "x-update"], "without the alert's id its verdict is an alert of its own");
}

#[tokio::test(start_paused = true)]
async fn nobody_there_and_nobody_trusted_is_worth_another_attempt() {
    let untrusted = Fake::start_tls("signed", |_| Reply::text(200, "{}"));
    for kind in TOOLS {
        let tool = Tool::start(kind);
        for (url, told) in [
            ("http://127.0.0.1:1".to_owned(), "127.0.0.1:1 cannot be reached"),
            (untrusted.url(), "certificate"),
        ] {
            let config = settings(&format!("{{type: {kind}, url: '{url}', {}}}", tool.settings));
            let site = Site::start(&[("tool", config)]).await;
            site.alert("x", 50, &["tool"], false).await;
            let rows = site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
            let answer = rows[0].last_answer.clone().unwrap();
            assert!(answer.contains(told) && !answer.contains(KEY), "{kind}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_look_says_what_answers_and_changes_nothing() {
    for (kind, told) in [
        ("iris", "DFIR-IRIS v2.4.20"),
        ("forgejo", "Forgejo 12.0.1+gitea-1.22.0"),
        ("thehive", "TheHive 5.4.2, as watchpost@soc"),
        ("opsgenie", "Opsgenie takes the key"),
    ] {
        let tool = Tool::start(kind);
        let look = async |config: webhook::Config| {
            let webhook = webhook::build(&config, false).unwrap();
            let http = Http::new(webhook.destination()).unwrap();
            webhook::look(webhook.as_ref(), &http).await.unwrap().map_err(|error| error.to_string())
        };
        assert_eq!(look(tool.config("")).await.unwrap(), told);
        assert!(tool.sent().is_empty() && tool.kept().is_empty(), "{kind}");
        let wrong = settings(&format!(
            "{{type: {kind}, url: 'http://{}{}', {}}}",
            tool.fake.address(),
            if kind == "opsgenie" { "/v2/alerts" } else { "" },
            tool.settings.replace(KEY, "wr0ng-key-of-the-site")
        ));
        let error = look(wrong).await.unwrap_err();
        assert!(error.contains("401") || error.contains("422"), "{kind}: {error}");
        assert!(!error.contains("wr0ng-key-of-the-site"), "{kind}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn alertmanager_has_one_alert_and_its_verdict() {
    let Some(url) = service("ALERTMANAGER") else { return };
    let label = format!("run-{}", std::process::id());
    let yaml = format!(
        "{{type: alertmanager, url: '{url}', labels: {{run: {label}, empty: ''}}, generator_url: 'http://w.example', expire_after: 4000000000}}"
    );
    let site = Site::start(&[("tool", settings(&yaml))]).await;
    site.alert("x", 50, &["tool"], true).await;
    site.advance(Duration::from_secs(31)).await;
    site.until_all("done").await;
    let early = manager_alerts(&url, &label).await;
    assert_eq!((early.len(), &early[0]["annotations"]["verdict"]), (1, &Value::Null));
    site.settle("x").await;
    site.until(|rows| rows.len() == 2 && rows.iter().all(|row| row.state == "done")).await;
    let alerts = manager_alerts(&url, &label).await;
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    assert_eq!(alerts[0]["annotations"]["verdict"], "Triage failed: no model");
    assert_eq!(alerts[0]["fingerprint"], early[0]["fingerprint"]);
    assert_eq!(
        alerts[0]["labels"],
        json!({
            "alertname": "Rule", "severity": "medium", "level": "50", "rule_id": "x", "detector": "d",
            "tenant": "default", "source": "watchpost", "run": label,
        })
    );
    assert_eq!(alerts[0]["startsAt"], "1970-01-01T00:00:00.000Z");
    assert_eq!(
        alerts[0]["annotations"]["results"],
        r#"{"len": 1, "value": [{"user": "root"}], "datasource": "duckdb"}"#
    );
}

#[tokio::test]
async fn a_look_at_alertmanager_says_its_version() {
    let Some(url) = service("ALERTMANAGER") else { return };
    let config = settings(&format!("{{type: alertmanager, url: '{url}'}}"));
    let webhook = webhook::build(&config, false).unwrap();
    let http = Http::new(webhook.destination()).unwrap();
    let told = webhook::look(webhook.as_ref(), &http).await.unwrap().unwrap();
    assert!(told.starts_with("Alertmanager 0."), "{told}");
}

#[tokio::test(start_paused = true)]
async fn what_alertmanager_refuses_is_a_dead_letter_with_its_words() {
    let Some(url) = service("ALERTMANAGER") else { return };
    // Read with a warning, and refused by a server older than 0.27.
    let mut reader = Reader::new(
        "runner.yml",
        "{type: alertmanager, url: 'http://x.example', labels: {a-b: c}}",
        Path::new(""),
        None,
    );
    let node = reader.parse().unwrap();
    let config = webhook::Config::from_yaml(&node, &mut reader).unwrap();
    let webhook::Config::Alertmanager(mut config) = config else { panic!("another kind") };
    config.url = url.parse().unwrap();
    let site = Site::start(&[("tool", webhook::Config::Alertmanager(config))]).await;
    site.alert("x", 50, &["tool"], false).await;
    let rows = site.until_all("dead").await;
    assert!(rows[0].last_answer.as_deref().unwrap().starts_with("400: "), "{rows:#?}");
}

async fn manager_alerts(url: &str, run: &str) -> Vec<Value> {
    let to = format!("{url}/api/v2/alerts?filter=run%3D%22{run}%22").parse().unwrap();
    let to = Destination { url: to, verify: true, ca: None };
    let timeout = Duration::from_secs(10);
    let request = Request { method: "GET", to: to.clone(), headers: Vec::new(), body: Vec::new(), timeout };
    let answer = Http::new([to]).unwrap().send(&request, 1 << 20).await.unwrap();
    serde_json::from_slice(&answer.body).unwrap()
}
