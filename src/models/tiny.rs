//! A small GGUF file that looks like a model to the engine, for tests. It cannot answer: it has no tokenizer.

/// A model of some 30 KB that calls itself `name`.
pub(crate) fn gguf(name: &str) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    let texts =
        [("general.architecture", "llama"), ("general.name", name), ("general.license", "apache-2.0")];
    let numbers = [
        ("llama.context_length", 128u32),
        ("llama.embedding_length", HIDDEN),
        ("llama.feed_forward_length", HIDDEN),
        ("llama.block_count", 1),
        ("llama.attention.head_count", 1),
    ];
    let square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let mut tensors = vec![("token_embd.weight".to_owned(), vec![HIDDEN, VOCAB])];
    tensors.extend(
        ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"]
            .map(|name| (format!("{name}.weight"), vec![HIDDEN])),
    );
    tensors.extend(square.map(|name| (format!("blk.0.{name}.weight"), vec![HIDDEN, HIDDEN])));
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(((texts.len() + numbers.len()) as u64).to_le_bytes());
    for (key, value) in texts {
        text(&mut bytes, key);
        bytes.extend(8u32.to_le_bytes());
        text(&mut bytes, value);
    }
    for (key, value) in numbers {
        text(&mut bytes, key);
        bytes.extend(4u32.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    let mut offset = 0u64;
    for (name, shape) in &tensors {
        text(&mut bytes, name);
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|len| bytes.extend(u64::from(*len).to_le_bytes()));
        // Floats of 32 bits.
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += 4 * u64::from(shape.iter().product::<u32>());
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend((0..offset / 4).flat_map(|n| (n as f32).to_le_bytes()));
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

const HIDDEN: u32 = 32;
const VOCAB: u32 = 4;
