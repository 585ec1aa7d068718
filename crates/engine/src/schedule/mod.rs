//! Tasks that compute together: each pass takes some tokens of every one, so that the weights are read once for all.
//!
//! A task joins when there is memory for all of its tokens, and leaves when it is done; none fails half-way for
//! lack of memory. The most urgent joins first, and its prompt is computed first.

mod generation;
mod scoring;

use std::sync::Arc;
use std::time::Instant;

use crate::chat::{Chat, Encoded};
use crate::constraint::{Constraint, Grammars, Masks};
use crate::error::GenerateError;
use crate::gguf::Shape;
use crate::kept::Kept;
use crate::memory;
use crate::network::{Network, Output, Piece, ROWS, Sequence, part_bytes};
use crate::prefix::Prefixes;
use crate::request::{Answer, Control, Prompt, Scoring, Task};
use crate::tokenizer::Tokenizer;
use generation::Generation;
use scoring::Scored;

/// What tasks compute with.
pub(crate) struct Tools {
    pub(crate) network: Network,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) chat: Arc<Chat>,
    pub(crate) grammars: Grammars,
    pub(crate) masks: Masks,
    /// Tokens.
    pub(crate) context: usize,
    /// Bytes for keys and values.
    pub(crate) budget: u64,
    /// Answers that are written at the same time, at most.
    pub(crate) batch: usize,
    /// Tokens that are guessed for a pass, at most.
    pub(crate) drafts: usize,
    pub(crate) kept: Option<Kept>,
}

/// Names a task that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A task that is done.
pub type Finished = (Ticket, Result<Answer, GenerateError>);

pub(crate) struct Schedule {
    /// Most urgent first, then in the order they came.
    waiting: Vec<Waiting>,
    running: Vec<Running>,
    finished: Vec<Finished>,
    prefixes: Prefixes,
    next_ticket: u64,
}

struct Waiting {
    ticket: Ticket,
    priority: u8,
    control: Control,
    prompt: Encoded,
    work: Work,
}

struct Running {
    ticket: Ticket,
    priority: u8,
    control: Control,
    prompt: Encoded,
    sequence: Sequence,
    /// Where the part of the prompt ends that is being read; `None` when all that can be shared has been read.
    part: Option<usize>,
    /// Bytes set aside that it has not taken yet.
    promised: u64,
    work: Work,
}

enum Work {
    Generate(Box<Generation>),
    Score(Box<Scored>),
}

impl Schedule {
    pub(crate) fn new(prefixes: usize) -> Self {
        Self {
            waiting: Vec::new(),
            running: Vec::new(),
            finished: Vec::new(),
            prefixes: Prefixes::new(prefixes),
            next_ticket: 0,
        }
    }

    /// Makes a beginning known that was computed by an earlier process.
    pub(crate) fn know(&mut self, tokens: &[u32], sequence: Sequence) {
        self.prefixes.put(tokens, sequence);
    }

    /// Whether there is nothing to do and nothing to fetch.
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty() && self.finished.is_empty()
    }

    /// Greater is more urgent.
    pub(crate) fn submit(&mut self, tools: &Tools, task: Task, priority: u8, control: Control) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        match Waiting::new(tools, task, ticket, priority, control) {
            Ok(waiting) => {
                let at = self.waiting.partition_point(|other| other.priority >= priority);
                self.waiting.insert(at, waiting);
            }
            Err(error) => self.finished.push((ticket, Err(error))),
        }
        ticket
    }

    /// One pass, and what is done after it.
    pub(crate) fn step(&mut self, tools: &Tools) -> Vec<Finished> {
        self.stop_late_ones();
        self.admit(tools);
        if !self.running.is_empty() {
            self.pass(tools);
        }
        std::mem::take(&mut self.finished)
    }

    fn stop_late_ones(&mut self) {
        let finished = &mut self.finished;
        let mut keep = |ticket: Ticket, control: &Control, completion_tokens: usize| {
            let error = if control.is_cancelled() {
                GenerateError::Cancelled
            } else if control.is_past_deadline() {
                GenerateError::Deadline { completion_tokens }
            } else {
                return true;
            };
            finished.push((ticket, Err(error)));
            false
        };
        self.waiting.retain(|waiting| keep(waiting.ticket, &waiting.control, 0));
        self.running
            .retain(|running| keep(running.ticket, &running.control, running.work.completion_tokens()));
    }

    /// Lets those join that there is room for, the most urgent first; none overtakes a more urgent one for being smaller.
    fn admit(&mut self, tools: &Tools) {
        while let Some(first) = self.waiting.first() {
            let answers = self.running.iter().filter(|running| matches!(running.work, Work::Generate(_)));
            if matches!(first.work, Work::Generate(_)) && answers.count() >= tools.batch {
                // Scores are short: they need not wait for an answer's end.
                let Some(at) = self.waiting.iter().position(|next| matches!(next.work, Work::Score(_)))
                else {
                    return;
                };
                let score = self.waiting.remove(at);
                self.waiting.insert(0, score);
                continue;
            }
            // Held from here on, so that what it begins with is not given up to make room for it.
            let known = self.prefixes.longest(&first.prompt, first.limit());
            let known = known.unwrap_or_else(|| tools.network.sequence(0));
            let needed = first.bytes(tools, known.len());
            let mut is_short = self.is_short(tools, needed);
            while is_short.is_some() && self.prefixes.drop_oldest() {
                is_short = self.is_short(tools, needed);
            }
            let waiting = match is_short {
                None => self.waiting.remove(0),
                Some(_) if !self.running.is_empty() => return,
                // Alone, and it does not fit.
                Some(limit) => {
                    let (needed_mib, limit_mib) = (needed.div_ceil(memory::MIB), limit / memory::MIB);
                    let error = GenerateError::Memory { needed_mib, limit_mib };
                    let ticket = self.waiting.remove(0).ticket;
                    self.finished.push((ticket, Err(error)));
                    continue;
                }
            };
            let running = waiting.start(tools, &mut self.prefixes, known);
            self.running.push(running);
        }
    }

    /// The limit that `needed` bytes more would pass.
    fn is_short(&self, tools: &Tools, needed: u64) -> Option<u64> {
        let promised: u64 = self.running.iter().map(|running| running.promised).sum();
        let taken = tools.network.sequence_bytes() + promised;
        if taken.saturating_add(needed) > tools.budget {
            return Some(tools.budget);
        }
        let available = if tools.network.is_here() { memory::available() } else { None };
        available.filter(|available| needed + promised > *available)
    }

    fn pass(&mut self, tools: &Tools) {
        for running in self.running.iter_mut().filter(|running| running.part.is_some()) {
            running.adopt(tools, &mut self.prefixes);
        }
        let shares = self.shares();
        let constraints = self.running.iter_mut().zip(&shares).enumerate();
        let constraints = constraints.filter_map(|(i, (running, share))| Some((i, running.lend(*share)?)));
        tools.masks.begin(constraints.collect());
        let (mut pieces, mut counts) = (Vec::new(), Vec::new());
        for (running, share) in self.running.iter_mut().zip(&shares) {
            let before = pieces.len();
            running.pieces(*share, &mut pieces);
            counts.push(pieces.len() - before);
        }
        let outputs = tools.network.forward(&mut pieces);
        let masks = tools.masks.end();
        let mut outputs = match outputs {
            Ok(outputs) => outputs.into_iter(),
            Err(what) => return self.fail(&what),
        };
        for (i, masked) in masks {
            if let Work::Generate(generation) = &mut self.running[i].work {
                generation.masked = Some(masked);
            }
        }

        // Guessing pays while the weights' way from memory takes longer than computing with them.
        let drafts = match tools.network.shape().state_len() {
            0 => tools.drafts / self.running.len(),
            _ => 0,
        };
        let running = std::mem::take(&mut self.running);
        for ((mut running, share), count) in running.into_iter().zip(shares).zip(counts) {
            let outputs: Vec<Output> = outputs.by_ref().take(count).collect();
            match running.take(tools, &mut self.prefixes, share, outputs, drafts) {
                Ok(None) => self.running.push(running),
                Ok(Some(answer)) => self.finished.push((running.ticket, Ok(answer))),
                Err(error) => self.finished.push((running.ticket, Err(error))),
            }
        }
    }

    /// Ends all that was under way: of a pass that failed, nobody knows what it left behind.
    fn fail(&mut self, what: &str) {
        let error = |running: Running| (running.ticket, Err(GenerateError::Inference(what.into())));
        self.finished.extend(self.running.drain(..).map(error));
    }

    /// The rows that each gets of the next pass: answers what they need, then prompts, the most urgent first. What
    /// several prompts begin with is read by one of them.
    fn shares(&self) -> Vec<usize> {
        let mut shares = vec![0; self.running.len()];
        let mut order: Vec<usize> = (0..shares.len()).collect();
        order.sort_by_key(|&i| {
            let running = &self.running[i];
            (!running.is_writing(), std::cmp::Reverse(running.priority), running.ticket)
        });
        let (mut left, mut read) = (ROWS, Vec::new());
        for i in order {
            let beginning = self.running[i].beginning();
            if beginning.is_some_and(|beginning| read.contains(&beginning)) {
                continue;
            }
            read.extend(beginning);
            shares[i] = self.running[i].wanted_rows().min(left);
            left -= shares[i];
        }
        shares
    }
}

impl Waiting {
    fn new(
        tools: &Tools,
        task: Task,
        ticket: Ticket,
        priority: u8,
        control: Control,
    ) -> Result<Self, GenerateError> {
        let submitted = Instant::now();
        let encode = |prompt: &Prompt| tools.chat.encode(prompt, &tools.tokenizer);
        let (prompt, most, work) = match task {
            Task::Generate(request) => {
                let prompt = encode(&request.prompt);
                let most = request.max_tokens;
                (prompt, most, Work::Generate(Box::new(Generation::new(tools, request, submitted)?)))
            }
            Task::Score(scoring) => {
                let Scoring { prompt, questions, hidden } = scoring;
                let scored = Scored::new(tools, questions, hidden, submitted);
                (encode(&prompt), scored.longest(), Work::Score(Box::new(scored)))
            }
        };
        let (prompt_tokens, context) = (prompt.tokens.len(), tools.context);
        if prompt_tokens == 0 || prompt_tokens.saturating_add(most) > context {
            return Err(GenerateError::TooLong { prompt_tokens, max_tokens: most, context });
        }
        Ok(Self { ticket, priority, control, prompt, work })
    }

    /// Bytes of its keys and values, but for the first `known` tokens.
    fn bytes(&self, tools: &Tools, known: usize) -> u64 {
        let shape = tools.network.shape();
        part_bytes_from(shape, known, &self.prompt.ends) + self.work.bytes(shape, self.prompt.own_tokens())
    }

    /// The longest beginning of its prompt that it may take as known.
    fn limit(&self) -> usize {
        self.work.limit(&self.prompt)
    }

    /// Begins after the tokens that are known.
    fn start(self, tools: &Tools, prefixes: &mut Prefixes, known: Sequence) -> Running {
        let Self { ticket, priority, control, prompt, work } = self;
        let mut running =
            Running { ticket, priority, control, prompt, sequence: known, part: None, promised: 0, work };
        running.go_on(tools, prefixes);
        running
    }
}

/// Bytes of the parts of a prompt that begin at `start`.
fn part_bytes_from(shape: &Shape, start: usize, ends: &[usize]) -> u64 {
    let ends = ends.iter().filter(|end| **end > start);
    ends.scan(start, |start, end| Some(part_bytes(shape, end - std::mem::replace(start, *end)))).sum()
}

impl Running {
    /// Whether an answer is being written; else a prompt is read, or candidates are scored.
    fn is_writing(&self) -> bool {
        matches!(self.work, Work::Generate(_)) && self.part.is_none()
    }

    /// The constraint of an answer whose next token a pass of `share` rows gives.
    fn lend(&mut self, share: usize) -> Option<Constraint> {
        match (self.part, &mut self.work) {
            (None, Work::Generate(generation)) => generation.lend(share),
            _ => None,
        }
    }

    fn wanted_rows(&self) -> usize {
        match (self.part, &self.work) {
            (Some(end), _) => end - self.sequence.len(),
            (None, Work::Generate(generation)) => generation.pending(),
            (None, Work::Score(scored)) => scored.pending(),
        }
    }

    /// What others may be reading too: the prompt up to the end of the part that is being read.
    fn beginning(&self) -> Option<&[u32]> {
        self.part.map(|end| &self.prompt.tokens[..end])
    }

    /// Goes on from the longest beginning that is known, if it is longer than what has been read.
    fn adopt(&mut self, tools: &Tools, prefixes: &mut Prefixes) {
        let known = prefixes.longest(&self.prompt, self.work.limit(&self.prompt));
        if let Some(known) = known.filter(|known| known.len() > self.sequence.len()) {
            self.sequence = known;
            self.go_on(tools, prefixes);
        }
    }

    /// Begins where the tokens end that were known.
    fn go_on(&mut self, tools: &Tools, prefixes: &mut Prefixes) {
        match &mut self.work {
            Work::Generate(generation) => generation.cached_tokens = self.sequence.len(),
            Work::Score(scored) => scored.cached_tokens = self.sequence.len(),
        }
        self.enter_part(tools, prefixes);
    }

    /// Takes memory for what comes next: a part of the prompt, or what is computed for this task alone.
    fn enter_part(&mut self, tools: &Tools, prefixes: &mut Prefixes) {
        let shape = tools.network.shape();
        let len = self.sequence.len();
        self.part = self.prompt.ends.iter().copied().find(|end| *end > len);
        self.promised = match (self.part, &mut self.work) {
            (Some(end), work) => {
                self.sequence = self.sequence.branch(end - len);
                part_bytes_from(shape, end, &self.prompt.ends) + work.bytes(shape, self.prompt.own_tokens())
            }
            (None, Work::Generate(generation)) => {
                // Kept for this answer alone, after its scores.
                prefixes.remove(&self.prompt.tokens[..len]);
                let capacity = generation.begin(&self.prompt.tokens[len..]);
                self.sequence = self.sequence.branch(capacity);
                0
            }
            (None, Work::Score(scored)) => {
                scored.begin(shape, &mut self.sequence, &self.prompt.tokens[len..])
            }
        };
    }

    fn pieces<'a>(&'a mut self, share: usize, pieces: &mut Vec<Piece<'a>>) {
        if share == 0 {
            return;
        }
        let len = self.sequence.len();
        match (self.part, &mut self.work) {
            (Some(_), work) => {
                let tokens = &self.prompt.tokens[len..len + share];
                let hidden = match work {
                    Work::Score(scored) if scored.wants_hidden() => {
                        (len + share).saturating_sub(self.prompt.user.start.max(len))
                    }
                    _ => 0,
                };
                pieces.push(Piece { sequence: &mut self.sequence, tokens, logits: 0, hidden });
            }
            (None, Work::Generate(generation)) => {
                pieces.push(generation.piece(&mut self.sequence));
            }
            (None, Work::Score(scored)) => scored.pieces(share, pieces),
        }
    }

    /// Takes what a pass of `share` rows gave; the answer, when this was its last. `drafts`: tokens that may be guessed.
    fn take(
        &mut self,
        tools: &Tools,
        prefixes: &mut Prefixes,
        share: usize,
        outputs: Vec<Output>,
        drafts: usize,
    ) -> Result<Option<Answer>, GenerateError> {
        if share == 0 {
            return Ok(None);
        }
        let Some(end) = self.part else {
            return match &mut self.work {
                Work::Generate(generation) => {
                    let (prompt, sequence) = (&self.prompt, &mut self.sequence);
                    let completion = generation.take(tools, outputs, prompt, sequence, drafts)?;
                    Ok(completion.map(Answer::Completion))
                }
                Work::Score(scored) => {
                    let scores = scored.take(tools.network.shape(), outputs, &self.prompt);
                    Ok(scores.map(Answer::Scores))
                }
            };
        };
        let len = self.sequence.len();
        if let Work::Score(scored) = &mut self.work {
            let width = tools.network.shape().hidden;
            for output in &outputs {
                scored.add_hidden(width, &output.hidden, len, &self.prompt.user);
            }
        }
        if len == end {
            // Of a whole question only scores are followed by another task, which writes about it.
            if Some(&end) != self.prompt.ends.last() || matches!(self.work, Work::Score(_)) {
                let known = self.sequence.branch(0);
                if let Some(kept) = tools.kept.as_ref().filter(|_| self.prompt.ends.first() == Some(&end)) {
                    kept.save(&self.prompt.tokens[..end], &known);
                }
                prefixes.put(&self.prompt.tokens[..end], known);
            }
            self.enter_part(tools, prefixes);
        }
        Ok(None)
    }
}

impl Work {
    /// Where the states of the user text are wanted, it is computed even if its keys and values are known.
    fn limit(&self, prompt: &Encoded) -> usize {
        match self {
            Self::Score(scored) if scored.wants_hidden() => prompt.user.start,
            _ => usize::MAX,
        }
    }

    fn completion_tokens(&self) -> usize {
        match self {
            Self::Generate(generation) => generation.completion_tokens(),
            Self::Score(_) => 0,
        }
    }

    /// Bytes of keys and values beyond the parts of a prompt that can be shared, of which `own_tokens` are left.
    fn bytes(&self, shape: &Shape, own_tokens: usize) -> u64 {
        match self {
            Self::Generate(generation) => part_bytes(shape, own_tokens + generation.max_tokens()),
            Self::Score(scored) => scored.bytes(shape, own_tokens),
        }
    }
}
