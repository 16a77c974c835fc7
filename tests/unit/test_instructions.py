"""What the guard decides by, what is reported and what is trained on never overlap."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risen_plugin.config import CurriculumConfig
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, DataError
from risen_plugin.instructions.rows import PromptLimit, derived_seed, key_of
from risen_plugin.instructions.supply import Instructions
from risen_plugin.plugins.offers import Built
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.calling import NamedReward, wrap

Make = Callable[..., Iterable[Row]]
PATIENCE = 20


def numbered(size: int) -> Make:
    """An ordered supply of ``size`` prompts that is gone through again and again."""

    def make(*, count: int, seed: int, start: int = 0, **context: Any) -> list[Row]:
        return [{"prompt": f"p{i % size}"} for i in range(start, start + count)]

    return make


def drawn_from(size: int) -> Make:
    """Draws with replacement from ``size`` prompts."""

    def make(*, count: int, seed: int, **context: Any) -> list[Row]:
        rng = random.Random(seed)
        return [{"prompt": f"p{rng.randrange(size)}"} for _ in range(count)]

    return make


def of(*rows: Row) -> Make:
    """These rows, in this order, again and again."""

    def make(*, count: int, seed: int, start: int = 0, **context: Any) -> list[Row]:
        return [rows[i % len(rows)] for i in range(start, start + count)]

    return make


class Walking:
    """A supply that keeps its place itself."""

    def __init__(self) -> None:
        self.place = 0

    def __call__(self, *, count: int, seed: int, **context: Any) -> list[Row]:
        self.place += count
        return [{"prompt": f"p{i}"} for i in range(self.place - count, self.place)]

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def instructions(
    make: Make, held_out: Make | None = None, *, needs: tuple[str, ...] = (), **settings: Any
) -> Instructions:
    def reward(**columns: Any) -> list[float]:
        return []

    reward.needs = needs  # type: ignore[attr-defined]
    generator = Built(make, "mine", "generator 'mine' (me)")
    other = generator if held_out is None else Built(held_out, "other", "generator 'other' (me)")
    rewards: tuple[NamedReward, ...] = (wrap(reward, "reward", "reward 'reward' (me)"),)
    return Instructions(generator, other, rewards, **{"seed": 0, **settings})


def prompts(rows: Iterable[Row]) -> list[str]:
    return [row["prompt"] for row in rows]


# Setting apart


@settings(deadline=None)  # a supply that has run dry is asked for thousands of rows
@given(
    size=st.integers(1, 60),
    guard=st.integers(1, 20),
    report=st.integers(0, 20),
    count=st.integers(1, 30),
    supply=st.sampled_from([numbered, drawn_from]),
    seed=st.integers(0, 9),
)
def test_guard_report_and_training_rows_are_disjoint_or_refused(
    size: int, guard: int, report: int, count: int, supply: Callable[[int], Make], seed: int
) -> None:
    rows = instructions(supply(size), seed=seed)
    try:
        rows.set_apart(guard, report)
    except DataError:
        assert size <= guard + report
        return
    assert size > guard + report
    assert (len(rows.held_out.guard), len(rows.held_out.report)) == (guard, report)
    trained = [prompt for _ in range(4) for prompt in prompts(rows.next(count, {}))]
    assert len(trained) == 4 * count
    held_out = prompts(rows.held_out.guard + rows.held_out.report)
    assert len(set(held_out)) == guard + report
    assert set(held_out).isdisjoint(trained)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (
            5,
            "generator 'mine' (me) offers 5 different instructions, but guard.rows and "
            "guard.report_rows set 6 apart; lower them, or give more instructions",
        ),
        (
            6,
            "generator 'mine' (me) offers no instruction beside the 6 that are held out; lower "
            "guard.rows and guard.report_rows, or give more instructions",
        ),
    ],
)
def test_too_few_instructions_are_refused_when_they_are_set_apart(size: int, said: str) -> None:
    with pytest.raises(DataError) as caught:
        instructions(numbered(size)).set_apart(4, 2)
    assert str(caught.value) == said


def test_held_out_rows_may_come_from_a_generator_of_their_own() -> None:
    rows = instructions(numbered(9), held_out=numbered(4))
    rows.set_apart(2, 2)
    assert prompts(rows.held_out.guard + rows.held_out.report) == ["p0", "p1", "p2", "p3"]
    assert prompts(rows.next(5, {})) == ["p4", "p5", "p6", "p7", "p8"]


def test_too_few_held_out_instructions_name_their_generator() -> None:
    with pytest.raises(DataError, match=r"generator 'other' .* offers 3 different instructions"):
        instructions(numbered(9), held_out=numbered(3)).set_apart(2, 2)


@pytest.mark.parametrize("seed", range(8))
def test_instructions_are_found_however_seldom_they_are_drawn(seed: int) -> None:
    rows = instructions(drawn_from(150), seed=seed)
    rows.set_apart(129, 20)
    [left] = {f"p{i}" for i in range(150)} - {
        *prompts(rows.held_out.guard),
        *prompts(rows.held_out.report),
    }
    assert prompts(rows.next(3, {})) == [left] * 3


def test_a_supply_that_has_run_dry_is_not_asked_for_ever() -> None:
    asked = []

    def dry(*, count: int, seed: int, start: int = 0, **context: Any) -> list[Row]:
        asked.append(count)
        return [{"prompt": "p0"}] if start == 0 else []

    with pytest.raises(DataError, match="offers 1 different instructions"):
        instructions(dry).set_apart(2, 0)
    assert len(asked) <= PATIENCE + 1


def test_chat_prompts_are_told_apart_by_their_content() -> None:
    def chat(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}]

    assert key_of(chat("a")) == key_of([{"content": "a", "role": "user"}])
    assert len({key_of(chat("a")), key_of(chat("b")), key_of("a")}) == 3
    assert key_of([{"role": "user", "content": [b"bytes"]}])  # whatever a template can show


# Training rows


@pytest.mark.parametrize(("size", "guard", "report"), [(400, 300, 60), (80, 20, 10), (32, 8, 4)])
def test_of_a_small_supply_a_quarter_is_set_apart_where_the_guard_takes_what_there_is(
    size: int, guard: int, report: int
) -> None:
    rows = instructions(numbered(size))
    held_out = rows.set_apart(300, 60, as_there_are=True)
    assert (len(held_out.guard), len(held_out.report)) == (guard, report)
    with pytest.raises(DataError, match="offers 31 different instructions"):
        instructions(numbered(31)).set_apart(300, 60, as_there_are=True)


def test_an_ordered_supply_goes_on_after_the_rows_set_apart() -> None:
    rows = instructions(numbered(10))
    rows.set_apart(2, 1)
    assert prompts(rows.next(3, {})) == ["p3", "p4", "p5"]
    assert prompts(rows.next(3, {})) == ["p6", "p7", "p8"]


def test_a_small_supply_is_gone_through_again_without_what_is_held_out() -> None:
    rows = instructions(numbered(5))
    rows.set_apart(2, 1)
    assert prompts(rows.next(5, {})) == ["p3", "p4", "p3", "p4", "p3"]


def test_one_row_beside_the_held_out_ones_fills_a_batch() -> None:
    def once(*, count: int, seed: int, start: int = 0, **context: Any) -> list[Row]:
        return [{"prompt": f"p{i}"} for i in range(start, min(start + count, 3))]

    rows = instructions(once)
    rows.set_apart(1, 1)
    assert prompts(rows.next(4, {})) == ["p2"] * 4


def test_a_generator_is_told_the_pass_rates_and_how_far_the_run_is() -> None:
    seen: list[dict[str, Any]] = []

    def make(*, count: int, seed: int, **context: Any) -> list[Row]:
        seen.append({"seed": seed, **context})
        return [{"prompt": f"p{context['start'] + i}"} for i in range(count)]

    rows = instructions(make, seed=3)
    rows.set_apart(1, 1)
    rows.next(4, {"easy": 0.9})
    rows.next(4, {"easy": 1.0})
    *_, first, second = seen
    assert (first["pass_rates"], second["pass_rates"]) == ({"easy": 0.9}, {"easy": 1.0})
    assert (first["start"], second["start"]) == (2, 6)
    assert {call["run_seed"] for call in seen} == {3}
    assert len({call["seed"] for call in seen[-2:]}) == 2


def test_looking_whether_anything_is_left_takes_nothing() -> None:
    supply = Walking()
    rows = instructions(supply)
    rows.set_apart(2, 2)
    assert supply.place == 4
    assert rows.state_dict() == {"draws": 0, "drawn": 4}
    assert prompts(rows.next(2, {})) == ["p4", "p5"]


# Across checkpoints


@settings(deadline=None)
@given(
    before=st.lists(st.integers(1, 7), max_size=4),
    after=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    supply=st.sampled_from([numbered(40), drawn_from(400)]),
)
def test_a_resumed_run_sets_the_same_rows_apart_and_draws_on_where_it_was(
    before: list[int], after: list[int], supply: Make
) -> None:
    first = instructions(supply)
    first.set_apart(3, 2)
    for count in before:
        first.next(count, {})
    saved = json.loads(json.dumps(first.state_dict()))

    resumed = instructions(supply)
    resumed.set_apart(3, 2)
    resumed.load_state_dict(saved)

    assert (resumed.held_out.guard, resumed.held_out.report) == (
        first.held_out.guard,
        first.held_out.report,
    )
    assert [resumed.next(n, {}) for n in after] == [first.next(n, {}) for n in after]


def test_seeds_depend_on_the_run_and_on_what_they_are_for() -> None:
    assert derived_seed(0, "train", 1) == derived_seed(0, "train", 1)
    kinds: list[tuple[int, *tuple[object, ...]]] = [
        (0, "train", 1),
        (1, "train", 1),
        (0, "train", 2),
        (0, "held out", 1),
        (0, "train1"),
    ]
    seeds = {derived_seed(seed, *what) for seed, *what in kinds}
    assert len(seeds) == len(kinds)
    assert all(0 <= seed < 2**31 for seed in seeds)


# Checks of every row


def limited(supply: Make) -> Instructions:
    """Instructions of at most 20 characters, each counted as a token."""
    rows = instructions(supply)
    rows.begin(limit=PromptLimit(20, len))
    return rows


TOO_LONG = (
    "a prompt of 135 tokens ('much too long much too long much too long much too long much'...); "
    "beside grpo.max_completion_length this model's context leaves 20; shorten the prompt, or "
    "lower that"
)


def test_a_prompt_that_the_context_does_not_hold_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    long = {"prompt": "much\ntoo  long " * 9}
    supply = of({"prompt": "a"}, long, {"prompt": "b"}, {"prompt": "c"}, long)
    rows = limited(supply)
    held_out = rows.set_apart(2, 0)
    assert prompts(held_out.guard) == ["a", "b"]
    assert prompts(rows.next(2, {})) == ["c", "c"]
    assert rows.figures()["too_long"] > 1
    assert [record.message for record in caplog.records] == [  # said once
        f"instructions that are too long are passed over, such as {TOO_LONG}. The generators "
        "'constraints' and 'evolve' leave them out by longest=, in characters"
    ]


def test_no_prompt_that_fits_is_refused_with_the_longest_one() -> None:
    rows = limited(of({"prompt": "x" * 21}, {"prompt": "much\ntoo  long " * 9}))
    with pytest.raises(DataError) as caught:
        rows.set_apart(1, 0)
    assert str(caught.value) == (
        "generator 'mine' (me) offers 0 different instructions, but guard.rows and "
        "guard.report_rows set 1 apart; lower them, or give more instructions. It also made "
        f"{TOO_LONG}"
    )


def test_a_row_of_the_pool_that_a_phase_has_no_room_for_is_passed_over() -> None:
    supply = of(*({"prompt": letter * size} for letter in "abcdef" for size in (4, 12)))
    rows = instructions(supply, curriculum=CurriculumConfig(initial=12))
    rows.begin(limit=PromptLimit(20, len))
    rows.set_apart(1, 0)
    assert {len(text) for text in prompts(rows.next(8, {}))} == {4, 12}
    assert {len(text) for text in prompts(rows.next(8, {}, longest=10))} == {4}


def test_a_small_supply_is_soon_known_to_be_too_small_and_each_prompt_is_counted_once() -> None:
    counted: list[str] = []

    def count(prompt: str) -> int:
        counted.append(prompt)
        return len(prompt)

    rows = instructions(of(*({"prompt": f"{number}"} for number in range(80))))
    rows.begin(limit=PromptLimit(20, count))
    with pytest.raises(
        DataError, match=r"offers 80 different instructions, but .* set 100000 apart"
    ):
        rows.set_apart(100_000, 0)
    assert len(counted) == 80


def test_a_run_where_all_are_short_has_no_figure_of_long_ones() -> None:
    rows = limited(of({"prompt": "a"}, {"prompt": "b"}))
    rows.set_apart(1, 0)
    rows.next(1, {})
    assert "too_long" not in rows.figures()


def test_a_prompt_that_just_fits_is_taken() -> None:
    supply = of({"prompt": "a" * 20}, {"prompt": "b" * 20})
    rows = limited(supply)
    rows.set_apart(1, 0)
    assert prompts(rows.next(1, {})) == ["b" * 20]


def test_a_phase_may_leave_less_room_for_prompts_than_the_run() -> None:
    rows = limited(of({"prompt": "a" * 12}, {"prompt": "b" * 12}))
    rows.set_apart(1, 0)
    with pytest.raises(DataError, match=r"made a prompt of 12 tokens.* context leaves 10;"):
        rows.next(1, {}, longest=10)
    assert prompts(rows.next(1, {})) == ["b" * 12]


def test_rows_with_different_columns_are_made_alike() -> None:
    supply = of({"prompt": "a", "x": 1}, {"prompt": "b", "y": 2})
    rows = instructions(supply)
    rows.set_apart(1, 0)
    assert rows.next(1, {}) == [{"prompt": "b", "y": 2}]
    rows = instructions(of({"prompt": "a"}, *({"prompt": n, n: 1} for n in "bc")))
    rows.set_apart(1, 0)
    assert rows.next(2, {}) == [
        {"prompt": "b", "b": 1, "c": None},
        {"prompt": "c", "b": None, "c": 1},
    ]


def test_an_empty_column_of_images_does_not_reach_trl() -> None:
    rows = instructions(of(*({"prompt": text, "image": None, "images": []} for text in "ab")))
    rows.set_apart(1, 0)
    assert rows.next(1, {}) == [{"prompt": "b"}]


@pytest.mark.parametrize("column", ["image", "images"])
def test_a_row_with_an_image_is_refused(column: str) -> None:
    rows = instructions(of({"prompt": "a"}, {"prompt": "b", column: ["b.png"]}))
    with pytest.raises(DataError, match=f"made row 1 with an image in the column '{column}'"):
        rows.set_apart(2, 0)


def test_a_row_cut_off_in_the_middle_of_a_character_is_refused() -> None:
    rows = instructions(of({"prompt": "a"}, {"prompt": "b", "city": ["\ud83d"]}))
    with pytest.raises(DataError, match=r"made row 1: column 'city' has half of a character"):
        rows.set_apart(2, 0)


def test_a_later_row_that_lacks_a_needed_column_is_refused() -> None:
    supply = of({"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}, {"prompt": "c"})
    rows = instructions(supply, needs=("answer",))
    rows.set_apart(1, 0)
    with pytest.raises(DataError, match="needs the column 'answer', which rows of generator 'mi"):
        rows.next(2, {})


def test_constraints_that_rows_lack_are_made_by_a_generator_that_is_named() -> None:
    rows = instructions(of({"prompt": "a"}, {"prompt": "b"}), needs=("instruction_id_list",))
    with pytest.raises(DataError, match="to plain prompts \\(--generator constraints"):
        rows.set_apart(1, 0)


# Reserved families


def in_families(*families: str, ids: dict[str, list[str]] | None = None) -> Make:
    """Rows of these families in turn, without an end."""

    def make(*, count: int, seed: int, start: int = 0, **context: Any) -> list[Row]:
        return [
            {
                "prompt": f"p{i}",
                "family": families[i % len(families)],
                "instruction_id_list": (ids or {}).get(families[i % len(families)], []),
            }
            for i in range(start, start + count)
        ]

    return make


def families(rows: Iterable[Row]) -> set[str]:
    return {row["family"] for row in rows}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("curriculum", [None, CurriculumConfig(initial=20)])
def test_reserved_families_are_measured_and_never_trained_on(
    seed: int, curriculum: CurriculumConfig | None
) -> None:
    rows = instructions(in_families("a", "b", "c"), seed=seed, reserve=1, curriculum=curriculum)
    rows.set_apart(4, 3)
    assert len(rows.held_out.reserved) == 1
    assert families(rows.held_out.unseen) == rows.held_out.reserved
    assert len(rows.held_out.unseen) == len(rows.held_out.report) == 3
    trained = families(row for _ in range(9) for row in rows.next(5, {}))
    assert (
        trained
        == families(rows.held_out.guard)
        == families(rows.held_out.report)
        == {*"abc"} - rows.held_out.reserved
    )


def test_which_family_is_reserved_follows_the_seed() -> None:
    chosen = set()
    for seed in range(12):
        rows = instructions(in_families("a", "b", "c"), seed=seed, reserve=1)
        rows.set_apart(1, 1)
        chosen |= rows.held_out.reserved
    assert chosen == {"a", "b", "c"}


def test_a_row_belongs_to_the_families_of_all_its_constraints() -> None:
    mixed = {"b": ["keywords:existence", "startend:quotation"]}
    rows = instructions(in_families("a", "b", ids=mixed), reserve=["startend"])
    rows.set_apart(2, 2)
    assert families(rows.held_out.unseen) == {"b"}
    assert families(rows.next(9, {})) == {"a"}


@pytest.mark.parametrize(
    "make", [numbered(99), in_families("only")], ids=["no families", "one family"]
)
def test_a_number_reserves_nothing_where_nothing_else_would_be_left(make: Make) -> None:
    rows = instructions(make, reserve=2)
    rows.set_apart(2, 2)
    assert (rows.held_out.reserved, rows.held_out.unseen) == (frozenset(), [])
    assert len(rows.next(3, {})) == 3


FOUR = {
    "a": ["keywords:existence"],
    "b": ["startend:quotation"],
    "c": ["punctuation:no_comma"],
    "d": ["change_case:english_capital"],
}


def test_unasked_one_family_of_constraints_is_reserved() -> None:
    chosen = set()
    for seed in range(24):
        rows = instructions(in_families(*FOUR, ids=FOUR), seed=seed, reserve=None)
        rows.set_apart(4, 4)
        [family] = rows.held_out.reserved
        chosen.add(family)
        assert {id_ for row in rows.next(20, {}) for id_ in row["instruction_id_list"]} == {
            id_ for ids in FOUR.values() for id_ in ids if not id_.startswith(family)
        }
        assert len(rows.held_out.unseen) == 4
    assert chosen == {"keywords", "startend", "punctuation", "change_case"}


@pytest.mark.parametrize(
    ("make", "report_rows"),
    [
        pytest.param(in_families("a", "b", "c", "d"), 4, id="families, but not of constraints"),
        pytest.param(in_families(*"abc", ids=FOUR), 4, id="three families of constraints"),
        pytest.param(in_families(*FOUR, ids=FOUR), 0, id="nothing is reported"),
        pytest.param(
            in_families(*"ab", ids={key: [*chain(*FOUR.values())] for key in "ab"}),
            4,
            id="each row has them all",
        ),
        pytest.param(
            of(*(row for row in in_families(*FOUR, ids=FOUR)(count=9, seed=0))),
            4,
            id="too few rows to spare any",
        ),
    ],
)
def test_unasked_nothing_is_reserved_where_it_would_cost_too_much(
    make: Make, report_rows: int
) -> None:
    rows = instructions(make, reserve=None)
    rows.set_apart(8 - report_rows, report_rows)
    assert (rows.held_out.reserved, rows.held_out.unseen) == (frozenset(), [])
    assert len(rows.next(3, {})) == 3


@pytest.mark.parametrize(
    ("reserve", "said"),
    [
        (["aa"], "reserve names the family 'aa', which no row of generator 'mine' .* has"),
        (["a", "b"], "reserve leaves no family to train on; rows of .* have a, b"),
    ],
)
def test_families_that_cannot_be_reserved_are_named(reserve: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        instructions(in_families("a", "b"), reserve=reserve).set_apart(1, 1)


def test_a_generator_is_told_what_is_reserved_and_how_levels_go() -> None:
    seen: list[dict[str, Any]] = []

    def make(*, count: int, seed: int, start: int = 0, **context: Any) -> list[Row]:
        seen.append(context)
        return list(in_families("a", "b")(count=count, seed=seed, start=start))

    pooled = CurriculumConfig(initial=4, refill=2, refill_every=1)
    rows = instructions(make, reserve=["b"], curriculum=pooled)
    rows.set_apart(1, 1)
    drawn = rows.next(2, {"a": 0.25})
    answered(rows, prompts(drawn), [True, True])
    rows.next(2, {"a": 0.5})
    assert seen[-1]["reserved"] == ["b"]
    assert seen[-1]["pass_rates"] == {"a": 0.5}
    assert seen[-1]["pool_rates"]["a"] > 0.5
    assert seen[-1]["level_rates"]["0"] > 0.5


# The curriculum's pool


def answered(rows: Instructions, asked: Sequence[Any], passed: Sequence[bool]) -> None:
    """A batch of answers, of which these passed."""
    reward = wrap(lambda **_: [], "right", "reward 'right'")
    scores = {"right": [float(right) for right in passed]}
    rows.take(Batch(1, asked, [""] * len(asked), {}, scores, [reward]))


def test_the_pool_is_filled_and_refilled_from_the_generator_without_what_is_held_out() -> None:
    rows = instructions(
        numbered(50), curriculum=CurriculumConfig(initial=10, refill=4, refill_every=2)
    )
    rows.set_apart(3, 2)
    sizes = []
    for _ in range(5):
        drawn = prompts(rows.next(2, {}))
        assert set(drawn).isdisjoint(prompts(rows.held_out.guard + rows.held_out.report))
        assert rows.pool is not None
        sizes.append(len(rows.pool))
    assert sizes == [10, 10, 14, 14, 18]


def test_a_draw_sees_what_was_answered_before_it() -> None:
    rows = instructions(
        in_families("always", "mixed"),
        curriculum=CurriculumConfig(initial=200, refill=0, explore=0.0),
    )
    rows.set_apart(1, 1)
    for _ in range(15):
        drawn = [row for row in rows.next(4, {}) for _ in range(4)]
        answered(
            rows,
            prompts(drawn),
            [row["family"] == "always" or n % 2 == 0 for n, row in enumerate(drawn)],
        )
    late = [row["family"] for _ in range(10) for row in rows.next(4, {})]
    assert late.count("mixed") > 2 * late.count("always")


def test_a_resumed_run_goes_on_with_the_pool_of_its_checkpoint(tmp_path: Path) -> None:
    def made(path: Path) -> Instructions:
        rows = instructions(numbered(200), curriculum=CurriculumConfig(initial=40, refill_every=2))
        rows.set_apart(3, 2)
        rows.store_pool(path)
        return rows

    def played(rows: Instructions, batches: range) -> list[list[str]]:
        drawn = []
        for batch in batches:
            drawn.append(prompts(rows.next(3, {})))
            answered(rows, drawn[-1] * 2, [(batch + n) % 3 == 0 for n in range(6)])
        return drawn

    whole, cut = made(tmp_path / "whole.sqlite"), made(tmp_path / "cut.sqlite")
    assert played(whole, range(6)) == played(cut, range(6))
    saved = json.loads(json.dumps(cut.state_dict()))
    played(cut, range(50, 54))
    cut.close_pool()

    moved = instructions(numbered(200), curriculum=CurriculumConfig(initial=40, refill_every=2))
    moved.set_apart(3, 2)
    moved.load_state_dict(saved)
    moved.store_pool(tmp_path / "elsewhere" / "pool.sqlite", tmp_path / "cut.sqlite")
    resumed = instructions(numbered(200), curriculum=CurriculumConfig(initial=40, refill_every=2))
    resumed.set_apart(3, 2)
    resumed.load_state_dict(saved)
    resumed.store_pool(tmp_path / "cut.sqlite")
    assert (
        played(resumed, range(6, 12)) == played(moved, range(6, 12)) == played(whole, range(6, 12))
    )
    assert resumed.state_dict() == whole.state_dict()
    for rows in (whole, moved, resumed):
        rows.close_pool()


# What cannot be scored or drawn by is refused before the first phase


def test_a_row_that_a_reward_cannot_score_is_refused() -> None:
    from risen_plugin.builtin.rewards import Constraints

    good = {"prompt": "a", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    bad = {"prompt": "b", "instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]}
    rows = instructions(of(good, bad))
    rows.rewards = [wrap(Constraints(), "constraints", "reward 'constraints' (risen-plugin)")]
    with pytest.raises(DataError, match=r"^generator 'mine' .* made a row \('b'\.\.\.\).*no_coma"):
        rows.set_apart(1, 0)


@pytest.mark.parametrize(
    ("strata", "said"),
    [
        (["famly"], "has 'famly', which is a column of no row .* did you mean 'family'"),
        (["topic", "level"], "has 'topic', which is a column of no row .* They have: family, ins"),
        (["family", "level", "instruction_id_list"], None),
    ],
)
def test_strata_are_columns_of_the_rows(strata: list[str], said: str | None) -> None:
    rows = instructions(in_families("a", "b"), curriculum=CurriculumConfig(strata=strata))
    if said is None:
        rows.set_apart(1, 0)
        return
    with pytest.raises(ConfigError, match=said):
        rows.set_apart(1, 0)
