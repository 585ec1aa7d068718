//! A GGUF model in this process, on a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::oneshot;
use watchpost_engine::{
    Answer, GenerateError, LoadError, Model, Options, Request, Scoring, Service, Source, Task,
};

use super::{Call, Completion, Identity, Prompt, Provider, ProviderError, Question};

pub struct Local {
    service: Service,
    identity: Identity,
    /// Known before the thread has quite ended.
    is_dead: AtomicBool,
}

impl Local {
    /// Reads and checks the model, and starts its thread. Takes about a second per GB, half of it for the sha256 that
    /// each verdict carries.
    pub fn open(source: &Source, options: &Options) -> Result<Self, ProviderError> {
        let failed = |error: LoadError| ProviderError::Failed(error.to_string());
        let sha256 = source.sha256().map_err(failed)?;
        let model = Model::open(source, options).map_err(failed)?;
        let identity = Identity { name: model.info().name.clone(), sha256 };
        let service = Service::start(model)
            .map_err(|error| ProviderError::Failed(format!("its thread cannot be started: {error}")))?;
        Ok(Self { service, identity, is_dead: AtomicBool::default() })
    }

    async fn ask(&self, task: Task, call: &Call) -> Result<Answer, ProviderError> {
        let (reply, answer) = oneshot::channel();
        self.service.submit(task, call.priority, call.control.clone(), move |result| {
            // Whoever dropped the receiver no longer wants the answer.
            reply.send(result).ok();
        });
        match answer.await {
            Ok(result) => Ok(result?),
            Err(_) => {
                self.is_dead.store(true, Ordering::Relaxed);
                Err(ProviderError::Died("its thread ended without an answer".to_owned()))
            }
        }
    }
}

#[async_trait]
impl Provider for Local {
    fn model(&self) -> &Identity {
        &self.identity
    }

    fn count_tokens(&self, text: &str) -> usize {
        self.service.tokens().count(text)
    }

    fn is_alive(&self) -> bool {
        !self.is_dead.load(Ordering::Relaxed) && self.service.is_alive()
    }

    async fn complete(
        &self,
        prompt: &Prompt,
        schema: &Value,
        max_tokens: usize,
        call: &Call,
    ) -> Result<Completion, ProviderError> {
        let request = Request::new(prompt.clone(), schema.clone(), max_tokens);
        match self.ask(Task::Generate(request), call).await? {
            Answer::Completion(completion) => Ok(completion),
            Answer::Scores(_) => Err(ProviderError::Failed("scores where text was asked for".to_owned())),
        }
    }

    async fn score(
        &self,
        prompt: &Prompt,
        questions: &[Question],
        call: &Call,
    ) -> Result<Vec<Vec<f64>>, ProviderError> {
        let scoring = Scoring { prompt: prompt.clone(), questions: questions.to_vec(), hidden: false };
        match self.ask(Task::Score(scoring), call).await? {
            Answer::Scores(scores) => Ok(scores.log_probabilities),
            Answer::Completion(_) => {
                Err(ProviderError::Failed("text where scores were asked for".to_owned()))
            }
        }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::triage::prompt;

    #[tokio::test]
    async fn whoever_asks_a_model_whose_thread_died_is_told_and_does_not_wait() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
        let path = std::env::var_os("WATCHPOST_TEST_MODEL").map_or(file, Into::into);
        let source = Source::file(path).expect("the test model is installed: see CONTRIBUTING.md");
        let local = Local::open(&source, &Options::default()).unwrap();
        let (question, call) = (prompt::opinion_on_nothing(), Call::default());
        let scored = local.score(&question, &prompt::opinion_questions(), &call).await.unwrap();
        assert_eq!(scored.iter().map(Vec::len).collect::<Vec<_>>(), [2, 4]);
        // The reply is called on the model's thread.
        let scoring = Scoring { prompt: question.clone(), ..Scoring::default() };
        local.service.submit(Task::Score(scoring), 9, call.control.clone(), |_| panic!("as a defect would"));
        for _ in 0..2 {
            let error = local.score(&question, &prompt::opinion_questions(), &call).await.unwrap_err();
            assert_eq!(error, ProviderError::Died("its thread ended without an answer".into()));
            assert!(!local.is_alive());
        }
    }
}
