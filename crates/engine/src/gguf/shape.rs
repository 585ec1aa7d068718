//! The sizes of a model, read from its metadata and held against each other.
//!
//! Names of keys: the GGUF specification (docs/gguf.md of ggml) and llama.cpp's `llama-arch.cpp`.

use super::header::{Header, Value};
use crate::error::LoadError;

/// The model families whose forward pass we have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Architecture {
    Llama,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Gemma3,
    Phi2,
    Phi3,
    Granite,
    Glm4,
    Lfm2,
}

/// Every size is at least 1; `heads` is a multiple of `kv_heads`, rows of every matrix are multiples of 32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) architecture: Architecture,
    pub(crate) mixers: Vec<Mixer>,
    pub(crate) hidden: usize,
    /// Of each expert, where there are some.
    pub(crate) feed_forward: usize,
    pub(crate) experts: Option<Experts>,
    pub(crate) activation: Activation,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) rope: Rope,
    pub(crate) norm_epsilon: f32,
    /// Tokens, as trained.
    pub(crate) context: usize,
    pub(crate) vocab: usize,
    pub(crate) scales: Scales,
}

/// What a feed-forward part makes of what it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// silu(gate) * up
    SwiGlu,
    /// gelu(gate) * up, by a hyperbolic tangent, as is the next.
    GeGlu,
    /// gelu(up), without a gate.
    Gelu,
}

/// The feed-forward parts of a layer, where it has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Experts {
    pub(crate) count: usize,
    /// That a token goes through: 1 to `count`.
    pub(crate) used: usize,
}

/// How a layer lets tokens see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mixer {
    /// Each token sees all before it.
    Global,
    /// Each token sees itself and the `window` - 1 before it.
    Local { window: usize },
    /// A causal convolution over `width` tokens (LFM2).
    Convolution { width: usize },
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    /// Numbers of a head that are rotated: all of them in most models.
    pub(crate) dim: usize,
    pub(crate) base: f64,
    /// Of layers with a window.
    pub(crate) local_base: f64,
    /// Positions are divided by it, but not in layers with a window.
    pub(crate) factor: f64,
    /// Queries and keys are multiplied by it.
    pub(crate) attention_factor: f32,
    /// Pairs are (i, i + dim / 2) rather than (2i, 2i + 1).
    pub(crate) halves: bool,
    /// Beyond so many tokens of context, `rope_factors_long` stretches the frequencies, else `rope_factors_short`.
    pub(crate) original_context: usize,
}

/// Constants by which a model multiplies what flows through it; 1 where it does not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scales {
    pub(crate) embedding: f32,
    /// What a layer adds.
    pub(crate) residual: f32,
    /// Queries times keys.
    pub(crate) attention: f32,
    pub(crate) logits: f32,
    /// Logits become `cap * tanh(logit / cap)`.
    pub(crate) logit_cap: Option<f32>,
}

impl Architecture {
    pub(crate) const NAMES: &'static [&'static str] =
        &["llama", "qwen2", "qwen3", "qwen3moe", "gemma3", "phi2", "phi3", "granite", "glm4", "lfm2"];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "llama" => Self::Llama,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "qwen3moe" => Self::Qwen3Moe,
            "gemma3" => Self::Gemma3,
            "phi2" => Self::Phi2,
            "phi3" => Self::Phi3,
            "granite" => Self::Granite,
            "glm4" => Self::Glm4,
            "lfm2" => Self::Lfm2,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Gemma3 => "gemma3",
            Self::Phi2 => "phi2",
            Self::Phi3 => "phi3",
            Self::Granite => "granite",
            Self::Glm4 => "glm4",
            Self::Lfm2 => "lfm2",
        }
    }
}

impl Shape {
    pub(crate) fn read(header: &Header<'_>) -> Result<Self, LoadError> {
        let path = || header.path().to_path_buf();
        let name = header
            .text("general.architecture")?
            .ok_or_else(|| LoadError::MissingKey { path: path(), key: "general.architecture".into() })?;
        let Some(architecture) = Architecture::from_name(name) else {
            let (found, supported) = (name.chars().take(80).collect(), Architecture::NAMES);
            return Err(LoadError::Architecture { path: path(), found, supported });
        };
        Keys { header, name, architecture }.shape()
    }

    /// Layers that keep keys and values.
    pub(crate) fn attentions(&self) -> usize {
        self.mixers.len() - self.convolutions()
    }

    pub(crate) fn convolutions(&self) -> usize {
        self.mixers.iter().filter(|mixer| matches!(mixer, Mixer::Convolution { .. })).count()
    }

    /// Numbers that the convolutions of a sequence remember.
    pub(crate) fn state_len(&self) -> usize {
        let width = |mixer: &Mixer| match mixer {
            Mixer::Convolution { width } => width - 1,
            Mixer::Global | Mixer::Local { .. } => 0,
        };
        self.mixers.iter().map(width).sum::<usize>() * self.hidden
    }
}

/// The keys of one architecture.
struct Keys<'a> {
    header: &'a Header<'a>,
    name: &'a str,
    architecture: Architecture,
}

impl Keys<'_> {
    fn shape(&self) -> Result<Shape, LoadError> {
        let hidden = self.size("embedding_length")?;
        let heads = self.size("attention.head_count")?;
        let layers = self.size("block_count")?;
        if layers > MAX_LAYERS {
            return self.wrong("block_count", layers, "at most 1024 was expected");
        }
        let (kv_heads, mixers) = self.mixers(layers, heads)?;
        let head_dim = self.optional("attention.key_length")?.unwrap_or(hidden / heads);
        let experts = self.experts()?;
        let feed_forward = match experts {
            Some(_) => self.optional("expert_feed_forward_length")?,
            None => None,
        };
        let shape = Shape {
            architecture: self.architecture,
            mixers,
            hidden,
            feed_forward: feed_forward.map_or_else(|| self.size("feed_forward_length"), Ok)?,
            experts,
            activation: match self.architecture {
                Architecture::Gemma3 => Activation::GeGlu,
                Architecture::Phi2 => Activation::Gelu,
                _ => Activation::SwiGlu,
            },
            heads,
            kv_heads,
            head_dim,
            rope: self.rope(head_dim)?,
            norm_epsilon: match self.architecture {
                Architecture::Phi2 => self.positive("attention.layer_norm_epsilon", 1e-5)?,
                _ => self.positive("attention.layer_norm_rms_epsilon", 1e-5)?,
            } as f32,
            context: self.size("context_length")?,
            vocab: self.header.tensor("token_embd.weight")?.shape[0],
            scales: self.scales(layers, hidden, heads, head_dim)?,
        };
        self.check(&shape)?;
        Ok(shape)
    }

    /// The number of key-value heads, and what each layer is.
    fn mixers(&self, layers: usize, heads: usize) -> Result<(usize, Vec<Mixer>), LoadError> {
        if self.architecture == Architecture::Lfm2 {
            return self.convolutions(layers);
        }
        let kv_heads = self.optional("attention.head_count_kv")?.unwrap_or(heads);
        let window = match self.architecture {
            Architecture::Gemma3 => self.optional("attention.sliding_window")?,
            // Phi 3 names a window, but its converters wrote it so differently that llama.cpp ignores it, and so do we:
            // within it nothing changes.
            _ => None,
        };
        let Some(window) = window else { return Ok((kv_heads, vec![Mixer::Global; layers])) };
        let mixer = |is_local: bool| if is_local { Mixer::Local { window } } else { Mixer::Global };
        if let Some(list) = self.header.array(&self.key("attention.sliding_window_pattern")) {
            let list = list.flags().filter(|list| list.len() == layers);
            let list = list.ok_or_else(|| {
                let (key, found) = (self.key("attention.sliding_window_pattern"), "a list".into());
                let expected = format!("{layers} times true or false was expected");
                LoadError::BadKey { path: self.header.path().into(), key, found, expected }
            })?;
            return Ok((kv_heads, list.into_iter().map(mixer).collect()));
        }
        let pattern = self.optional("attention.sliding_window_pattern")?.unwrap_or(GEMMA_PATTERN);
        Ok((kv_heads, (1..=layers).map(|layer| mixer(!layer.is_multiple_of(pattern))).collect()))
    }

    /// LFM2 has a list of key-value heads: a layer with none is a convolution.
    fn convolutions(&self, layers: usize) -> Result<(usize, Vec<Mixer>), LoadError> {
        let key = self.key("attention.head_count_kv");
        let path = || self.header.path().to_path_buf();
        let list = self.header.array(&key).and_then(|array| array.integers());
        let list =
            list.ok_or_else(|| LoadError::MissingKey { path: path(), key: format!("{key} (a list)") })?;
        if let Some(window) = self.optional("attention.sliding_window")? {
            let expected = "LFM2 with a window is not supported: use another model";
            return self.wrong("attention.sliding_window", window, expected);
        }
        let width = self.size("shortconv.l_cache")?;
        if !(2..=64).contains(&width) {
            return self.wrong("shortconv.l_cache", width, "2 to 64 was expected");
        }
        let most = list.iter().copied().max().unwrap_or(0);
        let is_even = list.iter().all(|heads| *heads == 0 || *heads == most);
        if list.len() != layers || !is_even || most < 1 {
            let found = format!("a list of {}", list.len());
            let expected = format!("{layers} numbers were expected, each 0 or one and the same");
            return Err(LoadError::BadKey { path: path(), key, found, expected });
        }
        let mixers = list.iter().map(|heads| match heads {
            0 => Mixer::Convolution { width },
            _ => Mixer::Global,
        });
        Ok((most as usize, mixers.collect()))
    }

    fn experts(&self) -> Result<Option<Experts>, LoadError> {
        let Some(count) = self.optional("expert_count")?.filter(|count| *count > 1) else {
            return Ok(None);
        };
        if !matches!(self.architecture, Architecture::Llama | Architecture::Qwen3Moe) {
            let expected = "mixtures of experts of this architecture are not supported: use a dense model";
            return self.wrong("expert_count", count, expected);
        }
        if count > MAX_EXPERTS {
            return self.wrong("expert_count", count, "at most 512 was expected");
        }
        match self.size("expert_used_count")? {
            used if used <= count => Ok(Some(Experts { count, used })),
            used => self.wrong("expert_used_count", used, "at most `expert_count` was expected"),
        }
    }

    fn rope(&self, head_dim: usize) -> Result<Rope, LoadError> {
        let factor = match self.header.text(&self.key("rope.scaling.type"))? {
            Some("none" | "longrope") => 1.0,
            // The type came later than the factor, and the factor has had another name.
            None | Some("linear") => {
                let factor = self.positive("rope.scale_linear", 1.0)?;
                self.positive("rope.scaling.factor", factor)?
            }
            Some(kind) => {
                let expected =
                    "`none`, `linear` and `longrope` are supported: use a model trained for its context";
                let found = Value::Text(kind.as_bytes());
                return Err(self.header.bad(&self.key("rope.scaling.type"), found, expected));
            }
        };
        if self.header.flag(&self.key("rope.scaling.finetuned"))? == Some(false)
            && self.architecture == Architecture::Granite
        {
            let expected = "models without position embedding are not supported: use another";
            return Err(self.header.bad(&self.key("rope.scaling.finetuned"), Value::Bool(false), expected));
        }
        if let Some(sections) = self.header.metadata.get(&*self.key("rope.dimension_sections")) {
            let expected = "models whose positions have several parts, such as those of pictures, are not supported: use another";
            return Err(self.header.bad(&self.key("rope.dimension_sections"), *sections, expected));
        }
        Ok(Rope {
            dim: self.optional("rope.dimension_count")?.unwrap_or(head_dim),
            base: self.base("rope.freq_base", 10_000.0)?,
            local_base: self.base("rope.freq_base_swa", 10_000.0)?,
            factor,
            attention_factor: self.positive("rope.scaling.attn_factor", 1.0)? as f32,
            halves: !matches!(
                self.architecture,
                Architecture::Llama | Architecture::Granite | Architecture::Glm4
            ),
            original_context: self
                .optional("rope.scaling.original_context_length")?
                .map_or_else(|| self.size("context_length"), Ok)?,
        })
    }

    fn scales(
        &self,
        layers: usize,
        hidden: usize,
        heads: usize,
        head_dim: usize,
    ) -> Result<Scales, LoadError> {
        let root = |n: usize| 1.0 / (n as f32).sqrt();
        let mut scales =
            Scales { embedding: 1.0, residual: 1.0, attention: root(head_dim), logits: 1.0, logit_cap: None };
        match self.architecture {
            Architecture::Gemma3 => {
                scales.embedding = (hidden as f32).sqrt();
                // The 27B model, known by its layers, divides by another root than the smaller ones.
                if layers == GEMMA_27B_LAYERS {
                    scales.attention = root(hidden / heads);
                }
                if self.header.number(&self.key("final_logit_softcapping"))?.is_some_and(|cap| cap != 0.0) {
                    scales.logit_cap = Some(self.positive("final_logit_softcapping", 30.0)? as f32);
                }
            }
            Architecture::Granite => {
                scales.embedding = self.positive("embedding_scale", 1.0)? as f32;
                scales.residual = self.positive("residual_scale", 1.0)? as f32;
                scales.attention = self.positive("attention.scale", scales.attention.into())? as f32;
                scales.logits = 1.0 / self.positive("logit_scale", 1.0)? as f32;
            }
            _ => {}
        }
        Ok(scales)
    }

    fn check(&self, shape: &Shape) -> Result<(), LoadError> {
        if shape.hidden > MAX_HIDDEN || !shape.hidden.is_multiple_of(32) {
            return self.wrong(
                "embedding_length",
                shape.hidden,
                "a multiple of 32 up to 1048576 was expected",
            );
        }
        if shape.feed_forward > 4 * MAX_HIDDEN || !shape.feed_forward.is_multiple_of(32) {
            return self.wrong(
                "feed_forward_length",
                shape.feed_forward,
                "a multiple of 32 up to 4194304 was expected",
            );
        }
        if shape.heads > MAX_HEADS || !shape.heads.is_multiple_of(shape.kv_heads) {
            return self.wrong(
                "attention.head_count",
                shape.heads,
                "a multiple of `attention.head_count_kv` up to 4096 was expected",
            );
        }
        if shape.head_dim == 0 || shape.head_dim > 1024 || !shape.head_dim.is_multiple_of(16) {
            return self.wrong(
                "attention.key_length",
                shape.head_dim,
                "a multiple of 16 up to 1024 was expected",
            );
        }
        if !(shape.heads * shape.head_dim).is_multiple_of(32) {
            return self.wrong(
                "attention.head_count",
                shape.heads,
                "heads whose sizes add up to a multiple of 32 were expected",
            );
        }
        if let Some(values) = self.optional("attention.value_length")?.filter(|n| *n != shape.head_dim) {
            return self.wrong(
                "attention.value_length",
                values,
                "as many as `attention.key_length` was expected",
            );
        }
        if shape.rope.dim > shape.head_dim || !shape.rope.dim.is_multiple_of(2) {
            return self.wrong(
                "rope.dimension_count",
                shape.rope.dim,
                "an even number up to the head's size was expected",
            );
        }
        Ok(())
    }

    fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    fn size(&self, suffix: &str) -> Result<usize, LoadError> {
        self.header.size(&self.key(suffix))
    }

    fn optional(&self, suffix: &str) -> Result<Option<usize>, LoadError> {
        self.header.optional_size(&self.key(suffix))
    }

    fn base(&self, suffix: &str, default: f64) -> Result<f64, LoadError> {
        let base = self.positive(suffix, default)?;
        if base < 1.0 {
            return Err(self.header.bad(&self.key(suffix), Value::Float(base), "at least 1 was expected"));
        }
        Ok(base)
    }

    /// A number above 0.
    fn positive(&self, suffix: &str, default: f64) -> Result<f64, LoadError> {
        let number = self.header.number(&self.key(suffix))?.unwrap_or(default);
        if number.is_finite() && number > 0.0 {
            return Ok(number);
        }
        Err(self.header.bad(&self.key(suffix), Value::Float(number), "a number above 0 was expected"))
    }

    fn wrong<T>(&self, suffix: &str, found: usize, expected: &str) -> Result<T, LoadError> {
        Err(self.header.bad(&self.key(suffix), Value::Unsigned(found as u64), expected))
    }
}

const MAX_LAYERS: usize = 1024;
const MAX_HIDDEN: usize = 1 << 20;
const MAX_HEADS: usize = 4096;
const MAX_EXPERTS: usize = 512;
/// Every sixth layer of Gemma 3 sees everything.
const GEMMA_PATTERN: usize = 6;
const GEMMA_27B_LAYERS: usize = 62;
