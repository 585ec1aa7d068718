//! The tables, step by step. `user_version` counts the steps that a database has seen.

use rusqlite::Connection;

/// Each runs once, in order, in one transaction. A released step is never edited: add another.
const STEPS: &[&str] = &[
    // Times are Unix milliseconds (`_ms`), window borders Unix seconds (`_s`).
    "CREATE TABLE alerts (
        id TEXT PRIMARY KEY,
        detector TEXT NOT NULL,
        rule TEXT NOT NULL,
        level INTEGER NOT NULL,
        start_s INTEGER NOT NULL,
        end_s INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        body TEXT NOT NULL,
        triage TEXT NOT NULL,
        triage_state TEXT GENERATED ALWAYS AS (triage ->> 'state') VIRTUAL,
        triage_attempts INTEGER NOT NULL DEFAULT 0
     ) STRICT;
     CREATE INDEX alerts_by_time ON alerts (created_at);
     CREATE INDEX alerts_waiting ON alerts (level DESC, created_at) WHERE triage_state = 'pending';

     -- Where each rule stands: the end of the last window that was searched with success.
     CREATE TABLE rules (
        detector TEXT NOT NULL,
        rule TEXT NOT NULL,
        cursor_s INTEGER NOT NULL,
        searched_ms INTEGER NOT NULL,
        searches INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (detector, rule)
     ) STRICT, WITHOUT ROWID;

     -- What went wrong with it since: kept apart, so that a good search writes one small row.
     CREATE TABLE rule_problems (
        detector TEXT NOT NULL,
        rule TEXT NOT NULL,
        failures INTEGER NOT NULL DEFAULT 0,
        overlaps INTEGER NOT NULL DEFAULT 0,
        last_error TEXT,
        last_error_ms INTEGER,
        PRIMARY KEY (detector, rule)
     ) STRICT, WITHOUT ROWID;

     -- Rule files that the last start left out, and why.
     CREATE TABLE broken_rules (
        detector TEXT NOT NULL,
        path TEXT NOT NULL,
        problem TEXT NOT NULL
     ) STRICT;

     -- Windows that were given up, and why.
     CREATE TABLE gaps (
        id INTEGER PRIMARY KEY,
        detector TEXT NOT NULL,
        rule TEXT NOT NULL,
        start_s INTEGER NOT NULL,
        end_s INTEGER NOT NULL,
        reason TEXT NOT NULL,
        recorded_ms INTEGER NOT NULL
     ) STRICT;",
    super::outbox::TABLE,
    // Triage in two steps: what waits for the second, and how long both took.
    "CREATE INDEX alerts_judged ON alerts (level DESC, created_at) WHERE triage_state = 'judged';

     ALTER TABLE alerts ADD COLUMN seconds_to_verdict REAL
        GENERATED ALWAYS AS (triage ->> '$.verdict.cost.seconds_to_verdict') VIRTUAL;
     ALTER TABLE alerts ADD COLUMN seconds_to_prose REAL
        GENERATED ALWAYS AS (triage ->> '$.verdict.cost.seconds_to_prose') VIRTUAL;
     ALTER TABLE alerts ADD COLUMN verdict_compute_seconds REAL
        GENERATED ALWAYS AS (triage ->> '$.verdict.cost.verdict_compute_seconds') VIRTUAL;
     ALTER TABLE alerts ADD COLUMN prose_compute_seconds REAL
        GENERATED ALWAYS AS (nullif(triage ->> '$.verdict.cost.prose_compute_seconds', 0.0)) VIRTUAL;
     CREATE INDEX alerts_paces ON alerts
        (created_at, seconds_to_verdict, seconds_to_prose, verdict_compute_seconds, prose_compute_seconds)
        WHERE seconds_to_verdict IS NOT NULL;",
    super::history::TABLES,
    super::closings::TABLE,
    super::judges::TABLES,
    super::alerts::ALIKE,
    super::trust::TABLES,
    super::outbox::RECEIPT,
];

/// Brings the tables up to date.
pub(super) fn run(connection: &mut Connection) -> Result<(), String> {
    let seen = check(connection)?;
    let apply = |connection: &mut Connection| -> rusqlite::Result<()> {
        let transaction = connection.transaction()?;
        for step in &STEPS[seen..] {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", STEPS.len() as i64)?;
        transaction.commit()
    };
    if seen == STEPS.len() { Ok(()) } else { apply(connection).map_err(|error| error.to_string()) }
}

/// Whether the tables are those of this watchpost.
pub(super) fn is_done(connection: &Connection) -> Result<bool, String> {
    Ok(check(connection)? == STEPS.len())
}

/// How many steps the database has seen; refuses one that a newer watchpost wrote.
fn check(connection: &Connection) -> Result<usize, String> {
    let seen: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| error.to_string())?;
    match usize::try_from(seen) {
        Ok(seen) if seen <= STEPS.len() => Ok(seen),
        _ => Err(format!("was written by a newer watchpost (tables {seen}, this one knows {})", STEPS.len())),
    }
}
