use std::path::Path;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::config::{FromYaml, Reader};

/// The whole text as JSON, or `None` where anything is wrong with it.
fn json(text: &str) -> Option<Json> {
    let mut reader = Reader::new("f", text, Path::new(""), None);
    let root = reader.parse();
    let value = root.and_then(|root| Json::from_yaml(&root, &mut reader));
    if reader.into_diagnostics().is_empty() { value } else { None }
}

fn problems(text: &str) -> Vec<String> {
    let problems = parse(text).1.into_iter();
    problems
        .map(|problem| format!("{}:{}: {}", problem.at.line, problem.at.column, problem.message))
        .collect()
}

#[test]
fn texts_are_read_as_pyyaml_reads_them() {
    let recorded: Json = serde_json::from_str(include_str!("../../../tests/data/yaml/pyyaml.json")).unwrap();
    for case in recorded["same"].as_array().unwrap() {
        assert_eq!(json(case[0].as_str().unwrap()).as_ref(), case[1].get("value"), "{}", case[0]);
    }
    // Known differences: infinities, dates and sexagesimal floats stay text, a key given twice is an error, lines
    // of a quoted text or a flow list must be indented.
    for case in recorded["different"].as_array().unwrap() {
        assert_eq!(json(case[0].as_str().unwrap()).as_ref(), case[2].get("value"), "{}", case[0]);
    }
}

#[test]
fn every_key_and_value_knows_its_place() {
    let root = parse("a: 1\nb:\n  - é x: 'y'\n    z: |-\n      text\n").0.unwrap();
    let list = root.get("b").unwrap();
    let Value::List(items) = &list.value else { panic!("{list:?}") };
    let entries = items[0].entries().unwrap();
    assert_eq!(root.get("a").unwrap().at, Position { line: 1, column: 4 });
    assert_eq!(entries[0].at, Position { line: 3, column: 5 });
    assert_eq!(entries[0].value.at, Position { line: 3, column: 10 });
    assert_eq!(entries[1].value.at, Position { line: 4, column: 8 }, "a block stands where its | is");
}

#[test]
fn a_place_inside_a_text_is_a_place_in_the_file() {
    let source = "a: |-  # comment\n\n      one\n        two\nb: 'x {{'\nc: >\n  folded\n  on\n";
    let root = parse(source).0.unwrap();
    let at = |key: &str, line, column| root.get(key).unwrap().position_within(source, line, column);
    assert_eq!(at("a", 2, 1), Position { line: 3, column: 7 });
    assert_eq!(at("a", 3, 3), Position { line: 4, column: 9 });
    assert_eq!(at("b", 1, 3), Position { line: 5, column: 7 });
    assert_eq!(at("c", 1, 8), Position { line: 6, column: 4 }, "folded lines are not where they were");
}

#[test]
fn aliases_that_multiply_are_an_error_and_not_memory() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    let found = problems(&bomb);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("with its aliases written out the file passes 200000 values"), "{found:?}");

    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), ["*a"; 100].join(", "));
    assert!(problems(&long)[0].contains("16 MiB"));
}

#[test]
fn depth_and_size_have_an_end() {
    assert!(problems(&"[".repeat(100_000))[0].contains("more than 64 values stand inside each other"));
    assert!(problems(&"- ".repeat(1_000))[0].contains("more than 64 values stand inside each other"));
    let mut chain = String::from("a0: &a0 [x]\n");
    for level in 1..100 {
        chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(problems(&chain)[0].contains("more than 64 values"), "aliases count into the depth");
    assert!(problems(&" ".repeat(MAX_BYTES + 1))[0].contains("split it"));
}

#[test]
fn broken_text_is_told_with_its_place_and_what_to_do() {
    let told = [
        "id: x\n\tname: y\n",
        "rules:\n  - *.yml\n",
        "id: \"x\nname: b\n",
        "name: a: b\n",
        "name: {{ x }}\n",
        "a: 1\n---\nb: 1\n",
        "a: 1\nb: 2\na: 3\n",
        "a: !run x\n",
        "a: &a [*a]\n",
        "a:\n  <<: 5\n",
        "a: [\n  x,\n",
    ]
    .map(|text| problems(text).join("\n"))
    .join("\n");
    insta::assert_snapshot!(told, @r#"
    2:1: not YAML: while scanning a plain scalar, found a tab; indent with spaces, YAML takes no tabs
    2:5: not YAML: while parsing node, found unknown anchor; quote a value that starts with `*` or `&`, e.g. "*.yml"
    1:5: not YAML: invalid indentation in quoted scalar; close the quote, and indent every line of the text deeper than its key
    1:8: not YAML: mapping values are not allowed in this context; quote a value that contains `: `, and check the indentation
    1:8: a key must be a text; quote a value that starts with `{` or `[`
    2:1: a second document starts here: one file holds one, remove the `---`
    3:1: `a` is here a second time, first in line 1: keep one
    1:4: the tag `!run` has no meaning here: remove it, or quote the value
    1:8: this alias stands inside the value it names: write the value out
    2:7: `<<` takes a map or a list of maps, e.g. `<<: *defaults`
    3:1: not YAML: while parsing a node, did not find expected node content; check the indentation, quotes and brackets here and in the line above
    "#);
}

#[test]
fn an_unquoted_size_is_told_and_the_rest_is_still_read() {
    let source = "id: a\nsize: >=5 # rows\nname: {x: 1\n}\nlevel: 5\n";
    let (root, found) = parse(source);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].at, Position { line: 2, column: 7 });
    assert_eq!(
        found[0].message,
        "size: `>=5` is not a size: quote an operator and a row count, e.g. size: \">5\""
    );
    assert!(root.unwrap().get("level").is_some());
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "(\\PC|[\\n\\t:#&*<>|\\-\\[\\]{}'\"]| {1,4}|<<: |a: |- ){0,60}") {
        let _ = json(&text);
    }

    #[test]
    fn what_is_written_as_json_is_read_as_it_was(texts in proptest::collection::vec("[ -~¡-퟿]{0,20}", 0..8)) {
        let written = serde_json::to_string(&texts).expect("texts are JSON");
        prop_assert_eq!(json(&written), serde_json::from_str::<Json>(&written).ok());
    }
}
