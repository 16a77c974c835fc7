"""The ``README.md`` beside a saved model or adapter: a model card with what was measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from risen_plugin.commands.train.closing import phase_lines
from risen_plugin.commands.train.run_config import RunConfig
from risen_plugin.contracts import PhaseRecord
from risen_plugin.embedded import EMBEDDED

README = "README.md"


def card(run: RunConfig, folder: Path, steps: int, phases: Sequence[PhaseRecord]) -> str:
    """A model card in the hub's form; it names no folder of this machine.

    :param folder: of the model or adapter, whose name is the card's title.
    :param steps: of fine-tuning.
    """
    is_adapter = run.lora is not None
    # An absolute folder says nothing elsewhere; of a hub id the hub makes a link.
    base = run.model if "/" in run.model and not Path(run.model).expanduser().exists() else None
    named = base or (run.model if run.model == EMBEDDED else Path(run.model).name)
    head = {
        **({} if base is None else {"base_model": base}),
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["risen-plugin", *(["lora"] if is_adapter else []), "grpo"],
    }
    verdicts = [f"- {line}" for line in phase_lines(phases)]
    made = [
        f"fine-tuned in {steps} step{'' if steps == 1 else 's'}" if steps else "",
        "reinforced in the RISEN phases below" if verdicts else "",
    ]
    how = " and ".join(filter(None, made)) or "saved as it was"
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).rstrip(),
        "---",
        "",
        f"# {folder.name or 'Model'}",
        "",
        f"{'An adapter of' if is_adapter else 'A model made from'} {named}, {how} by risen-plugin.",
    ]
    if verdicts:
        lines += ["", "Adherence is the share of held-out instructions that are followed entirely:"]
        lines += ["", *verdicts]
    kind = "AutoPeftModelForCausalLM" if is_adapter else "AutoModelForCausalLM"
    lines += [
        "",
        "```python",
        f"from {'peft' if is_adapter else 'transformers'} import {kind}",
        "",
        f'model = {kind}.from_pretrained(".")  # this folder',
        "```",
        "",
        "`risen export . BUNDLE` compiles it for onnxruntime.",
        "",
    ]
    return "\n".join(lines)
