//! Weights, repacked at load for the kernels: tiles of 16 rows, blocks of 32 columns, 4 or 8 bits.
//!
//! Kinds of 4 bits keep their quants; the others become 8 bits, which are finer than any of them but 16- and 32-bit
//! floats. Scales and minima are rounded to half precision.

use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file};

use super::pool::Pool;
use crate::error::LoadError;
use crate::gguf::{Header, Kind, Tensor};

/// Rows of a tile.
pub(crate) const TILE: usize = 16;
/// Columns of a block.
pub(crate) const BLOCK: usize = 32;

/// A matrix whose rows are multiplied with activations.
pub(crate) struct Packed {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    store: Store,
}

enum Store {
    Four(Vec<Block4>),
    Eight(Vec<Block8>),
}

/// The blocks of one tile, left to right.
#[derive(Clone, Copy)]
pub(crate) enum Blocks<'a> {
    Four(&'a [Block4]),
    Eight(&'a [Block8]),
}

/// weight = quant * scale - minimum. Byte `(g * 16 + row) * 4 + j` holds column `8g + j` in its low half and `8g + 4 + j`
/// in its high half.
#[derive(Clone)]
#[repr(C, align(64))]
pub(crate) struct Block4 {
    pub(crate) quants: [u8; 256],
    pub(crate) scales: [u16; TILE],
    pub(crate) minima: [u16; TILE],
}

/// weight = (quant - 128) * scale. Byte `(g * 16 + row) * 4 + j` holds column `4g + j`.
#[derive(Clone)]
#[repr(C, align(32))]
pub(crate) struct Block8 {
    pub(crate) quants: [u8; 512],
    pub(crate) scales: [u16; TILE],
}

/// 32 activations: `words` hold four signed bytes each, lowest first; activation = byte * `scale`. `sum` is the sum of
/// the 32 activations as rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct QuantizedBlock {
    pub(crate) words: [i32; 8],
    pub(crate) scale: f32,
    pub(crate) sum: f32,
}

impl Blocks<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Four(blocks) => blocks.len(),
            Self::Eight(blocks) => blocks.len(),
        }
    }
}

impl Packed {
    /// The tensor `name`, which must be `rows` by `columns`.
    pub(crate) fn read(
        header: &Header<'_>,
        name: &str,
        (rows, columns): (usize, usize),
        pool: &Pool,
    ) -> Result<Self, LoadError> {
        let tensor = header.tensor(name)?;
        if tensor.shape != [rows, columns] || !columns.is_multiple_of(BLOCK) {
            let (found, expected) = (tensor.shape.clone(), vec![rows, columns.next_multiple_of(BLOCK)]);
            return Err(LoadError::Shape {
                path: header.path().into(),
                tensor: name.into(),
                found,
                expected,
            });
        }
        Self::pack(tensor, rows, columns, pool).map_err(|what| LoadError::Damaged {
            path: header.path().into(),
            at: 0,
            what: format!("tensor `{name}`: {what}"),
        })
    }

    fn pack(tensor: &Tensor<'_>, rows: usize, columns: usize, pool: &Pool) -> Result<Self, String> {
        let tile_blocks = columns / BLOCK;
        let blocks = rows.div_ceil(TILE) * tile_blocks;
        let row_bytes = tensor.bytes.len() / rows;
        let tile_bytes = |tile: usize| {
            let end = ((tile + 1) * TILE).min(rows);
            &tensor.bytes[tile * TILE * row_bytes..end * row_bytes]
        };
        let store = if is_four_bits(tensor.kind) {
            let empty = Block4 { quants: [0; 256], scales: [0; TILE], minima: [0; TILE] };
            let mut packed = vec![empty; blocks];
            pool.chunks(&mut packed, tile_blocks, |tile, out| {
                pack_four(tensor.kind.dtype(), tile_bytes(tile), row_bytes, out);
            });
            Store::Four(packed)
        } else {
            let mut packed = vec![Block8 { quants: [128; 512], scales: [0; TILE] }; blocks];
            let failure = std::sync::Mutex::new(None);
            pool.chunks(&mut packed, tile_blocks, |tile, out| match floats(tensor.kind, tile_bytes(tile)) {
                Ok(weights) => pack_eight(&weights, columns, out),
                Err(error) => *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error),
            });
            if let Some(error) = failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
                return Err(error);
            }
            Store::Eight(packed)
        };
        Ok(Self { rows, columns, store })
    }

    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    pub(crate) fn tile(&self, tile: usize) -> Blocks<'_> {
        let blocks = self.columns / BLOCK;
        match &self.store {
            Store::Four(store) => Blocks::Four(&store[tile * blocks..][..blocks]),
            Store::Eight(store) => Blocks::Eight(&store[tile * blocks..][..blocks]),
        }
    }

    /// A row as floats: the embedding of a token.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        let i = row % TILE;
        match self.tile(row / TILE) {
            Blocks::Four(blocks) => {
                for (block, out) in blocks.iter().zip(out.chunks_exact_mut(BLOCK)) {
                    let (scale, minimum) = (f16_to_f32(block.scales[i]), f16_to_f32(block.minima[i]));
                    for (column, out) in out.iter_mut().enumerate() {
                        let byte = block.quants[(column / 8 * TILE + i) * 4 + column % 4];
                        let quant = if column % 8 < 4 { byte & 15 } else { byte >> 4 };
                        *out = f32::from(quant) * scale - minimum;
                    }
                }
            }
            Blocks::Eight(blocks) => {
                for (block, out) in blocks.iter().zip(out.chunks_exact_mut(BLOCK)) {
                    let scale = f16_to_f32(block.scales[i]);
                    for (column, out) in out.iter_mut().enumerate() {
                        let byte = block.quants[(column / 4 * TILE + i) * 4 + column % 4];
                        *out = (f32::from(byte) - 128.0) * scale;
                    }
                }
            }
        }
    }
}

/// What a tensor takes once it is packed.
pub(crate) fn packed_bytes(tensor: &Tensor<'_>) -> u64 {
    let elements = tensor.shape.iter().product::<usize>() as u64;
    if tensor.shape.len() < 2 {
        return elements * 4;
    }
    let block = if is_four_bits(tensor.kind) { size_of::<Block4>() } else { size_of::<Block8>() };
    elements.div_ceil((TILE * BLOCK) as u64) * block as u64
}

/// The floats of a tensor of this shape, outermost first.
pub(crate) fn vector(header: &Header<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
    let tensor = header.tensor(name)?;
    if tensor.shape != shape {
        let (path, tensor, found) = (header.path().into(), name.into(), tensor.shape.clone());
        return Err(LoadError::Shape { path, tensor, found, expected: shape.into() });
    }
    floats(tensor.kind, tensor.bytes).map_err(|what| LoadError::Damaged {
        path: header.path().into(),
        at: 0,
        what: format!("tensor `{name}`: {what}"),
    })
}

fn is_four_bits(kind: Kind) -> bool {
    matches!(kind.dtype(), GgmlDType::Q4_0 | GgmlDType::Q4_1 | GgmlDType::Q4K)
}

/// Whole blocks of any kind as floats, by candle.
fn floats(kind: Kind, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let elements = bytes.len() / kind.block_bytes() * kind.block_len();
    // candle reads blocks in place, which asks for their alignment; a file at an odd offset does not have it.
    let aligned: Vec<u32> = bytes
        .chunks(4)
        .map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_ne_bytes(word)
        })
        .collect();
    // SAFETY: the vector holds at least as many initialized bytes as `bytes`, and bytes need no alignment.
    let aligned = unsafe { std::slice::from_raw_parts(aligned.as_ptr().cast::<u8>(), bytes.len()) };
    let tensor = ggml_file::qtensor_from_ggml(kind.dtype(), aligned, vec![elements], &Device::Cpu);
    tensor
        .and_then(|tensor| tensor.dequantize(&Device::Cpu))
        .and_then(|tensor| tensor.to_vec1())
        .map_err(|error| error.to_string())
}

/// `bytes` are up to 16 rows.
fn pack_four(kind: GgmlDType, bytes: &[u8], row_bytes: usize, out: &mut [Block4]) {
    for (i, row) in bytes.chunks_exact(row_bytes).enumerate() {
        for (b, out) in out.iter_mut().enumerate() {
            let (quants, scale, minimum) = unpack_four(kind, row, b);
            out.scales[i] = half::f16::from_f32(scale).to_bits();
            out.minima[i] = half::f16::from_f32(minimum).to_bits();
            for (g, columns) in quants.as_chunks::<8>().0.iter().enumerate() {
                for j in 0..4 {
                    out.quants[(g * TILE + i) * 4 + j] = columns[j] | (columns[4 + j] << 4);
                }
            }
        }
    }
}

/// Quants, scale and minimum of the 32 columns from `32 * b`. Layouts: ggml-common.h and ggml-quants.c of ggml.
fn unpack_four(kind: GgmlDType, row: &[u8], b: usize) -> ([u8; BLOCK], f32, f32) {
    let half = |at: usize| half::f16::from_le_bytes([row[at], row[at + 1]]).to_f32();
    let mut quants = [0; BLOCK];
    let mut nibbles = |at: usize| {
        for j in 0..16 {
            quants[j] = row[at + j] & 15;
            quants[j + 16] = row[at + j] >> 4;
        }
    };
    match kind {
        GgmlDType::Q4_0 => {
            nibbles(b * 18 + 2);
            (quants, half(b * 18), 8.0 * half(b * 18))
        }
        GgmlDType::Q4_1 => {
            nibbles(b * 20 + 4);
            (quants, half(b * 20), -half(b * 20 + 2))
        }
        // Q4_K: 256 columns, eight scales and minima of 6 bits in 12 bytes.
        _ => {
            let (start, sub) = (b / 8 * 144, b % 8);
            let packed = &row[start + 4..start + 16];
            let (scale, minimum) = match sub {
                0..4 => (packed[sub] & 63, packed[sub + 4] & 63),
                _ => (
                    (packed[sub + 4] & 15) | (packed[sub - 4] >> 6 << 4),
                    (packed[sub + 4] >> 4) | (packed[sub] >> 6 << 4),
                ),
            };
            for (quant, byte) in quants.iter_mut().zip(&row[start + 16 + sub / 2 * 32..]) {
                *quant = if sub.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
            }
            (quants, half(start) * f32::from(scale), half(start + 2) * f32::from(minimum))
        }
    }
}

/// `weights` are up to 16 rows.
fn pack_eight(weights: &[f32], columns: usize, out: &mut [Block8]) {
    for (i, row) in weights.chunks_exact(columns).enumerate() {
        for (weights, out) in row.chunks_exact(BLOCK).zip(out.iter_mut()) {
            let largest = weights.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
            // Rounded first, so that the quants fit the scale that is kept.
            let scale = half::f16::from_f32(largest / 127.0);
            let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
            out.scales[i] = scale.to_bits();
            for (column, weight) in weights.iter().enumerate() {
                let quant = (weight * inverse).round().clamp(-127.0, 127.0) as i16;
                out.quants[(column / 4 * TILE + i) * 4 + column % 4] = (quant + 128) as u8;
            }
        }
    }
}

/// In integer arithmetic, so that loops over it become vector code on any processor. Not for infinities and NaN,
/// which become large numbers.
#[inline(always)]
pub(crate) fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | (u32::from(bits & 0x8000) << 16))
}

/// A matrix of `weights`, as a GGUF of `kind` would hold it.
#[cfg(test)]
pub(crate) fn packed_from(kind: &str, weights: &[f32], rows: usize, columns: usize) -> Packed {
    let kind = (0..64).filter_map(Kind::from_id).find(|known| known.name() == kind).unwrap();
    let weights = candle_core::Tensor::from_slice(weights, (rows, columns), &Device::Cpu).unwrap();
    let quantized = candle_core::quantized::QTensor::quantize(&weights, kind.dtype()).unwrap();
    let bytes = quantized.data().unwrap();
    let tensor = Tensor { shape: vec![rows, columns], kind, bytes: &bytes };
    Packed::pack(&tensor, rows, columns, &Pool::new(1, 0).unwrap()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::lanes::tests::noise;

    #[test]
    fn packing_keeps_the_weights_of_every_kind() {
        let weights = noise(24 * 512, 21);
        for kind in (0..64).filter_map(Kind::from_id) {
            let table = candle_core::Tensor::from_slice(&weights, (24, 512), &Device::Cpu).unwrap();
            let quantized = candle_core::quantized::QTensor::quantize(&table, kind.dtype()).unwrap();
            let exact: Vec<f32> =
                quantized.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let packed = packed_from(kind.name(), &weights, 24, 512);
            let (mut error, mut size) = (0f64, 0f64);
            for (row, exact) in exact.chunks(512).enumerate() {
                let mut got = vec![0.0; 512];
                packed.row(row, &mut got);
                error += got.iter().zip(exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                size += exact.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            }
            let relative = (error / size).sqrt();
            let bound = if matches!(kind.name(), "Q4_0" | "Q4_1" | "Q8_0") { 5e-4 } else { 5e-3 };
            assert!(relative < bound, "{}: {relative}", kind.name());
        }
    }
}
