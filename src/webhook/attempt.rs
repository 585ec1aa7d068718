//! One attempt to deliver: what an answer means, and when the next attempt is.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;
use rand::Rng;

use crate::clock::Timestamp;

/// What an answer means for the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    Delivered,
    /// The receiver cannot now; the same message may be taken later. `after` is what the answer's body asks for, where
    /// the destination says it there and not in `Retry-After`.
    Later {
        after: Option<Duration>,
    },
    /// The receiver will not; the same message will be refused again.
    Refused,
}

impl Meaning {
    /// 2xx is delivered; 408 (time-out), 425 (too early), 429 (too many) and 5xx are for later; all others are
    /// refusals, redirects among them, since following one would post the alert to a place nobody configured.
    pub fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            408 | 425 | 429 | 500..=599 => Self::Later { after: None },
            _ => Self::Refused,
        }
    }
}

/// How long to wait after failed attempt number `attempt` (from 1), or `None` where the message is given up:
/// after [`GIVE_UP_AFTER`] since `first`, and not before [`MIN_ATTEMPTS`], so that hours in which Watchpost itself
/// was down do not count as tried.
///
/// What the receiver asked for (`retry_after`) is done within its bounds; else the wait is random between
/// [`MIN_WAIT`] and a ceiling that doubles up to `max_wait`, so that many messages do not come back at once.
pub(super) fn wait(
    attempt: u32,
    first: Timestamp,
    now: Timestamp,
    retry_after: Option<Duration>,
    max_wait: Duration,
    random: &mut impl Rng,
) -> Option<Duration> {
    let tried = Duration::try_from(now.duration_since(first)).unwrap_or_default();
    if tried >= GIVE_UP_AFTER && attempt >= MIN_ATTEMPTS {
        return None;
    }
    if let Some(asked) = retry_after {
        return Some(asked.clamp(MIN_ASKED, MAX_ASKED));
    }
    let doublings = attempt.min(20);
    let ceiling = MIN_WAIT.saturating_mul(1 << doublings).min(max_wait).max(MIN_WAIT);
    Some(random.random_range(MIN_WAIT..=ceiling))
}

/// The header `Retry-After`: whole seconds, or a date as HTTP writes it. `None` where it is neither; a date that
/// has passed is no wait at all.
pub(super) fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    let date = DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

pub(super) const MIN_WAIT: Duration = Duration::from_secs(1);
pub(super) const MIN_ASKED: Duration = Duration::from_secs(1);
pub(super) const MAX_ASKED: Duration = Duration::from_secs(60 * 60);
pub(super) const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const MIN_ATTEMPTS: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    const MAX_WAIT: Duration = Duration::from_secs(900);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn each_class_of_answer_has_one_meaning() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(Meaning::of_status(status), Meaning::Delivered, "{status}");
        }
        for status in [408, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(Meaning::of_status(status), Meaning::Later { after: None }, "{status}");
        }
        for status in [301, 302, 304, 307, 308, 400, 401, 403, 404, 409, 410, 413, 422, 100, 600, 999] {
            assert_eq!(Meaning::of_status(status), Meaning::Refused, "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = at("2015-10-21T07:27:00Z");
        let read = |header| retry_after(header, now).map(|wait| wait.as_secs());
        assert_eq!(read("120"), Some(120));
        assert_eq!(read(" 0 "), Some(0));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), Some(60));
        assert_eq!(read("Wed, 21 Oct 2015 07:00:00 GMT"), Some(0));
        assert_eq!(read("99999999999999999999999"), Some(u64::MAX));
        for nonsense in ["", "soon", "-5", "1.5"] {
            assert_eq!(read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn what_the_receiver_asks_for_is_done_within_bounds() {
        let (first, mut random) = (at("2026-01-01T00:00:00Z"), SmallRng::seed_from_u64(1));
        let mut wait = |asked| {
            wait(1, first, first, Some(Duration::from_secs(asked)), MAX_WAIT, &mut random).unwrap().as_secs()
        };
        assert_eq!((wait(0), wait(90), wait(1_000_000)), (1, 90, 3600));
    }

    #[test]
    fn a_receiver_that_is_gone_is_tried_for_a_day_and_then_no_more() {
        let first = at("2026-01-01T00:00:00Z");
        for seed in 0..50 {
            let (mut now, mut attempts, mut random) = (first, 1, SmallRng::seed_from_u64(seed));
            while let Some(pause) = wait(attempts, first, now, None, MAX_WAIT, &mut random) {
                now = now.checked_add(pause).unwrap();
                attempts += 1;
            }
            let tried = Duration::try_from(now.duration_since(first)).unwrap();
            assert!(tried >= GIVE_UP_AFTER && tried <= GIVE_UP_AFTER + MAX_WAIT, "{tried:?}");
            assert!((100..600).contains(&attempts), "{attempts}");
        }
    }

    #[test]
    fn a_day_in_which_watchpost_was_down_is_no_day_of_trying() {
        let (first, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-05T00:00:00Z"));
        assert!(wait(3, first, now, None, MAX_WAIT, &mut SmallRng::seed_from_u64(1)).is_some());
        assert!(wait(MIN_ATTEMPTS, first, now, None, MAX_WAIT, &mut SmallRng::seed_from_u64(1)).is_none());
    }

    proptest! {
        #[test]
        fn waits_stay_in_their_bounds(attempt in 1u32.., seed: u64) {
            let first = Timestamp::UNIX_EPOCH;
            let pause = wait(attempt, first, first, None, MAX_WAIT, &mut SmallRng::seed_from_u64(seed)).unwrap();
            prop_assert!(pause >= MIN_WAIT && pause <= MAX_WAIT);
            prop_assert!(pause.as_secs() <= 1u64 << attempt.min(10));
        }
    }
}
