//! How fast triage was.

use rusqlite::Connection;
use serde::Serialize;

use crate::telemetry::METRICS;

/// The middle and the slow end of what was measured for the last [`LAST`] alerts with a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Pace {
    /// How many alerts it rests on.
    pub alerts: usize,
    /// Seconds; by nearest rank, `None` of none.
    pub p50: Option<f64>,
    pub p95: Option<f64>,
}

/// A pace for each of [`METRICS`], which are columns of the table too, in their order.
pub fn paces(connection: &Connection) -> rusqlite::Result<Vec<(&'static str, Pace)>> {
    let mut measured: Vec<Vec<f64>> = vec![Vec::new(); METRICS.len()];
    let columns = METRICS.join(", ");
    let mut select = connection.prepare(&format!(
        "SELECT {columns} FROM alerts WHERE seconds_to_verdict IS NOT NULL ORDER BY created_at DESC LIMIT {LAST}"
    ))?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        for (index, seconds) in measured.iter_mut().enumerate() {
            seconds.extend(row.get::<_, Option<f64>>(index)?);
        }
    }
    Ok(METRICS.into_iter().zip(measured.into_iter().map(Pace::of)).collect())
}

impl Pace {
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let rank = |percent: usize| seconds.get((seconds.len() * percent).div_ceil(100).max(1) - 1).copied();
        Self { alerts: seconds.len(), p50: rank(50), p95: rank(95) }
    }
}

/// In a site's day or so; older ones say nothing of today.
const LAST: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paces_are_nearest_ranks() {
        assert_eq!(Pace::of(Vec::new()), Pace::default());
        assert_eq!(Pace::of(vec![2.0]), Pace { alerts: 1, p50: Some(2.0), p95: Some(2.0) });
        let pace = Pace::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((pace.p50, pace.p95), (Some(50.0), Some(95.0)));
    }
}
