//! Telling a store that nobody waits for a query any more.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Cancels a query in its store when dropped before [`Cancel::disarm`]: at the time limit, at shutdown.
pub(super) struct Cancel {
    tell: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Cancel {
    /// `tell` is the message to the store, which gets [`TELL_TIME`]; whether it arrives, nobody learns.
    pub(super) fn new(tell: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { tell: Some(Box::pin(tell)) }
    }

    /// The store has ended the query by itself.
    pub(super) fn disarm(mut self) {
        self.tell = None;
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        // Nobody can wait here, and shutdown need not: the store was told the time limit with the query, so that it
        // ends it by itself where this message is lost.
        if let Some(tell) = self.tell.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(TELL_TIME, tell));
        }
    }
}

const TELL_TIME: Duration = Duration::from_secs(5);
