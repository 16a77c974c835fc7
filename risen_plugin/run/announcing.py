"""Announce the events of a run: lines for people, events for its record, hooks for observers.

Only the main process announces anything.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

from tqdm.auto import tqdm

from risen_plugin.contracts import PhaseRecord, Progress
from risen_plugin.kit.processes import Processes
from risen_plugin.plugins import Plugins
from risen_plugin.progress import REWARD_ERRORS
from risen_plugin.record.run_record import Record

_log = logging.getLogger("risen_plugin")
_STAMPED = ("event", "step", "time")


class Announcer:
    """Announces the events of one run.

    :param plugins: the observers of phases are among them.
    :param quiet: whether no line is written where nobody listens to the log.
    """

    def __init__(
        self, plugins: Plugins, record: Record, processes: Processes, *, quiet: bool
    ) -> None:
        self.plugins = plugins
        self.record = record
        self.processes = processes
        self.quiet = quiet

    def announce(self, line: str) -> None:
        """Write one line to the log; above the progress bars where nobody listens to the log."""
        if not self.processes.is_main:
            return
        if _log.isEnabledFor(logging.INFO):
            _log.info(line)
        elif not self.quiet:
            tqdm.write(line, file=sys.stderr)

    def event(self, name: str, /, *, step: int, **values: Any) -> None:
        """Write one line to ``events.jsonl``."""
        if self.processes.is_main:
            with self.record.tolerant(self.record.folder):
                self.record.event(name, step=step, **values)

    def numbers(self, name: str, step: int, numbers: Mapping[str, Any] | None) -> None:
        """Record the outer run's own numbers, without those that a phase logged into it."""
        outer = {
            key: float(value)
            for key, value in (numbers or {}).items()
            if isinstance(value, int | float)
            and not key.startswith("risen/")
            and key not in _STAMPED
        }
        values: dict[str, Any] = {"metrics": outer} if name == "evaluation" else {**outer}
        self.event(name, step=step, **values)

    def observe(self, hook: str, phase: PhaseRecord, progress: Progress, **more: Any) -> None:
        """Call the observers of phases, and record which of them fail."""
        if not self.processes.is_main:
            return
        failures = self.plugins.observe(hook, phase=phase, progress=progress, **more)
        for plugin, reason in failures:
            self.failure(step=progress.step, number=None, plugin=plugin, reason=reason)

    def verdict(self, record: PhaseRecord, name: str, number: int, *, step: int, left: str) -> None:
        """Announce the verdict on a phase or burst, and answers that its rewards could not judge.

        :param name: as people call it, such as ``RISEN phase 2``.
        :param left: its leftovers in one line, if there are any.
        """
        verdict = "kept" if record.accepted else "dropped"
        self.announce(f"step {step}: {name} {verdict}: {record.metrics['verdict']}")
        if left:
            self.announce(f"step {step}: {name}: {left}")
        for reward, example in record.metrics.get("error_examples", {}).items():
            count = record.metrics[f"{REWARD_ERRORS}{reward}"]
            self.announce(
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
