"""Write and read ``.onnx_adapter`` files, and keep those in memory that a bundle has used.

onnxruntime's own format: any client may switch the files with ``RunOptions.add_active_adapter`` or
``onnxruntime_genai.Adapters``. Here their tensors are bound as inputs, since active adapters do not
act on a run with bound inputs and outputs, which answering uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from risen_export.bundles import adapters
from risen_export.bundles.lora import Array
from risen_export.bundles.sites import NOTE, Site, from_text
from risen_plugin.errors import ExportError, one_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue

Values = Mapping[str, Any]
"""Inputs of a graph by name."""
Adapter = str | Values
"""The name of an adapter of the bundle, or the inputs that make the graph compute one."""
_FORMAT_VERSION = 1


def sites_of(session: InferenceSession, path: Path) -> list[Site]:
    """Where an opened graph takes adapters; [] if it takes none.

    :param path: of the graph, for an error.
    """
    note = session.get_modelmeta().custom_metadata_map.get(NOTE)
    return [] if note is None else from_text(note, str(path))


def as_values(inputs: Mapping[str, Array]) -> dict[str, OrtValue]:
    """Inputs of a graph as onnxruntime takes them."""
    import onnxruntime

    make = onnxruntime.OrtValue.ortvalue_from_numpy
    return {name: make(np.ascontiguousarray(one)) for name, one in inputs.items()}


def write(file: Path, inputs: Mapping[str, Array]) -> None:
    """Write the inputs of a graph that make it compute an adapter."""
    import onnxruntime

    values = as_values(inputs)
    form: Any = onnxruntime.AdapterFormat()  # its annotations ask for paths that it does not take
    form.set_adapter_version(_FORMAT_VERSION)
    form.set_model_version(_FORMAT_VERSION)
    # The format only refers to the values, which have to live until the file is written.
    form.set_parameters(values)
    form.export_adapter(str(file))
    del form, values


def read(file: Path) -> dict[str, OrtValue]:
    """The inputs of a graph in a file.

    :raises ExportError: if it cannot be read.
    """
    import onnxruntime

    form: Any = onnxruntime.AdapterFormat
    try:
        return dict(form.read_adapter(str(file)).get_parameters())
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ExportError(f"{file} cannot be read: {one_line(error)}") from error


class Adapters:
    """The adapters of one opened variant of a bundle.

    The manifest is read when an adapter is asked for, so that one which was added or replaced
    while the bundle is open is found.

    :param folder: of the variant.
    :ivar plain: a graph of the base alone, where the bundle has one. It is quicker by what
        branches cost that nobody uses.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = adapters.root_of(folder)
        self._used: dict[str, tuple[str, Values]] = {}
        self.plain = adapters.plain_graph(self._root, folder)

    @property
    def names(self) -> list[str]:
        """The names of the adapters that the bundle has now."""
        return list(adapters.listed(self._root))

    def values(self, adapter: Adapter, session: Callable[[], InferenceSession]) -> Values:
        """The inputs that make the graph compute an adapter.

        :param session: opens the graph that takes adapters, unless it is open.
        :raises ExportError: if there is no such adapter, or its file was changed.
        """
        if not isinstance(adapter, str):
            session()
            return adapter
        entry = adapters.listed(self._root).get(adapter)
        used = self._used.get(adapter)
        if entry is not None and used is not None and used[0] == entry["sha256"]:
            session()
            return used[1]
        file = adapters.file_of(self._root, adapter)
        values = read(file)
        taken = {value.name for value in session().get_overridable_initializers()}
        odd = next((key for key in values if key not in taken), None)
        if odd is not None:
            raise ExportError(f"{file} is for another graph: {self._folder} takes no {odd}")
        self._used[adapter] = (adapters.listed(self._root)[adapter]["sha256"], values)
        return values
