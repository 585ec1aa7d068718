//! Rule files by paths and globs, as Python's `glob(recursive=True)` finds them: `*` stays within a folder, `**` is
//! folders of any depth, hidden files are found only by a pattern that names the dot.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use globset::GlobBuilder;
use walkdir::WalkDir;

use super::load::Scope;
use crate::config::yaml::Position;
use crate::config::{Diagnostic, Severity, clip, reason};

/// The files of all patterns, each once: in the order of patterns, then of paths. What is wrong with a pattern is
/// noted at its place in the runner.
pub(super) fn find(scope: Scope<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (index, (pattern, at)) in scope.patterns.0.iter().enumerate() {
        let mut note = |severity, message: String| {
            diagnostics.push(Diagnostic {
                at: Some(*at).filter(|at| *at != Position::default()),
                path: format!("detectors.{}.rules[{index}]", scope.detector),
                ..Diagnostic::of_file(scope.file, severity, message)
            });
        };
        let paths = if is_glob(pattern) {
            glob(scope.dir, pattern, &mut note)
        } else {
            file(scope.dir, pattern, &mut note)
        };
        // By its real place, so that a link to a file or folder does not make a second rule of it.
        found.extend(
            paths
                .into_iter()
                .filter(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone()))),
        );
    }
    found
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

fn is_rule_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml")
}

fn file(dir: &Path, pattern: &str, note: &mut dyn FnMut(Severity, String)) -> Vec<PathBuf> {
    let path = dir.join(pattern);
    let shown = clip(pattern);
    if path.is_dir() {
        let folder = shown.trim_end_matches('/');
        note(
            Severity::Warning,
            format!("`{shown}` is a folder: write `{folder}/**/*.yml` for the rules in it"),
        );
        return Vec::new();
    }
    if !is_rule_file(&path) {
        note(Severity::Warning, format!("`{shown}` is not a rule file: its name must end in .yml or .yaml"));
        return Vec::new();
    }
    if !path.exists() {
        note(Severity::Warning, format!("there is no file `{shown}`: no rule comes from it"));
        return Vec::new();
    }
    vec![path]
}

fn glob(dir: &Path, pattern: &str, note: &mut dyn FnMut(Severity, String)) -> Vec<PathBuf> {
    let shown = clip(pattern);
    let (base, rest) = split(pattern);
    let matcher = GlobBuilder::new(&rest).literal_separator(true).backslash_escape(false).build();
    let matcher = match matcher {
        Ok(glob) => glob.compile_matcher(),
        Err(error) => {
            note(
                Severity::Error,
                format!("`{shown}` is not a glob: {}, e.g. `rules/**/*.yml`", error.kind()),
            );
            return Vec::new();
        }
    };
    let root = dir.join(base);
    let root = if root.as_os_str().is_empty() { PathBuf::from(".") } else { root };
    let names_hidden = rest.split('/').any(|part| part.starts_with('.'));
    let depth = if rest.contains("**") { MAX_DEPTH } else { rest.split('/').count() };
    let walk = WalkDir::new(&root).follow_links(true).min_depth(1).max_depth(depth).sort_by_file_name();
    let mut found = Vec::new();
    let mut visited = 0;
    let real_root = root.canonicalize().unwrap_or_default();
    let entries = walk.into_iter().filter_entry(|entry| {
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // A link to a folder above where we began leads to everything once more.
        let leads_back = entry.path_is_symlink()
            && entry.file_type().is_dir()
            && entry.path().canonicalize().is_ok_and(|target| real_root.starts_with(target));
        entry.depth() == 0 || ((names_hidden || !is_hidden) && !leads_back)
    });
    for entry in entries {
        visited += 1;
        if visited > MAX_ENTRIES {
            note(
                Severity::Error,
                format!("`{shown}` reaches more than {MAX_ENTRIES} files: name a smaller folder"),
            );
            break;
        }
        match entry {
            Ok(entry) => {
                let inside = entry.path().strip_prefix(&root).unwrap_or(entry.path());
                if entry.file_type().is_file() && is_rule_file(inside) && matcher.is_match(inside) {
                    let path = entry.path();
                    found.push(path.strip_prefix("./").unwrap_or(path).to_owned());
                }
            }
            // A link to a folder above it: what is in there was found already.
            Err(error) if error.loop_ancestor().is_some() => {}
            Err(error) if error.depth() == 0 => break,
            Err(error) => {
                let path = error.path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
                let reason = error.io_error().map_or_else(|| error.to_string(), reason);
                note(Severity::Warning, format!("`{path}` cannot be searched: {reason}"));
            }
        }
    }
    if found.is_empty() {
        note(Severity::Warning, format!("`{shown}` matches no rule file (.yml or .yaml)"));
    }
    found.sort();
    found
}

/// The folders before the first part with a glob in it, and the rest.
fn split(pattern: &str) -> (PathBuf, String) {
    let mut base = PathBuf::new();
    let mut rest: Vec<&str> = Vec::new();
    if pattern.starts_with('/') {
        base.push("/");
    }
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if rest.is_empty() && !is_glob(part) {
            base.push(part);
        } else {
            rest.push(part);
        }
    }
    (base, rest.join("/"))
}

const MAX_DEPTH: usize = 32;
/// Files and folders that one pattern may visit.
const MAX_ENTRIES: usize = 100_000;
