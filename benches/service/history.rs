//! What history costs: a store that is filled through the code that saves alerts, and look-ups in it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use watchpost::alert::{Alert, Data};
use watchpost::clock::Window;
use watchpost::store::alerts::{self, Handling};
use watchpost::store::{Access, Store, history};

use crate::judge;
use crate::{Line, line, mb, ms, percentile};

/// 200 rules and 10,000 hosts, users and addresses over 30 days, the first of each far more often than the last. Three
/// in ten alerts are of one host, all on the last day.
pub fn history() -> Result<Vec<Line>> {
    let count: usize = match std::env::var("WATCHPOST_BENCH_ALERTS") {
        Ok(text) => text.parse().context("WATCHPOST_BENCH_ALERTS is a number of alerts")?,
        Err(_) => 100_000,
    };
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("history.db");
    let store = Store::open(&path, Access::Service)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut random = SmallRng::seed_from_u64(1);
    let (mut saving, mut last) = (Duration::ZERO, Duration::ZERO);
    for first in (0..count).step_by(TICK) {
        let tick: Vec<Alert> =
            (first..count.min(first + TICK)).map(|n| alert(&mut random, n, count)).collect();
        let length = tick.len() as u32;
        let mut jobs = JoinSet::new();
        let began = Instant::now();
        runtime.block_on(async {
            // As from so many searches: each alert is a job of its own.
            for alert in tick {
                let store = store.clone();
                jobs.spawn_on(async move { save(&store, alert).await }, runtime.handle());
            }
            while let Some(saved) = jobs.join_next().await {
                saved??;
            }
            anyhow::Ok(())
        })?;
        last = began.elapsed() / length;
        saving += began.elapsed();
    }
    let mut lines = vec![
        line(
            format!("{count} alerts saved with their history, {TICK} at a time, each"),
            format!("{:.3} ms (the last {TICK}: {:.3} ms)", ms(saving) / count as f64, ms(last)),
        ),
        line("  store", mb(std::fs::metadata(&path)?.len())),
    ];
    for (what, ends) in
        [("a new alert", START_S + SPAN_S..START_S + SPAN_S + 10), ("any alert", START_S..START_S + SPAN_S)]
    {
        for is_of_flood in [false, true] {
            let name =
                if is_of_flood { format!("{what} of the host with {}", flooded(count)) } else { what.into() };
            let from = if is_of_flood { ends.start.max(START_S + SPAN_S - DAY_S) } else { ends.start };
            let (took, busy) = look_ups(&store, &mut random, from..ends.end, is_of_flood)?;
            let (half, most) = (percentile(&took, 50), percentile(&took, 99));
            let (half_busy, most_busy) = (percentile(&busy, 50), percentile(&busy, 99));
            let figure = format!(
                "median {:.2}, p99 {:.2} ms (on the processor {:.2}, {:.2} ms)",
                ms(half),
                ms(most),
                ms(half_busy),
                ms(most_busy)
            );
            lines.push(
                line(format!("  look-up for {name}"), figure)
                    .target("p99 5 ms", most < Duration::from_millis(5)),
            );
        }
    }
    check(&store, count)?;
    let fresh = |random: &mut SmallRng| {
        let mut alert = made(random, START_S + SPAN_S + 1, false, "fresh".into());
        let rows = alert.data.value.iter().cycle().take(20).cloned().collect();
        (alert.data.value, alert.data.len) = (rows, 20);
        alert
    };
    let stored = |random: &mut SmallRng| format!("{:032x}", random.random_range(0..count));
    lines.extend(judge::judge(&store, &mut random, fresh, stored)?);
    Ok(lines)
}

async fn save(store: &Store, alert: Alert) -> Result<()> {
    let handling = Handling { webhooks: Vec::new(), triage: None };
    store.write(move |tx| alerts::insert(tx, "bench", &alert, &handling)).await?;
    Ok(())
}

/// Sorted times of look-ups for alerts that are not in the store, and what of each was on the processor: beside other
/// work the rest is waiting for it.
fn look_ups(
    store: &Store,
    random: &mut SmallRng,
    ends: std::ops::Range<i64>,
    is_of_flood: bool,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut took, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..LOOK_UPS {
        let end_s = random.random_range(ends.clone());
        let alert = made(random, end_s, is_of_flood, "look-up".into());
        let (on_processor, began) = (on_processor()?, Instant::now());
        store.read_here(|connection| history::look_up(connection, &alert))?;
        took.push(began.elapsed());
        busy.push(self::on_processor()? - on_processor);
    }
    took.sort();
    busy.sort();
    Ok((took, busy))
}

/// How long this thread has run.
fn on_processor() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// A look-up that is fast and wrong is no figure.
fn check(store: &Store, count: usize) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(2);
    let alert = made(&mut random, START_S + SPAN_S + 1, true, "check".into());
    let found = store.read_here(|connection| history::look_up(connection, &alert))?;
    let of_host =
        found.entities.iter().find(|(entity, _)| entity.value == HOST).map(|(_, counts)| counts.ever);
    ensure!(of_host == Some(flooded(count) as u64), "{of_host:?} alerts of the host were found");
    Ok(())
}

fn alert(random: &mut SmallRng, n: usize, count: usize) -> Alert {
    // The flood comes as it would: at the end.
    let is_of_flood = n >= count - flooded(count);
    let end_s = match is_of_flood {
        true => {
            START_S + SPAN_S - DAY_S + DAY_S * (n - (count - flooded(count))) as i64 / flooded(count) as i64
        }
        false => START_S + SPAN_S * n as i64 / count as i64,
    };
    made(random, end_s, is_of_flood, format!("{n:032x}"))
}

fn made(random: &mut SmallRng, end_s: i64, is_of_flood: bool, id: String) -> Alert {
    let mut skewed = |most: usize, power: i32| (random.random::<f64>().powi(power) * most as f64) as usize;
    let rule = skewed(200, 2);
    let host = if is_of_flood { HOST.to_owned() } else { format!("host-{}", skewed(3_000, 3)) };
    let address = skewed(5_000, 3);
    let user = format!("user-{}", skewed(2_000, 3));
    let address = format!("10.0.{}.{}", address / 250, address % 250);
    let row = |n: usize| {
        let message = format!("Failed password for {user} from {address} port {} ssh2", 40_000 + n);
        object(json!({ "host": host, "source_ip": address, "user": user, "message": message }))
    };
    let window = Window::from_seconds(end_s - 300, end_s).expect("a window of five minutes");
    Alert {
        id,
        rule: object(json!({ "id": format!("rule-{rule}"), "name": format!("Rule {rule}"), "level": 50 })),
        detector: object(json!({ "name": "bench", "tenant": "default" })),
        datasource: object(json!({ "type": "duckdb" })),
        data: Data { len: 3, value: (0..3).map(row).collect(), datasource: "duckdb".into(), cut: None },
        window,
        created_at: window.end,
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn flooded(count: usize) -> usize {
    count * 3 / 10
}

const HOST: &str = "flooded";
/// Alerts of one tick: of a thousand rules that all fire.
const TICK: usize = 1_000;
const LOOK_UPS: usize = 1_000;
const START_S: i64 = 1_790_000_000;
const DAY_S: i64 = 86_400;
const SPAN_S: i64 = 30 * DAY_S;
