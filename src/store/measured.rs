//! What analysts decided in a time, with what the judge had said: from the store's rows to `measure`'s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, params};
use serde::Deserialize;

use super::closings::label_at;
use super::rules::milliseconds;
use crate::clock::Timestamp;
use crate::closing::MACHINE;
use crate::closing::bursts::Seen;
use crate::measure::Judged;
use crate::triage::judge::Disposition;

/// Closings that were not undone, in the order of time.
#[derive(Debug, Default)]
pub struct Measured {
    /// All of them.
    pub closings: Vec<Seen>,
    /// The alerts, each once, with the closing that stands.
    pub judged: Vec<Judged>,
}

/// What people closed at `since` or later.
pub fn measured(connection: &Connection, since: Timestamp) -> rusqlite::Result<Measured> {
    let mut select = connection.prepare_cached(
        "SELECT alert_id, analyst, at_ms, label, source, family, rule, end_s, created_ms,
            judge, model, probability, said, seconds_to_verdict,
            CASE WHEN judge IS NULL THEN (SELECT triage FROM alerts WHERE alerts.id = alert_id) END, is_blind
         FROM closings WHERE at_ms >= ?1 AND undone_at_ms IS NULL AND analyst <> ?2 ORDER BY at_ms, id",
    )?;
    let mut rows = select.query(params![since.as_millisecond(), MACHINE])?;
    let mut names = Names::default();
    let mut found = Measured::default();
    // A later closing of an alert takes the earlier one's place.
    let mut places: HashMap<Arc<str>, usize> = HashMap::new();
    while let Some(row) = rows.next()? {
        let alert: Arc<str> = row.get_ref(0)?.as_str()?.into();
        let (at_ms, label) = (row.get::<_, i64>(2)?, label_at(row, 3)?);
        let (end_s, created_ms) = (row.get::<_, i64>(7)?, row.get::<_, i64>(8)?);
        let opinion = match row.get_ref(14)?.as_str_or_null()? {
            Some(triage) => opinion(triage).unwrap_or_default(),
            None => Opinion {
                judge: row.get::<_, Option<String>>(9)?.unwrap_or_default(),
                model: row.get::<_, Option<String>>(10)?.unwrap_or_default(),
                probability: row.get(11)?,
                said: row.get(12)?,
                seconds_to_verdict: row.get(13)?,
            },
        };
        let seconds =
            |from_ms: i64, to_ms: i64| (to_ms >= from_ms).then(|| (to_ms - from_ms) as f64 / 1_000.0);
        let judged = Judged {
            probability: opinion.probability,
            said: opinion.said,
            label: label.is_threat(),
            source: names.shared(row.get_ref(4)?.as_str()?),
            family: names.shared(row.get_ref(5)?.as_str()?),
            rule: names.shared(row.get_ref(6)?.as_str()?),
            judge: names.shared(&opinion.judge),
            model: names.shared(&opinion.model),
            seconds_to_detect: seconds(end_s * 1_000, created_ms),
            seconds_to_verdict: opinion.seconds_to_verdict,
            seconds_to_close: seconds(created_ms, at_ms),
            is_blind: row.get(15)?,
        };
        match places.get(&alert) {
            Some(place) => found.judged[*place] = judged,
            None => {
                places.insert(Arc::clone(&alert), found.judged.len());
                found.judged.push(judged);
            }
        }
        let analyst = names.shared(row.get_ref(1)?.as_str()?);
        found.closings.push(Seen { alert, analyst, at: milliseconds(at_ms)?, label, judge: opinion.said });
    }
    Ok(found)
}

/// What the judge said of an alert.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Opinion {
    /// Its version; empty where it said nothing.
    pub judge: String,
    pub model: String,
    pub probability: Option<f64>,
    pub said: Option<bool>,
    pub seconds_to_verdict: Option<f64>,
}

/// What the judge says in an alert's triage; `None` where its verdict is still to come.
///
/// A note that dismisses is the operator's word and not the judge's. In verdicts of an older watchpost, which had no judge, the
/// false-positive score is the contrary of a probability, and half decides.
pub(super) fn opinion(triage: &str) -> Option<Opinion> {
    // What cannot be read was not judged: one bad row ends neither a closing nor a report.
    let Triage { state, verdict } = serde_json::from_str(triage).unwrap_or_default();
    if state == "pending" {
        return None;
    }
    let Some(Verdict { false_positive_score, note, judgement, cost }) = verdict else {
        return Some(Opinion::default());
    };
    let by_score = 1.0 - f64::from(false_positive_score) / 100.0;
    let is_dismissed = note.is_some() && false_positive_score > DISMISSED;
    let (judge, probability, said) = match judgement {
        _ if is_dismissed => (NOTE.to_owned(), by_score, Some(false)),
        Some(judgement) => (judgement.judge, judgement.probability, judgement.disposition.is_threat()),
        None => (FORMULA.to_owned(), by_score, Some(by_score >= 0.5)),
    };
    let (probability, seconds_to_verdict) = (Some(probability), cost.seconds_to_verdict);
    Some(Opinion { judge, model: cost.model, probability, said, seconds_to_verdict })
}

/// As much of an alert's triage as is measured.
#[derive(Default, Deserialize)]
struct Triage {
    state: String,
    verdict: Option<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    false_positive_score: u8,
    note: Option<String>,
    judgement: Option<Judgement>,
    #[serde(default)]
    cost: Cost,
}

#[derive(Deserialize)]
struct Judgement {
    judge: String,
    probability: f64,
    disposition: Disposition,
}

#[derive(Default, Deserialize)]
struct Cost {
    #[serde(default)]
    model: String,
    seconds_to_verdict: Option<f64>,
}

/// Names that many alerts have, kept once.
#[derive(Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.0.insert(Arc::clone(&name));
        name
    }
}

/// The version of the formula in docs/triage.md, which no labels taught.
const FORMULA: &str = "formula";
/// In the place of a judge where the operator's note decided.
const NOTE: &str = "note";
/// Only a note that dismisses gives a score above (docs/triage.md).
const DISMISSED: u8 = 80;

#[cfg(test)]
mod tests {
    use super::super::closings;
    use super::super::testing::store;
    use super::*;
    use crate::closing::{Decision, Label};

    fn close(store: &mut Connection, alert: &str, label: Label, at_s: i64) {
        let at = Some(Timestamp::from_second(at_s).unwrap());
        let decision = Decision { alert: alert.into(), label, reason: "x".into(), analyst: "ann".into(), at };
        let tx = store.transaction().unwrap();
        closings::import(&tx, &decision, Timestamp::from_second(1_800_000_000).unwrap()).unwrap();
        tx.commit().unwrap();
    }

    fn set_triage(store: &Connection, triage: &str) {
        store.execute("UPDATE alerts SET triage = ?1", params![triage]).unwrap();
    }

    const JUDGED: &str = r#"{"state": "judged", "verdict": {"false_positive_score": 20, "cost": {"model": "tiny", "seconds_to_verdict": 2.0}}}"#;

    #[test]
    fn an_alert_is_measured_once_with_the_closing_that_stands_and_the_verdict_it_had() {
        let mut store = store(&["aaaa0"]);
        set_triage(&store, JUDGED);
        close(&mut store, "aaaa0", Label::TruePositive, 1_790_000_400);
        close(&mut store, "aaaa0", Label::FalsePositive, 1_790_000_360);
        set_triage(&store, &JUDGED.replace("20", "90"));
        let found = measured(&store, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((found.closings.len(), found.judged.len()), (2, 1));
        let one = &found.judged[0];
        assert_eq!((one.label, one.probability, one.said), (Some(true), Some(0.8), Some(true)));
        assert_eq!(
            (&*one.family, &*one.source, &*one.judge, &*one.model),
            ("ssh", "duckdb", "formula", "tiny")
        );
        assert_eq!((one.seconds_to_verdict, one.seconds_to_close), (Some(2.0), Some(100.0)));
        let later = Timestamp::from_second(1_790_000_380).unwrap();
        assert_eq!(measured(&store, later).unwrap().closings.len(), 1);
    }

    #[test]
    fn a_verdict_that_comes_after_the_closing_is_measured_too() {
        let mut store = store(&["aaaa0"]);
        let of = |store: &Connection| measured(store, Timestamp::UNIX_EPOCH).unwrap().judged[0].said;
        set_triage(&store, r#"{"state": "pending"}"#);
        close(&mut store, "aaaa0", Label::TruePositive, 1_790_000_000);
        assert_eq!(of(&store), None);
        set_triage(&store, JUDGED);
        assert_eq!(of(&store), Some(true));
        assert_eq!(
            measured(&store, Timestamp::UNIX_EPOCH).unwrap().judged[0].seconds_to_close,
            None,
            "before it fired"
        );
    }

    #[test]
    fn a_triage_that_cannot_be_read_ends_no_report() {
        for triage in ["{}", "[", r#"{"state": "done", "verdict": {"false_positive_score": -1}}"#] {
            assert_eq!(opinion(triage), Some(Opinion::default()), "{triage}");
        }
    }
}
