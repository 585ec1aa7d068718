//! Days and times as ISO 8601.
//!
//! DuckDB counts to the year 294247, further than `jiff` does, so the civil date is computed here.

/// `2026-11-23`; `infinity`, `-infinity`.
pub(super) fn date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".to_owned(),
        days if days == -i32::MAX => "-infinity".to_owned(),
        days => day(days.into()),
    }
}

/// `10:00:00`, with all digits of a fraction that is not zero. `24:00:00` is a time of DuckDB.
pub(super) fn time(value: i64, per_second: i64) -> String {
    let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let digits = per_second.ilog10() as usize;
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { clock } else { format!("{clock}.{fraction:0digits$}") }
}

/// `2026-11-23T10:00:00.123456`, with `Z` where `is_utc`; `infinity`, `-infinity`.
pub(super) fn timestamp(value: i64, per_second: i64, is_utc: bool) -> String {
    if value == i64::MAX {
        return "infinity".to_owned();
    }
    if value == -i64::MAX {
        return "-infinity".to_owned();
    }
    let per_day = 86_400 * per_second;
    let zone = if is_utc { "Z" } else { "" };
    format!("{}T{}{zone}", day(value.div_euclid(per_day)), time(value.rem_euclid(per_day), per_second))
}

/// `10:00:00+02:00` from DuckDB's 64 bits: 40 of microseconds, 24 of an offset in seconds that counts down from
/// 15:59:59 east.
pub(super) fn time_tz(bits: u64) -> String {
    let micros = i64::try_from(bits >> 24).expect("40 bits fit");
    let offset = 57_599 - i64::try_from(bits & 0xff_ffff).expect("24 bits fit");
    let sign = if offset < 0 { '-' } else { '+' };
    let (hours, minutes, seconds) = (offset.abs() / 3600, offset.abs() / 60 % 60, offset.abs() % 60);
    let odd = if seconds == 0 { String::new() } else { format!(":{seconds:02}") };
    format!("{}{sign}{hours:02}:{minutes:02}{odd}", time(micros, 1_000_000))
}

/// `P1Y2M3DT4H5M6.5S`; each part has its own sign, as in DuckDB.
pub(super) fn interval(months: i32, days: i32, nanos: i64) -> String {
    let seconds = nanos / 1_000_000_000;
    let mut text = "P".to_owned();
    let mut part = |value: i64, unit: &str| {
        if value != 0 {
            text.push_str(&format!("{value}{unit}"));
        }
    };
    part((months / 12).into(), "Y");
    part((months % 12).into(), "M");
    part(days.into(), "D");
    if nanos != 0 {
        text.push('T');
        let mut part = |value: i64, unit: &str| {
            if value != 0 {
                text.push_str(&format!("{value}{unit}"));
            }
        };
        part(seconds / 3600, "H");
        part(seconds / 60 % 60, "M");
        let fraction = (nanos % 1_000_000_000).unsigned_abs();
        if seconds % 60 != 0 || fraction != 0 {
            let sign = if nanos < 0 { "-" } else { "" };
            let digits = format!("{fraction:09}");
            let digits = digits.trim_end_matches('0');
            let point = if digits.is_empty() { "" } else { "." };
            text.push_str(&format!("{sign}{}{point}{digits}S", (seconds % 60).abs()));
        }
    }
    if text == "P" { "PT0S".to_owned() } else { text }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, by the method of Howard Hinnant's `civil_from_days`.
fn day(days: i64) -> String {
    let shifted = days + 719_468; // days since 0000-03-01
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153; // March is 0
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:+07}-{month:02}-{day:02}"),
    }
}
