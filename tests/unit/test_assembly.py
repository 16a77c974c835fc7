"""A configuration becomes objects that fit each other, or one line that says which do not."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin import Decision, Progress, __version__, use
from risen_plugin.config import GateConfig, GuardConfig, RisenConfig, Weighted
from risen_plugin.errors import ConfigError, DataError, PluginError, RisenError
from risen_plugin.instructions.rows import check_columns, draw
from risen_plugin.plugins.offers import Built
from risen_plugin.rewards.calling import wrap
from risen_plugin.run.assembly import Parts, assemble

OURS = f"(risen-plugin {__version__})"


def shouting(completions: list[Any], **columns: Any) -> list[float]:
    return [float(completion.isupper()) for completion in completions]


def exact(completions: list[Any], answer: list[Any], **columns: Any) -> list[float]:
    return [float(c == a) for c, a in zip(completions, answer, strict=True)]


exact.needs = ("answer",)  # type: ignore[attr-defined]


def questions(*, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"{seed}+{i}?", "answer": seed + i} for i in range(count)]


def never(progress: Progress) -> Decision:
    return Decision("fine_tune")


@dataclass
class Counting:
    """A generator that keeps state: it counts on."""

    made: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, *, count: int, seed: int, **context: Any) -> Iterable[dict[str, Any]]:
        self.seen.append({"count": count, "seed": seed, **context})
        for _ in range(count):
            self.made += 1
            yield {"prompt": f"question {self.made}", "answer": self.made}

    def state_dict(self) -> dict[str, Any]:
        return {"made": self.made}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.made = state["made"]


def parts(**changes: Any) -> Parts:
    fields: dict[str, Any] = {"rewards": [shouting], "generator": questions, "scheduler": never}
    return assemble(RisenConfig(**{**fields, **changes}))


def refusal(kind: type[RisenError], **changes: Any) -> str:
    with pytest.raises(RisenError) as caught:
        parts(**changes)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def made_by(rows: Callable[[], Any]) -> Built:
    return Built(lambda *, count, seed, **context: rows(), "mine", "generator 'mine' (me)")


# What comes out


def test_names_objects_and_uses_become_parts_with_their_origins() -> None:
    built = parts(
        rewards=[shouting, use("length", low=1, high=9, weight=0.5), Weighted(exact, graded=False)],
        generator=use("jsonl", rows=[{"prompt": "a", "answer": "b"}]),
        scheduler=use("after", steps=3),
    )
    assert [r.__name__ for r in built.rewards] == ["shouting", "length", "exact"]
    gradings = [reward.grading for reward in built.rewards]
    assert [(g.weight, g.graded) for g in gradings] == [(1.0, True), (0.5, True), (1.0, False)]
    assert built.rewards[1].label == f"reward 'length' {OURS}"
    assert built.generator.label == f"generator 'jsonl' {OURS}"
    assert built.held_out is built.generator
    assert built.schedule(Progress(step=9, max_steps=9)).steps == 3
    assert built.origins == {
        "reward:shouting": __name__,
        "reward:length": f"risen-plugin {__version__}",
        "reward:exact": __name__,
        "generator:jsonl": f"risen-plugin {__version__}",
        "scheduler:after": f"risen-plugin {__version__}",
    }


def test_parts_that_keep_state_are_known_by_their_role() -> None:
    generator, held_out = Counting(), Counting()
    assert parts(generator=generator).stateful() == {"generator": generator}
    assert parts(generator=generator, held_out=held_out).stateful() == {
        "generator": generator,
        "held_out": held_out,
    }
    assert parts(generator=generator, held_out=generator).stateful() == {"generator": generator}
    assert parts().stateful() == {}


def test_the_first_look_at_a_generator_leaves_its_state_as_it_was() -> None:
    generator = Counting(made=5)
    parts(generator=generator)
    assert generator.made == 5
    assert [call["count"] for call in generator.seen] == [1]


def test_assembling_loads_no_torch() -> None:
    script = (
        "import sys\n"
        "from risen_plugin import RisenConfig, use\n"
        "from risen_plugin.run.assembly import assemble\n"
        "assemble(RisenConfig([use('regex', pattern='a')], use('jsonl', rows=[{'prompt': 'a'}]),"
        " use('after', steps=1)))\n"
        "print(sorted({'torch', 'trl', 'transformers', 'peft'} & set(sys.modules)))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_callback_loads_what_it_needs_when_it_needs_it() -> None:
    """No run with its module, and no phase with the callback that is built."""
    script = (
        "import sys\n"
        "def ours(): return {m for m in sys.modules if m.startswith('risen_plugin.')}\n"
        "from risen_plugin.callback import RisenCallback\n"
        "imported = ours()\n"
        "rows = lambda count, seed, **context: [{'prompt': 'a'}] * count\n"
        "RisenCallback(rewards=[lambda completions, **c: [0.0] * len(completions)],"
        " generator=rows)\n"
        "phases = sorted(m for m in ours() if m.startswith('risen_plugin.phases.'))\n"
        "print(len(imported), *phases, sep='\\n')\n"
        "print(*sorted(m for m in imported if m.split('.')[1] in"
        " ('phases', 'instructions', 'guard', 'commands') or m.endswith(('.state', '.active'))))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported, *phases, early = ran.stdout.split("\n")[:-1]
    assert int(imported) <= 30
    assert early == ""
    assert all(name.startswith("risen_plugin.phases.leftovers") for name in phases)
    assert "risen_plugin.phases.leftovers.mixing" not in phases


# What does not fit


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rewards": ["lenght"]},
            "no reward is called 'lenght'; did you mean 'length'? Offered: constraints, exact,",
        ),
        ({"generator": "jsnl"}, "no generator is called 'jsnl'; did you mean 'jsonl'?"),
        ({"held_out": "jsnl"}, "no generator is called 'jsnl'"),
        ({"scheduler": "afer"}, "no scheduler is called 'afer'; did you mean 'after'?"),
        (
            {"rewards": [use("length", lo=1, high=2)]},
            f"reward 'length' {OURS} has no option 'lo'; did you mean 'low'? It takes: low, high,",
        ),
        ({"rewards": ["length"]}, f"reward 'length' {OURS} needs the options 'low' and 'high'."),
        (
            {"rewards": [use("length", low="1", high=2)]},
            f"reward 'length' {OURS} takes int for 'low', not str '1'",
        ),
        (
            {"rewards": [use("length", low=5, high=2)]},
            f"reward 'length' {OURS}: low (5) must not be above high (2)",
        ),
        ({"scheduler": use("after", steps=0)}, f"scheduler 'after' {OURS}: steps must be a whole"),
        (
            {"rewards": [shouting, shouting]},
            "two rewards are called 'shouting'; TRL logs them by name, so wrap one in a function",
        ),
        (
            {"rewards": [use("length", low=1, high=2), use("length", low=3, high=4)]},
            "two rewards are called 'length'",
        ),
        (
            {"rewards": [Weighted(shouting, graded=False)]},
            "no reward is graded, so adherence cannot be measured; grade one",
        ),
        ({"rewards": [3]}, "reward 'int' (builtins) cannot be called; a reward is a callable"),
        ({"scheduler": Decision("risen", 3)}, "scheduler 'Decision' (risen_plugin.contracts) cann"),
        (
            {"generator": Counting},
            f"generator 'Counting' ({__name__}) is a class; give an object of it: Counting(...)",
        ),
    ],
)
def test_what_is_unknown_or_no_plugin_object_is_named_with_the_fix(
    changes: dict[str, Any], said: str
) -> None:
    assert refusal(ConfigError, **changes).startswith(said)


def test_what_the_guard_measures_by_is_named_with_the_settings_place() -> None:
    guard = GuardConfig(domain="exat")
    with pytest.raises(ConfigError) as refused:
        assemble(RisenConfig(rewards=[exact], generator=questions, guard=guard))
    said = str(refused.value)
    assert said.startswith("guard.domain takes a reward, or 'metric:NAME' of compute_metrics: ")
    assert "did you mean 'exact'?" in said


def test_rows_that_lack_what_a_reward_needs_are_refused_with_the_near_miss() -> None:
    def almost(*, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
        return [{"prompt": "a", "answers": 1}]

    for changes in ({"generator": almost}, {"held_out": almost}):
        said = refusal(DataError, rewards=[exact], **changes)
        assert said == (
            f"reward 'exact' ({__name__}) needs the column 'answer', which rows of generator "
            f"'almost' ({__name__}) lack; did you mean 'answers'? They have: prompt, answers"
        )


def test_a_generator_without_instructions_is_refused() -> None:
    def nothing(*, count: int, seed: int, **context: Any) -> list[dict[str, Any]]:
        return []

    said = f"generator 'nothing' ({__name__}) has no instructions to offer"
    assert refusal(DataError, generator=nothing) == said
    assert refusal(DataError, held_out=nothing) == said


def test_a_probe_that_cannot_be_opened_is_refused_before_a_run_starts(tmp_path: Path) -> None:
    missing = tmp_path / "probe.jsonl"
    assert refusal(ConfigError, probe=str(missing)) == (
        f"cannot read the probe {missing}: No such file or directory"
    )
    assert refusal(ConfigError, probe=tmp_path).endswith("Is a directory")
    missing.write_text('{"text": "a"}\n')
    assert parts(probe=missing)


# Drawing


def test_a_generator_is_asked_with_what_the_contract_promises() -> None:
    generator = Counting()
    part = Built(generator, "counting", "generator 'counting' (me)")
    assert [row["answer"] for row in draw(part, 2, 7, start=4)] == [1, 2]
    [asked] = generator.seen
    generate = asked.pop("generate")
    assert asked == {"count": 2, "seed": 7, "pass_rates": {}, "start": 4}
    assert generate(["Why?", "How?"]) == ["", ""]  # there is no model yet


@given(st.integers(0, 9), st.none() | st.integers(0, 9))
def test_no_more_rows_are_taken_than_were_asked_for(count: int, offered: int | None) -> None:
    numbers = itertools.count() if offered is None else range(offered)
    part = made_by(lambda: ({"prompt": f"p{number}"} for number in numbers))
    rows = draw(part, count, 0)
    assert len(rows) == (count if offered is None else min(count, offered))


@pytest.mark.parametrize(
    "prompt",
    [
        "a question",
        [{"role": "user", "content": "a question"}],
        [{"role": "user", "content": [{"type": "text", "text": "a question"}]}],
        [{"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "7"}],
    ],
)
def test_a_prompt_is_a_text_or_a_chat(prompt: Any) -> None:
    assert draw(made_by(lambda: [{"prompt": prompt}]), 1, 0) == [{"prompt": prompt}]


def raising(error: Exception) -> Callable[[], Any]:
    def rows() -> Any:
        yield {"prompt": "a"}
        raise error

    return rows


ROLE = "a prompt is a text, or a list of messages with role and content"


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        (raising(ValueError("a\nb")), PluginError, "raised ValueError: a b"),
        (raising(DataError("no file")), DataError, ": no file"),
        (lambda: None, PluginError, "returned None, not rows"),
        (lambda: 1 / 0, PluginError, "raised ZeroDivisionError: division by zero"),
        (lambda: [["prompt"]], PluginError, "made ['prompt'] as row 0; a row is a mapping with a"),
        (lambda: {"prompt": "a"}, PluginError, "made 'prompt' as row 0; a row is a mapping"),
        (lambda: [{"prompt": "a"}, None], PluginError, "made None as row 1"),
        (
            lambda: [{"text": "a", "n": 1}],
            DataError,
            "made row 0 without a prompt; it has: text, n",
        ),
        (lambda: [{}], DataError, "made row 0 without a prompt; it has: nothing"),
        (lambda: [{"prompt": ""}], DataError, "made row 0 with an empty prompt"),
        (lambda: [{"prompt": []}], DataError, "made row 0 with an empty prompt"),
        (lambda: [{"prompt": 7}], DataError, f"made row 0 with the prompt 7; {ROLE}"),
        (lambda: [{"prompt": None}], DataError, "made row 0 with the prompt None"),
        (lambda: [{"prompt": b"a"}], DataError, "made row 0 with the prompt b'a'"),
        (lambda: [{"prompt": ["a"]}], DataError, "made row 0 with the prompt ['a']"),
        (lambda: [{"prompt": [{"content": "a"}]}], DataError, "made row 0 with the prompt [{'con"),
        (lambda: [{"prompt": [{"role": "user"}]}], DataError, "made row 0 with the prompt [{'rol"),
        (lambda: [{"prompt": {"role": "a", "content": "b"}}], DataError, "made row 0 with the pro"),
        (
            lambda: [{"prompt": "a"}, {"prompt": [{"role": "user", "content": "a"}]}],
            DataError,
            "made text and chat prompts side by side; a supply has one form",
        ),
        (lambda: [{"prompt": "a", 3: 4}], DataError, "made row 0 with the column 3; a column's na"),
        (
            lambda: [{"prompt": "a", "completions": 4}],
            DataError,
            "made row 0 with the column 'completions'; a column's name is a text, and none of prom",
        ),
    ],
)
def test_rows_that_no_phase_can_use_are_refused_in_one_line(
    rows: Callable[[], Any], kind: type[RisenError], said: str
) -> None:
    with pytest.raises(RisenError) as caught:
        draw(made_by(rows), 4, 0)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    label, _, rest = str(caught.value).partition(" (me)")
    assert label == "generator 'mine'"
    assert rest.lstrip().startswith(said)


# Columns


@given(
    needs=st.sets(st.sampled_from("abcd")),
    columns=st.lists(st.sets(st.sampled_from("abcd")), max_size=4),
)
def test_rows_pass_exactly_if_each_has_every_column_that_is_needed(
    needs: set[str], columns: list[set[str]]
) -> None:
    def mine(**columns: Any) -> list[float]:
        return []

    mine.needs = tuple(needs)  # type: ignore[attr-defined]
    rows = [dict.fromkeys(names, 1) for names in columns]
    rewards = [wrap(mine, "mine", "reward 'mine' (me)")]
    if all(needs <= names for names in columns):
        check_columns(rows, rewards, "generator 'x'")
    else:
        with pytest.raises(DataError, match=r"reward 'mine' .* needs the column '[abcd]'"):
            check_columns(rows, rewards, "generator 'x'")


def test_a_needed_column_may_hold_nothing() -> None:
    check_columns([{"prompt": "a", "answer": None}], [wrap(exact, "exact", "")], "")


# The gate


def good(completions: list[Any], colour: list[Any], **columns: Any) -> list[float]:
    return [1.0 for _ in completions]


def test_a_gate_finds_its_reward_by_name_or_object_and_scores_quality_itself() -> None:
    for given_reward in ("shouting", shouting):
        gate = parts(gate=GateConfig(given_reward)).gate
        assert gate is not None
        assert gate.reward.reward is shouting
        assert gate.quality is None
    assert parts().gate is None


def test_the_quality_of_a_gate_may_be_one_of_the_rewards_or_a_reward_of_its_own() -> None:
    length = use("length", low=1, high=9)
    shared = parts(rewards=[shouting, length], gate=GateConfig("shouting", "length"))
    assert shared.gate is not None
    assert shared.gate.quality is shared.rewards[1]
    assert shared.asked == shared.rewards
    apart = parts(gate=GateConfig("shouting", Weighted(exact, on_error="skip", timeout_s=3)))
    assert apart.gate is not None
    assert apart.gate.quality is not None
    grading = apart.gate.quality.grading
    assert (grading.on_error, grading.timeout_s) == ("skip", 3)
    assert apart.asked == (*apart.rewards, apart.gate.quality)
    assert apart.origins["reward:exact"] == __name__


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"gate": GateConfig()},
            "gate.reward is 'constraints', which is none of the rewards. They are: shouting",
        ),
        (
            {"gate": GateConfig("shoutin")},
            "gate.reward is 'shoutin', which is none of the rewards; did you mean 'shouting'?",
        ),
        (
            {"gate": GateConfig("shouting", "shouting")},
            "gate.quality and gate.reward are both 'shouting'; quality is another score",
        ),
        ({"gate": GateConfig("shouting", "lenght")}, "no reward is called 'lenght'; did you mean"),
        (
            {
                "rewards": [shouting, use("length", low=1, high=9)],
                "gate": GateConfig("shouting", use("length", low=2, high=3)),
            },
            "gate.quality and one of the rewards are both called 'length'; give its name alone",
        ),
    ],
)
def test_a_gate_whose_parts_are_not_there_is_refused(changes: dict[str, Any], said: str) -> None:
    assert refusal(ConfigError, **changes).startswith(said)


def test_a_column_that_only_the_quality_needs_is_missed_before_a_run_starts() -> None:
    said = refusal(DataError, gate=GateConfig("shouting", good))
    assert "reward 'good'" in said
    assert "needs the column 'colour'" in said


def test_a_reward_called_like_the_models_own_quality_is_told_apart() -> None:
    def likelihood(completions: list[Any], **columns: Any) -> list[float]:
        return [0.0 for _ in completions]

    said = refusal(ConfigError, rewards=[likelihood], gate=GateConfig("likelihood"))
    assert said.startswith("gate.quality 'likelihood' is the model's own, and a reward is called")
