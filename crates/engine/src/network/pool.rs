//! The threads that compute. A processor that is busy elsewhere slows them but never stalls them: work is stolen,
//! and who has none sleeps.

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

/// Absent for one thread, which then is the caller's own.
pub(crate) struct Pool(Option<rayon::ThreadPool>);

impl Pool {
    /// `threads` of 0 is one fewer than the processors, at least 1.
    pub(crate) fn new(threads: usize) -> std::io::Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().saturating_sub(1)),
            chosen => chosen,
        };
        if threads <= 1 {
            return Ok(Self(None));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("model-{i}"))
            .build();
        Ok(Self(Some(pool.map_err(std::io::Error::other)?)))
    }

    /// Runs `work` among the threads, so that its [`Pool::chunks`] need not wake them one by one.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.0 {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Calls `work` with each chunk of `len` items and its number, in any order.
    pub(crate) fn chunks<T: Send>(&self, items: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        match &self.0 {
            Some(pool) if items.len() > len => {
                pool.install(|| items.par_chunks_mut(len).enumerate().for_each(|(i, chunk)| work(i, chunk)));
            }
            _ => items.chunks_mut(len).enumerate().for_each(|(i, chunk)| work(i, chunk)),
        }
    }
}
