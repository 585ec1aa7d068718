//! Whole paths, by what the user sees. One binary, a file per subject.

mod architecture;
mod model;
mod soak;
mod triage;
