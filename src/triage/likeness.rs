//! Which alerts are alike: those of one rule whose rows name the same and say the same but for numbers and times. Thirty
//! alerts of one misconfigured job are read once by a person, and once by the model.
//!
//! An attacker can make his alert look like another or like none. That groups it in a list and may give it words that the model
//! wrote about the other, as far as they hold for its own rows; every number is its own.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::field::{self, Role, Roles};
use crate::alert::Alert;

/// The same for alerts that are alike, whenever and by whichever process it is computed.
pub fn of(alert: &Alert) -> i64 {
    let mut cells = BTreeSet::new();
    let mut roles = Roles::new(alert);
    let rows = &alert.data.value;
    let tail = rows.len().saturating_sub(MAX_ROWS / 2).max(MAX_ROWS / 2).min(rows.len());
    for row in rows[..rows.len().min(MAX_ROWS / 2)].iter().chain(&rows[tail..]) {
        field::leaves(row, &mut |path, value| {
            let column = roles.of(path);
            if let Value::String(text) = value
                && !matches!(column.role, Role::Time | Role::Number)
            {
                let text = if column.is_clean(value) { text.to_lowercase() } else { without_numbers(text) };
                cells.insert(format!("{path}\u{0}{text}"));
            }
            cells.len() < MAX_CELLS
        });
    }
    let tenant = alert.detector.get("tenant").and_then(Value::as_str).unwrap_or("default");
    let mut hash = Sha256::new();
    for part in
        [tenant, alert.rule_id(), alert.rule_name()].into_iter().chain(cells.iter().map(String::as_str))
    {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut head = [0; 8];
    head.copy_from_slice(&hash.finalize()[..8]);
    i64::from_le_bytes(head)
}

/// Words without a digit in lower case, `#` for each other; of the first [`MAX_TEXT_BYTES`].
fn without_numbers(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
    let mut plain = String::new();
    for word in text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty()) {
        match word.contains(|character: char| character.is_ascii_digit()) {
            true => plain.push('#'),
            false => plain.extend(word.chars().flat_map(char::to_lowercase)),
        }
        plain.push(' ');
    }
    plain
}

const MAX_ROWS: usize = 40;
/// Distinct ones, of all rows.
const MAX_CELLS: usize = 400;
/// Of a cell.
const MAX_TEXT_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::triage::testing::alert;

    #[test]
    fn alerts_that_differ_in_numbers_and_times_alone_are_alike() {
        let row = |user: &str, port: u32, pid: &str, message: &str| {
            of(&alert(50, json!([{ "user": user, "src_port": port, "time": pid, "message": message }])))
        };
        let one =
            row("root", 40_012, "10:00", "sshd[4711]: Failed password for root from 10.0.0.6 port 40012");
        assert_eq!(one, row("ROOT", 9, "11:00", "sshd[12]: Failed password for root from 10.0.0.7 port 9"));
        assert_ne!(one, row("bob", 9, "11:00", "sshd[12]: Failed password for root from 10.0.0.7 port 9"));
        assert_ne!(one, row("root", 9, "11:00", "sshd[12]: Accepted password for root from 10.0.0.7 port 9"));
    }

    #[test]
    fn rows_count_once_and_another_rule_or_tenant_is_not_alike() {
        let row = json!({ "user": "root" });
        let one = alert(50, json!([row]));
        assert_eq!(of(&one), of(&alert(90, json!([row, row]))));
        let mut other = one.clone();
        other.rule.insert("id".into(), json!("other"));
        assert_ne!(of(&one), of(&other));
        let mut theirs = one.clone();
        theirs.detector.insert("tenant".into(), json!("theirs"));
        assert_ne!(of(&one), of(&theirs));
    }

    #[test]
    fn a_megabyte_and_many_rows_are_bounded() {
        let rows: Vec<_> =
            (0..5_000).map(|n| json!({ "message": "é ".repeat(500), "user": format!("u{n}") })).collect();
        let began = std::time::Instant::now();
        of(&alert(50, json!(rows)));
        assert!(began.elapsed().as_secs() < 2);
    }
}
