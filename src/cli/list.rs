//! `watchpost list`: which datasources, webhooks and plugins there are, and their settings.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};

use super::{Code, Failure};
use crate::config::{Field, Kind, Section as _, pages, prose, suggestion};
use crate::{datasource, triage, webhook};

#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    /// What to list.
    #[arg(value_enum, required_unless_present = "markdown")]
    family: Option<Family>,
    /// One kind, with its settings.
    name: Option<String>,
    /// JSON instead of text: every kind with its settings.
    #[arg(long)]
    json: bool,
    /// Write the pages of docs/reference/ into this folder, and remove others from it.
    #[arg(long, value_name = "DIR", hide = true)]
    markdown: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Family {
    Datasources,
    Webhooks,
    Plugins,
}

pub fn run(args: Args) -> Result<Code, Failure> {
    if let Some(folder) = &args.markdown {
        write_pages(folder)?;
        return Ok(Code::Good);
    }
    let family = args
        .family
        .ok_or_else(|| Failure::cannot_run("say what to list: datasources, webhooks or plugins"))?;
    show(family, args.name.as_deref(), args.json)
}

/// Prints a family, or one kind of it.
pub fn show(family: Family, name: Option<&str>, as_json: bool) -> Result<Code, Failure> {
    let kinds = family.kinds();
    let chosen = match name {
        None => None,
        Some(name) => {
            Some(kinds.iter().find(|kind| kind.name == name).ok_or_else(|| no_such(family, name, &kinds))?)
        }
    };
    let mut out = std::io::stdout().lock();
    match (chosen, as_json) {
        (Some(kind), true) => writeln!(out, "{:#}", described(kind))?,
        (None, true) => writeln!(out, "{:#}", kinds.iter().map(described).collect::<Json>())?,
        (Some(kind), false) => out.write_all(whole(kind).as_bytes())?,
        (None, false) => out.write_all(overview(family, &kinds).as_bytes())?,
    }
    Ok(Code::Good)
}

impl Family {
    fn kinds(self) -> Vec<Kind> {
        match self {
            Self::Datasources => datasource::Config::KINDS.to_vec(),
            Self::Webhooks => webhook::Config::KINDS.to_vec(),
            Self::Plugins => vec![Kind {
                name: "clickagentic",
                about: concat!(
                    "Triage of every alert by a local model. It is built in, as the section `triage`; this name for\n",
                    "it is clickdetect's, and takes the same settings."
                ),
                fields: triage::Config::FIELDS,
                refused: triage::Config::REFUSED,
            }],
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Datasources => "datasources",
            Self::Webhooks => "webhooks",
            Self::Plugins => "plugins",
        }
    }
}

fn no_such(family: Family, name: &str, kinds: &[Kind]) -> Failure {
    let word = family.word();
    let near = suggestion(name, kinds.iter().map(|kind| kind.name));
    let near = if near.is_empty() { format!("; `watchpost list {word}` shows all") } else { near };
    Failure::cannot_run(format!("none of the {word} is called `{name}`{near}"))
}

fn described(kind: &Kind) -> Json {
    json!({ "name": kind.name, "about": prose(kind.about), "settings": settings(kind.fields) })
}

fn settings(fields: &[Field]) -> Json {
    let setting = |field: &Field| {
        let mut setting = json!({
            "name": field.name,
            "type": field.kind,
            "required": field.required,
            "default": field.default,
            "doc": prose(field.doc),
        });
        if !field.inside.is_empty() {
            setting["settings"] = settings(field.inside);
        }
        setting
    };
    fields.iter().map(setting).collect()
}

fn overview(family: Family, kinds: &[Kind]) -> String {
    let indent = kinds.iter().map(|kind| kind.name.len()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for kind in kinds {
        let about = prose(kind.about);
        let about = about.lines().next().unwrap_or_default();
        let wrapped = wrapped(about, indent);
        text.push_str(&format!("{:indent$}{}\n", kind.name, wrapped.trim_start()));
    }
    text.push_str(&format!("\n`watchpost list {} NAME` shows the settings of one.\n", family.word()));
    text
}

fn whole(kind: &Kind) -> String {
    let mut text = format!("{}\n{}", kind.name, paragraphs(&prose(kind.about), 2));
    describe(&mut text, kind.fields, 2);
    text
}

fn describe(text: &mut String, fields: &[Field], indent: usize) {
    for field in fields {
        let default = match field.default {
            Some("") => ", by default nothing".to_owned(),
            Some(default) => format!(", by default {default}"),
            None if field.required => ", required".to_owned(),
            None => String::new(),
        };
        text.push_str(&format!("\n{:indent$}{}  ({}{default})\n", "", field.name, field.kind));
        text.push_str(&paragraphs(&prose(field.doc), indent + 4));
        describe(text, field.inside, indent + 4);
    }
}

/// Wrapped lines, each paragraph's first one after an empty line except at the top.
fn paragraphs(text: &str, indent: usize) -> String {
    let lines =
        text.lines().map(|line| if line.is_empty() { "\n".into() } else { wrapped(line, indent) + "\n" });
    lines.collect()
}

/// `text` in lines of at most [`WIDTH`] characters, where no word is longer, each behind `indent` blanks.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always one");
        if !last.is_empty() && indent + last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(word.to_owned());
            continue;
        }
        if !last.is_empty() {
            last.push(' ');
        }
        last.push_str(word);
    }
    let lines: Vec<String> = lines.iter().map(|line| format!("{:indent$}{line}", "")).collect();
    lines.join("\n")
}

/// Of a terminal that nobody has widened.
const WIDTH: usize = 80;

fn write_pages(folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let pages = pages();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_stale =
            name.to_string_lossy().ends_with(".md") && !pages.iter().any(|page| *page.name == *name);
        if is_stale {
            std::fs::remove_file(entry.path())?;
        }
    }
    for page in pages {
        std::fs::write(folder.join(page.name), page.text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_fits_a_terminal_of_80_columns() {
        for family in [Family::Datasources, Family::Webhooks, Family::Plugins] {
            let kinds = family.kinds();
            let texts = kinds.iter().map(whole).chain([overview(family, &kinds)]);
            for line in texts.collect::<String>().lines() {
                // A word that is longer than a line cannot be broken.
                assert!(line.chars().count() <= WIDTH || !line.trim().contains(' '), "{line}");
            }
        }
    }

    #[test]
    fn text_is_wrapped_at_words() {
        let text = "word ".repeat(30);
        let wrapped = wrapped(text.trim(), 70);
        assert!(wrapped.lines().all(|line| line == format!("{:70}word word", "")), "{wrapped}");
    }
}
