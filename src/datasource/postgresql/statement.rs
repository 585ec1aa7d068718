//! What of a rule's text decides how it is run.

/// Whether the statement can be read through a cursor, by its first word; what only looks so is refused by the server.
pub(super) fn is_plan(query: &str) -> bool {
    let word: String = begin(query).chars().take_while(char::is_ascii_alphabetic).collect();
    ["select", "with", "values", "table"].iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// `query` from its first word on: without blanks, comments and opening parentheses.
fn begin(query: &str) -> &str {
    let mut rest = query;
    loop {
        rest = rest.trim_start_matches(|char: char| char.is_whitespace() || char == '(');
        if rest.starts_with("--") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with("/*") {
            rest = &rest[comment(rest)..];
        } else {
            return rest;
        }
    }
}

/// Bytes of the comment at the beginning of `text`; comments may hold others.
fn comment(text: &str) -> usize {
    let (bytes, mut at, mut depth) = (text.as_bytes(), 0, 0_usize);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// Whether the plan, as `EXPLAIN` tells it, uses several processes. Read through a cursor it would not.
pub(super) fn is_parallel<'a>(mut plan: impl Iterator<Item = &'a str>) -> bool {
    plan.any(|line| {
        line.trim_start_matches(|char: char| char.is_whitespace() || "->".contains(char))
            .starts_with("Gather")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_decides() {
        for query in [
            "SELECT 1",
            " \n( select 1) union select 2",
            "-- note\nWITH a AS (SELECT 1) TABLE a",
            "/* a /* b */ c */ values (1)",
            "TABLE t",
        ] {
            assert!(is_plan(query), "{query}");
        }
        for query in [
            "",
            "SHOW all",
            "EXPLAIN SELECT 1",
            "-- SELECT",
            "/* SELECT",
            "selected",
            "DELETE FROM t RETURNING 1",
        ] {
            assert!(!is_plan(query), "{query}");
        }
    }

    #[test]
    fn a_parallel_plan_is_seen() {
        let plan = ["Finalize Aggregate", "  ->  Gather", "        ->  Partial Aggregate"];
        assert!(is_parallel(plan.into_iter()));
        assert!(!is_parallel(["Seq Scan on t", "  Filter: (a = 'Gather'::text)"].into_iter()));
    }
}
