//! `watchpost demo`: the service's own parts over recorded logs, at the time they were recorded; ends by itself.

use std::collections::HashSet;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{Code, Failure, table};
use crate::app::{App, Options};
use crate::clock::{Clock, Timestamp};
use crate::config::Runner;
use crate::store::alerts::{self, Stored};
use crate::store::{Store, outbox, rules};
use crate::telemetry::{self, LogFormat};
use crate::text::escape;
use crate::triage::Triage;
use crate::webhook::delivery::Print;

#[derive(clap::Args)]
pub struct Args {
    /// The folder with `runner.yml`, `recording.json` and the logs [default: examples, or the installed ones].
    #[arg(long, value_name = "DIR")]
    examples: Option<PathBuf>,
    /// The model, by name or path, instead of the example runner's.
    #[arg(long)]
    model: Option<String>,
}

/// `recording.json`: the time that the logs cover.
#[derive(Deserialize)]
struct Recording {
    from: Timestamp,
    to: Timestamp,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let began = Instant::now();
    telemetry::start(LogFormat::Text, "error");
    let dir = examples(args.examples)?;
    let recording = recording(&dir)?;
    let mut runner = super::load(&dir.join("runner.yml"))?;
    let rules = super::load_rules(&runner);
    let scratch = tempfile::tempdir()?;
    runner.store = scratch.path().join("demo.db");
    if let Some(triage) = &mut runner.triage {
        // Every alert is shown once, with its verdict; the service would not hold them that long.
        triage.deadline = DEADLINE;
        if let Some(model) = args.model {
            triage.model = model;
        }
    }
    introduce(&runner, rules.iter().map(|set| set.rules.len()).sum(), &recording)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let found = runtime.block_on(async {
        let show = Progress::new();
        let options =
            Options { clock: Clock::starting_at(recording.to), print: show.print(), ..Options::default() };
        let pairs: Vec<_> = (runner.detectors.iter().zip(&rules))
            .flat_map(|(detector, set)| set.rules.iter().map(|rule| (detector.key.clone(), rule.id.clone())))
            .collect();
        let app = App::open(runner, rules, options).await?;
        let store = app.store().clone();
        start_at(&store, pairs.clone(), &recording).await?;
        let shutdown = CancellationToken::new();
        let service = tokio::spawn(app.run(shutdown.clone()));
        let found = follow(&store, pairs.len(), recording.to, &show).await;
        shutdown.cancel();
        service.await?;
        found
    })?;
    summarize(&found, began.elapsed())?;
    let verdicts = found.iter().filter(|stored| matches!(stored.triage, Triage::Done { .. })).count();
    if verdicts < found.len() || found.is_empty() {
        return Err(Failure::cannot_run(format!("{verdicts} verdicts for {} alerts", found.len())));
    }
    Ok(Code::Good)
}

fn examples(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let places = match given {
        Some(dir) => vec![dir],
        None => vec!["examples".into(), "/usr/share/doc/watchpost/examples".into()],
    };
    let found = places.iter().find(|dir| dir.join("runner.yml").is_file());
    found.cloned().ok_or_else(|| {
        let looked = places.iter().map(|dir| format!("`{}`", dir.display())).collect::<Vec<_>>().join(", ");
        Failure::cannot_run(format!(
            "no runner.yml in {looked}: start in a clone of watchpost, or say --examples DIR"
        ))
    })
}

fn recording(dir: &Path) -> anyhow::Result<Recording> {
    let path = dir.join("recording.json");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
}

fn introduce(runner: &Runner, rules: usize, recording: &Recording) -> anyhow::Result<()> {
    let model = runner.triage.as_ref().map_or("no model", |triage| &triage.model);
    writeln!(
        std::io::stdout(),
        "watchpost demo: {rules} rules over the logs of {} to {}, every alert triaged by {} in this process\n",
        recording.from.strftime("%F %T"),
        recording.to.strftime("%T UTC"),
        escape(model),
    )?;
    Ok(())
}

/// Puts every rule's cursor at the beginning of the recording: the first tick then has all of it to catch up.
async fn start_at(store: &Store, pairs: Vec<(String, String)>, recording: &Recording) -> anyhow::Result<()> {
    let (from, to) = (recording.from, recording.to);
    let written = store.write(move |tx| {
        pairs
            .iter()
            .try_for_each(|(detector, rule)| rules::set_cursor(tx, detector, rule, from.as_second(), to))
    });
    Ok(written.await?)
}

/// Shows what happens until every window is searched, every alert has been triaged and delivered.
async fn follow(store: &Store, rules: usize, to: Timestamp, show: &Progress) -> anyhow::Result<Vec<Stored>> {
    let mut known = HashSet::new();
    loop {
        let (standings, mut found, (due, _)) = store
            .read(move |connection| {
                Ok((
                    rules::standings(connection)?,
                    alerts::list(connection, 1_000)?,
                    outbox::backlog(connection)?,
                ))
            })
            .await?;
        found.sort_by_key(|stored| (stored.alert.window.start, stored.alert.rule_id().to_owned()));
        let searched = standings.iter().filter(|rule| rule.searched_to.is_some_and(|at| at >= to)).count();
        if let Some(failed) = standings.iter().find(|rule| rule.last_error.is_some()) {
            anyhow::bail!(
                "rule `{}`: {}",
                failed.rule,
                escape(failed.last_error.as_deref().unwrap_or_default())
            );
        }
        for stored in found.iter().filter(|stored| known.insert(stored.alert.id.clone())) {
            show.fired(stored);
        }
        let settled = found
            .iter()
            .filter(|stored| !matches!(stored.triage, Triage::Pending | Triage::Judged { .. }))
            .count();
        show.at(searched, rules, settled, found.len());
        if searched == rules && settled == found.len() && due == 0 {
            show.bar.finish_and_clear();
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The bar at the bottom of the terminal, and the lines above it.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new(1);
        let style = ProgressStyle::with_template("{spinner} [{elapsed}] [{bar:30}] {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar }
    }

    /// Writes alerts above the bar.
    fn print(&self) -> Print {
        let bar = self.bar.clone();
        Arc::new(move |text| {
            bar.suspend(|| {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            })
        })
    }

    fn fired(&self, stored: &Stored) {
        // What is piped into a file gets the alerts alone.
        if std::io::stdout().is_terminal() {
            let alert = &stored.alert;
            let (name, at) = (escape(alert.rule_name()).into_owned(), alert.window.start.strftime("%T"));
            self.bar.suspend(|| eprintln!("fired   {at}  {name} ({} rows)", alert.data.len));
        }
    }

    fn at(&self, searched: usize, rules: usize, settled: usize, found: usize) {
        let (at, all, doing) = if searched < rules {
            (searched, rules, "rules have searched the logs")
        } else {
            (settled, found, "alerts triaged")
        };
        self.bar.set_length(all as u64);
        self.bar.set_position(at as u64);
        self.bar.set_message(doing);
    }
}

fn summarize(found: &[Stored], took: Duration) -> anyhow::Result<()> {
    let header = ["window", "rule", "rows", "level", "severity", "false positive", "verdict", "text"];
    let rows = found.iter().map(|stored| {
        let alert = &stored.alert;
        let (severity, false_positive) = match &stored.triage {
            Triage::Judged { verdict } | Triage::Done { verdict } => {
                (format!("{:?}", verdict.severity), format!("{} %", verdict.false_positive_score))
            }
            Triage::Failed { reason } => ("failed".into(), escape(reason).into_owned()),
            Triage::Pending | Triage::Blind | Triage::Skipped => ("-".into(), "-".into()),
        };
        let seconds =
            |seconds: Option<f64>| seconds.map_or(String::new(), |seconds| format!("{seconds:.2} s"));
        [
            alert.window.start.strftime("%H:%M").to_string(),
            escape(alert.rule_name()).into_owned(),
            alert.data.len.to_string(),
            alert.level().to_string(),
            severity,
            false_positive,
            seconds(to_verdict(stored)),
            seconds(to_text(stored)),
        ]
    });
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{}", table(&header, rows))?;
    writeln!(
        out,
        "{} alerts, {} verdicts, {:.2} seconds to a verdict and {:.2} to its text (median), {:.1} seconds in all",
        found.len(),
        found.iter().filter(|stored| stored.triage.verdict().is_some()).count(),
        median(found.iter().filter_map(to_verdict).collect()),
        median(found.iter().filter_map(to_text).collect()),
        took.as_secs_f64()
    )?;
    Ok(())
}

/// Seconds after the alert.
fn to_verdict(stored: &Stored) -> Option<f64> {
    stored.triage.verdict()?.cost.seconds_to_verdict
}

fn to_text(stored: &Stored) -> Option<f64> {
    stored.triage.verdict()?.cost.seconds_to_prose
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// For the slowest machine with the largest model.
const DEADLINE: Duration = Duration::from_secs(3600);
