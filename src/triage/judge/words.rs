//! A judgement in words, safe to print: features may hold text of strangers.

use super::{Disposition, Judge, Judgement, Reason};
use crate::text::escape_within;

impl Disposition {
    pub fn words(self) -> &'static str {
        match self {
            Self::TruePositive => "true positive",
            Self::FalsePositive => "false positive",
            Self::Undecided => "undecided",
            Self::NotEvaluable => "not evaluable",
        }
    }
}

impl Judgement {
    /// What it says, how sure it is and who says it, on one line.
    pub fn line(&self) -> String {
        let who = match (self.judge.as_str(), self.calibrated) {
            (Judge::PRIOR, _) => "uncalibrated: nothing learned yet".to_owned(),
            (judge, true) => format!("judge {}", escape_within(judge, MAX_VERSION)),
            (judge, false) => format!("judge {}, uncalibrated", escape_within(judge, MAX_VERSION)),
        };
        let mut line =
            format!("{}, {:.0} % a threat ({who})", self.disposition.words(), 100.0 * self.probability);
        if self.text_gap >= LEAST_GAP {
            line.push_str(&format!("; {:.0} % of it by the text of the rows", 100.0 * self.text_gap));
        }
        line
    }

    /// What counted most, for a threat and against one: at most two lines.
    pub fn reasons(&self) -> Vec<String> {
        let side = |name: &str, is_for: bool| {
            let reasons: Vec<String> =
                self.why.iter().filter(|reason| (reason.weight > 0.0) == is_for).map(Reason::words).collect();
            (!reasons.is_empty()).then(|| format!("{name}: {}", reasons.join("; ")))
        };
        [side("for a threat", true), side("against", false)].into_iter().flatten().collect()
    }
}

impl Reason {
    fn words(&self) -> String {
        format!("{} ({:+.1})", escape_within(&self.feature, MAX_FEATURE), self.weight)
    }
}

const LEAST_GAP: f64 = 0.05;
/// Characters.
const MAX_VERSION: usize = 20;
const MAX_FEATURE: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judgement_is_told_with_its_reasons_and_nothing_in_it_moves_a_terminal() {
        let reason = |feature: &str, weight| Reason { feature: feature.into(), weight };
        let judgement = Judgement {
            judge: "0011aabbccdd".into(),
            probability: 0.914,
            calibrated: true,
            disposition: Disposition::TruePositive,
            text_gap: 0.31,
            why: vec![reason("text: \u{1b}[2Jsqlmap", 2.14), reason("user: backup", -0.52)],
        };
        assert_eq!(
            judgement.line(),
            "true positive, 91 % a threat (judge 0011aabbccdd); 31 % of it by the text of the rows"
        );
        assert_eq!(
            judgement.reasons(),
            ["for a threat: text: \\u{1b}[2Jsqlmap (+2.1)", "against: user: backup (-0.5)"]
        );
        let prior = Judgement { judge: Judge::PRIOR.into(), calibrated: false, text_gap: 0.0, ..judgement };
        assert_eq!(prior.line(), "true positive, 91 % a threat (uncalibrated: nothing learned yet)");
    }
}
