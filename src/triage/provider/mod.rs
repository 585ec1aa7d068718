//! Who answers a prompt: the seam between triage and a model.

pub mod local;

use async_trait::async_trait;
use serde_json::Value;
pub use watchpost_engine::{Completion, Control, Prompt, Question};

/// A model that answers in JSON and in probabilities. It is asked by many at the same time, and what it says to one
/// does not depend on what it is asked beside it. Dropping a call's future does not stop the work: `call.control` does.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name and the sha256 of its file.
    fn model(&self) -> &Identity;

    /// Tokens of `text` as data. Called for every line that goes into a prompt, so it must be cheap.
    fn count_tokens(&self, text: &str) -> usize;

    /// Whether it can still answer. One that cannot is opened again by the next request.
    fn is_alive(&self) -> bool {
        true
    }

    /// An answer of at most `max_tokens` that fits the JSON schema, or why there is none.
    async fn complete(
        &self,
        prompt: &Prompt,
        schema: &Value,
        max_tokens: usize,
        call: &Call,
    ) -> Result<Completion, ProviderError>;

    /// Log-probability of each candidate of each question as what follows the prompt, in their order.
    async fn score(
        &self,
        prompt: &Prompt,
        questions: &[Question],
        call: &Call,
    ) -> Result<Vec<Vec<f64>>, ProviderError>;
}

/// How urgent a question is, and how it is stopped.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Greater goes first.
    pub priority: u8,
    pub control: Control,
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
    /// It ended while it was asked; opened again it may answer.
    #[error("{0}")]
    Died(String),
}
