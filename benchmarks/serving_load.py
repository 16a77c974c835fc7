"""A server under load: ``python -m benchmarks.serving_load [BUNDLE]``.

Requests come when they come, whoever is still being answered (open loop, Poisson). First what the
server can do is measured; then it gets 80 % of that for a while, with clients among them that go
away, that read slowly and that ask for nonsense; then 300 %. Client and server share the machine.
Exit code 1 for an answer with 500 or more, memory that grows, or an overload without refusals.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.serving_shared import Served, embedded_bundle, served
from benchmarks.shared import machine, print_table

_WORDS = [
    "Order",
    "51234",
    "is",
    "late;",
    "it",
    "is",
    "a",
    "blue",
    "lamp",
    "for",
    "Tero",
    "in",
    "Kofu.",
    "Give",
    "the",
    "order",
    "and",
    "city.",
]
_GROWTH = 0.02  # of resident memory, from the second third of a soak to its last
_NONSENSE: list[Any] = [
    {"prompt": 5},
    {"prompt": "a", "n": 10**9},
    {"model": "../../etc"},
    {"prompt": "a", "structured_outputs": {"regex": "(("}},
]


@dataclass
class Seen:
    """What one load gave."""

    statuses: Counter[int] = field(default_factory=Counter)
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0
    memory: list[int] = field(default_factory=list)

    def row(self, name: str, rate: float) -> list[str]:
        """A line of the table."""
        statuses = " ".join(f"{count}x{status}" for status, count in sorted(self.statuses.items()))
        return [
            name,
            f"{rate:.1f}/s",
            f"{self.tokens / self.seconds:.0f}",
            *(f"{_share(self.first, share) * 1000:.0f}" for share in (0.5, 0.99)),
            *(f"{_share(self.whole, share) * 1000:.0f}" for share in (0.5, 0.99)),
            statuses,
        ]


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--precision", help="Which graph of the bundle.")
@click.option("--rows", default=8, show_default=True)
@click.option("--tokens", default=32, show_default=True, help="Of an answer.")
@click.option("--seconds", default=60.0, show_default=True, help="Of the soak.")
@click.option("--seed", default=0, show_default=True)
def main(*, bundle: Path | None, precision: str | None, **given: Any) -> None:
    """Print latencies, statuses and memory of each load."""
    print(machine())
    rows, tokens, seconds = given["rows"], given["tokens"], given["seconds"]
    rng = random.Random(given["seed"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = bundle or embedded_bundle(Path(scratch))
        # No more than the rows wait, so that what is accepted begins within one answer's time.
        options = ["--rows", str(rows), "--waiting", str(rows), "--context", "256", "--no-check"]
        options += ["--precision", precision] if precision else []
        with served(folder, secrets.token_hex(8), *options) as server:
            sys.exit(asyncio.run(_measure(server, rows, tokens, seconds, rng)))


async def _measure(
    server: Served, rows: int, tokens: int, seconds: float, rng: random.Random
) -> int:
    load = Load(server, tokens, rng)
    await load.closed(rows, 3.0)  # warm
    full = await load.closed(rows, min(15.0, seconds))
    capacity = len(full.whole) / full.seconds
    soak = await load.open(0.8 * capacity, seconds, mixed=True)
    over = await load.open(3 * capacity, min(20.0, seconds), mixed=False)
    again = await load.closed(rows, min(15.0, seconds))
    head = ["load", "asked", "tokens/s", "first p50", "p99 ms", "whole p50", "p99 ms", "statuses"]
    table = [
        full.row(f"{rows} at once", capacity),
        soak.row("80 %", 0.8 * capacity),
        over.row("300 %", 3 * capacity),
        again.row(f"{rows} at once, again", len(again.whole) / again.seconds),
    ]
    print_table(f"answers of {tokens} tokens, {rows} rows", head, table)
    third = len(soak.memory) // 3
    middle, last = (
        statistics.median(soak.memory[begin : begin + third]) for begin in (third, 2 * third)
    )
    print(
        f"memory in {soak.seconds:.0f} s of soak: {middle / 2**20:.1f} MiB in the second third, "
        f"{last / 2**20:.1f} MiB in the last ({last / middle - 1:+.2%})"
    )
    failed = [
        status for one in (full, soak, over, again) for status in one.statuses if status >= 500
    ]
    is_fine = not failed and last / middle - 1 <= _GROWTH and over.statuses[429] > 0
    print("held" if is_fine else "did not hold")
    return 0 if is_fine else 1


class Load:
    """Makes requests, each on a connection of its own, and notes what comes back."""

    def __init__(self, server: Served, tokens: int, rng: random.Random) -> None:
        host, _, port = server.url.removeprefix("http://").partition(":")
        self._place = host, int(port)
        self._key = server.key
        self._process = psutil.Process(server.process.pid)
        self._tokens = tokens
        self._rng = rng

    async def closed(self, workers: int, seconds: float) -> Seen:
        """So many requests at any time."""
        seen, began = Seen(), time.perf_counter()

        async def work() -> None:
            while time.perf_counter() - began < seconds:
                await self._ask(seen, "plain")

        await asyncio.gather(*(work() for _ in range(workers)))
        seen.seconds = time.perf_counter() - began
        return seen

    async def open(self, rate: float, seconds: float, *, mixed: bool) -> Seen:
        """So many requests a second, whatever becomes of those before.

        :param mixed: whether there are odd clients among those who ask.
        """
        seen, began, tasks = Seen(), time.perf_counter(), set[asyncio.Task[None]]()
        due, noted = began, began
        while (now := time.perf_counter()) - began < seconds:
            if now - noted > 0.25:
                seen.memory.append(self._process.memory_info().rss)
                noted = now
            if now < due:
                await asyncio.sleep(min(due - now, 0.05))
                continue
            due += self._rng.expovariate(rate)
            kind = "plain"
            if mixed:
                kind = self._rng.choices(["plain", "gone", "slow", "wrong"], [80, 8, 6, 6])[0]
            task = asyncio.ensure_future(self._ask(seen, kind))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        seen.seconds = time.perf_counter() - began
        return seen

    async def _ask(self, seen: Seen, kind: str) -> None:
        words = [self._rng.choice(_WORDS) for _ in range(self._rng.randint(4, 30))]
        body: dict[str, Any] = {
            "model": "bundle",
            "prompt": " ".join(words),
            "max_tokens": self._tokens,
            "ignore_eos": True,
            "stream": True,
        }
        if kind == "wrong":
            body |= self._rng.choice(_NONSENSE)
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(*self._place)
        try:
            writer.write(self._request(body))
            status = int((await reader.readline()).split()[1])
            seen.statuses[status] += 1
            if status == 200 and await self._read(reader, seen, kind, began):
                seen.tokens += self._tokens
        finally:
            writer.close()

    def _request(self, body: dict[str, Any]) -> bytes:
        # Written by hand: a client library takes more of the machine than the server.
        data = json.dumps(body).encode()
        return (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self._place[0]}\r\nConnection: close\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        ).encode() + data

    async def _read(
        self, reader: asyncio.StreamReader, seen: Seen, kind: str, began: float
    ) -> bool:
        """Read a stream to its end; whether it came there."""
        tail, first = b"", 0.0
        while data := await reader.read(65536):
            tail = tail[-32:] + data
            if not first and b"data: " in tail:
                first = time.perf_counter() - began
                seen.first.append(first)
                if kind == "gone":
                    return False
            if b"data: [DONE]" in tail:
                if kind == "plain":
                    seen.whole.append(time.perf_counter() - began)
                return True
            if kind == "slow":
                await asyncio.sleep(0.05)
        raise ConnectionError("a stream ended before its end")


def _share(values: list[float], share: float) -> float:
    ordered = sorted(values) or [float("nan")]
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    main()
