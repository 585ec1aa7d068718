//! A streamed result as rows within the limits.

use std::collections::VecDeque;
use std::sync::LazyLock;

use bytes::Bytes;
use regex::bytes::Regex;
use serde_json::Map;

use super::failure::Exception;
use super::kinds::Kind;
use crate::datasource::json::{Broken, Json};
use crate::datasource::kept::{Kept, distinct};
use crate::datasource::{Limits, QueryError, Rows, bounded};

/// Takes the pieces of a body in `JSONCompactEachRowWithNamesAndTypes`: a line of names, one of types, and a line for each
/// row. Rows that are not kept are counted by their line ends and not read.
///
/// An error that comes after the first rows is written into the body, as its end. It is found here whatever the version
/// of the server, and whether or not the connection is cut behind it: a result counts only if its last line is a row.
pub(super) struct Reading {
    stage: Stage,
    names: Vec<String>,
    kinds: Vec<Kind>,
    kept: Kept,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// In words, where the body is not what it should be.
    broken: Option<String>,
    /// Bytes that have come since.
    after_broken: usize,
    tail: Tail,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Names,
    Types,
    Rows,
    /// Rows of which nothing is kept, at the beginning of a line or within it.
    Counting {
        is_at_begin: bool,
    },
    /// After an empty line: the totals of `WITH TOTALS`, which are no rows.
    Totals,
}

impl Reading {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            stage: Stage::Names,
            names: Vec::new(),
            kinds: Vec::new(),
            kept: Kept::new(limits),
            line: Vec::new(),
            broken: None,
            after_broken: 0,
            tail: Tail::default(),
        }
    }

    /// The next piece. False where the rest is not worth reading.
    pub(super) fn push(&mut self, piece: &Bytes) -> bool {
        self.tail.push(piece);
        if self.broken.is_some() {
            self.after_broken += piece.len();
            return self.after_broken < MAX_ERROR_BYTES;
        }
        let mut rest = &piece[..];
        while self.broken.is_none() && !rest.is_empty() {
            match self.stage {
                Stage::Totals => break,
                Stage::Counting { is_at_begin } => {
                    self.count(rest, is_at_begin);
                    break;
                }
                Stage::Names | Stage::Types | Stage::Rows => rest = self.line(rest),
            }
        }
        true
    }

    /// The rows, after the end of the body.
    pub(super) fn finish(mut self) -> Result<Rows, Fault> {
        let is_whole = self.tail.ends_with(b"]\n") && self.line.is_empty();
        if self.broken.is_none() && !is_whole {
            self.broken = Some(match self.stage {
                Stage::Names if !self.tail.is_begun => "it is empty: the query has no result".to_owned(),
                _ => "it broke off".to_owned(),
            });
        }
        match self.broken {
            None if matches!(self.stage, Stage::Names | Stage::Types) => {
                Err(Fault::Unreadable("it broke off".into()))
            }
            None => Ok(self.kept.into_rows()),
            Some(reason) => Err(self.tail.exception().map_or(Fault::Unreadable(reason), Fault::Exception)),
        }
    }

    /// What ended the body before its time, where the connection broke.
    pub(super) fn broke_off(self, reason: String) -> Fault {
        self.tail.exception().map_or(Fault::Unreadable(reason), Fault::Exception)
    }

    /// Reads one line, or keeps the beginning of one; returns what is behind it.
    fn line<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let Some(end) = piece.iter().position(|&byte| byte == b'\n') else {
            self.line.extend_from_slice(piece);
            if self.line.len() > MAX_LINE_BYTES {
                self.broken = Some(format!("a row has more than {MAX_LINE_BYTES} bytes: select less of it"));
            }
            return &[];
        };
        let mut whole = std::mem::take(&mut self.line);
        let line = match whole.is_empty() {
            true => &piece[..end],
            false => {
                whole.extend_from_slice(&piece[..end]);
                &whole[..]
            }
        };
        if let Err(reason) = self.read(line) {
            self.broken = Some(reason);
        }
        &piece[end + 1..]
    }

    fn read(&mut self, line: &[u8]) -> Result<(), String> {
        match self.stage {
            Stage::Names => {
                let columns = texts(line).map_err(|_| strange(line))?;
                self.names = distinct(&columns.iter().map(String::as_str).collect::<Vec<_>>());
                self.stage = Stage::Types;
            }
            Stage::Types => {
                let types = texts(line).map_err(|_| strange(line))?;
                if types.len() != self.names.len() {
                    return Err(strange(line));
                }
                self.kinds = types.iter().map(|name| Kind::of(name)).collect();
                self.stage = Stage::Rows;
            }
            Stage::Rows if line.is_empty() => self.stage = Stage::Totals,
            Stage::Rows => {
                let row =
                    self.row(line).map_err(|error| format!("a row is not one: {error}: {}", shown(line)))?;
                self.kept.take(row);
                if self.kept.is_full() {
                    self.stage = Stage::Counting { is_at_begin: true };
                }
            }
            Stage::Counting { .. } | Stage::Totals => {}
        }
        Ok(())
    }

    fn row(&self, line: &[u8]) -> Result<Map<String, serde_json::Value>, Broken> {
        let mut row = Map::with_capacity(self.names.len());
        let mut json = Json::new(line);
        json.list(|json, at| {
            let (name, kind) = self.names.get(at).zip(self.kinds.get(at)).ok_or(Broken(0))?;
            row.insert(name.clone(), kind.read(json)?);
            Ok(())
        })?;
        json.end()?;
        if row.len() == self.names.len() { Ok(row) } else { Err(Broken(line.len())) }
    }

    /// Counts the line ends of `piece`. Each row begins with `[`, and a line end inside a text is escaped, so what
    /// begins otherwise is no row.
    fn count(&mut self, piece: &[u8], is_at_begin: bool) {
        let begins_well = !is_at_begin || piece[0] == b'[';
        let ends = piece.iter().filter(|&&byte| byte == b'\n').count();
        let strange = piece.windows(2).filter(|pair| pair[0] == b'\n' && pair[1] != b'[').count();
        if begins_well && strange == 0 {
            self.kept.count_on(ends as u64);
            self.stage = Stage::Counting { is_at_begin: piece.ends_with(b"\n") };
            return;
        }
        let at = match begins_well {
            false => 0,
            true => {
                piece.windows(2).position(|pair| pair[0] == b'\n' && pair[1] != b'[').map_or(0, |at| at + 1)
            }
        };
        let ends = piece[..at].iter().filter(|&&byte| byte == b'\n').count();
        self.kept.count_on(ends as u64);
        if piece[at] == b'\n' {
            self.stage = Stage::Totals;
        } else {
            self.broken = Some(strange_row(&piece[at..]));
        }
    }
}

/// Why a body gives no rows.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server says so in it.
    Exception(Exception),
    Unreadable(String),
}

impl From<Fault> for QueryError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Exception(exception) => exception.into(),
            Fault::Unreadable(reason) => Self::Unreadable(reason),
        }
    }
}

/// The end of what has come, in which an error may stand.
#[derive(Default)]
struct Tail {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    is_begun: bool,
}

impl Tail {
    fn push(&mut self, piece: &Bytes) {
        self.is_begun |= !piece.is_empty();
        self.bytes += piece.len();
        self.pieces.push_back(piece.clone());
        while let Some(first) = self.pieces.front()
            && self.bytes - first.len() >= TAIL_BYTES
        {
            self.bytes -= first.len();
            self.pieces.pop_front();
        }
    }

    fn whole(&self) -> Vec<u8> {
        let whole: Vec<u8> = self.pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        whole[whole.len().saturating_sub(TAIL_BYTES)..].to_owned()
    }

    fn ends_with(&self, end: &[u8]) -> bool {
        self.pieces.iter().rev().flat_map(|piece| piece.iter().rev()).take(end.len()).eq(end.iter().rev())
    }

    fn exception(&self) -> Option<Exception> {
        let tail = self.whole();
        let begin = EXCEPTION.find_iter(&tail).last()?.start();
        Exception::parse(&String::from_utf8_lossy(&tail[begin..]))
    }
}

fn texts(line: &[u8]) -> Result<Vec<String>, Broken> {
    let mut texts = Vec::new();
    let mut json = Json::new(line);
    json.list(|json, _| {
        texts.push(json.string()?);
        Ok(())
    })?;
    json.end()?;
    Ok(texts)
}

fn strange(line: &[u8]) -> String {
    format!("it is not what ClickHouse writes: `{}`", shown(line))
}

fn strange_row(line: &[u8]) -> String {
    let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
    format!("a row is not one: `{}`", shown(&line[..end]))
}

fn shown(line: &[u8]) -> String {
    bounded(&String::from_utf8_lossy(&line[..line.len().min(200)]))
}

static EXCEPTION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"Code: \d+\. DB::\w*Exception:").expect("a constant pattern"));

const MAX_LINE_BYTES: usize = 16 << 20;
/// Longer than an error that the server writes.
const TAIL_BYTES: usize = 64 << 10;
/// Read on after a body broke, to find what the server says of it.
const MAX_ERROR_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::Duration;

    fn limits(rows: usize) -> Limits {
        Limits { time: Duration::from_secs(1), rows, bytes: 1 << 20 }
    }

    /// The result of a body that comes in pieces of `size` bytes.
    fn read(body: &[u8], rows: usize, size: usize) -> Result<Rows, Fault> {
        let mut reading = Reading::new(&limits(rows));
        for piece in body.chunks(size) {
            reading.push(&Bytes::copy_from_slice(piece));
        }
        reading.finish()
    }

    const HEAD: &str = "[\"a\", \"a\"]\n[\"UInt8\", \"String\"]\n";
    const OLD: &str = "Code: 395. DB::Exception: Value passed to 'throwIf' function is non-zero. (FUNCTION_THROW_IF_VALUE_IS_NON_ZERO) (version 24.3.1.1 (official build))\n";

    #[test]
    fn rows_are_the_same_however_they_are_cut() {
        let body = format!("{HEAD}{}", "[1, \"x\\ny\"]\n".repeat(7));
        for size in 1..body.len() {
            for limit in [1, 3, 100] {
                let rows = read(body.as_bytes(), limit, size).unwrap();
                assert_eq!((rows.count, rows.rows.len()), (7, limit.min(7)), "{size}");
                assert_eq!(json!(rows.rows[0]), json!({"a": 1, "a_2": "x\ny"}));
            }
        }
    }

    #[test]
    fn an_error_in_the_body_is_an_error_wherever_it_stands_and_however_it_is_cut() {
        let new = format!(
            "\r\n__exception__\r\nabcdefghijklmnop\r\n{OLD}{} abcdefghijklmnop\r\n__exception__\r\n",
            OLD.len()
        );
        for rows in [0, 2, 50] {
            for (error, partial) in [(OLD, ""), (OLD, "[1, \"xy"), (&new[..], ""), (&new[..], "[1")] {
                let body = format!("{HEAD}{}{partial}{error}", "[1, \"x\"]\n".repeat(rows));
                for (limit, size) in [(1, 1), (10, 7), (100, 10_000)] {
                    let fault = read(body.as_bytes(), limit, size).unwrap_err();
                    let Fault::Exception(exception) = fault else { panic!("{body}: {fault:?}") };
                    assert_eq!(exception.code, 395);
                    assert!(
                        exception.message.ends_with("(FUNCTION_THROW_IF_VALUE_IS_NON_ZERO)"),
                        "{exception:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_body_that_ends_too_early_or_is_something_else_is_never_a_short_result() {
        let whole = format!("{HEAD}{}", "[1, \"x\"]\n".repeat(5));
        for end in 0..whole.len() {
            let is_row_end = whole[..end].ends_with("]\n") && whole[..end].matches('\n').count() >= 2;
            for limit in [1, 100] {
                assert_eq!(read(&whole.as_bytes()[..end], limit, 5).is_ok(), is_row_end, "{end}");
            }
        }
        for body in [
            "<html>no</html>\n",
            "[1]\n[2]\n",
            "[\"a\"]\n[\"UInt8\", \"UInt8\"]\n",
            "[\"a\"]\n[\"UInt8\"]\n[1, 2]\n",
            "[\"a\"]\n[\"UInt8\"]\n[]\n",
            "{}\n",
        ] {
            assert!(matches!(read(body.as_bytes(), 5, 100), Err(Fault::Unreadable(_))), "{body}");
        }
    }

    #[test]
    fn totals_are_no_rows() {
        let body = format!("{HEAD}[1, \"x\"]\n[2, \"x\"]\n\n[3, \"\"]\n");
        for limit in [1, 2, 100] {
            for size in [1, 4, 1_000] {
                assert_eq!(read(body.as_bytes(), limit, size).unwrap().count, 2);
            }
        }
    }

    #[test]
    fn log_lines_that_look_like_errors_are_rows() {
        let body = format!("{HEAD}{}", format!("[1, \"{}\"]\n", OLD.trim_end()).repeat(3));
        for limit in [1, 100] {
            assert_eq!(read(body.as_bytes(), limit, 11).unwrap().count, 3);
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..300), head in any::<bool>(), size in 1usize..50, limit in 1usize..4) {
            let body = if head { [HEAD.as_bytes(), &body].concat() } else { body };
            drop(read(&body, limit, size));
        }
    }
}
