"""A run as data: what is read, what is refused, and that every refusal names its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from risen_plugin.commands.train.adaptation import held_out, rewards_of, risen_section
from risen_plugin.commands.train.closing import closing_lines
from risen_plugin.commands.train.overrides import overridden
from risen_plugin.commands.train.rows import read_rows, split_off
from risen_plugin.commands.train.run_config import DataSource, RunConfig
from risen_plugin.config import LoraSettings
from risen_plugin.contracts import PhaseRecord
from risen_plugin.errors import ConfigError, DataError, RisenError
from risen_plugin.run.assembly import assemble

RISEN = {
    "rewards": ["constraints"],
    "generator": {"use": "jsonl", "options": {"path": "rows.jsonl"}},
    "scheduler": {"use": "after", "options": {"steps": 3}},
}
RUN = {"model": "org/model", "data": "train.jsonl"}


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(error: type[RisenError], act: Any) -> str:
    with pytest.raises(error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(name: str, *rows: Any) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def test_a_whole_run_is_read():
    run = RunConfig.from_dict(
        {
            "model": "org/model",
            "data": {"dataset": "org/rows", "split": "train[:9]", "columns": {"prompt": "q"}},
            "evaluation": 0.1,
            "fine_tune": {"max_steps": 3},
            "lora": {"r": 4},
            "risen": RISEN,
            "output": None,
            "seed": 7,
        }
    )
    assert run.data == DataSource(dataset="org/rows", split="train[:9]", columns={"prompt": "q"})
    assert run.lora == LoraSettings(r=4)
    assert run.risen is not None
    assert run.risen.seed == 7, "the run's seed holds where the section has none"
    assert run.output is None


def test_a_reward_in_a_file_is_found_with_its_options_and_weight():
    Path("mine.py").write_text(
        "class Even:\n"
        "    def __init__(self, step=2): self.step = step\n"
        "    def __call__(self, completions, **columns):\n"
        "        return [float(len(c) % self.step == 0) for c in completions]\n"
    )
    rewards = ["constraints", {"use": "mine.py:Even", "options": {"step": 3}, "weight": 0.5}]
    write("rows.jsonl", {"prompt": "a", "instruction_id_list": [], "kwargs": []})
    run = RunConfig.from_dict({**RUN, "risen": {**RISEN, "rewards": rewards}})
    assert run.risen is not None
    first, found = assemble(run.risen).rewards
    assert (first.__name__, found.__name__) == ("constraints", "Even")
    assert (found.reward.step, found.weight) == (3, 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modle": "x"}, "run has no key 'modle'; did you mean 'model'? It takes: "),
        ({"model": None}, "run lacks 'model'"),
        ({"data": None}, "neither data to fine-tune on nor a risen section"),
        ({"data": 3}, "run: data is 3; it is a file or a mapping"),
        ({"data": {"pth": "x"}}, "run: data has no key 'pth'; did you mean 'path'?"),
        ({"data": {"path": "x", "dataset": "y"}}, "run: data names path and dataset; give one of"),
        ({"data": {"split": "x"}}, "run: data names no rows; give one of"),
        ({"data": {"path": "x", "limit": 0}}, "data.limit is 0; least is 1"),
        (
            {"data": {"path": "x", "columns": {"promt": "q"}}},
            "run: data.columns has no key 'promt'; did you mean 'prompt'?",
        ),
        ({"evaluation": 1.5}, "evaluation is 1.5; it is a file, a share above 0 and below 1"),
        ({"evaluation": True}, "evaluation is True"),
        ({"evaluation": 0}, "evaluation is 0; least is 1"),
        ({"fine_tune": [1]}, "fine_tune is [1]; it is a mapping of TRL's SFTConfig fields"),
        ({"fine_tune": {"learning_rate": "1e-4"}}, "(in YAML write 1.0e-4)"),
        (
            {"fine_tune": {"max_steps": 3, "num_train_epochs": 1}},
            "sets both max_steps and num_train_epochs",
        ),
        ({"fine_tune": {"eval_strategy": "steps"}}, "there is no evaluation set; add evaluation"),
        ({"lora": 16}, "run: lora is 16; it is a mapping such as {r: 16, alpha: 32}"),
        ({"lora": {"rank": 16}}, "run: lora has no key 'rank'"),
        ({"lora": {"alfa": 16}}, "run: lora has no key 'alfa'; did you mean 'alpha'?"),
        ({"risen": True}, "run: risen is True; it is a mapping with rewards, generator"),
        ({"risen": {"rewards": ["constraints"]}}, "run: risen lacks 'generator'"),
        ({"risen": {**RISEN, "gaurd": {}}}, "risen has no key 'gaurd'; did you mean 'guard'?"),
        (
            {"risen": {**RISEN, "guard": {"row": 3}}},
            "run: risen: guard has no key 'row'; did you mean 'rows'?",
        ),
        ({"dtype": "fp32"}, "dtype is 'fp32'"),
        ({"dtype": "float8"}, "dtype is 'float8'; did you mean 'float"),
        ({"seed": -1}, "seed is -1; least is 0"),
        ({"output": 3}, "output is 3; it is the path of a folder"),
    ],
)
def test_what_no_run_can_use_is_refused_with_its_place(changes: dict[str, Any], words: str):
    message = said(ConfigError, lambda: RunConfig.from_dict({**RUN, **changes}))
    assert words in message
    assert message.startswith("run")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"quantize": "4bits", "lora": {}}, "quantize is '4bits'; did you mean '4bit'?"),
        ({"quantize": 4, "lora": {}}, "quantize is 4. It is one of 4bit, 8bit"),
        ({"quantize": "4bit"}, "quantized weights cannot be trained themselves; add lora: {}"),
    ],
)
def test_quantized_weights_are_held_in_4_or_8_bits_under_an_adapter(
    changes: dict[str, Any], words: str
) -> None:
    assert words in said(ConfigError, lambda: RunConfig.from_dict({**RUN, **changes}))
    run = RunConfig.from_dict({**RUN, "quantize": "8bit", "lora": {}})
    assert (run.quantize, run.lora) == ("8bit", LoraSettings())


def test_settings_without_data_to_use_them_on_are_refused():
    alone = {"model": "m", "risen": RISEN}
    assert RunConfig.from_dict(alone).data is None
    for more in ({"fine_tune": {"max_steps": 3}}, {"evaluation": 0.1}):
        message = said(ConfigError, lambda more=more: RunConfig.from_dict({**alone, **more}))
        assert "there is no data" in message


def test_a_file_that_is_missing_or_no_mapping_is_told_by_name():
    Path("run.yaml").write_text("model: a\nmodel: b\n")
    assert "'run.yml'; did you mean 'run.yaml'?" in said(
        ConfigError, lambda: RunConfig.from_yaml("run.yml")
    )
    assert "run.yaml:2 says 'model' twice" in said(
        ConfigError, lambda: RunConfig.from_yaml("run.yaml")
    )
    Path("run.yaml").write_text("- model\n")
    assert "run.yaml holds no mapping; it needs model" in said(
        ConfigError, lambda: RunConfig.from_yaml("run.yaml")
    )


# --set


@pytest.mark.parametrize(
    ("pair", "wanted"),
    [
        ("seed=3", {"seed": 3}),
        ("risen.grpo.beta=1e-3", {"risen": {"grpo": {"beta": 0.001}}}),
        ("model=a=b", {"model": "a=b"}),
        ("risen.rewards=[a, {use: b}]", {"risen": {"rewards": ["a", {"use": "b"}]}}),
        ("lora={}", {"lora": {}}),
        ("lora=null", {"lora": None}),
    ],
)
def test_a_value_is_set_at_its_path(pair: str, wanted: dict[str, Any]):
    assert overridden({}, [pair]) == wanted


def test_a_place_in_a_list_is_set_and_the_original_stays():
    data = {"risen": {"rewards": [{"use": "a"}, {"use": "b"}]}}
    changed = overridden(data, ["risen.rewards.1.weight=2"])
    assert changed["risen"]["rewards"][1] == {"use": "b", "weight": 2}
    assert data["risen"]["rewards"][1] == {"use": "b"}


@pytest.mark.parametrize(
    ("pair", "changed"),
    [
        ("risen.rewards.0.weight=2", {"rewards": [{"use": "exact", "weight": 2}]}),
        (
            "risen.rewards.0.options.column=c",
            {"rewards": [{"use": "exact", "options": {"column": "c"}}]},
        ),
        (
            "risen.scheduler.options.steps=5",
            {"scheduler": {"use": "after", "options": {"steps": 5}}},
        ),
        ("risen.held_out.use=evolve", {"held_out": {"use": "evolve"}}),
    ],
)
def test_a_bare_name_of_a_plugin_becomes_the_mapping_that_it_is_short_for(
    pair: str, changed: dict[str, Any]
):
    risen = {"rewards": ["exact"], "scheduler": "after", "held_out": "jsonl"}
    assert overridden({"risen": risen}, [pair]) == {"risen": {**risen, **changed}}


def test_a_bare_file_of_rows_becomes_the_mapping_that_it_is_short_for():
    changed = overridden({"data": "a.jsonl", "evaluation": "b.jsonl"}, ["data.limit=5"])
    assert changed == {"data": {"path": "a.jsonl", "limit": 5}, "evaluation": "b.jsonl"}


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("rewards.0.wieght=2", "rewards.0 is 'a' and holds no 'wieght'"),
        ("seed", "--set 'seed' sets nothing"),
        ("=3", "sets nothing"),
        ("a..b=3", "sets nothing"),
        ("model.name=x", "model is 'm' and holds no 'name'; set model itself"),
        ("rewards.2=x", "rewards is a list of 1; name a place from 0 to 0"),
        ("lora={", "is not valid YAML"),
    ],
)
def test_an_override_that_cannot_be_set_is_told(pair: str, words: str):
    data = {"model": "m", "rewards": ["a"]}
    assert words in said(ConfigError, lambda: overridden(data, [pair]))


# Rows


CHAT = [{"role": "user", "content": "q"}]
TOLD = [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ({"prompt": "q", "completion": "a", "x": 1}, {"prompt": "q", "completion": "a"}),
        ({"prompt": CHAT, "completion": "a"}, {"prompt": CHAT, "completion": TOLD}),
        ({"prompt": "q", "completion": TOLD}, {"prompt": CHAT, "completion": TOLD}),
        ({"messages": [*CHAT, *TOLD], "id": 3}, {"messages": [*CHAT, *TOLD]}),
        ({"text": "all of it"}, {"text": "all of it"}),
    ],
)
def test_each_form_of_row_is_read_with_its_columns_alone(row: Any, kept: Any):
    assert read_rows(DataSource(path=write("rows.jsonl", row))) == [kept]


def test_columns_can_be_renamed_and_rows_limited():
    path = write("rows.jsonl", *({"question": str(n), "answer": "a"} for n in range(5)))
    source = DataSource(path=path, columns={"prompt": "question", "completion": "answer"}, limit=2)
    assert [row["prompt"] for row in read_rows(source)] == ["0", "1"]


GOOD = {"prompt": "q", "completion": "a"}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "rows.jsonl has no rows"),
        ([GOOD, 3], "rows.jsonl:2 is of type int, not a mapping of columns"),
        (
            [{"promt": "q", "completion": "a"}],
            "no usable columns among promt, completion ('promt'; did you mean 'prompt'?); a row",
        ),
        (
            [{"instruction": "q"}],
            "a row has prompt and completion, messages, or text, and columns:",
        ),
        ([GOOD, {"text": "a"}], "rows.jsonl:2 has the columns text but rows.jsonl:1 the columns"),
        ([{"prompt": 3, "completion": "a"}], "rows.jsonl:1: column 'prompt' is 3; it is a text or"),
        ([{"prompt": "", "completion": "a"}], "rows.jsonl:1: column 'prompt' is empty"),
        ([{"messages": "hello"}], "column 'messages' is 'hello'; it is a list of chat messages"),
        ([{"text": ["a"]}], "rows.jsonl:1: column 'text' is ['a']; it is a text"),
        ([GOOD, {"prompt": CHAT, "completion": TOLD}], "text and chat prompts side by side"),
    ],
)
def test_a_row_that_cannot_be_learned_is_told_by_its_place(rows: list[Any], words: str):
    message = said(DataError, lambda: read_rows(DataSource(path=write("rows.jsonl", *rows))))
    assert words in message


def test_a_malformed_line_is_told_by_its_number():
    Path("rows.jsonl").write_text(json.dumps(GOOD) + "\n\n{'prompt': 3\n")
    assert "rows.jsonl:3 is not JSON" in said(
        DataError, lambda: read_rows(DataSource(path="rows.jsonl"))
    )


def test_a_missing_column_of_a_renaming_is_told_with_its_near_miss():
    source = DataSource(path=write("r.jsonl", {"question": "q"}), columns={"prompt": "qestion"})
    assert "r.jsonl:1 has no column 'qestion'; did you mean 'question'?" in said(
        DataError, lambda: read_rows(source)
    )


def test_an_evaluation_set_is_split_off_by_the_seed():
    rows = [{"text": str(n)} for n in range(20)]
    kept, held = split_off(rows, 0.25, seed=1)
    assert (len(kept), len(held)) == (15, 5)
    assert sorted([*kept, *held], key=str) == sorted(rows, key=str)
    assert split_off(rows, 5, seed=1) == (kept, held), "a number of rows says the same as a share"
    assert split_off(rows, 5, seed=2) != (kept, held)
    for part in (0.001, 20):
        assert "leave some on both sides" in said(
            DataError, lambda part=part: split_off(rows, part, seed=1)
        )


# Rewards and rows of an adaptation


def test_rewards_are_named_with_commas_or_apart_each_with_its_options():
    assert rewards_of(["constraints,length"], ["length.low=1", "length.high=5"]) == [
        {"use": "constraints", "options": {}},
        {"use": "length", "options": {"low": 1, "high": 5}},
    ]
    assert rewards_of(["my.py:Right"], ["slack=2"]) == [
        {"use": "my.py:Right", "options": {"slack": 2}}
    ]
    assert "no reward is named" in said(ConfigError, lambda: rewards_of([], []))
    assert "named twice" in said(ConfigError, lambda: rewards_of(["exact", "exact"], []))


def test_a_file_with_too_few_instructions_for_the_guard_is_refused():
    for rows, words in ((0, "holds no instructions"), (13, "holds 13 instructions; give 14 or")):
        path = write("rows.jsonl", *({"prompt": str(n)} for n in range(rows)))
        with pytest.raises(DataError, match=words):
            held_out(path, "jsonl")


@pytest.mark.parametrize(("rows", "guard", "reported"), [(1000, 64, 64), (40, 10, 5), (16, 7, 2)])
def test_a_small_file_keeps_most_of_its_rows_to_train_on(rows: int, guard: int, reported: int):
    path = write("rows.jsonl", *({"prompt": str(n)} for n in range(rows)))
    assert held_out(path, "jsonl") == {"rows": guard, "report_rows": reported}
    assert held_out(path, "constraints") == {}, "other generators do not run out of rows"


@pytest.mark.parametrize(("rows", "reserve"), [(127, 0), (128, None)])
def test_of_few_instructions_no_family_is_reserved(rows: int, reserve: int | None):
    """A family that is reserved unasked may take half of the rows along."""
    path = write("rows.jsonl", *({"prompt": str(n)} for n in range(rows)))
    section = risen_section(path, [{"use": "exact"}], scheduler={"use": "after"})
    assert section.get("reserve") == reserve


def test_the_embedded_model_is_named_so_unless_a_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from risen_plugin.commands.train.models import check_name
    from risen_plugin.embedded import base_model

    monkeypatch.chdir(tmp_path)
    assert check_name("embedded") == str(base_model().resolve())
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "config.json").write_text("{}")
    assert check_name("embedded") == str((tmp_path / "embedded").resolve())


def test_a_missing_folder_in_one_that_is_there_is_refused_without_asking_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from risen_plugin.commands.train.models import check_name

    monkeypatch.chdir(tmp_path)
    Path("out/first-run").mkdir(parents=True)
    assert "there is no model folder out/frist-run; did you mean 'out/first-run'?" in said(
        ConfigError, lambda: check_name("out/frist-run")
    )
    assert check_name("org/model") == "org/model"


@pytest.mark.parametrize("fields", [{"bf16": True}, {"gradient_checkpointing": True}])
def test_a_run_of_risen_alone_says_how_it_computes(fields: dict[str, Any]):
    run = RunConfig.from_dict({"model": "org/model", "risen": RISEN, "fine_tune": fields})
    assert run.fine_tune == fields


def test_a_run_of_risen_alone_has_nothing_to_fine_tune_with():
    run = {"model": "org/model", "risen": RISEN, "fine_tune": {"bf16": True, "max_steps": 2}}
    message = said(ConfigError, lambda: RunConfig.from_dict(run))
    assert "fine_tune has max_steps, but there is no data to fine-tune on" in message
    assert "a run of RISEN alone takes bf16, fp16, " in message


def closing(*, accepted: bool, steps: int = 0) -> list[str]:
    return closing_lines(
        Path("out"),
        steps=steps,
        losses=None,
        phases=[PhaseRecord("risen", 2, 1, "after", accepted, {"verdict": "as measured"})],
        seconds=3.0,
        is_adapter=False,
        reinforces=True,
    )


def test_a_run_of_risen_alone_that_kept_nothing_says_that_it_saved_what_it_began_with():
    assert closing(accepted=False)[1:] == [
        "saved model and tokenizer, which are what the run began with, to out in 3 s",
        "nothing was learned; no dropped adapter was saved; risen.keep_dropped: true saves it",
    ]
    Path("out/risen/phase-001/dropped").mkdir(parents=True)
    said_last = closing(accepted=False)[-1]
    assert said_last.endswith("the dropped adapter is in out/risen/phase-001/dropped")
    for learned in (closing(accepted=True), closing(accepted=False, steps=4)):
        assert learned[-2:] == [
            "saved model and tokenizer to out in 3 s",
            "next: risen export out out-bundle",
        ]
