//! Alerts: saving one together with its rule's cursor, listing.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::trust::TOLD;
use super::{closings, history, outbox, queue};
use crate::alert::Alert;
use crate::clock::Timestamp;
use crate::closing::Closing;
use crate::triage::{Triage, likeness};

/// See [`likeness`]; NULL in alerts of an older watchpost.
pub(super) const ALIKE: &str = "ALTER TABLE alerts ADD COLUMN likeness INTEGER;
     CREATE INDEX alerts_alike ON alerts (likeness, created_at) WHERE likeness IS NOT NULL;";

/// Alerts alike in the 24 hours before one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alike {
    /// The id of the first of them.
    pub first: String,
    /// Counted to [`MAX_ALIKE`].
    pub count: usize,
}

/// An alert with where its triage stands, as people may see it, and what an analyst decided.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stored {
    #[serde(flatten)]
    pub alert: Alert,
    pub triage: Triage,
    /// What an analyst decided; absent while the alert is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closing: Option<Closing>,
}

/// How a new alert is to be handled.
pub struct Handling {
    /// Names of the webhooks that get it.
    pub webhooks: Vec<String>,
    /// `None` where triage is not asked for.
    pub triage: Option<Queueing>,
}

/// The triage queue's rules.
#[derive(Clone, Copy, Debug)]
pub struct Queueing {
    /// Delivery waits for triage until then.
    pub hold_until: Timestamp,
    /// Alerts that may wait for their verdict at one time.
    pub capacity: usize,
}

/// Saves a new alert with its deliveries, its place in the triage queue and in the history of those after it. An alert that is there already
/// (the same detector, rule and window) stays as it is: `false`.
pub fn insert(
    tx: &Transaction<'_>,
    detector: &str,
    alert: &Alert,
    handling: &Handling,
) -> rusqlite::Result<bool> {
    let now = alert.created_at;
    let (triage, hold_until) = match handling.triage {
        None => (Triage::Skipped, now),
        Some(queue) => (queue::make_room(tx, alert.level(), queue.capacity, now)?, queue.hold_until),
    };
    let hold_until = if triage == Triage::Pending { hold_until } else { now };
    let marks = history::mark(tx, alert)?;
    let inserted = tx
        .prepare_cached(
            "INSERT INTO alerts (id, detector, rule, level, start_s, end_s, created_at, body, triage, history, likeness)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            alert.id,
            detector,
            alert.rule_id(),
            alert.level(),
            alert.window.start.as_second(),
            alert.window.end.as_second(),
            now.as_millisecond(),
            json(alert)?,
            json(&triage)?,
            marks.to_bytes(),
            likeness::of(alert),
        ])?;
    if inserted == 1 {
        history::count(tx, alert, &marks)?;
        let level = alert.level();
        outbox::create(
            tx,
            &alert.id,
            level,
            &handling.webhooks,
            now.as_millisecond(),
            hold_until.as_millisecond(),
        )?;
    }
    Ok(inserted == 1)
}

/// Newest first.
pub fn list(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Stored>> {
    list_where(connection, "", limit)
}

/// Those that no closing stands on, newest first.
pub fn list_open(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Stored>> {
    list_where(connection, IS_OPEN, limit)
}

/// Newest first, of alike ones within 24 hours the newest alone; of the last [`MAX_LISTED`] alerts.
pub fn list_grouped(connection: &Connection, only_open: bool, limit: usize) -> rusqlite::Result<Vec<Stored>> {
    let condition = if only_open { IS_OPEN } else { "" };
    let mut select = connection.prepare(&format!(
        "SELECT id, likeness, created_at FROM alerts {condition} ORDER BY created_at DESC, id LIMIT {MAX_LISTED}"
    ))?;
    let mut rows = select.query([])?;
    let mut newest: HashMap<i64, i64> = HashMap::new();
    let mut found = Vec::new();
    while let Some(row) = rows.next()?
        && found.len() < limit
    {
        let (id, likeness, at_ms): (String, Option<i64>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let later = likeness.and_then(|likeness| newest.insert(likeness, at_ms));
        if later.is_none_or(|later| later - at_ms > DAY_MS) {
            found.extend(get(connection, &id)?);
        }
    }
    Ok(found)
}

/// Those before an alert; `None` where there are none.
pub fn alike(connection: &Connection, id: &str) -> rusqlite::Result<Option<Alike>> {
    let (first, count): (Option<String>, i64) = connection
        .prepare_cached(&format!(
            "SELECT first, count(*) FROM (
                SELECT first_value(other.id) OVER (ORDER BY other.created_at, other.id) AS first
                FROM alerts AS this JOIN alerts AS other ON other.likeness = this.likeness
                WHERE this.id = ?1 AND other.id != ?1 AND other.created_at <= this.created_at
                    AND other.created_at > this.created_at - {DAY_MS}
                LIMIT {MAX_ALIKE})"
        ))?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(first.map(|first| Alike { first, count: usize::try_from(count).unwrap_or_default() }))
}

fn list_where(
    connection: &Connection,
    condition: &'static str,
    limit: usize,
) -> rusqlite::Result<Vec<Stored>> {
    connection
        .prepare(&format!(
            "SELECT body, {TOLD} FROM alerts {condition} ORDER BY created_at DESC, id LIMIT ?1"
        ))?
        .query_map([limit as i64], |row| stored(connection, row))?
        .collect()
}

pub fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<Stored>> {
    connection
        .query_row(&format!("SELECT body, {TOLD} FROM alerts WHERE id = ?1"), [id], |row| {
            stored(connection, row)
        })
        .optional()
}

fn stored(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Stored> {
    let (body, triage): (String, String) = (row.get(0)?, row.get(1)?);
    let alert: Alert = parse(&body)?;
    let closing = closings::standing(connection, &alert.id)?;
    Ok(Stored { alert, triage: parse(&triage)?, closing })
}

pub(super) const IS_OPEN: &str =
    "WHERE NOT EXISTS (SELECT 1 FROM closings WHERE alert_id = alerts.id AND undone_at_ms IS NULL)";
const DAY_MS: i64 = 86_400_000;
pub const MAX_ALIKE: usize = 1_000;
/// Of alerts that are looked at for a list whose order is not theirs.
pub const MAX_LISTED: usize = 100_000;

pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

pub(super) fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::store;
    use super::*;
    use crate::triage::testing;

    #[test]
    fn alerts_that_are_alike_are_counted_back_for_a_day_and_grouped_under_the_newest() {
        let mut store = store(&[]);
        let tx = store.transaction().unwrap();
        let hour = |hours: i64| Timestamp::from_second(1_790_000_000 + 3_600 * hours).unwrap();
        for (id, hours, user) in
            [("a0", 0, "root"), ("a1", 30, "root"), ("b0", 31, "bob"), ("a2", 40, "root"), ("a3", 41, "root")]
        {
            let mut alert = testing::alert(50, json!([{ "user": user }]));
            (alert.id, alert.created_at) = (id.to_owned(), hour(hours));
            insert(&tx, "d", &alert, &Handling { webhooks: Vec::new(), triage: None }).unwrap();
        }
        tx.commit().unwrap();
        let of = |id| alike(&store, id).unwrap();
        assert_eq!(of("a3"), Some(Alike { first: "a1".into(), count: 2 }));
        assert_eq!((of("a1"), of("b0")), (None, None), "the one before is older than a day");
        let grouped = list_grouped(&store, false, 10).unwrap();
        let ids: Vec<_> = grouped.iter().map(|stored| stored.alert.id.as_str()).collect();
        assert_eq!(ids, ["a3", "b0", "a0"]);
        assert_eq!(list_grouped(&store, true, 1).unwrap().len(), 1);
    }
}
