"""Claim: ``import risen_plugin`` and ``risen --help`` load no torch and take under 0.5 s."""

from __future__ import annotations

import sysconfig
import time
from functools import partial
from pathlib import Path

import click

from benchmarks.shared import (
    Spread,
    held,
    interleave,
    machine,
    measuring,
    print_table,
    run_python,
    write_results,
)

LIMIT_S = 0.5
_TELL = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules));"
_HELP = "from risen_plugin.cli import main; main(['--help'])"


@click.command()
@measuring(repeats=10)
def main(repeats: int, json_file: Path | None) -> None:
    """Time fresh interpreters, and look for torch among the modules that they load."""
    before = machine()
    risen = Path(sysconfig.get_path("scripts")) / "risen"
    if not risen.exists():
        raise click.ClickException("the command risen is not installed beside this python")
    arms = {
        "python -c pass": ("-c", "pass"),
        "import risen_plugin": ("-c", "import risen_plugin"),
        "risen --help": (str(risen), "--help"),
    }
    torch = {
        "python -c pass": _loads_torch("pass"),
        "import risen_plugin": _loads_torch("import risen_plugin"),
        "risen --help": _loads_torch(_HELP),
    }
    for arguments in arms.values():
        run_python(*arguments)  # fills the caches of bytecode and files
    runs = interleave({name: partial(_seconds, *given) for name, given in arms.items()}, repeats)
    spreads = {name: Spread.of(seconds) for name, seconds in runs.items()}
    print_table(
        f"Fresh interpreters, {repeats} interleaved runs each",
        ("", "s, median (least to most)", "loads torch"),
        [
            (name, spread.show(3), "yes" if torch[name] else "no")
            for name, spread in spreads.items()
        ],
    )
    good = all(s.median < LIMIT_S for s in spreads.values()) and not any(torch.values())
    click.echo(f"\nno torch, under {LIMIT_S} s: {held(good)}")
    write_results(
        json_file,
        settings={"repeats": repeats},
        machine=before,
        results={"seconds": spreads, "loads_torch": torch},
    )


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    run_python(*arguments)
    return time.perf_counter() - started


def _loads_torch(code: str) -> bool:
    """Whether torch is among the modules when the interpreter ends."""
    return run_python("-c", f"{_TELL} {code}").splitlines()[-1] == "True"


if __name__ == "__main__":
    main()
