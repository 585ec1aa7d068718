//! The forward pass on this processor, with kernels of our own.

use std::slice::from_ref;

use super::experts::{Group, groups};
use super::kernel::Isa;
use super::lanes::{Center, Dot, Gate, GateGelu, Gelu, Norm, Quantize, Rotate};
use super::packed::{BLOCK, Memory, Packed, QuantizedBlock, TILE};
use super::pool::Pool;
use super::sequence::{Halves, Parts, Taken};
use super::weights::{Attention, Convolution, Dense, FeedForward, Layer, Linear, Mixing, Packer, Weights};
use super::{Angles, Output, Piece, weights};
use crate::error::LoadError;
use crate::gguf::{Activation, Header, Shape};
use crate::source::Mapping;

pub(crate) struct Kernels {
    pub(super) shape: Shape,
    pub(super) weights: Weights<Packer>,
    pub(super) isa: Isa,
    pub(super) pool: Pool,
    pub(super) taken: Taken,
}

impl Kernels {
    pub(super) fn load(
        mapping: &Mapping,
        header: &Header<'_>,
        shape: &Shape,
        context: usize,
        pool: Pool,
    ) -> Result<Self, LoadError> {
        let isa = Isa::choose()?;
        let packer = Packer { memory: Memory::default(), pool };
        let weights = Weights::read(header, shape, context, mapping, &packer)?;
        let pool = packer.pool;
        Ok(Self { shape: shape.clone(), weights, isa, pool, taken: Taken::default() })
    }

    pub(super) fn empty(&self, capacity: usize) -> Parts<Halves> {
        Parts::new(&self.shape, capacity, &self.taken, vec![0.0; self.shape.state_len()])
    }

    pub(super) fn run(&self, pieces: &mut [Piece<'_, Parts<Halves>>]) -> Vec<Output> {
        let shape = &self.shape;
        let tokens: Vec<u32> = pieces.iter().flat_map(|piece| piece.tokens).copied().collect();
        let mut hidden = self.pool.vector(tokens.len() * shape.hidden, shape.hidden, 0.0, |i, row| {
            self.weights.embedding.row(tokens[i] as usize, row);
            if shape.scales.embedding != 1.0 {
                row.iter_mut().for_each(|x| *x *= shape.scales.embedding);
            }
        });
        let positions: Vec<usize> =
            pieces.iter().flat_map(|piece| (piece.sequence.len()..).take(piece.tokens.len())).collect();
        let global = Angles::new(&self.weights.rotation.global, &positions, shape.rope.attention_factor);
        let local = Angles::new(&self.weights.rotation.local, &positions, shape.rope.attention_factor);

        let (mut attentions, mut remembered) = (0, 0);
        let mut asked: Vec<usize> = pieces.iter().map(|piece| piece.tokens.len()).collect();
        let last = self.weights.layers.len() - 1;
        for (number, layer) in self.weights.layers.iter().enumerate() {
            let mut rows = self.normalize(&hidden, &layer.norm);
            match &layer.mixing {
                Mixing::Attention(attention) => {
                    let angles = if attention.window.is_some() { &local } else { &global };
                    self.expect(from_ref(&attention.output.matrix));
                    let heads = self.project(attention, attentions, pieces, angles, &rows);
                    // Once the last keys and values are kept, only rows that somebody asks for are worth going on with: of
                    // most of a prompt, none.
                    if number == last {
                        asked = pieces.iter().map(|piece| piece.logits.max(piece.hidden)).collect();
                        keep_last(&mut hidden, shape.hidden, pieces, &asked);
                        keep_last(&mut rows, shape.hidden / BLOCK, pieces, &asked);
                        if hidden.is_empty() {
                            break;
                        }
                    }
                    let mixed = self.attend(attention, attentions, pieces, &asked, &heads);
                    self.expect(layer.feed_forward.first());
                    self.add(&attention.output, &mixed, layer.mixing_norm.as_deref(), &mut hidden);
                    attentions += 1;
                }
                Mixing::Convolution(convolution) => {
                    self.expect(from_ref(&convolution.output.matrix));
                    let mixed = self.convolve(convolution, remembered, pieces, &rows);
                    self.expect(layer.feed_forward.first());
                    self.add(&convolution.output, &mixed, layer.mixing_norm.as_deref(), &mut hidden);
                    remembered += (convolution.width - 1) * shape.hidden;
                }
            }
            let then =
                self.weights.layers.get(number + 1).map_or_else(|| self.head(), |layer| layer.mixing.first());
            self.feed_forward(layer, rows, &mut hidden, then);
        }
        for piece in &mut *pieces {
            piece.sequence.grow(piece.tokens.len());
        }
        self.outputs(pieces, &asked, &hidden)
    }

    /// Queries, keys and values of each row, side by side; the sequences keep the latter two.
    fn project(
        &self,
        attention: &Attention<Packer>,
        number: usize,
        pieces: &mut [Piece<'_, Parts<Halves>>],
        angles: &Angles,
        rows: &[QuantizedBlock],
    ) -> Vec<f32> {
        let shape = &self.shape;
        let dim = shape.head_dim;
        let (query_len, key_len) = (shape.heads * dim, shape.kv_heads * dim);
        let tiles = self.multiply(&attention.projections, rows);

        let row_len = query_len + 2 * key_len;
        let heads = self.pool.vector(tiles.rows * row_len, row_len, 0.0, |i, row| {
            tiles.row(i, attention.bias.as_deref(), row);
            let (cos, sin) = angles.at(i);
            for (number, head) in row[..query_len + key_len].chunks_exact_mut(dim).enumerate() {
                if let Some((query_norm, key_norm)) = &attention.head_norms {
                    let weights = if number < shape.heads { query_norm } else { key_norm };
                    let input = head.to_vec();
                    self.isa.run(Norm { input: &input, weights, epsilon: shape.norm_epsilon, output: head });
                }
                self.isa.run(Rotate { head, cos, sin, halves: shape.rope.halves });
            }
            row[..query_len].iter_mut().for_each(|x| *x *= shape.scales.attention);
        });
        let mut first = 0;
        for piece in &mut *pieces {
            let count = piece.tokens.len();
            let rows = &heads[first * row_len..(first + count) * row_len];
            piece.sequence.store(number, &self.pool, rows, query_len, row_len);
            first += count;
        }
        heads
    }

    /// What the last `asked` rows of each piece see, of what [`Kernels::project`] gave of all.
    fn attend(
        &self,
        attention: &Attention<Packer>,
        number: usize,
        pieces: &[Piece<'_, Parts<Halves>>],
        asked: &[usize],
        heads: &[f32],
    ) -> Vec<QuantizedBlock> {
        let shape = &self.shape;
        let query_len = shape.heads * shape.head_dim;
        let row_len = query_len + 2 * shape.kv_heads * shape.head_dim;
        let all_asked: usize = asked.iter().sum();

        // Of each piece, of each key-value head: `[row][head of its group][head_dim]`.
        let group = query_len / shape.kv_heads;
        let mut context = vec![0.0; all_asked * query_len];
        let (mut work, mut rest, mut first) = (Vec::new(), &mut context[..], 0);
        for (piece, asked) in pieces.iter().zip(asked) {
            let count = piece.tokens.len();
            for head in 0..shape.kv_heads {
                for from in (count - asked..count).step_by(ATTENTION_ROWS) {
                    let rows = from..(from + ATTENTION_ROWS).min(count);
                    let output;
                    (output, rest) = rest.split_at_mut(rows.len() * group);
                    work.push((&*piece.sequence, head, first, rows, count, output));
                }
            }
            first += count;
        }
        self.pool.chunks(&mut work, 1, |_, work| {
            let (sequence, head, first, rows, count, output) = &mut work[0];
            let mut queries = Vec::with_capacity(output.len());
            for i in rows.clone() {
                queries.extend_from_slice(&heads[(*first + i) * row_len + *head * group..][..group]);
            }
            let (head, rows, window) = (*head, rows.clone(), attention.window);
            sequence.attend(number, head, rows, *count, window, self.isa, &queries, output);
        });

        let mut quantized = vec![QuantizedBlock::default(); all_asked * query_len / BLOCK];
        let mut first = 0;
        for &count in asked.iter().filter(|count| **count > 0) {
            let context = &context[first * query_len..(first + count) * query_len];
            let output = &mut quantized[first * query_len / BLOCK..(first + count) * query_len / BLOCK];
            self.pool.chunks(output, query_len / BLOCK, |i, output| {
                let mut row = Vec::with_capacity(query_len);
                let heads = context.chunks_exact(count * group);
                heads.for_each(|head| row.extend_from_slice(&head[i * group..][..group]));
                self.isa.run(Quantize { input: &row, output });
            });
            first += count;
        }
        quantized
    }

    /// `remembered` is where the layer's part of a sequence's state begins.
    fn convolve(
        &self,
        convolution: &Convolution<Packer>,
        remembered: usize,
        pieces: &mut [Piece<'_, Parts<Halves>>],
        rows: &[QuantizedBlock],
    ) -> Vec<QuantizedBlock> {
        let (width, hidden) = (convolution.width, self.shape.hidden);
        let tiles = self.multiply(from_ref(&convolution.projection), rows);
        let mut quantized = vec![QuantizedBlock::default(); tiles.rows * hidden / BLOCK];
        let mut first = 0;
        for piece in pieces {
            let count = piece.tokens.len();
            let state = &mut piece.sequence.state[remembered..][..(width - 1) * hidden];
            // What the convolution sees, from the oldest that the first token sees.
            let mut inputs = state.to_vec();
            let mut gates = Vec::with_capacity(count * hidden);
            let mut row = vec![0.0; 3 * hidden];
            for i in first..first + count {
                tiles.row(i, None, &mut row);
                inputs.extend(row[..hidden].iter().zip(&row[2 * hidden..]).map(|(b, x)| b * x));
                gates.extend_from_slice(&row[hidden..2 * hidden]);
            }
            state.copy_from_slice(&inputs[count * hidden..]);
            let output = &mut quantized[first * hidden / BLOCK..(first + count) * hidden / BLOCK];
            self.pool.chunks(output, hidden / BLOCK, |i, output| {
                let mut mixed = vec![0.0; hidden];
                for (d, mixed) in mixed.iter_mut().enumerate() {
                    let kernel = &convolution.kernel[d * width..][..width];
                    let seen =
                        kernel.iter().enumerate().map(|(j, weight)| weight * inputs[(i + j) * hidden + d]);
                    *mixed = seen.sum::<f32>() * gates[i * hidden + d];
                }
                self.isa.run(Quantize { input: &mixed, output });
            });
            first += count;
        }
        quantized
    }

    /// `mixed`: the rows that the mixing was given. `then`: the matrices that come next.
    fn feed_forward(
        &self,
        layer: &Layer<Packer>,
        mixed: Vec<QuantizedBlock>,
        hidden: &mut [f32],
        then: &[Packed],
    ) {
        match &layer.feed_forward {
            FeedForward::Dense { norm, part: Dense { gate_and_up, bias, down } } => {
                let rows = norm.as_ref().map_or(mixed, |norm| self.normalize(hidden, norm));
                self.expect(from_ref(&down.matrix));
                let tiles = self.multiply(gate_and_up, &rows);
                let active = self.activate(tiles.rows, |i, row| tiles.row(i, bias.as_deref(), row));
                self.expect(then);
                self.add(down, &active, layer.down_norm.as_deref(), hidden);
            }
            FeedForward::Experts { norm, router, experts, used } => {
                let rows = self.normalize(hidden, norm);
                let logits = self.route(router, norm, hidden);
                self.mix(experts, &groups(&logits, experts.len(), *used), &rows, hidden);
            }
        }
    }

    /// What becomes of `count` rows, whose gate and up `row` gives, side by side.
    fn activate(&self, count: usize, row: impl Fn(usize, &mut [f32]) + Sync) -> Vec<QuantizedBlock> {
        let width = self.shape.feed_forward;
        let (blocks, empty) = (count * width / BLOCK, QuantizedBlock::default());
        self.pool.vector(blocks, width / BLOCK, empty, |i, output| {
            let activation = self.shape.activation;
            let mut both = vec![0.0; if activation == Activation::Gelu { width } else { 2 * width }];
            row(i, &mut both);
            let (gate, up) = both.split_at_mut(width);
            match activation {
                Activation::SwiGlu => self.isa.run(Gate { gate, up }),
                Activation::GeGlu => self.isa.run(GateGelu { gate, up }),
                Activation::Gelu => self.isa.run(Gelu(gate)),
            }
            self.isa.run(Quantize { input: gate, output });
        })
    }

    /// `[row][expert]`: in floats, since a rounding might choose another expert.
    fn route(&self, router: &[f32], norm: &weights::Norm<Packer>, hidden: &[f32]) -> Vec<f32> {
        let width = self.shape.hidden;
        let (rows, experts) = (hidden.len() / width, router.len() / width);
        self.pool.vector(rows * experts, experts, 0.0, |i, logits| {
            let mut row = vec![0.0; width];
            self.norm(norm, &hidden[i * width..][..width], &mut row);
            for (logit, weights) in logits.iter_mut().zip(router.chunks_exact(width)) {
                *logit = self.isa.run(Dot { a: &row, b: weights });
            }
        })
    }

    /// `hidden` += what the experts of each row make of `rows`, each by its share.
    fn mix(&self, experts: &[Dense<Packer>], groups: &[Group], rows: &[QuantizedBlock], hidden: &mut [f32]) {
        let (width, blocks) = (self.shape.hidden, self.shape.hidden / BLOCK);
        let own = groups.iter().flat_map(|group| &group.rows).flat_map(|row| &rows[row * blocks..][..blocks]);
        let own: Vec<QuantizedBlock> = own.copied().collect();
        let each = |matrices: fn(&Dense<Packer>) -> &[Packed], rows: &[QuantizedBlock]| {
            let parts = groups.iter().map(|group| (matrices(&experts[group.expert]), group.rows.len()));
            self.multiply_each(&parts.collect::<Vec<_>>(), rows)
        };
        // Where the rows of each group are: its number, and the place within it.
        let places: Vec<(usize, usize)> = groups
            .iter()
            .enumerate()
            .flat_map(|(g, group)| (0..group.rows.len()).map(move |i| (g, i)))
            .collect();
        let both = each(|part| &part.gate_and_up, &own);
        let active = self.activate(places.len(), |at, row| {
            let (g, i) = places[at];
            both[g].row(i, experts[groups[g].expert].bias.as_deref(), row);
        });
        let downs = each(|part| from_ref(&part.down.matrix), &active);

        // Always in the order of the experts, whatever rows are beside it.
        let mut parts = vec![Vec::new(); hidden.len() / width];
        for (g, i) in places {
            let bias = experts[groups[g].expert].down.bias.as_deref();
            parts[groups[g].rows[i]].push((&downs[g], i, bias, groups[g].shares[i]));
        }
        let scale = self.shape.scales.residual;
        self.pool.chunks(hidden, width, |i, row| {
            let mut added = vec![0.0; width];
            for (tiles, i, bias, share) in &parts[i] {
                tiles.row(*i, *bias, &mut added);
                row.iter_mut().zip(&added).for_each(|(x, added)| *x += scale * share * added);
            }
        });
    }

    /// `hidden` += `linear` of `rows`, normalized where there is a `norm`, times the residual scale.
    fn add(
        &self,
        linear: &Linear<Packer>,
        rows: &[QuantizedBlock],
        norm: Option<&[f32]>,
        hidden: &mut [f32],
    ) {
        let tiles = self.multiply(from_ref(&linear.matrix), rows);
        let (scale, epsilon) = (self.shape.scales.residual, self.shape.norm_epsilon);
        self.pool.chunks(hidden, self.shape.hidden, |i, row| {
            let mut added = vec![0.0; row.len()];
            tiles.row(i, linear.bias.as_deref(), &mut added);
            if let Some(weights) = norm {
                let input = added.clone();
                self.isa.run(Norm { input: &input, weights, epsilon, output: &mut added });
            }
            row.iter_mut().zip(&added).for_each(|(x, added)| *x += scale * added);
        });
    }

    fn norm(&self, norm: &weights::Norm<Packer>, input: &[f32], output: &mut [f32]) {
        let (weights, epsilon) = (&norm.weights[..], self.shape.norm_epsilon);
        match &norm.bias {
            Some(bias) => self.isa.run(Center { input, weights, bias, epsilon, output }),
            None => self.isa.run(Norm { input, weights, epsilon, output }),
        }
    }

    fn normalize(&self, hidden: &[f32], norm: &weights::Norm<Packer>) -> Vec<QuantizedBlock> {
        let width = self.shape.hidden;
        self.pool.vector(hidden.len() / BLOCK, width / BLOCK, QuantizedBlock::default(), |i, output| {
            let mut row = vec![0.0; width];
            self.norm(norm, &hidden[i * width..][..width], &mut row);
            self.isa.run(Quantize { input: &row, output });
        })
    }

    /// The matrix that gives the logits.
    fn head(&self) -> &[Packed] {
        from_ref(self.weights.head.as_ref().map_or(&self.weights.embedding, |head| &head.matrix))
    }

    /// Says which matrices are multiplied after those that come now, if that is known.
    fn expect(&self, matrices: &[Packed]) {
        let count = matrices.iter().map(Packed::tiles).sum();
        self.pool.expect(count, |number| {
            find(matrices, number).map_or((std::ptr::null(), 0), |(matrix, tile)| matrix.place(tile))
        });
    }

    /// Matrices of as many columns, one above the other, times the same rows: one wait for the threads instead of several.
    fn multiply(&self, matrices: &[Packed], activations: &[QuantizedBlock]) -> Tiles {
        let rows = activations.len() * BLOCK / matrices[0].columns;
        let count: usize = matrices.iter().map(Packed::tiles).sum();
        let tiles = self.pool.vector(count * rows, rows, [0.0; TILE], |number, out| {
            let (matrix, tile) = find(matrices, number).expect("there are as many chunks as tiles");
            self.isa.multiply(matrix.tile(tile), activations, out);
        });
        Tiles { tiles, rows }
    }

    /// As `multiply`, for matrices that have rows of their own, as many as are given; they lie one behind the other.
    fn multiply_each(&self, parts: &[(&[Packed], usize)], activations: &[QuantizedBlock]) -> Vec<Tiles> {
        let empty = |(matrices, rows): &(&[Packed], usize)| {
            let count: usize = matrices.iter().map(Packed::tiles).sum();
            Tiles { tiles: vec![[0.0; TILE]; count * rows], rows: *rows }
        };
        let mut products: Vec<Tiles> = parts.iter().map(empty).collect();
        let (mut work, mut rest) = (Vec::new(), activations);
        for ((matrices, rows), product) in parts.iter().zip(&mut products) {
            let own;
            (own, rest) = rest.split_at(rows * matrices[0].columns / BLOCK);
            let tiles = matrices.iter().flat_map(|matrix| (0..matrix.tiles()).map(|tile| matrix.tile(tile)));
            work.extend(tiles.zip(product.tiles.chunks_mut(*rows)).map(|(tile, out)| (tile, own, out)));
        }
        self.pool.chunks(&mut work, 1, |_, work| {
            let (tile, rows, out) = &mut work[0];
            self.isa.multiply(*tile, rows, out);
        });
        products
    }

    /// `hidden` holds the last `asked` rows of each piece.
    fn outputs(&self, pieces: &[Piece<'_, Parts<Halves>>], asked: &[usize], hidden: &[f32]) -> Vec<Output> {
        let (width, vocab) = (self.shape.hidden, self.shape.vocab);
        let (mut wanted, mut end) = (Vec::new(), 0);
        for (piece, asked) in pieces.iter().zip(asked) {
            end += asked;
            wanted.extend_from_slice(&hidden[(end - piece.logits) * width..end * width]);
        }
        let logits = if wanted.is_empty() { Vec::new() } else { self.logits(&wanted) };
        let (mut first, mut end) = (0, 0);
        let output = |(piece, asked): (&Piece<'_, Parts<Halves>>, &usize)| {
            end += asked;
            first += piece.logits;
            let mut states = vec![0.0; piece.hidden * width];
            for (row, input) in states
                .chunks_exact_mut(width)
                .zip(hidden[(end - piece.hidden) * width..end * width].chunks_exact(width))
            {
                self.norm(&self.weights.norm, input, row);
            }
            let logits = logits[(first - piece.logits) * vocab..first * vocab].to_vec();
            Output { logits, hidden: states }
        };
        pieces.iter().zip(asked).map(output).collect()
    }

    /// `[row][vocab]` for rows of hidden states.
    fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let (vocab, scales) = (self.shape.vocab, self.shape.scales);
        let rows = self.normalize(hidden, &self.weights.norm);
        let bias = self.weights.head.as_ref().and_then(|head| head.bias.as_deref());
        self.expect(self.weights.layers[0].mixing.first());
        let tiles = self.multiply(self.head(), &rows);
        self.pool.vector(tiles.rows * vocab, vocab, 0.0, |i, row| {
            tiles.row(i, bias, row);
            if scales.logits != 1.0 {
                row.iter_mut().for_each(|x| *x *= scales.logits);
            }
            if let Some(cap) = scales.logit_cap {
                row.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
            }
        })
    }
}

/// Where tile `number` of matrices one above the other is; `None` past the last.
fn find(matrices: &[Packed], mut number: usize) -> Option<(&Packed, usize)> {
    for matrix in matrices {
        if number < matrix.tiles() {
            return Some((matrix, number));
        }
        number -= matrix.tiles();
    }
    None
}

impl Mixing<Packer> {
    /// The matrices that are multiplied first.
    fn first(&self) -> &[Packed] {
        match self {
            Self::Attention(attention) => &attention.projections,
            Self::Convolution(convolution) => from_ref(&convolution.projection),
        }
    }
}

impl FeedForward<Packer> {
    /// The matrices that are multiplied first, where that is known beforehand.
    fn first(&self) -> &[Packed] {
        match self {
            Self::Dense { part, .. } => &part.gate_and_up,
            Self::Experts { .. } => &[],
        }
    }
}

/// A product, tile by tile: `[tile][row][16]`, so that each thread writes a piece of its own.
struct Tiles {
    tiles: Vec<[f32; TILE]>,
    rows: usize,
}

impl Tiles {
    /// Row `row`, and the bias, if any, added to it.
    fn row(&self, row: usize, bias: Option<&[f32]>, out: &mut [f32]) {
        let mut tiles = self.tiles[row..].iter().step_by(self.rows);
        let (whole, rest) = out.as_chunks_mut::<TILE>();
        whole.iter_mut().zip(&mut tiles).for_each(|(out, tile)| *out = *tile);
        // Of the last rows of a matrix, as many as there are.
        rest.iter_mut().zip(tiles.flatten()).for_each(|(out, x)| *out = *x);
        if let Some(bias) = bias {
            out.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
        }
    }
}

/// Of the rows of each piece, `width` long, only the last `asked` stay.
fn keep_last<T: Copy>(rows: &mut Vec<T>, width: usize, pieces: &[Piece<'_, Parts<Halves>>], asked: &[usize]) {
    let (mut from, mut to) = (0, 0);
    for (piece, asked) in pieces.iter().zip(asked) {
        from += piece.tokens.len();
        rows.copy_within((from - asked) * width..from * width, to * width);
        to += asked;
    }
    rows.truncate(to * width);
}

/// Rows of a prompt whose queries are one piece of work.
const ATTENTION_ROWS: usize = 16;
