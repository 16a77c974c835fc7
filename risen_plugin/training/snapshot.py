"""Remember a user's adapter as it was when a phase began, to put it back or to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel


class Snapshot:
    """A PeftModel's trainable weights as they were; put back also after an exception.

    A plain model's weights are only written when a phase is accepted, so it needs no snapshot.
    """

    def __init__(self, model: Any) -> None:
        self.held: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        if isinstance(model, PeftModel):
            self.held = [(p, p.detach().clone()) for p in model.parameters() if p.requires_grad]

    def restore(self) -> None:
        with torch.no_grad():
            for parameter, value in self.held:
                parameter.copy_(value)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """The old weights in place of those in training, for as long as this is open."""
        trained = [parameter.data for parameter, _ in self.held]
        for parameter, value in self.held:
            parameter.data = value
        try:
            yield
        finally:
            for (parameter, _), value in zip(self.held, trained, strict=True):
                parameter.data = value

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            self.restore()
