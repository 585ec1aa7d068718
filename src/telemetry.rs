//! Log set-up: to standard error, as text for people or JSON lines for collectors; every metric's name.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is measured, in seconds: fields of a verdict's cost and keys of `watchpost status --json`.
pub const METRICS: [&str; 4] = [
    // From an alert's creation, waiting included.
    "seconds_to_verdict",
    "seconds_to_prose",
    // The work alone.
    "verdict_compute_seconds",
    "prose_compute_seconds",
];

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts logging. `default` says what is shown, e.g. `warn,watchpost=info`; the variable `WATCHPOST_LOG` has
/// the last word.
pub fn start(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_env("WATCHPOST_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
