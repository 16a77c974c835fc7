"""Checkpoints as files: whole, cut off, damaged, and those that are none of ours."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from risen_plugin.kit.files import damage, publishing
from risen_plugin.record.checkpoints import Checkpoints, damage_of, is_ours


def written(folder: Path, step: int, *, weights: str = "weights", ours: bool = True) -> Path:
    """A checkpoint as the Trainer writes it in place, completed by RISEN or not."""
    checkpoints = Checkpoints(folder)
    if ours:
        checkpoints.announce(step)
    place = checkpoints.folder_of(step)
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.safetensors").write_text(weights)
    (place / "optimizer.pt").write_text("moments")
    (place / "trainer_state.json").write_text("{}")
    if ours:
        checkpoints.complete(step, {"step": step, "weights": weights})
    return place


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "risen")


def test_a_completed_checkpoint_is_whole_and_stays(tmp_path: Path) -> None:
    place = written(tmp_path, 2)
    assert is_ours(place)
    assert damage_of(place) is None
    assert Checkpoints(tmp_path).mend() == []
    assert names(tmp_path) == ["checkpoint-2"]
    assert not (tmp_path / "risen" / "saving.json").exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("model.safetensors", "model.safetensors is not what was written"),
        ("risen/state.json", "risen/state.json is not what was written"),
        ("risen/manifest.json", "manifest.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_by_name_and_the_one_before_it_found(
    file: str, said: str, tmp_path: Path
) -> None:
    written(tmp_path, 2)
    place = written(tmp_path, 4)
    content = (place / file).read_text()
    (place / file).write_text(content.replace(content[-4], "~"))
    [line] = Checkpoints(tmp_path).mend()
    assert line.startswith(f"{place} is damaged ({said}")
    assert line.endswith("is damaged-checkpoint-4 now; checkpoint-2 is the newest before it")
    assert names(tmp_path) == ["checkpoint-2", "damaged-checkpoint-4"]


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    place = written(tmp_path, 2)
    (place / "optimizer.pt").unlink()
    assert damage_of(place) == "optimizer.pt is missing"


def test_a_checkpoint_that_was_announced_and_not_completed_is_set_aside(tmp_path: Path) -> None:
    written(tmp_path, 2)
    Checkpoints(tmp_path).announce(4)
    written(tmp_path, 4, ours=False)
    [line] = Checkpoints(tmp_path).mend()
    assert "checkpoint-4 was not written to its end and is incomplete-checkpoint-4 now" in line
    assert names(tmp_path) == ["checkpoint-2", "incomplete-checkpoint-4"]
    assert Checkpoints(tmp_path).mend() == []


def test_a_checkpoint_of_a_run_without_risen_is_never_touched(tmp_path: Path) -> None:
    written(tmp_path, 2)
    written(tmp_path, 4, ours=False)
    assert Checkpoints(tmp_path).mend() == []
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-4"]


@pytest.mark.parametrize("moment", ["announced", "begun", "written"])
def test_a_checkpoint_that_is_written_over_comes_back_if_the_new_one_is_cut_off(
    moment: str, tmp_path: Path
) -> None:
    place = written(tmp_path, 2, weights="old")
    Checkpoints(tmp_path).announce(2)
    if moment != "announced":
        place.mkdir()
        (place / "model.safetensors").write_text("new")
    if moment == "written":
        (place / "trainer_state.json").write_text("{}")
    Checkpoints(tmp_path).mend()
    assert (place / "model.safetensors").read_text() == "old"
    assert damage_of(place) is None


def test_a_checkpoint_that_is_written_over_to_the_end_replaces_the_old_one(tmp_path: Path) -> None:
    written(tmp_path, 2, weights="old")
    place = written(tmp_path, 2, weights="new")
    assert Checkpoints(tmp_path).mend() == []
    assert (place / "model.safetensors").read_text() == "new"
    assert names(tmp_path) == ["checkpoint-2"]


def test_checkpoints_after_the_one_that_is_gone_back_to_are_set_aside(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        written(tmp_path, step, ours=step != 6)
    [line] = Checkpoints(tmp_path).leave_after(2)
    assert line.endswith("is later than what the run goes on from: abandoned-checkpoint-4 now")
    assert names(tmp_path) == ["abandoned-checkpoint-4", "checkpoint-2", "checkpoint-6"]


def test_an_announcement_that_nothing_came_of_is_taken_back(tmp_path: Path) -> None:
    place = written(tmp_path, 2)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.announce(2)
    assert not place.exists()
    checkpoints.withdraw()
    assert damage_of(place) is None
    assert not (tmp_path / "risen" / "saving.json").exists()


def test_a_rewritten_checkpoint_shares_what_did_not_change(tmp_path: Path) -> None:
    place = written(tmp_path, 2, weights="before the phase")
    with Checkpoints(tmp_path).rewriting(2, {"pending": None}) as folder:
        assert sorted(path.name for path in folder.iterdir()) == [
            "optimizer.pt",
            "trainer_state.json",
        ]
        assert os.path.samefile(folder / "optimizer.pt", place / "optimizer.pt")
        (folder / "model.safetensors").write_text("after it")
    assert damage_of(place) is None
    assert (place / "model.safetensors").read_text() == "after it"
    assert json.loads((place / "risen" / "state.json").read_text()) == {"pending": None}
    assert names(tmp_path) == ["checkpoint-2"]


def test_a_rewriting_that_fails_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    place = written(tmp_path, 2)
    with pytest.raises(OSError, match="full"), Checkpoints(tmp_path).rewriting(2, {}):
        raise OSError("full")
    assert damage_of(place) is None
    assert names(tmp_path) == ["checkpoint-2"]


def test_a_folder_is_published_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "step-1"
    with publishing(place) as folder:
        (folder / "a").write_text("1")
        assert not place.exists()
    assert damage(place) is None
    with pytest.raises(FileNotFoundError), publishing(place) as folder:
        (folder / "a").rename(folder / "b")
    assert (place / "a").read_text() == "1"
    assert [path.name for path in place.parent.iterdir()] == ["step-1"]


def test_a_note_that_cannot_be_read_hinders_nobody(tmp_path: Path) -> None:
    written(tmp_path, 2)
    (tmp_path / "risen" / "saving.json").write_text('{"st')
    assert Checkpoints(tmp_path).mend() == []
    assert names(tmp_path) == ["checkpoint-2"]
