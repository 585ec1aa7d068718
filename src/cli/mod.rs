//! The verbs.

pub mod check;
