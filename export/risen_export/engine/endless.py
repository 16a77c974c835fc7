"""Whether a JSON schema has an answer that ends, or only ever asks for itself again."""

from __future__ import annotations

from typing import Any

_BRANCHES = ("anyOf", "oneOf")


def is_endless(schema: Any) -> bool:
    """Whether every answer to a schema would contain another answer to it, without end.

    ``{"$ref": "#"}`` is, and an object that requires itself as a member. A reference that cannot
    be resolved counts as one that ends: to refuse it is the matter of who reads the schema.
    """
    targets = {ref: _at(schema, ref) for ref in _references(schema)}
    ending: set[str] = set()
    while True:
        found = {ref for ref, one in targets.items() if _ends(one, targets, ending)}
        if found == ending:
            return not _ends(schema, targets, ending)
        ending = found


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_references, schema))
    if not isinstance(schema, dict):
        return set()
    own = schema.get("$ref")
    inner = _references(list(schema.values()))
    return inner | {own} if isinstance(own, str) else inner


def _at(schema: Any, reference: str) -> Any:
    """What a reference within the schema names; True, which anything answers, where unknown."""
    if not reference.startswith("#"):
        return True
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdigit() and int(name) < len(schema):
            schema = schema[int(name)]
        elif isinstance(schema, dict) and name in schema:
            schema = schema[name]
        else:
            return True
    return schema


def _ends(schema: Any, targets: dict[str, Any], ending: set[str]) -> bool:
    """Whether a schema has an answer, given the references that are known to have one."""
    if not isinstance(schema, dict):
        return True
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference in targets and reference not in ending:
        return False
    for key in _BRANCHES:
        branches = schema.get(key)
        if not isinstance(branches, list) or not branches:
            continue
        if not any(_ends(one, targets, ending) for one in branches):
            return False
    return all(_ends(one, targets, ending) for one in _needed(schema))


def _needed(schema: dict[str, Any]) -> list[Any]:
    """The parts of a schema that every answer to it contains."""
    needed: list[Any] = []
    whole = schema.get("allOf")
    if isinstance(whole, list):
        needed += whole
    kind = schema.get("type")
    members, required = schema.get("properties"), schema.get("required")
    if kind == "object" and isinstance(members, dict) and isinstance(required, list):
        needed += [members[one] for one in required if isinstance(one, str) and one in members]
    least, items = schema.get("minItems"), schema.get("items")
    if kind == "array" and isinstance(least, int) and least > 0:
        first = schema.get("prefixItems")
        before: list[Any] = first[:least] if isinstance(first, list) else []
        needed += before
        if len(before) < least and items is not None:
            needed.append(items)
    return needed
