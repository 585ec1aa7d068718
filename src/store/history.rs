//! History: counters of alerts by rule, entity and both, written with each alert and read for the next.
//!
//! Each alert is counted in the [`Series`] of its rule, of each of its entities, and of each pair of both. Two more say on how
//! many hosts and other entities a rule fired: there a moment counts the pairs that were first seen then. The order in
//! which alerts come does not matter.
//!
//! Rows are kept as long as the alerts they count: nothing is folded, so an old alert's numbers are as exact as a new one's.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use sha2::{Digest as _, Sha256};

use super::alerts::{json, parse};
use super::closings;
use super::series::{EVERY, HOUR_S, MINUTES_S, Series, floor};
use super::{Store, StoreError};
use crate::alert::Alert;
use crate::triage::history::{Around, Counts, Entity, History, MAX_AROUND};
use crate::triage::observable::Kind;

/// Times are Unix seconds of event time. An alert without `history` is still to be counted.
pub(super) const TABLES: &str = "
    -- Which series the alert is counted in: the rule's number, then its entities' keys, 8 bytes each.
    ALTER TABLE alerts ADD COLUMN history BLOB;
    CREATE INDEX alerts_uncounted ON alerts (created_at) WHERE history IS NULL;

    CREATE TABLE history_rules (
        number INTEGER PRIMARY KEY,
        tenant TEXT NOT NULL,
        rule TEXT NOT NULL,
        name TEXT NOT NULL,
        UNIQUE (tenant, rule)
    ) STRICT;

    CREATE TABLE history (
        -- Of seconds the quarter of a day in which they lie, else -1.
        part_s INTEGER NOT NULL,
        -- The key of an entity; 0 is every entity, 1 and 2 are the hosts and others on which a rule was first seen.
        entity INTEGER NOT NULL,
        -- The number of a rule; 0 is every rule.
        rule INTEGER NOT NULL,
        -- 1 or 3600, and `start_s` a multiple of it; 0 is all time.
        span_s INTEGER NOT NULL,
        start_s INTEGER NOT NULL,
        alerts INTEGER NOT NULL,
        threats INTEGER NOT NULL,
        benign INTEGER NOT NULL,
        -- Of all time only.
        first_s INTEGER,
        PRIMARY KEY (part_s, entity, rule, span_s, start_s)
    ) STRICT, WITHOUT ROWID;

    -- What fired on an entity, and when.
    CREATE TABLE history_around (
        hour_s INTEGER NOT NULL,
        entity INTEGER NOT NULL,
        end_s INTEGER NOT NULL,
        alert INTEGER NOT NULL,
        rule INTEGER NOT NULL,
        PRIMARY KEY (hour_s, entity, end_s, alert)
    ) STRICT, WITHOUT ROWID;";

/// The series in which an alert is counted.
pub(super) struct Marks {
    rule: i64,
    entities: Vec<(i64, Kind)>,
}

/// Finds the series of an alert, and makes its rule known.
pub(super) fn mark(tx: &Transaction<'_>, alert: &Alert) -> rusqlite::Result<Marks> {
    let tenant = tenant(alert);
    let entities = Entity::all_of(alert)
        .iter()
        .map(|entity| Ok((key(tenant, entity)?, entity.kind)))
        .collect::<rusqlite::Result<_>>()?;
    let (rule, name) = (alert.rule_id(), alert.rule_name());
    let known: Option<(i64, String)> = tx
        .prepare_cached("SELECT number, name FROM history_rules WHERE tenant = ?1 AND rule = ?2")?
        .query_row([tenant, rule], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let rule = match known {
        Some((number, known)) if known == name => number,
        _ => tx
            .prepare_cached(
                "INSERT INTO history_rules (tenant, rule, name) VALUES (?1, ?2, ?3)
                 ON CONFLICT (tenant, rule) DO UPDATE SET name = ?3 RETURNING number",
            )?
            .query_row([tenant, rule, name], |row| row.get(0))?,
    };
    Ok(Marks { rule, entities })
}

impl Marks {
    /// As `alerts.history` holds them, so that a later closing finds the same series, however entities are then read.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let entities = self.entities.iter().map(|(key, _)| *key);
        std::iter::once(self.rule).chain(entities).flat_map(i64::to_le_bytes).collect()
    }
}

/// Counts a new alert. Called once for each, in the transaction that saves it.
pub(super) fn count(tx: &Transaction<'_>, alert: &Alert, marks: &Marks) -> rusqlite::Result<()> {
    let (rule, end_s) = (marks.rule, alert.window.end.as_second());
    Series { entity: EVERY, rule }.add(tx, end_s)?;
    for (entity, kind) in &marks.entities {
        Series { entity: *entity, rule: EVERY }.add(tx, end_s)?;
        let pair = Series { entity: *entity, rule };
        let first_s = pair.first_s(tx)?;
        pair.add(tx, end_s)?;
        // One that comes late may be the first in event time: then the place moves.
        if first_s.is_none_or(|first_s| end_s < first_s) {
            let spread = Series { entity: if *kind == Kind::Host { HOSTS } else { OTHERS }, rule };
            spread.add(tx, end_s)?;
            if let Some(first_s) = first_s {
                spread.change(tx, first_s, [-1, 0, 0])?;
            }
        }
        tx.prepare_cached(
            "INSERT INTO history_around (hour_s, entity, end_s, alert, rule) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            floor(end_s, HOUR_S),
            entity,
            end_s,
            hash(&[alert.id.as_bytes()]),
            rule
        ])?;
    }
    Ok(())
}

/// Counts what an analyst decided about an alert, in the transaction of that decision: `Some(true)` says a threat,
/// `Some(false)` benign, and `None` nothing that counts (open, duplicate, not evaluable). `before` is what
/// was counted until now, so that swapping both undoes. An alert that is not in the store changes nothing.
pub fn decided(
    tx: &Transaction<'_>,
    alert: &str,
    before: Option<bool>,
    after: Option<bool>,
) -> rusqlite::Result<()> {
    let found: Option<(Option<Vec<u8>>, i64)> = tx
        .prepare_cached("SELECT history, end_s FROM alerts WHERE id = ?1")?
        .query_row([alert], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((marks, end_s)) = found else { return Ok(()) };
    let marks = match marks {
        Some(marks) => marks,
        None => count_stored(tx, alert)?,
    };
    let change = |what| i64::from(after == Some(what)) - i64::from(before == Some(what));
    let change = [0, change(true), change(false)];
    let mut numbers = marks.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
    let Some(rule) = numbers.next() else { return Ok(()) };
    let tenant: String = tx
        .prepare_cached("SELECT tenant FROM history_rules WHERE number = ?1")?
        .query_row([rule], |row| row.get(0))?;
    site(&tenant).decide(tx, end_s, change)?;
    Series { entity: EVERY, rule }.change(tx, end_s, change)?;
    for entity in numbers {
        Series { entity, rule: EVERY }.change(tx, end_s, change)?;
        Series { entity, rule }.change(tx, end_s, change)?;
    }
    Ok(())
}

/// What the store knows of an alert, which need not be in it, from those before. However many there are, it reads at most
/// one row for each second of some hours and each hour since the alert, for each series.
pub fn look_up(connection: &Connection, alert: &Alert) -> rusqlite::Result<History> {
    // All its queries see one state of the store; inside a transaction they do anyway.
    let _snapshot = if connection.is_autocommit() { Some(connection.unchecked_transaction()?) } else { None };
    if !is_there(connection)? {
        return Ok(History::default());
    }
    look_up_as(connection, alert, closings::counted_as(connection, &alert.id)?)
}

/// `own` is what the alert itself was counted as.
fn look_up_as(connection: &Connection, alert: &Alert, own: Option<bool>) -> rusqlite::Result<History> {
    let (tenant, end_s) = (tenant(alert), alert.window.end.as_second());
    let entities = Entity::all_of(alert);
    let keys = entities.iter().map(|entity| key(tenant, entity)).collect::<rusqlite::Result<Vec<_>>>()?;
    let rule: Option<i64> = connection
        .prepare_cached("SELECT number FROM history_rules WHERE tenant = ?1 AND rule = ?2")?
        .query_row([tenant, alert.rule_id()], |row| row.get(0))
        .optional()?;
    let counts = |entity, rule: Option<i64>| match rule {
        Some(rule) => Series { entity, rule }.before(connection, end_s, own),
        None => Ok(Counts::default()),
    };
    let all = |rule: Option<i64>| -> rusqlite::Result<Vec<(Entity, Counts)>> {
        let each = entities.iter().zip(&keys);
        each.map(|(entity, key)| Ok((entity.clone(), counts(*key, rule)?))).collect()
    };
    let others_with_rule = match counts(HOSTS, rule)?.ever {
        0 => counts(OTHERS, rule)?.ever,
        hosts => hosts,
    };
    Ok(History {
        rule: counts(EVERY, rule)?,
        entities: all(Some(EVERY))?,
        pairs: all(rule)?,
        around: around(connection, &keys, rule, end_s)?,
        others_with_rule,
        site: site(tenant).before(connection, end_s, own)?.lately,
        is_complete: is_complete(connection)?,
    })
}

/// Counts the alerts of a store that an older watchpost wrote, some at a time, so that detection never waits
/// long. Says how many there were.
pub async fn count_older(store: &Store) -> Result<usize, StoreError> {
    let mut counted = 0;
    loop {
        match store.write(count_some).await? {
            0 => return Ok(counted),
            some => counted += some,
        }
    }
}

fn count_some(tx: &Transaction<'_>) -> rusqlite::Result<usize> {
    let ids: Vec<(String, i64)> = tx
        .prepare_cached("SELECT id, length(body) FROM alerts WHERE history IS NULL LIMIT ?1")?
        .query_map([MAX_AT_ONCE as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let (mut counted, mut bytes) = (0, 0);
    for (id, length) in ids {
        count_stored(tx, &id)?;
        (counted, bytes) = (counted + 1, bytes + length);
        if bytes > MAX_BYTES_AT_ONCE {
            break;
        }
    }
    Ok(counted)
}

/// Counts an alert that was saved without; gives its marks. One that cannot be read is passed over, once.
fn count_stored(tx: &Transaction<'_>, id: &str) -> rusqlite::Result<Vec<u8>> {
    let body: String =
        tx.prepare_cached("SELECT body FROM alerts WHERE id = ?1")?.query_row([id], |row| row.get(0))?;
    let marks = match parse::<Alert>(&body) {
        Ok(alert) => {
            let marks = mark(tx, &alert)?;
            count(tx, &alert, &marks)?;
            marks.to_bytes()
        }
        Err(error) => {
            tracing::warn!(alert = id, %error, "a stored alert cannot be read: it is not in the history");
            Vec::new()
        }
    };
    tx.prepare_cached("UPDATE alerts SET history = ?2 WHERE id = ?1")?.execute(params![id, marks])?;
    Ok(marks)
}

/// Other rules that fired on one of the entities in the ten minutes before; an alert that names two counts once.
fn around(
    connection: &Connection,
    entities: &[i64],
    own_rule: Option<i64>,
    end_s: i64,
) -> rusqlite::Result<Vec<Around>> {
    let mut seen = HashSet::new();
    let mut counts: HashMap<i64, u64> = HashMap::new();
    let mut latest = connection.prepare_cached(
        "SELECT alert, rule FROM history_around WHERE hour_s = ?1 AND entity = ?2 AND end_s >= ?3 AND end_s < ?4
         ORDER BY end_s DESC LIMIT ?5",
    )?;
    let from_s = end_s - MINUTES_S;
    let mut hours_s = vec![floor(end_s, HOUR_S), floor(from_s, HOUR_S)];
    hours_s.dedup();
    for (entity, hour_s) in entities.iter().flat_map(|entity| hours_s.iter().map(move |hour| (entity, hour)))
    {
        let mut rows = latest.query([*hour_s, *entity, from_s, end_s, MAX_LATEST])?;
        while let Some(row) = rows.next()? {
            let (alert, rule): (i64, i64) = (row.get(0)?, row.get(1)?);
            if seen.insert(alert) && Some(rule) != own_rule {
                *counts.entry(rule).or_default() += 1;
            }
        }
    }
    let mut name = connection.prepare_cached("SELECT rule, name FROM history_rules WHERE number = ?1")?;
    let mut around = Vec::new();
    for (number, count) in counts {
        let (rule, name): (String, String) =
            name.query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        around.push(Around { rule, name: Some(name).filter(|name| !name.is_empty()), count });
    }
    around.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.rule.cmp(&b.rule)));
    around.truncate(MAX_AROUND);
    Ok(around)
}

fn is_complete(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM alerts WHERE history IS NULL)")?
        .query_row([], |row| row.get(0))
}

/// A command may look into a store that no service of this version has opened yet.
fn is_there(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'history')")?
        .query_row([], |row| row.get(0))
}

/// Whose data it is: the same address means another machine at another tenant.
fn tenant(alert: &Alert) -> &str {
    alert.detector.get("tenant").and_then(serde_json::Value::as_str).unwrap_or("default")
}

/// What was decided about all alerts of a tenant.
fn site(tenant: &str) -> Series {
    Series { entity: hash(&[tenant.as_bytes()]), rule: EVERY }
}

fn key(tenant: &str, entity: &Entity) -> rusqlite::Result<i64> {
    Ok(hash(&[tenant.as_bytes(), json(&entity.kind)?.as_bytes(), entity.value.as_bytes()]))
}

/// 64 bits of SHA-256: a name that meets another's key cannot be made up.
fn hash(parts: &[&[u8]]) -> i64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut head = [0; 8];
    head.copy_from_slice(&hash.finalize()[..8]);
    i64::from_le_bytes(head)
}

/// In the place of an entity; an entity's key is none of these but once in 2^62.
const HOSTS: i64 = 1;
const OTHERS: i64 = 2;
/// Alerts of one entity that are read for `around` from each hour, the latest first.
const MAX_LATEST: i64 = 1_000;
/// Older alerts that are counted in one job of the writer: some 10 ms.
const MAX_AT_ONCE: usize = 100;
const MAX_BYTES_AT_ONCE: i64 = 1 << 20;

#[cfg(test)]
mod tests;
