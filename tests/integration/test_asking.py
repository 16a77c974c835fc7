"""A model is asked, and its answers are judged, in measurements as in GRPO."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from risen_plugin import RisenCallback
from risen_plugin.config import LoraSettings, Weighted
from risen_plugin.contracts import Prompt
from risen_plugin.embedded import base_model
from risen_plugin.errors import ConfigError
from risen_plugin.training.answering import answers, texts_in_training
from risen_plugin.training.asking import Asking, as_asked, precision_of
from risen_plugin.training.clean_room import clean_room
from risen_plugin.training.grpo import Plan, build_trainer, check_grpo_fields
from risen_plugin.training.losses import encode_probe
from risen_plugin.training.phase_trainer import PhaseTrainer
from risen_plugin.training.protocols import Model
from risen_plugin.training.seam import collects_the_models_ends

from .conftest import ROWS, is_at_end

pytestmark = pytest.mark.slow

CHATS: list[Prompt] = [row["prompt"] for row in ROWS[:3]]
TEXTS: list[Prompt] = ["Order.", "A blue lamp, please."]
BATCH = {"num_generations": 2, "per_device_train_batch_size": 2, "max_completion_length": 8}


class Named:
    __name__ = "named"
    weight = 1.0

    def __call__(self, *, prompts: list[Any], completions: list[Any], **columns: Any) -> list[Any]:
        return [0.0] * len(completions)


@contextmanager
def phase_on(
    model: Any, tokenizer: Any, outer: Any, folder: Path, grpo: Mapping[str, Any]
) -> Iterator[PhaseTrainer]:
    """The GRPO trainer of a phase, in its clean room; it takes the likeliest token."""
    plan = Plan(1, grpo, LoraSettings(), 0, str(folder), "", True)
    with clean_room(model, tokenizer):
        trainer = build_trainer(
            model, tokenizer, [Named()], lambda n: [], outer=outer.args, plan=plan
        )
        trainer.generation_config.do_sample = False
        yield trainer


OF_A_MODEL = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "num_beams": 3,
    "num_return_sequences": 2,
    "min_new_tokens": 8,
    "bad_words_ids": [[70], [71]],
    "suppress_tokens": [*range(60, 100)],
    "begin_suppress_tokens": [*range(100, 140)],
    "forced_eos_token_id": 1,
    "exponential_decay_length_penalty": (1, 1.5),
    "use_cache": False,
}
BUT_ONE = {"no_repeat_ngram_size": 1}


@pytest.fixture
def trained() -> tuple[Any, Any]:
    """The embedded model, whose answers differ, and its tokenizer."""
    place = base_model()
    return AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)


@pytest.mark.parametrize(
    ("prompts", "grpo", "of_the_model", "bf16"),
    [
        (CHATS, {}, {}, False),
        (TEXTS, {}, {}, False),
        (CHATS, {}, OF_A_MODEL, False),
        (CHATS, {"chat_template_kwargs": {"mood": "curt"}}, {}, False),
        (CHATS, {"repetition_penalty": 1.5}, {}, False),
        (CHATS, {"generation_kwargs": {**BUT_ONE, "temperature": 0.5}}, {}, False),
        (CHATS, {"generation_kwargs": {"suppress_tokens": [*range(0, 1020, 2)]}}, {}, False),
        (TEXTS, {"max_completion_length": 3, "mask_truncated_completions": True}, {}, False),
        (CHATS, {}, {"eos_token_id": [*range(0, 1020, 2)]}, False),
        (CHATS, {}, {}, True),
    ],
)
def test_a_measured_model_answers_as_in_grpo_without_chance(
    prompts: list[Prompt],
    grpo: dict[str, Any],
    of_the_model: dict[str, Any],
    bf16: bool,
    trained: tuple[Any, Any],
    make_trainer: Callable[..., Any],
    tmp_path: Path,
) -> None:
    model, tokenizer = trained
    tokenizer.chat_template += "{% if mood %}{{ mood }}{% endif %}"
    plain = answers(model, Asking(tokenizer, BATCH), prompts, batch_size=8)
    for name, value in of_the_model.items():
        setattr(model.generation_config, name, value)
    outer = make_trainer(model, bf16=bf16)
    grpo = {**BATCH, **grpo}
    asking = Asking(tokenizer, grpo, precision_of(outer.args))
    measured = answers(model, asking, prompts, batch_size=8)
    with phase_on(model, tokenizer, outer, tmp_path, grpo) as trainer:
        asked, drawn, _, completions, *_ = trainer._generate(prompts)
    assert asked == [asking.prompt_ids(prompt) for prompt in prompts]
    assert drawn == measured.ids
    assert completions == measured.completions
    assert vars(model.generation_config).items() >= of_the_model.items(), "it has its own again"
    if of_the_model is OF_A_MODEL:
        assert measured == plain
    elif grpo != BATCH or (of_the_model and collects_the_models_ends()):
        assert measured != plain, "the setting has an effect"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chat_template_kwargs": ["no"]}, "chat_template_kwargs is .*; it is a mapping"),
        ({"chat_template_kwargs": {"tokenize": True}}, "'tokenize', which TRL sets itself"),
        ({"generation_kwargs": {"sup_tokens": []}}, "'sup_tokens', which is no setting"),
        ({"generation_kwargs": {"num_return_sequences": 2}}, "num_generations says how many"),
        ({"neftune_noise_alpha": 5.0}, "without noise"),
    ],
)
def test_settings_that_no_model_can_be_asked_by_are_refused(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_grpo_fields(fields, "grpo")


THOUGHT = "<think>count</think>\n\nyes<|im_end|>"


def test_a_measured_answer_is_parsed_as_in_grpo(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trl.chat_template_utils import qwen3_template

    tokenizer.response_template = dict(qwen3_template)
    model = make_model()
    made = torch.tensor([tokenizer(THOUGHT, add_special_tokens=False)["input_ids"]])

    def generate(self: Any, input_ids: Any, **settings: Any) -> torch.Tensor:
        return torch.cat([input_ids, made.to(input_ids.device).expand(len(input_ids), -1)], 1)

    monkeypatch.setattr(type(model), "generate", generate)
    grpo = {**BATCH, "max_completion_length": made.shape[1]}
    measured = answers(model, Asking(tokenizer, grpo), CHATS, batch_size=8)
    with phase_on(model, tokenizer, make_trainer(model), tmp_path, grpo) as trainer:
        completions = trainer._generate(CHATS)[3]
    assert completions == measured.completions
    assert [answer[0]["content"].strip() for answer in completions] == ["yes"] * len(CHATS)
    asked = texts_in_training(model, Asking(tokenizer, grpo), CHATS, batch_size=8)
    assert [text.strip() for text in asked] == ["yes"] * len(CHATS)


def test_a_response_schema_that_transformers_cannot_read_is_refused(tokenizer: Any) -> None:
    tokenizer.response_schema = {"type": "object"}
    with pytest.raises(ConfigError, match="set tokenizer"):
        Asking(tokenizer).read(CHATS[:1], [[1]], [[2]])


def test_a_models_use_cache_does_not_slow_its_answers(
    make_model: Callable[..., Any], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    model.config.use_cache = model.generation_config.use_cache = False
    read: list[int] = []
    forward = type(model).forward

    def spy(self: Any, input_ids: Any = None, **inputs: Any) -> Any:
        read.append(input_ids.shape[1])
        return forward(self, input_ids=input_ids, **inputs)

    monkeypatch.setattr(type(model), "forward", spy)
    answers(model, Asking(tokenizer, BATCH), TEXTS, batch_size=2)
    assert read[1:] == [1] * (len(read) - 1)


def test_a_model_has_its_own_settings_again_when_generating_fails(
    make_model: Callable[..., Any],
) -> None:
    from peft import LoraConfig, get_peft_model

    base: Model = make_model()
    adapted: Any = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"]))
    adapted.generation_config = GenerationConfig(num_beams=2)
    for model in (base, adapted):
        own = model.generation_config
        with as_asked(model, torch.bfloat16):
            assert model.generation_config.num_beams is None
        with pytest.raises(KeyError), as_asked(model, torch.bfloat16):
            raise KeyError
        assert model.generation_config is own
        assert not torch.is_autocast_enabled(model.device.type)


def test_an_adapter_in_single_precision_on_a_mixed_base_is_measured_under_bf16(
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    config: Any,
) -> None:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    base = make_model().to(torch.bfloat16)
    prepare_model_for_kbit_training(base)  # norms in fp32 before matrices in bf16, if quantized
    for name, parameter in base.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if "norm" in name else torch.bfloat16)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    trainer = make_trainer(model, bf16=True)
    callback = RisenCallback(config()).attach(trainer)
    trainer.train()
    assert callback.phases[-1].metrics["rollouts"] == 16


def test_rewards_get_token_ids_and_a_state_from_the_guard_too(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    from trl.rewards import get_soft_overlong_punishment

    seen: dict[str, list[tuple[int, float]]] = {"guard": [], "training": []}
    too_long = get_soft_overlong_punishment(max_completion_len=8, soft_punish_cache=4)

    def judge(completions: list[Any], completion_ids: list[Any], **columns: Any) -> list[float]:
        state = columns["trainer_state"]
        who = "guard" if is_at_end(state) else "training"
        seen[who] += [(len(ids), state.global_step / state.max_steps) for ids in completion_ids]
        return too_long(completion_ids=completion_ids)

    trainer = make_trainer(make_model())
    grpo = {**BATCH, "per_device_train_batch_size": 4}
    callback = RisenCallback(config(rewards=[Weighted(judge, passes_at=0.0)], grpo=grpo))
    callback.attach(trainer)
    trainer.train()
    assert {done for _, done in seen["guard"]} == {1.0}, "judged alike before and after"
    assert {done for _, done in seen["training"]} == {0.0, 0.5}
    assert all(1 <= length <= 8 for length, _ in [*seen["guard"], *seen["training"]])
    assert callback.phases[-1].metrics["guard/adherence_soft_before"] < 0


def test_own_answers_are_learned_as_they_were_asked_for(tokenizer: Any) -> None:
    tokenizer.chat_template += "{% if mood %}{{ mood }}{% endif %}"
    answer = [{"role": "assistant", "content": "yes"}]
    row = {"prompt": CHATS[0], "completion": answer}
    [(plain, _)] = encode_probe(tokenizer, [row], 512)
    curt = {"chat_template_kwargs": {"mood": "curt"}}
    [(ids, labels)] = encode_probe(tokenizer, [{**row, **curt}], 512)
    assert tokenizer.decode(ids) == tokenizer.decode(plain) + "curt"
    learned = tokenizer.decode([label for label in labels if label >= 0])
    assert "yes" in learned, "also where the template opens an answer otherwise than it renders it"


# Noise


def is_random(model: Any) -> bool:
    """Whether two passes of a model that trains differ."""
    ids = torch.tensor([[1, 2, 3, 4]], device=model.device)
    model.train()
    first, second = (model(input_ids=ids).logits for _ in range(2))
    return not torch.equal(first, second)


@pytest.mark.parametrize("noise", ["neftune", "attention", "adapter"])
def test_noise_of_the_outer_trainer_is_off_in_a_phase_and_comes_back(
    noise: str,
    make_model: Callable[..., Any],
    make_trainer: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers.integrations.neftune import activate_neftune

    model = make_model(**({"attention_dropout": 0.5} if noise == "attention" else {}))
    if noise == "adapter":
        lora = LoraConfig(target_modules=["q_proj"], lora_dropout=0.5, init_lora_weights=False)
        model = get_peft_model(model, lora)
    outer = make_trainer(model)
    if noise == "neftune":
        activate_neftune(model, 5.0, outer.accelerator)
    assert is_random(model)

    def fails() -> None:
        with phase_on(model, tokenizer, outer, tmp_path, BATCH) as trainer:
            assert not is_random(trainer.model)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert is_random(model), "also after a phase that failed"
    if noise == "attention":
        keep = {**BATCH, "disable_dropout": False}
        with phase_on(model, tokenizer, outer, tmp_path, keep) as trainer:
            assert is_random(trainer.model)


def test_neftune_is_on_in_fine_tuning_and_off_in_the_phase(
    make_model: Callable[..., Any], make_trainer: Callable[..., Any], config: Any
) -> None:
    model = make_model()
    seen: list[tuple[bool, bool]] = []

    def judge(completions: list[Any], trainer_state: Any, **columns: Any) -> list[float]:
        if not is_at_end(trainer_state):
            seen.append((model.training, is_random(model.get_input_embeddings())))
        return [0.0] * len(completions)

    def is_random(table: Any) -> bool:
        ids = torch.arange(5, device=table.weight.device)[None]
        return not torch.equal(table(ids), table(ids))

    trainer = make_trainer(model, neftune_noise_alpha=15.0)
    RisenCallback(config(rewards=[judge])).attach(trainer)
    after: list[bool] = []

    from transformers import TrainerCallback

    class Looks(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            after.append(is_random(model.get_input_embeddings()))

    trainer.add_callback(Looks())
    trainer.train()
    assert seen
    assert set(seen) == {(True, False)}
    assert after == [True] * 4
