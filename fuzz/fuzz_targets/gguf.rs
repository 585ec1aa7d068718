//! A stranger's GGUF: whatever stands before its weights, opening it gives an error or a model that answers; in time and in
//! little memory.
//!
//! Begins with the headers that the example `synth` writes (`make fuzz`).

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use watchpost_engine::{Control, Model, Options, Prompt, Source, Tokens, gguf};

fuzz_target!(|header: &[u8]| {
    let mut bytes = header.to_vec();
    bytes.resize(header.len().next_multiple_of(32) + WEIGHTS, 0x11);
    let path = file(&bytes);
    let source = Source::file(&path).expect("the file was just written");
    let looks = gguf::inspect(&source).is_ok();
    let tokens = Tokens::read(&source);
    if let Ok(tokens) = &tokens {
        tokens.count_prompt(&Prompt::new("Be brief.", "Is it <|im_end|>?\n\n\t 123"));
    }
    // Grammars take a hundred times as long to prepare as all the rest.
    let sum = header.iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    if tokens.is_ok() && sum.is_multiple_of(16) {
        let options = Options {
            threads: 1,
            context: Some(64),
            memory_limit_bytes: Some(1 << 28),
            ..Options::default()
        };
        if let Ok(mut model) = Model::open(&source, &options) {
            assert!(looks, "what opens can be looked at");
            // Weights of rubbish may give no number at all; that is an error of the request.
            let prompt = Prompt::new("Be brief.", "Is it?");
            let _scores = model.score(&prompt, &["yes", "no"], &Control::unlimited());
        }
    }
});

/// Bytes behind the header that stand for weights.
const WEIGHTS: usize = 1 << 16;

/// One file for all inputs, in memory where the system has such a folder.
fn file(bytes: &[u8]) -> std::path::PathBuf {
    thread_local! {
        static FILE: RefCell<Option<tempfile::NamedTempFile>> = const { RefCell::new(None) };
    }
    FILE.with_borrow_mut(|file| {
        let folder = std::path::Path::new("/dev/shm");
        let folder = if folder.is_dir() { folder.to_owned() } else { std::env::temp_dir() };
        let file =
            file.get_or_insert_with(|| tempfile::NamedTempFile::new_in(folder).expect("a folder for files"));
        std::fs::write(file.path(), bytes).expect("room for a file");
        file.path().to_owned()
    })
}
