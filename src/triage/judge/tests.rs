use proptest::prelude::*;
use serde_json::json;

use super::learn::{Lesson, Parts, learn};
use super::*;
use crate::triage::history::{Around, Counts, Entity, History};
use crate::triage::observable::Kind;
use crate::triage::testing::alert;

fn lesson(user: &str, message: &str, is_threat: bool) -> Lesson {
    let alert = alert(50, json!([{ "user": user, "message": message }]));
    Lesson { features: Features::of(&alert, &History::default(), 30), is_threat, weight: 1.0 }
}

fn lessons() -> Vec<Lesson> {
    (0..40)
        .map(|n| match n % 2 {
            0 => lesson("backup", "nightly copy done", false),
            _ => lesson("root", if n % 4 == 1 { "sqlmap found" } else { "copy of shadow" }, true),
        })
        .collect()
}

fn judge() -> Judge {
    let lessons = lessons();
    learn(&lessons.iter().collect::<Vec<_>>(), Parts::ALL)
}

#[test]
fn without_closings_it_is_the_formula_and_says_so() {
    let said = Judge::prior().judge(&lesson("root", "x", true).features);
    assert!((said.probability - 0.7).abs() < 1e-9);
    assert!(!said.calibrated);
    assert_eq!(said.disposition, Disposition::Undecided, "it decides nothing");
    assert_eq!(said.judge, "prior");
    assert_eq!(learn(&[&lesson("root", "x", true)], Parts::ALL), Judge::prior(), "one side only");
}

#[test]
fn it_learns_who_was_a_threat_and_says_why() {
    let judge = judge();
    let threat = judge.judge(&lesson("root", "hello", true).features);
    let benign = judge.judge(&lesson("backup", "hello", false).features);
    assert!(threat.probability > 0.8 && benign.probability < 0.2, "{threat:?} {benign:?}");
    assert_eq!(
        (threat.disposition, benign.disposition),
        (Disposition::TruePositive, Disposition::FalsePositive)
    );
    assert!(
        benign.why.iter().any(|reason| reason.feature == "user: backup" && reason.weight < 0.0),
        "{benign:?}"
    );
    assert!(threat.calibrated && threat.judge.len() == 12);
}

#[test]
fn the_same_closings_give_the_same_judge() {
    assert_eq!(judge(), judge());
    let text = serde_json::to_string(&judge()).unwrap();
    assert_eq!(serde_json::from_str::<Judge>(&text).unwrap(), judge());
}

#[test]
fn what_is_not_there_is_not_evaluable_and_never_benign() {
    let mut features = lesson("backup", "x", false).features;
    features.is_empty = true;
    assert_eq!(judge().judge(&features).disposition, Disposition::NotEvaluable);
}

/// With benign alerts other rules fired, threats come alone: what is around would speak against one if it could.
#[test]
fn what_fires_around_or_fired_before_lowers_nothing() {
    let around = |rule: &str, count| Around { rule: rule.into(), name: None, count };
    let with = |user: &str, around: Vec<Around>, ever| {
        let alert = alert(50, json!([{ "user": user, "message": "x" }]));
        let counts = Counts { ever, day: ever, minutes: ever, ..Counts::default() };
        let pairs = vec![(Entity::new(Kind::User, user), counts)];
        let history = History { around, pairs, ..History::default() };
        Features::of(&alert, &history, 30)
    };
    let lessons: Vec<Lesson> = (0..40)
        .map(|n| match n % 2 {
            0 => (with("backup", vec![around("port scan", 9), around("new file", 1)], 50), false),
            _ => (with("root", vec![], 0), true),
        })
        .map(|(features, is_threat)| Lesson { features, is_threat, weight: 1.0 })
        .collect();
    let lessons: Vec<&Lesson> = lessons.iter().collect();
    let (guarded, open) =
        (learn(&lessons, Parts::ALL), learn(&lessons, Parts { guarded: false, ..Parts::ALL }));
    let plain = with("root", vec![], 0);
    for attack in [
        with("root", vec![around("port scan", 9)], 0),
        with("root", vec![around("port scan", 900), around("new file", 4)], 0),
        with("root", vec![], 50),
        with("root", vec![around("port scan", 9), around("new file", 1)], 5_000),
    ] {
        assert!(guarded.judge(&attack).probability >= guarded.judge(&plain).probability);
        assert!(open.judge(&attack).probability < open.judge(&plain).probability, "else it shows nothing");
    }
    assert!(guarded.judge(&plain).probability > 0.8, "the others say it as well");
}

proptest! {
    #[test]
    fn text_lowers_nothing(user in "(root|backup|eve)", text in ".{0,200}", copied in any::<bool>()) {
        let judge = judge();
        let copied = if copied { "nightly copy done" } else { "" };
        let plain = judge.judge(&lesson(&user, "copy of shadow", true).features);
        let hostile = judge.judge(&lesson(&user, &format!("copy of shadow {text} {copied}"), true).features);
        prop_assert!(hostile.probability >= plain.probability);
        prop_assert!((0.0..=1.0).contains(&hostile.probability) && hostile.text_gap >= 0.0);
    }
}
