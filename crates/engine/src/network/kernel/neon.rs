//! Tiles on 64-bit Arm with dot product: 16 products of bytes an instruction, four rows of a tile a register.

// Registers are counted by the same number in several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::halves::check;
use super::panel::{Unpacked, Wide, panels};
use super::{Halves, Lanes};
use crate::network::packed::{
    BLOCK, Bf16, Blocks, Eight, F16, Five, Float, Floats, Four, Integers, Nested, NestedHalves, Plain,
    QuantizedBlock, Quants, Scales, Six, SixBits, TILE, WithMinima, dispatch,
};

/// Proof that this processor has what the functions here are compiled for. Every one has NEON, which includes fused
/// multiply-adds and half-precision loads; those before Armv8.2, and some of it, have no dot product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(());

impl Token {
    pub(super) fn detect() -> Option<Self> {
        let has = is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod");
        has.then_some(Self(()))
    }

    #[inline]
    pub(super) fn run<L: Lanes>(self, work: L) -> L::Output {
        // SAFETY: a token exists only where `detect` found the features.
        unsafe { lanes(self, work) }
    }

    #[inline]
    pub(super) fn multiply(self, tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
        // SAFETY: a token exists only where `detect` found the features.
        unsafe { multiply(tile, activations, out) }
    }

    pub(super) fn products(self, rounds: usize) -> usize {
        // SAFETY: a token exists only where `detect` found the features.
        unsafe { products(rounds) }
    }
}

#[target_feature(enable = "neon,dotprod")]
fn lanes<L: Lanes>(token: Token, work: L) -> L::Output {
    work.run_with(token)
}

#[target_feature(enable = "neon,dotprod")]
fn multiply(tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
    out.fill([0.0; TILE]);
    dispatch!(tile, integers, floats, activations, out);
}

/// `out` += the tile times the activations.
#[target_feature(enable = "neon,dotprod")]
fn integers<Q: Pairs, S: Factors, const N: usize>(
    tile: &[Integers<Q, S, N>],
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
) {
    let columns = tile.len() * N;
    if out.len() < PANEL_ROWS {
        some(tile, activations, columns, out);
    } else {
        panels(tile, |panel, first| some(panel, &activations[first..], columns, out));
    }
}

/// As many rows at a time as there are registers for: with few rows the whole tile, with more half of it. A row has
/// `columns` blocks.
#[target_feature(enable = "neon,dotprod")]
fn some<Q: Pairs, S: Factors, const N: usize>(
    tile: &[Integers<Q, S, N>],
    mut activations: &[QuantizedBlock],
    columns: usize,
    mut out: &mut [[f32; TILE]],
) {
    while !out.is_empty() {
        let rows = match out.len() {
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let (now, later) = std::mem::take(&mut out).split_at_mut(rows);
        match rows {
            4 => {
                rows_of::<Q, S, N, 4, 2>(tile, 0, activations, columns, now);
                rows_of::<Q, S, N, 4, 2>(tile, 2, activations, columns, now);
            }
            2 => rows_of::<Q, S, N, 2, 4>(tile, 0, activations, columns, now),
            _ => rows_of::<Q, S, N, 1, 4>(tile, 0, activations, columns, now),
        }
        activations = activations.get(rows * columns..).unwrap_or_default();
        out = later;
    }
}

/// `QUARTERS` quarters of the tile, from quarter `first` on.
#[target_feature(enable = "neon,dotprod")]
fn rows_of<Q: Pairs, S: Factors, const N: usize, const ROWS: usize, const QUARTERS: usize>(
    tile: &[Integers<Q, S, N>],
    first: usize,
    activations: &[QuantizedBlock],
    columns: usize,
    out: &mut [[f32; TILE]],
) {
    let rows: [&[QuantizedBlock]; ROWS] =
        std::array::from_fn(|m| &activations[m * columns..][..tile.len() * N]);
    let mut sums = [[vdupq_n_f32(0.0); QUARTERS]; ROWS];
    for m in 0..ROWS {
        for q in 0..QUARTERS {
            sums[m][q] = floats_of(&out[m], first + q);
        }
    }
    let log_of_zero = vdupq_n_s32(Q::BITS as i32 - 1);
    for (at, blocks) in tile.iter().enumerate() {
        for b in 0..N {
            let mut activations = [&rows[0][at * N + b]; ROWS];
            for m in 1..ROWS {
                activations[m] = &rows[m][at * N + b];
            }
            let parts = if S::SPLIT { 2 } else { 1 };
            for part in 0..parts {
                let mut dots = [[vdupq_n_s32(0); QUARTERS]; ROWS];
                // Quants of 8 bits become signed below, and need no correction.
                if !S::MINIMA && Q::BITS < 8 {
                    let which = if S::SPLIT { 1 + part } else { 0 };
                    for m in 0..ROWS {
                        let minus = vdupq_n_s32(activations[m].minus[which]);
                        dots[m] = [vshlq_s32(minus, log_of_zero); QUARTERS];
                    }
                }
                if S::SPLIT {
                    dots_of(&mut dots, &blocks.quants[b], first, &activations, part);
                } else {
                    dots_of(&mut dots, &blocks.quants[b], first, &activations, 0);
                    dots_of(&mut dots, &blocks.quants[b], first, &activations, 1);
                }
                for q in 0..QUARTERS {
                    // SAFETY: the features are those of this function.
                    let scales = unsafe { blocks.scales.scale_factors(b, part, first + q) };
                    for m in 0..ROWS {
                        let scales = vmulq_n_f32(scales, activations[m].scale);
                        sums[m][q] = vfmaq_f32(sums[m][q], vcvtq_f32_s32(dots[m][q]), scales);
                    }
                }
            }
            if S::MINIMA {
                for q in 0..QUARTERS {
                    // SAFETY: the features are those of this function.
                    let minima = unsafe { blocks.scales.minimum_factors(b, first + q) };
                    for m in 0..ROWS {
                        sums[m][q] = vfmsq_f32(sums[m][q], minima, vdupq_n_f32(activations[m].sum));
                    }
                }
            }
        }
    }
    for m in 0..ROWS {
        for q in 0..QUARTERS {
            store(&mut out[m], first + q, sums[m][q]);
        }
    }
}

/// Adds what half the columns of a block give.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots_of<Q: Pairs, const ROWS: usize, const QUARTERS: usize>(
    dots: &mut [[int32x4_t; QUARTERS]; ROWS],
    quants: &Q,
    first: usize,
    activations: &[&QuantizedBlock; ROWS],
    half: usize,
) {
    let mut words = [vdupq_n_s32(0); ROWS];
    for m in 0..ROWS {
        words[m] = words_of(activations[m], half);
    }
    for q in 0..QUARTERS {
        // SAFETY: the features are those of this function.
        let pairs = unsafe { [quants.pair(2 * half, first + q), quants.pair(2 * half + 1, first + q)] };
        let [[a, b], [c, d]] = pairs.map(|pair| pair.map(|quants| signed::<Q>(quants)));
        for m in 0..ROWS {
            let dots = &mut dots[m][q];
            *dots = dot::<0>(*dots, a, words[m]);
            *dots = dot::<1>(*dots, b, words[m]);
            *dots = dot::<2>(*dots, c, words[m]);
            *dots = dot::<3>(*dots, d, words[m]);
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
fn floats<F: Column>(tile: &[Floats<F>], mut activations: &[QuantizedBlock], mut out: &mut [[f32; TILE]]) {
    while !out.is_empty() {
        let rows = if out.len() >= 4 { 4 } else { 1 };
        let (now, later) = std::mem::take(&mut out).split_at_mut(rows);
        match rows {
            4 => float_rows::<F, 4>(tile, activations, now),
            _ => float_rows::<F, 1>(tile, activations, now),
        }
        activations = &activations[rows * tile.len()..];
        out = later;
    }
}

#[target_feature(enable = "neon,dotprod")]
fn float_rows<F: Column, const ROWS: usize>(
    tile: &[Floats<F>],
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
) {
    let mut sums = [[vdupq_n_f32(0.0); 4]; ROWS];
    for (at, block) in tile.iter().enumerate() {
        let mut inputs = [[0.0; BLOCK]; ROWS];
        for m in 0..ROWS {
            inputs[m] = activations[m * tile.len() + at].floats();
        }
        for (i, column) in block.columns.iter().enumerate() {
            for (q, quarter) in column.as_chunks().0.iter().enumerate() {
                // SAFETY: the features are those of this function.
                let weights = unsafe { F::column(quarter) };
                for m in 0..ROWS {
                    sums[m][q] = vfmaq_n_f32(sums[m][q], weights, inputs[m][i]);
                }
            }
        }
    }
    for m in 0..ROWS {
        for q in 0..4 {
            store(&mut out[m], q, sums[m][q]);
        }
    }
}

impl Halves for Token {
    const FMA: bool = true;

    #[inline(always)]
    fn add<const N: usize, const T: usize>(
        self,
        sums: &mut [[[f32; 16]; T]; N],
        factors: [&[f32]; N],
        numbers: [&[u16]; T],
        stride: usize,
    ) {
        let count = check(&factors, &numbers, stride);
        // SAFETY: a token exists only where `detect` found the features. All factors, and 16 numbers for each, lie within
        // their slices, as has been checked.
        unsafe {
            for (t, numbers) in numbers.iter().enumerate() {
                let mut vectors = [[vdupq_n_f32(0.0); 4]; N];
                for n in 0..N {
                    for q in 0..4 {
                        vectors[n][q] = floats_of(&sums[n][t], q);
                    }
                }
                for k in 0..count {
                    for q in 0..4 {
                        let bits = vld1_u16(numbers.as_ptr().add(k * stride + 4 * q));
                        let numbers = vcvt_f32_f16(vreinterpret_f16_u16(bits));
                        for n in 0..N {
                            vectors[n][q] = vfmaq_n_f32(vectors[n][q], numbers, *factors[n].get_unchecked(k));
                        }
                    }
                }
                for n in 0..N {
                    for q in 0..4 {
                        store(&mut sums[n][t], q, vectors[n][q]);
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
fn products(rounds: usize) -> usize {
    let weights = std::hint::black_box(vdupq_n_s8(3));
    // Unknown, because equal sums would be made once.
    let mut dots = std::hint::black_box([vdupq_n_s32(0); 16]);
    for _ in 0..rounds {
        for dots in &mut dots {
            *dots = dot::<0>(*dots, weights, vreinterpretq_s32_s8(weights));
        }
    }
    std::hint::black_box(dots);
    rounds * dots.len() * 16
}

trait Pairs: Quants {
    /// Of rows `4 * quarter` and the next three, vectors `2g` and `2g + 1` of the quants.
    ///
    /// SAFETY: only where NEON is enabled.
    unsafe fn pair(&self, g: usize, quarter: usize) -> [uint8x16_t; 2];
}

impl Pairs for Four {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, quarter: usize) -> [uint8x16_t; 2] {
        // SAFETY: the caller has the features.
        unsafe {
            let both = load(&self.0, 4 * g + quarter);
            [vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both)]
        }
    }
}

impl Pairs for Five {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, quarter: usize) -> [uint8x16_t; 2] {
        // SAFETY: the caller has the features.
        unsafe {
            let [first, second] = self.low.pair(g, quarter);
            // To byte i go the eight bits that hold its bit, of which it keeps its own.
            let spread = vcombine_u8(vdup_n_u8(0), vdup_n_u8(1));
            let own = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let bits = |v: usize| {
                let bits = u16::from_le_bytes(self.fifth[v].as_chunks().0[quarter]);
                let spread = vqtbl1q_u8(vreinterpretq_u8_u16(vdupq_n_u16(bits)), spread);
                vandq_u8(vtstq_u8(spread, own), vdupq_n_u8(16))
            };
            [vorrq_u8(first, bits(2 * g)), vorrq_u8(second, bits(2 * g + 1))]
        }
    }
}

impl Pairs for Six {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, quarter: usize) -> [uint8x16_t; 2] {
        // SAFETY: the caller has the features.
        unsafe {
            let ([first, second], mask) = (self.low.pair(g, quarter), vdupq_n_u8(0x30));
            let high = load(&self.high[g / 2], quarter);
            let (in_first, in_second) = match g % 2 {
                0 => (vshlq_n_u8::<4>(high), vshlq_n_u8::<2>(high)),
                _ => (high, vshrq_n_u8::<2>(high)),
            };
            [vorrq_u8(first, vandq_u8(in_first, mask)), vorrq_u8(second, vandq_u8(in_second, mask))]
        }
    }
}

impl Pairs for Eight {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, quarter: usize) -> [uint8x16_t; 2] {
        // SAFETY: the caller has the features.
        unsafe { [load(&self.0, 8 * g + quarter), load(&self.0, 8 * g + 4 + quarter)] }
    }
}

impl<Q: Quants> Pairs for Wide<Q> {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, quarter: usize) -> [uint8x16_t; 2] {
        // SAFETY: the caller has the features.
        unsafe { [load(&self.0, 8 * g + quarter), load(&self.0, 8 * g + 4 + quarter)] }
    }
}

trait Factors: Scales {
    /// As [`Scales::scales`]. Of rows `4 * quarter` and the next three.
    ///
    /// SAFETY: only where NEON is enabled.
    unsafe fn scale_factors(&self, block: usize, part: usize, quarter: usize) -> float32x4_t;

    /// As [`Scales::minima`]. Of rows `4 * quarter` and the next three.
    ///
    /// SAFETY: only where NEON is enabled.
    unsafe fn minimum_factors(&self, _block: usize, _quarter: usize) -> float32x4_t {
        // SAFETY: the caller has the features.
        unsafe { vdupq_n_f32(0.0) }
    }
}

impl Factors for Plain {
    #[inline(always)]
    unsafe fn scale_factors(&self, _: usize, _: usize, quarter: usize) -> float32x4_t {
        // SAFETY: the caller has the features.
        unsafe { halves(&self.scales, quarter) }
    }
}

impl Factors for WithMinima {
    #[inline(always)]
    unsafe fn scale_factors(&self, _: usize, _: usize, quarter: usize) -> float32x4_t {
        // SAFETY: the caller has the features.
        unsafe { halves(&self.scales, quarter) }
    }

    #[inline(always)]
    unsafe fn minimum_factors(&self, _: usize, quarter: usize) -> float32x4_t {
        // SAFETY: the caller has the features.
        unsafe { halves(&self.minima, quarter) }
    }
}

impl Factors for Nested {
    #[inline(always)]
    unsafe fn scale_factors(&self, block: usize, _: usize, quarter: usize) -> float32x4_t {
        // SAFETY: the caller has the features.
        unsafe {
            let (low, high) = six_bits(&self.factors[block], quarter);
            vmulq_f32(halves(&self.scale, quarter), floats_of_bytes(joined(low, vshl_n_u8::<4>(high))))
        }
    }

    #[inline(always)]
    unsafe fn minimum_factors(&self, block: usize, quarter: usize) -> float32x4_t {
        // SAFETY: the caller has the features.
        unsafe {
            let (low, high) = six_bits(&self.factors[block], quarter);
            let factors = joined(vshr_n_u8::<4>(low), vshl_n_u8::<2>(high));
            vmulq_f32(halves(&self.minimum, quarter), floats_of_bytes(factors))
        }
    }
}

impl Factors for NestedHalves {
    #[inline(always)]
    unsafe fn scale_factors(&self, block: usize, part: usize, quarter: usize) -> float32x4_t {
        // SAFETY: the caller has the features.
        unsafe {
            let factors = &self.scales[2 * block + part].as_chunks::<4>().0[quarter];
            let factors = vcreate_s8(u64::from(u32::from_le_bytes(factors.map(|factor| factor as u8))));
            let factors = vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(factors))));
            vmulq_f32(halves(&self.scale, quarter), factors)
        }
    }
}

impl<S: Scales> Factors for Unpacked<S> {
    #[inline(always)]
    unsafe fn scale_factors(&self, _: usize, part: usize, quarter: usize) -> float32x4_t {
        // SAFETY: the caller has the features.
        unsafe { floats_of(&self.scales[part], quarter) }
    }

    #[inline(always)]
    unsafe fn minimum_factors(&self, _: usize, quarter: usize) -> float32x4_t {
        // SAFETY: the caller has the features.
        unsafe { floats_of(&self.minima, quarter) }
    }
}

trait Column: Float {
    /// SAFETY: only where NEON is enabled.
    unsafe fn column(quarter: &[Self; 4]) -> float32x4_t;
}

impl Column for F16 {
    #[inline(always)]
    unsafe fn column(quarter: &[Self; 4]) -> float32x4_t {
        // SAFETY: the caller has the features; the reference is to 8 readable bytes.
        unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(quarter.as_ptr().cast()))) }
    }
}

impl Column for Bf16 {
    #[inline(always)]
    unsafe fn column(quarter: &[Self; 4]) -> float32x4_t {
        // SAFETY: the caller has the features; the reference is to 8 readable bytes.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(quarter.as_ptr().cast()))) }
    }
}

impl Column for f32 {
    #[inline(always)]
    unsafe fn column(quarter: &[Self; 4]) -> float32x4_t {
        // SAFETY: the caller has the features; the reference is to 16 readable bytes.
        unsafe { vld1q_f32(quarter.as_ptr()) }
    }
}

/// `sums` plus the products of four signed bytes of `weights` and the four of word `WORD`, four times.
///
/// The intrinsic for it, `vdotq_laneq_s32`, is stable from Rust 1.98 on.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const WORD: u32>(mut sums: int32x4_t, weights: int8x16_t, words: int32x4_t) -> int32x4_t {
    // SAFETY: the instruction reads registers and writes `sums` only.
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {words:v}.4b[{word}]",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            words = in(vreg) words,
            word = const WORD,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Both sides of the instruction are signed: quants of 8 bits become so less their zero, others are so.
#[inline]
#[target_feature(enable = "neon")]
fn signed<Q: Quants>(quants: uint8x16_t) -> int8x16_t {
    let zero = vdupq_n_u8(if Q::BITS == 8 { 128 } else { 0 });
    vreinterpretq_s8_u8(veorq_u8(quants, zero))
}

/// Words `4 * half` and the next three.
#[inline]
#[target_feature(enable = "neon")]
fn words_of(block: &QuantizedBlock, half: usize) -> int32x4_t {
    let words = &block.words.as_chunks::<4>().0[half];
    // SAFETY: the reference is to 16 readable bytes.
    unsafe { vld1q_s32(words.as_ptr()) }
}

/// Sixteen bytes, from `16 * at` on.
#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8], at: usize) -> uint8x16_t {
    let bytes = &bytes.as_chunks::<16>().0[at];
    // SAFETY: the reference is to 16 readable bytes.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn floats_of(floats: &[f32; TILE], quarter: usize) -> float32x4_t {
    let floats = &floats.as_chunks::<4>().0[quarter];
    // SAFETY: the reference is to 16 readable bytes.
    unsafe { vld1q_f32(floats.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn halves(bits: &[u16; TILE], quarter: usize) -> float32x4_t {
    let bits = &bits.as_chunks::<4>().0[quarter];
    // SAFETY: the reference is to 8 readable bytes.
    vcvt_f32_f16(vreinterpret_f16_u16(unsafe { vld1_u16(bits.as_ptr()) }))
}

#[inline]
#[target_feature(enable = "neon")]
fn floats_of_bytes(bytes: uint8x8_t) -> float32x4_t {
    vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
}

/// Four bytes of `low`, and for each of their rows a byte whose low half holds what is in `high`.
#[inline]
#[target_feature(enable = "neon")]
fn six_bits(factors: &SixBits, quarter: usize) -> (uint8x8_t, uint8x8_t) {
    let four = |bytes: &[u8], at: usize| vcreate_u8(u64::from(u32::from_le_bytes(bytes.as_chunks().0[at])));
    let high = four(&factors.high, quarter % 2);
    (four(&factors.low, quarter), if quarter < 2 { high } else { vshr_n_u8::<4>(high) })
}

/// Of each byte, bits 0 to 3 of `low` and bits 4 and 5 of `high`.
#[inline]
#[target_feature(enable = "neon")]
fn joined(low: uint8x8_t, high: uint8x8_t) -> uint8x8_t {
    vorr_u8(vand_u8(low, vdup_n_u8(15)), vand_u8(high, vdup_n_u8(0x30)))
}

#[inline]
#[target_feature(enable = "neon")]
fn store(out: &mut [f32; TILE], quarter: usize, value: float32x4_t) {
    let out = &mut out.as_chunks_mut::<4>().0[quarter];
    // SAFETY: the reference is to 16 writable bytes.
    unsafe { vst1q_f32(out.as_mut_ptr(), value) }
}

/// From so many rows on, a tile is unpacked first. As for AVX2; not measured on Arm.
const PANEL_ROWS: usize = 24;
