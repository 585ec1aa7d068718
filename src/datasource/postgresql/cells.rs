//! One value of a result as the JSON that a reader of the alert expects, from the text that PostgreSQL writes.
//!
//! | PostgreSQL | JSON |
//! |---|---|
//! | boolean, NULL | `true`, `null` |
//! | smallint, integer, bigint, oid, numeric without a point | number within 64 bits, digits as text beyond |
//! | real, double precision | number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | numeric with a point | text with exactly its digits, `"12.340"` |
//! | date, time, timestamp | `"2026-11-23"`, `"10:00:00.123456"`, `"2026-11-23T10:00:00.123456"`; `"infinity"` |
//! | timestamptz, timetz | `"2026-11-23T10:00:00Z"` (UTC), `"10:00:00+02"` |
//! | interval | ISO 8601, `"P1Y2M3DT4H5M6.5S"` |
//! | bytea | base64 |
//! | json, jsonb | what it says |
//! | arrays, of any depth | array |
//! | composite types, hstore | object |
//! | text, enum, uuid, inet, macaddr, money, xml, bit, point, ranges, tsvector, row(...) and all others | text, as PostgreSQL writes it |

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio_postgres::types::{Kind, Type};

use super::literal;
use crate::clock::Timestamp;
use crate::datasource::json::{self, Json};

/// The value that `text` says, which is of the type `kind`.
pub(super) fn cell(kind: &Type, text: &str) -> Value {
    match kind.kind() {
        Kind::Array(element) => array(element, text),
        Kind::Domain(base) => cell(base, text),
        Kind::Composite(fields) => {
            let fields: Vec<_> = fields.iter().map(|field| (field.name(), field.type_())).collect();
            literal::composite(text, &fields, cell).unwrap_or_else(|| text.into())
        }
        _ if kind.name() == "hstore" => literal::hstore(text).unwrap_or_else(|| text.into()),
        _ => scalar(kind, text),
    }
}

fn scalar(kind: &Type, text: &str) -> Value {
    match *kind {
        Type::BOOL => (text == "t").into(),
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::XID | Type::CID | Type::XID8 => {
            json::integer(text)
        }
        Type::FLOAT4 | Type::FLOAT8 => json::float(text),
        Type::NUMERIC => json::decimal(text),
        Type::TIMESTAMP => timestamp(text).into(),
        Type::TIMESTAMPTZ => match text.parse::<Timestamp>() {
            Ok(time) => time.to_string().into(),
            // Infinity, and years before Christ or beyond 9999.
            Err(_) => timestamp(text).into(),
        },
        Type::BYTEA => bytes(text).map_or_else(|| text.into(), |bytes| STANDARD.encode(bytes).into()),
        Type::JSON | Type::JSONB => {
            let mut json = Json::new(text.as_bytes());
            let value = json.any().and_then(|value| json.end().map(|()| value));
            value.unwrap_or_else(|_| text.into())
        }
        _ => text.into(),
    }
}

fn array(element: &Type, text: &str) -> Value {
    // Only boxes have commas of their own.
    let between = if *element == Type::BOX { ';' } else { ',' };
    literal::array(text, between, &|item| cell(element, item)).unwrap_or_else(|| text.into())
}

fn timestamp(text: &str) -> String {
    text.replacen(' ', "T", 1)
}

/// `\x0aff`.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_keep_every_digit() {
        assert_eq!(cell(&Type::INT8, "-9223372036854775808"), json!(i64::MIN));
        assert_eq!(cell(&Type::NUMERIC, "12.340"), json!("12.340"));
        assert_eq!(cell(&Type::NUMERIC, "42"), json!(42));
        assert_eq!(
            cell(&Type::NUMERIC, "123456789012345678901234567890"),
            json!("123456789012345678901234567890")
        );
        assert_eq!(cell(&Type::NUMERIC, "NaN"), json!("NaN"));
        assert_eq!(cell(&Type::FLOAT4, "0.1"), json!(0.1));
        assert_eq!(cell(&Type::FLOAT8, "-Infinity"), json!("-Infinity"));
        assert_eq!(
            cell(&Type::JSONB, r#"{"n": 18446744073709551616}"#),
            json!({"n": "18446744073709551616"})
        );
    }

    #[test]
    fn times_are_iso_8601() {
        assert_eq!(cell(&Type::TIMESTAMP, "2026-11-23 10:00:00.5"), json!("2026-11-23T10:00:00.5"));
        for (text, utc) in [
            ("2026-11-23 10:00:00.5+01", "2026-11-23T09:00:00.5Z"),
            ("2026-11-23 10:00:00+05:30", "2026-11-23T04:30:00Z"),
            ("1890-01-01 00:00:00+00:53:28", "1889-12-31T23:06:32Z"),
            ("infinity", "infinity"),
            ("0044-03-15 10:00:00+00 BC", "0044-03-15T10:00:00+00 BC"),
        ] {
            assert_eq!(cell(&Type::TIMESTAMPTZ, text), json!(utc), "{text}");
        }
    }

    #[test]
    fn arrays_of_any_depth_and_bytes() {
        assert_eq!(cell(&Type::INT4_ARRAY, "{{1,2},{3,NULL}}"), json!([[1, 2], [3, null]]));
        assert_eq!(cell(&Type::INT4_ARRAY, "[0:1]={1,2}"), json!([1, 2]));
        assert_eq!(
            cell(&Type::TEXT_ARRAY, r#"{a,"b \"c\", d",NULL,"NULL",""}"#),
            json!(["a", "b \"c\", d", null, "NULL", ""])
        );
        assert_eq!(
            cell(&Type::BOX_ARRAY, "{(1,1),(0,0);(2,2),(1,1)}"),
            json!(["(1,1),(0,0)", "(2,2),(1,1)"])
        );
        assert_eq!(cell(&Type::INT2_VECTOR, "1 2"), json!("1 2"));
        assert_eq!(cell(&Type::BYTEA, "\\x0aff"), json!("Cv8="));
        assert_eq!(cell(&Type::BYTEA, "\\xzz"), json!("\\xzz"));
    }
}
