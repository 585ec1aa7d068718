//! Which windows are due: pure arithmetic, so that the law "no second is passed over" can be tested.

use std::time::Duration;

use crate::clock::Window;

/// What is to be searched, and what is given up.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Older than `max_catch_up`: recorded, never silence.
    pub gap: Option<Window>,
    /// Oldest first, without a gap between them; each of the detector's interval, the last one of what is left.
    pub pieces: Pieces,
}

/// Windows one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Pieces {
    origin_s: i64,
    next_s: i64,
    end_s: i64,
    interval: Duration,
    cut: u32,
}

/// Cuts `[cursor_s, end_s)`, in Unix seconds, into windows of `interval`.
///
/// After an outage the backlog is searched in the pieces that would have been searched without it, so that a
/// rule which counts per interval counts the same. Borders are whole seconds, also for `1.5m`.
pub fn plan(cursor_s: i64, end_s: i64, interval: Duration, max_catch_up: Duration) -> Plan {
    let reach_s = i64::try_from(max_catch_up.max(interval).as_secs_f64().ceil() as u64).unwrap_or(i64::MAX);
    let from_s = cursor_s.max(end_s.saturating_sub(reach_s));
    Plan {
        gap: Window::from_seconds(cursor_s, from_s.min(end_s)),
        pieces: Pieces { origin_s: from_s, next_s: from_s, end_s, interval, cut: 0 },
    }
}

impl Iterator for Pieces {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        while self.next_s < self.end_s {
            self.cut += 1;
            let offset = self.interval.as_secs_f64() * f64::from(self.cut);
            let border = self.origin_s.saturating_add(offset as i64).min(self.end_s);
            if let Some(window) = Window::from_seconds(self.next_s, border) {
                self.next_s = border;
                return Some(window);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(cursor: i64, end: i64, interval_s: f64, catch_up_s: u64) -> (Option<String>, Vec<(i64, i64)>) {
        let plan = plan(cursor, end, Duration::from_secs_f64(interval_s), Duration::from_secs(catch_up_s));
        let pair = |window: Window| (window.start.as_second(), window.end.as_second());
        (plan.gap.map(|gap| format!("{:?}", pair(gap))), plan.pieces.map(pair).collect())
    }

    #[test]
    fn an_outage_is_searched_in_pieces_oldest_first() {
        assert_eq!(pieces(0, 35, 10.0, 3600), (None, vec![(0, 10), (10, 20), (20, 30), (30, 35)]));
    }

    #[test]
    fn what_is_older_than_the_catch_up_is_a_gap() {
        assert_eq!(pieces(0, 100, 10.0, 20), (Some("(0, 80)".into()), vec![(80, 90), (90, 100)]));
    }

    #[test]
    fn a_catch_up_shorter_than_the_interval_still_searches_one_interval() {
        assert_eq!(pieces(0, 20, 20.0, 5), (None, vec![(0, 20)]));
    }

    #[test]
    fn a_decimal_interval_has_borders_on_whole_seconds() {
        assert_eq!(pieces(0, 6, 1.5, 60), (None, vec![(0, 1), (1, 3), (3, 4), (4, 6)]));
    }

    #[test]
    fn nothing_is_due_before_a_second_has_passed() {
        assert_eq!(pieces(10, 10, 5.0, 60), (None, vec![]));
        assert_eq!(pieces(10, 7, 5.0, 60), (None, vec![]));
    }

    proptest! {
        #[test]
        fn gap_and_pieces_together_cover_every_second_once(
            cursor in 0i64..2_000, length in 0i64..2_000, tenths in 10u32..900, catch_up in 0u64..2_000
        ) {
            let interval = Duration::from_millis(u64::from(tenths) * 100);
            let plan = plan(cursor, cursor + length, interval, Duration::from_secs(catch_up));
            let mut at = cursor;
            for window in plan.gap.into_iter().chain(plan.pieces) {
                prop_assert_eq!(window.start.as_second(), at);
                prop_assert!(window.end > window.start);
                at = window.end.as_second();
            }
            prop_assert_eq!(at, cursor + length);
        }

        #[test]
        fn no_piece_is_longer_than_the_interval_rounded_up(length in 0i64..5_000, tenths in 10u32..900) {
            let interval = Duration::from_millis(u64::from(tenths) * 100);
            for window in plan(0, length, interval, Duration::from_secs(10_000)).pieces {
                prop_assert!(window.length().as_secs_f64() <= interval.as_secs_f64().ceil());
            }
        }
    }
}
