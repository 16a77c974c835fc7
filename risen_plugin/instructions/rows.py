"""Rows: drawn from a generator or read from a probe's file, and checked before they are used."""

from __future__ import annotations

import itertools
import json
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.config import CurriculumConfig
from risen_plugin.contracts import Generator, Prompt, Row, text_of
from risen_plugin.errors import ConfigError, DataError, PluginError, boundary, near_miss, near_path
from risen_plugin.kit.files import text_sha256
from risen_plugin.kit.json_lines import read_lines
from risen_plugin.plugins.offers import Built
from risen_plugin.rewards.calling import NamedReward

_USUAL_STRATA = {"family", "level", "instruction_id_list"}
_MOST_AT_ONCE = 256  # rows asked for when few of them are new
_MOST_EVER = 4096  # rows asked for in one draw, so that a small supply is soon known to be one
_IMAGES = ("image", "images")  # TRL gives these columns to the model
_FROM_TRL = ("prompts", "completions", "trainer_state", "log_extra", "log_metric")
_ADDED_BY = {
    "instruction_id_list": ". If some rows have it, the generator's option unusable: skip leaves "
    "out the others (--set risen.generator.options.unusable=skip); the generator constraints adds "
    "others than were asked to plain prompts (--generator constraints)"
}
"""Hints at what makes a column."""


def draw(part: Built, count: int, seed: int, **context: Any) -> list[Row]:
    """At most ``count`` rows from a generator, each with a prompt; it may be endless.

    :raises PluginError: if the generator raises or its rows are not mappings.
    :raises DataError: if a row has no usable prompt, or a column that is none.
    """
    generator: Generator = part.value
    context.setdefault("pass_rates", {})
    context.setdefault("generate", no_answers)
    with boundary(part.label):
        made: Any = generator(count=count, seed=seed, **context)
        if not isinstance(made, Iterable):
            raise PluginError(f"{part.label} returned {short(made)}, not rows")
        rows = list(itertools.islice(made, count))
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise PluginError(
                f"{part.label} made {short(row)} as row {index}; a row is a mapping with a prompt"
            )
        check_row(row, f"{part.label} made row {index}")
    usable: list[Row] = [{name: row[name] for name in row if name not in _IMAGES} for row in rows]
    if len({isinstance(row["prompt"], str) for row in usable}) > 1:
        raise DataError(
            f"{part.label} made text and chat prompts side by side; a supply has one form"
        )
    return usable


def no_answers(prompts: Sequence[Prompt]) -> list[str]:
    """Stands in for the model while none is trained: an empty answer to each prompt."""
    return [""] * len(prompts)


def check_row(row: Row, made: str) -> None:
    """Refuse a row without a usable prompt, or with a column that TRL uses itself.

    Columns of images may be there if they are empty.

    :param made: the row in words, such as ``generator 'jsonl' made row 3``.
    :raises DataError: naming the row and its fault.
    """
    if "prompt" not in row:
        names = ", ".join(map(str, row)) or "nothing"
        raise DataError(f"{made} without a prompt; it has: {names}")
    prompt = row["prompt"]
    if not is_prompt(prompt):
        raise DataError(
            f"{made} with the prompt {short(prompt)}; a prompt is a text, or a list of messages "
            "with role and content"
        )
    if not prompt:
        raise DataError(f"{made} with an empty prompt")
    check_characters(row, made)
    for column in row:
        if not isinstance(column, str) or column in _FROM_TRL:
            raise DataError(
                f"{made} with the column {column!r}; a column's name is a text, and none of "
                f"{', '.join(_FROM_TRL)}, which rewards get from TRL"
            )
        if column in _IMAGES and row[column]:
            raise DataError(
                f"{made} with an image in the column '{column}'; a phase trains on texts alone: "
                "leave such rows or the column out, or call it something else"
            )


def check_characters(row: Row, place: str) -> None:
    r"""Refuse a row with half a surrogate pair in a text, which no tokenizer takes.

    JSON may hold one (``"\ud83d"``), where a text was cut in the middle of a character.

    :raises DataError: naming the column, and the row's ``place``.
    """
    for column, value in row.items():
        try:
            json.dumps(value, ensure_ascii=False, default=repr).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start].encode("ascii", "backslashreplace").decode()
            raise DataError(
                f"{place}: column '{column}' has half of a character ({half}), where a text was "
                "cut off; mend or leave out that row"
            ) from error
        except (ValueError, TypeError, RecursionError):  # it is no JSON, and none of ours
            continue


def is_prompt(value: object) -> bool:
    """Whether a value is a text or chat messages."""
    return isinstance(value, str) or _is_chat(value)


def _is_chat(prompt: Any) -> bool:
    """Whether TRL takes it for a chat; a message that calls tools needs no content."""
    return isinstance(prompt, list) and all(
        isinstance(message, Mapping)
        and "role" in message
        and ("content" in message or "tool_calls" in message)
        for message in prompt
    )


def short(value: object) -> str:
    """A value on one short line, for messages."""
    return " ".join(reprlib.repr(value).split())


def check_columns(
    rows: Sequence[Row], rewards: Sequence[NamedReward], label: str, *, generated: bool = True
) -> None:
    """Refuse rows that lack a column which a reward needs.

    :param generated: whether a generator could be named to add it.
    :raises DataError: naming the reward, the column and the near miss.
    """
    for row in rows:
        for reward in rewards:
            for column in reward.needs:
                if column not in row:
                    raise DataError(
                        f"{reward.label} needs the column '{column}', which rows of {label} lack"
                        f"{near_miss(column, row) or '.'} They have: {', '.join(row)}"
                        f"{_ADDED_BY.get(column, '') if generated else ''}"
                    )


def check_strata(curriculum: CurriculumConfig, rows: Sequence[Row], label: str) -> None:
    """Refuse a stratum that is a column of no row; those by default may be missing.

    :raises ConfigError: naming the near miss.
    """
    columns = {name for row in rows for name in row} - {"prompt"}
    for name in set(curriculum.strata) - columns - _USUAL_STRATA:
        raise ConfigError(
            f"curriculum.strata has '{name}', which is a column of no row of {label}"
            f"{near_miss(name, columns | _USUAL_STRATA) or '.'} They have: "
            f"{', '.join(sorted(columns)) or 'none'}"
        )


def check_by_rewards(rows: Sequence[Row], rewards: Sequence[NamedReward], label: str) -> None:
    """Let the rewards that offer ``check_row`` refuse rows that they cannot score.

    :raises DataError: naming the row, and the reward.
    """
    for reward in rewards:
        check: Callable[[Row], None] | None = getattr(reward.reward, "check_row", None)
        if check is None:
            continue
        for row in rows:
            try:
                check(row)
            except DataError as error:
                start = " ".join(text_of(row["prompt"]).split())[:60]
                raise DataError(
                    f"{label} made a row ({start!r}...) that {reward.label} cannot score: {error}"
                ) from error


@dataclass(frozen=True)
class PromptLimit:
    """The most tokens that a prompt may have.

    :param count: tokens of a prompt as the model will see it.
    """

    longest: int
    count: Callable[[Any], int]


class TooLong:
    """Instructions that a model's context does not hold: others are drawn in their place.

    :ivar count: of those that were passed over in the run.
    """

    def __init__(self) -> None:
        self.count = 0
        self._worst: tuple[int, str] = (0, "")
        self._context = 0

    def pass_over(self, rows: Sequence[Row], limit: PromptLimit | None, label: str) -> list[Row]:
        """The rows whose prompts fit the context.

        :raises DataError: for a prompt that the chat template refuses; ``label`` made it.
        """
        if limit is None:
            return list(rows)
        fit: list[Row] = []
        for row in rows:
            try:
                tokens = limit.count(row["prompt"])
            except DataError as error:
                raise DataError(f"{label} made an unusable row: {error}") from error
            if tokens <= limit.longest:
                fit.append(row)
            else:
                self.count += 1
                self._worst = max(self._worst, (tokens, text_of(row["prompt"])))
                self._context = limit.longest
        return fit

    def said(self) -> str:
        """How long the longest one is, and what leaves room for it."""
        tokens, text = self._worst
        return (
            f"a prompt of {tokens} tokens ({' '.join(text.split())[:60]!r}...); beside "
            f"grpo.max_completion_length this model's context leaves {self._context}; shorten the "
            "prompt, or lower that"
        )


def derived_seed(seed: int, *purpose: object) -> int:
    """A seed that depends on ``seed`` and on its purpose; the same in every process."""
    text = json.dumps([seed, *map(str, purpose)])
    return int(text_sha256(text)[:8], 16) >> 1


def key_of(prompt: Prompt) -> str:
    """A short fingerprint of a prompt, to tell sets of instructions apart."""
    text = json.dumps(prompt, sort_keys=True, default=repr)
    return text_sha256(text)[:20]


def rows_to_ask_for(lacking: int, fruitless: int) -> int:
    """How many rows to ask for: those lacking, and more after each draw without a new one.

    A supply that draws at random may have the wanted rows, but seldom make them.
    """
    return min(max(lacking, min(lacking << fruitless, _MOST_AT_ONCE)), _MOST_EVER)


def load_probe(probe: Any, label: str = "the probe") -> list[Mapping[str, Any]]:
    """Rows from a JSON Lines path or from any sequence of mappings; ``label`` says what they are.

    :raises ConfigError: if the file cannot be read; ``DataError`` for a line that is not JSON.
    """
    if not isinstance(probe, str | Path):
        return list(probe)
    try:
        return [line.value() for line in read_lines(probe)]
    except OSError as error:
        near = near_path(Path(probe))
        raise ConfigError(f"cannot read {label} {probe}: {error.strerror}{near}") from error


def check_probe(probe: object, most: int) -> None:
    """Check the first ``most`` rows of a file or of a sequence; an iterator is left unread.

    :raises ConfigError: if there is no row or the file cannot be read; ``DataError`` for a row.
    """
    if probe is None or not isinstance(probe, str | Path | Sequence):
        return
    rows = load_probe(probe)[:most]
    if not rows:
        raise ConfigError(
            "the probe has no rows; give it some, or leave it out to take the ones "
            "of the Trainer's eval_dataset"
        )
    for index, row in enumerate(rows):
        check_probe_row(row, index)


def check_probe_row(row: Any, index: int) -> None:
    """Refuse a row that has none of the known forms.

    :raises DataError: naming its columns.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"probe row {index} is a {type(row).__name__}, not a mapping of columns")
    if "input_ids" in row:
        return
    check_characters(row, f"probe row {index}")
    if (
        "messages" in row
        or {"prompt", "completion"} <= row.keys()
        or isinstance(row.get("text"), str)
    ):
        return
    raise DataError(
        f"probe row {index} has the columns {', '.join(map(str, row))}; a probe row has text, "
        "messages, prompt and completion, or input_ids"
    )
