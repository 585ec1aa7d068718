//! Mail: through a real server with STARTTLS, TLS and a login; and through some that misbehave.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use watchpost::http::Http;
use watchpost::webhook;

use crate::delivery::Site;
use crate::fake::data;
use crate::services::service;
use crate::tickets::settings;

const PASSWORD: &str = "s3cret-of-mail";

/// The real server: its ports, and the folder where its mails lie.
struct Server {
    starttls: u16,
    smtps: u16,
    plain: u16,
    dir: PathBuf,
}

impl Server {
    fn find() -> Option<Self> {
        let told = service("SMTP")?;
        let words: Vec<&str> = told.split(' ').collect();
        let port = |at: usize| words[at].parse().unwrap();
        Some(Self { starttls: port(1), smtps: port(2), plain: port(3), dir: words[4].into() })
    }

    /// The mails to `to`, in the order in which they came.
    fn mails(&self, to: &str) -> Vec<Value> {
        let mut paths: Vec<_> =
            std::fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
        paths.sort();
        let mails = paths
            .iter()
            .map(|path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap());
        mails.filter(|mail| mail["to"].as_array().unwrap().iter().any(|one| one == to)).collect()
    }
}

/// An address that no other test uses.
fn somebody(name: &str) -> String {
    format!("{name}-{}@example.com", std::process::id())
}

fn email(port: u16, to: &str, more: &str) -> webhook::Config {
    let ca = data("tls/authority.pem");
    settings(&format!(
        "{{type: email, host: 127.0.0.1, port: {port}, from: Watchpost <watchpost@example.com>, to: {to}, ca: {}, {more}}}",
        ca.display()
    ))
}

fn login(password: &str) -> String {
    format!("username: watchpost, password: {password}")
}

#[tokio::test(start_paused = true)]
async fn a_mail_arrives_by_starttls_by_tls_and_in_the_clear() {
    let Some(server) = Server::find() else { return };
    for (name, port, more, secured) in [
        ("starttls", server.starttls, login(PASSWORD), true),
        ("smtps", server.smtps, format!("use_tls: true, {}", login(PASSWORD)), true),
        ("plain", server.plain, "tls: none".into(), false),
    ] {
        let to = somebody(name);
        let site = Site::start(&[("mail", email(port, &to, &more))]).await;
        site.alert("x", 50, &["mail"], false).await;
        let rows = site.until_all("done").await;
        assert_eq!(
            (rows[0].last_status, rows[0].last_answer.as_deref()),
            (Some(250), Some("2.0.0 kept")),
            "{name}"
        );
        let mails = server.mails(&to);
        assert_eq!(mails.len(), 1, "{name}");
        assert_eq!(
            (mails[0]["tls"].as_bool(), mails[0]["user"].as_str()),
            (Some(secured), secured.then_some("watchpost")),
            "{name}"
        );
        let raw = mails[0]["raw"].as_str().unwrap();
        assert!(raw.contains("\r\nSubject: [ALERT] ClickDetect - Rule\r\n"), "{raw}");
        assert!(
            raw.contains(&format!("\r\nMessage-ID: <{}@example.com>\r\n", rows[0].idempotency_key)),
            "{raw}"
        );
        assert!(raw.contains("\r\nAuto-Submitted: auto-generated\r\n"), "{raw}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_verdict_is_an_answer_to_the_first_mail() {
    let Some(server) = Server::find() else { return };
    let to = somebody("thread");
    let site = Site::start(&[("mail", email(server.starttls, &to, &login(PASSWORD)))]).await;
    site.alert("x", 50, &["mail"], true).await;
    site.advance(Duration::from_secs(31)).await;
    let rows = site.until_all("done").await;
    site.settle("x").await;
    site.until(|rows| rows.len() == 2 && rows.iter().all(|row| row.state == "done")).await;
    let mails = server.mails(&to);
    let first = format!("<{}@example.com>", rows[0].idempotency_key);
    let answer = mails[1]["raw"].as_str().unwrap();
    assert!(answer.contains(&format!("\r\nIn-Reply-To: {first}\r\nReferences: {first}\r\n")), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_a_dead_letter_that_says_so_and_does_not_repeat_it() {
    let Some(server) = Server::find() else { return };
    let to = somebody("wrong");
    let wrong = "wr0ng-password";
    for (port, more) in [(server.starttls, String::new()), (server.smtps, "use_tls: true, ".into())] {
        let site = Site::start(&[("mail", email(port, &to, &format!("{more}{}", login(wrong))))]).await;
        site.alert("x", 50, &["mail"], false).await;
        let rows = site.until_all("dead").await;
        let answer = rows[0].last_answer.as_deref().unwrap();
        assert_eq!(answer, "535: the login was refused: 5.7.8 Authentication credentials invalid");
    }
    assert!(server.mails(&to).is_empty());
}

#[tokio::test(start_paused = true)]
async fn recipients_are_refused_one_by_one_and_put_off_together() {
    let Some(server) = Server::find() else { return };
    let (good, later) = (somebody("good"), somebody("good-later"));
    let site = Site::start(&[
        ("some", email(server.plain, &format!("[nobody@example.com, {good}]"), "tls: none")),
        ("none", email(server.plain, "[nobody@example.com]", "tls: none")),
        ("later", email(server.plain, &format!("[{later}, later@example.com]"), "tls: none")),
    ])
    .await;
    site.alert("x", 50, &["some", "none", "later"], false).await;
    let rows = site.until(|rows| rows.iter().all(|row| row.attempts == 1 && row.last_answer.is_some())).await;
    let told = |webhook: &str| {
        let row = rows.iter().find(|row| row.webhook == webhook).unwrap();
        (row.state.clone(), row.last_answer.clone().unwrap())
    };
    assert_eq!(
        told("some"),
        (
            "done".into(),
            "2.0.0 kept; not to nobody@example.com: 550: the recipient was refused: 5.1.1 no such mailbox"
                .into()
        )
    );
    assert_eq!(told("none"), ("dead".into(), "550: the recipient was refused: 5.1.1 no such mailbox".into()));
    assert_eq!(
        told("later"),
        ("due".into(), "451: the recipient was refused: 4.7.1 greylisted, come back".into())
    );
    assert_eq!((server.mails(&good).len(), server.mails(&later).len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_nobody_vouches_for_gets_nothing() {
    let Some(server) = Server::find() else { return };
    let to = somebody("untrusted");
    let config = |port: u16, more: &str| {
        settings(&format!(
            "{{type: email, host: 127.0.0.1, port: {port}, from: a@example.com, to: {to}, {}, {more}}}",
            login(PASSWORD)
        ))
    };
    for (port, more) in [(server.starttls, ""), (server.smtps, "use_tls: true")] {
        let site = Site::start(&[("mail", config(port, more))]).await;
        site.alert("x", 50, &["mail"], false).await;
        let rows = site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
        let answer = rows[0].last_answer.as_deref().unwrap();
        assert!(answer.contains("cannot be reached: ") && answer.contains("certificate"), "{answer}");
    }
    assert!(server.mails(&to).is_empty());
    let site = Site::start(&[("mail", config(server.starttls, "verify: false"))]).await;
    site.alert("x", 50, &["mail"], false).await;
    site.until_all("done").await;
    assert_eq!(server.mails(&to).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_in_the_clear_to_a_server_without_starttls() {
    let Some(server) = Server::find() else { return };
    let to = somebody("clear");
    let site = Site::start(&[("mail", email(server.plain, &to, &login(PASSWORD)))]).await;
    site.alert("x", 50, &["mail"], false).await;
    let rows = site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
    assert!(rows[0].last_answer.as_deref().unwrap().contains("offers no STARTTLS"), "{rows:#?}");
    assert!(server.mails(&to).is_empty());
}

#[tokio::test]
async fn a_look_greets_and_logs_in_and_sends_nothing() {
    let Some(server) = Server::find() else { return };
    let to = somebody("look");
    let look = async |config: webhook::Config| {
        let webhook = webhook::build(&config, false).unwrap();
        webhook::look(webhook.as_ref(), &Http::new([]).unwrap())
            .await
            .unwrap()
            .map_err(|error| error.to_string())
    };
    let told = look(email(server.starttls, &to, &login(PASSWORD))).await.unwrap();
    assert_eq!(told, "mail server mail.example");
    let wrong = look(email(server.starttls, &to, &login("wr0ng-password"))).await.unwrap_err();
    assert!(wrong.starts_with("535: the login was refused") && !wrong.contains("wr0ng"), "{wrong}");
    let gone = look(email(1, &to, "tls: none")).await.unwrap_err();
    assert!(gone.starts_with("127.0.0.1:1 cannot be reached: "), "{gone}");
    assert!(server.mails(&to).is_empty());
}

/// A server that says `lines`, one after each line it is sent, and then ends as told.
async fn scripted(lines: &'static [&'static str], hangs: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                for line in lines {
                    stream.write_all(line.as_bytes()).await?;
                    let mut heard = String::new();
                    stream.read_line(&mut heard).await?;
                }
                if hangs {
                    stream.read_line(&mut String::new()).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    port
}

#[tokio::test(start_paused = true)]
async fn servers_that_misbehave_cost_no_alert_and_no_slot_for_ever() {
    let ehlo = "250-x\r\n250 AUTH PLAIN\r\n";
    let cases: [(&'static [&'static str], bool, &str); 8] = [
        (&[], false, "cannot be reached"),
        (&["HTTP/1.1 400 Bad Request\r\n"], false, "cannot be reached"),
        (&["421 too busy\r\n"], false, "421: "),
        (&["220 x\r\n", "250 x\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n"], false, "cannot be reached"),
        (&["220 x\r\n", "250 x\r\n", "452 full\r\n"], false, "452: the sender was refused: full"),
        (
            &["220 x\r\n", "250 x\r\n", "250 ok\r\n", "250 ok\r\n", "500 what?\r\n"],
            false,
            "500: the mail was refused: what?",
        ),
        (&["220 x\r\n", "250 x\r\n", "250 ok\r\n"], true, "did not answer within 5s"),
        (&["220 x\r\n"], true, "did not answer within 5s"),
    ];
    for (lines, hangs, told) in cases {
        let port = scripted(lines, hangs).await;
        let site = Site::start(&[("mail", email(port, "a@example.com", "tls: none, timeout: 5"))]).await;
        site.alert("x", 50, &["mail"], false).await;
        let began = Instant::now();
        let rows = loop {
            let rows = site.rows().await;
            if rows[0].last_answer.is_some() {
                break rows;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{lines:?}");
            if hangs && began.elapsed() > Duration::from_millis(300) {
                site.advance(Duration::from_secs(6)).await;
            }
            site.advance(Duration::ZERO).await;
        };
        let answer = rows[0].last_answer.as_deref().unwrap();
        assert!(answer.contains(told), "{lines:?}: {answer}");
        // What is not dead is due, or already on its next way.
        assert_eq!(rows[0].state == "dead", told.starts_with('5'), "{lines:?}: {rows:#?}");
    }
    // A server that repeats what it was sent: base64 of NUL, name, NUL, password.
    let echo: &'static [&'static str] = Box::leak(Box::new([
        "220 x\r\n",
        ehlo,
        "535 no AHdhdGNocG9zdABzM2NyZXQtb2YtbWFpbA== s3cret-of-mail\r\n",
    ]));
    let port = scripted(echo, false).await;
    let site =
        Site::start(&[("mail", email(port, "a@example.com", &format!("tls: none, {}", login(PASSWORD))))])
            .await;
    site.alert("x", 50, &["mail"], false).await;
    let rows = site.until_all("dead").await;
    assert_eq!(rows[0].last_answer.as_deref(), Some("535: the login was refused: no *** ***"));
}

#[tokio::test(start_paused = true)]
async fn words_put_in_before_tls_are_not_taken_for_the_servers() {
    let injected = "220 go\r\n250 AUTH PLAIN\r\n";
    let lines: &'static [&'static str] =
        Box::leak(Box::new(["220 x\r\n", "250-x\r\n250 STARTTLS\r\n", injected]));
    let port = scripted(lines, false).await;
    let site = Site::start(&[("mail", email(port, "a@example.com", &login(PASSWORD)))]).await;
    site.alert("x", 50, &["mail"], false).await;
    let rows = site.until(|rows| rows[0].state == "due" && rows[0].attempts == 1).await;
    assert!(rows[0].last_answer.as_deref().unwrap().contains("more than it should before TLS"), "{rows:#?}");
}
