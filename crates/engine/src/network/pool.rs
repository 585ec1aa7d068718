//! The threads that compute. The calling thread works too and needs none of the others: a worker that the system does
//! not run takes no work, so a busy processor slows a forward pass in proportion and never stalls it.
//!
//! A region is a number of chunks, of which each thread has a share of consecutive ones: so it reads weights as one
//! stream, and what it asks for ahead is for itself. Whoever has finished its own share takes from the others'. It takes
//! by a compare-and-swap of one word, which holds the region's number and how many chunks of the share are left: a
//! worker that slept through a region cannot take from the next by mistake.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::kernel;

pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Of the region under way, or of the last.
    number: Line<AtomicU32>,
    /// Of each thread, the caller first.
    shares: Box<[Line<Share>]>,
    finished: Line<AtomicU32>,
    /// Of the region under way. Read only by who has taken a chunk of it.
    region: AtomicPtr<Region<'static>>,
    niceness: u8,
    /// Whether a region is under way.
    busy: AtomicBool,
    /// Calls of [`Pool::enter`] under way: while there are any, workers do not sleep.
    passes: AtomicU32,
    asleep: AtomicU32,
    closing: AtomicBool,
    bed: Mutex<()>,
    alarm: Condvar,
}

#[derive(Default)]
struct Share {
    /// Number of the region in the upper half, chunks that nobody has taken in the lower.
    left: AtomicU64,
    /// What the thread will read next, to be asked for while it waits: where, and how many bytes.
    soon: AtomicPtr<u8>,
    soon_len: AtomicUsize,
}

/// What the threads share of a region; lives on the caller's stack.
struct Region<'a> {
    work: &'a (dyn Fn(u32) + Sync),
    count: u32,
    panicked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Where the share of thread `i` of `threads` begins.
fn first_of(count: usize, i: usize, threads: usize) -> usize {
    (count as u64 * i as u64 / threads as u64) as usize
}

/// Alone in its cache lines (processors fetch them in pairs).
#[repr(align(128))]
struct Line<T>(T);

impl Pool {
    /// `threads` of 0 is as many as there are processors. `niceness` from 0 to 19: how readily the threads give way to
    /// others. The thread that calls [`Pool::enter`] or [`Pool::chunks`] takes it on too, and keeps it. Without effect
    /// except on Linux.
    pub(crate) fn new(threads: usize, niceness: u8) -> std::io::Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            chosen => chosen.min(MOST_THREADS),
        };
        let shared = Arc::new(Shared {
            number: Line(AtomicU32::new(0)),
            shares: (0..threads).map(|_| Line(Share::default())).collect(),
            finished: Line(AtomicU32::new(0)),
            region: AtomicPtr::default(),
            niceness: niceness.min(19),
            busy: AtomicBool::new(false),
            passes: AtomicU32::new(0),
            asleep: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            bed: Mutex::new(()),
            alarm: Condvar::new(),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(threads - 1) };
        for i in 1..threads {
            let shared = pool.shared.clone();
            let worker = std::thread::Builder::new().name(format!("model-{i}"));
            pool.workers.push(worker.spawn(move || shared.work(i))?);
        }
        Ok(pool)
    }

    pub(crate) fn threads(&self) -> usize {
        self.shared.shares.len()
    }

    /// Runs `work` with the workers awake, so that [`Pool::chunks`] need not wake them one by one.
    pub(crate) fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        if self.shared.niceness > 0 {
            give_way(self.shared.niceness);
        }
        let _pass = Pass::begin(&self.shared);
        work()
    }

    /// Calls `work` with each chunk of `len` items and its number, in any order. A panic in `work` is one of the caller's.
    pub(crate) fn chunks<T: Send>(&self, items: &mut [T], len: usize, work: impl Fn(usize, &mut [T]) + Sync) {
        let total = items.len();
        let alone = self.workers.is_empty() || total <= len;
        let count = u32::try_from(total.div_ceil(len)).ok().filter(|_| !alone);
        // Who is called from a chunk, or beside another caller, works alone.
        let Some((count, _turn)) = count.and_then(|count| Some((count, Turn::take(&self.shared)?))) else {
            return items.chunks_mut(len).enumerate().for_each(|(i, chunk)| work(i, chunk));
        };
        let items = Items(items.as_mut_ptr());
        self.enter(|| {
            self.shared.region(count, &|i| {
                let start = i as usize * len;
                // SAFETY: chunk `i` lies within `items`, which is borrowed until the region ends, and no two calls of
                // a region have the same number.
                let chunk = unsafe { items.slice(start, len.min(total - start)) };
                work(i as usize, chunk);
            });
        });
    }
}

impl Pool {
    /// What comes after the region that begins now: one of `count` chunks. `place` tells where, from a chunk on, what is read
    /// lies, and how many bytes; threads that wait ask for it, so that memory works too while the caller works alone.
    pub(crate) fn expect(&self, count: usize, place: impl Fn(usize) -> (*const u8, usize)) {
        let shares = &self.shared.shares;
        for (i, share) in shares.iter().enumerate().skip(1) {
            let (soon, len) = place(first_of(count, i, shares.len()));
            share.0.soon_len.store(len, Relaxed);
            share.0.soon.store(soon.cast_mut(), Relaxed);
        }
    }

    /// A vector of `count` items, made by as many threads: `work` gets each chunk of `len` items, all `empty`, and its
    /// number.
    pub(crate) fn vector<T: Copy + Send + Sync>(
        &self,
        count: usize,
        len: usize,
        empty: T,
        work: impl Fn(usize, &mut [T]) + Sync,
    ) -> Vec<T> {
        let mut items = Vec::with_capacity(count);
        self.chunks(&mut items.spare_capacity_mut()[..count], len, |i, chunk| {
            chunk.iter_mut().for_each(|item| {
                item.write(empty);
            });
            // SAFETY: all items of the chunk have just been written.
            work(i, unsafe { chunk.assume_init_mut() });
        });
        // SAFETY: the chunks are all there is, and each has been written.
        unsafe { items.set_len(count) };
        items
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, SeqCst);
        drop(self.shared.lock());
        self.shared.alarm.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of its work.
            worker.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    }
}

impl Shared {
    /// Runs the chunks from 0 to `count`. To be called by who has the turn.
    fn region(&self, count: u32, work: &(dyn Fn(u32) + Sync)) {
        let region = Region { work, count, panicked: AtomicBool::new(false), panic: Mutex::new(None) };
        self.region.store((&raw const region).cast_mut().cast(), Relaxed);
        self.finished.0.store(0, Relaxed);
        let number = self.number.0.load(Relaxed).wrapping_add(1);
        let first = |i| first_of(count as usize, i, self.shares.len());
        for (i, share) in self.shares.iter().enumerate() {
            share.0.left.store(u64::from(number) << 32 | (first(i + 1) - first(i)) as u64, Release);
        }
        self.number.0.store(number, Release);

        while self.some(0) {}
        let mut wait = Wait::new();
        while self.finished.0.load(Acquire) < count {
            wait.a_little();
        }
        let panic = region.panic.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Takes and runs some chunks of the region under way, of the share of thread `own` if any are left there; false where
    /// none is left at all.
    fn some(&self, own: usize) -> bool {
        let threads = self.shares.len();
        let mut found =
            (own..own + threads).map(|i| (i % threads, self.shares[i % threads].0.left.load(Acquire)));
        let Some((owner, seen)) = found.find(|(_, seen)| *seen as u32 > 0) else { return false };
        let left = seen as u32;
        // Fewer towards the end, so that all finish at about the same time.
        let taken = (left / if owner == own { 8 } else { 4 }).max(1);
        let share = &self.shares[owner].0;
        if share.left.compare_exchange(seen, seen - u64::from(taken), AcqRel, Relaxed).is_err() {
            return true;
        }
        // SAFETY: some chunks of the region were left, so its caller was waiting and still waits for those taken now:
        // until they are finished the pointer stays as it is, and what it points to lives.
        let region = unsafe { &*self.region.load(Relaxed) };
        if !region.panicked.load(Relaxed) {
            let first = first_of(region.count as usize, owner + 1, threads) as u32 - left;
            let run = || (first..first + taken).for_each(region.work);
            if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
                region.panicked.store(true, Relaxed);
                *region.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(panic);
            }
        }
        self.finished.0.fetch_add(taken, Release);
        true
    }

    /// The life of a worker, which is thread `own`.
    fn work(&self, own: usize) {
        if self.niceness > 0 {
            give_way(self.niceness);
        }
        let (mut wait, mut turn, mut finished) = (Wait::new(), Instant::now(), 0);
        let mut asked = Asked::default();
        while !self.closing.load(Relaxed) {
            let number = self.number.0.load(Acquire);
            if number != finished {
                while self.some(own) {
                    // If another program wants this processor, better now than in the middle of a chunk, for which the
                    // caller would have to wait.
                    if turn.elapsed() > TURN {
                        std::thread::yield_now();
                        turn = Instant::now();
                    }
                }
                (wait, finished) = (Wait::new(), number);
            } else if self.passes.load(Relaxed) > 0 || wait.lasted() < LINGER {
                if !asked.some(&self.shares[own].0) {
                    wait.a_little();
                }
            } else {
                self.sleep();
                wait = Wait::new();
            }
        }
    }

    fn sleep(&self) {
        let mut bed = self.lock();
        self.asleep.fetch_add(1, SeqCst);
        while self.passes.load(SeqCst) == 0 && !self.closing.load(SeqCst) {
            bed = self.alarm.wait(bed).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        self.asleep.fetch_sub(1, SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.bed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A call of [`Pool::enter`].
struct Pass<'a>(&'a Shared);

impl<'a> Pass<'a> {
    fn begin(shared: &'a Shared) -> Self {
        // Either a worker that lies down sees the pass, or the pass sees the worker.
        if shared.passes.fetch_add(1, SeqCst) == 0 && shared.asleep.load(SeqCst) > 0 {
            drop(shared.lock());
            shared.alarm.notify_all();
        }
        Self(shared)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.passes.fetch_sub(1, SeqCst);
    }
}

/// The right to begin a region.
struct Turn<'a>(&'a Shared);

impl<'a> Turn<'a> {
    fn take(shared: &'a Shared) -> Option<Self> {
        (!shared.busy.swap(true, Acquire)).then(|| Self(shared))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Release);
    }
}

/// The beginning of the items of a region.
struct Items<T>(*mut T);

// SAFETY: threads get pieces of it that do not overlap, and the items may be sent to them.
unsafe impl<T: Send> Sync for Items<T> {}

impl<T> Items<T> {
    /// SAFETY: the items are valid, and in no other slice.
    #[expect(clippy::mut_from_ref, reason = "each slice is another piece")]
    unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// How much a waiting thread has asked for.
struct Asked {
    of: *const u8,
    bytes: usize,
}

impl Default for Asked {
    fn default() -> Self {
        Self { of: std::ptr::null(), bytes: 0 }
    }
}

impl Asked {
    /// Asks for a little more of what is read soon; false where that is enough.
    fn some(&mut self, share: &Share) -> bool {
        let soon = share.soon.load(Relaxed).cast_const();
        if soon != self.of {
            *self = Self { of: soon, bytes: 0 };
        }
        let len = share.soon_len.load(Relaxed).min(MOST_ASKED);
        let now = len.saturating_sub(self.bytes).min(ASKED);
        kernel::ask(soon.wrapping_add(self.bytes), now);
        self.bytes += now;
        now > 0
    }
}

/// Waiting for another thread, which mostly is a matter of microseconds.
struct Wait {
    rounds: u32,
    began: Option<Instant>,
}

impl Wait {
    fn new() -> Self {
        Self { rounds: 0, began: None }
    }

    fn a_little(&mut self) {
        self.rounds += 1;
        if self.rounds < SPINS {
            std::hint::spin_loop();
        } else {
            self.began.get_or_insert_with(Instant::now);
            std::thread::yield_now();
        }
    }

    /// Zero while it spins.
    fn lasted(&self) -> Duration {
        self.began.map_or(Duration::ZERO, |began| began.elapsed())
    }
}

/// Makes the calling thread give way to others.
fn give_way(niceness: u8) {
    #[cfg(target_os = "linux")]
    {
        thread_local!(static NICENESS: std::cell::Cell<u8> = const { std::cell::Cell::new(0) });
        if NICENESS.replace(niceness) != niceness {
            // SAFETY: the call takes no pointer. On Linux the process 0 is the calling thread. Where it fails, the thread is
            // less nice than it could be.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness.into()) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = niceness;
}

const MOST_THREADS: usize = 1024;
/// Rounds of spinning before a waiting thread offers its processor to others: some 20 µs.
const SPINS: u32 = 1000;
/// How long workers wait after a pass for the next, before they sleep.
const LINGER: Duration = Duration::from_micros(100);
/// Bytes that a waiting thread asks for at once, and at most: the latter fit the second cache of any processor.
const ASKED: usize = 1 << 10;
const MOST_ASKED: usize = 128 << 10;
/// How long a worker works before it offers its processor to others.
const TURN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds the number of its chunk to every item.
    fn add(pool: &Pool, items: &mut [usize], len: usize) {
        pool.chunks(items, len, |i, chunk| chunk.iter_mut().for_each(|item| *item += i));
    }

    #[test]
    fn every_chunk_is_worked_on_once_by_any_number_of_threads() {
        for threads in [1, 2, 3, 16] {
            let pool = Pool::new(threads, 0).unwrap();
            for total in [1, 7, 64, 1000] {
                let mut items = vec![0; total];
                pool.enter(|| (0..50).for_each(|_| add(&pool, &mut items, 7)));
                assert!(items.iter().enumerate().all(|(i, item)| *item == i / 7 * 50));
            }
            add(&pool, &mut [], 7);
        }
    }

    #[test]
    fn a_vector_is_made_by_all_threads() {
        let pool = Pool::new(3, 0).unwrap();
        for count in [0, 1, 100] {
            let items = pool.vector(count, 7, 5, |i, chunk| chunk.iter_mut().for_each(|item| *item += i));
            assert!(items.iter().enumerate().all(|(i, item)| *item == 5 + i / 7));
            assert_eq!(items.len(), count);
        }
    }

    #[test]
    fn a_worker_that_does_not_come_is_not_waited_for() {
        let pool = Pool::new(2, 0).unwrap();
        // Nobody wakes the worker: as if the system ran it at some other time.
        std::thread::sleep(Duration::from_millis(20));
        let done = Mutex::new(Vec::new());
        pool.shared.region(100, &|i| done.lock().unwrap().push(i));
        // In order, for what a chunk asks for ahead is what the next one needs.
        assert_eq!(done.into_inner().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn who_waits_asks_for_its_own_part_and_for_no_more_than_a_cache_holds() {
        let pool = Pool::new(3, 0).unwrap();
        let bytes = vec![0u8; 2 * MOST_ASKED];
        pool.expect(30, |chunk| (bytes[chunk..].as_ptr(), bytes.len() - chunk));
        let share = &pool.shared.shares[2].0;
        let mut asked = Asked::default();
        while asked.some(share) {}
        assert_eq!((asked.of, asked.bytes), (bytes[20..].as_ptr(), MOST_ASKED));
        // Something else, which is short.
        pool.expect(3, |chunk| (bytes[chunk + 7..].as_ptr(), 10));
        assert!(asked.some(share) && !asked.some(share));
        assert_eq!((asked.of, asked.bytes), (bytes[9..].as_ptr(), 10));
    }

    #[test]
    fn workers_take_part() {
        let pool = Pool::new(4, 0).unwrap();
        let mut seen = vec![None; 64];
        pool.chunks(&mut seen, 1, |_, seen| {
            std::thread::sleep(Duration::from_millis(1));
            seen[0] = Some(std::thread::current().id());
        });
        seen.sort_unstable_by_key(|id| format!("{id:?}"));
        seen.dedup();
        assert!(seen.len() > 1);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3, 0).unwrap();
        for bad in [0, 5, 99] {
            let mut items = vec![0; 100];
            let work = || {
                pool.chunks(&mut items, 1, |i, _| assert!(i != bad, "chunk {i}"));
            };
            let panic = catch_unwind(AssertUnwindSafe(work)).unwrap_err();
            assert_eq!(*panic.downcast::<String>().unwrap(), format!("chunk {bad}"));
            add(&pool, &mut items, 1);
            assert!(items.iter().enumerate().all(|(i, item)| *item == i));
        }
    }

    #[test]
    fn chunks_within_chunks_and_callers_side_by_side_are_served() {
        let pool = Pool::new(3, 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut items = vec![0; 400];
                    pool.chunks(&mut items, 20, |_, outer| add(&pool, outer, 1));
                    assert!(items.iter().enumerate().all(|(i, item)| *item == i % 20));
                });
            }
        });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn nice_threads_are_nice() {
        let pool = Pool::new(2, 7).unwrap();
        let mut found = vec![0; 50];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pool.chunks(&mut found, 1, |_, found| {
                    std::thread::sleep(Duration::from_micros(100));
                    // SAFETY: the call takes no pointer.
                    found[0] = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
                });
            });
        });
        assert!(found.iter().all(|niceness| *niceness == 7), "{found:?}");
    }
}
