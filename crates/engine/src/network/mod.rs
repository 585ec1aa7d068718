//! The forward pass of the llama family: tokens in, logits out, keys and values kept in a [`Sequence`].

pub(crate) mod kernel;
mod lanes;
mod packed;
mod pool;
#[cfg(test)]
mod reference;
mod sequence;
#[cfg(test)]
mod tests;
mod weights;

pub(crate) use packed::packed_bytes;
pub(crate) use sequence::Sequence;

use kernel::Isa;
use lanes::{Gate, Norm, Quantize, Rotate};
use packed::{BLOCK, Packed, QuantizedBlock, TILE};
use pool::Pool;
use weights::{Layer, Weights};

use crate::error::LoadError;
use crate::gguf::{Architecture, Header, Shape};

/// Tokens of a prompt that are computed together; between chunks a request can be stopped.
pub(crate) const CHUNK: usize = 128;

pub(crate) struct Network {
    shape: Shape,
    weights: Weights,
    isa: Isa,
    pool: Pool,
}

/// Which of the tokens given get logits.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    None,
    Last,
    All,
}

impl Network {
    pub(crate) fn load(header: &Header<'_>, shape: &Shape, threads: usize) -> Result<Self, LoadError> {
        let isa = Isa::choose()?;
        let pool =
            Pool::new(threads).map_err(|error| LoadError::Read { path: header.path().into(), error })?;
        let weights = Weights::read(header, shape, &pool)?;
        Ok(Self { shape: shape.clone(), weights, isa, pool })
    }

    pub(crate) fn kernels(&self) -> &'static str {
        self.isa.name()
    }

    /// An empty sequence with room for `capacity` tokens.
    pub(crate) fn sequence(&self, capacity: usize) -> Sequence {
        Sequence::new(&self.shape, capacity)
    }

    /// Appends `tokens`, whose number is at most [`CHUNK`] and fits the sequence.
    pub(crate) fn append(&self, sequence: &mut Sequence, tokens: &[u32]) {
        self.pool.enter(|| self.run(sequence, tokens, Wanted::None));
    }

    /// As [`Network::append`], and gives the logits of what follows the last of `tokens`.
    pub(crate) fn forward(&self, sequence: &mut Sequence, tokens: &[u32]) -> Vec<f32> {
        self.pool.enter(|| self.run(sequence, tokens, Wanted::Last))
    }

    /// As [`Network::append`], and gives the logits of what follows each of `tokens`.
    pub(crate) fn forward_each(&self, sequence: &mut Sequence, tokens: &[u32]) -> Vec<Vec<f32>> {
        let logits = self.pool.enter(|| self.run(sequence, tokens, Wanted::All));
        logits.chunks(self.shape.vocab).map(<[f32]>::to_vec).collect()
    }

    fn run(&self, sequence: &mut Sequence, tokens: &[u32], wanted: Wanted) -> Vec<f32> {
        let shape = &self.shape;
        let mut hidden = vec![0.0; tokens.len() * shape.hidden];
        self.pool
            .chunks(&mut hidden, shape.hidden, |i, row| self.weights.embedding.row(tokens[i] as usize, row));
        let angles = self.angles(sequence.len(), tokens.len());
        for (number, layer) in self.weights.layers.iter().enumerate() {
            self.attend(layer, number, sequence, &angles, &mut hidden);
            self.feed_forward(layer, &mut hidden);
        }
        sequence.grow(tokens.len());

        let first = match wanted {
            Wanted::None => return Vec::new(),
            Wanted::Last => tokens.len() - 1,
            Wanted::All => 0,
        };
        let rows = self.normalize(&hidden[first * shape.hidden..], &self.weights.norm);
        let head = self.weights.head.as_ref().unwrap_or(&self.weights.embedding);
        let tiles = self.multiply(&[head], &rows);
        let mut logits = vec![0.0; (tokens.len() - first) * shape.vocab];
        self.pool.chunks(&mut logits, shape.vocab, |i, row| tiles.row(i, 0, row));
        logits
    }

    fn attend(
        &self,
        layer: &Layer,
        number: usize,
        sequence: &mut Sequence,
        angles: &Angles,
        hidden: &mut [f32],
    ) {
        let shape = &self.shape;
        let count = hidden.len() / shape.hidden;
        let (query_len, key_len) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let rows = self.normalize(hidden, &layer.attention_norm);
        let tiles = self.multiply(&[&layer.query, &layer.key, &layer.value], &rows);
        let (key_tile, value_tile) = (layer.query.tiles(), layer.query.tiles() + layer.key.tiles());

        // Each row: its queries, its keys and its values, side by side.
        let row_len = query_len + 2 * key_len;
        let mut heads = vec![0.0; count * row_len];
        self.pool.chunks(&mut heads, row_len, |i, row| {
            let (queries, rest) = row.split_at_mut(query_len);
            let (keys, values) = rest.split_at_mut(key_len);
            tiles.row(i, 0, queries);
            tiles.row(i, key_tile, keys);
            tiles.row(i, value_tile, values);
            if let Some(bias) = &layer.bias {
                row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
            for (number, head) in row[..query_len + key_len].chunks_exact_mut(shape.head_dim).enumerate() {
                if let Some((query_norm, key_norm)) = &layer.head_norms {
                    let weights = if number < shape.heads { query_norm } else { key_norm };
                    let input = head.to_vec();
                    self.isa.run(Norm { input: &input, weights, epsilon: shape.norm_epsilon, output: head });
                }
                let (cos, sin) = angles.at(i);
                self.isa.run(Rotate { head, cos, sin, halves: shape.architecture != Architecture::Llama });
            }
            let scale = 1.0 / (shape.head_dim as f32).sqrt();
            row[..query_len].iter_mut().for_each(|x| *x *= scale);
        });

        sequence.store(number, &self.pool, &heads, query_len, row_len);
        let context = sequence.attend(number, &self.pool, self.isa, &heads, row_len);
        let mut quantized = vec![QuantizedBlock::default(); count * query_len / BLOCK];
        let group = query_len / shape.kv_heads;
        self.pool.chunks(&mut quantized, query_len / BLOCK, |i, output| {
            let parts = context.chunks_exact(count * group).flat_map(|head| &head[i * group..][..group]);
            let row: Vec<f32> = parts.copied().collect();
            self.isa.run(Quantize { input: &row, output });
        });
        self.add(&layer.attention_output, &quantized, hidden);
    }

    fn feed_forward(&self, layer: &Layer, hidden: &mut [f32]) {
        let width = self.shape.feed_forward;
        let rows = self.normalize(hidden, &layer.feed_forward_norm);
        let tiles = self.multiply(&[&layer.gate, &layer.up], &rows);
        let mut quantized = vec![QuantizedBlock::default(); tiles.rows * width / BLOCK];
        self.pool.chunks(&mut quantized, width / BLOCK, |i, output| {
            let mut both = vec![0.0; 2 * width];
            let (gate, up) = both.split_at_mut(width);
            tiles.row(i, 0, gate);
            tiles.row(i, layer.gate.tiles(), up);
            self.isa.run(Gate { gate, up });
            self.isa.run(Quantize { input: gate, output });
        });
        self.add(&layer.down, &quantized, hidden);
    }

    /// `hidden` += `matrix` times `rows`.
    fn add(&self, matrix: &Packed, rows: &[QuantizedBlock], hidden: &mut [f32]) {
        let tiles = self.multiply(&[matrix], rows);
        self.pool.chunks(hidden, self.shape.hidden, |i, row| tiles.add_row(i, row));
    }

    fn normalize(&self, hidden: &[f32], weights: &[f32]) -> Vec<QuantizedBlock> {
        let (width, epsilon) = (self.shape.hidden, self.shape.norm_epsilon);
        let mut quantized = vec![QuantizedBlock::default(); hidden.len() / BLOCK];
        self.pool.chunks(&mut quantized, width / BLOCK, |i, output| {
            let mut row = vec![0.0; width];
            self.isa.run(Norm { input: &hidden[i * width..][..width], weights, epsilon, output: &mut row });
            self.isa.run(Quantize { input: &row, output });
        });
        quantized
    }

    /// Matrices of as many columns, times the same rows: one wait for the threads instead of several.
    fn multiply(&self, matrices: &[&Packed], activations: &[QuantizedBlock]) -> Tiles {
        let rows = activations.len() * BLOCK / matrices[0].columns;
        let count: usize = matrices.iter().map(|matrix| matrix.tiles()).sum();
        let mut tiles = vec![[0.0; TILE]; count * rows];
        self.pool.chunks(&mut tiles, rows, |mut number, out| {
            let mut matrices = matrices.iter();
            let matrix = matrices.find(|matrix| {
                let found = number < matrix.tiles();
                number -= if found { 0 } else { matrix.tiles() };
                found
            });
            let matrix = matrix.expect("there are as many chunks as tiles");
            self.isa.multiply(matrix.tile(number), activations, out);
        });
        Tiles { tiles, rows }
    }

    fn angles(&self, start: usize, count: usize) -> Angles {
        let half = self.weights.frequencies.len();
        let mut angles =
            Angles { cos: Vec::with_capacity(count * half), sin: Vec::with_capacity(count * half), half };
        for position in start..start + count {
            for frequency in &self.weights.frequencies {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                angles.cos.push(cos as f32);
                angles.sin.push(sin as f32);
            }
        }
        angles
    }
}

/// A product, tile by tile: `[tile][row][16]`, so that each thread writes a piece of its own.
struct Tiles {
    tiles: Vec<[f32; TILE]>,
    rows: usize,
}

impl Tiles {
    /// Row `row` of the matrix whose tiles begin at `tile`.
    fn row(&self, row: usize, tile: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_mut(TILE).enumerate() {
            out.copy_from_slice(&self.tiles[(tile + i) * self.rows + row][..out.len()]);
        }
    }

    fn add_row(&self, row: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_mut(TILE).enumerate() {
            out.iter_mut().zip(&self.tiles[i * self.rows + row]).for_each(|(out, x)| *out += x);
        }
    }
}

/// Cosines and sines by which the heads of each row are rotated.
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Angles {
    fn at(&self, row: usize) -> (&[f32], &[f32]) {
        (&self.cos[row * self.half..][..self.half], &self.sin[row * self.half..][..self.half])
    }
}
