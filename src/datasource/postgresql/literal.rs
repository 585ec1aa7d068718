//! PostgreSQL's texts of values that hold other values.

use serde_json::{Map, Value};
use tokio_postgres::types::Type;

use crate::datasource::json::insert;

/// `{1,NULL,"a b"}`, also several inside each other, also with its borders in front: `[0:1]={1,2}`. `None` where the
/// text is something else.
/// <https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>
pub(super) fn array(text: &str, between: char, element: &dyn Fn(&str) -> Value) -> Option<Value> {
    let text = match text.starts_with('[') {
        true => text.split_once('=')?.1,
        false => text,
    };
    let mut rest = text;
    let value = list(&mut rest, between, element, 0)?;
    rest.is_empty().then_some(value)
}

fn list(rest: &mut &str, between: char, element: &dyn Fn(&str) -> Value, depth: usize) -> Option<Value> {
    *rest = rest.strip_prefix('{')?;
    let mut items = Vec::new();
    if let Some(end) = rest.strip_prefix('}') {
        *rest = end;
        return Some(Value::Array(items));
    }
    loop {
        items.push(match rest.chars().next()? {
            '{' if depth < MAX_DEPTH => list(rest, between, element, depth + 1)?,
            '"' => element(&quoted(rest)?),
            _ => match bare(rest, &[between, '}']) {
                word if word == "NULL" => Value::Null,
                word => element(&word),
            },
        });
        let next = rest.chars().next()?;
        *rest = &rest[next.len_utf8()..];
        match next {
            '}' => return Some(Value::Array(items)),
            _ if next == between => {}
            _ => return None,
        }
    }
}

/// `(1,"a b",)`, where nothing at all is NULL.
/// <https://www.postgresql.org/docs/current/rowtypes.html#ROWTYPES-IO-SYNTAX>
pub(super) fn composite(
    text: &str,
    fields: &[(&str, &Type)],
    cell: impl Fn(&Type, &str) -> Value,
) -> Option<Value> {
    let mut rest = text.strip_prefix('(')?;
    let mut object = Map::with_capacity(fields.len());
    for (at, (name, kind)) in fields.iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(',')?;
        }
        let value = match rest.chars().next()? {
            ',' | ')' => Value::Null,
            '"' => cell(kind, &quoted(&mut rest)?),
            _ => cell(kind, &bare(&mut rest, &[',', ')'])),
        };
        insert(&mut object, (*name).to_owned(), value);
    }
    (rest == ")").then_some(Value::Object(object))
}

/// `"key"=>"value", "other"=>NULL`.
/// <https://www.postgresql.org/docs/current/hstore.html>
pub(super) fn hstore(text: &str) -> Option<Value> {
    let (mut rest, mut object) = (text, Map::new());
    while !rest.is_empty() {
        if !object.is_empty() {
            rest = rest.strip_prefix(", ")?;
        }
        let key = quoted(&mut rest)?;
        rest = rest.strip_prefix("=>")?;
        let value = match rest.strip_prefix("NULL") {
            Some(behind) => {
                rest = behind;
                Value::Null
            }
            None => quoted(&mut rest)?.into(),
        };
        insert(&mut object, key, value);
    }
    Some(Value::Object(object))
}

/// What stands between quotes; there, a backslash or a quote makes the next sign mean itself.
fn quoted(rest: &mut &str) -> Option<String> {
    let inside = rest.strip_prefix('"')?;
    let (mut text, mut chars) = (String::new(), inside.char_indices());
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => text.push(chars.next()?.1),
            '"' if inside[at + 1..].starts_with('"') => text.push(chars.next()?.1),
            '"' => {
                *rest = &inside[at + 1..];
                return Some(text);
            }
            _ => text.push(char),
        }
    }
    None
}

/// What stands before one of `ends`, or the end.
fn bare(rest: &mut &str, ends: &[char]) -> String {
    let mut text = String::new();
    let mut chars = rest.char_indices();
    let end = loop {
        match chars.next() {
            Some((at, char)) if ends.contains(&char) => break at,
            Some((_, '\\')) => text.extend(chars.next().map(|(_, char)| char)),
            Some((_, char)) => text.push(char),
            None => break rest.len(),
        }
    };
    *rest = &rest[end..];
    text
}

/// PostgreSQL's own limit is 6.
const MAX_DEPTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn plain(text: &str) -> Value {
        text.into()
    }

    #[test]
    fn composites_tell_nothing_from_an_empty_text() {
        let fields = [("a", &Type::INT4), ("b", &Type::TEXT), ("c", &Type::TEXT), ("d", &Type::TEXT)];
        let text = r#"(1,"x ""y"", \\z","",)"#;
        let value = composite(text, &fields, |_, text| plain(text)).unwrap();
        assert_eq!(value, json!({"a": "1", "b": "x \"y\", \\z", "c": "", "d": null}));
        assert_eq!(composite("(1,2)", &fields, |_, text| plain(text)), None);
    }

    #[test]
    fn hstore_is_an_object() {
        assert_eq!(hstore(r#""a"=>"1 \"x\"", "b"=>NULL"#), Some(json!({"a": "1 \"x\"", "b": null})));
        assert_eq!(hstore(""), Some(json!({})));
        assert_eq!(hstore("a=>1"), None);
    }

    proptest! {
        #[test]
        fn an_array_of_any_texts_is_read_as_it_was_written(items in prop::collection::vec(".{0,12}", 0..6)) {
            let quote = |item: &String| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""));
            let text = format!("{{{}}}", items.iter().map(quote).collect::<Vec<_>>().join(","));
            prop_assert_eq!(array(&text, ',', &plain), Some(json!(items)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[{}(),\"\\\\a=>NULL;é]{0,40}") {
            drop(array(&text, ',', &plain));
            drop(hstore(&text));
            drop(composite(&text, &[("a", &Type::TEXT)], |_, text| plain(text)));
        }
    }
}
