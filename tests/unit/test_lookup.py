"""A reward is named by what is offered or by where its code is, and options by name=value."""

from __future__ import annotations

import json
import pickle
import sys
import types
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from risen_plugin.builtin.schedulers import After
from risen_plugin.builtin.schedulers.plateau import Plateau
from risen_plugin.cli import command_line
from risen_plugin.commands.options import options_of, parse_options
from risen_plugin.commands.simulate.command import named_scheduler
from risen_plugin.commands.train.adaptation import rewards_of
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.config import RisenConfig
from risen_plugin.config.choices import Use
from risen_plugin.contracts import Progress, Reward
from risen_plugin.errors import ConfigError
from risen_plugin.hookspecs import hookimpl
from risen_plugin.plugins import Plugins
from risen_plugin.plugins.lookup import look_up, make
from risen_plugin.run.assembly import Parts, assemble

PLUGINS = Plugins.load()

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


def reward(text, options=None):
    return look_up(PLUGINS, "reward", text, options)


def scores(text, **options):
    return reward(text, options).value(prompts=["a", "b"], completions=["yes", "certainly"])


def test_an_offered_name_is_built_with_its_options():
    assert scores("length", low=1, high=3) == [1.0, 1.0]
    assert reward("length", {"low": 1, "high": 3}).name == "length"


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
    made = reward(f"{file}:Short", {"most": 4}).value
    assert pickle.loads(pickle.dumps(made)) == made


def test_a_file_called_like_an_installed_module_replaces_nothing(tmp_path, file):
    (tmp_path / "json.py").write_text("def mine(completions, **columns): return [1.0, 0.0]")
    json = sys.modules["json"]
    assert scores(f"{tmp_path / 'json.py'}:mine") == [1.0, 0.0]
    assert sys.modules["json"] is json


def test_a_label_says_where_the_reward_is(file):
    assert reward(f"{file}:half").label == f"reward 'half' ({file})"


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
        reward(text.format(file=file, folder=folder), options)
    assert message.format(file=file, folder=folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["def half(", "raise RuntimeError('two\\nlines')"])
def test_a_file_that_cannot_be_imported_is_one_line(tmp_path, file, code):
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(ConfigError, match=r"broken.py' cannot be imported: \w+Error: [^\n]+$"):
        reward(f"{tmp_path / 'broken.py'}:half")


# The same words everywhere

PARTS = """
from risen_plugin import Decision, Reward, Scheduler


class Halved:
    def __init__(self, inner: Reward, by: int = 2):
        self.inner, self.by = inner, by

    def __call__(self, completions, **columns):
        scores = self.inner(completions=completions, **columns)
        return [score / self.by for score in scores]


def mean(rewards: list[Reward]):
    def score(completions, **columns):
        all_scores = [one(completions=completions, **columns) for one in rewards]
        return [sum(scores) / len(rewards) for scores in zip(*all_scores)]
    return score


class Gentler:
    def __init__(self, scheduler: Scheduler, rate: float = 0.5):
        self.scheduler, self.rate = scheduler, rate

    def __call__(self, progress):
        return Decision("risen", 7, {}, f"gently, {self.rate}")


def rows(*, count, seed, **context):
    return [{"prompt": f"Say {n}."} for n in range(count)]


def shouted(word: str):
    return lambda *, count, seed, **context: [{"prompt": word.upper()}] * count
"""
LENGTH = {"use": "length", "options": {"low": 1, "high": 3}}


@pytest.fixture
def parts(tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a file in the current folder with makers that take plugins."""
    monkeypatch.chdir(tmp_path)
    Path("parts_of_mine.py").write_text(PARTS)
    return "parts_of_mine.py"


def run_as(how: str, **section: Any) -> Parts:
    """What a run is assembled from where its configuration is written in this way."""
    section = {"rewards": [LENGTH], "generator": "parts_of_mine.py:rows", **section}
    if how == "from_yaml":
        Path("risen.yaml").write_text(yaml.safe_dump(section))
        return assemble(RisenConfig.from_yaml("risen.yaml"))
    if how == "RUN.yaml":
        Path("run.yaml").write_text(yaml.safe_dump({"model": "m", "risen": section}))
        config = RunConfig.from_yaml("run.yaml").risen
        assert config is not None
        return assemble(config)
    rewards = [Use(one["use"], one["options"]) for one in section.pop("rewards")]
    return assemble(RisenConfig(rewards=rewards, **section))


WAYS = ("from_yaml", "RUN.yaml", "Python")


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("inner", ["parts_of_mine.py:Halved", "parts_of_mine:Halved"])
def test_a_reward_by_place_takes_a_reward_in_every_configuration(parts, how, inner):
    given = {"use": inner, "options": {"inner": LENGTH, "by": 4}}
    [reward] = run_as(how, rewards=[given]).rewards
    assert reward.__name__ == "Halved"
    assert reward(prompts=["a"], completions=["one two"]) == [0.25]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("scheduler", ["parts_of_mine.py:Gentler", "parts_of_mine:Gentler"])
def test_a_scheduler_by_place_takes_a_scheduler_in_every_configuration(parts, how, scheduler):
    options = {"scheduler": {"use": "after", "options": {"steps": 2}}}
    used = Use(scheduler, options) if how == "Python" else {"use": scheduler, "options": options}
    made = run_as(how, scheduler=used).schedule
    assert made(Progress(1, 9)).steps == 7
    assert made.scheduler == After(2)


@pytest.mark.parametrize("how", WAYS)
def test_a_generator_by_place_is_found_in_every_configuration(parts, how):
    options = {"word": "hey"}
    used = {"use": "parts_of_mine.py:shouted", "options": options}
    made = run_as(how, generator=Use(used["use"], options) if how == "Python" else used).generator
    assert list(made.value(count=1, seed=0)) == [{"prompt": "HEY"}]
    assert made.label == "generator 'shouted' (parts_of_mine.py)"


def test_a_reward_that_the_guard_measures_by_may_be_named_by_its_place(parts):
    guard = {"domain": {"use": "parts_of_mine.py:Halved", "options": {"inner": LENGTH}}}
    domain = run_as("from_yaml", guard=guard).domain
    assert domain is not None
    assert domain(prompts=["a"], completions=["one two"]) == [0.5]


@pytest.mark.parametrize("how", WAYS)
def test_a_file_that_is_missing_is_told_from_every_configuration(parts, how):
    with pytest.raises(ConfigError, match=r"there is no file 'parts_of_mien.py'; did you mean"):
        run_as(how, rewards=[{"use": "parts_of_mien.py:Halved", "options": {}}])


def test_options_may_ask_for_several_rewards(parts):
    never = {"use": "regex", "options": {"pattern": "q"}}
    made = reward(f"{parts}:mean", {"rewards": [LENGTH, never]})
    assert made.value(prompts=["a"], completions=["one two"]) == [0.5]


class Offering:
    """A plugin whose reward takes a reward."""

    @hookimpl
    def risen_register_rewards(self, register: Any) -> None:
        register("halved", Doubted)


class Doubted:
    def __init__(self, inner: Reward, by: int = 2) -> None:
        self.inner, self.by = inner, by

    def __call__(self, completions: Any, **columns: Any) -> list[float]:
        return [score / self.by for score in self.inner(completions=completions, **columns)]


@pytest.fixture
def risen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run a command line where that plugin is installed."""
    entry = types.SimpleNamespace(name="doubts", load=Offering, dist=None)
    monkeypatch.setattr(
        metadata, "entry_points", lambda group: [entry] if group == "risen_plugin" else []
    )

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            command_line().main(list(arguments), prog_name="risen")
        out, err = capsys.readouterr()
        assert caught.value.code in (0, 1), err
        return out

    return run


INNER = ("-o", "inner=length", "-o", "inner.low=1", "-o", "inner.high=3")


@pytest.mark.parametrize("name", ["halved", "doubts/halved", "parts_of_mine.py:Halved"])
def test_score_makes_the_reward_that_an_option_names(parts, risen, name):
    row = {"prompt": "a", "completion": "one two"}
    Path("answers.jsonl").write_text(json.dumps(row) + "\n")
    scored = risen("score", name, "answers.jsonl", *INNER, "--json")
    assert json.loads(scored)["score"] == 0.5


@pytest.mark.parametrize("name", ["halved", "parts_of_mine.py:Halved"])
def test_audit_makes_the_reward_that_an_option_names(parts, risen, name):
    report = json.loads(risen("audit", name, *INNER, "--quick", "--json", "--passes-at", "0.5"))
    assert not {"crash", "number", "count"} & set(report["findings"])


def test_adapt_makes_the_reward_that_an_option_names(parts):
    [section] = rewards_of(["parts_of_mine.py:Halved"], INNER[1::2])
    [found] = run_as("from_yaml", rewards=[section]).rewards
    assert found(prompts=["a"], completions=["one two"]) == [0.5]


def test_simulate_makes_the_scheduler_that_an_option_of_a_place_names(parts):
    pairs = ["scheduler=after", "scheduler.steps=2", "rate=1e-1"]
    made = named_scheduler(f"{parts}:Gentler", pairs, PLUGINS).value
    assert (made.scheduler, made.rate) == (After(2), 0.1)
    pairs = ["seconds=5", f"scheduler={parts}:Gentler", "scheduler.scheduler=plateau"]
    assert named_scheduler("budget", pairs, PLUGINS).value.scheduler.scheduler == Plateau()


def test_a_list_on_a_command_line_is_one_where_the_option_asks_for_one():
    def words(some: list[str], pattern: str = "") -> Any:
        return lambda completions, **columns: [some, pattern]

    pairs = options_of(["some=[a, b]", "pattern=[a]"])
    assert make(PLUGINS, words, pairs, "mine")(completions=[]) == [["a", "b"], "[a]"]


LISTED = """
from collections.abc import Sequence
from risen_plugin import Decision, Reward, Scheduler


def half(completions, **columns):
    return [0.5] * len(completions)


def summed(inners: {annotation}):
    def score(completions, **columns):
        scores = [one(completions=completions, **columns) for one in inners]
        return [sum(each) for each in zip(*scores)]
    return score


def after_all(schedulers: list[Scheduler]):
    return lambda progress: Decision("risen", len(schedulers), {{}}, str(schedulers[0]))
"""


def listed(annotation: str) -> str:
    Path("listed.py").write_text(LISTED.format(annotation=annotation))
    return "listed.py:summed"


@pytest.mark.parametrize(
    "annotation",
    [
        "list[Reward]",
        "Sequence[Reward]",
        "tuple[Reward, ...]",
        "tuple[Reward, Reward]",
        "list[Reward] | None",
        "Reward | list[Reward]",
    ],
)
def test_a_command_line_names_a_list_of_rewards(parts, risen, annotation):
    Path("answers.jsonl").write_text(json.dumps({"prompt": "a", "completion": "one two"}) + "\n")
    name = listed(annotation)
    inners = "inners=[listed.py:half, {use: length, options: {low: 1, high: 3}}]"
    scored = risen("score", name, "answers.jsonl", "-o", inners, "--json")
    assert json.loads(scored)["score"] == 1.5
    risen("audit", name, "--quick", "--json", "-o", inners)
    [section] = rewards_of([name], [inners])
    [found] = run_as("from_yaml", rewards=[section]).rewards
    assert found(prompts=["a"], completions=["one two"]) == [1.5]


def test_a_command_line_names_a_list_of_schedulers(parts):
    listed("list")
    made = named_scheduler("listed.py:after_all", ["schedulers=[plateau, plateau]"], PLUGINS).value
    assert made(Progress(1, 9)).steps == 2
    assert made(Progress(1, 9)).reason == str(Plateau())


def test_a_misspelt_name_in_a_list_is_refused(parts):
    name = listed("Sequence[Reward]")
    with pytest.raises(ConfigError, match="no reward is called 'lenght'; did you mean 'length'"):
        reward(name, options_of(["inners=[lenght, constraints]"]))


def test_a_command_line_names_a_reward_with_its_options_in_braces(parts, risen):
    Path("answers.jsonl").write_text(json.dumps({"prompt": "a", "completion": "one two"}) + "\n")
    inner = "inner={use: length, options: {low: 1, high: 3}}"
    scored = risen("score", f"{parts}:Halved", "answers.jsonl", "-o", inner, "--json")
    assert json.loads(scored)["score"] == 0.5
    made = named_scheduler("budget", ["seconds=5", "scheduler={use: plateau}"], PLUGINS).value
    assert made.scheduler == Plateau()


def test_an_option_beside_braces_is_refused(parts):
    with pytest.raises(
        ConfigError, match=r"'inner\.low' is an option of inner, which is a mapping"
    ):
        options_of(["inner={use: length}", "inner.low=1"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (5, "reward 'Halved' (parts_of_mine.py): inner is 5, which cannot be called; a reward"),
        (True, "inner is True, which cannot be called"),
        ([3], "inner is [3], which cannot be called"),
        (None, "inner is None, which cannot be called"),
        (object(), "which cannot be called"),
        (After, "inner is the class After; give an object of it: After(...)"),
        (After(3), "inner does not take completions; a reward is called with prompts"),
    ],
)
def test_an_option_that_cannot_be_a_reward_is_refused(parts, given, said):
    with pytest.raises(ConfigError) as caught:
        reward(f"{parts}:Halved", {"inner": given})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("inner=5", "inner is 5, which cannot be called"),
        ("inner=[3]", "inner is [3], which cannot be called"),
        ("inner=", "inner is None, which cannot be called"),
    ],
)
def test_a_command_line_that_gives_no_reward_is_refused(parts, pair, said):
    with pytest.raises(ConfigError) as caught:
        reward(f"{parts}:Halved", options_of([pair]))
    assert said in str(caught.value)


def test_what_is_no_reward_in_a_list_is_refused_by_its_index(parts):
    with pytest.raises(ConfigError, match=r"inners\.1 is 3, which cannot be called"):
        reward(listed("list[Reward]"), {"inners": ["listed.py:half", 3]})


@pytest.mark.parametrize("annotation", ["Reward | None", "Reward = None", "Reward | int"])
def test_an_option_may_be_what_else_its_annotation_says(parts, annotation):
    name = listed(annotation)
    code = Path("listed.py").read_text()
    Path("listed.py").write_text(code.replace("scores = [", "return [1.0] # "))
    reward(name, {"inners": 3 if "int" in annotation else None})


KINDS_MIXED = """
from dataclasses import dataclass
from risen_plugin import Decision


def score(completions, **columns):
    return [1.0] * len(completions)


def by_name(*, completions, **columns):
    return [1.0] * len(completions)


def rows(*, count, seed, **context):
    return [{"prompt": "a"}] * count


def always(progress, *rest):
    return Decision("fine_tune")


@dataclass
class Always:
    def __call__(self, progress):
        return Decision("fine_tune")


made = Always()
"""


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("scheduler", "score", "scheduler 'score' (mixed.py) is no scheduler: it needs 'compl"),
        ("scheduler", "by_name", "scheduler 'by_name' (mixed.py) is no scheduler: it needs 'compl"),
        ("generator", "score", "generator 'score' (mixed.py) is no generator: it needs 'compl"),
        ("generator", "made", "generator 'made' (mixed.py) is no generator: it needs 'progress'"),
        ("reward", "made", "reward 'made' (mixed.py) does not take completions; a reward is"),
        ("reward", "Always", "reward 'Always' (mixed.py) does not take completions; a reward is"),
    ],
)
def test_what_is_of_another_kind_is_refused_by_its_signature(parts, kind, name, said):
    Path("mixed.py").write_text(KINDS_MIXED)
    with pytest.raises(ConfigError) as caught:
        look_up(PLUGINS, kind, f"mixed.py:{name}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_scheduler_object_in_place_of_a_reward_is_refused():
    with pytest.raises(ConfigError, match="does not take completions"):
        look_up(PLUGINS, "reward", After(3))


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
