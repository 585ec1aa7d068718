//! The pages of docs/reference/: every family, every kind, the runner and the rule, from the declarations that read
//! them.

use std::fmt::Write as _;

use super::kind::{Kind, KindTable};
use super::read::{Field, Section, prose};
use super::runner::RunnerSection;
use crate::rule::load::RuleSection;
use crate::{datasource, webhook};

/// A page in Markdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The file's name, e.g. `datasource-duckdb.md`.
    pub name: String,
    pub text: String,
}

/// Every page, in the order in which they are read.
pub fn pages() -> Vec<Page> {
    let mut pages = vec![
        section::<RunnerSection>("runner.md", "The runner: `runner.yml`"),
        section::<RuleSection>("rule.md", "A rule's file"),
    ];
    for table in [&datasource::Config::TABLE, &webhook::Config::TABLE] {
        pages.push(family(table));
        pages.extend(table.kinds.iter().map(|kind| one(table, kind)));
    }
    pages
}

fn section<T: Section>(name: &str, title: &str) -> Page {
    let mut text = head(title, T::ABOUT);
    settings(&mut text, T::FIELDS);
    refused(&mut text, T::REFUSED);
    Page { name: name.into(), text }
}

fn family(table: &KindTable) -> Page {
    let KindTable { family, about, kinds, default, .. } = table;
    let mut text = head(&format!("{}s", capital(family)), about);
    line(&mut text, format_args!("`type` says which; without it, it is `{default}`.\n"));
    line(&mut text, format_args!("| `type` | |\n|---|---|"));
    for kind in *kinds {
        let about = cell(first_paragraph(kind.about));
        line(&mut text, format_args!("| [`{}`]({}) | {about} |", kind.name, file(family, kind.name)));
    }
    Page { name: format!("{family}s.md"), text }
}

fn one(table: &KindTable, kind: &Kind) -> Page {
    let title = format!("{} `{}`", capital(table.family), kind.name);
    let mut text = head(&title, kind.about);
    settings(&mut text, kind.fields);
    refused(&mut text, kind.refused);
    Page { name: file(table.family, kind.name), text }
}

fn head(title: &str, about: &str) -> String {
    format!(
        "<!-- Made from the code by `make reference-docs`: write the doc comments there. -->\n\n# {title}\n\n{}\n\n",
        prose(about)
    )
}

/// A table of all, then what is to be said of each.
fn settings(text: &mut String, fields: &[Field]) {
    let fields = flat(fields, "");
    line(text, format_args!("| setting | type | default |\n|---|---|---|"));
    for (path, field) in &fields {
        line(text, format_args!("| `{path}` | {} | {} |", cell(field.kind.into()), cell(default(field))));
    }
    for (path, field) in &fields {
        line(text, format_args!("\n## `{path}`\n\n{}", prose(field.doc)));
    }
}

fn refused(text: &mut String, refused: &[(&str, &str)]) {
    if !refused.is_empty() {
        line(text, format_args!("\n## What is refused\n"));
    }
    for (name, why) in refused {
        line(text, format_args!("- `{name}` {why}"));
    }
}

/// Every setting with its path, those of inner sections behind the one that holds them.
fn flat(fields: &[Field], above: &str) -> Vec<(String, Field)> {
    let mut all = Vec::new();
    for field in fields {
        let path = format!("{above}{}", field.name);
        let inside = match field.kind {
            by_name if by_name.starts_with("map") => format!("{path}.NAME."),
            list if list.starts_with("list") => format!("{path}[]."),
            _ => format!("{path}."),
        };
        all.push((path, *field));
        all.extend(flat(field.inside, &inside));
    }
    all
}

fn default(field: &Field) -> String {
    match field.default {
        Some("") => "nothing".into(),
        Some(default) => format!("`{default}`"),
        None if field.required => "required".into(),
        None => String::new(),
    }
}

/// Of a doc comment.
fn first_paragraph(doc: &str) -> String {
    prose(doc).lines().next().unwrap_or_default().to_owned()
}

fn file(family: &str, kind: &str) -> String {
    format!("{family}-{kind}.md")
}

fn capital(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

/// For a table, whose cells end at a `|`.
fn cell(text: String) -> String {
    text.replace('|', "\\|")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String does not fail");
}
