"""What is assumed of every private name of another library that a run reaches for.

Also run against the newest releases and against the lowest that are required: ``tox -e newest`` and
``tox -e lowest``.
"""

from __future__ import annotations

import ast
import configparser
import inspect
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Trainer, TrainerCallback, TrainingArguments
from trl.trainer.grpo_trainer import GRPOTrainer

from risen_plugin.config import LoraSettings, effective_grpo
from risen_plugin.embedded import orders
from risen_plugin.errors import ConfigError
from risen_plugin.run.fitness import check_arguments
from risen_plugin.training.grpo import Plan, build_trainer, train
from risen_plugin.training.outer_trainer import resumed_from
from risen_plugin.training.seam import SEAM, SINCE, Reach, check_seam, fused_lm_head, lacking

ROOT = Path(__file__).parents[2]
Make = Callable[..., Any]
ONLY_WITH_VLLM = {"vllm_generation"}


# The list ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", SEAM, ids=lambda reach: f"{reach.owner}.{reach.name}")
def test_the_installed_release_has_the_name(reach: Reach):
    """A release before the one that brought a name does without it."""
    assert (lacking(reach) is None) == reach.is_expected


def test_the_installed_model_builder_has_its_names():
    pytest.importorskip("onnxruntime_genai")
    from risen_export.backends.genai import BUILDER

    for reach in BUILDER:
        assert lacking(reach) is None


def test_the_installed_transformers_says_which_classes_tie():
    from risen_export.merging.weights import TIES

    for reach in TIES:
        assert lacking(reach) is None


def test_each_name_is_listed_once_and_says_why():
    assert len({(reach.owner, reach.name) for reach in SEAM}) == len(SEAM)
    assert all(reach.why and reach.library in SINCE for reach in SEAM)


def test_the_lowest_releases_that_are_required_are_those_that_it_was_tried_with():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    listed = "\n".join((setup["options"]["install_requires"], extras["cpu"], extras["report"]))
    required = dict(re.findall(r"^([\w-]+)>=([\w.]+)", listed, re.MULTILINE))
    trained_with = {reach.library for reach in SEAM}
    assert {library: required[library] for library in trained_with} == {
        library: SINCE[library] for library in trained_with
    }
    pins = re.findall(
        r"^([\w-]+)==([\w.]+)", (ROOT / "constraints-lowest.txt").read_text(), re.MULTILINE
    )
    tried = dict(pins)
    for library, lowest in required.items():
        if library != "torch":  # another one would be gigabytes more
            assert _parts(tried[library])[: len(_parts(lowest))] == _parts(lowest), library


def _parts(release: str) -> list[str]:
    return release.split(".")


# Missing names -------------------------------------------------------------------------------

MISSING = [
    (
        Reach("trl.trainer.utils", "put_a_head_on", "function", "it is needed"),
        "trl {trl}: it has no trl.trainer.utils.put_a_head_on (it is needed)",
    ),
    (
        Reach("trl.trainer.no_such_module", "put_a_head_on", "function", "it is needed"),
        "trl {trl}: it has no trl.trainer.no_such_module (it is needed)",
    ),
    (
        Reach("transformers.trainer.NoTrainer", "train", "method", "it is needed"),
        "transformers {transformers}: it has no transformers.trainer.NoTrainer (it is needed)",
    ),
    (
        Reach("transformers.trainer.Trainer", "train", "method", "it is needed", ("from_where",)),
        "transformers {transformers}: transformers.trainer.Trainer.train takes no 'from_where'",
    ),
    (
        Reach("transformers.trainer.Trainer", "_no_loss", "attribute", "it is needed"),
        "transformers {transformers}: transformers.trainer.Trainer has no attribute '_no_loss'",
    ),
    (
        Reach("accelerate.state.PartialState", "_no_state", "class attribute", "it is needed"),
        "accelerate {accelerate}: it has no accelerate.state.PartialState._no_state",
    ),
]


@pytest.mark.parametrize(("reach", "said"), MISSING)
def test_a_missing_name_is_said_in_one_line_with_library_and_release(reach: Reach, said: str):
    with pytest.raises(ConfigError) as caught:
        check_seam([reach])
    releases = {reach.library: metadata.version(reach.library) for reach in SEAM}
    assert said.format(**releases) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_is_refused_at_its_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delattr("trl.trainer.grpo_trainer.GRPOTrainer._generate_and_score_completions")
    with pytest.raises(ConfigError, match=r"trl [\d.]+: it has no .*_generate_and_score_compl"):
        check_arguments(TrainingArguments(str(tmp_path), use_cpu=True))


@pytest.mark.parametrize(
    ("installed", "added", "expected"),
    [
        ("1.14.2", "1.15", False),
        ("1.14.1", "1.14.2", False),
        ("1.15.0", "1.15", True),
        ("1.9.2", "1.15", False),
        ("1.16.0.dev0", "1.15", True),
        ("2.0", "1.15", True),
        ("1.9.0", "", True),
    ],
)
def test_a_name_is_looked_for_from_the_release_on_that_brought_it(
    monkeypatch: pytest.MonkeyPatch, installed: str, added: str, expected: bool
):
    monkeypatch.setattr(metadata, "version", lambda library: installed)
    reach = Reach("trl.trainer.utils", "put_a_head_on", "function", "it is needed", added=added)
    assert reach.is_expected is expected
    if expected:
        with pytest.raises(ConfigError, match=r"has no trl\.trainer\.utils\.put_a_head_on"):
            check_seam([reach])
    else:
        check_seam([reach])


# A trainer at work ---------------------------------------------------------------------------


class Watching(TrainerCallback):
    """Notes the events of a trainer, its step counter beside them, and asks for a checkpoint."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.trainer: Any = None
        self.begun: dict[str, Any] = {}

    def note(self, event: str) -> None:
        self.events.append((event, self.trainer._step))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self.trainer
        self.begun = {
            "loss": float(trainer._tr_loss),
            "total": trainer._total_loss_scalar,
            "logged": trainer._globalstep_last_logged,
            "scheduler": kwargs["lr_scheduler"],
        }
        self.note("begin")

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note("step begins")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note("step ends")
        control.should_save = state.global_step == 2

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.note("log")


@pytest.fixture
def phase(
    make_model: Make, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """Four GRPO steps on a tiny model, two to each batch of answers, with what happened."""
    watching = Watching()

    def supply(count: int) -> list[Any]:
        watching.note("drawn")
        return orders.draw(count, len(watching.events))

    def reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        return [float(place % 2) for place, _ in enumerate(completions)]

    reward.weight = 1.0  # type: ignore[attr-defined]
    plan = Plan(
        steps=4,
        grpo=effective_grpo(
            {
                "num_generations": 2,
                "per_device_train_batch_size": 4,
                "max_completion_length": 4,
                "gradient_accumulation_steps": 1,
                "steps_per_generation": 2,
                "logging_steps": 1,
                "use_adaptive_entropy": True,
                "entropy_target": 10.0,
            }
        ),
        lora=LoraSettings(r=2),
        seed=0,
        output_dir=str(tmp_path),
        label="",
        quiet=True,
    )
    outer = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to=[], dataloader_pin_memory=False
    )
    model = make_model()
    trainer: Any = build_trainer(model, tokenizer, [reward], supply, outer=outer, plan=plan)
    built = set(vars(trainer))
    watching.trainer = trainer
    trainer.add_callback(watching)
    monkeypatch.setattr(
        type(trainer), "_save_checkpoint", lambda self, model, trial: watching.note("save")
    )
    train(trainer, plan)
    return SimpleNamespace(model=model, trainer=trainer, built=built, watching=watching)


@pytest.mark.slow
def test_a_trainer_has_the_attributes_when_they_are_reached_for(phase: SimpleNamespace):
    objects = {
        "Trainer": phase.trainer,
        "GRPOTrainer": phase.trainer,
        "Accelerator": phase.trainer.accelerator,
        "PeftModel": phase.trainer.model,
    }
    attributes = [reach for reach in SEAM if reach.kind == "attribute" and reach.is_expected]
    for reach in attributes:
        if reach.name not in ONLY_WITH_VLLM:
            assert hasattr(objects[reach.owner.rpartition(".")[2]], reach.name), reach
    after_construction = {reach.name for reach in attributes if reach.owner.endswith("GRPOTrainer")}
    assert after_construction - ONLY_WITH_VLLM <= phase.built


@pytest.mark.slow
def test_a_trainer_begins_with_a_loss_of_zero_to_which_one_is_added(phase: SimpleNamespace):
    begun = phase.watching.begun
    assert (begun["loss"], begun["total"], begun["logged"]) == (0.0, 0.0, 0)
    trainer = phase.trainer
    assert isinstance(trainer._tr_loss, torch.Tensor)
    assert trainer._globalstep_last_logged == 4
    assert begun["scheduler"] is trainer.lr_scheduler
    assert isinstance(trainer.lr_scheduler.base_lrs, list)


@pytest.mark.slow
def test_metrics_are_lists_by_name(phase: SimpleNamespace):
    assert all(isinstance(values, list) for values in phase.trainer._metrics["train"].values())


@pytest.mark.slow
def test_rows_are_drawn_where_a_batch_is_answered_and_a_step_is_saved_after_its_log(
    phase: SimpleNamespace,
):
    """Two steps to a batch; the step counter counts micro-batches, and is even between batches."""
    assert phase.watching.events == [
        ("begin", 0),
        ("step begins", 0),
        ("drawn", 0),
        ("step ends", 1),
        ("log", 1),
        ("step begins", 1),
        ("step ends", 2),
        ("log", 2),
        ("save", 2),
        ("step begins", 2),
        ("drawn", 2),
        ("step ends", 3),
        ("log", 3),
        ("step begins", 3),
        ("step ends", 4),
        ("log", 4),
        ("log", 4),
    ]


@pytest.mark.slow
def test_adaptive_entropy_is_two_numbers(phase: SimpleNamespace):
    trainer = phase.trainer
    assert trainer.entropy_coef == pytest.approx(4 * trainer.args.entropy_coef_delta)
    assert 0.0 < trainer._last_world_entropy < 10.0


@pytest.mark.slow
def test_the_temperature_is_where_it_is_set(phase: SimpleNamespace):
    trainer = phase.trainer
    assert trainer.temperature == trainer.args.temperature == 1.0
    assert trainer.generation_config.temperature == 1.0
    assert trainer.generation_kwargs["temperature"] == 1.0


def test_the_fused_head_puts_a_forward_over_the_models(make_model: Make):
    add_fused_lm_head = fused_lm_head()
    if add_fused_lm_head is None:
        pytest.skip("TRL has the fused head from 1.15 on")
    model = make_model()
    assert "forward" not in vars(model)
    ids = torch.tensor([[1, 2, 3, 4]])
    spread = []
    for temperature in (1.0, 100.0):
        vars(model).pop("forward", None)
        add_fused_lm_head(
            model,
            temperature=temperature,
            cast_lm_head_to_fp32=False,
            outputs=("log_probs", "entropy"),
        )
        assert "forward" in vars(model)
        spread.append(
            float(model(input_ids=ids, labels=ids, fused_lm_head=True).entropy.detach().mean())
        )
    assert spread[0] < spread[1]


# The outer Trainer ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_running_call_has_the_checkpoint_that_it_resumes_from(make_model: Make, tmp_path: Path):
    class Looking(TrainerCallback):
        def __init__(self) -> None:
            self.seen: list[Path | None] = []

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seen.append(resumed_from())

    args = TrainingArguments(
        str(tmp_path), max_steps=1, save_steps=1, use_cpu=True, report_to=[], disable_tqdm=True
    )
    looking = Looking()
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8

    def trainer() -> Trainer:
        return Trainer(make_model(), args, train_dataset=rows, callbacks=[looking])

    trainer().train()
    trainer().train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert looking.seen == [None, tmp_path / "checkpoint-1"]


@pytest.mark.slow
def test_a_trainer_saves_where_it_is_asked_and_takes_its_sampler_from_the_method(
    make_model: Make, tmp_path: Path
):
    asked: list[Any] = []

    class Sampled(Trainer):
        def _get_train_sampler(self, *given: Any, **named: Any) -> Any:
            asked.append((given, named))
            return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    args = TrainingArguments(
        str(tmp_path), max_steps=1, save_strategy="no", use_cpu=True, report_to=[]
    )
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 8
    trainer = Sampled(make_model(), args, train_dataset=rows)
    trainer.train()
    assert len(asked) == 1
    trainer._save_checkpoint(trainer.model, trial=None)
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").is_file()


# accelerate and PEFT -------------------------------------------------------------------------


def test_accelerates_shared_state_is_the_attributes_of_every_instance():
    for state in (AcceleratorState, PartialState, GradientState):
        assert isinstance(state._shared_state, dict)
    made = GradientState()
    assert vars(made) is GradientState._shared_state


def test_an_adapters_parameters_have_its_name_between_dots(make_model: Make):
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(make_model(), lora, "mine")
    assert isinstance(model, PeftModel)
    assert set(model.peft_config) == {"mine"}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(".mine." in name for name in trained)


def test_trls_reference_is_an_adapter_called_ref_made_from_the_one_called_default():
    source = inspect.getsource(sys.modules[GRPOTrainer.__module__])
    assert '"ref"' in source
    assert '"default"' in source


# Nobody else reaches -------------------------------------------------------------------------

ROOMS = [ROOT / "risen_plugin", ROOT / "export" / "risen_export"]
SEAMS = [
    ROOT / "risen_plugin" / "training",
    ROOT / "export" / "risen_export" / "backends" / "genai.py",
    ROOT / "export" / "risen_export" / "engine" / "genai.py",  # genai's own engine, behind ours
    ROOT / "export" / "risen_export" / "merging" / "weights.py",
]
LIBRARIES = {
    *("transformers", "trl", "accelerate", "peft", "torch", "datasets", "tokenizers"),
    *("onnxruntime", "onnxruntime_genai", "onnx_ir", "huggingface_hub", "safetensors", "pyarrow"),
}
ONLY_IN_THE_SEAM = {"trl", "accelerate", "onnxruntime_genai"}


def _outside() -> list[Path]:
    files = [file for room in ROOMS for file in sorted(room.rglob("*.py"))]
    return [file for file in files if not any(file.is_relative_to(seam) for seam in SEAMS)]


def reaches_of(source: str) -> list[str]:
    """What a module outside the seam reaches for and may not, each with its line."""
    tree = ast.parse(source)
    ours = _private_names_of(tree)
    found = []
    for node in ast.walk(tree):
        for what in _reached(node, ours):
            found.append(f"{getattr(node, 'lineno', 0)}: {what}")
    return found


def _private_names_of(tree: ast.AST) -> set[str]:
    """Private names that a module makes itself: of its functions, classes and its own objects."""
    made = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                made.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            made.add(node.target.id)
    return made


def _reached(node: ast.AST, ours: set[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [name for alias in node.names for name in _refused(alias.name)]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        paths = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name for path in paths for name in _refused(path)]
    if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_of_self(node):
        return [] if node.attr in ours - THEIRS else [f".{node.attr}"]
    if isinstance(node, ast.ClassDef) and any("Trainer" in ast.unparse(b) for b in node.bases):
        return [f"{node.name}.{name}" for name in sorted(THEIRS & _names_in(node))]
    name = _named_in(node)
    return [] if not _is_private(name) or name in ours - THEIRS else [f"{name!r}"]


def _named_in(node: ast.AST) -> str:
    """A name of theirs as a text, or the text that ``getattr`` and its like are called with."""
    if isinstance(node, ast.Constant) and node.value in THEIRS:
        return str(node.value)
    if not isinstance(node, ast.Call) or len(node.args) < 2:
        return ""
    reaches = ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr")
    named = node.args[1]
    if not reaches or not isinstance(named, ast.Constant) or named.value in THEIRS:
        return ""  # a name of theirs is found as the text that it is
    return str(named.value)


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def _names_in(tree: ast.AST) -> set[str]:
    """Names of a class's methods, and of what they set or read of the instance."""
    nodes = list(ast.walk(tree))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)} | {
        node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_of_self(node)
    }


THEIRS = {reach.name for reach in SEAM if reach.name.startswith("_")}


def _refused(path: str) -> list[str]:
    library, *names = path.split(".")
    if library in ONLY_IN_THE_SEAM or (
        library in LIBRARIES and any(_is_private(name) for name in names)
    ):
        return [path]
    return []


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@pytest.mark.parametrize("file", _outside(), ids=lambda file: str(file.relative_to(ROOT)))
def test_no_other_module_reaches_for_a_private_name(file: Path):
    assert reaches_of(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import trl",
        "def f():\n    from accelerate.state import PartialState",
        "from transformers._private import name",
        "from peft.utils import _get_submodules",
        "import onnxruntime_genai.models.builder",
        "def f(trainer):\n    return trainer._tr_loss",
        "def f(trainer):\n    return getattr(trainer, '_tr_loss')",
        "def f(model):\n    return getattr(model, '_unlisted', None)",
        "class A(Trainer):\n    def _get_train_sampler(self): ...",
        "class A(Trainer):\n    def f(self):\n        self._step = 1",
    ],
)
def test_the_search_finds_what_is_reached_for(source: str):
    assert len(reaches_of(source)) == 1
