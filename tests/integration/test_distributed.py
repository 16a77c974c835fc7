"""A run on two processes, as torchrun and accelerate start them: the same in both, done once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from risen_plugin.embedded import orders

pytestmark = pytest.mark.slow

WORKER = Path(__file__).with_name("distributed_worker.py")
SCENARIOS = ("plain", "peft", "shrunk", "resumed", "broken", "hangs")
SAME = (
    "phases",
    "weights",
    "rollouts",
    "tokens",
    "pass_rates",
    "buffers",
    "counts",
    "guard",
    "error",
)
GROUP = 4


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
# Without --multi_gpu accelerate starts CPU processes by MPI alone; the worker asks for CPU itself.
ACCELERATE = (
    *("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
)


def started(
    launcher: tuple[str, ...], scenarios: tuple[str, ...], folder: Path, tokenizer_folder: str
) -> dict[str, list[dict[str, Any]]]:
    """What both processes saw of each scenario."""
    shutil.copytree(tokenizer_folder, folder / "tokenizer")
    command = [sys.executable, "-m", *launcher, str(WORKER), ",".join(scenarios), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        name: [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)]
        for name in scenarios
    }


def launched(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command in two processes."""
    return subprocess.run(
        [sys.executable, "-m", *TORCHRUN, "--no-python", *command],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: str
) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    """All scenarios in one pair of processes, since starting them is what takes time."""
    folder = tmp_path_factory.mktemp("distributed")
    return folder, started(TORCHRUN, SCENARIOS, folder, tokenizer_folder)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_both_processes_end_the_same(runs: Any, scenario: str) -> None:
    first, second = runs[1][scenario]
    assert first["world"] == second["world"] == 2
    for name in SAME:
        assert first[name] == second[name], name


def test_accelerate_launch_makes_the_same_run(
    runs: Any, tmp_path: Path, tokenizer_folder: str
) -> None:
    first, second = started(ACCELERATE, ("plain",), tmp_path, tokenizer_folder)["plain"]
    assert first["world"] == second["world"] == 2
    for name in ("weights", "rollouts", "tokens", "pass_rates", "counts", "guard", "error"):
        assert first[name] == second[name] == runs[1]["plain"][0][name], name


@pytest.mark.parametrize("scenario", ["plain", "peft", "resumed"])
def test_one_process_decides_and_both_follow(runs: Any, scenario: str) -> None:
    first, second = runs[1][scenario]
    kinds = [(kind, steps, accepted) for kind, steps, accepted, *_ in first["phases"]]
    assert kinds == [
        ("fine_tune", 2, None),
        ("risen", 2, True),
        ("fine_tune", 1, None),
        ("burst", 2, True),
    ]
    assert first["phases"][1][3].startswith("after ")
    assert first["asked"][:5] == [1, 2, 3, 4, 5]
    assert second["asked"] == []
    assert second["observed"] == []


def test_both_processes_keep_the_same_part_of_a_phase(runs: Any) -> None:
    first, second = runs[1]["shrunk"]
    for process in (first, second):
        [phase] = [phase for phase in process["phases"] if phase[0] == "risen"]
        assert (phase[2], phase[4]["strength"]) == (True, 0.5)
        assert phase[4]["anchor_kl"] >= 0.0  # each process is held to anchors of its own
        assert phase[4]["mending/learned"] > 0  # and learns from mended answers of its own
        assert phase[4]["mending/steps"] > 0
    assert first["weights"] == second["weights"] != runs[1]["plain"][0]["weights"]


def test_answers_of_both_processes_are_grouped_counted_and_scored_once(runs: Any) -> None:
    first, second = runs[1]["plain"]
    # 2 steps x 2 processes x 2 accumulation steps x 4 answers
    assert first["rollouts"] == 32
    assert first["phases"][1][4]["rollouts"] == 32
    assert first["phases"][1][4]["tokens"] == first["tokens"] > 0
    held_out = 4 * (5 + 2)  # two measurements each of phase and burst
    assert first["scored"] + second["scored"] == 32 + held_out
    batches = [
        [prompts for prompts in process["rows"] if len(prompts) == 2 * GROUP]
        for process in (first, second)
    ]
    assert [len(asked) for asked in batches] == [2, 2]
    for step in range(2):
        answered = [asked[step] for asked in batches]
        groups = [prompts[start : start + GROUP] for prompts in answered for start in (0, GROUP)]
        assert all(len(set(group)) == 1 for group in groups)
        assert len({group[0] for group in groups}) == 4, "no instruction is answered twice over"


def test_what_is_measured_is_over_all_processes_and_not_doubled(runs: Any) -> None:
    first, _ = runs[1]["plain"]
    assert set(first["pass_rates"].values()) == {0.5}
    assert first["counts"]["buffered"] == 8
    measured = first["phases"][1][4]
    assert measured["guard/adherence_strict_before"] == pytest.approx(3 / 5)
    assert measured["domain/rows_before"] == measured["domain/rows_after"] == 5


def test_instructions_are_drawn_by_one_process_alone(runs: Any) -> None:
    first, second = runs[1]["plain"]
    assert second["drawn"] == 1, "the first row, by which a configuration is checked"
    assert first["drawn"] > 2


def test_one_record_is_written(runs: Any) -> None:
    folder = runs[0] / "plain" / "risen"
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    told = [e for e in events if e.get("phase") != "fine_tune"]
    assert [(e["event"], e["number"]) for e in told if e["event"] in ("decision", "phase")] == [
        ("decision", 1),
        ("phase", 1),
        ("decision", 1),
        ("phase", 1),
    ]
    assert not list((runs[0] / "plain").glob("risen.*")), "a second record would move it aside"
    import pyarrow.parquet

    logged = pyarrow.parquet.read_table(folder / "phase-001" / "completions.parquet").to_pylist()
    assert len(logged) == 32
    assert len({row["group"] for row in logged}) == 8
    state = json.loads((runs[0] / "plain" / "checkpoint-5" / "risen" / "state.json").read_text())
    assert state["buffers"] == runs[1]["plain"][0]["buffers"]
    assert state["history"]["pass_rates"]["rollouts"] == 32


def test_a_resumed_run_on_two_processes_ends_where_the_whole_one_does(runs: Any) -> None:
    for process in runs[1]["resumed"]:
        again = process["again"]
        assert again["weights"] == process["weights"]
        assert again["buffers"] == process["buffers"]
        assert again["rollouts"] == process["rollouts"]
        assert again["phases"] == [phase[:3] for phase in process["phases"]]
        assert again["checkpoints_of_phases"] == 0, "both would write to one folder"


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("broken", "reward 'broken' (__main__) raised ValueError: the service of this process"),
        ("hangs", "reward 'hangs' (__main__) took longer than timeout_s = 1 (in process 1)"),
    ],
)
def test_a_reward_that_fails_in_one_process_stops_all_with_its_name(
    runs: Any, scenario: str, said: str
) -> None:
    for process in runs[1][scenario]:
        assert said in process["error"]
        assert "the model as it was before the phase is in" in process["error"]
    assert (runs[0] / scenario / "checkpoint-2" / "model.safetensors").is_file()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to see threads")
def test_no_thread_of_the_group_outlives_it(runs: Any) -> None:
    """Such a thread may abort a process that ends; see ``leave_processes``."""
    for rank in (0, 1):
        left = json.loads((runs[0] / f"left-{rank}.json").read_text())["threads"]
        assert "python" in " ".join(left), "threads are seen"
        assert not [name for name in left if "gloo" in name]


def test_leaving_does_not_wait_for_a_thread_that_waits_for_python(runs: Any) -> None:
    """The worker ended, so it did not; here, that a thread had something to let go of."""
    died_in = json.loads((runs[0] / "left-0.json").read_text())["died_in"]
    assert died_in not in (None, "MainThread")


def test_the_command_adapts_in_two_processes_and_speaks_once(
    tmp_path: Path, make_model: Any, tokenizer: Any
) -> None:
    make_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = "".join(json.dumps(row) + "\n" for row in orders.draw(40, 2))
    (tmp_path / "asks.jsonl").write_text(rows)
    grpo = {"num_generations": 4, "per_device_train_batch_size": 4, "max_completion_length": 8}
    done = launched(
        *("risen", "adapt", "model", "--instructions", "asks.jsonl", "--rewards", "constraints"),
        *("--output", "out", "--steps", "1", "--keep-anyway", "--quiet"),
        *("--set", f"risen.grpo={json.dumps(grpo)}"),
        *("--set", "risen.guard={rows: 4, report_rows: 0, min_gain: 2.0}"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("RISEN phase 1 dropped") == 1
    assert done.stdout.count("saved the adapter to out all the same") == 1
    assert (tmp_path / "out" / "adapter_config.json").is_file()
