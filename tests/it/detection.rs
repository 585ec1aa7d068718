//! Windows, cursors, catch-up: no window is lost, and what is given up is said.

use std::time::Duration;

use serde_json::json;

use watchpost::triage::history::Entity;

use crate::soc::{Soc, short};

const RUNNER: &str = "
webhooks:
  terminal: {type: stdout, format: json}
detectors:
  five:
    name: five minutes
    for: 5m
    rules: ['*.rule.yml']
    webhooks: [terminal]
    max_catch_up: 2h
";
const RULE: (&str, &str) = ("a.rule.yml", "id: a\nname: Rule A\nlevel: 60\nrule: search a\n");
const OTHER: (&str, &str) = ("b.rule.yml", "id: b\nname: Rule B\nlevel: 20\nrule: search b\n");
const MINUTES: fn(u64) -> Duration = |minutes| Duration::from_secs(60 * minutes);

#[tokio::test(start_paused = true)]
async fn a_first_start_looks_back_one_interval() {
    let soc = Soc::start(RUNNER, &[RULE]).await;
    assert_eq!(soc.datasource.windows(), ["-05:00..00:00"]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_knows_which_columns_its_rule_calls_tainted() {
    let text = "id: web\nname: Web\nlevel: 50\nrule: search\ntainted: [user]\nclean: [asset]\n";
    let soc = Soc::start(RUNNER, &[("web.rule.yml", text)]).await;
    soc.datasource.answer(json!([{ "user": "root", "host": "web-1", "asset": "10.3.0.9" }]));
    soc.advance(MINUTES(5)).await;
    let alert = &soc.alerts()[0].alert;
    assert_eq!((&alert.rule["tainted"], &alert.rule["clean"]), (&json!(["user"]), &json!(["asset"])));
    let named: Vec<_> = Entity::all_of(alert).into_iter().map(|entity| entity.value).collect();
    assert!(named.contains(&"web-1".to_owned()) && named.contains(&"10.3.0.9".to_owned()), "{named:?}");
    assert!(!named.contains(&"root".to_owned()), "what an attacker writes makes no history");
}

#[tokio::test(start_paused = true)]
async fn rule_and_detector_have_clickdetects_fields_in_its_order_and_null_where_nothing_is_written() {
    let soc = Soc::start(RUNNER, &[RULE]).await;
    soc.datasource.answer(json!([{ "user": "root" }]));
    soc.advance(MINUTES(5)).await;
    let alert = &soc.alerts()[0].alert;
    // Templates print them whole, so that the order shows.
    let rule = "id name level size active rule author group tags data description detector path sigma";
    assert_eq!(alert.rule.keys().cloned().collect::<Vec<_>>().join(" "), rule);
    let detector =
        "name for_time description rules webhooks data tenant active datasource sigma max_detector_time";
    assert_eq!(alert.detector.keys().cloned().collect::<Vec<_>>().join(" "), detector);
    let nothing = [&alert.rule["detector"], &alert.detector["data"], &alert.detector["description"]];
    assert_eq!(nothing, [&json!(null); 3]);
    assert!(alert.detector["datasource"].is_object());
}

#[tokio::test(start_paused = true)]
async fn a_failed_query_keeps_its_window() {
    let soc = Soc::start(RUNNER, &[RULE]).await;
    soc.datasource.fail("connection reset");
    soc.advance(MINUTES(5)).await;
    soc.datasource.heal();
    soc.datasource.answer(json!([{ "user": "root" }]));
    soc.advance(MINUTES(5)).await;
    assert_eq!(soc.datasource.windows(), ["-05:00..00:00", "00:00..05:00", "05:00..10:00"]);
    let alerts = soc.alerts();
    assert_eq!(alerts.len(), 1);
    assert_eq!(short(alerts[0].alert.window), "00:00..05:00");
    assert_eq!(soc.standing("a").failures, 1);
    assert_eq!(
        soc.standing("a").last_error.as_deref(),
        Some("datasource is not available: connection reset")
    );
}

#[tokio::test(start_paused = true)]
async fn a_datasource_gone_for_ten_intervals_loses_no_window() {
    let soc = Soc::start(RUNNER, &[RULE]).await;
    soc.datasource.fail("connection refused");
    for _ in 0..10 {
        soc.advance(MINUTES(5)).await;
    }
    assert_eq!(soc.datasource.windows().len(), 1);
    soc.datasource.heal();
    soc.advance(MINUTES(5)).await;
    let expected: Vec<String> = (0..11).map(|at| format!("{:02}:00..{:02}:00", at * 5, at * 5 + 5)).collect();
    assert_eq!(soc.datasource.windows()[1..], expected);
    assert!(soc.gaps().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_max_catch_up_is_a_recorded_gap() {
    let soc = Soc::start(RUNNER, &[RULE]).await;
    soc.datasource.fail("gone");
    for _ in 0..36 {
        soc.advance(MINUTES(5)).await;
    }
    soc.datasource.heal();
    soc.advance(MINUTES(5)).await;
    let gaps = soc.gaps();
    // Every failed tick gave up what had grown too old by then.
    assert_eq!(short(gaps.last().unwrap().window).split("..").next(), Some("00:00"));
    assert_eq!(short(gaps[0].window).split("..").nth(1), Some("65:00"));
    assert!(gaps[0].reason.contains("max_catch_up"), "{}", gaps[0].reason);
    assert_eq!(soc.datasource.windows()[1], "65:00..70:00");
    assert_eq!(soc.datasource.windows().last().unwrap(), "180:00..185:00");
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_where_the_last_run_stopped() {
    let mut soc = Soc::start(RUNNER, &[RULE]).await;
    soc.restart_after(MINUTES(12)).await;
    assert_eq!(soc.datasource.windows(), ["-05:00..00:00", "00:00..05:00", "05:00..10:00", "10:00..12:00"]);
}

#[tokio::test(start_paused = true)]
async fn a_query_cut_off_by_shutdown_leaves_its_window() {
    let mut soc = Soc::start(RUNNER, &[RULE]).await;
    soc.datasource.hang("search");
    soc.advance(MINUTES(5)).await;
    soc.datasource.release();
    soc.datasource.hang("search a");
    soc.stop().await;
    soc.datasource.release();
    let before = soc.datasource.windows().len();
    soc.restart_after(Duration::from_secs(1)).await;
    assert!(soc.datasource.windows()[before..].iter().all(|window| !window.starts_with('-')));
    let cursor = soc.standing("a").searched_to.unwrap();
    assert_eq!(cursor.as_second() % 300, 1, "searched up to the restart");
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_still_runs_is_not_started_twice_and_others_go_on() {
    let soc = Soc::start(RUNNER, &[RULE, OTHER]).await;
    soc.datasource.hang("search a");
    for _ in 0..3 {
        soc.advance(MINUTES(5)).await;
    }
    assert_eq!(soc.datasource.windows_of("search a").len(), 1);
    assert_eq!(soc.datasource.windows_of("search b").len(), 4, "a slow rule does not delay another");
    assert_eq!(soc.standing("a").overlaps, 2);
    soc.datasource.release();
    soc.settle().await;
    soc.advance(MINUTES(5)).await;
    assert_eq!(
        soc.datasource.windows_of("search a"),
        ["-05:00..00:00", "00:00..05:00", "05:00..10:00", "10:00..15:00", "15:00..20:00"]
    );
}

#[tokio::test(start_paused = true)]
async fn late_events_are_waited_for() {
    let runner = RUNNER.replace("max_catch_up: 2h", "delay: 90s");
    let soc = Soc::start(&runner, &[RULE]).await;
    soc.advance(MINUTES(5)).await;
    assert_eq!(soc.datasource.windows(), ["-06:30..-01:30", "-01:30..03:30"]);
}

#[tokio::test(start_paused = true)]
async fn max_detector_time_ends_a_tick_and_keeps_its_window() {
    let runner = format!("max_detector_time: 20\n{RUNNER}");
    let soc = Soc::start(&runner, &[RULE]).await;
    soc.datasource.hang("search a");
    soc.advance(MINUTES(6)).await;
    assert!(soc.standing("a").last_error.unwrap().contains("max_detector_time"));
    soc.datasource.release();
    soc.advance(MINUTES(4)).await;
    assert_eq!(soc.datasource.windows(), ["-05:00..00:00", "00:00..05:00", "05:00..10:00"]);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_loses_neither_window_nor_alert() {
    let soc = Soc::start(RUNNER, &[RULE]).await;
    let pages: i64 = soc
        .store
        .read_here(|connection| connection.pragma_query_value(None, "page_count", |row| row.get(0)))
        .unwrap();
    let limit = move |pages: i64| {
        move |tx: &rusqlite::Transaction<'_>| {
            tx.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        }
    };
    soc.store.write(limit(pages)).await.unwrap();
    let much = "x".repeat(200_000);
    soc.datasource.answer(json!([{ "message": much }]));
    soc.advance(MINUTES(5)).await;
    assert!(soc.alerts().is_empty());
    soc.store.write(limit(1_000_000)).await.unwrap();
    soc.datasource.answer(json!([{ "message": "again" }]));
    soc.advance(MINUTES(5)).await;
    assert_eq!(soc.datasource.windows()[1..], ["00:00..05:00", "00:00..05:00", "05:00..10:00"]);
    assert_eq!(short(soc.alerts()[0].alert.window), "00:00..05:00");
    assert_eq!(soc.printed().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_does_not_blind_a_rule() {
    let soc = Soc::start(RUNNER, &[RULE]).await;
    // As if the clock had been a day ahead when the rule was last searched.
    let ahead = soc.standing("a").searched_to.unwrap().as_second() + 86_400;
    let now = soc.standing("a").searched_to.unwrap();
    soc.stop().await;
    soc.store
        .write(move |tx| watchpost::store::rules::set_cursor(tx, "five", "a", ahead, now))
        .await
        .unwrap();
    let mut soc = soc;
    soc.restart_after(MINUTES(5)).await;
    assert_eq!(soc.datasource.windows().last().unwrap(), "00:00..05:00");
}
