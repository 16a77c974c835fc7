"""``risen train``, ``adapt`` and ``advise`` on a tiny model: train, save, resume, refuse."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from risen_export.gate.instructions import gather
from risen_export.gate.settings import GateSettings
from risen_plugin.commands.advise import measuring
from risen_plugin.commands.train import training
from risen_plugin.commands.train.recipe import Kind
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.contracts import text_of
from risen_plugin.embedded import orders
from risen_plugin.instructions.plain import plain_prompts
from risen_plugin.record.held_out import read_held_out
from risen_plugin.record.run_record import read_events

from .run_commands import (
    CODE,
    DROP,
    GRPO,
    INTERRUPTED,
    KEEP,
    count,
    done,
    refused,
    risen,
    run_yaml,
    same,
    weights,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("at_home")]

# train


def test_a_run_is_trained_reinforced_saved_and_told():
    result = done("train", run_yaml(), "--output", "out", "--set", "seed=3")
    said = result.stdout.splitlines()
    assert said[0].startswith("fine-tuned 4 steps, evaluation loss ")
    assert said[1].startswith("RISEN phase 1 kept: adherence ")
    assert said[2].startswith("saved model and tokenizer to out in ")
    assert said[3] == "next: risen export out out-bundle"
    assert not same(weights("out"), weights("model"))
    kept = yaml.safe_load(Path("out/run.yaml").read_text())
    assert (kept["seed"], kept["output"]) == (3, "out")
    assert json.loads(Path("out/risen/run.json").read_text())["seed"] == 3
    for file in ("config.json", "tokenizer.json", "chat_template.jinja"):
        assert Path("out", file).is_file()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained("out")
    AutoModelForCausalLM.from_pretrained("out")


def test_the_record_of_a_run_holds_what_its_graphs_are_held_to():
    done("train", run_yaml(), "--output", "out", "--quiet")
    [reward] = json.loads(Path("out/risen/run.json").read_text())["rewards"]
    assert reward["named"] == {"use": "mine.py:letters", "options": {}}
    assert gather(GateSettings(), Path("out")) == (
        None,
        (
            "adherence is measured without reward 'letters': 'mine.py:letters' is code at a place, "
            "and only what installed plugins offer is used",
            "adherence was not measured: no reward of the run can be made again",
        ),
    )
    named = GateSettings(rewards=[{"use": "mine.py:letters", "passes_at": 0.0}])
    found, notes = gather(named, Path("out"))
    assert found is not None
    assert len(found.rows) == KEEP["rows"] + 2 * KEEP["report_rows"]  # and as many unseen ones
    assert all("prompt" in row for row in found.rows)
    assert found.max_new_tokens == GRPO["max_completion_length"]
    assert not notes


def test_a_run_whose_phases_were_all_dropped_ends_with_1_and_says_so_in_json():
    arguments = ("train", run_yaml(), "--output", "out", "--json")
    dropping = ("--set", f"risen.guard={json.dumps(DROP)}", "--set", "fine_tune.max_steps=2")
    result = risen(*arguments, *dropping)
    assert result.exit_code == 1, result.output
    data = json.loads(result.stdout)
    assert (data["saved"], data["steps"], data["all_dropped"]) == ("model", 2, True)
    assert [phase["accepted"] for phase in data["phases"]] == [False]
    assert data["evaluation_loss"].keys() == {"before", "after"}
    assert Path("out/config.json").is_file()
    again = risen(*arguments, *dropping, "--resume")
    assert (again.exit_code, json.loads(again.stdout)) == (1, data)


def test_a_resumed_run_ends_where_the_whole_one_does():
    done("train", run_yaml(), "--output", "whole", "--quiet")
    done("train", run_yaml(), "--output", "cut", "--quiet")
    cut = weights("cut")
    shutil.rmtree("cut/checkpoint-4")
    for name in ("model.safetensors", "config.json", "finished.json"):
        Path("cut", name).unlink()
    done("train", "cut/run.yaml", "--output", "cut", "--resume", "--quiet")
    assert not Path("cut/risen.1").exists(), "it goes on in the record of the run"
    assert same(weights("cut"), weights("whole"))
    assert same(weights("cut"), cut)
    told = read_events(Path("cut/risen/events.jsonl"))
    evaluated = [event["step"] for event in told if event["event"] == "evaluation"]
    assert evaluated == sorted(set(evaluated)), "a step is evaluated once"
    other = ("train", "cut/run.yaml", "--set", "fine_tune.learning_rate=0.5", "--output", "cut")
    said = refused(*other, "--resume")
    assert "is another run than the one in cut: fine_tune.learning_rate was " in said
    forced = done(*other, "--resume", "--force", "--quiet")
    assert "goes on with a change: fine_tune.learning_rate was 0.001 and is 0.5" in forced.stderr
    assert "learning_rate: 0.5" in Path("cut/run.yaml").read_text()


def test_a_run_that_has_ended_is_not_run_again(monkeypatch: pytest.MonkeyPatch):
    first = done("train", run_yaml(), "--output", "out", "--quiet")
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    again = done("train", "out/run.yaml", "--output", "out", "--resume", "--quiet")
    assert again.stdout == first.stdout
    assert "risen: the run in out has ended; there is nothing left to do" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before
    other = ("train", "out/run.yaml", "--output", "out", "--resume", "--set", "risen.guard.rows=5")
    assert "risen.guard.rows was 4 and is 5" in refused(*other)
    monkeypatch.setenv("RANK", "1")
    second = done("train", "out/run.yaml", "--output", "out", "--resume", "--quiet")
    assert (second.stdout, second.stderr) == ("", ""), "of several processes, one speaks"


def test_a_run_that_is_resumed_in_its_last_phase_records_what_the_whole_one_does():
    changes = {"per_device_train_batch_size": 4, "save_steps": 2, "learning_rate": 0.001}
    file = run_yaml(
        fine_tune={**changes, "max_steps": 4, "eval_steps": 1, "logging_steps": 1}, evaluation=8
    )
    done("train", file, "--output", "whole", "--quiet")
    Path("mine.py").write_text(CODE.replace("    texts", INTERRUPTED + "    texts"))
    sys.modules.pop("mine", None)
    assert risen("train", file, "--output", "out", "--quiet").exit_code == 130
    done("train", file, "--output", "out", "--quiet", "--resume")
    whole, resumed = (
        [
            (event["event"], event["step"])
            for event in read_events(Path(folder) / "risen" / "events.jsonl")
        ]
        for folder in ("whole", "out")
    )
    assert resumed == whole
    assert [event for event, _ in whole].count("evaluation") == 5


def test_an_adapter_of_the_users_own_is_trained_and_saved():
    result = done("train", run_yaml(lora={"r": 4}, risen=None), "--output", "out", "--quiet")
    assert "saved adapter and tokenizer to out" in result.stdout
    config = json.loads(Path("out/adapter_config.json").read_text())
    assert config["r"] == 4
    assert Path(config["base_model_name_or_path"]) == Path("model").resolve()


def test_a_run_that_ends_before_its_phase_says_so():
    scheduler = {"use": "alternate", "options": {"fine_tune": 9, "risen": 2}}
    data = yaml.safe_load(Path(run_yaml()).read_text())
    file = run_yaml(risen={**data["risen"], "scheduler": scheduler})
    assert "the run ends without RISEN phase (" in done("train", file, "--output", "out").stderr


def test_an_interrupted_run_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch):
    from risen_plugin.commands.train import training

    def interrupt(*arguments: Any, **options: Any) -> None:
        Path("out/checkpoint-2").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupt)
    result = risen("train", run_yaml(), "--output", "out")
    assert result.exit_code == 130
    assert "risen: the run in out goes on with --resume\n" in result.stderr


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_a_folder_that_another_process_writes_to_is_refused_at_once(resume: tuple[str, ...]):
    holder = (
        "import sys; from pathlib import Path; from risen_plugin.record import lock;"
        "lock.take(Path('out')); print('taken', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holder]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        said = refused("train", run_yaml(), "--output", "out", *resume)
        process.communicate("")
    assert f"another run writes to out (process {process.pid}, since " in said


@pytest.mark.parametrize(
    ("changes", "arguments", "words"),
    [
        ({"fine_tune": {"max_stesp": 3}}, (), "did you mean 'max_steps'?"),
        ({"fine_tune": {"seed": 3}}, (), "fine_tune may not set 'seed': it is the run's seed"),
        ({"fine_tune": {"optim": "adamx"}}, (), "fine_tune.optim is 'adamx'"),
        ({"fine_tune": {"learning_rate": "fast"}}, (), "fine_tune.learning_rate is 'fast'"),
        ({"fine_tune": {"max_steps": "twenty"}}, (), "fine_tune.max_steps is 'twenty'"),
        ({"fine_tune": {"load_best_model_at_end": True}}, (), "load_best_model_at_end"),
        ({"model": "modle"}, (), "model modle cannot be loaded; did you mean 'model'"),
        ({"model": "embeded"}, (), "there is no model embeded; did you mean 'embedded'"),
        ({"model": "./modle"}, (), "there is no model folder ./modle; did you mean 'model'?"),
        ({"model": "train.jsonl"}, (), "model train.jsonl is a file"),
        ({"model": "."}, (), "model . is a folder without config.json; did you mean 'model'?"),
        ({"data": "trian.jsonl"}, (), "there is no file 'trian.jsonl'; did you mean 'train.jsonl'"),
        ({"data": {"path": "mine.py"}}, (), "mine.py:2 is not JSON"),
        ({}, ("--set", "risen.grpo.beata=0.1"), "grpo has 'beata', which is no field"),
        ({}, ("--set", "risen.rewards.0.use=constraint"), "did you mean 'constraints'?"),
        ({}, ("--set", "risen.guard.rows=400"), "set 402 apart; lower them"),
        ({}, ("--set", "lora.target_modules=[q_prj]"), "did you mean 'q_proj'?"),
        ({}, ("--resume",), "there is no run to resume in out"),
        ({}, ("--set", "risen.generator.options.path=no"), "run.yaml: "),
        ({}, ("--output", "/proc/none/out"), "cannot write to /proc/none/out: "),
        ({}, ("--output", "model"), "model holds other files and no run; name another"),
        ({"guard": {}}, (), "has no key 'guard'; it belongs under risen: risen.guard"),
        ({"seed": "one"}, (), "run.yaml: seed is 'one'; it is a whole number"),
        ({}, ("--set", "risen.guard.domain=metric:accuracy"), "has no compute_metrics; name a rew"),
        ({}, ("--output", "mine.py"), "mine.py is a file; name a folder with --output"),
    ],
)
def test_what_a_run_cannot_use_is_refused_in_one_line_and_leaves_nothing(
    changes: dict[str, Any], arguments: tuple[str, ...], words: str
):
    assert words in refused("train", run_yaml(**changes), "--output", "out", *arguments)


# adapt


ADAPT = (
    *("adapt", "model", "--instructions", "instructions.jsonl", "--output", "out", "--quiet"),
    *("--rewards", "mine.py:letters", "--steps", "2", "--set", "risen.rewards.0.passes_at=0"),
    *("--set", f"risen.grpo={json.dumps(GRPO)}"),
)


def test_a_new_adapter_stands_on_the_model_and_is_saved_if_it_pays():
    before = weights("model")
    result = done(*ADAPT, "--set", f"risen.guard={json.dumps(KEEP)}")
    assert result.stdout.startswith("RISEN phase 1 kept: adherence ")
    assert "next: risen export out out-bundle" in result.stdout
    [phase] = json.loads(Path("out/finished.json").read_text())["data"]["phases"]
    assert 0.0 < phase["metrics"]["seconds_said"] < 600.0
    assert 0.0 < phase["metrics"]["seconds_taken"] < 600.0
    assert same(weights("model"), before)
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = json.loads(Path("out/adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(base) == Path("model").resolve()
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = PeftModel.from_pretrained(model, "out")
    assert any(p.abs().sum() > 0 for name, p in adapted.named_parameters() if "lora_B" in name)
    assert not list(Path("out").glob("checkpoint-*"))


def test_without_instructions_a_model_learns_from_the_prompts_of_the_package():
    grpo = ("--set", f"risen.grpo={json.dumps(GRPO)}", "--steps", "1")
    guard = ("--set", f"risen.guard={json.dumps(KEEP)}")
    result = done("adapt", "model", "--output", "out", "--quiet", *grpo, *guard)
    said = "no --instructions: learns from the 525 plain prompts of the package, with constraints"
    assert result.stderr.count(said) == 1
    assert result.stdout.startswith("RISEN phase 1 kept: adherence ")
    risen_section = yaml.safe_load(Path("out/run.yaml").read_text())["risen"]
    assert risen_section["generator"] == {"use": "constraints", "options": {"path": "plain"}}
    assert risen_section["rewards"][0]["use"] == "constraints"
    held = read_held_out(Path("out/risen"))
    assert held is not None
    assert {text_of(row["query"]) for row in held.rows["guard"]} <= set(plain_prompts())


def test_the_embedded_model_learns_from_what_it_knows():
    grpo = ("--set", f"risen.grpo={json.dumps(GRPO)}", "--steps", "1")
    guard = ("--set", f"risen.guard={json.dumps(KEEP)}")
    result = done("adapt", "embedded", "--output", "out", "--quiet", *grpo, *guard)
    assert "learns from the 640 messages to an order desk" in result.stderr
    generator = yaml.safe_load(Path("out/run.yaml").read_text())["risen"]["generator"]
    assert generator == {"use": "jsonl", "options": {"path": "orders"}}
    held = read_held_out(Path("out/risen"))
    assert held is not None
    messages = {text_of(row["prompt"]) for row in orders.instructions()}
    assert {text_of(row["prompt"]) for row in held.rows["guard"]} <= messages


def test_a_larger_model_gets_the_defaults_of_its_size_where_nothing_else_is_set(
    monkeypatch: pytest.MonkeyPatch,
):
    kind = Kind(135e6, vocabulary=49_152)  # the tiny model passes for a larger one
    monkeypatch.setattr("risen_plugin.commands.train.command.kind_of", lambda model: kind)
    small = {"max_completion_length": 8, "num_generations": 2, "per_device_train_batch_size": 4}
    pairs = [f"risen.grpo.{name}={value}" for name, value in small.items()]
    pairs += [f"risen.guard={json.dumps(KEEP)}", "risen.curriculum.initial=64"]
    pairs += ["risen.mending.rows=4", "risen.mending.tokens=8"]
    sets = [part for pair in pairs for part in ("--set", pair)]
    result = done("adapt", "model", "--output", "out", "--quiet", "--steps", "1", *sets)
    assert "defaults for about 135 M parameters on cpu: learning rate 0.0004" in result.stderr
    run = yaml.safe_load(Path("out/run.yaml").read_text())["risen"]
    assert run["rollout"] == "auto"
    assert run["grpo"] == {
        "learning_rate": 4e-4,
        "lr_scheduler_type": "linear",
        "warmup_steps": 3,
        "temperature": 0.8,
        **small,
    }


@pytest.mark.parametrize(("pair", "steps"), [("seed=1", 25), ("risen.mending=null", 50)])
def test_a_run_without_mended_answers_has_more_steps(
    monkeypatch: pytest.MonkeyPatch, pair: str, steps: int
):
    kind = Kind(135e6, vocabulary=49_152)
    monkeypatch.setattr("risen_plugin.commands.train.command.kind_of", lambda model: kind)
    read: list[RunConfig] = []
    monkeypatch.setattr(
        "risen_plugin.commands.train.command._check", lambda run, *more: read.append(run)
    )
    done("adapt", "model", "--check", "--set", pair)
    assert read[0].risen is not None
    assert read[0].risen.scheduler.options["steps"] == steps


def test_what_is_written_wrong_is_told_before_the_model_is_looked_at():
    assert "did you mean 'most_rows'" in refused("adapt", "gone", "--set", "risen.guard.most_row=9")


def test_a_generator_and_a_reward_that_are_named_take_the_prompts_of_the_package():
    Path("mine.py").write_text(
        "def talk(completions, **columns):\n    return [1.0] * len(completions)\n"
    )
    plain = ("--generator", "jsonl", "--rewards", "mine.py:talk")
    grpo = ("--set", f"risen.grpo={json.dumps(GRPO)}")
    result = done("adapt", "model", *plain, *grpo, "--check")
    assert "prompts of the package by way of jsonl, rewarded by mine.py:talk" in result.stderr


def test_an_adaptation_that_is_interrupted_in_its_phase_goes_on(monkeypatch: pytest.MonkeyPatch):
    guard = ("--set", f"risen.guard={json.dumps(KEEP)}")
    whole = [argument if argument != "out" else "whole" for argument in ADAPT]
    done(*whole, *guard)
    Path("mine.py").write_text(CODE.replace("    texts", INTERRUPTED + "    texts"))
    sys.modules.pop("mine", None)
    cut = risen(*ADAPT, *guard)
    assert cut.exit_code == 130, cut.output
    assert "risen: the run in out goes on with --resume" in cut.stderr
    assert "out holds a run; --resume goes on with it" in refused(*ADAPT, *guard)
    said = refused(*ADAPT, *guard, "--resume", "--set", "lora.r=5")
    assert "risen: adapt is another run than the one in out: lora.r was " in said
    loud = [argument for argument in ADAPT if argument != "--quiet"]
    result = done(*loud, *guard, "--resume")
    assert "RISEN phase 1 begins again with 2 steps" in result.stderr
    assert same(weights("out"), weights("whole"))
    assert not Path("out/risen.1").exists(), "it goes on in the record of the run"
    assert "there is nothing left to do" in done(*ADAPT, *guard, "--resume").stderr


def test_a_dropped_adapter_is_not_saved_unless_it_is_wanted_all_the_same():
    drop = ("--set", f"risen.guard={json.dumps(DROP)}")
    result = risen(*ADAPT, *drop)
    assert result.exit_code == 1, result.output
    assert result.stdout.startswith("RISEN phase 1 dropped: adherence ")
    assert "nothing was saved but the record in out/risen" in result.stdout
    assert "next: risen report out says more" in result.stdout
    assert not Path("out/adapter_config.json").exists()
    assert "out holds a run that has ended; name another folder" in refused(*ADAPT, *drop)
    wanted = ["kept" if one == "out" else one for one in ADAPT if one != "--quiet"]
    loud = done(*wanted, *drop, "--steps", "1", "--keep-anyway", "--json")
    data = json.loads(loud.stdout)
    assert (data["saved"], data["all_dropped"], data["output"]) == ("adapter", True, "kept")
    assert "RISEN phase 1 dropped: adherence " in Path("kept/README.md").read_text()
    assert "RISEN phase 1 of 1 step (after: " in loud.stderr
    assert "fine-tune -> " not in loud.stderr, "nothing is fine-tuned"
    assert any(value.abs().sum() > 0 for n, value in weights("kept").items() if "lora_B" in n)


def test_retention_is_measured_on_plain_queries_where_there_are_some():
    from risen_plugin.callback import RisenCallback
    from risen_plugin.commands.train import training
    from risen_plugin.commands.train.models import load
    from risen_plugin.commands.train.run_config import RunConfig

    rows = [
        {"prompt": [{"role": "user", "content": f"{n}, in capitals"}], "query": str(n)}
        for n in range(12)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = yaml.safe_load(Path(run_yaml()).read_text())
    data["risen"]["generator"]["options"]["path"] = "rows.jsonl"
    run = RunConfig.from_dict({"model": "model", "risen": data["risen"], "lora": {}})
    prepared = training.prepare(run, Path("out"), quiet=True)
    assert isinstance(prepared.callback, RisenCallback)
    assert prepared.own_answers is not None
    model, tokenizer = load("model", "auto", lora=run.lora, seed=0)
    held = prepared.callback.run_state.instructions.set_apart(4, 2)
    prepared.own_answers.bind(prepared.callback, model, tokenizer)
    probe = list(prepared.own_answers)
    held_out = {row["query"] for row in (*held.guard, *held.report)}
    assert probe
    asked = {row["text"] if "text" in row else row["prompt"][0]["content"] for row in probe}
    assert asked <= held_out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rewards", "exact"), "the column 'answer'"),
        (("--instructions", "instructions.jsonl"), "no reward is named"),
        (  # constraints alone need no reward to be named; the next fault is told
            ("--instructions", "no.jsonl", "--generator", "constraints"),
            "there is no file 'no.jsonl'",
        ),
        (("--instructions", "instruction.jsonl", "--rewards", "exact"), "did you mean 'instruc"),
        (("--instructions", "instructions.jsonl", "--rewards", "exat"), "risen: adapt: no reward"),
        (("--instructions", "instructions.jsonl", "--rewards", "exat"), "did you mean 'exact'?"),
        (
            ("--instructions", "instructions.jsonl", "--rewards", "exact", "-o", "colum=x"),
            "has no option 'colum'",
        ),
        (
            ("--instructions", "instructions.jsonl", "--rewards", "exact", "--probe", "no.jsonl"),
            "cannot read the probe no.jsonl",
        ),
        (
            ("--instructions", "instructions.jsonl", "--rewards", "exact", "--set", "lora=null"),
            "risen: adapt trains an adapter",
        ),
    ],
)
def test_an_adaptation_without_its_parts_is_refused(arguments: tuple[str, ...], words: str):
    assert words in refused("adapt", "model", "--output", "out", *arguments)


# advise


ADVISE = (
    *("advise", "model", "--budget", "20s", "--steps", "3", "--quiet"),
    *("--set", f"risen.grpo={json.dumps({**GRPO, 'learning_rate': 0.001})}"),
    *("--set", "risen.guard={rows: 8, report_rows: 4}"),
)
WITH_DATA = (
    *("--data", "train.jsonl", "--set", "fine_tune.per_device_train_batch_size=4"),
    *("--set", "fine_tune.learning_rate=0.01"),
)
WITH_REWARDS = (
    *("--instructions", "instructions.jsonl", "--rewards", "mine.py:letters"),
    *("--set", "risen.rewards.0.passes_at=0.2"),
)


def test_advice_is_measured_told_and_written_as_a_run_that_trains():
    more = orders.draw(90, 1)
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    before = weights("model")
    result = done(*ADVISE, *WITH_DATA, *WITH_REWARDS, "--json", "--output", "advised.yaml")
    told = json.loads(result.stdout)
    measured, advice = told["measurements"], told["advice"]
    assert measured["data"]["rows"] == 81
    assert measured["data"]["steps"] > 0
    assert measured["data"]["loss_after"] < measured["data"]["loss"]
    assert measured["data"]["followed"] is None or 0.0 <= measured["data"]["followed"] <= 1.0
    assert measured["data"]["step_s"] > 0.0
    for name in ("rewards", "tuned"):
        found = measured[name]
        if found is None:  # no time was left on a busy machine
            assert name == "tuned"
            continue
        assert 0.0 <= found["pass_at_1"] <= found["pass_at_k"] <= 1.0
        assert found["k"] == 4
        assert found["groups"] >= 4
        assert found["step_s"] > 0.0
        assert found["tokens_s"] > 0.0
    assert measured["memory"]["peak"] > 0
    assert measured["checkpoint_s"] > measured["save_s"] > 0.0
    assert measured["save_every"] == 0.25
    assert advice["course"] in ("fine_tune", "both")
    assert advice["reasons"]
    assert same(weights("model"), before)
    head = Path("advised.yaml").read_text().splitlines()[0]
    assert head == f"# advice: {advice['in_words']}"
    assert yaml.safe_load(Path("advised.yaml").read_text()) == told["run"]
    done("train", "advised.yaml", "--output", "out", "--quiet", "--set", "fine_tune.max_steps=2")
    assert Path("out/model.safetensors").is_file()


def test_rewards_without_data_are_advised_on_and_the_words_hold_the_numbers():
    result = done(*ADVISE, *WITH_REWARDS)
    assert "instructions adherence " in result.stdout
    assert "\nadvice: " in result.stdout
    assert "there is no data to fine-tune on" in result.stdout


@pytest.mark.parametrize(
    "data",
    [
        ("--data", "train.jsonl", "--set", "evaluation=null"),
        ("--set", "data={path: train.jsonl, limit: 80}"),
    ],
)
def test_advice_finds_rows_to_evaluate_on_and_keeps_the_epochs_that_are_wanted(
    data: tuple[str, ...],
):
    more = orders.draw(90, 1)
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    epochs = ("--set", "fine_tune.num_train_epochs=2", "--set", "fine_tune.learning_rate=0.01")
    told = json.loads(done("advise", "model", *data, *epochs, "--budget", "10s", "--json").stdout)
    rows = told["measurements"]["data"]["rows"]
    assert rows == (72 if "--data" not in data else 81)
    assert told["advice"]["fine_tune_steps"] == 2 * rows // 8
    assert told["advice"]["memory"] >= told["measurements"]["memory"]["needed"]


def test_an_adapter_is_measured_on_weights_as_it_will_find_them(
    monkeypatch: pytest.MonkeyPatch, make_model: Callable[..., Any]
):
    """On a GPU an adapter's model stays as it is stored, and is loaded anew for that."""
    make_model(hidden_size=256, intermediate_size=1024).to(torch.bfloat16).save_pretrained("model")
    monkeypatch.setattr(
        "risen_plugin.commands.train.models._dtype",
        lambda wanted, *, only_adapter: "auto" if only_adapter else torch.float32,
    )
    loaded: list[torch.dtype] = []
    load = measuring.load_run

    def watched(*args: Any, **kwargs: Any) -> Any:
        model, tokenizer = load(*args, **kwargs)
        loaded.append(next(p.dtype for n, p in model.named_parameters() if "lora_" not in n))
        return model, tokenizer

    monkeypatch.setattr(measuring, "load_run", watched)
    monkeypatch.setattr(
        "risen_plugin.commands.advise.fitting.loaded_memory", lambda model: 4 * count(model)
    )
    monkeypatch.setattr("risen_plugin.commands.advise.fitting.trainer_memory", lambda: 0)
    more = orders.draw(90, 1)
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in more))
    ask = ("advise", "model", "--budget", "10s", "--quiet", *WITH_DATA, "--json")
    done(*ask)
    assert loaded == [torch.float32]
    # With a row's activations of 18 MB: 50 MB for every weight of two million, 25 for an adapter.
    told = json.loads(done(*ask, "--memory", "40MB").stdout)
    assert told["measurements"]["memory"]["only_adapter"]
    assert loaded == [torch.float32, torch.float32, torch.bfloat16]


def test_advice_is_asked_for_in_one_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "measures in one process; start it without torchrun" in refused(*ADVISE, *WITH_REWARDS)


def test_commands_train_without_cudnns_attention(monkeypatch: pytest.MonkeyPatch):
    on = torch.backends.cuda.cudnn_sdp_enabled
    before, seen = on(), []

    def watching(load: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            seen.append(on())
            return load(*args, **kwargs)

        return watched

    monkeypatch.setattr(measuring, "load_run", watching(measuring.load_run))
    monkeypatch.setattr(training, "load_run", watching(training.load_run))
    done("train", run_yaml(risen=None), "--output", "out", "--quiet")
    done("advise", "model", "--budget", "1s", "--quiet", *WITH_DATA)
    assert seen == [False, False]
    assert on() is before


def test_memory_that_is_too_tight_is_told():
    result = done(*ADVISE, *WITH_REWARDS, "--memory", "1MB", "--output", "advised.yaml")
    assert "advice: train nothing yet" in result.stdout
    assert "even an adapter on one row at a time needs" in result.stdout
    assert "advised.yaml was not written" in result.stdout
    assert not Path("advised.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give --data FILE, or --instructions FILE with --rewards"),
        (("--instructions", "instructions.jsonl"), "go together; give --rewards too"),
        (("--rewards", "exact"), "give --instructions FILE too"),
        (("--data", "trian.jsonl"), "did you mean 'train.jsonl'?"),
        (("--data", "train.jsonl", "--budget", "soon"), "--budget is 'soon'; it is a time such"),
        (("--data", "train.jsonl", "--memory", "much"), "--memory is 'much'; it is a size such"),
        (("--data", "train.jsonl", "--output", "model"), "--output 'model' is a folder"),
        (("--data", "train.jsonl", "--set", "fine_tun.x=1"), "did you mean 'fine_tune'?"),
    ],
)
def test_advice_on_nothing_or_on_what_is_not_there_is_refused(
    arguments: tuple[str, ...], words: str
):
    assert words in refused("advise", "model", *arguments)
