//! The HTML part: what the alert is, what triage says, the first rows. Nothing in it is fetched from elsewhere.

use minijinja::value::{Serde, Value};
use minijinja::{Environment, Error};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::super::facts::{Facts, clip};
use super::super::template::plain;
use super::super::{ComposeError, Message, severity};
use crate::triage::Triage;

/// The page of an alert.
pub(super) fn of(message: &Message<'_>) -> Result<String, ComposeError> {
    let facts = Facts::new(message);
    let alert = message.alert;
    let columns = columns(&alert.data.value);
    let rows: Vec<Vec<String>> =
        alert.data.value.iter().take(MAX_ROWS).map(|row| cells(row, &columns)).collect();
    let failure = match message.triage {
        Triage::Failed { reason } => Some(reason),
        _ => None,
    };
    let text = |map: &Map<String, Json>, field: &str| {
        map.get(field).and_then(Json::as_str).unwrap_or_default().to_owned()
    };
    let page = Page {
        name: facts.name,
        description: facts.description,
        severity: severity(facts.level),
        level: facts.level,
        rule: alert.rule_id(),
        tags: facts.tags.join(", "),
        detector: text(&alert.detector, "name"),
        tenant: text(&alert.detector, "tenant"),
        start: alert.window.start.to_string(),
        end: alert.window.end.to_string(),
        alert: &alert.id,
        matches: alert.data.len,
        shown: rows.len(),
        columns,
        rows,
        verdict: message.triage.verdict().map(crate::triage::clickagentic),
        failure,
        text: None,
    };
    render(&page)
}

/// The page of a text that the operator's template made.
pub(super) fn of_text(text: &str) -> Result<String, ComposeError> {
    render(&Page { text: Some(text), ..Page::default() })
}

#[derive(Default, Serialize)]
struct Page<'a> {
    name: &'a str,
    description: &'a str,
    severity: &'a str,
    level: u8,
    rule: &'a str,
    tags: String,
    detector: String,
    tenant: String,
    start: String,
    end: String,
    alert: &'a str,
    matches: u64,
    /// Rows in `rows`.
    shown: usize,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
    verdict: Option<Json>,
    failure: Option<&'a String>,
    text: Option<&'a str>,
}

/// Of the first rows, in their order.
fn columns(rows: &[Map<String, Json>]) -> Vec<String> {
    let mut columns: Vec<String> = Vec::new();
    for name in rows.iter().take(MAX_ROWS).flat_map(Map::keys) {
        if columns.len() < MAX_COLUMNS && !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    columns
}

fn cells(row: &Map<String, Json>, columns: &[String]) -> Vec<String> {
    let cell = |column: &String| match row.get(column) {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => clip(text, MAX_CELL),
        Some(other) => clip(&other.to_string(), MAX_CELL),
    };
    columns.iter().map(cell).collect()
}

fn render(page: &Page<'_>) -> Result<String, ComposeError> {
    let failed = |error: Error| ComposeError(format!("the mail's HTML part: {error}"));
    // The name's ending turns on that every value is escaped.
    let mut environment = Environment::new();
    environment.add_template("mail.html", include_str!("mail.html")).map_err(failed)?;
    environment.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => {
            minijinja::escape_formatter(out, state, &Value::from(plain(text).into_owned()))
        }
        // What a macro made is escaped already.
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.get_template("mail.html").and_then(|template| template.render(Serde(page))).map_err(failed)
}

const MAX_ROWS: usize = 20;
const MAX_COLUMNS: usize = 12;
const MAX_CELL: usize = 200;
