use serde_json::json;

use super::*;
use crate::triage::testing::alert;

const NOTE: &str = "Scanner 10.0.0.5 runs daily vulnerability scans and will trigger\n\
                    port-scan rules. Ignore alerts where source_ip is 10.0.0.5.\n";

fn is_dismissed(note: &str, rows: Value) -> bool {
    matches!(Notes::parse(note).judge(&alert(75, rows)), Judgement::Dismissed(_))
}

fn effects(note: &str) -> Vec<Effect> {
    Notes::parse(note).statements.into_iter().map(|statement| statement.effect).collect()
}

#[test]
fn the_documented_note_dismisses_its_scanner_only() {
    assert_eq!(effects(NOTE), [Effect::Mention, Effect::Dismiss]);
    assert!(is_dismissed(NOTE, json!([{ "source_ip": "10.0.0.5", "port": 22 }])));
    assert!(!is_dismissed(NOTE, json!([{ "source_ip": "10.0.0.6" }])));
    assert!(!is_dismissed(NOTE, json!([{ "source_ip": "10.0.0.5" }, { "source_ip": "10.0.0.6" }])));
    assert!(!is_dismissed(NOTE, json!([{ "source_ip": ["10.0.0.5", "10.0.0.6"] }])));
    assert!(!is_dismissed(NOTE, json!([{ "source_ip": "10.0.0.5" }, { "message": "no address" }])));
    assert!(!is_dismissed(NOTE, json!([])));
}

#[test]
fn every_spelling_of_the_source_counts() {
    for name in ["src_ip", "client_ip", "remote_addr", "SourceIp", "ip", "srcip", "IpAddress"] {
        assert!(is_dismissed(NOTE, json!([{ name: "10.0.0.5" }])), "{name}");
    }
    assert!(is_dismissed(
        NOTE,
        json!([{ "source": { "ip": "10.0.0.5" }, "destination": { "ip": "10.9.9.9" } }])
    ));
    assert!(!is_dismissed(NOTE, json!([{ "destination_ip": "10.0.0.5" }])));
    assert!(!is_dismissed(NOTE, json!([{ "x_forwarded_for": "10.0.0.5" }])));
}

#[test]
fn log_text_with_the_sentence_has_no_effect() {
    for row in [
        json!([{ "source_ip": "10.0.0.6", "message": NOTE }]),
        json!([{ "message": NOTE }]),
        json!([{ "source_ip": NOTE }]),
        json!([{ "source_ip": "10.0.0.6", "user": NOTE, "message": "source_ip is 10.0.0.5" }]),
        json!([{ "source_ip": "10.0.0.5 10.0.0.6" }]),
    ] {
        assert_eq!(Notes::parse(NOTE).judge(&alert(75, row.clone())), Judgement::Silent, "{row}");
    }
}

#[test]
fn a_negation_never_dismisses() {
    let rows = json!([{ "source_ip": "10.0.0.9", "user": "root" }]);
    for note in [
        "Never ignore alerts from 10.0.0.9.",
        "Do not ignore alerts from 10.0.0.9.",
        "Don\u{2019}t dismiss 10.0.0.9",
        "Alerts from 10.0.0.9 are not false positives.",
        "Ignore alerts where source_ip is not 10.0.0.9.",
        "Ignore alerts where source_ip != 10.0.0.9",
        "Ignore alerts other than from 10.0.0.9.",
        "Ignore everything outside 10.0.0.9/32.",
        "Stop ignoring 10.0.0.9.",
        "Never\nignore alerts from 10.0.0.9",
        "Do not\nignore alerts from 10.0.0.9",
        "Ignore alerts from 10.0.0.9 unless the user is root.",
        "Ignore alerts from 10.0.0.9. Except when the user is root.",
        "Ignore alerts from 10.0.0.9\nunless the user is root.",
        "Ignore alerts from 10.0.0.9 during the maintenance window.",
        "Ignore alerts from 10.0.0.9 until 18:00.",
        "Alerts from 10.0.0.9 may be false positives.",
        "Alerts from 10.0.0.9 were ignored by mistake.",
        "Should we ignore 10.0.0.9?",
        "Host 10.0.0.9 is compromised, do not report it as benign.",
        "Ignore alerts from 10.0.0.8-10.0.0.10.",
        "Ignore alerts where source_ip is 10.0.0.* or user_agent is root.",
        "Ignore all alerts.",
        "Ignore alerts where message is 10.0.0.9 and user_agent is curl.",
        "10.0.0.9 is our scanner.",
    ] {
        assert!(!is_dismissed(note, rows.clone()), "{note}: {:?}", Notes::parse(note).explain());
    }
}

#[test]
fn a_keep_outweighs_a_dismissal() {
    let note = "Ignore alerts from 10.0.0.0/8. Never ignore alerts from 10.0.0.9.";
    assert!(is_dismissed(note, json!([{ "source_ip": "10.1.2.3" }])));
    assert!(!is_dismissed(note, json!([{ "source_ip": "10.0.0.9" }])));
    assert!(!is_dismissed(note, json!([{ "source_ip": "10.1.2.3" }, { "source_ip": "10.0.0.9" }])));
    assert!(!is_dismissed(note, json!([{ "source_ip": "11.1.2.3" }])));
}

#[test]
fn users_hosts_rules_networks_and_columns_are_understood() {
    let row = json!([{ "source_ip": "10.0.0.5", "user": "svc-backup", "host": "web-1", "event_id": 4625 }]);
    for note in [
        "Ignore alerts where user is svc-backup",
        "Ignore alerts from user svc-backup.",
        "Suppress alerts where host is WEB-1 and user is svc-backup.",
        "Alerts from 10.0.0.0/24 are false positives.",
        "Do not alert when source_ip is 10.0.0.5.",
        "Ignore alerts where source_ip is 10.0.0.4 or 10.0.0.5.",
        "Ignore alerts where source_ip in [10.0.0.4, 10.0.0.5].",
        "ignore source_ip=10.0.0.5",
        "Ignore alerts where event_id is 4625 and user is svc-backup.",
        "Ignore alerts where user is nobody2 or source_ip is 10.0.0.5.",
        "Ignore rule \"Test rule\" from 10.0.0.5.",
        "Ignore rule test-rule.",
        "- ignore alerts from 10.0.0.4\n- ignore alerts from 10.0.0.5\n",
        "ignore alerts from 10.0.0.4\nignore alerts from 10.0.0.5\n",
    ] {
        assert!(is_dismissed(note, row.clone()), "{note}: {:?}", Notes::parse(note).explain());
    }
    for note in [
        "Ignore alerts where user is svc-backup and host is web-2.",
        "Ignore alerts from 10.0.1.0/24.",
        "Ignore traffic to 10.0.0.5.",
        "Ignore rule other-rule.",
        "Ignore rule test-rule from 10.0.0.9.",
    ] {
        assert!(!is_dismissed(note, row.clone()), "{note}: {:?}", Notes::parse(note).explain());
    }
}

#[test]
fn a_mention_is_weaker() {
    let notes = Notes::parse("10.0.0.5 is our authorized scanner.");
    assert!(matches!(notes.judge(&alert(75, json!([{ "src_ip": "10.0.0.5" }]))), Judgement::Mentioned(_)));
    assert_eq!(notes.judge(&alert(75, json!([{ "src_ip": "10.0.0.6" }]))), Judgement::Silent);
}

#[test]
fn a_column_that_the_rule_calls_tainted_meets_no_condition_and_still_keeps() {
    let mut alert = alert(75, json!([{ "source_ip": "10.0.0.5" }]));
    alert.rule.insert("tainted".into(), json!(["source_ip"]));
    assert_eq!(Notes::parse(NOTE).judge(&alert), Judgement::Silent);
    let keep = Notes::parse("Never ignore alerts from 10.0.0.5. Ignore rule test-rule.");
    assert!(matches!(keep.judge(&alert), Judgement::Kept(_)));
}

#[test]
fn rows_that_were_cut_away_are_not_dismissed() {
    let notes = Notes::parse(NOTE);
    let mut alert = alert(75, json!([{ "source_ip": "10.0.0.5" }]));
    alert.data.cut = Some("1 of 2 rows: max_rows".into());
    assert!(matches!(notes.judge(&alert), Judgement::Mentioned(_)));
}

#[test]
fn the_operator_is_told_how_each_sentence_was_read() {
    insta::assert_snapshot!(
        Notes::parse(&format!("{NOTE} Ignore it. Never ignore 10.0.0.9. Ignore alerts where user_agent is Nessus.")).explain().join("\n"),
        @r"
    counts a little for alerts whose every row has source address 10.0.0.5: `Scanner 10.0.0.5 runs daily vulnerability scans and will trigger port-scan rules.`
    dismisses alerts whose every row has source address 10.0.0.5: `Ignore alerts where source_ip is 10.0.0.5.`
    has no effect: it names no address, user, host or rule to ignore: `Ignore it.`
    never lets an alert be dismissed with source address 10.0.0.9 in any row: `Never ignore 10.0.0.9.`
    has no effect: it asks for a column that attackers can write, or that is not known: `Ignore alerts where user_agent is Nessus.`
    "
    );
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_fail(text in "\\PC{0,200}") {
        let notes = Notes::parse(&text);
        notes.judge(&alert(75, json!([{ "source_ip": "10.0.0.5", "message": text }])));
    }

    #[test]
    fn a_note_about_one_address_dismisses_no_other(note in "(?i)[a-z ]{0,20}(ignore|dismiss) (alerts )?(from|where source_ip is) 10\\.0\\.0\\.5[a-z ,.\n]{0,40}") {
        let dismissed = is_dismissed(&note, json!([{ "source_ip": "10.0.0.6" }]));
        proptest::prop_assert!(!dismissed);
    }
}

#[test]
fn what_a_sentence_describes_by_a_negation_does_not_keep_it_from_being_true() {
    let note =
        "Scanner 10.0.0.5 asks for many paths that do not exist. Ignore alerts where source_ip is 10.0.0.5.";
    assert!(is_dismissed(note, json!([{ "source_ip": "10.0.0.5" }])));
    assert!(!is_dismissed(note, json!([{ "source_ip": "10.0.0.6" }])));
    let turned = "Ignore alerts from hosts that do not have address 10.0.0.5.";
    assert!(!is_dismissed(turned, json!([{ "source_ip": "10.0.0.5" }])));
}
