//! `watchpost status`: where every rule stands.

use std::io::Write as _;

use serde_json::json;

use super::{Code, Failure, StoreArgs, table};
use crate::clock::Timestamp;
use crate::store::{alerts, outbox, rules};
use crate::text::escape;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let store = args.store.open()?;
    let standings = store.read_here(rules::standings)?;
    let broken = store.read_here(rules::broken)?;
    let waiting = store.read_here(alerts::waiting_for_triage)?;
    let (due, dead) = store.read_here(outbox::backlog)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let broken: Vec<_> = broken
            .iter()
            .map(|(detector, path, problem)| json!({"detector": detector, "path": path, "problem": problem}))
            .collect();
        let status = json!({
            "rules": standings,
            "broken_rules": broken,
            "waiting_for_triage": waiting,
            "deliveries": {"due": due, "dead": dead},
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?;
        return Ok(Code::Good);
    }
    let header = ["detector", "rule", "searched to", "searches", "failures", "overlaps", "last error"];
    let rows = standings.iter().map(|rule| {
        [
            escape(&rule.detector).into_owned(),
            escape(&rule.rule).into_owned(),
            rule.searched_to.map_or("never".into(), time),
            rule.searches.to_string(),
            rule.failures.to_string(),
            rule.overlaps.to_string(),
            rule.last_error.as_deref().map_or(String::new(), |error| {
                format!("{}: {}", rule.last_error_at.map_or(String::new(), time), escape(error))
            }),
        ]
    });
    writeln!(out, "{}", table(&header, rows))?;
    for (detector, path, problem) in &broken {
        writeln!(out, "left out of `{}`: {}: {}", escape(detector), escape(path), escape(problem))?;
    }
    writeln!(out, "waiting for triage: {waiting}; deliveries due: {due}, dead: {dead}")?;
    Ok(Code::Good)
}

fn time(at: Timestamp) -> String {
    at.strftime("%F %T").to_string()
}
