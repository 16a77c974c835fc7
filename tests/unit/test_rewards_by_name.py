"""A command line names a reward by its offered name or by where its code is."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from risen_plugin.errors import ConfigError
from risen_plugin.plugins.rewards_by_name import parse_options, resolve

CODE = """
from dataclasses import dataclass
from helper_beside import HALF


@dataclass(frozen=True)
class Short:
    most: int = 3

    def __call__(self, *, completions, **columns):
        return [float(len(text) <= self.most) for text in completions]


def half(completions, **columns):
    return [HALF] * len(completions)


def made(score: float):
    return lambda *, completions, **columns: [score] * len(completions)


async def later(completions, **columns):
    return [HALF] * len(completions)


NUMBER = 3
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file with rewards, and a module beside it that it imports."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    (tmp_path / "helper_beside.py").write_text("HALF = 0.5\n")
    (tmp_path / "my_rewards.py").write_text(CODE)
    yield str(tmp_path / "my_rewards.py")
    for name in set(sys.modules) - known:
        del sys.modules[name]


def scores(text, **options):
    reward = resolve(text, options)
    return reward(prompts=["a", "b"], completions=["yes", "certainly"])


def test_an_offered_name_is_built_with_its_options():
    assert scores("length", low=1, high=3) == [1.0, 1.0]
    assert resolve("length", {"low": 1, "high": 3}).__name__ == "length"


def test_a_class_in_a_file_is_built_with_its_options(file):
    assert scores(f"{file}:Short") == [1.0, 0.0]
    assert scores(f"{file}:Short", most=9) == [1.0, 1.0]


def test_a_reward_function_in_a_file_is_taken_as_it_is(file):
    assert scores(f"{file}:half") == [0.5, 0.5]


def test_a_function_that_takes_no_completions_makes_a_reward(file):
    assert scores(f"{file}:made", score=0.25) == [0.25, 0.25]


def test_a_reward_in_a_module_is_found_from_the_current_folder(file, monkeypatch):
    monkeypatch.chdir(Path(file).parent)
    assert scores("my_rewards:half") == [0.5, 0.5]


def test_an_object_from_a_file_can_be_pickled(file):
    reward = resolve(f"{file}:Short", {"most": 4}).reward
    assert pickle.loads(pickle.dumps(reward)) == reward


def test_a_file_called_like_an_installed_module_replaces_nothing(tmp_path, file):
    (tmp_path / "json.py").write_text("def mine(completions, **columns): return [1.0, 0.0]")
    json = sys.modules["json"]
    assert scores(f"{tmp_path / 'json.py'}:mine") == [1.0, 0.0]
    assert sys.modules["json"] is json


def test_a_label_says_where_the_reward_is(file):
    assert resolve(f"{file}:half").label == f"reward 'half' ({file})"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("lenght", {}, "no reward is called 'lenght'; did you mean 'length'?"),
        ("length", {"lo": 1}, "has no option 'lo'; did you mean 'low'?"),
        ("{file}", {}, "names no reward in it; write {file}:NAME"),
        ("{file}:", {}, "names no reward in it; write {file}:NAME"),
        (
            "{file}:Shrt",
            {},
            "has no 'Shrt'; did you mean 'Short'? It has: Short, half, later, made",
        ),
        ("{file}:Short", {"mots": 1}, "has no option 'mots'; did you mean 'most'?"),
        ("{file}:half", {"most": 1}, "is a reward already and takes no options"),
        ("{file}:NUMBER", {}, "cannot be called; a reward is a callable object"),
        ("{file}:made", {}, "needs the option 'score'"),
        (
            "{folder}/my_reward.py:half",
            {},
            "there is no file '{folder}/my_reward.py'; did you mean",
        ),
        ("no_such_module_here:half", {}, "the module 'no_such_module_here' cannot be imported: "),
    ],
)
def test_a_wrong_name_is_one_line(file, text, options, message):
    folder = str(Path(file).parent)
    with pytest.raises(ConfigError) as caught:
        resolve(text.format(file=file, folder=folder), options)
    assert message.format(file=file, folder=folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["def half(", "raise RuntimeError('two\\nlines')"])
def test_a_file_that_cannot_be_imported_is_one_line(tmp_path, file, code):
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(ConfigError, match=r"broken.py' cannot be imported: \w+Error: [^\n]+$"):
        resolve(f"{tmp_path / 'broken.py'}:half")


# Options


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("a=3", 3),
        ("a=0.5", 0.5),
        ("a=1e-4", 1e-4),
        ("a=true", True),
        ("a=null", None),
        ("a=", None),
        ("a=text", "text"),
        ("a=b=c", "b=c"),
        ("a='3'", "3"),
        ("a=#fff", "#fff"),
        ("a=x #y", "x #y"),
        ("a=[a-z]+", "[a-z]+"),
        ("a=[1, 2]", "[1, 2]"),
        ("a={unclosed", "{unclosed"),
        ("a=2020-01-01", "2020-01-01"),
        ("a=2020-13-45", "2020-13-45"),
    ],
)
def test_a_value_is_read_as_a_yaml_scalar(pair, value):
    assert parse_options([pair]) == {"a": value}


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["a"], "the option 'a' has no value; write name=value"),
        (["=3"], "the option '=3' has no value; write name=value"),
        (["a=1", "a=2"], "the option 'a' is given twice"),
    ],
)
def test_a_wrong_pair_is_refused(pairs, message):
    with pytest.raises(ConfigError, match=message):
        parse_options(pairs)
