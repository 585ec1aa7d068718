//! The tensors of a model, by the names that llama.cpp gives them (its `llama-arch.cpp`).

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use super::packed::{Memory, Packed, vector};
use super::pool::Pool;
use crate::error::LoadError;
use crate::gguf::{Architecture, Experts, Header, Mixer, Shape, Tensor};
use crate::source::Mapping;

/// What prepares weights for those who compute with them: the threads of our kernels, or a device.
pub(super) trait Place {
    type Matrix;
    type Vector;

    /// `tensor`, which is `name` or a part of it and must be `rows` by `columns`.
    fn matrix(
        &self,
        header: &Header<'_>,
        name: &str,
        tensor: &Tensor<'_>,
        size: (usize, usize),
    ) -> Result<Self::Matrix, LoadError>;

    fn vector(&self, header: &Header<'_>, numbers: Vec<f32>) -> Result<Self::Vector, LoadError>;
}

pub(super) struct Weights<P: Place> {
    pub(super) embedding: P::Matrix,
    pub(super) layers: Vec<Layer<P>>,
    pub(super) norm: P::Vector,
    /// Absent where the embedding serves.
    pub(super) head: Option<P::Matrix>,
    pub(super) rotation: Rotation,
    /// That a pass of one token reads.
    pub(super) bytes: u64,
    /// Of a token that gets logits.
    pub(super) products: u64,
}

/// Radians a position, for each pair of numbers in a head.
pub(super) struct Rotation {
    pub(super) global: Vec<f64>,
    /// Of layers with a window; empty where there are none.
    pub(super) local: Vec<f64>,
}

pub(super) struct Layer<P: Place> {
    pub(super) norm: P::Vector,
    pub(super) mixing: Mixing<P>,
    /// Of what the mixing adds (Gemma 3, GLM 4).
    pub(super) mixing_norm: Option<P::Vector>,
    pub(super) feed_forward_norm: P::Vector,
    pub(super) feed_forward: FeedForward<P>,
    /// Of what the feed-forward part adds (Gemma 3, GLM 4).
    pub(super) down_norm: Option<P::Vector>,
}

pub(super) enum FeedForward<P: Place> {
    Dense(Dense<P>),
    /// Each token goes through some of the parts.
    Experts {
        /// `[expert][hidden]`.
        router: P::Vector,
        experts: Vec<Dense<P>>,
        used: usize,
    },
}

pub(super) struct Dense<P: Place> {
    /// The gate's rows, then as many of what it lets through: two tensors, or one (Phi 3, GLM 4).
    pub(super) gate_and_up: Vec<P::Matrix>,
    pub(super) down: P::Matrix,
}

pub(super) enum Mixing<P: Place> {
    Attention(Box<Attention<P>>),
    Convolution(Convolution<P>),
}

pub(super) struct Attention<P: Place> {
    /// Rows of queries, keys and values: three tensors, or one (Phi 3).
    pub(super) projections: Vec<P::Matrix>,
    /// Of queries, keys and values, in a row (Qwen 2, GLM 4).
    pub(super) bias: Option<P::Vector>,
    /// Of each head's query and key.
    pub(super) head_norms: Option<(P::Vector, P::Vector)>,
    pub(super) output: P::Matrix,
    /// Keys that a token sees, itself among them.
    pub(super) window: Option<usize>,
}

/// LFM2's short convolution: out = output (c * convolution (b * x)), where b, c and x are projections.
pub(super) struct Convolution<P: Place> {
    /// Rows of b, c and x.
    pub(super) projection: P::Matrix,
    /// `[hidden][width]`, the newest token's weight last.
    pub(super) kernel: P::Vector,
    pub(super) width: usize,
    pub(super) output: P::Matrix,
}

impl<P: Place> Weights<P> {
    /// For sequences of at most `context` tokens.
    pub(super) fn read(
        header: &Header<'_>,
        shape: &Shape,
        context: usize,
        mapping: &Mapping,
        place: &P,
    ) -> Result<Self, LoadError> {
        let read = RefCell::default();
        let (bytes, products) = (Cell::new(0), Cell::new(0));
        let tensors = Tensors { header, shape, mapping, place, read, bytes, products };
        let table = (shape.vocab, shape.hidden);
        let embedding = tensors.matrix("token_embd.weight", table)?;
        let head = match tensors.has("output.weight") {
            true => {
                // Beside a head, a token reads one row of the embedding.
                tensors.bytes.set(0);
                tensors.products.set(0);
                Some(tensors.matrix("output.weight", table)?)
            }
            false => None,
        };
        let norm = match shape.architecture {
            Architecture::Lfm2 => "token_embd_norm.weight",
            _ => "output_norm.weight",
        };
        let layers = (0..shape.mixers.len()).map(|i| tensors.layer(i)).collect::<Result<_, _>>()?;
        let weights = Self {
            embedding,
            layers,
            norm: tensors.vector(norm, &[shape.hidden])?,
            head,
            rotation: tensors.rotation(context)?,
            bytes: tensors.bytes.get(),
            products: tensors.products.get(),
        };
        tensors.check_all_read()?;
        Ok(weights)
    }
}

struct Tensors<'a, P> {
    header: &'a Header<'a>,
    shape: &'a Shape,
    /// What the header lies in, to be given back to the system as it is read.
    mapping: &'a Mapping,
    place: &'a P,
    /// Names of those that were asked for.
    read: RefCell<HashSet<String>>,
    /// Of all matrices.
    bytes: Cell<u64>,
    products: Cell<u64>,
}

impl<P: Place> Tensors<'_, P> {
    fn layer(&self, number: usize) -> Result<Layer<P>, LoadError> {
        let shape = self.shape;
        let (hidden, wide) = (shape.hidden, shape.feed_forward);
        let name = |part: &str| format!("blk.{number}.{part}.weight");
        let norm = |part: &str| self.vector(&name(part), &[hidden]);
        let norms_after = matches!(shape.architecture, Architecture::Gemma3 | Architecture::Glm4);
        Ok(Layer {
            norm: norm("attn_norm")?,
            mixing: match shape.mixers[number] {
                Mixer::Global => Mixing::Attention(Box::new(self.attention(number, None)?)),
                Mixer::Local { window } => Mixing::Attention(Box::new(self.attention(number, Some(window))?)),
                Mixer::Convolution { width } => Mixing::Convolution(Convolution {
                    projection: self.matrix(&name("shortconv.in_proj"), (3 * hidden, hidden))?,
                    kernel: self.vector(&name("shortconv.conv"), &[hidden, width])?,
                    width,
                    output: self.matrix(&name("shortconv.out_proj"), (hidden, hidden))?,
                }),
            },
            mixing_norm: norms_after.then(|| norm("post_attention_norm")).transpose()?,
            feed_forward_norm: norm("ffn_norm")?,
            feed_forward: match shape.experts {
                Some(experts) => self.experts(number, experts)?,
                None => FeedForward::Dense(Dense {
                    gate_and_up: match shape.architecture {
                        Architecture::Phi3 | Architecture::Glm4 => {
                            vec![self.matrix(&name("ffn_up"), (2 * wide, hidden))?]
                        }
                        _ => vec![
                            self.matrix(&name("ffn_gate"), (wide, hidden))?,
                            self.matrix(&name("ffn_up"), (wide, hidden))?,
                        ],
                    },
                    down: self.matrix(&name("ffn_down"), (hidden, wide))?,
                }),
            },
            down_norm: norms_after.then(|| norm("post_ffw_norm")).transpose()?,
        })
    }

    fn experts(&self, number: usize, experts: Experts) -> Result<FeedForward<P>, LoadError> {
        let (hidden, wide) = (self.shape.hidden, self.shape.feed_forward);
        let name = |part: &str| format!("blk.{number}.{part}.weight");
        let router = self.vector(&name("ffn_gate_inp"), &[experts.count, hidden])?;
        let gates = self.matrices(&name("ffn_gate_exps"), experts, (wide, hidden))?;
        let ups = self.matrices(&name("ffn_up_exps"), experts, (wide, hidden))?;
        let downs = self.matrices(&name("ffn_down_exps"), experts, (hidden, wide))?;
        let parts = gates.into_iter().zip(ups).zip(downs);
        let experts_parts = parts.map(|((gate, up), down)| Dense { gate_and_up: vec![gate, up], down });
        Ok(FeedForward::Experts { router, experts: experts_parts.collect(), used: experts.used })
    }

    fn attention(&self, number: usize, window: Option<usize>) -> Result<Attention<P>, LoadError> {
        let shape = self.shape;
        let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let name = |part: &str| format!("blk.{number}.{part}");
        let matrix = |part: &str, rows| self.matrix(&name(&format!("{part}.weight")), (rows, shape.hidden));
        let head_norm = |part: &str| self.vector(&name(&format!("{part}.weight")), &[shape.head_dim]);
        let bias = |part: &str, len| self.floats(&name(&format!("{part}.bias")), &[len]);
        Ok(Attention {
            projections: match shape.architecture {
                Architecture::Phi3 => vec![matrix("attn_qkv", queries + 2 * keys)?],
                _ => vec![matrix("attn_q", queries)?, matrix("attn_k", keys)?, matrix("attn_v", keys)?],
            },
            bias: match ["q", "k", "v"].iter().any(|part| self.has(&name(&format!("attn_{part}.bias")))) {
                true => {
                    let parts = [bias("attn_q", queries)?, bias("attn_k", keys)?, bias("attn_v", keys)?];
                    Some(self.place.vector(self.header, parts.concat())?)
                }
                false => None,
            },
            head_norms: match shape.architecture {
                Architecture::Qwen3 | Architecture::Qwen3Moe | Architecture::Gemma3 | Architecture::Lfm2 => {
                    Some((head_norm("attn_q_norm")?, head_norm("attn_k_norm")?))
                }
                _ => None,
            },
            output: self.matrix(&name("attn_output.weight"), (shape.hidden, queries))?,
            window,
        })
    }

    fn rotation(&self, context: usize) -> Result<Rotation, LoadError> {
        let rope = &self.shape.rope;
        let pairs = rope.dim / 2;
        let optional = |name: &str| self.has(name).then(|| self.floats(name, &[pairs])).transpose();
        let all = optional("rope_freqs.weight")?;
        let (short, long) = (optional("rope_factors_short.weight")?, optional("rope_factors_long.weight")?);
        let by_context = if context > rope.original_context { long } else { short };
        let stretch = all.or(by_context).unwrap_or_else(|| vec![1.0; pairs]);
        let frequency = |base: f64, pair: usize| {
            base.powf(-2.0 * pair as f64 / rope.dim as f64) / f64::from(stretch[pair])
        };
        let has_local = self.shape.mixers.iter().any(|mixer| matches!(mixer, Mixer::Local { .. }));
        let locals = if has_local { pairs } else { 0 };
        Ok(Rotation {
            global: (0..pairs).map(|pair| frequency(rope.base, pair) / rope.factor).collect(),
            local: (0..locals).map(|pair| frequency(rope.local_base, pair)).collect(),
        })
    }

    fn has(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// A tensor that the forward pass leaves out would make answers wrong, and nobody would know.
    fn check_all_read(&self) -> Result<(), LoadError> {
        let read = self.read.borrow();
        match self.header.tensors.keys().filter(|name| !read.contains(**name)).min() {
            Some(tensor) => Err(LoadError::UnknownTensor {
                path: self.header.path().into(),
                tensor: (*tensor).into(),
                architecture: self.shape.architecture.name(),
            }),
            None => Ok(()),
        }
    }

    fn matrix(&self, name: &str, size: (usize, usize)) -> Result<P::Matrix, LoadError> {
        self.read.borrow_mut().insert(name.into());
        let tensor = self.header.tensor(name)?;
        let matrix = self.place.matrix(self.header, name, tensor, size)?;
        self.mapping.release(tensor.bytes);
        self.count(tensor.bytes.len(), size.0 * size.1);
        Ok(matrix)
    }

    /// Matrices of one size that lie one behind the other in one tensor, of which a token is multiplied with some.
    fn matrices(
        &self,
        name: &str,
        experts: Experts,
        (rows, columns): (usize, usize),
    ) -> Result<Vec<P::Matrix>, LoadError> {
        self.read.borrow_mut().insert(name.into());
        let all = self.header.tensor(name)?;
        if all.shape != [experts.count, rows, columns] {
            let (path, tensor, found) = (self.header.path().into(), name.into(), all.shape.clone());
            return Err(LoadError::Shape {
                path,
                tensor,
                found,
                expected: vec![experts.count, rows, columns],
            });
        }
        let len = all.bytes.len() / experts.count;
        let matrix = |bytes| {
            let tensor = Tensor { shape: vec![rows, columns], kind: all.kind, bytes };
            let matrix = self.place.matrix(self.header, name, &tensor, (rows, columns))?;
            self.mapping.release(bytes);
            Ok(matrix)
        };
        let matrices = all.bytes.chunks_exact(len).map(matrix).collect::<Result<_, LoadError>>()?;
        self.count(len * experts.used, rows * columns * experts.used);
        Ok(matrices)
    }

    /// What a pass of one token reads and multiplies.
    fn count(&self, bytes: usize, products: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
        self.products.set(self.products.get() + products as u64);
    }

    fn vector(&self, name: &str, shape: &[usize]) -> Result<P::Vector, LoadError> {
        self.place.vector(self.header, self.floats(name, shape)?)
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        self.read.borrow_mut().insert(name.into());
        let kind = self.header.tensor(name)?.kind.name();
        if !FLOATS.contains(&kind) {
            let (path, tensor) = (self.header.path().into(), name.into());
            return Err(LoadError::Quantization { path, tensor, found: kind.into(), supported: FLOATS });
        }
        vector(self.header, name, shape)
    }
}

/// What arranges weights for our kernels, by the threads that will compute.
pub(super) struct Packer {
    pub(super) memory: Memory,
    pub(super) pool: Pool,
}

impl Place for Packer {
    type Matrix = Packed;
    type Vector = Vec<f32>;

    fn matrix(
        &self,
        header: &Header<'_>,
        name: &str,
        tensor: &Tensor<'_>,
        size: (usize, usize),
    ) -> Result<Packed, LoadError> {
        Packed::read(header, name, tensor, size, &self.memory, &self.pool)
    }

    fn vector(&self, _header: &Header<'_>, numbers: Vec<f32>) -> Result<Vec<f32>, LoadError> {
        Ok(numbers)
    }
}

/// Kinds that norms, biases and the kernels of convolutions may have.
const FLOATS: &[&str] = &["F32", "F16", "BF16"];
