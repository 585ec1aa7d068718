//! Closings: rows that are only added, and marked where they were undone.

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::rules::milliseconds;
use super::{history, judges, measured};
use crate::clock::Timestamp;
use crate::closing::{Closing, Decision, Label, MACHINE};
use crate::text::escape_within;

/// `at_ms` is when the analyst decided, `recorded_ms` when we heard of it. From `source` on stands what is measured of
/// the alert, as it was when the closing was recorded: of an alert with megabytes of rows, measures would read them all.
/// `judge` is NULL where the verdict was still to come, and empty where none would.
pub(super) const TABLE: &str = "CREATE TABLE closings (
        id INTEGER PRIMARY KEY,
        alert_id TEXT NOT NULL REFERENCES alerts (id),
        label TEXT NOT NULL,
        reason TEXT NOT NULL,
        analyst TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        recorded_ms INTEGER NOT NULL,
        undone_at_ms INTEGER,
        undone_by TEXT,
        source TEXT NOT NULL,
        family TEXT NOT NULL,
        rule TEXT NOT NULL,
        end_s INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        judge TEXT,
        model TEXT,
        probability REAL,
        said INTEGER,
        seconds_to_verdict REAL
     ) STRICT;
     CREATE INDEX closings_of_alert ON closings (alert_id, at_ms);
     CREATE INDEX closings_by_analyst ON closings (analyst, at_ms);
     CREATE INDEX closings_by_time ON closings (at_ms);";

/// What became of a decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Added {
    New {
        alert_id: String,
        /// What stood before; `None` where the alert was open.
        before: Option<Label>,
        /// What stands now: not this decision where a later one was there.
        now: Label,
    },
    /// The same decision is on record: nothing was added. One that was undone stays undone.
    Known {
        is_undone: bool,
    },
    NoAlert(NoAlert),
}

/// Why an id names no alert.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoAlert {
    #[error("no alert `{0}`")]
    Unknown(String),
    #[error("`{0}` begins the ids of several alerts: give more digits")]
    Ambiguous(String),
    #[error("`{0}` is no alert: give its id, or at least its first {MIN_PREFIX} digits")]
    Short(String),
}

/// Closes an alert: a deed of now. It is known where what stands is the same analyst's, with label and reason.
pub fn close(tx: &Transaction<'_>, decision: &Decision, now: Timestamp) -> rusqlite::Result<Added> {
    let alert_id = match alert_of(tx, &decision.alert)? {
        Ok(id) => id,
        Err(no_alert) => return Ok(Added::NoAlert(no_alert)),
    };
    let before = standing(tx, &alert_id)?;
    let is_known = before.as_ref().is_some_and(|closing| {
        (closing.label, &closing.reason, &closing.analyst)
            == (decision.label, &decision.reason, &decision.analyst)
    });
    if is_known { Ok(Added::Known { is_undone: false }) } else { add(tx, alert_id, before, decision, now) }
}

/// Takes over a decision that was made elsewhere, once: it is known where its analyst, label, reason and time are on
/// record; without a time, where the other three are. One that was undone stays undone.
pub fn import(tx: &Transaction<'_>, decision: &Decision, now: Timestamp) -> rusqlite::Result<Added> {
    let alert_id = match alert_of(tx, &decision.alert)? {
        Ok(id) => id,
        Err(no_alert) => return Ok(Added::NoAlert(no_alert)),
    };
    let Decision { label, reason, analyst, at, .. } = decision;
    let at_ms = at.map(Timestamp::as_millisecond);
    let known = tx
        .prepare_cached(
            // By the alert's closings, which are few: not by the analyst's, for which there is an index, too.
            "SELECT undone_at_ms IS NOT NULL FROM closings INDEXED BY closings_of_alert
             WHERE alert_id = ?1 AND at_ms = coalesce(?2, at_ms) AND analyst = ?3 AND label = ?4 AND reason = ?5
             ORDER BY undone_at_ms IS NOT NULL LIMIT 1",
        )?
        .query_row(params![alert_id, at_ms, analyst, label.as_str(), reason], |row| row.get(0))
        .optional()?;
    if let Some(is_undone) = known {
        return Ok(Added::Known { is_undone });
    }
    let before = standing(tx, &alert_id)?;
    add(tx, alert_id, before, decision, now)
}

/// Closes an open alert in the machine's name: a false positive, for it is trusted with nothing else.
pub(super) fn close_alone(
    tx: &Transaction<'_>,
    alert_id: &str,
    reason: String,
    now: Timestamp,
) -> rusqlite::Result<()> {
    if standing(tx, alert_id)?.is_some() {
        return Ok(());
    }
    let (alert, analyst) = (alert_id.to_owned(), MACHINE.to_owned());
    let decision = Decision { alert, label: Label::FalsePositive, reason, analyst, at: None };
    add(tx, alert_id.to_owned(), None, &decision, now).map(drop)
}

fn add(
    tx: &Transaction<'_>,
    alert_id: String,
    before: Option<Closing>,
    decision: &Decision,
    now: Timestamp,
) -> rusqlite::Result<Added> {
    let Decision { label, reason, analyst, at, .. } = decision;
    let at = at.unwrap_or(now);
    let triage: String = tx
        .prepare_cached("SELECT triage FROM alerts WHERE id = ?1")?
        .query_row([&alert_id], |row| row.get(0))?;
    let opinion = measured::opinion(&triage);
    tx.prepare_cached(
        "INSERT INTO closings (alert_id, label, reason, analyst, at_ms, recorded_ms, source, family, rule, end_s, created_ms,
            judge, model, probability, said, seconds_to_verdict, basis, is_blind)
         SELECT id, ?2, ?3, ?4, ?5, ?6, coalesce(body ->> '$.datasource.type', ''), coalesce(body ->> '$.rule.group', ''),
            rule, end_s, created_at, ?7, ?8, ?9, ?10, ?11, basis,
            is_blind AND NOT EXISTS (SELECT 1 FROM closings WHERE alert_id = ?1 AND analyst <> ?12)
         FROM alerts WHERE id = ?1",
    )?
    .execute(params![
        alert_id,
        label.as_str(),
        reason,
        analyst,
        at.as_millisecond(),
        now.as_millisecond(),
        opinion.as_ref().map(|opinion| &opinion.judge),
        opinion.as_ref().map(|opinion| &opinion.model),
        opinion.as_ref().and_then(|opinion| opinion.probability),
        opinion.as_ref().and_then(|opinion| opinion.said),
        opinion.as_ref().and_then(|opinion| opinion.seconds_to_verdict),
        MACHINE,
    ])?;
    recount(tx, &alert_id, before.as_ref().and_then(decides))?;
    // An older decision that arrives late does not stand before a newer one of a person.
    let is_older = before
        .as_ref()
        .is_some_and(|before| before.analyst != MACHINE && before.at.as_millisecond() > at.as_millisecond());
    let before = before.map(|before| before.label);
    let now = if is_older { before.unwrap_or(*label) } else { *label };
    Ok(Added::New { alert_id, before, now })
}

/// Undoes the closing of an alert that stands. Says which it was; the one before it stands again.
pub fn undo(
    tx: &Transaction<'_>,
    alert_id: &str,
    by: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Closing>> {
    let undone = standing(tx, alert_id)?;
    if let Some(closing) = &undone {
        tx.prepare_cached(
            "UPDATE closings SET undone_at_ms = ?2, undone_by = ?3 WHERE id = (
                SELECT id FROM closings WHERE alert_id = ?1 AND undone_at_ms IS NULL
                ORDER BY analyst = 'watchpost', at_ms DESC, id DESC LIMIT 1)",
        )?
        .execute(params![alert_id, now.as_millisecond(), by])?;
        recount(tx, alert_id, decides(closing))?;
    }
    Ok(undone)
}

/// Undoes all closings that `analyst` made from `since` on. Gives the ids of their alerts, each once.
pub fn undo_by(
    tx: &Transaction<'_>,
    analyst: &str,
    since: Timestamp,
    by: &str,
    now: Timestamp,
) -> rusqlite::Result<Vec<String>> {
    let ids: Vec<String> = tx
        .prepare_cached(
            "SELECT DISTINCT alert_id FROM closings
             WHERE analyst = ?1 AND at_ms >= ?2 AND undone_at_ms IS NULL ORDER BY alert_id",
        )?
        .query_map(params![analyst, since.as_millisecond()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let before = ids.iter().map(|id| counted_as(tx, id)).collect::<rusqlite::Result<Vec<_>>>()?;
    tx.prepare_cached(
        "UPDATE closings SET undone_at_ms = ?3, undone_by = ?4
         WHERE analyst = ?1 AND at_ms >= ?2 AND undone_at_ms IS NULL",
    )?
    .execute(params![analyst, since.as_millisecond(), now.as_millisecond(), by])?;
    for (id, before) in ids.iter().zip(before) {
        recount(tx, id, before)?;
    }
    Ok(ids)
}

/// Brings the history of what was decided in line with the closing that stands now; `before` is what it counted until now.
fn recount(tx: &Transaction<'_>, alert_id: &str, before: Option<bool>) -> rusqlite::Result<()> {
    let after = counted_as(tx, alert_id)?;
    if before == after {
        return Ok(());
    }
    judges::changed(tx)?;
    history::decided(tx, alert_id, before, after)
}

/// What the closing that stands says for the history of later alerts; `None` where nothing.
pub(super) fn counted_as(connection: &Connection, alert_id: &str) -> rusqlite::Result<Option<bool>> {
    Ok(standing(connection, alert_id)?.as_ref().and_then(decides))
}

/// What a closing says for the history of later alerts: the machine's own says nothing.
fn decides(closing: &Closing) -> Option<bool> {
    closing.label.is_threat().filter(|_| closing.analyst != MACHINE)
}

/// The closing that stands: of those that were not undone a person's, then the newest by its time, then by its record.
pub fn standing(connection: &Connection, alert_id: &str) -> rusqlite::Result<Option<Closing>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM closings WHERE alert_id = ?1 AND undone_at_ms IS NULL
             ORDER BY analyst = 'watchpost', at_ms DESC, id DESC LIMIT 1"
        ))?
        .query_row([alert_id], closing)
        .optional()
}

/// Every closing on record, undone ones too, newest first; of one alert or one analyst where they are given.
pub fn list(
    connection: &Connection,
    alert_id: Option<&str>,
    analyst: Option<&str>,
    limit: usize,
) -> rusqlite::Result<Vec<Closing>> {
    let (filter, value) = match (alert_id, analyst) {
        (Some(alert_id), _) => ("alert_id = ?1", alert_id),
        (None, Some(analyst)) => ("analyst = ?1", analyst),
        (None, None) => ("?1 = ''", ""),
    };
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM closings WHERE {filter} ORDER BY at_ms DESC, id DESC LIMIT ?2"
        ))?
        .query_map(params![value, limit as i64], closing)?
        .collect()
}

/// The id of the alert that `text` names: an id, or what only one id begins with.
pub fn alert_of(connection: &Connection, text: &str) -> rusqlite::Result<Result<String, NoAlert>> {
    let is_there = connection
        .prepare_cached("SELECT 1 FROM alerts WHERE id = ?1")?
        .query_row([text], |_| Ok(()))
        .optional()?;
    if is_there.is_some() {
        return Ok(Ok(text.to_owned()));
    }
    if text.chars().count() < MIN_PREFIX {
        return Ok(Err(NoAlert::Short(escape_within(text, SHOWN))));
    }
    let mut found: Vec<String> = connection
        .prepare_cached(
            "SELECT id FROM alerts WHERE id >= ?1 AND id < ?1 || char(0x10ffff) ORDER BY id LIMIT 2",
        )?
        .query_map([text.to_ascii_lowercase()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(match (found.pop(), found.is_empty()) {
        (Some(id), true) => Ok(id),
        (Some(_), false) => Err(NoAlert::Ambiguous(escape_within(text, SHOWN))),
        (None, _) => Err(NoAlert::Unknown(escape_within(text, SHOWN))),
    })
}

fn closing(row: &Row<'_>) -> rusqlite::Result<Closing> {
    let time = |column| -> rusqlite::Result<Option<Timestamp>> {
        row.get::<_, Option<i64>>(column)?.map(milliseconds).transpose()
    };
    Ok(Closing {
        alert_id: row.get(0)?,
        label: label_at(row, 1)?,
        reason: row.get(2)?,
        analyst: row.get(3)?,
        at: milliseconds(row.get(4)?)?,
        recorded_at: milliseconds(row.get(5)?)?,
        undone_at: time(6)?,
        undone_by: row.get(7)?,
    })
}

pub(super) fn label_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Label> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|()| {
        rusqlite::Error::InvalidColumnType(column, text.to_owned(), rusqlite::types::Type::Text)
    })
}

const COLUMNS: &str = "alert_id, label, reason, analyst, at_ms, recorded_ms, undone_at_ms, undone_by";
/// Digits of an id that may stand for it.
const MIN_PREFIX: usize = 4;
/// Characters of an id that is not one.
const SHOWN: usize = 40;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{store, with};
    use super::*;
    use crate::triage::testing;

    fn decision(alert: &str, label: Label, analyst: &str, at: Option<i64>) -> Decision {
        let at = at.map(|at| Timestamp::from_second(at).unwrap());
        Decision { alert: alert.into(), label, reason: "x".into(), analyst: analyst.into(), at }
    }

    fn stands(store: &Connection, id: &str) -> Option<Label> {
        standing(store, id).unwrap().map(|closing| closing.label)
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn history_counts_what_stands() {
        let mut store = store(&["aaaa0", "aaaa1"]);
        let mut later = testing::alert(50, json!([{ "user": "root" }]));
        let end = later.window.end.as_second();
        later.window = crate::clock::Window::from_seconds(end + 60, end + 120).unwrap();
        let (tp, fp, dup) = (Label::TruePositive, Label::FalsePositive, Label::Duplicate);
        for (id, label, analyst) in [
            ("aaaa0", tp, "ann"),
            ("aaaa0", fp, "bob"),
            ("aaaa0", fp, "cid"),
            ("aaaa1", fp, "bob"),
            ("aaaa1", dup, "ann"),
        ] {
            with(&mut store, |tx| close(tx, &decision(id, label, analyst, None), now()));
        }
        let decided = |store: &Connection| {
            let history = history::look_up(store, &later).unwrap();
            let of = |counts: crate::triage::history::Counts| (counts.decided.threats, counts.decided.benign);
            assert_eq!(of(history.rule), of(history.pairs[0].1));
            of(history.rule)
        };
        assert_eq!(decided(&store), (0, 1), "a duplicate is in neither");
        with(&mut store, |tx| undo_by(tx, "cid", now(), "ann", now()));
        assert_eq!(decided(&store), (0, 1));
        with(&mut store, |tx| undo_by(tx, "bob", now(), "ann", now()));
        assert_eq!(decided(&store), (1, 0));
        with(&mut store, |tx| undo(tx, "aaaa1", "ann", now()));
        with(&mut store, |tx| undo(tx, "aaaa0", "ann", now()));
        assert_eq!(decided(&store), (0, 0));
    }

    #[test]
    fn the_newest_that_was_not_undone_stands() {
        let mut store = store(&["aaaa0"]);
        let mut import = |label, analyst, at| {
            with(&mut store, |tx| import(tx, &decision("aaaa0", label, analyst, Some(at)), now()))
        };
        let new = |before, now| Added::New { alert_id: "aaaa0".into(), before, now };
        let (tp, fp, ne) = (Label::TruePositive, Label::FalsePositive, Label::NotEvaluable);
        assert_eq!(import(tp, "ann", 100), new(None, tp));
        assert_eq!(import(fp, "bob", 300), new(Some(tp), fp));
        assert_eq!(import(ne, "ann", 200), new(Some(fp), fp), "it came late and is older");
        for expected in [Some(fp), Some(ne), Some(tp), None] {
            assert_eq!(stands(&store, "aaaa0"), expected);
            let undone = with(&mut store, |tx| undo(tx, "aaaa0", "ann", now()));
            assert_eq!(undone.map(|closing| closing.label), expected);
        }
        let all = list(&store, Some("aaaa0"), None, 10).unwrap();
        assert!(
            all.len() == 3 && all.iter().all(|closing| closing.undone_by.as_deref() == Some("ann")),
            "none is lost"
        );
    }

    #[test]
    fn the_same_line_twice_adds_nothing_also_after_it_was_undone() {
        for at in [None, Some(100)] {
            let mut store = store(&["aaaa0"]);
            let lines = [
                decision("aaaa0", Label::FalsePositive, "ann", at),
                decision("aaaa0", Label::TruePositive, "ann", at),
            ];
            let mut run = || lines.each_ref().map(|line| with(&mut store, |tx| import(tx, line, now())));
            assert!(run().iter().all(|added| matches!(added, Added::New { .. })));
            assert_eq!(run(), [Added::Known { is_undone: false }, Added::Known { is_undone: false }]);
            with(&mut store, |tx| undo_by(tx, "ann", Timestamp::UNIX_EPOCH, "bob", now()));
            let mut run = || lines.each_ref().map(|line| with(&mut store, |tx| import(tx, line, now())));
            assert_eq!(run(), [Added::Known { is_undone: true }, Added::Known { is_undone: true }]);
            assert_eq!(stands(&store, "aaaa0"), None);
        }
    }

    #[test]
    fn who_undid_a_closing_can_make_it_again() {
        let mut store = store(&["aaaa0"]);
        let fp = decision("aaaa0", Label::FalsePositive, "ann", None);
        for expected in [true, false] {
            let added = with(&mut store, |tx| close(tx, &fp, now()));
            assert_eq!(matches!(added, Added::New { .. }), expected);
        }
        with(&mut store, |tx| undo(tx, "aaaa0", "ann", now()));
        assert!(matches!(with(&mut store, |tx| close(tx, &fp, now())), Added::New { before: None, .. }));
    }

    #[test]
    fn a_burst_is_undone_from_a_time_on_and_no_one_elses() {
        let mut store = store(&["aaaa0", "aaaa1", "aaaa2"]);
        for (id, analyst, at) in
            [("aaaa0", "eve", 100), ("aaaa1", "eve", 200), ("aaaa1", "eve", 201), ("aaaa2", "ann", 300)]
        {
            with(&mut store, |tx| import(tx, &decision(id, Label::FalsePositive, analyst, Some(at)), now()));
        }
        let since = Timestamp::from_second(200).unwrap();
        let undone = with(&mut store, |tx| undo_by(tx, "eve", since, "ann", now()));
        assert_eq!(undone, ["aaaa1"]);
        assert_eq!(["aaaa0", "aaaa1", "aaaa2"].map(|id| stands(&store, id).is_some()), [true, false, true]);
    }

    #[test]
    fn an_id_may_be_cut_to_what_is_one_alerts_alone() {
        let store = store(&["aaaa0", "aaaa1", "bbbb0"]);
        let of = |text| alert_of(&store, text).unwrap();
        assert_eq!(of("bbbb"), Ok("bbbb0".into()));
        assert_eq!(of("BBBB0"), Ok("bbbb0".into()));
        assert_eq!(of("aaaa1"), Ok("aaaa1".into()));
        for (text, words) in [
            ("aaaa", "several alerts"),
            ("bbb", "first 4 digits"),
            ("cccc\u{1b}[2J", "no alert `cccc\\u{1b}[2J`"),
            ("%%%%", "no alert"),
            ("", "first 4 digits"),
        ] {
            let error = of(text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
