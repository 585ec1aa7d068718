//! `watchpost check`, by what it prints.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use watchpost::cli::check::{Code, check};
use watchpost::clock::Timestamp;
use watchpost::config::Runner;
use watchpost::rule::load::RuleSet;
use watchpost::rule::template;
use watchpost::triage::config::Trust;
use watchpost::triage::{Config, Deliver};
use watchpost_engine::Device;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    const WRITABLE: &str = "the temporary folder can be written";
    let dir = TempDir::new().expect(WRITABLE);
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("it is inside the folder")).expect(WRITABLE);
        fs::write(path, text).expect(WRITABLE);
    }
    dir
}

/// What `check` prints for the folder's runner, with names as if started there, and how it ends.
fn checked(dir: &TempDir) -> (String, Code) {
    let outcome = check(
        &dir.path().join("runner.yml"),
        false,
        &|name| (name == "SOC_TOKEN").then(|| "s3cret".to_owned()),
        now(),
    );
    (outcome.text.replace(&format!("{}/", dir.path().display()), ""), outcome.code)
}

/// When every check runs.
fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().expect("it is a time")
}

const RUNNER: &str = "
datasource: {type: duckdb}
webhooks:
  out: {type: stdout}
detectors:
  five:
    name: Five
    for: 5m
    rules: ['rules/**/*.yml']
    webhooks: [out]
";

const RULE: &str = "
id: '001'
name: Failed logins
level: 65
rule: SELECT * FROM auth WHERE time >= {{ startime }}
";

#[test]
fn every_problem_of_a_runner_is_told_and_its_rules_are_still_read() {
    let dir = folder(&[
        (
            "runner.yml",
            r#"datasource:
    type: duckdbb
datasources:
    a: {type: duckdb, databse: x.db, s3_type: s4}
    b: {type: clickhouse, host: 'http://10.0.0.1', settings: {readonly: 0}}
webhooks:
    hook:
        url: ftp://x
        timout: 10
        timeout: 1h
        headers:
            Authorization: {env: NOPE}
            X-File: {file: no.txt}
            "bad name": x
        template: '{"a": {{ rule | tojsn }} }'
    out: {type: stdout, format: xml}
    chat: {type: slak}
redis:
    url: redis://localhost
plugins:
    clickagentic:
        provider: openai
        from_level: 0
        think: yes
        memory_limit: lots
    other: {}
triage: maybe
detectors:
    five:
        name: Five
        for: 5 minutes
        rules: [rules/good.yml, rules/bad.yml]
        webhooks: [hook, chatt]
        active: perhaps
        sigma: true
        datasource: c
    two:
        nam: x
        for: 0.5s
        max_rows: 0
        max_bytes: 12
max_detector_time: -3
stroe: x.db
"#,
        ),
        ("rules/good.yml", RULE),
        ("rules/bad.yml", "id: x\nname: X\nlevel: 200\nsize: >5\nrule: SELECT {{ startim }}\n"),
    ]);
    let (text, code) = checked(&dir);
    assert_eq!(code, Code::Configuration);
    insta::assert_snapshot!(text, @r#"
    runner.yml:1:1: `datasource` and `datasources` are both here: move the one into the other
    runner.yml:2:11: datasource.type: no datasource is called `duckdbb`; did you mean `duckdb`?
    runner.yml:4:23: datasources.a: unknown key `databse`; did you mean `database`?
    runner.yml:4:47: datasources.a.s3_type: `s4` is not a kind of object storage: write `s3`, `gcs` or `r2`
    runner.yml:5:33: datasources.b.host: not a host: write a name or an address, e.g. `10.0.0.5`; a whole address is `url`
    runner.yml:5:63: datasources.b.settings.readonly: this one is ours to say: remove it
    runner.yml:8:14: webhooks.hook.url: this is not an address: write one that starts with `http://` or `https://`
    runner.yml:9:9: webhooks.hook: unknown key `timout`; did you mean `timeout`?
    runner.yml:10:18: webhooks.hook.timeout: `1h` is not between 0.1s and 10m
    runner.yml:12:34: webhooks.hook.headers.Authorization: the environment variable `NOPE` is not set
    runner.yml:13:28: webhooks.hook.headers.X-File: the file `no.txt` cannot be read: there is no such file
    runner.yml:15:36: webhooks.hook.template: no filter is called `tojsn`; did you mean `tojson`?
    runner.yml:16:33: webhooks.out.format: `xml` is not a format: write `text` or `json`
    runner.yml:17:18: webhooks.chat.type: no webhook is called `slak`; did you mean `slack`?
    runner.yml:18:1: `redis` is not built yet: high availability over Redis is missing, remove the section and run one instance
    runner.yml:21:5: `triage` and `plugins.clickagentic` are the same section: keep `triage`
    runner.yml:22:19: plugins.clickagentic.provider: the provider `openai` is not built yet; there is `local`
    runner.yml:23:21: plugins.clickagentic.from_level: `0` is not a level from 1 to 100
    runner.yml:24:16: plugins.clickagentic.think: thinking is not built yet: write `false`
    runner.yml:25:23: plugins.clickagentic.memory_limit: `lots` is not a size, e.g. `512MB`, `4GiB`
    runner.yml:26:5: plugins.other: the plugin `other` is not built yet; there is `clickagentic`
    runner.yml:27:9: triage: `maybe` is not a boolean: write `true` or `false`
    runner.yml:31:14: detectors.five.for: `5 minutes` is not a duration, e.g. `30s`, `5m`, `1.5h`, `7d`, `2w`, `1mo`, `1y`
    runner.yml:33:26: detectors.five.webhooks[1]: no webhook `chatt`; did you mean `chat`?
    runner.yml:34:17: detectors.five.active: `perhaps` is not a boolean: write `true` or `false`
    runner.yml:35:16: detectors.five.sigma: Sigma rules are not built yet: write the query as `rule` and remove `sigma`
    runner.yml:36:21: detectors.five.datasource: no datasource `c`; there is `a`, `b`
    runner.yml:38:9: detectors.two: unknown key `nam`; did you mean `name`?
    runner.yml:38:9: detectors.two: the key `name` (text) is missing
    runner.yml:38:9: detectors.two: the key `rules` (list of paths) is missing
    runner.yml:39:14: detectors.two.for: `0.5s` is not at least `1s`
    runner.yml:40:19: detectors.two.max_rows: `0` is not between 1 and 1000000
    runner.yml:41:20: detectors.two.max_bytes: `12` is not between `1KB` and `1GiB`
    runner.yml:42:20: max_detector_time: `-3` is not a duration, e.g. `30s`, `5m`, `1.5h`, `7d`, `2w`, `1mo`, `1y`
    runner.yml:43:1: unknown key `stroe`; did you mean `store`?
    rules/bad.yml:3:8: level: `200` is not a level: a number from 0 to 100, or `informational`, `low`, `medium`, `high`, `critical`
    rules/bad.yml:4:7: size: `>5` is not a size: quote an operator and a row count, e.g. size: ">5"
    rules/bad.yml:5:17: warning: rule: nothing is called `startim` here, it will be empty; did you mean `startime`?
    2 detectors, 1 rule, 38 problems
    "#);
}

#[test]
fn every_problem_of_rules_is_told_and_good_rules_stay() {
    let dir = folder(&[
        ("runner.yml", RUNNER),
        ("rules/a.yml", RULE),
        ("rules/again.yml", RULE),
        ("rules/number.yml", "id: 002\nname: N\nlevel: low\nrule: SELECT 1\n"),
        (
            "rules/bad/size.yml",
            "id: s\nname: S\nlevel: 1\nsize: >=10 # rows\nactive: maybe\nrule: SELECT 1\n",
        ),
        ("rules/bad/empty.yml", ""),
        ("rules/bad/list.yml", "- a\n"),
        ("rules/bad/missing.yml", "name:\nlevl: 5\nsize: many\n"),
        ("rules/bad/sigma.yml", "id: g\nname: G\nlevel: 1\nrule: x\nsigma: yes\ndatasource: lake\n"),
        (
            "rules/bad/jinja.yml",
            "id: j\nname: J\nlevel: 1\nrule: |-\n  SELECT\n  {{ data.x | to_lst }}\ndescription: '{{ x'\n",
        ),
        ("rules/.hidden.yml", "no: rule"),
        ("rules/notes.txt", "no rule"),
    ]);
    fs::write(dir.path().join("rules/bad/utf8.yml"), b"id: u\nname: \xff\n").unwrap();
    let (text, code) = checked(&dir);
    assert_eq!(code, Code::Rules);
    insta::assert_snapshot!(text, @r#"
    rules/bad/empty.yml:1:1: the file is empty: it needs `id`, `name`, `level` and `rule`
    rules/bad/jinja.yml:6:15: rule: no filter is called `to_lst`; did you mean `to_list`?
    rules/bad/jinja.yml:7:18: description: not a Jinja template: unexpected end of input, expected end of variable block
    rules/bad/list.yml:1:1: a list stands here: write a map of `key: value` lines
    rules/bad/missing.yml:1:1: the key `id` (text) is missing
    rules/bad/missing.yml:1:1: the key `level` (level) is missing
    rules/bad/missing.yml:1:1: the key `rule` (text) is missing
    rules/bad/missing.yml:1:5: name: nothing is given here: write a text
    rules/bad/missing.yml:2:1: unknown key `levl`; did you mean `level`?
    rules/bad/missing.yml:3:7: size: `many` is not a size: quote an operator and a row count, e.g. size: ">5"
    rules/bad/sigma.yml:5:8: sigma: Sigma rules are not built yet: write the query as `rule` and remove `sigma`
    rules/bad/sigma.yml:6:13: datasource: no datasource `lake`; there is `default`
    rules/bad/size.yml:4:7: size: `>=10` is not a size: quote an operator and a row count, e.g. size: ">5"
    rules/bad/size.yml:5:9: active: `maybe` is not a boolean: write `true` or `false`
    rules/bad/utf8.yml:2:7: cannot be read: the byte 0xff here is not UTF-8, save the file as UTF-8
    rules/again.yml:2:5: warning: id: `001` is also the id of `rules/a.yml`, which counts in detector `five`: this rule does not run there, give it an id of its own
    rules/number.yml:1:5: warning: id: `002` without quotes is `2`: quote it if that is not meant, "002"
    1 detector, 2 rules, 17 problems
    "#);
}

#[test]
fn the_exit_code_is_the_worst_that_was_found() {
    let code = |files: &[(&str, &str)]| checked(&folder(files)).1;
    assert_eq!(code(&[("runner.yml", RUNNER), ("rules/a.yml", RULE)]), Code::Good);
    assert_eq!(code(&[("runner.yml", RUNNER)]), Code::Findings);
    assert_eq!(code(&[("runner.yml", RUNNER), ("rules/a.yml", RULE), ("rules/b.yml", RULE)]), Code::Findings);
    assert_eq!(code(&[("runner.yml", RUNNER), ("rules/a.yml", "id: [")]), Code::Rules);
    assert_eq!(code(&[("runner.yml", "detectors: {}")]), Code::Configuration);
    assert_eq!(code(&[("runner.yml", "detectors: [")]), Code::Configuration);
    assert_eq!(code(&[]), Code::CannotRun);
    assert_eq!(code(&[("runner.yml/x", "")]), Code::CannotRun);
}

#[test]
fn files_written_for_clickdetect_are_good() {
    let dir = folder(&[
        (
            "runner.yml",
            r#"
datasource:
    type: duckdb
    database: events.duckdb

max_detector_time: 120

webhooks:
    generic_webhook:
        type: generic
        url: http://localhost:3000/alerts/create
        verify: no
        timeout: 10
        headers:
          X-Type: test
        template: '{"rule": {{ rule | tojson }}, "data": {{ data | tojson }}, "detector": {{ detector | tojson }} }'

detectors:
    5m_detector: &base
        name: "5m interval"
        for: "5m"
        tenant: 'all'
        description: "rules with 5 min interval"
        rules:
            - "rules/ad/*.yml"
        webhooks:
            - generic_webhook
        data:
          var1: 'yy'
    10s_detector:
        <<: *base
        name: "10s interval"
        for: 10s
        active: off
        rules:
            - "rules/windows/*"

plugins:
  clickagentic:
    provider: local
    model: 'SmolLM2-135M-Instruct'
    token: 'xxx'
    from_level: 10
    ids:
      - "id1"
    false_positive: |
        Scanner 10.0.0.5 runs daily vulnerability scans and will trigger
        port-scan rules. Ignore alerts where source_ip is 10.0.0.5.
"#,
        ),
        (
            "rules/ad/kerberos.yml",
            r#"
id: "11f975e4-0000-448d-a77f-a7e7d5cd3295"
name: "Kerberos failures"
level: 12
size: ">0"
active: true
author: 
    - Somebody <me@site.example>
group: active_directory
tags: 
    - kerberos
    - authentication_failed
data:
    max_match_time: 5
    list: ['x', 'y', 'z']
rule: |-
      SELECT count(*) AS cnt -- {{ rule.tags }} {{ rule.tags[0] | to_list }}
      FROM logs
      WHERE tenant = '{{ detector.tenant }}'
          AND user IN ({{ data.list | to_list_like }})

          AND time >= to_timestamp({{ startime }})
      HAVING cnt > {{ rule.data.threshold | default(5) }}
"#,
        ),
        (
            "rules/windows/locked.yaml",
            "id: w1\nname: Locked out\nlevel: Medium\nrule: SELECT 1\nactive: no\n",
        ),
        ("rules/windows/README.md", "not a rule"),
    ]);
    let (text, code) = checked(&dir);
    assert_eq!((text.as_str(), code), ("2 detectors, 2 rules, 0 problems\n", Code::Good));
    let runner = Runner::load_with(&dir.path().join("runner.yml"), &|_| None).runner.unwrap();
    assert_eq!(runner.detectors[1].name, "10s interval");
    assert_eq!(runner.detectors[1].tenant, "all", "merged from the other");
    assert!(!runner.detectors[1].active, "`off` is a boolean here");
    assert_eq!(runner.triage.unwrap().from_level, 10);
}

#[test]
fn how_triage_works_is_checked_to_the_value() {
    let runner = "
detectors:
  d: {name: D, for: 5m, rules: [a.yml]}
triage:
  deliver: DELIVER
  batch: BATCH
  niceness: NICENESS
  trust: TRUST
";
    let with = |deliver: &str, batch: &str, niceness: &str, trust: &str| {
        let text = runner.replace("DELIVER", deliver).replace("BATCH", batch).replace("NICENESS", niceness);
        let text = text.replace("TRUST", trust);
        folder(&[("runner.yml", &text), ("a.yml", RULE)])
    };
    let good = with("verdict", "64", "0", "{bar: 0.9, blind: 1}");
    let triage = Runner::load(&good.path().join("runner.yml")).runner.unwrap().triage.unwrap();
    assert_eq!((triage.deliver, triage.batch, triage.niceness), (Deliver::Verdict, 64, 0));
    assert_eq!(triage.trust, Trust { bar: 0.9, days: 30, blind: 1.0 });
    let defaults = Config::default();
    assert_eq!((defaults.deliver, defaults.batch, defaults.niceness), (Deliver::Prose, 8, 10));
    assert_eq!(defaults.trust, Trust { bar: 0.95, days: 30, blind: 0.0 });
    let (text, code) = checked(&with("later", "0", "20", "{bar: 1, days: 0, blind: much}"));
    assert_eq!(code, Code::Configuration);
    for line in [
        "runner.yml:5:12: triage.deliver: `later` is not a time to deliver: write `prose` or `verdict`",
        "runner.yml:6:10: triage.batch: `0` is not between 1 and 64",
        "runner.yml:7:13: triage.niceness: `20` is not between 0 and 19",
        "runner.yml:8:16: triage.trust.bar: `1` is not between 0.5 and 0.999",
        "runner.yml:8:25: triage.trust.days: `0` is not between 1 and 180",
        "runner.yml:8:35: triage.trust.blind: `much` is not a number, e.g. 0.95",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_device_is_refused_by_a_build_that_was_not_made_for_it() {
    let with = |device: &str| {
        let runner = "
detectors:
  d: {name: D, for: 5m, rules: [a.yml]}
triage:
  device: DEVICE
";
        folder(&[("runner.yml", &runner.replace("DEVICE", device)), ("a.yml", RULE)])
    };
    assert_eq!(Config::default().device, Device::Cpu);
    for (name, device) in [
        ("cpu", Device::Cpu),
        ("cuda", Device::Cuda(0)),
        ("'cuda:1'", Device::Cuda(1)),
        ("metal", Device::Metal),
    ] {
        let dir = with(name);
        let Some(feature) = device.missing_feature() else {
            let runner = Runner::load(&dir.path().join("runner.yml")).runner.unwrap();
            assert_eq!(runner.triage.unwrap().device, device);
            continue;
        };
        let (text, code) = checked(&dir);
        assert_eq!(code, Code::Configuration);
        let line = format!(
            "runner.yml:5:11: triage.device: this build cannot compute on `{device}`: use one made with \
             `--features {feature}`, or write `cpu`"
        );
        assert!(text.contains(&line), "{text}");
    }
    let (text, _) = checked(&with("gpu"));
    let line =
        "runner.yml:5:11: triage.device: `gpu` is not a device: write `cpu`, `cuda`, `cuda:1` or `metal`";
    assert!(text.contains(line), "{text}");
}

#[test]
fn secrets_come_from_environment_and_files_and_never_show() {
    let dir = folder(&[
        (
            "runner.yml",
            "
webhooks:
  soc:
    url: https://user:pass@soc.example:8443/alerts?key=hidden
    headers:
      Authorization: {env: SOC_TOKEN}
      X-Key: {file: key.txt}
      X-Plain: in the open
triage: {token: abc}
detectors:
  d: {name: D, for: 5m, rules: [a.yml], webhooks: soc, data: {env: production, key: {env: SOC_TOKEN}}}
",
        ),
        ("key.txt", "from a file\n"),
        ("a.yml", RULE),
    ]);
    let environment = |name: &str| (name == "SOC_TOKEN").then(|| "s3cret".to_owned());
    let path = dir.path().join("runner.yml");
    let runner = Runner::load_with(&path, &environment).runner.unwrap();
    let watchpost::webhook::Config::Generic(soc) = &runner.webhooks[0].1 else { panic!("not generic") };
    let headers: Vec<_> =
        soc.exchange.headers.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
    assert_eq!(headers, [("authorization", "s3cret"), ("x-key", "from a file"), ("x-plain", "in the open")]);
    assert_eq!(runner.detectors[0].data["env"], "production", "a map of the operator's own");
    assert_eq!(runner.detectors[0].data["key"], "s3cret");

    let printed = format!("{soc:?}{}", check(&path, true, &environment, now()).text);
    for secret in ["from a file", "in the open", "pass@", "hidden", "abc"] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
    assert!(printed.contains("authorization: '***'"), "{printed}");
}

#[test]
fn a_rule_file_cannot_read_the_environment_or_files() {
    let rule =
        "id: a\nname: A\nlevel: 1\nrule: SELECT 1\ndata: {x: {env: SOC_TOKEN}, y: {file: /etc/passwd}}\n";
    let dir = folder(&[("runner.yml", RUNNER), ("rules/a.yml", rule)]);
    let runner = Runner::load_with(&dir.path().join("runner.yml"), &|_| None).runner.unwrap();
    let set = RuleSet::load(&runner, &runner.detectors[0], &template::environment());
    assert_eq!(
        set.rules[0].data,
        serde_json::json!({ "x": { "env": "SOC_TOKEN" }, "y": { "file": "/etc/passwd" } })
    );
}

#[cfg(unix)]
#[test]
fn links_that_lead_back_end_and_a_file_counts_once() {
    let dir = folder(&[("runner.yml", RUNNER), ("rules/a/b/c.yml", RULE)]);
    std::os::unix::fs::symlink("../..", dir.path().join("rules/a/up")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("rules/broken.yml")).unwrap();
    let (text, code) = checked(&dir);
    insta::assert_snapshot!(text, @r"
    runner.yml:9:13: warning: detectors.five.rules[0]: `rules/broken.yml` cannot be searched: there is no such file
    1 detector, 1 rule, 1 problem
    ");
    assert_eq!(code, Code::Findings);
}

#[test]
fn rules_come_in_the_order_of_patterns_then_of_names() {
    let rule = |id: &str| RULE.replace("001", id);
    let (b, a, z) = (rule("b"), rule("a"), rule("z"));
    let runner = RUNNER.replace("['rules/**/*.yml']", "['rules/z.yml', './rules/*.yml', 'rules/[ab].yml']");
    let dir =
        folder(&[("runner.yml", &runner), ("rules/b.yml", &b), ("rules/a.yml", &a), ("rules/z.yml", &z)]);
    let runner = Runner::load_with(&dir.path().join("runner.yml"), &|_| None).runner.unwrap();
    let set = RuleSet::load(&runner, &runner.detectors[0], &template::environment());
    let ids: Vec<_> = set.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["z", "a", "b"]);
    assert_eq!(set.all_diagnostics().count(), 0, "a file that two patterns match is no second rule");
}

#[test]
fn a_column_is_tainted_or_clean_and_has_a_name() {
    let with = |columns: &str| {
        folder(&[("runner.yml", RUNNER), ("rules/a.yml", &format!("{}{columns}\n", RULE.trim_start()))])
    };
    assert_eq!(checked(&with("tainted: user\nclean: [department, cloud.id]")).1, Code::Good);
    let (text, code) = checked(&with("tainted: [user, host]\nclean: [host]"));
    assert_eq!(code, Code::Rules);
    assert!(text.contains("rules/a.yml:6:8: `host` is in both `clean` and `tainted`: keep one"), "{text}");
    let (text, _) = checked(&with("tainted: ['.']"));
    assert!(text.contains("rules/a.yml:5:10: tainted: "), "{text}");
}

#[test]
fn a_statement_that_is_over_is_a_warning_and_one_that_is_wrong_an_error() {
    let with = |until: &str| {
        let known = format!(
            "\ntriage:\n  known_benign:\n  - {{source: 10.0.0.5, why: x, until: {until}, added_by: j}}\n"
        );
        folder(&[("runner.yml", &format!("{RUNNER}{known}")), ("rules/a.yml", RULE)])
    };
    assert_eq!(checked(&with("2026-06-01")), ("1 detector, 1 rule, 0 problems\n".into(), Code::Good));
    let (text, code) = checked(&with("2026-05-31"));
    assert_eq!(code, Code::Findings);
    insta::assert_snapshot!(text, @r"
    runner.yml:14:39: warning: triage.known_benign[0].until: `2026-05-31` is over, so this has no effect: remove it, or give a later date
    1 detector, 1 rule, 1 problem
    ");
    assert_eq!(checked(&with("May 2027")).1, Code::Configuration);
}

#[test]
fn the_shipped_runner_is_good_and_triages() {
    let loaded = Runner::load_with(Path::new("runner.yml"), &|_| None);
    assert_eq!(loaded.diagnostics, []);
    let runner = loaded.runner.unwrap();
    assert!(runner.triage.is_some());
    assert_eq!(runner.store, Path::new("watchpost.db"));
    assert_eq!(
        runner.webhooks.iter().map(|(_, webhook)| webhook.kind()).collect::<Vec<_>>(),
        ["stdout", "generic"]
    );
}
