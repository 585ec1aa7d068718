//! What is known of an alert from those before it: how often its rule, its entities and both together fired, what
//! else fired on them just before, and what analysts decided. The store counts (`store::history`); this says what.
//!
//! *Before* is told by event time, the end of the alert's window, and by no clock. A catch-up after an outage and the
//! look at an old alert give the numbers that a search in time would have given. Alerts whose windows end in the same second
//! are not before one another, but what was decided about one of them is known to the others. An alert that a clock set
//! forward has dated into the future is not seen by any alert that ends earlier; it counts from its own time on.

use serde::{Deserialize, Serialize};

use super::observable::{self, Kind};
use crate::alert::Alert;
use crate::clock::Timestamp;
use crate::text;

/// Who or what an alert is about, named in a clean column: what an attacker writes into a text makes no history, or he
/// could write that of somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entity {
    pub kind: Kind,
    /// In lower case where case says nothing (hosts, domains, e-mail, hashes).
    pub value: String,
}

/// What is known of an alert from those before it, within its tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    pub rule: Counts,
    pub entities: Vec<(Entity, Counts)>,
    /// The rule together with each entity, in the order of `entities`.
    pub pairs: Vec<(Entity, Counts)>,
    /// Other rules that fired on one of the entities in the last ten minutes, the most frequent first.
    pub around: Vec<Around>,
    /// Hosts on which the rule ever fired; entities of any kind where it never named a host.
    pub others_with_rule: u64,
    /// What analysts decided about the tenant's alerts of late.
    #[serde(default)]
    pub site: Lately,
    /// False while alerts of an older store are still being counted.
    pub is_complete: bool,
}

/// Alerts before this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Of the last ten minutes.
    pub minutes: u64,
    pub hour: u64,
    /// Of the last 24 hours.
    pub day: u64,
    pub ever: u64,
    /// What analysts decided about those of `ever`, and those whose windows end in the same second.
    pub decided: Decided,
    /// The same about those of late.
    #[serde(default)]
    pub lately: Lately,
    /// When the first of them was, by the end of its window.
    pub first_seen: Option<Timestamp>,
}

/// Alerts that were closed. Duplicates and those that could not be evaluated are in neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub threats: u64,
    /// False positives too.
    pub benign: u64,
}

/// What was decided about alerts of the last [`LATELY_S`] seconds, each span with those before it in it.
pub type Lately = [Decided; LATELY_S.len()];

/// Two and ten minutes, one and four hours: an attack has phases of minutes, a noisy day has hours.
pub const LATELY_S: [i64; 4] = [120, 600, 3_600, 14_400];

/// Another rule, and how many of its alerts name one of the entities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Around {
    pub rule: String,
    pub name: Option<String>,
    pub count: u64,
}

impl Entity {
    pub fn new(kind: Kind, value: &str) -> Self {
        let is_without_case = matches!(kind, Kind::Host | Kind::Domain | Kind::Email | Kind::Hash);
        let value = if is_without_case { value.to_lowercase() } else { value.to_owned() };
        Self { kind, value }
    }

    /// Those of an alert, at most [`observable::MAX_ENTITIES`], chosen as for its verdict.
    pub fn all_of(alert: &Alert) -> Vec<Self> {
        let observables = observable::extract_clean(alert);
        let mut entities = Vec::new();
        for observable in observable::chosen(&observables) {
            let entity = Self::new(observable.kind, &observable.value);
            if !entities.contains(&entity) {
                entities.push(entity);
            }
        }
        entities
    }
}

impl History {
    /// Lines for people, safe for a terminal and bounded.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("this rule: {}", self.rule.words(None))];
        if self.others_with_rule > 0 {
            lines[0].push_str(&format!("; on {} hosts or entities", self.others_with_rule));
        }
        for ((entity, counts), (_, pair)) in self.entities.iter().zip(&self.pairs) {
            let name = text::escape_within(&entity.value, MAX_NAME_CHARS);
            lines.push(format!("{name}: {}", counts.words(Some(pair.ever))));
        }
        if !self.around.is_empty() {
            let mut rules: Vec<String> =
                self.around.iter().take(MAX_AROUND_SHOWN).map(Around::words).collect();
            if self.around.len() > MAX_AROUND_SHOWN {
                rules.push("more".into());
            }
            lines.push(format!("ten minutes before: {}", rules.join(", ")));
        }
        if !self.is_complete {
            lines.push("not complete: older alerts are still being counted".into());
        }
        lines
    }
}

impl Counts {
    /// `of_rule` is how many of these are of the alert's rule.
    fn words(&self, of_rule: Option<u64>) -> String {
        let Some(first) = self.first_seen else { return "not seen before".into() };
        let of_rule = of_rule.map(|count| format!(" ({count} of this rule)")).unwrap_or_default();
        let first = first.strftime("%F %T");
        let mut words = format!("{} in 24 hours, {} ever{of_rule}, first {first}", self.day, self.ever);
        let Decided { threats, benign } = self.decided;
        if threats + benign > 0 {
            words.push_str(&format!("; closed: {threats} threats, {benign} benign"));
        }
        words
    }
}

impl Around {
    fn words(&self) -> String {
        let name = self.name.as_deref().unwrap_or(&self.rule);
        format!("{} ({})", text::escape_within(name, MAX_NAME_CHARS), self.count)
    }
}

/// At most so many are in [`History::around`].
pub const MAX_AROUND: usize = 20;
const MAX_AROUND_SHOWN: usize = 5;
const MAX_NAME_CHARS: usize = 60;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::triage::testing::alert;

    #[test]
    fn entities_come_from_clean_columns_and_are_bounded() {
        let mut rows = vec![
            json!({ "host": "WEB-1", "source_ip": "::ffff:10.0.0.6", "message": "from 10.9.9.9 on db-1.corp.example" }),
            json!({ "host": "web-1", "user": "Root" }),
        ];
        let named = |rows: &[_]| -> Vec<String> {
            Entity::all_of(&alert(50, json!(rows))).into_iter().map(|entity| entity.value).collect()
        };
        assert_eq!(named(&rows), ["web-1", "10.0.0.6", "Root"]);
        rows.extend((0..100).map(|n| json!({ "user": format!("u{n}") })));
        assert!(named(&rows).len() <= observable::MAX_ENTITIES);
    }

    #[test]
    fn a_column_that_the_rule_calls_tainted_makes_no_history() {
        let rows = json!([{ "host": "web-1", "user": "root", "source_ip": "10.0.0.6" }]);
        let mut alert = alert(50, rows);
        alert.rule.insert("tainted".into(), json!(["user", "source_ip"]));
        let named: Vec<_> = Entity::all_of(&alert).into_iter().map(|entity| entity.value).collect();
        assert_eq!(named, ["web-1"]);
    }

    #[test]
    fn lines_are_for_people_and_nothing_in_them_moves_a_terminal() {
        let counts =
            Counts { day: 3, ever: 41, first_seen: Some(Timestamp::UNIX_EPOCH), ..Counts::default() };
        let decided = Decided { threats: 0, benign: 2 };
        let entity = |value: &str| Entity::new(Kind::User, value);
        let around = Around { rule: "r-2".into(), name: Some("Port\u{1b}[2J scan".into()), count: 4 };
        let history = History {
            rule: Counts { decided, ..counts },
            entities: vec![(entity("a\nb"), counts), (entity(&"x".repeat(300)), Counts::default())],
            pairs: vec![(entity("a\nb"), counts), (entity(&"x".repeat(300)), Counts::default())],
            around: vec![around; MAX_AROUND],
            others_with_rule: 7,
            site: Lately::default(),
            is_complete: false,
        };
        insta::assert_snapshot!(history.lines().join("\n"), @r"
        this rule: 3 in 24 hours, 41 ever, first 1970-01-01 00:00:00; closed: 0 threats, 2 benign; on 7 hosts or entities
        a\nb: 3 in 24 hours, 41 ever (41 of this rule), first 1970-01-01 00:00:00
        xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…: not seen before
        ten minutes before: Port\u{1b}[2J scan (4), Port\u{1b}[2J scan (4), Port\u{1b}[2J scan (4), Port\u{1b}[2J scan (4), Port\u{1b}[2J scan (4), more
        not complete: older alerts are still being counted
        ");
    }
}
