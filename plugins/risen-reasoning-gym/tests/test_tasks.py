"""The generator: what its rows hold, that they repeat, and that its levels follow the policy."""

import itertools
import json
import os
import pickle
import subprocess
import sys
from collections import Counter

import pytest

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

import risen_reasoning_gym
from risen_reasoning_gym import Tasks, catalogue
from risen_reasoning_gym.entries import read

from risen_plugin import RisenError
from risen_plugin.testing import check_generator, check_light_import

pytest_plugins = ["risen_plugin.testing"]


def drawn(tasks, count, **context):
    return list(tasks(count=count, **{"seed": 0, **context}))


@pytest.mark.parametrize(
    "tasks",
    [
        Tasks(["basic_arithmetic", "leg_counting"]),
        Tasks({"countdown": 3, "rush_hour": 0.5}, chat=False, asked=""),
        Tasks(["basic_arithmetic", "gsm_symbolic"], level="adapt"),
        Tasks(["chain_sum"], level=2, config={"chain_sum": {"max_terms": 9}}),
    ],
)
def test_the_contract_of_a_generator_is_kept(tasks):
    check_generator(tasks)
    check_generator(tasks, start=1234, run_seed=7)
    check_generator(tasks, pass_rates={"basic_arithmetic": 0.9}, count=40)


def test_a_row_has_the_question_the_answer_and_what_the_scorer_needs():
    [row] = drawn(Tasks(["chain_sum"]), 1)
    assert row["task"] == row["family"] == "chain_sum"
    assert row["level"] == 0
    entry = json.loads(row["entry"])
    assert entry["item"]["answer"] == row["answer"]
    assert row["prompt"][0]["content"].startswith(entry["item"]["question"])
    assert row["prompt"][0]["content"].endswith("between <answer> and </answer>.")


def test_a_task_without_a_single_answer_has_none():
    [row] = drawn(Tasks(["graph_color"]), 1)
    assert row["answer"] is None


def test_start_goes_on_where_the_rows_before_ended():
    tasks = Tasks(["basic_arithmetic", "chain_sum"])
    whole = drawn(tasks, 20, run_seed=3)
    assert drawn(tasks, 12, start=8, run_seed=3, seed=99) == whole[8:]
    assert drawn(tasks, 20, run_seed=4) != whole


def test_rows_do_not_repeat_beyond_the_size_of_one_dataset():
    tasks = Tasks(["basic_arithmetic"])
    rows = drawn(tasks, 4, start=catalogue.CHUNK - 2)
    assert len({row["prompt"][0]["content"] for row in rows}) == 4


def test_tasks_are_drawn_by_their_weights():
    rows = drawn(Tasks({"chain_sum": 3.0, "leg_counting": 1.0}), 400)
    assert Counter(row["task"] for row in rows)["chain_sum"] == pytest.approx(300, abs=35)


def test_the_fields_of_a_task_are_passed_on():
    rows = drawn(Tasks(["chain_sum"], config={"chain_sum": {"min_terms": 7, "max_terms": 7}}), 5)
    assert {json.loads(row["entry"])["item"]["metadata"]["num_terms"] for row in rows} == {7}


def test_a_fixed_level_is_the_curriculum_s():
    [row] = drawn(Tasks(["basic_arithmetic"], level=3), 1)
    assert row["level"] == 3
    difficulty = read(row["entry"]).item["metadata"]["difficulty"]
    assert difficulty == {"num_terms": (2, 5), "num_digits": (1, 4)}


# Levels


def levels(tasks, *rates):
    """The level of the rows drawn at each pass rate, eight rows at a time."""
    start = itertools.count(0, 8)
    found = []
    for rate in rates:
        context = {} if rate is None else {"pass_rates": {"basic_arithmetic": rate}}
        [level] = {row["level"] for row in drawn(tasks, 8, start=next(start), **context)}
        found.append(level)
    return found


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ((None, None, None), [0, 0, 0]),
        ((0.9, 0.9, 0.9), [0, 1, 2]),
        ((0.9, 0.9, 0.5, 0.5), [0, 1, 1, 1]),
        ((0.9, 0.9, 0.9, 0.1, 0.1, 0.1), [0, 1, 2, 1, 0, 0]),
        ((0.9,) * 7, [0, 1, 2, 3, 4, 4, 4]),
    ],
)
def test_the_level_follows_the_pass_rate(rates, expected):
    assert levels(Tasks(["basic_arithmetic"], level="adapt", patience=8), *rates) == expected


def test_a_level_is_given_time_before_it_changes_again():
    tasks = Tasks(["basic_arithmetic"], level="adapt", patience=24)
    assert levels(tasks, *[0.9] * 7) == [0, 0, 0, 1, 1, 1, 2]


def test_a_resumed_run_goes_on_at_its_level():
    first = Tasks(["basic_arithmetic"], level="adapt", patience=8)
    levels(first, 0.9, 0.9)
    second = Tasks(["basic_arithmetic"], level="adapt", patience=8)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rates = {"basic_arithmetic": 0.9}
    expected = drawn(first, 8, start=16, pass_rates=rates)
    assert drawn(second, 8, start=16, pass_rates=rates) == expected
    assert {row["level"] for row in expected} == {2}
    assert pickle.loads(pickle.dumps(first)).state_dict() == first.state_dict()


def test_levels_that_a_task_refuses_are_left_out():
    assert catalogue.levels_of("caesar_cipher", {}) == [0, 1]
    assert catalogue.levels_of("gsm_symbolic", {}) == []


# What is refused


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tasks": ["basic_arithmetics"]}, "did you mean 'basic_arithmetic'?"),
        ({"tasks": ["composite"]}, "it only mixes other tasks"),
        ({"tasks": []}, "at least one task"),
        ({"tasks": {"chain_sum": 0}}, "the weight of 'chain_sum' is 0"),
        ({"tasks": {"chain_sum": "much"}}, "is a number, not 'much'"),
        (
            {"tasks": ["chain_sum"], "config": {"chain_sum": {"max_term": 3}}},
            "config of 'chain_sum' has no field 'max_term'; did you mean 'max_terms'?",
        ),
        ({"tasks": ["chain_sum"], "config": {"chain_sum": {"seed": 3}}}, "follows from the run"),
        (
            {"tasks": ["chain_sum"], "config": {"chain_sum": {"min_terms": 9, "max_terms": 2}}},
            "max_terms must be >= min_terms",
        ),
        ({"tasks": ["chain_sum"], "config": {"chain_sums": {}}}, "did you mean 'chain_sum'?"),
        ({"tasks": ["chain_sum"], "config": {"chain_sum": 3}}, "must map fields to values"),
        ({"tasks": ["chain_sum"], "level": 99}, "has no level 99; it has: 0, 1"),
        ({"tasks": ["gsm_symbolic"], "level": "adapt"}, "none of the tasks has a curriculum"),
        ({"tasks": ["chain_sum"], "raise_at": 0.2}, "lower_at < raise_at"),
        ({"tasks": ["chain_sum"], "patience": 0}, "must be at least 1"),
        ({"tasks": ["chain_sum"], "level": "harder"}, "'level'"),
        ({"taks": ["chain_sum"]}, "did you mean 'tasks'?"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(plugins, options, told):
    plugins.register(risen_reasoning_gym, "reasoning-gym")
    with pytest.raises(RisenError) as refused:
        plugins.build("generator", "reasoning-gym", options)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_task_that_cannot_keep_to_its_seed_is_refused(monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.raises(RisenError, match="set PYTHONHASHSEED=0"):
        Tasks(["ransom_note"])
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert Tasks(["ransom_note"]).tasks == ["ransom_note"]


FINGERPRINTS = """
import decimal, hashlib, json, random
from risen_reasoning_gym import Tasks, catalogue
from risen_reasoning_gym.entries import read
import numpy
found, before = {}, random.getstate()
numpy.random.seed(0)
after = numpy.random.random()
numpy.random.seed(0)
for task in catalogue.task_names():
    rows = list(Tasks([task])(count=6, seed=5))
    found[task] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
assert random.getstate() == before, "a task drew from the global generator"
assert numpy.random.random() == after, "a task drew from numpy's global generator"
assert decimal.getcontext().prec == 28
print(json.dumps(found))
"""


@pytest.mark.slow
def test_all_other_tasks_make_the_same_rows_in_every_process():
    made = []
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FINGERPRINTS],
            capture_output=True,
            text=True,
            check=False,
            env=env,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        made.append(json.loads(done.stdout.splitlines()[-1]))
    differ = {task for task in made[0] if made[0][task] != made[1][task]}
    assert len(made[0]) > 100
    assert differ <= catalogue._BY_HASH


def test_loading_it_is_quick():
    check_light_import("risen_reasoning_gym")
    code = "import risen_reasoning_gym, sys; sys.exit('reasoning_gym' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
