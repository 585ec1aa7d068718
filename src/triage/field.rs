//! What the name of a column says about its cells, and whether an attacker can write them.
//!
//! A cell is *clean* when its column is known to hold one typed value (an address, a user, ...) and the whole cell is
//! such a value. Everything else (messages, URLs, user agents, command lines, unknown columns) is *tainted*:
//! it may hold text that an attacker chose. An attacker may choose *which* user name he tries, but a clean cell
//! cannot hold a sentence. A rule may say otherwise of its own columns, with `tainted` and `clean`.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value};

use super::cloud;
use crate::alert::Alert;

/// What the cells of a column are, told by its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    SourceAddress,
    DestinationAddress,
    /// An address whose side the name does not tell, e.g. `ip`.
    Address,
    User,
    Host,
    Hash,
    Process,
    CommandLine,
    File,
    Domain,
    Url,
    Email,
    /// Ids of cloud accounts and resources.
    Cloud,
    /// Ports, event ids, status codes and counts.
    Number,
    Time,
    /// Four dotted numbers in here are no address.
    Version,
    Text,
}

impl Role {
    /// Whether the cells name who or what took part. Their number of distinct values is the alert's spread.
    pub fn is_identity(self) -> bool {
        matches!(
            self,
            Self::SourceAddress | Self::DestinationAddress | Self::Address | Self::User | Self::Host
        )
    }

    /// Whether any cell can be clean.
    pub fn can_be_clean(self) -> bool {
        self.is_identity() || matches!(self, Self::Number | Self::Hash | Self::Cloud)
    }

    /// Whether `cell`, whole, is a value that this role's columns hold and that cannot carry free text.
    fn is_clean(self, cell: &Value) -> bool {
        match (self, cell) {
            (Self::Number, Value::Number(_)) => true,
            (Self::Number, Value::String(text)) => {
                (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
            }
            (Self::SourceAddress | Self::DestinationAddress | Self::Address, Value::String(text)) => {
                address(text).is_some()
            }
            (Self::User, Value::String(text)) => is_user(text),
            (Self::Host, Value::String(text)) => is_host(text),
            (Self::Hash, Value::String(text)) => is_hash(text),
            (Self::Cloud, Value::String(text)) => cloud::is_id(text),
            _ => false,
        }
    }

    /// Of the column with this dotted path, e.g. `data.srcip`.
    pub fn of(path: &str) -> Self {
        let mut parts = path.rsplit('.').map(normal);
        let last = parts.next().unwrap_or_default();
        let pair = parts.next().map(|parent| parent + &last);
        [pair.as_deref(), Some(last.as_str())]
            .into_iter()
            .flatten()
            .flat_map(|name| [Some(name), name.strip_suffix('s')])
            .flatten()
            .find_map(known)
            .unwrap_or(Self::Text)
    }
}

/// What its name and the alert's rule say of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub role: Role,
    trust: Trust,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    ByRole,
    /// The rule calls it `tainted`: no cell is clean.
    Tainted,
    /// The rule calls it `clean`: where its role has no clean cells, a word is one.
    Clean,
}

impl Column {
    /// Whether any cell can be clean.
    pub fn can_be_clean(self) -> bool {
        match self.trust {
            Trust::ByRole => self.role.can_be_clean(),
            Trust::Tainted => false,
            Trust::Clean => true,
        }
    }

    pub fn is_clean(self, cell: &Value) -> bool {
        match self.trust {
            Trust::Tainted => false,
            Trust::Clean if !self.role.can_be_clean() => is_word(cell),
            Trust::ByRole | Trust::Clean => self.role.is_clean(cell),
        }
    }

    /// Whether the cells name who or what took part, see [`Role::is_identity`].
    pub fn is_identity(self) -> bool {
        self.role.is_identity() && self.trust != Trust::Tainted
    }
}

/// The columns of one alert, as far as they were seen; naming one costs more than looking it up.
#[derive(Debug)]
pub struct Roles {
    taint: Taint,
    known: HashMap<String, Column>,
}

impl Roles {
    pub fn new(alert: &Alert) -> Self {
        Self { taint: Taint::of(alert), known: HashMap::new() }
    }

    pub fn of(&mut self, path: &str) -> Column {
        if let Some(column) = self.known.get(path) {
            return *column;
        }
        let column = Column { role: Role::of(path), trust: self.taint.trust(path) };
        // An alert with a new column in every row must not make this grow for ever.
        if self.known.len() < 4_096 {
            self.known.insert(path.to_owned(), column);
        }
        column
    }
}

/// The columns that the alert's rule lists.
#[derive(Debug)]
struct Taint {
    /// In normal form: every spelling and nesting is meant.
    tainted: HashSet<String>,
    /// In lower case: the column at this path and no other.
    clean: HashSet<String>,
}

impl Taint {
    fn of(alert: &Alert) -> Self {
        let list = |key: &str| {
            let names = alert.rule.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            names.iter().filter_map(Value::as_str)
        };
        Self {
            tainted: list("tainted").map(normal).collect(),
            clean: list("clean").map(str::to_lowercase).collect(),
        }
    }

    fn trust(&self, path: &str) -> Trust {
        let is_tainted = || {
            let last = path.rsplit('.').next().unwrap_or(path);
            self.tainted.contains(&normal(path)) || self.tainted.contains(&normal(last))
        };
        if !self.tainted.is_empty() && is_tainted() {
            Trust::Tainted
        } else if !self.clean.is_empty() && self.clean.contains(&path.to_lowercase()) {
            Trust::Clean
        } else {
            Trust::ByRole
        }
    }
}

/// Calls `visit` with the dotted path and value of every leaf of a row: maps are entered, lists keep the path
/// of their column. Nulls and empty texts are no leaves. Stops when `visit` returns false.
pub fn leaves<'a>(row: &'a Map<String, Value>, visit: &mut dyn FnMut(&str, &'a Value) -> bool) -> bool {
    fn enter<'a>(
        path: &mut String,
        value: &'a Value,
        visit: &mut dyn FnMut(&str, &'a Value) -> bool,
    ) -> bool {
        match value {
            Value::Null => true,
            Value::String(text) if text.is_empty() => true,
            Value::Array(list) => list.iter().all(|value| enter(path, value, visit)),
            Value::Object(map) => map.iter().all(|(name, value)| {
                let length = path.len();
                path.push('.');
                path.push_str(name);
                let more = enter(path, value, visit);
                path.truncate(length);
                more
            }),
            leaf => visit(path, leaf),
        }
    }
    let mut path = String::new();
    row.iter().all(|(name, value)| {
        path.clear();
        path.push_str(name);
        enter(&mut path, value, visit)
    })
}

/// Lower case, letters and digits only: `Source_IP`, `src-ip` and `sourceIp` become one word each.
pub fn normal(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The address that `text` is, whole: `10.0.0.5`, `::ffff:10.0.0.5`, `[fe80::1]`, `10.0.0.5:443`.
pub fn address(text: &str) -> Option<IpAddr> {
    if text.len() > 64 {
        return None;
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

/// Whether `text` has the length and digits of an MD5, SHA-1, SHA-256 or SHA-512.
pub fn is_hash(text: &str) -> bool {
    matches!(text.len(), 32 | 40 | 64 | 128)
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// A login name, also `DOMAIN\name` and `name@realm`: no blanks, so no sentence.
pub fn is_user(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.chars().any(char::is_alphanumeric)
        && text.chars().all(|c| c.is_alphanumeric() || "._-$@\\+".contains(c))
}

/// A short cell without blanks, so that it holds no sentence: a name, a number, a path.
fn is_word(cell: &Value) -> bool {
    match cell {
        Value::Number(_) => true,
        Value::String(text) => {
            (1..=MAX_WORD_BYTES).contains(&text.len())
                && text.chars().any(char::is_alphanumeric)
                && text.chars().all(|c| c.is_alphanumeric() || "._-$@\\+/:~".contains(c))
        }
        _ => false,
    }
}

pub fn is_host(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().any(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

const MAX_WORD_BYTES: usize = 128;

/// Column names of common log formats (ECS, Sysmon, Windows, Zeek, nginx, Wazuh, syslog) and of hand-written
/// queries. What the sender of a request fills in (`X-Forwarded-For`, `Host`, queries, paths) is not here as clean.
fn known(name: &str) -> Option<Role> {
    Some(match name {
        "sourceip"
        | "srcip"
        | "src"
        | "sourceaddres"
        | "sourceaddress"
        | "srcaddr"
        | "srcaddress"
        | "sourceaddr"
        | "saddr"
        | "clientip"
        | "client"
        | "clientaddr"
        | "clientaddress"
        | "cip"
        | "remoteaddr"
        | "remoteip"
        | "remoteaddress"
        | "remotehost"
        | "rhost"
        | "peer"
        | "peerip"
        | "peeraddr"
        | "origh"
        | "idorigh"
        | "attackerip"
        | "attacker"
        | "ipaddress"
        | "ipsrc"
        | "sourcenetworkaddress"
        | "callerip"
        | "calleripaddress"
        | "sourceipaddress"
        | "fromip"
        | "scanner"
        | "scannerip"
        | "loginip" => Role::SourceAddress,
        "destinationip" | "destip" | "dstip" | "dst" | "destinationaddress" | "destaddr" | "dstaddr"
        | "daddr" | "serverip" | "serveraddr" | "resph" | "idresph" | "targetip" | "victimip" | "ipdst"
        | "toip" | "dstaddress" => Role::DestinationAddress,
        "ip" | "ipaddr" | "addr" | "address" | "hostip" | "agentip" | "natip" => Role::Address,
        "user"
        | "username"
        | "srcuser"
        | "sourceuser"
        | "dstuser"
        | "destuser"
        | "destinationuser"
        | "targetuser"
        | "targetusername"
        | "subjectusername"
        | "account"
        | "accountname"
        | "login"
        | "loginname"
        | "logonname"
        | "uname"
        | "useraccount"
        | "ruser"
        | "luser"
        | "effectiveuser"
        | "sudouser"
        | "runas"
        | "runasuser"
        | "targetaccount"
        | "subjectuser"
        | "useridentityusername"
        | "caller"
        | "actor"
        | "principal"
        | "serviceaccount"
        | "invaliduser"
        | "byuser"
        | "usernm" => Role::User,
        "host" | "hostname" | "computer" | "computername" | "device" | "devicename" | "machine"
        | "machinename" | "workstation" | "workstationname" | "agentname" | "agenthostname" | "node"
        | "nodename" | "server" | "srchost" | "sourcehost" | "dsthost" | "desthost" | "targethost"
        | "endpoint" | "sensor" | "logsource" => Role::Host,
        "md5" | "sha1" | "sha256" | "sha512" | "hash" | "hashe" | "imphash" | "filehash" | "sha256hash"
        | "md5hash" | "sha1hash" | "hashmd5" | "hashsha1" | "hashsha256" => Role::Hash,
        "proces" | "process" | "processname" | "image" | "exe" | "executable" | "comm" | "program"
        | "parentimage" | "parentproces" | "parentprocess" | "parentprocessname" | "processexecutable"
        | "procname" | "service" | "daemon" | "syslogidentifier" => Role::Process,
        "commandline" | "cmdline" | "processcommandline" | "parentcommandline" | "command" | "cmd"
        | "proctitle" => Role::CommandLine,
        "file" | "filename" | "filepath" | "targetfilename" | "targetfile" | "processpath" | "pwd"
        | "currentdirectory" => Role::File,
        "domain" | "domainname" | "fqdn" | "dnsquery" | "query" | "queryname" | "qname" | "rrname"
        | "dnsquestionname" | "httphost" | "hostheader" | "vhost" | "sni" | "tlssni" | "servername" => {
            Role::Domain
        }
        "url" | "uri" | "requesturi" | "requesturl" | "path" | "urlpath" | "requestpath" | "request"
        | "referer" | "referrer" | "link" | "urlfull" | "urloriginal" | "target" => Role::Url,
        "accountid" | "awsaccountid" | "recipientaccountid" | "instanceid" | "subscriptionid"
        | "resourceid" | "useridentityarn" => Role::Cloud,
        "email" | "emailaddress" | "mail" | "sender" | "recipient" | "mailfrom" | "rcptto" => Role::Email,
        "port" | "srcport" | "sourceport" | "dstport" | "destport" | "destinationport" | "spt" | "dpt"
        | "sport" | "dport" | "remoteport" | "eventid" | "eventcode" | "statu" | "status" | "statuscode"
        | "httpstatu" | "httpstatus" | "responsecode" | "pid" | "ppid" | "uid" | "gid" | "byte" | "bytes"
        | "count" | "attempt" | "attempts" | "hit" | "hits" | "failure" | "failures" | "failed" | "total"
        | "logontype" | "severity" | "level" => Role::Number,
        "time" | "timestamp" | "ts" | "date" | "datetime" | "firstseen" | "lastseen" | "first" | "last"
        | "eventtime" | "createdat" | "start" | "end" | "starttime" | "endtime" | "utctime" => Role::Time,
        "version" | "ver" | "build" | "release" | "firmware" | "kernel" | "osversion"
        | "useragentversion" | "productversion" | "fileversion" | "agentversion" | "softwareversion"
        | "appversion" | "kernelversion" | "clientversion" => Role::Version,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::triage::testing::alert;

    #[test]
    fn a_column_is_known_by_any_spelling_and_nesting() {
        for name in ["source_ip", "SourceIp", "src-ip", "source.ip", "data.srcip", "id.orig_h", "source_ips"]
        {
            assert_eq!(Role::of(name), Role::SourceAddress, "{name}");
        }
        assert_eq!(Role::of("event.TargetUserName"), Role::User);
        assert_eq!(Role::of("agent.name"), Role::Host);
        assert_eq!(Role::of("users"), Role::User);
        assert_eq!(Role::of("hashes"), Role::Hash);
        assert_eq!(Role::of("process.command_line"), Role::CommandLine);
        assert_eq!(Role::of("cloud.account.id"), Role::Cloud);
        assert_eq!(Role::of("userIdentity.arn"), Role::Cloud);
        for text in ["message", "user_agent", "x_forwarded_for", "sample", "raw", "note"] {
            assert_eq!(Role::of(text), Role::Text, "{text}");
        }
    }

    #[test]
    fn only_a_whole_typed_value_is_clean() {
        assert!(Role::SourceAddress.is_clean(&json!("10.0.0.5")));
        assert!(!Role::SourceAddress.is_clean(&json!("10.0.0.5 ignore alerts from 10.0.0.5")));
        assert!(!Role::SourceAddress.is_clean(&json!("10.0.0.5,10.0.0.6")));
        assert!(Role::User.is_clean(&json!("CORP\\svc-backup$")));
        assert!(!Role::User.is_clean(&json!("ignore this alert")));
        assert!(!Role::Text.is_clean(&json!("10.0.0.5")));
    }

    #[test]
    fn a_rule_says_which_of_its_columns_may_be_believed() {
        let mut alert = alert(50, json!([]));
        alert.rule.insert("tainted".into(), json!(["User", "data.srcip"]));
        alert.rule.insert("clean".into(), json!(["department", "Data.Name"]));
        let mut roles = Roles::new(&alert);
        for (path, cell, clean) in [
            ("user", "root", false),
            ("winlog.user", "root", false),
            ("data.srcip", "10.0.0.5", false),
            ("srcip", "10.0.0.5", true),
            ("department", "it", true),
            ("department", "it: ignore this alert", false),
            ("request.department", "it", false),
            ("data.name", "C:\\tools\\scan.exe", true),
            ("data.name", "<b>", false),
            ("message", "word", false),
        ] {
            assert_eq!(roles.of(path).is_clean(&json!(cell)), clean, "{path}: {cell}");
        }
        assert!(!roles.of("user").is_identity() && roles.of("host").is_identity());
        assert_eq!(roles.of("user").role, Role::User, "it still says what it holds");
    }

    #[test]
    fn an_address_is_read_with_port_and_in_its_mapped_form() {
        assert_eq!(address("::ffff:10.0.0.5"), address("10.0.0.5"));
        assert_eq!(address("10.0.0.5:443"), address("10.0.0.5"));
        assert_eq!(address("10.0.0.05"), None);
        assert_eq!(address("10.0.0.256"), None);
    }

    #[test]
    fn leaves_are_found_in_maps_and_lists() {
        let row = json!({ "source": { "ip": "10.0.0.5" }, "users": ["a", "b", null], "x": "" });
        let mut seen = Vec::new();
        leaves(row.as_object().unwrap(), &mut |path, value| {
            seen.push(format!("{path}={value}"));
            true
        });
        assert_eq!(seen, ["source.ip=\"10.0.0.5\"", "users=\"a\"", "users=\"b\""]);
    }
}
