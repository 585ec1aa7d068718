//! The judge: a probability that an alert is a threat, from what is known of it ([`features`]) and from what this site's
//! analysts decided before ([`learn`]). It is a small linear model on purpose: it learns from few closings, in
//! milliseconds, says why, and never leaves the site.
//!
//! Before anything is learned it is the formula of [`score`](super::score), and says `uncalibrated`.

pub mod features;
mod fit;
pub mod labelled;
pub mod learn;
pub mod unsure;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

pub use features::Features;
use features::{AROUND, FEATURES, NUMBERS, OPERATORS, place};
use fit::Sparse;

/// What was learned. Its numbers are single floats, which JSON gives back as they were: a judge that was kept says the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    /// `prior`, or a hash of what was learned.
    pub version: String,
    /// How many closings it learned from: threats and benign ones.
    pub learned: (usize, usize),
    /// [`FEATURES`] of the watchpost that learned it.
    #[serde(default)]
    features: u32,
    /// Words with their place among the features and their weight by rarity.
    words: BTreeMap<String, (u32, f32)>,
    /// The same for [`Features::text`].
    text: BTreeMap<String, f32>,
    numbers: Vec<Scale>,
    /// The columns that closed alerts of a rule had, by the word of the rule.
    #[serde(default)]
    columns: BTreeMap<String, BTreeSet<String>>,
    /// It was learned without [`guarded`](learn::Parts::guarded), to compare with.
    #[serde(default)]
    is_unguarded: bool,
    /// Of words, then numbers, then the intercept.
    weights: Vec<f32>,
    /// Slope and intercept that make probabilities of log-odds (Platt).
    calibration: Option<(f32, f32)>,
}

/// Mean and deviation of a number among what was learned from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Scale(f32, f32);

/// What the judge says of one alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The judge's version.
    pub judge: String,
    /// That it is a threat, 0-1, in steps of 0.0001.
    pub probability: f64,
    /// Whether the probability was held against this site's closings.
    pub calibrated: bool,
    pub disposition: Disposition,
    /// How much more probable the text of the rows made it, 0-1; it can make nothing less probable.
    pub text_gap: f64,
    /// What counted most, at most [`MAX_WHY`].
    pub why: Vec<Reason>,
}

/// What the judge makes of the probability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    TruePositive,
    FalsePositive,
    /// Between the two, see [`UNDECIDED`], or not calibrated.
    Undecided,
    /// The evidence is not there. Never taken for benign.
    NotEvaluable,
}

/// A feature, and how many log-odds it moved towards a threat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    pub feature: String,
    pub weight: f64,
}

impl Judge {
    /// The version of the one that has learned nothing.
    pub const PRIOR: &str = "prior";

    /// Has learned nothing.
    pub fn prior() -> Self {
        Self {
            version: Self::PRIOR.to_owned(),
            learned: (0, 0),
            features: FEATURES,
            words: BTreeMap::new(),
            text: BTreeMap::new(),
            numbers: Vec::new(),
            columns: BTreeMap::new(),
            is_unguarded: false,
            weights: vec![0.0],
            calibration: None,
        }
    }

    /// Whether its probabilities were held against closings that it had not seen.
    pub fn is_calibrated(&self) -> bool {
        self.calibration.is_some()
    }

    /// Whether it learned from what is known of an alert now. Another one's weights would stand for something else.
    pub fn is_current(&self) -> bool {
        self.features == FEATURES
    }

    pub fn judge(&self, features: &Features) -> Judgement {
        let sparse = self.sparse(features);
        let plain = self.odds(features, &sparse);
        let with = plain + self.text_odds(features);
        let (without, probability) = (self.calibrated(plain), self.calibrated(with));
        Judgement {
            judge: self.version.clone(),
            probability,
            calibrated: self.is_calibrated(),
            disposition: Disposition::of(probability, self.is_calibrated(), features.is_empty),
            text_gap: rounded(probability - without),
            why: self.why(features, &sparse),
        }
    }

    /// [`Judgement::probability`] alone.
    pub fn probability(&self, features: &Features) -> f64 {
        self.calibrated(self.odds(features, &self.sparse(features)) + self.text_odds(features))
    }

    /// Without the text.
    fn odds(&self, features: &Features, sparse: &Sparse) -> f64 {
        let of = |place: usize| self.weights.get(place).copied().map_or(0.0, f64::from);
        let start = f64::from(features.prior) + self.weights.last().copied().map_or(0.0, f64::from);
        sparse.iter().fold(start, |sum, (place, amount)| sum + of(*place as usize) * f64::from(*amount))
    }

    /// Of the text.
    fn text_odds(&self, features: &Features) -> f64 {
        self.text_weights(features).map(|(_, weight)| weight).sum::<f64>().min(MAX_TEXT_ODDS)
    }

    /// The probability.
    fn calibrated(&self, odds: f64) -> f64 {
        let (slope, intercept) = self.calibration.unwrap_or((1.0, 0.0));
        let odds = f64::from(slope) * odds + f64::from(intercept);
        rounded(fit::probability(odds.clamp(-fit::MOST_ODDS, fit::MOST_ODDS)))
    }

    /// Whether it has a weight for a word of a clean cell.
    pub fn knows(&self, word: &str) -> bool {
        self.words.contains_key(word)
    }

    /// The same for a text.
    pub fn knows_text(&self, word: &str) -> bool {
        self.text.contains_key(word)
    }

    /// What counts, of which an attacker has two ways to add: a cell in a column that no closed alert of the rule had counts
    /// for a threat only, and of cells that differ in a column the one that speaks most for a threat. (What fires around has
    /// no weight against one.) Nothing that he adds takes weight from what was there.
    fn sparse(&self, features: &Features) -> Sparse {
        let mut sparse = self.lesson(features);
        if self.is_unguarded {
            return sparse;
        }
        let weight =
            |(at, amount): &(u32, f32)| self.weights.get(*at as usize).copied().unwrap_or_default() * amount;
        let length = self.length(features);
        let amount = |word: &String| self.words.get(word).map(|(at, rarity)| (*at, rarity / length));
        let expected = features.rule_word().and_then(|rule| self.columns.get(rule));
        let is_new = |word: &str| {
            let column = place(word);
            !OPERATORS.contains(&column)
                && !AROUND.contains(&column)
                && !expected.is_some_and(|columns| columns.contains(column))
        };
        let new: BTreeSet<u32> =
            features.words.iter().filter(|word| is_new(word)).filter_map(&amount).map(|(at, _)| at).collect();
        let mixed: BTreeSet<u32> =
            features.mixed.iter().flatten().filter_map(&amount).map(|(at, _)| at).collect();
        sparse.retain(|term| !mixed.contains(&term.0) && (!new.contains(&term.0) || weight(term) >= 0.0));
        for words in &features.mixed {
            let is_new = words.first().is_none_or(|word| is_new(word));
            let known =
                words.iter().filter_map(&amount).max_by(|one, other| weight(one).total_cmp(&weight(other)));
            let all_known = words.iter().all(|word| self.words.contains_key(word));
            sparse.extend(known.filter(|term| weight(term) > 0.0 || (all_known && !is_new)));
        }
        sparse
    }

    /// Of the words of the operator, which nobody else moves, so that no other word makes one weigh less.
    fn length(&self, features: &Features) -> f32 {
        let own = features.words.iter().filter(|word| OPERATORS.contains(&place(word)));
        let squares = own.filter_map(|word| self.words.get(word)).map(|(_, rarity)| rarity * rarity);
        squares.sum::<f32>().sqrt().max(LEAST_LENGTH)
    }

    /// As it is learned: words by their rarity, those of a column that differ by their share; numbers by their
    /// deviation from the mean.
    fn lesson(&self, features: &Features) -> Sparse {
        let length = self.length(features);
        let known = |word: &String, share: f32| {
            self.words.get(word).map(|(at, rarity)| (*at, share * rarity / length))
        };
        let mut sparse: Sparse = features.words.iter().filter_map(|word| known(word, 1.0)).collect();
        for words in &features.mixed {
            sparse.extend(words.iter().filter_map(|word| known(word, 1.0 / words.len() as f32)));
        }
        let of = |(value, scale): (&f32, &Scale)| {
            NUMBERS_SHARE * ((value - scale.0) / scale.1).clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS)
        };
        let amounts = features.numbers.iter().zip(&self.numbers).map(of);
        let first = self.words.len() as u32;
        sparse.extend((first..).zip(amounts).filter(|(_, amount)| amount.is_finite()));
        sparse
    }

    fn text_weights<'a>(&self, features: &'a Features) -> impl Iterator<Item = (&'a str, f64)> {
        features.text.iter().filter_map(|word| Some((word.as_str(), f64::from(*self.text.get(word)?))))
    }

    fn why(&self, features: &Features, sparse: &Sparse) -> Vec<Reason> {
        let words = self.words.iter().map(|(word, (at, _))| (*at, word.as_str()));
        let numbers = (self.words.len() as u32..).zip(NUMBERS);
        let names: HashMap<u32, &str> = words.chain(numbers).collect();
        let mut why = vec![Reason {
            feature: "the rule's level and the notes (formula)".to_owned(),
            weight: f64::from(features.prior),
        }];
        why.extend(sparse.iter().filter_map(|(at, amount)| {
            let weight = f64::from(*self.weights.get(*at as usize)?) * f64::from(*amount);
            Some(Reason { feature: (*names.get(at)?).to_owned(), weight })
        }));
        let text = self.text_weights(features);
        why.extend(text.map(|(word, weight)| Reason { feature: format!("text: {word}"), weight }));
        why.retain(|reason| reason.weight.abs() >= LEAST_WEIGHT);
        why.sort_by(|one, other| other.weight.abs().total_cmp(&one.weight.abs()));
        why.truncate(MAX_WHY);
        why.iter_mut().for_each(|reason| reason.weight = rounded(reason.weight));
        why
    }
}

impl Disposition {
    /// Who was not held against this site's closings decides nothing.
    fn of(probability: f64, is_calibrated: bool, is_empty: bool) -> Self {
        match probability {
            _ if is_empty => Self::NotEvaluable,
            _ if !is_calibrated => Self::Undecided,
            p if p >= UNDECIDED.1 => Self::TruePositive,
            p if p < UNDECIDED.0 => Self::FalsePositive,
            _ => Self::Undecided,
        }
    }

    /// What counts when it is measured.
    pub fn is_threat(self) -> Option<bool> {
        match self {
            Self::TruePositive => Some(true),
            Self::FalsePositive => Some(false),
            Self::Undecided | Self::NotEvaluable => None,
        }
    }
}

/// To four decimals, which are more than it is good for and the same wherever they are read.
fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

/// Probabilities from the first on and below the second are not decided.
pub const UNDECIDED: (f64, f64) = (0.35, 0.65);
pub const MAX_WHY: usize = 8;
/// Log-odds.
const LEAST_WEIGHT: f64 = 0.05;
/// The most that text may add, in log-odds.
const MAX_TEXT_ODDS: f64 = 4.0;
/// Of the operator's words, where hardly any is known.
const LEAST_LENGTH: f32 = 4.0;
const NUMBERS_SHARE: f32 = 0.2;
const MOST_DEVIATIONS: f32 = 4.0;

#[cfg(test)]
mod tests;
