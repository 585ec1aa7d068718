//! Sums of numbers in half precision, for attention.

// Registers are counted by the same number in several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::Halves;
use super::super::halves::check;
use super::unpack::floats_of;
use super::{Token, store};
use crate::network::kernel::ahead::fetch;

impl<const VNNI: bool> Halves for Token<VNNI> {
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
        // At least eight sums at once, where there are as many: a sum's step takes four cycles, and two begin in each. Of two
        // vectors and four rows, since eight rows of one vector would take nine loads for as many steps, not six.
        // SAFETY: a token exists only where `detect` found the features. All factors, and 16 numbers for each, lie within
        // their slices, as has been checked.
        unsafe {
            match N {
                1 if T.is_multiple_of(4) => blocks::<N, T, 1, 8>(sums, factors, numbers, stride, count),
                2 if T.is_multiple_of(2) => blocks::<N, T, 2, 4>(sums, factors, numbers, stride, count),
                3 if T.is_multiple_of(2) => blocks::<N, T, 3, 4>(sums, factors, numbers, stride, count),
                1..4 => blocks::<N, T, 1, 2>(sums, factors, numbers, stride, count),
                _ => blocks::<N, T, 4, 2>(sums, factors, numbers, stride, count),
            }
        }
    }

    #[inline(always)]
    fn ask(self, numbers: &[u16]) {
        fetch(numbers);
    }
}

/// [`Halves::add`], for `ROWS` of the `N` rows and `VECTORS` of the `2 * T` vectors of 8 sums at a time.
///
/// SAFETY: only where AVX2, FMA and F16C are enabled; all factors have `count` numbers, and all `numbers` 16 for each.
#[inline(always)]
unsafe fn blocks<const N: usize, const T: usize, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[[f32; 16]; T]; N],
    factors: [&[f32]; N],
    numbers: [&[u16]; T],
    stride: usize,
    count: usize,
) {
    assert!(N.is_multiple_of(ROWS) && (2 * T).is_multiple_of(VECTORS), "blocks of sums leave none over");
    let (rows, factors) = (sums.as_chunks_mut::<ROWS>().0, factors.as_chunks::<ROWS>().0);
    for (rows, factors) in rows.iter_mut().zip(factors) {
        for first in (0..2 * T).step_by(VECTORS) {
            // SAFETY: as the caller promises.
            unsafe { block::<T, ROWS, VECTORS>(rows, factors, numbers, stride, count, first) };
        }
    }
}

/// `VECTORS` vectors of each row from the `first` on, in registers.
///
/// SAFETY: as of [`blocks`].
#[inline(always)]
unsafe fn block<const T: usize, const ROWS: usize, const VECTORS: usize>(
    sums: &mut [[[f32; 16]; T]; ROWS],
    factors: &[&[f32]; ROWS],
    numbers: [&[u16]; T],
    stride: usize,
    count: usize,
    first: usize,
) {
    // SAFETY: the caller has the features, and what is read lies within the slices, as it promises.
    unsafe {
        let mut block = [[_mm256_setzero_ps(); VECTORS]; ROWS];
        for m in 0..ROWS {
            for v in 0..VECTORS {
                block[m][v] = floats_of(&sums[m][(first + v) / 2], (first + v) % 2);
            }
        }
        for k in 0..count {
            let mut vectors = [_mm256_setzero_ps(); VECTORS];
            for v in 0..VECTORS {
                let numbers = numbers[(first + v) / 2].as_ptr().add(k * stride + (first + v) % 2 * 8);
                vectors[v] = _mm256_cvtph_ps(_mm_loadu_si128(numbers.cast()));
            }
            for m in 0..ROWS {
                let factor = _mm256_set1_ps(*factors[m].get_unchecked(k));
                for v in 0..VECTORS {
                    block[m][v] = _mm256_fmadd_ps(factor, vectors[v], block[m][v]);
                }
            }
        }
        for m in 0..ROWS {
            for v in 0..VECTORS {
                store(&mut sums[m][(first + v) / 2], (first + v) % 2, block[m][v]);
            }
        }
    }
}
