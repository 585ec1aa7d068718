//! What a caller asks of a model, and what comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A conversation of one question. All its texts are data: a `<|im_end|>` in them is encoded as the ten
/// characters it consists of, never as the control token.
///
/// Keys and values of a beginning that prompts share are computed once: up to the end of `system`, up to the end of
/// `guidance`, and of a whole question that is asked again. Put first what changes least.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// The instructions, the same for all.
    pub system: String,
    /// How the question begins, e.g. what is known of the rule that raised an alert; may be empty. Ends with a line break,
    /// since `user` follows it.
    pub guidance: String,
    /// The question with its material.
    pub user: String,
    /// How the model's answer begins, e.g. `The verdict is `; empty for most uses. [`crate::Model::generate`]
    /// continues after it (the schema describes only what follows), [`crate::Model::score`] puts its candidates there.
    pub answer: String,
}

impl Prompt {
    pub fn new(system: impl Into<String>, user: impl Into<String>) -> Self {
        Self { system: system.into(), user: user.into(), ..Self::default() }
    }
}

/// What a model is asked to do.
#[derive(Clone, Debug)]
pub enum Task {
    Generate(Request),
    Score(Scoring),
}

/// What came of a [`Task`].
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Completion(Completion),
    Scores(Scores),
}

/// Several closed questions about one prompt, answered by probabilities and not by text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scoring {
    pub prompt: Prompt,
    pub questions: Vec<Question>,
    /// Whether the hidden states are wanted: the user text is then computed even where its keys and values are known.
    pub hidden: bool,
}

/// A closed question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// How the answer begins, after the prompt's own `answer`, e.g. `Severity: `; may be empty.
    pub answer: String,
    /// How it may go on. Their log-probabilities are sums over their tokens, so they should be of about the same length.
    pub candidates: Vec<String>,
}

/// The answers to [`Scoring`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores {
    /// `[question][candidate]`: natural logarithms.
    pub log_probabilities: Vec<Vec<f64>>,
    /// The state after the prompt, of as many numbers as the model is wide; empty unless wanted.
    pub last_hidden: Vec<f32>,
    /// The mean of the states over the tokens of `user`; empty unless wanted, and for an empty text.
    pub mean_hidden: Vec<f32>,
    pub prompt_tokens: usize,
    /// How many of `prompt_tokens` were taken from the prefix cache.
    pub cached_tokens: usize,
    /// From the call on, waiting included.
    pub seconds: f64,
}

/// One generation.
#[derive(Clone, Debug)]
pub struct Request {
    pub prompt: Prompt,
    /// The JSON schema that the answer fits: every string should have a `maxLength` and every array a `maxItems`,
    /// so that the longest answer fits `max_tokens`. The answer is compact JSON, keys in the schema's order.
    pub schema: serde_json::Value,
    /// Most tokens of the answer. Memory for them is set aside before the first token.
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Divides the preference for tokens among the last 64 of the answer; 1.0 is off. Keeps small models, which
    /// loop inside long strings, moving.
    pub repetition_penalty: f32,
}

impl Request {
    /// Greedy, with the default repetition penalty.
    pub fn new(prompt: Prompt, schema: serde_json::Value, max_tokens: usize) -> Self {
        Self { prompt, schema, max_tokens, sampling: Sampling::Greedy, repetition_penalty: 1.1 }
    }
}

/// How the next token is chosen among those the schema allows. Both are deterministic: same input, same model,
/// same build, same processor features, same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sampling {
    #[default]
    Greedy,
    /// Drawn with `temperature` (> 0) from a generator that starts at `seed`.
    Seeded { seed: u64, temperature: f32 },
}

/// How a caller stops a request that is under way. Looked at between tokens and between chunks of the prompt.
#[derive(Clone, Debug, Default)]
pub struct Control {
    pub deadline: Option<Instant>,
    pub cancel: Arc<AtomicBool>,
}

impl Control {
    /// No deadline, nobody cancels.
    pub fn unlimited() -> Self {
        Self::default()
    }

    pub fn until(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::default() }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    pub fn is_past_deadline(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// A whole answer; a part of one is never returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// JSON that fits the request's schema.
    pub text: String,
    /// All tokens of the prompt, cached or not.
    pub prompt_tokens: usize,
    /// How many of `prompt_tokens` were taken from the prefix cache.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// From the call to the choice of the answer's first token.
    pub time_to_first_token: Duration,
    pub prompt_seconds: f64,
    pub decode_seconds: f64,
}
