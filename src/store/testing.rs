//! Stores in memory, for tests.

use rusqlite::{Connection, Transaction};
use serde_json::json;

use super::alerts::{self, Handling};
use super::migrations;
use crate::triage::testing;

pub(super) fn empty() -> Connection {
    let mut connection = Connection::open_in_memory().unwrap();
    migrations::run(&mut connection).unwrap();
    connection
}

/// With alerts of these ids.
pub(super) fn store(ids: &[&str]) -> Connection {
    let mut store = empty();
    with(&mut store, |tx| {
        ids.iter().try_for_each(|id| {
            let mut alert = testing::alert(50, json!([{ "user": "root" }]));
            alert.id = (*id).to_owned();
            alert.rule.insert("group".to_owned(), json!("ssh"));
            alerts::insert(tx, "d", &alert, &Handling { webhooks: Vec::new(), triage: None }).map(drop)
        })
    });
    store
}

/// In a transaction of its own.
pub(super) fn with<T>(
    store: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> T {
    let tx = store.transaction().unwrap();
    let result = work(&tx).unwrap();
    tx.commit().unwrap();
    result
}
