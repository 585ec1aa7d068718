//! The model and its life: loaded in the background, asked by many alerts at the same time, opened again by the next
//! request where it died.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use watchpost_engine::{Options, Source};

use super::judge::Features;
use super::opinion::Opinion;
use super::provider::local::Local;
use super::provider::{Call, Control, Identity, Provider, ProviderError};
use super::reader::{Draft, Judged, Known, Reader, Settings, aside};
use super::verdict::{Cost, Verdict};
use crate::alert::Alert;

/// Owns the model. Calls run together, the most urgent first.
pub struct Triager {
    open: Arc<Open>,
    settings: Settings,
    model: watch::Sender<Loaded>,
    loader: Mutex<Option<JoinHandle<()>>>,
    closing: CancellationToken,
}

/// Makes the provider, on a thread of its own.
type Open = dyn Fn() -> Result<Box<dyn Provider>, ProviderError> + Send + Sync;

#[derive(Clone)]
enum Loaded {
    Loading,
    Ready(Arc<Reader>),
    Unavailable(String),
    Stopped,
}

/// Where the model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Loading,
    Ready(Identity),
    /// It could not be loaded; every triage fails with this reason.
    Unavailable(String),
    /// It was shut down, or it died, and then the next request opens it again.
    Stopped,
}

/// Why there is no verdict, or no prose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriageError {
    #[error("no answer within {} s: allow more time, or use a smaller model", .limit.as_secs_f64())]
    Deadline { limit: Duration },
    #[error("cancelled")]
    Cancelled,
    #[error("the model cannot be loaded: {reason}")]
    Unavailable { reason: String },
    /// A defect of ours, perhaps by another alert that was read at the same time: worth another attempt.
    #[error("the model died: {reason}")]
    Died { reason: String },
    #[error("{reason}")]
    Failed { reason: String },
    #[error("triage is shut down")]
    ShutDown,
}

impl Triager {
    /// Starts to load a GGUF in the background. Never fails: what is wrong with the model is said by
    /// [`state`](Self::state) and by each triage.
    pub fn local(source: Source, options: Options, settings: Settings) -> Self {
        Self::start(settings, move || Ok(Box::new(Local::open(&source, &options)?)))
    }

    /// Like [`local`](Self::local), with any provider. `open` is called on a thread of its own, again where the
    /// provider died.
    pub fn start(
        settings: Settings,
        open: impl Fn() -> Result<Box<dyn Provider>, ProviderError> + Send + Sync + 'static,
    ) -> Self {
        let triager = Self {
            open: Arc::new(open),
            settings,
            model: watch::Sender::new(Loaded::Loading),
            loader: Mutex::default(),
            closing: CancellationToken::new(),
        };
        triager.load();
        triager
    }

    /// Waits for the model and lets it read what is the same for all alerts, so that the first one need not wait for that.
    /// What goes wrong is said by the first alert.
    pub async fn warm_up(&self) {
        if let Loaded::Ready(reader) = self.settled().await {
            reader.warm_up().await;
        }
    }

    /// The verdict on one alert, its prose by code. A model that cannot be had, or does not answer within `limit` of real
    /// time (at most [`Settings::opinion_limit`]), is done without, and the verdict's cost says why. Dropping the future cancels the work;
    /// so with the next two.
    pub async fn judge(
        &self,
        alert: &Arc<Alert>,
        known: Known,
        limit: Duration,
    ) -> Result<Judged, TriageError> {
        self.judge_draft(alert, known, limit, |draft| draft).await
    }

    /// The verdict on an alert of before, from the features that were kept of it and by the judge that is in `known`.
    pub async fn judge_again(
        &self,
        alert: &Arc<Alert>,
        known: Known,
        features: Features,
        limit: Duration,
    ) -> Result<Judged, TriageError> {
        self.judge_draft(alert, known, limit, |draft| draft.with_features(features)).await
    }

    async fn judge_draft(
        &self,
        alert: &Arc<Alert>,
        known: Known,
        limit: Duration,
        complete: impl FnOnce(Draft) -> Draft,
    ) -> Result<Judged, TriageError> {
        let limit = limit.min(self.settings.opinion_limit);
        let (call, _cancel) = call(alert, Step::Verdict, limit);
        let work = async {
            let (subject, settings) = (Arc::clone(alert), self.settings.clone());
            let began = Instant::now();
            let draft = aside(move || Draft::of(&subject, &settings, known)).await;
            let draft = complete(draft.map_err(|error| explain(error, limit))?);
            let code_seconds = began.elapsed().as_secs_f64();
            let (opinion, cost) = match self.opinion(&draft, &call, limit).await {
                Ok(asked) => asked,
                Err(error @ (TriageError::Cancelled | TriageError::ShutDown | TriageError::Died { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    (Opinion::default(), Cost { without_model: Some(error.to_string()), ..Cost::default() })
                }
            };
            let began = Instant::now();
            let mut judged = draft.judged(opinion);
            judged.verdict.cost = cost;
            judged.verdict.cost.verdict_compute_seconds += code_seconds + began.elapsed().as_secs_f64();
            Ok(judged)
        };
        self.unless_closed(work).await
    }

    /// With the model's name and its seconds of work.
    async fn opinion(
        &self,
        draft: &Draft,
        call: &Call,
        limit: Duration,
    ) -> Result<(Opinion, Cost), TriageError> {
        let reader = self.reader(&call.control).await?;
        let began = Instant::now();
        let opinion = reader.opinion(draft, call).await.map_err(|error| explain(error, limit))?;
        let Identity { name, sha256 } = reader.model().clone();
        let cost = Cost {
            model: name,
            model_sha256: sha256,
            verdict_compute_seconds: began.elapsed().as_secs_f64(),
            ..Cost::default()
        };
        Ok((opinion, cost))
    }

    /// The verdict with the model's prose.
    pub async fn describe(
        &self,
        alert: &Arc<Alert>,
        verdict: Verdict,
        limit: Duration,
    ) -> Result<Verdict, TriageError> {
        let (call, _cancel) = call(alert, Step::Prose, limit);
        let work = async {
            let reader = self.reader(&call.control).await?;
            reader.describe(alert, verdict, &call).await.map_err(|error| explain(error, limit))
        };
        self.unless_closed(work).await
    }

    /// Both steps, each within `limit`. Prose that cannot be had does not take the verdict with it.
    pub async fn triage(&self, alert: &Alert, known: Known, limit: Duration) -> Result<Verdict, TriageError> {
        let alert = Arc::new(alert.clone());
        let verdict = self.judge(&alert, known, limit).await?.verdict;
        match self.describe(&alert, verdict.clone(), limit).await {
            Err(error @ (TriageError::Cancelled | TriageError::ShutDown)) => Err(error),
            Err(error) => Ok(verdict.without_prose(&error.to_string())),
            Ok(verdict) => Ok(verdict),
        }
    }

    pub fn state(&self) -> State {
        State::of(&self.model.borrow())
    }

    /// Waits until the model is loaded, or cannot be.
    pub async fn loaded(&self) -> State {
        State::of(&self.settled().await)
    }

    /// Cancels what is under way, refuses what comes, and waits for the model: at most one step of it, or its loading.
    pub async fn shutdown(&self) {
        self.closing.cancel();
        let loader = lock(&self.loader).take();
        let model = &self.model;
        // The loader first: it would put a model in place of `Stopped`.
        let joined = tokio::task::spawn_blocking(move || loader.map_or(Ok(()), JoinHandle::join)).await;
        let last = model.send_replace(Loaded::Stopped);
        let dropped = tokio::task::spawn_blocking(move || drop(last)).await;
        if !matches!((joined, dropped), (Ok(Ok(())), Ok(()))) {
            error!("the model did not end in order");
        }
    }

    async fn unless_closed<T>(
        &self,
        work: impl Future<Output = Result<T, TriageError>>,
    ) -> Result<T, TriageError> {
        if self.closing.is_cancelled() {
            return Err(TriageError::ShutDown);
        }
        tokio::select! {
            () = self.closing.cancelled() => Err(TriageError::Cancelled),
            result = work => result,
        }
    }

    /// The model that is loaded; one that died is opened again.
    async fn reader(&self, control: &Control) -> Result<Arc<Reader>, TriageError> {
        loop {
            match self.settled().await {
                Loaded::Ready(reader) if reader.is_alive() => return Ok(reader),
                Loaded::Ready(dead) => self.load_again(&dead),
                Loaded::Unavailable(reason) => return Err(TriageError::Unavailable { reason }),
                Loaded::Stopped | Loaded::Loading => return Err(TriageError::ShutDown),
            }
            if control.is_past_deadline() {
                return Err(TriageError::Died { reason: "it could not be opened again in time".to_owned() });
            }
        }
    }

    async fn settled(&self) -> Loaded {
        let mut model = self.model.subscribe();
        let settled = model.wait_for(|model| !matches!(model, Loaded::Loading)).await;
        settled.map_or(Loaded::Stopped, |model| model.clone())
    }

    /// Unless somebody else has begun to.
    fn load_again(&self, dead: &Arc<Reader>) {
        let is_ours = self.model.send_if_modified(|model| {
            let is_same = matches!(model, Loaded::Ready(reader) if Arc::ptr_eq(reader, dead));
            if is_same {
                *model = Loaded::Loading;
            }
            is_same
        });
        if is_ours {
            self.load();
        }
    }

    fn load(&self) {
        let (open, settings, model) = (Arc::clone(&self.open), self.settings.clone(), self.model.clone());
        let started = std::thread::Builder::new().name("model-loader".to_owned()).spawn(move || {
            model.send_replace(load(&*open, settings));
        });
        match started {
            Ok(loader) => *lock(&self.loader) = Some(loader),
            Err(error) => {
                let reason = format!("its loader cannot be started: {error}");
                self.model.send_replace(Loaded::Unavailable(reason));
            }
        }
    }
}

impl Drop for Triager {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl State {
    fn of(model: &Loaded) -> Self {
        match model {
            Loaded::Loading => Self::Loading,
            Loaded::Ready(reader) if reader.is_alive() => Self::Ready(reader.model().clone()),
            Loaded::Unavailable(reason) => Self::Unavailable(reason.clone()),
            Loaded::Ready(_) | Loaded::Stopped => Self::Stopped,
        }
    }
}

/// The two questions about an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    Verdict,
    Prose,
}

impl Step {
    /// The higher level goes first. A verdict is short and somebody waits for it: it counts as [`VERDICT_LEAD`] levels more,
    /// not as more than any prose, so that a flood of small alerts does not hold up what is written of a critical one.
    fn priority(self, level: u8) -> u8 {
        let lead = if self == Self::Verdict { VERDICT_LEAD } else { 0 };
        level.min(100) + lead
    }
}

fn call(alert: &Alert, step: Step, limit: Duration) -> (Call, CancelOnDrop) {
    let cancel = CancelOnDrop(Arc::default());
    let deadline = Instant::now().checked_add(limit);
    let control = Control { deadline, cancel: Arc::clone(&cancel.0) };
    (Call { priority: step.priority(alert.level()), control }, cancel)
}

fn explain(error: ProviderError, limit: Duration) -> TriageError {
    match error {
        ProviderError::Deadline => TriageError::Deadline { limit },
        ProviderError::Cancelled => TriageError::Cancelled,
        ProviderError::Died(reason) => TriageError::Died { reason },
        ProviderError::TooLong(reason) | ProviderError::Unusable(reason) | ProviderError::Failed(reason) => {
            TriageError::Failed { reason }
        }
    }
}

fn load(open: &Open, settings: Settings) -> Loaded {
    let began = Instant::now();
    let reason = match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(provider)) => {
            let (model, seconds) = (provider.model(), began.elapsed().as_secs_f64());
            info!(name = model.name, sha256 = model.sha256, seconds, "model loaded");
            return Loaded::Ready(Arc::new(Reader::new(provider, settings)));
        }
        Ok(Err(reason)) => reason.to_string(),
        Err(panic) => format!("it panicked: {}", message(&*panic)),
    };
    error!(reason, "the model cannot be loaded, verdicts are the judge's alone and code writes their text");
    Loaded::Unavailable(reason)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Levels. A verdict at 50 goes before prose at 90, one at 30 does not.
const VERDICT_LEAD: u8 = 50;

/// None of these locks is held where something could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use serde_json::json;

    use super::*;
    use crate::triage::judge::Judge;
    use crate::triage::testing::{Scripted, alert};
    use crate::triage::verdict::Prose;

    const LIMIT: Duration = Duration::from_secs(20);

    fn triager(script: impl Fn() -> Scripted + Send + Sync + 'static) -> Triager {
        Triager::start(Settings::default(), move || Ok(Box::new(script())))
    }

    async fn judge(triager: &Triager, alert: &Arc<Alert>) -> Result<Judged, TriageError> {
        triager.judge(alert, Known::default(), LIMIT).await
    }

    #[tokio::test]
    async fn an_alert_gets_its_verdict_and_then_its_prose() {
        let triager = triager(Scripted::default);
        assert!(matches!(triager.loaded().await, State::Ready(_)));
        let subject = Arc::new(alert(75, json!([{ "source_ip": "10.0.0.6" }])));
        let Judged { verdict, features, .. } = judge(&triager, &subject).await.unwrap();
        assert!(features.words.contains("rule: test rule"));
        assert_eq!((verdict.cost.prose, verdict.cost.completion_tokens), (Prose::Template, 0));
        let described = triager.describe(&subject, verdict.clone(), LIMIT).await.unwrap();
        assert_ne!((described.cost.prose, described.cost.completion_tokens), (Prose::Template, 0));
        assert_eq!(described.affected_entities, ["10.0.0.6"]);
        assert_eq!(described.risk_score, verdict.risk_score);
        triager.shutdown().await;
        assert_eq!(triager.state(), State::Stopped);
        assert_eq!(triager.triage(&subject, Known::default(), LIMIT).await, Err(TriageError::ShutDown));
    }

    #[tokio::test]
    async fn without_a_model_the_judge_gives_a_verdict_and_says_so() {
        for broken in [
            Err(ProviderError::Failed("m.gguf: truncated".into())),
            Ok(ProviderError::Failed("m.gguf: truncated".into())),
        ] {
            let open = move || match broken.clone() {
                Err(error) => Err(error),
                Ok(error) => Ok(Box::new(Scripted::deaf(error)) as Box<dyn Provider>),
            };
            let triager = Triager::start(Settings::default(), open);
            for _ in 0..2 {
                let subject = alert(75, json!([{ "source_ip": "10.0.0.6" }]));
                let verdict = triager.triage(&subject, Known::default(), LIMIT).await.unwrap();
                assert_eq!((verdict.cost.model.as_str(), verdict.cost.prose), ("", Prose::Template));
                assert!(verdict.cost.without_model.unwrap().ends_with("m.gguf: truncated"));
                assert!(verdict.cost.templated[0].ends_with("m.gguf: truncated"));
                assert_eq!(verdict.affected_entities, ["10.0.0.6"]);
                let judgement = verdict.judgement.unwrap();
                assert_eq!((judgement.judge.as_str(), judgement.calibrated), (Judge::PRIOR, false));
            }
        }
    }

    #[tokio::test]
    async fn a_dead_model_says_so_and_is_opened_again_by_the_next_request() {
        static STARTS: AtomicUsize = AtomicUsize::new(0);
        let triager = triager(|| match STARTS.fetch_add(1, Ordering::SeqCst) {
            0 => Scripted::dying("boom"),
            _ => Scripted::default(),
        });
        let subject = Arc::new(alert(75, json!([])));
        let died = Err(TriageError::Died { reason: "boom".into() });
        assert_eq!(judge(&triager, &subject).await, died);
        assert_eq!(triager.state(), State::Stopped);
        let together = tokio::join!(judge(&triager, &subject), judge(&triager, &subject));
        assert!(together.0.is_ok() && together.1.is_ok());
        assert_eq!(STARTS.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_deadline_of_the_prose_keeps_the_verdict() {
        let triager = triager(Scripted::endless);
        let limit = Duration::from_millis(50);
        let verdict = triager.triage(&alert(75, json!([])), Known::default(), limit).await.unwrap();
        assert_eq!(verdict.cost.prose, Prose::Template);
        let reason = "all: no answer within 0.05 s: allow more time, or use a smaller model";
        assert_eq!(verdict.cost.templated, [reason]);
    }

    #[tokio::test]
    async fn shutdown_cancels_all_that_is_under_way() {
        let triager = triager(Scripted::endless);
        let shutdown = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            triager.shutdown().await;
        };
        let subject = alert(75, json!([]));
        let triage = || triager.triage(&subject, Known::default(), LIMIT);
        let calls = async { tokio::join!(triage(), triage()) };
        let (answers, ()) = tokio::join!(calls, shutdown);
        assert_eq!(answers, (Err(TriageError::Cancelled), Err(TriageError::Cancelled)));
    }

    #[tokio::test]
    async fn a_dropped_call_frees_the_model() {
        let script = Scripted::endless();
        let working = script.working();
        let slot = Mutex::new(Some(script));
        let open = move || match lock(&slot).take() {
            Some(script) => Ok(Box::new(script) as Box<dyn Provider>),
            None => Err(ProviderError::Failed("opened twice".into())),
        };
        let triager = Triager::start(Settings::default(), open);
        let subject = alert(75, json!([]));
        let call = triager.triage(&subject, Known::default(), Duration::from_secs(3600));
        assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
        while working.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        triager.shutdown().await;
    }

    #[test]
    fn a_higher_level_goes_first_and_verdicts_before_prose_that_is_not_much_more_urgent() {
        let order = [
            (Step::Prose, 0),
            (Step::Prose, 40),
            (Step::Verdict, 0),
            (Step::Prose, 90),
            (Step::Verdict, 45),
            (Step::Verdict, 90),
            (Step::Verdict, 100),
        ];
        assert!(order.map(|(step, level)| step.priority(level)).is_sorted_by(|less, more| less < more));
    }
}
