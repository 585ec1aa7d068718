//! Template values that print, compare and answer methods as in Python, because rules were written for Jinja2.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use serde_json::{Map, Value as Json};

/// A template value of `json`, with maps in their order.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (_, Some(value)) => Value::from(value),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from_object(List(items.iter().map(value).collect())),
        Json::Object(entries) => map(entries),
    }
}

/// A template value of a JSON object.
pub(super) fn map(entries: &Map<String, Json>) -> Value {
    dict(entries, Prints::Repr, value)
}

/// What a message's template sees: every object in it prints as JSON (clickdetect's `JsonDict`), and what is inside of
/// that as in Python.
pub(super) fn message(variables: &Map<String, Json>) -> Value {
    dict(variables, Prints::Repr, |json| match json {
        Json::Object(entries) => dict(entries, Prints::Json, value),
        other => value(other),
    })
}

fn dict(entries: &Map<String, Json>, prints: Prints, value: impl Fn(&Json) -> Value) -> Value {
    let entries = entries.iter().map(|(key, json)| (Arc::from(key.as_str()), value(json))).collect();
    Value::from_object(Dict { entries, prints })
}

#[derive(Debug)]
struct List(Vec<Value>);

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&repr(&Value::from_dyn_object(self.clone())))
    }
}

/// Keys are few and the operator's own, so a look-up walks them.
#[derive(Debug)]
struct Dict {
    entries: Vec<(Arc<str>, Value)>,
    prints: Prints,
}

/// What `str` of a dict is. Inside of something else it is its `repr` either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prints {
    Repr,
    Json,
}

impl Object for Dict {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.entries.iter().find(|(name, _)| &**name == key).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.entries.iter().map(|(key, _)| Value::from(key.clone())).collect())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&Value::from_dyn_object(self.clone())))
    }
}

/// Python's `str(value)`: a text is itself, what is inside a list or dict is quoted.
pub(super) fn text(value: &Value) -> String {
    match value.kind() {
        ValueKind::Map
            if value.downcast_object_ref::<Dict>().is_some_and(|dict| dict.prints == Prints::Json) =>
        {
            json(value).unwrap_or_else(|_| repr(value))
        }
        ValueKind::Number | ValueKind::Seq | ValueKind::Map => repr(value),
        _ => value.to_string(),
    }
}

/// Python's `repr(value)`.
fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, &mut out, 0);
    out
}

fn write_repr(value: &Value, out: &mut String, depth: usize) {
    if depth > MAX_DEPTH {
        out.push_str("...");
        return;
    }
    match value.kind() {
        ValueKind::String => write_quoted(value.as_str().unwrap_or_default(), out),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push_str(&float(number)),
            Err(_) => out.push_str(&value.to_string()),
        },
        ValueKind::Seq => {
            let is_tuple = value.downcast_object_ref::<Tuple>().is_some();
            out.push(if is_tuple { '(' } else { '[' });
            let mut length = 0;
            for item in value.try_iter().into_iter().flatten() {
                if length > 0 {
                    out.push_str(", ");
                }
                write_repr(&item, out, depth + 1);
                length += 1;
            }
            out.push_str(match (is_tuple, length) {
                (true, 1) => ",)",
                (true, _) => ")",
                _ => "]",
            });
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter().into_iter().flatten().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_repr(&key, out, depth + 1);
                out.push_str(": ");
                write_repr(&value.get_item(&key).unwrap_or_default(), out, depth + 1);
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
}

/// In single quotes, unless there is one inside and no double one.
fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            same if same == quote => out.extend(['\\', same]),
            hidden if !is_printable(hidden) => {
                match u32::from(hidden) {
                    code @ ..0x100 => write!(out, "\\x{code:02x}"),
                    code @ ..0x1_0000 => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                }
                .expect("writing to a String does not fail");
            }
            other => out.push(other),
        }
    }
    out.push(quote);
}

/// Python's `str.isprintable()` of one character: no controls, formats, surrogates, private or unassigned ones, and of
/// the separators only the blank. Rust's `Debug` has the same list, but escapes an accent that begins a text.
fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return !character.is_ascii_control();
    }
    let mut text = [0; 5];
    text[0] = b'a';
    let end = 1 + character.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..end]).is_ok_and(|text| text.escape_debug().eq(text.chars()))
}

/// Python writes an exponent below 1e-4 and from 1e16 on.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let written = format!("{number:e}");
        let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number:?}")
}

/// Python's `json.dumps(value)`: blanks after `,` and `:`, ASCII only.
pub(super) fn json(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    write_json(value, &mut out, 0)?;
    Ok(out)
}

fn write_json(value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    let wrong = |detail: String| Error::new(ErrorKind::InvalidOperation, detail);
    if depth > MAX_DEPTH {
        return Err(wrong(format!("`tojson` takes no more than {MAX_DEPTH} levels")));
    }
    match value.kind() {
        ValueKind::Undefined => return Err(wrong("`tojson` was given an undefined value".into())),
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => {
            let mut number = String::new();
            write_repr(value, &mut number, depth);
            // As Python; JSON itself has no such numbers.
            out.push_str(match number.as_str() {
                "nan" => "NaN",
                "inf" => "Infinity",
                "-inf" => "-Infinity",
                other => other,
            });
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_json_text(&text(&key), out);
                out.push_str(": ");
                write_json(&value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_json(&item, out, depth + 1)?;
            }
            out.push(']');
        }
        _ => write_json_text(&value.to_string(), out),
    }
    Ok(())
}

fn write_json_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(character),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").expect("writing to a String does not fail");
                }
            }
        }
    }
    out.push('"');
}

const MAX_DEPTH: usize = 128;

/// The items of a list, the keys of a dict, the characters of a text, as Python iterates.
pub(super) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    match value.as_str() {
        Some(text) => Ok(text.chars().map(Value::from).collect()),
        None => Ok(value.try_iter()?.collect()),
    }
}

/// The methods of Python's `str` and `dict` that templates use.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let unknown = || Error::from(ErrorKind::UnknownMethod);
    let argument = |index: usize| args.get(index).and_then(Value::as_str);
    if value.kind() == ValueKind::Map {
        return match (name, args) {
            ("items", []) => state.apply_filter("items", std::slice::from_ref(value)),
            ("keys", []) => Ok(value.try_iter()?.collect()),
            ("values", []) => value.try_iter()?.map(|key| value.get_item(&key)).collect(),
            ("get", [key]) => Ok(present(value.get_item(key)?).unwrap_or_else(|| Value::from(()))),
            ("get", [key, default]) => Ok(present(value.get_item(key)?).unwrap_or_else(|| default.clone())),
            _ => Err(unknown()),
        };
    }
    let Some(text) = value.as_str() else { return Err(unknown()) };
    Ok(match (name, args.len()) {
        ("upper", 0) => text.to_uppercase().into(),
        ("lower", 0) => text.to_lowercase().into(),
        ("strip", 0) => text.trim().into(),
        ("lstrip", 0) => text.trim_start().into(),
        ("rstrip", 0) => text.trim_end().into(),
        ("split", 0) => text.split_whitespace().map(Value::from).collect(),
        ("split", 1) => text.split(argument(0).ok_or_else(unknown)?).map(Value::from).collect(),
        ("startswith", 1) => text.starts_with(argument(0).ok_or_else(unknown)?).into(),
        ("endswith", 1) => text.ends_with(argument(0).ok_or_else(unknown)?).into(),
        ("replace" | "join" | "title" | "capitalize", _) => {
            // The filter of that name takes a `join`ed list first and its separator second.
            let mut given = vec![value.clone()];
            given.extend_from_slice(args);
            if name == "join" {
                given.reverse();
            }
            return state.apply_filter(name, &given);
        }
        _ => return Err(unknown()),
    })
}

fn present(value: Value) -> Option<Value> {
    Some(value).filter(|value| !value.is_undefined())
}
