//! A channel of Microsoft Teams, through a webhook.
//!
//! To a connector's address goes clickdetect's MessageCard, field for field
//! (<https://learn.microsoft.com/outlook/actionable-messages/message-card-reference>). Connectors are retired; to the
//! address of a Power Automate workflow, which takes no MessageCards, goes an Adaptive Card with the same facts
//! (<https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook>).
//! What differs besides:
//! - A card is built as data: quotes, backslashes and line breaks in a rule never make it invalid, as they do clickdetect's.
//! - Cards are Markdown: links under another name (`[text](http://evil)`), images and HTML in values get a mark without
//!   width, so that a log line cannot show them.
//! - Teams takes 28 KB: results that are longer are cut, with a notice.
//!
//! A webhook cannot change what it posted: what triage adds later is a second card, which says what it belongs to.

mod card;

use std::borrow::Cow;

use self::card::Card;
use super::template::{Style, Template, plain};
use super::web::{self, Endpoint};
use super::{ComposeError, Meaning, Message, Outgoing, Probe, Webhook, payload, words};
use crate::config::{Url, section, words};
use crate::http::Answer;

section! {
    /// Posts each alert to a channel of Microsoft Teams, as a card.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// The workflow's or connector's address. Whoever knows it may post: its path is never shown.
        #[read(web::secret_url)]
        pub url: Url,
        /// `adaptive_card` (what workflows take), `message_card` (what connectors took), or `auto`: an Adaptive Card where
        /// `url` is a workflow of Power Automate, else a MessageCard. Not used with a `template`.
        pub format: Format = "auto",
        /// The whole body, a Jinja template, e.g. `{"text": {{ rule.name | tojson }}}`, sent as it renders.
        #[read(web::template)]
        pub template: Option<String>,
    }
    shared { pub exchange: web::Exchange }
}

words! {
    /// What `format` says.
    pub enum Format: "a format" {
        Auto = "auto",
        AdaptiveCard = "adaptive_card",
        MessageCard = "message_card",
    }
}

/// Posts to one workflow or connector.
pub struct Teams {
    endpoint: Endpoint,
    body: Body,
}

enum Body {
    Card(Card),
    /// Boxed, since it is much the larger.
    Template(Box<Template>),
}

impl Teams {
    /// Fails where `template` is no template.
    pub fn new(config: &Config) -> Result<Self, ComposeError> {
        let body = match (&config.template, config.format) {
            (Some(source), _) => {
                let template = Template::new(source, Style::Json(without_links)).map_err(ComposeError)?;
                Body::Template(Box::new(template))
            }
            (None, Format::AdaptiveCard) => Body::Card(Card::Adaptive),
            (None, Format::MessageCard) => Body::Card(Card::Message),
            (None, Format::Auto) if is_workflow(&config.url) => Body::Card(Card::Adaptive),
            (None, Format::Auto) => Body::Card(Card::Message),
        };
        let endpoint = Endpoint::new(&config.url, &config.exchange);
        Ok(Self { endpoint, body })
    }
}

impl Webhook for Teams {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let request = match &self.body {
            Body::Card(card) => self.endpoint.json("POST", "", &card.of(message)),
            Body::Template(template) => {
                let body = template.render(&payload::variables(message)).map_err(ComposeError)?;
                self.endpoint.with_body("POST", "", body)
            }
        };
        request.map(Outgoing::Http)
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    /// Teams takes four messages a second for each webhook, and people read them in order.
    fn slots(&self) -> usize {
        1
    }

    /// A connector answers 200 and says in the body what Teams itself answered it.
    fn judge(&self, answer: &Answer) -> Meaning {
        let body = String::from_utf8_lossy(&answer.body);
        match web::judge(answer) {
            Meaning::Delivered if body.contains("delivery failed") => {
                let code =
                    body.split_once("HTTP error ").map(|(_, rest)| rest.chars().take(3).collect::<String>());
                match code.and_then(|code| code.parse().ok()).map(Meaning::of_status) {
                    Some(Meaning::Refused) => Meaning::Refused,
                    _ => Meaning::Later { after: None },
                }
            }
            meaning => meaning,
        }
    }

    /// Any answer will do: there is no request that posts nothing.
    fn probe(&self) -> Vec<Probe> {
        self.endpoint.request("HEAD", "").map(Probe::Http).into_iter().collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status.to_string()).collect();
        Ok(format!("answers HTTP {}", statuses.join(", ")))
    }
}

/// Whether Power Automate or Logic Apps take what is posted there, in any of Microsoft's clouds.
fn is_workflow(url: &Url) -> bool {
    let host =
        reqwest::Url::parse(url.as_str()).ok().and_then(|url| url.host_str().map(str::to_ascii_lowercase));
    host.is_some_and(|host| WORKFLOWS.iter().any(|domain| host.ends_with(domain)))
}

const WORKFLOWS: [&str; 7] = [
    ".logic.azure.com",
    ".logic.azure.us",
    ".logic.azure.cn",
    ".powerplatform.com",
    ".powerplatform.microsoft.us",
    ".powerplatform.partner.microsoftonline.cn",
    ".flow.microsoft.com",
];

/// A value in a card.
fn escape(value: &str) -> Cow<'_, str> {
    match plain(value) {
        Cow::Borrowed(value) => without_links(value),
        Cow::Owned(value) => without_links(&value).into_owned().into(),
    }
}

/// Inside of JSON's quotes nothing changes its meaning, and outside of them none of this occurs.
fn without_links(value: &str) -> Cow<'_, str> {
    words::broken(value.into(), |text| {
        text.char_indices().find_map(|(at, character)| {
            let next = text[at + character.len_utf8()..].chars().next();
            let acts = match character {
                ']' => next == Some('('),
                '<' => next.is_some_and(|next| next.is_ascii_alphabetic() || ['/', '!'].contains(&next)),
                _ => false,
            };
            acts.then_some(at + 1)
        })
    })
}

#[cfg(test)]
mod tests;
