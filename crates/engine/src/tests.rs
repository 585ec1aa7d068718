//! The whole engine with the test model.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    Answer, Control, GenerateError, LoadError, Model, Options, Prompt, Question, Request, Sampling, Scoring,
    Service, Source, Task, Ticket,
};

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
        assert_eq!(completion.prompt_tokens, model.tokens().count_prompt(&alert(text)));
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
    // No machine writes 20,000 characters, or 3,000 tokens, in this time.
    let long = json!({ "type": "string", "minLength": 20_000, "maxLength": 20_000 });
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
    let long = json!({ "type": "string", "minLength": 20_000, "maxLength": 20_000 });
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

/// A model that may keep `contexts` times the keys and values of its context of 256 tokens.
fn tight(contexts: f64) -> Model {
    let context = |model: &Model, tokens| crate::memory::sequence(model.network().shape(), tokens);
    let model = model();
    let needed = model.info().memory_bytes_needed;
    let weights = needed - context(&model, crate::memory::default_context(model.network().shape()));
    let limit = weights + (contexts * context(&model, 256) as f64) as u64;
    open(&Options { context: Some(256), memory_limit_bytes: Some(limit), ..Options::default() })
}

#[test]
fn prefixes_give_way_to_a_request_that_needs_their_memory() {
    let long = |text: &str| Request {
        max_tokens: 100,
        ..Request::new(Prompt::new(text.repeat(24), "scan"), schema(), 100)
    };
    let (one, other) = (long("Answer in JSON."), long("Reply in JSON."));
    let cached =
        |model: &mut Model, request| model.generate(request, &Control::unlimited()).unwrap().cached_tokens;
    for (contexts, is_kept) in [(3.0, true), (1.0, false)] {
        let mut model = tight(contexts);
        assert!(model.tokens().count_prompt(&one.prompt) > 100);
        assert_eq!(cached(&mut model, &one), 0);
        assert!(cached(&mut model, &one) > 90);
        assert_eq!(cached(&mut model, &other), 0);
        assert_eq!(cached(&mut model, &one) > 90, is_kept);
    }
}

/// Steps until all tasks are done; in the order in which they were.
fn finish(model: &mut Model) -> Vec<(Ticket, Result<Answer, GenerateError>)> {
    let mut finished = Vec::new();
    while !model.is_idle() {
        finished.extend(model.step());
    }
    finished
}

fn text(answer: &Result<Answer, GenerateError>) -> &str {
    match answer {
        Ok(Answer::Completion(completion)) => &completion.text,
        other => panic!("{other:?}"),
    }
}

const ALERTS: [&str; 5] = [
    "200 failed ssh logins for root from 203.0.113.45",
    "sudo: bob : user NOT in sudoers ; COMMAND=/bin/cat /etc/shadow",
    "GET /wp-login.php 404, 300 times in a minute, from 198.51.100.7",
    "new local administrator `svc_backup` on DC01",
    "certificate of mail.example.com expires in 3 days",
];

#[test]
fn answers_written_together_are_those_written_alone() {
    let mut model = model();
    let alone: Vec<String> = ALERTS
        .iter()
        .map(|alert| model.generate(&request(alert), &Control::unlimited()).unwrap().text)
        .collect();
    let mut tickets = Vec::new();
    let mut finished = Vec::new();
    for alert in ALERTS {
        tickets.push(model.submit(Task::Generate(request(alert)), 0, Control::unlimited()));
        // The others have begun when the next one joins.
        (0..7).for_each(|_| finished.extend(model.step()));
    }
    finished.extend(finish(&mut model));
    for (ticket, alone) in tickets.iter().zip(&alone) {
        let (_, answer) = finished.iter().find(|(done, _)| done == ticket).unwrap();
        assert_eq!(text(answer), alone);
    }
}

#[test]
fn guessed_tokens_change_no_answer_and_save_passes() {
    let passes = |drafts| {
        let mut model = open(&Options { drafts, ..Options::default() });
        let mut text = String::new();
        let mut passes = 0;
        for alert in ALERTS {
            let prompt = Prompt {
                answer: format!("The alert says: {}", &alert[..10]),
                ..Prompt::new("Repeat the alert word for word.", format!("{alert}\n{alert}"))
            };
            let request = Request {
                repetition_penalty: 1.0,
                ..Request::new(prompt, json!({ "type": "string", "maxLength": 80 }), 90)
            };
            model.submit(Task::Generate(request), 0, Control::unlimited());
            while !model.is_idle() {
                passes += 1;
                for (_, answer) in model.step() {
                    text += self::text(&answer);
                }
            }
        }
        (text, passes)
    };
    let ((text, one_by_one), (same, guessed)) = (passes(0), passes(8));
    assert_eq!(text, same);
    println!("{one_by_one} passes, {guessed} with guesses");
    assert!(guessed * 4 < one_by_one * 3, "{one_by_one} {guessed}");
}

#[test]
fn what_does_not_fit_beside_the_others_waits_and_is_done() {
    let mut model = tight(2.0);
    let alone = model.generate(&request(ALERTS[0]), &Control::unlimited()).unwrap().text;
    let tickets: Vec<Ticket> =
        (0..8).map(|_| model.submit(Task::Generate(request(ALERTS[0])), 0, Control::unlimited())).collect();
    let most = 2 * crate::memory::sequence(model.network().shape(), 256);
    let mut finished = Vec::new();
    while !model.is_idle() {
        finished.extend(model.step());
        assert!(model.network().sequence_bytes() <= most);
    }
    let order: Vec<Ticket> = finished.iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(order, tickets);
    assert!(finished.iter().all(|(_, answer)| text(answer) == alone));
    // What never fits is an error of its own, and the next is not held up.
    let mut many = scoring(false);
    many.questions[0].candidates = vec!["of several tokens".into(); 100];
    let never = model.submit(Task::Score(many), 0, Control::unlimited());
    let fits = model.submit(Task::Generate(request(ALERTS[0])), 0, Control::unlimited());
    let finished = finish(&mut model);
    assert!(matches!(&finished[0], (ticket, Err(GenerateError::Memory { .. })) if *ticket == never));
    assert_eq!((finished[1].0, text(&finished[1].1)), (fits, &*alone));
}

#[test]
fn the_most_urgent_goes_first_and_scores_do_not_wait_for_answers() {
    let mut model = open(&Options { batch: 2, ..Options::default() });
    let task = || Task::Generate(request(ALERTS[0]));
    let calm: Vec<Ticket> = (0..3).map(|_| model.submit(task(), 1, Control::unlimited())).collect();
    (0..5).for_each(|_| assert!(model.step().is_empty()));
    let urgent = model.submit(task(), 9, Control::unlimited());
    let score = model.submit(Task::Score(scoring(false)), 1, Control::unlimited());
    let order: Vec<Ticket> = finish(&mut model).iter().map(|(ticket, _)| *ticket).collect();
    assert_eq!(order, [score, calm[0], calm[1], urgent, calm[2]]);
}

#[test]
fn a_prompt_that_several_begin_with_is_computed_once() {
    let mut model = open(&Options::default());
    for alert in ALERTS {
        let mut request = request(alert);
        request.prompt.guidance = "Rule: brute force. Its false positives: the backup host.\n".into();
        model.submit(Task::Generate(request), 0, Control::unlimited());
    }
    let cached: Vec<usize> = finish(&mut model)
        .into_iter()
        .map(|(_, answer)| match answer {
            Ok(Answer::Completion(completion)) => completion.cached_tokens,
            other => panic!("{other:?}"),
        })
        .collect();
    let shared = cached.iter().max().unwrap();
    assert!(*shared > 30, "{cached:?}");
    assert_eq!(cached.iter().filter(|cached| *cached == shared).count(), 4, "{cached:?}");
}

#[test]
fn a_system_text_that_was_kept_is_not_computed_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.prefix");
    let options = Options { kept_prefix: Some(path.clone()), ..Options::default() };
    let prompt = Prompt::new("You triage security alerts. Answer in JSON. ".repeat(5), ALERTS[0]);
    let request = Request { prompt, ..request("") };
    let answer = |options: &Options| {
        let completion = open(options).generate(&request, &Control::unlimited()).unwrap();
        (completion.cached_tokens, completion.text)
    };
    let (cached, text) = answer(&options);
    assert_eq!(cached, 0);
    let kept = std::fs::read(&path).unwrap();
    let (cached, same) = answer(&options);
    assert!(cached > 40 && same == text);
    assert_eq!(std::fs::read(&path).unwrap(), kept);
    // Damaged, cut, or of a model that was opened otherwise: computed, and written anew.
    let mut damaged = kept.clone();
    damaged[kept.len() / 2] ^= 1;
    for bytes in [&damaged[..], &kept[..kept.len() - 1], b"", b"other"] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(answer(&options), (0, text.clone()));
        assert_eq!(std::fs::read(&path).unwrap(), kept);
    }
    assert_eq!(answer(&Options { context: Some(1024), ..options.clone() }).0, 0);
    assert_ne!(std::fs::read(&path).unwrap(), kept);
    // Where it cannot be written, nothing is lost but time.
    let nowhere = Options { kept_prefix: Some(folder.path().join("no/such/folder")), ..options };
    assert_eq!(answer(&nowhere), (0, text));
}

fn scoring(hidden: bool) -> Scoring {
    let question = |answer: &str, candidates: &[&str]| Question {
        answer: answer.into(),
        candidates: candidates.iter().map(|text| (*text).into()).collect(),
    };
    Scoring {
        prompt: alert(ALERTS[0]),
        questions: vec![
            question("Severity: ", &["critical", "high", "medium", "low", "informational"]),
            question("It is a ", &["true positive", "false positive"]),
            question("", &[]),
        ],
        hidden,
    }
}

#[test]
fn questions_asked_together_are_answered_as_alone() {
    let mut model = model();
    let scores = model.scores(&scoring(false), &Control::unlimited()).unwrap();
    assert_eq!(scores.log_probabilities.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2, 0]);
    assert!(scores.last_hidden.is_empty() && scores.mean_hidden.is_empty());
    for (question, scores) in scoring(false).questions.into_iter().zip(&scores.log_probabilities) {
        let alone = Scoring { questions: vec![question], ..scoring(false) };
        let alone = model.scores(&alone, &Control::unlimited()).unwrap();
        assert_eq!(alone.log_probabilities[0], *scores);
        assert!(scores.iter().all(|score| *score < 0.0 && score.is_finite()));
    }
}

#[test]
fn a_candidates_score_is_the_sum_over_its_tokens() {
    let mut model = model();
    let score = |model: &mut Model, answer: &str, candidate: &str| {
        let prompt = Prompt { answer: answer.into(), ..alert(ALERTS[0]) };
        model.score(&prompt, &[candidate], &Control::unlimited()).unwrap()[0]
    };
    let parts = ["It", " is", " a", " brute", " force", " attack"];
    let mut expected = 0.0;
    for i in 0..parts.len() {
        expected += score(&mut model, &parts[..i].concat(), parts[i]);
    }
    let got = score(&mut model, "", &parts.concat());
    // Keys and values lie in other parts, which changes the last bit, and that the rounding of activations.
    assert!((got - expected).abs() < 0.02 * expected.abs(), "{got} {expected}");
}

#[test]
fn hidden_states_are_the_same_with_and_without_the_prefix_cache() {
    let mut model = open(&Options::default());
    let first = model.scores(&scoring(true), &Control::unlimited()).unwrap();
    let again = model.scores(&scoring(true), &Control::unlimited()).unwrap();
    assert_eq!((first.last_hidden.len(), first.mean_hidden.len()), (576, 576));
    assert_eq!((&first.last_hidden, &first.mean_hidden), (&again.last_hidden, &again.mean_hidden));
    assert!(again.cached_tokens > first.cached_tokens && again.cached_tokens < first.prompt_tokens / 2);
    // The state after a token depends on all before it, its mean on the user's tokens alone.
    let other = Scoring { prompt: alert(ALERTS[1]), ..scoring(true) };
    let other = model.scores(&other, &Control::unlimited()).unwrap();
    assert_ne!(first.mean_hidden, other.mean_hidden);
    let size = |state: &[f32]| state.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(size(&first.last_hidden) > 1.0 && size(&first.mean_hidden) > 1.0);
    // A long text, whose states come from several passes.
    let long = Scoring { prompt: alert(&ALERTS.concat().repeat(6)), ..scoring(true) };
    assert_eq!(model.scores(&long, &Control::unlimited()).unwrap().mean_hidden.len(), 576);
}

#[test]
fn an_answer_after_its_scores_does_not_read_the_prompt_again() {
    let mut model = open(&Options::default());
    model.scores(&scoring(false), &Control::unlimited()).unwrap();
    let mut follow = Request { prompt: alert(ALERTS[0]), ..request("") };
    follow.prompt.answer = "Severity: high. ".into();
    let completion = model.generate(&follow, &Control::unlimited()).unwrap();
    let before = model.tokens().count_prompt(&alert(ALERTS[0])) - 1;
    assert_eq!(completion.cached_tokens, before);
    assert_eq!(completion.prompt_tokens, before + 1 + model.tokens().count("Severity: high. "));
    let mut cold = open(&Options { prefixes: 0, ..Options::default() });
    assert_eq!(cold.generate(&follow, &Control::unlimited()).unwrap().text, completion.text);
}

#[test]
fn a_service_answers_many_threads_and_stops_when_it_is_dropped() {
    let service = Service::start(open(&Options::default())).unwrap();
    let (sender, answers) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for alert in ALERTS {
            let (service, sender) = (&service, sender.clone());
            scope.spawn(move || {
                let task = Task::Generate(request(alert));
                service.submit(task, 0, Control::unlimited(), move |answer| sender.send(answer).unwrap());
            });
        }
    });
    (0..ALERTS.len()).for_each(|_| drop(text(&answers.recv().unwrap()).to_owned()));
    assert_eq!(service.info().architecture, "llama");
    let sender_late = sender.clone();
    let long = json!({ "type": "string", "minLength": 20_000, "maxLength": 20_000 });
    let long = Request { schema: long, max_tokens: 3000, ..request("scan") };
    service.submit(Task::Generate(long), 0, Control::unlimited(), move |answer| {
        sender_late.send(answer).unwrap();
    });
    drop((service, sender));
    let answers: Vec<_> = answers.iter().collect();
    assert!(matches!(answers[..], [Err(GenerateError::Cancelled)]), "{answers:?}");
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
    let bench = model().bench().unwrap();
    println!("{bench:?}");
    assert!(bench.prompt_tokens_per_second > 1.0 && bench.decode_tokens_per_second > 1.0);
    assert!(bench.load > Duration::ZERO);
}
