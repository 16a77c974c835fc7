"""What a run tells while it goes on: lines for people, events for its record, hooks for observers.

Only the main process tells anything.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm

from risen_plugin.contracts import PhaseRecord, Progress
from risen_plugin.kit.processes import ALONE
from risen_plugin.plugins import Plugins
from risen_plugin.record.run_record import Record

_log = logging.getLogger("risen_plugin")
_STAMPED = ("event", "step", "time")


class Telling:
    """Tells what happens in one run.

    :param plugins: those that observe phases.
    """

    def __init__(self, plugins: Plugins) -> None:
        self.plugins = plugins
        self.processes = ALONE
        self.record: Record | None = None
        self.quiet = False

    def say(self, line: str) -> None:
        """One line for the log; above the progress bars where nobody listens to the log."""
        if not self.processes.is_main:
            return
        if _log.isEnabledFor(logging.INFO):
            _log.info(line)
        elif not self.quiet:
            tqdm.write(line, file=sys.stderr)

    def event(self, name: str, /, *, step: int, **values: Any) -> None:
        """One line for ``events.jsonl``."""
        assert self.record is not None
        if self.processes.is_main:
            with self.record.keeping(self.record.folder):
                self.record.event(name, step=step, **values)

    def note(self, name: str, step: int, numbers: Mapping[str, Any] | None) -> None:
        """Record the outer run's own numbers, without those that a phase logged into it."""
        kept = {
            key: float(value)
            for key, value in (numbers or {}).items()
            if isinstance(value, int | float)
            and not key.startswith("risen/")
            and key not in _STAMPED
        }
        values: dict[str, Any] = {"metrics": kept} if name == "evaluation" else {**kept}
        self.event(name, step=step, **values)

    def observe(self, hook: str, phase: PhaseRecord, progress: Progress, **more: Any) -> None:
        """Call the observers of phases."""
        if self.processes.is_main:
            self.plugins.observe(hook, phase=phase, progress=progress, **more)

    def outcome(self, record: PhaseRecord, name: str, number: int, *, step: int, held: str) -> None:
        """What became of a phase or burst, and what its rewards could not judge.

        :param name: what it is called.
        :param held: what it left in the buffers, if anything.
        """
        verdict = "kept" if record.accepted else "dropped"
        self.say(f"step {step}: {name} {verdict}: {record.metrics['verdict']}")
        if held:
            self.say(f"step {step}: {name}: {held}")
        for reward, example in record.metrics.get("error_examples", {}).items():
            count = record.metrics[f"reward_errors/{reward}"]
            self.say(
                f"step {step}: {name}: {reward} failed on {count} answers, which were left out; "
                f"for example: {example}"
            )
            self.failure(step=step, number=number, plugin=reward, reason=example, count=count)

    def failure(
        self, *, step: int, number: int | None, plugin: str | None, reason: str, count: int = 1
    ) -> None:
        """Record that a plugin failed; or the phase itself, without a plugin's name."""
        self.event(
            "plugin_error", step=step, number=number, plugin=plugin, reason=reason, count=count
        )
