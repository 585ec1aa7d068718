//! Detection: which windows are due, when, and what one search of them does.
//!
//! [`schedule`] wakes when a detector is due; [`windows`] says what is due for each rule; [`Search`] queries,
//! holds the count against the rule's size, and saves alert and cursor in one transaction.

pub mod schedule;
mod search;
mod slots;
pub mod windows;

pub use search::{Found, Search, SearchError, Source, TriagePolicy, Watch};
