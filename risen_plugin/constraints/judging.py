"""Check an answer against the constraints of its row: strictly, loosely, and with a reason.

Then count: which constraints an answer meets, and the tallies by constraint and by family.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from risen_plugin.constraints.core import Constraint, Rules
from risen_plugin.constraints.registry import paired, parse_all
from risen_plugin.contracts import Completion, Row, text_of

if TYPE_CHECKING:
    from risen_plugin.constraints.original.checks import Original


def asked_of(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """The text that the user asked: a text prompt, or the last message of the user in a chat.

    Constraints that are about the prompt itself are about this text.
    """
    if not isinstance(prompt, str):
        of_the_user = [message for message in prompt if message.get("role") == "user"]
        prompt = of_the_user[-1:] or prompt
    return text_of(prompt)


def check_all(
    text: str,
    instruction_id_list: Sequence[str],
    kwargs: Sequence[Mapping[str, Any] | None] | None,
    prompt: str | None = None,
    *,
    rules: Rules = "risen",
) -> list[bool]:
    """For each constraint in turn, whether the answer ``text`` meets it; a blank answer never does.

    :param kwargs: one mapping per id; None where no id takes any.
    :param prompt: the text that was asked, for constraints that are about the prompt itself.
    :param rules: ``ifeval`` for the verdicts of IFEval itself, as published numbers have them.
    :raises DataError: as :func:`parse`, and when there is not one ``kwargs`` per id.
    :raises ConfigError: if IFEval's verdicts need a package that is not installed.
    """
    wanted = _wanted(instruction_id_list, kwargs, prompt, rules)
    return [constraint.check(text) for constraint in wanted]


def check_rules(rules: Rules) -> None:
    """Refuse rules that cannot be applied here.

    :raises ConfigError: if they need a package that is not installed.
    """
    if rules == "ifeval":
        from risen_plugin.constraints.original.needs import check_installed

        check_installed()


def _wanted(
    ids: Sequence[str],
    kwargs: Sequence[Mapping[str, Any] | None] | None,
    prompt: str | None,
    rules: Rules,
) -> Sequence[Constraint] | Sequence[Original]:
    if rules == "risen":
        return parse_all(ids, kwargs, prompt)
    from risen_plugin.constraints.original.checks import parse

    return [parse(id_, values, prompt) for id_, values in paired(ids, kwargs)]


@dataclass(frozen=True)
class Judgement:
    """The verdict of one constraint on an answer, by IFEval's two measures.

    :param id: the constraint's.
    :param strict: whether the answer meets it as it is.
    :param loose: whether the answer meets it in one of the :func:`variants` of IFEval.
    :param seen: what decides it in the answer as it is, in one short line.
    """

    id: str
    strict: bool
    loose: bool
    seen: str


def judge_all(
    text: str,
    instruction_id_list: Sequence[str],
    kwargs: Sequence[Mapping[str, Any] | None] | None,
    prompt: str | None = None,
    *,
    rules: Rules = "risen",
) -> list[Judgement]:
    """As :func:`check_all`, strictly and loosely, and with what decides it.

    >>> judge_all("**<<>>**", ["detectable_format:title"], [{}])
    [Judgement(id='detectable_format:title', strict=False, loose=False, seen='no title')]

    :raises DataError: as :func:`check_all`.
    """
    others = variants(text)[1:]
    judged = []
    for constraint in _wanted(instruction_id_list, kwargs, prompt, rules):
        look = constraint.look(text)
        loose = look.met or any(map(constraint.check, others))
        judged.append(Judgement(constraint.id, look.met, loose, look.seen))
    return judged


def judge_row(
    prompt: Any, completion: Completion, columns: Mapping[str, Any], rules: Rules = "risen"
) -> list[Judgement] | None:
    """The judgements of an answer by the constraints of its row; None where the row has none.

    :raises DataError: if the constraints cannot be read.
    """
    ids = columns.get("instruction_id_list")
    if ids is None or (isinstance(ids, Sequence) and not ids):
        return None
    asked = asked_of(prompt)
    return judge_all(text_of(completion), ids, columns.get("kwargs"), asked, rules=rules)


def variants(text: str) -> list[str]:
    """The different texts that IFEval scores loosely, the answer itself first.

    It may lose its first line, its last line or both, and all its asterisks.
    """
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return list(dict.fromkeys([*cut, *(part.replace("*", "") for part in cut)]))


Count = tuple[int, int]
"""How many of how many."""


def constraints_of(columns: Mapping[str, Any]) -> list[str]:
    """The ids that a row names, as often as it names them."""
    ids = columns.get("instruction_id_list")
    return [str(id_) for id_ in ids] if isinstance(ids, list | tuple) else []


def met_by(completion: Completion, prompt: Any, columns: Mapping[str, Any]) -> list[bool] | None:
    """For each of :func:`constraints_of`, whether the answer meets it.

    None where the row names none, or one that cannot be checked: a log is no place to stop a run.
    """
    ids = constraints_of(columns)
    if not ids:
        return None
    try:
        return check_all(text_of(completion), ids, columns.get("kwargs"), asked_of(prompt))
    except Exception:  # noqa: BLE001  the rows are other people's, and may hold anything
        return None


def counts_by_constraint(
    rows: Sequence[Row], completions: Sequence[Completion]
) -> dict[str, Count]:
    """Per constraint id, how many of how many answers to ``rows`` meet it."""
    met: dict[str, int] = defaultdict(int)
    asked: dict[str, int] = defaultdict(int)
    for row, completion in zip(rows, completions, strict=True):
        verdicts = met_by(completion, row["prompt"], row)
        for id_, is_met in zip(constraints_of(row), verdicts or (), strict=False):
            met[id_] += is_met
            asked[id_] += 1
    return {id_: (met[id_], asked[id_]) for id_ in sorted(asked)}


def counts_by_family(rows: Sequence[Row], passed: Sequence[bool | None]) -> dict[str, Count]:
    """Per family, how many of how many judged answers to its ``rows`` passed.

    :param passed: whether every graded reward passes the answer; None where none judged it.
    """
    good: dict[str, int] = defaultdict(int)
    judged: dict[str, int] = defaultdict(int)
    for row, has_passed in zip(rows, passed, strict=True):
        family = row.get("family")
        if family not in (None, "") and has_passed is not None:
            good[str(family)] += has_passed
            judged[str(family)] += 1
    return {family: (good[family], judged[family]) for family in sorted(judged)}
