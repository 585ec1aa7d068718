//! A Matrix room, through the client-server API (<https://spec.matrix.org/latest/client-server-api/>).
//!
//! clickdetect's own sender is turned off (it fails on every alert), so that there is no request of its to be the same as;
//! the settings and the text are. The message is plain text (`m.text`) that mentions nobody (`m.mentions`). Before the
//! first message Watchpost logs in with a device that stays the same from start to start, and makes sure that the room is
//! not encrypted, since it sends to text rooms only; where it is not in the room it joins it. The transaction id is made from the delivery's key, so that a
//! retry is no second message, and what triage adds later edits the first one.

mod session;

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use self::session::{Session, Step};
use super::template::plain;
use super::web::{self, Endpoint};
use super::words::{self, Words};
use super::{ComposeError, Meaning, Message, Outgoing, Probe, Webhook};
use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};
use crate::http::{Answer, Request};
use crate::text;

section! {
    /// Sends each alert to a Matrix room that is not encrypted, and edits the message when triage adds something.
    pub struct Config {
        /// For people; not used.
        pub name: Option<String>,
        /// The homeserver, e.g. `https://matrix.example`.
        pub url: Url,
        /// The account, e.g. `watchpost` or `@watchpost:matrix.example`.
        pub username: String,
        /// Its password, e.g. `{env: MATRIX_PASSWORD}`.
        pub password: Secret,
        /// The room, e.g. `!abc:matrix.example` or `#soc:matrix.example`. The account joins it: it is public, or invites
        /// the account.
        #[read(room)]
        pub room_id: String,
        /// The device that the account's sessions show. By default it is made from this machine's id, the account and the
        /// room; set it where two Watchposts without a machine id (containers) use one account in one room.
        pub device_id: Option<String>,
        /// The text, a Jinja template, e.g. `{{ rule.name }}: {{ data.len }}`; the default is clickdetect's text.
        #[read(web::template)]
        pub template: Option<String>,
    }
    shared { pub exchange: web::Exchange }
}

fn room(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let room = String::from_yaml(node, reader)?;
    let fits = room.len() > 1 && (room.starts_with('!') || (room.starts_with('#') && room.contains(':')));
    if fits {
        Some(room)
    } else {
        reader.refuse(node, "a room, e.g. `!abc:matrix.example` or `#soc:matrix.example`")
    }
}

/// One account in one room.
pub struct Matrix {
    endpoint: Endpoint,
    username: String,
    password: Secret,
    room: String,
    device: String,
    session: Session,
    words: Words,
}

impl Matrix {
    /// Fails where `template` is no template.
    pub fn new(config: &Config) -> Result<Self, ComposeError> {
        Ok(Self {
            endpoint: Endpoint::new(&config.url, &config.exchange),
            username: config.username.clone(),
            password: config.password.clone(),
            room: config.room_id.clone(),
            device: config.device_id.clone().unwrap_or_else(|| session::device(config)),
            session: Session::new(&config.room_id),
            words: Words::new(config.template.as_deref(), plain)?,
        })
    }

    /// The endpoint as the account, where it is logged in.
    fn logged_in(&self) -> Endpoint {
        match self.session.token() {
            Some(token) => {
                let bearer = Secret::new(format!("Bearer {}", token.reveal()));
                self.endpoint.clone().with_header("authorization", bearer)
            }
            None => self.endpoint.clone(),
        }
    }
}

impl Webhook for Matrix {
    fn compose(&self, message: &Message<'_>) -> Result<Outgoing, ComposeError> {
        let room = self.session.room().ok_or_else(|| ComposeError("no Matrix room was joined".into()))?;
        // An edit belongs to the room of what it edits.
        let event = message.receipt.and_then(|receipt| receipt.split_once(' '));
        let event = event.and_then(|(told, event)| (told == room).then_some(event));
        let message = &Message { receipt: message.receipt.filter(|_| event.is_some()), ..*message };
        let text = words::within(&self.words.standing(message)?, MAX_TEXT_BYTES, json_len);
        let mut content = json!({ "msgtype": "m.text", "body": text, "m.mentions": {} });
        if let Some(event) = event {
            // <https://spec.matrix.org/latest/client-server-api/#event-replacements>
            let new = content.clone();
            content["body"] = format!("* {text}").into();
            content["m.new_content"] = new;
            content["m.relates_to"] = json!({ "rel_type": "m.replace", "event_id": event });
        }
        let (room, transaction) = (web::segment(&room), web::segment(message.idempotency_key));
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{transaction}");
        Ok(Outgoing::Http(self.logged_in().json("PUT", &path, &content)?))
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        Some(&self.endpoint)
    }

    /// Servers limit each account to some messages in some seconds, and people read them in order.
    fn slots(&self) -> usize {
        1
    }

    fn preparation(&self) -> Option<Request> {
        let request = match self.session.next()? {
            Step::Login => self.endpoint.json(
                "POST",
                "/_matrix/client/v3/login",
                &json!({
                    "type": "m.login.password",
                    "identifier": { "type": "m.id.user", "user": self.username },
                    "password": self.password.reveal(),
                    "device_id": self.device,
                    "initial_device_display_name": "Watchpost",
                }),
            ),
            Step::Find => {
                let alias = web::segment(&self.room);
                self.logged_in().request("GET", &format!("/_matrix/client/v3/directory/room/{alias}"))
            }
            Step::Look { room } => {
                let room = web::segment(&room);
                self.logged_in()
                    .request("GET", &format!("/_matrix/client/v3/rooms/{room}/state/m.room.encryption"))
            }
            Step::Join => {
                let room = web::segment(&self.room);
                self.logged_in().json("POST", &format!("/_matrix/client/v3/join/{room}"), &json!({}))
            }
        };
        request.ok()
    }

    fn prepared(&self, answer: &Answer) -> Result<(), String> {
        let not_matrix = |_| "that is no answer of a Matrix server: is `url` one?".to_owned();
        match self.session.next() {
            None => {}
            Some(Step::Login) => {
                let login: Login = serde_json::from_slice(&answer.body).map_err(not_matrix)?;
                self.session.log_in(Secret::new(login.access_token), login.user_id);
            }
            Some(Step::Find | Step::Join) => {
                let found: Room = serde_json::from_slice(&answer.body).map_err(not_matrix)?;
                self.session.found(found.room_id);
            }
            Some(Step::Look { .. }) => {
                serde_json::from_slice::<Encryption>(&answer.body).map_err(not_matrix)?;
                return Err(format!(
                    "the room `{}` is encrypted: Watchpost sends to text rooms only, give it one that is not",
                    self.room
                ));
            }
        }
        Ok(())
    }

    fn forgoes(&self, _asked: &Request, answer: &Answer) -> bool {
        let problem = Problem::of(answer);
        if problem.is_over(answer) {
            // The next step is a new login.
            self.session.log_out();
            return true;
        }
        match self.session.next() {
            // There is no such state: the room is not encrypted.
            Some(Step::Look { .. }) if problem.is("M_NOT_FOUND") => {
                self.session.is_readable();
                true
            }
            // The account is not in the room. Once: who joined and still may not look is refused.
            Some(Step::Look { .. }) if problem.is("M_FORBIDDEN") => self.session.stays_out(),
            _ => false,
        }
    }

    fn judge(&self, answer: &Answer) -> Meaning {
        let problem = Problem::of(answer);
        if problem.is_over(answer) {
            self.session.log_out();
            return Meaning::Later { after: None };
        }
        // The account may have been put out and invited again.
        if problem.is("M_FORBIDDEN") && self.session.stays_out() {
            return Meaning::Later { after: None };
        }
        match problem.meaning(answer) {
            Meaning::Delivered if event(answer).is_none() => Meaning::Later { after: None },
            Meaning::Delivered => {
                self.session.arrived();
                Meaning::Delivered
            }
            meaning => meaning,
        }
    }

    /// The room and the event's id.
    fn receipt(&self, answer: &Answer) -> Option<String> {
        Some(format!("{} {}", self.session.room()?, event(answer)?))
    }

    /// The login of the preparation shows that account and password are right.
    fn probe(&self) -> Vec<Probe> {
        self.endpoint.request("GET", "/_matrix/client/versions").map(Probe::Http).into_iter().collect()
    }

    fn probed(&self, answers: &[Answer]) -> Result<String, String> {
        let answer = answers.first().ok_or("nothing was asked")?;
        let known: Versions = serde_json::from_slice(&answer.body)
            .map_err(|_| format!("answers HTTP {}, but not as a Matrix server does", answer.status))?;
        let newest = known.versions.last().ok_or("the Matrix server names no version")?;
        let newest = text::escape_within(newest, 40);
        Ok(match self.session.user() {
            Some(user) => format!("Matrix {newest}, as `{}`", text::escape_within(&user, 80)),
            None => format!("Matrix {newest}"),
        })
    }
}

/// <https://spec.matrix.org/latest/client-server-api/#standard-error-response>
#[derive(Default, Deserialize)]
struct Problem {
    #[serde(default)]
    errcode: String,
    retry_after_ms: Option<u64>,
}

impl Problem {
    fn of(answer: &Answer) -> Self {
        match answer.status {
            200..=299 => Self::default(),
            _ => serde_json::from_slice(&answer.body).unwrap_or_default(),
        }
    }

    fn is(&self, code: &str) -> bool {
        self.errcode == code
    }

    /// Whether the login is over.
    fn is_over(&self, answer: &Answer) -> bool {
        answer.status == 401 && ["M_UNKNOWN_TOKEN", "M_MISSING_TOKEN"].contains(&self.errcode.as_str())
    }

    fn meaning(&self, answer: &Answer) -> Meaning {
        match Meaning::of_status(answer.status) {
            Meaning::Later { .. } => Meaning::Later { after: self.retry_after_ms.map(Duration::from_millis) },
            meaning => meaning,
        }
    }
}

#[derive(Deserialize)]
struct Login {
    access_token: String,
    user_id: String,
}

#[derive(Deserialize)]
struct Room {
    room_id: String,
}

/// <https://spec.matrix.org/latest/client-server-api/#mroomencryption>
#[derive(Deserialize)]
struct Encryption {
    #[serde(rename = "algorithm")]
    _algorithm: String,
}

#[derive(Deserialize)]
struct Versions {
    versions: Vec<String>,
}

fn event(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Sent {
        event_id: String,
    }
    let sent: Sent = serde_json::from_slice(&answer.body).ok()?;
    (sent.event_id.len() <= MAX_ID_BYTES).then_some(sent.event_id)
}

/// Bytes that a character takes between JSON's quotes; `plain` leaves no control characters but these.
fn json_len(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        other => other.len_utf8(),
    }
}

/// An event has 65,536 bytes at most, with what the server adds, and an edit has the text twice
/// (<https://spec.matrix.org/latest/client-server-api/#size-limits>).
const MAX_TEXT_BYTES: usize = 28_000;
/// <https://spec.matrix.org/latest/appendices/#common-identifier-format>
const MAX_ID_BYTES: usize = 255;

#[cfg(test)]
mod tests;
