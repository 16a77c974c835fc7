"""Options that are plugins themselves, from Python, YAML and the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from risen_plugin.builtin.schedulers import After, Alternate
from risen_plugin.builtin.schedulers.budget import Budget
from risen_plugin.builtin.schedulers.plateau import Plateau
from risen_plugin.commands.options import nested
from risen_plugin.commands.simulate.command import named_scheduler
from risen_plugin.config import RisenConfig, use
from risen_plugin.contracts import Decision, Generator, Progress, Scheduler
from risen_plugin.errors import ConfigError
from risen_plugin.hookspecs import hookimpl
from risen_plugin.plugins import Plugins
from risen_plugin.run.assembly import assemble

PLUGINS = Plugins.load()


@pytest.mark.parametrize(
    ("given", "inside"),
    [
        ("plateau", Plateau()),
        ({"use": "plateau"}, Plateau()),
        ({"use": "plateau", "options": None}, Plateau()),
        ({"use": "after", "options": {"steps": 5}}, After(5)),
        (use("after", steps=5), After(5)),
        (After(5), After(5)),
        (
            {"use": "budget", "options": {"tokens": 9, "scheduler": {"use": "plateau"}}},
            Budget(Plateau(), tokens=9),
        ),
    ],
)
def test_a_scheduler_inside_another_is_built_from_whatever_names_it(
    given: Any, inside: Scheduler
) -> None:
    made = PLUGINS.build("scheduler", "budget", {"seconds": 5, "scheduler": given})
    assert made == Budget(inside, seconds=5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("plato", "no scheduler is called 'plato'; did you mean 'plateau'?"),
        ({"use": "plato"}, "no scheduler is called 'plato'; did you mean 'plateau'?"),
        ({"usee": "plateau"}, "scheduler has no key 'usee'; did you mean 'use'?"),
        (
            {"use": "after", "steps": 5},
            "no key 'steps'; the options of a plugin belong under 'options: {steps: ...}'. "
            "It takes",
        ),
        ({"options": {}}, "scheduler lacks 'use', the name of a plugin's offer"),
        ({"use": "after", "options": {"stpes": 5}}, "has no option 'stpes'; did you mean 'steps'?"),
        ({"use": "after"}, "scheduler 'after' (risen-plugin 0.1.0) needs the option 'steps'"),
        (5, "scheduler 'budget' (risen-plugin 0.1.0): scheduler is 5"),
    ],
)
def test_what_names_no_scheduler_inside_is_told_in_one_line(given: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PLUGINS.build("scheduler", "budget", {"seconds": 5, "scheduler": given})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_beside_it_is_told_first_by_its_near_miss() -> None:
    with pytest.raises(ConfigError, match="has no option 'secons'; did you mean 'seconds'"):
        PLUGINS.build("scheduler", "budget", {"secons": 5, "scheduler": "plateau"})


@dataclass(frozen=True)
class Mixed:
    """A scheduler of somebody else that takes a scheduler and a generator."""

    first: Scheduler
    rows: Generator | None = None
    words: dict[str, Any] = field(default_factory=dict)

    def __call__(self, progress: Progress) -> Decision:
        return self.first(progress)


class Offering:
    @hookimpl
    def risen_register_schedulers(self, register: Any) -> None:
        register("mixed", Mixed)


def test_any_plugin_may_take_plugins_of_any_kind_and_plain_mappings_stay(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a"}\n')
    plugins = Plugins.load()
    plugins.register(Offering(), "offering")
    options = {
        "first": "plateau",
        "rows": {"use": "jsonl", "options": {"path": str(rows)}},
        "words": {"use": "these", "options": {}},
    }
    made = plugins.build("scheduler", "mixed", options)
    assert made.first == Plateau()
    assert [row["prompt"] for row in made.rows(count=1, seed=0)] == ["a"]
    assert made.words == {"use": "these", "options": {}}


def scheduler_of(**scheduler: Any) -> Any:
    """What a configuration with this scheduler runs."""

    def rows(*, count: int, seed: int, **context: Any) -> list[dict[str, str]]:
        return [{"prompt": "a", "instruction_id_list": [], "kwargs": []}] * count

    config = RisenConfig(rewards=["constraints"], generator=rows, **scheduler)
    return assemble(config).schedule


def test_a_configuration_that_names_no_scheduler_runs_plateau() -> None:
    assert scheduler_of() == Plateau()
    assert RisenConfig.from_dict({"rewards": ["constraints"], "generator": "jsonl"}).scheduler == (
        "plateau"
    )


def test_a_configuration_composes_schedulers_from_python_and_from_yaml() -> None:
    wanted = Budget(Alternate(9, 3), rollouts=500)
    text = """
        rewards: [length]
        generator: jsonl
        scheduler:
          use: budget
          options:
            rollouts: 500
            scheduler: {use: alternate, options: {fine_tune: 9, risen: 3}}
    """
    read = RisenConfig.from_dict(yaml.safe_load(text)).scheduler
    assert scheduler_of(scheduler=read) == wanted
    inside = use("alternate", fine_tune=9, risen=3)
    assert scheduler_of(scheduler=use("budget", rollouts=500, scheduler=inside)) == wanted


# On a command line

FILE = """
from dataclasses import dataclass
from risen_plugin import Decision

@dataclass(frozen=True)
class Mine:
    steps: int = 3
    def __call__(self, progress):
        return Decision("risen", self.steps, {}, "mine")

def always(progress):
    return Decision("risen", 1, {}, "always")

def make(steps: int):
    return Mine(steps)

made = Mine(9)
"""


@pytest.mark.parametrize(
    ("name", "pairs", "steps"),
    [
        ("Mine", [], 3),
        ("Mine", ["steps=4"], 4),
        ("make", ["steps=5"], 5),
        ("made", [], 9),
        ("always", [], 1),
    ],
)
def test_a_scheduler_in_a_file_is_found(
    name: str, pairs: list[str], steps: int, tmp_path: Path
) -> None:
    path = tmp_path / "mine_in_a_file.py"
    path.write_text(FILE)
    built = named_scheduler(f"{path}:{name}", pairs, PLUGINS)
    assert built.value(Progress(1, 9)).steps == steps
    assert built.label == f"scheduler '{name}' ({path})"


@pytest.mark.parametrize(
    ("text", "pairs", "made"),
    [
        ("plateau", ["steps=5"], Plateau(steps=5)),
        ("budget", ["seconds=5", "scheduler=plateau"], Budget(Plateau(), seconds=5)),
        (
            "budget",
            ["seconds=5", "scheduler=alternate", "scheduler.risen=3", "scheduler.fine_tune=4"],
            Budget(Alternate(4, 3), seconds=5),
        ),
        (
            "budget",
            ["seconds=5", "scheduler=budget", "scheduler.tokens=9", "scheduler.scheduler=plateau"],
            Budget(Budget(Plateau(), tokens=9), seconds=5),
        ),
    ],
)
def test_options_of_a_scheduler_inside_another_have_a_dot(
    text: str, pairs: list[str], made: Any
) -> None:
    built = named_scheduler(text, pairs, PLUGINS)
    assert built.value == made
    assert built.label == f"scheduler '{text}' (risen-plugin 0.1.0)"


def test_options_with_dots_nest_however_deep() -> None:
    assert nested({"a": "x", "a.b": "y", "a.b.c": 1, "a.d": 2}) == {
        "a": {"use": "x", "options": {"b": {"use": "y", "options": {"c": 1}}, "d": 2}}
    }


@pytest.mark.parametrize("text", ["{}", "risen: {{{}}}"])
def test_a_configuration_names_its_scheduler_and_options_come_after_its_own(
    text: str, tmp_path: Path
) -> None:
    path = tmp_path / "risen.yaml"
    path.write_text(text.format("scheduler: {use: after, options: {steps: 5}}"))
    assert named_scheduler(str(path), ["at=0.5"], PLUGINS).value == After(5, at=0.5)


@pytest.mark.parametrize(
    ("text", "pairs", "said"),
    [
        ("platoe", [], "no scheduler is called 'platoe'; did you mean 'plateau'?"),
        ("plateau", ["stepz=1"], "has no option 'stepz'; did you mean 'steps'?"),
        ("plateau", ["steps"], "the option 'steps' has no value; write name=value"),
        (
            "plateau",
            ["steps=0"],
            "(risen-plugin 0.1.0): steps is 0; least is 1",
        ),
        ("budget", ["seconds=1", "scheduler.steps=2"], "add -o scheduler=NAME"),
        ("mine.py", [], "'mine.py' names no scheduler in it; write mine.py:NAME"),
        ("mine.py:Mine", [], "there is no file 'mine.py'"),
        ("risen.yaml", [], "cannot read risen.yaml: No such file or directory"),
    ],
)
def test_what_names_no_scheduler_is_told_in_one_line(
    text: str, pairs: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        named_scheduler(text, pairs, PLUGINS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


INSIDE = """
from risen_plugin import Scheduler

class Gentler:
    def __init__(self, scheduler: Scheduler):
        self.scheduler = scheduler

    def __call__(self, progress):
        return self.scheduler(progress)

class Unsaid(Gentler):
    def __init__(self, scheduler):
        self.scheduler = scheduler
"""


def test_options_inside_options_are_composed_for_a_place_in_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("inside.py").write_text(INSIDE)
    pairs = ["scheduler=after", "scheduler.steps=5"]
    assert named_scheduler("inside.py:Gentler", pairs, PLUGINS).value.scheduler == After(5)
    with pytest.raises(ConfigError) as caught:
        named_scheduler("inside.py:Gentler", pairs[:1], PLUGINS)
    assert "'Gentler' (inside.py): scheduler: scheduler 'after'" in str(caught.value)
    assert "needs the option 'steps'" in str(caught.value)
    with pytest.raises(ConfigError, match=r"'scheduler' is given a plugin .* no annotation"):
        named_scheduler("inside.py:Unsaid", pairs, PLUGINS)


def test_a_configuration_names_a_scheduler_by_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("placed.py").write_text(INSIDE)
    wanted = {"use": "placed.py:Gentler", "options": {"scheduler": {"use": "plateau"}}}
    Path("risen.yaml").write_text(yaml.safe_dump({"risen": {"scheduler": wanted}}))
    assert named_scheduler("risen.yaml", [], PLUGINS).value.scheduler == Plateau()


@pytest.mark.parametrize(
    ("name", "pairs", "said"),
    [
        ("Mien", [], "has no 'Mien'; did you mean 'Mine'?"),
        ("made", ["steps=1"], "is a scheduler already and takes no options"),
        ("Mine", ["stpes=1"], "has no option 'stpes'; did you mean 'steps'?"),
        ("FIVE", [], "scheduler 'FIVE' (mine_bad.py) cannot be called"),
    ],
)
def test_what_is_no_scheduler_in_a_file_is_told_in_one_line(
    name: str, pairs: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine_bad.py").write_text(FILE + "\nFIVE = 5\n")
    with pytest.raises(ConfigError) as caught:
        named_scheduler(f"mine_bad.py:{name}", pairs, PLUGINS)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1", "is not valid YAML"),
        ("rewards: []", "has no 'scheduler'"),
        ("scheduler: 5", "scheduler is 5; it is {use: NAME"),
        ("scheduler: {use: after, stpes: 5}", "scheduler has no key 'stpes'"),
        ("scheduler: {use: after, options: 5}", "scheduler.options is not a mapping"),
        ("scheduler: {use: aftr}", "did you mean 'after'?"),
    ],
)
def test_a_file_without_a_scheduler_is_told_in_one_line(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "risen.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        named_scheduler(str(path), [], PLUGINS)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
