"""Constraints that code can check, under the ids and kwargs of IFEval and IFTrain.

Rows with ``instruction_id_list`` and ``kwargs`` work unchanged; a null kwarg is an absent one.
Everything is deterministic and offline. An unknown id or a wrong kwarg is an error: never a pass,
never a silent fail. ``docs/reference/constraints.md`` lists where a check differs from IFEval's.

>>> check_all("TWO WORDS", ["change_case:english_capital"], [{}])
[True]
"""

from __future__ import annotations

from risen_plugin.constraints.core import Constraint, Kind, Look
from risen_plugin.constraints.judging import Judgement, check_all, judge_all, variants
from risen_plugin.constraints.registry import IFEVAL_IDS, KNOWN, parse, parse_all
from risen_plugin.constraints.together import clash, contradict

__all__ = [
    "IFEVAL_IDS",
    "KNOWN",
    "Constraint",
    "Judgement",
    "Kind",
    "Look",
    "check_all",
    "clash",
    "contradict",
    "judge_all",
    "parse",
    "parse_all",
    "variants",
]
