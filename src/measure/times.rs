//! How long something took, over many alerts.

use serde::Serialize;

/// Seconds: the mean, and percentiles by nearest rank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Times {
    pub alerts: usize,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Times {
    /// `None` of none. What is no time (negative after a clock jumped, not finite) is left out.
    pub fn of(seconds: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<_> = seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0).collect();
        sorted.sort_by(f64::total_cmp);
        let alerts = sorted.len();
        let rank = |percent: usize| sorted.get((alerts * percent).div_ceil(100).max(1) - 1).copied();
        let mean = sorted.iter().sum::<f64>() / alerts as f64;
        Some(Self { alerts, mean, p50: rank(50)?, p90: rank(90)?, p95: rank(95)?, p99: rank(99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let times = Times::of((1..=1_000).rev().map(f64::from)).unwrap();
        assert_eq!(
            (times.mean, times.p50, times.p90, times.p95, times.p99),
            (500.5, 500.0, 900.0, 950.0, 990.0)
        );
        let one = Times::of([2.0].into_iter()).unwrap();
        assert_eq!((one.alerts, one.mean, one.p50, one.p99), (1, 2.0, 2.0, 2.0));
    }

    #[test]
    fn what_is_no_time_is_left_out() {
        assert_eq!(Times::of([-1.0, f64::NAN, f64::INFINITY].into_iter()), None);
        assert_eq!(Times::of([-1.0, 3.0].into_iter()).unwrap().alerts, 1);
    }
}
