//! Embedded DuckDB.

use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, section, units};

section! {
    /// DuckDB inside this process: a database file, or none and queries that read JSON, CSV and Parquet files.
    pub struct Config {
        /// Path of a database file, opened read-only, relative to the runner; or `:memory:`.
        #[read(database)]
        pub database: String = ":memory:",
        /// SQL that runs when the connection opens, e.g. `CREATE VIEW auth AS SELECT * FROM 'logs/auth.json'`.
        pub init: Option<String>,
        /// How many threads one query may use.
        #[read(threads)]
        pub threads: usize = "1",
        /// Memory that DuckDB may use, e.g. `512MB`, `4GiB`.
        #[read(memory_limit)]
        pub memory_limit: String = "1GB",
    }
    refused {
        "s3_key", "s3_secret", "s3_host", "s3_region", "s3_type", "r2_account", "ssl", "verify"
        => "belongs to object storage, which is not built yet: remove it and read local files"
    }
}

/// `:memory:`, or a path relative to the runner.
fn database(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let database = String::from_yaml(node, reader)?;
    if database == ":memory:" {
        return Some(database);
    }
    if database.is_empty() {
        return reader.refuse(node, "a path or `:memory:`");
    }
    Some(reader.dir().join(database).to_string_lossy().into_owned())
}

fn threads(node: &Node, reader: &mut Reader<'_>) -> Option<usize> {
    let threads = usize::from_yaml(node, reader)?;
    if (1..=1024).contains(&threads) { Some(threads) } else { reader.refuse(node, "between 1 and 1024") }
}

fn memory_limit(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let size = String::from_yaml(node, reader)?;
    match units::bytes(&size) {
        Ok(_) => Some(size),
        Err(message) => {
            reader.error(node.at, message);
            None
        }
    }
}
