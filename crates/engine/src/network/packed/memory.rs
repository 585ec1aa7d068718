//! Memory for weights. A decoded token reads them all, and with pages of 4 KiB looking up where each lies takes up to
//! a third of the time; so tensors lie side by side in large pieces, for which the system is asked for large pages.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use memmap2::MmapMut;

use super::blocks::Zeroed;

/// Pieces, filled one after the other.
#[derive(Default)]
pub(crate) struct Memory(Mutex<Vec<Piece>>);

struct Piece {
    pages: Arc<MmapMut>,
    /// On the border of a large page.
    start: NonNull<u8>,
    used: usize,
    len: usize,
}

// SAFETY: the pointer is to memory of its own.
unsafe impl Send for Piece {}

/// Some items in a piece, which lives as long as any of them.
pub(super) struct Table<T> {
    start: NonNull<T>,
    len: usize,
    _pages: Arc<MmapMut>,
}

// SAFETY: a table is the only way to its items, as a vector is.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Table<T> {}

impl Memory {
    /// `len` items, all of zero bytes.
    pub(super) fn table<T: Zeroed>(&self, len: usize) -> std::io::Result<Table<T>> {
        let bytes = len * size_of::<T>();
        let mut pieces = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let roomy = pieces.iter_mut().find(|piece| piece.len - piece.used >= bytes);
        let piece = match roomy {
            Some(piece) => piece,
            None => {
                pieces.push(Piece::new(bytes.max(PIECE))?);
                pieces.last_mut().expect("one was pushed")
            }
        };
        // SAFETY: `used + bytes` is at most `len`, which is the size of the memory from `start`.
        let start = unsafe { piece.start.add(piece.used) }.cast::<T>();
        piece.used = (piece.used + bytes).next_multiple_of(LINE).min(piece.len);
        assert!(start.is_aligned(), "no item asks for more than a cache line");
        Ok(Table { start, len, _pages: piece.pages.clone() })
    }
}

impl Piece {
    fn new(len: usize) -> std::io::Result<Self> {
        let len = len.next_multiple_of(LARGE_PAGE);
        let mut pages = MmapMut::map_anon(len + LARGE_PAGE)?;
        // Only advice: where it is not taken, pages stay small.
        #[cfg(target_os = "linux")]
        let _advised = pages.advise(memmap2::Advice::HugePage);
        let start = pages.as_mut_ptr();
        let start = start.wrapping_add(start.align_offset(LARGE_PAGE));
        let start = NonNull::new(start).expect("a mapping is not at zero");
        Ok(Self { pages: Arc::new(pages), start, used: 0, len })
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the items lie in memory of this table alone, aligned, and were made of zero bytes, which `Zeroed` allows.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; the table is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

const LINE: usize = 64;
const LARGE_PAGE: usize = 2 << 20;
/// What is not used of it takes no memory, but for a part of the last large page.
const PIECE: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::packed::F16;

    #[test]
    fn tables_are_zero_apart_and_live_on_their_own() {
        let memory = Memory::default();
        let mut tables: Vec<Table<F16>> =
            [3, PIECE / 4, PIECE / 4 + 1, 7, 0].map(|len| memory.table(len).unwrap()).into();
        drop(memory);
        for (i, table) in tables.iter_mut().enumerate() {
            assert!(table.iter().all(|item| item.0 == 0));
            table.fill(F16(i as u16 + 1));
        }
        for (i, table) in tables.iter().enumerate() {
            assert!(table.iter().all(|item| item.0 == i as u16 + 1));
            assert!(table.as_ptr().cast::<u8>().align_offset(LINE) == 0);
        }
    }
}
