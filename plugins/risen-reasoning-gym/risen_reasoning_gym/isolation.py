"""Let a task use and change global state of the process, and restore that state afterwards.

Seen with reasoning-gym 0.1.25: ``list_functions`` and ``codeio`` draw from the global generators of
Python and numpy, ``pool_matrix`` seeds numpy's, ``decimal_arithmetic`` sets the decimal precision,
and some print. Neither a run's draws nor a task's may depend on the other's.
"""

from __future__ import annotations

import decimal
import importlib
import io
import random
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed the global generators within the block; restore them and the precision after it."""
    numpy_random: Any = importlib.import_module("numpy.random")
    python_state, numpy_state = random.getstate(), numpy_random.get_state()
    random.seed(seed)
    numpy_random.seed(seed % 2**32)
    try:
        with decimal.localcontext(), redirect_stdout(io.StringIO()):
            yield
    finally:
        random.setstate(python_state)
        numpy_random.set_state(numpy_state)
