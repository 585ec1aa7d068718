//! Keys and values as tensors, and attention to them.

use candle_core::{D, DType, Device, Result, Tensor};

use super::super::sequence::{Parts, Sizes, Store};

/// `[head][position][head_dim]` in half precision, of each layer; on the device once the layer's first token is.
pub(crate) struct Tensors {
    layers: Vec<(Tensor, Tensor)>,
    capacity: usize,
}

impl Store for Tensors {
    /// Of one layer, `[width - 1][hidden]`, oldest first; `None` before the first token.
    type State = Option<Tensor>;

    fn new(_sizes: Sizes, capacity: usize) -> Self {
        Self { layers: Vec::new(), capacity }
    }
}

impl Parts<Tensors> {
    /// Puts the keys and values `[row][head][head_dim]` of attention layer `layer` behind the tokens so far.
    pub(super) fn store(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        let (store, len) = (&mut self.own.store, self.own.len);
        if store.layers.len() == layer {
            let (_, heads, dim) = keys.dims3()?;
            let room = || Tensor::zeros((heads, store.capacity, dim), DType::F16, keys.device());
            store.layers.push((room()?, room()?));
        }
        let (key_room, value_room) = &store.layers[layer];
        for (room, rows) in [(key_room, keys), (value_room, values)] {
            // Nobody else has this room: what is shared is never the end of a sequence.
            room.slice_set(&rows.transpose(0, 1)?.to_dtype(DType::F16)?.contiguous()?, 1, len)?;
        }
        Ok(())
    }

    /// Attention of `queries`, `[row][head][head_dim]`, whose rows' own keys and values have been stored:
    /// `[row][head * head_dim]`. `mask` is that of as many rows and of this window.
    pub(super) fn attend(
        &self,
        layer: usize,
        queries: &Tensor,
        window: Option<usize>,
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (rows, heads, dim) = queries.dims3()?;
        let kv_heads = self.own.sizes.kv_heads;
        let group = heads / kv_heads;
        // Of each key-value head, the rows' queries: `[kv_head][row * head of its group][head_dim]`.
        let queries = queries.reshape((rows, kv_heads, group, dim))?.transpose(0, 1)?;
        let queries = queries.reshape((kv_heads, rows * group, dim))?;

        let spans = self.spans(layer, rows, window)?;
        let scores = spans.iter().map(|(keys, _)| queries.matmul(&keys.t()?));
        let mut scores = Tensor::cat(&scores.collect::<Result<Vec<_>>>()?, 2)?;
        if let Some(mask) = mask {
            let tall = scores.reshape((kv_heads, rows, group, scores.dim(2)?))?;
            scores = tall.broadcast_add(mask)?.reshape(scores.shape())?;
        }
        let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let shares = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
        let (mut mixed, mut first) = (queries.zeros_like()?, 0);
        for (_, values) in &spans {
            let count = values.dim(1)?;
            mixed = (mixed + shares.narrow(2, first, count)?.contiguous()?.matmul(values)?)?;
            first += count;
        }
        mixed.reshape((kv_heads, rows, group, dim))?.transpose(0, 1)?.reshape((rows, heads * dim))
    }

    /// What hides from each of `rows` tokens, about to be appended, what it does not see: 0 or minus infinity, `[row][1][key]`.
    /// `None` where nothing is to be hidden.
    pub(super) fn mask(&self, rows: usize, window: Option<usize>, device: &Device) -> Result<Option<Tensor>> {
        if rows == 1 {
            return Ok(None);
        }
        let (start, end) = (self.first_seen(window), self.len() + rows);
        let mut mask = Vec::with_capacity(rows * (end - start));
        for last in self.len()..end {
            let first = window.map_or(0, |window| (last + 1).saturating_sub(window));
            let seen = |key| if (first..=last).contains(&key) { 0.0 } else { f32::NEG_INFINITY };
            mask.extend((start..end).map(seen));
        }
        Tensor::from_vec(mask, (rows, 1, end - start), device).map(Some)
    }

    /// Keys and values, as floats, of all that any of `rows` appended tokens sees.
    fn spans(&self, layer: usize, rows: usize, window: Option<usize>) -> Result<Vec<(Tensor, Tensor)>> {
        let parts = self.shared.iter().map(|part| (&part.store, part.len));
        let parts = parts.chain([(&self.own.store, self.own.len + rows)]);
        let (mut spans, mut begin, first) = (Vec::new(), 0, self.first_seen(window));
        for (store, len) in parts {
            let skip = first.saturating_sub(begin).min(len);
            begin += len;
            if skip < len {
                let (keys, values) = &store.layers[layer];
                let floats = |room: &Tensor| room.narrow(1, skip, len - skip)?.to_dtype(DType::F32);
                spans.push((floats(keys)?, floats(values)?));
            }
        }
        Ok(spans)
    }

    /// The oldest token that the next one sees.
    fn first_seen(&self, window: Option<usize>) -> usize {
        window.map_or(0, |window| (self.len() + 1).saturating_sub(window))
    }
}
