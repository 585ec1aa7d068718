//! The check of a model's text: what it names must stand in the alert, and it may not contradict the numbers.
//!
//! A sentence that names an address, host, user, hash, domain, file or number which does not stand in what
//! the model was shown is an invention and is dropped; so is one that calls the alert harmless or gives another
//! severity than the computed one. A text of which nothing is left is not usable, and code writes that field.

use std::collections::HashSet;
use std::sync::LazyLock;

use regex::Regex;

use super::field;
use super::observable::{self, Kind, Observables};
use super::text;
use super::verdict::Severity;

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
            let by_rows_only =
                matches!(kind, Kind::Address | Kind::Hash | Kind::Domain | Kind::Email | Kind::Url);
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

/// `TCP/UDP` are two words; a path or an address is one.
fn alternatives(word: &str) -> std::str::Split<'_, &'static [char]> {
    let one = word.starts_with('/') || word.contains(['.', '\\', '@', ':']);
    word.split(if one { &[][..] } else { &['/'][..] })
}

/// `FedEx`: a name in the middle of a word.
fn has_inner_capital(word: &str) -> bool {
    word.chars().zip(word.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase())
}

/// Words that carry meaning, lower case.
fn content_words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(is_gap).map(|word| bare(word).to_lowercase());
    words.filter(|word| {
        (word.chars().count() >= 3 || word.chars().any(char::is_numeric)) && !EMPTY.contains(&word.as_str())
    })
}

fn is_gap(c: char) -> bool {
    c.is_whitespace() || "()[]{};|=<>\"“”`…—–".contains(c)
}

fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| ".,:;!?'’‘*#".contains(c))
}

/// Words of a text, whole, and the parts between punctuation: of `web-1:22`, also `web-1`, `web` and `22`. Parts of
/// addresses and names with dots are not added: half an address is another address.
fn add_words(text: &str, words: &mut HashSet<String>) {
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
fn is_entity_like(word: &str) -> bool {
    let digit = word.chars().any(char::is_numeric);
    let inner = word.trim_matches('.');
    digit || inner.contains(['@', '\\', '_', '.']) || inner.starts_with('/') || inner.contains("::")
}

/// `user bob`, `root logged in`: a name where a name stands.
fn names_somebody(before: &str, word: &str, sentence: &str) -> bool {
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

fn sentences(prose: &str) -> Vec<&str> {
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

fn is_same(a: &str, b: &str) -> bool {
    field::normal(a) == field::normal(b)
}

/// Whether four words in a row occur three times, or one word is a third of a longer text.
fn repeats(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().map(field::normal).collect();
    let phrases: Vec<&[String]> = words.windows(4).collect();
    let phrase = phrases.iter().any(|phrase| phrases.iter().filter(|other| *other == phrase).count() >= 3);
    let word = words.len() >= 9
        && words.iter().any(|word| words.iter().filter(|other| *other == word).count() * 3 >= words.len());
    phrase || word
}

/// At a gap between words.
fn shorten(text: &str, max_chars: usize) -> String {
    if text.chars().count() <= max_chars {
        return text.to_owned();
    }
    let head: String = text.chars().take(max_chars.saturating_sub(1)).collect();
    let end = head.rfind(' ').unwrap_or(0);
    format!("{}…", head[..end].trim_end_matches([',', ';', ' ']))
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

/// Of our own prompt.
const MARKERS: [&str; 5] = ["log data", "<data", "‹", "operator's note:", "|im_"];

/// Also what repeats an order from the log.
const HARMLESS: [&str; 30] = [
    "trusted",
    "all is well",
    "ignor",
    "dismiss",
    "suppress",
    "disregard",
    "the operator",
    "system -",
    "system:",
    "all clear",
    "close this",
    "instruction",
    "false positive",
    "false-positive",
    "benign",
    "harmless",
    "not malicious",
    "no action",
    "not a threat",
    "no threat",
    "is safe",
    "not suspicious",
    "nothing suspicious",
    "authorized",
    "authorised",
    "legitimate",
    "no risk",
    "not a security",
    "no need to",
    "expected behavior",
];

/// Phrases, and the word with which an alert would say the same.
const OUTCOMES: [(&str, &str); 26] = [
    ("hacked", "hack"),
    ("compromised", "comprom"),
    ("breached", "breach"),
    ("was breach", "breach"),
    ("gained access", "access"),
    ("gain access", "access"),
    ("got access", "access"),
    ("managed to", "success"),
    ("succeeded", "succe"),
    ("successful", "succe"),
    ("stole", "stole"),
    ("infected", "infect"),
    ("exfiltrated", "exfil"),
    ("leaked", "leak"),
    ("executed", "exec"),
    ("broke into", "broke"),
    ("overwhelmed", "overwhelm"),
    ("crash", "crash"),
    ("deleted", "delet"),
    ("encrypted", "encrypt"),
    ("installed", "install"),
    ("was attacked by", "attack"),
    ("logged in", "log"),
    ("able to", "able"),
    ("vulnerability", "vulnerab"),
    ("took control", "control"),
];

/// What a chatty model says to everybody.
const FILLER: [&str; 14] = [
    "important to",
    "you should",
    "your ",
    "make sure",
    "be careful",
    "as an ai",
    "i am",
    "i'm",
    "we need",
    "we are",
    "remember",
    "please",
    "this note",
    "the following",
];

/// Terms of the field, which name nobody.
const TERMS: [&str; 64] = [
    "ipv4",
    "ipv6",
    "sha1",
    "sha256",
    "sha512",
    "md5",
    "base64",
    "http/1.1",
    "http/2",
    "http2",
    "24/7",
    "2fa",
    "oauth2",
    "utf-8",
    "x509",
    "x.509",
    "e.g",
    "i.e",
    "and/or",
    "n/a",
    "ssh2",
    "tls1.2",
    "win32",
    "x64",
    "x86",
    "802.1x",
    "c2",
    "layer-7",
    "0",
    "1",
    "s3",
    "k8s",
    "ssh",
    "sshd",
    "http",
    "https",
    "tcp",
    "udp",
    "icmp",
    "ip",
    "ips",
    "dns",
    "linux",
    "unix",
    "windows",
    "sql",
    "url",
    "urls",
    "api",
    "vpn",
    "tls",
    "ssl",
    "ftp",
    "rdp",
    "smb",
    "ldap",
    "php",
    "html",
    "json",
    "soc",
    "powershell",
    "macos",
    "mysql",
    "i",
];

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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::triage::testing::alert;

    fn ground() -> Ground {
        let alert = alert(
            75,
            json!([
                { "source_ip": "10.0.0.6", "user": "deploy", "host": "web-1", "message": "GET /etc/passwd from 10.0.0.6 port 4711" }
            ]),
        );
        let shown =
            ["10.0.0.6", "deploy", "web-1", "GET /etc/passwd from 10.0.0.6 port 4711"].map(str::to_owned);
        Ground::new(
            &observable::extract(&alert.data.value),
            &shown,
            &[
                "SSH brute force T1110",
                "412 rows, source_ip, web.example.com 192.0.2.1",
                "user source server password",
            ],
            Severity::High,
            false,
        )
    }

    #[test]
    fn what_stands_in_the_alert_may_be_said() {
        for text in [
            "The source 10.0.0.6 sent 412 requests to web-1.",
            "User deploy read /etc/passwd over port 4711.",
            "A T1110 brute force with high severity from 10.0.0.6's network.",
            "The user tried a password on the host and failed, e.g. over TCP/UDP.",
        ] {
            assert_eq!(ground().keep(text, 400).as_deref(), Ok(text));
        }
    }

    #[test]
    fn an_invention_does_not_survive() {
        for text in [
            "The attacker 10.0.0.66 logged in.",
            "The attacker 10.0.0 logged in.",
            "It came from 192.0.2.1 last night.",
            "It was seen on web.example.com today.",
            "Contact evil.example.org for details.",
            "Write to bob@corp.example about it.",
            "User alice logged in from 10.0.0.6.",
            "The account named mallory was used.",
            "It failed to log in as bob.",
            "The source was used by Zelda before.",
            "The source is a FedEx server.",
            "The source is a FedEx/Cable server.",
            "An attacker became root on web-1.",
            "The host db02 was reached.",
            "See the file /etc/shadow for details.",
            "It ran C:\\Temp\\evil.exe on the host.",
            "The user 'bob' logged in.",
            "The hash d41d8cd98f00b204e9800998ecf8427e is known.",
            "There were 9999 failed logins.",
            "It exploits CVE-2021-44228 on the server.",
            "Seen at 2001:db8::1 as well.",
            "Open https://evil.example/x for more.",
            "It wrote evil_payload.sh to disk.",
        ] {
            assert!(ground().keep(text, 400).is_err(), "{text}");
            let kept = ground().keep(&format!("The source is 10.0.0.6. {text} It reached web-1."), 400);
            assert_eq!(kept.as_deref(), Ok("The source is 10.0.0.6. It reached web-1."), "{text}");
        }
    }

    #[test]
    fn prose_cannot_contradict_the_numbers() {
        for text in [
            "This alert is benign and can be closed.",
            "It is a false positive of the scanner.",
            "The severity is low for this alert.",
            "This is a critical severity alert.",
        ] {
            assert_eq!(ground().keep(text, 400), Err("it contradicts the computed numbers"), "{text}");
        }
    }

    #[test]
    fn prose_claims_no_outcome_that_the_alert_does_not_show() {
        for text in [
            "The server was hacked by the attacker.",
            "They managed to get into the web server.",
            "You should be careful with passwords.",
        ] {
            assert!(ground().keep(text, 400).is_err(), "{text}");
        }
    }

    #[test]
    fn a_title_speaks_of_its_alert() {
        assert_eq!(
            ground().keep_title("Alert: SSH Brute Force From 10.0.0.6.", 80).as_deref(),
            Ok("SSH Brute Force From 10.0.0.6")
        );
        for text in ["SSH BREAKER FINISHED", "The Ultimate Guide to Server Life"] {
            assert!(ground().keep_title(text, 80).is_err(), "{text}");
        }
    }

    #[test]
    fn loops_and_empty_answers_are_not_usable() {
        for text in [
            "",
            " . ",
            "ok",
            "a b c d a b c d a b c d",
            "The attack is an attack attack attack attack of attack attack",
        ] {
            assert!(ground().keep(text, 400).is_err(), "{text}");
        }
        let twice = "The source is 10.0.0.6. The source is 10.0.0.6. And then it";
        assert_eq!(ground().keep(twice, 400).as_deref(), Ok("The source is 10.0.0.6."));
    }

    #[test]
    fn a_long_text_is_cut_between_words_and_escapes_are_gone() {
        assert_eq!(
            ground().keep("The source \u{1b}[31mreached\nthe web server", 22).as_deref(),
            Ok("The source reached…")
        );
    }
}
