//! How one alert is read, top to bottom: notes, numbers, a bounded view, the model's words, and their check.

use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;

use super::advice;
use super::field::Role;
use super::notes::{Judgement, Notes};
use super::observable;
use super::prompt::{self, EXPLANATION_CHARS, LABELS, MAX_ANSWER_TOKENS, SUMMARY_CHARS, TITLE_CHARS};
use super::prose::Ground;
use super::provider::{Completion, Control, Provider, ProviderError};
use super::score::Evidence;
use super::template::{self, Template};
use super::verdict::{Cost, Prose, Verdict};
use super::view::View;
use crate::alert::Alert;

/// What triage is told by configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's `false_positive` text.
    pub notes: Notes,
    /// Tokens of log data in a prompt, see [`prompt::DATA_TOKENS`].
    pub data_tokens: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { notes: Notes::default(), data_tokens: prompt::DATA_TOKENS }
    }
}

/// A model with what triage keeps beside it.
pub struct Reader {
    provider: Box<dyn Provider>,
    settings: Settings,
    /// How much likelier the model finds *true positive* when it is told nothing, in log-odds.
    baseline: Option<f64>,
}

impl Reader {
    pub fn new(provider: Box<dyn Provider>, settings: Settings) -> Self {
        Self { provider, settings, baseline: None }
    }

    /// The verdict on one alert. Fails where the model gives no answer at all; an answer that is not usable is
    /// replaced by code's text and named in the verdict's cost.
    pub fn read(&mut self, alert: &Alert, control: &Control) -> Result<Verdict, ProviderError> {
        let began = Instant::now();
        let notes = self.settings.notes.clone();
        let judgement = notes.judge(alert);
        let evidence = Evidence::of(alert, judgement);
        let view = View::of(alert);
        let columns: Vec<&str> = view.columns.iter().map(|column| column.path.as_str()).collect();
        let scores = evidence.score(self.label(alert, &columns, control)?);

        let observables = observable::extract(&alert.data.value);
        let template = template::write(alert, &view, judgement, scores);
        let source = view.most_frequent(&template::SOURCES).map(|(_, value, _)| value);
        let user = view.most_frequent(&[Role::User]).map(|(_, value, _)| value);
        let is_dismissed = matches!(judgement, Judgement::Dismissed(_));
        let theme = advice::theme(alert);
        let (steps, danger) = match is_dismissed {
            true => (advice::steps_when_dismissed(source), ""),
            false => (advice::steps(theme, source, user), advice::danger(theme)),
        };

        let mut words = Words::of(&template, &steps);
        let mut cost = Cost {
            model: self.provider.model().name.clone(),
            model_sha256: self.provider.model().sha256.clone(),
            ..Cost::default()
        };
        let mut budget = self.settings.data_tokens;
        let (shown, answer) = loop {
            let shown = view.show(budget, &|text| self.provider.count_tokens(text));
            let prompt = prompt::prose(alert, &shown, &template, danger, judgement, scores);
            let asked = self.provider.complete(&prompt, &prompt::schema(&steps), MAX_ANSWER_TOKENS, control);
            match asked {
                // A small context, or a language that takes many tokens: once with half the data.
                Err(ProviderError::TooLong(_)) if budget == self.settings.data_tokens && budget > 1 => {
                    budget /= 2
                }
                Err(ProviderError::TooLong(reason) | ProviderError::Unusable(reason)) => {
                    break (shown, Err(reason));
                }
                Err(error) => return Err(error),
                Ok(completion) => break (shown, Ok(completion)),
            }
        };
        match answer {
            Ok(completion) => {
                let trusted = trusted(alert, judgement, &template, danger, &columns);
                let trusted: Vec<&str> = trusted.iter().map(String::as_str).collect();
                let ground =
                    Ground::new(&observables, &shown.values, &trusted, scores.severity, is_dismissed);
                words.take(&completion, &ground, &steps, &mut cost);
            }
            Err(reason) => cost.templated.push(format!("all: {reason}")),
        }
        cost.seconds = began.elapsed().as_secs_f64();
        Ok(Verdict {
            title: words.title,
            summary: words.summary,
            severity: scores.severity,
            confidence: scores.confidence,
            false_positive_score: scores.false_positive,
            risk_score: scores.risk,
            explanation: words.explanation,
            mitigations: words.mitigations,
            affected_entities: observable::entities(&observables),
            recommended_action: words.recommended_action,
            note: match judgement {
                Judgement::Silent => None,
                Judgement::Kept(note) | Judgement::Mentioned(note) | Judgement::Dismissed(note) => {
                    Some(note.text.clone())
                }
            },
            cost,
        })
    }

    /// The model's probability of *true positive*, against what it says when it is told nothing; `None` where it
    /// gives none.
    fn label(
        &mut self,
        alert: &Alert,
        columns: &[&str],
        control: &Control,
    ) -> Result<Option<f64>, ProviderError> {
        if self.baseline.is_none() {
            self.baseline = self.log_odds(&prompt::label_baseline(), control)?;
        }
        let Some(baseline) = self.baseline else { return Ok(None) };
        let odds = self.log_odds(&prompt::label(alert, columns), control)?;
        Ok(odds.map(|odds| 1.0 / (1.0 + (baseline - odds).exp())))
    }

    fn log_odds(
        &mut self,
        prompt: &super::provider::Prompt,
        control: &Control,
    ) -> Result<Option<f64>, ProviderError> {
        match self.provider.score(prompt, &LABELS, control) {
            Ok(scores) => Ok(match scores[..] {
                [real, false_alarm] if (real - false_alarm).is_finite() => Some(real - false_alarm),
                _ => None,
            }),
            Err(ProviderError::TooLong(_) | ProviderError::Unusable(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Texts that prove a word, beside the rows.
fn trusted(
    alert: &Alert,
    judgement: Judgement<'_>,
    template: &Template,
    danger: &str,
    columns: &[&str],
) -> Vec<String> {
    let mut texts: Vec<String> =
        [template.title.as_str(), &template.summary, &template.explanation, danger].map(str::to_owned).into();
    for name in ["id", "name", "description", "group", "tags"] {
        match alert.rule.get(name) {
            Some(Value::String(text)) => texts.push(text.clone()),
            Some(Value::Array(list)) => {
                texts.extend(list.iter().filter_map(Value::as_str).map(|tag| tag.replace('.', " ")));
            }
            _ => {}
        }
    }
    texts.extend(columns.iter().map(|column| (*column).to_owned()));
    if let Judgement::Dismissed(note) | Judgement::Mentioned(note) | Judgement::Kept(note) = judgement {
        texts.push(note.text.clone());
    }
    texts
}

/// The texts of a verdict: code's first, the model's where they hold.
struct Words {
    title: String,
    summary: String,
    explanation: String,
    mitigations: Vec<String>,
    recommended_action: String,
}

#[derive(Deserialize)]
struct Answer {
    title: String,
    summary: String,
    explanation: String,
    mitigations: Vec<String>,
    recommended_action: String,
}

impl Words {
    fn of(template: &Template, steps: &[String]) -> Self {
        let Template { title, summary, explanation } = template.clone();
        let recommended_action = steps.first().cloned().unwrap_or_default();
        Self {
            title,
            summary,
            explanation,
            mitigations: steps.iter().take(3).cloned().collect(),
            recommended_action,
        }
    }

    fn take(&mut self, completion: &Completion, ground: &Ground, steps: &[String], cost: &mut Cost) {
        cost.prompt_tokens = completion.prompt_tokens;
        cost.cached_tokens = completion.cached_tokens;
        cost.completion_tokens = completion.completion_tokens;
        cost.seconds_to_first_token = completion.time_to_first_token.as_secs_f64();
        let answer: Answer = match serde_json::from_str(&completion.text) {
            Ok(answer) => answer,
            Err(error) => {
                cost.templated.push(format!("all: the answer does not fit: {error}"));
                return;
            }
        };
        let texts = [
            ("title", &mut self.title, &answer.title, TITLE_CHARS),
            ("summary", &mut self.summary, &answer.summary, SUMMARY_CHARS),
            ("explanation", &mut self.explanation, &answer.explanation, EXPLANATION_CHARS),
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
                Err(reason) => cost.templated.push(format!("{name}: {reason}")),
            }
        }
        // The model's choice first, the rest of the usual steps after it.
        let chosen = answer.mitigations.iter().filter(|step| steps.contains(step)).chain(steps);
        let mut mitigations: Vec<String> = Vec::new();
        for step in chosen {
            if mitigations.len() < 3 && !mitigations.contains(step) {
                mitigations.push(step.clone());
            }
        }
        self.mitigations = mitigations;
        if steps.contains(&answer.recommended_action) {
            self.recommended_action = answer.recommended_action;
        }
        cost.prose = match cost.templated.len() {
            0 => Prose::Model,
            3.. => Prose::Template,
            _ => Prose::Mixed,
        };
    }
}

#[cfg(test)]
mod tests;
