//! From the tree to types: every problem is noted with its place, and reading goes on.

use std::borrow::Cow;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value as Json;

use super::diagnostic::{Diagnostic, Severity, suggestion};
use super::yaml::{self, Entry, Node, Position, Scalar, Style, Value};

/// A value that a file can give.
pub trait FromYaml: Sized {
    /// What reference pages call it, e.g. `duration`.
    const TYPE: &'static str;
    /// Whether a key of this type may be left out without a default.
    const OPTIONAL: bool = false;
    /// The keys of a section, or of the sections that this holds, for reference pages.
    const INSIDE: &'static [Field] = &[];

    /// What a JSON schema says of it, with [`schema`](super::schema)'s words; by default that it takes anything.
    fn schema() -> Json {
        Json::Object(Default::default())
    }

    /// `None` where the value cannot be used, which then was noted in `reader`.
    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self>;

    /// The value of a key that is not there.
    fn absent() -> Option<Self> {
        None
    }

    /// As a file would give it; secrets as `***`.
    fn to_json(&self) -> Json;
}

/// A map with known keys, made by [`section!`](crate::config::section!).
pub trait Section: FromYaml {
    /// What the section is for, from its doc comment.
    const ABOUT: &'static str;
    const FIELDS: &'static [Field];
    /// Keys that are known and refused, each with the reason.
    const REFUSED: &'static [(&'static str, &'static str)];

    /// Out of the entries of `node`, which may also hold those of a section that shares this one.
    fn from_entries(entries: &[Entry], node: &Node, reader: &mut Reader<'_>) -> Option<Self>;
}

/// One key of a [`Section`], for reference pages and JSON schemas.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    /// [`FromYaml::TYPE`].
    pub kind: &'static str,
    pub required: bool,
    /// As it would be written.
    pub default: Option<&'static str>,
    /// The doc comment, lines ended by newlines.
    pub doc: &'static str,
    /// [`FromYaml::INSIDE`].
    pub inside: &'static [Field],
    /// [`FromYaml::schema`], unless the declaration says another.
    pub schema: fn() -> Json,
}

/// Looks up an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where reading stands, and what it found so far.
pub struct Reader<'a> {
    file: &'a str,
    source: &'a str,
    /// What relative paths start from.
    dir: &'a Path,
    /// `None`: `{env: NAME}` and `{file: PATH}` are maps like others.
    environment: Option<Environment<'a>>,
    path: String,
    names: Vec<(&'static str, Vec<String>)>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    /// `file` is the name that diagnostics show, `source` its text, `dir` what relative paths in it start from.
    pub fn new(file: &'a str, source: &'a str, dir: &'a Path, environment: Option<Environment<'a>>) -> Self {
        Self {
            file,
            source,
            dir,
            environment,
            path: String::new(),
            names: Vec::new(),
            diagnostics: Vec::new(),
        }
    }

    /// The tree of the source; problems of the text are noted.
    pub fn parse(&mut self) -> Option<Node> {
        let (root, problems) = yaml::parse(self.source);
        for problem in problems {
            self.error(problem.at, problem.message);
        }
        root
    }

    pub fn dir(&self) -> &'a Path {
        self.dir
    }

    pub fn source(&self) -> &'a str {
        self.source
    }

    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        self.diagnostics
    }

    pub fn error(&mut self, at: Position, message: impl Into<String>) {
        self.note(at, message.into(), Severity::Error);
    }

    pub fn warn(&mut self, at: Position, message: impl Into<String>) {
        self.note(at, message.into(), Severity::Warning);
    }

    /// Notes that `node` is not `what`, a noun with its article and an example.
    pub fn refuse<T>(&mut self, node: &Node, what: &str) -> Option<T> {
        let message = match &node.value {
            Value::Scalar(_) if node.is_null() => format!("nothing is given here: write {what}"),
            Value::Scalar(scalar) => format!("`{}` is not {what}", clip(&scalar.text)),
            Value::List(_) => format!("a list stands here: write {what}"),
            Value::Map(_) => format!("a map stands here: write {what}"),
        };
        self.error(node.at, message);
        None
    }

    /// Runs `read` with `key` added to the path.
    pub fn within<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(clip(key).as_ref());
        let result = read(self);
        self.path.truncate(length);
        result
    }

    /// Runs `read` with the place in a list added to the path.
    pub fn within_item<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let result = read(self);
        self.path.truncate(length);
        result
    }

    /// Declares the names that a `kind` of reference can have.
    pub fn declare(&mut self, kind: &'static str, names: Vec<String>) {
        self.names.push((kind, names));
    }

    /// Notes a reference to a `kind` that was not declared.
    pub fn check_name(&mut self, kind: &'static str, name: &str, at: Position) -> bool {
        let names = self.names.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, names)| names);
        if names.iter().any(|known| known == name) {
            return true;
        }
        let hint = match suggestion(name, names.iter().map(String::as_str)) {
            near if !near.is_empty() => near,
            _ if names.is_empty() => format!(": there are no {kind}s in this file"),
            _ => format!("; there is {}", list(names.iter().map(String::as_str))),
        };
        self.error(at, format!("no {kind} `{}`{hint}", clip(name)));
        false
    }

    /// The scalar of `node`, `{env: NAME}` and `{file: PATH}` fetched; `None` where it is a list or map, or where
    /// the fetching failed (which was noted: `Err`).
    pub fn scalar<'n>(&mut self, node: &'n Node) -> Result<Option<Cow<'n, Scalar>>, Noted> {
        if let Some(scalar) = node.scalar() {
            return Ok(Some(Cow::Borrowed(scalar)));
        }
        match self.reference(node) {
            Some((entry, environment)) => {
                let fetched = self.fetch(entry, environment).ok_or(Noted)?;
                Ok(Some(Cow::Owned(Scalar { text: fetched, style: Style::Fetched })))
            }
            None => Ok(None),
        }
    }

    /// Whether `node` is `{env: NAME}` or `{file: PATH}` where these have a meaning.
    pub(super) fn reference<'n>(&self, node: &'n Node) -> Option<(&'n Entry, Environment<'a>)> {
        let environment = self.environment?;
        match node.entries()? {
            [entry] if ["env", "file"].contains(&entry.key.as_str()) && entry.value.scalar().is_some() => {
                Some((entry, environment))
            }
            _ => None,
        }
    }

    fn fetch(&mut self, entry: &Entry, environment: Environment<'_>) -> Option<String> {
        let name = &entry.value.scalar()?.text;
        let at = entry.value.at;
        if entry.key == "env" {
            let value = environment(name);
            if value.is_none() {
                self.error(at, format!("the environment variable `{}` is not set", clip(name)));
            }
            return value;
        }
        match read_text(&self.dir.join(name), MAX_REFERENCE) {
            Ok(mut text) => {
                let end = text.trim_end_matches(['\n', '\r']).len();
                text.truncate(end);
                Some(text)
            }
            Err(unreadable) => {
                self.error(at, format!("the file `{}` cannot be read: {}", clip(name), unreadable.reason));
                None
            }
        }
    }

    /// The entries of a section; unknown and refused keys are noted.
    pub fn section<'n>(
        &mut self,
        node: &'n Node,
        fields: &[Field],
        refused: &[(&'static str, &'static str)],
    ) -> Option<&'n [Entry]> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Scalar(_) if node.is_null() => &[],
            _ => return self.refuse(node, "a map of `key: value` lines"),
        };
        for entry in entries {
            let key = entry.key.as_str();
            if fields.iter().any(|field| field.name == key) {
                continue;
            }
            if let Some((_, why)) = refused.iter().find(|(name, _)| *name == key) {
                if !entry.value.is_null() {
                    self.error(entry.at, format!("`{key}` {why}"));
                }
                continue;
            }
            let hint = match suggestion(key, fields.iter().map(|field| field.name)) {
                near if near.is_empty() => {
                    format!("; known are {}", list(fields.iter().map(|field| field.name)))
                }
                near => near,
            };
            self.error(entry.at, format!("unknown key `{}`{hint}", clip(key)));
        }
        Some(entries)
    }

    /// The value of one key: as given, by default, or absent. A key without a value is as good as absent.
    pub fn field<T: FromYaml>(
        &mut self,
        entries: &[Entry],
        node: &Node,
        field: &Field,
        read: impl Fn(&Node, &mut Self) -> Option<T>,
    ) -> Option<T> {
        let given = entries.iter().find(|entry| entry.key == field.name);
        if let Some(entry) = given.filter(|entry| !entry.value.is_null()) {
            return self.within(field.name, |reader| read(&entry.value, reader));
        }
        if let Some(default) = field.default {
            return self.within(field.name, |reader| read(&Node::default_of(default, node.at), reader));
        }
        let absent = T::absent();
        if absent.is_none() {
            match given {
                Some(entry) => {
                    let message = format!("nothing is given here: write {}", article(field.kind));
                    self.within(field.name, |reader| reader.error(entry.value.at, message));
                }
                None => self.error(node.at, format!("the key `{}` ({}) is missing", field.name, field.kind)),
            }
        }
        absent
    }

    fn note(&mut self, at: Position, message: String, severity: Severity) {
        // A hostile file could have a problem a byte.
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            let (file, path) = (self.file.to_owned(), self.path.clone());
            self.diagnostics.push(Diagnostic { file, at: Some(at), path, message, severity });
        }
    }
}

/// The reason was noted in the reader.
#[derive(Debug)]
pub struct Noted;

const MAX_DIAGNOSTICS: usize = 1_000;
/// Of a file named by `{file: PATH}`.
const MAX_REFERENCE: u64 = 1 << 20;

/// Why a file gives no text.
#[derive(Debug)]
pub struct Unreadable {
    /// In words.
    pub reason: String,
    /// Where in the file, if that is where the reason lies.
    pub at: Option<Position>,
    /// Whether the system gave no bytes at all.
    pub is_absent: bool,
}

impl Unreadable {
    /// As a problem of the file `shown`.
    pub fn diagnostic(&self, shown: &str) -> Diagnostic {
        let message = format!("cannot be read: {}", self.reason);
        Diagnostic { at: self.at, ..Diagnostic::of_file(shown, Severity::Error, message) }
    }
}

/// The text of a file of at most `limit` bytes.
pub fn read_text(path: &Path, limit: u64) -> Result<String, Unreadable> {
    let absent = |reason| Unreadable { reason, at: None, is_absent: true };
    let file = std::fs::File::open(path).map_err(|error| absent(reason(&error)))?;
    let metadata = file.metadata().map_err(|error| absent(reason(&error)))?;
    if metadata.is_dir() {
        return Err(absent("it is a folder".into()));
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(limit) as usize + 1);
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| absent(reason(&error)))?;
    if bytes.len() as u64 > limit {
        return Err(Unreadable {
            reason: format!("it has more than {limit} bytes"),
            at: None,
            is_absent: false,
        });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
        let byte = error.as_bytes()[valid];
        let reason = format!("the byte 0x{byte:02x} here is not UTF-8, save the file as UTF-8");
        Unreadable { reason, at: Some(Position { line, column }), is_absent: false }
    })
}

/// What the system says of a failed read or open, in our words.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        std::io::ErrorKind::IsADirectory => "it is a folder".into(),
        _ => error.to_string().to_lowercase(),
    }
}

/// The first characters of a text that a message quotes.
pub fn clip(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(80) {
        Some((end, _)) => Cow::Owned(format!("{}...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// A doc comment as text: paragraphs on a line each, with an empty line between.
pub fn prose(doc: &str) -> String {
    let mut text = String::new();
    for line in doc.trim().lines().map(str::trim) {
        match line {
            "" => text.push_str("\n\n"),
            _ if text.is_empty() || text.ends_with('\n') => text.push_str(line),
            _ => {
                text.push(' ');
                text.push_str(line);
            }
        }
    }
    text
}

/// `` `a`, `b` ``
pub fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.take(40).map(|name| format!("`{}`", clip(name))).collect();
    quoted.join(", ")
}

/// `` `a`, `b` or `c` ``
pub(crate) fn either(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [most @ .., last] => format!("{} or `{last}`", list(most.iter().copied())),
    }
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {noun}")
}
