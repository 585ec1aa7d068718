use super::*;
use crate::network::lanes::{Quantize, tests::noise};
use crate::network::packed::{Packed, packed_from};

/// A kind for each store.
const KINDS: [&str; 11] =
    ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16", "F32"];
/// As many as make two panels, the second not full.
const COLUMNS: usize = 768;
/// As many as use a panel, and leave rows over.
const ROWS: usize = 43;

/// Weights of every kind of store, 24 rows (a tile and a half).
pub(super) fn matrices(columns: usize) -> Vec<(&'static str, Packed)> {
    let weights = noise(24 * columns, 11);
    KINDS.map(|kind| (kind, packed_from(kind, &weights, 24, columns))).into()
}

pub(super) fn quantized(isa: Isa, rows: usize, columns: usize) -> (Vec<f32>, Vec<QuantizedBlock>) {
    let input = noise(rows * columns, 12);
    let mut output = vec![QuantizedBlock::default(); input.len() / 32];
    isa.run(Quantize { input: &input, output: &mut output });
    (input, output)
}

#[test]
fn every_kernel_is_within_one_percent_of_floats() {
    let (input, activations) = quantized(Isa::Portable, ROWS, COLUMNS);
    for (kind, matrix) in matrices(COLUMNS) {
        let mut floats = vec![[0f32; COLUMNS]; 24];
        for (row, floats) in floats.iter_mut().enumerate() {
            matrix.row(row, floats);
        }
        for isa in Isa::supported_or_emulated() {
            let (mut error, mut size) = (0f64, 0f64);
            for tile in 0..2 {
                let mut out = vec![[f32::NAN; TILE]; ROWS];
                isa.multiply(matrix.tile(tile), &activations, &mut out);
                for (m, out) in out.iter().enumerate() {
                    for (i, got) in out.iter().enumerate().filter(|(i, _)| tile * TILE + i < 24) {
                        let exact: f64 = floats[tile * TILE + i]
                            .iter()
                            .zip(&input[m * COLUMNS..])
                            .map(|(weight, x)| f64::from(*weight) * f64::from(*x))
                            .sum();
                        error += (f64::from(*got) - exact).powi(2);
                        size += exact.powi(2);
                    }
                }
            }
            let relative = (error / size).sqrt();
            assert!(relative < 0.01, "{kind} on {}: {relative}", isa.name());
        }
    }
}

#[test]
fn kernels_agree_to_the_rounding_of_floats() {
    let (_, activations) = quantized(Isa::Portable, ROWS, COLUMNS);
    for (kind, matrix) in matrices(COLUMNS) {
        let product = |isa: Isa| {
            let mut out = vec![[0f32; TILE]; ROWS];
            isa.multiply(matrix.tile(0), &activations, &mut out);
            out
        };
        let expected = product(Isa::Portable);
        for isa in Isa::supported_or_emulated() {
            for (got, expected) in product(isa).iter().flatten().zip(expected.iter().flatten()) {
                assert!((got - expected).abs() < 1e-3, "{kind} on {}: {got} {expected}", isa.name());
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others() {
    for isa in Isa::supported_or_emulated() {
        let (_, activations) = quantized(isa, ROWS, COLUMNS);
        for (kind, matrix) in matrices(COLUMNS) {
            let mut together = vec![[0f32; TILE]; ROWS];
            isa.multiply(matrix.tile(1), &activations, &mut together);
            for (row, together) in activations.chunks(COLUMNS / 32).zip(&together) {
                let mut alone = [[0f32; TILE]];
                isa.multiply(matrix.tile(1), row, &mut alone);
                assert_eq!(alone[0], *together, "{kind} on {}", isa.name());
            }
        }
    }
}

/// Where there are both.
#[test]
fn avx_vnni_gives_the_very_bits_of_avx2() {
    let named = |name| Isa::supported().into_iter().find(|isa| isa.name() == name);
    let (Some(avx2), Some(vnni)) = (named("avx2"), named("avxvnni")) else { return };
    let (_, activations) = quantized(avx2, ROWS, COLUMNS);
    for (kind, matrix) in matrices(COLUMNS) {
        for rows in [1, 2, 3, 7, ROWS] {
            let product = |isa: Isa| {
                let mut out = vec![[0f32; TILE]; rows];
                isa.multiply(matrix.tile(0), &activations[..rows * COLUMNS / 32], &mut out);
                out
            };
            assert_eq!(product(vnni), product(avx2), "{kind}, {rows} rows");
        }
    }
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    // Every weight and every activation at the end of its range, of both signs.
    let weights: Vec<f32> = (0..16 * 256).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
    let input: Vec<f32> = (0..256).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
    for kind in KINDS {
        let matrix = packed_from(kind, &weights, 16, 256);
        for isa in Isa::supported_or_emulated() {
            let mut activations = [QuantizedBlock::default(); 8];
            isa.run(Quantize { input: &input, output: &mut activations });
            let mut out = [[0f32; TILE]];
            isa.multiply(matrix.tile(0), &activations, &mut out);
            let mut row = [0f32; 256];
            matrix.row(5, &mut row);
            let exact: f32 = row.iter().zip(&input).map(|(weight, x)| weight * x).sum();
            assert!((out[0][5] - exact).abs() < 0.02, "{kind} on {}: {} {exact}", isa.name(), out[0][5]);
        }
    }
}
