//! A Telegram chat, through a bot (<https://core.telegram.org/bots/api#sendmessage>).
//!
//! The body is clickdetect's, `{"chat_id": ..., "text": ...}`, in plain text: without a `parse_mode` no log line can be
//! markup. What differs:
//! - A text over 4,096 characters, as Telegram counts them (UTF-16), is cut with a notice; Telegram refuses longer ones.
//! - Where the rows hold what Telegram may take for a link, `link_preview_options` turns previews off: it would fetch and
//!   show what a log line points to.
//! - `url` can be another Bot API server.
//!
//! What triage adds later changes the message. A group that became a supergroup has another id: it is learned from
//! Telegram's answer, until the next start.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tracing::warn;

use super::template::plain;
use super::web::{self, Endpoint};
use super::words::{self, Words};
use super::{ComposeError, Meaning, Message, Outgoing, Probe, Webhook};
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};
use crate::http::{Answer, Request};
use crate::text;

section! {
    /// Sends each alert to a Telegram chat, through a bot, and changes the message when triage adds something.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// The bot's token, from @BotFather, e.g. `{env: TELEGRAM_TOKEN}`.
        #[read(token)]
        pub token: Secret,
        /// The chat: the number of a user, a group or a channel (those of groups and channels are negative), or the
        /// `@name` of a public channel.
        pub chat_id: String,
        /// The Bot API server, for those who run their own.
        pub url: Url = "https://api.telegram.org",
        /// The text, a Jinja template, e.g. `{{ rule.name }}: {{ data.len }}`; the default is clickdetect's text.
        #[read(web::template)]
        pub template: Option<String>,
    }
    shared { pub exchange: web::Exchange }
}

/// A token is one segment of a path.
fn token(node: &Node, reader: &mut Reader<'_>) -> Option<Secret> {
    let token = Secret::from_yaml(node, reader)?;
    let text = token.reveal();
    let fits =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_".contains(&byte));
    if !fits {
        reader.error(node.at, "not a bot's token: it looks like `123456:ABC-DEF`, see @BotFather");
    }
    fits.then_some(token)
}

/// One bot in one chat.
pub struct Telegram {
    endpoint: Endpoint,
    token: Secret,
    chat_id: String,
    /// Where the chat moved to.
    moved: Mutex<Option<String>>,
    words: Words,
}

impl Telegram {
    /// Fails where `template` is no template.
    pub fn new(config: &Config) -> Result<Self, ComposeError> {
        Ok(Self {
            endpoint: Endpoint::new(&config.url, &config.exchange),
            token: config.token.clone(),
            chat_id: config.chat_id.clone(),
            moved: Mutex::default(),
            words: Words::new(config.template.as_deref(), plain)?,
        })
    }

    /// The token is a part of every path, so that no path is shown.
    fn call(&self, method: &str, body: Option<&serde_json::Value>) -> Result<Request, ComposeError> {
        let path = format!("/bot{}/{method}", self.token.reveal());
        let mut request = match body {
            Some(body) => self.endpoint.json("POST", &path, body)?,
            None => self.endpoint.request("GET", &path)?,
        };
        request.to.url = request.to.url.with_secret_path();
        Ok(request)
    }

    fn moved_to(&self) -> Option<String> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Webhook for Telegram {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let moved = self.moved_to();
        // A message that stayed behind in the old group cannot be changed.
        let known = message.receipt.and_then(|receipt| receipt.split_once('/'));
        let known = known.filter(|(chat, _)| moved.as_deref().is_none_or(|moved| moved == *chat));
        let message = &Message { receipt: message.receipt.filter(|_| known.is_some()), ..*message };
        let text = words::within(&self.words.standing(message)?, MAX_UNITS, char::len_utf16);
        let (method, mut body) = match known.and_then(|(chat, id)| Some((chat, id.parse::<i64>().ok()?))) {
            Some((chat, id)) => {
                ("editMessageText", json!({ "chat_id": chat, "message_id": id, "text": text }))
            }
            None => {
                let chat = moved.as_deref().unwrap_or(&self.chat_id);
                ("sendMessage", json!({ "chat_id": chat, "text": text }))
            }
        };
        if may_link(message) {
            body["link_preview_options"] = json!({ "is_disabled": true });
        }
        Ok(Outgoing::Http(self.call(method, Some(&body))?))
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    /// Telegram takes a message a second for each chat, and people read them in order.
    fn slots(&self) -> usize {
        1
    }

    /// The body says what an answer means, whatever its status is
    /// (<https://core.telegram.org/bots/api#making-requests>).
    fn judge(&self, answer: &Answer) -> Meaning {
        let Ok(reply) = serde_json::from_slice::<Reply>(&answer.body) else {
            return match Meaning::of_status(answer.status) {
                // Not the Bot API: whether it took the message is not known.
                Meaning::Delivered => Meaning::Later { after: None },
                meaning => meaning,
            };
        };
        if reply.ok {
            return Meaning::Delivered;
        }
        if let Some(chat) = reply.parameters.migrate_to_chat_id {
            let chat = chat.to_string();
            warn!(chat_id = chat, "the Telegram group became a supergroup: set its new `chat_id`");
            *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Some(chat);
            return Meaning::Later { after: None };
        }
        if reply.description.contains("message is not modified") {
            return Meaning::Delivered;
        }
        let after = reply.parameters.retry_after.map(Duration::from_secs);
        match Meaning::of_status(reply.error_code.unwrap_or(answer.status)) {
            Meaning::Later { .. } => Meaning::Later { after },
            // `ok: false` and no error is no message either.
            Meaning::Delivered => Meaning::Later { after },
            Meaning::Refused => Meaning::Refused,
        }
    }

    /// `chat/message`, as Telegram numbers them.
    fn receipt(&self, answer: &Answer) -> Option<String> {
        let reply: Reply = serde_json::from_slice(&answer.body).ok()?;
        let sent: Sent = serde_json::from_value(reply.result?).ok()?;
        Some(format!("{}/{}", sent.chat.id, sent.message_id))
    }

    /// <https://core.telegram.org/bots/api#getme>
    fn probe(&self) -> Vec<Probe> {
        self.call("getMe", None).map(Probe::Http).into_iter().collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        let answer = answers.first().ok_or("nothing was asked")?;
        let reply: Reply = serde_json::from_slice(&answer.body)
            .map_err(|_| format!("answers HTTP {}, but not as the Bot API does", answer.status))?;
        if !reply.ok {
            let why = text::escape_within(&reply.description, 200);
            return Err(format!("Telegram says `{why}`: is `token` the bot's?"));
        }
        let bot: Option<Bot> = reply.result.and_then(|result| serde_json::from_value(result).ok());
        let name = bot.map(|bot| text::escape_within(&bot.username, 80)).unwrap_or_default();
        Ok(format!("Telegram bot `@{name}`"))
    }
}

#[derive(Deserialize)]
struct Reply {
    ok: bool,
    result: Option<serde_json::Value>,
    error_code: Option<u16>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Default, Deserialize)]
struct Parameters {
    /// Seconds.
    retry_after: Option<u64>,
    migrate_to_chat_id: Option<i64>,
}

#[derive(Deserialize)]
struct Sent {
    message_id: i64,
    chat: Chat,
}

#[derive(Deserialize)]
struct Chat {
    id: i64,
}

#[derive(Deserialize)]
struct Bot {
    username: String,
}

/// Telegram makes links of bare names too: `evil.example`.
fn may_link(message: &Message<'_>) -> bool {
    words::any_text(message, |text| {
        text.contains("://")
            || text.as_bytes().windows(3).any(|three| {
                three[0].is_ascii_alphanumeric() && three[1] == b'.' && three[2].is_ascii_alphabetic()
            })
    })
}

/// <https://core.telegram.org/bots/api#sendmessage>
const MAX_UNITS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::super::recorded::{self, Case, config};
    use super::*;
    use crate::triage::Triage;

    fn telegram(settings: &str) -> Telegram {
        Telegram::new(&config(&format!("{{token: '123456:s3cret-TOKEN', chat_id: -100123{settings}}}")))
            .unwrap()
    }

    fn sent() -> Answer {
        recorded::answer(
            200,
            r#"{"ok": true, "result": {"message_id": 77, "chat": {"id": -100123, "type": "group"}, "text": "..."}}"#,
        )
    }

    #[test]
    fn requests_are_clickdetects_and_what_telegram_refuses_is_cut() {
        let one = |yaml: &str| Box::new(Telegram::new(&config(yaml)).unwrap()) as Box<dyn Webhook>;
        recorded::compare("telegram", one, &[("telegram", "long")]);
        let body = recorded::body(&Case::recorded("long").compose(&telegram("")));
        let text = body["text"].as_str().unwrap();
        assert!((4_090..=4_096).contains(&text.encode_utf16().count()), "{}", text.encode_utf16().count());
        assert!(text.ends_with("(cut: see `watchpost alerts`)"), "{text}");
    }

    #[test]
    fn previews_are_off_only_where_the_rows_may_hold_a_link() {
        let body = |user: &str| recorded::body(&Case::with_user(user).compose(&telegram("")));
        for link in ["http://evil.example/a.png", "evil.example", "see www.evil.example"] {
            assert_eq!(body(link)["link_preview_options"]["is_disabled"], true, "{link}");
        }
        for none in ["root", "203.0.113.9", "Done. Next", "2.5"] {
            assert_eq!(body(none).get("link_preview_options"), None, "{none}");
        }
    }

    #[test]
    fn what_triage_adds_changes_the_message() {
        let telegram = telegram("");
        let receipt = telegram.receipt(&sent()).unwrap();
        assert_eq!(receipt, "-100123/77");
        let late = Case { is_update: true, triage: recorded::done(), receipt: Some(receipt), ..Case::new() };
        let request = late.compose(&telegram);
        assert_eq!(
            request.to.url.as_str(),
            "https://api.telegram.org/bot123456:s3cret-TOKEN/editMessageText"
        );
        let body = recorded::body(&request);
        assert_eq!((&body["chat_id"], &body["message_id"]), (&json!("-100123"), &json!(77)));
        assert!(body["text"].as_str().unwrap().starts_with("\n[ALERT] SSH login loop\n"));
        let same = r#"{"ok":false,"error_code":400,"description":"Bad Request: message is not modified: specified new message content and reply markup are exactly the same"}"#;
        assert_eq!(telegram.judge(&recorded::answer(400, same)), Meaning::Delivered);
    }

    #[test]
    fn a_group_that_moved_is_followed() {
        let telegram = telegram("");
        let moved = r#"{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded to a supergroup chat","parameters":{"migrate_to_chat_id":-100999}}"#;
        assert_eq!(telegram.judge(&recorded::answer(400, moved)), Meaning::Later { after: None });
        let body = recorded::body(&Case::new().compose(&telegram));
        assert_eq!(body["chat_id"], "-100999");
        let left_behind = Case { is_update: true, receipt: Some("-100123/77".into()), ..Case::new() };
        let request = left_behind.compose(&telegram);
        assert!(request.to.url.as_str().ends_with("/sendMessage"));
        assert!(recorded::body(&request)["text"].as_str().unwrap().starts_with("[UPDATE] "));
    }

    #[test]
    fn answers_mean_what_their_body_says() {
        let judge = |status, body: &str| telegram("").judge(&recorded::answer(status, body));
        let limited = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 35","parameters":{"retry_after":35}}"#;
        let wait = Meaning::Later { after: Some(Duration::from_secs(35)) };
        assert_eq!((judge(429, limited), judge(200, limited)), (wait, wait));
        let unknown = r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#;
        assert_eq!((judge(401, unknown), judge(200, unknown)), (Meaning::Refused, Meaning::Refused));
        assert_eq!(telegram("").judge(&sent()), Meaning::Delivered);
        for rubbish in ["", "<html>", "[]", r#"{"ok": "yes"}"#] {
            assert_eq!(judge(200, rubbish), Meaning::Later { after: None }, "{rubbish}");
        }
        assert_eq!(judge(404, "not found"), Meaning::Refused);
        assert_eq!(judge(502, "<html>Bad gateway"), Meaning::Later { after: None });
    }

    #[test]
    fn the_token_is_never_shown() {
        let telegram = telegram("");
        let (request, probe) = (Case::new().compose(&telegram), telegram.probe());
        let shown = format!("{request:?} {probe:?} {} {:?}", request.to.url, telegram.destination());
        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(request.redact("unknown bot 123456:s3cret-TOKEN"), "unknown bot 123456:***");
        let error = recorded::refused::<Config>("{token: 'a/../s3cret', chat_id: 1}");
        insta::assert_snapshot!(error, @"token: not a bot's token: it looks like `123456:ABC-DEF`, see @BotFather");
    }

    #[test]
    fn a_probe_says_which_bot_answers() {
        let telegram = telegram(", url: 'http://127.0.0.1:8081/'");
        assert_eq!(recorded::probe(&telegram), "GET http://127.0.0.1:8081/bot123456:s3cret-TOKEN/getMe");
        let bot = r#"{"ok":true,"result":{"id":1,"is_bot":true,"first_name":"SOC","username":"soc_bot"}}"#;
        assert_eq!(telegram.probed(&[recorded::answer(200, bot)]).unwrap(), "Telegram bot `@soc_bot`");
        let wrong = recorded::answer(401, r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#);
        let wrong = telegram.probed(&[wrong]);
        assert_eq!(wrong.unwrap_err(), "Telegram says `Unauthorized`: is `token` the bot's?");
        assert!(telegram.probed(&[recorded::answer(200, "hello")]).is_err());
    }

    #[test]
    fn the_first_message_of_an_alert_waits_for_nothing() {
        let early = Case { triage: Triage::Pending, ..Case::new() };
        let now = recorded::body(&early.compose(&telegram("")));
        assert_eq!(now, recorded::body(&Case::new().compose(&telegram(""))));
    }
}
