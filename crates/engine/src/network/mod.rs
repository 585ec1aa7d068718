//! The forward pass: tokens of several sequences in, logits out; one definition for every architecture.

mod attention;
mod device;
#[cfg(test)]
mod equality;
mod experts;
pub(crate) mod kernel;
mod kernels;
mod lanes;
mod packed;
mod pool;
mod quantized;
#[cfg(test)]
mod reference;
mod sequence;
#[cfg(test)]
mod tests;
mod weights;

pub(crate) use device::device_bytes;
pub(crate) use packed::packed_bytes;
pub(crate) use pool::Pool;
pub(crate) use sequence::{Sequence, part_bytes};

use kernels::Kernels;
use weights::{Look, Weights};

use crate::error::LoadError;
use crate::gguf::{Header, Shape};
use crate::machine::{self, Limits};
use crate::source::Mapping;

/// Most rows of one pass; between passes a request can be stopped.
pub(crate) const ROWS: usize = 128;

/// A model's weights, where they are computed with.
pub(crate) enum Network {
    Kernels(Kernels),
    Device(device::Network),
}

/// Tokens to append to a sequence, and what is wanted of them.
pub(crate) struct Piece<'a, S = Sequence> {
    pub(crate) sequence: &'a mut S,
    /// At least one, and as many as the sequence has room for.
    pub(crate) tokens: &'a [u32],
    /// Tokens at the end whose successors' logits are wanted.
    pub(crate) logits: usize,
    /// Tokens at the end whose hidden states are wanted.
    pub(crate) hidden: usize,
}

/// What a pass gives for one piece, a row for each token wanted.
pub(crate) struct Output {
    /// `[row][vocab]`: of what follows the token.
    pub(crate) logits: Vec<f32>,
    /// `[row][hidden]`: after the last norm.
    pub(crate) hidden: Vec<f32>,
}

/// Whether every tensor is there that a model of this shape has, in its size and in a kind that can be read, and no other.
/// Fails as [`Network::load`] would, but for memory.
pub(crate) fn check(mapping: &Mapping, header: &Header<'_>, shape: &Shape) -> Result<(), LoadError> {
    Weights::read(header, shape, shape.context, mapping, &Look).map(|_| ())
}

impl Network {
    /// For sequences of at most `context` tokens. `header` was read from `mapping`, whose pages are given back to the system
    /// as they are read.
    pub(crate) fn load(
        mapping: &Mapping,
        header: &Header<'_>,
        shape: &Shape,
        context: usize,
        pool: Pool,
    ) -> Result<Self, LoadError> {
        Kernels::load(mapping, header, shape, context, pool).map(Self::Kernels)
    }

    /// As `load`, for what candle computes on.
    pub(crate) fn load_on(
        device: candle_core::Device,
        mapping: &Mapping,
        header: &Header<'_>,
        shape: &Shape,
        context: usize,
    ) -> Result<Self, LoadError> {
        device::Network::load(mapping, header, shape, context, device).map(Self::Device)
    }

    /// What computes: the kernels for a processor, as `WATCHPOST_CPU` names them, or `candle`, `cuda` or `metal`.
    pub(crate) fn kernels(&self) -> &'static str {
        match self {
            Self::Kernels(network) => network.isa.name(),
            Self::Device(network) => network.kernels(),
        }
    }

    /// Whether keys and values lie in the machine's own memory; what a GPU has left, nobody says.
    pub(crate) fn is_here(&self) -> bool {
        match self {
            Self::Kernels(_) => true,
            Self::Device(network) => network.device.is_cpu(),
        }
    }

    pub(crate) fn shape(&self) -> &Shape {
        match self {
            Self::Kernels(network) => &network.shape,
            Self::Device(network) => &network.shape,
        }
    }

    /// Multiplications of a token with weights.
    pub(crate) fn products(&self) -> u64 {
        match self {
            Self::Kernels(network) => network.weights.products,
            Self::Device(network) => network.weights.products,
        }
    }

    /// Bytes of weights that a pass reads.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Kernels(network) => network.weights.bytes,
            Self::Device(network) => network.weights.bytes,
        }
    }

    /// What this machine can do at most with the threads and kernels of this network; `None` where there is no memory to
    /// find it out, and for what candle computes.
    pub(crate) fn limits(&self) -> Option<Limits> {
        match self {
            Self::Kernels(network) => machine::limits(network.isa, network.pool.threads()).ok(),
            Self::Device(_) => None,
        }
    }

    /// Bytes of the keys and values of all sequences there are.
    pub(crate) fn sequence_bytes(&self) -> u64 {
        match self {
            Self::Kernels(network) => network.taken.bytes(),
            Self::Device(network) => network.taken.bytes(),
        }
    }

    /// An empty sequence with room for `capacity` tokens.
    pub(crate) fn sequence(&self, capacity: usize) -> Sequence {
        match self {
            Self::Kernels(network) => Sequence::Kernels(network.empty(capacity)),
            Self::Device(network) => Sequence::Device(network.empty(capacity)),
        }
    }

    /// A sequence of `len` tokens that [`Sequence::bytes`] was asked for; `None` if it was of another model, and on a device.
    pub(crate) fn sequence_from(&self, len: usize, bytes: &[u8]) -> Option<Sequence> {
        match self {
            Self::Kernels(network) => network.empty(len).filled(len, bytes).map(Sequence::Kernels),
            Self::Device(_) => None,
        }
    }

    /// Appends `tokens`, at most [`ROWS`], and gives the logits of what follows the last of them.
    pub(crate) fn next(&self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Vec<f32>, String> {
        let mut outputs = self.forward(&mut [Piece { sequence, tokens, logits: 1, hidden: 0 }])?;
        Ok(outputs.pop().expect("one piece gives one output").logits)
    }

    /// One pass over at most [`ROWS`] tokens. What a token gives depends on its own sequence alone, with our kernels to the
    /// last bit. They never fail; where a device does, its own words are the error, and the sequences are of no more use.
    pub(crate) fn forward(&self, pieces: &mut [Piece<'_>]) -> Result<Vec<Output>, String> {
        match self {
            Self::Kernels(network) => {
                let mut pieces: Vec<_> = pieces.iter_mut().map(|piece| piece.of(Sequence::kernels)).collect();
                Ok(network.pool.enter(|| network.run(&mut pieces)))
            }
            Self::Device(network) => {
                let mut pieces: Vec<_> = pieces.iter_mut().map(|piece| piece.of(Sequence::device)).collect();
                let outputs = network.forward(&mut pieces);
                outputs.map_err(|error| format!("{}: {error}", network.kernels()))
            }
        }
    }
}

impl Piece<'_> {
    /// For the network that `part` gives a sequence's parts to.
    fn of<S>(&mut self, part: fn(&mut Sequence) -> Option<&mut S>) -> Piece<'_, S> {
        let sequence = part(self.sequence).expect("a sequence goes on with the network that made it");
        Piece { sequence, tokens: self.tokens, logits: self.logits, hidden: self.hidden }
    }
}

/// Cosines and sines by which the heads of each row are rotated.
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Angles {
    fn new(frequencies: &[f64], positions: &[usize], factor: f32) -> Self {
        let half = frequencies.len();
        let size = positions.len() * half;
        let mut angles = Self { cos: Vec::with_capacity(size), sin: Vec::with_capacity(size), half };
        for position in positions {
            for frequency in frequencies {
                let (sin, cos) = (*position as f64 * frequency).sin_cos();
                angles.cos.push(cos as f32 * factor);
                angles.sin.push(sin as f32 * factor);
            }
        }
        angles
    }

    fn at(&self, row: usize) -> (&[f32], &[f32]) {
        (&self.cos[row * self.half..][..self.half], &self.sin[row * self.half..][..self.half])
    }
}
