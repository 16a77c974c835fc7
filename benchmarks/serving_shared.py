"""``risen serve`` as a process, for benchmarks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Served:
    """A server that runs.

    :param url: its address.
    :param log: the file of what it says.
    """

    url: str
    key: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def headers(self) -> dict[str, str]:
        """Those of a request that it answers."""
        return {"authorization": f"Bearer {self.key}"}


@contextmanager
def served(bundle: Path, key: str, *options: str) -> Iterator[Served]:
    """Serve ``bundle``, under the name ``bundle``, until the block is left."""
    program = "from risen_plugin.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", str(bundle), "--port", "0"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with log.open("w") as told:
            process = subprocess.Popen(
                [*command, "--name", "bundle", *options],
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
                env={**os.environ, "RISEN_API_KEY": key},
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            url = re.search(r"http://[\d.:]+\d", line)
            if url is None:
                raise SystemExit(f"the server did not start: {log.read_text()}")
            yield Served(url[0], key, process, log)
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            print("server:", *log.read_text().splitlines()[-1:])


def embedded_bundle(folder: Path) -> Path:
    """A bundle of the embedded model, in fp32, that takes adapters."""
    from risen_export import export
    from risen_plugin.embedded import base_model

    export(base_model(), folder / "bundle", ("fp32",), separate=True, progress=False)
    return folder / "bundle"
