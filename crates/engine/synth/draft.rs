//! A small model being put together: its sizes, and the tensors that most architectures have.

use super::{Content, Gguf, Kind, Tensor, Value, vocabulary};

#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) feed_forward: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Tokens of more than one character.
    pub(super) tokens: usize,
    pub(super) vocab: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        let (hidden, feed_forward, heads, head_dim) = (256, 512, 8, 32);
        // Makes a vocabulary that is no multiple of the 16 rows of a tile.
        let tokens = 50;
        Self { layers: 3, hidden, feed_forward, heads, kv_heads: 8, head_dim, tokens, vocab: 0 }
    }
}

/// A model being put together.
pub(super) struct Draft {
    pub(super) gguf: Gguf,
    architecture: &'static str,
    pub(super) sizes: Sizes,
    /// Root mean square of what the first layer gets.
    pub(super) stream: f32,
}

impl Draft {
    pub(super) fn new(architecture: &'static str, sizes: Sizes) -> Self {
        let mut draft = Self { gguf: Gguf::default(), architecture, sizes, stream: 1.0 };
        draft.gguf.set("general.architecture", Value::Text(architecture.into()));
        for (key, value) in [
            ("block_count", sizes.layers),
            ("context_length", 1 << 11),
            ("embedding_length", sizes.hidden),
            ("feed_forward_length", sizes.feed_forward),
            ("attention.head_count", sizes.heads),
            ("attention.head_count_kv", sizes.kv_heads),
        ] {
            draft.set(key, Value::Unsigned(value as u32));
        }
        draft.set("attention.layer_norm_rms_epsilon", Value::Float(1e-6));
        draft
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        self.gguf.set(&format!("{}.{key}", self.architecture), value);
    }

    pub(super) fn head_dim(&self) -> Value {
        Value::Unsigned(self.sizes.head_dim as u32)
    }

    pub(super) fn byte_level(&mut self, pre: &str) {
        vocabulary::byte_level(&mut self.gguf, pre, 259 + self.sizes.tokens);
    }

    pub(super) fn sentence_piece(&mut self) {
        vocabulary::sentence_piece(&mut self.gguf, 355 + self.sizes.tokens);
    }

    pub(super) fn add(&mut self, tensor: Tensor) {
        self.gguf.tensors.push(tensor);
    }

    /// `gain`: the standard deviation of the product with a vector whose root mean square is 1.
    pub(super) fn matrix(&mut self, name: &str, rows: usize, columns: usize, gain: f32) {
        let spread = gain / (columns as f32).sqrt();
        self.add(Tensor::matrix(format!("{name}.weight"), Kind::F32, rows, columns, spread));
    }

    /// A matrix whose product is added to the stream: `share` is what it adds, in parts of what was there at first.
    pub(super) fn back(&mut self, name: &str, rows: usize, columns: usize, share: f32) {
        self.matrix(name, rows, columns, share * self.stream);
    }

    /// Embedding and last norm, for as many tokens as the vocabulary has.
    pub(super) fn ends(&mut self, gain: f32) {
        let Some(Value::Texts(tokens)) = self.gguf.get("tokenizer.ggml.tokens") else {
            unreachable!("the vocabulary is made first")
        };
        self.sizes.vocab = tokens.len();
        self.stream = gain / (self.sizes.hidden as f32).sqrt();
        self.matrix("token_embd", self.sizes.vocab, self.sizes.hidden, gain);
        self.add(Tensor::vector("output_norm.weight", self.sizes.hidden, Content::Around(1.0)));
    }

    pub(super) fn norms(&mut self, layer: usize) {
        for part in ["attn_norm", "ffn_norm"] {
            let name = format!("blk.{layer}.{part}.weight");
            self.add(Tensor::vector(name, self.sizes.hidden, Content::Around(1.0)));
        }
    }

    /// Of what each part adds. `scale`: by how much the stream is larger than the embedding.
    pub(super) fn norms_after(&mut self, layer: usize, scale: f32) {
        for part in ["post_attention_norm", "post_ffw_norm"] {
            let name = format!("blk.{layer}.{part}.weight");
            self.add(Tensor::vector(name, self.sizes.hidden, Content::Around(0.12 * scale * self.stream)));
        }
    }

    /// Of queries, keys and values.
    pub(super) fn biases(&mut self, layer: usize) {
        let Sizes { heads, kv_heads, head_dim, .. } = self.sizes;
        for (part, heads) in [("q", heads), ("k", kv_heads), ("v", kv_heads)] {
            let name = format!("blk.{layer}.attn_{part}.bias");
            self.add(Tensor::vector(name, heads * head_dim, Content::Spread(0.7)));
        }
    }

    pub(super) fn head_norms(&mut self, layer: usize) {
        for part in ["attn_q_norm", "attn_k_norm"] {
            let name = format!("blk.{layer}.{part}.weight");
            self.add(Tensor::vector(name, self.sizes.head_dim, Content::Around(1.6)));
        }
    }

    /// `scale`: by how much the stream is larger than the embedding, or what is added is made smaller.
    pub(super) fn attention(&mut self, layer: usize, scale: f32) {
        let Sizes { heads, kv_heads, head_dim, hidden, .. } = self.sizes;
        let name = |part: &str| format!("blk.{layer}.attn_{part}");
        self.matrix(&name("q"), heads * head_dim, hidden, 1.6);
        self.matrix(&name("k"), kv_heads * head_dim, hidden, 1.6);
        self.matrix(&name("v"), kv_heads * head_dim, hidden, 1.0);
        self.back(&name("output"), hidden, heads * head_dim, 0.22 * scale);
    }

    pub(super) fn feed_forward(&mut self, layer: usize, scale: f32) {
        let Sizes { hidden, feed_forward, .. } = self.sizes;
        let name = |part: &str| format!("blk.{layer}.ffn_{part}");
        self.matrix(&name("gate"), feed_forward, hidden, 1.2);
        self.matrix(&name("up"), feed_forward, hidden, 1.2);
        self.back(&name("down"), hidden, feed_forward, 0.15 * scale);
    }

    /// `count` parts of `wide` each, and what chooses among them.
    pub(super) fn experts(&mut self, layer: usize, count: usize, wide: usize) {
        let hidden = self.sizes.hidden;
        // Far enough apart that roundings seldom make another choice.
        self.matrix(&format!("blk.{layer}.{ROUTER}"), count, hidden, 2.0);
        for (part, rows, columns, gain) in [
            ("gate", wide, hidden, 1.2),
            ("up", wide, hidden, 1.2),
            ("down", hidden, wide, 0.15 * self.stream),
        ] {
            let name = format!("blk.{layer}.ffn_{part}_exps");
            self.matrix(&name, count * rows, columns, gain);
            if let Some(tensor) = self.gguf.tensors.last_mut() {
                tensor.shape = vec![columns, rows, count];
            }
        }
    }
}

/// Part of the names of what chooses among experts.
pub(super) const ROUTER: &str = "ffn_gate_inp";
