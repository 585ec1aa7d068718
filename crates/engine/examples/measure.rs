//! The speed of a model on this machine, in wall time and in processor time (which other programs do not disturb).
//!
//! `cargo run -p watchpost-engine --example measure -- MODEL.gguf [THREADS [ROUNDS]]`
//!
//! With a number of rounds: only prompt and answer speed, the best of so many.

use std::time::Instant;

use serde_json::json;
use watchpost_engine::{Control, Model, Options, Prompt, Request, Source};

/// Seconds that this thread has computed; where the system does not say, zero.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn best(model: &mut Model, rounds: usize) {
    let (mut prompt, mut answer) = (0f64, 0f64);
    for _ in 0..rounds {
        let bench = model.bench();
        prompt = prompt.max(bench.prompt_tokens_per_second);
        answer = answer.max(bench.decode_tokens_per_second);
    }
    println!("best of {rounds}: prompt {prompt:.0}, answer {answer:.1} tokens a second");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let source = Source::file(arguments.next().ok_or("give the path of a GGUF")?)?;
    let threads = arguments.next().map_or(Ok(0), |threads| threads.parse())?;
    let (wall, processor) = (Instant::now(), processor_seconds());
    let mut model = Model::open(&source, &Options { threads, ..Options::default() })?;
    println!(
        "open: {:.3} s, {:.3} s of processor",
        wall.elapsed().as_secs_f64(),
        processor_seconds() - processor
    );
    if let Some(rounds) = arguments.next() {
        return rounds.parse().map(|rounds| best(&mut model, rounds)).map_err(Into::into);
    }
    println!("{:?}", model.bench());

    let system = "You are a security operations analyst. Triage the alert. ".repeat(20);
    let schema = json!({
        "type": "object",
        "properties": {
            "title": { "type": "string", "maxLength": 80 },
            "summary": { "type": "string", "maxLength": 300 },
            "mitigations": { "type": "array", "items": { "type": "string", "maxLength": 100 }, "minItems": 1, "maxItems": 3 },
        },
        "required": ["title", "summary", "mitigations"],
        "additionalProperties": false,
    });
    for round in 0..3 {
        let user =
            "Alert: 200 failed ssh logins for root from 203.0.113.45 to web-01, then one success. ".repeat(6);
        let request = Request::new(Prompt::new(&*system, user), schema.clone(), 400);
        let (wall, processor) = (Instant::now(), processor_seconds());
        let completion = model.generate(&request, &Control::unlimited())?;
        println!(
            "round {round}: {:.3} s, {:.3} s of processor\n{completion:?}",
            wall.elapsed().as_secs_f64(),
            processor_seconds() - processor
        );
    }
    Ok(())
}
