"""The README of a bundle: its head is the hub's, its numbers are measured, its snippets run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from risen_export import Bundle, check, export
from risen_export.bundles import manifest
from risen_export.bundles.card import front_matter
from risen_export.bundles.licences import card_of, licence_of, packages
from risen_export.bundles.private import scrub, shown


def content(**other: Any) -> dict[str, Any]:
    one = {"precision": "int8", "target": "cpu", "ran": "here", "bytes": 1, "gate": None}
    return {"source": "desk", "variants": {"int8": one}, **other}


@pytest.mark.parametrize(
    ("facts", "base", "relation"),
    [
        ({"model": {"name": "org/Base-1B"}}, "org/Base-1B", "quantized"),
        ({"model": {"name": "org/Base-1B"}, "merged_adapters": [{}]}, "org/Base-1B", "finetune"),
        (
            {"model": {"name": "run"}, "rewards": {}, "run_model": {"name": "org/Base-1B"}},
            None,
            None,
        ),
        (
            {"model": {"name": "run"}, "rewards": {"a": 1}, "run_model": {"name": "org/Base-1B"}},
            "org/Base-1B",
            "finetune",
        ),
        ({"model": {"name": "mine"}, "card": {"base_model": ["org/B"]}}, "org/B", "finetune"),
        ({"model": {"name": "mine"}}, None, None),
    ],
)
def test_the_head_names_the_base_model_and_what_was_done_to_it(
    facts: dict[str, Any], base: str | None, relation: str | None
) -> None:
    head = front_matter(content(**facts))
    assert (head.get("base_model"), head.get("base_model_relation")) == (base, relation)


@pytest.mark.parametrize(
    ("text", "card"),
    [
        (
            "---\nlicense: mit\nlanguage: [en, fi]\n---\n# x",
            {"license": "mit", "language": ["en", "fi"]},
        ),
        ("---\nlicense: 3\ntags: [a]\n---\n", {}),
        ("---\n- a\n---\n", {}),
        ("---\n!!python/object/apply:os.system ['x']\n---\n", {}),
        ("---\na: [\n---\n", {}),
        ("# no head\n---\nlicense: mit\n---\n", {}),
        ("", {}),
    ],
)
def test_a_card_of_others_is_read_as_far_as_it_is_one(text: str, card: dict[str, Any]) -> None:
    assert card_of(text) == card


def test_the_packages_of_a_run_are_recorded_with_their_licences() -> None:
    assert licence_of("risen-plugin") == "Apache-2.0"
    assert licence_of("no-such-distribution") is None
    assert packages(["risen-plugin 0.1.0", "my_module", "gone 1.0"]) == {
        "gone": {"version": "1.0", "license": None},
        "risen-plugin": {"version": "0.1.0", "license": "Apache-2.0"},
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/home/ada/models/desk", "desk"),
        ("/home/ada/models/desk/", "desk"),
        ("~/desk", "desk"),
        ("C:\\Users\\ada\\desk", "desk"),
        ("../desk", "desk"),
        ("org/Model-1B", "org/Model-1B"),
        ("a sentence / with a slash", "a sentence / with a slash"),
        ("/", "/"),
        ("/think", "/think"),
    ],
)
def test_a_path_is_recorded_by_its_name(name: str, said: str) -> None:
    assert shown(name) == said
    assert scrub({"a": [name, {"b": name}], "chat_template": name}) == {
        "a": [said, {"b": said}],
        "chat_template": name,
    }


@pytest.fixture(scope="module")
def described(
    tied_model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A model folder with a card and a licence, and its bundle."""
    folder = tmp_path_factory.mktemp("described") / "home" / "ada"
    tied_model.save_pretrained(folder / "desk")
    tokenizer.save_pretrained(folder / "desk")
    (folder / "desk" / "README.md").write_text(
        "---\nlicense: apache-2.0\nlanguage:\n- en\nbase_model: org/Base-1B\n---\n# Desk\n"
    )
    (folder / "desk" / "LICENSE").write_text("Apache License")
    export(folder / "desk", folder / "out", progress=False)
    return folder / "desk", folder / "out"


@pytest.mark.slow
def test_the_card_has_the_licence_the_base_and_the_measured_numbers(
    described: tuple[Path, Path],
) -> None:
    _, out = described
    from huggingface_hub import ModelCard

    text = (out / "README.md").read_text()
    data = ModelCard(text).data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "org/Base-1B"
    assert data["pipeline_tag"] == "text-generation"
    head = yaml.safe_load(text.split("---\n")[1])
    names = [metric["type"] for metric in head["model-index"][0]["results"][0]["metrics"]]
    assert {"agreement", "kl_mean", "perplexity"} <= set(names)
    assert re.search(r"\| `fp32` \| \d\.\d MB \| 100\.00% \|.* passed \|", text)
    assert (out / "LICENSE").read_text() == "Apache License"
    content = manifest.read(out) or {}
    assert "LICENSE" in content["files"]
    assert content["card"]["license"] == "apache-2.0"


@pytest.mark.slow
def test_a_card_may_be_edited_and_a_signature_added(
    described: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(described[1], tmp_path / "copy")
    (copy / "README.md").write_text("# Another")
    (copy / "model.sig").write_text("{}")
    (copy / "fp32" / "README.md").write_text("# Copied alone")
    assert check(copy) == []
    Bundle.open(copy)


@pytest.mark.slow
def test_no_file_of_a_bundle_tells_where_it_was_made(described: tuple[Path, Path]) -> None:
    source, out = described
    for path in out.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert str(source.parent).encode() not in data, path
            assert b"/ada/" not in data, path
            assert str(Path.home()).encode() + b"/" not in data, path


@pytest.mark.slow
@pytest.mark.parametrize("has_template", [True, False])
def test_the_snippets_give_the_same_tokens_in_every_client(
    described: tuple[Path, Path],
    has_template: bool,
    model_of: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, out = described
    if not has_template:
        from .conftest import make_tokenizer

        plain = make_tokenizer()
        plain.chat_template = None
        out = tmp_path / "out"
        export("mine", out, model=model_of(plain), tokenizer=plain, progress=False, check=False)
    monkeypatch.chdir(out)
    blocks = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    ran: list[dict[str, Any]] = []
    for block in blocks[:3]:
        names: dict[str, Any] = {}
        exec(compile(block, "README.md", "exec"), names)
        ran.append(names)
    risen, genai, plain_ort = ran
    asked = risen["messages" if has_template else "text"]
    bundle = Bundle.open(out)
    row = bundle.tokenizer.encode(asked)
    answer = bundle.generate_ids([row], max_new_tokens=32)[0]
    assert len(answer) > 1
    assert plain_ort["answer"] == answer
    assert list(genai["generator"].get_sequence(0))[len(row) :][: len(answer)] == answer
    assert capsys.readouterr().out.startswith(bundle.tokenizer.decode(answer))
