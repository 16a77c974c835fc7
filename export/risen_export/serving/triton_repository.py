"""Write a model repository for Triton's Python backend: a configuration, a model, its bundle."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from risen_export.bundles.opening import open_folder
from risen_plugin.errors import ConfigError, one_line

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_MODEL = '''\
"""A bundle as a model of Triton's Python backend. Its settings are in config.pbtxt."""

import triton_python_backend_utils as pb_utils

from risen_export.serving.triton import Model


class TritonPythonModel:
    def initialize(self, args):
        self._model = Model(pb_utils, args)

    def execute(self, requests):
        self._model.execute(requests)

    def finalize(self):
        self._model.finalize()
'''
_CONFIG = """\
# The fields of a request: docs/how-to/deploy-with-triton.md of risen-plugin.
name: "{name}"
backend: "python"
max_batch_size: 0
model_transaction_policy {{ decoupled: true }}
input [
  {{ name: "text_input" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "messages" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "sampling_parameters" data_type: TYPE_STRING dims: [ 1 ] optional: true }},
  {{ name: "stream" data_type: TYPE_BOOL dims: [ 1 ] optional: true }}
]
output [
  {{ name: "text_output" data_type: TYPE_STRING dims: [ -1 ] }},
  {{ name: "finish_reason" data_type: TYPE_STRING dims: [ -1 ] }},
  {{ name: "response" data_type: TYPE_STRING dims: [ 1 ] }}
]
instance_group [ {{ kind: {kind} count: 1 }} ]
{parameters}"""


def write_repository(
    bundle: Path, output: Path, name: str, settings: Mapping[str, str], *, check_hashes: bool = True
) -> Path:
    """Write ``OUTPUT/NAME`` with a copy of the bundle; its folder.

    :param settings: parameters of ``config.pbtxt``: ``precision``, ``rows``, and so on.
    :raises ConfigError: if the name cannot be one, or the folder is there already, lies in the
        bundle, or cannot be written.
    :raises ExportError: if the bundle cannot be opened.
    """
    if not _NAME.fullmatch(name) or name.strip(".") == "":
        raise ConfigError(f"'{name}' cannot be a model's name: letters, digits, _, . and - can")
    folder = output / name
    if folder.exists():
        raise ConfigError(f"{folder} is there already; remove it, or give another --name")
    if folder.resolve().is_relative_to(bundle.resolve()):
        raise ConfigError(f"{folder} lies in the bundle that it would be a copy of; choose another")
    _, content = open_folder(bundle, settings.get("precision"), check_hashes=check_hashes)
    kind = "KIND_GPU" if content["target"] == "cuda" else "KIND_CPU"
    given = {"bundle": "bundle", **settings}
    parameters = "".join(
        f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
        for key, value in given.items()
    )
    making = output / f".{name}.making"
    shutil.rmtree(making, ignore_errors=True)
    try:
        version = making / "1"
        version.mkdir(parents=True)
        shutil.copytree(bundle, version / "bundle")
        (version / "model.py").write_text(_MODEL, encoding="utf-8")
        text = _CONFIG.format(name=name, kind=kind, parameters=parameters)
        (making / "config.pbtxt").write_text(text, encoding="utf-8")
        making.rename(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder
