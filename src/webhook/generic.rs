//! HTTP POST to any receiver.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::yaml::Node;
use crate::config::{FromYaml, Reader, Secret, Url, section};
use crate::rule::template;

section! {
    /// Posts each alert as JSON to an HTTP receiver.
    pub struct Config {
        /// Where alerts are posted, e.g. `https://soc.example/alerts`.
        pub url: Url,
        /// Headers of the request, e.g. `Authorization: {env: SOC_TOKEN}`; names in any case.
        #[read(headers)]
        pub headers: BTreeMap<String, Secret> = "{}",
        /// For the whole exchange, connect to last byte: seconds or a duration.
        #[read(timeout)]
        pub timeout: Duration = "10s",
        /// Whether the receiver's certificate is verified. clickdetect's default was `false`.
        pub verify: bool = "true",
        /// The body, a Jinja template, e.g. `{"rule": {{ rule | tojson }}}`; the default is clickdetect's body.
        #[read(body)]
        pub template: Option<String>,
        /// Certificates (PEM) that are trusted besides the system's.
        pub ca: Option<PathBuf>,
    }
}

fn timeout(node: &Node, reader: &mut Reader<'_>) -> Option<Duration> {
    let timeout = Duration::from_yaml(node, reader)?;
    let fits = (Duration::from_millis(100)..=Duration::from_secs(600)).contains(&timeout);
    if fits { Some(timeout) } else { reader.refuse(node, "between 0.1s and 10m") }
}

/// Names in lower case, as HTTP compares them.
fn headers(node: &Node, reader: &mut Reader<'_>) -> Option<BTreeMap<String, Secret>> {
    let headers = BTreeMap::<String, Secret>::from_yaml(node, reader)?;
    let mut good = true;
    for entry in node.entries().unwrap_or_default() {
        let value = headers.get(&entry.key).map_or("", Secret::reveal);
        let name_fits = !entry.key.is_empty()
            && entry
                .key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        let value_fits = value.chars().all(|character| character == '\t' || !character.is_control());
        if !(name_fits && value_fits) {
            reader.within(&entry.key, |reader| {
                reader.error(
                    entry.at,
                    "not a header: a name takes letters, digits and `-`, a value no line breaks",
                );
            });
            good = false;
        }
    }
    good.then(|| headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
}

fn body(node: &Node, reader: &mut Reader<'_>) -> Option<Option<String>> {
    let source = String::from_yaml(node, reader)?;
    template::check(&source, node, template::MESSAGE, &template::environment(), reader)
        .then_some(Some(source))
}
