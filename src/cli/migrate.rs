//! `watchpost migrate`: what is different when Watchpost runs a clickdetect set-up, and the files as they should be.
//!
//! Files are changed where they must be, by their text: comments and order stay. What cannot be changed without knowing
//! the site is said, with its place.

mod commands;
mod known;
mod rules;
mod runner;
mod source;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use serde_json::{Value as Json, json};

use self::source::Changed;
use super::{Code, Failure, counted};
use crate::config::yaml::{self, Position};
use crate::config::{Diagnostic, Environment, Severity, read_text};

#[derive(clap::Args)]
pub struct Args {
    /// clickdetect's runner file.
    runner: PathBuf,
    /// Write the changed runner and all its rules into this folder, which is made.
    #[arg(long, value_name = "DIR", conflicts_with = "in_place")]
    write: Option<PathBuf>,
    /// Write the changed files over the old ones.
    #[arg(long)]
    in_place: bool,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    let here = std::env::current_dir()?;
    let migrated = migrate(&args.runner, &here, &|name| std::env::var(name).ok())?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", migrated.to_json())?;
    } else {
        out.write_all(migrated.text().as_bytes())?;
    }
    let written = match (&args.write, args.in_place) {
        (Some(folder), _) => write_into(&migrated, &args.runner, folder)?,
        (None, true) => write_over(&migrated)?,
        (None, false) => Vec::new(),
    };
    for path in written {
        eprintln!("written: {}", path.display());
    }
    Ok(migrated.code())
}

/// What is to be said of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub file: String,
    pub at: Position,
    /// Within the file, e.g. `webhooks.soc.verify`.
    pub path: String,
    pub sort: Sort,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sort {
    /// Watchpost does not take it, and only its owner can say what it should be.
    ByHand,
    /// It is changed in what is written.
    Change,
    /// It stays, and means or does something else.
    Differs,
    /// It stays as it is, and could be better.
    Advice,
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Self::ByHand => "by hand",
            Self::Change => "changed",
            Self::Differs => "differs",
            Self::Advice => "advice",
        }
    }
}

impl fmt::Display for Note {
    /// As a diagnostic, with its sort before the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        let diagnostic = Diagnostic {
            file: self.file.clone(),
            at: Some(self.at),
            path: String::new(),
            message: format!("{}: {path}{}", self.sort.word(), self.message),
            severity: Severity::Error,
        };
        diagnostic.fmt(f)
    }
}

/// Notes of one file, as they are found.
pub struct Notes {
    file: String,
    all: Vec<Note>,
}

impl Notes {
    fn of(file: &str) -> Self {
        Self { file: file.to_owned(), all: Vec::new() }
    }

    fn add(&mut self, sort: Sort, at: Position, path: impl Into<String>, message: impl Into<String>) {
        let (path, message) = (path.into(), message.into());
        self.all.push(Note { file: self.file.clone(), at, path, sort, message });
    }

    /// What reading the file as it would be written still finds, unless that was said of the place.
    fn found(&mut self, problem: Diagnostic, changed: &Changed) {
        let at = changed.old(problem.at.unwrap_or_default());
        let sort = if problem.severity == Severity::Error { Sort::ByHand } else { Sort::Advice };
        if !self.all.iter().any(|note| note.sort == Sort::ByHand && note.at == at) {
            self.add(sort, at, problem.path, problem.message);
        }
    }

    /// A change, or what to do where the file's layout does not let us make it.
    fn change(&mut self, is_made: bool, at: Position, path: impl Into<String>, message: impl Into<String>) {
        self.add(if is_made { Sort::Change } else { Sort::ByHand }, at, path, message);
    }
}

/// A set-up, read.
#[derive(Debug)]
pub struct Migrated {
    /// In the order of files, then of places.
    pub notes: Vec<Note>,
    pub files: Vec<File>,
    /// Whether Watchpost takes the runner as it is now.
    pub is_usable: bool,
}

/// A file of the set-up.
#[derive(Debug)]
pub struct File {
    pub path: PathBuf,
    pub text: String,
    pub is_changed: bool,
}

/// Reads the set-up of `runner`; `here` is where clickdetect was started, and where its relative paths began.
pub fn migrate(runner: &Path, here: &Path, environment: Environment<'_>) -> Result<Migrated, Failure> {
    let shown = runner.to_string_lossy();
    let text = read_text(runner, yaml::MAX_BYTES as u64)
        .map_err(|unreadable| Failure::cannot_run(unreadable.diagnostic(&shown)))?;
    let (mut notes, changed, scopes) = runner::migrate(runner, &text, here, environment);
    let is_changed = changed.text != text;
    let mut files = vec![File { path: runner.to_owned(), text: changed.text, is_changed }];
    if let Some(scopes) = &scopes {
        let (of_rules, changed) = rules::migrate(runner, scopes);
        notes.extend(of_rules);
        files.extend(changed);
    }
    notes.extend(commands::notes(runner.parent().unwrap_or(Path::new(""))));
    let mut seen = HashSet::new();
    notes.retain(|note| seen.insert(note.to_string()));
    let order: Vec<String> = notes.iter().map(|note| note.file.clone()).collect();
    notes.sort_by_key(|note| (order.iter().position(|file| *file == note.file), note.at));
    Ok(Migrated { notes, files, is_usable: scopes.is_some_and(|scopes| scopes.is_usable) })
}

impl Migrated {
    pub fn text(&self) -> String {
        let mut text: String = self.notes.iter().map(|note| format!("{note}\n")).collect();
        let count = |sort| self.notes.iter().filter(|note| note.sort == sort).count();
        let files = self.files.iter().filter(|file| file.is_changed).count();
        let changes = format!("{} in {}", counted(count(Sort::Change), "change"), counted(files, "file"));
        let summary = match (files, count(Sort::ByHand)) {
            (0, 0) => "nothing to change".to_owned(),
            (0, by_hand) => format!("{by_hand} to do by hand"),
            (_, 0) => changes,
            (_, by_hand) => format!("{changes}, {by_hand} to do by hand"),
        };
        text.push_str(&format!("{summary}, {} that differ\n", count(Sort::Differs)));
        text
    }

    fn to_json(&self) -> Json {
        let notes = self.notes.iter().map(|note| {
            json!({
                "file": note.file,
                "line": note.at.line,
                "column": note.at.column,
                "path": note.path,
                "sort": note.sort.word(),
                "message": note.message,
            })
        });
        let changed = self.files.iter().filter(|file| file.is_changed);
        json!({
            "notes": notes.collect::<Json>(),
            "changed_files": changed.map(|file| file.path.to_string_lossy()).collect::<Vec<_>>(),
            "usable": self.is_usable,
        })
    }

    fn code(&self) -> Code {
        if !self.is_usable {
            Code::Configuration
        } else if self.notes.iter().all(|note| note.sort == Sort::Advice) {
            Code::Good
        } else {
            Code::Findings
        }
    }
}

/// The runner and every rule file below its folder, at the same places below `folder`. Nothing is written over.
fn write_into(migrated: &Migrated, runner: &Path, folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let from = runner.parent().unwrap_or(Path::new(""));
    let mut planned = Vec::new();
    for file in &migrated.files {
        match file.path.strip_prefix(from) {
            Ok(inside)
                if inside
                    .components()
                    .all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) =>
            {
                planned.push((folder.join(inside), file));
            }
            _ => eprintln!(
                "not written: {} lies outside the runner's folder: copy it yourself, or use --in-place",
                file.path.display()
            ),
        }
    }
    if let Some((there, _)) = planned.iter().find(|(path, _)| path.exists()) {
        let message =
            format!("`{}` is there already: give a new folder, nothing was written", there.display());
        return Err(Failure::cannot_run(message));
    }
    for (path, file) in &planned {
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(path, &file.text)?;
    }
    Ok(planned.into_iter().map(|(path, _)| path).collect())
}

/// Each file is there whole at any time, the old one or the new one.
fn write_over(migrated: &Migrated) -> Result<Vec<PathBuf>, Failure> {
    let mut written = Vec::new();
    for file in migrated.files.iter().filter(|file| file.is_changed) {
        // Through links, so that they stay.
        let path = file.path.canonicalize()?;
        let mut new = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
        new.write_all(file.text.as_bytes())?;
        new.as_file().set_permissions(std::fs::metadata(&path)?.permissions())?;
        new.as_file().sync_all()?;
        new.persist(&path).map_err(|error| error.error)?;
        written.push(file.path.clone());
    }
    Ok(written)
}
