//! Bodies that the operator writes, as Jinja templates.
//!
//! Where the body is JSON, strings print as they are and everything else as JSON, so that clickdetect's
//! `{ "rule": {{ rule }} }` works. What is printed between quotes prints as in Python, as clickdetect's does, and is
//! escaped as JSON wants it: `"{{ data.value[0].user }}"` stays valid, and stays one field, whatever an attacker wrote
//! into the log. Outside quotes a string prints as it is: `{{ value | tojson }}` puts the quotes around it.
//!
//! Where it is text, everything prints as in Python, as clickdetect's messages do, and each value goes through the
//! [`Escape`] of the destination.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, Output, UndefinedBehavior};
use serde_json::Map;

use crate::rule::template;
use crate::text;

/// A template whose syntax has been checked.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    style: Style,
}

/// What comes out of a template.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    /// The escape must keep JSON valid that is printed by `tojson`.
    Json(Escape),
    Text(Escape),
}

/// Takes from a value what the destination would obey: markup, mentions. What the operator wrote around it stays.
pub(super) type Escape = fn(&str) -> Cow<'_, str>;

/// For receivers that read data and obey none of it.
pub(super) fn as_it_is(value: &str) -> Cow<'_, str> {
    Cow::Borrowed(value)
}

/// For destinations that obey nothing: what hides from the eye or steers a terminal is shown as `\u{..}`; line breaks
/// and tabs stay.
pub(super) fn plain(value: &str) -> Cow<'_, str> {
    let is_unsafe = |character: char| text::is_unsafe(character) && !['\n', '\r', '\t'].contains(&character);
    if !value.contains(is_unsafe) {
        return Cow::Borrowed(value);
    }
    let mut safe = String::with_capacity(value.len() + 16);
    for character in value.chars() {
        if is_unsafe(character) {
            safe.push_str(&text::escape(character.encode_utf8(&mut [0; 4])));
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

impl Template {
    /// Fails with line and reason where `source` is no template.
    pub(super) fn new(source: &str, style: Style) -> Result<Self, String> {
        let mut environment = template::environment();
        // A field that is not there (no verdict yet) prints nothing: it must not cost the alert its delivery.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", |value: &Value| json(value));
        environment.add_filter("to_list_like", list_like);
        if let Style::Text(escape) = style {
            environment.set_formatter(move |out, _, value| match value.is_undefined() {
                true => Ok(()),
                false => out.write_str(&escape(&template::text(value))).map_err(Error::from),
            });
        }
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| reason(&error))?;
        Ok(Self { environment, style })
    }

    /// Fails where a filter gets what it cannot take, or where work or result passes its bounds.
    pub(super) fn render(&self, variables: &Map<String, serde_json::Value>) -> Result<Vec<u8>, String> {
        let mut body = Body::default();
        let place = Arc::clone(&body.place);
        let mut environment = self.environment.clone();
        if let Style::Json(escape) = self.style {
            environment.set_formatter(move |out, _, value| print(out, value, place.is_quoted(), escape));
        }
        let compiled = environment.get_template(NAME).map_err(|error| reason(&error))?;
        match compiled.render_captured_to(template::message(variables), &mut body) {
            Ok(_) => Ok(body.bytes),
            Err(_) if body.is_full => Err(format!("template: the body passes {MAX_BODY_BYTES} bytes")),
            Err(error) => Err(reason(&error)),
        }
    }
}

fn print(out: &mut Output<'_>, value: &Value, is_quoted: bool, escape: Escape) -> Result<(), Error> {
    let text = match (value.as_str(), value.kind()) {
        (_, ValueKind::Undefined) => return Ok(()),
        (Some(text), _) => text.to_owned(),
        (None, _) if is_quoted => template::text(value),
        (None, _) => json(value)?,
    };
    let text = escape(&text);
    if !is_quoted {
        return out.write_str(&text).map_err(Error::from);
    }
    let escaped = json(&Value::from(text.into_owned()))?;
    out.write_str(&escaped[1..escaped.len() - 1]).map_err(Error::from)
}

/// `'a', 'b'`, as clickdetect prints it: a message is no query, in which quotes are doubled.
fn list_like(value: &Value) -> Result<String, Error> {
    let items = template::items(value)?;
    let quoted: Vec<String> = items.iter().map(|item| format!("'{}'", template::text(item))).collect();
    Ok(quoted.join(", "))
}

/// A value that is not there is JSON's `null`.
fn json(value: &Value) -> Result<String, Error> {
    if value.is_undefined() { Ok("null".to_owned()) } else { template::json(value) }
}

fn reason(error: &Error) -> String {
    let line = error.line().map(|line| format!(" line {line}")).unwrap_or_default();
    match error.detail() {
        Some(detail) => format!("template{line}: {}: {detail}", error.kind()),
        None => format!("template{line}: {}", error.kind()),
    }
}

/// The body as it grows, bounded, and where its end stands.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    place: Arc<Place>,
    is_full: bool,
}

impl io::Write for &mut Body {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_BODY_BYTES {
            self.is_full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.place.pass(bytes);
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether what is written next stands between JSON's quotes. Atomic only because a formatter must be `Sync`.
#[derive(Default)]
struct Place(AtomicU8);

impl Place {
    fn is_quoted(&self) -> bool {
        self.0.load(Ordering::Relaxed) & QUOTED != 0
    }

    fn pass(&self, bytes: &[u8]) {
        let mut place = self.0.load(Ordering::Relaxed);
        for byte in bytes {
            place = match (place, byte) {
                (OUTSIDE, b'"') => QUOTED,
                (OUTSIDE, _) => OUTSIDE,
                (QUOTED, b'"') => OUTSIDE,
                (QUOTED, b'\\') => QUOTED | AFTER_BACKSLASH,
                _ => QUOTED,
            };
        }
        self.0.store(place, Ordering::Relaxed);
    }
}

const OUTSIDE: u8 = 0;
const QUOTED: u8 = 1;
const AFTER_BACKSLASH: u8 = 2;

const NAME: &str = "template";
/// Steps of a template: a loop over the most rows that an alert keeps takes a thousandth of it.
const FUEL: u64 = 50_000_000;
const MAX_BODY_BYTES: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, is_json: bool, variables: serde_json::Value) -> Result<String, String> {
        let variables = variables.as_object().unwrap().clone();
        let style = if is_json { Style::Json(as_it_is) } else { Style::Text(plain) };
        Template::new(source, style)?.render(&variables).map(|body| String::from_utf8(body).unwrap())
    }

    #[test]
    fn a_text_prints_as_clickdetect_prints_it() {
        let source = r#"{ "rule": {{ rule }}, "n": {{ rule.level }}, "on": {{ rule.active }}, "none": {{ rule.data }} } {{ rule.name }}"#;
        let variables =
            json!({"rule": {"name": "a \"b\"", "level": 75, "active": true, "data": null, "tags": ["x"]}});
        insta::assert_snapshot!(render(source, false, variables.clone()).unwrap(), @r#"{ "rule": {"name": "a \"b\"", "level": 75, "active": true, "data": null, "tags": ["x"]}, "n": 75, "on": True, "none": None } a "b""#);
        let inside =
            render("{{ rule.tags }} {{ rule.tags | join(', ') }} {{ [rule] }}", false, variables).unwrap();
        assert_eq!(
            inside,
            r#"['x'] x [{'name': 'a "b"', 'level': 75, 'active': True, 'data': None, 'tags': ['x']}]"#
        );
    }

    #[test]
    fn a_json_body_prints_json() {
        let source = r#"{"rule": {{ rule }}, "on": {{ rule.active }}, "none": {{ rule.data }}, "tags": {{ rule.tags }}}"#;
        let rule = json!({"name": "a \"b\"", "active": true, "data": null, "tags": ["x"]});
        let body = render(source, true, json!({"rule": rule})).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body, json!({"rule": rule, "on": true, "none": null, "tags": ["x"]}));
    }

    #[test]
    fn a_text_shows_what_hides_and_keeps_its_lines() {
        let text = render("{{ a }}", false, json!({"a": "one\ntwo\t\u{1b}[2J\u{202e}x"})).unwrap();
        assert_eq!(text, "one\ntwo\t\\u{1b}[2J\\u{202e}x");
    }

    #[test]
    fn log_text_cannot_break_a_json_body_or_add_a_field_to_it() {
        let hostile = json!({"user": "x\", \"severity\": \"low", "path": "C:\\new\n", "rows": [{"a": "\""}]});
        for source in [
            r#"{"user": "{{ user }}", "path": "{{ path }}", "text": "rows: {{ rows }}"}"#,
            r#"{"user": {{ user | tojson }}, "path": "{% if path %}{{ path }}{% endif %}", "text": "rows: {{ rows | tojson }}"}"#,
            r#"{% set t %}rows: {{ rows }}{% endset %}{"user": {{ user | tojson }}, "path": {{ path | tojson }}, "text": "{{ t }}"}"#,
        ] {
            let body = render(source, true, hostile.clone()).unwrap();
            let body: serde_json::Value =
                serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
            // What a block kept was JSON before it came between quotes.
            let is_quoted = source.contains(r#""rows: {{ rows }}""#);
            let text = if is_quoted { r#"rows: [{'a': '"'}]"# } else { r#"rows: [{"a": "\""}]"# };
            let wanted = json!({"user": hostile["user"], "path": hostile["path"], "text": text});
            assert_eq!(body, wanted, "{source}");
        }
    }

    #[test]
    fn a_quote_that_the_template_escapes_does_not_end_the_string() {
        let body = render(
            r#"{"text": "say \"{{ user }}\" \\", "user": "{{ user }}"}"#,
            true,
            json!({"user": "a\"b"}),
        );
        insta::assert_snapshot!(body.unwrap(), @r#"{"text": "say \"a\"b\" \\", "user": "a\"b"}"#);
    }

    #[test]
    fn the_list_filters_are_clickdetects() {
        let source = r#"{{ tags | to_list }} | {{ tags | to_list_like }} | {{ none | to_list or "-" }}"#;
        let text = render(source, false, json!({"tags": ["a", 1, "c"], "none": []})).unwrap();
        assert_eq!(text, "a, 1, c | 'a', '1', 'c' | -");
    }

    #[test]
    fn a_field_that_is_not_there_prints_nothing() {
        let source = "[{{ clickagentic.title }}][{% if clickagentic is defined %}verdict{% endif %}]";
        assert_eq!(render(source, false, json!({})).unwrap(), "[][]");
    }

    #[test]
    fn a_broken_template_is_refused_with_its_line() {
        let error = Template::new("a\n{% if x %}", Style::Json(as_it_is)).unwrap_err();
        assert!(error.starts_with("template line 2: syntax error: "), "{error}");
    }

    #[test]
    fn a_template_that_runs_away_is_stopped() {
        let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
        assert!(render(loops, false, json!({})).unwrap_err().contains("fuel"));
        let large = "{% for a in range(9999) %}{{ text }}{% endfor %}";
        let error = render(large, false, json!({"text": "x".repeat(100_000)})).unwrap_err();
        assert!(error.contains("33554432 bytes"), "{error}");
    }
}
