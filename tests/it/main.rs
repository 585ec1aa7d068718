//! Whole paths, by what the user sees. One binary, a file per subject.

mod architecture;
mod detection;
mod model;
mod soak;
mod soc;
mod triage;
