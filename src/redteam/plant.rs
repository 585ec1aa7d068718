//! How an attack gets into an alert. Only cells that are tainted in the plain alert change, and they keep all that was in them.

use serde_json::{Map, Value, json};

use super::Target;
use crate::triage::field::{Role, Roles};
use crate::triage::history::{Around, Counts, MAX_AROUND};

type Row = Map<String, Value>;

/// What an attacker does.
#[derive(Clone, Debug)]
pub enum Deed {
    Text(String, Place),
    /// New columns in every row, in front of the others or behind them.
    Columns(Row, Side),
    /// New rows before and after the true ones.
    Rows(Vec<Row>, Vec<Row>),
    /// Copies of the true rows, each with other values in the columns that it has in common with one of these.
    Lookalikes(Vec<Row>),
    Flood(Flood),
}

/// Where a text goes: into every tainted cell, or into a column of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Before,
    After,
    Column,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Front,
    Back,
}

/// Alerts before the true one, none of which anybody closed.
#[derive(Clone, Debug)]
pub enum Flood {
    /// So many of the same rule on the same entities, all in the last ten minutes.
    Now(u64),
    /// In the last 24 hours, but not in the last hour.
    Today(u64),
    /// Longer than a day ago.
    Patient(u64),
    /// On so many other hosts.
    Hosts(u64),
    /// These other rules on the same entities.
    Around(Vec<Around>),
}

impl Deed {
    pub fn on(&self, target: &Target) -> Option<Target> {
        let mut roles = Roles::new(&target.alert);
        let mut target = target.clone();
        let rows = &mut target.alert.data.value;
        if rows.is_empty() {
            return None;
        }
        match self {
            Self::Text(text, place) => plant(rows, text, *place, &mut roles),
            Self::Columns(columns, side) => {
                rows.iter_mut().for_each(|row| *row = with_columns(row, columns, *side))
            }
            Self::Rows(before, after) => {
                let true_ones = std::mem::take(rows);
                rows.extend(before.iter().cloned());
                rows.extend(true_ones);
                rows.extend(after.iter().cloned());
                target.alert.data.len += (before.len() + after.len()) as u64;
            }
            Self::Lookalikes(others) => {
                let first = rows[0].clone();
                let copies = others.iter().map(|other| like(&first, other));
                let copies: Vec<Row> = copies.filter(|copy| *copy != first).collect();
                if copies.is_empty() {
                    return None;
                }
                target.alert.data.len += copies.len() as u64;
                rows.extend(copies);
            }
            Self::Flood(flood) => flood.raise(&mut target),
        }
        Some(target)
    }
}

/// Into every tainted cell; where a row has none, into a column of its own.
fn plant(rows: &mut [Row], text: &str, place: Place, roles: &mut Roles) {
    for row in rows {
        let mut planted = false;
        if place != Place::Column {
            let mut path = String::new();
            for (name, value) in row.iter_mut() {
                path.clone_from(name);
                planted |= enter(&mut path, value, text, place, roles);
            }
        }
        if !planted {
            let name =
                ["user_agent", "message", "note", "comment"].iter().find(|name| !row.contains_key(**name));
            row.insert((*name.unwrap_or(&"free_text")).to_owned(), json!(text));
        }
    }
}

fn enter(path: &mut String, value: &mut Value, text: &str, place: Place, roles: &mut Roles) -> bool {
    match value {
        Value::Object(map) => {
            let length = path.len();
            let mut planted = false;
            for (name, value) in map.iter_mut() {
                path.push('.');
                path.push_str(name);
                planted |= enter(path, value, text, place, roles);
                path.truncate(length);
            }
            planted
        }
        Value::Array(list) => list
            .iter_mut()
            .map(|value| enter(path, value, text, place, roles))
            .fold(false, |any, one| any | one),
        Value::String(cell) => {
            let column = roles.of(path);
            if cell.is_empty() || column.role == Role::Time || column.is_clean(&Value::String(cell.clone())) {
                return false;
            }
            *cell = match place {
                Place::Before => format!("{text} {cell}"),
                Place::After | Place::Column => format!("{cell} {text}"),
            };
            true
        }
        _ => false,
    }
}

/// Columns of the row's own names stay the row's.
fn with_columns(row: &Row, columns: &Row, side: Side) -> Row {
    let new = columns.iter().filter(|(name, _)| !row.contains_key(*name));
    let new = new.map(|(name, value)| (name.clone(), value.clone()));
    let own = row.iter().map(|(name, value)| (name.clone(), value.clone()));
    match side {
        Side::Front => new.chain(own).collect(),
        Side::Back => own.chain(new).collect(),
    }
}

/// `row` with `other`'s values where both have a column.
fn like(row: &Row, other: &Row) -> Row {
    let value = |(name, own): (&String, &Value)| (name.clone(), other.get(name).unwrap_or(own).clone());
    row.iter().map(value).collect()
}

impl Flood {
    fn raise(&self, target: &mut Target) {
        let history = &mut target.history;
        let all = std::iter::once(&mut history.rule)
            .chain(history.entities.iter_mut().chain(&mut history.pairs).map(|(_, counts)| counts));
        match self {
            Self::Now(count) => all.for_each(|counts| add(counts, [*count; 4])),
            Self::Today(count) => all.for_each(|counts| add(counts, [0, 0, *count, *count])),
            Self::Patient(count) => all.for_each(|counts| add(counts, [0, 0, 0, *count])),
            Self::Hosts(count) => {
                add(&mut history.rule, [*count; 4]);
                history.others_with_rule += count;
            }
            Self::Around(others) => {
                for other in others {
                    match history.around.iter_mut().find(|known| known.rule == other.rule) {
                        Some(known) => known.count += other.count,
                        None => history.around.push(other.clone()),
                    }
                }
                // As the store gives it: the most frequent first, the rest is not seen.
                history.around.sort_by_key(|around| std::cmp::Reverse(around.count));
                history.around.truncate(MAX_AROUND);
            }
        }
    }
}

/// Ten minutes, hour, day, ever.
fn add(counts: &mut Counts, [minutes, hour, day, ever]: [u64; 4]) {
    counts.minutes += minutes;
    counts.hour += hour;
    counts.day += day;
    counts.ever += ever;
}
