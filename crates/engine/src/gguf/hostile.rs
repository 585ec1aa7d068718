//! Models that lie: each opens to an error that names the key or the tensor, soon, and without the memory it asks for.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::model::{Model, Options};
use crate::synth::{Content, Gguf, Kind as SynthKind, Tensor as SynthTensor, Value as Entry, tiny};

fn open_bytes(bytes: &[u8]) -> Result<(), LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let started = Instant::now();
    let options = Options { threads: 1, memory_limit_bytes: Some(1 << 30), ..Options::default() };
    let source = Source::file(&path).unwrap();
    let result = Model::open(&source, &options).map(|_| ());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}: {result:?}", started.elapsed());
    // A look finds all that is wrong with the weights, and nothing that is not.
    let about_weights = |error: &LoadError| {
        !matches!(
            error,
            LoadError::Tokenizer { .. }
                | LoadError::ChatTemplate { .. }
                | LoadError::Memory { .. }
                | LoadError::BadKey { .. }
                | LoadError::MissingKey { .. }
        )
    };
    match (inspect(&source), &result) {
        (Ok(_), Err(error)) => assert!(!about_weights(error), "a look does not find: {error}"),
        (Err(look), Ok(())) => panic!("it opens, a look finds: {look}"),
        (Err(look), Err(error)) if about_weights(error) => assert_eq!(look.to_string(), error.to_string()),
        _ => {}
    }
    result
}

fn open(gguf: &Gguf) -> Result<(), LoadError> {
    open_bytes(&gguf.bytes())
}

/// Models with everything that every architecture has, in few bytes.
fn models() -> impl Iterator<Item = (&'static str, Gguf)> {
    tiny::NAMES.iter().map(|name| (*name, tiny::model(&format!("{name}-mixed")).unwrap()))
}

/// The error's text, which must hold `what`.
fn expect(result: Result<(), LoadError>, what: &str, about: &str) {
    match result {
        Ok(()) => panic!("{about}: it opens"),
        Err(error) => assert!(error.to_string().contains(what), "{about}: {error}"),
    }
}

#[test]
fn honest_models_open() {
    for (name, gguf) in models() {
        open(&gguf).unwrap_or_else(|error| panic!("{name}: {error}"));
        open(&tiny::least(name).unwrap()).unwrap_or_else(|error| panic!("the least {name}: {error}"));
    }
}

#[test]
fn a_missing_tensor_is_named() {
    // Those that some models of the architecture have and others do not.
    let optional =
        ["output.weight", "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];
    for (name, gguf) in models() {
        for tensor in &gguf.tensors {
            // One layer of each sort is enough.
            let is_late = (3..6).any(|layer| tensor.name.starts_with(&format!("blk.{layer}.")));
            if optional.contains(&tensor.name.as_str()) || is_late {
                continue;
            }
            let mut without = gguf.clone();
            without.tensors.retain(|other| other.name != tensor.name);
            expect(open(&without), &format!("no tensor `{}`", tensor.name), name);
        }
    }
}

#[test]
fn a_tensor_of_a_wrong_shape_or_kind_is_named() {
    for (name, gguf) in models() {
        for i in (0..gguf.tensors.len()).filter(|i| i % 5 == 0 || *i < 12) {
            let tensor = &gguf.tensors[i];
            if tensor.name == "token_embd.weight" {
                continue; // Its rows are the vocabulary, see below.
            }
            let named = format!("tensor `{}`", tensor.name);
            let changes = [
                |shape: &mut Vec<usize>| shape[0] *= 2,
                |shape: &mut Vec<usize>| *shape.last_mut().unwrap() -= 1,
                |shape: &mut Vec<usize>| shape.push(2),
                |shape: &mut Vec<usize>| shape.reverse(),
            ];
            for change in [changes[i % 3], changes[3]] {
                let mut other = gguf.clone();
                change(&mut other.tensors[i].shape);
                other.tensors[i].content = Content::Spread(0.1);
                if other.tensors[i].shape != tensor.shape {
                    expect(open(&other), &named, name);
                }
            }
            if tensor.shape.len() == 1 && tensor.shape[0].is_multiple_of(32) {
                let mut other = gguf.clone();
                (other.tensors[i].kind, other.tensors[i].content) = (SynthKind::Q8_0, Content::Spread(0.1));
                expect(open(&other), &named, name);
            }
        }
    }
}

#[test]
fn a_tensor_that_the_architecture_does_not_have_is_named() {
    for (name, mut gguf) in models() {
        let bias = SynthTensor::vector("blk.0.ffn_down.bias", 256, Content::Spread(0.1));
        gguf.tensors.push(bias);
        expect(open(&gguf), "tensor `blk.0.ffn_down.bias`", name);
    }
    let mut gguf = tiny::model("qwen2").unwrap();
    gguf.tensors.retain(|tensor| tensor.name != "blk.1.attn_q.bias");
    expect(open(&gguf), "no tensor `blk.1.attn_q.bias`", "a bias of three");
}

#[test]
fn a_file_cut_anywhere_is_truncated() {
    for (name, gguf) in models() {
        let bytes = gguf.bytes();
        let data: usize = gguf.tensors.iter().map(|tensor| tensor.bytes().next_multiple_of(32)).sum();
        let header = bytes.len() - data;
        let mut cuts: Vec<usize> = (24..header).step_by(1009).collect();
        let mut end = header;
        for tensor in &gguf.tensors {
            cuts.extend([end, end + 1, end + tensor.bytes() - 1]);
            end += tensor.bytes().next_multiple_of(32);
        }
        for cut in cuts {
            let header = Header::read(std::path::Path::new("cut"), &bytes[..cut]);
            assert!(matches!(header, Err(LoadError::Truncated { .. })), "{name} cut at {cut}");
        }
    }
}

#[test]
fn tensors_that_overlap_are_named() {
    let mut bytes = tiny::model("llama3").unwrap().bytes();
    // The offset of `output_norm.weight` follows its name, its dimensions and its kind.
    let name = b"output_norm.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len() + 4 + 8 + 4;
    bytes[at..at + 8].copy_from_slice(&32u64.to_le_bytes());
    expect(open_bytes(&bytes), "tensor `output_norm.weight`", "overlap");
}

#[test]
fn a_number_out_of_bounds_names_its_key() {
    let numbers = [
        ("block_count", Entry::Unsigned(0)),
        ("block_count", Entry::Unsigned(u32::MAX)),
        ("block_count", Entry::Text("3".into())),
        ("embedding_length", Entry::Unsigned(u32::MAX)),
        ("embedding_length", Entry::Unsigned(31)),
        ("feed_forward_length", Entry::Unsigned(0)),
        ("feed_forward_length", Entry::Unsigned(u32::MAX)),
        ("attention.head_count", Entry::Unsigned(0)),
        ("attention.head_count", Entry::Unsigned(5000)),
        ("attention.head_count", Entry::Unsigned(1 << 31)),
        ("attention.head_count_kv", Entry::Unsigned(7)),
        ("attention.head_count_kv", Entry::Unsigned(1 << 31)),
        ("attention.key_length", Entry::Unsigned(1 << 30)),
        ("attention.key_length", Entry::Unsigned(17)),
        ("attention.value_length", Entry::Unsigned(16)),
        ("context_length", Entry::Unsigned(0)),
        ("rope.dimension_count", Entry::Unsigned(1)),
        ("rope.dimension_count", Entry::Unsigned(1 << 20)),
        ("rope.freq_base", Entry::Float(f32::NAN)),
        ("rope.freq_base", Entry::Float(f32::INFINITY)),
        ("rope.freq_base", Entry::Float(0.0)),
        ("rope.freq_base", Entry::Text("10000".into())),
        ("rope.scaling.type", Entry::Text("yarn".into())),
        ("rope.scaling.type", Entry::Unsigned(1)),
        ("rope.scaling.attn_factor", Entry::Float(f32::NAN)),
        ("attention.layer_norm_rms_epsilon", Entry::Float(f32::NAN)),
        ("attention.layer_norm_rms_epsilon", Entry::Float(-1.0)),
        ("attention.layer_norm_rms_epsilon", Entry::Flag(true)),
        ("expert_count", Entry::Unsigned(513)),
        ("expert_count", Entry::Unsigned(u32::MAX)),
        ("rope.dimension_sections", Entry::Integers(vec![16, 24, 24, 0])),
    ];
    for (name, gguf) in models() {
        let Some(Entry::Text(architecture)) = gguf.get("general.architecture").cloned() else { panic!() };
        for (suffix, value) in &numbers {
            if name == "qwen3moe" && *suffix == "feed_forward_length" {
                continue; // Its experts have a length of their own.
            }
            let suffix = match name {
                "phi2" => suffix.replace("_norm_rms_", "_norm_"),
                _ => (*suffix).to_owned(),
            };
            let mut other = gguf.clone();
            other.set(&format!("{architecture}.{suffix}"), value.clone());
            expect(
                open(&other),
                &format!("`{architecture}.{}", suffix.split('.').next().unwrap()),
                &format!("{name}, {suffix} = {value:?}"),
            );
        }
    }
    for (name, key, value) in [
        ("qwen2", "qwen2.expert_count", Entry::Unsigned(8)),
        ("mixtral", "llama.expert_used_count", Entry::Unsigned(0)),
        ("mixtral", "llama.expert_used_count", Entry::Unsigned(5)),
        ("qwen3moe", "qwen3moe.expert_feed_forward_length", Entry::Unsigned(0)),
        ("gemma3", "gemma3.attention.sliding_window", Entry::Unsigned(0)),
        ("gemma3", "gemma3.attention.sliding_window_pattern", Entry::Text("x".into())),
        ("gemma3", "gemma3.attention.sliding_window_pattern", Entry::Flags(vec![true; 6])),
        ("gemma3", "gemma3.attention.sliding_window_pattern", Entry::Integers(vec![1; 7])),
        ("lfm2", "lfm2.attention.sliding_window", Entry::Unsigned(8)),
        ("gemma3", "gemma3.final_logit_softcapping", Entry::Float(f32::NAN)),
        ("gemma3-linear", "gemma3.rope.scaling.factor", Entry::Float(0.0)),
        ("granite", "granite.logit_scale", Entry::Float(0.0)),
        ("granite", "granite.embedding_scale", Entry::Float(f32::NAN)),
        ("granite", "granite.rope.scaling.finetuned", Entry::Unsigned(0)),
        ("lfm2", "lfm2.shortconv.l_cache", Entry::Unsigned(1 << 30)),
        ("lfm2", "lfm2.shortconv.l_cache", Entry::Unsigned(1)),
        ("lfm2", "lfm2.attention.head_count_kv", Entry::Integers(vec![0; 5])),
        ("lfm2", "lfm2.attention.head_count_kv", Entry::Integers(vec![2; 4])),
        ("lfm2", "lfm2.attention.head_count_kv", Entry::Integers(vec![0, 1, 2, -1, 2])),
        ("lfm2", "lfm2.attention.head_count_kv", Entry::Texts(vec!["2".into(); 5])),
    ] {
        let mut gguf = tiny::model(name).unwrap();
        gguf.set(key, value);
        expect(open(&gguf), &format!("`{key}"), name);
    }
}

#[test]
fn a_context_without_end_is_refused_for_its_memory() {
    for (name, mut gguf) in models() {
        let Some(Entry::Text(architecture)) = gguf.get("general.architecture").cloned() else { panic!() };
        gguf.set(&format!("{architecture}.context_length"), Entry::Unsigned(1 << 31));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, gguf.bytes()).unwrap();
        let source = Source::file(&path).unwrap();
        // What a model may have by default is little, whatever the file says.
        Model::open(&source, &Options { threads: 1, ..Options::default() }).unwrap();
        let options = Options { threads: 1, context: Some(1 << 31), ..Options::default() };
        let error = Model::open(&source, &options).err();
        assert!(matches!(error, Some(LoadError::Memory { .. })), "{name}: {error:?}");
    }
}

#[test]
fn a_tokenizer_of_rubbish_is_an_error_or_harmless() {
    let texts = |gguf: &Gguf, key: &str| match gguf.get(key) {
        Some(Entry::Texts(texts)) => texts.clone(),
        other => panic!("{key}: {other:?}"),
    };
    let change = |name: &str, what: &str, change: &dyn Fn(&mut Gguf)| {
        let mut gguf = tiny::model(name).unwrap();
        change(&mut gguf);
        expect(open(&gguf), what, &format!("{name}, {what}"));
    };
    let lists = |kind: i32, len: usize| Entry::Integers(vec![kind; len]);
    for (name, _) in models() {
        change(name, "`tokenizer.ggml.tokens`", &|g| {
            g.metadata.retain(|(key, _)| key != "tokenizer.ggml.tokens")
        });
        change(name, "tokens", &|g| g.set("tokenizer.ggml.tokens", Entry::Texts(vec![])));
        change(name, "tokens", &|g| g.set("tokenizer.ggml.tokens", Entry::Texts(vec!["a".into(); 1000])));
        change(name, "token", &|g| g.set("tokenizer.ggml.tokens", lists(1, 309)));
        change(name, "token types", &|g| g.set("tokenizer.ggml.token_type", lists(1, 7)));
        change(name, "token types", &|g| {
            g.set("tokenizer.ggml.token_type", Entry::Texts(vec!["1".into(); 309]))
        });
        change(name, "`tokenizer.ggml.model`", &|g| {
            g.set("tokenizer.ggml.model", Entry::Text("bert".into()))
        });
        change(name, "`tokenizer.ggml.model`", &|g| g.set("tokenizer.ggml.model", Entry::Unsigned(2)));
        change(name, "`tokenizer.ggml.eos_token_id`", &|g| {
            g.set("tokenizer.ggml.eos_token_id", Entry::Unsigned(1 << 20));
        });
        change(name, "`tokenizer.ggml.add_bos_token`", &|g| {
            g.set("tokenizer.ggml.add_bos_token", Entry::Unsigned(1))
        });
        change(name, "chat template", &|g| g.set("tokenizer.chat_template", Entry::Text("{{ x ".into())));
        change(name, "chat template", &|g| {
            g.set(
                "tokenizer.chat_template",
                Entry::Text("{% for i in range(99999999) %}x{% endfor %}".into()),
            );
        });
        change(name, "chat template", &|g| {
            let text = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
            g.set("tokenizer.chat_template", Entry::Text(text.into()));
        });
    }
    for scores in [Entry::Floats(vec![0.0; 3]), Entry::Texts(vec![]), Entry::Unsigned(1)] {
        change("mistral", "score", &|g| g.set("tokenizer.ggml.scores", scores.clone()));
    }
    change("llama3", "merges", &|g| g.metadata.retain(|(key, _)| key != "tokenizer.ggml.merges"));
    change("llama3", "merge", &|g| g.set("tokenizer.ggml.merges", lists(1, 3)));
    change("llama3", "is not a pair", &|g| g.set("tokenizer.ggml.merges", Entry::Texts(vec!["ab".into()])));
    change("llama3", "`tokenizer.ggml.pre`", &|g| g.set("tokenizer.ggml.pre", Entry::Flag(true)));
    change("llama3", "pre-tokenizer `", &|g| g.set("tokenizer.ggml.pre", Entry::Text("x\n\u{1b}[2J".into())));

    // Merges that lead nowhere, in circles or to themselves; scores that are no numbers; tokens that are there twice.
    for merges in [
        vec![" a", "a ", " ", "  ", "a b c", "e t", "e t", "et e", "e te", "\u{0} \u{0}"],
        vec!["<|im_start|> <|im_end|>", "< |im_start|>", "<| im_start|>"],
    ] {
        let mut gguf = tiny::model("llama3").unwrap();
        let all = texts(&gguf, "tokenizer.ggml.merges");
        gguf.set(
            "tokenizer.ggml.merges",
            Entry::Texts(merges.iter().map(|m| (*m).to_owned()).chain(all).collect()),
        );
        open(&gguf).unwrap();
    }
    for name in ["llama3", "mistral"] {
        let mut gguf = tiny::model(name).unwrap();
        let mut tokens = texts(&gguf, "tokenizer.ggml.tokens");
        let count = tokens.len();
        tokens[270..300].fill(String::new());
        tokens[260..270].fill("e".into());
        tokens[300] = "x".repeat(100_000);
        gguf.set("tokenizer.ggml.tokens", Entry::Texts(tokens));
        gguf.set("tokenizer.ggml.scores", Entry::Floats(vec![f32::NAN; count]));
        open(&gguf).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_chat_template_that_would_take_any_amount_of_memory_is_refused() {
    let doubled =
        "{% set n = namespace(x='<>') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}";
    for template in [
        format!("{doubled}{{{{ n.x }}}}"),
        "{{ 'x' * 2000000000 }}".to_owned(),
        "{{ ['x'] * 2000000000 }}".to_owned(),
        "{% set x = 'x' * 1000000 %}{{ x.replace('x', x) }}".to_owned(),
        "{% set x = 'x' * 30000 %}{{ x.replace('x', x) }}".to_owned(),
        "{% set x = 'x' * 30000 %}{{ x.replace('', x) }}".to_owned(),
        "{{ ('x' * 30000000).split('x') | length }}".to_owned(),
        "{{ 'x' * 100000 }}{% for m in messages %}{{ m.content }}{% endfor %}".to_owned(),
    ] {
        let mut gguf = tiny::model("llama3").unwrap();
        gguf.set("tokenizer.chat_template", Entry::Text(template.clone()));
        expect(open(&gguf), "chat template", &template);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The fuzz target `gguf` goes on from here.
    #[test]
    fn no_mutated_model_panics(
        model in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = tiny::least(tiny::NAMES[model.index(tiny::NAMES.len())]).unwrap().bytes();
        // Most of a model is weights, and every change of those is harmless.
        let header = bytes.windows(10).position(|window| window == b"token_embd").unwrap() + 1000;
        for (at, byte) in changes {
            bytes[at.index(header)] = byte;
        }
        let _opened = open_bytes(&bytes);
    }
}
