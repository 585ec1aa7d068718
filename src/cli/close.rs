//! `watchpost close`: what analysts decided, and taking it back.

use std::io::{BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use clap::ArgGroup;

use super::{Code, Failure, StoreArgs, runtime, table, user, who, write};
use crate::clock::{Clock, Timestamp};
use crate::closing::bursts;
use crate::closing::import::{Defaults, Import, ImportError};
use crate::closing::{self, Closing, Decision, LABELS, Label, MAX_NAME, MAX_REASON};
use crate::config::units;
use crate::measure::Report;
use crate::store::closings::{self, Added};
use crate::store::{Store, measured};
use crate::text::{escape, escape_within};

#[derive(clap::Args)]
#[command(group(ArgGroup::new("deed").args(["import", "undo", "undo_by", "list"])))]
#[command(
    after_help = "A closing changes no verdict and hides no alert. The newest one that was not undone stands."
)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Alerts: ids, or as much of them as is one alert's alone, at least 4 digits.
    #[arg(value_name = "ID", required_unless_present_any = ["import", "undo_by", "list"], conflicts_with_all = ["import", "undo_by", "list"])]
    ids: Vec<String>,
    /// What they were: tp (true positive), btp (benign true positive), fp (false positive), dup (duplicate), ne (not
    /// evaluable). With `--import`, for lines that do not say.
    #[arg(long = "as", value_name = "LABEL", value_parser = label, required_unless_present = "deed", conflicts_with_all = ["undo", "undo_by", "list"])]
    label: Option<Label>,
    /// Why, for whoever reads it later. With `--import`, for lines that do not say.
    #[arg(long, value_name = "TEXT", required_unless_present = "deed", conflicts_with_all = ["undo", "undo_by", "list"])]
    reason: Option<String>,
    /// The analyst [default: the system user's name]. With `--list`, whose closings to list.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Take over closings from a CSV file with a header, or from JSON lines; `-` is standard input. Columns or keys:
    /// alert_id, label, reason, analyst, at. The same line twice adds nothing.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// Undo the closings that stand of these alerts; those before them stand again.
    #[arg(long)]
    undo: bool,
    /// Undo all closings of an analyst from `--since` on.
    #[arg(long, value_name = "ANALYST", requires = "since")]
    undo_by: Option<String>,
    /// A time (2026-01-02T03:04:05Z) or how long ago (2h).
    #[arg(long, value_name = "TIME", requires = "undo_by")]
    since: Option<String>,
    /// List closings, newest first, with who closes how much and unusual hours of the last 90 days.
    #[arg(long)]
    list: bool,
    /// How many closings to list.
    #[arg(long, default_value_t = 50, requires = "list")]
    limit: usize,
    /// JSON lines of the closings instead of tables.
    #[arg(long, requires = "list")]
    json: bool,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let store = args.store.open()?;
    let now = Clock::system().now();
    if args.list {
        return list(&store, args.by.as_deref(), args.limit, args.json, now);
    }
    if let Some(path) = &args.import {
        let defaults = Defaults { label: args.label, reason: args.reason, analyst: args.by.or_else(user) };
        return import(&store, path, defaults, now);
    }
    let by = who(args.by)?;
    if let Some(analyst) = args.undo_by {
        let since = since(args.since.as_deref().unwrap_or_default(), now)?;
        return undo_by(&store, analyst, since, by, now);
    }
    if args.undo {
        return undo(&store, &args.ids, by, now);
    }
    let reason = closing::words(args.reason.as_deref().unwrap_or_default(), MAX_REASON)
        .map_err(|wrong| Failure::cannot_run(format!("--reason: {wrong}")))?;
    let Some(label) = args.label else { return Err(Failure::cannot_run("--as: is missing")) };
    let decisions = args.ids.into_iter().map(|alert| Decision {
        alert,
        label,
        reason: reason.clone(),
        analyst: by.clone(),
        at: None,
    });
    close(&store, decisions.collect(), now)
}

/// All of them or none.
fn close(store: &Store, decisions: Vec<Decision>, now: Timestamp) -> Result<Code, Failure> {
    let ids = find(store, decisions.iter().map(|decision| &decision.alert))?;
    let decisions: Vec<_> = decisions
        .into_iter()
        .zip(&ids)
        .map(|(decision, alert)| Decision { alert: alert.clone(), ..decision })
        .collect();
    let label = decisions[0].label;
    let closed = write(store, move |tx| {
        decisions
            .iter()
            .map(|decision| closings::close(tx, decision, now))
            .collect::<rusqlite::Result<Vec<_>>>()
    })?;
    let mut out = std::io::stdout().lock();
    for (id, added) in ids.iter().zip(closed) {
        match added {
            Added::New { before: Some(before), .. } => writeln!(out, "{id}  {label}, was {before}")?,
            Added::New { before: None, .. } => writeln!(out, "{id}  {label}")?,
            Added::Known { .. } => writeln!(out, "{id}  {label} already")?,
            Added::NoAlert(no_alert) => writeln!(out, "{id}  not closed: {no_alert}")?,
        }
    }
    Ok(Code::Good)
}

fn undo(store: &Store, ids: &[String], by: String, now: Timestamp) -> Result<Code, Failure> {
    let ids = find(store, ids.iter())?;
    let asked = ids.clone();
    let undone = write(store, move |tx| {
        let undo = |id: &String| Ok((closings::undo(tx, id, &by, now)?, closings::standing(tx, id)?));
        asked.iter().map(undo).collect::<rusqlite::Result<Vec<_>>>()
    })?;
    let mut out = std::io::stdout().lock();
    let mut code = Code::Good;
    for (id, (undone, standing)) in ids.iter().zip(undone) {
        match (undone, standing) {
            (None, _) => {
                writeln!(out, "{id}  was not closed")?;
                code = Code::Findings;
            }
            (Some(undone), None) => writeln!(out, "{id}  open again, was {}", undone.label)?,
            (Some(undone), Some(now)) => {
                let analyst = escape(&now.analyst);
                writeln!(out, "{id}  {} again, as `{analyst}` said before, was {}", now.label, undone.label)?;
            }
        }
    }
    Ok(code)
}

fn undo_by(
    store: &Store,
    analyst: String,
    since: Timestamp,
    by: String,
    now: Timestamp,
) -> Result<Code, Failure> {
    let shown = escape_within(&analyst, MAX_NAME);
    let (alerts, open) = write(store, move |tx| {
        let ids = closings::undo_by(tx, &analyst, since, &by, now)?;
        let mut open = 0;
        for id in &ids {
            open += usize::from(closings::standing(tx, id)?.is_none());
        }
        Ok((ids.len(), open))
    })?;
    let since = since.strftime("%FT%TZ");
    if alerts == 0 {
        return Err(Failure::cannot_run(format!(
            "`{shown}` has no closing since {since} that stands: see `close --list`"
        )));
    }
    let other = alerts - open;
    writeln!(
        std::io::stdout().lock(),
        "closings of `{shown}` since {since} undone on {alerts} alerts: {open} are open again, {other} have another closing"
    )?;
    Ok(Code::Good)
}

/// What became of the lines of a file.
#[derive(Default)]
struct Tally {
    added: u64,
    known: u64,
    undone: u64,
    contradicting: Named,
    unknown: Named,
    unreadable: u64,
}

/// So many, the first few of them by name.
#[derive(Default)]
struct Named {
    count: u64,
    first: Vec<String>,
}

impl Named {
    fn add(&mut self, name: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push(name());
        }
    }

    /// `3 (a, b, c)`.
    fn words(&self) -> String {
        match self.count {
            0 => "0".to_owned(),
            count => {
                let more = if count > self.first.len() as u64 { ", ..." } else { "" };
                format!("{count} ({}{more})", self.first.join(", "))
            }
        }
    }
}

fn import(store: &Store, path: &Path, defaults: Defaults, now: Timestamp) -> Result<Code, Failure> {
    let shown = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| Failure::cannot_run(format!("{shown}: {error}")))?)
    };
    let mut lines = Import::new(BufReader::with_capacity(1 << 16, source), defaults, now);
    let mut tally = Tally::default();
    let runtime = runtime()?;
    let mut end = None;
    while end.is_none() {
        let mut batch = Vec::with_capacity(BATCH);
        while batch.len() < BATCH && end.is_none() {
            match lines.next() {
                None => end = Some(Ok(())),
                Some(Ok(decision)) => batch.push(decision),
                Some(Err(error @ ImportError::Line { .. })) => {
                    tally.unreadable += 1;
                    if tally.unreadable <= MAX_SHOWN {
                        eprintln!("{shown}:{error}");
                    }
                }
                Some(Err(error)) => end = Some(Err(error)),
            }
        }
        let lines: Vec<_> = batch.iter().map(|(line, _)| *line).collect();
        let added = runtime.block_on(store.write(move |tx| {
            batch
                .iter()
                .map(|(_, decision)| closings::import(tx, decision, now))
                .collect::<rusqlite::Result<Vec<_>>>()
        }))?;
        lines.into_iter().zip(added).for_each(|(line, added)| tally.count(line, added));
    }
    if tally.unreadable > MAX_SHOWN {
        eprintln!("{shown}: {} more lines that cannot be read", tally.unreadable - MAX_SHOWN);
    }
    tally.print()?;
    if let Some(Err(error)) = end {
        return Err(Failure::cannot_run(format!("{shown}:{error}; what stands before it was taken over")));
    }
    let is_whole = tally.unreadable == 0 && tally.unknown.count == 0;
    Ok(if is_whole { Code::Good } else { Code::Findings })
}

impl Tally {
    fn count(&mut self, line: u64, added: Added) {
        match added {
            Added::New { alert_id, before, .. } => {
                self.added += 1;
                // The label that came, against the one that stood.
                if before.is_some() {
                    self.contradicting.add(|| format!("line {line}: {alert_id}"));
                }
            }
            Added::Known { is_undone } => {
                self.known += 1;
                self.undone += u64::from(is_undone);
            }
            Added::NoAlert(no_alert) => self.unknown.add(|| format!("line {line}: {no_alert}")),
        }
    }

    fn print(&self) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "closings added: {}", self.added)?;
        writeln!(out, "on record before: {}, of them undone, and so they stay: {}", self.known, self.undone)?;
        writeln!(
            out,
            "contradicting another closing of their alert, where the newest stands: {}",
            self.contradicting.words()
        )?;
        writeln!(out, "left out, for no such alert: {}", self.unknown.words())?;
        writeln!(out, "left out, for they cannot be read: {}", self.unreadable)
    }
}

fn list(
    store: &Store,
    by: Option<&str>,
    limit: usize,
    is_json: bool,
    now: Timestamp,
) -> Result<Code, Failure> {
    let found = store.read_here(|connection| closings::list(connection, None, by, limit))?;
    let mut out = std::io::stdout().lock();
    if is_json {
        for closing in &found {
            writeln!(out, "{}", serde_json::to_string(closing)?)?;
        }
        return Ok(Code::Good);
    }
    if found.is_empty() {
        writeln!(out, "no closings")?;
        return Ok(Code::Good);
    }
    let header = ["closed at", "alert", "label", "analyst", "reason", "undone"];
    writeln!(out, "{}", table(&header, found.iter().map(row)))?;
    let since = Timestamp::from_second(now.as_second() - LIST_DAYS * 86_400)?;
    let closings = store.read_here(|connection| measured::measured(connection, since))?.closings;
    let mut report = Report::new("", now, &[], None);
    report.bursts = bursts::bursts(&closings);
    report.analysts = bursts::analysts(&closings, &report.bursts);
    if let Some(name) = by {
        report.analysts.retain(|one| one.analyst == name);
        report.bursts.retain(|burst| burst.analyst == name);
    }
    if !report.analysts.is_empty() {
        writeln!(out, "\nin the last {LIST_DAYS} days:\n{}", report.analysts_table())?;
    }
    Ok(Code::Good)
}

fn row(closing: &Closing) -> [String; 6] {
    let undone = closing.undone_at.map_or(String::new(), |at| {
        format!("{} by {}", at.strftime("%F %T"), escape(closing.undone_by.as_deref().unwrap_or_default()))
    });
    [
        closing.at.strftime("%F %T").to_string(),
        closing.alert_id.clone(),
        closing.label.to_string(),
        escape_within(&closing.analyst, MAX_NAME),
        escape_within(&closing.reason, REASON_SHOWN),
        undone,
    ]
}

/// The ids of alerts, or every name that is none.
fn find<'a>(store: &Store, names: impl Iterator<Item = &'a String>) -> Result<Vec<String>, Failure> {
    let found: Vec<_> = names
        .map(|name| store.read_here(|connection| closings::alert_of(connection, name)))
        .collect::<Result<_, _>>()?;
    let problems: Vec<_> =
        found.iter().filter_map(|found| found.as_ref().err()).map(ToString::to_string).collect();
    if problems.is_empty() {
        return Ok(found.into_iter().flatten().collect());
    }
    Err(Failure::cannot_run(format!("{}; nothing was changed", problems.join("; "))))
}

fn label(text: &str) -> Result<Label, String> {
    text.parse().map_err(|()| format!("use {LABELS}"))
}

fn since(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let at = text.parse().ok().or_else(|| now.checked_sub(units::duration(text).ok()?).ok());
    at.ok_or_else(|| {
        let shown = escape_within(text, 40);
        Failure::cannot_run(format!(
            "--since: `{shown}` is no time: write `2026-01-02T03:04:05Z`, or `2h` for two hours ago"
        ))
    })
}

/// Lines of one transaction: a service beside it waits for one at most.
const BATCH: usize = 1_000;
/// Lines that cannot be read, told one by one.
const MAX_SHOWN: u64 = 20;
/// Names in a count.
const MAX_NAMED: usize = 5;
const LIST_DAYS: i64 = 90;
/// Characters of a reason in a table.
const REASON_SHOWN: usize = 80;
