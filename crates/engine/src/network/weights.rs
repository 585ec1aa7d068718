//! The tensors of a model, by the names that llama.cpp gives them.

use super::packed::{Packed, vector};
use super::pool::Pool;
use crate::error::LoadError;
use crate::gguf::{Architecture, Header, Shape};

pub(super) struct Weights {
    pub(super) embedding: Packed,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Vec<f32>,
    /// Absent where the embedding serves.
    pub(super) head: Option<Packed>,
    /// Radians a position, for each pair of numbers in a head.
    pub(super) frequencies: Vec<f64>,
}

pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) query: Packed,
    pub(super) key: Packed,
    pub(super) value: Packed,
    /// Of queries, keys and values, in a row (Qwen 2).
    pub(super) bias: Option<Vec<f32>>,
    /// Of each head's query and key (Qwen 3).
    pub(super) head_norms: Option<(Vec<f32>, Vec<f32>)>,
    pub(super) attention_output: Packed,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) gate: Packed,
    pub(super) up: Packed,
    pub(super) down: Packed,
}

impl Weights {
    pub(super) fn read(header: &Header<'_>, shape: &Shape, pool: &Pool) -> Result<Self, LoadError> {
        let table = (shape.vocab, shape.hidden);
        let head = match header.tensors.contains_key("output.weight") {
            true => Some(Packed::read(header, "output.weight", table, pool)?),
            false => None,
        };
        let pairs = shape.rope_dim / 2;
        let stretch = match header.tensors.contains_key("rope_freqs.weight") {
            true => vector(header, "rope_freqs.weight", pairs)?,
            false => vec![1.0; pairs],
        };
        let frequency = |pair: usize| shape.rope_base.powf(-2.0 * pair as f64 / shape.rope_dim as f64);
        Ok(Self {
            embedding: Packed::read(header, "token_embd.weight", table, pool)?,
            layers: (0..shape.layers)
                .map(|i| Layer::read(header, shape, i, pool))
                .collect::<Result<_, _>>()?,
            norm: vector(header, "output_norm.weight", shape.hidden)?,
            head,
            frequencies: (0..pairs).map(|pair| frequency(pair) / f64::from(stretch[pair])).collect(),
        })
    }
}

impl Layer {
    fn read(header: &Header<'_>, shape: &Shape, number: usize, pool: &Pool) -> Result<Self, LoadError> {
        let (hidden, wide) = (shape.hidden, shape.feed_forward);
        let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
        let name = |part: &str| format!("blk.{number}.{part}");
        let matrix = |part: &str, rows, columns| {
            Packed::read(header, &name(&format!("{part}.weight")), (rows, columns), pool)
        };
        let norm = |part: &str, len| vector(header, &name(&format!("{part}.weight")), len);
        let bias = |part: &str, len| vector(header, &name(&format!("{part}.bias")), len);
        Ok(Self {
            attention_norm: norm("attn_norm", hidden)?,
            query: matrix("attn_q", queries, hidden)?,
            key: matrix("attn_k", keys, hidden)?,
            value: matrix("attn_v", keys, hidden)?,
            bias: match header.tensors.contains_key(name("attn_q.bias").as_str()) {
                true => {
                    Some([bias("attn_q", queries)?, bias("attn_k", keys)?, bias("attn_v", keys)?].concat())
                }
                false => None,
            },
            head_norms: match shape.architecture {
                Architecture::Qwen3 => {
                    Some((norm("attn_q_norm", shape.head_dim)?, norm("attn_k_norm", shape.head_dim)?))
                }
                Architecture::Llama | Architecture::Qwen2 => None,
            },
            attention_output: matrix("attn_output", hidden, queries)?,
            feed_forward_norm: norm("ffn_norm", hidden)?,
            gate: matrix("ffn_gate", wide, hidden)?,
            up: matrix("ffn_up", wide, hidden)?,
            down: matrix("ffn_down", hidden, wide)?,
        })
    }
}
