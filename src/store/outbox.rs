//! The outbox: each message to each webhook is a row, from the moment its alert is saved until it is delivered
//! or given up. A message is delivered at least once; every attempt carries the same key and says the same.
//!
//! A row goes `due` → `sending` → `done`, back to `due`, or `dead`. Nothing but [`retry`] leads out of `dead`.

use rusqlite::{Connection, Row, Transaction, params};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::trust::TOLD;

/// The outbox's table. Times are Unix milliseconds.
pub const TABLE: &str = "
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY,
        alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
        webhook TEXT NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('alert', 'update')),
        state TEXT NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'sending', 'done', 'dead')),
        level INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        next_attempt_at INTEGER NOT NULL,
        first_attempt_at INTEGER,
        last_status INTEGER,
        last_answer TEXT,
        -- What triage said when the first attempt was made: the alert's `triage`, frozen. NULL before it.
        told TEXT,
        idempotency_key TEXT NOT NULL,
        UNIQUE (alert_id, webhook, kind)
    ) STRICT;
    CREATE INDEX deliveries_due ON deliveries (webhook, next_attempt_at) WHERE state = 'due';
    CREATE INDEX deliveries_sending ON deliveries (id) WHERE state = 'sending';
    CREATE INDEX deliveries_dead ON deliveries (id) WHERE state = 'dead';";

/// Where the destination put a message: a number or a name there, out of its answer.
pub const RECEIPT: &str = "ALTER TABLE deliveries ADD COLUMN receipt TEXT;";

/// What a delivery tells: the alert, or what triage added after a message that went out before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Alert,
    Update,
}

/// A webhook, and how many messages it may be given now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    pub webhook: String,
    pub free: usize,
}

/// A delivery that is being attempted, by who claimed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub id: i64,
    pub alert_id: String,
    pub webhook: String,
    pub kind: Kind,
    /// This one included.
    pub attempts: u32,
    pub first_attempt_at: i64,
    pub idempotency_key: String,
}

/// What a claim is to tell, as JSON of the alert and of its triage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub alert: String,
    pub triage: String,
    /// Where the destination put the alert's first message, as it said when it took that.
    pub receipt: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub outcome: Outcome,
    /// The receiver's HTTP status, where it gave one.
    pub status: Option<u16>,
    /// The receiver's words or the reason, escaped and bounded by the caller.
    pub answer: String,
    /// Where the destination put the message, for the update that may follow.
    pub receipt: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// To be attempted again, in Unix milliseconds.
    Again {
        at: i64,
    },
    Dead,
}

/// A delivery as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delivery {
    pub id: i64,
    pub alert_id: String,
    pub webhook: String,
    /// `alert` or `update`.
    pub kind: String,
    /// `due`, `sending`, `done` or `dead`.
    pub state: String,
    pub level: u8,
    pub attempts: u32,
    /// This and the next: Unix milliseconds.
    pub created_at: i64,
    pub next_attempt_at: i64,
    pub last_status: Option<u16>,
    pub last_answer: Option<String>,
    pub idempotency_key: String,
}

/// What [`retry`] puts back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    One(i64),
    AllDead,
}

/// Makes one delivery for each webhook. The first attempt waits until `hold_until`, so that verdict and prose can
/// come along; an alert that waits for none has `hold_until` = `now`.
pub fn create(
    tx: &Transaction<'_>,
    alert_id: &str,
    level: u8,
    webhooks: &[String],
    now: i64,
    hold_until: i64,
) -> rusqlite::Result<()> {
    webhooks.iter().try_for_each(|webhook| insert(tx, alert_id, level, webhook, Kind::Alert, now, hold_until))
}

/// Takes what is due for `webhooks`, at most as many as each has free: highest level first, then oldest.
///
/// The first claim of a delivery freezes what it tells of triage. An update is not claimed before the message
/// that it follows is done or dead.
pub fn claim_due(tx: &Transaction<'_>, webhooks: &[Slots], now: i64) -> rusqlite::Result<Vec<Claim>> {
    let mut select = tx.prepare_cached(
        "SELECT id FROM deliveries AS this
         WHERE webhook = ?1 AND state = 'due' AND next_attempt_at <= ?2
           AND (kind = 'alert' OR NOT EXISTS (
                SELECT 1 FROM deliveries AS first
                WHERE first.alert_id = this.alert_id AND first.webhook = this.webhook
                  AND first.kind = 'alert' AND first.state IN ('due', 'sending')))
         ORDER BY level DESC, created_at, id LIMIT ?3",
    )?;
    let mut take = tx.prepare_cached(&format!(
        "UPDATE deliveries
         SET state = 'sending', attempts = attempts + 1, first_attempt_at = coalesce(first_attempt_at, ?2),
             told = coalesce(told, (SELECT {TOLD} FROM alerts WHERE alerts.id = deliveries.alert_id))
         WHERE id = ?1
         RETURNING id, alert_id, webhook, kind, attempts, first_attempt_at, idempotency_key"
    ))?;
    let mut claims = Vec::new();
    for slots in webhooks {
        let ids: Vec<i64> = select
            .query_map(params![slots.webhook, now, slots.free as i64], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for id in ids {
            claims.push(take.query_row(params![id, now], claim)?);
        }
    }
    Ok(claims)
}

/// What claim `id` is to tell.
pub fn content(connection: &Connection, id: i64) -> rusqlite::Result<Content> {
    connection
        .prepare_cached(
            "SELECT body, this.told, first.receipt
             FROM deliveries AS this
             JOIN alerts ON alerts.id = this.alert_id
             LEFT JOIN deliveries AS first ON first.alert_id = this.alert_id AND first.webhook = this.webhook
                  AND first.kind = 'alert'
             WHERE this.id = ?1",
        )?
        .query_row([id], |row| Ok(Content { alert: row.get(0)?, triage: row.get(1)?, receipt: row.get(2)? }))
}

/// Records how the attempt of a claim ended.
pub fn finish(tx: &Transaction<'_>, id: i64, ended: &Ended, now: i64) -> rusqlite::Result<()> {
    let (state, next) = match ended.outcome {
        Outcome::Done => ("done", now),
        Outcome::Again { at } => ("due", at),
        Outcome::Dead => ("dead", now),
    };
    tx.prepare_cached(
        "UPDATE deliveries
         SET state = ?2, next_attempt_at = ?3, last_status = ?4, last_answer = ?5, receipt = coalesce(?6, receipt)
         WHERE id = ?1 AND state = 'sending'",
    )?
    .execute(params![id, state, next, ended.status, ended.answer, ended.receipt])
    .map(drop)
}

/// The destination asked for a pause: what else is due to it waits until then too, so that it is not asked again by
/// each of them.
pub fn postpone(tx: &Transaction<'_>, webhook: &str, until: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE deliveries SET next_attempt_at = ?2
         WHERE webhook = ?1 AND state = 'due' AND next_attempt_at < ?2",
    )?
    .execute(params![webhook, until])
    .map(drop)
}

/// When the next delivery to one of `webhooks` falls due after `now`; those due by now are what [`claim_due`]
/// is for.
pub fn next_due(connection: &Connection, webhooks: &[Slots], now: i64) -> rusqlite::Result<Option<i64>> {
    let mut select = connection.prepare_cached(
        "SELECT min(next_attempt_at) FROM deliveries WHERE webhook = ?1 AND state = 'due' AND next_attempt_at > ?2",
    )?;
    let mut next: Option<i64> = None;
    for slots in webhooks {
        let due: Option<i64> = select.query_row(params![slots.webhook, now], |row| row.get(0))?;
        next = next.into_iter().chain(due).min();
    }
    Ok(next)
}

/// Deliveries of an alert that wait for triage are due at once, with what is known.
pub fn on_judged(tx: &Transaction<'_>, alert_id: &str, now: i64) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE deliveries SET next_attempt_at = min(next_attempt_at, ?2)
         WHERE alert_id = ?1 AND state = 'due' AND told IS NULL",
    )?
    .execute(params![alert_id, now])
    .map(drop)
}

/// To be called in the transaction that stores what triage said of an alert: deliveries that waited for it are
/// due at once, and those that already went out as `pending` or `judged` get their update, once.
pub fn on_triage_settled(tx: &Transaction<'_>, alert_id: &str, now: i64) -> rusqlite::Result<()> {
    on_judged(tx, alert_id, now)?;
    let early: Vec<(String, u8)> = tx
        .prepare_cached(
            "SELECT webhook, level FROM deliveries
             WHERE alert_id = ?1 AND kind = 'alert' AND told ->> 'state' IN ('pending', 'judged')",
        )?
        .query_map([alert_id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    early
        .iter()
        .try_for_each(|(webhook, level)| insert(tx, alert_id, *level, webhook, Kind::Update, now, now))
}

/// After a start: what was being sent when the process ended is due at once, with its old key. The receiver may
/// have had it; that is what the key is for. Returns how many there were.
pub fn recover(tx: &Transaction<'_>, now: i64) -> rusqlite::Result<usize> {
    tx.execute("UPDATE deliveries SET state = 'due', next_attempt_at = ?1 WHERE state = 'sending'", [now])
}

/// Deliveries to webhooks that the configuration no longer has go to the dead letters, where people see them.
/// Returns how many there were.
pub fn bury_unknown(tx: &Transaction<'_>, known: &[String]) -> rusqlite::Result<usize> {
    let orphans: Vec<String> = tx
        .prepare("SELECT DISTINCT webhook FROM deliveries WHERE state = 'due'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut buried = 0;
    for webhook in orphans.iter().filter(|webhook| !known.contains(webhook)) {
        buried += tx.execute(
            "UPDATE deliveries SET state = 'dead', last_answer = 'the configuration has no such webhook any more'
             WHERE state = 'due' AND webhook = ?1",
            [webhook],
        )?;
    }
    Ok(buried)
}

/// Newest first.
pub fn list(connection: &Connection, dead_only: bool, limit: usize) -> rusqlite::Result<Vec<Delivery>> {
    let filter = if dead_only { "WHERE state = 'dead'" } else { "" };
    connection
        .prepare(&format!(
            "SELECT id, alert_id, webhook, kind, state, level, attempts, created_at, next_attempt_at, last_status,
                    last_answer, idempotency_key
             FROM deliveries {filter} ORDER BY id DESC LIMIT ?1"
        ))?
        .query_map([limit as i64], delivery)?
        .collect()
}

/// How many deliveries are on their way (waiting or being sent), and how many are dead.
pub fn backlog(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let count = |states: &str| -> rusqlite::Result<i64> {
        connection
            .prepare_cached(&format!("SELECT count(*) FROM deliveries WHERE {states}"))?
            .query_row([], |row| row.get(0))
    };
    let (waiting, sending, dead) =
        (count("state = 'due'")?, count("state = 'sending'")?, count("state = 'dead'")?);
    Ok(((waiting + sending).unsigned_abs(), dead.unsigned_abs()))
}

/// Makes dead letters due again, with their old key, for another day of attempts; one that is still waiting for
/// its next attempt is brought forward. Returns how many there were.
pub fn retry(tx: &Transaction<'_>, which: Which, now: i64) -> rusqlite::Result<usize> {
    let set =
        "UPDATE deliveries SET state = 'due', next_attempt_at = ?1, first_attempt_at = NULL, attempts = 0";
    match which {
        Which::One(id) => {
            tx.execute(&format!("{set} WHERE id = ?2 AND state IN ('dead', 'due')"), params![now, id])
        }
        Which::AllDead => tx.execute(&format!("{set} WHERE state = 'dead'"), [now]),
    }
}

/// The same for every attempt of one delivery. 32 hexadecimal digits.
pub fn idempotency_key(alert_id: &str, webhook: &str, kind: Kind) -> String {
    let mut hash = Sha256::new();
    for part in [alert_id, webhook, kind.as_str()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn insert(
    tx: &Transaction<'_>,
    alert_id: &str,
    level: u8,
    webhook: &str,
    kind: Kind,
    now: i64,
    due: i64,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO deliveries (alert_id, webhook, kind, level, created_at, next_attempt_at, idempotency_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (alert_id, webhook, kind) DO NOTHING",
    )?
    .execute(params![alert_id, webhook, kind.as_str(), level, now, due, idempotency_key(alert_id, webhook, kind)])
    .map(drop)
}

fn claim(row: &Row<'_>) -> rusqlite::Result<Claim> {
    Ok(Claim {
        id: row.get(0)?,
        alert_id: row.get(1)?,
        webhook: row.get(2)?,
        kind: Kind::of(&row.get::<_, String>(3)?),
        attempts: row.get(4)?,
        first_attempt_at: row.get(5)?,
        idempotency_key: row.get(6)?,
    })
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get(0)?,
        alert_id: row.get(1)?,
        webhook: row.get(2)?,
        kind: row.get(3)?,
        state: row.get(4)?,
        level: row.get(5)?,
        attempts: row.get(6)?,
        created_at: row.get(7)?,
        next_attempt_at: row.get(8)?,
        last_status: row.get(9)?,
        last_answer: row.get(10)?,
        idempotency_key: row.get(11)?,
    })
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Update => "update",
        }
    }

    /// The table's CHECK admits these two only.
    fn of(text: &str) -> Self {
        if text == "update" { Self::Update } else { Self::Alert }
    }
}

#[cfg(test)]
mod tests;
