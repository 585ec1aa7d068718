//! The header of a GGUF file, read in place: no number in it is trusted, and nothing is copied.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.

use std::collections::HashMap;
use std::path::Path;

use super::kind::Kind;
use crate::error::LoadError;

/// Metadata and tensors of a file whose every offset was checked against `bytes`.
pub(crate) struct Header<'a> {
    pub(crate) metadata: HashMap<&'a str, Value<'a>>,
    pub(crate) tensors: HashMap<&'a str, Tensor<'a>>,
    path: &'a Path,
}

/// A value of the metadata. Numbers are widened: who asks for a count does not care how it was stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(&'a [u8]),
    Array(Array<'a>),
}

/// A list that is walked where it lies; its elements were walked once when the header was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Array<'a> {
    element: u32,
    pub(crate) len: usize,
    bytes: &'a [u8],
}

/// A weight matrix or vector.
pub(crate) struct Tensor<'a> {
    /// Outermost first: `[rows, columns]`.
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: Kind,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Header<'a> {
    pub(crate) fn read(path: &'a Path, bytes: &'a [u8]) -> Result<Self, LoadError> {
        let mut cursor = Cursor { path, bytes, at: 0 };
        if bytes.get(..4) != Some(b"GGUF") {
            return Err(LoadError::NotGguf {
                path: path.into(),
                magic: bytes[..bytes.len().min(4)].to_vec(),
            });
        }
        cursor.at = 4;
        let version = cursor.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(LoadError::Version { path: path.into(), version });
        }
        let tensor_count = cursor.count("tensors", MAX_ENTRIES)?;
        let metadata_count = cursor.count("metadata entries", MAX_ENTRIES)?;

        let mut metadata = HashMap::new();
        for _ in 0..metadata_count {
            let key = cursor.name("a metadata key")?;
            let kind = cursor.u32(key)?;
            let value = cursor.value(kind, key, 0)?;
            if metadata.insert(key, value).is_some() {
                return Err(cursor.damaged(format!("`{key}` is there twice")));
            }
        }
        let mut places = Vec::new();
        for _ in 0..tensor_count {
            let at = cursor.at;
            let name = cursor.name("a tensor's name")?;
            places.push((at, name, cursor.tensor(name)?));
        }

        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Unsigned(n)) if (8..=1 << 20).contains(n) && n.is_power_of_two() => *n as usize,
            Some(value) => {
                return Err(
                    cursor.damaged(format!("`general.alignment` is {value:?}, a power of two was expected"))
                );
            }
        };
        let data = cursor.at.next_multiple_of(alignment);
        let mut tensors = HashMap::new();
        // By their places in the file, where none may begin before the last one ends.
        places.sort_by_key(|(.., place)| place.offset);
        let mut last: (&str, u64) = ("", 0);
        for (at, name, place) in places {
            let cursor = Cursor { path, bytes, at };
            if !place.offset.is_multiple_of(alignment as u64) {
                return Err(
                    cursor.damaged(format!("tensor `{name}` starts at {}, not aligned", place.offset))
                );
            }
            if tensors.contains_key(name) {
                return Err(cursor.damaged(format!("tensor `{name}` is there twice")));
            }
            if place.offset < last.1 {
                return Err(cursor.damaged(format!("tensor `{name}` overlaps tensor `{}`", last.0)));
            }
            last = (name, place.offset.saturating_add(place.len));
            let end = place.offset.checked_add(place.len).and_then(|end| end.checked_add(data as u64));
            let file_bytes = bytes.len() as u64;
            let Some(end) = end.filter(|&end| end <= file_bytes) else {
                let (what, ends_at) = (format!("tensor `{name}`"), end.unwrap_or(u64::MAX));
                return Err(LoadError::Truncated { path: path.into(), what, ends_at, file_bytes });
            };
            let tensor_bytes = &bytes[(end - place.len) as usize..end as usize];
            let tensor = Tensor { shape: place.shape, kind: place.kind, bytes: tensor_bytes };
            tensors.insert(name, tensor);
        }
        Ok(Self { metadata, tensors, path })
    }

    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// A count or size, at least 1 and at most 2^31.
    pub(crate) fn size(&self, key: &str) -> Result<usize, LoadError> {
        self.optional_size(key)?
            .ok_or_else(|| LoadError::MissingKey { path: self.path.into(), key: key.into() })
    }

    pub(crate) fn optional_size(&self, key: &str) -> Result<Option<usize>, LoadError> {
        let number = match self.metadata.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(n)) => *n,
            Some(Value::Signed(n)) => u64::try_from(*n).unwrap_or(0),
            Some(other) => return Err(self.bad(key, *other, "a whole number was expected")),
        };
        if !(1..=1 << 31).contains(&number) {
            return Err(self.bad(key, Value::Unsigned(number), "1 to 2147483648 was expected"));
        }
        Ok(Some(number as usize))
    }

    /// A token's number.
    pub(crate) fn token(&self, key: &str) -> Option<u32> {
        match self.metadata.get(key)? {
            Value::Unsigned(n) => u32::try_from(*n).ok(),
            Value::Signed(n) => u32::try_from(*n).ok(),
            _ => None,
        }
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.optional(key, "a number was expected", |value| match value {
            Value::Float(x) => Some(x),
            Value::Unsigned(n) => Some(n as f64),
            Value::Signed(n) => Some(n as f64),
            _ => None,
        })
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.optional(key, "true or false was expected", |value| match value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, LoadError> {
        self.optional(key, "text in UTF-8 was expected", |value| match value {
            Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    fn optional<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.metadata.get(key).copied() else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.bad(key, value, expected))
    }

    pub(crate) fn array(&self, key: &str) -> Option<Array<'a>> {
        match *self.metadata.get(key)? {
            Value::Array(array) => Some(array),
            _ => None,
        }
    }

    pub(crate) fn tensor(&self, name: &str) -> Result<&Tensor<'a>, LoadError> {
        self.tensors
            .get(name)
            .ok_or_else(|| LoadError::MissingTensor { path: self.path.into(), tensor: name.into() })
    }

    pub(crate) fn bad(&self, key: &str, found: Value<'_>, expected: &str) -> LoadError {
        let (path, key, expected) = (self.path.into(), key.into(), expected.into());
        LoadError::BadKey { path, key, found: found.to_string(), expected }
    }
}

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unsigned(n) => write!(f, "{n}"),
            Self::Signed(n) => write!(f, "{n}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Text(bytes) => write!(f, "`{}`", bytes[..bytes.len().min(80)].escape_ascii()),
            Self::Array(array) => write!(f, "a list of {}", array.len),
        }
    }
}

impl<'a> Array<'a> {
    pub(crate) fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let mut cursor = Cursor { path: Path::new(""), bytes: self.bytes, at: 0 };
        (0..self.len).map_while(move |_| cursor.value(self.element, "", 0).ok())
    }

    /// The elements as text; `None` when one of them is not text in UTF-8.
    pub(crate) fn texts(self) -> Option<Vec<&'a str>> {
        self.iter()
            .map(|value| match value {
                Value::Text(bytes) => std::str::from_utf8(bytes).ok(),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn floats(self) -> Option<Vec<f32>> {
        self.iter()
            .map(|value| match value {
                Value::Float(x) => Some(x as f32),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn flags(self) -> Option<Vec<bool>> {
        self.iter()
            .map(|value| match value {
                Value::Bool(flag) => Some(flag),
                _ => None,
            })
            .collect()
    }

    pub(crate) fn integers(self) -> Option<Vec<i64>> {
        self.iter()
            .map(|value| match value {
                Value::Unsigned(n) => i64::try_from(n).ok(),
                Value::Signed(n) => Some(n),
                _ => None,
            })
            .collect()
    }
}

/// Real models have some 300 tensors and 40 keys; mixtures of experts some 1,500.
const MAX_ENTRIES: u64 = 1 << 16;
const MAX_NAME_BYTES: usize = 1 << 16;
const MAX_DEPTH: usize = 4;

struct Place {
    shape: Vec<usize>,
    kind: Kind,
    offset: u64,
    len: u64,
}

struct Cursor<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn damaged(&self, what: String) -> LoadError {
        LoadError::Damaged { path: self.path.into(), at: self.at as u64, what }
    }

    fn take(&mut self, len: u64, what: &str) -> Result<&'a [u8], LoadError> {
        let end = (self.at as u64).saturating_add(len);
        if end > self.bytes.len() as u64 {
            return Err(LoadError::Truncated {
                path: self.path.into(),
                what: format!("the header (`{}`)", what.escape_debug()),
                ends_at: end,
                file_bytes: self.bytes.len() as u64,
            });
        }
        let taken = &self.bytes[self.at..end as usize];
        self.at = end as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], LoadError> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("`take` gives as many bytes as it was asked for"))
    }

    fn u32(&mut self, what: &str) -> Result<u32, LoadError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, LoadError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn count(&mut self, what: &str, limit: u64) -> Result<u64, LoadError> {
        let count = self.u64(what)?;
        if count > limit {
            self.at -= 8;
            return Err(self.damaged(format!("it counts {count} {what}, at most {limit} are read")));
        }
        Ok(count)
    }

    fn text(&mut self, what: &str) -> Result<&'a [u8], LoadError> {
        let len = self.u64(what)?;
        self.take(len, what)
    }

    fn name(&mut self, what: &str) -> Result<&'a str, LoadError> {
        let at = self.at;
        let bytes = self.text(what)?;
        match std::str::from_utf8(bytes) {
            Ok(name) if name.len() <= MAX_NAME_BYTES => Ok(name),
            _ => {
                self.at = at;
                Err(self.damaged(format!("{what} is not text of at most {MAX_NAME_BYTES} bytes")))
            }
        }
    }

    fn value(&mut self, kind: u32, key: &str, depth: usize) -> Result<Value<'a>, LoadError> {
        Ok(match kind {
            0 => Value::Unsigned(self.array::<1>(key)?[0].into()),
            1 => Value::Signed(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(key)?).into()),
            4 => Value::Unsigned(self.u32(key)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(key)?).into()),
            6 => Value::Float(f32::from_le_bytes(self.array(key)?).into()),
            7 => Value::Bool(self.array::<1>(key)?[0] != 0),
            8 => Value::Text(self.text(key)?),
            9 if depth < MAX_DEPTH => {
                let element = self.u32(key)?;
                // Every element has at least one byte, so the file itself bounds the walk.
                let len = self.count("list elements", self.bytes.len() as u64)? as usize;
                let start = self.at;
                match fixed_bytes(element) {
                    Some(size) => {
                        self.take((len as u64).saturating_mul(size), key)?;
                    }
                    None => {
                        for _ in 0..len {
                            self.value(element, key, depth + 1)?;
                        }
                    }
                }
                Value::Array(Array { element, len, bytes: &self.bytes[start..self.at] })
            }
            10 => Value::Unsigned(self.u64(key)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            _ => {
                return Err(
                    self.damaged(format!("`{}` has the unknown value kind {kind}", key.escape_debug()))
                );
            }
        })
    }

    fn tensor(&mut self, name: &str) -> Result<Place, LoadError> {
        let dimensions = self.u32(name)?;
        if !(1..=4).contains(&dimensions) {
            return Err(
                self.damaged(format!("tensor `{name}` has {dimensions} dimensions, 1 to 4 were expected"))
            );
        }
        let mut shape = Vec::with_capacity(4);
        let mut elements = 1u64;
        for _ in 0..dimensions {
            let size = self.u64(name)?;
            elements = match elements.checked_mul(size) {
                Some(elements) if (1..1 << 48).contains(&elements) => elements,
                _ => return Err(self.damaged(format!("tensor `{name}` has the impossible dimension {size}"))),
            };
            shape.push(size as usize);
        }
        let columns = shape[0] as u64;
        shape.reverse();
        let id = self.u32(name)?;
        let Some(kind) = Kind::from_id(id) else {
            return Err(LoadError::Quantization {
                path: self.path.into(),
                tensor: name.into(),
                found: Kind::name_of(id),
                supported: Kind::NAMES,
            });
        };
        let offset = self.u64(name)?;
        let (block, block_bytes) = (kind.block_len() as u64, kind.block_bytes() as u64);
        if !columns.is_multiple_of(block) {
            let what =
                format!("tensor `{name}` has rows of {columns}, not a multiple of {}'s {block}", kind.name());
            return Err(self.damaged(what));
        }
        Ok(Place { shape, kind, offset, len: elements / block * block_bytes })
    }
}

fn fixed_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
