"""A server with several replicas: what happens to requests whose replica dies."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from risen_plugin.cli import command_line

pytest.importorskip("starlette", reason="the extra serve is not installed")
httpx = pytest.importorskip("httpx", reason="the official client is not installed")

from risen_export.engine.engine import Engine  # noqa: E402
from risen_export.engine.requests import Request, Sampling  # noqa: E402
from risen_export.engine.settings import EngineSettings  # noqa: E402
from risen_export.serving import inside  # noqa: E402
from risen_export.serving.front import TRIES, Front, LostError, application, seeded  # noqa: E402
from risen_export.serving.inside import Answered, Asked  # noqa: E402
from risen_export.serving.service import ServeSettings  # noqa: E402

CHAT = "/v1/chat/completions"
PROGRAM = "from risen_plugin.cli import main; main()"


class Dying:
    """Replicas that die with the first ``deaths`` requests, after ``parts`` of a stream."""

    def __init__(self, deaths: int, parts: int = 0) -> None:
        self.deaths = deaths
        self.parts = parts
        self.asked: list[Asked] = []
        self.left = 0

    async def whole(self, asked: Asked) -> Answered:
        self.asked.append(asked)
        if len(self.asked) <= self.deaths:
            raise LostError("a replica has died")
        seed = json.loads(asked.body or b"{}").get("seed")
        return Answered(200, ((b"x-from", b"a replica"),), json.dumps({"seed": seed}).encode())

    async def stream(self, asked: Asked) -> AsyncGenerator[Any, None]:
        self.asked.append(asked)
        dies = len(self.asked) <= self.deaths
        try:
            for number in range(3):
                if dies and number == self.parts:
                    raise LostError("a replica has died")
                if number == 0:
                    yield {"type": "http.response.start", "status": 200, "headers": []}
                else:
                    yield {"type": "http.response.body", "body": b"data: %d\n\n" % number}
        finally:
            self.left += 1


def ask(replicas: Any, path: str = CHAT, method: str = "POST", **settings: Any) -> Any:
    """``answer(body)``: the response of a front before ``replicas``."""
    front = Front(replicas, ServeSettings(**settings))

    def answer(body: Any = None, headers: Any = None) -> Any:
        async def run() -> Any:
            transport = httpx.ASGITransport(application(front))
            async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
                return await client.request(method, path, json=body, headers=headers)

        return asyncio.run(run())

    return answer


# The front, before replicas of ours


def test_a_request_whose_replica_dies_is_answered_by_another_with_the_same_seed() -> None:
    replicas = Dying(TRIES - 1)
    response = ask(replicas)({"model": "tiny", "messages": []})
    assert response.status_code == 200
    bodies = {asked.body for asked in replicas.asked}
    assert len(replicas.asked) == TRIES
    assert len(bodies) == 1
    assert response.json() == {"seed": json.loads(bodies.pop())["seed"]}
    assert response.json()["seed"] >= 0
    assert response.headers["x-from"] == "a replica"


def test_a_request_that_kills_every_replica_is_not_asked_for_ever() -> None:
    replicas = Dying(10**6)
    response = ask(replicas)({"model": "tiny"})
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "replica_lost"
    assert len(replicas.asked) == TRIES


@pytest.mark.parametrize(
    ("body", "seed", "streams"),
    [
        (b'{"model": "a"}', 7, False),
        (b'{"model": "a", "seed": null, "stream": false}\n', 7, False),
        (b'{"model": "a", "metadata": {"seed": "x"}}', 7, False),
        (b"{}", 7, False),
        (b'{"seed": 3}', 3, False),
        (b'{"stream": true, "seed": 0}', 0, True),
    ],
)
def test_a_request_gets_a_seed_unless_it_has_one(body: bytes, seed: int, streams: bool) -> None:
    headers = ((b"content-length", str(len(body)).encode()), (b"x-mine", b"1"))
    asked, said = seeded(Asked("POST", CHAT, headers, body), 7)
    data = json.loads(asked.body)
    assert data.pop("seed") == seed
    assert data == {key: value for key, value in json.loads(body).items() if key != "seed"}
    assert dict(asked.headers)[b"content-length"] == str(len(asked.body)).encode()
    assert dict(asked.headers)[b"x-mine"] == b"1"
    assert said == streams


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_body_that_cannot_be_read_is_left_to_the_replica(body: bytes) -> None:
    asked = Asked("POST", CHAT, (), body)
    assert seeded(asked, 7) == (asked, False)


@pytest.mark.parametrize("parts", [0, 1])
def test_a_stream_that_has_not_begun_is_asked_again(parts: int) -> None:
    replicas = Dying(1, parts)
    response = ask(replicas)({"model": "tiny", "stream": True})
    assert response.text == "data: 1\n\ndata: 2\n\n"
    assert len(replicas.asked) == replicas.left == 2


def test_a_stream_that_has_begun_ends_with_an_error() -> None:
    replicas = Dying(1, parts=2)
    first, second, _ = ask(replicas)({"model": "tiny", "stream": True}).text.split("\n\n")
    assert first == "data: 1"
    assert json.loads(second.removeprefix("data: "))["error"]["code"] == "replica_lost"
    assert len(replicas.asked) == 1


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/pause"])
def test_what_one_replica_alone_would_know_of_is_refused(path: str) -> None:
    replicas = Dying(0)
    response = ask(replicas, path)({"lora_name": "a", "lora_path": "a"})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "several_replicas"
    assert replicas.asked == []


def test_keys_and_rates_are_those_of_the_whole_server() -> None:
    replicas = Dying(0)
    answer = ask(replicas, keys=("a-key-of-mine",), rate=2)
    assert answer({"model": "tiny"}).status_code == 401
    assert replicas.asked == []
    mine = {"authorization": "Bearer a-key-of-mine"}
    front = Front(replicas, ServeSettings(keys=("a-key-of-mine",), rate=2))

    async def thrice() -> list[int]:
        transport = httpx.ASGITransport(application(front))
        async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
            sent = [await client.post(CHAT, json={}, headers=mine) for _ in range(3)]
        return [one.status_code for one in sent]

    assert asyncio.run(thrice()) == [200, 200, 429]


def test_a_replica_that_fails_otherwise_is_a_bug_that_is_answered() -> None:
    class Failing(Dying):
        async def whole(self, asked: Asked) -> Answered:
            raise ValueError("of ours")

    response = ask(Failing(0))({"model": "tiny"})
    assert response.status_code == 500
    assert "of ours" not in response.text


def test_who_goes_away_ends_the_request_at_the_replica() -> None:
    class Waiting(Dying):
        async def whole(self, asked: Asked) -> Answered:
            try:
                await asyncio.Event().wait()
            finally:
                self.left += 1
            raise AssertionError

    replicas = Waiting(0)
    front = Front(replicas, ServeSettings())

    async def leave() -> list[Any]:
        asked = Asked("POST", CHAT, ((b"content-type", b"application/json"),), b"{}")
        going = lambda: asyncio.sleep(0)  # noqa: E731
        return [one async for one in inside.messages(application(front), asked, going)]

    assert asyncio.run(leave())[0]["status"] == 499
    assert replicas.left == 1
    assert not front.active


# The command


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--replicas", "2"], "add --ray"),
        (["--ray", "--replicas", "2", "--max-replicas", "3"], "--replicas, or --min-replicas"),
        (["--ray", "--adapters", "."], "put adapters into the bundle"),
        (["--ray", "--min-replicas", "2"], "needs --max-replicas"),
        (["--ray", "--min-replicas", "3", "--max-replicas", "2"], "is more than"),
    ],
)
def test_numbers_of_replicas_that_contradict_each_other_are_refused(
    options: list[str], why: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(command_line(), ["serve", str(tmp_path), *options])
    assert done.exit_code == 2
    assert why in done.output
    assert len(done.output.splitlines()) == 1


def test_where_ray_is_missing_one_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "risen_export.serving.ray_serve", raising=False)
    done = CliRunner().invoke(command_line(), ["serve", str(tmp_path), "--ray", "--port", "0"])
    assert done.exit_code == 2
    assert "pip install 'risen-plugin[ray]'" in done.output
    assert len(done.output.splitlines()) == 1


# Ray itself


@contextmanager
def on_ray(bundle: Path, name: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``risen serve --ray`` with two replicas of ``bundle``: its address, and its process."""
    command = ("serve", str(bundle), "--ray", "--replicas", "2", "--port", "0", "--name", name)
    own = {**os.environ, "RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command],
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            found = re.search(r"on (http://\S+): 2 replicas", line)
            if found:
                break
        else:
            raise AssertionError("".join(said))
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield found[1], process
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    finally:
        process.kill()


def replicas_of(name: str) -> list[int]:
    """The processes of the replicas."""
    psutil = pytest.importorskip("psutil", reason="psutil is not installed")
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [""])[0].startswith(f"ray::ServeReplica:risen-{name}")
    ]


@pytest.mark.slow
def test_ray_loses_no_accepted_request_when_a_replica_is_killed(apart_bundle: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed; tox -e ray installs it")
    hello: list[Any] = [{"role": "user", "content": "hello"}]
    engine = Engine.open(apart_bundle, settings=EngineSettings(rows=1))
    ids = tuple(engine.tokenizer.encode(hello))
    name = f"killed{os.getpid()}"
    with on_ray(apart_bundle, name) as (url, _), httpx.Client(base_url=url, timeout=60) as client:

        def answer(seed: int) -> Any:
            asked = {"model": name, "messages": hello, "max_tokens": 120, "ignore_eos": True}
            return client.post(CHAT, json={**asked, "seed": seed})

        with ThreadPoolExecutor(48) as pool:
            waiting = [pool.submit(answer, seed) for seed in range(48)]
            while client.get("/health").status_code != 200:
                pass
            two = replicas_of(name)
            assert len(two) == 2
            os.kill(two[0], signal.SIGKILL)
            before = sum(one.done() for one in waiting)
            responses = [one.result() for one in waiting]
    assert before < 48  # some were under way
    assert [one.status_code for one in responses] == [200] * 48
    for seed in (0, 23, 47):
        alone = Request(ids, 120, Sampling(seed=seed), ignore_eos=True)
        text = engine.run([alone])[0][0].text
        assert responses[seed].json()["choices"][0]["message"]["content"] == text
