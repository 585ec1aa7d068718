//! An answer of `_search`, read hit by hit as it comes.

use std::fmt;
use std::io::Read;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::QueryError;
use super::super::feed::{self, Allowance};
use super::super::json::Json;
use super::super::kept::Kept;
use super::buckets;
use super::{hits, words};

/// What an answer said.
pub(super) struct Reply {
    /// Hits, or buckets where those were asked for, behind what was kept before.
    pub(super) kept: Kept,
    pub(super) hits: u64,
    pub(super) total: Option<Total>,
    pub(super) point: Option<String>,
    /// Where the last hit stands in the order.
    pub(super) last: Option<Box<RawValue>>,
    /// Composite aggregations that have more buckets, each with the key of the last.
    pub(super) more: Vec<(String, Box<RawValue>)>,
    pub(super) is_timed_out: bool,
    /// What part was not searched, in words.
    pub(super) missing: Option<String>,
    /// No index was searched at all.
    pub(super) is_of_nothing: bool,
    pub(super) is_ended_early: bool,
}

/// How many hits there are, returned or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) value: u64,
    /// False where counting stopped at `value`.
    pub(super) is_exact: bool,
}

/// What is to become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Hits,
    Buckets,
}

/// Reads an answer; what it has of `wanted` goes to `kept`. Fails where it is not whole JSON, or not such an answer.
pub(super) fn read(source: impl Read, wanted: Wanted, kept: Kept) -> Result<Reply, QueryError> {
    let seed = |allowance| Answer { kept, allowance };
    let (kept, parts): (Kept, Parts) = feed::json(source, seed)?;
    let Some(hits) = parts.hits else {
        return Err(QueryError::Unreadable("it has no `hits`: this is no answer of `_search`".into()));
    };
    let shards = parts._shards.unwrap_or_default();
    let mut reply = Reply {
        kept,
        hits: hits.count,
        total: hits.total,
        point: parts.pit_id,
        last: hits.last,
        more: Vec::new(),
        is_timed_out: parts.timed_out,
        missing: missing(&shards, &parts._clusters.unwrap_or_default()),
        is_of_nothing: shards.total == Some(0) && hits.count == 0,
        is_ended_early: parts.terminated_early,
    };
    match (wanted, parts.aggregations) {
        (Wanted::Hits, _) => {}
        (Wanted::Buckets, Some(aggregations)) => {
            reply.more = buckets::rows(aggregations, &mut reply.kept)?;
        }
        (Wanted::Buckets, None) if reply.is_of_nothing => {}
        (Wanted::Buckets, None) => {
            return Err(QueryError::Unreadable("it has no `aggregations`, which were asked for".into()));
        }
    }
    Ok(reply)
}

/// The answer's own fields, without what becomes rows.
#[derive(Default)]
struct Parts {
    hits: Option<Hits>,
    aggregations: Option<Named>,
    _shards: Option<Shards>,
    _clusters: Option<Clusters>,
    pit_id: Option<String>,
    timed_out: bool,
    terminated_early: bool,
}

#[derive(Default)]
struct Hits {
    count: u64,
    total: Option<Total>,
    last: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Shards {
    total: Option<u64>,
    failed: u64,
    failures: Vec<Value>,
}

/// Of a search across clusters; one that `skip_unavailable` allows to be away is `skipped`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Clusters {
    total: u64,
    skipped: u64,
    partial: u64,
    failed: u64,
}

fn missing(shards: &Shards, clusters: &Clusters) -> Option<String> {
    let without = clusters.skipped + clusters.partial + clusters.failed;
    let (of, reason) = match (shards.failed, without) {
        (0, 0) => return None,
        (0, without) => (format!("{without} of {} clusters", clusters.total), None),
        (failed, _) => {
            let first = shards.failures.first().and_then(|failure| words::reason(failure.get("reason")?));
            (format!("{failed} of {} shards", shards.total.unwrap_or_default()), first)
        }
    };
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    Some(format!("{of} did not answer{reason}"))
}

/// Aggregations by name, in their order, each as it was written.
pub(super) struct Named(pub(super) Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("aggregations by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named, A::Error> {
                let mut named = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    named.push(entry);
                }
                Ok(Named(named))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A number, or `{"value", "relation"}`.
struct Counting(Option<Total>);

impl<'de> Deserialize<'de> for Counting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Plain(u64),
            Object { value: u64, relation: String },
            None(()),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Plain(value) => Some(Total { value, is_exact: true }),
            Written::Object { value, relation } => Some(Total { value, is_exact: relation == "eq" }),
            Written::None(()) => None,
        }))
    }
}

struct Answer {
    kept: Kept,
    allowance: Allowance,
}

impl<'de> DeserializeSeed<'de> for Answer {
    type Value = (Kept, Parts);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Answer {
    type Value = (Kept, Parts);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer of `_search`")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut parts = Parts::default();
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "hits" if parts.hits.is_some() => return Err(A::Error::duplicate_field("hits")),
                "hits" => parts.hits = Some(map.next_value_seed(Found(&mut self))?),
                "aggregations" => parts.aggregations = Some(map.next_value()?),
                "_shards" => parts._shards = Some(map.next_value()?),
                "_clusters" => parts._clusters = Some(map.next_value()?),
                "pit_id" => parts.pit_id = map.next_value()?,
                "timed_out" => parts.timed_out = map.next_value()?,
                "terminated_early" => {
                    parts.terminated_early = map.next_value::<Option<bool>>()? == Some(true)
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok((self.kept, parts))
    }
}

/// The object `hits`, with the list `hits` in it.
struct Found<'a>(&'a mut Answer);

impl<'de> DeserializeSeed<'de> for Found<'_> {
    type Value = Hits;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Hits, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Found<'_> {
    type Value = Hits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `hits` in it")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Hits, A::Error> {
        let mut total = None;
        let mut listed = None;
        while let Some(name) = map.next_key::<String>()? {
            match name.as_str() {
                "total" => total = map.next_value::<Counting>()?.0,
                "hits" if listed.is_some() => return Err(A::Error::duplicate_field("hits")),
                "hits" => listed = Some(map.next_value_seed(List(self.0))?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let (count, last) = listed.ok_or_else(|| de::Error::missing_field("hits"))?;
        Ok(Hits { count, total, last })
    }
}

/// Where a hit stands in the order.
#[derive(Deserialize)]
struct Place {
    #[serde(default)]
    sort: Option<Box<RawValue>>,
}

struct List<'a>(&'a mut Answer);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = (u64, Option<Box<RawValue>>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = (u64, Option<Box<RawValue>>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of hits")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Answer { kept, allowance } = self.0;
        let mut count = 0;
        let mut last = None;
        // As text first: where in the order the last one stands goes back to the store as it was written, and numbers
        // of any length stay exact.
        while let Some(written) = list.next_element::<Box<RawValue>>()? {
            if kept.is_full() {
                kept.count_on(1);
            } else {
                let read = match Json::new(written.get().as_bytes()).any() {
                    Ok(Value::Object(hit)) => hits::row(hit),
                    _ => None,
                };
                kept.take(read.ok_or_else(|| A::Error::custom("a hit is not an object with a `_source`"))?);
            }
            count += 1;
            last = Some(written);
            allowance.renew();
        }
        let last = last.map(|hit| serde_json::from_str::<Place>(hit.get()));
        let last = last.transpose().map_err(A::Error::custom)?.and_then(|place| place.sort);
        Ok((count, last))
    }
}
