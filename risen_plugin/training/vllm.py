"""Look at vLLM before a run relies on it, and keep TRL's use of it from leaving traces.

TRL samples by vLLM in two modes: ``server``, a process of its own that gets the weights over HTTP
and NCCL, and ``colocate``, an engine in the process that trains. Everything that TRL would find
missing minutes later, in the first phase, is looked for here, when a run starts.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from risen_plugin.errors import ConfigError, one_line

DEVICE = "cuda"
"""The kind of device that NCCL sends weights from."""

_START = (
    'VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "nccl"}\' '
    "--logprobs-mode processed_logprobs"
)
_PAUSE_S = 2.0


def check_vllm(
    fields: Mapping[str, Any], model: Any, *, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Check that phases can sample by vLLM as they are asked to.

    Waits for a server as long as TRL would, ``vllm_server_timeout`` seconds.

    :param fields: of ``GRPOConfig``; those that are left out have TRL's defaults.
    :raises ConfigError: in one line: what is missing, and what to do.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "grpo.use_vllm needs the package vllm, which is not installed; install it, or leave "
            "use_vllm out"
        )
    if getattr(model, "is_quantized", False):
        raise ConfigError(
            "grpo.use_vllm does not go with a quantized model: TRL merges the adapter into its "
            "weights for each update of vLLM's, which rounds them anew; leave use_vllm out, or "
            "load the model in bf16"
        )
    if fields.get("vllm_mode", "colocate") == "server":
        _check_server(fields, model.device.type, sleep)


def _check_server(fields: Mapping[str, Any], device: str, sleep: Callable[[float], None]) -> None:
    if device != DEVICE:
        raise ConfigError(
            f"grpo.vllm_mode is server, which gets its weights by NCCL, but the model is on "
            f"{device}; train on a GPU, or leave use_vllm out"
        )
    address = _address(fields)
    _await(address, float(fields.get("vllm_server_timeout", 240.0)), sleep)
    try:
        told = _asked(f"{address}/server_info?config_format=json")
    except urllib.error.HTTPError as error:
        error.close()
        raise ConfigError(
            f"the vLLM server at {address} takes no weights ({error.code} from /server_info); "
            f"start it so: {_START}"
        ) from error
    settings = told.get("vllm_config") or {}
    if not settings.get("weight_transfer_config"):
        raise ConfigError(
            f"the vLLM server at {address} takes no weights: it has no weight-transfer engine; "
            f"start it so: {_START}"
        )
    served = settings.get("model_config") or {}
    mode = served.get("logprobs_mode")
    corrects = fields.get("vllm_importance_sampling_correction", True)
    if corrects and mode not in (None, "processed_logprobs"):
        raise ConfigError(
            f"the vLLM server at {address} runs with --logprobs-mode {mode}, by which its answers "
            "would be weighted wrongly; start it with processed_logprobs, or set "
            "grpo.vllm_importance_sampling_correction to false"
        )


def _address(fields: Mapping[str, Any]) -> str:
    url = fields.get("vllm_server_base_url")
    if url:
        return str(url).rstrip("/")
    host, port = fields.get("vllm_server_host", "0.0.0.0"), fields.get("vllm_server_port", 8000)
    return f"http://{host}:{port}"


def _await(address: str, timeout_s: float, sleep: Callable[[float], None]) -> None:
    """Wait until a server is up."""
    ends = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=10):
                return
        except (OSError, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if isinstance(error, ValueError) or time.monotonic() >= ends:
                raise ConfigError(
                    f"no vLLM server answers at {address} ({one_line(error)}); start it so: "
                    f"{_START}"
                ) from error
        sleep(_PAUSE_S)


def _asked(url: str) -> Mapping[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        told = json.load(answer)
    return told if isinstance(told, Mapping) else {}


def synchronize_exactly(generation: Any) -> None:
    """Have TRL's updates of vLLM's weights leave those in training as they are, by bits.

    TRL merges the adapter in place for each update and subtracts it afterwards, which rounds the
    weights under it, step by step. Here it does so in copies, one update long.
    """
    update, model = generation.sync_weights, generation.model

    def sync_weights() -> None:
        layers = (m for m in model.modules() if isinstance(m, BaseTunerLayer))
        held = {
            id(parameter): (parameter, parameter.data)
            for layer in layers
            for parameter in layer.get_base_layer().parameters(recurse=False)
        }
        for parameter, data in held.values():
            parameter.data = data.clone()
        try:
            update()
        finally:
            for parameter, data in held.values():
                parameter.data = data

    generation.sync_weights = sync_weights


def release(trainer: Any) -> None:
    """Let go of a phase's vLLM: the port of its weight updates, or the engine's memory.

    TRL does neither before the process ends, and the next phase needs them.
    """
    generation = getattr(trainer, "vllm_generation", None)
    if generation is None:
        return
    client = getattr(generation, "vllm_client", None)
    if client is not None:  # in the main process alone
        client.close_communicator()
        atexit.unregister(client.close_communicator)
    if vars(generation).pop("llm", None) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
