//! What judges learn from, and the judges themselves: the features of every judged alert, the closings that teach, and what
//! was learned from them, so that an older judge can be brought back.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::alerts::{IS_OPEN, MAX_LISTED, parse};
use super::closings::label_at;
use super::rules::milliseconds;
use super::{history, trust};
use crate::alert::Alert;
use crate::clock::Timestamp;
use crate::closing::MACHINE;
use crate::closing::bursts::{self, Seen};
use crate::triage::judge::learn::{Lesson, MAX_LESSONS};
use crate::triage::judge::unsure::least_sure;
use crate::triage::judge::{Features, Judge};
use crate::triage::score;

/// Bodies are JSON, compressed by zlib.
pub(super) const TABLES: &str = "
    CREATE TABLE features (
        alert_id TEXT PRIMARY KEY REFERENCES alerts (id),
        body BLOB NOT NULL
    ) STRICT;

    CREATE TABLE judges (
        id INTEGER PRIMARY KEY,
        version TEXT NOT NULL UNIQUE,
        learned_ms INTEGER NOT NULL,
        threats INTEGER NOT NULL,
        benign INTEGER NOT NULL,
        sha256 BLOB NOT NULL,
        body BLOB NOT NULL
    ) STRICT;

    -- One row. `changes` counts the closings that said something new, `learned` how many of them the newest judge knows.
    CREATE TABLE learning (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        changes INTEGER NOT NULL,
        learned INTEGER NOT NULL,
        -- The judge that somebody chose; NULL is the newest.
        chosen TEXT,
        chosen_by TEXT,
        chosen_ms INTEGER
    ) STRICT;
    INSERT INTO learning (one, changes, learned) VALUES (1, 0, 0);
    -- What was closed before there were judges.
    UPDATE learning SET changes = (SELECT count(*) FROM closings);";

/// A judge as it is listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    pub version: String,
    pub learned_at: Timestamp,
    /// Closings it learned from.
    pub threats: usize,
    pub benign: usize,
}

/// Where learning stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Closings that said something new, and how many of them the newest judge knows.
    pub changes: i64,
    pub learned: i64,
    /// The judge that somebody chose; absent where the newest is in use.
    pub chosen: Option<Chosen>,
    /// The newest judge; absent where nothing was learned yet.
    pub newest: Option<String>,
}

/// A judge that somebody brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chosen {
    pub version: String,
    pub by: String,
    pub at: Timestamp,
}

impl Standing {
    /// The version that is to be used.
    pub fn version(&self) -> &str {
        let chosen = self.chosen.as_ref().map(|chosen| &chosen.version);
        chosen.or(self.newest.as_ref()).map_or(Judge::PRIOR, String::as_str)
    }
}

/// Keeps what an alert's verdict rests on.
pub(super) fn keep_features(
    tx: &Transaction<'_>,
    alert_id: &str,
    features: &Features,
) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO features (alert_id, body) VALUES (?1, ?2)")?
        .execute(params![alert_id, packed(features)?])
        .map(drop)
}

/// What a verdict rests on; `None` where the alert has none.
pub fn features(connection: &Connection, alert_id: &str) -> rusqlite::Result<Option<Features>> {
    connection
        .prepare_cached("SELECT body FROM features WHERE alert_id = ?1")?
        .query_row([alert_id], |row| unpacked(row.get_ref(0)?.as_blob()?))
        .optional()
}

/// Says that there is something new to learn, in the transaction of the closing.
pub(super) fn changed(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE learning SET changes = changes + 1")?.execute([]).map(drop)
}

pub fn standing(connection: &Connection) -> rusqlite::Result<Standing> {
    let newest = connection
        .prepare_cached("SELECT version FROM judges ORDER BY id DESC LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    connection
        .prepare_cached("SELECT changes, learned, chosen, chosen_by, chosen_ms FROM learning")?
        .query_row([], |row| {
            let chosen = match row.get::<_, Option<String>>(2)? {
                Some(version) => Some(Chosen { version, by: row.get(3)?, at: milliseconds(row.get(4)?)? }),
                None => None,
            };
            Ok(Standing { changes: row.get(0)?, learned: row.get(1)?, chosen, newest })
        })
}

/// A judge by its version. `Err` says what is wrong with what is kept of it: it is not to be used.
pub fn load(connection: &Connection, version: &str) -> rusqlite::Result<Result<Judge, String>> {
    if version == Judge::PRIOR {
        return Ok(Ok(Judge::prior()));
    }
    let kept: Option<(Vec<u8>, Vec<u8>)> = connection
        .prepare_cached("SELECT sha256, body FROM judges WHERE version = ?1")?
        .query_row([version], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match kept {
        None => Err("it is not in the store".to_owned()),
        Some((sha256, body)) if Sha256::digest(&body)[..] != sha256 => {
            Err("it is damaged: its checksum is another".to_owned())
        }
        Some((_, body)) => match unpacked::<Judge>(&body) {
            Ok(judge) if judge.is_current() => Ok(judge),
            Ok(_) => Err("another version of watchpost learned it, from other features".to_owned()),
            Err(error) => Err(format!("it cannot be read: {error}")),
        },
    })
}

/// Keeps what was learned up to `changes`, as the newest; the prior too, where all that taught was undone.
pub fn keep(tx: &Transaction<'_>, judge: &Judge, changes: i64, now: Timestamp) -> rusqlite::Result<()> {
    let body = packed(judge)?;
    tx.execute("DELETE FROM judges WHERE version = ?1", [&judge.version])?;
    tx.execute(
        "INSERT INTO judges (version, learned_ms, threats, benign, sha256, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            judge.version,
            now.as_millisecond(),
            judge.learned.0 as i64,
            judge.learned.1 as i64,
            &Sha256::digest(&body)[..],
            body
        ],
    )?;
    tx.execute(
        "DELETE FROM judges WHERE version IS NOT (SELECT chosen FROM learning)
         AND id NOT IN (SELECT id FROM judges ORDER BY id DESC LIMIT ?1)",
        [MAX_KEPT],
    )?;
    tx.execute("UPDATE learning SET learned = ?1", [changes]).map(drop)
}

/// Puts a judge in use, `None` the newest, and says whether it is there. Trust in the one before ends.
pub fn choose(
    tx: &Transaction<'_>,
    version: Option<&str>,
    by: &str,
    now: Timestamp,
) -> rusqlite::Result<Result<(), String>> {
    if let Some(version) = version
        && let Err(reason) = load(tx, version)?
    {
        return Ok(Err(reason));
    }
    tx.execute(
        "UPDATE learning SET chosen = ?1, chosen_by = ?2, chosen_ms = ?3",
        params![version, by, now.as_millisecond()],
    )?;
    trust::judge_chosen(tx, now).map(Ok)
}

/// Those that are kept, newest first.
pub fn list(connection: &Connection) -> rusqlite::Result<Vec<Kept>> {
    let kept = |row: &Row<'_>| {
        Ok(Kept {
            version: row.get(0)?,
            learned_at: milliseconds(row.get(1)?)?,
            threats: count(row, 2)?,
            benign: count(row, 3)?,
        })
    };
    connection
        .prepare("SELECT version, learned_ms, threats, benign FROM judges ORDER BY id DESC")?
        .query_map([], kept)?
        .collect()
}

/// The id of an alert without a verdict, and its features, found when it was closed.
pub type Found = (Arc<str>, Features);

/// What analysts decided, to learn from: the last [`MAX_LESSONS`] closed alerts whose closing says threat or benign, in the
/// order in which they were closed. What was closed in a burst weighs less. Features that were never kept (alerts without a
/// verdict), or by a watchpost that looked at others, are found now, and come beside.
pub fn lessons(connection: &Connection) -> rusqlite::Result<(Vec<Lesson>, Vec<Found>)> {
    let mut closings = connection
        .prepare(
            "SELECT alert_id, analyst, at_ms, label, said FROM closings WHERE undone_at_ms IS NULL AND analyst <> ?2
             ORDER BY at_ms DESC, id DESC LIMIT ?1",
        )?
        .query_map(params![MAX_CLOSINGS, MACHINE], |row| {
            Ok(Seen {
                alert: row.get(0)?,
                analyst: row.get(1)?,
                at: milliseconds(row.get(2)?)?,
                label: label_at(row, 3)?,
                judge: row.get(4)?,
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    closings.reverse();
    let weights = bursts::weights(&closings, &bursts::bursts(&closings));
    // The last closing of an alert stands.
    let last: HashMap<&Arc<str>, usize> =
        closings.iter().enumerate().map(|(place, closing)| (&closing.alert, place)).collect();
    let stands = |place: usize| last[&closings[place].alert] == place;
    let mut teach: Vec<(usize, bool)> = (0..closings.len())
        .filter(|place| stands(*place) && weights[*place] > 0.0)
        .filter_map(|place| Some((place, closings[place].label.is_threat()?)))
        .collect();
    teach.drain(..teach.len().saturating_sub(MAX_LESSONS));
    let mut lessons = Vec::new();
    let mut found = Vec::new();
    for (place, is_threat) in teach {
        let alert = &closings[place].alert;
        let kept = features(connection, alert).unwrap_or_else(|error| {
            tracing::warn!(alert = &**alert, %error, "its features cannot be read: found again from the alert");
            None
        });
        let features = match kept {
            Some(features) if features.is_current() => features,
            _ => {
                let Some(features) = found_now(connection, alert)? else { continue };
                found.push((Arc::clone(alert), features.clone()));
                features
            }
        };
        lessons.push(Lesson { features, is_threat, weight: weights[place] });
    }
    Ok((lessons, found))
}

/// Ids of at most `limit` open alerts of which `judge` is least sure, of the last [`MAX_UNSURE`] that are open and have a verdict, among
/// the last [`MAX_LISTED`] alerts. Blind ones are left out: that they stand here would tell of their verdict.
pub fn unsure(connection: &Connection, judge: &Judge, limit: usize) -> rusqlite::Result<Vec<String>> {
    let mut open = connection.prepare(&format!(
        "SELECT id, rule, features.body
         FROM (SELECT id, rule, created_at, is_blind FROM alerts ORDER BY created_at DESC, id LIMIT {MAX_LISTED}) AS alerts
         JOIN features ON features.alert_id = id {IS_OPEN} AND NOT is_blind
         ORDER BY created_at DESC, id LIMIT {MAX_UNSURE}"
    ))?;
    let mut rows = open.query([])?;
    let (mut ids, mut candidates) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let id: String = row.get(0)?;
        // Those of another watchpost, or damaged ones, are found again.
        let kept = unpacked::<Features>(row.get_ref(2)?.as_blob()?).ok().filter(Features::is_current);
        let features = match kept {
            Some(features) => Some(features),
            None => found_now(connection, &id)?,
        };
        if let Some(features) = features {
            candidates.push((judge.probability(&features), row.get::<_, String>(1)?));
            ids.push(id);
        }
    }
    let candidates = candidates.iter().map(|(probability, rule)| (*probability, rule.as_str()));
    Ok(least_sure(candidates, limit).into_iter().map(|place| std::mem::take(&mut ids[place])).collect())
}

/// Keeps what [`lessons`] found beside.
pub fn keep_found(tx: &Transaction<'_>, found: &[Found]) -> rusqlite::Result<()> {
    found.iter().try_for_each(|(alert, features)| keep_features(tx, alert, features))
}

fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    Ok(usize::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

/// `None` where the alert cannot be read.
fn found_now(connection: &Connection, alert_id: &str) -> rusqlite::Result<Option<Features>> {
    let body: String = connection
        .prepare_cached("SELECT body FROM alerts WHERE id = ?1")?
        .query_row([alert_id], |row| row.get(0))?;
    let Ok(alert) = parse::<Alert>(&body) else { return Ok(None) };
    let history = history::look_up(connection, &alert)?;
    Ok(Some(Features::of(&alert, &history, score::by_formula(&alert))))
}

fn packed(value: &impl Serialize) -> rusqlite::Result<Vec<u8>> {
    let failed = |error| rusqlite::Error::ToSqlConversionFailure(error);
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let text = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    encoder.write_all(&text).and_then(|()| encoder.finish()).map_err(|error| failed(error.into()))
}

fn unpacked<T: DeserializeOwned>(body: &[u8]) -> rusqlite::Result<T> {
    let failed = |error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, error);
    let mut text = Vec::new();
    ZlibDecoder::new(body).take(MAX_BYTES).read_to_end(&mut text).map_err(|error| failed(error.into()))?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}

/// Closings that are looked at; an alert may have several.
const MAX_CLOSINGS: i64 = 2 * MAX_LESSONS as i64;
/// Features take about a tenth of a millisecond each to read and judge.
pub const MAX_UNSURE: usize = 5_000;
/// Judges that are kept beside the chosen one.
const MAX_KEPT: i64 = 50;
/// Of a body, unpacked: some hundred times a large judge.
const MAX_BYTES: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::closings;
    use super::super::testing::{store, with};
    use super::*;
    use crate::closing::{Decision, Label};
    use crate::triage::judge::features::FEATURES;
    use crate::triage::judge::learn::{Parts, learn};

    const AT_S: i64 = 1_790_000_000;

    fn now() -> Timestamp {
        Timestamp::from_second(AT_S).unwrap()
    }

    /// Of `ids`, threats and benign ones in turn.
    fn close_all(store: &mut Connection, ids: &[String]) {
        for (place, id) in ids.iter().enumerate() {
            let label = [Label::TruePositive, Label::FalsePositive][place % 2];
            let at = Some(Timestamp::from_second(AT_S + 60 * place as i64).unwrap());
            let decision =
                Decision { alert: id.clone(), label, reason: "x".into(), analyst: "ann".into(), at };
            with(store, |tx| closings::import(tx, &decision, now()));
        }
    }

    fn closed(count: usize) -> (Connection, Vec<String>) {
        let ids: Vec<String> = (0..count).map(|n| format!("aaaa{n:04}")).collect();
        let mut store = store(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        close_all(&mut store, &ids);
        (store, ids)
    }

    fn learned(store: &Connection) -> Judge {
        let (lessons, _) = lessons(store).unwrap();
        learn(&lessons.iter().collect::<Vec<_>>(), Parts::ALL)
    }

    #[test]
    fn what_is_closed_teaches_once_with_the_features_of_its_verdict() {
        let (mut store, ids) = closed(12);
        let kept = Features {
            version: FEATURES,
            words: ["user: root".to_owned()].into(),
            prior: 0.25,
            ..Features::default()
        };
        let older = Features { version: FEATURES - 1, ..kept.clone() };
        with(&mut store, |tx| keep_features(tx, &ids[0], &kept));
        with(&mut store, |tx| keep_features(tx, &ids[1], &older));
        let (first, found) = lessons(&store).unwrap();
        assert_eq!((first.len(), found.len(), &first[0].features), (12, 11, &kept));
        assert!(first[0].is_threat && !first[1].is_threat && first[1].weight == 1.0);
        assert!(first[1].features.words.contains("user: root"), "found from the alert");
        assert!(
            first[1].features.is_current() && !first[1].features.numbers.is_empty(),
            "not those of before"
        );
        with(&mut store, |tx| keep_found(tx, &found));
        let (again, found) = lessons(&store).unwrap();
        assert_eq!((again.len(), found.len()), (12, 0));
        // The one that stands counts, and what is undone teaches nothing.
        let changed = Decision {
            alert: ids[0].clone(),
            label: Label::Duplicate,
            reason: "x".into(),
            analyst: "bob".into(),
            at: None,
        };
        let later = Timestamp::from_second(AT_S + 9_000).unwrap();
        with(&mut store, |tx| closings::close(tx, &changed, later));
        with(&mut store, |tx| closings::undo(tx, &ids[1], "ann", later));
        assert_eq!(lessons(&store).unwrap().0.len(), 10);
        assert_eq!(standing(&store).unwrap().changes, 14);
    }

    #[test]
    fn a_judge_that_was_kept_says_the_same() {
        let (mut store, _) = closed(24);
        let judge = learned(&store);
        with(&mut store, |tx| keep(tx, &judge, 24, now()));
        let standing = standing(&store).unwrap();
        assert_eq!((standing.version(), standing.learned), (judge.version.as_str(), 24));
        assert_eq!(load(&store, standing.version()).unwrap().unwrap(), judge);
        let kept = list(&store).unwrap();
        assert_eq!((kept[0].threats, kept[0].benign), (12, 12));
    }

    #[test]
    fn a_damaged_judge_is_not_used() {
        let (mut store, _) = closed(24);
        let judge = learned(&store);
        with(&mut store, |tx| keep(tx, &judge, 24, now()));
        store.execute("UPDATE judges SET body = zeroblob(10)", []).unwrap();
        let reason = load(&store, &judge.version).unwrap().unwrap_err();
        assert_eq!(reason, "it is damaged: its checksum is another");
        let sha256 = &Sha256::digest([0; 10])[..];
        store.execute("UPDATE judges SET sha256 = ?1", [sha256]).unwrap();
        assert!(load(&store, &judge.version).unwrap().unwrap_err().starts_with("it cannot be read"));
        assert_eq!(load(&store, "none").unwrap().unwrap_err(), "it is not in the store");
    }

    #[test]
    fn a_judge_that_learned_from_other_features_is_not_used() {
        let (mut store, _) = closed(24);
        let mut old = serde_json::to_value(learned(&store)).unwrap();
        old.as_object_mut().unwrap().remove("features");
        let old: Judge = serde_json::from_value(old).unwrap();
        with(&mut store, |tx| keep(tx, &old, 24, now()));
        let reason = load(&store, &old.version).unwrap().unwrap_err();
        assert_eq!(reason, "another version of watchpost learned it, from other features");
    }

    #[test]
    fn the_chosen_judge_stays_however_many_are_learned() {
        let (mut store, _) = closed(12);
        let first = learned(&store);
        with(&mut store, |tx| keep(tx, &first, 12, now()));
        assert!(with(&mut store, |tx| choose(tx, Some("none"), "ann", now())).is_err());
        with(&mut store, |tx| choose(tx, Some(&first.version), "ann", now())).unwrap();
        for n in 0..MAX_KEPT + 5 {
            let mut judge = first.clone();
            judge.version = n.to_string();
            with(&mut store, |tx| keep(tx, &judge, 12, now()));
        }
        assert_eq!(list(&store).unwrap().len() as i64, MAX_KEPT + 1);
        let told = standing(&store).unwrap();
        assert_eq!((told.version(), told.chosen.as_ref().unwrap().by.as_str()), (&*first.version, "ann"));
        with(&mut store, |tx| choose(tx, None, "bob", now())).unwrap();
        assert_eq!(standing(&store).unwrap().version(), (MAX_KEPT + 4).to_string());
    }

    #[test]
    fn a_body_is_small_and_one_that_is_cut_is_refused() {
        let text = json!("x".repeat(1_000)).to_string();
        let body = packed(&text).unwrap();
        assert!(body.len() < 100);
        assert_eq!(unpacked::<String>(&body).unwrap(), text);
        assert!(unpacked::<String>(&body[..20]).is_err());
    }
}
