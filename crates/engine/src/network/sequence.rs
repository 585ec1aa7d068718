//! What a conversation remembers: keys and values in half precision, in parts that conversations share.
//!
//! What a part is made of is for the one who computes with it to say: [`Halves`] for our kernels, tensors for a device.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::slice::HalfFloatSliceExt;

use super::attention::{Attend, Span};
use super::device::Tensors;
use super::kernel::Isa;
use super::pool::Pool;
use crate::gguf::Shape;

/// What a conversation remembers, for the network that made it.
pub(crate) enum Sequence {
    Kernels(Parts<Halves>),
    Device(Parts<Tensors>),
}

/// Parts that are complete, which other sequences may share, and a part of its own, at whose end tokens are appended.
pub(crate) struct Parts<S: Store> {
    pub(super) shared: Vec<Arc<Part<S>>>,
    pub(super) own: Part<S>,
    /// What the convolutions remember.
    pub(super) state: Vec<S::State>,
}

/// Keys and values of consecutive tokens, all counted before the first.
pub(crate) struct Part<S> {
    pub(super) store: S,
    pub(super) sizes: Sizes,
    /// A multiple of 16.
    pub(super) capacity: usize,
    pub(super) len: usize,
    taken: Taken,
}

#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    layers: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

/// How the keys and values of a part are kept.
pub(crate) trait Store {
    /// A piece of what convolutions remember.
    type State: Clone;

    /// With room for `capacity` tokens.
    fn new(sizes: Sizes, capacity: usize) -> Self;
}

/// In this machine's memory, as our kernels want them.
pub(crate) struct Halves {
    /// `[layer][head][position / 16][head_dim][16]`: a query meets 16 keys at once.
    keys: Vec<u16>,
    /// `[layer][head][position][head_dim]`.
    values: Vec<u16>,
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
    /// Tokens so far.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Kernels(parts) => parts.len(),
            Self::Device(parts) => parts.len(),
        }
    }

    /// A sequence that goes on from here without copying, with room for `capacity` tokens more. What is here so far is
    /// never changed again; where this sequence goes on too, it needs a room of its own first.
    pub(crate) fn branch(&mut self, capacity: usize) -> Self {
        match self {
            Self::Kernels(parts) => Self::Kernels(parts.branch(capacity)),
            Self::Device(parts) => Self::Device(parts.branch(capacity)),
        }
    }

    /// Forgets the last `tokens`, which were appended since it branched off.
    pub(crate) fn forget(&mut self, tokens: usize) {
        match self {
            Self::Kernels(parts) => parts.forget(tokens),
            Self::Device(parts) => parts.forget(tokens),
        }
    }

    /// Keys, values and what convolutions remember of a sequence of one part, to be kept elsewhere; `None` of another, and
    /// on a device.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Kernels(parts) => parts.bytes(),
            Self::Device(_) => None,
        }
    }

    pub(super) fn kernels(&mut self) -> Option<&mut Parts<Halves>> {
        match self {
            Self::Kernels(parts) => Some(parts),
            Self::Device(_) => None,
        }
    }

    pub(super) fn device(&mut self) -> Option<&mut Parts<Tensors>> {
        match self {
            Self::Device(parts) => Some(parts),
            Self::Kernels(_) => None,
        }
    }
}

impl<S: Store> Parts<S> {
    /// Empty, with room for `capacity` tokens. `state`: what convolutions remember of nothing.
    pub(super) fn new(shape: &Shape, capacity: usize, taken: &Taken, state: Vec<S::State>) -> Self {
        let sizes = Sizes { layers: shape.attentions(), kv_heads: shape.kv_heads, head_dim: shape.head_dim };
        Self { shared: Vec::new(), own: Part::new(sizes, capacity, taken.clone()), state }
    }

    pub(super) fn len(&self) -> usize {
        self.shared.iter().map(|part| part.len).sum::<usize>() + self.own.len
    }

    fn branch(&mut self, capacity: usize) -> Self {
        if self.own.len > 0 {
            let empty = self.own.like(0);
            self.shared.push(Arc::new(std::mem::replace(&mut self.own, empty)));
        }
        Self { shared: self.shared.clone(), own: self.own.like(capacity), state: self.state.clone() }
    }

    fn forget(&mut self, tokens: usize) {
        assert!(tokens == 0 || self.state.is_empty(), "a convolution does not remember what it saw before");
        self.own.len = self.own.len.checked_sub(tokens).expect("only its own tokens are forgotten");
    }

    pub(super) fn grow(&mut self, tokens: usize) {
        self.own.len += tokens;
        assert!(self.own.len <= self.own.capacity, "a request's tokens were counted before it began");
    }
}

impl Parts<Halves> {
    fn bytes(&self) -> Option<Vec<u8>> {
        let part = match &self.shared[..] {
            [part] if self.own.len == 0 => &part.store,
            _ => return None,
        };
        let halves = part.keys.iter().chain(&part.values).flat_map(|half| half.to_le_bytes());
        Some(halves.chain(self.state.iter().flat_map(|x| x.to_le_bytes())).collect())
    }

    /// This, empty and with room for `len` tokens, with what [`Sequence::bytes`] gave for as many; `None` if there are not
    /// as many bytes.
    pub(super) fn filled(mut self, len: usize, bytes: &[u8]) -> Option<Self> {
        let Halves { keys, values } = &mut self.own.store;
        let (halves, state) = bytes.split_at_checked(2 * (keys.len() + values.len()))?;
        if state.len() != 4 * self.state.len() {
            return None;
        }
        let halves = halves.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        keys.iter_mut().chain(values).zip(halves).for_each(|(place, half)| *place = half);
        let state = state.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        self.state.iter_mut().zip(state).for_each(|(place, x)| *place = x);
        self.own.len = len;
        Some(self.branch(0))
    }

    /// Puts the keys of attention layer `layer`, which lie from `start` in each row of `rows`, and the values after
    /// them, behind the tokens so far.
    pub(super) fn store(&mut self, layer: usize, pool: &Pool, rows: &[f32], start: usize, row_len: usize) {
        let part = &mut self.own;
        let (dim, from, kv_heads) = (part.sizes.head_dim, part.len, part.sizes.kv_heads);
        let key_len = kv_heads * dim;
        let place = part.layer(layer);
        let head_len = part.capacity * dim;
        let row = |i: usize, head: usize| &rows[i * row_len + start + head * dim..];
        let count = rows.len() / row_len;
        let Halves { keys, values } = &mut part.store;
        let mut both: Vec<_> =
            keys[place.clone()].chunks_mut(head_len).zip(values[place].chunks_mut(head_len)).collect();
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
        let dim = self.own.sizes.head_dim;
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

impl<S: Store> Part<S> {
    fn new(sizes: Sizes, capacity: usize, taken: Taken) -> Self {
        let capacity = capacity.next_multiple_of(16);
        taken.0.fetch_add(sizes.bytes(capacity), Ordering::Relaxed);
        Self { store: S::new(sizes, capacity), sizes, capacity, len: 0, taken }
    }

    /// An empty one of the same model.
    fn like(&self, capacity: usize) -> Self {
        Self::new(self.sizes, capacity, self.taken.clone())
    }
}

impl Part<Halves> {
    fn layer(&self, layer: usize) -> Range<usize> {
        let size = self.sizes.kv_heads * self.capacity * self.sizes.head_dim;
        layer * size..(layer + 1) * size
    }

    fn span(&self, layer: usize, head: usize, len: usize) -> Span<'_> {
        let size = self.capacity * self.sizes.head_dim;
        let place = self.layer(layer).start + head * size..self.layer(layer).start + (head + 1) * size;
        Span { keys: &self.store.keys[place.clone()], values: &self.store.values[place], len }
    }
}

impl Store for Halves {
    /// All layers' numbers lie in a row, `[layer][width - 1][hidden]`, oldest first.
    type State = f32;

    fn new(sizes: Sizes, capacity: usize) -> Self {
        let numbers = sizes.layers * sizes.kv_heads * capacity * sizes.head_dim;
        Self { keys: vec![0; numbers], values: vec![0; numbers] }
    }
}

impl Sizes {
    /// Of the keys and values of `tokens` tokens.
    fn bytes(self, tokens: usize) -> u64 {
        4 * (self.layers * self.kv_heads * tokens * self.head_dim) as u64
    }
}

impl<S> Drop for Part<S> {
    fn drop(&mut self) {
        self.taken.0.fetch_sub(self.sizes.bytes(self.capacity), Ordering::Relaxed);
    }
}

/// Fewer rows than this are not worth waking a thread.
const FEW: usize = 8;
