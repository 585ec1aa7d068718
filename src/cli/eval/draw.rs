//! Which alerts of a file are learned from, where fewer are wanted than there are.

use crate::triage::judge::learn::{Lesson, Parts, learn};
use crate::triage::judge::unsure::least_sure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Draw {
    /// Evenly over the file.
    Evenly,
    /// First 25 evenly, then in rounds of 25 those of which the judge of the rounds before is least sure, as
    /// `watchpost alerts --unsure` lists them.
    Unsure,
}

impl Draw {
    /// As in a title.
    pub fn words(self, count: Option<usize>) -> String {
        match (count, self) {
            (None, _) => String::new(),
            (Some(count), Self::Evenly) => format!(", from {count} labels drawn evenly"),
            (Some(count), Self::Unsure) => format!(", from {count} labels of which the judge was least sure"),
        }
    }

    /// `count` of them, in their order. [`Draw::Unsure`] looks at no label but of those that it has chosen.
    pub fn from<'a>(self, lessons: &[&'a Lesson], count: Option<usize>, parts: Parts) -> Vec<&'a Lesson> {
        let count = count.unwrap_or(lessons.len()).min(lessons.len());
        let chosen = match self {
            Self::Evenly => evenly(lessons.len(), count),
            Self::Unsure => least_sure_of(lessons, count, parts),
        };
        chosen.into_iter().map(|place| lessons[place]).collect()
    }
}

fn evenly(len: usize, count: usize) -> Vec<usize> {
    (0..count).map(|n| n * len / count).collect()
}

fn least_sure_of(lessons: &[&Lesson], count: usize, parts: Parts) -> Vec<usize> {
    let mut chosen = evenly(lessons.len(), count.min(ROUND));
    while chosen.len() < count {
        let known: Vec<&Lesson> = chosen.iter().map(|place| lessons[*place]).collect();
        let judge = learn(&known, parts);
        let open: Vec<usize> =
            (0..lessons.len()).filter(|place| chosen.binary_search(place).is_err()).collect();
        let candidates = open.iter().map(|place| {
            let features = &lessons[*place].features;
            (judge.probability(features), features.rule_word().unwrap_or_default())
        });
        let next = least_sure(candidates, ROUND.min(count - chosen.len()));
        chosen.extend(next.into_iter().map(|place| open[place]));
        chosen.sort_unstable();
    }
    chosen
}

const ROUND: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::triage::judge::Features;

    #[test]
    fn as_many_are_drawn_as_asked_for_each_once_and_in_their_order() {
        let lessons: Vec<Lesson> = (0..130)
            .map(|n| Lesson {
                features: Features { words: [format!("rule: {}", n % 4)].into(), ..Features::default() },
                is_threat: n % 3 == 0,
                weight: 1.0,
            })
            .collect();
        let all: Vec<&Lesson> = lessons.iter().collect();
        for draw in [Draw::Evenly, Draw::Unsure] {
            for count in [0, 1, 25, 26, 60, 130, 1_000] {
                let drawn = draw.from(&all, Some(count), Parts::ALL);
                assert_eq!(drawn.len(), count.min(130), "{draw:?}");
                let places: Vec<_> =
                    drawn.iter().map(|one| all.iter().position(|other| std::ptr::eq(*one, *other))).collect();
                assert!(places.is_sorted_by(|one, other| one < other), "{draw:?} {places:?}");
            }
        }
    }
}
