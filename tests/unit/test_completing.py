"""A shell completes what is on offer, the runs that there are, and files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from risen_plugin.cli import command_line


def completed(*words: str) -> dict[str, str]:
    """The completions of the last word, each with its type."""
    shell = ShellComplete(command_line(), {}, "risen", "_RISEN_COMPLETE")
    return {item.value: item.type for item in shell.get_completions(list(words[:-1]), words[-1])}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("rewards", "le"), "length"),
        (("generators", "ev"), "evolve"),
        (("schedulers", ""), "plateau"),
        (("exporters", "tr"), "transformers"),
        (("score", "con"), "constraints"),
        (("audit", "ex"), "exact"),
        (("simulate", "af"), "after"),
        (("adapt", "model", "--rewards", "reg"), "regex"),
        (("advise", "model", "--generator", "js"), "jsonl"),
        (("new", "pl"), "plugin"),
        (("train", "--ch"), "--check"),
    ],
)
def test_a_name_on_offer_is_completed(words: tuple[str, ...], name: str) -> None:
    found = completed(*words)
    assert name in found
    assert all(other.startswith(words[-1]) for other in found)


def test_a_file_with_code_is_completed_up_to_the_name_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("polite.py").touch()
    assert completed("audit", "pol") == {"polite.py:": "plain"}


@pytest.mark.parametrize(
    "words",
    [("watch", "o"), ("report", ""), ("unsolved", "out/f"), ("export", "ou"), ("rescore", "out")],
)
def test_a_run_is_completed(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("out/first", "other"):
        Path(run, "risen").mkdir(parents=True)
        Path(run, "risen", "run.json").write_text("{}")
    Path("out/files").mkdir()
    wanted = {run for run in ("out/first", "other") if run.startswith(words[-1])}
    assert set(completed(*words)) == wanted


def test_where_there_is_no_run_a_folder_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert completed("watch", "/tm") == {"/tm": "dir"}


@pytest.mark.parametrize(
    "words", [("adapt", "m", "--instructions", "a"), ("rewards", "mine."), ("train", "run")]
)
def test_a_file_is_completed(words: tuple[str, ...]) -> None:
    assert completed(*words) == {words[-1]: "file"}


@pytest.mark.parametrize(
    ("command", "now", "earlier"),
    [
        ("score", "--output", "--out"),
        ("rescore", "--rewards", "--reward"),
        ("unsolved", "--output", "-o"),
        ("advise", "--output", "--write"),
        ("demo", "--output", "--out"),
    ],
)
def test_an_option_has_one_name_in_all_commands_and_is_taken_by_its_earlier_one(
    command: str, now: str, earlier: str
) -> None:
    found = command_line().commands[command]
    [option] = [param for param in found.params if now in param.opts]
    assert earlier in option.opts
    record = option.get_help_record(found.make_context(command, [], resilient_parsing=True))
    assert record is not None
    assert record[0].split()[0].rstrip(",") == now
