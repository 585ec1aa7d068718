//! The shapes of real models in the mixture of kinds that llama.cpp calls Q4_K_M: for measuring speed.

use super::{Content, Gguf, Kind, Tensor, Value, vocabulary};

/// Names for [`model`].
pub const NAMES: &[&str] = &["qwen3-0.6b", "qwen3-1.7b", "gemma3-270m"];

struct Sizes {
    architecture: &'static str,
    layers: usize,
    hidden: usize,
    feed_forward: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    context: u32,
}

/// The model of this name, `None` where there is none. Sizes: the models' `config.json`.
pub fn model(name: &str) -> Option<Gguf> {
    let qwen3 = Sizes {
        architecture: "qwen3",
        layers: 28,
        hidden: 1024,
        feed_forward: 3072,
        heads: 16,
        kv_heads: 8,
        head_dim: 128,
        vocab: 151_936,
        context: 40_960,
    };
    let gemma3 = Sizes {
        architecture: "gemma3",
        layers: 18,
        hidden: 640,
        feed_forward: 2048,
        heads: 4,
        kv_heads: 1,
        head_dim: 256,
        vocab: 262_144,
        context: 32_768,
    };
    let sizes = match name {
        "qwen3-0.6b" => qwen3,
        "qwen3-1.7b" => Sizes { hidden: 2048, feed_forward: 6144, ..qwen3 },
        "gemma3-270m" => gemma3,
        _ => return None,
    };
    let mut gguf = metadata(name, &sizes);
    let Sizes { hidden, feed_forward, heads, kv_heads, head_dim, .. } = sizes;
    let spread = |columns: usize| 1.0 / (columns as f32).sqrt();
    let mut matrix = |name: String, kind, rows, columns: usize, gain: f32| {
        let kind = whole_blocks(kind, columns);
        gguf.tensors.push(Tensor::matrix(name + ".weight", kind, rows, columns, gain * spread(columns)));
    };
    matrix("token_embd".into(), Kind::Q6K, sizes.vocab, hidden, 2.0);
    for layer in 0..sizes.layers {
        let finer = if has_more_bits(layer, sizes.layers) { Kind::Q6K } else { Kind::Q4K };
        let name = |part: &str| format!("blk.{layer}.{part}");
        matrix(name("attn_q"), Kind::Q4K, heads * head_dim, hidden, 1.4);
        matrix(name("attn_k"), Kind::Q4K, kv_heads * head_dim, hidden, 1.4);
        matrix(name("attn_v"), finer, kv_heads * head_dim, hidden, 1.0);
        matrix(name("attn_output"), Kind::Q4K, hidden, heads * head_dim, 0.3 * spread(hidden));
        matrix(name("ffn_gate"), Kind::Q4K, feed_forward, hidden, 1.2);
        matrix(name("ffn_up"), Kind::Q4K, feed_forward, hidden, 1.2);
        matrix(name("ffn_down"), finer, hidden, feed_forward, 0.3 * spread(hidden));
    }
    let mut norm = |name: String, len| gguf.tensors.push(Tensor::vector(name, len, Content::Around(1.0)));
    norm("output_norm.weight".into(), hidden);
    for layer in 0..sizes.layers {
        for part in ["attn_norm", "ffn_norm"] {
            norm(format!("blk.{layer}.{part}.weight"), hidden);
        }
        for part in ["attn_q_norm", "attn_k_norm"] {
            norm(format!("blk.{layer}.{part}.weight"), head_dim);
        }
        if sizes.architecture == "gemma3" {
            for part in ["post_attention_norm", "post_ffw_norm"] {
                norm(format!("blk.{layer}.{part}.weight"), hidden);
            }
        }
    }
    Some(gguf)
}

fn metadata(name: &str, sizes: &Sizes) -> Gguf {
    let mut gguf = Gguf::default();
    let number = |number: usize| Value::Unsigned(number as u32);
    gguf.set("general.architecture", Value::Text(sizes.architecture.into()));
    gguf.set("general.name", Value::Text(format!("{name}, random weights")));
    gguf.set("general.file_type", Value::Unsigned(15));
    for (key, value) in [
        ("block_count", number(sizes.layers)),
        ("context_length", Value::Unsigned(sizes.context)),
        ("embedding_length", number(sizes.hidden)),
        ("feed_forward_length", number(sizes.feed_forward)),
        ("attention.head_count", number(sizes.heads)),
        ("attention.head_count_kv", number(sizes.kv_heads)),
        ("attention.key_length", number(sizes.head_dim)),
        ("attention.value_length", number(sizes.head_dim)),
        ("attention.layer_norm_rms_epsilon", Value::Float(1e-6)),
        ("rope.freq_base", Value::Float(1_000_000.0)),
    ] {
        gguf.set(&format!("{}.{key}", sizes.architecture), value);
    }
    if sizes.architecture == "gemma3" {
        gguf.set("gemma3.attention.sliding_window", Value::Unsigned(512));
        vocabulary::sentence_piece(&mut gguf, sizes.vocab);
        gguf.set("tokenizer.ggml.add_space_prefix", Value::Flag(false));
    } else {
        vocabulary::byte_level(&mut gguf, "qwen2", sizes.vocab);
    }
    gguf
}

/// llama.cpp's choice of layers that keep 6 bits (`use_more_bits` in llama-quant.cpp).
fn has_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// Rows that are not whole blocks of 256 get the kind that llama.cpp takes instead.
fn whole_blocks(kind: Kind, columns: usize) -> Kind {
    match kind {
        _ if columns.is_multiple_of(kind.block_len()) => kind,
        Kind::Q4K => Kind::Q5_0,
        Kind::Q6K => Kind::Q8_0,
        other => other,
    }
}
