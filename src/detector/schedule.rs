//! When a detector is due.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::search::Search;
use crate::clock::{Clock, Timestamp};

/// Searches all rules of one detector at once at `first` and then every `interval`, until `shutdown`.
///
/// Ticks lie on a grid from the first one, so that a late tick does not shift those after it. Every rule runs
/// in a task of its own: none waits for another, and none is started while its last tick still runs.
pub async fn run(
    searches: Vec<Arc<Search>>,
    interval: Duration,
    first: Timestamp,
    clock: Clock,
    tracker: TaskTracker,
    shutdown: CancellationToken,
) {
    let mut due = first;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = clock.sleep_until(due) => {}
        }
        for search in &searches {
            tracker.spawn(Arc::clone(search).tick(due, shutdown.clone()));
        }
        due = next_due(due, interval, clock.now());
    }
}

/// The next place on the grid after `now`; also where the wall clock was set back, so that a detector never
/// sleeps until a time that has become far away.
fn next_due(due: Timestamp, interval: Duration, now: Timestamp) -> Timestamp {
    let interval_ms = interval.as_millis().max(1) as i64;
    let passed_ms = now.as_millisecond() - due.as_millisecond();
    if passed_ms < -interval_ms {
        return now;
    }
    let steps = passed_ms.max(0) / interval_ms + 1;
    due.checked_add(Duration::from_millis((steps * interval_ms) as u64)).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    #[test]
    fn ticks_stay_on_their_grid() {
        let interval = Duration::from_secs(10);
        assert_eq!(next_due(at(0), interval, at(3)), at(10_000));
        assert_eq!(next_due(at(10_000), interval, at(19_999)), at(20_000));
    }

    #[test]
    fn ticks_missed_in_suspend_are_one_tick() {
        assert_eq!(next_due(at(0), Duration::from_secs(10), at(3_600_001)), at(3_610_000));
    }

    #[test]
    fn a_clock_set_back_does_not_stop_the_schedule() {
        let hour_back = at(0);
        assert_eq!(next_due(at(3_600_000), Duration::from_secs(10), hour_back), hour_back);
    }
}
