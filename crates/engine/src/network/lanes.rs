//! The loops over floats of a forward pass, each compiled for every instruction set.
//!
//! They keep 16 lanes and add them up in a fixed order, so a row's result does not depend on the rows around it.

use super::kernel::Lanes;
use super::packed::{BLOCK, QuantizedBlock, f16_to_f32};

/// Root-mean-square norm of `input`, scaled by `weights`, into `output`.
pub(crate) struct Norm<'a> {
    pub(crate) input: &'a [f32],
    pub(crate) weights: &'a [f32],
    pub(crate) epsilon: f32,
    pub(crate) output: &'a mut [f32],
}

impl Lanes for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let mut lanes = [0f32; 16];
        let (chunks, rest) = self.input.as_chunks::<16>();
        for chunk in chunks {
            for i in 0..16 {
                lanes[i] = multiply_add::<FMA>(chunk[i], chunk[i], lanes[i]);
            }
        }
        let squares = sum(lanes) + rest.iter().map(|x| x * x).sum::<f32>();
        let scale = 1.0 / (squares / self.input.len() as f32 + self.epsilon).sqrt();
        for ((output, input), weight) in self.output.iter_mut().zip(self.input).zip(self.weights) {
            *output = input * scale * weight;
        }
    }
}

/// Bytes with a scale for every 32 activations.
pub(crate) struct Quantize<'a> {
    pub(crate) input: &'a [f32],
    pub(crate) output: &'a mut [QuantizedBlock],
}

impl Lanes for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (input, output) in self.input.as_chunks::<BLOCK>().0.iter().zip(self.output) {
            let mut lanes = [0f32; 16];
            for i in 0..16 {
                lanes[i] = input[i].abs().max(input[i + 16].abs());
            }
            let largest = lanes.iter().fold(0f32, |largest, x| largest.max(*x));
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let mut quants = [0i32; BLOCK];
            for i in 0..BLOCK {
                // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
                quants[i] = (input[i] * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            }
            let mut total = 0i32;
            for quant in quants {
                total = total.wrapping_add(quant);
            }
            for (word, quants) in output.words.iter_mut().zip(quants.as_chunks::<4>().0) {
                *word =
                    (quants[0] & 255) | (quants[1] & 255) << 8 | (quants[2] & 255) << 16 | quants[3] << 24;
            }
            output.scale = largest / 127.0;
            output.sum = output.scale * total as f32;
        }
    }
}

/// `gate` becomes silu(gate) * up.
pub(crate) struct Gate<'a> {
    pub(crate) gate: &'a mut [f32],
    pub(crate) up: &'a [f32],
}

impl Lanes for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            *gate = *gate / (1.0 + exp::<FMA>(-*gate)) * up;
        }
    }
}

/// Rotates pairs of numbers by the angles of a position.
pub(crate) struct Rotate<'a> {
    /// One head.
    pub(crate) head: &'a mut [f32],
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
    /// Pairs are (i, i + half) rather than (2i, 2i + 1).
    pub(crate) halves: bool,
}

impl Lanes for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let angles = self.cos.iter().zip(self.sin);
        if self.halves {
            let (first, second) = self.head[..2 * self.cos.len()].split_at_mut(self.cos.len());
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(angles) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        } else {
            for ([a, b], (cos, sin)) in self.head.as_chunks_mut::<2>().0.iter_mut().zip(angles) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
            }
        }
    }
}

/// Attention of some queries of one key-value head, all at their own positions.
pub(crate) struct Attend<'a> {
    /// `[query][head_dim]`, already divided by the root of the head's size.
    pub(crate) queries: &'a [f32],
    /// How many keys each query sees, rising.
    pub(crate) visible: &'a [usize],
    /// `[position / 16][head_dim][16]`, half precision.
    pub(crate) keys: &'a [u16],
    /// `[position][head_dim]`, half precision.
    pub(crate) values: &'a [u16],
    pub(crate) head_dim: usize,
    /// At least [`Attend::AT_ONCE`] times the most visible, rounded up to 16.
    pub(crate) scratch: &'a mut [f32],
    /// `[query][head_dim]`.
    pub(crate) output: &'a mut [f32],
}

impl Lanes for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let (mut at, count) = (0, self.visible.len());
        while at < count {
            at += match count - at {
                8.. => self.some::<FMA, 8>(at),
                4.. => self.some::<FMA, 4>(at),
                3 => self.some::<FMA, 3>(at),
                2 => self.some::<FMA, 2>(at),
                _ => self.some::<FMA, 1>(at),
            };
        }
    }
}

impl Attend<'_> {
    /// Queries that share the reading of keys and values.
    pub(crate) const AT_ONCE: usize = 8;

    /// The queries from `at`. Keys that only the later of them see weigh nothing for the earlier.
    #[inline(always)]
    fn some<const FMA: bool, const N: usize>(&mut self, at: usize) -> usize {
        let dim = self.head_dim;
        let visible: [usize; N] = std::array::from_fn(|n| self.visible[at + n]);
        let most = visible[N - 1];
        let stride = most.next_multiple_of(16);
        let queries: [&[f32]; N] = std::array::from_fn(|n| &self.queries[(at + n) * dim..][..dim]);

        for (tile, keys) in self.keys.chunks_exact(16 * dim).take(stride / 16).enumerate() {
            let mut scores = [[0f32; 16]; N];
            for (d, keys) in keys.as_chunks::<16>().0.iter().enumerate() {
                let keys: [f32; 16] = std::array::from_fn(|i| f16_to_f32(keys[i]));
                for n in 0..N {
                    let query = queries[n][d];
                    for i in 0..16 {
                        scores[n][i] = multiply_add::<FMA>(query, keys[i], scores[n][i]);
                    }
                }
            }
            for (n, scores) in scores.iter().enumerate() {
                self.scratch[n * stride + tile * 16..][..16].copy_from_slice(scores);
            }
        }

        let mut scales = [0f32; N];
        for n in 0..N {
            let weights = &mut self.scratch[n * stride..][..stride];
            weights[visible[n]..].fill(f32::NEG_INFINITY);
            scales[n] = softmax::<FMA>(weights);
        }

        for part in (0..dim).step_by(16) {
            let mut sums = [[0f32; 16]; N];
            for position in 0..most {
                let values = &self.values[position * dim + part..][..16];
                let values: [f32; 16] = std::array::from_fn(|i| f16_to_f32(values[i]));
                for (n, sums) in sums.iter_mut().enumerate() {
                    let weight = self.scratch[n * stride + position];
                    for i in 0..16 {
                        sums[i] = multiply_add::<FMA>(weight, values[i], sums[i]);
                    }
                }
            }
            for n in 0..N {
                let output = &mut self.output[(at + n) * dim + part..][..16];
                for i in 0..16 {
                    output[i] = sums[n][i] * scales[n];
                }
            }
        }
        N
    }
}

/// Turns scores into weights, and gives what to divide their sum by, as a factor.
#[inline(always)]
fn softmax<const FMA: bool>(scores: &mut [f32]) -> f32 {
    let (chunks, _) = scores.as_chunks_mut::<16>();
    let mut largest = [f32::NEG_INFINITY; 16];
    for chunk in chunks.iter() {
        for i in 0..16 {
            largest[i] = if chunk[i] > largest[i] { chunk[i] } else { largest[i] };
        }
    }
    let largest = largest.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let mut total = [0f32; 16];
    for chunk in chunks {
        for i in 0..16 {
            // What a query does not see is at minus infinity: `exp` would make it very small, not nothing.
            let weight = exp::<FMA>(chunk[i] - largest);
            chunk[i] = if chunk[i] == f32::NEG_INFINITY { 0.0 } else { weight };
            total[i] += chunk[i];
        }
    }
    1.0 / sum(total)
}

/// e^x within 3e-7 of the value; below -87 it stays at e^-87, above 88 at e^88.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    let x = if x > -87.0 { x } else { -87.0 };
    let x = if x < 88.0 { x } else { 88.0 };
    let rounded = multiply_add::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let whole = rounded - ROUND;
    // x - whole * ln 2, in two steps: ln 2 as one float is not exact enough.
    let rest = multiply_add::<FMA>(whole, -0.693_359_4, x);
    let rest = multiply_add::<FMA>(whole, 2.121_944_4e-4, rest);
    let mut power = 1.0 / 720.0;
    for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        power = multiply_add::<FMA>(power, rest, factor);
    }
    power * f32::from_bits(rounded.to_bits().wrapping_add(127) << 23)
}

#[inline(always)]
fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn sum(lanes: [f32; 16]) -> f32 {
    lanes.iter().sum()
}

/// 1.5 * 2^23: a float this large has no fraction.
const ROUND: f32 = 12_582_912.0;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::network::kernel::Isa;

    /// Numbers from -1 to 1 that are the same in every run.
    pub(crate) fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn the_exponential_is_exact_to_three_in_ten_million() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            for got in [exp::<true>(x), exp::<false>(x)] {
                assert!((f64::from(got) / exact - 1.0).abs() < 3e-7, "{x}: {got} {exact}");
            }
        }
        assert!(exp::<false>(f32::NEG_INFINITY) > 0.0 && exp::<false>(1e9).is_finite());
    }

    #[test]
    fn halves_are_exact() {
        for bits in 0..0x7c00u16 {
            assert_eq!(f16_to_f32(bits), half::f16::from_bits(bits).to_f32());
            assert_eq!(f16_to_f32(bits | 0x8000), half::f16::from_bits(bits | 0x8000).to_f32());
        }
    }

    #[test]
    fn quantized_activations_are_within_half_a_step() {
        for isa in Isa::supported() {
            let mut input = noise(64, 1);
            input.extend([0.0; 32]);
            let mut output = vec![QuantizedBlock::default(); 3];
            isa.run(Quantize { input: &input, output: &mut output });
            for (block, input) in output.iter().zip(input.chunks(32)) {
                let bytes = block.words.iter().flat_map(|word| word.to_le_bytes());
                let values: Vec<f32> = bytes.map(|byte| f32::from(byte as i8) * block.scale).collect();
                for (value, input) in values.iter().zip(input) {
                    assert!((value - input).abs() <= block.scale * 0.5001, "{value} {input}");
                }
                assert!((values.iter().sum::<f32>() - block.sum).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn attention_is_that_of_the_textbook() {
        let (dim, capacity) = (32, 48);
        let (keys, values) = (noise(capacity * dim, 2), noise(capacity * dim, 3));
        let half = |x: &f32| half::f16::from_f32(*x);
        let mut tiled = vec![0; capacity * dim];
        for position in 0..capacity {
            for d in 0..dim {
                tiled[(position / 16 * dim + d) * 16 + position % 16] =
                    half(&keys[position * dim + d]).to_bits();
            }
        }
        let stored: Vec<u16> = values.iter().map(|x| half(x).to_bits()).collect();
        let visible = [1, 7, 7, 16, 17, 40, 41];
        let queries = noise(visible.len() * dim, 4);
        for isa in Isa::supported() {
            let run = |visible: &[usize], queries: &[f32]| {
                let mut output = vec![0.0; queries.len()];
                let (mut scratch, output_slice) = (vec![f32::NAN; Attend::AT_ONCE * 48], &mut output[..]);
                let (keys, values, scratch) = (&tiled[..], &stored[..], &mut scratch[..]);
                isa.run(Attend {
                    queries,
                    visible,
                    keys,
                    values,
                    head_dim: dim,
                    scratch,
                    output: output_slice,
                });
                output
            };
            let together = run(&visible, &queries);
            for (n, &visible) in visible.iter().enumerate() {
                let query = &queries[n * dim..][..dim];
                let score = |position: usize| -> f64 {
                    (0..dim).map(|d| f64::from(query[d]) * half(&keys[position * dim + d]).to_f64()).sum()
                };
                let weights: Vec<f64> = (0..visible).map(|position| score(position).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in 0..dim {
                    let exact: f64 =
                        (0..visible).map(|p| weights[p] / total * half(&values[p * dim + d]).to_f64()).sum();
                    assert!((f64::from(together[n * dim + d]) - exact).abs() < 2e-6);
                }
                assert_eq!(
                    run(&[visible], query),
                    together[n * dim..][..dim],
                    "alone or together, the same bits"
                );
            }
        }
    }

    #[test]
    fn gates_and_norms_are_those_of_the_textbook() {
        for isa in Isa::supported() {
            let (input, up) = (noise(50, 5).iter().map(|x| x * 20.0).collect::<Vec<_>>(), noise(50, 6));
            let mut gate = input.clone();
            isa.run(Gate { gate: &mut gate, up: &up });
            let mut norm = vec![0.0; 50];
            isa.run(Norm { input: &input, weights: &up, epsilon: 1e-5, output: &mut norm });
            let mean = input.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 50.0 + 1e-5;
            for i in 0..50 {
                let (x, up) = (f64::from(input[i]), f64::from(up[i]));
                assert!((f64::from(gate[i]) - x / (1.0 + (-x).exp()) * up).abs() < 1e-5);
                assert!((f64::from(norm[i]) - x / mean.sqrt() * up).abs() < 1e-5);
            }
        }
    }
}
