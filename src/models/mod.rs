//! Models on disk: which are known, where they are, how they get there, and how one travels inside the executable.
//!
//! In reading order: [`known`] (models.toml), [`registry`] (where a name leads), [`install`] (import and verify),
//! [`pull`] (the only part that opens a connection), [`embed`] (the self-contained binary).

pub mod embed;
mod error;
mod file;
pub mod install;
pub mod known;
pub mod pull;
pub mod registry;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tiny;

pub use error::ModelError;
pub use known::Known;
pub use registry::{Found, Origin, Registry, Resolved};

/// Told how far a long step is: bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);
