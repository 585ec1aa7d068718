//! From alert to verdict to prose to delivery: who is read first, who waits how long, and what is said when it goes
//! wrong.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use watchpost::detector::TriagePolicy;
use watchpost::pipeline::Reading;
use watchpost::telemetry::METRICS;
use watchpost::triage::budget::{Budget, Purse};
use watchpost::triage::config::Trust;
use watchpost::triage::judge::Judge;
use watchpost::triage::provider::{Call, Completion, Identity, Prompt, Provider, ProviderError, Question};
use watchpost::triage::{Deliver, Settings, Triage, Triager, Verdict};

use crate::soc::Soc;

const RUNNER: &str = "
webhooks:
  terminal: {type: stdout, format: json}
detectors:
  five: {name: five minutes, for: 5m, rules: ['*.rule.yml'], webhooks: [terminal]}
";

/// A model that scores and writes when the test lets it, and tells which rules it was asked about.
#[derive(Clone, Default)]
struct Model {
    inside: Arc<Mutex<Inside>>,
    woken: Arc<Notify>,
}

#[derive(Default)]
struct Inside {
    /// How each next question for prose ends; without one the model writes on.
    answers: VecDeque<Result<(), ProviderError>>,
    /// What it says instead of scores, and how often.
    refusals: VecDeque<ProviderError>,
    holds_scores: bool,
    is_dead: bool,
    /// Rules whose alerts were scored, and those about which it began to write.
    scored: Vec<String>,
    written: Vec<String>,
}

impl Model {
    fn answer(&self, result: Result<(), ProviderError>) {
        self.inside().answers.push_back(result);
        self.woken.notify_waiters();
    }

    /// Lets no score out until [`Model::release_scores`].
    fn hold_scores(&self) {
        self.inside().holds_scores = true;
    }

    fn release_scores(&self) {
        self.inside().holds_scores = false;
        self.woken.notify_waiters();
    }

    fn refuse_scores(&self, error: ProviderError) {
        self.inside().refusals.push_back(error);
    }

    fn scored(&self) -> Vec<String> {
        self.inside().scored.clone()
    }

    fn written(&self) -> Vec<String> {
        self.inside().written.clone()
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap()
    }

    /// The service's default, with one alert or `batch` at a time.
    fn reads(&self, batch: usize) -> Reading {
        let model = self.clone();
        let open = move || {
            model.inside().is_dead = false;
            Ok(Box::new(model.clone()) as Box<dyn Provider>)
        };
        Reading {
            triager: Triager::start(Settings::default(), open),
            judge: watch::Sender::new(Arc::new(Judge::prior())).subscribe(),
            limit: Duration::from_secs(600),
            batch,
            queue: 10,
            purse: Purse::default(),
            deliver: Deliver::Prose,
            trust: Trust::default(),
        }
    }

    fn died(&self, error: ProviderError) -> ProviderError {
        self.inside().is_dead |= matches!(error, ProviderError::Died(_));
        error
    }
}

#[async_trait]
impl Provider for Model {
    fn model(&self) -> &Identity {
        static IDENTITY: std::sync::OnceLock<Identity> = std::sync::OnceLock::new();
        IDENTITY.get_or_init(|| Identity { name: "scripted".into(), sha256: "00".into() })
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.len() / 4
    }

    fn is_alive(&self) -> bool {
        !self.inside().is_dead
    }

    async fn complete(
        &self,
        prompt: &Prompt,
        _: &Value,
        _: usize,
        _: &Call,
    ) -> Result<Completion, ProviderError> {
        self.inside().written.push(rule_of(prompt));
        loop {
            let woken = self.woken.notified();
            let answer = self.inside().answers.pop_front();
            if let Some(answer) = answer {
                answer.map_err(|error| self.died(error))?;
                let text = json!({
                    "title": "Rule of a login", "summary": "The rule matched a user.",
                    "explanation": "The rows have a user.", "mitigations": ["x"], "recommended_action": "x",
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
            woken.await;
        }
    }

    async fn score(
        &self,
        prompt: &Prompt,
        questions: &[Question],
        _: &Call,
    ) -> Result<Vec<Vec<f64>>, ProviderError> {
        let rule = rule_of(prompt);
        if rule != "?" {
            self.inside().scored.push(rule);
            loop {
                let woken = self.woken.notified();
                if !self.inside().holds_scores {
                    break;
                }
                woken.await;
            }
            let refusal = self.inside().refusals.pop_front();
            if let Some(error) = refusal {
                return Err(self.died(error));
            }
        }
        Ok(questions.iter().map(|question| vec![-1.0; question.candidates.len()]).collect())
    }
}

/// `?` where the model is told nothing.
fn rule_of(prompt: &Prompt) -> String {
    let rules = ["Rule A", "Rule B", "Rule C", "Rule D"];
    rules.into_iter().find(|rule| prompt.guidance.contains(rule)).unwrap_or("?").to_owned()
}

fn policy(capacity: usize) -> TriagePolicy {
    TriagePolicy { deadline: Duration::from_secs(30), capacity }
}

fn rule(id: &str, level: u8) -> (String, String) {
    let name = id.to_uppercase();
    (format!("{id}.rule.yml"), format!("id: {id}\nname: Rule {name}\nlevel: {level}\nrule: search {id}\n"))
}

/// At midnight, when nothing has fired.
async fn quiet_soc(reading: Reading, capacity: usize, levels: &[(&str, u8)]) -> Soc {
    let files: Vec<_> = levels.iter().map(|(id, level)| rule(id, *level)).collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    Soc::start_with(RUNNER, &files, Some((reading, policy(capacity)))).await
}

/// Five minutes after midnight, when each rule has fired once.
async fn soc(reading: Reading, capacity: usize, levels: &[(&str, u8)]) -> Soc {
    let soc = quiet_soc(reading, capacity, levels).await;
    soc.datasource.answer_always(json!([{ "user": "root" }]));
    soc.advance(Duration::from_secs(300)).await;
    soc
}

/// Waits (in real time) until `told` holds: the store and the reading of rows have threads of their own.
async fn until(soc: &Soc, what: &str, told: impl Fn() -> bool) {
    for _ in 0..200 {
        if told() {
            return;
        }
        soc.settle().await;
    }
    panic!("not within seconds: {what}");
}

fn triage_of(soc: &Soc, rule: &str) -> Triage {
    let found = soc.alerts().into_iter().find(|stored| stored.alert.rule_id() == rule);
    found.unwrap_or_else(|| panic!("no alert of {rule}")).triage
}

fn is_judged(soc: &Soc, rule: &str) -> bool {
    matches!(triage_of(soc, rule), Triage::Judged { .. })
}

fn done(soc: &Soc, rule: &str) -> Option<Verdict> {
    match triage_of(soc, rule) {
        Triage::Done { verdict } => Some(*verdict),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_burst_the_most_urgent_alert_is_read_first() {
    let model = Model::default();
    model.hold_scores();
    let soc = soc(model.reads(1), 10, &[("a", 20), ("b", 90), ("c", 50), ("d", 60)]).await;
    until(&soc, "all have fired", || soc.alerts().len() == 4).await;
    until(&soc, "one is read", || model.scored().len() == 1).await;
    for _ in 0..4 {
        model.answer(Ok(()));
    }
    model.release_scores();
    until(&soc, "four messages", || soc.printed().len() == 4).await;
    // Whichever was saved first was taken at once; of those that waited, the highest level came first.
    let order = ["Rule B", "Rule D", "Rule C", "Rule A"];
    let first = model.scored().remove(0);
    let waited: Vec<&str> = order.into_iter().filter(|rule| *rule != first).collect();
    assert_eq!(model.scored()[1..], waited);
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_critical_alert_overtakes_those_that_are_being_written_about() {
    let model = Model::default();
    let soc = quiet_soc(model.reads(2), 10, &[("a", 20), ("b", 30), ("c", 40), ("d", 95)]).await;
    soc.datasource.answer_always(json!([{ "user": "root" }]));
    soc.datasource.answer_to("search d", json!([]));
    soc.advance(Duration::from_secs(300)).await;
    until(&soc, "two are written about", || model.written().len() == 2).await;
    until(&soc, "all have their verdict", || ["a", "b", "c"].iter().all(|rule| is_judged(&soc, rule))).await;
    soc.datasource.answer_always(json!([]));
    soc.datasource.answer_to("search d", json!([{ "user": "root" }]));
    soc.advance(Duration::from_secs(300)).await;
    until(&soc, "the critical one has its verdict at once", || {
        soc.alerts().len() == 4 && is_judged(&soc, "d")
    })
    .await;
    assert_eq!(model.written().len(), 2);
    model.answer(Ok(()));
    until(&soc, "somebody gets the free place", || model.written().len() == 3).await;
    assert_eq!(model.written()[2], "Rule D", "{:?}", model.written());
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn detection_does_not_wait_for_the_model() {
    let model = Model::default();
    model.hold_scores();
    let soc = soc(model.reads(8), 10, &[("a", 60)]).await;
    for _ in 0..5 {
        soc.advance(Duration::from_secs(300)).await;
    }
    assert_eq!(soc.datasource.windows().len(), 7, "{:?} {:?}", soc.datasource.windows(), soc.standing("a"));
    assert_eq!(soc.alerts().len(), 6);
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_verdict_is_stored_before_the_prose_and_the_message_waits_for_it() {
    let model = Model::default();
    let soc = soc(model.reads(8), 10, &[("a", 60)]).await;
    until(&soc, "the verdict is stored", || is_judged(&soc, "a")).await;
    until(&soc, "the model writes", || model.written() == ["Rule A"]).await;
    let Triage::Judged { verdict } = triage_of(&soc, "a") else { panic!() };
    assert_eq!(
        (verdict.severity.as_str(), verdict.summary.as_str()),
        ("Medium", "Rule A matched 1 row, all with user root.")
    );
    assert!(verdict.cost.seconds_to_verdict.is_some() && verdict.cost.seconds_to_prose.is_none());
    assert!(soc.printed().is_empty());
    model.answer(Ok(()));
    until(&soc, "the message", || soc.printed().len() == 1).await;
    let message = &soc.printed()[0];
    assert_eq!(
        (&message["triage"], &message["clickagentic"]["summary"]),
        (&json!("done"), &json!("The rule matched a user."))
    );
    let described = done(&soc, "a").unwrap();
    assert_eq!(described.risk_score, verdict.risk_score);
    assert!(described.cost.seconds_to_prose >= described.cost.seconds_to_verdict);
    soc.advance(Duration::from_secs(120)).await;
    assert_eq!(soc.printed().len(), 1);
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_goes_out_at_its_deadline_and_its_verdict_follows_as_one_update() {
    let model = Model::default();
    model.hold_scores();
    let soc = soc(model.reads(8), 10, &[("a", 60)]).await;
    assert!(soc.printed().is_empty(), "held for its verdict");
    soc.advance(Duration::from_secs(31)).await;
    let first = soc.printed();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["triage"], "pending");
    assert!(first[0].get("clickagentic").is_none());
    model.release_scores();
    until(&soc, "the verdict", || is_judged(&soc, "a")).await;
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
async fn late_prose_does_not_hold_the_verdict_beyond_the_deadline_and_follows_as_one_update() {
    let model = Model::default();
    let soc = soc(model.reads(8), 10, &[("a", 60)]).await;
    until(&soc, "the verdict", || is_judged(&soc, "a")).await;
    assert!(soc.printed().is_empty(), "held for its prose");
    soc.advance(Duration::from_secs(31)).await;
    let first = soc.printed();
    assert_eq!((first.len(), &first[0]["triage"]), (1, &json!("judged")));
    assert_eq!(first[0]["clickagentic"]["severity"], "Medium");
    assert_eq!(first[0]["clickagentic"]["summary"], "Rule A matched 1 row, all with user root.");
    model.answer(Ok(()));
    until(&soc, "the update", || soc.printed().len() == 2).await;
    let update = &soc.printed()[1];
    assert_eq!((&update["update"], &update["triage"]), (&json!(true), &json!("done")));
    assert_eq!(update["clickagentic"]["summary"], "The rule matched a user.");
    soc.advance(Duration::from_secs(120)).await;
    assert_eq!(soc.printed().len(), 2);
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn delivering_at_the_verdict_waits_for_no_prose() {
    let model = Model::default();
    let reading = Reading { deliver: Deliver::Verdict, ..model.reads(8) };
    let soc = soc(reading, 10, &[("a", 60)]).await;
    until(&soc, "the verdict's message", || soc.printed().len() == 1).await;
    assert_eq!(soc.printed()[0]["triage"], "judged");
    assert_eq!(soc.printed()[0]["clickagentic"]["severity"], "Medium");
    model.answer(Ok(()));
    until(&soc, "the prose's update", || soc.printed().len() == 2).await;
    assert_eq!((&soc.printed()[1]["update"], &soc.printed()[1]["triage"]), (&json!(true), &json!("done")));
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_does_not_work_takes_no_verdict_away_and_the_verdict_says_so() {
    let model = Model::default();
    model.refuse_scores(ProviderError::Failed("the weights are damaged".into()));
    let soc = soc(model.reads(8), 10, &[("a", 60)]).await;
    model.answer(Err(ProviderError::Failed("the weights are damaged".into())));
    until(&soc, "the alert", || soc.printed().len() == 1).await;
    assert_eq!(soc.printed()[0]["clickagentic"]["severity"], "Medium");
    let verdict = done(&soc, "a").unwrap();
    assert_eq!(verdict.cost.without_model.as_deref(), Some("the weights are damaged"));
    assert_eq!(verdict.cost.model, "");
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_hours_budget_ends_the_models_text_and_no_verdict() {
    let model = Model::default();
    let budget = Budget { medium: Some(1), ..Budget::default() };
    let reading = Reading { purse: Purse::new(budget), ..model.reads(1) };
    let soc = soc(reading, 10, &[("a", 60), ("b", 55)]).await;
    until(&soc, "the model writes", || model.written().len() == 1).await;
    model.answer(Ok(()));
    until(&soc, "both messages", || soc.printed().len() == 2).await;
    let reasons: Vec<_> = ["a", "b"].map(|rule| done(&soc, rule).unwrap().cost.templated).into();
    let spent = "all: 1 alerts of this hour had their text by the model (`triage.budget.medium`)";
    assert!(reasons[0] != [spent] && reasons[1] == [spent], "{reasons:?}");
    assert_eq!(model.written().len(), 1);
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn prose_that_fails_or_comes_too_late_never_loses_the_verdict() {
    let model = Model::default();
    let soc = soc(model.reads(8), 10, &[("a", 60), ("b", 60)]).await;
    until(&soc, "the model writes", || model.written().len() == 2).await;
    model.answer(Err(ProviderError::Failed("the weights are damaged".into())));
    model.answer(Err(ProviderError::Deadline));
    until(&soc, "both messages", || soc.printed().len() == 2).await;
    let mut reasons = Vec::new();
    for rule in ["a", "b"] {
        let verdict = done(&soc, rule).unwrap();
        assert_eq!(verdict.severity.as_str(), "Medium");
        assert!(verdict.summary.starts_with("Rule "), "{}", verdict.summary);
        reasons.extend(verdict.cost.templated);
    }
    reasons.sort();
    let late = "all: no answer within 600 s: allow more time, or use a smaller model";
    assert_eq!(reasons, [late, "all: the weights are damaged"]);
    assert!(soc.printed().iter().all(|message| message["triage"] == "done"));
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_the_least_urgent_goes_without() {
    let model = Model::default();
    model.hold_scores();
    let soc = soc(model.reads(1), 2, &[("a", 20), ("b", 90), ("c", 50)]).await;
    until(&soc, "one went without", || soc.printed().len() == 1).await;
    let told = &soc.printed()[0];
    assert_eq!((told["rule"]["id"].as_str(), told["triage"].as_str()), (Some("a"), Some("failed")));
    assert!(told["triage_error"].as_str().unwrap().contains("triage.queue"), "{told}");
    assert_eq!(soc.alerts().len(), 3, "and is kept");
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn of_many_that_wait_for_prose_the_least_urgent_keep_their_verdict_without() {
    let model = Model::default();
    let reading = Reading { queue: 2, ..model.reads(1) };
    let soc = soc(reading, 10, &[("a", 20), ("b", 90), ("c", 50)]).await;
    until(&soc, "one goes without prose", || soc.printed().len() == 1).await;
    let told = &soc.printed()[0];
    assert_eq!((told["rule"]["id"].as_str(), told["triage"].as_str()), (Some("a"), Some("done")));
    assert_eq!(told["clickagentic"]["severity"], "Low");
    let reason = &done(&soc, "a").unwrap().cost.templated[0];
    assert!(reason.contains("triage.queue"), "{reason}");
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_was_being_judged_at_shutdown_waits_for_the_next_start() {
    let model = Model::default();
    model.hold_scores();
    let mut soc = soc(model.reads(8), 10, &[("a", 60)]).await;
    until(&soc, "the model reads", || model.scored().len() == 1).await;
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

#[tokio::test(start_paused = true)]
async fn an_alert_that_was_being_written_about_at_shutdown_goes_on_with_its_verdict() {
    let model = Model::default();
    let mut soc = soc(model.reads(8), 10, &[("a", 60)]).await;
    until(&soc, "the model writes", || model.written().len() == 1).await;
    soc.stop().await;
    let Triage::Judged { verdict } = triage_of(&soc, "a") else { panic!() };
    soc.datasource.answer_always(json!([]));
    let reading = model.reads(8);
    soc.restart_with(Duration::from_secs(5), Some((reading, policy(10)))).await;
    until(&soc, "the model writes again", || model.written().len() == 2).await;
    model.answer(Ok(()));
    until(&soc, "it is done", || done(&soc, "a").is_some()).await;
    assert_eq!(model.scored().len(), 1, "the verdict was not asked for again");
    assert_eq!(done(&soc, "a").unwrap().cost.seconds_to_verdict, verdict.cost.seconds_to_verdict);
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn status_shows_how_long_verdicts_and_prose_took() {
    let model = Model::default();
    let soc = soc(model.reads(8), 10, &[("a", 60), ("b", 60)]).await;
    let status = |json: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_watchpost"));
        let output = command.args(["status", "--store"]).arg(soc.store.path()).args(json).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    until(&soc, "both verdicts", || is_judged(&soc, "a") && is_judged(&soc, "b")).await;
    let told: Value = serde_json::from_str(&status(&["--json"])).unwrap();
    assert_eq!((&told["waiting_for_triage"], &told["waiting_for_prose"]), (&json!(0), &json!(2)));
    assert_eq!(told["triage"]["seconds_to_verdict"]["alerts"], 2);
    assert_eq!(told["triage"]["seconds_to_prose"], json!({"alerts": 0, "p50": null, "p95": null}));
    soc.advance(Duration::from_secs(12)).await;
    model.answer(Ok(()));
    model.answer(Ok(()));
    until(&soc, "both done", || soc.printed().len() == 2).await;
    let told: Value = serde_json::from_str(&status(&["--json"])).unwrap();
    for metric in METRICS {
        assert_eq!(told["triage"][metric]["alerts"], 2, "{metric}: {told}");
        assert!(told["triage"][metric]["p95"].as_f64() >= told["triage"][metric]["p50"].as_f64(), "{told}");
    }
    let of = |metric: &str| told["triage"][metric]["p50"].as_f64().unwrap();
    assert!(of("seconds_to_verdict") < 12.0 && of("seconds_to_prose") >= 12.0, "waiting counts: {told}");
    let text = status(&[]);
    assert!(METRICS.iter().all(|metric| text.contains(metric)), "{text}");
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_dies_is_opened_again_and_costs_nobody_a_verdict() {
    let model = Model::default();
    for _ in 0..2 {
        model.refuse_scores(ProviderError::Died("boom".into()));
    }
    for _ in 0..3 {
        model.answer(Ok(()));
    }
    let soc = soc(model.reads(8), 10, &[("a", 20), ("b", 90), ("c", 50)]).await;
    until(&soc, "three verdicts", || soc.printed().len() == 3).await;
    assert!(soc.printed().iter().all(|message| message["triage"] == "done"), "{:?}", soc.printed());
    soc.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_ends_the_model_every_time_is_given_up_and_says_so() {
    let model = Model::default();
    for _ in 0..3 {
        model.refuse_scores(ProviderError::Died("boom".into()));
    }
    let soc = soc(model.reads(8), 10, &[("a", 60)]).await;
    until(&soc, "it is given up", || soc.printed().len() == 1).await;
    assert_eq!(soc.printed()[0]["triage"], "failed");
    let reason = soc.printed()[0]["triage_error"].as_str().unwrap().to_owned();
    assert!(reason.contains("ended 3 times while reading this alert"), "{reason}");
    soc.stop().await;
}
