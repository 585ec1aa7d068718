use serde_json::json;

use super::super::recorded::{Case, answer, config, done, refused};
use super::*;
use crate::triage::Triage;

const WHO: &str =
    "from: 'Watchpost <watchpost@example.com>', to: [soc@example.com, 'On call <oncall@example.com>']";

fn email(more: &str) -> Email {
    Email::new(&settings(more)).unwrap()
}

fn settings(more: &str) -> Config {
    config(&format!("{{host: 127.0.0.1, tls: none, {WHO}, {more}}}"))
}

fn compose(email: &Email, case: &Case) -> Mail {
    let message = Message {
        alert: &case.alert,
        triage: &case.triage,
        is_update: case.is_update,
        idempotency_key: "0123456789abcdef",
        receipt: case.receipt.as_deref(),
    };
    match email.compose(&message).unwrap() {
        Outgoing::Mail(mail) => mail,
        other => panic!("{other:?}"),
    }
}

fn text(mail: &Mail) -> String {
    String::from_utf8(mail.bytes.clone()).unwrap()
}

fn head(mail: &Mail) -> String {
    text(mail).split_once("\r\n\r\n").unwrap().0.replace("\r\n", "\n")
}

#[test]
fn a_mail_has_a_text_and_an_html_part_and_is_the_same_each_time() {
    let (email, case) = (email(""), Case::new());
    let mail = compose(&email, &case);
    assert_eq!(compose(&email, &case), mail);
    assert_eq!(mail.id, "<0123456789abcdef@example.com>");
    assert_eq!(
        mail.to.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["soc@example.com", "oncall@example.com"]
    );
    insta::assert_snapshot!(head(&mail), @r#"
    From: Watchpost <watchpost@example.com>
    Subject: [ALERT] ClickDetect - SSH login loop
    Date: Thu, 01 Jan 2026 00:05:01 +0000
    Message-ID: <0123456789abcdef@example.com>
    Auto-Submitted: auto-generated
    To: soc@example.com, "On call" <oncall@example.com>
    MIME-Version: 1.0
    Content-Type: multipart/alternative; boundary="watchpost-0123456789abcdef"
    "#);
    let text = text(&mail);
    assert!(text.is_ascii() && text.lines().all(|line| line.len() <= 998));
    let parts: Vec<_> = text.lines().filter(|line| line.starts_with("Content-Type: text/")).collect();
    assert_eq!(parts, ["Content-Type: text/plain; charset=utf-8", "Content-Type: text/html; charset=utf-8"]);
    assert!(text.contains("\r\n[ALERT] SSH login loop\r\n"), "{text}");
    assert_eq!(format!("{mail:?}"), format!("mail {} to 2 ({} bytes)", mail.id, mail.bytes.len()));
}

#[test]
fn a_later_verdict_answers_the_first_mail() {
    let mut case = Case::new();
    case.triage = done();
    case.is_update = true;
    case.receipt = Some("<first@example.com>".into());
    let mail = compose(&email(""), &case);
    let head = head(&mail);
    assert!(head.contains("\nIn-Reply-To: <first@example.com>\nReferences: <first@example.com>\n"), "{head}");
    assert!(text(&mail).contains("Title: Login loop against root"));
    case.receipt = None;
    assert!(!self::head(&compose(&email(""), &case)).contains("In-Reply-To"));
}

#[test]
fn a_value_adds_no_header_and_no_line_to_the_subject() {
    let email = email("subject: 'for {{ data.value[0].user }}'");
    let hostile = "x\r\nBcc: everybody@example.com\r\n\r\nbody \u{202e}";
    let mail = compose(&email, &Case::with_user(hostile));
    let head = head(&mail);
    assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
    assert!(head.contains("\nSubject: for x  Bcc: everybody@example.com    body \\u{202e}\n"), "{head}");
    assert_eq!(mail.to.len(), 2);
    let long = compose(&email, &Case::with_user(&"ä".repeat(5_000)));
    assert!(self::head(&long).len() < 2_000);
}

#[test]
fn html_shows_every_value_as_text_and_fetches_nothing() {
    let hostile = "<script>alert(1)</script><img src=\"http://evil.example/p.png\">\u{202e}";
    let mut case = Case::with_user(hostile);
    for field in ["name", "description", "id"] {
        case.alert.rule.insert(field.into(), hostile.into());
    }
    case.alert.rule.insert("tags".into(), json!([hostile]));
    case.alert.detector.insert("name".into(), hostile.into());
    case.alert.data.value[0].insert(hostile.into(), json!({ "nested": hostile }));
    let Triage::Done { mut verdict } = done() else { unreachable!("`done` is done") };
    verdict.summary = hostile.into();
    verdict.title = hostile.into();
    verdict.mitigations = vec![hostile.into()];
    verdict.affected_entities = vec![hostile.into()];
    for triage in [Triage::Done { verdict }, Triage::Failed { reason: hostile.into() }] {
        case.triage = triage;
        let message = Message {
            alert: &case.alert,
            triage: &case.triage,
            is_update: false,
            idempotency_key: "k",
            receipt: None,
        };
        for page in [html::of(&message).unwrap(), html::of_text(hostile).unwrap()] {
            for tag in ["<script", "<img", "<a ", "<link", "url(", "src=\"", "href=", "\u{202e}"] {
                assert!(!page.contains(tag), "{tag}: {page}");
            }
            assert!(page.contains("&lt;script&gt;"), "{page}");
        }
    }
}

#[test]
fn the_html_part_is_a_small_page() {
    let mut case = Case::new();
    case.triage = done();
    let message = Message {
        alert: &case.alert,
        triage: &case.triage,
        is_update: false,
        idempotency_key: "k",
        receipt: None,
    };
    insta::assert_snapshot!(html::of(&message).unwrap(), @r##"
    <!DOCTYPE html>
    <html lang="en">
    <head><meta charset="utf-8"><title>SSH login loop</title></head>
    <body style="margin:0;padding:16px;font:14px/1.5 sans-serif;color:#1b1f24;background:#ffffff">
    <div style="border-left:4px solid #bc4c00;padding-left:12px">
    <div style="color:#bc4c00;font-weight:bold">high (75)</div>
    <h1 style="margin:0;font-size:20px;line-height:1.3">SSH login loop</h1>
    </div>
    <p style="white-space:pre-wrap">Many failures</p>
    <h2 style="margin:16px 0 4px;font-size:16px">Login loop against root</h2>
    <div style="color:#59636e">High, confidence 70%, risk 80%, false positive 5%</div>
    <p style="white-space:pre-wrap">203.0.113.9 failed 7 times as root.</p>
    <p style="white-space:pre-wrap">Guessing.</p>
    <table style="border-collapse:collapse">
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">Affected</td><td style="padding:2px 0">root, 203.0.113.9</td></tr>
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">Recommended</td><td style="padding:2px 0">Block 203.0.113.9</td></tr></table>
    <ul style="padding-left:20px">
    <li>Block the address</li>
    <li>Turn off password logins</li>
    </ul>
    <h2 style="margin:16px 0 4px;font-size:16px">Alert</h2>
    <table style="border-collapse:collapse">
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">Matches</td><td style="padding:2px 0">7</td></tr>
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">From</td><td style="padding:2px 0">2026-01-01T00:00:00Z</td></tr>
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">To</td><td style="padding:2px 0">2026-01-01T00:05:00Z</td></tr>
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">Rule</td><td style="padding:2px 0">ssh-1</td></tr>
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">Tags</td><td style="padding:2px 0">attack.t1110</td></tr>
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">Detector</td><td style="padding:2px 0">sshd</td></tr>
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">Tenant</td><td style="padding:2px 0">default</td></tr>
    <tr><td style="padding:2px 16px 2px 0;color:#59636e;vertical-align:top">Alert</td><td style="padding:2px 0">00112233445566778899aabbccddeeff</td></tr>
    </table>
    <table style="border-collapse:collapse;margin-top:12px;font-size:13px">
    <tr><th style="border:1px solid #d1d9e0;padding:4px 8px;text-align:left;background:#f6f8fa">user</th><th style="border:1px solid #d1d9e0;padding:4px 8px;text-align:left;background:#f6f8fa">ip</th><th style="border:1px solid #d1d9e0;padding:4px 8px;text-align:left;background:#f6f8fa">n</th></tr>
    <tr><td style="border:1px solid #d1d9e0;padding:4px 8px;vertical-align:top;overflow-wrap:anywhere">root</td><td style="border:1px solid #d1d9e0;padding:4px 8px;vertical-align:top;overflow-wrap:anywhere">203.0.113.9</td><td style="border:1px solid #d1d9e0;padding:4px 8px;vertical-align:top;overflow-wrap:anywhere">7</td></tr>
    </table>
    <p style="color:#59636e">The first 1 of 7; the text part and <code>watchpost alerts</code> have more.</p>
    </body>
    </html>
    "##);
    case.alert.data.value =
        vec![(0..50).map(|n| (format!("c{n}"), json!("x".repeat(10_000)))).collect(); 500];
    case.alert.data.len = 1_000_000;
    let message = Message {
        alert: &case.alert,
        triage: &Triage::Skipped,
        is_update: false,
        idempotency_key: "k",
        receipt: None,
    };
    let page = html::of(&message).unwrap();
    assert!(page.contains("The first 20 of 1000000"), "{page}");
    assert!(page.len() < 100_000, "{}", page.len());
}

#[test]
fn a_template_of_the_operators_is_both_parts() {
    let email = email("template: \"**{{ rule.name }}** <b>\"");
    let text = text(&compose(&email, &Case::new()));
    assert!(text.contains("\r\n**SSH login loop** <b>\r\n"), "{text}");
    assert!(text.replace("=\r\n", "").contains("**SSH login loop** &lt;b&gt;"), "{text}");
}

#[test]
fn a_long_text_is_cut() {
    let mail = compose(&email(""), &Case::with_user(&"x".repeat(3_000_000)));
    assert!(mail.bytes.len() < 1_200_000, "{}", mail.bytes.len());
}

#[test]
fn security_follows_from_tls_use_tls_and_port() {
    let security = |more: &str| {
        let settings: Config = config(&format!("{{host: mail.example.com, {WHO}, {more}}}"));
        format!("{:?}", Email::new(&settings).unwrap().relay)
    };
    assert_eq!(security(""), "mail.example.com:587 (StartTls)");
    assert_eq!(security("use_tls: true"), "mail.example.com:587 (Tls)");
    assert_eq!(security("port: 465"), "mail.example.com:465 (Tls)");
    assert_eq!(security("port: 465, tls: starttls"), "mail.example.com:465 (StartTls)");
    assert_eq!(security("port: 25, tls: none"), "mail.example.com:25 (None)");
    assert_eq!(security("use_tls: true, tls: tls"), "mail.example.com:587 (Tls)");
}

#[test]
fn a_password_is_never_sent_in_the_clear_and_shows_nowhere() {
    let build = |more: &str| {
        let settings: Config = config(&format!("{{host: mail.example.com, {WHO}, {more}}}"));
        assert!(!format!("{settings:?} {}", settings.to_json()).contains("s3cret"));
        Email::new(&settings).map(|email| format!("{:?}", email.relay)).map_err(|error| error.to_string())
    };
    let login = "username: jo, password: s3cret";
    assert!(!build(login).unwrap().contains("s3cret"));
    assert!(build(&format!("tls: none, {login}")).unwrap_err().starts_with("with `tls: none` the password"));
    assert_eq!(build("username: jo").unwrap_err(), "`username` needs a `password`");
    assert_eq!(build("password: s3cret").unwrap_err(), "`password` needs a `username`");
    assert!(build("use_tls: true, tls: starttls").unwrap_err().contains("contradict"));
    assert!(build("ca: /no/such/ca.pem").unwrap_err().starts_with("`ca`: cannot read"));
    let here: Config = config(&format!("{{host: localhost, tls: none, {login}, {WHO}}}"));
    assert!(Email::new(&here).is_ok());
}

#[test]
fn addresses_and_ports_are_read_with_care() {
    let one: Config =
        config("{host: m.example, from: a@example.com, to: 'b@example.com, C <c@example.com>'}");
    assert_eq!(one.to.to_json(), json!(["b@example.com", "C <c@example.com>"]));
    let problems =
        refused::<Config>("{host: m.example, port: 0, tls: ssl, from: root, to: [a@example.com, b]}");
    assert_eq!(
        problems,
        "port: `0` is not a port, 1 to 65535\n\
         from: `root` is not a mail address, e.g. `soc@example.com` or `On call <oncall@example.com>`\n\
         to[1]: `b` is not a mail address, e.g. `soc@example.com` or `On call <oncall@example.com>`\n\
         tls: `ssl` is not an encryption: write `auto`, `tls`, `starttls` or `none`"
    );
    assert!(
        refused::<Config>("{host: m.example, from: a@example.com, to: []}").contains("a list stands here")
    );
}

#[test]
fn answers_of_smtp_are_told_apart() {
    let email = email("");
    assert_eq!(email.judge(&answer(250, "queued")), Meaning::Delivered);
    assert_eq!(email.judge(&answer(451, "greylisted")), Meaning::Later { after: None });
    assert_eq!(email.judge(&answer(535, "no")), Meaning::Refused);
    assert_eq!(email.judge(&answer(550, "no such user")), Meaning::Refused);
    assert_eq!(email.probed(&[answer(220, "mail.example.com")]).unwrap(), "mail server mail.example.com");
    assert_eq!(
        email.probed(&[answer(535, "the login was refused: no")]).unwrap_err(),
        "535: the login was refused: no"
    );
}
