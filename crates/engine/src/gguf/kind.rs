//! How the numbers of a tensor are stored.

use candle_core::quantized::GgmlDType;

/// The kinds we read. Ids and block sizes are ggml's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kind(GgmlDType);

impl Kind {
    pub(crate) const NAMES: &'static [&'static str] = &[
        "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    ];

    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Some(Self(match id {
            0 => GgmlDType::F32,
            1 => GgmlDType::F16,
            2 => GgmlDType::Q4_0,
            3 => GgmlDType::Q4_1,
            6 => GgmlDType::Q5_0,
            7 => GgmlDType::Q5_1,
            8 => GgmlDType::Q8_0,
            10 => GgmlDType::Q2K,
            11 => GgmlDType::Q3K,
            12 => GgmlDType::Q4K,
            13 => GgmlDType::Q5K,
            14 => GgmlDType::Q6K,
            30 => GgmlDType::BF16,
            _ => return None,
        }))
    }

    /// For messages about kinds we do not read.
    pub(crate) fn name_of(id: u32) -> String {
        let name = match id {
            9 => "Q8_1",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            20 => "IQ4_NL",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            29 => "IQ1_M",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            _ => return format!("kind {id}"),
        };
        name.into()
    }

    pub(crate) fn name(self) -> &'static str {
        match self.0 {
            GgmlDType::F32 => "F32",
            GgmlDType::F16 => "F16",
            GgmlDType::BF16 => "BF16",
            GgmlDType::Q4_0 => "Q4_0",
            GgmlDType::Q4_1 => "Q4_1",
            GgmlDType::Q5_0 => "Q5_0",
            GgmlDType::Q5_1 => "Q5_1",
            GgmlDType::Q8_0 => "Q8_0",
            GgmlDType::Q2K => "Q2_K",
            GgmlDType::Q3K => "Q3_K",
            GgmlDType::Q4K => "Q4_K",
            GgmlDType::Q5K => "Q5_K",
            GgmlDType::Q6K => "Q6_K",
            other => unreachable!("`from_id` makes no {other:?}"),
        }
    }

    pub(crate) fn dtype(self) -> GgmlDType {
        self.0
    }

    /// Numbers in a block.
    pub(crate) fn block_len(self) -> usize {
        self.0.block_size()
    }

    pub(crate) fn block_bytes(self) -> usize {
        self.0.type_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_we_read_has_a_name() {
        let names: Vec<_> = (0..64).filter_map(Kind::from_id).map(Kind::name).collect();
        assert_eq!(names.len(), Kind::NAMES.len());
        assert!(names.iter().all(|name| Kind::NAMES.contains(name)));
    }
}
