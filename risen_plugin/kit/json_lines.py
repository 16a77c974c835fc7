r"""Read JSON Lines: one JSON value per line, in UTF-8, with the place of each line for messages.

Lines end at the byte ``\n`` alone, since a text in them may hold any other separator. A byte order
mark before the first is passed over, and so are blank lines, which count.
"""

from __future__ import annotations

import codecs
import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from risen_plugin.errors import DataError, one_line
from risen_plugin.kit.files import check_ordinary

_DECODER = codecs.getincrementaldecoder("utf-8")  # waits for the rest of a character
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank.

    :param number: from 1.
    :param name: the file's name for messages.
    """

    number: int
    name: str
    data: bytes

    @property
    def where(self) -> str:
        """Its place, such as ``rows.jsonl:7``."""
        return f"{self.name}:{self.number}"

    @property
    def is_cut_off(self) -> bool:
        """Whether it lacks its end, as a last line may that is being written."""
        return not self.data.endswith(b"\n")

    @property
    def is_text(self) -> bool:
        """Whether it is UTF-8, other than in a last character that is cut off."""
        try:
            _DECODER().decode(self.data)
        except UnicodeDecodeError:
            return False
        return True

    def value(self) -> Any:
        """The JSON value in it.

        :raises DataError: naming its place, if it is no UTF-8 or no JSON.
        """
        try:
            return json.loads(self.data.decode())
        except UnicodeDecodeError as error:
            reason = f"is no UTF-8: {error.reason} at byte {error.start + 1}"
        except json.JSONDecodeError as error:
            reason = f"is not JSON: {error.msg} at character {error.pos + 1}"
            if self.data.strip()[:1] == b"[":
                reason += " (one JSON object on each line is read)"
        except (ValueError, RecursionError) as error:
            reason = f"is not JSON: {one_line(error)}"
        raise DataError(f"{self.where} {reason}")


def lines_in(data: Iterable[bytes], name: str) -> Iterator[Line]:
    """The lines of an open binary file.

    :param name: the file's name for messages.
    """
    for number, raw in enumerate(data, start=1):
        line = _without_mark(number, raw)
        if line.strip():
            yield Line(number, name, line)


def read_lines(path: str | Path) -> Iterator[Line]:
    """The lines of a file, as a stream.

    :raises OSError: while reading, if it cannot be read.
    """
    check_ordinary(Path(path))
    with Path(path).open("rb") as file:
        yield from lines_in(file, str(path))


class IndexedLines:
    """The lines of a file in any order; only where each begins is remembered, in eight bytes.

    :raises OSError: if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        check_ordinary(path)
        self.path = path
        self._starts = array("Q")
        self._numbers: array[int] | None = None  # of the lines; None while no line is left out
        at = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if _without_mark(number, line).strip():
                    if self._numbers is not None:
                        self._numbers.append(number)
                    self._starts.append(at)
                elif self._numbers is None:
                    self._numbers = array("Q", range(1, number))
                at += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Line:
        """The line that is the ``index``-th of those that are not blank.

        :raises OSError: if the file cannot be read any more.
        """
        number = index + 1 if self._numbers is None else self._numbers[index]
        with self.path.open("rb") as file:
            file.seek(self._starts[index])
            return Line(number, str(self.path), _without_mark(number, file.readline()))

    def __iter__(self) -> Iterator[Line]:
        return read_lines(self.path)


def _without_mark(number: int, line: bytes) -> bytes:
    return line.removeprefix(_BOM) if number == 1 else line
