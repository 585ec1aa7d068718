//! Weights on a device, in the kinds of their file or as F32.

use candle_core::quantized::QMatMul;
use candle_core::{Device, Tensor};

use super::super::quantized;
use super::super::weights::Place;
use crate::error::LoadError;
use crate::gguf::{Header, Tensor as Weights};

impl Place for Device {
    type Matrix = QMatMul;
    type Vector = Tensor;

    fn matrix(
        &self,
        header: &Header<'_>,
        name: &str,
        tensor: &Weights<'_>,
        (rows, columns): (usize, usize),
    ) -> Result<QMatMul, LoadError> {
        if tensor.shape != [rows, columns] {
            let (path, tensor, found) = (header.path().into(), name.into(), tensor.shape.clone());
            return Err(LoadError::Shape { path, tensor, found, expected: vec![rows, columns] });
        }
        quantized::tensor(tensor.kind, tensor.bytes, vec![rows, columns], self)
            .and_then(|quantized| match becomes_floats(tensor) {
                true => quantized.dequantize(self).map(QMatMul::Tensor),
                false => QMatMul::from_qtensor(quantized),
            })
            .map_err(|error| refused(header, &format!("tensor `{name}`"), &error))
    }

    fn vector(&self, header: &Header<'_>, numbers: Vec<f32>) -> Result<Tensor, LoadError> {
        Tensor::new(numbers, self).map_err(|error| refused(header, "a vector", &error))
    }
}

/// candle has no products of halves with floats, and takes blocks of 32 in pairs.
fn becomes_floats(tensor: &Weights<'_>) -> bool {
    let is_odd = tensor.shape.last().is_some_and(|columns| !columns.is_multiple_of(64));
    tensor.kind.block_len() == 1 || tensor.kind.block_len() == 32 && is_odd
}

/// What a tensor takes on a device.
pub(crate) fn device_bytes(device: &Device, tensor: &Weights<'_>) -> u64 {
    let elements = tensor.shape.iter().product::<usize>() as u64;
    match device {
        _ if tensor.shape.len() < 2 || becomes_floats(tensor) => 4 * elements,
        // candle puts many kinds in another order and keeps both.
        Device::Cpu => 2 * tensor.bytes.len() as u64,
        _ => tensor.bytes.len() as u64,
    }
}

fn refused(header: &Header<'_>, what: &str, error: &candle_core::Error) -> LoadError {
    LoadError::Device { path: header.path().into(), what: format!("{what}: {error}") }
}
