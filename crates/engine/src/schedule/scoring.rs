//! Log-probabilities of given answers: each question goes on from the prompt, each candidate from its question, and
//! all that are at the same step are computed in one pass.

use std::ops::Range;
use std::time::Instant;

use super::Tools;
use crate::chat::Encoded;
use crate::gguf::Shape;
use crate::network::{Output, Piece, Sequence, part_bytes};
use crate::request::{Question, Scores};

pub(super) struct Scored {
    questions: Vec<Encodings>,
    branches: Vec<Branch>,
    log_probabilities: Vec<Vec<f64>>,
    wants_hidden: bool,
    last_hidden: Vec<f32>,
    /// The sum over the user's tokens so far, and their number.
    hidden_sum: (Vec<f64>, usize),
    submitted: Instant,
    pub(super) cached_tokens: usize,
}

/// A question in tokens.
struct Encodings {
    answer: Vec<u32>,
    candidates: Vec<Vec<u32>>,
}

/// A way that the text after the prompt may go on.
struct Branch {
    question: usize,
    /// Absent for the question itself, which all of its candidates go on from.
    candidate: Option<usize>,
    sequence: Sequence,
    tokens: Vec<u32>,
    seen: usize,
    /// Tokens of the pass under way.
    share: usize,
}

impl Scored {
    pub(super) fn new(tools: &Tools, mut questions: Vec<Question>, hidden: bool, submitted: Instant) -> Self {
        if questions.is_empty() {
            questions.push(Question::default());
        }
        let encode = |text: &String| tools.tokenizer.encode_data(text);
        let questions: Vec<Encodings> = questions
            .iter()
            .map(|question| Encodings {
                answer: encode(&question.answer),
                candidates: question.candidates.iter().map(encode).collect(),
            })
            .collect();
        let log_probabilities =
            questions.iter().map(|question| vec![0.0; question.candidates.len()]).collect();
        Self {
            questions,
            branches: Vec::new(),
            log_probabilities,
            wants_hidden: hidden,
            last_hidden: Vec::new(),
            hidden_sum: (Vec::new(), 0),
            submitted,
            cached_tokens: 0,
        }
    }

    pub(super) fn wants_hidden(&self) -> bool {
        self.wants_hidden
    }

    /// Tokens of the longest question with its longest candidate.
    pub(super) fn longest(&self) -> usize {
        let longest = |question: &Encodings| {
            question.answer.len() + question.candidates.iter().map(Vec::len).max().unwrap_or(0)
        };
        self.questions.iter().map(longest).max().unwrap_or(0)
    }

    /// Of all branches, which begin with `rest` tokens of the prompt.
    pub(super) fn bytes(&self, shape: &Shape, rest: usize) -> u64 {
        let question = |question: &Encodings| part_bytes(shape, rest + question.answer.len());
        self.questions.iter().map(question).sum::<u64>() + self.candidate_bytes(shape)
    }

    fn candidate_bytes(&self, shape: &Shape) -> u64 {
        let candidates = self.questions.iter().flat_map(|question| &question.candidates);
        candidates.map(|tokens| part_bytes(shape, tokens.len().saturating_sub(1))).sum()
    }

    /// Begins the questions after a prompt whose last tokens are `rest`; gives the bytes that the candidates will take.
    pub(super) fn begin(&mut self, shape: &Shape, sequence: &mut Sequence, rest: &[u32]) -> u64 {
        let branch = |(question, encodings): (usize, &Encodings)| {
            let tokens = [rest, &encodings.answer].concat();
            let sequence = sequence.branch(tokens.len());
            Branch { question, candidate: None, sequence, tokens, seen: 0, share: 0 }
        };
        self.branches = self.questions.iter().enumerate().map(branch).collect();
        self.candidate_bytes(shape)
    }

    /// Tokens to compute at this step.
    pub(super) fn pending(&self) -> usize {
        self.branches.iter().map(|branch| branch.tokens.len() - branch.seen).sum()
    }

    pub(super) fn pieces<'a>(&'a mut self, share: usize, pieces: &mut Vec<Piece<'a>>) {
        let mut left = share;
        for branch in &mut self.branches {
            branch.share = (branch.tokens.len() - branch.seen).min(left);
            left -= branch.share;
            if branch.share > 0 {
                let is_first = branch.question == 0 && branch.candidate.is_none();
                let end = branch.seen + branch.share;
                pieces.push(Piece {
                    sequence: &mut branch.sequence,
                    tokens: &branch.tokens[branch.seen..end],
                    logits: match branch.candidate {
                        Some(_) => branch.share,
                        None => usize::from(end == branch.tokens.len()),
                    },
                    hidden: if is_first && self.wants_hidden { branch.share } else { 0 },
                });
            }
        }
    }

    /// Takes what a pass gave; the scores, when it was the last.
    pub(super) fn take(&mut self, shape: &Shape, outputs: Vec<Output>, prompt: &Encoded) -> Option<Scores> {
        let mut outputs = outputs.into_iter();
        let mut begun = Vec::new();
        for number in 0..self.branches.len() {
            let branch = &mut self.branches[number];
            if branch.share == 0 {
                continue;
            }
            let output = outputs.next()?;
            let rest = prompt.own_tokens();
            let (start, end) = (branch.seen, branch.seen + branch.share);
            (branch.seen, branch.share) = (end, 0);
            let rows = output.logits.chunks_exact(shape.vocab);
            let candidates = &self.questions[branch.question].candidates;
            let scores = &mut self.log_probabilities[branch.question];
            if let Some(number) = branch.candidate {
                let next = &candidates[number][start + 1..=end];
                scores[number] += rows.zip(next).map(|(row, id)| Distribution::of(row).log(*id)).sum::<f64>();
            } else if end == branch.tokens.len() {
                let distribution = Distribution::of(&output.logits);
                for (number, tokens) in candidates.iter().enumerate() {
                    let Some((first, others)) = tokens.split_first() else { continue };
                    scores[number] = distribution.log(*first);
                    if !others.is_empty() {
                        let tokens = tokens[..others.len()].to_vec();
                        let sequence = branch.sequence.branch(tokens.len());
                        let (question, candidate) = (branch.question, Some(number));
                        begun.push(Branch { question, candidate, sequence, tokens, seen: 0, share: 0 });
                    }
                }
            }
            if !output.hidden.is_empty() {
                let first = prompt.tokens.len() - rest;
                if (start..end).contains(&(rest - 1)) {
                    let row = rest - 1 - start;
                    self.last_hidden = output.hidden[row * shape.hidden..][..shape.hidden].to_vec();
                }
                self.add_hidden(shape.hidden, &output.hidden, first + end, &prompt.user);
            }
        }
        self.branches.retain(|branch| branch.seen < branch.tokens.len());
        self.branches.append(&mut begun);
        self.branches.is_empty().then(|| self.scores(prompt.tokens.len()))
    }

    /// Adds the states of the tokens before `end`, a row of `width` numbers each, as far as they are the user's.
    pub(super) fn add_hidden(&mut self, width: usize, rows: &[f32], end: usize, user: &Range<usize>) {
        let rows = rows.chunks_exact(width);
        let start = end - rows.len();
        for (_, row) in (start..end).zip(rows).filter(|(token, _)| user.contains(token)) {
            let (sum, count) = &mut self.hidden_sum;
            sum.resize(width, 0.0);
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
            *count += 1;
        }
    }

    fn scores(&mut self, prompt_tokens: usize) -> Scores {
        let (sum, count) = &self.hidden_sum;
        Scores {
            log_probabilities: std::mem::take(&mut self.log_probabilities),
            last_hidden: std::mem::take(&mut self.last_hidden),
            mean_hidden: sum.iter().map(|sum| (sum / *count as f64) as f32).collect(),
            prompt_tokens,
            cached_tokens: self.cached_tokens,
            seconds: self.submitted.elapsed().as_secs_f64(),
        }
    }
}

/// Of the next token. What all tokens have in common takes longest, and is computed once.
struct Distribution<'a> {
    logits: &'a [f32],
    greatest: f32,
    log_sum: f64,
}

impl<'a> Distribution<'a> {
    fn of(logits: &'a [f32]) -> Self {
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - greatest).exp()).sum();
        Self { logits, greatest, log_sum: sum.ln() }
    }

    fn log(&self, id: u32) -> f64 {
        f64::from(self.logits[id as usize] - self.greatest) - self.log_sum
    }
}
