"""Claim: a damaged bundle is refused with the file's name, or answers as it did; never otherwise.

A small bundle with two variants is copied, damaged in one of many ways drawn from a seed, and asked
by ``risen generate`` in this process. ``--sealed`` damages configurations, templates and tokenizers
as somebody would who makes a bundle to harm: the hashes in the manifests are those of the damaged
files, and only tracebacks, several lines and hangs are faults.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from tqdm.auto import tqdm

from benchmarks.shared import machine
from risen_export.bundles import hashes, manifest
from risen_plugin.cli import command_line
from risen_plugin.kit.time_limit import limited

QUESTION = "Who ordered 12 lamps?"
TOKENS = 24  # so many that the variants answer each in its own way
SECONDS = 60.0  # after which a try counts as hung
FAULTS = ("wrong answer", "unnamed", "several lines", "traceback", "hang")
_JSON = ("config.json", "generation_config.json", "genai_config.json", "tokenizer_config.json")
_TEMPLATES = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set n = namespace(x='x' * 1024) %}"
    "{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{{ 'x' * 10000000000 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ messages[0].nothing.at_all }}",
    "{{ messages | frobnicate }}",
    "{% for a in messages %}",
    "{{ 1 // 0 }}",
    "",
    "{{ '<|im_end|>' * 90000 }}",
)
_EXPRESSIONS = (
    r"(a|.)+\1\1$",
    r"(.+)+\1z",
    r"(?:.|.)*(?<!.)$",
    "(.*)(.*)(.*)(?<!.)",
    "(",
    "",
    "[[:alpha:]",
    "a{99999}{99999}",
)
_NUMBERS = ("1e400", "-1e400", "9" * 400, "9" * 30, "-1", "0", "1e308", "0.5", "NaN", "Infinity")
_VALUES = ("null", "[]", "{}", '"x"', "true", "[[[[]]]]", '"' + "x" * 100_000 + '"')


@dataclass(frozen=True)
class Damage:
    """What was done to a bundle.

    :param names: files or folders of which the message has to name one.
    """

    kind: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a try: ``refused``, ``same answer``, or one of ``FAULTS``."""

    damage: Damage
    result: str
    said: str


class Chance(random.Random):
    """What is drawn: also which variant is asked, and which is damaged, mostly the same one.

    :param sealed: whether manifests are left to :func:`reseal`.
    """

    def __init__(self, seed: int, *, sealed: bool) -> None:
        super().__init__(seed)
        self.sealed = sealed
        self.asked = self.damaged = "fp32"

    def begin(self, names: list[str]) -> None:
        """Draw for the next bundle, of variants with these names."""
        self.asked = self.choice((*names, "."))
        opened = "fp32" if self.asked == "." else self.asked
        self.damaged = opened if self.random() < 0.9 else self.choice(names)


Damager = Callable[[Path, Chance], Damage]


# Ways to damage a bundle


def flip_bytes(bundle: Path, chance: Chance) -> Damage:
    """Change some bytes of a file."""
    path = _any_file(bundle, chance)
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 4, 64))):
        place = chance.randrange(len(data))
        data[place] ^= chance.randrange(1, 256)
    path.write_bytes(data)
    return Damage("bytes flipped", (path.name,))


def blank_block(bundle: Path, chance: Chance) -> Damage:
    """Overwrite a block of the weights with zeros or noise."""
    path = _weights(bundle, chance)
    noise = chance.random() < 0.3
    _overwrite(path, chance, lambda size: chance.randbytes(size) if noise else bytes(size))
    return Damage("block of noise" if noise else "block zeroed", (path.name,))


def write_nan(bundle: Path, chance: Chance) -> Damage:
    """Write NaN or infinity into the weights."""
    path = _weights(bundle, chance)
    number = struct.pack("<f", chance.choice((math.nan, math.inf, 3e38)))
    _overwrite(path, chance, lambda size: number * (size // 4))
    return Damage("NaN written", (path.name,))


def change_tokens(bundle: Path, chance: Chance) -> Damage:
    """Name another end of text, or exchange two tokens."""
    folder = _variant(bundle, chance)
    if chance.random() < 0.5:
        path = folder / "generation_config.json"
        content = json.loads(path.read_text())
        content["eos_token_id"] = chance.randrange(300)
    else:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        vocabulary = content["model"]["vocab"]
        one, other = chance.sample(sorted(vocabulary), 2)
        vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(content))
    return Damage("tokens changed", (path.name,))


def change_template(bundle: Path, chance: Chance) -> Damage:
    """Write another chat template, some of them without end."""
    folder = _variant(bundle, chance)
    text = chance.choice((*_TEMPLATES, "{{ messages[0].content }}"))
    if chance.random() < 0.7:
        path = folder / "chat_template.jinja"
        path.write_text(text)
    else:
        path = folder / "tokenizer_config.json"
        content = json.loads(path.read_text())
        content["chat_template"] = text
        path.write_text(json.dumps(content))
        (folder / "chat_template.jinja").unlink()
        return Damage("template changed", (path.name, "chat_template.jinja"))
    return Damage("template changed", (path.name,))


def change_expression(bundle: Path, chance: Chance) -> Damage:
    """Have the tokenizer cut or change texts by another regular expression, or by a bad one."""
    path = _variant(bundle, chance) / "tokenizer.json"
    content = json.loads(path.read_text())
    pattern = {"Regex": chance.choice(_EXPRESSIONS)}
    if chance.random() < 0.5:
        cut_at = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
        bytes_of: dict[str, Any] = {"type": "ByteLevel", "use_regex": False}
        bytes_of |= {"add_prefix_space": False, "trim_offsets": True}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [cut_at, bytes_of]}
    else:
        content["normalizer"] = {"type": "Replace", "pattern": pattern, "content": "x"}
    path.write_text(json.dumps(content))
    return Damage("expression changed", (path.name,))


def remove(bundle: Path, chance: Chance) -> Damage:
    """Remove a file, or a whole variant."""
    path = _any_file(bundle, chance)
    if chance.random() < 0.1:
        path = _variant(bundle, chance)
        shutil.rmtree(path)
    else:
        path.unlink()
    return Damage("removed", (path.name,))


def exchange(bundle: Path, chance: Chance) -> Damage:
    """Exchange two files, the two variants, or a file of one with that of the other."""
    variants = _variants(bundle)
    if chance.random() < 0.2:
        one, other = variants
        names: tuple[str, ...] = (one.name, other.name)
    elif chance.random() < 0.5:
        name = chance.choice([*_JSON, manifest.GRAPH, "tokenizer.json", manifest.MANIFEST])
        one, other = (folder / name for folder in variants)
        names = (name,)
    else:
        one, other = chance.sample(_files(_variant(bundle, chance)), 2)
        names = (one.name, other.name)
    aside = bundle / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    return Damage("exchanged", names)


def cut(bundle: Path, chance: Chance) -> Damage:
    """Cut a file short, or empty it."""
    path = _any_file(bundle, chance)
    data = path.read_bytes()
    path.write_bytes(data[: chance.choice((0, len(data) // 2, len(data) - 1))])
    return Damage("truncated", (path.name,))


def lengthen(bundle: Path, chance: Chance) -> Damage:
    """Add to the end of a file."""
    path = _any_file(bundle, chance)
    path.write_bytes(path.read_bytes() + chance.choice((b"\n", b"\0", b" {}", bytes(100_000))))
    return Damage("lengthened", (path.name,))


def rename(bundle: Path, chance: Chance) -> Damage:
    """Give a file another name."""
    path = _any_file(bundle, chance)
    ending = chance.choice((".bak", "~", ".tmp", ".BIN"))
    path.rename(path.with_name(path.name + ending))
    return Damage("renamed", (path.name,))


def link(bundle: Path, chance: Chance) -> Damage:
    """Put a link in place of a file, or beside the files; inside, outside or nowhere."""
    folder = _variant(bundle, chance)
    path = chance.choice([*_files(folder), folder / "more.json"])
    target = chance.choice(
        (
            "/etc/hostname",
            "/dev/zero",
            "../../../x",
            "nowhere",
            str(folder),
            path.name,
            "/dev/stdin",
        )
    )
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return Damage("link added", (path.name,))


def add(bundle: Path, chance: Chance) -> Damage:
    """Add a file that the manifest does not list, a pickle, a folder or a pipe."""
    folder = _variant(bundle, chance)
    path = folder / chance.choice(
        ("pytorch_model.bin", "added_tokens.json", "x.py", "model.pt", "x")
    )
    if path.name == "x" and chance.random() < 0.5:
        os.mkfifo(path)
    else:
        path.write_bytes(b"\x80\x04.")
    return Damage("file added", (path.name,))


def replace_by_folder(bundle: Path, chance: Chance) -> Damage:
    """Put a folder in place of a file."""
    path = _any_file(bundle, chance)
    path.unlink()
    path.mkdir()
    if chance.random() < 0.5:
        (path / path.name).write_text("{}")
    return Damage("folder for a file", (path.name,))


def break_json(bundle: Path, chance: Chance) -> Damage:
    """Make a JSON file one that is none."""
    path = _json_file(bundle, chance)
    text = path.read_text()
    place = chance.randrange(len(text))
    path.write_text(
        chance.choice(
            (
                text[:place],
                text[:place] + chance.choice('{}[]",:\\\x00\ufeff') + text[place:],
                "[" * 100_000,
                '{"a": ' * 5000 + "1" + "}" * 5000,
                text.replace("{", '{"format": 1, "format": 2, "model": 1, "model": 2, ', 1),
                "",
                "null",
                "[]",
            )
        )
    )
    return Damage("JSON malformed", (path.name,))


def huge_number(bundle: Path, chance: Chance) -> Damage:
    """Put a number without measure in place of one of a JSON file."""
    return _in_json(bundle, chance, "huge number", _NUMBERS, _is_number)


def other_kind(bundle: Path, chance: Chance) -> Damage:
    """Put a value of another kind in place of one of a JSON file."""
    return _in_json(bundle, chance, "value of another kind", _VALUES, lambda value: True)


def escape(bundle: Path, chance: Chance) -> Damage:
    """Have a manifest list a file outside of its folder."""
    folder = chance.choice((bundle, _variant(bundle, chance)))
    path = folder / manifest.MANIFEST
    name = chance.choice(("../../x", "/etc/hostname", "a\\..\\b", "..", "x/../../y", "C:\\x", ""))
    entry = '{"bytes": 1, "sha256": "' + "0" * 64 + '"}'
    text = path.read_text()
    path.write_text(text.replace('"files": {', f'"files": {{{json.dumps(name)}: {entry},', 1))
    return Damage("path out of the folder", (path.name,))


DAMAGERS: tuple[Damager, ...] = (
    *(flip_bytes, blank_block, write_nan, change_tokens, change_template, remove, exchange),
    *(cut, lengthen, rename, link, add, replace_by_folder, break_json, huge_number, other_kind),
    escape,
)
SEALED_DAMAGERS: tuple[Damager, ...] = (
    *(change_tokens, change_template, break_json, huge_number, other_kind, write_nan, blank_block),
    change_expression,
)


# Tries


def tries(bundle: Path, place: Path, count: int, seed: int, *, sealed: bool) -> Iterator[Outcome]:
    """Damage copies of ``bundle`` in ``place``, one after the other, and ask each.

    :param sealed: have the manifests say what the damaged files are.
    """
    command = command_line()
    names = [path.name for path in _variants(bundle)]
    expected = {name: _ask(command, bundle / name)[1] for name in names}
    chance = Chance(seed, sealed=sealed)
    damagers = SEALED_DAMAGERS if sealed else DAMAGERS
    for number in range(count):
        copy = place / f"try-{number}"
        shutil.copytree(bundle, copy)
        chance.begin(names)
        asked = copy / chance.asked
        if not sealed and chance.random() < 0.25:
            # Known as good: its hashes are remembered when it is damaged.
            _ask(command, asked)
            time.sleep(0.02)
        damage = damagers[number % len(damagers)](copy, chance)
        if sealed:
            reseal(copy)
        result, said = _ask(command, asked)
        right = expected["fp32" if chance.asked == "." else chance.asked]
        yield Outcome(damage, _judge(result, said, damage, right, sealed=sealed), said)
        shutil.rmtree(copy)


def reseal(bundle: Path) -> None:
    """Have the manifests say of each file what it is, as whoever makes a bundle can."""
    spanning = manifest.read(bundle)
    assert spanning is not None
    for name, entry in spanning["variants"].items():
        content = json.loads((bundle / name / manifest.MANIFEST).read_text())
        content["files"] = manifest.files_of(bundle / name)
        manifest.write(bundle / name, content)
        path = bundle / name / manifest.MANIFEST
        entry["manifest_sha256"] = hashes.sha256_of([path])[path]
    manifest.write(bundle, spanning)


def _ask(command: click.Command, bundle: Path) -> tuple[str, str]:
    """How ``risen generate`` ended, and what it said."""
    words = ["generate", str(bundle), QUESTION, "--max-new-tokens", str(TOKENS), "--threads", "1"]
    try:
        with limited(SECONDS):
            done = CliRunner().invoke(command, words)
    except TimeoutError:
        return "hang", ""
    if isinstance(done.exception, TimeoutError):
        return "hang", ""
    if done.exit_code == 0:
        return "answer", done.stdout
    if done.exit_code == 2 and isinstance(done.exception, SystemExit):
        return "refused", done.stderr.strip()
    return "traceback", repr(done.exception)


def _judge(result: str, said: str, damage: Damage, expected: str, *, sealed: bool) -> str:
    if result == "answer":
        if sealed:
            return "answer"
        return "same answer" if said == expected else "wrong answer"
    if result != "refused":
        return result
    if len(said.splitlines()) != 1:
        return "several lines"
    is_named = any(name in said for name in damage.names)
    return "refused" if is_named or sealed else "unnamed"


def _variant(bundle: Path, chance: Chance) -> Path:
    return bundle / chance.damaged


def _variants(bundle: Path) -> list[Path]:
    return [path for path in sorted(bundle.iterdir()) if (path / manifest.GRAPH).exists()]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _any_file(bundle: Path, chance: Chance) -> Path:
    """A file of a variant or, sometimes, of the root; never an empty one."""
    if chance.random() < 0.1:
        return bundle / manifest.MANIFEST
    return chance.choice([path for path in _files(_variant(bundle, chance)) if path.stat().st_size])


def _weights(bundle: Path, chance: Chance) -> Path:
    return max(_files(_variant(bundle, chance)), key=lambda path: path.stat().st_size)


def _json_file(bundle: Path, chance: Chance) -> Path:
    folder = _variant(bundle, chance)
    files = [folder / name for name in (*_JSON, "tokenizer.json")]
    manifests = [bundle / manifest.MANIFEST, folder / manifest.MANIFEST]
    return chance.choice(files if chance.sealed else files + manifests)


def _overwrite(path: Path, chance: Chance, data: Callable[[int], bytes]) -> None:
    """Overwrite a block of a file in place; sometimes its time says that nothing happened."""
    before = path.stat()
    size = min(chance.choice((4, 64, 4096, 65536)), before.st_size // 2) // 4 * 4
    place = chance.randrange(before.st_size - size) // 4 * 4
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data(size))
    if chance.random() < 0.5:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_json(
    bundle: Path,
    chance: Chance,
    kind: str,
    texts: tuple[str, ...],
    fits: Callable[[Any], bool],
) -> Damage:
    """Put one of ``texts`` in place of a value that fits, in a JSON file that has one."""
    path = _json_file(bundle, chance)
    content = json.loads(path.read_text())
    places = [place for place in _places(content) if fits(place[0][place[1]])]
    mark = "\ue000 here \ue000"
    if places:
        holder, key = chance.choice(places)
        holder[key] = mark
    else:
        content = {"x": mark}
    written = json.dumps(content, ensure_ascii=False)
    path.write_text(written.replace(json.dumps(mark, ensure_ascii=False), chance.choice(texts)))
    return Damage(kind, (path.name,))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON value, as what holds it and its key; of long lists the first ones."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value[:20])
    for key, inner in pairs:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def make_bundle(folder: Path) -> Path:
    """A bundle in fp32 and int4 of a two-layer model with random weights."""
    import torch
    import transformers

    from risen_export import export
    from risen_plugin.embedded import base_model

    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_model())
    config = transformers.LlamaConfig(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    out = folder / "bundle"
    both = {"model": model, "tokenizer": tokenizer}
    export("random", out, ("fp32", "int4"), progress=False, check=False, **both)
    return out


@click.command()
@click.option("--count", default=1000, show_default=True, help="Bundles to damage.")
@click.option("--seed", default=0, show_default=True)
@click.option("--sealed", is_flag=True, help="Have the manifests agree with the damaged files.")
def main(*, count: int, seed: int, sealed: bool) -> None:
    """Damage a small bundle in many ways and count what becomes of it."""
    from risen_export.runtime import templates

    hashes._SETTLED_NS = -1  # remember files of this instant too: that is what is tried
    templates.SECONDS = 2.0  # a template without end is met often here
    results: dict[str, Counter[str]] = {}
    faults: list[Outcome] = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = str(Path(place) / "cache")
        bundle = make_bundle(Path(place))
        begun = time.monotonic()
        for outcome in tqdm(
            tries(bundle, Path(place), count, seed, sealed=sealed), total=count, unit="bundle"
        ):
            results.setdefault(outcome.damage.kind, Counter())[outcome.result] += 1
            if outcome.result in FAULTS:
                faults.append(outcome)
        seconds = time.monotonic() - begun
    names = ("refused", "answer" if sealed else "same answer", *FAULTS)
    click.echo(f"| damage | {' | '.join(names)} |")
    click.echo(f"| --- |{' ---: |' * len(names)}")
    total: Counter[str] = sum(results.values(), Counter())
    for kind, counts in [*sorted(results.items()), ("all", total)]:
        click.echo(f"| {kind} | {' | '.join(str(counts[name]) for name in names)} |")
    for outcome in faults:
        click.echo(f"FAULT {outcome.result}: {outcome.damage}: {outcome.said[:300]}")
    click.echo(f"{count} bundles, {len(faults)} faults, {seconds:.0f} s, seed {seed}; {machine()}")
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
