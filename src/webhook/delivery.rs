//! The worker that empties the outbox: claims what is due, composes it, sends it, records how it ended.
//!
//! It sleeps until the next attempt is due or somebody saves an alert. Each webhook has slots of its own, so that
//! one dead receiver holds up nobody else.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Transaction;
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::attempt::{self, Meaning};
use super::{MAX_PREPARATIONS, MAX_READ_BYTES, Message, Outgoing, Webhook};
use crate::clock::{Clock, Timestamp};
use crate::http::{Answer, Http, HttpError, Request};
use crate::mail::Mail;
use crate::store::outbox::{self, Claim, Content, Ended, Kind, Outcome, Slots};
use crate::store::{Store, StoreError};
use crate::text;

/// Where text for standard output goes; called on a blocking thread, one call at a time for each webhook.
pub type Print = Arc<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// [`Print`] to the process's standard output.
pub fn to_stdout() -> Print {
    Arc::new(|text| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()
    })
}

/// The worker. One for a store.
pub struct Delivery {
    store: Store,
    webhooks: HashMap<String, Arc<dyn Webhook>>,
    http: Http,
    clock: Clock,
    print: Print,
}

impl Delivery {
    /// `http` reaches every destination of `webhooks`.
    pub fn new(
        store: Store,
        webhooks: HashMap<String, Arc<dyn Webhook>>,
        http: Http,
        clock: Clock,
        print: Print,
    ) -> Self {
        Self { store, webhooks, http, clock, print }
    }

    /// Delivers until `shutdown`; then lets what is being sent end, for [`GRACE`] at most. What does not is sent
    /// again after the next start, with the same key.
    pub async fn run(self, shutdown: CancellationToken) {
        let worker = Arc::new(self);
        let mut flights = Flights::default();
        tokio::select! {
            () = worker.start() => {}
            () = shutdown.cancelled() => return,
        }
        loop {
            let next = worker.claim(&mut flights).await;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = flights.tasks.join_next_with_id() => worker.landed(&mut flights, ended),
                () = worker.store.signals().outbox_changed.notified() => {}
                () = worker.clock.sleep_until(next) => {}
            }
            while let Some(ended) = flights.tasks.try_join_next_with_id() {
                worker.landed(&mut flights, ended);
            }
        }
        let all_ended = async { while flights.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all_ended).await.is_err() {
            warn!(
                unfinished = flights.tasks.len(),
                "deliveries were cut off by shutdown, the next start sends them again"
            );
            flights.tasks.shutdown().await;
        }
    }

    /// Puts the outbox in order after whatever ended the last run.
    async fn start(&self) {
        loop {
            let known: Vec<String> = self.webhooks.keys().cloned().collect();
            let now = self.now_ms();
            let order = move |tx: &Transaction<'_>| {
                Ok((outbox::recover(tx, now)?, outbox::bury_unknown(tx, &known)?))
            };
            match self.store.write(order).await {
                Ok((again, unknown)) => {
                    if again > 0 {
                        info!(deliveries = again, "sending again what the last run did not finish");
                    }
                    if unknown > 0 {
                        warn!(
                            deliveries = unknown,
                            "the configuration no longer has their webhooks: moved to the dead letters"
                        );
                    }
                    return;
                }
                Err(error) => {
                    error!(%error, "outbox cannot be read, trying again");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    /// Starts what is due and has a free slot, and says when to look again.
    async fn claim(self: &Arc<Self>, flights: &mut Flights) -> Timestamp {
        let slots: Vec<Slots> = self
            .webhooks
            .iter()
            .map(|(name, webhook)| Slots {
                webhook: name.clone(),
                free: flights.free(name, webhook.as_ref()),
            })
            .filter(|slots| slots.free > 0)
            .collect();
        let now = self.clock.now();
        let now_ms = now.as_millisecond();
        let work = move |tx: &Transaction<'_>| {
            let claims = outbox::claim_due(tx, &slots, now_ms)?;
            Ok((claims, outbox::next_due(tx, &slots, now_ms)?))
        };
        match self.store.write(work).await {
            Ok((claims, next)) => {
                for claim in claims {
                    flights.start(&claim, Arc::clone(self).attempt(claim.clone()));
                }
                // A point in time and no pause: the clock may have moved since `now` was read.
                let latest = after(now, MAX_SLEEP);
                next.and_then(|next| Timestamp::from_millisecond(next).ok())
                    .map_or(latest, |next| next.min(latest))
            }
            Err(error) => {
                error!(%error, "outbox cannot be read, trying again");
                after(self.clock.now(), STORE_PAUSE)
            }
        }
    }

    /// Frees the slot. An attempt that panicked is recorded as failed, so that its delivery comes again.
    fn landed(self: &Arc<Self>, flights: &mut Flights, ended: Result<(task::Id, ()), JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        let Some(claim) = flights.claims.remove(&id) else { return };
        if let Err(error) = ended {
            error!(%error, alert = claim.alert_id, webhook = claim.webhook, "delivery broke off");
            let ended = self.later(&claim, None, None, "the attempt broke off, see the log".into());
            let worker = Arc::clone(self);
            flights.start(&claim.clone(), async move { worker.record(&claim, ended).await });
        }
    }

    async fn attempt(self: Arc<Self>, claim: Claim) {
        let ended = self.deliver(&claim).await;
        let (alert, webhook, attempts) = (&claim.alert_id, &claim.webhook, claim.attempts);
        match ended.outcome {
            Outcome::Done => debug!(alert, webhook, attempts, "delivered"),
            Outcome::Again { .. } => {
                warn!(alert, webhook, attempts, answer = ended.answer, "not delivered, will be sent again")
            }
            Outcome::Dead => error!(
                alert,
                webhook,
                attempts,
                answer = ended.answer,
                "not delivered: moved to the dead letters"
            ),
        }
        self.record(&claim, ended).await;
    }

    /// Until it is saved: a delivery without its end would never be attempted again before the next start.
    async fn record(&self, claim: &Claim, ended: Ended) {
        loop {
            let (id, now, ended, webhook) = (claim.id, self.now_ms(), ended.clone(), claim.webhook.clone());
            let record = move |tx: &Transaction<'_>| {
                if let (Outcome::Again { at }, Some(TOO_MANY)) = (ended.outcome, ended.status) {
                    outbox::postpone(tx, &webhook, at)?;
                }
                outbox::finish(tx, id, &ended, now)
            };
            match self.store.write(record).await {
                Ok(()) | Err(StoreError::Closed) => return,
                Err(error) => {
                    error!(%error, webhook = claim.webhook, "outcome of a delivery cannot be saved, trying again");
                    tokio::time::sleep(STORE_PAUSE).await;
                }
            }
        }
    }

    async fn deliver(&self, claim: &Claim) -> Ended {
        let id = claim.id;
        let content = match self.store.read(move |connection| outbox::content(connection, id)).await {
            Ok(content) => content,
            Err(error) => return self.later(claim, None, None, error.to_string()),
        };
        let Some(webhook) = self.webhooks.get(&claim.webhook).cloned() else {
            return dead(None, "the configuration has no such webhook".into());
        };
        if let Err(ended) = self.prepare(claim, webhook.as_ref()).await {
            return ended;
        }
        let (is_update, key) = (claim.kind == Kind::Update, claim.idempotency_key.clone());
        // A large alert or a busy template would hold up other tasks of this thread.
        let composing = Arc::clone(&webhook);
        let composed =
            task::spawn_blocking(move || compose(composing.as_ref(), &content, is_update, &key)).await;
        match composed {
            Ok(Ok(Outgoing::Http(request))) => self.post(claim, webhook.as_ref(), &request).await,
            Ok(Ok(Outgoing::Mail(mail))) => self.mail(claim, webhook.as_ref(), &mail).await,
            Ok(Ok(Outgoing::Stdout(text))) => self.write(claim, text).await,
            Ok(Err(reason)) => dead(None, reason),
            Err(panic) => dead(None, format!("the message cannot be composed: {panic}")),
        }
    }

    /// Fetches what composing needs and the webhook does not have.
    async fn prepare(&self, claim: &Claim, webhook: &dyn Webhook) -> Result<(), Ended> {
        for _ in 0..MAX_PREPARATIONS {
            let Some(request) = webhook.preparation() else { return Ok(()) };
            let answer = self.send(claim, &request).await?;
            match Meaning::of_status(answer.status) {
                Meaning::Delivered => webhook
                    .prepared(&answer)
                    .map_err(|reason| self.later(claim, Some(answer.status), None, reason))?,
                _ if webhook.forgoes(&request, &answer) => {}
                meaning => return Err(self.undelivered(claim, Some(&request), &answer, meaning)),
            }
        }
        Err(self.later(claim, None, None, "the destination's answers lead to no message".into()))
    }

    async fn post(&self, claim: &Claim, webhook: &dyn Webhook, request: &Request) -> Ended {
        let answer = match self.send(claim, request).await {
            Ok(answer) => answer,
            Err(ended) => return ended,
        };
        match webhook.judge(&answer) {
            Meaning::Delivered => Ended {
                outcome: Outcome::Done,
                status: Some(answer.status),
                answer: bounded(&words(Some(request), &answer)),
                receipt: webhook.receipt(&answer),
            },
            meaning => self.undelivered(claim, Some(request), &answer, meaning),
        }
    }

    async fn mail(&self, claim: &Claim, webhook: &dyn Webhook, mail: &Mail) -> Ended {
        let Some(relay) = webhook.relay() else {
            return dead(None, "the webhook has no mail server".into());
        };
        let answer = match relay.send(mail).await {
            Ok(answer) => answer,
            Err(error) => return self.later(claim, None, None, error.to_string()),
        };
        match webhook.judge(&answer) {
            Meaning::Delivered => Ended {
                outcome: Outcome::Done,
                status: Some(answer.status),
                answer: bounded(&words(None, &answer)),
                // By this an answer finds it.
                receipt: Some(mail.id.clone()),
            },
            meaning => self.undelivered(claim, None, &answer, meaning),
        }
    }

    async fn send(&self, claim: &Claim, request: &Request) -> Result<Answer, Ended> {
        self.http.send(request, MAX_READ_BYTES).await.map_err(|error| match error {
            HttpError::TimedOut { .. } | HttpError::Unreachable { .. } => {
                self.later(claim, None, None, error.to_string())
            }
            error => dead(None, error.to_string()),
        })
    }

    /// `request` is what was answered, where that was HTTP.
    fn undelivered(
        &self,
        claim: &Claim,
        request: Option<&Request>,
        answer: &Answer,
        meaning: Meaning,
    ) -> Ended {
        let (status, words) = (answer.status, words(request, answer));
        match meaning {
            Meaning::Later { after } => {
                let header = answer.retry_after.as_deref();
                let asked = header.and_then(|header| attempt::retry_after(header, self.clock.now()));
                self.later(claim, Some(status), after.or(asked), format!("{status}: {words}"))
            }
            _ if (300..400).contains(&status) => {
                let location = answer.location.as_deref().unwrap_or_default();
                let location =
                    request.map_or_else(|| location.to_owned(), |request| request.redact(location));
                let leads = "redirects are not followed: set `url` to where it leads";
                dead(Some(status), format!("{status}: {leads}: `{location}`"))
            }
            _ => dead(Some(status), format!("{status}: {words}")),
        }
    }

    async fn write(&self, claim: &Claim, text: String) -> Ended {
        let print = Arc::clone(&self.print);
        match task::spawn_blocking(move || print(&text)).await {
            Ok(Ok(())) => {
                Ended { outcome: Outcome::Done, status: None, answer: String::new(), receipt: None }
            }
            Ok(Err(error)) => self.later(claim, None, None, format!("standard output: {error}")),
            Err(panic) => self.later(claim, None, None, format!("standard output: {panic}")),
        }
    }

    /// Another attempt, or the dead letters where there were enough.
    fn later(&self, claim: &Claim, status: Option<u16>, asked: Option<Duration>, answer: String) -> Ended {
        let now = self.clock.now();
        let first = Timestamp::from_millisecond(claim.first_attempt_at).unwrap_or(now);
        let max_wait =
            self.webhooks.get(&claim.webhook).map_or(STORE_PAUSE, |webhook| webhook.retry_max_wait());
        match attempt::wait(claim.attempts, first, now, asked, max_wait, &mut rand::rng()) {
            Some(pause) => {
                let at = after(now, pause).as_millisecond();
                Ended { outcome: Outcome::Again { at }, status, answer: bounded(&answer), receipt: None }
            }
            None => dead(status, format!("given up after {} attempts, the last: {answer}", claim.attempts)),
        }
    }

    fn now_ms(&self) -> i64 {
        self.clock.now().as_millisecond()
    }
}

/// Attempts that are under way.
#[derive(Default)]
struct Flights {
    tasks: JoinSet<()>,
    claims: HashMap<task::Id, Claim>,
}

impl Flights {
    fn start(&mut self, claim: &Claim, attempt: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(attempt).id();
        self.claims.insert(id, claim.clone());
    }

    fn free(&self, name: &str, webhook: &dyn Webhook) -> usize {
        let slots = webhook.slots();
        let busy = self.claims.values().filter(|claim| claim.webhook == name).count();
        slots.saturating_sub(busy)
    }
}

fn compose(webhook: &dyn Webhook, content: &Content, is_update: bool, key: &str) -> Result<Outgoing, String> {
    let unreadable =
        |what: &str, error: serde_json::Error| format!("the stored {what} cannot be read: {error}");
    let alert = serde_json::from_str(&content.alert).map_err(|error| unreadable("alert", error))?;
    let triage = serde_json::from_str(&content.triage).map_err(|error| unreadable("triage", error))?;
    let receipt = content.receipt.as_deref();
    let message = Message { alert: &alert, triage: &triage, is_update, idempotency_key: key, receipt };
    webhook.compose(&message).map_err(|error| error.to_string())
}

fn dead(status: Option<u16>, answer: String) -> Ended {
    Ended { outcome: Outcome::Dead, status, answer: bounded(&answer), receipt: None }
}

/// What an answer says, without the secrets of its request; a mail server never sees one in what it answers.
fn words(request: Option<&Request>, answer: &Answer) -> String {
    let said = String::from_utf8_lossy(&answer.body);
    request.map_or_else(|| said.to_string(), |request| request.redact(&said))
}

fn bounded(answer: &str) -> String {
    text::escape_within(answer, MAX_ANSWER_BYTES)
}

fn after(now: Timestamp, pause: Duration) -> Timestamp {
    now.checked_add(pause).unwrap_or(Timestamp::MAX)
}

/// Of a receiver's answer, kept with the delivery.
const MAX_ANSWER_BYTES: usize = 2048;
/// The status of a destination that wants a pause.
const TOO_MANY: u16 = 429;
/// Another process may put dead letters back (`watchpost deliveries retry`), and wakes nobody here.
const MAX_SLEEP: Duration = Duration::from_secs(30);
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// For what is being sent when shutdown comes.
pub const GRACE: Duration = Duration::from_secs(5);
