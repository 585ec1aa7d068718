//! Query templates: Jinja, as clickdetect's rules use it.
//!
//! What prints, prints as in Python (`True`, `None`, `['a', 'b']`). An undefined value is empty, as in Jinja2; a
//! name that no template can have is a warning of `check`. A render has fuel, so that a template cannot run away.

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value as Json};

use super::scan::{Role, words};
use super::{Rule, python};
use crate::clock::Window;
use crate::config::yaml::Node;
use crate::config::{Diagnostic, Reader, Severity, suggestion};

/// What a query template can name.
pub const QUERY: &[&str] = &[
    "startime",
    "endtime",
    "interval",
    "rule",
    "rule_id",
    "rule_level",
    "rule_group",
    "datasource",
    "data",
    "detector",
];
/// What a rule's description can name.
pub const DESCRIPTION: &[&str] = &["rule", "detector", "data"];
/// What a webhook's template can name.
pub const MESSAGE: &[&str] =
    &["rule", "data", "detector", "datasource", "time", "clickagentic", "triage", "triage_error", "alert"];

/// The Jinja environment that every template of ours runs in: Python's printing and methods, the filters
/// `to_list`, `to_list_like` and `tojson`, and a limit of fuel. Clones share what is big.
pub fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_debug(false);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python::method);
    environment.set_formatter(|out, _, value| {
        if !value.is_undefined() {
            out.write_str(&python::text(value))?;
        }
        Ok(())
    });
    environment.add_filter("to_list", to_list);
    environment.add_filter("to_list_like", to_list_like);
    environment.add_filter("tojson", |value: Value| python::json(&value));
    environment
}

/// About a second at the very most, and tens of megabytes; a query takes some hundreds.
const FUEL: u64 = 500_000;

/// `a, b`
fn to_list(value: Value) -> Result<String, Error> {
    let items: Vec<String> = python::items(&value)?.iter().map(python::text).collect();
    Ok(items.join(", "))
}

/// `'a', 'b'`, a quote inside an item doubled, so that an item cannot end its own text in SQL (clickdetect left it
/// as it was).
fn to_list_like(value: Value) -> Result<String, Error> {
    let items: Vec<String> = (python::items(&value)?.iter())
        .map(|item| format!("'{}'", python::text(item).replace('\'', "''")))
        .collect();
    Ok(items.join(", "))
}

/// A rule's query and description. Kept as text and compiled whenever they are rendered: that takes microseconds
/// beside a query's hundreds, and a compiled template takes 12 kB, for each of a thousand rules.
#[derive(Debug)]
pub struct Query {
    environment: Environment<'static>,
    query: String,
    description: String,
    rule: Value,
    data: Value,
    id: Value,
    level: Value,
    group: Value,
}

/// What a query is rendered for.
pub struct Context<'a> {
    pub window: Window,
    /// The detector's `for`, as it was written.
    pub interval: &'a str,
    /// The detector's fields, by [`value`].
    pub detector: Value,
    /// The datasource's non-secret settings, by [`value`].
    pub datasource: Value,
}

/// A template value of a JSON object, with Python's printing.
pub fn value(map: &Map<String, Json>) -> Value {
    python::map(map)
}

/// What a message's template sees of `variables`: its objects print as JSON, what is inside of them as in Python, as
/// clickdetect's do.
pub fn message(variables: &Map<String, Json>) -> Value {
    python::message(variables)
}

/// Python's `str(value)`.
pub fn text(value: &Value) -> String {
    python::text(value)
}

/// What Python iterates over: items of a list, keys of a dict, characters of a text.
pub fn items(value: &Value) -> Result<Vec<Value>, Error> {
    python::items(value)
}

/// Python's `json.dumps(value)`, what the filter `tojson` gives.
pub fn json(value: &Value) -> Result<String, Error> {
    python::json(value)
}

impl Query {
    /// A rule's templates, with an [`environment`] that all rules share. Fails on what is not Jinja; a rule that
    /// was loaded does not fail.
    pub fn compile(rule: &Rule, environment: &Environment<'static>) -> Result<Self, Diagnostic> {
        for (name, source) in [(QUERY_NAME, &rule.rule), (DESCRIPTION_NAME, &rule.description)] {
            environment.template_from_named_str(name, source).map_err(|error| Diagnostic {
                path: name.into(),
                ..Diagnostic::of_file(rule.path.to_string_lossy(), Severity::Error, not_jinja(&error))
            })?;
        }
        Ok(Self {
            environment: environment.clone(),
            query: rule.rule.clone(),
            description: rule.description.clone(),
            rule: python::map(&rule.to_map()),
            data: python::value(&rule.data),
            id: rule.id.as_str().into(),
            level: u64::from(rule.level.get()).into(),
            group: rule.group.as_str().into(),
        })
    }

    /// The query for a window.
    pub fn render(&self, context: &Context<'_>) -> Result<String, RenderError> {
        self.render_template(
            QUERY_NAME,
            &self.query,
            minijinja::context! {
                startime => context.window.start.as_second().to_string(),
                endtime => context.window.end.as_second().to_string(),
                interval => context.interval,
                rule => self.rule.clone(),
                rule_id => self.id.clone(),
                rule_level => self.level.clone(),
                rule_group => self.group.clone(),
                datasource => context.datasource.clone(),
                data => self.data.clone(),
                detector => context.detector.clone(),
            },
        )
    }

    /// The description, as an alert carries it.
    pub fn render_description(&self, detector: &Value) -> Result<String, RenderError> {
        let context = minijinja::context! { rule => self.rule.clone(), detector => detector.clone(), data => self.data.clone() };
        self.render_template(DESCRIPTION_NAME, &self.description, context)
    }

    fn render_template(&self, name: &str, source: &str, context: Value) -> Result<String, RenderError> {
        Ok(self.environment.render_named_str(name, source, context)?)
    }
}

const QUERY_NAME: &str = "rule";
const DESCRIPTION_NAME: &str = "description";

/// Why a template gave no text.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// It ran too long or grew too large.
    #[error("line {line} of the template: it takes more than {FUEL} steps, make it shorter")]
    RanAway { line: usize },
    #[error("line {line} of the template: {reason}")]
    Failed { line: usize, reason: String },
}

impl From<Error> for RenderError {
    fn from(error: Error) -> Self {
        let line = error.line().unwrap_or(1);
        match error.kind() {
            ErrorKind::OutOfFuel => Self::RanAway { line },
            _ => Self::Failed { line, reason: words_of(&error) },
        }
    }
}

/// Notes what is wrong with the template `source`, the text of `node`: its syntax, filters and tests that do not
/// exist, and (a warning) names that are not in `names`. Whether it can be used.
pub fn check(
    source: &str,
    node: &Node,
    names: &[&str],
    environment: &Environment<'static>,
    reader: &mut Reader<'_>,
) -> bool {
    if !source.contains('{') {
        return true;
    }
    let place = |offset: usize, reader: &Reader<'_>| {
        let before = source.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
        (line, node.position_within(reader.source(), line, column))
    };
    let template = match environment.template_from_named_str("template", source) {
        Ok(template) => template,
        Err(error) => {
            let offset = error.range().map_or_else(|| line_start(source, error.line()), |range| range.start);
            let (line, at) = place(offset, reader);
            let message = not_jinja(&error);
            let moved = at == node.at && line > 1;
            reader.error(at, if moved { format!("line {line} of the template: {message}") } else { message });
            return false;
        }
    };
    let words = words(source);
    let mut is_good = true;
    let mut state = environment.empty_state();
    for word in &words {
        let (noun, result) = match word.role {
            Role::Filter => ("filter", state.apply_filter(word.text, &[]).map(|_| ())),
            Role::Test => ("test", state.perform_test(word.text, &[]).map(|_| ())),
            _ => continue,
        };
        let Err(error) = result else { continue };
        if matches!(error.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownTest) {
            let (_, at) = place(word.offset, reader);
            let near =
                if noun == "filter" { suggestion(word.text, FILTERS.iter().copied()) } else { String::new() };
            reader.error(at, format!("no {noun} is called `{}`{near}", word.text));
            is_good = false;
        }
    }
    let undeclared = template.undeclared_variables(false);
    let mut unknown: Vec<&str> = undeclared
        .iter()
        .map(String::as_str)
        .filter(|name| !names.contains(name) && !environment.globals().any(|(global, _)| global == *name))
        .collect();
    unknown.sort_unstable();
    for name in unknown {
        let first = words.iter().find(|word| word.role == Role::Name && word.text == name);
        let at = first.map_or(node.at, |word| place(word.offset, reader).1);
        let near = match suggestion(name, names.iter().copied()) {
            near if near.is_empty() => format!("; there is {}", crate::config::list(names.iter().copied())),
            near => near,
        };
        reader.warn(at, format!("nothing is called `{name}` here, it will be empty{near}"));
    }
    is_good
}

/// For suggestions; not the complete list.
const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "batch",
    "bool",
    "capitalize",
    "default",
    "dictsort",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "to_list",
    "to_list_like",
    "tojson",
    "trim",
    "unique",
    "upper",
    "urlencode",
];

/// The offset of a line counted from 1.
fn line_start(source: &str, line: Option<usize>) -> usize {
    let before = line.unwrap_or(1).saturating_sub(1);
    source.split_inclusive('\n').take(before).map(str::len).sum()
}

fn not_jinja(error: &Error) -> String {
    format!("not a Jinja template: {}", words_of(error))
}

fn words_of(error: &Error) -> String {
    match error.detail() {
        Some(detail) if error.kind() == ErrorKind::SyntaxError => detail.to_owned(),
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

#[cfg(test)]
mod tests;
