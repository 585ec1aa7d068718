//! What happens to an alert, top to bottom. Read this first.
//!
//! 1. A detector is due ([`crate::detector::schedule`]); each of its rules searches the windows between its
//!    cursor and now ([`crate::detector::Search`]).
//! 2. A rule whose size holds makes an [`Alert`]. Alert, cursor, the outbox's rows and the place in the triage
//!    queue are saved in one transaction ([`crate::store::alerts::insert`]).
//! 3. [`Pipeline`] (here) takes the most urgent waiting alerts to the model, several at the same time, and saves the
//!    verdict of each: severity and scores, with text by code. Detection never waits for it.
//! 4. Then it takes them to the model again, for the prose, and saves that. Prose that cannot be had changes nothing of
//!    the verdict.
//! 5. Delivery ([`crate::webhook::delivery`]) sends each alert when its prose is there, or with what is there when
//!    `triage.deadline` has passed; then the rest follows as an update. `triage.deliver: verdict` waits for no prose.
//!
//! Every step's result is in the store before the next begins, so that a process that ends at any moment goes on
//! where it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::alert::Alert;
use crate::clock::Clock;
use crate::store::queue::{self, Judging, Room, Work};
use crate::store::{Store, StoreError, history};
use crate::triage::budget::Purse;
use crate::triage::config::Trust;
use crate::triage::history::History;
use crate::triage::judge::Judge;
use crate::triage::{Deliver, Judged, Known, Step, Triage, TriageError, Triager, Verdict};

/// Takes waiting alerts to triage.
pub struct Pipeline {
    pub store: Store,
    pub clock: Clock,
    /// `None` where triage is off.
    pub reading: Option<Reading>,
}

/// How alerts are read.
pub struct Reading {
    pub triager: Triager,
    /// The judge of the moment; a new one comes with what is learned.
    pub judge: watch::Receiver<Arc<Judge>>,
    /// For one step of one alert, prompt to last token.
    pub limit: Duration,
    /// Alerts that are at one step at the same time.
    pub batch: usize,
    /// Alerts that may wait for prose.
    pub queue: usize,
    /// What the model may write an hour.
    pub purse: Purse,
    pub deliver: Deliver,
    pub trust: Trust,
}

impl Pipeline {
    /// Works until `shutdown`; alerts that are being read then go back to the queue.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { store, clock, reading } = self;
        match reading {
            None => settle_leftovers(&store, clock).await,
            Some(reading) => Arc::new(Worker { store, clock, reading }).run(shutdown).await,
        }
    }
}

struct Worker {
    store: Store,
    clock: Clock,
    reading: Reading,
}

impl Worker {
    async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut flights = Flights::default();
        flights.tasks.spawn(Arc::clone(&self).warm_up(shutdown.clone()));
        while !shutdown.is_cancelled() {
            if let Err(error) = self.take(&mut flights, &shutdown).await {
                tracing::error!(%error, "the triage queue cannot be read");
                pause(&shutdown).await;
                continue;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                Some(ended) = flights.tasks.join_next_with_id() => flights.landed(ended),
                () = self.store.signals().alert_saved.notified() => {}
            }
            while let Some(ended) = flights.tasks.try_join_next_with_id() {
                flights.landed(ended);
            }
        }
        while flights.tasks.join_next().await.is_some() {}
        self.reading.triager.shutdown().await;
    }

    async fn warm_up(self: Arc<Self>, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.reading.triager.warm_up() => {}
        }
    }

    /// Starts the most urgent steps that there is room for.
    async fn take(
        self: &Arc<Self>,
        flights: &mut Flights,
        shutdown: &CancellationToken,
    ) -> Result<(), StoreError> {
        let rooms = [Step::Verdict, Step::Prose].map(|step| flights.room(step, self.reading.batch));
        if rooms.iter().all(|room| room.free == 0) {
            return Ok(());
        }
        let now = self.clock.now();
        let taken = self.store.write(move |tx| queue::take(tx, &rooms, now)).await?;
        if taken.given_up > 0 {
            tracing::warn!(
                alerts = taken.given_up,
                "given up: reading them ended the process or the model every time"
            );
            self.store.signals().outbox_changed.notify_one();
        }
        for work in taken.work {
            flights.start(Arc::clone(self), work, shutdown.clone());
        }
        Ok(())
    }

    /// One step of one alert, from the queue to the store.
    async fn work(self: Arc<Self>, work: Work, shutdown: CancellationToken) {
        let Work { alert, verdict } = work;
        let alert = Arc::new(alert);
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return self.put_back(&alert.id).await,
            outcome = self.read(&alert, verdict) => outcome,
        };
        // What cannot be saved now (a full disk) is kept and saved when it can be.
        while let Err(error) = self.save(&alert.id, &outcome).await {
            tracing::error!(alert = alert.id, %error, "what triage said could not be saved, trying again");
            if shutdown.is_cancelled() {
                return;
            }
            pause(&shutdown).await;
        }
    }

    async fn read(&self, alert: &Arc<Alert>, verdict: Option<Box<Verdict>>) -> Outcome {
        let Reading { triager, limit, .. } = &self.reading;
        let outcome = match verdict.clone() {
            None => triager.judge(alert, self.known(alert).await, *limit).await.map(|mut judged| {
                judged.verdict.cost.seconds_to_verdict = self.seconds_since_creation(alert);
                Outcome::Judged(Box::new(judged))
            }),
            Some(verdict) => self.describe(alert, *verdict).await.map(|mut described| {
                described.cost.seconds_to_prose = self.seconds_since_creation(alert);
                Outcome::Settled(Triage::Done { verdict: Box::new(described) })
            }),
        };
        match (outcome, verdict) {
            (Ok(outcome), _) => outcome,
            // Shutdown, or somebody else's defect: it stays in the queue, which counts the attempt.
            (Err(error @ (TriageError::Cancelled | TriageError::ShutDown | TriageError::Died { .. })), _) => {
                tracing::warn!(alert = alert.id, %error, "triage broke off");
                Outcome::Again
            }
            (Err(error), None) => {
                tracing::warn!(alert = alert.id, rule = alert.rule_id(), %error, "triage failed");
                Outcome::Settled(Triage::Failed { reason: error.to_string() })
            }
            (Err(error), Some(mut verdict)) => {
                // That there is no model was said at the start, and every verdict says so.
                if !matches!(error, TriageError::Unavailable { .. }) {
                    tracing::warn!(alert = alert.id, rule = alert.rule_id(), %error, "no prose");
                }
                verdict.cost.seconds_to_prose = self.seconds_since_creation(alert);
                let verdict = Box::new(verdict.without_prose(&error.to_string()));
                Outcome::Settled(Triage::Done { verdict })
            }
        }
    }

    /// Within the hour's budget.
    async fn describe(&self, alert: &Arc<Alert>, verdict: Verdict) -> Result<Verdict, TriageError> {
        let Reading { triager, limit, purse, .. } = &self.reading;
        let severity = verdict.severity;
        if let Err(reason) = purse.take(severity, self.clock.now()) {
            return Ok(verdict.without_prose(&reason));
        }
        let described = triager.describe(alert, verdict, *limit).await;
        let was_asked = described.as_ref().is_ok_and(|described| described.cost.reused_from.is_none());
        if !was_asked {
            purse.give_back(severity);
        }
        described
    }

    /// What the site knows of an alert now. A history that cannot be read holds up no verdict.
    async fn known(&self, alert: &Arc<Alert>) -> Known {
        let subject = Arc::clone(alert);
        let history = self.store.read(move |connection| history::look_up(connection, &subject)).await;
        let history = history.unwrap_or_else(|error| {
            tracing::error!(alert = alert.id, %error, "judged without its history, which cannot be read");
            History::default()
        });
        Known { history, judge: Arc::clone(&self.reading.judge.borrow()) }
    }

    /// The alert's time is the clock's, which tests move.
    fn seconds_since_creation(&self, alert: &Alert) -> Option<f64> {
        Some(self.clock.now().duration_since(alert.created_at).as_secs_f64().max(0.0))
    }

    async fn save(&self, id: &str, outcome: &Outcome) -> Result<(), StoreError> {
        let (id, outcome, now) = (id.to_owned(), outcome.clone(), self.clock.now());
        let judging = Judging {
            deliver: self.reading.deliver == Deliver::Verdict,
            capacity: self.reading.queue,
            trust: self.reading.trust.clone(),
        };
        self.store
            .write(move |tx| match outcome {
                Outcome::Judged(judged) => queue::judge(tx, &id, *judged, judging, now),
                Outcome::Settled(triage) => queue::settle(tx, &id, &triage, now),
                Outcome::Again => Ok(()),
            })
            .await?;
        self.store.signals().outbox_changed.notify_one();
        Ok(())
    }

    async fn put_back(&self, id: &str) {
        let id = id.to_owned();
        if let Err(error) = self.store.write(move |tx| queue::put_back(tx, &id)).await {
            tracing::error!(%error, "an alert taken for triage could not be put back");
        }
    }
}

/// What came of one step.
#[derive(Clone)]
enum Outcome {
    Judged(Box<Judged>),
    Settled(Triage),
    /// Nothing: it waits for another attempt.
    Again,
}

/// Alerts that are being read.
#[derive(Default)]
struct Flights {
    tasks: JoinSet<()>,
    at: HashMap<task::Id, (Step, String)>,
}

impl Flights {
    fn start(&mut self, worker: Arc<Worker>, work: Work, shutdown: CancellationToken) {
        let step = if work.verdict.is_some() { Step::Prose } else { Step::Verdict };
        let alert = work.alert.id.clone();
        let task = self.tasks.spawn(worker.work(work, shutdown)).id();
        self.at.insert(task, (step, alert));
    }

    fn room(&self, step: Step, batch: usize) -> Room {
        let busy: Vec<String> =
            self.at.values().filter(|(at, _)| *at == step).map(|(_, alert)| alert.clone()).collect();
        Room { step, free: batch.saturating_sub(busy.len()), busy }
    }

    /// Frees the place. A step that panicked is attempted again, as its alert is still in the queue.
    fn landed(&mut self, ended: Result<(task::Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        if let (Some((_, alert)), Err(error)) = (self.at.remove(&id), ended) {
            tracing::error!(%error, alert, "triage broke off");
        }
    }
}

/// Alerts that waited for the model when triage was turned off are not held for ever.
async fn settle_leftovers(store: &Store, clock: Clock) {
    let now = clock.now();
    let reason = "triage was turned off while this alert waited for it";
    match store.write(move |tx| queue::settle_all(tx, reason, now)).await {
        Ok(0) => {}
        Ok(alerts) => {
            tracing::warn!(alerts, reason, "triage ended");
            store.signals().outbox_changed.notify_one();
        }
        Err(error) => tracing::error!(%error, "alerts that wait for triage could not be settled"),
    }
}

async fn pause(shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
}
