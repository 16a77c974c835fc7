"""Run the guides as a reader would: ``python docs/run_guides.py [--light] [PAGE ...]``.

Each page gets a fresh folder. Its blocks are taken from top to bottom: a block with a name is
written as a file, shell commands and Python are run, and an output that is shown is compared with
what was printed. Exit code 1, with the page and the line, if a block fails or differs.

A block is

- a file, if the comment above it is a file name (``<!-- train.py -->``) or its first line is one
  (``# polite.py``);
- shell commands, if its language is ``sh`` or it has none and begins with a command. After ``$``
  stands one command, and below it all of its standard output;
- an output, if it has no language and no command: each of its lines was printed by the commands
  before, in this order;
- Python, which all blocks of a page share one namespace for.

In an output ``...`` is any text, and seconds are not compared. Comments above a block say more:

- ``<!-- not run: REASON -->``: it cannot be run here, or is no example;
- ``<!-- slow -->``: it takes seconds, or needs what such a block leaves; left out with ``--light``;
- ``<!-- exit 1 -->``: the exit code of its last command;
- ``<!-- numbers vary -->``: numbers of its output are not compared, since training on another
  machine gives others;
- ``<!-- in the clone -->``, above any block: the page's folder is a copy of this repository;
- ``<!-- after PAGE -->``, likewise: it begins in what another page of the same folder left;
- ``<!-- before sh ... -->`` or ``<!-- before python ... -->``: run first, and not shown. It stands
  for what the page takes as given, such as a model of the reader's.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import doctest
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import types
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GUIDES = (
    ROOT / "README.md",
    ROOT / "docs" / "tutorial.md",
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
    ROOT / "plugins" / "README.md",
)
LIMIT_S = 900  # the longest that one block may take

_COMMAND = re.compile(
    r"\$ |(accelerate|cd|cp|git|mkdir|mkdocs|pip|pytest|python3?|risen|torchrun|tox)\b"
)
_FILE = re.compile(r"[\w./-]+\.[a-z]+")
_BLOCK = re.compile(
    r"(?P<marks>(?:^<!--(?:(?!-->).)*-->\n)*)^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    flags=re.M | re.S,
)


# What a page says


@dataclass(frozen=True)
class Block:
    """One fenced block of a page, with the marks above it."""

    page: str
    line: int  # of its first line inside the fence, from 1
    language: str
    code: str
    marks: tuple[str, ...]

    def mark(self, name: str) -> str | None:
        """What follows the mark that begins with ``name``, or None where there is none."""
        found = [mark for mark in self.marks if re.match(rf"{name}\b", mark)]
        return found[0].removeprefix(name).strip(": \n") if found else None

    @property
    def file(self) -> str | None:
        """The file that the block is, or None."""
        for mark in self.marks:
            if _FILE.fullmatch(mark):
                return mark
        first = self.code.partition("\n")[0]
        named = re.fullmatch(r"# ([\w./-]+\.\w+)", first)
        return named.group(1) if named else None

    @property
    def kind(self) -> str:
        """``file``, ``shell``, ``python``, ``doctest``, ``output`` or ``data``."""
        if self.file:
            return "file"
        if self.language == "python":
            return "doctest" if ">>>" in self.code else "python"
        if self.language == "sh" or (not self.language and _COMMAND.match(self.code)):
            return "shell"
        return "data" if self.language else "output"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, from top to bottom."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        marks = re.findall(r"<!--\s*(.*?)\s*-->", match["marks"], flags=re.S)
        line = text.count("\n", 0, match.start("code")) + 1
        name = str(page.relative_to(ROOT) if page.is_relative_to(ROOT) else page)
        found.append(Block(name, line, match["language"], match["code"], tuple(marks)))
    return found


def commands_of(code: str) -> list[tuple[str, str | None]]:
    r"""The commands of a shell block, each with the output that is shown below it.

    >>> commands_of("cd x\nrisen --version\n")
    [('cd x\nrisen --version', None)]
    >>> commands_of("$ echo 'a\nb'\na\nb\n$ true\n")
    [("echo 'a\nb'", 'a\nb\n'), ('true', '')]
    """
    if not code.startswith("$ "):
        return [(code.strip(), None)]
    found: list[tuple[str, str | None]] = []
    lines = iter(code.splitlines())
    for line in lines:
        if not line.startswith("$ "):
            command, shown = found[-1]
            found[-1] = (command, f"{shown}{line}\n")
            continue
        command = line.removeprefix("$ ")
        while _is_open(command):
            command += f"\n{next(lines)}"
        found.append((command, ""))
    return found


def _is_open(command: str) -> bool:
    """Whether a quotation goes on in the next line."""
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False


def difference(shown: str, printed: str, *, whole: bool, numbers: bool) -> str | None:
    r"""The first thing that is shown and was not printed, or None.

    >>> difference("took 3 s\n", "took 12.5 s\n", whole=True, numbers=True)
    >>> difference("a 1\n...\nc 3\n", "a 1\nb 2\nc 4\n", whole=False, numbers=True)
    'c 3'

    :param whole: whether all that was printed is shown, but for ``...``.
    :param numbers: whether numbers are compared.
    """
    wanted, got = _plain(shown, numbers=numbers), _plain(printed, numbers=numbers)
    if whole:
        options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        fits = doctest.OutputChecker().check_output(wanted, got, options)
        return None if fits else f"it printed\n{printed}"
    got, place = " ".join(got.split()), 0
    for line, original in zip(wanted.splitlines(), shown.splitlines(), strict=True):
        for part in (" ".join(part.split()) for part in line.split("...")):
            found = got.find(part, place)
            if found < 0:
                return original
            place = found + len(part)
    return None


def _plain(text: str, *, numbers: bool) -> str:
    """Text without what no two runs have in common."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.replace("\r", "\n"))
    text = re.sub(r"\b\d+(\.\d+)? ?s\b", "N s", text)
    if not numbers:
        text = re.sub(r"[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?", "N", text)
        text = re.sub(r"(?:kept|dropped|followed|missed)(?=:| )", "VERDICT", text)
    return text


# Running


@dataclass
class Outcome:
    """How one block turned out."""

    block: Block
    state: str  # ran, compared, written, data, not run, slow, failed
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether the block failed, or showed something else than it printed."""
        return self.state == "failed"


@dataclass
class Reader:
    """A reader in a folder of their own, who does what one page says."""

    folder: Path
    tools: Path
    light: bool = False
    printed: str | None = None  # by the latest commands that were run
    module: types.ModuleType = field(default_factory=lambda: types.ModuleType("guide"))

    def read(self, block: Block) -> Outcome:
        """Do what a block says; a failure is an outcome, never raised."""
        try:
            self._prepare(block)
            return self._done(block)
        except _DiffersError as error:
            return Outcome(block, "failed", str(error))

    def _prepare(self, block: Block) -> None:
        if self.light and block.mark("slow") is not None:
            return
        for language in ("sh", "python"):
            given = block.mark(f"before {language}")
            if given is None:
                continue
            if language == "sh":
                self._command(given, 0)
            else:
                self._python(given, block)

    def _done(self, block: Block) -> Outcome:
        reason = block.mark("not run")
        if reason is not None:
            return Outcome(block, "not run", reason)
        if block.kind == "data":
            return Outcome(block, "data")
        if block.kind == "file":
            path = self.folder / str(block.file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code, encoding="utf-8")
            return Outcome(block, "written")
        return self._output(block) if block.kind == "output" else self._run(block)

    def _run(self, block: Block) -> Outcome:
        self.printed = None
        if self.light and (block.mark("slow") is not None or block.kind == "doctest"):
            return Outcome(block, "slow")
        if block.kind == "shell":
            return self._shell(block)
        self.printed = self._python(block.code, block)
        return Outcome(block, "ran")

    def _output(self, block: Block) -> Outcome:
        if self.printed is None:
            if self.light:
                return Outcome(block, "slow")
            raise _DiffersError("no command before it; name its language, or say why not")
        numbers = block.mark("numbers vary") is None
        missing = difference(block.code, self.printed, whole=False, numbers=numbers)
        if missing is not None:
            raise _DiffersError(f"not printed: {missing}\n--- printed\n{self.printed[-4000:]}")
        return Outcome(block, "compared")

    def _shell(self, block: Block) -> Outcome:
        said, state = "", "ran"
        commands = commands_of(block.code)
        for number, (command, shown) in enumerate(commands, start=1):
            wanted = int(block.mark("exit") or 0) if number == len(commands) else 0
            stdout, stderr = self._command(command, wanted)
            said += stdout + stderr
            if shown:
                numbers = block.mark("numbers vary") is None
                other = difference(shown, stdout, whole=True, numbers=numbers)
                if other is not None:
                    raise _DiffersError(f"{command}: {other}")
                state = "compared"
        self.printed = said
        return Outcome(block, state)

    def _command(self, command: str, wanted: int) -> tuple[str, str]:
        """Run shell commands; the folder that they end in is where the next ones begin.

        :raises _DiffersError: if they end with another exit code.
        """
        there = self.tools / "folder"
        script = f"trap 'pwd > {shlex.quote(str(there))}' EXIT\n{command}\n"
        try:
            done = subprocess.run(
                ["bash", "-e", "-c", script],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _DiffersError(f"{command}: not done after {LIMIT_S} s") from None
        self.folder = Path(there.read_text(encoding="utf-8").strip())
        if done.returncode != wanted:
            said = f"{done.stdout}{done.stderr}"[-4000:]
            raise _DiffersError(f"{command}: exit code {done.returncode}, not {wanted}\n{said}")
        return done.stdout, done.stderr

    def _environment(self) -> dict[str, str]:
        paths = os.pathsep.join([str(self.tools / "bin"), os.environ["PATH"]])
        return {
            **os.environ,
            "PATH": paths,
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "COLUMNS": "80",
            "BROWSER": "true",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as: do not isolate
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def _python(self, code: str, block: Block) -> str:
        """Run Python in the page's namespace, and give back what it printed.

        :raises _DiffersError: if it raises, or prints something else than a doctest shows.
        """
        said = io.StringIO()
        with self._at_home(), contextlib.redirect_stdout(said):
            try:
                if block.kind == "doctest":
                    _run_doctest(code, vars(self.module))
                else:
                    compiled = compile(ast.parse(code), f"{block.page}:{block.line}", "exec")
                    exec(compiled, vars(self.module))
            except _DiffersError:
                raise
            except BaseException as error:  # noqa: BLE001 - also SystemExit
                where = traceback.format_exc(limit=-2)
                raise _DiffersError(f"{type(error).__name__}: {error}\n{where}") from None
        return said.getvalue()

    @contextlib.contextmanager
    def _at_home(self) -> Iterator[None]:
        """In the reader's folder, with its modules, and without them afterwards."""
        before, path, home = set(sys.modules), list(sys.path), Path.cwd()
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        sys.modules["guide"] = self.module
        try:
            yield
        finally:
            os.chdir(home)
            sys.path[:] = path
            for name in set(sys.modules) - before:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if file.startswith(str(self.folder)):
                    del sys.modules[name]


class _DiffersError(Exception):
    """A block failed, or printed something else."""


def _run_doctest(code: str, namespace: dict[str, object]) -> None:
    said = io.StringIO()
    test = doctest.DocTestParser().get_doctest(code, namespace, "guide", None, None)
    runner = doctest.DocTestRunner(verbose=False)
    if runner.run(test, out=said.write, clear_globs=False).failed:
        raise _DiffersError(said.getvalue())


def page_before(page: Path) -> Path | None:
    """The page that a reader of this one has worked through, or None."""
    marks = [block.mark("after") for block in blocks_of(page)]
    named = next(filter(None, marks), None)
    return page.with_name(named) if named else None


def run_page(
    page: Path, folder: Path, *, light: bool = False, left: Path | None = None
) -> list[Outcome]:
    """Read one page in a new folder, up to the first block that fails.

    :param folder: an empty one; what the page writes stays there, under ``home``.
    :param left: what the page before it has left.
    """
    blocks = blocks_of(page)
    tools, home = folder / "tools", folder / "home"
    if any(block.kind == "shell" for block in blocks):
        _make_tools(tools)
    if left is not None:
        shutil.copytree(left, home)
    elif any(block.mark("in the clone") is not None for block in blocks):
        _copy_clone(home)
    else:
        home.mkdir()
    reader = Reader(home, tools, light=light)
    outcomes = []
    for block in blocks:
        outcomes.append(reader.read(block))
        if outcomes[-1].failed:
            break
    return outcomes


def _make_tools(folder: Path) -> None:
    """An environment above the present one, so that what a page installs ends with it."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120
    )
    python = folder / "bin" / "python"
    [packages] = folder.glob("lib/python*/site-packages")
    beside = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    lines = "".join(f"import site; site.addsitedir({path!r})\n" for path in beside)
    (packages / "beside.pth").write_text(lines, encoding="utf-8")
    for name, module in (
        ("pip", "pip._internal.cli.main"),
        ("risen", "risen_plugin.cli"),
        ("pytest", "pytest"),
        ("torchrun", "torch.distributed.run"),
        ("accelerate", "accelerate.commands.accelerate_cli"),
    ):
        tool = folder / "bin" / name
        called = f"import sys\nfrom {module} import main\nsys.exit(main())\n"
        tool.write_text(f"#!{python}\n{called}", encoding="utf-8")
        tool.chmod(0o755)


def _copy_clone(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


# The whole of it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the pages that are named, or all of them. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Run the guides as a reader would.")
    parser.add_argument("pages", nargs="*", type=Path, help="all of them if unset")
    parser.add_argument("--light", action="store_true", help="leave out slow blocks")
    parser.add_argument("--keep", type=Path, help="a new folder for what the pages write")
    given = parser.parse_args(arguments)
    pages = [page.resolve() for page in given.pages] or list(GUIDES)
    with tempfile.TemporaryDirectory(prefix="guides-") as fresh:
        outcomes = _run_all(pages, given.keep or Path(fresh), light=given.light)
    _show("all", outcomes)
    reasons = Counter(outcome.reason for outcome in outcomes if outcome.state == "not run")
    for reason, count in reasons.most_common():
        print(f"  not run, {count}: {reason}")
    return 1 if any(outcome.failed for outcome in outcomes) else 0


def _run_all(pages: Sequence[Path], folder: Path, *, light: bool) -> list[Outcome]:
    """The outcomes of all pages; one that others build on is run once, before them."""
    ran: dict[Path, list[Outcome]] = {}

    def run(page: Path) -> Path:
        place = folder / page.relative_to(ROOT).with_suffix("")
        if page in ran:
            return place / "home"
        before = page_before(page)
        left = run(before) if before else None
        began = time.monotonic()
        place.mkdir(parents=True)
        ran[page] = run_page(page, place, light=light, left=left)
        _show(f"{page.relative_to(ROOT)} ({time.monotonic() - began:.0f} s)", ran[page])
        return place / "home"

    for page in pages:
        run(page)
    return [outcome for outcomes in ran.values() for outcome in outcomes]


def _show(title: str, outcomes: Sequence[Outcome]) -> None:
    states = Counter(outcome.state for outcome in outcomes)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print(f"{title}: {counts or 'no blocks'}", flush=True)
    for outcome in outcomes:
        if outcome.failed and title != "all":
            print(f"{outcome.block.page}:{outcome.block.line}: {outcome.reason}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
