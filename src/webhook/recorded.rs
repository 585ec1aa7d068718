//! For tests of kinds: alerts, answers, and what clickdetect sent for the same (tests/data/clickdetect/README.md).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{Message, Outgoing, Probe, Webhook, payload};
use crate::alert::{Alert, Data};
use crate::clock::{Timestamp, Window};
use crate::config::{FromYaml, Reader};
use crate::http::{Answer, Request};
use crate::triage::Triage;

/// What a kind is to compose.
pub(super) struct Case {
    pub(super) alert: Alert,
    pub(super) triage: Triage,
    pub(super) is_update: bool,
    pub(super) receipt: Option<String>,
}

impl Case {
    pub(super) fn new() -> Self {
        Self { alert: payload::tests::alert(), triage: Triage::Skipped, is_update: false, receipt: None }
    }

    /// One row with a `user`.
    pub(super) fn with_user(user: &str) -> Self {
        let mut case = Self::new();
        case.alert.data.value = vec![Map::from_iter([("user".to_owned(), Json::from(user))])];
        case
    }

    /// The alert that clickdetect was given.
    pub(super) fn recorded(name: &str) -> Self {
        let mut alerts: BTreeMap<String, Told> = read("clickdetect/alerts.json");
        alerts.remove(name).unwrap_or_else(|| panic!("no alert {name}")).into_case()
    }

    pub(super) fn compose(&self, webhook: &dyn Webhook) -> Request {
        let message = Message {
            alert: &self.alert,
            triage: &self.triage,
            is_update: self.is_update,
            idempotency_key: "0123456789abcdef",
            receipt: self.receipt.as_deref(),
        };
        match webhook.compose(&message).unwrap() {
            Outgoing::Http(request) => request,
            other => panic!("{other:?}"),
        }
    }
}

/// A verdict whose `clickagentic` is tests/data/clickdetect/verdict.json.
pub(super) fn done() -> Triage {
    payload::tests::done()
}

pub(super) fn body(request: &Request) -> Json {
    serde_json::from_slice(&request.body).unwrap_or_else(|error| panic!("{error}: {:?}", request.body))
}

pub(super) fn answer(status: u16, body: &str) -> Answer {
    Answer { status, retry_after: None, location: None, body: body.into() }
}

/// The one question of a kind's probe: method and address.
pub(super) fn probe(webhook: &dyn Webhook) -> String {
    match webhook.probe().as_slice() {
        [Probe::Http(request)] => format!("{} {}", request.method, request.to.url.as_str()),
        other => panic!("{other:?}"),
    }
}

/// A kind's settings, from YAML.
pub(super) fn config<T: FromYaml>(yaml: &str) -> T {
    try_config(yaml).unwrap_or_else(|problems| panic!("{problems}"))
}

/// What is wrong with a kind's settings.
pub(super) fn refused<T: FromYaml>(yaml: &str) -> String {
    match try_config::<T>(yaml) {
        Ok(_) => panic!("not refused: {yaml}"),
        Err(problems) => problems,
    }
}

/// What is said of a kind's settings, warnings too.
pub(super) fn told<T: FromYaml>(yaml: &str) -> String {
    let mut reader = Reader::new("", yaml, Path::new(""), None);
    drop(reader.parse().and_then(|node| T::from_yaml(&node, &mut reader)));
    let problems = reader.into_diagnostics();
    let told = problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message));
    told.collect::<Vec<_>>().join("\n")
}

fn try_config<T: FromYaml>(yaml: &str) -> Result<T, String> {
    let mut reader = Reader::new("", yaml, Path::new(""), None);
    let read = reader.parse().and_then(|node| T::from_yaml(&node, &mut reader));
    let problems = reader.into_diagnostics();
    let told: Vec<String> = problems
        .iter()
        .filter(|problem| problem.is_error())
        .map(|problem| format!("{}: {}", problem.path, problem.message))
        .collect();
    read.filter(|_| told.is_empty()).ok_or_else(|| told.join("\n"))
}

/// Holds what a kind composes against what clickdetect sent, for every webhook of the recording and every alert, but for
/// those `apart`: (webhook, alert), where clickdetect sent nothing or nothing that is JSON.
pub(super) fn compare(kind: &str, build: impl Fn(&str) -> Box<dyn Webhook>, apart: &[(&str, &str)]) {
    compare_but(kind, build, apart, |_, sent| sent);
}

/// [`compare`], where clickdetect's body is first changed by `differs`: what we send otherwise on purpose.
pub(super) fn compare_but(
    kind: &str,
    build: impl Fn(&str) -> Box<dyn Webhook>,
    apart: &[(&str, &str)],
    differs: impl Fn(&Alert, Json) -> Json,
) {
    let alerts: BTreeMap<String, Told> = read("clickdetect/alerts.json");
    let hooks: BTreeMap<String, Hook> = read(&format!("{kind}/clickdetect.json"));
    let mut compared = 0;
    for (name, hook) in &hooks {
        let mut settings = hook.settings.clone();
        settings.remove("type");
        let webhook = build(&Json::Object(settings).to_string());
        for (alert, sent) in &hook.requests {
            let case = alerts[alert].clone().into_case();
            let composed = case.compose(webhook.as_ref());
            let Some(sent) = sent.as_ref().filter(|sent| sent.json.is_some()) else {
                assert!(apart.contains(&(name.as_str(), alert.as_str())), "{name}, {alert}: {sent:?}");
                continue;
            };
            let wanted = differs(&case.alert, sent.json.clone().unwrap());
            let same_body = body(&composed) == wanted;
            if apart.contains(&(name.as_str(), alert.as_str())) {
                assert!(!same_body, "{name}, {alert} are the same");
                continue;
            }
            let place = format!("{name}, {alert}");
            assert_eq!(body(&composed), wanted, "{place}");
            let url = reqwest::Url::parse(composed.to.url.as_str()).unwrap();
            let wanted = url.join(&sent.path).unwrap();
            assert_eq!((composed.method, url.path()), (sent.method.as_str(), wanted.path()), "{place}");
            // Python's client writes `/` for `%2F` in a query, where both mean the same.
            assert!(url.query_pairs().eq(wanted.query_pairs()), "{place}: {url} {wanted}");
            let headers: BTreeMap<String, String> = (composed.headers.iter())
                .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
                .collect();
            assert_eq!(headers, sent.headers, "{place}");
            compared += 1;
        }
    }
    assert!(compared >= 10, "{compared} requests compared");
}

/// An alert as clickdetect's templates saw it.
#[derive(Clone, Deserialize)]
struct Told {
    rule: Map<String, Json>,
    detector: Map<String, Json>,
    datasource: Map<String, Json>,
    data: Data,
    time: Time,
    clickagentic: Option<Json>,
}

#[derive(Clone, Deserialize)]
struct Time {
    startime: f64,
    endtime: f64,
}

impl Told {
    fn into_case(self) -> Case {
        let window = Window::from_seconds(self.time.startime as i64, self.time.endtime as i64).unwrap();
        let alert = Alert {
            id: "00112233445566778899aabbccddeeff".into(),
            rule: self.rule,
            detector: self.detector,
            datasource: self.datasource,
            data: self.data,
            window,
            created_at: Timestamp::from_second(self.time.endtime as i64).unwrap(),
        };
        let triage = if self.clickagentic.is_some() { done() } else { Triage::Skipped };
        Case { alert, triage, is_update: false, receipt: None }
    }
}

#[derive(Deserialize)]
struct Hook {
    settings: Map<String, Json>,
    /// By alert; `None` where clickdetect sent nothing.
    requests: BTreeMap<String, Option<Sent>>,
}

#[derive(Debug, Deserialize)]
struct Sent {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    json: Option<Json>,
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
