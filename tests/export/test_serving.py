"""A server of a tiny bundle, asked by the official client and by strangers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from risen_export.commands.chat import Talk
from risen_export.engine.engine import Engine
from risen_export.engine.requests import Request
from risen_export.engine.settings import EngineSettings
from risen_plugin.cli import command_line
from risen_plugin.errors import DataError, ExportError

pytest.importorskip("starlette", reason="the extra serve is not installed")
openai = pytest.importorskip("openai", reason="the official client is not installed")

from .serving import KEY, Running, running, until  # noqa: E402

pytestmark = pytest.mark.slow
HELLO: list[Any] = [{"role": "user", "content": "hello"}]
PROGRAM = "from risen_plugin.cli import main; main()"


@pytest.fixture(scope="module")
def server(apart_bundle: Path) -> Iterator[Running]:
    with running(apart_bundle, keys=(KEY,), most_bytes=64 * 1024) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Running) -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


@pytest.fixture
def http(server: Running) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as one:
        yield one


@pytest.fixture(scope="module")
def alone(apart_bundle: Path) -> Any:
    """``alone(messages, tokens)``: what the engine answers greedily without a server."""
    engine = Engine.open(apart_bundle, settings=EngineSettings(rows=1))

    def answer(messages: Any, tokens: int) -> Any:
        ids = tuple(engine.tokenizer.encode(messages))
        return engine.run([Request(ids, max_new_tokens=tokens)])[0][0]

    return answer


def ask(http: httpx.Client, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    asked = {"model": "tiny", "max_tokens": 4, "temperature": 0, **body}
    if path.endswith("chat/completions"):
        asked.setdefault("messages", HELLO)
    return http.post(path, json=asked)


# The official client


def test_the_models_are_the_bundle_and_its_adapters(client: Any) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_chat_is_answered_as_the_engine_answers_it(client: Any, alone: Any) -> None:
    made = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=8, temperature=0)
    expected = alone(HELLO, 8)
    assert made.choices[0].message.content == expected.text
    assert made.choices[0].finish_reason == expected.finish
    assert made.usage.completion_tokens == len(expected.ids)


def test_a_stream_has_the_same_text_and_its_usage(client: Any, alone: Any) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=HELLO,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    expected = alone(HELLO, 8)
    assert text == expected.text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == expected.finish
    assert chunks[-1].usage.completion_tokens == len(expected.ids)


def test_a_seed_gives_the_same_answers_and_n_of_them(client: Any) -> None:
    def answers() -> list[str]:
        made = client.chat.completions.create(
            model="tiny", messages=HELLO, n=3, seed=7, max_tokens=12
        )
        return [choice.message.content for choice in made.choices]

    first = answers()
    assert first == answers()
    assert len(set(first)) == 3


def test_log_probabilities_come_with_the_likeliest_tokens(client: Any) -> None:
    made = client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        max_tokens=3,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
    )
    content = made.choices[0].logprobs.content
    assert len(content) == 3
    for one in content:
        assert len(one.top_logprobs) == 2
        assert one.logprob == one.top_logprobs[0].logprob >= one.top_logprobs[1].logprob


def test_several_prompts_are_answered_in_one_request(client: Any, alone: Any) -> None:
    made = client.completions.create(
        model="tiny", prompt=["one", "two", "three"], max_tokens=5, temperature=0, n=2
    )
    assert [choice.index for choice in made.choices] == list(range(6))
    assert made.choices[2].text == made.choices[3].text == alone("two", 5).text


def test_tokens_go_in_and_come_out(client: Any) -> None:
    made = client.completions.create(
        model="tiny",
        prompt=[40, 41, 42],
        max_tokens=5,
        temperature=0,
        logprobs=0,
        extra_body={"return_token_ids": True, "top_k": -1, "min_p": 0.0},
    )
    choice = made.choices[0]
    assert choice.prompt_token_ids == [40, 41, 42]
    assert len(choice.token_ids) == len(choice.logprobs.token_logprobs) == 5


def test_a_stop_text_ends_an_answer_and_is_not_in_it(client: Any, alone: Any) -> None:
    whole = alone("stop here", 12).text
    stop = whole[3]
    made = client.completions.create(
        model="tiny", prompt="stop here", max_tokens=12, temperature=0, stop=stop
    )
    assert made.choices[0].text == whole.partition(stop)[0]
    assert made.choices[0].finish_reason == "stop"


def test_an_answer_follows_a_schema(client: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    }
    made = client.chat.completions.create(
        model="tiny",
        messages=HELLO,
        max_tokens=40,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert isinstance(json.loads(made.choices[0].message.content)["yes"], bool)


def test_a_required_tool_is_called(client: Any) -> None:
    parameters = {
        "type": "object",
        "properties": {"late": {"type": "boolean"}},
        "required": ["late"],
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {"name": "note", "parameters": parameters}}]
    asked = {
        "model": "tiny",
        "messages": HELLO,
        "tools": tools,
        "tool_choice": "required",
        "max_tokens": 80,
        "temperature": 0,
    }
    made = client.chat.completions.create(**asked)
    call = made.choices[0].message.tool_calls[0]
    assert made.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "note"
    assert isinstance(json.loads(call.function.arguments)["late"], bool)
    chunks = [c.choices[0] for c in client.chat.completions.create(**asked, stream=True)]
    [streamed] = [c.delta.tool_calls[0] for c in chunks if c.delta.tool_calls]
    assert streamed.function.arguments == call.function.arguments
    assert chunks[-1].finish_reason == "tool_calls"


def test_the_best_of_several_answers_is_given_with_what_each_constraint_said(
    client: Any,
) -> None:
    risen = {
        "best_of": 8,
        "rewards": ["constraints"],
        "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"],
        "kwargs": [{}, {}],
    }
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 12, "seed": 3, "n": 8}
    made = client.chat.completions.create(**asked, extra_body={"risen": risen})
    scores = [choice.risen["score"] for choice in made.choices]
    assert scores == sorted(scores, reverse=True)
    one = client.chat.completions.create(**{**asked, "n": 1}, extra_body={"risen": risen})
    assert one.choices[0].message.content == made.choices[0].message.content
    assert [c["id"] for c in one.choices[0].risen["constraints"]] == risen["instruction_id_list"]
    [*_, last] = client.chat.completions.create(
        **{**asked, "n": 1}, extra_body={"risen": risen}, stream=True
    )
    assert last.choices[0].risen == one.choices[0].risen


def test_the_official_client_of_javascript_works_unchanged(server: Running, alone: Any) -> None:
    folder, node = os.environ.get("RISEN_NODE"), shutil.which("node")
    if not folder or node is None or not (Path(folder) / "node_modules" / "openai").is_dir():
        pytest.skip("RISEN_NODE names no folder with the package openai, or there is no node")
    program = Path(__file__).parent / "clients" / "with_openai.cjs"
    asked = json.dumps({"url": server.url, "key": KEY, "model": "tiny"})
    done = subprocess.run(
        [node, str(program)], input=asked, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    made = json.loads(done.stdout)
    assert made["models"] == ["tiny"]
    assert made["whole"] == made["streamed"] == alone(HELLO, 8).text
    assert made["logprobs"] == 3
    assert made["call"]["name"] == "note"
    assert isinstance(json.loads(made["call"]["arguments"])["late"], bool)
    assert made["refused"] == [404, "model_not_found"]
    assert made["unknown"] == 401


# Adapters


def test_an_adapter_is_loaded_asked_for_and_forgotten(
    apart_bundle: Path,
    tied_model: Any,
    tokenizer: Any,
    adapter: Any,
    tmp_path: Path,
) -> None:
    adapter(tmp_path)
    other = tmp_path / "elsewhere"
    other.mkdir()
    with running(apart_bundle, keys=(KEY,), adapters=tmp_path) as server:
        http = httpx.Client(
            base_url=server.url, headers={"authorization": f"Bearer {KEY}"}, timeout=30
        )
        base = ask(http, max_tokens=8).json()["choices"][0]["message"]["content"]
        load = {"lora_name": "new", "lora_path": "adapter"}
        assert http.post("/v1/load_lora_adapter", json=load).status_code == 200
        assert http.post("/v1/load_lora_adapter", json=load).status_code == 400
        again = http.post("/v1/load_lora_adapter", json={**load, "load_inplace": True})
        assert again.status_code == 200
        names = [one["id"] for one in http.get("/v1/models").json()["data"]]
        assert names == ["tiny", "new"]
        moved = ask(http, model="new", max_tokens=8).json()["choices"][0]["message"]["content"]
        assert moved != base
        for path, status in (("../elsewhere", 403), ("/etc", 403), ("gone", 404), ("", 400)):
            refused = http.post("/v1/load_lora_adapter", json={**load, "lora_path": path})
            assert refused.status_code == status, path
        assert http.post("/v1/unload_lora_adapter", json={"lora_name": "new"}).status_code == 200
        assert ask(http, model="new").status_code == 404
        assert http.post("/v1/unload_lora_adapter", json={"lora_name": "new"}).status_code == 404


def test_the_client_by_which_trl_syncs_adapters_works_unchanged(
    apart_bundle: Path, adapter: Any, tmp_path: Path
) -> None:
    client = pytest.importorskip("trl.experimental.async_grpo.vllm_client")
    pytest.importorskip("accelerate").PartialState(cpu=True)  # its log wants one
    folder = adapter(tmp_path)
    with running(apart_bundle, is_open=True, adapters=tmp_path) as server:
        trl = client.VLLMClient(server.url)
        trl.wait_for_server_ready(poll_interval_s=0.1)
        assert trl.get_max_model_len() == 256
        info = trl.get_server_info()
        assert info["parallel_config"]["data_parallel_size"] == 1
        assert info["lora_config"]["max_lora_rank"] >= 64
        assert info["lora_config"]["max_loras"] >= 64
        trl.pause()
        trl.load_lora_adapter("policy-v1", str(folder))
        trl.resume()
        body = {
            "model": "policy-v1",
            "prompt": [40, 41, 42],
            "max_tokens": 4,
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": -1,
            "repetition_penalty": 1.0,
            "n": 1,
            "return_token_ids": True,
            "logprobs": 0,
            "seed": 2**62 + 1,
        }
        choice = httpx.post(f"{server.url}/v1/completions", json=body).json()["choices"][0]
        assert len(choice["token_ids"]) == len(choice["logprobs"]["token_logprobs"])
        trl.unload_lora_adapter("policy-v1")
        assert httpx.post(f"{server.url}/v1/completions", json=body).status_code == 404


def test_a_pause_holds_answers_back_and_resuming_gives_them(http: httpx.Client) -> None:
    assert http.post("/pause", params={"mode": "keep"}).status_code == 200
    assert http.get("/ready").status_code == 503
    with pytest.raises(httpx.ReadTimeout):
        http.post(
            "/v1/completions",
            json={"model": "tiny", "prompt": "a", "max_tokens": 2},
            timeout=0.3,
        )
    assert http.post("/resume").status_code == 200
    assert http.get("/ready").status_code == 200
    assert ask(http).status_code == 200


@pytest.mark.parametrize(("mode", "finish"), [("abort", "abort"), ("wait", "length")])
def test_a_pause_ends_what_is_written_or_lets_it_finish(
    mode: str, finish: str, http: httpx.Client
) -> None:
    body = {"model": "tiny", "prompt": "a", "max_tokens": 200, "ignore_eos": True, "n": 16}
    with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert http.post("/pause", params={"mode": mode}).status_code == 200
        events = [json.loads(one[6:]) for one in lines if one.startswith("data: {")]
    try:
        reasons = [choice["finish_reason"] for event in events for choice in event["choices"]]
        assert reasons.count(finish) >= (16 if mode == "wait" else 1)
    finally:
        http.post("/resume")


# What is refused


def test_a_wrong_key_is_refused(server: Running) -> None:
    for headers in ({}, {"authorization": "Bearer no"}, {"authorization": f"Basic {KEY}"}):
        got = httpx.get(f"{server.url}/v1/models", headers=headers)
        assert (got.status_code, got.json()["error"]["code"]) == (401, "invalid_api_key")
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="no").models.list()


def nested(depth: int) -> str:
    return '{"properties":{"a":' * depth + "{}" + "}}" * depth


HOSTILE = {
    "no JSON": (b"{", 400),
    "no object": (b"[1]", 400),
    "no UTF-8": (b'{"model": "\xff\xfe"}', 400),
    "half a surrogate": (b'{"model": "\\ud800"}', 400),
    "half a surrogate in a prompt": (b'{"model": "tiny", "prompt": "\\udfff"}', 400),
    "NaN": (b'{"model": "tiny", "prompt": "a", "temperature": NaN}', 400),
    "a number of 5000 digits": (
        b'{"model": "tiny", "prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        400,
    ),
    "infinity": (b'{"model": "tiny", "prompt": "a", "temperature": 1e999}', 400),
    "deep lists": (b'{"prompt": ' + b"[" * 20000 + b"]" * 20000 + b"}", 400),
    "an oversized body": (b'{"prompt": "' + b"a" * 70000 + b'"}', 413),
    "a path as model": (b'{"model": "../../etc/passwd", "prompt": "a"}', 404),
    "an absolute path as model": (b'{"model": "/etc", "prompt": "a"}', 404),
    "a huge n": (b'{"model": "tiny", "prompt": "a", "n": 1000000000}', 400),
    "a huge max_tokens": (b'{"model": "tiny", "prompt": "a", "max_tokens": 1000000000}', 400),
    "many prompts": (b'{"model": "tiny", "prompt": [' + b'"a",' * 500 + b'"a"]}', 400),
    "an unknown token": (b'{"model": "tiny", "prompt": [99999]}', 400),
    "a negative token": (b'{"model": "tiny", "prompt": [-1]}', 400),
    "a long prompt": (b'{"model": "tiny", "prompt": "' + b"a " * 1000 + b'"}', 400),
    "a misspelt field": (b'{"model": "tiny", "prompt": "a", "temprature": 1}', 400),
    "an unknown reward": (
        b'{"model": "tiny", "prompt": "a", "risen": {"rewards": ["os:system"]}}',
        400,
    ),
    "a wrong constraint": (
        b'{"model": "tiny", "prompt": "a", "risen": {"instruction_id_list": [1, {}], "kwargs": 3}}',
        400,
    ),
    "a schema without end": (
        b'{"model": "tiny", "prompt": "a", "structured_outputs": {"json": '
        + nested(500).encode()
        + b"}}",
        400,
    ),
    "a wrong expression": (
        b'{"model": "tiny", "prompt": "a", "structured_outputs": {"regex": "(("}}',
        400,
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_server_should_answer_is_refused_in_their_shape(
    what: str, http: httpx.Client, server: Running
) -> None:
    body, status = HOSTILE[what]
    got = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert got.status_code == status, got.text
    assert set(got.json()["error"]) == {"message", "type", "param", "code"}
    server.wait_idle()


def test_a_schema_that_refers_to_itself_holds_nobody_up(
    http: httpx.Client, server: Running
) -> None:
    for schema in ({"$ref": "#"}, {"properties": {"a": {"$ref": "#"}}, "required": ["a"]}):
        got = ask(http, "/v1/completions", prompt="a", structured_outputs={"json": schema})
        assert got.status_code in (200, 400)
    server.wait_idle()


def test_a_grammar_is_compiled_once_and_not_in_the_engines_thread(
    server: Running, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from risen_export.engine.grammars import Grammars

    compiled: list[str] = []
    make = Grammars._compile

    def noted(self: Grammars, grammar: Any) -> Any:
        compiled.append(threading.current_thread().name)
        return make(self, grammar)

    monkeypatch.setattr(Grammars, "_compile", noted)
    for _ in range(2):
        got = ask(http, "/v1/completions", prompt="a", n=3, structured_outputs={"regex": "x[yz]"})
        assert {choice["text"][:1] for choice in got.json()["choices"]} == {"x"}
    [name] = compiled
    assert name.startswith("risen-grammars")


def test_bodies_are_json_and_paths_and_methods_are_known(http: httpx.Client) -> None:
    plain = http.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    assert http.get("/v1/nothing").status_code == 404
    assert http.get("/v1/completions").status_code == 405
    assert "error" in http.get("/v1/nothing").json()


def test_a_server_without_keys_lets_nobody_change_it(apart_bundle: Path) -> None:
    with running(apart_bundle, hosts=("127.0.0.1",)) as server:
        asked = {"lora_name": "a", "lora_path": "b"}
        got = httpx.post(f"{server.url}/v1/load_lora_adapter", json=asked)
        assert got.status_code == 403
        assert httpx.post(f"{server.url}/pause").status_code == 403
        for header in ("host", "origin"):
            evil = httpx.get(f"{server.url}/v1/models", headers={header: "http://evil.example"})
            assert evil.status_code == 403
        own = httpx.get(f"{server.url}/v1/models", headers={"origin": server.url})
        assert own.status_code == 200


def test_too_many_requests_are_told_when_to_come_again(apart_bundle: Path) -> None:
    with (
        running(apart_bundle, EngineSettings(rows=1, waiting=1), rate=5) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        many = ask(http, n=3)
        assert many.status_code == 429
        assert int(many.headers["retry-after"]) >= 1
        statuses = [ask(http, max_tokens=1).status_code for _ in range(6)]
        assert statuses == [200] * 4 + [429] * 2
        assert httpx.get(f"{server.url}/health").status_code == 200


# Ends


def test_who_goes_away_is_not_answered(http: httpx.Client, server: Running) -> None:
    body = {"model": "tiny", "prompt": "a", "max_tokens": 200, "ignore_eos": True, "n": 4}
    with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
        next(stream.iter_bytes())
    server.wait_idle(2)
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json={**body, "n": 32}, timeout=0.05)
    server.wait_idle(2)
    until(lambda: not server.service.active)


def test_a_request_that_takes_too_long_is_ended(apart_bundle: Path) -> None:
    with running(apart_bundle, timeout=0.1) as server, httpx.Client(base_url=server.url) as http:
        body = {"prompt": "a", "n": 64, "max_tokens": 200, "ignore_eos": True}
        got = ask(http, "/v1/completions", **body)
        assert (got.status_code, got.json()["error"]["code"]) == (504, "timeout")
        streamed = ask(http, "/v1/completions", **body, stream=True)
        assert '"code": "timeout"' in streamed.text
        server.wait_idle(2)


def test_what_was_begun_is_finished_when_the_server_stops(apart_bundle: Path) -> None:
    with running(apart_bundle) as server, httpx.Client(base_url=server.url, timeout=30) as http:
        body = {"model": "tiny", "prompt": "a", "max_tokens": 200, "ignore_eos": True}
        with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.server.should_exit = True
            rest = list(lines)
        assert rest[-2:] == ["data: [DONE]", ""] or rest[-1] == "data: [DONE]"
        until(lambda: not _accepts(server.url))


def _accepts(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


# What is told


def test_health_metrics_and_the_description_are_there(http: httpx.Client) -> None:
    ask(http)
    assert http.get("/health").json() == {"status": "ok"}
    text = http.get("/metrics").text
    assert 'risen_requests_total{path="/v1/chat/completions",status="200"}' in text
    assert "risen_first_token_seconds_bucket" in text
    assert "risen_engine_rows 4.0" in text
    paths = http.get("/openapi.json").json()["paths"]
    assert "/v1/chat/completions" in paths


def test_the_page_loads_nothing_from_elsewhere(server: Running) -> None:
    got = httpx.get(server.url)
    assert "default-src 'none'" in got.headers["content-security-policy"]
    assert "http://" not in got.text.replace("http://www.w3.org", "")
    assert "https://" not in got.text


def test_requests_are_logged_as_rows_that_train(apart_bundle: Path, tmp_path: Path) -> None:
    from risen_plugin.builtin.generators.jsonl import Jsonl

    file = tmp_path / "traffic.jsonl"
    ids = ["punctuation:no_comma"]
    with (
        running(apart_bundle, log_requests=file) as server,
        httpx.Client(base_url=server.url, timeout=30) as http,
    ):
        messages = [{"role": "user", "content": "Write to ada@example.org, sk-abcdefgh12345678"}]
        risen = {"instruction_id_list": ids, "kwargs": [{}]}
        ask(http, messages=messages, risen=risen)
        ask(http, messages=messages, risen=risen, stream=True)
    generator = Jsonl(path=str(file))
    [first, second] = generator(count=2, seed=0)
    assert first["prompt"][0]["content"] == "Write to [redacted], [redacted]"
    assert first["instruction_id_list"] == second["instruction_id_list"] == ids
    assert {"completion", "model", "time", "passed"} <= set(first)


# The command line


def test_a_chat_in_the_terminal_goes_on_from_what_was_said(apart_bundle: Path, alone: Any) -> None:
    talk = Talk(Engine.open(apart_bundle, settings=EngineSettings(rows=1)), most=8)
    shown: list[str] = []
    first = talk.answer("hello", shown.append)
    assert first == alone(HELLO, 8).text
    assert talk.said == [*HELLO, {"role": "assistant", "content": first}]
    talk.answer("again", shown.append)
    assert len(talk.said) == 4
    assert talk.command("/reset") == "forgotten"
    assert talk.answer("hello", shown.append) == first
    talk.command("/system be brief")
    assert talk.system == "be brief"
    with pytest.raises(ExportError, match="there is no adapter 'x'"):
        talk.command("/adapter x")
    with pytest.raises(DataError, match="/help"):
        talk.command("/nothing")


def test_ctrl_c_ends_an_answer_and_not_the_chat(apart_bundle: Path) -> None:
    talk = Talk(Engine.open(apart_bundle, settings=EngineSettings(rows=1)), most=100)

    def interrupt(text: str) -> None:
        if text:
            raise KeyboardInterrupt

    begun = talk.answer("hello", interrupt)
    assert len(begun) < 5
    assert talk.said[-1]["content"] == begun
    assert not talk.engine.busy
    assert talk.answer("hello", lambda text: None)


@contextmanager
def started(bundle: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """``risen serve`` as a process, and a client of it."""
    command = [sys.executable, "-c", PROGRAM, "serve", str(bundle), "--port", "0"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        url = re.search(r"http://[\d.:]+\d", line)
        assert url, line + (process.stderr.read() if process.stderr else "")
        with httpx.Client(base_url=url[0], timeout=30) as http:
            yield process, http
    finally:
        process.kill()
        process.communicate()


def test_a_server_that_is_asked_to_stop_finishes_and_says_so(apart_bundle: Path) -> None:
    with started(apart_bundle, "--log-format", "json") as (process, http):
        # Two turns of all rows, so that the signal comes before the end.
        body = {"model": "bundle", "prompt": "a", "max_tokens": 100, "ignore_eos": True, "n": 32}
        with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == "data: [DONE]"
        _, told = process.communicate(timeout=30)
    said = [json.loads(line) for line in told.splitlines()]
    messages = [one["message"] for one in said if "message" in one]
    assert process.returncode == 0
    assert messages == [
        "SIGTERM: no more requests are taken; 1 under way are finished, within 30 s",
        "stopped; every request that was begun has been answered",
    ]
    assert [one["completion_tokens"] for one in said if "request" in one] == [3200]


def test_a_server_that_is_killed_damages_nothing(apart_bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "traffic.jsonl"
    before = {path: path.stat().st_mtime_ns for path in apart_bundle.rglob("*")}
    with started(apart_bundle, "--log-requests", str(log)) as (process, http):
        ask(http, "/v1/completions", model="bundle", prompt="a")
        body = {"model": "bundle", "prompt": "a", "max_tokens": 200, "ignore_eos": True}
        with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            process.kill()
            with suppress(httpx.HTTPError):
                list(lines)
    assert {path: path.stat().st_mtime_ns for path in apart_bundle.rglob("*")} == before
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert {row["prompt"] for row in rows} == {"a"}
    Engine.open(apart_bundle)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--host", "0.0.0.0"], "give --api-key FILE"),
        (["--memory", "1KB"], "allow more, or take fewer rows"),
        (["--context", "100000"], "reads at most 256 tokens"),
        (["--api-key", "none.txt"], "cannot be read"),
        (["--redact", "("], "no regular expression"),
        (["-o", "slack=5"], "REWARD.NAME=VALUE"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(
    options: list[str], says: str, apart_bundle: Path, tmp_path: Path
) -> None:
    log = ["--log-requests", str(tmp_path / "log")] if "--redact" in options else []
    command = ["serve", str(apart_bundle), "--port", "0", *options, *log]
    result = CliRunner().invoke(command_line(), command)
    assert result.exit_code == 2
    assert says in result.output
    assert result.output.count("\n") == 1
