"""Compare a graph with the model that it was made from, past every length where either changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


def logits_of(model: Any, row: Sequence[int]) -> Logits:
    """The logits (T, V) that transformers computes for one row alone."""
    import torch

    with torch.no_grad():
        logits: Logits = model(input_ids=torch.tensor([list(row)])).logits[0].float().numpy()
    return logits


def differences(graph: Path, model: Any, rows: list[list[int]]) -> dict[str, float]:
    """The largest difference of a logit at any position of any row, by the way of asking.

    ``batch``: all rows right-padded. ``single``: one by one. ``step``: the first half of each row
    as one batch, and the others token by token, shorter rows leaving it. What a step is compared
    with is a pass of its own where the model has tables of two lengths (longrope).
    """
    from risen_export.runtime.growing import GrowingCache
    from risen_export.runtime.longrope import Cache, TwoTableCache, switch_of
    from risen_export.runtime.session import KeyValueCache, open_session

    session = open_session(graph / "model.onnx", 1)
    switch = switch_of(model.config.to_dict())

    genai = json.loads((graph / "genai_config.json").read_text(encoding="utf-8"))
    grows = genai["search"].get("past_present_share_buffer") is False

    def cache(count: int, capacity: int = 0) -> Cache:
        if grows:
            return GrowingCache(session, count, capacity)
        if switch is None:
            return KeyValueCache(session, count, capacity)
        return TwoTableCache(lambda count: KeyValueCache(session, count, capacity), switch)

    expected = [logits_of(model, row) for row in rows]
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), int(lengths.max())), dtype=np.int64)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = row
    apart: dict[str, list[float]] = {"batch": [], "single": [], "step": []}
    together = cache(len(rows)).prefill(ids, lengths)
    for line, row in enumerate(rows):
        apart["batch"].append(_most(together[line, : len(row)], expected[line]))
        alone = cache(1).prefill(ids[line : line + 1, : len(row)], lengths[line : line + 1])[0]
        apart["single"].append(_most(alone, expected[line]))
    read = lengths // 2
    running = cache(len(rows), int(lengths.max()))
    running.prefill(np.ascontiguousarray(ids[:, : read.max()]), read)
    live = list(range(len(rows)))
    while going_on := [place for place, line in enumerate(live) if read[line] < lengths[line]]:
        if len(going_on) < len(live):
            running.select(going_on)
            live = [live[place] for place in going_on]
        logits = running.step(np.array([rows[line][read[line]] for line in live]))
        for place, line in enumerate(live):
            at = int(read[line])
            due = (
                expected[line][at] if switch is None else logits_of(model, rows[line][: at + 1])[-1]
            )
            apart["step"].append(_most(logits[place], due))
            read[line] += 1
    return {way: float(np.max(found)) for way, found in apart.items()}  # NaN stays NaN


def engine_difference(folder: Path, model: Any, rows: list[list[int]]) -> float:
    """The largest difference of a logit as an engine asks: in pieces, then side by side.

    Each row is read in pieces of 24 tokens up to its last three, which are steps of all rows.
    """
    from risen_export.backends.asked_rows import write_engine_graph
    from risen_export.engine.cache import Cache as Buffers
    from risen_export.engine.cache import Shapes
    from risen_export.engine.graph import Graph
    from risen_export.runtime.longrope import switch_of
    from risen_export.runtime.session import open_session

    assert write_engine_graph(folder)
    session = open_session(folder / "engine.onnx", 1)
    switch = switch_of(model.config.to_dict())
    rows = [row for row in rows if len(row) > 3 and len(row) <= (switch or len(row))]
    cache = Buffers(Shapes.of(session), len(rows), max(map(len, rows)))
    graph = Graph(session, cache, len(rows))
    expected = [logits_of(model, row) for row in rows]
    apart = []
    for slot, row in enumerate(rows):
        for start in range(0, len(row) - 3, 24):
            stop = min(start + 24, len(row) - 3)
            logits = graph.read(slot, row[start:stop], start, {})
            apart.append(_most(logits, expected[slot][stop - 1]))
    for left in (3, 2, 1):
        places = [len(row) - left for row in rows]
        steps = graph.step([row[-left] for row in rows], places, {})
        for slot, place in enumerate(places):
            apart.append(_most(steps[slot], expected[slot][place]))
    return float(np.max(apart))  # NaN stays NaN


def _most(ours: Logits, theirs: Logits) -> float:
    return float(np.abs(ours - theirs).max())
