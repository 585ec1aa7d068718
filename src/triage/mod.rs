//! What the local model and our own arithmetic make of an alert.
//!
//! [`reader`] tells how one alert is read, top to bottom. Code extracts what the rows name ([`observable`]), holds
//! the operator's notes against them ([`notes`]) and computes every number ([`score`]), to which the model's
//! [`opinion`] adds a little: that is the verdict. Then the model sees a bounded, escaped [`view`] and writes the words,
//! which are held against the alert ([`prose`]). [`Triager`] owns the model.

pub mod assets;
pub mod budget;
pub mod claims;
pub mod config;
pub mod deed;
pub mod reader;

pub mod cloud;
pub mod field;
pub mod history;
pub mod judge;
pub mod likeness;
pub mod notes;
pub mod observable;
pub mod opinion;
pub mod score;
pub mod speech;

pub mod advice;
pub mod answer;
pub mod prompt;
pub mod prose;
pub mod template;
pub mod text;
pub mod view;

pub mod provider;
pub mod record;
pub mod triager;
pub mod verdict;

#[cfg(test)]
pub(crate) mod testing;

use serde::{Deserialize, Serialize};

pub use config::{Config, Deliver};
pub use notes::{KnownBenign, Notes};
pub use reader::{Draft, Judged, Known, Reader, Settings};
pub use triager::{State, Step, TriageError, Triager};
pub use verdict::{Verdict, clickagentic};

/// Where the triage of one alert stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Triage {
    /// Not asked for: triage is off, or the rule is below `from_level` or in `ids`.
    Skipped,
    /// Waiting for its verdict.
    Pending,
    /// The numbers stand, code's prose with them; the model's may follow.
    Judged {
        verdict: Box<Verdict>,
    },
    Done {
        verdict: Box<Verdict>,
    },
    /// There is a verdict, which nobody is shown before a person closed the alert. What is told, and never what is stored.
    Blind,
    /// No verdict will come; the reason is for the analyst.
    Failed {
        reason: String,
    },
}

impl Triage {
    /// With prose or still without.
    pub fn verdict(&self) -> Option<&Verdict> {
        match self {
            Self::Judged { verdict } | Self::Done { verdict } => Some(verdict),
            Self::Skipped | Self::Pending | Self::Blind | Self::Failed { .. } => None,
        }
    }
}
