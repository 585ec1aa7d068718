//! The model's answer: what of it goes into the verdict.

use serde::Deserialize;

use super::prompt::{EXPLANATION_CHARS, SUMMARY_CHARS, TITLE_CHARS};
use super::prose::Ground;
use super::verdict::{Prose, Verdict};

#[derive(Clone, Deserialize)]
pub struct Answer {
    title: String,
    summary: String,
    explanation: String,
    mitigations: Vec<String>,
    recommended_action: String,
}

impl Answer {
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("the answer does not fit: {error}"))
    }

    /// Replaces code's prose where the model's holds against `ground`; `steps` are what it could choose from.
    pub fn put_into(self, mut verdict: Verdict, ground: &Ground, steps: &[String]) -> Verdict {
        let texts = [
            ("title", &mut verdict.title, &self.title, TITLE_CHARS),
            ("summary", &mut verdict.summary, &self.summary, SUMMARY_CHARS),
            ("explanation", &mut verdict.explanation, &self.explanation, EXPLANATION_CHARS),
        ];
        for (name, text, written, max_chars) in texts {
            let kept = match name {
                "title" => ground.keep_title(written, max_chars),
                _ => ground.keep(written, max_chars),
            };
            match kept {
                // The facts stay beside the model's explanation.
                Ok(kept) if name == "explanation" => {
                    let end = if kept.ends_with(['.', '!', '?', '…']) { "" } else { "." };
                    *text = format!("{kept}{end} {text}");
                }
                Ok(kept) => *text = kept,
                Err(reason) => verdict.cost.templated.push(format!("{name}: {reason}")),
            }
        }
        // The model's choice first, the rest of the usual steps after it.
        let chosen = self.mitigations.iter().filter(|step| steps.contains(step)).chain(steps);
        let mut mitigations: Vec<String> = Vec::new();
        for step in chosen {
            if mitigations.len() < 3 && !mitigations.contains(step) {
                mitigations.push(step.clone());
            }
        }
        verdict.mitigations = mitigations;
        if steps.contains(&self.recommended_action) {
            verdict.recommended_action = self.recommended_action;
        }
        verdict.cost.prose = match verdict.cost.templated.len() {
            0 => Prose::Model,
            3.. => Prose::Template,
            _ => Prose::Mixed,
        };
        verdict
    }
}
