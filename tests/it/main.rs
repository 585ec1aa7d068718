#![allow(clippy::unwrap_used)]
//! Whole paths, by what the user sees. One binary, a file per subject.

mod architecture;
mod check;
mod cli;
mod delivery;
mod demo;
mod detection;
mod model;
mod pipeline;
mod receiver;
mod soak;
mod soc;
mod triage;
