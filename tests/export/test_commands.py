"""``risen export`` and ``risen generate`` as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from risen_export import commands
from risen_export.exporting import Exported, ExportResult
from risen_export.runtime.bundle import Bundle
from risen_plugin.errors import DataError, ExportError

CHAT = [{"role": "user", "content": "hello"}]


@pytest.fixture
def risen() -> Callable[..., Result]:
    cli = click.Group("risen")
    commands.risen_register_commands(cli)

    def run(*arguments: object, stdin: str | None = None, fails: bool = False) -> Result:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)
        if result.exception is not None and not fails:
            raise result.exception
        return result

    return run


def test_the_commands_load_nothing_heavy() -> None:
    script = (
        "import sys, risen_export, risen_export.commands\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'onnx', 'numpy', 'tokenizers'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "[]\n"


@pytest.mark.slow
def test_export_prints_a_table_with_sizes_and_the_check(
    risen: Callable[..., Result],
    model_of: Callable[..., Any],
    tokenizer: Any,
    saved: Callable[..., Path],
    tmp_path: Path,
) -> None:
    model = saved(model_of(tokenizer), tmp_path / "model")
    options = ("--precision", "fp32", "--precision", "int8", "--quiet")
    result = risen("export", model, tmp_path / "out", *options)
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["size", "fp32", "int8", "fp32", "int8"]
    assert "100.0%" in lines[1]
    assert str(tmp_path / "out" / "int8") in lines[2]
    assert lines[4].startswith("int8 is made of: ")
    # Nothing that the builder or transformers print comes through.
    assert len(lines) == 5


def test_export_prints_the_bundle_as_data(
    risen: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Exported(Path("out/fp32"), 12, {"weights": 12}, None)
    bundle = ExportResult(Path("out"), {"fp32": made}, {})
    monkeypatch.setattr("risen_export.exporting.export", lambda *_, **__: bundle)
    assert json.loads(risen("export", "model", "out", "--json").output) == {
        "path": "out",
        "backend": "",
        "precisions": {
            "fp32": {
                "path": "out/fp32",
                "bytes": 12,
                "bytes_by_kind": {"weights": 12},
                "measured": None,
                "failures": [],
            }
        },
        "tried": {},
    }


@pytest.mark.slow
def test_generate_applies_the_chat_template(
    risen: Callable[..., Result], tied_bundle: Path
) -> None:
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    expected = Bundle.open(tied_bundle, threads=1).generate([chat], max_new_tokens=8)[0]
    options = ("--system", "be brief", "--max-new-tokens", 8)
    assert risen("generate", tied_bundle, "hello", *options).output == expected + "\n"
    raw = risen("generate", tied_bundle, "hello", "--raw", "--max-new-tokens", 8).output
    assert raw == Bundle.open(tied_bundle).generate(["hello"], max_new_tokens=8)[0] + "\n"


@pytest.mark.slow
def test_generate_reads_lines_and_writes_json(
    risen: Callable[..., Result], tied_bundle: Path
) -> None:
    result = risen(
        "generate", tied_bundle / "int8", "-", "--json", "--max-new-tokens", 4, stdin="a\n\nb\n"
    )
    rows = [json.loads(line) for line in result.output.splitlines()]
    assert [row["prompt"] for row in rows] == ["a", "b"]
    assert all(isinstance(row["completion"], str) for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("-",), DataError, "standard input was empty"),
        (("a", "--raw", "--system", "b"), DataError, "drop one"),
        (("a", "--precision", "fp23"), ExportError, "did you mean 'fp32'"),
    ],
)
def test_generate_refuses_in_one_line(
    risen: Callable[..., Result],
    *,
    tied_bundle: Path,
    arguments: tuple[str, ...],
    error: type[Exception],
    said: str,
) -> None:
    result = risen("generate", tied_bundle, *arguments, stdin="", fails=True)
    assert isinstance(result.exception, error)
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.slow
def test_an_adapter_is_added_asked_and_removed(
    risen: Callable[..., Result],
    adapter: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    saved, out = adapter(tmp_path), tmp_path / "out"
    options = ("--adapters", "separate", "--no-verify", "--quiet")
    risen("export", tmp_path / "base", out, *options)
    assert "has no adapters" in risen("adapters", "list", out).output
    said = risen("adapters", "add", out, saved, "--name", "desk").output
    assert "added adapter desk in" in said
    assert "rank 4 on down_proj, q_proj" in said
    assert risen("adapters", "list", out).output.startswith("desk  rank 4")
    asked = ("generate", out, "hello", "--max-new-tokens", 4)
    answer = risen(*asked, "--adapter", "desk").output
    assert answer != risen(*asked).output
    assert answer == Bundle.open(out).generate([CHAT], max_new_tokens=4, adapter="desk")[0] + "\n"
    miss = risen(*asked, "--adapter", "desc", fails=True)
    assert isinstance(miss.exception, ExportError)
    assert "did you mean 'desk'?" in str(miss.exception)
    assert risen("adapters", "remove", out, "desk").output == f"removed adapter desk from {out}\n"
    assert json.loads(risen("adapters", "list", out, "--json").output) == {}


@pytest.mark.slow
def test_risen_adapt_with_a_bundle_adds_and_removes(
    tied_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from risen_plugin.cli import main

    def said(*words: object) -> tuple[object, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        shown = capsys.readouterr()
        return stopped.value.code, shown.out + shown.err

    code, text = said("adapt", tied_bundle, "no/such/adapter")
    assert (code, text.count("\n")) == (2, 1)
    assert "no/such/adapter does not exist" in text
    code, text = said("adapt", tied_bundle)
    assert code == 2
    assert f"{tied_bundle} is a bundle; name the ADAPTER to add to it" in text
    assert "takes no adapters" in said("adapters", "list", tied_bundle)[1]
    code, text = said("adapt", tied_bundle, "--remove", "desk")
    assert code == 2
    assert "takes no adapters: they were merged when it was exported" in text
    code, text = said("adapt", tied_bundle, "a", "--remove", "desk")
    assert code == 2
    assert "one at a time" in text


@pytest.mark.parametrize("command", ["export", "generate"])
def test_help_explains_the_arguments(risen: Callable[..., Result], command: str) -> None:
    assert "OUT" in risen(command, "--help").output or "BUNDLE" in risen(command, "--help").output


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "there is no folder"),
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel cannot be exported"),
        ({"architectures": ["T5Model"], "is_encoder_decoder": True}, "encoder-decoder"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "classification model"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    config: dict[str, Any] | None,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from risen_plugin.cli import main

    model = tmp_path / "model"
    if config is not None:
        model.mkdir()
        (model / "config.json").write_text(json.dumps(config))
        (model / "model.safetensors").write_text("not read")
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(model), str(tmp_path / "out")])
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_exporters_that_come_along_are_listed() -> None:
    code = "from risen_plugin.cli import main; main(['exporters', '--json'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed = json.loads(done.stdout)
    assert {"genai", "transformers", "optimum"} <= {one["name"] for one in listed}
    assert {one["distribution"] for one in listed if one["name"] == "genai"} == {"risen-plugin"}


@pytest.mark.slow
def test_the_packages_that_the_guide_names_are_enough_to_answer_and_to_verify(
    tied_bundle: Path,
) -> None:
    """Whatever else is installed here cannot be imported."""
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "export.md"
    line = re.search(r"^answers/bin/pip install (onnxruntime .*)$", guide.read_text(), re.MULTILINE)
    assert line is not None
    code = (
        "import importlib.metadata as of, re, sys\n"
        "named, kept = sys.argv[1].split(), set()\n"
        "while named:\n"
        "    name = named.pop().lower().replace('_', '-')\n"
        "    if name in kept: continue\n"
        "    kept.add(name)\n"
        "    try: needs = of.requires(name) or []\n"
        "    except of.PackageNotFoundError: continue\n"
        "    needs = [one for one in needs if 'extra ==' not in one]\n"
        "    named += [re.match('[A-Za-z0-9._-]+', one)[0] for one in needs]\n"
        "kept.add('risen-plugin')\n"
        "hidden = {top for top, owners in of.packages_distributions().items()\n"
        "          if not kept & {one.lower().replace('_', '-') for one in owners}}\n"
        "assert {'torch', 'transformers', 'peft', 'onnx', 'regex'} <= hidden, hidden\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in hidden: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "from risen_plugin.cli import main\n"
        "for words in (['generate', sys.argv[2], 'hi', '--max-new-tokens', '2'],\n"
        "              ['verify', sys.argv[2], '--quiet'], ['adapters', 'list', sys.argv[2]]):\n"
        "    try: main(words)\n"
        "    except SystemExit as ended: assert not ended.code, ended.code\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, line[1], str(tied_bundle)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "int8: 100.0%" in done.stdout or "int8: 9" in done.stdout


def test_a_chat_through_a_pipe_writes_answers_alone(
    tied_bundle: Path, risen: Callable[..., Result]
) -> None:
    done = risen("chat", tied_bundle, "--max-new-tokens", 4, stdin="hello\n\n/system be brief\n")
    assert done.stderr == "there is a system message\n"
    assert done.stdout.endswith("\n")
    assert ">" not in done.output
