"""Bad input gets one line that names the culprit and the fix, and leaves everything as it was.

What can be known when the callback is made is refused there, what depends on the model or the
Trainer before the first step.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from peft import LoraConfig, get_peft_model

from risen_plugin import RisenCallback, RisenError, use
from risen_plugin.config import LoraSettings, Weighted
from risen_plugin.errors import ConfigError, DataError, PluginError

from .conftest import PROBE
from .refusing import (
    CAUSAL,
    CLASSIFIER,
    chat,
    generator,
    refused,
    refused_at_the_start,
    rewarding,
)

pytestmark = pytest.mark.slow

Make = Callable[..., Any]


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


T5 = {
    "vocab_size": 288,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 16,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}


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
    assert "set tokenizer.chat_template, or give prompts as plain text" in said
    assert said.endswith("(generators that make chats of texts take chat=False)")


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
        ({"grpo": {"loss_type": "nope"}}, "grpo.loss_type is 'nope'. It is one of grpo, "),
        ({"grpo": {"use_vllm": True}}, "grpo.use_vllm needs the package vllm"),
    ],
)
def test_settings_that_trl_or_peft_refuse_are_told_in_one_line(
    changes: dict[str, Any], said: str, config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())

    def train() -> None:
        RisenCallback(config(**changes)).attach(trainer)
        trainer.train()

    assert said in refused(ConfigError, train)


def test_rewards_that_abstain_from_every_instruction_are_refused(
    config: Make, make_model: Make, make_trainer: Make
) -> None:
    trainer = make_trainer(make_model())
    RisenCallback(config(rewards=[rewarding(lambda n: [None] * n)])).attach(trainer)
    refused(DataError, trainer.train)
