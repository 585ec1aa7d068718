//! Tiles on AMX: 8,192 products of bytes an instruction, for 16 rows of activations. Fewer rows, tiles of floats and all
//! loops are AVX-512's.
//!
//! A sum over 32 columns is a whole number, without roundings, and what becomes of it as a float is done as in
//! `avx512.rs`. So both give the same bits, and a row may be computed by either.
//!
//! No processor with AMX has run this yet: tests run it in an emulator, and what it gains is an estimate, by counting
//! instructions. A cycle of Sapphire Rapids takes two vector instructions of 512 bits and two loads, and a product of tiles of 16
//! rows takes 16 cycles (2,048 operations a cycle for the largest tiles, as published). A block of 32 columns and 16 rows is one
//! such product, and beside it 48 vector instructions, 64 with minima (24 to 32 cycles), and 70 to 90 loads (35 to 45 cycles). AVX-512
//! has 192 vector instructions for it (96 cycles).

#[cfg(all(test, target_os = "linux"))]
mod emulator;
#[cfg(all(test, target_os = "linux"))]
mod tests;
mod unit;

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use self::unit::{Dots, ROWS, Unit};
use super::avx512::unpack::{Factors, Pairs, floats_of};
use super::avx512::{self, floats, store};
use super::{Lanes, panel::PANEL};
use crate::network::packed::{Blocks, Integers, QuantizedBlock, Scales, TILE, dispatch, zero};

/// Proof that this processor has what the functions here are compiled for, and that the system lets us use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(avx512::Token);

impl Token {
    pub(super) fn detect() -> Option<Self> {
        avx512::Token::detect().filter(|_| unit::available()).map(Self)
    }

    #[inline]
    pub(super) fn run<L: Lanes>(self, work: L) -> L::Output {
        self.0.run(work)
    }

    #[inline]
    pub(super) fn multiply(self, tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
        if out.len() < FEWEST {
            return self.0.multiply(tile, activations, out);
        }
        // SAFETY: a token exists only where `detect` found the features and the tile unit.
        unsafe { multiply(tile, activations, out) }
    }

    pub(super) fn products(self, rounds: usize) -> usize {
        // SAFETY: a token exists only where there is the tile unit.
        unsafe { unit::products(rounds) }
    }
}

/// Rows from which on the tile unit is used: those of a whole tile. By counting, 12 rows would still gain a little (some 60
/// cycles a block against 80), but weights for so few rows wait for memory in most models, and tiles of
/// other shapes would be needed.
const FEWEST: usize = ROWS;
/// Products under way before the first is added up: from loading tiles to having stored sums takes longer than to add.
const AHEAD: usize = 3;

/// SAFETY: only where the tile unit may be used.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn multiply(tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
    dispatch!(tile, integers, floats, activations, out);
}

/// At least [`ROWS`] rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn integers<Q: Pairs, S: Factors, const N: usize>(
    tile: &[Integers<Q, S, N>],
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
) {
    // SAFETY: `multiply` is called only where the tile unit may be used.
    let unit = unsafe { Unit::configured() };
    let columns = tile.len() * N;
    out.fill([0.0; TILE]);
    // Rows that do not fill a group are computed in one that begins before them.
    let (mut last, first_of_last) = ([[0.0; TILE]; ROWS], (out.len() - ROWS) * columns);
    let (groups, rest) = out.as_chunks_mut::<ROWS>();
    let mut dots = [const { Dots::ZERO }; AHEAD + 1];
    let mut panel = [const { MaybeUninit::uninit() }; PANEL];
    for (piece, tile) in tile.chunks(PANEL / N).enumerate() {
        for (at, panel) in panel[..tile.len() * N].iter_mut().enumerate() {
            unpack(&tile[at / N], at % N, panel);
        }
        // SAFETY: as many have been unpacked.
        let panel = unsafe { panel[..tile.len() * N].assume_init_ref() };
        let at = piece * PANEL;
        for (group, sums) in groups.iter_mut().enumerate() {
            add::<S>(&unit, panel, &activations[group * ROWS * columns + at..], columns, &mut dots, sums);
        }
        if !rest.is_empty() {
            add::<S>(&unit, panel, &activations[first_of_last + at..], columns, &mut dots, &mut last);
        }
    }
    rest.copy_from_slice(&last[ROWS - rest.len()..]);
}

/// A block as the tile unit reads it: 15 cache lines, none of which two rows of a tile share.
#[repr(C, align(64))]
struct Unpacked {
    /// Vectors of quants less their zero, as signed bytes. Where both halves have scales, four vectors of zeros lie between
    /// them: the first eight vectors are then the first half with zeros for the second, the last eight the other way.
    weights: [[u8; 64]; 12],
    scales: [[f32; TILE]; 2],
    minima: [f32; TILE],
}

impl Unpacked {
    /// For the tile unit, of a part of the block.
    fn weights(&self, part: usize) -> &[[u8; 64]; 8] {
        let (first, last) = (self.weights.first_chunk(), self.weights.last_chunk());
        if part == 0 { first } else { last }.expect("12 vectors")
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn unpack<Q: Pairs, S: Factors, const N: usize>(
    blocks: &Integers<Q, S, N>,
    b: usize,
    out: &mut MaybeUninit<Unpacked>,
) {
    let out = out.as_mut_ptr();
    let zero = _mm512_set1_epi8(zero::<Q, S>() as i8);
    // SAFETY: the features are those of this function. Everything is written within `out`, whose parts begin at cache lines.
    unsafe {
        let weights: *mut __m512i = (&raw mut (*out).weights).cast();
        let halves = if S::SPLIT { [0, 8] } else { [0, 4] };
        for g in 0..4 {
            let [first, second] = blocks.quants[b].pair(g);
            let at = weights.add(halves[g / 2] + g % 2 * 2);
            at.write(_mm512_sub_epi8(first, zero));
            at.add(1).write(_mm512_sub_epi8(second, zero));
        }
        let empty = if S::SPLIT { 4 } else { 8 };
        for i in empty..empty + 4 {
            weights.add(i).write(_mm512_setzero_si512());
        }
        let last = if S::SPLIT { 1 } else { 0 };
        let scales: *mut __m512 = (&raw mut (*out).scales).cast();
        scales.write(blocks.scales.scale_factors(b, 0));
        scales.add(1).write(blocks.scales.scale_factors(b, last));
        let minima = if S::MINIMA { blocks.scales.minimum_factors(b) } else { _mm512_setzero_ps() };
        (&raw mut (*out).minima).cast::<__m512>().write(minima);
    }
}

/// Adds what the blocks of a panel give to the sums of 16 rows. `activations` begin with the first row's for the first block;
/// rows are `columns` blocks apart.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn add<S: Scales>(
    unit: &Unit,
    panel: &[Unpacked],
    activations: &[QuantizedBlock],
    columns: usize,
    dots: &mut [Dots; AHEAD + 1],
    out: &mut [[f32; TILE]; ROWS],
) {
    let parts = if S::SPLIT { 2 } else { 1 };
    let products = panel.len() * parts;
    assert!(
        activations.len() >= (ROWS - 1) * columns + panel.len(),
        "every row has activations for each block"
    );
    let mut sums = [_mm512_setzero_ps(); ROWS];
    for m in 0..ROWS {
        sums[m] = floats_of(&out[m]);
    }
    for next in 0..products + AHEAD {
        if next < products {
            let block = &activations[next / parts..];
            let weights = panel[next / parts].weights(next % parts);
            // SAFETY: as asserted, there is a block of each of the rows.
            unsafe { unit.multiply(next % 2, block, columns, weights, &mut dots[next % (AHEAD + 1)]) };
        }
        let Some(now) = next.checked_sub(AHEAD) else { continue };
        let (block, dots) = (&panel[now / parts], &dots[now % (AHEAD + 1)]);
        let scales = floats_of(&block.scales[now % parts]);
        // SAFETY: as asserted, there is a block of each of the rows.
        let activation = |m: usize| unsafe { activations.get_unchecked(m * columns + now / parts) };
        for (m, sum) in sums.iter_mut().enumerate() {
            let scales = _mm512_mul_ps(scales, _mm512_set1_ps(activation(m).scale));
            *sum = _mm512_fmadd_ps(dots.floats(m), scales, *sum);
        }
        if S::MINIMA {
            let minima = floats_of(&block.minima);
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_fnmadd_ps(minima, _mm512_set1_ps(activation(m).sum), *sum);
            }
        }
    }
    for m in 0..ROWS {
        store(&mut out[m], sums[m]);
    }
}
