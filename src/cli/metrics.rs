//! `watchpost metrics`: how good the verdicts are, by what analysts decided.

use std::io::Write as _;
use std::path::PathBuf;

use super::{Code, Failure, StoreArgs};
use crate::clock::{Clock, Timestamp};
use crate::closing::bursts;
use crate::measure::{By, Format, Report};
use crate::store::{Store, measured};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Measure what was closed in so many days.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Measure groups, too.
    #[arg(long)]
    by: Option<By>,
    #[arg(long, default_value = "table")]
    format: Format,
    /// Write it to this file, whole or not at all.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let store = args.store.open()?;
    let text = report(&store, args.days, args.by, Clock::system().now())?.render(args.format);
    match &args.output {
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
        Some(path) => {
            let failed =
                |error: &dyn std::fmt::Display| Failure::cannot_run(format!("{}: {error}", path.display()));
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            // A collector that reads the file meanwhile sees the old one or the new one.
            let mut file = tempfile::Builder::new()
                .permissions(permissions())
                .tempfile_in(folder.unwrap_or(".".as_ref()))
                .map_err(|error| failed(&error))?;
            file.write_all(text.as_bytes()).map_err(|error| failed(&error))?;
            file.persist(path).map_err(|error| failed(&error))?;
        }
    }
    Ok(Code::Good)
}

fn report(store: &Store, days: u32, by: Option<By>, now: Timestamp) -> Result<Report, Failure> {
    let since = Timestamp::from_second(now.as_second() - i64::from(days) * 86_400)?;
    let found = store.read_here(|connection| measured::measured(connection, since))?;
    let title = format!("Alerts that analysts closed in the last {days} days");
    let mut report = Report::new(title, now, &found.judged, by);
    report.bursts = bursts::bursts(&found.closings);
    report.analysts = bursts::analysts(&found.closings, &report.bursts);
    report.notes.push(
        "The numbers are of the closed alerts: they are those of all only where analysts did not choose what to close."
            .to_owned(),
    );
    if !report.bursts.is_empty() {
        report.notes.push(format!(
            "{} unusual hours of closings are among them, see `watchpost close --list`: the numbers count each closing in \
             full.",
            report.bursts.len()
        ));
    }
    Ok(report)
}

/// A report is read by others than who made it.
fn permissions() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
