//! Series of history: how many alerts ended when, in three rows for each moment: its second, its hour and all time. Any
//! stretch is then the sum of few rows, however many alerts it holds. The table stands in `history::TABLES`.
//!
//! Seconds lie together by the quarter of a day, hours and all time by series, so that the alerts of one time change few
//! pages, whatever they name. With seconds by series too it was some fifteen pages an alert.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::clock::Timestamp;
use crate::triage::history::{Counts, Decided, LATELY_S};

/// The alerts of one entity, one rule, or both.
#[derive(Clone, Copy)]
pub(super) struct Series {
    /// The key of an entity, or [`EVERY`].
    pub entity: i64,
    /// The number of a rule, or [`EVERY`].
    pub rule: i64,
}

/// Alerts, threats, benign.
pub(super) type Sums = [i64; 3];

impl Series {
    /// Counts one alert that ended at `end_s`.
    pub(super) fn add(self, tx: &Transaction<'_>, end_s: i64) -> rusqlite::Result<()> {
        // One row at a time: a statement that writes several keeps a journal of its own.
        let mut insert = tx.prepare_cached(
            "INSERT INTO history (part_s, entity, rule, span_s, start_s, alerts, threats, benign, first_s)
             VALUES (?1, ?2, ?3, ?4, ?5, 1, 0, 0, ?6)
             ON CONFLICT DO UPDATE SET alerts = alerts + 1, first_s = min(first_s, ?6)",
        )?;
        for (part_s, span_s, start_s) in rows_of(end_s) {
            let first_s = (span_s == ALL_TIME).then_some(end_s);
            insert.execute(params![part_s, self.entity, self.rule, span_s, start_s, first_s])?;
        }
        Ok(())
    }

    /// Adds to what was counted at `end_s`.
    pub(super) fn change(self, tx: &Transaction<'_>, end_s: i64, by: Sums) -> rusqlite::Result<()> {
        let mut update = tx.prepare_cached(
            "UPDATE history SET alerts = alerts + ?6, threats = threats + ?7, benign = benign + ?8
             WHERE part_s = ?1 AND entity = ?2 AND rule = ?3 AND span_s = ?4 AND start_s = ?5",
        )?;
        for (part_s, span_s, start_s) in rows_of(end_s) {
            update.execute(params![part_s, self.entity, self.rule, span_s, start_s, by[0], by[1], by[2]])?;
        }
        Ok(())
    }

    /// [`change`](Self::change) of a series that counts no alerts, only what was decided about them.
    pub(super) fn decide(self, tx: &Transaction<'_>, end_s: i64, by: Sums) -> rusqlite::Result<()> {
        let mut upsert = tx.prepare_cached(
            "INSERT INTO history (part_s, entity, rule, span_s, start_s, alerts, threats, benign, first_s)
             VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7, ?8)
             ON CONFLICT DO UPDATE SET threats = threats + ?6, benign = benign + ?7, first_s = min(first_s, ?8)",
        )?;
        for (part_s, span_s, start_s) in rows_of(end_s) {
            let first_s = (span_s == ALL_TIME).then_some(end_s);
            upsert.execute(params![
                part_s,
                self.entity,
                self.rule,
                span_s,
                start_s,
                by[1],
                by[2],
                first_s
            ])?;
        }
        Ok(())
    }

    /// When its first alert ended; `None` where it has none.
    pub(super) fn first_s(self, connection: &Connection) -> rusqlite::Result<Option<i64>> {
        Ok(self.all_time(connection)?.map(|(_, first_s)| first_s))
    }

    fn all_time(self, connection: &Connection) -> rusqlite::Result<Option<(Sums, i64)>> {
        connection
            .prepare_cached(
                "SELECT alerts, threats, benign, first_s FROM history
                 WHERE part_s = ?1 AND entity = ?2 AND rule = ?3 AND span_s = ?4 AND start_s = 0",
            )?
            .query_row([LASTING, self.entity, self.rule, ALL_TIME], |row| {
                Ok(([row.get(0)?, row.get(1)?, row.get(2)?], row.get(3)?))
            })
            .optional()
    }

    /// What was counted of alerts that end before `end_s`. What was decided is that of alerts that end in the same second too, but
    /// not `own`, which is what the alert itself was counted as.
    pub(super) fn before(
        self,
        connection: &Connection,
        end_s: i64,
        own: Option<bool>,
    ) -> rusqlite::Result<Counts> {
        let Some((all, first_s)) = self.all_time(connection)?.filter(|(_, first_s)| *first_s <= end_s) else {
            return Ok(Counts::default());
        };
        let between = |from_s, to_s| self.between(connection, &[HOUR_S, SECOND], from_s, to_s);
        // Each span is the one before it and what lies before that.
        let mut spans = [[0; 3]; LATELY_S.len() + 1];
        let (mut sums, mut known_s) = ([0; 3], 0);
        for (span, length_s) in spans.iter_mut().zip(LATELY_S.into_iter().chain([DAY_S])) {
            let more = between(end_s - length_s, end_s - known_s)?;
            sums.iter_mut().zip(more).for_each(|(sum, more): (&mut i64, i64)| *sum += more);
            (*span, known_s) = (sums, length_s);
        }
        let [_, minutes, hour, _, day] = spans.map(|[alerts, ..]| unsigned(alerts));
        let [_, threats, benign] = between(end_s, end_s + 1)?;
        let now = [threats - i64::from(own == Some(true)), benign - i64::from(own == Some(false))];
        let decided = |[_, threats, benign]: Sums| Decided {
            threats: unsigned(threats + now[0]),
            benign: unsigned(benign + now[1]),
        };
        // What lies behind is little where the alert is new.
        let later = between(end_s, END_OF_TIME_S)?;
        let ever = [0, 1, 2].map(|index| all[index] - later[index]);
        Ok(Counts {
            minutes,
            hour,
            day,
            ever: unsigned(ever[0]),
            decided: decided(ever),
            lately: [0, 1, 2, 3].map(|index| decided(spans[index])),
            first_seen: Timestamp::from_second(first_s).ok().filter(|_| first_s < end_s),
        })
    }

    /// The sum over `[from_s, to_s)`: the longest of `spans` that fit, shorter ones at both ends.
    fn between(
        self,
        connection: &Connection,
        spans: &[i64],
        from_s: i64,
        to_s: i64,
    ) -> rusqlite::Result<Sums> {
        let [span_s, shorter @ ..] = spans else { return Ok([0; 3]) };
        let (first_s, last_s) = (floor(from_s + span_s - 1, *span_s), floor(to_s, *span_s));
        if first_s >= last_s {
            return self.between(connection, shorter, from_s, to_s);
        }
        let middle = self.sum(connection, *span_s, first_s, last_s)?;
        let begin = self.between(connection, shorter, from_s, first_s)?;
        let end = self.between(connection, shorter, last_s, to_s)?;
        Ok([0, 1, 2].map(|index| begin[index] + middle[index] + end[index]))
    }

    /// The sum over the rows of one length that begin in `[from_s, to_s)`.
    fn sum(self, connection: &Connection, span_s: i64, from_s: i64, to_s: i64) -> rusqlite::Result<Sums> {
        let mut select = connection.prepare_cached(
            "SELECT coalesce(sum(alerts), 0), coalesce(sum(threats), 0), coalesce(sum(benign), 0) FROM history
             WHERE part_s = ?1 AND entity = ?2 AND rule = ?3 AND span_s = ?4 AND start_s >= ?5 AND start_s < ?6",
        )?;
        let mut sums = [0; 3];
        let mut part_s = part_of(span_s, from_s);
        while part_s < to_s {
            let some: Sums = select
                .query_row([part_s, self.entity, self.rule, span_s, from_s, to_s], |row| {
                    Ok([row.get(0)?, row.get(1)?, row.get(2)?])
                })?;
            sums.iter_mut().zip(some).for_each(|(sum, more)| *sum += more);
            if part_s == LASTING {
                break;
            }
            part_s += PART_S;
        }
        Ok(sums)
    }
}

/// Part, length and begin of the rows in which a moment is counted.
fn rows_of(end_s: i64) -> [(i64, i64, i64); 3] {
    let row = |span_s| (part_of(span_s, end_s), span_s, floor(end_s, span_s));
    [(LASTING, ALL_TIME, 0), row(HOUR_S), row(SECOND)]
}

fn part_of(span_s: i64, start_s: i64) -> i64 {
    if span_s == SECOND { floor(start_s, PART_S) } else { LASTING }
}

/// The last multiple of `span_s` up to a time.
pub(super) fn floor(time_s: i64, span_s: i64) -> i64 {
    time_s - time_s.rem_euclid(span_s)
}

fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// In the place of an entity or a rule: all of them.
pub(super) const EVERY: i64 = 0;
pub(super) const MINUTES_S: i64 = 600;
const SECOND: i64 = 1;
pub(super) const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
/// The length of the row that counts all.
const ALL_TIME: i64 = 0;
const PART_S: i64 = 21_600;
/// The part of hours and all time; those of seconds are multiples of [`PART_S`].
const LASTING: i64 = -1;
/// After the year 9999, and a multiple of all lengths.
const END_OF_TIME_S: i64 = 3_000_000 * DAY_S;
