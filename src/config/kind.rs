//! Choosing a kind by its `type`.

use serde_json::{Map, Value as Json};

use super::diagnostic::suggestion;
use super::read::{Field, FromYaml, Reader, clip, list};
use super::yaml::{Node, Value};

/// One kind of a family, for `list` and reference pages.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub name: &'static str,
    pub about: &'static str,
    pub fields: &'static [Field],
    /// [`Section::REFUSED`](super::Section::REFUSED).
    pub refused: &'static [(&'static str, &'static str)],
}

/// What [`kinds!`](crate::config::kinds!) knows of a family.
pub struct KindTable {
    pub family: &'static str,
    pub about: &'static str,
    pub kinds: &'static [Kind],
    /// Where there is no `type`.
    pub default: &'static str,
}

impl KindTable {
    /// The kind that `type` names, and the settings without it.
    pub fn choose(&self, node: &Node, reader: &mut Reader<'_>) -> Option<(&'static str, Node)> {
        let entries = match &node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Scalar(_) if node.is_null() => &[],
            _ => return reader.refuse(node, "a map with a `type`"),
        };
        let named = entries.iter().find(|entry| entry.key == "type");
        let name = match named {
            Some(entry) => reader.within("type", |reader| String::from_yaml(&entry.value, reader))?,
            None => self.default.to_owned(),
        };
        if let Some(kind) = self.kinds.iter().find(|kind| kind.name == name) {
            let settings = entries.iter().filter(|entry| entry.key != "type").cloned().collect();
            return Some((kind.name, Node { at: node.at, value: Value::Map(settings) }));
        }
        let at = named.map_or(node.at, |entry| entry.value.at);
        let kinds = || self.kinds.iter().map(|kind| kind.name);
        let hint = match suggestion(&name, kinds()) {
            near if near.is_empty() => format!("; there is {}", list(kinds())),
            near => near,
        };
        let message = format!("no {} is called `{}`{hint}", self.family, clip(&name));
        reader.within("type", |reader| reader.error(at, message));
        None
    }
}

/// `settings` with `type` in front.
pub fn tagged(kind: &str, settings: Json) -> Json {
    let mut map = Map::new();
    map.insert("type".into(), kind.into());
    if let Json::Object(settings) = settings {
        map.extend(settings);
    }
    map.into()
}
