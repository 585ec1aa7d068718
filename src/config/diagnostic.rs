//! What is wrong with a file: where, what, and how to fix it.

use std::fmt;

use super::yaml::Position;

/// One problem, in the words that `check`, `run`, the log and the API all use.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// As the operator would type it: relative paths are relative to where the command was started.
    pub file: String,
    /// `None` is the file as a whole.
    pub at: Option<Position>,
    /// Within the file, e.g. `detectors.five.webhooks[1]`; empty at its top.
    pub path: String,
    pub message: String,
    pub severity: Severity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// What was written works, but probably not as meant.
    Warning,
    /// What was written cannot be used.
    Error,
}

impl Diagnostic {
    /// A problem of the file as a whole.
    pub fn of_file(file: impl Into<String>, severity: Severity, message: impl Into<String>) -> Self {
        Self { file: file.into(), at: None, path: String::new(), message: message.into(), severity }
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(at) = self.at {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        // A message is one line, whatever the text it quotes.
        for character in self.message.chars() {
            match character {
                '\n' => f.write_str("\\n")?,
                control if control.is_control() => write!(f, "{}", control.escape_default())?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

/// `; did you mean `x`?` where one of `known` is near to `word`, else nothing.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    if word.len() > 64 {
        return String::new();
    }
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= name.chars().count().max(lower.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_says_where_what_and_how() {
        let diagnostic = Diagnostic {
            file: "runner.yml".into(),
            at: Some(Position { line: 11, column: 9 }),
            path: "detectors.five.webhooks[1]".into(),
            message: format!("no webhook `slak`{}", suggestion("slak", ["hook", "slack"])),
            severity: Severity::Error,
        };
        insta::assert_snapshot!(
            diagnostic,
            @"runner.yml:11:9: detectors.five.webhooks[1]: no webhook `slak`; did you mean `slack`?"
        );
    }

    #[test]
    fn a_diagnostic_is_one_line_whatever_it_quotes() {
        let hostile = Diagnostic::of_file("f", Severity::Warning, "`a\nb\u{1b}[31m`");
        assert_eq!(hostile.to_string(), "f: warning: `a\\nb\\u{1b}[31m`");
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        assert_eq!(suggestion("webhoks", ["webhooks", "detectors"]), "; did you mean `webhooks`?");
        assert_eq!(suggestion("foo", ["webhooks", "detectors"]), "");
        assert_eq!(suggestion("if", ["of"]), "", "two letters are near to everything");
    }
}
