//! Who answers a prompt: the seam between triage and a model.

pub mod local;

use serde_json::Value;
pub use watchpost_engine::{Completion, Control, Prompt};

/// A model that answers in JSON. It lives on one thread and is asked one thing at a time.
pub trait Provider {
    /// Its name and the sha256 of its file.
    fn model(&self) -> &Identity;

    /// Most tokens of prompt and answer together.
    fn context(&self) -> usize;

    /// Tokens of `text` as data. Called for every line that goes into a prompt, so it must be cheap.
    fn count_tokens(&self, text: &str) -> usize;

    /// An answer of at most `max_tokens` that fits the JSON schema, or why there is none.
    fn complete(
        &mut self,
        prompt: &Prompt,
        schema: &Value,
        max_tokens: usize,
        control: &Control,
    ) -> Result<Completion, ProviderError>;

    /// Log-probability of each candidate as what follows the prompt, in their order.
    fn score(
        &mut self,
        prompt: &Prompt,
        candidates: &[&str],
        control: &Control,
    ) -> Result<Vec<f64>, ProviderError>;
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub sha256: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    #[error("the deadline passed")]
    Deadline,
    #[error("cancelled")]
    Cancelled,
    /// A shorter prompt may do.
    #[error("{0}")]
    TooLong(String),
    /// There is no whole answer to this prompt, and there would be none the next time; the model itself is well.
    #[error("{0}")]
    Unusable(String),
    /// The model does not work.
    #[error("{0}")]
    Failed(String),
}
