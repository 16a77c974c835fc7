"""The reward: the task's own score, an abstention elsewhere, and no score where a scorer breaks."""

import math
import pickle
from fractions import Fraction
from importlib import metadata

import pytest

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

import risen_reasoning_gym
from risen_reasoning_gym import Tasks, TaskScore, catalogue
from risen_reasoning_gym.entries import Entry, read, written

from risen_plugin import Failed
from risen_plugin.plugins import Plugins
from risen_plugin.testing import REWARD_CHECKS

pytest_plugins = ["risen_plugin.testing"]

REWARD = TaskScore()
[SUM] = Tasks(["chain_sum"])(count=1, seed=1)


def scored(answer, row=SUM, reward=REWARD):
    [score] = reward(prompts=[row["prompt"]], completions=[answer], entry=[row["entry"]])
    return score


@pytest.mark.parametrize("check", REWARD_CHECKS)
@pytest.mark.parametrize("task", ["chain_sum", "countdown", "n_queens", "graph_color"])
def test_the_contract_of_a_reward_is_kept(check, task):
    [row] = Tasks([task])(count=1, seed=1)
    check(REWARD, **{name: row[name] for name in ("task", "entry", "answer")})


@pytest.mark.parametrize("form", ["<answer>{}</answer>", "so \\boxed{{{}}}", "Well.\n{}"])
def test_the_right_answer_scores_in_each_form(form):
    assert scored(form.format(SUM["answer"])) == 1.0


def test_wrong_and_blank_answers_score_nothing():
    assert scored("<answer>no</answer>") == 0.0
    assert scored("") == scored("<answer> </answer>") == 0.0


def test_credit_for_the_form_can_be_left_out():
    [row] = Tasks(["countdown"])(count=1, seed=1)
    assert 0 < scored("1 + 1", row) < 1
    assert scored("1 + 1", row, TaskScore(partial=False)) == 0.0


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"entry": [None]},
        {"entry": ["{}"]},
        {"entry": ["reasoning_gym is no JSON"]},
        {"entry": [{"reasoning_gym": 1}]},
        {"entry": ['["reasoning_gym"]']},
    ],
)
def test_rows_of_other_generators_are_none_of_its_business(columns):
    assert REWARD(prompts=["p"], completions=["1"], **columns) == [None]


def test_a_scorer_that_breaks_costs_that_completion_alone():
    [row] = Tasks(["prime_factorization"])(count=1, seed=1)
    broken, right = REWARD(
        prompts=["p"] * 2, completions=["maybe", row["answer"]], entry=[row["entry"]] * 2
    )
    assert right == 1.0
    assert isinstance(broken, Failed)
    assert math.isnan(broken)
    assert broken.reason.startswith("the scorer of 'prime_factorization' raised ValueError: ")


def test_a_score_that_is_no_number_is_no_score(monkeypatch):
    class Odd:
        def score_answer(self, answer, entry):
            return math.inf

    monkeypatch.setattr(catalogue, "dataset", lambda *_: Odd())
    assert repr(scored("1")) == "Failed(\"the scorer of 'chain_sum' gave inf\")"


def test_the_scorer_has_the_settings_that_the_item_was_made_with():
    answer = "6 * 4 * 1 * 1"
    [usual] = Tasks(["puzzle24"])(count=1, seed=1)
    [narrow] = Tasks(["puzzle24"], config={"puzzle24": {"max_value": 5}})(count=1, seed=1)
    assert scored(answer, usual) == 1.0
    assert scored(answer, narrow) == 0.01


def test_code_in_an_answer_does_not_run(tmp_path):
    [row] = Tasks(["string_insertion"])(count=1, seed=1)
    trace = tmp_path / "trace"
    assert scored(f"<answer>[open({str(trace)!r}, 'w').name]</answer>", row) == 0.0
    assert not trace.exists()


def test_an_entry_comes_back_as_it_was():
    item = {"answer": "1", "metadata": {1: (1, [2, (3,)]), "__tuple__": {"a": Fraction(3, 4)}}}
    entry = Entry("chain_sum", item, {"max_terms": 3}, 2)
    assert read(written(entry, "0")) == entry


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [1, 2])
def test_every_task_s_own_answer_scores_in_full(monkeypatch, seed):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    checked = 0
    for task in catalogue.task_names():
        for row in Tasks([task], chat=False)(count=2, seed=seed):
            entry = read(row["entry"])
            if row["answer"] is not None:
                answered = f"<answer>{row['answer']}</answer>"
                own = catalogue.dataset(task, "{}", None, 0).score_answer(
                    row["answer"], dict(entry.item)
                )
                assert scored(answered, row) == pytest.approx(own), task
                checked += own == 1.0
    assert checked > 190


def test_both_are_offered_by_name(plugins):
    assert plugins.register(risen_reasoning_gym, "reasoning-gym")
    assert plugins.build("reward", "reasoning-gym", {}) == REWARD
    assert plugins.build("generator", "reasoning-gym", {"tasks": ["chain_sum"]}) == Tasks(
        ["chain_sum"]
    )
    assert pickle.loads(pickle.dumps(REWARD)) == REWARD


def test_they_are_offered_once_installed():
    try:
        version = metadata.version("risen-reasoning-gym")
    except metadata.PackageNotFoundError:
        pytest.skip("risen-reasoning-gym is not installed")
    for kind in ("reward", "generator"):
        origin = Plugins.load().find(kind, "reasoning-gym").origin
        assert origin == f"risen-reasoning-gym {version}"
