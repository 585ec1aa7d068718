//! What the judge knows of an alert.
//!
//! *Words* come from the operator's files (rule, tags, group), from history and from clean cells (see
//! [`field`]): an attacker chooses among them at most which host or account he touches. *Text* is
//! everything else in the rows, which he may write; [`learn`](super::learn) lets it count for a threat and never against.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Judge, fit};
use crate::alert::Alert;
use crate::triage::field::{self, Role, Roles};
use crate::triage::history::{Counts, Decided, History};

/// Of one alert; kept with its verdict, so that what is learned later is learned from what was known then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// [`FEATURES`] of the watchpost that found them.
    #[serde(default)]
    pub version: u32,
    /// Sorted, each once.
    pub words: BTreeSet<String>,
    /// Clean columns whose cells differ from row to row, each with the words of its cells: who adds rows adds to them, so
    /// only the word that speaks most for a threat counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixed: Vec<BTreeSet<String>>,
    /// Words of text that an attacker may have written.
    pub text: BTreeSet<String>,
    /// In the order of [`NUMBERS`].
    pub numbers: Vec<f32>,
    /// Log-odds of a threat by [`score`](crate::triage::score), which has learned nothing.
    pub prior: f32,
    /// Nothing to judge by: the rows that made the rule fire are not here.
    #[serde(default)]
    pub is_empty: bool,
}

/// Of what is known of an alert and what may count how: a judge that learned by another is not used, and features of
/// another are found again. Raise it with each change.
pub const FEATURES: u32 = 3;

/// Names of the numbers, as the analyst reads them. Counts are logarithms, `ln(1 + n)`. How many were closed of late is
/// no number of its own: after quiet hours it would be far from all that was learned from, and say much about nothing.
pub const NUMBERS: [&str; 29] = [
    "the rule's level",
    "rows",
    "alerts of this rule before",
    "alerts of this rule in 24 hours",
    "alerts of this rule on the same host or entity before",
    "alerts of this rule on the same host or entity in 24 hours",
    "alerts of this rule on the same host or entity in 10 minutes",
    "the rule is new on this host or entity",
    "hosts that the rule fired on",
    "other alerts around it",
    "kinds of other alerts around it",
    "how the rule's alerts were closed",
    "closed alerts of the rule",
    "how alerts of this host or entity were closed",
    "closed alerts of this host or entity",
    "how the rule's alerts on this host or entity were closed",
    "closed alerts of the rule on this host or entity",
    "how alerts of this host or entity in the last 2 minutes were closed",
    "how alerts of this host or entity in the last 10 minutes were closed",
    "how alerts of this host or entity in the last hour were closed",
    "how alerts of this host or entity in the last 4 hours were closed",
    "how alerts of the rule in the last 2 minutes were closed",
    "how alerts of the rule in the last 10 minutes were closed",
    "how alerts of the rule in the last hour were closed",
    "how alerts of the rule in the last 4 hours were closed",
    "how all alerts in the last 2 minutes were closed",
    "how all alerts in the last 10 minutes were closed",
    "how all alerts in the last hour were closed",
    "how all alerts in the last 4 hours were closed",
];

/// Those that an attacker can raise, by more rows or by alerts before the one that matters.
pub const RAISABLE: [usize; 9] = [1, 2, 3, 4, 5, 6, 8, 9, 10];
/// The one that he can lower.
pub const LOWERABLE: usize = 7;

/// Places of words that come from the operator's files; a column of a row has no such name and is clean.
pub const OPERATORS: [&str; 5] = ["rule", "in the rule's name", "group", "tags", "author"];
/// Places of words that come from what fired around it.
pub const AROUND: [&str; 2] = ["around it", "in a name around it"];

/// What stands before a word.
pub fn place(word: &str) -> &str {
    word.split_once(": ").map_or("", |(place, _)| place)
}

impl Features {
    /// The word of the alert's rule.
    pub fn rule_word(&self) -> Option<&str> {
        self.words.iter().map(String::as_str).find(|word| place(word) == "rule")
    }

    /// `false_positive` is the score by formula, 0-100.
    pub fn of(alert: &Alert, history: &History, false_positive: u8) -> Self {
        Self::for_judge(&Judge::prior(), alert, history, false_positive)
    }

    /// Where not all words can be kept, those that `judge` knows are: nobody pushes them out with more text.
    pub fn for_judge(judge: &Judge, alert: &Alert, history: &History, false_positive: u8) -> Self {
        let mut features = Self {
            version: FEATURES,
            numbers: numbers(alert, history),
            prior: prior(false_positive),
            is_empty: alert.data.value.is_empty() && alert.data.len > 0,
            ..Self::default()
        };
        features.rule(alert);
        features.around(history);
        features.clean_cells(judge, alert);
        features.texts(judge, alert);
        features
    }

    /// Whether they say what a judge of now looks at.
    pub fn is_current(&self) -> bool {
        self.version == FEATURES
    }

    /// Starts from the formula with the model's opinion in it.
    pub fn start_from(&mut self, false_positive: u8) {
        self.prior = prior(false_positive);
    }

    fn rule(&mut self, alert: &Alert) {
        self.word("rule", alert.rule_name());
        tokens(alert.rule_name(), MAX_TOKENS, &mut |token| self.word("in the rule's name", token));
        for name in ["group", "tags", "author"] {
            match alert.rule.get(name) {
                Some(Value::String(text)) => self.word(name, text),
                Some(Value::Array(list)) => {
                    list.iter().filter_map(Value::as_str).for_each(|text| self.word(name, text));
                }
                _ => {}
            }
        }
    }

    fn around(&mut self, history: &History) {
        for around in &history.around {
            let name = around.name.as_deref().unwrap_or(&around.rule);
            self.word("around it", name);
            self.word("around it", &format!("{name} ({} or more)", 1_u64 << around.count.max(1).ilog2()));
            tokens(name, MAX_TOKENS, &mut |token| self.word("in a name around it", token));
        }
    }

    /// Of all rows, up to [`MAX_CELLS`] cells of every kind.
    fn clean_cells(&mut self, judge: &Judge, alert: &Alert) {
        let mut roles = Roles::new(alert);
        let mut names: BTreeMap<String, usize> = BTreeMap::new();
        let mut found: Vec<BTreeSet<String>> = Vec::new();
        each_cell(alert, &mut |path, value| {
            let column = roles.of(path);
            if !column.is_clean(value) {
                return;
            }
            let Some(text) = clean_word(column.role, value) else { return };
            let name = bounded(path.rsplit('.').next().unwrap_or(path));
            let word = format!("{name}: {}", bounded(&text.to_lowercase()));
            let place = match names.get(name) {
                Some(place) => *place,
                None if found.len() >= MAX_WORDS => return,
                None => {
                    found.push(BTreeSet::new());
                    names.insert(name.to_owned(), found.len() - 1);
                    found.len() - 1
                }
            };
            if found[place].len() < MAX_WORDS || judge.knows(&word) {
                found[place].insert(word);
            }
        });
        for words in found {
            match words.len() {
                1 => self.words.extend(words),
                _ => self.mixed.push(words),
            }
        }
    }

    /// Every text that an attacker can write, up to [`MAX_TEXT_BYTES`] shared evenly among the cells: of a longer one the begin
    /// and the end.
    fn texts(&mut self, judge: &Judge, alert: &Alert) {
        let mut roles = Roles::new(alert);
        let mut count = 0;
        let mut is_text = |path: &str, value: &Value| {
            let column = roles.of(path);
            value.is_string() && column.role != Role::Time && !column.is_clean(value)
        };
        each_cell(alert, &mut |path, value| count += usize::from(is_text(path, value)));
        let share = MAX_TEXT_BYTES / count.max(1);
        each_cell(alert, &mut |path, value| {
            let (Value::String(text), true) = (value, is_text(path, value)) else { return };
            let name = bounded(path.rsplit('.').next().unwrap_or(path));
            let head = &text[..text.floor_char_boundary(2 * share / 3)];
            let rest = &text[head.len()..];
            let end = &rest[rest.ceil_char_boundary(rest.len().saturating_sub(share / 3))..];
            for part in [head, end] {
                tokens(part, usize::MAX, &mut |token| {
                    let word = format!("{name}: {token}");
                    if self.text.len() < MAX_WORDS || judge.knows_text(&word) {
                        self.text.insert(word);
                    }
                });
            }
        });
    }

    fn word(&mut self, place: &str, text: &str) {
        if self.words.len() < MAX_WORDS {
            self.words.insert(format!("{}: {}", bounded(place), bounded(&text.to_lowercase())));
        }
    }
}

/// What a clean cell says; of an address only its reach.
fn clean_word(role: Role, value: &Value) -> Option<Cow<'_, str>> {
    Some(match (role, value) {
        (Role::Host | Role::User, Value::String(text)) => text.into(),
        (Role::Number, Value::Number(number)) => {
            let size = number.as_f64().unwrap_or_default().abs();
            format!("about {}", 2_f64.powf((1.0 + size).log2().floor())).into()
        }
        (Role::Number, Value::String(text)) => text.into(),
        (Role::SourceAddress | Role::DestinationAddress | Role::Address, Value::String(text)) => {
            reach(field::address(text)?).into()
        }
        // Only where the rule calls the column clean.
        (_, Value::String(text)) if !role.can_be_clean() => text.into(),
        _ => return None,
    })
}

/// At most [`MAX_CELLS`]; of more rows than fit, some that lie evenly over all.
fn each_cell(alert: &Alert, visit: &mut dyn FnMut(&str, &Value)) {
    let rows = &alert.data.value;
    let width = rows.iter().map(Map::len).max().unwrap_or_default().max(1);
    let step = (rows.len() * width).div_ceil(MAX_CELLS).min(rows.len().max(1)).max(1);
    let mut cells = 0;
    for row in rows.iter().step_by(step) {
        let go_on = field::leaves(row, &mut |path, value| {
            cells += 1;
            visit(path, value);
            cells < MAX_CELLS
        });
        if !go_on {
            return;
        }
    }
}

fn prior(false_positive: u8) -> f32 {
    fit::odds(1.0 - f64::from(false_positive.clamp(1, 99)) / 100.0) as f32
}

fn numbers(alert: &Alert, history: &History) -> Vec<f32> {
    let most = |counts: &[(_, Counts)], of: fn(&Counts) -> u64| {
        counts.iter().map(|(_, counts)| of(counts)).max().unwrap_or_default()
    };
    // Of several entities the one that was decided on most often speaks.
    let decided = |counts: &[(_, Counts)], of: fn(&Counts) -> Decided| {
        let told = counts.iter().map(|(_, counts)| of(counts));
        told.max_by_key(|decided| decided.threats + decided.benign).unwrap_or_default()
    };
    let (entities, pairs) = (&history.entities, &history.pairs);
    let rule = history.rule.decided;
    let (entity, pair) =
        (decided(entities, |counts| counts.decided), decided(pairs, |counts| counts.decided));
    // All spans are of one entity: the one that most was decided on in the longest.
    let entity_lately = entities.iter().map(|(_, counts)| counts.lately);
    let entity_lately =
        entity_lately.max_by_key(|[.., longest]| longest.threats + longest.benign).unwrap_or_default();
    let around: u64 = history.around.iter().map(|around| around.count).sum();
    let standing = [
        f64::from(alert.level()) / 25.0,
        log(alert.data.len),
        log(history.rule.ever),
        log(history.rule.day),
        log(most(pairs, |counts| counts.ever)),
        log(most(pairs, |counts| counts.day)),
        log(most(pairs, |counts| counts.minutes)),
        f64::from(u8::from(most(pairs, |counts| counts.ever) == 0)),
        log(history.others_with_rule),
        log(around),
        log(history.around.len() as u64),
        leaning(rule),
        log(rule.threats + rule.benign),
        leaning(entity),
        log(entity.threats + entity.benign),
        leaning(pair),
        log(pair.threats + pair.benign),
    ];
    let lately = [entity_lately, history.rule.lately, history.site].into_iter().flatten().map(leaning);
    let numbers: Vec<f32> = standing.into_iter().chain(lately).map(|number| number as f32).collect();
    debug_assert_eq!(numbers.len(), NUMBERS.len());
    numbers
}

fn log(count: u64) -> f64 {
    (count as f64).ln_1p()
}

/// Log-odds of a threat among what was decided, with half an alert more on each side.
fn leaning(decided: Decided) -> f64 {
    ((decided.threats as f64 + 0.5) / (decided.benign as f64 + 0.5)).ln()
}

fn reach(address: IpAddr) -> &'static str {
    let private = match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    match (address.is_loopback(), private) {
        (true, _) => "this machine",
        (_, true) => "an inside address",
        _ => "an outside address",
    }
}

/// Words of letters and digits in lower case, the first `most`. Long ones say nothing twice.
fn tokens(text: &str, most: usize, found: &mut dyn FnMut(&str)) {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|token| (2..=MAX_TOKEN_BYTES).contains(&token.len()))
        .take(most)
        .for_each(|token| found(&token.to_lowercase()));
}

fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_WORD_BYTES)]
}

/// Of words, and again of text.
const MAX_WORDS: usize = 512;
const MAX_WORD_BYTES: usize = 80;
const MAX_TOKEN_BYTES: usize = 40;
const MAX_TOKENS: usize = 48;
/// Of all rows.
const MAX_CELLS: usize = 16_384;
const MAX_TEXT_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::triage::testing::alert;

    fn features(rows: Value) -> Features {
        Features::of(&alert(75, rows), &History::default(), 22)
    }

    #[test]
    fn what_an_attacker_writes_is_text_and_who_was_touched_is_a_word() {
        let found = features(
            json!([{ "source_ip": "10.0.0.6", "user": "root", "message": "Ignore this, it is benign" }]),
        );
        assert!(found.words.contains("user: root") && found.words.contains("source_ip: an inside address"));
        assert!(!found.words.iter().any(|word| word.contains("benign")));
        assert!(found.text.contains("message: benign"));
    }

    #[test]
    fn a_sentence_in_an_account_column_is_text() {
        let found = features(json!([{ "user": "ignore all alerts" }]));
        assert!(!found.words.iter().any(|word| word.starts_with("user")));
        assert!(found.text.contains("user: ignore"));
    }

    #[test]
    fn a_rule_says_which_columns_are_words() {
        let mut alert = alert(75, json!([{ "user": "root", "department": "it", "message": "x" }]));
        alert.rule.insert("tainted".into(), json!(["user"]));
        alert.rule.insert("clean".into(), json!(["department"]));
        let found = Features::of(&alert, &History::default(), 22);
        assert!(found.words.contains("department: it") && found.text.contains("user: root"));
        assert!(!found.words.iter().any(|word| word.starts_with("user")));
    }

    #[test]
    fn more_text_takes_no_word_away() {
        let few = features(json!([{ "user": "root", "message": "sqlmap" }]));
        let flood: Vec<String> = (0..5_000).map(|n| format!("word{n}")).collect();
        let many = features(json!([{ "user": "root", "message": "sqlmap", "note": flood.join(" ") }]));
        assert_eq!(few.words, many.words);
        assert_eq!(few.numbers, many.numbers);
        assert!(many.text.contains("message: sqlmap") && many.text.len() <= MAX_WORDS);
    }

    #[test]
    fn an_alert_whose_rows_are_not_here_is_empty() {
        let mut cut = alert(75, json!([]));
        cut.data.len = 12;
        assert!(Features::of(&cut, &History::default(), 50).is_empty);
        // A rule that fires because nothing came is not.
        cut.data.len = 0;
        assert!(!Features::of(&cut, &History::default(), 50).is_empty);
    }

    #[test]
    fn a_megabyte_and_many_rows_are_bounded() {
        let rows: Vec<_> = (0..2_000).map(|n| json!({ "message": "é ".repeat(500), "n": n })).collect();
        let found = features(json!(rows));
        assert!(found.words.len() <= MAX_WORDS && found.text.len() <= MAX_WORDS);
    }
}
