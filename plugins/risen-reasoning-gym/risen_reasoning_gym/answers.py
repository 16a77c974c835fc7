"""Find the answer in a completion, and decide whether a scorer may get it.

Some of reasoning-gym's scorers run the answer as Python (``eval``, or sympy's ``parse_expr``,
which does). A model's text must not run in the process that trains it. So an answer is parsed
first, and one that is not plainly a literal or a formula is wrong without being scored.
"""

from __future__ import annotations

import ast
import math
import re

_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_LED_IN = re.compile(r"(?:final )?answer:\s*", re.IGNORECASE)
_LITERALS = frozenset(("binary_matrix", "n_queens", "spiral_matrix", "string_insertion"))
_SUMS = frozenset(("countdown", "puzzle24"))
_FORMULAS = frozenset(
    ("intermediate_integration", "polynomial_multiplication", "simple_integration")
)
_TRIGONOMETRIC = ("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan")
_FUNCTIONS = frozenset(
    (*_TRIGONOMETRIC, "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt", "pi", "Abs")
)
_LONGEST = 500  # characters of a sum or formula
_HIGHEST_POWER = 100


def answer_of(text: str) -> str:
    r"""The answer that a completion gives; empty if it gives none.

    The first of these that there is: the text between the last ``<answer>`` and ``</answer>``, the
    content of the last ``\boxed{}``, the last line that is not blank, without a leading "Answer:".
    """
    for marked in (_tagged(text), _boxed(text)):
        if marked is not None:
            return marked.strip()
    lines = text.split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return _LED_IN.sub("", last, count=1) if _LED_IN.match(last) else last


def _tagged(text: str) -> str | None:
    tags = list(_TAG.finditer(text))
    for opening, closing in zip(tags[-2::-1], tags[:0:-1], strict=True):
        if not opening.group(1) and closing.group(1):
            return text[opening.end() : closing.start()]
    return None


def _boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth = 1
    for index in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[index], 0)
        if depth == 0:
            return text[start:index]
    return None


def may_be_scored(task: str, answer: str, oracle: object) -> bool:
    """Whether the scorer of ``task`` can score ``answer`` without running code in it.

    :param oracle: the item's own answer, which may always be scored.
    """
    if answer == oracle:
        return True
    if task in _LITERALS:
        return _is_harmless_literal(answer)
    if task in _SUMS or task in _FORMULAS:
        if len(answer) > _LONGEST:
            return False
        tree = _parsed(answer)
        names = _FUNCTIONS if task in _FORMULAS else frozenset[str]()
        return tree is not None and _is_formula(tree, names, symbols=task in _FORMULAS)
    return True


def _is_harmless_literal(answer: str) -> bool:
    try:
        ast.parse(answer.lstrip(), mode="eval")
    except (SyntaxError, ValueError):
        return True  # Python refuses it, so nothing runs
    except (RecursionError, MemoryError):
        return False
    try:
        ast.literal_eval(answer.lstrip())
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _parsed(answer: str) -> ast.expr | None:
    try:
        return ast.parse(answer.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_formula(  # noqa: PLR0911  one line per kind of node
    node: ast.expr, names: frozenset[str], *, symbols: bool, powers: int = 2
) -> bool:
    """Whether a formula has only numbers, letters, functions in ``names`` and small arithmetic.

    :param powers: the depth to which powers may be nested; each level multiplies the digits.
    """

    def fits(inner: ast.expr, left: int = powers) -> bool:
        return _is_formula(inner, names, symbols=symbols, powers=left)

    match node:
        case ast.Constant(value=int() | float() as value):
            return not isinstance(value, bool)
        case ast.Name(id=name):
            return symbols and (len(name) == 1 or name in names)
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return fits(operand)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), left=left, right=right):
            return fits(left) and fits(right)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return powers > 0 and fits(left, powers - 1) and fits(right, 0) and _is_small(right)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]):
            is_power = name == "exp"
            return name in names and powers >= is_power and fits(argument, powers - is_power)
    return False


def _is_small(power: ast.expr) -> bool:
    numbers = [node.value for node in ast.walk(power) if isinstance(node, ast.Constant)]
    size = math.prod(max(1.0, abs(n)) for n in numbers if isinstance(n, int | float))
    return size <= _HIGHEST_POWER
