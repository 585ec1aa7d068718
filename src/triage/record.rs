//! What a verdict was made of, as hashes: with alert, features, judge and model that they name, `watchpost replay` gives the
//! same verdict again, or says which of them is another now.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::provider::{Prompt, Question};
use super::reader::Settings;
use crate::alert::Alert;
use crate::config::FromYaml as _;

/// Each is the first half of a SHA-256, hexadecimal. The judge stands in the verdict's judgement, the model in its cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of Watchpost, whose formula, words and checks a verdict has.
    pub watchpost: String,
    pub alert: String,
    /// Notes and limits of the configuration.
    pub settings: String,
    pub features: String,
    /// What the model was asked for its opinion.
    pub question: String,
    /// What it was asked to write, and the grammar of the answer; absent where it wrote nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
}

impl Record {
    /// The features are known last: [`of_json`].
    pub fn begin(alert: &Alert, settings: &Settings, question: &Prompt, candidates: &[Question]) -> Self {
        let candidates = candidates.iter().flat_map(|question| {
            std::iter::once(question.answer.as_str()).chain(question.candidates.iter().map(String::as_str))
        });
        let asked: Vec<&str> = parts(question).into_iter().chain(candidates).collect();
        let Settings { notes, critical_assets, data_tokens, opinion_limit, reuse } = settings;
        Self {
            watchpost: env!("CARGO_PKG_VERSION").to_owned(),
            alert: of_json(alert),
            settings: of_parts(&[
                &format!("{notes:?}"),
                &of_json(&critical_assets.to_json()),
                &format!("{data_tokens} {opinion_limit:?} {reuse}"),
            ]),
            features: String::new(),
            question: of_parts(&asked),
            prompt: None,
            grammar: None,
        }
    }
}

pub fn of_prompt(prompt: &Prompt) -> String {
    of_parts(&parts(prompt))
}

/// Of something that is always written the same.
pub fn of_json(value: &impl Serialize) -> String {
    // Maps with keys of text and finite numbers, and nothing else: it does not fail.
    of_parts(&[&serde_json::to_string(value).unwrap_or_default()])
}

fn parts(prompt: &Prompt) -> [&str; 4] {
    [&prompt.system, &prompt.guidance, &prompt.user, &prompt.answer]
}

/// With their lengths, so that no two lists of texts are written the same.
fn of_parts(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::triage::Notes;
    use crate::triage::testing::alert;

    #[test]
    fn each_part_has_a_hash_of_its_own() {
        let record = |message: &str, notes: &str, question: &str| {
            let settings = Settings { notes: Notes::parse(notes), ..Settings::default() };
            let question = Prompt::new("system", question);
            Record::begin(&alert(50, json!([{ "message": message }])), &settings, &question, &[])
        };
        let one = record("a", "b", "c");
        assert_eq!(one, record("a", "b", "c"));
        let differs = |other: Record| {
            (one.alert != other.alert, one.settings != other.settings, one.question != other.question)
        };
        assert_eq!(differs(record("x", "b", "c")), (true, false, false));
        assert_eq!(differs(record("a", "x", "c")), (false, true, false));
        assert_eq!(differs(record("a", "b", "x")), (false, false, true));
        assert_ne!(of_parts(&["ab", "c"]), of_parts(&["a", "bc"]));
        assert_eq!(one.alert.len(), 32);
    }
}
