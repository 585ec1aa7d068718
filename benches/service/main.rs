//! What the service costs, measured from outside: the real executable, a store on disk, a receiver on loopback.
//! Prints one table; asserts nothing on time, since machines differ.
//!
//! `WATCHPOST_BENCH_SECONDS` (60) is how long the thousand rules run; `WATCHPOST_BENCH_ONLY=start,rules` takes some
//! of the parts `start`, `rules`, `sources`, `delivery`, `history`, `triage`; `WATCHPOST_BENCH_ALERTS` (100,000) is how many the store
//! of `history` holds, which is measured inside this process, with the judge in it. Without a model in `models/` the last says so.

// The tests' fake server, of which a bench needs little.
#[allow(dead_code, unused_imports, clippy::unwrap_used)]
#[path = "../../tests/it/fake.rs"]
mod fake;
mod history;
mod judge;
mod process;
mod scene;
mod sources;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde_json::Value;

use process::{Memory, Receiver, Service, output, watchpost};

/// A row of the table.
struct Line {
    what: String,
    figure: String,
    target: &'static str,
    is_met: Option<bool>,
}

fn line(what: impl Into<String>, figure: impl Into<String>) -> Line {
    Line { what: what.into(), figure: figure.into(), target: "", is_met: None }
}

impl Line {
    fn target(self, target: &'static str, is_met: bool) -> Self {
        Self { target, is_met: Some(is_met), ..self }
    }
}

/// What is measured: its name, and how.
type Part = (&'static str, fn() -> Result<Vec<Line>>);

fn main() -> Result<()> {
    println!("{}\nload average before {}", machine(), load_average());
    let only = std::env::var("WATCHPOST_BENCH_ONLY").unwrap_or_default();
    let parts: [Part; 6] = [
        ("start", start),
        ("rules", thousand_rules),
        ("sources", sources::sources),
        ("delivery", delivery),
        ("history", history::history),
        ("triage", triage),
    ];
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["", "measured", "target", ""]);
    for (name, part) in parts {
        if !only.is_empty() && !only.split(',').any(|chosen| chosen == name) {
            continue;
        }
        eprintln!("measuring: {name}");
        // What cannot be measured takes no other figure with it.
        let lines = part().unwrap_or_else(|error| vec![line(name, format!("not measured: {error:#}"))]);
        for Line { what, figure, target, is_met } in lines {
            let met = is_met.map_or("", |is_met| if is_met { "met" } else { "NOT MET" });
            table.add_row([what.as_str(), &figure, target, met]);
        }
    }
    println!("{table}\nload average after {}", load_average());
    Ok(())
}

/// Five starts with an empty store, until the alert of one rule is at the receiver: its search was earlier, and the
/// order in which rules are searched is not promised.
fn start() -> Result<Vec<Line>> {
    let mut first = Vec::new();
    for _ in 0..STARTS {
        let receiver = Receiver::start()?;
        let dir = tempfile::tempdir()?;
        scene::thousand_rules(dir.path(), &receiver.address.to_string(), scene::COUNT)?;
        let service = Service::start(dir.path())?;
        first.push(receiver.wait_for(scene::FIRST_RULE, LIMIT)? - service.started);
    }
    let first = median(first);
    let what = format!("start to one rule's alert at the receiver, 1,000 rules (median of {STARTS})");
    Ok(vec![line(what, seconds(first)).target("0.5 s", first < Duration::from_millis(500))])
}

/// One thousand DuckDB rules every 10 s, for three kinds of query.
fn thousand_rules() -> Result<Vec<Line>> {
    let length_s: u64 = match std::env::var("WATCHPOST_BENCH_SECONDS") {
        Ok(text) => text.parse().context("WATCHPOST_BENCH_SECONDS is a number of seconds")?,
        Err(_) => 60,
    };
    let mut lines = vec![line("1,000 DuckDB rules every 10 s, CPU for a rule and tick", "")];
    for (what, query, length_s) in [
        ("query `SELECT 1 WHERE false`, the least a rule costs", scene::NOTHING, length_s.min(20)),
        ("filter that DuckDB's statistics answer without a scan", scene::FILTER, length_s.min(20)),
        ("count by group over 10,000 events", scene::COUNT, length_s),
    ] {
        let load = load(query, length_s)?;
        lines.push(
            line(format!("  {what}"), format!("{:.3} ms", load.search_ms))
                .target("0.5 ms (clickdetect 1.5)", load.search_ms <= 0.5),
        );
        if query == scene::COUNT {
            let growth = line(
                format!("  its growth, from {length_s} s"),
                format!("{:+.1} MB an hour", load.growth_mb_h),
            );
            lines.extend([
                line("resident memory with the last", mb(load.memory.resident))
                    .target("66 MB (clickdetect 132)", load.memory.resident <= 66_000_000),
                line("  heap and stacks; the rest is executable and libraries", mb(load.memory.anonymous)),
                line("  peak", mb(load.memory.peak)),
                // A shorter run sees the allocators breathe and no trend.
                if length_s >= 3600 {
                    growth.target("flat (under 1 MB)", load.growth_mb_h < 1.0)
                } else {
                    Line { target: "flat over an hour", ..growth }
                },
            ]);
        }
    }
    Ok(lines)
}

/// What a thousand rules cost, after the first two ticks.
struct Load {
    /// CPU milliseconds for one rule and tick.
    search_ms: f64,
    memory: Memory,
    growth_mb_h: f64,
}

fn load(query: &str, length_s: u64) -> Result<Load> {
    let receiver = Receiver::start()?;
    let dir = tempfile::tempdir()?;
    scene::thousand_rules(dir.path(), &receiver.address.to_string(), query)?;
    let service = Service::start(dir.path())?;
    std::thread::sleep(WARM_UP);
    let (cpu, searches) = (service.cpu()?, count_searches(&service)?);
    let began = Instant::now();
    let mut samples: Vec<(f64, Memory)> = Vec::new();
    while began.elapsed() < Duration::from_secs(length_s) {
        samples.push((began.elapsed().as_secs_f64(), service.memory()?));
        std::thread::sleep(Duration::from_secs(1));
    }
    let (cpu, searches) = (service.cpu()? - cpu, count_searches(&service)? - searches);
    if searches == 0 {
        bail!("no rule was searched within {length_s} s");
    }
    Ok(Load {
        search_ms: cpu.as_secs_f64() * 1e3 / searches as f64,
        memory: service.memory()?,
        growth_mb_h: slope(&samples) * 3600.0 / 1e6,
    })
}

/// Searches so far; fails where one failed or overlapped, since the figures would say nothing.
fn count_searches(service: &Service<'_>) -> Result<u64> {
    let status = service.ask(&["status"])?;
    let rules = status.first().and_then(|status| status["rules"].as_array()).context("status --json")?;
    if let Some(bad) = rules.iter().find(|rule| rule["failures"] != 0 || rule["overlaps"] != 0) {
        bail!("a rule failed or was not done in time: {bad}");
    }
    Ok(rules.iter().filter_map(|rule| rule["searches"].as_u64()).sum())
}

/// From an alert's `created_at` (its query has returned) to the body's last byte at the receiver: store, outbox,
/// composing, loopback.
fn delivery() -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (rules, length_s, what) in [(10, 40, "10 at a time"), (300, 0, "300 due at one moment")] {
        let receiver = Receiver::start()?;
        let dir = tempfile::tempdir()?;
        scene::firing_rules(dir.path(), &receiver.address.to_string(), rules)?;
        let service = Service::start(dir.path())?;
        std::thread::sleep(Duration::from_secs(length_s));
        wait(|| Ok(receiver.arrivals().len() >= rules))?;
        let alerts = service.ask(&["alerts", "--limit", "100000"])?;
        std::thread::sleep(Duration::from_secs(1));
        let delays = receiver.delays(&alerts)?;
        let (half, most) = (percentile(&delays, 50), percentile(&delays, 99));
        let measured = format!("p50 {:.1} ms, p99 {:.1} ms", ms(half), ms(most));
        let row = line(format!("alert created to webhook, {what} ({} alerts)", delays.len()), measured);
        lines.push(if length_s > 0 {
            row.target("p99 50 ms", most < Duration::from_millis(50))
        } else {
            row
        });
    }
    Ok(lines)
}

/// The test model: `watchpost model bench`, bursts of alerts through a service, and the demo.
fn triage() -> Result<Vec<Line>> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(format!("{MODEL}.Q4_1.gguf"));
    if !model.exists() {
        return Ok(vec![line(format!("triage by {MODEL}"), "not measured: `make setup` gets the model")]);
    }
    let report: Value =
        serde_json::from_str(&output(watchpost().args(["model", "bench", MODEL, "--json"]))?)?;
    let number = |key: &str| report[key].as_f64().with_context(|| format!("model bench: {key}"));
    let mut lines = vec![
        line(format!("{MODEL}: load"), format!("{:.2} s", number("load_s")?)),
        line(
            format!("  first token, no cache, prompt of {} tokens", report["first_token_prompt_tokens"]),
            format!("{:.2} s", number("first_token_s")?),
        ),
        line("  prompt", format!("{:.0} tokens/s", number("prompt_tokens_per_s")?)),
        line("  answer", format!("{:.0} tokens/s", number("answer_tokens_per_s")?)),
        line("  peak memory of the model alone", mb(number("peak_memory_bytes")? as u64)),
    ];
    let (alone, together, busy) = (burst(BATCH, 1)?, burst(BATCH, BATCH)?, burst(4 * BATCH, BATCH)?);
    let verdict = |burst: &Burst| seconds(burst.median_of("verdict_compute_seconds"));
    let whole = |burst: &Burst| seconds(burst.last_of("seconds_to_prose"));
    let gain =
        alone.last_of("seconds_to_prose").as_secs_f64() / together.last_of("seconds_to_prose").as_secs_f64();
    lines.extend([
        line(
            format!("  {BATCH} different alerts of one moment, read one by one: a verdict alone, median"),
            verdict(&alone),
        ),
        line("    the prose of one, median", seconds(alone.median_of("prose_compute_seconds"))),
        line("    its first token", seconds(alone.median_of("seconds_to_first_token"))),
        line("    the last verdict, after its alert", seconds(alone.last_of("seconds_to_verdict"))),
        line("    the last prose, after its alert", whole(&alone)),
        line(format!("  the same {BATCH} read together: a verdict alone, median"), verdict(&together)),
        line("    the last verdict, after its alert", seconds(together.last_of("seconds_to_verdict"))),
        line(
            "    the last prose, after its alert",
            format!("{} ({gain:.1} times the throughput)", whole(&together)),
        ),
        line("  peak memory of the service with it", mb(together.peak)),
    ]);
    for (what, late) in [("an idle", &busy.late_before), ("a busy", &busy.late_during)] {
        let (half, most) = (percentile(late, 50), percentile(late, 100));
        let figure = format!("p50 {:.1} ms, most {:.1} ms", ms(half), ms(most));
        let row = line(
            format!("  a tick's alert beside {what} model, after its time ({} ticks)", late.len()),
            figure,
        );
        lines.push(row.target("50 ms", most < Duration::from_millis(50)));
    }
    let began = Instant::now();
    output(watchpost().args(["demo", "--examples"]).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")))?;
    let took = began.elapsed();
    lines.push(
        line("`watchpost demo`, start to end", seconds(took)).target("30 s", took < Duration::from_secs(30)),
    );
    Ok(lines)
}

/// What came of alerts that were raised at one moment.
struct Burst {
    /// Each alert's `cost`.
    costs: Vec<Value>,
    /// Of the service, bytes.
    peak: u64,
    /// How late the alerts of ticks were, sorted, before the burst and while it was read. A tick's time is the earliest
    /// place in its second at which one came, so that the query itself is not counted.
    late_before: Vec<Duration>,
    late_during: Vec<Duration>,
}

fn burst(alerts: usize, batch: usize) -> Result<Burst> {
    let receiver = Receiver::start()?;
    let dir = tempfile::tempdir()?;
    let at = Timestamp::now().as_second() + scene::WARM_UP_S;
    scene::triaged_rules(dir.path(), &receiver.address.to_string(), alerts, batch, at)?;
    let service = Service::start(dir.path())?;
    std::thread::sleep(Duration::from_secs(scene::WARM_UP_S as u64));
    let mut stored = Vec::new();
    wait(|| {
        stored = service.ask(&["alerts", "--limit", "100000"])?;
        let is_done = |alert: &&Value| is_of_burst(alert) && alert["triage"]["state"] == "done";
        Ok(stored.iter().filter(is_done).count() == alerts)
    })?;
    let peak = service.memory()?.peak;
    let created = |alert: &Value| -> Result<Timestamp> {
        Ok(alert["created_at"].as_str().context("created_at")?.parse()?)
    };
    let mut ticks = Vec::new();
    let mut began: Option<Timestamp> = None;
    for alert in &stored {
        if alert["rule"]["id"] == scene::TICK_RULE {
            ticks.push(created(alert)?);
        } else if is_of_burst(alert) {
            began = began.into_iter().chain([created(alert)?]).min();
        }
    }
    let began = began.context("the burst")?;
    let place = |at: &Timestamp| at.as_microsecond().rem_euclid(1_000_000);
    // Places go round: those just before a full second lie before those just after it.
    let first = ticks.iter().min().context("ticks")?;
    let from_first = |at: &Timestamp| (place(at) - place(first) + 500_000).rem_euclid(1_000_000) - 500_000;
    let earliest = ticks.iter().map(from_first).min().unwrap_or_default();
    let late = |is_wanted: &dyn Fn(&Timestamp) -> bool| {
        let wanted = ticks.iter().filter(|at| is_wanted(at));
        let mut late: Vec<Duration> =
            wanted.map(|at| Duration::from_micros((from_first(at) - earliest) as u64)).collect();
        late.sort();
        late
    };
    let warm = began.checked_sub(Duration::from_secs(scene::WARM_UP_S as u64 / 2))?;
    Ok(Burst {
        costs: stored
            .iter()
            .filter(|alert| is_of_burst(alert))
            .map(|alert| alert["triage"]["verdict"]["cost"].clone())
            .collect(),
        peak,
        late_before: late(&|at| (warm..began).contains(at)),
        late_during: late(&|at| *at >= began),
    })
}

fn is_of_burst(alert: &Value) -> bool {
    alert["rule"]["id"].as_str().is_some_and(|id| id.starts_with('r'))
}

impl Burst {
    fn median_of(&self, key: &str) -> Duration {
        median(self.all(key))
    }

    fn last_of(&self, key: &str) -> Duration {
        self.all(key).into_iter().max().unwrap_or_default()
    }

    fn all(&self, key: &str) -> Vec<Duration> {
        self.costs.iter().filter_map(|cost| cost[key].as_f64()).map(Duration::from_secs_f64).collect()
    }
}

fn wait(mut is_done: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_done()? {
        if began.elapsed() > LIMIT {
            bail!("not done within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    percentile(&values, 50)
}

/// Of sorted values, by nearest rank; zero of none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Bytes a second, by least squares.
fn slope(samples: &[(f64, Memory)]) -> f64 {
    let n = samples.len() as f64;
    let mean_at = samples.iter().map(|(at, _)| at).sum::<f64>() / n;
    let mean = samples.iter().map(|(_, memory)| memory.resident as f64).sum::<f64>() / n;
    let rise: f64 = samples.iter().map(|(at, memory)| (at - mean_at) * (memory.resident as f64 - mean)).sum();
    rise / samples.iter().map(|(at, _)| (at - mean_at).powi(2)).sum::<f64>().max(f64::EPSILON)
}

fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split(": ").nth(1).unwrap_or("unknown").to_owned()
    };
    let wanted = ["avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"];
    let flags = field("flags") + &field("Features");
    let flags: Vec<_> = flags.split(' ').filter(|flag| wanted.contains(flag)).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("{cores} cores, {} ({}), {build} build", field("model name"), flags.join(" "))
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

const MODEL: &str = "SmolLM2-135M-Instruct";
const STARTS: usize = 5;
/// Alerts of a burst, and how many are read together.
const BATCH: usize = 8;
/// Two ticks: everything is open, compiled and cached.
const WARM_UP: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(300);
