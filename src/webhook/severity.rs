//! The five bands of severity, and from which level of a rule each begins.

use serde_json::{Map, Value as Json, json};

use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, list, schema, suggestion};

/// A band, which each destination has its own word or number for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl Band {
    pub const ALL: [Self; 5] = [Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// clickdetect's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// The lowest level of each band, as a `severity_map` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeverityMap([u8; 5]);

impl Default for SeverityMap {
    fn default() -> Self {
        Self([0, 20, 40, 60, 80])
    }
}

impl SeverityMap {
    /// The band of a rule's level: the one with the highest minimum that `level` reaches, or the lowest. Of bands with
    /// the same minimum the more severe one counts, as in clickdetect.
    pub fn band(self, level: u8) -> Band {
        let mut bands: Vec<(u8, Band)> = self.0.into_iter().zip(Band::ALL).collect();
        bands.sort_by_key(|(minimum, _)| *minimum);
        let reached = bands.iter().rev().find(|(minimum, _)| level >= *minimum);
        reached.unwrap_or(&bands[0]).1
    }
}

impl FromYaml for SeverityMap {
    const TYPE: &'static str = "map of severities";

    fn schema() -> Json {
        let bands = Band::ALL.iter().map(|band| (band.word().to_owned(), schema::whole(0, 100)));
        let bands: Map<String, Json> = bands.collect();
        json!({ "type": "object", "properties": bands, "additionalProperties": false })
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Some(entries) = node.entries() else {
            return reader.refuse(node, "a map of severities to levels, e.g. `{critical: 90}`");
        };
        let mut map = Self::default();
        let mut is_good = true;
        for entry in entries {
            let known = Band::ALL.iter().position(|band| band.word() == entry.key);
            let Some(at) = known else {
                let words = || Band::ALL.iter().map(|band| band.word());
                let hint = match suggestion(&entry.key, words()) {
                    near if near.is_empty() => format!("; there is {}", list(words())),
                    near => near,
                };
                reader.error(
                    entry.at,
                    format!("no severity is called `{}`{hint}", crate::config::clip(&entry.key)),
                );
                is_good = false;
                continue;
            };
            let level = reader.within(&entry.key, |reader| match u8::from_yaml(&entry.value, reader)? {
                level @ 0..=100 => Some(level),
                _ => reader.refuse(&entry.value, "a level from 0 to 100"),
            });
            match level {
                Some(level) => map.0[at] = level,
                None => is_good = false,
            }
        }
        is_good.then_some(map)
    }

    fn to_json(&self) -> Json {
        let bands = Band::ALL.iter().zip(self.0).map(|(band, level)| (band.word().to_owned(), level.into()));
        bands.collect::<Map<_, _>>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_fall_into_clickdetects_bands() {
        let word = |map: SeverityMap, level| map.band(level).word();
        let map = SeverityMap::default();
        assert_eq!(
            [0, 19, 20, 40, 59, 60, 79, 80, 100].map(|level| word(map, level)),
            [
                "informational",
                "informational",
                "low",
                "medium",
                "medium",
                "high",
                "high",
                "critical",
                "critical"
            ]
        );
        let moved = SeverityMap([10, 20, 40, 60, 60]);
        assert_eq!([0, 60, 100].map(|level| word(moved, level)), ["informational", "critical", "critical"]);
        let upside_down = SeverityMap([0, 20, 40, 90, 80]);
        assert_eq!([85, 95].map(|level| word(upside_down, level)), ["critical", "high"]);
    }
}
