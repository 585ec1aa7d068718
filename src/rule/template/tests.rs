use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;
use crate::rule::{Level, Size};

fn rule(query: &str) -> Rule {
    Rule {
        id: "r1".into(),
        name: "Failed logins".into(),
        level: Level::new(65).unwrap(),
        size: Size::default(),
        active: true,
        rule: query.into(),
        author: vec!["A".into()],
        group: "auth".into(),
        tags: vec!["ssh".into(), "brute".into()],
        description: "{{ rule.name }} in {{ detector.tenant }}, over {{ data.threshold }}".into(),
        data: json!({ "threshold": 10, "users": ["root", "o'brien"] }),
        tainted: Vec::new(),
        clean: Vec::new(),
        datasource: None,
        path: PathBuf::from("rules/a.yml"),
    }
}

fn context() -> Context<'static> {
    Context {
        window: Window::from_seconds(1_700_000_000, 1_700_000_300).unwrap(),
        interval: "5m",
        detector: value(json!({ "name": "Five", "tenant": "acme", "data": {} }).as_object().unwrap()),
        datasource: value(json!({ "type": "duckdb", "database": ":memory:" }).as_object().unwrap()),
    }
}

fn rendered(query: &str) -> Result<String, String> {
    let query = Query::compile(&rule(query), &environment()).map_err(|error| error.to_string())?;
    query.render(&context()).map_err(|error| error.to_string())
}

#[test]
fn a_query_sees_the_window_the_rule_and_the_detector() {
    let query = "{{ startime }} {{ endtime }} {{ interval }} {{ rule.name }} {{ rule_id }} {{ rule_level + 1 }} \
                 {{ rule_group }} {{ datasource.database }} {{ data.threshold }} {{ rule.data.threshold }} \
                 {{ detector.tenant }} {{ startime ~ endtime }}";
    insta::assert_snapshot!(
        rendered(query).unwrap(),
        @"1700000000 1700000300 5m Failed logins r1 66 auth :memory: 10 10 acme 17000000001700000300"
    );
}

#[test]
fn the_description_is_rendered_too() {
    let query = Query::compile(&rule("SELECT 1"), &environment()).unwrap();
    assert_eq!(query.render_description(&context().detector).unwrap(), "Failed logins in acme, over 10");
}

#[test]
fn templates_print_as_jinja2_prints_them() {
    let recorded: Json =
        serde_json::from_str(include_str!("../../../tests/data/template/jinja2.json")).unwrap();
    let context = value(recorded["context"].as_object().unwrap());
    let environment = environment();
    for case in recorded["cases"].as_array().unwrap() {
        let source = case[0].as_str().unwrap();
        let ours = environment.render_str(source, context.clone()).ok();
        assert_eq!(ours.as_deref(), case[1].as_str(), "{source}");
    }
}

#[test]
fn a_quote_in_a_list_item_cannot_end_its_text() {
    assert_eq!(rendered("IN ({{ data.users | to_list_like }})").unwrap(), "IN ('root', 'o''brien')");
}

#[test]
fn a_template_cannot_run_away() {
    let error = rendered("{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}");
    assert!(error.as_ref().is_err_and(|error| error.contains("more than 500000 steps")), "{error:?}");
    assert!(rendered("{{ 'x' * 1000000000000 }}").is_err());
    assert!(rendered("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").is_err());
}

#[test]
fn a_failed_render_says_its_line() {
    assert_eq!(
        rendered("SELECT\n{{ data.users / 2 }}").unwrap_err(),
        "line 2 of the template: invalid operation: tried to use / operator on unsupported types sequence and number"
    );
}

/// Diagnostics of a rule file's `rule`.
fn checked(file: &str) -> String {
    let mut reader = Reader::new("r.yml", file, Path::new(""), None);
    let root = reader.parse().unwrap();
    let node = root.get("rule").unwrap();
    let source = &node.scalar().unwrap().text;
    check(source, node, QUERY, &environment(), &mut reader);
    let lines: Vec<_> = reader.into_diagnostics().iter().map(Diagnostic::to_string).collect();
    lines.join("\n")
}

#[test]
fn problems_of_a_template_point_into_the_file() {
    insta::assert_snapshot!(
        checked("id: a\nrule: |-\n    SELECT *\n    FROM t WHERE a > {{ startim }}\n    {% if a is evn %}{{ b | lowr }}{% endif %}\n"),
        @r#"
    r.yml:5:16: no test is called `evn`
    r.yml:5:29: no filter is called `lowr`; did you mean `lower`?
    r.yml:5:11: warning: nothing is called `a` here, it will be empty; there is `startime`, `endtime`, `interval`, `rule`, `rule_id`, `rule_level`, `rule_group`, `datasource`, `data`, `detector`
    r.yml:5:25: warning: nothing is called `b` here, it will be empty; there is `startime`, `endtime`, `interval`, `rule`, `rule_id`, `rule_level`, `rule_group`, `datasource`, `data`, `detector`
    r.yml:4:25: warning: nothing is called `startim` here, it will be empty; did you mean `startime`?
    "#
    );
    insta::assert_snapshot!(checked("rule: |\n  SELECT\n    {{ startime }\n"), @"r.yml:3:17: not a Jinja template: unexpected `}`, expected end of variable block");
    insta::assert_snapshot!(checked("rule: 'SELECT {% endif %}'\n"), @"r.yml:1:18: not a Jinja template: unknown statement endif");
    insta::assert_snapshot!(checked("rule: >\n  SELECT\n  {{ nope | to_list }}\n"), @"r.yml:1:7: warning: nothing is called `nope` here, it will be empty; there is `startime`, `endtime`, `interval`, `rule`, `rule_id`, `rule_level`, `rule_group`, `datasource`, `data`, `detector`");
}

#[test]
fn what_is_no_template_word_is_not_checked_as_one() {
    let file = r#"
rule: |
  SELECT a || b, '{{ "x | nofilter" }}' {# y | nofilter #}
  {% raw %}{{ z | nofilter }}{% endraw %} {%- set n = 1.5 -%}
  {{ data.items() | list }} {{ n is not none }} {{ loop is defined }}
  {% for a in range(3) %}{{ loop.index }}{{ a }}{% endfor %}{% filter upper %}x{% endfilter %}
"#;
    insta::assert_snapshot!(checked(file), @"r.yml:5:52: warning: nothing is called `loop` here, it will be empty; there is `startime`, `endtime`, `interval`, `rule`, `rule_id`, `rule_level`, `rule_group`, `datasource`, `data`, `detector`");
}
