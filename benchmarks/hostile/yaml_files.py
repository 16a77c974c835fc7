"""YAML files that are no values, that grow, that never end, and paths that are no files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.hostile.runs import recorded
from benchmarks.hostile.trying import Try

_HEAD = "model: embedded\ndata: rows.jsonl\n"
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{letter}: &{letter} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, letter in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)
_MERGES = "a: &a {x: 1}\n" + "".join(
    f"{letter}: &{letter} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, letter in zip("abcdefghijkl", "bcdefghijklm", strict=True)
)

FILES: dict[str, bytes] = {
    "no_date": f"{_HEAD}output: 2025-02-30\n".encode(),
    "no_time": f"{_HEAD}output: 2025-02-28T99:99:99Z\n".encode(),
    "no_int": f"{_HEAD}seed: !!int abc\n".encode(),
    "no_float": f"{_HEAD}seed: !!float x\n".encode(),
    "no_bool": f"{_HEAD}seed: !!bool maybe\n".encode(),
    "no_binary": f"{_HEAD}seed: !!binary '%%%'\n".encode(),
    "no_timestamp": f"{_HEAD}seed: !!timestamp soon\n".encode(),
    "empty_int": f"{_HEAD}seed: !!int ''\n".encode(),
    "empty_float": f"{_HEAD}seed: !!float ''\n".encode(),
    "many_digits": f"{_HEAD}seed: {'9' * 5000}\n".encode(),
    "base_60": f"{_HEAD}seed: 1{':1' * 200_000}\n".encode(),
    "base_60_float": f"{_HEAD}seed: 1{':1' * 200_000}.5\n".encode(),
    "self_mapping": f"{_HEAD}fine_tune: &a {{x: *a}}\n".encode(),
    "self_sequence": f"{_HEAD}fine_tune: &a [*a]\n".encode(),
    "self_key": f"{_HEAD}fine_tune: &a {{*a : 1}}\n".encode(),
    "self_merge": f"{_HEAD}fine_tune: &a {{<<: *a}}\n".encode(),
    "self_root": b"&a\nmodel: *a\n",
    "aliases": f"{_HEAD}{_BOMB}risen: *m\n".encode(),
    "aliases_first": _BOMB.encode(),
    "aliases_as_keys": f"{_HEAD}{_BOMB}? *m\n: 1\n".encode(),
    "merges": f"{_HEAD}{_MERGES}risen: *m\n".encode(),
    "wide_aliases": f"a: &a [{'x, ' * 20_000}]\nb: [{'*a, ' * 20_000}]\n".encode(),
    "deep_lists": b"x: " + b"[" * 100_000,
    "deep_mappings": b"x: " + b"{a: " * 100_000,
    "deep_blocks": "".join(f"{' ' * n}a:\n" for n in range(600)).encode(),
    "deep_dashes": b"- " * 50_000,
    "closed_lists": b"x: " + b"[" * 400 + b"]" * 400,
    "unhashable": f"{_HEAD}? [a, b]\n: 1\n? {{a: b}}\n: 2\n".encode(),
    "twice": f"{_HEAD}model: other\n".encode(),
    "odd_keys": f"{_HEAD}1: 2\nnull: 3\ntrue: 4\n2025-01-01: 5\n1.5: 6\n".encode(),
    "python": f"{_HEAD}seed: !!python/object/apply:os.system [echo]\n".encode(),
    "tag": f"{_HEAD}seed: !mine x\n".encode(),
    "set": f"{_HEAD}risen: !!set {{a, b}}\n".encode(),
    "omap": f"{_HEAD}risen: !!omap [a: 1, b: 2]\n".encode(),
    "pairs": f"{_HEAD}risen: !!pairs [a, b]\n".encode(),
    "tab": b"model:\n\tembedded\n",
    "nul": b"model: a\0b\n",
    "escape": b'"a\\e[31m\\u202e": 1\nmodel: embedded\n',
    "escape_value": _HEAD.encode() + b'output: "\\e[31m\\u202e\\ud800\\0"\nlora: "\\e[31m"\n',
    "surrogate_key": b'"\\ud800": 1\n',
    "bidi": f"{_HEAD}\u202ekey\u2066: 1\n".encode(),
    "utf_16": f"{_HEAD}seed: x\n".encode("utf-16"),
    "latin_1": b"model: caf\xe9\n",
    "mark": b"\xef\xbb\xbfmodel: embedded\nseed: x\n",
    "empty": b"",
    "comment": b"# nothing\n",
    "text": b"hello",
    "list": b"- model\n",
    "two": b"model: a\n---\nmodel: b\n",
    "long_key": b"k" * 200_000 + b": 1\n",
    "long_value": _HEAD.encode() + b"output: " + b"x" * 500_000 + b"\n",
    "many_keys": _HEAD.encode() + b"".join(b"k%d: 1\n" % n for n in range(20_000)),
    "large": b"x: y\n# " + b"z" * (64 << 20),
    "infinite": f"{_HEAD}seed: .inf\nlora: {{r: .nan}}\n".encode(),
    "minus": f"{_HEAD}seed: -1\nevaluation: -5\n".encode(),
    "nested_model": b"model: {a: [b, {c: d}]}\ndata: [1, 2]\n",
    "null": b"model: ~\ndata: ~\nrisen: ~\n",
    "rows_device": b"model: embedded\ndata: /dev/zero\n",
    "instructions_device": b"model: embedded\nrisen: {rewards: [length], generator: {use: jsonl, "
    b"options: {path: /dev/zero}}}\n",
    "rows_folder": b"model: embedded\ndata: /\n",
    "model_device": b"model: /dev/zero\ndata: rows.jsonl\n",
    "output_device": b"model: embedded\ndata: rows.jsonl\noutput: /dev/null\n",
    "output_long": b"model: embedded\ndata: rows.jsonl\noutput: " + b"o" * 300 + b"\n",
    "data_long": b"model: embedded\ndata: " + b"d" * 300 + b"\n",
    "data_nul": b'model: embedded\ndata: "a\\0b"\n',
    "model_nul": b'model: "a\\0b"\ndata: rows.jsonl\n',
    "output_nul": b'model: embedded\ndata: rows.jsonl\noutput: "a\\0b"\n',
}
SLOW = ("rows_device", "rows_folder", "model_device", "model_nul", "output_long", "long_value")
"""Those that load torch before they are refused."""
_VALUES = (
    "2025-02-30",
    "!!int abc",
    "9" * 5000,
    "[" * 3000,
    "{a: &a [*a]}",
    "[!!int abc]",
    "{a: 2025-02-30}",
    "[" + "9" * 5000 + "]",
    "\x1b[31m\u202e",
    "{\x1b[31m: \x1b}",
    "{" + _BOMB.strip().replace("\n", ", ") + "}",
    "\udcff\udcfe",
    "[\udcff]",
)
_LENGTH = ("length", "-o", "low=1", "-o", "high=9")
_TRACED = ("--trace", "traced")
_ADAPTED = ("--rewards", "length", "--output", "adapted", "--instructions")
_PATHS = ("/dev/zero", "/dev/urandom", "/dev/tty", "/dev/full", "fifo", "folder", "loop", "n" * 300)


def write(place: Path) -> list[Path]:
    """Write the files into ``place``, and what they name beside them."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 4)
    os.mkfifo(place / "fifo")
    (place / "folder").mkdir()
    recorded(place / "traced")
    (place / "loop").symlink_to("loop")
    files = []
    for name, data in FILES.items():
        (place / f"{name}.yaml").write_bytes(data)
        files.append(place / f"{name}.yaml")
    return files


REFUSED = frozenset((2,))


def tries(file: Path) -> Iterator[Try]:
    """What is done with one file."""
    yield Try(file.stem, ("train", file.name), file.parent, codes=REFUSED)


def other_tries(place: Path) -> Iterator[list[Try]]:
    """Paths that are no files, values of a command line, words that are no text."""
    for path in _PATHS:
        yield [
            Try(path[:20], ("train", path), place, codes=REFUSED),
            Try(path[:20], ("score", *_LENGTH, path), place, codes=REFUSED),
            Try(path[:20], ("audit", *_LENGTH, "--columns", path, "--quick"), place, codes=REFUSED),
            Try(path[:20], ("simulate", "after", "--trace", path), place, codes=REFUSED),
            Try(path[:20], ("simulate", f"{path}.yaml", "--trace", path), place, codes=REFUSED),
            Try(path[:20], ("report", path), place, codes=REFUSED),
            Try(path[:20], ("watch", path, "--once"), place, codes=REFUSED),
            Try(path[:20], ("unsolved", path), place, codes=REFUSED),
            Try(path[:20], ("rescore", path, "--rewards", "length"), place, codes=REFUSED),
            Try(path[:20], ("rewards", path), place, codes=REFUSED),
            Try(path[:20], ("export", path, "out"), place, codes=REFUSED),
        ]
    for value in _VALUES:
        yield [
            Try(value[:20], ("train", "twice.yaml", "--set", f"seed={value}"), place),
            Try(value[:20], ("train", "tag.yaml", "--set", f"seed={value}"), place),
            Try(value[:20], ("train", "null.yaml", "--set", f"seed={value}"), place),
            Try(value[:20], ("train", "null.yaml", "--set", f"{value}=1"), place, codes=REFUSED),
            Try(value[:20], ("score", "length", "-o", f"low={value}", "rows.jsonl"), place),
            Try(value[:20], ("score", value, "rows.jsonl"), place, codes=REFUSED),
            Try(value[:20], ("score", *_LENGTH, value), place, codes=REFUSED),
            Try(value[:20], ("audit", *_LENGTH, "--column", f"a={value}", "--quick"), place),
            Try(value[:20], (value,), place, codes=REFUSED),
            Try(value[:20], ("score", f"--{value}"), place, codes=REFUSED, usage=True),
            Try(value[:20], ("simulate", "after", "--trace", value), place, codes=REFUSED),
            Try(value[:20], ("simulate", value, "--trace", "traced"), place, codes=REFUSED),
            Try(value[:20], ("simulate", "after", "-o", f"steps={value}", *_TRACED), place),
            Try(value[:20], ("adapt", value, *_ADAPTED, value), place, codes=REFUSED),
            Try(value[:20], ("rewards", value), place, codes=REFUSED),
        ]
