"""The checks for plugin authors pass what keeps a contract and name what breaks it."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys

import pytest

from risen_plugin import Decision, Failed, text_of
from risen_plugin.builtin import rewards, schedulers
from risen_plugin.commands.audit.run import CHECKS
from risen_plugin.plugins import Plugins
from risen_plugin.testing import (
    AUDIT_CHECKS,
    REWARD_CHECKS,
    SAMPLES,
    check_exporter,
    check_generator,
    check_light_import,
    check_reward,
    check_scheduler,
    parametrize_with_audit,
)

pytest_plugins = ["risen_plugin.testing"]


def words(completions, **columns):
    """A reward that keeps the contract."""
    return [float(len(text_of(completion).split())) for completion in completions]


class Rows:
    """A generator that keeps the contract, and its state."""

    columns = ("answer",)

    def __init__(self):
        self.made = 0

    def __call__(self, *, count, seed, **context):
        draw = random.Random(f"{seed} {self.made}")
        self.made += count
        return ({"prompt": f"Add {draw.random()}.", "answer": "1"} for _ in range(count))

    def state_dict(self):
        return {"made": self.made}

    def load_state_dict(self, state):
        self.made = state["made"]


def every_ten(progress):
    """A scheduler that keeps the contract."""
    if progress.step % 10 == 0:
        return Decision("risen", 5, {"beta": 0.1}, f"step {progress.step}")
    return Decision("fine_tune", reason="not yet")


def broken(check, *arguments, **columns):
    with pytest.raises(AssertionError) as caught:
        check(*arguments, **columns)
    return str(caught.value)


# Rewards


async def asynchronous(completions, **columns):
    return words(completions)


def abstaining(completions, **columns):
    return [None for _ in completions]


def failing_on_short_answers(completions, **columns):
    """As a judge that is down, or an answer that it cannot read."""
    return [Failed("too short") if len(text_of(c)) < 4 else 1.0 for c in completions]


class Answer:
    needs = ("answer",)

    def __call__(self, *, completions, answer, **columns):
        return [float(text_of(c) == a) for c, a in zip(completions, answer, strict=True)]


@pytest.mark.parametrize("reward", [words, asynchronous, abstaining, failing_on_short_answers])
def test_a_reward_that_keeps_the_contract_passes(reward):
    check_reward(reward)


def test_a_reward_is_given_the_columns_that_it_needs():
    check_reward(Answer(), answer="yes")
    assert "needs the columns answer: give a value for each" in broken(check_reward, Answer())


def too_few(completions, **columns):
    return [1.0] * (len(completions) - 1)


def not_a_number(completions, **columns):
    return [float("nan") for _ in completions]


def infinite(completions, **columns):
    return [float("inf") for _ in completions]


def in_words(completions, **columns):
    return ["good" for _ in completions]


def one_number(completions, **columns):
    return 1.0


calls = itertools.count()


def forgetful(completions, **columns):
    return [float(next(calls)) for _ in completions]


def chat_only(completions, **columns):
    return [float(len(completion[0]["content"])) for completion in completions]


def by_form(completions, **columns):
    return [float(isinstance(completion, str)) for completion in completions]


def emptying(completions, **columns):
    scores = words(completions)
    completions.clear()
    return scores


def closed(prompts, completions):
    return words(completions)


BROKEN_REWARDS = {
    too_few: "returned 6 scores for 7 completions",
    one_number: "returned a float for 7 completions",
    not_a_number: "with nan; a score is a finite number",
    infinite: "with inf; a score is a finite number",
    in_words: "with 'good'; a score is a finite number",
    forgetful: "scored one batch",
    chat_only: "chat_only raised TypeError",
    by_form: "scored plain text",
    emptying: "changed completions in the batch",
    closed: "closed raised TypeError",
    lambda completions, **columns: words(completions): "cannot be pickled",
}


@pytest.mark.parametrize(("reward", "why"), BROKEN_REWARDS.items())
def test_a_reward_that_breaks_the_contract_is_told_how(reward, why):
    assert why in broken(check_reward, reward)


def test_each_check_is_broken_by_some_reward():
    def breaks(check, reward):
        try:
            check(reward)
        except AssertionError:
            return True
        return False

    for check in REWARD_CHECKS:
        assert any(breaks(check, reward) for reward in BROKEN_REWARDS), check.__name__


def test_the_samples_are_the_same_answers_as_text_and_as_chat():
    plain, chat = SAMPLES["plain"]["completions"], SAMPLES["chat"]["completions"]
    assert [text_of(completion) for completion in chat] == plain


def test_the_built_in_rewards_keep_the_contract():
    check_reward(rewards.Length(low=1, high=5))
    check_reward(rewards.Regex(pattern="yes"))


# The audit


def always(completions, **columns):
    return [1.0 for _ in completions]


def test_the_checks_of_the_audit_are_named_and_told_apart():
    assert [check.__name__ for check in AUDIT_CHECKS] == [f"audit_{name}" for name in CHECKS]
    assert all(check.__doc__ for check in AUDIT_CHECKS)
    by_name = {check.__name__: check for check in AUDIT_CHECKS}
    by_name["audit_order"](always)
    assert "always, audit check 'empty': scores '' 1" in broken(by_name["audit_empty"], always)


def test_an_audit_check_is_given_columns_and_a_right_answer():
    right = next(check for check in AUDIT_CHECKS if check.__name__ == "audit_right")
    right(Answer(), answer="yes")
    told = broken(right, Answer(), answer="yes", completion="no")
    assert "right answers fail: 'no' scores 0" in told


@parametrize_with_audit([rewards.Length(3, 60), (rewards.Exact(), {"answer": "yes"})])
def test_a_sound_reward_passes_its_audit(reward, check):
    check(reward)


def test_a_check_that_may_fail_is_left_out():
    mark = parametrize_with_audit([always], allow=["empty", "constant"])
    ids = [case.id for case in mark.args[1]]
    assert "always-echo" in ids
    assert len(ids) == len(CHECKS) - 2
    with pytest.raises(ValueError, match="no audit check is called 'eco'"):
        parametrize_with_audit([always], allow=["eco"])


# Generators


def test_a_generator_that_keeps_the_contract_passes():
    check_generator(Rows())
    check_generator(lambda *, count, seed, **context: [{"prompt": "Say yes."}])


def test_the_context_reaches_the_generator():
    seen = []

    def generator(*, count, seed, **context):
        seen.append(context)
        return [{"prompt": "Say yes."}]

    check_generator(generator, pass_rates={"case": 0.5}, level=2)
    assert seen[0]["pass_rates"] == {"case": 0.5}
    assert seen[0]["level"] == 2


def rows_of(*rows):
    return lambda *, count, seed, **context: list(rows)


def promising(*, count, seed, **context):
    return [{"prompt": "x"}]


promising.columns = ("answer",)


def meddling(*, count, seed, pass_rates, **context):
    pass_rates["case"] = 1.0
    return [{"prompt": "x"}]


class Forgetting(Rows):
    def load_state_dict(self, state):
        """Load nothing."""


BROKEN_GENERATORS = {
    "too many": (lambda *, count, seed, **c: itertools.repeat({"prompt": "x"}), "more rows than"),
    "none": (rows_of(), "made no row at all"),
    "text": (rows_of("x"), "a row that is no mapping"),
    "no prompt": (rows_of({"text": "x"}), "a row without 'prompt'"),
    "empty prompt": (rows_of({"prompt": ""}), "neither text nor chat messages"),
    "odd prompt": (rows_of({"prompt": [{"text": "x"}]}), "neither text nor chat messages"),
    "no column": (promising, "promises the columns answer"),
    "no JSON": (rows_of({"prompt": "x", "when": {1, 2}}), "cannot be written as JSON"),
    "unseeded": (
        lambda *, count, seed, **c: [{"prompt": str(random.random())}],
        "made other rows from the same count, seed and state",
    ),
    "meddling": (meddling, "changed the context"),
    "closed": (lambda *, count, seed: [{"prompt": "x"}], "raised TypeError"),
    "forgetting": (Forgetting(), "made other rows from the same count, seed and state"),
}


@pytest.mark.parametrize(("generator", "why"), BROKEN_GENERATORS.values(), ids=BROKEN_GENERATORS)
def test_a_generator_that_breaks_the_contract_is_told_how(generator, why):
    assert why in broken(check_generator, generator)


# Schedulers


@pytest.mark.parametrize(
    "scheduler",
    [
        every_ten,
        schedulers.Alternate(fine_tune=7, risen=3),
        schedulers.After(steps=5, at=0.3, phases=2),
    ],
)
def test_a_scheduler_that_keeps_the_contract_passes(scheduler):
    check_scheduler(scheduler)


def test_a_scheduler_sees_buffers_that_fill_and_bursts_that_empty_them():
    seen = []

    def scheduler(progress):
        seen.append((progress.step, progress.unsolved, progress.buffered))
        if progress.buffered:
            return Decision("burst", 2, {}, "the buffer is full")
        return Decision("risen", 1, {}, "it is empty")

    check_scheduler(scheduler, max_steps=4)
    assert {(1, 0, 0), (2, 40, 320), (3, 0, 0), (4, 40, 320)} <= set(seen)


def test_a_scheduler_sees_the_phases_that_it_asked_for():
    seen = {}

    def scheduler(progress):
        seen[progress.step] = [(phase.kind, phase.steps) for phase in progress.phases]
        return every_ten(progress)

    check_scheduler(scheduler, max_steps=12)
    assert seen[10] == [("fine_tune", 10)]
    assert seen[12] == [("fine_tune", 10), ("risen", 5), ("fine_tune", 2)]


def remembering():
    asked = itertools.count()
    return lambda progress: Decision("risen" if next(asked) % 3 else "fine_tune", 1, {}, "r")


def deciding(*fields):
    return lambda progress: Decision(*fields)


BROKEN_SCHEDULERS = {
    "impure": (remembering(), "not a pure function of the progress"),
    "no decision": (lambda progress: "risen", "returned a str at step 1, not a Decision"),
    "no such phase": (deciding("rest", 1, {}, "r"), "decided on the phase 'rest'"),
    "no steps": (deciding("risen", 0, {}, "r"), "a RISEN phase of 0 steps"),
    "half a step": (deciding("risen", 0.5, {}, "r"), "a RISEN phase of 0.5 steps"),
    "a burst of no steps": (deciding("burst", 0, {}, "r"), "a burst of 0 steps"),
    "a burst on nothing": (deciding("burst", 5, {}, "r"), "where the buffers are empty"),
    "no reason": (deciding("fine_tune"), "gave no reason"),
    "no JSON": (deciding("risen", 1, {"beta": {1}}, "r"), "cannot be written as JSON"),
    "raising": (lambda progress: progress.missing, "raised AttributeError at step 1"),
}


@pytest.mark.parametrize(("scheduler", "why"), BROKEN_SCHEDULERS.values(), ids=BROKEN_SCHEDULERS)
def test_a_scheduler_that_breaks_the_contract_is_told_how(scheduler, why):
    assert why in broken(check_scheduler, scheduler)


# Exporters


class Small:
    """An exporter that keeps the contract; the others break one promise each."""

    def refuses(self, config, target, precision):
        layers = config.get("num_hidden_layers") or 0
        return f"it builds 2 layers at most, not {layers}" if layers > 2 else None

    def __call__(self, *, model, out, target, precision, **context):
        raise AssertionError("the checks build nothing")


def test_an_exporter_that_keeps_the_contract_passes():
    check_exporter(Small())


class Wordy(Small):
    def refuses(self, config, target, precision):
        return "one line\nand another"


class Curious(Small):
    def refuses(self, config, target, precision):
        return None if config["model_type"] else "no type"


class Moody(Small):
    def __init__(self):
        self.asked = itertools.count()

    def refuses(self, config, target, precision):
        return "not now" if next(self.asked) % 2 else None


class Careless(Small):
    def refuses(self, config, target, precision):
        config["seen"] = True


class Heavy(Small):
    def refuses(self, config, target, precision):
        import onnxruntime  # noqa: F401  a stand-in for the real one


class Closed(Small):
    def __call__(self, *, model, out, target, precision): ...


BROKEN_EXPORTERS = {
    "two lines": (Wordy(), "None, or the reason in one line"),
    "a field that it needs": (Curious(), "Curious.refuses raised KeyError"),
    "another answer": (Moody(), "refused one model None, then 'not now'"),
    "a changed configuration": (Careless(), "changed the configuration"),
    "something heavy": (Heavy(), "Heavy.refuses loads onnxruntime"),
    "no context": (Closed(), "what a later release adds (**context)"),
}


@pytest.mark.parametrize(("exporter", "why"), BROKEN_EXPORTERS.values(), ids=BROKEN_EXPORTERS)
def test_an_exporter_that_breaks_the_contract_is_told_how(exporter, why, tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    assert why in broken(check_exporter, exporter)


# Modules and the fixture


def test_a_module_that_loads_something_heavy_is_named(tmp_path, monkeypatch):
    (tmp_path / "heavy.py").write_text("import torch\n")
    (tmp_path / "torch.py").write_text("")  # stands in for the real one, which takes seconds
    (tmp_path / "light.py").write_text("import json\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    check_light_import("light")
    assert broken(check_light_import, "heavy") == "importing heavy loads torch"
    assert "No module named 'absent'" in broken(check_light_import, "absent")


def test_the_fixture_is_an_empty_registry(plugins):
    assert isinstance(plugins, Plugins)
    assert plugins.infos() == []


def test_the_checks_do_without_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from risen_plugin import testing\n"
        "import json; print(json.dumps(hasattr(testing, 'check_reward')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is True
