//! `watchpost status`: where every rule stands.

use std::io::Write as _;

use serde_json::{Map, json};

use super::{Code, Failure, StoreArgs, table};
use crate::clock::Timestamp;
use crate::store::{outbox, paces, queue, rules};
use crate::text::escape;
use crate::triage::Step;

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
    let waiting = |step| store.read_here(|connection| queue::waiting(connection, step));
    let (for_verdict, for_prose) = (waiting(Step::Verdict)?, waiting(Step::Prose)?);
    let paces = store.read_here(paces::paces)?;
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
            "waiting_for_triage": for_verdict,
            "waiting_for_prose": for_prose,
            "triage": paces.iter().map(|(name, pace)| ((*name).to_owned(), json!(pace))).collect::<Map<_, _>>(),
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
    let measured = paces.iter().filter(|(_, pace)| pace.alerts > 0).map(|(name, pace)| {
        let seconds = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.2}"));
        [(*name).to_owned(), seconds(pace.p50), seconds(pace.p95), pace.alerts.to_string()]
    });
    let measured: Vec<_> = measured.collect();
    if !measured.is_empty() {
        writeln!(out, "{}", table(&["triage", "p50", "p95", "alerts"], measured.into_iter()))?;
    }
    writeln!(
        out,
        "waiting for triage: {for_verdict}, for its text: {for_prose}; deliveries due: {due}, dead: {dead}"
    )?;
    Ok(Code::Good)
}

fn time(at: Timestamp) -> String {
    at.strftime("%F %T").to_string()
}
