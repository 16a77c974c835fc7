"""Asking again: when, after how long, and when not. No test waits: the waits are recorded."""

import random
import socket

import pytest
from risen_judge.spending import Spending

from risen_plugin.kit.chat_client import AskError, ChatClient, GarbledError, Secret

KEY = "sk-very-secret"
BODY = {"model": "m", "messages": []}


class Asked:
    """One question to an endpoint, with the waits that it took."""

    def __init__(self, url, *, spending=None, seed=0, now=0.0, **settings):
        self.waits = []
        self.spending = spending or Spending()
        self.client = ChatClient(
            f"{url}/chat/completions",
            Secret(KEY),
            now=lambda: now,
            **{"request_timeout_s": 5.0, **settings},
        )
        self.rng = random.Random(seed)

    def __call__(self):
        return self.client.ask(
            BODY,
            refused=self.spending.refused,
            used=self.spending.take,
            rng=self.rng,
            sleep=self.waits.append,
        )

    def refusal(self):
        with pytest.raises(AskError) as refused:
            self()
        assert "\n" not in str(refused.value)
        assert KEY not in str(refused.value)
        return str(refused.value)


def test_a_healthy_endpoint_is_asked_once(server, replies):
    server.script = lambda body, number: replies.completion("hello", usage={"total_tokens": 12})
    asked = Asked(server.url)
    assert asked() == "hello"
    assert asked.waits == []
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert (asked.spending.calls, asked.spending.tokens) == (1, 12)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_what_may_pass_is_asked_again(server, replies, status):
    server.script = lambda body, number: (
        replies.Reply(b"busy", status) if number < 3 else replies.completion("hello")
    )
    asked = Asked(server.url)
    assert asked() == "hello"
    assert len(server.bodies) == 3
    assert 0.5 <= asked.waits[0] <= 1.0 <= asked.waits[1] <= 2.0


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 422])
def test_what_will_not_pass_is_not_asked_again(server, replies, status):
    reply = replies.Reply(b'{"error": {"message": "no\\nway"}}', status, {"Location": "/v2"})
    server.script = lambda body, number: reply
    assert Asked(server.url).refusal() == f"HTTP {status} (no way)"
    assert len(server.bodies) == 1


def test_the_waits_double_up_to_the_longest_and_repeat_with_their_seed(server, replies):
    server.script = lambda body, number: replies.Reply(b"", 503)
    first, second, other = (
        Asked(server.url, retries=5, backoff_s=1.0, max_wait_s=6.0, seed=seed) for seed in (1, 1, 2)
    )
    assert first.refusal() == "HTTP 503 after 6 requests"
    for wait, longest in zip(first.waits, (1, 2, 4, 6, 6), strict=True):
        assert longest / 2 <= wait <= longest
    second.refusal()
    other.refusal()
    assert second.waits == first.waits != other.waits


@pytest.mark.parametrize(
    ("header", "waits"),
    [("7", [7.0]), ("Thu, 01 Jan 1970 00:01:40 GMT", [40.0]), ("0", [0.0])],
)
def test_an_endpoint_may_say_how_long_to_wait(server, replies, header, waits):
    busy = replies.Reply(b"", 429, {"Retry-After": header})
    server.script = lambda body, number: busy if number == 1 else replies.completion("hello")
    asked = Asked(server.url, now=60.0)
    assert asked() == "hello"
    assert asked.waits == waits


def test_a_nonsensical_wait_is_ours(server, replies):
    busy = replies.Reply(b"", 429, {"Retry-After": "soon"})
    server.script = lambda body, number: busy if number == 1 else replies.completion("hello")
    asked = Asked(server.url)
    assert asked() == "hello"
    assert 0.5 <= asked.waits[0] <= 1.0


def test_an_endpoint_that_asks_for_too_long_is_given_up(server, replies):
    server.script = lambda body, number: replies.Reply(b"", 429, {"Retry-After": "3600"})
    asked = Asked(server.url)
    assert asked.refusal() == "HTTP 429, and asks to wait for 3600 s"
    assert asked.waits == []


def test_an_outage_is_told_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    asked = Asked(f"http://127.0.0.1:{port}/v1", retries=2)
    refusal = asked.refusal()
    assert refusal.startswith("the endpoint cannot be reached (ConnectionRefusedError")
    assert refusal.endswith("after 3 requests")
    assert len(asked.waits) == 2


def test_a_slow_endpoint_is_given_up_in_time(server, replies):
    def slow(body, number):
        server.over.wait(5)
        return replies.completion("late")

    server.script = slow
    asked = Asked(server.url, request_timeout_s=0.05, retries=1)
    assert asked.refusal() == "no answer within 0.05 s after 2 requests"


def test_an_answer_that_trickles_in_is_slow_too(server, replies):
    reply = replies.completion("x" * 1000)
    reply.trickle = True
    server.script = lambda body, number: reply
    assert (
        Asked(server.url, request_timeout_s=0.05, retries=0).refusal() == "no answer within 0.05 s"
    )


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"<html>hello</html>", "the response is no chat completion"),
        (b'{"choices": [{"message": {"cont', "the response is no chat completion"),
        (b"", "the response is no chat completion"),
        (b"[]", "the response is no chat completion"),
        (b"[" * 100_000, "the response is no chat completion"),
        (b'{"choices": []}', "the response is no chat completion"),
        (b'{"choices": [{"message": {"content": 7}}]}', "its content is no text"),
        (b'{"error": {"message": "no such model"}}', "(no such model)"),
        (b'{"error": "overloaded"}', "(overloaded)"),
        (b"x" * (2 << 20), "the response is larger than 1048576 bytes"),
        (b"\xff\xfe", "the response is no chat completion"),
    ],
)
def test_nonsense_is_told_apart(server, replies, body, told):
    server.script = lambda _, number: replies.Reply(body)
    with pytest.raises(GarbledError) as refused:
        Asked(server.url)()
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_message_without_content_is_an_empty_text(server, replies):
    server.script = lambda body, number: replies.completion(None)
    assert Asked(server.url)() == ""


def test_a_budget_of_calls_counts_what_is_asked_again(server, replies):
    server.script = lambda body, number: replies.Reply(b"", 500)
    asked = Asked(server.url, spending=Spending(max_calls=2), retries=5)
    assert asked.refusal() == "budget spent"
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"total_tokens": 40}, 40),
        ({"total_tokens": "many"}, 25),
        ({"total_tokens": True}, 25),
        ({"total_tokens": -5}, 25),
        (None, 25),
        ([], 25),
    ],
)
def test_tokens_are_what_the_endpoint_says_or_a_quarter_of_the_characters(usage, tokens):
    spending = Spending(max_tokens=30)
    spending.take(usage, 100)
    assert spending.tokens == tokens
    assert spending.is_over is (tokens >= 30)


def test_the_key_is_shown_nowhere(server, replies):
    server.script = lambda body, number: replies.Reply(
        f'{{"error": {{"message": "wrong key {KEY}"}}}}'.encode(), 401
    )
    asked = Asked(server.url)
    assert asked.refusal() == "HTTP 401 (wrong key ***)"
    assert KEY not in repr(asked.client)
