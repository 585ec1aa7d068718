//! The `triage:` section.

use std::time::Duration;

use serde_json::{Value as Json, json};
use watchpost_engine::Device;

use super::assets::Assets;
use super::budget::Budget;
use super::notes::KnownBenign;
use crate::config::yaml::{Node, Value};
use crate::config::{FromYaml, Reader, Secret, Url, schema, section, suggestion, units, words};
use crate::rule::Rule;
use crate::rule::load::Id;

section! {
    /// Has every alert judged by a model. `triage: true` takes all defaults; clickdetect's `plugins.clickagentic`
    /// is read as this section.
    pub struct Config {
        /// Who answers; `local` is a model inside this process.
        pub provider: Provider = "local",
        /// Name of a model in `models/models.toml`, or path of a GGUF file.
        pub model: String = "SmolLM2-135M-Instruct",
        /// Key for a provider that needs one, e.g. `{env: TOKEN}`.
        pub token: Option<Secret>,
        /// Address of a provider that has one.
        pub base_url: Option<Url>,
        /// What is known to be harmless, in words, e.g. `Scanner 10.0.0.5 runs daily. Ignore alerts where source_ip
        /// is 10.0.0.5.`
        pub false_positive: Option<String>,
        /// What is known to be harmless, as statements that end: who or what, why, until when, and who says so.
        pub known_benign: Vec<KnownBenign> = "[]",
        /// What the site cannot do without: addresses, networks, and names of hosts, users or cloud resources, e.g. `[10.0.0.0/24,
        /// dc-*]`. An alert that touches one counts 10 points more.
        pub critical_assets: Assets = "[]",
        /// Whether the model may think aloud first. Only `false` so far.
        #[read(think)]
        pub think: bool = "false",
        /// Rules below this level are not triaged, 1-100.
        #[read(level)]
        #[schema(schema::whole(1, 100))]
        pub from_level: u8 = "1",
        /// Ids of rules that are not triaged.
        #[read(ids)]
        pub ids: Vec<String> = "[]",
        /// Alerts an hour whose text the model writes, by severity, e.g. `{low: 20, medium: 60}`; by default there is no end.
        pub budget: Budget = "{}",
        /// Whether what the model wrote about an alert may stand beside one that is alike, as far as it holds there.
        pub reuse: bool = "true",
        /// When an alert goes out: `prose`: once the model has written about it; `verdict`: as soon as severity and scores
        /// stand, with text by code, and the model's text follows as one update.
        pub deliver: Deliver = "prose",
        /// An alert whose triage takes longer goes out with what is there by then, its verdict with text by code or
        /// neither; what is missing follows as one update.
        #[read(deadline)]
        pub deadline: Duration = "30s",
        /// Alerts that may wait for their verdict at one time; of more, the least urgent go without one. As many may wait for
        /// the model's text; of more, the least urgent keep code's.
        #[read(queue)]
        #[schema(schema::whole(1, 100_000))]
        pub queue: usize = "1000",
        /// Alerts that are read at the same time. More take more memory and each takes longer, but all of them less.
        #[read(batch)]
        #[schema(schema::whole(1, 64))]
        pub batch: usize = "8",
        /// What the model computes on: `cpu`; `cuda`, or `cuda:1`, an Nvidia GPU by its number from 0; `metal`, the GPU of an
        /// Apple machine. A GPU needs a build made for it, with `--features cuda` or `--features metal`.
        pub device: Device = "cpu",
        /// Threads of the model; by default one for each processor.
        #[read(threads)]
        #[schema(schema::whole(1, 1024))]
        pub threads: Option<usize>,
        /// How far the model steps back for other work on the processors, 0-19, as `nice` counts.
        #[read(niceness)]
        #[schema(schema::whole(0, 19))]
        pub niceness: u8 = "10",
        /// Memory that the model may use, in bytes, e.g. `2GiB`; by default what it needs.
        #[read(memory)]
        #[schema(schema::size())]
        pub memory_limit: Option<u64>,
        /// What must be proven before `watchpost trust grant` lets the machine close or lower alerts by itself, and how many
        /// alerts analysts close without seeing its verdict.
        pub trust: Trust = "{}",
    }
}

section! {
    /// The trust gate, see docs/trust.md.
    pub struct Trust {
        /// What precision and recall of a rule's verdicts must be proven to be, 0.5-0.999: the lower bounds of what was
        /// measured, at 95 %.
        #[read(bar)]
        #[schema(schema::number(json!({ "minimum": 0.5, "maximum": 0.999 })))]
        pub bar: f64 = "0.95",
        /// Days from the first to the last closing that is measured, 1-180.
        #[read(days)]
        #[schema(schema::whole(1, 180))]
        pub days: u32 = "30",
        /// The share of alerts, 0-1, whose verdict is shown to nobody until a person has closed them.
        #[read(share)]
        #[schema(schema::number(json!({ "minimum": 0, "maximum": 1 })))]
        pub blind: f64 = "0",
    }
}

impl Default for Trust {
    fn default() -> Self {
        crate::config::defaults()
    }
}

impl Config {
    /// Whether alerts of `rule` are triaged: its level reaches `from_level` and `ids` does not name it.
    pub fn applies_to(&self, rule: &Rule) -> bool {
        rule.level.get() >= self.from_level && !self.ids.contains(&rule.id)
    }
}

impl Default for Config {
    /// What `triage: true` means.
    fn default() -> Self {
        crate::config::defaults()
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    Local,
}

impl FromYaml for Provider {
    const TYPE: &'static str = "provider";

    fn schema() -> Json {
        schema::words(&["local"])
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        const PLANNED: [&str; 7] =
            ["openai", "anthropic", "google", "huggingface", "ollama", "openrouter", "deepseek"];
        let name = String::from_yaml(node, reader)?;
        if name == "local" {
            return Some(Self::Local);
        }
        if PLANNED.contains(&name.as_str()) {
            reader.error(node.at, format!("the provider `{name}` is not built yet; there is `local`"));
            return None;
        }
        let near = suggestion(&name, PLANNED.into_iter().chain(["local"]));
        reader.refuse(node, &format!("a provider; there is `local`{near}"))
    }

    fn to_json(&self) -> Json {
        "local".into()
    }
}

impl FromYaml for Device {
    const TYPE: &'static str = "device";

    fn schema() -> Json {
        schema::pattern("^(cpu|metal|cuda(:[0-9]+)?)$")
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let name = String::from_yaml(node, reader)?;
        let device = match name.parse::<Self>() {
            Ok(device) => device,
            Err(hint) => return reader.refuse(node, &format!("a device: {hint}")),
        };
        let Some(feature) = device.missing_feature() else { return Some(device) };
        let hint = format!("use one made with `--features {feature}`, or write `cpu`");
        reader.error(node.at, format!("this build cannot compute on `{device}`: {hint}"));
        None
    }

    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}

words! {
    /// When an alert goes out.
    pub enum Deliver: "a time to deliver" {
        Prose = "prose",
        Verdict = "verdict",
    }
}

fn think(node: &Node, reader: &mut Reader<'_>) -> Option<bool> {
    if bool::from_yaml(node, reader)? {
        reader.error(node.at, "thinking is not built yet: write `false`");
        return None;
    }
    Some(false)
}

/// Read as rules read their own ids, so that an unquoted `001` here is the rule whose id is an unquoted `001`.
fn ids(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let ids: Vec<_> = (items.iter().enumerate())
        .map(|(index, item)| reader.within_item(index, |reader| Id::from_yaml(item, reader).map(|id| id.0)))
        .collect();
    ids.into_iter().collect()
}

fn level(node: &Node, reader: &mut Reader<'_>) -> Option<u8> {
    let level = u64::from_yaml(node, reader)?;
    match u8::try_from(level) {
        Ok(level @ 1..=100) => Some(level),
        _ => reader.refuse(node, "a level from 1 to 100"),
    }
}

fn deadline(node: &Node, reader: &mut Reader<'_>) -> Option<Duration> {
    let deadline = Duration::from_yaml(node, reader)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(86_400)).contains(&deadline);
    if fits { Some(deadline) } else { reader.refuse(node, "between 0.1s and 1d") }
}

fn threads(node: &Node, reader: &mut Reader<'_>) -> Option<Option<usize>> {
    let threads = usize::from_yaml(node, reader)?;
    if (1..=1024).contains(&threads) {
        Some(Some(threads))
    } else {
        reader.refuse(node, "between 1 and 1024")
    }
}

fn batch(node: &Node, reader: &mut Reader<'_>) -> Option<usize> {
    let alerts = usize::from_yaml(node, reader)?;
    if (1..=64).contains(&alerts) { Some(alerts) } else { reader.refuse(node, "between 1 and 64") }
}

fn bar(node: &Node, reader: &mut Reader<'_>) -> Option<f64> {
    let bar = f64::from_yaml(node, reader)?;
    if (0.5..=0.999).contains(&bar) { Some(bar) } else { reader.refuse(node, "between 0.5 and 0.999") }
}

fn days(node: &Node, reader: &mut Reader<'_>) -> Option<u32> {
    match u64::from_yaml(node, reader)? {
        days @ 1..=180 => Some(days as u32),
        _ => reader.refuse(node, "between 1 and 180"),
    }
}

fn share(node: &Node, reader: &mut Reader<'_>) -> Option<f64> {
    let share = f64::from_yaml(node, reader)?;
    if (0.0..=1.0).contains(&share) { Some(share) } else { reader.refuse(node, "a share from 0 to 1") }
}

fn niceness(node: &Node, reader: &mut Reader<'_>) -> Option<u8> {
    match u64::from_yaml(node, reader)? {
        niceness @ 0..=19 => Some(niceness as u8),
        _ => reader.refuse(node, "between 0 and 19"),
    }
}

fn queue(node: &Node, reader: &mut Reader<'_>) -> Option<usize> {
    let alerts = usize::from_yaml(node, reader)?;
    if (1..=100_000).contains(&alerts) { Some(alerts) } else { reader.refuse(node, "between 1 and 100000") }
}

fn memory(node: &Node, reader: &mut Reader<'_>) -> Option<Option<u64>> {
    let size = String::from_yaml(node, reader)?;
    match units::bytes(&size) {
        Ok(bytes) => Some(Some(bytes)),
        Err(message) => {
            reader.error(node.at, message);
            None
        }
    }
}
