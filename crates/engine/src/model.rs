//! A model ready to answer, and the sequence of one request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chat::{Chat, Encoded};
use crate::constraint::Grammars;
use crate::error::{GenerateError, LoadError};
use crate::gguf::{self, Header, Info, Shape};
use crate::memory;
use crate::network::{CHUNK, Network, Sequence};
use crate::prefix::Prefixes;
use crate::request::{Completion, Control, Prompt, Request};
use crate::sample::Sampler;
use crate::source::Source;
use crate::tokenizer::Tokenizer;

/// How a model is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Threads that compute, the caller among them; 0 is as many as there are processors.
    pub threads: usize,
    /// Fail rather than use more; what the machine has available is a limit too.
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
    shape: Shape,
    context: usize,
    memory_limit_bytes: u64,
    memory_bytes: u64,
    tokenizer: Arc<Tokenizer>,
    chat: Chat,
    grammars: Grammars,
    pub(crate) network: Network,
    prefixes: Prefixes,
    pub(crate) load: Duration,
}

impl Model {
    /// Reads, checks and prepares a model: about 0.2 s and its memory for a model of 100 MB.
    pub fn open(source: &Source, options: &Options) -> Result<Self, LoadError> {
        let started = Instant::now();
        let mapping = source.map()?;
        let header = Header::read(mapping.path(), &mapping)?;
        let shape = Shape::read(&header)?;
        let context = options.context.unwrap_or(memory::default_context(&shape)).clamp(1, shape.context);
        let memory_bytes = memory::needed(&header, &shape, context);
        memory::check(&header, memory_bytes, options.memory_limit_bytes)?;
        let tokenizer = Arc::new(Tokenizer::read(&header, shape.vocab)?);
        let chat = Chat::read(&header, &tokenizer)?;
        let grammars = Grammars::new(&tokenizer)
            .map_err(|what| LoadError::Tokenizer { path: source.path.clone(), what })?;
        let network = Network::load(&header, &shape, options.threads)?;
        Ok(Self {
            info: gguf::info(&header, &shape, source),
            context,
            memory_limit_bytes: options.memory_limit_bytes.unwrap_or(u64::MAX),
            memory_bytes,
            tokenizer,
            chat,
            grammars,
            network,
            prefixes: Prefixes::new(options.prefixes),
            load: started.elapsed(),
            shape,
        })
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    #[cfg(test)]
    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Most tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Tokens of `text` as data. Reads no weights: some 2 MB a second.
    pub fn count_tokens(&self, text: &str) -> usize {
        self.tokenizer.encode_data(text).len()
    }

    /// Tokens of the whole prompt, with those of the chat template.
    pub fn count_prompt_tokens(&self, prompt: &Prompt) -> usize {
        self.chat.encode(prompt, &self.tokenizer).tokens.len()
    }

    /// An answer that fits the request's schema, or why there is none.
    pub fn generate(&mut self, request: &Request, control: &Control) -> Result<Completion, GenerateError> {
        let started = Instant::now();
        let prompt = self.chat.encode(&request.prompt, &self.tokenizer);
        self.check_room(&prompt, request.max_tokens)?;
        let mut constraint = self.grammars.constraint(&request.schema)?;
        let mut sampler = Sampler::new(request.sampling, request.repetition_penalty);

        let mut answer = constraint.forced();
        let mut pending = answer.clone();
        let (mut sequence, cached_tokens) = self.begin(&prompt, request.max_tokens, control)?;
        let prompt_end = Instant::now();
        let mut logits = Vec::new();
        // What is left of the prompt, and the forced beginning of the answer, are one run.
        pending.splice(0..0, prompt.tokens[prompt.shared..].iter().copied());
        let mut first = None;
        let mut prompt_seconds = prompt_end.duration_since(started).as_secs_f64();
        let mut decode_started = prompt_end;
        loop {
            if constraint.is_complete()? {
                break;
            }
            if answer.len() >= request.max_tokens {
                return Err(GenerateError::MaxTokens { max_tokens: request.max_tokens });
            }
            for chunk in pending.chunks(CHUNK) {
                check_time(control, first.map_or(0, |_| answer.len()))?;
                logits = self.network.forward(&mut sequence, chunk);
            }
            if first.is_none() {
                first = Some(started.elapsed());
                prompt_seconds = started.elapsed().as_secs_f64();
                decode_started = Instant::now();
            }
            check_time(control, answer.len())?;
            let recent: Vec<u32> = self.words(&answer[answer.len().saturating_sub(REPETITION_WINDOW)..]);
            let token = sampler
                .choose(&logits, &constraint.allowed()?, &recent)
                .ok_or_else(|| GenerateError::Schema("it allows no token the model has".into()))?;
            constraint.take(token)?;
            answer.push(token);
            pending = vec![token];
            let forced = constraint.forced();
            answer.extend(&forced);
            pending.extend(&forced);
        }
        if answer.len() > request.max_tokens {
            return Err(GenerateError::MaxTokens { max_tokens: request.max_tokens });
        }
        let text = String::from_utf8(self.tokenizer.decode(&answer))
            .map_err(|_| GenerateError::Inference("the answer is not UTF-8".into()))?;
        Ok(Completion {
            text,
            prompt_tokens: prompt.tokens.len(),
            cached_tokens,
            completion_tokens: answer.len(),
            time_to_first_token: first.unwrap_or_else(|| started.elapsed()),
            prompt_seconds,
            decode_seconds: decode_started.elapsed().as_secs_f64(),
        })
    }

    /// Log-probability of each candidate as what follows the prompt: the sum over its tokens, so compare candidates
    /// of about the same length. In the order of `candidates`.
    pub fn score(
        &mut self,
        prompt: &Prompt,
        candidates: &[&str],
        control: &Control,
    ) -> Result<Vec<f64>, GenerateError> {
        let prompt = self.chat.encode(prompt, &self.tokenizer);
        let candidates: Vec<Vec<u32>> =
            candidates.iter().map(|text| self.tokenizer.encode_data(text)).collect();
        let longest = candidates.iter().map(Vec::len).max().unwrap_or(0);
        self.check_room(&prompt, longest)?;
        let (mut sequence, _) = self.begin(&prompt, longest, control)?;
        let mut after_prompt = Vec::new();
        for chunk in prompt.tokens[prompt.shared..].chunks(CHUNK) {
            check_time(control, 0)?;
            after_prompt = self.network.forward(&mut sequence, chunk);
        }
        let mut scores = Vec::new();
        for tokens in &candidates {
            check_time(control, 0)?;
            let Some((&first, rest)) = tokens.split_first() else {
                scores.push(0.0);
                continue;
            };
            let mut score = log_probability(&after_prompt, first);
            if !rest.is_empty() {
                let mut branch = sequence.fork(prompt.tokens.len() + longest);
                for (inputs, outputs) in tokens[..rest.len()].chunks(CHUNK).zip(rest.chunks(CHUNK)) {
                    let logits = self.network.forward_each(&mut branch, inputs);
                    score += logits
                        .iter()
                        .zip(outputs)
                        .map(|(logits, id)| log_probability(logits, *id))
                        .sum::<f64>();
                }
            }
            scores.push(score);
        }
        Ok(scores)
    }

    /// A sequence that holds the prompt's shared part, and how many tokens of it were known.
    fn begin(
        &mut self,
        prompt: &Encoded,
        max_tokens: usize,
        control: &Control,
    ) -> Result<(Sequence, usize), GenerateError> {
        let capacity = prompt.tokens.len() + max_tokens;
        let shared = &prompt.tokens[..prompt.shared];
        if let Some(known) = self.prefixes.get(shared) {
            return Ok((known.fork(capacity), shared.len()));
        }
        let mut sequence = self.network.sequence(capacity);
        for chunk in shared.chunks(CHUNK) {
            check_time(control, 0)?;
            self.network.append(&mut sequence, chunk);
        }
        if !shared.is_empty() && self.fits(capacity + shared.len()) {
            self.prefixes.put(shared, sequence.fork(shared.len()));
        }
        Ok((sequence, 0))
    }

    /// Fails when prompt and answer pass the context, or their keys and values the memory there is. Prefixes are
    /// given up to make room.
    fn check_room(&mut self, prompt: &Encoded, max_tokens: usize) -> Result<(), GenerateError> {
        let (prompt_tokens, context) = (prompt.tokens.len(), self.context);
        if prompt_tokens == 0 || prompt_tokens.saturating_add(max_tokens) > context {
            return Err(GenerateError::TooLong { prompt_tokens, max_tokens, context });
        }
        while !self.fits(prompt_tokens + max_tokens) && self.prefixes.drop_oldest() {}
        let needed = memory::sequence(&self.shape, prompt_tokens + max_tokens);
        match memory::available().filter(|&available| needed > available) {
            Some(available) => Err(GenerateError::Memory {
                needed_mib: needed.div_ceil(memory::MIB),
                limit_mib: available / memory::MIB,
            }),
            None => Ok(()),
        }
    }

    /// Whether `tokens` more are within the memory allowed, beside the weights and the prefixes kept. Without
    /// prefixes they always are: opening the model made sure of a full context.
    fn fits(&self, tokens: usize) -> bool {
        let weights = self.memory_bytes.saturating_sub(memory::sequence(&self.shape, self.context));
        let sequences = memory::sequence(&self.shape, self.prefixes.tokens() + tokens);
        weights.saturating_add(sequences) <= self.memory_limit_bytes
    }

    /// Those of `tokens` that contain a letter: repeating a quote, a comma or an address is no loop.
    fn words(&self, tokens: &[u32]) -> Vec<u32> {
        let has_letter = |id: &u32| self.tokenizer.token(*id).iter().any(u8::is_ascii_alphabetic);
        tokens.iter().copied().filter(has_letter).collect()
    }
}

fn check_time(control: &Control, completion_tokens: usize) -> Result<(), GenerateError> {
    if control.is_cancelled() {
        return Err(GenerateError::Cancelled);
    }
    if control.is_past_deadline() {
        return Err(GenerateError::Deadline { completion_tokens });
    }
    Ok(())
}

fn log_probability(logits: &[f32], id: u32) -> f64 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - greatest).exp()).sum();
    f64::from(logits[id as usize] - greatest) - sum.ln()
}

/// Tokens of the answer whose words are made less likely.
const REPETITION_WINDOW: usize = 64;
