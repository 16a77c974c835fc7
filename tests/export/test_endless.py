"""Which JSON schemas have no answer that ends."""

import pytest

from risen_export.engine.endless import is_endless

ITSELF = {"$ref": "#"}


@pytest.mark.parametrize(
    "schema",
    [
        ITSELF,
        {"anyOf": [ITSELF]},
        {"allOf": [{"type": "object"}, ITSELF]},
        {"type": "object", "properties": {"a": ITSELF}, "required": ["a"]},
        {"type": "array", "items": ITSELF, "minItems": 1},
        {"type": "array", "prefixItems": [ITSELF], "minItems": 1},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    ],
)
def test_a_schema_that_always_asks_for_itself_again_is_endless(schema):
    assert is_endless(schema)


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        [],
        {"$ref": 5},
        {"$ref": "#/missing"},
        {"$ref": "elsewhere.json"},
        {"anyOf": [ITSELF, {"type": "null"}]},
        {"type": "object", "properties": {"a": ITSELF}},
        {"type": "object", "properties": {"a": ITSELF}, "required": ["b", 3]},
        {"type": "array", "items": ITSELF},
        {"type": "array", "prefixItems": [{}], "items": ITSELF, "minItems": 1},
    ],
)
def test_a_schema_that_may_end_is_not_endless(schema):
    assert not is_endless(schema)
