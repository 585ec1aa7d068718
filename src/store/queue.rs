//! The triage queue: alerts that wait for their verdict, and those that have it and wait for the model's prose. An
//! alert stays in its queue until the step is done, so that whatever ends the process ends no triage.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::alerts::{json, parse};
use super::{closings, judges, outbox, trust};
use crate::alert::Alert;
use crate::clock::Timestamp;
use crate::triage::config::Trust;
use crate::triage::{Judged, Step, Triage, Verdict};

/// A step of triage that is to be done.
#[derive(Debug)]
pub struct Work {
    pub alert: Alert,
    /// Absent where it is the verdict that is to be found.
    pub verdict: Option<Box<Verdict>>,
}

/// What was taken from the queue.
#[derive(Debug, Default)]
pub struct Taken {
    pub work: Vec<Work>,
    /// Alerts whose triage ended instead; their messages are due.
    pub given_up: usize,
}

/// What one step can take.
#[derive(Clone, Debug)]
pub struct Room {
    pub step: Step,
    pub free: usize,
    /// Ids of the alerts that are at this step now.
    pub busy: Vec<String>,
}

/// When a message goes out, and what may wait.
#[derive(Clone, Debug)]
pub struct Judging {
    /// Send what waits for triage at once, without the prose.
    pub deliver: bool,
    /// Alerts that may wait for prose at one time.
    pub capacity: usize,
    /// What must be proven before an alert is closed or lowered alone.
    pub trust: Trust,
}

/// Makes room for an alert of `level`. The queue is bounded: where it is full, the least urgent of all (lowest level,
/// then newest) goes without a verdict, be it the new one.
pub(super) fn make_room(
    tx: &Transaction<'_>,
    level: u8,
    capacity: usize,
    now: Timestamp,
) -> rusqlite::Result<Triage> {
    let full = || Triage::Failed {
        reason: format!(
            "{capacity} alerts of this level or higher were waiting for the model (`triage.queue`)"
        ),
    };
    if waiting(tx, Step::Verdict)? < capacity {
        return Ok(Triage::Pending);
    }
    match least_urgent(tx, Step::Verdict)? {
        Some((id, its_level)) if its_level < level => {
            settle(tx, &id, &full(), now)?;
            Ok(Triage::Pending)
        }
        _ => Ok(full()),
    }
}

/// Takes the most urgent alerts (highest level, then oldest) for as many steps as there is room, and counts the
/// attempt, so that one which ends the process every time is given up after [`MAX_ATTEMPTS`]. One that was being
/// read when a process ended is begun alone: those beside it are not blamed for it again.
pub fn take(tx: &Transaction<'_>, rooms: &[Room], now: Timestamp) -> rusqlite::Result<Taken> {
    let mut taken = Taken::default();
    for Room { step, free, busy } in rooms {
        let mut under_way = busy.len();
        let mut left = *free;
        for (id, attempts) in most_urgent(tx, *step, free + busy.len())? {
            if busy.contains(&id) {
                continue;
            }
            if attempts >= MAX_ATTEMPTS {
                give_up(tx, &id, attempts, now)?;
                taken.given_up += 1;
                continue;
            }
            if left == 0 || (attempts > 0 && under_way > 0) {
                break;
            }
            taken.work.push(begin(tx, &id)?);
            (left, under_way) = (left - 1, under_way + 1);
        }
    }
    Ok(taken)
}

/// Puts an alert back that was taken but not read: shutdown is no attempt.
pub fn put_back(tx: &Transaction<'_>, id: &str) -> rusqlite::Result<()> {
    tx.execute("UPDATE alerts SET triage_attempts = max(0, triage_attempts - 1) WHERE id = ?1", [id])
        .map(drop)
}

/// Saves a verdict, whose prose is still code's, and what it rests on, and does with the alert what the machine is trusted with. One
/// that was given up meanwhile stays given up, as it was told.
pub fn judge(
    tx: &Transaction<'_>,
    id: &str,
    mut judged: Judged,
    judging: Judging,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let decided = trust::decide(tx, id, &mut judged, &judging.trust, now)?;
    let Judged { verdict, features, .. } = judged;
    let triage = Triage::Judged { verdict: Box::new(verdict) };
    let saved = tx
        .prepare_cached(
            "UPDATE alerts SET triage = ?2, triage_attempts = 0, basis = ?3, is_blind = ?4
             WHERE id = ?1 AND triage_state = 'pending'",
        )?
        .execute(params![id, json(&triage)?, decided.basis, decided.is_blind])?;
    if saved == 0 {
        return Ok(());
    }
    judges::keep_features(tx, id, &features)?;
    if let Some(reason) = decided.close {
        closings::close_alone(tx, id, reason, now)?;
    }
    if judging.deliver {
        outbox::on_judged(tx, id, now.as_millisecond())?;
    }
    if waiting(tx, Step::Prose)? > judging.capacity
        && let Some((id, _)) = least_urgent(tx, Step::Prose)?
    {
        let reason = format!(
            "{} alerts of this level or higher were waiting for the model's text (`triage.queue`)",
            judging.capacity
        );
        keep_verdict(tx, &id, &reason, now)?;
    }
    Ok(())
}

/// Saves what triage said in the end, once, and makes it known to the outbox in the same transaction.
pub fn settle(tx: &Transaction<'_>, id: &str, triage: &Triage, now: Timestamp) -> rusqlite::Result<()> {
    let saved = tx
        .prepare_cached(
            "UPDATE alerts SET triage = ?2 WHERE id = ?1 AND triage_state IN ('pending', 'judged')",
        )?
        .execute(params![id, json(triage)?])?;
    if saved == 0 {
        return Ok(());
    }
    outbox::on_triage_settled(tx, id, now.as_millisecond())
}

/// Ends the triage of every waiting alert with `reason`: a verdict that is there stands. Says how many there were.
pub fn settle_all(tx: &Transaction<'_>, reason: &str, now: Timestamp) -> rusqlite::Result<usize> {
    let ids: Vec<String> = tx
        .prepare("SELECT id FROM alerts WHERE triage_state IN ('pending', 'judged')")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for id in &ids {
        end(tx, id, reason, now)?;
    }
    Ok(ids.len())
}

/// How many alerts wait for a step or are at it.
pub fn waiting(connection: &Connection, step: Step) -> rusqlite::Result<usize> {
    let waiting: i64 = connection
        .prepare_cached(&format!("SELECT count(*) FROM alerts WHERE triage_state = '{}'", before(step)))?
        .query_row([], |row| row.get(0))?;
    Ok(usize::try_from(waiting).unwrap_or_default())
}

/// The state of alerts that wait for a step. Written into the SQL, since a partial index serves no parameter.
fn before(step: Step) -> &'static str {
    match step {
        Step::Verdict => "pending",
        Step::Prose => "judged",
    }
}

/// Ids and attempts, the most urgent first.
fn most_urgent(tx: &Transaction<'_>, step: Step, most: usize) -> rusqlite::Result<Vec<(String, u32)>> {
    tx.prepare_cached(&format!(
        "SELECT id, triage_attempts FROM alerts WHERE triage_state = '{}'
         ORDER BY level DESC, created_at LIMIT ?1",
        before(step)
    ))?
    .query_map([most as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
    .collect()
}

fn least_urgent(tx: &Transaction<'_>, step: Step) -> rusqlite::Result<Option<(String, u8)>> {
    tx.prepare_cached(&format!(
        "SELECT id, level FROM alerts WHERE triage_state = '{}' ORDER BY level, created_at DESC LIMIT 1",
        before(step)
    ))?
    .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
    .optional()
}

fn begin(tx: &Transaction<'_>, id: &str) -> rusqlite::Result<Work> {
    let (body, triage): (String, String) = tx
        .prepare_cached(
            "UPDATE alerts SET triage_attempts = triage_attempts + 1 WHERE id = ?1 RETURNING body, triage",
        )?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let verdict = match parse(&triage)? {
        Triage::Judged { verdict } => Some(verdict),
        _ => None,
    };
    Ok(Work { alert: parse(&body)?, verdict })
}

fn give_up(tx: &Transaction<'_>, id: &str, attempts: u32, now: Timestamp) -> rusqlite::Result<()> {
    end(tx, id, &format!("watchpost or its model ended {attempts} times while reading this alert"), now)
}

/// Ends the triage of one alert, with its verdict where there is one.
fn end(tx: &Transaction<'_>, id: &str, reason: &str, now: Timestamp) -> rusqlite::Result<()> {
    if !keep_verdict(tx, id, reason, now)? {
        settle(tx, id, &Triage::Failed { reason: reason.to_owned() }, now)?;
    }
    Ok(())
}

/// Settles for code's prose; `false` where there is no verdict yet.
fn keep_verdict(tx: &Transaction<'_>, id: &str, reason: &str, now: Timestamp) -> rusqlite::Result<bool> {
    let triage: String = tx.query_row("SELECT triage FROM alerts WHERE id = ?1", [id], |row| row.get(0))?;
    let Triage::Judged { verdict } = parse(&triage)? else { return Ok(false) };
    let triage = Triage::Done { verdict: Box::new(verdict.without_prose(reason)) };
    settle(tx, id, &triage, now)?;
    Ok(true)
}

/// Ends of the process or of its model while one alert is at one step.
const MAX_ATTEMPTS: u32 = 3;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::alerts::{self, Handling, Queueing};
    use super::super::testing::{empty, with};
    use super::*;
    use crate::triage::testing;
    use crate::triage::verdict::{Prose, Severity};

    /// A store in memory with alerts of these levels, which are their ids too.
    fn store(levels: &[u8]) -> Connection {
        let mut store = empty();
        with(&mut store, |tx| {
            levels.iter().try_for_each(|level| {
                let mut alert = testing::alert(*level, json!([]));
                alert.id = level.to_string();
                let queueing = Queueing { hold_until: Timestamp::UNIX_EPOCH, capacity: 10 };
                let handling = Handling { webhooks: Vec::new(), triage: Some(queueing) };
                alerts::insert(tx, "d", &alert, &handling).map(drop)
            })
        });
        store
    }

    /// Ids of the alerts that are taken for a step while others are at it.
    fn taken(store: &mut Connection, step: Step, free: usize, busy: &[&str]) -> Vec<String> {
        let busy = busy.iter().map(|id| (*id).to_owned()).collect();
        let taken = with(store, |tx| take(tx, &[Room { step, free, busy }], Timestamp::UNIX_EPOCH));
        taken.work.into_iter().map(|work| work.alert.id).collect()
    }

    fn verdict() -> Verdict {
        serde_json::from_value(json!({
            "title": "t", "summary": "s", "severity": "High", "confidence": 50, "false_positive_score": 5, "risk_score": 60,
            "explanation": "e", "mitigations": [], "affected_entities": [], "recommended_action": "r",
        }))
        .unwrap()
    }

    fn judged(store: &mut Connection, id: &str, capacity: usize) {
        let judging = Judging { deliver: false, capacity, trust: Trust::default() };
        let judged = || Judged { verdict: verdict(), features: Default::default(), expected: Severity::High };
        with(store, |tx| judge(tx, id, judged(), judging, Timestamp::UNIX_EPOCH));
    }

    fn triage_of(store: &Connection, id: &str) -> Triage {
        alerts::get(store, id).unwrap().unwrap().triage
    }

    #[test]
    fn the_most_urgent_are_taken_and_none_twice() {
        let mut store = store(&[20, 90, 50]);
        assert_eq!(taken(&mut store, Step::Verdict, 2, &[]), ["90", "50"]);
        assert_eq!(taken(&mut store, Step::Verdict, 2, &["90", "50"]), ["20"]);
        assert_eq!(taken(&mut store, Step::Prose, 2, &[]), [""; 0]);
        judged(&mut store, "50", 10);
        assert_eq!(taken(&mut store, Step::Prose, 2, &[]), ["50"]);
    }

    #[test]
    fn those_that_a_crash_interrupted_are_begun_alone() {
        let mut store = store(&[20, 90, 50]);
        assert_eq!(taken(&mut store, Step::Verdict, 2, &[]), ["90", "50"]);
        // The process ends here.
        assert_eq!(taken(&mut store, Step::Verdict, 8, &[]), ["90"]);
        assert_eq!(taken(&mut store, Step::Verdict, 7, &["90"]), [""; 0]);
        judged(&mut store, "90", 10);
        assert_eq!(taken(&mut store, Step::Verdict, 8, &[]), ["50", "20"], "which was not interrupted");
    }

    #[test]
    fn shutdown_is_no_attempt() {
        let mut store = store(&[20, 90]);
        for _ in 0..5 {
            assert_eq!(taken(&mut store, Step::Verdict, 8, &[]), ["90", "20"]);
            for id in ["90", "20"] {
                with(&mut store, |tx| put_back(tx, id));
            }
        }
    }

    #[test]
    fn what_ends_the_process_three_times_at_its_prose_keeps_its_verdict() {
        let mut store = store(&[90]);
        for _ in 0..2 {
            assert_eq!(taken(&mut store, Step::Verdict, 8, &[]), ["90"]);
        }
        judged(&mut store, "90", 10);
        for _ in 0..3 {
            assert_eq!(taken(&mut store, Step::Prose, 8, &[]), ["90"]);
        }
        assert_eq!(taken(&mut store, Step::Prose, 8, &[]), [""; 0]);
        let Triage::Done { verdict } = triage_of(&store, "90") else { panic!() };
        assert_eq!((verdict.risk_score, verdict.cost.prose), (60, Prose::Template));
        assert!(verdict.cost.templated[0].contains("ended 3 times"), "{:?}", verdict.cost.templated);
    }

    #[test]
    fn what_was_given_up_stays_as_it_was_told() {
        let mut store = store(&[20, 90]);
        judged(&mut store, "20", 1);
        judged(&mut store, "90", 1);
        let Triage::Done { verdict } = triage_of(&store, "20") else { panic!() };
        assert!(verdict.cost.templated[0].contains("`triage.queue`"), "{:?}", verdict.cost.templated);
        let late = Triage::Done { verdict: Box::new(self::verdict()) };
        with(&mut store, |tx| settle(tx, "20", &late, Timestamp::UNIX_EPOCH));
        assert_eq!(triage_of(&store, "20"), Triage::Done { verdict });
        assert_eq!(waiting(&store, Step::Prose).unwrap(), 1);
    }
}
