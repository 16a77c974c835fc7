"""Put constraints into a prompt: choose ones that agree, and word them before or after the query.

Pure functions of plain values and a random generator. The generators choose the prompts, and how
hard the constraints should be.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from risen_plugin.constraints import KNOWN, Constraint, check_all, clash, parse_all
from risen_plugin.contracts import Row, text_of
from risen_plugin.errors import ConfigError, DataError, near_miss
from risen_plugin.instructions.fitting import Task, amounts_suit, suitable
from risen_plugin.instructions.validity import ids_and_kwargs

Position: TypeAlias = Literal["after", "before", "both"]
ADDED_COLUMNS = ("query", "instruction_id_list", "kwargs", "family", "level")
"""The columns of a row, beside ``prompt``, once constraints were added."""

_TRIES = 50  # random picks of compatible constraints before giving up
_AMOUNTS = 12  # kwargs drawn for one id until they suit the task
_PICKS = 5  # picks of ids until all of them have kwargs that suit it
_SELDOM_FIT = frozenset(
    {"detectable_format:constrained_response", "language:response_language", "copy:repeat_phrase"}
) | {id_ for id_, constraint in KNOWN.items() if constraint.alone}
"""Ids that few questions go with: fixed answers, copies, another language."""


def families() -> list[str]:
    """The families of all known constraints."""
    return sorted({constraint.family() for constraint in KNOWN.values()})


def _fit(include: Iterable[str] | None) -> set[str]:
    """Ids that suit most questions; of an included family without such ids, all of them."""
    fit = set(KNOWN) - _SELDOM_FIT
    for family in include or ():
        of_family = {id_ for id_, constraint in KNOWN.items() if constraint.family() == family}
        if not of_family & fit:
            fit |= of_family
    return fit


def chosen_ids(
    ids: Iterable[str] | None,
    include: Iterable[str] | None,
    exclude: Iterable[str],
) -> list[str]:
    """Constraint ids to choose from: all that fit most questions, or those named.

    :param ids: the ids themselves.
    :param include: families to take; None takes all.
    :param exclude: families to leave out.
    :raises ConfigError: if a name is unknown, or nothing is left.
    """
    include = None if include is None else list(include)
    exclude = list(exclude)
    chosen = sorted(set(ids) if ids is not None else _fit(include))
    for id_ in chosen:
        if id_ not in KNOWN:
            raise ConfigError(f"ids: unknown constraint '{id_}'{near_miss(id_, KNOWN)}")
    for option, names in (("families", include or ()), ("exclude_families", exclude)):
        for name in names:
            if name not in families():
                hint = near_miss(name, families())
                raise ConfigError(
                    f"{option}: unknown family '{name}'{hint}; there are: {', '.join(families())}"
                )
    chosen = [
        id_
        for id_ in chosen
        if KNOWN[id_].family() not in exclude
        and (include is None or KNOWN[id_].family() in include)
    ]
    if not chosen:
        raise ConfigError(
            "ids must name at least one constraint"
            if ids is not None and not list(ids)
            else "ids, families and exclude_families leave no constraint to add"
        )
    return chosen


def agreeing(
    rng: random.Random,
    choices: Sequence[str],
    wanted: int,
    stated: Collection[str] = (),
    weight: Callable[[str], float] | None = None,
) -> list[str]:
    """``wanted`` ids that agree with one another and with the ``stated`` ones; fewer if need be.

    :param weight: the weight of an id in the choice, above 0; without it all weigh the same.
    """
    best: list[str] = []
    for _ in range(_TRIES):
        picked: list[str] = []
        for id_ in _shuffled(rng, choices, weight):
            if len(picked) == wanted:
                break
            if not any(clash(id_, other) for other in (*stated, *picked)):
                picked.append(id_)
        best = max(best, picked, key=len)
        if len(best) == wanted:
            break
    return best


def fitting(
    rng: random.Random,
    choices: Sequence[str],
    wanted: int,
    *,
    stated: Sequence[Constraint],
    task: Task | None,
    make: Callable[[str], Constraint],
    weight: Callable[[str], float] | None = None,
    named: bool = False,
) -> list[Constraint]:
    """``wanted`` constraints that fit the task, one another and the stated ones; fewer if need be.

    :param task: the task that they are added to; None lets all that agree through.
    :param make: a constraint with this id and kwargs drawn anew.
    :param weight: as for :func:`agreeing`.
    :param named: whether somebody named the ``choices``.
    """
    if task is not None:
        fit = suitable(task, named=named)
        choices = [id_ for id_ in choices if id_ in fit]
    best: list[Constraint] = []
    for _ in range(_PICKS):
        picked: list[Constraint] = []
        for id_ in agreeing(rng, choices, wanted, [each.id for each in stated], weight):
            for _ in range(_AMOUNTS):
                made = make(id_)
                if task is None or amounts_suit([*stated, *picked, made], task):
                    picked.append(made)
                    break
        best = max(best, picked, key=len)
        if len(best) >= min(wanted, len(choices)):
            break
    return best


def _shuffled(
    rng: random.Random, choices: Sequence[str], weight: Callable[[str], float] | None
) -> list[str]:
    if weight is None:
        return rng.sample(choices, len(choices))
    # A weighted order without replacement: Efraimidis and Spirakis, 2006.
    keys = {id_: rng.random() ** (1 / weight(id_)) for id_ in choices}
    return sorted(choices, key=keys.__getitem__, reverse=True)


def question_of(row: Row) -> str:
    """The text of the user's last message, or the text prompt.

    :raises DataError: if there is no such message.
    """
    prompt = row["prompt"]
    return text_of(prompt if isinstance(prompt, str) else [_last_of_user(prompt)])


def with_question(row: Row, text: str) -> Row:
    """``row`` with ``text`` in place of :func:`question_of`."""
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return {**row, "prompt": text}
    last = _last_of_user(prompt)
    messages = [{**each, "content": text} if each is last else each for each in prompt]
    return {**row, "prompt": messages}


def stated_constraints(row: Row) -> list[Constraint]:
    """The constraints that ``row`` states already.

    :raises DataError: as :func:`stated_by`.
    """
    return parse_all(*stated_by(row), question_of(row))


def stated_by(row: Row) -> tuple[list[str], list[Any]]:
    """Ids and kwargs that ``row`` states already.

    :raises DataError: if they are unknown or wrong, naming the prompt.
    """
    ids, kwargs = ids_and_kwargs(row)
    asked = question_of(row)
    try:
        check_all("", ids, kwargs, asked)
    except DataError as error:
        raise DataError(f"the row with the prompt {asked[:40]!r}: {error}") from error
    return ids, [{} if values is None else values for values in kwargs]


def constrained(
    row: Row,
    added: Sequence[Constraint],
    rng: random.Random,
    *,
    position: Position = "after",
    chat: bool = True,
) -> Row:
    """``row`` with ``added`` asked for in its prompt and stated in its columns.

    :param position: side of the query on which the words go; ``both`` is either, by chance. A
        constraint about the request itself always comes after it.
    :param chat: whether a text prompt becomes a chat of one message.
    """
    ids, kwargs = stated_by(row)
    words = " ".join(constraint.describe(rng) for constraint in added)
    is_before = position == "before" or (position == "both" and rng.random() < 0.5)
    if any(constraint.prompt_kwarg is not None for constraint in added):
        is_before = False
    new = [constraint.id for constraint in added]
    return {
        **row,
        "prompt": _with(row["prompt"], words, is_before=is_before, chat=chat and bool(words)),
        "query": _like(row.get("query") or row["prompt"], row["prompt"], chat and bool(words)),
        "instruction_id_list": ids + new,
        "kwargs": kwargs + [constraint.kwargs for constraint in added],
        "family": KNOWN[(new or ids)[0]].family(),
        "level": len(ids) + len(new),
    }


def _with(prompt: Any, words: str, *, is_before: bool, chat: bool) -> Any:
    if not words:
        return prompt
    if isinstance(prompt, str):
        text = _joined(prompt, words, is_before)
        return [{"role": "user", "content": text}] if chat else text
    last = _last_of_user(prompt)
    return [
        {**message, "content": _joined(text_of([message]), words, is_before)}
        if message is last
        else message
        for message in prompt
    ]


def _joined(query: str, words: str, is_before: bool) -> str:
    return f"{words}\n\n{query.lstrip()}" if is_before else f"{query.rstrip()}\n\n{words}"


def _like(query: object, prompt: Any, chat: bool) -> Any:
    """``query`` as a chat where the prompt becomes one."""
    if isinstance(query, str) and (chat or not isinstance(prompt, str)):
        return [{"role": "user", "content": query}]
    return query


def _last_of_user(messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    for message in messages[::-1]:
        if message["role"] == "user":
            return message
    raise DataError("a chat prompt has no message of the user to add constraints to")
