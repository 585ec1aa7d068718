//! Rows a second from a store into an alert's data, beside what Python's clients reach on the same machine and data.
//!
//! `make bench-rows` starts the servers and runs this. Each measurement has a process of its own, whose growth of peak
//! memory and whose processor time are told: what a store takes for its answer is in the seconds of both.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use watchpost::clock::Window;
use watchpost::config::{FromYaml as _, Reader};
use watchpost::datasource::{Config, Limits};

fn main() -> anyhow::Result<()> {
    if let Ok(kind) = std::env::var("WATCHPOST_BENCH_CHILD") {
        return child(&kind);
    }
    let (Ok(services), Ok(python)) =
        (std::env::var("WATCHPOST_SERVICES"), std::env::var("WATCHPOST_BENCH_PYTHON"))
    else {
        println!("not measured: `make bench-rows` starts what this needs");
        return Ok(());
    };
    let told = std::fs::read_to_string(services)?;
    let place = |name: &str| {
        let place = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        place.map(str::to_owned).with_context(|| format!("{name} is not among the services"))
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("bench.duckdb").to_string_lossy().into_owned();
    let peer = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/rows/peer.py");
    let (clickhouse, postgresql) = (place("CLICKHOUSE")?, place("POSTGRESQL")?);
    output(Command::new(&python).args([peer, "prepare", &clickhouse, &postgresql, &file]))?;

    println!("| {ROWS} rows | Python | kept 1,000 | | kept all | |");
    println!("|---|---|---|---|---|---|");
    for (kind, place, settings) in [
        ("clickhouse", &clickhouse, format!("{{type: clickhouse, url: '{clickhouse}', password: secret}}")),
        ("postgresql", &postgresql, of_postgresql(&postgresql)?),
        ("duckdb", &file, format!("{{type: duckdb, database: '{file}'}}")),
    ] {
        let python = Measured::of(&output(Command::new(&python).args([peer, kind, place]))?)?;
        let ours = |rows: usize| {
            let executable = std::env::current_exe()?;
            let mut command = Command::new(executable);
            command.env("WATCHPOST_BENCH_CHILD", &settings).env("WATCHPOST_BENCH_KEPT", rows.to_string());
            Measured::of(&output(&mut command)?)
        };
        let (few, all) = (ours(1_000)?, ours(ROWS)?);
        println!(
            "| {kind} | {} | {} | {} | {} | {} |",
            python.told(),
            few.told(),
            few.beside(&python),
            all.told(),
            all.beside(&python)
        );
    }
    Ok(())
}

/// The medians of some runs, and by how much the peak of memory grew.
struct Measured {
    /// From question to rows.
    seconds: f64,
    /// Of processors, in this process.
    processor: f64,
    /// Bytes.
    peak: f64,
}

impl Measured {
    fn of(text: &str) -> anyhow::Result<Self> {
        let told: Value = serde_json::from_str(text)?;
        anyhow::ensure!(told["rows"] == ROWS, "not all rows: {told}");
        let median = |name: &str| -> anyhow::Result<f64> {
            let mut runs: Vec<f64> = serde_json::from_value(told[name].clone())?;
            runs.sort_by(f64::total_cmp);
            runs.get(runs.len() / 2).copied().with_context(|| format!("no {name}: {told}"))
        };
        let peak = told["peak"].as_f64().with_context(|| format!("no peak: {told}"))?;
        Ok(Self { seconds: median("seconds")?, processor: median("processor")?, peak })
    }

    fn told(&self) -> String {
        let (rows, peak) = (ROWS as f64 / self.seconds, self.peak / 1e6);
        format!("{rows:.0} rows/s, {:.2} s of a processor, {peak:.1} MB", self.processor)
    }

    fn beside(&self, python: &Self) -> String {
        format!(
            "{:.1} times as many, {:.1} % of the processor, {:.1} % of the memory",
            python.seconds / self.seconds,
            100.0 * self.processor / python.processor,
            100.0 * self.peak / python.peak
        )
    }
}

fn of_postgresql(place: &str) -> anyhow::Result<String> {
    let (host, port) = place.split_once(':').with_context(|| format!("`{place}` is not host:port"))?;
    Ok(format!(
        "{{type: postgresql, host: {host}, port: {port}, database: logs, username: watch, password: s3cret watch}}"
    ))
}

/// One measurement in a process of its own.
fn child(settings: &str) -> anyhow::Result<()> {
    let dir = Path::new(".");
    let mut reader = Reader::new("bench", settings, dir, None);
    let node = reader.parse().ok_or_else(|| anyhow::anyhow!("no settings"))?;
    let config = Config::from_yaml(&node, &mut reader).ok_or_else(|| anyhow::anyhow!("wrong settings"))?;
    let source = config.build(dir)?;
    let rows = std::env::var("WATCHPOST_BENCH_KEPT")?.parse()?;
    let limits = Limits { time: Duration::from_secs(120), rows, bytes: 1 << 30 };
    let window =
        Window::from_seconds(1_767_225_600, 1_767_225_610).ok_or_else(|| anyhow::anyhow!("no window"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        source.query("SELECT 1", window, &limits).await?;
        let before = peak()?;
        let (mut seconds, mut busy) = (Vec::new(), Vec::new());
        let mut count = 0;
        for _ in 0..TIMES {
            let (began, busy_before) = (Instant::now(), processor()?);
            let found = source.query("SELECT * FROM bench_rows", window, &limits).await?;
            seconds.push(began.elapsed().as_secs_f64());
            busy.push(processor()? - busy_before);
            count = found.count;
            anyhow::ensure!(found.rows.len() == rows, "kept {} rows", found.rows.len());
        }
        println!(
            "{}",
            json!({"rows": count, "seconds": seconds, "processor": busy, "peak": peak()? - before})
        );
        Ok(())
    })
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let done = command.output()?;
    anyhow::ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What this process has had of processors, in seconds: fields 14 and 15 of `proc_pid_stat(5)`, in hundredths.
fn processor() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the name, in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name in /proc/self/stat")?;
    let fields = fields.split_ascii_whitespace().skip(11).take(2);
    let hundredths: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>()?;
    anyhow::ensure!(hundredths.len() == 2, "no times in /proc/self/stat");
    Ok(hundredths.iter().sum::<u64>() as f64 / 100.0)
}

/// The most memory that this process has held, in bytes.
fn peak() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kilobytes.ok_or_else(|| anyhow::anyhow!("no VmHWM"))? * 1024)
}

const ROWS: usize = 1_000_000;
const TIMES: usize = 3;
