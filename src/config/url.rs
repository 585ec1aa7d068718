//! An HTTP address.

use std::fmt;
use std::str::FromStr;

use serde_json::Value as Json;

use super::read::{FromYaml, Reader};
use super::schema;
use super::yaml::Node;

/// An `http://` or `https://` address with a host; kept as it was written.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    has_secret_path: bool,
}

impl Url {
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same address, whose path is a secret too: incoming webhooks, bots.
    pub fn with_secret_path(mut self) -> Self {
        self.has_secret_path = true;
        self
    }

    pub fn has_secret_path(&self) -> bool {
        self.has_secret_path
    }

    /// As it was written, where it has neither user, password nor query in it; else without them.
    pub fn without_secrets(&self) -> String {
        let parsed = reqwest::Url::parse(&self.text).ok();
        let is_plain = |url: &reqwest::Url| {
            url.username().is_empty() && url.password().is_none() && url.query().is_none()
        };
        if parsed.as_ref().is_some_and(is_plain) { self.text.clone() } else { self.to_string() }
    }
}

impl FromStr for Url {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let parsed = reqwest::Url::parse(text).map_err(|_| ())?;
        let fits = ["http", "https"].contains(&parsed.scheme()) && parsed.has_host();
        if fits { Ok(Self { text: text.to_owned(), has_secret_path: false }) } else { Err(()) }
    }
}

/// Without user, password and query, which may be secret, and with `***` for a path that is.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match reqwest::Url::parse(&self.text) {
            Ok(url) => {
                write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
                if let Some(port) = url.port() {
                    write!(f, ":{port}")?;
                }
                f.write_str(if self.has_secret_path { "/***" } else { url.path() })
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

    fn schema() -> Json {
        schema::pattern("^[hH][tT][tT][pP][sS]?://")
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_was_written_unless_it_has_secrets_in_it() {
        let shown = |text: &str| text.parse::<Url>().unwrap().without_secrets();
        assert_eq!(shown("http://es.example:9200"), "http://es.example:9200");
        assert_eq!(shown("http://es.example/a/"), "http://es.example/a/");
        assert_eq!(shown("https://ana:s3cret@es.example/a?token=s3cret"), "https://es.example/a");
    }

    #[test]
    fn an_address_shows_no_more_than_it_may() {
        let url: Url = "https://jo:s3cret@hooks.example:8443/services/T0/s3cret?sig=s3cret".parse().unwrap();
        assert_eq!(url.to_string(), "https://hooks.example:8443/services/T0/s3cret");
        let hidden = url.with_secret_path();
        assert_eq!(
            format!("{hidden} {hidden:?}"),
            "https://hooks.example:8443/*** https://hooks.example:8443/***"
        );
        assert_eq!(hidden.to_json(), "https://hooks.example:8443/***");
    }
}
