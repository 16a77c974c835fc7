"""Tell a hub id from the path of a folder that is not there, without asking the hub."""

from __future__ import annotations

import re
from pathlib import Path

_HUB_ID = re.compile(r"^\w[\w.-]*(/\w[\w.-]*)?$")


def may_be_on_hub(name: str) -> bool:
    """Whether ``name`` may be a hub id.

    A name inside a folder that is here, such as ``out/run``, is the path of something missing:
    the hub would be asked again and again before it said so. A model of that name that was
    downloaded before counts as one of the hub all the same.
    """
    if not _HUB_ID.match(name):
        return False
    folder, slash, _ = name.partition("/")
    return not slash or not Path(folder).is_dir() or _is_downloaded(name)


def _is_downloaded(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("config.json", "adapter_config.json")
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
