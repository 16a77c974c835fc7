"""A chat template is somebody else's program: it gets little time, memory and room, and no more."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from risen_export.runtime import rendering, templates
from risen_export.runtime.templates import render
from risen_plugin.errors import DataError

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
SECONDS = 0.5
"""What the templates of these tests get."""

HOSTILE = {
    "loops in loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "doubled texts": (
        "{% set n = namespace(x='x' * 1024) %}"
        "{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}"
    ),
    "a large factor": "{{ 'x' * 10000000000 }}",
    "a large power": "{{ 10 ** (10 ** 10) }}",
    "a wide column": "{{ 'x' | center(10000000000) }}",
    "a wide format": "{{ '%10000000000d' | format(1) }}",
    "a wide field": "{{ '{:10000000000}'.format(1) }}",
    "a list of lists": (
        "{% set n = namespace(x=[1]) %}"
        "{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}"
    ),
    "a key that takes for ever to hash": (
        "{% set n = namespace(x=(1, 2)) %}"
        "{% for i in range(99) %}{% set n.x = (n.x, n.x) %}{% endfor %}{{ {n.x: 1} | length }}"
    ),
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "words without end": "{{ lipsum(n=1000000000) }}",
    "a long range": "{{ range(100000000) | list | length }}",
    "output without end": "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
}
FAILING = {
    "a wrong sum": "{{ 'a' + 1 }}",
    "a division by zero": "{{ 1 // 0 }}",
    "a missing name": "{{ messages[0].nothing.at_all }}",
    "an unknown filter": "{{ messages | frobnicate }}",
    "an open block": "{% for a in messages %}",
    "an included file": "{% include '/etc/hostname' %}",
    "a way out of the sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "a change of what it was given": "{{ messages.append(1) }}",
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    render("ready", {})  # the process is there, so that only templates count
    monkeypatch.setattr(templates, "SECONDS", SECONDS)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_without_limits_is_stopped_in_one_line(name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(DataError, match="the chat template") as raised:
        render(HOSTILE[name], CHAT)
    assert time.monotonic() - begun < SECONDS + 10  # a busy machine starts a process meanwhile
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", FAILING)
def test_a_template_that_fails_is_one_line(name: str) -> None:
    with pytest.raises(DataError, match=r"the chat template refused the messages: .") as raised:
        render(FAILING[name], CHAT)
    assert "\n" not in str(raised.value)


def test_the_next_template_is_rendered_after_one_that_was_stopped() -> None:
    with pytest.raises(DataError, match=r"was stopped after 0\.5 s"):
        render(HOSTILE["loops in loops"], CHAT)
    assert render("{{ messages[0].content }}", CHAT) == "hi"


def test_a_process_that_was_ended_from_outside_is_replaced() -> None:
    assert render("{{ 1 }}", {}) == "1"
    os.kill(templates._helpers[os.getpid()]._process.pid, signal.SIGKILL)
    assert render("{{ 2 }}", {}) == "2"


def test_an_interrupt_leaves_no_answer_for_the_next_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = templates._Helper._read

    def interrupted(self: Any, seconds: float) -> Any:
        monkeypatch.setattr(templates._Helper, "_read", honest)
        raise KeyboardInterrupt

    monkeypatch.setattr(templates._Helper, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        render("the first", {})
    assert render("the second", {}) == "the second"


def test_letters_of_every_kind_come_through() -> None:
    text = "Grüße \U0001f600 \ud83d \x00 \u2028 \r\n"
    assert render("{{ text }}", {"text": text}) == text


def test_a_value_that_is_no_json_is_one_line() -> None:
    with pytest.raises(DataError, match="no value of JSON"):
        render("", {"messages": [{"content": object()}]})


def test_a_program_with_python_built_in_renders_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    templates._drop()
    monkeypatch.setattr("sys.executable", "/usr/bin/uwsgi")
    assert render("{{ messages[0].content }}", CHAT) == "hi"
    with pytest.raises(DataError, match=r"was stopped after 0\.5 s"):
        render(HOSTILE["loops in loops"], CHAT)
    assert templates._helpers == {}


def test_a_prompt_may_be_long() -> None:
    text = "x" * 5_000_000
    assert len(render("{{ text }}{{ text }}", {"text": text})) == 2 * len(text)
    assert 2 * len(text) < rendering.MOST_CHARACTERS
