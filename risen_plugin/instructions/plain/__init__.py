"""Plain prompts that come with the package, and questions of fact that watch what a model knows.

The prompts have no constraints of form; the generator ``constraints`` adds some. The questions have
short answers, and the tasks exact ones: sums, code, tables. A phase holds the model to its own. The
facts are never trained on.
``PROVENANCE.md`` beside the files says who wrote them and what they were compared with.

>>> capital = facts()[0]
>>> capital.prompt, capital.is_told_by("It is Paris."), capital.is_told_by("I do not know.")
('What is the capital of France?', True, False)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from risen_plugin.instructions.validity.words import words_of
from risen_plugin.kit.json_lines import read_lines

__all__ = [
    "PLAIN",
    "Fact",
    "exact_file",
    "exact_tasks",
    "facts",
    "facts_file",
    "plain_file",
    "plain_prompts",
    "questions_file",
    "short_questions",
]

PLAIN = "plain"
"""The name of the prompts where a path is asked for, if nothing there has this name."""


@dataclass(frozen=True)
class Fact:
    """A question of fact.

    :param accepted: right answers in lower case; each is a word or a few that follow one another.
    """

    prompt: str
    accepted: tuple[str, ...]

    def is_told_by(self, answer: str) -> bool:
        """Whether ``answer`` holds an accepted one as whole words, without regard to case.

        It looks at words and not at what is said of them: "not Paris" tells Paris.
        """
        said = f" {' '.join(words_of(answer))} "
        return any(f" {' '.join(words_of(right))} " in said for right in self.accepted)


def plain_file() -> Path:
    """The file of plain prompts: JSON Lines with ``prompt`` and its ``kind``."""
    return Path(__file__).parent / "plain.jsonl"


def questions_file() -> Path:
    """The file of questions with short answers: JSON Lines with ``prompt``."""
    return Path(__file__).parent / "questions.jsonl"


def exact_file() -> Path:
    """The file of tasks with an exact answer: JSON Lines with ``prompt``."""
    return Path(__file__).parent / "exact.jsonl"


def facts_file() -> Path:
    """The file of facts: JSON Lines with ``prompt`` and ``accepted``."""
    return Path(__file__).parent / "facts.jsonl"


def plain_prompts() -> tuple[str, ...]:
    """The plain prompts, in the order of the file."""
    return _prompts(plain_file())


def short_questions() -> tuple[str, ...]:
    """The questions with short answers, in the order of the file; none is one of the facts."""
    return _prompts(questions_file())


def exact_tasks() -> tuple[str, ...]:
    """Sums in words, arithmetic, code, tables and formulas, in the order of the file."""
    return _prompts(exact_file())


def _prompts(path: Path) -> tuple[str, ...]:
    return tuple(line.value()["prompt"] for line in read_lines(path))


def facts() -> tuple[Fact, ...]:
    """The questions of fact, in the order of the file."""
    rows = [line.value() for line in read_lines(facts_file())]
    return tuple(Fact(row["prompt"], tuple(row["accepted"])) for row in rows)
