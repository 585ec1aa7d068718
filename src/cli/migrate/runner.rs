//! The runner: what changes in it, and what it then says.

use std::path::{Component, Path, PathBuf};

use super::known::{self, Known, Verify};
use super::source::{Changed, Source};
use super::{Note, Notes, Sort};
use crate::config::yaml::{self, Entry, Node, Position, Resolved, Value};
use crate::config::{
    DetectorSection, Environment, Field, Kind, KindTable, Patterns, Runner, RunnerSection, Section as _,
    clip, suggestion,
};
use crate::rule::load::{Scope, find};
use crate::{datasource, triage, webhook};

/// The rules that the changed runner names.
pub struct Scopes {
    /// By detector; each stands where it stood before the changes.
    pub rules: Vec<(String, Patterns)>,
    pub datasources: Vec<String>,
    /// Whether Watchpost takes the runner as it is now.
    pub is_usable: bool,
}

/// What is to be said of the runner at `path`, its text as it should be, and its rules, where it can be read so far.
pub fn migrate(
    path: &Path,
    text: &str,
    here: &Path,
    environment: Environment<'_>,
) -> (Vec<Note>, Changed, Option<Scopes>) {
    let shown = path.to_string_lossy();
    let dir = path.parent().unwrap_or(Path::new(""));
    let mut pass = Pass { notes: Notes::of(&shown), source: Source::new(text), dir, here };
    if let (Some(root), _) = yaml::parse(text) {
        pass.root(&root);
    }
    let Pass { mut notes, source, .. } = pass;
    let changed = source.apply();
    let loaded = Runner::parse(path, &changed.text, environment);
    for problem in loaded.diagnostics {
        notes.found(problem, &changed);
    }
    notes.all.sort_by_key(|note| note.at);
    let is_usable = loaded.runner.is_some();
    let as_before = |Patterns(patterns): Patterns| {
        Patterns(patterns.into_iter().map(|(pattern, at)| (pattern, changed.old(at))).collect())
    };
    let rules =
        loaded.rules.into_iter().map(|(detector, patterns)| (detector, as_before(patterns))).collect();
    let scopes = Scopes { rules, datasources: loaded.datasources, is_usable };
    (notes.all, changed, Some(scopes))
}

struct Pass<'t> {
    notes: Notes,
    source: Source<'t>,
    /// The runner's folder, where relative paths begin.
    dir: &'t Path,
    /// Where clickdetect began them.
    here: &'t Path,
}

impl Pass<'_> {
    fn root(&mut self, root: &Node) {
        let entries = root.entries().unwrap_or_default();
        let mut webhooks: Vec<String> = Vec::new();
        if let Some(written) = root.get("webhooks").and_then(Node::entries) {
            for entry in written {
                if self.webhook(entry) {
                    webhooks.push(entry.key.clone());
                }
            }
        }
        for entry in entries {
            match entry.key.as_str() {
                "datasource" => self.datasource(&entry.value),
                "detectors" => {
                    for detector in entry.value.entries().unwrap_or_default() {
                        self.detector(detector, &webhooks);
                    }
                }
                "plugins" => self.plugins(&entry.value),
                "redis" if !entry.value.is_null() => {
                    let is_made = self.source.switch_off(entry, "several instances are not built yet");
                    let message = "several instances over Redis are not built yet: run one; what was found and not \
                                   delivered is kept over a restart";
                    self.notes.change(is_made, entry.at, "redis", message);
                }
                "max_detector_time" if !entry.value.is_null() => {
                    let message = "a rule that it cuts off keeps its window here and searches it again; clickdetect \
                                   passed the window over";
                    self.notes.add(Sort::Differs, entry.at, "max_detector_time", message);
                }
                _ => {}
            }
        }
        self.unknown_keys(entries, RunnerSection::FIELDS, RunnerSection::REFUSED, "");
    }

    fn datasource(&mut self, node: &Node) {
        let named = node.get("type").and_then(Node::scalar);
        let name = named.map_or("clickhouse", |scalar| scalar.text.as_str());
        if named.is_none() && datasource::Config::TABLE.default != name {
            let why = "clickdetect's default";
            let is_made = self.source.add(node, "type", "type: clickhouse", why);
            let message = "without a `type` this is ClickHouse to clickdetect: it is written out";
            self.notes.change(is_made, node.at, "datasource.type", message);
        }
        let Some((known, kind)) = both(name, known::DATASOURCES, &datasource::Config::TABLE) else { return };
        self.kind(node, known, kind, "datasource");
        let at = node.at;
        match name {
            "loki" => self.notes.add(
                Sort::Differs,
                at,
                "datasource",
                "a query's range is the rule's window; clickdetect gave none, and Loki took the last hour",
            ),
            "victorialogs" => {
                for key in ["account_id", "project_id"] {
                    let set = node.get(key).filter(|value| {
                        !value.is_null() && value.scalar().is_some_and(|scalar| scalar.text.trim() != "0")
                    });
                    if let Some(value) = set {
                        let message = "this tenant is read now: clickdetect sent it in a header that VictoriaLogs \
                                       ignores, and read tenant 0";
                        self.notes.add(Sort::Differs, value.at, format!("datasource.{key}"), message);
                    }
                }
            }
            "duckdb" => {
                if let Some(database) = node.get("database") {
                    let is_file = database.scalar().is_some_and(|scalar| scalar.text != ":memory:");
                    if is_file {
                        self.moved_path(database, "datasource.database", |path| path.exists());
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether it stays.
    fn webhook(&mut self, entry: &Entry) -> bool {
        let node = &entry.value;
        let path = format!("webhooks.{}", entry.key);
        let named = node.get("type").and_then(Node::scalar);
        let name = named.map_or("generic", |scalar| scalar.text.as_str());
        if !webhook::Config::KINDS.iter().any(|kind| kind.name == name) {
            let is_made = self.source.switch_off(entry, "clickdetect left this webhook out");
            let near = suggestion(name, webhook::Config::KINDS.iter().map(|kind| kind.name));
            let message = format!(
                "no webhook is called `{}`: clickdetect left it out and told nobody{near}",
                clip(name)
            );
            self.notes.change(is_made, entry.at, format!("{path}.type"), message);
            return !is_made;
        }
        if ["opsgenie", "thehive"].contains(&name) && node.get("source").is_none() {
            let is_made = self.source.add(node, "api_key", "source: clickdetect", "clickdetect's default");
            let message = "the default is `watchpost` here: clickdetect's is written out, since what is there may look for it";
            self.notes.change(is_made, entry.at, format!("{path}.source"), message);
        }
        if name == "alertmanager" {
            let labels = node.get("labels").filter(|labels| !labels.is_null());
            let why = "clickdetect's label";
            let is_made = match labels {
                Some(labels) if labels.get("source").is_some() => None,
                Some(labels) => Some(self.source.add(labels, "", "source: clickdetect", why)),
                None => Some(self.source.add(node, "url", "labels: {source: clickdetect}", why)),
            };
            if let Some(is_made) = is_made {
                let message = "the label `source` is `watchpost` here: clickdetect's is written out, since routes and \
                               silences may look for it";
                self.notes.change(is_made, entry.at, format!("{path}.labels"), message);
            }
        }
        match name {
            "matrix" => self.notes.add(
                Sort::Differs,
                entry.at,
                &path,
                "alerts go there now: clickdetect left every Matrix webhook out",
            ),
            "iris" => self.notes.add(
                Sort::Differs,
                entry.at,
                &path,
                "alerts arrive now, IRIS refused clickdetect's for their time; severities are looked up by name, where \
                 clickdetect's numbers named others (its `critical` was High, its `high` Low)",
            ),
            "teams" => self.teams(node, &path),
            "opsgenie" => self.notes.add(
                Sort::Advice,
                entry.at,
                &path,
                "Opsgenie's service ends on 2027-04-05: plan what takes its place",
            ),
            _ => {}
        }
        if let Some((known, kind)) = both(name, known::WEBHOOKS, &webhook::Config::TABLE) {
            self.kind(node, known, kind, &path);
        }
        true
    }

    fn teams(&mut self, node: &Node, path: &str) {
        let Some(url) = node.get("url") else { return };
        let Some(text) = url.scalar().map(|scalar| scalar.text.to_ascii_lowercase()) else { return };
        let host = text.split("//").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
        if ["outlook.office.com", "outlook.office365.com"].contains(&host)
            || host.ends_with(".webhook.office.com")
        {
            let message = "Microsoft has retired connector addresses: make a workflow in Teams (\"Post to a channel when \
                           a webhook request is received\") and put its address here";
            self.notes.add(Sort::Differs, url.at, format!("{path}.url"), message);
        }
    }

    /// What holds for every kind: certificates, keys that nobody reads, secrets.
    fn kind(&mut self, node: &Node, known: &Known, kind: &Kind, path: &str) {
        self.verify(node, known, kind, path);
        // What clickdetect reads and we do not is for the reader to refuse.
        let entries = node.entries().unwrap_or_default().iter();
        let unread: Vec<Entry> =
            entries.filter(|entry| !known.keys.contains(&entry.key.as_str())).cloned().collect();
        self.unknown_keys(&unread, kind.fields, kind.refused, path);
        for entry in node.entries().unwrap_or_default() {
            let field = kind.fields.iter().find(|field| field.name == entry.key);
            if field.is_some_and(|field| field.kind == "secret") {
                self.secret(&entry.value, &format!("{path}.{}", entry.key));
            }
            if entry.key == "headers" {
                for header in entry.value.entries().unwrap_or_default() {
                    let name = header.key.to_ascii_lowercase();
                    if ["authorization", "token", "key", "secret"].iter().any(|word| name.contains(word)) {
                        self.secret(&header.value, &format!("{path}.headers.{}", header.key));
                    }
                }
            }
        }
    }

    fn secret(&mut self, value: &Node, path: &str) {
        if value.scalar().is_some() && !value.is_null() {
            let message = "a secret stands in the file: `{env: NAME}` or `{file: PATH}` keeps it out";
            self.notes.add(Sort::Advice, value.at, path, message);
        }
    }

    fn verify(&mut self, node: &Node, known: &Known, kind: &Kind, path: &str) {
        let url =
            node.get("url").and_then(Node::scalar).map(|scalar| scalar.text.trim().to_ascii_lowercase());
        let is_https = match &url {
            Some(url) => url.starts_with("https://"),
            None => known.is_always_https,
        };
        let has_it = kind.fields.iter().any(|field| field.name == "verify");
        let written = node.get("verify").filter(|value| !value.is_null());
        let path = format!("{path}.verify");
        match (known.verify, written) {
            (Verify::False | Verify::Ignored, None) if is_https && has_it => {
                let why = "clickdetect did not; an authority of your own goes into `ca`";
                let is_made = self.source.add(node, "url", "verify: true", why);
                let message = "certificates are verified now, clickdetect did not: name an authority of your own in \
                               `ca`; `verify: false` is as before";
                self.notes.change(is_made, node.at, path, message);
            }
            (Verify::Tls, Some(value)) if node.get("secure").is_none() && node.get("url").is_none() => {
                let setting = format!("secure: {}", is_true(value));
                let is_made = self.source.add(node, "verify", &setting, "what clickdetect calls `verify`");
                let message = "clickdetect's `verify` is whether there is TLS at all, which `secure` says here: it is \
                               written out";
                self.notes.change(is_made, value.at, path, message);
            }
            (Verify::Ignored, Some(value)) if is_https && is_true(value) => {
                let message = "clickdetect ignored this: certificates are verified now";
                self.notes.add(Sort::Differs, value.at, path, message);
            }
            _ => {}
        }
    }

    fn unknown_keys(&mut self, entries: &[Entry], fields: &[Field], refused: &[(&str, &str)], path: &str) {
        for entry in entries {
            let key = entry.key.as_str();
            let is_known = (key == "type" && !path.is_empty())
                || fields.iter().any(|field| field.name == key)
                || refused.iter().any(|(name, _)| *name == key);
            if is_known {
                continue;
            }
            let is_made = self.source.switch_off(entry, "clickdetect ignored this");
            let near = suggestion(key, fields.iter().map(|field| field.name));
            let message =
                format!("clickdetect ignored the key `{}`, Watchpost does not take it{near}", clip(key));
            self.notes.change(is_made, entry.at, path, message);
        }
    }

    fn detector(&mut self, entry: &Entry, webhooks: &[String]) {
        let (node, path) = (&entry.value, format!("detectors.{}", entry.key));
        if node.get("sigma").is_some_and(is_true) {
            let is_made = self.source.switch_off(entry, "Sigma rules are not built yet");
            let message =
                "Sigma rules are not built yet: this detector does not run; write its queries as `rule`";
            self.notes.change(is_made, entry.at, path, message);
            return;
        }
        if let Some(list) = node.get("webhooks")
            && let Value::List(items) = &list.value
        {
            for (index, item) in items.iter().enumerate() {
                let name = item.scalar().map_or("", |scalar| scalar.text.as_str());
                if !webhooks.iter().any(|known| known == name) {
                    let why = "clickdetect knew no such webhook";
                    let is_made = self.source.remove(list, item) || self.source.switch_item_off(item, why);
                    let near = suggestion(name, webhooks.iter().map(String::as_str));
                    let message = format!("no webhook `{}`: clickdetect told nobody{near}", clip(name));
                    self.notes.change(is_made, item.at, format!("{path}.webhooks[{index}]"), message);
                }
            }
        }
        self.rules(node, &path);
        self.limits(entry, &path);
        self.unknown_keys(
            node.entries().unwrap_or_default(),
            DetectorSection::FIELDS,
            DetectorSection::REFUSED,
            &path,
        );
    }

    /// clickdetect has none, so they are written out.
    fn limits(&mut self, entry: &Entry, path: &str) {
        let limits = [
            ("max_catch_up", "after an outage windows are searched back to here"),
            ("max_rows", "kept with an alert; all are counted"),
            ("timeout", "for one query"),
        ];
        let missing: Vec<_> = limits.into_iter().filter(|(key, _)| entry.value.get(key).is_none()).collect();
        if missing.is_empty() || entry.value.entries().is_none() {
            return;
        }
        let mut written = Vec::new();
        for (key, why) in missing {
            let field = DetectorSection::FIELDS.iter().find(|field| field.name == key);
            let default = field.and_then(|field| field.default).unwrap_or_default();
            let setting = format!("{key}: {default}");
            if self.source.add(&entry.value, "for", &setting, why) {
                written.push(format!("`{setting}`"));
            }
        }
        if !written.is_empty() {
            let message = format!(
                "queries and alerts have limits, and missed windows are searched after an outage; clickdetect has none of \
                 it: the defaults are written out, {}",
                written.join(", ")
            );
            self.notes.add(Sort::Change, entry.at, path, message);
        }
    }

    fn rules(&mut self, node: &Node, path: &str) {
        let Some(rules) = node.get("rules") else { return };
        let items = match &rules.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(rules),
        };
        for (index, item) in items.iter().enumerate() {
            self.moved_path(item, &format!("{path}.rules[{index}]"), |path| {
                // From the root, so that only this one pattern is looked at.
                let patterns = Patterns(vec![(path.to_string_lossy().into_owned(), Position::default())]);
                let scope = Scope {
                    file: "",
                    dir: Path::new(""),
                    detector: "",
                    patterns: &patterns,
                    datasources: &[],
                };
                !find(scope, &mut Vec::new()).is_empty()
            });
        }
    }

    /// A relative path that leads somewhere from where clickdetect was started, and nowhere from the runner.
    fn moved_path(&mut self, node: &Node, path: &str, leads: impl Fn(&Path) -> bool) {
        let Some(written) = node.scalar().map(|scalar| scalar.text.clone()) else { return };
        if Path::new(&written).is_absolute() || leads(&self.dir.join(&written)) {
            return;
        }
        if !leads(&self.here.join(&written)) {
            return;
        }
        let Some(way) = relative(self.dir, self.here) else { return };
        let moved = way.join(&written).to_string_lossy().into_owned();
        let is_made = self.source.replace(node, &format!("\"{moved}\""));
        let message = format!(
            "relative paths begin at the runner's folder, not where the service is started: `{}` is `{}`",
            clip(&written),
            clip(&moved)
        );
        self.notes.change(is_made, node.at, path, message);
    }

    fn plugins(&mut self, node: &Node) {
        for entry in node.entries().unwrap_or_default() {
            let path = format!("plugins.{}", entry.key);
            if entry.key == "clickagentic" {
                self.clickagentic(&entry.value, &path);
                continue;
            }
            let is_made = self.source.switch_off(entry, "there is no such plugin here");
            let message = "there are no plugins here but clickagentic, which is built in as `triage`";
            self.notes.change(is_made, entry.at, path, message);
        }
    }

    /// Read as `triage`: the model is inside the process.
    fn clickagentic(&mut self, node: &Node, path: &str) {
        let entries = node.entries().unwrap_or_default();
        let entry = |key: &str| entries.iter().find(|entry| entry.key == key && !entry.value.is_null());
        let provider = entry("provider").and_then(|entry| Some((entry, entry.value.scalar()?.text.as_str())));
        if let Some((provider, name)) = provider
            && known::REMOTE_PROVIDERS.contains(&name)
        {
            let mut is_made = self.source.replace(&provider.value, "local");
            for key in ["model", "token", "base_url"] {
                if let Some(entry) = entry(key) {
                    is_made &= self.source.switch_off(entry, "the model is inside the process");
                }
            }
            let message = format!(
                "a model inside this process triages, `{name}` is not asked: no alert leaves the machine, and the numbers \
                 are computed by code (docs/triage.md)"
            );
            self.notes.change(is_made, provider.at, format!("{path}.provider"), message);
        } else if let Some(token) = entry("token") {
            self.secret(&token.value, &format!("{path}.token"));
        }
        if let Some(think) = entry("think").filter(|entry| is_true(&entry.value)) {
            let is_made = self.source.replace(&think.value, "false");
            self.notes.change(
                is_made,
                think.at,
                format!("{path}.think"),
                "the model does not think aloud here",
            );
        }
        if let Some(text) = entry("false_positive") {
            let message = "each sentence is read by code, which dismisses, mentions or passes over; the model that \
                           clickdetect asked was only told of them (docs/triage.md)";
            self.notes.add(Sort::Differs, text.at, format!("{path}.false_positive"), message);
        }
        self.unknown_keys(entries, triage::Config::FIELDS, triage::Config::REFUSED, path);
    }
}

fn both<'k>(name: &str, theirs: &'static [Known], ours: &'k KindTable) -> Option<(&'static Known, &'k Kind)> {
    let known = theirs.iter().find(|known| known.kind == name)?;
    Some((known, ours.kinds.iter().find(|kind| kind.name == name)?))
}

fn is_true(node: &Node) -> bool {
    node.scalar().is_some_and(|scalar| scalar.resolve() == Resolved::Bool(true))
}

/// The way from one folder to another, where both are there.
fn relative(from: &Path, to: &Path) -> Option<PathBuf> {
    let from = if from.as_os_str().is_empty() { Path::new(".") } else { from };
    let (from, to) = (from.canonicalize().ok()?, to.canonicalize().ok()?);
    let same = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(same).map(|_| Component::ParentDir);
    Some(up.chain(to.components().skip(same)).collect())
}
