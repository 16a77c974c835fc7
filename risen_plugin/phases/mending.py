"""What a phase begins with: answers of the model at its entry, mended to meet what was asked.

The question is asked without its constraints, since a model that cannot keep them answers better
without, and what it then says is what it should still say when they are kept. Where no edit helps,
as for a word that has to be there, it is asked with them, and what it then meets is learned whole.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from risen_plugin.constraints import parse_all
from risen_plugin.constraints.mending import mended
from risen_plugin.contracts import Completion, Prompt, Row, text_of
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.duration import AGAIN
from risen_plugin.rewards.adherence import grade, verdicts
from risen_plugin.training.answering import answers
from risen_plugin.training.asking import Asking, end_ids
from risen_plugin.training.imitation import Example, Imitation, example
from risen_plugin.training.outside import Outside

CHOICES = 6
"""Instructions of which one is learned from, so that all constraints come about as often."""

_IDS = "instruction_id_list"


@dataclass(frozen=True)
class Mended:
    """What came of the answers of one process.

    :param asked: questions that the model answered.
    :param met: instructions that an answer meets after it was edited, and did not before.
    :param rows: those of them to learn from.
    """

    asked: int
    met: int
    rows: Sequence[Example]


@dataclass(frozen=True)
class Draft:
    """The model's own answer to a question.

    :param is_cut: whether it ends where its room ended.
    :param is_whole: whether all of it is to be learned, since it was asked with the constraints.
    """

    text: str
    is_cut: bool
    is_whole: bool = False


@dataclass(frozen=True)
class Edited:
    """A draft, and the text that it became to meet what a row asks."""

    row: Row
    draft: Draft
    text: str


def mended_answers(
    context: PhaseContext,
    asking: Asking,
    rows: Sequence[Row],
    label: str,
    *,
    seed: int,
    outside: Outside | None,
) -> Mended:
    """Have the model answer the questions of rows, mend the answers, and choose among them.

    :param rows: instructions to train on, of all processes; this one takes its share.
    :param label: of the progress bar.
    """
    config = context.config.mending
    assert config is not None  # who asks has seen to it
    most = -(-config.rows // context.processes.count)
    rng = random.Random(seed)
    questions, mine = _questions(asking, context.processes.share(rows), most)
    drafts = _drafts(context, asking, list(questions.values()), label, outside)
    by_question = dict(zip(questions, drafts, strict=True))
    edited, missed = _edited([(row, by_question[key]) for row, key in mine], rng)
    again = [missed[place] for place in evenly(_kinds(missed), most // AGAIN, rng)]
    drafts = _drafts(context, asking, [row["prompt"] for row in again], f"{label}, again", outside)
    whole = [replace(draft, is_whole=True) for draft in drafts]
    edited += _edited(list(zip(again, whole, strict=True)), rng)[0]
    good = [one for one, passes in zip(edited, _passed(context, edited), strict=True) if passes]
    chosen = evenly(_kinds([one.row for one in good]), most, rng)
    end = end_ids(context.model, asking.tokenizer)[:1]
    examples = [_example(asking, good[place], end, config.unedited) for place in chosen]
    return Mended(len(questions) + len(again), len(good), examples)


def imitation_of(context: PhaseContext, made: Mended, *, seed: int) -> Imitation | None:
    """How often and how fast to learn from them; None where a process has nothing to learn from."""
    config, processes = context.config.mending, context.processes
    assert config is not None
    least = min(processes.gather(lambda: len(made.rows)))
    if not least:
        return None
    each = max(1, config.batch_size // processes.count)
    steps = -(-least // each)
    return Imitation(made.rows, each, steps, config.learning_rate, seed, config.weight)


def evenly(kinds: Sequence[Sequence[str]], most: int, rng: random.Random) -> list[int]:
    """The places of at most ``most`` rows, chosen so that all kinds come about equally often.

    :param kinds: of each row, at least one; each time the row is taken whose kinds were the rarest.

    >>> evenly([["a"], ["a"], ["a"], ["b"]], 2, random.Random(0))
    [0, 3]
    """
    counts: Counter[str] = Counter()
    chosen: list[int] = []
    order = rng.sample(range(len(kinds)), len(kinds))
    heap = [(0.0, turn, at) for turn, at in enumerate(order)]  # sorted, and so a heap
    while heap and len(chosen) < most:
        known, turn, at = heapq.heappop(heap)
        now = sum(counts[kind] for kind in kinds[at]) / len(kinds[at])
        if now > known:  # counts only grow, so who is no longer first goes back
            heapq.heappush(heap, (now, turn, at))
            continue
        chosen.append(at)
        counts.update(kinds[at])
    return sorted(chosen)


_Key = tuple[int, ...]


def _questions(
    asking: Asking, rows: Sequence[Row], most: int
) -> tuple[dict[_Key, Prompt], list[tuple[Row, _Key]]]:
    """The first ``most`` different questions by their tokens, and the rows that ask them."""
    questions: dict[_Key, Prompt] = {}
    asked: list[tuple[Row, _Key]] = []
    for row in rows:
        question: Prompt = row.get("query") or row["prompt"]
        key = tuple(asking.prompt_ids(question))
        if key in questions or len(questions) < most:
            questions.setdefault(key, question)
            asked.append((row, key))
    return questions, asked


def _drafts(
    context: PhaseContext,
    asking: Asking,
    questions: Sequence[Prompt],
    label: str,
    outside: Outside | None,
) -> list[Draft]:
    config = context.config.mending
    assert config is not None
    made = answers(
        context.model,
        asking.with_room(config.tokens),
        questions,
        batch_size=context.config.guard.batch_size,
        progress=None if context.quiet else label,
        outside=outside,
    )
    ends = end_ids(context.model, asking.tokenizer)
    return [
        Draft(text_of(completion), not ids or ids[-1] not in ends)
        for completion, ids in zip(made.completions, made.ids, strict=True)
    ]


def _mended(row: Row, draft: Draft, rng: random.Random) -> str | None:
    """The draft as it is or mended; None where it cannot be."""
    ids, kwargs = row.get(_IDS) or [], row.get("kwargs")
    question: Any = row.get("query") or row["prompt"]
    about = text_of(question)
    constraints = parse_all(ids, kwargs or [{}] * len(ids), about) if ids else []
    return mended(draft.text, constraints, rng, about, is_cut=draft.is_cut)


def _edited(
    drafted: Sequence[tuple[Row, Draft]], rng: random.Random
) -> tuple[list[Edited], list[Row]]:
    """What there is to learn from, and the rows whose drafts no edit can mend."""
    edited: list[Edited] = []
    missed: list[Row] = []
    for row, draft in drafted:
        text = _mended(row, draft, rng)
        if text is None:
            missed.append(row)
        elif draft.is_whole or text != draft.text:
            edited.append(Edited(row, draft, text))
    return edited, missed


def _kinds(rows: Sequence[Row]) -> list[Sequence[str]]:
    """The constraints of each row, by their ids."""
    return [row.get(_IDS) or [""] for row in rows]


def _passed(context: PhaseContext, edited: Sequence[Edited]) -> list[bool | None]:
    """Whether every graded reward passes each answer."""
    if not edited:
        return []
    completions: list[Completion] = [
        one.text
        if isinstance(one.row["prompt"], str)
        else [{"role": "assistant", "content": one.text}]
        for one in edited
    ]
    ids = [list(context.tokenizer(one.text)["input_ids"]) for one in edited]
    scores = grade(context.rewards, [one.row for one in edited], completions, ids)
    return verdicts(context.rewards, scores)


def _example(asking: Asking, edited: Edited, end: list[int], unedited: float) -> Example:
    """Prompt and answer with its end, as the model would have written it."""

    def ids(text: str) -> list[int]:
        return list(asking.tokenizer(text, add_special_tokens=False)["input_ids"])

    draft = [*ids(edited.draft.text), *([] if edited.draft.is_cut else end)]
    answer = [*ids(edited.text), *end]
    asked = asking.prompt_ids(edited.row["prompt"])
    return example(asked, draft, answer, 1.0 if edited.draft.is_whole else unedited)
