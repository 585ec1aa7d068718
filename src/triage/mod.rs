//! What the local model and our own arithmetic make of an alert.

pub mod config;
pub mod verdict;

use serde::{Deserialize, Serialize};

pub use config::Config;
pub use verdict::Verdict;

/// Where the triage of one alert stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Triage {
    /// Not asked for: triage is off, or the rule is below `from_level` or in `ids`.
    Skipped,
    /// Waiting for the model, or being read by it.
    Pending,
    Done {
        verdict: Box<Verdict>,
    },
    /// No verdict will come; the reason is for the analyst.
    Failed {
        reason: String,
    },
}
