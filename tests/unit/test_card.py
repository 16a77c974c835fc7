"""The model card beside what a run saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from risen_plugin.commands.train.card import card
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.contracts import PhaseRecord

RISEN = {"rewards": [{"use": "exact"}], "generator": {"use": "jsonl", "options": {"path": "a"}}}
KEPT = PhaseRecord("risen", 8, 0, "asked for", True, {"verdict": "adherence 0.1 -> 0.5"})
TUNED = PhaseRecord("fine_tune", 8, 0, "asked for")


def read(text: str) -> tuple[dict[str, Any], str]:
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def run_of(model: str, **fields: Any) -> RunConfig:
    return RunConfig.from_dict({"model": model, "risen": RISEN, **fields}, "run")


def test_an_adapter_of_a_model_on_the_hub_says_what_it_is_of_and_what_was_measured() -> None:
    text = card(run_of("org/model", lora={}), Path("/home/me/mine"), 0, [TUNED, KEPT])
    head, body = read(text)
    assert (head["base_model"], head["library_name"]) == ("org/model", "peft")
    assert "# mine\n\nAn adapter of org/model, reinforced in the RISEN phases below" in body
    assert "- RISEN phase 1 kept: adherence 0.1 -> 0.5" in body
    assert "from peft import AutoPeftModelForCausalLM" in body


def test_no_folder_of_the_machine_is_named(tmp_path: Path) -> None:
    base = tmp_path / "somebody" / "model"
    base.mkdir(parents=True)
    text = card(run_of(str(base)), tmp_path / "out", 1, [])
    head, body = read(text)
    assert "base_model" not in head
    assert "A model made from model, fine-tuned in 1 step by risen-plugin." in body
    assert "somebody" not in text
    assert "RISEN phase" not in body


@pytest.mark.parametrize("lora", [None, {}])
def test_the_snippet_is_a_program(lora: Any) -> None:
    _, body = read(card(run_of("embedded", lora=lora), Path("out"), 3, [KEPT]))
    program = body.split("```python\n")[1].split("```")[0]
    compile(program, "card", "exec")
    assert ("peft" in program) == (lora is not None)
    assert "made from embedded" in body or "adapter of embedded" in body
