//! Durations and sizes as operators write them.

use std::time::Duration;

/// What a duration looks like, for messages.
pub const DURATION: &str = "a duration, e.g. `30s`, `5m`, `1.5h`, `7d`, `2w`, `1mo`, `1y`";

/// Between nothing and 10 years, written with its unit, e.g. `1.5h`. A month has 30 days, a year 365.
///
/// Blanks may stand around it and before the unit. Fails with the words for the operator.
pub fn duration(text: &str) -> Result<Duration, String> {
    let written = text.trim();
    let unit_at = written.find(|character: char| !(character.is_ascii_digit() || character == '.'));
    let (number, unit) = written.split_at(unit_at.unwrap_or(written.len()));
    let seconds_per_unit = match unit.trim_start() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        "w" => 7.0 * 86_400.0,
        "mo" => 30.0 * 86_400.0,
        "y" => YEAR_S,
        _ => return Err(format!("`{}` is not {DURATION}", super::read::clip(text))),
    };
    seconds(number, seconds_per_unit, text)
}

/// Like [`duration`]; a bare number counts seconds.
pub fn duration_or_seconds(text: &str) -> Result<Duration, String> {
    if text
        .trim()
        .parse::<f64>()
        .is_ok_and(|_| text.trim().bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'))
    {
        return seconds(text.trim(), 1.0, text);
    }
    duration(text)
}

fn seconds(number: &str, unit: f64, text: &str) -> Result<Duration, String> {
    let number: f64 =
        number.parse().map_err(|_| format!("`{}` is not {DURATION}", super::read::clip(text)))?;
    let seconds = number * unit;
    if seconds > 10.0 * YEAR_S {
        return Err(format!("`{}` is more than 10 years", super::read::clip(text)));
    }
    // Whole milliseconds: 0.1 s is then exactly that.
    Ok(Duration::from_millis((seconds * 1_000.0).round() as u64))
}

const YEAR_S: f64 = 365.0 * 86_400.0;

/// The shortest way to write it: `90s`, `5m`, `1h`, `0.5s`.
pub fn duration_text(duration: Duration) -> String {
    if duration.subsec_nanos() > 0 {
        return format!("{}s", duration.as_secs_f64());
    }
    let seconds = duration.as_secs();
    let unit = [(604_800, "w"), (86_400, "d"), (3_600, "h"), (60, "m")];
    match unit.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit)) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// What a size looks like, for messages.
pub const SIZE: &str = "a size, e.g. `512MB`, `4GiB`";

/// Bytes, from a number with an optional unit: `KB` is 1,000, `KiB` 1,024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{}` is not {SIZE}", super::read::clip(text));
    let written = text.trim();
    let unit_at = written.find(|character: char| !(character.is_ascii_digit() || character == '.'));
    let (number, unit) = written.split_at(unit_at.unwrap_or(written.len()));
    let unit: f64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let bytes = number * unit;
    if !(1.0..=1e15).contains(&bytes) {
        return Err(format!("`{}` is not between 1 byte and 1000 TB", super::read::clip(text)));
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_clickdetect_reads_them() {
        let seconds = |text: &str| duration(text).map(|duration| duration.as_secs_f64());
        let good = [
            ("30s", 30.0),
            ("5m", 300.0),
            ("1.5h", 5_400.0),
            ("7d", 604_800.0),
            ("2w", 1_209_600.0),
            ("1mo", 2_592_000.0),
            ("1y", 31_536_000.0),
            (" 5 m ", 300.0),
            (".5m", 30.0),
            ("5.s", 5.0),
            ("10y", 315_360_000.0),
        ];
        for (text, expected) in good {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in ["", "5", "m", "5 minutes", "5M", "1h30m", "-5m", "1.2.3s", "١s", "1e3s"] {
            assert!(duration(text).unwrap_err().contains("is not a duration, e.g."), "{text}");
        }
        assert_eq!(duration("11y").unwrap_err(), "`11y` is more than 10 years");
        assert_eq!(duration(&"9".repeat(400)).map_err(|_| ()), Err(()));
        assert_eq!(duration_or_seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration_or_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert!(duration_or_seconds("inf").is_err());
    }

    #[test]
    fn sizes_are_decimal_unless_they_say_i() {
        assert_eq!(bytes("1GB"), Ok(1_000_000_000));
        assert_eq!(bytes("1.5 KiB"), Ok(1_536));
        assert_eq!(bytes("10"), Ok(10));
        for text in ["", "GB", "1 XB", "-1GB", "0"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_that_is_written_is_read_as_it_was(millis in 0_u64..315_360_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(super::duration(&duration_text(duration)), Ok(duration));
        }
    }
}
