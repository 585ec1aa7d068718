//! Standard output: a readable block an alert, or a line of JSON.
//!
//! Rows and model text go through [`text::escape`]: what an attacker wrote into a log is shown, not obeyed.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use crate::alert::{Alert, Data};
use crate::config::{section, words};
use crate::text;
use crate::triage::verdict::Cost;
use crate::triage::{Triage, Verdict};

use super::{ComposeError, Message, Outgoing, Webhook, payload, severity};

section! {
    /// Writes each alert to standard output.
    pub struct Config {
        /// `text`: a readable block an alert; `json`: a line of JSON an alert.
        pub format: Format = "text",
    }
}

words! {
    /// How `stdout` writes an alert.
    pub enum Format: "a format" {
        Text = "text",
        Json = "json",
    }
}

/// Writes to standard output.
pub struct Stdout {
    format: Format,
    colour: bool,
}

impl Stdout {
    /// `colour` only where a person reads it: standard output is a terminal and nobody said no.
    pub fn new(config: &Config, colour: bool) -> Self {
        Self { format: config.format, colour }
    }
}

impl Webhook for Stdout {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let text = match self.format {
            Format::Json => line(message),
            Format::Text => write(message.alert, message.triage, message.is_update, self.colour),
        };
        Ok(Outgoing::Stdout(text))
    }
}

/// An alert as people read it: what fired, the first rows, the verdict.
pub fn block(alert: &Alert, triage: &Triage, colour: bool) -> String {
    write(alert, triage, false, colour)
}

fn write(alert: &Alert, triage: &Triage, is_update: bool, colour: bool) -> String {
    let mut block = Block { text: String::new(), colour };
    block.head(alert, is_update);
    if !is_update {
        block.found(alert);
    }
    block.triage(triage);
    block.text.push('\n');
    block.text
}

/// The default body with the alert's id and, in an update, `update`. JSON escapes the control characters below
/// 0x20 by itself; the others are escaped here, as JSON does it.
fn line(message: &Message<'_>) -> String {
    let mut fields = Map::new();
    fields.insert("alert_id".into(), message.alert.id.as_str().into());
    if message.is_update {
        fields.insert("update".into(), true.into());
    }
    fields.extend(payload::body(message));
    let mut line = String::new();
    for character in Json::Object(fields).to_string().chars() {
        if text::is_unsafe(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write_to(&mut line, format_args!("\\u{unit:04x}"));
            }
        } else {
            line.push(character);
        }
    }
    line.push('\n');
    line
}

/// A block as it is written.
struct Block {
    text: String,
    colour: bool,
}

impl Block {
    fn head(&mut self, alert: &Alert, is_update: bool) {
        let level = alert.level();
        let what = if is_update { "verdict for " } else { "" };
        let title = format!("{} {level}  {what}{}", severity(level).to_uppercase(), wide(alert.rule_name()));
        let title = self.paint(colour_of(level), &title);
        self.line(format_args!("{title}"));
        self.field("alert", &text::escape(&alert.id));
    }

    fn found(&mut self, alert: &Alert) {
        let of = |name| alert.detector.get(name).and_then(Json::as_str).map(cell);
        self.field("window", &format!("{} to {}", alert.window.start, alert.window.end));
        let tenant = of("tenant").unwrap_or_else(|| "default".to_owned());
        self.field("detector", &format!("{} (tenant {tenant})", of("name").unwrap_or_default()));
        let description = alert.rule.get("description").and_then(Json::as_str).unwrap_or_default();
        if !description.trim().is_empty() {
            self.field("about", &wide(description.trim()));
        }
        self.rows(&alert.data);
    }

    /// The first rows and columns as a table.
    fn rows(&mut self, data: &Data) {
        let rows = &data.value[..data.value.len().min(MAX_ROWS)];
        let mut columns: Vec<&String> = Vec::new();
        for key in rows.iter().flat_map(Map::keys) {
            if !columns.contains(&key) {
                columns.push(key);
            }
        }
        let mut matches = data.len.to_string();
        if data.len > rows.len() as u64 {
            write_to(&mut matches, format_args!(", the first {} shown", rows.len()));
        }
        if columns.len() > MAX_COLUMNS {
            write_to(&mut matches, format_args!(", {MAX_COLUMNS} of {} columns", columns.len()));
        }
        if let Some(cut) = &data.cut {
            write_to(&mut matches, format_args!(" ({})", text::escape(cut)));
        }
        self.field("matches", &matches);
        columns.truncate(MAX_COLUMNS);
        if columns.is_empty() {
            return;
        }
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|name| cell(name)));
        for row in rows {
            table.add_row(columns.iter().map(|name| row.get(*name).map_or_else(String::new, shown)));
        }
        for line in table.lines() {
            let line = line.trim_end().to_owned();
            self.line(format_args!("    {line}"));
        }
    }

    fn triage(&mut self, triage: &Triage) {
        match triage {
            Triage::Skipped => {}
            Triage::Pending => self.field("verdict", "pending: it follows"),
            Triage::Blind => {
                self.field("verdict", "not shown before a person has closed the alert (blind review)")
            }
            Triage::Failed { reason } => {
                self.field("verdict", &format!("none, triage failed: {}", wide(reason)))
            }
            Triage::Judged { verdict } => {
                self.verdict(verdict);
                self.field("", "the text is a template's: the model's follows");
            }
            Triage::Done { verdict } => self.verdict(verdict),
        }
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let scores = format!(
            "{:?}, risk {}, false positive {}, confidence {}",
            verdict.severity, verdict.risk_score, verdict.false_positive_score, verdict.confidence
        );
        let scores = self.paint(BOLD, &scores);
        self.field("verdict", &scores);
        if let Some(judgement) = &verdict.judgement {
            self.field("judged", &judgement.line());
        }
        if let Some(hostile) = &verdict.hostile_text {
            self.field("beware", &wide(hostile));
        }
        if let Some(lowered) = &verdict.lowered {
            self.field("lowered", &format!("from {:?}: {}", lowered.from, wide(&lowered.because)));
        }
        if let Some(deed) = verdict.recommends {
            self.field(
                "advice",
                &format!("{deed} it: the machine is not trusted with this (`watchpost trust`)"),
            );
        }
        self.field("", &wide(&verdict.title));
        self.field("", &wide(&verdict.summary));
        if let Some(note) = &verdict.note {
            self.field("known as", &wide(note));
        }
        if let Some(asset) = &verdict.critical_asset {
            self.field("critical", &wide(asset));
        }
        if !verdict.affected_entities.is_empty() {
            let entities: Vec<_> = verdict.affected_entities.iter().map(|entity| cell(entity)).collect();
            self.field("entities", &entities.join(", "));
        }
        if !verdict.recommended_action.is_empty() {
            self.field("do next", &wide(&verdict.recommended_action));
        }
        for (index, step) in verdict.mitigations.iter().enumerate() {
            let name = if index == 0 { "steps" } else { "" };
            self.field(name, &format!("{}. {}", index + 1, wide(step)));
        }
        if verdict.cost.verdict_compute_seconds > 0.0 {
            self.field("took", &took(&verdict.cost));
        }
    }

    /// `name` in a column of its own; `value` is escaped already.
    fn field(&mut self, name: &str, value: &str) {
        self.line(format_args!("  {name:<9} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        write_to(&mut self.text, line);
        self.text.push('\n');
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Seconds of work, and when the alert had it: the rest is waiting.
fn took(cost: &Cost) -> String {
    let step = |name: &str, work: f64, after: Option<f64>| {
        let after = after.map_or(String::new(), |after| format!(", there after {after:.2} s"));
        format!("{name} {work:.2} s{after}")
    };
    let mut took = step("verdict", cost.verdict_compute_seconds, cost.seconds_to_verdict);
    if cost.prose_compute_seconds > 0.0 {
        took += &format!("; {}", step("text", cost.prose_compute_seconds, cost.seconds_to_prose));
    }
    took
}

fn shown(value: &Json) -> String {
    match value {
        Json::String(text) => cell(text),
        Json::Null => String::new(),
        other => cell(&other.to_string()),
    }
}

fn cell(text: &str) -> String {
    text::escape_within(text, MAX_CELL)
}

fn wide(text: &str) -> String {
    text::escape_within(text, MAX_LINE)
}

fn write_to(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a string takes all that is written");
}

fn colour_of(level: u8) -> &'static str {
    match severity(level) {
        "critical" => "1;31",
        "high" => "31",
        "medium" => "33",
        _ => "36",
    }
}

const BOLD: &str = "1";
const MAX_ROWS: usize = 5;
const MAX_COLUMNS: usize = 6;
/// Characters.
const MAX_CELL: usize = 40;
const MAX_LINE: usize = 400;

#[cfg(test)]
mod tests {
    use super::super::payload::tests::{alert, done};
    use super::*;
    use serde_json::json;

    fn compose(format: Format, alert: &Alert, triage: &Triage, is_update: bool) -> String {
        let message = Message { alert, triage, is_update, idempotency_key: "k", receipt: None };
        match Stdout::new(&Config { format }, false).compose(&message).unwrap() {
            Outgoing::Stdout(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_block_says_what_fired_what_was_found_and_what_to_do() {
        insta::assert_snapshot!(compose(Format::Text, &alert(), &done(), false), @r#"
        HIGH 75  SSH login loop
          alert     00112233445566778899aabbccddeeff
          window    2026-01-01T00:00:00Z to 2026-01-01T00:05:00Z
          detector  sshd (tenant default)
          about     Many failures
          matches   7, the first 1 shown
             user  ip           n
             root  203.0.113.9  7
          verdict   High, risk 80, false positive 5, confidence 70
                    Login loop against root
                    203.0.113.9 failed 7 times as root.
          entities  root, 203.0.113.9
          do next   Block 203.0.113.9
          steps     1. Block the address
                    2. Turn off password logins
        "#);
    }

    #[test]
    fn an_update_brings_the_verdict_alone() {
        insta::assert_snapshot!(compose(Format::Text, &alert(), &Triage::Failed { reason: "no model".into() }, true), @r#"
        HIGH 75  verdict for SSH login loop
          alert     00112233445566778899aabbccddeeff
          verdict   none, triage failed: no model
        "#);
    }

    #[test]
    fn a_million_wide_rows_still_make_a_small_block() {
        let mut alert = alert();
        let row: Map<String, Json> =
            (0..100).map(|n| (format!("c{n}"), json!("x".repeat(100_000)))).collect();
        alert.data.value = vec![row; 20];
        alert.data.len = 1_000_000;
        let block = compose(Format::Text, &alert, &Triage::Pending, false);
        assert!(block.contains("1000000, the first 5 shown, 6 of 100 columns"), "{block}");
        assert!(block.len() < 4_000, "{}", block.len());
    }

    #[test]
    fn hostile_rows_and_model_text_reach_the_terminal_as_text() {
        let hostile = "\u{1b}[2J\u{1b}]0;x\u{7}\r\nHIGH 75  fake \u{202e}\u{9b}31m";
        let mut alert = alert();
        for field in ["name", "description"] {
            alert.rule.insert(field.into(), json!(hostile));
        }
        alert.detector.insert("name".into(), json!(hostile));
        alert.data.value = vec![[(hostile.to_owned(), json!({ "nested": hostile }))].into_iter().collect()];
        alert.data.cut = Some(hostile.into());
        let Triage::Done { mut verdict } = done() else { unreachable!("`done` is done") };
        verdict.title = hostile.into();
        verdict.summary = hostile.into();
        verdict.note = Some(hostile.into());
        verdict.recommended_action = hostile.into();
        verdict.mitigations = vec![hostile.into()];
        verdict.affected_entities = vec![hostile.into()];
        let done = Triage::Done { verdict };
        for format in [Format::Text, Format::Json] {
            for (triage, is_update) in
                [(&done, false), (&done, true), (&Triage::Failed { reason: hostile.into() }, false)]
            {
                let text = compose(format, &alert, triage, is_update);
                let bad = text.chars().find(|character| *character != '\n' && text::is_unsafe(*character));
                assert_eq!(bad, None, "{text}");
                assert!(!text.contains("\nHIGH 75  fake"), "{text}");
            }
        }
    }

    #[test]
    fn a_line_of_json_is_the_default_body_with_the_alerts_id() {
        let mut alert = alert();
        alert.data.value[0].insert("user".into(), json!("a\u{202e}b\u{85}\u{e0041}"));
        let line = compose(Format::Json, &alert, &Triage::Pending, true);
        assert_eq!(line.matches('\n').count(), 1);
        let read: Json = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["alert_id"], &read["update"]), (&json!(alert.id), &json!(true)));
        assert_eq!(read["data"]["value"][0]["user"], "a\u{202e}b\u{85}\u{e0041}");
        assert_eq!(read["triage"], "pending");
    }

    #[test]
    fn colour_is_there_only_when_asked_for() {
        assert!(block(&alert(), &Triage::Skipped, true).starts_with("\u{1b}[31mHIGH 75"));
        assert!(!block(&alert(), &Triage::Skipped, false).contains('\u{1b}'));
    }
}
