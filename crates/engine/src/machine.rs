//! What this machine can do at most, measured: the limits that the speed of a model is held against.

use std::time::{Duration, Instant};

use crate::network::kernel::{Isa, Lanes};

/// Of some threads together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Read one after the other, from memory much larger than the caches.
    pub bytes_per_second: f64,
    /// Multiplications, each with an addition, by the instruction that multiplies 4- and 8-bit weights.
    pub products_per_second: f64,
}

/// Takes about half a second and 256 MiB.
pub(crate) fn limits(isa: Isa, threads: usize) -> std::io::Result<Limits> {
    let mut memory = memmap2::MmapMut::map_anon(BYTES)?;
    // Only advice: where it is not taken, pages stay small.
    #[cfg(target_os = "linux")]
    let _advised = memory.advise(memmap2::Advice::HugePage);
    let part = BYTES / threads / 64 * 64;
    std::thread::scope(|scope| {
        memory.chunks_mut(part).for_each(|part| drop(scope.spawn(|| part.fill(1))));
    });
    let parts: Vec<&[u8]> = memory.chunks_exact(part).take(threads).collect();
    let bytes = best(&parts, |part| {
        std::hint::black_box(isa.run(Sums(part)));
        part.len()
    });
    let products = best(&parts, |_| isa.products(ROUNDS));
    Ok(Limits { bytes_per_second: bytes, products_per_second: products })
}

/// The most a second, over all threads, of what `work` says it did with a part.
fn best(parts: &[&[u8]], work: impl Fn(&[u8]) -> usize + Sync) -> f64 {
    let end = Instant::now() + TIME;
    let mut best = 0f64;
    while best == 0.0 || Instant::now() < end {
        let started = Instant::now();
        let done: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = parts.iter().map(|part| scope.spawn(|| work(part))).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).sum()
        });
        best = best.max(done as f64 / started.elapsed().as_secs_f64());
    }
    best
}

/// Of bytes 256 apart, which is little work for much reading.
struct Sums<'a>(&'a [u8]);

impl Lanes for Sums<'_> {
    type Output = [u8; 256];

    #[inline(always)]
    fn run<const FMA: bool>(self) -> [u8; 256] {
        let mut sums = [0u8; 256];
        for chunk in self.0.as_chunks::<256>().0 {
            for i in 0..256 {
                sums[i] = sums[i].wrapping_add(chunk[i]);
            }
        }
        sums
    }
}

const BYTES: usize = 256 << 20;
/// For each of the two.
const TIME: Duration = Duration::from_millis(200);
const ROUNDS: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_limits() {
        for isa in Isa::supported() {
            let limits = limits(isa, 1).unwrap();
            println!("{}: {limits:?}", isa.name());
            assert!(limits.bytes_per_second > 1e8 && limits.bytes_per_second < 1e12);
            assert!(limits.products_per_second > 1e8 && limits.products_per_second < 1e13);
        }
    }
}
