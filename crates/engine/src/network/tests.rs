use super::kernel::Isa;
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
    let pool = Pool::new(threads, 0).unwrap();
    Network::Kernels(Kernels { isa, ..Kernels::load(&mapping, &header, &shape, 4096, pool).unwrap() })
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
        let got = network.next(&mut sequence, &prompt).unwrap();
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
        let logits = network.next(&mut network.sequence(prompt.len()), &prompt).unwrap();
        let total = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        for (id, expected) in known {
            let got = f64::from(logits[id]) - total;
            assert!((got - expected).abs() < 0.25, "{}: token {id}: {got} {expected}", isa.name());
        }
    }
}

/// Appends `tokens` and gives the logits after each.
fn each(network: &Network, sequence: &mut Sequence, tokens: &[u32]) -> Vec<Vec<f32>> {
    let piece = Piece { sequence, tokens, logits: tokens.len(), hidden: 0 };
    let output = network.forward(&mut [piece]).unwrap().pop().unwrap();
    output.logits.chunks(network.shape().vocab).map(<[f32]>::to_vec).collect()
}

#[test]
fn rows_threads_and_neighbours_do_not_change_a_bit() {
    let prompt: Vec<u32> = prompt().into_iter().cycle().take(120).collect();
    for isa in Isa::supported() {
        let network = network(isa, 1);
        let mut whole = network.sequence(50);
        network.next(&mut whole, &prompt[..50]).unwrap();
        let mut whole = whole.branch(100);
        network.next(&mut whole, &prompt[50..70]).unwrap();
        let expected = each(&network, &mut whole, &prompt[70..]);

        let threads = super::tests::network(isa, 3);
        let mut pieces = threads.sequence(50);
        for token in &prompt[..9] {
            threads.next(&mut pieces, &[*token]).unwrap();
        }
        for chunk in prompt[9..50].chunks(7) {
            threads.next(&mut pieces, chunk).unwrap();
        }
        let (mut one, mut other) = (pieces.branch(100), pieces.branch(30));
        let mut got = Vec::new();
        for chunk in prompt[50..].chunks(10) {
            // Another sequence goes its own way beside it.
            let tokens = &prompt[..chunk.len().min(30 - other.len().saturating_sub(50))];
            let mut pieces = vec![Piece { sequence: &mut one, tokens: chunk, logits: 1, hidden: 0 }];
            if !tokens.is_empty() {
                pieces.insert(0, Piece { sequence: &mut other, tokens, logits: 0, hidden: 2 });
            }
            got = threads.forward(&mut pieces).unwrap().pop().unwrap().logits;
        }
        assert_eq!((one.len(), other.len()), (120, 80));
        assert_eq!(got, *expected.last().unwrap(), "{}", isa.name());
    }
}

#[test]
fn a_branch_shares_what_is_before_it_and_frees_its_own() {
    let network = network(Isa::Portable, 2);
    let prompt = prompt();
    let mut shared = network.sequence(prompt.len());
    network.next(&mut shared, &prompt).unwrap();
    let before = network.sequence_bytes();
    assert_eq!(before, part_bytes(network.shape(), prompt.len()));
    let mut branches: Vec<Sequence> = (0..3).map(|_| shared.branch(16)).collect();
    assert_eq!(network.sequence_bytes(), before + 3 * part_bytes(network.shape(), 16));
    let logits: Vec<_> =
        branches.iter_mut().map(|branch| network.next(branch, &prompt[..4]).unwrap()).collect();
    assert_eq!(logits[0], logits[2]);
    drop((shared, branches));
    assert_eq!(network.sequence_bytes(), 0);
}
