"""A request has one limit, whatever drips; the suites of the judge and of rewrite hold the rest."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from risen_plugin.builtin.generators.endpoint import Endpoint, NoAnswer
from risen_plugin.errors import ConfigError
from risen_plugin.kit.chat_client import AskError, ChatClient, Secret


@pytest.fixture
def dripping(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an endpoint whose headers never end."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not over.wait(0.02):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    over.set()
    thread.join()
    listening.close()


def test_headers_that_drip_do_not_hold_a_request(dripping: str) -> None:
    client = ChatClient(f"{dripping}/chat/completions", request_timeout_s=0.2, retries=0)
    began = time.monotonic()
    with pytest.raises(AskError, match=r"^no answer within 0\.2 s$"):
        client.ask({"messages": []})
    assert time.monotonic() - began < 2.0


def test_headers_that_drip_do_not_hold_a_rewrite(dripping: str) -> None:
    [answer] = Endpoint(dripping, "tiny", request_timeout_s=0.2, retries=0).ask([{"messages": []}])
    assert answer == NoAnswer("no answer within 0.2 s")


def test_a_key_is_hidden_in_what_cannot_be_reached() -> None:
    client = ChatClient("http://127.0.0.1:1/sk-secret", Secret("sk-secret"), retries=0)
    with pytest.raises(AskError) as raised:
        client.ask({})
    assert "sk-secret" not in str(raised.value)


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-a\r\nX: y", "sk-a b", "sk-\u2028a", "sk-ä"])
def test_what_cannot_be_a_key_is_refused_without_being_shown(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``http.client`` would repeat it: Invalid header value b'Bearer sk-...'."""
    with pytest.raises(ConfigError) as raised:
        ChatClient("http://127.0.0.1:1/v1", Secret(key))
    assert "sk-" not in str(raised.value)
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ConfigError, match="holds what cannot be a key") as raised:
        Endpoint("http://127.0.0.1:1/v1", "tiny", api_key_env="MY_KEY")
    assert "sk-" not in str(raised.value)
    assert "sk-" not in repr(Secret(key))


def test_a_key_that_turns_bad_while_a_run_goes_on_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-good")
    endpoint = Endpoint("http://127.0.0.1:1/v1", "tiny", api_key_env="MY_KEY", retries=0)
    monkeypatch.setenv("MY_KEY", "sk-bad\nkey")
    with pytest.raises(ConfigError) as raised:
        endpoint.ask([{"messages": []}])
    assert "sk-" not in str(raised.value)
