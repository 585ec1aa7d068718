//! An alert: one rule that fired on one window, with what it found.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::clock::{Timestamp, Window};

/// What a rule found, as it is stored, triaged and delivered. Rule and detector are snapshots taken when it
/// fired: a later edit of a file does not rewrite history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub id: String,
    /// The rule's fields in clickdetect's shape (`id`, `name`, `level`, ..., `description` rendered).
    pub rule: Map<String, Value>,
    /// The detector's fields in clickdetect's shape (`name`, `for_time`, `tenant`, ...).
    pub detector: Map<String, Value>,
    /// The datasource's non-secret settings.
    pub datasource: Map<String, Value>,
    pub data: Data,
    pub window: Window,
    pub created_at: Timestamp,
}

/// The rows that made a rule fire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Data {
    /// True count of rows, also where `value` was cut.
    pub len: u64,
    pub value: Vec<Map<String, Value>>,
    /// The kind of the datasource, e.g. `duckdb`.
    #[serde(default)]
    pub datasource: String,
    /// What the limits cut from `value`, in words; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
}

impl Alert {
    /// Reads an alert as `watchpost alerts --json` prints it, or the body that the generic webhook posts
    /// (`rule`, `data`, `detector`, `time`); `now` stands in where the text has no time.
    pub fn from_json(text: &str, now: Timestamp) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        match serde_json::from_value::<Alert>(value.clone()) {
            Ok(alert) => Ok(alert),
            Err(error) => Self::from_body(value, now).map_err(|why| {
                format!(
                    "neither an alert of `watchpost alerts --json` ({error}) nor a webhook's body ({why})"
                )
            }),
        }
    }

    fn from_body(body: Value, now: Timestamp) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Body {
            rule: Map<String, Value>,
            #[serde(default)]
            detector: Map<String, Value>,
            data: Data,
            time: Option<Time>,
        }
        #[derive(Deserialize)]
        struct Time {
            startime: f64,
            endtime: f64,
        }
        let Body { rule, detector, data, time } =
            serde_json::from_value(body).map_err(|error| error.to_string())?;
        let now_s = now.as_second();
        let (start, end) =
            time.map_or((now_s - 1, now_s), |time| (time.startime as i64, time.endtime as i64));
        let window = Window::from_seconds(start, end).ok_or("`time` is not a window")?;
        let name = |map: &Map<String, Value>, key| {
            map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let id = identity(&name(&detector, "name"), &name(&rule, "id"), window);
        Ok(Self { id, rule, detector, datasource: Map::new(), data, window, created_at: now })
    }

    pub fn rule_id(&self) -> &str {
        self.rule.get("id").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn rule_name(&self) -> &str {
        self.rule.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// 0-100, see [`crate::rule::Level`].
    pub fn level(&self) -> u8 {
        self.rule.get("level").and_then(Value::as_u64).map_or(0, |level| level.min(100) as u8)
    }
}

/// An alert's identity: the same detector, rule and window always make the same id, so that a repeated tick
/// cannot raise it twice. 32 hexadecimal digits.
pub fn identity(detector: &str, rule: &str, window: Window) -> String {
    let mut hash = Sha256::new();
    for part in [detector.as_bytes(), rule.as_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(window.start.as_second().to_le_bytes());
    hash.update(window.end.as_second().to_le_bytes());
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}
