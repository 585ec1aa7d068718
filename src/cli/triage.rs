//! `watchpost triage ALERT.json`: one alert, one verdict.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Code, Failure, RunnerArgs};
use crate::alert::Alert;
use crate::app;
use crate::clock::Clock;
use crate::config::Runner;
use crate::learning;
use crate::store::{Access, Store, history};
use crate::text::escape;
use crate::triage::{Config, Known};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    runner: RunnerArgs,
    /// The alert: a line of `watchpost alerts --json`, or the body that the generic webhook posts [default:
    /// standard input].
    alert: Option<PathBuf>,
    /// The model, by name or path, instead of the runner's.
    #[arg(long)]
    model: Option<String>,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let (text, shown) = match &args.alert {
        Some(path) => {
            let shown = path.display().to_string();
            (read(std::fs::File::open(path).map_err(|error| at(&shown, error))?, &shown)?, shown)
        }
        None => (read(std::io::stdin().lock(), "standard input")?, "standard input".to_owned()),
    };
    let alert = Alert::from_json(&text, Clock::system().now()).map_err(|error| at(&shown, error))?;
    let (mut config, runner) = triage_config(&args.runner)?;
    if let Some(model) = args.model {
        config.model = model;
    }
    let triager = app::triager(&config, &runner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let known = known(&args.runner, &alert)?;
    let verdict = runtime.block_on(triager.triage(&alert, known, LIMIT)).map_err(Failure::cannot_run)?;
    if let Some(reason) = &verdict.cost.without_model {
        eprintln!("watchpost: without a model: {}", escape(reason));
    }
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&verdict)?)?;
    Ok(Code::Good)
}

/// What the runner's store knows of the alert; nothing where there is none yet.
fn known(args: &RunnerArgs, alert: &Alert) -> Result<Known, Failure> {
    let path = args.path();
    if !path.exists() {
        return Ok(Known::default());
    }
    let path = super::load(&path)?.store;
    if !path.exists() {
        return Ok(Known::default());
    }
    let store = Store::open(&path, Access::Command).map_err(Failure::cannot_run)?;
    let (judge, problem) = learning::current(&store)?;
    if let Some(problem) = problem {
        eprintln!("watchpost: {}", escape(&problem));
    }
    let history = store.read_here(|connection| history::look_up(connection, alert))?;
    Ok(Known { history, judge: Arc::new(judge) })
}

/// The runner's triage section; its defaults where there is no runner, or one without it.
pub(super) fn triage_config(args: &RunnerArgs) -> Result<(Config, PathBuf), Failure> {
    let path = args.path();
    if args.runner.is_none() && !path.exists() {
        return Ok((Config::default(), path));
    }
    let Runner { triage, .. } = super::load(&path)?;
    Ok((triage.unwrap_or_default(), path))
}

fn read(source: impl std::io::Read, shown: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = source.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| at(shown, error))?;
    if read as u64 > MAX_BYTES {
        return Err(at(shown, format!("more than {MAX_BYTES} bytes")));
    }
    Ok(text)
}

fn at(shown: &str, error: impl std::fmt::Display) -> Failure {
    Failure::cannot_run(format!("{shown}: {error}"))
}

/// An alert with the largest `max_bytes` fits many times.
const MAX_BYTES: u64 = 64 << 20;
const LIMIT: Duration = Duration::from_secs(600);
