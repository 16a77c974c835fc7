"""Read a YAML file that holds a mapping, and refuse a key that is in it twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from risen_plugin.errors import ConfigError, near_path, one_line


def read_mapping(path: str | Path, needs: str) -> Mapping[str, Any]:
    """The mapping in a YAML file.

    :param needs: the content that it needs, for messages.
    :raises ConfigError: if the file cannot be read, is no YAML, says a key twice or holds no
        mapping.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        _check_repeated(yaml.compose(text, yaml.SafeLoader), str(path))
        data = yaml.safe_load(text)
    except OSError as error:
        near = near_path(Path(path))
        raise ConfigError(f"cannot read {path}: {error.strerror}{near}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        location = str(path) if mark is None else f"{path}:{mark.line + 1}"
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise ConfigError(f"{location} is not valid YAML: {problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = one_line(error)
        raise ConfigError(f"{path} is not valid YAML: {line}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path} holds no mapping; it needs {needs}")
    return data


def _check_repeated(node: Any, where: str) -> None:
    """Refuse a mapping that says one key twice; YAML readers silently take the last one."""
    children = list(node.value) if node is not None and not isinstance(node.value, str) else []
    keys: set[str] = set()
    for child in children:
        if not isinstance(child, tuple):
            _check_repeated(child, where)
            continue
        key, value = child
        if isinstance(key.value, str):
            if key.value in keys:
                line = key.start_mark.line + 1
                raise ConfigError(f"{where}:{line} says '{key.value}' twice; leave one out")
            keys.add(key.value)
        _check_repeated(value, where)
