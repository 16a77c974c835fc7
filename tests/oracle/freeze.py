"""Write verdicts of the reference to ``tests/data/ifeval_verdicts.json``, for runs without it.

``python tests/oracle/freeze.py``, where the reference is installed.
"""

from __future__ import annotations

import json
import logging
from importlib import metadata
from pathlib import Path

import ifeval_differences
import ifeval_reference
from ifeval_pairs import pairs

from risen_plugin.constraints import IFEVAL_IDS

PATH = Path(__file__).parents[1] / "data" / "ifeval_verdicts.json"
ROWS = 24
LONGEST = 400  # characters


def main() -> None:
    logging.disable(logging.CRITICAL)
    rows = [row for id_ in sorted(IFEVAL_IDS) for row in _rows(id_)]
    packages = {name: metadata.version(name) for name in ifeval_reference.NEEDED}
    provenance = {
        "what": "verdicts of lm-eval's IFEval task on generated answers, with the stand-ins that "
        "tests/oracle/ifeval_reference.py describes; the listed differences are left out",
        "made_by": "python tests/oracle/freeze.py",
        "packages": packages,
    }
    lines = ",\n".join(json.dumps(row, ensure_ascii=True) for row in rows)
    PATH.write_text(
        f'{{"provenance": {json.dumps(provenance, indent=1)},\n"rows": [\n{lines}\n]}}\n',
        encoding="utf-8",
    )
    print(f"{len(rows)} rows in {PATH}")


def _rows(id_: str) -> list[dict[str, object]]:
    """Half of them met and half of them not, as far as there are enough."""
    met: list[dict[str, object]] = []
    missed: list[dict[str, object]] = []
    for constraint, prompt, text in pairs(id_, 1000, seed=1):
        if len(text) > LONGEST or ifeval_differences.named(constraint, text):
            continue
        if ifeval_differences.named_loosely(constraint, text):
            continue
        strict, loose = ifeval_reference.verdict(id_, constraint.kwargs, text, prompt)
        kept = met if strict else missed
        if len(kept) < ROWS // 2:
            kept.append(
                {
                    "id": id_,
                    "kwargs": constraint.kwargs,
                    "prompt": prompt,
                    "text": text,
                    "strict": strict,
                    "loose": loose,
                }
            )
        if len(met) == len(missed) == ROWS // 2:
            break
    return met + missed


if __name__ == "__main__":
    main()
