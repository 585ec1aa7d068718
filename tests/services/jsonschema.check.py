"""Checks YAML files against a JSON schema: `check.py SCHEMA FILE...` prints `{FILE: [problem, ...]}`."""

import json
import sys

# Started as a file, this folder would come first, and `jsonschema` is a file in it.
sys.path.pop(0)

import yaml
from jsonschema import Draft202012Validator


class Loader(yaml.SafeLoader):
    """Without dates: an editor's YAML calls them text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def problems(error):
    """The innermost problems, which say what is wrong."""
    if not error.context:
        return [f"{error.json_path}: {error.message}"]
    return [line for inner in error.context for line in problems(inner)]


schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
told = {}
for name in sys.argv[2:]:
    document = yaml.load(open(name), Loader)
    told[name] = [line for error in validator.iter_errors(document) for line in problems(error)]
json.dump(told, sys.stdout)
