//! The words of a template, for checks that compiling does not make.

/// A word inside `{{ }}` or `{% %}`.
#[derive(Debug, PartialEq)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    /// In bytes.
    pub(super) offset: usize,
    pub(super) role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    /// `x | word`
    Filter,
    /// `x is word`
    Test,
    /// `x.word`
    Attribute,
    Name,
}

/// Every word of a template that compiles. Text, comments, raw blocks and quoted strings have none.
pub(super) fn words(source: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{').map(|found| at + found) {
        let rest = &source[open..];
        at = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map_or(source.len(), |end| open + end + 2),
            Some(b'{') => block(source, open + 2, "}}", &mut words),
            Some(b'%') => {
                let inside = rest[2..].trim_start_matches(['-', '+']).trim_start();
                let end = block(source, open + 2, "%}", &mut words);
                if inside.starts_with("raw") { after_raw(source, end) } else { end }
            }
            _ => open + 1,
        };
    }
    words
}

/// Reads one block's words from `at`; returns where the text goes on.
fn block<'a>(source: &'a str, mut at: usize, close: &str, words: &mut Vec<Word<'a>>) -> usize {
    let bytes = source.as_bytes();
    let before = words.len();
    // What the next word is, by what stands before it.
    let mut role = Role::Name;
    while at < bytes.len() {
        let rest = &source[at..];
        if rest.starts_with(close) {
            return at + close.len();
        }
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at = string_end(bytes, at, quote);
                role = Role::Name;
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let length = word_length(rest);
                let text = &rest[..length];
                words.push(Word { text, offset: at, role });
                at += length;
                role = match (role, text) {
                    (Role::Name, "is") => Role::Test,
                    (Role::Test, "not") => {
                        // `is not word`: the test is still to come.
                        words.pop();
                        Role::Test
                    }
                    (Role::Name, "filter") if words.len() == before + 1 && close == "%}" => Role::Filter,
                    _ => Role::Name,
                };
            }
            byte if byte.is_ascii_digit() => {
                at += rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'.').count();
                role = Role::Name;
            }
            b'|' => {
                role = Role::Filter;
                at += 1;
            }
            b'.' => {
                role = Role::Attribute;
                at += 1;
            }
            byte if byte.is_ascii_whitespace() => at += 1,
            _ => {
                role = Role::Name;
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
    }
    at
}

fn word_length(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}

fn string_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn after_raw(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(found) = source.get(at..).and_then(|rest| rest.find("{%")) {
        let open = at + found;
        let inside = source[open + 2..].trim_start_matches(['-', '+']).trim_start();
        if inside.starts_with("endraw") {
            return source[open..].find("%}").map_or(source.len(), |end| open + end + 2);
        }
        at = open + 2;
    }
    source.len()
}
