"""Score the same answers in another process, with another hash seed.

Run as a module it is that other process: it reads a request from standard input and writes the
scores to standard output.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from risen_plugin.commands.audit.calling import Caller, CallResult, Item, read
from risen_plugin.errors import typed_line
from risen_plugin.kit.foreign import end_aside, noise_aside, say
from risen_plugin.plugins import Built, Plugins
from risen_plugin.plugins.lookup import look_up

TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Source:
    """The name and options of a reward, by which another process can make it too.

    :param name: as :func:`risen_plugin.plugins.lookup.look_up` takes it.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, plugins: Plugins | None = None) -> Built:
        """The reward.

        :raises ConfigError: if it cannot be found, imported, built or called.
        """
        return look_up(plugins or Plugins.load(), "reward", self.name, self.options)


def in_another_process(
    caller: Caller, source: Source | None, items: Sequence[Item], *, hash_seed: int
) -> list[CallResult] | str:
    """The results in another process, or in one line why there are none."""
    try:
        # Made anew from its source, so that randomness in its making shows.
        reward = None if source else base64.b64encode(pickle.dumps(caller.reward)).decode()
        request = json.dumps(
            {
                "source": vars(source) if source else None,
                "reward": reward,
                "form": caller.form,
                "items": [[dict(item.row), item.answer] for item in items],
            }
        )
    except Exception as error:  # noqa: BLE001  pickling runs the object's own code
        return f"cannot be taken to another process: {typed_line(error)}"
    try:
        done = subprocess.run(
            [sys.executable, "-m", "risen_plugin.commands.audit.elsewhere"],
            input=request,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env={**same_path(), "PYTHONHASHSEED": str(hash_seed)},
        )
    except subprocess.TimeoutExpired:
        return f"another process took more than {TIMEOUT_S:g} s"
    if done.returncode != 0:
        return f"fails in another process: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    answered = done.stdout.splitlines()
    if not answered:
        return "ends another process with exit code 0 before it has scored"
    return [_outcome(*values) for values in json.loads(answered[-1])]


def same_path() -> dict[str, str]:
    """The environment for a process that imports from where this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _outcome(score: float | None, fault: str | None, why: str, raw: str) -> CallResult:
    return CallResult(score, fault, why, raw)


def _answer(request: dict[str, Any]) -> list[list[Any]]:
    if request["source"]:
        reward = Source(**request["source"]).load().value
    else:
        reward = pickle.loads(base64.b64decode(request["reward"]))
    items = [Item(row, answer) for row, answer in request["items"]]
    caller = Caller(reward, request["form"])
    try:
        outcomes = read(caller.raw(items), len(items))
    except BaseException as error:  # noqa: BLE001  a stranger's reward may raise anything
        outcomes = [CallResult(None, "crash", typed_line(error))] * len(items)
    return [[o.score, o.fault, o.why, repr(o.raw)] for o in outcomes]


def main() -> None:
    """Answer one request."""
    asked = json.load(sys.stdin)
    with noise_aside():  # standard output is for the answer alone
        try:
            answered = _answer(asked)
        except BaseException as error:  # noqa: BLE001  reported to the process that asked
            sys.exit(f"{typed_line(error)}")
    say(json.dumps(answered))
    end_aside()


if __name__ == "__main__":
    main()
