//! Alerts: saving one together with its rule's cursor, the triage queue, listing.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use super::outbox;
use crate::alert::Alert;
use crate::clock::Timestamp;
use crate::triage::Triage;

/// An alert with where its triage stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stored {
    #[serde(flatten)]
    pub alert: Alert,
    pub triage: Triage,
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
    /// Delivery waits for the verdict until then.
    pub hold_until: Timestamp,
    /// Alerts that may wait for the model at one time.
    pub capacity: usize,
}

/// Saves a new alert with its deliveries and its place in the triage queue. An alert that is there already
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
        Some(queue) => (make_room(tx, alert.level(), queue.capacity, now)?, queue.hold_until),
    };
    let hold_until = if triage == Triage::Pending { hold_until } else { now };
    let inserted = tx
        .prepare_cached(
            "INSERT INTO alerts (id, detector, rule, level, start_s, end_s, created_at, body, triage)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (id) DO NOTHING",
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
        ])?;
    if inserted == 1 {
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

/// The queue is bounded: where it is full, the least urgent of all (lowest level, then newest) goes without.
fn make_room(tx: &Transaction<'_>, level: u8, capacity: usize, now: Timestamp) -> rusqlite::Result<Triage> {
    let full = || Triage::Failed {
        reason: format!(
            "{capacity} alerts of this level or higher were waiting for the model (`triage.queue`)"
        ),
    };
    if waiting_for_triage(tx)? < capacity {
        return Ok(Triage::Pending);
    }
    let least: Option<(String, u8)> = tx
        .prepare_cached(
            "SELECT id, level FROM alerts WHERE triage_state = 'pending'
             ORDER BY level, created_at DESC LIMIT 1",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match least {
        Some((id, its_level)) if its_level < level => {
            settle(tx, &id, &full(), now)?;
            Ok(Triage::Pending)
        }
        _ => Ok(full()),
    }
}

/// Takes the next alert for triage, highest level first and then oldest, and counts the attempt, so that one
/// which ends the process every time is given up after [`MAX_TRIAGE_ATTEMPTS`].
pub fn next_for_triage(tx: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<Option<Alert>> {
    loop {
        let next: Option<(String, u32, String)> = tx
            .prepare_cached(
                "SELECT id, triage_attempts, body FROM alerts WHERE triage_state = 'pending'
                 ORDER BY level DESC, created_at LIMIT 1",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let Some((id, attempts, body)) = next else { return Ok(None) };
        if attempts >= MAX_TRIAGE_ATTEMPTS {
            let reason = format!("watchpost ended {attempts} times while reading this alert");
            settle(tx, &id, &Triage::Failed { reason }, now)?;
            continue;
        }
        tx.prepare_cached("UPDATE alerts SET triage_attempts = triage_attempts + 1 WHERE id = ?1")?
            .execute([&id])?;
        return parse(&body).map(Some);
    }
}

/// Puts an alert back in the queue that was taken from it but not read: shutdown is no attempt.
pub fn return_to_queue(tx: &Transaction<'_>, id: &str) -> rusqlite::Result<()> {
    tx.execute("UPDATE alerts SET triage_attempts = triage_attempts - 1 WHERE id = ?1", [id]).map(drop)
}

/// Saves what triage said, and makes it known to the outbox in the same transaction.
pub fn settle(tx: &Transaction<'_>, id: &str, triage: &Triage, now: Timestamp) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE alerts SET triage = ?2 WHERE id = ?1")?.execute(params![id, json(triage)?])?;
    outbox::on_triage_settled(tx, id, now.as_millisecond())
}

/// Fails every waiting alert with `reason`; says how many.
pub fn settle_all_waiting(tx: &Transaction<'_>, reason: &str, now: Timestamp) -> rusqlite::Result<usize> {
    let ids: Vec<String> = tx
        .prepare("SELECT id FROM alerts WHERE triage_state = 'pending'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in &ids {
        settle(tx, id, &Triage::Failed { reason: reason.to_owned() }, now)?;
    }
    Ok(ids.len())
}

/// Newest first.
pub fn list(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Stored>> {
    connection
        .prepare("SELECT body, triage FROM alerts ORDER BY created_at DESC, id LIMIT ?1")?
        .query_map([limit as i64], stored)?
        .collect()
}

pub fn get(connection: &Connection, id: &str) -> rusqlite::Result<Option<Stored>> {
    connection.query_row("SELECT body, triage FROM alerts WHERE id = ?1", [id], stored).optional()
}

/// How many alerts wait for the model.
pub fn waiting_for_triage(connection: &Connection) -> rusqlite::Result<usize> {
    let waiting: i64 = connection
        .prepare_cached("SELECT count(*) FROM alerts WHERE triage_state = 'pending'")?
        .query_row([], |row| row.get(0))?;
    Ok(usize::try_from(waiting).unwrap_or_default())
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let (body, triage): (String, String) = (row.get(0)?, row.get(1)?);
    Ok(Stored { alert: parse(&body)?, triage: parse(&triage)? })
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Starts of the process that may end while one alert is being read.
const MAX_TRIAGE_ATTEMPTS: u32 = 3;
