//! The rows that are kept, within the limits, and the count of all.

use ::duckdb::arrow::array::{Array, StructArray};
use ::duckdb::arrow::datatypes::Schema;
use serde_json::{Map, Value};

use super::cells::{Room, cell};
use crate::datasource::{Limits, Rows};

/// Takes batches; keeps what fits from the beginning, counts the rest.
///
/// A cell gets a quarter of the bytes at most and is cut there. The first row that does not fit ends the keeping;
/// where that is row one, its cells share the bytes evenly instead, so that an alert shows something.
pub(super) struct Kept {
    names: Vec<String>,
    /// Bytes of one row's names, quotes, colons, commas and braces.
    frame: usize,
    limits: Limits,
    rows: Vec<Map<String, Value>>,
    count: u64,
    bytes: usize,
    cut_cells: usize,
    /// What ended the keeping.
    full: Option<&'static str>,
}

impl Kept {
    pub(super) fn new(names: Vec<String>, limits: &Limits) -> Self {
        let frame = 2 + names.iter().map(|name| Room::quoted_len(name) + 2).sum::<usize>();
        Self { names, frame, limits: *limits, rows: Vec::new(), count: 0, bytes: 2, cut_cells: 0, full: None }
    }

    pub(super) fn push(&mut self, batch: &StructArray) {
        self.count += batch.len() as u64;
        for row in 0..batch.len() {
            if self.full.is_none() && self.rows.len() == self.limits.rows {
                self.full = Some("max_rows");
            }
            if self.full.is_some() {
                return;
            }
            self.keep(batch, row);
        }
    }

    fn keep(&mut self, batch: &StructArray, row: usize) {
        let left = self.limits.bytes.saturating_sub(self.bytes + self.frame);
        let converted = self.convert(batch, row, left, self.limits.bytes / 4).or_else(|| {
            let share = left / self.names.len().max(1);
            (self.rows.is_empty() && share >= Room::SMALLEST)
                .then(|| self.convert(batch, row, left, share))
                .flatten()
        });
        match converted {
            Some((map, bytes, cut)) => {
                self.rows.push(map);
                self.bytes += self.frame + bytes;
                self.cut_cells += cut;
            }
            None => self.full = Some("max_bytes"),
        }
    }

    /// The row, the JSON bytes of its cells and how many were cut; `None` when they are more than `left`.
    fn convert(
        &self,
        batch: &StructArray,
        row: usize,
        left: usize,
        each: usize,
    ) -> Option<(Map<String, Value>, usize, usize)> {
        let (mut map, mut bytes, mut cut) = (Map::with_capacity(self.names.len()), 0, 0);
        for ((name, column), field) in self.names.iter().zip(batch.columns()).zip(batch.fields()) {
            let mut room = Room::new(each);
            map.insert(name.clone(), cell(column.as_ref(), field, row, &mut room));
            bytes += room.used();
            cut += usize::from(room.is_cut());
            if bytes > left {
                return None;
            }
        }
        Some((map, bytes, cut))
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
        Rows { count: self.count, rows: self.rows, cut: (!cut.is_empty()).then(|| cut.join("; ")) }
    }
}

/// The columns' names, where a name that comes again gets `_2`, `_3` ..., so that no column is lost in an object.
pub(super) fn column_names(schema: &Schema) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let is_free = |name: &str| !names.iter().any(|taken| taken == name);
        let name = if is_free(field.name()) {
            field.name().clone()
        } else {
            (2_u64..)
                .map(|n| format!("{}_{n}", field.name()))
                .find(|name| is_free(name) && !schema.fields().iter().any(|other| other.name() == name))
                .expect("there are more numbers than columns")
        };
        names.push(name);
    }
    names
}
