"""Keep libraries from printing and logging while they work."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator

_NOISY = ("onnxruntime.quantization", "torch.onnx", "transformers")
_log = logging.getLogger("risen_export")


@contextlib.contextmanager
def quiet(*, show: bool = False) -> Iterator[io.StringIO]:
    """Keep libraries from printing and logging, and from configuring the root logger, for a while.

    Their output goes to the ``risen_export`` logger at DEBUG. onnxruntime's quantizer calls
    ``logging.basicConfig`` when it is imported; the root logger is put back as it was.
    """
    printed = io.StringIO()
    if show:
        yield printed
        return
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    noisy = [(logger, logger.level) for logger in map(logging.getLogger, _NOISY)]
    for logger, _ in noisy:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield printed
    finally:
        for logger, before in noisy:
            logger.setLevel(before)
        for handler in list(root.handlers):
            if handler not in handlers:
                root.removeHandler(handler)
        root.setLevel(level)
        if printed.getvalue():
            _log.debug("%s", printed.getvalue())
