"""Keep evaluation data out: texts that share a run of words, or every word, with named files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from risen_plugin.errors import ConfigError, DataError, near_path, one_line
from risen_plugin.instructions.validity.words import hash_of, runs_of, words_of
from risen_plugin.kit.json_lines import read_lines

SHORTEST_RUN, LONGEST_RUN = 4, 50
_SHORTEST_EXACT = 3  # words of a text whose exact match means something


class Decontamination:
    """Every text of the evaluation files, as hashes of word runs and of whole texts.

    :param paths: files with one JSON object per line (``.json``: one list); all texts in them
        count, answers and nested ones too, and so do lines of ``.txt``.
    :param run: words of a run; a text that shares one run with a file is contaminated.
    :raises ConfigError: if ``run`` is too short or long.
    :raises DataError: if a file cannot be read, naming the line.
    """

    def __init__(self, paths: Iterable[str], run: int = 13) -> None:
        if not SHORTEST_RUN <= run <= LONGEST_RUN:
            raise ConfigError(
                f"a run of words must have {SHORTEST_RUN} to {LONGEST_RUN} of them, not {run}"
            )
        self.run = run
        self._names: list[str] = []
        self._runs: dict[int, int] = {}  # by which file
        self._wholes: dict[int, int] = {}
        for path in paths:
            self._names.append(Path(path).name)
            for text in _texts_of_file(Path(path)):
                self._add(words_of(text), len(self._names) - 1)

    def _add(self, words: Sequence[str], file: int) -> None:
        if len(words) >= _SHORTEST_EXACT:
            self._wholes.setdefault(hash_of(" ".join(words)), file)
        for run in runs_of(words, self.run):
            self._runs.setdefault(run, file)

    def source_of(self, text: str) -> str | None:
        """The name of the file that ``text`` overlaps with; None if there is none."""
        words = words_of(text)
        file = self._wholes.get(hash_of(" ".join(words)))
        if file is None:
            files = (self._runs.get(run) for run in runs_of(words, self.run))
            file = next((number for number in files if number is not None), None)
        return None if file is None else self._names[file]


def _texts_of_file(path: Path) -> Iterator[str]:
    try:
        if path.suffix.lower() == ".json":
            yield from _texts(json.loads(path.read_text(encoding="utf-8-sig")))
            return
        if path.suffix.lower() == ".txt":
            with path.open(encoding="utf-8-sig", newline="\n") as lines:
                yield from (line for line in lines if line.strip())
            return
        for line in read_lines(path):
            yield from _texts(line.value())
    except FileNotFoundError:
        raise DataError(f"there is no evaluation file '{path}'{near_path(path)}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(error)
        raise DataError(f"cannot read the evaluation file '{path}': {reason}") from error


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
