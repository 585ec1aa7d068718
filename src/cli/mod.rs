//! The command line: one file per verb.

mod alerts;
pub mod check;
mod clickdetect;
mod close;
mod deliveries;
mod demo;
mod eval;
mod gaps;
mod judge;
mod list;
mod metrics;
mod migrate;
mod model;
mod paper;
mod redteam;
mod replay;
mod run;
mod schema;
mod status;
mod triage;
mod trust;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use check::Code;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;

use crate::closing;
use crate::config::{Diagnostic, Loaded, Runner, yaml};
use crate::rule::load::RuleSet;
use crate::rule::template;
use crate::store::{Access, Store};
use crate::triage::config::Trust;

/// Scheduled detection over the logs you already have, with every alert triaged by a local model.
///
/// Without a verb it does what `run` does.
#[derive(Parser)]
#[command(name = "watchpost", version, propagate_version = true, args_conflicts_with_subcommands = true)]
#[command(
    after_help = "Exit codes: 0 good, 1 findings, 2 broken rules, 3 broken configuration, 4 cannot run, or with check \
                  --connect: something does not answer."
)]
pub struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: run::Args,
}

#[derive(Subcommand)]
enum Verb {
    /// Run detections until stopped: the service.
    Run(run::Args),
    /// Read the configuration and every rule, and report every problem with its place.
    Check(check::Args),
    /// List the kinds of datasources and webhooks, or one with its settings.
    List(list::Args),
    /// Read a clickdetect set-up, say what will be different, and write what should change.
    Migrate(migrate::Args),
    /// Print the JSON schema of runner.yml, or of rule files, for editors.
    Schema(schema::Args),
    /// Run the detections of examples/ over their recorded logs, triage each alert, and end.
    Demo(demo::Args),
    /// Triage one alert from a file or standard input, and print the verdict as JSON.
    Triage(triage::Args),
    /// List, import, verify, measure and embed models.
    Model(model::Args),
    /// List stored alerts with their verdicts, newest first.
    Alerts(alerts::Args),
    /// Close alerts with what they were, import and undo closings, and list them.
    Close(close::Args),
    /// Measure the verdicts by what analysts decided: as a table, JSON, CSV, Prometheus or HTML.
    Metrics(metrics::Args),
    /// Measure the judge on alerts whose labels are known.
    Eval(eval::Args),
    /// Attack the triage with hostile log text, and count the verdicts that move towards harmless.
    Redteam(redteam::Args),
    /// Show what the judge has learned, or put an older judge in use.
    Judge(judge::Args),
    /// Give a stored verdict again from what it was made of, and say whether it is the same.
    Replay(replay::Args),
    /// Show what the machine may do with alerts by itself and what is missing, grant it, or take it back.
    Trust(trust::Args),
    /// List deliveries, and try dead ones again.
    Deliveries(deliveries::Args),
    /// List windows that were given up, and why.
    Gaps(gaps::Args),
    /// Show where every rule stands: searched up to when, failures, left-out rule files, queues.
    Status(status::Args),
    /// Print the completion script of a shell.
    Completions(paper::CompletionArgs),
    /// Print the manual page.
    Man,
}

/// Which runner a verb works on.
#[derive(Args, Clone)]
pub struct RunnerArgs {
    /// The configuration [default: runner.yml, or /etc/watchpost/runner.yml where there is none here].
    #[arg(short, long, value_name = "FILE", env = "WATCHPOST_RUNNER")]
    pub runner: Option<PathBuf>,
}

impl RunnerArgs {
    pub fn path(&self) -> PathBuf {
        let installed = Path::new("/etc/watchpost/runner.yml");
        match &self.runner {
            Some(path) => path.clone(),
            None if !Path::new("runner.yml").exists() && installed.exists() => installed.to_owned(),
            None => "runner.yml".into(),
        }
    }
}

/// Which store a verb reads.
#[derive(Args, Clone)]
pub struct StoreArgs {
    #[command(flatten)]
    runner: RunnerArgs,
    /// The store itself, instead of the one that the runner names.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

impl StoreArgs {
    fn open(&self) -> Result<Store, Failure> {
        let path = match &self.store {
            Some(path) => path.clone(),
            None => load(&self.runner.path())?.store,
        };
        Store::open(&path, Access::Command).map_err(Failure::cannot_run)
    }

    /// With what the runner asks before the machine is trusted; a store without a runner has the defaults.
    fn open_with_trust(&self) -> Result<(Store, Trust), Failure> {
        let runner = self.runner.path();
        let runner = if self.store.is_none() || runner.exists() { Some(load(&runner)?) } else { None };
        let path = match (&self.store, &runner) {
            (Some(path), _) => path.clone(),
            (None, Some(runner)) => runner.store.clone(),
            (None, None) => return self.open().map(|store| (store, Trust::default())),
        };
        let asked = runner.and_then(|runner| runner.triage).map(|triage| triage.trust).unwrap_or_default();
        Ok((Store::open(&path, Access::Command).map_err(Failure::cannot_run)?, asked))
    }
}

/// Why a verb ended without doing its work, and the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    message: String,
    is_closed_pipe: bool,
}

impl Failure {
    fn new(code: Code, message: impl std::fmt::Display) -> Self {
        Self { code, message: message.to_string(), is_closed_pipe: false }
    }

    fn cannot_run(error: impl std::fmt::Display) -> Self {
        Self::new(Code::CannotRun, error)
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let is_closed_pipe = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        Self { is_closed_pipe, ..Self::cannot_run(format!("{error:#}")) }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code =
                if error.print().is_err() || error.use_stderr() { Code::CannotRun } else { Code::Good };
            return code.into();
        }
    };
    let result = match cli.verb.unwrap_or(Verb::Run(cli.run)) {
        Verb::Run(args) => run::run(args),
        Verb::Check(args) => check::run(args),
        Verb::List(args) => list::run(args),
        Verb::Migrate(args) => migrate::run(args),
        Verb::Schema(args) => schema::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Triage(args) => triage::run(args),
        Verb::Model(args) => model::run(args),
        Verb::Alerts(args) => alerts::run(args),
        Verb::Close(args) => close::run(args),
        Verb::Metrics(args) => metrics::run(args),
        Verb::Eval(args) => eval::run(args),
        Verb::Redteam(args) => redteam::run(args),
        Verb::Judge(args) => judge::run(args),
        Verb::Replay(args) => replay::run(args),
        Verb::Trust(args) => trust::run(args),
        Verb::Deliveries(args) => deliveries::run(args),
        Verb::Gaps(args) => gaps::run(args),
        Verb::Status(args) => status::run(args),
        Verb::Completions(args) => paper::completions(args, &mut Cli::command()),
        Verb::Man => paper::manual(Cli::command()),
    };
    match result {
        Ok(code) => code.into(),
        // `watchpost alerts | head`: the reader has seen enough.
        Err(failure) if failure.is_closed_pipe => Code::Good.into(),
        Err(failure) => {
            eprintln!("watchpost: {}", failure.message);
            failure.code.into()
        }
    }
}

/// `1 file`, `2 files`.
fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// The runner, or every problem in it on standard error.
fn load(path: &Path) -> Result<Runner, Failure> {
    usable(path, Runner::load(path))
}

/// The runner that standard input gives; its paths start at the current folder.
fn load_stdin() -> Result<Runner, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(yaml::MAX_BYTES as u64 + 1).read_to_string(&mut text);
    let path = Path::new("(standard input)");
    read.map_err(|error| Failure::cannot_run(format!("{}: {error}", path.display())))?;
    usable(path, Runner::parse(path, &text, &|name| std::env::var(name).ok()))
}

fn usable(path: &Path, loaded: Loaded) -> Result<Runner, Failure> {
    for diagnostic in &loaded.diagnostics {
        eprintln!("{diagnostic}");
    }
    let code = if loaded.is_readable { Code::Configuration } else { Code::CannotRun };
    loaded.runner.ok_or_else(|| Failure::new(code, format!("`{}` cannot be used", path.display())))
}

/// The rules of every detector; every problem in them on standard error.
fn load_rules(runner: &Runner) -> Vec<RuleSet> {
    let environment = template::environment();
    let sets: Vec<_> =
        runner.detectors.iter().map(|detector| RuleSet::load(runner, detector, &environment)).collect();
    for diagnostic in sets.iter().flat_map(RuleSet::all_diagnostics) {
        eprintln!("{diagnostic}");
    }
    sets
}

/// A problem as JSON.
fn problem(problem: &Diagnostic) -> Json {
    json!({
        "file": problem.file,
        "line": problem.at.map(|at| at.line),
        "column": problem.at.map(|at| at.column),
        "path": problem.path,
        "message": problem.message,
        "severity": if problem.is_error() { "error" } else { "warning" },
    })
}

/// Writes beside the service, which may run on the same store.
fn write<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    Ok(runtime()?.block_on(store.write(work))?)
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().build()
}

/// Who is at the keyboard: under sudo, who called it.
fn user() -> Option<String> {
    let named = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    named.map(|name| name.trim().to_owned()).find(|name| !name.is_empty())
}

/// The name that a deed is put down to: the one given, or who is at the keyboard.
fn who(name: Option<String>) -> Result<String, Failure> {
    let name = name
        .or_else(user)
        .ok_or_else(|| Failure::cannot_run("the system user has no name here: say who with `--by NAME`"))?;
    closing::analyst(&name).map_err(|wrong| Failure::cannot_run(format!("--by: {wrong}")))
}

/// Rows under a header, without lines that a terminal's copy would carry along.
fn table<const N: usize>(header: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(header);
    table.add_rows(rows);
    table
}
