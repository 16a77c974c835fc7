"""Keep a run's record on the machine: a Trainer uploads its whole output folder.

The record holds prompts and sampled answers, and so does the state in each checkpoint.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

import transformers.trainer
from transformers import TrainingArguments

from risen_plugin.errors import ConfigError

_HELD_BACK = ("risen/*", ".risen.tmp/*", ".checkpoint-*")
"""As ``fnmatch`` reads them, where ``*`` matches a ``/`` too: the record, and a checkpoint's."""

_held = {"back": False}
"""Whether the next upload leaves the record out; each run sets it before its own uploads."""

_TRUE = ("1", "ON", "YES", "TRUE")
_UPLOADERS: Mapping[str, tuple[str, str, Callable[[str], bool]]] = {
    "wandb": ("WANDB_LOG_MODEL", "false", lambda value: value.lower() == "checkpoint"),
    "mlflow": ("HF_MLFLOW_LOG_ARTIFACTS", "FALSE", lambda value: value.upper() in _TRUE),
    "dagshub": ("HF_DAGSHUB_LOG_ARTIFACTS", "FALSE", lambda value: value.upper() in _TRUE),
    "comet_ml": ("COMET_LOG_ASSETS", "FALSE", lambda value: value.upper() in _TRUE),
    "clearml": ("CLEARML_LOG_MODEL", "TRUE", lambda value: value.upper() in _TRUE),
    "dvclive": ("HF_DVCLIVE_LOG_MODEL", "FALSE", lambda value: value.lower() == "all"),
}
"""Loggers that upload checkpoints or the whole output folder (transformers 5.23,
``integration_utils``): the variable that asks for it, its value where it is not set, and the test
of a value."""


def hold_back_record(is_held: bool = True) -> None:
    """Have transformers' uploads leave out a run's record from here on, or take it along.

    A Trainer passes the patterns that it leaves out itself, and no setting adds one, so the
    function that it uploads with is wrapped, once for the process.

    :raises ConfigError: if this release uploads in another way.
    """
    shared = getattr(transformers.trainer, "hf_api", None)
    owner: Any = transformers.trainer if shared is None else shared()
    upload = getattr(owner, "upload_folder", None)
    _held["back"] = is_held
    if upload is None and not is_held:
        return
    if upload is None:
        raise ConfigError(
            "this release of transformers uploads in a way that RISEN's record cannot be held "
            "back from; set push_to_hub to False, or upload_record to True to upload it too"
        )
    if not getattr(upload, "holds_back_record", False):
        owner.upload_folder = _holding_back(upload)


def check_uploads(args: TrainingArguments) -> None:
    """Check before the training that the record stays on the machine.

    :raises ConfigError: if a logger is asked to upload checkpoints or the output folder.
    """
    if args.push_to_hub:
        hold_back_record()
    asked = uploader(args.report_to or ())
    if asked is not None:
        raise ConfigError(
            f"{asked} uploads checkpoints, and with them the prompts and answers in RISEN's "
            "record; turn it off, or set upload_record to True"
        )


def uploader(loggers: Collection[str], environment: Mapping[str, str] = os.environ) -> str | None:
    """The variable, with its value, by which a logger would upload the record; None without one.

    :param loggers: the names in ``TrainingArguments.report_to``.
    """
    for name, (variable, unset, uploads) in _UPLOADERS.items():
        value = environment.get(variable, unset)
        if name in loggers and uploads(value):
            return f"{variable}={value}"
    return None


def _holding_back(upload: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(upload)
    def upload_folder(*args: Any, **kwargs: Any) -> Any:
        patterns = kwargs.get("ignore_patterns") or []
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        ours = _HELD_BACK if _held["back"] else ()
        return upload(*args, **{**kwargs, "ignore_patterns": [*patterns, *ours]})

    upload_folder.holds_back_record = True  # type: ignore[attr-defined]
    return upload_folder
