//! candle-transformers' own llama: slow and plain, the measure of our own forward pass.

use std::io::Cursor;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

use crate::error::{GenerateError, LoadError};
use crate::gguf::Header;
use crate::source::Mapping;

pub(crate) struct Reference {
    weights: ModelWeights,
}

#[derive(Clone)]
pub(crate) struct Sequence {
    weights: ModelWeights,
    len: usize,
}

impl Reference {
    /// `header` was read from `mapping`, so candle reads only what was checked.
    pub(crate) fn load(mapping: &Mapping, header: &Header<'_>) -> Result<Self, LoadError> {
        let mut reader = Cursor::new(&**mapping);
        let weights = Content::read(&mut reader)
            .and_then(|content| ModelWeights::from_gguf(content, &mut reader, &Device::Cpu));
        let weights = weights.map_err(|error| LoadError::Damaged {
            path: header.path().into(),
            at: 0,
            what: error.to_string(),
        })?;
        Ok(Self { weights })
    }

    pub(crate) fn sequence(&self) -> Sequence {
        Sequence { weights: self.weights.clone(), len: 0 }
    }
}

impl Sequence {
    pub(crate) fn forward(&mut self, tokens: &[u32]) -> Result<Vec<f32>, GenerateError> {
        let mut run = || {
            let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
            self.weights.forward(&input, self.len)?.flatten_all()?.to_vec1::<f32>()
        };
        let logits = run().map_err(|error| GenerateError::Inference(error.to_string()))?;
        self.len += tokens.len();
        Ok(logits)
    }
}
