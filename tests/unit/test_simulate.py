"""``risen simulate``: a recorded run through a scheduler, without training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from risen_plugin.builtin.schedulers import After, Alternate
from risen_plugin.builtin.schedulers.benefit import Benefit
from risen_plugin.builtin.schedulers.budget import Budget
from risen_plugin.builtin.schedulers.plateau import Plateau
from risen_plugin.cli import command_line
from risen_plugin.commands.simulate.drawing import page, strip, strips, svg
from risen_plugin.commands.simulate.replay import Replay, replay
from risen_plugin.commands.simulate.trace import Trace, read_trace
from risen_plugin.contracts import Decision, PhaseRecord, Progress
from risen_plugin.errors import DataError, PluginError
from risen_plugin.testing import check_light_import

GAINS = (0.2, 0.1, 0.05)


def phase_event(step: int, number: int, *, accepted: bool = True, **more: Any) -> dict[str, Any]:
    """The n-th RISEN phase of the run: 4 steps in 10 seconds, 2 of them for measuring."""
    before = 0.4 + sum(GAINS[: number - 1])
    metrics = {
        "guard/adherence_strict_before": before,
        "guard/adherence_strict_after": before + GAINS[number - 1],
        "guard/probe_loss_before": 1.0,
        "guard/probe_loss_after": 1.01,
        "seconds": 10.0,
        "guard_s": 2.0,
        "rollouts": 40,
        "tokens": 400,
    }
    return {
        "event": "phase",
        "step": step,
        "number": number,
        "kind": "risen",
        "steps": 4,
        "accepted": accepted,
        "reason": "it was time",
        "metrics": metrics,
        **more,
    }


def recorded(*phases: int, max_steps: int = 40, loss: Callable[[int], float] | None = None) -> str:
    """A run with RISEN phases of 4 steps after these steps; a step takes half a second.

    It evaluates after every fifth step, and after a phase where there is one at the same step.
    """
    told = loss or (lambda step: 1.0 + 1.0 / step)
    lines: list[dict[str, Any]] = []
    for step in range(5, max_steps + 1, 5):
        if step in phases:
            lines.append(phase_event(step, phases.index(step) + 1))
        time = 0.5 * step + 10.0 * sum(at <= step for at in phases)
        for event in lines[-1:]:
            event.setdefault("time", time)
        lines.append({"event": "log", "step": step, "time": time, "loss": told(step)})
        metrics = {"eval_loss": told(step), "epoch": 1}
        lines.append({"event": "evaluation", "step": step, "time": time, "metrics": metrics})
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the record of a run and returns its output folder."""

    def write(text: str = recorded(10, 20, 40), **description: Any) -> Path:
        folder = tmp_path / "out" / "risen"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "events.jsonl").write_text(text)
        if description:
            (folder / "run.json").write_text(json.dumps(description))
        return tmp_path / "out"

    return write


def risen_steps(done: Replay) -> list[tuple[int, int]]:
    return [(p.at_step, p.steps) for p in done.phases if p.kind == "risen"]


# Reading


def test_a_run_its_folder_and_its_events_are_the_same_trace(run: Callable[..., Path]) -> None:
    out = run()
    places = (out, out / "risen", out / "risen" / "events.jsonl")
    first, second, third = (read_trace(place) for place in places)
    assert first == second == third
    assert first.max_steps == 40
    assert [(p.kind, p.at_step, p.steps) for p in first.phases] == [
        ("risen", 10, 4),
        ("risen", 20, 4),
        ("risen", 40, 4),
    ]
    assert first.train_losses[0] == (5, 1.2)
    assert first.eval_metrics[-1] == (40, {"eval_loss": 1.025, "epoch": 1.0})
    assert first.notes == ()


@pytest.mark.parametrize(
    ("step", "seconds"), [(0, 0.0), (5, 2.5), (7, 3.5), (20, 10.0), (40, 20.0), (80, 40.0)]
)
def test_the_clock_of_fine_tuning_leaves_phases_out(
    step: int, seconds: float, run: Callable[..., Path]
) -> None:
    assert read_trace(run()).fine_tune_seconds(step) == pytest.approx(seconds)


def test_a_clock_that_jumps_back_stands_still(run: Callable[..., Path]) -> None:
    lines = [{"event": "log", "step": s, "time": t, "loss": 1.0} for s, t in ((1, 5.0), (2, 3.0))]
    trace = read_trace(run("".join(json.dumps(line) + "\n" for line in lines)))
    assert trace.clock == ((1, 5.0), (2, 5.0))


@pytest.mark.parametrize(
    ("description", "asked", "steps", "note"),
    [
        ({"max_steps": 40}, None, 40, None),
        ({"max_steps": 100}, None, 100, "the run was recorded up to step 40 of 100"),
        ({"max_steps": 100}, 40, 40, None),
        ({}, 60, 60, "nothing was measured after step 40"),
        ({"max_steps": "many"}, None, 40, None),
    ],
)
def test_the_steps_of_the_run_are_asked_for_recorded_or_seen(
    description: dict[str, Any],
    asked: int | None,
    steps: int,
    note: str | None,
    run: Callable[..., Path],
) -> None:
    trace = read_trace(run(**description), max_steps=asked)
    assert trace.max_steps == steps
    assert trace.notes == (() if note is None else (note,))


def test_other_events_and_empty_lines_are_passed_over(run: Callable[..., Path]) -> None:
    text = '\n{"event": "guard", "step": 1, "measured": {}}\n{"event": "x"}\n' + recorded()
    assert read_trace(run(text)) == read_trace(run(recorded()))


def test_a_last_line_that_is_still_being_written_is_left_out(run: Callable[..., Path]) -> None:
    trace = read_trace(run(recorded(10) + '{"event": "log", "st'))
    assert trace.notes == ("line 18, the last one, is cut off and was left out",)


LOG = '{"event": "log", "step": 4, "loss": 1.0}\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LOG + "{\n" + LOG, "events.jsonl:2 is not JSON: Expecting"),
        (LOG + "[]\n", "line 2 is no event: it is an object with 'event' and 'step'"),
        (LOG + '{"step": 4}\n', "line 2 is no event"),
        (LOG + '{"event": "log"}\n', "line 2: log has the step None; it is a whole number from 0"),
        (LOG + '{"event": "log", "step": "5"}\n', "line 2: log has the step '5'"),
        (LOG + LOG.replace("4", "3"), "line 2: log goes back from step 4 to 3"),
        (LOG.replace("1.0", '"low"'), "line 1: log has the loss 'low'; it is a number"),
        (LOG + '{"event": "evaluation", "step": 5}\n', "line 2: evaluation has no metrics"),
        (
            LOG + '{"event": "phase", "step": 5, "kind": "rsen", "steps": 3}\n',
            "line 2: phase is of the kind 'rsen'; there are fine_tune, risen and burst",
        ),
        (LOG + '{"event": "phase", "step": 5, "kind": "risen"}\n', "line 2: phase has None steps"),
        (
            LOG + '{"event": "phase", "step": 5, "kind": "risen", "steps": 3, "metrics": [1]}\n',
            "line 2: phase has metrics that are no object",
        ),
        ("", "holds no measurements"),
        ('{"event": "decision", "step": 1}\n', "holds no measurements: no line is an event of log"),
    ],
)
def test_what_is_no_trace_is_told_with_its_line(
    text: str, said: str, run: Callable[..., Path]
) -> None:
    with pytest.raises(DataError) as caught:
        read_trace(run(text))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trace_that_is_not_there_is_told_with_the_near_miss(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=r"there is no trace '.*oot'; did you mean '.*/out'"):
        read_trace(tmp_path / "oot")
    with pytest.raises(DataError, match=r"'.*out' is no run: there is no risen/events\.jsonl in"):
        read_trace(tmp_path / "out")
    for data in (b"\xff\xfe", b"\xff\xfe\n"):
        (tmp_path / "out" / "events.jsonl").write_bytes(data)
        with pytest.raises(DataError, match=r"events\.jsonl:1 is no UTF-8"):
            read_trace(tmp_path / "out")


# Replaying


@pytest.mark.parametrize(
    ("phases", "scheduler"),
    [
        ((10, 20, 30, 40)[:3], Budget(Alternate(10, 4), rollouts=120)),
        ((20, 40), Alternate(20, 4)),
        ((10, 25, 40), After(4, at=10, phases=3)),
        ((15,), After(4, at=15)),
    ],
)
def test_a_replay_of_the_runs_own_scheduler_is_the_run(
    phases: tuple[int, ...], scheduler: Any, run: Callable[..., Path]
) -> None:
    trace = read_trace(run(recorded(*phases)))
    done = replay(trace, scheduler, "it")
    assert risen_steps(done) == [(step, 4) for step in phases]
    assert done.stretches == done.recorded
    assert [p.metrics for p in done.phases] == [p.metrics for p in trace.phases]


class Watching:
    """Remembers what it was shown, and asks for RISEN after some steps."""

    def __init__(self, *steps: int, of: int = 4) -> None:
        self.steps, self.of = steps, of
        self.seen: list[Progress] = []

    def __call__(self, progress: Progress) -> Decision:
        self.seen.append(progress)
        phase: Any = "risen" if progress.step in self.steps else "fine_tune"
        return Decision(phase, self.of if phase == "risen" else 0, {}, f"watching: {phase}")


def test_a_scheduler_sees_what_a_run_would_have_shown_it(run: Callable[..., Path]) -> None:
    watching = Watching(6)
    replay(read_trace(run()), watching, "it")
    assert [p.step for p in watching.seen] == list(range(1, 41))
    at_5, at_6, at_7 = watching.seen[4:7]
    assert at_5.eval_metrics == ()  # a Trainer logs and evaluates after it has asked
    assert at_6.eval_metrics == ((5, {"eval_loss": 1.2, "epoch": 1.0}),)
    assert at_6.train_losses == ((5, 1.2),)
    assert (at_6.elapsed_s, at_6.rollouts, at_6.tokens) == (3.0, 0, 0)
    assert (at_7.elapsed_s, at_7.rollouts, at_7.tokens) == (13.5, 40, 400)
    assert [(p.kind, p.steps, p.at_step) for p in at_7.phases] == [
        ("fine_tune", 6, 0),
        ("risen", 4, 6),
        ("fine_tune", 1, 6),
    ]
    assert at_7.max_steps == 40


@pytest.mark.parametrize(
    ("of", "gain", "seconds", "rollouts"),
    [(4, 0.2, 10.0, 40), (2, 0.1, 6.0, 20), (1, 0.05, 4.0, 10), (8, 0.2, 18.0, 80)],
)
def test_a_shorter_phase_gains_its_share_and_a_longer_one_no_more(
    of: int, gain: float, seconds: float, rollouts: int, run: Callable[..., Path]
) -> None:
    [phase] = replay(read_trace(run()), Watching(10, of=of), "it").phases
    metrics = phase.metrics
    assert metrics["guard/adherence_strict_before"] == 0.4
    assert metrics["guard/adherence_strict_after"] == pytest.approx(0.4 + gain)
    assert (metrics["seconds"], metrics["rollouts"]) == (seconds, rollouts)


def test_phases_after_the_last_recorded_one_gain_nothing(run: Callable[..., Path]) -> None:
    done = replay(read_trace(run(recorded(10))), Watching(10, 20), "it")
    first, second = done.phases
    for when in ("before", "after"):
        assert second.metrics[f"guard/adherence_strict_{when}"] == pytest.approx(0.6)
    assert second.metrics["seconds"] == first.metrics["seconds"]
    assert [made.borrowed for made in done.made if made.decision.phase == "risen"] == [1, None]


def test_what_fine_tuning_did_between_phases_is_taken_per_step(run: Callable[..., Path]) -> None:
    """In the run adherence fell by 0.2 in the 20 steps between its two phases."""
    second = phase_event(30, 2)
    second["metrics"] |= {
        "guard/adherence_strict_before": 0.4,
        "guard/adherence_strict_after": 0.5,
    }
    text = "".join(json.dumps(line) + "\n" for line in (phase_event(10, 1), second))
    trace = read_trace(run(text))
    for step, before in ((15, 0.55), (20, 0.5), (30, 0.4)):
        metrics = replay(trace, Watching(10, step), "it").phases[1].metrics
        assert metrics["guard/adherence_strict_before"] == pytest.approx(before)
        assert metrics["guard/adherence_strict_after"] == pytest.approx(before + 0.1)


def test_a_dropped_phase_stays_dropped(run: Callable[..., Path]) -> None:
    line = json.dumps(phase_event(10, 1, accepted=False)) + "\n"
    [phase] = replay(read_trace(run(line)), Watching(5), "it").phases
    assert phase.accepted is False


def test_a_run_without_phases_and_times_says_what_is_not_known(run: Callable[..., Path]) -> None:
    done = replay(read_trace(run(LOG)), After(5), "it")
    [phase] = done.phases
    assert phase == PhaseRecord("risen", 5, 4, "after: step 4 reached, phase 1 of 1", True)
    assert [note.partition(":")[0] for note in done.trace.notes] == [
        "the run has no evaluations; what asks for them has to do without",
        "the run has no times",
        "the run has no RISEN phase",
    ]


def test_bursts_take_fine_tunings_time_and_the_buffers_are_those_of_the_phases(
    run: Callable[..., Path],
) -> None:
    event = phase_event(10, 1)
    event["metrics"] |= {"buffers/unsolved": 40, "buffers/answers": 9, "buffers/demonstrations": 3}
    lines = recorded().splitlines(keepends=True)
    lines.insert(2, json.dumps({**event, "step": 5}) + "\n")
    done = replay(read_trace(run("".join(lines))), Plateau(steps=4, evaluations=1, burst=6), "it")
    kinds = [(p.kind, p.at_step, p.steps) for p in done.phases[:2]]
    assert kinds[0][0] == "risen"
    assert kinds[1] == ("burst", kinds[0][1] + 1, 6)
    assert done.phases[1].metrics["seconds"] > 0
    assert "40 instructions are unsolved, 12 answers" in done.phases[1].reason


def test_decisions_are_told_once_per_reason(run: Callable[..., Path]) -> None:
    done = replay(read_trace(run()), Alternate(20, 4), "it")
    assert [(made.step, made.decision.phase) for made in done.made] == [
        (1, "fine_tune"),
        (20, "risen"),
        (21, "fine_tune"),
        (40, "risen"),
    ]


def test_a_scheduler_that_breaks_its_contract_is_named(run: Callable[..., Path]) -> None:
    with pytest.raises(PluginError, match=r"^it returned NoneType, not a Decision"):
        replay(read_trace(run()), lambda progress: None, "it")  # type: ignore[arg-type,return-value]


def test_a_long_run_is_replayed_in_a_moment(run: Callable[..., Path]) -> None:
    """Each measurement is looked at once by the replay, not once per step."""
    looked = 0

    class Counted(tuple):  # type: ignore[type-arg]
        def __getitem__(self, place: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(place)

    losses = Counted((step, 1.0) for step in range(1, 2001))
    replay(Trace("it", 2000, train_losses=losses), After(1), "it")
    assert looked < 4 * 2000


# Drawing


def test_the_strip_shows_each_phase_and_never_hides_risen(run: Callable[..., Path]) -> None:
    trace = read_trace(run(recorded(20)))
    done = replay(trace, After(4, at=20), "it")
    assert strip(done.recorded, width=6, whole=30.0, plain=True) == "--##--"
    assert strip(done.recorded, width=3, whole=3000.0, plain=True) == "#"
    lines = strips(done, width=41, plain=True)
    assert lines[0].partition("   ")[2] == lines[1].partition("   ")[2]
    assert lines[2].endswith("30 s")
    assert "# RISEN, kept" in lines[3]


def test_dropped_phases_and_bursts_are_drawn_apart(run: Callable[..., Path]) -> None:
    burst = {"event": "phase", "step": 20, "kind": "burst", "steps": 3, "metrics": {"seconds": 5.0}}
    dropped = phase_event(10, 1, accepted=False)
    end = {"event": "log", "step": 30, "time": 45.0, "loss": 1.0}
    text = "".join(json.dumps(line) + "\n" for line in (dropped, burst, end))
    done = replay(read_trace(run(text)), After(4), "it")
    assert strip(done.recorded, width=9, whole=45.0, plain=True) == "--xx--+--"


def test_a_run_without_times_is_drawn_by_its_steps(run: Callable[..., Path]) -> None:
    lines = strips(replay(read_trace(run(LOG)), After(4), "it"), width=40, plain=True)
    assert lines[1].split() == ["replayed", "-" * 14 + "#" * 15]
    assert lines[2].endswith("8 steps")


@pytest.mark.parametrize("scheduler", [Plateau(steps=4), Benefit(steps=2), After(1)])
def test_the_picture_is_well_formed_and_has_every_stretch(
    scheduler: Any, run: Callable[..., Path]
) -> None:
    done = replay(read_trace(run()), scheduler, "scheduler '<&>'")
    root = ElementTree.fromstring(svg(done))
    space = "{http://www.w3.org/2000/svg}"
    legend = 4
    assert len(root.findall(f"{space}rect")) == (len(done.stretches) + len(done.recorded) + legend)
    assert len(root.findall(f"{space}circle")) == len(done.trace.eval_metrics)
    for bar in root.findall(f"{space}rect"):
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= 960


def test_the_page_stands_alone_and_tells_what_it_cannot_know(run: Callable[..., Path]) -> None:
    text = page(replay(read_trace(run(LOG)), After(4), "scheduler '<b>'"))
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert not re.search(r"(src|href)=", text)
    assert "what another order of the phases would have measured is not known" in text
    assert "the run has no RISEN phase" in text


# The command


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(command_line(), ["simulate", *arguments])


def test_the_command_prints_decisions_phases_and_its_limits(run: Callable[..., Path]) -> None:
    result = simulate("alternate", "--trace", str(run()), "-o", "fine_tune=20", "-o", "risen=4")
    assert result.exit_code == 0, result.output
    assert "scheduler 'alternate' (risen-plugin 0.1.0), over 40 steps of" in result.output
    assert re.search(
        r"^step 20 +10\.0 s  RISEN 4 +alternate: 20 fine-tune steps done  \[as phase 1\]$",
        result.output,
        flags=re.M,
    )
    assert "would take 20.0 of 40.0 s." in result.output
    assert "what another order of the phases would have measured is not known" in result.output


def test_a_reason_of_a_scheduler_is_shown_without_obeying_it(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from risen_plugin import Decision\n"
        "def odd(progress): return Decision('fine_tune', reason='\\x1b[2J\\u202e')\n"
    )
    monkeypatch.chdir(tmp_path)
    result = simulate("mine.py:odd", "--trace", str(run()))
    assert result.exit_code == 0, result.output
    assert "fine-tune  \\u001b[2J\\u202e\n" in result.output


@pytest.mark.parametrize(
    "number", [1e308, 1e200, -1e308, 10**400], ids=lambda number: str(number)[:6]
)
@pytest.mark.parametrize("name", ["time", "loss", "step", "steps", "metrics"])
def test_a_record_of_numbers_that_cannot_be_is_replayed_or_refused_in_one_line(
    name: str, number: float, run: Callable[..., Path], tmp_path: Path
) -> None:
    events = [json.loads(line) for line in recorded(10, 20, 40).splitlines()]
    for event in events[2:]:
        if name in event:
            like = event[name]
            event[name] = dict.fromkeys(like, number) if isinstance(like, dict) else number
    folder = run("".join(json.dumps(event) + "\n" for event in events))
    page = ("--html", str(tmp_path / "page.html"))
    result = simulate(
        "alternate", "--trace", str(folder), "-o", "fine_tune=20", "-o", "risen=4", *page
    )
    assert result.exit_code in (0, 2), result.output
    assert (result.exit_code == 0) or result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "described"),
    [(recorded(10).replace('"step": 40', '"step": 1000000000'), 0), (recorded(10), 10**9)],
)
def test_a_run_of_more_steps_than_a_replay_takes_is_refused(
    text: str, described: int, run: Callable[..., Path]
) -> None:
    folder = run(text, **({"max_steps": described} if described else {}))
    with pytest.raises(DataError, match="a replay takes up to 10,000,000; --max-steps sets"):
        read_trace(folder)
    assert read_trace(folder, max_steps=40).max_steps == 40


def test_a_description_of_buffers_that_is_none_counts_no_demonstrations(
    run: Callable[..., Path],
) -> None:
    assert read_trace(run(buffers="many", max_steps=10**400)).demonstrations is None


def test_json_holds_the_decisions_and_both_runs(run: Callable[..., Path]) -> None:
    arguments = ("budget", "--trace", str(run()), "-o", "rollouts=60", "-o", "scheduler=alternate")
    inner = ("-o", "scheduler.fine_tune=10", "-o", "scheduler.risen=4")
    data = json.loads(simulate(*arguments, *inner, "--json").output)
    assert data["scheduler"] == "scheduler 'budget' (risen-plugin 0.1.0)"
    assert data["max_steps"] == 40
    assert [
        (made["step"], made["steps"], made["measured_as_phase"])
        for made in data["decisions"]
        if made["phase"] == "risen"
    ] == [(10, 4, 1), (20, 2, 2)]
    assert data["decisions"][-1]["reason"].startswith("budget: 60 rollouts are spent")
    assert data["recorded_seconds"] == {"fine_tune": 20.0, "risen": 30.0, "burst": 0.0, "all": 50.0}
    assert [p["kind"] for p in data["phases"]].count("risen") == 2


def test_pictures_are_written_whole(run: Callable[..., Path], tmp_path: Path) -> None:
    files = (tmp_path / "a.html", tmp_path / "a.svg")
    result = simulate(
        "plateau", "--trace", str(run()), "--html", str(files[0]), "--svg", str(files[1])
    )
    assert result.exit_code == 0, result.output
    assert files[0].read_text().startswith("<!doctype html>")
    assert files[1].read_text().startswith("<svg")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "a.html", "a.svg"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plato"], "no scheduler is called 'plato'; did you mean 'plateau'?"),
        (["plateau", "-o", "stepz=4"], "has no option 'stepz'; did you mean 'steps'?"),
        (["plateau", "-o", "least=7"], "least is 7; it is a number from 0 to 1"),
        (["budget", "-o", "scheduler=plateau"], "there is no limit; give one of seconds"),
        (["after", "-o", "steps=4", "--svg", "no/such/file.svg"], "cannot write --svg 'no/such"),
    ],
)
def test_what_a_person_can_mend_is_told_in_one_line_with_exit_code_2(
    arguments: Sequence[str], said: str, run: Callable[..., Path]
) -> None:
    result = simulate(*arguments, "--trace", str(run()))
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("risen: ")
    assert said in line


def test_a_trace_that_is_not_there_is_told_before_a_missing_option(
    run: Callable[..., Path],
) -> None:
    out = run()
    result = simulate("after", "--trace", str(out.with_name("oot")))
    assert result.exit_code == 2
    assert f"there is no trace '{out.with_name('oot')}'; did you mean '{out}'?" in result.stderr


def test_a_configuration_that_is_not_there_is_told_with_the_near_miss(
    run: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "risen.yaml").write_text("scheduler: plateau")
    result = simulate(str(tmp_path / "risn.yaml"), "--trace", str(run()))
    assert result.exit_code == 2
    assert f"did you mean '{tmp_path / 'risen.yaml'}'?" in result.stderr


def test_a_terminal_without_the_marks_gets_plain_ones(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run()
    result = CliRunner(charset="ascii").invoke(
        command_line(), ["simulate", "after", "--trace", str(out), "-o", "steps=4"]
    )
    assert result.exit_code == 0, result.output
    assert "# RISEN, kept" in result.output


def test_a_replay_loads_nothing_heavy() -> None:
    for module in ("command", "drawing", "replay"):
        check_light_import(f"risen_plugin.commands.simulate.{module}")
    check_light_import("risen_plugin.commands.simulate.trace")
    check_light_import("risen_plugin.plugins.lookup")
