//! Embedded DuckDB.
