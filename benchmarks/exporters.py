"""Hold an exporter to each tiny architecture: ``python -m benchmarks.exporters NAME [MODEL ...]``.

NAME is genai, transformers, optimum or mobius (mobius-onnx, which is none of ours; run it where it
is installed). For each model: the largest logit difference to PyTorch of every position of four
prompts of 5 to 40 tokens, alone and in one batch, and after 16 more tokens in the batch. Below 1e-4
is right. Prints what an exporter refuses, and the error of one that fails.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from risen_export.backends import concatenating, offers
from risen_export.runtime.growing import GrowingCache
from risen_export.runtime.session import KeyValueCache, open_session
from risen_plugin.errors import one_line
from tests.export import architectures as known
from tests.export.conftest import make_tokenizer

RIGHT = 1e-4
STEPS = 16


def main() -> None:
    """Print one line for each model, and how many came out in which way."""
    name, wanted = sys.argv[1], sys.argv[2:] or list(known.BY_NAME)
    counts: dict[str, int] = {}
    for architecture in wanted:
        with tempfile.TemporaryDirectory() as folder:
            verdict, line = tried(name, known.BY_NAME[architecture], Path(folder))
        counts[verdict] = counts.get(verdict, 0) + 1
        print(f"{architecture:22}{verdict:9}{line}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))


def tried(name: str, architecture: known.Architecture, folder: Path) -> tuple[str, str]:
    """How one model came out, and the numbers or the reason."""
    model = known.model_of(architecture).float()
    model.config.architectures = [type(model).__name__]
    (folder / "out").mkdir()
    try:
        reason = built(name, model, folder)
        if reason is not None:
            return "refused", reason
        alone, batch, later = differences(folder / "out", model)
    except Exception as error:  # noqa: BLE001  it is the finding
        return "fails", one_line(error)[:150]
    verdict = "right" if max(alone, batch, later) <= RIGHT else "WRONG"
    return verdict, f"alone {alone:.1e}  in a batch {batch:.1e}  {STEPS} tokens on {later:.1e}"


def built(name: str, model: Any, folder: Path) -> str | None:
    """Have the graph written to ``folder/out``; the reason if it is refused."""
    model.save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    if name == "mobius":
        from mobius import build  # type: ignore[import-not-found]

        program = build(str(folder / "model"))["model"]
        concatenating.name_values(program.graph)
        concatenating.save(program, folder / "out")
        return None
    exporter = offers.OFFERED[name]()
    reason: str | None = exporter.refuses(model.config.to_dict(), "cpu", "fp32")
    if reason is None:
        places = {"model": "model", "out": "out", "scratch": "scratch"}
        (folder / "scratch").mkdir()
        exporter(
            **{key: str(folder / place) for key, place in places.items()},
            target="cpu",
            precision="fp32",
        )
    return reason


def differences(folder: Path, model: Any) -> tuple[float, float, float]:
    """The largest differences of logits: alone, in a batch, and after more tokens in the batch."""
    session, rows = open_session(folder / "model.onnx", 1), known.rows()
    settings = folder / "genai_config.json"
    shares = settings.is_file() and '_buffer": true' in settings.read_text()
    cache = KeyValueCache if shares else GrowingCache

    def exact(row: list[int]) -> Any:
        with torch.no_grad():
            return model(input_ids=torch.tensor([row])).logits[0].numpy()

    expected = [exact(row) for row in rows]
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), dtype=np.int64)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
    alone = [
        np.abs(cache(session, 1, 0).prefill(np.array([row]), lengths[[n]])[0] - expected[n]).max()
        for n, row in enumerate(rows)
    ]
    together = cache(session, len(rows), 99)
    logits = together.prefill(ids, lengths)
    batch = [np.abs(logits[n, : len(row)] - expected[n]).max() for n, row in enumerate(rows)]
    last = logits[np.arange(len(rows)), lengths - 1]
    for _ in range(STEPS):
        tokens = last.argmax(-1)
        rows = [[*row, int(token)] for row, token in zip(rows, tokens, strict=True)]
        last = together.step(tokens)
    later = [np.abs(last[n] - exact(row)[-1]).max() for n, row in enumerate(rows)]
    return float(max(alone)), float(max(batch)), float(max(later))


if __name__ == "__main__":
    main()
