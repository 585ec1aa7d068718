//! Configuration to parts to tasks. The only file that knows all of them.

pub mod connect;

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Timestamp, Window};
use crate::config::Runner;
use crate::detector::{Found, Search, SearchError, Source, TriagePolicy, Watch, schedule};
use crate::http::Http;
use crate::learning;
use crate::models::Registry;
use crate::pipeline::{Pipeline, Reading};
use crate::rule::load::{Broken, RuleSet};
use crate::rule::template::{self, Query};
use crate::store::{Access, Store, history, rules};
use crate::triage::budget::Purse;
use crate::triage::judge::Judge;
use crate::triage::provider::{ProviderError, local::Local};
use crate::triage::{self, Triager};
use crate::webhook::delivery::{self, Delivery, Print};
use crate::webhook::{self, Webhook};

/// What the command line decides.
pub struct Options {
    pub clock: Clock,
    /// Where the `stdout` webhook writes.
    pub print: Print,
    /// Whether a person reads it there.
    pub colour: bool,
    /// Whether every detector waits for one interval before its first tick.
    pub waits_first: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            print: delivery::to_stdout(),
            colour: is_read_by_a_person(),
            waits_first: false,
        }
    }
}

/// The service: everything is built and checked, nothing runs yet.
pub struct App {
    store: Store,
    clock: Clock,
    sources: Vec<Arc<Source>>,
    detectors: Vec<(Duration, Vec<Arc<Search>>)>,
    pipeline: Pipeline,
    judge: watch::Sender<Arc<Judge>>,
    delivery: Delivery,
    waits_first: bool,
}

impl App {
    /// Builds every part and opens the store. Fails where a part cannot be built or the store is not to be had.
    ///
    /// `rules` holds the rules of each detector, in the runner's order.
    pub async fn open(runner: Runner, rules: Vec<RuleSet>, options: Options) -> anyhow::Result<Self> {
        let Options { clock, print, colour, waits_first } = options;
        let store = Store::open(&runner.store, Access::Service)?;
        let mut sources = Vec::new();
        for (name, config) in &runner.datasources {
            let built = config.build(&runner.dir).with_context(|| format!("datasources.{name}"))?;
            sources.push((name.as_str(), Arc::new(Source::new(built))));
        }
        let source = |name: Option<&str>| -> anyhow::Result<Arc<Source>> {
            match name {
                None => sources.first().map(|(_, source)| Arc::clone(source)).context("no datasource"),
                Some(name) => sources
                    .iter()
                    .find_map(|(known, source)| (*known == name).then(|| Arc::clone(source)))
                    .with_context(|| format!("no datasource `{name}`")),
            }
        };
        let policy = |rule: &crate::rule::Rule| {
            runner
                .triage
                .as_ref()
                .filter(|config| config.applies_to(rule))
                .map(|config| TriagePolicy { deadline: config.deadline, capacity: config.queue })
        };
        let environment = template::environment();
        let mut broken = Vec::new();
        let mut detectors = Vec::new();
        for (detector, set) in runner.detectors.iter().zip(rules) {
            broken.extend(set.broken.iter().map(|lost| left_out(&detector.key, lost)));
            let default = source(detector.datasource.as_deref())?;
            let settings = default.datasource.settings();
            let watch = Arc::new(Watch::new(detector.clone(), runner.max_detector_time, settings));
            let mut searches = Vec::new();
            for rule in set.rules.into_iter().filter(|rule| rule.active) {
                let source = match &rule.datasource {
                    None => Arc::clone(&default),
                    name => source(name.as_deref())?,
                };
                let query =
                    Query::compile(&rule, &environment).map_err(|problem| anyhow::anyhow!("{problem}"))?;
                let triage = policy(&rule);
                let search =
                    Search::new(Arc::clone(&watch), rule, query, source, store.clone(), clock, triage);
                searches.push(Arc::new(search));
            }
            if detector.active {
                detectors.push((detector.interval, searches));
            }
        }
        let mut webhooks: HashMap<String, Arc<dyn Webhook>> = HashMap::new();
        for (name, config) in &runner.webhooks {
            let built = webhook::build(config, colour).with_context(|| format!("webhooks.{name}"))?;
            webhooks.insert(name.clone(), built);
        }
        let http = Http::new(webhooks.values().filter_map(|webhook| webhook.destination()))?;
        let (judge, problem) = learning::current(&store)?;
        if let Some(problem) = problem {
            tracing::error!(problem, "the judge is not in use");
        }
        let judge = watch::Sender::new(Arc::new(judge));
        let reading = runner.triage.as_ref().map(|config| Reading {
            triager: triager(config, &runner.path),
            judge: judge.subscribe(),
            limit: TRIAGE_LIMIT,
            batch: config.batch,
            queue: config.queue,
            purse: Purse::new(config.budget.clone()),
            deliver: config.deliver,
            trust: config.trust.clone(),
        });
        let pipeline = Pipeline { store: store.clone(), clock, reading };
        let delivery = Delivery::new(store.clone(), webhooks, http, clock, print);
        // The first write: a store that is read-only or on a full disk is found out here.
        let written = store.write(move |tx| rules::set_broken(tx, &broken)).await;
        written.with_context(|| format!("`{}` cannot be written to", store.path().display()))?;
        let sources = sources.iter().map(|(_, source)| Arc::clone(source)).collect();
        Ok(Self { store, clock, sources, detectors, pipeline, judge, delivery, waits_first })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Runs until `shutdown`, then stops in this order: schedule and queries (their windows stay), triage,
    /// deliveries, and what is left to be told to the stores.
    pub async fn run(self, shutdown: CancellationToken) {
        let rules: usize = self.detectors.iter().map(|(_, searches)| searches.len()).sum();
        let (version, store) = (env!("CARGO_PKG_VERSION"), self.store.path().display().to_string());
        tracing::info!(version, detectors = self.detectors.len(), rules, store, "watchpost is running");
        let tasks = TaskTracker::new();
        for (interval, searches) in self.detectors {
            let now = self.clock.now();
            let first = if self.waits_first { now.checked_add(interval).unwrap_or(now) } else { now };
            let (tracker, shutdown) = (tasks.clone(), shutdown.clone());
            tasks.spawn(schedule::run(searches, interval, first, self.clock, tracker, shutdown));
        }
        tasks.spawn(count_older(self.store.clone(), shutdown.clone()));
        if let Some(reading) = &self.pipeline.reading {
            let (store, asked) = (self.store.clone(), reading.trust.clone());
            let learning = learning::run(store, self.clock, self.judge, asked, shutdown.clone());
            tasks.spawn(learning);
        }
        tasks.spawn(self.pipeline.run(shutdown.clone()));
        tasks.spawn(self.delivery.run(shutdown.clone()));
        shutdown.cancelled().await;
        tasks.close();
        if tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
            tracing::warn!(tasks = tasks.len(), "stopped without waiting longer; what they did is not lost");
        }
        close(&self.sources).await;
        tracing::info!("watchpost has stopped");
    }

    /// Searches every rule once over the interval that ends now; saves and sends nothing. Gives detector, rule
    /// and what was found.
    pub async fn search_once(self) -> Vec<(String, String, Result<Found, SearchError>)> {
        let now = self.clock.now();
        let mut results = Vec::new();
        for (interval, searches) in &self.detectors {
            for search in searches {
                let found = search.search(last_interval(now, *interval)).await;
                results.push((search.detector_key().to_owned(), search.rule_id().to_owned(), found));
            }
        }
        close(&self.sources).await;
        results
    }
}

/// What was cancelled is told to the stores.
async fn close(sources: &[Arc<Source>]) {
    join_all(sources.iter().map(|source| source.datasource.close())).await;
}

/// Brings the history of a store that an older watchpost wrote up to date, beside all other work.
async fn count_older(store: Store, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        counted = history::count_older(&store) => match counted {
            Ok(0) => {}
            Ok(alerts) => tracing::info!(alerts, "alerts of before are in the history now"),
            Err(error) => tracing::error!(%error, "older alerts are not in the history; the next start tries again"),
        },
    }
}

/// The row of `watchpost status` for a rule file that is left out.
fn left_out(detector: &str, broken: &Broken) -> (String, String, String) {
    let problem = broken.diagnostics.first().map(ToString::to_string).unwrap_or_default();
    (detector.to_owned(), broken.path.display().to_string(), problem)
}

fn last_interval(now: Timestamp, interval: Duration) -> Window {
    let end = now.as_second();
    Window::from_seconds(end - interval.as_secs_f64().ceil() as i64, end)
        .expect("an interval is at least a second and at most ten years")
}

/// What triage is told by its section.
pub fn settings(config: &triage::Config) -> triage::Settings {
    let notes = triage::Notes::parse(config.false_positive.as_deref().unwrap_or_default());
    triage::Settings {
        notes: notes.with_known(&config.known_benign),
        critical_assets: config.critical_assets.clone(),
        reuse: config.reuse,
        ..triage::Settings::default()
    }
}

/// The part that triages; its model is looked for beside the runner file and loaded at once, in the background.
pub fn triager(config: &triage::Config, runner: &Path) -> Triager {
    let settings = settings(config);
    let chosen = std::env::var_os("WATCHPOST_MODELS").map(PathBuf::from);
    let registry = Registry::new(Some(runner), chosen.as_deref());
    let defaults = watchpost_engine::Options::default();
    let options = watchpost_engine::Options {
        device: config.device,
        threads: config.threads.unwrap_or(defaults.threads),
        memory_limit_bytes: config.memory_limit,
        batch: config.batch,
        niceness: config.niceness,
        ..defaults
    };
    let model = config.model.clone();
    Triager::start(settings, move || {
        let found = registry.resolve(&model).map_err(|error| ProviderError::Failed(error.to_string()))?;
        // Beside the model, where that is a file of its own.
        let is_alone = found.source.offset == 0;
        let kept_prefix = is_alone.then(|| found.source.path.with_extension("prefix"));
        let options = watchpost_engine::Options { kept_prefix, ..options.clone() };
        Ok(Box::new(Local::open(&found.source, &options)?))
    })
}

/// Standard output is a terminal, and nobody said no (<https://no-color.org>).
pub fn is_read_by_a_person() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// For one step of one alert, from prompt to last token. Far more than the deadline: what is late is an update.
const TRIAGE_LIMIT: Duration = Duration::from_secs(300);
/// systemd kills after 90 s.
const STOP_LIMIT: Duration = Duration::from_secs(20);
