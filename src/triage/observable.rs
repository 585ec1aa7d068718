//! What an alert's rows name: addresses, users, hosts, hashes, files. Found by code, without a model, so that
//! nothing is invented; everything that speaks of entities (the verdict, the check of the model's prose) stands on it.

mod defang;
mod scan;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::field::{self, Role, Roles};
use crate::alert::Alert;

pub use scan::scan;

/// Something that a row names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observable {
    pub kind: Kind,
    /// As it stands in the row; addresses in canonical form, what was defanged in its plain form.
    pub value: String,
    /// Index of the first row that names it; `None` where the rule's tags do.
    pub row: Option<usize>,
    /// Dotted path of the column, or `rule.tags`.
    pub field: String,
    /// Whether an attacker can write this column (see [`super::field`]).
    pub tainted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Address,
    /// In CIDR form.
    Network,
    User,
    Host,
    Domain,
    Url,
    Email,
    Hash,
    Process,
    CommandLine,
    File,
    /// An account or a resource, see [`cloud`](super::cloud).
    Cloud,
    /// Of ATT&CK, e.g. `T1059.001`.
    Technique,
}

impl Kind {
    /// Whether it is somebody or something that an alert can be about.
    pub fn is_entity(self) -> bool {
        !matches!(self, Self::CommandLine | Self::Technique)
    }
}

/// The observables of an alert, clean ones first, each in the order of its first row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observables {
    pub list: Vec<Observable>,
    /// False where a limit ended the search.
    pub complete: bool,
}

/// Reads every row for clean columns, and free text up to `MAX_TEXT_BYTES`; the cost is bounded by the number of
/// cells, not by their length. Flooding the text cannot push out what clean columns name: they have their own share.
pub fn extract(alert: &Alert) -> Observables {
    let mut found = Finder::new(alert);
    found.clean(&alert.data.value);
    found.tags(alert);
    found.tainted(&alert.data.value);
    found.finish()
}

/// Those of [`extract`] that clean columns name, without reading any text.
pub fn extract_clean(alert: &Alert) -> Observables {
    let mut found = Finder::new(alert);
    found.clean(&alert.data.value);
    found.finish()
}

/// The values of [`chosen`], for the verdict's `affected_entities`.
pub fn entities(observables: &Observables) -> Vec<String> {
    chosen(observables).into_iter().map(|observable| observable.value.clone()).collect()
}

/// At most [`MAX_ENTITIES`], of kinds that are entities: clean ones first and not more than a few of one kind, so that forty users do not hide the
/// one address; then at most [`MAX_TAINTED_ENTITIES`] from text.
pub fn chosen(observables: &Observables) -> Vec<&Observable> {
    let mut chosen: Vec<&Observable> = Vec::new();
    for (tainted, per_kind, limit) in [
        (false, PER_KIND, MAX_ENTITIES),
        (false, MAX_ENTITIES, MAX_ENTITIES),
        (true, 2, MAX_TAINTED_ENTITIES),
    ] {
        let mut added = 0;
        let fits = |observable: &&Observable| observable.tainted == tainted && observable.kind.is_entity();
        for observable in observables.list.iter().filter(fits) {
            let same_kind = chosen.iter().filter(|other| other.kind == observable.kind).count();
            let known = chosen.iter().any(|other| other.value == observable.value);
            if known || same_kind >= per_kind || chosen.len() >= MAX_ENTITIES || added >= limit {
                continue;
            }
            added += 1;
            chosen.push(observable);
        }
    }
    chosen
}

struct Finder {
    roles: Roles,
    seen: HashSet<(Kind, String)>,
    list: Vec<Observable>,
    complete: bool,
}

impl Finder {
    fn new(alert: &Alert) -> Self {
        Self { roles: Roles::new(alert), seen: HashSet::new(), list: Vec::new(), complete: true }
    }

    fn finish(self) -> Observables {
        Observables { list: self.list, complete: self.complete }
    }

    fn clean(&mut self, rows: &[Map<String, Value>]) {
        let mut cells = 0;
        for (row, map) in rows.iter().enumerate() {
            let go_on = field::leaves(map, &mut |path, value| {
                cells += 1;
                let Value::String(text) = value else { return cells < MAX_CELLS };
                let column = self.roles.of(path);
                if column.is_clean(value)
                    && let Some(kind) = kind_of(column.role).or_else(|| scan::whole(text))
                {
                    self.add(kind, text, Some(row), path, false, MAX_CLEAN);
                }
                cells < MAX_CELLS && self.list.len() < MAX_CLEAN
            });
            if !go_on {
                self.complete = false;
                return;
            }
        }
    }

    /// The ATT&CK techniques that the rule's author says it finds, e.g. `attack.t1059.001`.
    fn tags(&mut self, alert: &Alert) {
        let tags = alert.rule.get("tags").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for tag in tags.iter().take(MAX_TAGS).filter_map(Value::as_str) {
            let tag = tag.to_uppercase();
            let technique = tag.strip_prefix("ATTACK.").unwrap_or(&tag);
            if scan::is_technique(technique) {
                self.add(Kind::Technique, technique, None, "rule.tags", false, MAX_OBSERVABLES);
            }
        }
    }

    fn tainted(&mut self, rows: &[Map<String, Value>]) {
        let mut text_left = MAX_TEXT_BYTES;
        let mut cells = 0;
        for (row, map) in rows.iter().enumerate() {
            let go_on = field::leaves(map, &mut |path, value| {
                cells += 1;
                let Value::String(text) = value else { return cells < MAX_CELLS };
                let column = self.roles.of(path);
                let role = column.role;
                if role == Role::Time || column.is_clean(value) {
                    return cells < MAX_CELLS;
                }
                let (head, tail) = ends(text);
                text_left = text_left.saturating_sub(head.len() + tail.len());
                self.complete &= head.len() == text.len();
                if let (Some(kind), true) = (kind_of(role), is_whole(role, text)) {
                    // A rule that lists commands must not fill the list with them.
                    let is_full = kind == Kind::CommandLine && self.count(kind) >= MAX_COMMAND_LINES;
                    let limit = if is_full { 0 } else { MAX_OBSERVABLES };
                    self.add(kind, text, Some(row), path, true, limit);
                }
                for part in [head, tail] {
                    scan(part, &mut |kind, value| {
                        let no_entity = (role == Role::Version && kind == Kind::Address)
                            || (matches!(role, Role::Url | Role::Version) && kind == Kind::File);
                        if !no_entity {
                            self.add(kind, value, Some(row), path, true, MAX_OBSERVABLES);
                        }
                    });
                }
                cells < MAX_CELLS && text_left > 0 && self.list.len() < MAX_OBSERVABLES
            });
            if !go_on {
                self.complete = false;
                return;
            }
        }
    }

    fn count(&self, kind: Kind) -> usize {
        self.list.iter().filter(|observable| observable.kind == kind).count()
    }

    fn add(&mut self, kind: Kind, value: &str, row: Option<usize>, path: &str, tainted: bool, limit: usize) {
        if value.len() > max_bytes(kind) || self.list.len() >= limit {
            self.complete = false;
            return;
        }
        let value = match field::address(value) {
            Some(address) if kind == Kind::Address => address.to_string(),
            _ => value.to_owned(),
        };
        if self.seen.insert((kind, value.clone())) {
            self.list.push(Observable { kind, value, row, field: path.to_owned(), tainted });
        }
    }
}

fn kind_of(role: Role) -> Option<Kind> {
    Some(match role {
        Role::SourceAddress | Role::DestinationAddress | Role::Address => Kind::Address,
        Role::User => Kind::User,
        Role::Host => Kind::Host,
        Role::Hash => Kind::Hash,
        Role::Process => Kind::Process,
        Role::CommandLine => Kind::CommandLine,
        Role::File => Kind::File,
        Role::Domain => Kind::Domain,
        Role::Email => Kind::Email,
        Role::Cloud => Kind::Cloud,
        Role::Url | Role::Number | Role::Time | Role::Version | Role::Text => return None,
    })
}

/// Whether the whole cell of a tainted column is a value of its kind.
fn is_whole(role: Role, text: &str) -> bool {
    let plain = kind_of(role).is_some_and(|kind| text.len() <= max_bytes(kind));
    plain
        && !text.chars().any(char::is_control)
        && match role {
            Role::CommandLine => true,
            Role::Process | Role::File => {
                text.split_whitespace().count() == 1 || scan::is_windows_path(text) || text.starts_with('/')
            }
            Role::Domain => scan::is_domain(text, false),
            Role::Email => scan::is_email(text),
            _ => false,
        }
}

fn max_bytes(kind: Kind) -> usize {
    if kind == Kind::CommandLine { MAX_COMMAND_BYTES } else { MAX_VALUE_BYTES }
}

/// The first and last bytes of a long text; the whole and nothing of a short one.
fn ends(text: &str) -> (&str, &str) {
    if text.len() <= HEAD_BYTES + TAIL_BYTES {
        return (text, "");
    }
    (&text[..text.floor_char_boundary(HEAD_BYTES)], &text[text.ceil_char_boundary(text.len() - TAIL_BYTES)..])
}

pub const MAX_OBSERVABLES: usize = 200;
/// Of [`MAX_OBSERVABLES`], how many may come from clean columns; the rest is left for text.
pub const MAX_CLEAN: usize = 150;
pub const MAX_ENTITIES: usize = 12;
pub const MAX_TAINTED_ENTITIES: usize = 4;
const PER_KIND: usize = 5;
const MAX_TAGS: usize = 50;
const MAX_COMMAND_BYTES: usize = 1_024;
const MAX_COMMAND_LINES: usize = 20;
/// Longer values are not entities.
const MAX_VALUE_BYTES: usize = 256;
const MAX_CELLS: usize = 1_000_000;
/// Of free text, over all rows; scanned at about 30 MB a second in a test build.
const MAX_TEXT_BYTES: usize = 512 * 1024;
/// Of one long cell, from its begin and its end.
const HEAD_BYTES: usize = 8 * 1024;
const TAIL_BYTES: usize = 2 * 1024;

#[cfg(test)]
mod tests;
