//! How good the verdicts are: pure statistics over judged and labelled alerts, and a report of them in five formats.
//!
//! What each number means stands in docs/measures.md. `watchpost metrics` measures a site's own closings, `watchpost eval` a
//! file of labels; both fill [`Judged`] and render a [`Report`]:
//!
//! ```
//! use watchpost::measure::{By, Format, Judged, Report};
//!
//! let judged: Vec<_> = [(0.9, true), (0.8, true), (0.7, false), (0.1, false)]
//!     .into_iter()
//!     .map(|(probability, label)| Judged {
//!         probability: Some(probability),
//!         said: Some(probability >= 0.5),
//!         label: Some(label),
//!         rule: "ssh-brute-force".into(),
//!         ..Judged::default()
//!     })
//!     .collect();
//! let report = Report::new("Labels of site A", "2026-01-01T00:00:00Z".parse()?, &judged, Some(By::Rule));
//! let f1 = report.all.f1.expect("there are threats among them");
//! assert_eq!((f1.value, f1.of), (0.8, 3));
//! println!("{}", report.render(Format::Table));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod calibration;
mod csv;
mod html;
mod interval;
mod prometheus;
mod report;
mod table;
mod times;

use std::sync::Arc;

use serde::Serialize;

pub use calibration::{BINS, Bin, Calibration, Operating, at_recall, calibration};
pub use interval::{Estimate, at_least, f1, proportion, proves, tail};
pub use report::{Confusion, Group, Measures, Report};
pub use times::Times;

/// One alert: what the judge said, and what it was.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// That it is a threat, 0-1; `None` where there is none. What is not within 0-1 counts as none.
    pub probability: Option<f64>,
    /// Whether the judge called it a threat; `None` where it did not decide, could not, or was not asked.
    pub said: Option<bool>,
    /// Whether it was one; `None` where nobody says: duplicates, not evaluable ones.
    pub label: Option<bool>,
    /// The datasource, or the data set.
    pub source: Arc<str>,
    /// Rules that belong together: the rule's group.
    pub family: Arc<str>,
    pub rule: Arc<str>,
    /// The judge's version.
    pub judge: Arc<str>,
    /// The model's name; empty without one.
    pub model: Arc<str>,
    /// From the end of the event's window to the alert.
    pub seconds_to_detect: Option<f64>,
    /// From the alert to its verdict.
    pub seconds_to_verdict: Option<f64>,
    /// From the alert to the analyst's decision.
    pub seconds_to_close: Option<f64>,
    /// The analyst decided without seeing the machine's verdict.
    pub is_blind: bool,
}

/// What alerts are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The datasource.
    Source,
    /// The rule's group.
    Family,
    Rule,
    /// The judge's version.
    Judge,
    Model,
}

impl By {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Family => "family",
            Self::Rule => "rule",
            Self::Judge => "judge",
            Self::Model => "model",
        }
    }

    fn of(self, judged: &Judged) -> &Arc<str> {
        match self {
            Self::Source => &judged.source,
            Self::Family => &judged.family,
            Self::Rule => &judged.rule,
            Self::Judge => &judged.judge,
            Self::Model => &judged.model,
        }
    }
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For the terminal.
    Table,
    /// One object; what has no number is `null`.
    Json,
    /// A line for all and one for each group.
    Csv,
    /// Prometheus' text format, e.g. for node_exporter's textfile collector.
    Prometheus,
    /// One file with charts, without scripts, that opens offline.
    Html,
}

#[cfg(test)]
mod testing {
    use super::*;

    /// A report with groups, hostile names and a group without any number, for the renderings' tests.
    pub(super) fn report() -> Report {
        let judged =
            calibration::tests::two_hundred().into_iter().enumerate().map(|(index, (probability, label))| {
                Judged {
                    probability: Some(probability),
                    said: (!(0.45..0.55).contains(&probability)).then_some(probability >= 0.5),
                    label: Some(label),
                    family: ["web", "<b>\"ssh\"</b>\u{1b}[2J", "=cmd|' /C calc'!A0"][index % 3].into(),
                    seconds_to_detect: Some(index as f64 % 20.0),
                    seconds_to_close: Some(60.0 * index as f64),
                    is_blind: index % 10 == 0,
                    ..Judged::default()
                }
            });
        let silent = Judged { family: "silent".into(), ..Judged::default() };
        let judged: Vec<_> = judged.chain([silent]).collect();
        let at = "2026-01-01T00:00:00Z".parse().expect("a time");
        Report::new("Labels <of> site A", at, &judged, Some(By::Family))
    }

    pub(super) fn empty() -> Report {
        Report::new("Nothing", "2026-01-01T00:00:00Z".parse().expect("a time"), &[], None)
    }
}
