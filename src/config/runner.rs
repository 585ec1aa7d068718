//! `runner.yml` as a whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::diagnostic::{Diagnostic, Severity};
use super::read::{Environment, FromYaml, Reader, read_text};
use super::values::{Interval, Named, Patterns, Plugins, Switch};
use super::yaml::{self, Entry, Node, Value};
use super::{schema, section, units};
use crate::clock::Timestamp;
use crate::{datasource, triage, webhook};

/// What `runner.yml` says, checked: every name that is used exists, every number is in its range.
#[derive(Clone, Debug, PartialEq)]
pub struct Runner {
    pub path: PathBuf,
    /// The folder of `path`; relative paths in the file start there.
    pub dir: PathBuf,
    /// Never empty; the first is the default.
    pub datasources: Vec<(String, datasource::Config)>,
    pub webhooks: Vec<(String, webhook::Config)>,
    pub detectors: Vec<Detector>,
    /// `None`: alerts are not triaged.
    pub triage: Option<triage::Config>,
    /// The file of our own database.
    pub store: PathBuf,
    /// How long one tick of a detector may take; `None` is without limit.
    pub max_detector_time: Option<Duration>,
}

/// Rules that run together: how often, over which data, and who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Detector {
    /// Its name in the file, by which it keeps its cursors.
    pub key: String,
    pub name: String,
    /// `for` as it was written, e.g. `5m`.
    pub for_text: String,
    /// `for`: between two ticks, and the length of a window. 1 s to 10 years.
    pub interval: Duration,
    pub description: Option<String>,
    pub tenant: String,
    pub active: bool,
    /// Paths and globs as they were written, relative to the runner.
    pub rules: Patterns,
    /// Names in [`Runner::webhooks`].
    pub webhooks: Vec<String>,
    pub data: Json,
    /// A name in [`Runner::datasources`]; `None` is the first.
    pub datasource: Option<String>,
    /// How long events may take to arrive: a window is searched when it is this old.
    pub delay: Duration,
    /// How far back windows are searched after an outage.
    pub max_catch_up: Duration,
    /// For one query.
    pub timeout: Duration,
    /// Rows kept with an alert.
    pub max_rows: usize,
    /// Bytes of rows kept with an alert.
    pub max_bytes: usize,
}

/// What came of reading a runner.
#[derive(Debug)]
pub struct Loaded {
    /// `None` where there is an error among the diagnostics.
    pub runner: Option<Runner>,
    /// In the file's order.
    pub diagnostics: Vec<Diagnostic>,
    /// What could be read of each detector's rules, by key, also where there is no runner: for a check that goes
    /// on to the rules.
    pub rules: Vec<(String, Patterns)>,
    /// Names of the datasources, likewise.
    pub datasources: Vec<String>,
    /// Whether the file could be read at all.
    pub is_readable: bool,
}

impl Runner {
    /// Reads a runner, with `{env: NAME}` from this process's environment.
    pub fn load(path: &Path) -> Loaded {
        Self::load_with(path, &|name| std::env::var(name).ok())
    }

    /// Reads a runner, with `{env: NAME}` from `environment`.
    pub fn load_with(path: &Path, environment: Environment<'_>) -> Loaded {
        let shown = path.to_string_lossy();
        match read_text(path, yaml::MAX_BYTES as u64) {
            Ok(text) => Self::parse(path, &text, environment),
            Err(unreadable) => Loaded {
                runner: None,
                rules: Vec::new(),
                datasources: Vec::new(),
                is_readable: !unreadable.is_absent,
                diagnostics: vec![unreadable.diagnostic(&shown)],
            },
        }
    }

    /// Reads the text of a runner that stands at `path`.
    pub fn parse(path: &Path, text: &str, environment: Environment<'_>) -> Loaded {
        let dir = path.parent().map(Path::to_owned).unwrap_or_default();
        let shown = path.to_string_lossy();
        let mut reader = Reader::new(&shown, text, &dir, Some(environment));
        let root = reader.parse();
        let rules = root.as_ref().map(|root| rules(root, &dir, environment)).unwrap_or_default();
        let datasources = root.as_ref().map(datasource_names).unwrap_or_default();
        let runner = root.and_then(|root| read(&root, path, &dir, &mut reader));
        let mut diagnostics = reader.into_diagnostics();
        diagnostics.sort_by_key(|diagnostic| diagnostic.at);
        let is_good = !diagnostics.iter().any(Diagnostic::is_error);
        Loaded { runner: runner.filter(|_| is_good), diagnostics, rules, datasources, is_readable: true }
    }

    /// Statements of `known_benign` that have no effect any more.
    pub fn expired(&self, now: Timestamp) -> Vec<Diagnostic> {
        let known = self.triage.iter().flat_map(|triage| triage.known_benign.iter().enumerate());
        let over = known.filter(|(_, known)| known.until.is_over(now));
        over.map(|(index, known)| Diagnostic {
            file: self.path.to_string_lossy().into_owned(),
            at: Some(known.until.at),
            path: format!("triage.known_benign[{index}].until"),
            message: format!(
                "`{}` is over, so this has no effect: remove it, or give a later date",
                known.until
            ),
            severity: Severity::Warning,
        })
        .collect()
    }

    /// The configuration in force, defaults written out and secrets as `***`.
    pub fn to_json(&self) -> Json {
        let named = |pairs: &mut dyn Iterator<Item = (&String, Json)>| -> Json {
            pairs.map(|(name, value)| (name.clone(), value)).collect::<Map<_, _>>().into()
        };
        let mut map = Map::new();
        let mut datasources = self.datasources.iter().map(|(name, config)| (name, config.to_json()));
        map.insert("datasources".into(), named(&mut datasources));
        let mut webhooks = self.webhooks.iter().map(|(name, config)| (name, config.to_json()));
        map.insert("webhooks".into(), named(&mut webhooks));
        let mut detectors = self.detectors.iter().map(|detector| (&detector.key, detector.to_json()));
        map.insert("detectors".into(), named(&mut detectors));
        map.insert("triage".into(), self.triage.as_ref().map_or(Json::Bool(false), FromYaml::to_json));
        map.insert("store".into(), self.store.to_json());
        map.insert("max_detector_time".into(), self.max_detector_time.to_json());
        map.into()
    }
}

section! {
    /// The file itself.
    pub struct RunnerSection {
        /// The one datasource; several go under `datasources`. Without either: an empty `:memory:` database.
        pub datasource: Option<datasource::Config>,
        /// Datasources by name; the first is the default, a detector or rule says `datasource: NAME`.
        pub datasources: Option<Named<datasource::Config>>,
        /// Webhooks by name.
        pub webhooks: Named<webhook::Config> = "{}",
        /// Detectors by key.
        pub detectors: Named<DetectorSection>,
        /// Triage by the local model: `true`, `false`, or settings.
        pub triage: Option<Switch>,
        /// clickdetect's plugins; `clickagentic` is read as `triage`.
        pub plugins: Option<Plugins>,
        /// The file of Watchpost's own database. By default `watchpost.db` beside the runner; for a runner in `/etc`,
        /// `/var/lib/watchpost/watchpost.db`.
        pub store: Option<PathBuf>,
        /// Seconds (or a duration) that one tick of a detector may take; without it there is no limit.
        #[read(some_limit)]
        pub max_detector_time: Option<Duration>,
    }
    refused {
        "redis"
        => "is not built yet: high availability over Redis is missing, remove the section and run one instance"
    }
}

section! {
    /// Rules that run together.
    pub struct DetectorSection {
        /// For people, e.g. `Logins, every five minutes`.
        pub name: String,
        /// How often it runs, and how long a window is, e.g. `30s`, `5m`, `1.5h`, `7d`, `2w`, `1mo`, `1y`.
        pub interval: Interval as "for",
        /// For people.
        pub description: Option<String>,
        /// Whose data it is, `{{ detector.tenant }}` in rules.
        pub tenant: String = "default",
        /// Whether it runs.
        pub active: bool = "true",
        /// Paths and globs of rule files, `**` for folders of any depth, e.g. `rules/**/*.yml`.
        pub rules: Patterns,
        /// Names of webhooks that are told.
        #[read(webhook_names)]
        pub webhooks: Vec<String> = "[]",
        /// Your own values, `{{ detector.data.threshold }}` in rules.
        pub data: Json = "null",
        /// Whether all its rules are Sigma rules. Only `false` so far.
        #[read(not_sigma)]
        pub sigma: bool = "false",
        /// Name of the datasource; by default the first.
        #[read(datasource_name)]
        pub datasource: Option<String>,
        /// How long events may take to arrive: windows end this long before now.
        pub delay: Duration = "0s",
        /// How far back windows are searched after an outage; what is older becomes a recorded gap.
        pub max_catch_up: Duration = "1d",
        /// For one query.
        #[read(limit)]
        pub timeout: Duration = "1m",
        /// Rows kept with an alert; more are counted.
        #[read(max_rows)]
        #[schema(schema::whole(1, 1_000_000))]
        pub max_rows: usize = "1000",
        /// Size of the rows kept with an alert, as JSON.
        #[read(max_bytes)]
        #[schema(schema::size())]
        pub max_bytes: usize = "4MiB",
    }
}

fn read(root: &Node, path: &Path, dir: &Path, reader: &mut Reader<'_>) -> Option<Runner> {
    if root.is_null() {
        reader.error(root.at, "the file is empty: it needs `detectors`");
        return None;
    }
    // Names first, from the tree: a webhook whose settings are wrong is still there.
    reader.declare("webhook", names(root, "webhooks"));
    reader.declare("datasource", datasource_names(root));

    // Once noted, an error keeps the runner from being used.
    if let (Some(one), Some(_)) = (entry(root, "datasource"), entry(root, "datasources")) {
        reader.error(one.at, "`datasource` and `datasources` are both here: move the one into the other");
    }
    let clickagentic = entry(root, "plugins").and_then(|plugins| entry(&plugins.value, "clickagentic"));
    if let (Some(_), Some(plugin)) = (entry(root, "triage"), clickagentic) {
        reader.error(plugin.at, "`triage` and `plugins.clickagentic` are the same section: keep `triage`");
    }

    let section = RunnerSection::from_yaml(root, reader)?;
    let datasources = match (section.datasource, section.datasources) {
        (Some(one), _) => vec![("default".into(), one)],
        (None, Some(Named(many))) if !many.is_empty() => many,
        (None, _) => {
            let memory = datasource::Config::Duckdb(datasource::duckdb::Config::default());
            vec![("default".into(), memory)]
        }
    };
    let plugin = section.plugins.and_then(|plugins| plugins.clickagentic);
    let triage = section.triage.or(plugin).and_then(|Switch(triage)| triage);
    if section.detectors.0.is_empty() {
        let at = entry(root, "detectors").map_or(root.at, |entry| entry.at);
        reader.error(at, "there is no detector: nothing would run");
        return None;
    }
    Some(Runner {
        path: path.to_owned(),
        dir: dir.to_owned(),
        datasources,
        webhooks: section.webhooks.0,
        detectors: section.detectors.0.into_iter().map(|(key, section)| section.named(key)).collect(),
        triage,
        store: section.store.unwrap_or_else(|| default_store(dir)),
        max_detector_time: section.max_detector_time,
    })
}

/// What changes lies beside the runner, unless that is where the system keeps what does not change.
fn default_store(dir: &Path) -> PathBuf {
    let folder = if dir.starts_with("/etc") { Path::new("/var/lib/watchpost") } else { dir };
    folder.join("watchpost.db")
}

fn names(root: &Node, key: &str) -> Vec<String> {
    let entries = root.get(key).and_then(Node::entries).unwrap_or_default();
    entries.iter().map(|entry| entry.key.clone()).collect()
}

/// A single datasource is called `default`.
fn datasource_names(root: &Node) -> Vec<String> {
    let names = names(root, "datasources");
    if names.is_empty() { vec!["default".into()] } else { names }
}

/// Every detector's rules, with no word about what is wrong: [`read`] says it.
fn rules(root: &Node, dir: &Path, environment: Environment<'_>) -> Vec<(String, Patterns)> {
    let mut reader = Reader::new("", "", dir, Some(environment));
    let detectors = root.get("detectors").and_then(Node::entries).unwrap_or_default();
    detectors
        .iter()
        .map(|detector| {
            let patterns =
                detector.value.get("rules").and_then(|node| Patterns::from_yaml(node, &mut reader));
            (detector.key.clone(), patterns.unwrap_or_default())
        })
        .collect()
}

fn entry<'n>(root: &'n Node, key: &str) -> Option<&'n Entry> {
    root.entries()?.iter().find(|entry| entry.key == key)
}

impl DetectorSection {
    fn named(self, key: String) -> Detector {
        Detector {
            key,
            name: self.name,
            for_text: self.interval.text,
            interval: self.interval.duration,
            description: self.description,
            tenant: self.tenant,
            active: self.active,
            rules: self.rules,
            webhooks: self.webhooks,
            data: self.data,
            datasource: self.datasource,
            delay: self.delay,
            max_catch_up: self.max_catch_up,
            timeout: self.timeout,
            max_rows: self.max_rows,
            max_bytes: self.max_bytes,
        }
    }
}

impl Detector {
    /// The fields in clickdetect's shape, as templates see them and alerts carry them.
    pub fn to_map(&self, max_detector_time: Option<Duration>) -> Map<String, Json> {
        let fields = [
            ("name", self.name.as_str().into()),
            ("for_time", self.for_text.as_str().into()),
            ("description", self.description.as_deref().into()),
            ("rules", self.rules.to_json()),
            ("webhooks", self.webhooks.to_json()),
            ("data", self.data.clone()),
            ("tenant", self.tenant.as_str().into()),
            ("active", self.active.into()),
            // Its settings, once there is one.
            ("datasource", Json::Null),
            ("sigma", false.into()),
            ("max_detector_time", max_detector_time.map_or(Json::Null, |limit| limit.as_secs_f64().into())),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn to_json(&self) -> Json {
        let this = self.clone();
        let section = DetectorSection {
            name: this.name,
            interval: Interval { text: this.for_text, duration: this.interval },
            description: this.description,
            tenant: this.tenant,
            active: this.active,
            rules: this.rules,
            webhooks: this.webhooks,
            data: this.data,
            sigma: false,
            datasource: this.datasource,
            delay: this.delay,
            max_catch_up: this.max_catch_up,
            timeout: this.timeout,
            max_rows: this.max_rows,
            max_bytes: this.max_bytes,
        };
        section.to_json()
    }
}

fn webhook_names(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let names = Vec::<String>::from_yaml(node, reader)?;
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut is_good = true;
    for (index, (name, item)) in names.iter().zip(items).enumerate() {
        is_good &= reader.within_item(index, |reader| reader.check_name("webhook", name, item.at));
    }
    is_good.then_some(names)
}

fn datasource_name(node: &Node, reader: &mut Reader<'_>) -> Option<Option<String>> {
    let name = String::from_yaml(node, reader)?;
    reader.check_name("datasource", &name, node.at).then_some(Some(name))
}

/// `sigma: true` is known and not built yet.
pub(crate) fn not_sigma(node: &Node, reader: &mut Reader<'_>) -> Option<bool> {
    if bool::from_yaml(node, reader)? {
        reader.error(node.at, "Sigma rules are not built yet: write the query as `rule` and remove `sigma`");
        return None;
    }
    Some(false)
}

fn limit(node: &Node, reader: &mut Reader<'_>) -> Option<Duration> {
    let limit = Duration::from_yaml(node, reader)?;
    if limit.is_zero() { reader.refuse(node, "more than nothing, e.g. `30s`") } else { Some(limit) }
}

fn some_limit(node: &Node, reader: &mut Reader<'_>) -> Option<Option<Duration>> {
    limit(node, reader).map(Some)
}

fn max_rows(node: &Node, reader: &mut Reader<'_>) -> Option<usize> {
    let rows = usize::from_yaml(node, reader)?;
    if (1..=1_000_000).contains(&rows) { Some(rows) } else { reader.refuse(node, "between 1 and 1000000") }
}

fn max_bytes(node: &Node, reader: &mut Reader<'_>) -> Option<usize> {
    let size = String::from_yaml(node, reader)?;
    match units::bytes(&size) {
        Ok(bytes) if (1_000..=1 << 30).contains(&bytes) => usize::try_from(bytes).ok(),
        Ok(_) => reader.refuse(node, "between `1KB` and `1GiB`"),
        Err(message) => {
            reader.error(node.at, message);
            None
        }
    }
}
