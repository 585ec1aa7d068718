//! Tiles on AVX2 with FMA and F16C: 32 products of bytes an instruction, of half a tile.

// Registers are counted by the same number in several arrays at once.
#![allow(clippy::needless_range_loop)]

mod halves;

use std::arch::x86_64::*;

use super::Lanes;
use super::ahead::fetch_beyond;
use super::panel::{Unpacked, Wide, panels};
use crate::network::packed::{
    BLOCK, Bf16, Blocks, Eight, F16, Five, Float, Floats, Four, Integers, Nested, NestedHalves, Plain,
    QuantizedBlock, Quants, Scales, Six, TILE, WithMinima, dispatch,
};

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

#[target_feature(enable = "avx2,fma,f16c")]
fn lanes<L: Lanes>(token: Token, work: L) -> L::Output {
    work.run_with(token)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn multiply(tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
    out.fill([0.0; TILE]);
    dispatch!(tile, integers, floats, activations, out);
}

/// `out` += the tile times the activations.
#[target_feature(enable = "avx2,fma,f16c")]
fn integers<Q: Pairs, S: Factors, const N: usize>(
    tile: &[Integers<Q, S, N>],
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
) {
    let columns = tile.len() * N;
    // Four and eight bits are read as fast as a panel.
    if out.len() < PANEL_ROWS || matches!(Q::BITS, 4 | 8) {
        some(tile, activations, columns, out, true);
    } else {
        panels(tile, |panel, first| some(panel, &activations[first..], columns, out, false));
    }
}

/// As many rows at a time as there are registers for. A row has `columns` blocks. `ahead`: whether the first rows ask for what
/// lies beyond the tile.
#[target_feature(enable = "avx2,fma,f16c")]
fn some<Q: Pairs, S: Factors, const N: usize>(
    tile: &[Integers<Q, S, N>],
    mut activations: &[QuantizedBlock],
    columns: usize,
    mut out: &mut [[f32; TILE]],
    mut ahead: bool,
) {
    // Chosen by the products an instruction, as callgrind counts instructions. Six bits that are unpacked first are in
    // panels, of single blocks.
    let both_halves = Q::BITS == 8 || Q::BITS == 6 && N == 1;
    while !out.is_empty() {
        let rows = match out.len() {
            8.. if Q::BITS == 4 => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let (now, later) = std::mem::take(&mut out).split_at_mut(rows);
        match rows {
            8 => {
                rows_of::<Q, S, N, 8, 1>(tile, 0, activations, columns, now, ahead);
                rows_of::<Q, S, N, 8, 1>(tile, 1, activations, columns, now, ahead);
            }
            4 if both_halves => rows_of::<Q, S, N, 4, 2>(tile, 0, activations, columns, now, ahead),
            4 => {
                rows_of::<Q, S, N, 4, 1>(tile, 0, activations, columns, now, ahead);
                rows_of::<Q, S, N, 4, 1>(tile, 1, activations, columns, now, ahead);
            }
            2 => rows_of::<Q, S, N, 2, 2>(tile, 0, activations, columns, now, ahead),
            _ => rows_of::<Q, S, N, 1, 2>(tile, 0, activations, columns, now, ahead),
        }
        activations = activations.get(rows * columns..).unwrap_or_default();
        (out, ahead) = (later, false);
    }
}

/// Of `HALVES` halves of the tile from `first` on, which share the reading of the activations.
#[target_feature(enable = "avx2,fma,f16c")]
fn rows_of<Q: Pairs, S: Factors, const N: usize, const ROWS: usize, const HALVES: usize>(
    tile: &[Integers<Q, S, N>],
    first: usize,
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
    let ones = _mm256_set1_epi16(1);
    let log_of_zero = _mm_cvtsi32_si128(Q::BITS as i32 - 1);
    // How many pairs of vectors can be added in 16 bits: two products of at most 15 * 127 eight times, of 31 * 127 four
    // times and of 63 * 127 twice stay below 2^15.
    let together = [4, 2, 1][Q::BITS.clamp(4, 6) as usize - 4];
    for (at, blocks) in tile.iter().enumerate() {
        if ahead && first == 0 {
            fetch_beyond(blocks);
        }
        for b in 0..N {
            let mut activations = [&rows[0][at * N + b]; ROWS];
            for m in 1..ROWS {
                activations[m] = &rows[m][at * N + b];
            }
            let parts = if S::SPLIT { 2 } else { 1 };
            for part in 0..parts {
                let mut dots = [[_mm256_setzero_si256(); HALVES]; ROWS];
                let mut sixteen = [[_mm256_setzero_si256(); HALVES]; ROWS];
                for pair in part * 4 / parts..(part + 1) * 4 / parts {
                    let mut quants = [[_mm256_setzero_si256(); 2]; HALVES];
                    for h in 0..HALVES {
                        // SAFETY: the features are those of this function.
                        quants[h] = unsafe { blocks.quants[b].pair(pair, first + h) };
                    }
                    for v in 0..2 {
                        for m in 0..ROWS {
                            let word = _mm256_set1_epi32(activations[m].words[2 * pair + v]);
                            for h in 0..HALVES {
                                if Q::BITS == 8 {
                                    dots[m][h] = _mm256_add_epi32(dots[m][h], eight(quants[h][v], word));
                                } else {
                                    let products = _mm256_maddubs_epi16(quants[h][v], word);
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
                let mut scales = [_mm256_setzero_ps(); HALVES];
                for h in 0..HALVES {
                    // SAFETY: the features are those of this function.
                    scales[h] = unsafe { blocks.scales.scale_factors(b, part, first + h) };
                }
                for m in 0..ROWS {
                    let scale = _mm256_set1_ps(activations[m].scale);
                    for h in 0..HALVES {
                        if !S::MINIMA && Q::BITS < 8 {
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
fn floats<F: Column>(tile: &[Floats<F>], mut activations: &[QuantizedBlock], mut out: &mut [[f32; TILE]]) {
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
        if ahead {
            fetch_beyond(block);
        }
        let mut inputs = [[0.0; BLOCK]; ROWS];
        for m in 0..ROWS {
            inputs[m] = activations[m * tile.len() + at].floats();
        }
        for (i, column) in block.columns.iter().enumerate() {
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
fn products(rounds: usize) -> usize {
    let mut weights = std::hint::black_box(_mm256_set1_epi8(3));
    let mut dots = [_mm256_setzero_si256(); 8];
    for _ in 0..rounds {
        for dots in &mut dots {
            *dots = _mm256_add_epi16(*dots, _mm256_maddubs_epi16(weights, *dots));
        }
        weights = _mm256_xor_si256(weights, dots[0]);
    }
    std::hint::black_box(dots);
    rounds * dots.len() * 32
}

trait Pairs: Quants {
    /// Of rows 0 to 7 or 8 to 15, vectors `2g` and `2g + 1` of the quants.
    ///
    /// SAFETY: only where AVX2 is enabled.
    unsafe fn pair(&self, g: usize, half: usize) -> [__m256i; 2];
}

impl Pairs for Four {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, half: usize) -> [__m256i; 2] {
        // SAFETY: the caller has the features.
        unsafe {
            let both = load(&self.0.as_chunks().0[2 * g + half]);
            let mask = _mm256_set1_epi8(15);
            [_mm256_and_si256(both, mask), _mm256_and_si256(_mm256_srli_epi16(both, 4), mask)]
        }
    }
}

impl Pairs for Five {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, half: usize) -> [__m256i; 2] {
        // SAFETY: the caller has the features.
        unsafe {
            let [first, second] = self.low.pair(g, half);
            // To byte i go the eight bits that hold its bit, of which it keeps its own.
            let spread = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
            let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let bits = |v: usize| {
                let bits = i32::from_le_bytes(self.fifth[v].as_chunks().0[half]);
                let spread = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), spread);
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, own), own);
                _mm256_and_si256(set, _mm256_set1_epi8(16))
            };
            [_mm256_or_si256(first, bits(2 * g)), _mm256_or_si256(second, bits(2 * g + 1))]
        }
    }
}

impl Pairs for Six {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, half: usize) -> [__m256i; 2] {
        // SAFETY: the caller has the features.
        unsafe {
            let ([first, second], mask) = (self.low.pair(g, half), _mm256_set1_epi8(0x30));
            let high = load(&self.high[g / 2].as_chunks().0[half]);
            let (in_first, in_second) = match g % 2 {
                0 => (_mm256_slli_epi16(high, 4), _mm256_slli_epi16(high, 2)),
                _ => (high, _mm256_srli_epi16(high, 2)),
            };
            [
                _mm256_or_si256(first, _mm256_and_si256(in_first, mask)),
                _mm256_or_si256(second, _mm256_and_si256(in_second, mask)),
            ]
        }
    }
}

impl Pairs for Eight {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, half: usize) -> [__m256i; 2] {
        let vectors = self.0.as_chunks().0;
        // SAFETY: the caller has the features.
        unsafe { [load(&vectors[4 * g + half]), load(&vectors[4 * g + 2 + half])] }
    }
}

impl<Q: Quants> Pairs for Wide<Q> {
    #[inline(always)]
    unsafe fn pair(&self, g: usize, half: usize) -> [__m256i; 2] {
        let vectors = self.0.as_chunks().0;
        // SAFETY: the caller has the features.
        unsafe { [load(&vectors[4 * g + half]), load(&vectors[4 * g + 2 + half])] }
    }
}

trait Factors: Scales {
    /// As [`Scales::scales`]. Of rows 0 to 7 or 8 to 15.
    ///
    /// SAFETY: only where AVX2 and F16C are enabled.
    unsafe fn scale_factors(&self, block: usize, part: usize, half: usize) -> __m256;

    /// As [`Scales::minima`]. Of rows 0 to 7 or 8 to 15.
    ///
    /// SAFETY: only where AVX2 and F16C are enabled.
    unsafe fn minimum_factors(&self, _block: usize, _half: usize) -> __m256 {
        // SAFETY: the caller has the features.
        unsafe { _mm256_setzero_ps() }
    }
}

impl Factors for Plain {
    #[inline(always)]
    unsafe fn scale_factors(&self, _: usize, _: usize, half: usize) -> __m256 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe { halves(&self.scales.as_chunks().0[half]) }
    }
}

impl Factors for WithMinima {
    #[inline(always)]
    unsafe fn scale_factors(&self, _: usize, _: usize, half: usize) -> __m256 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe { halves(&self.scales.as_chunks().0[half]) }
    }

    #[inline(always)]
    unsafe fn minimum_factors(&self, _: usize, half: usize) -> __m256 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe { halves(&self.minima.as_chunks().0[half]) }
    }
}

impl Factors for Nested {
    #[inline(always)]
    unsafe fn scale_factors(&self, block: usize, _: usize, half: usize) -> __m256 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe {
            _mm256_mul_ps(
                halves(&self.scale.as_chunks().0[half]),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(
                    self.scales[block][half * 8..].as_ptr().cast(),
                ))),
            )
        }
    }

    #[inline(always)]
    unsafe fn minimum_factors(&self, block: usize, half: usize) -> __m256 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe {
            _mm256_mul_ps(
                halves(&self.minimum.as_chunks().0[half]),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(
                    self.minima[block][half * 8..].as_ptr().cast(),
                ))),
            )
        }
    }
}

impl Factors for NestedHalves {
    #[inline(always)]
    unsafe fn scale_factors(&self, block: usize, part: usize, half: usize) -> __m256 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe {
            _mm256_mul_ps(
                halves(&self.scale.as_chunks().0[half]),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(
                    self.scales[2 * block + part][half * 8..].as_ptr().cast(),
                ))),
            )
        }
    }
}

impl<S: Scales> Factors for Unpacked<S> {
    #[inline(always)]
    unsafe fn scale_factors(&self, _: usize, part: usize, half: usize) -> __m256 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe { floats_of(&self.scales[part], half) }
    }

    #[inline(always)]
    unsafe fn minimum_factors(&self, _: usize, half: usize) -> __m256 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe { floats_of(&self.minima, half) }
    }
}

trait Column: Float {
    /// SAFETY: only where AVX2 and F16C are enabled.
    unsafe fn column(column: &[Self; TILE / 2]) -> __m256;
}

impl Column for F16 {
    #[inline(always)]
    unsafe fn column(column: &[Self; TILE / 2]) -> __m256 {
        // SAFETY: the caller has the features; the reference is to 16 readable bytes.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(column.as_ptr().cast())) }
    }
}

impl Column for Bf16 {
    #[inline(always)]
    unsafe fn column(column: &[Self; TILE / 2]) -> __m256 {
        // SAFETY: the caller has the features; the reference is to 16 readable bytes.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(column.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))
        }
    }
}

impl Column for f32 {
    #[inline(always)]
    unsafe fn column(column: &[Self; TILE / 2]) -> __m256 {
        // SAFETY: the caller has the features; the reference is to 32 readable bytes.
        unsafe { _mm256_loadu_ps(column.as_ptr()) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the reference is to 32 readable bytes, and the instruction asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn floats_of(floats: &[f32; TILE], half: usize) -> __m256 {
    let floats = &floats.as_chunks::<8>().0[half];
    // SAFETY: the reference is to 32 readable bytes, and the instruction asks for no alignment.
    unsafe { _mm256_loadu_ps(floats.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves(bits: &[u16; TILE / 2]) -> __m256 {
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

/// From so many rows on, it pays to unpack a tile first.
const PANEL_ROWS: usize = 24;
