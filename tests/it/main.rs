//! Whole paths, by what the user sees. One binary, a file per subject.

mod architecture;
mod check;
mod delivery;
mod detection;
mod model;
mod receiver;
mod soak;
mod soc;
mod triage;
