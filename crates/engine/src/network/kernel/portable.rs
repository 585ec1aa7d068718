//! Tiles without intrinsics: the meaning of the other kernels, and the only one on other processors.

use crate::network::packed::{
    BLOCK, Blocks, Float, Floats, Integers, QuantizedBlock, Quants, Scales, TILE, dispatch, zero,
};

pub(super) fn multiply(tile: Blocks<'_>, activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
    out.fill([0.0; TILE]);
    dispatch!(tile, integers, floats, activations, out);
}

fn integers<Q: Quants, S: Scales, const N: usize>(
    tile: &[Integers<Q, S, N>],
    activations: &[QuantizedBlock],
    out: &mut [[f32; TILE]],
) {
    for (at, blocks) in tile.iter().enumerate() {
        for (b, quants) in blocks.quants.iter().enumerate() {
            let mut weights = [0; TILE * BLOCK];
            for (weight, quant) in weights.iter_mut().zip(quants.widen()) {
                *weight = i16::from(quant) - zero::<Q, S>() as i16;
            }
            let (scales, minima) =
                ([0, 1].map(|half| blocks.scales.scales(b, half)), blocks.scales.minima(b));
            for (row, sums) in activations.chunks_exact(tile.len() * N).zip(&mut *out) {
                let activation = &row[at * N + b];
                for (half, scales) in scales.iter().enumerate() {
                    let mut dots = [0i32; TILE];
                    let words = &activation.words[half * 4..][..4];
                    for (weights, word) in weights.as_chunks::<64>().0[half * 4..].iter().zip(words) {
                        let bytes = word.to_le_bytes().map(|byte| i32::from(byte as i8));
                        for (dot, weights) in dots.iter_mut().zip(weights.as_chunks::<4>().0) {
                            for j in 0..4 {
                                *dot += i32::from(weights[j]) * bytes[j];
                            }
                        }
                    }
                    for i in 0..TILE {
                        sums[i] += dots[i] as f32 * (scales[i] * activation.scale);
                    }
                }
                for i in 0..TILE {
                    sums[i] -= minima[i] * activation.sum;
                }
            }
        }
    }
}

fn floats<F: Float>(tile: &[Floats<F>], activations: &[QuantizedBlock], out: &mut [[f32; TILE]]) {
    for (at, block) in tile.iter().enumerate() {
        let mut columns = [[0.0; TILE]; BLOCK];
        for (float, number) in columns.as_flattened_mut().iter_mut().zip(block.columns.as_flattened()) {
            *float = number.to_f32();
        }
        for (row, sums) in activations.chunks_exact(tile.len()).zip(&mut *out) {
            let inputs = row[at].floats();
            for column in 0..BLOCK {
                for i in 0..TILE {
                    sums[i] += columns[column][i] * inputs[column];
                }
            }
        }
    }
}

pub(super) fn products(rounds: usize) -> usize {
    let (weights, mut dots) = (std::hint::black_box([3i32; 4 * TILE]), [0i32; 4 * TILE]);
    for round in 0..rounds {
        for i in 0..4 * TILE {
            dots[i] = dots[i].wrapping_add(weights[i].wrapping_mul(round as i32));
        }
    }
    std::hint::black_box(dots);
    rounds * dots.len()
}
