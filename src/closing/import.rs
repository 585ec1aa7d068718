//! Files of closings, CSV or JSON lines, read line by line: of any length, in bounded memory.
//!
//! CSV has a header; columns and keys are the same: `alert_id` (or `id`, `alert`), `label` (or `as`), `reason`,
//! `analyst` (or `by`), `at` (or `time`, `closed_at`). Others are left unread. Which of the two a file is, its first
//! character says.

use std::io::{self, BufRead, Read as _};

use serde_json::{Map, Value};

use super::{Decision, LABELS, MAX_NAME, MAX_REASON, words};
use crate::clock::Timestamp;
use crate::text::escape_within;

/// What stands where a line says nothing.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    pub label: Option<super::Label>,
    pub reason: Option<String>,
    pub analyst: Option<String>,
}

/// The decisions of a file, in its order, each with the number of its line (from 1; of its first, where a quoted
/// field has several).
pub struct Import<R> {
    lines: Lines<R>,
    defaults: Defaults,
    /// No decision may be later.
    now: Timestamp,
    shape: Shape,
}

/// Why a line is not a decision.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The lines after it can be read all the same.
    #[error("{line}: {problem}")]
    Line { line: u64, problem: String },
    /// Nothing after it can be read.
    #[error("{line}: {problem}")]
    File { line: u64, problem: String },
    #[error("{line}: {error}")]
    Read { line: u64, error: io::Error },
}

impl ImportError {
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Line { .. })
    }
}

#[derive(Clone)]
enum Shape {
    /// Nothing was read yet.
    Unknown,
    Jsonl,
    Csv {
        delimiter: u8,
        columns: Vec<Option<Column>>,
    },
    /// It ended, or cannot be read on.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Alert,
    Label,
    Reason,
    Analyst,
    At,
    UndoneAt,
}

/// The names of each column, the one that counts first.
const COLUMNS: [(Column, &[&str]); 6] = [
    (Column::Alert, &["alert_id", "id", "alert"]),
    (Column::Label, &["label", "as"]),
    (Column::Reason, &["reason"]),
    (Column::Analyst, &["analyst", "by"]),
    (Column::At, &["at", "time", "closed_at"]),
    (Column::UndoneAt, &["undone_at"]),
];

/// What one line says in each of [`COLUMNS`].
type Cells = [Option<String>; COLUMNS.len()];

impl<R: BufRead> Import<R> {
    pub fn new(reader: R, defaults: Defaults, now: Timestamp) -> Self {
        Self { lines: Lines { reader, line: 0 }, defaults, now, shape: Shape::Unknown }
    }

    fn read(&mut self) -> Result<Option<(u64, Decision)>, ImportError> {
        loop {
            let is_csv = matches!(self.shape, Shape::Csv { .. });
            let Some((line, record)) = self.lines.record(is_csv)? else { return Ok(None) };
            if record.trim_ascii().is_empty() {
                continue;
            }
            if let Shape::Unknown = self.shape {
                self.shape = shape(&record).map_err(|problem| ImportError::File { line, problem })?;
                if let Shape::Csv { .. } = self.shape {
                    continue;
                }
            }
            let cells = match &self.shape {
                Shape::Csv { delimiter, columns } => csv_cells(&record, *delimiter, columns),
                _ => json_cells(&record),
            };
            let decision = cells.and_then(|cells| self.decision(cells));
            return decision
                .map(|decision| Some((line, decision)))
                .map_err(|problem| ImportError::Line { line, problem });
        }
    }

    fn decision(&self, cells: Cells) -> Result<Decision, String> {
        let [alert, label, reason, analyst, at, undone_at] = cells;
        let Defaults { label: its_label, reason: its_reason, analyst: its_analyst } = &self.defaults;
        if undone_at.is_some() {
            return Err("undone_at: this closing was undone: leave the line out".to_owned());
        }
        let alert = alert.ok_or("alert_id: is missing: give the alert's id")?;
        let alert = words(&alert, MAX_NAME).map_err(|wrong| format!("alert_id: {wrong}"))?;
        let label = match label {
            Some(text) => text
                .parse()
                .map_err(|()| format!("label: `{}` is no label: use {LABELS}", escape_within(&text, 40)))?,
            None => (*its_label)
                .ok_or_else(|| format!("label: is missing: use {LABELS}, or give one for all with `--as`"))?,
        };
        let reason = reason
            .as_ref()
            .or(its_reason.as_ref())
            .ok_or("reason: is missing: fill it in, or give one for all with `--reason`")?;
        let reason = words(reason, MAX_REASON).map_err(|wrong| format!("reason: {wrong}"))?;
        let analyst = analyst
            .as_ref()
            .or(its_analyst.as_ref())
            .ok_or("analyst: is missing: fill it in, or give one for all with `--by`")?;
        let analyst = super::analyst(analyst).map_err(|wrong| format!("analyst: {wrong}"))?;
        let at = at.map(|text| time(&text)).transpose()?;
        if at.is_some_and(|at| at.as_second() > self.now.as_second() + SKEW_S) {
            return Err(
                "at: lies in the future: correct it, or leave it out, and the closing is of now".to_owned()
            );
        }
        Ok(Decision { alert, label, reason, analyst, at })
    }
}

impl<R: BufRead> Iterator for Import<R> {
    type Item = Result<(u64, Decision), ImportError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Shape::Ended = self.shape {
            return None;
        }
        let read = self.read();
        if read.as_ref().map_or_else(ImportError::is_final, Option::is_none) {
            self.shape = Shape::Ended;
        }
        read.transpose()
    }
}

/// What the first line says about those that follow.
fn shape(first: &[u8]) -> Result<Shape, String> {
    if first.trim_ascii_start().starts_with(b"{") {
        return Ok(Shape::Jsonl);
    }
    // Spreadsheets of many countries write `;`.
    let delimiter = [b',', b';', b'\t'].into_iter().find(|sign| first.contains(sign)).unwrap_or(b',');
    let names = csv_fields(first, delimiter)?;
    let mut columns: Vec<_> = names.iter().map(|name| column(name)).collect();
    // `id` beside `alert_id` is another thing's.
    for (wanted, spellings) in COLUMNS {
        let best =
            spellings.iter().find_map(|spelling| names.iter().position(|name| is_named(name, spelling)));
        for (index, column) in columns.iter_mut().enumerate() {
            if *column == Some(wanted) && Some(index) != best {
                *column = None;
            }
        }
    }
    if !columns.contains(&Some(Column::Alert)) {
        let shown = escape_within(&String::from_utf8_lossy(first), 60);
        return Err(format!(
            "`{shown}` is no header with `alert_id`: begin with a line like `alert_id,label,reason,analyst,at`, \
             or write a JSON object a line"
        ));
    }
    Ok(Shape::Csv { delimiter, columns })
}

fn column(name: &str) -> Option<Column> {
    COLUMNS
        .iter()
        .find(|(_, names)| names.iter().any(|known| is_named(name, known)))
        .map(|(column, _)| *column)
}

fn is_named(name: &str, known: &str) -> bool {
    name.trim().eq_ignore_ascii_case(known)
}

fn csv_cells(record: &[u8], delimiter: u8, columns: &[Option<Column>]) -> Result<Cells, String> {
    let fields = csv_fields(record, delimiter)?;
    if fields.len() != columns.len() {
        return Err(format!(
            "has {} fields and the header {}: quote a field that contains `{}`",
            fields.len(),
            columns.len(),
            char::from(delimiter).escape_default()
        ));
    }
    let mut cells = Cells::default();
    for (column, field) in columns.iter().zip(fields) {
        if let Some(column) = column
            && !field.trim().is_empty()
        {
            cells[*column as usize] = Some(field);
        }
    }
    Ok(cells)
}

fn csv_fields(record: &[u8], delimiter: u8) -> Result<Vec<String>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(delimiter)
        .buffer_capacity(record.len().max(1))
        .from_reader(record);
    let mut fields = csv::StringRecord::new();
    match reader.read_record(&mut fields) {
        Ok(_) => Ok(fields.iter().map(str::to_owned).collect()),
        Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => Err(NOT_UTF8.to_owned()),
        Err(error) => Err(format!("is not CSV: {error}")),
    }
}

fn json_cells(record: &[u8]) -> Result<Cells, String> {
    let text = std::str::from_utf8(record).map_err(|_| NOT_UTF8)?;
    let object: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| format!("is not a JSON object: {error}: write one object a line"))?;
    Ok(COLUMNS.map(|(_, names)| {
        names.iter().find_map(|name| match object.get(*name) {
            Some(Value::String(text)) if !text.trim().is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        })
    }))
}

/// A point in time as files write it: RFC 3339; `2026-01-02 03:04:05`, which is UTC; Unix seconds or milliseconds.
fn time(text: &str) -> Result<Timestamp, String> {
    let text = text.trim();
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    let read = match number {
        // Seconds pass this in the year 5138, milliseconds did in 1973.
        Some(number) if number.abs() >= 1e11 => Timestamp::from_millisecond(number as i64).ok(),
        Some(number) => Timestamp::from_millisecond((number * 1_000.0) as i64).ok(),
        None => text.parse().ok().or_else(|| {
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            Some(civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
        }),
    };
    read.ok_or_else(|| {
        format!("at: `{}` is no time: write `2026-01-02T03:04:05Z`, or Unix seconds", escape_within(text, 40))
    })
}

/// Lines of a file, bounded.
struct Lines<R> {
    reader: R,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line with its number, without its end; in CSV as many lines as its quotes hold together.
    fn record(&mut self, is_csv: bool) -> Result<Option<(u64, Vec<u8>)>, ImportError> {
        let mut record = Vec::new();
        let began = self.line + 1;
        loop {
            let most = (MAX_RECORD + 1 - record.len()) as u64;
            let read = self.reader.by_ref().take(most).read_until(b'\n', &mut record);
            let read = read.map_err(|error| ImportError::Read { line: self.line + 1, error })?;
            if read == 0 && record.is_empty() {
                return Ok(None);
            }
            self.line += 1;
            // Inside quotes a quote is written twice: an odd number of them holds the line's end.
            let is_open = is_csv && record.iter().filter(|byte| **byte == b'"').count() % 2 == 1;
            let is_long = record.len() > MAX_RECORD;
            if is_open && (is_long || read == 0) {
                let problem = "a quote (`\"`) is opened and not closed: close it, or write `\"\"` for one inside quotes";
                return Err(ImportError::File { line: began, problem: problem.to_owned() });
            }
            if is_long {
                self.reader.skip_until(b'\n').map_err(|error| ImportError::Read { line: began, error })?;
                let problem = format!("is longer than {MAX_RECORD} bytes: shorten it");
                return Err(ImportError::Line { line: began, problem });
            }
            if !is_open {
                break;
            }
        }
        if began == 1 && record.starts_with(b"\xef\xbb\xbf") {
            record.drain(..3);
        }
        while matches!(record.last(), Some(b'\n' | b'\r')) {
            record.pop();
        }
        Ok(Some((began, record)))
    }
}

/// Bytes of one line.
const MAX_RECORD: usize = 64 << 10;
/// Seconds by which the clock of who wrote the file may be ahead.
const SKEW_S: i64 = 300;
const NOT_UTF8: &str = "is not UTF-8: save the file in that encoding";

#[cfg(test)]
mod tests;
