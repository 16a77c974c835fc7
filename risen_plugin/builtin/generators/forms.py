"""The public forms of rows that state constraints, turned into ids and kwargs.

``rlvr`` is the form of RLVR-IFeval: ``ground_truth`` names one function and its arguments.
``multi`` is that of IF_multi_constraints: ``ground_truth`` lists mappings with ids and kwargs. Both
may stand in the column ``reward_model``. Plain rows may have ids and kwargs as JSON text. A demand
of a row that no constraint here can check is an error; it is never left out.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from risen_plugin.constraints import KNOWN, parse
from risen_plugin.constraints.families.detectable_format import OPTIONS
from risen_plugin.constraints.registry import paired
from risen_plugin.contracts import Row
from risen_plugin.errors import DataError, near_miss

Form: TypeAlias = Literal["auto", "plain", "rlvr", "multi"]
FORMS: tuple[Form, ...] = get_args(Form)
Asked: TypeAlias = Sequence[tuple[str, Mapping[str, Any]]]
"""Ids with their kwargs."""


_ANY_PROMPT = "the prompt"


class UnusableError(DataError):
    """A row has a constraint that nothing here can check, or states one wrongly.

    :param reason: in few words, the same for all rows with this fault.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def form_of(row: Any) -> Form:
    """The form of ``row``; ``plain`` unless its ``ground_truth`` is of one of the others.

    >>> form_of({"ground_truth": '{"func_name": "validate_title"}'})
    'rlvr'
    """
    if not isinstance(row, Mapping) or row.get("instruction_id_list") is not None:
        return "plain"
    truth = _loaded(_truth_of(row))
    if isinstance(truth, list) and len(truth) == 1:
        (truth,) = truth
        truth = _loaded(truth)
        if isinstance(truth, Mapping) and "func_name" in truth:
            return "rlvr"
        return "multi" if isinstance(truth, Mapping) and "instruction_id" in truth else "plain"
    if isinstance(truth, list) and truth:
        parts = [_loaded(part) for part in truth]
        is_multi = all(isinstance(part, Mapping) and "instruction_id" in part for part in parts)
        return "multi" if is_multi else "plain"
    return "rlvr" if isinstance(truth, Mapping) and "func_name" in truth else "plain"


def _truth_of(row: Row) -> Any:
    """The ``ground_truth`` of a row, or of its ``reward_model``; None without one."""
    if "ground_truth" in row:
        return row["ground_truth"]
    inner = _loaded(row.get("reward_model"))
    return inner.get("ground_truth") if isinstance(inner, Mapping) else None


def states_constraints(row: Any) -> bool:
    """Whether a row states constraints, in whatever form."""
    if form_of(row) != "plain":
        return True
    return isinstance(row, Mapping) and bool(row.get("instruction_id_list"))


def read_as_values(row: Row) -> Row:
    """A plain row whose ids and kwargs are values, also where they were JSON text."""
    read = dict(row)
    for name in ("instruction_id_list", "kwargs"):
        value = row.get(name)
        if isinstance(value, str) and value.lstrip().startswith("["):
            loaded = _loaded(value)
            read[name] = value if loaded is None else loaded
    kwargs = read.get("kwargs")
    if isinstance(kwargs, list | tuple):
        read["kwargs"] = [_loaded(one) if isinstance(one, str) else one for one in kwargs]
    return read


def checked(row: Row, where: str) -> Row:
    """A plain row as :func:`read_as_values` gives it, if all its constraints can be checked.

    :raises UnusableError: naming ``where``, if not.
    """
    row = read_as_values(row)
    ids = row.get("instruction_id_list")
    if not ids:
        return row
    try:
        pairs = paired(ids, row.get("kwargs"))
    except DataError as error:
        raise UnusableError(f"{where}: {error}", "malformed instruction_id_list") from error
    for id_, kwargs in pairs:
        _check(str(id_), kwargs, where)
    return row


def adapted(row: Row, form: Form, where: str) -> Row:
    """``row`` with ``instruction_id_list``, ``kwargs``, ``family`` and ``level``.

    :raises UnusableError: naming ``where``, if a constraint cannot be checked or is stated wrongly.
    """
    truth = _truth_of(row)
    if truth is None and "ground_truth" not in row:
        raise DataError(
            f"{where} has no column 'ground_truth'{near_miss('ground_truth', row)}; "
            f"rows of the form '{form}' state their constraints in it"
        )
    asked, level = (_of_rlvr if form == "rlvr" else _of_multi)(truth, where)
    for id_, kwargs in asked:
        _check(id_, kwargs, where)
    return {
        **row,
        "instruction_id_list": [id_ for id_, _ in asked],
        "kwargs": [
            {name: value for name, value in kwargs.items() if value is not None}
            for _, kwargs in asked
        ],
        "family": asked[0][0].partition(":")[0],
        "level": level,
    }


def _check(id_: str, kwargs: Mapping[str, Any] | None, where: str) -> None:
    if id_ not in KNOWN:
        bare = id_.partition(":")[2]
        hint = f"; did you mean '{bare}'?" if bare in KNOWN else near_miss(id_, KNOWN)
        raise UnusableError(f"{where}: unknown constraint '{id_}'{hint}", f"no check for {id_}")
    try:
        parse(id_, kwargs, _ANY_PROMPT)
    except DataError as error:
        raise UnusableError(f"{where}: {error}", f"wrong kwargs of {id_}") from error


def _loaded(value: object) -> Any:
    """The value that a text holds as JSON or as a Python literal; any other value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None


# IF_multi_constraints


def _of_multi(truth: object, where: str) -> tuple[Asked, int]:
    parts = _loaded(truth)
    if isinstance(parts, Mapping):
        parts = [parts]
    asked: list[tuple[str, Mapping[str, Any]]] = []
    for part in parts if isinstance(parts, list) else ():
        asked += _of_part(_loaded(part), where)
    if not asked:
        raise _malformed(where, truth, "a list of mappings with 'instruction_id' and 'kwargs'")
    return asked, len(asked)


def _of_part(part: object, where: str) -> Asked:
    wanted = "a list of mappings with 'instruction_id' and 'kwargs'"
    if not isinstance(part, Mapping) or "instruction_id" not in part:
        raise _malformed(where, part, wanted)
    ids, kwargs = part["instruction_id"], part.get("kwargs")
    if isinstance(ids, str):
        ids, kwargs = [ids], [kwargs]
    kwargs = [None] * len(ids) if kwargs is None else kwargs
    is_fit = (
        isinstance(ids, list)
        and isinstance(kwargs, list)
        and all(isinstance(id_, str) for id_ in ids)
        and all(values is None or isinstance(values, Mapping) for values in kwargs)
    )
    if not is_fit:
        raise _malformed(where, part, wanted)
    if len(ids) != len(kwargs):
        raise UnusableError(
            f"{where}: ground_truth has {len(ids)} ids but {len(kwargs)} kwargs",
            "malformed ground_truth",
        )
    return [(id_, values or {}) for id_, values in zip(ids, kwargs, strict=True)]


def _malformed(where: str, truth: object, wanted: str) -> UnusableError:
    return UnusableError(
        f"{where}: ground_truth must be {wanted}, not {truth!r:.60}", "malformed ground_truth"
    )


# RLVR-IFeval


def _of_rlvr(truth: object, where: str) -> tuple[Asked, int]:
    call = _loaded(truth)
    if isinstance(call, list) and len(call) == 1:
        call = _loaded(call[0])
    if not isinstance(call, Mapping) or not isinstance(call.get("func_name"), str):
        raise _malformed(where, truth, "a mapping with 'func_name' and its arguments")
    name = call["func_name"]
    arguments = {
        key: value for key, value in call.items() if value is not None and key != "func_name"
    }
    if name not in _FUNCTIONS:
        hint = near_miss(name, _FUNCTIONS)
        raise UnusableError(f"{where}: unknown func_name '{name}'{hint}", f"no check for {name}")
    try:
        return _FUNCTIONS[name](arguments), 1
    except KeyError as error:
        message = f"{where}: {name} needs the argument {error}"
        raise UnusableError(message, f"wrong arguments of {name}") from None
    except _NoEquivalentError as error:
        message = f"{where}: {name} has no equivalent here: {error}"
        raise UnusableError(message, f"no check for {name}") from None
    except (TypeError, ValueError) as error:
        message = f"{where}: {name}: {error}"
        raise UnusableError(message, f"wrong arguments of {name}") from None


class _NoEquivalentError(Exception):
    """No constraint here checks the same as the function."""


def _renamed(id_: str, **names: str) -> Callable[[Mapping[str, Any]], Asked]:
    """A reader for the constraint ``id_``, whose kwargs are arguments of other names there."""
    return lambda arguments: [(id_, {ours: arguments[theirs] for ours, theirs in names.items()})]


def _number(arguments: Mapping[str, Any]) -> int:
    value = arguments["N"]
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"'N' must be a whole number, not {value!r:.40}")
    return int(value)


def _between(id_: str, count: str, relation: str, low: int, high: int, **others: Any) -> Asked:
    """At least ``low`` and at most ``high``: two constraints where both limits mean something."""
    limits: list[tuple[str, Mapping[str, Any]]] = []
    if low > 0:
        limits.append((id_, {**others, count: low, relation: "at least"}))
    return [*limits, (id_, {**others, count: high + 1, relation: "less than"})]


def _exactly(
    id_: str, count: str, relation: str, name: str, theirs: str
) -> Callable[[Mapping[str, Any]], Asked]:
    def read(arguments: Mapping[str, Any]) -> Asked:
        number = _number(arguments)
        return _between(id_, count, relation, number, number, **{name: arguments[theirs]})

    return read


def _quantified(
    id_: str, count: str, relation: str, slack: Callable[[int], int]
) -> Callable[[Mapping[str, Any]], Asked]:
    """``at least``, ``at most`` and ``around`` a number; ``slack`` is what around means."""

    def read(arguments: Mapping[str, Any]) -> Asked:
        number, quantifier = _number(arguments), arguments["quantifier"]
        if quantifier == "at least":
            return [(id_, {count: number, relation: "at least"})]
        if quantifier == "at most":
            return [(id_, {count: number + 1, relation: "less than"})]
        if quantifier == "around":
            far = slack(number)
            return _between(id_, count, relation, number - far, number + far)
        raise ValueError(
            f"'quantifier' must be at least, at most or around, not {quantifier!r:.40}"
        )

    return read


def _choice(arguments: Mapping[str, Any]) -> Asked:
    options = arguments["options"]
    if not isinstance(options, list) or {*map(str, options)} != {*OPTIONS}:
        raise _NoEquivalentError("constrained_response knows only IFEval's three options")
    return [("detectable_format:constrained_response", {})]


def _paragraphs(arguments: Mapping[str, Any]) -> Asked:
    _number(arguments)
    raise _NoEquivalentError("its paragraphs are divided by '* * *', not by '***'")


def _a_tenth(number: int) -> int:
    return max(round(number * 0.1), 1)


_FUNCTIONS: Mapping[str, Callable[[Mapping[str, Any]], Asked]] = {
    "verify_keywords": _renamed("keywords:existence", keywords="keyword_list"),
    "verify_keyword_frequency": _exactly(
        "keywords:frequency", "frequency", "relation", "keyword", "word"
    ),
    "validate_forbidden_words": _renamed(
        "keywords:forbidden_words", forbidden_words="forbidden_words"
    ),
    "verify_letter_frequency": _exactly(
        "keywords:letter_frequency", "let_frequency", "let_relation", "letter", "letter"
    ),
    "validate_response_language": _renamed("language:response_language", language="language"),
    "verify_paragraph_count": _paragraphs,
    "validate_word_constraint": _quantified(
        "length_constraints:number_words", "num_words", "relation", _a_tenth
    ),
    "verify_sentence_constraint": _quantified(
        "length_constraints:number_sentences", "num_sentences", "relation", lambda number: 1
    ),
    "validate_paragraphs": _renamed(
        "length_constraints:nth_paragraph_first_word",
        num_paragraphs="N",
        nth_paragraph="i",
        first_word="first_word",
    ),
    "verify_postscript": _renamed(
        "detectable_content:postscript", postscript_marker="postscript_marker"
    ),
    "validate_placeholders": _renamed(
        "detectable_content:number_placeholders", num_placeholders="N"
    ),
    "verify_bullet_points": _renamed("detectable_format:number_bullet_lists", num_bullets="N"),
    "validate_title": _renamed("detectable_format:title"),
    "validate_choice": _choice,
    "validate_highlighted_sections": _renamed(
        "detectable_format:number_highlighted_sections", num_highlights="N"
    ),
    "validate_sections": _renamed(
        "detectable_format:multiple_sections", num_sections="N", section_spliter="section_splitter"
    ),
    "validate_json_format": _renamed("detectable_format:json_format"),
    "validate_repeat_prompt": _renamed(
        "combination:repeat_prompt", prompt_to_repeat="original_prompt"
    ),
    "validate_two_responses": _renamed("combination:two_responses"),
    "validate_uppercase": _renamed("change_case:english_capital"),
    "validate_lowercase": _renamed("change_case:english_lowercase"),
    "validate_frequency_capital_words": _quantified(
        "change_case:capital_word_frequency", "capital_frequency", "capital_relation", _a_tenth
    ),
    "validate_end": _renamed("startend:end_checker", end_phrase="end_phrase"),
    "validate_quotation": _renamed("startend:quotation"),
    "validate_no_commas": _renamed("punctuation:no_comma"),
}
