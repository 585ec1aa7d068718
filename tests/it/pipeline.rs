//! From alert to verdict to delivery: who is read first, who waits how long, and what is said when it goes wrong.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use watchpost::detector::TriagePolicy;
use watchpost::triage::provider::{Completion, Control, Identity, Prompt, Provider, ProviderError};
use watchpost::triage::{Settings, Triage, Triager};

use crate::soc::Soc;

const RUNNER: &str = "
webhooks:
  terminal: {type: stdout, format: json}
detectors:
  five: {name: five minutes, for: 5m, rules: ['*.rule.yml'], webhooks: [terminal]}
";

/// A model that answers when the test lets it, and tells which rules it was asked about.
#[derive(Clone, Default)]
struct Model(Arc<(Mutex<Inside>, Condvar)>);

#[derive(Default)]
struct Inside {
    /// How each next question for prose ends; without one the model waits.
    answers: VecDeque<Result<(), &'static str>>,
    read: Vec<String>,
}

impl Model {
    fn answer(&self, result: Result<(), &'static str>) {
        self.0.0.lock().unwrap().answers.push_back(result);
        self.0.1.notify_all();
    }

    fn read(&self) -> Vec<String> {
        self.0.0.lock().unwrap().read.clone()
    }

    fn triager(&self) -> Triager {
        let model = self.clone();
        Triager::start(Settings::default(), move || Ok(Box::new(model.clone())))
    }
}

impl Provider for Model {
    fn model(&self) -> &Identity {
        static IDENTITY: std::sync::OnceLock<Identity> = std::sync::OnceLock::new();
        IDENTITY.get_or_init(|| Identity { name: "scripted".into(), sha256: "00".into() })
    }

    fn context(&self) -> usize {
        8_192
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len() / 4
    }

    fn complete(
        &mut self,
        prompt: &Prompt,
        _: &Value,
        _: usize,
        control: &Control,
    ) -> Result<Completion, ProviderError> {
        let (inside, woken) = &*self.0;
        let mut inside = inside.lock().unwrap();
        let rule = ["Rule A", "Rule B", "Rule C"].into_iter().find(|rule| prompt.user.contains(rule));
        inside.read.push(rule.unwrap_or("?").to_owned());
        loop {
            if control.cancel.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(ProviderError::Cancelled);
            }
            if let Some(answer) = inside.answers.pop_front() {
                answer.map_err(|reason| ProviderError::Failed(reason.into()))?;
                let text = json!({
                    "title": "A login loop", "summary": "Logins failed.", "explanation": "Many logins failed.",
                    "mitigations": [0], "recommended_action": 0,
                });
                return Ok(Completion {
                    text: text.to_string(),
                    prompt_tokens: 10,
                    cached_tokens: 0,
                    completion_tokens: 5,
                    time_to_first_token: Duration::from_millis(1),
                    prompt_seconds: 0.1,
                    decode_seconds: 0.1,
                });
            }
            inside = woken.wait_timeout(inside, Duration::from_millis(20)).unwrap().0;
        }
    }

    fn score(&mut self, _: &Prompt, candidates: &[&str], _: &Control) -> Result<Vec<f64>, ProviderError> {
        Ok(vec![-1.0; candidates.len()])
    }
}

fn policy(capacity: usize) -> TriagePolicy {
    TriagePolicy { deadline: Duration::from_secs(30), capacity }
}

fn rule(id: &str, level: u8) -> (String, String) {
    let name = id.to_uppercase();
    (format!("{id}.rule.yml"), format!("id: {id}\nname: Rule {name}\nlevel: {level}\nrule: search {id}\n"))
}

async fn soc(model: &Model, capacity: usize, levels: &[(&str, u8)]) -> Soc {
    let files: Vec<_> = levels.iter().map(|(id, level)| rule(id, *level)).collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let soc = Soc::start_with(RUNNER, &files, Some((model.triager(), policy(capacity)))).await;
    // The first look, over the interval before midnight, found nothing.
    soc.datasource.answer_always(json!([{ "user": "root" }]));
    soc.advance(Duration::from_secs(300)).await;
    soc
}

/// Waits (in real time) until `told` holds: the model works on a thread of its own.
async fn until(soc: &Soc, what: &str, told: impl Fn() -> bool) {
    for _ in 0..200 {
        if told() {
            return;
        }
        soc.settle().await;
    }
    panic!("not within seconds: {what}");
}

#[tokio::test(start_paused = true)]
async fn the_most_urgent_alert_is_read_first() {
    let model = Model::default();
    let soc = soc(&model, 10, &[("a", 20), ("b", 90), ("c", 50)]).await;
    for _ in 0..3 {
        model.answer(Ok(()));
    }
    until(&soc, "three verdicts", || soc.printed().len() == 3).await;
    // Whichever was saved first was taken at once; of those that waited, the highest level came first.
    let read = model.read();
    let waited: Vec<&String> = read[1..].iter().collect();
    let levels: Vec<u8> = waited
        .iter()
        .map(|rule| match rule.as_str() {
            "Rule A" => 20,
            "Rule B" => 90,
            _ => 50,
        })
        .collect();
    assert!(levels[0] > levels[1], "{read:?}");
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn detection_does_not_wait_for_the_model() {
    let model = Model::default();
    let soc = soc(&model, 10, &[("a", 60)]).await;
    for _ in 0..5 {
        soc.advance(Duration::from_secs(300)).await;
    }
    assert_eq!(soc.datasource.windows().len(), 7, "{:?} {:?}", soc.datasource.windows(), soc.standing("a"));
    assert_eq!(soc.alerts().len(), 6);
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_goes_out_at_its_deadline_and_the_verdict_follows_as_one_update() {
    let model = Model::default();
    let soc = soc(&model, 10, &[("a", 60)]).await;
    assert!(soc.printed().is_empty(), "held for its verdict");
    soc.advance(Duration::from_secs(31)).await;
    let first = soc.printed();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["triage"], "pending");
    assert!(first[0].get("clickagentic").is_none());
    model.answer(Ok(()));
    until(&soc, "the update", || soc.printed().len() == 2).await;
    let update = &soc.printed()[1];
    assert_eq!(update["alert_id"], first[0]["alert_id"]);
    assert_eq!(update["update"], true);
    assert_eq!(update["triage"], "done");
    assert_eq!(update["clickagentic"]["severity"], "Medium");
    soc.advance(Duration::from_secs(120)).await;
    assert_eq!(soc.printed().len(), 2);
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_triage_is_stored_and_delivered_with_its_reason() {
    let model = Model::default();
    let soc = soc(&model, 10, &[("a", 60)]).await;
    model.answer(Err("the weights are damaged"));
    until(&soc, "the alert", || soc.printed().len() == 1).await;
    assert_eq!(soc.printed()[0]["triage"], "failed");
    assert_eq!(soc.printed()[0]["triage_error"], "the weights are damaged");
    assert!(
        matches!(&soc.alerts()[0].triage, Triage::Failed { reason } if reason == "the weights are damaged")
    );
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_the_least_urgent_goes_without() {
    let model = Model::default();
    let soc = soc(&model, 2, &[("a", 20), ("b", 90), ("c", 50)]).await;
    until(&soc, "one went without", || soc.printed().len() == 1).await;
    let told = &soc.printed()[0];
    assert_eq!((told["rule"]["id"].as_str(), told["triage"].as_str()), (Some("a"), Some("failed")));
    assert!(told["triage_error"].as_str().unwrap().contains("triage.queue"), "{told}");
    assert_eq!(soc.alerts().len(), 3, "and is kept");
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_was_being_read_at_shutdown_waits_for_the_next_start() {
    let model = Model::default();
    let mut soc = soc(&model, 10, &[("a", 60)]).await;
    until(&soc, "the model reads", || model.read().len() == 1).await;
    soc.stop().await;
    assert_eq!(soc.alerts()[0].triage, Triage::Pending);
    assert!(soc.printed().is_empty());
    // The next start has triage turned off: nothing is held for ever.
    soc.datasource.answer_always(json!([]));
    soc.restart_after(Duration::from_secs(5)).await;
    until(&soc, "it is delivered", || soc.printed().len() == 1).await;
    assert_eq!(soc.printed()[0]["triage"], "failed");
    soc.stop().await;
}
