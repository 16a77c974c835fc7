"""What an answer has to match, from ``response_format``, vLLM's ``structured_outputs``, or tools.

Only shapes are checked here; whether a schema can be followed is for the engine to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from risen_export.engine.requests import Grammar
from risen_export.serving.fields import Fields, check_depth
from risen_export.serving.refusals import RefusedError

MOST_SCHEMA_DEPTH = 32
MOST_SCHEMA = 64 * 1024
"""Characters of a schema, grammar or expression."""
_MOST_CHOICES = 1024
# Where any white space may stand, a model that is unsure writes it for ever.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def read_format(fields: Fields) -> Grammar | None:
    """The grammar of a request; None if its answers are free.

    :raises RefusedError: if a format cannot be read, or two are given.
    """
    found = [one for one in (_response_format(fields), _structured(fields)) if one is not None]
    if len(found) > 1:
        raise RefusedError(
            "give response_format or structured_outputs, not both", param="structured_outputs"
        )
    return found[0] if found else None


def _response_format(fields: Fields) -> Grammar | None:
    given = fields.fields("response_format")
    if given is None:
        return None
    kind = given.choice("type", ("text", "json_object", "json_schema"))
    if kind is None:
        raise given.refused("type", "is missing; it is text, json_object or json_schema")
    schema = given.fields("json_schema")
    given.only()
    if kind == "text":
        return None
    if kind == "json_object":
        return of_schema({"type": "object"}, "response_format")
    if schema is None:
        raise given.refused("json_schema", "is missing, and the type asks for it")
    schema.text("name", 64)
    schema.text("description", 4096)
    schema.flag("strict")
    wanted = schema.take("schema")
    schema.only()
    param = "response_format.json_schema.schema"
    return of_schema({} if wanted is None else wanted, param)


def _structured(fields: Fields) -> Grammar | None:
    given = fields.fields("structured_outputs")
    if given is None:
        return None
    kinds = [name for name in ("json", "regex", "choice", "grammar") if given.has(name)]
    given.only()
    if len(kinds) != 1:
        raise RefusedError(
            "structured_outputs takes one of json, regex, choice and grammar",
            param="structured_outputs",
        )
    param = f"structured_outputs.{kinds[0]}"
    if kinds[0] == "json":
        return of_schema(given.take("json"), param)
    if kinds[0] == "choice":
        choices = given.texts("choice", _MOST_CHOICES)
        if not choices:
            raise given.refused("choice", "is empty")
        return of_schema_text(json.dumps({"enum": choices}), param, plain=choices)
    text = given.text(kinds[0], MOST_SCHEMA)
    assert text is not None
    return Grammar("regex" if kinds[0] == "regex" else "lark", text)


def of_schema(schema: object, param: str) -> Grammar:
    """The grammar of a JSON schema.

    :raises RefusedError: if it is no schema, is too large or nests too deep.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError):
            raise RefusedError(f"{param} is no JSON", param=param) from None
    if not isinstance(schema, dict | bool):
        raise RefusedError(f"{param} has to be a JSON schema: an object", param=param)
    if isinstance(schema, dict):
        check_schema_depth(schema, param)
        schema = {"x-guidance": _LAYOUT, **schema}
    return of_schema_text(json.dumps(schema), param)


def check_schema_depth(schema: Mapping[str, Any], param: str) -> None:
    """Refuse a schema that nests so deep that reading it takes all memory.

    :raises RefusedError: if it does.
    """
    try:
        check_depth(schema, MOST_SCHEMA_DEPTH)
    except RefusedError:
        raise RefusedError(
            f"{param} nests deeper than {MOST_SCHEMA_DEPTH} objects and lists", param=param
        ) from None


def of_schema_text(text: str, param: str, plain: Sequence[str] | None = None) -> Grammar:
    """The grammar of a schema's text; of texts to choose from where ``plain`` has them.

    :raises RefusedError: if it is too long.
    """
    if len(text) > MOST_SCHEMA:
        raise RefusedError(
            f"{param} has {len(text)} characters; {MOST_SCHEMA} are allowed", param=param
        )
    if plain is not None:
        words = " | ".join(json.dumps(word, ensure_ascii=False) for word in plain)
        return Grammar("lark", f"start: {words}")
    return Grammar("json_schema", text)


def of_tools(tools: Sequence[Mapping[str, Any]]) -> Grammar:
    """The grammar of one call of one of some tools, an object of ``name`` and ``arguments``.

    :raises RefusedError: if the parameters are too large.
    """
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    schema: Mapping[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return of_schema_text(json.dumps({"x-guidance": _LAYOUT, **schema}), "tools")
