//! What the rows name, as IRIS takes it: indicators of what came from outside, assets of what is the site's own.

use std::net::IpAddr;

use serde_json::{Value as Json, json};

use super::lists::{List, Lists};
use crate::alert::Alert;
use crate::triage::observable::{self, Kind, Observable};

#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) iocs: Vec<Json>,
    pub(super) assets: Vec<Json>,
}

/// The same few that a verdict names, those of which IRIS knows the type.
pub(super) fn of(alert: &Alert, lists: &Lists, host_type: &str) -> Observed {
    let mut observed = Observed::default();
    let observables = observable::extract(alert);
    for one in observable::chosen(&observables) {
        if let Some((kind, address)) = asset(one, host_type) {
            if let Some(id) = lists.id(List::AssetTypes, kind) {
                observed.assets.push(json!({
                    "asset_name": one.value,
                    "asset_type_id": id,
                    "asset_description": origin(one),
                    "asset_ip": address,
                    "asset_domain": "",
                    "asset_tags": "",
                }));
            }
        } else if let Some(id) = indicator(one).and_then(|kind| lists.ioc_type(kind, &one.value)) {
            observed.iocs.push(json!({
                "ioc_value": one.value,
                "ioc_description": origin(one),
                "ioc_tlp_id": AMBER,
                "ioc_type_id": id,
                "ioc_tags": "",
            }));
        }
    }
    observed
}

/// IRIS's asset type, and the address of the asset.
fn asset<'a>(one: &'a Observable, host_type: &'a str) -> Option<(&'a str, &'a str)> {
    match one.kind {
        Kind::User => Some(("Account", "")),
        Kind::Host => Some((host_type, "")),
        Kind::Address if is_internal(&one.value) => Some((host_type, &one.value)),
        _ => None,
    }
}

/// IRIS's IOC type.
fn indicator(one: &Observable) -> Option<&'static str> {
    match one.kind {
        Kind::Address => Some("ip-any"),
        Kind::Domain => Some("domain"),
        Kind::Url => Some("url"),
        Kind::Email => Some("email"),
        Kind::File if one.value.contains(['/', '\\']) => Some("file-path"),
        Kind::File => Some("filename"),
        Kind::Hash => match one.value.len() {
            32 => Some("md5"),
            40 => Some("sha1"),
            56 => Some("sha224"),
            64 => Some("sha256"),
            96 => Some("sha384"),
            128 => Some("sha512"),
            _ => None,
        },
        _ => None,
    }
}

fn is_internal(address: &str) -> bool {
    match address.parse() {
        Ok(IpAddr::V4(address)) => address.is_private() || address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => false,
    }
}

/// Which of many columns it is from is what an analyst asks first.
fn origin(one: &Observable) -> String {
    let how = if one.tainted { "found in the text of" } else { "from" };
    format!("{how} column {}", one.field)
}

/// IRIS's TLP `amber`, the id in every IRIS.
const AMBER: i64 = 2;
