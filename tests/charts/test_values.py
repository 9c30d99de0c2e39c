"""values.yaml, its page and its schema name the same keys."""

import json

import yaml

from tests.charts.rendering import CHART
from tests.charts.values_page import PAGE, VALUES_FILE, keys_of, parse_values, render_page

FREE = {
    ("webhook", "objectSelector"),
    ("tracing", "attributes"),
    ("certs", "certManager", "issuerRef"),
}  # empty by default, with keys of their own


def test_the_page_is_made_from_the_values_as_they_are():
    made = render_page(parse_values(VALUES_FILE.read_text()))
    assert PAGE.read_text() == made, "run: python -m tests.charts.values_page"


def test_every_key_is_on_the_page_with_its_default_and_a_description():
    values = yaml.safe_load(VALUES_FILE.read_text())
    named = {each.path: each for each in parse_values(VALUES_FILE.read_text()) if not each.section}
    assert set(named) == set(keys_of(values))
    assert [".".join(path) for path, each in named.items() if not each.text] == []
    page = PAGE.read_text()
    assert [".".join(path) for path in named if f"| `{'.'.join(path)}` | `" not in page] == []


def test_the_schema_knows_every_key_of_the_values_and_no_other():
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = set(schema_keys(schema, schema["definitions"]))
    values = set(keys_of(yaml.safe_load(VALUES_FILE.read_text())))
    assert {path for path in known if path[:1] != ("global",)} == values


def schema_keys(schema, definitions, prefix=()):
    """Yield the path of every key that a schema describes, as `keys_of` does for values."""
    for key, inner in schema["properties"].items():
        path = (*prefix, key)
        found = definitions[inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        if key == "resources":
            yield from ((*path, name) for name in ("requests", "limits"))
        elif "properties" in found and path not in FREE:
            yield from schema_keys(found, definitions, path)
        else:
            yield path


def test_nothing_but_free_maps_takes_unknown_keys():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def closed(part, name):
        if isinstance(part, dict):
            if "properties" in part:
                assert part["additionalProperties"] is False, name
            for key, inner in part.items():
                closed(inner, key)

    closed(schema, "the top")
