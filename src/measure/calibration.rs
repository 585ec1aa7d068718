//! Whether a probability is worth its name: of all alerts called 80 %, eight of ten should be threats.

use serde::Serialize;

use super::interval::{Estimate, proportion};

/// How well probabilities fit what came true.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error, 0-1: the mean of what lies between said and true in each bin, by its alerts.
    pub ece: f64,
    /// Mean squared error of the probability, 0-1; 0.25 is what one half for everything gets.
    pub brier: f64,
    pub alerts: usize,
    /// [`BINS`] of equal width; the empty ones are left out.
    pub bins: Vec<Bin>,
}

/// Alerts whose probability lies in `from <= p < to`; the last bin holds 1 too.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bin {
    pub from: f64,
    pub to: f64,
    /// The mean of the probabilities.
    pub said: f64,
    /// The share of threats.
    pub threats: Estimate,
}

/// The false-positive rate that a threshold costs which finds so much of the threats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Operating {
    /// An alert is called a threat from this probability on.
    pub threshold: f64,
    pub recall: Estimate,
    pub false_positive_rate: Estimate,
}

/// Of probabilities (0-1) and whether each was a threat; `None` of none.
pub fn calibration(judged: &[(f64, bool)]) -> Option<Calibration> {
    if judged.is_empty() {
        return None;
    }
    let mut sums = [(0.0, 0usize, 0usize); BINS];
    let mut squares = 0.0;
    for (probability, is_threat) in judged {
        let bin = &mut sums[((probability * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + probability, bin.1 + usize::from(*is_threat), bin.2 + 1);
        squares += (probability - f64::from(*is_threat)).powi(2);
    }
    let mut bins = Vec::new();
    let mut apart = 0.0;
    for (index, (said, threats, alerts)) in sums.into_iter().enumerate() {
        let Some(threats) = proportion(threats, alerts) else { continue };
        let said = said / alerts as f64;
        apart += (said - threats.value).abs() * alerts as f64;
        let border = |index: usize| index as f64 / BINS as f64;
        bins.push(Bin { from: border(index), to: border(index + 1), said, threats });
    }
    let alerts = judged.len();
    Some(Calibration { ece: apart / alerts as f64, brier: squares / alerts as f64, alerts, bins })
}

/// The highest threshold that finds at least `recall` (0-1) of the threats; `None` without threats or without others.
///
/// The threshold is found on the alerts it is measured on, which flatters it where they are few.
pub fn at_recall(judged: &[(f64, bool)], recall: f64) -> Option<Operating> {
    let threats = judged.iter().filter(|(_, is_threat)| *is_threat).count();
    let others = judged.len() - threats;
    let mut sorted: Vec<_> = judged.to_vec();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut found, mut alarms) = (0, 0);
    for (index, (threshold, is_threat)) in sorted.iter().enumerate() {
        found += usize::from(*is_threat);
        alarms += usize::from(!is_threat);
        // Equal probabilities are called together or not at all.
        let is_last = sorted.get(index + 1).is_none_or(|next| next.0 < *threshold);
        if is_last && found as f64 >= recall * threats as f64 {
            return Some(Operating {
                threshold: *threshold,
                recall: proportion(found, threats)?,
                false_positive_rate: proportion(alarms, others)?,
            });
        }
    }
    None
}

pub const BINS: usize = 15;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 200 alerts with probabilities of 0.0025 to 0.9975, threats the likelier the higher: for comparing with other
    /// implementations.
    pub(in crate::measure) fn two_hundred() -> Vec<(f64, bool)> {
        let alert = |i: usize| {
            let probability = ((i * 37 % 200) as f64 + 0.5) / 200.0;
            (probability, (((i * i * 7 + i * 3) % 11) as f64) < 11.0 * probability)
        };
        (0..200).map(alert).collect()
    }

    #[test]
    fn numbers_are_those_of_scikit_learn() {
        // scikit-learn 1.9.1: brier_score_loss; calibration_curve(n_bins=15, strategy="uniform") with the bins' sizes of
        // numpy.histogram; roc_curve(drop_intermediate=False) at the first recall of 0.95.
        let judged = two_hundred();
        let found = calibration(&judged).unwrap();
        assert!((found.brier - 0.21588125).abs() < 1e-12, "{}", found.brier);
        assert!((found.ece - 0.125775).abs() < 1e-12, "{}", found.ece);
        assert_eq!(
            found.bins.iter().map(|bin| bin.threats.of).collect::<Vec<_>>(),
            [13, 14, 13, 13, 14, 13, 13, 14, 13, 13, 14, 13, 13, 14, 13]
        );
        let at = at_recall(&judged, 0.95).unwrap();
        assert!((at.threshold - 0.1075).abs() < 1e-12);
        assert!((at.recall.value - 0.9508196721311475).abs() < 1e-12);
        assert!((at.false_positive_rate.value - 0.8076923076923077).abs() < 1e-12);
    }

    #[test]
    fn by_hand() {
        let found = calibration(&[(0.9, true), (0.9, false), (0.1, false), (1.0, true)]).unwrap();
        // 0.9 lies in [13/15, 14/15), 1 in the last bin: apart by 0.4 twice, 0.1 once and 0.
        assert!((found.ece - 0.9 / 4.0).abs() < 1e-12);
        assert!((found.brier - (0.01 + 0.81 + 0.01) / 4.0).abs() < 1e-12);
        let at = at_recall(&[(0.9, true), (0.8, false), (0.8, true), (0.1, false)], 0.95).unwrap();
        assert_eq!((at.threshold, at.recall.value, at.false_positive_rate.value), (0.8, 1.0, 0.5));
    }

    #[test]
    fn of_nothing_there_is_no_number() {
        assert_eq!(calibration(&[]), None);
        for judged in [&[][..], &[(0.5, true)], &[(0.5, false)]] {
            assert_eq!(at_recall(judged, 0.95), None);
        }
    }

    proptest! {
        #[test]
        fn a_calibrated_judge_has_next_to_no_error(said in prop::collection::vec(1usize..100, 1..20)) {
            // Of a hundred alerts called n %, n are threats.
            let judged: Vec<_> = said.iter().flat_map(|n| (0..100).map(move |i| (*n as f64 / 100.0, i < *n))).collect();
            prop_assert!(calibration(&judged).unwrap().ece < 1e-9);
        }

        #[test]
        fn errors_lie_within_0_and_1_and_a_threshold_keeps_its_promise(judged in prop::collection::vec((0.0f64..=1.0, any::<bool>()), 1..200)) {
            let found = calibration(&judged).unwrap();
            prop_assert!((0.0..=1.0).contains(&found.ece) && (0.0..=1.0).contains(&found.brier));
            prop_assert_eq!(found.bins.iter().map(|bin| bin.threats.of).sum::<usize>(), judged.len());
            if let Some(at) = at_recall(&judged, 0.95) {
                let called = judged.iter().filter(|(probability, is_threat)| *is_threat && *probability >= at.threshold).count();
                prop_assert_eq!(called as f64 / at.recall.of as f64, at.recall.value);
                prop_assert!(at.recall.value >= 0.95);
            }
        }
    }
}
