//! One answer, written token by token.

use std::time::Instant;

use toktrie::SimpleVob;

use super::Tools;
use crate::chat::Encoded;
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
    /// What the model sees next: the end of the prompt, then of the answer, then `drafts` tokens that are guessed. The
    /// first `seen` it has seen.
    pending: Vec<u32>,
    seen: usize,
    drafts: usize,
    /// Tokens of the pass under way.
    share: usize,
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
            drafts: 0,
            share: 0,
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

    /// Tokens for the next pass.
    pub(super) fn pending(&self) -> usize {
        self.pending.len() - self.seen
    }

    /// Prepares for a pass of at most `share` tokens; the constraint, if the pass gives the next token.
    pub(super) fn lend(&mut self, share: usize) -> Option<Constraint> {
        if share < self.pending() {
            // Guesses are for passes with room.
            self.pending.truncate(self.pending.len() - std::mem::take(&mut self.drafts));
        }
        self.share = share.min(self.pending());
        if self.is_last() { self.constraint.take() } else { None }
    }

    /// Whether the pass under way sees all that is pending.
    fn is_last(&self) -> bool {
        self.share > 0 && self.share == self.pending()
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

    pub(super) fn piece<'a>(&'a mut self, sequence: &'a mut Sequence) -> Piece<'a> {
        let tokens = &self.pending[self.seen..self.seen + self.share];
        Piece { sequence, tokens, logits: if self.is_last() { 1 + self.drafts } else { 0 }, hidden: 0 }
    }

    /// Takes what a pass gave; the answer, when it is complete. Of the tokens guessed, those stay that would have been
    /// chosen; `sequence` forgets the others. `drafts`: how many may be guessed next.
    pub(super) fn take(
        &mut self,
        tools: &Tools,
        outputs: Vec<Output>,
        prompt: &Encoded,
        sequence: &mut Sequence,
        drafts: usize,
    ) -> Result<Option<Completion>, GenerateError> {
        let is_last = self.is_last();
        self.seen += std::mem::take(&mut self.share);
        if !is_last {
            return Ok(None);
        }
        let died = || GenerateError::Inference("the thread that computes masks has died".into());
        let Masked { mut constraint, allowed } = self.masked.take().ok_or_else(died)?;
        if constraint.is_complete()? {
            return self.finish(tools, prompt).map(Some);
        }
        self.first.get_or_insert_with(Instant::now);
        let logits: Vec<f32> = outputs.into_iter().flat_map(|output| output.logits).collect();
        let rows: Vec<&[f32]> = logits.chunks_exact(tools.network.shape().vocab).collect();
        let guessed = self.pending.split_off(self.pending.len() - std::mem::take(&mut self.drafts));
        let (mut right, mut allowed) = (0, allowed?);
        let next = loop {
            let next = self.choose(tools, &mut constraint, rows[right], &allowed)?;
            if constraint.is_complete()? {
                return self.finish(tools, prompt).map(Some);
            }
            let same = guessed[right..].iter().zip(&next).take_while(|(guess, token)| guess == token).count();
            right += same;
            if same < next.len() {
                break next[same..].to_vec();
            }
            allowed = constraint.allowed()?;
        };
        sequence.forget(guessed.len() - right);
        (self.pending, self.seen) = (next, 0);
        let guesses = self.guess(&mut constraint, prompt, drafts);
        self.drafts = guesses.len();
        self.pending.extend(guesses);
        self.constraint = Some(constraint);
        Ok(None)
    }

    /// The next token, and what the grammar forces after it; they are taken.
    fn choose(
        &mut self,
        tools: &Tools,
        constraint: &mut Constraint,
        logits: &[f32],
        allowed: &SimpleVob,
    ) -> Result<Vec<u32>, GenerateError> {
        let max_tokens = self.request.max_tokens;
        if self.answer.len() >= max_tokens {
            return Err(GenerateError::MaxTokens { max_tokens });
        }
        let recent = &self.answer[self.answer.len().saturating_sub(REPETITION_WINDOW)..];
        let token = self
            .sampler
            .choose(logits, allowed, &words(&tools.tokenizer, recent))
            .ok_or_else(|| GenerateError::Schema("it allows no token the model has".into()))?;
        constraint.take(token)?;
        let mut next = vec![token];
        next.extend(constraint.forced());
        self.answer.extend(&next);
        match self.answer.len() > max_tokens {
            true => Err(GenerateError::MaxTokens { max_tokens }),
            false => Ok(next),
        }
    }

    /// At most `most` tokens that may follow, since they followed the same [`NGRAM`] tokens before: answers quote alerts.
    fn guess(&self, constraint: &mut Constraint, prompt: &Encoded, most: usize) -> Vec<u32> {
        let most = most.min(self.request.max_tokens - self.answer.len());
        let text: Vec<u32> = prompt.tokens.iter().chain(&self.answer).copied().collect();
        let Some(start) = text.len().checked_sub(NGRAM).filter(|_| most > 0) else { return Vec::new() };
        let found = text[..text.len() - 1].windows(NGRAM).rposition(|window| *window == text[start..]);
        let Some(found) = found else { return Vec::new() };
        let followed = &text[found + NGRAM..];
        let guesses = &followed[..most.min(followed.len())];
        guesses[..constraint.count_valid(guesses)].to_vec()
    }

    fn finish(&mut self, tools: &Tools, prompt: &Encoded) -> Result<Completion, GenerateError> {
        let text = String::from_utf8(tools.tokenizer.decode(&self.answer))
            .map_err(|_| GenerateError::Inference("the answer is not UTF-8".into()))?;
        let now = Instant::now();
        let first = self.first.unwrap_or(now);
        Ok(Completion {
            text,
            prompt_tokens: prompt.tokens.len(),
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

/// Tokens that must have stood before in the same order for what followed them to be guessed.
const NGRAM: usize = 3;
/// Tokens of the answer whose words are made less likely.
const REPETITION_WINDOW: usize = 64;
