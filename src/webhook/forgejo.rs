//! Forgejo (and Gitea): an issue by `POST /api/v1/repos/{owner}/{repository}/issues`, its verdict later by `PATCH` of the
//! same (<https://forgejo.org/docs/latest/user/api-usage/>; each server shows its API at `/api/swagger`).
//!
//! What differs from clickdetect: values of the alert that Forgejo would obey are shown as text (`@name`, `#1`, images,
//! links behind another text, HTML); a title is one line of at most 255 characters. As in clickdetect the token is tried
//! at `GET /api/v1/user` before the first issue.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::facts::clip;
use super::words::{self, Words};
use super::{ComposeError, Meaning, Message, Outgoing, Probe, Webhook, commonmark, web};
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};
use crate::http::{Answer, Request};

section! {
    /// Opens an issue for each alert in a repository of Forgejo or Gitea.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// Where Forgejo answers, e.g. `https://codeberg.org`.
        pub url: Url,
        /// Who owns the repository, a user or an organisation.
        #[read(part)]
        pub owner: String,
        /// The repository's name.
        #[read(part)]
        pub repository: String,
        /// An access token with the scopes `read:user` and `write:issue`, e.g. `{env: FORGEJO_TOKEN}`.
        pub token: Secret,
        /// The issue's title, a Jinja template.
        #[read(web::template)]
        pub title: Option<String> = "alert: {{ rule.name }}",
        /// The issue's text, a Jinja template; the default is clickdetect's text.
        #[read(web::template)]
        pub template: Option<String>,
    }
    shared { pub exchange: web::Exchange }
}

/// A name as Forgejo allows it, which cannot lead to another path.
fn part(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let name = String::from_yaml(node, reader)?;
    let fits = !name.is_empty()
        && !["..", "."].contains(&name.as_str())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if fits {
        Some(name)
    } else {
        reader.refuse(node, "a name of Forgejo's: letters, digits, `-`, `_` and `.`")
    }
}

/// Opens issues.
pub struct Forgejo {
    endpoint: web::Endpoint,
    issues: String,
    title: Words,
    text: Words,
    is_known: AtomicBool,
}

impl Forgejo {
    /// Fails where a template is none.
    pub fn new(config: &Config) -> Result<Self, ComposeError> {
        let endpoint = web::Endpoint::new(&config.url, &config.exchange)
            .with_header("authorization", Secret::new(format!("token {}", config.token.reveal())));
        Ok(Self {
            endpoint,
            issues: format!("/api/v1/repos/{}/{}/issues", config.owner, config.repository),
            title: Words::new(config.title.as_deref(), commonmark::escape_title)?,
            text: Words::new(config.template.as_deref(), commonmark::escape)?,
            is_known: AtomicBool::new(false),
        })
    }
}

impl Webhook for Forgejo {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let title = self.title.of(message)?.replace(['\r', '\n'], " ");
        let text = self.text.of(message)?;
        let issue = json!({
            "title": clip(&title, MAX_TITLE),
            "body": words::within(&text, MAX_BODY_BYTES, char::len_utf8),
        });
        let request = match message.receipt {
            Some(number) if message.is_update => {
                let path = format!("{}/{}", self.issues, web::segment(number));
                self.endpoint.json("PATCH", &path, &issue)?
            }
            _ => self.endpoint.json("POST", &self.issues, &issue)?,
        };
        Ok(Outgoing::Http(request))
    }

    fn endpoint(&self) -> Option<&web::Endpoint> {
        Some(&self.endpoint)
    }

    fn preparation(&self) -> Option<Request> {
        if self.is_known.load(Ordering::Relaxed) {
            return None;
        }
        self.endpoint.request("GET", "/api/v1/user").ok()
    }

    fn prepared(&self, answer: &Answer) -> Result<(), String> {
        if web::is_page(answer) {
            return Err("what answers there is not Forgejo".into());
        }
        self.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn judge(&self, answer: &Answer) -> Meaning {
        web::judge(answer)
    }

    fn receipt(&self, answer: &Answer) -> Option<String> {
        web::told(answer, "/number")
    }

    /// The version, and the issues: whether the token sees them.
    fn probe(&self) -> Vec<Probe> {
        let issues = format!("{}?limit=1", self.issues);
        let requests = ["/api/v1/version", &issues].map(|path| self.endpoint.request("GET", path).ok());
        requests.into_iter().flatten().map(Probe::Http).collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        let [version, issues] = answers else { return Err("`url` makes no address".into()) };
        let version = web::told(version, "/version").ok_or("what answers there is not Forgejo")?;
        match issues.status {
            200 => Ok(format!("Forgejo {version}")),
            404 => Err(format!("Forgejo {version}: the token sees no such repository, or it has no issues")),
            status => Err(format!("Forgejo {version}: {status}: {}", web::words(issues))),
        }
    }
}

/// Characters, of the column in Forgejo's database.
const MAX_TITLE: usize = 255;
/// Forgejo has no limit of its own; proxies in front of it commonly stop at a megabyte.
const MAX_BODY_BYTES: usize = 900_000;

#[cfg(test)]
mod tests;
