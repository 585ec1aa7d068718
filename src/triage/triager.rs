//! The model's own thread. It loads the model in the background, reads one alert at a time, and is started again
//! by the next request where it died.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tracing::{error, info};
use watchpost_engine::{Options, Source};

use super::provider::local::Local;
use super::provider::{Control, Identity, Provider, ProviderError};
use super::reader::{Reader, Settings};
use super::verdict::Verdict;
use crate::alert::Alert;

/// Owns the model and its thread. Shared behind an `Arc`; calls take turns.
pub struct Triager {
    open: Arc<Open>,
    settings: Settings,
    state: watch::Sender<State>,
    worker: Mutex<Option<Worker>>,
    turn: tokio::sync::Mutex<()>,
    current: Mutex<Arc<AtomicBool>>,
    closed: AtomicBool,
}

/// Makes the provider, on the model's thread.
type Open = dyn Fn() -> Result<Box<dyn Provider>, ProviderError> + Send + Sync;

/// Where the model is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Loading,
    Ready(Identity),
    /// It could not be loaded; every triage fails with this reason.
    Unavailable(String),
    /// Its thread ended: at shutdown, or by a panic, and then the next request starts it again.
    Stopped,
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriageError {
    #[error("no verdict within {} s: allow more time, or use a smaller model", .limit.as_secs_f64())]
    Deadline { limit: Duration },
    #[error("cancelled")]
    Cancelled,
    #[error("the model cannot be loaded: {reason}")]
    Unavailable { reason: String },
    /// A defect of ours; the thread is started again by the next request.
    #[error("the model's thread died: {reason}")]
    Died { reason: String },
    #[error("{reason}")]
    Failed { reason: String },
    #[error("triage is shut down")]
    ShutDown,
}

impl Triager {
    /// Starts the thread, which loads a GGUF in the background. Never fails: what is wrong with the model is said by
    /// [`state`](Self::state) and by each triage.
    pub fn local(source: Source, options: Options, settings: Settings) -> Self {
        Self::start(settings, move || Ok(Box::new(Local::open(&source, &options)?)))
    }

    /// Like [`local`](Self::local), with any provider. `open` is called on the model's thread, again after a panic.
    pub fn start(
        settings: Settings,
        open: impl Fn() -> Result<Box<dyn Provider>, ProviderError> + Send + Sync + 'static,
    ) -> Self {
        let triager = Self {
            open: Arc::new(open),
            settings,
            state: watch::Sender::new(State::Loading),
            worker: Mutex::new(None),
            turn: tokio::sync::Mutex::new(()),
            current: Mutex::new(Arc::default()),
            closed: AtomicBool::new(false),
        };
        *lock(&triager.worker) = triager.spawn().ok();
        triager
    }

    /// The verdict on one alert, within `limit` of real time; waiting for another call's turn or for the model to load
    /// counts. The alert is copied once, for the model's thread. Dropping the future cancels the work.
    pub async fn triage(&self, alert: &Alert, limit: Duration) -> Result<Verdict, TriageError> {
        let deadline = Instant::now().checked_add(limit);
        let _turn = self.turn.lock().await;
        if self.closed.load(Ordering::SeqCst) {
            return Err(TriageError::ShutDown);
        }
        let cancel = CancelOnDrop(Arc::default());
        *lock(&self.current) = Arc::clone(&cancel.0);
        let control = Control { deadline, cancel: Arc::clone(&cancel.0) };
        let (reply, answer) = oneshot::channel();
        self.send(Job { alert: alert.clone(), control, reply })?;
        match answer.await {
            Ok(Ok(verdict)) => Ok(verdict),
            Ok(Err(Refusal::Unavailable(reason))) => Err(TriageError::Unavailable { reason }),
            Ok(Err(Refusal::Died(reason))) => Err(TriageError::Died { reason }),
            Ok(Err(Refusal::Provider(error))) => Err(match error {
                ProviderError::Deadline => TriageError::Deadline { limit },
                ProviderError::Cancelled => TriageError::Cancelled,
                other => TriageError::Failed { reason: other.to_string() },
            }),
            Err(_) => Err(TriageError::Died { reason: "it ended without an answer".to_owned() }),
        }
    }

    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until the model is loaded, or cannot be.
    pub async fn loaded(&self) -> State {
        let mut state = self.state.subscribe();
        match state.wait_for(|state| *state != State::Loading).await {
            Ok(state) => state.clone(),
            Err(_) => State::Stopped,
        }
    }

    /// Ends the triage under way, between two tokens; it answers [`TriageError::Cancelled`].
    pub fn cancel(&self) {
        lock(&self.current).store(true, Ordering::Relaxed);
    }

    /// Cancels, refuses what comes, and waits for the thread: at most one step of the model, or its loading.
    pub async fn shutdown(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.cancel();
        let worker = lock(&self.worker).take();
        if let Some(Worker { jobs, thread }) = worker {
            drop(jobs);
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                error!("the model's thread did not end in order");
            }
        }
    }

    fn send(&self, job: Job) -> Result<(), TriageError> {
        let mut worker = lock(&self.worker);
        let job = match worker.as_ref() {
            Some(Worker { jobs, .. }) => match jobs.send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(job)) => job,
            },
            None => job,
        };
        self.state.send_replace(State::Loading);
        let died = |reason: String| TriageError::Died { reason };
        let fresh = self.spawn().map_err(|error| died(format!("it cannot be started: {error}")))?;
        fresh.jobs.send(job).map_err(|_| died("it ended at once".to_owned()))?;
        *worker = Some(fresh);
        Ok(())
    }

    fn spawn(&self) -> std::io::Result<Worker> {
        let (jobs, queue) = mpsc::channel();
        let (open, settings, state) = (Arc::clone(&self.open), self.settings.clone(), self.state.clone());
        let thread = std::thread::Builder::new()
            .name("model".to_owned())
            .spawn(move || work(&*open, settings, &state, queue))?;
        Ok(Worker { jobs, thread })
    }
}

impl Drop for Triager {
    fn drop(&mut self) {
        self.cancel();
    }
}

struct Worker {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

struct Job {
    alert: Alert,
    control: Control,
    reply: oneshot::Sender<Result<Verdict, Refusal>>,
}

enum Refusal {
    Unavailable(String),
    Died(String),
    Provider(ProviderError),
}

/// The thread: ends when the sender of jobs is dropped, or after a panic, because nothing is known then of the
/// model's state.
fn work(open: &Open, settings: Settings, state: &watch::Sender<State>, queue: mpsc::Receiver<Job>) {
    let began = Instant::now();
    let opened = catch_unwind(AssertUnwindSafe(open));
    let mut reader = match opened {
        Ok(Ok(provider)) => {
            let model = provider.model().clone();
            info!(
                name = model.name,
                sha256 = model.sha256,
                seconds = began.elapsed().as_secs_f64(),
                "model loaded"
            );
            state.send_replace(State::Ready(model));
            Ok(Reader::new(provider, settings))
        }
        Ok(Err(reason)) => Err(reason.to_string()),
        Err(panic) => Err(format!("it panicked: {}", message(&*panic))),
    };
    if let Err(reason) = &reader {
        error!(reason, "the model cannot be loaded, alerts go out without a verdict");
        state.send_replace(State::Unavailable(reason.clone()));
    }
    while let Ok(Job { alert, control, reply }) = queue.recv() {
        let (answer, is_dead) = match &mut reader {
            Err(reason) => (Err(Refusal::Unavailable(reason.clone())), false),
            Ok(_) if control.is_cancelled() => (Err(Refusal::Provider(ProviderError::Cancelled)), false),
            Ok(_) if control.is_past_deadline() => (Err(Refusal::Provider(ProviderError::Deadline)), false),
            Ok(reader) => match catch_unwind(AssertUnwindSafe(|| reader.read(&alert, &control))) {
                Ok(answer) => (answer.map_err(Refusal::Provider), false),
                Err(panic) => (Err(Refusal::Died(message(&*panic))), true),
            },
        };
        if is_dead {
            error!(alert = alert.id, "the model's thread died, the next alert starts it again");
            state.send_replace(State::Stopped);
            // Before the answer, so that the next request finds nobody here.
            drop(queue);
            reply.send(answer).ok();
            return;
        }
        // Whoever dropped the receiver no longer wants the verdict.
        reply.send(answer).ok();
    }
    state.send_replace(State::Stopped);
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

/// None of these locks is held where something could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use serde_json::json;

    use super::*;
    use crate::triage::testing::{Scripted, alert};

    const LIMIT: Duration = Duration::from_secs(20);

    fn triager(script: impl Fn() -> Scripted + Send + Sync + 'static) -> Triager {
        Triager::start(Settings::default(), move || Ok(Box::new(script())))
    }

    #[tokio::test]
    async fn an_alert_gets_its_verdict_from_the_thread() {
        let triager = triager(Scripted::default);
        assert!(matches!(triager.loaded().await, State::Ready(_)));
        let verdict = triager.triage(&alert(75, json!([{ "source_ip": "10.0.0.6" }])), LIMIT).await.unwrap();
        assert_eq!(verdict.affected_entities, ["10.0.0.6"]);
        triager.shutdown().await;
        assert_eq!(triager.state(), State::Stopped);
        assert_eq!(triager.triage(&alert(75, json!([])), LIMIT).await, Err(TriageError::ShutDown));
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_loaded_fails_every_triage_with_its_reason() {
        let triager =
            Triager::start(Settings::default(), || Err(ProviderError::Failed("m.gguf: truncated".into())));
        for _ in 0..2 {
            let error = triager.triage(&alert(75, json!([])), LIMIT).await.unwrap_err();
            assert_eq!(error.to_string(), "the model cannot be loaded: m.gguf: truncated");
        }
        assert_eq!(triager.loaded().await, State::Unavailable("m.gguf: truncated".into()));
    }

    #[tokio::test]
    async fn a_dead_thread_says_so_and_is_started_again() {
        static STARTS: AtomicUsize = AtomicUsize::new(0);
        let triager = triager(|| match STARTS.fetch_add(1, Ordering::SeqCst) {
            0 => Scripted::panicking("boom"),
            _ => Scripted::default(),
        });
        let error = triager.triage(&alert(75, json!([])), LIMIT).await.unwrap_err();
        assert_eq!(error, TriageError::Died { reason: "boom".into() });
        assert!(triager.triage(&alert(75, json!([])), LIMIT).await.is_ok());
        assert_eq!(STARTS.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_deadline_and_a_cancel_are_told_apart() {
        let triager = triager(Scripted::endless);
        let limit = Duration::from_millis(50);
        let error = triager.triage(&alert(75, json!([])), limit).await.unwrap_err();
        assert_eq!(error, TriageError::Deadline { limit });
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            triager.cancel();
        };
        let subject = alert(75, json!([]));
        let (answer, ()) = tokio::join!(triager.triage(&subject, LIMIT), cancel);
        assert_eq!(answer, Err(TriageError::Cancelled));
    }

    #[tokio::test]
    async fn a_dropped_call_frees_the_model() {
        let triager = triager(Scripted::endless);
        let subject = alert(75, json!([]));
        let call = triager.triage(&subject, Duration::from_secs(3600));
        assert!(tokio::time::timeout(Duration::from_millis(50), call).await.is_err());
        triager.shutdown().await;
    }
}
