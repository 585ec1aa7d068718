//! What a text names, word by word.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use super::defang::{is_defanged, refang};
use super::{Kind, MAX_VALUE_BYTES};
use crate::triage::{cloud, field};

/// Calls `found` with everything that a text names, in its order; what is defanged (`evil[.]example`) in its plain form.
/// Linear in the length of the text.
pub fn scan(text: &str, found: &mut dyn FnMut(Kind, &str)) {
    if let Some(user) = login_user(text) {
        found(Kind::User, user);
    }
    // Most texts have neither, and looking once costs less than looking in each word.
    let (has_defanged, has_arn) = (is_defanged(text), text.contains(cloud::ARN));
    let mut before = "";
    for written in text.split(|c: char| c.is_whitespace() || c.is_control() || "\"'`<>".contains(c)) {
        if written.is_empty() {
            continue;
        }
        // Who defangs a name says that it is one, whatever its top-level domain.
        let plain = if has_defanged { refang(written) } else { None };
        let (chunk, strict) = (plain.as_deref().unwrap_or(written), plain.is_none());
        if has_arn {
            for arn in cloud::arns(chunk) {
                found(Kind::Cloud, arn);
                if let Some(account) = cloud::account_of(arn) {
                    found(Kind::Cloud, account);
                }
            }
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
                if let Some((kind, value)) = classify(piece, before, strict) {
                    found(kind, value);
                }
            }
        }
        before = written;
    }
}

/// What a cell of one word is, whole.
pub(super) fn whole(text: &str) -> Option<Kind> {
    let is_arn = cloud::arns(text).next() == Some(text);
    let kind = || classify(text, "", true).filter(|(_, value)| *value == text).map(|(kind, _)| kind);
    if is_arn { Some(Kind::Cloud) } else { kind() }
}

/// What one word is; `before` is the word in front of it, `strict` is for [`is_domain`].
fn classify<'a>(piece: &'a str, before: &str, strict: bool) -> Option<(Kind, &'a str)> {
    if piece.len() < 3 || piece.len() > MAX_VALUE_BYTES {
        return None;
    }
    if is_technique(piece) {
        return Some((Kind::Technique, piece));
    }
    if let Some(resource) = cloud::resource(piece) {
        return Some((Kind::Cloud, resource));
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
        return match (masked && likely, is_network(address, mask)) {
            (true, true) => Some((Kind::Network, piece)),
            (true, false) => Some((Kind::Address, network)),
            (false, _) => None,
        };
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
    is_domain(host, strict).then_some((Kind::Domain, host))
}

/// `10.1.0.0/16` is a network; `10.1.0.5/16` is an address in one.
fn is_network(address: IpAddr, mask: &str) -> bool {
    let Ok(bits) = mask.parse::<u32>() else { return false };
    let (most, is_base) = match address {
        IpAddr::V4(address) => (32, address.to_bits().checked_shl(bits).unwrap_or(0) == 0),
        IpAddr::V6(address) => (128, address.to_bits().checked_shl(bits).unwrap_or(0) == 0),
    };
    bits < most && is_base
}

/// An ATT&CK technique as it is written, `T1059` or `T1059.001`.
pub(super) fn is_technique(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    matches!(bytes.len(), 5 | 9)
        && bytes[0] == b'T'
        && digits(1..5)
        && (bytes.len() == 5 || (bytes[5] == b'.' && digits(6..9)))
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

pub(super) fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, domain)| {
        (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._%+-".contains(&byte))
            && is_domain(domain, false)
    })
}

/// `strict` asks for a top-level domain that is common, because in free text `index.php` has the same shape.
pub(super) fn is_domain(text: &str, strict: bool) -> bool {
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

pub(super) fn is_windows_path(text: &str) -> bool {
    let bytes = text.as_bytes();
    let drive = bytes.len() > 3 && bytes[0].is_ascii_alphabetic() && &bytes[1..3] == b":\\";
    drive || (text.starts_with("\\\\") && text.len() > 4 && text[2..].contains('\\'))
}

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
