"""Render chat templates, in a process of its own with little memory: this file is its program.

A template is a program that somebody else wrote. Jinja's sandbox keeps it from files and from the
interpreter, but not from asking for all memory or for ever. ``templates`` starts this process and
ends it. It imports jinja2 alone, so that it is there within a tenth of a second.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import jinja2
    import jinja2.nodes
    import jinja2.parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

LENGTH = struct.Struct(">Q")  # bytes of the message that follows
MOST_BYTES = 1024**3  # of memory, which a template of a real model does not come near
MOST_CHARACTERS = 32_000_000  # of a prompt; a million tokens are a fifth of it


def answer(request: Mapping[str, Any]) -> dict[str, str]:
    """``text``: what a template makes of its variables; or ``error``: why it makes nothing.

    :param request: ``template`` and ``variables``.
    """
    import jinja2

    try:
        pieces: list[str] = []
        left = MOST_CHARACTERS
        for piece in _compiled(request["template"]).generate(**request["variables"]):
            left -= len(piece)
            if left < 0:
                return {"error": f"it writes more than {MOST_CHARACTERS} characters"}
            pieces.append(piece)
        return {"text": "".join(pieces)}
    except jinja2.TemplateError as error:
        return {"error": _line(error) or type(error).__name__}
    except TimeoutError:  # of whoever called this without a process
        raise
    except MemoryError:
        return {"error": f"it needs more than {MOST_BYTES // 1024**2} MiB of memory"}
    except RecursionError:
        return {"error": "it calls itself without end"}
    except Exception as error:  # noqa: BLE001  whatever a stranger's program raises
        return {"error": f"{type(error).__name__}: {_line(error)}"}


def environment() -> ImmutableSandboxedEnvironment:
    """Jinja set up as chat templates expect it: sandboxed, block lines trimmed."""
    import jinja2
    import jinja2.ext
    import jinja2.nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        """``{% generation %}`` marks the answer for training; here it only shows its body."""

        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: object, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return made


def read_message(file: BinaryIO) -> Any:
    """The next message of a pipe; None at its end."""
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return json.loads(file.read(LENGTH.unpack(head)[0]))


def written(message: object) -> bytes:
    """A message as it goes through a pipe."""
    # Letters are escaped, so that half a surrogate pair comes through too.
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    return environment().from_string(template)


def _line(error: BaseException) -> str:
    return " ".join(str(error)[:2000].split())


def _bound() -> None:
    """Take memory from this process, where the system can."""
    try:
        import resource
    except ImportError:
        return
    for kind, most in ((resource.RLIMIT_AS, MOST_BYTES), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(kind, (most, most))
        except (ValueError, OSError):
            continue


def _use_processor(seconds: float) -> None:
    """Let the system end this process after so many more seconds, should nobody else do it."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime + 2 * seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
    except (ImportError, ValueError, OSError):
        return


def _main() -> None:
    pipe, out = sys.stdin.buffer, sys.stdout.buffer
    sys.path[:] = read_message(pipe)
    environment()
    _bound()
    while True:
        out.flush()
        request = read_message(pipe)
        if request is None:
            return
        _use_processor(request["seconds"])
        out.write(written(answer(request)))


if __name__ == "__main__":
    _main()
