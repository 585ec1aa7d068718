//! What the model finds likely of alerts like this one: two closed lists, answered by probabilities and not by text,
//! each held against what the model says from habit, when it is told nothing.
//!
//! It is told the rule, the count and the columns' names, and no cell ([`super::prompt::opinion`]): nobody but the
//! operator can move it. What it may move is bounded by [`super::score`].

use serde::{Deserialize, Serialize};

use super::verdict::Severity;

/// Empty where the model says nothing that can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Opinion {
    /// Probability of the label *true positive*, 0-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub true_positive: Option<f64>,
    /// The severity that gains most by what the model is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

/// Log-probabilities of [`LABELS`] and of [`Severity::ALL`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leaning {
    labels: [f64; 2],
    severities: [f64; 4],
}

impl Leaning {
    /// `None` where the answer has not the questions' shape.
    pub fn of(answer: &[Vec<f64>]) -> Option<Self> {
        let [labels, severities] = answer else { return None };
        Some(Self {
            labels: labels.as_slice().try_into().ok()?,
            severities: severities.as_slice().try_into().ok()?,
        })
    }

    /// What is left of it beside what the model says when it is told nothing.
    pub fn against(&self, nothing: &Self) -> Opinion {
        let odds = |leaning: &Self| leaning.labels[0] - leaning.labels[1];
        let gained = odds(self) - odds(nothing);
        let gains = |at: usize| self.severities[at] - nothing.severities[at];
        let all: [f64; 4] = std::array::from_fn(gains);
        let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut likeliest = Severity::ALL.into_iter().zip(all).filter(|(_, gain)| *gain == most);
        let severity = match (likeliest.next(), likeliest.next()) {
            (Some((severity, _)), None) if all.iter().all(|gain| gain.is_finite()) => Some(severity),
            _ => None,
        };
        Opinion { true_positive: gained.is_finite().then(|| 1.0 / (1.0 + (-gained).exp())), severity }
    }
}

/// True first.
pub const LABELS: [&str; 2] = ["true positive", "false positive"];

#[cfg(test)]
mod tests {
    use super::*;

    fn leaning(labels: [f64; 2], severities: [f64; 4]) -> Leaning {
        Leaning { labels, severities }
    }

    #[test]
    fn habit_is_no_opinion() {
        let habit = leaning([-0.1, -3.0], [-5.0, -1.0, -0.5, -4.0]);
        assert_eq!(habit.against(&habit), Opinion { true_positive: Some(0.5), severity: None });
    }

    #[test]
    fn what_gains_most_by_being_told_is_the_opinion() {
        let habit = leaning([-1.0, -1.0], [-5.0, -1.0, -0.5, -4.0]);
        let told = leaning([-0.5, -2.0], [-5.0, -1.5, -0.4, -2.0]);
        let opinion = told.against(&habit);
        assert_eq!(opinion.severity, Some(Severity::Critical), "not `High`, which is likeliest from habit");
        assert!((opinion.true_positive.unwrap() - 0.8176).abs() < 1e-3);
    }

    #[test]
    fn an_answer_of_another_shape_or_without_numbers_is_no_opinion() {
        assert_eq!(Leaning::of(&[]), None);
        assert_eq!(Leaning::of(&[vec![-1.0], vec![-1.0; 4]]), None);
        let broken = leaning([f64::NAN, -1.0], [f64::NEG_INFINITY; 4]);
        assert_eq!(broken.against(&broken), Opinion::default());
    }
}
