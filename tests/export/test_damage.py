"""A damaged bundle is refused by name or answers as it did: some of ``benchmarks/damage.py``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.damage import DAMAGERS, FAULTS, SEALED_DAMAGERS, tries
from risen_export.bundles import hashes
from risen_export.runtime import templates

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("sealed", "rounds"), [(False, 4), (True, 4)])
def test_damage_is_named_and_never_changes_an_answer(
    tied_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sealed: bool,
    rounds: int,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "_SETTLED_NS", -1)
    monkeypatch.setattr(templates, "SECONDS", 1.0)
    count = rounds * len(SEALED_DAMAGERS if sealed else DAMAGERS)
    outcomes = list(tries(tied_bundle, tmp_path, count, seed=1, sealed=sealed))
    assert [one for one in outcomes if one.result in FAULTS] == []
    found = Counter(one.result for one in outcomes)
    # Most of what is damaged is read; what nobody asked for may stay as it is.
    assert sealed or found["refused"] > 0.8 * count
