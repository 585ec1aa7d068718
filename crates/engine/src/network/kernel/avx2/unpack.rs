//! What the stores hold, as vectors of AVX2: of half a tile.

use std::arch::x86_64::*;

use crate::network::kernel::panel::{Unpacked, Wide};
use crate::network::packed::{
    Bf16, Eight, F16, Five, Float, Four, Nested, NestedHalves, Plain, Quants, Scales, Six, SixBits, TILE,
    WithMinima,
};

pub(super) trait Pairs: Quants {
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

pub(super) trait Factors: Scales {
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
        // SAFETY: the caller has the features.
        unsafe {
            let (low, high) = six_bits(&self.factors[block], half);
            let factors = joined(low, _mm_slli_epi16(high, 4));
            _mm256_mul_ps(
                halves(&self.scale.as_chunks().0[half]),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(factors)),
            )
        }
    }

    #[inline(always)]
    unsafe fn minimum_factors(&self, block: usize, half: usize) -> __m256 {
        // SAFETY: the caller has the features.
        unsafe {
            let (low, high) = six_bits(&self.factors[block], half);
            let factors = joined(_mm_srli_epi16(low, 4), _mm_slli_epi16(high, 2));
            _mm256_mul_ps(
                halves(&self.minimum.as_chunks().0[half]),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(factors)),
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

pub(super) trait Column: Float {
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
pub(super) fn floats_of(floats: &[f32; TILE], half: usize) -> __m256 {
    let floats = &floats.as_chunks::<8>().0[half];
    // SAFETY: the reference is to 32 readable bytes, and the instruction asks for no alignment.
    unsafe { _mm256_loadu_ps(floats.as_ptr()) }
}

/// Eight bytes of `low`, and for each of their rows a byte whose low half holds what is in `high`.
#[inline]
#[target_feature(enable = "avx2")]
fn six_bits(factors: &SixBits, half: usize) -> (__m128i, __m128i) {
    let low = &factors.low.as_chunks::<8>().0[half];
    // SAFETY: the references are to 8 readable bytes, and the instructions ask for no alignment.
    let (low, high) =
        unsafe { (_mm_loadl_epi64(low.as_ptr().cast()), _mm_loadl_epi64(factors.high.as_ptr().cast())) };
    (low, if half == 0 { high } else { _mm_srli_epi16(high, 4) })
}

/// Of each byte, bits 0 to 3 of `low` and bits 4 and 5 of `high`.
#[inline]
#[target_feature(enable = "avx2")]
fn joined(low: __m128i, high: __m128i) -> __m128i {
    _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)), _mm_and_si128(high, _mm_set1_epi8(0x30)))
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn halves(bits: &[u16; TILE / 2]) -> __m256 {
    // SAFETY: the reference is to 16 readable bytes, and the instruction asks for no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bits.as_ptr().cast()) })
}
