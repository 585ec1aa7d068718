//! What a card says, as a MessageCard or an Adaptive Card.

use serde_json::{Value as Json, json};

use super::super::{Message, payload, words};
use super::escape;
use crate::rule::template;

#[derive(Clone, Copy, Debug)]
pub(super) enum Card {
    Message,
    Adaptive,
}

impl Card {
    /// The body, in no more than [`MAX_BYTES`].
    pub(super) fn of(self, message: &Message<'_>) -> Json {
        let mut said = Said::of(message);
        loop {
            let card = self.body(&said);
            let over = card.to_string().len().saturating_sub(MAX_BYTES);
            let longest = said.longest();
            let length = json_len_of(longest);
            if over == 0 || length <= MIN_TEXT_BYTES {
                return card;
            }
            *longest = words::within(longest, length.saturating_sub(over).max(MIN_TEXT_BYTES), json_len);
        }
    }

    fn body(self, said: &Said) -> Json {
        match self {
            Self::Message => message_card(said),
            Self::Adaptive => adaptive_card(said),
        }
    }
}

/// The texts of a card, safe in Markdown.
struct Said {
    /// For an update: what it belongs to.
    belongs: Option<String>,
    name: String,
    level: String,
    description: String,
    id: String,
    group: String,
    tags: String,
    matches: String,
    results: String,
    detector: String,
    tenant: String,
    analysis: Option<Vec<(&'static str, String)>>,
}

impl Said {
    fn of(message: &Message<'_>) -> Self {
        let variables = payload::variables(message);
        let seen = template::message(&variables);
        let value = |path: &[&str]| {
            path.iter().fold(seen.clone(), |value, key| value.get_attr(key).unwrap_or_default())
        };
        let text = |path: &[&str]| escape(&template::text(&value(path))).into_owned();
        let joined = |path: &[&str], with: &str| {
            let value = value(path);
            match value.try_iter() {
                Ok(items) if value.as_str().is_none() => {
                    let items: Vec<String> =
                        items.map(|item| escape(&template::text(&item)).into_owned()).collect();
                    items.join(with)
                }
                _ => escape(&template::text(&value)).into_owned(),
            }
        };
        // What `tojson` gives: ASCII, as clickdetect's cards show it.
        let results = template::json(&value(&["data", "value"])).unwrap_or_default();
        let of = |key| text(&["clickagentic", key]);
        let analysis = variables.contains_key("clickagentic").then(|| {
            let mut facts = vec![
                ("Title", of("title")),
                ("Summary", of("summary")),
                ("Severity", format!("{} (confidence: {}%)", of("severity"), of("confidence"))),
                ("Risk Score", format!("{}%", of("risk_score"))),
                ("False Positive Score", format!("{}%", of("false_positive_score"))),
                ("Explanation", of("explanation")),
                ("Mitigations", joined(&["clickagentic", "mitigations"], "\n")),
            ];
            let more = [
                ("Affected Entities", joined(&["clickagentic", "affected_entities"], ", ")),
                ("Recommended Action", of("recommended_action")),
            ];
            facts.extend(more.into_iter().filter(|(_, value)| !value.is_empty()));
            facts
        });
        Self {
            belongs: message.is_update.then(|| escape(&words::belongs(message)).into_owned()),
            name: text(&["rule", "name"]),
            level: text(&["rule", "level"]),
            description: text(&["rule", "description"]),
            id: text(&["rule", "id"]),
            group: text(&["rule", "group"]),
            tags: joined(&["rule", "tags"], ", "),
            matches: text(&["data", "len"]),
            results: escape(&results).into_owned(),
            detector: text(&["detector", "name"]),
            tenant: text(&["detector", "tenant"]),
            analysis,
        }
    }

    /// The text that is cut where a card is too large: nearly always the results.
    fn longest(&mut self) -> &mut String {
        let Self {
            belongs: _,
            level: _,
            name,
            description,
            id,
            group,
            tags,
            matches,
            results,
            detector,
            tenant,
            analysis,
        } = self;
        let own = [name, description, id, group, tags, matches, results, detector, tenant];
        let analysis = analysis.iter_mut().flatten().map(|(_, value)| value);
        own.into_iter().chain(analysis).max_by_key(|text| json_len_of(text)).expect("a card has texts")
    }

    fn title(&self) -> String {
        format!("**[Level {}] {}**", self.level, self.name)
    }

    fn facts(&self) -> [(&'static str, &str); 7] {
        [
            ("Rule ID", &self.id),
            ("Group", &self.group),
            ("Tags", &self.tags),
            ("Matches", &self.matches),
            ("Results", &self.results),
            ("Detector", &self.detector),
            ("Tenant", &self.tenant),
        ]
    }
}

fn message_card(said: &Said) -> Json {
    let facts: Json = said.facts().map(|(name, value)| json!({ "name": name, "value": value })).into();
    let mut sections = vec![json!({
        "activityTitle": said.title(),
        "activitySubtitle": said.description,
        "facts": facts,
        "markdown": true,
    })];
    if let Some(analysis) = &said.analysis {
        let facts: Vec<Json> =
            analysis.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        sections
            .push(json!({ "activityTitle": "**Clickagentic Analysis**", "facts": facts, "markdown": true }));
    }
    let mut card = json!({
        "@type": "MessageCard",
        "@context": "http://schema.org/extensions",
        "summary": said.name,
        "sections": sections,
    });
    if let Some(belongs) = &said.belongs {
        card["text"] = belongs.as_str().into();
    }
    card
}

/// <https://adaptivecards.io/explorer/AdaptiveCard.html>; Teams shows version 1.5 and lower.
fn adaptive_card(said: &Said) -> Json {
    let block = |text: &str| json!({ "type": "TextBlock", "text": text, "wrap": true });
    let facts = |facts: Vec<Json>| json!({ "type": "FactSet", "facts": facts });
    let fact = |name: &str, value: &str| json!({ "title": name, "value": value });
    let mut body: Vec<Json> = said.belongs.iter().map(|belongs| block(belongs)).collect();
    body.push(json!({ "type": "TextBlock", "text": said.title(), "wrap": true, "size": "Medium" }));
    if !said.description.is_empty() {
        body.push(block(&said.description));
    }
    body.push(facts(said.facts().iter().map(|(name, value)| fact(name, value)).collect()));
    if let Some(analysis) = &said.analysis {
        body.push(json!({ "type": "TextBlock", "text": "**Clickagentic Analysis**", "wrap": true, "separator": true }));
        body.push(facts(analysis.iter().map(|(name, value)| fact(name, value)).collect()));
    }
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "body": body,
            },
        }],
    })
}

/// Bytes that a character takes between JSON's quotes. [`escape`] leaves no control characters but these.
fn json_len(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        other => other.len_utf8(),
    }
}

fn json_len_of(text: &str) -> usize {
    text.chars().map(json_len).sum()
}

/// 28 KB, of which some are left for what the service adds
/// (<https://learn.microsoft.com/microsoftteams/limits-specifications-teams>).
const MAX_BYTES: usize = 28_000;
/// Nothing shorter is cut: thirty texts of a card have room.
const MIN_TEXT_BYTES: usize = 400;
