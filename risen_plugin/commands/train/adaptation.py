"""The configuration that ``risen adapt`` runs: RISEN alone, on an adapter. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from risen_plugin.builtin.generators.sources import open_source
from risen_plugin.commands.options import options_of
from risen_plugin.commands.score.rescoring import options_by_label
from risen_plugin.config import GuardConfig
from risen_plugin.config.guard import AUTO, MOST_ROWS
from risen_plugin.embedded import EMBEDDED, orders
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.instructions.plain import PLAIN, plain_prompts
from risen_plugin.kit.intervals import least_changed

_MOST_HELD_OUT = 64
_FEWEST_TO_RESERVE = 128
"""Rows of a file below which no family is reserved: one may take half of them along."""
_MOST_LOST = 0.1  # share of the facts that a model knew
_SURE = GuardConfig.confidence or 0.99


def rewards_of(named: Sequence[str], pairs: Sequence[str]) -> list[dict[str, Any]]:
    """The ``rewards`` list of a configuration.

    :param named: names or ``file.py:NAME``, one or more in each text, separated by commas.
    :param pairs: options as ``name=value``; ``reward.name=value`` where there are several rewards.
    :raises ConfigError: if no reward is named, one is named twice, or an option fits none of them.
    """
    names = [name.strip() for text in named for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError("no reward is named; give one, such as --rewards constraints")
    labels = {name.rpartition(":")[2]: name for name in names}
    if len(labels) < len(names):
        raise ConfigError(f"a reward is named twice among {', '.join(names)}; name each once")
    options = options_by_label(tuple(pairs), list(labels))
    return [{"use": name, "options": options_of(options[label])} for label, name in labels.items()]


def own_instructions(
    model: str, generator: str | None, rewards: Sequence[str]
) -> tuple[str, str, str]:
    """What a model learns from where no instructions are given, by which generator, and a note.

    :param generator: that a person named; None for none.
    """
    if model == EMBEDDED and generator is None:
        count = len(orders.instructions())
        what = f"{count} messages to an order desk, which this model knows"
        return orders.ORDERS, "jsonl", _from_the_package(what, rewards)
    made_by = generator or "constraints"
    added = ", with constraints added" if made_by == "constraints" else f" by way of {made_by}"
    what = f"{len(plain_prompts())} plain prompts of the package{added}"
    return PLAIN, made_by, _from_the_package(what, rewards)


def _from_the_package(what: str, rewards: Sequence[str]) -> str:
    return f"no --instructions: learns from the {what}, rewarded by {', '.join(rewards)}"


def held_out(path: str, generator: str, most: int = _MOST_HELD_OUT) -> dict[str, int]:
    """The guard's row counts that leave most of a file to train on.

    :param most: rows to decide by.
    :raises DataError: if the file has too few rows for the guard to be sure of any gain.
    """
    count = _count(path, generator)
    return {} if count is None else _apart(path, count, most)


def _apart(path: str, count: int, most: int) -> dict[str, int]:
    """As :func:`held_out`, of a file of ``count`` rows."""
    fewest = least_changed(_SURE)
    if count < 2 * fewest:
        raise DataError(
            f"{path} holds {count} instructions; give {2 * fewest} or more, since the guard is "
            f"sure of nothing by fewer than {fewest} that are held out"
        )
    return {
        "rows": max(fewest, min(most, count // 4)),
        "report_rows": min(_MOST_HELD_OUT, count // 8),
    }


def _count(path: str, generator: str) -> int | None:
    """How many rows a file has; None where the generator makes more of them.

    :raises DataError: if it cannot be read, or has none.
    """
    if generator != "jsonl":
        return None
    count = len(open_source(path, None, "train", None))
    if not count:
        raise DataError(f"{path} holds no instructions")
    return count


def risen_section(
    instructions: str,
    rewards: Sequence[Mapping[str, Any]],
    *,
    generator: str = "jsonl",
    scheduler: Mapping[str, Any],
    probe: str | None = None,
) -> dict[str, Any]:
    """The ``risen`` section of a run on the instructions of a file."""
    section: dict[str, Any] = {
        "rewards": [dict(reward) for reward in rewards],
        "generator": {"use": generator, "options": {"path": instructions}},
        "scheduler": dict(scheduler),
    }
    section["guard"] = {"rows": AUTO, "facts": AUTO, "max_facts_lost": _MOST_LOST}
    count = _count(instructions, generator)
    if count is not None:
        apart = _apart(instructions, count, MOST_ROWS)
        section["guard"] |= {"most_rows": apart["rows"], "report_rows": apart["report_rows"]}
        if count < _FEWEST_TO_RESERVE:
            section["reserve"] = 0
    if probe is not None:
        section["probe"] = probe
    return section


def adaptation(model: str, section: Mapping[str, Any], *, keep_anyway: bool) -> dict[str, Any]:
    """The RUN.yaml mapping of a run that trains a new adapter on ``model`` by RISEN alone."""
    risen = {**section, "keep_dropped": True} if keep_anyway else dict(section)
    return {"model": model, "risen": risen, "lora": {}}


def in_one_phase(steps: int) -> dict[str, Any]:
    """The scheduler that runs one RISEN phase, after all fine-tuning."""
    return {"use": "after", "options": {"steps": steps}}
