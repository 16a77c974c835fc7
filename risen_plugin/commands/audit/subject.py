"""The reward under audit, its instructions, and its scores so far.

Checks share it, so that no answer is scored twice for two checks.
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from risen_plugin.commands.audit.calling import Caller, CallResult, Item
from risen_plugin.commands.audit.elsewhere import Source
from risen_plugin.commands.audit.empty_answers import FAMILIES
from risen_plugin.commands.audit.material import IDS, Instruction
from risen_plugin.contracts import Row
from risen_plugin.rewards.calling import wrap

MOST_WORDS = 24


@dataclass
class Subject:
    """A reward under audit.

    :param source: how to make the reward again in another process; None if unknown.
    :param passes_at: the score from which an answer counts as accepted.
    :param slow_s: seconds per answer from which a reward counts as slow.
    :param options: the options that the reward was made with.
    :param is_penalty: whether the reward only punishes: its best score is 0, and answers that say
        nothing may well get it.
    """

    label: str
    caller: Caller
    instructions: Sequence[Instruction]
    needs: Sequence[str] = ()
    source: Source | None = None
    passes_at: float = 1.0
    slow_s: float = 0.1
    options: Mapping[str, Any] = field(default_factory=dict)
    quick: bool = False
    is_penalty: bool = False
    _scored: dict[tuple[int, str], CallResult] = field(default_factory=dict)

    @property
    def reads_constraints(self) -> bool:
        """Whether the reward reads constraint rows."""
        return IDS in self.needs and any(one.reads_constraints for one in self.instructions)

    def accepts(self, outcome: CallResult) -> bool:
        """Whether an answer with this outcome counts as accepted."""
        return outcome.score is not None and outcome.score >= self.passes_at

    def outcomes(self, asked: Sequence[tuple[Row, str]]) -> list[CallResult]:
        """The reward's results for answers to rows of the instructions; each is scored once."""
        keys = [(id(row), answer) for row, answer in asked]
        new = {
            key: Item(row, answer)
            for key, (row, answer) in zip(keys, asked, strict=True)
            if key not in self._scored
        }
        made = self.caller.outcomes(list(new.values()))
        self._scored.update(zip(new, made, strict=True))
        return [self._scored[key] for key in keys]

    def mixed(self, count: int) -> list[Item]:
        """Right, wrong and degenerate answers to several instructions, to call as one batch."""
        items: list[Item] = []
        texts = [texts[0] for family, texts in FAMILIES.items() if texts and family != "empty"]
        for number, one in enumerate(self.instructions):
            texts_to_it = [*one.right, *one.wrong[:1]] or [one.prompt, f"{one.prompt} {one.prompt}"]
            items += [Item(one.row, text) for text in texts_to_it[:2]]
            items.append(Item(one.row, texts[number % len(texts)]))
            items.append(Item(one.row, f"Answer number {number} to this.\nIt has two lines."))
        return items[:count]


def needs_of(reward: Callable[..., Any]) -> tuple[str, ...]:
    """The columns that a reward requires, and the constraint columns if it reads them."""
    needs = wrap(reward, "reward", "reward").needs
    if IDS not in needs and IDS in set(_strings(reward)):
        needs = (*needs, IDS, "kwargs")
    return needs


def held_words(
    reward: Callable[..., Any], options: Mapping[str, Any], rows: Iterable[Row]
) -> list[str]:
    """Words that the reward may look for: in its options, its code, its attributes and its rows."""
    values = [*_flat(options.values()), *_strings(reward)]
    for row in rows:
        values += _flat(
            value for name, value in row.items() if name not in ("prompt", "query", IDS)
        )
    words: dict[str, None] = {}
    for value in values:
        plain = re.sub(r"\\.|\(\?\w*:?", " ", value)  # without the escapes of a regular expression
        if len(plain) <= 80:
            words.update(dict.fromkeys(re.findall(r"[^\W\d_]{2,}", plain)))
    return list(words)[:MOST_WORDS]


def _strings(reward: object) -> Iterator[str]:
    """Texts in the attributes, closures, defaults and code of a reward, without docstrings."""
    yield from _flat(vars(reward).values() if hasattr(reward, "__dict__") else ())
    functions = [reward] if isinstance(reward, types.FunctionType) else []
    if not functions:
        functions = [f for f in vars(type(reward)).values() if isinstance(f, types.FunctionType)]
        yield from _flat(v for k, v in vars(type(reward)).items() if not k.startswith("__"))
    for function in map(inspect.unwrap, functions):
        code = function.__code__
        doc = function.__doc__
        yield from _flat(_constants(code, doc))
        yield from _flat(cell.cell_contents for cell in function.__closure__ or ())
        yield from _flat(
            (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        )
        yield from _flat(function.__globals__.get(name) for name in code.co_names)


def _constants(code: types.CodeType, doc: str | None) -> Iterator[object]:
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _constants(constant, doc)
        elif constant != doc:
            yield constant


def _flat(values: Iterable[object]) -> Iterator[str]:
    """The texts among ``values``, and in the collections of texts among them."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, re.Pattern) and isinstance(value.pattern, str):
            yield value.pattern
        elif isinstance(value, Mapping):
            yield from (text for text in value.values() if isinstance(text, str))
        elif isinstance(value, list | tuple | set | frozenset):
            yield from sorted(text for text in value if isinstance(text, str))
