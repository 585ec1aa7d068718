use proptest::prelude::*;

use super::*;
use crate::closing::Label;

fn now() -> Timestamp {
    "2026-01-10T00:00:00Z".parse().unwrap()
}

fn read(file: impl AsRef<[u8]>) -> Vec<Result<(u64, Decision), String>> {
    let defaults = Defaults { label: None, reason: None, analyst: Some("ann".into()) };
    Import::new(file.as_ref(), defaults, now()).map(|read| read.map_err(|error| error.to_string())).collect()
}

fn problems(file: impl AsRef<[u8]>) -> Vec<String> {
    read(file).into_iter().filter_map(Result::err).collect()
}

fn decision(alert: &str, label: Label, reason: &str, analyst: &str, at: Option<&str>) -> Decision {
    let at = at.map(|at| at.parse().unwrap());
    Decision { alert: alert.into(), label, reason: reason.into(), analyst: analyst.into(), at }
}

#[test]
fn csv_and_json_lines_say_the_same() {
    let csv = "\u{feff}id,label,reason,analyst,at,ticket\r\n\
        aaaa,fp,\"the site's scanner, \"\"nmap\"\"\nweekly\",bob,2026-01-02T03:04:05Z,7\r\n\
        bbbb,TP,seen,,,8\r\n";
    let jsonl = r#"
        {"id": "aaaa", "as": "false-positive", "reason": "the site's scanner, \"nmap\"\nweekly", "by": "bob", "at": 1767323045, "alert": {"x": 1}}
        {"alert_id": "bbbb", "label": "TP", "reason": "seen", "at": null, "id": 9}"#;
    let expected = [
        decision(
            "aaaa",
            Label::FalsePositive,
            "the site's scanner, \"nmap\"\nweekly",
            "bob",
            Some("2026-01-02T03:04:05Z"),
        ),
        decision("bbbb", Label::TruePositive, "seen", "ann", None),
    ];
    let of = |file: &str| read(file).into_iter().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(of(csv).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(of(jsonl).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3]);
    for file in [csv, jsonl] {
        assert_eq!(of(file).into_iter().map(|(_, decision)| decision).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn semicolons_and_tabs_separate_too() {
    for sign in [";", "\t"] {
        let file = ["alert_id,label,reason", "aaaa,dup,same"].join("\n").replace(',', sign);
        assert_eq!(read(file)[0].as_ref().unwrap().1.label, Label::Duplicate);
    }
}

#[test]
fn each_wrong_line_is_named_with_its_field_and_the_way_out() {
    let file = "alert_id,label,reason,at\n\
        ,fp,x,\n\
        aaaa,maybe\u{1b}[2J,x,\n\
        aaaa,,x,\n\
        aaaa,fp,,\n\
        aaaa,fp,x,yesterday\n\
        aaaa,fp,x,2027-01-01\n\
        aaaa,fp,x,y,z\n\
        aaaa,fp,x,\n";
    insta::assert_snapshot!(problems(file).join("\n"), @r"
    2: alert_id: is missing: give the alert's id
    3: label: `maybe\u{1b}[2J` is no label: use `tp`, `btp`, `fp`, `dup` or `ne` (true positive, benign true positive, false positive, duplicate, not evaluable)
    4: label: is missing: use `tp`, `btp`, `fp`, `dup` or `ne` (true positive, benign true positive, false positive, duplicate, not evaluable), or give one for all with `--as`
    5: reason: is missing: fill it in, or give one for all with `--reason`
    6: at: `yesterday` is no time: write `2026-01-02T03:04:05Z`, or Unix seconds
    7: at: lies in the future: correct it, or leave it out, and the closing is of now
    8: has 5 fields and the header 4: quote a field that contains `,`
    ");
    assert_eq!(read(file).iter().filter(|read| read.is_ok()).count(), 1, "the good line is read");
    let jsonl = "{\"id\":\"aaaa\",\"label\":\"fp\",\"reason\":\"x\",\"undone_at\":\"2026-01-01T00:00:00Z\"}\n[1]\n{\"id\": 3, \"label\n";
    insta::assert_snapshot!(problems(jsonl).join("\n"), @r"
    1: undone_at: this closing was undone: leave the line out
    2: is not a JSON object: invalid type: sequence, expected a map at line 1 column 0: write one object a line
    3: is not a JSON object: EOF while parsing a string at line 1 column 16: write one object a line
    ");
}

#[test]
fn what_is_no_table_is_refused_at_once() {
    for (file, words) in [
        ("hello\nworld\n".as_bytes().to_vec(), "is no header with `alert_id`"),
        (b"alert_id,label\n\"aaaa,fp\naaaa,fp\n".to_vec(), "2: a quote (`\"`) is opened and not closed"),
        (b"\xff\xfea\0l\0e\0r\0t\0".to_vec(), "is not UTF-8"),
    ] {
        let problems = problems(&file);
        assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
    }
    assert!(read("").is_empty());
}

#[test]
fn a_line_that_is_too_long_takes_no_other_with_it_and_little_memory() {
    let mut file = b"{\"id\":\"".to_vec();
    file.resize(5 << 20, b'a');
    file.extend(b"\"}\n{\"id\":\"bbbb\",\"label\":\"fp\",\"reason\":\"x\"}\n");
    let read = read(&file);
    assert_eq!(read.len(), 2);
    assert!(read[0].as_ref().unwrap_err().starts_with("1: is longer than 65536 bytes"));
    assert_eq!(read[1].as_ref().unwrap().0, 2);
}

#[test]
fn times_are_read_as_exports_write_them() {
    let expected: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    for text in [
        "2026-01-02T03:04:05Z",
        "2026-01-02T04:04:05+01:00",
        "2026-01-02 03:04:05",
        "1767323045",
        "1767323045000",
    ] {
        assert_eq!(time(text), Ok(expected), "{text}");
    }
    for text in ["", "nan", "1e300", "-1e300", "soon"] {
        assert!(time(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_file_ends_the_reading_early_or_never(file in prop::collection::vec(prop::sample::select(b"a,\"\n\r{}:;id\xff\0 ".to_vec()), 0..200)) {
        let lines = file.iter().filter(|byte| **byte == b'\n').count() + 1;
        prop_assert!(read(&file).len() <= lines);
    }

    #[test]
    fn what_csv_writes_is_read_back(reasons in prop::collection::vec("[a-z]\\PC{0,20}[\"\n,;]{0,3}[a-z]", 1..10)) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["alert_id", "label", "reason"]).unwrap();
        for reason in &reasons {
            writer.write_record(["aaaa", "fp", reason]).unwrap();
        }
        let back: Vec<_> = read(writer.into_inner().unwrap()).into_iter().map(|read| read.unwrap().1.reason).collect();
        prop_assert_eq!(back, reasons);
    }
}
