"""What a user asks of the gate: its limits, prompts, golden prompts, and instructions with rewards.

The same from a YAML file and from Python. Nothing is read of a run or of a model here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from risen_export.gate.limits import read_limits
from risen_plugin.config.choices import PluginOrName, Use, Weighted, read_use
from risen_plugin.contracts import Prompt, Row
from risen_plugin.errors import ConfigError, located
from risen_plugin.instructions.rows import is_prompt
from risen_plugin.kit.checks import all_texts, check_keys, check_whole
from risen_plugin.kit.yaml_files import read_mapping

COUNT = 64
"""Instructions that are asked where nobody says how many."""
MOST_TOKENS = 256
"""Of an answer to an instruction."""
_KEYS = {"limits", "prompts", "golden", "facts", "instructions", "rewards", "count", "tokens"}
_NEEDS = "settings of the gate, such as {limits: {int8: {agreement: 0.97}}}"


@dataclass(frozen=True)
class GateSettings:
    """What is asked of a model and its graphs, and how far apart they may be.

    A prompt of ``prompts`` and ``golden`` is chat messages, or a text, which becomes a user's
    message where the model's template takes one.

    :param limits: ``{family: {limit: number}}``; see :class:`risen_export.gate.limits.Limits`.
    :param prompts: in place of the built-in tasks.
    :param golden: ``{"prompt": ..., "expected": [words]}``: prompts with a right answer.
    :param facts: whether the built-in questions are asked, too.
    :param instructions: rows with a prompt and the columns of ``rewards``, or the path of a JSON
        Lines file with them; None takes the held-out rows of the run.
    :param rewards: as a run's configuration names them; those of the run if empty.
    :param count: most instructions that are asked; 0 for none.
    :param tokens: most tokens of an answer to one; None takes those of the run, at most 256.
    :raises ConfigError: for a value of another kind, an unknown family or an unknown limit.
    """

    limits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prompts: Sequence[Prompt] = ()
    golden: Sequence[Mapping[str, Any]] = ()
    facts: bool = True
    instructions: str | Path | Sequence[Row] | None = None
    rewards: Sequence[PluginOrName] = ()
    count: int = COUNT
    tokens: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.limits, Mapping):
            raise ConfigError(f"limits is {self.limits!r:.60}; it is a mapping of families")
        read_limits(self.limits)
        for index, prompt in enumerate(_listed("prompts", self.prompts, "a list of prompts")):
            _check_prompt(f"prompts.{index}", prompt)
        for index, one in enumerate(_listed("golden", self.golden, "a list of mappings")):
            _check_golden(f"golden.{index}", one)
        if not isinstance(self.facts, bool):
            raise ConfigError(f"facts is {self.facts!r:.60}; it is true or false")
        check_whole("count", self.count, 0)
        if self.tokens is not None:
            check_whole("tokens", self.tokens, 1)
            if self.tokens > MOST_TOKENS:
                raise ConfigError(f"tokens is {self.tokens}; most is {MOST_TOKENS}")
        rows = self.instructions
        if not isinstance(rows, str | Path | Sequence | None):
            raise ConfigError(
                f"instructions is {rows!r:.60}; it is the path of a JSON Lines file, or rows"
            )
        rewards = [
            read_use(one, f"rewards.{index}", reward=True)
            for index, one in enumerate(
                _listed("rewards", self.rewards, "a list, such as [constraints]")
            )
        ]
        for index, one in enumerate(rewards):
            if not isinstance(one, str | Use | Weighted) and not callable(one):
                raise ConfigError(
                    f"rewards.{index} is {one!r:.60}; it is a reward's name, or {{use: NAME, ...}}"
                )
        object.__setattr__(self, "rewards", rewards)


def read_settings(path: Path) -> GateSettings:
    """The settings in a YAML file; a key without a value counts as left out.

    :raises ConfigError: naming the file, and the near miss of an unknown key.
    """
    content = read_mapping(path, _NEEDS)
    with located(str(path)):
        check_keys(content, _KEYS, str(path))
        read = {key: value for key, value in content.items() if value is not None}
        return GateSettings(**read)


def _listed(name: str, value: Any, what: str) -> Sequence[Any]:
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ConfigError(f"{name} is {value!r:.60}; it is {what}")
    return value


def _check_prompt(where: str, prompt: object) -> None:
    if not prompt or not is_prompt(prompt):
        raise ConfigError(
            f"{where} is {prompt!r:.60}; it is a text, or a list of messages with role and content"
        )


def _check_golden(where: str, one: object) -> None:
    if not isinstance(one, Mapping):
        raise ConfigError(f"{where} is {one!r:.60}; it is {{prompt: ..., expected: [words]}}")
    check_keys(one, {"prompt", "expected"}, where)
    for name in ("prompt", "expected"):
        if name not in one:
            raise ConfigError(f"{where} lacks '{name}'")
    _check_prompt(f"{where}.prompt", one["prompt"])
    words = one["expected"]
    if isinstance(words, str) or not all_texts(words) or not words or not all(words):
        raise ConfigError(
            f"{where}.expected is {words!r:.60}; it is a list of words, such as [Paris]"
        )
