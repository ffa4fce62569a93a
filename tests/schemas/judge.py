"""Says what a JSON Schema validator thinks of documents: `judge.py SCHEMA DOCUMENTS`, one JSON document a line.

Prints `true` or `false` for each line. Ends with an error where the schema itself is wrong, where a property lacks its
title, description or example, or where an example does not pass.
"""

import json
import re
import sys

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend


def pattern(validator, pattern, instance, schema):
    """`$` is the end and nothing else, as in ECMA-262, which JSON Schema asks for."""
    ecma = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    if validator.is_type(instance, "string") and not re.search(ecma, instance):
        yield ValidationError(f"{instance!r} does not match {pattern}")


Validator = extend(Draft202012Validator, {"pattern": pattern})


def described(schema, root, place):
    """All properties below a schema have a title, a description and examples that pass."""
    if isinstance(schema, list):
        for nth, part in enumerate(schema):
            described(part, root, f"{place}/{nth}")
    if not isinstance(schema, dict):
        return
    for name, below in schema.items():
        if name == "properties" and "title" in schema:
            for property, rule in below.items():
                at = f"{place}/{property}"
                assert rule.get("title") and rule.get("description"), f"{at} is not described"
                assert rule.get("examples"), f"{at} has no example"
                for value in rule["examples"] + ([rule["default"]] if "default" in rule else []):
                    found = list(Validator({"$defs": root.get("$defs", {}), **rule}).iter_errors(value))
                    assert not found, f"{at}: {value}: {found[0].message}"
                described(rule, root, at)
        elif name not in ("examples", "default", "const", "enum", "if", "then", "else"):
            described(below, root, f"{place}/{name}")


with open(sys.argv[1]) as file:
    schema = json.load(file)
Validator.check_schema(schema)
assert schema["$id"] and schema["title"] and schema["description"], "the schema has no name"
described(schema, schema, "")
validator = Validator(schema)
with open(sys.argv[2]) as file:
    for line in file:
        print("true" if validator.is_valid(json.loads(line)) else "false")
