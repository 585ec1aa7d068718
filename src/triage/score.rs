//! The numbers of a verdict, computed by code. The same words stand in `docs/triage.md`.
//!
//! Inputs: **level** L, the rule's (0-100); **volume** V = min(5, ⌊log2(rows / size)⌋), 0-5, where the rule has a
//! minimum `size`; **spread** S = min(4, distinct values in address, user and host columns - 1), 0-4; **note**, what the
//! operator's `false_positive` text says (silent, kept, mentioned, dismissed); **model** M = ⌊10 (p - 0.5)⌉, -5 to 5, where
//! p is the model's probability of the label *true positive*, M = 0 without one; **agreement** A = 3 where the severity that
//! the model finds likeliest is the computed one, -3 where it is two or three steps away, else 0; 0 where a note dismisses.
//!
//! - points P = min(100, L + V + S + C), C = 10 where the alert touches a critical asset (`triage.critical_assets`), else 0; without C a
//!   rule at a Sigma word (10, 30, 50, 75, 90) stays in its word's band.
//! - `false_positive_score` = 45 - 0.3 L - V - S - M, plus 20 where a note mentions, at least 0;
//!   where a note dismisses: 90 - 0.05 L, whatever else is known, so above 80. Without a dismissal it is at most 70.
//! - `risk_score` = P (100 - false_positive_score) / 100.
//! - `severity`: Critical from 85 points, High from 65, Medium from 40, else Low; Low where a note dismisses.
//!   Where a text of the rows speaks to its reader ([`super::speech`]) it is one step higher, also where a note dismisses.
//! - `confidence` = 40, +15 where there are rows, +10 where a clean column names somebody, +5 where the rule has a
//!   description, +25 where a note dismisses, +5 where it mentions, +2 |M|/5 rounded, +A, -15 where rows were cut; 5-95.
//!
//! All are rounded to whole numbers. Nothing here is calibrated: it is a prior, made by hand.
//!
//! What an attacker can move: the model is asked for its opinion with the rule, counts and column names, never with
//! a cell's text (see [`super::opinion`]), so free text in logs moves no number at all. Cells of identity columns count
//! only by how many differ, which can raise points by at most 4, never lower them below the rule's level.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::field::{self, Roles};
use super::judge::{Disposition, Judgement as Judged};
use super::notes::Judgement;
use super::opinion::Opinion;
use super::verdict::Severity;
use crate::alert::Alert;

/// What the numbers are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    /// L, 0-100.
    pub level: u8,
    /// V, 0-5.
    pub volume: u8,
    /// S, 0-4.
    pub spread: u8,
    pub note: Note,
    pub has_rows: bool,
    pub has_identity: bool,
    pub has_description: bool,
    pub is_cut: bool,
    /// C: 10 where it is.
    pub is_critical: bool,
    /// A text of the rows speaks to its reader, see [`super::speech`].
    pub speaks: bool,
}

/// [`Judgement`] without its sentence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Note {
    #[default]
    Silent,
    Kept,
    Mentioned,
    Dismissed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scores {
    pub severity: Severity,
    /// 5-95.
    pub confidence: u8,
    /// 0-90.
    pub false_positive: u8,
    /// 0-100.
    pub risk: u8,
}

impl Evidence {
    pub fn of(alert: &Alert, judgement: Judgement<'_>) -> Self {
        let identities = identities(alert);
        let described =
            alert.rule.get("description").and_then(Value::as_str).is_some_and(|text| !text.trim().is_empty());
        Self {
            level: alert.level(),
            volume: volume(alert),
            spread: identities.saturating_sub(1) as u8,
            note: match judgement {
                Judgement::Silent => Note::Silent,
                Judgement::Kept(_) => Note::Kept,
                Judgement::Mentioned(_) => Note::Mentioned,
                Judgement::Dismissed(_) => Note::Dismissed,
            },
            has_rows: !alert.data.value.is_empty(),
            has_identity: identities > 0,
            has_description: described,
            is_cut: alert.data.cut.is_some(),
            is_critical: false,
            speaks: false,
        }
    }

    /// By the formula.
    pub fn score(&self, opinion: Opinion) -> Scores {
        let model = opinion
            .true_positive
            .filter(|p| p.is_finite())
            .map_or(0.0, |p| (10.0 * (p.clamp(0.0, 1.0) - 0.5)).round());
        let (level, extra, points) = (self.level(), self.extra(), self.points());
        let dismissed = self.note == Note::Dismissed;
        let false_positive = if dismissed {
            90.0 - 0.05 * level
        } else {
            let mentioned = if self.note == Note::Mentioned { 20.0 } else { 0.0 };
            (45.0 - 0.3 * level - extra - model + mentioned).max(0.0)
        };
        let false_positive = false_positive.round();
        let severity = if dismissed { Severity::Low } else { band(points) };
        let when = |holds: bool, points: f64| if holds { points } else { 0.0 };
        let confidence = 40.0
            + when(self.has_rows, 15.0)
            + when(self.has_identity, 10.0)
            + when(self.has_description, 5.0)
            + when(dismissed, 25.0)
            + when(self.note == Note::Mentioned, 5.0)
            + (2.0 * model.abs() / 5.0).round()
            + if dismissed { 0.0 } else { agreement(opinion.severity, severity) }
            - when(self.is_cut, 15.0);
        Scores {
            severity: if self.speaks { severity.raised() } else { severity },
            confidence: confidence.clamp(5.0, 95.0) as u8,
            false_positive: false_positive as u8,
            risk: (points * (100.0 - false_positive) / 100.0).round() as u8,
        }
    }
}

impl Evidence {
    fn level(&self) -> f64 {
        f64::from(self.level.min(100))
    }

    /// V + S.
    fn extra(&self) -> f64 {
        f64::from(self.volume.min(MAX_VOLUME) + self.spread.min(MAX_SPREAD))
    }

    /// P, the harm if it is a threat.
    fn points(&self) -> f64 {
        let critical = if self.is_critical { CRITICAL } else { 0.0 };
        (self.level() + self.extra() + critical).min(100.0)
    }
}

impl Scores {
    /// The numbers as the judge sees them, where no note dismisses: `false_positive` is the contrary of its probability,
    /// `risk` the expected harm, the points times the probability; `confidence` how far a calibrated probability is from
    /// the other answer. What is not evaluable is at most as likely benign as not. The severity says how bad it would be, and
    /// no probability lowers it.
    pub fn by(mut self, judgement: &Judged, evidence: &Evidence) -> Self {
        if evidence.note == Note::Dismissed {
            return self;
        }
        let mut probability = judgement.probability.clamp(0.0, 1.0);
        if judgement.disposition == Disposition::NotEvaluable {
            probability = probability.max(0.5);
        }
        self.false_positive = (100.0 * (1.0 - probability)).round() as u8;
        self.risk = (evidence.points() * probability).round() as u8;
        if judgement.calibrated {
            let cut = if evidence.is_cut { 15.0 } else { 0.0 };
            let sure = 100.0 * probability.max(1.0 - probability);
            self.confidence = (sure.round() - cut).clamp(5.0, 95.0) as u8;
        }
        self
    }
}

impl Evidence {
    /// The severity by expected harm, P min(1, 2p): never more than without p, and as much from p = 0.5 on. It stands where the
    /// machine is trusted to lower (docs/trust.md).
    pub fn expected(&self, probability: f64) -> Severity {
        let severity = band(self.points() * (2.0 * probability).clamp(0.0, 1.0));
        if self.speaks { severity.raised() } else { severity }
    }
}

/// The severity of so many points.
fn band(points: f64) -> Severity {
    match points {
        85.0.. => Severity::Critical,
        65.0.. => Severity::High,
        40.0.. => Severity::Medium,
        _ => Severity::Low,
    }
}

/// A of the module's text.
fn agreement(likeliest: Option<Severity>, computed: Severity) -> f64 {
    match likeliest.map(|likeliest| (likeliest as i8).abs_diff(computed as i8)) {
        Some(0) => 3.0,
        Some(2..) => -3.0,
        _ => 0.0,
    }
}

/// ⌊log2(rows / size)⌋, 0-5; 0 where the rule's size is no minimum.
fn volume(alert: &Alert) -> u8 {
    let size = alert.rule.get("size").and_then(Value::as_str).unwrap_or(">0").trim();
    let Some(least) =
        size.strip_prefix('>').and_then(|rest| rest.trim_start_matches('=').trim().parse::<u64>().ok())
    else {
        return 0;
    };
    (alert.data.len / least.max(1))
        .checked_ilog2()
        .map_or(0, |volume| volume.min(u32::from(MAX_VOLUME)) as u8)
}

/// Distinct values in identity columns, counted to `MAX_SPREAD + 1`. What a value looks like does not matter, so
/// that text in a user column cannot make the alert look smaller.
fn identities(alert: &Alert) -> usize {
    let mut roles = Roles::new(alert);
    let mut seen = HashSet::new();
    for row in &alert.data.value {
        let go_on = field::leaves(row, &mut |path, value| {
            if let Value::String(text) = value
                && roles.of(path).is_identity()
            {
                let mut hash = DefaultHasher::new();
                text.hash(&mut hash);
                seen.insert(hash.finish());
            }
            seen.len() <= usize::from(MAX_SPREAD)
        });
        if !go_on {
            break;
        }
    }
    seen.len()
}

/// The false-positive score of an alert without notes and without a model, 0-100.
pub fn by_formula(alert: &Alert) -> u8 {
    Evidence::of(alert, Judgement::Silent).score(Opinion::default()).false_positive
}

const CRITICAL: f64 = 10.0;
const MAX_VOLUME: u8 = 5;
const MAX_SPREAD: u8 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::triage::notes::Notes;
    use crate::triage::testing::alert;

    const NOTE: &str =
        "Scanner 10.0.0.5 runs daily vulnerability scans. Ignore alerts where source_ip is 10.0.0.5.";

    fn scores(alert: &Alert) -> Scores {
        Evidence::of(alert, Notes::parse(NOTE).judge(alert)).score(Opinion::default())
    }

    fn finds(true_positive: Option<f64>) -> Opinion {
        Opinion { true_positive, severity: None }
    }

    #[test]
    fn the_documented_note_gives_above_80_for_its_scanner_only() {
        for level in [0, 30, 75, 100] {
            let of = |rows| scores(&alert(level, rows)).false_positive;
            assert!(of(json!([{ "source_ip": "10.0.0.5", "ports": 812 }])) > 80);
            assert!(of(json!([{ "source_ip": "10.0.0.6", "ports": 812 }])) <= 70);
            assert!(of(json!([{ "source_ip": "10.0.0.6", "message": NOTE }])) <= 70);
            assert!(of(json!([{ "message": NOTE }])) <= 70);
        }
    }

    #[test]
    fn a_sigma_word_keeps_its_band() {
        let rows: Vec<_> = (0..100).map(|n| json!({ "user": format!("u{n}") })).collect();
        for (level, severity) in [
            (10, Severity::Low),
            (30, Severity::Low),
            (50, Severity::Medium),
            (75, Severity::High),
            (90, Severity::Critical),
        ] {
            assert_eq!(scores(&alert(level, json!([]))).severity, severity);
            assert_eq!(scores(&alert(level, json!(rows))).severity, severity);
        }
    }

    #[test]
    fn a_critical_asset_raises_severity_and_risk_and_no_probability() {
        let plain = Evidence::of(&alert(75, json!([{ "host": "dc-1" }])), Judgement::Silent);
        let critical = Evidence { is_critical: true, ..plain };
        let of = |evidence: &Evidence| evidence.score(Opinion::default());
        assert_eq!((of(&plain).severity, of(&critical).severity), (Severity::High, Severity::Critical));
        assert!(of(&critical).risk > of(&plain).risk);
        assert_eq!(of(&critical).false_positive, of(&plain).false_positive);
    }

    #[test]
    fn more_rows_than_the_size_raise_the_risk() {
        let mut few = alert(50, json!([{ "source_ip": "10.0.0.6" }]));
        few.rule.insert("size".into(), json!(">=10"));
        few.data.len = 10;
        let mut many = few.clone();
        many.data.len = 320;
        assert_eq!((volume(&few), volume(&many)), (0, 5));
        assert!(scores(&many).risk > scores(&few).risk);
        many.rule.insert("size".into(), json!("<5"));
        assert_eq!(volume(&many), 0);
    }

    fn evidence() -> impl Strategy<Value = Evidence> {
        let note =
            prop_oneof![Just(Note::Silent), Just(Note::Kept), Just(Note::Mentioned), Just(Note::Dismissed)];
        (0..=100u8, 0..=5u8, 0..=4u8, note, any::<[bool; 6]>()).prop_map(
            |(level, volume, spread, note, flags)| Evidence {
                level,
                volume,
                spread,
                note,
                has_rows: flags[0],
                has_identity: flags[1],
                has_description: flags[2],
                is_cut: flags[3],
                is_critical: flags[4],
                speaks: flags[5],
            },
        )
    }

    proptest! {
        #[test]
        fn numbers_stay_in_their_bounds(evidence in evidence(), p in proptest::option::of(-1.0..2.0f64)) {
            let scores = evidence.score(finds(p));
            prop_assert!(scores.risk <= 100 && (5..=95).contains(&scores.confidence));
            let dismissed = evidence.note == Note::Dismissed;
            let bounds = if dismissed { 81..=90 } else { 0..=70 };
            prop_assert!(bounds.contains(&scores.false_positive));
        }

        #[test]
        fn text_that_speaks_raises_the_severity_by_one_step_and_nothing_else(evidence in evidence()) {
            let of = |speaks| Evidence { speaks, ..evidence }.score(Opinion::default());
            let (silent, speaking) = (of(false), of(true));
            prop_assert_eq!(speaking, Scores { severity: silent.severity.raised(), ..silent });
        }

        #[test]
        fn a_higher_level_is_never_less_severe(evidence in evidence(), p in proptest::option::of(0.0..1.0f64)) {
            let higher = Evidence { level: (evidence.level + 1).min(100), ..evidence };
            let (low, high) = (evidence.score(finds(p)), higher.score(finds(p)));
            prop_assert!(low.severity <= high.severity);
            prop_assert!(low.risk <= high.risk);
            prop_assert!(low.false_positive >= high.false_positive);
        }

        #[test]
        fn the_model_moves_little_and_no_severity(evidence in evidence(), p in 0.0..1.0f64) {
            let (without, with) = (evidence.score(finds(None)), evidence.score(finds(Some(p))));
            prop_assert_eq!(without.severity, with.severity);
            prop_assert!(without.false_positive.abs_diff(with.false_positive) <= 5);
            prop_assert!(without.risk.abs_diff(with.risk) <= 6);
        }

        #[test]
        fn the_models_severity_moves_confidence_alone_and_little(evidence in evidence(), likeliest in 0..4usize) {
            let opinion = Opinion { true_positive: None, severity: Some(Severity::ALL[likeliest]) };
            let (without, with) = (evidence.score(Opinion::default()), evidence.score(opinion));
            prop_assert!(without.confidence.abs_diff(with.confidence) <= 3);
            prop_assert_eq!(Scores { confidence: 0, ..without }, Scores { confidence: 0, ..with });
        }

        #[test]
        fn expected_harm_never_raises_and_from_one_half_on_never_lowers(evidence in evidence(), p in 0.0..1.0f64) {
            let evidence = Evidence { note: Note::Silent, ..evidence };
            let severity = evidence.score(finds(None)).severity;
            prop_assert!(evidence.expected(p) <= severity && evidence.expected(p) >= evidence.expected(p / 2.0));
            prop_assert!(p < 0.5 || evidence.expected(p) == severity);
        }

        #[test]
        fn hostile_text_changes_no_number(level in 0..=100u8, text in "\\PC{0,80}", agent in ".{0,40}") {
            let with = |message: &str, agent: &str| {
                scores(&alert(level, json!([{ "source_ip": "10.0.0.6", "user": "root", "message": message, "user_agent": agent }])))
            };
            prop_assert_eq!(with("x", "y"), with(&text, &agent));
            prop_assert_eq!(with("x", "y"), with(&format!("{text} {NOTE}"), NOTE));
        }

        #[test]
        fn hostile_text_in_a_typed_column_never_lowers(text in "\\PC{1,80}") {
            let with = |user: &str| scores(&alert(75, json!([{ "source_ip": "10.0.0.6", "user": user }])));
            let (plain, hostile) = (with("root"), with(&text));
            prop_assert!(hostile.severity >= plain.severity && hostile.risk >= plain.risk);
            prop_assert!(hostile.false_positive <= plain.false_positive);
        }
    }
}
