//! `watchpost eval` as somebody meets it who wants to know how good the judge is. The labels were made by hand for it.

use std::io::Write as _;
use std::process::{Command, Output};

use serde_json::Value;

const LABELLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/labelled/made.jsonl");

fn eval(file: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_watchpost"))
        .args(["eval", "--labelled", file])
        .args(args)
        .output()
        .unwrap()
}

fn all(args: &[&str]) -> Value {
    let output = eval(LABELLED, &[args, &["--format", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["all"].clone()
}

fn f1(args: &[&str]) -> f64 {
    all(args)["f1"]["value"].as_f64().unwrap()
}

#[test]
fn what_analysts_decided_makes_the_judge_better_than_the_formula() {
    let formula = f1(&[]);
    let learned = f1(&["--prequential", "--after", "50"]);
    assert!(learned > 0.9 && learned > formula + 0.15, "{learned} {formula}");
}

#[test]
fn a_site_is_judged_by_what_others_taught() {
    let across = f1(&["--across", "scenario"]);
    assert!(across > 0.9, "{across}");
    assert_eq!(all(&["--across", "scenario"])["labelled"], 240, "a duplicate is left out");
    // More labels help.
    assert!(f1(&["--across", "scenario", "--labels", "8"]) <= across);
}

/// Two sites, where nearly all alerts are of one rule that is never a threat, and those of ten others are threats by who did it.
fn mostly_one_rule() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for n in 0..1_200_u32 {
        let rare = n.is_multiple_of(12);
        let (rule, user) = match rare {
            true => (format!("Rare {}", n / 12 % 10), ["root", "backup"][(n / 120 % 2) as usize]),
            false => ("Heartbeat".to_owned(), ["root", "backup"][(n % 2) as usize]),
        };
        let label = if rare && user == "root" { "tp" } else { "fp" };
        let scenario = ["one", "other"][(n / 240 % 2) as usize];
        let line = serde_json::json!({
            "alert": { "time": 1_790_000_000 + n, "rule": rule, "user": user, "host": format!("web-{}", n % 7) },
            "label": label, "scenario": scenario,
        });
        writeln!(file, "{line}").unwrap();
    }
    file
}

#[test]
fn labels_of_which_the_judge_is_least_sure_teach_more_than_as_many_others() {
    let file = mostly_one_rule();
    let f1 = |draw: &str| {
        let args = ["--across", "scenario", "--labels", "75", "--draw", draw, "--format", "json"];
        let output = eval(file.path().to_str().unwrap(), &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["all"]["f1"]["value"].as_f64().unwrap()
    };
    let (evenly, unsure) = (f1("evenly"), f1("unsure"));
    assert!(unsure > evenly + 0.05, "{unsure} {evenly}");
    let alone = eval(LABELLED, &["--draw", "unsure"]);
    assert!(!alone.status.success() && String::from_utf8_lossy(&alone.stderr).contains("--labels"));
    let of_nothing = eval(LABELLED, &["--labels", "75"]);
    let error = String::from_utf8_lossy(&of_nothing.stderr);
    assert!(!of_nothing.status.success() && error.contains("--learn <FILE>|--across <GROUP>"), "{error}");
}

#[test]
fn each_part_can_be_left_out_to_see_its_worth() {
    let whole = f1(&["--across", "scenario"]);
    assert!(f1(&["--across", "scenario", "--without", "text", "--without", "words"]) < whole);
}

#[test]
fn the_same_file_gives_the_same_numbers() {
    assert_eq!(all(&["--prequential"]), all(&["--prequential"]));
}

#[test]
fn a_bad_line_is_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, r#"{{"label": "tp", "alert": {{}}}}"#).unwrap();
    writeln!(file, r#"{{"label": "evil\u001b[2J", "alert": {{}}}}"#).unwrap();
    let output = eval(file.path().to_str().unwrap(), &[]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(
        error.contains(":2: label: `evil") && error.contains("is none: write tp, btp, fp, dup or ne"),
        "{error}"
    );
    assert!(!error.contains('\u{1b}'));
}
