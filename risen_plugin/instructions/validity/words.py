"""Hash texts by their words without case and marks, to look for duplicates and overlaps.

A hash is eight bytes of BLAKE2, the same in every process, so that it can be saved in a checkpoint.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Sequence

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of ``text``, without case, width and marks.

    >>> words_of("Don't  STOP - 1,000 \uff41")
    ['don', 't', 'stop', '1', '000', 'a']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def hash_of(text: str) -> int:
    """64 bits of ``text``."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())


def runs_of(words: Sequence[str], length: int) -> Iterator[int]:
    """The hash of each run of ``length`` words."""
    for start in range(len(words) - length + 1):
        yield hash_of(" ".join(words[start : start + length]))


def packed(hashes: Iterable[int], code: str = "Q") -> str:
    """Hashes as a text for JSON, in about 11 characters each."""
    values = array(code, hashes)
    if sys.byteorder == "big":
        values.byteswap()
    return base64.b64encode(values.tobytes()).decode("ascii")


def unpacked(text: str, code: str = "Q") -> array[int]:
    """The hashes that :func:`packed` wrote."""
    values = array(code)
    values.frombytes(base64.b64decode(text))
    if sys.byteorder == "big":
        values.byteswap()
    return values
