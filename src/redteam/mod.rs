//! Attacks on the triage itself: what an attacker can write into the log of a true alert, or do before it, so that its
//! verdict looks harmless.
//!
//! [`corpus`] says what is tried, [`plant`] puts it into an alert, [`trial`] compares the verdicts with and without it and
//! [`report`] counts. Nothing here changes what made the rule fire: attacks add, and replace nothing.

pub mod corpus;
pub mod plant;
pub mod report;
pub mod trial;

use std::fmt;

use serde::Serialize;

use crate::alert::Alert;
use crate::triage::history::History;

pub use plant::{Deed, Place};
pub use report::Report;
pub use trial::{Moved, Trial};

/// A true alert with what was before it, plain or attacked.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub alert: Alert,
    pub history: History,
}

/// One thing to try on every true alert.
#[derive(Clone, Debug)]
pub struct Attack {
    pub family: Family,
    pub name: String,
    deed: Deed,
}

impl Attack {
    pub fn new(family: Family, name: impl Into<String>, deed: Deed) -> Self {
        Self { family, name: name.into(), deed }
    }

    /// The alert as it would be; `None` where this cannot be done to it.
    pub fn on(&self, target: &Target) -> Option<Target> {
        self.deed.on(target)
    }
}

/// What is reported together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    Instructions,
    FakeVerdicts,
    RoleMarkers,
    Unicode,
    Terminal,
    LongText,
    Languages,
    Encoded,
    Fences,
    /// Words of alerts that were closed as benign.
    BenignWords,
    /// New columns with names that mean something.
    Columns,
    /// Rows beside the true ones.
    Rows,
    /// Alerts raised before the true one, none of them closed.
    Flood,
}

impl Family {
    pub const ALL: [Self; 13] = [
        Self::Instructions,
        Self::FakeVerdicts,
        Self::RoleMarkers,
        Self::Unicode,
        Self::Terminal,
        Self::LongText,
        Self::Languages,
        Self::Encoded,
        Self::Fences,
        Self::BenignWords,
        Self::Columns,
        Self::Rows,
        Self::Flood,
    ];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instructions => "instructions",
            Self::FakeVerdicts => "fake verdicts",
            Self::RoleMarkers => "role markers",
            Self::Unicode => "unicode tricks",
            Self::Terminal => "terminal escapes",
            Self::LongText => "long text",
            Self::Languages => "other languages",
            Self::Encoded => "encoded text",
            Self::Fences => "imitated fences",
            Self::BenignWords => "words of benign alerts",
            Self::Columns => "columns with hostile names",
            Self::Rows => "rows beside the true ones",
            Self::Flood => "floods before the alert",
        })
    }
}

#[cfg(test)]
mod tests;
