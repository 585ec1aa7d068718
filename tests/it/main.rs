//! Whole paths, by what the user sees. One binary, a file per subject.

// clippy.toml allows it in test functions; here everything is a test.
#![allow(clippy::unwrap_used)]

mod architecture;
mod check;
mod cli;
mod close;
mod delivery;
mod demo;
mod detection;
mod eval;
mod judge;
mod model;
mod pipeline;
mod receiver;
mod redteam;
mod replay;
mod services;
mod soak;
mod soc;
mod triage;
mod trust;
