"""Supply a run with instructions: held-out ones set apart first, then batches to train on.

What the guard decides by, what is reported and what is trained on are three disjoint sets of
prompts. Every row is checked against the model's context before it is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from risen_plugin.assembly import Parts, check_columns, draw
from risen_plugin.contracts import Row, text_of
from risen_plugin.errors import DataError

TokenCount = Callable[[Any], int]
_PATIENCE = 20  # draws in a row without a single new instruction before giving up
_MOST_AT_ONCE = 256  # rows asked for when few of them are new


def derived_seed(seed: int, *what: object) -> int:
    """A seed that depends on ``seed`` and on what it is for; stable across processes."""
    text = json.dumps([seed, *map(str, what)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def key_of(prompt: Any) -> str:
    """A short fingerprint of a prompt, to tell sets of instructions apart."""
    text = json.dumps(prompt, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _ask(lacking: int, fruitless: int) -> int:
    """Rows to ask for: what is lacking, and more after each draw that brought nothing new.

    A supply that draws at random may have what is wanted, but seldom.
    """
    return max(lacking, min(lacking << fruitless, _MOST_AT_ONCE))


class Instructions:
    """Draws rows from the configuration's generators.

    :param parts: the assembled configuration.
    :param seed: of all draws.
    :param count_tokens: tokens of a prompt as the model will see it; None skips the check.
    :param longest: most tokens that a prompt may have.
    """

    def __init__(
        self,
        parts: Parts,
        seed: int,
        *,
        count_tokens: TokenCount | None = None,
        longest: int | None = None,
    ) -> None:
        self.parts = parts
        self.seed = seed
        self.count_tokens = count_tokens
        self.longest = longest
        self.guard: list[Row] = []
        self.report: list[Row] = []
        self.draws = 0
        self.drawn = 0
        self._held_out: set[str] = set()

    def set_apart(self, guard_rows: int, report_rows: int) -> None:
        """Reserve held-out instructions.

        :raises DataError: if there are too few different ones.
        """
        wanted = guard_rows + report_rows
        part = self.parts.held_out
        rows = self._different(part, wanted)
        if len(rows) < wanted:
            raise DataError(
                f"{part.label} offers {len(rows)} different instructions, but guard.rows and "
                f"guard.report_rows set {wanted} apart; lower them, or give more instructions"
            )
        self.guard, self.report = rows[:guard_rows], rows[guard_rows:]
        self._held_out = {key_of(row["prompt"]) for row in rows}
        self.next(1, {}, peek=True)

    def next(self, count: int, pass_rates: Mapping[str, float], *, peek: bool = False) -> list[Row]:
        """``count`` rows to train on, none of them held out.

        :raises DataError: if nothing is left beside the held-out instructions.
        """
        found: list[Row] = []
        draws, drawn = self.draws, self.drawn
        state = self._state_of_generator() if peek else None
        fruitless = 0
        while len(found) < count and fruitless < _PATIENCE:
            rows = draw(
                self.parts.generator,
                _ask(count - len(found), fruitless),
                derived_seed(self.seed, "train", self.draws),
                pass_rates=dict(pass_rates),
                start=self.drawn,
                run_seed=self.seed,
            )
            self.draws += 1
            self.drawn += len(rows)
            fit = [row for row in rows if key_of(row["prompt"]) not in self._held_out]
            found += fit
            fruitless = 0 if fit else fruitless + 1
        if peek:
            self.draws, self.drawn = draws, drawn
            if state is not None:
                self.parts.generator.value.load_state_dict(state)
        if not found:
            raise DataError(
                f"{self.parts.generator.label} offers no instruction beside the "
                f"{len(self._held_out)} that are held out; lower guard.rows and "
                "guard.report_rows, or give more instructions"
            )
        while len(found) < count:  # a small supply is gone through again
            found += found[: count - len(found)]
        return self._checked(found[:count], self.parts.generator.label)

    def state_dict(self) -> dict[str, Any]:
        return {"draws": self.draws, "drawn": self.drawn}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.draws = state["draws"]
        self.drawn = state["drawn"]

    def _state_of_generator(self) -> dict[str, Any] | None:
        stateful = self.parts.stateful().get("generator")
        return None if stateful is None else stateful.state_dict()

    def _different(self, part: Any, wanted: int) -> list[Row]:
        rows: dict[str, Row] = {}
        start = attempt = fruitless = 0
        while len(rows) < wanted and fruitless < _PATIENCE:
            seed = derived_seed(self.seed, "held out", attempt)
            asked = _ask(wanted - len(rows), fruitless)
            new = draw(part, asked, seed, start=start, run_seed=self.seed)
            start += len(new)
            attempt += 1
            known = len(rows)
            for row in new:
                rows.setdefault(key_of(row["prompt"]), row)
            fruitless = 0 if len(rows) > known else fruitless + 1
        if part is self.parts.generator:
            self.drawn = start  # an ordered supply goes on after the rows set apart
        return self._checked(list(rows.values())[:wanted], part.label)

    def _checked(self, rows: Sequence[Row], label: str) -> list[Row]:
        check_columns(rows, self.parts.asked, label)
        if self.count_tokens is not None and self.longest is not None:
            for row in rows:
                tokens = self.count_tokens(row["prompt"])
                if tokens > self.longest:
                    start = " ".join(text_of(row["prompt"]).split())[:60]
                    raise DataError(
                        f"{label} made a prompt of {tokens} tokens ({start!r}...); beside "
                        "grpo.max_completion_length this model's context leaves "
                        f"{self.longest}; shorten the prompt, or lower that"
                    )
        columns = {name for row in rows for name in row}
        return [{name: row.get(name) for name in sorted(columns)} for row in rows]
