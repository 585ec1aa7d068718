//! The rules that a runner names: what changes in their files, and what is different when they run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::known;
use super::runner::Scopes;
use super::source::Source;
use super::{File, Note, Notes, Sort};
use crate::config::yaml::{self, Node, Position, Value};
use crate::config::{Section as _, Severity, clip, read_text, suggestion};
use crate::rule::load::{LoadedRule, RuleSection, Scope, find, parse};
use crate::rule::template;

/// What is to be said of every rule file, and each file as it should be.
pub fn migrate(runner: &Path, scopes: &Scopes) -> (Vec<Note>, Vec<File>) {
    let file = runner.to_string_lossy();
    let environment = template::environment();
    let mut notes = Vec::new();
    let mut files: Vec<File> = Vec::new();
    // By path: the rule's id and where it stands.
    let mut read: HashMap<PathBuf, Option<(String, Position)>> = HashMap::new();
    for (detector, patterns) in &scopes.rules {
        let dir = runner.parent().unwrap_or(Path::new(""));
        let scope = Scope { file: &file, dir, detector, patterns, datasources: &scopes.datasources };
        let mut diagnostics = Vec::new();
        let paths = find(scope, &mut diagnostics);
        for diagnostic in diagnostics {
            let mut of_runner = Notes::of(&file);
            let message = format!("{} (clickdetect says nothing of it)", diagnostic.message);
            of_runner.add(Sort::Advice, diagnostic.at.unwrap_or_default(), diagnostic.path, message);
            notes.extend(of_runner.all);
        }
        let mut taken: HashMap<String, PathBuf> = HashMap::new();
        for path in paths {
            let id = read.entry(path.clone()).or_insert_with(|| {
                let (of_file, file, id) = one(&path, &scopes.datasources, &environment);
                notes.extend(of_file);
                files.extend(file);
                id
            });
            let Some((id, at)) = id else { continue };
            if let Some(first) = taken.get(id) {
                let mut of_file = Notes::of(&path.to_string_lossy());
                let message = format!(
                    "`{}` is also the id of `{}`: clickdetect dropped one of the two, which one was up to the file \
                     system; here this one does not run in `{detector}`",
                    clip(id),
                    first.display()
                );
                of_file.add(Sort::Differs, *at, "id", message);
                notes.extend(of_file.all);
            } else {
                taken.insert(id.clone(), path);
            }
        }
    }
    (notes, files)
}

type Read = (Vec<Note>, Option<File>, Option<(String, Position)>);

fn one(path: &Path, datasources: &[String], environment: &minijinja::Environment<'static>) -> Read {
    let shown = path.to_string_lossy();
    let mut notes = Notes::of(&shown);
    let text = match read_text(path, yaml::MAX_BYTES as u64) {
        Ok(text) => text,
        Err(unreadable) => {
            notes.add(Sort::ByHand, Position::default(), "", unreadable.diagnostic("").message);
            return (notes.all, None, None);
        }
    };
    let mut source = Source::new(&text);
    if let (Some(root), _) = yaml::parse(&text) {
        unknown_keys(&root, &mut source, &mut notes);
        templates(&root, &text, &mut notes);
    }
    let changed = source.apply();
    let id = match parse(path, &shown, &changed.text, datasources, environment) {
        Ok(LoadedRule { rule, id_at, warnings }) => {
            for warning in warnings {
                notes.found(warning, &changed);
            }
            Some((rule.id, changed.old(id_at)))
        }
        Err(problems) => {
            for mut problem in problems {
                if problem.severity == Severity::Error {
                    problem.message.push_str(" (until then the rule is left out)");
                }
                notes.found(problem, &changed);
            }
            None
        }
    };
    notes.all.sort_by_key(|note| note.at);
    let is_changed = changed.text != text;
    (notes.all, Some(File { path: path.to_owned(), text: changed.text, is_changed }), id)
}

fn unknown_keys(root: &Node, source: &mut Source<'_>, notes: &mut Notes) {
    let names = || RuleSection::FIELDS.iter().map(|field| field.name);
    for entry in root.entries().unwrap_or_default() {
        if names().any(|name| name == entry.key) {
            continue;
        }
        let is_made = source.switch_off(entry, "clickdetect ignored this");
        let near = suggestion(&entry.key, names());
        let key = clip(&entry.key);
        let message = format!("clickdetect ignored the key `{key}`, Watchpost does not take it{near}");
        notes.change(is_made, entry.at, "", message);
    }
}

/// What a template of clickdetect's can do and one of ours does otherwise.
fn templates(root: &Node, text: &str, notes: &mut Notes) {
    for key in ["rule", "description"] {
        let Some((node, template)) = root.get(key).and_then(|node| Some((node, &node.scalar()?.text))) else {
            continue;
        };
        let place = |at: usize| {
            let before = &template[..at];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
            node.position_within(text, line, column)
        };
        for (object, attributes) in
            [("detector", known::DETECTOR_ATTRIBUTES), ("rule", known::RULE_ATTRIBUTES)]
        {
            for attribute in attributes {
                let used = format!("{object}.{attribute}");
                for at in uses(template, &used) {
                    let message = format!("`{used}` is empty here: it is a part of clickdetect's inside");
                    notes.add(Sort::Differs, place(at), key, message);
                }
            }
        }
        if let Some(at) = template.find("to_list_like")
            && root.get("data").is_some_and(has_a_quote)
        {
            let message = "`to_list_like` doubles a `'` inside an item, so that it cannot end the text; clickdetect left \
                           it as it was";
            notes.add(Sort::Differs, place(at), key, message);
        }
    }
}

/// Where `name` stands as a word of its own.
fn uses(template: &str, name: &str) -> Vec<usize> {
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    (template.match_indices(name))
        .filter(|(at, _)| {
            let before = template[..*at].chars().next_back();
            let after = template[at + name.len()..].chars().next();
            !before.is_some_and(|before| is_word(before) || before == '.') && !after.is_some_and(is_word)
        })
        .map(|(at, _)| at)
        .collect()
}

fn has_a_quote(node: &Node) -> bool {
    match &node.value {
        Value::Scalar(scalar) => scalar.text.contains('\''),
        Value::List(items) => items.iter().any(has_a_quote),
        Value::Map(entries) => entries.iter().any(|entry| has_a_quote(&entry.value)),
    }
}
