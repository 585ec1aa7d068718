//! Alerts: saving one together with its rule's cursor, listing.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::{closings, history, outbox, queue};
use crate::alert::Alert;
use crate::clock::Timestamp;
use crate::closing::Closing;
use crate::triage::Triage;

/// An alert with where its triage stands, and what an analyst decided.
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
            "INSERT INTO alerts (id, detector, rule, level, start_s, end_s, created_at, body, triage, history)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO NOTHING",
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
    let is_open =
        "WHERE NOT EXISTS (SELECT 1 FROM closings WHERE alert_id = alerts.id AND undone_at_ms IS NULL)";
    list_where(connection, is_open, limit)
}

fn list_where(
    connection: &Connection,
    condition: &'static str,
    limit: usize,
) -> rusqlite::Result<Vec<Stored>> {
    connection
        .prepare(&format!(
            "SELECT body, triage FROM alerts {condition} ORDER BY created_at DESC, id LIMIT ?1"
        ))?
        .query_map([limit as i64], |row| stored(connection, row))?
        .collect()
}

pub fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<Stored>> {
    connection
        .query_row("SELECT body, triage FROM alerts WHERE id = ?1", [id], |row| stored(connection, row))
        .optional()
}

fn stored(connection: &Connection, row: &Row<'_>) -> rusqlite::Result<Stored> {
    let (body, triage): (String, String) = (row.get(0)?, row.get(1)?);
    let alert: Alert = parse(&body)?;
    let closing = closings::standing(connection, &alert.id)?;
    Ok(Stored { alert, triage: parse(&triage)?, closing })
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

pub(super) fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
