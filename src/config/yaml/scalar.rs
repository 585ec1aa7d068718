//! Plain scalars, typed as PyYAML's `safe_load` types them.

#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    pub text: String,
    pub style: Style,
}

/// How a scalar is written. Only a plain one can be anything but text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Plain,
    Quoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
    /// Not in the file: from the environment or another file. Typed like a plain one, but never null.
    Fetched,
}

/// What PyYAML makes of a scalar.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text,
}

impl Scalar {
    pub fn resolve(&self) -> Resolved {
        match self.text.as_str() {
            _ if !matches!(self.style, Style::Plain | Style::Fetched) => Resolved::Text,
            "" | "~" | "null" | "Null" | "NULL" if self.style == Style::Plain => Resolved::Null,
            "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Resolved::Bool(true),
            "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Resolved::Bool(false),
            text => int(text)
                .map(Resolved::Int)
                .or_else(|| float(text).map(Resolved::Float))
                .unwrap_or(Resolved::Text),
        }
    }
}

/// `[-+]` then `0b`, `0x`, octal with a leading 0, decimal or sexagesimal; `_` anywhere after the first digit.
fn int(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (radix, body) = match digits.as_bytes() {
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', _, ..] => (8, digits),
        _ => (10, digits),
    };
    let value = if radix == 10 && body.contains(':') {
        sexagesimal(body)?
    } else {
        i128::from_str_radix(&body.replace('_', ""), radix).ok().filter(|_| !body.contains(['+', '-']))?
    };
    Some(if negative { -value } else { value })
}

/// `1:30` is 90: PyYAML reads base 60 where every part after the first is below 60.
fn sexagesimal(text: &str) -> Option<i128> {
    let mut total: i128 = 0;
    for (index, part) in text.split(':').enumerate() {
        let digits = if index == 0 { part.replace('_', "") } else { part.to_owned() };
        let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits
            || (index > 0 && (digits.len() > 2 || digits.as_bytes()[0] > b'5' && digits.len() == 2))
        {
            return None;
        }
        total = total.checked_mul(60)?.checked_add(digits.parse().ok()?)?;
    }
    Some(total)
}

/// A float to YAML 1.1 has a point, and its exponent a sign: `1e5` is text.
fn float(text: &str) -> Option<f64> {
    match text.strip_prefix(['-', '+']).unwrap_or(text) {
        ".inf" | ".Inf" | ".INF" => {
            return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
        }
        ".nan" | ".NaN" | ".NAN" if text.starts_with('.') => return Some(f64::NAN),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = unsigned.split_once('.')?;
    let (fraction, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let starts = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
    let point_first = whole.is_empty() && starts(fraction) && !text.starts_with(['-', '+']);
    let exponent_fits = exponent.is_none_or(|exponent| {
        exponent
            .strip_prefix(['-', '+'])
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    if !(digits(whole) && digits(fraction) && exponent_fits && (starts(whole) || point_first)) {
        return None;
    }
    text.replace('_', "").parse().ok()
}
