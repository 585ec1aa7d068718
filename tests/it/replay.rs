//! `watchpost replay`: a stored verdict once more, with the real test model.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use watchpost::alert::{Alert, Data};
use watchpost::clock::Window;
use watchpost::store::alerts::{self, Handling, Queueing};
use watchpost::store::queue::{self, Judging};
use watchpost::store::{Access, Store};
use watchpost::triage::config::Trust;
use watchpost::triage::provider::ProviderError;
use watchpost::triage::{Known, Settings, Triage, Triager};
use watchpost_engine::{Options, Source};

use crate::triage::model_path;

const LIMIT: Duration = Duration::from_secs(600);

/// A site with one alert, read by `triager` as the service does.
async fn site(triager: Triager) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    write_runner(dir.path(), "");
    std::fs::create_dir(dir.path().join("rules")).unwrap();
    let store = Store::open(&dir.path().join("soc.db"), Access::Service).unwrap();
    let alert = Arc::new(alert());
    let (saved, now) = (Arc::clone(&alert), alert.created_at);
    let queueing = Queueing { hold_until: now, capacity: 10 };
    let handling = move || Handling { webhooks: Vec::new(), triage: Some(queueing) };
    store.write(move |tx| alerts::insert(tx, "five", &saved, &handling())).await.unwrap();
    let judged = triager.judge(&alert, Known::default(), LIMIT).await.unwrap();
    let (verdict, id) = (judged.verdict.clone(), alert.id.clone());
    let judging = Judging { deliver: false, capacity: 10, trust: Trust::default() };
    store.write(move |tx| queue::judge(tx, &id, judged, judging, now)).await.unwrap();
    let described = triager.describe(&alert, verdict.clone(), LIMIT).await;
    let verdict = described.unwrap_or_else(|error| verdict.without_prose(&error.to_string()));
    let (triage, id) = (Triage::Done { verdict: Box::new(verdict) }, alert.id.clone());
    store.write(move |tx| queue::settle(tx, &id, &triage, now)).await.unwrap();
    (dir, alert.id.clone())
}

fn write_runner(dir: &std::path::Path, triage: &str) {
    let model = model_path().canonicalize().unwrap();
    let runner = format!(
        "store: soc.db\nwebhooks: {{}}\ndetectors:\n  five: {{name: five, for: 5m, rules: ['rules/*.yml']}}\n\
         triage:\n  model: {}\n{triage}",
        model.display()
    );
    std::fs::write(dir.join("runner.yml"), runner).unwrap();
}

fn alert() -> Alert {
    let rule = json!({ "id": "logins", "name": "Many logins", "level": 50, "size": ">0", "description": "Many logins of one user." });
    let row = json!({ "source_ip": "203.0.113.77", "user": "mallory", "ratio": 0.1, "message": "accepted password" });
    let window = Window::from_seconds(1_790_000_000, 1_790_000_300).unwrap();
    Alert {
        id: "ab12".repeat(8),
        rule: rule.as_object().unwrap().clone(),
        detector: Default::default(),
        datasource: Default::default(),
        data: Data {
            len: 1,
            value: vec![row.as_object().unwrap().clone()],
            datasource: "duckdb".into(),
            cut: None,
        },
        window,
        created_at: window.end,
    }
}

fn replay(dir: &std::path::Path, args: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
    let output = command.arg("replay").args(args).current_dir(dir).output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (output, text)
}

#[tokio::test]
async fn a_verdict_and_its_text_are_given_again_and_what_changed_since_is_named() {
    let settings = Settings { opinion_limit: LIMIT, ..Settings::default() };
    let source = Source::file(model_path()).unwrap();
    let (dir, id) = site(Triager::local(source, Options::default(), settings)).await;
    // The limit of the opinion belongs to the settings.
    let (output, text) = replay(dir.path(), &[&id]);
    assert!(text.contains("the same: verdict and text"), "{text}");
    assert_eq!(output.status.code(), Some(0));
    let (_, text) = replay(dir.path(), &["ab12", "--without-model", "--json"]);
    assert!(text.contains("\"same\": true"), "{text}");

    write_runner(dir.path(), "  false_positive: Ignore alerts where user is mallory.\n");
    let (output, text) = replay(dir.path(), &[&id, "--without-model"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("changed since: the notes or limits of `triage:`"), "{text}");
    assert!(text.contains("false_positive_score\n  then  "), "{text}");
}

#[tokio::test]
async fn a_verdict_without_a_model_is_given_again_and_a_judge_that_is_gone_is_named() {
    let triager = Triager::start(Settings::default(), || Err(ProviderError::Failed("there is none".into())));
    let (dir, id) = site(triager).await;
    let (_, text) = replay(dir.path(), &[&id]);
    assert!(text.contains("the same: verdict; no model was asked then"), "{text}");
    let store = Store::open(&dir.path().join("soc.db"), Access::Command).unwrap();
    let other = "UPDATE alerts SET triage = json_set(triage, '$.verdict.judgement.judge', 'gone')";
    store.write(move |tx| tx.execute(other, [])).await.unwrap();
    let (output, text) = replay(dir.path(), &[&id]);
    assert!(text.contains("judge `gone`: it is not in the store"), "{text}");
    assert_eq!(output.status.code(), Some(4));
    let older = "UPDATE alerts SET triage = json_remove(triage, '$.verdict.record')";
    store.write(move |tx| tx.execute(older, [])).await.unwrap();
    assert!(replay(dir.path(), &[&id]).1.contains("an older watchpost"));
}
