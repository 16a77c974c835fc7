"""The base of every verifiable constraint: an id, typed kwargs, a check, wordings, a way to sample.

A constraint is a frozen dataclass whose fields are its kwargs under the names that IFEval gives
them. The modules beside this one hold one family of ids each.
"""

from __future__ import annotations

import functools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args, get_type_hints

from risen_plugin.contracts import is_blank

RELATIONS = ("less than", "at least")
Rules: TypeAlias = Literal["risen", "ifeval"]
"""Whose checks: ours, for training, or those of IFEval itself, for published numbers."""
RULES: tuple[Rules, ...] = get_args(Rules)


@dataclass(frozen=True)
class Kind:
    """The values that a kwarg takes.

    :param what: in words, to follow "must be".
    :param read: the value as the constraint uses it; raises ValueError or TypeError if it is none.
    """

    what: str
    read: Callable[[Any], Any]


def _whole_number(low: int) -> Callable[[Any], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(value)
        # Columns with gaps come back from some table readers as floats: 3.0 is 3.
        if not math.isfinite(value) or value != int(value) or value < low:
            raise ValueError(value)
        return int(value)

    return read


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    if not value.strip():
        raise ValueError(value)
    return value.strip()


def _words(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError(value)
    if not value:
        raise ValueError(value)
    return tuple(_text(word) for word in value)


def _letter(value: object) -> str:
    letter = _text(value)
    if len(letter) != 1:
        raise ValueError(value)
    return letter


def _either(value: object) -> str:
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return _text(value)


def _whole_text(value: object) -> str:
    _text(value)
    return str(value)


def _relation(value: object) -> str:
    if value not in RELATIONS:
        raise ValueError(value)
    return str(value)


Count: TypeAlias = Annotated[int, Kind("a whole number from 0", _whole_number(0))]
Ordinal: TypeAlias = Annotated[int, Kind("a whole number from 1", _whole_number(1))]
Text: TypeAlias = Annotated[str, Kind("a text that is not empty", _text)]
WholeText: TypeAlias = Annotated[str, Kind("a text that is not empty", _whole_text)]
"""A text whose white space at both ends is a part of it."""
Keyword: TypeAlias = Annotated[str, Kind("a word that is not empty", _either)]
"""A word; some public rows have it in a list of one."""
Words: TypeAlias = Annotated[tuple[str, ...], Kind("a list of words that is not empty", _words)]
Letter: TypeAlias = Annotated[str, Kind("one character", _letter)]
Relation: TypeAlias = Annotated[
    Literal["less than", "at least"], Kind("'less than' or 'at least'", _relation)
]


def holds(count: int, relation: str, limit: int) -> bool:
    """Whether ``count`` is in ``relation`` ('less than' or 'at least') to ``limit``."""
    return count < limit if relation == "less than" else count >= limit


def counted(count: int, unit: str) -> str:
    """``1 word``, ``2 words``."""
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def quoted(text: str, limit: int = 40) -> str:
    """``text`` on one line, in quotation marks, cut to about ``limit`` characters."""
    line = " ".join(text.split())
    return repr(line if len(line) <= limit else f"{line[: limit - 3]}...")


def phrases(words: Sequence[str], joint: str) -> str:
    """Words or phrases as a sentence has them.

    >>> phrases(["tea", "green tea"], "or")
    'the word "tea" or the phrase "green tea"'
    >>> phrases(["tea", "milk", "ice"], "and")
    'the words "tea", "milk" and "ice"'
    """
    marked = [f'"{word}"' for word in words]
    kinds = ["phrase" if " " in word.strip() else "word" for word in words]
    if len(set(kinds)) > 1:
        marked = [f"the {kind} {word}" for kind, word in zip(kinds, marked, strict=True)]
    listed = f" {joint} ".join([", ".join(marked[:-1]), marked[-1]] if marked[1:] else marked)
    plural = "s" if len(marked) > 1 else ""
    return listed if len(set(kinds)) > 1 else f"the {kinds[0]}{plural} {listed}"


def _in_words(value: Any) -> Any:
    """A kwarg as a sentence has it: fewer, not less, of what can be counted."""
    return "fewer than" if value == RELATIONS[0] else value


@dataclass(frozen=True)
class Look:
    """The verdict of a constraint on an answer.

    :param met: whether the answer meets it.
    :param seen: what decides it, in one short line such as ``17 words``.
    """

    met: bool
    seen: str


@dataclass(frozen=True)
class Constraint(ABC):
    """One requirement of an answer that code can check.

    Subclasses say when it is ``met`` by an answer that is not blank; a blank answer meets nothing.
    """

    id: ClassVar[str]
    wordings: ClassVar[tuple[str, ...]]
    """Ways to ask for it; ``{name}`` stands for a kwarg."""
    conflicts: ClassVar[frozenset[str]] = frozenset()
    """Ids that one answer cannot be asked to meet as well; one side need name the other."""
    alone: ClassVar[bool] = False
    """Whether it fixes the whole answer, so that nothing else can be asked of it."""
    prompt_kwarg: ClassVar[str | None] = None
    """The kwarg that is the prompt itself where it is absent."""

    def check(self, text: str) -> bool:
        """Whether the answer ``text`` meets the constraint. Deterministic."""
        return not is_blank(text) and self.met(text)

    def look(self, text: str) -> Look:
        """As :meth:`check`, with what decides it; takes up to twice as long."""
        if not text.strip():
            return Look(False, "an empty answer")
        return Look(self.met(text), self.seen(text))

    @abstractmethod
    def met(self, text: str) -> bool:
        """Whether ``text``, which is not blank, meets the constraint."""

    @abstractmethod
    def seen(self, text: str) -> str:
        """What decides it in ``text``, which is not blank, in one short line."""

    def describe(self, rng: random.Random) -> str:
        """Ask for it in one of several wordings."""
        return rng.choice(self.wordings).format(**self.named())

    def named(self) -> dict[str, Any]:
        """The values of the names in the wordings."""
        return {name: _in_words(value) for name, value in asdict(self).items()}

    @property
    def kwargs(self) -> dict[str, Any]:
        """The kwargs as plain JSON values, ready for :func:`risen_plugin.constraints.parse`."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        """Kwargs that an answer to ``prompt`` can meet."""
        return {}

    @classmethod
    def family(cls) -> str:
        """The part of the id before the colon."""
        return cls.id.partition(":")[0]

    @classmethod
    @functools.cache
    def schema(cls) -> Mapping[str, Kind]:
        """The kinds of the kwargs by name; all of them are required."""
        hints = get_type_hints(cls, include_extras=True)
        return MappingProxyType({f.name: hints[f.name].__metadata__[0] for f in fields(cls)})
