//! The judge learns while the service runs: closings come from commands beside it, so it looks for them in the store, learns
//! from all that count, keeps what it learned as a new version, and hands it to triage.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store::judges::{self, Standing};
use crate::store::{Store, StoreError, trust};
use crate::triage::config::Trust;
use crate::triage::judge::Judge;
use crate::triage::judge::learn::{Lesson, Parts, learn};

/// The judge that is to be used now, and why it is not the one that was learned or chosen, where it is not.
pub fn current(store: &Store) -> Result<(Judge, Option<String>), StoreError> {
    let version = store.read_here(judges::standing)?.version().to_owned();
    Ok(match store.read_here(|connection| judges::load(connection, &version))? {
        Ok(judge) => (judge, None),
        Err(reason) => {
            let hint = "verdicts are by the formula, uncalibrated, until another one is learned or chosen";
            (Judge::prior(), Some(format!("judge `{version}`: {reason}; {hint}")))
        }
    })
}

/// Learns until `shutdown`, and ends trust in the machine that the closings do not bear any more.
pub async fn run(
    store: Store,
    clock: Clock,
    judge: watch::Sender<Arc<Judge>>,
    asked: Trust,
    shutdown: CancellationToken,
) {
    let mut learning = Learning { store, clock, judge, asked, seen: None, rest: LOOK_EVERY };
    loop {
        if let Err(error) = learning.look().await {
            tracing::error!(%error, "the judge cannot learn now; it tries again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(learning.rest) => {}
        }
    }
}

struct Learning {
    store: Store,
    clock: Clock,
    judge: watch::Sender<Arc<Judge>>,
    asked: Trust,
    /// As it was at the last look.
    seen: Option<Standing>,
    /// Until the next look.
    rest: Duration,
}

impl Learning {
    async fn look(&mut self) -> Result<(), StoreError> {
        self.rest = LOOK_EVERY;
        let mut standing = self.store.read(judges::standing).await?;
        if self.seen.as_ref() == Some(&standing) {
            return Ok(());
        }
        let (asked, now) = (self.asked.clone(), self.clock.now());
        self.store.write(move |tx| trust::review(tx, &asked, now)).await?;
        if standing.changes > standing.learned {
            let began = Instant::now();
            learn_now(&self.store, &self.clock).await?;
            // However long it takes, a tenth of one processor at most goes into it.
            self.rest = LOOK_EVERY.max(began.elapsed() * 9);
            standing = self.store.read(judges::standing).await?;
        }
        let (mut judge, problem) = self.load().await?;
        if let Some(problem) = problem {
            tracing::error!(problem, "the judge is not in use");
            if standing.chosen.is_none() {
                learn_now(&self.store, &self.clock).await?;
                judge = self.load().await?.0;
                standing = self.store.read(judges::standing).await?;
            }
        }
        if self.judge.borrow().version != judge.version {
            let (version, (threats, benign)) = (&judge.version, judge.learned);
            tracing::info!(version, threats, benign, "a judge is in use");
            self.judge.send_replace(Arc::new(judge));
        }
        self.seen = Some(standing);
        Ok(())
    }

    async fn load(&self) -> Result<(Judge, Option<String>), StoreError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || current(&store)).await.map_err(|_| StoreError::Closed)?
    }
}

/// Learns from what was closed until now, and keeps it. Takes 0.05 to 0.3 s for 400 closings, 1 to 2 s for 4,000, on one processor.
pub async fn learn_now(store: &Store, clock: &Clock) -> Result<(), StoreError> {
    // Whatever is closed after this is learned the next time.
    let changes = store.read(judges::standing).await?.changes;
    let (lessons, found) = store.read(judges::lessons).await?;
    let learned =
        tokio::task::spawn_blocking(move || learn(&lessons.iter().collect::<Vec<&Lesson>>(), Parts::ALL));
    let learned = learned.await.map_err(|_| StoreError::Closed)?;
    let now = clock.now();
    store
        .write(move |tx| {
            judges::keep_found(tx, &found)?;
            judges::keep(tx, &learned, changes, now)
        })
        .await
}

const LOOK_EVERY: Duration = Duration::from_secs(2);
