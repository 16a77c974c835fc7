"""What is chosen from scored answers, how it is held, and what a burst is mixed of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from risen_plugin.commands.unsolved import unsolved_command
from risen_plugin.config import BuffersConfig, GuardConfig, TaskProbe
from risen_plugin.config.choices import Grading
from risen_plugin.contracts import Failed
from risen_plugin.errors import ConfigError, DataError, RecordError, RisenError
from risen_plugin.instructions.rows import key_of
from risen_plugin.phases.leftovers.buffers import Buffers, refusal
from risen_plugin.phases.leftovers.findings import (
    Moment,
    Unmet,
    Unsolved,
    Verified,
    VerifiedAnswers,
    select,
)
from risen_plugin.phases.leftovers.journal import Journal, Position, read_journal
from risen_plugin.phases.leftovers.mixing import load_demonstrations, mix
from risen_plugin.rewards.batch import Batch
from risen_plugin.rewards.calling import wrap

CHECK = wrap(lambda **_: [], "check", "reward 'check'")
STYLE = wrap(lambda **_: [], "style", "reward 'style'", Grading(graded=False, weight=0.1))
NOW = Moment(phase=2, step=3, at_step=40)


def chosen(
    check: Sequence[float | None],
    style: Sequence[float | None] | None = None,
    *,
    answers: Sequence[str] | None = None,
    band: tuple[float, float] = (0.0, 1.0),
    **columns: Any,
) -> Any:
    """The findings of one group of answers to one prompt."""
    count = len(check)
    batch = Batch(
        NOW.step,
        ["Which day?"] * count,
        list(answers or [f"answer {index}" for index in range(count)]),
        {"family": ["days"] * count, "completion_ids": [[1]] * count, **columns},
        {"check": list(check), "style": list(style or [0.0] * count)},
        [CHECK, STYLE],
        group=count,
    )
    return select(batch, band=band, key_of=key_of, moment=NOW)


def verified(prompt: str, total: float = 1.0, *, family: str = "a", text: str = "") -> Verified:
    return Verified(
        prompt, prompt, text or f"to {prompt}", family, {"check": 1.0}, total, 1, 4, **vars(NOW)
    )


def unmet(prompt: str, total: float = 0.0) -> Unmet:
    return Unmet(
        prompt, {"prompt": prompt, "family": "a"}, "no", {"check": 0.0}, total, **vars(NOW)
    )


# Selection


def test_the_verified_answer_with_the_largest_total_is_chosen_with_its_provenance() -> None:
    [best] = chosen([1.0, 0.0, 1.0, 1.0], [0.2, 9.0, 0.7, 0.5]).verified
    assert best.completion == "answer 2"
    assert (best.passed, best.of) == (3, 4)
    assert (best.phase, best.step, best.at_step) == (2, 3, 40)
    assert best.scores == {"check": 1.0, "style": 0.7}
    assert best.total == pytest.approx(1.07)
    assert best.family == "days"


@pytest.mark.parametrize(
    ("check", "band", "kept"),
    [
        ([1.0, 0.0, 0.0, 0.0], (0.0, 0.5), True),
        ([1.0, 1.0, 0.0, 0.0], (0.0, 0.5), True),  # the upper end belongs to the band
        ([1.0, 1.0, 1.0, 0.0], (0.0, 0.5), False),
        ([1.0, 0.0, 0.0, 0.0], (0.25, 0.5), False),  # the lower end does not
        ([1.0, 1.0, 1.0, 1.0], (0.0, 1.0), True),
        ([1.0, Failed("down"), None, None], (0.0, 0.5), False),  # one of one that was judged
    ],
)
def test_only_groups_in_the_band_are_chosen_from(
    check: list[float | None], band: tuple[float, float], kept: bool
) -> None:
    found = chosen(check, band=band)
    assert bool(found.verified) is kept
    assert found.solved == [key_of("Which day?")]
    assert not found.unmet


@pytest.mark.parametrize(
    ("check", "counts"),
    [
        ([0.0, 0.5, 0.0, 0.0], True),
        ([0.0, Failed("down"), 0.0, 0.0], False),
        ([0.0, None, 0.0, 0.0], False),
        ([None, None, None, None], False),
    ],
)
def test_a_group_counts_as_unmet_only_if_every_answer_was_judged_and_failed(
    check: list[float | None], counts: bool
) -> None:
    found = chosen(check, text=["row"] * 4)
    assert bool(found.unmet) is counts
    assert not found.verified
    assert not found.solved
    if counts:
        assert found.unmet[0].completion == "answer 1"
        assert found.unmet[0].row == {"prompt": "Which day?", "family": "days", "text": "row"}


def test_an_answer_that_trips_a_wire_is_never_the_best() -> None:
    answers = ["On Monday, it says.", "[your name] writes: Monday", "p p p p p", "On Tuesday."]
    [best] = chosen([1.0, 1.0, 1.0, 0.0], [0.0, 5.0, 5.0, 0.0], answers=answers).verified
    assert best.completion == answers[0]


# Holding


def test_a_better_or_newer_answer_to_the_same_instruction_takes_the_place_of_the_old() -> None:
    kept = VerifiedAnswers(10)
    assert kept.add(verified("p", 1.0, text="first"))
    assert kept.add(verified("p", 1.0, text="second"))
    assert not kept.add(verified("p", 0.5, text="worse"))
    assert [answer.completion for answer in kept] == ["second"]


@pytest.mark.parametrize(
    ("added", "gone"),
    [
        ([("p", "a", ""), ("q", "a", ""), ("r", "b", "")], "p"),  # the oldest of the largest family
        ([("p", "b", ""), ("q", "a", ""), ("r", "a", "")], "q"),
        ([("p", "a", ""), ("q", "a", "Yes."), ("r", "a", "yes.")], "q"),  # what is said twice
    ],
)
def test_the_oldest_of_the_most_redundant_goes_first(
    added: list[tuple[str, str, str]], gone: str
) -> None:
    kept = VerifiedAnswers(2)
    for prompt, family, text in added:
        kept.add(verified(prompt, family=family, text=text))
    assert gone not in {answer.prompt for answer in kept}
    assert (len(kept), kept.evicted) == (2, 1)


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xy"), st.floats(0.0, 2.0))),
    st.integers(0, 5),
)
def test_no_more_is_held_than_fits_and_nothing_twice(
    added: list[tuple[str, str, float]], largest: int
) -> None:
    kept = VerifiedAnswers(largest)
    for prompt, family, total in added:
        kept.add(verified(prompt, total, family=family))
        assert len(kept) <= largest
        prompts = [answer.prompt for answer in kept]
        assert len(set(prompts)) == len(prompts)


def test_an_instruction_is_unsolved_after_so_many_visits_until_somebody_solves_it() -> None:
    unsolved = Unsolved(after=2)
    unsolved.failed(unmet("p", 0.5))
    assert len(unsolved) == 0
    unsolved.failed(unmet("p", 0.1))
    unsolved.failed(unmet("q"))
    assert [tried.best.key for tried in unsolved] == ["p"]
    [tried] = unsolved
    assert (tried.visits, tried.best.total, tried.last.total) == (2, 0.5, 0.1)
    unsolved.solve("p")
    unsolved.solve("q")
    assert (len(unsolved), unsolved.solved) == (0, 1)
    unsolved.failed(unmet("p"))
    assert len(unsolved) == 0, "it counts anew once it was solved"


def test_no_more_instructions_are_remembered_than_fit_and_the_often_tried_stay() -> None:
    unsolved = Unsolved(after=1, most=8)
    for prompt in ("often", *(f"p{index}" for index in range(7)), "often", "one too many"):
        unsolved.failed(unmet(prompt))
    assert [tried.best.key for tried in unsolved] == [
        "often",
        *(f"p{index}" for index in range(2, 7)),
        "one too many",
    ]


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.booleans())), st.integers(1, 3))
def test_the_number_of_unsolved_instructions_is_always_how_many_there_are(
    asked: list[tuple[str, bool]], after: int
) -> None:
    unsolved = Unsolved(after, most=6)
    for prompt, solved in asked:
        if solved:
            unsolved.solve(prompt)
        else:
            unsolved.failed(unmet(prompt))
        assert len(unsolved) == len(list(unsolved))


# Mixing


def rows(kind: str, count: int) -> list[dict[str, str]]:
    return [{"prompt": f"{kind} {index}", "completion": "x"} for index in range(count)]


@pytest.mark.parametrize(
    ("own", "written", "share", "expected"),
    [
        (10, 10, 0.5, (8, 8)),
        (10, 10, 0.25, (4, 12)),
        (10, 10, 0.0, (0, 16)),
        (3, 0, 0.0, (16, 0)),  # the other fills its place
        (0, 3, 1.0, (0, 16)),
    ],
)
def test_a_burst_is_mixed_in_the_share_asked_for(
    own: int, written: int, share: float, expected: tuple[int, int]
) -> None:
    mixture = mix(rows("own", own), rows("demo", written), count=16, own_share=share, seed=1)
    assert (mixture.own, mixture.demonstrations) == expected
    kinds = [row["prompt"].split()[0] for row in mixture.rows]
    assert (kinds.count("own"), kinds.count("demo")) == expected


def test_every_row_is_taken_once_before_any_is_taken_again_and_the_seed_decides_the_order() -> None:
    own = rows("own", 5)
    taken = [row["prompt"] for row in mix(own, [], count=10, own_share=1.0, seed=1).rows]
    assert sorted(taken[:5]) == sorted(taken[5:]) == sorted(row["prompt"] for row in own)
    again = [row["prompt"] for row in mix(own, [], count=10, own_share=1.0, seed=1).rows]
    other = [row["prompt"] for row in mix(own, [], count=10, own_share=1.0, seed=2).rows]
    assert taken == again != other


def test_nothing_is_mixed_of_nothing() -> None:
    assert mix([], [], count=4, own_share=0.5, seed=0).rows == ()


# The journal


def test_a_journal_is_cut_at_the_position_that_a_checkpoint_has(tmp_path: Path) -> None:
    path = tmp_path / "buffers.jsonl"
    first = Journal(path)
    first.take_up(Position())
    first.add("a", {"n": 1})
    first.commit()
    position = first.position
    first.add("b", {"n": 2})
    first.commit()

    again = Journal(path)
    assert again.take_up(position) == [{"kind": "a", "n": 1}]
    again.add("b", {"n": 2})
    again.commit()
    assert [line["kind"] for line in read_journal(path)] == ["a", "b"]
    assert again.position == first.position


def test_a_process_that_does_not_write_knows_the_same_position(tmp_path: Path) -> None:
    writer, other = Journal(tmp_path / "w.jsonl"), Journal(tmp_path / "o.jsonl", writes=False)
    for journal in (writer, other):
        journal.take_up(Position())
        journal.add("a", {"n": 1})
        journal.commit()
    assert writer.position == other.position
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "end at 20 bytes"),
        (lambda path: path.write_bytes(b"x" * 23), "are not those of the checkpoint"),
    ],
)
def test_a_journal_that_is_not_the_checkpoints_is_refused(
    spoil: Any, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "buffers.jsonl"
    journal = Journal(path)
    journal.take_up(Position())
    journal.add("a", {"n": 10})
    journal.commit()
    spoil(path)
    with pytest.raises(RecordError, match=told):
        Journal(path).take_up(journal.position)


def test_what_could_not_be_written_is_written_whole_once_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "buffers.jsonl"
    journal = Journal(path)
    journal.take_up(Position())
    journal.add("a", {})
    path.mkdir()
    with pytest.raises(RecordError, match="make room"):
        journal.commit()
    assert journal.position == Position(), "a checkpoint does not ask for what was not written"
    journal.add("b", {})
    path.rmdir()
    journal.commit()
    assert [line["kind"] for line in read_journal(path)] == ["a", "b"]


# The verdict on a phase


def phase(rise: float = 0.0, **more: float) -> dict[str, float]:
    """Metrics of a phase, by their names under ``guard/``."""
    told = {"probe_loss_before": 1.0, "probe_loss_after": 1.0 + rise, **more}
    return {f"guard/{name}": value for name, value in told.items()}


OLD = {"old": TaskProbe([{"prompt": []}], "x", max_drop=0.1)}


@pytest.mark.parametrize(
    ("accepted", "metrics", "guard", "told"),
    [
        (True, phase(9.0), GuardConfig(), None),
        (False, phase(0.05), GuardConfig(), None),  # dropped for too small a gain
        (False, phase(0.06), GuardConfig(), "lost on the probe"),
        (False, phase(math.nan), GuardConfig(), "lost on the probe"),
        (False, {"guard/probe_loss_before": 1.0}, GuardConfig(), "cut short"),
        (False, phase(trip_wire_rise=0.2), GuardConfig(max_trip_wire_rise=0.1), "trip wire rise"),
        (False, phase(trip_wire_rise=0.2), GuardConfig(), None),
        (False, phase(gap=0.2), GuardConfig(max_gap=0.1), "gap"),
        (False, phase(forward_kl=3.0), GuardConfig(max_forward_kl=0.5), "forward kl"),
        (False, phase(domain_drop=0.5), GuardConfig(domain="x", max_domain_drop=0.1), "domain"),
        (False, phase(**{"task/old_drop": 0.5}), GuardConfig(tasks=OLD), "task/old drop"),
    ],
)
def test_answers_of_a_phase_that_went_wrong_are_not_fine_tuned_on(
    accepted: bool, metrics: Mapping[str, float], guard: GuardConfig, told: str | None
) -> None:
    why = refusal(accepted, metrics, guard)
    assert why is None if told is None else told in (why or "")


def scored(
    buffers: Buffers, passed: Sequence[float], *, prompt: str = "p", number: int = 1
) -> None:
    count = len(passed)
    buffers.take(
        Batch(
            number,
            [prompt] * count,
            [f"{prompt} {number} {index}" for index in range(count)],
            {"family": ["a"] * count},
            {"check": list(passed)},
            [CHECK],
            group=count,
        )
    )


def test_answers_count_once_their_phase_was_judged() -> None:
    buffers = Buffers(BuffersConfig())
    buffers.begin(phase=1, at_step=10)
    scored(buffers, [1.0, 0.0, 0.0, 0.0])
    assert buffers.counts()["buffered"] == 0
    metrics = buffers.end(True, phase(), GuardConfig())
    assert buffers.counts()["buffered"] == metrics["buffers/new_answers"] == 1

    buffers.begin(phase=2, at_step=20)
    scored(buffers, [1.0, 0.0, 0.0, 0.0], prompt="q")
    metrics = buffers.end(False, phase(9.0), GuardConfig())
    assert (buffers.counts()["buffered"], metrics["buffers/new_answers"]) == (1, 0)


def test_held_out_instructions_are_never_fine_tuned_on() -> None:
    written = [{"prompt": "held out", "completion": "x"}, {"prompt": "free", "completion": "y"}]
    buffers = Buffers(BuffersConfig(demonstrations=written))

    def is_held_out(prompt: Any) -> bool:
        return bool(prompt == "held out")

    mixture = buffers.mixture(buffers.config, steps=2, seed=0, leave_out=is_held_out)
    assert {row["prompt"] for row in mixture.rows} == {"free"}
    assert buffers.lacking(is_held_out) is None
    assert "all 2 demonstrations are of held-out" in (buffers.lacking(lambda _: True) or "")


def test_a_full_disk_is_told_once_and_the_buffers_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    buffers = Buffers(BuffersConfig())
    place = tmp_path / "buffers.jsonl"
    buffers.write_to(place)
    place.mkdir()
    buffers.begin(phase=1, at_step=1)
    scored(buffers, [1.0, 0.0, 0.0, 0.0])
    buffers.end(True, phase(), GuardConfig())
    assert buffers.counts()["buffered"] == 1
    assert [r.message for r in caplog.records if "make room" in r.message] == [caplog.messages[0]]


# Demonstrations


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "p", "completion": "c", "visits": 3}, "c"),
        ({"prompt": "p", "completion": ""}, None),
        ({"prompt": "p", "completion": None}, None),
        (
            {"prompt": [{"role": "user", "content": "p"}], "completion": "c"},
            [{"role": "assistant", "content": "c"}],
        ),
        ({"prompt": "p", "completion": [{"role": "assistant", "content": "c"}]}, "c"),
    ],
)
def test_a_demonstration_takes_the_form_of_its_prompt_and_an_empty_one_is_still_to_be_written(
    row: dict[str, Any], expected: Any, tmp_path: Path
) -> None:
    path = tmp_path / "written.jsonl"
    path.write_text(json.dumps(row) + "\n\n", encoding="utf-8")
    for given_as in (path, [row]):
        found = load_demonstrations(given_as)
        assert [r["completion"] for r in found] == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "written.jsonl:1 is not JSON"),
        ("[]", "written.jsonl:1 is a list"),
        ('{"prompt": "p", "completoin": "c"}', "no 'completion'; did you mean 'completoin'?"),
        ('{"prompt": 3, "completion": "c"}', "prompt is 3; it is a text"),
        ('{"prompt": " ", "completion": "c"}', "prompt is empty"),
    ],
)
def test_what_is_no_demonstration_is_refused_with_its_line(
    line: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "written.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_demonstrations(path)
    assert told in str(caught.value)


def test_a_missing_file_of_demonstrations_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot read the demonstrations nowhere"):
        load_demonstrations("nowhere.jsonl")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"largest": -1}, "buffers.largest is -1; least is 0"),
        ({"band": (0.5, 0.5)}, "buffers.band is (0.5, 0.5); it is two shares"),
        ({"band": "all"}, "buffers.band is 'all'"),
        ({"band": (0.0, 0.5, 1.0)}, "it is two shares"),
        ({"unsolved_after": 0}, "least is 1"),
        ({"own_share": 1.5}, "it is a number from 0 to 1"),
        ({"learning_rate": "1e-4"}, "in YAML write 1.0e-4"),
        ({"demonstrations": 3}, "buffers.demonstrations is of type int"),
    ],
)
def test_a_configuration_that_no_run_can_use_is_refused(fields: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BuffersConfig(**fields)
    assert told in str(caught.value)


# risen unsolved


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder in which two instructions are unsolved, one twice tried and one thrice."""
    folder = tmp_path / "run"
    buffers = Buffers(BuffersConfig(unsolved_after=2))
    buffers.write_to(folder / "risen" / "buffers.jsonl")
    described = {"buffers": buffers.describe()}
    (folder / "risen").mkdir(parents=True)
    (folder / "risen" / "run.json").write_text(json.dumps(described), encoding="utf-8")
    buffers.begin(phase=1, at_step=10)
    for number, prompt in enumerate(
        ["hard", "harder", "hard", "harder", "harder", "solved", "new"]
    ):
        scored(buffers, [0.0, 0.5], prompt=prompt, number=number)
    scored(buffers, [1.0, 0.0], prompt="solved", number=8)
    return folder


def test_unsolved_instructions_are_written_for_a_person_and_read_back(
    run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "to-write.jsonl"
    done = CliRunner().invoke(unsolved_command, [str(run), "--output", str(path)])
    assert done.exit_code == 0, done.output
    written = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(row["prompt"], row["visits"]) for row in written] == [("harder", 3), ("hard", 2)]
    assert written[0]["best_answer"] == "harder 4 1"
    assert written[0]["columns"] == {"family": "a"}
    assert load_demonstrations(path) == []

    written[1]["completion"] = "A person's answer."
    path.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    assert [row["prompt"] for row in load_demonstrations(path)] == ["hard"]
    done = CliRunner().invoke(unsolved_command, [str(run), "--demonstrations", str(path)])
    assert "harder" in done.output
    assert "  hard\n" not in done.output


def test_unsolved_instructions_are_listed_without_obeying_them(run: Path) -> None:
    journal = run / "risen" / "buffers.jsonl"
    text = journal.read_text(encoding="utf-8").replace("harder", "\\u001b[2J\\u202e\\ud800 er")
    journal.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(unsolved_command, [str(run)])
    assert done.exit_code == 0, done.output
    assert "  \\u001b[2J\\u202e\\ud800 er\n" in done.output


def test_a_file_that_somebody_may_have_written_into_is_not_replaced(
    run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "to-write.jsonl"
    path.write_text("work of hours", encoding="utf-8")
    done = CliRunner().invoke(unsolved_command, [str(run), "-o", str(path)])
    assert isinstance(done.exception, RisenError)
    assert "is there already" in str(done.exception)
    assert path.read_text(encoding="utf-8") == "work of hours"


def test_a_live_run_is_read_up_to_its_last_whole_line(run: Path) -> None:
    journal = run / "risen" / "buffers.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"kind": "fai')
    done = CliRunner().invoke(unsolved_command, [str(run), "--json"])
    assert [json.loads(line)["prompt"] for line in done.output.splitlines()] == ["harder", "hard"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("rnu", "there is no run '"), ("empty", "has no record")],
)
def test_what_is_no_run_is_refused(run: Path, name: str, told: str) -> None:
    (run.parent / "empty").mkdir()
    done = CliRunner().invoke(unsolved_command, [str(run.parent / name)])
    assert told in str(done.exception)
    assert name != "rnu" or f"did you mean '{run}'?" in str(done.exception)
