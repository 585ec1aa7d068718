//! Tiles on AVX-512 with VNNI: 64 products of bytes an instruction.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Lanes;
use crate::network::packed::{Block4, Block8, Blocks, QuantizedBlock, TILE};

/// Proof that this processor has what the functions here are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(());

impl Token {
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn lanes<L: Lanes>(work: L) -> L::Output {
    work.run::<true>()
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
fn multiply(tile: Blocks<'_>, mut activations: &[QuantizedBlock], mut out: &mut [[f32; TILE]]) {
    let columns = tile.len();
    while !out.is_empty() {
        let rows = match out.len() {
            8.. => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let (now, later) = activations.split_at(rows * columns);
        let (out_now, out_later) = std::mem::take(&mut out).split_at_mut(rows);
        match (tile, rows) {
            (Blocks::Four(blocks), 8) => four::<8>(blocks, now, out_now),
            (Blocks::Four(blocks), 4) => four::<4>(blocks, now, out_now),
            (Blocks::Four(blocks), 2) => four::<2>(blocks, now, out_now),
            (Blocks::Four(blocks), _) => four::<1>(blocks, now, out_now),
            (Blocks::Eight(blocks), 8) => eight::<8>(blocks, now, out_now),
            (Blocks::Eight(blocks), 4) => eight::<4>(blocks, now, out_now),
            (Blocks::Eight(blocks), 2) => eight::<2>(blocks, now, out_now),
            (Blocks::Eight(blocks), _) => eight::<1>(blocks, now, out_now),
        }
        (activations, out) = (later, out_later);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
fn four<const ROWS: usize>(blocks: &[Block4], activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
    let rows: [&[QuantizedBlock]; ROWS] =
        std::array::from_fn(|m| &activations[m * blocks.len()..][..blocks.len()]);
    let mask = _mm512_set1_epi8(15);
    let mut sums = [_mm512_setzero_ps(); ROWS];
    for (b, block) in blocks.iter().enumerate() {
        let mut low = [_mm512_setzero_si512(); ROWS];
        let mut high = [_mm512_setzero_si512(); ROWS];
        let groups = block.quants.as_chunks::<64>().0;
        for g in 0..4 {
            let weights = load(&groups[g]);
            let weights_low = _mm512_and_si512(weights, mask);
            let weights_high = _mm512_and_si512(_mm512_srli_epi16(weights, 4), mask);
            for m in 0..ROWS {
                let words = &rows[m][b].words;
                low[m] = dot(low[m], weights_low, &words[2 * g]);
                high[m] = dot(high[m], weights_high, &words[2 * g + 1]);
            }
        }
        let (scales, minima) = (halves(&block.scales), halves(&block.minima));
        for m in 0..ROWS {
            let dots = _mm512_cvtepi32_ps(_mm512_add_epi32(low[m], high[m]));
            let scales = _mm512_mul_ps(scales, _mm512_set1_ps(rows[m][b].scale));
            sums[m] = _mm512_fmadd_ps(dots, scales, sums[m]);
            sums[m] = _mm512_fnmadd_ps(minima, _mm512_set1_ps(rows[m][b].sum), sums[m]);
        }
    }
    for m in 0..ROWS {
        store(&mut out[m], sums[m]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
fn eight<const ROWS: usize>(blocks: &[Block8], activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
    let rows: [&[QuantizedBlock]; ROWS] =
        std::array::from_fn(|m| &activations[m * blocks.len()..][..blocks.len()]);
    let mut sums = [_mm512_setzero_ps(); ROWS];
    for (b, block) in blocks.iter().enumerate() {
        let mut even = [_mm512_setzero_si512(); ROWS];
        let mut odd = [_mm512_setzero_si512(); ROWS];
        let groups = block.quants.as_chunks::<64>().0;
        for g in 0..4 {
            let (first, second) = (load(&groups[2 * g]), load(&groups[2 * g + 1]));
            for m in 0..ROWS {
                let words = &rows[m][b].words;
                even[m] = dot(even[m], first, &words[2 * g]);
                odd[m] = dot(odd[m], second, &words[2 * g + 1]);
            }
        }
        let scales = halves(&block.scales);
        for m in 0..ROWS {
            // The weights are stored 128 too large, so that they are unsigned.
            let dots = _mm512_cvtepi32_ps(_mm512_add_epi32(even[m], odd[m]));
            let offset = _mm512_set1_ps(128.0 * rows[m][b].sum);
            let dots = _mm512_fmsub_ps(dots, _mm512_set1_ps(rows[m][b].scale), offset);
            sums[m] = _mm512_fmadd_ps(dots, scales, sums[m]);
        }
    }
    for m in 0..ROWS {
        store(&mut out[m], sums[m]);
    }
}

/// `sums` plus the products of four unsigned bytes of `weights` and the four signed ones of `word`, 16 times.
///
/// As intrinsics, the compiler gathers the words of a block into vectors first and takes them apart again over the
/// stack, at a fifth of the speed.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(mut sums: __m512i, weights: __m512i, word: &i32) -> __m512i {
    // SAFETY: the instruction reads the four bytes of `word` and writes `sums` only.
    unsafe {
        asm!(
            "vpdpbusd {sums}, {weights}, dword ptr [{word}]{{1to16}}",
            sums = inout(zmm_reg) sums,
            weights = in(zmm_reg) weights,
            word = in(reg) word,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(bits: &[u16; 16]) -> __m512 {
    // SAFETY: the reference is to 32 readable bytes, and the instruction asks for no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bits.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(out: &mut [f32; TILE], value: __m512) {
    // SAFETY: the reference is to 64 writable bytes, and the instruction asks for no alignment.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), value) }
}
