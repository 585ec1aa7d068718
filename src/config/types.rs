//! The types that every section uses, as files give them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::Secret;
use super::read::{Field, FromYaml, Reader};
use super::yaml::{Node, Resolved, Scalar, Style, Value};
use super::{schema, units};

/// Reads a scalar by `parse`, and notes that it is not `what` where that fails.
fn scalar<T>(
    node: &Node,
    reader: &mut Reader<'_>,
    what: &str,
    parse: impl FnOnce(&Scalar) -> Option<T>,
) -> Option<T> {
    let scalar = reader.scalar(node).ok()?;
    match scalar.filter(|scalar| !(scalar.resolve() == Resolved::Null)) {
        // What came from the environment or a file may be a secret: the message does not repeat it.
        Some(scalar) => parse(&scalar).or_else(|| match scalar.style {
            Style::Fetched => {
                reader.error(node.at, format!("`***` is not {what}"));
                None
            }
            _ => reader.refuse(node, what),
        }),
        None => reader.refuse(node, what),
    }
}

impl FromYaml for String {
    const TYPE: &'static str = "text";

    fn schema() -> Json {
        schema::text()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        scalar(node, reader, "a text", |scalar| Some(scalar.text.clone()))
    }

    fn to_json(&self) -> Json {
        self.as_str().into()
    }
}

impl FromYaml for bool {
    const TYPE: &'static str = "boolean";

    fn schema() -> Json {
        schema::boolean()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        scalar(node, reader, "a boolean: write `true` or `false`", |scalar| match scalar.resolve() {
            Resolved::Bool(value) => Some(value),
            _ => None,
        })
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

impl FromYaml for u64 {
    const TYPE: &'static str = "number";

    fn schema() -> Json {
        schema::whole(0, u64::MAX)
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        scalar(node, reader, "a whole number, 0 or more", |scalar| {
            let plain = Scalar { text: scalar.text.trim().into(), style: Style::Plain };
            match plain.resolve() {
                Resolved::Int(value) => value.try_into().ok(),
                _ => None,
            }
        })
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

impl FromYaml for u8 {
    const TYPE: &'static str = "number";

    fn schema() -> Json {
        schema::whole(0, u8::MAX.into())
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let number = u64::from_yaml(node, reader)?;
        number.try_into().ok().or_else(|| reader.refuse(node, "a number from 0 to 255"))
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

impl FromYaml for u16 {
    const TYPE: &'static str = "number";

    fn schema() -> serde_json::Value {
        schema::whole(0, u16::MAX.into())
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let number = u64::from_yaml(node, reader)?;
        number.try_into().ok().or_else(|| reader.refuse(node, "a number from 0 to 65535"))
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

impl FromYaml for u32 {
    const TYPE: &'static str = "number";

    fn schema() -> Json {
        schema::whole(0, u32::MAX.into())
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let number = u64::from_yaml(node, reader)?;
        number.try_into().ok().or_else(|| reader.refuse(node, "a number from 0 to 4294967295"))
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

impl FromYaml for f64 {
    const TYPE: &'static str = "number";

    fn schema() -> Json {
        schema::number(json!({}))
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        scalar(node, reader, "a number, e.g. 0.95", |scalar| {
            let plain = Scalar { text: scalar.text.trim().into(), style: Style::Plain };
            match plain.resolve() {
                Resolved::Int(value) => Some(value as f64),
                Resolved::Float(value) => Some(value).filter(|value| value.is_finite()),
                _ => None,
            }
        })
    }

    fn to_json(&self) -> Json {
        (*self).into()
    }
}

impl FromYaml for usize {
    const TYPE: &'static str = "number";

    fn schema() -> Json {
        schema::whole(0, usize::MAX as u64)
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let number = u64::from_yaml(node, reader)?;
        number.try_into().ok().or_else(|| reader.refuse(node, "a number this machine can count to"))
    }

    fn to_json(&self) -> Json {
        (*self as u64).into()
    }
}

/// `30s`, `1.5h`, or a bare number of seconds, as clickdetect writes its time-outs.
impl FromYaml for Duration {
    const TYPE: &'static str = "duration";

    fn schema() -> Json {
        schema::duration()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let scalar = match reader.scalar(node).ok()? {
            Some(scalar) if scalar.resolve() != Resolved::Null => scalar,
            _ => return reader.refuse(node, units::DURATION),
        };
        match units::duration_or_seconds(&scalar.text) {
            Ok(duration) => Some(duration),
            Err(message) => {
                reader.error(node.at, message);
                None
            }
        }
    }

    fn to_json(&self) -> Json {
        units::duration_text(*self).into()
    }
}

impl FromYaml for Secret {
    const TYPE: &'static str = "secret";

    fn schema() -> Json {
        schema::text()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        // A wrong secret is not repeated in a message.
        match reader.scalar(node).ok()? {
            Some(scalar) if scalar.resolve() != Resolved::Null => Some(Self::new(scalar.text.clone())),
            _ => {
                let what = "a text, `{env: NAME}` or `{file: PATH}`";
                reader.error(node.at, format!("a secret stands here: write {what}"));
                None
            }
        }
    }

    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}

/// A relative path is relative to the file that names it.
impl FromYaml for PathBuf {
    const TYPE: &'static str = "path";

    fn schema() -> Json {
        schema::text()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let path = String::from_yaml(node, reader)?;
        if path.is_empty() || path.contains('\0') {
            return reader.refuse(node, "a path");
        }
        Some(reader.dir().join(path))
    }

    fn to_json(&self) -> Json {
        self.to_string_lossy().into()
    }
}

impl<T: FromYaml> FromYaml for Option<T> {
    const TYPE: &'static str = T::TYPE;
    const OPTIONAL: bool = true;
    const INSIDE: &'static [Field] = T::INSIDE;

    fn schema() -> Json {
        T::schema()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        T::from_yaml(node, reader).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn to_json(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::to_json)
    }
}

/// A single text is a list of one.
impl FromYaml for Vec<String> {
    const TYPE: &'static str = "list of texts";

    fn schema() -> Json {
        schema::list_or_one(schema::text())
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.value {
            Value::List(items) => {
                let read: Vec<_> = (items.iter().enumerate())
                    .map(|(index, item)| reader.within_item(index, |reader| String::from_yaml(item, reader)))
                    .collect();
                read.into_iter().collect()
            }
            _ => scalar(node, reader, "a list of texts", |scalar| Some(vec![scalar.text.clone()])),
        }
    }

    fn to_json(&self) -> Json {
        self.iter().map(String::as_str).collect()
    }
}

impl<T: FromYaml> FromYaml for BTreeMap<String, T> {
    const TYPE: &'static str = "map";
    const INSIDE: &'static [Field] = T::INSIDE;

    fn schema() -> Json {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(entries) = node.entries() else {
            return reader.refuse(node, "a map of `name: value` lines");
        };
        let read: Vec<_> = entries
            .iter()
            .map(|entry| {
                reader.within(&entry.key, |reader| {
                    Some((entry.key.clone(), T::from_yaml(&entry.value, reader)?))
                })
            })
            .collect();
        read.into_iter().collect()
    }

    fn to_json(&self) -> Json {
        self.iter().map(|(key, value)| (key.clone(), value.to_json())).collect()
    }
}

/// Anything, typed as PyYAML types it. The value itself is never `{env: NAME}`, what is inside can be: `data:
/// {env: production}` is the operator's own data.
impl FromYaml for Json {
    const TYPE: &'static str = "anything";

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        Some(match &node.value {
            Value::Scalar(scalar) => untyped(scalar),
            Value::List(items) => {
                let read: Vec<_> = (items.iter().enumerate())
                    .map(|(index, item)| reader.within_item(index, |reader| inner(item, reader)))
                    .collect();
                Self::Array(read.into_iter().collect::<Option<_>>()?)
            }
            Value::Map(entries) => {
                let read: Vec<_> = entries
                    .iter()
                    .map(|entry| {
                        reader.within(&entry.key, |reader| {
                            Some((entry.key.clone(), inner(&entry.value, reader)?))
                        })
                    })
                    .collect();
                Self::Object(read.into_iter().collect::<Option<Map<_, _>>>()?)
            }
        })
    }

    fn to_json(&self) -> Json {
        self.clone()
    }
}

fn inner(node: &Node, reader: &mut Reader<'_>) -> Option<Json> {
    if reader.reference(node).is_some() {
        return reader.scalar(node).ok()?.map(|scalar| Json::String(scalar.text.clone()));
    }
    Json::from_yaml(node, reader)
}

pub(super) fn untyped(scalar: &Scalar) -> Json {
    match scalar.resolve() {
        Resolved::Null => Json::Null,
        Resolved::Bool(value) => value.into(),
        Resolved::Int(value) => match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => value.into(),
            (_, Ok(value)) => value.into(),
            _ => scalar.text.as_str().into(),
        },
        // JSON has no infinity.
        Resolved::Float(value) => {
            serde_json::Number::from_f64(value).map_or_else(|| scalar.text.as_str().into(), Json::Number)
        }
        Resolved::Text => scalar.text.as_str().into(),
    }
}
