"""Check the judge's options, each with one line that says how to mend it.

No message repeats a text that may be a key: an address or a variable's name may hold a pasted one.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from risen_plugin.errors import ConfigError
from risen_plugin.kit.chat_client import PATH, Secret

_OURS = ("messages", "model", "n", "stream")


def url_of(base_url: str) -> str:
    """The address of the endpoint's chat completions.

    :raises ConfigError: if ``base_url`` is no address, or holds more than an address.
    """
    try:
        parts = urlsplit(base_url.strip())
        _ = parts.port  # raises for what is no number
    except ValueError:
        raise ConfigError(
            "base_url is no address; it looks like http://localhost:8000/v1"
        ) from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "base_url holds a user, a password or parameters; give the address alone, and name the "
            "variable with the key in api_key_env"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in base_url.strip():
        raise ConfigError(f"base_url {base_url!r} is no address like http://localhost:8000/v1")
    if parts.path.rstrip("/").endswith(PATH):
        raise ConfigError(f"base_url ends with {PATH}, which is added to it; leave that out")
    return base_url.strip().rstrip("/") + PATH


def key_in(variable: str | None) -> Secret:
    """The key that the environment variable holds; an empty one where none is named.

    :raises ConfigError: if it holds no key, or a text that cannot be a key.
    """
    if variable is None:
        return Secret()
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise ConfigError("api_key_env is the name of an environment variable, not the key itself")
    named = f"'{variable}'" if variable.isupper() else "of this name"
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"api_key_env: there is no environment variable {named}, or it is empty")
    if not (value.isascii() and value.isprintable()) or " " in value:
        raise ConfigError(
            f"api_key_env: the environment variable {named} holds what cannot be a key; keys are "
            "printable ASCII without blanks"
        )
    return Secret(value)


def check_criteria(criteria: str | Sequence[str] | None, column: str | None) -> None:
    """Refuse neither or both of the two, and empty criteria.

    :raises ConfigError: naming the option.
    """
    if (criteria is None) == (column is None):
        both = "both" if criteria is not None else "neither of them"
        raise ConfigError(
            f"give either criteria, for all rows, or the column of the rows with them, not {both}"
        )
    texts = [criteria] if isinstance(criteria, str) else list(criteria or [])
    if criteria is not None and not (texts and all(text.strip() for text in texts)):
        raise ConfigError("criteria must hold at least one text, and no empty ones")
    if column is not None and not column.strip():
        raise ConfigError("column must be the name of a column")


def check_numbers(least: Mapping[str, tuple[float | None, float]]) -> None:
    """Refuse a number below its least value; None is allowed.

    :raises ConfigError: naming the option.
    """
    for name, (value, bound) in least.items():
        if value is not None and not (math.isfinite(value) and value >= bound):
            raise ConfigError(f"{name} is {value}, but must be at least {bound:g}")


def check_extra(extra: Mapping[str, Any]) -> None:
    """Refuse fields that the judge sets itself, or that are no JSON.

    :raises ConfigError: naming the field.
    """
    for name in extra:
        if name in _OURS:
            raise ConfigError(f"extra: '{name}' is set by the judge; leave it out")
    try:
        json.dumps(dict(extra), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"extra holds what JSON cannot: {error}") from error
