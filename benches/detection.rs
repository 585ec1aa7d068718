//! What the parts of one search cost, each by itself. The whole program is measured by `service.rs`.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use minijinja::Environment;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use watchpost::alert::{Alert, Data};
use watchpost::clock::{Clock, Window};
use watchpost::datasource::{Config, Limits, duckdb};
use watchpost::detector::windows;
use watchpost::rule::load::load_file;
use watchpost::rule::template::{self, Context, Query};
use watchpost::store::{Access, Store, rules};
use watchpost::triage::observable;
use watchpost::triage::view::View;
use watchpost::triage::{Triage, Verdict};
use watchpost::webhook::{self, Message, generic};

/// Counts failed logins in a window, as most rules do: a condition on time, one on a column, a group.
const RULE: &str = "\
id: many-failures
name: Many failed logins
level: 75
data: {threshold: 5, users: [root, admin]}
rule: |
  SELECT source_ip, count(*) AS failures FROM events
  WHERE time_s >= {{ startime }} AND time_s < {{ endtime }} AND user_name IN ({{ data.users | to_list_like }})
  GROUP BY source_ip HAVING failures > {{ data.threshold }}
";

const EVENTS: &str = "\
CREATE TABLE events AS
SELECT 1767225600 + i % 600 AS time_s, ['root', 'admin', 'www', 'backup'][1 + i % 4] AS user_name,
       '10.0.0.' || (i % 50) AS source_ip
FROM range(10000) AS numbers(i)";

fn window() -> Window {
    Window::from_seconds(1_767_225_600, 1_767_225_610).expect("ten seconds")
}

fn rule_file() -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yml").tempfile().expect("a temporary file");
    std::fs::write(file.path(), RULE).expect("a rule file");
    file
}

fn compile(file: &Path, environment: &Environment<'static>) -> Query {
    let rule = load_file(file, &[], environment).expect("a good rule").rule;
    Query::compile(&rule, environment).expect("good templates")
}

fn context() -> Context<'static> {
    let detector = json!({"name": "logins", "for_time": "10s", "tenant": "default", "data": {}});
    let datasource = json!({"type": "duckdb", "database": ":memory:"});
    Context {
        window: window(),
        interval: "10s",
        detector: template::value(&object(detector)),
        datasource: template::value(&object(datasource)),
    }
}

fn render(criterion: &mut Criterion) {
    let (file, environment) = (rule_file(), template::environment());
    criterion.bench_function("load a rule file and compile its templates", |bench| {
        bench.iter(|| compile(black_box(file.path()), &environment));
    });
    let (query, context) = (compile(file.path(), &environment), context());
    criterion.bench_function("render a query", |bench| bench.iter(|| query.render(black_box(&context))));
}

fn plan(criterion: &mut Criterion) {
    let (interval, catch_up) = (Duration::from_secs(10), Duration::from_secs(86_400));
    criterion.bench_function("plan the windows of a tick", |bench| {
        bench.iter(|| {
            windows::plan(black_box(1_767_225_600), 1_767_225_610, interval, catch_up).pieces.count()
        });
    });
    criterion.bench_function("plan the windows of a day's backlog (8,640)", |bench| {
        bench.iter(|| {
            windows::plan(black_box(1_767_225_600), 1_767_312_000, interval, catch_up).pieces.count()
        });
    });
}

fn search(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let config = duckdb::Config { init: Some(EVENTS.into()), ..duckdb::Config::default() };
    let datasource = Config::Duckdb(config).build(Path::new(".")).expect("a datasource");
    let query = compile(rule_file().path(), &template::environment());
    let (query, limits) = (query.render(&context()).expect("a query"), Limits::default());
    criterion.bench_function("one DuckDB query over 10,000 rows", |bench| {
        bench.iter(|| {
            let rows = runtime.block_on(datasource.query(&query, window(), &limits));
            black_box(rows.expect("an answer"))
        });
    });
}

/// The cursors of 100 rules that were searched at one time: what a tick writes.
fn save(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(&dir.path().join("bench.db"), Access::Service).expect("a store");
    let now = Clock::system().now();
    criterion.bench_function("save the cursors of 100 rules, synced to disk", |bench| {
        bench.iter(|| {
            runtime.block_on(async {
                let mut writes = JoinSet::new();
                for rule in 0..100 {
                    let store = store.clone();
                    writes.spawn(async move {
                        let rule = format!("rule-{rule}");
                        store.write(move |tx| rules::set_cursor(tx, "bench", &rule, 1_767_225_610, now)).await
                    });
                }
                while let Some(written) = writes.join_next().await {
                    written.expect("no panic").expect("saved");
                }
            });
        });
    });
}

fn triage(criterion: &mut Criterion) {
    let alert = alert(10_000);
    criterion.bench_function("observables of an alert with 10,000 rows", |bench| {
        bench.iter(|| observable::extract(black_box(&alert)));
    });
    criterion.bench_function("view of an alert with 10,000 rows, cut to 400 tokens", |bench| {
        bench.iter(|| View::of(black_box(&alert)).show(400, &|text| text.len() / 3));
    });
}

fn compose(criterion: &mut Criterion) {
    let config = generic::Config {
        name: None,
        url: "http://127.0.0.1:9/alerts".parse().expect("an address"),
        template: None,
        exchange: webhook::Exchange::default(),
    };
    let generic = webhook::build(&webhook::Config::Generic(config), false).expect("a webhook");
    let (alert, triage) = (alert(100), Triage::Done { verdict: Box::new(verdict()) });
    let message =
        Message { alert: &alert, triage: &triage, is_update: false, idempotency_key: "key", receipt: None };
    criterion.bench_function("compose a webhook's body of 100 rows", |bench| {
        bench.iter(|| generic.compose(black_box(&message)).expect("a message"));
    });
}

fn alert(rows: usize) -> Alert {
    let row = |n: usize| {
        object(json!({
            "time": format!("2026-01-01T00:{:02}:{:02}Z", n / 60 % 60, n % 60),
            "source_ip": format!("203.0.113.{}", n % 200),
            "user": format!("user{}", n % 40),
            "host": "web01",
            "message": format!("Failed password for user{} from 203.0.113.{} port {} ssh2", n % 40, n % 200, 1024 + n),
        }))
    };
    let rule =
        json!({"id": "ssh", "name": "SSH login loop", "level": 75, "description": "Many failed logins"});
    Alert {
        id: "00112233445566778899aabbccddeeff".into(),
        rule: object(rule),
        detector: object(json!({"name": "sshd", "for_time": "10s", "tenant": "default"})),
        datasource: object(json!({"type": "duckdb"})),
        data: Data {
            len: rows as u64,
            value: (0..rows).map(row).collect(),
            datasource: "duckdb".into(),
            cut: None,
        },
        window: window(),
        created_at: window().end,
    }
}

fn verdict() -> Verdict {
    let verdict = json!({
        "title": "Login loop", "summary": "203.0.113.9 failed 100 times.", "severity": "High", "confidence": 70,
        "false_positive_score": 5, "risk_score": 80, "explanation": "Guessing.",
        "mitigations": ["Block the address"], "affected_entities": ["203.0.113.9"],
        "recommended_action": "Block 203.0.113.9",
    });
    serde_json::from_value(verdict).expect("a verdict")
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

criterion_group! {
    name = detection;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = render, plan, search, save, triage, compose
}
criterion_main!(detection);
