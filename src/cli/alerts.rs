//! `watchpost alerts`: what fired, and what triage made of it.

use std::io::{IsTerminal as _, Write as _};

use super::{Code, Failure, StoreArgs, table};
use crate::closing::{Closing, MACHINE};
use crate::learning;
use crate::store::alerts::{self, Alike, MAX_ALIKE, Stored};
use crate::store::{Store, closings, history, judges};
use crate::text::escape;
use crate::triage::{Triage, Verdict};
use crate::webhook::stdout::{self, Stdout};
use crate::webhook::{Message, Outgoing, Webhook as _};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Show this alert whole: its id, or as much of it as is one alert's alone, at least 4 digits.
    id: Option<String>,
    /// Only those that nobody closed, and not the machine either.
    #[arg(long, conflicts_with = "id")]
    open: bool,
    /// Of alerts that are alike within 24 hours only the newest.
    #[arg(long, conflicts_with = "id")]
    grouped: bool,
    /// Of the open alerts those of which the judge is least sure, at most two of a rule: closing them teaches it most.
    #[arg(long, conflicts_with_all = ["id", "grouped"])]
    unsure: bool,
    /// How many, newest (`--unsure`: least sure) first.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// JSON lines instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let store = args.store.open()?;
    let found = match &args.id {
        None if args.unsure => unsure(&store, args.limit)?,
        None if args.grouped => {
            store.read_here(|connection| alerts::list_grouped(connection, args.open, args.limit))?
        }
        None if args.open => store.read_here(|connection| alerts::list_open(connection, args.limit))?,
        None => store.read_here(|connection| alerts::list(connection, args.limit))?,
        Some(id) => {
            let id = store.read_here(|connection| closings::alert_of(connection, id))?;
            let id = id.map_err(Failure::cannot_run)?;
            store.read_here(|connection| alerts::get(connection, &id))?.into_iter().collect()
        }
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        for stored in &found {
            writeln!(out, "{}", serde_json::to_string(stored)?)?;
        }
    } else if args.id.is_some() {
        let block = Stdout::new(&stdout::Config { format: stdout::Format::Text }, out.is_terminal());
        for Stored { alert, triage, .. } in &found {
            let message = Message { alert, triage, is_update: false, idempotency_key: "", receipt: None };
            if let Outgoing::Stdout(text) = block.compose(&message)? {
                out.write_all(text.as_bytes())?;
            }
            let judgement = triage.verdict().and_then(|verdict| verdict.judgement.as_ref());
            for line in judgement.map(|judgement| judgement.reasons()).unwrap_or_default() {
                writeln!(out, "    {line}")?;
            }
            if let Some(alike) = store.read_here(|connection| alerts::alike(connection, &alert.id))? {
                writeln!(out, "  {}", words_of(&alike))?;
            }
            let history = store.read_here(|connection| history::look_up(connection, alert))?;
            writeln!(out, "  before it")?;
            for line in history.lines() {
                writeln!(out, "    {line}")?;
            }
            for closing in
                store.read_here(|connection| closings::list(connection, Some(&alert.id), None, args.limit))?
            {
                writeln!(out, "{}", words(&closing))?;
            }
        }
    } else if found.is_empty() {
        let of_which = if args.unsure { " with a verdict" } else { "" };
        writeln!(out, "no {}alerts{of_which}", if args.open || args.unsure { "open " } else { "" })?;
    } else {
        let header =
            ["fired at", "level", "rule", "window", "rows", "severity", "judged", "closed as", "alike", "id"];
        let mut rows = Vec::new();
        for stored in &found {
            let alike = store.read_here(|connection| alerts::alike(connection, &stored.alert.id))?;
            rows.push(row(stored, alike.as_ref()));
        }
        writeln!(out, "{}", table(&header, rows.into_iter()))?;
    }
    Ok(Code::Good)
}

/// By the judge that is in use now, which may not be the one of their verdicts.
fn unsure(store: &Store, limit: usize) -> Result<Vec<Stored>, Failure> {
    let (judge, problem) = learning::current(store)?;
    if let Some(problem) = problem {
        eprintln!("watchpost: {}", escape(&problem));
    }
    let ids = store.read_here(|connection| judges::unsure(connection, &judge, limit))?;
    let stored = ids.iter().map(|id| store.read_here(|connection| alerts::get(connection, id)));
    Ok(stored.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn row(stored: &Stored, alike: Option<&Alike>) -> [String; 10] {
    let Stored { alert, triage, closing } = stored;
    let (severity, judged) = match triage {
        Triage::Skipped => ("-".to_owned(), "-".to_owned()),
        Triage::Pending => ("pending".to_owned(), String::new()),
        Triage::Blind => ("blind".to_owned(), "blind".to_owned()),
        Triage::Failed { .. } => ("failed".to_owned(), String::new()),
        Triage::Judged { verdict } | Triage::Done { verdict } => {
            (format!("{:?}", verdict.severity), judged(verdict))
        }
    };
    [
        alert.created_at.strftime("%F %T").to_string(),
        alert.level().to_string(),
        escape(alert.rule_name()).into_owned(),
        format!("{} .. {}", alert.window.start.strftime("%F %T"), alert.window.end.strftime("%T")),
        alert.data.len.to_string(),
        severity,
        judged,
        closing.as_ref().map_or(String::new(), closed_as),
        alike.map_or(String::new(), |alike| format!("+{}", alike.count)),
        alert.id.clone(),
    ]
}

fn closed_as(closing: &Closing) -> String {
    let by = if closing.analyst == MACHINE { format!(" by {MACHINE}") } else { String::new() };
    format!("{}{by}", closing.label)
}

/// What the judge says, or how likely the alert is benign where no judge was asked or a note decided.
fn judged(verdict: &Verdict) -> String {
    match &verdict.judgement {
        Some(judgement) if verdict.note.is_none() => {
            let threat = 100.0 * judgement.probability;
            match judgement.calibrated {
                true => format!("{}, {threat:.0} %", judgement.disposition.words()),
                false => format!("{threat:.0} % (uncalibrated)"),
            }
        }
        _ => format!("{} % benign", verdict.false_positive_score),
    }
}

fn words_of(alike: &Alike) -> String {
    let Alike { first, count } = alike;
    let count = if *count == MAX_ALIKE { format!("{count} or more") } else { count.to_string() };
    format!("alike     {count} in the 24 hours before it, the first {first}")
}

/// A closing on one line, below its alert.
fn words(closing: &Closing) -> String {
    let Closing { label, reason, analyst, at, undone_at, undone_by, .. } = closing;
    let undone = undone_at.map_or(String::new(), |at| {
        format!(
            ", undone at {} by {}",
            at.strftime("%F %T"),
            escape(undone_by.as_deref().unwrap_or_default())
        )
    });
    format!(
        "closed as {label} at {} by {}{undone}: {}",
        at.strftime("%F %T"),
        escape(analyst),
        escape(reason)
    )
}
