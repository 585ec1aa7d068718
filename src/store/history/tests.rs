use proptest::prelude::*;
use serde_json::json;

use super::super::alerts::{self, Handling};
use super::super::testing::{empty, with};
use super::*;
use crate::clock::{Timestamp, Window};
use crate::triage::history::{Decided, LATELY_S};
use crate::triage::testing;

/// An alert whose window ends at `end_s`, with one row.
fn alert(rule: &str, end_s: i64, row: serde_json::Value) -> Alert {
    let mut alert = testing::alert(50, json!([row]));
    alert.rule.insert("id".into(), rule.into());
    alert.rule.insert("name".into(), format!("Name of {rule}").into());
    alert.window = Window::from_seconds(end_s - 300, end_s).unwrap();
    alert.id = format!("{rule} {end_s} {row}");
    alert
}

fn insert(tx: &Transaction<'_>, alert: &Alert) -> rusqlite::Result<bool> {
    alerts::insert(tx, "d", alert, &Handling { webhooks: Vec::new(), triage: None })
}

const NOW_S: i64 = 1_790_000_000;

#[test]
fn an_alert_is_counted_once_and_never_for_itself() {
    let mut store = empty();
    let one = alert("r", NOW_S, json!({ "user": "root" }));
    assert!(with(&mut store, |tx| insert(tx, &one)));
    assert!(!with(&mut store, |tx| insert(tx, &one)));
    let history = look_up(&store, &one).unwrap();
    assert_eq!((history.rule, history.others_with_rule), (Counts::default(), 0));
    let next = alert("r", NOW_S + 1, json!({ "user": "root" }));
    let history = look_up(&store, &next).unwrap();
    let first_seen = Some(one.window.end);
    let counts = Counts { minutes: 1, hour: 1, day: 1, ever: 1, first_seen, ..Counts::default() };
    assert_eq!((history.rule, history.pairs[0].1, history.entities[0].1), (counts, counts, counts));
}

#[test]
fn what_was_decided_about_an_alert_of_the_same_second_is_known_and_its_own_closing_is_not() {
    let mut store = empty();
    let [one, other] = ["a", "b"].map(|user| alert("r", NOW_S, json!({ "host": "web-1", "user": user })));
    for alert in [&one, &other] {
        with(&mut store, |tx| insert(tx, alert));
        with(&mut store, |tx| decided(tx, &alert.id, None, Some(true)));
    }
    let history = look_up_as(&store, &one, Some(true)).unwrap();
    let known = Decided { threats: 1, benign: 0 };
    assert_eq!((history.rule.ever, history.rule.decided, history.rule.lately), (0, known, [known; 4]));
    assert_eq!((history.site, history.rule.first_seen), ([known; 4], None));
    let new = alert("r", NOW_S, json!({ "host": "web-2" }));
    let history = look_up(&store, &new).unwrap();
    assert_eq!((history.rule.decided.threats, history.entities[0].1), (2, Counts::default()));
}

#[test]
fn text_that_an_attacker_writes_makes_no_history_of_the_one_it_names() {
    let mut store = empty();
    let hostile =
        alert("r", NOW_S, json!({ "message": "Failed password for root from 10.0.0.6 port 22 ssh2" }));
    with(&mut store, |tx| insert(tx, &hostile));
    let named = alert("r", NOW_S + 1, json!({ "source_ip": "10.0.0.6" }));
    let history = look_up(&store, &named).unwrap();
    assert_eq!((history.rule.ever, history.entities[0].1.ever), (1, 0));
}

#[test]
fn the_same_address_at_another_tenant_is_another_machine() {
    let mut store = empty();
    let mut theirs = alert("r", NOW_S, json!({ "source_ip": "10.0.0.6" }));
    theirs.detector.insert("tenant".into(), "theirs".into());
    with(&mut store, |tx| insert(tx, &theirs));
    let ours = alert("r", NOW_S + 1, json!({ "source_ip": "10.0.0.6" }));
    let history = look_up(&store, &ours).unwrap();
    assert_eq!((history.rule.ever, history.entities[0].1.ever), (0, 0));
}

#[test]
fn a_clock_that_was_set_forward_for_a_moment_leaves_nothing_before_the_right_time() {
    let mut store = empty();
    let century_s = 3_000_000_000;
    for end_s in [NOW_S, NOW_S + century_s, NOW_S + 60] {
        with(&mut store, |tx| insert(tx, &alert("r", end_s, json!({ "host": "web-1" }))));
    }
    let now = look_up(&store, &alert("r", NOW_S + 61, json!({ "host": "WEB-1" }))).unwrap();
    assert_eq!((now.rule.ever, now.pairs[0].1.ever), (2, 2));
    let then = look_up(&store, &alert("r", NOW_S + century_s + 1, json!({}))).unwrap();
    assert_eq!((then.rule.minutes, then.rule.ever), (1, 3));
}

#[test]
fn alerts_of_an_older_store_are_counted_after_it_is_opened_and_a_closing_does_not_wait_for_that() {
    let mut store = empty();
    for n in 0..250 {
        with(&mut store, |tx| insert(tx, &alert("r", NOW_S + n, json!({ "host": "web-1" }))));
    }
    let last = alert("r", NOW_S + 250, json!({ "host": "web-1" }));
    with(&mut store, |tx| decided(tx, &alert("r", NOW_S, json!({ "host": "web-1" })).id, None, Some(true)));
    let counted = look_up(&store, &last).unwrap();
    assert_eq!((counted.rule.ever, counted.rule.decided.threats, counted.is_complete), (250, 1, true));
    // As that store was: nothing counted, one row that nobody can read.
    store
        .execute_batch(
            "DELETE FROM history; DELETE FROM history_around; DELETE FROM history_rules;
             UPDATE alerts SET history = NULL;
             INSERT INTO alerts (id, detector, rule, level, start_s, end_s, created_at, body, triage)
             VALUES ('x', 'd', 'r', 1, 0, 1, 0, 'damaged', '{}');",
        )
        .unwrap();
    let missing = look_up(&store, &last).unwrap();
    assert_eq!((missing.rule.ever, missing.is_complete), (0, false));
    with(&mut store, |tx| decided(tx, &alert("r", NOW_S, json!({ "host": "web-1" })).id, None, Some(true)));
    assert_eq!(look_up(&store, &last).unwrap().rule.decided, Decided { threats: 1, benign: 0 });
    let mut batches = Vec::new();
    while batches.last() != Some(&0) {
        batches.push(with(&mut store, count_some));
    }
    assert_eq!(batches, [100, 100, 50, 0]);
    assert_eq!(look_up(&store, &last).unwrap(), counted);
}

#[test]
fn a_store_of_an_older_watchpost_has_no_history_and_says_so() {
    let store = Connection::open_in_memory().unwrap();
    assert_eq!(look_up(&store, &alert("r", NOW_S, json!({}))).unwrap(), History::default());
}

#[test]
fn what_fired_around_is_bounded_and_an_alert_that_names_two_entities_counts_once() {
    let mut store = empty();
    let row = json!({ "host": "web-1", "source_ip": "10.0.0.6" });
    for n in 0..30 {
        with(&mut store, |tx| insert(tx, &alert(&format!("r{n:02}"), NOW_S - n, row.clone())));
    }
    with(&mut store, |tx| insert(tx, &alert("r07", NOW_S - 50, json!({ "host": "web-1" }))));
    with(&mut store, |tx| insert(tx, &alert("old", NOW_S - 601, row.clone())));
    let history = look_up(&store, &alert("r01", NOW_S + 1, row)).unwrap();
    let told: Vec<_> = history.around.iter().map(|other| (other.rule.as_str(), other.count)).collect();
    assert_eq!(told[..3], [("r07", 2), ("r00", 1), ("r02", 1)]);
    assert_eq!(told.len(), MAX_AROUND);
    assert_eq!(history.around[0].name.as_deref(), Some("Name of r07"));
}

/// Which of few rules, hosts and users, and when: near the borders of all that is counted.
#[derive(Clone, Debug)]
struct Event {
    rule: String,
    row: serde_json::Value,
    end_s: i64,
}

impl Event {
    fn alert(&self) -> Alert {
        alert(&self.rule, self.end_s, self.row.clone())
    }

    fn entities(&self) -> Vec<(String, String)> {
        let map = self.row.as_object().unwrap();
        map.iter().map(|(column, value)| (column.clone(), value.as_str().unwrap().to_owned())).collect()
    }
}

fn event() -> impl Strategy<Value = Event> {
    let name = || prop::option::of(0..3u8);
    let second = prop_oneof![
        -30i64..30,
        -620i64..-580,
        -3_620i64..-3_580,
        -86_420i64..-86_380,
        -90_000i64..90_000,
        -9_000_000i64..9_000_000,
    ];
    let start = prop_oneof![Just(NOW_S), Just(NOW_S - NOW_S % 86_400)];
    (0..3u8, name(), name(), second, start).prop_map(|(rule, host, user, second, start)| {
        let mut row = serde_json::Map::new();
        for (column, name) in [("host", host), ("user", user)] {
            if let Some(name) = name {
                row.insert(column.into(), format!("{column}-{name}").into());
            }
        }
        Event { rule: format!("r{rule}"), row: row.into(), end_s: start + second }
    })
}

/// [`look_up_as`] by reading every event.
fn brute_force(events: &[(Event, Option<bool>)], of: &Event) -> History {
    let before: Vec<_> = events.iter().filter(|(event, _)| event.end_s < of.end_s).collect();
    let counts = |holds: &dyn Fn(&Event) -> bool| {
        let of_them: Vec<_> = before.iter().filter(|(event, _)| holds(event)).collect();
        let last =
            |seconds| of_them.iter().filter(|(event, _)| event.end_s >= of.end_s - seconds).count() as u64;
        let closed = |as_what, seconds: i64| {
            let closed = events.iter().filter(|(event, label)| *label == Some(as_what) && holds(event));
            let others = closed.filter(|(event, _)| event.alert().id != of.alert().id);
            let span = of.end_s.saturating_sub(seconds)..=of.end_s;
            others.filter(|(event, _)| span.contains(&event.end_s)).count() as u64
        };
        let decided = |seconds| Decided { threats: closed(true, seconds), benign: closed(false, seconds) };
        let first_s = of_them.iter().map(|(event, _)| event.end_s).min();
        Counts {
            minutes: last(600),
            hour: last(3_600),
            day: last(86_400),
            ever: of_them.len() as u64,
            decided: decided(i64::MAX / 2),
            lately: LATELY_S.map(decided),
            first_seen: first_s.map(|first_s| Timestamp::from_second(first_s).unwrap()),
        }
    };
    let all = |rule: Option<&str>| {
        Entity::all_of(&of.alert())
            .into_iter()
            .zip(of.entities())
            .map(|(entity, named)| {
                let holds = |event: &Event| {
                    event.entities().contains(&named) && rule.is_none_or(|rule| event.rule == rule)
                };
                (entity, counts(&holds))
            })
            .collect()
    };
    let mut around: HashMap<&str, u64> = HashMap::new();
    for (event, _) in &before {
        let touches = event.entities().iter().any(|entity| of.entities().contains(entity));
        if touches && event.rule != of.rule && event.end_s >= of.end_s - 600 {
            *around.entry(&event.rule).or_default() += 1;
        }
    }
    let mut around: Vec<Around> = around
        .into_iter()
        .map(|(rule, count)| Around { rule: rule.into(), name: Some(format!("Name of {rule}")), count })
        .collect();
    around.sort_by_key(|other| (std::cmp::Reverse(other.count), other.rule.clone()));
    let with_rule = |column: &str| {
        let of_rule = before.iter().filter(|(event, _)| event.rule == of.rule);
        let named = of_rule.flat_map(|(event, _)| event.entities());
        named.filter(|(of, _)| of == column).collect::<HashSet<_>>().len() as u64
    };
    History {
        rule: counts(&|event| event.rule == of.rule),
        entities: all(None),
        pairs: all(Some(&of.rule)),
        around,
        site: counts(&|_| true).lately,
        others_with_rule: if with_rule("host") > 0 { with_rule("host") } else { with_rule("user") },
        is_complete: true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn in_whatever_order_alerts_come_the_counts_are_those_of_reading_all(
        events in prop::collection::vec((event(), any::<Option<bool>>(), any::<Option<bool>>()), 1..40),
    ) {
        let mut store = empty();
        let mut kept: Vec<(Event, Option<bool>)> = Vec::new();
        for (event, first, then) in events {
            let alert = event.alert();
            let is_new = with(&mut store, |tx| insert(tx, &alert));
            prop_assert_eq!(is_new, kept.iter().all(|(known, _)| known.alert().id != alert.id));
            if !is_new {
                continue;
            }
            // Closed, and closed again otherwise, at some time after it came.
            with(&mut store, |tx| decided(tx, &alert.id, None, first));
            with(&mut store, |tx| decided(tx, &alert.id, first, then));
            kept.push((event, then));
        }
        for (event, label) in &kept {
            let found = look_up_as(&store, &event.alert(), *label).unwrap();
            prop_assert_eq!(found, brute_force(&kept, event));
        }
        for (event, label) in &kept {
            with(&mut store, |tx| decided(tx, &event.alert().id, *label, None));
        }
        let open: Vec<_> = kept.iter().map(|(event, _)| (event.clone(), None)).collect();
        for (event, _) in &open {
            prop_assert_eq!(look_up(&store, &event.alert()).unwrap(), brute_force(&open, event));
        }
    }
}
