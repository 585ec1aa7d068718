//! One value of a result as the JSON that a reader of the alert expects.
//!
//! | ClickHouse | JSON |
//! |---|---|
//! | Bool, NULL | `true`, `null` |
//! | Int8 to UInt256, Decimal without a scale | number within 64 bits, digits as text beyond |
//! | Float32, Float64, BFloat16 | number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | Decimal with a scale | text with exactly its digits, `"12.340"` |
//! | Date, Date32, Time, Time64 | `"2026-11-23"`, `"10:00:00.123"` |
//! | DateTime, DateTime64 | `"2026-11-23T10:00:00.123Z"` (UTC) |
//! | Interval | ISO 8601, `"P3D"`, `"PT0.25S"` |
//! | String, Enum, UUID, IPv4, IPv6 | text; a byte that is no UTF-8 as `\xNN` |
//! | FixedString | the same, without the zero bytes that fill it up |
//! | Array, Nested, Tuple without names, geometry | array |
//! | Tuple with names, Map, JSON | object; a key that comes again gets `_2`, `_3` ... |
//! | Nullable, LowCardinality, SimpleAggregateFunction, Variant, Dynamic | its value |
//!
//! Where the server does not let the user choose how results are written (a profile with `readonly=1`), a DateTime comes in
//! the time zone of its column or the server, without `Z`, and what is no number in a float as `null`.

use serde_json::{Map, Value};

use crate::datasource::json::{self, Broken, Json};

/// What of a type decides how a value is read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Integer,
    Float,
    /// Digits behind the point.
    Decimal(usize),
    DateTime,
    FixedString,
    /// What stands before and behind the number, the factor, and the digits of a second's fraction.
    Interval(&'static str, i64, &'static str, usize),
    List(Box<Kind>),
    Tuple(Vec<(Option<String>, Kind)>),
    /// The kind of its values.
    Map(Box<Kind>),
    /// What JSON says of it is all there is to say.
    Plain,
}

impl Kind {
    /// The kind of a type as ClickHouse names it, e.g. `Array(Nullable(Decimal(18, 3)))`. A type that is not known is
    /// plain.
    pub(super) fn of(name: &str) -> Self {
        Self::within(name, 0)
    }

    fn within(name: &str, depth: usize) -> Self {
        if depth > MAX_DEPTH {
            return Self::Plain;
        }
        let name = name.trim();
        let (base, inside) = match name.split_once('(') {
            Some((base, rest)) => (base, rest.strip_suffix(')').unwrap_or(rest)),
            None => (name, ""),
        };
        let parts = || split(inside);
        let last = || parts().last().map_or(Self::Plain, |part| Self::within(part, depth + 1));
        match base {
            "Nullable" | "LowCardinality" | "SimpleAggregateFunction" => last(),
            "Array" => Self::List(Box::new(last())),
            "Map" => Self::Map(Box::new(last())),
            "Nested" => Self::List(Box::new(Self::tuple(&parts(), depth))),
            "Tuple" => Self::tuple(&parts(), depth),
            "Float32" | "Float64" | "BFloat16" => Self::Float,
            "Decimal" | "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => {
                Self::Decimal(parts().last().and_then(|scale| scale.trim().parse().ok()).unwrap_or(0))
            }
            "DateTime" | "DateTime64" | "DateTime32" => Self::DateTime,
            "FixedString" => Self::FixedString,
            "IntervalNanosecond" => Self::Interval("PT", 1, "S", 9),
            "IntervalMicrosecond" => Self::Interval("PT", 1, "S", 6),
            "IntervalMillisecond" => Self::Interval("PT", 1, "S", 3),
            "IntervalSecond" => Self::Interval("PT", 1, "S", 0),
            "IntervalMinute" => Self::Interval("PT", 1, "M", 0),
            "IntervalHour" => Self::Interval("PT", 1, "H", 0),
            "IntervalDay" => Self::Interval("P", 1, "D", 0),
            "IntervalWeek" => Self::Interval("P", 1, "W", 0),
            "IntervalMonth" => Self::Interval("P", 1, "M", 0),
            "IntervalQuarter" => Self::Interval("P", 3, "M", 0),
            "IntervalYear" => Self::Interval("P", 1, "Y", 0),
            _ if is_integer(base) => Self::Integer,
            _ => Self::Plain,
        }
    }

    fn tuple(parts: &[&str], depth: usize) -> Self {
        let element = |part: &&str| {
            let (name, kind) = named(part);
            (name, Self::within(kind, depth + 1))
        };
        Self::Tuple(parts.iter().map(element).collect())
    }

    /// The next value of `json`.
    pub(super) fn read(&self, json: &mut Json<'_>) -> Result<Value, Broken> {
        let first = json.peek();
        match (self, first) {
            (_, Some(b'n')) => json.word(),
            (Self::Integer, Some(b'"')) => Ok(json::integer(&json.string()?)),
            (Self::Float, Some(b'"')) => Ok(json::float(&json.string()?)),
            (Self::Float, Some(b'-' | b'0'..=b'9')) => Ok(json::float(json.number()?)),
            (Self::Decimal(scale), Some(b'"')) => Ok(decimal(&json.string()?, *scale)),
            (Self::Decimal(scale), _) => Ok(decimal(json.number()?, *scale)),
            (Self::DateTime, Some(b'"')) => {
                let mut text = json.string()?;
                if text.as_bytes().get(10) == Some(&b' ') {
                    text.replace_range(10..11, "T");
                }
                Ok(text.into())
            }
            (Self::FixedString, Some(b'"')) => {
                let mut text = json.string()?;
                text.truncate(text.trim_end_matches('\0').len());
                Ok(text.into())
            }
            (Self::Interval(before, factor, behind, fraction), Some(b'"')) => {
                let number = json.string()?;
                Ok(interval(&number, before, *factor, behind, *fraction))
            }
            (Self::Interval(before, factor, behind, fraction), _) => {
                Ok(interval(json.number()?, before, *factor, behind, *fraction))
            }
            (Self::List(item), Some(b'[')) => list(json, |_| item),
            (Self::Tuple(elements), Some(b'[')) => {
                list(json, |at| elements.get(at).map_or(&Self::Plain, |(_, kind)| kind))
            }
            (Self::Tuple(elements), Some(b'{')) => object(json, |key| {
                let named = |(name, _): &&(Option<String>, Self)| name.as_deref() == Some(key);
                elements.iter().find(named).map_or(&Self::Plain, |(_, kind)| kind)
            }),
            (Self::Map(value), Some(b'{')) => object(json, |_| value),
            _ => json.any(),
        }
    }
}

fn list<'k>(json: &mut Json<'_>, kind: impl Fn(usize) -> &'k Kind) -> Result<Value, Broken> {
    let mut items = Vec::new();
    json.list(|json, at| {
        items.push(kind(at).read(json)?);
        Ok(())
    })?;
    Ok(Value::Array(items))
}

fn object<'k>(json: &mut Json<'_>, kind: impl Fn(&str) -> &'k Kind) -> Result<Value, Broken> {
    let mut entries = Map::new();
    json.object(|json, key| {
        let value = kind(&key).read(json)?;
        json::insert(&mut entries, key, value);
        Ok(())
    })?;
    Ok(Value::Object(entries))
}

fn is_integer(base: &str) -> bool {
    let bits = base.strip_prefix('U').unwrap_or(base).strip_prefix("Int");
    bits.is_some_and(|bits| matches!(bits, "8" | "16" | "32" | "64" | "128" | "256"))
}

/// `digits` with exactly `scale` behind the point: ClickHouse leaves out zeros at the end.
fn decimal(digits: &str, scale: usize) -> Value {
    if scale == 0 || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'.') {
        return json::decimal(digits);
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    format!("{whole}.{fraction:0<scale$}").into()
}

fn interval(number: &str, before: &str, factor: i64, behind: &str, fraction: usize) -> Value {
    let Ok(number) = number.parse::<i64>() else { return number.into() };
    if fraction == 0 {
        return format!("{before}{}{behind}", number.saturating_mul(factor)).into();
    }
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = fraction + 1);
    let (seconds, rest) = digits.split_at(digits.len() - fraction);
    let rest = rest.trim_end_matches('0');
    let point = if rest.is_empty() { "" } else { "." };
    format!("{before}{}{seconds}{point}{rest}{behind}", if number < 0 { "-" } else { "" }).into()
}

/// The parts between the commas of a type's arguments.
fn split(arguments: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut begin = 0;
    outside(arguments, |at, byte| {
        if byte == b',' {
            parts.push(arguments[begin..at].trim());
            begin = at + 1;
        }
    });
    if !arguments[begin..].trim().is_empty() {
        parts.push(arguments[begin..].trim());
    }
    parts
}

/// The name of a tuple's element, where it has one, and its type: `` `source ip` String ``.
fn named(element: &str) -> (Option<String>, &str) {
    let mut space = None;
    outside(element, |at, byte| {
        if byte == b' ' && space.is_none() {
            space = Some(at);
        }
    });
    let Some(space) = space else { return (None, element) };
    let (name, kind) = (&element[..space], &element[space + 1..]);
    let bare = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
    let name = bare.map_or_else(|| name.to_owned(), |bare| bare.replace("\\`", "`").replace("\\\\", "\\"));
    (Some(name), kind)
}

/// Calls `see` at each byte that is not within quotes or parentheses.
fn outside(text: &str, mut see: impl FnMut(usize, u8)) {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'`' | b'"') => quote = Some(byte),
            (None, b'(') => depth += 1,
            (None, b')') => depth = depth.saturating_sub(1),
            (None, _) if depth == 0 => see(at, byte),
            (None, _) => {}
        }
    }
}

/// Of types inside each other.
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn read(kind: &str, text: &str) -> Value {
        let mut json = Json::new(text.as_bytes());
        let value = Kind::of(kind).read(&mut json).unwrap();
        json.end().unwrap();
        value
    }

    #[test]
    fn numbers_are_exact_in_every_form_that_the_server_may_choose() {
        for text in ["18446744073709551615", "\"18446744073709551615\""] {
            assert_eq!(read("UInt64", text), json!(u64::MAX));
        }
        assert_eq!(
            read("Nullable(Int128)", "\"-170141183460469231731687303715884105728\""),
            json!("-170141183460469231731687303715884105728")
        );
        assert_eq!(
            read("UInt256", "340282366920938463463374607431768211456"),
            json!("340282366920938463463374607431768211456")
        );
        for text in ["12.34", "\"12.34\""] {
            assert_eq!(read("Decimal(38, 3)", text), json!("12.340"));
        }
        assert_eq!(read("Decimal(9, 0)", "\"-12\""), json!(-12));
        assert_eq!(read("Float64", "1"), json!(1.0));
        assert_eq!(read("Float32", "\"nan\""), json!("NaN"));
        assert_eq!(read("Float64", "\"-inf\""), json!("-Infinity"));
        assert_eq!(read("Nullable(Float64)", "null"), Value::Null);
    }

    #[test]
    fn types_inside_each_other_are_found() {
        assert_eq!(
            read(
                "Array(Tuple(`source ip` IPv4, n Nullable(Decimal(10, 2)), DateTime64(3, 'Europe/Berlin')))",
                r#"[{"source ip": "10.0.0.1", "n": 1}]"#
            ),
            json!([{"source ip": "10.0.0.1", "n": "1.00"}])
        );
        assert_eq!(read("Tuple(UInt8, Enum8('a, b' = 1))", r#"[1, "a, b"]"#), json!([1, "a, b"]));
        assert_eq!(
            read("Map(LowCardinality(String), Array(Float32))", r#"{"a": ["nan", 1]}"#),
            json!({"a": ["NaN", 1.0]})
        );
        assert_eq!(read("Nested(a UInt8, b String)", r#"[{"a": 1, "b": "x"}]"#), json!([{"a": 1, "b": "x"}]));
        assert_eq!(read("SomethingNew(3)", r#"{"a": [1]}"#), json!({"a": [1]}));
    }

    #[test]
    fn times_fixed_texts_and_intervals_read_well() {
        assert_eq!(read("DateTime('UTC')", "\"2026-11-23 10:00:00\""), json!("2026-11-23T10:00:00"));
        assert_eq!(read("DateTime64(3)", "\"2026-11-23T10:00:00.123Z\""), json!("2026-11-23T10:00:00.123Z"));
        assert_eq!(read("FixedString(5)", "\"abc\\u0000\\u0000\""), json!("abc"));
        assert_eq!(read("IntervalQuarter", "2"), json!("P6M"));
        assert_eq!(read("IntervalMillisecond", "\"-250\""), json!("PT-0.25S"));
        assert_eq!(read("IntervalMicrosecond", "3000000"), json!("PT3S"));
    }

    proptest! {
        #[test]
        fn no_name_of_a_type_makes_it_panic(name in "[A-Za-z0-9(),'` \\\\]{0,60}", text in "[\\[\\]{}:,\"0-9.eE a-z-]{0,40}") {
            drop(Kind::of(&name).read(&mut Json::new(text.as_bytes())));
        }
    }
}
