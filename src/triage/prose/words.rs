//! What a word is, and which of them name something.

use std::collections::HashSet;

use crate::triage::field;
use crate::triage::observable::{self, Kind};

/// `TCP/UDP` are two words; a path or an address is one.
pub(super) fn alternatives(word: &str) -> std::str::Split<'_, &'static [char]> {
    let one = word.starts_with('/') || word.contains(['.', '\\', '@', ':']);
    word.split(if one { &[][..] } else { &['/'][..] })
}

/// `FedEx`: a name in the middle of a word.
pub(super) fn has_inner_capital(word: &str) -> bool {
    word.chars().zip(word.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase())
}

/// Words that carry meaning, lower case.
pub(super) fn content_words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(is_gap).map(|word| bare(word).to_lowercase());
    words.filter(|word| {
        (word.chars().count() >= 3 || word.chars().any(char::is_numeric)) && !EMPTY.contains(&word.as_str())
    })
}

pub(super) fn is_gap(c: char) -> bool {
    c.is_whitespace() || "()[]{};|=<>\"“”`…—–".contains(c)
}

pub(super) fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| ".,:;!?'’‘*#".contains(c))
}

/// Words of a text, whole, and the parts between punctuation: of `web-1:22`, also `web-1`, `web` and `22`. Parts of
/// addresses and names with dots are not added: half an address is another address.
pub(super) fn add_words(text: &str, words: &mut HashSet<String>) {
    for raw in text.split(is_gap).take(20_000) {
        let word = bare(raw).to_lowercase();
        if word.is_empty() || word.len() > 256 {
            continue;
        }
        for part in word.split([',', '/', ':', '\'', '&', '?', '-', '+']) {
            let part = bare(part);
            if !part.is_empty() {
                words.insert(part.to_owned());
            }
        }
        words.insert(word);
    }
    observable::scan(text, &mut |kind, value| {
        let address = (kind == Kind::Address).then(|| field::address(value)).flatten();
        words.insert(address.map_or_else(|| value.to_lowercase(), |address| address.to_string()));
    });
}

/// Whether a word has the shape of a number, an address, a host, a file or an identifier.
pub(super) fn is_entity_like(word: &str) -> bool {
    let digit = word.chars().any(char::is_numeric);
    let inner = word.trim_matches('.');
    digit || inner.contains(['@', '\\', '_', '.']) || inner.starts_with('/') || inner.contains("::")
}

/// `user bob`, `root logged in`: a name where a name stands.
pub(super) fn names_somebody(before: &str, word: &str, sentence: &str) -> bool {
    let after_noun = matches!(
        before,
        "user"
            | "username"
            | "account"
            | "users"
            | "usernames"
            | "accounts"
            | "host"
            | "hostname"
            | "hosts"
            | "named"
            | "called"
    );
    (after_noun && !AFTER_NOUN.contains(&word) && !word.ends_with("ed") && !word.ends_with("ing"))
        || (USERS.contains(&word) && !sentence.to_lowercase().contains("root cause"))
}

/// Words that say nothing alone.
const EMPTY: [&str; 46] = [
    "the", "and", "for", "from", "with", "this", "that", "these", "those", "was", "were", "has", "have",
    "had", "are", "not", "but", "its", "his", "her", "they", "their", "there", "into", "than", "then",
    "when", "which", "who", "what", "can", "could", "may", "might", "will", "would", "also", "been", "being",
    "other", "all", "any", "one", "more", "most", "over",
];

/// Names that accounts have everywhere, and first names.
const USERS: [&str; 66] = [
    "root",
    "administrator",
    "www-data",
    "guest",
    "nobody",
    "postgres",
    "mysql",
    "ubuntu",
    "debian",
    "jenkins",
    "ansible",
    "admin",
    "sysadmin",
    "daemon",
    "ec2-user",
    "nagios",
    "tomcat",
    "oracle",
    "bob",
    "alice",
    "john",
    "jane",
    "mallory",
    "eve",
    "carol",
    "dave",
    "charlie",
    "david",
    "michael",
    "mike",
    "james",
    "robert",
    "mary",
    "peter",
    "paul",
    "anna",
    "tom",
    "jack",
    "sarah",
    "lisa",
    "chris",
    "steve",
    "kevin",
    "brian",
    "george",
    "daniel",
    "maria",
    "laura",
    "linda",
    "susan",
    "karen",
    "thomas",
    "joe",
    "jim",
    "bill",
    "sam",
    "max",
    "alex",
    "adam",
    "ben",
    "frank",
    "henry",
    "jason",
    "scott",
    "smith",
    "doe",
];

const AFTER_NOUN: [&str; 92] = [
    "is",
    "was",
    "are",
    "were",
    "has",
    "had",
    "have",
    "and",
    "or",
    "with",
    "who",
    "whose",
    "that",
    "which",
    "on",
    "in",
    "at",
    "to",
    "from",
    "of",
    "by",
    "for",
    "as",
    "may",
    "might",
    "can",
    "could",
    "will",
    "would",
    "should",
    "must",
    "did",
    "does",
    "do",
    "not",
    "account",
    "accounts",
    "name",
    "names",
    "activity",
    "access",
    "login",
    "logins",
    "logon",
    "password",
    "passwords",
    "credentials",
    "agent",
    "agents",
    "input",
    "session",
    "sessions",
    "id",
    "ids",
    "group",
    "groups",
    "list",
    "data",
    "behavior",
    "behaviour",
    "privileges",
    "permissions",
    "rights",
    "enumeration",
    "address",
    "addresses",
    "ip",
    "then",
    "also",
    "tried",
    "ran",
    "used",
    "made",
    "via",
    "over",
    "using",
    "through",
    "against",
    "but",
    "so",
    "if",
    "when",
    "after",
    "before",
    "between",
    "this",
    "these",
    "its",
    "the",
    "a",
    "an",
    "only",
];
