"""The pool asks what the policy follows some of the time, forgets nothing and restores exactly."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from risen_plugin.config import CurriculumConfig
from risen_plugin.errors import DataError, RecordError
from risen_plugin.instructions.curriculum import Pool
from risen_plugin.instructions.curriculum.estimates import MOST_STRATA, Strata, skips, worth
from risen_plugin.instructions.curriculum.hindsight import relabelled
from risen_plugin.instructions.curriculum.weights import Weights
from risen_plugin.instructions.rows import key_of

ROOT = Path(__file__).parents[2]


def row(number: int, family: str = "f", **columns: Any) -> dict[str, Any]:
    return {"prompt": f"p{number}", "family": family, **columns}


def pool(path: Path | None = None, **changes: Any) -> Pool:
    return Pool(CurriculumConfig(**changes), 0, key_of, path)


def answer(asked: Pool, rows: list[Any], rate: Any, *, group: int = 8) -> None:
    """Answer each row ``group`` times, ``rate(row)`` of the answers passing."""
    keys, passed = [], []
    for given_row in rows:
        good = round(rate(given_row) * group)
        keys += [key_of(given_row["prompt"])] * group
        passed += [place < good for place in range(group)]
    asked.count_answers(keys, passed)


def prompts(rows: list[Any]) -> list[str]:
    return [given_row["prompt"] for given_row in rows]


# Weights


@given(st.lists(st.integers(0, 9), min_size=1, max_size=70), st.data())
def test_each_place_is_found_by_as_many_marks_as_it_weighs(
    wanted: list[int], data: st.DataObject
) -> None:
    weights = Weights()
    for _ in wanted:
        weights.append()
    for place in data.draw(st.permutations(range(len(wanted)))):
        weights.put(place, wanted[place] + 1)
        weights.put(place, wanted[place])
    assert weights.total == sum(wanted)
    found = Counter(weights.find(mark) for mark in range(weights.total))
    assert found == {place: weight for place, weight in enumerate(wanted) if weight}


# Estimates


@pytest.mark.parametrize(
    ("better", "than"),
    [
        pytest.param((4, 4), (8, 0), id="half the answers over all"),
        pytest.param((4, 4), (0, 8), id="half the answers over none"),
        pytest.param((2, 6), (1, 7), id="nearer to the band"),
        pytest.param((1, 0), (40, 0), id="one answer over forty that say the same"),
    ],
)
def test_what_is_followed_some_of_the_time_is_worth_more(
    better: tuple[float, float], than: tuple[float, float]
) -> None:
    first, second = (
        float(worth(*seen, 0.5, prior=1.0, optimism=0.0, low=0.3, high=0.7))
        for seen in (better, than)
    )
    assert first > second


def test_what_is_uncertain_is_worth_what_it_might_be() -> None:
    seen = {"prior": 2.0, "low": 0.3, "high": 0.7}
    known = worth(60.0, 2.0, 0.9, optimism=1.0, **seen)
    unknown = worth(0.0, 0.0, 0.9, optimism=1.0, **seen)
    assert unknown > worth(0.0, 0.0, 0.9, optimism=0.0, **seen)
    assert unknown > known


def test_a_focus_prefers_the_band_the_more() -> None:
    seen = {"prior": 1.0, "optimism": 0.0, "low": 0.3, "high": 0.7}
    easy = [float(worth(19.0, 0.0, 0.95, focus=focus, **seen)) for focus in (0.0, 1.0, 4.0)]
    inside = [float(worth(10.0, 9.0, 0.5, focus=focus, **seen)) for focus in (0.0, 1.0, 4.0)]
    assert 1.0 == easy[0] > easy[1] > easy[2]
    assert easy[2] == pytest.approx(easy[1] ** 4)
    assert inside == [1.0, 1.0, 1.0]


@given(st.floats(0, 50), st.floats(0, 50), st.floats(0, 1), st.floats(0, 3), st.floats(0.05, 0.5))
def test_a_worth_is_between_0_and_1(
    passed: float, failed: float, mean: float, optimism: float, low: float
) -> None:
    value = worth(passed, failed, mean, prior=1.0, optimism=optimism, low=low, high=1 - low)
    assert 0.0 <= float(value) <= 1.0


@pytest.mark.parametrize(
    ("streak", "probability"), [(0, 0.0), (1, 0.5), (2, 0.75), (3, 0.875), (20, 0.95)]
)
def test_skipping_grows_with_the_visits_without_variance_up_to_the_floor(
    streak: int, probability: float
) -> None:
    assert skips(streak, base=0.5, floor=0.05) == probability


def test_a_stratum_leans_on_the_wider_one_until_it_has_answers_of_its_own() -> None:
    strata = Strata(half_life=100.0)
    known, new = strata.number_of(("a", "1")), strata.number_of(("a", "2"))
    other = strata.number_of(("b", "1"))
    strata.count(known, 40, 0, tick=1)
    means = strata.means(1)
    assert means[known] > means[new] > means[other] > 0.5
    strata.count(new, 0, 40, tick=1)
    assert strata.means(1)[new] < 0.5 < strata.means(1)[known]


def test_answers_count_half_after_the_half_life() -> None:
    strata = Strata(half_life=10.0)
    place = strata.number_of(("a",))
    strata.count(place, 16, 0, tick=0)
    late = strata.means(10)[place]
    afresh = Strata(half_life=10.0)
    afresh.count(afresh.number_of(("a",)), 8, 0, tick=10)
    assert late == pytest.approx(afresh.means(10)[1])


def test_too_many_strata_are_counted_with_the_wider_one() -> None:
    strata = Strata(half_life=10.0)
    for number in range(MOST_STRATA + 50):
        strata.number_of((f"f{number}",))
    assert len(strata) == MOST_STRATA
    assert strata.number_of(("one more",)) == 0


# Drawing


def test_draws_prefer_what_the_policy_follows_some_of_the_time() -> None:
    asked = pool(explore=0.0, skip_base=1.0)
    families = ("never", "sometimes", "always")
    asked.add([row(number, families[number % 3]) for number in range(900)])
    rates = {"never": 0.0, "sometimes": 0.5, "always": 1.0}
    for _ in range(30):
        answer(asked, asked.draw(8), lambda r: rates[r["family"]])
    late = Counter(r["family"] for _ in range(20) for r in asked.draw(8))
    assert late["sometimes"] > 2 * (late["never"] + late["always"])


def test_a_batch_has_no_instruction_twice_and_small_pools_give_what_they_have() -> None:
    asked = pool()
    asked.add([row(number) for number in range(5)])
    assert sorted(prompts(asked.draw(5))) == [f"p{number}" for number in range(5)]
    assert len(asked.draw(9)) == 5


def test_an_instruction_that_was_never_answered_has_the_rate_of_its_family_and_level() -> None:
    asked = pool()
    asked.add([row(n, "a" if n < 20 else "b", level=1 + n % 2) for n in range(40)])
    for _ in range(4):
        answer(asked, asked.draw(6), lambda r: 1.0 if r["family"] == "a" else 0.0)
    fresh = [row(50, "a", level=1), row(51, "b", level=1), row(52, "a", level=7)]
    asked.add(fresh)
    easy, hard, other_level = (asked.rate_of(key_of(r["prompt"])) for r in fresh)
    assert easy > 0.7
    assert hard < 0.3
    assert other_level > 0.5
    assert set(asked.rates()) == {"a", "b"}
    assert asked.rates()["a"] > asked.rates()["b"]
    assert set(asked.level_rates()) == {"1", "2"}


def test_a_level_is_the_number_of_constraints_where_a_row_has_none() -> None:
    asked = pool()
    asked.add([row(0, instruction_id_list=["a:b", "c:d"])])
    answer(asked, asked.draw(1), lambda r: 0.5)
    assert list(asked.level_rates()) == ["2"]


def test_what_gave_no_variance_is_passed_over_up_to_the_cap() -> None:
    asked = pool(explore=0.0, skip_floor=0.01, skip_base=0.1, most_skips=3)
    asked.add([row(number) for number in range(4)])
    for _ in range(5):
        answer(asked, asked.draw(4), lambda r: 1.0)
    asked.counts.clear()
    assert len(asked.draw(2)) == 2
    assert 0 < asked.counts["skipped"] <= 3 * 2


def test_one_visit_with_variance_ends_the_skipping() -> None:
    asked = pool(explore=0.0, skip_base=0.1, skip_floor=0.0)
    asked.add([row(0)])
    answer(asked, asked.draw(1), lambda r: 1.0)
    answer(asked, asked.draw(1), lambda r: 0.5)
    asked.counts.clear()
    for _ in range(20):
        asked.draw(1)
    assert asked.counts["skipped"] == 0


def test_rewards_tell_variance_where_they_are_given() -> None:
    asked = pool()
    asked.add([row(0)])
    [drawn] = asked.draw(1)
    asked.count_answers([key_of(drawn["prompt"])] * 2, [False, False], [0.1, 0.6])
    assert asked.figures()["zero_variance_share"] == 0.0
    asked.draw(1)
    asked.count_answers([key_of(drawn["prompt"])] * 2, [False, False], [0.4, 0.4])
    assert asked.figures()["zero_variance_share"] == 0.5


def test_an_answer_that_nobody_judged_counts_for_nothing() -> None:
    asked = pool()
    asked.add([row(0)])
    asked.draw(1)
    asked.count_answers([key_of("p0")] * 3, [None, None, None])
    assert asked.rate_of(key_of("p0")) == 0.5
    asked.count_answers([key_of("p0")] * 3, [True, None, None])
    assert asked.rate_of(key_of("p0")) > 0.5


def test_exploring_reaches_what_is_worth_nothing() -> None:
    asked = pool(explore=0.3)
    asked.add([row(number, "always" if number < 50 else "mixed") for number in range(100)])
    for _ in range(60):
        answer(asked, asked.draw(8), lambda r: 1.0 if r["family"] == "always" else 0.5)
    late = [r["family"] for _ in range(20) for r in asked.draw(8)]
    assert "always" in late
    assert 0.1 < asked.figures()["explored_share"] < 0.6


def test_retiring_is_off_unless_asked_for_and_never_silent(tmp_path: Path) -> None:
    stays = pool(explore=1.0)
    goes = pool(tmp_path / "pool.sqlite", explore=1.0, retire_after=2)
    for asked in (stays, goes):
        asked.add([row(number) for number in range(3)])
        for _ in range(3):
            answer(asked, asked.draw(3), lambda r: 1.0 if r["prompt"] == "p0" else 0.5)
    assert stays.figures()["retired"] == 0
    assert goes.figures()["retired"] == 1
    assert sorted(prompts(goes.draw(3))) == ["p1", "p2"]
    assert len(goes) == 3
    goes.close()
    base = sqlite3.connect(tmp_path / "pool.sqlite")
    assert base.execute("SELECT id, reason FROM retired").fetchall() == [
        (0, "2 visits without variance")
    ]


def test_a_full_pool_refuses_and_counts_what_it_refused() -> None:
    asked = pool(largest=3)
    assert asked.add([row(number) for number in range(5)]) == 3
    assert asked.figures()["refused"] == 2


def test_rows_that_cannot_be_kept_as_json_are_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match=r"cannot be stored in the curriculum's pool: .*bytes"):
        pool().add([row(0, image=b"x")])


# Across checkpoints


def played(asked: Pool, batches: int, seed: int) -> list[list[str]]:
    """Draw and answer by chance, with new rows in between; what was drawn."""
    drawn = []
    for _ in range(batches):
        rng = random.Random(f"{seed} {asked.tick}")
        rows = asked.draw(4)
        drawn.append(prompts(rows))
        rates = {r["prompt"]: rng.random() for r in rows}
        answer(asked, rows, lambda r, rates=rates: rates[r["prompt"]])
        asked.add([row(1000 + asked.tick, f"f{asked.tick % 5}", level=asked.tick % 3)])
    return drawn


@settings(max_examples=20)
@given(before=st.integers(0, 30), lost=st.integers(0, 10), seed=st.integers(0, 9))
def test_a_pool_restored_to_a_checkpoint_draws_as_if_it_had_never_stopped(
    tmp_path_factory: pytest.TempPathFactory, before: int, lost: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("pool") / "pool.sqlite"
    whole, cut = pool(retire_after=4), pool(path, retire_after=4)
    for asked in (whole, cut):
        asked.add([row(number, f"f{number % 5}", level=number % 3) for number in range(40)])
        played(asked, before, seed)
    saved = json.loads(json.dumps(cut.state_dict()))
    played(cut, lost, seed + 100)  # what a run did after its last checkpoint is gone
    cut.close()

    restored = pool(path, retire_after=4)
    restored.load_state_dict(saved)
    assert restored.rates() == whole.rates()
    assert played(restored, 12, seed) == played(whole, 12, seed)
    assert len(restored) == len(whole)
    restored.close()


KILLED = """
    import json, os, signal, sys
    from pathlib import Path
    from tests.unit.test_curriculum import played, pool, row

    asked = pool(Path(sys.argv[1]))
    asked.add([row(number, f"f{number % 5}", level=number % 3) for number in range(40)])
    played(asked, 8, 3)
    print(json.dumps(asked.state_dict()), flush=True)
    played(asked, 5, 77)
    asked.store.add_answers(asked.seq + 1, asked.tick, [])
    asked.store._base.execute("INSERT INTO retired VALUES (999, 0, 'half a transaction')")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_resumes_from_its_checkpoint_with_the_same_draws(tmp_path: Path) -> None:
    path = tmp_path / "pool.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    saved = json.loads(done.stdout)

    whole = pool()
    whole.add([row(number, f"f{number % 5}", level=number % 3) for number in range(40)])
    played(whole, 8, 3)
    restored = pool(path)
    restored.load_state_dict(saved)
    assert played(restored, 10, 3) == played(whole, 10, 3)
    restored.close()
    base = sqlite3.connect(path)
    assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert base.execute("SELECT count(*) FROM retired WHERE seq = 999").fetchone() == (0,)


def test_a_pool_that_ends_before_the_checkpoint_is_refused(tmp_path: Path) -> None:
    asked = pool(tmp_path / "pool.sqlite")
    asked.add([row(0)])
    with pytest.raises(RecordError, match=r"pool.sqlite ends at 1, and the checkpoint needs it up"):
        asked.load_state_dict({"tick": 9, "seq": 9})


def test_a_file_that_is_no_pool_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "pool.sqlite"
    path.write_text("no database at all, but a text of some length\n" * 50)
    with pytest.raises(RecordError, match=r"the pool .*pool.sqlite cannot be used: "):
        pool(path)


# Size


@pytest.mark.parametrize("size", [1_000, 20_000])
def test_memory_per_instruction_is_flat(size: int) -> None:
    asked = pool()
    asked.add([row(number, f"f{number % 3}") for number in range(size)])
    assert asked.bytes_in_memory() / size == pytest.approx(12.0, abs=1.0)


# Hindsight


def constrained(prompt: Any, query: Any) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "query": query,
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
        "kwargs": [{}, {}],
        "family": "punctuation",
        "level": 2,
        "source": "kept",
    }


@pytest.mark.parametrize("chat", [False, True])
def test_the_best_failed_answer_becomes_an_instruction_that_it_followed(chat: bool) -> None:
    asked: Any = "Name a city.\n\nUse no commas. Quote all of it."
    answers: list[Any] = ["no, nothing", "Oslo", "a, b"]
    if chat:
        asked = [{"role": "user", "content": asked}]
        answers = [[{"role": "assistant", "content": text}] for text in answers]
    made = relabelled(constrained(asked, "Name a city."), answers, random.Random(0))
    assert made is not None
    text = made["prompt"][0]["content"] if chat else made["prompt"]
    assert text.startswith("Name a city.\n\n")
    assert "quot" not in text.lower()
    assert (made["instruction_id_list"], made["kwargs"]) == (["punctuation:no_comma"], [{}])
    assert (made["family"], made["level"], made["source"]) == ("punctuation", 1, "kept")


@pytest.mark.parametrize(
    ("changes", "answers"),
    [
        pytest.param({}, ["a, b"], id="nothing was met"),
        pytest.param({}, ['"Oslo"'], id="all was met"),
        pytest.param({"query": None}, ["Oslo"], id="the plain question is unknown"),
        pytest.param({"instruction_id_list": [], "kwargs": []}, ["Oslo"], id="no constraints"),
    ],
)
def test_nothing_is_relabelled_where_nothing_can_be_learned(
    changes: dict[str, Any], answers: list[str]
) -> None:
    given_row = {**constrained("Name a city. ...", "Name a city."), **changes}
    assert relabelled(given_row, answers, random.Random(0)) is None


@pytest.mark.parametrize("is_on", [False, True])
def test_hindsight_adds_rows_with_their_origin_only_where_it_is_on(
    is_on: bool, tmp_path: Path
) -> None:
    asked = pool(tmp_path / "pool.sqlite", hindsight=is_on)
    asked.add([constrained("Name a city. No commas, all quoted.", "Name a city.")])
    [drawn] = asked.draw(1)
    key = key_of(drawn["prompt"])
    asked.count_answers([key] * 2, [False, False], None, ["Oslo", "a, b"])
    assert len(asked) == 1 + is_on
    assert asked.figures()["relabelled"] == int(is_on)
    origins = sqlite3.connect(tmp_path / "pool.sqlite").execute("SELECT origin FROM rows")
    found = [json.loads(origin) for (origin,) in origins if origin]
    assert found == ([{"hindsight_of": key, "tick": 1}] if is_on else [])
    saved = asked.state_dict()
    asked.close()
    restored = pool(tmp_path / "pool.sqlite", hindsight=is_on)
    restored.load_state_dict(saved)
    assert len(restored) == 1 + is_on


def test_the_mean_rate_is_over_all_instructions() -> None:
    asked = pool()
    asked.add([row(n, "a") for n in range(3)] + [row(9, "b")])
    means = {"a": asked.rate_of(key_of("p0")), "b": asked.rate_of(key_of("p9"))}
    assert asked.mean_rate() == pytest.approx(np.average(list(means.values()), weights=[3, 1]))


def test_what_the_guard_measured_is_known_of_the_strata_before_the_first_draw(
    tmp_path: Path,
) -> None:
    asked = pool(tmp_path / "pool.sqlite", explore=0.0)
    asked.add([row(number, "easy" if number % 2 else "hard") for number in range(200)])
    outside = [row(1000 + n, "easy" if n % 2 else "hard") for n in range(40)]
    asked.count_measured(outside, [n % 2 == 1 or n % 4 == 0 for n in range(40)])
    saved = asked.state_dict()
    drawn = [given_row for _ in range(10) for given_row in asked.draw(8)]
    assert sum(r["family"] == "hard" for r in drawn) > 3 * sum(r["family"] == "easy" for r in drawn)
    assert len(asked) == 200
    asked.close()
    restored = pool(tmp_path / "pool.sqlite", explore=0.0)
    restored.load_state_dict(saved)
    assert [given_row for _ in range(10) for given_row in restored.draw(8)] == drawn
    restored.close()


def test_a_measurement_that_nobody_judged_tells_nothing() -> None:
    asked = pool()
    asked.add([row(0)])
    asked.count_measured([row(1)], [None])
    assert asked.rate_of(key_of("p0")) == 0.5
