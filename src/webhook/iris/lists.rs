//! IRIS's lists of names and ids. Each is fetched before the first alert and kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value as Json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Severities,
    Statuses,
    IocTypes,
    AssetTypes,
}

impl List {
    const ALL: [Self; 4] = [Self::Severities, Self::Statuses, Self::IocTypes, Self::AssetTypes];

    /// Below IRIS's address.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Severities => "/manage/severities/list",
            Self::Statuses => "/manage/alert-status/list",
            Self::IocTypes => "/manage/ioc-types/list",
            Self::AssetTypes => "/manage/asset-type/list",
        }
    }

    /// The fields of an entry that hold its id and its name.
    fn fields(self) -> (&'static str, &'static str) {
        match self {
            Self::Severities => ("severity_id", "severity_name"),
            Self::Statuses => ("status_id", "status_name"),
            Self::IocTypes => ("type_id", "type_name"),
            Self::AssetTypes => ("asset_id", "asset_name"),
        }
    }
}

/// What is known of each list, in the order of [`List::ALL`]; `None` was not fetched yet.
#[derive(Debug, Default)]
pub(super) struct Lists(Mutex<[Option<Names>; 4]>);

/// Entries by name in lower case.
type Names = HashMap<String, Entry>;

#[derive(Clone, Debug)]
struct Entry {
    id: i64,
    /// What IRIS holds a value of this IOC type against, Python's `re.fullmatch` without regard to case.
    pattern: Option<String>,
}

impl Lists {
    /// The first list that is still to be fetched.
    pub(super) fn missing(&self) -> Option<List> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        List::ALL.into_iter().find(|list| lists[*list as usize].is_none())
    }

    /// Takes a list out of an answer; which one it is the fields of its entries say.
    pub(super) fn take(&self, body: &[u8]) -> Result<(), String> {
        let not_iris = |what: String| format!("what answers there is not DFIR-IRIS: {what}");
        let mut answer: Map<String, Json> =
            serde_json::from_slice(body).map_err(|error| not_iris(error.to_string()))?;
        let entries = match answer.remove("data") {
            Some(Json::Array(entries)) if !entries.is_empty() => entries,
            _ => return Err(not_iris("it gives no list".into())),
        };
        let list = List::ALL.into_iter().find(|list| {
            let (id, name) = list.fields();
            entries.iter().all(|entry| entry.get(id).is_some() && entry.get(name).is_some())
        });
        let list = list.ok_or_else(|| not_iris("its list is of something else".into()))?;
        let (id, name) = list.fields();
        let names = entries.iter().filter_map(|entry| {
            let pattern =
                entry.get("type_validation_regex").and_then(Json::as_str).filter(|text| !text.is_empty());
            let known = Entry { id: entry.get(id)?.as_i64()?, pattern: pattern.map(str::to_owned) };
            Some((entry.get(name)?.as_str()?.to_lowercase(), known))
        });
        let names: Names = names.collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[list as usize] = Some(names);
        Ok(())
    }

    /// Goes on without the list at `url`, where an alert can do without it.
    pub(super) fn forgo(&self, url: &str) -> bool {
        let optional = [List::Statuses, List::IocTypes, List::AssetTypes];
        let Some(list) = optional.into_iter().find(|list| url.contains(list.path())) else { return false };
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[list as usize] = Some(Names::new());
        true
    }

    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }

    /// The id of `name`, in any case.
    pub(super) fn id(&self, list: List, name: &str) -> Option<i64> {
        self.entry(list, name).map(|entry| entry.id)
    }

    /// The id of an IOC type that takes `value`: one value that does not fit its type costs the whole alert.
    pub(super) fn ioc_type(&self, name: &str, value: &str) -> Option<i64> {
        let entry = self.entry(List::IocTypes, name)?;
        let fits = match &entry.pattern {
            Some(pattern) => {
                Regex::new(&format!("^(?i:{pattern})$")).is_ok_and(|pattern| pattern.is_match(value))
            }
            None => true,
        };
        fits.then_some(entry.id)
    }

    fn entry(&self, list: List, name: &str) -> Option<Entry> {
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists[list as usize].as_ref()?.get(&name.to_lowercase()).cloned()
    }
}
