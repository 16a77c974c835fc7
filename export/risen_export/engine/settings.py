"""How large an engine is: rows, tokens, memory; what cannot fit is refused before it is opened."""

from __future__ import annotations

from dataclasses import dataclass

from risen_plugin.errors import DataError

_LEAST = 64  # tokens of an answer with its prompt, below which an engine is of no use


@dataclass(frozen=True)
class EngineSettings:
    """The bounds of an engine.

    :param rows: most answers that are written at once.
    :param context: most tokens of a prompt with its answer; None for the model's own, or less
        where ``memory`` leaves less room.
    :param memory: bytes for keys and values.
    :param waiting: most answers that wait for a row; more are refused (:class:`BusyError`).
    :param chunk: most tokens of a prompt that are read between two steps of the others.
    :param share: reuse what was read of equal beginnings of prompts.
    :param threads: of one operator; None leaves the choice to onnxruntime.
    """

    rows: int = 16
    context: int | None = None
    memory: int = 2 * 1024**3
    waiting: int = 256
    chunk: int = 128
    share: bool = True
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse what is no size.

        :raises DataError: with the setting's name.
        """
        for name in ("rows", "context", "memory", "waiting", "chunk", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} is {value}, and has to be at least 1")


class BusyError(DataError):
    """An engine has as many requests as it may have.

    :ivar retry_after: seconds after which a place is likely to be free.
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def room(settings: EngineSettings, context: int, token_bytes: int, whose: str) -> int:
    """The most tokens of a row, prompt and answer together.

    :param context: of the model.
    :param token_bytes: of the keys and values of one token.
    :param whose: the bundle, for the message.
    :raises DataError: if the asked context does not fit the model or the memory.
    """
    fitting = settings.memory // (settings.rows * token_bytes)
    wanted = min(context, settings.context or context)
    if settings.context is not None and settings.context > context:
        raise DataError(
            f"{whose} reads at most {context} tokens, and {settings.context} were asked"
        )
    if settings.context is not None and fitting < settings.context:
        needed = settings.rows * token_bytes * settings.context
        raise DataError(
            f"{settings.rows} answers of {settings.context} tokens take {_size(needed)} "
            f"of keys and values, and {_size(settings.memory)} are allowed: allow more, "
            f"or take fewer rows or at most {fitting} tokens"
        )
    least = min(_LEAST, wanted)
    if fitting < least:
        needed = settings.rows * token_bytes * least
        raise DataError(
            f"{_size(settings.memory)} of keys and values leave {fitting} tokens for each "
            f"of {settings.rows} answers, and {least}, which take {_size(needed)}, are the least; "
            f"allow more, or take fewer rows"
        )
    return min(wanted, fitting)


def _size(count: int) -> str:
    """Bytes in the largest unit of which they are at least one, rounded up to a tenth."""
    unit = max(power for power in range(3) if power == 0 or count >= 1024**power)
    tenths = -(-count * 10 // 1024**unit)
    return f"{tenths / 10:g} {('bytes', 'KiB', 'MiB')[unit]}"
