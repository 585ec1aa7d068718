//! The outbox.

/// The outbox's table.
pub const TABLE: &str = "CREATE TABLE deliveries (id INTEGER PRIMARY KEY) STRICT;";
