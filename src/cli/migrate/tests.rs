use std::path::Path;

use super::*;

/// A folder with these files, and what `migrate` makes of its `runner.yml`, with names as if started there.
fn migrated(files: &[(&str, &str)]) -> (tempfile::TempDir, Migrated, String) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let migrated = migrate(&dir.path().join("runner.yml"), dir.path(), &|_| None).unwrap();
    let text = migrated.text().replace(&format!("{}/", dir.path().display()), "");
    (dir, migrated, text)
}

fn text_of<'m>(migrated: &'m Migrated, name: &str) -> &'m str {
    let file = migrated.files.iter().find(|file| file.path.ends_with(name));
    &file.unwrap_or_else(|| panic!("{name} is not there")).text
}

/// What `migrate` says once what it wrote is in place.
fn again(dir: &Path, migrated: &Migrated) -> String {
    for file in &migrated.files {
        std::fs::write(&file.path, &file.text).unwrap();
    }
    let second = migrate(&dir.join("runner.yml"), dir, &|_| None).unwrap();
    assert!(second.files.iter().all(|file| !file.is_changed), "{}", second.text());
    assert!(second.notes.iter().all(|note| note.sort != Sort::Change), "{}", second.text());
    second.text()
}

const RUNNER: &str = r#"# our site
datasource:
    type: duckdb
    database: ":memory:"
    poolsize: 3   # from an older version

redis:
    url: redis://localhost:6379/0   # two replicas
    namespace: clickdetect

max_detector_time: 120

webhooks:
    soc:
        type: generic
        url: "https://soc.example/alerts"   # ours
        headers: {Authorization: 'Bearer s3cret'}
        retries: 3
    chat:
        type: slakk
        url: https://chat.example/hook

# how often
detectors:
    five:
        name: "Five"
        for: "5m"   # minutes
        rules:
            - "rules/*.yml"
        webhooks:
            - soc
            - chat
            - pager   # gone
        data: {site: hq}
        priority: high
    once:
        name: Once
        for: 1h
        rules: [rules/one.yml, 'other/*.yml']
        webhooks: [pager, soc]
    sigma_rules:
        name: Sigma
        for: 5m
        sigma: true
        rules: [sigma/*.yml]

plugins:
    clickagentic: # plugin id
        provider: 'openai' # provider: openai, ...
        model: 'gpt-5.2'
        token: 'xxx'
        from_level: 10
        think: true
    other:
        x: 1
"#;

const ONE: &str = "\
id: \"001\"
name: One
level: 12
severity: bad   # ours
rule: |-
    SELECT 1 -- {{ detector.for_time_seconds }}
    WHERE user IN ({{ data.names | to_list_like }})
data: {names: [\"o'hara\", b]}
";

fn set_up() -> Vec<(&'static str, &'static str)> {
    vec![
        ("runner.yml", RUNNER),
        ("rules/one.yml", ONE),
        ("rules/two.yml", "id: '001'\nname: Two\nlevel: 50\nrule: SELECT 2\n"),
        ("rules/sigma.yml", "id: s\nname: S\nlevel: 50\nsigma: true\nrule: 'title: x'\n"),
        ("compose.yml", "services:\n  clickdetect:\n    command: --api -p 8080 --reload\n"),
    ]
}

#[test]
fn everything_that_will_be_different_is_said_with_its_place() {
    let (_dir, migrated, text) = migrated(&set_up());
    insta::assert_snapshot!(text, @r#"
    runner.yml:5:5: changed: datasource: clickdetect ignored the key `poolsize`, Watchpost does not take it
    runner.yml:7:1: changed: redis: several instances over Redis are not built yet: run one; what was found and not delivered is kept over a restart
    runner.yml:11:1: differs: max_detector_time: a rule that it cuts off keeps its window here and searches it again; clickdetect passed the window over
    runner.yml:15:9: changed: webhooks.soc.verify: certificates are verified now, clickdetect did not: name an authority of your own in `ca`; `verify: false` is as before
    runner.yml:17:34: advice: webhooks.soc.headers.Authorization: a secret stands in the file: `{env: NAME}` or `{file: PATH}` keeps it out
    runner.yml:18:9: changed: webhooks.soc: clickdetect ignored the key `retries`, Watchpost does not take it
    runner.yml:19:5: changed: webhooks.chat.type: no webhook is called `slakk`: clickdetect left it out and told nobody; did you mean `slack`?
    runner.yml:25:5: changed: detectors.five: queries and alerts have limits, and missed windows are searched after an outage; clickdetect has none of it: the defaults are written out, `max_catch_up: 1d`, `max_rows: 1000`, `timeout: 1m`
    runner.yml:32:15: changed: detectors.five.webhooks[1]: no webhook `chat`: clickdetect told nobody
    runner.yml:33:15: changed: detectors.five.webhooks[2]: no webhook `pager`: clickdetect told nobody
    runner.yml:35:9: changed: detectors.five: clickdetect ignored the key `priority`, Watchpost does not take it
    runner.yml:36:5: changed: detectors.once: queries and alerts have limits, and missed windows are searched after an outage; clickdetect has none of it: the defaults are written out, `max_catch_up: 1d`, `max_rows: 1000`, `timeout: 1m`
    runner.yml:39:32: advice: detectors.once.rules[1]: `other/*.yml` matches no rule file (.yml or .yaml) (clickdetect says nothing of it)
    runner.yml:40:20: changed: detectors.once.webhooks[0]: no webhook `pager`: clickdetect told nobody
    runner.yml:41:5: changed: detectors.sigma_rules: Sigma rules are not built yet: this detector does not run; write its queries as `rule`
    runner.yml:49:9: changed: plugins.clickagentic.provider: a model inside this process triages, `openai` is not asked: no alert leaves the machine, and the numbers are computed by code (docs/triage.md)
    runner.yml:53:9: changed: plugins.clickagentic.think: the model does not think aloud here
    runner.yml:54:5: changed: plugins.other: there are no plugins here but clickagentic, which is built in as `triage`
    rules/one.yml:4:1: changed: clickdetect ignored the key `severity`, Watchpost does not take it
    rules/one.yml:6:20: differs: rule: `detector.for_time_seconds` is empty here: it is a part of clickdetect's inside
    rules/one.yml:7:36: differs: rule: `to_list_like` doubles a `'` inside an item, so that it cannot end the text; clickdetect left it as it was
    rules/sigma.yml:4:8: by hand: sigma: Sigma rules are not built yet: write the query as `rule` and remove `sigma` (until then the rule is left out)
    rules/two.yml:1:5: differs: id: `001` is also the id of `rules/one.yml`: clickdetect dropped one of the two, which one was up to the file system; here this one does not run in `five`
    compose.yml:3:14: differs: --api: clickdetect's API listens on 0.0.0.0, without a login; there is none here yet, and the flag is refused: take it out, `watchpost status --json` and `watchpost alerts --json` say what it would
    compose.yml:3:28: differs: --reload: rules are read at the start only, and the flag is refused: take it out, and restart after a change; no window is lost by it
    16 changes in 2 files, 1 to do by hand, 6 that differ
    "#);
    assert!(migrated.is_usable, "{text}");
    assert!(!text.contains("s3cret"));
}

#[test]
fn what_is_written_keeps_comments_and_order_and_is_taken_as_it_is() {
    let (dir, migrated, _) = migrated(&set_up());
    insta::assert_snapshot!(text_of(&migrated, "runner.yml"), @r#"
    # our site
    datasource:
        type: duckdb
        database: ":memory:"
        # clickdetect ignored this:
        # poolsize: 3   # from an older version

    # several instances are not built yet:
    # redis:
    #     url: redis://localhost:6379/0   # two replicas
    #     namespace: clickdetect

    max_detector_time: 120

    webhooks:
        soc:
            type: generic
            url: "https://soc.example/alerts"   # ours
            verify: true  # clickdetect did not; an authority of your own goes into `ca`
            headers: {Authorization: 'Bearer s3cret'}
            # clickdetect ignored this:
            # retries: 3
        # clickdetect left this webhook out:
        # chat:
        #     type: slakk
        #     url: https://chat.example/hook

    # how often
    detectors:
        five:
            name: "Five"
            for: "5m"   # minutes
            max_catch_up: 1d  # after an outage windows are searched back to here
            max_rows: 1000  # kept with an alert; all are counted
            timeout: 1m  # for one query
            rules:
                - "rules/*.yml"
            webhooks:
                - soc
                # clickdetect knew no such webhook:
                # - chat
                # clickdetect knew no such webhook:
                # - pager   # gone
            data: {site: hq}
            # clickdetect ignored this:
            # priority: high
        once:
            name: Once
            for: 1h
            max_catch_up: 1d  # after an outage windows are searched back to here
            max_rows: 1000  # kept with an alert; all are counted
            timeout: 1m  # for one query
            rules: [rules/one.yml, 'other/*.yml']
            webhooks: [soc]
        # Sigma rules are not built yet:
        # sigma_rules:
        #     name: Sigma
        #     for: 5m
        #     sigma: true
        #     rules: [sigma/*.yml]

    plugins:
        clickagentic: # plugin id
            provider: local # provider: openai, ...
            # the model is inside the process:
            # model: 'gpt-5.2'
            # the model is inside the process:
            # token: 'xxx'
            from_level: 10
            think: false
        # there is no such plugin here:
        # other:
        #     x: 1
    "#);
    insta::assert_snapshot!(text_of(&migrated, "rules/one.yml"), @r#"
    id: "001"
    name: One
    level: 12
    # clickdetect ignored this:
    # severity: bad   # ours
    rule: |-
        SELECT 1 -- {{ detector.for_time_seconds }}
        WHERE user IN ({{ data.names | to_list_like }})
    data: {names: ["o'hara", b]}
    "#);
    let second = again(dir.path(), &migrated);
    assert!(second.contains("to do by hand") && !second.contains(": changed: "), "{second}");
}

#[test]
fn a_set_up_that_watchpost_made_has_nothing_to_change() {
    let runner = "\
datasource: {type: duckdb}
webhooks: {out: {type: stdout}}
detectors:
  d: {name: D, for: 5m, rules: [r.yml], webhooks: [out], timeout: 1m, max_rows: 10, max_catch_up: 1d}
";
    let (_dir, migrated, text) =
        migrated(&[("runner.yml", runner), ("r.yml", "id: r\nname: R\nlevel: 1\nrule: SELECT 1\n")]);
    assert_eq!(text, "nothing to change, 0 that differ\n");
    assert_eq!(migrated.code(), Code::Good);
}

#[test]
fn flow_style_is_changed_where_that_is_safe_and_named_where_it_is_not() {
    let runner = "\
datasource: {type: duckdb, colour: red}
webhooks: {soc: {type: generic, url: 'https://soc.example/', retries: 3}}
detectors: {d: {name: D, for: 5m, rules: [r.yml], webhooks: [soc, nobody]}}
";
    let rule = ("r.yml", "id: r\nname: R\nlevel: 1\nrule: SELECT 1\n");
    let (_dir, migrated, text) = migrated(&[("runner.yml", runner), rule]);
    assert!(
        text.contains("runner.yml:1:28: by hand: datasource: clickdetect ignored the key `colour`"),
        "{text}"
    );
    // Once each, although `retries` stands further to the right in what would be written.
    assert_eq!((text.matches("colour").count(), text.matches("retries").count()), (1, 1), "{text}");
    assert!(
        text.contains("runner.yml:2:62: by hand: webhooks.soc: clickdetect ignored the key `retries`"),
        "{text}"
    );
    let written = text_of(&migrated, "runner.yml");
    assert!(written.contains("soc: {verify: true, type: generic,"), "{written}");
    assert!(written.contains("webhooks: [soc]}"), "{written}");
    assert!(!migrated.is_usable);
    assert_eq!(migrated.code(), Code::Configuration);
}

#[test]
fn paths_that_began_where_clickdetect_was_started_lead_there_still() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| {
        std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
    };
    let runner = "datasource: {type: duckdb}\ndetectors: {d: {name: D, for: 5m, rules: [rules/*.yml, \"conf/x.yml\"]}}\n";
    put("conf/runner.yml", runner);
    put("rules/r.yml", "id: r\nname: R\nlevel: 1\nrule: SELECT 1\n");
    put("conf/x.yml", "id: x\nname: X\nlevel: 1\nrule: SELECT 1\n");
    let migrated = migrate(&dir.path().join("conf/runner.yml"), dir.path(), &|_| None).unwrap();
    let written = text_of(&migrated, "runner.yml");
    assert!(written.contains(r#"rules: ["../rules/*.yml", "../conf/x.yml"]"#), "{written}");
    assert_eq!(migrated.files.len(), 3, "both rules are found");
}

#[test]
fn anchors_that_others_use_are_left_alone() {
    let runner = "\
x-common: &common
  for: 5m
datasource: {type: duckdb}
detectors:
  d:
    <<: *common
    name: D
    rules: [r.yml]
";
    let rule = ("r.yml", "id: r\nname: R\nlevel: 1\nrule: SELECT 1\n");
    let (_dir, migrated, text) = migrated(&[("runner.yml", runner), rule]);
    assert!(text.contains("runner.yml:1:1: by hand: clickdetect ignored the key `x-common`"), "{text}");
    assert!(text_of(&migrated, "runner.yml").starts_with("x-common: &common\n  for: 5m\n"));
}

/// What is said of one datasource and one webhook, and the runner as it is written.
fn of_kinds(datasource: &str, webhook: &str) -> (String, String) {
    let runner = format!(
        "datasource:\n{datasource}webhooks:\n  w:\n{webhook}detectors:\n  d: {{name: D, for: 5m, rules: [r.yml], webhooks: [w]}}\n"
    );
    let (dir, migrated, text) =
        migrated(&[("runner.yml", &runner), ("r.yml", "id: r\nname: R\nlevel: 1\nrule: SELECT 1\n")]);
    assert!(migrated.is_usable, "{text}");
    let written = text_of(&migrated, "runner.yml").to_owned();
    again(dir.path(), &migrated);
    (text, written)
}

#[test]
fn each_datasources_certificates_tenants_and_windows_are_said() {
    let webhook = "    type: stdout\n";
    let of = |settings: &str| of_kinds(settings, webhook);
    let (said, written) = of("  host: a.example\n  verify: true\n");
    assert!(
        said.contains("datasource.verify: clickdetect's `verify` is whether there is TLS at all"),
        "{said}"
    );
    assert!(written.contains("  verify: true\n  secure: true  # "), "{written}");
    let (_, written) = of("  type: clickhouse\n  host: a.example\n  verify: false\n");
    assert!(written.contains("  secure: false  # "), "{written}");
    let (said, written) = of("  type: elasticsearch\n  url: https://es.example:9200\n  index: a\n");
    assert!(said.contains("changed: datasource.verify: certificates are verified now"), "{said}");
    assert!(written.contains("9200\n  verify: true  # "), "{written}");
    let (said, _) = of("  type: opensearch\n  url: https://es.example:9200\n  index: a\n  verify: true\n");
    assert!(said.contains("differs: datasource.verify: clickdetect ignored this"), "{said}");
    let (said, _) = of("  type: opensearch-ppl\n  url: http://es.example:9200\n");
    assert!(!said.contains("verify"), "nothing is verified without TLS: {said}");
    let (said, _) =
        of("  type: victorialogs\n  url: http://v.example\n  account_id: '12'\n  project_id: 0\n");
    assert!(said.contains("differs: datasource.account_id: this tenant is read now"), "{said}");
    assert!(!said.contains("project_id"), "{said}");
    let (said, _) = of("  type: loki\n  url: http://loki.example:3100\n");
    assert!(said.contains("Loki took the last hour"), "{said}");
    let (said, _) =
        of("  type: postgresql\n  host: a\n  port: 5432\n  database: b\n  username: c\n  password: s3cret\n");
    assert!(said.contains("advice: datasource.password: a secret stands in the file"), "{said}");
}

#[test]
fn what_each_webhook_does_otherwise_is_said() {
    let of = |settings: &str| of_kinds("  type: duckdb\n", settings);
    let (said, _) =
        of("    type: teams\n    url: https://site.webhook.office.com/webhookb2/x\n    verify: false\n");
    assert!(said.contains("differs: webhooks.w.url: Microsoft has retired connector addresses"), "{said}");
    let (said, _) = of("    type: iris\n    url: http://iris.example\n    api_key: k\n    customer_id: 1\n");
    assert!(said.contains("severities are looked up by name"), "{said}");
    let (said, _) = of(
        "    type: matrix\n    url: http://m.example\n    username: a\n    password: b\n    room_id: '!a:m.example'\n",
    );
    assert!(said.contains("alerts go there now: clickdetect left every Matrix webhook out"), "{said}");
    let (said, written) = of("    type: opsgenie\n    api_key: k\n");
    assert!(said.contains("2027-04-05"), "{said}");
    assert!(
        written.contains("    source: clickdetect  # ") && written.contains("    verify: true  # "),
        "{written}"
    );
    let (_, written) = of("    type: alertmanager\n    url: http://a.example\n    labels:\n      site: hq\n");
    assert!(written.contains("      site: hq\n      source: clickdetect  # "), "{written}");
    let (_, written) = of("    type: alertmanager\n    url: http://a.example\n");
    assert!(written.contains("    labels: {source: clickdetect}  # "), "{written}");
    let (_, written) = of(
        "    type: email\n    host: smtp.example\n    username: a\n    password: b\n    from: a@a.example\n    to: b@a.example\n",
    );
    assert!(written.contains("    verify: true  # "), "smtplib verifies nothing: {written}");
    let (said, _) = of("    type: slack\n    url: https://hooks.slack.com/services/T/B/x\n");
    assert!(!said.contains("verify"), "clickdetect verifies Slack: {said}");
}

#[test]
fn nothing_is_written_over_unless_that_was_asked_for() {
    let (dir, migrated, _) = migrated(&set_up());
    let runner = dir.path().join("runner.yml");
    let failure = write_into(&migrated, &runner, dir.path()).unwrap_err();
    assert!(failure.message.contains("is there already"), "{}", failure.message);
    assert_eq!(std::fs::read_to_string(&runner).unwrap(), RUNNER);
    let new = dir.path().join("new");
    let written = write_into(&migrated, &runner, &new).unwrap();
    assert_eq!(written.len(), 4, "the runner and its three rules");
    assert!(std::fs::read_to_string(new.join("rules/one.yml")).unwrap().contains("# severity: bad"));
    write_over(&migrated).unwrap();
    assert_eq!(std::fs::read_to_string(&runner).unwrap(), text_of(&migrated, "runner.yml"));
}

#[test]
fn every_setting_of_clickdetects_is_one_of_ours() {
    use crate::{datasource, webhook};
    let families =
        [(known::DATASOURCES, &datasource::Config::TABLE), (known::WEBHOOKS, &webhook::Config::TABLE)];
    for (theirs, ours) in families {
        for kind in ours.kinds {
            let Some(known) = theirs.iter().find(|known| known.kind == kind.name) else { continue };
            for key in known.keys {
                let is_read = kind.fields.iter().any(|field| field.name == *key)
                    || kind.refused.iter().any(|(name, _)| name == key);
                assert!(is_read, "`{key}` of `{}`", kind.name);
            }
        }
    }
}
