//! Threads for queries: as many as run at one time, and used again.
//!
//! Tokio's blocking threads say that they are idle only after their caller has gone on. A thousand small queries one
//! after the other then leave 50 threads behind, and DuckDB keeps memory for each. These say so before.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// A handle; threads that nobody needs end by themselves.
#[derive(Default)]
pub(super) struct Threads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    /// Each has a thread that is on its way to it.
    jobs: VecDeque<Job>,
    /// Threads without a job.
    idle: usize,
}

/// The work; what it returns tells the caller.
type Job = Box<dyn FnOnce() -> Tell + Send>;
type Tell = Box<dyn FnOnce()>;

impl Threads {
    /// Runs `work` at once, on an idle thread or a new one. Fails where the system gives no more threads; the
    /// receiver fails where `work` panics.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<oneshot::Receiver<T>> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            let result = work();
            // The caller may have gone: then nobody waits for the rows.
            Box::new(move || drop(answer.send(result)))
        });
        let mut state = self.shared.lock();
        if state.idle > 0 {
            state.idle -= 1;
            state.jobs.push_back(job);
            self.shared.wake.notify_one();
        } else {
            drop(state);
            let shared = Arc::clone(&self.shared);
            std::thread::Builder::new().name("duckdb".into()).spawn(move || shared.work(job))?;
        }
        Ok(answered)
    }
}

impl Shared {
    fn work(&self, first: Job) {
        let mut job = Some(first);
        while let Some(now) = job {
            // A panic drops the sender, which the caller sees.
            let told = catch_unwind(AssertUnwindSafe(now));
            self.lock().idle += 1;
            if let Ok(tell) = told {
                tell();
            }
            job = self.next();
        }
    }

    /// The next job; none where there was none for [`KEPT`].
    fn next(&self) -> Option<Job> {
        let none = |state: &mut State| state.jobs.is_empty();
        let waited = self.wake.wait_timeout_while(self.lock(), KEPT, none);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.idle -= 1;
        }
        job
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a thread waits for a query. Past the usual interval of a detector, so that it is not made anew each tick.
const KEPT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_one_after_the_other_share_a_thread() {
        let threads = Threads::default();
        let names: std::collections::HashSet<_> = (0..500)
            .map(|_| threads.run(|| std::thread::current().id()).unwrap().blocking_recv().unwrap())
            .collect();
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn a_query_that_takes_long_holds_up_no_other() {
        let threads = Threads::default();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let slow = threads.run(move || held.recv().is_ok()).unwrap();
        assert_eq!(threads.run(|| 1).unwrap().blocking_recv(), Ok(1));
        release.send(()).unwrap();
        assert_eq!(slow.blocking_recv(), Ok(true));
    }

    #[test]
    fn a_panic_is_told_and_the_thread_goes_on() {
        let threads = Threads::default();
        assert!(threads.run(|| panic!("in a test")).unwrap().blocking_recv().is_err());
        assert_eq!(threads.run(|| 1).unwrap().blocking_recv(), Ok(1));
    }
}
