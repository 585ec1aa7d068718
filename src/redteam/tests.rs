use serde_json::json;

use super::corpus;
use super::*;
use crate::triage::field::{self, Role, Roles};
use crate::triage::history::{Counts, Entity};
use crate::triage::observable::Kind;
use crate::triage::testing::alert;

fn target() -> Target {
    let rows = json!([{ "time": "2026-01-01T00:00:00Z", "user": "root", "source_ip": "10.0.0.6", "request": "/../etc/passwd" }]);
    let pair = vec![(Entity::new(Kind::User, "root"), Counts { ever: 2, ..Counts::default() })];
    let history = History { pairs: pair.clone(), entities: pair, ..History::default() };
    Target { alert: alert(75, rows), history }
}

fn attacks() -> Vec<Attack> {
    let benign = alert(30, json!([{ "user": "backup", "source_ip": "10.0.0.7", "message": "nightly job" }]));
    let around = crate::triage::history::Around { rule: "noise".into(), name: None, count: 9 };
    corpus::all(&[&benign], &[around])
}

#[test]
fn every_family_has_an_attack_that_changes_the_alert() {
    for family in Family::ALL {
        let own: Vec<Attack> = attacks().into_iter().filter(|attack| attack.family == family).collect();
        assert!(!own.is_empty(), "{family}");
        for attack in own {
            assert_ne!(attack.on(&target()).expect(&attack.name), target(), "{}", attack.name);
        }
    }
}

#[test]
fn what_made_the_rule_fire_is_still_there() {
    let plain = target();
    let mut roles = Roles::new(&plain.alert);
    for attack in attacks() {
        let attacked = attack.on(&plain).unwrap();
        let mut found = Vec::new();
        for row in &attacked.alert.data.value {
            field::leaves(row, &mut |path, value| {
                found.push((path.to_owned(), value.clone()));
                true
            });
        }
        field::leaves(&plain.alert.data.value[0], &mut |path, value| {
            let column = roles.of(path);
            let is_kept = column.is_clean(value) || column.role == Role::Time;
            let holds = found.iter().any(|(other, cell)| match is_kept {
                true => other == path && cell == value,
                false => other == path && cell.as_str().unwrap().contains(value.as_str().unwrap()),
            });
            assert!(holds, "{}: {path}", attack.name);
            true
        });
        assert_eq!(attacked.alert.rule, plain.alert.rule);
    }
}

#[test]
fn a_flood_raises_counts_and_closes_nothing() {
    let plain = target();
    for attack in attacks().into_iter().filter(|attack| attack.family == Family::Flood) {
        let attacked = attack.on(&plain).unwrap();
        assert_eq!(attacked.alert, plain.alert);
        let decided = |target: &Target| target.history.pairs[0].1.decided;
        assert_eq!(decided(&attacked), decided(&plain));
        assert!(attacked.history.pairs[0].1.ever >= plain.history.pairs[0].1.ever);
    }
}

#[test]
fn a_report_fails_by_its_worst_family() {
    let trial = |family, severity| Trial {
        family,
        attack: "a".into(),
        alert: "0".into(),
        moved: Moved { severity, ..Moved::default() },
        invented: vec![],
        is_broken: false,
        is_noticed: false,
        is_changed_by_prose: false,
    };
    let mut trials: Vec<Trial> = (0..96).map(|_| trial(Family::Rows, false)).collect();
    trials.extend((0..4).map(|_| trial(Family::Rows, true)));
    assert!(Report::new(String::new(), &trials, 1, 0.04, 0).holds);
    trials.push(trial(Family::Flood, true));
    assert!(!Report::new(String::new(), &trials, 1, 0.04, 0).holds, "1 of 1 is more than 4 %");
    let mut invented = trial(Family::Rows, false);
    invented.invented = vec!["10.9.9.9".into()];
    assert!(!Report::new(String::new(), &[invented], 1, 1.0, 0).holds);
}
