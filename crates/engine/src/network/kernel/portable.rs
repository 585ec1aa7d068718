//! Tiles without intrinsics: the meaning of the other kernels, and the only one on other processors.

use crate::network::packed::{Block4, Block8, Blocks, QuantizedBlock, TILE, f16_to_f32};

pub(super) fn multiply(tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
    let columns = tile.len();
    for (row, out) in activations.chunks_exact(columns).zip(out) {
        *out = match tile {
            Blocks::Four(blocks) => four(blocks, row),
            Blocks::Eight(blocks) => eight(blocks, row),
        };
    }
}

fn four(blocks: &[Block4], row: &[QuantizedBlock]) -> [f32; TILE] {
    let mut sums = [0f32; TILE];
    for (block, activation) in blocks.iter().zip(row) {
        let mut dots = [0i32; TILE];
        for (group, words) in block.quants.as_chunks::<64>().0.iter().zip(activation.words.as_chunks::<2>().0)
        {
            let (low, high) = (words[0].to_le_bytes(), words[1].to_le_bytes());
            for (dot, bytes) in dots.iter_mut().zip(group.as_chunks::<4>().0) {
                for j in 0..4 {
                    *dot += i32::from(bytes[j] & 15) * i32::from(low[j] as i8);
                    *dot += i32::from(bytes[j] >> 4) * i32::from(high[j] as i8);
                }
            }
        }
        for i in 0..TILE {
            let scale = f16_to_f32(block.scales[i]) * activation.scale;
            sums[i] += dots[i] as f32 * scale - f16_to_f32(block.minima[i]) * activation.sum;
        }
    }
    sums
}

fn eight(blocks: &[Block8], row: &[QuantizedBlock]) -> [f32; TILE] {
    let mut sums = [0f32; TILE];
    for (block, activation) in blocks.iter().zip(row) {
        let mut dots = [0i32; TILE];
        for (group, word) in block.quants.as_chunks::<64>().0.iter().zip(activation.words) {
            let word = word.to_le_bytes();
            for (dot, bytes) in dots.iter_mut().zip(group.as_chunks::<4>().0) {
                for j in 0..4 {
                    *dot += (i32::from(bytes[j]) - 128) * i32::from(word[j] as i8);
                }
            }
        }
        for i in 0..TILE {
            sums[i] += dots[i] as f32 * (f16_to_f32(block.scales[i]) * activation.scale);
        }
    }
    sums
}
