"""The run that an advice asks for, as ``risen train`` reads it. Pure: mappings in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from risen_plugin.commands.advise.advice import Advice
from risen_plugin.commands.advise.sizes import Fit

_PROBE_ROWS = 256


def drafted(
    model: str, *, data: str | None, risen: Mapping[str, Any] | None, seed: int
) -> dict[str, Any]:
    """The run that is measured, with both the data and the instructions."""
    draft: dict[str, Any] = {"model": model}
    if data is not None:
        draft["data"] = data
    if risen is not None:
        draft["risen"] = dict(risen)
    return {**draft, "seed": seed}


def fitted(draft: Mapping[str, Any], tune: Fit | None, risen: Fit | None) -> dict[str, Any]:
    """The draft with batch sizes, and an adapter if need be, that fit into memory."""
    changed = dict(draft)
    if tune is not None and "data" in draft:
        changed["fine_tune"] = {
            **draft.get("fine_tune", {}),
            "per_device_train_batch_size": tune.rows,
            "gradient_accumulation_steps": tune.accumulation,
        }
        if tune.only_adapter and draft.get("lora") is None:
            changed["lora"] = {}
    if risen is not None and "risen" in draft and risen.accumulation > 1:
        grpo = {
            **draft["risen"].get("grpo", {}),
            "per_device_train_batch_size": risen.rows,
            "gradient_accumulation_steps": risen.accumulation,
        }
        changed["risen"] = {**draft["risen"], "grpo": grpo}
    return changed


def run_of(advice: Advice, draft: Mapping[str, Any]) -> dict[str, Any] | None:
    """The mapping of ``run.yaml`` for the advice; None where nothing is to be trained."""
    if advice.course == "nothing":
        return None
    run = dict(draft)
    if advice.course == "fine_tune":
        run.pop("risen", None)
    else:
        run["risen"] = {**draft["risen"], "scheduler": advice.schedule}
    if advice.course == "risen":
        run.pop("fine_tune", None)
        data = run.pop("data", None)
        if data is not None:
            run["evaluation"] = _as_probe(data, run.get("evaluation"))
    else:
        settings = {k: v for k, v in run.get("fine_tune", {}).items() if k != "num_train_epochs"}
        run["fine_tune"] = {**settings, "max_steps": advice.fine_tune_steps}
    return run


def _as_probe(data: Any, evaluation: Any) -> Any:
    """Rows whose loss is watched where nothing is fine-tuned: an evaluation file, or the data."""
    if isinstance(evaluation, str | Mapping):
        return evaluation
    source = {"path": data} if isinstance(data, str) else dict(data)
    return {**source, "limit": _PROBE_ROWS}
