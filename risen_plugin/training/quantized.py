"""Keep a base model of 4 bits in the layout that it is trained in.

On CPUs with AVX512-BF16 bitsandbytes (0.50) rearranges the weights of a 4-bit layer, in place, at
the first answer in eval mode: the new layout has no gradient, its scales are rounded to bf16, and
nothing turns it back. A phase answers, trains and puts weights back, so that layout stays off from
the start of a run. On a GPU there is no such layout.
"""

from __future__ import annotations

from typing import Any, cast

import torch

from risen_plugin.errors import ConfigError
from risen_plugin.training.protocols import Model

_MAY_PACK = "support_avx512bf16_for_cpu"  # of a Linear4bit, which reads it at each call
_IS_PACKED = "packing_format_for_cpu"  # of its weight's quant_state


def keep_trainable(model: Model) -> None:
    """Have 4-bit layers of bitsandbytes keep their layout; other layers are left alone.

    :raises ConfigError: if a layer has lost it, since such a model cannot be trained any more.
    """
    layers: list[tuple[str, Any]] = [
        (name, module)
        for name, module in cast(torch.nn.Module, model).named_modules()
        if _MAY_PACK in vars(module)
    ]
    for name, layer in layers:
        state = getattr(layer.weight, "quant_state", None)
        if getattr(state, _IS_PACKED, False):
            raise ConfigError(
                f"bitsandbytes has packed '{name}' for answers on this CPU, in which form it "
                "cannot be trained; load the model anew, and let it answer nothing before train()"
            )
    for _, layer in layers:
        setattr(layer, _MAY_PACK, False)
