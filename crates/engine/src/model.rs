//! A model ready to answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::chat::Chat;
use crate::constraint::{Grammars, Masks};
use crate::device::Device;
use crate::error::{GenerateError, LoadError};
use crate::gguf::{self, Header, Info, Shape};
use crate::kept::Kept;
use crate::memory;
use crate::network::{Network, Pool};
use crate::request::{Answer, Completion, Control, Prompt, Question, Request, Scores, Scoring, Task};
use crate::schedule::{Finished, Schedule, Ticket, Tools};
use crate::source::Source;
use crate::tokenizer::Tokenizer;

/// How a model is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What computes. All that follows but `threads` and `niceness` holds for each.
    pub device: Device,
    /// Threads that compute; 0 is as many as there are processors. Whatever else wants a processor gets it, see
    /// `niceness`.
    pub threads: usize,
    /// 0 to 19: how readily those threads, and the one that calls, give way to others. Without effect except on Linux.
    pub niceness: u8,
    /// Fail rather than use more; what the machine has available is a limit too.
    pub memory_limit_bytes: Option<u64>,
    /// Most tokens of prompt and answer together; the model's own limit, at most 4,096, when absent.
    pub context: Option<usize>,
    /// How many beginnings of prompts keep their keys and values.
    pub prefixes: usize,
    /// How many answers are written at the same time, at most; at least 1.
    pub batch: usize,
    /// How many tokens are guessed at most, from what the prompt says, to be checked in one pass; 0 is off. Changes no answer.
    pub drafts: usize,
    /// A file in which the keys and values of the latest system text are kept for the next process; `None` is off. Reading it
    /// is faster than computing them. Who may write it may change what the model has read: keep it where the model is.
    pub kept_prefix: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: Device::default(),
            threads: 0,
            niceness: 10,
            memory_limit_bytes: None,
            context: None,
            prefixes: 16,
            batch: 8,
            drafts: 8,
            kept_prefix: None,
        }
    }
}

/// Weights, tokenizer, chat template and prefix cache of one GGUF, and the tasks under way.
pub struct Model {
    info: Info,
    tools: Tools,
    schedule: Schedule,
    pub(crate) load: Duration,
}

/// Counts tokens as a [`Model`] would, on any thread.
#[derive(Clone)]
pub struct Tokens {
    tokenizer: Arc<Tokenizer>,
    chat: Arc<Chat>,
}

impl Tokens {
    /// Of the model at `source`, whose weights are not read.
    pub fn read(source: &Source) -> Result<Self, LoadError> {
        let mapping = source.map()?;
        let header = Header::read(mapping.path(), &mapping)?;
        Self::of(&header, &Shape::read(&header)?)
    }

    fn of(header: &Header<'_>, shape: &Shape) -> Result<Self, LoadError> {
        let tokenizer = Arc::new(Tokenizer::read(header, shape.vocab)?);
        let chat = Arc::new(Chat::read(header, &tokenizer)?);
        Ok(Self { tokenizer, chat })
    }

    /// Tokens of `text` as data. Reads no weights: some 2 MB a second.
    pub fn count(&self, text: &str) -> usize {
        self.tokenizer.encode_data(text).len()
    }

    /// Tokens of the whole prompt, with those of the chat template.
    pub fn count_prompt(&self, prompt: &Prompt) -> usize {
        self.chat.encode(prompt, &self.tokenizer).tokens.len()
    }
}

impl Model {
    /// Reads, checks and prepares a model: about 0.2 s and its memory for a model of 100 MB.
    pub fn open(source: &Source, options: &Options) -> Result<Self, LoadError> {
        let started = Instant::now();
        let mapping = source.map()?;
        let header = Header::read(mapping.path(), &mapping)?;
        let shape = Shape::read(&header)?;
        let context = options.context.unwrap_or(memory::default_context(&shape)).clamp(1, shape.context);
        let device = options.device.open()?;
        let memory_bytes = match &device {
            Some(device) => memory::needed_on(device, &header, &shape, context),
            None => memory::needed(&header, &shape, context),
        };
        let is_here = device.as_ref().is_none_or(candle_core::Device::is_cpu);
        let available = if is_here { memory::available() } else { None };
        memory::check(&header, memory_bytes, options.memory_limit_bytes, available)?;
        let Tokens { tokenizer, chat } = Tokens::of(&header, &shape)?;
        let grammars = Grammars::new(&tokenizer)
            .map_err(|what| LoadError::Tokenizer { path: source.path.clone(), what })?;
        let masks = Masks::start().map_err(|error| LoadError::Read { path: source.path.clone(), error })?;
        let network = match device {
            Some(device) => Network::load_on(device, &mapping, &header, &shape, context)?,
            None => {
                let pool = Pool::new(options.threads, options.niceness)
                    .map_err(|error| LoadError::Read { path: source.path.clone(), error })?;
                Network::load(&mapping, &header, &shape, context, pool)?
            }
        };
        // A limit leaves what the weights do not take; without one, several full contexts may be kept.
        let one = memory::sequence(&shape, context);
        let budget = match options.memory_limit_bytes {
            Some(limit) => limit.saturating_sub(memory_bytes - one),
            None => CONTEXTS * one,
        };
        let kept = options.kept_prefix.as_ref().map(|path| Kept::new(path, &mapping, &network, context));
        let mut schedule = Schedule::new(options.prefixes);
        if let Some((tokens, sequence)) = kept.as_ref().and_then(|kept| kept.load(&network)) {
            schedule.know(&tokens, sequence);
        }
        Ok(Self {
            info: gguf::info(&header, &shape, source),
            tools: Tools {
                network,
                tokenizer,
                chat,
                grammars,
                masks,
                context,
                budget,
                batch: options.batch.max(1),
                drafts: options.drafts,
                kept,
            },
            schedule,
            load: started.elapsed(),
        })
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    pub(crate) fn network(&self) -> &Network {
        &self.tools.network
    }

    /// Most tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.tools.context
    }

    /// What counts tokens, for other threads too.
    pub fn tokens(&self) -> Tokens {
        Tokens { tokenizer: Arc::clone(&self.tools.tokenizer), chat: Arc::clone(&self.tools.chat) }
    }

    /// Adds a task, which computes together with those under way. Greater priorities go first.
    pub fn submit(&mut self, task: Task, priority: u8, control: Control) -> Ticket {
        self.schedule.submit(&self.tools, task, priority, control)
    }

    /// One pass for all tasks: some milliseconds, at most 128 tokens. Gives what is done after it.
    pub fn step(&mut self) -> Vec<Finished> {
        self.schedule.step(&self.tools)
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.schedule.is_idle()
    }

    /// An answer that fits the request's schema, or why there is none. For a model that has no other task.
    pub fn generate(&mut self, request: &Request, control: &Control) -> Result<Completion, GenerateError> {
        match self.finish(Task::Generate(request.clone()), control)? {
            Answer::Completion(completion) => Ok(completion),
            Answer::Scores(_) => Err(GenerateError::Inference("scores where text was asked for".into())),
        }
    }

    /// Log-probability of each candidate as what follows the prompt: the sum over its tokens, so compare candidates
    /// of about the same length. In the order of `candidates`. For a model that has no other task.
    pub fn score(
        &mut self,
        prompt: &Prompt,
        candidates: &[&str],
        control: &Control,
    ) -> Result<Vec<f64>, GenerateError> {
        let candidates = candidates.iter().map(|text| (*text).to_owned()).collect();
        let question = Question { answer: String::new(), candidates };
        let scoring = Scoring { prompt: prompt.clone(), questions: vec![question], hidden: false };
        let mut scores = self.scores(&scoring, control)?;
        Ok(scores.log_probabilities.swap_remove(0))
    }

    /// The answers to several closed questions about one prompt. For a model that has no other task.
    pub fn scores(&mut self, scoring: &Scoring, control: &Control) -> Result<Scores, GenerateError> {
        match self.finish(Task::Score(scoring.clone()), control)? {
            Answer::Scores(scores) => Ok(scores),
            Answer::Completion(_) => Err(GenerateError::Inference("text where scores were asked for".into())),
        }
    }

    fn finish(&mut self, task: Task, control: &Control) -> Result<Answer, GenerateError> {
        let ticket = self.submit(task, 0, control.clone());
        loop {
            if let Some((_, answer)) = self.step().into_iter().find(|(done, _)| *done == ticket) {
                return answer;
            }
        }
    }
}

/// Full contexts of keys and values that are kept where no limit is set.
const CONTEXTS: u64 = 4;
