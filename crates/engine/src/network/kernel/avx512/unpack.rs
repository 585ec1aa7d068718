//! What the stores hold, as vectors of AVX-512.

use std::arch::x86_64::*;

use crate::network::packed::{
    Bf16, Eight, F16, Five, Float, Four, Nested, NestedHalves, Plain, Quants, Scales, Six, SixBits, TILE,
    WithMinima,
};

pub(crate) trait Pairs: Quants {
    /// Vectors `2g` and `2g + 1` of the quants.
    ///
    /// SAFETY: only where AVX-512 with BW is enabled.
    unsafe fn pair(&self, g: usize) -> [__m512i; 2];
}

impl Pairs for Four {
    #[inline(always)]
    unsafe fn pair(&self, g: usize) -> [__m512i; 2] {
        // SAFETY: the caller has the features.
        unsafe {
            let both = load(&self.0.as_chunks().0[g]);
            let mask = _mm512_set1_epi8(15);
            [_mm512_and_si512(both, mask), _mm512_and_si512(_mm512_srli_epi16(both, 4), mask)]
        }
    }
}

impl Pairs for Five {
    #[inline(always)]
    unsafe fn pair(&self, g: usize) -> [__m512i; 2] {
        // SAFETY: the caller has the features.
        unsafe {
            let ([first, second], sixteen) = (self.low.pair(g), _mm512_set1_epi8(16));
            let in_first = u64::from_le_bytes(self.fifth[2 * g]);
            let in_second = u64::from_le_bytes(self.fifth[2 * g + 1]);
            [
                _mm512_mask_add_epi8(first, in_first, first, sixteen),
                _mm512_mask_add_epi8(second, in_second, second, sixteen),
            ]
        }
    }
}

impl Pairs for Six {
    #[inline(always)]
    unsafe fn pair(&self, g: usize) -> [__m512i; 2] {
        // SAFETY: the caller has the features.
        unsafe {
            let ([first, second], mask) = (self.low.pair(g), _mm512_set1_epi8(0x30));
            let high = load(&self.high[g / 2]);
            let (in_first, in_second) = match g % 2 {
                0 => (_mm512_slli_epi16(high, 4), _mm512_slli_epi16(high, 2)),
                _ => (high, _mm512_srli_epi16(high, 2)),
            };
            [
                _mm512_or_si512(first, _mm512_and_si512(in_first, mask)),
                _mm512_or_si512(second, _mm512_and_si512(in_second, mask)),
            ]
        }
    }
}

impl Pairs for Eight {
    #[inline(always)]
    unsafe fn pair(&self, g: usize) -> [__m512i; 2] {
        let vectors = self.0.as_chunks().0;
        // SAFETY: the caller has the features.
        unsafe { [load(&vectors[2 * g]), load(&vectors[2 * g + 1])] }
    }
}

pub(crate) trait Factors: Scales {
    /// As [`Scales::scales`].
    ///
    /// SAFETY: only where AVX-512 is enabled.
    unsafe fn scale_factors(&self, block: usize, part: usize) -> __m512;

    /// As [`Scales::minima`].
    ///
    /// SAFETY: only where AVX-512 is enabled.
    unsafe fn minimum_factors(&self, _block: usize) -> __m512 {
        // SAFETY: the caller has the features.
        unsafe { _mm512_setzero_ps() }
    }
}

impl Factors for Plain {
    #[inline(always)]
    unsafe fn scale_factors(&self, _: usize, _: usize) -> __m512 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe { halves(&self.scales) }
    }
}

impl Factors for WithMinima {
    #[inline(always)]
    unsafe fn scale_factors(&self, _: usize, _: usize) -> __m512 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe { halves(&self.scales) }
    }

    #[inline(always)]
    unsafe fn minimum_factors(&self, _: usize) -> __m512 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe { halves(&self.minima) }
    }
}

impl Factors for Nested {
    #[inline(always)]
    unsafe fn scale_factors(&self, block: usize, _: usize) -> __m512 {
        // SAFETY: the caller has the features.
        unsafe {
            let (low, high) = six_bits(&self.factors[block]);
            let factors = joined(low, _mm_slli_epi16(high, 4));
            _mm512_mul_ps(halves(&self.scale), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(factors)))
        }
    }

    #[inline(always)]
    unsafe fn minimum_factors(&self, block: usize) -> __m512 {
        // SAFETY: the caller has the features.
        unsafe {
            let (low, high) = six_bits(&self.factors[block]);
            let factors = joined(_mm_srli_epi16(low, 4), _mm_slli_epi16(high, 2));
            _mm512_mul_ps(halves(&self.minimum), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(factors)))
        }
    }
}

impl Factors for NestedHalves {
    #[inline(always)]
    unsafe fn scale_factors(&self, block: usize, part: usize) -> __m512 {
        // SAFETY: the caller has the features; what is read lies within the array.
        unsafe {
            _mm512_mul_ps(
                halves(&self.scale),
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(
                    self.scales[2 * block + part].as_ptr().cast(),
                ))),
            )
        }
    }
}

pub(crate) trait Column: Float {
    /// SAFETY: only where AVX-512 is enabled.
    unsafe fn column(column: &[Self; TILE]) -> __m512;
}

impl Column for F16 {
    #[inline(always)]
    unsafe fn column(column: &[Self; TILE]) -> __m512 {
        // SAFETY: the caller has the features; the reference is to 32 readable bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(column.as_ptr().cast())) }
    }
}

impl Column for Bf16 {
    #[inline(always)]
    unsafe fn column(column: &[Self; TILE]) -> __m512 {
        // SAFETY: the caller has the features; the reference is to 32 readable bytes.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(column.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))
        }
    }
}

impl Column for f32 {
    #[inline(always)]
    unsafe fn column(column: &[Self; TILE]) -> __m512 {
        // SAFETY: the caller has the features.
        unsafe { floats_of(column) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and the instruction asks for no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn floats_of(floats: &[f32; TILE]) -> __m512 {
    // SAFETY: the reference is to 64 readable bytes, and the instruction asks for no alignment.
    unsafe { _mm512_loadu_ps(floats.as_ptr()) }
}

/// The bytes of `low`, and for each row a byte whose low half holds what is in `high`.
#[inline]
#[target_feature(enable = "avx512f")]
fn six_bits(factors: &SixBits) -> (__m128i, __m128i) {
    // SAFETY: the references are to 16 and 8 readable bytes, and the instructions ask for no alignment.
    let (low, high) = unsafe {
        (_mm_loadu_si128(factors.low.as_ptr().cast()), _mm_loadl_epi64(factors.high.as_ptr().cast()))
    };
    (low, _mm_unpacklo_epi64(high, _mm_srli_epi16(high, 4)))
}

/// Of each byte, bits 0 to 3 of `low` and bits 4 and 5 of `high`.
#[inline]
#[target_feature(enable = "avx512f")]
fn joined(low: __m128i, high: __m128i) -> __m128i {
    _mm_or_si128(_mm_and_si128(low, _mm_set1_epi8(15)), _mm_and_si128(high, _mm_set1_epi8(0x30)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(bits: &[u16; TILE]) -> __m512 {
    // SAFETY: the reference is to 32 readable bytes, and the instruction asks for no alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(bits.as_ptr().cast()) })
}
