//! Parser events to the tree, without recursion and within bounds.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Entry, Node, Position, Problem, START, Scalar, Style, Value};

const MAX_DEPTH: usize = 64;
/// Nodes of the finished tree, aliases expanded.
const MAX_NODES: usize = 200_000;
/// Bytes of text in the finished tree, aliases expanded.
const MAX_TEXT: usize = 4 * super::MAX_BYTES;
/// Unquoted sizes in one file.
const MAX_REPAIRS: usize = 3;

/// The tree of the text's one document, and every problem found on the way. A `size: >=5` that no parser takes is
/// reported and read as if it had been quoted, so that the rest of its file is checked too.
pub(super) fn build(text: &str) -> (Option<Node>, Vec<Problem>) {
    let mut repaired: Option<String> = None;
    let mut problems = Vec::new();
    loop {
        let current = repaired.as_deref().unwrap_or(text);
        let mut builder = Builder::default();
        let read = builder.read(current);
        let mut found = builder.problems;
        let problem = match read {
            Ok(root) => {
                problems.append(&mut found);
                return (Some(root), problems);
            }
            Err(problem) => problem,
        };
        match quote_size(current, problem.at.line).filter(|_| problems.len() < MAX_REPAIRS) {
            Some((better, unquoted)) => {
                problems.push(unquoted);
                repaired = Some(better);
            }
            None => {
                problems.append(&mut found);
                problems.push(problem);
                return (None, problems);
            }
        }
    }
}

#[derive(Default)]
struct Builder<'t> {
    lines: Vec<&'t str>,
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Weight)>,
    weight: Weight,
    problems: Vec<Problem>,
}

/// A list or map whose end is still to come.
struct Open {
    at: Position,
    anchor: usize,
    value: OpenValue,
}

enum OpenValue {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, merges: Vec<Node>, key: Option<Key> },
}

struct Key {
    text: String,
    at: Position,
    is_merge: bool,
}

#[derive(Clone, Copy, Default)]
struct Weight {
    nodes: usize,
    text: usize,
}

impl<'t> Builder<'t> {
    fn read(&mut self, text: &'t str) -> Result<Node, Problem> {
        self.lines = text.lines().collect();
        let mut root = None;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| syntax_problem(text, &error))?;
            if matches!(event, Event::DocumentStart(_)) && root.is_some() {
                let message = "a second document starts here: one file holds one, remove the `---`";
                return Err(Problem { at: position(span), message: message.into() });
            }
            if let Some(node) = self.take(event, span)? {
                root = Some(node);
            }
        }
        Ok(root.unwrap_or_else(|| Node {
            at: START,
            value: Value::Scalar(Scalar { text: String::new(), style: Style::Plain }),
        }))
    }

    /// The root, once this event finished it.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, Problem> {
        let at = position(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let style = styled(style, tag.as_deref(), at)?;
                let at = match style {
                    Style::Literal | Style::Folded => self.header(at),
                    _ => at,
                };
                self.grow(Weight { nodes: 1, text: text.len() }, at)?;
                let scalar = Scalar { text: text.into_owned(), style };
                self.finish(Node { at, value: Value::Scalar(scalar) }, anchor)
            }
            Event::Alias(id) => {
                let Some((node, weight)) = self.anchors.get(&id) else {
                    let message = "this alias stands inside the value it names: write the value out";
                    return Err(Problem { at, message: message.into() });
                };
                let (node, weight) = (node.clone(), *weight);
                self.grow(weight, at)?;
                if self.open.len() + depth(&node) > MAX_DEPTH {
                    return Err(too_deep(at));
                }
                self.finish(node, 0)
            }
            Event::SequenceStart(anchor, tag) => {
                self.start(at, anchor, tag.as_deref(), OpenValue::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                let value = OpenValue::Map { entries: Vec::new(), merges: Vec::new(), key: None };
                self.start(at, anchor, tag.as_deref(), value)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(None) };
                let value = match open.value {
                    OpenValue::List(items) => Value::List(items),
                    OpenValue::Map { entries, merges, .. } => Value::Map(self.merged(entries, merges)),
                };
                self.finish(Node { at: open.at, value }, open.anchor)
            }
            _ => Ok(None),
        }
    }

    /// Where the `|` or `>` of a block stands: the parser says where its text begins, or what follows it.
    fn header(&self, text: Position) -> Position {
        let above = self.lines.iter().enumerate().take(text.line.saturating_sub(1)).rev();
        let found =
            above.filter(|(_, line)| !line.trim_start().starts_with('#')).find_map(|(index, line)| {
                let line = line.split(" #").next().unwrap_or_default().trim_end();
                let head =
                    line.trim_end_matches(|sign: char| sign.is_ascii_digit() || ['+', '-'].contains(&sign));
                let before = head.strip_suffix(['|', '>'])?;
                let is_header = before.is_empty() || before.ends_with([' ', '\t']);
                is_header.then(|| Position { line: index + 1, column: before.chars().count() + 1 })
            });
        found.unwrap_or(text)
    }

    fn start(
        &mut self,
        at: Position,
        anchor: usize,
        tag: Option<&Tag>,
        value: OpenValue,
    ) -> Result<Option<Node>, Problem> {
        if let Some(tag) =
            tag.filter(|tag| !(tag.is_yaml_core_schema() && ["map", "seq"].contains(&&*tag.suffix)))
        {
            return Err(unknown_tag(tag, at));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.grow(Weight { nodes: 1, text: 0 }, at)?;
        self.open.push(Open { at, anchor, value });
        Ok(None)
    }

    /// Hangs a finished value into what is open; returns it where nothing is.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<Option<Node>, Problem> {
        if anchor > 0 {
            let weight = weight(&node);
            self.grow(weight, node.at)?;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        let Some(open) = self.open.last_mut() else { return Ok(Some(node)) };
        match &mut open.value {
            OpenValue::List(items) => items.push(node),
            OpenValue::Map { entries, merges, key } => match key.take() {
                None => *key = Some(as_key(node)?),
                Some(key) if key.is_merge => merges.push(node),
                Some(key) => entries.push(Entry { key: key.text, at: key.at, value: node }),
            },
        }
        Ok(None)
    }

    /// Own keys over merged ones; of several merged maps in a list the first wins, of several `<<` the last, as
    /// PyYAML has it.
    fn merged(&mut self, own: Vec<Entry>, merges: Vec<Node>) -> Vec<Entry> {
        let mut all: Vec<Entry> = Vec::with_capacity(own.len());
        let mut places: HashMap<String, usize> = HashMap::new();
        for merge in merges {
            let at = merge.at;
            let maps = match merge.value {
                Value::List(items) => items,
                _ => vec![merge],
            };
            for map in maps.into_iter().rev() {
                let Value::Map(entries) = map.value else {
                    let message = "`<<` takes a map or a list of maps, e.g. `<<: *defaults`";
                    self.problems.push(Problem { at, message: message.into() });
                    continue;
                };
                for entry in entries {
                    put(&mut all, &mut places, entry);
                }
            }
        }
        let mut first: HashMap<String, Position> = HashMap::new();
        for entry in own {
            if let Some(before) = first.get(&entry.key) {
                let message =
                    format!("`{}` is here a second time, first in line {}: keep one", entry.key, before.line);
                self.problems.push(Problem { at: entry.at, message });
                continue;
            }
            first.insert(entry.key.clone(), entry.at);
            put(&mut all, &mut places, entry);
        }
        all
    }

    fn grow(&mut self, by: Weight, at: Position) -> Result<(), Problem> {
        self.weight.nodes += by.nodes;
        self.weight.text += by.text;
        if self.weight.nodes > MAX_NODES || self.weight.text > MAX_TEXT {
            let message = format!(
                "with its aliases written out the file passes {MAX_NODES} values or {} MiB here: shorten it",
                MAX_TEXT >> 20
            );
            return Err(Problem { at, message });
        }
        Ok(())
    }
}

fn put(all: &mut Vec<Entry>, places: &mut HashMap<String, usize>, entry: Entry) {
    match places.get(&entry.key) {
        Some(&place) => all[place] = entry,
        None => {
            places.insert(entry.key.clone(), all.len());
            all.push(entry);
        }
    }
}

fn as_key(node: Node) -> Result<Key, Problem> {
    let at = node.at;
    match node.value {
        Value::Scalar(scalar) => {
            let is_merge = scalar.text == "<<" && scalar.style == Style::Plain;
            Ok(Key { text: scalar.text, at, is_merge })
        }
        _ => {
            let message = "a key must be a text; quote a value that starts with `{` or `[`";
            Err(Problem { at, message: message.into() })
        }
    }
}

fn styled(style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Result<Style, Problem> {
    let style = match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    };
    match tag {
        None => Ok(style),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" && style == Style::Plain => {
            Ok(Style::Quoted)
        }
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(style),
        Some(tag)
            if tag.is_yaml_core_schema() && ["int", "float", "bool", "null"].contains(&&*tag.suffix) =>
        {
            Ok(Style::Plain)
        }
        Some(tag) => Err(unknown_tag(tag, at)),
    }
}

fn weight(node: &Node) -> Weight {
    let mut total = Weight { nodes: 1, text: 0 };
    let mut add = |part: Weight| {
        total.nodes += part.nodes;
        total.text += part.text;
    };
    match &node.value {
        Value::Scalar(scalar) => add(Weight { nodes: 0, text: scalar.text.len() }),
        Value::List(items) => items.iter().for_each(|item| add(weight(item))),
        Value::Map(entries) => entries.iter().for_each(|entry| {
            add(Weight { nodes: 1, text: entry.key.len() });
            add(weight(&entry.value));
        }),
    }
    total
}

fn depth(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(_) => 0,
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}

fn position(span: Span) -> Position {
    Position { line: span.start.line().max(1), column: span.start.col() + 1 }
}

fn too_deep(at: Position) -> Problem {
    Problem {
        at,
        message: format!("more than {MAX_DEPTH} values stand inside each other here: flatten them"),
    }
}

fn unknown_tag(tag: &Tag, at: Position) -> Problem {
    Problem { at, message: format!("the tag `{tag}` has no meaning here: remove it, or quote the value") }
}

/// The parser's words, and what to do about it as far as the line shows it.
fn syntax_problem(text: &str, error: &ScanError) -> Problem {
    let marker = error.marker();
    let mut at = Position { line: marker.line().max(1), column: marker.col() + 1 };
    if error.info().contains("tab") {
        // Some tabs are noted at the value before them.
        let indented = text.lines().enumerate().skip(at.line - 1).find(|(_, line)| line.starts_with('\t'));
        at = indented.map_or(at, |(index, _)| Position { line: index + 1, column: 1 });
    }
    if error.info().contains("recursion limit") {
        return too_deep(at);
    }
    let line = text.lines().nth(at.line - 1).unwrap_or_default();
    let value = line.split_once(": ").map_or(line, |(_, value)| value).trim_start().trim_start_matches("- ");
    let info = error.info();
    let hint = if line.trim_start_matches(' ').starts_with('\t') || info.contains("tab") {
        "indent with spaces, YAML takes no tabs"
    } else if info.contains("quoted scalar") {
        "close the quote, and indent every line of the text deeper than its key"
    } else if info.contains("invalid indentation") {
        "indent every line of a value deeper than its key"
    } else if info.contains("anchor") || value.starts_with(['*', '&']) {
        "quote a value that starts with `*` or `&`, e.g. \"*.yml\""
    } else if value.starts_with("{{") || value.starts_with("{%") {
        "quote a value that starts with `{`"
    } else if info.contains("mapping values are not allowed") {
        "quote a value that contains `: `, and check the indentation"
    } else if value.starts_with(['@', '`', '%', '!', '|', '>']) {
        "quote a value that starts with a sign"
    } else {
        "check the indentation, quotes and brackets here and in the line above"
    };
    Problem { at, message: format!("not YAML: {info}; {hint}") }
}

/// `text` with the size quoted where the parser stumbled over it: in `line` (from 1) or the one before.
fn quote_size(text: &str, line: usize) -> Option<(String, Problem)> {
    let mut lines: Vec<&str> = text.split('\n').collect();
    let index = [line, line.saturating_sub(1)].into_iter().filter(|line| *line > 0).find_map(|line| {
        let after = lines.get(line - 1)?.trim_start().strip_prefix("size:")?.trim_start();
        after.starts_with('>').then_some(line - 1)
    })?;
    let written = lines[index];
    let value = written[written.find('>')?..].split('#').next().unwrap_or_default().trim();
    let before = &written[..written.find('>')?];
    let column = before.chars().count() + 1;
    let fixed = format!("{before}\">0\"");
    lines[index] = &fixed;
    let message = format!("size: {}", not_a_size(value));
    Some((lines.join("\n"), Problem { at: Position { line: index + 1, column }, message }))
}

/// What to say of a `size` that is none.
pub(crate) fn not_a_size(value: &str) -> String {
    format!("`{value}` is not a size: quote an operator and a row count, e.g. size: \">5\"")
}
