use super::super::recorded::{Case, answer, body, compare, config, done, refused};
use super::*;

fn forgejo(more: &str) -> Forgejo {
    let settings = format!(
        "{{url: https://forge.example/, owner: soc, repository: al.erts, token: t0ken-of-ours, {more}}}"
    );
    Forgejo::new(&config(&settings)).unwrap()
}

#[test]
fn an_issue_is_clickdetects_to_the_letter() {
    compare("forgejo", |yaml| Box::new(Forgejo::new(&config(yaml)).unwrap()), &[]);
}

#[test]
fn the_token_is_tried_once_before_the_first_issue() {
    let forgejo = forgejo("");
    let asked = forgejo.preparation().unwrap();
    assert_eq!((asked.method, asked.to.url.as_str()), ("GET", "https://forge.example/api/v1/user"));
    let headers: Vec<_> = asked.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
    assert_eq!(headers, [("authorization", "token t0ken-of-ours")]);
    assert!(forgejo.prepared(&answer(200, "<html>log in")).is_err());
    assert!(forgejo.preparation().is_some());
    forgejo.prepared(&answer(200, r#"{"id":1,"login":"watchpost"}"#)).unwrap();
    assert!(forgejo.preparation().is_none());
}

#[test]
fn a_later_verdict_changes_the_issue() {
    let forgejo = forgejo("");
    let created = answer(201, r#"{"id":99,"number":17,"title":"alert: SSH login loop"}"#);
    assert_eq!(forgejo.judge(&created), Meaning::Delivered);
    let mut case = Case::new();
    case.receipt = forgejo.receipt(&created);
    case.triage = done();
    case.is_update = true;
    let update = case.compose(&forgejo);
    assert_eq!(
        (update.method, update.to.url.as_str()),
        ("PATCH", "https://forge.example/api/v1/repos/soc/al.erts/issues/17")
    );
    assert!(body(&update)["body"].as_str().unwrap().contains("Title: Login loop against root\n"));
    case.receipt = None;
    let alone = case.compose(&forgejo);
    assert_eq!(
        (alone.method, alone.to.url.as_str()),
        ("POST", "https://forge.example/api/v1/repos/soc/al.erts/issues")
    );
}

#[test]
fn log_text_mentions_nobody_closes_nothing_and_loads_nothing() {
    let hostile = "@admin fixes #1 ![x](http://evil.example/p.png) <img src=x>\r\n```";
    let forgejo = forgejo("title: '{{ data.value[0].user }}', template: '{{ data.value[0].user }}'");
    let sent = body(&Case::with_user(hostile).compose(&forgejo));
    assert_eq!(
        sent["body"],
        "@\u{200b}admin fixes #\u{200b}1 ![x]\\(http://evil.example/p.png) \\<img src=x>\r\n\\```"
    );
    assert_eq!(
        sent["title"],
        "@\u{200b}admin fixes #\u{200b}1 ![x](http://evil.example/p.png) <img src=x>  ```"
    );
}

#[test]
fn title_and_text_stay_within_their_limits() {
    let forgejo = forgejo("title: '{{ data.value[0].user }}'");
    let sent = body(&Case::with_user(&"ä".repeat(1_000_000)).compose(&forgejo));
    assert_eq!(sent["title"].as_str().unwrap().chars().count(), 255);
    let text = sent["body"].as_str().unwrap();
    assert!(text.len() <= 900_000 && text.ends_with("(cut: see `watchpost alerts`)"), "{}", text.len());
}

#[test]
fn owner_and_repository_are_names() {
    let problems = refused::<Config>("{url: https://f.example, owner: a/b, repository: .., token: t}");
    assert_eq!(
        problems,
        "owner: `a/b` is not a name of Forgejo's: letters, digits, `-`, `_` and `.`\n\
         repository: `..` is not a name of Forgejo's: letters, digits, `-`, `_` and `.`"
    );
}

#[test]
fn a_probe_says_the_version_and_whether_the_repository_is_seen() {
    let forgejo = forgejo("");
    let version = answer(200, r#"{"version":"12.0.1+gitea-1.22.0"}"#);
    let probed = |issues| forgejo.probed(&[version.clone(), issues]);
    assert_eq!(probed(answer(200, "[]")).unwrap(), "Forgejo 12.0.1+gitea-1.22.0");
    assert!(probed(answer(404, "{}")).unwrap_err().contains("no such repository"));
    assert!(probed(answer(403, "scope")).unwrap_err().ends_with("403: scope"));
    assert!(forgejo.probed(&[answer(200, "{}"), answer(200, "[]")]).is_err());
}
