//! A GGUF model in this process.

use serde_json::Value;
use watchpost_engine::{GenerateError, Model, Options, Request, Source};

use super::{Completion, Control, Identity, Prompt, Provider, ProviderError};

pub struct Local {
    model: Model,
    identity: Identity,
}

impl Local {
    /// Reads and checks the model. Takes about a second per GB, half of it for the sha256 that each verdict carries.
    pub fn open(source: &Source, options: &Options) -> Result<Self, ProviderError> {
        let failed = |error: watchpost_engine::LoadError| ProviderError::Failed(error.to_string());
        let sha256 = source.sha256().map_err(failed)?;
        let model = Model::open(source, options).map_err(failed)?;
        let identity = Identity { name: model.info().name.clone(), sha256 };
        Ok(Self { model, identity })
    }
}

impl Provider for Local {
    fn model(&self) -> &Identity {
        &self.identity
    }

    fn context(&self) -> usize {
        self.model.context()
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.model.tokens().count(text)
    }

    fn complete(
        &mut self,
        prompt: &Prompt,
        schema: &Value,
        max_tokens: usize,
        control: &Control,
    ) -> Result<Completion, ProviderError> {
        let request = Request::new(prompt.clone(), schema.clone(), max_tokens);
        Ok(self.model.generate(&request, control)?)
    }

    fn score(
        &mut self,
        prompt: &Prompt,
        candidates: &[&str],
        control: &Control,
    ) -> Result<Vec<f64>, ProviderError> {
        Ok(self.model.score(prompt, candidates, control)?)
    }
}

impl From<GenerateError> for ProviderError {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Deadline { .. } => Self::Deadline,
            GenerateError::Cancelled => Self::Cancelled,
            GenerateError::TooLong { .. } | GenerateError::Memory { .. } => Self::TooLong(error.to_string()),
            GenerateError::MaxTokens { .. } => Self::Unusable(error.to_string()),
            GenerateError::Schema(_) | GenerateError::Inference(_) => Self::Failed(error.to_string()),
        }
    }
}
