//! The two things that must be fast: a tile of weights times rows of activations, and plain loops over floats.
//!
//! Tiles have a version in intrinsics for each instruction set. Loops are written once, in safe Rust over arrays of
//! 16, and compiled once for each set ([`Isa::run`]).

#[cfg(target_arch = "x86_64")]
mod ahead;
#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod halves;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod panel;
mod portable;
#[cfg(test)]
mod tests;

pub(crate) use halves::{Halves, Plain};

use super::packed::{Blocks, QuantizedBlock, TILE};
use crate::error::LoadError;

/// The instruction set in use, chosen once, when a model is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Token<false>),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(avx2::Token<true>),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Token),
    #[cfg(target_arch = "x86_64")]
    Amx(amx::Token),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Token),
}

/// A loop over floats. `FMA`: whether a fused multiply-add is one instruction here; where it is not,
/// `f32::mul_add` would call a function.
pub(crate) trait Lanes {
    type Output;

    /// Must be `#[inline(always)]`, so that it is compiled for the caller's instruction set.
    fn run<const FMA: bool>(self) -> Self::Output;

    /// As [`Lanes::run`], for work that sums up half-precision numbers. Must be `#[inline(always)]` too.
    #[inline(always)]
    fn run_with<H: Halves>(self, _: H) -> Self::Output
    where
        Self: Sized,
    {
        if H::FMA { self.run::<true>() } else { self.run::<false>() }
    }
}

/// Asks for `len` bytes from `start` on, which a thread will read, to its second cache. Only a hint: nothing is read, and
/// there need not be any memory. Without effect except on x86.
#[inline]
pub(crate) fn ask(start: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    ahead::fetch_to_second(start, len);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, len);
}

impl Isa {
    /// The best this processor has, or what the environment variable `WATCHPOST_CPU` names.
    pub(crate) fn choose() -> Result<Self, LoadError> {
        let supported = Self::supported();
        match std::env::var("WATCHPOST_CPU") {
            Err(_) => Ok(*supported.last().expect("`portable` is always supported")),
            Ok(wanted) => {
                let names: Vec<_> = supported.iter().map(|isa| isa.name()).collect();
                let found = supported.into_iter().find(|isa| isa.name() == wanted);
                found.ok_or(LoadError::Processor { wanted, supported: names.join(", ") })
            }
        }
    }

    /// Slowest first.
    pub(crate) fn supported() -> Vec<Self> {
        let mut supported = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            supported.extend(avx2::Token::detect().map(Self::Avx2));
            supported.extend(avx2::Token::detect().map(Self::AvxVnni));
            supported.extend(avx512::Token::detect().map(Self::Avx512));
            supported.extend(amx::Token::detect().map(Self::Amx));
        }
        #[cfg(target_arch = "aarch64")]
        supported.extend(neon::Token::detect().map(Self::Neon));
        supported
    }

    /// As [`Isa::supported`], and with AMX emulated where there is AVX-512 without it.
    #[cfg(test)]
    pub(crate) fn supported_or_emulated() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut isas = Self::supported();
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if !isas.iter().any(|isa| matches!(isa, Self::Amx(_))) {
            isas.extend(amx::Token::detect_or_emulate().map(Self::Amx));
        }
        isas
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Amx(_) => "amx",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "neon",
        }
    }

    #[inline]
    pub(crate) fn run<L: Lanes>(self, work: L) -> L::Output {
        match self {
            Self::Portable => work.run_with(Plain::<{ cfg!(target_arch = "aarch64") }>),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.run(work),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(token) => token.run(work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.run(work),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(token) => token.run(work),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => token.run(work),
        }
    }

    /// `out[row][i]` = row `i` of the tile times `activations[row]`. `activations` holds whole rows of as many blocks
    /// as the tile has. A row's result does not depend on which rows are computed with it.
    pub(crate) fn multiply(self, tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
        assert_eq!(
            tile.len() * out.len(),
            activations.len(),
            "a row of activations has a block for each of a tile"
        );
        match self {
            Self::Portable => portable::multiply(tile, activations, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.multiply(tile, activations, out),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(token) => token.multiply(tile, activations, out),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.multiply(tile, activations, out),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(token) => token.multiply(tile, activations, out),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => token.multiply(tile, activations, out),
        }
    }

    /// Repeats what is the inner instruction of [`Isa::multiply`] for integers, in registers only; gives the number of
    /// products.
    pub(crate) fn products(self, rounds: usize) -> usize {
        match self {
            Self::Portable => portable::products(rounds),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.products(rounds),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni(token) => token.products(rounds),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(token) => token.products(rounds),
            #[cfg(target_arch = "x86_64")]
            Self::Amx(token) => token.products(rounds),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(token) => token.products(rounds),
        }
    }
}
