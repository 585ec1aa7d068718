//! Local inference: a GGUF model, in this process, on this CPU, with answers that always fit their JSON schema.
//!
//! A [`Model`] is synchronous and computes all of its tasks together, a pass at a time; a [`Service`] puts it on a thread of
//! its own. The crate knows nothing of alerts. In reading order:

mod bench;
mod chat;
mod constraint;
mod device;
mod error;
pub mod gguf;
mod kept;
mod machine;
mod memory;
mod model;
mod network;
mod prefix;
mod request;
mod sample;
mod schedule;
mod service;
mod source;
#[cfg(test)]
#[path = "../synth/mod.rs"]
#[allow(dead_code)] // The example `synth` uses the rest.
mod synth;
#[cfg(test)]
mod tests;
mod tokenizer;

pub use bench::Bench;
pub use device::Device;
pub use error::{GenerateError, LoadError};
pub use gguf::Info;
pub use machine::Limits;
pub use model::{Model, Options, Tokens};
pub use request::{Answer, Completion, Control, Prompt, Question, Request, Sampling, Scores, Scoring, Task};
pub use schedule::{Finished, Ticket};
pub use service::Service;
pub use source::Source;
