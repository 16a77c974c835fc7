"""Keep paths of the machine out of what is published: a path becomes its last name.

A folder's path tells who exported and how the machine is laid out, and means nothing elsewhere.
"""

from __future__ import annotations

import getpass
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from risen_plugin.kit.files import write_json

_ABSOLUTE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)")
_OPENING = ("./", "../", ".\\", "..\\")
# Texts of the model, in which a slash means something else.
_TEXTS = frozenset(("chat_template", "prompt", "prompts", "answer", "answers", "content"))
_CONFIGS = (
    "config.json",
    "generation_config.json",
    "genai_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


def shown(name: str) -> str:
    """The name under which a model or adapter is recorded: a path's last part, a hub id whole.

    >>> shown("/home/ada/models/desk"), shown("HuggingFaceTB/SmolLM2-135M"), shown("out/desk")
    ('desk', 'HuggingFaceTB/SmolLM2-135M', 'out/desk')
    """
    if not _is_path(name):
        return name
    return re.split(r"[\\/]", name.rstrip("\\/"))[-1] or "model"


def scrub(value: Any) -> Any:
    """``value`` with a name in place of each path, in lists and objects too."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Path):
        return shown(str(value))
    if isinstance(value, Mapping):
        return {key: inner if str(key) in _TEXTS else scrub(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(inner) for inner in value]
    return value


def scrub_folder(folder: Path) -> None:
    """Put names in place of paths in a variant's configurations; other files stay as they are."""
    for name in _CONFIGS:
        path = folder / name
        if not path.is_file():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        cleaned = scrub(content)
        if cleaned != content:
            write_json(path, cleaned, ascii_only=False)


def _is_path(text: str) -> bool:
    if len(text) > 4096 or "\n" in text or not text.strip("/\\"):
        return False
    if text.startswith(_OPENING):
        return True
    return bool(_ABSOLUTE.match(text)) and (_is_of_here(text) or _exists(text))


def _is_of_here(text: str) -> bool:
    """Whether a text begins as paths of this machine do, there or not any more."""
    starts = [tempfile.gettempdir(), "/home/", "/Users/", "/root/", "~"]
    try:
        starts.append(str(Path.home()))
        starts.append(f"/{getpass.getuser()}/")
    except (RuntimeError, KeyError, OSError):
        pass
    return text.startswith(tuple(starts)) or bool(re.match(r"[A-Za-z]:[\\/]|\\\\", text))


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False
