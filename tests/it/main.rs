//! Whole paths, by what the user sees. One binary, a file per subject.

mod architecture;
mod delivery;
mod detection;
mod receiver;
mod soak;
mod soc;
mod triage;
