//! What happens to an alert, top to bottom. Read this first.
//!
//! 1. A detector is due ([`crate::detector::schedule`]); each of its rules searches the windows between its
//!    cursor and now ([`crate::detector::Search`]).
//! 2. A rule whose size holds makes an [`Alert`]. Alert, cursor, the outbox's rows and the place in the triage
//!    queue are saved in one transaction ([`crate::store::alerts::insert`]).
//! 3. [`Pipeline`] (here) takes the most urgent waiting alert to the model, one at a time, and saves what triage
//!    says. Detection never waits for it.
//! 4. Delivery ([`crate::webhook::delivery`]) sends each alert when its verdict is there, or without it when
//!    `triage.deadline` has passed; then the verdict follows as an update.
//!
//! Every step's result is in the store before the next begins, so that a process that ends at any moment goes on
//! where it was.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::alert::Alert;
use crate::clock::Clock;
use crate::store::{Store, StoreError, alerts};
use crate::triage::{Triage, Triager};

/// Takes waiting alerts to triage.
pub struct Pipeline {
    pub store: Store,
    pub clock: Clock,
    /// `None` where triage is off.
    pub triager: Option<Triager>,
    /// For one alert, prompt to last token.
    pub triage_limit: Duration,
}

impl Pipeline {
    /// Works until `shutdown`; an alert that is being read then goes back to the queue.
    pub async fn run(self, shutdown: CancellationToken) {
        let Some(triager) = &self.triager else {
            self.settle_leftovers().await;
            return;
        };
        while !shutdown.is_cancelled() {
            let now = self.clock.now();
            match self.store.write(move |tx| alerts::next_for_triage(tx, now)).await {
                Ok(Some(alert)) => self.triage(triager, alert, &shutdown).await,
                Ok(None) => tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.store.signals().alert_saved.notified() => {}
                },
                Err(error) => {
                    tracing::error!(%error, "the triage queue cannot be read");
                    pause(&shutdown).await;
                }
            }
        }
    }

    async fn triage(&self, triager: &Triager, alert: Alert, shutdown: &CancellationToken) {
        let id = alert.id.clone();
        let verdict = tokio::select! {
            () = shutdown.cancelled() => {
                let returned = self.store.write(move |tx| alerts::return_to_queue(tx, &id)).await;
                if let Err(error) = returned {
                    tracing::error!(%error, "an alert taken for triage could not be put back");
                }
                return;
            }
            verdict = triager.triage(&alert, self.triage_limit) => verdict,
        };
        let triage = match verdict {
            Ok(verdict) => Triage::Done { verdict: Box::new(verdict) },
            Err(error) => {
                tracing::warn!(alert = id, rule = alert.rule_id(), %error, "triage failed");
                Triage::Failed { reason: error.to_string() }
            }
        };
        // A verdict that cannot be saved now (a full disk) is kept and saved when it can be.
        while let Err(error) = self.settle(&id, &triage).await {
            tracing::error!(alert = id, %error, "a verdict could not be saved, trying again");
            if shutdown.is_cancelled() {
                return;
            }
            pause(shutdown).await;
        }
    }

    async fn settle(&self, id: &str, triage: &Triage) -> Result<(), StoreError> {
        let (id, triage, now) = (id.to_owned(), triage.clone(), self.clock.now());
        self.store.write(move |tx| alerts::settle(tx, &id, &triage, now)).await?;
        self.store.signals().outbox_changed.notify_one();
        Ok(())
    }

    /// Alerts that waited for the model when triage was turned off are not held for ever.
    async fn settle_leftovers(&self) {
        let now = self.clock.now();
        let reason = "triage was turned off while this alert waited for it";
        match self.store.write(move |tx| alerts::settle_all_waiting(tx, reason, now)).await {
            Ok(0) => {}
            Ok(alerts) => {
                tracing::warn!(alerts, reason, "triage failed");
                self.store.signals().outbox_changed.notify_one();
            }
            Err(error) => tracing::error!(%error, "alerts that wait for triage could not be settled"),
        }
    }
}

async fn pause(shutdown: &CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
}
