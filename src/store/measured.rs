//! What analysts decided in a time, with what the judge had said: from the store's rows to `measure`'s.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rusqlite::Connection;
use serde::Deserialize;

use super::closings::label_at;
use super::rules::milliseconds;
use crate::clock::Timestamp;
use crate::closing::bursts::Seen;
use crate::measure::Judged;

/// Closings that were not undone, in the order of time.
#[derive(Debug, Default)]
pub struct Measured {
    /// All of them.
    pub closings: Vec<Seen>,
    /// The alerts, each once, with the closing that stands.
    pub judged: Vec<Judged>,
}

/// What analysts closed at `since` or later.
pub fn measured(connection: &Connection, since: Timestamp) -> rusqlite::Result<Measured> {
    let mut select = connection.prepare_cached(
        "SELECT c.alert_id, c.analyst, c.at_ms, c.label, c.source, c.family, a.rule, a.end_s, a.created_at, a.triage
         FROM closings c JOIN alerts a ON a.id = c.alert_id
         WHERE c.at_ms >= ?1 AND c.undone_at_ms IS NULL ORDER BY c.at_ms, c.id",
    )?;
    let mut rows = select.query([since.as_millisecond()])?;
    let mut names = Names::default();
    let mut found = Measured::default();
    // A later closing of an alert takes the earlier one's place.
    let mut places: HashMap<Arc<str>, usize> = HashMap::new();
    while let Some(row) = rows.next()? {
        let alert: Arc<str> = row.get_ref(0)?.as_str()?.into();
        let (at_ms, label) = (row.get::<_, i64>(2)?, label_at(row, 3)?);
        let (end_s, created_ms) = (row.get::<_, i64>(7)?, row.get::<_, i64>(8)?);
        let (probability, said, judge, verdict) = opinion(row.get_ref(9)?.as_str()?);
        let seconds =
            |from_ms: i64, to_ms: i64| (to_ms >= from_ms).then(|| (to_ms - from_ms) as f64 / 1_000.0);
        let judged = Judged {
            probability,
            said,
            label: label.is_threat(),
            source: names.shared(row.get_ref(4)?.as_str()?),
            family: names.shared(row.get_ref(5)?.as_str()?),
            rule: names.shared(row.get_ref(6)?.as_str()?),
            judge: names.shared(judge),
            model: names.shared(&verdict.cost.model),
            seconds_to_detect: seconds(end_s * 1_000, created_ms),
            seconds_to_verdict: verdict.cost.seconds_to_verdict,
            seconds_to_close: seconds(created_ms, at_ms),
            is_blind: false,
        };
        match places.get(&alert) {
            Some(place) => found.judged[*place] = judged,
            None => {
                places.insert(Arc::clone(&alert), found.judged.len());
                found.judged.push(judged);
            }
        }
        let analyst = names.shared(row.get_ref(1)?.as_str()?);
        found.closings.push(Seen { alert, analyst, at: milliseconds(at_ms)?, label, judge: said });
    }
    Ok(found)
}

/// How many alerts fired at `since` or later.
pub fn fired(connection: &Connection, since: Timestamp) -> rusqlite::Result<usize> {
    let fired: i64 = connection
        .prepare_cached("SELECT count(*) FROM alerts WHERE created_at >= ?1")?
        .query_row([since.as_millisecond()], |row| row.get(0))?;
    Ok(usize::try_from(fired).unwrap_or_default())
}

/// The judge's probability of a threat, what it called the alert, its version, and the verdict, from an alert's triage.
///
/// The verdict of today: its false-positive score is the contrary of a probability, and half decides.
fn opinion(triage: &str) -> (Option<f64>, Option<bool>, &'static str, Verdict) {
    // What cannot be read was not judged: one bad row does not end a report.
    match serde_json::from_str(triage) {
        Ok(Triage { verdict: Some(verdict) }) => {
            let probability = 1.0 - f64::from(verdict.false_positive_score) / 100.0;
            (Some(probability), Some(probability >= 0.5), FORMULA, verdict)
        }
        Ok(Triage { verdict: None }) | Err(_) => (None, None, "", Verdict::default()),
    }
}

/// As much of an alert's triage as is measured.
#[derive(Deserialize)]
struct Triage {
    verdict: Option<Verdict>,
}

#[derive(Default, Deserialize)]
struct Verdict {
    false_positive_score: u8,
    #[serde(default)]
    cost: Cost,
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
