"""A configuration says what is wrong with it before anything is loaded."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin import use
from risen_plugin.config import (
    DEFAULT_GRPO,
    BreakerConfig,
    CurriculumConfig,
    GateConfig,
    GuardConfig,
    LoraSettings,
    RisenConfig,
    Use,
    Weighted,
    check_batches,
    effective_grpo,
)
from risen_plugin.config.grpo import answers_per_batch, rows_per_batch, steps_per_batch
from risen_plugin.errors import ConfigError

LEAST: dict[str, Any] = {"rewards": ["length"], "generator": "jsonl", "scheduler": "after"}

WHOLE_FILE = """
rewards:
  - constraints
  - use: length
    options: {low: 5, high: 80}
    weight: 0.5
    passes_at: 0.9
    graded: false
generator: {use: constraints, options: {path: prompts.jsonl}}
held_out: {use: jsonl, options: {path: held_out.jsonl}}
scheduler: {use: after, options: {steps: 60}}
probe: probe.jsonl
guard: {rows: 32, min_gain: 0.02}
lora: {r: 8, target_modules: [q_proj, v_proj]}
grpo: {num_generations: 4, per_device_train_batch_size: 16, beta: 0.04}
seed: 7
disable: [some-plugin]
"""


def refusal(**changes: Any) -> str:
    """The one line that a configuration with these changes is refused with."""
    with pytest.raises(ConfigError) as caught:
        RisenConfig(**{**LEAST, **changes})
    return one_line(caught.value)


def one_line(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


def yaml_refusal(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        RisenConfig.from_yaml(path)
    said = one_line(caught.value)
    assert str(path) in said
    return said


# Reading


def test_yaml_and_python_give_the_same_configuration(tmp_path: Path) -> None:
    path = tmp_path / "risen.yaml"
    path.write_text(WHOLE_FILE)
    assert RisenConfig.from_yaml(path) == RisenConfig(
        rewards=[
            "constraints",
            use("length", weight=0.5, passes_at=0.9, graded=False, low=5, high=80),
        ],
        generator=use("constraints", path="prompts.jsonl"),
        held_out=use("jsonl", path="held_out.jsonl"),
        scheduler=use("after", steps=60),
        probe="probe.jsonl",
        guard=GuardConfig(rows=32, min_gain=0.02),
        lora=LoraSettings(r=8, target_modules=["q_proj", "v_proj"]),
        grpo={"num_generations": 4, "per_device_train_batch_size": 16, "beta": 0.04},
        seed=7,
        disable=["some-plugin"],
    )


def test_a_key_without_a_value_counts_as_left_out(tmp_path: Path) -> None:
    path = tmp_path / "risen.yaml"
    path.write_text(
        "rewards: [length]\ngenerator: jsonl\nscheduler: after\n"
        "guard:\ngrpo:\nseed:\nprobe:\ndisable:\nheld_out:\nlora:\n"
    )
    assert RisenConfig.from_yaml(path) == RisenConfig(**LEAST)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rewards: [", "risen.yaml:1 is not valid YAML: while parsing a flow node"),
        (b"\xff\xfe", "is not valid YAML"),
        ("- rewards", "holds no mapping; it needs rewards and a generator"),
        ("", "holds no mapping"),
        ("rewards: [length]\nscheduler: after\n", "lacks 'generator'"),
        ("rewards:\ngenerator: jsonl\nscheduler: after\n", "lacks 'rewards'"),
    ],
)
def test_a_file_that_is_no_configuration_is_named_with_the_reason(
    text: str | bytes, said: str, tmp_path: Path
) -> None:
    assert said in yaml_refusal(tmp_path / "risen.yaml", text)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"cannot read {path}: {reason}"):
            RisenConfig.from_yaml(path)
    (tmp_path / "risen.yaml").write_text("rewards: [length]")
    with pytest.raises(ConfigError, match=r"rise\.yaml: No such .*; did you mean '.*/risen\.yaml'"):
        RisenConfig.from_yaml(tmp_path / "rise.yaml")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rewardz: 1", "has no key 'rewardz'; did you mean 'rewards'? It takes: anchor, breaker,"),
        ("guard: {row: 1}", ": guard has no key 'row'; did you mean 'rows'? It takes: batch_size"),
        ("lora: {rank: 1}", ": lora has no key 'rank'"),
        ("scheduler: {use: after, option: {}}", "scheduler has no key 'option'; did you mean 'op"),
        ("rewards: [length, {usee: x}]", ": rewards.1 has no key 'usee'; did you mean 'use'?"),
        ("generator: {options: {}}", ": generator lacks 'use', the name of a plugin's offer"),
        ("generator: {use: 3}", ": generator lacks 'use'"),
        ("generator: {use: jsonl, options: [path]}", ": generator.options is not a mapping"),
        ("guard: [1]", ": guard is not a mapping of names to values"),
        ("grpo: 4", ": grpo is 4; it is a mapping of TRL's GRPOConfig fields"),
        ("rewards: [{use: length, weight: 1e-1}]", "'length': weight is the text '1e-1' (in YAML "),
        ("grpo: {num_generations: 3}", ": grpo.num_generations = 3 does not divide"),
        ("guard: {rows: lots}", ": guard.rows is 'lots'; it is a whole number from 1"),
        ("3: 4", " has no key '3'"),
    ],
)
def test_a_wrong_entry_of_a_file_is_named_with_its_place(
    line: str, said: str, tmp_path: Path
) -> None:
    lines = {"rewards": "[length]", "generator": "jsonl", "scheduler": "after"}
    key, _, value = line.partition(": ")
    text = "\n".join(f"{name}: {entry}" for name, entry in {**lines, key: value}.items())
    assert said in yaml_refusal(tmp_path / "risen.yaml", text)


def test_an_object_may_stand_where_yaml_has_a_name() -> None:
    def mine(**columns: Any) -> list[float]:
        return []

    config = RisenConfig.from_dict({**LEAST, "rewards": [mine]})
    assert config.rewards == [mine]


def test_a_configuration_is_data_that_cannot_be_changed() -> None:
    config = RisenConfig(**LEAST)
    for thing, name in ((config, "seed"), (config.guard, "rows"), (config.lora, "r")):
        with pytest.raises(AttributeError):
            setattr(thing, name, 1)


def test_reading_a_configuration_loads_no_torch() -> None:
    script = "import sys, risen_plugin.config\nprint(sorted({'torch', 'trl'} & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert ran.stdout == "[]\n"


# Values


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rewards": "length"}, "rewards is 'length'; it is a list, such as"),
        ({"rewards": len}, "rewards is <built-in function len>; it is a list"),
        ({"rewards": []}, "rewards is empty; name at least one reward, such as 'constraints'"),
        ({"guard": 4}, "guard is of type int; give GuardConfig(...)"),
        ({"lora": 16}, "lora is of type int; give LoraSettings(...)"),
        ({"grpo": ["beta"]}, "grpo is ['beta']; it is a mapping of TRL's GRPOConfig fields"),
        ({"seed": "1"}, "seed is '1'; it is a whole number"),
        ({"seed": True}, "seed is True"),
        ({"keep_entry": "no"}, "keep_entry is 'no'; it is true or false"),
        ({"disable": "risen-length"}, "disable is 'risen-length'; it is a list of plugins' names"),
        ({"disable": [3]}, "disable is [3]"),
        (
            {"probe": 3},
            "probe is of type int; it is a list of rows, or the path of a JSON Lines file",
        ),
        ({"probe": {"text": "a"}}, "probe is of type dict"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_the_right_kind(
    changes: dict[str, Any], said: str
) -> None:
    assert refusal(**changes).startswith(said)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (GuardConfig, {"rows": 0}, "guard.rows is 0; least is 1"),
        (GuardConfig, {"report_rows": -1}, "guard.report_rows is -1; least is 0"),
        (GuardConfig, {"probe_rows": 0}, "guard.probe_rows is 0; least is 1"),
        (GuardConfig, {"batch_size": 0}, "guard.batch_size is 0; least is 1"),
        (GuardConfig, {"rows": 1.5}, "guard.rows is 1.5; it is a whole number from 1"),
        (GuardConfig, {"min_gain": math.nan}, "guard.min_gain is nan; it is a number"),
        (
            GuardConfig,
            {"max_probe_loss_rise": "5e-2"},
            "guard.max_probe_loss_rise is the text '5e-2' (in YAML write 5.0e-2); it is a number",
        ),
        (LoraSettings, {"r": 0}, "lora.r is 0; least is 1"),
        (LoraSettings, {"alpha": "x"}, "lora.alpha is 'x'; it is a whole number from 1"),
        (LoraSettings, {"target_modules": []}, "lora.target_modules is []; it is a text such as"),
        (LoraSettings, {"target_modules": [1]}, "lora.target_modules is [1]"),
        (Use, {"name": 3}, "the name of a plugin's offer is a text, not 3"),
        (Use, {"name": "a", "options": [1]}, "the options of 'a' are a mapping of names to values"),
        (Use, {"name": "a", "weight": math.inf}, "'a': weight is inf; it is a finite number"),
        (Use, {"name": "a", "passes_at": None}, "'a': passes_at is None; it is a finite number"),
        (Use, {"name": "a", "graded": "no"}, "'a': graded is 'no'; it is true or false"),
        (Weighted, {"reward": len, "weight": "2"}, "reward 'len': weight is '2'"),
    ],
)
def test_a_part_with_an_impossible_value_cannot_be_made(
    kind: Any, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**values)
    assert one_line(caught.value).startswith(said)


def test_a_guard_may_be_told_to_keep_whatever_comes() -> None:
    guard = GuardConfig(min_gain=-math.inf, max_probe_loss_rise=math.inf, report_rows=0)
    assert RisenConfig(**LEAST, guard=guard).guard is guard


# Batches


@pytest.mark.parametrize(
    ("grpo", "said"),
    [
        ({"num_generations": 5}, "grpo.num_generations = 5 does not divide the generation batch "),
        ({"num_generations": 1}, "grpo.num_generations is 1; least is 2"),
        ({"num_generations": "8"}, "grpo.num_generations is '8'; it is a whole number from 2"),
        ({"num_generations": None}, "grpo.num_generations has no value; leave it out for 8"),
        ({"max_completion_length": 0}, "grpo.max_completion_length is 0; least is 1"),
        ({"per_device_train_batch_size": 0}, "grpo.per_device_train_batch_size is 0; least is 1"),
        ({"gradient_accumulation_steps": 0}, "grpo.gradient_accumulation_steps is 0; least is 1"),
        (
            {"generation_batch_size": 64, "steps_per_generation": 2},
            "grpo sets both generation_batch_size and steps_per_generation",
        ),
        ({"generation_batch_size": 40}, "grpo.generation_batch_size = 40 is no multiple of per_de"),
        ({"learning_rate": "1e-4"}, "grpo.learning_rate is the text '1e-4' (in YAML write 1.0e-4)"),
        ({"learning_rate": "2E5"}, "grpo.learning_rate is the text '2E5' (in YAML write 2.0e+5)"),
        ({"learning_rate": math.nan}, "grpo.learning_rate is nan; it is a finite number"),
        ({"beta": "1.5e-3"}, "grpo.beta is the text '1.5e-3' (in YAML write 1.5e-3)"),
    ],
)
def test_a_grpo_number_that_no_phase_can_use_is_refused(grpo: dict[str, Any], said: str) -> None:
    assert refusal(grpo=grpo).startswith(said)


def test_the_refusal_of_a_group_lists_the_groups_that_fit() -> None:
    said = refusal(grpo={"num_generations": 5, "per_device_train_batch_size": 12})
    assert "the generation batch of 12 answers" in said
    assert said.endswith("it can be 2, 3, 4, 6, 12")
    said = refusal(grpo={"per_device_train_batch_size": 1})
    assert said.endswith("it can be nothing: raise the batch to 2 or more")


def test_the_refusal_of_a_batch_names_whose_settings_they_are() -> None:
    with pytest.raises(ConfigError, match=r"^scheduler 'mine'\.num_generations = 3 does not"):
        check_batches({"num_generations": 3}, "scheduler 'mine'")


def test_the_suggested_yaml_is_read_as_the_number_that_was_meant() -> None:
    import yaml

    for text in ("1e-4", "1.e-4", "-3e+5", "2E5", "1.25e-06"):
        said = refusal(grpo={"learning_rate": text})
        suggested = said.split("in YAML write ")[1].split(")")[0]
        assert yaml.safe_load(suggested) == float(text)


@given(
    group=st.integers(2, 12),
    at_once=st.integers(1, 24),
    accumulation=st.integers(1, 4),
    steps=st.none() | st.integers(1, 4),
)
def test_exactly_the_groups_that_divide_the_generation_batch_pass(
    group: int, at_once: int, accumulation: int, steps: int | None
) -> None:
    grpo = {
        "num_generations": group,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": steps,
    }
    if at_once * (steps or accumulation) % group == 0:
        check_batches(grpo)
    else:
        with pytest.raises(ConfigError, match=f"num_generations = {group} does not divide"):
            check_batches(grpo)


@given(batch=st.integers(1, 8).map(lambda n: 32 * n), group=st.integers(2, 40))
def test_a_generation_batch_is_taken_at_its_word(batch: int, group: int) -> None:
    grpo = {"generation_batch_size": batch, "num_generations": group}
    if batch % group == 0:
        check_batches(grpo)
    else:
        with pytest.raises(ConfigError, match=f"generation batch of {batch} answers"):
            check_batches(grpo)


def test_a_decision_comes_before_the_configuration_and_that_before_the_defaults() -> None:
    grpo = effective_grpo({"num_generations": 4, "beta": 0.1}, {"beta": 0.2})
    assert grpo == {**DEFAULT_GRPO, "num_generations": 4, "beta": 0.2}
    assert effective_grpo({}) == dict(DEFAULT_GRPO)


@pytest.mark.parametrize(
    ("settings", "processes", "answers", "steps"),
    [
        ({}, 1, 8, 1.0),
        ({}, 3, 24, 1.0),
        ({"gradient_accumulation_steps": 4}, 1, 32, 1.0),
        ({"gradient_accumulation_steps": 4, "steps_per_generation": 1}, 1, 8, 0.25),
        ({"steps_per_generation": 2, "num_iterations": 3}, 2, 32, 6.0),
        ({"generation_batch_size": 32}, 2, 32, 2.0),
        ({"generation_batch_size": 32, "gradient_accumulation_steps": 8}, 1, 32, 0.5),
    ],
)
def test_what_a_generation_batch_holds_and_how_long_it_lasts(
    settings: dict[str, int], processes: int, answers: int, steps: float
) -> None:
    grpo = effective_grpo({"per_device_train_batch_size": 8, "num_generations": 4}, settings)
    assert answers_per_batch(grpo, processes) == answers
    assert rows_per_batch(grpo, processes) == answers // 4
    assert steps_per_batch(grpo, processes) == steps


def test_the_defaults_are_fit_for_a_phase() -> None:
    check_batches({})
    check_batches(DEFAULT_GRPO)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rewards: [exact]\nseed: 1\nseed: 2\n", ":3 says 'seed' twice; leave one out"),
        ("generator:\n  options: {path: a, path: b}\n", ":2 says 'path' twice; leave one out"),
        (
            "rewards: [exact]\ngenerator: jsonl\nscheduler: {use: after, steps: 3}\n",
            "scheduler has no key 'steps'; the options of a plugin belong under 'options: {steps: ",
        ),
        (
            "rewards: [exact]\ngenerator: {use: jsonl, weight: 2}\nscheduler: after\n",
            "generator has no key 'weight'; it belongs to rewards.",
        ),
    ],
)
def test_yaml_that_means_something_else_than_it_says_is_refused(tmp_path, text, said):
    path = tmp_path / "risen.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        RisenConfig.from_yaml(path)
    assert said in str(caught.value)


# Outcomes


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"on_error": "ignore"}, "'length': on_error is 'ignore'; it is 'stop' or 'skip'"),
        ({"timeout_s": 0}, "'length': timeout_s is 0; it is a number of seconds above 0"),
        ({"timeout_s": -1.0}, "timeout_s is -1.0"),
        ({"timeout_s": float("inf")}, "timeout_s is inf"),
        ({"timeout_s": True}, "timeout_s is True"),
        ({"timeout_s": "1e1"}, "timeout_s is the text '1e1'"),
    ],
)
def test_what_becomes_of_errors_is_checked_at_once(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        use("length", **settings)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        (BreakerConfig, {"max_error_rate": 1.1}, "breaker.max_error_rate is 1.1; it is a share"),
        (BreakerConfig, {"max_error_rate": "lots"}, "breaker.max_error_rate is 'lots'"),
        (BreakerConfig, {"max_error_rate": float("nan")}, "breaker.max_error_rate is nan"),
        (BreakerConfig, {"window": 0}, "breaker.window is 0; least is 1"),
        (GateConfig, {"threshold": "high"}, "gate.threshold is 'high'; it is a finite number, or"),
        (GateConfig, {"threshold": float("inf")}, "gate.threshold is inf"),
        (GateConfig, {"quantile": 1.0}, "gate.quantile is 1.0; it is a share from 0 to below 1"),
    ],
)
def test_limits_that_mean_nothing_are_refused(kind: Any, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**fields)
    assert str(caught.value).startswith(said)


def test_a_file_says_the_breaker_the_gate_and_what_becomes_of_errors(tmp_path: Path) -> None:
    path = tmp_path / "risen.yaml"
    path.write_text(
        "rewards: [{use: judge, on_error: skip, timeout_s: 30, weight: 2}]\n"
        "generator: g\nscheduler: s\n"
        "breaker: {max_error_rate: 0.5}\n"
        "gate:\n  reward: judge\n  threshold: 0.5\n"
        "  quality: {use: length, options: {low: 1, high: 9}}\n"
    )
    config = RisenConfig.from_yaml(path)
    assert config.rewards == [use("judge", on_error="skip", timeout_s=30, weight=2)]
    assert config.breaker == BreakerConfig(0.5, 256)
    assert config.gate == GateConfig("judge", use("length", low=1, high=9), 0.5)


def test_a_gate_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^gate is of type str; give GateConfig\(\.\.\.\)$"):
        RisenConfig(["r"], "g", "s", gate="likelihood")  # type: ignore[arg-type]


# Curriculum


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("curriculum: {inital: 3}", "curriculum has no key 'inital'; did you mean 'initial'?"),
        ("curriculum: {initial: 0}", "curriculum.initial is 0; least is 1"),
        ("curriculum: {explore: 2}", "curriculum.explore is 2; it is a number from 0 to 1"),
        ("curriculum: {half_life: 0}", "curriculum.half_life is 0; it is a number above 0"),
        ("curriculum: {prior: .inf}", "curriculum.prior is inf; it is a number from 0"),
        ("curriculum: {low: 0.8}", "curriculum.low and curriculum.high are 0.8 and 0.7"),
        ("curriculum: {strata: family}", "curriculum.strata is 'family'; it is a list of columns"),
        ("curriculum: {retire_after: 0}", "curriculum.retire_after is 0; least is 1"),
        ("curriculum: {hindsight: 1}", "curriculum.hindsight is 1; it is true or false"),
        ("curriculum: true", "curriculum is not a mapping"),
        ("reserve: startend", "reserve is 'startend'; it is a list of families, or how many"),
        ("reserve: -1", "reserve is -1; least is 0"),
        ("reserve: 1, guard: {report_rows: 0}", "but guard.report_rows is 0; raise that"),
        ("guard: {max_gap: 0.1}, reserve: 0", "max_gap is 0.1, but reserve sets no families apart"),
        ("guard: {max_gap: much}", "guard.max_gap is 'much'; it is a number, or left out"),
    ],
)
def test_what_no_curriculum_can_use_is_refused(line: str, said: str, tmp_path: Path) -> None:
    text = "{rewards: [length], generator: jsonl, scheduler: after, " + line + "}"
    assert said in yaml_refusal(tmp_path / "risen.yaml", text)


def test_a_curriculum_reads_the_same_from_yaml_and_python(tmp_path: Path) -> None:
    path = tmp_path / "risen.yaml"
    path.write_text(
        "{rewards: [length], generator: jsonl, scheduler: after, "
        "curriculum: {initial: 9, strata: [family]}, reserve: [startend]}"
    )
    config = RisenConfig.from_yaml(path)
    assert config.curriculum == CurriculumConfig(initial=9, strata=["family"])
    assert config.reserve == ["startend"]
    assert RisenConfig(["length"], "jsonl", "after").curriculum is None
