//! The forward pass: tokens in, logits out, keys and values kept in a [`Sequence`].

mod reference;

use crate::error::{GenerateError, LoadError};
use crate::gguf::{Architecture, Header, Shape, Tensor};
use crate::source::Mapping;

/// Tokens of a prompt that are computed together; between chunks a request can be stopped.
pub(crate) const CHUNK: usize = 128;

pub(crate) enum Network {
    Reference(reference::Reference),
}

/// The keys and values of one conversation.
pub(crate) enum Sequence {
    Reference(reference::Sequence),
}

impl Network {
    pub(crate) fn load(mapping: &Mapping, header: &Header<'_>, shape: &Shape) -> Result<Self, LoadError> {
        if shape.architecture != Architecture::Llama {
            return Err(LoadError::Architecture {
                path: header.path().into(),
                found: shape.architecture.name().into(),
                supported: &["llama"],
            });
        }
        Ok(Self::Reference(reference::Reference::load(mapping, header)?))
    }

    /// An empty sequence with room for `capacity` tokens.
    pub(crate) fn sequence(&self, _capacity: usize) -> Sequence {
        match self {
            Self::Reference(reference) => Sequence::Reference(reference.sequence()),
        }
    }

    /// A copy of a sequence, with room for `capacity` tokens in all.
    pub(crate) fn fork(&self, sequence: &Sequence, _capacity: usize) -> Sequence {
        match sequence {
            Sequence::Reference(sequence) => Sequence::Reference(sequence.clone()),
        }
    }

    /// Appends `tokens`, at least one and at most [`CHUNK`], and gives the logits of what follows the last.
    pub(crate) fn forward(&self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        match (self, sequence) {
            (Self::Reference(_), Sequence::Reference(sequence)) => sequence.forward(tokens),
        }
    }

    /// As [`Network::forward`], with the logits of what follows each of the tokens.
    pub(crate) fn forward_each(
        &self,
        sequence: &mut Sequence,
        tokens: &[u32],
    ) -> Result<Vec<Vec<f32>>, GenerateError> {
        match (self, sequence) {
            (Self::Reference(_), Sequence::Reference(sequence)) => {
                tokens.iter().map(|token| sequence.forward(&[*token])).collect()
            }
        }
    }

    pub(crate) fn kernels(&self) -> &'static str {
        match self {
            Self::Reference(_) => "candle",
        }
    }
}

/// What a tensor takes once it is loaded.
pub(crate) fn weight_bytes(tensor: &Tensor<'_>) -> u64 {
    tensor.bytes.len() as u64
}
