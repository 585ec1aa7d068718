//! The command line as a user meets it: exit codes, words, and what happens to bad input.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A folder with a runner and rules.
struct Site(tempfile::TempDir);

const RUNNER: &str = "
datasource: {type: duckdb}
webhooks: {terminal: {type: stdout, format: json}}
detectors:
  minute: {name: every minute, for: 1m, rules: [rules/*.yml], webhooks: [terminal]}
";
const QUIET: &str = "id: quiet\nname: Quiet\nlevel: 10\nrule: SELECT 1 WHERE false\n";
const LOUD: &str = "id: loud\nname: Loud\nlevel: high\nrule: SELECT {{ startime }} AS at\n";
const BAD_SQL: &str = "id: bad\nname: Bad\nlevel: 10\nrule: SELEKT 1\n";

impl Site {
    fn new(runner: &str, rules: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("runner.yml"), runner).unwrap();
        std::fs::create_dir(dir.path().join("rules")).unwrap();
        for (name, text) in rules {
            std::fs::write(dir.path().join("rules").join(name), text).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
        command.args(args).current_dir(self.path()).env_remove("WATCHPOST_RUNNER").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Starts the service with `args`, waits until its standard output has `lines` lines, stops it by SIGTERM.
    fn serve(&self, args: &[&str], lines: usize) -> (Vec<String>, String) {
        let out = self.path().join("out");
        let errors = self.path().join("errors");
        let mut child = self
            .command(args)
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(std::fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let began = Instant::now();
        while read(&out).lines().count() < lines && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
        assert!(child.wait().unwrap().success(), "{}", read(&errors));
        (read(&out).lines().map(str::to_owned).collect(), read(&errors))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn without_a_verb_it_is_the_service() {
    let site = Site::new(RUNNER, &[("loud.yml", LOUD)]);
    let (out, _) = site.serve(&["-r", "runner.yml"], 1);
    let alert: Value = serde_json::from_str(&out[0]).unwrap();
    assert_eq!((alert["rule"]["id"].as_str(), alert["rule"]["level"].as_i64()), (Some("loud"), Some(75)));
    let listed = text(&site.run(&["alerts", "--json"]).stdout);
    let listed: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    assert_eq!(listed["id"], alert["alert_id"]);
    assert!(text(&site.run(&["alerts"]).stdout).contains("Loud"));
    let whole = text(&site.run(&["alerts", listed["id"].as_str().unwrap()]).stdout);
    assert!(whole.contains("window") && whole.contains("this rule: not seen before"), "{whole}");
    assert!(text(&site.run(&["deliveries"]).stdout).contains("done"));
    assert!(text(&site.run(&["gaps"]).stdout).contains("no gaps"));
    let status: Value = serde_json::from_slice(&site.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(status["rules"][0]["rule"], "loud");
}

#[test]
fn a_dry_run_exits_by_what_it_found() {
    let quiet = Site::new(RUNNER, &[("quiet.yml", QUIET)]);
    assert_eq!(code(&quiet.run(&["run", "--dry-run"])), 1);
    let loud = Site::new(RUNNER, &[("quiet.yml", QUIET), ("loud.yml", LOUD)]);
    let output = loud.run(&["--dry-run"]);
    assert_eq!(code(&output), 0);
    assert!(text(&output.stdout).contains("fired   minute/loud: 1 rows"), "{}", text(&output.stdout));
    let bad = Site::new(RUNNER, &[("bad.yml", BAD_SQL), ("loud.yml", LOUD)]);
    let output = bad.run(&["--dry-run"]);
    assert_eq!(code(&output), 4);
    assert!(text(&output.stdout).contains("SELEKT"), "{}", text(&output.stdout));
    for site in [quiet, loud, bad] {
        assert!(!site.path().join("watchpost.db").exists(), "a dry run saves nothing");
    }
}

#[test]
fn a_broken_runner_refuses_to_start_in_the_words_of_check() {
    let site =
        Site::new(&RUNNER.replace("webhooks: [terminal]", "webhooks: [terminl]"), &[("loud.yml", LOUD)]);
    let run = site.run(&["run"]);
    let check = site.run(&["check"]);
    assert_eq!((code(&run), code(&check)), (3, 3));
    let said = text(&check.stdout);
    let problem = said.lines().next().unwrap();
    assert!(problem.contains("did you mean `terminal`?"), "{problem}");
    assert!(problem.starts_with("runner.yml:5:"), "{problem}");
    assert!(text(&run.stderr).contains(problem), "{}", text(&run.stderr));
}

#[test]
fn broken_rules_are_named_and_left_out_while_good_ones_run() {
    let rules = [("loud.yml", LOUD), ("broken.yml", "id: broken\nname: Broken\nlevel: 900\nrule: x\n")];
    let site = Site::new(RUNNER, &rules);
    assert_eq!(code(&site.run(&["check"])), 2);
    let strict = site.run(&["run", "--strict"]);
    assert_eq!(code(&strict), 2);
    let (out, errors) = site.serve(&["run"], 1);
    assert_eq!(out.len(), 1);
    assert!(errors.contains("rules/broken.yml:3:8"), "{errors}");
    let status = text(&site.run(&["status"]).stdout);
    assert!(status.contains("left out of `minute`: rules/broken.yml"), "{status}");
}

#[test]
fn bad_sql_is_seen_and_takes_no_other_rule_down() {
    let site = Site::new(RUNNER, &[("bad.yml", BAD_SQL), ("loud.yml", LOUD)]);
    let (out, errors) = site.serve(&["run"], 1);
    assert_eq!(out.len(), 1);
    assert!(errors.contains("search failed, window kept"), "{errors}");
    let status: Value = serde_json::from_slice(&site.run(&["status", "--json"]).stdout).unwrap();
    let bad = status["rules"].as_array().unwrap().iter().find(|rule| rule["rule"] == "bad").unwrap();
    assert!(bad["last_error"].as_str().unwrap().contains("SELEKT"), "{bad}");
    assert!(bad["searched_to"].is_null());
}

#[test]
fn a_million_rows_are_counted_and_a_thousand_kept() {
    let rule =
        "id: many\nname: Many\nlevel: 10\nsize: '>=1000000'\nrule: SELECT range AS n FROM range(1000000)\n";
    let site = Site::new(RUNNER, &[("many.yml", rule)]);
    let (out, _) = site.serve(&["run"], 1);
    let alert: Value = serde_json::from_str(&out[0]).unwrap();
    assert_eq!(alert["data"]["len"], 1_000_000);
    assert_eq!(alert["data"]["value"].as_array().unwrap().len(), 1_000);
}

#[test]
fn a_store_that_cannot_be_written_is_said_before_anything_runs() {
    let site = Site::new(&format!("store: /proc/watchpost.db\n{RUNNER}"), &[("loud.yml", LOUD)]);
    let output = site.run(&["run"]);
    assert_eq!(code(&output), 4);
    assert!(text(&output.stderr).contains("/proc/watchpost.db"), "{}", text(&output.stderr));
}

#[test]
fn what_is_missing_is_said_with_exit_code_4() {
    let site = Site::new(RUNNER, &[("loud.yml", LOUD)]);
    for (args, word) in [
        (vec!["run", "-r", "nowhere.yml"], "nowhere.yml"),
        (vec!["alerts"], "watchpost run"),
        (vec!["deliveries", "retry", "one"], "watchpost run"),
        (vec!["frobnicate"], "frobnicate"),
        (vec!["triage", "nowhere.json"], "nowhere.json"),
        (vec!["demo", "--examples", "nowhere"], "nowhere"),
    ] {
        let output = site.run(&args);
        assert_eq!(code(&output), 4, "{args:?}");
        assert!(text(&output.stderr).contains(word), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn it_describes_itself() {
    let site = Site::new(RUNNER, &[]);
    assert!(text(&site.run(&["--version"]).stdout).starts_with("watchpost 0."));
    assert!(text(&site.run(&["completions", "bash"]).stdout).contains("_watchpost"));
    let manual = text(&site.run(&["man"]).stdout);
    for verb in [
        "CHECK",
        "LIST",
        "MIGRATE",
        "SCHEMA",
        "DEMO",
        "TRIAGE",
        "MODEL",
        "ALERTS",
        "DELIVERIES",
        "GAPS",
        "STATUS",
    ] {
        assert!(manual.contains(&format!("WATCHPOST {verb}")), "{verb}");
    }
}

#[test]
fn clickdetects_flags_are_done_or_refused_by_name() {
    let site = Site::new(RUNNER, &[("loud.yml", LOUD)]);
    for (args, words) in [
        (vec!["--api"], "--api: the HTTP API is not built yet"),
        (vec!["--api", "-p", "8080", "--reload"], "--api: "),
        (vec!["--reload"], "--reload: rules are read at the start only"),
        (vec!["-r", "runner.yml", "--sigma"], "--sigma: Sigma rules are not built yet"),
    ] {
        let output = site.run(&args);
        assert_eq!(code(&output), 4, "{args:?}");
        assert!(text(&output.stderr).contains(words), "{args:?}: {}", text(&output.stderr));
    }
}

#[test]
fn a_runner_may_come_from_standard_input() {
    let site = Site::new("detectors: {}", &[("loud.yml", LOUD)]);
    let with = |runner: &str| {
        std::fs::write(site.path().join("elsewhere.yml"), runner).unwrap();
        let given = std::fs::File::open(site.path().join("elsewhere.yml")).unwrap();
        site.command(&["--stdin", "--dry-run", "-v"]).stdin(given).output().unwrap()
    };
    let output = with(RUNNER);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("fired   minute/loud"), "{}", text(&output.stdout));
    let broken = with("stroe: x\n");
    assert_eq!(code(&broken), 3);
    assert!(
        text(&broken.stderr).contains("(standard input):1:1: unknown key `stroe`"),
        "{}",
        text(&broken.stderr)
    );
}

#[test]
fn with_no_start_the_first_tick_is_one_interval_away() {
    let site = Site::new(&RUNNER.replace("for: 1m", "for: 2s"), &[("loud.yml", LOUD)]);
    let began = Instant::now();
    let (out, _) = site.serve(&["--no-start"], 1);
    assert!(began.elapsed() >= Duration::from_secs(2) && !out.is_empty(), "{out:?}");
}

#[test]
fn a_set_up_of_clickdetects_is_migrated_into_a_folder_that_runs() {
    let runner = RUNNER.replace("{type: duckdb}", "{type: duckdb}\nlog_level: debug");
    let site = Site::new(&runner, &[("loud.yml", LOUD)]);
    let output = site.run(&["migrate", "runner.yml", "--write", "new"]);
    assert_eq!(code(&output), 1, "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("runner.yml:3:1: changed: clickdetect ignored the key `log_level`"), "{said}");
    assert_eq!(std::fs::read_to_string(site.path().join("runner.yml")).unwrap(), runner, "the old one stays");
    let check = site.run(&["check", "-r", "new/runner.yml"]);
    assert_eq!((text(&check.stdout).as_str(), code(&check)), ("1 detector, 1 rule, 0 problems\n", 0));
    let again = site.run(&["migrate", "new/runner.yml"]);
    assert_eq!((text(&again.stdout).as_str(), code(&again)), ("nothing to change, 0 that differ\n", 0));
    let told: Value = serde_json::from_slice(&site.run(&["migrate", "runner.yml", "--json"]).stdout).unwrap();
    assert_eq!(told["notes"][0]["sort"], "changed");
    assert_eq!(code(&site.run(&["migrate", "nowhere.yml"])), 4);
}

#[test]
fn two_services_do_not_share_a_store() {
    let site = Site::new(RUNNER, &[("loud.yml", LOUD)]);
    let mut first = site.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while !site.path().join("watchpost.db").exists() && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = site.run(&["run"]);
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(code(&second), 4);
    let said = text(&second.stderr);
    assert!(said.contains(&format!("process {}", first.id())), "{said}");
}
