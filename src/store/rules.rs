//! Where each rule stands: cursors, gaps, problems.

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::Serialize;

use crate::clock::{Timestamp, Window};

/// The cursor of one rule, in Unix seconds: the end of the last window that was searched with success.
pub fn cursor(connection: &Connection, detector: &str, rule: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT cursor_s FROM rules WHERE detector = ?1 AND rule = ?2")?
        .query_row([detector, rule], |row| row.get(0))
        .optional()
}

pub fn set_cursor(
    tx: &Transaction<'_>,
    detector: &str,
    rule: &str,
    cursor_s: i64,
    now: Timestamp,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO rules (detector, rule, cursor_s, searched_ms, searches) VALUES (?1, ?2, ?3, ?4, 1)
         ON CONFLICT DO UPDATE SET cursor_s = ?3, searched_ms = ?4, searches = searches + 1",
    )?
    .execute(params![detector, rule, cursor_s, now.as_millisecond()])
    .map(drop)
}

/// Counts a search that failed, with its reason.
pub fn record_failure(
    tx: &Transaction<'_>,
    detector: &str,
    rule: &str,
    error: &str,
    now: Timestamp,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO rule_problems (detector, rule, failures, last_error, last_error_ms)
         VALUES (?1, ?2, 1, ?3, ?4)
         ON CONFLICT DO UPDATE SET failures = failures + 1, last_error = ?3, last_error_ms = ?4",
    )?
    .execute(params![detector, rule, error, now.as_millisecond()])
    .map(drop)
}

/// Counts a tick that was due while the rule's last one still ran.
pub fn record_overlap(tx: &Transaction<'_>, detector: &str, rule: &str) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO rule_problems (detector, rule, overlaps) VALUES (?1, ?2, 1)
         ON CONFLICT DO UPDATE SET overlaps = overlaps + 1",
    )?
    .execute([detector, rule])
    .map(drop)
}

/// A window that was not searched and will not be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gap {
    pub detector: String,
    pub rule: String,
    pub window: Window,
    pub reason: String,
    pub recorded_at: Timestamp,
}

pub fn record_gap(tx: &Transaction<'_>, gap: &Gap) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO gaps (detector, rule, start_s, end_s, reason, recorded_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            gap.detector,
            gap.rule,
            gap.window.start.as_second(),
            gap.window.end.as_second(),
            gap.reason,
            gap.recorded_at.as_millisecond()
        ],
    )
    .map(drop)
}

/// Newest first.
pub fn gaps(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Gap>> {
    connection
        .prepare(
            "SELECT detector, rule, start_s, end_s, reason, recorded_ms FROM gaps ORDER BY id DESC LIMIT ?1",
        )?
        .query_map([limit as i64], |row| {
            let window = Window { start: seconds(row.get(2)?)?, end: seconds(row.get(3)?)? };
            Ok(Gap {
                detector: row.get(0)?,
                rule: row.get(1)?,
                window,
                reason: row.get(4)?,
                recorded_at: milliseconds(row.get(5)?)?,
            })
        })?
        .collect()
}

/// Replaces the list of rule files that this start left out.
pub fn set_broken(tx: &Transaction<'_>, broken: &[(String, String, String)]) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM broken_rules", [])?;
    for (detector, path, problem) in broken {
        tx.prepare_cached("INSERT INTO broken_rules (detector, path, problem) VALUES (?1, ?2, ?3)")?
            .execute([detector, path, problem])?;
    }
    Ok(())
}

/// One rule's line in `watchpost status`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    pub detector: String,
    pub rule: String,
    /// Searched with success up to here; absent before the first success.
    pub searched_to: Option<Timestamp>,
    pub searches: i64,
    pub failures: i64,
    /// Ticks that were due while the last one still ran.
    pub overlaps: i64,
    pub last_error: Option<String>,
    pub last_error_at: Option<Timestamp>,
}

pub fn standings(connection: &Connection) -> rusqlite::Result<Vec<Standing>> {
    connection
        .prepare(
            "SELECT detector, rule, cursor_s, coalesce(searches, 0), coalesce(failures, 0),
                    coalesce(overlaps, 0), last_error, last_error_ms
             FROM rules FULL JOIN rule_problems USING (detector, rule) ORDER BY detector, rule",
        )?
        .query_map([], |row| {
            Ok(Standing {
                detector: row.get(0)?,
                rule: row.get(1)?,
                searched_to: row.get::<_, Option<i64>>(2)?.map(seconds).transpose()?,
                searches: row.get(3)?,
                failures: row.get(4)?,
                overlaps: row.get(5)?,
                last_error: row.get(6)?,
                last_error_at: row.get::<_, Option<i64>>(7)?.map(milliseconds).transpose()?,
            })
        })?
        .collect()
}

/// `(detector, path, problem)` of each rule file that the last start left out.
pub fn broken(connection: &Connection) -> rusqlite::Result<Vec<(String, String, String)>> {
    connection
        .prepare("SELECT detector, path, problem FROM broken_rules ORDER BY detector, path")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect()
}

fn seconds(seconds: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_second(seconds).map_err(out_of_range)
}

pub(super) fn milliseconds(milliseconds: i64) -> rusqlite::Result<Timestamp> {
    Timestamp::from_millisecond(milliseconds).map_err(out_of_range)
}

fn out_of_range(error: jiff::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Integer, Box::new(error))
}
