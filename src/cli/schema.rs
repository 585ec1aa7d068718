//! `watchpost schema`: JSON schemas of the files, for editors.

use std::io::Write as _;

use super::{Code, Failure};
use crate::config::schema;

#[derive(clap::Args)]
pub struct Args {
    /// Of rule files, instead of `runner.yml`.
    #[arg(long)]
    rule: bool,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let schema = if args.rule { schema::rule() } else { schema::runner() };
    writeln!(std::io::stdout(), "{schema:#}")?;
    Ok(Code::Good)
}
