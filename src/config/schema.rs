//! JSON schemas (draft 2020-12) of the files, for editors. They say what the reader takes, and are made from the same
//! declarations; where a reader is stricter than a schema can say, the reader has the last word.

use serde_json::{Map, Value as Json, json};

use super::kind::KindTable;
use super::read::{Field, FromYaml as _, Section, prose};
use super::runner::RunnerSection;
use super::types::untyped;
use super::yaml::Node;
use crate::rule::load::RuleSection;
use crate::{datasource, triage, webhook};

/// The schema of `runner.yml`.
pub fn runner() -> Json {
    let defs = json!({
        "reference": {
            "description": "A value that is fetched: from the environment, or from a file beside this one.",
            "oneOf": [single("env"), single("file")],
        },
        "datasource": datasource::Config::definition(),
        "webhook": webhook::Config::definition(),
        "triage": triage::Config::schema(),
    });
    document("Watchpost's runner.yml", RunnerSection::schema(), defs)
}

/// The schema of a rule file.
pub fn rule() -> Json {
    // Rules are given nothing of the environment, nor of other files.
    document("A rule of Watchpost", RuleSection::schema(), json!({ "reference": false }))
}

fn document(title: &str, section: Json, defs: Json) -> Json {
    let mut document = Map::new();
    document.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    document.insert("title".into(), title.into());
    if let Json::Object(section) = section {
        document.extend(section);
    }
    document.insert("$defs".into(), defs);
    document.into()
}

fn single(key: &str) -> Json {
    json!({
        "type": "object",
        "properties": { key: { "type": "string" } },
        "required": [key],
        "additionalProperties": false,
    })
}

/// A scalar of the shape `shape`, or where it is fetched from.
pub fn scalar(shape: Json) -> Json {
    json!({ "anyOf": [shape, { "$ref": "#/$defs/reference" }] })
}

/// A text; YAML reads one without quotes as a number or a boolean where it looks like one.
pub fn text() -> Json {
    scalar(json!({ "type": ["string", "number", "boolean"] }))
}

/// A text that `pattern`, a regular expression, fits.
pub fn pattern(pattern: &str) -> Json {
    scalar(json!({ "type": "string", "pattern": pattern }))
}

/// One of some words.
pub fn words(words: &[&str]) -> Json {
    scalar(json!({ "enum": words }))
}

/// As PyYAML reads one; YAML 1.2, which most editors read, calls the words text.
pub fn boolean() -> Json {
    let words = ["yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"];
    scalar(json!({ "anyOf": [{ "type": "boolean" }, { "enum": words }] }))
}

/// A whole number, quoted or not; `u64::MAX` is without an upper end.
pub fn whole(least: u64, most: u64) -> Json {
    let mut number = json!({ "type": "integer", "minimum": least });
    if most < u64::MAX {
        number["maximum"] = most.into();
    }
    scalar(json!({ "anyOf": [number, { "type": "string", "pattern": r"^\s*[0-9][0-9_]*\s*$" }] }))
}

/// A number, quoted or not.
pub fn number(range: Json) -> Json {
    let mut number = json!({ "type": "number" });
    if let (Json::Object(number), Json::Object(range)) = (&mut number, range) {
        number.extend(range);
    }
    scalar(json!({ "anyOf": [number, { "type": "string", "pattern": r"^\s*-?[0-9]*\.?[0-9]+\s*$" }] }))
}

/// Seconds, or a number with its unit.
pub fn duration() -> Json {
    let text = json!({ "type": "string", "pattern": r"^\s*[0-9.]+\s*(s|m|h|d|w|mo|y)?\s*$" });
    scalar(json!({ "anyOf": [{ "type": "number", "minimum": 0 }, text] }))
}

/// A number of bytes, or of what its unit says.
pub fn size() -> Json {
    let text = json!({ "type": "string", "pattern": r"^\s*[0-9.]+\s*([kKmMgGtT][iI]?)?[bB]?\s*$" });
    scalar(json!({ "anyOf": [{ "type": "number", "exclusiveMinimum": 0 }, text] }))
}

/// A list of `item`, or one `item` alone.
pub fn list_or_one(item: Json) -> Json {
    json!({ "anyOf": [item, { "type": "array", "items": item }] })
}

/// A section by its declaration.
pub fn of_section<T: Section>() -> Json {
    section(T::ABOUT, T::FIELDS, T::REFUSED)
}

/// Keys that are refused are named with their reasons, and take no value.
fn section(about: &str, fields: &[Field], refused: &[(&str, &str)]) -> Json {
    let mut properties: Map<String, Json> =
        fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    for (name, why) in refused {
        let property = json!({ "type": "null", "deprecated": true, "description": why });
        properties.entry(*name).or_insert(property);
    }
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    json!({
        "description": prose(about),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(field: &Field) -> Json {
    let mut schema = (field.schema)();
    if !field.required {
        schema = or_nothing(schema);
    }
    if let Json::Object(schema) = &mut schema {
        let doc = prose(field.doc);
        if !doc.is_empty() {
            schema.insert("description".into(), doc.into());
        }
        if let Some(default) = field.default {
            schema.insert("default".into(), written(default));
        }
    }
    schema
}

/// A key without a value is as good as no key.
fn or_nothing(schema: Json) -> Json {
    match schema {
        // Takes anything.
        Json::Object(schema) if schema.is_empty() => schema.into(),
        Json::Object(mut schema) => {
            if let Some(Json::Array(any)) = schema.get_mut("anyOf") {
                any.push(json!({ "type": "null" }));
                return schema.into();
            }
            json!({ "anyOf": [schema, { "type": "null" }] })
        }
        other => other,
    }
}

/// A default as the file would have it.
fn written(default: &str) -> Json {
    match default {
        "[]" => json!([]),
        "{}" => json!({}),
        _ => {
            let node = Node::default_of(default, Default::default());
            node.scalar().map_or(Json::Null, untyped)
        }
    }
}

/// A family of kinds, told apart by `type`.
pub fn kinds(table: &KindTable) -> Json {
    let names: Vec<&str> = table.kinds.iter().map(|kind| kind.name).collect();
    let choices: Vec<Json> = (table.kinds.iter())
        .map(|kind| {
            let mut section = section(kind.about, kind.fields, kind.refused);
            section["properties"]["type"] = json!({ "const": kind.name });
            // Without `type`, the condition of the default kind holds and no other.
            let mut condition = json!({ "properties": { "type": { "const": kind.name } } });
            if kind.name != table.default {
                condition["required"] = json!(["type"]);
            }
            json!({ "if": condition, "then": section })
        })
        .collect();
    json!({
        "description": prose(table.about),
        "type": "object",
        "properties": {
            "type": { "description": "The kind.", "enum": names, "default": table.default },
        },
        "allOf": choices,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_says_types_words_defaults_and_what_is_refused() {
        let schema = runner();
        let stdout = &schema["$defs"]["webhook"]["allOf"];
        let stdout = stdout
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["then"]["properties"]["type"]["const"] == "stdout");
        insta::assert_json_snapshot!(stdout.unwrap()["then"]["properties"]["format"], @r##"
        {
          "anyOf": [
            {
              "enum": [
                "text",
                "json"
              ]
            },
            {
              "$ref": "#/$defs/reference"
            },
            {
              "type": "null"
            }
          ],
          "description": "`text`: a readable block an alert; `json`: a line of JSON an alert.",
          "default": "text"
        }
        "##);
        assert_eq!(schema["required"], json!(["detectors"]));
        assert_eq!(schema["properties"]["redis"]["type"], "null");
        assert_eq!(rule()["$defs"]["reference"], false);
    }
}
