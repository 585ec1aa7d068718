//! How many bytes of JSON a cell may take, and what becomes of one that would take more.

use serde_json::{Map, Value};

/// Bytes of JSON that a cell may still take; text beyond is cut.
pub(super) struct Room {
    pub(super) left: usize,
    used: usize,
    is_cut: bool,
}

impl Room {
    /// Room for the longest marker of a cut, and a little of the text.
    pub(super) const SMALLEST: usize = 64;
    /// `…[cut: 18446744073709551615 elements]` and quotes.
    pub(super) const MARKER: usize = 40;

    pub(super) fn new(bytes: usize) -> Self {
        Self { left: bytes, used: 0, is_cut: false }
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Bytes of `text` as a JSON string.
    pub(super) fn quoted_len(text: &str) -> usize {
        2 + text.bytes().map(escaped_len).sum::<usize>()
    }

    /// Bytes of `value` as this counts them: never fewer than its JSON has.
    pub(super) fn len(value: &Value) -> usize {
        match value {
            Value::Null => 4,
            Value::Bool(_) => 5,
            Value::Number(number) => number.to_string().len(),
            Value::String(text) => Self::quoted_len(text),
            Value::Array(items) => 2 + items.iter().map(|item| 1 + Self::len(item)).sum::<usize>(),
            Value::Object(entries) => {
                2 + entries
                    .iter()
                    .map(|(key, value)| Self::quoted_len(key) + 2 + Self::len(value))
                    .sum::<usize>()
            }
        }
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.used += bytes;
        self.left = self.left.saturating_sub(bytes);
    }

    pub(super) fn number(&mut self, value: impl Into<Value>) -> Value {
        let value = value.into();
        self.take(value.to_string().len());
        value
    }

    pub(super) fn text(&mut self, text: impl Into<String> + AsRef<str>) -> Value {
        let whole = text.as_ref();
        let mut len = 2;
        let mut end = 0;
        let budget = self.left.saturating_sub(Self::MARKER);
        for (at, char) in whole.char_indices() {
            if len <= budget {
                end = at;
            }
            len += if char.is_ascii() { escaped_len(char as u8) } else { char.len_utf8() };
            if len > self.left {
                return self.cut(&whole[..end], format_args!("{} bytes", whole.len()));
            }
        }
        self.take(len);
        Value::String(text.into())
    }

    /// Any JSON value: texts are cut, lists and maps end early, each with a marker that says so.
    pub(super) fn value(&mut self, value: &Value) -> Value {
        match value {
            Value::Null => self.plain(4, Value::Null),
            Value::Bool(is) => self.plain(5, Value::Bool(*is)),
            Value::Number(number) => self.number(number.clone()),
            Value::String(text) => self.text(text.as_str()),
            Value::Array(items) => self.list(items.len(), |room, at| room.value(&items[at])),
            Value::Object(entries) => {
                self.take(2);
                let mut object = Map::with_capacity(entries.len());
                for (key, value) in entries {
                    let frame = Self::quoted_len(key) + 2;
                    if self.left < frame + Self::SMALLEST && !object.is_empty() || self.left < frame {
                        self.is_cut = true;
                        let marker = format!("…[cut: {} keys]", entries.len());
                        self.take(Self::quoted_len(&marker) + 6);
                        object.insert(marker, Value::Null);
                        break;
                    }
                    self.take(frame);
                    object.insert(key.clone(), self.value(value));
                }
                Value::Object(object)
            }
        }
    }

    fn plain(&mut self, bytes: usize, value: Value) -> Value {
        self.take(bytes);
        value
    }

    pub(super) fn cut(&mut self, begin: &str, what: std::fmt::Arguments<'_>) -> Value {
        self.is_cut = true;
        let text = format!("{begin}…[cut: {what}]");
        self.take(Self::quoted_len(&text));
        Value::String(text)
    }

    /// An array of `len` elements, which ends with a marker where the room does.
    pub(super) fn list(&mut self, len: usize, mut element: impl FnMut(&mut Self, usize) -> Value) -> Value {
        self.take(2);
        let mut list = Vec::new();
        for at in 0..len {
            if self.left < Self::SMALLEST && !list.is_empty() || self.left == 0 {
                list.push(self.cut("", format_args!("{len} elements")));
                break;
            }
            self.take(1);
            list.push(element(self, at));
        }
        Value::Array(list)
    }
}

fn escaped_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_fits_stays_as_it_is() {
        let value = json!({"a": [1, -2.5, null, true], "b": {"c": "é\n"}});
        let mut room = Room::new(1_000);
        assert_eq!(room.value(&value), value);
        assert!(!room.is_cut());
        assert!(room.used() >= value.to_string().len());
    }

    #[test]
    fn what_does_not_fit_says_what_was_cut() {
        let mut room = Room::new(100);
        let cut = room.value(&json!({"user": "root", "line": "x".repeat(1_000)}));
        assert!(room.is_cut());
        assert_eq!(cut["user"], "root");
        assert!(cut["line"].as_str().unwrap().ends_with("…[cut: 1000 bytes]"), "{cut}");
        let many = Value::Array(vec![json!("0123456789"); 1_000]);
        let cut = Room::new(200).value(&many);
        assert_eq!(cut.as_array().unwrap().last().unwrap(), "…[cut: 1000 elements]");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            ".{0,80}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                prop::collection::btree_map(".{0,20}", inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_takes_no_more_than_is_said_of_it(value in any_json(), bytes in 64usize..4_000) {
            let mut room = Room::new(bytes);
            let kept = room.value(&value);
            prop_assert!(kept.to_string().len() <= room.used());
            if !room.is_cut() {
                prop_assert_eq!(room.used(), Room::len(&kept));
                prop_assert_eq!(kept, value);
            }
        }
    }
}
