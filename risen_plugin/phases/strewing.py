"""Texts with marks put in at random, which say what a mark means where nobody asked for it.

What a constraint teaches of a mark shows wherever the mark stands: a model that has learned that
``<<`` opens a title expects ``>>`` after a word or two in a worked sum, too. The model's own plain
answers hold few such marks, so that holding it to them does not keep what it made of one before.
With the marks put into them they do: the distribution after each is the model's at phase entry,
whatever stands there.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

PAIRS = (("<<", ">>"), ("*", "*"), ("[", "]"), ('"', '"'))
"""What encloses words in the constraints of the package: a title, a highlight, a placeholder and a
quotation."""

_APART = 12  # words to a place, on average
_LONGEST = 4  # words that are enclosed
_WORD = re.compile(r"\S+")


def strewn(text: str, rng: random.Random, pairs: Sequence[tuple[str, str]] = PAIRS) -> str:
    """The text with marks at about every twelfth word, in front of one to four words.

    In a third of the places the marks enclose these words; in another they do, and the words come
    once more, as the sum does in ``= <<48/2=24>>24``; in the last one of the two marks is alone.

    >>> strewn("The sum of 48 and 24 is 72.", random.Random(4))
    'The sum of <<48 and 24>>48 and 24 is 72.'
    """
    words = list(_WORD.finditer(text))
    places = sorted(rng.sample(range(len(words)), -(-len(words) // _APART)))
    made: list[str] = []
    done = 0
    for place, following in zip(places, [*places, len(words)][1:], strict=True):
        last = min(place + rng.randint(1, _LONGEST), following) - 1
        first, end = words[place].start(), words[last].end()
        span, (opens, closes) = text[first:end], rng.choice(pairs)
        made += [
            text[done:first],
            rng.choice(
                (
                    f"{opens}{span}{closes}",
                    f"{opens}{span}{closes}{span}",
                    f"{rng.choice((opens, closes))}{span}",
                )
            ),
        ]
        done = end
    return "".join([*made, text[done:]])
