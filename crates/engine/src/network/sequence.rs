//! The keys and values of a conversation, in half precision, all set aside before its first token.

use half::slice::HalfFloatSliceExt;

use super::kernel::Isa;
use super::lanes::Attend;
use super::pool::Pool;
use crate::gguf::Shape;

pub(crate) struct Sequence {
    /// `[layer][head][position / 16][head_dim][16]`: a query meets 16 keys at once.
    keys: Vec<u16>,
    /// `[layer][head][position][head_dim]`.
    values: Vec<u16>,
    kv_heads: usize,
    heads: usize,
    head_dim: usize,
    /// A multiple of 16.
    capacity: usize,
    len: usize,
}

impl Sequence {
    pub(super) fn new(shape: &Shape, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(16);
        let size = shape.layers * shape.kv_heads * capacity * shape.head_dim;
        let (kv_heads, heads, head_dim) = (shape.kv_heads, shape.heads, shape.head_dim);
        Self { keys: vec![0; size], values: vec![0; size], kv_heads, heads, head_dim, capacity, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A copy with room for `capacity` tokens in all.
    pub(crate) fn fork(&self, capacity: usize) -> Self {
        let capacity = capacity.max(self.len).next_multiple_of(16);
        let (old, new) = (self.capacity * self.head_dim, capacity * self.head_dim);
        let filled = self.len.next_multiple_of(16) * self.head_dim;
        let copy = |from: &[u16]| {
            let mut to = vec![0; from.len() / old * new];
            for (from, to) in from.chunks_exact(old).zip(to.chunks_exact_mut(new)) {
                to[..filled].copy_from_slice(&from[..filled]);
            }
            to
        };
        let (kv_heads, heads, head_dim) = (self.kv_heads, self.heads, self.head_dim);
        let (keys, values) = (copy(&self.keys), copy(&self.values));
        Self { keys, values, kv_heads, heads, head_dim, capacity, len: self.len }
    }

    pub(super) fn grow(&mut self, tokens: usize) {
        self.len += tokens;
        assert!(self.len <= self.capacity, "a request's tokens were counted before it began");
    }

    /// Puts the keys of layer `layer`, which lie from `start` in each row of `rows`, and the values after them, at the
    /// positions from `len`.
    pub(super) fn store(&mut self, layer: usize, pool: &Pool, rows: &[f32], start: usize, row_len: usize) {
        let (dim, from, key_len) = (self.head_dim, self.len, self.kv_heads * self.head_dim);
        let head_len = self.capacity * dim;
        let layer = layer * self.kv_heads * head_len..(layer + 1) * self.kv_heads * head_len;
        let row = |i: usize, head: usize| &rows[i * row_len + start + head * dim..];
        let count = rows.len() / row_len;
        pool.chunks(&mut self.keys[layer.clone()], head_len, |head, keys| {
            let mut halves = vec![half::f16::ZERO; dim];
            for i in 0..count {
                let position = from + i;
                halves.convert_from_f32_slice(&row(i, head)[..dim]);
                let tile = &mut keys[position / 16 * 16 * dim..][..16 * dim];
                for (column, key) in tile.chunks_exact_mut(16).zip(&halves) {
                    column[position % 16] = key.to_bits();
                }
            }
        });
        pool.chunks(&mut self.values[layer], head_len, |head, values| {
            let mut halves = vec![half::f16::ZERO; dim];
            for i in 0..count {
                halves.convert_from_f32_slice(&row(i, head)[key_len..][..dim]);
                let place = &mut values[(from + i) * dim..][..dim];
                place.iter_mut().zip(&halves).for_each(|(place, value)| *place = value.to_bits());
            }
        });
    }

    /// What the queries at the beginning of each row of `rows` see: `[key-value head][row][head of its group][head_dim]`.
    /// The rows' own keys and values have been stored.
    pub(super) fn attend(
        &self,
        layer: usize,
        pool: &Pool,
        isa: Isa,
        rows: &[f32],
        row_len: usize,
    ) -> Vec<f32> {
        let (dim, group) = (self.head_dim, self.heads / self.kv_heads);
        let (count, head_len) = (rows.len() / row_len, self.capacity * dim);
        let rows_at_once = ROWS.min(count);
        let mut output = vec![0.0; count * self.heads * dim];
        // Every head has the same number of pieces; the last may be short, so the pieces are cut head by head.
        let pieces: Vec<(usize, usize, &mut [f32])> = output
            .chunks_mut(count * group * dim)
            .enumerate()
            .flat_map(|(head, output)| {
                let pieces = output.chunks_mut(rows_at_once * group * dim).enumerate();
                pieces.map(move |(piece, output)| (head, piece * rows_at_once, output))
            })
            .collect();
        let mut pieces = pieces;
        pool.chunks(&mut pieces, 1, |_, piece| {
            let (head, first, output) = &mut piece[0];
            let piece_rows = output.len() / (group * dim);
            let place = (layer * self.kv_heads + *head) * head_len;
            let mut queries = Vec::with_capacity(output.len());
            let mut visible = Vec::with_capacity(piece_rows * group);
            for i in *first..*first + piece_rows {
                queries.extend_from_slice(&rows[i * row_len + *head * group * dim..][..group * dim]);
                visible.extend(std::iter::repeat_n(self.len + i + 1, group));
            }
            let most = (self.len + *first + piece_rows).next_multiple_of(16);
            isa.run(Attend {
                queries: &queries,
                visible: &visible,
                keys: &self.keys[place..][..head_len],
                values: &self.values[place..][..head_len],
                head_dim: dim,
                scratch: &mut vec![0.0; Attend::AT_ONCE * most],
                output,
            });
        });
        output
    }
}

/// Rows of a prompt whose queries are one piece of work.
const ROWS: usize = 16;
