//! Changes to a YAML file's text, at the positions that its tree knows. Nothing is printed anew: what is not changed
//! stays to the byte, comments and all.

use std::collections::BTreeSet;

use crate::config::yaml::{Entry, Node, Position, Value};

/// A file's text, and what is to be changed in it.
pub struct Source<'t> {
    /// With their ends.
    lines: Vec<&'t str>,
    edits: BTreeSet<Edit>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edit {
    /// A new line above `line` (from 1, one past the last to append).
    Above { line: usize, text: String },
    /// The lines become comments, with a reason above.
    Off { first: usize, last: usize, why: &'static str },
    /// On `line`, `length` characters from `column` become `text`.
    Replace { line: usize, column: usize, length: usize, text: String },
}

/// A changed text, and from where in the old one it came.
pub struct Changed {
    pub text: String,
    /// For each line, the old one's number.
    old_lines: Vec<usize>,
    /// In the order of their places.
    replaced: Vec<Replaced>,
}

/// On an old line, `old` characters from `column` have become `new` ones.
struct Replaced {
    line: usize,
    column: usize,
    old: usize,
    new: usize,
}

impl<'t> Source<'t> {
    pub fn new(text: &'t str) -> Self {
        Self { lines: text.split_inclusive('\n').collect(), edits: BTreeSet::new() }
    }

    /// Makes comments of an entry that has its lines to itself. False where it has not, or where another place needs it
    /// (an anchor).
    pub fn switch_off(&mut self, entry: &Entry, why: &'static str) -> bool {
        let Some((first, last)) = self.span(entry) else { return false };
        self.switch_lines_off(first, last, why)
    }

    /// Makes a comment of a list's item that has its lines to itself.
    pub fn switch_item_off(&mut self, item: &Node, why: &'static str) -> bool {
        let Some(before) = self.before(item.at) else { return false };
        if before.trim() != "-" {
            return false;
        }
        let indent = before.chars().take_while(|character| *character == ' ').count();
        let last = self.end(item.at.line, indent);
        self.switch_lines_off(item.at.line, last, why)
    }

    fn switch_lines_off(&mut self, first: usize, last: usize, why: &'static str) -> bool {
        let has_anchor = self.lines[first - 1..last]
            .iter()
            .any(|line| line.split([' ', '[', '{', ',']).any(|word| word.len() > 1 && word.starts_with('&')));
        if has_anchor {
            return false;
        }
        self.edits.insert(Edit::Off { first, last, why });
        true
    }

    /// Adds `setting`, `key: value`, to a map: behind the entry `after` where that is the map's own, else behind its first.
    /// False where the map has no place for it.
    pub fn add(&mut self, map: &Node, after: &str, setting: &str, why: &str) -> bool {
        let Value::Map(entries) = &map.value else { return false };
        if self.at(map.at) == Some('{') {
            let (line, column) = (map.at.line, map.at.column + 1);
            let separator = if entries.is_empty() { "" } else { ", " };
            self.edits.insert(Edit::Replace {
                line,
                column,
                length: 0,
                text: format!("{setting}{separator}"),
            });
            return true;
        }
        // What was merged in stands above, where it was written.
        let mut own = entries.iter().filter(|entry| entry.at >= map.at);
        let Some(behind) = own.clone().find(|entry| entry.key == after).or_else(|| own.next()) else {
            return false;
        };
        let Some((_, last)) = self.span(behind) else { return false };
        let indent = behind.at.column - 1;
        let text = format!("{:indent$}{setting}  # {why}", "");
        self.edits.insert(Edit::Above { line: last + 1, text });
        true
    }

    /// Writes another scalar in the place of one that stands on one line.
    pub fn replace(&mut self, scalar: &Node, text: &str) -> bool {
        let Some(length) = self.written(scalar.at) else { return false };
        let Position { line, column } = scalar.at;
        self.edits.insert(Edit::Replace { line, column, length, text: text.to_owned() });
        true
    }

    /// Takes an item out of a list on one line, `[a, b]`.
    pub fn remove(&mut self, list: &Node, item: &Node) -> bool {
        let Value::List(items) = &list.value else { return false };
        let is_on_the_line = items.iter().all(|item| item.at.line == list.at.line);
        let Some(place) = items.iter().position(|other| other.at == item.at) else { return false };
        if self.at(list.at) != Some('[') || !is_on_the_line {
            return false;
        }
        let Some(length) = self.written(item.at) else { return false };
        let end = item.at.column + length;
        // With the comma behind it, or, for the last, the one before it.
        let (from, to) = match (items.get(place + 1), place.checked_sub(1).map(|before| &items[before])) {
            (Some(next), _) => (item.at.column, next.at.column),
            (None, Some(before)) => match self.written(before.at) {
                Some(length) => (before.at.column + length, end),
                None => return false,
            },
            (None, None) => (item.at.column, end),
        };
        let (line, column) = (item.at.line, from);
        self.edits.insert(Edit::Replace { line, column, length: to - from, text: String::new() });
        true
    }

    /// The text with every change made.
    pub fn apply(&self) -> Changed {
        let replaced = self.edits.iter().filter_map(|edit| match edit {
            Edit::Replace { line, column, length, text } => {
                Some(Replaced { line: *line, column: *column, old: *length, new: text.chars().count() })
            }
            _ => None,
        });
        let mut changed =
            Changed { text: String::new(), old_lines: Vec::new(), replaced: replaced.collect() };
        for number in 1..=self.lines.len() + 1 {
            for edit in &self.edits {
                match edit {
                    Edit::Above { line, text } if *line == number => {
                        changed.push(text, number.min(self.lines.len()))
                    }
                    _ => {}
                }
            }
            let Some(line) = self.lines.get(number - 1) else { break };
            match self.off(number) {
                Some((first, why)) => {
                    let indent = indent(self.lines[first - 1]);
                    if first == number {
                        changed.push(&format!("{:indent$}# {why}:", ""), number);
                    }
                    let line = line.trim_end_matches(['\n', '\r']);
                    match line.trim() {
                        "" => changed.push("", number),
                        _ => changed
                            .push(&format!("{:indent$}# {}", "", line.get(indent..).unwrap_or(line)), number),
                    }
                }
                None => {
                    changed.text.push_str(&self.replaced(number, line));
                    changed.old_lines.push(number);
                }
            }
        }
        changed
    }

    /// The outermost lines that are switched off around `line`.
    fn off(&self, line: usize) -> Option<(usize, &'static str)> {
        let around = self.edits.iter().filter_map(|edit| match edit {
            Edit::Off { first, last, why } if (*first..=*last).contains(&line) => Some((*first, *last, *why)),
            _ => None,
        });
        around.max_by_key(|(first, last, _)| last - first).map(|(first, _, why)| (first, why))
    }

    fn replaced(&self, number: usize, written: &str) -> String {
        let mut characters: Vec<char> = written.chars().collect();
        // From the right, so that columns further left stay true.
        for edit in self.edits.iter().rev() {
            if let Edit::Replace { line, column, length, text } = edit
                && *line == number
            {
                characters.splice(column - 1..column - 1 + length, text.chars());
            }
        }
        characters.into_iter().collect()
    }

    /// First and last line of an entry that has its lines to itself.
    fn span(&self, entry: &Entry) -> Option<(usize, usize)> {
        let before = self.before(entry.at)?;
        if !before.chars().all(|character| character == ' ') {
            return None;
        }
        let depth = entry.at.column - 1;
        let mut last = self.end(entry.at.line, depth);
        // A list may stand as deep as its key.
        if matches!(entry.value.value, Value::List(_)) {
            while self.lines.get(last).is_some_and(|line| {
                indent(line) == depth && (line.trim_start().starts_with("- ") || line.trim() == "-")
            }) {
                last = self.end(last + 1, depth);
            }
        }
        Some((entry.at.line, last))
    }

    /// The last line of what begins on `line` at the depth `depth`: those that follow are deeper, or empty or comments with
    /// deeper ones behind.
    fn end(&self, line: usize, depth: usize) -> usize {
        let mut last = line;
        for (index, text) in self.lines.iter().enumerate().skip(line) {
            let content = text.trim();
            let is_deeper = indent(text) > depth;
            if content.is_empty() || (content.starts_with('#') && !is_deeper) {
                continue;
            }
            if !is_deeper {
                break;
            }
            last = index + 1;
        }
        last
    }

    fn before(&self, at: Position) -> Option<String> {
        self.lines.get(at.line - 1).map(|line| line.chars().take(at.column - 1).collect())
    }

    fn at(&self, at: Position) -> Option<char> {
        self.lines.get(at.line.checked_sub(1)?)?.chars().nth(at.column - 1)
    }

    /// How many characters a scalar takes that ends on its line.
    fn written(&self, at: Position) -> Option<usize> {
        let rest: Vec<char> = self.lines.get(at.line.checked_sub(1)?)?.chars().skip(at.column - 1).collect();
        let first = *rest.first()?;
        if first == '"' || first == '\'' {
            let mut place = 1;
            while let Some(&character) = rest.get(place) {
                match character {
                    '\\' if first == '"' => place += 1,
                    '\'' if first == '\'' && rest.get(place + 1) == Some(&'\'') => place += 1,
                    _ if character == first => return Some(place + 1),
                    _ => {}
                }
                place += 1;
            }
            return None;
        }
        let before: String = self.before(at)?;
        let is_flow = before.contains(['[', '{']);
        let ends = |place: &usize| {
            let character = rest[*place];
            let follows = |next: char| rest.get(place + 1) == Some(&next);
            ['\n', '\r'].contains(&character)
                || (character == ' ' && follows('#'))
                || (is_flow && [',', ']', '}'].contains(&character))
        };
        let end = (0..rest.len()).find(ends).unwrap_or(rest.len());
        let text: String = rest[..end].iter().collect();
        Some(text.trim_end().chars().count())
    }
}

impl Changed {
    fn push(&mut self, line: &str, from: usize) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        self.text.push_str(line);
        self.text.push('\n');
        self.old_lines.push(from);
    }

    /// Where a place of the new text was in the old one; of what is new, where that was put.
    pub fn old(&self, at: Position) -> Position {
        let line = self.old_lines.get(at.line.saturating_sub(1)).copied().unwrap_or(at.line);
        let mut column = at.column;
        // From the left: each is undone for what is right of it.
        for replaced in self.replaced.iter().filter(|replaced| replaced.line == line) {
            if column >= replaced.column + replaced.new {
                column = column + replaced.old - replaced.new;
            } else {
                column = column.min(replaced.column);
            }
        }
        Position { line, column }
    }
}

fn indent(line: &str) -> usize {
    line.chars().take_while(|character| *character == ' ').count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    const TEXT: &str = "\
# about the site
redis:   # two replicas
  url: redis://localhost

  # not needed
webhooks:
- a
- b  # the old one
flow: {x: 1, y: [a, 'b, c', d]}
last: \"quoted # text\"  # keep
";

    fn changed(change: impl Fn(&mut Source<'_>, &Node)) -> String {
        let tree = yaml::parse(TEXT).0.unwrap();
        let mut source = Source::new(TEXT);
        change(&mut source, &tree);
        source.apply().text
    }

    fn entry<'n>(tree: &'n Node, key: &str) -> &'n Entry {
        tree.entries().unwrap().iter().find(|entry| entry.key == key).unwrap()
    }

    #[test]
    fn an_entry_becomes_a_comment_and_all_else_stays() {
        let text = changed(|source, tree| assert!(source.switch_off(entry(tree, "redis"), "gone")));
        insta::assert_snapshot!(text, @r#"
        # about the site
        # gone:
        # redis:   # two replicas
        #   url: redis://localhost

        #   # not needed
        webhooks:
        - a
        - b  # the old one
        flow: {x: 1, y: [a, 'b, c', d]}
        last: "quoted # text"  # keep
        "#);
    }

    #[test]
    fn settings_are_added_in_the_style_of_their_map() {
        let text = changed(|source, tree| {
            assert!(source.add(tree, "webhooks", "new: 1", "why"));
            assert!(source.add(tree.get("flow").unwrap(), "x", "z: 2", "why"));
            assert!(source.add(tree.get("redis").unwrap(), "url", "ttl: 3", "why"));
        });
        assert!(text.contains("- b  # the old one\nnew: 1  # why\nflow: {z: 2, x: 1, y"), "{text}");
        assert!(text.contains("localhost\n  ttl: 3  # why\n"), "{text}");
    }

    #[test]
    fn scalars_and_items_are_changed_where_they_stand() {
        let text = changed(|source, tree| {
            assert!(source.replace(tree.get("last").unwrap(), "\"new\""));
            let list = tree.get("flow").unwrap().get("y").unwrap();
            let Value::List(items) = &list.value else { panic!("{list:?}") };
            assert!(source.remove(list, &items[1]));
            let list = tree.get("webhooks").unwrap();
            let Value::List(items) = &list.value else { panic!("{list:?}") };
            assert!(source.switch_item_off(&items[1], "unknown"));
        });
        assert!(text.contains("last: \"new\"  # keep\n"), "{text}");
        assert!(text.contains("flow: {x: 1, y: [a, d]}\n"), "{text}");
        assert!(text.contains("- a\n# unknown:\n# - b  # the old one\n"), "{text}");
    }

    #[test]
    fn the_last_item_of_a_line_goes_with_its_comma() {
        let text = changed(|source, tree| {
            let list = tree.get("flow").unwrap().get("y").unwrap();
            let Value::List(items) = &list.value else { panic!("{list:?}") };
            assert!(source.remove(list, &items[2]));
        });
        assert!(text.contains("y: [a, 'b, c']}"), "{text}");
    }

    #[test]
    fn what_others_refer_to_is_not_switched_off() {
        let text = "a: &base {x: 1}\nb: *base\n";
        let tree = yaml::parse(text).0.unwrap();
        let mut source = Source::new(text);
        assert!(!source.switch_off(entry(&tree, "a"), "gone"));
        assert_eq!(source.apply().text, text);
    }
}
