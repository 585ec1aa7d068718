//! One cell of a result as the JSON that a reader of the alert expects. The API gives every value as text.
//!
//! | Databricks | JSON |
//! |---|---|
//! | BOOLEAN | `true` |
//! | BYTE, SHORT, INT, LONG, and DECIMAL without a scale | number within 64 bits, digits as text beyond |
//! | FLOAT, DOUBLE | number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | DECIMAL with a scale | text with exactly its digits, `"12.340"` |
//! | ARRAY, MAP, STRUCT, VARIANT | what they are in JSON; their text where it does not parse |
//! | all others (STRING, DATE, TIMESTAMP, INTERVAL, BINARY as hexadecimal digits ...) | their text |

use serde_json::{Number, Value};

/// The value of a cell whose column has the type `kind`, as `type_name` tells it.
pub(super) fn cell(value: Value, kind: &str) -> Value {
    let Value::String(text) = value else { return value };
    let typed = match kind {
        "BOOLEAN" => text.parse().ok().map(Value::Bool),
        "BYTE" | "SHORT" | "INT" | "LONG" | "DECIMAL" => {
            text.parse::<i64>().ok().filter(|number| number.to_string() == text).map(Value::from)
        }
        "FLOAT" | "DOUBLE" => text.parse().ok().and_then(Number::from_f64).map(Value::Number),
        "ARRAY" | "MAP" | "STRUCT" | "VARIANT" | "OBJECT" => serde_json::from_str(&text).ok(),
        _ => None,
    };
    typed.unwrap_or(Value::String(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_type_becomes_what_it_is_without_loss() {
        for (kind, text, expected) in [
            ("BOOLEAN", "true", json!(true)),
            ("BOOLEAN", "maybe", json!("maybe")),
            ("BYTE", "-128", json!(-128)),
            ("SHORT", "7", json!(7)),
            ("INT", "2147483647", json!(2147483647)),
            ("LONG", "9223372036854775807", json!(9223372036854775807_i64)),
            ("FLOAT", "1.5", json!(1.5)),
            ("DOUBLE", "1.0E-7", json!(1e-7)),
            ("DOUBLE", "NaN", json!("NaN")),
            ("DOUBLE", "-Infinity", json!("-Infinity")),
            ("DECIMAL", "12.340", json!("12.340")),
            ("DECIMAL", "0.1", json!("0.1")),
            ("DECIMAL", "42", json!(42)),
            (
                "DECIMAL",
                "12345678901234567890123456789012345678",
                json!("12345678901234567890123456789012345678"),
            ),
            ("STRING", "1", json!("1")),
            ("CHAR", "", json!("")),
            ("DATE", "2026-11-22", json!("2026-11-22")),
            ("TIMESTAMP", "2026-11-22T10:17:16.123456Z", json!("2026-11-22T10:17:16.123456Z")),
            ("TIMESTAMP_NTZ", "2026-11-22T10:17:16", json!("2026-11-22T10:17:16")),
            ("BINARY", "010203", json!("010203")),
            ("INTERVAL", "1-2", json!("1-2")),
            ("ARRAY", "[1,\"a\",null]", json!([1, "a", null])),
            ("MAP", "{\"a\":{\"b\":true}}", json!({"a": {"b": true}})),
            ("STRUCT", "{\"a\":\"1\"}", json!({"a": "1"})),
            ("STRUCT", "{a, 1}", json!("{a, 1}")),
            ("VARIANT", "1.5", json!(1.5)),
            ("USER_DEFINED_TYPE", "x", json!("x")),
        ] {
            assert_eq!(cell(json!(text), kind), expected, "{kind} {text}");
        }
        assert_eq!(cell(Value::Null, "INT"), Value::Null);
    }
}
