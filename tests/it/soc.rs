//! A small SOC for tests: real store, real schedule, real pipeline and delivery; a scripted datasource, a scripted
//! model, and a clock that moves only when the test says so.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use watchpost::clock::{Clock, Timestamp, Window};
use watchpost::config::Runner;
use watchpost::datasource::{Datasource, Limits, QueryError, Rows};
use watchpost::detector::{Search, Source, TriagePolicy, Watch, schedule};
use watchpost::http::Http;
use watchpost::pipeline::{Pipeline, Reading};
use watchpost::rule::load::RuleSet;
use watchpost::rule::template::{self, Query};
use watchpost::store::{Access, Store, alerts, rules};
use watchpost::webhook::Webhook;
use watchpost::webhook::delivery::{Delivery, Print};

/// Midnight, when every test begins.
pub const MIDNIGHT: &str = "2026-01-01T00:00:00Z";

pub struct Soc {
    pub datasource: Arc<Scripted>,
    pub store: Store,
    /// What the `stdout` webhook printed, a JSON value a line.
    pub printed: Arc<Mutex<Vec<Value>>>,
    clock: Clock,
    dir: tempfile::TempDir,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// Tasks that last until shutdown: schedules, delivery, with a model the pipeline.
    lasting: usize,
    /// While a blocking task runs, tokio's paused time does not move by itself. This one ends when it is dropped.
    _hold: std::sync::mpsc::Sender<()>,
}

/// One rule file: its name and its text.
pub type File<'a> = (&'a str, &'a str);

impl Soc {
    /// Starts a SOC at midnight, with a runner whose rules are `files`.
    pub async fn start(runner: &str, files: &[File<'_>]) -> Self {
        Self::start_with(runner, files, None).await
    }

    pub async fn start_with(
        runner: &str,
        files: &[File<'_>],
        triage: Option<(Reading, TriagePolicy)>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        std::fs::write(dir.path().join("runner.yml"), runner).unwrap();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        drop(tokio::task::spawn_blocking(move || held.recv()));
        let mut soc = Self {
            lasting: 0,
            datasource: Arc::default(),
            store: Store::open(&dir.path().join("soc.db"), Access::Service).unwrap(),
            printed: Arc::default(),
            clock: Clock::starting_at(MIDNIGHT.parse().unwrap()),
            dir,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            _hold: hold,
        };
        soc.run(triage);
        soc.settle().await;
        soc
    }

    fn run(&mut self, triage: Option<(Reading, TriagePolicy)>) {
        let runner = load(&self.dir.path().join("runner.yml"));
        let environment = template::environment();
        let (reading, policy) = triage.unzip();
        for detector in &runner.detectors {
            let set = RuleSet::load(&runner, detector, &environment);
            let watch = Watch::new(detector.clone(), runner.max_detector_time, self.datasource.settings());
            let watch = Arc::new(watch);
            let source = Arc::new(Source::new(Arc::clone(&self.datasource) as Arc<dyn Datasource>));
            let searches = set.rules.into_iter().map(|rule| {
                let query = Query::compile(&rule, &environment).unwrap();
                let (watch, source) = (Arc::clone(&watch), Arc::clone(&source));
                Arc::new(Search::new(watch, rule, query, source, self.store.clone(), self.clock, policy))
            });
            let (tasks, shutdown) = (self.tasks.clone(), self.shutdown.clone());
            self.tasks.spawn(schedule::run(
                searches.collect(),
                detector.interval,
                self.clock.now(),
                self.clock,
                tasks,
                shutdown,
            ));
        }
        let has_model = reading.is_some();
        let pipeline = Pipeline { store: self.store.clone(), clock: self.clock, reading };
        self.tasks.spawn(pipeline.run(self.shutdown.clone()));
        let webhooks: HashMap<String, Arc<dyn Webhook>> = runner
            .webhooks
            .iter()
            .map(|(name, config)| (name.clone(), watchpost::webhook::build(config, false).unwrap()))
            .collect();
        let http = Http::new(webhooks.values().filter_map(|webhook| webhook.destination())).unwrap();
        let printed = Arc::clone(&self.printed);
        let print: Print = Arc::new(move |text| {
            printed
                .lock()
                .unwrap()
                .extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
            Ok(())
        });
        let delivery = Delivery::new(self.store.clone(), webhooks, http, self.clock, print);
        self.tasks.spawn(delivery.run(self.shutdown.clone()));
        // Without a model the pipeline has nothing to wait for and ends.
        self.lasting = runner.detectors.len() + 1 + usize::from(has_model);
    }

    /// Moves the clock, second by second, and lets everything happen that is due.
    pub async fn advance(&self, by: Duration) {
        for _ in 0..by.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
            breathe(Duration::ZERO).await;
        }
        self.settle().await;
    }

    /// Lets what is under way come to rest: every tick has ended, or hangs in a query that the test holds. The
    /// store works in real time, on threads of its own.
    pub async fn settle(&self) {
        let mut quiet = 0;
        for _ in 0..5_000 {
            breathe(Duration::from_millis(2)).await;
            let is_quiet = self.tasks.len() <= self.lasting + self.datasource.hanging();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet == 8 {
                return;
            }
        }
        panic!("a tick did not end within ten seconds");
    }

    /// Stops everything as SIGTERM does.
    pub async fn stop(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops, and starts again over the same store after `down`, without triage.
    pub async fn restart_after(&mut self, down: Duration) {
        self.restart_with(down, None).await;
    }

    pub async fn restart_with(&mut self, down: Duration, triage: Option<(Reading, TriagePolicy)>) {
        self.stop().await;
        tokio::time::advance(down).await;
        self.shutdown = CancellationToken::new();
        self.tasks = TaskTracker::new();
        self.run(triage);
        self.settle().await;
    }

    pub fn alerts(&self) -> Vec<alerts::Stored> {
        let mut found = self.store.read_here(|connection| alerts::list(connection, 1_000)).unwrap();
        found.sort_by_key(|stored| (stored.alert.window.start, stored.alert.rule_id().to_owned()));
        found
    }

    pub fn gaps(&self) -> Vec<rules::Gap> {
        self.store.read_here(|connection| rules::gaps(connection, 1_000)).unwrap()
    }

    pub fn standing(&self, rule: &str) -> rules::Standing {
        let all = self.store.read_here(rules::standings).unwrap();
        all.into_iter().find(|standing| standing.rule == rule).unwrap()
    }

    pub fn printed(&self) -> Vec<Value> {
        self.printed.lock().unwrap().clone()
    }
}

/// Lets the runtime park, which is when it looks at its timers.
async fn breathe(pause: Duration) {
    tokio::task::spawn_blocking(move || std::thread::sleep(pause)).await.unwrap();
}

fn load(path: &Path) -> Runner {
    let loaded = Runner::load(path);
    loaded.runner.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics))
}

/// A datasource that answers as the test says; without a script, with no rows.
#[derive(Default)]
pub struct Scripted {
    answers: Mutex<Answers>,
    asked: Mutex<Vec<(String, Window)>>,
    released: Notify,
    hanging: AtomicUsize,
}

#[derive(Default)]
struct Answers {
    failure: Option<String>,
    rows: VecDeque<Vec<Value>>,
    always: Vec<Value>,
    /// Queries that contain a text find these rows.
    of_text: HashMap<String, Vec<Value>>,
    /// Queries that contain this text wait until they are released.
    stuck: Option<String>,
}

impl Scripted {
    pub fn fail(&self, reason: &str) {
        self.answers.lock().unwrap().failure = Some(reason.into());
    }

    pub fn heal(&self) {
        self.answers.lock().unwrap().failure = None;
    }

    /// The next query finds these rows.
    pub fn answer(&self, rows: Value) {
        self.answers.lock().unwrap().rows.push_back(rows.as_array().unwrap().clone());
    }

    /// Every query finds these rows.
    pub fn answer_always(&self, rows: Value) {
        self.answers.lock().unwrap().always = rows.as_array().unwrap().clone();
    }

    /// Queries that contain `text` find these rows.
    pub fn answer_to(&self, text: &str, rows: Value) {
        let mut answers = self.answers.lock().unwrap();
        answers.of_text.insert(text.into(), rows.as_array().unwrap().clone());
    }

    /// Queries that contain `text` hang until [`Scripted::release`].
    pub fn hang(&self, text: &str) {
        self.answers.lock().unwrap().stuck = Some(text.into());
    }

    pub fn release(&self) {
        self.answers.lock().unwrap().stuck = None;
        self.released.notify_waiters();
    }

    /// How many queries hang now.
    fn hanging(&self) -> usize {
        self.hanging.load(Ordering::SeqCst)
    }

    /// Windows that were searched with success, in order, as minutes:seconds after midnight.
    pub fn windows(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, window)| short(*window)).collect()
    }

    /// The same for queries that contain `text`.
    pub fn windows_of(&self, text: &str) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(query, _)| query.contains(text)).map(|(_, window)| short(*window)).collect()
    }
}

/// `00:00..05:00`: minutes and seconds from midnight of the test's day; what lies before is negative.
pub fn short(window: Window) -> String {
    let midnight: Timestamp = MIDNIGHT.parse().unwrap();
    let border = |at: Timestamp| {
        let seconds = at.as_second() - midnight.as_second();
        format!("{}{:02}:{:02}", if seconds < 0 { "-" } else { "" }, seconds.abs() / 60, seconds.abs() % 60)
    };
    format!("{}..{}", border(window.start), border(window.end))
}

/// Counts a query that hangs, until it goes on or is cancelled.
struct Hangs<'a>(&'a AtomicUsize);

impl<'a> Hangs<'a> {
    fn new(hanging: &'a AtomicUsize) -> Self {
        hanging.fetch_add(1, Ordering::SeqCst);
        Self(hanging)
    }
}

impl Drop for Hangs<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Datasource for Scripted {
    async fn query(&self, query: &str, window: Window, _limits: &Limits) -> Result<Rows, QueryError> {
        loop {
            let released = self.released.notified();
            let is_stuck =
                self.answers.lock().unwrap().stuck.as_ref().is_some_and(|text| query.contains(text.as_str()));
            if !is_stuck {
                break;
            }
            let _hangs = Hangs::new(&self.hanging);
            released.await;
        }
        let mut answers = self.answers.lock().unwrap();
        if let Some(reason) = &answers.failure {
            return Err(QueryError::Unavailable(reason.clone()));
        }
        self.asked.lock().unwrap().push((query.to_owned(), window));
        let of_text =
            answers.of_text.iter().find(|(text, _)| query.contains(*text)).map(|(_, rows)| rows.clone());
        let rows = of_text.or_else(|| answers.rows.pop_front()).unwrap_or_else(|| answers.always.clone());
        let rows: Vec<Map<String, Value>> =
            rows.into_iter().map(|row| row.as_object().unwrap().clone()).collect();
        Ok(Rows { count: rows.len() as u64, rows, cut: None })
    }

    async fn probe(&self, _limit: Duration) -> Result<String, QueryError> {
        Ok("Scripted 1".into())
    }

    fn settings(&self) -> &Map<String, Value> {
        static SETTINGS: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
        SETTINGS.get_or_init(|| json!({"type": "scripted"}).as_object().unwrap().clone())
    }
}
