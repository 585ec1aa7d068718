//! A piece of a tile as plain bytes and floats: many rows of activations share the work of unpacking it.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use crate::network::packed::{Bytes, Integers, Quants, Scales, TILE};

/// Unpacked blocks of quants like `Q` with scales like `S`.
pub(super) type Panel<Q, S> = Integers<Wide<Q>, Unpacked<S>, 1>;

/// Blocks of a panel: with the activations of some rows, they stay in the first cache.
pub(super) const PANEL: usize = 16;

/// Calls `work` with each piece of the tile as a panel, and the number of its first block.
#[inline(always)]
pub(super) fn panels<Q: Quants, S: Scales, const N: usize>(
    tile: &[Integers<Q, S, N>],
    mut work: impl FnMut(&[Panel<Q, S>], usize),
) {
    let mut panel: [MaybeUninit<Panel<Q, S>>; PANEL] = [const { MaybeUninit::uninit() }; PANEL];
    for (piece, tile) in tile.chunks(PANEL / N).enumerate() {
        for (at, panel) in panel[..tile.len() * N].iter_mut().enumerate() {
            let (blocks, b) = (&tile[at / N], at % N);
            let scales = [blocks.scales.scales(b, 0), blocks.scales.scales(b, 1)];
            panel.write(Integers {
                quants: [Wide(blocks.quants[b].widen(), PhantomData)],
                scales: Unpacked { scales, minima: blocks.scales.minima(b), like: PhantomData },
            });
        }
        // SAFETY: as many have been written.
        let panel = unsafe { panel[..tile.len() * N].assume_init_ref() };
        work(panel, piece * PANEL);
    }
}

#[repr(C)]
pub(super) struct Wide<Q>(pub(super) Bytes, PhantomData<Q>);

#[repr(C)]
pub(super) struct Unpacked<S> {
    pub(super) scales: [[f32; TILE]; 2],
    pub(super) minima: [f32; TILE],
    like: PhantomData<S>,
}

impl<Q: Quants> Quants for Wide<Q> {
    const BITS: u32 = Q::BITS;

    #[inline(always)]
    fn widen(&self) -> Bytes {
        self.0
    }
}

impl<S: Scales> Scales for Unpacked<S> {
    const MINIMA: bool = S::MINIMA;
    const SPLIT: bool = S::SPLIT;

    #[inline(always)]
    fn scales(&self, _: usize, half: usize) -> [f32; TILE] {
        self.scales[half]
    }

    #[inline(always)]
    fn minima(&self, _: usize) -> [f32; TILE] {
        self.minima
    }
}
