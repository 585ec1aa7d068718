//! `watchpost close` and `watchpost metrics` as an analyst meets them.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use watchpost::alert::{Alert, Data};
use watchpost::clock::{Timestamp, Window};
use watchpost::store::alerts::{self, Handling};
use watchpost::store::{Access, Store};
use watchpost::triage::Triage;

/// A store with alerts, and the commands on it.
struct Desk {
    dir: tempfile::TempDir,
    ids: Vec<String>,
}

impl Desk {
    /// With `count` alerts of now. Every other is of the group `web` with a false-positive score of 80, the rest of `ssh` with 10.
    fn new(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("soc.db"), Access::Service).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let now_s = Timestamp::now().as_second();
        let ids: Vec<_> =
            (0..count).map(|index| format!("{:08x}{index:024x}", index as u32 ^ 0xabcd_0000)).collect();
        let all: Vec<_> = ids.iter().enumerate().map(|(index, id)| alert(index, id, now_s)).collect();
        runtime
            .block_on(store.write(move |tx| {
                for (index, alert) in all.iter().enumerate() {
                    alerts::insert(tx, "five", alert, &Handling { webhooks: Vec::new(), triage: None })?;
                    let triage = Triage::Done { verdict: serde_json::from_value(verdict(index)).unwrap() };
                    let triage = serde_json::to_string(&triage).unwrap();
                    tx.execute("UPDATE alerts SET triage = ?2 WHERE id = ?1", [&alert.id, &triage])?;
                }
                Ok(())
            }))
            .unwrap();
        Self { dir, ids }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_watchpost"));
        command.args(args).args(["--store", "soc.db"]).current_dir(self.dir.path());
        command.env("USER", "ann").env_remove("SUDO_USER").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What it printed, having ended well.
    fn good(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn file(&self, name: &str, lines: impl IntoIterator<Item = String>) -> PathBuf {
        let path = self.dir.path().join(name);
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
        for line in lines {
            writeln!(file, "{line}").unwrap();
        }
        path
    }

    /// What stands on each alert that is closed, by `alerts --json`.
    fn closed(&self) -> Vec<(String, String)> {
        let listed = self.good(&["alerts", "--json", "--limit", "1000000"]);
        let alerts = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut closed: Vec<_> = alerts
            .filter_map(|alert| {
                let label = alert["closing"]["label"].as_str()?.to_owned();
                Some((alert["id"].as_str().unwrap().to_owned(), label))
            })
            .collect();
        closed.sort();
        closed
    }
}

fn alert(index: usize, id: &str, now_s: i64) -> Alert {
    let object = |value: Value| value.as_object().unwrap().clone();
    let is_web = index.is_multiple_of(2);
    let (rule, group) = if is_web { ("sweep", "web") } else { ("guess", "ssh") };
    let window = Window::from_seconds(now_s - 400 - index as i64, now_s - 100 - index as i64).unwrap();
    Alert {
        id: id.to_owned(),
        rule: object(json!({ "id": rule, "name": rule, "level": 50, "size": ">0", "group": group })),
        detector: object(json!({ "name": "five" })),
        datasource: object(json!({ "type": "duckdb" })),
        data: Data { len: 0, value: Vec::new(), datasource: "duckdb".into(), cut: None },
        window,
        created_at: Timestamp::from_second(now_s - 90 - index as i64).unwrap(),
    }
}

fn verdict(index: usize) -> Value {
    json!({
        "title": "t", "summary": "s", "severity": "High", "confidence": 50, "risk_score": 60, "explanation": "e",
        "false_positive_score": if index.is_multiple_of(2) { 80 } else { 10 }, "mitigations": [], "affected_entities": [],
        "recommended_action": "r",
        "cost": { "model": "tiny", "model_sha256": "00", "seconds_to_verdict": 1.5 },
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn an_alert_is_closed_by_the_beginning_of_its_id_and_opened_again() {
    let desk = Desk::new(3);
    let (first, second) = (&desk.ids[0][..8], &desk.ids[1]);
    let said = desk.good(&["close", first, second, "--as", "fp", "--reason", "our scanner"]);
    assert_eq!(said, format!("{}  false_positive\n{second}  false_positive\n", desk.ids[0]));
    assert!(desk.good(&["close", first, "--as", "fp", "--reason", "our scanner"]).contains("already"));
    let open = desk.good(&["alerts", "--open"]);
    assert!(open.contains(&desk.ids[2]) && !open.contains(second.as_str()), "{open}");
    let all = desk.good(&["alerts"]);
    assert!(all.contains("false_positive") && all.contains(&desk.ids[2]), "no closing hides an alert: {all}");
    let whole = desk.good(&["alerts", first]);
    assert!(whole.contains("by ann: our scanner"), "{whole}");

    assert!(
        desk.good(&["close", first, "--as", "tp", "--reason", "no", "--by", "bob"])
            .contains("was false_positive")
    );
    let undone = desk.good(&["close", "--undo", first]);
    assert!(undone.contains("false_positive again, as `ann` said before, was true_positive"), "{undone}");
    assert!(desk.good(&["close", "--undo", first]).contains("open again"));
    assert_eq!(desk.run(&["close", "--undo", first]).status.code(), Some(1), "nothing was there to undo");
    assert_eq!(desk.closed(), [(second.clone(), "false_positive".to_owned())]);
}

#[test]
fn of_many_ids_one_that_is_wrong_closes_none() {
    let desk = Desk::new(2);
    for (args, words) in [
        (vec!["close", &desk.ids[0], "ffff", "--as", "fp", "--reason", "x"], "no alert `ffff`"),
        (vec!["close", &desk.ids[0], "abcd", "--as", "fp", "--reason", "x"], "several alerts"),
        (vec!["close", &desk.ids[0], "--as", "maybe", "--reason", "x"], "`tp`, `btp`"),
        (vec!["close", &desk.ids[0], "--as", "fp", "--reason", " "], "--reason: is empty"),
        (vec!["close", &desk.ids[0], "--as", "fp"], "--reason"),
        (vec!["close", "--as", "fp", "--reason", "x"], "<ID>"),
        (vec!["close", "--undo-by", "eve"], "--since"),
        (vec!["close", "--undo-by", "eve", "--since", "soon"], "two hours ago"),
        (vec!["close", "--undo-by", "eve", "--since", "2h"], "no closing"),
        (vec!["close", "--import", "nowhere.csv"], "nowhere.csv"),
    ] {
        let output = desk.run(&args);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(4) && said.contains(words), "{args:?}: {said}");
    }
    assert_eq!(desk.closed(), []);
}

#[test]
fn a_file_is_taken_over_once_and_tells_what_it_could_not() {
    let desk = Desk::new(4);
    let ids = &desk.ids;
    let path = desk.file(
        "closings.csv",
        [
            "alert_id,label,reason,analyst,at".to_owned(),
            format!("{},fp,scanner,ann,2026-01-01T00:00:00Z", ids[0]),
            format!("{},tp,seen,bob,2026-01-02T00:00:00Z", ids[0]),
            format!("{},btp,test,bob,2026-01-01T00:00:00Z", ids[1]),
            "feedfeed,fp,gone,bob,2026-01-01T00:00:00Z".to_owned(),
            format!("{},perhaps,x,bob,2026-01-01T00:00:00Z", ids[2]),
        ],
    );
    let path = path.to_str().unwrap();
    let first = desk.run(&["close", "--import", path]);
    assert_eq!(first.status.code(), Some(1), "something was left out");
    assert!(text(&first.stderr).contains(":6: label: `perhaps` is no label"), "{}", text(&first.stderr));
    let said = text(&first.stdout);
    for line in [
        "closings added: 3",
        "stands: 1 (line 3: ",
        "no such alert: 1 (line 5: no alert `feedfeed`)",
        "cannot be read: 1",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let stands =
        [(ids[0].clone(), "true_positive".to_owned()), (ids[1].clone(), "benign_true_positive".to_owned())];
    assert_eq!(desk.closed(), stands);
    let again = text(&desk.run(&["close", "--import", path]).stdout);
    assert!(again.contains("closings added: 0") && again.contains("on record before: 3"), "{again}");

    let mut piped = desk
        .command(&["close", "--import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = json!({ "id": ids[3], "as": "ne", "reason": "no rows" });
    writeln!(piped.stdin.take().unwrap(), "{line}").unwrap();
    assert!(text(&piped.wait_with_output().unwrap().stdout).contains("closings added: 1"));

    let listed = desk.good(&["close", "--list", "--json"]);
    let exported = desk.file("again.jsonl", listed.lines().map(str::to_owned));
    let again = desk.good(&["close", "--import", exported.to_str().unwrap()]);
    assert!(again.contains("closings added: 0") && again.contains("on record before: 4"), "{again}");
}

#[test]
fn a_burst_of_wrong_closings_is_seen_and_undone_at_once() {
    let desk = Desk::new(300);
    let now = Timestamp::now().as_second();
    let line = |index: usize, label: &str, analyst: &str, hours: i64, second: usize| {
        let at = now - hours * 3_600 + second as i64;
        json!({ "id": desk.ids[index], "label": label, "reason": "x", "analyst": analyst, "at": at })
            .to_string()
    };
    // Ann closes ten an hour for ten hours; then eve says the contrary of all in ten minutes, of two hundred more, too.
    let works = (0..100).map(|index| line(index, "tp", "ann", 20 - index as i64 / 10, index % 10 * 60));
    let burst = (0..300).map(|index| line(index, "fp", "eve", 2, index * 2));
    let path = desk.file("closings.jsonl", works.chain(burst));
    desk.good(&["close", "--import", path.to_str().unwrap()]);
    let listed = desk.good(&["close", "--list", "--limit", "1"]);
    assert!(
        listed.contains("burst: `eve` made 300 closings") && listed.contains("others contradict 100 of 100"),
        "{listed}"
    );
    let page = desk.good(&["metrics", "--format", "html"]);
    assert!(page.contains("watchpost close --undo-by"), "{page}");

    let said = desk.good(&["close", "--undo-by", "eve", "--since", "3h"]);
    assert!(said.contains("undone on 300 alerts: 200 are open again, 100 have another closing"), "{said}");
    assert!(desk.closed().len() == 100 && desk.closed().iter().all(|(_, label)| label == "true_positive"));
    let again = desk.good(&["close", "--import", path.to_str().unwrap()]);
    assert!(again.contains("of them undone, and so they stay: 300"), "{again}");
}

#[test]
fn metrics_hold_the_verdicts_against_the_closings() {
    let desk = Desk::new(40);
    let close = |ids: &[String], label| {
        let ids: Vec<_> = ids.iter().map(String::as_str).collect();
        desk.good(&[&["close", "--as", label, "--reason", "x"], &ids[..]].concat());
    };
    let empty = desk.good(&["metrics"]);
    assert!(empty.contains("precision                               -") && !empty.contains("NaN"), "{empty}");
    // Even ones (web) were called no threat, odd ones (ssh) a threat: 8 hits, 1 miss, 2 false alarms, 9 right refusals.
    let of = |range: std::ops::Range<usize>, rest: usize| -> Vec<String> {
        range.filter(|index| index % 2 == rest).map(|index| desk.ids[index].clone()).collect()
    };
    close(&of(0..16, 1), "tp");
    close(&of(16..20, 1), "btp");
    close(&of(0..18, 0), "fp");
    close(&of(18..20, 0), "tp");
    close(&of(20..22, 0), "dup");
    let report: Value =
        serde_json::from_str(&desk.good(&["metrics", "--format", "json", "--by", "family"])).unwrap();
    let all = &report["all"];
    assert_eq!((&all["alerts"], &all["labelled"]), (&json!(21), &json!(20)));
    let counts =
        json!({"true_positives": 8, "false_positives": 2, "true_negatives": 9, "false_negatives": 1});
    assert_eq!(all["confusion"], counts);
    assert_eq!((&all["precision"]["value"], &all["base_rate"]["value"]), (&json!(0.8), &json!(0.45)));
    assert_eq!(all["to_verdict"]["p50"], 1.5);
    assert_eq!(all["to_detect"]["p99"], 10.0);
    assert!(all["to_close"]["p50"].as_f64().unwrap() >= 90.0);
    let groups: Vec<_> = report["groups"].as_array().unwrap().iter().map(|group| &group["name"]).collect();
    assert_eq!(groups, ["web", "ssh"]);

    let prometheus = desk.good(&["metrics", "--format", "prometheus"]);
    assert!(prometheus.contains("watchpost_measured_precision{bound=\"estimate\"} 0.8\n"), "{prometheus}");
    assert_eq!(desk.good(&["metrics", "--format", "csv", "--by", "rule"]).lines().count(), 4);
    desk.good(&["metrics", "--format", "html", "--by", "model", "--output", "report.html"]);
    let page = std::fs::read_to_string(desk.dir.path().join("report.html")).unwrap();
    assert!(page.contains("tiny") && page.ends_with("</html>\n"));
}
