//! Our logits against llama.cpp's, for every architecture: small models of random weights, recorded by
//! `tests/reference/record.py`.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::kernel::Isa;
use super::*;
use crate::source::Source;
use crate::synth::{self, Content, Gguf, Value as Entry};

/// Of the difference, in parts of llama.cpp's logits: root of the sum of squares over that of theirs.
const BOUND: f64 = 0.01;
/// What `record.py` gives each sequence: more than the original context of `phi3-long`, less than that of `phi3`.
const CONTEXT: usize = 512;

fn reference() -> Json {
    serde_json::from_str(include_str!("../../tests/data/reference/reference.json")).unwrap()
}

/// What llama.cpp computed: the rows that the scenarios ask for, one after the other.
fn recorded(name: &str, vocab: usize) -> Vec<Vec<f32>> {
    let path = format!("{}/tests/data/reference/{name}.bin", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let halves = bytes.as_chunks::<2>().0.iter().map(|half| half::f16::from_le_bytes(*half).to_f32());
    halves.collect::<Vec<_>>().chunks(vocab).map(<[f32]>::to_vec).collect()
}

/// The network of a model of `synth`: first on candle's tensors, then on each instruction set that this machine has.
fn networks(model: &Gguf, sha256: Option<&str>) -> Vec<Network> {
    networks_on(&Isa::supported(), model, sha256)
}

fn networks_on(isas: &[Isa], model: &Gguf, sha256: Option<&str>) -> Vec<Network> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, model.bytes()).unwrap();
    let source = Source::file(&path).unwrap();
    if let Some(sha256) = sha256 {
        assert_eq!(source.sha256().unwrap(), sha256, "`synth` has changed: run `make reference`");
    }
    let mapping = source.map().unwrap();
    let header = Header::read(mapping.path(), &mapping).unwrap();
    let shape = Shape::read(&header).unwrap();
    let load = |isa| {
        let pool = Pool::new(1, 0).unwrap();
        Network::Kernels(Kernels { isa, ..Kernels::load(&mapping, &header, &shape, CONTEXT, pool).unwrap() })
    };
    let device = Network::load_on(candle_core::Device::Cpu, &mapping, &header, &shape, CONTEXT).unwrap();
    [device].into_iter().chain(isas.iter().copied().map(load)).collect()
}

/// The rows of logits that each scenario asks for.
fn run(network: &Network, reference: &Json) -> Vec<(String, Vec<Vec<f32>>)> {
    let mut sequences = BTreeMap::new();
    let scenarios = reference["scenarios"].as_array().unwrap().iter();
    let run = scenarios.map(|scenario| {
        let mut rows = Vec::new();
        for step in scenario["steps"].as_array().unwrap() {
            let parts = step.as_array().unwrap();
            let number = |part: &Json| part["sequence"].as_u64().unwrap();
            let ids = |part: &Json| {
                let ids = part["tokens"].as_array().unwrap().iter();
                ids.map(|id| id.as_u64().unwrap() as u32).collect::<Vec<_>>()
            };
            let tokens: Vec<Vec<u32>> = parts.iter().map(ids).collect();
            let mut taken: Vec<_> = parts
                .iter()
                .map(|part| sequences.remove(&number(part)).unwrap_or_else(|| network.sequence(128)))
                .collect();
            let mut pieces: Vec<_> = parts
                .iter()
                .zip(&tokens)
                .zip(&mut taken)
                .map(|((part, tokens), sequence)| {
                    let logits = part["rows"].as_u64().unwrap() as usize;
                    Piece { sequence, tokens, logits, hidden: 0 }
                })
                .collect();
            for output in network.forward(&mut pieces).unwrap() {
                rows.extend(output.logits.chunks(network.shape().vocab).map(<[f32]>::to_vec));
            }
            sequences.extend(parts.iter().map(number).zip(taken));
        }
        (scenario["name"].as_str().unwrap().to_owned(), rows)
    });
    run.collect()
}

fn relative(got: &[Vec<f32>], expected: &[Vec<f32>]) -> f64 {
    let pairs = || got.iter().flatten().zip(expected.iter().flatten());
    let error: f64 = pairs().map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let size: f64 = pairs().map(|(_, b)| f64::from(*b).powi(2)).sum();
    (error / size).sqrt()
}

fn compare(names: &[&str]) {
    let reference = reference();
    let mut failures = Vec::new();
    for name in names {
        let known = &reference["models"][name];
        let expected = recorded(name, known["vocab"].as_u64().unwrap() as usize);
        for network in networks(&synth::tiny::model(name).unwrap(), known["sha256"].as_str()) {
            let mut at = 0;
            for (scenario, got) in run(&network, &reference) {
                let relative = relative(&got, &expected[at..][..got.len()]);
                at += got.len();
                let line = format!("{name}, {}, {scenario}: relative L2 {relative:.5}", network.kernels());
                println!("{line}");
                if relative.is_nan() || relative >= BOUND {
                    failures.push(line);
                }
            }
            assert_eq!(at, expected.len(), "{name}: every recorded row is compared");
        }
    }
    assert!(failures.is_empty(), "not within {BOUND} of llama.cpp:\n{}", failures.join("\n"));
}

#[test]
fn llamas_logits_are_those_of_llama_cpp() {
    compare(&["llama3", "llama3-mixed", "mistral", "mistral-mixed"]);
}

#[test]
fn qwens_logits_are_those_of_llama_cpp() {
    compare(&["qwen2", "qwen2-mixed", "qwen3", "qwen3-mixed"]);
}

#[test]
fn mixtures_logits_are_those_of_llama_cpp() {
    compare(&["mixtral", "mixtral-mixed", "qwen3moe", "qwen3moe-mixed"]);
}

#[test]
fn gemmas_logits_are_those_of_llama_cpp() {
    compare(&["gemma3", "gemma3-mixed", "gemma3-linear", "gemma3-linear-mixed"]);
}

#[test]
fn phis_logits_are_those_of_llama_cpp() {
    compare(&["phi2", "phi2-mixed", "phi3", "phi3-mixed", "phi3-long", "phi3-long-mixed"]);
}

#[test]
fn granites_glms_and_lfms_logits_are_those_of_llama_cpp() {
    compare(&["granite", "granite-mixed", "glm4", "glm4-mixed", "lfm2", "lfm2-mixed"]);
}

#[test]
fn other_words_for_the_same_make_no_difference() {
    type Change = fn(&mut Gguf);
    let changes: &[(&str, Change)] = &[
        ("gemma3-linear", |gguf| gguf.metadata.retain(|(key, _)| key != "gemma3.rope.scaling.type")),
        ("gemma3-linear", |gguf| {
            gguf.metadata.retain(|(key, _)| key != "gemma3.rope.scaling.factor");
            gguf.set("gemma3.rope.scaling.type", Entry::Text("linear".into()));
            gguf.set("gemma3.rope.scale_linear", Entry::Float(8.0));
        }),
        ("gemma3", |gguf| {
            let list = (1..=7).map(|layer| layer != 6).collect();
            gguf.set("gemma3.attention.sliding_window_pattern", Entry::Flags(list));
        }),
    ];
    let reference = reference();
    for (name, change) in changes {
        let mut model = synth::tiny::model(name).unwrap();
        let same = run(&networks(&model, None).pop().unwrap(), &reference);
        change(&mut model);
        assert_eq!(run(&networks(&model, None).pop().unwrap(), &reference), same, "{name}");
    }
}

/// What `network` gives after 60 tokens, read in three pieces, and read in many, beside another sequence.
fn whole_and_in_pieces(network: &Network) -> (Vec<f32>, Vec<f32>) {
    let tokens: Vec<u32> = (0..60).map(|i| (7 + 31 * i + i * i) % 300).collect();
    // Branches move the last bit, so both have them at the same places.
    let mut whole = network.sequence(20);
    network.next(&mut whole, &tokens[..20]).unwrap();
    let mut whole = whole.branch(13);
    network.next(&mut whole, &tokens[20..33]).unwrap();
    let expected = network.next(&mut whole.branch(27), &tokens[33..]).unwrap();

    let (mut shared, mut got) = (network.sequence(20), Vec::new());
    network.next(&mut shared, &tokens[..20]).unwrap();
    let (mut other, mut sequence) = (shared.branch(10), shared.branch(13));
    network.next(&mut sequence, &tokens[20..33]).unwrap();
    let mut sequence = sequence.branch(27);
    for (i, tokens) in tokens[33..].chunks(4).enumerate() {
        let piece = Piece { sequence: &mut sequence, tokens, logits: 1, hidden: 0 };
        let beside = [i as u32];
        let beside = Piece { sequence: &mut other, tokens: &beside, logits: 0, hidden: 0 };
        got = network.forward(&mut [beside, piece]).unwrap().pop().unwrap().logits;
    }
    assert!(expected.iter().all(|logit| logit.is_finite()));
    (expected, got)
}

#[test]
fn pieces_and_neighbours_do_not_change_a_bit_of_any_model() {
    for name in synth::tiny::NAMES {
        for network in networks(&synth::tiny::model(&format!("{name}-mixed")).unwrap(), None).drain(1..) {
            let (expected, got) = whole_and_in_pieces(&network);
            assert_eq!(got, expected, "{name}, {}", network.kernels());
        }
    }
}

/// Of the two kernels that promise the same bits. Without AMX here, its instructions are emulated.
#[test]
fn amx_gives_the_very_logits_of_avx512() {
    let mut isas = Isa::supported_or_emulated();
    isas.retain(|isa| matches!(isa.name(), "avx512" | "amx"));
    if isas.len() < 2 {
        return;
    }
    for name in ["llama3-mixed", "gemma3-mixed"] {
        let networks = networks_on(&isas, &synth::tiny::model(name).unwrap(), None);
        let [expected, got] = [1, 2].map(|i| whole_and_in_pieces(&networks[i]));
        assert_eq!(got, expected, "{name}");
        assert_eq!(got.0, got.1, "{name}");
    }
}

/// candle adds up in another order for other numbers of rows: the last bits differ, and now and then one of them moves the
/// rounding of an activation to 8 bits, or of a key to 16.
#[test]
fn on_a_device_pieces_and_neighbours_change_no_more_than_roundings() {
    for name in synth::tiny::NAMES {
        for (name, bound) in [(format!("{name}-mixed"), BOUND), ((*name).into(), BOUND / 10.0)] {
            let network = networks(&synth::tiny::model(&name).unwrap(), None).remove(0);
            let (expected, got) = whole_and_in_pieces(&network);
            let relative = relative(&[got], &[expected]);
            println!("{name}, {}: relative L2 {relative:.6}", network.kernels());
            assert!(relative < bound, "{name}: {relative}");
        }
    }
}

#[test]
fn on_a_device_what_is_forgotten_leaves_no_trace() {
    let network = networks(&synth::tiny::model("gemma3").unwrap(), None).remove(0);
    let mut shared = network.sequence(40);
    network.next(&mut shared, &[5; 20]).unwrap();
    let expected = network.next(&mut shared.branch(3), &[7, 8, 9]).unwrap();
    let mut sequence = shared.branch(12);
    network.next(&mut sequence, &[1; 12]).unwrap();
    sequence.forget(12);
    assert_eq!(network.next(&mut sequence, &[7, 8, 9]).unwrap(), expected);
    assert_eq!(network.sequence_bytes(), part_bytes(network.shape(), 40) + part_bytes(network.shape(), 12));
    drop((shared, sequence));
    assert_eq!(network.sequence_bytes(), 0);
}

/// How far the logits go when the file says something else: as far as they would with a wrong formula.
#[test]
fn a_wrong_formula_would_show() {
    type Change = fn(&mut Gguf);
    let changes: &[(&str, &str, Change)] = &[
        ("llama3", "rope base", |gguf| gguf.set("llama.rope.freq_base", Entry::Float(10_000.0))),
        ("llama3", "rope factors", |gguf| fill(gguf, "rope_freqs", 1.0)),
        ("mistral", "rope base", |gguf| gguf.set("llama.rope.freq_base", Entry::Float(1e6))),
        ("qwen2", "bias", |gguf| fill(gguf, ".bias", 0.0)),
        ("qwen3", "norm of queries", |gguf| fill(gguf, "attn_q_norm", 1.6)),
        ("mixtral", "number of experts", |gguf| gguf.set("llama.expert_used_count", Entry::Unsigned(3))),
        ("qwen3moe", "number of experts", |gguf| gguf.set("qwen3moe.expert_used_count", Entry::Unsigned(2))),
        ("qwen3moe", "router", |gguf| fill(gguf, "ffn_gate_inp", 0.1)),
        ("gemma3", "window", |gguf| gguf.set("gemma3.attention.sliding_window", Entry::Unsigned(9))),
        ("gemma3", "pattern", |gguf| gguf.set("gemma3.attention.sliding_window_pattern", Entry::Unsigned(5))),
        ("gemma3", "norm after attention", |gguf| fill(gguf, "post_attention_norm", 0.24)),
        ("gemma3-linear", "rope factor", |gguf| gguf.set("gemma3.rope.scaling.factor", Entry::Float(1.0))),
        ("phi2", "bias of the norm", |gguf| fill(gguf, "attn_norm.bias", 0.0)),
        ("phi2", "bias of attention", |gguf| fill(gguf, "attn_output.bias", 0.0)),
        ("phi2", "bias of feed-forward", |gguf| fill(gguf, "ffn_down.bias", 0.0)),
        ("phi2", "bias of the logits", |gguf| fill(gguf, "output.bias", 0.0)),
        ("phi2", "rotated part", |gguf| gguf.set("phi2.rope.dimension_count", Entry::Unsigned(32))),
        ("phi3", "rope factors", |gguf| fill(gguf, "rope_factors_short", 1.0)),
        ("phi3", "attention factor", |gguf| gguf.set("phi3.rope.scaling.attn_factor", Entry::Float(1.0))),
        ("phi3-long", "rope factors", |gguf| fill(gguf, "rope_factors_long", 1.0)),
        ("granite", "embedding scale", |gguf| gguf.set("granite.embedding_scale", Entry::Float(6.0))),
        ("granite", "attention scale", |gguf| gguf.set("granite.attention.scale", Entry::Float(0.177))),
        ("granite", "residual scale", |gguf| gguf.set("granite.residual_scale", Entry::Float(0.5))),
        ("granite", "logit scale", |gguf| gguf.set("granite.logit_scale", Entry::Float(7.5))),
        ("glm4", "rotated part", |gguf| gguf.set("glm4.rope.dimension_count", Entry::Unsigned(64))),
        ("glm4", "bias", |gguf| fill(gguf, ".bias", 0.0)),
        ("glm4", "norm after feed-forward", |gguf| fill(gguf, "post_ffw_norm", 0.015)),
        ("lfm2", "convolution", |gguf| fill(gguf, "shortconv.conv", 0.6)),
    ];
    let reference = reference();
    let mut hidden = Vec::new();
    for (name, what, change) in changes {
        let expected = recorded(name, reference["models"][name]["vocab"].as_u64().unwrap() as usize);
        let mut model = synth::tiny::model(name).unwrap();
        change(&mut model);
        let network = networks(&model, None).pop().unwrap();
        let got: Vec<_> = run(&network, &reference).into_iter().flat_map(|(_, rows)| rows).collect();
        let line = format!("{name}, another {what}: relative L2 {:.3}", relative(&got, &expected));
        println!("{line}");
        if relative(&got, &expected) < 2.0 * BOUND {
            hidden.push(line);
        }
    }
    assert!(hidden.is_empty(), "these would pass for equal:\n{}", hidden.join("\n"));
}

/// Gives the numbers of all tensors with this in their names one value.
fn fill(gguf: &mut Gguf, part: &str, value: f32) {
    for tensor in gguf.tensors.iter_mut().filter(|tensor| tensor.name.contains(part)) {
        tensor.content = Content::Exactly(vec![value; tensor.elements()]);
    }
}
