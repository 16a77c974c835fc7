"""The leftovers of RISEN phases, for fine-tuning: they last across phases and checkpoints.

Listens to the panel, waits for the verdict on a phase before its answers count, and writes all of
it to a journal. Choosing, holding and mixing is left to the pure modules beside this one; the
fine-tuning itself to ``phases/burst``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_plugin.config import BuffersConfig, GuardConfig
from risen_plugin.contracts import Prompt, Row
from risen_plugin.errors import RecordError
from risen_plugin.instructions.rows import key_of
from risen_plugin.phases.leftovers.findings import (
    Attempted,
    Moment,
    Unmet,
    Unsolved,
    Verified,
    VerifiedAnswers,
    select,
)
from risen_plugin.phases.leftovers.journal import Journal, Position
from risen_plugin.progress import (
    BUFFERED,
    DEMONSTRATIONS,
    FACTS_LOST,
    GAP,
    NEWLY_BUFFERED,
    OF_TASK,
    OF_THE_GUARD,
    PROBE_LOSS,
    STRENGTH,
    TRIP_WIRE_RISE,
    UNSOLVED,
)
from risen_plugin.rewards.batch import Batch

if TYPE_CHECKING:
    from risen_plugin.phases.leftovers.mixing import Mixture

FILE = "buffers.jsonl"
_ROUNDING = 1e-9

_log = logging.getLogger("risen_plugin")


class Buffers:
    """Verified answers, unsolved instructions and demonstrations of one run.

    :raises ConfigError: if the demonstrations cannot be read; ``DataError`` if a row is none.
    """

    def __init__(self, config: BuffersConfig) -> None:
        self.config = config
        self.demonstrations = _demonstrations(config)
        self.usable = len(self.demonstrations)
        self._at: tuple[int, int] = (0, 0)
        self._position = Position()
        self._source: Path | None = None
        self._warned = False
        self._latest_line = ""
        self._journal = Journal()
        self._clear()

    def _clear(self) -> None:
        self.answers = VerifiedAnswers(self.config.largest)
        self.unsolved = Unsolved(self.config.unsolved_after)
        self._waiting: list[Verified] = []
        self._is_open = False

    # The life of a phase ----------------------------------------------------------------------

    def begin(self, *, phase: int, at_step: int) -> None:
        """A RISEN phase begins: the answers from now on are of it."""
        self._open()
        self._at = (phase, at_step)
        self._waiting = [answer for answer in self._waiting if answer.phase == phase]

    def take(self, batch: Batch) -> None:
        """Choose from a generation batch; its answers wait for the verdict on their phase."""
        self._open()
        phase, at_step = self._at
        findings = select(
            batch,
            band=(float(self.config.band[0]), float(self.config.band[1])),
            key_of=key_of,
            moment=Moment(phase, batch.step, at_step),
        )
        for unmet in findings.unmet:
            self._write("failed", unmet.as_dict())
        for key in findings.solved:
            if self.unsolved.was_tried(key):
                self._write("solved", {"key": key})
        if self.config.largest:
            for answer in findings.verified:
                self._write("answer", answer.as_dict())
        self._commit()

    def end(
        self, accepted: bool, metrics: Mapping[str, Any], guard: GuardConfig
    ) -> dict[str, float]:
        """The phase was judged: let its answers count, or forget them.

        :return: the sizes of the buffers now, as metrics of the phase.
        """
        self._open()
        refused = refusal(accepted, metrics, guard)
        new = len(self._waiting)
        self._write("judged", {"phase": self._at[0], "fed": refused is None, "why": refused})
        self._commit()
        return {
            BUFFERED: float(len(self.answers)),
            NEWLY_BUFFERED: float(0 if refused else new),
            UNSOLVED: float(len(self.unsolved)),
            DEMONSTRATIONS: float(len(self.demonstrations)),
        }

    def mixture(
        self, config: BuffersConfig, *, steps: int, seed: int, leave_out: Callable[[Prompt], bool]
    ) -> Mixture:
        """The rows of a burst of ``steps`` steps.

        :param config: with the settings of a scheduler for this burst.
        :param leave_out: whether a prompt is held out, and so never trained on.
        """
        from risen_plugin.phases.leftovers.mixing import mix  # most runs have no burst

        self._open()
        answers = [
            {"prompt": answer.prompt, "completion": answer.completion}
            for answer in self.answers
            if not leave_out(answer.prompt)
        ]
        written = [row for row in self.demonstrations if not leave_out(row["prompt"])]
        return mix(
            answers,
            written,
            count=steps * config.batch_size,
            own_share=config.own_share,
            seed=seed,
        )

    def counts(self) -> dict[str, int]:
        """The sizes of the buffers, for a scheduler."""
        self._open()
        return {
            "buffered": len(self.answers),
            "unsolved": len(self.unsolved),
            "demonstrations": self.usable,
        }

    def leave_out(self, is_held_out: Callable[[Prompt], bool]) -> None:
        """Count no demonstration of a held-out instruction, which no burst trains on."""
        self.usable = sum(not is_held_out(row["prompt"]) for row in self.demonstrations)

    def lacking(self, leave_out: Callable[[Prompt], bool]) -> str | None:
        """Why there is nothing to fine-tune on; None if there is."""
        if self.mixture(self.config, steps=1, seed=0, leave_out=leave_out).rows:
            return None
        written = "no demonstration is given"
        if self.demonstrations:
            written = f"all {len(self.demonstrations)} demonstrations are of held-out instructions"
        return f"the buffers are empty: no verified answer is held, and {written}"

    def is_news(self, line: str) -> bool:
        """Whether ``line`` is another than the last one; a scheduler may ask at every step."""
        is_new, self._latest_line = line != self._latest_line, line
        return is_new

    def line(self, metrics: Mapping[str, Any]) -> str:
        """The leftovers of a RISEN phase in one line; an empty one where there are none."""
        if not any(map(metrics.get, (BUFFERED, UNSOLVED))):
            return ""
        line = (
            f"{metrics[BUFFERED]:.0f} verified answers in the buffer "
            f"({metrics[NEWLY_BUFFERED]:.0f} new)"
        )
        if metrics[UNSOLVED]:
            line += (
                f"; nobody has solved {metrics[UNSOLVED]:.0f} instructions: "
                "'risen unsolved' writes them down for demonstrations"
            )
        return line

    def describe(self) -> dict[str, Any]:
        """The configuration as the record has it: of the demonstrations, where they are from."""
        source = self.config.demonstrations
        return {
            **asdict(replace(self.config, demonstrations=None)),
            "demonstrations": str(source) if isinstance(source, str | Path) else None,
            "demonstrations_rows": len(self.demonstrations),
            "demonstrations_usable": self.usable,
        }

    # Across checkpoints -----------------------------------------------------------------------

    def write_to(self, path: Path, earlier: Path | None = None, *, writes: bool = True) -> None:
        """Write the journal to a file from now on, as the state last loaded left it.

        :param earlier: the journal to read from where ``path`` is not there: that of the run
            whose checkpoint is resumed into another folder.
        :param writes: whether this process writes the file; of several, one does.
        :raises RecordError: if it cannot be used, or is not that of the state.
        """
        self._journal = Journal(path, writes=writes)
        self._source = None if path.exists() else earlier
        self._clear()
        self._open()

    def state_dict(self) -> dict[str, Any]:
        """The position in the journal."""
        position = self._journal.position if self._is_open else self._position
        return position.as_dict()

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Take up the state of a checkpoint; None for one that knew no buffers."""
        self._position = Position(**state) if state else Position()
        self._clear()

    # Inside -----------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._is_open:
            return
        for line in self._journal.take_up(self._position, self._source):
            self._apply(line)
        self._is_open = True
        self._source = None

    def _write(self, kind: str, values: Mapping[str, Any]) -> None:
        self._apply(self._journal.add(kind, values))

    def _apply(self, line: Mapping[str, Any]) -> None:
        """Apply a line of the journal; also when it is read again."""
        apply_line(line, self.answers, self.unsolved, self._waiting)

    def _commit(self) -> None:
        try:
            self._journal.commit()
        except RecordError as error:
            if not self._warned:
                _log.warning("%s; the run goes on without what is not written", error)
            self._warned = True


def _demonstrations(config: BuffersConfig) -> list[Row]:
    if config.demonstrations is None:
        return []
    from risen_plugin.phases.leftovers.mixing import load_demonstrations

    return load_demonstrations(config.demonstrations)


def apply_line(
    line: Mapping[str, Any], answers: VerifiedAnswers, unsolved: Unsolved, waiting: list[Verified]
) -> None:
    """Apply one line of a journal."""
    values = {name: value for name, value in line.items() if name != "kind"}
    kind = line["kind"]
    if kind == "failed":
        unsolved.failed(Unmet(**values))
    elif kind == "solved":
        unsolved.solve(values["key"])
    elif kind == "answer":
        waiting.append(Verified(**values))
    elif kind == "judged":
        if values["fed"]:
            for answer in waiting:
                answers.add(answer)
        waiting.clear()


def unsolved_in(lines: Sequence[Mapping[str, Any]], after: int) -> list[Attempted]:
    """The unsolved instructions of a journal."""
    answers, unsolved = VerifiedAnswers(0), Unsolved(after)
    for line in lines:
        if line["kind"] in ("failed", "solved"):
            apply_line(line, answers, unsolved, [])
    return list(unsolved)


def refusal(accepted: bool, metrics: Mapping[str, Any], guard: GuardConfig) -> str | None:
    """Why the answers of a phase are not to be fine-tuned on; None if they are.

    Verified answers are good data even where the phase brought too little to be kept. They are not
    where the phase was cut short, lost what should stay, or gained by pleasing the checks: its
    answers are then at fault.
    """
    if accepted:
        if metrics.get(STRENGTH, 1.0) < 1.0:
            return "the phase is kept at a part of its strength, and the answers are of the whole"
        return None
    before, after = (metrics.get(f"{PROBE_LOSS}_{when}") for when in ("before", "after"))
    if before is None or after is None:
        return "the phase was cut short"
    if not after - before <= guard.max_probe_loss_rise + _ROUNDING:
        return "the phase lost on the probe"
    allowed = {
        TRIP_WIRE_RISE: guard.max_trip_wire_rise,
        GAP: guard.max_gap,
        "forward_kl": guard.max_forward_kl,
        "domain_drop": guard.max_domain_drop,
        FACTS_LOST: guard.max_facts_lost,
        **{f"{OF_TASK}{name}_drop": task.max_drop for name, task in guard.tasks.items()},
    }
    for name, most in allowed.items():
        value = metrics.get(f"{OF_THE_GUARD}{name}", math.nan)
        if most is not None and value > most + _ROUNDING:
            return f"the phase's {name.replace('_', ' ')} was too large"
    return None
