"""genai's engine behind the same interface: equal answers, refusals of what it does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risen_export.engine.engine import Engine
from risen_export.engine.genai import GenaiEngine
from risen_export.engine.opening import open_engine
from risen_export.engine.requests import Request, Sampling
from risen_export.engine.settings import BusyError, EngineSettings
from risen_plugin.errors import DataError, ExportError

pytest.importorskip("onnxruntime_genai")


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 250, length).tolist())


@pytest.fixture(scope="module")
def bundle(tied_bundle: Path) -> Path:
    return tied_bundle / "fp32"


@pytest.fixture(scope="module")
def theirs(bundle: Path) -> GenaiEngine:
    return GenaiEngine.open(bundle, settings=EngineSettings(rows=4, waiting=8))


def test_greedy_answers_are_those_of_the_other_engine(bundle: Path, theirs: GenaiEngine) -> None:
    asked = [Request(prompt(n, 5 + 3 * n), 6 + n) for n in range(7)]
    asked.append(Request(prompt(20, 9), 12, n=2))
    expected = Engine.open(bundle, settings=EngineSettings(rows=4)).run(asked)
    assert theirs.run(asked) == expected
    assert not theirs.busy
    stats = theirs.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.written == sum(len(one.ids) for answers in expected for one in answers)


def test_answers_end_at_tokens_and_texts(bundle: Path, theirs: GenaiEngine) -> None:
    ids = prompt(8, 10)
    ours = Engine.open(bundle, settings=EngineSettings(rows=4))
    whole = ours.run([Request(ids, 12)])[0][0]
    token = next(one for one in whole.ids[2:] if one not in whole.ids[:2])
    text = ours.tokenizer.decode([token])
    stops: list[dict[str, Any]] = [{"stop_ids": frozenset({token})}]
    if text.isprintable():
        stops.append({"stop": (text,)})
    for more in stops:
        asked = [Request(ids, 12, **more)]
        assert theirs.run(asked) == ours.run(asked)


def test_answers_are_drawn(theirs: GenaiEngine) -> None:
    one = Request(prompt(1, 9), 16, Sampling(), n=2, ignore_eos=True)
    first, other = theirs.run([one])[0]
    assert first.ids != other.ids
    assert (len(first.ids), first.finish) == (16, "length")


def test_a_seed_is_refused_on_a_cpu_and_leaves_nothing_behind(theirs: GenaiEngine) -> None:
    with pytest.raises(DataError, match=r"refuses the request: .*seed") as refused:
        theirs.submit(Request(prompt(1, 9), 4, Sampling(seed=7), n=2))
    assert "\n" not in str(refused.value)
    assert not theirs.busy
    assert len(theirs.run([Request(prompt(1, 9), 4, ignore_eos=True)])[0][0].ids) == 4


def test_a_request_is_cancelled_while_others_go_on(theirs: GenaiEngine) -> None:
    first, second = (theirs.submit(Request(prompt(n, 9), 10, ignore_eos=True)) for n in (3, 4))
    theirs.step()
    theirs.cancel(first)
    theirs.cancel(1234)
    pieces = []
    while theirs.busy:
        pieces += theirs.step()
    ends = {piece.request: piece.finish for piece in pieces if piece.finish}
    assert ends == {first: "cancelled", second: "length"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"adapter": "mine"}, "has no adapters; use the other one"),
        ({"sampling": Sampling(logprobs=0)}, "has no log-probabilities"),
        ({"sampling": Sampling(min_p=0.1, presence_penalty=1)}, "no min_p and no presence_penalty"),
        ({"ids": (9999,)}, "the prompt has token 9999"),
        ({"ids": prompt(1, 256)}, "leaves no room for an answer"),
    ],
)
def test_what_it_does_not_have_is_refused(
    theirs: GenaiEngine, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        theirs.submit(Request(**{"ids": prompt(1, 5), **more}))
    assert not theirs.busy


def test_it_takes_no_adapters_and_no_more_than_may_wait(theirs: GenaiEngine) -> None:
    with pytest.raises(ExportError, match="takes no adapters such as 'mine'"):
        theirs.load_adapter("mine", {})
    with pytest.raises(DataError, match="no adapter 'mine'"):
        theirs.remove_adapter("mine")
    assert theirs.adapters == {}
    with pytest.raises(BusyError, match="try again later"):
        theirs.submit(Request(prompt(1, 5), 2, n=13))


def test_the_engine_is_chosen_by_its_kind(bundle: Path) -> None:
    assert isinstance(open_engine(bundle), Engine)
    assert isinstance(open_engine(bundle, kind="auto"), Engine)
    assert isinstance(open_engine(bundle.parent, "fp32", kind="genai"), GenaiEngine)
    with pytest.raises(DataError, match="no engine 'other'"):
        open_engine(bundle, kind="other")  # type: ignore[arg-type]
