"""Write what is public, from the code itself: ``python docs/generate_api.py``.

Writes ``docs/reference/api.md`` and ``tests/contract/api.txt``. Types are left to the code; names,
parameters and defaults are what a caller depends on.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "reference" / "api.md"
SNAPSHOT = Path(__file__).parents[1] / "tests" / "contract" / "api.txt"
PUBLIC: Mapping[str, Sequence[str] | None] = {
    "risen_plugin": None,
    "risen_plugin.callback": ("RisenCallback",),
    "risen_plugin.config": None,
    "risen_plugin.contracts": None,
    "risen_plugin.errors": (
        *("RisenError", "ConfigError", "DataError", "ExportError", "PluginError", "RecordError"),
        *("near_miss", "near_path", "one_line", "typed_line"),
    ),
    "risen_plugin.hookspecs": ("PROJECT", "Register", "hookimpl", "hookspec"),
    "risen_plugin.plugins": None,
    "risen_plugin.progress": None,
    "risen_plugin.testing": None,
    "risen_plugin.constraints": None,
    "risen_plugin.constraints.made_to_order.construct": ("satisfying", "violating"),
    "risen_plugin.instructions.validity": ("Validity",),
    "risen_plugin.kit.chat_client": ("AskError", "ChatClient", "GarbledError", "Secret"),
    "risen_plugin.rewards.batch": ("Batch",),
    "risen_plugin.builtin.generators": ("Constraints", "Jsonl"),
    "risen_plugin.builtin.schedulers.budget": ("Budget",),
    "risen_plugin.builtin.schedulers.plateau": ("Plateau",),
    "risen_plugin.embedded": ("base_model",),
    "risen_plugin.embedded.orders": ("draw", "is_right", "obedience", "parse", "prompts"),
    "risen_plugin.cli": ("command_line", "main"),
    "risen_export": None,
}
"""Each public module with its public names: those listed, or all of it that has no underscore."""

HEAD = """\
# What is public

Written by `docs/generate_api.py` from the code itself; a test holds it to the snapshot
`tests/contract/api.txt`, and that to the code. [Compatibility](compatibility.md) says what is
promised of these names. Everything else may change in any release, whatever its name.

Besides Python, public are [the hooks](hooks.md), [the configuration](configuration.md),
[RUN.yaml](run.md), [the command line](cli.md) and [the files of a run](files.md).
"""


@dataclasses.dataclass(frozen=True)
class Name:
    """A public name of a module."""

    module: str
    name: str
    signature: str
    line: str
    members: Sequence[tuple[str, str]] = ()
    """Methods and properties of a class: each as it is written, with its line."""

    @property
    def snapshot(self) -> list[str]:
        label = f"{self.module}.{self.name}"
        return [label + self.signature, *(f"{label}.{member}" for member, _ in self.members)]

    @property
    def listed(self) -> list[str]:
        """The lines of the page."""
        entries = [f"- `{self.name}{self.signature}`" + (f": {self.line}" if self.line else "")]
        entries += [
            f"    - `.{member}`" + (f": {line}" if line else "") for member, line in self.members
        ]
        return entries


def names() -> Iterator[Name]:
    """Every public name, in the order of ``PUBLIC`` and then by name."""
    for module in PUBLIC:
        loaded = importlib.import_module(module)
        there = _written(loaded)
        for name in sorted(_listed(module, there)):
            yield _named(module, name, getattr(loaded, name), there.get(name, ""))


def snapshot() -> str:
    """The text of the snapshot."""
    return "".join(f"{line}\n" for name in names() for line in name.snapshot)


def page() -> str:
    """The text of the page."""
    sections = [HEAD]
    everything = list(names())
    for module in PUBLIC:
        title = _first_line(importlib.import_module(module).__doc__)
        lines = [line for name in everything if name.module == module for line in name.listed]
        sections.append("\n".join([f"## {module}\n", f"{title}\n", *lines, ""]))
    return "\n".join(sections)


def _named(module: str, name: str, thing: Any, doc: str) -> Name:
    home = _home(module, name, thing)
    if home is not None:
        return Name(module, name, "", f"that of `{home}`")
    is_ours = getattr(thing, "__module__", "").startswith("risen_")
    if inspect.isclass(thing) and is_ours:
        return Name(module, name, _of_class(thing), _line(thing, doc), list(_members(thing)))
    if inspect.isroutine(thing):
        return Name(module, name, _signature(thing), _line(thing, doc))
    return Name(module, name, "", _first_line(doc))


def _listed(module: str, there: Mapping[str, str]) -> Sequence[str]:
    exported = getattr(importlib.import_module(module), "__all__", None)
    return PUBLIC[module] or exported or list(there)


def _home(module: str, name: str, thing: Any) -> str | None:
    """The other public module that has this name of the package itself, if there is one."""
    if module != "risen_plugin":
        return None
    for other in PUBLIC:
        loaded = importlib.import_module(other)
        if other.startswith("risen_plugin.") and name in _listed(other, _written(loaded)):
            assert getattr(loaded, name) is thing, f"{name} is not the same in {other}"
            return other
    return None


def _written(module: Any) -> dict[str, str]:
    """What a module itself binds at its top, with the text below a constant."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    found: dict[str, str] = {}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        targets: list[Any] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        text = str(after.value.value) if is_text else ""  # type: ignore[union-attr]
        found |= {target.id: text for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = ""
    return {name: text for name, text in found.items() if not name.startswith("_")}


def _of_class(kind: type) -> str:
    makers = ("__init__", "__new__")
    ours = [base for base in kind.__mro__ if base.__module__.startswith("risen_")]
    is_made = dataclasses.is_dataclass(kind) or any(
        maker in vars(base) for base in ours for maker in makers
    )
    is_protocol = getattr(kind, "_is_protocol", False)
    return _signature(kind) if is_made and not is_protocol else ""


def _members(kind: type) -> Iterator[tuple[str, str]]:
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if base.__module__.startswith("risen_"):
            found = {**vars(base), **found}
    for name, member in sorted(found.items()):
        if name.startswith(("_", "on_")) and name != "__call__":
            continue  # on_*: the events of a Trainer, which calls them
        if isinstance(member, property | functools.cached_property):
            yield name, _line(member, "")
        elif isinstance(member, staticmethod | classmethod):
            yield name + _signature(getattr(kind, name)), _line(member, "")
        elif inspect.isfunction(member):
            yield name + _signature(member, bound=True), _line(member, "")


def _signature(thing: Any, *, bound: bool = False) -> str:
    signature = inspect.signature(thing)
    parameters = list(signature.parameters.values())[1 if bound else 0 :]
    plain = [p.replace(annotation=p.empty, default=_default(p.default)) for p in parameters]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


class _Shown(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _default(value: Any) -> Any:
    if value is inspect.Parameter.empty:
        return value
    text = repr(value)
    return _Shown("..." if text.startswith("<") or " at 0x" in text else text)


def _line(thing: Any, doc: str) -> str:
    is_generated = inspect.isclass(thing) and str(thing.__doc__).startswith(f"{thing.__name__}(")
    return _first_line(doc or ("" if is_generated else getattr(thing, "__doc__", "")))


def _first_line(doc: str | None) -> str:
    """The first paragraph of a docstring in one line, in Markdown."""
    first = inspect.cleandoc(doc or "").split("\n\n")[0]
    line = " ".join(first.split())
    for role in (":class:", ":func:", ":meth:", ":mod:"):
        line = line.replace(role, "")
    return line.replace("``", "`").rstrip(".:").removeprefix(":raises ") if line else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SNAPSHOT.write_text(snapshot(), encoding="utf-8")
