//! A Discord channel, through a webhook (<https://discord.com/developers/docs/resources/webhook#execute-webhook>).
//!
//! The body is clickdetect's: `content`, and `username` and `avatar_url` where they are set. What differs:
//! - A text over 2,000 characters is cut with a notice; clickdetect drops the alert.
//! - Mentions (`@everyone`, `@here`, `<@1>`) and links under another name (`[text](http://evil)`) in values get a mark
//!   without width, so that a log line pings nobody. The field `allowed_mentions` would take the operator's own mention
//!   in a template too, and would be in every message.
//! - Where the rows hold a link, `flags` is 4 (no embeds): Discord would fetch and show what a log line points to.
//! - Where triage may add something later, the request ends in `wait=true`: the answer then has the message's id, and
//!   what triage adds changes that message.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::template::plain;
use super::web::{self, Endpoint};
use super::words::{self, Words};
use super::{ComposeError, Meaning, Message, Outgoing, Probe, Webhook};
use crate::config::{Url, section};
use crate::http::Answer;
use crate::text;

section! {
    /// Posts each alert to a Discord channel, through a webhook, and changes the message when triage adds something.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// The webhook, e.g. `https://discord.com/api/webhooks/1234/XXXX`, with `?thread_id=5678` for a thread of its
        /// channel. Whoever knows it may post: its path is never shown.
        #[read(web::secret_url)]
        pub url: Url,
        /// The name that messages show, e.g. `SOC`; empty is the webhook's own.
        pub username: String = "",
        /// The address of the picture that messages show; empty is the webhook's own.
        pub avatar: String = "",
        /// The text, a Jinja template in Discord's Markdown, e.g. `**{{ rule.name }}**`; the default is clickdetect's text.
        #[read(web::template)]
        pub template: Option<String>,
    }
    shared { pub exchange: web::Exchange }
}

/// Posts to one webhook.
pub struct Discord {
    endpoint: Endpoint,
    words: Words,
    /// Whether the template itself mentions somebody, or links.
    mentions: bool,
    username: String,
    avatar: String,
}

impl Discord {
    /// Fails where `template` is no template.
    pub fn new(config: &Config) -> Result<Self, ComposeError> {
        let template = config.template.as_deref();
        Ok(Self {
            endpoint: Endpoint::new(&config.url, &config.exchange),
            words: Words::new(template, escape)?,
            mentions: template.is_some_and(|template| place(template).is_some()),
            username: config.username.clone(),
            avatar: config.avatar.clone(),
        })
    }

    fn text(&self, message: &Message<'_>) -> Result<String, ComposeError> {
        let text = self.words.standing(message)?;
        // `{{ user }}@{{ host }}` can make a mention of two values of which neither is one.
        let text = if self.mentions { text } else { words::broken(text.into(), place).into_owned() };
        Ok(words::within(&text, MAX_CHARACTERS, |_| 1))
    }
}

impl Webhook for Discord {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let mut body = json!({ "content": self.text(message)? });
        if words::holds_link(message) {
            body["flags"] = SUPPRESS_EMBEDS.into();
        }
        if let Some(id) = message.receipt {
            let path = format!("/messages/{}", web::segment(id));
            return Ok(Outgoing::Http(self.endpoint.json("PATCH", &path, &body)?));
        }
        for (field, value) in [("username", &self.username), ("avatar_url", &self.avatar)] {
            if !value.is_empty() {
                body[field] = value.as_str().into();
            }
        }
        let path = if words::is_early(message) { "?wait=true" } else { "" };
        Ok(Outgoing::Http(self.endpoint.json("POST", path, &body)?))
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    /// Discord limits each webhook to some messages in some seconds, and people read them in order.
    fn slots(&self) -> usize {
        1
    }

    /// <https://discord.com/developers/docs/topics/rate-limits#exceeding-a-rate-limit>: the body says more exactly than
    /// the header how long to wait.
    fn judge(&self, answer: &Answer) -> Meaning {
        match web::judge(answer) {
            Meaning::Later { .. } => {
                let limited: Option<Limited> = serde_json::from_slice(&answer.body).ok();
                let after = limited.and_then(|limited| Duration::try_from_secs_f64(limited.retry_after).ok());
                Meaning::Later { after }
            }
            meaning => meaning,
        }
    }

    /// The id of the message, where the answer has one.
    fn receipt(&self, answer: &Answer) -> Option<String> {
        let posted: Posted = serde_json::from_slice(&answer.body).ok()?;
        let is_id =
            (1..=20).contains(&posted.id.len()) && posted.id.bytes().all(|byte| byte.is_ascii_digit());
        is_id.then_some(posted.id)
    }

    /// <https://discord.com/developers/docs/resources/webhook#get-webhook-with-token>
    fn probe(&self) -> Vec<Probe> {
        self.endpoint.request("GET", "").map(Probe::Http).into_iter().collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        let answer = answers.first().ok_or("nothing was asked")?;
        match answer.status {
            200 => {
                let webhook: Option<Description> = serde_json::from_slice(&answer.body).ok();
                let name = webhook.and_then(|webhook| webhook.name);
                let name = name.ok_or("answers HTTP 200, but not as a Discord webhook does")?;
                Ok(format!("Discord webhook `{}`", text::escape_within(&name, 80)))
            }
            401 | 404 => {
                Err("Discord knows no such webhook: make one in the channel's settings and set `url`".into())
            }
            status => Err(format!("answers HTTP {status}")),
        }
    }
}

#[derive(Deserialize)]
struct Limited {
    /// Seconds.
    retry_after: f64,
}

#[derive(Deserialize)]
struct Posted {
    id: String,
}

#[derive(Deserialize)]
struct Description {
    name: Option<String>,
}

fn escape(value: &str) -> Cow<'_, str> {
    words::broken(plain(value), place)
}

/// Where a mark takes the meaning from the first mention, or link under another name, of `text`
/// (<https://discord.com/developers/docs/reference#message-formatting>).
fn place(text: &str) -> Option<usize> {
    text.char_indices().find_map(|(at, character)| {
        let rest = &text[at + character.len_utf8()..];
        let begins =
            |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let acts = match character {
            '@' => begins("everyone") || begins("here"),
            '<' => begins("@"),
            ']' => begins("("),
            _ => false,
        };
        acts.then_some(at + character.len_utf8())
    })
}

const MAX_CHARACTERS: usize = 2_000;
/// <https://discord.com/developers/docs/resources/message#message-object-message-flags>
const SUPPRESS_EMBEDS: u8 = 1 << 2;

#[cfg(test)]
mod tests {
    use super::super::recorded::{self, Case, config};
    use super::*;
    use crate::http::Request;
    use crate::triage::Triage;

    const URL: &str = "https://discord.com/api/webhooks/1/s3cret1?thread_id=7";

    fn discord(settings: &str) -> Discord {
        Discord::new(&config(&format!("{{url: '{URL}'{settings}}}"))).unwrap()
    }

    fn content(request: &Request) -> String {
        recorded::body(request)["content"].as_str().unwrap().to_owned()
    }

    #[test]
    fn requests_are_clickdetects_and_what_it_drops_is_cut() {
        let one = |yaml: &str| Box::new(Discord::new(&config(yaml)).unwrap()) as Box<dyn Webhook>;
        recorded::compare("discord", one, &[("discord", "long")]);
        let cut = content(&Case::recorded("long").compose(&discord("")));
        assert_eq!(cut.chars().count(), 2_000);
        assert!(
            cut.starts_with("\n[ALERT] Many rows\n") && cut.ends_with("(cut: see `watchpost alerts`)"),
            "{cut}"
        );
    }

    #[test]
    fn what_a_log_says_mentions_nobody_and_the_operator_does() {
        let hostile = "@everyone @Here <@1> <@&2> a@b.example [bank](http://evil.example) @hers";
        let discord = discord(", template: '@here {{ data.value[0].user }} {{ data.value }}'");
        let content = content(&Case::with_user(hostile).compose(&discord)).replace('\u{200b}', "|");
        insta::assert_snapshot!(content, @"@here @|everyone @|Here <|@1> <|@&2> a@b.example [bank]|(http://evil.example) @hers [{'user': '@|everyone @|Here <|@1> <|@&2> a@b.example [bank]|(http://evil.example) @hers'}]");
    }

    #[test]
    fn two_values_make_no_mention() {
        let discord = discord(", template: 'x@{{ data.value[0].user }}'");
        assert_eq!(content(&Case::with_user("everyone").compose(&discord)), "x@\u{200b}everyone");
    }

    #[test]
    fn embeds_are_off_only_where_the_rows_hold_a_link() {
        let body = |user: &str| recorded::body(&Case::with_user(user).compose(&discord("")));
        assert_eq!(body("http://evil.example/a.png")["flags"], 4);
        assert_eq!(body("root").get("flags"), None);
    }

    #[test]
    fn what_triage_adds_changes_the_message() {
        let discord = discord(", username: SOC");
        let early = Case { triage: Triage::Pending, ..Case::new() }.compose(&discord);
        assert_eq!(
            (early.method, early.to.url.as_str()),
            ("POST", "https://discord.com/api/webhooks/1/s3cret1?thread_id=7&wait=true")
        );
        let answer = recorded::answer(200, r#"{"id": "112233445566778899", "content": "..."}"#);
        let receipt = discord.receipt(&answer).unwrap();
        let late = Case { is_update: true, triage: recorded::done(), receipt: Some(receipt), ..Case::new() };
        let request = late.compose(&discord);
        assert_eq!(request.method, "PATCH");
        assert_eq!(
            request.to.url.as_str(),
            "https://discord.com/api/webhooks/1/s3cret1/messages/112233445566778899?thread_id=7"
        );
        let body = recorded::body(&request);
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        assert!(body["content"].as_str().unwrap().contains("Title: Login loop against root"));
        let alone = Case { receipt: None, ..late }.compose(&discord);
        assert!(content(&alone).starts_with("[UPDATE] What triage says of the alert `SSH login loop`"));
        for rubbish in ["", "{}", r#"{"id": 5}"#, r#"{"id": "../x"}"#] {
            assert_eq!(discord.receipt(&recorded::answer(200, rubbish)), None, "{rubbish}");
        }
    }

    #[test]
    fn the_wait_is_what_the_body_asks_for() {
        let judge = |status, body: &str| discord("").judge(&recorded::answer(status, body));
        let limited = r#"{"message": "You are being rate limited.", "retry_after": 1.337, "global": false}"#;
        assert_eq!(judge(429, limited), Meaning::Later { after: Some(Duration::from_millis(1337)) });
        for rubbish in
            ["", "<html>", r#"{"retry_after": -1}"#, r#"{"retry_after": 1e99}"#, r#"{"retry_after": "x"}"#]
        {
            assert_eq!(judge(429, rubbish), Meaning::Later { after: None }, "{rubbish}");
        }
        assert_eq!(judge(204, ""), Meaning::Delivered);
        assert_eq!(judge(200, "<html><body>Sign in"), Meaning::Later { after: None });
        assert_eq!(judge(404, r#"{"message": "Unknown Webhook", "code": 10015}"#), Meaning::Refused);
    }

    #[test]
    fn a_probe_says_which_webhook_answers() {
        let discord = discord("");
        let probed = |status, body| discord.probed(&[recorded::answer(status, body)]);
        assert_eq!(recorded::probe(&discord), format!("GET {URL}"));
        assert_eq!(
            probed(200, r#"{"id": "1", "name": "SOC \u001b[31m"}"#).unwrap(),
            r"Discord webhook `SOC \u{1b}[31m`"
        );
        assert!(probed(200, "hello").is_err());
        assert!(probed(404, "{}").unwrap_err().contains("no such webhook"));
    }
}
