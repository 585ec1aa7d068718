//! From the operator's sentences to statements.

use super::known::network;
use super::{Condition, Effect, MAX_STATEMENTS, Statement, Subject, Wanted};
use crate::triage::field::{self, Role};

pub(super) fn statements(text: &str) -> Vec<Statement> {
    let mut statements: Vec<Statement> = Vec::new();
    for sentence in sentences(text).into_iter().take(MAX_STATEMENTS) {
        let words = words(&sentence);
        // `Ignore ... . Except when ... .`: the exception takes the certainty from what it belongs to.
        if words.first().is_some_and(|word| EXCEPTIONS.contains(&word.lower.as_str()))
            && let Some(before) = statements.last_mut()
            && before.effect == Effect::Dismiss
        {
            before.effect = Effect::Mention;
        }
        statements.push(statement(sentence, &words));
    }
    statements
}

fn statement(text: String, words: &[Word]) -> Statement {
    let found = conditions(words);
    let effect = effect(&text, words, &found);
    let any = found.joins.contains(&Join::Or);
    Statement { effect, conditions: found.conditions, any, text, until: None }
}

fn effect(text: &str, words: &[Word], found: &Found) -> Effect {
    let has = |list: &[&str]| words.iter().any(|word| !word.quoted && list.contains(&word.lower.as_str()));
    let lower = format!(" {} ", words.iter().map(|word| word.lower.as_str()).collect::<Vec<_>>().join(" "));
    // `do not alert` says to ignore; its negation is not one of the sentence.
    let (quiet, rest) = QUIET.iter().fold((false, lower), |(found, rest), phrase| {
        if rest.contains(phrase) { (true, rest.replace(phrase, " ")) } else { (found, rest) }
    });
    let ignores = rest.split(' ').any(|word| IGNORES.contains(&word))
        || ["false positive", "false-positive", "known good"].iter().any(|phrase| rest.contains(phrase));
    // `asks for paths that do not exist` negates what it describes, not the sentence. Where the sentence ignores
    // something every negation counts: `ignore hosts that are not 10.0.0.5` must not dismiss 10.0.0.5.
    let stated = match ignores || quiet {
        true => rest.clone(),
        false => RELATIVE.iter().fold(rest.clone(), |rest, phrase| rest.replace(phrase, " ")),
    };
    let negated = stated.split(' ').any(|word| NEGATIONS.contains(&word) || word.ends_with("n't"));
    if found.conditions.is_empty() {
        return match (ignores || quiet, found.unclear) {
            (true, Some(reason)) => Effect::Void(reason),
            (true, None) => Effect::Void("it names no address, user, host or rule to ignore"),
            _ => Effect::Void("it is context for the model only"),
        };
    }
    if negated || (quiet && ignores) || has(&WARNINGS) {
        return Effect::Keep;
    }
    if (ignores || quiet) && found.unclear.is_some() {
        return Effect::Void(found.unclear.unwrap_or_default());
    }
    if found.joins.contains(&Join::Or) && found.joins.contains(&Join::And) {
        return Effect::Void("it joins conditions with both `and` and `or`: write two sentences");
    }
    let doubt = has(&RESTRICTIONS) || has(&EXCEPTIONS) || text.trim_end().ends_with('?');
    let time = words.iter().any(|word| is_time_of_day(&word.lower));
    if (ignores || quiet) && !doubt && !time { Effect::Dismiss } else { Effect::Mention }
}

#[derive(Clone, Copy, PartialEq)]
enum Join {
    And,
    Or,
}

#[derive(Default)]
struct Found {
    conditions: Vec<Condition>,
    /// How conditions on different subjects are joined.
    joins: Vec<Join>,
    /// A condition that is there and was not understood.
    unclear: Option<&'static str>,
}

fn conditions(words: &[Word]) -> Found {
    let mut found = Found::default();
    let mut at = 0;
    while at < words.len() {
        let Some((subject, after_subject)) = subject(words, at) else {
            at += 1;
            continue;
        };
        let (operator, values_at) = operator(words, after_subject);
        let (values, end) = values(words, values_at, &subject, operator);
        if values.is_empty() {
            if operator && !words.get(values_at).is_some_and(|word| NO_VALUES.contains(&word.lower.as_str()))
            {
                found.unclear = Some("a value in it is not an address, network or name");
            }
            at = after_subject.max(at + 1);
            continue;
        }
        let join = if at > 0 && words[at - 1].lower == "or" { Join::Or } else { Join::And };
        if let Some(same) = found.conditions.iter_mut().find(|condition| condition.subject == subject) {
            same.values.extend(values);
        } else {
            if !found.conditions.is_empty() {
                found.joins.push(join);
            }
            found.conditions.push(Condition { subject, values });
        }
        at = end;
    }
    let writable = found.conditions.iter().any(|condition| match &condition.subject {
        Subject::Field(name) => !Role::of(name).can_be_clean(),
        _ => false,
    });
    if writable {
        found.unclear = Some("it asks for a column that attackers can write, or that is not known");
    }
    found
}

/// The subject that begins at `at`, and where the words after it begin. A bare address is a source; its word is
/// not taken, so that it becomes the value.
fn subject(words: &[Word], at: usize) -> Option<(Subject, usize)> {
    let word = &words[at];
    if word.quoted {
        return None;
    }
    if network(&word.text).is_some() {
        let to = at > 0 && matches!(words[at - 1].lower.as_str(), "to" | "towards" | "against" | "on");
        return Some((if to { Subject::Destination } else { Subject::Source }, at));
    }
    // `source ip`, `rule id`, `user name`: two words for one.
    if let Some(next) = words.get(at + 1)
        && let Some(subject) = subject_named(&format!("{}_{}", word.lower, next.lower))
        && !next.quoted
    {
        return Some((subject, at + 2));
    }
    if let Some(subject) = subject_named(&word.lower) {
        return Some((subject, at + 1));
    }
    // A column that we do not know: `event_id is 4625`, or `department = it`.
    let name = field::normal(&word.text);
    let sign = words.get(at + 1).is_some_and(|next| matches!(next.lower.as_str(), "=" | "=="));
    let verb = operator(words, at + 1).0
        && (word.text.contains(['_', '.'])
            || (at > 0
                && matches!(words[at - 1].lower.as_str(), "where" | "when" | "if" | "and" | "or" | "with")));
    let says_value = words.get(at + 2).is_some_and(|next| !NO_VALUES.contains(&next.lower.as_str()));
    (!name.is_empty() && (sign || (verb && says_value))).then_some((Subject::Field(name), at + 1))
}

fn subject_named(name: &str) -> Option<Subject> {
    Some(match field::normal(name).as_str() {
        "rule" | "rules" | "ruleid" | "rulename" => Subject::Rule,
        "source" | "scanner" | "client" => Subject::Source,
        "destination" | "target" => Subject::Destination,
        _ => match Role::of(name) {
            Role::SourceAddress | Role::Address => Subject::Source,
            Role::DestinationAddress => Subject::Destination,
            Role::User => Subject::User,
            Role::Host => Subject::Host,
            _ => return None,
        },
    })
}

/// Whether an operator stands at `at`, and where the values begin.
fn operator(words: &[Word], mut at: usize) -> (bool, usize) {
    let begin = at;
    while let Some(word) = words.get(at)
        && !word.quoted
        && matches!(
            word.lower.as_str(),
            "is" | "are"
                | "="
                | "=="
                | "equals"
                | "equal"
                | "in"
                | "one"
                | "of"
                | "named"
                | "called"
                | "matches"
                | "has"
                | "any"
        )
    {
        at += 1;
    }
    (at > begin, at)
}

fn values(words: &[Word], mut at: usize, subject: &Subject, operator: bool) -> (Vec<Wanted>, usize) {
    let mut values = Vec::new();
    while let Some(word) = words.get(at) {
        let Some(value) = wanted(word, subject, operator || !values.is_empty()) else { break };
        // `user is backup and host is web-1`: the next word is a subject, not a second user.
        if !values.is_empty()
            && !word.quoted
            && self::operator(words, at + 1).0
            && network(&word.text).is_none()
        {
            break;
        }
        values.push(value);
        at += 1;
        let joined =
            words.get(at).is_some_and(|next| !next.quoted && matches!(next.lower.as_str(), "or" | "and"));
        let next = at + usize::from(joined);
        let listed = joined || words[at - 1].comma;
        let known = words.get(next).is_some_and(|next| {
            network(&next.text).is_none() && !next.quoted && subject_named(&next.lower).is_some()
        });
        if !listed || known || words.get(next).is_none_or(|next| wanted(next, subject, true).is_none()) {
            break;
        }
        at = next;
    }
    (values, at)
}

fn wanted(word: &Word, subject: &Subject, certain: bool) -> Option<Wanted> {
    let network = network(&word.text);
    match subject {
        Subject::Source | Subject::Destination => network,
        // `host 10.0.0.5` is read as an address, by its own rule.
        Subject::Host | Subject::User if network.is_some() => None,
        _ => {
            let shaped =
                word.quoted || word.text.contains(|c: char| c.is_ascii_digit() || "-_.$\\@".contains(c));
            let plain =
                word.quoted || (field::is_user(&word.text) && !NO_VALUES.contains(&word.lower.as_str()));
            (plain && (certain || shaped)).then(|| Wanted::Text(word.text.clone()))
        }
    }
}

#[derive(Debug)]
struct Word {
    text: String,
    lower: String,
    quoted: bool,
    /// A comma stood after it.
    comma: bool,
}

fn words(sentence: &str) -> Vec<Word> {
    let spaced =
        sentence.replace('\u{2019}', "'").replace("!=", " not ").replace("==", "=").replace('=', " = ");
    let mut words = Vec::new();
    let mut rest = spaced.trim_start();
    while let Some(first) = rest.chars().next() {
        let quoted =
            matches!(first, '"' | '`').then(|| rest[1..].find(first)).flatten().map(|end| &rest[1..=end]);
        let (text, length) = match quoted {
            Some(text) => (text, text.len() + 2),
            None => {
                let raw = rest.split_whitespace().next().unwrap_or(rest);
                (raw, raw.len())
            }
        };
        let after = &rest[length..];
        let comma = after.starts_with(',') || text.ends_with(',');
        let bare = if quoted.is_some() { text } else { trim(text) };
        if !bare.is_empty() {
            words.push(Word {
                text: bare.to_owned(),
                lower: bare.to_lowercase(),
                quoted: quoted.is_some(),
                comma,
            });
        }
        rest = after.trim_start_matches(',').trim_start();
    }
    words
}

fn trim(word: &str) -> &str {
    let word = word.trim_start_matches(|c: char| "([{\"'`*#<-".contains(c));
    word.trim_end_matches(|c: char| ",;:!?)]}\"'`*.>".contains(c))
}

/// Lines are joined, as YAML blocks wrap them, except where a line is a sentence of its own without a full stop: a
/// bullet, after a blank line, or a new order after a complete one.
fn sentences(text: &str) -> Vec<String> {
    let mut joined = String::new();
    for line in text.lines() {
        let line = line.trim();
        let bullet = line.starts_with(['-', '*', '#', '•']);
        let first = line.split_whitespace().next().map(|word| trim(word).to_lowercase()).unwrap_or_default();
        let order = IGNORES.contains(&first.as_str()) || matches!(first.as_str(), "never" | "do" | "don't");
        let new = line.is_empty()
            || bullet
            || (order && is_complete_order(joined.rsplit('\n').next().unwrap_or("")));
        joined.push(if new { '\n' } else { ' ' });
        joined.push_str(line);
    }
    let mut list = Vec::new();
    let mut begin = 0;
    for (at, c) in joined.char_indices() {
        let after = at + c.len_utf8();
        let last = joined[begin..at].split_whitespace().next_back().unwrap_or_default().to_lowercase();
        let ends = match c {
            '\n' | ';' => true,
            '.' | '!' | '?' => {
                joined[after..].chars().next().is_none_or(char::is_whitespace)
                    && !matches!(last.as_str(), "e.g" | "i.e" | "etc" | "vs" | "no" | "incl" | "approx")
            }
            _ => false,
        };
        if ends {
            list.push(&joined[begin..after]);
            begin = after;
        }
    }
    list.push(&joined[begin..]);
    list.into_iter()
        .map(|sentence| sentence.trim().trim_end_matches(';').to_owned())
        .filter(|sentence| sentence.chars().any(char::is_alphanumeric))
        .collect()
}

fn is_complete_order(line: &str) -> bool {
    let words = words(line);
    let open = words.last().is_some_and(|word| {
        let word = word.lower.as_str();
        NEGATIONS.contains(&word)
            || EXCEPTIONS.contains(&word)
            || NO_VALUES.contains(&word)
            || word.ends_with("n't")
    });
    let orders = words.iter().any(|word| IGNORES.contains(&word.lower.as_str()));
    orders && !open && !conditions(&words).conditions.is_empty()
}

fn is_time_of_day(word: &str) -> bool {
    let digits = word.trim_end_matches("am").trim_end_matches("pm");
    let clock = digits.split_once(':').is_some_and(|(hours, minutes)| {
        hours.len() <= 2
            && minutes.len() == 2
            && (hours.to_owned() + minutes).bytes().all(|b| b.is_ascii_digit())
    });
    clock || (digits.len() != word.len() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

const IGNORES: [&str; 30] = [
    "ignore",
    "ignored",
    "ignoring",
    "dismiss",
    "dismissed",
    "suppress",
    "suppressed",
    "skip",
    "skipped",
    "discard",
    "discarded",
    "disregard",
    "disregarded",
    "exclude",
    "excluded",
    "whitelist",
    "whitelisted",
    "allowlist",
    "allowlisted",
    "mute",
    "muted",
    "silence",
    "silenced",
    "benign",
    "harmless",
    "false-positive",
    "false-positives",
    "fp",
    "fps",
    "noise",
];

const QUIET: [&str; 10] = [
    " do not alert ",
    " don't alert ",
    " do not raise alerts ",
    " don't raise alerts ",
    " do not escalate ",
    " don't escalate ",
    " do not page ",
    " don't page ",
    " do not report ",
    " don't report ",
];

/// Beginnings of clauses that describe something.
const RELATIVE: [&str; 8] = [
    " that do not ",
    " that does not ",
    " that don't ",
    " that doesn't ",
    " which do not ",
    " which does not ",
    " which don't ",
    " which doesn't ",
];
const NEGATIONS: [&str; 28] = [
    "not",
    "never",
    "no",
    "none",
    "nobody",
    "nothing",
    "neither",
    "nor",
    "without",
    "cannot",
    "stop",
    "cease",
    "avoid",
    "refuse",
    "instead",
    "rather",
    "refrain",
    "hardly",
    "rarely",
    "seldom",
    "other",
    "others",
    "else",
    "outside",
    "beyond",
    "excluding",
    "dont",
    "longer",
];

const EXCEPTIONS: [&str; 14] = [
    "unless",
    "except",
    "but",
    "however",
    "only",
    "apart",
    "aside",
    "besides",
    "although",
    "though",
    "excepting",
    "save",
    "otherwise",
    "exception",
];

/// Times, amounts, doubts and tales: nothing of it is checked, so nothing is dismissed for it.
const RESTRICTIONS: [&str; 62] = [
    "during",
    "between",
    "until",
    "till",
    "before",
    "after",
    "while",
    "within",
    "outside",
    "weekdays",
    "weekday",
    "weekend",
    "weekends",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "mondays",
    "tuesdays",
    "wednesdays",
    "thursdays",
    "fridays",
    "saturdays",
    "sundays",
    "night",
    "nights",
    "morning",
    "evening",
    "hours",
    "today",
    "tomorrow",
    "yesterday",
    "less",
    "more",
    "fewer",
    "greater",
    "under",
    "over",
    "most",
    "least",
    "up",
    "may",
    "might",
    "could",
    "maybe",
    "perhaps",
    "possibly",
    "probably",
    "sometimes",
    "usually",
    "often",
    "was",
    "were",
    "had",
    "did",
    "mistake",
    "wrongly",
    "accidentally",
    "previously",
];

const WARNINGS: [&str; 18] = [
    "malicious",
    "attacker",
    "attackers",
    "compromised",
    "hostile",
    "suspicious",
    "urgent",
    "investigate",
    "escalate",
    "dangerous",
    "infected",
    "breach",
    "breached",
    "threat",
    "critical",
    "block",
    "always",
    "important",
];

/// Words that are no value: after a subject they belong to the sentence.
const NO_VALUES: [&str; 62] = [
    "a", "an", "the", "our", "my", "your", "its", "their", "this", "that", "these", "those", "it", "he",
    "she", "they", "is", "are", "was", "be", "been", "will", "would", "can", "may", "should", "must", "has",
    "have", "had", "and", "or", "not", "no", "in", "on", "at", "of", "to", "from", "by", "for", "with", "as",
    "when", "where", "if", "alert", "alerts", "account", "accounts", "activity", "logins", "login", "names",
    "name", "runs", "does", "events", "traffic", "known", "which",
];
