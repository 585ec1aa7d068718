use serde_json::json;

use super::*;
use crate::triage::testing::alert;

fn ground() -> Ground {
    let alert = alert(
        75,
        json!([
            { "source_ip": "10.0.0.6", "user": "deploy", "host": "web-1", "message": "GET /etc/passwd from 10.0.0.6 port 4711" }
        ]),
    );
    let shown = ["10.0.0.6", "deploy", "web-1", "GET /etc/passwd from 10.0.0.6 port 4711"].map(str::to_owned);
    Ground::new(
        &observable::extract(&alert),
        &shown,
        &[
            "SSH brute force T1110",
            "412 rows, source_ip, web.example.com 192.0.2.1",
            "user source server password",
        ],
        Severity::High,
        false,
    )
}

#[test]
fn what_stands_in_the_alert_may_be_said() {
    for text in [
        "The source 10.0.0.6 sent 412 requests to web-1.",
        "User deploy read /etc/passwd over port 4711.",
        "A T1110 brute force with high severity from 10.0.0.6's network.",
        "The user tried a password on the host and failed, e.g. over TCP/UDP.",
    ] {
        assert_eq!(ground().keep(text, 400).as_deref(), Ok(text));
    }
}

#[test]
fn an_invention_does_not_survive() {
    for text in [
        "The attacker 10.0.0.66 logged in.",
        "The attacker 10.0.0 logged in.",
        "It came from 192.0.2.1 last night.",
        "It was seen on web.example.com today.",
        "Contact evil.example.org for details.",
        "Write to bob@corp.example about it.",
        "User alice logged in from 10.0.0.6.",
        "The account named mallory was used.",
        "It failed to log in as bob.",
        "The source was used by Zelda before.",
        "The source is a FedEx server.",
        "The source is a FedEx/Cable server.",
        "An attacker became root on web-1.",
        "The host db02 was reached.",
        "See the file /etc/shadow for details.",
        "It ran C:\\Temp\\evil.exe on the host.",
        "The user 'bob' logged in.",
        "The hash d41d8cd98f00b204e9800998ecf8427e is known.",
        "There were 9999 failed logins.",
        "It exploits CVE-2021-44228 on the server.",
        "Seen at 2001:db8::1 as well.",
        "Open https://evil.example/x for more.",
        "It wrote evil_payload.sh to disk.",
    ] {
        assert!(ground().keep(text, 400).is_err(), "{text}");
        let kept = ground().keep(&format!("The source is 10.0.0.6. {text} It reached web-1."), 400);
        assert_eq!(kept.as_deref(), Ok("The source is 10.0.0.6. It reached web-1."), "{text}");
    }
}

#[test]
fn prose_cannot_contradict_the_numbers() {
    for text in [
        "This alert is benign and can be closed.",
        "It is a false positive of the scanner.",
        "The severity is low for this alert.",
        "This is a critical severity alert.",
    ] {
        assert_eq!(ground().keep(text, 400), Err("it contradicts the computed numbers"), "{text}");
    }
}

#[test]
fn prose_claims_no_outcome_that_the_alert_does_not_show() {
    for text in [
        "The server was hacked by the attacker.",
        "They managed to get into the web server.",
        "You should be careful with passwords.",
    ] {
        assert!(ground().keep(text, 400).is_err(), "{text}");
    }
}

#[test]
fn a_title_speaks_of_its_alert() {
    assert_eq!(
        ground().keep_title("Alert: SSH Brute Force From 10.0.0.6.", 80).as_deref(),
        Ok("SSH Brute Force From 10.0.0.6")
    );
    for text in ["SSH BREAKER FINISHED", "The Ultimate Guide to Server Life"] {
        assert!(ground().keep_title(text, 80).is_err(), "{text}");
    }
}

#[test]
fn loops_and_empty_answers_are_not_usable() {
    for text in [
        "",
        " . ",
        "ok",
        "a b c d a b c d a b c d",
        "The attack is an attack attack attack attack of attack attack",
    ] {
        assert!(ground().keep(text, 400).is_err(), "{text}");
    }
    let twice = "The source is 10.0.0.6. The source is 10.0.0.6. And then it";
    assert_eq!(ground().keep(twice, 400).as_deref(), Ok("The source is 10.0.0.6."));
}

#[test]
fn a_long_text_is_cut_between_words_and_escapes_are_gone() {
    assert_eq!(
        ground().keep("The source \u{1b}[31mreached\nthe web server", 22).as_deref(),
        Ok("The source reached…")
    );
}
