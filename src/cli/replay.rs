//! `watchpost replay ID`: the verdict once more from what it was made of, and what differs.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Code, Failure, RunnerArgs};
use crate::alert::Alert;
use crate::app;
use crate::store::{Access, Store, alerts, closings, judges};
use crate::text::escape_within;
use crate::triage::judge::{Features, Judge};
use crate::triage::verdict::Prose;
use crate::triage::{Draft, Known, Settings, Triager, Verdict};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    runner: RunnerArgs,
    /// The alert: its id, or as much of it as is one alert's alone, at least 4 digits.
    id: String,
    /// Do not ask the model: its recorded opinion counts, and its text is not compared.
    #[arg(long)]
    without_model: bool,
    /// JSON instead of lines.
    #[arg(long)]
    json: bool,
}

/// A stored verdict, and all that it names.
struct Past {
    alert: Arc<Alert>,
    verdict: Verdict,
    features: Features,
    judge: Arc<Judge>,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let path = args.runner.path();
    let runner = super::load(&path)?;
    let store = Store::open(&runner.store, Access::Command).map_err(Failure::cannot_run)?;
    let past = Past::read(&store, &args.id)?;
    let config = runner.triage.unwrap_or_default();
    let asks = !args.without_model && !past.verdict.cost.model.is_empty();
    let now = match asks {
        true => {
            let triager = app::triager(&config, &path);
            let other =
                past.verdict.cost.reused_from.as_ref().map(|id| Past::read(&store, id)).transpose()?;
            super::runtime()?.block_on(past.again(&triager, other.as_ref()))?
        }
        false => past.by_code(&app::settings(&config)),
    };
    let differs = differences(&past.verdict, &now, asks);
    let causes = causes(&past.verdict, &now);
    let is_same = differs.is_empty();
    let mut out = std::io::stdout().lock();
    if args.json {
        let told = json!({ "alert": past.alert.id, "same": is_same, "asked_model": asks, "differs": differs, "changed_since": causes });
        writeln!(out, "{}", serde_json::to_string_pretty(&told)?)?;
    } else {
        for (name, both) in &differs {
            writeln!(out, "{name}\n  then  {}\n  now   {}", shown(&both[0]), shown(&both[1]))?;
        }
        for cause in &causes {
            writeln!(out, "changed since: {cause}")?;
        }
        let what = match asks {
            true => "verdict and text",
            false if past.verdict.cost.model.is_empty() => "verdict; no model was asked then",
            false => "verdict by the model's recorded opinion; its text was not compared",
        };
        writeln!(out, "{}: {what}", if is_same { "the same" } else { "not the same" })?;
    }
    Ok(if is_same { Code::Good } else { Code::Findings })
}

impl Past {
    fn read(store: &Store, id: &str) -> Result<Self, Failure> {
        let id = store.read_here(|connection| closings::alert_of(connection, id))?;
        let id = id.map_err(Failure::cannot_run)?;
        let stored = store.read_here(|connection| alerts::get(connection, &id))?;
        let verdict = stored.as_ref().and_then(|stored| stored.triage.verdict().cloned());
        let (Some(stored), Some(verdict)) = (stored, verdict) else {
            return Err(Failure::cannot_run(format!("alert {id} has no verdict")));
        };
        let features = store.read_here(|connection| judges::features(connection, &id))?;
        let (Some(judgement), Some(_), Some(features)) =
            (verdict.judgement.clone(), &verdict.record, features)
        else {
            let reason = "its verdict is of an older watchpost, which kept no record of what it was made of";
            return Err(Failure::cannot_run(format!("alert {id}: {reason}")));
        };
        let judge = store.read_here(|connection| judges::load(connection, &judgement.judge))?;
        let judge = judge.map_err(|reason| {
            Failure::cannot_run(format!("judge `{}`: {reason}", escape_within(&judgement.judge, MAX_SHOWN)))
        })?;
        Ok(Self { alert: Arc::new(stored.alert), verdict, features, judge: Arc::new(judge) })
    }

    fn known(&self) -> Known {
        Known { judge: Arc::clone(&self.judge), ..Known::default() }
    }

    fn by_code(&self, settings: &Settings) -> Verdict {
        let draft = Draft::of(&self.alert, settings, self.known());
        let judged = draft.with_features(self.features.clone()).judged(self.verdict.opinion);
        let mut now = judged.done_as(&self.verdict);
        now.cost = self.verdict.cost.clone();
        now
    }

    /// With the model; it writes where it wrote.
    async fn again(&self, triager: &Triager, other: Option<&Self>) -> Result<Verdict, Failure> {
        let judged = triager.judge_again(&self.alert, self.known(), self.features.clone(), LIMIT).await;
        let verdict = judged.map_err(Failure::cannot_run)?.done_as(&self.verdict);
        if let Some(other) = other {
            // The model wrote about that one; the same triager then knows what it wrote.
            let judged =
                triager.judge_again(&other.alert, other.known(), other.features.clone(), LIMIT).await;
            let verdict = judged.map_err(Failure::cannot_run)?.done_as(&other.verdict);
            triager.describe(&other.alert, verdict, LIMIT).await.map_err(Failure::cannot_run)?;
        }
        match self.verdict.cost.prose {
            Prose::Template if self.verdict.cost.templated.is_empty() => Ok(verdict),
            _ => triager.describe(&self.alert, verdict, LIMIT).await.map_err(Failure::cannot_run),
        }
    }
}

/// Fields of the two verdicts that are not the same; times and costs are not compared.
fn differences(then: &Verdict, now: &Verdict, with_text: bool) -> Map<String, Value> {
    let fields = |verdict: &Verdict| match serde_json::to_value(verdict) {
        Ok(Value::Object(mut fields)) => {
            fields.retain(|name, _| {
                !["cost", "record"].contains(&name.as_str()) && (with_text || !TEXT.contains(&name.as_str()))
            });
            fields
        }
        _ => Map::new(),
    };
    let (then, mut now) = (fields(then), fields(now));
    let mut differs = Map::new();
    for (name, before) in then {
        let after = now.shift_remove(&name).unwrap_or_default();
        if before != after {
            differs.insert(name, json!([before, after]));
        }
    }
    differs.extend(now.into_iter().map(|(name, after)| (name, json!([null, after]))));
    differs
}

/// What the verdict is made of and is another now.
fn causes(then: &Verdict, now: &Verdict) -> Vec<String> {
    let (Some(past), Some(present)) = (&then.record, &now.record) else { return Vec::new() };
    let written = |hash: &Option<String>| hash.clone().unwrap_or_default();
    [
        ("watchpost itself", past.watchpost.clone(), present.watchpost.clone()),
        ("the stored alert", past.alert.clone(), present.alert.clone()),
        ("the notes or limits of `triage:`", past.settings.clone(), present.settings.clone()),
        ("the stored features", past.features.clone(), present.features.clone()),
        ("the model", then.cost.model_sha256.clone(), now.cost.model_sha256.clone()),
        ("the question to the model", past.question.clone(), present.question.clone()),
        ("the prompt for the text", written(&past.prompt), written(&present.prompt)),
        ("the grammar of the text", written(&past.grammar), written(&present.grammar)),
    ]
    .into_iter()
    .filter(|(_, then, now)| then != now && !now.is_empty())
    .map(|(what, then, now)| {
        let [then, now] = [then, now].map(|hash| escape_within(&hash, 12));
        format!("{what} ({then} then, {now} now)")
    })
    .collect()
}

fn shown(value: &Value) -> String {
    escape_within(&value.to_string(), MAX_SHOWN)
}

const TEXT: [&str; 6] = ["title", "summary", "explanation", "claims", "mitigations", "recommended_action"];
/// Characters.
const MAX_SHOWN: usize = 300;
const LIMIT: Duration = Duration::from_secs(600);
