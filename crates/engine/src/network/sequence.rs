//! What a conversation remembers: keys and values in half precision, in parts that conversations share.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::slice::HalfFloatSliceExt;

use super::attention::{Attend, Span};
use super::kernel::Isa;
use super::pool::Pool;
use crate::gguf::Shape;

/// Parts that are complete, which other sequences may share, and a part of its own, at whose end tokens are appended.
pub(crate) struct Sequence {
    shared: Vec<Arc<Part>>,
    own: Part,
    /// What the convolutions remember, `[layer][width - 1][hidden]`, oldest first.
    pub(super) state: Vec<f32>,
}

/// Keys and values of consecutive tokens, all set aside before the first.
struct Part {
    /// `[layer][head][position / 16][head_dim][16]`: a query meets 16 keys at once.
    keys: Vec<u16>,
    /// `[layer][head][position][head_dim]`.
    values: Vec<u16>,
    layers: usize,
    kv_heads: usize,
    head_dim: usize,
    /// A multiple of 16.
    capacity: usize,
    len: usize,
    taken: Taken,
}

/// Bytes that all parts of a network take.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken(Arc<AtomicU64>);

impl Taken {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes of the keys and values of a part of `tokens` tokens.
pub(crate) fn part_bytes(shape: &Shape, tokens: usize) -> u64 {
    let per_token = 2 * 2 * (shape.attentions() * shape.kv_heads * shape.head_dim) as u64;
    per_token.saturating_mul(tokens.next_multiple_of(16) as u64)
}

impl Sequence {
    /// Empty, with room for `capacity` tokens.
    pub(super) fn new(shape: &Shape, capacity: usize, taken: &Taken) -> Self {
        let own = Part::new(shape.attentions(), shape.kv_heads, shape.head_dim, capacity, taken.clone());
        Self { shared: Vec::new(), own, state: vec![0.0; shape.state_len()] }
    }

    /// Tokens so far.
    pub(crate) fn len(&self) -> usize {
        self.shared.iter().map(|part| part.len).sum::<usize>() + self.own.len
    }

    /// A sequence that goes on from here without copying, with room for `capacity` tokens more. What is here so far is
    /// never changed again; where this sequence goes on too, it needs a room of its own first.
    pub(crate) fn branch(&mut self, capacity: usize) -> Self {
        if self.own.len > 0 {
            let empty = self.own.like(0);
            self.shared.push(Arc::new(std::mem::replace(&mut self.own, empty)));
        }
        Self { shared: self.shared.clone(), own: self.own.like(capacity), state: self.state.clone() }
    }

    /// Keys, values and what convolutions remember of a sequence of one part, to be kept elsewhere; `None` of another.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let part = match &self.shared[..] {
            [part] if self.own.len == 0 => part,
            _ => return None,
        };
        let halves = part.keys.iter().chain(&part.values).flat_map(|half| half.to_le_bytes());
        Some(halves.chain(self.state.iter().flat_map(|x| x.to_le_bytes())).collect())
    }

    /// A sequence of `len` tokens from what [`Sequence::bytes`] gave for as many; `None` if there are not as many bytes.
    pub(super) fn from_bytes(shape: &Shape, len: usize, bytes: &[u8], taken: &Taken) -> Option<Self> {
        let mut sequence = Self::new(shape, len, taken);
        let part = &mut sequence.own;
        let (halves, state) = bytes.split_at_checked(2 * (part.keys.len() + part.values.len()))?;
        if state.len() != 4 * sequence.state.len() {
            return None;
        }
        let halves = halves.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        part.keys.iter_mut().chain(&mut part.values).zip(halves).for_each(|(place, half)| *place = half);
        let state = state.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        sequence.state.iter_mut().zip(state).for_each(|(place, x)| *place = x);
        sequence.own.len = len;
        Some(sequence.branch(0))
    }

    /// Forgets the last `tokens`, which were appended since it branched off.
    pub(crate) fn forget(&mut self, tokens: usize) {
        assert!(tokens == 0 || self.state.is_empty(), "a convolution does not remember what it saw before");
        self.own.len = self.own.len.checked_sub(tokens).expect("only its own tokens are forgotten");
    }

    pub(super) fn grow(&mut self, tokens: usize) {
        self.own.len += tokens;
        assert!(self.own.len <= self.own.capacity, "a request's tokens were counted before it began");
    }

    /// Puts the keys of attention layer `layer`, which lie from `start` in each row of `rows`, and the values after
    /// them, behind the tokens so far.
    pub(super) fn store(&mut self, layer: usize, pool: &Pool, rows: &[f32], start: usize, row_len: usize) {
        let part = &mut self.own;
        let (dim, from, key_len) = (part.head_dim, part.len, part.kv_heads * part.head_dim);
        let place = part.layer(layer);
        let head_len = part.capacity * dim;
        let row = |i: usize, head: usize| &rows[i * row_len + start + head * dim..];
        let count = rows.len() / row_len;
        let mut both: Vec<_> = part.keys[place.clone()]
            .chunks_mut(head_len)
            .zip(part.values[place].chunks_mut(head_len))
            .collect();
        let store = |head: usize, (keys, values): &mut (&mut [u16], &mut [u16])| {
            let mut halves = vec![half::f16::ZERO; dim];
            for i in 0..count {
                let position = from + i;
                halves.convert_from_f32_slice(&row(i, head)[..dim]);
                let tile = &mut keys[position / 16 * 16 * dim..][..16 * dim];
                for (column, key) in tile.chunks_exact_mut(16).zip(&halves) {
                    column[position % 16] = key.to_bits();
                }
                halves.convert_from_f32_slice(&row(i, head)[key_len..][..dim]);
                let place = &mut values[position * dim..][..dim];
                place.iter_mut().zip(&halves).for_each(|(place, value)| *place = value.to_bits());
            }
        };
        if count < FEW {
            both.iter_mut().enumerate().for_each(|(head, both)| store(head, both));
        } else {
            pool.chunks(&mut both, 1, |head, both| store(head, &mut both[0]));
        }
    }

    /// Attention of rows `rows` of `heads`, one key-value head: `[row][head of its group][head_dim]` into `output`. The
    /// rows' own keys and values have been stored, and `appended` tokens of them.
    #[expect(clippy::too_many_arguments)]
    pub(super) fn attend(
        &self,
        layer: usize,
        head: usize,
        rows: Range<usize>,
        appended: usize,
        window: Option<usize>,
        isa: Isa,
        queries: &[f32],
        output: &mut [f32],
    ) {
        let dim = self.own.head_dim;
        let group = output.len() / (rows.len() * dim);
        let visible: Vec<Range<usize>> = rows
            .flat_map(|i| {
                let end = self.len() + i + 1;
                let start = window.map_or(0, |window| end.saturating_sub(window));
                std::iter::repeat_n(start..end, group)
            })
            .collect();
        let mut spans: Vec<Span<'_>> =
            self.shared.iter().map(|part| part.span(layer, head, part.len)).collect();
        spans.push(self.own.span(layer, head, self.own.len + appended));
        let slots: usize = spans.iter().map(Span::slots).sum();
        let mut scratch = vec![0.0; Attend::AT_ONCE.min(visible.len()) * slots];
        isa.run(Attend {
            queries,
            visible: &visible,
            spans: &spans,
            head_dim: dim,
            scratch: &mut scratch,
            output,
        });
    }
}

impl Part {
    fn new(layers: usize, kv_heads: usize, head_dim: usize, capacity: usize, taken: Taken) -> Self {
        let capacity = capacity.next_multiple_of(16);
        let size = layers * kv_heads * capacity * head_dim;
        let (keys, values) = (vec![0; size], vec![0; size]);
        taken.0.fetch_add(4 * size as u64, Ordering::Relaxed);
        Self { keys, values, layers, kv_heads, head_dim, capacity, len: 0, taken }
    }

    /// An empty one of the same model.
    fn like(&self, capacity: usize) -> Self {
        Self::new(self.layers, self.kv_heads, self.head_dim, capacity, self.taken.clone())
    }

    fn layer(&self, layer: usize) -> Range<usize> {
        let size = self.kv_heads * self.capacity * self.head_dim;
        layer * size..(layer + 1) * size
    }

    fn span(&self, layer: usize, head: usize, len: usize) -> Span<'_> {
        let size = self.capacity * self.head_dim;
        let place = self.layer(layer).start + head * size..self.layer(layer).start + (head + 1) * size;
        Span { keys: &self.keys[place.clone()], values: &self.values[place], len }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.taken.0.fetch_sub(4 * self.keys.len() as u64, Ordering::Relaxed);
    }
}

/// Fewer rows than this are not worth waking a thread.
const FEW: usize = 8;
