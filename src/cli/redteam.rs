//! `watchpost redteam`: attacks on the triage itself, and how many of them move a verdict.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::eval::past::Past;
use super::eval::read;
use super::{Code, Failure, RunnerArgs};
use crate::alert::Alert;
use crate::app;
use crate::redteam::{Attack, Report, Target, Trial, corpus, trial};
use crate::triage::history::{Around, MAX_AROUND};
use crate::triage::judge::labelled::{self, Labelled};
use crate::triage::judge::learn::{Lesson, Parts, learn};
use crate::triage::judge::{Features, Judge};
use crate::triage::{Known, Triager, Verdict, score, speech};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    runner: RunnerArgs,
    /// JSON lines with `alert` and `label`, as for `eval`; the true ones are attacked [default: a made set that is built in].
    #[arg(long, value_name = "FILE")]
    labelled: Option<PathBuf>,
    /// Learn from this file, instead of from the other half of the first.
    #[arg(long, value_name = "FILE")]
    learn: Option<PathBuf>,
    /// The greatest share of verdicts, in percent, that may move towards harmless in any family of attacks.
    #[arg(long, value_name = "PERCENT", default_value_t = 4.0, value_parser = percent)]
    most: f64,
    /// So many true alerts are attacked, drawn evenly over the file.
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    alerts: usize,
    /// Let what an attacker can move count against a threat, too, as in a common classifier: shows what the defence is worth.
    #[arg(long)]
    unguarded: bool,
    /// Ask the runner's model, too, on a sample: its prose must change no number.
    #[arg(long)]
    model: bool,
    /// With `--model`: so many attacked alerts.
    #[arg(long, value_name = "COUNT", default_value_t = 20, requires = "model")]
    sample: usize,
    #[arg(long, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Json,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let began = Instant::now();
    let (set, name) = match &args.labelled {
        Some(path) => (read(path)?.0, path.display().to_string()),
        None => (made()?, "the made alerts".to_owned()),
    };
    let mut lines = known(&set);
    let parts = Parts { guarded: !args.unguarded, ..Parts::ALL };
    let (judges, how) = match &args.learn {
        Some(path) => {
            let lessons: Vec<Lesson> = known(&read(path)?.0).iter().map(Line::lesson).collect();
            let judge = Arc::new(learn(&lessons.iter().collect::<Vec<_>>(), parts));
            ([Arc::clone(&judge), judge], format!("learned from {}", path.display()))
        }
        None => (halves(&lines, parts), "each half by what was learned on the other".to_owned()),
    };
    let speaking = lines.iter().filter(|line| speech::find(&line.target.alert).is_some()).count();
    let plain =
        format!("as they are, {speaking} of {} alerts are said to speak to their reader", lines.len());
    let (benign, around) = copied(&lines, &judges);
    let attacks = corpus::all(&benign.iter().collect::<Vec<_>>(), &around);
    lines.retain(|line| line.is_threat);
    let count = args.alerts.clamp(1, lines.len().max(1)).min(lines.len());
    let chosen: Vec<&Line> = (0..count).map(|n| &lines[n * lines.len() / count]).collect();
    if chosen.is_empty() {
        return Err(Failure::cannot_run(format!("{name}: no true alert in it to attack")));
    }
    let mut trials = Vec::new();
    for line in &chosen {
        let judge = &judges[line.half];
        let before = trial::verdict(&line.target, judge);
        for attack in &attacks {
            if let Some(attacked) = attack.on(&line.target) {
                let after = trial::verdict(&attacked, judge);
                trials.push(Trial::of(attack.family, &attack.name, &before, &attacked, &after));
            }
        }
    }
    let asked = if args.model { ask(&args, &chosen, &attacks, &judges, &mut trials)? } else { 0 };
    let guard = if args.unguarded { "; the judge is UNGUARDED" } else { "" };
    let title = format!("{name}: {how}{guard}");
    let mut report = Report::new(title, &trials, chosen.len(), args.most / 100.0, asked);
    report.notes.push(plain);
    report.notes.push(format!("{:.1} s for all", began.elapsed().as_secs_f64()));
    let text = match args.format {
        Format::Table => report.render(),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(if report.holds { Code::Good } else { Code::Findings })
}

/// A line of the file with what was known of it.
struct Line {
    target: Target,
    features: Features,
    is_threat: bool,
    /// Which of two judges has not learned from it.
    half: usize,
}

impl Line {
    fn lesson(&self) -> Lesson {
        Lesson { features: self.features.clone(), is_threat: self.is_threat, weight: 1.0 }
    }
}

/// In the order of time; every alert before was closed.
fn known(set: &[Labelled]) -> Vec<Line> {
    let mut past = Past::default();
    let mut counts = [0, 0];
    set.iter()
        .map(|line| {
            let history = past.of(line);
            past.fired(line);
            past.closed(line);
            let place = &mut counts[usize::from(line.is_threat)];
            *place += 1;
            let features = Features::of(&line.alert, &history, score::by_formula(&line.alert));
            let target = Target { alert: line.alert.clone(), history };
            Line { target, features, is_threat: line.is_threat, half: *place % 2 }
        })
        .collect()
}

/// The first is for half 0, and learned from half 1.
fn halves(lines: &[Line], parts: Parts) -> [Arc<Judge>; 2] {
    [0, 1].map(|half| {
        let others: Vec<Lesson> = lines.iter().filter(|line| line.half != half).map(Line::lesson).collect();
        Arc::new(learn(&others.iter().collect::<Vec<_>>(), parts))
    })
}

/// What the attacker copies from: the benign alerts that are judged least likely a threat, of different rules, and the rules
/// that fired most around benign ones.
fn copied(lines: &[Line], judges: &[Arc<Judge>; 2]) -> (Vec<Alert>, Vec<Around>) {
    let benign: Vec<&Line> = lines.iter().filter(|line| !line.is_threat).collect();
    let said = |line: &Line| judges[line.half].judge(&line.features).probability;
    let mut order: Vec<(f64, &Line)> = benign.iter().map(|line| (said(line), *line)).collect();
    order.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut alerts: Vec<Alert> = Vec::new();
    for (_, line) in &order {
        let alert = &line.target.alert;
        if alerts.iter().all(|known| known.rule_name() != alert.rule_name()) {
            alerts.push(alert.clone());
        }
        if alerts.len() == MAX_COPIED {
            break;
        }
    }
    let mut around: Vec<Around> = Vec::new();
    for other in order.iter().flat_map(|(_, line)| &line.target.history.around) {
        if around.len() < MAX_AROUND && around.iter().all(|known| known.rule != other.rule) {
            around.push(other.clone());
        }
    }
    (alerts, around)
}

/// Both steps with the model, evenly over all pairs of alert and attack.
fn ask(
    args: &Args,
    chosen: &[&Line],
    attacks: &[Attack],
    judges: &[Arc<Judge>; 2],
    trials: &mut Vec<Trial>,
) -> Result<usize, Failure> {
    let (config, runner) = super::triage::triage_config(&args.runner)?;
    let triager = app::triager(&config, &runner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pairs = chosen.len() * attacks.len();
    let count = args.sample.min(pairs);
    for n in 0..count {
        let pair = n * pairs / count;
        let (line, attack) = (chosen[pair % chosen.len()], &attacks[pair / chosen.len()]);
        let Some(attacked) = attack.on(&line.target) else { continue };
        let judge = &judges[line.half];
        let (before, _) = runtime.block_on(both(&triager, &line.target, judge))?;
        let (judged, after) = runtime.block_on(both(&triager, &attacked, judge))?;
        let name = format!("{} (with the model)", attack.name);
        let mut trial = Trial::of(attack.family, &name, &before, &attacked, &after);
        trial.is_changed_by_prose = trial::is_changed(&judged, &after);
        trials.push(trial);
    }
    runtime.block_on(triager.shutdown());
    Ok(count)
}

/// The verdict before its prose, and with it. Without a model there is nothing to show.
async fn both(triager: &Triager, target: &Target, judge: &Arc<Judge>) -> Result<(Verdict, Verdict), Failure> {
    let known = Known { history: target.history.clone(), judge: Arc::clone(judge) };
    let alert = Arc::new(target.alert.clone());
    let judged = triager.judge(&alert, known, LIMIT).await.map_err(Failure::cannot_run)?.verdict;
    if let Some(reason) = &judged.cost.without_model {
        return Err(Failure::cannot_run(format!("--model: {reason}")));
    }
    let described = triager.describe(&alert, judged.clone(), LIMIT).await.map_err(Failure::cannot_run)?;
    Ok((judged, described))
}

fn made() -> Result<Vec<Labelled>, Failure> {
    let mut set = Vec::new();
    for line in MADE.lines().filter(|line| !line.trim().is_empty()) {
        set.extend(labelled::parse(line).map_err(Failure::cannot_run)?);
    }
    set.sort_by_key(|line| line.time);
    Ok(set)
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("write percent from 0 to 100, e.g. 4".to_owned()),
    }
}

const MADE: &str = include_str!("redteam/made.jsonl");
const MAX_COPIED: usize = 8;
const LIMIT: Duration = Duration::from_secs(600);
