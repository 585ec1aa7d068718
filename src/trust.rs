//! The trust gate: what must hold before the machine may close or lower alerts of a rule by itself, and what ends it
//! (docs/trust.md). Pure rules; what was granted, and the labels, are in the store.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::measure::{at_least, proves, tail};
use crate::triage::config::Trust;
use crate::triage::deed::Deed;

/// What a verdict rests on beside the alert: trust that was earned on one holds for no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The judge's lineage: [`LEARNING`] while it learns on, or the version that somebody chose.
    pub judge: String,
    /// The model file's sha256; empty without a model.
    pub model: String,
    /// A hash of the rule's query, level and size.
    pub rule: String,
    /// The version of Watchpost, whose questions to the model and features of alerts these are.
    pub watchpost: String,
}

/// An alert that the judge called something and a person closed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// When it was closed.
    pub at: Timestamp,
    /// By the judge: that it is a threat, 0-1, and whether it called it one.
    pub probability: f64,
    pub said: Option<bool>,
    /// By the person.
    pub is_threat: bool,
}

/// How good a deed would have been.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Alerts that were harmless, of those that it would have been done to: its precision.
    pub right: Share,
    /// Threats that it would have left alone, of all: its recall.
    pub spared: Share,
    /// Whole days from the first label to the last.
    pub days: u32,
}

/// A share that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    pub part: usize,
    pub of: usize,
    /// What it is at least, at 95 %.
    pub at_least: f64,
}

impl Basis {
    /// Why trust that was earned on this does not hold on `now`; `None` where it does.
    pub fn broken_by(&self, now: &Self) -> Option<&'static str> {
        if self.rule != now.rule {
            Some("the rule's query, level or size is another")
        } else if self.judge != now.judge {
            Some("another judge is in use")
        } else if self.model != now.model {
            Some("another model is in use")
        } else if self.watchpost != now.watchpost {
            Some("another version of watchpost is in use")
        } else {
            None
        }
    }
}

impl Figures {
    /// `labels` are in the order of time; so with [`drift`].
    pub fn of(deed: Deed, labels: &[Label]) -> Self {
        let days = match (labels.first(), labels.last()) {
            (Some(first), Some(last)) => (last.at.as_second() - first.at.as_second()) / DAY_S,
            _ => 0,
        };
        let days = u32::try_from(days).unwrap_or_default();
        Self { right: Share::of(&right(deed, labels)), spared: Share::of(&spared(deed, labels)), days }
    }

    /// What is missing before the deed may be granted, in words; nothing where it may.
    pub fn missing(&self, asked: &Trust) -> Vec<String> {
        let mut missing = Vec::new();
        for (share, what) in [
            (self.right, "alerts that were called harmless and were"),
            (self.spared, "threats that were not called harmless"),
        ] {
            if let Some(more) = share.needs(asked.bar) {
                let Share { part, of, at_least } = share;
                missing.push(format!(
                    "needs {more} more {what}: {part} of {of} prove {at_least:.3}, the bar is {}",
                    asked.bar
                ));
            }
        }
        if self.days < asked.days {
            let more = asked.days - self.days;
            missing.push(format!(
                "needs {more} more days: the labels are of {}, the bar is {}",
                self.days, asked.days
            ));
        }
        missing
    }
}

impl Share {
    fn of(outcomes: &[bool]) -> Self {
        let (part, of) = (outcomes.iter().filter(|is_good| **is_good).count(), outcomes.len());
        Self { part, of, at_least: at_least(part, of) }
    }

    /// How many more without a miss would prove `bar`; `None` where it is proven.
    fn needs(self, bar: f64) -> Option<usize> {
        let is_enough = |more: &usize| proves(self.part + more, self.of + more, bar);
        if is_enough(&0) {
            return None;
        }
        // The first power of two that is enough, then the place between it and the one before.
        let enough = (0..usize::BITS).map(|power| 1 << power).find(is_enough)?;
        let (mut less, mut enough) = (enough / 2, enough);
        while enough - less > 1 {
            let middle = usize::midpoint(less, enough);
            if is_enough(&middle) { enough = middle } else { less = middle }
        }
        Some(enough)
    }
}

/// Why the last labels say that the deed is no longer as good as `bar`; `None` where they do not.
pub fn drift(deed: Deed, labels: &[Label], bar: f64) -> Option<String> {
    [
        (right(deed, labels), "called harmless", "threats"),
        (spared(deed, labels), "threats", "called harmless"),
    ]
    .into_iter()
    .find_map(|(outcomes, what, wrong)| {
        let last = &outcomes[outcomes.len().saturating_sub(RECENT)..];
        let misses = last.iter().filter(|is_good| !**is_good).count();
        let is_drift = tail(misses, last.len(), 1.0 - bar) < IMPROBABLE;
        is_drift.then(|| format!("drift: of the last {} {what}, {misses} were {wrong}", last.len()))
    })
}

/// Whether an alert is one of the `share` whose verdict is shown to nobody before it is closed. Who does not know `salt`
/// cannot tell which.
pub fn is_blind(alert_id: &str, salt: &[u8], share: f64) -> bool {
    let hash = Sha256::new().chain_update(salt).chain_update(alert_id).finalize();
    let place = hash[..8].iter().fold(0u64, |place, byte| place << 8 | u64::from(*byte));
    (place as f64) < share * 2f64.powi(64)
}

/// Whether each alert that the deed would have been done to was harmless, in the order of `labels`.
fn right(deed: Deed, labels: &[Label]) -> Vec<bool> {
    let done = labels.iter().filter(|label| deed.holds_harmless(label.probability, label.said));
    done.map(|label| !label.is_threat).collect()
}

/// Whether each threat would have been left alone.
fn spared(deed: Deed, labels: &[Label]) -> Vec<bool> {
    let threats = labels.iter().filter(|label| label.is_threat);
    threats.map(|label| !deed.holds_harmless(label.probability, label.said)).collect()
}

/// The lineage of the judge that learns on: its versions are one judge.
pub const LEARNING: &str = "learning";
/// Labels in which drift is looked for.
const RECENT: usize = 20;
/// So many misses or more, were the deed as good as the bar.
const IMPROBABLE: f64 = 0.01;
const DAY_S: i64 = 86_400;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked() -> Trust {
        Trust { bar: 0.95, days: 30, blind: 0.0 }
    }

    /// `benign` called so and `threats` called so, then so many of each called the contrary, evenly over `days`.
    fn labels(benign: usize, threats: usize, wrong: (usize, usize), days: i64) -> Vec<Label> {
        let kinds =
            [(0.02, false, benign), (0.98, true, threats), (0.98, false, wrong.0), (0.02, true, wrong.1)];
        let mut labels: Vec<_> = kinds
            .into_iter()
            .flat_map(|(probability, is_threat, count)| {
                let said = Some(probability > 0.5);
                std::iter::repeat_n(Label { at: Timestamp::UNIX_EPOCH, probability, said, is_threat }, count)
            })
            .collect();
        let last = labels.len().max(2) as i64 - 1;
        for (nth, label) in labels.iter_mut().enumerate() {
            label.at = Timestamp::from_second(DAY_S * days * nth as i64 / last).unwrap();
        }
        labels
    }

    #[test]
    fn a_deed_may_be_granted_on_59_of_each_without_a_miss_over_30_days_and_on_no_less() {
        for (benign, threats, wrong, days, missing) in [
            (59, 59, (0, 0), 30, &[][..]),
            (500, 400, (0, 0), 90, &[]),
            (
                58,
                59,
                (0, 0),
                30,
                &[
                    "needs 1 more alerts that were called harmless and were: 58 of 58 prove 0.950, the bar is 0.95",
                ],
            ),
            (
                59,
                58,
                (0, 0),
                30,
                &[
                    "needs 1 more threats that were not called harmless: 58 of 58 prove 0.950, the bar is 0.95",
                ],
            ),
            (59, 59, (0, 0), 29, &["needs 1 more days: the labels are of 29, the bar is 30"]),
            // What is called a threat and is none costs nobody's trust: no deed is done to it.
            (59, 59, (40, 0), 30, &[]),
            // A threat that was called harmless is a miss of both: 93 with one miss prove 0.95, as 181 with four do.
            (92, 92, (0, 1), 30, &[]),
            (
                91,
                92,
                (0, 1),
                30,
                &[
                    "needs 1 more alerts that were called harmless and were: 91 of 92 prove 0.949, the bar is 0.95",
                ],
            ),
            (
                36,
                100,
                (0, 0),
                18,
                &[
                    "needs 23 more alerts that were called harmless and were: 36 of 36 prove 0.920, the bar is 0.95",
                    "needs 12 more days: the labels are of 18, the bar is 30",
                ],
            ),
            (
                0,
                0,
                (0, 0),
                0,
                &[
                    "needs 59 more alerts that were called harmless and were: 0 of 0 prove 0.000, the bar is 0.95",
                    "needs 59 more threats that were not called harmless: 0 of 0 prove 0.000, the bar is 0.95",
                    "needs 30 more days: the labels are of 0, the bar is 30",
                ],
            ),
        ] {
            for deed in Deed::ALL {
                let found = Figures::of(deed, &labels(benign, threats, wrong, days)).missing(&asked());
                assert_eq!(found, missing, "{deed}: {benign} {threats} {wrong:?} {days}");
            }
        }
    }

    #[test]
    fn what_the_judge_left_open_is_never_closed_and_lowered_by_its_probability() {
        let mut open = labels(60, 60, (0, 0), 30);
        for label in &mut open {
            (label.said, label.probability) = (None, 0.45);
        }
        let figures = Figures::of(Deed::Close, &open);
        assert_eq!((figures.right.of, figures.spared.part, figures.spared.of), (0, 60, 60));
        let figures = Figures::of(Deed::Lower, &open);
        assert_eq!((figures.right.part, figures.right.of, figures.spared.part), (60, 120, 0));
    }

    #[test]
    fn five_misses_among_the_last_twenty_are_drift_and_four_are_not() {
        for (misses, is_drift) in [(0, false), (4, false), (5, true), (20, true)] {
            let good = labels(2_000, 2_000, (0, 0), 30);
            let mut late = labels(20 - misses, 0, (0, misses), 1);
            late.iter_mut().for_each(|label| label.at = good[good.len() - 1].at);
            let labels = [good, late].concat();
            let found = drift(Deed::Close, &labels, 0.95);
            assert_eq!(found.is_some(), is_drift, "{misses}: {found:?}");
            if misses < 20 {
                assert!(
                    Figures::of(Deed::Close, &labels).missing(&asked()).is_empty(),
                    "by all labels it is good"
                );
            }
        }
        let words = drift(Deed::Close, &labels(0, 0, (0, 5), 1), 0.95).unwrap();
        assert_eq!(words, "drift: of the last 5 called harmless, 5 were threats");
        assert_eq!(drift(Deed::Lower, &[], 0.95), None);
    }

    #[test]
    fn another_rule_judge_or_model_breaks_trust() {
        let basis =
            Basis { judge: LEARNING.into(), model: "m".into(), rule: "r".into(), watchpost: "0.1.0".into() };
        assert_eq!(basis.broken_by(&basis), None);
        for (other, word) in [
            (Basis { rule: "x".into(), ..basis.clone() }, "query"),
            (Basis { judge: "5b1f".into(), ..basis.clone() }, "judge"),
            (Basis { model: String::new(), ..basis.clone() }, "model"),
            (Basis { watchpost: "0.2.0".into(), ..basis.clone() }, "version"),
        ] {
            assert!(basis.broken_by(&other).unwrap().contains(word));
        }
    }

    #[test]
    fn blind_alerts_are_the_asked_share_always_the_same_and_others_with_another_salt() {
        let blind = |salt: &[u8], share| -> Vec<usize> {
            (0..10_000).filter(|id| is_blind(&format!("{id:032x}"), salt, share)).collect()
        };
        let (one, other) = (blind(b"one", 0.1), blind(b"other", 0.1));
        assert!((900..1_100).contains(&one.len()), "{}", one.len());
        assert_eq!(one, blind(b"one", 0.1));
        assert!(one.iter().filter(|id| other.contains(id)).count() < 200);
        assert!(
            one.iter().all(|id| blind(b"one", 0.2).contains(id)),
            "a larger share keeps those of a smaller"
        );
        assert_eq!((blind(b"one", 0.0).len(), blind(b"one", 1.0).len()), (0, 10_000));
    }

    proptest! {
        #[test]
        fn more_misses_never_allow_more(benign in 0usize..400, threats in 0usize..400, wrong in 0usize..20, more in 1usize..20) {
            for deed in Deed::ALL {
                let of = |misses| Figures::of(deed, &labels(benign, threats, (0, misses), 30));
                let (few, many) = (of(wrong), of(wrong + more));
                if many.missing(&asked()).is_empty() {
                    prop_assert!(few.missing(&asked()).is_empty());
                }
                prop_assert!(many.spared.at_least <= few.spared.at_least && many.right.at_least <= few.right.at_least);
            }
        }

        #[test]
        fn what_is_said_to_be_missing_is_enough_and_no_more_than_that(part in 0usize..300, misses in 0usize..10, bar in 0.5..0.99f64) {
            let share = Share { part, of: part + misses, at_least: 0.0 };
            match share.needs(bar) {
                None => prop_assert!(proves(part, part + misses, bar)),
                Some(more) => {
                    prop_assert!(proves(part + more, part + misses + more, bar));
                    prop_assert!(!proves(part + more - 1, part + misses + more - 1, bar));
                }
            }
        }
    }
}
