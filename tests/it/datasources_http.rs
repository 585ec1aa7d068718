//! Datasources that speak HTTP, against servers that are strict about what they are sent: what every one of them must
//! survive. What is special of a kind is in a file of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use watchpost::clock::Window;
use watchpost::config::{FromYaml as _, Reader};
use watchpost::datasource::{Config, Datasource, Limits, QueryError, Rows};

use crate::fake::{Asked, Fake, Reply, data};

/// A datasource as `runner.yml` gives it.
pub(crate) fn build(yaml: &str) -> Arc<dyn Datasource> {
    let dir = std::path::Path::new("");
    let mut reader = Reader::new("runner.yml", yaml, dir, None);
    let config = reader.parse().and_then(|node| Config::from_yaml(&node, &mut reader));
    let config = config.unwrap_or_else(|| panic!("{:#?}", reader.into_diagnostics()));
    config.build(dir).unwrap()
}

/// What `check` says of a datasource that cannot be read.
pub(crate) fn problems(yaml: &str) -> String {
    let mut reader = Reader::new("runner.yml", yaml, std::path::Path::new(""), None);
    let node = reader.parse().unwrap();
    assert_eq!(Config::from_yaml(&node, &mut reader), None, "{yaml}");
    reader.into_diagnostics().iter().map(|problem| format!("{problem}\n")).collect()
}

/// Five minutes.
pub(crate) fn window() -> Window {
    Window::from_seconds(START_S, START_S + 300).unwrap()
}

pub(crate) const START_S: i64 = 1_795_342_500;

pub(crate) fn limits(time: Duration) -> Limits {
    Limits { time, rows: 1_000, bytes: 4 << 20 }
}

pub(crate) async fn ask(datasource: &dyn Datasource, query: &str) -> Result<Rows, QueryError> {
    datasource.query(query, window(), &limits(Duration::from_secs(60))).await
}

pub(crate) fn row(rows: &Rows, at: usize) -> Value {
    Value::from(rows.rows[at].clone())
}

/// `ana` with the password `s3cret`.
pub(crate) const BASIC: &str = "Basic YW5hOnMzY3JldA==";

struct Kind {
    name: &'static str,
    /// The datasource for a server at an address, as `ana` with a password, or with it as token.
    settings: fn(&str, &str) -> String,
    query: &'static str,
    /// What a healthy server with so many rows answers.
    answer: fn(&Asked, usize) -> Reply,
    /// Whether the answer to this holds rows.
    has_rows: fn(&Asked) -> bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "databricks",
        settings: |url, password| {
            format!("{{type: databricks, host: '{url}', path: /sql/1.0/warehouses/abc, token: {password}}}")
        },
        query: "SELECT n FROM events",
        answer: crate::databricks::answer,
        has_rows: |asked| asked.method == "GET",
    },
    Kind {
        name: "loki",
        settings: |url, password| {
            format!("{{type: loki, url: '{url}', username: ana, password: {password}}}")
        },
        query: "{app=\"sshd\"} |= \"Failed\"",
        answer: crate::loki::answer,
        has_rows: |_| true,
    },
    Kind {
        name: "opensearch-ppl",
        settings: |url, password| {
            format!("{{type: opensearch-ppl, url: '{url}/', username: ana, password: {password}}}")
        },
        query: "source=events | fields n",
        answer: |asked, rows| {
            assert_eq!(asked.line(), "POST /_plugins/_ppl");
            assert_eq!(asked.header("content-type"), Some("application/json"));
            assert_eq!(asked.json(), json!({"query": "source=events | fields n"}));
            let datarows: Vec<Value> = (0..rows).map(|n| json!([n])).collect();
            let schema = json!([{"name": "n", "type": "bigint"}]);
            Reply::json(200, &json!({"schema": schema, "datarows": datarows, "total": rows, "size": rows}))
        },
        has_rows: |_| true,
    },
    Kind {
        name: "victorialogs",
        settings: |url, password| {
            format!("{{type: victorialogs, url: '{url}', username: ana, password: {password}}}")
        },
        query: "\"Failed password\" | fields n",
        answer: crate::victorialogs::answer,
        has_rows: |_| true,
    },
];

impl Kind {
    fn at(&self, url: &str) -> Arc<dyn Datasource> {
        build(&(self.settings)(url, "s3cret"))
    }

    /// A healthy server with three rows, which keeps `ana` and her password, or the token, apart from others.
    fn three(&self) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
        let answer = self.answer;
        move |asked| match asked.header("authorization") {
            Some(BASIC | "Bearer s3cret") => answer(asked, 3),
            _ => Reply::text(401, "who are you?"),
        }
    }

    /// A server whose answer with rows is changed.
    fn with(&self, rows: usize, change: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Fake {
        let (answer, has_rows) = (self.answer, self.has_rows);
        Fake::start(move |asked| {
            let reply = answer(asked, rows);
            if has_rows(asked) { change(reply) } else { reply }
        })
    }

    async fn ask(&self, fake: &Fake) -> Result<Rows, QueryError> {
        ask(self.at(&fake.url()).as_ref(), self.query).await
    }
}

fn no_secret(kind: &Kind, error: &QueryError) {
    let text = format!("{error} {error:?}");
    assert!(!text.contains("s3cret") && !text.contains("YW5hOnMzY3JldA"), "{}: {text}", kind.name);
}

#[tokio::test]
async fn rows_come_and_none_are_no_error() {
    for kind in &KINDS {
        let fake = Fake::start(kind.three());
        let rows = kind.ask(&fake).await.unwrap();
        assert_eq!((rows.count, rows.rows.len(), rows.cut), (3, 3, None), "{}", kind.name);
        let fake = kind.with(0, |reply| reply);
        assert_eq!(kind.ask(&fake).await.unwrap(), Rows::default(), "{}", kind.name);
    }
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_in_no_message() {
    for kind in &KINDS {
        let fake = Fake::start(kind.three());
        let error =
            ask(build(&(kind.settings)(&fake.url(), "wr0ng")).as_ref(), kind.query).await.unwrap_err();
        assert!(
            matches!(&error, QueryError::Denied(text) if text == "HTTP 401: who are you?"),
            "{}: {error:?}",
            kind.name
        );
        assert!(!format!("{error:?}").contains("wr0ng"));
        no_secret(kind, &error);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_not_available() {
    for kind in &KINDS {
        for url in ["http://127.0.0.1:1", "http://no-such-host.invalid"] {
            let error = ask(kind.at(url).as_ref(), kind.query).await.unwrap_err();
            assert!(matches!(error, QueryError::Unavailable(_)), "{}: {error:?}", kind.name);
            no_secret(kind, &error);
        }
    }
}

#[tokio::test]
async fn a_certificate_is_believed_where_its_authority_is_known() {
    for kind in &KINDS {
        let fake = Fake::start_tls("signed", kind.three());
        let ca = data("tls/authority.pem");
        let with =
            |more: &str| (kind.settings)(&fake.url(), "s3cret").replacen('}', &format!(", {more}}}"), 1);
        let error = ask(kind.at(&fake.url()).as_ref(), kind.query).await.unwrap_err();
        assert!(
            matches!(&error, QueryError::Unavailable(text) if text.contains("certificate")),
            "{}: {error:?}",
            kind.name
        );
        no_secret(kind, &error);
        assert_eq!(fake.asked().len(), 0, "{}: nothing is sent to a stranger", kind.name);
        for trusting in [format!("ca: '{}'", ca.display()), "verify: false".to_owned()] {
            assert_eq!(
                ask(build(&with(&trusting)).as_ref(), kind.query).await.unwrap().count,
                3,
                "{}",
                kind.name
            );
        }
    }
}

#[tokio::test]
async fn a_query_ends_when_its_time_is_up_and_the_connection_is_closed() {
    for kind in &KINDS {
        for fake in [kind.with(100, |_| Reply::hang()), kind.with(100, |reply| reply.hang_after(50))] {
            let began = Instant::now();
            let limit = Duration::from_secs(1);
            let error = kind.at(&fake.url()).query(kind.query, window(), &limits(limit)).await.unwrap_err();
            assert!(
                matches!(&error, QueryError::TimedOut { limit: told } if *told == limit),
                "{}: {error:?}",
                kind.name
            );
            assert!(began.elapsed() < Duration::from_secs(20), "{}", kind.name);
            has_left(&fake).await;
        }
    }
}

#[tokio::test]
async fn a_query_that_is_dropped_closes_its_connection() {
    for kind in &KINDS {
        let fake = kind.with(100, |_| Reply::hang());
        let datasource = kind.at(&fake.url());
        let limit = limits(Duration::from_secs(60));
        let query = datasource.query(kind.query, window(), &limit);
        let is_asked = async {
            while !fake.asked().iter().any(kind.has_rows) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = query => panic!("{}: {ended:?}", kind.name),
            () = is_asked => {}
        }
        has_left(&fake).await;
    }
}

async fn has_left(fake: &Fake) {
    for _ in 0..1_000 {
        if fake.left() > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the client still waits");
}

#[tokio::test]
async fn an_answer_that_breaks_off_gives_no_rows() {
    for kind in &KINDS {
        let error = kind.ask(&kind.with(3, |_| Reply::cut())).await.unwrap_err();
        assert!(matches!(error, QueryError::Unavailable(_)), "{}: {error:?}", kind.name);
        for part in [0.0, 0.3, 0.7, 0.99] {
            let fake = kind.with(200, move |reply| {
                let bytes = (reply.len() as f64 * part) as usize;
                reply.cut_after(bytes)
            });
            let error = kind.ask(&fake).await.unwrap_err();
            assert!(
                matches!(&error, QueryError::Unreadable(text) if text.starts_with("it broke off: ")),
                "{} {part}: {error:?}",
                kind.name
            );
            no_secret(kind, &error);
        }
    }
}

#[tokio::test]
async fn a_server_in_trouble_is_not_available_and_says_why() {
    for kind in &KINDS {
        for status in [429, 500, 502, 503] {
            let fake = kind.with(3, move |_| Reply::text(status, "out of disk").header("retry-after", "1"));
            let error = kind.ask(&fake).await.unwrap_err();
            let told = format!("HTTP {status}: out of disk");
            assert!(
                matches!(&error, QueryError::Unavailable(text) if *text == told),
                "{}: {error:?}",
                kind.name
            );
            no_secret(kind, &error);
        }
    }
}

#[tokio::test]
async fn rubbish_with_status_200_cannot_be_read() {
    let texts =
        ["<html><body>Sign in</body></html>", "{\"ok\": tru", "[1, 2]", "null", "ready", "\u{0}\u{1}"];
    for kind in &KINDS {
        for text in texts {
            let error = kind.ask(&kind.with(3, move |_| Reply::text(200, text))).await.unwrap_err();
            assert!(matches!(error, QueryError::Unreadable(_)), "{} {text}: {error:?}", kind.name);
        }
        let fake = kind.with(3, |_| Reply::new(200, "application/octet-stream", [0xff, 0xfe, b'\n', 0x80]));
        assert!(matches!(kind.ask(&fake).await, Err(QueryError::Unreadable(_))), "{}", kind.name);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_says_where_it_leads() {
    for kind in &KINDS {
        let fake = kind.with(3, |_| Reply::text(302, "").header("location", "https://sso.example/login"));
        let error = kind.ask(&fake).await.unwrap_err();
        assert!(
            matches!(&error, QueryError::Unavailable(text) if text.contains("`https://sso.example/login`")),
            "{}: {error:?}",
            kind.name
        );
    }
}

#[tokio::test]
async fn of_100_000_rows_all_are_counted_and_some_kept() {
    for kind in &KINDS {
        let fake = kind.with(100_000, |reply| reply);
        let rows = kind.ask(&fake).await.unwrap();
        assert_eq!((rows.count, rows.rows.len()), (100_000, 1_000), "{}", kind.name);
        let cut = rows.cut.unwrap();
        assert!(cut.starts_with("kept 1000 of 100000 rows (max_rows)"), "{}: {cut}", kind.name);
    }
}

#[tokio::test]
async fn templates_see_the_settings_that_clickdetect_shows_and_no_secret() {
    let told = KINDS.map(|kind| Value::from(kind.at("https://a.example/x").settings().clone()));
    assert_eq!(
        told,
        [
            json!({"type": "databricks", "host": "https://a.example/x", "path": "/sql/1.0/warehouses/abc",
                "catalog": null}),
            json!({"type": "loki", "url": "https://a.example/x", "verify": true, "org_id": "fake"}),
            json!({"type": "opensearch-ppl", "url": "https://a.example/x/", "verify": true}),
            json!({"type": "victorialogs", "url": "https://a.example/x", "verify": true, "account_id": "0",
                "project_id": "0"}),
        ]
    );
    let hidden = build("{type: loki, url: 'https://ana:s3cret@a.example/x?key=s3cret'}");
    assert_eq!(hidden.settings()["url"], "https://a.example/x");
}

#[tokio::test]
async fn a_ca_that_is_not_there_is_said_before_any_query() {
    for kind in &KINDS {
        let yaml = (kind.settings)("https://a.example", "s3cret").replacen('}', ", ca: /no/such.pem}", 1);
        let mut reader = Reader::new("runner.yml", &yaml, std::path::Path::new(""), None);
        let node = reader.parse().unwrap();
        let built = Config::from_yaml(&node, &mut reader).unwrap().build(std::path::Path::new(""));
        let error = built.err().unwrap().to_string();
        assert!(error.contains("`ca`: cannot read `/no/such.pem`") && !error.contains("s3cret"), "{error}");
    }
}

/// The fields of a form, as the server reads them.
pub(crate) fn form(asked: &Asked) -> Map<String, Value> {
    let text = std::str::from_utf8(&asked.body).unwrap();
    let url = reqwest::Url::parse(&format!("http://form/?{text}")).unwrap();
    url.query_pairs().map(|(name, value)| (name.into_owned(), Value::from(value.into_owned()))).collect()
}
