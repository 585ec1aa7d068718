//! Local inference: a GGUF model, in this process, on this CPU, with answers that always fit their JSON schema.
//!
//! Everything is synchronous and `Send`; a [`Model`] works on one request at a time. The crate knows nothing of
//! alerts. In reading order:

mod bench;
mod chat;
mod constraint;
mod error;
pub mod gguf;
mod memory;
mod model;
mod network;
mod prefix;
mod request;
mod sample;
mod source;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use bench::Bench;
pub use error::{GenerateError, LoadError};
pub use gguf::Info;
pub use model::{Model, Options};
pub use request::{Completion, Control, Prompt, Request, Sampling};
pub use source::Source;
