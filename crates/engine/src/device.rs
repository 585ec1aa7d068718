//! What computes: this processor with our kernels, or a device of candle's.

use std::fmt;
use std::str::FromStr;

use candle_core::utils::{cuda_is_available, metal_is_available};

use crate::error::LoadError;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The GPU that this build is made for, where the machine has it; else `Cpu`.
    #[default]
    Auto,
    /// Our kernels.
    Cpu,
    /// candle on this processor: many times slower than our kernels, to compare them with. Computes with as many threads as it
    /// likes.
    Candle,
    /// The Nvidia GPU of this number, from 0. Only in a build with the feature `cuda`.
    Cuda(u8),
    /// The GPU of an Apple machine. Only in a build with the feature `metal`.
    Metal,
}

impl Device {
    /// What candle computes on; `None` for our kernels.
    pub(crate) fn open(self) -> Result<Option<candle_core::Device>, LoadError> {
        let failed = |what: String| Err(LoadError::NoDevice { device: self.to_string(), what });
        let opened = |opened: candle_core::Result<_>| match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) => failed(format!("{error}: check its driver, or use `cpu`")),
        };
        if let Some(feature) = self.missing_feature() {
            return failed(format!(
                "this build cannot compute on it: use one made with `--features {feature}`, or `cpu`"
            ));
        }
        match self {
            Self::Auto if cuda_is_available() => Ok(candle_core::Device::new_cuda(0).ok()),
            Self::Auto if metal_is_available() => Ok(candle_core::Device::new_metal(0).ok()),
            Self::Auto | Self::Cpu => Ok(None),
            Self::Candle => Ok(Some(candle_core::Device::Cpu)),
            Self::Cuda(number) => opened(candle_core::Device::new_cuda(number.into())),
            Self::Metal => opened(candle_core::Device::new_metal(0)),
        }
    }

    /// The feature that this build would need to compute on it, and was made without.
    pub fn missing_feature(self) -> Option<&'static str> {
        match self {
            Self::Cuda(_) if !cuda_is_available() => Some("cuda"),
            Self::Metal if !metal_is_available() => Some("metal"),
            _ => None,
        }
    }
}

/// As an operator names it: `cpu`, `cuda` (the first one), `cuda:1` or `metal`. The error says so.
impl FromStr for Device {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "metal" => Ok(Self::Metal),
            _ => {
                let number = text.strip_prefix("cuda:").filter(|number| !number.starts_with('+'));
                let number = number.and_then(|number| number.parse().ok());
                number.map(Self::Cuda).ok_or("write `cpu`, `cuda`, `cuda:1` or `metal`")
            }
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => out.write_str("auto"),
            Self::Cpu => out.write_str("cpu"),
            Self::Candle => out.write_str("candle"),
            Self::Cuda(0) => out.write_str("cuda"),
            Self::Cuda(number) => write!(out, "cuda:{number}"),
            Self::Metal => out.write_str("metal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Control, Model, Options, Prompt, Question, Request, Scores, Scoring, Source};

    fn open(device: Device) -> Result<Model, LoadError> {
        let source = Source::file(crate::tests::model_path()).unwrap();
        Model::open(&source, &Options { device, context: Some(512), ..Options::default() })
    }

    #[test]
    fn candle_answers_and_scores_as_our_kernels_do() {
        let prompt =
            Prompt::new("You triage security alerts. Answer in JSON.", "Alert: 200 failed ssh logins.");
        let text = json!({ "type": "string", "maxLength": 30 });
        let schema = json!({
            "type": "object", "properties": { "title": text }, "required": ["title"], "additionalProperties": false,
        });
        let candidates = ["high", "medium", "low"].map(String::from).to_vec();
        let questions = vec![Question { answer: "Severity: ".into(), candidates }];
        let scoring = Scoring { prompt: prompt.clone(), questions, hidden: true };
        let mut results = Vec::new();
        for device in [Device::Cpu, Device::Candle] {
            let mut model = open(device).unwrap();
            let scores = model.scores(&scoring, &Control::unlimited()).unwrap();
            let request = Request::new(prompt.clone(), schema.clone(), 60);
            let completion = model.generate(&request, &Control::unlimited()).unwrap();
            assert!(serde_json::from_str::<Value>(&completion.text).unwrap()["title"].is_string());
            assert!(completion.cached_tokens > 0, "what was scored is not read again");
            results.push(scores);
        }
        let [ours, candles] = &results[..] else { unreachable!("two devices") };
        // Against the first candidate: what all have in common is the likelihood of other words.
        let against_first = |scores: &Scores| {
            let scores = &scores.log_probabilities[0];
            scores.iter().map(|score| score - scores[0]).collect::<Vec<_>>()
        };
        for (ours, candles) in against_first(ours).into_iter().zip(against_first(candles)) {
            println!("log-probability: {ours:.3}, candle's {candles:.3}");
            assert!((ours - candles).abs() < 0.2);
        }
        for (ours, candles) in
            [(&ours.last_hidden, &candles.last_hidden), (&ours.mean_hidden, &candles.mean_hidden)]
        {
            let error: f32 = ours.iter().zip(candles).map(|(a, b)| (a - b).powi(2)).sum();
            let size: f32 = ours.iter().map(|a| a.powi(2)).sum();
            println!("hidden state: relative L2 {:.4}", (error / size).sqrt());
            assert!(error.sqrt() < 0.05 * size.sqrt());
        }
    }

    #[test]
    fn a_device_that_this_build_lacks_is_named() {
        for device in [Device::Cuda(0), Device::Cuda(1), Device::Metal] {
            let Some(feature) = device.missing_feature() else { continue };
            let error = open(device).err().unwrap().to_string();
            assert!(error.starts_with(&format!("device `{device}`: this build cannot ")), "{error}");
            assert!(error.contains(&format!("--features {feature}")), "{error}");
        }
        assert_eq!(Device::Cpu.missing_feature(), None);
    }

    #[test]
    fn devices_have_names() {
        for (name, device) in [
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(0)),
            ("cuda:3", Device::Cuda(3)),
            ("metal", Device::Metal),
        ] {
            assert_eq!(name.parse(), Ok(device));
            assert_eq!(device.to_string(), name);
        }
        assert_eq!("cuda:0".parse(), Ok(Device::Cuda(0)));
        for name in
            ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:+1", "cuda:256", "cuda: 1", "metal:0", "auto"]
        {
            assert!(name.parse::<Device>().is_err(), "{name}");
        }
    }
}
