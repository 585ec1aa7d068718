//! An answer with a table: ES|QL's `columns` and `values`, or OpenSearch SQL's `schema` and `datarows`.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::QueryError;
use super::super::feed::{self, Allowance};
use super::super::json::Json;
use super::super::kept::{Kept, distinct};

/// What the parts of such an answer are called.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Names {
    pub(in super::super) columns: &'static str,
    pub(in super::super) rows: &'static str,
}

/// One answer, or the first of several.
pub(super) struct Table {
    pub(super) kept: Kept,
    pub(super) rows: u64,
    pub(super) columns: Vec<String>,
    /// For the next rows.
    pub(super) cursor: Option<String>,
    /// The store did not search everything.
    pub(super) is_partial: bool,
}

/// Reads an answer; its rows go to `kept`. `known` are the columns where an answer before told them.
pub(super) fn read(
    source: impl Read,
    names: Names,
    known: Option<Vec<String>>,
    kept: Kept,
) -> Result<Table, QueryError> {
    let table = Table { kept, rows: 0, columns: Vec::new(), cursor: None, is_partial: false };
    let mut reading = feed::json(source, |allowance| Reading {
        table,
        names,
        known,
        early: None,
        has_rows: false,
        allowance,
    })?;
    if !reading.has_rows {
        return Err(QueryError::Unreadable(format!("it has no `{}`", names.rows)));
    }
    // Servers that sort the names of an object give rows before columns.
    if let Some(rows) = reading.early.take() {
        for row in rows {
            reading.take(row).map_err(QueryError::Unreadable)?;
        }
    }
    reading.table.columns =
        reading.known.ok_or_else(|| QueryError::Unreadable(format!("it has no `{}`", names.columns)))?;
    Ok(reading.table)
}

struct Reading {
    table: Table,
    names: Names,
    known: Option<Vec<String>>,
    early: Option<Vec<Vec<Value>>>,
    has_rows: bool,
    allowance: Allowance,
}

impl Reading {
    fn take(&mut self, cells: Vec<Value>) -> Result<(), String> {
        let columns = self.known.as_ref().ok_or_else(|| format!("it has no `{}`", self.names.columns))?;
        if columns.len() != cells.len() {
            return Err(format!("a row has {} cells in {} columns", cells.len(), columns.len()));
        }
        self.table.rows += 1;
        match self.table.kept.is_full() {
            true => self.table.kept.count_on(1),
            false => {
                let row: Map<String, Value> = columns.iter().cloned().zip(cells).collect();
                self.table.kept.take(row);
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    alias: Option<String>,
}

impl<'de> DeserializeSeed<'de> for Reading {
    type Value = Self;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reading {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer with a table")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == self.names.columns {
                let columns: Vec<Column> = map.next_value()?;
                let named: Vec<&str> =
                    columns.iter().map(|column| column.alias.as_deref().unwrap_or(&column.name)).collect();
                self.known = Some(distinct(&named));
            } else if name == self.names.rows && !self.has_rows {
                self.has_rows = true;
                map.next_value_seed(List(&mut self))?;
            } else if name == "cursor" {
                self.table.cursor = map.next_value()?;
            } else if name == "is_partial" {
                self.table.is_partial = map.next_value::<Option<bool>>()? == Some(true);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(self)
    }
}

struct List<'a>(&'a mut Reading);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let reading = self.0;
        while let Some(written) = list.next_element::<Box<RawValue>>()? {
            let cells = match Json::new(written.get().as_bytes()).any() {
                Ok(Value::Array(cells)) => cells,
                _ => return Err(A::Error::custom("a row is not a list")),
            };
            if reading.known.is_none() {
                reading.early.get_or_insert_default().push(cells);
                continue;
            }
            reading.take(cells).map_err(A::Error::custom)?;
            reading.allowance.renew();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datasource::{Limits, Rows};
    use proptest::prelude::*;
    use serde_json::json;

    const ESQL: Names = Names { columns: "columns", rows: "values" };
    const SQL: Names = Names { columns: "schema", rows: "datarows" };

    fn recorded(file: &str, names: Names) -> (Rows, Option<String>) {
        let path = format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"));
        let table = read(&*std::fs::read(path).unwrap(), names, None, Kept::new(&Limits::default())).unwrap();
        (table.kept.into_rows(), table.cursor)
    }

    #[test]
    fn a_table_of_esql_becomes_rows() {
        let (rows, _) = recorded("elasticsearch/esql.json", ESQL);
        assert_eq!(rows.count, 2);
        assert_eq!(
            Value::from(rows.rows[0].clone()),
            json!({"MAX(page_count)": 268, "year": "1932-01-01T00:00:00.000Z", "tags": ["a", "b"],
                "big": 18446744073709551615_u64})
        );
    }

    #[test]
    fn a_table_of_sql_becomes_rows_named_by_alias() {
        let (rows, cursor) = recorded("opensearch/sql.json", SQL);
        assert_eq!(rows.count, 2);
        assert_eq!(Value::from(rows.rows[1].clone()), json!({"first": "Hattie", "age": 36, "age_2": 36}));
        assert_eq!(cursor.as_deref(), Some("d:eyJhIjp7fQ=="));
    }

    #[test]
    fn the_order_of_rows_and_columns_does_not_matter() {
        let text = r#"{"datarows": [[1], [2]], "schema": [{"name": "n", "type": "long"}], "status": 200}"#;
        let table = read(text.as_bytes(), SQL, None, Kept::new(&Limits::default())).unwrap();
        assert_eq!((table.kept.into_rows().count, table.columns), (2, vec!["n".to_owned()]));
    }

    #[test]
    fn a_table_that_lacks_something_is_unreadable() {
        for text in [
            "{}",
            r#"{"columns": []}"#,
            r#"{"values": [[1]]}"#,
            r#"{"values": []}"#,
            r#"{"columns": [{"name": "a"}], "values": [[1, 2]]}"#,
            r#"{"columns": [{"name": "a"}], "values": [{"a": 1}]}"#,
            r#"{"columns": [{"name": "a"}], "values": [[1]"#,
        ] {
            let error = read(text.as_bytes(), ESQL, None, Kept::new(&Limits::default())).err().unwrap();
            assert!(matches!(error, QueryError::Unreadable(_)), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(body in r#"(\{|\}|\[|\]|"values"|"columns"|"name"|"cursor"|:|,|1| ){0,30}"#) {
            read(body.as_bytes(), ESQL, None, Kept::new(&Limits::default())).ok();
        }
    }
}
