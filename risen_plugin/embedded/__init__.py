"""The tiny base model that makes everything run offline, and the text that it was trained on."""

from __future__ import annotations

from pathlib import Path

EMBEDDED = "embedded"
"""The name of the model where a folder or hub id is asked for."""


def base_model() -> Path:
    """The folder of the embedded base model, an ordinary ``from_pretrained`` folder."""
    return Path(__file__).parent / "base"
