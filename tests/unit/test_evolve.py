"""The generator evolve: harder where answers pass, easier where not, never the same twice."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from typing import Any

import pytest

from risen_plugin.builtin.generators.difficulty import (
    Band,
    Family,
    adjusted,
    hardness,
    next_level,
    sampled,
    still_rises,
    weight_of,
)
from risen_plugin.builtin.generators.evolve import Evolve
from risen_plugin.constraints import KNOWN, clash
from risen_plugin.errors import ConfigError
from risen_plugin.testing import check_generator

PROMPTS = [f"Tell me about the number {number}." for number in range(200)]
FAMILIES = ("keywords", "length_constraints", "detectable_content")


def evolve(**options: Any) -> Evolve:
    base = {"prompts": PROMPTS, "maximum": 4, "families": FAMILIES}
    return Evolve({**base, **options.pop("constraints", {})}, **options)


def draw(generator: Evolve, count: int = 16, **context: Any) -> list[Any]:
    return list(generator(count=count, seed=0, **{"pass_rates": {}, **context}))


def everywhere(rate: Any) -> dict[str, Any]:
    return dict.fromkeys(FAMILIES, rate)


# The rules

BAND = Band(low=0.2, high=0.7, step=0.25, patience=10)


@pytest.mark.parametrize(
    ("before", "rate", "made", "after"),
    [
        (Family(0.5), 0.9, 4, Family(0.75, 0.9)),
        (Family(1.0), 0.9, 4, Family(1.0, 0.9)),
        (Family(0.5), 0.5, 4, Family(0.5, 0.5)),
        (Family(0.5), 0.1, 4, Family(0.25, 0.1)),
        (Family(0.1), 0.1, 4, Family(0.0, 0.1)),
        (Family(0.5, 0.9), 0.9, 4, Family(0.5, 0.9)),  # no new evidence
        (Family(0.5, 0.9), 0.95, 4, Family(0.75, 0.95)),
        (Family(0.5), 0.0, 40, Family(0.25, 0.0)),  # not yet at its easiest
        (Family(0.0, 0.0, 4), 0.0, 5, Family(0.0, 0.0, 9)),
        (Family(0.0, 0.0, 4), 0.0, 6, Family(0.0, 0.0, 10, retired=True)),
        (Family(0.0, 0.0, 9), 0.1, 6, Family(0.0, 0.1, 0)),
        (Family(0.0, 0.0, 9), None, 60, Family(0.0, 0.0, 9)),
        (Family(0.0, 0.0, 9), math.nan, 60, Family(0.0, 0.0, 9)),
        (Family(0.5), 1.5, 4, Family(0.5)),
        (Family(0.0, 0.0, 10, retired=True), 1.0, 4, Family(0.0, 0.0, 10, retired=True)),
    ],
)
def test_a_family_follows_its_pass_rate(
    before: Family, rate: Any, made: int, after: Family
) -> None:
    assert adjusted(before, rate, made, BAND) == after


@pytest.mark.parametrize(
    ("level", "rate", "tightness", "expected"),
    [
        (2, 0.9, 0.5, 3),
        (2, 0.9, 0.4, 2),  # tighten first
        (4, 0.9, 1.0, 4),
        (2, 0.5, 1.0, 2),
        (2, 0.1, 1.0, 1),
        (1, 0.1, 0.0, 1),
        (2, None, 1.0, 2),
        (2, math.nan, 1.0, 2),
    ],
)
def test_the_number_of_constraints_follows_the_pass_rate(
    level: int, rate: Any, tightness: float, expected: int
) -> None:
    assert next_level(level, rate, tightness, (1, 4), BAND) == expected


@pytest.mark.parametrize(
    ("adherence", "rises"),
    [
        ([], True),
        ([0.5], True),
        ([0.5, 0.6], True),
        ([0.5, 0.5], False),
        ([0.5, 0.505], False),
        ([0.5, 0.4], False),
        ([0.5, 0.4, 0.9], False),  # it had stopped
        ([0.1, 0.2, 0.3], True),
        ([0.1, 0.2, 0.3, 0.4], False),  # four rounds are over
    ],
)
def test_evolution_goes_on_while_held_out_adherence_rises(
    adherence: list[float], rises: bool
) -> None:
    assert still_rises(adherence, rounds=4, least=0.01) is rises


def test_families_in_the_middle_are_chosen_most_readily() -> None:
    weights = [weight_of(rate) for rate in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert max(weights) == weights[2]
    assert min(weights) > 0
    assert weight_of(None) == 1.0


@pytest.mark.parametrize("id_", sorted(KNOWN))
def test_tight_kwargs_are_at_least_as_hard_as_loose_ones(id_: str) -> None:
    for seed in range(20):
        loose, tight = (
            sampled(KNOWN[id_], random.Random(seed), "Why?", tightness) for tightness in (0, 1)
        )
        assert hardness(loose) <= hardness(tight)


# The generator


def test_it_keeps_the_contract_of_a_generator() -> None:
    check_generator(evolve(), count=25)


def test_it_begins_with_the_fewest_constraints() -> None:
    assert {row["level"] for row in draw(evolve(), 50)} == {1}


def test_it_asks_for_more_as_answers_pass_and_for_less_as_they_do_not() -> None:
    generator = evolve(rounds=10)
    for rate in (0.9, 0.91, 0.92, 0.93, 0.94, 0.95):
        draw(generator, pass_rates=everywhere(rate))
    assert all(generator.families[name].tightness == 1.0 for name in FAMILIES)
    assert generator.level == 4
    assert {row["level"] for row in draw(generator)} == {4}
    for rate in (0.05, 0.06, 0.07):
        draw(generator, pass_rates=everywhere(rate))
    assert generator.level == 1
    assert all(generator.families[name].tightness == 0.625 for name in FAMILIES)


def test_between_the_bounds_it_stays() -> None:
    generator = evolve()
    draw(generator)
    before = generator.level, generator.families["keywords"].tightness
    for rate in (0.3, 0.5, 0.6):
        draw(generator, pass_rates=everywhere(rate))
    assert (generator.level, generator.families["keywords"].tightness) == before


def test_the_rate_of_the_present_level_decides_where_it_is_told() -> None:
    generator = evolve(step=0.5)
    draw(generator, pass_rates=everywhere(0.9), level_rates={"1": 0.3, "2": 0.9})
    draw(generator, pass_rates=everywhere(0.95), level_rates={"1": 0.4})
    assert generator.level == 1
    draw(generator, pass_rates=everywhere(0.96), level_rates={"1": 0.8})
    assert generator.level == 2


def test_the_rates_of_a_pool_take_the_place_of_those_of_the_run() -> None:
    generator = evolve()
    draw(generator, pass_rates=everywhere(0.9), pool_rates={"keywords": 0.5})
    assert generator.families["keywords"].rate == 0.5
    assert generator.families["length_constraints"].rate == 0.9


@pytest.mark.parametrize("nothing", [None, math.nan, "missing"])
def test_answers_that_nobody_could_judge_count_for_nothing(nothing: Any) -> None:
    generator = evolve(patience=5)
    rates = {} if nothing == "missing" else everywhere(nothing)
    for _ in range(10):
        draw(generator, pass_rates=rates)
    assert set(generator.families.values()) == {Family()}
    json.dumps(generator.state_dict(), allow_nan=False)


def test_a_family_of_which_nothing_passes_is_retired() -> None:
    generator = evolve(patience=10)
    rates = {"keywords": 0.0, "length_constraints": 0.5, "detectable_content": 0.5}
    for _ in range(40):
        draw(generator, pass_rates=rates)
    rows = draw(generator, pass_rates=rates)
    assert generator.families["keywords"].retired
    assert generator.families["keywords"].tightness == 0
    families = Counter(row["family"] for row in rows)
    assert set(families) == {"length_constraints", "detectable_content"}


def test_there_is_always_a_family_left() -> None:
    generator = evolve(patience=1)
    for _ in range(20):
        draw(generator, pass_rates=everywhere(0.0))
    assert len(draw(generator, pass_rates=everywhere(0.0))) == 16
    assert not all(family.retired for family in generator.families.values())


def test_it_stops_evolving_when_held_out_adherence_no_longer_rises() -> None:
    generator = evolve(rounds=5)
    draw(generator, pass_rates=everywhere(0.9), held_out_adherence=[0.5])
    tightness = generator.families["keywords"].tightness
    draw(generator, pass_rates=everywhere(0.95), held_out_adherence=[0.5, 0.5])
    assert generator.families["keywords"].tightness == tightness
    draw(generator, pass_rates=everywhere(0.96), held_out_adherence=[0.5, 0.6])
    assert generator.families["keywords"].tightness > tightness


def test_no_instruction_comes_twice_even_after_a_resume() -> None:
    first = evolve(constraints={"prompts": PROMPTS[:3]})
    rows = draw(first, 100)
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second = evolve(constraints={"prompts": PROMPTS[:3]})
    second.load_state_dict(state)
    later = draw(second, 100)
    assert later == draw(first, 100)
    told = [
        json.dumps(
            [
                row["query"],
                sorted(map(str, zip(row["instruction_id_list"], row["kwargs"], strict=True))),
            ]
        )
        for row in rows + later
    ]
    assert len(set(told)) == 200


def test_when_all_have_been_made_there_are_fewer_rows() -> None:
    generator = evolve(
        constraints={"prompts": ["Why?"], "ids": ["punctuation:no_comma"], "families": None}
    )
    assert len(draw(generator, 8)) == 1
    assert draw(generator, 8) == []
    assert set(generator.report().dropped) == {"duplicate"}


def test_constraints_of_a_row_agree_and_reserved_families_are_left_out() -> None:
    generator = evolve(constraints={"families": None, "minimum": 3, "maximum": 3})
    rows = draw(generator, 100, reserved=["keywords", "a_family_of_another_generator"])
    for row in rows:
        ids = row["instruction_id_list"]
        assert len(ids) == 3
        assert not any(id_.startswith("keywords:") for id_ in ids)
        assert not any(clash(a, b) for a in ids for b in ids if a != b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.7, "high": 0.2}, "low must be below high"),
        ({"step": 0}, "step must be above 0"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"constraints": {"paht": "a"}}, "evolve: constraints has no option 'paht'"),
        ({"constraints": {"families": ["keyword"]}}, "unknown family 'keyword'; did you mean"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        evolve(**options)
    assert "\n" not in str(caught.value)


def test_constraints_must_be_options() -> None:
    with pytest.raises(ConfigError, match="must hold the options of the generator 'constraints'"):
        Evolve("prompts.jsonl")  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [1.0, 0.9])
@pytest.mark.parametrize("maximum", [2, 4])
def test_it_reaches_its_maximum_within_its_rounds(rate: float, maximum: int) -> None:
    """With the defaults, where the same share of answers passes throughout."""
    generator = evolve(constraints={"maximum": maximum})
    draw(generator)
    for phases in range(1, generator.rounds + 1):
        rates = {"pass_rates": everywhere(rate), "level_rates": {str(generator.level): rate}}
        draw(generator, held_out_adherence=[0.6 + 0.1 * n for n in range(phases)], **rates)
    assert generator.level == maximum
    assert {row["level"] for row in draw(generator)} == {maximum}


def test_it_goes_on_where_held_out_adherence_cannot_rise_any_more() -> None:
    assert still_rises([0.9, 1.0, 1.0], rounds=4, least=0.0)
    assert not still_rises([0.9, 0.9], rounds=4, least=0.0)


def test_the_same_rate_counts_again_once_another_phase_has_measured_it() -> None:
    generator = evolve(constraints={"maximum": 1})
    for phases in (1, 1, 2, 2):
        draw(generator, pass_rates=everywhere(1.0), held_out_adherence=[0.5, 0.6][:phases])
    assert generator.families["keywords"].tightness == 0.5
