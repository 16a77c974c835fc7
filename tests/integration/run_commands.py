"""What tests of ``risen train``, ``adapt`` and ``advise`` share: a run, and how it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from click.testing import CliRunner, Result

from risen_plugin.cli import command_line

CODE = """
def letters(completions, **columns):
    texts = [c[0]["content"] for c in completions]
    return [sum(x.isascii() and x.isalpha() for x in t) / max(1, len(t)) for t in texts]
"""
INTERRUPTED = """
    import signal

    seen = globals().setdefault("seen", [])
    seen.append(1)
    if len(seen) == 4:
        signal.raise_signal(signal.SIGINT)  # as Ctrl-C does
"""
GRPO = {
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 8,
    "learning_rate": 0.01,
}
KEEP = {"rows": 4, "report_rows": 2, "min_gain": -1.0, "max_probe_loss_rise": 1e9}
DROP = {"rows": 4, "report_rows": 2, "min_gain": 2.0}


def count(model: Any) -> int:
    return sum(p.numel() for p in model.parameters())


def run_yaml(**changes: Any) -> str:
    data: dict[str, Any] = {
        "model": "model",
        "data": "train.jsonl",
        "evaluation": 8,
        "fine_tune": {
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "save_steps": 2,
            "learning_rate": 0.001,
        },
        "risen": {
            "rewards": [{"use": "mine.py:letters", "passes_at": 0.0}],
            "generator": {"use": "jsonl", "options": {"path": "instructions.jsonl"}},
            "scheduler": {"use": "after", "options": {"steps": 2}},
            "guard": KEEP,
            "grpo": GRPO,
        },
        **changes,
    }
    Path("run.yaml").write_text(yaml.safe_dump(data))
    return "run.yaml"


def risen(*arguments: str) -> Result:
    return CliRunner().invoke(command_line(), list(arguments))


def done(*arguments: str) -> Result:
    result = risen(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def refused(*arguments: str) -> str:
    before = everything()
    result = risen(*arguments)
    assert result.exit_code == 2, (result.output, result.exception)
    assert everything() == before, "something was written"
    lines = [line for line in result.stderr.splitlines() if line.startswith("risen: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


def everything() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if "__pycache__" not in str(path))


def weights(folder: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    [file] = Path(folder).glob("*.safetensors")
    return load_file(file)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )
