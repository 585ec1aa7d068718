//! Logistic regression with what the site's few labels need: a starting point that weights are drawn to, a weight for
//! each example, sparse features, and weights that stay on their side of 0. The optimizer is argmin's L-BFGS.

use argmin::core::{CostFunction, Error, Executor, Gradient, State as _};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;

/// Features that are not 0: their numbers, and how much of each.
pub type Sparse = Vec<(u32, f32)>;

/// One example.
pub struct Example<'a> {
    pub features: &'a [(u32, f32)],
    /// Log-odds that were there before anything was learned.
    pub offset: f64,
    pub is_threat: bool,
    /// 0-1; how much it counts.
    pub weight: f64,
}

/// On which side of 0 a weight may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Any,
    NotBelow,
    NotAbove,
}

impl Side {
    fn forbids(self, weight: f64) -> bool {
        match self {
            Self::Any => false,
            Self::NotBelow => weight < 0.0,
            Self::NotAbove => weight > 0.0,
        }
    }
}

/// A weight for each of `sides`, with the intercept as the last: `[sides + 1]`. Minimises the weighted logistic loss plus
/// `decay`/2 times the squared weights; the intercept is drawn to 0 by a tenth of that. Deterministic. The search
/// begins at `start`, of the same shape, which changes what it costs and hardly what it finds (the loss is convex).
///
/// Weights that come out on the wrong side are held at 0 and the others found again; one that is held is let go
/// where a step to its own side would better the fit. Where neither is left to do this is the best within `sides`.
/// After [`MAX_ROUNDS`] what is still on the wrong side is 0.
///
/// Without examples all are 0. A line search that finds nothing better ends the search, with the best weights so far.
pub fn fit(examples: &[Example<'_>], sides: &[Side], decay: f64, start: Vec<f64>) -> Vec<f64> {
    debug_assert_eq!(start.len(), sides.len() + 1);
    if examples.is_empty() {
        return vec![0.0; start.len()];
    }
    let mut weights = start;
    // None is yet: at 0, this asks where each would go.
    let mut held = vec![false; weights.len()];
    let mut next = Problem { examples, decay, held: &held }.to_hold(sides, &mut weights);
    for _ in 0..MAX_ROUNDS {
        held = next;
        let problem = Problem { examples, decay, held: &held };
        weights = problem.solve(weights);
        next = problem.to_hold(sides, &mut weights);
        if next == held {
            break;
        }
    }
    weights
}

#[derive(Clone, Copy)]
struct Problem<'a> {
    examples: &'a [Example<'a>],
    decay: f64,
    /// Weights that stay as they are.
    held: &'a [bool],
}

impl Problem<'_> {
    /// Which weights to hold from here on, each of them set to 0: those on the wrong side, and those at 0 that the slope
    /// drives there.
    fn to_hold(self, sides: &[Side], weights: &mut [f64]) -> Vec<bool> {
        let slope = self.slope(weights);
        let mut to_hold = vec![false; weights.len()];
        for (at, side) in sides.iter().enumerate() {
            to_hold[at] = match weights[at] == 0.0 {
                true => *side != Side::Any && (slope[at].abs() <= LEAST_SLOPE || side.forbids(-slope[at])),
                false => side.forbids(weights[at]),
            };
            if to_hold[at] {
                weights[at] = 0.0;
            }
        }
        to_hold
    }

    fn solve(self, start: Vec<f64>) -> Vec<f64> {
        let linesearch = MoreThuenteLineSearch::new();
        let found = LBFGS::new(linesearch, MEMORY)
            .with_tolerance_grad(1e-4)
            .and_then(|solver| solver.with_tolerance_cost(1e-7))
            .and_then(|solver| {
                Executor::new(self, solver)
                    .configure(|state| state.param(start.clone()).max_iters(MAX_STEPS))
                    .ctrlc(false)
                    .run()
            });
        match found {
            Ok(found) => found.state().get_best_param().cloned().unwrap_or(start),
            Err(error) => {
                tracing::debug!(%error, "the judge's weights could not be found");
                start
            }
        }
    }

    /// The gradient, of held weights too.
    fn slope(self, weights: &[f64]) -> Vec<f64> {
        let last = weights.len() - 1;
        let mut slope: Vec<f64> =
            weights.iter().enumerate().map(|(index, weight)| self.decay_of(index, last) * weight).collect();
        for example in self.examples {
            let probability = probability(example.offset + dot(weights, example.features));
            let wrong = example.weight * (probability - f64::from(u8::from(example.is_threat)));
            for (index, amount) in example.features {
                slope[*index as usize] += wrong * f64::from(*amount);
            }
            slope[last] += wrong;
        }
        slope
    }

    fn decay_of(self, index: usize, last: usize) -> f64 {
        if index == last { self.decay / 10.0 } else { self.decay }
    }
}

impl CostFunction for Problem<'_> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, weights: &Vec<f64>) -> Result<f64, Error> {
        let last = weights.len() - 1;
        let loss: f64 = self
            .examples
            .iter()
            .map(|example| {
                let odds = example.offset + dot(weights, example.features);
                let against = if example.is_threat { -odds } else { odds };
                // ln(1 + e^x), without overflow.
                example.weight * (against.max(0.0) + (-against.abs()).exp().ln_1p())
            })
            .sum();
        let size: f64 = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| self.decay_of(index, last) * weight * weight)
            .sum();
        Ok(loss + size / 2.0)
    }
}

impl Gradient for Problem<'_> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, weights: &Vec<f64>) -> Result<Vec<f64>, Error> {
        let slope = self.slope(weights).into_iter().zip(self.held);
        Ok(slope.map(|(slope, is_held)| if *is_held { 0.0 } else { slope }).collect())
    }
}

/// With the intercept, which is the last of `weights`.
pub fn dot(weights: &[f64], features: &[(u32, f32)]) -> f64 {
    let intercept = weights.last().copied().unwrap_or_default();
    features.iter().fold(intercept, |sum, (index, amount)| {
        sum + weights.get(*index as usize).copied().unwrap_or_default() * f64::from(*amount)
    })
}

/// Of log-odds.
pub fn probability(odds: f64) -> f64 {
    1.0 / (1.0 + (-odds).exp())
}

/// Log-odds of a probability; at most [`MOST_ODDS`] either way.
pub fn odds(probability: f64) -> f64 {
    (probability / (1.0 - probability)).ln().clamp(-MOST_ODDS, MOST_ODDS)
}

pub const MOST_ODDS: f64 = 12.0;
const MEMORY: usize = 7;
const MAX_STEPS: u64 = 150;
const MAX_ROUNDS: usize = 8;
const LEAST_SLOPE: f64 = 1e-3;

#[cfg(test)]
mod tests {
    use super::*;

    /// scikit-learn 1.9.1: `LogisticRegression(C=2.0, fit_intercept=False).fit(X, y, sample_weight=[1, 1, .5, 1])`
    /// with X = [[1, 0], [0.5, 1], [0, 1], [1, 1]] beside a column of 1/√0.1 for an intercept that decays by a tenth.
    #[test]
    fn weights_are_those_of_scikit_learn() {
        let features: [Sparse; 4] =
            [vec![(0, 1.0)], vec![(0, 0.5), (1, 1.0)], vec![(1, 1.0)], vec![(0, 1.0), (1, 1.0)]];
        let labels = [true, false, false, true];
        let weights = [1.0, 1.0, 0.5, 1.0];
        let examples: Vec<_> = (0..4)
            .map(|n| Example {
                features: &features[n],
                offset: 0.0,
                is_threat: labels[n],
                weight: weights[n],
            })
            .collect();
        let found = fit(&examples, &[Side::Any; 2], 0.5, vec![0.0; 3]);
        for (found, expected) in found.iter().zip([0.876_865, -0.552_643, 0.068_784]) {
            assert!((found - expected).abs() < 2e-3, "{found} {expected}");
        }
    }

    #[test]
    fn nothing_learned_leaves_the_offset_alone() {
        let found = fit(&[], &[Side::Any; 3], 0.01, vec![1.0; 4]);
        assert_eq!(found, [0.0; 4]);
        assert!((probability(odds(0.3) + dot(&found, &[(1, 5.0)])) - 0.3).abs() < 1e-12);
    }

    #[test]
    fn an_offset_that_is_right_leaves_little_to_learn() {
        let features: Sparse = vec![(0, 1.0)];
        let of = |offset| {
            let examples = [Example { features: &features, offset, is_threat: true, weight: 1.0 }];
            fit(&examples, &[Side::Any], 0.1, vec![0.0; 2])[0]
        };
        assert!(of(6.0) < 0.1 * of(0.0));
    }

    /// The first word is only in threats and the second in benign ones; the third goes with the first, so that alone it says the
    /// opposite.
    #[test]
    fn weights_stay_on_their_side_and_the_others_are_the_best_with_them() {
        let features: [Sparse; 4] =
            [vec![(0, 1.0)], vec![(1, 1.0)], vec![(0, 1.0), (2, 1.0)], vec![(1, 1.0), (2, 1.0)]];
        let from = |start: [f64; 4], labels: [bool; 4], sides: [Side; 3]| {
            let examples: Vec<_> = (0..4)
                .map(|n| Example { features: &features[n], offset: 0.0, is_threat: labels[n], weight: 1.0 })
                .collect();
            fit(&examples, &sides, 0.1, start.to_vec())
        };
        let of = |labels, sides| from([0.0; 4], labels, sides);
        let free = of([true, false, true, false], [Side::Any; 3]);
        assert!(free[0] > 1.0 && free[1] < -1.0);
        let bound = of([true, false, true, false], [Side::Any, Side::NotBelow, Side::NotAbove]);
        assert!(bound[0] > free[0] && bound[1] == 0.0 && bound[2] <= 0.0, "{bound:?}");
        // What is within its side anyway is found as without.
        let same = of([true, false, true, false], [Side::NotBelow, Side::NotAbove, Side::Any]);
        let are_near =
            |one: &[f64], other: &[f64]| one.iter().zip(other).all(|(one, other)| (one - other).abs() < 1e-3);
        assert!(are_near(&free, &same), "{free:?} {same:?}");
        // Where the search begins, also on the wrong sides, is not seen in what it finds.
        let sides = [Side::Any, Side::NotBelow, Side::NotAbove];
        for start in [bound.clone().try_into().unwrap(), [-3.0, -3.0, 3.0, 1.0], [2.0, 2.0, -2.0, 0.0]] {
            let found = from(start, [true, false, true, false], sides);
            assert!(are_near(&found, &bound), "{start:?}: {found:?} {bound:?}");
        }
    }
}
