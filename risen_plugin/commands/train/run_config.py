"""``RUN.yaml`` as frozen data: model, rows, fine-tuning arguments, RISEN section, output folder.

Read and checked without torch. The fields of TRL's ``SFTConfig`` are checked later, when TRL is
loaded, and still before a model is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from risen_plugin.config import LoraSettings, RisenConfig, check_keys
from risen_plugin.errors import ConfigError, located, near_miss, near_path
from risen_plugin.kit.checks import EXPONENT, check_whole, is_number, shown
from risen_plugin.kit.yaml_files import read_mapping

DType: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
Quantized: TypeAlias = Literal["4bit", "8bit"]
_NEEDS = "model, and data or risen"
_OF_COMPUTING = (
    "bf16",
    "fp16",
    "tf32",
    "use_cpu",
    "activation_checkpointing",
    "gradient_checkpointing",
    "ddp_backend",
    "ddp_timeout",
    "report_to",
)
"""Fields of ``SFTConfig`` that a phase takes over from the run: how it computes and logs."""

_OF_RISEN = {entry.name for entry in dataclasses.fields(RisenConfig)}


@dataclass(frozen=True)
class DataSource:
    """Rows to fine-tune or evaluate on.

    :param path: JSON Lines, ``.json`` (a list), ``.parquet``, or a folder that ``datasets`` saved.
    :param dataset: in place of ``path``, a dataset's id on the hub.
    :param split: the split of a dataset; ``train[:1000]`` takes the first rows.
    :param columns: our names of columns (``prompt``, ``completion``, ``messages``, ``text``) to
        those that the rows have.
    :param limit: take the first rows only; None for all.
    """

    path: str | None = None
    dataset: str | None = None
    split: str = "train"
    columns: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None

    @property
    def name(self) -> str:
        """The name of the source in messages."""
        return str(self.path or f"dataset '{self.dataset}', split '{self.split}'")


@dataclass(frozen=True)
class RunConfig:
    """One run of ``risen train``.

    :param model: the folder or hub id of a causal language model.
    :param data: rows to fine-tune on; None for RISEN alone.
    :param evaluation: rows to evaluate on, or a part of ``data``: a share below 1, or a whole
        number of rows; None for none.
    :param fine_tune: fields of TRL's ``SFTConfig``, those of ``TrainingArguments`` among them.
    :param lora: train an adapter of this shape in place of the model; None trains the model.
    :param risen: the RISEN phases; None for fine-tuning alone.
    :param output: the folder of the run.
    :param dtype: of the weights when loaded; ``auto`` takes float32, but on a GPU, where only an
        adapter is trained, the model's own.
    :param seed: of everything random; ``risen.seed`` and ``fine_tune.data_seed`` may differ.
    :param quantize: hold the weights in 4 or 8 bits by bitsandbytes, under ``lora`` (QLoRA); None
        holds them as ``dtype`` says.
    """

    model: str
    data: DataSource | None = None
    evaluation: DataSource | float | int | None = None
    fine_tune: Mapping[str, Any] = field(default_factory=dict)
    lora: LoraSettings | None = None
    risen: RisenConfig | None = None
    output: str | None = None
    dtype: DType = "auto"
    seed: int = 0
    quantize: Quantized | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model.strip():
            raise ConfigError(f"model is {self.model!r}; it is the folder or hub id of a model")
        if self.data is None and self.risen is None:
            raise ConfigError(
                "there is neither data to fine-tune on nor a risen section, so there is nothing "
                "to do; give one of them"
            )
        if self.dtype not in get_args(DType):
            hint = near_miss(str(self.dtype), get_args(DType)) or "."
            raise ConfigError(
                f"dtype is {self.dtype!r}{hint} It is one of {', '.join(get_args(DType))}"
            )
        self._check_quantize()
        check_whole("seed", self.seed, 0)
        if self.output is not None and (not isinstance(self.output, str) or not self.output):
            raise ConfigError(f"output is {self.output!r}; it is the path of a folder")
        self._check_evaluation()
        self._check_fine_tune()

    def _check_quantize(self) -> None:
        if self.quantize is None:
            return
        if self.quantize not in get_args(Quantized):
            hint = near_miss(str(self.quantize), get_args(Quantized)) or "."
            raise ConfigError(
                f"quantize is {shown(self.quantize)}{hint} It is one of "
                f"{', '.join(get_args(Quantized))}"
            )
        if self.lora is None:
            raise ConfigError(
                f"quantize is {self.quantize}, but quantized weights cannot be trained themselves; "
                "add lora: {}, which trains an adapter on them"
            )

    def _check_evaluation(self) -> None:
        share = self.evaluation
        if share is None or isinstance(share, DataSource):
            return
        if self.data is None:
            raise ConfigError(
                f"evaluation is {shown(share)}, a part of data, but there is no data; name a file"
            )
        if isinstance(share, int) and not isinstance(share, bool):
            check_whole("evaluation", share, 1)
        elif not is_number(share) or not 0.0 < share < 1.0:
            raise ConfigError(
                f"evaluation is {shown(share)}; it is a file, a share above 0 and below 1, or a "
                "whole number of rows"
            )

    def _check_fine_tune(self) -> None:
        fields = self.fine_tune
        if not isinstance(fields, Mapping):
            raise ConfigError(
                f"fine_tune is {fields!r:.60}; it is a mapping of TRL's SFTConfig fields to values"
            )
        for name, value in fields.items():
            if isinstance(value, str) and EXPONENT.fullmatch(value):
                raise ConfigError(f"fine_tune.{name} is {shown(value)}")
        unused = [name for name in fields if name not in _OF_COMPUTING]
        if unused and self.data is None:
            raise ConfigError(
                f"fine_tune has {', '.join(map(str, unused))}, but there is no data to fine-tune "
                f"on; a run of RISEN alone takes {', '.join(_OF_COMPUTING)} from there"
            )
        if "max_steps" in fields and "num_train_epochs" in fields:
            raise ConfigError(
                "fine_tune sets both max_steps and num_train_epochs, which say the same; leave "
                "one out"
            )
        evaluates = fields.get("eval_strategy", "no") not in ("no", None, False)
        if evaluates and self.evaluation is None:
            raise ConfigError(
                "fine_tune.eval_strategy asks for evaluations, but there is no evaluation set; "
                "add evaluation: a file, or a share such as 0.05"
            )

    @classmethod
    def from_yaml(cls, path: str | Path) -> RunConfig:
        """Read a YAML file; see :meth:`from_dict`.

        :raises ConfigError: if the file cannot be read or does not hold such a mapping.
        """
        return cls.from_dict(read_run(path), str(path))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "run") -> RunConfig:
        """Read the form that YAML has; a key without a value counts as left out.

        :raises RisenError: for an unknown or missing key, naming it and the near miss, and for
            values that no run can use, naming ``where`` they were read.
        """
        with located(where):
            return cls._read(
                {key: value for key, value in data.items() if value is not None}, where
            )

    @classmethod
    def _read(cls, data: dict[str, Any], where: str) -> RunConfig:
        known = {entry.name for entry in dataclasses.fields(cls)}
        for key in data:
            if key not in known and key in _OF_RISEN:
                raise ConfigError(
                    f"{where} has no key '{key}'; it belongs under risen: risen.{key}"
                )
        check_keys(data, known, where)
        if "model" not in data:
            raise ConfigError(f"{where} lacks 'model', the folder or hub id of a model")
        read = dict(data)
        check_whole("seed", read.get("seed", 0), 0)
        for name in ("data", "evaluation"):
            if isinstance(read.get(name), str | Mapping):
                read[name] = _source(read[name], f"{where}: {name}")
        if "data" in read and not isinstance(read["data"], DataSource):
            raise ConfigError(f"{where}: data is {read['data']!r:.60}; it is a file or a mapping")
        if "lora" in read:
            read["lora"] = _lora(read["lora"], f"{where}: lora")
        if "risen" in read:
            read["risen"] = _risen(read["risen"], read.get("seed", 0), f"{where}: risen")
        return cls(**read)


def read_run(path: str | Path) -> Mapping[str, Any]:
    """The mapping in a run's YAML file, unchecked."""
    if not Path(path).exists():
        raise ConfigError(f"there is no file '{path}'{near_path(Path(path))}")
    return read_mapping(path, _NEEDS)


def _source(source: str | Mapping[str, Any], where: str) -> DataSource:
    if isinstance(source, str):
        return DataSource(path=source)
    check_keys(source, {entry.name for entry in dataclasses.fields(DataSource)}, where)
    known = {key: value for key, value in source.items() if value is not None}
    sources = [name for name in ("path", "dataset") if name in known]
    if len(sources) != 1:
        raise ConfigError(
            f"{where} names {' and '.join(sources) or 'no rows'}; give one of path (a file) and "
            "dataset (an id on the hub)"
        )
    for name in ("path", "dataset", "split"):
        if name in known and not isinstance(known[name], str):
            raise ConfigError(f"{where}.{name} is {known[name]!r}; it is a text")
    if "split" in known and Path(known.get("path", ".")).is_file():
        raise ConfigError(
            f"{where}.split is of datasets, and '{known['path']}' is a file; limit takes its first "
            "rows"
        )
    columns = known.get("columns", {})
    if not isinstance(columns, Mapping) or not all(isinstance(v, str) for v in columns.values()):
        raise ConfigError(
            f"{where}.columns is {columns!r:.60}; it is a mapping such as "
            "{prompt: question, completion: answer}"
        )
    check_keys(columns, {"prompt", "completion", "messages", "text"}, f"{where}.columns")
    if "limit" in known:
        check_whole(f"{where}.limit", known["limit"], 1)
    return DataSource(**known)


def _lora(settings: object, where: str) -> LoraSettings:
    if not isinstance(settings, Mapping):
        raise ConfigError(
            f"{where} is {settings!r:.60}; it is a mapping such as {{r: 16, alpha: 32}}, or {{}}"
        )
    check_keys(settings, {entry.name for entry in dataclasses.fields(LoraSettings)}, where)
    return LoraSettings(**settings)


def _risen(section: object, seed: object, where: str) -> RisenConfig:
    if not isinstance(section, Mapping):
        raise ConfigError(
            f"{where} is {section!r:.60}; it is a mapping with rewards, generator and scheduler"
        )
    config = RisenConfig.from_dict({"seed": seed, **section}, where)
    if config.guard.domain_metric is not None:
        raise ConfigError(
            f"{where}: guard.domain is {config.guard.domain!r}, but a run without a script has no "
            "compute_metrics; name a reward there"
        )
    return config
