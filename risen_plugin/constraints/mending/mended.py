"""An answer that misses a constraint, edited until it meets every one that was asked for."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from risen_plugin.constraints.core import Constraint
from risen_plugin.constraints.mending.edits import Piece, in_order
from risen_plugin.constraints.text import sentence_ends

_LENGTHS = 12  # at which an answer is tried
_MARKS = (".", "!", "?", '"', ")", "*", ":", "`", "]", "}", ">")


def mended(
    text: str,
    constraints: Sequence[Constraint],
    rng: random.Random,
    about: str = "",
    *,
    is_cut: bool = False,
) -> str | None:
    """``text``, or an edited form of it, that meets every one of the ``constraints``.

    None where no edits do it: of a keyword that nobody wrote there is none. The answer as it is
    comes first, then edited, then edited after its last sentences were left out, for what asks for
    less, or because it was cut off. The same state of ``rng`` gives the same text.

    :param about: the question without its constraints.
    :param is_cut: whether the answer ends where its room ended.
    """
    for shorter in _shorter(text.strip(), is_cut):
        made = shorter
        for one, edit in in_order(constraints):
            if not one.check(made):
                made = edit(Piece(made, about, rng), one)
        if all(one.check(made) for one in constraints):
            return made
    return None


def _shorter(text: str, is_cut: bool) -> Iterator[str]:
    """``text`` up to the ends of sentences, the longest first."""
    ends = [end for end in sentence_ends(text) if text[:end].endswith(_MARKS)]
    if not is_cut and (not ends or ends[-1] != len(text)):
        ends.append(len(text))
    step = max(1, -(-len(ends) // _LENGTHS))
    for end in ends[::-1][::step]:
        yield text[:end].rstrip()
