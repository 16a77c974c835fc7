"""Invent the names, numbers and things that the embedded data is about.

Names are made of syllables, so that an answer cannot be learned by heart and has to be copied out
of the message. Pure: everything comes from the random generator that is passed in.
"""

from __future__ import annotations

import random

_ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_ENDINGS = ("", "n", "r", "l", "s")
_COLOURS = ("red", "blue", "green", "black", "white", "small", "large", "round", "old", "new")
_THINGS = (
    "lamp",
    "table",
    "kettle",
    "chair",
    "mirror",
    "carpet",
    "radio",
    "bottle",
    "basket",
    "clock",
    "jacket",
    "mug",
    "pillow",
    "ladder",
    "camera",
    "tent",
    "piano",
    "shelf",
    "fan",
    "bench",
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def invented(rng: random.Random, syllables: int = 2) -> str:
    """A made-up lower-case word such as ``'koraven'``."""
    body = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
    return body + rng.choice(_ENDINGS)


def person(rng: random.Random) -> str:
    """A first name, with a family name half of the time."""
    first = invented(rng).capitalize()
    return first if rng.random() < 0.5 else f"{first} {invented(rng).capitalize()}"


def city(rng: random.Random) -> str:
    return invented(rng, rng.choice((2, 3))).capitalize()


def number(rng: random.Random, digits: int = 5) -> str:
    """Decimal digits without a leading zero."""
    return str(rng.randrange(10 ** (digits - 1), 10**digits))


def thing(rng: random.Random) -> str:
    return f"{rng.choice(_COLOURS)} {rng.choice(_THINGS)}"


def day(rng: random.Random) -> str:
    return rng.choice(_DAYS)
