//! What `make demo` promises: the attacks in examples/ are found, each gets its verdict, and it ends by itself.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use watchpost::clock::{Clock, Window};
use watchpost::config::Runner;
use watchpost::detector::{Search, Source, Watch};
use watchpost::rule::load::RuleSet;
use watchpost::rule::template::{self, Query};
use watchpost::store::{Access, Store};

fn examples() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rules_find_the_attacks_and_nothing_else() {
    let loaded = Runner::load(&examples().join("runner.yml"));
    assert!(loaded.diagnostics.is_empty(), "{:#?}", loaded.diagnostics);
    let runner = loaded.runner.unwrap();
    let environment = template::environment();
    let detector = &runner.detectors[0];
    let set = RuleSet::load(&runner, detector, &environment);
    assert_eq!(set.all_diagnostics().count(), 0);
    let (_, config) = &runner.datasources[0];
    let source = Arc::new(Source::new(config.build(&runner.dir).unwrap()));
    let watch = Arc::new(Watch::new(detector.clone(), None, source.datasource.settings()));
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("unused.db"), Access::Service).unwrap();

    let recording: Value =
        serde_json::from_str(&std::fs::read_to_string(examples().join("recording.json")).unwrap()).unwrap();
    let second =
        |name: &str| recording[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    let mut found = Vec::new();
    for rule in set.rules {
        let id = rule.id.clone();
        let query = Query::compile(&rule, &environment).unwrap();
        let (watch, source) = (Arc::clone(&watch), Arc::clone(&source));
        let search = Search::new(watch, rule, query, source, store.clone(), Clock::system(), None);
        for start in (second("from")..second("to")).step_by(300) {
            let window = Window::from_seconds(start, start + 300).unwrap();
            let hit = search.search(window).await.unwrap();
            if hit.alert.is_some() {
                found.push(json!({"rule": id, "startime": start, "endtime": start + 300, "rows": hit.count}));
            }
        }
    }
    let mut expected: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(examples().join("expected.json")).unwrap()).unwrap();
    let order = |alert: &Value| (alert["startime"].as_i64(), alert["rule"].as_str().map(str::to_owned));
    expected.sort_by_key(order);
    found.sort_by_key(order);
    assert_eq!(found, expected);
}

#[test]
fn the_demo_triages_every_alert_and_ends_by_itself() {
    let output = Command::new(env!("CARGO_BIN_EXE_watchpost"))
        .arg("demo")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("WATCHPOST_MODELS")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("9 alerts, 9 verdicts"), "{text}");
    let summary: Vec<&str> =
        text.lines().skip_while(|line| !line.trim_start().starts_with("window ")).collect();
    let row = |window: &str, rule: &str| {
        let found = summary.iter().find(|line| line.contains(window) && line.contains(rule));
        found.unwrap_or_else(|| panic!("{window} {rule}: {text}")).to_string()
    };
    let false_positive = |row: String| -> u8 {
        let before = row.split('%').next().unwrap().trim_end().to_owned();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let sweep = "one address asks for many paths";
    assert!(false_positive(row("02:15", sweep)) > 80, "the site's own scanner");
    assert!(
        false_positive(row("02:30", sweep)) <= 50,
        "the attacker who writes the same sentence into his User-Agent"
    );
    assert!(row("02:25", "Correlation").contains("Critical"));
    assert!(!text.contains('\u{1b}'), "no terminal escapes where no terminal reads");
}
