//! What ClickHouse's errors mean.

use std::error::Error as _;
use std::sync::LazyLock;
use std::time::Duration;

use clickhouse::error::Error;
use regex::Regex;

use crate::datasource::{QueryError, bounded};

/// An error that the server itself tells: `Code: 62. DB::Exception: Syntax error: ... (SYNTAX_ERROR) (version ...)`.
#[derive(Debug, PartialEq)]
pub(super) struct Exception {
    /// See `system.errors`.
    pub code: u32,
    /// Without code and version.
    pub message: String,
}

impl Exception {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let found = EXCEPTION.captures(text)?;
        let code = found[1].parse().ok()?;
        let rest = &text[found.get(0)?.end()..];
        let end = rest.rfind("(version ").unwrap_or(rest.len());
        Some(Self { code, message: bounded(&rest[..end]) })
    }

    /// The server takes fewer settings from this user than were sent.
    pub(super) fn is_about_settings(&self) -> bool {
        match self.code {
            UNKNOWN_SETTING | SETTING_CONSTRAINT_VIOLATION => true,
            READONLY => self.message.contains("Cannot modify"),
            _ => false,
        }
    }

    /// The user's own profile has `readonly=1`: it may set nothing at all.
    pub(super) fn is_about_all_settings(&self) -> bool {
        self.code == READONLY && self.is_about_settings()
    }
}

impl From<Exception> for QueryError {
    fn from(Exception { code, message }: Exception) -> Self {
        let text = format!("{message} (code {code})");
        match code {
            // REQUIRED_PASSWORD, UNKNOWN_USER, WRONG_PASSWORD, IP_ADDRESS_NOT_ALLOWED, ACCESS_DENIED, AUTHENTICATION_FAILED
            192..=195 | 497 | 516 => Self::Denied(text),
            // ALL_CONNECTION_TRIES_FAILED, QUOTA_EXCEEDED, TOO_MANY_SIMULTANEOUS_QUERIES, SOCKET_TIMEOUT, NETWORK_ERROR,
            // ABORTED, QUERY_WAS_CANCELLED, SYSTEM_ERROR, CANNOT_SCHEDULE_TASK, USER_SESSION_LIMIT_EXCEEDED, KEEPER_EXCEPTION
            279 | 201 | 202 | 209 | 210 | 236 | 394 | 425 | 439 | 700 | 999 => Self::Unavailable(text),
            // The server's memory is full of others' queries; a query over its own limit is refused.
            MEMORY_LIMIT_EXCEEDED if text.contains("(total)") => Self::Unavailable(text),
            _ => Self::Refused(text),
        }
    }
}

/// `error` of the client library; `host` is where it happened. Unreadable where an answer had begun.
pub(super) fn of_client(error: Error, host: &str) -> QueryError {
    match error {
        Error::BadResponse(text) => {
            if let Some(exception) = Exception::parse(&text) {
                return exception.into();
            }
            let said = bounded(&text);
            // What stands before the server, or no ClickHouse at all.
            match said.get(..3) {
                Some("401" | "403" | "407") => QueryError::Denied(format!("{host}: {said}")),
                _ => QueryError::Unavailable(format!("{host} does not answer as ClickHouse: {said}")),
            }
        }
        // Of the client and not of a body.
        Error::Network(ref inner) if inner.is::<hyper_util::client::legacy::Error>() => {
            QueryError::Unavailable(format!("{host} cannot be reached: {}", reason(&error)))
        }
        Error::Network(_) => QueryError::Unreadable(format!("it broke off: {}", reason(&error))),
        Error::InvalidParams(_) => {
            QueryError::Refused(format!("the request cannot be made: {}", reason(&error)))
        }
        error => QueryError::Unreadable(bounded(&error.to_string())),
    }
}

/// The server stopped the query at the time that it was given.
pub(super) fn is_timeout(exception: &Exception) -> bool {
    exception.code == TIMEOUT_EXCEEDED
}

pub(super) fn timed_out(limit: Duration) -> QueryError {
    QueryError::TimedOut { limit }
}

/// What lies beneath: the outer layers only say that something failed.
fn reason(error: &Error) -> String {
    let mut reasons: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        if !reasons.iter().any(|known| known.contains(&text)) {
            reasons.push(text);
        }
        source = inner.source();
    }
    // The first is a word of the library, e.g. `client error (Connect)`.
    let begin = usize::from(reasons.len() > 1);
    bounded(&reasons[begin..].join(": "))
}

static EXCEPTION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"Code: (\d{1,9})\. DB::\w*Exception: ").expect("a constant pattern"));

const UNKNOWN_SETTING: u32 = 115;
const TIMEOUT_EXCEEDED: u32 = 159;
const READONLY: u32 = 164;
const MEMORY_LIMIT_EXCEEDED: u32 = 241;
const SETTING_CONSTRAINT_VIOLATION: u32 = 452;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> QueryError {
        Exception::parse(text).unwrap().into()
    }

    #[test]
    fn the_servers_own_message_is_kept_without_code_and_version() {
        let text = "Code: 62. DB::Exception: Syntax error: failed at position 8 (end of query). (SYNTAX_ERROR) (version 26.5.1.1 (official build))\n";
        assert_eq!(
            of(text).to_string(),
            "query refused: Syntax error: failed at position 8 (end of query). (SYNTAX_ERROR) (code 62)"
        );
        assert_eq!(Exception::parse("no exception"), None);
    }

    #[test]
    fn each_kind_of_exception_is_told_apart() {
        let code = |code: u32, text: &str| of(&format!("Code: {code}. DB::Exception: {text}"));
        assert!(matches!(code(516, "Authentication failed"), QueryError::Denied(_)));
        assert!(matches!(code(497, "Not enough privileges"), QueryError::Denied(_)));
        assert!(matches!(code(202, "Too many simultaneous queries"), QueryError::Unavailable(_)));
        assert!(matches!(code(241, "(total) memory limit exceeded"), QueryError::Unavailable(_)));
        assert!(matches!(code(241, "Query memory limit exceeded"), QueryError::Refused(_)));
        assert!(matches!(code(47, "Unknown identifier"), QueryError::Refused(_)));
        let of_client = |text: &str| of_client(Error::BadResponse(text.into()), "a:8123");
        assert!(
            matches!(of_client("502 Bad Gateway"), QueryError::Unavailable(text) if text == "a:8123 does not answer as ClickHouse: 502 Bad Gateway")
        );
        assert!(matches!(of_client("403 Forbidden"), QueryError::Denied(_)));
    }
}
