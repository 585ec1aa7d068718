//! `watchpost check`: every problem of a runner and its rules; with `--connect`, whether what it names answers.

mod connect;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::counted;
use crate::clock::{Clock, Timestamp};
use crate::config::{Diagnostic, Environment, Loaded, Runner, units};
use crate::rule::load::{RuleSet, Scope};
use crate::rule::template;

/// What `check` prints, and how it ends.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    /// For standard output: a line for each problem, then a summary.
    pub text: String,
    pub code: Code,
}

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    runner: super::RunnerArgs,
    /// Print the configuration in force too, defaults written out and secrets as `***`.
    #[arg(long)]
    effective: bool,
    /// Then try every datasource and webhook, all at the same time: what answers, with which version, after how long.
    /// No alert is sent.
    #[arg(long)]
    connect: bool,
    /// How long each may take with `--connect`, e.g. `30s`.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::duration_or_seconds)]
    timeout: Duration,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Code, super::Failure> {
    let (path, now) = (args.runner.path(), Clock::system().now());
    let checked = examine(&path, &|name| std::env::var(name).ok(), now);
    let connections = match &checked.loaded.runner {
        Some(runner) if args.connect => connect::all(runner, args.timeout)?,
        _ => Vec::new(),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        let mut json = checked.json(args.effective);
        if args.connect {
            json["connections"] = connections.iter().map(connect::json).collect();
        }
        writeln!(out, "{json:#}")?;
    } else {
        out.write_all(checked.text(args.effective).as_bytes())?;
        if !connections.is_empty() {
            out.write_all(connect::text(&connections).as_bytes())?;
        }
    }
    let is_silent = connections.iter().any(|connection| connection.result.is_err());
    Ok(if is_silent { Code::CannotRun } else { checked.code() })
}

/// Exit codes, the same for every verb that reads a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    Good = 0,
    /// It runs, but something is probably not as meant.
    Findings = 1,
    /// At least one rule file gives no rule.
    Rules = 2,
    /// The runner is not usable.
    Configuration = 3,
    /// The runner cannot be read; of `check --connect`, something does not answer.
    CannotRun = 4,
}

/// Reads the runner at `path` and every rule it names, and tells what is over by `now`. `effective` adds the
/// configuration in force as YAML.
pub fn check(path: &Path, effective: bool, environment: Environment<'_>, now: Timestamp) -> Outcome {
    let checked = examine(path, environment, now);
    Outcome { text: checked.text(effective), code: checked.code() }
}

/// A runner and its rules, read.
struct Checked {
    loaded: Loaded,
    sets: Vec<RuleSet>,
    /// Each once.
    problems: Vec<Diagnostic>,
}

fn examine(path: &Path, environment: Environment<'_>, now: Timestamp) -> Checked {
    let mut loaded = Runner::load_with(path, environment);
    let expired = loaded.runner.iter().flat_map(|runner| runner.expired(now));
    loaded.diagnostics = loaded.diagnostics.iter().cloned().chain(expired).collect();
    loaded.diagnostics.sort_by_key(|diagnostic| diagnostic.at);
    let sets = rule_sets(path, &loaded);
    // A file that several detectors use has its problems once.
    let mut seen = HashSet::new();
    let problems = (loaded.diagnostics.iter())
        .chain(sets.iter().flat_map(RuleSet::all_diagnostics))
        .filter(|problem| seen.insert(problem.to_string()))
        .cloned()
        .collect();
    Checked { loaded, sets, problems }
}

impl Checked {
    fn text(&self, effective: bool) -> String {
        let mut text = String::new();
        if effective && let Some(runner) = &self.loaded.runner {
            text.push_str(&effective_yaml(runner));
        }
        for problem in &self.problems {
            line(&mut text, problem);
        }
        if self.loaded.is_readable {
            let counts =
                [(self.sets.len(), "detector"), (self.rules(), "rule"), (self.problems.len(), "problem")];
            line(&mut text, counts.map(|(count, noun)| counted(count, noun)).join(", "));
        }
        text
    }

    fn json(&self, effective: bool) -> Json {
        let mut json = json!({
            "problems": self.problems.iter().map(super::problem).collect::<Json>(),
            "detectors": self.sets.len(),
            "rules": self.rules(),
        });
        if effective && let Some(runner) = &self.loaded.runner {
            json["effective"] = runner.to_json();
        }
        json
    }

    fn rules(&self) -> usize {
        self.sets.iter().map(|set| set.rules.len()).sum()
    }

    fn code(&self) -> Code {
        if !self.loaded.is_readable {
            Code::CannotRun
        } else if self.loaded.runner.is_none()
            || self.sets.iter().flat_map(|set| &set.diagnostics).any(Diagnostic::is_error)
        {
            Code::Configuration
        } else if self.sets.iter().any(|set| !set.broken.is_empty()) {
            Code::Rules
        } else if self.problems.is_empty() {
            Code::Good
        } else {
            Code::Findings
        }
    }
}

/// The rules of every detector, as far as the runner says them.
fn rule_sets(path: &Path, loaded: &Loaded) -> Vec<RuleSet> {
    let templates = template::environment();
    let file = path.to_string_lossy();
    let scope = Scope {
        file: &file,
        dir: path.parent().unwrap_or(Path::new("")),
        detector: "",
        patterns: &Default::default(),
        datasources: &loaded.datasources,
    };
    (loaded.rules.iter())
        .map(|(detector, patterns)| RuleSet::load_scope(Scope { detector, patterns, ..scope }, &templates))
        .collect()
}

fn effective_yaml(runner: &Runner) -> String {
    serde_yaml::to_string(&runner.to_json()).expect("JSON is YAML")
}

fn line(text: &mut String, shown: impl std::fmt::Display) {
    writeln!(text, "{shown}").expect("writing to a String does not fail");
}
