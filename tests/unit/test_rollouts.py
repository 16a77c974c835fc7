"""A phase's answers are logged whole, whatever is in them, and read back as a stream."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.builtin.rewards import Constraints
from risen_plugin.constraints.judging import counts_by_constraint
from risen_plugin.contracts import Failed
from risen_plugin.errors import DataError, RecordError
from risen_plugin.kit.jsonable import json_text
from risen_plugin.record.rollouts import (
    Rollout,
    RolloutLog,
    logged_rewards,
    read_rollouts,
    reason_of,
    rollout_files,
)
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.scores import kind_of

CHAT = [{"role": "user", "content": "Name a river."}]
ANSWERS = [[{"role": "assistant", "content": text}] for text in ("Rhine", "Elbe", "Po", "")]


def place(run: Path, phase: int = 1) -> Path:
    return run / "risen" / f"phase-{phase:03d}" / "completions.parquet"


def log_batch(log: RolloutLog, **changes: Any) -> None:
    """A batch as GRPO hands it to rewards: four answers to each of one chat prompt."""
    batch: dict[str, Any] = {
        "step": 1,
        "prompts": [CHAT] * 4,
        "completions": ANSWERS,
        "columns": {"answer": ["Rhine"] * 4, "kwargs": [[{"num_words": 3}]] * 4},
        "scores": {"exact": [1.0, 0.0, None, Failed("timed out")]},
    }
    phase = changes.pop("phase", 1)
    log.add(Batch(**batch | changes), phase=phase)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose two phases have logged two batches each."""
    for phase in (1, 2):
        with RolloutLog(place(tmp_path, phase)) as log:
            for step in (1, 2):
                log_batch(log, phase=phase, step=step)
    return tmp_path


# Writing and reading back


def test_a_chat_batch_comes_back_as_it_was_logged(run):
    first, *_, last = read_rollouts(run)
    assert (first.phase, first.step, first.group) == (1, 1, 0)
    assert (first.prompt, first.completion) == (CHAT, ANSWERS[0])
    assert first.columns == {"answer": "Rhine", "kwargs": [{"num_words": 3}]}
    assert first.outcomes == {"exact": 1.0}
    assert (last.phase, last.step, last.group) == (2, 2, 1)


def test_a_text_batch_comes_back_as_it_was_logged(tmp_path):
    text = 'Zoë said:\n"你好"\t\\ \x00'
    with RolloutLog(tmp_path / "log.parquet") as log:
        log_batch(log, prompts=["Name a river."] * 4, completions=[text, "", " ", "Po"])
    rollouts = list(read_rollouts(tmp_path / "log.parquet"))
    assert [rollout.prompt for rollout in rollouts] == ["Name a river."] * 4
    assert [rollout.completion for rollout in rollouts] == [text, "", " ", "Po"]


def test_score_abstention_and_error_are_kept_apart(run):
    outcomes = [rollout.outcomes["exact"] for rollout in read_rollouts(run, phase=1)][:4]
    assert outcomes[:3] == [1.0, 0.0, None]
    assert isinstance(outcomes[3], Failed)
    assert outcomes[3].reason == "timed out"


@pytest.mark.parametrize(
    ("outcome", "name", "reason"),
    [
        (0.0, "score", None),
        (-2, "score", None),
        (None, "abstain", None),
        (Failed("down"), "error", "down"),
        (math.nan, "error", "the score is nan"),
        (math.inf, "error", "the score is inf"),
    ],
)
def test_an_outcome_has_a_name_and_an_error_a_reason(outcome, name, reason):
    assert (kind_of(outcome), reason_of(outcome)) == (name, reason)


def test_the_columns_are_those_that_the_reference_names(run):
    schema = pq.read_schema(place(run))
    assert {field.name: str(field.type) for field in schema} == {
        "phase": "int32",
        "step": "int32",
        "group": "int64",
        "prompt": "string",
        "completion": "string",
        "columns": "string",
        "family": "string",
        "constraints": "list<element: string>",
        "met": "list<element: bool>",
        "completion_ids": "list<element: int32>",
        "score/exact": "double",
        "outcome/exact": "string",
        "error/exact": "string",
    }


def test_the_reward_and_the_log_agree_on_the_text_that_was_asked(tmp_path):
    chat = [
        {"role": "system", "content": "You answer at a desk."},
        {"role": "user", "content": "Name a river."},
        {"role": "assistant", "content": "Rhine"},
        {"role": "user", "content": "Repeat the request. Then answer."},
    ]
    texts = ["Repeat the request. Then answer. The Po", "The Po"]
    answers = [[{"role": "assistant", "content": text}] for text in texts]
    columns = {"instruction_id_list": [["combination:repeat_prompt"]] * 2, "kwargs": [[{}]] * 2}
    scores = Constraints()(prompts=[chat] * 2, completions=answers, **columns)
    assert scores == [1.0, 0.0]
    with RolloutLog(tmp_path / "log.parquet") as log:
        log.add(Batch(1, [chat] * 2, answers, columns, {"constraints": scores}), phase=1)
    table = pq.read_table(tmp_path / "log.parquet").to_pydict()
    assert table["met"] == [[True], [False]]
    rows = [{"prompt": chat, **{name: of[0] for name, of in columns.items()}}] * 2
    assert counts_by_constraint(rows, answers) == {"combination:repeat_prompt": (1, 2)}


def test_what_became_of_each_constraint_stands_beside_the_answer(tmp_path):
    columns = {
        "family": ["river", "river", "", None],
        "instruction_id_list": [
            ["punctuation:no_comma", "change_case:english_lowercase"],
            ["punctuation:no_comma"],
            ["no:such_constraint"],
            [],
        ],
        "kwargs": [[{}, {}], [{}], [{}], []],
    }
    with RolloutLog(tmp_path / "log.parquet") as log:
        log_batch(log, columns=columns)
    table = pq.read_table(tmp_path / "log.parquet").to_pydict()
    assert table["family"] == ["river", "river", None, None]
    assert table["constraints"] == columns["instruction_id_list"]
    assert table["met"] == [[True, False], [True], None, None]


def test_a_log_that_finds_no_room_is_left_out_whole(tmp_path, monkeypatch):
    log = RolloutLog(tmp_path / "log.parquet", rows_at_once=4)
    log_batch(log)
    writer = log._writer

    class Full:
        def write_table(self, table):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            writer.close()

    log._writer = Full()
    with pytest.raises(RecordError, match="No space left on device"):
        log_batch(log)
    log_batch(log)  # is dropped
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_the_error_column_says_why_and_is_null_elsewhere(run):
    table = pq.read_table(place(run)).slice(0, 4).to_pydict()
    assert table["outcome/exact"] == ["score", "score", "abstain", "error"]
    assert table["score/exact"] == [1.0, 0.0, None, None]
    assert table["error/exact"] == [None, None, None, "timed out"]


def test_what_trl_adds_and_what_is_no_list_is_no_column(tmp_path):
    columns = {
        "answer": ["Po"] * 4,
        "completion_ids": [[1]] * 4,
        "trainer_state": object(),
        "log_extra": print,
        "log_metric": print,
        "short": ["a"],
    }
    with RolloutLog(tmp_path / "log.parquet") as log:
        log_batch(log, columns=columns)
    first = next(read_rollouts(tmp_path / "log.parquet"))
    assert first.columns == {"answer": "Po"}
    assert first.completion_ids == [1], "it has a place of its own, for rewards that score again"


class Unspeakable:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def endless() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (math.nan, "nan"),
        ({1: {"a"}, None: (2, 3)}, {"1": ["a"], "None": [2, 3]}),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (np.int64(7), 7),
        (object, "<class 'object'>"),
        (Unspeakable(), "<Unspeakable whose repr raised RuntimeError>"),
        ("half \ud83d", "half \ud83d"),
        ({"half \ud83d": 1}, {"half \ud83d": 1}),
        (b"raw", "b'raw'"),
    ],
)
def test_what_is_no_json_is_told_and_stops_nothing(tmp_path, value, told):
    with RolloutLog(tmp_path / "log.parquet") as log:
        log_batch(log, columns={"odd": [value] * 4})
    assert next(read_rollouts(tmp_path / "log.parquet")).columns == {"odd": told}


def test_an_endless_value_ends():
    assert len(json_text(endless())) < 2000


def test_a_long_repr_is_cut():
    assert len(json_text(b"x" * 100_000)) < 2000


def test_an_array_of_a_whole_image_is_told_in_short():
    assert len(json_text(np.zeros((512, 512, 3)))) < 2000


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_is_json_comes_back_as_it_was(value):
    if "Infinity" not in json.dumps(value):
        assert json.loads(json_text(value)) == value


def test_a_reason_that_is_no_utf8_is_logged_too(tmp_path):
    with RolloutLog(tmp_path / "log.parquet") as log:
        log_batch(log, scores={"exact": [Failed("half \ud83d")] * 4})
    outcome = next(read_rollouts(tmp_path / "log.parquet")).outcomes["exact"]
    assert isinstance(outcome, Failed)
    assert outcome.reason == "half ?"


# Groups


@pytest.mark.parametrize(
    ("prompts", "size", "groups"),
    [
        ("aabb", None, [0, 0, 1, 1]),
        ("aaaa", None, [0, 0, 0, 0]),
        ("aaaa", 2, [0, 0, 1, 1]),
        ("abab", None, [0, 1, 2, 3]),
    ],
)
def test_the_answers_to_one_visit_of_a_prompt_share_a_number(tmp_path, prompts, size, groups):
    with RolloutLog(tmp_path / "log.parquet") as log:
        log_batch(log, prompts=list(prompts), group=size)
        log_batch(log, prompts=list(prompts), group=size)
    found = [rollout.group for rollout in read_rollouts(tmp_path / "log.parquet")]
    assert found == [*groups, *(group + groups[-1] + 1 for group in groups)]


# When the file appears


def test_the_file_appears_whole_when_the_log_is_closed(tmp_path):
    log = RolloutLog(tmp_path / "phase-001" / "completions.parquet", rows_at_once=2)
    log_batch(log)
    assert not log.path.exists()
    log.close()
    log.close()
    assert [path.name for path in log.path.parent.iterdir()] == ["completions.parquet"]
    assert len(list(read_rollouts(log.path))) == 4


def fail_after_a_batch(path: Path) -> None:
    with RolloutLog(path) as log:
        log_batch(log)
        raise KeyError("the phase failed")


def test_what_was_logged_before_a_failure_is_kept(tmp_path):
    with pytest.raises(KeyError, match="the phase failed"):
        fail_after_a_batch(tmp_path / "log.parquet")
    assert len(list(read_rollouts(tmp_path / "log.parquet"))) == 4


def test_a_log_without_answers_leaves_no_file(tmp_path):
    with RolloutLog(tmp_path / "log.parquet"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_phase_that_runs_again_replaces_its_log(tmp_path):
    for step in (1, 2):
        with RolloutLog(tmp_path / "log.parquet") as log:
            log_batch(log, step=step)
    assert {rollout.step for rollout in read_rollouts(tmp_path / "log.parquet")} == {2}


def test_memory_holds_one_row_group(tmp_path):
    with RolloutLog(tmp_path / "log.parquet", rows_at_once=4) as log:
        for _ in range(5):
            log_batch(log)
            assert log._rows == []
    assert pq.ParquetFile(tmp_path / "log.parquet").num_row_groups == 5


def test_a_place_that_takes_no_file_is_told_in_one_line(tmp_path):
    (tmp_path / "risen").write_text("a file, no folder")
    log = RolloutLog(tmp_path / "risen" / "log.parquet", rows_at_once=1)
    with pytest.raises(RecordError, match=r"^cannot write to .*risen: "):
        log_batch(log)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prompts": [CHAT] * 3}, "3 of 'prompts' for 4 completions"),
        ({"scores": {"exact": [1.0]}}, "1 of 'exact' for 4 completions"),
        ({"scores": {"other": [1.0] * 4}}, "the rewards other in a log of exact"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(tmp_path, changes, match):
    with RolloutLog(tmp_path / "log.parquet") as log:
        log_batch(log)
        with pytest.raises(ValueError, match=match):
            log_batch(log, **changes)


# Reading


def test_a_run_a_phase_and_a_file_are_read_alike(run):
    assert len(list(read_rollouts(run))) == 16
    assert len(list(read_rollouts(run / "risen"))) == 16
    one = [rollout.group for rollout in read_rollouts(place(run).parent)]
    assert one == [rollout.group for rollout in read_rollouts(place(run))]
    assert [rollout.phase for rollout in read_rollouts(run, phase=2)] == [2] * 8


def test_phases_come_in_the_order_of_their_numbers(tmp_path):
    for phase in (1000, 2, 999):
        with RolloutLog(place(tmp_path, phase)) as log:
            log_batch(log, phase=phase)
    found = [path.parent.name for path in rollout_files(tmp_path)]
    assert found == ["phase-002", "phase-999", "phase-1000"]


def test_a_rollout_says_where_it_stands(run):
    rollouts = list(read_rollouts(run))
    assert rollouts[0].where == f"{place(run)}, row 1"
    assert rollouts[15].where == f"{place(run, 2)}, row 8"


def test_the_logged_rewards_are_named_once(run):
    assert logged_rewards(run) == ("exact",)


def test_rollouts_are_read_as_a_stream(tmp_path):
    with RolloutLog(tmp_path / "log.parquet", rows_at_once=4) as log:
        for _ in range(3):
            log_batch(log)
    stream: Iterator[Rollout] = read_rollouts(tmp_path / "log.parquet")
    assert iter(stream) is stream
    assert next(stream).where.endswith("row 1")


def write_table(path: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_missing_run_is_one_line_with_the_near_miss(run):
    with pytest.raises(DataError, match=rf"no run or rollout log '.*'; did you mean '{run}'"):
        read_rollouts(run.with_name(run.name + "x"))


def test_a_missing_folder_is_said_to_be_missing(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder '.*gone' either"):
        read_rollouts(tmp_path / "gone" / "run")


def test_a_run_without_a_log_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match="has no rollouts: there is no risen/phase-NNN/"):
        read_rollouts(tmp_path)


def test_a_phase_that_was_not_logged_is_told_with_those_that_were(run):
    with pytest.raises(DataError, match="no rollouts of phase 3; it has: phase-001, phase-002"):
        read_rollouts(run, phase=3)


def test_a_file_of_another_kind_is_told_in_one_line(tmp_path):
    path = tmp_path / "notes.parquet"
    path.write_text("not parquet at all, but long enough to look at")
    with pytest.raises(DataError, match=r"^'.*notes.parquet' is no rollout log: [^\n]+$"):
        read_rollouts(path)


def test_a_table_of_other_columns_is_told_by_what_it_lacks(tmp_path):
    path = write_table(tmp_path / "other.parquet", phases=[1], step=[1])
    with pytest.raises(DataError, match="lacks the column 'phase'; did you mean 'phases'"):
        read_rollouts(path)


def test_half_a_reward_is_told_by_what_it_lacks(run):
    table = pq.read_table(place(run))
    pq.write_table(table.drop_columns(["score/exact"]), place(run))
    with pytest.raises(DataError, match="lacks the column 'score/exact' beside 'outcome/exact'"):
        read_rollouts(place(run))


@pytest.mark.parametrize(("column", "value"), [("prompt", "no json"), ("columns", "3")])
def test_a_damaged_row_is_named(run, column, value):
    rows = pq.read_table(place(run)).to_pylist()
    rows[2][column] = value
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(place(run))), place(run))
    with pytest.raises(DataError, match=r"completions.parquet, row 3 is damaged: "):
        list(read_rollouts(place(run)))
