"""The three sentences of a report, and the answers before and after beside each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from risen_plugin.commands.report import before_after, decision, terminal
from risen_plugin.commands.report.decision import Cost, Decision, Evidence, Gain, decide
from risen_plugin.commands.report.page import write_report
from risen_plugin.commands.report.paired import by_change, change, compared
from risen_plugin.kit.files import write_json
from risen_plugin.kit.intervals import Interval
from risen_plugin.record import answered
from risen_plugin.record.answered import Answer, Pair
from risen_plugin.record.reading import read_run
from risen_plugin.record.run_record import Record

EVIL = "</script><script>alert(1)</script>"
SURE = Gain(0.15, 0.55, Interval(0.4, 0.25, 0.5), 64, "report")
UNSURE = Gain(0.15, 0.2, Interval(0.05, -0.04, 0.15), 64, "report")
CHEAP = Cost(seconds=90.0, loss=0.01, loss_limit=0.05, kl=0.03)
KEPT = Evidence(1, 1, SURE, CHEAP, 0.99)
_ENDS = ("", "_low", "_high")
CHANCE = "gain may be chance, it is for sure only -0.050"


def told(evidence: Evidence) -> Decision:
    made = decide(evidence)
    assert len(made.sentences) == 3
    for sentence in made.sentences:
        assert sentence.endswith(".")
        assert "nan" not in sentence
    return made


def test_a_kept_phase_says_what_was_gained_what_it_cost_and_to_ship_it() -> None:
    assert told(KEPT).sentences == (
        "Strict adherence rose from 0.150 to 0.550 (+0.400; with 0.99 confidence at least +0.250 "
        "and at most +0.500), on 64 held-out instructions that decided nothing.",
        "It cost 1 min 30 s in phases; the probe loss rose by 0.0100 nats per token and the "
        "forward KL came to 0.030 nats per token.",
        "Ship: the gain is more than chance, and no harm that was measured is beyond its limit.",
    )


def test_a_dropped_phase_says_that_the_model_is_as_it_was_and_why() -> None:
    assert told(replace(KEPT, kept=0, reason="the probe loss rises by more than")).sentences == (
        "Nothing was gained: the guard dropped the only phase, and the model is as it was; the "
        "phase had come from 0.150 to 0.550, on 64 held-out instructions that decided nothing.",
        "It cost 1 min 30 s in phases, and nothing of the model; in the phase the probe loss rose "
        "by 0.0100 nats per token and the forward KL came to 0.030 nats per token.",
        "Do not ship: the guard dropped the phase, since the probe loss rises by more than.",
    )


@pytest.mark.parametrize(
    ("evidence", "advice", "why"),
    [
        (Evidence(), "not enough evidence", "a phase has to end first"),
        (Evidence(goes_on=True), "not enough evidence", "Not enough evidence so far: "),
        (replace(KEPT, kept=0, reason=CHANCE), "not enough evidence", "give the guard more rows"),
        (replace(KEPT, gain=None), "not enough evidence", "nothing says whether"),
        (replace(KEPT, gain=UNSURE), "not enough evidence", "the gain may be chance"),
        (
            replace(KEPT, gain=replace(UNSURE, sure_by_guard=True)),
            "ship",
            "by all checks the gain is more than chance",
        ),
        (
            replace(KEPT, gain=Gain(0.5, 0.5, Interval(0.0, -0.1, 0.1), 64, sure_by_guard=True)),
            "not enough evidence",
            "nothing was gained, on 64 held-out",
        ),
        (
            replace(KEPT, gain=Gain(0.5, 0.3, Interval(-0.2, -0.3, -0.1), 64)),
            "do not ship",
            "fewer instructions are followed than before",
        ),
        (replace(KEPT, cost=Cost(seconds=9.0)), "not enough evidence", "was not measured"),
        (
            replace(KEPT, ended=3, kept=3, cost=replace(CHEAP, loss=0.12)),
            "not enough evidence",
            "rose by 0.1200 in all, more than the 0.0500",
        ),
        (
            replace(KEPT, cost=replace(CHEAP, facts=(["Capital of France?"], 12))),
            "ship",
            "ask for the lost facts first",
        ),
        (
            replace(KEPT, cost=replace(CHEAP, wires=(0.08, 0.25))),
            "ship",
            "first read answers that trip a wire (their share rose from 0.080 to 0.250)",
        ),
    ],
)
def test_the_advice_follows_from_the_evidence(evidence: Evidence, advice: str, why: str) -> None:
    made = told(evidence)
    assert made.advice == advice
    assert why in made.verdict


def test_the_cost_names_every_measure_that_there_is_and_says_where_there_is_none() -> None:
    cost = replace(
        CHEAP, moved=[("task sums", 0.5, 0.4)], facts=(["Capital of France?"], 12), loss=-0.02
    )
    assert told(replace(KEPT, cost=cost)).cost == (
        "It cost 1 min 30 s in phases; the probe loss fell by 0.0200 nats per token, the forward "
        "KL came to 0.030 nats per token, task sums went from 0.500 to 0.400 and 1 of 12 known "
        "facts were lost (Capital of France?)."
    )
    assert told(replace(KEPT, cost=Cost())).cost == (
        "It cost a time that was not recorded in phases; what became of all else was not measured."
    )


def test_a_divergence_of_nothing_and_facts_that_nobody_knew_are_no_numbers() -> None:
    cost = told(replace(KEPT, cost=replace(CHEAP, kl=-0.001, facts=([], 0)))).cost
    assert cost.endswith("and the forward KL was below 0.001 nats per token.")


def test_several_phases_are_one_gain_and_all_dropped_ones_are_counted() -> None:
    assert "decided nothing over 2 kept phases." in told(replace(KEPT, ended=3, kept=2)).gained
    dropped = told(replace(KEPT, ended=3, kept=0, reason="gain is less"))
    assert "the guard dropped all 3 phases" in dropped.gained
    assert "the latest phase had come" in dropped.gained


@pytest.mark.parametrize(
    ("gain", "ends"),
    [
        (replace(SURE, change=None), "(how sure that is was not recorded)"),
        (replace(SURE, change=Interval(0.4, 0.4, 0.4)), "(+0.400; how sure that is was not asked)"),
        (replace(SURE, rows=None, on="guard"), "on instructions that the guard decides by"),
    ],
)
def test_a_gain_says_how_sure_it_is_or_that_nobody_knows(gain: Gain, ends: str) -> None:
    assert ends in told(replace(KEPT, gain=gain)).gained


# From a record


def pair(set_: str, row: int, before: bool, after: bool, **more: Any) -> dict[str, Any]:
    return {
        "set": set_,
        "row": row,
        "prompt": f"Name it, number {row}. {EVIL}",
        "constraints": ["punctuation:no_comma"],
        "before": {"text": f"old {EVIL}", "passed": before, "met": [before]},
        "after": {"text": f"new {EVIL}", "passed": after, "met": [after]},
        **more,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two phases: the first kept, the second dropped; 20 reported rows and 2 of the guard."""
    record = Record(tmp_path)
    record.begin({"rewards": [], "guard": {"confidence": 0.95, "max_probe_loss_rise": 0.05}})
    measured = {
        "guard/adherence_strict_before": 0.0,
        "guard/adherence_strict_after": 1.0,
        "guard/probe_loss_before": 1.0,
        "guard/probe_loss_after": 1.01,
        "verdict": "adherence 0.000 -> 1.000, probe loss 1.0000 -> 1.0100 (+0.0100)",
    }
    for number, accepted in ((1, True), (2, False)):
        told_ = {"number": number, "steps": 2, "reason": "r"}
        record.event("decision", step=number, phase="risen", **told_)
        record.event(
            "phase", step=number, kind="risen", accepted=accepted, metrics=measured, **told_
        )
        pairs = [pair("report", row, row == 19, row < 12) for row in range(20)]
        pairs += [pair("guard", 0, True, True), {"set": "odd"}, "odd", pair("guard", 1, True, True)]
        write_json(record.phase_folder(number) / "phase.json", {"logs": [], "answers": pairs})
    record.close()
    return tmp_path


def test_the_gain_is_that_of_the_reported_rows_compared_row_by_row(run: Path) -> None:
    made = decision.decision_of(read_run(run))
    assert made is not None
    assert made.advice == "ship"
    assert made.gained.startswith("Strict adherence rose from 0.050 to 0.600 (+0.550; ")
    assert made.gained.endswith("on 20 held-out instructions that decided nothing.")


@pytest.mark.parametrize("answers", [False, True], ids=["measured", "answers"])
def test_a_gain_that_nobody_asked_to_tell_from_chance_is_no_reason_to_ship(
    tmp_path: Path, answers: bool
) -> None:
    """With ``guard.confidence: null`` the guard's bounds are the measured value itself."""
    record = Record(tmp_path)
    record.begin({"guard": {"confidence": None, "max_probe_loss_rise": 0.05}})
    gain = {f"guard/{name}{end}": 0.06 for name in ("gain", "checks_gain") for end in _ENDS}
    measured = {
        "guard/adherence_strict_before": 0.56,
        "guard/adherence_strict_after": 0.62,
        "guard/probe_loss_before": 1.0,
        "guard/probe_loss_after": 1.01,
        **gain,
    }
    told_ = {"number": 1, "steps": 2, "reason": "r"}
    record.event("decision", step=1, phase="risen", **told_)
    record.event("phase", step=1, kind="risen", accepted=True, metrics=measured, **told_)
    if answers:
        pairs = [pair("report", row, row < 6, row < 7) for row in range(8)]
        write_json(record.phase_folder(1) / "phase.json", {"logs": [], "answers": pairs})
    record.close()
    made = decision.decision_of(read_run(tmp_path))
    assert made is not None
    assert made.advice == "not enough evidence"
    assert "of which the guard was not asked" in made.verdict
    assert "guard.confidence" in made.verdict


def test_odd_values_cost_the_sentences_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(run: Any) -> Evidence:
        raise ValueError("odd")

    monkeypatch.setattr(decision, "evidence_of", fail)
    assert decision.decision_of(read_run(run)) is None
    assert terminal.decision_lines(read_run(run)) == []
    assert write_report(run).is_file()


def test_the_answers_are_those_of_the_kept_phases_and_what_changed_comes_first(run: Path) -> None:
    found = compared(read_run(run))
    assert found is not None
    assert (found.first.number, found.last.number, found.is_kept) == (1, 1, True)
    ordered = by_change(found.pairs)
    assert [change(one) for one in ordered] == ["gained"] * 12 + ["lost"] + ["same"] * 9
    assert ordered[12].row == 19


def test_an_instruction_is_gained_as_a_whole_or_by_one_more_constraint() -> None:
    def changed(before: Answer, after: Answer) -> str:
        return change(Pair("report", 0, "?", ["a", "b"], before, after))

    half, none = Answer("", False, [True, False]), Answer("", False, [False, False])
    whole = Answer("", True, [True, True])
    assert changed(half, whole) == changed(none, half) == "gained"
    assert changed(half, none) == changed(whole, Answer("", False, [True, True])) == "lost"
    assert changed(half, Answer("", False, [False, True])) == "same"


def test_the_page_has_both_answers_with_what_each_met_and_needs_no_script(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    assert EVIL not in text
    assert '<div class="decision ship"' in text
    [section] = text.split('<section id="before-after">')[1:]
    section = section.partition("</section>")[0]
    assert section.count('<li class="gained">') == 12
    assert section.count('<li class="lost">') == 1
    assert section.count('<li class="same">') == 9
    assert "✓ met: punctuation:no_comma" in section
    assert "✗ not met: punctuation:no_comma" in section
    assert "▲ gained (12)" in section
    assert "<script" not in section
    for name in ("gained", "lost", "same"):
        assert f"section:has(.choice [value={name}]:checked) .pairs > li:not(.{name})" in text


def test_the_page_shows_a_bounded_number_and_says_of_how_many(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(before_after, "MOST", 3)
    text = write_report(run).read_text(encoding="utf-8")
    assert text.count('<li class="gained">') == 3
    assert "Shown are 3 of 22." in text


def test_the_terminal_has_the_sentences_and_some_that_changed(run: Path) -> None:
    lines = terminal.decision_lines(read_run(run), 80)
    assert max(map(len, lines)) <= 80
    text = " ".join(line.strip() for line in lines)
    assert "Ship: " in text
    assert text.count("gained: Name it") == 3
    assert "[not met: punctuation:no_comma] old" in text
    assert "[met: punctuation:no_comma] new" in text


# What a record keeps of the answers

ROW = {"prompt": "Go.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}


def test_answers_come_back_as_they_were_recorded_and_long_ones_are_cut() -> None:
    rows = [ROW, {"prompt": "Plain."}]
    before = answered.asked("report", rows, ["a, b", "x" * 5000], [False, None])
    after = answered.asked("report", rows, ["a b", "y"], [True, True])
    first, second = answered.pairs_in(answered.pairs_as_json(before, after))
    assert first.before == Answer("a, b", False, [False])
    assert first.after == Answer("a b", True, [True])
    assert (first.prompt, first.constraints) == ("Go.", ["punctuation:no_comma"])
    assert second.before.text == "x" * answered.LONGEST + "… (5,000 characters)"
    assert (second.before.passed, second.before.met) == (None, None)


def test_after_the_first_rows_only_verdicts_are_kept_and_reported_rows_come_first() -> None:
    guard = answered.asked("guard", [ROW] * 3, ["a"] * 3, [True] * 3)
    report = answered.asked("report", [ROW] * 2, ["b"] * 2, [False] * 2)
    kept = answered.bounded([*guard, *report], most=3)
    assert [(row.set, row.row, row.has_text) for row in kept] == [
        ("report", 0, True),
        ("report", 1, True),
        ("guard", 0, True),
        ("guard", 1, False),
        ("guard", 2, False),
    ]
    pairs = answered.pairs_in(answered.pairs_as_json(kept, kept))
    assert [(pair_.has_text, pair_.before.text) for pair_ in pairs[-2:]] == [(False, "")] * 2
    assert all(pair_.after.passed is not None for pair_ in pairs)


def test_rows_that_were_answered_only_once_are_no_pairs() -> None:
    both = answered.asked("guard", [ROW] * 2, ["a"] * 2, [True] * 2)
    assert len(answered.pairs_as_json(both, both[1:])) == 1
