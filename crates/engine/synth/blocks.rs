//! Blocks of random weights. No quantizer: quants are random bits under a scale that gives the spread asked for, and
//! minima are near the middle of the quants, so that the mean is about 0. Layouts: ggml-common.h of ggml.
//!
//! Only integers and single float operations that IEEE 754 rounds exactly, so that every machine makes the same bytes.

use half::{bf16, f16};

/// How the numbers of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
    pub fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// Numbers in a block.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// One number, where a block is one.
    pub(super) fn float(self, number: f32, out: &mut Vec<u8>) {
        match self {
            Self::F32 => out.extend(number.to_le_bytes()),
            Self::F16 => out.extend(f16::from_f32(number).to_le_bytes()),
            Self::Bf16 => out.extend(bf16::from_f32(number).to_le_bytes()),
            quantized => unreachable!("a block of {quantized:?} is more than one number"),
        }
    }

    /// Random weights with mean 0 and about the standard deviation `spread`. The divisors are the standard deviations
    /// of the quants, times those of the scales within a block.
    pub(super) fn block(self, spread: f32, random: &mut Random, out: &mut Vec<u8>) {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => self.float(random.unit() * (spread * 1.732), out),
            Self::Q4_0 => {
                let scale = random.scale(spread / 4.61);
                out.extend(random.signed(scale).to_le_bytes());
                random.bytes(16, out);
            }
            Self::Q4_1 => {
                let scale = random.scale(spread / 4.61);
                out.extend(scale.to_le_bytes());
                out.extend(f16::from_f32(scale.to_f32() * -7.5).to_le_bytes());
                random.bytes(16, out);
            }
            Self::Q5_0 => {
                let scale = random.scale(spread / 9.23);
                out.extend(random.signed(scale).to_le_bytes());
                random.bytes(4 + 16, out);
            }
            Self::Q5_1 => {
                let scale = random.scale(spread / 9.23);
                out.extend(scale.to_le_bytes());
                out.extend(f16::from_f32(scale.to_f32() * -15.5).to_le_bytes());
                random.bytes(4 + 16, out);
            }
            Self::Q8_0 => {
                out.extend(random.scale(spread / 73.3).to_le_bytes());
                let start = out.len();
                random.bytes(32, out);
                // A quantizer never gives -128.
                out[start..].iter_mut().filter(|byte| **byte == 0x80).for_each(|byte| *byte = 0x81);
            }
            Self::Q2K => {
                // Scale and minimum of 16 weights: 4 bits each, 8 to 15.
                let scales = random.next().to_le_bytes().into_iter().chain(random.next().to_le_bytes());
                out.extend(scales.map(|byte| byte | 0x88));
                random.bytes(64, out);
                let scale = random.scale(spread / 13.1);
                out.extend(scale.to_le_bytes());
                out.extend(f16::from_f32(scale.to_f32() * 1.5).to_le_bytes());
            }
            Self::Q3K => {
                random.bytes(32 + 64 + 12, out);
                out.extend(random.scale(spread / 43.3).to_le_bytes());
            }
            Self::Q4K => {
                let scale = random.scale(spread / 223.0);
                out.extend(scale.to_le_bytes());
                out.extend(f16::from_f32(scale.to_f32() * 7.5).to_le_bytes());
                random.six_bits(out);
                random.bytes(128, out);
            }
            Self::Q5K => {
                let scale = random.scale(spread / 447.0);
                out.extend(scale.to_le_bytes());
                out.extend(f16::from_f32(scale.to_f32() * 15.5).to_le_bytes());
                random.six_bits(out);
                random.bytes(32 + 128, out);
            }
            Self::Q6K => {
                random.bytes(128 + 64, out);
                // Scales of 16 weights: 64 to 127, and their negatives.
                let scales = random.next().to_le_bytes().into_iter().chain(random.next().to_le_bytes());
                out.extend(scales.map(|byte| {
                    let scale = (64 + (byte & 63)) as i8;
                    if byte & 64 == 0 { scale as u8 } else { (-scale) as u8 }
                }));
                out.extend(random.scale(spread / 1_795.0).to_le_bytes());
            }
        }
    }
}

/// SplitMix64, begun from a name: <https://prng.di.unimi.it/splitmix64.c>.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn named(name: &str) -> Self {
        // FNV-1a.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between -1 and 1, in steps of 2^-23: exact in F32.
    pub(super) fn unit(&mut self) -> f32 {
        let bits = (self.next() >> 40) as i32 - (1 << 23);
        bits as f32 / (1 << 23) as f32
    }

    fn bytes(&mut self, count: usize, out: &mut Vec<u8>) {
        let end = out.len() + count;
        while out.len() + 8 <= end {
            out.extend(self.next().to_le_bytes());
        }
        let rest = self.next().to_le_bytes();
        out.extend(&rest[..end - out.len()]);
    }

    /// `value`, an eighth less or more.
    fn scale(&mut self, value: f32) -> f16 {
        f16::from_f32(value * (224 + self.next() % 64) as f32 / 256.0)
    }

    fn signed(&mut self, scale: f16) -> f16 {
        if self.next() & 1 == 0 { scale } else { -scale }
    }

    /// The eight scales and eight minima of a block of Q4_K or Q5_K: 6 bits each, 32 to 63, a minimum near its scale.
    fn six_bits(&mut self, out: &mut Vec<u8>) {
        let bits = self.next().to_le_bytes();
        let scales = bits.map(|byte| 32 | (byte & 31));
        let minima = bits.map(|byte| (32 | (byte & 31)) ^ (byte >> 5 & 3));
        for j in 0..4 {
            out.push(scales[j] | (scales[j + 4] >> 4 << 6));
        }
        for j in 0..4 {
            out.push(minima[j] | (minima[j + 4] >> 4 << 6));
        }
        for j in 4..8 {
            out.push((scales[j] & 15) | (minima[j] & 15) << 4);
        }
    }
}
