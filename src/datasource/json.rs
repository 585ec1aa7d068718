//! JSON as stores write it, read without loss: whole numbers of any length, and bytes that are no UTF-8.

use serde_json::{Map, Number, Value};

/// Reads one text from left to right. Who knows the types of what is in it reads value by value; [`Json::any`] reads
/// what is of any type.
pub(super) struct Json<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

/// The text is not JSON.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no JSON at byte {0}")]
pub(super) struct Broken(pub usize);

impl<'a> Json<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The first byte of the next value, which tells its type.
    pub(super) fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(|byte| b" \t\r\n".contains(byte)) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    /// Fails where something follows.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        if self.peek().is_none() { Ok(()) } else { Err(self.broken()) }
    }

    /// A value of any type; a whole number is one within 64 bits, and its digits as text beyond.
    pub(super) fn any(&mut self) -> Result<Value, Broken> {
        match self.peek().ok_or(self.broken())? {
            b'"' => self.string().map(Value::String),
            b'[' => {
                let mut items = Vec::new();
                self.list(|json, _| {
                    items.push(json.any()?);
                    Ok(())
                })?;
                Ok(Value::Array(items))
            }
            b'{' => {
                let mut entries = Map::new();
                self.object(|json, key| {
                    let value = json.any()?;
                    insert(&mut entries, key, value);
                    Ok(())
                })?;
                Ok(Value::Object(entries))
            }
            b'-' | b'0'..=b'9' => self.number().map(number),
            _ => self.word(),
        }
    }

    /// `true`, `false` or `null`.
    pub(super) fn word(&mut self) -> Result<Value, Broken> {
        self.peek();
        for (word, value) in [("null", Value::Null), ("true", true.into()), ("false", false.into())] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.broken())
    }

    /// A number as it is written.
    pub(super) fn number(&mut self) -> Result<&'a str, Broken> {
        self.peek();
        let begin = self.at;
        while self
            .text
            .get(self.at)
            .is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'))
        {
            self.at += 1;
        }
        let written = &self.text[begin..self.at];
        if !written.iter().any(u8::is_ascii_digit) {
            return Err(Broken(begin));
        }
        std::str::from_utf8(written).map_err(|_| Broken(begin))
    }

    /// A text; a byte that is no UTF-8 is shown as `\xNN`.
    pub(super) fn string(&mut self) -> Result<String, Broken> {
        self.take(b'"')?;
        let mut whole: Vec<u8> = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let end = rest.iter().position(|&byte| byte == b'"' || byte == b'\\').ok_or(self.broken())?;
            self.at += end + 1;
            if rest[end] == b'"' {
                if whole.is_empty() {
                    return Ok(shown(&rest[..end]));
                }
                whole.extend_from_slice(&rest[..end]);
                return Ok(shown(&whole));
            }
            whole.extend_from_slice(&rest[..end]);
            let char = self.escaped()?;
            whole.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    /// Calls `item` at each item with its place; it must read exactly one value.
    pub(super) fn list(
        &mut self,
        item: impl FnMut(&mut Self, usize) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        self.inside(b'[', b']', item)
    }

    /// Calls `entry` at each value with its key; it must read exactly one value.
    pub(super) fn object(
        &mut self,
        mut entry: impl FnMut(&mut Self, String) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        self.inside(b'{', b'}', |json, _| {
            let key = json.string()?;
            json.take(b':')?;
            entry(json, key)
        })
    }

    fn inside(
        &mut self,
        open: u8,
        close: u8,
        mut next: impl FnMut(&mut Self, usize) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        self.take(open)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.broken());
        }
        if self.peek() == Some(close) {
            self.at += 1;
        } else {
            for place in 0.. {
                next(self, place)?;
                match self.peek() {
                    Some(b',') => self.at += 1,
                    Some(byte) if byte == close => {
                        self.at += 1;
                        break;
                    }
                    _ => return Err(self.broken()),
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn take(&mut self, byte: u8) -> Result<(), Broken> {
        if self.peek() != Some(byte) {
            return Err(self.broken());
        }
        self.at += 1;
        Ok(())
    }

    /// What stands behind a backslash.
    fn escaped(&mut self) -> Result<char, Broken> {
        let byte = self.text.get(self.at).copied().ok_or(self.broken())?;
        self.at += 1;
        Ok(match byte {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'"' | b'\\' | b'/' => char::from(byte),
            b'u' => {
                let unit = self.unit()?;
                let high = matches!(unit, 0xd800..0xdc00) && self.text[self.at..].starts_with(b"\\u");
                if !high {
                    return Ok(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                self.at += 2;
                let low = self.unit()?;
                let whole = 0x10000 + ((unit - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff);
                char::from_u32(whole).unwrap_or(char::REPLACEMENT_CHARACTER)
            }
            _ => return Err(self.broken()),
        })
    }

    fn unit(&mut self) -> Result<u32, Broken> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(self.broken())?;
        let digits = std::str::from_utf8(digits).map_err(|_| self.broken())?;
        let unit = u32::from_str_radix(digits, 16).map_err(|_| self.broken())?;
        self.at += 4;
        Ok(unit)
    }

    fn broken(&self) -> Broken {
        Broken(self.at)
    }
}

/// The value of `digits`: whole numbers within 64 bits, their digits as text beyond; others as the nearest double.
pub(super) fn number(digits: &str) -> Value {
    if digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return integer(digits);
    }
    digits.parse().ok().and_then(Number::from_f64).map_or_else(|| digits.into(), Value::Number)
}

/// A whole number within 64 bits; its digits as text beyond.
pub(super) fn integer(digits: &str) -> Value {
    match (digits.parse::<i64>(), digits.parse::<u64>()) {
        (Ok(value), _) => value.into(),
        (_, Ok(value)) => value.into(),
        _ => digits.into(),
    }
}

/// A decimal number: a whole number where it has no point, else text with exactly its digits.
pub(super) fn decimal(digits: &str) -> Value {
    if digits.contains('.') { digits.into() } else { integer(digits) }
}

/// A binary floating-point number, by its shortest digits, or what JSON has no number for: `"NaN"`, `"Infinity"`,
/// `"-Infinity"`.
pub(super) fn float(written: &str) -> Value {
    match written.parse::<f64>() {
        Ok(value) if value.is_nan() => "NaN".into(),
        Ok(value) if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Ok(value) => value.into(),
        Err(_) => written.into(),
    }
}

/// Adds an entry; where the key is there already, under `key_2`, `key_3` ..., so that no value is lost.
pub(super) fn insert(entries: &mut Map<String, Value>, key: String, value: Value) {
    if !entries.contains_key(&key) {
        entries.insert(key, value);
        return;
    }
    let free = (2_u64..).map(|n| format!("{key}_{n}")).find(|name| !entries.contains_key(name));
    entries.insert(free.expect("there are more numbers than entries"), value);
}

/// Bytes as text; those that are no UTF-8 as `\xNN`.
pub(super) fn shown(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    text
}

/// Of lists and objects inside each other.
const MAX_DEPTH: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, Broken> {
        let mut json = Json::new(text.as_bytes());
        let value = json.any()?;
        json.end()?;
        Ok(value)
    }

    #[test]
    fn whole_numbers_of_any_length_are_exact() {
        let text = "[0, -9223372036854775808, 18446744073709551615, 18446744073709551616, -1e3, 0.1, 1e999]";
        let value = json!([0, i64::MIN, u64::MAX, "18446744073709551616", -1000.0, 0.1, "1e999"]);
        assert_eq!(read(text), Ok(value));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_and_a_key_that_comes_again_is_kept() {
        let mut json = Json::new(b"{\"caf\xe9\": \"\\u00e9 \\ud83d\\ude00 \\ud83d\", \"a\": 1, \"a\": 2}");
        assert_eq!(json.any(), Ok(json!({"caf\\xE9": "é 😀 \u{fffd}", "a": 1, "a_2": 2})));
    }

    #[test]
    fn what_is_no_json_is_refused_and_where_is_said() {
        for text in
            ["", "[1", "[1,]", "{\"a\"}", "\"a", "tru", "-", "[1] 2", "\"\\x\"", "<html>", "\"\\u00g0\""]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read("[1, <]"), Err(Broken(4)));
        assert!(read(&"[".repeat(100_000)).is_err());
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
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
        fn what_was_written_is_read(value in any_json()) {
            prop_assert_eq!(read(&value.to_string()), Ok(value));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Json::new(&bytes).any());
        }
    }
}
