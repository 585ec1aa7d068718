//! Where a model's bytes lie: a file, or a section of one.

use std::path::PathBuf;

use crate::error::LoadError;

/// `len` bytes from `offset` of the file at `path`. The file must not be changed while a model is open.
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
        unimplemented!("{path:?}")
    }

    /// SHA-256 of the bytes, in lower-case hex. Reads them once, in pieces; about 1 s per GB.
    pub fn sha256(&self) -> Result<String, LoadError> {
        unimplemented!()
    }
}
