//! Sums of half-precision numbers, each times a factor: what attention consists of.

use crate::network::packed::f16_to_f32;

/// An instruction set's way to add them up. Each of the 16 sums is made one number after the other, whatever else is
/// computed beside it.
pub(crate) trait Halves: Copy {
    const FMA: bool;

    /// `sums[n][t][i]` += `factors[n][k]` * `numbers[t][k * stride + i]`, over all `k`.
    fn add<const N: usize, const T: usize>(
        self,
        sums: &mut [[[f32; 16]; T]; N],
        factors: [&[f32]; N],
        numbers: [&[u16]; T],
        stride: usize,
    );

    /// Asks for `numbers` before they are needed.
    #[inline(always)]
    fn ask(self, _numbers: &[u16]) {}
}

/// Without intrinsics.
#[derive(Clone, Copy)]
pub(crate) struct Plain<const FMA: bool>;

impl<const FMA: bool> Halves for Plain<FMA> {
    const FMA: bool = FMA;

    #[inline(always)]
    fn add<const N: usize, const T: usize>(
        self,
        sums: &mut [[[f32; 16]; T]; N],
        factors: [&[f32]; N],
        numbers: [&[u16]; T],
        stride: usize,
    ) {
        for k in 0..factors[0].len() {
            for t in 0..T {
                let bits = &numbers[t][k * stride..][..16];
                let mut numbers = [0.0; 16];
                for i in 0..16 {
                    numbers[i] = f16_to_f32(bits[i]);
                }
                for n in 0..N {
                    let factor = factors[n][k];
                    for i in 0..16 {
                        let sum = &mut sums[n][t][i];
                        *sum =
                            if FMA { factor.mul_add(numbers[i], *sum) } else { factor * numbers[i] + *sum };
                    }
                }
            }
        }
    }
}

/// Where the numbers of `add` lie is checked once, before.
#[inline(always)]
pub(super) fn check<const N: usize, const T: usize>(
    factors: &[&[f32]; N],
    numbers: &[&[u16]; T],
    stride: usize,
) -> usize {
    let count = factors[0].len();
    assert!(factors.iter().all(|factors| factors.len() == count), "each sum has as many factors");
    let needed = if count == 0 { 0 } else { (count - 1) * stride + 16 };
    assert!(numbers.iter().all(|numbers| numbers.len() >= needed), "each factor has its numbers");
    count
}
