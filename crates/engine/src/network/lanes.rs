//! The loops over floats of a forward pass, each compiled for every instruction set.
//!
//! They keep 16 lanes and add them up in a fixed order, so a row's result does not depend on the rows around it.

use super::kernel::Lanes;
use super::packed::{BLOCK, QuantizedBlock};

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

/// `input` less its mean, divided by its standard deviation, times `weights`, plus `bias`, into `output`.
pub(crate) struct Center<'a> {
    pub(crate) input: &'a [f32],
    pub(crate) weights: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) epsilon: f32,
    pub(crate) output: &'a mut [f32],
}

impl Lanes for Center<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let len = self.input.len() as f32;
        let mut lanes = [0f32; 16];
        let (chunks, rest) = self.input.as_chunks::<16>();
        for chunk in chunks {
            for i in 0..16 {
                lanes[i] += chunk[i];
            }
        }
        let mean = (sum(lanes) + rest.iter().sum::<f32>()) / len;
        let mut lanes = [0f32; 16];
        for chunk in chunks {
            for i in 0..16 {
                let far = chunk[i] - mean;
                lanes[i] = multiply_add::<FMA>(far, far, lanes[i]);
            }
        }
        let squares = sum(lanes) + rest.iter().map(|x| (x - mean) * (x - mean)).sum::<f32>();
        let scale = 1.0 / (squares / len + self.epsilon).sqrt();
        let both = self.weights.iter().zip(self.bias);
        for ((output, input), (weight, bias)) in self.output.iter_mut().zip(self.input).zip(both) {
            *output = multiply_add::<FMA>((input - mean) * scale, *weight, *bias);
        }
    }
}

/// The sum of the products of two vectors of one length.
pub(crate) struct Dot<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
}

impl Lanes for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<const FMA: bool>(self) -> f32 {
        let mut lanes = [0f32; 16];
        let ((a, rest_a), (b, rest_b)) = (self.a.as_chunks::<16>(), self.b.as_chunks::<16>());
        for (a, b) in a.iter().zip(b) {
            for i in 0..16 {
                lanes[i] = multiply_add::<FMA>(a[i], b[i], lanes[i]);
            }
        }
        sum(lanes) + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>()
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
            let largest = largest(input);
            let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
            let mut quants = [0i32; BLOCK];
            for i in 0..BLOCK {
                // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits.
                quants[i] = (input[i] * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32;
            }
            let mut minus = [0i32; 2];
            for (minus, quants) in minus.iter_mut().zip(quants.as_chunks::<16>().0) {
                for quant in quants {
                    *minus = minus.wrapping_sub(*quant);
                }
            }
            let mut bytes = [0; BLOCK];
            for i in 0..BLOCK {
                bytes[i] = quants[i] as u8;
            }
            for (word, bytes) in output.words.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = i32::from_le_bytes(*bytes);
            }
            output.scale = largest / 127.0;
            output.minus = [minus[0].wrapping_add(minus[1]), minus[0], minus[1]];
            output.sum = -output.scale * output.minus[0] as f32;
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

/// `gate` becomes gelu(gate) * up, in the form with a hyperbolic tangent.
pub(crate) struct GateGelu<'a> {
    pub(crate) gate: &'a mut [f32],
    pub(crate) up: &'a [f32],
}

impl Lanes for GateGelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (gate, up) in self.gate.iter_mut().zip(self.up) {
            *gate = gelu::<FMA>(*gate) * up;
        }
    }
}

/// Each number becomes its gelu, in the same form.
pub(crate) struct Gelu<'a>(pub(crate) &'a mut [f32]);

impl Lanes for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FMA: bool>(self) {
        self.0.iter_mut().for_each(|x| *x = gelu::<FMA>(*x));
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

#[inline(always)]
fn gelu<const FMA: bool>(x: f32) -> f32 {
    // (1 + tanh(u)) / 2 = 1 / (1 + e^(-2u)), with u = sqrt(2 / pi) * (x + 0.044715 x^3).
    let twice = 2.0 * 0.797_884_6 * x * multiply_add::<FMA>(0.044_715 * x, x, 1.0);
    x / (1.0 + exp::<FMA>(-twice))
}

/// e^x within 3e-7 of the value; below -87 it stays at e^-87, above 88 at e^88.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
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
pub(super) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
pub(super) fn sum(lanes: [f32; 16]) -> f32 {
    lanes.iter().sum()
}

/// The largest absolute value: half by half, which is faster than one after the other, and as exact.
#[inline(always)]
fn largest(input: &[f32; BLOCK]) -> f32 {
    let mut numbers = [0f32; BLOCK];
    for i in 0..BLOCK {
        numbers[i] = input[i].abs();
    }
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            // Not `f32::max`, which takes four instructions.
            numbers[i] = if numbers[i] > numbers[i + half] { numbers[i] } else { numbers[i + half] };
        }
    }
    numbers[0]
}

/// 1.5 * 2^23: a float this large has no fraction.
const ROUND: f32 = 12_582_912.0;

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::network::kernel::Isa;
    use crate::network::packed::f16_to_f32;

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
    fn gates_and_norms_are_those_of_the_textbook() {
        for isa in Isa::supported() {
            let (input, up) = (noise(50, 5).iter().map(|x| x * 20.0).collect::<Vec<_>>(), noise(50, 6));
            let mut gate = input.clone();
            isa.run(Gate { gate: &mut gate, up: &up });
            let mut gelu = input.clone();
            isa.run(GateGelu { gate: &mut gelu, up: &up });
            let mut alone = input.clone();
            isa.run(Gelu(&mut alone));
            let (bias, mut center) = (noise(50, 7), vec![0.0; 50]);
            isa.run(Center { input: &input, weights: &up, bias: &bias, epsilon: 1e-5, output: &mut center });
            let middle = input.iter().map(|x| f64::from(*x)).sum::<f64>() / 50.0;
            let spread = input.iter().map(|x| (f64::from(*x) - middle).powi(2)).sum::<f64>() / 50.0 + 1e-5;
            let mut norm = vec![0.0; 50];
            isa.run(Norm { input: &input, weights: &up, epsilon: 1e-5, output: &mut norm });
            let dot: f64 = input.iter().zip(&up).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            assert!((f64::from(isa.run(Dot { a: &input, b: &up })) - dot).abs() < 1e-4);
            let mean = input.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 50.0 + 1e-5;
            for i in 0..50 {
                let (x, up) = (f64::from(input[i]), f64::from(up[i]));
                assert!((f64::from(gate[i]) - x / (1.0 + (-x).exp()) * up).abs() < 1e-5);
                let tanh = ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh();
                assert!((f64::from(gelu[i]) - 0.5 * x * (1.0 + tanh) * up).abs() < 1e-5);
                assert!((f64::from(alone[i]) - 0.5 * x * (1.0 + tanh)).abs() < 1e-5);
                let centered = (x - middle) / spread.sqrt() * up + f64::from(bias[i]);
                assert!((f64::from(center[i]) - centered).abs() < 1e-5);
                assert!((f64::from(norm[i]) - x / mean.sqrt() * up).abs() < 1e-5);
            }
        }
    }
}
