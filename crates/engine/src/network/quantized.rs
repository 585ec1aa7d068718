//! Tensors as a file stores them, handed to candle.

use candle_core::quantized::{QTensor, ggml_file};
use candle_core::{Device, Result};

use crate::gguf::Kind;

/// `bytes` are whole blocks of `kind`, as many as `dims` say.
pub(super) fn tensor(kind: Kind, bytes: &[u8], dims: Vec<usize>, device: &Device) -> Result<QTensor> {
    if bytes.as_ptr().cast::<u32>().is_aligned() {
        return ggml_file::qtensor_from_ggml(kind.dtype(), bytes, dims, device);
    }
    // candle reads blocks in place, which asks for their alignment; a file at an odd offset does not have it.
    let aligned: Vec<u32> = bytes
        .chunks(4)
        .map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_ne_bytes(word)
        })
        .collect();
    // SAFETY: the vector holds at least as many initialized bytes as `bytes`, and bytes need no alignment.
    let aligned = unsafe { std::slice::from_raw_parts(aligned.as_ptr().cast::<u8>(), bytes.len()) };
    ggml_file::qtensor_from_ggml(kind.dtype(), aligned, dims, device)
}
