//! Sentences: where they end, and whether they repeat.

use crate::triage::field;

pub(in crate::triage) fn sentences(prose: &str) -> Vec<&str> {
    let mut list = Vec::new();
    let mut begin = 0;
    let bytes = prose.as_bytes();
    for at in 0..bytes.len() {
        let ends =
            matches!(bytes[at], b'.' | b'!' | b'?') && bytes.get(at + 1).is_none_or(|next| *next == b' ');
        if ends && !prose[begin..at].ends_with("e.g") && !prose[begin..at].ends_with("i.e") {
            list.push(prose[begin..=at].trim());
            begin = at + 1;
        }
    }
    list.push(prose[begin..].trim());
    list.retain(|sentence| !sentence.is_empty());
    list
}

pub(super) fn is_same(a: &str, b: &str) -> bool {
    field::normal(a) == field::normal(b)
}

/// Whether four words in a row occur three times, or one word is a third of a longer text.
pub(super) fn repeats(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().map(field::normal).collect();
    let phrases: Vec<&[String]> = words.windows(4).collect();
    let phrase = phrases.iter().any(|phrase| phrases.iter().filter(|other| *other == phrase).count() >= 3);
    let word = words.len() >= 9
        && words.iter().any(|word| words.iter().filter(|other| *other == word).count() * 3 >= words.len());
    phrase || word
}

/// At a gap between words.
pub(super) fn shorten(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    let head: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    let end = head.rfind(' ').unwrap_or(0);
    format!("{}…", head[..end].trim_end_matches([',', ';', ' ']))
}
