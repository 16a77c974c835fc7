"""What messages suggest, and where they say that it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from risen_plugin.commands.train.folders import check_folder
from risen_plugin.errors import ConfigError, PluginError, located, near_miss, near_path
from risen_plugin.plugins.places import module_at


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("lenght", ["length", "regex"], "length"),
        ("trian.jsonl", ["train.jsonl", "probe.jsonl"], "train.jsonl"),
        ("train.json", ["train.jsonl"], "train.jsonl"),
        ("nope.jsonl", ["probe.jsonl", "train.jsonl"], None),
        ("missing.jsonl", ["bin.jsonl"], None),
        ("question", ["prompt", "completion"], None),
        ("anything", [], None),
    ],
)
def test_only_what_is_alike_is_suggested_and_an_ending_is_no_likeness(
    name: str, known: list[str], meant: str | None
) -> None:
    assert near_miss(name, known) == (f"; did you mean '{meant}'?" if meant else "")


def test_what_lies_beside_a_path_is_suggested_or_the_folder_is_missed(tmp_path: Path) -> None:
    (tmp_path / "trains").write_text("")
    (tmp_path / "train").mkdir()
    assert near_path(tmp_path / "trian") == f"; did you mean '{tmp_path / 'train'}'?"
    near = near_path(tmp_path / "trainss", folders=True)
    assert near == f"; did you mean '{tmp_path / 'train'}'?"
    assert near_path(tmp_path / "trains") == "", "it is there"
    missed = near_path(tmp_path / "no" / "train")
    assert missed == f"; there is no folder '{tmp_path / 'no'}' either"


def test_the_near_miss_of_a_path_is_a_path_that_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out" / "mine").mkdir(parents=True)
    assert near_path(Path("out/min")) == "; did you mean 'out/mine'?"
    assert near_path(Path("ouut")) == "; did you mean 'out'?"
    (tmp_path / "out" / "mine.py").write_text("")
    with pytest.raises(ConfigError, match=r"no file 'out/mien\.py'; did you mean 'out/mine\.py'\?"):
        module_at("out/mien.py")
    (tmp_path / "out" / "mine" / "run.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="did you mean 'out/mine'"):
        check_folder(Path("out/min"), resume=True)


def test_a_place_is_said_once_and_only_of_what_a_person_wrote() -> None:
    once = pytest.raises(ConfigError, match=r"^run\.yaml: data: no rows$")
    with once, located("run.yaml"), located("run.yaml"), located("data"):
        raise ConfigError("no rows")
    with pytest.raises(PluginError, match=r"^it broke$"), located("run.yaml"):
        raise PluginError("it broke")
