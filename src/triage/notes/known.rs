//! The `known_benign` statements of the configuration: who or what is harmless, why, until when, and who said so.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::{Condition, Effect, MAX_STATEMENTS, Statement, Subject, Wanted};
use crate::clock::Timestamp;
use crate::config::yaml::{Node, Position, Value};
use crate::config::{Field, FromYaml, Reader, Section as _, clip, schema, section};
use crate::triage::field::{self, Role};

section! {
    /// That something is harmless: it dismisses alerts whose every row meets every condition (`rules`, `source`,
    /// `destination`, `user`, `host`, `fields`; at least one), each by one of its values.
    pub struct KnownBenign {
        /// Ids or names of rules, e.g. `[port-scan]`.
        #[read(names)]
        pub rules: Vec<String> = "[]",
        /// Source addresses or networks, e.g. `[10.0.0.5, 10.1.0.0/16]`.
        pub source: Networks = "[]",
        /// Destination addresses or networks.
        pub destination: Networks = "[]",
        /// User names, e.g. `[svc-backup]`, in any case.
        #[read(users)]
        pub user: Vec<String> = "[]",
        /// Host names, addresses or networks.
        #[read(hosts)]
        pub host: Vec<String> = "[]",
        /// Columns by name and the values of each, e.g. `{event_id: [4624, 4634]}`.
        #[read(fields)]
        pub fields: BTreeMap<String, Vec<String>> = "{}",
        /// For whoever reads the verdict, e.g. `our own vulnerability scanner, ticket SEC-17`.
        #[read(sentence)]
        pub why: String,
        /// The last day (UTC), e.g. `2026-12-31`, or a moment, e.g. `2026-12-31T18:00:00Z`. Alerts that are raised later
        /// are not dismissed.
        pub until: Until,
        /// Who answers for it, e.g. `jane@example.org`.
        #[read(sentence)]
        pub added_by: String,
    }
}

impl KnownBenign {
    pub(super) fn statement(&self) -> Statement {
        let Self { why, until, added_by, .. } = self;
        Statement {
            effect: Effect::Dismiss,
            conditions: self.conditions(),
            any: false,
            text: format!("known benign: {why} (added by {added_by}, until {until})"),
            until: Some(until.end),
        }
    }

    fn conditions(&self) -> Vec<Condition> {
        let texts = |list: &[String]| list.iter().cloned().map(Wanted::Text).collect();
        let either = |list: &[String]| list.iter().map(|text| address_or_text(text)).collect();
        let mut all = vec![
            (Subject::Rule, texts(&self.rules)),
            (Subject::Source, self.source.0.clone()),
            (Subject::Destination, self.destination.0.clone()),
            (Subject::User, texts(&self.user)),
            (Subject::Host, either(&self.host)),
        ];
        let columns = self.fields.iter();
        all.extend(columns.map(|(name, values)| (Subject::Field(field::normal(name)), either(values))));
        all.into_iter()
            .filter(|(_, values): &(_, Vec<_>)| !values.is_empty())
            .map(|(subject, values)| Condition { subject, values })
            .collect()
    }
}

impl FromYaml for Vec<KnownBenign> {
    const TYPE: &'static str = "list of statements";
    const INSIDE: &'static [Field] = KnownBenign::FIELDS;

    fn schema() -> Json {
        json!({ "type": "array", "items": KnownBenign::schema() })
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let Value::List(items) = &node.value else {
            return reader.refuse(node, "a list of statements, `- why: ...` and more for each");
        };
        if items.len() > MAX_STATEMENTS {
            let message =
                format!("{} statements are too many, {MAX_STATEMENTS} can be held: join some", items.len());
            reader.error(node.at, message);
            return None;
        }
        let read: Vec<_> = (items.iter().enumerate())
            .map(|(index, item)| reader.within_item(index, |reader| statement(item, reader)))
            .collect();
        read.into_iter().collect()
    }

    fn to_json(&self) -> Json {
        self.iter().map(FromYaml::to_json).collect()
    }
}

fn statement(node: &Node, reader: &mut Reader<'_>) -> Option<KnownBenign> {
    let known = KnownBenign::from_yaml(node, reader)?;
    if known.conditions().is_empty() {
        let subjects = "`rules`, `source`, `destination`, `user`, `host` or `fields`";
        reader.error(node.at, format!("this does not say who or what is harmless: add {subjects}"));
        return None;
    }
    Some(known)
}

/// Addresses and networks.
#[derive(Clone, Debug, PartialEq)]
pub struct Networks(Vec<Wanted>);

impl FromYaml for Networks {
    const TYPE: &'static str = "list of addresses and networks";

    fn schema() -> Json {
        Vec::<String>::schema()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let what = "an address or a network, e.g. `10.0.0.5`, `10.1.0.0/16`";
        let texts = texts(node, reader, what, |text| network(text).is_some())?;
        Some(Self(texts.iter().filter_map(|text| network(text)).collect()))
    }

    fn to_json(&self) -> Json {
        self.0.iter().map(ToString::to_string).collect()
    }
}

/// The moment at which a statement is over, and how and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Until {
    text: String,
    end: Timestamp,
    pub at: Position,
}

impl Until {
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.end <= now
    }
}

impl FromYaml for Until {
    const TYPE: &'static str = "date or time";

    fn schema() -> Json {
        schema::text()
    }

    fn from_yaml(node: &Node, reader: &mut Reader<'_>) -> Option<Self> {
        let text = String::from_yaml(node, reader)?;
        let moment = text.parse().ok().or_else(|| {
            let midnight: Timestamp = format!("{text}T00:00:00Z").parse().ok()?;
            midnight.checked_add(DAY).ok()
        });
        match moment {
            Some(end) => Some(Self { text, end, at: node.at }),
            None => reader.refuse(node, "a date or a time, e.g. `2026-12-31`, `2026-12-31T18:00:00Z`"),
        }
    }

    fn to_json(&self) -> Json {
        self.text.as_str().into()
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `10.0.0.5`, `10.0.0.0/8`, `2001:db8::/32`.
pub(in crate::triage) fn network(text: &str) -> Option<Wanted> {
    let Some((address, bits)) = text.split_once('/') else {
        let address: IpAddr = text.parse().ok()?;
        return Some(Wanted::Network(address.to_canonical(), 128));
    };
    let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
    let (most, add) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
    (bits <= most).then(|| Wanted::Network(address, bits + add))
}

fn address_or_text(text: &str) -> Wanted {
    network(text).unwrap_or_else(|| Wanted::Text(text.to_owned()))
}

/// One text or several, each of them `what` by `is_good`.
fn texts(
    node: &Node,
    reader: &mut Reader<'_>,
    what: &str,
    is_good: impl Fn(&str) -> bool,
) -> Option<Vec<String>> {
    let texts = Vec::<String>::from_yaml(node, reader)?;
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut all_good = true;
    for (index, (text, item)) in texts.iter().zip(items).enumerate() {
        if !is_good(text) {
            all_good = false;
            reader.within_item(index, |reader| reader.refuse::<()>(item, what));
        }
    }
    all_good.then_some(texts)
}

fn names(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let what = format!("a value: write 1 to {MAX_VALUE_BYTES} bytes");
    texts(node, reader, &what, |text| (1..=MAX_VALUE_BYTES).contains(&text.len()))
}

fn users(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    texts(node, reader, "a user name: it has no blanks and at most 64 characters", field::is_user)
}

fn hosts(node: &Node, reader: &mut Reader<'_>) -> Option<Vec<String>> {
    let is_good = |text: &str| field::is_host(text) || network(text).is_some();
    texts(node, reader, "a host name, an address or a network", is_good)
}

/// A column that attackers can write meets no condition, so that one is worth a warning.
fn fields(node: &Node, reader: &mut Reader<'_>) -> Option<BTreeMap<String, Vec<String>>> {
    let columns = BTreeMap::<String, Vec<String>>::from_yaml(node, reader)?;
    let mut all_good = true;
    for entry in node.entries().unwrap_or_default() {
        reader.within(&entry.key, |reader| {
            match names(&entry.value, reader) {
                Some(values) if values.is_empty() => {
                    reader.error(entry.value.at, "there is no value: write one or more, or remove the column");
                    all_good = false;
                }
                values => all_good &= values.is_some(),
            }
            if field::normal(&entry.key).is_empty() {
                reader.error(entry.at, "this is no name of a column: write one with letters or digits");
                all_good = false;
            } else if !Role::of(&entry.key).can_be_clean() {
                let message = format!(
                    "`{}` is a column that attackers can write, or that is not known: this holds only for rules that \
                     list it under `clean`",
                    clip(&entry.key)
                );
                reader.warn(entry.at, message);
            }
        });
    }
    all_good.then_some(columns)
}

/// On one line, whatever the block it was written in.
fn sentence(node: &Node, reader: &mut Reader<'_>) -> Option<String> {
    let text = String::from_yaml(node, reader)?.split_whitespace().collect::<Vec<_>>().join(" ");
    let fits = (1..=MAX_SENTENCE_CHARS).contains(&text.chars().count());
    if fits && !text.contains(char::is_control) {
        return Some(text);
    }
    reader.refuse(node, &format!("a text of 1 to {MAX_SENTENCE_CHARS} printable characters"))
}

const DAY: Duration = Duration::from_secs(86_400);
const MAX_VALUE_BYTES: usize = 256;
const MAX_SENTENCE_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::triage::notes::{Judgement, Notes};
    use crate::triage::testing::alert;

    /// What was read, and what was said about it.
    fn read(yaml: &str) -> (Option<Vec<KnownBenign>>, String) {
        let mut reader = Reader::new("runner.yml", yaml, Path::new(""), None);
        let root = reader.parse().unwrap();
        let known = reader.within("known_benign", |reader| Vec::from_yaml(&root, reader));
        let said: Vec<_> = reader.into_diagnostics().iter().map(ToString::to_string).collect();
        (known, said.join("\n"))
    }

    /// A statement with these conditions, until the end of 2030.
    fn notes(conditions: &str) -> Notes {
        notes_until("2030-12-31", conditions)
    }

    fn notes_until(until: &str, conditions: &str) -> Notes {
        let (known, said) =
            read(&format!("- {{{conditions}, why: our scanner, until: {until}, added_by: jane}}"));
        Notes::default().with_known(&known.unwrap_or_else(|| panic!("{said}")))
    }

    fn is_dismissed(notes: &Notes, rows: Json) -> bool {
        notes.judge(&alert(75, rows)).is_dismissed()
    }

    #[test]
    fn every_row_must_meet_every_condition() {
        let notes = notes("source: [10.0.0.5, 10.1.0.0/16], user: svc-scan, fields: {event.code: 4625}");
        let row = |source: &str, user: &str, code: u64| json!({ "src_ip": source, "user": user, "event": { "code": code } });
        assert!(is_dismissed(
            &notes,
            json!([row("10.1.2.3", "SVC-scan", 4625), row("10.0.0.5", "svc-scan", 4625)])
        ));
        for other in
            [row("10.2.0.1", "svc-scan", 4625), row("10.0.0.5", "root", 4625), row("10.0.0.5", "svc-scan", 1)]
        {
            assert!(!is_dismissed(&notes, json!([row("10.0.0.5", "svc-scan", 4625), other])), "{other}");
        }
        assert!(!is_dismissed(&notes, json!([{ "src_ip": "10.0.0.5", "user": "svc-scan" }])));
        assert!(!is_dismissed(&notes, json!([])));
    }

    #[test]
    fn hosts_are_names_addresses_or_networks_and_rules_ids_or_names() {
        let row = json!([{ "host": "10.3.0.9", "destination_ip": "2001:db8::5" }]);
        for conditions in [
            "host: [web-1, 10.3.0.0/24]",
            "host: 10.3.0.9",
            "destination: '2001:db8::/32'",
            "rules: test-rule",
            "rules: [Test rule], host: 10.3.0.9",
        ] {
            assert!(is_dismissed(&notes(conditions), row.clone()), "{conditions}");
        }
        for conditions in ["host: 10.3.1.0/24", "destination: 10.3.0.9", "rules: other", "source: 10.3.0.9"] {
            assert!(!is_dismissed(&notes(conditions), row.clone()), "{conditions}");
        }
    }

    #[test]
    fn what_an_attacker_can_write_meets_no_condition() {
        let notes = notes("fields: {user_agent: nessus}");
        assert!(!is_dismissed(&notes, json!([{ "user_agent": "nessus", "source_ip": "10.0.0.5" }])));
        let told = "known benign: our scanner (added by jane, until 2030-12-31)";
        assert!(!is_dismissed(
            &super::tests::notes("source: 10.0.0.5"),
            json!([{ "message": told, "source_ip": told }])
        ));
    }

    #[test]
    fn a_column_that_the_rule_calls_clean_can_meet_a_condition() {
        let notes = notes("fields: {department: it, asset: 10.3.0.0/16}");
        let mut alert = alert(75, json!([{ "department": "IT", "asset": "10.3.0.9" }]));
        assert_eq!(notes.judge(&alert), Judgement::Silent);
        alert.rule.insert("clean".into(), json!(["department", "asset"]));
        assert!(notes.judge(&alert).is_dismissed());
        alert.rule.insert("tainted".into(), json!(["asset"]));
        assert_eq!(notes.judge(&alert), Judgement::Silent);
    }

    #[test]
    fn a_statement_holds_to_the_end_of_its_day_by_the_time_of_the_alert() {
        let rows = json!([{ "source_ip": "10.0.0.5" }]);
        let (mut alert, source) = (alert(75, rows), "source: 10.0.0.5");
        for (at, until, holds) in [
            ("2026-12-31T23:59:59Z", "2026-12-31", true),
            ("2027-01-01T00:00:00Z", "2026-12-31", false),
            ("2026-12-31T17:59:59Z", "2026-12-31T18:00:00Z", true),
            ("2026-12-31T18:00:00Z", "2026-12-31T18:00:00Z", false),
            ("2026-12-31T16:00:00Z", "'2026-12-31T18:00:00+02:00'", false),
        ] {
            alert.created_at = at.parse().unwrap();
            let notes = notes_until(until, source);
            assert_eq!(notes.judge(&alert).is_dismissed(), holds, "{at} {until}");
            assert_eq!(notes.judge(&alert) == Judgement::Silent, !holds, "an end leaves no trace");
        }
    }

    #[test]
    fn rows_that_were_cut_away_are_not_dismissed_and_a_keep_outweighs() {
        let mut cut = alert(75, json!([{ "source_ip": "10.0.0.5" }]));
        cut.data.cut = Some("1 of 2 rows: max_rows".into());
        assert!(matches!(notes("source: 10.0.0.5").judge(&cut), Judgement::Mentioned(_)));
        let known = read("- {source: 10.0.0.0/8, why: x, until: 2030-01-01, added_by: j}").0.unwrap();
        let notes = Notes::parse("Never ignore alerts from 10.0.0.9.").with_known(&known);
        assert!(is_dismissed(&notes, json!([{ "source_ip": "10.0.0.5" }])));
        assert!(!is_dismissed(&notes, json!([{ "source_ip": "10.0.0.9" }])));
    }

    #[test]
    fn the_statement_itself_is_what_the_verdict_will_tell() {
        let text = "- {source: 10.0.0.5, why: 'weekly\n\n  scan', until: 2030-12-31, added_by: jane}";
        let notes = Notes::default().with_known(&read(text).0.unwrap());
        assert_eq!(
            notes.statements()[0].to_string(),
            "dismisses alerts whose every row has source address 10.0.0.5: \
             `known benign: weekly scan (added by jane, until 2030-12-31)`"
        );
    }

    #[test]
    fn every_problem_is_told_with_its_place() {
        let (known, said) = read(
            "- {source: [10.0.0.5, scanner], user: John Smith, host: 'a b', why: '', until: soon, added_by: j}\n\
             - {why: x, until: 2030-12-31, added_by: j}\n\
             - {source: 10.0.0.0/33, fields: {'': x, event_id: [], user_agent: curl}, until: 2030-02-30}\n\
             - {sorce: 10.0.0.5, rules: [''], why: x, until: 2030-12-31, added_by: j}\n\
             - 10.0.0.5\n",
        );
        assert!(known.is_none());
        insta::assert_snapshot!(said, @r"
        runner.yml:1:23: known_benign[0].source[1]: `scanner` is not an address or a network, e.g. `10.0.0.5`, `10.1.0.0/16`
        runner.yml:1:39: known_benign[0].user[0]: `John Smith` is not a user name: it has no blanks and at most 64 characters
        runner.yml:1:57: known_benign[0].host[0]: `a b` is not a host name, an address or a network
        runner.yml:1:69: known_benign[0].why: `` is not a text of 1 to 300 printable characters
        runner.yml:1:80: known_benign[0].until: `soon` is not a date or a time, e.g. `2026-12-31`, `2026-12-31T18:00:00Z`
        runner.yml:2:3: known_benign[1]: this does not say who or what is harmless: add `rules`, `source`, `destination`, `user`, `host` or `fields`
        runner.yml:3:12: known_benign[2].source[0]: `10.0.0.0/33` is not an address or a network, e.g. `10.0.0.5`, `10.1.0.0/16`
        runner.yml:3:34: known_benign[2].fields.: this is no name of a column: write one with letters or digits
        runner.yml:3:51: known_benign[2].fields.event_id: there is no value: write one or more, or remove the column
        runner.yml:3:55: warning: known_benign[2].fields.user_agent: `user_agent` is a column that attackers can write, or that is not known: this holds only for rules that list it under `clean`
        runner.yml:3:3: known_benign[2]: the key `why` (text) is missing
        runner.yml:3:81: known_benign[2].until: `2030-02-30` is not a date or a time, e.g. `2026-12-31`, `2026-12-31T18:00:00Z`
        runner.yml:3:3: known_benign[2]: the key `added_by` (text) is missing
        runner.yml:4:4: known_benign[3]: unknown key `sorce`; did you mean `source`?
        runner.yml:4:29: known_benign[3].rules[0]: `` is not a value: write 1 to 256 bytes
        runner.yml:5:3: known_benign[4]: `10.0.0.5` is not a map of `key: value` lines
        ");
        let said = read("source: 10.0.0.5").1;
        assert!(said.contains("write a list of statements"), "{said}");
        let many =
            "- {source: 10.0.0.5, why: x, until: 2030-12-31, added_by: j}\n".repeat(MAX_STATEMENTS + 1);
        let said = read(&many).1;
        assert!(said.contains("1001 statements are too many, 1000 can be held"), "{said}");
    }

    #[test]
    fn what_is_in_force_reads_as_what_was_written() {
        let text = "- {source: [10.0.0.5, 10.1.0.0/16], fields: {event_id: 4625}, why: x, until: 2030-12-31, added_by: j}";
        let known = read(text).0.unwrap();
        let again = read(&serde_yaml::to_string(&known.to_json()).unwrap()).0.unwrap();
        assert_eq!(again[0].statement(), known[0].statement());
    }
}
