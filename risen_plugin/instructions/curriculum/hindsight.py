"""Learn from answers that all failed: ask only for the constraints that the best of them met. Pure.

The instruction that an answer followed in part is another instruction, which it followed whole.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from risen_plugin.constraints import check_all, parse
from risen_plugin.contracts import Completion, Row, text_of


def relabelled(row: Row, completions: Sequence[Completion], rng: random.Random) -> Row | None:
    """``row`` asked anew, with only the constraints that the best of its answers met.

    The other columns stay. None where no answer met some but not all of the constraints, and for a
    row without ``query``: its prompt cannot be written again.

    :raises DataError: if the row's constraints cannot be read.
    """
    ids: list[str] = list(row.get("instruction_id_list") or ())
    kwargs: list[Any] = list(row.get("kwargs") or [None] * len(ids))
    query = row.get("query")
    if not ids or not query:
        return None
    asked = text_of(query)
    verdicts = [check_all(text_of(answer), ids, kwargs, asked) for answer in completions]
    met = max(verdicts, key=sum, default=[])
    if not any(met) or all(met):
        return None
    chosen = [index for index, is_met in enumerate(met) if is_met]
    constraints = [parse(ids[index], kwargs[index], asked) for index in chosen]
    words = " ".join(constraint.describe(rng) for constraint in constraints)
    made = {
        **row,
        "prompt": _with(row["prompt"], query, words),
        "instruction_id_list": [ids[index] for index in chosen],
        "kwargs": [kwargs[index] for index in chosen],
    }
    if row.get("family") in {id_.partition(":")[0] for id_ in ids}:
        made["family"] = ids[chosen[0]].partition(":")[0]
    if isinstance(row.get("level"), int):
        made["level"] = row["level"] - len(ids) + len(chosen)
    return made


def _with(prompt: Any, query: Any, words: str) -> Any:
    """The query with the constraints' words after it, text or chat as the prompt is."""
    text = f"{text_of(query if isinstance(query, str) else query[-1:]).rstrip()}\n\n{words}"
    if isinstance(prompt, str):
        return text
    before = list(prompt[:-1]) if isinstance(query, str) else list(query[:-1])
    return [*before, {**prompt[-1], "content": text}]
