"""The report and the watch: what they claim of a run is what the run recorded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from risen_plugin.cli import command_line
from risen_plugin.commands.report import answers as answers_module
from risen_plugin.commands.report import command as commands
from risen_plugin.commands.report import drawing, pays, series, terminal
from risen_plugin.commands.report.answers import read_answers
from risen_plugin.commands.report.markup import Markup, data, html, table
from risen_plugin.commands.report.page import write_report
from risen_plugin.contracts import Failed
from risen_plugin.errors import ConfigError, DataError, RecordError
from risen_plugin.kit.files import write_json
from risen_plugin.record.reading import Phase, read_run
from risen_plugin.record.rollouts import FILE, RolloutLog
from risen_plugin.record.run_record import Record
from risen_plugin.rewards.batch import Batch

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"


def metrics(before: float, after: float | None, **more: Any) -> dict[str, Any]:
    """What a phase measured; adherence and probe loss move together."""
    found: dict[str, Any] = {
        "guard/adherence_strict_before": before,
        "guard/probe_loss_before": before / 10,
        "domain/accuracy_before": 0.9,
        "families_before": {"billing": [10, 40], "returns": [20, 40]},
        "trip_wire_rate": 0.125,
        "verdict": f"verdict {EVIL}",
        **more,
    }
    if after is not None:
        found |= {
            "guard/adherence_strict_after": after,
            "guard/probe_loss_after": after / 10,
            "families_after": {"billing": [30, 40], "returns": [18, 40]},
        }
    return found


class Script:
    """Writes a record as a run does, with a clock of its own."""

    def __init__(self, place: Path, **description: Any) -> None:
        self.place = place
        self.now = 0.0
        self.record = Record(place, lambda: self.now)
        rewards = [{"name": "follows", "weight": 1.0}, {"name": EVIL, "weight": 0.5}]
        made = {"rewards": rewards, "reserved": ["billing"], "scheduler": EVIL, **description}
        self.record.begin(made)

    def event(self, time: float, name: str, step: int, **values: Any) -> None:
        self.now = time
        self.record.event(name, step=step, **values)

    def phase(
        self,
        number: int,
        step: int,
        begins: float,
        ends: float,
        accepted: bool,
        measured: dict[str, Any],
        answers: int = 8,
        kind: str = "risen",
    ) -> None:
        reason = f"reason {number}"
        self.event(begins, "decision", step, number=number, phase=kind, steps=4, reason=reason)
        told = {"kind": kind, "steps": 4, "reason": reason, "accepted": accepted}
        self.event(ends, "phase", step, number=number, **told, metrics=measured)
        folder = self.record.phase_folder(number)
        logs = [{"step": s, "reward": s / 10, "kl": s / 100, "entropy": 0.5} for s in (1, 2, 3, 4)]
        write_json(folder / "phase.json", {"logs": logs})
        with RolloutLog(folder / FILE) as log:
            log.add(
                Batch(
                    step=1,
                    prompts=[f"Say it. {EVIL}"] * answers,
                    completions=[f"answer {place} {EVIL}" for place in range(answers)],
                    columns={
                        "family": ["billing", "returns"] * (answers // 2),
                        "instruction_id_list": [["punctuation:no_comma"]] * answers,
                        "kwargs": [[{}]] * answers,
                    },
                    scores={
                        "follows": [float(place) for place in range(answers)],
                        EVIL: [None, Failed(f"down {EVIL}")] * (answers // 2),
                    },
                ),
                phase=number,
            )


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """A run of 100 seconds: one phase kept, one dropped, and errors."""
    made = Script(tmp_path / "run")
    made.event(5.0, "log", 5, loss=2.0, learning_rate=1e-3)
    made.event(10.0, "log", 10, loss=1.0, learning_rate=1e-3)
    made.event(10.5, "evaluation", 10, metrics={"eval_loss": 1.5, "eval_accuracy": 0.5})
    made.phase(1, 10, 11.0, 40.0, True, metrics(0.25, 0.75))
    made.event(50.0, "log", 20, loss=0.5)
    made.phase(2, 20, 51.0, 90.0, False, metrics(0.5, 0.375, gap=-0.25))
    made.event(90.0, "plugin_error", 20, number=2, plugin=EVIL, reason="down", count=4)
    made.event(100.0, "log", 30, loss=0.25)
    made.record.close()
    return made


# Reading


@pytest.mark.parametrize("written", [2, "later"])
def test_a_record_of_a_newer_release_is_refused_in_one_line(tmp_path: Path, written: Any) -> None:
    Record(tmp_path).begin({"format": written, "risen_plugin": "9.0"})
    with pytest.raises(DataError) as raised:
        read_run(tmp_path)
    assert str(raised.value) == (
        f"the record in {tmp_path / 'risen'} has format {written}, and this release reads 1; "
        "install the release that wrote it: risen-plugin 9.0"
    )


def test_a_run_is_read_from_its_output_folder_or_the_record_in_it(script: Script) -> None:
    for place in (script.place, script.place / "risen"):
        run = read_run(place)
        assert run.name == "run"
        assert [(p.name, p.outcome, p.begins, p.ends, p.steps) for p in run.phases] == [
            ("phase 1", "kept", 11.0, 40.0, 4),
            ("phase 2", "dropped", 51.0, 90.0, 4),
        ]
        assert (run.seconds, run.step, run.holder) == (100.0, 30, None)


def test_a_phase_that_goes_on_and_one_that_a_crash_cut_short_are_told_apart(
    tmp_path: Path,
) -> None:
    script = Script(tmp_path)
    script.event(1.0, "decision", 1, number=1, phase="risen", steps=4, reason="first")
    assert [p.outcome for p in read_run(tmp_path).phases] == ["running"]
    # It was killed there, resumed before it, and decided for another phase.
    script.event(3.0, "decision", 2, number=2, phase="burst", steps=3, reason="second")
    with (tmp_path / "risen" / "events.jsonl").open("a") as file:
        file.write('{"event": "phase", "ste')
    [phase] = read_run(tmp_path).phases
    assert (phase.name, phase.outcome, phase.begins) == ("burst 2", "running", 3.0)
    script.record.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rum", "there is no run '{place}'; did you mean '{beside}'?"),
        ("other", "'{place}' has no record: there is no risen/run.json in it; give the output"),
        (".", "'{place}' has no record: there is no risen/run.json in it; did you mean '{beside}'"),
    ],
)
def test_what_is_no_run_is_refused(name: str, said: str, script: Script) -> None:
    (script.place.parent / "other").mkdir()
    place = script.place.parent / name
    with pytest.raises(DataError) as caught:
        read_run(place)
    assert str(caught.value).startswith(said.format(place=place, beside=script.place))


def test_a_damaged_description_is_one_line(script: Script) -> None:
    (script.place / "risen" / "run.json").write_text("{")
    with pytest.raises(DataError, match="cannot read the record in"):
        read_run(script.place)


# Series


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"environment": 5.0}, "run.json: 'environment' is 5.0, and no dict"),
        ({"reserved": "billing"}, "run.json: 'reserved' is 'billing', and no list"),
        ({"rewards": ["a"]}, "run.json: one of 'rewards' is no dict"),
    ],
)
def test_an_odd_value_of_the_description_is_left_out_and_named(
    script: Script, change: dict[str, Any], said: str
) -> None:
    path = script.place / "risen" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    run = read_run(script.place)
    assert list(run.unread) == [said]
    assert len(run.phases) == 2
    assert said in html_of(run)


def html_of(run: Any) -> str:
    from risen_plugin.commands.report.page import page

    return page(run).replace("&#x27;", "'")


def test_lines_and_logs_that_cannot_be_read_cost_nothing_else_and_are_named(
    script: Script,
) -> None:
    folder = script.place / "risen"
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "log", "step": "x"}\n[[1]]\n' + b"[" * 9999 + b"\n")
    (folder / "phase-001" / "phase.json").write_text("[" * 100_000)
    run = read_run(script.place)
    assert len(run.phases) == 2
    lines, logs = run.unread
    assert lines.startswith(f"{folder / 'events.jsonl'}: 3 lines are left out; ")
    assert logs == f"{folder / 'phase-001' / 'phase.json'}: ValueError: it is nested too deeply"
    assert any("left out: " in line for line in terminal.lines(run, 500))


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("phase", ["x"], "its column 'phase' holds string"),
        ("prompt", [1.5], "its column 'prompt' holds double"),
        ("score/follows", ["x"], "its column 'score/follows' holds string"),
        ("step", [None], "its column 'step' holds null"),
    ],
)
def test_a_log_with_a_column_of_another_type_costs_no_other(
    script: Script, column: str, values: list[Any], said: str
) -> None:
    path = script.place / "risen" / "phase-001" / FILE
    table = pq.read_table(path)
    odd = pa.array(values * table.num_rows)
    pq.write_table(table.set_column(table.column_names.index(column), column, odd), path)
    found = read_answers(script.place, {})
    assert found.by_phase == {2: 8}
    [reason] = found.unread
    assert reason.endswith(said)


def test_a_value_that_no_chart_can_show_costs_its_section_alone(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.event(1e308, "log", 40, loss=-1e308)
    shown = html_of(read_run(script.place))
    assert "This section cannot be shown" in shown
    assert "the report lacks the section 'The run'" in caplog.text
    assert 'id="rewards"' in shown


def test_measurements_become_points_in_time(script: Script) -> None:
    run = read_run(script.place)
    moments = [(11.0, 0.25), (40.0, 0.75), (51.0, 0.5), (90.0, 0.375), (90.0, 0.5)]
    assert series.adherence(run) == {"guard's instructions": moments}
    assert [moment for moment, _ in series.retention(run)] == [11.0, 40.0, 51.0, 90.0, 90.0]
    assert series.quality(run) == {"accuracy": [(10.5, 0.5), (11.0, 0.9), (51.0, 0.9)]}
    assert series.losses(run)["training"] == [(5.0, 2.0), (10.0, 1.0), (50.0, 0.5), (100.0, 0.25)]
    assert series.losses(run)["evaluation"] == [(10.5, 1.5)]


def test_what_an_evaluation_only_counts_is_no_quality_of_the_domain(tmp_path: Path) -> None:
    script = Script(tmp_path)
    counted = {"eval_num_tokens": 7500.0, "eval_entropy": 1.0, "eval_runtime": 2.0}
    script.event(1.0, "evaluation", 1, metrics={**counted, "eval_mean_token_accuracy": 0.5})
    assert series.quality(read_run(tmp_path)) == {"mean_token_accuracy": [(1.0, 0.5)]}
    script.record.close()


def test_what_the_guard_measures_during_a_phase_is_among_its_points(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.event(1.0, "guard", 1, number=1, when="before", measured={"adherence_strict": 0.1})
    script.event(2.0, "guard", 1, number=1, when="during", measured={"adherence_strict": 0.2})
    script.phase(1, 1, 1.0, 3.0, True, metrics(0.125, 0.5))
    points = series.adherence(read_run(tmp_path))["guard's instructions"]
    assert points == [(1.0, 0.125), (2.0, 0.2), (3.0, 0.5)]
    script.record.close()


def test_grpo_steps_of_phases_are_counted_on_and_controllers_add_to_them(script: Script) -> None:
    script.event(100.0, "control", 20, number=2, grpo_step=3, kl=9.0, beta=0.5)
    found = series.control(read_run(script.place))
    assert [place for place, _ in found["kl"]] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert dict(found["kl"])[7] == 9.0
    assert found["beta"] == [(7.0, 0.5)]
    assert "temperature" not in found


def test_the_reward_is_smoothed_within_each_phase_with_how_sure_it_is(script: Script) -> None:
    band = series.smoothed_reward(read_run(script.place))
    assert band is not None
    means = [0.15, 0.2, 0.25] * 2
    assert [x for x, _ in band.line] == [2, 3, 4, 6, 7, 8]
    assert [y for _, y in band.line] == pytest.approx(means)
    errors = [0.05, 0.1 / 3**0.5, 0.5 / 15**0.5 / 2] * 2
    assert [(high - low) / 2 for _, low, high in band.ends] == pytest.approx(errors)


def test_the_page_says_what_the_guard_could_see_and_which_facts_were_lost(tmp_path: Path) -> None:
    script = Script(tmp_path / "seeing")
    seen = {"guard/rows": 96, "guard/most_rows": 384, "guard/smallest_gain": 0.0701}
    facts = {"guard/facts_known": 20, "lost_facts": ["What is the capital of France?"]}
    script.phase(1, 10, 10.0, 20.0, True, metrics(0.25, 0.75, **seen, **facts))
    script.record.close()
    page = write_report(script.place).read_text()
    assert "the guard measured 96 of up to 384 instructions, which tell a gain of 0.070" in page
    assert "1 of 20 known facts are lost: What is the capital of France?" in page


def test_the_way_of_a_run_leaves_dropped_phases_out(script: Script) -> None:
    moves = series.moves(read_run(script.place).phases)
    assert [(phase.number, after) for phase, _, after in moves] == [
        (1, (0.75, 0.075)),
        (2, (0.375, 0.0375)),
    ]
    assert series.way(moves) == [(0.25, 0.025), (0.75, 0.075), (0.5, 0.05)]


def test_a_thinned_series_keeps_its_peaks_and_its_order() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[1234], points[5678] = (1234.0, 7.0), (5678.0, -7.0)
    thin = series.thinned(points, 400)
    assert len(thin) <= 400
    assert (1234.0, 7.0) in thin
    assert (5678.0, -7.0) in thin
    assert thin == sorted(thin)
    assert series.thinned(points[:400], 400) == points[:400]


@pytest.mark.parametrize(
    ("values", "shown"),
    [([], ""), ([1.0], "▄"), ([2.0, 2.0], "▄▄"), ([0.0, 7.0], "▁█"), ([0.0] * 30 + [1.0], "▁▁▁█")],
)
def test_a_sparkline_spans_its_latest_values(values: list[float], shown: str) -> None:
    assert series.sparkline(values, width=4) == shown


# Where it pays


def test_pass_rates_run_from_the_first_phase_to_the_latest_kept_one(script: Script) -> None:
    found = pays.over_run(read_run(script.place).phases, "families")
    assert [(c.name, c.rows, c.before, c.after) for c in found] == [
        ("billing", 40, 0.25, 0.75),
        ("returns", 40, 0.5, 0.45),
    ]
    # 1.96 * sqrt(0.25 * 0.75 / 40 + 0.75 * 0.25 / 40)
    assert found[0].half_width == pytest.approx(0.18978, abs=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ({"a": [0, 4]}, {"a": [4, 4]}, [("a", 1.0)]),
        ({"a": [0, 4]}, {"b": [4, 4]}, []),
        ({"a": [0, 0]}, {"a": [0, 0]}, []),
        ({"a": [2, 4], "b": [1, 4]}, {"a": [2, 4], "b": [3, 4]}, [("b", 0.5), ("a", 0.0)]),
    ],
)
def test_changes_are_of_what_was_measured_twice(
    before: dict[str, Any], after: dict[str, Any], changes: list[tuple[str, float]]
) -> None:
    measured = {"families_before": before, "families_after": after}
    phase = Phase(1, "risen", 1, 0.0, 1.0, 1, "", True, measured)
    assert [(c.name, c.change) for c in pays.over_phase(phase, "families")] == changes


def test_only_kept_phases_count_for_what_phases_changed(script: Script) -> None:
    found = pays.in_kept(read_run(script.place).phases, "families")
    assert found["billing"] == [("phase 1", 0.5)]


# Answers


def test_every_answer_is_counted_and_the_best_and_worst_are_shown(
    tmp_path: Path,
) -> None:
    script = Script(tmp_path)
    script.phase(1, 1, 0.0, 1.0, True, metrics(0.1, 0.2), answers=200)
    found = read_answers(tmp_path, {"follows": 1.0}, per_group=3, most=12)
    assert (found.count, found.by_phase) == (200, {1: 200})
    scores = found.by_reward["follows"][0]
    assert (scores.mean, scores.low, scores.high) == (99.5, 0.0, 199.0)
    assert scores.counts == [10] * 20
    silent = found.by_reward[EVIL][0]
    assert (silent.abstained, silent.errors, sum(silent.counts)) == (100, 100, 0)
    totals = {shown.total for shown in found.shown}
    assert {0.0, 199.0} <= totals
    assert len(found.shown) == 12
    assert any(isinstance(shown.scores[EVIL], str) for shown in found.shown)
    script.record.close()


def test_few_answers_are_all_shown_with_what_became_of_them(script: Script) -> None:
    found = read_answers(script.place, {"follows": 2.0})
    assert len(found.shown) == found.count == 16
    first = found.shown[3]
    assert (first.family, first.total, first.completion) == ("returns", 6.0, f"answer 3 {EVIL}")
    assert first.scores == {"follows": 3.0, EVIL: f"down {EVIL}"}
    assert first.met == (("punctuation:no_comma", True),)


def test_a_long_text_is_cut_and_says_so(tmp_path: Path) -> None:
    with RolloutLog(tmp_path / "risen" / "phase-001" / FILE) as log:
        log.add(
            Batch(
                step=1,
                prompts=["?"],
                completions=["x" * 5000],
                columns={},
                scores={"follows": [1.0]},
            ),
            phase=1,
        )
    [shown] = read_answers(tmp_path, {}).shown
    assert shown.completion == "x" * answers_module.LONGEST + "… (5,000 characters)"


@pytest.mark.parametrize("content", [b"", b"PAR1 torn", None])
def test_a_log_that_cannot_be_read_is_told_and_the_others_are_read(
    content: bytes | None, script: Script
) -> None:
    path = script.place / "risen" / "phase-001" / FILE
    if content is None:
        pq.write_table(pa.table({"other": [1]}), path)
    else:
        path.write_bytes(content)
    found = read_answers(script.place, {})
    assert found.count == 8
    [told] = found.unread
    assert told.startswith(f"'{path}' is no rollout log: ")


# The page


class Page(HTMLParser):
    """Collects what a browser would make of the page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.text = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.contents: dict[str, str] = {}
        self.open: list[str] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "title", "td", "h1", "dd", "style"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.contents[self.open[-1]] = self.contents.get(self.open[-1], "") + "\n" + data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(script: Script) -> Page:
    return Page(write_report(script.place))


def test_the_page_needs_nothing_else_and_allows_one_script(page: Page) -> None:
    scripts = page.named("script")
    assert [attributes.get("type") for attributes in scripts] == ["application/json", None]
    assert not any("src" in attributes for attributes in scripts)
    assert not {"link", "img", "iframe", "object", "base"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    [policy] = [m["content"] for m in page.named("meta") if m.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_nothing_that_a_run_recorded_is_read_as_html(page: Page) -> None:
    assert "owned" not in page.contents["title"]
    assert EVIL not in page.text
    assert "<img src=x" not in page.text
    assert f"verdict {EVIL}" in page.contents["td"]  # there, as text
    [packed] = [
        json.loads(content)
        for content in page.contents["script"].split("\n")
        if content.startswith('{"rewards"')
    ]
    assert packed["rewards"] == ["follows", EVIL]
    assert packed["answers"][0][4] == f"answer 0 {EVIL}"


def test_every_id_is_there_once_and_every_link_leads_somewhere(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] or "" for attributes in page.named("a")]
    assert len(links) == 10
    assert {link.removeprefix("#") for link in links} <= set(ids)
    for attributes in page.named("svg"):
        assert attributes["role"] == "img"
        assert attributes["aria-labelledby"] in ids
    for place in page.text.split("url(#")[1:]:
        assert place.partition(")")[0] in ids


def test_the_colours_of_the_drawings_are_those_of_the_page(page: Page) -> None:
    assert "prefers-color-scheme: dark" in page.contents["style"]
    assert "var(--series-1)" in page.text
    assert "#0100" not in page.text
    used = {place.partition(")")[0] for place in page.text.split("var(")[1:]}
    assert all(page.contents["style"].count(f"{name}:") == 2 for name in used), used


def test_the_page_tells_what_was_measured(page: Page) -> None:
    assert "1 of 2" in page.contents["dd"]
    assert "0.250 → 0.500" in page.contents["dd"]  # the run stands where phase 2 began
    assert "guard/probe_loss_after" in page.contents["td"]
    for told in ("0.250 → 0.750", "0.500 → 0.375", "+0.500 ± 0.190", "billing (reserved)", "down"):
        assert told in page.contents["td"], told


def test_the_same_run_gives_the_same_page(script: Script) -> None:
    first = write_report(script.place, script.place / "a.html").read_bytes()
    assert write_report(script.place, script.place / "b.html").read_bytes() == first


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_that_has_hardly_begun_has_a_page(steps: int, tmp_path: Path) -> None:
    script = Script(tmp_path)
    if steps:
        script.event(1.0, "log", 1, loss=1.0)
    page = Page(write_report(tmp_path))
    assert "0 of 0" in page.contents["dd"]
    assert ("Nothing has been recorded yet." in page.text) is not bool(steps)
    assert "going on" in page.contents["dd"]
    script.record.close()


def test_half_of_a_surrogate_pair_and_a_dollar_sign_stop_no_report(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.phase(1, 1, 0.0, 1.0, True, metrics(0.1, 0.2, verdict="cut \ud83d $x^"))
    folder = script.record.phase_folder(1)
    with RolloutLog(folder / FILE) as log:
        log.add(
            Batch(
                step=1,
                prompts=["a \ud83d"],
                completions=["\x00\u2028\ud83d"],
                columns={"family": ["$\\frac$"]},
                scores={"$x^": [1.0]},
            ),
            phase=1,
        )
    page = Page(write_report(tmp_path))
    assert "$x^" in page.text
    assert "\u2028" not in page.text
    script.record.close()


# The figures

GUARD = {"min_gain": 0.125, "max_probe_loss_rise": 0.0625, "max_forward_kl": 0.5}


class Drawing:
    """One figure of a page: its key, its texts and its thresholds, in the units of its axes."""

    def __init__(self, page: str, name: str) -> None:
        title = page.index(f'<title id="{name}-title">')
        self.whole = page[page.rindex("<figure", 0, title) : page.index("</figure>", title)]
        self.svg = self.whole[self.whole.index("<svg") :]
        self.key = re.findall(r"<span>([^<]*)</span></li>", self.whole)

    def box(self) -> tuple[float, float]:
        found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', self.svg)
        assert found
        return float(found[1]), float(found[2])

    def texts(self) -> list[tuple[str, float, float, float, float]]:
        """Each text with the box (left, top, right, bottom) that a wide sans-serif takes."""
        found = []
        for style, attributes, text in re.findall(
            r'<text style="([^"]*)"([^>]*)>([^<]*)</text>', self.svg
        ):
            size = float(re.search(r"font-size: ([\d.]+)px", style)[1])  # type: ignore[index]
            width = 0.62 * size * len(unescape(text))
            place = re.search(r"translate\(([-\d.]+) ([-\d.]+)\) rotate\(-90\)", attributes)
            at = {name: float(v) for name, v in re.findall(r' ([xy])="([-\d.]+)"', attributes)}
            before = {"middle": 0.5, "end": 1.0}.get(anchor(style), 0.0) * width
            if place or "rotate(-90" in attributes:
                x, y = (float(place[1]), float(place[2])) if place else (at["x"], at["y"])
                found.append((text, x - size, y - width + before, x, y + before))
            else:
                x, y = at["x"], at["y"]
                found.append((text, x - before, y - size, x - before + width, y))
        return found

    def ticks(self, axis: str) -> list[float]:
        """The labels of the ticks of ``x`` or ``y``."""
        pattern = rf'-{axis}tick_\d+">.*?<text[^>]*>([^<]*)</text>'
        labels = re.findall(pattern, self.svg, re.DOTALL)
        return [float(label.replace("\u2212", "-")) for label in labels]

    def unit(self, axis: str) -> Callable[[float], float]:
        """From the drawing's places along an axis to the values that its ticks name."""
        part = 1 if axis == "x" else 2
        places = [
            float(use[part])
            for use in re.finditer(r'<use [^>]*?x="([-\d.]+)" y="([-\d.]+)"', self.svg)
            if self._is_tick(use.start(), axis)
        ]
        labels = self.ticks(axis)
        places = places[: len(labels)]  # what comes later are markers of lines
        scale = (labels[-1] - labels[0]) / (places[-1] - places[0])
        return lambda place: labels[0] + (place - places[0]) * scale

    def _is_tick(self, place: int, axis: str) -> bool:
        groups = re.findall(r'<g id="[^"]*-([a-z0-9]+)_(?:\d+)"', self.svg[:place])
        marks = [group for group in groups if group in ("xtick", "ytick", "patch")]
        return bool(marks) and marks[-1] == f"{axis}tick" and groups[-1] == "line2d"

    def thresholds(self) -> list[tuple[float, float, float]]:
        """The dashed lines in ink: (from x, to x, y)."""
        pattern = r'<path d="M ([-\d.]+) ([-\d.]+) \nL ([-\d.]+) [-\d.]+ \n" style="([^"]*)"'
        x, y = self.unit("x"), self.unit("y")
        return [
            (x(float(begins)), x(float(ends)), y(float(level)))
            for begins, level, ends, style in re.findall(pattern, self.svg)
            if "stroke: var(--ink)" in style and "stroke-dasharray" in style
        ]


def anchor(style: str) -> str:
    found = re.search(r"text-anchor: (\w+)", style)
    return found[1] if found else "start"


def nearly(*expected: tuple[float, ...]) -> Any:
    return [pytest.approx(values, abs=2e-3) for values in expected]


@pytest.fixture(scope="module")
def judged_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run of three phases, one of them a burst, with thresholds and KL."""
    place = tmp_path_factory.mktemp("judged") / "run"
    script = Script(
        place,
        guard=GUARD,
        buffers={"min_gain": 0.0, "max_probe_loss_rise": 0.03125},
        control={"kl_target": 0.0625, "kl_budget": 0.25},
        model={"name": "org/tiny", "class": "LlamaForCausalLM"},
        environment={"begun": "2026-03-01T23:30:00-02:00", "resumed": "2026-03-03T08:00:00+00:00"},
    )
    script.event(5.0, "log", 5, loss=2.0)
    script.phase(1, 10, 10.0, 20.0, True, metrics(0.25, 0.75))
    kl = {"forward_kl": [0.375, 0.25, 0.5]}
    script.event(22.0, "guard", 10, number=1, when="after", grpo_step=4, intervals=kl)
    script.phase(2, 20, 30.0, 40.0, True, metrics(0.75, 0.75), kind="burst")
    own = metrics(0.5, 0.5, **{"guard/forward_kl": 0.125})
    script.phase(3, 30, 60.0, 80.0, False, own)
    script.event(100.0, "log", 40, loss=1.0)
    script.record.close()
    return write_report(place).read_text()


def test_the_top_names_the_model_and_when_the_run_began_in_utc(judged_page: str) -> None:
    top = judged_page[judged_page.index("<header>") : judged_page.index("</header>")]
    assert "<b>model</b> org/tiny" in top
    assert '<time datetime="2026-03-02T01:30Z">2 March 2026, 01:30 UTC</time>' in top
    assert "<b>resumed</b>" in top
    assert "3 March 2026, 08:00 UTC" in top


@pytest.mark.parametrize(
    ("environment", "model"),
    [({"begun": "soon"}, {"class": "Tiny"}), ({"begun": 5}, {"class": EVIL}), ({}, {})],
)
def test_the_top_leaves_out_what_the_record_lacks(
    environment: dict[str, Any], model: dict[str, Any], tmp_path: Path
) -> None:
    script = Script(tmp_path, environment=environment, model=model)
    script.record.close()
    top = write_report(tmp_path).read_text()
    assert "<b>begun</b>" not in top
    assert ("<b>model</b>" in top) is bool(model)
    assert EVIL not in top


def test_the_guards_thresholds_are_lines_from_where_each_phase_began(judged_page: str) -> None:
    adherence = Drawing(judged_page, "timeline-adherence")
    assert adherence.thresholds() == nearly(
        (10.0, 20.0, 0.375), (30.0, 40.0, 0.75), (60.0, 80.0, 0.625)
    )
    assert adherence.key[-1] == "least gain to be kept: 0.125; 0 (bursts)"
    retention = Drawing(judged_page, "timeline-retention")
    assert retention.thresholds() == nearly(
        (10.0, 20.0, 0.0875), (30.0, 40.0, 0.10625), (60.0, 80.0, 0.1125)
    )
    assert retention.key == ["probe", "largest rise to be kept: 0.062; 0.031 (bursts)"]


def test_what_the_guard_judged_stands_beside_its_threshold_by_phase(judged_page: str) -> None:
    gain = Drawing(judged_page, "judged-0")
    assert gain.thresholds() == nearly((0.5, 1.5, 0.125), (1.5, 2.5, 0.0), (2.5, 3.5, 0.125))
    assert gain.key == ["at least 0.125, 0 for bursts"]
    assert gain.ticks("x") == [1, 2, 3]
    assert Drawing(judged_page, "judged-1").key == ["at most 0.062, 0.031 for bursts"]


def test_the_kl_has_both_measures_and_all_its_bounds(judged_page: str) -> None:
    kl = Drawing(judged_page, "control-kl")
    assert kl.key == [
        "GRPO&#x27;s, logged",
        "forward KL, by the guard",
        "target 0.062, budget of a phase 0.25, largest forward KL 0.5",
    ]
    assert kl.thresholds() == nearly((0.5, 8.5, 0.0625), (0.5, 8.5, 0.25), (0.5, 8.5, 0.5))


def test_the_forward_kl_is_over_the_steps_of_all_phases(script: Script) -> None:
    at_end = {"guard/forward_kl": 0.5}
    script.phase(3, 30, 101.0, 120.0, True, metrics(0.5, 0.5, **at_end))
    change = {"forward_kl": [0.25, 0.0, 0.5]}
    script.event(110.0, "guard", 30, number=3, when="during", grpo_step=2, intervals=change)
    script.event(119.0, "guard", 30, number=3, when="after", grpo_step=4, intervals=change)
    assert series.forward_kl(read_run(script.place)) == [(10.0, 0.25), (12.0, 0.25)]


def test_a_share_is_drawn_from_0_to_1_and_a_loss_around_its_values(judged_page: str) -> None:
    assert Drawing(judged_page, "timeline-adherence").ticks("y") == [0.0, 0.25, 0.5, 0.75, 1.0]
    loss = Drawing(judged_page, "timeline-retention").ticks("y")
    assert min(loss) >= 0.0
    assert max(loss) < 0.15
    frontier = Drawing(judged_page, "frontier")
    assert min(frontier.ticks("x")) >= 0.0
    assert max(frontier.ticks("x")) <= 1.0


@pytest.mark.parametrize("phases", [1, 2, 25])
def test_phases_and_steps_have_whole_ticks(phases: int, tmp_path: Path) -> None:
    script = Script(tmp_path)
    for number in range(1, phases + 1):
        measured = metrics(1.0, 1.0, gap=0.1)
        script.phase(number, number, number * 2.0, number * 2.0 + 1, True, measured, answers=0)
    script.record.close()
    page = write_report(tmp_path).read_text()
    for name, last in (("judged-0", phases), ("honesty", phases), ("control-kl", 4 * phases)):
        ticks = Drawing(page, name).ticks("x")
        assert ticks == sorted({float(round(tick)) for tick in ticks})
        assert 1 <= ticks[0] <= ticks[-1] <= last
        assert len(ticks) <= 10
    assert max(Drawing(page, "frontier").ticks("x")) <= 1.0


def test_no_text_of_a_figure_lies_outside_of_it(judged_page: str) -> None:
    names = re.findall(r'<title id="([\w-]+)-title">', judged_page)
    assert len(names) >= 12
    for name in names:
        figure = Drawing(judged_page, name)
        width, height = figure.box()
        for text, left, top, right, bottom in figure.texts():
            assert -1 <= left <= right <= width + 1, (name, text)
            assert -1 <= top <= bottom <= height + 1, (name, text)


def test_the_legend_names_the_bands_that_the_run_has(
    judged_page: str, script: Script, tmp_path: Path
) -> None:
    def legend(page: str) -> list[str]:
        return re.findall(r'<i class="band ([a-z]+)">', page)

    assert legend(judged_page) == ["kept", "dropped", "done"]
    assert legend(write_report(script.place).read_text()) == ["kept", "dropped"]
    bare = Script(tmp_path / "bare")
    bare.event(1.0, "log", 1, loss=1.0)
    page = write_report(bare.place).read_text()
    assert legend(page) == []
    assert "Decisions" not in page
    bare.record.close()


def test_the_numbers_of_phases_above_an_axis_do_not_touch(tmp_path: Path) -> None:
    script = Script(tmp_path)
    for number in range(1, 25):
        kind = "burst" if number % 7 == 0 else "risen"
        measured = metrics(0.5, 0.5)
        script.phase(number, number, number * 2.0, number * 2.0 + 1, True, measured, 0, kind)
    script.record.close()
    drawing = Drawing(write_report(tmp_path).read_text(), "timeline-adherence")
    labels = [entry for entry in drawing.texts() if entry[0].endswith("✓")]
    assert len(labels) > 8
    assert all(here[3] < there[1] for here, there in pairwise(labels))


def test_a_reason_does_not_repeat_the_columns_beside_it(tmp_path: Path) -> None:
    script = Script(tmp_path)
    measured = "adherence 0.100 -> 0.200, probe loss 0.0100 -> 0.0200 (+0.0100)"
    for number, verdict in enumerate((measured, f"{measured}: gain is less than 0.2"), start=1):
        script.phase(number, 1, 0.0, 1.0, number == 1, metrics(0.1, 0.2, verdict=verdict))
    script.record.close()
    cells = Page(write_report(tmp_path)).contents["td"].split("\n")
    assert {"within all limits", "gain is less than 0.2"} <= set(cells)
    assert measured not in cells


def test_a_table_is_a_list_on_a_narrow_page_and_whole_on_paper(judged_page: str) -> None:
    assert '<td class="short" data-label="phase">phase 1</td>' in judged_page
    style = judged_page[judged_page.index("<style>") : judged_page.index("</style>")]
    paper = style[style.index("@media print") :]
    for rule in ("overflow: visible", "max-height: none", "break-inside: avoid"):
        assert rule in paper


def test_where_no_kl_was_measured_the_section_says_how_to_measure_it(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.event(1.0, "decision", 1, number=1, phase="risen", steps=1, reason="now")
    script.event(2.0, "control", 1, number=1, grpo_step=1, reward=1.0)
    script.event(3.0, "phase", 1, number=1, kind="risen", steps=1, accepted=True)
    script.record.close()
    assert "No KL was measured: it takes a beta above 0" in write_report(tmp_path).read_text()


def test_without_matplotlib_the_extra_is_named(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        write_report(script.place)


def test_a_run_that_is_not_there_is_said_before_a_library_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DataError, match="there is no run"):
        write_report(tmp_path / "nowhere")


def test_a_report_that_cannot_be_written_is_one_line(script: Script, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RecordError, match=r"cannot write the report .*; choose another --output"):
        write_report(script.place, tmp_path / "file" / "report.html")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("<b>", "&lt;b&gt;"),
        (Markup("<b>"), "<b>"),
        ("\"&'", "&quot;&amp;&#x27;"),
        (None, '<span class="none">-</span>'),
        (0.12345, "0.123"),
        (float("nan"), "nan"),
        (3, "3"),
    ],
)
def test_a_value_is_text_unless_it_is_markup(value: Any, told: str) -> None:
    assert html(value) == told


def test_data_in_a_script_cannot_end_it() -> None:
    text = data({"a": "</script><!-- &\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!-- &\u2028"}


def test_a_table_puts_numbers_to_the_right() -> None:
    made = table(("name", "n"), [("a", 1), ("b", None)], caption="<c>")
    assert '<td class="number">1</td>' in made
    assert '<td class="short">a</td>' in made
    assert "<caption>&lt;c&gt;</caption>" in made


# The terminal


def test_the_terminal_shows_the_phases_and_what_was_measured_last(script: Script) -> None:
    shown = terminal.lines(read_run(script.place), 100)
    assert shown[0] == "run: step 30 after 1 min 40 s (not running)"
    assert shown[1] == "·" * 11 + "█" * 29 + "·" * 11 + "░" * 39 + "·" * 10
    assert any(line.startswith("adherence, guard's instr") and " 0.5 " in line for line in shown)
    assert any(line.startswith("training loss") and line.endswith("█▄▂▁") for line in shown)
    assert any(line.startswith("step 10: phase 1 kept: verdict </script>") for line in shown)
    assert max(map(len, shown)) <= 100


def test_a_phase_that_nobody_goes_on_with_was_cut_off(tmp_path: Path) -> None:
    script = Script(tmp_path)
    script.event(1.0, "decision", 1, number=1, phase="risen", steps=4, reason="now", parameters={})
    assert [phase.outcome for phase in read_run(tmp_path).phases] == ["running"]
    script.record.close()
    assert [phase.outcome for phase in read_run(tmp_path).phases] == ["cut off"]
    assert "phase 1 cut off" in "\n".join(terminal.lines(read_run(tmp_path), 80))


def test_a_reason_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    script = Script(tmp_path)
    verdict = "\x1b[2J\x07two\nlines \u202e"
    script.phase(1, 1, 0.0, 1.0, True, metrics(0.1, 0.2, verdict=verdict))
    shown = terminal.lines(read_run(tmp_path), 80)
    assert all(line.isprintable() for line in shown)
    script.record.close()


def test_a_long_verdict_is_folded_and_not_cut(tmp_path: Path) -> None:
    script = Script(tmp_path)
    verdict = "adherence 0.500 -> 0.400, probe loss 1.1000 -> 1.1000 (+0.0000): gain is too small"
    script.phase(1, 1, 0.0, 1.0, True, metrics(0.1, 0.2, verdict=verdict))
    shown = terminal.lines(read_run(tmp_path), 60)
    first = next(index for index, line in enumerate(shown) if line.startswith("step 1: phase 1"))
    assert " ".join(line.strip() for line in shown[first:]).endswith(verdict)
    assert len(shown) - first > 1
    script.record.close()


@pytest.mark.parametrize("width", [8, 20, 40])
def test_no_line_is_longer_than_the_terminal(width: int, script: Script) -> None:
    assert max(map(len, terminal.lines(read_run(script.place), width))) <= width


def test_what_is_redrawn_takes_the_place_of_what_stood_there() -> None:
    assert terminal.redrawn([], ["a", "b"]) == "a\nb\n"
    assert terminal.redrawn(["a", "b"], ["c"]) == "\x1b[2F\x1b[Jc\n"


# The commands


@pytest.fixture
def risen() -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        return CliRunner().invoke(command_line(), [str(argument) for argument in arguments])

    return run


def test_the_command_writes_the_report_and_opens_it(
    script: Script, risen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(commands.webbrowser, "open", lambda url: opened.append(url) or True)
    path = script.place / "risen" / "report.html"
    done = risen("report", script.place, "--open")
    assert (done.exit_code, done.stdout) == (0, f"{path}\n")
    assert opened == [path.absolute().as_uri()]
    other = script.place / "other.html"
    assert risen("report", script.place, "--output", other).stdout == f"{other}\n"
    assert other.read_bytes() == path.read_bytes()
    assert len(opened) == 1


@pytest.mark.parametrize("command", [("report",), ("watch", "--once")])
def test_no_run_is_one_line_and_exit_code_2(
    command: tuple[str, ...], risen: Callable[..., Any], tmp_path: Path
) -> None:
    done = risen(*command, tmp_path / "none")
    assert done.exit_code == 2
    assert done.stderr == f"risen: there is no run '{tmp_path / 'none'}'\n"


def test_watching_a_run_that_has_ended_prints_it_once(
    script: Script, risen: Callable[..., Any]
) -> None:
    done = risen("watch", script.place)
    assert done.exit_code == 0
    assert done.stdout.startswith("run: step 30 after 1 min 40 s")
    assert "\x1b" not in done.stdout


def test_watching_prints_the_run_as_data(script: Script, risen: Callable[..., Any]) -> None:
    [line] = risen("watch", script.place, "--json").stdout.splitlines()
    data = json.loads(line)
    assert (data["run"], data["step"], data["going_on"]) == ("run", 30, False)
    assert {phase["outcome"] for phase in data["phases"]} <= {"kept", "dropped", "done", "cut off"}
    assert data["phases"]


def test_watching_shows_each_change_and_ends_with_the_run(
    tmp_path: Path, risen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(tmp_path)
    script.event(1.0, "log", 1, loss=4.0)
    happens = iter(
        (
            lambda: None,
            lambda: script.event(2.0, "log", 2, loss=3.0),
            lambda: script.record.close(),
        )
    )
    monkeypatch.setattr(commands.time, "sleep", lambda seconds: next(happens)())
    done = risen("watch", tmp_path)
    shown = [line for line in done.stdout.splitlines() if "step " in line]
    assert [line.partition(": ")[2] for line in shown] == [
        "step 1 after 1.0 s (going on)",
        "step 2 after 2.0 s (going on)",
        "step 2 after 2.0 s (not running)",
    ]


@pytest.mark.parametrize("command", [("report",), ("watch", "--once")])
def test_neither_command_loads_torch(command: tuple[str, ...], script: Script) -> None:
    code = f"""
import sys
from risen_plugin.cli import main
try:
    main([*{list(command)!r}, {str(script.place)!r}])
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", *[name for name in ("torch", "transformers", "datasets") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "RISEN_DISABLE_PLUGINS": ""},
    )
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_matplotlib_is_not_loaded_before_something_is_drawn() -> None:
    code = "import sys, risen_plugin.commands.report.figures; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    drawing.check_matplotlib()
