//! What is made from the declarations: reference pages, lists, JSON schemas.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use watchpost::config::{Field, pages};
use watchpost::{datasource, webhook};

use crate::services::service;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn said(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_watchpost")).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_reference_pages_are_what_the_code_says() {
    let folder = root().join("docs/reference");
    let committed: BTreeMap<String, String> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}: run `make reference-docs`", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    let made: BTreeMap<String, String> = pages().into_iter().map(|page| (page.name, page.text)).collect();
    let names = |pages: &BTreeMap<String, String>| pages.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&made), "run `make reference-docs` and commit docs/reference");
    for (name, text) in made {
        assert!(committed[&name] == text, "docs/reference/{name} is old: run `make reference-docs`");
    }
}

#[test]
fn every_setting_of_every_kind_says_what_it_is_and_is_there_once() {
    fn check(kind: &str, fields: &[Field]) {
        for (at, field) in fields.iter().enumerate() {
            let is_new = fields[..at].iter().all(|other| other.name != field.name);
            assert!(is_new, "`{}` stands in `{kind}` twice", field.name);
            assert!(!field.doc.trim().is_empty(), "`{}` of `{kind}` has no doc comment", field.name);
            check(kind, field.inside);
        }
    }
    for kind in datasource::Config::KINDS.iter().chain(webhook::Config::KINDS) {
        assert!(!kind.about.trim().is_empty(), "`{}` has no doc comment", kind.name);
        check(kind.name, kind.fields);
    }
}

#[test]
fn kinds_and_settings_are_listed_as_text_and_json() {
    let text = said(&["list", "datasources"]);
    assert!(text.contains("duckdb  "), "{text}");
    assert_eq!(text, said(&["--list-datasources"]), "clickdetect's flag");
    assert_eq!(said(&["list", "webhooks"]), said(&["--list-webhooks"]));
    assert!(said(&["--list-plugins"]).contains("clickagentic"));
    let one = said(&["list", "datasources", "duckdb"]);
    assert!(one.contains("database  (text, by default :memory:)"), "{one}");
    assert!(one.lines().all(|line| line.chars().count() <= 80), "{one}");
    let json: Value = serde_json::from_str(&said(&["list", "webhooks", "--json"])).unwrap();
    let generic = json.as_array().unwrap().iter().find(|kind| kind["name"] == "generic").unwrap();
    let url =
        generic["settings"].as_array().unwrap().iter().find(|setting| setting["name"] == "url").unwrap();
    assert_eq!((&url["required"], &url["type"]), (&true.into(), &"address".into()));
    let output =
        Command::new(env!("CARGO_BIN_EXE_watchpost")).args(["list", "webhooks", "generik"]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `generic`?"));
}

/// What the validator says of each file, by an independent reader of YAML and of JSON schemas.
fn validated(schema: &str, files: &[PathBuf]) -> Option<BTreeMap<String, Vec<String>>> {
    let python = service("JSONSCHEMA")?;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("schema.json");
    std::fs::write(&path, schema).unwrap();
    let script = root().join("tests/services/jsonschema.check.py");
    let output = Command::new(python).arg(script).arg(path).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn files_in(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "yml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}

#[test]
fn the_schema_takes_every_runner_of_ours_and_in_the_shape_of_clickdetects() {
    let mut runners = files_in("tests/data/runners");
    runners.extend([root().join("runner.yml"), root().join("examples/runner.yml")]);
    // With every default written out, as `check --effective` has it.
    let dir = tempfile::tempdir().unwrap();
    for (index, runner) in runners.clone().iter().enumerate() {
        let loaded = watchpost::config::Runner::load_with(runner, &|_| Some("s3cret".into()));
        let problems: Vec<_> = loaded.diagnostics.iter().filter(|problem| problem.is_error()).collect();
        let runner = loaded.runner.unwrap_or_else(|| panic!("{problems:#?}"));
        let effective = dir.path().join(format!("effective-{index}.yml"));
        std::fs::write(&effective, runner.to_json().to_string()).unwrap();
        runners.push(effective);
    }
    let Some(told) = validated(&said(&["schema"]), &runners) else { return };
    assert_eq!(told.len(), runners.len());
    for (file, problems) in told {
        assert!(problems.is_empty(), "{file}: {problems:#?}");
    }
}

#[test]
fn the_schema_of_rules_takes_rules() {
    let mut rules = files_in("examples/rules");
    rules.extend(files_in("tests/data/runners/rules"));
    let Some(told) = validated(&said(&["schema", "--rule"]), &rules) else { return };
    for (file, problems) in told {
        assert!(problems.is_empty(), "{file}: {problems:#?}");
    }
}

#[test]
fn the_schemas_refuse_what_the_reader_refuses() {
    let good = "detectors: {d: {name: D, for: 5m, rules: [a.yml]}}\n";
    let runners = [
        ("redis: {url: x}\n", "redis"),
        ("stroe: x\n", "stroe"),
        ("datasource: {type: duckdbb}\n", "duckdbb"),
        ("datasource: {type: duckdb, databse: x}\n", "databse"),
        ("datasource: {type: duckdb, threads: many}\n", "many"),
        ("webhooks: {a: {type: generic}}\n", "url"),
        ("webhooks: {a: {url: ftp://x}}\n", "ftp://x"),
        ("webhooks: {a: {type: stdout, format: xml}}\n", "xml"),
        ("webhooks: {a: {type: generic, url: 'http://x', timeout: soon}}\n", "soon"),
        ("webhooks: {a: {type: generic, url: 'http://x', verify: perhaps}}\n", "perhaps"),
        ("triage: {deliver: later}\n", "later"),
        ("triage: {batch: 65}\n", "65"),
        ("triage: {known_benign: [{why: x}]}\n", "until"),
    ];
    let rules = [
        ("{id: a, name: A, level: 200, rule: x}\n", "200"),
        ("{id: a, name: A, level: 1, size: many, rule: x}\n", "many"),
        ("{id: a, name: A, levl: 1, rule: x}\n", "levl"),
        ("{id: {env: X}, name: A, level: 1, rule: x}\n", "env"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let check = |schema: &[&str], cases: &[(&str, &str)], tail: &str| {
        let mut files = Vec::new();
        for (index, (text, _)) in cases.iter().enumerate() {
            let path = dir.path().join(format!("{}-{index}.yml", schema.len()));
            std::fs::write(&path, format!("{text}{tail}")).unwrap();
            files.push(path);
        }
        let Some(told) = validated(&said(schema), &files) else { return };
        for ((text, word), file) in cases.iter().zip(&files) {
            let problems = &told[file.to_str().unwrap()];
            assert!(problems.iter().any(|problem| problem.contains(word)), "{text}: {problems:#?}");
        }
    };
    check(&["schema"], &runners, good);
    check(&["schema", "--rule"], &rules, "");
}
