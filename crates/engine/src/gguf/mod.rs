//! GGUF files: read and checked without trust in any number they contain.

mod header;
#[cfg(test)]
mod hostile;
mod kind;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use header::{Header, Tensor, Value};
pub(crate) use kind::Kind;
pub(crate) use shape::{Activation, Architecture, Experts, Mixer, Shape};

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
    /// An estimate for an open model with the default options and a full context.
    pub memory_bytes_needed: u64,
    /// `general.license`.
    pub licence: Option<String>,
}

/// Reads and checks the header, not the weights. Fails as [`crate::Model::open`] would, but for the tokenizer, the chat
/// template and memory.
pub fn inspect(source: &Source) -> Result<Info, LoadError> {
    let mapping = source.map()?;
    let header = Header::read(mapping.path(), &mapping)?;
    let shape = Shape::read(&header)?;
    crate::network::check(&mapping, &header, &shape)?;
    Ok(info(&header, &shape, source))
}

pub(crate) fn info(header: &Header<'_>, shape: &Shape, source: &Source) -> Info {
    let mut by_kind = BTreeMap::<&str, u64>::new();
    let mut parameters = 0;
    for tensor in header.tensors.values() {
        let elements = tensor.shape.iter().product::<usize>() as u64;
        parameters += elements;
        // An embedding may be a third of a small model and is often stored finer than the rest.
        if tensor.shape.len() > 1 && tensor.shape[0] != shape.vocab {
            *by_kind.entry(tensor.kind.name()).or_default() += elements;
        }
    }
    let quantization =
        by_kind.iter().max_by_key(|(_, elements)| **elements).map_or("unknown", |(name, _)| name);
    let file_name =
        || source.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let text = |key: &str| header.text(key).ok().flatten().map(str::to_owned);
    Info {
        name: text("general.name").unwrap_or_else(file_name),
        architecture: shape.architecture.name().into(),
        quantization: quantization.into(),
        parameters,
        context_length: shape.context,
        vocab: shape.vocab,
        file_bytes: source.len,
        memory_bytes_needed: crate::memory::needed(header, shape, crate::memory::default_context(shape)),
        licence: text("general.license"),
    }
}
