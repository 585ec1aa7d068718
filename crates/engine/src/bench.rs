//! The speed of a model on this machine, as `watchpost model bench` shows it.

use std::time::{Duration, Instant};

use crate::error::GenerateError;
use crate::machine::Limits;
use crate::memory;
use crate::model::Model;
use crate::network::{Piece, ROWS};

/// What [`Model::bench`] measured. Speeds are tokens a second, without the cost of constraints.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    /// How long [`Model::open`] took.
    pub load: Duration,
    /// Over a prompt of 512 tokens.
    pub prompt_tokens_per_second: f64,
    /// Over an answer of 128 tokens after an empty prompt.
    pub decode_tokens_per_second: f64,
    /// Over an answer of 64 tokens after 700 others; absent where the context is shorter.
    pub decode_at_700_tokens_per_second: Option<f64>,
    /// Over 8 answers of 32 tokens at the same time, of all together.
    pub batch_tokens_per_second: f64,
    /// Bytes of weights that a pass reads, and multiplications of a token with weights.
    pub weight_bytes: u64,
    pub products: u64,
    /// What the machine can do; absent where there is no memory to find it out, and for what candle computes.
    pub limits: Option<Limits>,
    /// Of this process so far, without the finding of the limits; absent where the system does not say.
    pub peak_rss_bytes: Option<u64>,
    /// What computes: the kernels in use, e.g. `avx512`, or `candle`, `cuda`, `metal`.
    pub kernels: &'static str,
}

impl Bench {
    /// Of the memory's speed, by answers. `None` for weights that a cache may hold, which are not read from memory.
    pub fn share_of_memory(&self) -> Option<f64> {
        let limits = self.limits.filter(|_| self.weight_bytes > CACHE_BYTES)?;
        Some(self.decode_tokens_per_second * self.weight_bytes as f64 / limits.bytes_per_second)
    }

    /// Of the multiplications that the processor can make, by prompts.
    pub fn share_of_products(&self) -> Option<f64> {
        let limits = self.limits?;
        Some(self.prompt_tokens_per_second * self.products as f64 / limits.products_per_second)
    }
}

impl Model {
    /// Best of two runs each. Takes seconds; shorter than 512 and 128 tokens where the context is.
    pub fn bench(&mut self) -> Result<Bench, GenerateError> {
        let context = self.context();
        Ok(Bench {
            load: self.load,
            prompt_tokens_per_second: self.rate(0, 512.min(context), ROWS)?,
            decode_tokens_per_second: self.rate(0, 128.min(context), 1)?,
            decode_at_700_tokens_per_second: (context >= 764).then(|| self.rate(700, 64, 1)).transpose()?,
            batch_tokens_per_second: self.batch_rate(8, 32.min(context))?,
            weight_bytes: self.network().bytes(),
            products: self.network().products(),
            peak_rss_bytes: memory::peak_rss(),
            limits: self.network().limits(),
            kernels: self.network().kernels(),
        })
    }

    /// Over `count` tokens after `before` others, in passes of at most `rows`.
    fn rate(&self, before: usize, count: usize, rows: usize) -> Result<f64, GenerateError> {
        let tokens = arbitrary_tokens(before + count, self.info().vocab);
        best_of_two(count, || {
            let mut sequence = self.network().sequence(tokens.len());
            for chunk in tokens[..before].chunks(ROWS) {
                self.network().next(&mut sequence, chunk)?;
            }
            let started = Instant::now();
            for chunk in tokens[before..].chunks(rows) {
                self.network().next(&mut sequence, chunk)?;
            }
            Ok(started.elapsed())
        })
    }

    fn batch_rate(&self, sequences: usize, count: usize) -> Result<f64, GenerateError> {
        let tokens = arbitrary_tokens(count, self.info().vocab);
        best_of_two(sequences * count, || {
            let mut batch: Vec<_> = (0..sequences).map(|_| self.network().sequence(count)).collect();
            let started = Instant::now();
            for token in tokens.chunks(1) {
                let pieces = batch.iter_mut();
                let pieces = pieces.map(|sequence| Piece { sequence, tokens: token, logits: 1, hidden: 0 });
                self.network().forward(&mut pieces.collect::<Vec<_>>())?;
            }
            Ok(started.elapsed())
        })
    }
}

fn best_of_two(tokens: usize, run: impl Fn() -> Result<Duration, String>) -> Result<f64, GenerateError> {
    let least = run().and_then(|first| Ok(first.min(run()?)));
    least.map(|least| tokens as f64 / least.as_secs_f64()).map_err(GenerateError::Inference)
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

/// More than the caches of most processors that models run on.
const CACHE_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_memorys_speed_is_said_of_weights_that_lie_there() {
        let limits = Limits { bytes_per_second: 20e9, products_per_second: 1e12 };
        let bench = |weight_bytes| Bench {
            load: Duration::ZERO,
            prompt_tokens_per_second: 1000.0,
            decode_tokens_per_second: 100.0,
            decode_at_700_tokens_per_second: None,
            batch_tokens_per_second: 200.0,
            weight_bytes,
            products: 500_000_000,
            limits: Some(limits),
            peak_rss_bytes: None,
            kernels: "portable",
        };
        assert_eq!(bench(100_000_000).share_of_memory(), Some(0.5));
        assert_eq!(bench(3_000_000).share_of_memory(), None);
        assert_eq!(bench(3_000_000).share_of_products(), Some(0.5));
        assert_eq!(Bench { limits: None, ..bench(100_000_000) }.share_of_memory(), None);
    }
}
