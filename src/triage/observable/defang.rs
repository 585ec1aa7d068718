//! Names that were made harmless to click, read back.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// `hxxp://evil[.]example` as `http://evil.example`; `None` where nothing is defanged.
pub(super) fn refang(text: &str) -> Option<String> {
    if !is_defanged(text) {
        return None;
    }
    let plain = MARK.replace_all(text, |found: &Captures<'_>| {
        let group = |index| found.get(index).map(|group: regex::Match<'_>| group.as_str());
        match (group(1).map(str::to_lowercase).as_deref(), group(2)) {
            (Some("dot"), _) => ".".to_owned(),
            (Some("at"), _) => "@".to_owned(),
            (Some(mark), _) => mark.to_owned(),
            (None, Some(secure)) => format!("http{secure}"),
            (None, None) => "ftp".to_owned(),
        }
    });
    Some(plain.into_owned())
}

/// Whether there is anything to [`refang`] in a text of any length.
pub(super) fn is_defanged(text: &str) -> bool {
    MARK.is_match(text)
}

static MARK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?i)[\[({](\.|dot|@|at|://?|:|/)[\])}]|\b(?:hxxp(s?)|(fxp))\b")
        .expect("the pattern is constant")
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_defanged_is_read_as_what_it_names() {
        for (written, plain) in [
            ("hxxp://evil[.]example/a", "http://evil.example/a"),
            ("hXXps[:]//evil(.)example", "https://evil.example"),
            ("hxxp[://]evil{dot}example", "http://evil.example"),
            ("1.2.3[.]4", "1.2.3.4"),
            ("user[at]x.org", "user@x.org"),
            ("user(@)x[DOT]org", "user@x.org"),
            ("fxp://a[.]example", "ftp://a.example"),
        ] {
            assert_eq!(refang(written).as_deref(), Some(plain), "{written}");
        }
        for plain in ["http://evil.example", "sshd[123]:", "[fe80::1]", "f(x)", "a[.b]", ""] {
            assert_eq!(refang(plain), None, "{plain}");
        }
    }
}
