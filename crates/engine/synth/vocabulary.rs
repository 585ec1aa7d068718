//! Vocabularies that llama.cpp and we accept: every byte, and as many merges as are asked for.

use super::{Gguf, Value};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// GPT-2's kind, with `size` tokens: 256 bytes, merged letters, three control tokens at the end.
pub(super) fn byte_level(gguf: &mut Gguf, pre: &str, size: usize) {
    let mut tokens: Vec<String> = letters().map(String::from).collect();
    let mut merges = Vec::new();
    for (left, right) in words("Ġ").take(size - 256 - 3) {
        tokens.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
    }
    let plain = tokens.len();
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from));
    let kinds = (0..tokens.len()).map(|i| if i < plain { NORMAL } else { CONTROL }).collect();
    gguf.set("tokenizer.ggml.model", Value::Text("gpt2".into()));
    gguf.set("tokenizer.ggml.pre", Value::Text(pre.into()));
    gguf.set("tokenizer.ggml.tokens", Value::Texts(tokens));
    gguf.set("tokenizer.ggml.token_type", Value::Integers(kinds));
    gguf.set("tokenizer.ggml.merges", Value::Texts(merges));
    gguf.set("tokenizer.ggml.bos_token_id", Value::Unsigned(plain as u32));
    gguf.set("tokenizer.ggml.eos_token_id", Value::Unsigned(plain as u32 + 2));
    gguf.set("tokenizer.ggml.add_bos_token", Value::Flag(false));
}

/// SentencePiece's kind, with `size` tokens: three control tokens, 256 bytes, characters, merged letters.
pub(super) fn sentence_piece(gguf: &mut Gguf, size: usize) {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    let mut kinds = vec![UNKNOWN, CONTROL, CONTROL];
    tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    kinds.extend([BYTE; 256]);
    tokens.push("▁".into());
    tokens.extend(('!'..='~').map(String::from));
    tokens.extend(words("▁").map(|(left, right)| format!("{left}{right}")).take(size - tokens.len()));
    kinds.resize(size, NORMAL);
    // The sooner merged, the better the score.
    let scores = (0..size).map(|i| if i < 259 { 0.0 } else { -((i - 259) as f32) }).collect();
    gguf.set("tokenizer.ggml.model", Value::Text("llama".into()));
    gguf.set("tokenizer.ggml.tokens", Value::Texts(tokens));
    gguf.set("tokenizer.ggml.scores", Value::Floats(scores));
    gguf.set("tokenizer.ggml.token_type", Value::Integers(kinds));
    gguf.set("tokenizer.ggml.bos_token_id", Value::Unsigned(1));
    gguf.set("tokenizer.ggml.eos_token_id", Value::Unsigned(2));
    gguf.set("tokenizer.ggml.unknown_token_id", Value::Unsigned(0));
    gguf.set("tokenizer.ggml.add_bos_token", Value::Flag(true));
}

/// Pairs of pieces to merge: two letters, then three, then four, each with and without a space before it.
fn words(space: &'static str) -> impl Iterator<Item = (String, String)> {
    // By how often they are in English, so that even a small vocabulary shortens a text.
    let letters = || "etaoinshrdlucmwfgypbvkjxqz".chars().map(String::from);
    let two = move || letters().flat_map(move |a| letters().map(move |b| (a.clone(), b)));
    let three = move || two().flat_map(move |(a, b)| letters().map(move |c| (format!("{a}{b}"), c)));
    let four = move || three().flat_map(move |(ab, c)| letters().map(move |d| (format!("{ab}{c}"), d)));
    let spaced = letters().map(move |letter| (space.to_owned(), letter));
    let and_spaced = move |(left, right): (String, String)| {
        [(left.clone(), right.clone()), (format!("{space}{left}"), right)]
    };
    spaced.chain(two().chain(three()).chain(four()).flat_map(and_spaced))
}

/// GPT-2's alphabet for the bytes 0 to 255.
fn letters() -> impl Iterator<Item = char> {
    let mut next = 0x100;
    (0..=255u8).map(move |byte| match char::from(byte) {
        letter @ ('!'..='~' | '\u{a1}'..='\u{ac}' | '\u{ae}'..='\u{ff}') => letter,
        _ => {
            next += 1;
            char::from_u32(next - 1).expect("U+0100 to U+0144 are letters")
        }
    })
}
