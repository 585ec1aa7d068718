//! candle-transformers' own llama: slow and plain, the measure of our forward pass.

use std::io::Cursor;

use candle_core::quantized::gguf_file::Content;
use candle_core::{Device, Result, Tensor};
use candle_transformers::models::quantized_llama::ModelWeights;

use crate::gguf::Header;
use crate::source::Mapping;

pub(super) struct Reference {
    weights: ModelWeights,
    len: usize,
}

impl Reference {
    /// `_header` was read from `mapping`, so candle reads only what was checked.
    pub(super) fn load(mapping: &Mapping, _header: &Header<'_>) -> Result<Self> {
        let mut reader = Cursor::new(&**mapping);
        let content = Content::read(&mut reader)?;
        Ok(Self { weights: ModelWeights::from_gguf(content, &mut reader, &Device::Cpu)?, len: 0 })
    }

    pub(super) fn forward(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let input = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = self.weights.forward(&input, self.len)?.flatten_all()?.to_vec1::<f32>()?;
        self.len += tokens.len();
        Ok(logits)
    }
}
