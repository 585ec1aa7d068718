//! What the store holds open for us between requests: a point in time, a cursor.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::QueryError;
use super::super::cancel::Cancel;
use super::super::web::{Deadline, Server};
use super::{JSON, words};

/// The request that closes one, by its id.
#[derive(Clone, Copy)]
pub(in super::super) struct Close {
    pub(in super::super) method: &'static str,
    pub(in super::super) path: &'static str,
    pub(in super::super) body: fn(&str) -> Value,
}

/// One that is open while it has an id. The store ends it by itself too, but later, and has few of them.
pub(super) struct Lease {
    server: Arc<Server>,
    close: Close,
    pub(super) id: Option<String>,
}

impl Lease {
    pub(super) fn new(server: &Arc<Server>, close: Close) -> Self {
        Self { server: server.clone(), close, id: None }
    }

    pub(super) async fn close(mut self, limit: Duration) {
        if let Some(id) = self.id.take() {
            tell(close(&self.server, self.close, &id, limit).await);
        }
    }
}

/// The query was given up, at shutdown or by whoever asked.
impl Drop for Lease {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let (server, request) = (self.server.clone(), self.close);
        drop(Cancel::new(async move { tell(close(&server, request, &id, CLOSING).await) }));
    }
}

async fn close(server: &Server, close: Close, id: &str, limit: Duration) -> Result<(), QueryError> {
    let mut request =
        server.post(close.path, &[], JSON, (close.body)(id).to_string().into(), Deadline::after(limit))?;
    request.method = close.method;
    server.read(&request, words::said, |_| Ok(())).await
}

fn tell(closed: Result<(), QueryError>) {
    if let Err(error) = closed {
        tracing::warn!(%error, "what the store holds open for a query was not closed: it ends by itself later");
    }
}

/// How much of a query's time is for closing.
pub(super) fn closing_time(time: Duration) -> Duration {
    (time / 10).min(CLOSING)
}

const CLOSING: Duration = Duration::from_secs(1);
