//! Local inference: a GGUF model, in this process, on this CPU, with answers that always fit their JSON schema.
//!
//! Everything is synchronous and `Send`; a [`Model`] belongs to one thread at a time. The crate knows nothing of
//! alerts. Reading order: [`request`] (what goes in and comes out), [`source`], [`gguf`] (a hostile file cannot
//! hurt us), `tokenizer` and `chat` (data text can never become a control token), [`model`] (the sequence of
//! one request).

pub mod error;
pub mod gguf;
pub mod model;
pub mod request;
pub mod source;

pub use error::{GenerateError, LoadError};
pub use gguf::Info;
pub use model::{Bench, Model, Options};
pub use request::{Completion, Control, Prompt, Request, Sampling};
pub use source::Source;
