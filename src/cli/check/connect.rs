//! `check --connect`: what answers, and what is wrong with what does not.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::app::connect::{Answers, Connection, connect};
use crate::config::Runner;
use crate::text::{escape, escape_within};

/// Tries everything that `runner` names.
pub fn all(runner: &Runner, limit: Duration) -> std::io::Result<Vec<Connection>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let connections = runtime.block_on(connect(runner, limit));
    // A query that a store does not give up must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(connections)
}

pub fn text(connections: &[Connection]) -> String {
    let rows = connections.iter().map(|connection| {
        let Connection { family, name, kind, took, .. } = connection;
        let took = format!("{} ms", took.as_millis());
        [format!("{family} {}", escape(name)), (*kind).to_owned(), took, said(connection)]
    });
    let table = super::super::table(&["", "kind", "took", ""], rows);
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn said(connection: &Connection) -> String {
    match &connection.result {
        Ok(Answers::As(what)) => escape_within(what, MAX_SAID),
        Ok(Answers::Untried(why)) => format!("not tried: {why}"),
        Err(failure) => {
            format!("{}: {}", failure.state.word().to_uppercase(), escape_within(&failure.reason, MAX_SAID))
        }
    }
}

pub fn json(connection: &Connection) -> Json {
    let Connection { family, name, kind, result, took } = connection;
    let mut json =
        json!({ "family": family, "name": name, "kind": kind, "milliseconds": took.as_millis() as u64 });
    let fields = match result {
        Ok(Answers::As(what)) => [("state", "answers"), ("answers", what.as_str())],
        Ok(Answers::Untried(why)) => [("state", "not tried"), ("reason", *why)],
        Err(failure) => [("state", failure.state.word()), ("reason", failure.reason.as_str())],
    };
    for (key, value) in fields {
        json[key] = value.into();
    }
    json
}

/// Characters of a stranger's words.
const MAX_SAID: usize = 400;
