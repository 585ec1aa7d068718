//! `watchpost judge`: what was learned from closings, and which of it is in use.

use std::io::Write as _;

use serde_json::json;

use super::{Code, Failure, StoreArgs, table, who, write};
use crate::clock::Clock;
use crate::learning;
use crate::store::judges;
use crate::text::escape;
use crate::triage::judge::Judge;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Put this one in use, whatever is learned later: a version, `prior` (the formula, nothing learned), or `newest`.
    #[arg(long, value_name = "VERSION")]
    r#use: Option<String>,
    /// Who decides that [default: the system user's name].
    #[arg(long, value_name = "NAME", requires = "use")]
    by: Option<String>,
    /// JSON instead of a table.
    #[arg(long, conflicts_with = "use")]
    json: bool,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let store = args.store.open()?;
    if let Some(version) = args.r#use {
        let (by, now) = (who(args.by)?, Clock::system().now());
        let chosen = Some(version.clone()).filter(|version| version != NEWEST);
        write(&store, move |tx| judges::choose(tx, chosen.as_deref(), &by, now))?.map_err(|reason| {
            let shown = escape(&version);
            Failure::cannot_run(format!("judge `{shown}`: {reason}; `watchpost judge` lists those there are"))
        })?;
        println!("a service on this store takes it within seconds");
    }
    let standing = store.read_here(judges::standing)?;
    let kept = store.read_here(judges::list)?;
    let (judge, problem) = learning::current(&store)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let told =
            json!({ "in_use": judge.version, "problem": problem, "standing": standing, "judges": kept });
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
        return Ok(Code::Good);
    }
    if !kept.is_empty() {
        let header = ["version", "learned at", "threats", "benign", ""];
        let rows = kept.iter().map(|kept| {
            let is_used = if kept.version == judge.version { "in use" } else { "" };
            [
                kept.version.clone(),
                kept.learned_at.strftime("%F %T").to_string(),
                kept.threats.to_string(),
                kept.benign.to_string(),
                is_used.to_owned(),
            ]
        });
        writeln!(out, "{}", table(&header, rows))?;
    }
    let (threats, benign) = judge.learned;
    match (judge.version.as_str(), judge.is_calibrated()) {
        (Judge::PRIOR, _) => writeln!(out, "in use: the formula, uncalibrated: nothing was learned")?,
        (version, true) => {
            writeln!(out, "in use: {version}, calibrated on {threats} threats and {benign} benign alerts")?;
        }
        (version, false) => writeln!(
            out,
            "in use: {version}, uncalibrated: {threats} threats and {benign} benign alerts are too few of one kind"
        )?,
    }
    if let Some(chosen) = &standing.chosen {
        let (by, at) = (escape(&chosen.by), chosen.at.strftime("%F %T"));
        writeln!(out, "chosen by {by} at {at}; `watchpost judge --use {NEWEST}` lets it learn again")?;
    }
    if let Some(problem) = problem {
        writeln!(out, "{}", escape(&problem))?;
    }
    if standing.changes > standing.learned {
        let waiting = standing.changes - standing.learned;
        writeln!(out, "{waiting} closings are not learned yet: a service with `triage:` learns from them")?;
    }
    Ok(Code::Good)
}

const NEWEST: &str = "newest";
