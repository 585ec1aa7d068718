//! What each sentence of a verdict rests on: rows, columns, the rule, the count, the operator's note. Found by code, which
//! holds every sentence against the alert, whoever wrote it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::field::{self, Roles};
use super::prose::sentences;
use super::verdict::Verdict;
use crate::alert::Alert;

/// A sentence of summary or explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub text: String,
    /// At least one and at most [`MAX_GROUNDS`]: `row 3 user` (rows count from 0), `column user`, `rows` (their count), `rule`,
    /// `window`, `note`.
    pub rests_on: Vec<String>,
}

/// Of the verdict's summary and explanation, in their order.
pub fn of(verdict: &Verdict, alert: &Alert) -> Vec<Claim> {
    let cells = Cells::of(alert);
    let texts = [&verdict.summary, &verdict.explanation];
    let all = texts.into_iter().flat_map(|text| sentences(text));
    all.map(|sentence| Claim { text: sentence.to_owned(), rests_on: cells.grounds(sentence, alert) })
        .collect()
}

/// Where words of the rows stand first.
struct Cells {
    /// Words in lower case with the row and column of their cell: whole clean cells, and whatever has a digit.
    words: HashMap<String, (usize, String)>,
    columns: Vec<String>,
}

impl Cells {
    fn of(alert: &Alert) -> Self {
        let mut roles = Roles::new(alert);
        let mut cells = Self { words: HashMap::new(), columns: Vec::new() };
        for (index, row) in alert.data.value.iter().take(MAX_ROWS).enumerate() {
            field::leaves(row, &mut |path, value| {
                let path = &path[..path.floor_char_boundary(MAX_PATH_BYTES)];
                if !cells.columns.iter().any(|column| column == path) && cells.columns.len() < MAX_COLUMNS {
                    cells.columns.push(path.to_owned());
                }
                match value {
                    Value::String(text) => {
                        let head = &text[..text.floor_char_boundary(MAX_CELL_BYTES)];
                        if roles.of(path).is_clean(value) {
                            cells.add(head, index, path);
                        }
                        words(head)
                            .filter(|word| has_digit(word))
                            .for_each(|word| cells.add(word, index, path));
                    }
                    Value::Number(number) => cells.add(&number.to_string(), index, path),
                    _ => {}
                }
                cells.words.len() < MAX_WORDS
            });
        }
        cells
    }

    fn add(&mut self, word: &str, row: usize, path: &str) {
        self.words.entry(word.to_lowercase()).or_insert_with(|| (row, path.to_owned()));
    }

    fn grounds(&self, sentence: &str, alert: &Alert) -> Vec<String> {
        let mut grounds = Vec::new();
        let mut add = |ground: String| {
            if !grounds.contains(&ground) && grounds.len() < MAX_GROUNDS {
                grounds.push(ground);
            }
        };
        let count = alert.data.len.to_string();
        for word in words(sentence) {
            if let Some((row, path)) = self.words.get(&word.to_lowercase()) {
                add(format!("row {row} {path}"));
            } else if word == count || matches!(word, "row" | "rows") {
                add("rows".to_owned());
            } else if self.columns.iter().any(|column| column == word) {
                add(format!("column {word}"));
            } else if let "note" | "notes" = word {
                add("note".to_owned());
            } else if word == alert.window.start.to_string() || word == alert.window.end.to_string() {
                add("window".to_owned());
            }
        }
        let lower = sentence.to_lowercase();
        let names_rule = ["rule", "level", "severity"].iter().any(|word| lower.contains(word))
            || lower.contains(&alert.rule_name().to_lowercase());
        if names_rule || grounds.is_empty() {
            grounds.truncate(MAX_GROUNDS - 1);
            grounds.push("rule".to_owned());
        }
        grounds
    }
}

/// As they stand between blanks, without what closes or quotes them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
        .filter(|word| !word.is_empty())
}

fn has_digit(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit())
}

const MAX_GROUNDS: usize = 8;
const MAX_ROWS: usize = 200;
const MAX_COLUMNS: usize = 64;
const MAX_WORDS: usize = 4_096;
const MAX_CELL_BYTES: usize = 512;
const MAX_PATH_BYTES: usize = 80;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::triage::testing::alert;

    fn grounds(sentence: &str) -> Vec<String> {
        let alert = alert(
            75,
            json!([
                { "user": "bob", "source_ip": "10.0.0.5", "message": "login" },
                { "user": "root", "source_ip": "10.0.0.6", "port": 4711, "message": "Failed password in 17ms" },
            ]),
        );
        Cells::of(&alert).grounds(sentence, &alert)
    }

    #[test]
    fn a_sentence_rests_on_the_rows_columns_and_facts_that_it_names() {
        for (sentence, expected) in [
            ("10.0.0.6 failed as root.", &["row 1 source_ip", "row 1 user"][..]),
            ("It used port 4711 and took 17ms.", &["column port", "row 1 port", "row 1 message"]),
            ("Test rule matched 2 rows.", &["rows", "rule"]),
            ("The rows have 2 values in source_ip.", &["rows", "column source_ip"]),
            ("No operator's note applies.", &["note"]),
            ("The rule fired between 2026-09-21T14:13:20Z and now.", &["window", "rule"]),
            ("Somebody is at work.", &["rule"]),
        ] {
            assert_eq!(grounds(sentence), expected, "{sentence}");
        }
    }

    #[test]
    fn grounds_are_bounded_however_many_a_sentence_names() {
        let rows: Vec<_> = (0..50).map(|n| json!({ "source_ip": format!("10.0.1.{n}") })).collect();
        let alert = alert(75, json!(rows));
        let all: Vec<String> = (0..50).map(|n| format!("10.0.1.{n}")).collect();
        let sentence = format!("The rule saw {}.", all.join(" "));
        let grounds = Cells::of(&alert).grounds(&sentence, &alert);
        assert_eq!((grounds.len(), grounds.last().map(String::as_str)), (MAX_GROUNDS, Some("rule")));
    }
}
