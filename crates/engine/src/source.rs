//! Where a model's bytes lie: a file, or a section of one.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::LoadError;

/// `len` bytes from `offset` of the file at `path`: a model file, or the section of an executable that carries
/// one. The file must not be changed while a model is open; replace it by renaming another over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub offset: u64,
    pub len: u64,
}

impl Source {
    /// The whole file.
    pub fn file(path: impl Into<PathBuf>) -> Result<Self, LoadError> {
        let path = path.into();
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Self { len: metadata.len(), path, offset: 0 }),
            Ok(_) => Err(LoadError::Read {
                path,
                error: std::io::Error::other("not a file: give the path of a model"),
            }),
            Err(error) => Err(LoadError::Read { path, error }),
        }
    }

    /// SHA-256 of the bytes, in lower-case hex. Reads them once, a megabyte at a time.
    pub fn sha256(&self) -> Result<String, LoadError> {
        let mut file = self.open()?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        file.seek(SeekFrom::Start(self.offset)).map_err(|error| self.unreadable(error))?;
        let mut left = self.len;
        while left > 0 {
            let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let read = file.read(&mut buffer[..want]).map_err(|error| self.unreadable(error))?;
            if read == 0 {
                return Err(self.truncated(self.offset + self.len, self.offset + self.len - left));
            }
            hash.update(&buffer[..read]);
            left -= read as u64;
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Maps the bytes read-only.
    pub(crate) fn map(&self) -> Result<Mapping, LoadError> {
        let file = self.open()?;
        let file_bytes = file.metadata().map_err(|error| self.unreadable(error))?.len();
        let end = self.offset.checked_add(self.len);
        let (Some(end), Ok(len)) = (end, usize::try_from(self.len)) else {
            return Err(self.truncated(u64::MAX, file_bytes));
        };
        if end > file_bytes {
            return Err(self.truncated(end, file_bytes));
        }
        if len == 0 {
            return Ok(Mapping { map: None, path: self.path.clone() });
        }
        let mut options = memmap2::MmapOptions::new();
        // SAFETY: the range lies within the file. A map of a file is only sound while nobody shortens or rewrites
        // that file; the documentation of `Source` asks for it, and model files are replaced by renaming.
        let map = unsafe { options.offset(self.offset).len(len).map(&file) };
        Ok(Mapping { map: Some(map.map_err(|error| self.unreadable(error))?), path: self.path.clone() })
    }

    fn open(&self) -> Result<File, LoadError> {
        File::open(&self.path).map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, error: std::io::Error) -> LoadError {
        LoadError::Read { path: self.path.clone(), error }
    }

    fn truncated(&self, ends_at: u64, file_bytes: u64) -> LoadError {
        LoadError::Truncated { path: self.path.clone(), what: "the model".into(), ends_at, file_bytes }
    }
}

/// A multiple of the pages that processors have; what it leaves at a tensor's ends is little.
const PAGE: usize = 1 << 16;

/// The bytes of a [`Source`], mapped.
pub(crate) struct Mapping {
    map: Option<memmap2::Mmap>,
    path: PathBuf,
}

impl Mapping {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the system have back the pages that lie wholly within `bytes`, which must be a part of the map: read again,
    /// they come from the file.
    pub(crate) fn release(&self, bytes: &[u8]) {
        let Some(map) = &self.map else { return };
        let Some(start) = (bytes.as_ptr() as usize).checked_sub(map.as_ptr() as usize) else { return };
        // The system wants whole pages; the map begins at one, or `memmap2` rounds down to it.
        let (from, to) = (start.next_multiple_of(PAGE), (start + bytes.len()) / PAGE * PAGE);
        if from < to && to <= map.len() {
            // SAFETY: the map is read-only and of a file, so that what is given up is what the file still holds.
            unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, to - from) }.ok();
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_maps_and_hashes_as_the_file_it_came_from() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, part) = (folder.path().join("whole"), folder.path().join("part"));
        std::fs::write(&part, b"model").unwrap();
        std::fs::write(&whole, b"program model tail").unwrap();
        let section = Source { path: whole, offset: 8, len: 5 };
        assert_eq!(&*section.map().unwrap(), b"model");
        assert_eq!(section.sha256().unwrap(), Source::file(part).unwrap().sha256().unwrap());
    }

    #[test]
    fn what_is_released_can_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let bytes: Vec<u8> = (0..8 * PAGE).map(|i| (i / 1000) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        for offset in [0, 4096, 33] {
            let source = Source { path: path.clone(), offset, len: (bytes.len() as u64) - offset };
            let mapping = source.map().unwrap();
            mapping.release(&mapping[5..]);
            mapping.release(&mapping[3 * PAGE..3 * PAGE + 1]);
            mapping.release(b"of another place");
            assert!(*mapping == bytes[offset as usize..]);
        }
    }

    #[test]
    fn a_section_past_the_end_is_truncated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short");
        std::fs::write(&path, b"model").unwrap();
        for (offset, len) in [(3, 3), (6, 0), (u64::MAX, 2)] {
            let source = Source { path: path.clone(), offset, len };
            assert!(
                matches!(source.map(), Err(LoadError::Truncated { file_bytes: 5, .. })),
                "{offset} {len}"
            );
        }
    }

    #[test]
    fn a_folder_is_not_a_model() {
        let error = Source::file(std::env::temp_dir()).unwrap_err();
        assert!(error.to_string().ends_with("not a file: give the path of a model"), "{error}");
    }
}
