//! All measures of a set of alerts, and of its groups.

use std::collections::HashMap;

use serde::Serialize;

use super::calibration::{self, Calibration, Operating};
use super::interval::{self, Estimate, proportion};
use super::times::Times;
use super::{By, Format, Judged};
use crate::clock::Timestamp;
use crate::closing::bursts::{Analyst, Burst};

/// What was measured, ready to be rendered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Which alerts these are, in words.
    pub title: String,
    pub made_at: Timestamp,
    pub all: Measures,
    /// Of those alerts alone that analysts decided without seeing the verdict; absent where there are none.
    pub blind: Option<Measures>,
    pub by: Option<By>,
    /// The largest first.
    pub groups: Vec<Group>,
    /// Who decided, where analysts did.
    pub analysts: Vec<Analyst>,
    /// Their unusual hours.
    pub bursts: Vec<Burst>,
    /// What the reader must know, a sentence each.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub name: String,
    #[serde(flatten)]
    pub measures: Measures,
}

/// Every number has `None` where there is nothing to measure it by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measures {
    pub alerts: usize,
    /// Of those, with a label that says threat or no threat. The rest of the numbers but the times are of them.
    pub labelled: usize,
    /// The share of threats.
    pub base_rate: Option<Estimate>,
    /// The share that the judge decided. Precision, recall, F1 and false-positive rate are of the decided.
    pub coverage: Option<Estimate>,
    pub confusion: Confusion,
    /// Threats among what was called one.
    pub precision: Option<Estimate>,
    /// Called a threat among threats.
    pub recall: Option<Estimate>,
    pub f1: Option<Estimate>,
    /// Called a threat among what was none.
    pub false_positive_rate: Option<Estimate>,
    /// What a threshold would cost that finds 95 % of the threats.
    pub at_recall_95: Option<Operating>,
    pub calibration: Option<Calibration>,
    pub to_detect: Option<Times>,
    pub to_verdict: Option<Times>,
    pub to_close: Option<Times>,
}

/// What was said against what was, of the decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Confusion {
    pub true_positives: usize,
    pub false_positives: usize,
    pub true_negatives: usize,
    pub false_negatives: usize,
}

impl Report {
    pub fn new(title: impl Into<String>, made_at: Timestamp, judged: &[Judged], by: Option<By>) -> Self {
        let blind = judged.iter().any(|one| one.is_blind);
        Self {
            title: title.into(),
            made_at,
            all: Measures::of(judged),
            blind: blind.then(|| Measures::of(judged.iter().filter(|one| one.is_blind))),
            by,
            groups: by.map(|by| groups(judged, by)).unwrap_or_default(),
            analysts: Vec::new(),
            bursts: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Who closes how much, and the unusual hours, for the terminal.
    pub fn analysts_table(&self) -> String {
        super::table::analysts(self)
    }

    /// The report as text that ends with a line break.
    pub fn render(&self, format: Format) -> String {
        match format {
            Format::Table => super::table::render(self),
            Format::Json => {
                let text = serde_json::to_string_pretty(self).expect("its keys are strings");
                format!("{text}\n")
            }
            Format::Csv => super::csv::render(self),
            Format::Prometheus => super::prometheus::render(self),
            Format::Html => super::html::render(self),
        }
    }
}

fn groups(judged: &[Judged], by: By) -> Vec<Group> {
    let mut members: HashMap<_, Vec<_>> = HashMap::new();
    for one in judged {
        members.entry(by.of(one)).or_default().push(one);
    }
    let mut groups: Vec<_> = members
        .into_iter()
        .map(|(name, members)| Group { name: name.to_string(), measures: Measures::of(members) })
        .collect();
    groups.sort_by(|a, b| b.measures.alerts.cmp(&a.measures.alerts).then_with(|| a.name.cmp(&b.name)));
    groups
}

impl Measures {
    pub fn of<'a>(judged: impl IntoIterator<Item = &'a Judged>) -> Self {
        let (mut alerts, mut labelled, mut threats) = (0, 0, 0);
        let mut confusion = Confusion::default();
        let mut probabilities = Vec::new();
        let [mut to_detect, mut to_verdict, mut to_close] = [const { Vec::new() }; 3];
        for one in judged {
            alerts += 1;
            to_detect.extend(one.seconds_to_detect);
            to_verdict.extend(one.seconds_to_verdict);
            to_close.extend(one.seconds_to_close);
            let Some(label) = one.label else { continue };
            labelled += 1;
            threats += usize::from(label);
            if let Some(said) = one.said {
                confusion.count(said, label);
            }
            let probability = one.probability.filter(|probability| (0.0..=1.0).contains(probability));
            probabilities.extend(probability.map(|probability| (probability, label)));
        }
        let Confusion { true_positives, false_positives, true_negatives, false_negatives } = confusion;
        Self {
            alerts,
            labelled,
            base_rate: proportion(threats, labelled),
            coverage: proportion(confusion.total(), labelled),
            confusion,
            precision: proportion(true_positives, true_positives + false_positives),
            recall: proportion(true_positives, true_positives + false_negatives),
            f1: interval::f1(true_positives, false_negatives, false_positives),
            false_positive_rate: proportion(false_positives, false_positives + true_negatives),
            at_recall_95: calibration::at_recall(&probabilities, 0.95),
            calibration: calibration::calibration(&probabilities),
            to_detect: Times::of(to_detect.into_iter()),
            to_verdict: Times::of(to_verdict.into_iter()),
            to_close: Times::of(to_close.into_iter()),
        }
    }

    /// The proportions, each with its name in snake case, in the order of a report.
    pub(super) fn proportions(&self) -> [(&'static str, Option<Estimate>); 7] {
        [
            ("base_rate", self.base_rate),
            ("coverage", self.coverage),
            ("precision", self.precision),
            ("recall", self.recall),
            ("f1", self.f1),
            ("false_positive_rate", self.false_positive_rate),
            ("false_positive_rate_at_recall_95", self.at_recall_95.map(|at| at.false_positive_rate)),
        ]
    }

    /// Numbers without an interval.
    pub(super) fn errors(&self) -> [(&'static str, Option<f64>); 2] {
        let of = |number: fn(&Calibration) -> f64| self.calibration.as_ref().map(number);
        [("ece", of(|calibration| calibration.ece)), ("brier", of(|calibration| calibration.brier))]
    }

    pub(super) fn times(&self) -> [(&'static str, Option<Times>); 3] {
        [
            ("seconds_to_detect", self.to_detect),
            ("seconds_to_verdict", self.to_verdict),
            ("seconds_to_close", self.to_close),
        ]
    }
}

impl Confusion {
    fn count(&mut self, said: bool, label: bool) {
        *match (said, label) {
            (true, true) => &mut self.true_positives,
            (true, false) => &mut self.false_positives,
            (false, false) => &mut self.true_negatives,
            (false, true) => &mut self.false_negatives,
        } += 1;
    }

    pub fn total(&self) -> usize {
        self.cells().into_iter().map(|(_, count)| count).sum()
    }

    pub(super) fn cells(&self) -> [(&'static str, usize); 4] {
        [
            ("true_positives", self.true_positives),
            ("false_positives", self.false_positives),
            ("true_negatives", self.true_negatives),
            ("false_negatives", self.false_negatives),
        ]
    }
}

/// A group without a name is told as this.
pub(super) const NAMELESS: &str = "(none)";

#[cfg(test)]
mod tests {
    use super::super::calibration::tests::two_hundred;
    use super::super::testing;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_those_of_scikit_learn() {
        let judged: Vec<_> = two_hundred()
            .into_iter()
            .map(|(probability, label)| Judged {
                probability: Some(probability),
                said: Some(probability >= 0.5),
                label: Some(label),
                ..Judged::default()
            })
            .collect();
        let found = Measures::of(&judged);
        // scikit-learn 1.9.1: confusion_matrix, precision_score, recall_score, f1_score; intervals of statsmodels 0.15.0.
        assert_eq!(found.confusion.cells().map(|(_, count)| count), [77, 23, 55, 45]);
        for (estimate, value, low, high) in [
            (found.precision, 0.77, 0.6784561697712621, 0.8415673411969655),
            (found.recall, 0.6311475409836066, 0.5427490151750971, 0.7115392003294241),
            (found.f1, 0.6936936936936937, 0.6207451973915749, 0.7580791858194034),
            (found.false_positive_rate, 0.2948717948717949, 0.205242184664986, 0.40375794239642715),
            (found.base_rate, 0.61, 0.5409374595716976, 0.6749165686253038),
        ] {
            let Estimate { value: is, low: from, high: to, .. } = estimate.unwrap();
            for (is, expected) in [(is, value), (from, low), (to, high)] {
                assert!((is - expected).abs() < 1e-9, "{is} {expected}");
            }
        }
        assert_eq!(found.coverage.unwrap().value, 1.0);
    }

    #[test]
    fn what_the_judge_left_open_lowers_coverage_and_nothing_else() {
        let judged = |said, label| Judged { said, label, ..Judged::default() };
        let decided = [judged(Some(true), Some(true)), judged(Some(false), Some(false))];
        let open = [judged(None, Some(true)), judged(None, Some(false))];
        let found = Measures::of(decided.iter().chain(&open));
        assert_eq!((found.precision.unwrap().value, found.recall.unwrap().value), (1.0, 1.0));
        assert_eq!((found.coverage.unwrap().value, found.base_rate.unwrap().of), (0.5, 4));
    }

    #[test]
    fn groups_and_blind_ones_are_measured_alone_and_what_has_no_label_only_counts() {
        let report = testing::report();
        let names: Vec<_> = report.groups.iter().map(|group| (&*group.name, group.measures.alerts)).collect();
        assert_eq!(
            names,
            [("<b>\"ssh\"</b>\u{1b}[2J", 67), ("web", 67), ("=cmd|' /C calc'!A0", 66), ("silent", 1)]
        );
        assert_eq!(report.blind.unwrap().alerts, 20);
        let silent = &report.groups[3].measures;
        assert_eq!((silent.labelled, silent.f1, silent.base_rate), (0, None, None));
        assert_eq!((report.all.alerts, report.all.labelled), (201, 200));
    }

    #[test]
    fn an_impossible_probability_is_none() {
        let judged = [f64::NAN, -0.1, 1.1, f64::INFINITY].map(|probability| Judged {
            probability: Some(probability),
            label: Some(true),
            ..Judged::default()
        });
        assert_eq!(Measures::of(&judged).calibration, None);
    }

    proptest! {
        #[test]
        fn whatever_was_judged_no_rendering_says_nan(
            all in prop::collection::vec((prop::option::of(-0.5f64..1.5), prop::option::of(any::<bool>()), prop::option::of(any::<bool>()), prop::option::of(-1e9f64..1e9), "\\PC{0,5}"), 0..30)
        ) {
            let judged: Vec<_> = all.into_iter().map(|(probability, said, label, seconds, name)| Judged {
                probability, said, label, seconds_to_close: seconds, rule: name.into(), ..Judged::default()
            }).collect();
            let mut report = Report::new("t", Timestamp::UNIX_EPOCH, &judged, Some(By::Rule));
            for (index, group) in report.groups.iter_mut().enumerate() {
                group.name = index.to_string();
            }
            for format in [Format::Table, Format::Json, Format::Csv, Format::Prometheus, Format::Html] {
                let text = report.render(format);
                prop_assert!(!text.contains("NaN") && !text.contains("inf,"), "{}", text);
                // Without groups Prometheus has nothing to say by them.
                prop_assert!(text.is_empty() || text.ends_with('\n'));
            }
        }
    }
}
