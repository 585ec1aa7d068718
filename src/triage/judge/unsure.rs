//! Which alerts teach the judge most: those of which it is least sure (uncertainty sampling), of different rules.
//!
//! Whoever closes these learns the judge with fewer closings than by closing what comes first. They are not a sample: a measure
//! of the judge on them alone is worse than the judge.

use std::collections::HashMap;

/// The places of at most `count` of `candidates`, which are probabilities with the alert's rule: least sure first, at most
/// [`OF_A_RULE`] of a rule, since alerts of one rule teach much the same. Of those equally sure the earlier ones.
pub fn least_sure<'a>(candidates: impl IntoIterator<Item = (f64, &'a str)>, count: usize) -> Vec<usize> {
    let mut all: Vec<(usize, f64, &str)> = candidates
        .into_iter()
        .enumerate()
        .map(|(place, (probability, rule))| (place, (probability - 0.5).abs(), rule))
        .collect();
    all.sort_by(|(_, one, _), (_, other, _)| one.total_cmp(other));
    let mut taken: HashMap<&str, usize> = HashMap::new();
    all.retain(|(_, _, rule)| {
        let of_rule = taken.entry(rule).or_default();
        *of_rule += 1;
        *of_rule <= OF_A_RULE
    });
    all.into_iter().take(count).map(|(place, ..)| place).collect()
}

const OF_A_RULE: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_sure_comes_first_and_no_rule_takes_all() {
        let candidates = [
            (0.9, "a"),
            (0.5, "b"),
            (0.49, "b"),
            (0.52, "b"),
            (0.3, "a"),
            (0.1, "c"),
            (0.9, "c"),
            (0.0, "a"),
        ];
        assert_eq!(least_sure(candidates, 9), [1, 2, 4, 0, 5, 6]);
        assert_eq!(least_sure(candidates, 3), [1, 2, 4]);
        assert!(least_sure([], 3).is_empty());
    }
}
