//! What the judge costs in a store full of alerts: learning from closings, a verdict without a model, and the measures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rand::rngs::SmallRng;
use watchpost::alert::Alert;
use watchpost::clock::{Clock, Timestamp};
use watchpost::closing::{Decision, Label};
use watchpost::learning;
use watchpost::measure::Report;
use watchpost::store::{Store, alerts, closings, history, judges, measured};
use watchpost::triage::judge::Features;
use watchpost::triage::judge::learn::{Lesson, Parts, learn};
use watchpost::triage::opinion::Opinion;
use watchpost::triage::{Draft, Known, Settings, score};

use crate::{Line, line, ms, percentile};

/// `fresh` makes an alert with 20 rows that is not in the store, `stored` names one that is.
pub fn judge(
    store: &Store,
    random: &mut SmallRng,
    fresh: impl Fn(&mut SmallRng) -> Alert,
    stored: impl Fn(&mut SmallRng) -> String,
) -> Result<Vec<Line>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut lines = Vec::new();
    close(store, &runtime, random, stored)?;
    let began = Instant::now();
    runtime.block_on(learning::learn_now(store, &Clock::system()))?;
    let first = began.elapsed();
    let (lessons, _) = store.read_here(judges::lessons)?;
    lines.push(line(
        format!("{} closings read, their features found, learned and kept", lessons.len()),
        format!("{:.1} s", first.as_secs_f64()),
    ));
    for count in [100, 400, lessons.len()] {
        let some: Vec<&Lesson> = lessons[..count.min(lessons.len())].iter().collect();
        let began = Instant::now();
        let learned = learn(&some, Parts::ALL);
        let took = began.elapsed();
        ensure!(learned.learned.0 + learned.learned.1 == some.len(), "it did not learn");
        lines.push(line(format!("  learning from {} alone", some.len()), format!("{:.0} ms", ms(took))));
    }
    let (judge, problem) = learning::current(store)?;
    ensure!(problem.is_none() && judge.learned.0 > 0, "no judge is there: {problem:?}");
    lines.push(verdicts(store, random, fresh, Arc::new(judge))?);
    let began = Instant::now();
    let found = store.read_here(|connection| measured::measured(connection, Timestamp::UNIX_EPOCH))?;
    let report = Report::new("", Timestamp::UNIX_EPOCH, &found.judged, None);
    let took = began.elapsed();
    ensure!(report.all.labelled > 0, "nothing was measured");
    lines.push(line(format!("measures of {} closings", found.closings.len()), format!("{:.0} ms", ms(took))));
    let began = Instant::now();
    let listed = store.read_here(|connection| alerts::list(connection, 50))?;
    for listed in &listed {
        store.read_here(|connection| alerts::alike(connection, &listed.alert.id))?;
    }
    lines.push(line(
        "the last 50 alerts, and how many are like each",
        format!("{:.0} ms", ms(began.elapsed())),
    ));
    lines.push(unsure(store, &runtime)?);
    Ok(lines)
}

/// With as many open alerts that have a verdict as are looked at.
fn unsure(store: &Store, runtime: &tokio::runtime::Runtime) -> Result<Line> {
    let open = store.read_here(|connection| alerts::list_open(connection, judges::MAX_UNSURE))?;
    let found = open.iter().map(|stored| -> Result<judges::Found> {
        let history = store.read_here(|connection| history::look_up(connection, &stored.alert))?;
        let score = score::by_formula(&stored.alert);
        Ok((stored.alert.id.as_str().into(), Features::of(&stored.alert, &history, score)))
    });
    let found: Vec<_> = found.collect::<Result<_>>()?;
    runtime.block_on(store.write(move |tx| judges::keep_found(tx, &found)))?;
    let began = Instant::now();
    let (judge, _) = learning::current(store)?;
    let listed = store.read_here(|connection| judges::unsure(connection, &judge, 50))?;
    ensure!(listed.len() == 50, "{} listed", listed.len());
    let what = format!("of the last {} open alerts the 50 of which the judge is least sure", open.len());
    Ok(line(what, format!("{:.0} ms", ms(began.elapsed()))))
}

/// Threats on a tenth of the hosts, so that there is something to learn.
fn close(
    store: &Store,
    runtime: &tokio::runtime::Runtime,
    random: &mut SmallRng,
    stored: impl Fn(&mut SmallRng) -> String,
) -> Result<()> {
    let ids: Vec<String> = (0..CLOSINGS).map(|_| stored(random)).collect();
    let decide = move |tx: &rusqlite::Transaction<'_>| {
        for (n, id) in ids.iter().enumerate() {
            let is_threat = alerts::get(tx, id)?.is_some_and(|stored| {
                stored.alert.data.value[0]["host"].as_str().is_some_and(|host| host.ends_with('7'))
            });
            let label = if is_threat { Label::TruePositive } else { Label::FalsePositive };
            let at = Timestamp::from_second(1_792_000_000 + 600 * n as i64).ok();
            let decision =
                Decision { alert: id.clone(), label, reason: "bench".into(), analyst: "ann".into(), at };
            closings::import(tx, &decision, Timestamp::UNIX_EPOCH)?;
        }
        Ok(())
    };
    Ok(runtime.block_on(store.write(decide))?)
}

/// As the service gives them where no model is there, but for saving.
fn verdicts(
    store: &Store,
    random: &mut SmallRng,
    fresh: impl Fn(&mut SmallRng) -> Alert,
    judge: Arc<watchpost::triage::judge::Judge>,
) -> Result<Line> {
    let settings = Settings::default();
    let mut took = Vec::new();
    for _ in 0..VERDICTS {
        let alert = fresh(random);
        let began = Instant::now();
        let history = store.read_here(|connection| history::look_up(connection, &alert))?;
        let draft = Draft::of(&alert, &settings, Known { history, judge: Arc::clone(&judge) });
        let judged = draft.judged(Opinion::default());
        took.push(began.elapsed());
        ensure!(judged.verdict.judgement.is_some(), "it was not judged");
    }
    took.sort();
    let (half, most) = (percentile(&took, 50), percentile(&took, 99));
    let figure = format!("median {:.2}, p99 {:.2} ms", ms(half), ms(most));
    Ok(line("verdict without a model, 20 rows, with its history", figure)
        .target("20 ms", most < Duration::from_millis(20)))
}

const CLOSINGS: usize = 5_000;
const VERDICTS: usize = 500;
