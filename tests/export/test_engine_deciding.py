"""What an engine decides: the next token, who runs where, which text is certain."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risen_export.engine import sampling, scheduler
from risen_export.engine.requests import GREEDY, Request, Sampling
from risen_export.engine.scheduler import Place, Slot
from risen_export.engine.settings import EngineSettings, room
from risen_export.engine.text import TextStream
from risen_plugin.errors import DataError

# Drawing -----------------------------------------------------------------------------------------


def logits_of(rows: int, size: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 2, (rows, size)).astype(np.float32)


def draw(logits: Any, kinds: list[Sampling], uniforms: Any) -> list[int]:
    tokens: list[int] = sampling.Sampler().draw(logits, kinds, list(uniforms)).tokens.tolist()
    return tokens


def softmax(logits: Any, temperature: float = 1.0) -> Any:
    scaled = logits.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_greedy_takes_the_likeliest_and_the_lowest_among_equals() -> None:
    logits = np.array([[0, 3, 3], [5, 1, 1]], np.float32)
    assert draw(logits, [GREEDY, GREEDY], [0, 0]) == [1, 0]


@pytest.mark.parametrize("size", [7, 256, 300, 1000])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_a_uniform_number_picks_the_token_where_the_sum_passes_it(
    size: int, temperature: float
) -> None:
    logits = logits_of(1, size)
    ends = softmax(logits, temperature)[0].cumsum()
    uniforms = np.random.default_rng(1).random(200)
    one = Sampling(temperature=temperature)
    drawn = [draw(logits, [one], [u])[0] for u in uniforms]
    expected = np.searchsorted(ends, uniforms, side="right")
    # Sums in float32 move an end by about 1e-7, which 200 numbers do not fall upon.
    assert drawn == expected.tolist()


def test_draws_follow_the_softmax() -> None:
    """Chi-square with 49 degrees of freedom: 95 is passed by chance once in 10,000 times."""
    logits = logits_of(1, 50)
    count = 20_000
    uniforms = np.random.default_rng(2).random(count)
    one = Sampling(temperature=1.3)
    drawn = draw(np.repeat(logits, count, 0), [one] * count, uniforms)
    expected = softmax(logits, 1.3)[0] * count
    found = np.bincount(drawn, minlength=50)
    assert float(((found - expected) ** 2 / expected).sum()) < 95


def kept_by_hand(logits: Any, one: Sampling) -> set[int]:
    """What top-k, top-p and min-p leave, written down as they are defined."""
    p = softmax(logits, one.temperature)
    order = sorted(range(len(p)), key=lambda token: (-p[token], token))
    order = order[: one.top_k or None]
    total, held, left = sum(p[token] for token in order), 0.0, []
    for token in order:
        if held >= one.top_p * total - 1e-9 and left:
            break
        held += p[token]
        left.append(token)
    return {token for token in left if p[token] >= one.min_p * p[left[0]] - 1e-12}


@pytest.mark.parametrize(
    "one",
    [
        Sampling(top_k=3),
        Sampling(top_k=1),
        Sampling(top_p=0.4),
        Sampling(top_p=0.99, temperature=3.0),
        Sampling(min_p=0.2),
        Sampling(top_k=20, top_p=0.8, min_p=0.05, temperature=2.0),
    ],
)
@pytest.mark.parametrize("size", [40, 1500])
def test_top_k_top_p_and_min_p_leave_out_what_they_say(one: Sampling, size: int) -> None:
    logits = logits_of(1, size, seed=3)
    uniforms = np.linspace(0, 0.999_999, 400)
    drawn = {draw(logits, [one], [u])[0] for u in uniforms}
    allowed = kept_by_hand(logits[0], one)
    assert drawn <= allowed
    if len(allowed) < 20:
        assert drawn == allowed


def test_top_p_holds_where_thousands_of_tokens_are_alike() -> None:
    """So flat that neither the first 512 nor the first 4,096 tokens hold the share."""
    logits = np.random.default_rng(4).normal(0, 0.3, (1, 9000)).astype(np.float32)
    ordered = np.sort(softmax(logits)[0])[::-1]
    kept = int(np.searchsorted(ordered.cumsum(), 0.9)) + 1
    assert kept > 4096
    one = Sampling(top_p=0.9)
    last = draw(logits, [one], [0.999_999_9])[0]
    assert int((logits[0] > logits[0, last]).sum()) == pytest.approx(kept - 1, abs=2)


def test_rows_of_every_kind_are_drawn_together_as_alone() -> None:
    logits = logits_of(4, 700, seed=4)
    kinds = [GREEDY, Sampling(), Sampling(top_p=0.5), Sampling(temperature=0.3)]
    uniforms = [0.0, 0.3, 0.6, 0.9]
    together = draw(logits, kinds, uniforms)
    alone = [draw(logits[line : line + 1], [kinds[line]], [uniforms[line]])[0] for line in range(4)]
    assert together == alone


def test_penalties_change_what_they_say() -> None:
    logits = np.array([2.0, -2.0, 1.0, 0.5], np.float32)
    one = Sampling(
        repetition_penalty=2.0, frequency_penalty=0.25, presence_penalty=0.5, logit_bias={3: 4.0}
    )
    changed = sampling.changed(logits, one, [1], [0, 0])
    assert changed.tolist() == pytest.approx([2.0 / 2 - 0.25 * 2 - 0.5, -4.0, 1.0, 4.5])
    assert sampling.changed(logits, GREEDY, [1], [0]) is logits


def test_log_probabilities_are_those_of_the_whole_softmax() -> None:
    logits = logits_of(2, 1000, seed=5)
    totals = sampling.totals_of(logits)
    expected = np.log(softmax(logits))
    one = sampling.logprob_of(logits[0], 1.0, totals[0], 5, 0)
    assert one.logprob == pytest.approx(expected[0, 5], abs=1e-5)
    assert one.likeliest == ()
    best = np.argsort(-expected[1])[:3].tolist()
    likeliest = sampling.logprob_of(logits[1], 1.0, totals[1], 17, 3).likeliest
    assert [token for token, _ in likeliest] == best
    assert likeliest[0][1] == pytest.approx(expected[1].max(), abs=1e-5)


def test_what_drawing_sums_up_is_the_total_of_the_scaled_logits() -> None:
    logits = logits_of(3, 300, seed=6)
    kinds = [Sampling(0.5), GREEDY, Sampling(2.0, top_k=4)]
    totals = sampling.Sampler().draw(logits, kinds, [0.1, 0, 0.9]).totals
    assert totals[0] == pytest.approx(sampling.totals_of(logits[:1] / 0.5)[0], abs=1e-5)
    assert np.isnan(totals[1])
    assert totals[2] == pytest.approx(sampling.totals_of(logits[2:] / 2.0)[0], abs=1e-5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": 0}, "top_p cannot be 0"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"logprobs": 10_000}, "logprobs"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_what_is_no_sampling_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Sampling(**wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ids": ()}, "the prompt is empty"),
        ({"n": 0}, "n is 0"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"stop": ("",)}, "cannot be empty"),
        ({"stop": ("x",), "text": False}, "need text=True"),
    ],
)
def test_what_is_no_request_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Request(**{"ids": (1,), **wrong})


# Rows and slots ----------------------------------------------------------------------------------


@dataclass
class Waiting:
    ids: list[int]
    computed: int = 0
    slot: int = -1
    key: Any = None


def held(ids: list[int], key: Any = None, row: Waiting | None = None, used: int = 0) -> Slot:
    return Slot(list(ids), key, row, used)


READ = Waiting([1, 2, 3], computed=3)


@pytest.mark.parametrize(
    ("slots", "row", "expected"),
    [
        # an empty slot before one whose tokens may be of use
        ([held([9, 9]), Slot()], [1, 2], Place(1, 1, 0)),
        # what a free slot holds is used where it lies
        ([Slot(), held([1, 2, 3, 4])], [1, 2, 3, 9], Place(1, 1, 3)),
        # what another row has read is copied
        ([held([1, 2, 3], row=READ), Slot()], [1, 2, 3, 9], Place(1, 0, 3)),
        # the last token is read again, since its logits are wanted
        ([Slot(), held([1, 2, 3])], [1, 2, 3], Place(1, 1, 2)),
        # tokens read with another adapter are no use
        ([held([1, 2, 3], key=("a", 1)), Slot()], [1, 2, 3], Place(1, 1, 0)),
        # all are taken
        ([held([1], row=READ)], [1, 2], None),
        # the one that was used longest ago is given up
        ([held([5], used=7), held([6], used=3)], [1, 2], Place(1, 1, 0)),
    ],
)
def test_where_a_row_begins(slots: list[Slot], row: list[int], expected: Place | None) -> None:
    assert scheduler.place(slots, Waiting(row), share=True) == expected


def test_a_row_waits_for_another_that_is_reading_the_same_beginning() -> None:
    reading = Waiting([*range(40)], computed=8)
    slots = [held([*range(8)], row=reading), Slot()]
    assert scheduler.place(slots, Waiting([*range(40), 7]), share=True) is None
    other = Waiting([*range(9), *range(100, 140)])
    assert scheduler.place(slots, other, share=True) == Place(1, 0, 8)
    assert scheduler.place(slots, Waiting([*range(40)]), share=False) == Place(1, 0, 0)


def test_prompts_are_read_in_order_and_no_last_token_is_left_over() -> None:
    rows = [Waiting([*range(10)]), Waiting([*range(6)], computed=5), Waiting([*range(8)])]
    assert [(c.row, c.stop) for c in scheduler.chunks(rows, 9)] == [(rows[0], 10)]
    assert [(c.row, c.stop) for c in scheduler.chunks(rows, 12)] == [(rows[0], 10), (rows[2], 2)]
    assert [c.stop for c in scheduler.chunks(rows, 4)] == [4]


@given(st.sets(st.integers(0, 12), max_size=8))
def test_after_the_exchanges_those_who_take_a_step_lie_first(taking: set[int]) -> None:
    slots = list(range(13))
    for one, other in scheduler.swaps(taking):
        slots[one], slots[other] = slots[other], slots[one]
    assert set(slots[: len(taking)]) == taking


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=12))
def test_the_common_beginning(one: list[int], other: list[int]) -> None:
    expected = next(
        (i for i in range(min(len(one), len(other))) if one[i] != other[i]),
        min(len(one), len(other)),
    )
    assert scheduler.common(one, other, 100) == expected
    assert scheduler.common(one, other, 2) == min(expected, 2)


# Memory ------------------------------------------------------------------------------------------


def test_the_context_is_cut_to_the_memory_unless_it_was_asked_for() -> None:
    assert room(EngineSettings(rows=4, memory=4 * 1000 * 100), 8192, 100, "B") == 1000
    assert room(EngineSettings(rows=4), 512, 100, "B") == 512
    with pytest.raises(DataError, match=r"4 answers of 2000 tokens take .* at most 1000 tokens"):
        room(EngineSettings(rows=4, memory=4 * 1000 * 100, context=2000), 8192, 100, "B")
    with pytest.raises(DataError, match="B reads at most 512 tokens"):
        room(EngineSettings(context=1000), 512, 100, "B")
    with pytest.raises(DataError, match="leave 10 tokens"):
        room(EngineSettings(rows=1, memory=1000), 512, 100, "B")


def test_little_memory_is_not_said_to_be_none_and_what_would_do_is_named() -> None:
    with pytest.raises(
        DataError, match=r"^1 KiB of .* leave 0 tokens .* take 45 MiB, are the least"
    ):
        room(EngineSettings(memory=1024), 8192, 46080, "B")
    with pytest.raises(DataError, match=r"take 1\.6 KiB of .*, and 1000 bytes are allowed"):
        room(EngineSettings(rows=1, memory=1000, context=16), 512, 100, "B")
    assert room(EngineSettings(memory=45 * 2**20), 8192, 46080, "B") == 64


# Text --------------------------------------------------------------------------------------------


@dataclass
class Words:
    """A tokenizer whose token N is the Nth byte string, decoded as UTF-8."""

    pieces: list[bytes] = field(default_factory=list)

    def decode(self, ids: Any) -> str:
        return b"".join(self.pieces[one] for one in ids).decode("utf-8", errors="replace")


def stream_of(pieces: list[bytes], stops: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    words = Words(pieces)
    stream = TextStream(words.decode, stops)
    given_out = []
    for token in range(len(pieces)):
        given_out.append(stream.add(token))
        if stream.stopped:
            return given_out, stream
    given_out.append(stream.end())
    return given_out, stream


def test_a_character_of_several_tokens_comes_when_it_is_whole() -> None:
    euro = "€".encode()
    given_out, _ = stream_of([b"a", euro[:1], euro[1:2], euro[2:], b"b"])
    assert given_out == ["a", "", "", "€", "b", ""]


def test_an_answer_ends_before_its_stop_text() -> None:
    given_out, stream = stream_of([b"one E", b"N", b"D two"], ("END",))
    assert given_out == ["one ", "", ""]
    assert stream.text == "one "
    given_out, stream = stream_of([b"one E", b"NT"], ("END",))
    assert given_out == ["one ", "ENT", ""]


@settings(max_examples=200)
@given(
    st.text(alphabet="abé€", max_size=12),
    st.lists(st.text(alphabet="ab€", min_size=1, max_size=3), max_size=2),
    st.data(),
)
def test_the_pieces_are_the_text_up_to_the_first_stop(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=5)) | {0, len(raw)})
    pieces = [raw[a:b] for a, b in itertools.pairwise(cuts)]
    given_out, stream = stream_of(pieces, tuple(stops))
    # The first stop is the one that is whole first, not the one that begins first.
    so_far = [raw[:end].decode(errors="replace") for end in cuts]
    whole = [one for one in so_far if not one.endswith("\N{REPLACEMENT CHARACTER}")]
    first = next((one for one in whole if any(stop in one for stop in stops)), text)
    ends = [at for stop in stops if (at := first.find(stop)) >= 0]
    assert "".join(given_out) == stream.text == text[: min(ends, default=len(text))]
