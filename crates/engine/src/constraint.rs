//! What an answer may contain, token by token, so that it fits its JSON schema by construction.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use llguidance::api::TopLevelGrammar;
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use toktrie::{InferenceCapabilities, SimpleVob};

use crate::error::GenerateError;
use crate::tokenizer::{Environment, Tokenizer};

/// A constraint with the tokens that it allows next.
pub(crate) struct Masked {
    pub(crate) constraint: Constraint,
    pub(crate) allowed: Result<SimpleVob, GenerateError>,
}

/// Computes masks beside the forward pass, on a thread of its own.
pub(crate) struct Masks {
    constraints: mpsc::Sender<Vec<(usize, Constraint)>>,
    masks: mpsc::Receiver<Vec<(usize, Masked)>>,
}

impl Masks {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (constraints, work) = mpsc::channel::<Vec<(usize, Constraint)>>();
        let (done, masks) = mpsc::channel();
        // It ends when `constraints` is dropped.
        std::thread::Builder::new().name("model-masks".into()).spawn(move || {
            for batch in work {
                let mask = |(number, mut constraint): (usize, Constraint)| {
                    // One answer's defect is not to end the thread, and with it all answers.
                    let allowed = catch_unwind(AssertUnwindSafe(|| constraint.allowed()));
                    let allowed =
                        allowed.unwrap_or_else(|_| Err(GenerateError::Inference("a mask panicked".into())));
                    (number, Masked { constraint, allowed })
                };
                if done.send(batch.into_iter().map(mask).collect()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { constraints, masks })
    }

    /// Starts on the constraints of one pass, each with a number by which it comes back.
    pub(crate) fn begin(&self, constraints: Vec<(usize, Constraint)>) {
        // A thread that has died is noticed in `end`.
        self.constraints.send(constraints).ok();
    }

    /// What [`Masks::begin`] was given, with masks; nothing if the thread has died.
    pub(crate) fn end(&self) -> Vec<(usize, Masked)> {
        self.masks.recv().unwrap_or_default()
    }
}

/// Makes a [`Constraint`] for each request; what depends on the vocabulary is computed once.
pub(crate) struct Grammars {
    factory: ParserFactory,
}

pub(crate) struct Constraint {
    matcher: Matcher,
}

impl Grammars {
    pub(crate) fn new(tokenizer: &Arc<Tokenizer>) -> Result<Self, String> {
        let capabilities = InferenceCapabilities { ff_tokens: true, ..Default::default() };
        let slices = llguidance::earley::SlicedBiasComputer::json_slices();
        let mut factory = ParserFactory::new(&Environment::shared(tokenizer), capabilities, &slices)
            .map_err(|error| error.to_string())?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { factory })
    }

    pub(crate) fn constraint(&self, schema: &Value) -> Result<Constraint, GenerateError> {
        let mut schema = schema.clone();
        let Some(object) = schema.as_object_mut() else {
            return Err(GenerateError::Schema("it is not a JSON object".into()));
        };
        // Optional whitespace is where small models run away.
        let compact = json!({ "whitespace_flexible": false, "item_separator": ",", "key_separator": ":" });
        object.insert("x-guidance".into(), compact);
        let matcher = Matcher::new(self.factory.create_parser(TopLevelGrammar::from_json_schema(schema)));
        match matcher.get_error() {
            Some(error) => Err(GenerateError::Schema(error)),
            None => Ok(Constraint { matcher }),
        }
    }
}

impl Constraint {
    /// The tokens that must come next whatever the model thinks; they are taken.
    pub(crate) fn forced(&mut self) -> Vec<u32> {
        self.matcher.consume_ff_tokens()
    }

    pub(crate) fn allowed(&mut self) -> Result<SimpleVob, GenerateError> {
        self.matcher.compute_mask().map_err(failed)
    }

    pub(crate) fn take(&mut self, token: u32) -> Result<(), GenerateError> {
        self.matcher.consume_token(token).map_err(failed)
    }

    /// How many of `tokens`, from the first, the grammar would allow one after the other. None are taken.
    pub(crate) fn count_valid(&mut self, tokens: &[u32]) -> usize {
        self.matcher.validate_tokens(tokens).unwrap_or(0)
    }

    /// Whether the answer is complete. Fails when the grammar gave up, which a complete answer never does.
    pub(crate) fn is_complete(&mut self) -> Result<bool, GenerateError> {
        match self.matcher.get_error() {
            Some(error) => Err(GenerateError::Schema(error)),
            None => Ok(self.matcher.is_stopped()),
        }
    }
}

fn failed(error: impl std::fmt::Display) -> GenerateError {
    GenerateError::Schema(error.to_string())
}
