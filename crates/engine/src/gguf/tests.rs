use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::model::{Model, Options};

/// Writes GGUF headers, honest and otherwise.
#[derive(Clone)]
struct Builder {
    metadata: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data_bytes: usize,
}

impl Builder {
    /// A llama of one layer that has everything but a tokenizer.
    fn llama() -> Self {
        let mut builder = Self { metadata: Vec::new(), tensors: Vec::new(), data_bytes: 0 };
        builder.text("general.architecture", "llama");
        for (key, value) in [
            ("block_count", 1),
            ("context_length", 64),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ] {
            builder.number(&format!("llama.{key}"), value);
        }
        builder.tensor("token_embd.weight", &[32, 8], 0);
        builder
    }

    fn text(&mut self, key: &str, value: &str) {
        let mut bytes = (value.len() as u64).to_le_bytes().to_vec();
        bytes.extend(value.as_bytes());
        self.set(key, 8, bytes);
    }

    fn number(&mut self, key: &str, value: u32) {
        self.set(key, 4, value.to_le_bytes().to_vec());
    }

    fn set(&mut self, key: &str, kind: u32, bytes: Vec<u8>) {
        self.metadata.retain(|(known, ..)| known != key);
        self.metadata.push((key.into(), kind, bytes));
    }

    fn tensor(&mut self, name: &str, dimensions: &[u64], kind: u32) {
        self.tensors.push((name.into(), dimensions.to_vec(), kind, self.data_bytes as u64));
        self.data_bytes += dimensions.iter().product::<u64>() as usize * 4;
    }

    fn header(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.metadata {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        for (name, dimensions, kind, offset) in &self.tensors {
            bytes.extend((name.len() as u64).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.header();
        bytes.resize(bytes.len().next_multiple_of(32) + self.data_bytes, 0);
        bytes
    }
}

fn read(bytes: &[u8]) -> Result<Shape, LoadError> {
    let header = Header::read(Path::new("model.gguf"), bytes)?;
    Shape::read(&header)
}

fn message(builder: &Builder) -> String {
    read(&builder.bytes()).unwrap_err().to_string()
}

#[test]
fn an_honest_header_is_read() {
    let shape = read(&Builder::llama().bytes()).unwrap();
    assert_eq!((shape.hidden, shape.head_dim, shape.vocab, shape.context), (32, 16, 8, 64));
}

#[test]
fn what_is_not_a_gguf_says_what_it_is() {
    for bytes in [&b""[..], b"PK\x03\x04 zip", b"GGU"] {
        assert!(matches!(read(bytes), Err(LoadError::NotGguf { .. })));
    }
    let message = read(b"<html>").unwrap_err().to_string();
    assert_eq!(
        message,
        "model.gguf: not a GGUF file (it begins with [3c, 68, 74, 6d]): give the path of a model in GGUF format"
    );
    assert!(matches!(read(b"GGUF\x01\0\0\0"), Err(LoadError::Version { version: 1, .. })));
    assert!(matches!(read(b"GGUF\0\0\0\x03"), Err(LoadError::Version { .. })), "big-endian");
}

#[test]
fn a_cut_file_names_the_tensor_and_the_bytes() {
    let bytes = Builder::llama().bytes();
    let error = read(&bytes[..bytes.len() - 1]).unwrap_err();
    let LoadError::Truncated { what, ends_at, file_bytes, .. } = &error else { panic!("{error}") };
    assert_eq!(
        (what.as_str(), *ends_at, *file_bytes),
        ("tensor `token_embd.weight`", bytes.len() as u64, bytes.len() as u64 - 1)
    );
    for len in 4..Builder::llama().header().len() {
        assert!(matches!(read(&bytes[..len]), Err(LoadError::Truncated { .. })), "cut at {len}");
    }
}

#[test]
fn huge_counts_and_lengths_are_refused_without_believing_them() {
    for at in [8, 16] {
        let mut bytes = Builder::llama().bytes();
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(read(&bytes), Err(LoadError::Damaged { .. })), "count at {at}");
    }
    let mut bytes = Builder::llama().bytes();
    bytes[24..32].copy_from_slice(&(u64::MAX - 4).to_le_bytes());
    assert!(matches!(read(&bytes), Err(LoadError::Truncated { ends_at: u64::MAX, .. })), "a key's length");

    let mut builder = Builder::llama();
    let list = |element: u32, len: u64| [&element.to_le_bytes()[..], &len.to_le_bytes()].concat();
    builder.set("tokenizer.ggml.tokens", 9, list(8, u64::MAX));
    assert!(message(&builder).contains("list elements"), "{}", message(&builder));
    builder.set("tokenizer.ggml.tokens", 9, list(12, 1 << 10));
    assert!(matches!(read(&builder.bytes()), Err(LoadError::Truncated { .. })));
    let nested = std::iter::repeat_n(list(9, 1), 100).flatten().collect();
    builder.set("tokenizer.ggml.tokens", 9, nested);
    assert!(message(&builder).contains("unknown value kind 9"), "{}", message(&builder));
}

#[test]
fn impossible_tensors_are_refused() {
    let with = |change: &dyn Fn(&mut Builder)| {
        let mut builder = Builder::llama();
        change(&mut builder);
        message(&builder)
    };
    assert!(with(&|b| b.tensors[0].1 = vec![u64::MAX, 2]).contains("impossible dimension"));
    assert!(with(&|b| b.tensors[0].1 = vec![1 << 40, 1 << 40]).contains("impossible dimension"));
    assert!(with(&|b| b.tensors[0].1 = vec![0, 8]).contains("impossible dimension 0"));
    assert!(with(&|b| b.tensors[0].1 = vec![]).contains("0 dimensions"));
    assert!(with(&|b| b.tensors[0].1 = vec![1; 5]).contains("5 dimensions"));
    assert!(with(&|b| b.tensors[0].3 = u64::MAX - 31).contains("ends at byte"));
    assert!(with(&|b| b.tensors[0].3 = 1).contains("not aligned"));
    assert!(
        with(&|b| (b.tensors[0].1, b.tensors[0].2) = (vec![33, 8], 3))
            .contains("not a multiple of Q4_1's 32")
    );
    assert!(with(&|b| b.tensors.push(b.tensors[0].clone())).contains("is there twice"));
    assert!(with(&|b| b.number("general.alignment", 0)).contains("`general.alignment`"));
    assert!(with(&|b| b.number("general.alignment", 48)).contains("`general.alignment`"));
    let iq4 = with(&|b| b.tensors[0].2 = 23);
    assert!(
        iq4.contains("quantized as IQ4_XS, which is not supported: use one of F32, F16, BF16, Q4_0"),
        "{iq4}"
    );
}

#[test]
fn impossible_shapes_are_refused() {
    for (key, value) in [
        ("attention.head_count", 0),
        ("attention.head_count", 3),
        ("attention.head_count_kv", 0),
        ("attention.key_length", 15),
        ("attention.key_length", 1 << 30),
        ("block_count", 0),
        ("block_count", 1 << 20),
        ("embedding_length", 0),
        ("embedding_length", u32::MAX),
        ("rope.dimension_count", 64),
        ("context_length", 0),
    ] {
        let mut builder = Builder::llama();
        builder.number("llama.attention.head_count_kv", 2);
        builder.number(&format!("llama.{key}"), value);
        assert!(matches!(read(&builder.bytes()), Err(LoadError::BadKey { .. })), "{key} {value}");
    }
    let mut builder = Builder::llama();
    builder.text("llama.block_count", "one");
    assert_eq!(message(&builder), "model.gguf: `llama.block_count` is `one`: a whole number was expected");
    builder.metadata.retain(|(key, ..)| key != "llama.block_count");
    assert!(message(&builder).starts_with("model.gguf: no `llama.block_count` in its metadata"));
}

#[test]
fn an_unknown_architecture_lists_the_known_ones() {
    let mut builder = Builder::llama();
    builder.text("general.architecture", "mamba");
    assert_eq!(
        message(&builder),
        "model.gguf: architecture `mamba` is not supported: use one of llama, qwen2, qwen3, qwen3moe, gemma3, phi2, phi3, granite, glm4, lfm2"
    );
}

#[test]
fn a_header_without_weights_or_tokenizer_does_not_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.gguf");
    std::fs::write(&path, Builder::llama().bytes()).unwrap();
    let error = Model::open(&Source::file(&path).unwrap(), &Options::default()).err().unwrap();
    assert!(matches!(&error, LoadError::MissingKey { key, .. } if key == "tokenizer.ggml.tokens"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_mutated_header_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>(), cuts in any::<bool>()) {
        let mut bytes = Builder::llama().bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        let header = Header::read(Path::new("x"), &bytes);
        if let Ok(header) = &header {
            let _shape = Shape::read(header);
            for value in header.metadata.values() {
                if let Value::Array(array) = value {
                    prop_assert!(array.iter().count() <= bytes.len());
                }
            }
            prop_assert!(header.tensors.values().all(|tensor| tensor.bytes.len() <= bytes.len()));
        }
    }

    #[test]
    fn no_random_metadata_panics(kind in 0u32..14, value in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut builder = Builder::llama();
        builder.set("llama.block_count", kind, value);
        if let Ok(header) = Header::read(Path::new("x"), &builder.bytes()) {
            let _shape = Shape::read(&header);
        }
    }
}
