//! Closings: what analysts decided about alerts. They are the labels that the product learns and measures from.
//!
//! A closing is never changed and never deleted: a newer one stands before an older one, and one that was wrong is
//! undone, which leaves it on record. No closing changes a verdict or hides an alert.

pub mod bursts;
pub mod import;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// What an analyst says an alert was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// A threat.
    TruePositive,
    /// The rule found what it looks for, and it was allowed: a test, an administrator at work.
    BenignTruePositive,
    /// The rule found what it does not look for.
    FalsePositive,
    /// Told by another alert already.
    Duplicate,
    /// What would decide it is not there.
    NotEvaluable,
}

impl Label {
    pub const ALL: [Self; 5] = [
        Self::TruePositive,
        Self::BenignTruePositive,
        Self::FalsePositive,
        Self::Duplicate,
        Self::NotEvaluable,
    ];

    /// What it says for learning and measuring: `None` says nothing, and counts in neither.
    pub fn is_threat(self) -> Option<bool> {
        match self {
            Self::TruePositive => Some(true),
            Self::BenignTruePositive | Self::FalsePositive => Some(false),
            Self::Duplicate | Self::NotEvaluable => None,
        }
    }

    /// As it is stored and printed: `true_positive`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TruePositive => "true_positive",
            Self::BenignTruePositive => "benign_true_positive",
            Self::FalsePositive => "false_positive",
            Self::Duplicate => "duplicate",
            Self::NotEvaluable => "not_evaluable",
        }
    }

    /// As it is typed: `tp`.
    pub fn short(self) -> &'static str {
        match self {
            Self::TruePositive => "tp",
            Self::BenignTruePositive => "btp",
            Self::FalsePositive => "fp",
            Self::Duplicate => "dup",
            Self::NotEvaluable => "ne",
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Label {
    type Err = ();

    /// Long or short, in any case, with `_`, `-` or blanks between the words.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim().to_ascii_lowercase().replace(['-', ' '], "_");
        Self::ALL.into_iter().find(|label| label.as_str() == text || label.short() == text).ok_or(())
    }
}

/// What a label looks like, for messages.
pub const LABELS: &str = "`tp`, `btp`, `fp`, `dup` or `ne` (true positive, benign true positive, false positive, \
     duplicate, not evaluable)";

/// An analyst's decision, as it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// An alert's id, or the beginning of one.
    pub alert: String,
    pub label: Label,
    pub reason: String,
    pub analyst: String,
    /// `None` is now.
    pub at: Option<Timestamp>,
}

/// A closing as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Closing {
    pub alert_id: String,
    pub label: Label,
    pub reason: String,
    pub analyst: String,
    /// When the analyst decided.
    pub at: Timestamp,
    /// When Watchpost heard of it.
    pub recorded_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone_by: Option<String>,
}

/// The words of a reason or a name, or what is wrong with them and how to fix it.
pub fn words(text: &str, most: usize) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("is empty".to_owned()),
        length if length > most => Err(format!("has {length} characters: at most {most}")),
        _ => Ok(text.to_owned()),
    }
}

/// The name of an analyst, or what is wrong with it and how to fix it.
pub fn analyst(text: &str) -> Result<String, String> {
    let name = words(text, MAX_NAME)?;
    if name.eq_ignore_ascii_case(MACHINE) {
        return Err(format!(
            "`{MACHINE}` is the name under which the machine closes alerts: give a person's"
        ));
    }
    Ok(name)
}

/// Who closes where the machine is trusted to (docs/trust.md). Nothing is learned or measured from its closings, and any person's
/// stands before them.
pub const MACHINE: &str = "watchpost";
/// Characters of a reason.
pub const MAX_REASON: usize = 2_000;
/// Characters of an analyst's name.
pub const MAX_NAME: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_short_and_long_in_any_case() {
        for label in Label::ALL {
            assert_eq!(label.short().parse(), Ok(label));
            assert_eq!(label.as_str().to_uppercase().replace('_', "-").parse(), Ok(label));
            assert_eq!(serde_json::to_value(label).unwrap(), label.as_str());
        }
        assert_eq!("Benign true positive".parse(), Ok(Label::BenignTruePositive));
        assert_eq!("benign".parse::<Label>(), Err(()));
    }

    #[test]
    fn nobody_closes_in_the_machines_name() {
        assert_eq!(analyst(" ann "), Ok("ann".to_owned()));
        assert!(analyst("watchpost ").is_err() && analyst("Watchpost").is_err());
    }

    #[test]
    fn a_duplicate_and_what_cannot_be_judged_teach_nothing() {
        let threats: Vec<_> = Label::ALL.map(Label::is_threat).into();
        assert_eq!(threats, [Some(true), Some(false), Some(false), None, None]);
    }
}
