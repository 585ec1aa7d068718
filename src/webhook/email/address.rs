//! Addresses of the configuration.

use lettre::message::{Mailbox, Mailboxes as List};
use serde_json::Value as Json;

use crate::config::yaml::{Node, Value};
use crate::config::{FromYaml, Reader};

/// One mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender(pub Mailbox);

impl FromYaml for Sender {
    const TYPE: &'static str = "mail address";

    fn schema() -> serde_json::Value {
        String::schema()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::from_yaml(node, reader)?;
        match text.trim().parse() {
            Ok(mailbox) => Some(Self(mailbox)),
            Err(_) => reader.refuse(node, ADDRESS),
        }
    }

    fn to_json(&self) -> Json {
        self.0.to_string().into()
    }
}

/// One mailbox or more: a text (several with commas between), or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailboxes(pub Vec<Mailbox>);

impl FromYaml for Mailboxes {
    const TYPE: &'static str = "list of mail addresses";

    fn schema() -> serde_json::Value {
        Vec::<String>::schema()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let items: &[Node] = match &node.value {
            Value::List(items) => items,
            _ => std::slice::from_ref(node),
        };
        if items.is_empty() {
            return reader.refuse(node, ADDRESS);
        }
        let read = items.iter().enumerate().map(|(index, item)| match node.value {
            Value::List(_) => reader.within_item(index, |reader| mailboxes(item, reader)),
            _ => mailboxes(item, reader),
        });
        let read: Option<Vec<Vec<Mailbox>>> = read.collect();
        read.map(|lists| Self(lists.into_iter().flatten().collect()))
    }

    fn to_json(&self) -> Json {
        self.0.iter().map(ToString::to_string).collect()
    }
}

fn mailboxes(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<Mailbox>> {
    let text = String::from_yaml(node, reader)?;
    match text.trim().parse::<List>().map(List::into_iter) {
        Ok(list) if list.len() > 0 => Some(list.collect()),
        _ => reader.refuse(node, ADDRESS),
    }
}

const ADDRESS: &str = "a mail address, e.g. `soc@example.com` or `On call <oncall@example.com>`";
