//! The judge in the service: closings that a command makes beside it teach it, verdicts carry what it says, and an older
//! judge can be brought back.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use watchpost::alert::{Alert, Data, identity};
use watchpost::clock::{Clock, Timestamp, Window};
use watchpost::learning;
use watchpost::store::alerts::{self, Handling, Queueing};
use watchpost::store::queue::{self, Judging};
use watchpost::store::{Access, Store, history};
use watchpost::triage::config::Trust;
use watchpost::triage::judge::{Disposition, Judge};
use watchpost::triage::provider::ProviderError;
use watchpost::triage::{Known, Settings, Triager, Verdict};

/// A store with a service's judge on it.
struct Site {
    dir: tempfile::TempDir,
    store: Store,
    judge: watch::Receiver<Arc<Judge>>,
    shutdown: CancellationToken,
}

impl Site {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("soc.db"), Access::Service).unwrap();
        let shutdown = CancellationToken::new();
        let judge = learn(&store, &shutdown);
        Self { dir, store, judge, shutdown }
    }

    async fn save(&self, alerts: Vec<Alert>) {
        let save = move |tx: &rusqlite::Transaction<'_>| {
            alerts.iter().try_for_each(|alert| {
                alerts::insert(tx, "five", alert, &Handling { webhooks: Vec::new(), triage: None }).map(drop)
            })
        };
        self.store.write(save).await.unwrap();
    }

    fn run(&self, args: &[&str]) -> String {
        let output = watchpost(self.dir.path(), args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Of the judge that is in use now, without a model.
    async fn verdict(&self, alert: &Alert) -> Verdict {
        without_a_model().triage(alert, self.known(alert), LIMIT).await.unwrap()
    }

    /// Saves it with its verdict, as the service does.
    async fn save_judged(&self, alert: &Alert) {
        let (saved, now) = (alert.clone(), alert.created_at);
        let queueing = Queueing { hold_until: now, capacity: 10 };
        let handling = Handling { webhooks: Vec::new(), triage: Some(queueing) };
        self.store.write(move |tx| alerts::insert(tx, "five", &saved, &handling)).await.unwrap();
        let judged =
            without_a_model().judge(&Arc::new(alert.clone()), self.known(alert), LIMIT).await.unwrap();
        let (id, judging) =
            (alert.id.clone(), Judging { deliver: false, capacity: 10, trust: Trust::default() });
        self.store.write(move |tx| queue::judge(tx, &id, judged, judging, now)).await.unwrap();
    }

    fn known(&self, alert: &Alert) -> Known {
        let history = self.store.read_here(|connection| history::look_up(connection, alert)).unwrap();
        Known { history, judge: Arc::clone(&self.judge.borrow()) }
    }

    async fn until_judge(&mut self, is_so: impl FnMut(&Arc<Judge>) -> bool) -> String {
        let waited = tokio::time::timeout(Duration::from_secs(60), self.judge.wait_for(is_so)).await;
        waited.expect("the judge in time").unwrap().version.clone()
    }
}

fn without_a_model() -> Triager {
    Triager::start(Settings::default(), || Err(ProviderError::Failed("there is none".into())))
}

fn learn(store: &Store, shutdown: &CancellationToken) -> watch::Receiver<Arc<Judge>> {
    let (judge, _) = learning::current(store).unwrap();
    let (sender, judge) = watch::channel(Arc::new(judge));
    drop(tokio::spawn(learning::run(
        store.clone(),
        Clock::system(),
        sender,
        Trust::default(),
        shutdown.clone(),
    )));
    judge
}

fn watchpost(dir: &Path, args: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
    command.args(args).args(["--store", "soc.db"]).current_dir(dir);
    command.env("USER", "ann").env_remove("SUDO_USER").output().unwrap()
}

/// Logins of `user`, in the `nth` five minutes.
fn alert(nth: usize, user: &str) -> Alert {
    let end = 1_790_000_000 + 300 * nth as i64;
    let window = Window::from_seconds(end - 300, end).unwrap();
    let object = |value: Value| value.as_object().unwrap().clone();
    Alert {
        id: identity("five", "logins", window),
        rule: object(json!({ "id": "logins", "name": "Many logins", "level": 50, "size": ">0" })),
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

/// `user` of the even ones is a nightly job, of the odd ones somebody else.
fn alerts(range: std::ops::Range<usize>) -> Vec<Alert> {
    range.map(|nth| alert(nth, ["backup", "mallory"][nth % 2])).collect()
}

/// As a ticket system exports what was decided about [`alerts`].
fn export(path: &Path, alerts: &[Alert]) {
    let at = |nth: usize| Timestamp::from_second(1_790_500_000 + 600 * nth as i64).unwrap();
    let lines = alerts.iter().enumerate().map(|(nth, alert)| {
        let label = ["fp", "tp"][usize::from(alert.data.value[0]["user"] == "mallory")];
        let line =
            json!({ "alert_id": alert.id, "label": label, "reason": "x", "analyst": "ann", "at": at(nth) });
        format!("{line}\n")
    });
    std::fs::write(path, lines.collect::<String>()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closings_teach_the_judge_of_the_service_and_an_older_one_can_be_brought_back() {
    let mut site = Site::start().await;
    let known = alerts(0..40);
    site.save(known.clone()).await;
    let (benign, threat) = (alert(100, "backup"), alert(101, "mallory"));
    let before = site.verdict(&benign).await;
    assert_eq!(before.judgement.as_ref().unwrap().judge, Judge::PRIOR);
    assert!(site.run(&["judge"]).contains("uncalibrated: nothing was learned"));

    export(&site.dir.path().join("first.jsonl"), &known[..30]);
    site.run(&["close", "--import", "first.jsonl"]);
    let first = site.until_judge(|judge| judge.learned == (15, 15)).await;
    let (benign_now, threat_now) = (site.verdict(&benign).await, site.verdict(&threat).await);
    let disposition = |verdict: &Verdict| verdict.judgement.as_ref().unwrap().disposition;
    assert_eq!(disposition(&benign_now), Disposition::FalsePositive, "{benign_now:?}");
    assert_eq!(disposition(&threat_now), Disposition::TruePositive, "{threat_now:?}");
    assert!(benign_now.risk_score < before.risk_score && before.risk_score < threat_now.risk_score);
    assert_eq!(benign_now.severity, before.severity, "no probability lowers a severity");
    let why = &benign_now.judgement.unwrap().why;
    assert!(why.iter().any(|reason| reason.feature == "user: backup" && reason.weight < 0.0), "{why:?}");

    export(&site.dir.path().join("all.jsonl"), &known);
    site.run(&["close", "--import", "all.jsonl"]);
    let second = site.until_judge(|judge| judge.learned == (20, 20)).await;
    let told = site.run(&["judge"]);
    assert!(told.contains(&format!("in use: {second}, calibrated on 20 threats and 20 benign")), "{told}");
    site.run(&["judge", "--use", &first]);
    site.until_judge(|judge| judge.version == first).await;
    assert!(site.run(&["judge"]).contains("chosen by ann"));
    let unknown = watchpost(site.dir.path(), &["judge", "--use", "\u{1b}[2J"]);
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(!unknown.status.success() && error.contains("it is not in the store"), "{error}");
    assert!(!error.contains('\u{1b}'));
    site.run(&["judge", "--use", "newest"]);
    site.until_judge(|judge| judge.version == second).await;
    // What was undone is unlearned.
    site.run(&["close", "--undo-by", "ann", "--since", "2020-01-01T00:00:00Z"]);
    site.until_judge(|judge| judge.version != second && judge.version != first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_of_which_the_judge_is_least_sure_are_listed_to_be_closed_first() {
    let mut site = Site::start().await;
    let known = alerts(0..30);
    site.save(known.clone()).await;
    export(&site.dir.path().join("known.jsonl"), &known);
    site.run(&["close", "--import", "known.jsonl"]);
    site.until_judge(|judge| judge.learned == (15, 15)).await;

    let mut open = [alert(100, "backup"), alert(101, "mallory"), alert(102, "carol"), alert(103, "dave")];
    open[3].rule.insert("id".into(), "others".into());
    let none = site.run(&["alerts", "--unsure"]);
    assert!(none.contains("no open alerts with a verdict"), "{none}");
    for alert in &open {
        site.save_judged(alert).await;
    }
    let listed = |args: &[&str]| -> Vec<String> {
        let told = site.run(&[&["alerts", "--unsure", "--json"], args].concat());
        told.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().into())
            .collect()
    };
    let all = listed(&[]);
    // First one whom nobody knows, and of a rule two at most.
    assert_eq!((all.len(), &all[0]), (3, &open[2].id), "{all:?}");
    assert!(all.contains(&open[3].id), "{all:?}");
    assert_eq!(listed(&["--limit", "1"]), all[..1]);

    // Those that another watchpost kept, or that are damaged, are found again.
    let damage = |tx: &rusqlite::Transaction<'_>| tx.execute("UPDATE features SET body = x'00'", []);
    site.store.write(damage).await.unwrap();
    assert_eq!(listed(&[]), all);

    let blind = |id: String| {
        move |tx: &rusqlite::Transaction<'_>| tx.execute("UPDATE alerts SET is_blind = 1 WHERE id = ?1", [id])
    };
    site.store.write(blind(open[2].id.clone())).await.unwrap();
    assert!(!listed(&[]).contains(&open[2].id), "that would tell of a verdict which nobody is to see yet");
    site.run(&["close", &open[3].id, "--as", "fp", "--reason", "x"]);
    assert!(!listed(&[]).contains(&open[3].id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_judge_is_said_replaced_by_the_formula_and_learned_again() {
    let mut site = Site::start().await;
    let known = alerts(0..20);
    site.save(known.clone()).await;
    export(&site.dir.path().join("all.jsonl"), &known);
    site.run(&["close", "--import", "all.jsonl"]);
    let version = site.until_judge(|judge| judge.learned == (10, 10)).await;
    site.shutdown.cancel();
    let damage = |tx: &rusqlite::Transaction<'_>| tx.execute("UPDATE judges SET body = x'00'", []);
    site.store.write(damage).await.unwrap();
    let (judge, problem) = learning::current(&site.store).unwrap();
    assert_eq!(judge, Judge::prior());
    let problem = problem.unwrap();
    assert!(problem.contains(&version) && problem.contains("its checksum is another"), "{problem}");
    let told = site.run(&["judge"]);
    assert!(told.contains("in use: the formula") && told.contains("its checksum is another"), "{told}");
    // A new start learns it again.
    site.shutdown = CancellationToken::new();
    site.judge = learn(&site.store, &site.shutdown);
    assert_eq!(site.until_judge(|judge| judge.learned == (10, 10)).await, version);
}

const LIMIT: Duration = Duration::from_secs(60);
