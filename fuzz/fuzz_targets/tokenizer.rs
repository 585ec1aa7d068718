//! A stranger's vocabulary, and any text: the tokenizer refuses the vocabulary or counts the text's tokens.
//!
//! The input is a byte that chooses a model, then strings that end with a zero byte: the text, and by turns a token (its
//! first byte is its type), a merge, and the bytes of a score.

#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost_engine::{Prompt, Source, Tokens};

#[path = "../../crates/engine/synth/mod.rs"]
#[allow(dead_code)] // The tests use the rest.
mod synth;

use synth::Value;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let name = synth::tiny::NAMES[usize::from(*first) % synth::tiny::NAMES.len()];
    let mut gguf = synth::tiny::least(name).expect("every name has a model");
    let mut strings = rest.split(|byte| *byte == 0);
    let text = String::from_utf8_lossy(strings.next().unwrap_or_default()).into_owned();
    for (i, string) in strings.enumerate() {
        let place = 260 + i / 3 % 5;
        let text = || String::from_utf8_lossy(string.get(1..).unwrap_or_default()).into_owned();
        for (key, value) in &mut gguf.metadata {
            match (i % 3, key.as_str(), value) {
                (0, "tokenizer.ggml.tokens", Value::Texts(tokens)) => tokens[place] = text(),
                (0, "tokenizer.ggml.token_type", Value::Integers(kinds)) => {
                    kinds[place] = string.first().map_or(1, |byte| i32::from(byte % 8));
                }
                (1, "tokenizer.ggml.merges", Value::Texts(merges)) => merges.insert(0, text()),
                (2, "tokenizer.ggml.scores", Value::Floats(scores)) => {
                    if let Some(bytes) = string.first_chunk() {
                        scores[place] = f32::from_le_bytes(*bytes);
                    }
                }
                _ => {}
            }
        }
    }
    let folder = if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm" } else { "." };
    let file = tempfile::NamedTempFile::new_in(folder).expect("a folder for files");
    // Weights are not read; there only has to be room for them.
    let mut bytes = gguf.header();
    bytes.resize(bytes.len() + (1 << 16), 0);
    std::fs::write(file.path(), bytes).expect("room for a file");
    let source = Source::file(file.path()).expect("the file was just written");
    if let Ok(tokens) = Tokens::read(&source) {
        assert!(tokens.count(&text) <= 4 * text.len(), "a byte becomes at most four, one token each");
        tokens.count_prompt(&Prompt::new("", text));
    }
});
