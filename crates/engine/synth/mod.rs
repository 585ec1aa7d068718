//! Models of random weights, written as GGUF: small ones of every architecture for the tests, and the shapes of real
//! ones for measuring speed. A name always gives the same bytes, on every machine.
//!
//! Not part of the library: the unit tests, the example `synth` and the fuzz targets include this file.

mod blocks;
mod draft;
pub mod real;
pub mod tiny;
mod vocabulary;

use std::io::{self, Write};

pub use blocks::Kind;

use blocks::Random;

/// A GGUF of version 3 whose weights are made while they are written, so that gigabytes need little memory.
#[derive(Clone, Debug, Default)]
pub struct Gguf {
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Unsigned(u32),
    Float(f32),
    Flag(bool),
    Text(String),
    Flags(Vec<bool>),
    Integers(Vec<i32>),
    Floats(Vec<f32>),
    Texts(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    /// Innermost first, as in the file: `[columns, rows]`.
    pub shape: Vec<usize>,
    pub kind: Kind,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Random, with mean 0 and about this standard deviation.
    Spread(f32),
    /// Random, from three to five quarters of this. Only for floats.
    Around(f32),
    /// Only for F32.
    Exactly(Vec<f32>),
}

impl Gguf {
    pub fn set(&mut self, key: &str, value: Value) {
        match self.metadata.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value,
            None => self.metadata.push((key.into(), value)),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }

    pub fn tensor(&mut self, name: &str) -> Option<&mut Tensor> {
        self.tensors.iter_mut().find(|tensor| tensor.name == name)
    }

    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let header = self.header();
        out.write_all(&header)?;
        let mut at = header.len();
        for tensor in &self.tensors {
            let padding = at.next_multiple_of(ALIGNMENT) - at;
            out.write_all(&[0; ALIGNMENT][..padding])?;
            tensor.write(out)?;
            at += padding + tensor.bytes();
        }
        Ok(())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).expect("a vector takes every write");
        bytes
    }

    /// All but the weights.
    pub fn header(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut bytes, key);
            value.write(&mut bytes);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            text(&mut bytes, &tensor.name);
            bytes.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().for_each(|size| bytes.extend((*size as u64).to_le_bytes()));
            bytes.extend(tensor.kind.id().to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset += (tensor.bytes() as u64).next_multiple_of(ALIGNMENT as u64);
        }
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }
}

impl Value {
    /// The kind of the value, then the value.
    fn write(&self, out: &mut Vec<u8>) {
        let list = |out: &mut Vec<u8>, element: u32, len: usize| {
            out.extend(9u32.to_le_bytes());
            out.extend(element.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
        };
        match self {
            Self::Unsigned(number) => out.extend([4u32.to_le_bytes(), number.to_le_bytes()].concat()),
            Self::Float(number) => out.extend([6u32.to_le_bytes(), number.to_le_bytes()].concat()),
            Self::Flag(flag) => {
                out.extend(7u32.to_le_bytes());
                out.push(u8::from(*flag));
            }
            Self::Text(value) => {
                out.extend(8u32.to_le_bytes());
                text(out, value);
            }
            Self::Flags(flags) => {
                list(out, 7, flags.len());
                out.extend(flags.iter().map(|flag| u8::from(*flag)));
            }
            Self::Integers(numbers) => {
                list(out, 5, numbers.len());
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            Self::Floats(numbers) => {
                list(out, 6, numbers.len());
                numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
            }
            Self::Texts(texts) => {
                list(out, 8, texts.len());
                texts.iter().for_each(|value| text(out, value));
            }
        }
    }
}

fn text(out: &mut Vec<u8>, value: &str) {
    out.extend((value.len() as u64).to_le_bytes());
    out.extend(value.as_bytes());
}

impl Tensor {
    /// A matrix of random weights.
    pub fn matrix(name: impl Into<String>, kind: Kind, rows: usize, columns: usize, spread: f32) -> Self {
        Self { name: name.into(), shape: vec![columns, rows], kind, content: Content::Spread(spread) }
    }

    /// A vector in F32.
    pub fn vector(name: impl Into<String>, len: usize, content: Content) -> Self {
        Self { name: name.into(), shape: vec![len], kind: Kind::F32, content }
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> usize {
        self.elements() / self.kind.block_len() * self.kind.block_bytes()
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut random = Random::named(&self.name);
        let mut piece = Vec::with_capacity(PIECE);
        for block in 0..self.elements() / self.kind.block_len() {
            match &self.content {
                Content::Spread(spread) => self.kind.block(*spread, &mut random, &mut piece),
                Content::Around(middle) => {
                    self.kind.float(*middle + random.unit() * *middle / 4.0, &mut piece)
                }
                Content::Exactly(numbers) => self.kind.float(numbers[block], &mut piece),
            }
            if piece.len() + 256 > PIECE {
                out.write_all(&piece)?;
                piece.clear();
            }
        }
        out.write_all(&piece)
    }
}

const ALIGNMENT: usize = 32;
/// Bytes written at once.
const PIECE: usize = 1 << 16;
