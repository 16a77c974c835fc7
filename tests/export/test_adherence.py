"""Held to instructions: a graph that follows fewer of them than its model does is not published."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from risen_export import Bundle, GateSettings, check, export
from risen_export.bundles.manifest import read as read_manifest
from risen_export.exporting import ExportResult
from risen_export.gate import adherence
from risen_export.gate.instructions import Instructions, gather, made_again
from risen_export.gate.limits import SURE, Limits, judge, loses_adherence
from risen_export.gate.measured import Measured
from risen_export.gate.settings import MOST_TOKENS
from risen_export.gate.verifying import verify_bundle
from risen_plugin.errors import ConfigError, DataError, ExportError, RisenError
from risen_plugin.record.held_out import HELD_OUT, write_held_out

ROWS = 8
GRADING = {"weight": 1.0, "passes_at": 1.0, "graded": True, "on_error": "stop", "timeout_s": None}
SAYS_SOMETHING = {"use": "regex", "options": {"pattern": "."}}
SILENCED = (
    r"strict adherence falls by [\d.]+, more than 0\.02, from [\d.]+ to 0 \(\d+ of 24 instructions "
    r"lost, 0 gained\)"
)
NO_LIMITS = {"agreement": 0, "kl_mean": None, "kl_p99": None, "perplexity": None, "golden": None}


def asked(name: str, count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": [{"role": "user", "content": f"{name} {index}?"}], "answer": "a"}
        for index in range(count)
    ]


def recorded(folder: Path, *rewards: Mapping[str, Any], rows: int = ROWS) -> Path:
    """The record of a run, as the callback writes it."""
    record = folder / "risen"
    record.mkdir(parents=True, exist_ok=True)
    description = {
        "format": 1,
        "plugins": {},
        "rewards": [{"name": f"r{i}", **GRADING, **one} for i, one in enumerate(rewards)],
        "grpo": {"max_completion_length": 6},
    }
    (record / "run.json").write_text(json.dumps(description))
    sets = {name: asked(name, rows) for name in ("guard", "report", "unseen")}
    write_held_out(record, sets)
    return folder


@pytest.fixture(scope="module")
def run(tied_model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run, whose one reward passes every answer that says something."""
    folder = tmp_path_factory.mktemp("run")
    tied_model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return recorded(folder, {"named": SAYS_SOMETHING})


@pytest.fixture(scope="module")
def exported(run: Path) -> ExportResult:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_HUB_OFFLINE", "1")
        patched.setenv("OMP_NUM_THREADS", "1")
        settings = GateSettings(golden=[{"prompt": "What do we sell?", "expected": ["lamps"]}])
        return export(run, run.with_name("bundle"), ("fp32", "int8"), gate=settings, progress=False)


def silenced(monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    """Have one variant follow nothing, and be right in all else."""
    answers = Bundle.generate_ids

    def generate_ids(self: Bundle, rows: Sequence[Sequence[int]], **more: Any) -> list[list[int]]:
        if self.path.name == variant and more.get("follow_settings", True):
            return [[] for _ in rows]
        return answers(self, rows, **more)

    monkeypatch.setattr(Bundle, "generate_ids", generate_ids)


# A run's graphs


@pytest.mark.slow
def test_the_graphs_of_a_run_are_held_to_its_held_out_instructions(exported: ExportResult) -> None:
    fp32, int8 = (one.measured for one in exported.precisions.values())
    assert fp32 is not None
    assert int8 is not None
    assert fp32.instructions == int8.instructions == 3 * ROWS
    assert fp32.adherence == fp32.adherence_reference == int8.adherence_reference
    assert fp32.adherence is not None
    assert fp32.adherence > 0.5
    assert exported.notes[:1] == (
        "the model itself answers 'What do we sell?' wrongly, so it judges no graph",
    )
    lines = (exported.path / "gate" / adherence.FILE).read_text().splitlines()
    head, *rows = map(json.loads, lines)
    assert head["max_new_tokens"] == 6
    assert head["rewards"][0]["named"] == SAYS_SOMETHING
    assert [one["row"] for one in rows[:ROWS]] == asked("guard", ROWS)
    assert sum(one["passed"] for one in rows) == round(fp32.adherence * 3 * ROWS)
    assert check(exported.path) == []
    assert f"gate/{adherence.FILE}" in (read_manifest(exported.path) or {})["files"]


@pytest.mark.slow
def test_verifying_asks_the_instructions_again(
    exported: ExportResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    silenced(monkeypatch, "int8")
    found = verify_bundle(exported.path)
    assert found["fp32"].failures == ()
    [failure] = found["int8"].failures
    assert re.fullmatch(SILENCED, failure)


@pytest.mark.slow
def test_a_graph_that_ruins_adherence_alone_is_not_published(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silenced(monkeypatch, "int4")
    settings = GateSettings(limits={"int4": NO_LIMITS})
    with pytest.raises(ExportError) as refused:
        export(run, tmp_path / "out", ("int4",), gate=settings, progress=False)
    said = "the int4 graph was not published, it is too far from the model: "
    assert re.match(f"{said}{SILENCED}; try --precision", str(refused.value))
    assert not (tmp_path / "out").exists()


# A difference, and chance


@pytest.mark.parametrize(
    ("lost", "gained", "rows", "fails"),
    [
        (0, 0, 64, False),
        (1, 0, 64, False),  # 0.016 is no more than 0.02
        (4, 0, 64, False),  # four coins fall so in one of 16 cases
        (5, 0, 64, True),
        (8, 2, 64, False),
        (9, 1, 64, True),
        (10, 6, 200, False),  # just 0.02
        (40, 34, 200, False),
        (45, 25, 200, True),
        (5, 0, 500, False),  # sure, and small
    ],
)
def test_a_loss_of_adherence_fails_where_it_is_large_and_no_chance(
    lost: int, gained: int, rows: int, fails: bool
) -> None:
    measured = replace(
        NOTHING_WRONG,
        adherence=0.5 - (lost - gained) / rows,
        adherence_reference=0.5,
        instructions=rows,
        adherence_lost=lost,
        adherence_gained=gained,
    )
    assert loses_adherence(measured, 0.02) is fails
    failed = [one.measure for one in judge(measured, Limits())]
    assert failed == (["adherence"] if fails else [])
    assert judge(measured, Limits(adherence=None)) == []


NOTHING_WRONG = Measured(
    positions=1,
    answered=1,
    agreement=1.0,
    kl_mean=0.0,
    kl_p99=0.0,
    perplexity=1.0,
    perplexity_reference=1.0,
    greedy_equal=1,
    logit_spread=1.0,
)


def test_graphs_are_compared_instruction_by_instruction() -> None:
    measured = adherence.compared(
        NOTHING_WRONG, [True, True, False, False], [True, False, True, True]
    )
    assert (measured.adherence_reference, measured.adherence) == (0.5, 0.75)
    assert (measured.adherence_lost, measured.adherence_gained) == (1, 2)
    assert measured.followed == "3 of 4 instructions, the model 2"
    assert SURE == 0.95


# What is asked, and by whom it is judged


def test_at_most_so_many_instructions_are_asked_the_guards_first(tmp_path: Path) -> None:
    run = recorded(tmp_path, {"named": SAYS_SOMETHING}, rows=30)
    found, notes = gather(GateSettings(), run)
    assert found is not None
    assert len(found.rows) == 64
    assert found.rows[:60] == [*asked("guard", 30), *asked("report", 30)]
    assert not notes
    few, _ = gather(GateSettings(count=3), run)
    assert few is not None
    assert (few.rows, few.max_new_tokens) == (asked("guard", 3), 6)
    longer, _ = gather(GateSettings(tokens=9), run)
    assert longer is not None
    assert longer.max_new_tokens == 9
    assert gather(GateSettings(count=0), run) == (None, ())
    assert gather(GateSettings(), None) == (None, ())


@pytest.mark.parametrize(
    ("reward", "why"),
    [
        ({"named": None}, "it is an object of Python; name it under rewards of --gate FILE"),
        ({"named": {"use": "mine.py:f"}}, "'mine.py:f' is code at a place, and only what "),
        ({"named": {"use": "nobody"}}, "no reward is called 'nobody'"),
        ({"named": {"use": "length"}}, "reward 'length' (risen-plugin"),
        (
            {"named": {"use": "judge", "options": {"base_url": "http://localhost:1/v1"}}},
            "it asks another machine",
        ),
    ],
)
def test_a_reward_that_cannot_be_made_again_is_left_out_with_a_note(
    reward: Mapping[str, Any], why: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('it was run')")
    found, notes = gather(GateSettings(), recorded(tmp_path, {"named": SAYS_SOMETHING}, reward))
    assert found is not None
    assert [one.__name__ for one in found.rewards] == ["r0"]
    [note] = notes
    assert note.startswith(f"adherence is measured without reward 'r1': {why}")
    found, notes = gather(GateSettings(), recorded(tmp_path, reward))
    assert found is None
    assert notes[-1] == "adherence was not measured: no reward of the run can be made again"


def test_code_at_a_place_is_not_run_from_the_options_of_a_record(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('it was run')")
    place = {"use": f"{tmp_path}/mine.py:Reward"}
    with pytest.raises(RisenError, match=r"mine\.py:Reward' is code at a place"):
        made_again("r", place, GRADING)


def test_an_old_record_is_a_note_and_no_failure(tmp_path: Path) -> None:
    run = recorded(tmp_path, {"uses": "Regex()"})
    assert gather(GateSettings(), run) == (
        None,
        (
            "adherence was not measured: the run's record does not say how its rewards are made; "
            "an earlier release wrote it",
        ),
    )
    recorded(tmp_path, {"named": SAYS_SOMETHING})
    (run / "risen" / HELD_OUT).unlink()
    _, [note] = gather(GateSettings(), run)
    assert note == (
        f"adherence was not measured: the record in {run} has no held-out instructions; an earlier "
        "release wrote it"
    )


def test_instructions_and_rewards_may_come_from_a_user(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Say a.", "answer": "a"}\n')
    settings = GateSettings(instructions=str(rows), rewards=["exact"])
    found, notes = gather(settings, None)
    assert found is not None
    assert found.rows == [{"prompt": "Say a.", "answer": "a"}]
    assert [one.__name__ for one in found.rewards] == ["exact"]
    assert found.max_new_tokens == MOST_TOKENS
    assert not notes


@pytest.mark.parametrize(
    ("rows", "rewards", "why"),
    [
        ('{"prompt": "a"}', [], "the gate has instructions and no rewards"),
        (None, ["exact"], "the gate has rewards and no instructions"),
        ('{"prompt": "a", "answr": "a"}', ["exact"], "did you mean 'answr'"),
        ('{"prompt": 3}', ["exact"], "has row 0 with the prompt 3"),
        ("[]", ["exact"], "has [] as row 0; a row has a prompt"),
        ("", ["exact"], "has no rows"),
        ('{"prompt": "a", "answer": "a"}', ["exakt"], "did you mean 'exact'"),
        ('{"prompt": "a", "answer": "a"}', ["exact", "exact"], "two rewards of the gate"),
    ],
)
def test_what_cannot_be_asked_or_judged_is_refused_before_weights_are_read(
    rows: str | None, rewards: Sequence[str], why: str, tmp_path: Path
) -> None:
    path = None
    if rows is not None:
        path = tmp_path / "rows.jsonl"
        path.write_text(rows and rows + "\n")
    with pytest.raises((ConfigError, DataError)) as refused:
        gather(GateSettings(instructions=path, rewards=rewards), None)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


# In a bundle


def test_what_a_bundle_keeps_is_asked_again_elsewhere(tmp_path: Path) -> None:
    judges = [made_again("r", SAYS_SOMETHING, GRADING)]
    standard = adherence.Standard(Instructions(asked("a", 2), judges, 5), [True, False])
    adherence.save(standard, tmp_path)
    found, remark = adherence.load(tmp_path)
    assert found is not None
    assert (found.instructions.rows, found.passed) == (asked("a", 2), [True, False])
    assert found.instructions.rewards[0].reward == judges[0].reward.reward
    assert remark == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"named": {"use": "length-band"}}, "reward 'r' of risen-length 0.1 is not to be had here"),
        ({"named": {"use": "evil.py:f"}}, "'evil.py:f' is code at a place"),
        ({"named": None}, "it is an object of Python"),
    ],
)
def test_a_bundle_whose_rewards_are_not_here_is_verified_with_a_remark(
    change: Mapping[str, Any], why: str, tmp_path: Path
) -> None:
    head = {
        "max_new_tokens": 5,
        "rewards": [{"name": "r", "origin": "risen-length 0.1", **GRADING, **change}],
    }
    lines = [head, {"row": {"prompt": "a"}, "passed": True}]
    (tmp_path / adherence.FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    found, remark = adherence.load(tmp_path)
    assert found is None
    assert remark.startswith("adherence was not repeated: reward 'r' of risen-length 0.1 is not ")
    assert why in remark


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3\n",
        '{"max_new_tokens": 5, "rewards": [3]}\n{"row": {"prompt": "a"}, "passed": true}\n',
        '{"max_new_tokens": Infinity, "rewards": []}\n{"row": {"prompt": "a"}, "passed": true}\n',
        '{"max_new_tokens": 5, "rewards": []}\n{"row": {"prompt": 3}, "passed": true}\n',
        '{"max_new_tokens": 5, "rewards": []}\n{"row": {"prompt": "a"}, "passed": 1}\n',
        '{"max_new_tokens": 5, "rewards": []}\n',
    ],
)
def test_a_damaged_list_of_instructions_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / adherence.FILE).write_text(text)
    with pytest.raises(
        ExportError, match=r"instructions\.jsonl is no list of instructions; export"
    ):
        adherence.load(tmp_path)


def test_a_path_among_the_options_of_a_reward_stays_on_this_machine(tmp_path: Path) -> None:
    local = {"use": "regex", "options": {"pattern": "/home/ada"}}
    judges = [made_again("r", local, GRADING)]
    adherence.save(adherence.Standard(Instructions(asked("a", 1), judges, 5), [True]), tmp_path)
    assert "ada" not in (tmp_path / adherence.FILE).read_text()


@pytest.mark.slow
def test_instructions_that_do_not_fit_are_left_out_with_a_note(tied_bundle: Path) -> None:
    judges = [made_again("r", SAYS_SOMETHING, GRADING)]
    rows = [*asked("a", 2), {"prompt": "a" * 1000}]
    standard, [note] = adherence.begin(Bundle.open(tied_bundle), Instructions(rows, judges, 4))
    assert standard is not None
    assert standard.instructions.rows == rows[:2]
    assert note.startswith("adherence is measured on 2 of 3 instructions; the others do not fit")
    none, [note] = adherence.begin(Bundle.open(tied_bundle), Instructions(rows[2:], judges, 4))
    assert none is None
    assert note.endswith("no instruction fits the model's context and template")
