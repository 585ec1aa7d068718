//! What the operator says is harmless, read by code: his `false_positive` text, and the `known_benign` statements. A
//! sentence such as `Ignore alerts where source_ip is 10.0.0.5.` becomes a [`Statement`] with conditions, and so does a
//! [`KnownBenign`]; only clean columns of the rows (see [`super::field`]) can meet them. Log text that holds the same
//! sentence has no effect: notes come from configuration, and free text is never compared with them.
//!
//! What is not understood never dismisses: a negation, an exception, a time of day, a doubt or an unknown value
//! makes a sentence weaker or void, and [`Notes::explain`] says how each one was read.

pub(super) mod known;
mod parse;

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

use super::field::{self, Column, Role, Roles};
use crate::alert::Alert;
use crate::clock::Timestamp;

pub use known::KnownBenign;

/// The text and what was understood of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    text: String,
    statements: Vec<Statement>,
}

/// One sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub effect: Effect,
    pub conditions: Vec<Condition>,
    /// Conditions joined by `or`: one is enough.
    pub any: bool,
    /// The sentence itself.
    pub text: String,
    /// Alerts raised then or later are not dismissed by it.
    pub until: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Says to ignore what meets the conditions.
    Dismiss,
    /// Names something as known, without saying to ignore it.
    Mention,
    /// Says not to ignore, or warns: what meets a condition in any row is never dismissed.
    Keep,
    /// Nothing in it can be checked; the reason is for the operator.
    Void(&'static str),
}

/// `subject` equals one of `values`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub subject: Subject,
    pub values: Vec<Wanted>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    Source,
    Destination,
    User,
    Host,
    /// The rule's id or name.
    Rule,
    /// A column by its name, or the last part of it, in [normal form](field::normal).
    Field(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// An address or a network: the address and how many leading bits count, of 128.
    Network(IpAddr, u8),
    /// Compared without regard to case.
    Text(String),
}

/// What the notes say of one alert.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Judgement<'a> {
    /// No note applies.
    #[default]
    Silent,
    /// A note forbids to dismiss this.
    Kept(&'a Statement),
    /// Named as known in every row, or to be ignored where not all rows could be seen.
    Mentioned(&'a Statement),
    /// To be ignored: every row meets the statement.
    Dismissed(&'a Statement),
}

impl<'a> Judgement<'a> {
    /// The sentence that applies.
    pub fn statement(self) -> Option<&'a Statement> {
        match self {
            Self::Silent => None,
            Self::Kept(statement) | Self::Mentioned(statement) | Self::Dismissed(statement) => {
                Some(statement)
            }
        }
    }

    pub fn is_dismissed(self) -> bool {
        matches!(self, Self::Dismissed(_))
    }
}

impl Notes {
    /// Reads at most [`MAX_BYTES`] and [`MAX_STATEMENTS`]; never fails.
    pub fn parse(text: &str) -> Self {
        let text = text[..text.floor_char_boundary(MAX_BYTES)].trim();
        Self { text: text.to_owned(), statements: parse::statements(text) }
    }

    /// These statements come before those of the text.
    pub fn with_known(mut self, known: &[KnownBenign]) -> Self {
        self.statements.splice(..0, known.iter().map(KnownBenign::statement));
        self
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// How each sentence was understood, one line each, for `check` and the log.
    pub fn explain(&self) -> Vec<String> {
        self.statements.iter().map(ToString::to_string).collect()
    }

    /// Compares every row with every statement, in one pass.
    pub fn judge(&self, alert: &Alert) -> Judgement<'_> {
        if self.statements.is_empty() {
            return Judgement::Silent;
        }
        let mut holds: Vec<bool> =
            self.statements.iter().map(|statement| statement.can_hold(alert)).collect();
        let mut kept: Vec<bool> =
            self.statements.iter().map(|statement| statement.is_kept_by_rule(alert)).collect();
        let mut roles = Roles::new(alert);
        for row in &alert.data.value {
            let mut cells = Vec::new();
            field::leaves(row, &mut |path, value| {
                cells.push(Cell::new(roles.of(path), path, value));
                true
            });
            for (index, statement) in self.statements.iter().enumerate() {
                match statement.effect {
                    Effect::Keep if !kept[index] => kept[index] = statement.touches(&cells),
                    Effect::Dismiss | Effect::Mention if holds[index] => {
                        holds[index] = statement.holds(alert, &cells);
                    }
                    _ => {}
                }
            }
        }
        if let Some(index) = kept.iter().position(|kept| *kept) {
            return Judgement::Kept(&self.statements[index]);
        }
        let all_seen = alert.data.cut.is_none();
        let first = |effect| {
            (0..holds.len())
                .find(|&index| holds[index] && self.statements[index].effect == effect)
                .map(|index| &self.statements[index])
        };
        match (first(Effect::Dismiss), first(Effect::Mention)) {
            (Some(statement), _) if all_seen || statement.is_about_rule_only() => {
                Judgement::Dismissed(statement)
            }
            (Some(statement), _) | (None, Some(statement)) => Judgement::Mentioned(statement),
            (None, None) => Judgement::Silent,
        }
    }
}

impl Statement {
    /// Before any row is seen: an alert without rows can only meet conditions on its rule. What is over is told by the
    /// alert's own time, so that an old alert is judged as it was.
    fn can_hold(&self, alert: &Alert) -> bool {
        self.until.is_none_or(|until| alert.created_at < until)
            && !self.conditions.is_empty()
            && (!alert.data.value.is_empty() || (self.is_about_rule_only() && self.holds(alert, &[])))
    }

    fn is_about_rule_only(&self) -> bool {
        self.conditions.iter().all(|condition| condition.subject == Subject::Rule)
    }

    fn is_kept_by_rule(&self, alert: &Alert) -> bool {
        self.effect == Effect::Keep
            && self
                .conditions
                .iter()
                .any(|condition| condition.subject == Subject::Rule && condition.holds(alert, &[]))
    }

    fn holds(&self, alert: &Alert, row: &[Cell<'_>]) -> bool {
        if self.any {
            self.conditions.iter().any(|condition| condition.holds(alert, row))
        } else {
            self.conditions.iter().all(|condition| condition.holds(alert, row))
        }
    }

    fn touches(&self, row: &[Cell<'_>]) -> bool {
        self.conditions.iter().any(|condition| {
            row.iter()
                .any(|cell| condition.names(cell) && condition.values.iter().any(|value| cell.is(value)))
        })
    }
}

impl Condition {
    /// Whether every cell of the row that the subject names is clean and equals a value, and there is one.
    fn holds(&self, alert: &Alert, row: &[Cell<'_>]) -> bool {
        if self.subject == Subject::Rule {
            let names = [alert.rule_id(), alert.rule_name()];
            return self.values.iter().any(
                |value| matches!(value, Wanted::Text(text) if names.iter().any(|name| same(name, text))),
            );
        }
        let meets = |cell: &Cell<'_>| cell.clean && self.values.iter().any(|value| cell.is(value));
        let mut named = row.iter().filter(|cell| self.names(cell)).peekable();
        if named.peek().is_some() {
            return named.all(meets);
        }
        // A query that calls its only address `ip` means the one who acts.
        let mut plain = row.iter().filter(|cell| cell.role == Role::Address).peekable();
        self.subject == Subject::Source && plain.peek().is_some() && plain.all(meets)
    }

    fn names(&self, cell: &Cell<'_>) -> bool {
        match &self.subject {
            Subject::Source => cell.role == Role::SourceAddress,
            Subject::Destination => cell.role == Role::DestinationAddress,
            Subject::User => cell.role == Role::User,
            Subject::Host => cell.role == Role::Host,
            Subject::Rule => false,
            Subject::Field(name) => cell.name == *name || cell.path == *name,
        }
    }
}

/// A leaf of a row, ready for comparison.
struct Cell<'a> {
    role: Role,
    clean: bool,
    /// In normal form, and its last part.
    path: String,
    name: String,
    /// Only of cells that a network may be compared with.
    address: Option<IpAddr>,
    value: &'a Value,
}

impl<'a> Cell<'a> {
    fn new(column: Column, path: &str, value: &'a Value) -> Self {
        let Column { role, .. } = column;
        let clean = column.is_clean(value);
        let is_address = matches!(role, Role::SourceAddress | Role::DestinationAddress | Role::Address);
        Self {
            role,
            clean,
            path: field::normal(path),
            name: field::normal(path.rsplit('.').next().unwrap_or(path)),
            address: value.as_str().filter(|_| clean || is_address).and_then(field::address),
            value,
        }
    }

    fn is(&self, wanted: &Wanted) -> bool {
        match (wanted, self.value) {
            (Wanted::Network(network, bits), _) => {
                self.address.is_some_and(|address| covers(*network, *bits, address))
            }
            (Wanted::Text(text), Value::String(cell)) => same(cell, text),
            (Wanted::Text(text), Value::Number(cell)) => cell.to_string() == *text,
            _ => false,
        }
    }
}

pub(super) fn covers(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let (network, address) = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (network.to_ipv6_mapped().to_bits(), address.to_ipv6_mapped().to_bits())
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits()),
        _ => return false,
    };
    bits == 0 || (network ^ address) >> (128 - u32::from(bits)) == 0
}

fn same(a: &str, b: &str) -> bool {
    !a.is_empty() && a.len() <= 512 && a.to_lowercase() == b.to_lowercase()
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = if self.any { " or " } else { " and " };
        let conditions = self.conditions.iter().map(ToString::to_string).collect::<Vec<_>>().join(join);
        match self.effect {
            Effect::Dismiss => write!(f, "dismisses alerts whose every row has {conditions}")?,
            Effect::Mention => write!(f, "counts a little for alerts whose every row has {conditions}")?,
            Effect::Keep if self.conditions.is_empty() => {
                f.write_str("has no effect: it names nothing to keep")?
            }
            Effect::Keep => write!(f, "never lets an alert be dismissed with {conditions} in any row")?,
            Effect::Void(reason) => write!(f, "has no effect: {reason}")?,
        }
        write!(f, ": `{}`", self.text)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = match &self.subject {
            Subject::Source => "source address",
            Subject::Destination => "destination address",
            Subject::User => "user",
            Subject::Host => "host",
            Subject::Rule => "rule",
            Subject::Field(name) => name,
        };
        let values = self.values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        write!(f, "{subject} {values}")
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address, 128) => write!(f, "{address}"),
            Self::Network(address @ IpAddr::V4(_), bits) => write!(f, "{address}/{}", bits - 96),
            Self::Network(address, bits) => write!(f, "{address}/{bits}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

const MAX_BYTES: usize = 64 * 1024;
pub(super) const MAX_STATEMENTS: usize = 1_000;

#[cfg(test)]
mod tests;
