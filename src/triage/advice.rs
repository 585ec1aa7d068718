//! Steps that the model may choose from. It does not write steps of its own: a log line that talks a model into
//! `disable the firewall` or `add this key` must not become advice of ours.

use crate::alert::Alert;

/// What an alert is about, told by the operator's words only: rule name, id, tags and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    Login,
    Privilege,
    Web,
    Scan,
    Exfiltration,
    Malware,
    Persistence,
    Account,
    Other,
}

/// The first theme whose words occur.
pub fn theme(alert: &Alert) -> Theme {
    let mut words = String::new();
    for name in ["name", "id", "group", "tags"] {
        if let Some(value) = alert.rule.get(name) {
            words.push_str(&value.to_string().to_lowercase());
        }
    }
    let themes = [
        (Theme::Privilege, &["sudo", "privilege", "t1548", "t1068", "setuid", "escalat"][..]),
        (Theme::Exfiltration, &["exfil", "t1048", "t1041", "upload volume", "large transfer"][..]),
        (
            Theme::Persistence,
            &["persist", "cron", "autorun", "t1053", "t1543", "t1547", "startup", "scheduled task"][..],
        ),
        (
            Theme::Web,
            &[
                "web",
                "http",
                "sql injection",
                "sqli",
                "xss",
                "traversal",
                "t1190",
                "nginx",
                "apache",
                "t1595.002",
            ][..],
        ),
        (Theme::Scan, &["scan", "sweep", "recon", "discovery", "t1046", "t1595"][..]),
        (
            Theme::Login,
            &["brute", "login", "logon", "password", "ssh", "t1110", "t1078", "authent", "credential"][..],
        ),
        (
            Theme::Malware,
            &[
                "malware",
                "execution",
                "powershell",
                "ransom",
                "t1059",
                "encoded",
                "mimikatz",
                "trojan",
                "c2",
                "beacon",
            ][..],
        ),
        (Theme::Account, &["account", "user added", "group change", "t1136", "t1098", "new user"][..]),
    ];
    themes
        .into_iter()
        .find(|(_, hints)| hints.iter().any(|hint| words.contains(hint)))
        .map_or(Theme::Other, |(theme, _)| theme)
}

/// Why such an alert matters, for the prompt: without it a small model makes something up.
pub fn danger(theme: Theme) -> &'static str {
    match theme {
        Theme::Login => "If a guessed password works, the source can act as that user.",
        Theme::Privilege => {
            "With the rights of root an account can read, change and hide everything on the host."
        }
        Theme::Web => "A scanner that finds a weak page can run code on the web server.",
        Theme::Scan => "A scan shows which services can be attacked next.",
        Theme::Exfiltration => "Data that left the network cannot be called back.",
        Theme::Malware => "An unknown program can open the host to the one who placed it.",
        Theme::Persistence => "What starts by itself gives the source a way back after a restart.",
        Theme::Account => "A changed account can give lasting rights to the wrong person.",
        Theme::Other => "The rows show activity that the rule's author wants to be looked at.",
    }
}

/// Four to five steps, the most useful first. `source` and `user` are values of clean columns.
pub fn steps(theme: Theme, source: Option<&str>, user: Option<&str>) -> Vec<String> {
    let from = source.map_or("the source".to_owned(), |source| format!("source {source}"));
    let who = user.map_or("the affected accounts".to_owned(), |user| format!("account {user}"));
    let steps = match theme {
        Theme::Login => [
            format!("Check whether any login from {from} succeeded, and when"),
            format!("Block {from} at the firewall if it is not yours"),
            format!("Reset the credentials of {who} if a login succeeded"),
            "Require keys or a second factor for remote logins".to_owned(),
        ],
        Theme::Privilege => [
            format!("Ask the owner of {who} whether the command was intended"),
            format!("Review what {who} ran before and after this event"),
            "Compare the sudo rules and setuid files with their known state".to_owned(),
            format!("Suspend {who} if nobody can explain the command"),
        ],
        Theme::Web => [
            format!("Check the responses that {from} got for status 200 on unusual paths"),
            format!("Block or rate-limit {from} at the proxy if it is not yours"),
            "Look for new files and processes on the web server since the first request".to_owned(),
            "Check that the requested applications are patched".to_owned(),
        ],
        Theme::Scan => [
            format!("Find out who owns {from} and whether a scan was announced"),
            format!("Check whether {from} connected to a port that it found open"),
            format!("Block {from} if the scan was not announced"),
            "Close ports that need not be reachable from there".to_owned(),
        ],
        Theme::Exfiltration => [
            "Find out what data left, how much and to whom".to_owned(),
            format!("Ask the owner of {who} whether the transfer was intended"),
            "Block the destination if it is not a known one".to_owned(),
            "Keep the logs and a copy of the files for the investigation".to_owned(),
        ],
        Theme::Malware => [
            "Isolate the host from the network if the program is not known".to_owned(),
            "Look up the file's hash and signer, and its parent process".to_owned(),
            "Search the other hosts for the same hash and command".to_owned(),
            format!("Check what else {who} started around that time"),
        ],
        Theme::Persistence => [
            "Compare the new entry with the last known good configuration".to_owned(),
            format!("Ask the owner of {who} whether the change was intended"),
            "Keep a copy of the file it starts, then disable the entry if it is unknown".to_owned(),
            "Search the other hosts for the same entry".to_owned(),
        ],
        Theme::Account => [
            "Check the change against an approved request".to_owned(),
            format!("Review what {who} did since the change"),
            "Undo the change if nobody asked for it".to_owned(),
            "Check which account made the change and from where".to_owned(),
        ],
        Theme::Other => [
            "Read the rows of this alert and the events around them".to_owned(),
            format!("Find out whether {from} and {who} are expected to do this"),
            "Check whether the same rule fired on other hosts".to_owned(),
            "Contain the affected system if the activity cannot be explained".to_owned(),
        ],
    };
    steps.into()
}

/// The steps of an alert that the operator's note says to ignore.
pub fn steps_when_dismissed(source: Option<&str>) -> Vec<String> {
    let from = source.map_or("the source".to_owned(), |source| format!("source {source}"));
    vec![
        format!("Confirm that {from} is still the one that the operator's note means"),
        "Check that the time and amount are as usual for it".to_owned(),
        "Exclude it in the rule's query if it keeps firing".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::triage::testing::alert;

    #[test]
    fn the_theme_comes_from_the_rule_and_not_from_the_rows() {
        let mut alert = alert(75, json!([{ "message": "sudo malware scan" }]));
        assert_eq!(theme(&alert), Theme::Other);
        for (name, expected) in [
            ("SSH brute force", Theme::Login),
            ("Sudo to a shell", Theme::Privilege),
            ("Port scan", Theme::Scan),
            ("Web server swept by a scanner", Theme::Web),
        ] {
            alert.rule.insert("name".into(), json!(name));
            assert_eq!(theme(&alert), expected, "{name}");
        }
    }

    #[test]
    fn steps_are_short_distinct_and_name_only_what_they_are_given() {
        let themes = [
            Theme::Login,
            Theme::Privilege,
            Theme::Web,
            Theme::Scan,
            Theme::Exfiltration,
            Theme::Malware,
            Theme::Persistence,
            Theme::Account,
            Theme::Other,
        ];
        for theme in themes {
            let steps = steps(theme, Some("10.0.0.6"), None);
            assert!((3..=5).contains(&steps.len()));
            assert!(steps.iter().all(|step| step.len() <= 120 && !step.ends_with('.')));
            assert_eq!(steps.iter().collect::<std::collections::HashSet<_>>().len(), steps.len());
        }
    }
}
