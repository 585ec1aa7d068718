//! The trust gate, whole: alerts that the judge of the service judged, what people closed, what somebody granted, what the
//! machine then does alone, and what ends it.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use watchpost::alert::{Alert, Data, identity};
use watchpost::clock::{Clock, Timestamp, Window};
use watchpost::learning;
use watchpost::store::alerts::{self, Handling, Queueing, Stored};
use watchpost::store::outbox::{self, Slots};
use watchpost::store::queue::{self, Judging};
use watchpost::store::{Access, Store, history, trust};
use watchpost::triage::config::Trust;
use watchpost::triage::provider::ProviderError;
use watchpost::triage::{Known, Settings, Triage, Triager};

/// A store on which a service judges without a model, and the commands beside it.
struct Site {
    dir: tempfile::TempDir,
    store: Store,
    triager: Triager,
    asked: Trust,
    /// When the test began.
    now: Timestamp,
}

/// The query of the rule.
const QUERY: &str = "SELECT * FROM logins";

impl Site {
    /// With a judge that learned from 40 closings.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("soc.db"), Access::Service).unwrap();
        let triager =
            Triager::start(Settings::default(), || Err(ProviderError::Failed("there is none".into())));
        let site = Self { dir, store, triager, asked: Trust::default(), now: Timestamp::now() };
        let taught: Vec<Alert> = (0..40).map(|nth| site.alert(nth, QUERY)).collect();
        for alert in &taught {
            site.insert(alert, None).await;
        }
        site.close(&taught);
        learning::learn_now(&site.store, &Clock::system()).await.unwrap();
        site
    }

    /// With 140 more alerts, judged by that judge and closed by `ann` as what they were, over the last 35 days.
    async fn measured() -> Self {
        let site = Self::start().await;
        let judged: Vec<Alert> = (40..180).map(|nth| site.alert(nth, QUERY)).collect();
        for alert in &judged {
            site.judge(alert).await;
        }
        site.close(&judged);
        site
    }

    async fn trusted() -> Self {
        let site = Self::measured().await;
        site.run(&["trust", "grant", "logins", "close", "--reason", "measured for a month"]);
        site
    }

    /// Logins of a nightly job (even) or of somebody else, six hours after the one before; the 180th is of now.
    fn alert(&self, nth: usize, query: &str) -> Alert {
        let end = self.now.as_second() - 6 * 3_600 * (180 - nth as i64);
        let window = Window::from_seconds(end - 300, end).unwrap();
        let object = |value: Value| value.as_object().unwrap().clone();
        let user = ["backup", "mallory"][nth % 2];
        let rule = json!({ "id": "logins", "name": "Many logins", "level": 50, "size": ">0", "rule": query });
        Alert {
            id: identity("five", "logins", window),
            rule: object(rule),
            detector: object(json!({ "name": "five", "tenant": "default" })),
            datasource: object(json!({ "type": "duckdb" })),
            data: Data {
                len: 1,
                value: vec![object(json!({ "user": user, "host": "web-1", "message": "accepted" }))],
                datasource: "duckdb".into(),
                cut: None,
            },
            window,
            created_at: window.end,
        }
    }

    async fn insert(&self, alert: &Alert, triage: Option<Queueing>) {
        let (alert, handling) = (alert.clone(), Handling { webhooks: vec!["soc".into()], triage });
        self.store.write(move |tx| alerts::insert(tx, "five", &alert, &handling)).await.unwrap();
    }

    /// As the pipeline does; gives the alert as it is shown.
    async fn judge(&self, alert: &Alert) -> Stored {
        let queueing = Queueing { hold_until: Timestamp::MAX, capacity: 1_000 };
        self.insert(alert, Some(queueing)).await;
        let history = self.store.read_here(|connection| history::look_up(connection, alert)).unwrap();
        let (judge, _) = learning::current(&self.store).unwrap();
        let known = Known { history, judge: Arc::new(judge) };
        let judged =
            self.triager.judge(&Arc::new(alert.clone()), known, Duration::from_secs(60)).await.unwrap();
        let judging = Judging { deliver: true, capacity: 1_000, trust: self.asked.clone() };
        let (id, now) = (alert.id.clone(), self.now);
        self.store.write(move |tx| queue::judge(tx, &id, judged, judging, now)).await.unwrap();
        self.stored(alert)
    }

    fn stored(&self, alert: &Alert) -> Stored {
        self.store.read_here(|connection| alerts::get(connection, &alert.id)).unwrap().unwrap()
    }

    /// Ann takes over what her ticket system says of each, an hour after it fired.
    fn close(&self, alerts: &[Alert]) {
        self.import(
            alerts,
            "ann",
            |alert| ["fp", "tp"][usize::from(alert.data.value[0]["user"] == "mallory")],
            3_600,
        );
    }

    fn import(&self, alerts: &[Alert], analyst: &str, label: impl Fn(&Alert) -> &'static str, after_s: i64) {
        let lines = alerts.iter().map(|alert| {
            let at = Timestamp::from_second((alert.created_at.as_second() + after_s).min(self.now.as_second()));
            let line = json!({
                "alert_id": alert.id, "label": label(alert), "reason": "x", "analyst": analyst, "at": at.unwrap(),
            });
            format!("{line}\n")
        });
        std::fs::write(self.dir.path().join("closings.jsonl"), lines.collect::<String>()).unwrap();
        self.run(&["close", "--import", "closings.jsonl"]);
    }

    async fn review(&self) {
        let (asked, now) = (self.asked.clone(), self.now);
        self.store.write(move |tx| trust::review(tx, &asked, now)).await.unwrap();
    }

    fn command(&self, args: &[&str]) -> std::process::Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
        command.args([args[0], "--store", "soc.db"]).args(&args[1..]).current_dir(self.dir.path());
        command.env("USER", "ann").env_remove("SUDO_USER").output().unwrap()
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

const GRANT: [&str; 6] = ["trust", "grant", "logins", "close", "--reason", "again"];

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_of_a_trusted_rule_is_closed_by_the_machine_and_stays_in_view() {
    let site = Site::measured().await;
    let before = site.judge(&site.alert(180, QUERY)).await;
    assert_eq!(before.closing, None, "nobody granted anything");
    assert_eq!(json!(before.triage)["verdict"]["recommends"], "close");
    let shown = site.run(&["trust"]);
    assert!(shown.contains("70 of 70, at least 0.958") && shown.contains("recommends"), "{shown}");
    assert!(site.run(&["alerts", &before.alert.id]).contains("advice    close it"));
    site.run(&GRANT);
    assert!(site.refused(&GRANT).contains("it is granted already"));

    let changes = site.run(&["judge", "--json"]);
    let (benign, threat) = (site.alert(182, QUERY), site.alert(181, QUERY));
    let closed = site.judge(&benign).await;
    let closing = closed.closing.unwrap();
    assert_eq!((closing.label.as_str(), closing.analyst.as_str()), ("false_positive", "watchpost"));
    assert!(closing.reason.contains("`ann` trusts with this since"), "{}", closing.reason);
    let Triage::Judged { verdict } = closed.triage else { panic!() };
    assert_eq!(verdict.recommends, None);
    assert_eq!(site.judge(&threat).await.closing, None);
    let listed = site.run(&["alerts"]);
    assert!(
        listed.lines().any(|line| line.contains("false_positive by watchpost") && line.contains(&benign.id))
    );
    let due = site.store.read_here(|connection| outbox::list(connection, false, 2)).unwrap();
    assert!(
        due.iter().any(|delivery| delivery.alert_id == benign.id && delivery.state == "due"),
        "it goes out"
    );
    assert_eq!(site.run(&["judge", "--json"]), changes, "the machine teaches itself nothing");
    let metrics: Value =
        serde_json::from_str(&site.run(&["metrics", "--days", "100", "--format", "json"])).unwrap();
    assert_eq!(metrics["all"]["alerts"], 180, "and measures nothing by itself");
    // A person's decision stands before it, whichever is the newer one.
    site.import(std::slice::from_ref(&benign), "bob", |_| "btp", 0);
    assert_eq!(site.stored(&benign).closing.unwrap().analyst, "bob");
    let error = site.refused(&["close", &benign.id, "--as", "fp", "--reason", "x", "--by", "watchpost"]);
    assert!(error.contains("name under which the machine closes"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_severity_that_the_machine_lowers_says_what_it_was_and_why() {
    let site = Site::measured().await;
    let before = json!(site.judge(&site.alert(180, QUERY)).await.triage);
    assert_eq!(
        (&before["verdict"]["severity"], &before["verdict"]["lowered"]),
        (&json!("Medium"), &Value::Null)
    );
    site.run(&["trust", "grant", "logins", "lower", "--reason", "measured for a month"]);
    let (benign, threat) = (site.alert(182, QUERY), site.alert(181, QUERY));
    let lowered = site.judge(&benign).await;
    let verdict = &json!(lowered.triage)["verdict"];
    assert_eq!((&verdict["severity"], &verdict["lowered"]["from"]), (&json!("Low"), &json!("Medium")));
    assert_eq!((lowered.closing, &verdict["recommends"]), (None, &json!("close")), "that was not granted");
    assert_eq!(json!(site.judge(&threat).await.triage)["verdict"]["severity"], "Medium");
    let shown = site.run(&["alerts", &benign.id]);
    assert!(
        shown.contains("lowered   from Medium: a threat is") && shown.contains("likely by the judge"),
        "{shown}"
    );
    let runner =
        "store: soc.db\ndetectors:\n  d: {name: D, for: 5m, rules: [a.yml]}\ntriage: {trust: {days: 40}}\n";
    std::fs::write(site.dir.path().join("runner.yml"), runner).unwrap();
    let replay = Command::new(env!("CARGO_BIN_EXE_watchpost"))
        .args(["replay", &benign.id])
        .current_dir(site.dir.path())
        .output()
        .unwrap();
    let replayed = String::from_utf8(replay.stdout).unwrap();
    assert!(replayed.contains("the same: verdict"), "{replayed} {}", String::from_utf8_lossy(&replay.stderr));
    assert!(
        site.run(&["trust"]).contains("needs 6 more days: the labels are of 34, the bar is 40"),
        "the runner's bar"
    );
    std::fs::remove_file(site.dir.path().join("runner.yml")).unwrap();
    let told: Value = serde_json::from_str(&site.run(&["trust", "--json"])).unwrap();
    let allowed: Vec<_> =
        told["rules"].as_array().unwrap().iter().map(|rule| rule["is_allowed"] == true).collect();
    assert_eq!(allowed, [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_rule_ends_trust_and_what_was_measured_before_does_not_count() {
    let site = Site::trusted().await;
    assert!(site.judge(&site.alert(182, QUERY)).await.closing.is_some());
    let after = site.judge(&site.alert(184, "SELECT * FROM logins WHERE ok")).await;
    assert_eq!((after.closing, json!(after.triage)["verdict"]["recommends"].as_str()), (None, Some("close")));
    let log = site.run(&["trust", "--log"]);
    assert!(
        log.contains("demoted") && log.contains("by watchpost: the rule's query, level or size is another"),
        "{log}"
    );
    let error = site.refused(&GRANT);
    assert!(error.contains("needs 59 more") && error.contains("needs 30 more days"), "{error}");
    // Back to the old query, a person must still grant it again.
    assert_eq!(site.judge(&site.alert(186, QUERY)).await.closing, None);
    site.run(&GRANT);
    assert!(site.judge(&site.alert(188, QUERY)).await.closing.is_some());
    site.run(&["trust", "revoke", "logins", "close"]);
    assert_eq!(site.judge(&site.alert(190, QUERY)).await.closing, None);
    assert!(site.refused(&["trust", "revoke", "logins", "close"]).contains("is not granted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_judge_drift_and_a_burst_of_closings_end_trust() {
    let site = Site::trusted().await;
    site.run(&["judge", "--use", "prior"]);
    assert!(site.run(&["trust", "--log"]).contains("another judge is in use"));
    site.run(&["judge", "--use", "newest"]);
    site.run(&GRANT);
    // The last alerts of the job were an intruder after all.
    let wrong: Vec<Alert> = (0..5).map(|nth| site.alert(170 + 2 * nth, QUERY)).collect();
    site.import(&wrong, "bob", |_| "tp", 7_200);
    let shown = site.run(&["trust"]);
    assert!(
        !shown.contains(" yes ") && shown.contains("drift: of the last 20 called harmless, 5 were threats"),
        "{shown}"
    );
    site.review().await;
    assert!(site.run(&["trust", "--log"]).lines().next().unwrap().contains("demoted"));
    site.run(&["close", "--undo-by", "bob", "--since", "2020-01-01T00:00:00Z"]);
    site.run(&GRANT);
    // Sixty alerts closed by one account within minutes.
    let burst: Vec<Alert> = (60..120).map(|nth| site.alert(nth, QUERY)).collect();
    let soon = site.now.as_second() + 100;
    let late = Site { now: Timestamp::from_second(soon).unwrap(), ..site };
    late.import(&burst, "eve", |_| "fp", i64::MAX / 4);
    late.review().await;
    let log = late.run(&["trust", "--log"]);
    assert!(log.lines().next().unwrap().contains("`eve` closed unusually many alerts"), "{log}");
    assert!(late.refused(&GRANT).contains("needs"), "labels of a burst are none");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verdict_of_a_blind_alert_is_shown_to_nobody_before_a_person_closed_it() {
    let mut site = Site::trusted().await;
    site.asked.blind = 1.0;
    let alert = site.alert(182, QUERY);
    let blind = site.judge(&alert).await;
    assert_eq!((&blind.triage, blind.closing), (&Triage::Blind, None), "and the machine does not close it");
    let whole = site.run(&["alerts", &alert.id]);
    assert!(
        whole.contains("blind review") && !whole.contains("risk") && !whole.contains("likely"),
        "{whole}"
    );
    let line = site.run(&["alerts", "--json", "--limit", "1"]);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["id"], &line["triage"]), (&json!(alert.id), &json!({ "state": "blind" })));
    let slots = [Slots { webhook: "soc".into(), free: 1_000 }];
    let now_ms = site.now.as_millisecond();
    let claims = site.store.write(move |tx| outbox::claim_due(tx, &slots, now_ms)).await.unwrap();
    let claim = claims.iter().find(|claim| claim.alert_id == alert.id).unwrap();
    let told = site.store.read_here(|connection| outbox::content(connection, claim.id)).unwrap();
    assert_eq!(told.triage, r#"{"state":"blind"}"#);

    site.run(&["close", &alert.id, "--as", "fp", "--reason", "the job"]);
    assert!(matches!(site.stored(&alert).triage, Triage::Judged { .. }));
    let metrics: Value =
        serde_json::from_str(&site.run(&["metrics", "--days", "100", "--format", "json"])).unwrap();
    assert_eq!((&metrics["blind"]["alerts"], &metrics["all"]["alerts"]), (&json!(1), &json!(181)));
}
