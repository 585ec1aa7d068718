//! What is known of the account's session, from login to a room that can be written to.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::Config;
use crate::config::Secret;

/// What is asked for next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Login,
    /// The id behind an alias.
    Find,
    /// Whether a room is encrypted.
    Look {
        room: String,
    },
    Join,
}

/// The one session of a webhook, which has one slot: its steps come one after another.
pub(super) struct Session(Mutex<Known>);

#[derive(Default)]
struct Known {
    token: Option<Secret>,
    user: Option<String>,
    /// The room's id.
    room: Option<String>,
    /// The account is not in the room.
    is_out: bool,
    /// Whether the room is known not to be encrypted.
    is_readable: bool,
    /// Whether the room was joined since the last message that arrived.
    has_joined: bool,
}

impl Session {
    /// `room` is an id, or an alias, whose id is asked for.
    pub(super) fn new(room: &str) -> Self {
        let room = room.starts_with('!').then(|| room.to_owned());
        Self(Mutex::new(Known { room, ..Known::default() }))
    }

    /// `None` where messages can be sent.
    pub(super) fn next(&self) -> Option<Step> {
        let known = self.lock();
        match (&known.token, &known.room) {
            (None, _) => Some(Step::Login),
            _ if known.is_out => Some(Step::Join),
            (_, None) => Some(Step::Find),
            (_, Some(room)) if !known.is_readable => Some(Step::Look { room: room.clone() }),
            _ => None,
        }
    }

    pub(super) fn token(&self) -> Option<Secret> {
        self.lock().token.clone()
    }

    pub(super) fn user(&self) -> Option<String> {
        self.lock().user.clone()
    }

    pub(super) fn room(&self) -> Option<String> {
        self.lock().room.clone()
    }

    pub(super) fn log_in(&self, token: Secret, user: String) {
        let mut known = self.lock();
        (known.token, known.user) = (Some(token), Some(user));
    }

    /// The login is over.
    pub(super) fn log_out(&self) {
        self.lock().token = None;
    }

    /// The room's id, of an alias or of the room that was joined.
    pub(super) fn found(&self, room: String) {
        let mut known = self.lock();
        (known.room, known.is_out) = (Some(room), false);
    }

    pub(super) fn is_readable(&self) {
        self.lock().is_readable = true;
    }

    /// The account is not in the room, or may not write there: it is to join. `false` where it did since the last
    /// message that arrived.
    pub(super) fn stays_out(&self) -> bool {
        let mut known = self.lock();
        if known.has_joined {
            known.has_joined = false;
            return false;
        }
        (known.is_out, known.is_readable, known.has_joined) = (true, false, true);
        true
    }

    /// A message arrived.
    pub(super) fn arrived(&self) {
        self.lock().has_joined = false;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same for the same machine, account and room: a login with a device of before makes no new one. Another room has
/// another device, because a login ends the device's other sessions.
pub(super) fn device(config: &Config) -> String {
    let machine = std::fs::read_to_string(MACHINE_ID).unwrap_or_default();
    let mut hash = Sha256::new();
    for part in [machine.trim(), config.url.as_str(), &config.username, &config.room_id] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digits: String = hash.finalize()[..8].iter().map(|byte| format!("{byte:02X}")).collect();
    format!("WATCHPOST{digits}")
}

/// machine-id(5)
const MACHINE_ID: &str = "/etc/machine-id";
