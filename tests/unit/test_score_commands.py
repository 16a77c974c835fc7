"""``risen score`` and ``risen rescore`` show what rewards see, and fail in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import risen_plugin
from risen_plugin.cli import command_line
from risen_plugin.contracts import Failed
from risen_plugin.record.rollouts import RolloutLog
from risen_plugin.rewards.batch import Batch

NO_COMMA, TITLE = "punctuation:no_comma", "detectable_format:title"
ROWS = [
    {"prompt": prompt, "completion": completion, "instruction_id_list": ids, "kwargs": kwargs}
    for prompt, completion, ids, kwargs in (
        ("Name a river.", "Rhine", [NO_COMMA], [{}]),
        ("Name two.", "Sure, here:\nRhine; Elbe", [NO_COMMA, TITLE], [{}, None]),
        ("Name none.", [{"role": "assistant", "content": "\x1b[31mNo"}], [], []),
    )
]
BAD_KWARGS = ROWS[0] | {
    "instruction_id_list": ["length_constraints:number_words"],
    "kwargs": [{"num_words": 3}],
}
CODE = """
from risen_plugin import Failed, Reward

class Halved:
    def __init__(self, inner: Reward):
        self.inner = inner

    def __call__(self, completions, **columns):
        return [score / 2 for score in self.inner(completions=completions, **columns)]

def unsure(completions, **columns):
    return [None if "No" in str(text) else Failed("the judge is down") for text in completions]

def nan(completions, **columns):
    return [float("nan")] * len(completions)

def few(completions, **columns):
    return [1.0]
"""


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands run in a folder of their own, 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(*ROWS)
    Path("mine.py").write_text(CODE)
    yield
    sys.modules.pop("mine", None)


def write(*rows: Any, to: str = "answers.jsonl") -> None:
    Path(to).write_text("".join(json.dumps(row) + "\n" for row in rows))


def risen(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(command_line(), arguments, input=stdin)


def listed(result: Result) -> list[Any]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(*arguments: str, shown: str = "") -> str:
    """The one line that a refusal is, with nothing written, and nothing printed but ``shown``."""
    before = sorted(Path().rglob("*"))
    result = risen(*arguments)
    assert result.exit_code == 2, result.output
    assert (result.stdout == "") is (shown == "")
    assert shown in result.stdout
    assert result.stderr.count("\n") == 1
    assert sorted(Path().rglob("*")) == before
    return result.stderr


# risen score


def test_score_shows_rows_constraints_and_what_they_come_to():
    assert risen("score", "constraints", "answers.jsonl").stdout == (
        "    row    score  strict  loose  answer\n"
        "      1    1.000  yes     yes    Rhine\n"
        "         + punctuation:no_comma  0 commas\n"
        "      2    0.000  no      no     Sure, here: Rhine; Elbe\n"
        "         ~ punctuation:no_comma  1 comma\n"
        "         - detectable_format:title  no title\n"
        "      3  abstain                 \N{REPLACEMENT CHARACTER}[31mNo\n"
        "\n"
        "rows       3: 2 score, 1 abstain, 0 error\n"
        "score      mean 0.500, 0.500 passed\n"
        "adherence  strict 0.500, loose 0.500 of 2 rows with constraints\n"
        "           strict 0.333, loose 0.667 of their 3 constraints (instruction level)\n"
        "\n"
        "constraint               rows  strict  loose\n"
        "detectable_format:title     1   0.000  0.000\n"
        "punctuation:no_comma        2   0.500  1.000\n"
    )


def test_score_of_another_reward_shows_no_constraints():
    result = risen("score", "length", "answers.jsonl", "-o", "low=1", "-o", "high=2", "--limit=1")
    assert result.stdout == (
        "    row    score  answer\n"
        "      1    1.000  Rhine\n"
        "\n"
        "rows       1: 1 score, 0 abstain, 0 error\n"
        "score      mean 1.000, 1.000 passed\n"
    )


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_of_a_result_is_wider_than_the_terminal(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    write(ROWS[1] | {"completion": "word " * 300})
    lines = risen("score", "constraints", "answers.jsonl").stdout.splitlines()
    assert max(map(len, lines)) <= columns


def test_score_as_json_is_one_object_per_row():
    first, second, third = listed(risen("score", "constraints", "answers.jsonl", "--json"))
    assert first == {
        "row": 1,
        "score": 1.0,
        "outcome": "score",
        "strict": True,
        "loose": True,
        "per_constraint": [True],
        "detail": ["punctuation:no_comma: met (0 commas)"],
    }
    assert second["per_constraint"] == [False, False]
    assert third == {"row": 3, "score": None, "outcome": "abstain"}


def test_accuracy_is_counted_by_row_and_by_instruction():
    [data] = listed(risen("score", "constraints", "answers.jsonl", "--summary", "--json"))
    assert data["adherence"] == {"rows": 2, "strict": 0.5, "loose": 0.5}
    assert data["instructions"] == {"count": 3, "strict": 1 / 3, "loose": 2 / 3}


def test_as_ifeval_score_and_verdicts_are_the_originals():
    pytest.importorskip("langdetect")
    pytest.importorskip("punkt")
    write(ROWS[0] | {"completion": "Rhine\uff0c Elbe"})

    [ours] = listed(risen("score", "constraints", "answers.jsonl", "--json"))
    [theirs] = listed(risen("score", "constraints", "answers.jsonl", "--json", "--as", "ifeval"))

    assert (ours["score"], ours["strict"]) == (0.0, False)
    assert (theirs["score"], theirs["strict"]) == (1.0, True)
    assert "reads no" not in refused("score", "constraints", "answers.jsonl", "--as", "ifevall")
    said = refused("score", "length", "answers.jsonl", "-o", "low=1", "-o", "high=2", "--as=ifeval")
    assert "--as ifeval is about constraints" in said


def test_thinking_sections_are_stripped_for_any_reward():
    write(ROWS[0] | {"completion": "<think>A river, or two?</think>\n\nRhine"})

    [kept] = listed(risen("score", "constraints", "answers.jsonl", "--json"))
    [bare] = listed(risen("score", "constraints", "answers.jsonl", "--json", "--strip-thinking"))
    shown = risen(
        "score", "length", "answers.jsonl", "-o", "low=1", "-o", "high=1", "--strip-thinking"
    )

    assert (kept["score"], bare["score"]) == (0.0, 1.0)
    assert "1.000  Rhine\n" in shown.stdout


def test_parquet_json_and_kwargs_as_text_are_read():
    import pyarrow
    from pyarrow import parquet

    rows = [row | {"kwargs": json.dumps(row["kwargs"])} for row in ROWS[:2]]
    parquet.write_table(pyarrow.Table.from_pylist(rows), "answers.parquet")
    Path("answers.json").write_text(json.dumps(rows))
    expected = listed(risen("score", "constraints", "answers.jsonl", "--json", "--limit=2"))

    for file in ("answers.parquet", "answers.json"):
        assert listed(risen("score", "constraints", file, "--json")) == expected
    Path("broken.parquet").write_bytes(b"PAR1")
    assert "cannot read 'broken.parquet'" in refused("score", "constraints", "broken.parquet")


def test_samples_of_lm_eval_are_read():
    doc = {name: ROWS[1][name] for name in ("prompt", "instruction_id_list", "kwargs")}
    sample = {
        "doc_id": 0,
        "doc": {"key": 1000, **doc},
        "arguments": {"gen_args_0": {"arg_0": doc["prompt"], "arg_1": {"until": []}}},
        "resps": [[ROWS[1]["completion"]]],
        "filtered_resps": [ROWS[1]["completion"]],
        "prompt_level_strict_acc": False,
    }
    write(sample, to="samples_ifeval.jsonl")

    [scored] = listed(risen("score", "constraints", "samples_ifeval.jsonl", "--json"))

    assert scored["per_constraint"] == [False, False]


PROMPTS = [
    {"key": key, **{name: row[name] for name in ("prompt", "instruction_id_list", "kwargs")}}
    for key, row in enumerate(ROWS[:2], start=7)
]


@pytest.mark.parametrize(
    ("shared", "options"),
    [("key", []), ("prompt", []), ("prompt", ["--join-by", "prompt"])],
)
def test_answers_are_joined_to_their_prompts(shared, options):
    write(*PROMPTS, to="prompts.jsonl")
    answers = [
        {shared: prompt[shared], "response": row["completion"]}
        for prompt, row in zip(PROMPTS, ROWS, strict=False)
    ]
    write(*reversed(answers), to="responses.jsonl")

    by = ("--prompts", "prompts.jsonl", *options)
    second, first = listed(risen("score", "constraints", "responses.jsonl", "--json", *by))

    assert (first["score"], second["score"]) == (1.0, 0.0)
    write(answers[0], to="responses.jsonl")
    result = risen("score", "constraints", "responses.jsonl", *by)
    assert "1 prompts of prompts.jsonl have no answer in responses.jsonl" in result.stderr


def test_what_cannot_be_joined_is_one_line():
    write(*PROMPTS, to="prompts.jsonl")
    write({"key": 9, "response": "Rhine"}, to="responses.jsonl")
    by = ("score", "constraints", "responses.jsonl", "--prompts", "prompts.jsonl")

    assert "responses.jsonl:1: prompts.jsonl has no row with the key '9'" in refused(*by)
    assert "has no column 'kee' to join by" in refused(*by, "--join-by", "kee")
    write(*PROMPTS, PROMPTS[0], to="prompts.jsonl")
    assert "prompts.jsonl:3 has the same key as prompts.jsonl:1" in refused(*by)
    assert "--prompts FILE, which is not given" in refused(*by[:3], "--join-by", "key")


def test_a_reward_that_never_ends_is_stopped_and_its_row_named():
    Path("mine.py").write_text(
        "import re\n\n"
        "def slow(completions, **columns):\n"
        "    return [float(bool(re.search('(a+)+$', text))) for text in completions]\n"
    )
    write(ROWS[0], ROWS[0] | {"completion": "a" * 60 + "!"})

    said = refused("score", "mine.py:slow", "answers.jsonl", "--timeout=0.3", shown="0.000")

    assert "answers.jsonl:2" in said
    assert "more than 0.3 s" in said


def test_an_error_that_the_reward_returns_has_its_reason():
    first, *_ = listed(risen("score", "mine.py:unsure", "answers.jsonl", "--json"))
    assert first == {"row": 1, "score": None, "outcome": "error", "error": "the judge is down"}


def test_the_summary_alone_is_one_object():
    [data] = listed(risen("score", "constraints", "answers.jsonl", "--summary", "--json"))
    assert data["outcomes"] == {"score": 2, "abstain": 1, "error": 0}
    assert data["per_constraint"]["punctuation:no_comma"]["loose"] == 1.0
    text = risen("score", "constraints", "answers.jsonl", "--summary").stdout
    assert text.startswith("rows       3: 2 score, 1 abstain, 0 error\n")


def test_out_receives_what_json_prints():
    result = risen("score", "constraints", "answers.jsonl", "--output", "scores.jsonl")
    assert result.stdout.startswith("    row    score")
    printed = risen("score", "constraints", "answers.jsonl", "--json").stdout
    assert Path("scores.jsonl").read_text(encoding="utf-8") == printed


def test_standard_input_is_read_where_the_file_is_a_dash():
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    result = risen("score", "constraints", "-", "--json", "--limit", "2", stdin=lines)
    assert [row["row"] for row in listed(result)] == [1, 2]


def test_columns_may_have_other_names():
    write({"question": "a", "reply": "Po", "answer": "po"})
    options = ("--prompt-column", "question", "--completion-column", "reply", "--json")
    assert listed(risen("score", "exact", "answers.jsonl", *options))[0]["score"] == 1.0


def test_passing_is_a_matter_of_the_bar():
    options = ("--summary", "--json", "--passes-at", "0.0")
    [data] = listed(risen("score", "constraints", "answers.jsonl", *options))
    assert data["pass_rate"] == 1.0


def test_a_row_that_cannot_be_scored_is_an_error_with_on_error_skip():
    write(ROWS[0], BAD_KWARGS, ROWS[1])
    with Path("answers.jsonl").open("a") as file:
        file.write("{no json\n")
    rows = listed(risen("score", "constraints", "answers.jsonl", "--on-error", "skip", "--json"))
    assert [row["outcome"] for row in rows] == ["score", "error", "score", "error"]
    assert "kwarg 'relation' is missing" in rows[1]["error"]
    assert rows[3]["error"].startswith("answers.jsonl:4 is not JSON")


def test_kwargs_that_cannot_be_parsed_name_the_row():
    write(ROWS[0], BAD_KWARGS)
    given = ("score", "constraints", "answers.jsonl", "--output", "scores.jsonl")
    assert refused(*given, shown="  1    1.000  yes") == (  # the row before it is not lost
        "risen: answers.jsonl:2: constraint 'length_constraints:number_words': kwarg 'relation' is "
        "missing; it must be 'less than' or 'at least'\n"
    )


def test_an_old_result_survives_a_failure():
    write("old", to="scores.jsonl")
    write(ROWS[0], BAD_KWARGS)
    given = ("score", "constraints", "answers.jsonl", "--output", "scores.jsonl")
    refused(*given, shown="1.000")
    assert Path("scores.jsonl").read_text() == '"old"\n'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("constrants", "answers.jsonl"), "did you mean 'constraints'?"),
        (("mine.py:unsur", "answers.jsonl"), "mine.py has no 'unsur'; did you mean 'unsure'?"),
        (("constraints", "anwers.jsonl"), "no file 'anwers.jsonl'; did you mean 'answers.jsonl'?"),
        (("constraints", "gone/a.jsonl"), "there is no folder 'gone' either"),
        (("constraints", "."), "cannot read '.': Is a directory"),
        (("length", "answers.jsonl"), "needs the options 'low' and 'high'"),
        (("length", "answers.jsonl", "-o", "low"), "the option 'low' has no value"),
        (("length", "answers.jsonl", "-o", "lo=1"), "has no option 'lo'; did you mean 'low'?"),
        (("exact", "answers.jsonl", "-o", "column=kwarg"), "lacks the column 'kwarg'"),
        (("mine.py:nan", "answers.jsonl"), "answers.jsonl:1: reward 'nan' (mine.py) returned nan"),
        (("mine.py:few", "answers.jsonl"), "returned 1 scores for 3 completions"),
        (("mine.py:few", "answers.jsonl", "--on-error=skip"), "returned 1 scores for 3"),
        (("exact", "answers.jsonl", "--completion-column", "answer"), "has no column 'answer'"),
        (("constraints", "answers.jsonl", "--output", "answers.jsonl"), "is the file that is read"),
        (("constraints", "answers.jsonl", "--output", "gone/x"), "cannot write --output 'gone/x'"),
        (("constraints", "answers.jsonl", "--output", "."), "is a folder; name a file"),
        (("constraints", "mine.py"), "mine.py:2 is not JSON"),
        (("constraints", "empty.jsonl"), "empty.jsonl has no rows"),
    ],
)
def test_what_cannot_be_scored_is_one_line(arguments, message):
    Path("empty.jsonl").write_text("\n\n")
    assert message in refused("score", *arguments)


def test_a_reader_that_leaves_early_is_no_error_to_speak_of():
    write(*ROWS * 2000)
    code = "from risen_plugin.cli import main; main()"
    command = [sys.executable, "-c", code, "score", "constraints", "answers.jsonl", "--json"]
    python_path = os.pathsep.join([str(Path(risen_plugin.__file__).parents[1]), *sys.path])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": python_path},
    ) as process:
        assert json.loads(process.stdout.readline())["row"] == 1
        process.stdout.close()
        assert process.stderr.read() == b""


# risen rescore


@pytest.fixture
def run() -> str:
    """A run of two phases; the logged reward likes the first answer of each group, the other none.

    Answers grow longer inside a group.
    """
    for phase in (1, 2):
        with RolloutLog(f"run/risen/phase-{phase:03d}/completions.parquet") as log:
            for step in (1, 2):
                log.add(
                    Batch(
                        step=step,
                        prompts=["Name a river."] * 4,
                        completions=["Po", "the Elbe", "the long Rhine", "Rhine, Elbe and Po"],
                        columns={"answer": ["Po"] * 4},
                        scores={
                            "first": [1.0, 0.0, 0.0, 0.0],
                            "judge": [0.5, 0.5, None, Failed("HTTP 503")],
                        },
                    ),
                    phase=phase,
                )
    return "run"


LENGTH_LABELLED = (
    *("--reward", "long=length"),
    *("-o", "long.low=3", "-o", "long.high=9", "-o", "long.slack=2"),
)
LENGTH = ("--reward", "length", "-o", "low=3", "-o", "high=9", "-o", "slack=2")


def test_rescore_compares_logged_and_new_rewards(run):
    result = risen("rescore", run, "--reward", "exact", *LENGTH_LABELLED, "--examples", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "16 answers in 4 groups\n"
        "\n"
        "reward           mean   pass  score  abstain  error  flat groups\n"
        "first (logged)  0.250  0.250     16        0      0    0 (0.000)\n"
        "judge (logged)  0.500  0.000      8        4      4    4 (1.000)\n"
        "exact           0.250  0.250     16        0      0    0 (0.000)\n"
        "long            0.625  0.500     16        0      0    0 (0.000)\n"
        "\n"
        "pair                    correlation  agree  best changes\n"
        "first (logged) ~ exact        1.000  1.000     0 (0.000)\n"
        "first (logged) ~ long        -0.870  0.250     4 (1.000)\n"
        "judge (logged) ~ exact            -  0.500     0 (0.000)\n"
        "judge (logged) ~ long             -  1.000     0 (0.000)\n"
        "exact ~ long                 -0.870  0.250     4 (1.000)\n"
        "\n"
        "phase 1, step 1, group 0\n"
        "  prompt  Name a river.\n"
        "  answer  Po\n"
        "    1.000  first (logged)\n"
        "    0.500  judge (logged)\n"
        "    1.000  exact\n"
        "    0.000  long\n"
    )


def test_rescore_shows_names_and_texts_of_a_log_without_obeying_them(run):
    acting = "\x1b[2J\u202e\x9b7"
    with RolloutLog("run/risen/phase-001/completions.parquet") as log:
        scores = {acting: [1.0, 0.0]}
        log.add(Batch(1, [acting] * 2, [acting, "x"], {"answer": [acting] * 2}, scores), phase=1)
    shown = risen("rescore", run, "--rewards", "exact", "--phase", "1")
    assert shown.exit_code == 0, shown.output
    assert "\\u001b[2J\\u202e\\u009b7 (logged)" in shown.stdout
    assert not [c for c in shown.stdout if not c.isprintable() and c != "\n"]


def test_rescore_as_json_has_rewards_pairs_and_examples(run):
    [data] = listed(risen("rescore", run, *LENGTH, "--phase", "2", "--json", "--examples", "1"))
    assert (data["answers"], data["groups"]) == (8, 2)
    assert list(data["rewards"]) == ["first (logged)", "judge (logged)", "length"]
    assert [pair["rewards"][1] for pair in data["pairs"]] == ["length", "length"]
    [example] = data["examples"]
    assert (example["phase"], example["completion"]) == (2, "Po")
    assert example["between"] == ["first (logged)", "length"]
    assert example["scores"]["judge (logged)"] == {"score": 0.5, "outcome": "score"}


def test_rescore_makes_the_reward_that_an_option_names(run):
    inside = ("h.inner=length", "h.inner.low=1", "h.inner.high=9", "long.low=1", "long.high=9")
    [data] = listed(
        risen(
            *("rescore", run, "--reward", "h=mine.py:Halved", "--reward", "long=length", "--json"),
            *(word for pair in inside for word in ("-o", pair)),
        )
    )
    assert data["rewards"]["h"]["mean"] == 0.5
    assert data["rewards"]["long"]["mean"] == 1.0


def test_rescore_writes_what_json_prints(run):
    risen("rescore", run, *LENGTH, "--output", "compared.json")
    printed = risen("rescore", run, *LENGTH, "--json").stdout
    assert Path("compared.json").read_text(encoding="utf-8") == printed


@pytest.mark.parametrize("columns", [80, 120])
def test_no_line_of_a_comparison_is_wider_than_the_terminal(run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    label = "a-reward-with-a-very-long-label-that-somebody-chose"
    result = risen("rescore", run, "--reward", f"{label}=exact", "--reward", f"{label}2=exact")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= columns


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rn", *LENGTH), "there is no run or rollout log 'rn'; did you mean 'run'?"),
        (("mine.py", *LENGTH), "'mine.py' is no rollout log: "),
        ((".", *LENGTH), "'.' has no rollouts: there is no risen/phase-NNN/completions.parquet"),
        (("run", *LENGTH, "--phase", "3"), "no rollouts of phase 3; it has: phase-001, phase-002"),
        (("run", "--reward", "lenght"), "no reward is called 'lenght'; did you mean 'length'?"),
        (("run", "--reward", "exact", "--reward", "exact"), "two rewards are called 'exact'"),
        (("run", "--reward", "exact", *LENGTH), "the option 'low=3' does not say whose it is"),
        (("run", "--reward", "constraints"), "lacks the column 'instruction_id_list'"),
        (("run", "--reward", "exact", "-o", "column=anser"), "did you mean 'answer'?"),
        (("run", "--reward", "mine.py:nan"), "row 1: reward 'nan' (mine.py) returned nan"),
        (("run", *LENGTH, "--output", "gone/x"), "cannot write --output 'gone/x'"),
    ],
)
def test_what_cannot_be_compared_is_one_line(run, arguments, message):
    assert message in refused("rescore", *arguments)


def test_with_on_error_skip_what_cannot_be_scored_is_counted(run):
    options = ("--reward", "mine.py:nan", "--on-error", "skip", "--json")
    [data] = listed(risen("rescore", run, *options))
    assert data["rewards"]["nan"]["outcomes"] == {"score": 0, "abstain": 0, "error": 16}


PUBLIC_FORMS = {
    "rlvr": '{"func_name": "validate_title"}',
    "multi": "[{'instruction_id': ['detectable_format:title'], 'kwargs': [None]}]",
}


@pytest.mark.parametrize("form", PUBLIC_FORMS)
def test_rows_in_the_public_forms_are_scored_as_they_are(form):
    asked = {"messages": [{"role": "user", "content": "Name one."}]}
    truth = {"ground_truth": PUBLIC_FORMS[form]}
    write(asked | truth | {"completion": "<<Rivers>> Rhine"}, asked | truth | {"completion": "No"})
    rows = listed(risen("score", "constraints", "answers.jsonl", "--json"))
    assert [row["per_constraint"] for row in rows] == [[True], [False]]


def test_a_public_form_that_no_check_knows_names_the_row():
    rows = [{k: v for k, v in ROWS[0].items() if k not in ("instruction_id_list", "kwargs")}]
    write(*(row | {"ground_truth": '{"func_name": "validate_tilte"}'} for row in rows))
    told = refused("score", "constraints", "answers.jsonl")
    assert told.startswith("risen: answers.jsonl:1: ")
    assert "validate_tilte" in told


def test_with_json_the_errors_are_counted_where_people_look():
    result = risen("score", "mine.py:unsure", "answers.jsonl", "--json")
    assert [row["outcome"] for row in map(json.loads, result.stdout.splitlines())] == [
        "error",
        "error",
        "abstain",
    ]
    assert result.stderr == (
        "2 of 3 rows could not be scored, the first one answers.jsonl:1: the judge is down\n"
    )


def test_a_reward_that_ends_the_program_does_not_end_ours():
    Path("mine.py").write_text("import sys\ndef out(completions, **columns):\n    sys.exit(0)\n")
    assert "raised SystemExit: 0" in refused("score", "mine.py:out", "answers.jsonl")
