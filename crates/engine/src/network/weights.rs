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
    pub(super) norm: Norm<P>,
    /// Absent where the embedding serves.
    pub(super) head: Option<Linear<P>>,
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

/// A matrix, and what is added to its product (Phi 2).
pub(super) struct Linear<P: Place> {
    pub(super) matrix: P::Matrix,
    pub(super) bias: Option<P::Vector>,
}

/// Rows are divided by the root of the mean of their squares; with a bias, their mean is taken from them first (Phi 2).
pub(super) struct Norm<P: Place> {
    pub(super) weights: P::Vector,
    pub(super) bias: Option<P::Vector>,
}

pub(super) struct Layer<P: Place> {
    pub(super) norm: Norm<P>,
    pub(super) mixing: Mixing<P>,
    /// Of what the mixing adds (Gemma 3, GLM 4).
    pub(super) mixing_norm: Option<P::Vector>,
    pub(super) feed_forward: FeedForward<P>,
    /// Of what the feed-forward part adds (Gemma 3, GLM 4).
    pub(super) down_norm: Option<P::Vector>,
}

pub(super) enum FeedForward<P: Place> {
    Dense {
        /// Absent where the part gets what the mixing gets (Phi 2).
        norm: Option<Norm<P>>,
        part: Dense<P>,
    },
    /// Each token goes through some of the parts.
    Experts {
        norm: Norm<P>,
        /// `[expert][hidden]`.
        router: P::Vector,
        experts: Vec<Dense<P>>,
        used: usize,
    },
}

pub(super) struct Dense<P: Place> {
    /// The gate's rows, then as many of what it lets through: two tensors, or one (Phi 3, GLM 4); or no gate (Phi 2).
    pub(super) gate_and_up: Vec<P::Matrix>,
    /// Of its product (Phi 2).
    pub(super) bias: Option<P::Vector>,
    pub(super) down: Linear<P>,
}

pub(super) enum Mixing<P: Place> {
    Attention(Box<Attention<P>>),
    Convolution(Convolution<P>),
}

pub(super) struct Attention<P: Place> {
    /// Rows of queries, keys and values: three tensors, or one (Phi 2, Phi 3).
    pub(super) projections: Vec<P::Matrix>,
    /// Of queries, keys and values, in a row (Qwen 2, GLM 4, Phi 2).
    pub(super) bias: Option<P::Vector>,
    /// Of each head's query and key.
    pub(super) head_norms: Option<(P::Vector, P::Vector)>,
    pub(super) output: Linear<P>,
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
    pub(super) output: Linear<P>,
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
                Some(tensors.linear("output", table)?)
            }
            false => None,
        };
        let norm = match shape.architecture {
            Architecture::Lfm2 => "token_embd_norm",
            _ => "output_norm",
        };
        let layers = (0..shape.mixers.len()).map(|i| tensors.layer(i)).collect::<Result<_, _>>()?;
        let weights = Self {
            embedding,
            layers,
            norm: tensors.norm(norm)?,
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
        let hidden = shape.hidden;
        let name = |part: &str| format!("blk.{number}.{part}");
        let weight = |part: &str| format!("blk.{number}.{part}.weight");
        let has_norms_after = matches!(shape.architecture, Architecture::Gemma3 | Architecture::Glm4);
        let norm_after = |part| has_norms_after.then(|| self.vector(&weight(part), &[hidden])).transpose();
        Ok(Layer {
            norm: self.norm(&name("attn_norm"))?,
            mixing: match shape.mixers[number] {
                Mixer::Global => Mixing::Attention(Box::new(self.attention(number, None)?)),
                Mixer::Local { window } => Mixing::Attention(Box::new(self.attention(number, Some(window))?)),
                Mixer::Convolution { width } => Mixing::Convolution(Convolution {
                    projection: self.matrix(&weight("shortconv.in_proj"), (3 * hidden, hidden))?,
                    kernel: self.vector(&weight("shortconv.conv"), &[hidden, width])?,
                    width,
                    output: self.linear(&name("shortconv.out_proj"), (hidden, hidden))?,
                }),
            },
            mixing_norm: norm_after("post_attention_norm")?,
            feed_forward: self.feed_forward(number)?,
            down_norm: norm_after("post_ffw_norm")?,
        })
    }

    fn feed_forward(&self, number: usize) -> Result<FeedForward<P>, LoadError> {
        let Shape { architecture, hidden, feed_forward: wide, .. } = *self.shape;
        let name = |part: &str| format!("blk.{number}.ffn_{part}");
        let matrix = |part: &str, rows| self.matrix(&format!("{}.weight", name(part)), (rows, hidden));
        if let Some(experts) = self.shape.experts {
            let matrices = |part: &str, size| self.matrices(&format!("{}.weight", name(part)), experts, size);
            let gates = matrices("gate_exps", (wide, hidden))?.into_iter();
            let ups = matrices("up_exps", (wide, hidden))?;
            let downs = matrices("down_exps", (hidden, wide))?;
            let part = |((gate, up), matrix)| Dense {
                gate_and_up: vec![gate, up],
                bias: None,
                down: Linear { matrix, bias: None },
            };
            return Ok(FeedForward::Experts {
                norm: self.norm(&name("norm"))?,
                router: self.vector(&format!("{}.weight", name("gate_inp")), &[experts.count, hidden])?,
                experts: gates.zip(ups).zip(downs).map(part).collect(),
                used: experts.used,
            });
        }
        let is_parallel = architecture == Architecture::Phi2;
        Ok(FeedForward::Dense {
            norm: (!is_parallel).then(|| self.norm(&name("norm"))).transpose()?,
            part: Dense {
                gate_and_up: match architecture {
                    Architecture::Phi2 => vec![matrix("up", wide)?],
                    Architecture::Phi3 | Architecture::Glm4 => vec![matrix("up", 2 * wide)?],
                    _ => vec![matrix("gate", wide)?, matrix("up", wide)?],
                },
                bias: self.bias(&name("up"), wide)?,
                down: self.linear(&name("down"), (hidden, wide))?,
            },
        })
    }

    fn attention(&self, number: usize, window: Option<usize>) -> Result<Attention<P>, LoadError> {
        let (shape, architecture) = (self.shape, self.shape.architecture);
        let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let name = |part: &str| format!("blk.{number}.{part}");
        let matrix = |part: &str, rows| self.matrix(&name(&format!("{part}.weight")), (rows, shape.hidden));
        let head_norm = |part: &str| self.vector(&name(&format!("{part}.weight")), &[shape.head_dim]);
        let parts = [("q", queries), ("k", keys), ("v", keys)];
        Ok(Attention {
            projections: match architecture {
                Architecture::Phi2 | Architecture::Phi3 => vec![matrix("attn_qkv", queries + 2 * keys)?],
                _ => vec![matrix("attn_q", queries)?, matrix("attn_k", keys)?, matrix("attn_v", keys)?],
            },
            bias: match architecture {
                Architecture::Phi2 => self.bias(&name("attn_qkv"), queries + 2 * keys)?,
                _ if parts.iter().any(|(part, _)| self.has(&name(&format!("attn_{part}.bias")))) => {
                    let parts =
                        parts.map(|(part, len)| self.floats(&name(&format!("attn_{part}.bias")), &[len]));
                    let [queries, keys, values] = parts;
                    Some(self.place.vector(self.header, [queries?, keys?, values?].concat())?)
                }
                _ => None,
            },
            head_norms: match architecture {
                Architecture::Qwen3 | Architecture::Qwen3Moe | Architecture::Gemma3 | Architecture::Lfm2 => {
                    Some((head_norm("attn_q_norm")?, head_norm("attn_k_norm")?))
                }
                _ => None,
            },
            output: self.linear(&name("attn_output"), (shape.hidden, queries))?,
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

    fn linear(&self, name: &str, size: (usize, usize)) -> Result<Linear<P>, LoadError> {
        Ok(Linear { matrix: self.matrix(&format!("{name}.weight"), size)?, bias: self.bias(name, size.0)? })
    }

    fn norm(&self, name: &str) -> Result<Norm<P>, LoadError> {
        let len = self.shape.hidden;
        Ok(Norm { weights: self.vector(&format!("{name}.weight"), &[len])?, bias: self.bias(name, len)? })
    }

    /// Phi 2 has one everywhere.
    fn bias(&self, name: &str, len: usize) -> Result<Option<P::Vector>, LoadError> {
        let has = self.shape.architecture == Architecture::Phi2;
        has.then(|| self.vector(&format!("{name}.bias"), &[len])).transpose()
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

/// Looks at weights without reading them.
pub(super) struct Look;

impl Place for Look {
    type Matrix = ();
    type Vector = ();

    fn matrix(
        &self,
        header: &Header<'_>,
        name: &str,
        tensor: &Tensor<'_>,
        size: (usize, usize),
    ) -> Result<(), LoadError> {
        Packed::check(header, name, tensor, size)
    }

    fn vector(&self, _header: &Header<'_>, _numbers: Vec<f32>) -> Result<(), LoadError> {
        Ok(())
    }
}

/// Kinds that norms, biases and the kernels of convolutions may have.
const FLOATS: &[&str] = &["F32", "F16", "BF16"];
