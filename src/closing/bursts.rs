//! Where one analyst closes far more than usual, and who contradicts whom: a taken-over account or a wrong script
//! that closes hundreds of alerts would teach the judge its own view. It is shown, weighs less, and can be undone
//! (`watchpost close --undo-by`); nothing here refuses a closing.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::Label;
use crate::clock::Timestamp;
use crate::text::escape_within;

/// A closing that was not undone, with what the judge had said.
#[derive(Clone, Debug)]
pub struct Seen {
    pub alert: Arc<str>,
    pub analyst: Arc<str>,
    pub at: Timestamp,
    pub label: Label,
    /// Whether the judge called it a threat; `None` where it did not decide.
    pub judge: Option<bool>,
}

/// An hour or more in which one analyst closed far more alerts than analysts do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Burst {
    pub analyst: String,
    pub from: Timestamp,
    pub to: Timestamp,
    pub closings: usize,
    /// Closings of one hour that would not have been unusual.
    pub usual: usize,
    pub against: Against,
    /// What each closing in it counts for when the judge learns, 0-1.
    pub weight: f64,
    /// Their places in what [`bursts`] was given.
    #[serde(skip)]
    members: Vec<usize>,
}

/// One analyst's closings, and how they go with those of others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Analyst {
    pub analyst: String,
    pub closings: usize,
    /// The median of the hours of the day in which anything was closed.
    pub an_hour: usize,
    pub against: Against,
    pub bursts: usize,
}

/// How many closings say the contrary (threat or no threat) of what others said about the same alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Against {
    /// Of `others_of` alerts that other analysts closed too.
    pub others: usize,
    pub others_of: usize,
    /// Of `judge_of` alerts that the judge decided.
    pub judge: usize,
    pub judge_of: usize,
}

impl Burst {
    /// For people, on one line, with what to do about it. The name is escaped.
    pub fn words(&self) -> String {
        let Self { analyst, from, to, closings, usual, against, weight, .. } = self;
        let analyst = escape_within(analyst, 60);
        let contrary = match against.others_of {
            0 => String::new(),
            compared => format!(", others contradict {} of {compared}", against.others),
        };
        let at = |at: &Timestamp| at.strftime("%FT%TZ").to_string();
        format!(
            "`{analyst}` made {closings} closings from {} to {} where {usual} an hour are usual{contrary}; each counts {weight:.2} \
             for learning. Were they wrong: `watchpost close --undo-by '{analyst}' --since {}`",
            at(from),
            at(to),
            at(from)
        )
    }
}

/// The bursts in `closings`, the earliest first.
///
/// A closing belongs to one where its analyst made more closings within an hour than `usual`: four times the median
/// of that analyst's hours with closings, and at least 30. An analyst with fewer than five such hours is measured by the
/// hours of all; where all have fewer than five there is no habit yet, and no burst.
pub fn bursts(closings: &[Seen]) -> Vec<Burst> {
    let everyones = habit(closings.iter());
    let labels = Labels::new(closings);
    let mut found = Vec::new();
    for (analyst, places) in by_analyst(closings) {
        let Some(habit) = habit(places.iter().map(|place| &closings[*place])).or(everyones) else { continue };
        let usual = (USUAL_TIMES * habit).max(USUAL_AT_LEAST);
        for members in crowded(closings, &places, usual) {
            let at = |place: &usize| closings[*place].at;
            let (from, to) = (at(&members[0]), at(&members[members.len() - 1]));
            let against = labels.against(members.iter().map(|place| &closings[*place]));
            let weight = weight(members.len(), usual, to.as_second() - from.as_second(), against);
            let (analyst, closings) = (analyst.to_string(), members.len());
            found.push(Burst { analyst, from, to, closings, usual, against, weight, members });
        }
    }
    found.sort_by(|a, b| (a.from, &a.analyst).cmp(&(b.from, &b.analyst)));
    found
}

/// What each of `closings` counts for when the judge learns: 1, and within one of their `bursts` its weight.
pub fn weights(closings: &[Seen], bursts: &[Burst]) -> Vec<f64> {
    let mut weights = vec![1.0; closings.len()];
    for burst in bursts {
        for place in &burst.members {
            weights[*place] = burst.weight;
        }
    }
    weights
}

/// Everyone who closed alerts, the busiest first.
pub fn analysts(closings: &[Seen], bursts: &[Burst]) -> Vec<Analyst> {
    let labels = Labels::new(closings);
    let mut all: Vec<_> = by_analyst(closings)
        .into_iter()
        .map(|(analyst, places)| {
            let own = || places.iter().map(|place| &closings[*place]);
            Analyst {
                analyst: analyst.to_string(),
                closings: places.len(),
                an_hour: median(hours(own())),
                against: labels.against(own()),
                bursts: bursts.iter().filter(|burst| burst.analyst == **analyst).count(),
            }
        })
        .collect();
    all.sort_by(|a, b| b.closings.cmp(&a.closings).then_with(|| a.analyst.cmp(&b.analyst)));
    all
}

/// A burst as a whole counts as much as its hours at their usual most would, and less by the share of it that other
/// analysts contradict. That the judge is contradicted takes nothing away: it may be what is to be corrected.
fn weight(closings: usize, usual: usize, seconds: i64, against: Against) -> f64 {
    let hours = seconds / HOUR_S + 1;
    let crowd = usual as f64 * hours as f64 / closings as f64;
    let contrary = match against.others_of {
        0 => 0.0,
        compared => against.others as f64 / compared as f64,
    };
    crowd.min(1.0) * (1.0 - contrary)
}

/// Runs of closings, in the order of time, that lie in an hour with more than `usual`.
fn crowded(closings: &[Seen], places: &[usize], usual: usize) -> Vec<Vec<usize>> {
    let second = |index: usize| closings[places[index]].at.as_second();
    let mut runs: Vec<std::ops::RangeInclusive<usize>> = Vec::new();
    let mut first = 0;
    for last in 0..places.len() {
        while second(last) - second(first) >= HOUR_S {
            first += 1;
        }
        if last - first < usual {
            continue;
        }
        match runs.last_mut() {
            Some(run) if *run.end() >= first => *run = *run.start()..=last,
            _ => runs.push(first..=last),
        }
    }
    runs.into_iter().map(|run| places[run].to_vec()).collect()
}

/// Each analyst's places in `closings`, in the order of time.
fn by_analyst(closings: &[Seen]) -> HashMap<&Arc<str>, Vec<usize>> {
    let mut by_analyst: HashMap<_, Vec<usize>> = HashMap::new();
    for (place, closing) in closings.iter().enumerate() {
        by_analyst.entry(&closing.analyst).or_default().push(place);
    }
    for places in by_analyst.values_mut() {
        places.sort_by_key(|place| closings[*place].at);
    }
    by_analyst
}

/// The median count of an analyst's hour; `None` of too few hours.
fn habit<'a>(closings: impl Iterator<Item = &'a Seen>) -> Option<usize> {
    let hours = hours(closings);
    (hours.len() >= MIN_HOURS).then(|| median(hours))
}

/// Closings in each hour of the clock that has any, of each analyst.
fn hours<'a>(closings: impl Iterator<Item = &'a Seen>) -> Vec<usize> {
    let mut hours: HashMap<_, usize> = HashMap::new();
    for closing in closings {
        *hours.entry((&closing.analyst, closing.at.as_second().div_euclid(HOUR_S))).or_default() += 1;
    }
    hours.into_values().collect()
}

/// The upper one of two middles; 0 of none.
fn median(mut counts: Vec<usize>) -> usize {
    counts.sort_unstable();
    counts.get(counts.len() / 2).copied().unwrap_or_default()
}

/// Who said what about each alert.
struct Labels<'a>(HashMap<&'a str, Vec<(&'a Arc<str>, bool)>>);

impl<'a> Labels<'a> {
    fn new(closings: &'a [Seen]) -> Self {
        let mut labels: HashMap<_, Vec<_>> = HashMap::new();
        for closing in closings {
            if let Some(is_threat) = closing.label.is_threat() {
                labels.entry(&*closing.alert).or_default().push((&closing.analyst, is_threat));
            }
        }
        Self(labels)
    }

    fn against<'b>(&self, closings: impl Iterator<Item = &'b Seen>) -> Against {
        let mut against = Against::default();
        for closing in closings {
            let Some(is_threat) = closing.label.is_threat() else { continue };
            let said = self.0.get(&*closing.alert).map_or(&[][..], Vec::as_slice);
            let mut others = said.iter().filter(|(analyst, _)| **analyst != closing.analyst).peekable();
            against.others_of += usize::from(others.peek().is_some());
            against.others += usize::from(others.any(|(_, other)| *other != is_threat));
            if let Some(judge) = closing.judge {
                against.judge_of += 1;
                against.judge += usize::from(judge != is_threat);
            }
        }
        against
    }
}

const HOUR_S: i64 = 3_600;
/// Hours with closings that make a habit.
const MIN_HOURS: usize = 5;
const USUAL_TIMES: usize = 4;
/// A quick analyst closes one alert in two minutes.
const USUAL_AT_LEAST: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `count` closings of one analyst, evenly within the hour `hour`, of alerts `first`...
    fn hour(analyst: &str, hour: i64, count: usize, first: usize, label: Label) -> Vec<Seen> {
        let closing = |index: usize| Seen {
            alert: (first + index).to_string().into(),
            analyst: analyst.into(),
            at: Timestamp::from_second(hour * HOUR_S + index as i64 * HOUR_S / count as i64).unwrap(),
            label,
            judge: Some(true),
        };
        (0..count).map(closing).collect()
    }

    /// Ten hours of a day's work, ten alerts an hour.
    fn days_work(analyst: &str, first: usize) -> Vec<Seen> {
        (0..10).flat_map(|at| hour(analyst, at, 10, first + at as usize * 10, Label::TruePositive)).collect()
    }

    #[test]
    fn an_hour_far_above_the_habit_is_a_burst_and_weighs_as_a_usual_one() {
        let mut closings = days_work("ann", 0);
        closings.extend(hour("ann", 50, 400, 1_000, Label::FalsePositive));
        let bursts = bursts(&closings);
        assert_eq!(bursts.len(), 1);
        assert_eq!((bursts[0].closings, bursts[0].usual), (400, 40));
        assert_eq!(bursts[0].against, Against { others: 0, others_of: 0, judge: 400, judge_of: 400 });
        let weights = weights(&closings, &bursts);
        assert!(weights[..100].iter().all(|weight| *weight == 1.0));
        assert!((weights[100..].iter().sum::<f64>() - 40.0).abs() < 1e-9, "as a busy usual hour");
    }

    #[test]
    fn a_burst_that_others_contradict_counts_for_nothing() {
        let mut closings = days_work("ann", 0);
        closings.extend(days_work("eve", 500));
        closings.extend(hour("eve", 50, 100, 0, Label::FalsePositive));
        let bursts = bursts(&closings);
        assert_eq!((bursts[0].against.others, bursts[0].against.others_of), (100, 100));
        assert_eq!(bursts[0].weight, 0.0);
        let weights = weights(&closings, &bursts);
        assert!(
            weights[..200].iter().all(|weight| *weight == 1.0),
            "those who were there before keep theirs"
        );
        let of_eve = analysts(&closings, &bursts).into_iter().find(|one| one.analyst == "eve").unwrap();
        assert_eq!((of_eve.closings, of_eve.an_hour, of_eve.bursts), (200, 10, 1));
    }

    #[test]
    fn a_new_name_is_measured_by_the_habit_of_all() {
        let mut closings = days_work("ann", 0);
        closings.extend(hour("new", 50, 200, 1_000, Label::FalsePositive));
        assert_eq!(bursts(&closings)[0].analyst, "new");
    }

    #[test]
    fn the_first_labels_of_a_site_are_no_burst() {
        assert_eq!(bursts(&hour("ann", 0, 400, 0, Label::TruePositive)), []);
        assert_eq!(bursts(&[]), []);
    }

    #[test]
    fn a_burst_across_the_full_hour_is_one() {
        let mut closings = days_work("ann", 0);
        closings.extend(hour("ann", 50, 100, 1_000, Label::FalsePositive));
        closings.extend(hour("ann", 51, 100, 1_100, Label::FalsePositive));
        let bursts = bursts(&closings);
        assert_eq!(bursts.iter().map(|burst| burst.closings).collect::<Vec<_>>(), [200]);
        assert!((bursts[0].weight - 80.0 / 200.0).abs() < 1e-9, "two hours at 40");
    }

    proptest! {
        #[test]
        fn weights_lie_between_nothing_and_one(times in prop::collection::vec((0i64..500_000, 0usize..3, 0usize..5, 0usize..40), 0..300)) {
            let closings: Vec<_> = times.into_iter().map(|(at, analyst, label, alert)| Seen {
                alert: alert.to_string().into(),
                analyst: ["ann", "bob", "eve"][analyst].into(),
                at: Timestamp::from_second(at).unwrap(),
                label: Label::ALL[label],
                judge: None,
            }).collect();
            let bursts = bursts(&closings);
            let weights = weights(&closings, &bursts);
            prop_assert_eq!(weights.len(), closings.len());
            prop_assert!(weights.iter().all(|weight| (0.0..=1.0).contains(weight)));
            let busy: usize = analysts(&closings, &bursts).iter().map(|one| one.closings).sum();
            prop_assert_eq!(busy, closings.len());
        }
    }
}
