//! Text of strangers, made safe to show: log rows, model output, a receiver's answer.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` on one line, without anything that a terminal obeys or that hides from the eye: control characters
/// (also the escapes that colour, move or retitle), line breaks, characters that turn the direction of writing,
/// and characters without width are written as `\n`, `\t`, `\u{1b}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            _ if is_unsafe(character) => {
                write!(safe, "\\u{{{:x}}}", u32::from(character))
                    .expect("a string takes all that is written");
            }
            _ => safe.push(character),
        }
    }
    Cow::Owned(safe)
}

/// [`escape`], cut to `max` characters, the last of them `…` where something was cut.
pub fn escape_within(text: &str, max: usize) -> String {
    // An escape makes text longer, never shorter: what lies beyond `max` characters cannot be shown.
    let mut characters = text.chars();
    let head: String = characters.by_ref().take(max).collect();
    let is_cut = characters.next().is_some();
    let safe = escape(&head);
    if !is_cut && safe.chars().count() <= max {
        return safe.into_owned();
    }
    let mut cut: String = safe.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Whether `character` is one that [`escape`] does not let through.
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Direction: marks, embeddings, overrides, isolates.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Without width. The joiners 200c and 200d stay: Persian, Hindi and others are written with them.
            | '\u{ad}' | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
            // Line and paragraph separators, interlinear annotation, tags.
            | '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_and_not_sent() {
        let hostile =
            "\u{1b}[2J\u{1b}]0;owned\u{7}root\r\nFAKE\u{9b}31m \u{202e}gpj.exe\u{2069} a\u{200b}b \u{e0041}";
        insta::assert_snapshot!(escape(hostile), @r"\u{1b}[2J\u{1b}]0;owned\u{7}root\r\nFAKE\u{9b}31m \u{202e}gpj.exe\u{2069} a\u{200b}b \u{e0041}");
    }

    #[test]
    fn text_of_every_script_stays_as_it_is() {
        for text in ["Müller", "путь", "می‌خواهم", "工作站-01", "🕵️ C:\\Users\\root"] {
            assert_eq!(escape(text), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_unsafe_is_left_and_the_bound_holds(text in "\\PC*[\u{0}-\u{1f}\u{7f}-\u{9f}\u{202a}-\u{202e}]*\\PC*", max in 1usize..40) {
            prop_assert!(!escape(&text).chars().any(is_unsafe));
            let cut = escape_within(&text, max);
            prop_assert!(cut.chars().count() <= max);
            prop_assert!(!cut.chars().any(is_unsafe));
        }
    }
}
