//! What a site cannot do without: an alert that touches it is worse for it, however likely it is.

use std::net::IpAddr;

use globset::{GlobBuilder, GlobMatcher};

use super::notes::{Wanted, covers, known::network};
use super::observable::{Kind, Observables};
use crate::config::yaml::{Node, Value};
use crate::config::{FromYaml, Reader};

/// Addresses, networks and names, as the operator wrote them and as they are compared.
#[derive(Clone, Debug, Default)]
pub struct Assets {
    texts: Vec<String>,
    networks: Vec<(IpAddr, u8)>,
    names: Vec<GlobMatcher>,
}

impl PartialEq for Assets {
    fn eq(&self, other: &Self) -> bool {
        self.texts == other.texts
    }
}

impl Assets {
    /// Fails where a name is no pattern.
    pub fn new(texts: &[String]) -> Result<Self, globset::Error> {
        let mut assets = Self { texts: texts.to_vec(), ..Self::default() };
        for text in texts {
            match network(text) {
                Some(Wanted::Network(address, bits)) => assets.networks.push((address, bits)),
                Some(Wanted::Text(_)) | None => {
                    assets
                        .names
                        .push(GlobBuilder::new(text).case_insensitive(true).build()?.compile_matcher());
                }
            }
        }
        Ok(assets)
    }

    /// The first of an alert's entities that is one, by clean columns alone: what a text names is not touched by that.
    pub fn touched<'a>(&self, observables: &'a Observables) -> Option<&'a str> {
        let of_it = |kind: Kind, value: &str| match kind {
            Kind::Address => value.parse().is_ok_and(|address: IpAddr| {
                self.networks.iter().any(|(network, bits)| covers(*network, *bits, address))
            }),
            Kind::Host | Kind::User | Kind::Cloud => self.names.iter().any(|name| name.is_match(value)),
            _ => false,
        };
        let clean = observables.list.iter().filter(|observable| !observable.tainted);
        let mut touched = clean.filter(|observable| of_it(observable.kind, &observable.value));
        touched.next().map(|observable| observable.value.as_str())
    }
}

impl FromYaml for Assets {
    const TYPE: &'static str = "list of addresses, networks and names";

    fn schema() -> serde_json::Value {
        Vec::<String>::schema()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let texts = Vec::<String>::from_yaml(node, reader)?;
        if texts.len() > MAX_ASSETS {
            reader.error(
                node.at,
                format!(
                    "{} assets are too many, {MAX_ASSETS} can be held: use networks and `*`",
                    texts.len()
                ),
            );
            return None;
        }
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let is_good =
            |text: &String| !text.trim().is_empty() && Self::new(std::slice::from_ref(text)).is_ok();
        match texts.iter().zip(items).find(|(text, _)| !is_good(text)) {
            Some((_, item)) => reader.refuse(
                item,
                "an address, a network, or the name of a host or user, e.g. `10.0.0.0/24`, `dc-*`",
            ),
            None => Self::new(&texts).ok(),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        self.texts.clone().into()
    }
}

const MAX_ASSETS: usize = 1_000;

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::triage::observable;
    use crate::triage::testing::alert;

    #[test]
    fn an_asset_is_touched_by_its_address_network_or_name_in_a_clean_column() {
        let texts = ["10.0.0.0/24", "2001:db8::1", "dc-*", "svc-admin"].map(str::to_owned);
        let assets = Assets::new(&texts).unwrap();
        let touched = |row: Json| {
            let observables = observable::extract(&alert(50, json!([row])));
            assets.touched(&observables).map(str::to_owned)
        };
        for (row, expected) in [
            (json!({ "source_ip": "203.0.113.9", "destination_ip": "10.0.0.77" }), Some("10.0.0.77")),
            (json!({ "source_ip": "2001:db8::1" }), Some("2001:db8::1")),
            (json!({ "host": "DC-01" }), Some("DC-01")),
            (json!({ "user": "svc-admin" }), Some("svc-admin")),
            (json!({ "host": "web-1", "source_ip": "10.0.1.77" }), None),
            (json!({ "message": "from 10.0.0.77 on dc-01" }), None),
        ] {
            assert_eq!(touched(row.clone()).as_deref(), expected, "{row}");
        }
    }
}
