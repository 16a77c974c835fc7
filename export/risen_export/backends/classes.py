"""What transformers knows of a configuration beside what its file says.

Files leave out defaults, and old ones name rope settings otherwise. No weights are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from risen_plugin.errors import ExportError, one_line


def whole(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the defaults of its class, and rope settings in their present form.

    :param config: the contents of a ``config.json``.
    :raises ExportError: if transformers has no such class, or refuses its fields.
    """
    from transformers import AutoConfig

    try:
        found: dict[str, Any] = AutoConfig.for_model(**_with_infinities(dict(config))).to_dict()
    except Exception as error:
        # Classes check their fields in ways of their own.
        raise ExportError(f"config.json is refused by transformers: {one_line(error)}") from error
    return found


def _with_infinities(value: Any) -> Any:
    """Values with ``{"__float__": "Infinity"}``, as transformers writes it, made numbers."""
    if isinstance(value, dict):
        if set(value) == {"__float__"}:
            return float(value["__float__"])
        return {name: _with_infinities(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_infinities(part) for part in value]
    return value
