//! How much of the model's writing an hour may have. Verdicts are not rationed: code gives them.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::verdict::Severity;
use crate::clock::Timestamp;
use crate::config::section;

section! {
    /// Alerts an hour whose text the model writes, by their severity; code's text stays with the others. Without a number
    /// there is no end. Text that is taken over from an alert that is alike costs nothing.
    pub struct Budget {
        pub critical: Option<u64>,
        pub high: Option<u64>,
        pub medium: Option<u64>,
        pub low: Option<u64>,
    }
}

impl Default for Budget {
    /// Without an end.
    fn default() -> Self {
        crate::config::defaults()
    }
}

impl Budget {
    fn of(&self, severity: Severity) -> Option<u64> {
        match severity {
            Severity::Critical => self.critical,
            Severity::High => self.high,
            Severity::Medium => self.medium,
            Severity::Low => self.low,
        }
    }
}

/// What of a budget was spent in the last hour. A restart begins anew.
#[derive(Debug, Default)]
pub struct Purse {
    budget: Budget,
    /// When, the oldest first, by severity.
    spent: Mutex<[VecDeque<Timestamp>; Severity::ALL.len()]>,
}

impl Purse {
    pub fn new(budget: Budget) -> Self {
        Self { budget, spent: Mutex::default() }
    }

    /// Takes the place of one text, or says why there is none.
    pub fn take(&self, severity: Severity, now: Timestamp) -> Result<(), String> {
        let Some(most) = self.budget.of(severity) else { return Ok(()) };
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = &mut spent[severity as usize];
        // A clock that was set back frees what lies ahead of it.
        spent.retain(|at| *at <= now && now.duration_since(*at).unsigned_abs() < HOUR);
        if spent.len() as u64 >= most {
            let severity = severity.as_str().to_lowercase();
            return Err(format!(
                "{most} alerts of this hour had their text by the model (`triage.budget.{severity}`)"
            ));
        }
        spent.push_back(now);
        Ok(())
    }

    /// Gives the last place back: it was not needed.
    pub fn give_back(&self, severity: Severity) {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)[severity as usize].pop_back();
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_its_budget_by_severity() {
        let purse = Purse::new(Budget { low: Some(2), high: Some(0), ..Budget::default() });
        let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
        assert_eq!([0, 1_000].map(|second| purse.take(Severity::Low, at(second)).is_ok()), [true; 2]);
        let reason = purse.take(Severity::Low, at(3_599)).unwrap_err();
        assert_eq!(reason, "2 alerts of this hour had their text by the model (`triage.budget.low`)");
        assert!(purse.take(Severity::Low, at(3_600)).is_ok(), "the first is an hour ago");
        assert!(purse.take(Severity::Low, at(3_601)).is_err());
        purse.give_back(Severity::Low);
        assert!(purse.take(Severity::Low, at(3_602)).is_ok());
        assert!(purse.take(Severity::Low, at(-9_000)).is_ok(), "a clock that was set back");
        assert!(purse.take(Severity::High, at(0)).is_err());
        assert!((0..1_000).all(|second| purse.take(Severity::Critical, at(second)).is_ok()));
    }
}
