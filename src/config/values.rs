//! Values that only a runner has.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::diagnostic::suggestion;
use super::read::{Field, FromYaml, Reader, Section as _, clip};
use super::yaml::{Node, Position, Value};
use super::{schema, units};
use crate::triage;

/// Values by name, in the file's order.
#[derive(Clone, Debug, PartialEq)]
pub struct Named<T>(pub Vec<(String, T)>);

impl<T: FromYaml> FromYaml for Named<T> {
    const TYPE: &'static str = "map by name";
    const INSIDE: &'static [Field] = T::INSIDE;

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(entries) = node.entries() else { return reader.refuse(node, "a map of `name: ...`") };
        let read: Vec<_> = entries
            .iter()
            .map(|entry| {
                let value = reader.within(&entry.key, |reader| match T::from_yaml(&entry.value, reader) {
                    Some(_) if entry.key.trim().is_empty() => {
                        reader.error(entry.at, "this has no name");
                        None
                    }
                    read => read,
                });
                Some((entry.key.clone(), value?))
            })
            .collect();
        read.into_iter().collect::<Option<_>>().map(Self)
    }

    fn to_json(&self) -> Json {
        self.0.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
    }
}

/// `true`, `false` or the settings of triage.
#[derive(Clone, Debug, PartialEq)]
pub struct Switch(pub Option<triage::Config>);

impl FromYaml for Switch {
    const TYPE: &'static str = "boolean | triage";
    const INSIDE: &'static [Field] = triage::Config::FIELDS;

    fn schema() -> Json {
        json!({ "anyOf": [schema::boolean(), { "$ref": "#/$defs/triage" }] })
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        if matches!(node.value, Value::Scalar(_)) {
            let is_on = bool::from_yaml(node, reader)?;
            let mut defaults = || triage::Config::from_yaml(&Node::default_of("{}", node.at), reader);
            return if is_on { defaults().map(Some).map(Self) } else { Some(Self(None)) };
        }
        triage::Config::from_yaml(node, reader).map(Some).map(Self)
    }

    fn to_json(&self) -> Json {
        self.0.as_ref().map_or(Json::Bool(false), FromYaml::to_json)
    }
}

/// clickdetect's `plugins`.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugins {
    pub clickagentic: Option<Switch>,
}

impl FromYaml for Plugins {
    const TYPE: &'static str = "map by name";

    fn schema() -> Json {
        json!({
            "type": "object",
            "properties": { "clickagentic": Switch::schema() },
            "additionalProperties": false,
        })
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(entries) = node.entries() else { return reader.refuse(node, "a map of `plugin: settings`") };
        let mut plugins = Self { clickagentic: None };
        let mut is_good = true;
        for entry in entries {
            reader.within(&entry.key, |reader| {
                if entry.key == "clickagentic" {
                    plugins.clickagentic = Switch::from_yaml(&entry.value, reader);
                    is_good &= plugins.clickagentic.is_some();
                } else {
                    let near = suggestion(&entry.key, ["clickagentic"]);
                    let name = clip(&entry.key);
                    reader.error(
                        entry.at,
                        format!("the plugin `{name}` is not built yet; there is `clickagentic`{near}"),
                    );
                    is_good = false;
                }
            });
        }
        is_good.then_some(plugins)
    }

    fn to_json(&self) -> Json {
        self.clickagentic.iter().map(|switch| ("clickagentic".to_owned(), switch.to_json())).collect()
    }
}

/// Paths and globs, and where each stands in the runner.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patterns(pub Vec<(String, Position)>);

impl Patterns {
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(text, _)| text.as_str())
    }
}

impl FromYaml for Patterns {
    const TYPE: &'static str = "list of paths";

    fn schema() -> Json {
        Vec::<String>::schema()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let texts = Vec::<String>::from_yaml(node, reader)?;
        let places: Vec<Position> = match &node.value {
            Value::List(items) => items.iter().map(|item| item.at).collect(),
            _ => vec![node.at],
        };
        Some(Self(texts.into_iter().zip(places).collect()))
    }

    fn to_json(&self) -> Json {
        self.texts().collect()
    }
}

/// `for`: kept as it was written, since rules see it as `{{ interval }}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Interval {
    pub text: String,
    pub duration: Duration,
}

impl FromYaml for Interval {
    const TYPE: &'static str = "duration";

    fn schema() -> Json {
        schema::pattern(r"^\s*[0-9.]+\s*(s|m|h|d|w|mo|y)\s*$")
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::from_yaml(node, reader)?;
        match units::duration(&text) {
            Ok(duration) if duration >= Duration::from_secs(1) => Some(Self { text, duration }),
            Ok(_) => reader.refuse(node, "at least `1s`"),
            Err(message) => {
                reader.error(node.at, message);
                None
            }
        }
    }

    fn to_json(&self) -> Json {
        self.text.as_str().into()
    }
}
