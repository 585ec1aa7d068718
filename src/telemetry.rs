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

/// A metric of `watchpost metrics --format prometheus`: its name and what it says.
pub type MeasureName = (&'static str, &'static str);

/// In the order of a report's counts: alerts, labels, and the four ways to be right or wrong.
pub const MEASURE_COUNTS: [MeasureName; 6] = [
    ("watchpost_measured_alerts", "Alerts that were measured."),
    ("watchpost_measured_labelled", "Alerts among them whose label says threat or no threat."),
    ("watchpost_measured_true_positives", "Threats that were called one."),
    ("watchpost_measured_false_positives", "Others that were called a threat."),
    ("watchpost_measured_true_negatives", "Others that were not called a threat."),
    ("watchpost_measured_false_negatives", "Threats that were not called one."),
];

/// 0-1; each with the label `bound`: `estimate`, and `low` and `high` of its 95 % confidence interval.
pub const MEASURE_PROPORTIONS: [MeasureName; 7] = [
    ("watchpost_measured_base_rate", "Share of threats among the labelled alerts."),
    ("watchpost_measured_coverage", "Share of the labelled alerts that the judge decided."),
    ("watchpost_measured_precision", "Threats among the alerts that were called one."),
    ("watchpost_measured_recall", "Alerts that were called a threat among the threats."),
    ("watchpost_measured_f1", "Harmonic mean of precision and recall."),
    ("watchpost_measured_false_positive_rate", "Alerts that were called a threat among the others."),
    (
        "watchpost_measured_false_positive_rate_at_recall_95",
        "The false-positive rate of a threshold that finds 95 % of the threats.",
    ),
];

/// 0-1.
pub const MEASURE_ERRORS: [MeasureName; 2] = [
    ("watchpost_measured_ece", "Expected calibration error, 15 bins of equal width."),
    ("watchpost_measured_brier", "Brier score."),
];

/// Each with the label `quantile`.
pub const MEASURE_TIMES: [MeasureName; 3] = [
    ("watchpost_measured_seconds_to_detect", "From the end of the window to the alert."),
    ("watchpost_measured_seconds_to_verdict", "From the alert to its verdict."),
    ("watchpost_measured_seconds_to_close", "From the alert to the analyst's decision."),
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
