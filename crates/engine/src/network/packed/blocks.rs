//! How packed weights lie in memory: as many bits as in the file, arranged for the kernels.
//!
//! A block is 16 rows by 32 columns. Its quants are eight vectors of 64 bytes: byte `row * 4 + j` of vector `v` is that
//! of column `4v + j`. With fewer than 8 bits, planes of the vectors share bytes.

use super::f16_to_f32;

/// Rows of a tile.
pub(crate) const TILE: usize = 16;
/// Columns of a block.
pub(crate) const BLOCK: usize = 32;

/// The quants of a block, a byte each: eight vectors of 64.
pub(crate) type Bytes = [u8; TILE * BLOCK];

/// 16 rows of whole numbers by `N` blocks that share their scales: weight = (quant - zero) * scale - minimum, where zero is
/// half the range of quants that have no minima.
#[derive(Clone)]
#[repr(C, align(32))]
pub(crate) struct Integers<Q, S, const N: usize> {
    pub(crate) quants: [Q; N],
    pub(crate) scales: S,
}

/// 16 rows of floats by 32 columns.
#[derive(Clone)]
#[repr(C, align(32))]
pub(crate) struct Floats<F> {
    pub(crate) columns: [[F; TILE]; BLOCK],
}

pub(crate) trait Quants: Send + Sync {
    const BITS: u32;

    /// Safe loops that become vector code where they are inlined.
    fn widen(&self) -> Bytes;
}

pub(crate) trait Scales: Send + Sync {
    const MINIMA: bool;
    /// Whether columns 0 to 15 and 16 to 31 of a block have scales of their own.
    const SPLIT: bool;

    /// Of half a block's columns.
    fn scales(&self, block: usize, half: usize) -> [f32; TILE];

    fn minima(&self, _block: usize) -> [f32; TILE] {
        [0.0; TILE]
    }
}

/// Quants that are kept.
///
/// # Safety
///
/// They are made of plain numbers only.
pub(crate) unsafe trait Narrow: Quants + Clone {
    fn narrow(bytes: &Bytes) -> Self;
}

/// Scales that are kept.
///
/// # Safety
///
/// They are made of plain numbers only.
pub(crate) unsafe trait FromFile: Scales + Clone {
    /// From a block of the file, whose layout is that of all kinds with such scales.
    fn read(&mut self, row: usize, file: &[u8]);
}

/// What may consist of zero bytes.
///
/// # Safety
///
/// It is made of plain numbers only.
pub(crate) unsafe trait Zeroed {}

// SAFETY: the parts are, and arrays of them.
unsafe impl<Q: Narrow, S: FromFile, const N: usize> Zeroed for Integers<Q, S, N> {}
// SAFETY: floats are numbers.
unsafe impl<F: Float> Zeroed for Floats<F> {}
#[cfg(test)]
// SAFETY: a number.
unsafe impl Zeroed for F16 {}

pub(crate) trait Float: Copy + Send + Sync {
    fn to_f32(self) -> f32;
}

/// Byte `64g + i` holds byte `i` of vector `2g` in its low half, and of vector `2g + 1` in its high half.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Four(pub(crate) [u8; 256]);

/// The fifth bit of byte `i` of vector `v` is bit `i` of `fifth[v]`.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Five {
    pub(crate) low: Four,
    pub(crate) fifth: [[u8; 8]; 8],
}

/// The high bits of byte `i` of vector `v` are bits `2 (v % 4)` and the next of byte `i` of `high[v / 4]`.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Six {
    pub(crate) low: Four,
    pub(crate) high: [[u8; 64]; 2],
}

#[derive(Clone)]
#[repr(C)]
pub(crate) struct Eight(pub(crate) Bytes);

/// Half-precision scales.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Plain {
    pub(crate) scales: [u16; TILE],
}

/// Half-precision scales and minima.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct WithMinima {
    pub(crate) scales: [u16; TILE],
    pub(crate) minima: [u16; TILE],
}

/// Scale of block `b` = `scale` * a factor of 6 bits, and the same of minima (Q4_K, Q5_K).
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Nested {
    pub(crate) factors: [SixBits; 8],
    pub(crate) scale: [u16; TILE],
    pub(crate) minimum: [u16; TILE],
}

/// Factors of a block's scales and minima, of 6 bits each. The low four bits of row `i`'s scale are the low half of
/// `low[i]`, its minimum's the high half. The other two of its scale are bits 0 and 1 of byte `i` of `high`, its
/// minimum's bits 2 and 3; of row `8 + i` bits 4 to 7.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct SixBits {
    pub(crate) low: [u8; TILE],
    pub(crate) high: [u8; TILE / 2],
}

/// Scale of half `h` of block `b` = `scale` * `scales[2b + h]` (Q6_K).
#[derive(Clone)]
#[repr(C)]
pub(crate) struct NestedHalves {
    pub(crate) scales: [[i8; TILE]; 16],
    pub(crate) scale: [u16; TILE],
}

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F16(pub(crate) u16);

#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Bf16(pub(crate) u16);

// SAFETY: bytes and numbers.
unsafe impl Narrow for Four {
    fn narrow(bytes: &Bytes) -> Self {
        let mut planes = [0; _];
        for (planes, pair) in planes.as_chunks_mut::<64>().0.iter_mut().zip(bytes.as_chunks::<128>().0) {
            for i in 0..64 {
                planes[i] = pair[i] & 15 | pair[64 + i] << 4;
            }
        }
        Self(planes)
    }
}

impl Quants for Four {
    const BITS: u32 = 4;

    #[inline(always)]
    fn widen(&self) -> Bytes {
        let mut bytes = [0; _];
        for (pair, planes) in bytes.as_chunks_mut::<128>().0.iter_mut().zip(self.0.as_chunks::<64>().0) {
            for i in 0..64 {
                pair[i] = planes[i] & 15;
                pair[64 + i] = planes[i] >> 4;
            }
        }
        bytes
    }
}

// SAFETY: bytes and numbers.
unsafe impl Narrow for Five {
    fn narrow(bytes: &Bytes) -> Self {
        let mut fifth = [[0; 8]; 8];
        for (fifth, eight) in fifth.as_flattened_mut().iter_mut().zip(bytes.as_chunks::<8>().0) {
            // A multiplication gathers the fifth bits of eight bytes in the highest.
            let bits = u64::from_le_bytes(*eight) >> 4 & 0x0101_0101_0101_0101;
            *fifth = (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
        }
        Self { low: Four::narrow(bytes), fifth }
    }
}

impl Quants for Five {
    const BITS: u32 = 5;

    #[inline(always)]
    fn widen(&self) -> Bytes {
        let mut bytes = self.low.widen();
        for (vector, bits) in bytes.as_chunks_mut::<64>().0.iter_mut().zip(&self.fifth) {
            for (eight, bits) in vector.as_chunks_mut::<8>().0.iter_mut().zip(bits) {
                for (i, byte) in eight.iter_mut().enumerate() {
                    *byte |= (bits >> i & 1) << 4;
                }
            }
        }
        bytes
    }
}

// SAFETY: bytes and numbers.
unsafe impl Narrow for Six {
    fn narrow(bytes: &Bytes) -> Self {
        let mut high = [[0; 64]; 2];
        for (high, vectors) in high.iter_mut().zip(bytes.as_chunks::<256>().0) {
            for i in 0..64 {
                let bits = |v: usize| vectors[64 * v + i] >> 4;
                high[i] = bits(0) | bits(1) << 2 | bits(2) << 4 | bits(3) << 6;
            }
        }
        Self { low: Four::narrow(bytes), high }
    }
}

impl Quants for Six {
    const BITS: u32 = 6;

    #[inline(always)]
    fn widen(&self) -> Bytes {
        let mut bytes = self.low.widen();
        for (v, vector) in bytes.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            for (byte, high) in vector.iter_mut().zip(&self.high[v / 4]) {
                *byte |= (high >> (2 * (v % 4)) & 3) << 4;
            }
        }
        bytes
    }
}

// SAFETY: bytes and numbers.
unsafe impl Narrow for Eight {
    fn narrow(bytes: &Bytes) -> Self {
        Self(*bytes)
    }
}

impl Quants for Eight {
    const BITS: u32 = 8;

    #[inline(always)]
    fn widen(&self) -> Bytes {
        self.0
    }
}

// SAFETY: bytes and numbers.
unsafe impl FromFile for Plain {
    fn read(&mut self, row: usize, file: &[u8]) {
        self.scales[row] = u16::from_le_bytes([file[0], file[1]]);
    }
}

impl Scales for Plain {
    const MINIMA: bool = false;
    const SPLIT: bool = false;

    #[inline(always)]
    fn scales(&self, _: usize, _: usize) -> [f32; TILE] {
        halves(&self.scales)
    }
}

// SAFETY: bytes and numbers.
unsafe impl FromFile for WithMinima {
    fn read(&mut self, row: usize, file: &[u8]) {
        self.scales[row] = u16::from_le_bytes([file[0], file[1]]);
        // The file adds its minima.
        self.minima[row] = u16::from_le_bytes([file[2], file[3]]) ^ 0x8000;
    }
}

impl Scales for WithMinima {
    const MINIMA: bool = true;
    const SPLIT: bool = false;

    #[inline(always)]
    fn scales(&self, _: usize, _: usize) -> [f32; TILE] {
        halves(&self.scales)
    }

    #[inline(always)]
    fn minima(&self, _: usize) -> [f32; TILE] {
        halves(&self.minima)
    }
}

// SAFETY: bytes and numbers.
unsafe impl FromFile for Nested {
    fn read(&mut self, row: usize, file: &[u8]) {
        self.scale[row] = u16::from_le_bytes([file[0], file[1]]);
        self.minimum[row] = u16::from_le_bytes([file[2], file[3]]);
        // Eight scales and minima of 6 bits in 12 bytes.
        let packed = &file[4..16];
        for (block, factors) in self.factors.iter_mut().enumerate() {
            let (scale, minimum) = match block {
                0..4 => (packed[block] & 63, packed[block + 4] & 63),
                _ => (
                    (packed[block + 4] & 15) | (packed[block - 4] >> 6 << 4),
                    (packed[block + 4] >> 4) | (packed[block] >> 6 << 4),
                ),
            };
            factors.low[row] = scale & 15 | minimum << 4;
            factors.high[row % 8] |= (scale >> 4 | minimum >> 4 << 2) << (row / 8 * 4);
        }
    }
}

impl SixBits {
    #[inline(always)]
    fn scales(&self) -> [u8; TILE] {
        let mut scales = [0; TILE];
        for i in 0..TILE / 2 {
            scales[i] = self.low[i] & 15 | self.high[i] << 4 & 0x30;
            scales[8 + i] = self.low[8 + i] & 15 | self.high[i] & 0x30;
        }
        scales
    }

    #[inline(always)]
    fn minima(&self) -> [u8; TILE] {
        let mut minima = [0; TILE];
        for i in 0..TILE / 2 {
            minima[i] = self.low[i] >> 4 | self.high[i] << 2 & 0x30;
            minima[8 + i] = self.low[8 + i] >> 4 | self.high[i] >> 2 & 0x30;
        }
        minima
    }
}

impl Scales for Nested {
    const MINIMA: bool = true;
    const SPLIT: bool = false;

    #[inline(always)]
    fn scales(&self, block: usize, _: usize) -> [f32; TILE] {
        scaled(&self.scale, &self.factors[block].scales())
    }

    #[inline(always)]
    fn minima(&self, block: usize) -> [f32; TILE] {
        scaled(&self.minimum, &self.factors[block].minima())
    }
}

// SAFETY: bytes and numbers.
unsafe impl FromFile for NestedHalves {
    fn read(&mut self, row: usize, file: &[u8]) {
        for (half, scale) in file[192..208].iter().enumerate() {
            self.scales[half][row] = *scale as i8;
        }
        self.scale[row] = u16::from_le_bytes([file[208], file[209]]);
    }
}

impl Scales for NestedHalves {
    const MINIMA: bool = false;
    const SPLIT: bool = true;

    #[inline(always)]
    fn scales(&self, block: usize, half: usize) -> [f32; TILE] {
        scaled(&self.scale, &self.scales[2 * block + half])
    }
}

impl Float for F16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f16_to_f32(self.0)
    }
}

impl Float for Bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

impl Float for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}

// Loops, because a closure that is not inlined would be compiled for another processor than its caller.

#[inline(always)]
fn halves(bits: &[u16; TILE]) -> [f32; TILE] {
    let mut floats = [0.0; TILE];
    for i in 0..TILE {
        floats[i] = f16_to_f32(bits[i]);
    }
    floats
}

#[inline(always)]
fn scaled<T: Copy + Into<f32>>(scale: &[u16; TILE], factors: &[T; TILE]) -> [f32; TILE] {
    let mut floats = halves(scale);
    for i in 0..TILE {
        floats[i] *= factors[i].into();
    }
    floats
}
