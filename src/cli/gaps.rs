//! `watchpost gaps`: windows that were not searched and will not be.

use std::io::Write as _;

use super::{Code, Failure, StoreArgs};
use crate::store::rules;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// How many, newest first.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// JSON lines instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let gaps = args.store.open()?.read_here(|connection| rules::gaps(connection, args.limit))?;
    let mut out = std::io::stdout().lock();
    if gaps.is_empty() && !args.json {
        writeln!(out, "no gaps: every window was searched")?;
    }
    for gap in gaps {
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&gap)?)?;
        } else {
            let rules::Gap { detector, rule, window, reason, .. } = gap;
            writeln!(out, "{window}  {detector}/{rule}  {reason}")?;
        }
    }
    Ok(Code::Good)
}
