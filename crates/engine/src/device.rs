//! What computes: this processor with our kernels, or a device of candle's.

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
    /// The first Nvidia GPU. Only in a build with the feature `cuda`.
    Cuda,
    /// The GPU of an Apple machine. Only in a build with the feature `metal`.
    Metal,
}

impl Device {
    /// What candle computes on; `None` for our kernels.
    pub(crate) fn open(self) -> Result<Option<candle_core::Device>, LoadError> {
        use candle_core::utils::{cuda_is_available, metal_is_available};
        let failed = |device: &'static str, what: String| Err(LoadError::NoDevice { device, what });
        let missing = |device, name: &str, feature: &str| {
            failed(
                device,
                format!("this build has no {name}: use one made with `--features {feature}`, or `cpu`"),
            )
        };
        let opened = |device, opened: candle_core::Result<_>| match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) => failed(device, format!("{error}: check its driver, or use `cpu`")),
        };
        match self {
            Self::Auto if cuda_is_available() => Ok(candle_core::Device::new_cuda(0).ok()),
            Self::Auto if metal_is_available() => Ok(candle_core::Device::new_metal(0).ok()),
            Self::Auto | Self::Cpu => Ok(None),
            Self::Candle => Ok(Some(candle_core::Device::Cpu)),
            Self::Cuda if !cuda_is_available() => missing("cuda", "CUDA", "cuda"),
            Self::Cuda => opened("cuda", candle_core::Device::new_cuda(0)),
            Self::Metal if !metal_is_available() => missing("metal", "Metal", "metal"),
            Self::Metal => opened("metal", candle_core::Device::new_metal(0)),
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
        let lacking = [(Device::Cuda, "cuda"), (Device::Metal, "metal")];
        let is_lacking = |name: &str| match name {
            "cuda" => !candle_core::utils::cuda_is_available(),
            _ => !candle_core::utils::metal_is_available(),
        };
        for (device, name) in lacking.into_iter().filter(|(_, name)| is_lacking(name)) {
            let error = open(device).err().unwrap().to_string();
            assert!(error.starts_with(&format!("device `{name}`: this build has no ")), "{error}");
            assert!(error.contains(&format!("--features {name}")), "{error}");
        }
    }
}
