//! The speed of a model on this machine, as `watchpost model bench` shows it.

use std::time::{Duration, Instant};

use crate::memory;
use crate::model::Model;
use crate::network::ROWS;

/// What [`Model::bench`] measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    /// How long [`Model::open`] took.
    pub load: Duration,
    /// Tokens a second over a prompt of 512 tokens.
    pub prompt_tokens_per_second: f64,
    /// Tokens a second over an answer of 128 tokens after an empty prompt, without the cost of constraints.
    pub decode_tokens_per_second: f64,
    /// Of this process so far; absent where the system does not say.
    pub peak_rss_bytes: Option<u64>,
    /// The kernels in use, e.g. `avx512`.
    pub kernels: &'static str,
}

impl Model {
    /// Best of two runs each. Takes seconds; shorter than 512 and 128 tokens where the context is.
    pub fn bench(&mut self) -> Bench {
        let prompt = arbitrary_tokens(512.min(self.context()), self.info().vocab);
        let answer = arbitrary_tokens(128.min(self.context()), self.info().vocab);
        let rate = |tokens: &[u32], rows: usize| {
            let mut best = 0f64;
            for _ in 0..2 {
                let mut sequence = self.network().sequence(tokens.len());
                let started = Instant::now();
                for chunk in tokens.chunks(rows) {
                    self.network().next(&mut sequence, chunk);
                }
                best = best.max(tokens.len() as f64 / started.elapsed().as_secs_f64());
            }
            best
        };
        Bench {
            load: self.load,
            prompt_tokens_per_second: rate(&prompt, ROWS),
            decode_tokens_per_second: rate(&answer, 1),
            peak_rss_bytes: memory::peak_rss(),
            kernels: self.network().kernels(),
        }
    }
}

/// The same tokens on every machine; what they say does not matter for speed.
fn arbitrary_tokens(count: usize, vocab: usize) -> Vec<u32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % vocab as u32
    };
    (0..count).map(|_| next()).collect()
}
