//! The forward pass on candle's tensors, for a GPU: the same weights, steps and formulas as those of our kernels, an
//! operation of candle's at a time. On the processor it is many times slower than they are, and serves to compare.
//!
//! Activations are F32. Keys and values are kept in half precision and multiplied as F32.

mod matrix;
mod part;

use std::slice::from_ref;

use candle_core::quantized::QMatMul;
use candle_core::{D, Device, Module, Result, Tensor};

pub(crate) use matrix::device_bytes;
pub(crate) use part::Tensors;

use super::experts::groups;
use super::sequence::{Parts, Taken};
use super::weights::{Attention, Convolution, Dense, FeedForward, Layer, Linear, Mixing, Norm, Weights};
use super::{Angles, Output, Piece};
use crate::error::LoadError;
use crate::gguf::{Activation, Header, Shape};
use crate::source::Mapping;

pub(crate) struct Network {
    pub(super) shape: Shape,
    pub(super) weights: Weights<Device>,
    pub(super) device: Device,
    pub(super) taken: Taken,
}

/// What the layers with one window, or with none, have in common in a pass.
struct View {
    window: Option<usize>,
    /// `[row][1][pair]`.
    cos: Tensor,
    sin: Tensor,
    /// Of each piece, see [`Parts::mask`].
    masks: Vec<Option<Tensor>>,
}

impl Network {
    /// For sequences of at most `context` tokens.
    pub(super) fn load(
        mapping: &Mapping,
        header: &Header<'_>,
        shape: &Shape,
        context: usize,
        device: Device,
    ) -> std::result::Result<Self, LoadError> {
        let weights = Weights::read(header, shape, context, mapping, &device)?;
        Ok(Self { shape: shape.clone(), weights, device, taken: Taken::default() })
    }

    pub(super) fn kernels(&self) -> &'static str {
        match self.device {
            Device::Cpu => "candle",
            Device::Cuda(_) => "cuda",
            Device::Metal(_) => "metal",
        }
    }

    pub(super) fn empty(&self, capacity: usize) -> Parts<Tensors> {
        Parts::new(&self.shape, capacity, &self.taken, vec![None; self.shape.convolutions()])
    }

    pub(super) fn forward(&self, pieces: &mut [Piece<'_, Parts<Tensors>>]) -> Result<Vec<Output>> {
        let tokens: Vec<u32> = pieces.iter().flat_map(|piece| piece.tokens).copied().collect();
        let hidden = self.weights.embedding.embedding(&Tensor::new(tokens, &self.device)?)?;
        let mut hidden = (hidden * f64::from(self.shape.scales.embedding))?;

        let mut views = Vec::<View>::new();
        let (mut attentions, mut convolutions) = (0, 0);
        for layer in &self.weights.layers {
            let rows = self.norm(&hidden, &layer.norm)?;
            let mixed = match &layer.mixing {
                Mixing::Attention(attention) => {
                    let known = views.iter().position(|view| view.window == attention.window);
                    let number = known.unwrap_or(views.len());
                    if known.is_none() {
                        views.push(self.view(pieces, attention.window)?);
                    }
                    attentions += 1;
                    self.attend(attention, attentions - 1, pieces, &views[number], &rows)?
                }
                Mixing::Convolution(convolution) => {
                    convolutions += 1;
                    self.convolve(convolution, convolutions - 1, pieces, &rows)?
                }
            };
            hidden = self.add(&hidden, mixed, layer.mixing_norm.as_ref())?;
            let fed = self.feed_forward(layer, rows, &hidden)?;
            hidden = self.add(&hidden, fed, layer.down_norm.as_ref())?;
        }
        for piece in &mut *pieces {
            piece.sequence.grow(piece.tokens.len());
        }
        self.outputs(pieces, &hidden)
    }

    fn view(&self, pieces: &[Piece<'_, Parts<Tensors>>], window: Option<usize>) -> Result<View> {
        let rotation = &self.weights.rotation;
        let frequencies = if window.is_some() { &rotation.local } else { &rotation.global };
        let positions: Vec<usize> =
            pieces.iter().flat_map(|piece| (piece.sequence.len()..).take(piece.tokens.len())).collect();
        let angles = Angles::new(frequencies, &positions, self.shape.rope.attention_factor);
        let table = |numbers| Tensor::from_vec(numbers, (positions.len(), 1, angles.half), &self.device);
        let mask =
            |piece: &Piece<'_, Parts<Tensors>>| piece.sequence.mask(piece.tokens.len(), window, &self.device);
        let masks = pieces.iter().map(mask).collect::<Result<_>>()?;
        Ok(View { window, cos: table(angles.cos)?, sin: table(angles.sin)?, masks })
    }

    /// `number`: of the layer among those that attend.
    fn attend(
        &self,
        attention: &Attention<Device>,
        number: usize,
        pieces: &mut [Piece<'_, Parts<Tensors>>],
        view: &View,
        rows: &Tensor,
    ) -> Result<Tensor> {
        let shape = &self.shape;
        let all = multiply(&attention.projections, attention.bias.as_ref(), rows)?;
        // `[row][head][head_dim]` of `count` heads.
        let part = |first: usize, count: usize| {
            let part = all.narrow(1, first * shape.head_dim, count * shape.head_dim)?;
            part.reshape((all.dim(0)?, count, shape.head_dim))
        };
        let (mut queries, mut keys) = (part(0, shape.heads)?, part(shape.heads, shape.kv_heads)?);
        let values = part(shape.heads + shape.kv_heads, shape.kv_heads)?;
        if let Some((query_norm, key_norm)) = &attention.head_norms {
            queries = self.normalize(&queries, query_norm)?;
            keys = self.normalize(&keys, key_norm)?;
        }
        let queries = (self.rotate(&queries, view)? * f64::from(shape.scales.attention))?;
        let keys = self.rotate(&keys, view)?;

        let (mut mixed, mut first) = (Vec::with_capacity(pieces.len()), 0);
        for (piece, mask) in pieces.iter_mut().zip(&view.masks) {
            let count = piece.tokens.len();
            let own = |rows: &Tensor| rows.narrow(0, first, count);
            piece.sequence.store(number, &own(&keys)?, &own(&values)?)?;
            mixed.push(piece.sequence.attend(number, &own(&queries)?, view.window, mask.as_ref())?);
            first += count;
        }
        attention.output.forward(&Tensor::cat(&mixed, 0)?)
    }

    /// Heads `[row][head][head_dim]`, their pairs of numbers rotated.
    fn rotate(&self, heads: &Tensor, view: &View) -> Result<Tensor> {
        let (rows, count, dim) = heads.dims3()?;
        let half = view.cos.dim(2)?;
        let turned = |a: &Tensor, b: &Tensor| {
            let first = (a.broadcast_mul(&view.cos)? - b.broadcast_mul(&view.sin)?)?;
            let second = (a.broadcast_mul(&view.sin)? + b.broadcast_mul(&view.cos)?)?;
            Ok::<_, candle_core::Error>((first, second))
        };
        let rest = heads.narrow(2, 2 * half, dim - 2 * half)?;
        if self.shape.rope.halves {
            let (first, second) = turned(&heads.narrow(2, 0, half)?, &heads.narrow(2, half, half)?)?;
            return Tensor::cat(&[first, second, rest], 2);
        }
        let pairs = heads.narrow(2, 0, 2 * half)?.reshape((rows, count, half, 2))?;
        let number = |i| pairs.narrow(3, i, 1)?.squeeze(3);
        let (first, second) = turned(&number(0)?, &number(1)?)?;
        let pairs = Tensor::stack(&[first, second], 3)?.reshape((rows, count, 2 * half))?;
        Tensor::cat(&[pairs, rest], 2)
    }

    /// `number`: of the layer among those that are convolutions.
    fn convolve(
        &self,
        convolution: &Convolution<Device>,
        number: usize,
        pieces: &mut [Piece<'_, Parts<Tensors>>],
        rows: &Tensor,
    ) -> Result<Tensor> {
        let (width, hidden) = (convolution.width, self.shape.hidden);
        let all = multiply(from_ref(&convolution.projection), None, rows)?;
        let part = |i: usize| all.narrow(1, i * hidden, hidden);
        let (inputs, gates) = ((part(0)? * part(2)?)?, part(1)?);
        // `[width][hidden]`, the newest token's last.
        let kernel = convolution.kernel.reshape((hidden, width))?.t()?;

        let (mut mixed, mut first) = (Vec::with_capacity(pieces.len()), 0);
        for piece in pieces {
            let count = piece.tokens.len();
            let state = &mut piece.sequence.state[number];
            let before = match state.take() {
                Some(state) => state,
                None => inputs.narrow(0, 0, 1)?.zeros_like()?.repeat((width - 1, 1))?,
            };
            // What the convolution sees, from the oldest that the first token sees.
            let seen = Tensor::cat(&[before, inputs.narrow(0, first, count)?], 0)?;
            *state = Some(seen.narrow(0, count, width - 1)?.force_contiguous()?);
            let weighted = |i| seen.narrow(0, i, count)?.broadcast_mul(&kernel.narrow(0, i, 1)?);
            mixed.push((1..width).try_fold(weighted(0)?, |sum, i| sum + weighted(i)?)?);
            first += count;
        }
        convolution.output.forward(&(Tensor::cat(&mixed, 0)? * gates)?)
    }

    /// `mixed`: the rows that the mixing was given.
    fn feed_forward(&self, layer: &Layer<Device>, mixed: Tensor, hidden: &Tensor) -> Result<Tensor> {
        let (norm, router, experts, used) = match &layer.feed_forward {
            FeedForward::Dense { norm: None, part } => return self.dense(part, &mixed),
            FeedForward::Dense { norm: Some(norm), part } => {
                return self.dense(part, &self.norm(hidden, norm)?);
            }
            FeedForward::Experts { norm, router, experts, used } => (norm, router, experts, *used),
        };
        let rows = self.norm(hidden, norm)?;
        let router = router.reshape((experts.len(), self.shape.hidden))?;
        let logits = rows.matmul(&router.t()?)?.flatten_all()?.to_vec1::<f32>()?;
        groups(&logits, experts.len(), used).into_iter().try_fold(rows.zeros_like()?, |sum, group| {
            let count = group.rows.len();
            let numbers: Vec<u32> = group.rows.iter().map(|row| *row as u32).collect();
            let numbers = Tensor::new(numbers, &self.device)?;
            let shares = Tensor::from_vec(group.shares, (count, 1), &self.device)?;
            let fed = self.dense(&experts[group.expert], &rows.index_select(&numbers, 0)?)?;
            sum.index_add(&numbers, &fed.broadcast_mul(&shares)?, 0)
        })
    }

    fn dense(&self, part: &Dense<Device>, rows: &Tensor) -> Result<Tensor> {
        let width = self.shape.feed_forward;
        let both = multiply(&part.gate_and_up, part.bias.as_ref(), rows)?;
        let gate = both.narrow(1, 0, width)?;
        let up = || both.narrow(1, width, width);
        part.down.forward(&match self.shape.activation {
            Activation::SwiGlu => (gate.silu()? * up()?)?,
            Activation::GeGlu => (gate.gelu()? * up()?)?,
            Activation::Gelu => gate.gelu()?,
        })
    }

    /// `hidden` + `rows`, normalized where there is a `norm`, times the residual scale.
    fn add(&self, hidden: &Tensor, rows: Tensor, norm: Option<&Tensor>) -> Result<Tensor> {
        let rows = match norm {
            Some(weights) => self.normalize(&rows, weights)?,
            None => rows,
        };
        hidden + (rows * f64::from(self.shape.scales.residual))?
    }

    fn norm(&self, rows: &Tensor, norm: &Norm<Device>) -> Result<Tensor> {
        let Some(bias) = &norm.bias else { return self.normalize(rows, &norm.weights) };
        let centered = rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?;
        self.normalize(&centered, &norm.weights)?.broadcast_add(bias)
    }

    /// Rows divided by the root of the mean of their squares, times `weights`.
    fn normalize(&self, rows: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let squares = rows.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (squares + f64::from(self.shape.norm_epsilon))?.sqrt()?;
        rows.broadcast_div(&root)?.broadcast_mul(weights)
    }

    fn outputs(&self, pieces: &[Piece<'_, Parts<Tensors>>], hidden: &Tensor) -> Result<Vec<Output>> {
        let rows = self.norm(hidden, &self.weights.norm)?;
        // The last `count` of a piece's rows, for each piece.
        let last = |count: fn(&Piece<'_, Parts<Tensors>>) -> usize| {
            let mut end = 0;
            let rows = pieces.iter().map(|piece| {
                end += piece.tokens.len();
                rows.narrow(0, end - count(piece), count(piece))
            });
            Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)
        };
        let logits = match pieces.iter().any(|piece| piece.logits > 0) {
            true => self.logits(&last(|piece| piece.logits)?)?.flatten_all()?.to_vec1()?,
            false => Vec::new(),
        };
        let states = match pieces.iter().any(|piece| piece.hidden > 0) {
            true => last(|piece| piece.hidden)?.flatten_all()?.to_vec1()?,
            false => Vec::new(),
        };
        let (mut logits, mut states) = (&logits[..], &states[..]);
        let output = |piece: &Piece<'_, Parts<Tensors>>| {
            let own;
            (own, logits) = logits.split_at(piece.logits * self.shape.vocab);
            let hidden;
            (hidden, states) = states.split_at(piece.hidden * self.shape.hidden);
            Output { logits: own.to_vec(), hidden: hidden.to_vec() }
        };
        Ok(pieces.iter().map(output).collect())
    }

    /// `[row][vocab]` for rows of normalized hidden states.
    fn logits(&self, rows: &Tensor) -> Result<Tensor> {
        let logits = match &self.weights.head {
            Some(head) => head.forward(rows)?,
            None => multiply(from_ref(&self.weights.embedding), None, rows)?,
        };
        let logits = (logits * f64::from(self.shape.scales.logits))?;
        match self.shape.scales.logit_cap.map(f64::from) {
            Some(cap) => (logits / cap)?.tanh()? * cap,
            None => Ok(logits),
        }
    }
}

impl Linear<Device> {
    fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        multiply(from_ref(&self.matrix), self.bias.as_ref(), rows)
    }
}

/// Matrices of as many columns, one above the other, times the same rows, and the bias, if any, added to each.
fn multiply(matrices: &[QMatMul], bias: Option<&Tensor>, rows: &Tensor) -> Result<Tensor> {
    let products = matrices.iter().map(|matrix| matrix.forward(rows)).collect::<Result<Vec<_>>>()?;
    let product = match &products[..] {
        [product] => product.clone(),
        products => Tensor::cat(products, 1)?,
    };
    bias.map_or(Ok(product.clone()), |bias| product.broadcast_add(bias))
}
