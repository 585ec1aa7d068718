//! DuckDB's batches as rows within the limits.

use ::duckdb::arrow::array::{Array, StructArray};
use ::duckdb::arrow::datatypes::Schema;
use serde_json::Map;

use super::cells::cell;
use crate::datasource::kept::{Fitted, Kept, distinct, frame};
use crate::datasource::room::Room;
use crate::datasource::{Limits, Rows};

/// Takes batches; cells that are not kept are not converted.
pub(super) struct Batches {
    names: Vec<String>,
    frame: usize,
    kept: Kept,
}

impl Batches {
    pub(super) fn new(schema: &Schema, limits: &Limits) -> Self {
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let names = distinct(&columns);
        Self { frame: frame(names.iter().map(String::as_str)), names, kept: Kept::new(limits) }
    }

    pub(super) fn push(&mut self, batch: &StructArray) {
        for row in 0..batch.len() {
            if self.kept.is_full() {
                self.kept.count_on((batch.len() - row) as u64);
                return;
            }
            let names = &self.names;
            self.kept.push_with(self.frame, names.len(), |left, each| fit(names, batch, row, left, each));
        }
    }

    pub(super) fn into_rows(self) -> Rows {
        self.kept.into_rows()
    }
}

fn fit(names: &[String], batch: &StructArray, row: usize, left: usize, each: usize) -> Option<Fitted> {
    let mut fitted = Fitted { row: Map::with_capacity(names.len()), bytes: 0, cut_cells: 0 };
    for ((name, column), field) in names.iter().zip(batch.columns()).zip(batch.fields()) {
        let mut room = Room::new(each);
        fitted.row.insert(name.clone(), cell(column.as_ref(), field, row, &mut room));
        fitted.bytes += room.used();
        fitted.cut_cells += usize::from(room.is_cut());
        if fitted.bytes > left {
            return None;
        }
    }
    Some(fitted)
}
