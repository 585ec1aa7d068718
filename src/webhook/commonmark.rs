//! Strangers' text in Markdown: what would act (mention somebody, refer to an issue, load an image, hide where a link
//! leads, be HTML, swallow what follows) is shown as text. All else stays as it is.

use std::borrow::Cow;

use super::template::plain;

/// A value for Markdown as forges and TheHive read it (CommonMark with mentions and `#1`).
pub(super) fn escape(value: &str) -> Cow<'_, str> {
    let value = plain(value);
    if !value.contains(ACTIVE) {
        return value;
    }
    let mut safe = String::with_capacity(value.len() + 16);
    for line in value.split_inclusive('\n') {
        escape_line(line, &mut safe);
    }
    Cow::Owned(safe)
}

/// A value for a title: one line, which is no Markdown but knows mentions and references.
pub(super) fn escape_title(value: &str) -> Cow<'_, str> {
    let value = plain(value);
    if !value.contains(|character: char| character.is_control() || ['@', '#', '!'].contains(&character)) {
        return value;
    }
    let mut safe = String::with_capacity(value.len() + 16);
    for (at, character) in value.char_indices() {
        safe.push(if character.is_control() { ' ' } else { character });
        if refers(&value, at, character) {
            safe.push(NOTHING);
        }
    }
    Cow::Owned(safe)
}

/// JSON that stands where Markdown is read: the same JSON, written so that it is no Markdown.
pub(super) fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.contains("](") && !json.contains("![") && !json.contains('<') {
        return Cow::Borrowed(json);
    }
    // None of these stands in JSON but inside of a string, where each character may be written by its number.
    Cow::Owned(json.replace("![", "\\u0021[").replace("](", "]\\u0028").replace('<', "\\u003c"))
}

fn escape_line(line: &str, safe: &mut String) {
    let begin = line.len() - line.trim_start().len();
    for (at, character) in line.char_indices() {
        let rest = &line[at + character.len_utf8()..];
        let next = rest.chars().next();
        let acts = match character {
            // A link's target, shown beside its text and not behind it.
            '(' => line[..at].ends_with(']'),
            // A definition that `[name]` elsewhere would become a link by.
            '[' => at == begin && rest.contains("]:"),
            '<' => next.is_some_and(|next| next.is_ascii_alphabetic() || "/!?".contains(next)),
            // A fence: what follows would be code until its end.
            '`' | '~' => at == begin && rest.starts_with(if character == '`' { "``" } else { "~~" }),
            _ => false,
        };
        if acts {
            safe.push('\\');
        }
        safe.push(character);
        if refers(line, at, character) {
            safe.push(NOTHING);
        }
    }
}

/// Whether `character` at `at` begins a mention (`@name`) or a reference (`#1`, `!1`, `owner/repository#1`).
fn refers(text: &str, at: usize, character: char) -> bool {
    let before = &text[..at];
    let next = text[at + character.len_utf8()..].chars().next();
    let is_apart = !before.chars().next_back().is_some_and(char::is_alphanumeric);
    match character {
        '@' => is_apart && next.is_some_and(|next| next.is_alphanumeric() || "-_".contains(next)),
        '#' | '!' if next.is_some_and(|next| next.is_ascii_digit()) => is_apart || ends_in_repository(before),
        _ => false,
    }
}

/// `owner/repository`, and no longer path.
fn ends_in_repository(text: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || "-_./".contains(character);
    let word = text.rsplit(|character| !is_part(character)).next().unwrap_or_default();
    let mut parts = word.split('/');
    matches!((parts.next(), parts.next(), parts.next()), (Some(owner), Some(name), None) if !owner.is_empty() && !name.is_empty())
}

const ACTIVE: [char; 8] = ['@', '#', '!', '(', '[', '<', '`', '~'];
/// Zero width: the eye does not see it, and what it stands in is no name and no number.
const NOTHING: char = '\u{200b}';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_is_shown_as_text() {
        for (hostile, shown) in [
            ("hi @admin, fixes #12", "hi @\u{200b}admin, fixes #\u{200b}12"),
            ("@org/team", "@\u{200b}org/team"),
            ("closes acme/web#3 and !4", "closes acme/web#\u{200b}3 and !\u{200b}4"),
            ("![x](http://evil.example/p.png)", "![x]\\(http://evil.example/p.png)"),
            ("[bank](http://evil.example)", "[bank]\\(http://evil.example)"),
            ("[x]: http://evil.example", "\\[x]: http://evil.example"),
            ("<img src=http://evil.example/p.png>", "\\<img src=http://evil.example/p.png>"),
            ("</details><!-- x", "\\</details>\\<!-- x"),
            ("a\n```\nb", "a\n\\```\nb"),
            ("a\u{1b}[31m@b", "a\\u{1b}[31m@b"),
        ] {
            assert_eq!(escape(hostile), shown, "{hostile}");
        }
    }

    #[test]
    fn what_does_not_act_stays_as_it_is() {
        for harmless in [
            "root@host.example failed",
            "sshd[123]: Failed password",
            "[{'user': 'root', 'n': 7}]",
            "http://a.example/page#1",
            "a < b, 5 <6> 7",
            "C:\\Users\\root #tag C# 100%",
            "`code` ~home",
        ] {
            assert_eq!(escape(harmless), harmless);
            assert_eq!(escape_title(harmless), harmless);
        }
    }

    #[test]
    fn a_title_is_one_line_that_refers_to_nothing() {
        assert_eq!(escape_title("a\r\nfixes #1 @bob [x](y)"), "a  fixes #\u{200b}1 @\u{200b}bob [x](y)");
    }

    #[test]
    fn json_stays_the_same_json() {
        let json = r#"{"a": "![x](http://evil.example/p.png) <img src=x>", "b": [1]}"#;
        let safe = escape_json(json);
        assert!(!safe.contains("](") && !safe.contains('<'), "{safe}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&safe), read(json));
    }
}
