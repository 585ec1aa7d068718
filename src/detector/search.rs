//! One rule of one detector: its tick, from what is due to what is saved.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::slots::Slots;
use super::windows;
use crate::alert::{self, Alert, Data};
use crate::clock::{Clock, Timestamp, Window};
use crate::config;
use crate::datasource::{Datasource, Limits, QueryError};
use crate::rule::Rule;
use crate::rule::template::{self, Context, Query, RenderError};
use crate::store::{Store, StoreError, alerts, rules};

/// A rule that is ready to be searched.
pub struct Search {
    watch: Arc<Watch>,
    rule: Rule,
    query: Query,
    source: Arc<Source>,
    store: Store,
    clock: Clock,
    triage: Option<TriagePolicy>,
    state: Mutex<State>,
    is_running: AtomicBool,
    overlaps: AtomicU64,
}

/// A detector with what its rules share of it.
pub struct Watch {
    pub detector: config::Detector,
    /// Cap on one tick of one rule (`max_detector_time`).
    pub limit: Option<Duration>,
    snapshot: Map<String, Value>,
    for_templates: minijinja::Value,
}

impl Watch {
    /// `datasource` is the default one's settings, which clickdetect shows inside the detector.
    pub fn new(detector: config::Detector, limit: Option<Duration>, datasource: &Map<String, Value>) -> Self {
        let mut snapshot = detector.to_map(limit);
        snapshot.insert("datasource".into(), datasource.clone().into());
        Self { detector, limit, for_templates: template::value(&snapshot), snapshot }
    }
}

/// A datasource with how many queries may run on it.
pub struct Source {
    pub datasource: Arc<dyn Datasource>,
    slots: Slots,
    for_templates: minijinja::Value,
}

impl Source {
    pub fn new(datasource: Arc<dyn Datasource>) -> Self {
        let for_templates = template::value(datasource.settings());
        Self { datasource, slots: Slots::default(), for_templates }
    }
}

/// How alerts wait for triage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TriagePolicy {
    /// Delivery waits that long for verdict and prose.
    pub deadline: Duration,
    /// Alerts that may wait for the model at one time.
    pub capacity: usize,
}

#[derive(Default)]
struct State {
    /// Unix seconds; `None` until it was read from the store.
    cursor_s: Option<i64>,
    /// The last error, to log a problem when it begins and when it ends, not at every tick.
    failing: Option<String>,
}

/// What the search of one window found.
#[derive(Debug)]
pub struct Found {
    pub count: u64,
    /// Present where the rule's size holds.
    pub alert: Option<Alert>,
}

/// Why a window was not searched. Its cursor stays, and the next tick searches it again.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("query template: {0}")]
    Render(#[from] RenderError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("not finished within max_detector_time ({0:?})")]
    DetectorTime(Duration),
}

/// A rule's turn: over when this is dropped, also by a panic, so that a rule cannot stay out for ever.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(is_running: &'a AtomicBool) -> Option<Self> {
        // Lazily: a `Turn` that is made and not taken would end the one that runs.
        let is_free = !is_running.swap(true, Ordering::AcqRel);
        is_free.then(|| Self(is_running))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Search {
    /// `triage` is `None` where this rule's alerts are not triaged.
    pub fn new(
        watch: Arc<Watch>,
        rule: Rule,
        query: Query,
        source: Arc<Source>,
        store: Store,
        clock: Clock,
        triage: Option<TriagePolicy>,
    ) -> Self {
        Self {
            watch,
            rule,
            query,
            source,
            store,
            clock,
            triage,
            state: Mutex::default(),
            is_running: AtomicBool::new(false),
            overlaps: AtomicU64::new(0),
        }
    }

    pub fn rule_id(&self) -> &str {
        &self.rule.id
    }

    pub fn detector_key(&self) -> &str {
        &self.watch.detector.key
    }

    /// Searches what is due at `due`. Shutdown drops the query and leaves the cursor where it was.
    pub async fn tick(self: Arc<Self>, due: Timestamp, shutdown: CancellationToken) {
        let Some(_turn) = Turn::take(&self.is_running) else {
            self.count_overlap().await;
            return;
        };
        let limit = self.watch.limit;
        let search = async {
            match limit {
                None => self.catch_up(due).await,
                Some(limit) => tokio::time::timeout(limit, self.catch_up(due))
                    .await
                    .unwrap_or(Err(SearchError::DetectorTime(limit))),
            }
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => None,
            result = search => Some(result),
        };
        if let Some(result) = result {
            self.report(result).await;
        }
    }

    /// Searches all windows from the cursor to `due`, oldest first; stops at the first that fails.
    async fn catch_up(&self, due: Timestamp) -> Result<(), SearchError> {
        let delay_s = self.watch.detector.delay.as_secs() as i64;
        let end_s = due.as_second() - delay_s;
        let cursor_s = self.cursor(end_s).await?;
        let plan =
            windows::plan(cursor_s, end_s, self.watch.detector.interval, self.watch.detector.max_catch_up);
        if let Some(gap) = plan.gap {
            self.give_up(gap).await?;
        }
        for window in plan.pieces {
            let found = self.search(window).await?;
            self.save(window, found).await?;
        }
        Ok(())
    }

    /// Where this rule stands. A first start looks back one interval; so does a rule whose cursor lies in the
    /// future, because the clock was set back: better to search some seconds twice than to pass over any.
    async fn cursor(&self, end_s: i64) -> Result<i64, SearchError> {
        let look_back_s = end_s - self.watch.detector.interval.as_secs_f64().ceil() as i64;
        let known = self.state().cursor_s;
        let known = match known {
            Some(cursor_s) => Some(cursor_s),
            None => {
                let (detector, rule) = (self.watch.detector.key.clone(), self.rule.id.clone());
                self.store.read(move |connection| rules::cursor(connection, &detector, &rule)).await?
            }
        };
        let cursor_s = match known {
            None => look_back_s,
            Some(cursor_s) if cursor_s > self.clock.now().as_second() + 1 => {
                let (detector, rule) = (&self.watch.detector.key, &self.rule.id);
                tracing::warn!(%detector, %rule, cursor_s, "the clock was set back: searching again from one interval ago");
                look_back_s
            }
            Some(cursor_s) => cursor_s,
        };
        self.state().cursor_s = Some(cursor_s);
        Ok(cursor_s)
    }

    /// Runs the rule's query over one window and holds the count against its size. Saves nothing.
    pub async fn search(&self, window: Window) -> Result<Found, SearchError> {
        let limits = Limits {
            time: self.watch.detector.timeout,
            rows: self.watch.detector.max_rows,
            bytes: self.watch.detector.max_bytes,
        };
        let query = self.query.render(&Context {
            window,
            interval: &self.watch.detector.for_text,
            detector: self.watch.for_templates.clone(),
            datasource: self.source.for_templates.clone(),
        })?;
        let datasource = &self.source.datasource;
        let rows = self.source.slots.run(datasource.query(&query, window, &limits)).await?;
        if !self.rule.size.holds(rows.count) {
            return Ok(Found { count: rows.count, alert: None });
        }
        let settings = datasource.settings();
        let kind = settings.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let alert = Alert {
            id: alert::identity(&self.watch.detector.key, &self.rule.id, window),
            rule: self.rule_snapshot(),
            detector: self.watch.snapshot.clone(),
            datasource: settings.clone(),
            data: Data { len: rows.count, value: rows.rows, datasource: kind, cut: rows.cut },
            window,
            created_at: self.clock.now(),
        };
        Ok(Found { count: rows.count, alert: Some(alert) })
    }

    /// Alert and cursor in ONE transaction: both or neither.
    async fn save(&self, window: Window, found: Found) -> Result<(), SearchError> {
        let (detector, rule) = (self.watch.detector.key.clone(), self.rule.id.clone());
        let now = self.clock.now();
        let handling = alerts::Handling {
            webhooks: self.watch.detector.webhooks.clone(),
            triage: self.triage.map(|policy| alerts::Queueing {
                hold_until: now.checked_add(policy.deadline).unwrap_or(now),
                capacity: policy.capacity,
            }),
        };
        let end_s = window.end.as_second();
        let is_new = self
            .store
            .write(move |tx| {
                rules::set_cursor(tx, &detector, &rule, end_s, now)?;
                match &found.alert {
                    Some(alert) => alerts::insert(tx, &detector, alert, &handling),
                    None => Ok(false),
                }
            })
            .await?;
        self.state().cursor_s = Some(end_s);
        if is_new {
            let (detector, rule) = (&self.watch.detector.key, &self.rule.id);
            tracing::info!(%detector, %rule, %window, "rule fired");
            self.store.signals().alert_saved.notify_one();
            self.store.signals().outbox_changed.notify_one();
        }
        Ok(())
    }

    /// Records `gap` and moves the cursor past it, both or neither.
    async fn give_up(&self, window: Window) -> Result<(), SearchError> {
        let now = self.clock.now();
        let reason = format!(
            "older than max_catch_up ({:?}) when the rule could be searched again",
            self.watch.detector.max_catch_up
        );
        let (detector, rule) = (self.watch.detector.key.clone(), self.rule.id.clone());
        tracing::warn!(%detector, %rule, %window, reason, "gap: this window will not be searched");
        let gap = rules::Gap { detector, rule, window, reason, recorded_at: now };
        let end_s = window.end.as_second();
        self.store
            .write(move |tx| {
                rules::record_gap(tx, &gap)?;
                rules::set_cursor(tx, &gap.detector, &gap.rule, end_s, now)
            })
            .await?;
        self.state().cursor_s = Some(end_s);
        Ok(())
    }

    /// Logs a problem when it begins, changes or ends, and counts every failure in the store.
    async fn report(&self, result: Result<(), SearchError>) {
        let (detector, rule) = (&self.watch.detector.key, &self.rule.id);
        let Err(error) = result else {
            if self.state().failing.take().is_some() {
                tracing::info!(%detector, %rule, "rule is searched again");
            }
            return;
        };
        let text = error.to_string();
        let before = self.state().failing.replace(text.clone());
        if before.as_ref() == Some(&text) {
            tracing::debug!(%detector, %rule, error = text, "search failed again, window kept");
        } else {
            tracing::warn!(%detector, %rule, error = text, "search failed, window kept");
        }
        let (detector, rule) = (detector.clone(), rule.clone());
        let now = self.clock.now();
        let recorded =
            self.store.write(move |tx| rules::record_failure(tx, &detector, &rule, &text, now)).await;
        if let Err(error) = recorded {
            tracing::error!(%error, rule = %self.rule.id, "a failed search could not be recorded");
        }
    }

    async fn count_overlap(&self) {
        let overlaps = self.overlaps.fetch_add(1, Ordering::Relaxed) + 1;
        let (detector, rule) = (self.watch.detector.key.clone(), self.rule.id.clone());
        if overlaps == 1 {
            tracing::warn!(%detector, %rule, "a tick is due while the last one still runs: not started twice");
        }
        if let Err(error) = self.store.write(move |tx| rules::record_overlap(tx, &detector, &rule)).await {
            tracing::error!(%error, rule = %self.rule.id, "an overlap could not be recorded");
        }
    }

    fn rule_snapshot(&self) -> Map<String, Value> {
        let description = self.query.render_description(&self.watch.for_templates).unwrap_or_else(|error| {
            tracing::warn!(rule = %self.rule.id, %error, "description is delivered as it is written");
            self.rule.description.clone()
        });
        let mut snapshot = self.rule.to_map();
        snapshot.insert("description".into(), description.into());
        snapshot.insert("detector".into(), self.watch.detector.data.clone());
        snapshot
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
