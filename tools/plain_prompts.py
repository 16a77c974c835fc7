"""Compare the prompts, questions, tasks and facts of the package with evaluation files.

``python -m tools.plain_prompts FILE ...`` prints, for each file and for runs of 13, 8 and 6 words,
how many of the prompts, questions, tasks and facts share a run, or all their words, with a text in
it, and which. It ends with exit code 1 if any but a fact does; facts are never trained on. The
figures stand in ``instructions/plain/PROVENANCE.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from risen_plugin.instructions.plain import exact_tasks, facts, plain_prompts, short_questions
from risen_plugin.instructions.validity import Decontamination

RUNS = (13, 8, 6)


def shared(texts: Sequence[str], path: str, run: int) -> list[str]:
    """Those of ``texts`` that share ``run`` words in a row, or every word, with the file."""
    evaluation = Decontamination([path], run)
    return [text for text in texts if evaluation.source_of(text) is not None]


def main(paths: Sequence[str]) -> int:
    """Print the comparison with each of ``paths``; 1 if one but a fact shares anything, else 0."""
    sets = {
        "prompts": plain_prompts(),
        "questions": short_questions(),
        "tasks": exact_tasks(),
        "facts": tuple(fact.prompt for fact in facts()),
    }
    found = False
    for path in paths:
        for run in RUNS:
            for name, texts in sets.items():
                overlapping = shared(texts, path, run)
                found = found or (name != "facts" and bool(overlapping))
                counted = f"{len(overlapping)} of {len(texts)} {name}"
                print(f"{path}: {counted} share {run} words in a row")
                for text in overlapping:
                    print(f"    {text}")
    return int(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
