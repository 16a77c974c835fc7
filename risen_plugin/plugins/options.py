"""Turn a mapping of options into the arguments of a factory, with errors that name the culprit.

A factory is a class or a function whose parameters are its options: their names, annotations and
defaults are all that is needed here. A ``label`` from outside says who offers the factory.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.errors import (
    ConfigError,
    PluginError,
    near_miss,
    one_line,
    printable,
)
from risen_plugin.kit.foreign import interrupts_noted
from risen_plugin.kit.yaml_files import read_yaml

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_UNSAID: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class Option:
    """One option of a factory.

    :param name: the parameter's name.
    :param type: its annotation as text; empty if it has none.
    :param default: its value when left out; None if it may not be.
    :param required: whether it may not be left out.
    :param meaning: its text under ``:param name:`` in the factory's docstring, in one line.
    """

    name: str
    type: str
    default: Any = None
    required: bool = False
    meaning: str = ""


def describe(factory: Callable[..., Any]) -> list[Option]:
    """The options of ``factory``, in the order of its parameters.

    >>> def band(low: int, slack: int = 10): ...
    >>> [(option.name, option.required) for option in describe(band)]
    [('low', True), ('slack', False)]
    """
    meanings = _meanings(inspect.getdoc(factory) or "")
    return [
        Option(
            name=parameter.name,
            type=_type_text(parameter.annotation),
            default=None if parameter.default is _UNSAID else _default(factory, parameter),
            required=parameter.default is _UNSAID,
            meaning=meanings.get(parameter.name, ""),
        )
        for parameter in _parameters(factory)
        if parameter.kind in _BY_NAME
    ]


def hints_of(factory: Callable[..., Any]) -> dict[str, Any]:
    """The annotations of the options of ``factory``, without those that cannot be read.

    >>> def band(low: int, slack: "int" = 10): ...
    >>> hints_of(band)
    {'low': <class 'int'>, 'slack': <class 'int'>}
    """
    return _hints(factory, [p for p in _parameters(factory) if p.kind in _BY_NAME])


def build(factory: Callable[..., Any], options: Mapping[str, Any], label: str) -> Any:
    """Call ``factory`` with ``options``.

    Where the annotation asks for it, a list becomes a tuple or a set and a text becomes a
    ``Path``, since YAML knows neither. A factory with ``**kwargs`` takes any option.

    :param label: whose factory it is, as in ``reward 'length-band' (risen-length 0.1)``.
    :raises ConfigError: if an option is unknown, missing, of a wrong plain type, or refused by
        the factory with ``TypeError``, ``ValueError``, ``OSError`` or ``ImportError``.
    :raises PluginError: if the factory fails in any other way.
    """
    parameters = {p.name: p for p in _parameters(factory)}
    known = [name for name, p in parameters.items() if p.kind in _BY_NAME]
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        _refuse_unknown(options, known, label)
    _refuse_missing([parameters[name] for name in known], options, label)
    hints = _hints(factory, [parameters[name] for name in known])
    arguments = {
        name: _converted(name, value, hints[name], label) if name in hints else value
        for name, value in options.items()
    }
    pressed: list[int] = []
    try:
        with interrupts_noted() as pressed:
            return factory(**arguments)
    except (ConfigError, TypeError, ValueError, OSError, ImportError) as error:
        raise ConfigError(f"{label}: {one_line(error)}") from error
    except BaseException as error:  # a factory is somebody else's code
        if pressed:
            raise
        kind = printable(type(error).__name__)
        raise PluginError(f"{label} raised {kind} while it was made: {one_line(error)}") from error


def _refuse_unknown(options: Mapping[str, Any], known: list[str], label: str) -> None:
    for name in options:
        if name not in known:
            hint = near_miss(str(name), known) or "."
            raise ConfigError(f"{label} has no option {name!r}{hint} {_takes(known)}")


def _refuse_missing(
    parameters: list[inspect.Parameter], options: Mapping[str, Any], label: str
) -> None:
    missing = [p.name for p in parameters if p.default is _UNSAID and p.name not in options]
    if missing:
        names = " and ".join(repr(name) for name in missing)
        plural = "s" if len(missing) > 1 else ""
        takes = _takes([p.name for p in parameters])
        raise ConfigError(f"{label} needs the option{plural} {names}. {takes}")


def _takes(known: list[str]) -> str:
    return f"It takes: {', '.join(known)}" if known else "It takes no options"


# The parameters of a factory


def _parameters(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (Exception, SystemExit):  # noqa: BLE001  some builtins have none, and some raise anything
        return [inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)]


def _meanings(doc: str) -> dict[str, str]:
    entries = re.findall(r"^:param (\w+):(.*(?:\n[ \t]+\S.*)*)", doc, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def _default(factory: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The default, made where a dataclass has a default factory: its signature shows a marker."""
    if dataclasses.is_dataclass(factory):
        for field in dataclasses.fields(factory):
            if field.name == parameter.name and field.default_factory is not dataclasses.MISSING:
                return field.default_factory()
    return parameter.default


def _type_text(annotation: object) -> str:
    if annotation is _UNSAID:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _hints(factory: Callable[..., Any], parameters: list[inspect.Parameter]) -> dict[str, Any]:
    """The annotations that can be resolved, by parameter name; the others are not checked."""
    names = _namespace(factory)
    hints = {}
    for parameter in parameters:
        hint = parameter.annotation
        if isinstance(hint, str):
            try:
                hint = eval(hint, names)
            except (Exception, SystemExit):  # noqa: BLE001  an annotation may be any expression; unresolved means unchecked
                continue
        if hint is not _UNSAID:
            hints[parameter.name] = hint
    return hints


def _namespace(factory: Any) -> dict[str, Any]:
    while isinstance(factory, functools.partial):
        factory = factory.func
    function = inspect.getattr_static(factory, "__init__") if isinstance(factory, type) else factory
    return dict(getattr(inspect.unwrap(function), "__globals__", {}))


# Whether a value fits a plain annotation

_PLAIN = (str, bool, int, float, bytes)
_SEQUENCES: dict[Any, type] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
}
_MAPPINGS = (dict, collections.abc.Mapping)


class _MisfitError(Exception):
    """The value does not fit the annotation."""


def _converted(name: str, value: object, hint: object, label: str) -> Any:
    try:
        return _fit(value, hint)
    except _MisfitError:
        read = list_or_mapping(value)
        if read is not None:
            return _converted(name, read, hint, label)
        shown = f"{type(value).__name__} {value!r}" if value is not None else "None"
        raise ConfigError(
            f"{label} takes {_type_text(hint)} for {name!r}, not {shown}{_yaml_hint(value, hint)}"
        ) from None


def list_or_mapping(value: object) -> Any:
    """The list or mapping in a text of a command line; None if it holds neither.

    A factory that takes texts gets the text: ``[a-z]`` is a pattern too.
    """
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{"):
        return None
    import yaml

    try:
        return read_yaml(value)
    except yaml.YAMLError:
        return None


def fits(value: object, hint: object) -> bool:
    """Whether the annotation lets ``value`` through; one that is not plain lets any."""
    try:
        _fit(value, hint)
    except _MisfitError:
        return False
    return True


def _yaml_hint(value: object, hint: object) -> str:
    """YAML 1.1 reads ``1e-5`` as text: say how to write it."""
    if not isinstance(value, str) or float not in (hint, *typing.get_args(hint)):
        return ""
    try:
        text = repr(float(value))
    except ValueError:
        return ""
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return f" (in YAML write {text})" if "." in text else ""


def _fit(value: object, hint: object) -> Any:  # noqa: PLR0911  one line per sort of annotation
    """``value`` as ``hint`` asks for it; a hint that is not plain lets any value through."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _fit(value, typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return _fit_any(value, typing.get_args(hint))
    if origin is typing.Literal:
        return _if_fits(value, any(_same(value, choice) for choice in typing.get_args(hint)))
    if hint is None or hint is type(None):
        return _if_fits(value, value is None)
    if hint in _PLAIN:
        return _if_fits(value, _is_plain(value, hint))
    if hint is Path:
        return Path(_if_fits(value, isinstance(value, str | Path)))
    kind = origin or hint
    if isinstance(kind, collections.abc.Hashable) and kind in _SEQUENCES:
        return _fit_sequence(value, _SEQUENCES[kind], typing.get_args(hint), kind)
    if kind in _MAPPINGS:
        return _if_fits(value, isinstance(value, collections.abc.Mapping))
    return value


def _if_fits(value: object, fits: bool) -> Any:
    if not fits:
        raise _MisfitError
    return value


def _same(value: object, choice: object) -> bool:
    return type(value) is type(choice) and bool(value == choice)


def _is_plain(value: object, hint: type) -> bool:
    if isinstance(value, bool):  # True is an int to Python, not to a reader
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _fit_any(value: object, choices: tuple[Any, ...]) -> Any:
    fits = []
    for choice in choices:
        try:
            fits.append(_fit(value, choice))
        except _MisfitError:
            continue
    if not fits:
        raise _MisfitError
    return next((fit for fit in fits if fit is value), fits[0])  # as it is, if that will do


def _fit_sequence(value: Any, target: type, arguments: tuple[Any, ...], kind: Any) -> Any:
    if kind not in (list, tuple, set, frozenset) and not isinstance(value, list):
        return _if_fits(value, isinstance(value, kind) and not isinstance(value, str | bytes))
    _if_fits(value, isinstance(value, list | tuple | set | frozenset))
    items = list(value)
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        _if_fits(value, len(items) == len(arguments))
        fitted = [_fit(item, hint) for item, hint in zip(items, arguments, strict=True)]
    else:
        fitted = [_fit(item, arguments[0]) for item in items] if arguments else items
    if type(value) is target and all(a is b for a, b in zip(fitted, items, strict=True)):
        return value
    return target(fitted)
