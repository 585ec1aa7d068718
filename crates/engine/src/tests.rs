//! The whole engine with the test model.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{Control, GenerateError, LoadError, Model, Options, Prompt, Request, Sampling, Source};

/// The model that `make setup` puts into `models/`.
pub(crate) fn model_path() -> PathBuf {
    let path = std::env::var_os("WATCHPOST_TEST_MODEL").map_or_else(
        || concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/SmolLM2-135M-Instruct.Q4_1.gguf").into(),
        PathBuf::from,
    );
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    path
}

/// One model for all tests: loading it is most of their time.
fn model() -> MutexGuard<'static, Model> {
    static MODEL: OnceLock<Mutex<Model>> = OnceLock::new();
    let open = || Mutex::new(open(&Options::default()));
    MODEL.get_or_init(open).lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn open(options: &Options) -> Model {
    Model::open(&Source::file(model_path()).unwrap(), options).unwrap()
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "title": { "type": "string", "maxLength": 60 },
            "mitigations": { "type": "array", "items": { "type": "string", "maxLength": 40 }, "minItems": 1, "maxItems": 2 },
            "noise": { "type": "boolean" },
        },
        "required": ["title", "mitigations", "noise"],
        "additionalProperties": false,
    })
}

fn alert(text: &str) -> Prompt {
    Prompt::new("You triage security alerts. Answer in JSON.", format!("Alert:\n{text}"))
}

fn request(text: &str) -> Request {
    Request::new(alert(text), schema(), 120)
}

#[test]
fn an_answer_fits_its_schema_and_counts_its_tokens() {
    let mut model = model();
    for text in
        ["200 failed ssh logins for root from 203.0.113.45", "", "{\"title\": 5}", "日本語 \u{0} \u{fffd}"]
    {
        let completion = model.generate(&request(text), &Control::unlimited()).unwrap();
        let answer: Value = serde_json::from_str(&completion.text).unwrap();
        assert!(answer["title"].as_str().unwrap().chars().count() <= 60);
        assert!((1..=2).contains(&answer["mitigations"].as_array().unwrap().len()));
        assert!(answer["noise"].is_boolean());
        let keys: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["title", "mitigations", "noise"], "keys come in the schema's order");
        assert!(!completion.text.contains(": "), "compact: {}", completion.text);
        assert_eq!(completion.prompt_tokens, model.count_prompt_tokens(&alert(text)));
        assert!((1..=120).contains(&completion.completion_tokens));
        assert!(completion.time_to_first_token > Duration::ZERO);
    }
}

#[test]
fn the_same_input_gives_the_same_bytes_with_and_without_the_prefix_cache() {
    let mut cold = open(&Options { prefixes: 0, ..Options::default() });
    let mut warm = model();
    let request = request("sudo: bob : user NOT in sudoers ; COMMAND=/bin/cat /etc/shadow");
    let first = warm.generate(&request, &Control::unlimited()).unwrap();
    let second = warm.generate(&request, &Control::unlimited()).unwrap();
    let without = cold.generate(&request, &Control::unlimited()).unwrap();
    assert!(second.cached_tokens > 0);
    assert_eq!(without.cached_tokens, 0);
    assert_eq!(first.text, second.text);
    assert_eq!(first.text, without.text);
    let scores =
        |model: &mut Model| model.score(&request.prompt, &["true", "false"], &Control::unlimited()).unwrap();
    assert_eq!(scores(&mut warm), scores(&mut cold));
}

#[test]
fn an_evicted_prefix_is_computed_again_to_the_same_bytes() {
    let mut model = open(&Options { prefixes: 1, ..Options::default() });
    let one = Request::new(Prompt::new("Answer in JSON.", "login failed"), schema(), 120);
    let two = Request::new(Prompt::new("Be brief. Answer in JSON.", "login failed"), schema(), 120);
    let first = model.generate(&one, &Control::unlimited()).unwrap();
    assert_eq!(model.generate(&two, &Control::unlimited()).unwrap().cached_tokens, 0);
    let again = model.generate(&one, &Control::unlimited()).unwrap();
    assert_eq!((again.cached_tokens, again.text), (0, first.text));
}

#[test]
fn a_seed_repeats_its_answer() {
    let mut model = model();
    let mut draw = |seed| {
        let sampling = Sampling::Seeded { seed, temperature: 0.9 };
        model.generate(&Request { sampling, ..request("port scan") }, &Control::unlimited()).unwrap().text
    };
    let first = draw(1);
    assert_eq!(first, draw(1));
    assert!((2..6).any(|seed| draw(seed) != first), "a seed makes no difference");
}

#[test]
fn a_deadline_stops_an_answer_within_a_token() {
    let mut model = model();
    let past = Control::until(Instant::now());
    let error = model.generate(&request("scan"), &past).unwrap_err();
    assert!(matches!(error, GenerateError::Deadline { completion_tokens: 0 }), "{error}");
    // The slowest machine does not write 3,000 characters in this time.
    let long = json!({ "type": "string", "minLength": 3000, "maxLength": 3000 });
    let long = Request { schema: long, max_tokens: 3000, ..request("scan") };
    model.generate(&request("scan"), &Control::unlimited()).unwrap();
    let limit = Duration::from_millis(1200);
    let started = Instant::now();
    let error = model.generate(&long, &Control::until(started + limit)).unwrap_err();
    assert!(matches!(error, GenerateError::Deadline { completion_tokens: 1.. }), "{error}");
    assert!(started.elapsed() < limit + Duration::from_millis(500), "{:?}", started.elapsed());
}

#[test]
fn a_cancelled_request_ends_and_the_next_one_works() {
    let mut model = model();
    let control = Control::unlimited();
    let cancel = control.cancel.clone();
    let long = json!({ "type": "string", "minLength": 3000, "maxLength": 3000 });
    let long = Request { schema: long, max_tokens: 3000, ..request("scan") };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            cancel.store(true, Ordering::Relaxed);
        });
        assert!(matches!(model.generate(&long, &control), Err(GenerateError::Cancelled)));
    });
    model.generate(&request("scan"), &Control::unlimited()).unwrap();
}

#[test]
fn an_answer_that_does_not_fit_is_an_error_and_not_half_an_answer() {
    let mut model = model();
    let error =
        model.generate(&Request { max_tokens: 5, ..request("scan") }, &Control::unlimited()).unwrap_err();
    assert!(matches!(error, GenerateError::MaxTokens { max_tokens: 5 }), "{error}");
    let context = model.context();
    let error =
        model.generate(&request(&"failed login ".repeat(context)), &Control::unlimited()).unwrap_err();
    let GenerateError::TooLong { prompt_tokens, max_tokens: 120, context: held } = error else {
        panic!("{error}")
    };
    assert!(prompt_tokens > context && held == context);
}

#[test]
fn a_schema_that_cannot_be_used_says_so() {
    let mut model = model();
    for schema in [json!(5), json!({ "type": "nonsense" }), json!({ "$ref": "#/nowhere" })] {
        let error =
            model.generate(&Request { schema, ..request("scan") }, &Control::unlimited()).unwrap_err();
        assert!(matches!(error, GenerateError::Schema(_)), "{error}");
    }
}

#[test]
fn scores_are_log_probabilities_that_know_english() {
    let mut model = model();
    let mut prompt = Prompt::new("You are helpful.", "What is the capital of France?");
    prompt.answer = "The capital of France is".into();
    let scores = model.score(&prompt, &[" Paris", " Berlin", " banana", ""], &Control::unlimited()).unwrap();
    assert!(scores[..3].iter().all(|score| *score < 0.0));
    assert!(scores[0] > scores[1] && scores[1] > scores[2], "{scores:?}");
    assert_eq!(scores[3], 0.0);
}

#[test]
fn a_model_that_does_not_fit_memory_is_refused_before_it_is_read() {
    let source = Source::file(model_path()).unwrap();
    let started = Instant::now();
    let error = Model::open(&source, &Options { memory_limit_bytes: Some(10 << 20), ..Options::default() });
    let Err(LoadError::Memory { needed_mib, limit_mib: 10, limit: "allowed", .. }) = error else { panic!() };
    assert!(needed_mib > 90);
    assert!(started.elapsed() < Duration::from_millis(500));
}

#[test]
fn a_prefix_that_would_pass_the_memory_limit_is_not_kept() {
    let needed = model().info().memory_bytes_needed;
    let options = Options { context: Some(256), memory_limit_bytes: Some(needed), ..Options::default() };
    let mut roomy = open(&options);
    let floor =
        needed - crate::memory::sequence(roomy.shape(), crate::memory::default_context(roomy.shape()) - 256);
    let mut tight = open(&Options { memory_limit_bytes: Some(floor), ..options });
    let request = Request { max_tokens: 100, ..request("scan") };
    let cached = |model: &mut Model| {
        model.generate(&request, &Control::unlimited()).unwrap();
        model.generate(&request, &Control::unlimited()).unwrap().cached_tokens
    };
    assert!(cached(&mut roomy) > 0);
    let long = Request { prompt: Prompt::new("Answer in JSON.".repeat(24), "scan"), ..request.clone() };
    assert!(tight.count_prompt_tokens(&long.prompt) > 110);
    for _ in 0..2 {
        assert_eq!(tight.generate(&long, &Control::unlimited()).unwrap().cached_tokens, 0);
    }
}

#[test]
fn info_is_what_the_file_says() {
    let info = model().info().clone();
    assert_eq!((info.architecture.as_str(), info.quantization.as_str()), ("llama", "Q4_1"));
    assert_eq!((info.context_length, info.vocab), (8192, 49152));
    assert_eq!(info.licence.as_deref(), Some("apache-2.0"));
    assert_eq!(info.parameters, 134_515_008);
    assert_eq!(info, crate::gguf::inspect(&Source::file(model_path()).unwrap()).unwrap());
}

#[test]
fn a_model_can_be_moved_to_its_own_thread() {
    fn is_send<T: Send>() {}
    is_send::<Model>();
}

#[test]
fn bench_measures_this_machine() {
    let bench = model().bench();
    println!("{bench:?}");
    assert!(bench.prompt_tokens_per_second > 1.0 && bench.decode_tokens_per_second > 1.0);
    assert!(bench.load > Duration::ZERO);
}
