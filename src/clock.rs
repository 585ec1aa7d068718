//! The time of day, and the windows cut from it. Nothing else reads a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use jiff::Timestamp;

/// The time of day. The system's clock in the service; in tests one that moves with tokio's (paused) time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Option<(Timestamp, tokio::time::Instant)>,
}

impl Clock {
    pub fn system() -> Self {
        Self { anchor: None }
    }

    /// A clock that reads `start` now and moves with tokio's time, which tests pause and advance.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { anchor: Some((start, tokio::time::Instant::now())) }
    }

    pub fn now(&self) -> Timestamp {
        match self.anchor {
            None => Timestamp::now(),
            Some((start, began)) => {
                start.checked_add(began.elapsed()).expect("a process does not run for 8,000 years")
            }
        }
    }

    /// Returns when this clock reads `at` or later. Sleeps a second at most at a time, so that a wall clock that
    /// is set forward or a machine that wakes from suspend is noticed.
    pub async fn sleep_until(&self, at: Timestamp) {
        loop {
            let left = at.duration_since(self.now());
            match Duration::try_from(left) {
                Ok(left) if !left.is_zero() => tokio::time::sleep(self.nap(left)).await,
                _ => return,
            }
        }
    }

    fn nap(&self, left: Duration) -> Duration {
        if self.anchor.is_some() { left } else { left.min(Duration::from_secs(1)) }
    }
}

/// Half-open `[start, end)`, in event time, on whole seconds: rule templates see whole Unix seconds, so a finer
/// border would leave or repeat part of a second.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Window {
    /// `start` and `end` in Unix seconds; `None` where the window would be empty or out of range.
    pub fn from_seconds(start: i64, end: i64) -> Option<Self> {
        let window =
            Self { start: Timestamp::from_second(start).ok()?, end: Timestamp::from_second(end).ok()? };
        (start < end).then_some(window)
    }

    pub fn length(&self) -> Duration {
        Duration::try_from(self.end.duration_since(self.start)).unwrap_or_default()
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
