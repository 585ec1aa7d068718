//! Tiles on AVX2 with FMA and F16C: 32 products of bytes an instruction, of half a tile.
//!
//! Where there is AVX-VNNI too (Intel's processors without AVX-512 since 2021, AMD's since Zen 5), its instruction forms the sums of
//! four products that take three otherwise. Sums over 32 columns are whole numbers, so both give the same bits.

// Registers are counted by the same number in several arrays at once.
#![allow(clippy::needless_range_loop)]

mod halves;
mod unpack;

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use self::unpack::{Column, Factors, Pairs, floats_of};
use super::Lanes;
use super::ahead::fetch_beyond;
use super::panel::panels;
use crate::network::packed::{BLOCK, Blocks, Floats, Integers, QuantizedBlock, TILE, dispatch};

/// Proof that this processor has what the functions here are compiled for, and AVX-VNNI where it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<const VNNI: bool>(());

impl<const VNNI: bool> Token<VNNI> {
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!VNNI || is_x86_feature_detected!("avxvnni"));
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
        unsafe { multiply(tile, self, activations, out) }
    }

    pub(super) fn products(self, rounds: usize) -> usize {
        // SAFETY: a token exists only where `detect` found the features.
        unsafe { products(self, rounds) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn lanes<L: Lanes, const VNNI: bool>(token: Token<VNNI>, work: L) -> L::Output {
    work.run_with(token)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply<const VNNI: bool>(
    tile: Blocks<'_>,
    token: Token<VNNI>,
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
) {
    out.fill([0.0; TILE]);
    dispatch!(tile, integers, floats, token, activations, out);
}

/// `out` += the tile times the activations.
#[target_feature(enable = "avx2,fma,f16c")]
fn integers<Q: Pairs, S: Factors, const N: usize, const VNNI: bool>(
    tile: &[Integers<Q, S, N>],
    token: Token<VNNI>,
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
) {
    let columns = tile.len() * N;
    // Four and eight bits are read as fast as a panel, where scales need no unpacking.
    if out.len() < PANEL_ROWS || matches!(Q::BITS, 4 | 8) && N == 1 {
        some(tile, token, activations, columns, out, true);
    } else {
        panels(tile, |panel, first| some(panel, token, &activations[first..], columns, out, false));
    }
}

/// As many rows at a time as there are registers for. A row has `columns` blocks. `ahead`: whether the first rows ask for what
/// lies beyond the tile.
#[target_feature(enable = "avx2,fma,f16c")]
fn some<Q: Pairs, S: Factors, const N: usize, const VNNI: bool>(
    tile: &[Integers<Q, S, N>],
    token: Token<VNNI>,
    mut activations: &[QuantizedBlock],
    columns: usize,
    mut out: &mut [[f32; TILE]],
    mut ahead: bool,
) {
    // Chosen by the products an instruction, as callgrind counts instructions. Six bits that are unpacked first are in
    // panels, of single blocks.
    let both_halves = VNNI || Q::BITS == 8 || Q::BITS == 6 && N == 1;
    while !out.is_empty() {
        let rows = match out.len() {
            8.. if Q::BITS == 4 && !VNNI => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let (now, later) = std::mem::take(&mut out).split_at_mut(rows);
        match rows {
            8 => {
                rows_of::<Q, S, N, VNNI, 8, 1>(tile, 0, token, activations, columns, now, ahead);
                rows_of::<Q, S, N, VNNI, 8, 1>(tile, 1, token, activations, columns, now, ahead);
            }
            4 if both_halves => {
                rows_of::<Q, S, N, VNNI, 4, 2>(tile, 0, token, activations, columns, now, ahead)
            }
            4 => {
                rows_of::<Q, S, N, VNNI, 4, 1>(tile, 0, token, activations, columns, now, ahead);
                rows_of::<Q, S, N, VNNI, 4, 1>(tile, 1, token, activations, columns, now, ahead);
            }
            2 => rows_of::<Q, S, N, VNNI, 2, 2>(tile, 0, token, activations, columns, now, ahead),
            _ => rows_of::<Q, S, N, VNNI, 1, 2>(tile, 0, token, activations, columns, now, ahead),
        }
        activations = activations.get(rows * columns..).unwrap_or_default();
        (out, ahead) = (later, false);
    }
}

/// Of `HALVES` halves of the tile from `first` on, which share the reading of the activations.
#[target_feature(enable = "avx2,fma,f16c")]
fn rows_of<Q: Pairs, S: Factors, const N: usize, const VNNI: bool, const ROWS: usize, const HALVES: usize>(
    tile: &[Integers<Q, S, N>],
    first: usize,
    token: Token<VNNI>,
    activations: &[QuantizedBlock],
    columns: usize,
    out: &mut [[f32; TILE]],
    ahead: bool,
) {
    let rows: [&[QuantizedBlock]; ROWS] =
        std::array::from_fn(|m| &activations[m * columns..][..tile.len() * N]);
    let mut sums = [[_mm256_setzero_ps(); HALVES]; ROWS];
    for m in 0..ROWS {
        for h in 0..HALVES {
            sums[m][h] = floats_of(&out[m], first + h);
        }
    }
    let log_of_zero = _mm_cvtsi32_si128(Q::BITS as i32 - 1);
    for (at, blocks) in tile.iter().enumerate() {
        for b in 0..N {
            if ahead && first == 0 {
                fetch_beyond(blocks, b, N);
            }
            let mut activations = [&rows[0][at * N + b]; ROWS];
            for m in 1..ROWS {
                activations[m] = &rows[m][at * N + b];
            }
            let parts = if S::SPLIT { 2 } else { 1 };
            for part in 0..parts {
                let pairs = part * 4 / parts..(part + 1) * 4 / parts;
                let mut dots = if VNNI {
                    // SAFETY: the features are those of this function, and the token says that there is AVX-VNNI. Rows are
                    // `columns` blocks apart in one slice.
                    unsafe { dots_by_vnni(token, &blocks.quants[b], first, pairs, &activations, columns) }
                } else {
                    // SAFETY: the features are those of this function.
                    unsafe { dots_of::<Q, ROWS, HALVES>(&blocks.quants[b], first, pairs, &activations) }
                };
                let mut scales = [_mm256_setzero_ps(); HALVES];
                for h in 0..HALVES {
                    // SAFETY: the features are those of this function.
                    scales[h] = unsafe { blocks.scales.scale_factors(b, part, first + h) };
                }
                for m in 0..ROWS {
                    let scale = _mm256_set1_ps(activations[m].scale);
                    for h in 0..HALVES {
                        if !S::MINIMA && (VNNI || Q::BITS < 8) {
                            let which = if S::SPLIT { 1 + part } else { 0 };
                            let minus = _mm256_set1_epi32(activations[m].minus[which]);
                            dots[m][h] = _mm256_add_epi32(dots[m][h], _mm256_sll_epi32(minus, log_of_zero));
                        }
                        let scales = _mm256_mul_ps(scales[h], scale);
                        sums[m][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots[m][h]), scales, sums[m][h]);
                    }
                }
            }
            if S::MINIMA {
                for h in 0..HALVES {
                    // SAFETY: the features are those of this function.
                    let minima = unsafe { blocks.scales.minimum_factors(b, first + h) };
                    for m in 0..ROWS {
                        sums[m][h] = _mm256_fnmadd_ps(minima, _mm256_set1_ps(activations[m].sum), sums[m][h]);
                    }
                }
            }
        }
    }
    for m in 0..ROWS {
        for h in 0..HALVES {
            store(&mut out[m], first + h, sums[m][h]);
        }
    }
}

/// Sums over the columns of some pairs of vectors, of each row and half. Of eight bits less their zero, others as they are.
///
/// SAFETY: only where AVX2 is enabled.
#[inline(always)]
unsafe fn dots_of<Q: Pairs, const ROWS: usize, const HALVES: usize>(
    quants: &Q,
    first: usize,
    pairs: Range<usize>,
    activations: &[&QuantizedBlock; ROWS],
) -> [[__m256i; HALVES]; ROWS] {
    // SAFETY: the caller has the features.
    unsafe {
        let ones = _mm256_set1_epi16(1);
        // How many pairs of vectors can be added in 16 bits: two products of at most 15 * 127 eight times, of 31 * 127 four
        // times and of 63 * 127 twice stay below 2^15.
        let together = [4, 2, 1][Q::BITS.clamp(4, 6) as usize - 4];
        let mut dots = [[_mm256_setzero_si256(); HALVES]; ROWS];
        let mut sixteen = [[_mm256_setzero_si256(); HALVES]; ROWS];
        for pair in pairs {
            let mut vectors = [[_mm256_setzero_si256(); 2]; HALVES];
            for h in 0..HALVES {
                vectors[h] = quants.pair(pair, first + h);
            }
            for v in 0..2 {
                for m in 0..ROWS {
                    let word = _mm256_set1_epi32(activations[m].words[2 * pair + v]);
                    for h in 0..HALVES {
                        if Q::BITS == 8 {
                            dots[m][h] = _mm256_add_epi32(dots[m][h], eight(vectors[h][v], word));
                        } else {
                            let products = _mm256_maddubs_epi16(vectors[h][v], word);
                            sixteen[m][h] = _mm256_add_epi16(sixteen[m][h], products);
                        }
                    }
                }
            }
            if Q::BITS < 8 && (pair + 1) % together == 0 {
                for m in 0..ROWS {
                    for h in 0..HALVES {
                        let products = _mm256_madd_epi16(sixteen[m][h], ones);
                        dots[m][h] = _mm256_add_epi32(dots[m][h], products);
                        sixteen[m][h] = _mm256_setzero_si256();
                    }
                }
            }
        }
        dots
    }
}

/// As [`dots_of`], of eight bits too as they are.
///
/// SAFETY: only where AVX2 is enabled, and with AVX-VNNI. Each of the `activations` lies `columns` blocks behind the one before, in
/// one slice.
#[inline(always)]
unsafe fn dots_by_vnni<Q: Pairs, const VNNI: bool, const ROWS: usize, const HALVES: usize>(
    token: Token<VNNI>,
    quants: &Q,
    first: usize,
    pairs: Range<usize>,
    activations: &[&QuantizedBlock; ROWS],
    columns: usize,
) -> [[__m256i; HALVES]; ROWS] {
    // SAFETY: the caller has the features, and the blocks lie as `dot4` wants them.
    unsafe {
        let mut dots = [[_mm256_setzero_si256(); HALVES]; ROWS];
        for pair in pairs {
            let mut vectors = [[_mm256_setzero_si256(); 2]; HALVES];
            for h in 0..HALVES {
                vectors[h] = quants.pair(pair, first + h);
            }
            for v in 0..2 {
                let at = 2 * pair + v;
                if ROWS == 4
                    && HALVES == 2
                    && let Some(dots) = dots.as_flattened_mut().first_chunk_mut()
                {
                    let halves = [vectors[0][v], vectors[HALVES - 1][v]];
                    dot4(
                        token,
                        dots,
                        halves,
                        &activations[0].words[at],
                        columns * size_of::<QuantizedBlock>(),
                    );
                    continue;
                }
                for m in 0..ROWS {
                    let word = _mm256_set1_epi32(activations[m].words[at]);
                    for h in 0..HALVES {
                        dots[m][h] = dot(token, dots[m][h], vectors[h][v], word);
                    }
                }
            }
        }
        dots
    }
}

/// `sums` plus those of four products of unsigned bytes of `quants` and signed ones of `word`. Only with AVX-VNNI.
#[inline]
#[target_feature(enable = "avx2")]
fn dot<const VNNI: bool>(_: Token<VNNI>, mut sums: __m256i, quants: __m256i, word: __m256i) -> __m256i {
    assert!(VNNI, "a token for the instruction");
    // As an intrinsic it would ask for functions of its own all the way up.
    // SAFETY: the token says that the processor has the instruction, which reads and writes registers only.
    unsafe {
        asm!(
            "{{vex}} vpdpbusd {sums}, {quants}, {word}",
            sums = inout(ymm_reg) sums,
            quants = in(ymm_reg) quants,
            word = in(ymm_reg) word,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// As [`dot`], of two halves with `word` and the three that follow it at distances of `stride` bytes. Only with AVX-VNNI.
///
/// As [`dot`] alone, each word takes a load of its address, and more registers than there are.
///
/// SAFETY: there are readable words at these three distances.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn dot4<const VNNI: bool>(
    _: Token<VNNI>,
    [a, b, c, d, e, f, g, h]: &mut [__m256i; 8],
    [low, high]: [__m256i; 2],
    word: &i32,
    stride: usize,
) {
    assert!(VNNI, "a token for the instruction");
    // SAFETY: the token says that the processor has the instruction. Four bytes are read of `word` and at three
    // distances where the caller promises words, and only the sums are written.
    unsafe {
        asm!(
            "vpbroadcastd {one}, dword ptr [{word}]",
            "vpbroadcastd {other}, dword ptr [{word} + {stride}]",
            "{{vex}} vpdpbusd {a}, {low}, {one}",
            "{{vex}} vpdpbusd {b}, {high}, {one}",
            "vpbroadcastd {one}, dword ptr [{word} + 2 * {stride}]",
            "{{vex}} vpdpbusd {c}, {low}, {other}",
            "{{vex}} vpdpbusd {d}, {high}, {other}",
            "vpbroadcastd {other}, dword ptr [{word} + {three}]",
            "{{vex}} vpdpbusd {e}, {low}, {one}",
            "{{vex}} vpdpbusd {f}, {high}, {one}",
            "{{vex}} vpdpbusd {g}, {low}, {other}",
            "{{vex}} vpdpbusd {h}, {high}, {other}",
            a = inout(ymm_reg) *a,
            b = inout(ymm_reg) *b,
            c = inout(ymm_reg) *c,
            d = inout(ymm_reg) *d,
            e = inout(ymm_reg) *e,
            f = inout(ymm_reg) *f,
            g = inout(ymm_reg) *g,
            h = inout(ymm_reg) *h,
            low = in(ymm_reg) low,
            high = in(ymm_reg) high,
            one = out(ymm_reg) _,
            other = out(ymm_reg) _,
            word = in(reg) word,
            stride = in(reg) stride,
            three = in(reg) 3 * stride,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
}

/// Sums of four products of `quants` less 128 and bytes of `word`.
#[inline]
#[target_feature(enable = "avx2")]
fn eight(quants: __m256i, word: __m256i) -> __m256i {
    // The instruction wants one side unsigned: the weight gives its sign to the activation. Two products of at most
    // 128 * 127 stay below 2^15.
    let weights = _mm256_xor_si256(quants, _mm256_set1_epi8(-128));
    let products = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(word, weights));
    _mm256_madd_epi16(products, _mm256_set1_epi16(1))
}

/// `out` += the tile times the activations.
#[target_feature(enable = "avx2,fma,f16c")]
fn floats<F: Column, const VNNI: bool>(
    tile: &[Floats<F>],
    _: Token<VNNI>,
    mut activations: &[QuantizedBlock],
    mut out: &mut [[f32; TILE]],
) {
    let mut ahead = true;
    while !out.is_empty() {
        let rows = if out.len() >= 4 { 4 } else { 1 };
        let (now, later) = std::mem::take(&mut out).split_at_mut(rows);
        match rows {
            4 => float_rows::<F, 4>(tile, activations, now, ahead),
            _ => float_rows::<F, 1>(tile, activations, now, ahead),
        }
        activations = &activations[rows * tile.len()..];
        (out, ahead) = (later, false);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn float_rows<F: Column, const ROWS: usize>(
    tile: &[Floats<F>],
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
    ahead: bool,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    for (at, block) in tile.iter().enumerate() {
        let mut inputs = [[0.0; BLOCK]; ROWS];
        for m in 0..ROWS {
            inputs[m] = activations[m * tile.len() + at].floats();
        }
        for (i, column) in block.columns.iter().enumerate() {
            if ahead {
                fetch_beyond(block, i, BLOCK);
            }
            let [low, high] = column.as_chunks().0 else { unreachable!("a column has 16 rows") };
            // SAFETY: the features are those of this function.
            let (low, high) = unsafe { (F::column(low), F::column(high)) };
            for m in 0..ROWS {
                let input = _mm256_set1_ps(inputs[m][i]);
                sums[m][0] = _mm256_fmadd_ps(low, input, sums[m][0]);
                sums[m][1] = _mm256_fmadd_ps(high, input, sums[m][1]);
            }
        }
    }
    for m in 0..ROWS {
        store(&mut out[m], 0, sums[m][0]);
        store(&mut out[m], 1, sums[m][1]);
    }
}

#[target_feature(enable = "avx2")]
fn products<const VNNI: bool>(token: Token<VNNI>, rounds: usize) -> usize {
    let mut weights = std::hint::black_box(_mm256_set1_epi8(3));
    let mut dots = [_mm256_setzero_si256(); 12];
    for _ in 0..rounds {
        for dots in &mut dots {
            *dots = match VNNI {
                true => dot(token, *dots, weights, weights),
                false => _mm256_add_epi16(*dots, _mm256_maddubs_epi16(weights, *dots)),
            };
        }
        weights = _mm256_xor_si256(weights, dots[0]);
    }
    std::hint::black_box(dots);
    rounds * dots.len() * 32
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(out: &mut [f32; TILE], half: usize, value: __m256) {
    let out = &mut out.as_chunks_mut::<8>().0[half];
    // SAFETY: the reference is to 32 writable bytes, and the instruction asks for no alignment.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), value) }
}

/// From so many rows on, it pays to unpack a tile first.
const PANEL_ROWS: usize = 24;
