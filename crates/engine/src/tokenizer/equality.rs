//! Our token ids against llama.cpp's on 10,000 lines in many scripts, recorded by `tests/reference/tokens.py`.

use std::path::Path;

use super::*;
use crate::chat::Chat;
use crate::request::Prompt;
use crate::source::Source;
use crate::synth::{Gguf, Value as Entry};

/// As `tokens.py`: the lines, then blocks of 8 lines, joined by `\n` and `\r\n` in turn.
fn texts() -> Vec<String> {
    let corpus = data("corpus.txt");
    let corpus = String::from_utf8(corpus).unwrap();
    let lines: Vec<&str> = corpus.strip_suffix('\n').unwrap().split('\n').collect();
    assert_eq!(lines.len(), 10_000);
    let blocks = lines.chunks(8).enumerate();
    let blocks = blocks.map(|(i, block)| block.join(if i % 2 == 0 { "\n" } else { "\r\n" }));
    lines.iter().map(|line| (*line).to_owned()).chain(blocks).collect()
}

fn data(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/tokenizer/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// FNV-1a of the ids as 32-bit numbers, folded to 16 bits.
fn fold(ids: &[u32]) -> u16 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let value = bytes.fold(0xcbf2_9ce4_8422_2325, hash);
    (value ^ value >> 16 ^ value >> 32 ^ value >> 48) as u16
}

fn compare(kind: &str, encode: impl Fn(&str) -> Vec<u32>) {
    let known = data(&format!("{kind}.bin"));
    let texts = texts();
    assert_eq!(known.len(), 2 * texts.len());
    let different: Vec<(usize, &String)> = texts
        .iter()
        .enumerate()
        .zip(known.as_chunks::<2>().0)
        .filter(|((_, text), known)| fold(&encode(text)) != u16::from_le_bytes(**known))
        .map(|(text, _)| text)
        .collect();
    for (number, text) in different.iter().take(8) {
        println!("{kind}, text {number}: {text:?} became {:?}", encode(text));
    }
    assert!(different.is_empty(), "{kind}: {} of {} texts differ", different.len(), texts.len());
}

/// The test model's vocabulary with another pre-tokenizer.
fn smollm2(pre: &str) -> Tokenizer {
    let mapping = Source::file(crate::tests::model_path()).unwrap().map().unwrap();
    let mut header = Header::read(mapping.path(), &mapping).unwrap();
    header.metadata.insert("tokenizer.ggml.pre", Value::Text(pre.as_bytes()));
    Tokenizer::read(&header, 49152).unwrap()
}

/// The vocabulary of Mistral 7B, a line for each piece, with a blank in front where it is never merged; and behind it `more`
/// tokens of one `kind`.
fn mistral(more: &[&str], kind: i64) -> Gguf {
    let (mut tokens, mut scores, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
    for (id, line) in
        String::from_utf8(data("mistral-pieces.txt")).unwrap().trim_end().split('\n').enumerate()
    {
        let piece = line.strip_prefix(' ');
        tokens.push(piece.unwrap_or(line).to_owned());
        scores.push(match id {
            _ if piece.is_some() => -1e9,
            0..259 => 0.0,
            _ => 259.0 - id as f32,
        });
        kinds.push(match id {
            0 => UNKNOWN,
            1 | 2 => CONTROL,
            3..259 => BYTE,
            _ => NORMAL,
        } as i32);
    }
    tokens.extend(more.iter().map(|token| (*token).to_owned()));
    scores.resize(tokens.len(), 0.0);
    kinds.resize(tokens.len(), kind as i32);
    let mut gguf = Gguf::default();
    gguf.set("tokenizer.ggml.model", Entry::Text("llama".into()));
    gguf.set("tokenizer.ggml.tokens", Entry::Texts(tokens));
    gguf.set("tokenizer.ggml.scores", Entry::Floats(scores));
    gguf.set("tokenizer.ggml.token_type", Entry::Integers(kinds));
    gguf.set("tokenizer.ggml.bos_token_id", Entry::Unsigned(1));
    gguf.set("tokenizer.ggml.eos_token_id", Entry::Unsigned(2));
    gguf
}

fn read(gguf: &Gguf) -> Tokenizer {
    let bytes = gguf.bytes();
    Tokenizer::read(&Header::read(Path::new("mistral"), &bytes).unwrap(), 40_000).unwrap()
}

#[test]
fn byte_level_ids_are_those_of_llama_cpp() {
    for pre in ["smollm", "gpt-2", "llama-bpe", "qwen2", "glm4", "default"] {
        let tokenizer = smollm2(pre);
        compare(pre, |text| tokenizer.encode_data(text));
    }
}

/// llama.cpp has these two with ASCII's capitals only, so the models' own library is the measure.
#[test]
fn ids_of_words_with_capitals_are_those_of_the_models_own_library() {
    for pre in ["gpt-4o", "tekken"] {
        let tokenizer = smollm2(pre);
        compare(pre, |text| tokenizer.encode_data(text));
    }
}

#[test]
fn names_for_the_same_words_are_known() {
    for (name, same) in
        [("refact", "smollm"), ("lfm2", "llama-bpe"), ("phi-2", "gpt-2"), ("llama4", "gpt-4o")]
    {
        let (one, other) = (smollm2(name), smollm2(same));
        for text in texts().iter().step_by(50) {
            assert_eq!(one.encode_data(text), other.encode_data(text), "{name}: {text:?}");
        }
    }
}

#[test]
fn sentence_piece_ids_are_those_of_llama_cpp() {
    let tokenizer = read(&mistral(&[], NORMAL));
    compare("mistral-bare", |text| tokenizer.encode_data(text));
    // llama.cpp puts the space in front; ours comes from the chat template.
    compare("mistral", |text| tokenizer.encode_data(&format!(" {text}")));
}

#[test]
fn much_of_any_one_thing_is_encoded_in_time() {
    let (tokenizer, started) = (read(&mistral(&["  "], USER_DEFINED)), std::time::Instant::now());
    for piece in ["a", "\n", "=", "é", "<unk>", "1", " \u{a0}", "\u{10ffff}"] {
        let text = piece.repeat((1 << 17) / piece.len());
        assert_eq!(tokenizer.decode(&tokenizer.encode_data(&text)), text.as_bytes());
    }
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn tokens_that_are_blanks_are_taken_as_llama_cpp_does() {
    let tokenizer = read(&mistral(&["\n\n", "\n\n\n", "  ", "    ", "\t\t"], USER_DEFINED));
    compare("mistral-blanks", |text| tokenizer.encode_data(text));
}

#[test]
fn whole_chats_have_the_ids_of_llama_cpp() {
    let known: serde_json::Value = serde_json::from_slice(&data("chats.json")).unwrap();
    let zephyr = "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}{{ '<|assistant|>\n' }}";
    let bare =
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}<|assistant|>";
    let mistral_template = "{{ bos_token }}{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('no') }}\
        {% endif %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endfor %}";
    let mut prompt = Prompt::new("You triage alerts.", "Was it an attack?");
    prompt.answer = "The verdict is".into();
    for (architecture, name) in [("llama", "any"), ("phi3", "phi-3")] {
        let controls = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"];
        let mut gguf = mistral(&controls, CONTROL);
        gguf.set("general.architecture", Entry::Text(architecture.into()));
        for (kind, template) in [("mistral", mistral_template), ("zephyr", zephyr), ("bare", bare)] {
            gguf.set("tokenizer.chat_template", Entry::Text(template.into()));
            let bytes = gguf.bytes();
            let header = Header::read(Path::new("mistral"), &bytes).unwrap();
            let tokenizer = Tokenizer::read(&header, 40_000).unwrap();
            let got = Chat::read(&header, &tokenizer).unwrap().encode(&prompt, &tokenizer).tokens;
            let ids = known[name][kind].as_array().unwrap().iter();
            let expected: Vec<u32> = ids.map(|id| id.as_u64().unwrap() as u32).collect();
            let texts = [&got, &expected].map(|ids| String::from_utf8(tokenizer.decode(ids)).unwrap());
            assert_eq!(got, expected, "{architecture}, {kind}: {texts:?}");
        }
    }
}
