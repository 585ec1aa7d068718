//! How many queries run at once on one datasource.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// Two bounds: few queries start at once, one for each core, so that a thousand rules due together do not fight for two cores;
/// but a query that takes longer than [`SLOW`] gives its place back, so that slow rules never hold up quick
/// ones, up to [`MAX_RUNNING`] in all.
#[derive(Clone)]
pub struct Slots {
    starting: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Default for Slots {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            starting: Arc::new(Semaphore::new(cores.clamp(2, 8))),
            running: Arc::new(Semaphore::new(MAX_RUNNING)),
        }
    }
}

impl Slots {
    /// Runs `query` when there is room for it.
    pub async fn run<T>(&self, query: impl Future<Output = T>) -> T {
        // The semaphores are never closed; without a permit the query would run all the same.
        let _running = self.running.acquire().await.ok();
        let starting = self.starting.acquire().await.ok();
        tokio::pin!(query);
        if let Ok(answer) = tokio::time::timeout(SLOW, &mut query).await {
            return answer;
        }
        drop(starting);
        query.await
    }
}

/// A query that is still running then is slow: a small rule over DuckDB takes half a millisecond.
const SLOW: Duration = Duration::from_millis(100);
/// Each costs a thread with the embedded datasource, a connection with others.
const MAX_RUNNING: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_queries_do_not_hold_up_quick_ones() {
        let slots = Slots::default();
        let slow: Vec<_> = (0..20)
            .map(|_| {
                let slots = slots.clone();
                tokio::spawn(async move { slots.run(tokio::time::sleep(Duration::from_secs(600))).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        slots.run(tokio::time::sleep(Duration::from_millis(5))).await;
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert!(slow.iter().all(|task| !task.is_finished()));
    }
}
