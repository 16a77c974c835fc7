"""Read YAML that holds plain data of a reasonable size, and refuse a key that is in it twice.

The text may be anybody's. What it says with few characters may be endless: an alias inside itself,
aliases of aliases, brackets without end. So its depth and its size with all aliases written out are
limited, and whatever PyYAML cannot make a value of is named with its line.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from risen_plugin.errors import ConfigError, near_path, one_line
from risen_plugin.kit.files import read_bounded

MOST_BYTES = 1 << 20
_DEEPEST = 100  # mappings and lists inside each other
_MOST_VALUES = 100_000  # with all aliases written out
_TWICE = "says"
_LONGEST_NUMBER = 400  # characters of what is no text


def read_mapping(path: str | Path, needs: str) -> Mapping[str, Any]:
    """The mapping in a YAML file.

    :param needs: the content that it needs, for messages.
    :raises ConfigError: if the file cannot be read, is too large, is no YAML, says a key twice or
        holds no mapping.
    """
    import yaml

    try:
        data = read_yaml(read_bounded(Path(path), MOST_BYTES).decode("utf-8"))
    except OSError as error:
        near = near_path(Path(path))
        raise ConfigError(f"cannot read {path}: {error.strerror}{near}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        location = str(path) if mark is None else f"{path}:{mark.line + 1}"
        problem = " ".join(filter(None, (error.context, error.problem)))
        if problem.startswith(_TWICE):
            raise ConfigError(f"{location} {problem}") from None
        raise ConfigError(f"{location} is not valid YAML: {problem}") from error
    except (yaml.YAMLError, ValueError) as error:  # no UTF-8; a path with a NUL
        line = one_line(error)
        raise ConfigError(f"{path} is not valid YAML: {line}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"{path} holds no mapping; it needs {needs}")
    return data


def read_yaml(text: str) -> Any:
    """The value of a YAML text, as ``yaml.safe_load`` gives it.

    :raises yaml.YAMLError: if it is no YAML, has no value, or is too deep or too large. PyYAML
        itself raises much else for a value that it cannot make.
    """
    loader = _loader()(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        _check_repeated(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


@functools.cache
def _loader() -> Any:
    import yaml
    from yaml.composer import ComposerError

    class Loader(yaml.SafeLoader):
        """Knows how deep it is, and says where a value is none."""

        depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth += 1
            if self.depth > _DEEPEST:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise ComposerError(None, None, f"it is nested more than {_DEEPEST} deep", mark)
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except (yaml.YAMLError, RecursionError):
                raise
            except Exception as error:
                kind = str(node.tag).rpartition(":")[2]
                problem = f"{str(node.value)!r:.40} is no {kind}: {one_line(error)}"
                raise yaml.constructor.ConstructorError(
                    None, None, problem, node.start_mark
                ) from error

    return Loader


def _check_size(root: Any) -> None:
    """Refuse a tree that holds itself, or is too large once its aliases are written out."""
    from yaml.composer import ComposerError

    sizes: dict[int, int] = {}
    begun: set[int] = set()

    def size(node: Any) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        problem = None
        if id(node) in begun:
            problem = "it holds an alias of itself"
        elif _is_long_number(node):
            problem = f"a value that is no text has {len(node.value)} characters"
        begun.add(id(node))
        total = 1
        if problem is None and not isinstance(node.value, str):
            for child in node.value:
                total += sum(map(size, child)) if isinstance(child, tuple) else size(child)
            if total > _MOST_VALUES:
                problem = f"it holds more than {_MOST_VALUES} values, aliases written out"
        if problem is not None:
            raise ComposerError(None, None, problem, node.start_mark)
        sizes[id(node)] = total
        return total

    size(root)


def _is_long_number(node: Any) -> bool:
    return (
        isinstance(node.value, str)
        and len(node.value) > _LONGEST_NUMBER
        and not str(node.tag).endswith(":str")
    )


def _check_repeated(root: Any) -> None:
    """Refuse a mapping that says one key twice; YAML readers silently take the last one."""
    from yaml.composer import ComposerError

    seen: set[int] = set()
    left = [root]
    while left:
        node = left.pop()
        if id(node) in seen or isinstance(node.value, str):
            continue
        seen.add(id(node))
        keys: set[str] = set()
        for child in node.value:
            if not isinstance(child, tuple):
                left.append(child)
                continue
            key, value = child
            if isinstance(key.value, str):
                if key.value in keys:
                    raise ComposerError(
                        None, None, f"{_TWICE} '{key.value}' twice; leave one out", key.start_mark
                    )
                keys.add(key.value)
            left += (key, value)
