"""What a phase does before GRPO: it learns from mended answers, where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from risen_plugin.contracts import Row
from risen_plugin.phases.context import PhaseContext
from risen_plugin.phases.mending import CHOICES, imitation_of, mended_answers
from risen_plugin.training.anchoring import Anchors
from risen_plugin.training.asking import Asking
from risen_plugin.training.imitation import Imitation, imitate
from risen_plugin.training.outside import Outside
from risen_plugin.training.phase_trainer import PhaseTrainer

Draw = Callable[..., Sequence[Row]]
"""Draws so many instructions, with ``more`` tokens of room for their answers than GRPO's have."""


class ColdStart:
    """The steps on mended answers before the first one of GRPO.

    :param label: of the phase.
    :param figures: of the same phase before it was cut off; it has learned then.
    """

    def __init__(
        self,
        context: PhaseContext,
        asking: Asking,
        label: str,
        seed: int,
        figures: Mapping[str, Any],
    ) -> None:
        self.context, self.asking, self.label, self.seed = context, asking, label, seed
        self.figures = dict(figures)
        self._imitation: Imitation | None = None

    @property
    def steps(self) -> int:
        """How many it takes, or took; known once it has been prepared."""
        taken: int = self.figures.get("steps", 0)
        return taken if self._imitation is None else self._imitation.steps

    def prepare(self, draw: Draw, outside: Outside | None) -> None:
        """Have the model at phase entry answer, and mend what it says, where that is asked for."""
        context = self.context
        config = context.config.mending
        if config is None:
            return
        more = max(0, config.tokens - self.asking.answer_tokens)
        rows = context.processes.main(partial(draw, config.rows * CHOICES, more=more))
        made = context.processes.together(
            lambda: mended_answers(
                context,
                self.asking,
                rows,
                f"{self.label}: answers to mend",
                seed=self.seed,
                outside=outside,
            )
        )
        counts = context.processes.gather(lambda: (made.asked, made.met, len(made.rows)))
        asked, met, learned = (sum(count[at] for count in counts) for at in range(3))
        self.figures = {"asked": asked, "met": met, "learned": learned}
        context.say(
            f"{self.label}: learns first from {learned} of {met} instructions that its own "
            f"answers to {asked} questions meet after they were mended"
        )
        self._imitation = imitation_of(context, made, seed=self.seed)

    def learn(self, trainer: PhaseTrainer, anchors: Anchors | None) -> None:
        """Take the steps, if anything was prepared to learn from."""
        if self._imitation is None:
            return
        losses = imitate(
            trainer,
            self._imitation,
            anchors,
            precision=self.asking.precision,
            label=f"{self.label}: mended answers",
            quiet=self.context.quiet,
        )
        self.figures |= {"steps": len(losses), "loss_first": losses[0], "loss": losses[-1]}
