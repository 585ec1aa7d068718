//! The check of a model's text: what it names must stand in the alert, and it may not contradict the numbers.
//!
//! A sentence that names an address, host, user, hash, domain, file or number which does not stand in what
//! the model was shown is an invention and is dropped; so is one that calls the alert harmless or gives another
//! severity than the computed one. A text of which nothing is left is not usable, and code writes that field.

mod phrases;
mod sentence;
mod words;

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;

use super::field;
use super::observable::{self, Kind, Observables};
use super::text;
use super::verdict::Severity;
use phrases::{FILLER, HARMLESS, MARKERS, OUTCOMES, TERMS};
pub(super) use sentence::sentences;
use sentence::{is_same, repeats, shorten};
use words::{
    add_words, alternatives, bare, content_words, has_inner_capital, is_entity_like, is_gap, names_somebody,
};

/// What may be said of one alert.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Words of the rows shown, lower case, whole and in parts; and what rows name beyond them.
    rows: HashSet<String>,
    /// Words of the operator's own texts and of the computed facts. They prove no address, hash or domain.
    trusted: HashSet<String>,
    severity: Severity,
    is_dismissed: bool,
}

impl Ground {
    /// `shown` are the cells that the model could read; `trusted` are rule, columns and facts.
    pub fn new(
        observables: &Observables,
        shown: &[String],
        trusted: &[&str],
        severity: Severity,
        is_dismissed: bool,
    ) -> Self {
        let mut rows: HashSet<String> =
            observables.list.iter().map(|observable| observable.value.to_lowercase()).collect();
        shown.iter().for_each(|cell| add_words(cell, &mut rows));
        let mut known = HashSet::new();
        trusted.iter().for_each(|text| add_words(text, &mut known));
        Self { rows, trusted: known, severity, is_dismissed }
    }

    /// The sentences of `answer` that hold, on one line of at most `max_chars`; or why nothing of it can be used.
    pub fn keep(&self, answer: &str, max_chars: usize) -> Result<String, &'static str> {
        let prose = text::as_prose(answer);
        let mut kept: Vec<&str> = Vec::new();
        let mut problem = "it is empty";
        let sentences = sentences(&prose);
        for (index, sentence) in sentences.iter().copied().enumerate() {
            let is_cut = index + 1 == sentences.len() && index > 0 && !sentence.ends_with(['.', '!', '?']);
            if let Some(found) = self.problem(sentence) {
                problem = found;
            } else if is_cut || kept.iter().any(|other| is_same(other, sentence)) {
                problem = "it repeats itself";
            } else {
                kept.push(sentence);
            }
        }
        let kept = shorten(&kept.join(" "), max_chars);
        if kept.chars().filter(|c| c.is_alphabetic()).count() < MIN_LETTERS {
            return Err(problem);
        }
        if repeats(&kept) {
            return Err("it repeats itself");
        }
        Ok(kept)
    }

    /// A title that speaks of this alert: at least half of its words stand in it.
    pub fn keep_title(&self, answer: &str, max_chars: usize) -> Result<String, &'static str> {
        let kept = self.keep(answer, max_chars)?;
        let title = ["Rule: ", "Alert: "].iter().find_map(|label| kept.strip_prefix(label)).unwrap_or(&kept);
        let words: Vec<String> = content_words(title).collect();
        if words.iter().filter(|word| self.is_known(word)).count() * 2 < words.len() {
            return Err("it says nothing of this alert");
        }
        Ok(title.trim_end_matches('.').to_owned())
    }

    /// Why a sentence cannot stand.
    fn problem(&self, sentence: &str) -> Option<&'static str> {
        if self.has_invention(sentence) {
            return Some("it names what is not in the alert");
        }
        if self.contradicts(sentence) {
            return Some("it contradicts the computed numbers");
        }
        let lower = sentence.to_lowercase();
        if self.claims_an_outcome(&lower) {
            return Some("it claims an outcome that the alert does not show");
        }
        if lower.contains("severity") && !lower.contains(&self.severity.as_str().to_lowercase()) {
            return Some("it contradicts the computed numbers");
        }
        if !self.is_about_the_alert(sentence) {
            return Some("it says nothing of this alert");
        }
        if FILLER.iter().any(|phrase| lower.contains(phrase)) {
            return Some("it is filler");
        }
        if MARKERS.iter().any(|marker| sentence.contains(marker)) {
            return Some("it repeats the prompt");
        }
        None
    }

    /// At least a quarter of its words stand in the alert.
    fn is_about_the_alert(&self, sentence: &str) -> bool {
        let (mut known, mut all) = (0, 0);
        for word in content_words(sentence) {
            all += 1;
            known += usize::from(
                !TERMS.contains(&word.as_str()) && self.is_known(&word) && !self.is_made_of_parts(&word),
            );
        }
        known > 0 && known * 4 >= all
    }

    fn is_made_of_parts(&self, word: &str) -> bool {
        word.contains('/') && !self.rows.contains(word) && !self.trusted.contains(word)
    }

    fn has_invention(&self, sentence: &str) -> bool {
        let mut invented = false;
        observable::scan(sentence, &mut |kind, value| {
            let value = match field::address(value) {
                Some(address) if kind == Kind::Address => address.to_string(),
                _ => value.to_lowercase(),
            };
            let by_rows_only = matches!(
                kind,
                Kind::Address
                    | Kind::Network
                    | Kind::Hash
                    | Kind::Domain
                    | Kind::Email
                    | Kind::Url
                    | Kind::Cloud
            );
            invented |= !(self.rows.contains(&value) || (!by_rows_only && self.trusted.contains(&value)));
        });
        if invented {
            return true;
        }
        // In a title every word may begin with a capital letter; in a sentence that is a name.
        let words =
            || sentence.split(is_gap).flat_map(alternatives).map(bare).filter(|word| !word.is_empty());
        let starts_upper = |word: &str| word.starts_with(char::is_uppercase);
        let is_titled = words().filter(|word| starts_upper(word)).count() * 2 > words().count();
        let mut before = String::new();
        for raw in words() {
            let word = raw.to_lowercase();
            let is_name = has_inner_capital(raw) || (starts_upper(raw) && !before.is_empty() && !is_titled);
            if !self.is_known(&word)
                && (is_entity_like(&word) || is_name || names_somebody(&before, &word, sentence))
            {
                return true;
            }
            before = word;
        }
        QUOTED.captures_iter(sentence).any(|quoted| {
            let word = bare(&quoted[1]).to_lowercase();
            !word.is_empty() && !self.is_known(&word)
        })
    }

    fn is_known(&self, word: &str) -> bool {
        let stem = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(word);
        let has = |word: &str| self.rows.contains(word) || self.trusted.contains(word);
        has(word)
            || has(stem)
            || TERMS.contains(&stem)
            || has(&stem.replace(',', ""))
            // `TCP/UDP`, `10:00`: known when all parts are; an address or a name is never put together from parts.
            || (stem.contains(['/', ':', '-']) && !stem.contains(['.', '@', '\\', '_']) && !stem.starts_with('/')
                && !stem.contains("::")
                && stem.split(['/', ':', '-']).all(|part| !part.is_empty() && (has(part) || !is_entity_like(part)))
                && stem.bytes().filter(|byte| byte.is_ascii_digit()).count() <= 8)
    }

    /// `the attacker gained access`: only where the operator's words for the rule say such a thing. Rows do not count: an
    /// attacker can write that he succeeded, or that he did not.
    fn claims_an_outcome(&self, lower: &str) -> bool {
        let says = |stem: &str| self.trusted.iter().any(|word| word.starts_with(stem));
        OUTCOMES.iter().any(|(phrase, stem)| lower.contains(phrase) && !says(stem))
    }

    fn contradicts(&self, sentence: &str) -> bool {
        let lower = sentence.to_lowercase();
        if !self.is_dismissed && HARMLESS.iter().any(|phrase| lower.contains(phrase)) {
            return true;
        }
        SEVERITY_NAMED.captures_iter(&lower).any(|found| {
            let named = found.get(1).or_else(|| found.get(2)).map_or("", |word| word.as_str());
            named != self.severity.as_str().to_lowercase()
        })
    }
}

static QUOTED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?:^|[\s(])['"‘“`]([^\s'"’”`]{1,64})['"’”`]"#).expect("the pattern is constant")
});

static SEVERITY_NAMED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"\b(low|medium|high|critical)[ -](?:severity|risk|priority|level|impact)",
        r"|(?:severity|risk|priority|threat level)(?: level| score)?(?: (?:is|of|as|at))*:? (?:a |an )?(low|medium|high|critical)\b"
    ))
    .expect("the pattern is constant")
});

/// Fewer are no sentence.
const MIN_LETTERS: usize = 8;

#[cfg(test)]
mod tests;
