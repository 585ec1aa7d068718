//! YAML text to a tree in which every key and value knows its line and column.
//!
//! The grammar is saphyr's (YAML 1.2); plain scalars are resolved as PyYAML's `safe_load` does (YAML 1.1), because
//! the files were written for it. A scalar keeps its text and is given a type only where one is wanted, so `on` is
//! a text for a name and a boolean for a switch. Where nothing is wanted (`data`), [`Scalar::resolve`] decides as
//! PyYAML: `yes`, `0x1f`, `0o`-less octal `017`, `1_000` and sexagesimal `1:30` are a boolean and numbers; dates
//! stay text.
//!
//! A file is hostile until shown otherwise: size, depth, and what aliases expand to are bounded.

mod build;
mod scalar;

pub(crate) use build::not_a_size;
pub use scalar::{Resolved, Scalar, Style};

/// Of a file; a rule or a runner is a few kilobytes.
pub const MAX_BYTES: usize = 4 << 20;
/// Both from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// A value and where it stands. What came through an alias or a merge stands where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub at: Position,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    /// In the file's order, merged keys first; no key twice.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub at: Position,
    pub value: Node,
}

/// What is wrong with the text itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub at: Position,
    pub message: String,
}

/// The tree (where there is one) and everything that is wrong with it.
pub fn parse(text: &str) -> (Option<Node>, Vec<Problem>) {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_BYTES}: split it", text.len());
        return (None, vec![Problem { at: START, message }]);
    }
    build::build(text)
}

const START: Position = Position { line: 1, column: 1 };

impl Node {
    /// The value of `key`, where this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()?.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    pub fn entries(&self) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        self.scalar().is_some_and(|scalar| scalar.resolve() == Resolved::Null)
    }

    /// A declared default: `[]` and `{}` are the empty list and map, all else a scalar, the empty one a text.
    pub fn default_of(text: &str, at: Position) -> Self {
        let style = if text.is_empty() { Style::Quoted } else { Style::Plain };
        let value = match text {
            "[]" => Value::List(Vec::new()),
            "{}" => Value::Map(Vec::new()),
            _ => Value::Scalar(Scalar { text: text.into(), style }),
        };
        Self { at, value }
    }

    /// Where line and column (both from 1) of this scalar's text stand in the file it was read from. Exact in a
    /// `|` block and on one line; elsewhere the scalar's own place.
    pub fn position_within(&self, source: &str, line: usize, column: usize) -> Position {
        let Some(scalar) = self.scalar() else { return self.at };
        let inside = match scalar.style {
            Style::Literal => literal_position(self.at, scalar, source, line, column),
            Style::Plain | Style::Quoted if !scalar.text.contains('\n') => {
                let quoted = usize::from(scalar.style == Style::Quoted);
                let written = source.lines().nth(self.at.line.saturating_sub(1));
                let rest: Option<String> =
                    written.map(|text| text.chars().skip(self.at.column - 1 + quoted).collect());
                rest.filter(|rest| rest.starts_with(&scalar.text))
                    .map(|_| Position { line: self.at.line, column: self.at.column + quoted + column - 1 })
            }
            _ => None,
        };
        inside.unwrap_or(self.at)
    }
}

fn literal_position(
    header: Position,
    scalar: &Scalar,
    source: &str,
    line: usize,
    column: usize,
) -> Option<Position> {
    let written = source.lines().nth(header.line + line - 1)?;
    let text = scalar.text.lines().nth(line - 1)?;
    let indent = written.strip_suffix(text)?.chars().count();
    Some(Position { line: header.line + line, column: indent + column })
}

#[cfg(test)]
mod tests;
