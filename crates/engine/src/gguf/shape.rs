//! The sizes of a model, read from its metadata and held against each other.

use super::header::{Header, Value};
use crate::error::LoadError;

/// The model families whose forward pass we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
}

impl Architecture {
    pub(crate) const NAMES: &'static [&'static str] = &["llama", "qwen2", "qwen3"];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Self::Llama),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// Every size is at least 1; `heads` is a multiple of `kv_heads`, `head_dim` is a multiple of 16.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) architecture: Architecture,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) feed_forward: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Numbers of a head that are rotated: all of them in most models.
    pub(crate) rope_dim: usize,
    pub(crate) rope_base: f64,
    pub(crate) norm_epsilon: f32,
    pub(crate) context: usize,
    pub(crate) vocab: usize,
}

impl Shape {
    pub(crate) fn read(header: &Header<'_>) -> Result<Self, LoadError> {
        let path = || header.path().to_path_buf();
        let name = header
            .text("general.architecture")
            .ok_or_else(|| LoadError::MissingKey { path: path(), key: "general.architecture".into() })?;
        let Some(architecture) = Architecture::from_name(name) else {
            let (found, supported) = (name.chars().take(80).collect(), Architecture::NAMES);
            return Err(LoadError::Architecture { path: path(), found, supported });
        };
        let key = |suffix: &str| format!("{name}.{suffix}");
        let hidden = header.size(&key("embedding_length"))?;
        let heads = header.size(&key("attention.head_count"))?;
        let kv_heads = header.optional_size(&key("attention.head_count_kv"))?.unwrap_or(heads);
        let head_dim = header.optional_size(&key("attention.key_length"))?.unwrap_or(hidden / heads);
        let rope_dim = header.optional_size(&key("rope.dimension_count"))?.unwrap_or(head_dim);
        let shape = Self {
            architecture,
            layers: header.size(&key("block_count"))?,
            hidden,
            feed_forward: header.size(&key("feed_forward_length"))?,
            heads,
            kv_heads,
            head_dim,
            rope_dim,
            rope_base: header.number(&key("rope.freq_base")).unwrap_or(10_000.0),
            norm_epsilon: header.number(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-5) as f32,
            context: header.size(&key("context_length"))?,
            vocab: header.tensor("token_embd.weight")?.shape[0],
        };
        shape.check(header, &key)?;
        Ok(shape)
    }

    fn check(&self, header: &Header<'_>, key: &dyn Fn(&str) -> String) -> Result<(), LoadError> {
        let wrong = |suffix: &str, found: usize, expected: &str| {
            Err(header.bad(&key(suffix), Value::Unsigned(found as u64), expected))
        };
        if self.layers > 1024 {
            return wrong("block_count", self.layers, "at most 1024 was expected");
        }
        if self.hidden > 1 << 20 || self.feed_forward > 1 << 22 {
            return wrong("embedding_length", self.hidden, "at most 1048576 was expected");
        }
        if self.heads > 4096 || !self.heads.is_multiple_of(self.kv_heads) {
            return wrong(
                "attention.head_count",
                self.heads,
                "a multiple of `attention.head_count_kv` was expected",
            );
        }
        if self.head_dim < 2 || self.head_dim > 1024 || !self.head_dim.is_multiple_of(2) {
            return wrong(
                "attention.key_length",
                self.head_dim,
                "an even number from 2 to 1024 was expected",
            );
        }
        if self.rope_dim > self.head_dim || !self.rope_dim.is_multiple_of(2) {
            return wrong(
                "rope.dimension_count",
                self.rope_dim,
                "an even number up to the head's size was expected",
            );
        }
        if self.rope_base.is_nan() || self.rope_base < 1.0 {
            return Err(header.bad(
                &key("rope.freq_base"),
                Value::Float(self.rope_base),
                "at least 1 was expected",
            ));
        }
        if let Some(experts) = header.optional_size(&key("expert_count"))?.filter(|experts| *experts > 1) {
            return wrong(
                "expert_count",
                experts,
                "mixtures of experts are not supported: use a dense model",
            );
        }
        match header.text(&key("rope.scaling.type")) {
            None | Some("none") => Ok(()),
            Some(kind) => {
                let expected =
                    "only models without RoPE scaling are supported: use one trained for its context";
                Err(header.bad(&key("rope.scaling.type"), Value::Text(kind.as_bytes()), expected))
            }
        }
    }
}
