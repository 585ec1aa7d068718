//! The trust gate's rows: what people granted, what ended it, and the closings that both rest on. Rows are only added: the
//! last one of a rule and a deed says what holds.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::alerts::{json, parse};
use super::closings::label_at;
use super::rules::milliseconds;
use crate::clock::Timestamp;
use crate::closing::MACHINE;
use crate::closing::bursts::{self, Seen};
use crate::triage::Judged;
use crate::triage::config::Trust;
use crate::triage::deed::Deed;
use crate::trust::{self, Basis, Figures, LEARNING, Label};

/// `basis` is what an alert's verdict rests on, as JSON; NULL where nothing can be trusted by it. `trust_bases` has that of each
/// rule's last verdict, `site` what is drawn by lot and what was last reviewed.
pub(super) const TABLES: &str = "
    ALTER TABLE alerts ADD COLUMN basis TEXT;
    ALTER TABLE alerts ADD COLUMN is_blind INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE closings ADD COLUMN basis TEXT;
    ALTER TABLE closings ADD COLUMN is_blind INTEGER NOT NULL DEFAULT 0;

    CREATE TABLE trust (
        id INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        rule TEXT NOT NULL,
        deed TEXT NOT NULL CHECK (deed IN ('close', 'lower')),
        event TEXT NOT NULL CHECK (event IN ('granted', 'demoted', 'revoked')),
        by TEXT NOT NULL,
        why TEXT NOT NULL,
        -- What it was granted on.
        basis TEXT NOT NULL
    ) STRICT;
    CREATE INDEX trust_of_rule ON trust (rule, deed, id);
    CREATE TRIGGER trust_is_not_changed BEFORE UPDATE ON trust
        BEGIN SELECT raise(ABORT, 'rows of `trust` are only added'); END;
    CREATE TRIGGER trust_is_not_deleted BEFORE DELETE ON trust
        BEGIN SELECT raise(ABORT, 'rows of `trust` are only added'); END;

    CREATE TABLE trust_bases (
        rule TEXT PRIMARY KEY,
        basis TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE site (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        salt BLOB NOT NULL,
        reviewed TEXT NOT NULL
    ) STRICT;
    INSERT INTO site (one, salt, reviewed) VALUES (1, randomblob(32), '');";

/// SQL: the triage of a row of `alerts` as people may see it. Of a blind alert that no person closed yet the verdict is not told.
pub(super) const TOLD: &str =
    "CASE WHEN is_blind AND triage ->> 'state' IN ('judged', 'done') AND NOT EXISTS (
        SELECT 1 FROM closings WHERE closings.alert_id = alerts.id AND analyst <> 'watchpost')
    THEN '{\"state\":\"blind\"}' ELSE triage END";

/// One row of what was granted and ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    pub at: Timestamp,
    pub rule: String,
    pub deed: Deed,
    /// `granted`, `demoted` by the machine itself, or `revoked`.
    pub event: String,
    pub by: String,
    pub why: String,
    #[serde(skip)]
    basis: Basis,
}

/// Where a rule stands with a deed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    pub rule: String,
    pub deed: Deed,
    /// Whether the machine does it by itself.
    pub is_allowed: bool,
    pub figures: Figures,
    /// What speaks against it or is missing, in words.
    pub missing: Vec<String>,
    /// What was decided last; absent where nobody granted anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Event>,
}

/// Why a deed is not granted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refused {
    #[error("no alert of this rule was judged by a calibrated judge yet")]
    Unknown,
    #[error("it is granted already")]
    Already,
    #[error("it {}", .0.join("; it "))]
    Missing(Vec<String>),
}

/// What is done with a new verdict.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// As JSON.
    pub basis: Option<String>,
    pub is_blind: bool,
    /// Close the alert, and why.
    pub close: Option<String>,
}

/// Holds a new verdict against the gate: lowers its severity where that is granted, says whether the alert is to be closed, and
/// ends trust that rests on something else than this verdict.
pub(super) fn decide(
    tx: &Transaction<'_>,
    alert_id: &str,
    judged: &mut Judged,
    asked: &Trust,
    now: Timestamp,
) -> rusqlite::Result<Decided> {
    let select = "SELECT rule, json_extract(body, '$.rule.rule', '$.rule.level', '$.rule.size'), salt, chosen
         FROM alerts, site, learning WHERE alerts.id = ?1";
    let (rule, fields, salt, chosen): (String, String, Vec<u8>, Option<String>) = tx
        .prepare_cached(select)?
        .query_row([alert_id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let is_blind = trust::is_blind(alert_id, &salt, asked.blind);
    let Some(judgement) = judged.verdict.sound() else {
        return Ok(Decided { is_blind, ..Decided::default() });
    };
    let (judge, probability) = (judgement.judge.clone(), judgement.probability);
    let basis = Basis {
        judge: chosen.filter(|chosen| *chosen == judge).unwrap_or_else(|| LEARNING.to_owned()),
        model: judged.verdict.cost.model_sha256.clone(),
        rule: hexadecimal(&Sha256::digest(fields)[..8]),
        watchpost: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let text = json(&basis)?;
    tx.prepare_cached(
        "INSERT INTO trust_bases (rule, basis) VALUES (?1, ?2)
         ON CONFLICT (rule) DO UPDATE SET basis = excluded.basis WHERE basis <> excluded.basis",
    )?
    .execute([&rule, &text])?;
    let mut granted = grants_of(tx, &rule)?;
    if !granted.is_empty() {
        review(tx, asked, now)?;
        granted = grants_of(tx, &rule)?;
    }
    let mut allowed = Vec::new();
    for grant in granted {
        match grant.basis.broken_by(&basis) {
            None => allowed.push(grant),
            // One answer that a slow model did not give says nothing of those it gives: it is done without the deed.
            Some(_)
                if Basis { model: grant.basis.model.clone(), ..basis.clone() } == grant.basis
                    && judged.verdict.cost.without_model.is_some() => {}
            Some(why) => demote(tx, &grant, why, now)?,
        }
    }
    let mut decided = Decided { basis: Some(text), is_blind, close: None };
    let called: Vec<Deed> = Deed::ALL.into_iter().filter(|deed| judged.calls_for(*deed)).collect();
    let may = |deed| allowed.iter().find(|grant| grant.deed == deed && !is_blind && called.contains(&deed));
    if may(Deed::Lower).is_some() {
        judged.lower();
    }
    decided.close = may(Deed::Close).map(|grant| {
        let (by, since) = (&grant.by, grant.at.strftime("%F"));
        format!(
            "a threat is {:.1} % likely by the judge `{judge}`, which `{by}` trusts with this since {since}",
            100.0 * probability
        )
    });
    judged.verdict.recommends = called.iter().copied().find(|deed| may(*deed).is_none());
    if decided.close.is_some() {
        judged.verdict.recommends = None;
    }
    Ok(decided)
}

/// Ends trust that the closings do not bear any more. Reads them only where something is granted and something changed since
/// the last time.
pub fn review(tx: &Transaction<'_>, asked: &Trust, now: Timestamp) -> rusqlite::Result<()> {
    let granted = grants(tx)?;
    if granted.is_empty() {
        return Ok(());
    }
    let (changes, newest, reviewed): (i64, i64, String) = tx
        .prepare_cached(
            "SELECT changes, (SELECT coalesce(max(id), 0) FROM closings), reviewed FROM learning, site",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let state = format!("{changes} {newest} {} {} {}", asked.bar, asked.days, now.as_second() / DAY_S);
    if state == reviewed {
        return Ok(());
    }
    let evidence = Evidence::read(tx, now)?;
    for grant in granted {
        if let Some(why) = evidence.against(&grant, asked) {
            demote(tx, &grant, &why, now)?;
        }
    }
    tx.execute("UPDATE site SET reviewed = ?1", [state]).map(drop)
}

/// Ends trust in judges other than the one that somebody put in use.
pub(super) fn judge_chosen(tx: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let chosen: Option<String> = tx.query_row("SELECT chosen FROM learning", [], |row| row.get(0))?;
    let judge = chosen.unwrap_or_else(|| LEARNING.to_owned());
    for grant in grants(tx)? {
        let now_used = Basis { judge: judge.clone(), ..grant.basis.clone() };
        if let Some(why) = grant.basis.broken_by(&now_used) {
            demote(tx, &grant, why, now)?;
        }
    }
    Ok(())
}

/// Lets the machine do a deed to alerts of a rule by itself, where what people closed bears it.
pub fn grant(
    tx: &Transaction<'_>,
    rule: &str,
    deed: Deed,
    by: &str,
    why: &str,
    asked: &Trust,
    now: Timestamp,
) -> rusqlite::Result<Result<(), Refused>> {
    let Some(basis) = basis_of(tx, rule)? else { return Ok(Err(Refused::Unknown)) };
    if grants_of(tx, rule)?.iter().any(|grant| grant.deed == deed) {
        return Ok(Err(Refused::Already));
    }
    let labels = Evidence::read(tx, now)?.labels(rule, &basis);
    let missing = Figures::of(deed, &labels).missing(asked);
    let drift = trust::drift(deed, &labels, asked.bar);
    let missing: Vec<_> = missing.into_iter().chain(drift.map(|drift| format!("shows {drift}"))).collect();
    if !missing.is_empty() {
        return Ok(Err(Refused::Missing(missing)));
    }
    let (rule, event, by, why) = (rule.to_owned(), "granted".to_owned(), by.to_owned(), why.to_owned());
    append(tx, &Event { at: now, rule, deed, event, by, why, basis }).map(Ok)
}

/// Takes a deed away again; `false` where it was not granted.
pub fn revoke(
    tx: &Transaction<'_>,
    rule: &str,
    deed: Deed,
    by: &str,
    why: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let Some(grant) = grants_of(tx, rule)?.into_iter().find(|grant| grant.deed == deed) else {
        return Ok(false);
    };
    let (event, by, why) = ("revoked".to_owned(), by.to_owned(), why.to_owned());
    append(tx, &Event { at: now, event, by, why, ..grant }).map(|()| true)
}

/// Every rule that a calibrated judge judged, with every deed.
pub fn standings(connection: &Connection, asked: &Trust, now: Timestamp) -> rusqlite::Result<Vec<Standing>> {
    let rules: BTreeSet<String> = connection
        .prepare("SELECT rule FROM trust_bases")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let evidence = Evidence::read(connection, now)?;
    let mut standings = Vec::new();
    for rule in rules {
        let basis = basis_of(connection, &rule)?.unwrap_or_default();
        let labels = evidence.labels(&rule, &basis);
        for deed in Deed::ALL {
            let last = last(connection, &rule, deed)?;
            let figures = Figures::of(deed, &labels);
            let granted = last.as_ref().filter(|event| event.event == "granted");
            let missing = match granted {
                None => figures.missing(asked),
                Some(grant) => {
                    let broken = grant.basis.broken_by(&basis).map(str::to_owned);
                    broken.or_else(|| evidence.against(grant, asked)).into_iter().collect()
                }
            };
            let is_allowed = granted.is_some() && missing.is_empty();
            standings.push(Standing { rule: rule.clone(), deed, is_allowed, figures, missing, last });
        }
    }
    Ok(standings)
}

/// Everything that was granted and ended, newest first.
pub fn events(connection: &Connection, limit: usize) -> rusqlite::Result<Vec<Event>> {
    connection
        .prepare(&format!("SELECT {COLUMNS} FROM trust ORDER BY id DESC LIMIT ?1"))?
        .query_map([limit as i64], event)?
        .collect()
}

/// The closings of people that trust can rest on.
struct Evidence(HashMap<String, Vec<Counted>>);

struct Counted {
    label: Label,
    basis: Basis,
    /// Made in an unusual hour of its analyst, see [`bursts`].
    in_burst_of: Option<String>,
}

impl Evidence {
    /// Of the last [`MAX_DAYS`], at most [`MAX_CLOSINGS`], the last of each alert.
    fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let mut found = connection
            .prepare_cached(
                "SELECT alert_id, analyst, at_ms, label, said, probability, max(at_ms, created_ms), rule, basis FROM closings
                 WHERE at_ms >= ?1 AND undone_at_ms IS NULL AND analyst <> ?2 ORDER BY at_ms DESC, id DESC LIMIT ?3",
            )?
            .query_map(
                params![now.as_millisecond() - MAX_DAYS * DAY_S * 1_000, MACHINE, MAX_CLOSINGS],
                |row| {
                    let seen = Seen {
                        alert: row.get(0)?,
                        analyst: row.get(1)?,
                        at: milliseconds(row.get(2)?)?,
                        label: label_at(row, 3)?,
                        judge: row.get(4)?,
                    };
                    // No label is older than its alert, whatever a file of closings says.
                    let (probability, at) = (row.get::<_, Option<f64>>(5)?, milliseconds(row.get(6)?)?);
                    Ok((seen, probability, at, row.get::<_, String>(7)?, row.get::<_, Option<String>>(8)?))
                },
            )?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        found.reverse();
        let seen: Vec<Seen> = found.iter().map(|(seen, ..)| seen.clone()).collect();
        let weights = bursts::weights(&seen, &bursts::bursts(&seen));
        let mut evidence: HashMap<String, Vec<Counted>> = HashMap::new();
        let mut counted = HashSet::new();
        for ((seen, probability, at, rule, basis), weight) in found.into_iter().zip(weights).rev() {
            if !counted.insert(seen.alert) {
                continue;
            }
            let (Some(is_threat), Some(probability), Some(basis)) =
                (seen.label.is_threat(), probability, basis)
            else {
                continue;
            };
            let label = Label { at, probability, said: seen.judge, is_threat };
            let in_burst_of = (weight < 1.0).then(|| seen.analyst.to_string());
            // One bad row ends no verdict: it is a label of nothing that is in use.
            let basis = parse(&basis).unwrap_or_default();
            evidence.entry(rule).or_default().push(Counted { label, basis, in_burst_of });
        }
        evidence.values_mut().for_each(|of_rule| of_rule.sort_by_key(|one| one.label.at));
        Ok(Self(evidence))
    }

    /// What counts for a rule as it is judged on `basis`, in the order of time.
    fn labels(&self, rule: &str, basis: &Basis) -> Vec<Label> {
        let of_rule = self.0.get(rule).map_or(&[][..], Vec::as_slice);
        let counts = |one: &&Counted| one.basis == *basis && one.in_burst_of.is_none();
        of_rule.iter().filter(counts).map(|one| one.label).collect()
    }

    /// Why what was granted cannot stand.
    fn against(&self, grant: &Event, asked: &Trust) -> Option<String> {
        let of_rule = self.0.get(&grant.rule).map_or(&[][..], Vec::as_slice);
        let burst =
            of_rule.iter().filter(|one| one.label.at > grant.at).find_map(|one| one.in_burst_of.as_ref());
        if let Some(analyst) = burst {
            return Some(format!("`{analyst}` closed unusually many alerts in an hour, some of this rule"));
        }
        let labels = self.labels(&grant.rule, &grant.basis);
        trust::drift(grant.deed, &labels, asked.bar).or_else(|| {
            let missing = Figures::of(grant.deed, &labels).missing(asked);
            (!missing.is_empty()).then(|| missing.join("; "))
        })
    }
}

fn demote(tx: &Transaction<'_>, grant: &Event, why: &str, now: Timestamp) -> rusqlite::Result<()> {
    tracing::warn!(
        rule = grant.rule,
        deed = grant.deed.as_str(),
        why,
        "trust has ended: a person may grant it again"
    );
    let (event, by, why) = ("demoted".to_owned(), MACHINE.to_owned(), why.to_owned());
    append(tx, &Event { at: now, event, by, why, ..grant.clone() })
}

fn append(tx: &Transaction<'_>, event: &Event) -> rusqlite::Result<()> {
    let Event { at, rule, deed, event, by, why, basis } = event;
    tx.prepare_cached(
        "INSERT INTO trust (at_ms, rule, deed, event, by, why, basis) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![at.as_millisecond(), rule, deed.as_str(), event, by, why, json(basis)?])
    .map(drop)
}

/// What is granted now.
fn grants(connection: &Connection) -> rusqlite::Result<Vec<Event>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM trust WHERE event = 'granted'
             AND id IN (SELECT max(id) FROM trust GROUP BY rule, deed) ORDER BY id"
        ))?
        .query_map([], event)?
        .collect()
}

fn grants_of(connection: &Connection, rule: &str) -> rusqlite::Result<Vec<Event>> {
    let mut grants = Vec::new();
    for deed in Deed::ALL {
        grants.extend(last(connection, rule, deed)?.filter(|event| event.event == "granted"));
    }
    Ok(grants)
}

fn last(connection: &Connection, rule: &str, deed: Deed) -> rusqlite::Result<Option<Event>> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM trust WHERE rule = ?1 AND deed = ?2 ORDER BY id DESC LIMIT 1"
        ))?
        .query_row([rule, deed.as_str()], event)
        .optional()
}

/// Of the rule's last verdict.
fn basis_of(connection: &Connection, rule: &str) -> rusqlite::Result<Option<Basis>> {
    connection
        .prepare_cached("SELECT basis FROM trust_bases WHERE rule = ?1")?
        .query_row([rule], |row| parse(row.get_ref(0)?.as_str()?))
        .optional()
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let deed = row.get_ref(2)?.as_str()?;
    let unknown = || rusqlite::Error::InvalidColumnType(2, deed.to_owned(), rusqlite::types::Type::Text);
    Ok(Event {
        at: milliseconds(row.get(0)?)?,
        rule: row.get(1)?,
        deed: Deed::ALL.into_iter().find(|known| known.as_str() == deed).ok_or_else(unknown)?,
        event: row.get(3)?,
        by: row.get(4)?,
        why: row.get(5)?,
        // What cannot be read is no verdict's basis: such trust ends with the next one.
        basis: parse(row.get_ref(6)?.as_str()?).unwrap_or_default(),
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const COLUMNS: &str = "at_ms, rule, deed, event, by, why, basis";
/// How far back closings bear trust.
const MAX_DAYS: i64 = 180;
const MAX_CLOSINGS: i64 = 20_000;
const DAY_S: i64 = 86_400;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{store, with};
    use super::*;
    use crate::triage::judge::{Disposition, Judgement};
    use crate::triage::verdict::{Severity, Verdict};

    const DAY_MS: i64 = DAY_S * 1_000;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    /// As the judge says of an alert that is none, with the model `sha256`; none where it is empty.
    fn judged(sha256: &str) -> Judged {
        let mut verdict: Verdict = serde_json::from_value(json!({
            "title": "t", "summary": "s", "severity": "High", "confidence": 50, "false_positive_score": 5, "risk_score": 60,
            "explanation": "e", "mitigations": [], "affected_entities": [], "recommended_action": "r",
        }))
        .unwrap();
        verdict.judgement = Some(Judgement {
            judge: "5b1f".into(),
            probability: 0.02,
            calibrated: true,
            disposition: Disposition::FalsePositive,
            text_gap: 0.0,
            why: Vec::new(),
        });
        verdict.cost.model_sha256 = sha256.into();
        verdict.cost.without_model = sha256.is_empty().then(|| "it was slow".to_owned());
        Judged { verdict, features: Default::default(), expected: Severity::Low }
    }

    fn closes(store: &mut Connection, sha256: &str) -> bool {
        with(store, |tx| decide(tx, "aaaa0", &mut judged(sha256), &Trust::default(), now())).close.is_some()
    }

    /// With 60 threats and 60 that were none, called so on the basis of the rule's last verdict, over 40 days.
    fn measured() -> (Connection, String) {
        let mut store = store(&["aaaa0"]);
        assert!(!closes(&mut store, "m"));
        let (rule, basis): (String, String) = store
            .query_row("SELECT rule, basis FROM trust_bases", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        store.pragma_update(None, "foreign_keys", false).unwrap();
        for nth in 0..120 {
            let is_threat = nth % 2 == 1;
            let at_ms = now().as_millisecond() - 41 * DAY_MS + nth * 40 * DAY_MS / 119;
            let label = ["false_positive", "true_positive"][usize::from(is_threat)];
            let insert = "INSERT INTO closings (alert_id, label, reason, analyst, at_ms, recorded_ms, source, family, rule,
                end_s, created_ms, judge, probability, said, basis) VALUES (?1, ?2, 'x', 'ann', ?3, ?3, '', '', ?4, 0, 0, '5b1f', ?5, ?6, ?7)";
            let probability = if is_threat { 0.98 } else { 0.02 };
            store
                .execute(
                    insert,
                    params![format!("old{nth}"), label, at_ms, rule, probability, is_threat, basis],
                )
                .unwrap();
        }
        (store, rule)
    }

    fn granted(store: &mut Connection, rule: &str) -> Result<(), Refused> {
        with(store, |tx| grant(tx, rule, Deed::Close, "ann", "x", &Trust::default(), now()))
    }

    fn last_why(store: &Connection) -> (String, String) {
        let last = events(store, 1).unwrap().remove(0);
        (last.event, last.why)
    }

    #[test]
    fn a_slow_model_holds_a_deed_up_once_and_another_model_ends_trust() {
        let (mut store, rule) = measured();
        assert_eq!(granted(&mut store, &rule), Ok(()));
        assert!(closes(&mut store, "m"));
        assert!(!closes(&mut store, ""));
        assert_eq!(last_why(&store).0, "granted");
        assert!(closes(&mut store, "m"));
        assert!(!closes(&mut store, "another"));
        assert_eq!(last_why(&store), ("demoted".into(), "another model is in use".into()));
        assert!(!closes(&mut store, "m"), "only people promote");
    }

    #[test]
    fn labels_that_are_undone_grow_old_or_are_the_machines_bear_no_trust() {
        for (change, word) in [
            ("UPDATE closings SET undone_at_ms = 0 WHERE alert_id < 'old2'", "harmless and were"),
            ("UPDATE closings SET at_ms = at_ms - 180 * 86400000", "59 more"),
            ("UPDATE closings SET analyst = 'watchpost'", "59 more"),
            ("UPDATE closings SET basis = '['", "59 more"),
            ("UPDATE closings SET label = 'duplicate' WHERE label = 'true_positive'", "59 more threats"),
            // An alert is labelled after it fired, whatever a file says.
            ("UPDATE closings SET created_ms = 1799990000000", "needs 30 more days"),
        ] {
            let (mut store, rule) = measured();
            assert_eq!(granted(&mut store, &rule), Ok(()));
            // As later closings would.
            store.execute_batch(change).unwrap();
            store.execute_batch("UPDATE learning SET changes = changes + 1").unwrap();
            assert!(!closes(&mut store, "m"), "{change}");
            let (event, why) = last_why(&store);
            assert!(event == "demoted" && why.contains(word), "{change}: {why}");
            let refused = granted(&mut store, &rule).unwrap_err().to_string();
            assert!(refused.contains(word), "{change}: {refused}");
        }
    }

    #[test]
    fn what_was_granted_and_ended_is_never_rewritten() {
        let (mut store, rule) = measured();
        assert_eq!(granted(&mut store, &rule), Ok(()));
        assert_eq!(granted(&mut store, &rule), Err(Refused::Already));
        assert_eq!(granted(&mut store, "unknown"), Err(Refused::Unknown));
        for change in ["UPDATE trust SET by = 'eve'", "DELETE FROM trust"] {
            assert!(store.execute_batch(change).unwrap_err().to_string().contains("only added"));
        }
        assert!(with(&mut store, |tx| revoke(tx, &rule, Deed::Close, "bob", "y", now())));
        let events: Vec<_> =
            events(&store, 9).unwrap().into_iter().map(|event| (event.event, event.by)).collect();
        assert_eq!(events, [("revoked".into(), "bob".into()), ("granted".into(), "ann".into())]);
    }
}
