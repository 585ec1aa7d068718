use super::super::recorded::{self, Case, config};
use super::*;

fn matrix(settings: &str) -> Matrix {
    let yaml = "url: 'https://m.example', username: wp, password: s3cret-word";
    Matrix::new(&config(&format!("{{{yaml}, room_id: '#soc:m.example'{settings}}}"))).unwrap()
}

const LOGIN: &str = r#"{"user_id": "@wp:m.example", "access_token": "s3cret-token", "device_id": "D"}"#;
const NOT_FOUND: &str = r#"{"errcode": "M_NOT_FOUND", "error": "Event not found."}"#;
const FORBIDDEN: &str = r#"{"errcode": "M_FORBIDDEN", "error": "User not in room"}"#;

/// What delivery does with the answer to a preparation.
fn prepare(matrix: &Matrix, status: u16, body: &str) -> Result<(), String> {
    let request = matrix.preparation().unwrap();
    let answer = recorded::answer(status, body);
    match Meaning::of_status(status) {
        Meaning::Delivered => matrix.prepared(&answer),
        _ if matrix.forgoes(&request, &answer) => Ok(()),
        _ => Err(format!("{status}")),
    }
}

/// Logged in, in a room that is not encrypted.
fn ready() -> Matrix {
    let matrix = matrix("");
    prepare(&matrix, 200, LOGIN).unwrap();
    prepare(&matrix, 200, r#"{"room_id": "!r/1:m.example", "servers": []}"#).unwrap();
    prepare(&matrix, 404, NOT_FOUND).unwrap();
    assert_eq!(matrix.preparation(), None);
    matrix
}

fn line(request: &Request) -> String {
    format!("{} {}", request.method, request.to.url.as_str())
}

fn bearer(request: &Request) -> Option<&str> {
    request.headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.reveal())
}

#[test]
fn it_logs_in_and_looks_whether_the_room_is_encrypted() {
    let matrix = matrix(", device_id: DESK");
    let login = matrix.preparation().unwrap();
    assert_eq!(
        (line(&login).as_str(), bearer(&login)),
        ("POST https://m.example/_matrix/client/v3/login", None)
    );
    insta::assert_snapshot!(recorded::body(&login), @r#"{"type":"m.login.password","identifier":{"type":"m.id.user","user":"wp"},"password":"s3cret-word","device_id":"DESK","initial_device_display_name":"Watchpost"}"#);
    prepare(&matrix, 200, LOGIN).unwrap();
    let find = matrix.preparation().unwrap();
    assert_eq!(line(&find), "GET https://m.example/_matrix/client/v3/directory/room/%23soc%3Am%2Eexample");
    assert_eq!(bearer(&find), Some("Bearer s3cret-token"));
    prepare(&matrix, 200, r#"{"room_id": "!r:m.example", "servers": ["m.example"]}"#).unwrap();
    let state = matrix.preparation().unwrap();
    assert_eq!(
        line(&state),
        "GET https://m.example/_matrix/client/v3/rooms/%21r%3Am%2Eexample/state/m.room.encryption"
    );
    let encrypted = prepare(&matrix, 200, r#"{"algorithm": "m.megolm.v1.aes-sha2"}"#).unwrap_err();
    insta::assert_snapshot!(encrypted, @"the room `#soc:m.example` is encrypted: Watchpost sends to text rooms only, give it one that is not");
    assert!(matrix.preparation().is_some(), "nothing is sent to an encrypted room");
}

#[test]
fn a_room_that_the_account_is_not_in_is_joined_once() {
    let matrix = matrix("");
    prepare(&matrix, 200, LOGIN).unwrap();
    prepare(&matrix, 200, r#"{"room_id": "!r/1:m.example"}"#).unwrap();
    prepare(&matrix, 403, FORBIDDEN).unwrap();
    let join = matrix.preparation().unwrap();
    assert_eq!(line(&join), "POST https://m.example/_matrix/client/v3/join/%23soc%3Am%2Eexample");
    assert_eq!((bearer(&join), recorded::body(&join)), (Some("Bearer s3cret-token"), json!({})));
    prepare(&matrix, 200, r#"{"room_id": "!r/1:m.example"}"#).unwrap();
    prepare(&matrix, 403, FORBIDDEN).unwrap_err();
    prepare(&matrix, 404, NOT_FOUND).unwrap();
    assert_eq!(matrix.preparation(), None);
}

#[test]
fn the_message_is_plain_text_that_mentions_nobody() {
    let request = Case::with_user("@room <b>x</b>").compose(&ready());
    assert_eq!(
        line(&request),
        "PUT https://m.example/_matrix/client/v3/rooms/%21r%2F1%3Am%2Eexample/send/m.room.message/0123456789abcdef"
    );
    let mut content = recorded::body(&request);
    let text = content["body"].take();
    assert_eq!(content, json!({"msgtype": "m.text", "body": null, "m.mentions": {}}));
    assert!(text.as_str().unwrap().starts_with("\n[ALERT] SSH login loop\n"), "{text}");
}

#[test]
fn what_triage_adds_edits_the_message() {
    let matrix = ready();
    let receipt = matrix.receipt(&recorded::answer(200, r#"{"event_id": "$e1"}"#)).unwrap();
    assert_eq!(receipt, "!r/1:m.example $e1");
    let late = Case { is_update: true, triage: recorded::done(), receipt: Some(receipt), ..Case::new() };
    let content = recorded::body(&late.compose(&matrix));
    assert_eq!(content["m.relates_to"], json!({"rel_type": "m.replace", "event_id": "$e1"}));
    assert_eq!(content["m.new_content"]["msgtype"], "m.text");
    let text = content["m.new_content"]["body"].as_str().unwrap();
    assert_eq!(content["body"], format!("* {text}"));
    assert!(text.contains("Title: Login loop against root"), "{text}");
    let elsewhere = Case { receipt: Some("!other:m.example $e1".into()), ..late }.compose(&matrix);
    let content = recorded::body(&elsewhere);
    assert_eq!(content.get("m.relates_to"), None);
    assert!(content["body"].as_str().unwrap().starts_with("[UPDATE] "));
}

#[test]
fn an_event_is_no_larger_than_matrix_takes() {
    let matrix = ready();
    for filler in ["ä", "\"", "\n", "🙂"] {
        let mut case = Case { is_update: true, receipt: Some("!r/1:m.example $e1".into()), ..Case::new() };
        case.alert.rule["description"] = filler.repeat(60_000).into();
        let bytes = case.compose(&matrix).body.len();
        assert!((55_000..60_000).contains(&bytes), "{filler}: {bytes}");
    }
}

#[test]
fn a_login_that_is_over_is_made_again() {
    let over = r#"{"errcode": "M_UNKNOWN_TOKEN", "error": "x", "soft_logout": true}"#;
    let matrix = ready();
    assert_eq!(matrix.judge(&recorded::answer(401, over)), Meaning::Later { after: None });
    assert!(line(&matrix.preparation().unwrap()).ends_with("/login"));
    prepare(&matrix, 200, &LOGIN.replace("s3cret-token", "s3cret-two")).unwrap();
    assert_eq!(matrix.preparation(), None, "the room is known");
    assert_eq!(bearer(&Case::new().compose(&matrix)), Some("Bearer s3cret-two"));
    let matrix = self::matrix("");
    prepare(&matrix, 200, LOGIN).unwrap();
    prepare(&matrix, 401, over).unwrap();
    assert!(line(&matrix.preparation().unwrap()).ends_with("/login"));
}

#[test]
fn a_room_that_put_the_account_out_is_joined_again_once() {
    let matrix = ready();
    let out = recorded::answer(403, FORBIDDEN);
    let later = Meaning::Later { after: None };
    assert_eq!(matrix.judge(&out), later);
    assert!(line(&matrix.preparation().unwrap()).contains("/join/"));
    prepare(&matrix, 200, r#"{"room_id": "!r/1:m.example"}"#).unwrap();
    prepare(&matrix, 404, NOT_FOUND).unwrap();
    assert_eq!(matrix.judge(&out), Meaning::Refused);
    assert_eq!(matrix.judge(&recorded::answer(200, r#"{"event_id": "$e"}"#)), Meaning::Delivered);
    assert_eq!(matrix.judge(&out), later);
}

#[test]
fn answers_mean_what_the_server_says() {
    let limited = recorded::answer(
        429,
        r#"{"errcode": "M_LIMIT_EXCEEDED", "error": "Too many", "retry_after_ms": 2500}"#,
    );
    let wait = Meaning::Later { after: Some(Duration::from_millis(2500)) };
    assert_eq!(ready().judge(&limited), wait);
    let denied = r#"{"errcode": "M_FORBIDDEN", "error": "Invalid username or password"}"#;
    assert_eq!(prepare(&matrix(""), 403, denied).unwrap_err(), "403");
    assert_eq!(ready().judge(&recorded::answer(413, r#"{"errcode": "M_TOO_LARGE"}"#)), Meaning::Refused);
    for rubbish in ["", "<html>", "{}", r#"{"event_id": 1}"#] {
        // A retry has the same transaction id: it is no second message.
        assert_eq!(
            ready().judge(&recorded::answer(200, rubbish)),
            Meaning::Later { after: None },
            "{rubbish}"
        );
        assert!(matrix("").prepared(&recorded::answer(200, rubbish)).unwrap_err().contains("is `url` one?"));
    }
}

#[test]
fn the_device_stays_the_same_and_each_room_has_its_own() {
    let device = |settings: &str| matrix(settings).device;
    assert_eq!(device(""), device(""));
    assert!(device("").starts_with("WATCHPOST") && device("").len() == 25, "{}", device(""));
    let other = Matrix::new(&config(
        "{url: 'https://m.example', username: wp, password: x, room_id: '!r:m.example'}",
    ))
    .unwrap();
    assert_ne!(device(""), other.device);
}

#[test]
fn neither_password_nor_token_is_shown() {
    let matrix = ready();
    let request = Case::new().compose(&matrix);
    let shown = format!("{request:?} {:?} {:?}", matrix.destination(), self::matrix("").preparation());
    assert!(!shown.contains("s3cret"), "{shown}");
    assert_eq!(request.redact("unknown token s3cret-token1 s3cret-token"), "unknown token ***1 ***");
}

#[test]
fn a_probe_says_which_version_answers_and_as_whom() {
    let matrix = ready();
    let probed = |body: &str| matrix.probed(&[recorded::answer(200, body)]);
    assert_eq!(recorded::probe(&matrix), "GET https://m.example/_matrix/client/versions");
    assert_eq!(
        probed(r#"{"versions": ["r0.6.1", "v1.1", "v1.12"]}"#).unwrap(),
        "Matrix v1.12, as `@wp:m.example`"
    );
    assert!(probed("hello").is_err() && probed(r#"{"versions": []}"#).is_err());
    let error =
        recorded::refused::<Config>("{url: 'https://m.example', username: a, password: b, room_id: soc}");
    insta::assert_snapshot!(error, @"room_id: `soc` is not a room, e.g. `!abc:matrix.example` or `#soc:matrix.example`");
}
