"""Run ``risen`` on something hostile, in a process of its own, and say what is wrong with the end.

A try may end in any exit code that a command has. It may not show a traceback or the key, print a
character that could move the cursor or turn a line, run past its limit, take more memory than a
limit, or, where it was asked for JSON, print anything else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

KEY = "sk-never-printed-0123456789"
LIMIT_S = 30.0
_MEMORY = 4 << 30  # bytes of address space that a try may take beside what it begins with
_CODES = frozenset((0, 1, 2, 130))
_UNTRIED = re.compile(r"missing (option|argument)|no such option|unexpected extra argument")
_RISEN = [sys.executable, "-c", "from risen_plugin.cli import main; main()"]


@dataclass(frozen=True)
class Try:
    """One command on something hostile.

    :param words: the words after ``risen``; surrogates stand for bytes that are no UTF-8.
    :param folder: where it is called.
    :param path: folders that Python finds modules and plugins in, before all others.
    :param json: whether standard output is JSON, or lines of it, where the command succeeds.
    :param starts: the text that standard output begins with.
    :param codes: exit codes that are right.
    :param usage: whether the command line itself is what is hostile: else one that the command does
        not have tries nothing, and that is a fault too.
    """

    name: str
    words: Sequence[str]
    folder: Path
    path: Sequence[Path] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    json: bool = False
    starts: str = ""
    codes: frozenset[int] = _CODES
    limit_s: float = LIMIT_S
    usage: bool = False


@dataclass(frozen=True)
class Ended:
    """The end of a try; ``code`` is None if it ran past its limit."""

    code: int | None
    out: str
    err: str
    seconds: float


def in_a_fork(one: Try) -> Ended:
    """Carry out a try in a fork of this process, which has loaded ``risen`` already: in moments."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _work(one, out.fileno(), err.fileno())
        code = _waited_for(child, one.limit_s)
        return Ended(code, _text(out), _text(err), time.monotonic() - began)


def in_a_process(one: Try) -> Ended:
    """Carry out a try as a shell does."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        words = [os.fsencode(word) for word in (*_RISEN, *one.words)]
        path = os.pathsep.join((*map(str, one.path), *sys.path[:1]))
        variables = {**os.environ, "PYTHONPATH": path, **one.variables}
        with subprocess.Popen(
            words,
            cwd=one.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        ) as process:
            try:
                code: int | None = process.wait(one.limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = None
        return Ended(code, _text(out), _text(err), time.monotonic() - began)


def faults(one: Try, ended: Ended) -> list[str]:
    """What is wrong with the end of a try; empty if nothing is."""
    said = ended.out + ended.err
    found = []
    if ended.code is None:
        return [f"no end within {one.limit_s:g} s"]
    if "Traceback (most recent call last)" in said or "Exception ignored" in said:
        found.append("a traceback: " + (said.strip().splitlines() or [""])[-1][:160])
    if KEY in said or KEY[:16] in said:
        found.append("the key is printed")
    if ended.code not in one.codes:
        found.append(f"exit code {ended.code}: {said.strip()[-160:]!r}")
    if ended.code != 0 and not ended.err.strip() and not ended.out.strip():
        found.append(f"ends in silence with {ended.code}")
    raw = sorted({f"U+{ord(letter):04X}" for letter in said if _acts(letter)})
    if raw:
        found.append(f"prints {', '.join(raw)} as they are")
    if _UNTRIED.search(ended.err) and not one.usage:
        found.append(f"is no try of anything: {ended.err.strip()[:160]!r}")
    if one.starts and not ended.out.lstrip().startswith(one.starts):
        found.append(f"standard output begins with {ended.out[:40]!r}")
    if one.json and ended.code in (0, 1) and not _is_json(ended.out):
        found.append(f"standard output is no JSON: {ended.out[:60]!r}")
    return found


def _acts(letter: str) -> bool:
    """Whether a terminal would do something at a character in place of showing it."""
    if letter in "\n\r\t\u200d\ufffd\xad":
        return False
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs") or letter in "\u2028\u2029"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        try:
            for line in text.splitlines():
                json.loads(line)
        except ValueError:
            return False
    return True


def _work(one: Try, out: int, err: int) -> NoReturn:
    """Be the command: of a forked process only."""
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
        os.chdir(one.folder)
        os.environ.update(one.variables)
        sys.path[:0] = map(str, one.path)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + _MEMORY, taken + _MEMORY))
        code = _main(one.words)
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def _main(words: Sequence[str]) -> int:
    import traceback

    from risen_plugin.cli import main

    try:
        main(list(words))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  as the interpreter would show it
        traceback.print_exc()
        return 1


def _waited_for(child: int, limit_s: float) -> int | None:
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _text(file: tempfile._TemporaryFileWrapper[bytes]) -> str:  # type: ignore[name-defined]
    file.seek(0)
    return str(file.read().decode("utf-8", "surrogateescape"))


@dataclass
class Tally:
    """The tries of one kind and what was wrong with them."""

    kind: str
    things: int = 0
    tries: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    found: list[str] = field(default_factory=list)

    def take(self, tries: Iterable[Try], *, forked: bool) -> None:
        """Carry out the tries of one hostile thing."""
        self.things += 1
        for one in tries:
            ended = (in_a_fork if forked else in_a_process)(one)
            self.tries += 1
            self.seconds += ended.seconds
            self.slowest = max(self.slowest, ended.seconds)
            shown = " ".join(word[:40] for word in one.words)
            for fault in faults(one, ended):
                self.found.append(f"{one.name}: risen {shown!a}: {fault}")
                print(ascii(self.found[-1])[1:301], flush=True)
            if ended.seconds > 10:
                print(f"{one.name}: risen {shown!a}: {ended.seconds:.0f} s", flush=True)
