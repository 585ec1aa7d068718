//! The verdict: clickagentic's fields, and how it came to be.

use serde::{Deserialize, Serialize};

/// What triage says of an alert. The first fields are clickagentic's, by name and meaning; prose is the
/// model's, every number is computed by code (see `triage::score`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub title: String,
    pub summary: String,
    pub severity: Severity,
    /// 0-100.
    pub confidence: u8,
    /// 0-100; 100 means certainly benign.
    pub false_positive_score: u8,
    /// 0-100.
    pub risk_score: u8,
    pub explanation: String,
    /// One to five steps.
    pub mitigations: Vec<String>,
    /// Only entities that stand in the alert's rows.
    pub affected_entities: Vec<String>,
    pub recommended_action: String,
    pub cost: Cost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

/// What a verdict cost, and who gave it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Name of the model as in its metadata.
    pub model: String,
    /// Of the model file, hexadecimal.
    pub model_sha256: String,
    pub prompt_tokens: usize,
    /// Of those, taken from the prefix cache.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// From the start of triage to the verdict, without waiting in the queue.
    pub seconds: f64,
}
