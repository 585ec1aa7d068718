//! Whole paths, by what the user sees. One binary, a file per subject.

mod architecture;
mod delivery;
mod receiver;
mod soak;
