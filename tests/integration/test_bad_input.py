"""Bad input gets one line that names the culprit and the fix, and leaves everything as it was.

What can be known when the callback is made is refused there, what depends on the model or the
Trainer before the first step, and what only shows while a phase runs ends it from inside the clean
room. On the command line the same line and exit code 2, without a traceback.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from risen_plugin import Decision, Progress, RisenCallback, RisenError, use
from risen_plugin.cli import main
from risen_plugin.config import LoraSettings, RisenConfig, Weighted
from risen_plugin.errors import ConfigError, DataError, ExportError, PluginError, RecordError
from risen_plugin.record import read_events
from risen_plugin.rollouts import read_rollouts

from .conftest import PROBE, at_step
from .test_clean_room import same, surroundings, weights

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


def refused(kind: type[RisenError], act: Callable[[], Any]) -> str:
    """The one line of exactly this error."""
    with pytest.raises(RisenError) as caught:
        act()
    assert type(caught.value) is kind, caught.value
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def generator(make_row: Callable[[int], Any]) -> Any:
    """A generator of this many different rows and no end."""

    def mine(*, count: int, seed: int, start: int = 0, **context: Any) -> list[Any]:
        return [make_row(start + index) for index in range(count)]

    return mine


def rewarding(scores: Callable[[int], Any]) -> Any:
    """A reward that returns ``scores(completions)``."""

    def mine(completions: list[Any], **columns: Any) -> Any:
        return scores(len(completions))

    return mine


# Known when the callback is made


def needing(*columns: str) -> Any:
    def mine(completions: list[Any], **given: Any) -> list[float]:
        return [1.0] * len(completions)

    mine.needs = columns  # type: ignore[attr-defined]
    return mine


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"rewards": ["lenght"]}, ConfigError, "no reward is called 'lenght'; did you mean 'lengt"),
        ({"rewards": [use("length", lo=3, high=4)]}, ConfigError, "no option 'lo'; did you mean"),
        ({"generator": "jsonll"}, ConfigError, "no generator is called 'jsonll'; did you mean 'js"),
        ({"scheduler": use("after", stepz=3)}, ConfigError, "'stepz'; did you mean 'steps'?"),
        (
            {"rewards": [needing("famly")]},
            DataError,
            "needs the column 'famly', which rows of generator 'Messages' (",
        ),
        ({"grpo": {"num_generations": 3}}, ConfigError, "grpo.num_generations = 3 does not divide"),
        (
            {"grpo": {"betta": 0.1}},
            ConfigError,
            "grpo has 'betta', which is no field of TRL's GRPO",
        ),
        (
            {"grpo": {"max_steps": 5}},
            ConfigError,
            "grpo may not set 'max_steps': the scheduler dec",
        ),
        ({"grpo": {"learning_rate": "1e-4"}}, ConfigError, "grpo.learning_rate is the text '1e-4'"),
        ({"generator": generator(lambda i: i)}, PluginError, "made 0 as row 0; a row is a mapping"),
        ({"generator": generator(lambda i: 1 / 0)}, PluginError, "raised ZeroDivisionError: divi"),
        (
            {"generator": generator(lambda i: {"text": "a"})},
            DataError,
            "row 0 without a prompt; it",
        ),
        ({"generator": lambda **context: []}, DataError, "has no instructions to offer"),
        ({"generator": lambda **context: None}, PluginError, "returned None, not rows"),
        (
            {"probe": [{"question": "a"}]},
            DataError,
            "probe row 0 has the columns question; a probe",
        ),
        ({"probe": []}, ConfigError, "the probe has no rows; give it some"),
        (
            {"probe": "no/such/probe.jsonl"},
            ConfigError,
            "cannot read the probe no/such/probe.jsonl",
        ),
    ],
)
def test_what_a_configuration_alone_tells_is_refused_as_the_callback_is_made(
    changes: dict[str, Any], kind: type[RisenError], said: str, config: Make
) -> None:
    assert said in refused(kind, lambda: RisenCallback(config(**changes)))


def test_a_misspelt_field_of_the_callback_is_named_with_the_near_miss() -> None:
    said = refused(ConfigError, lambda: RisenCallback(reward=[], generator="", scheduler=""))
    assert said.startswith("RisenCallback has no key 'reward'; did you mean 'rewards'?")


# Known before the first step


class Untouched:
    """A Trainer whose model, tokenizer and output folder must stay as they are."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.model = trainer.model
        self.folder = Path(trainer.args.output_dir)
        self.tensors = weights(self.model)
        self.before = self._marks()
        self.files = everything_in(self.folder.parent)

    def _marks(self) -> dict[str, Any]:
        tokenizer = self.trainer.processing_class
        return {
            "flags": [p.requires_grad for p in self.model.parameters()],
            "modules": [(name, type(module)) for name, module in self.model.named_modules()],
            "forward": "forward" in vars(self.model),
            "padding": (tokenizer.padding_side, tokenizer.pad_token, tokenizer.eos_token),
            "template": tokenizer.chat_template,
        }

    def check(self) -> None:
        assert self.trainer.state.global_step == 0
        assert same(self.tensors, weights(self.model))
        assert self._marks() == self.before
        assert everything_in(self.folder.parent) == self.files


def refused_at_the_start(
    trainer: Any, callback: RisenCallback, kind: type[RisenError], attached: bool
) -> str:
    untouched = Untouched(trainer)

    def train() -> None:
        if attached:
            callback.attach(trainer)
        else:
            trainer.add_callback(callback)
        trainer.train()

    said = refused(kind, train)
    untouched.check()
    return said


@pytest.fixture(params=[True, False], ids=["attached", "callbacks"])
def attached(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        (
            {"probe": None},
            ConfigError,
            "there is nothing to measure retention on: give RisenConfig(probe=...) rows or a JSON",
        ),
        (
            {"generator": generator(lambda i: {"prompt": chat(f"{i} " + 300 * "much ")})},
            DataError,
            "grpo.max_completion_length this model's context leaves 504; shorten the prompt",
        ),
        (
            {"grpo": {"max_completion_length": 512}},
            ConfigError,
            "grpo.max_completion_length = 512 fills the model's context of 512 tokens; lower it",
        ),
        (
            {"generator": generator(lambda i: {"prompt": chat(f"{i % 6}")})},
            DataError,
            "offers no instruction beside the 6 that are held out; lower guard.rows and guard.repo",
        ),
        (
            {"generator": generator(lambda i: {"prompt": chat(f"{i % 5}")})},
            DataError,
            "offers 5 different instructions, but guard.rows and guard.report_rows set 6 apart",
        ),
    ],
)
@pytest.mark.parametrize("sft", [False, True], ids=["Trainer", "SFTTrainer"])
def test_what_does_not_fit_the_model_is_refused_before_the_first_step(
    changes: dict[str, Any],
    kind: type[RisenError],
    said: str,
    sft: bool,
    config: Make,
    make_model: Make,
    make_trainer: Make,
) -> None:
    trainer = make_trainer(make_model(), sft=sft)
    callback = RisenCallback(config(**changes))
    assert said in refused_at_the_start(trainer, callback, kind, attached=not sft)


BEST = {
    "load_best_model_at_end": True,
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "eval_steps": 2,
    "save_steps": 2,
}


def test_loading_the_best_model_at_the_end_is_refused(
    attached: bool, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model(), evaluate=True, **BEST)
    said = refused_at_the_start(trainer, RisenCallback(config()), ConfigError, attached)
    assert said.startswith("load_best_model_at_end could throw accepted RISEN phases away")
    assert "set it to False" in said


def test_several_devices_in_one_process_are_refused(
    attached: bool,
    config: Make,
    make_model: Make,
    make_trainer: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = make_trainer(make_model())
    monkeypatch.setattr(transformers.TrainingArguments, "n_gpu", property(lambda self: 2))
    said = refused_at_the_start(trainer, RisenCallback(config()), ConfigError, attached)
    assert "trains on 2 devices at once (DataParallel)" in said
    assert "start one process per device (torchrun --nproc_per_node 2)" in said


def test_an_output_folder_that_cannot_be_written_is_refused(
    attached: bool, config: Make, make_model: Make, make_trainer: Make, tmp_path: Path
) -> None:
    trainer = make_trainer(make_model())
    shutil.rmtree(trainer.args.output_dir, ignore_errors=True)
    Path(trainer.args.output_dir).write_text("in the way")
    said = refused_at_the_start(trainer, RisenCallback(config()), ConfigError, attached)
    assert f"cannot be written to output_dir {tmp_path / 'run'}: {tmp_path / 'run'} is a f" in said


CAUSAL = {
    "vocab_size": 288,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
T5 = {
    "vocab_size": 288,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
CLASSIFIER = "Qwen2ForSequenceClassification"


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("T5ForConditionalGeneration", T5, "is an encoder-decoder model; RISEN needs a causal lan"),
        (CLASSIFIER, CAUSAL, "cannot generate text; RISEN needs a causal language model (AutoMod"),
    ],
)
def test_a_model_that_is_no_causal_language_model_is_refused(
    name: str,
    settings: dict[str, Any],
    said: str,
    attached: bool,
    config: Make,
    make_trainer: Make,
) -> None:
    kind = getattr(transformers, name)
    trainer = make_trainer(kind(kind.config_class(**settings)))
    assert f"{name} {said}" in refused_at_the_start(
        trainer, RisenCallback(config()), ConfigError, attached
    )


def test_an_adapter_on_a_classifier_is_refused(config: Make, make_trainer: Make) -> None:
    kind = getattr(transformers, CLASSIFIER)
    lora = LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS")
    trainer = make_trainer(get_peft_model(kind(kind.config_class(**CAUSAL)), lora))
    said = refused_at_the_start(trainer, RisenCallback(config()), ConfigError, attached=True)
    assert said.startswith(f"{CLASSIFIER} cannot generate text")


def test_a_tokenizer_without_an_end_of_text_is_refused(
    attached: bool, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    trainer.processing_class.eos_token = None
    said = refused_at_the_start(trainer, RisenCallback(config()), ConfigError, attached)
    assert said == "the tokenizer has no eos_token, so no answer could ever end; set one"


def test_chat_prompts_without_a_chat_template_are_refused(
    attached: bool, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    trainer.processing_class.chat_template = None
    said = refused_at_the_start(trainer, RisenCallback(config()), ConfigError, attached)
    assert said.startswith("there are chat messages to read, but the tokenizer has no chat temp")
    assert said.endswith("set tokenizer.chat_template, or give prompts as plain text")


# Handled


def text_length(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(completion)) for completion in completions]


def test_text_prompts_need_no_chat_template(
    config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    trainer.processing_class.chat_template = None
    changes = {
        "generator": generator(lambda i: {"prompt": f"Question {i}:"}),
        "rewards": [Weighted(text_length, passes_at=0.0)],
        "probe": [{"text": "Question: answer"}],
    }
    callback = RisenCallback(config(**changes)).attach(trainer)
    trainer.train()
    assert callback.phases[1].accepted
    assert trainer.processing_class.chat_template is None


def test_a_model_without_a_pad_token_is_trained_and_its_tokenizer_left_without(
    config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model(pad_token_id=None))
    tokenizer = trainer.processing_class
    tokenizer.pad_token = None
    rows = trainer.train_dataset
    trainer.train_dataset = rows.map(lambda row: {name: ids[:16] for name, ids in row.items()})
    trainer.data_collator = transformers.default_data_collator
    callback = RisenCallback(config()).attach(trainer)
    trainer.train()
    assert [(p.kind, p.accepted) for p in callback.phases] == [("fine_tune", None), ("risen", True)]
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == (None, None)
    assert trainer.model.config.pad_token_id is None
    assert trainer.model.generation_config.pad_token_id is None


# Shown only while a phase runs


def fails_in_a_phase(
    trainer: Any, make_config: Callable[[Any], RisenConfig], kind: type[RisenError]
) -> str:
    """Train until the phase after step 2 fails, and hold everything to what it was before."""
    seen: list[Any] = []
    model, tokenizer = trainer.model, trainer.processing_class

    def scheduler(progress: Progress) -> Decision:
        if progress.step == 2:
            seen.append((weights(model), surroundings(model, tokenizer)))
        return at_step(2)(progress)

    callback = RisenCallback(make_config(scheduler)).attach(trainer)
    said = refused(kind, trainer.train)
    [(tensors, around)] = seen
    assert same(tensors, weights(model))
    left = surroundings(model, tokenizer)
    assert {name for name in around if left[name] != around[name]} == set()
    assert not any(phase.kind == "risen" for phase in callback.phases)
    phase = Path(trainer.args.output_dir) / "risen" / "phase-001"
    assert not phase.exists() or set(everything_in(phase)) <= {"completions.parquet"}
    return said.partition("; the model as it was before the phase is in ")[0]


def later(bad: Callable[[int], Any]) -> Callable[[int], Any]:
    """Fit for the guard's measurements, wrong from the first rollout on."""
    calls: list[int] = []

    def scores(count: int) -> Any:
        calls.append(count)
        return bad(count) if len(calls) > 2 else [0.5] * count

    return scores


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (lambda n: [1.0], "returned 1 scores for 4 completions; it must return one per completion"),
        (lambda n: [float("nan")] * n, "returned nan for completion 0; a score is finite, and No"),
        (lambda n: ["1"] * n, "returned '1' for completion 0; a score is a number or None"),
        (lambda n: None, "returned NoneType, not a list of scores"),
        (later(lambda n: [float("inf")] * n), "returned inf for completion 0; a score is finite"),
        (later(lambda n: [1.0] * (n + 1)), "returned 9 scores for 8 completions"),
    ],
)
def test_a_reward_that_returns_nonsense_ends_the_phase_and_changes_nothing(
    scores: Callable[[int], Any], said: str, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    line = fails_in_a_phase(
        trainer,
        lambda scheduler: config(rewards=[rewarding(scores)], scheduler=scheduler),
        PluginError,
    )
    assert line.startswith("reward 'mine' (")
    assert said in line


@pytest.mark.parametrize("sft", [False, True], ids=["Trainer", "SFTTrainer"])
def test_a_users_adapter_is_put_back_when_a_reward_returns_nonsense(
    sft: bool, config: Make, make_model: Make, make_trainer: Make
) -> None:
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = make_trainer(get_peft_model(make_model(), lora, "mine"), sft=sft)
    scores = later(lambda n: [float("nan")] * n)
    line = fails_in_a_phase(
        trainer,
        lambda scheduler: config(rewards=[rewarding(scores)], scheduler=scheduler),
        PluginError,
    )
    assert "returned nan for completion 0" in line


@pytest.mark.parametrize("attached", [True, False])
def test_the_fine_tuning_before_a_phase_that_fails_is_saved_and_can_be_gone_on_with(
    attached: bool, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    failing = RisenCallback(config(rewards=[rewarding(later(lambda n: [1.0]))]))
    _ = failing.attach(trainer) if attached else trainer.add_callback(failing)
    line = refused(PluginError, trainer.train)
    place = Path(line.partition("; the model as it was before the phase is in ")[2])
    saved = transformers.AutoModelForCausalLM.from_pretrained(place)
    assert same(weights(saved), weights(trainer.model))
    if attached:
        assert place.name == "checkpoint-2"
        again = make_trainer(make_model())
        mended = RisenCallback(config(scheduler=at_step(3), force=True)).attach(again)
        again.train(resume_from_checkpoint=str(place))
        assert [phase.at_step for phase in mended.phases if phase.kind == "risen"] == [3]


def test_a_second_callback_on_one_trainer_is_refused(
    config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    first = RisenCallback(config()).attach(trainer)
    assert first.attach(trainer) is first
    line = refused(ConfigError, lambda: RisenCallback(config()).attach(trainer))
    assert "has a RisenCallback already" in line


def test_what_is_no_configuration_and_no_trainer_is_refused(config: Make) -> None:
    wrong: Any = "risen.yaml"
    assert "RisenConfig.from_yaml" in refused(ConfigError, lambda: RisenCallback(wrong))
    assert "takes a Trainer" in refused(ConfigError, lambda: RisenCallback(config()).attach(wrong))


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["q_prj"], "no module 'q_prj'; did you mean 'q_proj'?"),
        ("layer9", "no module 'layer9'"),
        ("(", "is no regular expression"),
    ],
)
def test_an_adapter_that_finds_no_module_is_refused_as_it_is_attached(
    targets: Any, said: str, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    callback = RisenCallback(config(lora=LoraSettings(target_modules=targets)))
    assert said in refused(ConfigError, lambda: callback.attach(trainer))


def running_wrong(rows: Callable[[int], Any]) -> Any:
    """A generator that goes wrong once it makes rows to train on."""

    def mine(*, count: int, seed: int, start: int = 0, **context: Any) -> Any:
        if start > 6:  # six are set apart, the seventh is looked at before the run
            return rows(count)
        return [{"prompt": chat(f"{start + index}")} for index in range(count)]

    return mine


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        (lambda count: {"here": 1}["gone"], PluginError, "raised KeyError: 'gone'"),
        (lambda count: [None] * count, PluginError, "made None as row 0; a row is a mapping"),
        (lambda count: [{"prompt": chat(600 * "x")}] * count, DataError, "made a prompt of 61"),
    ],
)
def test_a_generator_that_goes_wrong_ends_the_phase_and_changes_nothing(
    rows: Callable[[int], Any],
    kind: type[RisenError],
    said: str,
    config: Make,
    make_model: Make,
    make_trainer: Make,
) -> None:
    line = fails_in_a_phase(
        make_trainer(make_model()),
        lambda scheduler: config(generator=running_wrong(rows), scheduler=scheduler),
        kind,
    )
    assert line.startswith("generator 'mine' (")
    assert said in line


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (None, PluginError, "returned NoneType, not a Decision"),
        (Decision("rissen", 2), PluginError, "chose the phase 'rissen'; there are 'fine_tune',"),  # type: ignore[arg-type]
        (Decision("risen", 0), PluginError, "wants a RISEN phase of 0 steps; it is a whole numbe"),
        (Decision("risen", 2, {"betta": 1}), ConfigError, "has 'betta', which is no field of TRL'"),
        (Decision("risen", 2, {"max_steps": 1}), ConfigError, "may not set 'max_steps': the sched"),
        (
            Decision("risen", 2, {"num_generations": 3}),
            ConfigError,
            "num_generations = 3 does not divide the generation batch of 8",
        ),
        (
            Decision("risen", 2, {"max_completion_length": 64}),
            ConfigError,
            "max_completion_length = 64 fills the model's context of 64",
        ),
    ],
)
def test_a_scheduler_that_answers_nonsense_is_named_before_anything_is_measured(
    answer: Any,
    kind: type[RisenError],
    said: str,
    config: Make,
    make_model: Make,
    make_trainer: Make,
) -> None:
    scored: list[int] = []

    def counting(completions: list[Any], **columns: Any) -> list[float]:
        scored.append(len(completions))
        return [1.0] * len(completions)

    trainer = make_trainer(make_model(max_position_embeddings=64))
    changes = {
        "scheduler": lambda p: answer if p.step == 1 else Decision("fine_tune"),
        "rewards": [counting],
        "generator": generator(lambda i: {"prompt": chat(f"{i}")}),
        "probe": [{"text": "Question: answer"}],
    }
    RisenCallback(config(**changes)).attach(trainer)
    line = refused(kind, trainer.train)
    assert line.startswith("scheduler '<lambda>' (")
    assert said in line
    assert scored == []


def test_groups_that_do_not_divide_a_schedulers_batch_are_refused_with_what_fits(
    config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    RisenCallback(config(scheduler=at_step(2, num_generations=3))).attach(trainer)
    line = refused(ConfigError, trainer.train)
    assert "num_generations = 3 does not divide the generation batch of 8" in line
    assert line.endswith("it can be 2, 4, 8")


# Probes, and what only TRL, PEFT or the answers themselves show


def unreadable_probe(tmp_path: Path, content: bytes) -> str:
    (tmp_path / "probe.jsonl").write_bytes(content)
    return str(tmp_path / "probe.jsonl")


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "a"}\n{\n',
        b"\xff\xfe",
        b"[1]\n",
        b'{"prompt": "a", "completion": null}\n',
    ],
)
def test_a_probe_file_that_holds_no_rows_is_named(
    content: bytes, config: Make, make_model: Make, make_trainer: Make, tmp_path: Path
) -> None:
    trainer = make_trainer(make_model())
    probe = unreadable_probe(tmp_path, content)
    refused(
        DataError,
        lambda: (
            RisenCallback(config(probe=probe))
            .attach(trainer)
            .on_train_begin(
                trainer.args,
                trainer.state,
                trainer.control,
                model=trainer.model,
                processing_class=trainer.processing_class,
            )
        ),
    )


def test_a_chat_probe_without_a_chat_template_is_refused(
    config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    trainer.processing_class.chat_template = None
    changes = {
        "generator": generator(lambda i: {"prompt": f"Question {i}:"}),
        "rewards": [Weighted(text_length, passes_at=0.0)],
        "probe": PROBE,
    }
    refused_at_the_start(trainer, RisenCallback(config(**changes)), ConfigError, attached=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grpo": {"loss_type": "nope"}}, "nope"),
        ({"grpo": {"use_vllm": True}}, "vLLM"),
    ],
)
def test_settings_that_trl_or_peft_refuse_are_told_in_one_line(
    changes: dict[str, Any], said: str, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    RisenCallback(config(**changes)).attach(trainer)
    assert said in refused(ConfigError, trainer.train)


def test_rewards_that_abstain_from_every_instruction_are_refused(
    config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    RisenCallback(config(rewards=[rewarding(lambda n: [None] * n)])).attach(trainer)
    refused(DataError, trainer.train)


# The command line


@pytest.fixture
def risen(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run ``risen`` with bad input; gives the one line that it says."""

    def run(*arguments: object) -> str:
        said = []
        for debug in ((), ("--debug",)):
            with pytest.raises(SystemExit) as stopped:
                main([*debug, *map(str, arguments)])
            assert stopped.value.code == 2
            said.append(capsys.readouterr().err)
        line, whole = said
        assert line.startswith("risen: ")
        assert line.count("\n") == 1
        assert "Traceback" not in line
        assert "Traceback (most recent call last)" in whole  # after what libraries had to say
        assert whole.endswith(line)
        return line.removeprefix("risen: ").rstrip("\n")

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("rewards", "lenght"), "no reward is called 'lenght'; did you mean 'length'? Offered: "),
        (("generators", "json"), "no generator is called 'json'; did you mean 'jsonl'?"),
        (("schedulers", "never"), "no scheduler is called 'never'"),
        (("generate", "no-bundle", "hi"), "no-bundle is not a bundle"),
        (("export", "no-such/model", "OUT"), "'no-such/model' is neither a folder nor a model on"),
        (("export", "./no-such-model", "OUT"), "there is no folder ./no-such-model"),
    ],
)
def test_an_unknown_name_is_one_line(
    arguments: tuple[str, ...],
    said: str,
    risen: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert risen(*arguments).startswith(said)
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("exprot",), "there is no command 'exprot'; did you mean 'export'?"),
        (("export", "--forse", "a", "b"), "No such option"),
        (("demo", "--seed", "one"), "'one' is not a valid integer"),
    ],
)
def test_a_command_line_that_means_nothing_ends_with_exit_code_2(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


# risen export


@pytest.fixture(scope="module")
def model_folder(tokenizer_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(tokenizer_folder, folder)
    torch.manual_seed(0)
    settings: dict[str, Any] = {**CAUSAL, "hidden_size": 32, "eos_token_id": 258}
    config = transformers.Qwen2Config(**settings)
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def spoilt(model_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model with other ``config.json`` values or other files."""

    def make(config: Mapping[str, Any] | None = None, **files: bytes) -> Path:
        folder = tmp_path / "spoilt"
        shutil.copytree(model_folder, folder)
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **(config or {})}))
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_bytes(content)
        return folder

    return make


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architectures": ["Qwen2ForCausalLMs"]}, "cannot be exported; did you mean 'Qwen2ForCau"),
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel cannot be exporte"),
        ({"architectures": [CLASSIFIER]}, "is a classification model"),
        ({"is_encoder_decoder": True}, "is an encoder-decoder model"),
        ({"architectures": "Qwen2ForCausalLM"}, "names no architectures; add the list with the"),
    ],
)
def test_a_model_that_cannot_be_exported_is_refused_before_its_weights_are_read(
    config: dict[str, Any],
    said: str,
    spoilt: Callable[..., Path],
    risen: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = spoilt(config)
    monkeypatch.setattr("risen_export.merge.load", None)
    assert said in risen("export", folder, tmp_path / "new" / "out")
    assert everything_in(tmp_path) == ["spoilt", *(f"spoilt/{n}" for n in everything_in(folder))]


@pytest.mark.parametrize(
    ("config", "files", "said"),
    [
        ({}, {"model__safetensors": b"no weights"}, "cannot be loaded: Error while deserializing"),
        ({}, {"tokenizer__json": b"{"}, "the tokenizer in "),
        ({"hidden_size": 48}, {}, " asks for (288, 48); they do not belong together"),
        ({"hidden_size": "32"}, {}, "cannot be loaded: Validation error for field 'hidden_size'"),
        ({"model_type": "nope"}, {}, "cannot be loaded: The checkpoint you are trying to load has"),
    ],
)
def test_a_model_folder_that_is_damaged_is_named_and_nothing_is_left(
    config: dict[str, Any],
    files: dict[str, bytes],
    said: str,
    spoilt: Callable[..., Path],
    risen: Callable[..., str],
    tmp_path: Path,
) -> None:
    folder = spoilt(config, **files)
    before = everything_in(tmp_path)
    line = risen("export", folder, tmp_path / "new" / "out", "--quiet")
    assert str(folder) in line
    assert said in line
    assert everything_in(tmp_path) == before


def test_a_damaged_adapter_is_named_and_nothing_is_left(
    model_folder: Path, risen: Callable[..., str], tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    names = {"base_model_name_or_path": str(model_folder), "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(names))
    (adapter / "adapter_model.safetensors").write_bytes(b"no weights")
    assert str(adapter) in risen("export", adapter, tmp_path / "out", "--quiet")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("taken", "exists and is left as it is; choose another OUT, or replace it with --force"),
        ("file", "exists and is left as it is"),
        ("file/out", "cannot write the bundle"),
    ],
)
def test_an_out_that_is_taken_or_cannot_be_is_refused_before_a_model_is_loaded(
    out: str,
    said: str,
    model_folder: Path,
    risen: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("precious")
    (tmp_path / "file").write_text("precious")
    monkeypatch.setattr("risen_export.merge.load", None)
    line = risen("export", model_folder, tmp_path / out, "--quiet")
    assert str(tmp_path / out) in line
    assert said in line
    assert everything_in(tmp_path) == ["file", "taken", "taken/mine"]
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("size", ["16k", "120k", "140k", "200k"])
def test_a_full_disk_is_one_line_and_nothing_is_left_on_it(
    size: str, model_folder: Path, disk: Callable[[str], Path]
) -> None:
    """The disk is full when the model is saved, its tokenizer, the graph, and the bundle."""
    from risen_export import export

    place = disk(f"size={size}")
    said = refused(ExportError, lambda: export(model_folder, place / "out", progress=False))
    assert said.startswith(f"cannot write the bundle {place / 'out'}: ")
    assert "No space left on device" in said
    assert everything_in(place) == []


def test_a_disk_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    model_folder: Path,
    disk: Callable[[str], Path],
    risen: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = disk("ro")
    monkeypatch.setattr("risen_export.merge.load", None)
    monkeypatch.setattr("risen_export.demo.run.run_demo", None)
    line = risen("export", model_folder, place / "out", "--quiet")
    assert line == (
        f"cannot write the bundle {place / 'out'}: Read-only file system; nothing was left"
    )
    line = risen("demo", "--out", place / "demo")
    assert line == (
        f"cannot write to {place / 'demo'}: Read-only file system; choose another --out"
    )


def test_a_run_on_a_disk_that_cannot_be_written_is_refused_before_the_first_step(
    config: Make, make_model: Make, make_trainer: Make, disk: Callable[[str], Path]
) -> None:
    trainer = make_trainer(make_model())
    trainer.args.output_dir = str(disk("ro") / "run")
    said = refused_at_the_start(trainer, RisenCallback(config()), ConfigError, attached=True)
    assert said.endswith("takes no files; choose another")


@pytest.mark.parametrize("size", ["16k", "32k"])
def test_a_disk_that_fills_up_in_a_phase_is_one_warning_and_the_training_goes_on(
    size: str,
    config: Make,
    make_model: Make,
    make_trainer: Make,
    disk: Callable[[str], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The disk is full when the answers are logged, or when the adapter is saved."""
    folders = [str(disk(f"size={size}") / "run"), None]
    models = []
    for folder in folders:
        trainer = make_trainer(make_model())
        trainer.args.output_dir = folder or trainer.args.output_dir
        callback = RisenCallback(config(scheduler=at_step(2))).attach(trainer)
        with caplog.at_level(logging.WARNING, logger="risen_plugin"):
            trainer.train()
        assert [phase.accepted for phase in callback.phases] == [None, True]
        assert trainer.state.global_step == 4
        models.append(trainer.model)
    assert same(weights(models[0]), weights(models[1]))
    [said] = [r.message for r in caplog.records if "has gaps" in r.message]
    assert "No space left on device" in said
    record = Path(str(folders[0])) / "risen"
    assert not [path for path in record.rglob("*") if path.name.startswith(".")]
    lines = (record / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == sorted(
        event["step"] for event in read_events(record / "events.jsonl")
    )
    for log in record.rglob("*.parquet"):
        assert len(list(read_rollouts(log))) == 16


def test_a_second_run_in_the_folder_of_a_live_one_is_refused_before_its_first_step(
    config: Make, make_model: Make, make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(make_model())
    command = [sys.executable, "-c", _HOLDING, trainer.args.output_dir]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "holding\n"
        said = refused_at_the_start(trainer, RisenCallback(config()), RecordError, attached=True)
        other.kill()
    assert f"another run writes to {trainer.args.output_dir} (process {other.pid}" in said


_HOLDING = """
import sys
from risen_plugin.record import Record
Record(sys.argv[1]).begin({})
print("holding", flush=True)
sys.stdin.read()
"""


# risen demo


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_demo_leaves_an_existing_out_as_it_is(
    kind: str, risen: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        (out / "mine").write_text("precious")
    else:
        out.write_text("precious")
    before = everything_in(tmp_path)
    line = risen("demo", "--quick", "--out", out)
    assert line == f"{out} exists; name a new folder with --out, or remove it"
    assert everything_in(tmp_path) == before


def test_the_demo_cannot_write_below_a_file(risen: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    line = risen("demo", "--quick", "--out", tmp_path / "file" / "out")
    assert line.startswith(f"cannot write to {tmp_path / 'file' / 'out'}: ")
    assert line.endswith("; choose another --out")


@pytest.mark.parametrize("model", ["no-such/model", "./no-such-folder"])
def test_the_demo_names_a_model_that_is_not_there_and_makes_no_folder(
    model: str, risen: Callable[..., str], tmp_path: Path
) -> None:
    assert model in risen("demo", "--quick", "--out", tmp_path / "out", "--model", model)
    assert everything_in(tmp_path) == []
