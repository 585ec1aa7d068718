//! Why a model does not load, and why a request gave no answer.

use std::path::PathBuf;

/// Why a GGUF was refused. Every variant but the last two names the file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{}: {error}", .path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{}: not a GGUF file (it begins with {magic:02x?}): give the path of a model in GGUF format", .path.display())]
    NotGguf { path: PathBuf, magic: Vec<u8> },
    #[error("{}: GGUF version {version} is not supported: convert the model to version 3 (2 and 3 are read)", .path.display())]
    Version { path: PathBuf, version: u32 },
    /// The header promises more than the file holds.
    #[error("{}: truncated: {what} ends at byte {ends_at}, the file has {file_bytes}: copy or download it again", .path.display())]
    Truncated { path: PathBuf, what: String, ends_at: u64, file_bytes: u64 },
    /// The header contradicts itself or passes a limit; no honest converter writes this.
    #[error("{}: the header is damaged at byte {at}: {what}: copy or download it again", .path.display())]
    Damaged { path: PathBuf, at: u64, what: String },
    #[error("{}: no `{key}` in its metadata: convert the model again with a current converter", .path.display())]
    MissingKey { path: PathBuf, key: String },
    #[error("{}: `{key}` is {found}: {expected}", .path.display())]
    BadKey { path: PathBuf, key: String, found: String, expected: String },
    #[error("{}: no tensor `{tensor}`: convert the model again, or use another model", .path.display())]
    MissingTensor { path: PathBuf, tensor: String },
    /// One that the architecture's forward pass does not use.
    #[error("{}: tensor `{tensor}` has no place in a model of the architecture `{architecture}`: convert the model again, or use another", .path.display())]
    UnknownTensor { path: PathBuf, tensor: String, architecture: &'static str },
    #[error("{}: tensor `{tensor}` has the shape {found:?}, {expected:?} was expected", .path.display())]
    Shape { path: PathBuf, tensor: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{}: architecture `{found}` is not supported: use one of {}", .path.display(), .supported.join(", "))]
    Architecture { path: PathBuf, found: String, supported: &'static [&'static str] },
    #[error("{}: tensor `{tensor}` is quantized as {found}, which is not supported: use one of {}", .path.display(), .supported.join(", "))]
    Quantization { path: PathBuf, tensor: String, found: String, supported: &'static [&'static str] },
    #[error("{}: tokenizer: {what}", .path.display())]
    Tokenizer { path: PathBuf, what: String },
    #[error("{}: chat template: {what}", .path.display())]
    ChatTemplate { path: PathBuf, what: String },
    #[error("{}: the model needs {needed_mib} MiB, {limit_mib} MiB are {limit}: use a smaller model or a smaller context", .path.display())]
    Memory { path: PathBuf, needed_mib: u64, limit_mib: u64, limit: &'static str },
    /// The device's library says why.
    #[error("{}: the device does not take it: {what}: use a smaller model, or the device `cpu`", .path.display())]
    Device { path: PathBuf, what: String },
    #[error("device `{device}`: {what}")]
    NoDevice { device: String, what: String },
    #[error("WATCHPOST_CPU: `{wanted}` is not for this processor: use one of {supported}, or leave it unset")]
    Processor { wanted: String, supported: String },
}

/// Why a request gave no answer. Nothing of a cut answer is returned.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    #[error("the deadline passed after {completion_tokens} tokens of the answer")]
    Deadline { completion_tokens: usize },
    #[error("cancelled")]
    Cancelled,
    #[error(
        "the answer was not complete after {max_tokens} tokens: allow more, or bound the schema's strings and arrays"
    )]
    MaxTokens { max_tokens: usize },
    /// The caller should shorten the prompt; [`crate::Tokens::count`] measures it.
    #[error(
        "the prompt has {prompt_tokens} tokens and the answer up to {max_tokens}, the context holds {context}: shorten the prompt"
    )]
    TooLong { prompt_tokens: usize, max_tokens: usize, context: usize },
    #[error(
        "the request needs {needed_mib} MiB, {limit_mib} MiB are allowed: shorten the prompt or allow more memory"
    )]
    Memory { needed_mib: u64, limit_mib: u64 },
    #[error("the schema cannot be used: {0}")]
    Schema(String),
    /// A defect of ours or of the model's file.
    #[error("inference failed: {0}")]
    Inference(String),
}
