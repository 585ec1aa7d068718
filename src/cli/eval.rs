//! `watchpost eval`: how good the judge is on alerts whose labels are known.

mod draw;
pub(super) mod past;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::{Code, Failure};
use crate::clock::Clock;
use crate::measure::{By, Format, Judged, Report};
use crate::text::escape;
use crate::triage::judge::labelled::{self, Labelled};
use crate::triage::judge::learn::{Lesson, Parts, learn};
use crate::triage::judge::{Features, Judge};
use crate::triage::score;
use draw::Draw;
use past::Past;

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("lessons").args(["learn", "across"]))]
pub struct Args {
    /// JSON lines with `alert` and `label`.
    #[arg(long, value_name = "FILE")]
    labelled: PathBuf,
    /// Judge each alert in the order of time before its label is seen, and learn from it afterwards.
    #[arg(long, conflicts_with_all = ["learn", "across"])]
    prequential: bool,
    /// Learn from this file first.
    #[arg(long, value_name = "FILE")]
    learn: Option<PathBuf>,
    /// Judge each group by what is learned on the others.
    #[arg(long, value_name = "GROUP")]
    across: Option<Across>,
    /// Learn from so many labels at most.
    #[arg(long, value_name = "COUNT", requires = "lessons")]
    labels: Option<usize>,
    /// Which these are.
    #[arg(long, value_name = "HOW", default_value = "evenly", requires = "labels")]
    draw: Draw,
    /// With `--prequential`: measure from the label after this many on.
    #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "prequential")]
    after: usize,
    /// Learn again after so many labels.
    #[arg(long, value_name = "COUNT", default_value_t = 25, requires = "prequential",
        value_parser = clap::value_parser!(u32).range(1..))]
    step: u32,
    /// Leave this part out, to see what it is worth.
    #[arg(long, value_name = "PART")]
    without: Vec<Part>,
    /// Measure groups, too.
    #[arg(long)]
    by: Option<By>,
    #[arg(long, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Across {
    Source,
    Family,
    Scenario,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Rule, tags, clean cells, and what fired around.
    Words,
    /// What an attacker can write.
    Text,
    /// Level, counts and history.
    Numbers,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let began = Instant::now();
    let (set, left_out) = read(&args.labelled)?;
    let parts = Parts {
        words: !args.without.contains(&Part::Words),
        text: !args.without.contains(&Part::Text),
        numbers: !args.without.contains(&Part::Numbers),
        guarded: true,
    };
    let (judged, how) = match (&args.learn, args.across) {
        (Some(path), _) => {
            let (lessons, _) = read(path)?;
            let known = lessons_of(&lessons);
            let drawn = args.draw.from(&known.iter().collect::<Vec<_>>(), args.labels, parts);
            let judge = learn(&drawn, parts);
            let how = format!("by what was learned from {}{}", path.display(), args.draw.words(args.labels));
            (apart(&set, |_| judge.clone()), how)
        }
        (None, Some(across)) => (
            across.judge(&set, args.draw, args.labels, parts),
            format!(
                "each {} by what was learned on the others{}",
                across.word(),
                args.draw.words(args.labels)
            ),
        ),
        (None, None) if args.prequential => {
            let how = format!(
                "in the order of time, each before its label is seen, from label {} on",
                args.after + 1
            );
            (in_order(&set, args.step as usize, args.after, parts), how)
        }
        (None, None) => (
            apart(&set, |_| Judge::prior()),
            "by the formula alone, nothing learned: uncalibrated".to_owned(),
        ),
    };
    let title = format!("{}: {how}", args.labelled.display());
    let mut report = Report::new(title, Clock::system().now(), &judged, args.by);
    report.notes.push("every alert is decided at a probability of 0.5; `watchpost` itself leaves those between 0.35 and 0.65 undecided".to_owned());
    report.notes.push(format!("no model was asked; {:.1} s for all", began.elapsed().as_secs_f64()));
    if left_out > 0 {
        report
            .notes
            .push(format!("{left_out} alerts are labelled as duplicate or not evaluable and left out"));
    }
    std::io::stdout().lock().write_all(report.render(args.format).as_bytes())?;
    Ok(Code::Good)
}

impl Across {
    fn of(self, line: &Labelled) -> &str {
        match self {
            Self::Source => &line.source,
            Self::Family => &line.family,
            Self::Scenario => &line.scenario,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Family => "family",
            Self::Scenario => "scenario",
        }
    }

    fn judge(self, set: &[Labelled], draw: Draw, labels: Option<usize>, parts: Parts) -> Vec<Judged> {
        let groups: BTreeSet<&str> = set.iter().map(|line| self.of(line)).collect();
        let lessons = lessons_of(set);
        let judges: std::collections::BTreeMap<&str, Judge> = groups
            .into_iter()
            .map(|group| {
                let others: Vec<&Lesson> = set
                    .iter()
                    .zip(&lessons)
                    .filter(|(line, _)| self.of(line) != group)
                    .map(|(_, lesson)| lesson)
                    .collect();
                (group, learn(&draw.from(&others, labels, parts), parts))
            })
            .collect();
        apart(set, |line| judges[self.of(line)].clone())
    }
}

/// Each alert by the judge that `choose` gives, whose closings are those of other sites: none of the file's is known.
fn apart(set: &[Labelled], choose: impl Fn(&Labelled) -> Judge) -> Vec<Judged> {
    let mut past = Past::default();
    set.iter()
        .map(|line| {
            let features = features(line, &past);
            past.fired(line);
            judged(line, &choose(line), &features)
        })
        .collect()
}

fn in_order(set: &[Labelled], step: usize, after: usize, parts: Parts) -> Vec<Judged> {
    let mut past = Past::default();
    let mut judge = Judge::prior();
    let mut lessons: Vec<Lesson> = Vec::new();
    let mut all = Vec::new();
    for (index, line) in set.iter().enumerate() {
        let features = features(line, &past);
        if index >= after {
            all.push(judged(line, &judge, &features));
        }
        lessons.push(Lesson { features, is_threat: line.is_threat, weight: 1.0 });
        past.fired(line);
        past.closed(line);
        if lessons.len().is_multiple_of(step) {
            judge = learn(&lessons.iter().collect::<Vec<_>>(), parts);
        }
    }
    all
}

/// In the order of time, with what each site's analysts had decided by then.
fn lessons_of(set: &[Labelled]) -> Vec<Lesson> {
    let mut past = Past::default();
    set.iter()
        .map(|line| {
            let features = features(line, &past);
            past.fired(line);
            Lesson { features, is_threat: line.is_threat, weight: 1.0 }
        })
        .collect()
}

fn features(line: &Labelled, past: &Past) -> Features {
    let score = score::by_formula(&line.alert);
    Features::of(&line.alert, &past.of(line), score)
}

fn judged(line: &Labelled, judge: &Judge, features: &Features) -> Judged {
    let said = judge.judge(features);
    Judged {
        probability: Some(said.probability),
        said: Some(said.probability >= 0.5),
        label: Some(line.is_threat),
        source: line.source.as_str().into(),
        family: line.family.as_str().into(),
        rule: line.alert.rule_name().into(),
        judge: Arc::from(said.judge),
        ..Judged::default()
    }
}

/// In the order of time, and how many were left out.
pub(super) fn read(path: &Path) -> Result<(Vec<Labelled>, usize), Failure> {
    let name = path.display();
    let file = File::open(path).map_err(|error| Failure::cannot_run(format!("{name}: {error}")))?;
    let mut reader = BufReader::new(file);
    let (mut set, mut left_out) = (Vec::new(), 0);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let failed = |reason: &str| Failure::cannot_run(format!("{name}:{number}: {}", escape(reason)));
        if line.len() as u64 > MAX_LINE_BYTES {
            return Err(failed("longer than 16 MiB: leave out rows"));
        }
        let text = std::str::from_utf8(&line).map_err(|_| failed("not UTF-8"))?;
        if text.trim().is_empty() {
            continue;
        }
        match labelled::parse(text).map_err(|reason| failed(&reason))? {
            Some(labelled) => set.push(labelled),
            None => left_out += 1,
        }
    }
    if set.is_empty() {
        return Err(Failure::cannot_run(format!("{name}: no labelled alert in it")));
    }
    set.sort_by_key(|line| line.time);
    Ok((set, left_out))
}

const MAX_LINE_BYTES: u64 = 16 << 20;
