//! `watchpost check`: every problem of a runner and its rules.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use crate::clock::{Clock, Timestamp};
use crate::config::{Diagnostic, Environment, Loaded, Runner};
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
}

pub fn run(args: Args) -> Result<Code, super::Failure> {
    let (path, now) = (args.runner.path(), Clock::system().now());
    let outcome = check(&path, args.effective, &|name| std::env::var(name).ok(), now);
    std::io::stdout().write_all(outcome.text.as_bytes())?;
    Ok(outcome.code)
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
    /// The runner cannot be read.
    CannotRun = 4,
}

/// Reads the runner at `path` and every rule it names, and tells what is over by `now`. `effective` adds the
/// configuration in force as YAML.
pub fn check(path: &Path, effective: bool, environment: Environment<'_>, now: Timestamp) -> Outcome {
    let mut loaded = Runner::load_with(path, environment);
    let expired = loaded.runner.iter().flat_map(|runner| runner.expired(now));
    loaded.diagnostics = loaded.diagnostics.iter().cloned().chain(expired).collect();
    loaded.diagnostics.sort_by_key(|diagnostic| diagnostic.at);
    let sets = rule_sets(path, &loaded);
    let mut text = String::new();
    // A file that several detectors use has its problems once.
    let mut seen = HashSet::new();
    let problems: Vec<String> = (loaded.diagnostics.iter())
        .chain(sets.iter().flat_map(RuleSet::all_diagnostics))
        .map(Diagnostic::to_string)
        .filter(|problem| seen.insert(problem.clone()))
        .collect();
    if effective && let Some(runner) = &loaded.runner {
        text.push_str(&effective_yaml(runner));
    }
    for problem in &problems {
        line(&mut text, problem);
    }
    if loaded.is_readable {
        let rules: usize = sets.iter().map(|set| set.rules.len()).sum();
        let counts = [(sets.len(), "detector"), (rules, "rule"), (problems.len(), "problem")];
        line(&mut text, counts.map(|(count, noun)| counted(count, noun)).join(", "));
    }
    Outcome { text, code: code(&loaded, &sets, problems.is_empty()) }
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

fn code(loaded: &Loaded, sets: &[RuleSet], is_silent: bool) -> Code {
    if !loaded.is_readable {
        Code::CannotRun
    } else if loaded.runner.is_none()
        || sets.iter().flat_map(|set| &set.diagnostics).any(Diagnostic::is_error)
    {
        Code::Configuration
    } else if sets.iter().any(|set| !set.broken.is_empty()) {
        Code::Rules
    } else if is_silent {
        Code::Good
    } else {
        Code::Findings
    }
}

fn effective_yaml(runner: &Runner) -> String {
    serde_yaml::to_string(&runner.to_json()).expect("JSON is YAML")
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn line(text: &mut String, shown: impl std::fmt::Display) {
    writeln!(text, "{shown}").expect("writing to a String does not fail");
}
