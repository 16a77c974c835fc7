"""Every check agrees with IFEval's own, outside the differences that are listed on purpose.

``RISEN_ORACLE_PAIRS`` sets how many pairs outside of them are compared per id: 2,000 where it is
not given, 200 for a quick run.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import ifeval_differences
import ifeval_reference
import pytest
from ifeval_pairs import pairs

from risen_plugin.constraints import IFEVAL_IDS, judge_all

if ifeval_reference.missing():
    pytest.skip(
        f"the reference is not installed (no {', '.join(ifeval_reference.missing())}); "
        "`tox -e oracle` has it",
        allow_module_level=True,
    )
PAIRS = int(os.environ.get("RISEN_ORACLE_PAIRS", "2000"))


@pytest.mark.parametrize("id_", sorted(IFEVAL_IDS))
def test_every_verdict_agrees_outside_the_listed_differences(id_: str) -> None:
    logging.getLogger("lm_eval").setLevel(logging.CRITICAL)  # it reports each unknown language
    compared = [0, 0]
    met = [0, 0]
    wrong = []
    drawn = 0
    for constraint, prompt, text in pairs(id_, 4 * PAIRS):
        drawn += 1
        expected = ifeval_reference.verdict(id_, constraint.kwargs, text, prompt)
        (judged,) = judge_all(text, [id_], [constraint.kwargs], prompt)
        listed = (
            ifeval_differences.named(constraint, text),
            ifeval_differences.named_loosely(constraint, text),
        )
        for index, ours in enumerate((judged.strict, judged.loose)):
            met[index] += expected[index]
            if not listed[index]:
                compared[index] += 1
                if ours != expected[index]:
                    wrong.append((("strict", "loose")[index], ours, constraint.kwargs, text))
        if min(compared) >= PAIRS:
            break
    counts = (drawn, *compared, *met, len(wrong))
    print(f"| `{id_}` | {' | '.join(f'{count:,}' for count in counts)} |")
    assert not wrong, wrong[:3]
    # Most of what is drawn is compared, and neither verdict is rare.
    assert min(compared) >= PAIRS
    assert drawn < 2 * PAIRS
    assert all(0.1 * drawn < count < 0.95 * drawn for count in met)


@pytest.mark.parametrize("id_", sorted(ifeval_differences.CLASSES))
def test_every_listed_difference_stands_in_the_reference_page(id_: str) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "constraints.md"
    _, table = page.read_text(encoding="utf-8").split("## Where a check differs from IFEval's")
    assert f"`{id_}`" in table
