//! How one alert is read, in two steps. First the verdict ([`Draft`]): notes, numbers, the model's opinion where there is
//! a model, and what the judge makes of them. Then the prose: a bounded view, the model's words, and their check. Between
//! them lies nothing but the verdict itself, so that the second step can follow the first after a restart.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::OnceCell;

use super::advice;
use super::answer::Answer;
use super::assets::Assets;
use super::claims;
use super::deed::Deed;
use super::field::Role;
use super::history::History;
use super::judge::{Features, Judge};
use super::likeness;
use super::notes::{Judgement, Notes};
use super::observable;
use super::opinion::{Leaning, Opinion};
use super::prompt::{self, MAX_ANSWER_TOKENS};
use super::prose::Ground;
use super::provider::{Call, Identity, Prompt, Provider, ProviderError};
use super::record::{self, Record};
use super::score::{Evidence, Scores};
use super::speech;
use super::template;
use super::verdict::{Cost, Severity, Verdict};
use super::view::View;
use crate::alert::Alert;

/// What triage is told by configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's `false_positive` text and `known_benign` statements.
    pub notes: Notes,
    /// What the site cannot do without.
    pub critical_assets: Assets,
    /// Tokens of log data in a prompt, see [`prompt::DATA_TOKENS`].
    pub data_tokens: usize,
    /// How long a verdict waits for a model's opinion, which moves little.
    pub opinion_limit: Duration,
    /// Whether what the model wrote about an alert may stand beside one that is alike.
    pub reuse: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            notes: Notes::default(),
            critical_assets: Assets::default(),
            data_tokens: prompt::DATA_TOKENS,
            opinion_limit: OPINION_LIMIT,
            reuse: true,
        }
    }
}

/// What the site knows of an alert beside the alert itself.
#[derive(Clone, Debug)]
pub struct Known {
    pub history: History,
    pub judge: Arc<Judge>,
}

impl Default for Known {
    /// Nothing.
    fn default() -> Self {
        Self { history: History::default(), judge: Arc::new(Judge::prior()) }
    }
}

/// A verdict, with what the judge learns from once an analyst closes the alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub verdict: Verdict,
    pub features: Features,
    /// The severity by expected harm, where the judge's probability is taken at its word.
    pub expected: Severity,
}

/// A model with what triage keeps beside it. Reads many alerts at the same time.
pub struct Reader {
    provider: Arc<dyn Provider>,
    settings: Arc<Settings>,
    /// What the model answers when it is told nothing.
    habit: OnceCell<Option<Leaning>>,
    written: Mutex<Written>,
}

/// What the model wrote about the last alerts.
#[derive(Default)]
struct Written {
    /// By what alike alerts have in common.
    answers: HashMap<Alike, Kept>,
    /// The oldest first.
    order: VecDeque<Alike>,
}

#[derive(Clone)]
struct Kept {
    /// The alert that it was written about.
    alert: String,
    answer: Answer,
    /// Fields of it that did not hold even there.
    dropped: usize,
}

/// What alerts have in common whose text may be the same: their likeness, and what the verdict says.
type Alike = (i64, Severity, Option<String>);

impl Reader {
    pub fn new(provider: Box<dyn Provider>, settings: Settings) -> Self {
        Self {
            provider: provider.into(),
            settings: Arc::new(settings),
            habit: OnceCell::new(),
            written: Mutex::default(),
        }
    }

    pub fn model(&self) -> &Identity {
        self.provider.model()
    }

    pub fn is_alive(&self) -> bool {
        self.provider.is_alive()
    }

    /// Asks what is the same for all alerts.
    pub async fn warm_up(&self) {
        if let Err(error) = self.habit(&Call::default()).await {
            tracing::debug!(%error, "the model is not warm");
        }
    }

    /// The same verdict with the model's prose, as far as it holds. What is not usable stays code's, and the verdict's
    /// cost names it. Fails where the model gives no answer at all.
    pub async fn describe(
        &self,
        alert: &Arc<Alert>,
        mut verdict: Verdict,
        call: &Call,
    ) -> Result<Verdict, ProviderError> {
        let began = Instant::now();
        let mut budget = self.settings.data_tokens;
        let answered = loop {
            let (subject, told) = (Arc::clone(alert), verdict.clone());
            let (settings, provider) = (Arc::clone(&self.settings), Arc::clone(&self.provider));
            let assignment =
                aside(move || Assignment::of(&subject, &told, &settings.notes, budget, &*provider)).await?;
            let Some(Assignment { prompt, steps, ground, likeness }) = assignment else {
                break Err("the notes have changed since the verdict".to_owned());
            };
            let alike = (likeness, verdict.severity, verdict.note.clone());
            if let Some(reused) = self.reused(alert, &verdict, &alike, &ground, &steps) {
                verdict = reused;
                verdict.cost.prose_compute_seconds = began.elapsed().as_secs_f64();
                return Ok(verdict);
            }
            let schema = prompt::schema(&steps);
            match self.provider.complete(&prompt, &schema, MAX_ANSWER_TOKENS, call).await {
                // A small context, or a language that takes many tokens: once with half the data.
                Err(ProviderError::TooLong(_)) if budget == self.settings.data_tokens && budget > 1 => {
                    budget /= 2;
                }
                Err(ProviderError::TooLong(reason) | ProviderError::Unusable(reason)) => break Err(reason),
                Err(error) => return Err(error),
                Ok(completion) => {
                    if let Some(record) = &mut verdict.record {
                        record.prompt = Some(record::of_prompt(&prompt));
                        record.grammar = Some(record::of_json(&schema));
                    }
                    break Ok((completion, steps, ground, alike));
                }
            }
        };
        match answered {
            Ok((completion, steps, ground, alike)) => {
                verdict.cost.prompt_tokens = completion.prompt_tokens;
                verdict.cost.cached_tokens = completion.cached_tokens;
                verdict.cost.completion_tokens = completion.completion_tokens;
                verdict.cost.seconds_to_first_token = completion.time_to_first_token.as_secs_f64();
                verdict = match Answer::parse(&completion.text) {
                    Ok(answer) => {
                        let (written, subject) = (answer.clone(), Arc::clone(alert));
                        let verdict = aside(move || put(written, verdict, &subject, &ground, &steps)).await?;
                        let dropped = verdict.cost.templated.len();
                        self.keep(alike, Kept { alert: alert.id.clone(), answer, dropped });
                        verdict
                    }
                    Err(reason) => verdict.without_prose(&reason),
                };
            }
            Err(reason) => verdict = verdict.without_prose(&reason),
        }
        verdict.cost.prose_compute_seconds = began.elapsed().as_secs_f64();
        Ok(verdict)
    }

    /// What was written about an alert that is alike, where as much of it holds for this one.
    fn reused(
        &self,
        alert: &Alert,
        verdict: &Verdict,
        alike: &Alike,
        ground: &Ground,
        steps: &[String],
    ) -> Option<Verdict> {
        let Kept { alert: other, answer, dropped } = match self.settings.reuse {
            true => lock(&self.written).answers.get(alike).cloned()?,
            false => return None,
        };
        let mut reused = put(answer, verdict.clone(), alert, ground, steps);
        let holds = other != alert.id && reused.cost.templated.len() <= dropped;
        reused.cost.reused_from = Some(other);
        holds.then_some(reused)
    }

    fn keep(&self, alike: Alike, kept: Kept) {
        let Written { answers, order } = &mut *lock(&self.written);
        if answers.insert(alike.clone(), kept).is_none() {
            order.push_back(alike);
        }
        if order.len() > MAX_WRITTEN
            && let Some(oldest) = order.pop_front()
        {
            answers.remove(&oldest);
        }
    }

    /// What the model finds likely against what it says when it is told nothing. Fails where it gives no answer at all.
    pub async fn opinion(&self, draft: &Draft, call: &Call) -> Result<Opinion, ProviderError> {
        let habit = self.habit(call).await?;
        let told = self.leaning(&draft.question, call).await?;
        Ok(habit.zip(told).map_or(Opinion::default(), |(habit, told)| told.against(&habit)))
    }

    /// Asked once, by whoever comes first and for all: nothing is more urgent.
    async fn habit(&self, call: &Call) -> Result<Option<Leaning>, ProviderError> {
        let first = Call { priority: u8::MAX, ..call.clone() };
        let nothing = prompt::opinion_on_nothing();
        self.habit.get_or_try_init(|| self.leaning(&nothing, &first)).await.copied()
    }

    async fn leaning(&self, prompt: &Prompt, call: &Call) -> Result<Option<Leaning>, ProviderError> {
        match self.provider.score(prompt, &prompt::opinion_questions(), call).await {
            Ok(answer) => Ok(Leaning::of(&answer)),
            Err(ProviderError::TooLong(_) | ProviderError::Unusable(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What holds of an answer, with what it rests on.
fn put(answer: Answer, verdict: Verdict, alert: &Alert, ground: &Ground, steps: &[String]) -> Verdict {
    let mut verdict = answer.put_into(verdict, ground, steps);
    verdict.claims = claims::of(&verdict, alert);
    verdict
}

/// Our own work on an alert, which may have thousands of rows: not on a thread that others wait for.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ProviderError> {
    let defect = |error| ProviderError::Failed(format!("a defect of ours: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(defect)
}

/// All of a verdict that needs no model, and what a model is asked for its numbers.
pub struct Draft {
    evidence: Evidence,
    question: Prompt,
    features: Features,
    judge: Arc<Judge>,
    verdict: Verdict,
}

impl Draft {
    pub fn of(alert: &Alert, settings: &Settings, known: Known) -> Self {
        let judgement = settings.notes.judge(alert);
        let observables = observable::extract(alert);
        let touched = settings.critical_assets.touched(&observables);
        let hostile_text = speech::find(alert);
        let evidence = Evidence {
            is_critical: touched.is_some(),
            speaks: hostile_text.is_some(),
            ..Evidence::of(alert, judgement)
        };
        // No opinion moves the severity.
        let scores = evidence.score(Opinion::default());
        let view = View::of(alert);
        let template = template::write(alert, &view, judgement, scores.severity);
        let steps = steps(alert, &view, judgement);
        let question = prompt::opinion(alert, &columns(&view));
        let record = Record::begin(alert, settings, &question, &prompt::opinion_questions());
        let mut verdict = Verdict {
            title: template.title,
            summary: template.summary,
            severity: scores.severity,
            confidence: scores.confidence,
            false_positive_score: scores.false_positive,
            risk_score: scores.risk,
            explanation: template.explanation,
            mitigations: steps.iter().take(3).cloned().collect(),
            affected_entities: observable::entities(&observables),
            recommended_action: steps.into_iter().next().unwrap_or_default(),
            note: judgement.statement().map(|statement| statement.text.clone()),
            critical_asset: touched.map(str::to_owned),
            opinion: Opinion::default(),
            judgement: None,
            claims: Vec::new(),
            record: Some(record),
            recommends: None,
            lowered: None,
            hostile_text,
            cost: Cost::default(),
        };
        verdict.claims = claims::of(&verdict, alert);
        Self {
            evidence,
            question,
            features: Features::for_judge(&known.judge, alert, &known.history, scores.false_positive),
            judge: known.judge,
            verdict,
        }
    }

    /// From what was known then, and not what the history says now.
    pub fn with_features(self, features: Features) -> Self {
        Self { features, ..self }
    }

    /// The verdict with a model's opinion, or with none.
    pub fn judged(self, opinion: Opinion) -> Judged {
        let Self { evidence, mut features, judge, mut verdict, .. } = self;
        let scores = evidence.score(opinion);
        features.start_from(scores.false_positive);
        let judgement = judge.judge(&features);
        verdict.opinion = opinion;
        verdict.take(scores.by(&judgement, &evidence));
        let expected = evidence.expected(judgement.probability);
        verdict.judgement = Some(judgement);
        if let Some(record) = &mut verdict.record {
            record.features = record::of_json(&features);
        }
        let mut judged = Judged { verdict, features, expected };
        judged.verdict.recommends = Deed::ALL.into_iter().find(|deed| judged.calls_for(*deed));
        judged
    }
}

impl Verdict {
    fn take(&mut self, scores: Scores) {
        self.severity = scores.severity;
        self.confidence = scores.confidence;
        self.false_positive_score = scores.false_positive;
        self.risk_score = scores.risk;
    }
}

/// What the model is to write about, and what its words are held against.
struct Assignment {
    prompt: Prompt,
    /// What it may choose from.
    steps: Vec<String>,
    ground: Ground,
    likeness: i64,
}

impl Assignment {
    /// `budget` is tokens of log data. `None` where the verdict rests on another note than `notes` give now.
    fn of(
        alert: &Alert,
        verdict: &Verdict,
        notes: &Notes,
        budget: usize,
        provider: &dyn Provider,
    ) -> Option<Self> {
        let judgement = notes.judge(alert);
        if judgement.statement().map(|statement| &statement.text) != verdict.note.as_ref() {
            return None;
        }
        let view = View::of(alert);
        let danger = if judgement.is_dismissed() { "" } else { advice::danger(advice::theme(alert)) };
        let shown = view.show(budget, &|text| provider.count_tokens(text));
        let prompt = prompt::prose(alert, &shown, &verdict.summary, danger, judgement, verdict.severity);
        let trusted = trusted(alert, judgement, verdict, danger, &columns(&view));
        let ground = Ground::new(
            &observable::extract(alert),
            &shown.values,
            &trusted.iter().map(String::as_str).collect::<Vec<_>>(),
            verdict.severity,
            judgement.is_dismissed(),
        );
        Some(Self { prompt, steps: steps(alert, &view, judgement), ground, likeness: likeness::of(alert) })
    }
}

fn columns<'a>(view: &'a View<'_>) -> Vec<&'a str> {
    view.columns.iter().map(|column| column.path.as_str()).collect()
}

/// What can be done about such an alert.
fn steps(alert: &Alert, view: &View<'_>, judgement: Judgement<'_>) -> Vec<String> {
    let source = view.most_frequent(&template::SOURCES).map(|(_, value, _)| value);
    let user = view.most_frequent(&[Role::User]).map(|(_, value, _)| value);
    match judgement.is_dismissed() {
        true => advice::steps_when_dismissed(source),
        false => advice::steps(advice::theme(alert), source, user),
    }
}

/// Texts that prove a word, beside the rows. The verdict's are code's: it was not described yet.
fn trusted(
    alert: &Alert,
    judgement: Judgement<'_>,
    verdict: &Verdict,
    danger: &str,
    columns: &[&str],
) -> Vec<String> {
    let texts = [verdict.title.as_str(), &verdict.summary, &verdict.explanation, danger];
    let mut texts: Vec<String> = texts.map(str::to_owned).into();
    for name in ["id", "name", "description", "group", "tags"] {
        match alert.rule.get(name) {
            Some(Value::String(text)) => texts.push(text.clone()),
            Some(Value::Array(list)) => {
                texts.extend(list.iter().filter_map(Value::as_str).map(|tag| tag.replace('.', " ")));
            }
            _ => {}
        }
    }
    texts.extend(columns.iter().map(|column| (*column).to_owned()));
    texts.extend(judgement.statement().map(|statement| statement.text.clone()));
    texts
}

fn lock(written: &Mutex<Written>) -> MutexGuard<'_, Written> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers that are kept, of some hundred bytes each.
const MAX_WRITTEN: usize = 1_000;
/// Less than `triage.deadline` is by default: no alert goes out without its verdict because of a slow model.
const OPINION_LIMIT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests;
