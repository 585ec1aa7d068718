//! From paths and globs to rules. A bad file takes no other down and never vanishes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use minijinja::Environment;
use serde_json::{Value as Json, json};

use super::template;
use super::{Level, Rule, Size};
use crate::config::yaml::{self, Node, Position, Resolved, Style};
use crate::config::{
    Detector, Diagnostic, FromYaml, Patterns, Reader, Runner, Severity, not_sigma, read_text, schema, section,
};

/// The rules of one detector, and what is to be said about them.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// Good rules, active or not; every id once. In the order of the detector's patterns, then of paths.
    pub rules: Vec<Rule>,
    /// Files that give no rule.
    pub broken: Vec<Broken>,
    /// All else: second rules of one id, patterns that match nothing, warnings of good rules.
    pub diagnostics: Vec<Diagnostic>,
}

/// A file that gives no rule, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    pub path: PathBuf,
    /// Never empty.
    pub diagnostics: Vec<Diagnostic>,
}

/// Whose rules are loaded.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The runner's file, as diagnostics show it.
    pub file: &'a str,
    /// What patterns start from.
    pub dir: &'a Path,
    /// The detector's key.
    pub detector: &'a str,
    pub patterns: &'a Patterns,
    /// Names of the runner's datasources.
    pub datasources: &'a [String],
}

impl RuleSet {
    /// The rules of a detector. `environment` is [`template::environment`], shared by all.
    pub fn load(runner: &Runner, detector: &Detector, environment: &Environment<'static>) -> Self {
        let datasources: Vec<String> = runner.datasources.iter().map(|(name, _)| name.clone()).collect();
        let file = runner.path.to_string_lossy();
        let scope = Scope {
            file: &file,
            dir: &runner.dir,
            detector: &detector.key,
            patterns: &detector.rules,
            datasources: &datasources,
        };
        Self::load_scope(scope, environment)
    }

    /// The rules of a detector whose runner may be broken elsewhere.
    pub fn load_scope(scope: Scope<'_>, environment: &Environment<'static>) -> Self {
        let mut set = Self::default();
        // By id: which file has it.
        let mut taken: HashMap<String, String> = HashMap::new();
        for path in find(scope, &mut set.diagnostics) {
            match load_file(&path, scope.datasources, environment) {
                Err(broken) => set.broken.push(broken),
                Ok(loaded) => {
                    set.diagnostics.extend(loaded.warnings);
                    let shown = path.to_string_lossy().into_owned();
                    if let Some(first) = taken.get(&loaded.rule.id) {
                        let message = format!(
                            "`{}` is also the id of `{first}`, which counts in detector `{}`: this rule does not \
                             run there, give it an id of its own",
                            loaded.rule.id, scope.detector
                        );
                        set.diagnostics.push(Diagnostic {
                            at: Some(loaded.id_at),
                            path: "id".into(),
                            ..Diagnostic::of_file(shown, Severity::Warning, message)
                        });
                        continue;
                    }
                    taken.insert(loaded.rule.id.clone(), shown);
                    set.rules.push(loaded.rule);
                }
            }
        }
        set
    }

    /// Everything there is to say, broken files first.
    pub fn all_diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.broken.iter().flat_map(|broken| &broken.diagnostics).chain(&self.diagnostics)
    }
}

/// A rule that can run.
#[derive(Debug)]
pub struct LoadedRule {
    pub rule: Rule,
    /// Where its id stands.
    pub id_at: Position,
    pub warnings: Vec<Diagnostic>,
}

/// The files that a detector's patterns reach, each once; what is wrong with a pattern is noted.
pub fn find(scope: Scope<'_>, diagnostics: &mut Vec<Diagnostic>) -> Vec<PathBuf> {
    super::glob::find(scope, diagnostics)
}

/// Reads one rule file. `datasources` are the names that the rule may use.
pub fn load_file(
    path: &Path,
    datasources: &[String],
    environment: &Environment<'static>,
) -> Result<LoadedRule, Broken> {
    let shown = path.to_string_lossy();
    let broken = |diagnostics| Broken { path: path.to_owned(), diagnostics };
    let text = read_text(path, yaml::MAX_BYTES as u64)
        .map_err(|unreadable| broken(vec![unreadable.diagnostic(&shown)]))?;
    parse(path, &shown, &text, datasources, environment).map_err(broken)
}

/// Reads the text of a rule that stands at `path`; diagnostics call it `shown`.
pub fn parse(
    path: &Path,
    shown: &str,
    text: &str,
    datasources: &[String],
    environment: &Environment<'static>,
) -> Result<LoadedRule, Vec<Diagnostic>> {
    let dir = path.parent().unwrap_or(Path::new(""));
    // Rules come from elsewhere more often than a runner: they cannot read the environment or files.
    let mut reader = Reader::new(shown, text, dir, None);
    reader.declare("datasource", datasources.to_vec());
    let root = reader.parse();
    let section = root.as_ref().and_then(|root| read(root, environment, &mut reader));
    let mut diagnostics = reader.into_diagnostics();
    diagnostics.sort_by_key(|diagnostic| diagnostic.at);
    let is_good = !diagnostics.iter().any(Diagnostic::is_error);
    match section.filter(|_| is_good) {
        Some(section) => {
            let id_at =
                root.as_ref().and_then(|root| root.get("id")).map_or_else(Position::default, |id| id.at);
            Ok(LoadedRule { rule: section.of_file(path), id_at, warnings: diagnostics })
        }
        None => Err(diagnostics),
    }
}

fn read(root: &Node, environment: &Environment<'static>, reader: &mut Reader<'_>) -> Option<RuleSection> {
    if root.is_null() {
        reader.error(root.at, "the file is empty: it needs `id`, `name`, `level` and `rule`");
        return None;
    }
    for (key, names) in [("rule", template::QUERY), ("description", template::DESCRIPTION)] {
        if let Some(node) = root.get(key)
            && let Some(scalar) = node.scalar()
        {
            reader.within(key, |reader| template::check(&scalar.text, node, names, environment, reader));
        }
    }
    let section = RuleSection::from_yaml(root, reader)?;
    if let Some(column) = section.clean.iter().find(|column| section.tainted.contains(column))
        && let Some(clean) = root.get("clean")
    {
        let column = crate::config::clip(column);
        reader.error(clean.at, format!("`{column}` is in both `clean` and `tainted`: keep one"));
    }
    Some(section)
}

section! {
    /// A rule: what to search for, and when a result is an alert.
    pub struct RuleSection {
        /// Unique in its detector. Quote it: `001` without quotes is the number 1.
        pub id: Id,
        /// For people.
        #[read(text)]
        pub name: String,
        /// 0-100, or `informational`, `low`, `medium`, `high`, `critical` (10, 30, 50, 75, 90).
        pub level: Level,
        /// How many rows make an alert: `>`, `>=`, `<`, `<=` or `==` and a number, quoted, e.g. `">5"`.
        pub size: Size = ">0",
        /// Whether it runs.
        pub active: bool = "true",
        /// The query, a Jinja template, e.g. `SELECT * FROM auth WHERE time >= {{ startime }}`.
        #[read(text)]
        pub rule: String,
        /// Who wrote it.
        pub author: Vec<String> = "[]",
        /// What it belongs to, `{{ rule_group }}` in templates.
        pub group: String = "",
        /// Words to find it by.
        pub tags: Vec<String> = "[]",
        /// What it means for whoever reads the alert, a Jinja template.
        pub description: String = "",
        /// Your own values, `{{ data.threshold }}` in templates.
        pub data: Json = "{}",
        /// Columns that attackers can write although their names do not say so, e.g. `[user]`; also inside of maps.
        #[read(columns)]
        pub tainted: Vec<String> = "[]",
        /// Columns that attackers cannot write although their names do not say so, e.g. `[department, cloud.arn]`, as whole
        /// paths. Their cells count as clean where they are short and without blanks.
        #[read(columns)]
        pub clean: Vec<String> = "[]",
        /// Whether `rule` is a Sigma rule. Only `false` so far.
        #[read(not_sigma)]
        pub sigma: bool = "false",
        /// Name of the datasource; by default the detector's.
        #[read(datasource_name)]
        pub datasource: Option<String>,
    }
}

impl RuleSection {
    fn of_file(self, path: &Path) -> Rule {
        Rule {
            id: self.id.0,
            name: self.name,
            level: self.level,
            size: self.size,
            active: self.active,
            rule: self.rule,
            author: self.author,
            group: self.group,
            tags: self.tags,
            description: self.description,
            data: self.data,
            tainted: self.tainted,
            clean: self.clean,
            datasource: self.datasource,
            path: path.to_owned(),
        }
    }
}

/// A rule's id: text, or what Python's `str()` makes of PyYAML's value.
#[derive(Clone, Debug, PartialEq)]
pub struct Id(pub String);

impl FromYaml for Id {
    const TYPE: &'static str = "text";

    fn schema() -> Json {
        schema::text()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let written = text(node, reader)?;
        let id = match node.scalar().map(|scalar| scalar.resolve()) {
            Some(Resolved::Int(number)) => number.to_string(),
            Some(Resolved::Bool(true)) => "True".into(),
            Some(Resolved::Bool(false)) => "False".into(),
            Some(Resolved::Float(number)) => super::python::float(number),
            _ => return Some(Self(written)),
        };
        if id != written {
            let message =
                format!("`{written}` without quotes is `{id}`: quote it if that is not meant, \"{written}\"");
            reader.warn(node.at, message);
        }
        Some(Self(id))
    }

    fn to_json(&self) -> Json {
        self.0.as_str().into()
    }
}

impl FromYaml for Level {
    const TYPE: &'static str = "level";

    fn schema() -> Json {
        let words = ["informational", "low", "medium", "high", "critical"];
        let text = json!({ "type": "string", "pattern": r"^\s*([0-9]+|[a-zA-Z]+)\s*$" });
        json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 100 }, { "enum": words }, text] })
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        const LEVEL: &str =
            "a level: a number from 0 to 100, or `informational`, `low`, `medium`, `high`, `critical`";
        let level = match node.scalar().map(|scalar| (scalar, scalar.resolve())) {
            Some((_, Resolved::Int(number))) => u64::try_from(number).ok().and_then(Self::new),
            Some((scalar, Resolved::Text)) => scalar.text.parse().ok(),
            _ => None,
        };
        level.or_else(|| reader.refuse(node, LEVEL))
    }

    fn to_json(&self) -> Json {
        self.get().into()
    }
}

impl FromYaml for Size {
    const TYPE: &'static str = "size";

    fn schema() -> Json {
        json!({ "type": "string", "pattern": r"^\s*(>=|<=|==|>|<)\s*[0-9]+\s*$" })
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(scalar) = node.scalar() else {
            return reader.refuse(node, "an operator and a row count, e.g. \">5\"");
        };
        // An unquoted `>5` is the head of a folded block to YAML, with the empty text in it.
        if scalar.style == Style::Folded && scalar.text.trim().is_empty() {
            let line = reader.source().lines().nth(node.at.line - 1).unwrap_or_default();
            let written: String = line.chars().skip(node.at.column - 1).collect();
            let written = written.split('#').next().unwrap_or_default().trim();
            reader.error(node.at, yaml::not_a_size(written));
            return None;
        }
        scalar.text.parse().ok().or_else(|| {
            reader.error(node.at, yaml::not_a_size(&crate::config::clip(&scalar.text)));
            None
        })
    }

    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}

/// A text that says something.
fn text(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let text = String::from_yaml(node, reader)?;
    if text.trim().is_empty() { reader.refuse(node, "a text with something in it") } else { Some(text) }
}

/// Names of columns.
fn columns(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let columns = Vec::<String>::from_yaml(node, reader)?;
    if columns.iter().all(|column| column.chars().any(char::is_alphanumeric)) {
        Some(columns)
    } else {
        reader.refuse(node, "names of columns with letters or digits, e.g. `[user, data.srcip]`")
    }
}

fn datasource_name(node: &Node, reader: &mut Reader<'_>) -> Option<Option<String>> {
    let name = String::from_yaml(node, reader)?;
    reader.check_name("datasource", &name, node.at).then_some(Some(name))
}
