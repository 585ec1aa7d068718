//! Standard output.

use serde_json::Value as Json;

use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, section};

section! {
    /// Writes each alert to standard output.
    pub struct Config {
        /// `text`: a readable block an alert; `json`: a line of JSON an alert.
        pub format: Format = "text",
    }
}

/// How `stdout` writes an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl FromYaml for Format {
    const TYPE: &'static str = "text | json";

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        match String::from_yaml(node, reader)?.as_str() {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => reader.refuse(node, "a format: write `text` or `json`"),
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Text => "text".into(),
            Self::Json => "json".into(),
        }
    }
}
