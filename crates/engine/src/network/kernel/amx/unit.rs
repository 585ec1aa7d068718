//! The tile unit: its instructions, as text for the assembler, and whether this process may use them. What they do is in the
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2 (LDTILECFG, TDPBSSD, TILELOADD ...) and volume 1
//! ("Programming with Intel Advanced Matrix Extensions").

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use crate::network::packed::{BLOCK, QuantizedBlock, TILE};

/// Rows of activations in a tile, which is as many as there may be.
pub(super) const ROWS: usize = 16;

/// Whether the processor has the unit with products of bytes, and the system keeps its registers and lets this process use
/// them. Only where there is AVX-512.
#[cfg(target_os = "linux")]
pub(super) fn available() -> bool {
    // Of leaf 7: AMX-TILE and AMX-INT8. Of XCR0: XTILECFG and XTILEDATA.
    const FEATURES: u32 = 1 << 24 | 1 << 25;
    const STATES: u64 = 1 << 17 | 1 << XTILEDATA;
    const XTILEDATA: libc::c_ulong = 18;
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    // What has AVX-512 has leaf 7.
    if __cpuid_count(7, 0).edx & FEATURES != FEATURES || !is_x86_feature_detected!("xsave") {
        return false;
    }
    // SAFETY: XSAVE has been found enabled, which the instruction belongs to.
    if unsafe { _xgetbv(0) } & STATES != STATES {
        return false;
    }
    // Registers of 8 KiB are given only to who asks: https://docs.kernel.org/arch/x86/xstate.html
    // SAFETY: the call has numbers for arguments only, and changes nothing but what the process may use.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn available() -> bool {
    false
}

/// The unit as this thread has set it up. The shapes of tiles belong to a thread; they are given back with each piece of work, so
/// that what else uses the unit on this thread never meets ours, and an idle thread leaves no registers to be saved.
pub(super) struct Unit(PhantomData<*const ()>);

impl Unit {
    /// For [`Unit::multiply`].
    ///
    /// SAFETY: only where the unit may be used, and nothing else on this thread is using it.
    pub(super) unsafe fn configured() -> Self {
        // SAFETY: the caller has the unit.
        unsafe { Self::with(&PRODUCTS) }
    }

    /// SAFETY: as for [`Unit::configured`].
    unsafe fn with(shapes: &Shapes) -> Self {
        // SAFETY: the instruction reads the 64 bytes of `shapes`.
        unsafe {
            asm!("ldtilecfg [{shapes}]", shapes = in(reg) shapes, options(readonly, nostack, preserves_flags))
        };
        Self(PhantomData)
    }

    /// `out` = the 32 signed bytes of 16 blocks, each `columns` after the one before, times as many `weights`: byte `4i + j` of
    /// vector `v` is that of column `4v + j` and of sum `i`. `pair` alternates between two sets of registers, so that one
    /// product need not wait for another.
    ///
    /// SAFETY: there are as many `blocks`.
    #[inline(always)]
    pub(super) unsafe fn multiply(
        &self,
        pair: usize,
        blocks: &[QuantizedBlock],
        columns: usize,
        weights: &[[u8; 64]; BLOCK / 4],
        out: &mut Dots,
    ) {
        macro_rules! multiply {
            ($sums:tt, $left:tt, $right:tt) => {
                asm!(
                    concat!("tilezero ", $sums),
                    concat!("tileloadd ", $right, ", [{weights} + {line}]"),
                    concat!("tileloadd ", $left, ", [{blocks} + {stride}]"),
                    concat!("tdpbssd ", $sums, ", ", $left, ", ", $right),
                    concat!("tilestored [{out} + {line}], ", $sums),
                    blocks = in(reg) blocks.as_ptr(),
                    stride = in(reg) columns * size_of::<QuantizedBlock>(),
                    weights = in(reg) weights,
                    out = in(reg) out,
                    line = in(reg) LINE,
                    out($sums) _,
                    out($left) _,
                    out($right) _,
                    options(nostack, preserves_flags),
                )
            };
        }
        // SAFETY: the unit has shapes for these registers. What is read are 16 rows of the 32 bytes that blocks begin with, and 8 of
        // the 64 of a vector of weights; 16 of 64 bytes are written to `out`.
        unsafe {
            match pair {
                0 => multiply!("tmm0", "tmm1", "tmm2"),
                _ => multiply!("tmm3", "tmm4", "tmm5"),
            }
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: a `Unit` exists only where there is one; nothing of it is needed any more.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// Bytes from a row to the next, where rows are whole lines.
const LINE: usize = 64;

/// Sums of products: of 16 rows of activations and the 16 of a tile.
#[repr(C, align(64))]
pub(super) struct Dots(pub(super) [[i32; TILE]; ROWS]);

impl Dots {
    pub(super) const ZERO: Self = Self([[0; TILE]; ROWS]);

    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn floats(&self, row: usize) -> __m512 {
        // SAFETY: the reference is to 64 readable bytes, on the border of a cache line.
        _mm512_cvtepi32_ps(unsafe { _mm512_load_si512(self.0[row].as_ptr().cast()) })
    }
}

/// What LDTILECFG reads.
#[repr(C, align(64))]
pub(super) struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Of each register, in bytes.
    widths: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Of the sums, the left and the right factor in registers 0 to 2, and again in 3 to 5.
    const fn of_products(shapes: [(u8, u16); 3]) -> Self {
        let mut all = [(0, 0); 8];
        let mut i = 0;
        while i < 6 {
            all[i] = shapes[i % 3];
            i += 1;
        }
        Self::new(all)
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(super) fn products() -> &'static Self {
        &PRODUCTS
    }

    const fn new(shapes: [(u8, u16); 8]) -> Self {
        let mut new = Self { palette: 1, start_row: 0, reserved: [0; 14], widths: [0; 16], rows: [0; 16] };
        let mut i = 0;
        while i < shapes.len() {
            (new.rows[i], new.widths[i]) = shapes[i];
            i += 1;
        }
        new
    }
}

/// Sums are 16 numbers of four bytes a row, activations 32 bytes, and four columns of weights share a row.
static PRODUCTS: Shapes =
    Shapes::of_products([(ROWS as u8, 64), (ROWS as u8, BLOCK as u16), (BLOCK as u8 / 4, 64)]);
static LARGEST: Shapes = Shapes::new([(16, 64); 8]);

/// Of the largest tiles there may be, in registers only; gives the number of products.
///
/// SAFETY: as for [`Unit::configured`].
pub(super) unsafe fn products(rounds: usize) -> usize {
    if rounds == 0 {
        return 0;
    }
    // SAFETY: the caller has the unit. What is read are the 16 rows of 64 bytes of `rows`.
    unsafe {
        let _unit = Unit::with(&LARGEST);
        let rows = Dots([[0x03030303; TILE]; ROWS]);
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{rows} + {stride}]",
            "tileloadd tmm5, [{rows} + {stride}]",
            "tileloadd tmm6, [{rows} + {stride}]",
            "tileloadd tmm7, [{rows} + {stride}]",
            "2:",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm4, tmm7",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "dec {rounds}",
            "jnz 2b",
            rows = in(reg) &rows,
            stride = in(reg) LINE,
            rounds = inout(reg) rounds => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(readonly, nostack),
        );
    }
    rounds * 4 * 16 * 16 * 64
}
