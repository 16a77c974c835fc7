"""What messages suggest, and where they say that it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from risen_plugin.errors import ConfigError, PluginError, located, near_miss, near_path


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
    assert near_path(tmp_path / "trian") == "; did you mean 'train'?"
    assert near_path(tmp_path / "trainss", folders=True) == "; did you mean 'train'?"
    assert near_path(tmp_path / "trains") == "", "it is there"
    missed = near_path(tmp_path / "no" / "train")
    assert missed == f"; there is no folder '{tmp_path / 'no'}' either"


def test_a_place_is_said_once_and_only_of_what_a_person_wrote() -> None:
    once = pytest.raises(ConfigError, match=r"^run\.yaml: data: no rows$")
    with once, located("run.yaml"), located("run.yaml"), located("data"):
        raise ConfigError("no rows")
    with pytest.raises(PluginError, match=r"^it broke$"), located("run.yaml"):
        raise PluginError("it broke")
