"""The audit finds planted defects, each by a named check, and lets sound rewards pass."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from risen_plugin.cli import command_line
from risen_plugin.commands.audit.elsewhere import Source
from risen_plugin.commands.audit.empty_answers import (
    CLAIM,
    FAMILIES,
    control,
    degenerate,
    disguised,
    varied,
)
from risen_plugin.commands.audit.material import instructions
from risen_plugin.commands.audit.planted import PLANTED
from risen_plugin.commands.audit.report import WIDTH, Check, Report
from risen_plugin.commands.audit.run import CHECKS, audit, run_check, subject_of
from risen_plugin.commands.audit.timing import steepness
from risen_plugin.constraints import KNOWN
from risen_plugin.contracts import Failed, is_blank
from risen_plugin.errors import ConfigError, DataError

DEFECTIVE = Path(__file__).parent / "defective_rewards.py"


def subject(name, *, options=None, **settings):
    """A reward of the file of defects, or one on offer, ready for the checks."""
    source = Source(name if name in OFFERED else f"{DEFECTIVE}:{name}", options or {})
    made = source.load()
    if "clock" not in settings and name in ("slow", "quadratic", "linear", "stalls_once"):
        clock = made.value.__globals__["CLOCK"]
        settings["clock"] = lambda: clock[0]
    return subject_of(made.value, made.label, source=source, options=source.options, **settings)


OFFERED = ("exact", "regex", "length", "constraints")

RIGHT = {
    "sound": [{"completion": "We like art."}],
    "colour": [{"completion": "a nice colour"}],
    "date": [{"completion": "2026-01-31"}],
}
"""A right answer for rewards that none of the audit's own reaches."""

# Planted defects

DEFECTS = [
    ("always_pass", "empty"),
    ("always_pass", "constant"),
    ("all_but_blank", "constant"),
    ("substring", "substring"),
    ("substring_of_constraints", "substring"),
    ("answer_anywhere", "substring"),
    ("answer_anywhere", "wrong"),
    ("answer_anywhere", "stuffing"),
    ("passes_unknown_constraints", "rows"),
    ("random_criterion", "repeat"),
    ("RandomWhenMade", "process"),
    ("hash_dependent", "process"),
    ("mutates", "mutation"),
    ("mutates_a_column", "mutation"),
    ("order_dependent", "order"),
    ("leaks", "neighbours"),
    ("only_the_first_of_its_like", "duplicates"),
    ("crashes_on_empty", "crash"),
    ("echo_friendly", "echo"),
    ("echo_friendly", "stuffing"),
    ("believes_the_claim", "claim"),
    ("likes_repetition", "repetition"),
    ("unpicklable", "pickle"),
    ("not_a_number", "number"),
    ("infinite", "number"),
    ("in_words", "number"),
    ("slow", "time"),
    ("quadratic", "growth"),
    ("ends_the_program", "crash"),
    ("one_too_few", "count"),
    ("drops_duplicates", "count"),
    ("drops_duplicates", "duplicates"),
    ("accepts_white_space", "whitespace"),
    ("accepts_the_invisible", "invisible"),
    ("closed", "columns"),
    ("by_form", "chat"),
    ("says_nothing", "constant"),
]


@pytest.mark.parametrize(("name", "check"), DEFECTS)
def test_a_planted_defect_is_found_by_its_check(name, check):
    result = run_check(subject(name), check)
    assert result.verdict == "fail", result
    assert result.seen


def test_a_substring_of_a_word_in_a_column_is_found():
    defective = subject("substring_of_a_column", rows=[{"keyword": "anchor"}])
    result = run_check(defective, "substring")
    assert (result.verdict, result.accepted, result.probes) == ("fail", 3, 3)


def test_truth_values_and_one_form_are_worth_a_note():
    assert run_check(subject("truth_values"), "number").verdict == "note"
    assert "only chat" in run_check(subject("chat_only"), "chat").seen


def test_a_time_that_grows_with_the_length_is_no_finding():
    assert run_check(subject("linear"), "growth").verdict == "ok"
    assert run_check(subject("stalls_once"), "growth").verdict == "ok"  # a busy machine


@pytest.mark.parametrize("name", ["sound", "asynchronous"])
def test_a_sound_reward_is_clean(name):
    report = audit(subject(name, rows=RIGHT["sound"]))
    assert report.findings == []
    assert (report.accepted, report.false_accept_rate) == (0, 0.0)
    assert report.probes > 150


def test_what_a_reward_says_that_it_cannot_judge_is_no_crash_and_no_pass():
    def failing(completions, **columns):
        return [Failed("the judge is down") for _ in completions]

    made = subject_of(failing)
    assert run_check(made, "claim").verdict == "ok"
    assert run_check(made, "crash").verdict == "note"
    assert run_check(made, "constant").verdict == "fail"


def test_a_reward_that_accepted_nothing_is_not_called_clean():
    report = audit(subject("regex", options={"pattern": r"\d{4}-\d\d"}))
    assert [check.name for check in report.findings] == ["constant"]
    assert report.findings[0].seen == "nothing passed (highest 0); give --right or --column"
    assert report.closing().startswith("nothing passed; give --right or --column; 0 of ")
    assert not report.as_json()["clean"]


def overlong(completion_ids, **columns):
    """Punishes answers above 300 tokens, as TRL's own does."""
    return [-1.0 if len(ids) > 300 else 0.0 for ids in completion_ids]


def repeats(completions, **columns):
    """Punishes repeated words."""
    split = [text.split() for text in completions]
    return [len(set(words)) / len(words) - 1 if words else 0.0 for words in split]


@pytest.mark.parametrize("reward", [overlong, repeats])
def test_a_penalty_whose_best_score_is_0_is_audited_by_that(reward):
    report = audit(subject_of(reward))
    assert report.is_penalty
    assert report.passes_at == 0
    assert "a penalty: accepted from 0" in report.lines()[0]
    assert [check.name for check in report.findings] == []
    found = {check.name: check for check in report.checks}
    assert (found["empty"].verdict, found["constant"].verdict) == ("note", "ok")
    assert found["empty"].seen == "is not punished: ''"
    assert found["thinking"].verdict == "skip"


def test_a_penalty_may_be_audited_by_another_score():
    assert not subject_of(overlong, passes_at=1.0).is_penalty


def thought_and_answer(completions, **columns):
    """Asks for a thought and an answer after it."""
    wanted = re.compile(r"<think>.+</think>\s*\S+", re.DOTALL)
    return [float(bool(wanted.fullmatch(text))) for text in completions]


def test_an_answer_with_a_thought_and_an_answer_is_not_only_thought():
    made = subject_of(thought_and_answer, rows=[{"completion": "<think>\nso\n</think>\nyes"}])
    assert run_check(made, "right").verdict == "ok"
    assert run_check(made, "thinking").verdict == "ok"


# The built-ins

BUILT_IN = [
    ("exact", {}, ()),
    ("exact", {"normalize": False, "column": "solution"}, ()),
    ("regex", {"pattern": r"\bcolou?rs?\b"}, RIGHT["colour"]),
    ("regex", {"pattern": r"\d{4}-\d\d-\d\d", "full": True}, RIGHT["date"]),
    ("regex", {"pattern": r"(?i)\bsorry\b", "must_match": False}, ()),
    ("length", {"low": 3, "high": 60}, ()),
    ("length", {"low": 20, "high": 80, "slack": 0}, ()),
    ("constraints", {}, ()),
    ("constraints", {"partial": False}, ()),
]


@pytest.mark.parametrize(("name", "options", "rows"), BUILT_IN)
def test_the_built_in_rewards_pass_clean(name, options, rows):
    report = audit(subject(name, options=options, rows=rows))
    assert [(check.name, check.seen) for check in report.findings] == []
    assert report.false_accept_rate == 0.0
    assert report.probes > 40


def test_constraints_is_asked_about_every_id_that_has_a_verdict():
    report = audit(subject("constraints"))
    assert report.instructions == sum(case.id in KNOWN for case in PLANTED)
    assert report.probes > 800
    assert next(check for check in report.checks if check.name == "right").verdict == "ok"


def test_what_goes_by_length_alone_is_noted_and_not_blamed():
    check = run_check(subject("length", options={"low": 3, "high": 60}), "repetition")
    assert check.verdict == "note"
    assert check.seen.startswith("by design? accepts any text like 'p p p")


def test_a_pattern_without_word_boundaries_is_found():
    loose = subject("regex", options={"pattern": "yes"})
    assert run_check(loose, "substring").verdict == "fail"
    tight = subject("regex", options={"pattern": r"\byes\b"})
    assert run_check(tight, "substring").verdict == "ok"


def test_the_page_names_every_check_and_the_rates_of_the_built_ins():
    page = (Path(__file__).parents[2] / "docs/how-to/audit-a-reward.md").read_text("utf-8")
    table = page.split("## The checks")[1].split("\n## ")[0]
    named = re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (`.*?) \|", table, flags=re.M)))
    assert named == list(CHECKS)
    for name, options, rows in [BUILT_IN[0], BUILT_IN[2], BUILT_IN[5], BUILT_IN[7]]:
        report = audit(subject(name, options=options, rows=rows))
        notes = ", ".join(f"`{c.name}`" for c in report.checks if c.verdict == "note")
        assert re.search(
            rf"^\| `{name}` \|.*\| {report.probes} \| {report.accepted} \| {notes} \|$",
            page,
            flags=re.M,
        ), name


# Material


def test_every_family_has_answers_for_any_prompt():
    for family in FAMILIES:
        texts = degenerate(family, "Name 3 rivers.")
        assert texts
        assert len(set(texts)) == len(texts)
    for family in ("empty", "whitespace", "invisible"):
        assert all(map(is_blank, degenerate(family, "Name 3 rivers.")))


def test_a_control_has_the_shape_and_none_of_the_words():
    for text in (CLAIM, "Name 3 rivers, please."):
        other = disguised(text)
        assert [len(word) for word in other.split()] == [len(word) for word in text.split()]
        assert not set(other.lower().split()) & {w for w in text.lower().split() if w.isalpha()}
    assert len(set(varied("word " * 25).split())) == 25
    assert control("foreign", "这") is None


def test_the_questions_do_not_give_their_answers_away():
    for one in instructions(["answer"], [], "a reward"):
        assert one.row["answer"].casefold() not in one.prompt.casefold()
        assert one.row["answer"] not in one.wrong


def test_planted_ids_are_those_of_the_constraints():
    assert {case.id for case in PLANTED} <= set(KNOWN)


def test_a_needed_column_that_nobody_knows_is_asked_for():
    with pytest.raises(DataError, match=r"needs the column schema; give a value as in --column"):
        instructions(["schema"], [], "reward 'mine'")


def test_given_rows_take_the_place_of_the_own_ones():
    [one] = instructions(["answer"], [{"answer": "yes", "prompt": "Is it?"}], "a reward")
    assert one.right == ("yes",)
    assert one.prompt == "Is it?"
    made = instructions(["schema"], [{"schema": 1, "completion": "x"}], "a reward")
    assert len(made) > 3
    assert {(one.row["schema"], one.right) for one in made} == {(1, ("x",))}


@pytest.mark.parametrize(
    ("times", "power"),
    [
        ([(1000, 0.1), (2000, 0.2)], 1.0),
        ([(1000, 0.1), (2000, 0.4)], 2.0),
        ([(20, 0.001), (24, 0.016)], 0.0),  # too quick to tell
        ([(24, 0.016), (28, 0.256)], 17.99),
        ([], 0.0),
    ],
)
def test_steepness_is_the_power_of_the_length(times, power):
    assert steepness(times) == pytest.approx(power, abs=0.01)


# Targets


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "nowhere.at.all:reward",
            "module 'nowhere.at.all' cannot be imported: ModuleNotFoundError",
        ),
        ("missing.py:reward", "there is no file 'missing.py'"),
        (f"{DEFECTIVE}:alway_pass", "did you mean 'always_pass'?"),
        (f"{DEFECTIVE}:CLOCK", "cannot be called; a reward is a callable object"),
        ("lenght", "did you mean 'length'?"),
        (":reward", "write file.py:NAME or module:NAME"),
    ],
)
def test_a_reward_that_cannot_be_had_is_told_in_one_line(name, why):
    with pytest.raises(ConfigError) as caught:
        Source(name).load()
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_fails_while_it_is_imported_is_told(tmp_path):
    (tmp_path / "broken_reward.py").write_text("raise RuntimeError('no\\nGPU')\n")
    with pytest.raises(
        ConfigError, match=r"_reward\.py' cannot be imported: RuntimeError: no GPU$"
    ):
        Source(f"{tmp_path}/broken_reward.py:reward").load()
    assert "broken_reward" not in sys.modules


def test_a_reward_that_raises_whatever_it_is_given_cannot_be_audited():
    def wants(completions, **columns):
        return [columns["schema"] for _ in completions]

    with pytest.raises(
        DataError,
        match=r"raises on every answer: KeyError: 'schema'; if that is a column, .* 'schema=...'",
    ):
        subject_of(wants)


# The report


def report_of(*checks):
    return Report("reward 'x'", checks, 6, 100, 1.0, 0.5)


def test_an_allowed_finding_is_shown_and_not_counted():
    report = audit(subject("likes_repetition"), allow=["repetition", "process"])
    assert report.findings == []
    assert report.accepted == 0
    assert "1 allowed" in report.closing()
    with pytest.raises(ConfigError, match="no check 'repetitoin' to allow; did you mean"):
        audit(subject("sound"), allow=["repetitoin"])


def test_the_table_has_one_line_per_check_and_fits():
    report = report_of(Check("echo", "fail", "x" * 200, 3, 12), Check("order", "skip"))
    lines = report.lines()
    assert max(map(len, lines)) <= WIDTH
    assert [line.split()[0] for line in lines if line.startswith(("echo", "order"))] == ["echo"]
    assert lines[-1] == "1 finding (echo); 3 of 12 wrong answers accepted (25.0 %); 0.5 s"


# The command


@pytest.fixture
def risen(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            command_line().main(["audit", *arguments], prog_name="risen")
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


def test_a_clean_reward_ends_with_0_and_a_defective_one_with_1(risen):
    code, out, err = risen("length", "-o", "low=3", "-o", "high=60", "--quick")
    assert (code, err) == (0, "")
    assert re.search(r"^clean; 0 of \d+ wrong answers accepted", out, flags=re.M)
    code, out, _ = risen(f"{DEFECTIVE}:always_pass", "--quick")
    assert code == 1
    assert re.search(r"^empty +fail +6 of 6 ", out, flags=re.M)
    assert max(map(len, out.splitlines())) <= WIDTH


def test_a_reward_that_raises_an_interrupt_of_its_own_ends_no_audit(risen):
    code, _, err = risen(f"{DEFECTIVE}:interrupts", "--quick")
    assert code == 2
    assert "raises on every answer: RuntimeError: it raised KeyboardInterrupt, which nobody" in err


def test_the_report_as_json(risen):
    code, out, _ = risen(f"{DEFECTIVE}:substring", "--json", "--quick", "--right", "It is art.")
    data = json.loads(out)
    assert code == 1
    assert data["findings"] == ["substring"]
    assert not data["clean"]
    assert [check["name"] for check in data["checks"]] == list(CHECKS)
    assert 0 < data["false_accept_rate"] < 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["lenght"], "did you mean 'length'?"),
        (["length"], "needs the options 'low' and 'high'"),
        (["exact", "-o", "colum=x"], "did you mean 'column'?"),
        (["exact", "-o", "column"], "the option 'column' has no value; write name=value"),
        (["exact", "--column", "answer"], "the column 'answer' has no value; write name=value"),
        (["exact", "--column", "answer=yes"], "--column answer: yes is no JSON"),
        (["exact", "--columns", "absent.json"], "cannot read absent.json"),
        (["exact", "--allow", "eco"], "there is no check 'eco' to allow; did you mean 'echo'?"),
        (["exact", "-o", "column=schema"], "needs the column schema"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(risen, arguments, why):
    code, out, err = risen(*arguments)
    assert (code, out) == (2, "")
    assert why in err


def test_rows_come_from_a_file_of_json_or_json_lines(risen, tmp_path):
    rows = [{"prompt": "Is it?", "answer": "yes"}, {"prompt": "Was it?", "answer": "no"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("rows.json", "rows.jsonl"):
        code, out, _ = risen("exact", "--columns", str(tmp_path / name), "--quick")
        assert code == 0
        assert ": 2 instructions," in out
    (tmp_path / "bad.jsonl").write_text('{"answer": "yes"}\n{"answer"\n')
    code, _, err = risen("exact", "--columns", str(tmp_path / "bad.jsonl"))
    assert code == 2
    assert "bad.jsonl:2 is not JSON" in err


def test_the_template_plugin_is_clean():
    path = Path(__file__).parents[2] / "plugins" / "risen-length" / "risen_length.py"
    source = Source(f"{path}:LengthBand", {"low": 3, "high": 60})
    made = source.load()
    report = audit(subject_of(made.value, made.label, source=source, options=source.options))
    assert [(check.name, check.seen) for check in report.findings] == []
    assert report.false_accept_rate == 0.0
