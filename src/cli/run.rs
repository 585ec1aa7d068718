//! `watchpost run`: the service; and `--dry-run`, which searches every rule once.

use std::io::Write as _;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Code, Failure, RunnerArgs, clickdetect};
use crate::app::{App, Options};
use crate::config::Runner;
use crate::rule::load::RuleSet;
use crate::telemetry::{self, LogFormat};
use crate::text::escape;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    runner: RunnerArgs,
    /// Search every rule once over its last interval, save and send nothing: exits 0 if one fired, 1 if none, 4
    /// on an error.
    #[arg(long)]
    dry_run: bool,
    /// Refuse to start when a rule is broken, instead of leaving it out.
    #[arg(long)]
    strict: bool,
    /// Log our own debug messages too.
    #[arg(short, long)]
    verbose: bool,
    /// How the log on standard error is written.
    #[arg(long, value_enum, default_value = "text")]
    log: LogFormat,
    #[command(flatten)]
    clickdetect: clickdetect::Args,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    if let Some(answer) = args.clickdetect.answer() {
        return answer;
    }
    let runner =
        if args.clickdetect.stdin { super::load_stdin()? } else { super::load(&args.runner.path())? };
    let rules = super::load_rules(&runner);
    let broken: usize = rules.iter().map(|set| set.broken.len()).sum();
    if args.strict && broken > 0 {
        let message = format!("{broken} broken rule files, and --strict was given");
        return Err(Failure::new(Code::Rules, message));
    }
    if rules.iter().all(|set| set.rules.is_empty()) {
        return Err(Failure::new(Code::Configuration, "there is no rule to run"));
    }
    telemetry::start(args.log, if args.verbose { "warn,watchpost=debug" } else { "warn,watchpost=info" });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let options = Options { waits_first: args.clickdetect.no_start, ..Options::default() };
    if args.dry_run {
        return runtime.block_on(dry_run(runner, rules, options));
    }
    runtime.block_on(async {
        let app = App::open(runner, rules, options).await?;
        let shutdown = CancellationToken::new();
        stop_on_signal(shutdown.clone())?;
        app.run(shutdown).await;
        Ok(Code::Good)
    })
}

/// Cancels `shutdown` at the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The one task nobody waits for: it lives as long as the process.
    drop(tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                tracing::info!("stopping: again to stop at once");
                shutdown.cancel();
            } else {
                std::process::exit(130);
            }
        }
    }));
    Ok(())
}

async fn dry_run(mut runner: Runner, rules: Vec<RuleSet>, options: Options) -> Result<Code, Failure> {
    // A store that is thrown away, and no model: nothing is kept, nothing is asked.
    let scratch = tempfile::tempdir()?;
    runner.store = scratch.path().join("dry-run.db");
    runner.triage = None;
    let app = App::open(runner, rules, options).await?;
    let mut fired = 0;
    let mut failed = 0;
    let mut out = std::io::stdout();
    for (detector, rule, result) in app.search_once().await {
        let (detector, rule) = (escape(&detector), escape(&rule));
        match result {
            Ok(found) => {
                let word = if found.alert.is_some() { "fired" } else { "quiet" };
                fired += usize::from(found.alert.is_some());
                writeln!(out, "{word}   {detector}/{rule}: {} rows", found.count)?;
            }
            Err(error) => {
                failed += 1;
                writeln!(out, "error   {detector}/{rule}: {}", escape(&error.to_string()))?;
            }
        }
    }
    match (failed, fired) {
        (0, 0) => Ok(Code::Findings),
        (0, _) => Ok(Code::Good),
        _ => Err(Failure::cannot_run(format!("{failed} rules could not be searched"))),
    }
}
