//! Tiles on AVX-512 with VNNI: 64 products of bytes an instruction.

pub(super) mod unpack;

use std::arch::asm;
use std::arch::x86_64::*;

use self::unpack::{Column, Factors, Pairs, floats_of};
use super::ahead::{fetch, fetch_beyond};
use super::halves::check;
use super::{Halves, Lanes};
use crate::network::packed::{BLOCK, Blocks, Floats, Integers, QuantizedBlock, TILE, dispatch};

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
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn lanes<L: Lanes>(token: Token, work: L) -> L::Output {
    work.run_with(token)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply(tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
    dispatch!(tile, integers, floats, activations, out);
}

/// As many rows at a time as there are registers for. The first ask for what lies beyond the tile.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn integers<Q: Pairs, S: Factors, const N: usize>(
    tile: &[Integers<Q, S, N>],
    mut activations: &[QuantizedBlock],
    mut out: &mut [[f32; TILE]],
) {
    let mut ahead = true;
    while !out.is_empty() {
        let rows = match out.len() {
            12.. => 12,
            8.. => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let (now, later) = std::mem::take(&mut out).split_at_mut(rows);
        match rows {
            12 => rows_of::<Q, S, N, 12>(tile, activations, now, ahead),
            8 => rows_of::<Q, S, N, 8>(tile, activations, now, ahead),
            4 => rows_of::<Q, S, N, 4>(tile, activations, now, ahead),
            2 => rows_of::<Q, S, N, 2>(tile, activations, now, ahead),
            _ => rows_of::<Q, S, N, 1>(tile, activations, now, ahead),
        }
        activations = &activations[rows * tile.len() * N..];
        (out, ahead) = (later, false);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn rows_of<Q: Pairs, S: Factors, const N: usize, const ROWS: usize>(
    tile: &[Integers<Q, S, N>],
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
    ahead: bool,
) {
    let columns = tile.len() * N;
    let rows: [&[QuantizedBlock]; ROWS] = std::array::from_fn(|m| &activations[m * columns..][..columns]);
    let mut sums = [_mm512_setzero_ps(); ROWS];
    let log_of_zero = _mm_cvtsi32_si128(Q::BITS as i32 - 1);
    for (at, blocks) in tile.iter().enumerate() {
        for b in 0..N {
            if ahead {
                fetch_beyond(blocks, b, N);
            }
            let mut activations = [&rows[0][at * N + b]; ROWS];
            for m in 1..ROWS {
                activations[m] = &rows[m][at * N + b];
            }
            let parts = if S::SPLIT { 2 } else { 1 };
            for part in 0..parts {
                let mut dots = [_mm512_setzero_si512(); ROWS];
                if !S::MINIMA {
                    let which = if S::SPLIT { 1 + part } else { 0 };
                    for m in 0..ROWS {
                        let minus = _mm512_set1_epi32(activations[m].minus[which]);
                        dots[m] = _mm512_sll_epi32(minus, log_of_zero);
                    }
                }
                for pair in part * 4 / parts..(part + 1) * 4 / parts {
                    // SAFETY: the features are those of this function.
                    let [first, second] = unsafe { blocks.quants[b].pair(pair) };
                    // SAFETY: the rows lie one behind the other in one slice, of `columns` blocks each.
                    unsafe {
                        dots_of(&mut dots, first, &activations, 2 * pair, columns);
                        dots_of(&mut dots, second, &activations, 2 * pair + 1, columns);
                    }
                }
                // SAFETY: the features are those of this function.
                let scales = unsafe { blocks.scales.scale_factors(b, part) };
                for m in 0..ROWS {
                    let scales = _mm512_mul_ps(scales, _mm512_set1_ps(activations[m].scale));
                    sums[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots[m]), scales, sums[m]);
                }
            }
            if S::MINIMA {
                // SAFETY: the features are those of this function.
                let minima = unsafe { blocks.scales.minimum_factors(b) };
                for m in 0..ROWS {
                    sums[m] = _mm512_fnmadd_ps(minima, _mm512_set1_ps(activations[m].sum), sums[m]);
                }
            }
        }
    }
    for m in 0..ROWS {
        store(&mut out[m], sums[m]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn floats<F: Column>(
    tile: &[Floats<F>],
    mut activations: &[QuantizedBlock],
    mut out: &mut [[f32; TILE]],
) {
    let mut ahead = true;
    while !out.is_empty() {
        let rows = match out.len() {
            8.. => 8,
            4.. => 4,
            _ => 1,
        };
        let (now, later) = std::mem::take(&mut out).split_at_mut(rows);
        match rows {
            8 => float_rows::<F, 8>(tile, activations, now, ahead),
            4 => float_rows::<F, 4>(tile, activations, now, ahead),
            _ => float_rows::<F, 1>(tile, activations, now, ahead),
        }
        activations = &activations[rows * tile.len()..];
        (out, ahead) = (later, false);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn float_rows<F: Column, const ROWS: usize>(
    tile: &[Floats<F>],
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
    ahead: bool,
) {
    // Even and odd columns, so that a sum need not wait for the one before.
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (at, block) in tile.iter().enumerate() {
        let mut inputs = [[0.0; BLOCK]; ROWS];
        for m in 0..ROWS {
            inputs[m] = activations[m * tile.len() + at].floats();
        }
        for (i, columns) in block.columns.as_chunks::<2>().0.iter().enumerate() {
            if ahead {
                fetch_beyond(block, i, BLOCK / 2);
            }
            // SAFETY: the features are those of this function.
            let (even, odd) = unsafe { (F::column(&columns[0]), F::column(&columns[1])) };
            for m in 0..ROWS {
                let inputs = &inputs[m].as_chunks::<2>().0[i];
                sums[m][0] = _mm512_fmadd_ps(even, _mm512_set1_ps(inputs[0]), sums[m][0]);
                sums[m][1] = _mm512_fmadd_ps(odd, _mm512_set1_ps(inputs[1]), sums[m][1]);
            }
        }
    }
    for m in 0..ROWS {
        store(&mut out[m], _mm512_add_ps(sums[m][0], sums[m][1]));
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
            let mut vectors = [[_mm512_setzero_ps(); T]; N];
            for n in 0..N {
                for t in 0..T {
                    vectors[n][t] = floats_of(&sums[n][t]);
                }
            }
            for k in 0..count {
                for t in 0..T {
                    let bits = _mm256_loadu_si256(numbers[t].as_ptr().add(k * stride).cast());
                    let numbers = _mm512_cvtph_ps(bits);
                    for n in 0..N {
                        let factor = _mm512_set1_ps(*factors[n].get_unchecked(k));
                        vectors[n][t] = _mm512_fmadd_ps(factor, numbers, vectors[n][t]);
                    }
                }
            }
            for n in 0..N {
                for t in 0..T {
                    store(&mut sums[n][t], vectors[n][t]);
                }
            }
        }
    }

    #[inline(always)]
    fn ask(self, numbers: &[u16]) {
        fetch(numbers);
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn products(rounds: usize) -> usize {
    let weights = std::hint::black_box(_mm512_set1_epi8(3));
    let mut dots = [_mm512_setzero_si512(); 16];
    for _ in 0..rounds {
        for dots in &mut dots {
            *dots = _mm512_dpbusd_epi32(*dots, weights, weights);
        }
    }
    std::hint::black_box(dots);
    rounds * dots.len() * 64
}

/// Adds to each row's `dots` what `weights` and word `at` of its block give.
///
/// SAFETY: each of the `blocks` lies `columns` blocks behind the one before, in one slice.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dots_of<const ROWS: usize>(
    dots: &mut [__m512i; ROWS],
    weights: __m512i,
    blocks: &[&QuantizedBlock; ROWS],
    at: usize,
    columns: usize,
) {
    let (fours, rest) = dots.as_chunks_mut::<4>();
    for (number, dots) in fours.iter_mut().enumerate() {
        // SAFETY: the same word of the next three blocks lies at these distances.
        unsafe { dot4(dots, weights, &blocks[4 * number].words[at], columns * size_of::<QuantizedBlock>()) };
    }
    let first = ROWS - rest.len();
    for (m, dots) in rest.iter_mut().enumerate() {
        *dots = dot(*dots, weights, &blocks[first + m].words[at]);
    }
}

/// As [`dot`], of `word` and the three that follow it at distances of `stride` bytes: so 12 rows need few registers.
///
/// SAFETY: these words may be read.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dot4([a, b, c, d]: &mut [__m512i; 4], weights: __m512i, word: &i32, stride: usize) {
    // SAFETY: the instructions read four bytes of `word` and at three distances where the caller promises words, and
    // write the sums only.
    unsafe {
        asm!(
            "vpdpbusd {a}, {weights}, dword ptr [{word}]{{1to16}}",
            "vpdpbusd {b}, {weights}, dword ptr [{word} + {stride}]{{1to16}}",
            "vpdpbusd {c}, {weights}, dword ptr [{word} + 2 * {stride}]{{1to16}}",
            "vpdpbusd {d}, {weights}, dword ptr [{word} + {three}]{{1to16}}",
            a = inout(zmm_reg) *a,
            b = inout(zmm_reg) *b,
            c = inout(zmm_reg) *c,
            d = inout(zmm_reg) *d,
            weights = in(zmm_reg) weights,
            word = in(reg) word,
            stride = in(reg) stride,
            three = in(reg) 3 * stride,
            options(pure, readonly, nostack, preserves_flags),
        );
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
pub(super) fn store(out: &mut [f32; TILE], value: __m512) {
    // SAFETY: the reference is to 64 writable bytes, and the instruction asks for no alignment.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), value) }
}
