//! The smallest GGUF file that the engine takes for a model, for tests. It cannot answer: it has one tensor.

/// A model of some 1 KB that calls itself `name`.
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
    bytes.extend(1u64.to_le_bytes());
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
    text(&mut bytes, "token_embd.weight");
    bytes.extend(2u32.to_le_bytes());
    bytes.extend(u64::from(HIDDEN).to_le_bytes());
    bytes.extend(VOCAB.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    let weights = u64::from(HIDDEN) * VOCAB;
    bytes.extend((0..weights).flat_map(|n| (n as f32).to_le_bytes()));
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

const HIDDEN: u32 = 32;
const VOCAB: u64 = 4;
