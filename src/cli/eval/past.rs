//! What a site would know of an alert from those before it in a file of labels.

use std::collections::{HashMap, HashSet};

use crate::triage::history::{Around, Counts, Decided, Entity, History, LATELY_S, MAX_AROUND};
use crate::triage::judge::labelled::Labelled;

/// Counts by scenario: sites do not know one another.
#[derive(Default)]
pub struct Past {
    counts: HashMap<(String, Key), Times>,
    /// Entities that a rule fired on.
    spread: HashMap<(String, String), HashSet<Entity>>,
    recent: HashMap<(String, Entity), Vec<(i64, String)>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Site,
    Rule(String),
    Entity(Entity),
    Pair(String, Entity),
}

#[derive(Default)]
struct Times {
    seconds: Vec<i64>,
    decided: Decided,
    /// When the closed ones fired, and whether they were threats.
    closed: Vec<(i64, bool)>,
}

impl Past {
    /// The file's own counts where it has them, with what was decided over the lines before.
    pub fn of(&self, line: &Labelled) -> History {
        let rule = line.alert.rule_id().to_owned();
        let now = line.time.as_second();
        let entities = Entity::all_of(&line.alert);
        let with = |key: &dyn Fn(&Entity) -> Key| {
            let counts = entities.iter().map(|entity| (entity.clone(), self.counts(line, key(entity), now)));
            counts.collect::<Vec<_>>()
        };
        let counted = History {
            rule: self.counts(line, Key::Rule(rule.clone()), now),
            pairs: with(&|entity| Key::Pair(rule.clone(), entity.clone())),
            around: self.around(line, &entities, now),
            others_with_rule: self.spread.get(&(line.scenario.clone(), rule.clone())).map_or(0, HashSet::len)
                as u64,
            site: self.counts(line, Key::Site, now).lately,
            entities: with(&|entity| Key::Entity(entity.clone())),
            is_complete: true,
        };
        let Some(told) = &line.history else { return counted };
        let History { rule, entities, site, .. } = counted;
        let mut history = History { rule, entities, site, ..told.clone() };
        for (_, pair) in &mut history.pairs {
            let known = counted.pairs.iter().map(|(_, counts)| counts.decided);
            pair.decided = known.max_by_key(|decided| decided.threats + decided.benign).unwrap_or_default();
        }
        history
    }

    pub fn fired(&mut self, line: &Labelled) {
        let (site, rule, now) = (&line.scenario, line.alert.rule_id(), line.time.as_second());
        for key in keys(line) {
            self.counts.entry((site.clone(), key)).or_default().seconds.push(now);
        }
        for entity in Entity::all_of(&line.alert) {
            self.spread.entry((site.clone(), rule.to_owned())).or_default().insert(entity.clone());
            self.recent
                .entry((site.clone(), entity))
                .or_default()
                .push((now, line.alert.rule_name().to_owned()));
        }
    }

    pub fn closed(&mut self, line: &Labelled) {
        for key in keys(line) {
            let times = self.counts.entry((line.scenario.clone(), key)).or_default();
            *(if line.is_threat { &mut times.decided.threats } else { &mut times.decided.benign }) += 1;
            times.closed.push((line.time.as_second(), line.is_threat));
        }
    }

    fn counts(&self, line: &Labelled, key: Key, now: i64) -> Counts {
        let Some(times) = self.counts.get(&(line.scenario.clone(), key)) else { return Counts::default() };
        // The file is in the order of time.
        let before = times.seconds.partition_point(|second| *second < now);
        let since =
            |span: i64| (before - times.seconds.partition_point(|second| *second < now - span)) as u64;
        let lately = |span: i64| {
            let closed = times.closed.iter().rev().take_while(|(second, _)| *second >= now - span);
            closed.fold(Decided::default(), |mut sum, (_, is_threat)| {
                *(if *is_threat { &mut sum.threats } else { &mut sum.benign }) += 1;
                sum
            })
        };
        Counts {
            minutes: since(600),
            hour: since(3_600),
            day: since(86_400),
            ever: before as u64,
            decided: times.decided,
            lately: LATELY_S.map(lately),
            first_seen: None,
        }
    }

    fn around(&self, line: &Labelled, entities: &[Entity], now: i64) -> Vec<Around> {
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for entity in entities {
            let recent =
                self.recent.get(&(line.scenario.clone(), entity.clone())).map_or(&[][..], Vec::as_slice);
            let recent = recent.iter().rev().take_while(|(second, _)| *second >= now - 600).take(MAX_RECENT);
            for (_, rule) in recent.filter(|(second, rule)| *second < now && rule != line.alert.rule_name()) {
                *counts.entry(rule).or_default() += 1;
            }
        }
        let mut around: Vec<Around> = counts
            .into_iter()
            .map(|(rule, count)| Around { rule: rule.to_owned(), name: None, count })
            .collect();
        around.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.rule.cmp(&other.rule)));
        around.truncate(MAX_AROUND);
        around
    }
}

fn keys(line: &Labelled) -> Vec<Key> {
    let rule = line.alert.rule_id().to_owned();
    let mut keys = vec![Key::Site, Key::Rule(rule.clone())];
    for entity in Entity::all_of(&line.alert) {
        keys.push(Key::Pair(rule.clone(), entity.clone()));
        keys.push(Key::Entity(entity));
    }
    keys
}

const MAX_RECENT: usize = 1_000;
