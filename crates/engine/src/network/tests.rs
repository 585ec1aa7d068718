use super::reference::Reference;
use super::*;
use crate::source::{Mapping, Source};

fn mapping() -> Mapping {
    Source::file(crate::tests::model_path()).unwrap().map().unwrap()
}

fn network(isa: Isa, threads: usize) -> Network {
    let mapping = mapping();
    let header = Header::read(mapping.path(), &mapping).unwrap();
    let shape = Shape::read(&header).unwrap();
    Network { isa, ..Network::load(&header, &shape, threads).unwrap() }
}

/// `<|im_start|>system\nYou triage alerts.<|im_end|>\n...`, from `tests/data/tokens.json`.
fn prompt() -> Vec<u32> {
    let known: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/data/tokens.json")).unwrap();
    known["chat"]["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn relative(got: &[f32], expected: &[f32]) -> f64 {
    let error: f64 = got.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let size: f64 = expected.iter().map(|x| f64::from(*x).powi(2)).sum();
    (error / size).sqrt()
}

fn greatest(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

#[test]
fn logits_are_within_two_percent_of_candles() {
    let mapping = mapping();
    let header = Header::read(mapping.path(), &mapping).unwrap();
    let mut reference = Reference::load(&mapping, &header).unwrap();
    let prompt = prompt();
    let expected = reference.forward(&prompt).unwrap();
    for isa in Isa::supported() {
        let network = network(isa, 1);
        let mut sequence = network.sequence(prompt.len());
        let got = network.forward(&mut sequence, &prompt);
        let relative = relative(&got, &expected);
        println!("{}: relative L2 {relative:.5}", isa.name());
        assert!(relative < 0.02, "{}: {relative}", isa.name());
        assert_eq!(greatest(&got), greatest(&expected));
    }
}

#[test]
fn the_five_likeliest_words_are_those_of_llama_cpp() {
    // Log-probabilities that llama.cpp gives after this prompt.
    let known = [(49, -1.5547), (504, -1.5690), (1348, -2.1894), (33, -3.6685), (2068, -3.8934)];
    let prompt = prompt();
    for isa in Isa::supported() {
        let network = network(isa, 1);
        let logits = network.forward(&mut network.sequence(prompt.len()), &prompt);
        let total = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        for (id, expected) in known {
            let got = f64::from(logits[id]) - total;
            assert!((got - expected).abs() < 0.25, "{}: token {id}: {got} {expected}", isa.name());
        }
    }
}

#[test]
fn pieces_threads_and_copies_do_not_change_a_bit() {
    let prompt: Vec<u32> = prompt().into_iter().cycle().take(150).collect();
    for isa in Isa::supported() {
        let network = network(isa, 1);
        let mut whole = network.sequence(160);
        network.append(&mut whole, &prompt[..100]);
        let expected = network.forward_each(&mut whole, &prompt[100..]);

        let mut pieces = network.sequence(60);
        let mut got = Vec::new();
        for token in &prompt[..9] {
            got = network.forward(&mut pieces, &[*token]);
        }
        assert!(got.iter().all(|logit| logit.is_finite()));
        network.append(&mut pieces, &prompt[9..50]);
        let threads = super::tests::network(isa, 3);
        let mut pieces = pieces.fork(160);
        for chunk in prompt[50..].chunks(7) {
            got = threads.forward(&mut pieces, chunk);
        }
        assert_eq!(pieces.len(), 150);
        assert_eq!(got, *expected.last().unwrap(), "{}", isa.name());
    }
}
