"""Measure the adapters of a published bundle again: do they do what they did when added?

No model is there to compare with. What an adapter did to the logits when it was added stands in the
manifest, for every variant that ran then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_export.bundles import adapters
from risen_export.runtime import adapters as files
from risen_export.runtime.adapting import measure
from risen_export.runtime.bundle import Bundle
from risen_plugin.errors import ExportError

SAME = 0.01
"""Relative difference of two largest moves that counts as none. Two machines compute the sums of
fp32 in another order, which is far less; graphs of integers round otherwise, which may be more."""


@dataclass(frozen=True)
class AdapterAgain:
    """One adapter in one variant.

    :param moved: the largest change of a logit now; None if it could not be measured.
    :param before: the same when it was added; None if it was not run then.
    :param problem: why it could not be measured, in words.
    """

    name: str
    moved: float | None
    before: float | None
    problem: str = ""

    @property
    def is_same(self) -> bool:
        """Whether it moves the logits as before; so is one that nobody ran before."""
        if self.moved is None or self.before is None:
            return self.moved is not None
        return abs(self.moved - self.before) <= SAME * abs(self.before)


def measure_again(root: Path, variant: str, opened: Bundle) -> list[AdapterAgain]:
    """Every adapter of the bundle at ``root``, in one of its variants."""
    return [
        _again(root, name, entry["check"].get(variant), opened)
        for name, entry in adapters.listed(root).items()
    ]


def _again(root: Path, name: str, recorded: Any, opened: Bundle) -> AdapterAgain:
    check: Mapping[str, Any] = recorded if isinstance(recorded, Mapping) else {}
    moved = check.get("logits_moved_max")
    before = float(moved) if isinstance(moved, int | float) else None
    try:
        found = measure(opened, files.read(adapters.file_of(root, name)))
    except ExportError as error:
        return AdapterAgain(name, None, before, str(error))
    return AdapterAgain(name, found["logits_moved_max"], before)


def failures(found: list[AdapterAgain], *, is_exact: bool) -> Iterator[str]:
    """What is wrong with them, in words.

    :param is_exact: whether the graph computes in floating point alone, so that it computes the
        same on every machine.
    """
    for one in found:
        if one.moved is None:
            yield f"adapter {one.name}: {one.problem}"
        elif is_exact and not one.is_same:
            yield f"adapter {one.name} {_moves(one)}"


def remark(found: list[AdapterAgain]) -> str:
    """What else there is to say of them, in words; nothing where there are none."""
    same = [one.name for one in found if one.is_same]
    said = [f"with {', '.join(same)} logits move as they did when it was added"] if same else []
    said += [
        f"adapter {one.name} {_moves(one)}"
        for one in found
        if one.moved is not None and not one.is_same
    ]
    return "; ".join(said)


def _moves(one: AdapterAgain) -> str:
    return f"moves logits by up to {one.moved:.3g}, and by {one.before:.3g} when it was added"
