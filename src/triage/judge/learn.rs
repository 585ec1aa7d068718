//! From closings to a [`Judge`].
//!
//! 1. Words and numbers are weighed by logistic regression, which starts from the formula's odds: with few
//!    closings it stays near them. What an attacker moves before the alert is weighed on its side of 0 only.
//! 2. Text of the rows is weighed after that, on what the first left to explain, and only what speaks for a threat is kept: an
//!    attacker can write what he likes and lowers nothing.
//! 3. Probabilities are calibrated (Platt) on odds that each example was given by a judge that had not seen it.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::features::{self, AROUND, Features, LOWERABLE, NUMBERS, OPERATORS, RAISABLE};
use super::fit::{self, Side, Sparse};
use super::{Judge, Scale};

/// A closed alert.
#[derive(Clone, Debug)]
pub struct Lesson {
    pub features: Features,
    pub is_threat: bool,
    /// 0-1; less than 1 where the closing is in doubt.
    pub weight: f64,
}

/// Which of what is known is used; all, but where the worth of each part is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub words: bool,
    pub text: bool,
    pub numbers: bool,
    /// What an attacker can move counts for a threat only; without it the judge is what an attack is compared with.
    pub guarded: bool,
}

impl Parts {
    pub const ALL: Self = Self { words: true, text: true, numbers: true, guarded: true };
}

/// Learns from `lessons`, of which the last [`MAX_LESSONS`] count, in their order. [`Judge::prior`] where there are not yet
/// both a threat and a benign one. Deterministic.
pub fn learn(lessons: &[&Lesson], parts: Parts) -> Judge {
    let lessons = &lessons[lessons.len().saturating_sub(MAX_LESSONS)..];
    let threats = lessons.iter().filter(|lesson| lesson.is_threat).count();
    if threats == 0 || threats == lessons.len() {
        return Judge::prior();
    }
    let mut judge = weigh(lessons, parts, &Judge::prior());
    judge.learned = (threats, lessons.len() - threats);
    if threats.min(lessons.len() - threats) >= FOLDS {
        judge.calibration = Some(calibrate(lessons, parts, &judge));
    }
    judge.version = version(&judge);
    judge
}

/// The search for weights begins at those of `near`.
fn weigh(lessons: &[&Lesson], parts: Parts, near: &Judge) -> Judge {
    let mut judge = Judge::prior();
    if parts.words {
        judge.words = vocabulary(lessons);
    }
    if parts.numbers {
        judge.numbers = scales(lessons);
    }
    judge.is_unguarded = !parts.guarded;
    judge.columns = columns(lessons);
    let sparse: Vec<Sparse> = lessons.iter().map(|lesson| judge.lesson(&lesson.features)).collect();
    judge.weights = weights(lessons, &sparse, &judge.sides(parts), judge.start(near));
    let sparse: Vec<Sparse> = lessons.iter().map(|lesson| judge.sparse(&lesson.features)).collect();
    if parts.text {
        judge.text = weigh_text(&judge, lessons, &sparse, parts.guarded, near);
    }
    judge
}

fn weights(lessons: &[&Lesson], sparse: &[Sparse], sides: &[Side], start: Vec<f64>) -> Vec<f32> {
    let examples: Vec<_> = lessons
        .iter()
        .zip(sparse)
        .map(|(lesson, features)| fit::Example {
            features,
            offset: f64::from(lesson.features.prior),
            is_threat: lesson.is_threat,
            weight: lesson.weight,
        })
        .collect();
    single(&fit::fit(&examples, sides, DECAY, start))
}

impl Judge {
    /// The weights of `near`, where they stand here; 0 for what it does not know.
    fn start(&self, near: &Judge) -> Vec<f64> {
        let of = |at: usize| near.weights.get(at).copied().map_or(0.0, f64::from);
        let mut start = vec![0.0; self.words.len()];
        for (word, (at, _)) in &self.words {
            start[*at as usize] = near.words.get(word).map_or(0.0, |(at, _)| of(*at as usize));
        }
        // One that weighs no numbers has no place for them, and its last weight is the intercept.
        let number = |at| if at < near.numbers.len() { of(near.words.len() + at) } else { 0.0 };
        start.extend((0..self.numbers.len()).map(number));
        start.push(near.weights.last().copied().map_or(0.0, f64::from));
        start
    }

    /// What an attacker moves by what he does before the alert, or by more rows, may not count against a threat.
    fn sides(&self, parts: Parts) -> Vec<Side> {
        let mut sides = vec![Side::Any; self.words.len() + self.numbers.len()];
        if !parts.guarded {
            return sides;
        }
        let around = self.words.iter().filter(|(word, _)| AROUND.contains(&features::place(word)));
        around.for_each(|(_, (at, _))| sides[*at as usize] = Side::NotBelow);
        if parts.numbers {
            let numbers = &mut sides[self.words.len()..];
            RAISABLE.into_iter().for_each(|number| numbers[number] = Side::NotBelow);
            numbers[LOWERABLE] = Side::NotAbove;
        }
        sides
    }
}

/// The places of the words of each rule's alerts.
fn columns(lessons: &[&Lesson]) -> BTreeMap<String, BTreeSet<String>> {
    let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for lesson in lessons {
        let Some(rule) = lesson.features.rule_word() else { continue };
        let known = columns.entry(rule.to_owned()).or_default();
        for word in lesson.features.words.iter().chain(lesson.features.mixed.iter().flatten()) {
            let column = features::place(word);
            if !known.contains(column) && !OPERATORS.contains(&column) && !AROUND.contains(&column) {
                known.insert(column.to_owned());
            }
        }
    }
    columns
}

/// Words that were in at least two threats, with the weight that is left for them to explain; positive ones only.
fn weigh_text(
    judge: &Judge,
    lessons: &[&Lesson],
    sparse: &[Sparse],
    is_guarded: bool,
    near: &Judge,
) -> BTreeMap<String, f32> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let told = lessons.iter().filter(|lesson| lesson.is_threat || !is_guarded);
    for word in told.flat_map(|lesson| &lesson.features.text) {
        *counts.entry(word).or_default() += 1;
    }
    counts.retain(|_, count| *count >= 2);
    let places: BTreeMap<&str, u32> = counts.into_keys().zip(0..).collect();
    let rows: Vec<Sparse> = lessons
        .iter()
        .map(|lesson| {
            let known = lesson.features.text.iter().filter_map(|word| places.get(word.as_str()));
            known.map(|place| (*place, 1.0)).collect()
        })
        .collect();
    let examples: Vec<_> = lessons
        .iter()
        .zip(sparse)
        .zip(&rows)
        .map(|((lesson, sparse), row)| fit::Example {
            features: row,
            offset: judge.odds(&lesson.features, sparse),
            is_threat: lesson.is_threat,
            weight: lesson.weight,
        })
        .collect();
    let side = if is_guarded { Side::NotBelow } else { Side::Any };
    let known = |word: &&str| near.text.get(*word).copied().map_or(0.0, f64::from);
    let start = places.keys().map(known).chain([0.0]).collect();
    let weights = fit::fit(&examples, &vec![side; places.len()], TEXT_DECAY, start);
    let found = places.into_keys().zip(weights).filter(|(_, weight)| *weight > LEAST_TEXT || !is_guarded);
    found.map(|(word, weight)| (word.to_owned(), weight as f32)).collect()
}

/// Slope and intercept, drawn to 1 and 0. `judge` learned from all lessons: those that have not seen some of them are near it.
fn calibrate(lessons: &[&Lesson], parts: Parts, judge: &Judge) -> (f32, f32) {
    let mut odds: Vec<(Sparse, f64)> = Vec::new();
    let mut order: Vec<usize> = Vec::new();
    for fold in 0..FOLDS {
        // By threats and benign ones in turn, so that every fold has both.
        let (mut threats, mut benign) = (0, 0);
        let held: Vec<bool> = lessons
            .iter()
            .map(|lesson| {
                let count = if lesson.is_threat { &mut threats } else { &mut benign };
                *count += 1;
                *count % FOLDS == fold
            })
            .collect();
        let seen: Vec<&Lesson> =
            lessons.iter().zip(&held).filter(|(_, held)| !**held).map(|(lesson, _)| *lesson).collect();
        let judge = weigh(&seen, parts, judge);
        for (index, lesson) in lessons.iter().enumerate().filter(|(index, _)| held[*index]) {
            let sparse = judge.sparse(&lesson.features);
            let given = judge.odds(&lesson.features, &sparse) + judge.text_odds(&lesson.features);
            odds.push((vec![(0, (given / ODDS_SCALE) as f32)], given));
            order.push(index);
        }
    }
    let examples: Vec<_> = odds
        .iter()
        .zip(&order)
        .map(|((feature, given), index)| fit::Example {
            features: feature,
            offset: *given,
            is_threat: lessons[*index].is_threat,
            weight: lessons[*index].weight,
        })
        .collect();
    let found = fit::fit(&examples, &[Side::Any], CALIBRATION_DECAY, vec![0.0; 2]);
    ((1.0 + found[0] / ODDS_SCALE).max(0.1) as f32, found[1] as f32)
}

/// Places, and `1 + ln((1 + lessons) / (1 + lessons with it))`: what is rare counts more.
fn vocabulary(lessons: &[&Lesson]) -> BTreeMap<String, (u32, f32)> {
    let all: BTreeSet<&str> =
        lessons.iter().flat_map(|lesson| words(&lesson.features)).map(String::as_str).collect();
    let mut counts: BTreeMap<&str, u32> = all.into_iter().map(|word| (word, 0)).collect();
    for word in lessons.iter().flat_map(|lesson| words(&lesson.features)) {
        if let Some(count) = counts.get_mut(word.as_str()) {
            *count += 1;
        }
    }
    let lessons = 1.0 + lessons.len() as f32;
    let rarity = |count: u32| 1.0 + (lessons / (1.0 + count as f32)).ln();
    counts
        .into_iter()
        .zip(0..)
        .map(|((word, count), place)| (word.to_owned(), (place, rarity(count))))
        .collect()
}

fn words(features: &Features) -> impl Iterator<Item = &String> {
    features.words.iter().chain(features.mixed.iter().flatten())
}

fn scales(lessons: &[&Lesson]) -> Vec<Scale> {
    (0..NUMBERS.len())
        .map(|place| {
            let values = || lessons.iter().filter_map(|lesson| lesson.features.numbers.get(place));
            let count = values().count().max(1) as f32;
            let mean = values().sum::<f32>() / count;
            let variance = values().map(|value| (value - mean).powi(2)).sum::<f32>() / count;
            Scale(mean, variance.sqrt().max(1e-4))
        })
        .collect()
}

fn single(weights: &[f64]) -> Vec<f32> {
    weights.iter().map(|weight| *weight as f32).collect()
}

/// 12 hexadecimal digits of what was learned.
fn version(judge: &Judge) -> String {
    let text = serde_json::to_vec(judge).unwrap_or_default();
    Sha256::digest(text)[..6].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub const MAX_LESSONS: usize = 4_000;
const FOLDS: usize = 5;
/// Chosen on four networks of the AIT alert data, each judged by what was learned on the others.
const DECAY: f64 = 0.1;
const TEXT_DECAY: f64 = 0.5;
const LEAST_TEXT: f64 = 0.02;
const CALIBRATION_DECAY: f64 = 1.0;
/// Odds are small numbers for the optimizer.
const ODDS_SCALE: f64 = 4.0;
