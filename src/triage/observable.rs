//! What an alert's rows name: addresses, users, hosts, hashes, files. Found by code, without a model, so that
//! nothing is invented; everything that speaks of entities (the verdict, the check of the model's prose) stands on it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::field::{self, Role, Roles};

/// Something that a row names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observable {
    pub kind: Kind,
    /// As it stands in the row; addresses in canonical form.
    pub value: String,
    /// Index of the first row that names it.
    pub row: usize,
    /// Dotted path of the column.
    pub field: String,
    /// Whether an attacker can write this column (see [`super::field`]).
    pub tainted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Address,
    User,
    Host,
    Domain,
    Url,
    Email,
    Hash,
    Process,
    File,
}

/// The observables of an alert, clean ones first, each in the order of its first row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observables {
    pub list: Vec<Observable>,
    /// False where a limit ended the search.
    pub complete: bool,
}

/// Reads every row for clean columns, and free text up to `MAX_TEXT_BYTES`; the cost is bounded by the number of
/// cells, not by their length. Flooding the text cannot push out what clean columns name: they have their own share.
pub fn extract(rows: &[Map<String, Value>]) -> Observables {
    let mut found =
        Finder { roles: Roles::default(), seen: HashSet::new(), list: Vec::new(), complete: true };
    found.clean(rows);
    found.tainted(rows);
    Observables { list: found.list, complete: found.complete }
}

/// Those of [`extract`] that clean columns name, without reading any text.
pub fn extract_clean(rows: &[Map<String, Value>]) -> Observables {
    let mut found =
        Finder { roles: Roles::default(), seen: HashSet::new(), list: Vec::new(), complete: true };
    found.clean(rows);
    Observables { list: found.list, complete: found.complete }
}

/// The values of [`chosen`], for the verdict's `affected_entities`.
pub fn entities(observables: &Observables) -> Vec<String> {
    chosen(observables).into_iter().map(|observable| observable.value.clone()).collect()
}

/// At most [`MAX_ENTITIES`]: clean ones first and not more than a few of one kind, so that forty users do not hide the
/// one address; then at most [`MAX_TAINTED_ENTITIES`] from text.
pub fn chosen(observables: &Observables) -> Vec<&Observable> {
    let mut chosen: Vec<&Observable> = Vec::new();
    for (tainted, per_kind, limit) in [
        (false, PER_KIND, MAX_ENTITIES),
        (false, MAX_ENTITIES, MAX_ENTITIES),
        (true, 2, MAX_TAINTED_ENTITIES),
    ] {
        let mut added = 0;
        for observable in observables.list.iter().filter(|observable| observable.tainted == tainted) {
            let same_kind = chosen.iter().filter(|other| other.kind == observable.kind).count();
            let known = chosen.iter().any(|other| other.value == observable.value);
            if known || same_kind >= per_kind || chosen.len() >= MAX_ENTITIES || added >= limit {
                continue;
            }
            added += 1;
            chosen.push(observable);
        }
    }
    chosen
}

struct Finder {
    roles: Roles,
    seen: HashSet<(Kind, String)>,
    list: Vec<Observable>,
    complete: bool,
}

impl Finder {
    fn clean(&mut self, rows: &[Map<String, Value>]) {
        let mut cells = 0;
        for (row, map) in rows.iter().enumerate() {
            let go_on = field::leaves(map, &mut |path, value| {
                cells += 1;
                let Value::String(text) = value else { return cells < MAX_CELLS };
                let role = self.roles.of(path);
                if let Some(kind) = kind_of(role)
                    && role.is_clean(value)
                {
                    self.add(kind, text, row, path, false, MAX_CLEAN);
                }
                cells < MAX_CELLS && self.list.len() < MAX_CLEAN
            });
            if !go_on {
                self.complete = false;
                return;
            }
        }
    }

    fn tainted(&mut self, rows: &[Map<String, Value>]) {
        let mut text_left = MAX_TEXT_BYTES;
        let mut cells = 0;
        for (row, map) in rows.iter().enumerate() {
            let go_on = field::leaves(map, &mut |path, value| {
                cells += 1;
                let Value::String(text) = value else { return cells < MAX_CELLS };
                let role = self.roles.of(path);
                if role == Role::Time || role.is_clean(value) {
                    return cells < MAX_CELLS;
                }
                let (head, tail) = ends(text);
                text_left = text_left.saturating_sub(head.len() + tail.len());
                self.complete &= head.len() == text.len();
                if let (Some(kind), true) = (kind_of(role), is_whole(role, text)) {
                    self.add(kind, text, row, path, true, MAX_OBSERVABLES);
                }
                for part in [head, tail] {
                    scan(part, &mut |kind, value| {
                        let no_entity = (role == Role::Version && kind == Kind::Address)
                            || (matches!(role, Role::Url | Role::Version) && kind == Kind::File);
                        if !no_entity {
                            self.add(kind, value, row, path, true, MAX_OBSERVABLES);
                        }
                    });
                }
                cells < MAX_CELLS && text_left > 0 && self.list.len() < MAX_OBSERVABLES
            });
            if !go_on {
                self.complete = false;
                return;
            }
        }
    }

    fn add(&mut self, kind: Kind, value: &str, row: usize, path: &str, tainted: bool, limit: usize) {
        if value.len() > MAX_VALUE_BYTES || self.list.len() >= limit {
            self.complete = false;
            return;
        }
        let value = match field::address(value) {
            Some(address) if kind == Kind::Address => address.to_string(),
            _ => value.to_owned(),
        };
        if self.seen.insert((kind, value.clone())) {
            self.list.push(Observable { kind, value, row, field: path.to_owned(), tainted });
        }
    }
}

fn kind_of(role: Role) -> Option<Kind> {
    Some(match role {
        Role::SourceAddress | Role::DestinationAddress | Role::Address => Kind::Address,
        Role::User => Kind::User,
        Role::Host => Kind::Host,
        Role::Hash => Kind::Hash,
        Role::Process => Kind::Process,
        Role::File => Kind::File,
        Role::Domain => Kind::Domain,
        Role::Email => Kind::Email,
        Role::Url | Role::Number | Role::Time | Role::Version | Role::Text => return None,
    })
}

/// Whether the whole cell of a tainted column is a value of its kind.
fn is_whole(role: Role, text: &str) -> bool {
    let plain = text.len() <= MAX_VALUE_BYTES && !text.chars().any(char::is_control);
    plain
        && match role {
            Role::Process | Role::File => {
                text.split_whitespace().count() == 1 || is_windows_path(text) || text.starts_with('/')
            }
            Role::Domain => is_domain(text, false),
            Role::Email => is_email(text),
            _ => false,
        }
}

/// The first and last bytes of a long text; the whole and nothing of a short one.
fn ends(text: &str) -> (&str, &str) {
    if text.len() <= HEAD_BYTES + TAIL_BYTES {
        return (text, "");
    }
    (&text[..text.floor_char_boundary(HEAD_BYTES)], &text[text.ceil_char_boundary(text.len() - TAIL_BYTES)..])
}

/// Calls `found` with every entity in a text, in its order. Linear in the length of the text.
pub fn scan(text: &str, found: &mut dyn FnMut(Kind, &str)) {
    if let Some(user) = login_user(text) {
        found(Kind::User, user);
    }
    let mut before = "";
    for chunk in text.split(|c: char| c.is_whitespace() || c.is_control() || "\"'`<>".contains(c)) {
        if chunk.is_empty() {
            continue;
        }
        if let Some(url) = url_in(chunk) {
            found(Kind::Url, url);
            if let Some(host) = url_host(url) {
                match field::address(host) {
                    Some(_) => found(Kind::Address, host),
                    None if is_domain(host, false) => found(Kind::Domain, host),
                    None => {}
                }
            }
        } else {
            for piece in chunk.split(|c: char| "()[]{},;|=".contains(c)) {
                let piece = piece.trim_matches(|c: char| ".:!?*#…".contains(c) && !piece.starts_with("::"));
                if let Some((kind, value)) = classify(piece, before) {
                    found(kind, value);
                }
            }
        }
        before = chunk;
    }
}

/// What one word is; `before` is the word in front of it.
fn classify<'a>(piece: &'a str, before: &str) -> Option<(Kind, &'a str)> {
    if piece.len() < 3 || piece.len() > MAX_VALUE_BYTES {
        return None;
    }
    if piece.starts_with('/') {
        let method = matches!(before, "GET" | "POST" | "PUT" | "HEAD" | "DELETE" | "OPTIONS" | "PATCH");
        return (!method && is_unix_path(piece)).then_some((Kind::File, piece));
    }
    if is_windows_path(piece) {
        return Some((Kind::File, piece));
    }
    let (network, mask) = piece.split_once('/').unwrap_or((piece, ""));
    if let Some(address) = field::address(network) {
        let masked = mask.is_empty() || mask.parse::<u8>().is_ok_and(|bits| bits <= 128);
        let likely = match address {
            IpAddr::V4(_) => !is_version_word(before),
            IpAddr::V6(_) => network.len() >= 6 || network == "::1",
        };
        return (masked && likely).then_some((Kind::Address, network));
    }
    if field::is_hash(piece) {
        return Some((Kind::Hash, piece));
    }
    if is_email(piece) {
        return Some((Kind::Email, piece));
    }
    let host = piece.split_once(':').map_or(piece, |(host, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { piece }
    });
    is_domain(host, true).then_some((Kind::Domain, host))
}

fn is_version_word(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric()).to_ascii_lowercase();
    matches!(word.as_str(), "version" | "ver" | "v" | "release" | "build" | "firmware" | "revision")
}

/// The user of sshd's login messages, where the message can be read in one way only: a user name that
/// itself contains ` from ` is given up.
fn login_user(text: &str) -> Option<&str> {
    static LOGIN: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"^(?:[^\n]{0,120}?sshd(?:-session)?\[\d+\]: )?",
            r"(?:Failed \S+ for (?:invalid user )?|Invalid user |Accepted \S+ for )",
            r"([\w.$@\\+-]{1,64}) from [0-9a-fA-F.:]{2,45}(?: port \d+)?(?: ssh2(?:: .{0,200})?)?\s*$"
        ))
        .expect("the pattern is constant")
    });
    if text.len() > 512 || text.matches(" from ").count() != 1 {
        return None;
    }
    LOGIN.captures(text)?.get(1).map(|user| user.as_str())
}

fn url_in(chunk: &str) -> Option<&str> {
    let sign = chunk.find("://")?;
    let scheme = chunk[..sign]
        .rfind(|c: char| !c.is_ascii_alphanumeric() && c != '+')
        .map_or(0, |at| at + chunk[at..].chars().next().map_or(1, char::len_utf8));
    let known = matches!(
        chunk[scheme..sign].to_ascii_lowercase().as_str(),
        "http"
            | "https"
            | "ftp"
            | "sftp"
            | "ssh"
            | "ldap"
            | "ldaps"
            | "rmi"
            | "smb"
            | "file"
            | "ws"
            | "wss"
            | "tcp"
    );
    let url = chunk[scheme..].trim_end_matches(|c: char| ".,;:!?)]}".contains(c));
    (known && url.len() > sign - scheme + 3).then_some(url)
}

fn url_host(url: &str) -> Option<&str> {
    let rest = &url[url.find("://")? + 3..];
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    if host.starts_with('[') {
        return host.split_inclusive(']').next();
    }
    host.split(':').next()
}

fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, domain)| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte))
            && is_domain(domain, false)
    })
}

/// `strict` asks for a top-level domain that is common, because in free text `index.php` has the same shape.
fn is_domain(text: &str, strict: bool) -> bool {
    let mut labels = text.trim_end_matches('.').split('.').rev();
    let Some(top) = labels.next() else { return false };
    let top_is_word = (2..=24).contains(&top.len()) && top.bytes().all(|byte| byte.is_ascii_alphabetic());
    let mut others = 0;
    text.len() <= 253
        && top_is_word
        && (!strict || TOP_LEVELS.contains(&top.to_ascii_lowercase().as_str()))
        && labels.all(|label| {
            others += 1;
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
        && others > 0
}

fn is_unix_path(text: &str) -> bool {
    let mut parts = text.split('/').skip(1);
    let root = parts.next().unwrap_or_default();
    ROOTS.contains(&root) && parts.next().is_some_and(|part| !part.is_empty())
}

fn is_windows_path(text: &str) -> bool {
    let bytes = text.as_bytes();
    let drive = bytes.len() > 3 && bytes[0].is_ascii_alphabetic() && &bytes[1..3] == b":\\";
    drive || (text.starts_with("\\\\") && text.len() > 4 && text[2..].contains('\\'))
}

pub const MAX_OBSERVABLES: usize = 200;
/// Of [`MAX_OBSERVABLES`], how many may come from clean columns; the rest is left for text.
pub const MAX_CLEAN: usize = 150;
pub const MAX_ENTITIES: usize = 12;
pub const MAX_TAINTED_ENTITIES: usize = 4;
const PER_KIND: usize = 5;
/// Longer values are not entities.
const MAX_VALUE_BYTES: usize = 256;
const MAX_CELLS: usize = 1_000_000;
/// Of free text, over all rows; scanned at about 50 MB a second in a test build.
const MAX_TEXT_BYTES: usize = 512 * 1024;
/// Of one long cell, from its begin and its end.
const HEAD_BYTES: usize = 8 * 1024;
const TAIL_BYTES: usize = 2 * 1024;

const ROOTS: [&str; 25] = [
    "etc",
    "usr",
    "var",
    "tmp",
    "home",
    "root",
    "opt",
    "bin",
    "sbin",
    "dev",
    "proc",
    "sys",
    "srv",
    "mnt",
    "run",
    "boot",
    "lib",
    "lib64",
    "media",
    "Users",
    "Applications",
    "Library",
    "private",
    "System",
    "data",
];

const TOP_LEVELS: [&str; 62] = [
    "com", "net", "org", "info", "biz", "io", "dev", "edu", "gov", "mil", "int", "xyz", "top", "site",
    "online", "club", "shop", "app", "cloud", "tech", "store", "live", "ru", "cn", "de", "uk", "fr", "nl",
    "br", "it", "es", "pl", "ch", "at", "be", "se", "no", "fi", "dk", "cz", "eu", "us", "ca", "au", "jp",
    "kr", "in", "ir", "ua", "tr", "su", "cc", "tk", "me", "local", "internal", "lan", "corp", "intranet",
    "example", "test", "onion",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(value: Value) -> Vec<Map<String, Value>> {
        serde_json::from_value(value).unwrap()
    }

    fn named(value: Value) -> Vec<(Kind, String, bool)> {
        extract(&rows(value)).list.into_iter().map(|found| (found.kind, found.value, found.tainted)).collect()
    }

    #[test]
    fn clean_columns_come_before_text_and_keep_their_row() {
        let found = extract(&rows(json!([
            { "message": "Failed password for invalid user bob from 10.0.0.9 port 4711 ssh2" },
            { "source_ip": "10.0.0.5", "user": "root", "host": "web-1", "sha256": "a".repeat(64) },
        ])));
        let list: Vec<_> = found
            .list
            .iter()
            .map(|o| (o.kind, o.value.as_str(), o.row, o.field.as_str(), o.tainted))
            .collect();
        let hash = "a".repeat(64);
        assert_eq!(
            list,
            [
                (Kind::Address, "10.0.0.5", 1, "source_ip", false),
                (Kind::User, "root", 1, "user", false),
                (Kind::Host, "web-1", 1, "host", false),
                (Kind::Hash, hash.as_str(), 1, "sha256", false),
                (Kind::User, "bob", 0, "message", true),
                (Kind::Address, "10.0.0.9", 0, "message", true),
            ]
        );
        assert!(found.complete);
    }

    #[test]
    fn a_version_is_no_address() {
        assert_eq!(
            named(json!([{ "version": "1.2.3.4", "message": "agent version 4.3.2.1 (build 1.1.1.1)" }])),
            []
        );
        assert_eq!(
            named(json!([{ "message": "Chrome/120.0.0.0 999.1.1.1 1.2.3 to 10.1.2.3:443" }])),
            [(Kind::Address, "10.1.2.3".into(), true)]
        );
    }

    #[test]
    fn text_yields_urls_domains_mails_hashes_and_paths() {
        let text = "curl https://evil.example.com:8443/x?a=b, mail bob@corp.example; cat /etc/shadow index.php \
                    GET /var/www HTTP/1.1 C:\\Windows\\cmd.exe md5=d41d8cd98f00b204e9800998ecf8427e [fe80::1:2] 12:34:56";
        let found = named(json!([{ "message": text }]));
        let expected = [
            (Kind::Url, "https://evil.example.com:8443/x?a=b"),
            (Kind::Domain, "evil.example.com"),
            (Kind::Email, "bob@corp.example"),
            (Kind::File, "/etc/shadow"),
            (Kind::File, "C:\\Windows\\cmd.exe"),
            (Kind::Hash, "d41d8cd98f00b204e9800998ecf8427e"),
            (Kind::Address, "fe80::1:2"),
        ];
        assert_eq!(found, expected.map(|(kind, value)| (kind, value.to_owned(), true)));
    }

    #[test]
    fn a_user_name_that_imitates_the_message_is_not_read() {
        for text in [
            "Failed password for root from 10.0.0.5 from 10.0.0.6 port 22 ssh2",
            "Failed password for invalid user a b from 10.0.0.6 port 22 ssh2",
        ] {
            let users: Vec<_> = named(json!([{ "message": text }]))
                .into_iter()
                .filter(|found| found.0 == Kind::User)
                .collect();
            assert_eq!(users, [], "{text}");
        }
    }

    #[test]
    fn flooded_text_does_not_push_out_clean_columns() {
        let flood: String = (0..4_000).map(|n| format!("10.{}.{}.1 ", n / 250, n % 250)).collect();
        let mut list = vec![json!({ "message": flood }); 50];
        list.push(json!({ "source_ip": "192.0.2.7" }));
        let found = extract(&rows(Value::Array(list)));
        assert_eq!(found.list[0].value, "192.0.2.7");
        assert_eq!(found.list.len(), MAX_OBSERVABLES);
        assert!(!found.complete);
        assert_eq!(entities(&found)[0], "192.0.2.7");
        assert!(entities(&found).len() <= 1 + MAX_TAINTED_ENTITIES);
    }

    #[test]
    fn many_users_do_not_hide_the_address() {
        let list: Vec<_> =
            (0..40).map(|n| json!({ "user": format!("u{n}"), "source_ip": "10.0.0.6" })).collect();
        let names = entities(&extract(&rows(Value::Array(list))));
        assert!(names.contains(&"10.0.0.6".to_owned()));
        assert_eq!(names.len(), MAX_ENTITIES);
    }

    #[test]
    fn the_same_rows_give_the_same_observables() {
        let list =
            json!([{ "a": "x 10.0.0.1 y /etc/passwd", "users": ["a", "b"], "n": { "ip": "10.0.0.2" } }]);
        assert_eq!(extract(&rows(list.clone())), extract(&rows(list)));
    }

    #[test]
    fn a_huge_cell_and_many_rows_are_cheap() {
        let mut list = vec![json!({ "message": "é".repeat(1 << 20) })];
        list.extend(
            (0..10_000)
                .map(|n| json!({ "source_ip": format!("10.0.{}.{}", n / 256 % 256, n % 256), "m": "x y" })),
        );
        let list = rows(Value::Array(list));
        let began = std::time::Instant::now();
        let found = extract(&list);
        assert!(!found.complete);
        assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
    }
}
