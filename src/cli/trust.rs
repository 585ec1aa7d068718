//! `watchpost trust`: what the machine may do with alerts by itself, rule by rule, and what is missing before it may.

use std::io::Write as _;

use serde_json::json;

use super::{Code, Failure, StoreArgs, table, who, write};
use crate::clock::{Clock, Timestamp};
use crate::closing::{self, MAX_REASON};
use crate::store::Store;
use crate::store::trust::{self, Event, Standing};
use crate::text::escape;
use crate::triage::config::Trust;
use crate::triage::deed::Deed;
use crate::trust::Share;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Show everything that was granted, revoked and ended by the machine, newest first.
    #[arg(long)]
    log: bool,
    /// How many rows of `--log`.
    #[arg(long, default_value_t = 50, requires = "log")]
    limit: usize,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Let the machine do a deed to alerts of a rule by itself, until trust ends.
    Grant {
        #[command(flatten)]
        what: What,
        /// Why, for whoever reads it later.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Take a deed away again.
    Revoke {
        #[command(flatten)]
        what: What,
        /// Why, for whoever reads it later.
        #[arg(long, value_name = "TEXT", default_value = "taken back")]
        reason: String,
    },
}

#[derive(clap::Args)]
struct What {
    /// The rule's id.
    rule: String,
    /// `close`: close its alerts as false positives; `lower`: lower their severity to what the expected harm says.
    deed: Deed,
    /// Who decides that [default: the system user's name].
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let (store, asked) = args.store.open_with_trust()?;
    let now = Clock::system().now();
    match args.verb {
        Some(Verb::Grant { what, reason }) => grant(&store, what, &reason, asked, now),
        Some(Verb::Revoke { what, reason }) => revoke(&store, what, &reason, now),
        None if args.log => log(&store, args.limit, args.json),
        None => list(&store, &asked, args.json, now),
    }
}

fn grant(store: &Store, what: What, reason: &str, asked: Trust, now: Timestamp) -> Result<Code, Failure> {
    let (What { rule, deed, by }, reason) = (what, words(reason)?);
    let (by, shown) = (who(by)?, escape(&rule).into_owned());
    write(store, move |tx| trust::grant(tx, &rule, deed, &by, &reason, &asked, now))?
        .map_err(|refused| Failure::cannot_run(format!("rule `{shown}`, {deed}: {refused}")))?;
    println!(
        "rule `{shown}`: the machine does `{deed}` by itself from now on; `watchpost trust revoke` takes it back"
    );
    Ok(Code::Good)
}

fn revoke(store: &Store, what: What, reason: &str, now: Timestamp) -> Result<Code, Failure> {
    let (What { rule, deed, by }, reason) = (what, words(reason)?);
    let (by, shown) = (who(by)?, escape(&rule).into_owned());
    if !write(store, move |tx| trust::revoke(tx, &rule, deed, &by, &reason, now))? {
        return Err(Failure::cannot_run(format!(
            "rule `{shown}`: `{deed}` is not granted; see `watchpost trust`"
        )));
    }
    println!("rule `{shown}`: the machine only recommends `{deed}` from now on");
    Ok(Code::Good)
}

fn words(reason: &str) -> Result<String, Failure> {
    closing::words(reason, MAX_REASON).map_err(|wrong| Failure::cannot_run(format!("--reason: {wrong}")))
}

fn list(store: &Store, asked: &Trust, as_json: bool, now: Timestamp) -> Result<Code, Failure> {
    let standings = store.read_here(|connection| trust::standings(connection, asked, now))?;
    let mut out = std::io::stdout().lock();
    if as_json {
        let asked = json!({ "bar": asked.bar, "days": asked.days, "blind": asked.blind });
        let told = json!({ "asked": asked, "rules": standings });
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(Code::Good);
    }
    if standings.is_empty() {
        writeln!(out, "no alert was judged by a calibrated judge yet: there is nothing to trust")?;
        return Ok(Code::Good);
    }
    let header = ["rule", "deed", "alone", "harmless were right", "threats left alone", "days"];
    let rows = standings.iter().map(|standing| {
        let Standing { rule, deed, is_allowed, figures, .. } = standing;
        let alone = if *is_allowed { "yes" } else { "recommends" };
        [
            escape(rule).into_owned(),
            deed.to_string(),
            alone.to_owned(),
            share(figures.right),
            share(figures.spared),
            figures.days.to_string(),
        ]
    });
    writeln!(out, "{}", table(&header, rows))?;
    for Standing { rule, deed, missing, last, .. } in &standings {
        let rule = escape(rule);
        if let Some(last) = last {
            writeln!(out, "{rule}, {deed}: {}", told(last))?;
        }
        for missing in missing {
            writeln!(out, "{rule}, {deed}: {}", escape(missing))?;
        }
    }
    Ok(Code::Good)
}

fn log(store: &Store, limit: usize, as_json: bool) -> Result<Code, Failure> {
    let mut out = std::io::stdout().lock();
    for event in store.read_here(|connection| trust::events(connection, limit))? {
        if as_json {
            writeln!(out, "{}", serde_json::to_string(&event)?)?;
        } else {
            writeln!(out, "{}, {}: {}", escape(&event.rule), event.deed, told(&event))?;
        }
    }
    Ok(Code::Good)
}

/// `59 of 59, at least 0.950`.
fn share(share: Share) -> String {
    let Share { part, of, at_least } = share;
    format!("{part} of {of}, at least {at_least:.3}")
}

fn told(event: &Event) -> String {
    let Event { at, event, by, why, .. } = event;
    format!("{event} at {} by {}: {}", at.strftime("%F %T"), escape(by), escape(why))
}
