//! GGUF headers: read and checked without trust in any number they contain.

use crate::error::LoadError;
use crate::source::Source;

/// What a model's own metadata says about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// `general.name`, or the file's name.
    pub name: String,
    /// `general.architecture`, e.g. `llama`.
    pub architecture: String,
    /// The kind of most weights, e.g. `Q4_1`.
    pub quantization: String,
    pub parameters: u64,
    /// Tokens that prompt and answer may have together, as trained.
    pub context_length: usize,
    pub vocab: usize,
    pub file_bytes: u64,
    /// An estimate for an open model with the default options, its key-value cache full.
    pub memory_bytes_needed: u64,
    /// `general.license`.
    pub licence: Option<String>,
}

/// Reads and checks the header, not the weights.
pub fn inspect(source: &Source) -> Result<Info, LoadError> {
    unimplemented!("{source:?}")
}
