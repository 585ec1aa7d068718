//! The verdict: clickagentic's fields, and how it came to be.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::claims::Claim;
use super::deed::{Deed, Lowered};
use super::judge::Judgement;
use super::opinion::Opinion;
use super::record::Record;

/// What triage says of an alert. The first fields are clickagentic's, by name and meaning; prose is code's until the
/// model's is there, every number is computed by code (see [`score`](super::score)).
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
    /// Only entities that stand in the alert's rows, at most 12.
    pub affected_entities: Vec<String>,
    pub recommended_action: String,
    /// The sentence of the notes, or the `known_benign` statement, that the scores rest on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The critical asset (`triage.critical_assets`) that the alert touches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_asset: Option<String>,
    #[serde(default)]
    pub opinion: Opinion,
    /// What the judge says; absent in verdicts of an older watchpost, which knew the formula alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Judgement>,
    /// The sentences of summary and explanation, each with what it rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Claim>,
    /// What it was made of; absent in verdicts of an older watchpost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
    /// What the machine would do with the alert were it trusted with it; absent where it did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommends: Option<Deed>,
    /// What the severity was before the machine lowered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowered: Option<Lowered>,
    /// That a text of the rows speaks to its reader, in which column and how; see [`speech`](super::speech).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostile_text: Option<String>,
    #[serde(default)]
    pub cost: Cost,
}

impl Verdict {
    /// Says that the prose stays code's, and why.
    pub fn without_prose(mut self, reason: &str) -> Self {
        self.cost.templated.push(format!("all: {reason}"));
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// One step, at most to critical.
    pub fn raised(self) -> Self {
        match self {
            Self::Low => Self::Medium,
            Self::Medium => Self::High,
            Self::High | Self::Critical => Self::Critical,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }
}

/// What a verdict cost, and who gave it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Name of the model as in its metadata; empty where none was asked, see [`Cost::without_model`].
    pub model: String,
    /// Of the model file, hexadecimal.
    pub model_sha256: String,
    /// Why the verdict was given without a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_model: Option<String>,
    /// Of the question for prose.
    #[serde(default)]
    pub prompt_tokens: usize,
    /// Of those, taken from the prefix cache.
    #[serde(default)]
    pub cached_tokens: usize,
    #[serde(default)]
    pub completion_tokens: usize,
    /// From the alert's creation until its verdict was there: waiting in the queue and for the model included. Absent
    /// where no queue was waited in (`watchpost triage`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_to_verdict: Option<f64>,
    /// From the alert's creation until its prose was there, by the model or for good by code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_to_prose: Option<f64>,
    /// Our work and the model's for the verdict alone, without waiting in the queue or for the model to load. What is
    /// computed beside it slows it. So with the next.
    #[serde(default)]
    pub verdict_compute_seconds: f64,
    /// The same for the prose; 0 before it.
    #[serde(default)]
    pub prose_compute_seconds: f64,
    /// From the question for prose to the first token of its answer; 0 where there is no answer.
    #[serde(default)]
    pub seconds_to_first_token: f64,
    #[serde(default)]
    pub prose: Prose,
    /// The alert, alike, whose text by the model this is, as it holds for this alert too; the model was not asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_from: Option<String>,
    /// Fields whose text is code's because the model's was not usable, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub templated: Vec<String>,
}

/// Who wrote title, summary and explanation, and chose the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prose {
    Model,
    /// Some of it, see [`Cost::templated`].
    Mixed,
    /// Code wrote all of it.
    #[default]
    Template,
}

/// Exactly clickagentic's object, its fields in its order: what a webhook's body carries.
pub fn clickagentic(verdict: &Verdict) -> Value {
    json!({
        "title": verdict.title,
        "summary": verdict.summary,
        "severity": verdict.severity,
        "confidence": verdict.confidence,
        "false_positive_score": verdict.false_positive_score,
        "risk_score": verdict.risk_score,
        "explanation": verdict.explanation,
        "mitigations": verdict.mitigations,
        "affected_entities": verdict.affected_entities,
        "recommended_action": verdict.recommended_action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_webhook_body_has_clickagentics_fields_in_its_order() {
        let verdict = Verdict {
            title: "t".into(),
            summary: "s".into(),
            severity: Severity::High,
            confidence: 70,
            false_positive_score: 20,
            risk_score: 60,
            explanation: "e".into(),
            mitigations: vec!["m".into()],
            affected_entities: vec!["10.0.0.6".into()],
            recommended_action: "r".into(),
            note: Some("n".into()),
            critical_asset: None,
            opinion: Opinion::default(),
            judgement: None,
            claims: Vec::new(),
            record: None,
            recommends: None,
            lowered: None,
            hostile_text: None,
            cost: Cost::default(),
        };
        assert_eq!(
            clickagentic(&verdict).to_string(),
            r#"{"title":"t","summary":"s","severity":"High","confidence":70,"false_positive_score":20,"risk_score":60,"explanation":"e","mitigations":["m"],"affected_entities":["10.0.0.6"],"recommended_action":"r"}"#
        );
        let text = serde_json::to_string(&verdict).unwrap();
        assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict);
    }
}
