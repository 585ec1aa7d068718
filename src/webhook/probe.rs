//! A look at a destination: does it answer, does it know us, which version is it.

use super::attempt::Meaning;
use super::{MAX_PREPARATIONS, MAX_READ_BYTES, Webhook};
use crate::http::{Http, HttpError, Request};
use crate::mail::MailError;
use crate::text;

/// What is asked of a destination; it changes nothing there.
#[derive(Clone, Debug)]
pub enum Probe {
    Http(Request),
    /// Greeting, TLS and login at [`Webhook::relay`].
    Mail,
}

/// Why a look found nothing good. No text holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Mail(#[from] MailError),
    /// The destination does not let us in. Its own words, safe to show.
    #[error("{0}")]
    Denied(String),
    /// It answers, and not as it should. Safe to show.
    #[error("{0}")]
    Wrong(String),
}

/// Asks the destination of `webhook` and says, in words safe to show, what answers there, or what is wrong; `None`
/// where nobody can be asked. Whatever a message needs before it (a login, a list of ids) is asked too, so that a
/// wrong password is found. Each question has the time limit of the webhook's messages.
pub async fn look(webhook: &dyn Webhook, http: &Http) -> Option<Result<String, LookError>> {
    let probes = webhook.probe();
    if probes.is_empty() {
        return None;
    }
    Some(ask(webhook, http, &probes).await)
}

async fn ask(webhook: &dyn Webhook, http: &Http, probes: &[Probe]) -> Result<String, LookError> {
    for _ in 0..MAX_PREPARATIONS {
        let Some(request) = webhook.preparation() else { break };
        let answer = http.send(&request, MAX_READ_BYTES).await?;
        if Meaning::of_status(answer.status) == Meaning::Delivered {
            webhook.prepared(&answer).map_err(|reason| LookError::Wrong(safe(&reason)))?;
        } else if !webhook.forgoes(&request, &answer) {
            let words = request.redact(&String::from_utf8_lossy(&answer.body));
            return Err(wrong(&[answer.status], &format!("{}: {words}", answer.status)));
        }
    }
    let mut answers = Vec::new();
    for probe in probes {
        answers.push(match probe {
            Probe::Http(request) => {
                let mut answer = http.send(request, MAX_READ_BYTES).await?;
                answer.body = request.redact(&String::from_utf8_lossy(&answer.body)).into_bytes();
                answer
            }
            Probe::Mail => {
                let relay =
                    webhook.relay().ok_or_else(|| LookError::Wrong("it has no mail server".into()))?;
                relay.greet().await?
            }
        });
    }
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    webhook.probed(&answers).map(|said| safe(&said)).map_err(|reason| wrong(&statuses, &reason))
}

fn wrong(statuses: &[u16], reason: &str) -> LookError {
    let is_denied = statuses.iter().any(|status| DENIALS.contains(status));
    if is_denied { LookError::Denied(safe(reason)) } else { LookError::Wrong(safe(reason)) }
}

fn safe(words: &str) -> String {
    text::escape_within(words, MAX_WORDS)
}

/// HTTP's, then SMTP's (RFC 4954).
const DENIALS: [u16; 5] = [401, 403, 407, 530, 535];
/// Characters; a server's page about an error is longer.
const MAX_WORDS: usize = 300;
