//! A model ready to answer, and the sequence of one request.

use std::time::Duration;

use crate::error::{GenerateError, LoadError};
use crate::gguf::Info;
use crate::request::{Completion, Control, Prompt, Request};
use crate::source::Source;

/// How a model is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Worker threads; 0 is one fewer than the processors, at least 1.
    pub threads: usize,
    /// Fail rather than use more; the machine's available memory is a limit too.
    pub memory_limit_bytes: Option<u64>,
    /// Most tokens of prompt and answer together; the model's own limit, at most 4,096, when absent.
    pub context: Option<usize>,
    /// How many system prompts' keys and values are kept.
    pub prefixes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 0, memory_limit_bytes: None, context: None, prefixes: 4 }
    }
}

/// Weights, tokenizer, chat template and prefix cache of one GGUF.
pub struct Model {
    info: Info,
}

/// What [`Model::bench`] measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    pub load: Duration,
    /// Tokens a second over a prompt of 512 tokens.
    pub prompt_tokens_per_second: f64,
    /// Tokens a second over an answer of 128 tokens after an empty prompt.
    pub decode_tokens_per_second: f64,
    /// Of this process so far; absent where the system does not say.
    pub peak_rss_bytes: Option<u64>,
    /// The kernels in use, e.g. `avx512`.
    pub kernels: &'static str,
    pub threads: usize,
}

impl Model {
    /// Reads, checks and prepares the weights. Takes well under a second per GB.
    pub fn open(source: &Source, options: &Options) -> Result<Self, LoadError> {
        unimplemented!("{source:?} {options:?}")
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Most tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        unimplemented!()
    }

    /// Tokens of `text` as data. Cheap: no weights are read.
    pub fn count_tokens(&self, text: &str) -> usize {
        unimplemented!("{text}")
    }

    /// Tokens of the whole rendered prompt, control tokens included.
    pub fn count_prompt_tokens(&self, prompt: &Prompt) -> Result<usize, GenerateError> {
        unimplemented!("{prompt:?}")
    }

    /// An answer that fits the request's schema, or why there is none.
    pub fn generate(&mut self, request: &Request, control: &Control) -> Result<Completion, GenerateError> {
        unimplemented!("{request:?} {control:?}")
    }

    /// Log-probability of each candidate as what follows the prompt: the sum over its tokens, so compare
    /// candidates of about the same length. Same order as `candidates`.
    pub fn score(
        &mut self,
        prompt: &Prompt,
        candidates: &[&str],
        control: &Control,
    ) -> Result<Vec<f64>, GenerateError> {
        unimplemented!("{prompt:?} {candidates:?} {control:?}")
    }

    /// Speed on this machine, with random tokens. Takes seconds.
    pub fn bench(&mut self) -> Result<Bench, GenerateError> {
        unimplemented!()
    }
}
