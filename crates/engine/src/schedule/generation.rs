//! One answer, written token by token.

use std::time::Instant;

use super::Tools;
use crate::constraint::{Constraint, Masked};
use crate::error::GenerateError;
use crate::network::{Output, Piece, Sequence};
use crate::request::{Completion, Request};
use crate::sample::Sampler;
use crate::tokenizer::Tokenizer;

pub(super) struct Generation {
    request: Request,
    /// Away while its mask is computed.
    pub(super) constraint: Option<Constraint>,
    /// The constraint, back with its mask.
    pub(super) masked: Option<Masked>,
    sampler: Sampler,
    answer: Vec<u32>,
    /// Tokens that the model has not seen yet, the first `seen` of which it has: the end of the prompt, then of the answer.
    pending: Vec<u32>,
    seen: usize,
    submitted: Instant,
    first: Option<Instant>,
    pub(super) cached_tokens: usize,
}

impl Generation {
    pub(super) fn new(tools: &Tools, request: Request, submitted: Instant) -> Result<Self, GenerateError> {
        let constraint = tools.grammars.constraint(&request.schema)?;
        let sampler = Sampler::new(request.sampling, request.repetition_penalty);
        Ok(Self {
            request,
            constraint: Some(constraint),
            masked: None,
            sampler,
            answer: Vec::new(),
            pending: Vec::new(),
            seen: 0,
            submitted,
            first: None,
            cached_tokens: 0,
        })
    }

    pub(super) fn max_tokens(&self) -> usize {
        self.request.max_tokens
    }

    pub(super) fn completion_tokens(&self) -> usize {
        self.first.map_or(0, |_| self.answer.len())
    }

    pub(super) fn pending(&self) -> &[u32] {
        &self.pending[self.seen..]
    }

    /// Starts to write after a prompt whose last tokens are `rest`; gives the tokens that there must be room for.
    pub(super) fn begin(&mut self, rest: &[u32]) -> usize {
        self.pending = rest.to_vec();
        self.seen = 0;
        // What the schema forces is run together with the prompt's end.
        if let Some(constraint) = &mut self.constraint {
            let mut forced = constraint.forced();
            forced.truncate(self.request.max_tokens);
            self.pending.extend(&forced);
            self.answer = forced;
        }
        rest.len() + self.request.max_tokens
    }

    pub(super) fn piece<'a>(&'a mut self, sequence: &'a mut Sequence, share: usize) -> Piece<'a> {
        let tokens = &self.pending[self.seen..self.seen + share];
        let is_last = self.seen + share == self.pending.len();
        Piece { sequence, tokens, logits: usize::from(is_last), hidden: 0 }
    }

    /// Takes what a pass of `share` tokens gave; the answer, when it is complete.
    pub(super) fn take(
        &mut self,
        tools: &Tools,
        share: usize,
        mut outputs: Vec<Output>,
        prompt_tokens: usize,
    ) -> Result<Option<Completion>, GenerateError> {
        self.seen += share;
        if self.seen < self.pending.len() {
            return Ok(None);
        }
        let died = || GenerateError::Inference("the thread that computes masks has died".into());
        let Masked { mut constraint, allowed } = self.masked.take().ok_or_else(died)?;
        let logits = outputs.pop().ok_or_else(died)?.logits;
        let most = self.request.max_tokens;
        if constraint.is_complete()? {
            return self.finish(tools, prompt_tokens).map(Some);
        }
        if self.answer.len() >= most {
            return Err(GenerateError::MaxTokens { max_tokens: most });
        }
        self.first.get_or_insert_with(Instant::now);
        let recent =
            words(&tools.tokenizer, &self.answer[self.answer.len().saturating_sub(REPETITION_WINDOW)..]);
        let token = self
            .sampler
            .choose(&logits, &allowed?, &recent)
            .ok_or_else(|| GenerateError::Schema("it allows no token the model has".into()))?;
        constraint.take(token)?;
        self.pending = vec![token];
        self.pending.extend(constraint.forced());
        self.seen = 0;
        self.answer.extend(&self.pending);
        if self.answer.len() > most {
            return Err(GenerateError::MaxTokens { max_tokens: most });
        }
        if constraint.is_complete()? {
            return self.finish(tools, prompt_tokens).map(Some);
        }
        self.constraint = Some(constraint);
        Ok(None)
    }

    fn finish(&mut self, tools: &Tools, prompt_tokens: usize) -> Result<Completion, GenerateError> {
        let text = String::from_utf8(tools.tokenizer.decode(&self.answer))
            .map_err(|_| GenerateError::Inference("the answer is not UTF-8".into()))?;
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        Ok(Completion {
            text,
            prompt_tokens,
            cached_tokens: self.cached_tokens,
            completion_tokens: self.answer.len(),
            time_to_first_token: first - self.submitted,
            prompt_seconds: (first - self.submitted).as_secs_f64(),
            decode_seconds: (now - first).as_secs_f64(),
        })
    }
}

/// Those of `tokens` that contain a letter: repeating a quote, a comma or an address is no loop.
fn words(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<u32> {
    let has_letter = |id: &u32| tokenizer.token(*id).iter().any(u8::is_ascii_alphabetic);
    tokens.iter().copied().filter(has_letter).collect()
}

/// Tokens of the answer whose words are made less likely.
const REPETITION_WINDOW: usize = 64;
