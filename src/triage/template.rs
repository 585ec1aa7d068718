//! The verdict's texts as code writes them: the facts that the model is given, and what stands where its own
//! text is not usable. Everything in them is from the rule, from counts and from clean columns.

use super::field::Role;
use super::notes::Judgement;
use super::text;
use super::verdict::Severity;
use super::view::View;
use crate::alert::Alert;

/// Title, summary and explanation of one alert, without a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub title: String,
    pub summary: String,
    pub explanation: String,
}

pub fn write(alert: &Alert, view: &View<'_>, judgement: Judgement<'_>, severity: Severity) -> Template {
    let rule = text::as_data(alert.rule_name(), 120);
    let rows = rows(alert.data.len);
    let source = view.most_frequent(&SOURCES).map(|(_, value, _)| value);
    let title = match source {
        Some(source) => format!("{rule}: {source}, {rows}"),
        None => format!("{rule}: {rows}"),
    };
    let summary = match view.most_frequent(&[SOURCES.as_slice(), &[Role::User, Role::Host]].concat()) {
        Some((column, value, _)) if column.distinct == 1 => {
            format!("{rule} matched {rows}, all with {} {value}.", text::as_data(&column.path, 40))
        }
        Some((column, value, count)) => {
            format!(
                "{rule} matched {rows}, most often ({count}) with {} {value}.",
                text::as_data(&column.path, 40)
            )
        }
        None => format!("{rule} matched {rows}."),
    };
    let mut explanation = format!(
        "The rule has level {} and fired between {} and {}.",
        alert.level(),
        alert.window.start,
        alert.window.end
    );
    let spread: Vec<String> = view
        .columns
        .iter()
        .filter(|column| column.clean && column.role.is_identity())
        .take(4)
        .map(|column| format!("{} in {}", values(column.distinct), text::as_data(&column.path, 40)))
        .collect();
    if !spread.is_empty() {
        explanation += &format!(" The rows have {}.", spread.join(", "));
    }
    explanation += &match judgement {
        Judgement::Dismissed(_) => {
            format!(" An operator's note says to ignore this, so the severity is {}.", severity.as_str())
        }
        Judgement::Mentioned(_) => " An operator's note names the source as known.".to_owned(),
        Judgement::Kept(_) => " An operator's note says not to ignore this.".to_owned(),
        Judgement::Silent => " No operator's note applies.".to_owned(),
    };
    Template { title, summary, explanation }
}

pub fn rows(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

fn values(distinct: usize) -> String {
    match distinct {
        1 => "1 value".to_owned(),
        more if more >= super::view::MAX_DISTINCT => format!("{more} or more values"),
        more => format!("{more} values"),
    }
}

/// Roles of the one who acts.
pub const SOURCES: [Role; 2] = [Role::SourceAddress, Role::Address];
