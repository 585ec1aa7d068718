//! The rows that are kept, within the limits, and the count of all.

use serde_json::{Map, Value};

use super::room::Room;
use super::{Limits, Rows};

/// Takes rows; keeps what fits from the beginning, counts the rest.
///
/// A cell gets a quarter of the bytes at most and is cut there. The first row that does not fit ends the keeping;
/// where that is row one, its cells share the bytes evenly instead, so that an alert shows something.
pub(super) struct Kept {
    limits: Limits,
    rows: Vec<Map<String, Value>>,
    count: u64,
    bytes: usize,
    cut_cells: usize,
    /// What ended the keeping.
    full: Option<&'static str>,
    notes: Vec<String>,
}

/// A row within its bytes.
pub(super) struct Fitted {
    pub row: Map<String, Value>,
    /// JSON bytes of its cells, without names and braces.
    pub bytes: usize,
    pub cut_cells: usize,
}

impl Kept {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            rows: Vec::new(),
            count: 0,
            bytes: 2,
            cut_cells: 0,
            full: None,
            notes: Vec::new(),
        }
    }

    /// Rows so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Says in [`Rows::cut`] what else is missing, e.g. that the store itself stopped counting.
    pub(super) fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.notes.contains(&what) {
            self.notes.push(what);
        }
    }

    /// Whether rows are only counted from here on.
    pub(super) fn is_full(&self) -> bool {
        self.full.is_some()
    }

    /// Counts rows of which nothing is to be kept.
    pub(super) fn count_on(&mut self, rows: u64) {
        self.count += rows;
        if rows > 0 && self.full.is_none() {
            self.full = Some("max_rows");
        }
    }

    /// Counts a row, and keeps it where it fits.
    pub(super) fn push(&mut self, row: &Map<String, Value>) {
        self.push_with(frame(row.keys().map(String::as_str)), row.len(), |left, each| {
            let mut fitted = Fitted { row: Map::with_capacity(row.len()), bytes: 0, cut_cells: 0 };
            for (name, value) in row {
                let mut room = Room::new(each);
                fitted.row.insert(name.clone(), room.value(value));
                fitted.bytes += room.used();
                fitted.cut_cells += usize::from(room.is_cut());
                if fitted.bytes > left {
                    return None;
                }
            }
            Some(fitted)
        });
    }

    /// Counts a row, and keeps it, as it is where it fits.
    pub(super) fn take(&mut self, row: Map<String, Value>) {
        if !self.is_full() && self.rows.len() < self.limits.rows {
            let frame = frame(row.keys().map(String::as_str));
            let mut bytes = frame;
            let each = self.limits.bytes / 4;
            let fits = row.values().all(|value| {
                let len = Room::len(value);
                bytes += len;
                len <= each
            });
            if fits && self.bytes + bytes <= self.limits.bytes {
                self.count += 1;
                self.bytes += bytes;
                self.rows.push(row);
                return;
            }
        }
        self.push(&row);
    }

    /// Counts a row of `cells` cells whose names take `frame` bytes, and keeps what `fit` makes of it. `fit` is given
    /// the bytes that its cells may take together and each, and returns `None` where they do not suffice.
    pub(super) fn push_with(
        &mut self,
        frame: usize,
        cells: usize,
        mut fit: impl FnMut(usize, usize) -> Option<Fitted>,
    ) {
        self.count += 1;
        if self.full.is_none() && self.rows.len() == self.limits.rows {
            self.full = Some("max_rows");
        }
        if self.full.is_some() {
            return;
        }
        let left = self.limits.bytes.saturating_sub(self.bytes + frame);
        let fitted = fit(left, self.limits.bytes / 4).or_else(|| {
            let share = left / cells.max(1);
            (self.rows.is_empty() && share >= Room::SMALLEST).then(|| fit(left, share)).flatten()
        });
        match fitted {
            Some(fitted) => {
                self.rows.push(fitted.row);
                self.bytes += frame + fitted.bytes;
                self.cut_cells += fitted.cut_cells;
            }
            None => self.full = Some("max_bytes"),
        }
    }

    pub(super) fn into_rows(self) -> Rows {
        let mut cut = Vec::new();
        if let Some(limit) = self.full {
            cut.push(format!("kept {} of {} rows ({limit})", self.rows.len(), self.count));
        }
        match self.cut_cells {
            0 => {}
            1 => cut.push("cut 1 long value".to_owned()),
            n => cut.push(format!("cut {n} long values")),
        }
        cut.extend(self.notes);
        Rows { count: self.count, rows: self.rows, cut: (!cut.is_empty()).then(|| cut.join("; ")) }
    }
}

/// Bytes of one row's names, quotes, colons, commas and braces.
pub(super) fn frame<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    2 + names.map(|name| Room::quoted_len(name) + 2).sum::<usize>()
}

/// The columns' names, where a name that comes again gets `_2`, `_3` ..., so that no column is lost in an object.
pub(super) fn distinct(columns: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for column in columns {
        let is_free = |name: &str| !names.iter().any(|taken| taken == name);
        let name = if is_free(column) {
            (*column).to_owned()
        } else {
            (2_u64..)
                .map(|n| format!("{column}_{n}"))
                .find(|name| is_free(name) && !columns.contains(&name.as_str()))
                .expect("there are more numbers than columns")
        };
        names.push(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn limits(rows: usize, bytes: usize) -> Limits {
        Limits { time: Duration::from_secs(1), rows, bytes }
    }

    fn row(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn rows_past_the_limit_are_counted_and_said() {
        let mut kept = Kept::new(&limits(2, 1_000));
        for n in 0..5 {
            kept.push(&row(json!({"n": n})));
        }
        kept.count_on(10);
        let rows = kept.into_rows();
        assert_eq!((rows.count, rows.rows.len()), (15, 2));
        assert_eq!(rows.cut.unwrap(), "kept 2 of 15 rows (max_rows)");
    }

    #[test]
    fn bytes_are_a_limit_too_and_the_first_row_shows_something_all_the_same() {
        let mut kept = Kept::new(&limits(100, 2_000));
        let wide = row(json!({"a": "x".repeat(5_000), "b": "y".repeat(5_000), "c": "z".repeat(5_000)}));
        kept.push(&wide);
        kept.push(&wide);
        let rows = kept.into_rows();
        assert_eq!((rows.count, rows.rows.len()), (2, 1));
        assert!(Value::from(rows.rows[0].clone()).to_string().len() <= 2_000);
        assert_eq!(rows.cut.unwrap(), "kept 1 of 2 rows (max_bytes); cut 3 long values");
    }

    #[test]
    fn a_row_that_is_taken_is_kept_like_one_that_is_pushed() {
        let rows =
            [json!({"a": "x".repeat(5_000), "b": [1, {"c": null}]}), json!({"a": "y"}), json!({"a": 1.5})];
        for limit in [200, 2_000, 20_000] {
            let (mut pushed, mut taken) = (Kept::new(&limits(2, limit)), Kept::new(&limits(2, limit)));
            for value in &rows {
                pushed.push(&row(value.clone()));
                taken.take(row(value.clone()));
            }
            assert_eq!(pushed.into_rows(), taken.into_rows(), "{limit}");
        }
    }

    #[test]
    fn a_column_that_comes_again_gets_a_name_of_its_own() {
        assert_eq!(distinct(&["a", "a", "a_2", "a"]), ["a", "a_3", "a_2", "a_4"]);
    }
}
