"""Strict adherence of graphs: the share of instructions whose answer every graded reward passes.

The exact graph answers first, and each other graph is compared with it instruction by instruction.
The instructions and those verdicts lie in the bundle, so that this can be repeated. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from risen_export.bundles.private import scrub
from risen_export.gate.instructions import Instructions, Judge, made_again
from risen_export.gate.measured import Measured
from risen_export.gate.settings import MOST_TOKENS
from risen_export.runtime.bundle import Bundle
from risen_plugin.contracts import Completion, Failed, Row
from risen_plugin.errors import DataError, ExportError, RisenError
from risen_plugin.instructions.rows import check_row
from risen_plugin.kit.files import write_text
from risen_plugin.kit.json_lines import read_lines
from risen_plugin.rewards.adherence import grade, verdicts

FILE = "instructions.jsonl"
_MOST_ROWS = 10_000


@dataclass(frozen=True)
class Standard:
    """Instructions that the exact graph answered.

    :param passed: for each, whether its answer passes.
    """

    instructions: Instructions
    passed: Sequence[bool]

    def add_to(self, measured: Measured, bundle: Bundle) -> Measured:
        """``measured`` with the adherence of ``bundle`` beside that of the exact graph.

        An answer that no reward judges, while they judged the exact graph's, passes nothing.
        """
        ours = [bool(passed) for passed in follow(bundle, self.instructions)[0]]
        return compared(measured, self.passed, ours)


def compared(measured: Measured, theirs: Sequence[bool], ours: Sequence[bool]) -> Measured:
    """``measured`` with two graphs' verdicts on the same instructions."""
    pairs = list(zip(theirs, ours, strict=True))
    return replace(
        measured,
        adherence=sum(ours) / len(pairs),
        adherence_reference=sum(theirs) / len(pairs),
        instructions=len(pairs),
        adherence_lost=sum(before and not after for before, after in pairs),
        adherence_gained=sum(after and not before for before, after in pairs),
    )


def begin(exact: Bundle, instructions: Instructions) -> tuple[Standard | None, tuple[str, ...]]:
    """Have the exact graph answer; instructions that cannot be asked or judged are left out.

    :returns: the standard, None if no answer was judged; and notes.
    """
    fitting = [row for row in instructions.rows if _fits(exact, row)]
    asked = replace(instructions, rows=fitting)
    passed, reasons = follow(exact, asked)
    judged = [
        (row, verdict) for row, verdict in zip(fitting, passed, strict=True) if verdict is not None
    ]
    if not judged:
        why = reasons[0] if reasons else "no instruction fits the model's context and template"
        if fitting and not reasons:
            why = "the rewards judge no answer"
        return None, (f"adherence was not measured: {why}",)
    notes = []
    if len(judged) < len(instructions.rows):
        notes.append(
            f"adherence is measured on {len(judged)} of {len(instructions.rows)} instructions; the "
            "others do not fit the model's context or template, or no reward judges their answers"
        )
    rows = [row for row, _ in judged]
    return Standard(replace(instructions, rows=rows), [v for _, v in judged]), tuple(notes)


def _fits(bundle: Bundle, row: Row) -> bool:
    try:
        return 0 < len(bundle.tokenizer.encode(row["prompt"])) < bundle.context_length
    except DataError:
        return False


def follow(bundle: Bundle, instructions: Instructions) -> tuple[list[bool | None], list[str]]:
    """Whether each answer of ``bundle`` passes, None where no reward judged it; why rewards failed.

    Answers are greedy and follow the model's own generation settings, as a client's do. A prompt
    that the bundle's template refuses has an empty answer.
    """
    rows = instructions.rows
    if not rows:
        return [], []
    asked = {
        index: bundle.tokenizer.encode(row["prompt"])
        for index, row in enumerate(rows)
        if _fits(bundle, row)
    }
    made = dict(
        zip(
            asked,
            bundle.generate_ids(list(asked.values()), max_new_tokens=instructions.max_new_tokens),
            strict=True,
        )
    )
    completions: list[Completion] = []
    for index, row in enumerate(rows):
        text = bundle.tokenizer.decode(made.get(index, []))
        is_chat = not isinstance(row["prompt"], str)
        completions.append([{"role": "assistant", "content": text}] if is_chat else text)
    ends = sorted(bundle.eos_ids)[:1]
    ids = [
        [*made.get(i, []), *(ends if len(made.get(i, [])) < instructions.max_new_tokens else [])]
        for i in range(len(rows))
    ]
    scores = grade(instructions.rewards, rows, completions, ids)
    failed = [one.reason for of in scores.values() for one in of if isinstance(one, Failed)]
    graded = [reward for reward in instructions.rewards if reward.grading.graded]
    return verdicts(graded, scores), failed


# In the bundle


def save(standard: Standard, folder: Path) -> None:
    """Write :data:`FILE` into ``folder``: how answers are judged, then a line per instruction."""
    head = {
        "max_new_tokens": standard.instructions.max_new_tokens,
        "rewards": [_described(judge) for judge in standard.instructions.judges],
    }
    lines = [head]
    for row, passed in zip(standard.instructions.rows, standard.passed, strict=True):
        lines.append({"row": row, "passed": passed})
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, "".join(json.dumps(line) + "\n" for line in lines))


def _described(judge: Judge) -> dict[str, Any]:
    # A path among the options means nothing elsewhere, and does not leave this machine.
    made_by = judge.made_by if scrub(judge.made_by) == judge.made_by else None
    return {
        "name": judge.reward.__name__,
        "named": made_by,
        "origin": judge.origin,
        **asdict(judge.reward.grading),
    }


def load(folder: Path) -> tuple[Standard | None, str]:
    """What :func:`save` wrote, with rewards of the plugins that are installed here.

    :returns: the standard, None if there is none or its rewards cannot be made; and a remark why.
    :raises ExportError: if the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None, ""
    try:
        head, *lines = (line.value() for line in read_lines(path))
        tokens, described = head["max_new_tokens"], head["rewards"]
        rows, passed = [line["row"] for line in lines], [line["passed"] for line in lines]
        if not 0 < len(rows) <= _MOST_ROWS or not 0 < int(tokens) <= MOST_TOKENS:
            raise ValueError("too many rows or tokens")
        if not all(isinstance(one, dict) for one in [*rows, *described]):
            raise ValueError("a row is no object")
        if not all(isinstance(one, bool) for one in passed):
            raise ValueError("a verdict is none")
        for row in rows:
            check_row(row, str(path))
        entries = [(str(one["name"]), one["named"], str(one["origin"]), one) for one in described]
    except (DataError, ValueError, TypeError, KeyError, ArithmeticError, OSError) as error:
        raise ExportError(f"{path} is no list of instructions; export the model again") from error
    judges = []
    for name, made_by, origin, entry in entries:
        try:
            judges.append(made_again(name, made_by, entry))
        except (RisenError, ImportError) as error:
            return None, (
                f"adherence was not repeated: reward '{name}' of {origin} is not to be had here: "
                f"{error}"
            )
    remark = "; ".join(
        f"reward '{judge.reward.__name__}' is of {judge.origin} here, and was of {origin}"
        for judge, (_, _, origin, _) in zip(judges, entries, strict=True)
        if judge.origin != origin
    )
    return Standard(Instructions(rows, judges, int(tokens)), passed), remark
