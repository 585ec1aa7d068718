//! Blocks as they lie in a file. Layouts: ggml-common.h and ggml-quants.c of ggml.

use super::blocks::{BLOCK, Bytes, Floats, FromFile, Integers, Narrow, TILE};

/// `bytes` are up to 16 rows of as many blocks of the file as `out` has. `read` gives the quants of block `b` of 32 columns
/// within a block of the file.
pub(super) fn integers<Q: Narrow, S: FromFile, const N: usize>(
    bytes: &[u8],
    row_bytes: usize,
    read: impl Fn(&[u8], usize) -> [u8; BLOCK],
    out: &mut [Integers<Q, S, N>],
) {
    let file_bytes = row_bytes / out.len();
    for (at, out) in out.iter_mut().enumerate() {
        let mut quants = [[0; TILE * BLOCK]; N];
        for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
            let file = &bytes[at * file_bytes..][..file_bytes];
            out.scales.read(row, file);
            for (b, quants) in quants.iter_mut().enumerate() {
                put(&read(file, b), row, quants);
            }
        }
        for (out, quants) in out.quants.iter_mut().zip(&quants) {
            *out = Q::narrow(quants);
        }
    }
}

/// Floats of `size` bytes.
pub(super) fn floats<F: Copy>(
    bytes: &[u8],
    row_bytes: usize,
    read: impl Fn(&[u8]) -> F,
    out: &mut [Floats<F>],
) {
    let size = row_bytes / (out.len() * BLOCK);
    for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
        let mut numbers = bytes.chunks_exact(size);
        for column in out.iter_mut().flat_map(|out| &mut out.columns) {
            if let Some(number) = numbers.next() {
                column[row] = read(number);
            }
        }
    }
}

#[inline]
pub(super) fn put(row: &[u8; BLOCK], number: usize, quants: &mut Bytes) {
    for (vector, four) in quants.as_chunks_mut::<64>().0.iter_mut().zip(row.as_chunks::<4>().0) {
        vector[number * 4..][..4].copy_from_slice(four);
    }
}

#[inline]
pub(super) fn q4_0(file: &[u8], _: usize) -> [u8; BLOCK] {
    nibbles(&file[2..])
}

#[inline]
pub(super) fn q4_1(file: &[u8], _: usize) -> [u8; BLOCK] {
    nibbles(&file[4..])
}

#[inline]
pub(super) fn q5_0(file: &[u8], _: usize) -> [u8; BLOCK] {
    with_fifth(nibbles(&file[6..]), &file[2..])
}

#[inline]
pub(super) fn q5_1(file: &[u8], _: usize) -> [u8; BLOCK] {
    with_fifth(nibbles(&file[8..]), &file[4..])
}

#[inline]
pub(super) fn q8_0(file: &[u8], _: usize) -> [u8; BLOCK] {
    // From signed to 128 too large.
    std::array::from_fn(|column| file[2 + column] ^ 128)
}

#[inline]
pub(super) fn q4_k(file: &[u8], b: usize) -> [u8; BLOCK] {
    half_bytes(&file[16 + b / 2 * 32..], b % 2)
}

#[inline]
pub(super) fn q5_k(file: &[u8], b: usize) -> [u8; BLOCK] {
    let (low, fifth) = (half_bytes(&file[48 + b / 2 * 32..], b % 2), &file[16..16 + BLOCK]);
    std::array::from_fn(|column| low[column] | (fifth[column] >> b & 1) << 4)
}

#[inline]
pub(super) fn q6_k(file: &[u8], b: usize) -> [u8; BLOCK] {
    let (half, quarter) = (b / 4, b % 4);
    let low = half_bytes(&file[half * 64 + quarter % 2 * 32..], quarter / 2);
    let high = &file[128 + half * 32..][..BLOCK];
    std::array::from_fn(|column| low[column] | (high[column] >> (2 * quarter) & 3) << 4)
}

/// 16 bytes: columns 0 to 15 in the low halves, the others in the high ones.
#[inline]
fn nibbles(bytes: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|column| if column < 16 { bytes[column] & 15 } else { bytes[column - 16] >> 4 })
}

/// 32 bytes, all low halves or all high halves.
#[inline]
fn half_bytes(bytes: &[u8], high: usize) -> [u8; BLOCK] {
    let bytes = &bytes[..BLOCK];
    match high {
        0 => std::array::from_fn(|column| bytes[column] & 15),
        _ => std::array::from_fn(|column| bytes[column] >> 4),
    }
}

#[inline]
fn with_fifth(low: [u8; BLOCK], bits: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|column| low[column] | (bits[column / 8] >> (column % 8) & 1) << 4)
}
