//! Weights, arranged at load for the kernels: tiles of 16 rows, each a row of blocks of 32 columns.
//!
//! Every kind keeps its numbers as they are in the file, and takes as many bytes. Only Q2_K and Q3_K become 8 bits,
//! which are finer.

mod blocks;
mod file;
mod memory;

use candle_core::Device;
use candle_core::quantized::GgmlDType;

pub(crate) use self::blocks::{BLOCK, Bf16, Bytes, F16, Float, Floats, Integers, Quants, Scales, TILE};
pub(crate) use self::blocks::{Eight, Five, Four, Nested, NestedHalves, Plain, Six, SixBits, WithMinima};
use self::blocks::{FromFile, Narrow, Zeroed};
pub(crate) use self::memory::Memory;
use self::memory::Table;
use super::pool::Pool;
use super::quantized;
use crate::error::LoadError;
use crate::gguf::{Header, Kind, Tensor};

/// A matrix whose rows are multiplied with activations.
pub(crate) struct Packed {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    store: Store,
}

/// Declares the kinds of stores, and what all have in common.
macro_rules! stores {
    ($($name:ident: $blocks:ty,)*) => {
        enum Store {
            $($name(Table<$blocks>),)*
        }

        /// The blocks of one tile, left to right.
        #[derive(Clone, Copy)]
        pub(crate) enum Blocks<'a> {
            $($name(&'a [$blocks]),)*
        }

        impl Store {
            /// Tile `tile` of `tiles`.
            fn tile(&self, tile: usize, tiles: usize) -> Blocks<'_> {
                match self {
                    $(Self::$name(store) => {
                        let len = store.len() / tiles;
                        Blocks::$name(&store[tile * len..][..len])
                    })*
                }
            }

            /// Where it lies, and how many bytes it takes.
            fn place(&self) -> (*const u8, usize) {
                match self {
                    $(Self::$name(store) => (store.as_ptr().cast(), size_of_val(&store[..])),)*
                }
            }
        }

        impl Blocks<'_> {
            /// Blocks of 32 columns.
            pub(crate) fn len(&self) -> usize {
                match self {
                    $(Self::$name(blocks) => blocks.len() * <$blocks>::BLOCKS,)*
                }
            }
        }
    };
}

stores! {
    Q4_0: Integers<Four, Plain, 1>,
    Q4_1: Integers<Four, WithMinima, 1>,
    Q5_0: Integers<Five, Plain, 1>,
    Q5_1: Integers<Five, WithMinima, 1>,
    Q8_0: Integers<Eight, Plain, 1>,
    Q4K: Integers<Four, Nested, 8>,
    Q5K: Integers<Five, Nested, 8>,
    Q6K: Integers<Six, NestedHalves, 8>,
    F16: Floats<F16>,
    Bf16: Floats<Bf16>,
    F32: Floats<f32>,
}

/// Calls one of two functions, generic over integers or floats, with the blocks of a tile.
macro_rules! dispatch {
    ($tile:expr, $integers:ident, $floats:ident $(, $rest:expr)*) => {
        match $tile {
            Blocks::Q4_0(blocks) => $integers(blocks $(, $rest)*),
            Blocks::Q4_1(blocks) => $integers(blocks $(, $rest)*),
            Blocks::Q5_0(blocks) => $integers(blocks $(, $rest)*),
            Blocks::Q5_1(blocks) => $integers(blocks $(, $rest)*),
            Blocks::Q8_0(blocks) => $integers(blocks $(, $rest)*),
            Blocks::Q4K(blocks) => $integers(blocks $(, $rest)*),
            Blocks::Q5K(blocks) => $integers(blocks $(, $rest)*),
            Blocks::Q6K(blocks) => $integers(blocks $(, $rest)*),
            Blocks::F16(blocks) => $floats(blocks $(, $rest)*),
            Blocks::Bf16(blocks) => $floats(blocks $(, $rest)*),
            Blocks::F32(blocks) => $floats(blocks $(, $rest)*),
        }
    };
}
pub(crate) use dispatch;

/// 32 activations: `words` hold four signed bytes each, lowest first; activation = byte * `scale`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(crate) struct QuantizedBlock {
    pub(crate) words: [i32; 8],
    pub(crate) scale: f32,
    /// Of the 32 activations as rounded.
    pub(crate) sum: f32,
    /// Minus the sum of all bytes, of the first 16 and of the last 16.
    pub(crate) minus: [i32; 3],
}

impl QuantizedBlock {
    #[inline(always)]
    pub(crate) fn floats(&self) -> [f32; BLOCK] {
        let mut floats = [0.0; BLOCK];
        for (floats, word) in floats.as_chunks_mut::<4>().0.iter_mut().zip(self.words) {
            for (float, byte) in floats.iter_mut().zip(word.to_le_bytes()) {
                *float = f32::from(byte as i8) * self.scale;
            }
        }
        floats
    }
}

impl Packed {
    /// `tensor`, which is `name` or a part of it and must be `rows` by `columns`.
    pub(crate) fn read(
        header: &Header<'_>,
        name: &str,
        tensor: &Tensor<'_>,
        (rows, columns): (usize, usize),
        memory: &Memory,
        pool: &Pool,
    ) -> Result<Self, LoadError> {
        Self::check(header, name, tensor, (rows, columns))?;
        Self::pack(tensor, rows, columns, memory, pool).map_err(|what| damaged(header, name, &what))
    }

    /// Fails as [`Packed::read`] would, but for memory.
    pub(crate) fn check(
        header: &Header<'_>,
        name: &str,
        tensor: &Tensor<'_>,
        (rows, columns): (usize, usize),
    ) -> Result<(), LoadError> {
        if tensor.shape != [rows, columns] || !columns.is_multiple_of(BLOCK) {
            let (path, tensor, found) = (header.path().into(), name.into(), tensor.shape.clone());
            let expected = vec![rows, columns.next_multiple_of(BLOCK)];
            return Err(LoadError::Shape { path, tensor, found, expected });
        }
        check_blocks(tensor, columns).map_err(|what| damaged(header, name, &what))
    }

    fn pack(
        tensor: &Tensor<'_>,
        rows: usize,
        columns: usize,
        memory: &Memory,
        pool: &Pool,
    ) -> Result<Self, String> {
        check_blocks(tensor, columns)?;
        let source = Source { bytes: tensor.bytes, rows, columns, memory, pool };
        let store = match tensor.kind.dtype() {
            GgmlDType::Q4_0 => Store::Q4_0(source.integers(file::q4_0)?),
            GgmlDType::Q4_1 => Store::Q4_1(source.integers(file::q4_1)?),
            GgmlDType::Q5_0 => Store::Q5_0(source.integers(file::q5_0)?),
            GgmlDType::Q5_1 => Store::Q5_1(source.integers(file::q5_1)?),
            GgmlDType::Q8_0 => Store::Q8_0(source.integers(file::q8_0)?),
            GgmlDType::Q4K => Store::Q4K(source.integers(file::q4_k)?),
            GgmlDType::Q5K => Store::Q5K(source.integers(file::q5_k)?),
            GgmlDType::Q6K => Store::Q6K(source.integers(file::q6_k)?),
            GgmlDType::F16 => Store::F16(source.floats(|b| F16(u16::from_le_bytes([b[0], b[1]])))?),
            GgmlDType::BF16 => Store::Bf16(source.floats(|b| Bf16(u16::from_le_bytes([b[0], b[1]])))?),
            GgmlDType::F32 => Store::F32(source.floats(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))?),
            _ => Store::Q8_0(source.rounded(tensor.kind)?),
        };
        Ok(Self { rows, columns, store })
    }

    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    pub(crate) fn tile(&self, tile: usize) -> Blocks<'_> {
        self.store.tile(tile, self.tiles())
    }

    /// Where the tiles from `tile` on lie, and how many bytes they take.
    pub(crate) fn place(&self, tile: usize) -> (*const u8, usize) {
        let (start, len) = self.store.place();
        let before = len / self.tiles() * tile;
        (start.wrapping_add(before), len - before)
    }

    /// A row as floats: the embedding of a token.
    pub(crate) fn row(&self, row: usize, out: &mut [f32]) {
        dispatch!(self.tile(row / TILE), integer_row, float_row, row % TILE, out);
    }
}

fn check_blocks(tensor: &Tensor<'_>, columns: usize) -> Result<(), String> {
    let (kind, len) = (tensor.kind.name(), tensor.kind.block_len());
    match columns.is_multiple_of(len) {
        true => Ok(()),
        false => Err(format!("{columns} columns are not whole blocks of {kind}, which have {len}")),
    }
}

fn damaged(header: &Header<'_>, name: &str, what: &str) -> LoadError {
    LoadError::Damaged { path: header.path().into(), at: 0, what: format!("tensor `{name}`: {what}") }
}

fn integer_row<Q: Quants, S: Scales, const N: usize>(
    blocks: &[Integers<Q, S, N>],
    row: usize,
    out: &mut [f32],
) {
    let zero = zero::<Q, S>() as f32;
    for (blocks, out) in blocks.iter().zip(out.chunks_exact_mut(N * BLOCK)) {
        for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            let quants = blocks.quants[b].widen();
            let minimum = blocks.scales.minima(b)[row];
            for (half, out) in out.chunks_exact_mut(BLOCK / 2).enumerate() {
                let scale = blocks.scales.scales(b, half)[row];
                for (column, out) in out.iter_mut().enumerate() {
                    let column = half * BLOCK / 2 + column;
                    let quant = quants[column / 4 * 64 + row * 4 + column % 4];
                    *out = (f32::from(quant) - zero) * scale - minimum;
                }
            }
        }
    }
}

fn float_row<F: Float>(blocks: &[Floats<F>], row: usize, out: &mut [f32]) {
    let columns = blocks.iter().flat_map(|block| &block.columns);
    out.iter_mut().zip(columns).for_each(|(out, column)| *out = column[row].to_f32());
}

/// The quant of a weight of zero, where there are no minima.
pub(crate) const fn zero<Q: Quants, S: Scales>() -> i32 {
    if S::MINIMA { 0 } else { 1 << (Q::BITS - 1) }
}

impl<Q, S, const N: usize> Integers<Q, S, N> {
    const BLOCKS: usize = N;
}

impl<F> Floats<F> {
    const BLOCKS: usize = 1;
}

/// A tensor to be packed.
struct Source<'a> {
    bytes: &'a [u8],
    rows: usize,
    columns: usize,
    memory: &'a Memory,
    pool: &'a Pool,
}

impl Source<'_> {
    fn integers<Q: Narrow, S: FromFile, const N: usize>(
        &self,
        read: impl Fn(&[u8], usize) -> [u8; BLOCK] + Sync,
    ) -> Result<Table<Integers<Q, S, N>>, String> {
        let mut out = self.table(N * BLOCK)?;
        self.pool.chunks(&mut out, self.columns / (N * BLOCK), |tile, out| {
            file::integers(self.tile(tile), self.row_bytes(), &read, out);
        });
        Ok(out)
    }

    fn floats<F: Float>(&self, read: impl Fn(&[u8]) -> F + Sync) -> Result<Table<Floats<F>>, String> {
        let mut out = self.table(BLOCK)?;
        self.pool.chunks(&mut out, self.columns / BLOCK, |tile, out| {
            file::floats(self.tile(tile), self.row_bytes(), &read, out);
        });
        Ok(out)
    }

    /// Of kinds for which there is no store.
    fn rounded(&self, kind: Kind) -> Result<Table<Integers<Eight, Plain, 1>>, String> {
        let mut out: Table<Integers<Eight, Plain, 1>> = self.table(BLOCK)?;
        let failure = std::sync::Mutex::new(None);
        self.pool.chunks(&mut out, self.columns / BLOCK, |tile, out| match floats(kind, self.tile(tile)) {
            Ok(weights) => round(&weights, self.columns, out),
            Err(error) => *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error),
        });
        let failure = failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        failure.map_or(Ok(out), Err)
    }

    /// Blocks of so many columns, all zero.
    fn table<T: Zeroed>(&self, columns: usize) -> Result<Table<T>, String> {
        let len = self.rows.div_ceil(TILE) * (self.columns / columns);
        self.memory.table(len).map_err(|error| format!("no memory: {error}"))
    }

    fn row_bytes(&self) -> usize {
        self.bytes.len() / self.rows
    }

    /// Up to 16 rows.
    fn tile(&self, tile: usize) -> &[u8] {
        let end = ((tile + 1) * TILE).min(self.rows);
        &self.bytes[tile * TILE * self.row_bytes()..end * self.row_bytes()]
    }
}

/// What a tensor takes once it is packed.
pub(crate) fn packed_bytes(tensor: &Tensor<'_>) -> u64 {
    let elements = tensor.shape.iter().product::<usize>() as u64;
    if tensor.shape.len() < 2 {
        return elements * 4;
    }
    let block = match tensor.kind.dtype() {
        GgmlDType::Q2K | GgmlDType::Q3K => size_of::<Integers<Eight, Plain, 1>>(),
        _ => TILE * BLOCK / tensor.kind.block_len() * tensor.kind.block_bytes(),
    };
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

/// Whole blocks of any kind as floats, by candle.
fn floats(kind: Kind, bytes: &[u8]) -> Result<Vec<f32>, String> {
    let elements = bytes.len() / kind.block_bytes() * kind.block_len();
    let tensor = quantized::tensor(kind, bytes, vec![elements], &Device::Cpu);
    tensor
        .and_then(|tensor| tensor.dequantize(&Device::Cpu))
        .and_then(|tensor| tensor.to_vec1())
        .map_err(|error| error.to_string())
}

/// Weights of up to 16 rows to 8 bits.
fn round(weights: &[f32], columns: usize, out: &mut [Integers<Eight, Plain, 1>]) {
    for (i, row) in weights.chunks_exact(columns).enumerate() {
        for (weights, out) in row.as_chunks::<BLOCK>().0.iter().zip(out.iter_mut()) {
            let largest = weights.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
            // Rounded first, so that the quants fit the scale that is kept.
            let scale = half::f16::from_f32(largest / 127.0);
            let inverse = if scale.to_f32() > 0.0 { 1.0 / scale.to_f32() } else { 0.0 };
            out.scales.scales[i] = scale.to_bits();
            let quants =
                weights.map(|weight| ((weight * inverse).round().clamp(-127.0, 127.0) as i16 + 128) as u8);
            file::put(&quants, i, &mut out.quants[0].0);
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
    Packed::pack(&tensor, rows, columns, &Memory::default(), &Pool::new(1, 0).unwrap()).unwrap()
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
            let bound = if matches!(kind.name(), "Q2_K" | "Q3_K") { 5e-3 } else { 1e-6 };
            assert!(relative < bound, "{}: {relative}", kind.name());
        }
    }

    #[test]
    fn packed_weights_take_as_many_bytes_as_those_of_the_file() {
        let weights = noise(32 * 512, 21);
        for kind in (0..64).filter_map(Kind::from_id).filter(|kind| !matches!(kind.name(), "Q2_K" | "Q3_K")) {
            let packed = packed_from(kind.name(), &weights, 32, 512);
            let file = weights.len() / kind.block_len() * kind.block_bytes();
            assert_eq!(packed.store.place().1, file, "{}", kind.name());
            let tensor = Tensor { shape: vec![32, 512], kind, bytes: &[] };
            assert_eq!(packed_bytes(&tensor), file as u64, "{}", kind.name());
        }
    }

    #[test]
    fn tiles_lie_where_is_said() {
        let packed = packed_from("Q4_K", &noise(40 * 512, 21), 40, 512);
        for tile in 0..3 {
            let Blocks::Q4K(blocks) = packed.tile(tile) else { panic!("it was made of Q4_K") };
            assert_eq!(packed.place(tile), (blocks.as_ptr().cast(), (3 - tile) * size_of_val(blocks)));
        }
    }

    #[test]
    fn rows_of_half_a_block_are_an_error() {
        let kind = (0..64).filter_map(Kind::from_id).find(|kind| kind.name() == "Q4_K").unwrap();
        let tensor = Tensor { shape: vec![16, 128], kind, bytes: &[0; 8 * 144] };
        let error =
            Packed::pack(&tensor, 16, 128, &Memory::default(), &Pool::new(1, 0).unwrap()).err().unwrap();
        assert_eq!(error, "128 columns are not whole blocks of Q4_K, which have 256");
    }
}
