//! One cell of a result as the JSON that a reader of the alert expects.
//!
//! | DuckDB | JSON |
//! |---|---|
//! | BOOLEAN, NULL | `true`, `null` |
//! | integers, also HUGEINT and DECIMAL without a scale | number within 64 bits, digits as text beyond |
//! | FLOAT, DOUBLE | number; `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | DECIMAL with a scale | text with exactly its digits, `"12.340"` |
//! | DATE, TIME, TIMESTAMP | `"2026-11-23"`, `"10:00:00.123456"`, `"2026-11-23T10:00:00.123456"`; `"infinity"` |
//! | TIMESTAMPTZ, TIMETZ | `"2026-11-23T10:00:00Z"` (UTC), `"10:00:00+02:00"` |
//! | INTERVAL | ISO 8601, `"P1Y2M3DT4H5M6.5S"` |
//! | VARCHAR, ENUM, UUID, BIT, BIGNUM | text |
//! | BLOB, GEOMETRY (as WKB) | base64 |
//! | JSON | what it says; its text where it does not parse |
//! | LIST, ARRAY, STRUCT without names | array |
//! | STRUCT, MAP with text keys | object |
//! | MAP with other keys | array of `{"key", "value"}` |
//! | UNION | its value |

mod time;

use ::duckdb::arrow::array::{Array, AsArray};
use ::duckdb::arrow::datatypes as arrow;
use ::duckdb::arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::datasource::room::Room;

/// The value of `array[row]`. `field` describes it: DuckDB names there what Arrow has no type for.
pub(super) fn cell(array: &dyn Array, field: &Field, row: usize, room: &mut Room) -> Value {
    if array.is_null(row) {
        room.take(4);
        return Value::Null;
    }
    match special(field) {
        Some(special) => special.cell(array, row, room),
        None => plain(array, field, row, room),
    }
}

fn plain(array: &dyn Array, field: &Field, row: usize, room: &mut Room) -> Value {
    macro_rules! native {
        ($kind:ident) => {
            array.as_primitive::<arrow::$kind>().value(row)
        };
    }
    match array.data_type() {
        DataType::Null => {
            room.take(4);
            Value::Null
        }
        DataType::Boolean => room.number(array.as_boolean().value(row)),
        DataType::Int8 => room.number(native!(Int8Type)),
        DataType::Int16 => room.number(native!(Int16Type)),
        DataType::Int32 => room.number(native!(Int32Type)),
        DataType::Int64 => room.number(native!(Int64Type)),
        DataType::UInt8 => room.number(native!(UInt8Type)),
        DataType::UInt16 => room.number(native!(UInt16Type)),
        DataType::UInt32 => room.number(native!(UInt32Type)),
        DataType::UInt64 => room.number(native!(UInt64Type)),
        // By its own digits: 0.1 as FLOAT is 0.1, not the 0.10000000149011612 of the nearest DOUBLE.
        DataType::Float32 => {
            let value = native!(Float32Type);
            float(value.to_string().parse().unwrap_or(f64::from(value)), room)
        }
        DataType::Float64 => float(native!(Float64Type), room),
        DataType::Decimal32(_, scale) => decimal(native!(Decimal32Type).into(), *scale, room),
        DataType::Decimal64(_, scale) => decimal(native!(Decimal64Type).into(), *scale, room),
        DataType::Decimal128(_, scale) => decimal(native!(Decimal128Type), *scale, room),
        DataType::Date32 => room.text(time::date(native!(Date32Type))),
        DataType::Time64(TimeUnit::Microsecond) => {
            room.text(time::time(native!(Time64MicrosecondType), 1_000_000))
        }
        DataType::Time64(_) => room.text(time::time(native!(Time64NanosecondType), 1_000_000_000)),
        DataType::Timestamp(unit, zone) => {
            let (value, per_second) = match unit {
                TimeUnit::Second => (native!(TimestampSecondType), 1),
                TimeUnit::Millisecond => (native!(TimestampMillisecondType), 1_000),
                TimeUnit::Microsecond => (native!(TimestampMicrosecondType), 1_000_000),
                TimeUnit::Nanosecond => (native!(TimestampNanosecondType), 1_000_000_000),
            };
            room.text(time::timestamp(value, per_second, zone.is_some()))
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let value = native!(IntervalMonthDayNanoType);
            room.text(time::interval(value.months, value.days, value.nanoseconds))
        }
        DataType::Utf8 => text(array.as_string::<i32>().value(row), room),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row), room),
        DataType::Utf8View => text(array.as_string_view().value(row), room),
        DataType::Binary => base64(array.as_binary::<i32>().value(row), room),
        DataType::LargeBinary => base64(array.as_binary::<i64>().value(row), room),
        DataType::BinaryView => base64(array.as_binary_view().value(row), room),
        DataType::FixedSizeBinary(_) => base64(array.as_fixed_size_binary().value(row), room),
        DataType::Dictionary(_, _) => {
            let entries = array.as_any_dictionary();
            let keys = entries.keys();
            let key = match keys.data_type() {
                DataType::UInt8 => usize::from(keys.as_primitive::<arrow::UInt8Type>().value(row)),
                DataType::UInt16 => usize::from(keys.as_primitive::<arrow::UInt16Type>().value(row)),
                _ => keys.as_primitive::<arrow::UInt32Type>().value(row) as usize,
            };
            cell(entries.values().as_ref(), field, key, room)
        }
        DataType::List(item) => list(array.as_list::<i32>().value(row).as_ref(), item, room),
        DataType::LargeList(item) => list(array.as_list::<i64>().value(row).as_ref(), item, room),
        DataType::FixedSizeList(item, _) => list(array.as_fixed_size_list().value(row).as_ref(), item, room),
        DataType::Struct(_) => structure(array, row, room),
        DataType::Map(_, _) => map(array, row, room),
        DataType::Union(members, _) => {
            let union = array.as_any().downcast_ref::<::duckdb::arrow::array::UnionArray>();
            let member = union.and_then(|union| {
                let tag = union.type_id(row);
                let (_, field) = members.iter().find(|(id, _)| *id == tag)?;
                Some(cell(union.child(tag).as_ref(), field, union.value_offset(row), room))
            });
            member.unwrap_or(Value::Null)
        }
        other => room.text(format!("[no JSON for {other}]")),
    }
}

/// DuckDB's types that Arrow carries under another one's name.
enum Special {
    Bool,
    Json,
    Uuid,
    HugeInt,
    UnsignedHugeInt,
    Bit,
    TimeTz,
    BigNum,
}

fn special(field: &Field) -> Option<Special> {
    let metadata = field.metadata();
    match metadata.get("ARROW:extension:name")?.as_str() {
        "arrow.bool8" => Some(Special::Bool),
        "arrow.json" => Some(Special::Json),
        "arrow.uuid" => Some(Special::Uuid),
        "arrow.opaque" => {
            let detail: Value = serde_json::from_str(metadata.get("ARROW:extension:metadata")?).ok()?;
            match detail.get("type_name")?.as_str()? {
                "hugeint" => Some(Special::HugeInt),
                "uhugeint" => Some(Special::UnsignedHugeInt),
                "bit" => Some(Special::Bit),
                "time_tz" => Some(Special::TimeTz),
                "bignum" => Some(Special::BigNum),
                _ => None,
            }
        }
        _ => None,
    }
}

impl Special {
    fn cell(&self, array: &dyn Array, row: usize, room: &mut Room) -> Value {
        let bytes = || match array.data_type() {
            DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row),
            DataType::LargeBinary => array.as_binary::<i64>().value(row),
            _ => array.as_binary::<i32>().value(row),
        };
        match self {
            Self::Bool => room.number(array.as_primitive::<arrow::Int8Type>().value(row) != 0),
            Self::Json => match array.data_type() {
                DataType::LargeUtf8 => json(array.as_string::<i64>().value(row), room),
                DataType::Utf8View => json(array.as_string_view().value(row), room),
                _ => json(array.as_string::<i32>().value(row), room),
            },
            Self::Uuid => room.text(uuid(bytes())),
            Self::HugeInt => {
                let value = i128::from_le_bytes(fixed(bytes()));
                integer(value, room)
            }
            Self::UnsignedHugeInt => {
                let value = u128::from_le_bytes(fixed(bytes()));
                match u64::try_from(value) {
                    Ok(value) => room.number(value),
                    Err(_) => room.text(value.to_string()),
                }
            }
            Self::Bit => room.text(bits(bytes())),
            Self::TimeTz => room.text(time::time_tz(u64::from_le_bytes(fixed(bytes())))),
            Self::BigNum => room.text(bignum(bytes())),
        }
    }
}

fn float(value: f64, room: &mut Room) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => room.number(number),
        None if value.is_nan() => room.text("NaN"),
        None if value > 0.0 => room.text("Infinity"),
        None => room.text("-Infinity"),
    }
}

fn integer(value: i128, room: &mut Room) -> Value {
    if let Ok(value) = i64::try_from(value) {
        room.number(value)
    } else if let Ok(value) = u64::try_from(value) {
        room.number(value)
    } else {
        room.text(value.to_string())
    }
}

fn decimal(unscaled: i128, scale: i8, room: &mut Room) -> Value {
    let Ok(scale @ 1..) = usize::try_from(scale) else { return integer(unscaled, room) };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    room.text(format!("{sign}{whole}.{fraction}"))
}

fn text(value: &str, room: &mut Room) -> Value {
    room.text(value)
}

/// Text that is too long is not parsed, so that the cut applies to it.
fn json(value: &str, room: &mut Room) -> Value {
    if value.len() <= room.left
        && let Ok(parsed) = serde_json::from_str::<Value>(value)
    {
        let bytes = parsed.to_string().len();
        room.take(bytes);
        return parsed;
    }
    room.text(value)
}

fn base64(bytes: &[u8], room: &mut Room) -> Value {
    // No more than can be shown is encoded.
    let shown = bytes.len().min(room.left / 4 * 3);
    if shown == bytes.len() && bytes.len().div_ceil(3) * 4 + 2 <= room.left {
        return room.text(STANDARD.encode(bytes));
    }
    let begin = room.left.saturating_sub(Room::MARKER) / 4 * 3;
    room.cut(&STANDARD.encode(&bytes[..begin.min(shown)]), format_args!("{} bytes", bytes.len()))
}

fn list(items: &dyn Array, field: &Field, room: &mut Room) -> Value {
    room.list(items.len(), |room, at| cell(items, field, at, room))
}

fn structure(array: &dyn Array, row: usize, room: &mut Room) -> Value {
    let columns = array.as_struct();
    // `row(1, 'a')` has no names.
    if columns.fields().iter().all(|field| field.name().is_empty()) {
        return room.list(columns.num_columns(), |room, at| {
            cell(columns.column(at).as_ref(), &columns.fields()[at], row, room)
        });
    }
    room.take(2);
    let mut object = Map::with_capacity(columns.num_columns());
    for (column, field) in columns.columns().iter().zip(columns.fields()) {
        room.take(Room::quoted_len(field.name()) + 2);
        object.insert(field.name().clone(), cell(column.as_ref(), field, row, room));
    }
    Value::Object(object)
}

fn map(array: &dyn Array, row: usize, room: &mut Room) -> Value {
    let entries = array.as_map().value(row);
    let (keys, values) = (entries.column(0), entries.column(1));
    let (key, value) = (&entries.fields()[0], &entries.fields()[1]);
    let is_text =
        matches!(keys.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Dictionary(_, _));
    let pairs = room.list(entries.len(), |room, at| {
        let pair = [
            ("key".to_owned(), cell(keys.as_ref(), key, at, room)),
            ("value".to_owned(), cell(values.as_ref(), value, at, room)),
        ];
        room.take(if is_text { 1 } else { 19 });
        Value::Object(Map::from_iter(pair))
    });
    if is_text { as_object(pairs) } else { pairs }
}

/// `[{"key": "a", "value": 1}]` as `{"a": 1}`; the marker of a cut keeps its place as a key.
fn as_object(pairs: Value) -> Value {
    let Value::Array(pairs) = pairs else { return pairs };
    let entry = |pair: Value| match pair {
        Value::Object(mut pair) => {
            let value = pair.remove("value").unwrap_or_default();
            match pair.remove("key") {
                Some(Value::String(key)) => (key, value),
                key => (key.unwrap_or_default().to_string(), value),
            }
        }
        marker => (marker.as_str().unwrap_or_default().to_owned(), Value::Null),
    };
    Value::Object(pairs.into_iter().map(entry).collect())
}

fn uuid(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match digits.len() {
        32 => [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-"),
        _ => digits,
    }
}

/// The first byte says how many bits of the second one are padding.
fn bits(bytes: &[u8]) -> String {
    let Some((&padding, bytes)) = bytes.split_first() else { return String::new() };
    bytes.iter().map(|byte| format!("{byte:08b}")).collect::<String>().split_off(usize::from(padding))
}

/// Three bytes of header, whose top bit is the sign, then the magnitude, most significant byte first; all bits are
/// inverted in a negative number.
fn bignum(bytes: &[u8]) -> String {
    let Some((header, magnitude)) = bytes.split_at_checked(3) else { return String::new() };
    let is_negative = header[0] & 0x80 == 0;
    let mut rest: Vec<u8> = magnitude.iter().map(|byte| if is_negative { !byte } else { *byte }).collect();
    let mut groups = Vec::new();
    while rest.iter().any(|&byte| byte != 0) {
        let mut remainder = 0_u64;
        for byte in &mut rest {
            let part = remainder << 8 | u64::from(*byte);
            *byte = u8::try_from(part / GROUP).expect("the remainder was below the divisor");
            remainder = part % GROUP;
        }
        groups.push(remainder);
    }
    let mut text = if is_negative { "-".to_owned() } else { String::new() };
    text.push_str(&groups.last().map_or("0".to_owned(), u64::to_string));
    text.extend(groups.iter().rev().skip(1).map(|group| format!("{group:09}")));
    text
}

const GROUP: u64 = 1_000_000_000;

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}
