//! An HTTP address.

use std::fmt;
use std::str::FromStr;

use serde_json::Value as Json;

use super::read::{FromYaml, Reader};
use super::yaml::Node;

/// An `http://` or `https://` address with a host; kept as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Url {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parsed = reqwest::Url::parse(text).map_err(|_| ())?;
        let fits = ["http", "https"].contains(&parsed.scheme()) && parsed.has_host();
        if fits { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

/// Without user, password and query, which may be secret.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match reqwest::Url::parse(&self.0) {
            Ok(url) => {
                write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
                if let Some(port) = url.port() {
                    write!(f, ":{port}")?;
                }
                f.write_str(url.path())
            }
            Err(_) => f.write_str("***"),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromYaml for Url {
    const TYPE: &'static str = "address";

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::from_yaml(node, reader)?;
        text.parse().ok().or_else(|| {
            let message = "this is not an address: write one that starts with `http://` or `https://`";
            reader.error(node.at, message);
            None
        })
    }

    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}
