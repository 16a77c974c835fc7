"""The adapters of an export that stay beside its graphs: branches, comparison with PEFT, files.

The base is measured as every graph is; here it is each adapter's turn, and the base's again after
it, so that a switch leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from risen_export.backends import branches
from risen_export.bundles import adapters, lora
from risen_export.bundles.manifest import GRAPH
from risen_export.bundles.sites import Site
from risen_export.quiet import quiet
from risen_export.runtime import adapting
from risen_export.runtime.adapters import as_values
from risen_export.runtime.bundle import Bundle, Ids, Logits
from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOLERANCE = 1e-4
"""Largest difference of a logit, where the logits are at most 1; else relative to the largest."""
_ROWS = 2
_TOKENS = 24
_SMALL = np.float32(0.1)


class KeptApart:
    """The adapters of one export.

    :param sizes: the model's linear modules, as :func:`risen_export.merging.apart.linear_sizes`
        has them.
    :param kept: folders of saved adapters by name.
    """

    def __init__(self, sizes: Mapping[str, branches.Size], kept: Mapping[str, Path]) -> None:
        self._sizes = sizes
        self._kept = kept
        self._sites: list[Site] | None = None
        self._differences: dict[str, float] = {}

    def branch(self, folder: Path) -> None:
        """Give the graph in ``folder`` its branches.

        :raises ExportError: if it takes adapters in other places than the graphs before it.
        """
        sites = branches.add(folder / GRAPH, self._sizes)
        if self._sites is not None and sites != self._sites:
            raise ExportError(
                f"the graph of {folder.name} takes adapters in other places than the one before; "
                "export the precisions one by one, or merge the adapter: --adapters merge"
            )
        self._sites = sites

    def compare(self, exact: Bundle, model: PreTrainedModel, *, show_log: bool = False) -> None:
        """Compare the fp32 graph with the base and every adapter.

        :param model: the base in fp32; it is as it was afterwards.
        :raises ExportError: if the graph computes an adapter otherwise.
        """
        check_sites(exact, model)
        self._differences = compare_apart(exact, model, self._kept, show_log=show_log)

    def put(self, root: Path) -> None:
        """Write the adapters beside the graphs of the bundle at ``root``, and into its manifest.

        :raises ExportError: if a graph has no place for one, or its logits are not finite.
        """
        for name, folder in self._kept.items():
            entry = adapting.put(root, name, lora.read(folder))
            if name in self._differences:
                entry["check"]["max_logit_diff_to_peft"] = self._differences[name]
            adapters.record(root, name, entry)


def compare_apart(
    exact: Bundle, model: PreTrainedModel, kept: Mapping[str, Path], *, show_log: bool = False
) -> dict[str, float]:
    """The largest difference of a logit between an fp32 graph and PEFT, by adapter.

    :raises ExportError: if the graph computes an adapter otherwise.
    """
    ids = probe_ids(exact)
    differences = {}
    base = _logits(model, ids)
    for name, folder in kept.items():
        with quiet(show=show_log):
            theirs = _with_adapter(model, folder, ids)
        values = as_values(lora.pack(lora.read(folder), exact.sites))
        what = f"adapter {name} as PEFT does"
        differences[name] = _difference(exact.logits(ids, adapter=values), theirs, what)
        _difference(exact.logits(ids), base, f"its base after adapter {name}")
    return differences


def check_sites(exact: Bundle, model: PreTrainedModel) -> float:
    """Feed random factors to every place of an fp32 graph, and to the modules of the model.

    So that adapters which are added later, where there is no model to compare with, meet a graph
    whose places are known to be those of the modules that they name.

    :returns: the largest difference of a logit.
    :raises ExportError: if the graph computes something else.
    """
    factors = _random_factors(exact.sites)
    values = as_values(lora.pack(lora.Lora(exact.path, factors, None, None), exact.sites))
    ids = probe_ids(exact)
    hooks = [
        module.register_forward_hook(_adding(factors[name]))
        for name, module in model.named_modules()
        if name in factors
    ]
    try:
        theirs = _logits(model, ids)
    finally:
        for hook in hooks:
            hook.remove()
    return _difference(exact.logits(ids, adapter=values), theirs, "adapters of its modules")


def probe_ids(bundle: Bundle) -> Ids:
    """Token ids (B, T) from all over the vocabulary."""
    tokens = min(_TOKENS, bundle.context_length)
    return np.random.default_rng(0).integers(0, bundle.vocabulary, (_ROWS, tokens), dtype=np.int64)


def _difference(ours: Logits, theirs: Logits, what: str) -> float:
    difference = float(np.abs(ours - theirs).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(theirs).max()))
    if not difference <= allowed:
        raise ExportError(
            f"the graph does not compute {what}: logits differ by {difference:.2g}, more than "
            f"{allowed:.2g}; nothing was published; merge the adapter: --adapters merge"
        )
    return difference


def _random_factors(sites: Sequence[Site]) -> dict[str, lora.Factors]:
    """Rank 2 for every module, small enough that the activations stay as large as they were."""
    generator = np.random.default_rng(0)
    outputs: dict[str, int] = {}
    inputs: dict[str, int] = {}
    for site in sites:
        for part in site.parts:
            outputs[part.module] = max(outputs.get(part.module, 0), part.stop)
            inputs[part.module] = site.inputs

    def draw(*shape: int) -> lora.Array:
        drawn: lora.Array = generator.standard_normal(shape, dtype=np.float32)
        return drawn * np.float32(shape[1] ** -0.5)

    return {
        name: lora.Factors(draw(2, inputs[name]), _SMALL * draw(outputs[name], 2))
        for name in inputs
    }


def _adding(factors: lora.Factors) -> Callable[..., Any]:
    """A forward hook that adds what an adapter would."""
    import torch

    a, b = torch.from_numpy(factors.a), torch.from_numpy(factors.b)

    def hook(_module: object, given: tuple[Any, ...], output: Any) -> Any:
        return output + given[0] @ a.T @ b.T

    return hook


def _with_adapter(model: PreTrainedModel, folder: Path, ids: Ids) -> Logits:
    from peft import PeftModel

    wrapped: Any = PeftModel.from_pretrained(model, str(folder))
    try:
        return _logits(wrapped.float().eval(), ids)
    finally:
        wrapped.unload()


def _logits(model: Any, ids: Ids) -> Logits:
    import torch

    with torch.no_grad():
        logits: Logits = model(input_ids=torch.from_numpy(ids)).logits.numpy()
    return logits
