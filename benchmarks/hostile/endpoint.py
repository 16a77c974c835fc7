"""An endpoint that drips, floods, redirects, lies and garbles; what the one client makes of it."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator

from benchmarks.hostile.trying import KEY

LIMIT_S = 1.0
_SLACK_S = 2.0  # beyond the limit, of a busy machine
_MOST_BYTES = 1 << 20
_MOST_MEMORY = 16 << 20  # bytes that one answer may take


def _ok(body: bytes, headers: str = "", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode("latin-1") + body


def _said(content: object) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


def _nested() -> bytes:
    data = bytes(50_000_000)
    for _ in range(3):
        data = gzip.compress(data)
    return data


_HEAD = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, list[bytes]] = {
    "nothing": [b""],
    "garbage": [b"\x00\xff" * 500],
    "old": [b"hello"],
    "status_text": [b"HTTP/1.1 abc OK\r\n\r\n"],
    "status_huge": [b"HTTP/1.1 99999999999 OK\r\n\r\n"],
    "status_line": [b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n"],
    "no_body": [_ok(b"")],
    "no_content": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "not_modified": [b"HTTP/1.1 304 Not Modified\r\n\r\n"],
    "short_body": [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}"],
    "huge_length": [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}"],
    "minus_length": [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}"],
    "text_length": [b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n{}"],
    "bad_chunks": [_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"],
    "huge_chunk": [_HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffff\r\n{}"],
    "large": [_ok(b"x" * (_MOST_BYTES + 5))],
    "large_json": [_ok(_said("x" * (_MOST_BYTES + 5)))],
    "nested_gzip": [_ok(_nested(), "Content-Encoding: gzip, gzip, gzip\r\n")],
    "gzip": [_ok(gzip.compress(_said("yes")), "Content-Encoding: gzip\r\n")],
    "deflate": [_ok(b"\x78\x9c\x00", "Content-Encoding: deflate\r\n")],
    "redirect": [_ok(b"", "Location: http://127.0.0.1:1/\r\n", "302 Found")],
    "redirect_file": [_ok(b"", "Location: file:///etc/passwd\r\n", "307 Temporary Redirect")],
    "redirect_odd": [_ok(b"", "Location: \x01\xff\r\n", "308 Permanent Redirect")],
    "echo_key": [_ok(json.dumps({"error": {"message": f"bad key {KEY}"}}).encode(), "", "401 No")],
    "echo_reason": [_ok(b"", "", f"401 {KEY}")],
    "echo_header": [_ok(b"", f"X-Key: {KEY}\r\n", "500 No")],
    "escape": [_ok(b'{"error": "\\u001b[31m\\u202e\\ud800"}', "", "500 No")],
    "long_error": [_ok(json.dumps({"error": "e" * 500_000}).encode(), "", "500 No")],
    "retry_after_long": [_ok(b"", "Retry-After: 999999999\r\n", "429 No")],
    "retry_after_digits": [_ok(b"", f"Retry-After: {'9' * 400}\r\n", "429 No")],
    "retry_after_minus": [_ok(b"", "Retry-After: -5\r\n", "429 No")],
    "retry_after_text": [_ok(b"", "Retry-After: soon\r\n", "503 No")],
    "retry_after_date": [_ok(b"", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n", "503 No")],
    "many_headers": [_HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + b"\r\n{}"],
    "long_header": [_HEAD + b"X: " + b"y" * 200_000 + b"\r\n\r\n{}"],
    "no_colon": [_HEAD + b"broken header\r\n\r\n{}"],
    "deep": [_ok(b"[" * 200_000)],
    "deep_closed": [_ok(b'{"choices": ' + b"[" * 5000 + b"]" * 5000 + b"}")],
    "digits": [_ok(b'{"choices": ' + b"9" * 10_000 + b"}")],
    "nan": [_ok(b'{"choices": [{"message": {"content": NaN}}]}')],
    "null": [_ok(b"null")],
    "list": [_ok(b"[]")],
    "text": [_ok(b'"text"')],
    "choices_text": [_ok(b'{"choices": "x"}')],
    "choices_empty": [_ok(b'{"choices": []}')],
    "choices_null": [_ok(b'{"choices": [null]}')],
    "message_list": [_ok(b'{"choices": [{"message": []}]}')],
    "content_number": [_ok(_said(7))],
    "content_list": [_ok(_said([{"text": "x"}]))],
    "content_null": [_ok(_said(None))],
    "content_empty": [_ok(_said(""))],
    "content_blank": [_ok(_said(" \n\u200b"))],
    "content_surrogate": [_ok(b'{"choices": [{"message": {"content": "\\ud800"}}]}')],
    "usage_odd": [_ok(b'{"usage": [], "choices": [{"message": {"content": "x"}}]}')],
    "error_odd": [_ok(b'{"error": {"message": {"a": []}}}', "", "400 No")],
    "latin_1": [_ok(b'{"choices": "\xe9"}')],
    "utf_16": [_ok(_said("yes").decode().encode("utf-16"))],
    "mark": [_ok(b"\xef\xbb\xbf" + _said("yes"))],
    "continues": [b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + _ok(_said("yes"))],
    # An ellipsis: the last piece again and again.
    "drip_status": [b"H", b"T"],
    "drip_headers": [_HEAD + b"X: ", b"y"],
    "drip_body": [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "],
    "drip_chunks": [_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"],
    "drip_continues": [b"", b"HTTP/1.1 100 Continue\r\n\r\n"],
    "flood_body": [_HEAD + b"\r\n", b"x" * 65536],
    "flood_headers": [_HEAD, b"X-Y: " + b"z" * 60_000 + b"\r\n"],
    "silence": [b"", b""],
}
_FAST = ("flood_body", "flood_headers")
KEYS = (f"{KEY}\n", f"{KEY}\r\nX: y", f"{KEY} x", f"{KEY}\0", f"{KEY}é", f"\u202e{KEY}")
URLS = (
    f"http://user:{KEY}@127.0.0.1/v1",
    f"http://{KEY}@127.0.0.1/v1",
    f"http://127.0.0.1/v1?key={KEY}",
    f"http://127.0.0.1/v1#{KEY}",
    "http://127.0.0.1:99999/v1",
    "http://127.0.0.1:x/v1",
    "http://[::1/v1",
    "http://127.0.0.1/v1\nX: y",
    "http://127.0.0.1 x/v1",
    "http:///v1",
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "//127.0.0.1",
    "",
)


def _serve(
    answer: list[bytes], fast: bool, listening: socket.socket, over: threading.Event
) -> None:
    while not over.is_set():
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(answer, fast, connection, over), daemon=True).start()


def _answer(
    answer: list[bytes], fast: bool, connection: socket.socket, over: threading.Event
) -> None:
    with contextlib.suppress(OSError), connection:
        connection.recv(65536)
        connection.sendall(answer[0])
        while len(answer) > 1 and not over.wait(0 if fast else 0.02):
            connection.sendall(answer[-1])


@contextlib.contextmanager
def serving(name: str) -> Iterator[str]:
    """The address of an endpoint that answers as ``ANSWERS`` says."""
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    arguments = (ANSWERS[name], name in _FAST, listening, over)
    threading.Thread(target=_serve, args=arguments, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        over.set()
        listening.close()


def faults_of(name: str) -> list[str]:
    """What is wrong with how both callers of the client take one answer."""
    from risen_plugin.builtin.generators.endpoint import Endpoint, NoAnswer
    from risen_plugin.kit.chat_client import AskError, ChatClient, Secret

    os.environ.update(no_proxy="127.0.0.1", HOSTILE_KEY=KEY)
    found: list[str] = []
    with serving(name) as url:
        for caller in ("judge", "rewrite"):
            began = time.monotonic()
            tracemalloc.start()
            try:
                if caller == "judge":
                    client = ChatClient(
                        f"{url}/chat/completions",
                        Secret(KEY),
                        request_timeout_s=LIMIT_S,
                        retries=0,
                    )
                    said = client.ask({"messages": []})
                else:
                    endpoint = Endpoint(
                        url, "m", api_key_env="HOSTILE_KEY", request_timeout_s=LIMIT_S, retries=0
                    )
                    [answer] = endpoint.ask([{"messages": []}])
                    said = answer.reason if isinstance(answer, NoAnswer) else ""
            except AskError as error:
                said = str(error)
            except Exception as error:  # noqa: BLE001  that is a fault
                found.append(f"{caller}: raises {type(error).__name__}: {str(error)[:80]!a}")
                said = str(error)
            spent, most = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            if spent > LIMIT_S + _SLACK_S:
                found.append(f"{caller}: {spent:.1f} s, with a limit of {LIMIT_S:g} s")
            if KEY in said:
                found.append(f"{caller}: the key is in the message")
            if most > _MOST_MEMORY and name != "content_long":
                found.append(f"{caller}: takes {most / 2**20:.0f} MiB")
    return found


def faults_of_settings() -> dict[str, list[str]]:
    """What is wrong with how keys and addresses that cannot be are refused."""
    from risen_plugin.builtin.generators.endpoint import Endpoint
    from risen_plugin.errors import ConfigError

    found: dict[str, list[str]] = {}
    tries = [("http://127.0.0.1:1/v1", key) for key in KEYS if "\0" not in key]
    tries += [(url, KEY) for url in URLS]
    for url, key in tries:
        name = f"{url} {key}".replace(KEY, "KEY")
        os.environ["HOSTILE_KEY"] = key
        faults = found[name] = []
        try:
            Endpoint(url, "m", api_key_env="HOSTILE_KEY")
        except ConfigError as error:
            if KEY in str(error):
                faults.append("the key is in the message")
        except Exception as error:  # noqa: BLE001  that is a fault
            faults.append(f"raises {type(error).__name__}")
        else:
            if key.strip() != KEY or url != "http://127.0.0.1:1/v1":
                faults.append("it is taken")
    return found
