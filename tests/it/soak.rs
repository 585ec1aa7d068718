//! `kill -9` at any moment: nothing is lost. `make soak` kills 200 times, the suite fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use watchpost::store::{Access, Store, alerts};
use watchpost::triage::Triage;

const RULES: usize = 50;

/// What the receiver took (answered 200): rule -> (start, end) -> idempotency keys.
type Taken = BTreeMap<String, BTreeMap<(i64, i64), BTreeSet<String>>>;

#[derive(Clone)]
struct Receiver {
    taken: Arc<Mutex<Taken>>,
    dice: Arc<Mutex<SmallRng>>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if receiver.dice.lock().unwrap().random_bool(0.5) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    let rule = body["rule"]["id"].as_str().unwrap().to_owned();
    let border = |name: &str| body["time"][name].as_f64().unwrap() as i64;
    let window = (border("startime"), border("endtime"));
    receiver.taken.lock().unwrap().entry(rule).or_default().entry(window).or_default().insert(key);
    StatusCode::OK
}

fn start(runner: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_watchpost"))
        .args(["run", "-r"])
        .arg(runner)
        .env("WATCHPOST_LOG", "error")
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window_and_no_alert_is_lost_however_often_the_process_is_killed() {
    let kills: usize = std::env::var("WATCHPOST_SOAK_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let seed: u64 = std::env::var("WATCHPOST_SOAK_SEED").map_or(7, |seed| seed.parse().unwrap());
    let mut dice = SmallRng::seed_from_u64(seed);

    let dice_of_receiver = Arc::new(Mutex::new(SmallRng::seed_from_u64(seed + 1)));
    let receiver = Receiver { taken: Arc::default(), dice: dice_of_receiver };
    let router = Router::new().route("/", post(receive)).with_state(receiver.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    for rule in 0..RULES {
        let text =
            format!("id: r{rule}\nname: Rule {rule}\nlevel: {rule}\nrule: SELECT {{{{ startime }}}} AS at\n");
        std::fs::write(dir.path().join(format!("rules/r{rule}.yml")), text).unwrap();
    }
    let runner = dir.path().join("runner.yml");
    let text = format!(
        "datasource: {{type: duckdb}}\n\
         webhooks:\n  hook: {{type: generic, url: 'http://{address}/', retry_max_wait: 1s}}\n\
         detectors:\n  every:\n    name: every second\n    for: 1s\n    rules: ['rules/*.yml']\n    webhooks: [hook]\n"
    );
    std::fs::write(&runner, text).unwrap();

    let began = Instant::now();
    for _ in 0..kills {
        let mut child = start(&runner);
        tokio::time::sleep(Duration::from_millis(dice.random_range(50..1500))).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // The last start: it searches what is left, delivers what is open, and stops when asked to.
    let mut last = start(&runner);
    let until = drain(&runner, Duration::from_secs(120)).await;
    terminate(&last);
    assert!(last.wait().unwrap().success(), "the service stops by itself at SIGTERM");

    let taken = receiver.taken.lock().unwrap();
    assert_eq!(taken.len(), RULES, "every rule was heard of");
    let mut alerts = 0;
    for (rule, windows) in taken.iter() {
        let mut at = None;
        // What was searched after the wait began may still be on its way.
        for ((start, end), keys) in windows.iter().filter(|((start, _), _)| *start < until) {
            assert!(at.is_none_or(|at| at == *start), "{rule}: searched to {at:?}, then from {start}");
            assert_eq!(keys.len(), 1, "{rule} {start}: one delivery has one idempotency key");
            at = Some(*end);
            alerts += 1;
        }
        assert!(at.unwrap() >= until, "{rule}: delivered to {at:?}, and {until} was searched");
    }
    println!("{kills} kills, {alerts} alerts in {RULES} rules, {:.0} s", began.elapsed().as_secs_f64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_between_verdict_and_prose_goes_on_at_the_prose() {
    let messages = crate::receiver::Receiver::start([]).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    // The first window is an hour long; those after the restarts are short and find nothing.
    let rule = "id: scan\nname: Port scan\nlevel: 60\ndescription: One address tried many ports.\n\
                rule: SELECT '203.0.113.9' AS source_ip, i AS port FROM range(30) AS numbers(i) WHERE {{ endtime }} - {{ startime }} >= 3600\n";
    std::fs::write(dir.path().join("rules/scan.yml"), rule).unwrap();
    let runner = dir.path().join("runner.yml");
    let text = format!(
        "datasource: {{type: duckdb}}\nstore: scan.db\n\
         webhooks:\n  hook: {{type: generic, url: '{}'}}\n\
         detectors:\n  once:\n    name: once\n    for: 1h\n    rules: ['rules/*.yml']\n    webhooks: [hook]\n\
         triage: {{deadline: 1h, model: {:?}}}\n",
        messages.url(),
        crate::triage::model_path()
    );
    std::fs::write(&runner, text).unwrap();
    let store = dir.path().join("scan.db");

    let mut first = start(&runner);
    let judged = wait_for(&store, |triage| triage.verdict().cloned()).await;
    first.kill().unwrap();
    first.wait().unwrap();
    let left = wait_for(&store, |triage| Some(triage.clone())).await;
    assert!(matches!(left, Triage::Judged { .. }), "killed between the steps: {left:?}");
    assert!(messages.received().is_empty());

    let mut second = start(&runner);
    let done = wait_for(&store, |triage| match triage {
        Triage::Done { verdict } => Some((**verdict).clone()),
        _ => None,
    })
    .await;
    assert_eq!(done.cost.seconds_to_verdict, judged.cost.seconds_to_verdict, "it was not judged again");
    assert_eq!((done.severity, done.risk_score), (judged.severity, judged.risk_score));
    assert!(done.cost.completion_tokens > 0 && done.cost.seconds_to_prose > done.cost.seconds_to_verdict);
    let began = Instant::now();
    while messages.received().is_empty() && began.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(messages.received()[0].body["triage"], "done");
    terminate(&second);
    assert!(second.wait().unwrap().success());
    assert_eq!(messages.received().len(), 1);
}

/// What `wanted` finds in the triage of the one alert, read past the process that works on it.
async fn wait_for<T>(store: &Path, wanted: impl Fn(&Triage) -> Option<T>) -> T {
    let began = Instant::now();
    let mut opened = None;
    while began.elapsed() < Duration::from_secs(120) {
        // At first there is no store, and then one without tables.
        if opened.is_none() {
            opened = Store::open(store, Access::Command).ok();
        }
        let found = opened.as_ref().map(|store| store.read_here(|connection| alerts::list(connection, 1)));
        if let Some(Ok(found)) = found
            && let Some(wanted) = found.first().and_then(|stored| wanted(&stored.triage))
        {
            return wanted;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("not within two minutes");
}

/// Waits until every rule was searched up to the second in which the wait began, and all that was found until then
/// is delivered; gives that second.
async fn drain(runner: &Path, limit: Duration) -> i64 {
    let began = Instant::now();
    let until = jiff::Timestamp::now();
    let mut all_found_at = None;
    while began.elapsed() < limit {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let status: Value = serde_json::from_str(&watchpost(runner, &["status", "--json"])).unwrap();
        let is_searched =
            status["rules"].as_array().unwrap().iter().all(|rule| {
                rule["searched_to"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap() >= until
            });
        if is_searched && all_found_at.is_none() {
            all_found_at = Some(jiff::Timestamp::now().as_millisecond());
        }
        let Some(at) = all_found_at else { continue };
        let is_open =
            |delivery: &Value| delivery["state"] != "done" && delivery["created_at"].as_i64().unwrap() <= at;
        if !rows(runner, "deliveries").iter().any(is_open) {
            assert_eq!(rows(runner, "gaps"), Vec::<Value>::new());
            return until.as_second();
        }
    }
    panic!("the backlog was not delivered within {limit:?}");
}

fn rows(runner: &Path, verb: &str) -> Vec<Value> {
    let text = watchpost(runner, &[verb, "--json", "--limit", "1000000"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn watchpost(runner: &Path, args: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_watchpost")).args(args).arg("-r").arg(runner).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
}
