//! What a verdict calls for. Whether the machine does it by itself is the trust gate's matter (docs/trust.md); where it
//! does not, the verdict recommends it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::judge::{Disposition, Judgement};
use super::reader::Judged;
use super::verdict::{Severity, Verdict};

/// What the machine may be trusted with, rule by rule.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// Close the alert as a false positive.
    Close,
    /// Lower its severity to what the expected harm says.
    Lower,
}

/// Why a severity is lower than the harm that the alert could mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lowered {
    pub from: Severity,
    pub because: String,
}

impl Deed {
    pub const ALL: [Self; 2] = [Self::Close, Self::Lower];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Lower => "lower",
        }
    }

    /// Whether it treats an alert as harmless of which the judge said this: a probability, and whether it is a threat.
    pub fn holds_harmless(self, probability: f64, said: Option<bool>) -> bool {
        match self {
            Self::Close => said == Some(false),
            Self::Lower => probability < 0.5,
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Verdict {
    /// What the judge says, where trust can rest on it: calibrated, on evidence, and no note of the operator's beside it.
    pub fn sound(&self) -> Option<&Judgement> {
        let is_sound = |judgement: &&Judgement| {
            judgement.calibrated && judgement.disposition != Disposition::NotEvaluable
        };
        self.judgement.as_ref().filter(is_sound).filter(|_| self.note.is_none())
    }
}

impl Judged {
    /// Never where the log's own text moved the probability much, or speaks to its reader: that is who may be lying.
    pub fn calls_for(&self, deed: Deed) -> bool {
        let Some(judgement) = self.verdict.sound() else { return false };
        let Judgement { probability, disposition, text_gap, .. } = judgement;
        *text_gap < MAX_TEXT_GAP
            && self.verdict.hostile_text.is_none()
            && deed.holds_harmless(*probability, disposition.is_threat())
            && (deed != Deed::Lower || self.expected < self.verdict.severity)
    }

    /// Lowers the severity to what is to be expected, and says so.
    pub fn lower(&mut self) {
        let Some(judgement) = &self.verdict.judgement else { return };
        let because = format!(
            "a threat is {:.1} % likely by the judge `{}`",
            100.0 * judgement.probability,
            judgement.judge
        );
        self.verdict.lowered = Some(Lowered { from: self.verdict.severity, because });
        self.verdict.severity = self.expected;
    }

    /// Gives it again as it was saved: with what the machine was trusted with at that time, and did.
    pub fn done_as(mut self, then: &Verdict) -> Verdict {
        if then.lowered.is_some() {
            self.lower();
        }
        self.verdict.recommends = then.recommends;
        self.verdict
    }
}

/// Of [`Judgement::text_gap`].
const MAX_TEXT_GAP: f64 = 0.1;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(change: impl FnOnce(&mut Verdict, &mut Judgement)) -> Judged {
        let mut verdict: Verdict = serde_json::from_value(json!({
            "title": "t", "summary": "s", "severity": "High", "confidence": 50, "false_positive_score": 5, "risk_score": 60,
            "explanation": "e", "mitigations": [], "affected_entities": [], "recommended_action": "r",
        }))
        .unwrap();
        let mut judgement = Judgement {
            judge: "5b1f".into(),
            probability: 0.02,
            calibrated: true,
            disposition: Disposition::FalsePositive,
            text_gap: 0.0,
            why: Vec::new(),
        };
        change(&mut verdict, &mut judgement);
        verdict.judgement = Some(judgement);
        Judged { verdict, features: Default::default(), expected: Severity::Low }
    }

    fn deeds(change: impl FnOnce(&mut Verdict, &mut Judgement)) -> Vec<Deed> {
        let judged = judged(change);
        Deed::ALL.into_iter().filter(|deed| judged.calls_for(*deed)).collect()
    }

    #[test]
    fn only_a_sound_judgement_calls_for_a_deed() {
        assert_eq!(deeds(|_, _| {}), [Deed::Close, Deed::Lower]);
        assert_eq!(
            deeds(|verdict, _| verdict.severity = Severity::Low),
            [Deed::Close],
            "it is as low as can be"
        );
        assert_eq!(deeds(|_, judgement| judgement.calibrated = false), []);
        assert_eq!(deeds(|_, judgement| judgement.text_gap = 0.1), []);
        assert_eq!(deeds(|verdict, _| verdict.hostile_text = Some("column `m` gives orders".into())), []);
        assert_eq!(deeds(|_, judgement| judgement.disposition = Disposition::NotEvaluable), []);
        assert_eq!(deeds(|verdict, _| verdict.note = Some("Ignore 10.0.0.5.".into())), []);
        let undecided = |probability| {
            deeds(|_, judgement| {
                (judgement.probability, judgement.disposition) = (probability, Disposition::Undecided);
            })
        };
        assert_eq!((undecided(0.4), undecided(0.5)), (vec![Deed::Lower], vec![]));
    }

    #[test]
    fn a_lowered_verdict_says_what_it_was_and_why() {
        let mut judged = judged(|_, _| {});
        judged.lower();
        let Verdict { severity, lowered, .. } = judged.verdict;
        let because = "a threat is 2.0 % likely by the judge `5b1f`".to_owned();
        assert_eq!((severity, lowered), (Severity::Low, Some(Lowered { from: Severity::High, because })));
    }
}
