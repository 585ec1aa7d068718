//! Proportions with what is not known about them.

use serde::Serialize;

/// A measured value and its 95 % confidence interval, all 0-1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    /// How many alerts it rests on.
    pub of: usize,
}

/// `part` of `of`, with Wilson's score interval (Wilson 1927, without continuity correction); `None` of nothing.
///
/// It never leaves 0-1 and is never without width, also at 0 of n and n of n.
pub fn proportion(part: usize, of: usize) -> Option<Estimate> {
    if of == 0 {
        return None;
    }
    let (n, share) = (of as f64, part as f64 / of as f64);
    let z2 = Z_95 * Z_95;
    let middle = (share + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z_95 / (1.0 + z2 / n) * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    // At the ends the interval ends there, and rounding must not say otherwise.
    let low = if part == 0 { 0.0 } else { (middle - half).clamp(0.0, share) };
    let high = if part == of { 1.0 } else { (middle + half).clamp(share, 1.0) };
    Some(Estimate { value: share, low, high, of })
}

/// F1 of so many hits, misses and false alarms; `None` of none of them.
///
/// F1 = 2 J / (1 + J), where J is the share of hits among all three, a proportion. Its Wilson interval goes through the
/// same formula ("Wilson indirect" in Lam, Gopal and Qian, arXiv 2309.14621).
pub fn f1(hits: usize, misses: usize, false_alarms: usize) -> Option<Estimate> {
    let of_hits = proportion(hits, hits + misses + false_alarms)?;
    let f1 = |share: f64| 2.0 * share / (1.0 + share);
    Some(Estimate { value: f1(of_hits.value), low: f1(of_hits.low), high: f1(of_hits.high), of: of_hits.of })
}

/// The least that a share can be of which `part` of `of` were seen: exact and one-sided at 95 % (Clopper and Pearson 1934). 59 of
/// 59 prove 0.95 and 58 of 58 do not. Wilson's interval is two-sided and would ask for 73.
pub fn at_least(part: usize, of: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if proves(part, of, middle) { low = middle } else { high = middle }
    }
    low
}

/// Whether `part` of `of` prove at 95 % that the share is `least` or more: of a smaller share so many are seen less than
/// once in 20 times.
pub fn proves(part: usize, of: usize, least: f64) -> bool {
    tail(part, of, least) <= 0.05
}

/// How likely `part` or more of `of` are, each with the probability `share`: the upper tail of the binomial distribution.
pub fn tail(part: usize, of: usize, share: f64) -> f64 {
    if part == 0 || share >= 1.0 {
        return 1.0;
    }
    if part > of || share <= 0.0 {
        return 0.0;
    }
    let odds = share / (1.0 - share);
    let (n, k) = (of as f64, part as f64);
    // Away from the middle each term is smaller than the one before, so that the sum soon ends.
    if k > n * share {
        probability(part, of, share) * sum(|step| (n - k - step) / (k + step + 1.0) * odds)
    } else {
        let below = probability(part - 1, of, share);
        1.0 - below * sum(|step| (k - 1.0 - step) / ((n - k + 1.0 + step + 1.0) * odds))
    }
    .clamp(0.0, 1.0)
}

/// Of exactly `part` of `of`.
fn probability(part: usize, of: usize, share: f64) -> f64 {
    let few = part.min(of - part);
    let ways: f64 = (0..few).map(|i| ((of - i) as f64 / (few - i) as f64).ln()).sum();
    (ways + part as f64 * share.ln() + (of - part) as f64 * (-share).ln_1p()).exp()
}

/// 1 and the products of the first, the first two, ... `ratios`, all below 1.
fn sum(ratio: impl Fn(f64) -> f64) -> f64 {
    let (mut total, mut term, mut step) = (1.0, 1.0, 0.0);
    while term > f64::EPSILON * total {
        term *= ratio(step);
        total += term;
        step += 1.0;
    }
    total
}

/// Of the standard normal distribution, 97.5 %.
const Z_95: f64 = 1.959_963_984_540_054;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assert_near(estimate: Option<Estimate>, low: f64, high: f64) {
        let estimate = estimate.unwrap();
        assert!((estimate.low - low).abs() < 1e-9 && (estimate.high - high).abs() < 1e-9, "{estimate:?}");
    }

    #[test]
    fn intervals_are_those_of_statsmodels() {
        // statsmodels 0.15.0: proportion_confint(part, of, method="wilson")
        for (part, of, low, high) in [
            (0, 10, 0.0, 0.27753279986288926),
            (10, 10, 0.7224672001371106, 1.0),
            (8, 10, 0.49016247153664183, 0.9433178485456247),
            (47, 50, 0.8378290831116182, 0.979385029651026),
            (885, 2438, 0.34414402825959556, 0.3822919376844771),
            (59, 59, 0.9388706294732116, 1.0),
            (1, 1, 0.2065493143772374, 1.0),
            (0, 1, 0.0, 0.7934506856227627),
        ] {
            assert_near(proportion(part, of), low, high);
        }
        // The same with 77 of 145, put through 2 J / (1 + J).
        assert_near(f1(77, 45, 23), 0.6207451973915749, 0.7580791858194034);
    }

    #[test]
    fn exact_bounds_are_those_of_the_binomial_distribution() {
        // 1 - 0.95^n, and sums of binomial terms by hand.
        for (part, of, share, tail_is) in [
            (59, 59, 0.95, 0.95f64.powi(59)),
            (1, 20, 0.05, 1.0 - 0.95f64.powi(20)),
            (2, 3, 0.5, 0.5),
            (3, 4, 0.2, 4.0 * 0.008 * 0.8 + 0.0016),
            (1, 4, 0.9, 1.0 - 0.1f64.powi(4)),
            (0, 7, 0.3, 1.0),
            (8, 7, 0.3, 0.0),
        ] {
            assert!((tail(part, of, share) - tail_is).abs() < 1e-12, "{part} of {of} at {share}");
        }
        assert!(proves(59, 59, 0.95) && !proves(58, 58, 0.95));
        assert!((at_least(59, 59) - 0.05f64.powf(1.0 / 59.0)).abs() < 1e-9);
        assert_eq!(at_least(0, 9), 0.0);
    }

    #[test]
    fn of_nothing_there_is_no_number() {
        assert_eq!((proportion(0, 0), f1(0, 0, 0)), (None, None));
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_estimate_within_0_and_1(hits in 0usize..100_000, misses in 0usize..100_000, alarms in 0usize..100_000) {
            for estimate in [proportion(hits, hits + misses), f1(hits, misses, alarms)].into_iter().flatten() {
                prop_assert!(0.0 <= estimate.low && estimate.low <= estimate.value);
                prop_assert!(estimate.value <= estimate.high && estimate.high <= 1.0);
                prop_assert!(estimate.low < estimate.high);
            }
        }

        #[test]
        fn the_tails_of_both_sides_are_everything(of in 1usize..3_000, part in 0.0..1.0f64, share in 0.001..0.999f64) {
            let part = (part * of as f64) as usize;
            let both = tail(part, of, share) + tail(of - part + 1, of, 1.0 - share);
            prop_assert!((both - 1.0).abs() < 1e-9, "{both}");
            prop_assert!(tail(part + 1, of, share) <= tail(part, of, share) + 1e-12);
        }

        #[test]
        fn more_alerts_make_it_narrower(part in 1usize..1_000, rest in 1usize..1_000) {
            let width = |times: usize| {
                let estimate = proportion(part * times, (part + rest) * times).unwrap();
                estimate.high - estimate.low
            };
            prop_assert!(width(10) < width(1));
        }
    }
}
