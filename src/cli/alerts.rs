//! `watchpost alerts`: what fired, and what triage made of it.

use std::io::{IsTerminal as _, Write as _};

use super::{Code, Failure, StoreArgs, table};
use crate::store::alerts::{self, Stored};
use crate::store::history;
use crate::text::escape;
use crate::triage::Triage;
use crate::webhook::stdout::{self, Stdout};
use crate::webhook::{Message, Outgoing, Webhook as _};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Show this alert whole.
    id: Option<String>,
    /// How many, newest first.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// JSON lines instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let store = args.store.open()?;
    let found = match &args.id {
        None => store.read_here(|connection| alerts::list(connection, args.limit))?,
        Some(id) => {
            let one = store.read_here(|connection| alerts::get(connection, id))?;
            vec![one.ok_or_else(|| Failure::cannot_run(format!("no alert `{}`", escape(id))))?]
        }
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        for stored in &found {
            writeln!(out, "{}", serde_json::to_string(stored)?)?;
        }
    } else if args.id.is_some() {
        let block = Stdout::new(&stdout::Config { format: stdout::Format::Text }, out.is_terminal());
        for Stored { alert, triage } in &found {
            let message = Message { alert, triage, is_update: false, idempotency_key: "" };
            if let Outgoing::Stdout(text) = block.compose(&message)? {
                out.write_all(text.as_bytes())?;
            }
            let history = store.read_here(|connection| history::look_up(connection, alert))?;
            writeln!(out, "  before it")?;
            for line in history.lines() {
                writeln!(out, "    {line}")?;
            }
        }
    } else if found.is_empty() {
        writeln!(out, "no alerts")?;
    } else {
        let header = ["fired at", "level", "rule", "window", "rows", "severity", "false positive", "id"];
        writeln!(out, "{}", table(&header, found.iter().map(row)))?;
    }
    Ok(Code::Good)
}

fn row(stored: &Stored) -> [String; 8] {
    let Stored { alert, triage } = stored;
    let (severity, false_positive) = match triage {
        Triage::Skipped => ("-".to_owned(), "-".to_owned()),
        Triage::Pending => ("pending".to_owned(), String::new()),
        Triage::Failed { .. } => ("failed".to_owned(), String::new()),
        Triage::Judged { verdict } | Triage::Done { verdict } => {
            (format!("{:?}", verdict.severity), format!("{} %", verdict.false_positive_score))
        }
    };
    [
        alert.created_at.strftime("%F %T").to_string(),
        alert.level().to_string(),
        escape(alert.rule_name()).into_owned(),
        format!("{} .. {}", alert.window.start.strftime("%F %T"), alert.window.end.strftime("%T")),
        alert.data.len.to_string(),
        severity,
        false_positive,
        alert.id.clone(),
    ]
}
