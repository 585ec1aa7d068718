//! Tiles on AVX2 with FMA and F16C: 32 products of bytes an instruction, half a tile at a time.

use std::arch::x86_64::*;

use super::Lanes;
use crate::network::packed::{Block4, Block8, Blocks, QuantizedBlock, TILE};

/// Proof that this processor has what the functions here are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(());

impl Token {
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }

    #[inline]
    pub(super) fn run<L: Lanes>(self, work: L) -> L::Output {
        // SAFETY: a token exists only where `detect` found the features.
        unsafe { lanes(work) }
    }

    #[inline]
    pub(super) fn multiply(self, tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
        // SAFETY: a token exists only where `detect` found the features.
        unsafe { multiply(tile, activations, out) }
    }
}

#[target_feature(enable = "avx2,fma")]
fn lanes<L: Lanes>(work: L) -> L::Output {
    work.run::<true>()
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply(tile: Blocks<'_>, mut activations: &[QuantizedBlock], mut out: &mut [[f32; TILE]]) {
    let columns = tile.len();
    while !out.is_empty() {
        let rows = match out.len() {
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let (now, later) = activations.split_at(rows * columns);
        let (out_now, out_later) = std::mem::take(&mut out).split_at_mut(rows);
        for half in 0..2 {
            match (tile, rows) {
                (Blocks::Four(blocks), 4) => four::<4>(blocks, half, now, out_now),
                (Blocks::Four(blocks), 2) => four::<2>(blocks, half, now, out_now),
                (Blocks::Four(blocks), _) => four::<1>(blocks, half, now, out_now),
                (Blocks::Eight(blocks), 4) => eight::<4>(blocks, half, now, out_now),
                (Blocks::Eight(blocks), 2) => eight::<2>(blocks, half, now, out_now),
                (Blocks::Eight(blocks), _) => eight::<1>(blocks, half, now, out_now),
            }
        }
        (activations, out) = (later, out_later);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn four<const ROWS: usize>(
    blocks: &[Block4],
    half: usize,
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
) {
    let rows: [&[QuantizedBlock]; ROWS] =
        std::array::from_fn(|m| &activations[m * blocks.len()..][..blocks.len()]);
    let (mask, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_ps(); ROWS];
    for (b, block) in blocks.iter().enumerate() {
        // Eight sums of two products of at most 15 * 127 stay below 2^15.
        let mut dots = [_mm256_setzero_si256(); ROWS];
        let groups = block.quants.as_chunks::<32>().0;
        for g in 0..4 {
            let weights = load(&groups[2 * g + half]);
            let low = _mm256_and_si256(weights, mask);
            let high = _mm256_and_si256(_mm256_srli_epi16(weights, 4), mask);
            for m in 0..ROWS {
                let words = &rows[m][b].words;
                let low = _mm256_maddubs_epi16(low, _mm256_set1_epi32(words[2 * g]));
                let high = _mm256_maddubs_epi16(high, _mm256_set1_epi32(words[2 * g + 1]));
                dots[m] = _mm256_add_epi16(dots[m], _mm256_add_epi16(low, high));
            }
        }
        let (scales, minima) = (halves(&block.scales, half), halves(&block.minima, half));
        for m in 0..ROWS {
            let dots = _mm256_cvtepi32_ps(_mm256_madd_epi16(dots[m], ones));
            let scales = _mm256_mul_ps(scales, _mm256_set1_ps(rows[m][b].scale));
            sums[m] = _mm256_fmadd_ps(dots, scales, sums[m]);
            sums[m] = _mm256_fnmadd_ps(minima, _mm256_set1_ps(rows[m][b].sum), sums[m]);
        }
    }
    for m in 0..ROWS {
        store(&mut out[m], half, sums[m]);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn eight<const ROWS: usize>(
    blocks: &[Block8],
    half: usize,
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
) {
    let rows: [&[QuantizedBlock]; ROWS] =
        std::array::from_fn(|m| &activations[m * blocks.len()..][..blocks.len()]);
    let (offset, ones) = (_mm256_set1_epi8(-128), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_ps(); ROWS];
    for (b, block) in blocks.iter().enumerate() {
        let mut dots = [_mm256_setzero_si256(); ROWS];
        let groups = block.quants.as_chunks::<32>().0;
        for g in 0..8 {
            // The instruction wants one side unsigned: the weight gives its sign to the activation. Two products of
            // at most 128 * 127 stay below 2^15.
            let weights = _mm256_xor_si256(load(&groups[2 * g + half]), offset);
            let absolute = _mm256_abs_epi8(weights);
            for m in 0..ROWS {
                let signed = _mm256_sign_epi8(_mm256_set1_epi32(rows[m][b].words[g]), weights);
                let pairs = _mm256_maddubs_epi16(absolute, signed);
                dots[m] = _mm256_add_epi32(dots[m], _mm256_madd_epi16(pairs, ones));
            }
        }
        let scales = halves(&block.scales, half);
        for m in 0..ROWS {
            let scales = _mm256_mul_ps(scales, _mm256_set1_ps(rows[m][b].scale));
            sums[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[m]), scales, sums[m]);
        }
    }
    for m in 0..ROWS {
        store(&mut out[m], half, sums[m]);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference is to 32 readable bytes, and the instruction asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves(bits: &[u16; 16], half: usize) -> __m256 {
    let bits = &bits.as_chunks::<8>().0[half];
    // SAFETY: the reference is to 16 readable bytes, and the instruction asks for no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bits.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(out: &mut [f32; TILE], half: usize, value: __m256) {
    let out = &mut out.as_chunks_mut::<8>().0[half];
    // SAFETY: the reference is to 32 writable bytes, and the instruction asks for no alignment.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), value) }
}
