"""Dataclasses as JSON values and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from risen_plugin.guard.verdicts import Measured
from risen_plugin.kit.jsonable import from_plain, to_plain


@dataclass(frozen=True)
class Inner:
    rate: float
    by_name: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outer:
    first: Inner
    second: Inner | None
    many: tuple[Inner, ...]
    flags: Sequence[bool | None]
    named: Mapping[str, Inner]
    pair: tuple[float, float] | None = None


def test_a_dataclass_comes_back_equal() -> None:
    inner = Inner(0.1 + 0.2, {"a": 1e-17})
    given = Outer(inner, None, (inner, Inner(2.0)), [True, None], {"x": inner}, (0.1, math.inf))
    assert from_plain(Outer, json.loads(json.dumps(to_plain(given)))) == given


def test_the_optional_one_comes_back_too() -> None:
    given = Outer(Inner(1.0), Inner(2.0), (), [], {})
    assert from_plain(Outer, json.loads(json.dumps(to_plain(given)))) == given


def test_what_the_guard_measures_comes_back() -> None:
    given = Measured(0.5, 0.25, math.nan)
    back = from_plain(Measured, json.loads(json.dumps(to_plain(given))))
    assert (back.adherence_strict, back.adherence_soft) == (0.5, 0.25)
    assert math.isnan(back.probe_loss)
