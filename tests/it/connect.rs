//! `check --connect`: what answers, and in which words what does not.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fake::{Fake, Reply};

/// `check --connect` of a runner with these datasources and webhooks: its output and exit code.
fn checked(datasources: &str, webhooks: &str, args: &[&str]) -> (String, i32) {
    let dir = tempfile::tempdir().unwrap();
    let runner = format!(
        "datasources:\n{datasources}webhooks:\n{webhooks}detectors:\n  d: {{name: D, for: 5m, rules: [r.yml]}}\n"
    );
    std::fs::write(dir.path().join("runner.yml"), runner).unwrap();
    std::fs::write(dir.path().join("r.yml"), "id: r\nname: R\nlevel: 10\nrule: SELECT 1\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
    command.args(["check", "--connect"]).args(args).current_dir(dir.path()).env_remove("WATCHPOST_RUNNER");
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

fn line<'t>(text: &'t str, name: &str) -> &'t str {
    text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("nothing of {name}: {text}"))
}

#[test]
fn what_answers_is_named_with_its_version_and_its_time() {
    let fake = Fake::start(|_| Reply::text(204, ""));
    let webhooks =
        format!("  soc: {{type: generic, url: {}/hook}}\n  screen: {{type: stdout}}\n", fake.url());
    let (text, code) = checked("  logs: {type: duckdb}\n", &webhooks, &[]);
    assert_eq!(code, 0, "{text}");
    let logs = line(&text, "datasource logs");
    assert!(logs.contains("duckdb") && logs.contains(" ms ") && logs.contains("DuckDB v1."), "{logs}");
    assert!(line(&text, "webhook soc").contains("204"), "{text}");
    assert!(line(&text, "webhook screen").contains("not tried: opens no connection"), "{text}");
    let asked = fake.asked();
    assert_eq!(
        asked.iter().map(|asked| asked.line()).collect::<Vec<_>>(),
        ["HEAD /hook"],
        "no alert is sent"
    );
}

#[test]
fn what_is_wrong_is_told_apart_and_holds_no_secret() {
    let silent = Fake::start(|_| Reply::hang());
    let tls = Fake::start_tls("signed", |_| Reply::text(200, ""));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let webhooks = format!(
        "  closed: {{type: generic, url: 'http://{free}/?token=s3cret'}}\n  \
         silent: {{type: generic, url: 'http://ana:s3cret@{}/'}}\n  \
         strange: {{type: generic, url: '{}/s3cret', headers: {{Authorization: s3cret}}}}\n  \
         missing: {{type: generic, url: 'https://127.0.0.1/', ca: nowhere.pem}}\n",
        silent.address(),
        tls.url(),
    );
    let datasources = "  gone: {type: duckdb, database: nowhere.duckdb}\n";
    let began = Instant::now();
    let (text, code) = checked(datasources, &webhooks, &["--timeout", "1s"]);
    assert!(began.elapsed() < Duration::from_secs(8), "side by side, each within its time");
    assert_eq!(code, 4, "{text}");
    for (name, word) in [
        ("datasource gone", "UNREACHABLE: "),
        ("webhook closed", "UNREACHABLE: "),
        ("webhook silent", "TIMED OUT: no answer within 1s"),
        ("webhook strange", "CERTIFICATE: "),
        ("webhook missing", "CANNOT WORK: "),
    ] {
        assert!(line(&text, name).contains(word), "{name}: {text}");
    }
    assert!(line(&text, "webhook strange").contains("`ca`"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn it_is_json_for_machines() {
    let fake = Fake::start(|_| Reply::text(405, ""));
    let webhooks = format!("  soc: {{type: generic, url: {}}}\n", fake.url());
    let (text, code) = checked("  logs: {type: duckdb, database: no.duckdb}\n", &webhooks, &["--json"]);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 4);
    assert_eq!(
        (told["rules"].as_u64(), told["problems"].as_array().map(Vec::len)),
        (Some(1), Some(0)),
        "{told}"
    );
    let [logs, soc] = &told["connections"].as_array().unwrap()[..] else { panic!("{told}") };
    assert_eq!((logs["family"].as_str(), logs["state"].as_str()), (Some("datasource"), Some("unreachable")));
    assert_eq!(
        (soc["name"].as_str(), soc["state"].as_str()),
        (Some("soc"), Some("answers")),
        "any answer will do"
    );
    assert!(soc["milliseconds"].as_u64().is_some_and(|took| took < 10_000), "{told}");
}

#[test]
fn a_broken_configuration_is_not_tried() {
    let (text, code) = checked("  logs: {type: duckdb, databse: x}\n", "  screen: {type: stdout}\n", &[]);
    assert_eq!(code, 3);
    assert!(!text.contains(" ms "), "{text}");
}
