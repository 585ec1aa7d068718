//! Small models of every architecture, with what makes each of them different.
//!
//! Spreads are such that each part of a layer adds some sixth of what is already there and that logits have a standard
//! deviation of 2 to 3: a wrong formula anywhere moves them by several percent, activations of 8 bits by less than one.
//! (With layers that add more, the roundings of 8 bits alone make 1.5 %, ours as well as llama.cpp's.)

use super::draft::{Draft, ROUTER, Sizes};
use super::{Content, Gguf, Kind, Tensor, Value};

/// Names for [`model`], which also takes each with `-mixed` behind it: weights of every kind in one file, not F32.
pub const NAMES: &[&str] = &[
    "llama3",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3moe",
    "gemma3",
    "gemma3-linear",
    "phi2",
    "phi3",
    "phi3-long",
    "granite",
    "glm4",
    "lfm2",
];

/// The model of this name, `None` where there is none.
pub fn model(name: &str) -> Option<Gguf> {
    match name.strip_suffix("-mixed") {
        Some(base) => architecture(base, |sizes| sizes).map(mixed),
        None => architecture(name, |sizes| sizes),
    }
}

/// The least that is still a model of this name: some 25 KB, to begin fuzzing with.
pub fn least(name: &str) -> Option<Gguf> {
    let least = |sizes: Sizes| Sizes {
        layers: if sizes.layers == 3 { 1 } else { 3 },
        hidden: 32,
        feed_forward: 32,
        heads: 2,
        kv_heads: if sizes.kv_heads == sizes.heads { 2 } else { 1 },
        head_dim: 16,
        tokens: 8,
        ..sizes
    };
    architecture(name, least).map(mixed)
}

fn architecture(name: &str, sizes: impl Fn(Sizes) -> Sizes) -> Option<Gguf> {
    let sizes = &sizes;
    let draft = match name {
        "llama3" => llama3(sizes),
        "mistral" => mistral(sizes),
        "mixtral" => mixtral(sizes),
        "qwen2" => qwen2(sizes),
        "qwen3" => qwen3(sizes),
        "qwen3moe" => qwen3moe(sizes),
        "gemma3" => gemma3(sizes, false),
        "gemma3-linear" => gemma3(sizes, true),
        "phi2" => phi2(sizes),
        "phi3" => phi3(sizes, 1 << 10),
        "phi3-long" => phi3(sizes, 16),
        "granite" => granite(sizes),
        "glm4" => glm4(sizes),
        "lfm2" => lfm2(sizes),
        _ => return None,
    };
    Some(draft.gguf)
}

/// Llama 3: rotations that are slower for the far numbers of a head, the embedding as head.
fn llama3(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let mut draft = Draft::new("llama", sizes(Sizes { kv_heads: 2, ..Sizes::default() }));
    draft.set("rope.freq_base", Value::Float(500_000.0));
    draft.set("rope.dimension_count", draft.head_dim());
    draft.byte_level("llama-bpe");
    draft.ends(2.0);
    let pairs = draft.sizes.head_dim / 2;
    let stretch = (0..pairs).map(|pair| [1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0][pair / 2]).collect();
    draft.add(Tensor::vector("rope_freqs.weight", pairs, Content::Exactly(stretch)));
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.attention(layer, 1.0);
        draft.feed_forward(layer, 1.0);
    }
    draft
}

/// Mistral: heads of a size of their own, a head matrix.
fn mistral(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let mut draft =
        Draft::new("llama", sizes(Sizes { head_dim: 48, heads: 6, kv_heads: 3, ..Sizes::default() }));
    draft.set("attention.key_length", draft.head_dim());
    draft.set("attention.value_length", draft.head_dim());
    draft.set("rope.dimension_count", draft.head_dim());
    draft.sentence_piece();
    draft.ends(2.0);
    draft.matrix("output", draft.sizes.vocab, draft.sizes.hidden, 2.0);
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.attention(layer, 1.0);
        draft.feed_forward(layer, 1.0);
    }
    draft
}

/// Mixtral: a Mistral, each of whose tokens goes through two of four feed-forward parts.
fn mixtral(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let mut draft = Draft::new("llama", sizes(Sizes { kv_heads: 2, ..Sizes::default() }));
    draft.set("rope.dimension_count", draft.head_dim());
    draft.set("rope.freq_base", Value::Float(1_000_000.0));
    draft.set("expert_count", Value::Unsigned(4));
    draft.set("expert_used_count", Value::Unsigned(2));
    draft.sentence_piece();
    draft.ends(2.0);
    draft.matrix("output", draft.sizes.vocab, draft.sizes.hidden, 2.0);
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.attention(layer, 1.0);
        draft.experts(layer, 4, draft.sizes.feed_forward);
    }
    draft
}

/// Qwen 2: queries, keys and values have biases.
fn qwen2(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let mut draft =
        Draft::new("qwen2", sizes(Sizes { kv_heads: 1, heads: 4, head_dim: 64, ..Sizes::default() }));
    draft.set("rope.freq_base", Value::Float(1_000_000.0));
    draft.byte_level("qwen2");
    draft.ends(2.0);
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.attention(layer, 1.0);
        draft.biases(layer);
        draft.feed_forward(layer, 1.0);
    }
    draft
}

/// Qwen 3: queries and keys are normalized, head by head.
fn qwen3(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let mut draft =
        Draft::new("qwen3", sizes(Sizes { head_dim: 64, heads: 6, kv_heads: 2, ..Sizes::default() }));
    draft.set("attention.key_length", draft.head_dim());
    draft.set("attention.value_length", draft.head_dim());
    draft.set("rope.freq_base", Value::Float(1_000_000.0));
    draft.byte_level("qwen2");
    draft.ends(2.0);
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.attention(layer, 1.0);
        draft.head_norms(layer);
        draft.feed_forward(layer, 1.0);
    }
    draft
}

/// Qwen 3 as a mixture: each token goes through three of eight feed-forward parts, which have a size of their own.
fn qwen3moe(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let full = Sizes { head_dim: 64, heads: 6, kv_heads: 2, feed_forward: 256, ..Sizes::default() };
    let mut draft = Draft::new("qwen3moe", sizes(full));
    let each = draft.sizes.feed_forward;
    draft.set("feed_forward_length", Value::Unsigned(3 * each as u32));
    draft.set("attention.key_length", draft.head_dim());
    draft.set("attention.value_length", draft.head_dim());
    draft.set("rope.freq_base", Value::Float(1_000_000.0));
    draft.set("expert_count", Value::Unsigned(8));
    draft.set("expert_used_count", Value::Unsigned(3));
    draft.set("expert_feed_forward_length", Value::Unsigned(each as u32));
    draft.byte_level("qwen2");
    draft.ends(2.0);
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.attention(layer, 1.0);
        draft.head_norms(layer);
        draft.experts(layer, 8, each);
    }
    draft
}

/// Gemma 3: a window of 8 tokens in five layers of six, with rotations of their own; norms after each part too; GELU.
/// Its larger models stretch the rotations of the layers without a window (`linear`).
fn gemma3(sizes: &impl Fn(Sizes) -> Sizes, linear: bool) -> Draft {
    let full = Sizes { layers: 7, head_dim: 64, heads: 4, kv_heads: 1, ..Sizes::default() };
    let mut draft = Draft::new("gemma3", sizes(full));
    draft.set("attention.key_length", draft.head_dim());
    draft.set("attention.value_length", draft.head_dim());
    draft.set("attention.sliding_window", Value::Unsigned(8));
    draft.set("rope.freq_base", Value::Float(1_000_000.0));
    if linear {
        draft.set("rope.scaling.type", Value::Text("linear".into()));
        draft.set("rope.scaling.factor", Value::Float(8.0));
    }
    draft.sentence_piece();
    draft.gguf.set("tokenizer.ggml.add_space_prefix", Value::Flag(false));
    draft.ends(2.0);
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.norms_after(layer, (draft.sizes.hidden as f32).sqrt());
        draft.attention(layer, 1.0);
        draft.head_norms(layer);
        draft.feed_forward(layer, 1.0);
    }
    draft
}

/// Phi 2: attention and feed-forward side by side, after a norm that takes the mean away; biases everywhere; a GELU without a
/// gate; half of a head rotated.
fn phi2(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let mut draft = Draft::new("phi2", sizes(Sizes::default()));
    draft.gguf.metadata.retain(|(key, _)| !key.ends_with("layer_norm_rms_epsilon"));
    draft.set("attention.layer_norm_epsilon", Value::Float(1e-5));
    draft.set("rope.dimension_count", Value::Unsigned(draft.sizes.head_dim as u32 / 2));
    draft.byte_level("phi-2");
    draft.ends(2.0);
    let Sizes { heads, head_dim, hidden, feed_forward, vocab, .. } = draft.sizes;
    let bias = |draft: &mut Draft, name: &str, len: usize, spread: f32| {
        draft.add(Tensor::vector(format!("{name}.bias"), len, Content::Spread(spread)));
    };
    draft.matrix("output", vocab, hidden, 2.0);
    bias(&mut draft, "output", vocab, 0.7);
    bias(&mut draft, "output_norm", hidden, 0.3);
    let share = 0.15 * draft.stream;
    for layer in 0..draft.sizes.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        draft.add(Tensor::vector(name("attn_norm.weight"), hidden, Content::Around(1.0)));
        bias(&mut draft, &name("attn_norm"), hidden, 0.3);
        draft.matrix(&name("attn_qkv"), 3 * heads * head_dim, hidden, 1.6);
        bias(&mut draft, &name("attn_qkv"), 3 * heads * head_dim, 0.7);
        draft.back(&name("attn_output"), hidden, heads * head_dim, 0.15);
        bias(&mut draft, &name("attn_output"), hidden, share);
        draft.matrix(&name("ffn_up"), feed_forward, hidden, 1.2);
        bias(&mut draft, &name("ffn_up"), feed_forward, 0.5);
        draft.back(&name("ffn_down"), hidden, feed_forward, 0.15);
        bias(&mut draft, &name("ffn_down"), hidden, share);
    }
    draft
}

/// Phi 3: fused matrices, three quarters of a head rotated, by factors that depend on whether the context is longer than
/// the `original` one.
fn phi3(sizes: &impl Fn(Sizes) -> Sizes, original: u32) -> Draft {
    let mut draft = Draft::new("phi3", sizes(Sizes { kv_heads: 4, ..Sizes::default() }));
    let pairs = draft.sizes.head_dim * 3 / 8;
    draft.set("rope.dimension_count", Value::Unsigned(2 * pairs as u32));
    draft.set("rope.scaling.original_context_length", Value::Unsigned(original));
    draft.set("rope.scaling.attn_factor", Value::Float(1.19));
    draft.sentence_piece();
    draft.ends(2.0);
    draft.matrix("output", draft.sizes.vocab, draft.sizes.hidden, 2.0);
    let factors = |step: f32| Content::Exactly((0..pairs).map(|pair| 1.0 + pair as f32 * step).collect());
    draft.add(Tensor::vector("rope_factors_short.weight", pairs, factors(0.0625)));
    draft.add(Tensor::vector("rope_factors_long.weight", pairs, factors(1.5)));
    let Sizes { heads, kv_heads, head_dim, hidden, feed_forward, .. } = draft.sizes;
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.matrix(&format!("blk.{layer}.attn_qkv"), (heads + 2 * kv_heads) * head_dim, hidden, 1.6);
        draft.back(&format!("blk.{layer}.attn_output"), hidden, heads * head_dim, 0.12);
        draft.matrix(&format!("blk.{layer}.ffn_up"), 2 * feed_forward, hidden, 1.2);
        draft.back(&format!("blk.{layer}.ffn_down"), hidden, feed_forward, 0.12);
    }
    draft
}

/// Granite: a llama with factors on the embedding, the scores of attention, what each layer adds, and the logits.
fn granite(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let mut draft = Draft::new("granite", sizes(Sizes { kv_heads: 2, ..Sizes::default() }));
    draft.set("rope.dimension_count", draft.head_dim());
    draft.set("embedding_scale", Value::Float(12.0));
    draft.set("attention.scale", Value::Float(0.25));
    draft.set("residual_scale", Value::Float(0.22));
    draft.set("logit_scale", Value::Float(8.0));
    draft.byte_level("refact");
    draft.ends(16.0);
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.attention(layer, 12.0 / 0.22);
        draft.feed_forward(layer, 12.0 / 0.22);
    }
    draft
}

/// GLM 4: norms after each part too, biases, gate and up in one matrix, half of a head rotated.
fn glm4(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let mut draft =
        Draft::new("glm4", sizes(Sizes { heads: 6, kv_heads: 2, head_dim: 64, ..Sizes::default() }));
    draft.set("attention.key_length", draft.head_dim());
    draft.set("attention.value_length", draft.head_dim());
    draft.set("rope.dimension_count", Value::Unsigned(draft.sizes.head_dim as u32 / 2));
    draft.byte_level("glm4");
    draft.ends(2.0);
    draft.matrix("output", draft.sizes.vocab, draft.sizes.hidden, 2.0);
    for layer in 0..draft.sizes.layers {
        draft.norms(layer);
        draft.norms_after(layer, 1.0);
        draft.attention(layer, 1.0);
        draft.biases(layer);
        draft.matrix(&format!("blk.{layer}.ffn_up"), 2 * draft.sizes.feed_forward, draft.sizes.hidden, 1.2);
        draft.back(&format!("blk.{layer}.ffn_down"), draft.sizes.hidden, draft.sizes.feed_forward, 0.15);
    }
    draft
}

/// LFM 2: most layers mix a token with the two before it, by short convolutions; the others attend.
fn lfm2(sizes: &impl Fn(Sizes) -> Sizes) -> Draft {
    let mut draft = Draft::new("lfm2", sizes(Sizes { layers: 5, kv_heads: 2, ..Sizes::default() }));
    let Sizes { layers, hidden, .. } = draft.sizes;
    let attends = |layer: usize| layer > 0 && layer.is_multiple_of(2);
    let kv_heads =
        (0..layers).map(|layer| if attends(layer) { draft.sizes.kv_heads as i32 } else { 0 }).collect();
    draft.set("attention.head_count_kv", Value::Integers(kv_heads));
    draft.set("shortconv.l_cache", Value::Unsigned(3));
    draft.set("rope.freq_base", Value::Float(1_000_000.0));
    draft.byte_level("lfm2");
    draft.ends(2.0);
    if let Some(norm) = draft.gguf.tensor("output_norm.weight") {
        norm.name = "token_embd_norm.weight".into();
    }
    for layer in 0..layers {
        draft.norms(layer);
        if attends(layer) {
            draft.attention(layer, 1.0);
            draft.head_norms(layer);
        } else {
            draft.matrix(&format!("blk.{layer}.shortconv.in_proj"), 3 * hidden, hidden, 1.0);
            let (name, content) = (format!("blk.{layer}.shortconv.conv.weight"), Content::Spread(0.6));
            draft.add(Tensor { name, shape: vec![3, hidden], kind: Kind::F32, content });
            draft.back(&format!("blk.{layer}.shortconv.out_proj"), hidden, hidden, 0.15);
        }
        draft.feed_forward(layer, 1.0);
    }
    draft
}

/// Every kind in turn; rows that are not whole blocks of a kind get the next. Routers stay floats, as in all files.
fn mixed(mut gguf: Gguf) -> Gguf {
    let mut kinds = KINDS.iter().copied().cycle();
    for tensor in &mut gguf.tensors {
        if tensor.shape.len() >= 2 && tensor.shape[0] >= 32 && !tensor.name.contains(ROUTER) {
            let fits = |kind: &Kind| tensor.shape[0].is_multiple_of(kind.block_len());
            tensor.kind = kinds.by_ref().find(fits).expect("every row is whole blocks of Q8_0");
        }
    }
    gguf
}

const KINDS: [Kind; 12] = [
    Kind::Q6K,
    Kind::Q4K,
    Kind::Q4_1,
    Kind::Q5_0,
    Kind::Q8_0,
    Kind::Q4_0,
    Kind::Q5K,
    Kind::F16,
    Kind::Bf16,
    Kind::Q5_1,
    Kind::Q3K,
    Kind::F32,
];
