//! What of a rule's text decides how it is asked.

/// Whether the query says by itself how its result is to be written (`FORMAT JSON`), which is ours to say.
pub(super) fn has_format(query: &str) -> bool {
    let tokens = tokens(query);
    let at = |place: usize| tokens.get(place).map(String::as_str);
    (1..tokens.len()).any(|place| {
        let is_word = |token: &str| token.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_');
        at(place) == Some("FORMAT")
            // A column, an alias or a table of that name.
            && !matches!(at(place - 1), Some("SELECT" | "DISTINCT" | "FROM" | "JOIN" | "AS" | "BY" | "WITH" | "," | "."))
            && at(place + 1).is_some_and(is_word)
            && matches!(at(place + 2), None | Some(";" | "SETTINGS"))
    })
}

/// Words in capitals and single signs outside of parentheses, without comments; what is quoted is one sign.
fn tokens(query: &str) -> Vec<String> {
    let text = query.as_bytes();
    let (mut tokens, mut at, mut depth) = (Vec::new(), 0, 0_usize);
    while at < text.len() {
        let rest = &text[at..];
        let (length, token) = match rest[0] {
            byte if byte.is_ascii_whitespace() => (1, None),
            b'-' if rest.starts_with(b"--") => (line(rest), None),
            b'#' if rest.starts_with(b"# ") || rest.starts_with(b"#!") => (line(rest), None),
            b'/' if rest.starts_with(b"/*") => {
                (find(&rest[2..], b"*/").map_or(rest.len(), |end| end + 4), None)
            }
            byte @ (b'\'' | b'"' | b'`') => (quoted(rest, byte), Some("'".to_owned())),
            b'$' => (heredoc(rest), Some("'".to_owned())),
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                let length =
                    rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
                (length, Some(query[at..at + length].to_ascii_uppercase()))
            }
            b'(' => {
                depth += 1;
                (1, None)
            }
            b')' => {
                depth = depth.saturating_sub(1);
                (1, (depth == 0).then(|| ")".to_owned()))
            }
            byte => (1, Some(char::from(byte).to_string())),
        };
        if depth == 0 {
            tokens.extend(token);
        }
        at += length;
    }
    tokens
}

fn line(rest: &[u8]) -> usize {
    rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `$tag$ ... $tag$`, or a single `$`.
fn heredoc(rest: &[u8]) -> usize {
    let tag = rest[1..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count() + 2;
    if rest.get(tag - 1) != Some(&b'$') {
        return 1;
    }
    find(&rest[tag..], &rest[..tag]).map_or(rest.len(), |end| tag + end + tag)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_clause_is_told_from_names() {
        for query in [
            "SELECT 1 FORMAT JSON",
            "select 1 format JSONEachRow;",
            "SELECT * FROM t WHERE (a = 1)\nFORMAT Pretty SETTINGS max_threads = 1 -- done",
            "SELECT 1 SETTINGS max_threads = 1 FORMAT TSV /* all */ ;",
            "SHOW TABLES FORMAT CSV",
            "SELECT $x$ it's $x$ FORMAT CSV",
        ] {
            assert!(has_format(query), "{query}");
        }
        for query in [
            "SELECT format FROM t",
            "SELECT 1 AS format",
            "SELECT format('{}', a) FROM t",
            "SELECT * FROM format f",
            "SELECT 'FORMAT JSON'",
            "SELECT 1 -- FORMAT JSON",
            "SELECT 1 # FORMAT JSON",
            "SELECT 1 /* FORMAT JSON */",
            "SELECT * FROM (SELECT 1 FORMAT JSON)",
            "SELECT a.format x FROM t",
            "SELECT 'it\\'s FORMAT JSON' SETTINGS max_threads = 1;",
            "SELECT '",
            "SELECT $a FORMAT",
            "",
        ] {
            assert!(!has_format(query), "{query}");
        }
    }
}
