//! A thousand rules over ten datasources of a site: two in this process, eight behind HTTP, half of those over TLS.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::fake::{Fake, Reply};
use super::process::{Receiver, Service};
use super::scene::{self, SOURCES};
use super::{Line, WARM_UP, line, mb};

/// Memory after every rule was searched twice, and the processors' time while none is due.
pub fn sources() -> Result<Vec<Line>> {
    let receiver = Receiver::start()?;
    let plain = Fake::start(|asked| empty(&asked.path));
    let tls = Fake::start_tls("signed", |asked| empty(&asked.path));
    let dir = tempfile::tempdir()?;
    scene::rules_over_sources(dir.path(), &receiver.address.to_string(), [&plain.url(), &tls.url()])?;
    let service = Service::start(dir.path())?;
    // The first tick is at the start, the second `scene::SOURCES_TICK_S` later.
    let tick = Duration::from_secs(scene::SOURCES_TICK_S);
    std::thread::sleep(tick + WARM_UP);
    let searches = super::count_searches(&service)?;
    if searches != 2 * scene::RULES as u64 {
        bail!("{searches} searches in two ticks of {} rules", scene::RULES);
    }
    let between = tick.checked_sub(2 * WARM_UP).context("a tick takes longer than warming up")?;
    let before = service.cpu()?;
    std::thread::sleep(between);
    let share = (service.cpu()? - before).as_secs_f64() / between.as_secs_f64();
    let memory = service.memory()?;
    if super::count_searches(&service)? != searches {
        bail!("a tick fell between");
    }
    let asked = plain.asked().len() + tls.asked().len();
    Ok(vec![
        line(
            format!(
                "1,000 rules over {} datasources, {asked} requests in two ticks: resident memory",
                SOURCES.len()
            ),
            mb(memory.resident),
        )
        .target("80 MB (clickdetect 132)", memory.resident < 80_000_000),
        line("  heap and stacks; the rest is executable and libraries", mb(memory.anonymous)),
        line("  peak", mb(memory.peak)),
        line("  of one core between ticks", format!("{:.2} %", share * 100.0)).target("2 %", share < 0.02),
    ])
}

/// What each kind of store says when nothing matches.
fn empty(path: &str) -> Reply {
    let json = |text: &str| Reply::new(200, "application/json", text);
    match path {
        path if path.starts_with("/loki/") => {
            json(r#"{"status":"success","data":{"resultType":"streams","result":[],"stats":{}}}"#)
        }
        path if path.starts_with("/select/") => Reply::new(200, "application/stream+json", ""),
        path if path.ends_with("/_ppl") => json(r#"{"schema":[],"datarows":[],"total":0,"size":0}"#),
        path if path.ends_with("/_search") => json(
            r#"{"took":1,"timed_out":false,"_shards":{"total":1,"successful":1,"skipped":0,"failed":0},"hits":{"total":{"value":0,"relation":"eq"},"max_score":null,"hits":[]}}"#,
        ),
        _ => json("{}"),
    }
}
