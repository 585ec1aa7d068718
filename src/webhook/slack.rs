//! A Slack channel, through an incoming webhook (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>).
//!
//! The body is clickdetect's, `{"text": ...}`. What differs:
//! - A value that holds `<` or an entity is written as Slack wants text written (`&lt;`, `&gt;`, `&amp;`), so that a log
//!   cannot mention a channel (`<!channel>`) or link to a place under another name (`<http://evil|text>`).
//! - Where the rows hold a link, `unfurl_links` and `unfurl_media` are `false`: Slack would fetch and show what a log
//!   line points to.
//! - A text over 40,000 characters is cut by us, with a notice, and not by Slack, without one.
//!
//! An incoming webhook cannot change what it posted: what triage adds later is a second message, which says first what
//! it belongs to.

use std::borrow::Cow;

use serde_json::json;

use super::template::plain;
use super::web::{self, Endpoint};
use super::words::{self, Words};
use super::{ComposeError, Meaning, Message, Outgoing, Probe, Webhook};
use crate::config::{Url, section};
use crate::http::Answer;

section! {
    /// Posts each alert to a Slack channel, through an incoming webhook.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// The incoming webhook, e.g. `https://hooks.slack.com/services/T000/B000/XXXX`. Whoever knows it may post: its
        /// path is never shown.
        #[read(web::secret_url)]
        pub url: Url,
        /// The text, a Jinja template in Slack's markup, e.g. `*{{ rule.name }}*`; the default is clickdetect's text.
        #[read(web::template)]
        pub template: Option<String>,
    }
    shared { pub exchange: web::Exchange }
}

/// Posts to one incoming webhook.
pub struct Slack {
    endpoint: Endpoint,
    words: Words,
}

impl Slack {
    /// Fails where `template` is no template.
    pub fn new(config: &Config) -> Result<Self, ComposeError> {
        Ok(Self {
            endpoint: Endpoint::new(&config.url, &config.exchange),
            words: Words::new(config.template.as_deref(), escape)?,
        })
    }
}

impl Webhook for Slack {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let text = words::within(&self.words.standing(message)?, MAX_CHARACTERS, |_| 1);
        let mut body = json!({ "text": text });
        if words::holds_link(message) {
            body["unfurl_links"] = false.into();
            body["unfurl_media"] = false.into();
        }
        Ok(Outgoing::Http(self.endpoint.json("POST", "", &body)?))
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    /// Slack takes a message a second for each webhook, and people read them in order.
    fn slots(&self) -> usize {
        1
    }

    /// Slack says `ok`; others that take its format say it in their own way. Its errors are words in plain text, which
    /// count whatever the status is.
    fn judge(&self, answer: &Answer) -> Meaning {
        let body = String::from_utf8_lossy(&answer.body);
        match web::judge(answer) {
            Meaning::Delivered | Meaning::Later { .. } if REFUSALS.contains(&body.trim()) => Meaning::Refused,
            meaning => meaning,
        }
    }

    /// Any answer will do: Slack documents no request that posts nothing.
    fn probe(&self) -> Vec<Probe> {
        self.endpoint.request("HEAD", "").map(Probe::Http).into_iter().collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status.to_string()).collect();
        Ok(format!("answers HTTP {}", statuses.join(", ")))
    }
}

/// A value that can begin a mention or a link, or that holds an entity, as Slack wants text written
/// (<https://docs.slack.dev/messaging/formatting-message-text#escaping>). In others, `>` and `&` are what they are.
fn escape(value: &str) -> Cow<'_, str> {
    let plain = plain(value);
    if ["<", "&amp;", "&lt;", "&gt;"].iter().any(|sign| plain.contains(sign)) {
        return plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").into();
    }
    plain
}

/// <https://docs.slack.dev/changelog/2018-04-truncating-really-long-messages>
const MAX_CHARACTERS: usize = 40_000;

/// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors>
const REFUSALS: [&str; 15] = [
    "action_prohibited",
    "channel_is_archived",
    "channel_not_found",
    "invalid_blocks",
    "invalid_payload",
    "invalid_token",
    "missing_text_or_fallback_or_attachments",
    "no_active_hooks",
    "no_service",
    "no_service_id",
    "no_team",
    "no_text",
    "posting_to_general_channel_denied",
    "team_disabled",
    "user_not_found",
];

#[cfg(test)]
mod tests {
    use super::super::recorded::{self, Case, config};
    use super::*;
    use crate::http::Request;
    use crate::triage::Triage;

    fn slack(yaml: &str) -> Slack {
        Slack::new(&config(yaml)).unwrap()
    }

    fn text(request: &Request) -> String {
        recorded::body(request)["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn requests_are_clickdetects() {
        // Its `size` is `<= 5`, which that template prints.
        recorded::compare("slack", |yaml| Box::new(slack(yaml)), &[("slack-whole", "values")]);
    }

    #[test]
    fn what_a_log_says_mentions_nobody_and_links_nowhere() {
        let slack = slack(
            "{url: 'https://hooks.slack.com/services/T/B/X', template: '<!here> {{ data.value[0].user }} {{ rule.name }}'}",
        );
        let case = Case::with_user("<!channel> <@U1> <http://evil.example|your bank> &lt;!here&gt;");
        let body = recorded::body(&case.compose(&slack));
        insta::assert_snapshot!(body, @r#"{"text":"<!here> &lt;!channel&gt; &lt;@U1&gt; &lt;http://evil.example|your bank&gt; &amp;lt;!here&amp;gt; SSH login loop","unfurl_links":false,"unfurl_media":false}"#);
    }

    #[test]
    fn what_means_nothing_to_slack_stays_as_it_is() {
        let case = Case::with_user("a > b && c -> d &c; x=1&y=2");
        let slack =
            slack("{url: 'https://hooks.slack.com/services/T/B/X', template: '{{ data.value[0].user }}'}");
        assert_eq!(text(&case.compose(&slack)), "a > b && c -> d &c; x=1&y=2");
    }

    #[test]
    fn an_update_says_what_it_belongs_to() {
        let slack = slack("{url: 'https://hooks.slack.com/services/T/B/X'}");
        let update = Case { is_update: true, triage: recorded::done(), ..Case::new() }.compose(&slack);
        let text = text(&update);
        insta::assert_snapshot!(text.lines().next().unwrap(), @"[UPDATE] What triage says of the alert `SSH login loop` of 2026-01-01T00:00:00Z to 2026-01-01T00:05:00Z (00112233445566778899aabbccddeeff)");
        assert!(text.contains("Title: Login loop against root"), "{text}");
        let pending = Case { triage: Triage::Pending, ..Case::new() }.compose(&slack);
        assert!(recorded::body(&pending)["text"].as_str().unwrap().starts_with("\n[ALERT] SSH login loop\n"));
    }

    #[test]
    fn a_text_that_slack_would_cut_is_cut_with_a_notice() {
        let slack = slack("{url: 'https://hooks.slack.com/services/T/B/X'}");
        let text = text(&Case::with_user(&"ä".repeat(50_000)).compose(&slack));
        assert_eq!(text.chars().count(), 40_000);
        assert!(text.ends_with("(cut: see `watchpost alerts`)"));
    }

    #[test]
    fn answers_mean_what_slack_says() {
        let slack = slack("{url: 'https://hooks.slack.com/services/T/B/X'}");
        let judge = |status, body: &str| slack.judge(&recorded::answer(status, body));
        let later = Meaning::Later { after: None };
        for (status, body, meaning) in [
            (200, "ok", Meaning::Delivered),
            (200, "", Meaning::Delivered),
            (200, "{\"success\":true}", Meaning::Delivered),
            (200, "no_service", Meaning::Refused),
            (200, "\n<!DOCTYPE html><title>Sign in</title>", later),
            (400, "invalid_payload", Meaning::Refused),
            (403, "invalid_token", Meaning::Refused),
            (404, "no_team", Meaning::Refused),
            (410, "channel_is_archived", Meaning::Refused),
            (429, "rate_limited", later),
            (500, "rollup_error", later),
            (500, "no_text", Meaning::Refused),
        ] {
            assert_eq!(judge(status, body), meaning, "{status} {body}");
        }
    }

    #[test]
    fn the_webhooks_path_is_never_shown() {
        let slack = slack("{url: 'https://hooks.slack.com/services/T0/B0/s3cret1'}");
        let request = Case::new().compose(&slack);
        let shown = format!("{request:?} {} {:?}", request.to.url, slack.destination());
        assert!(!shown.contains("s3cret1"), "{shown}");
        assert_eq!(request.redact("bad path /services/T0/B0/s3cret1"), "bad path ***");
    }
}
