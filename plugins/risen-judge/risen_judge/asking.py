"""Ask without holding up the event loop, and stop asking when nobody waits any more."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Mapping
from typing import Any

from risen_judge.spending import Spending
from risen_plugin.kit.chat_client import ChatClient

_GIVEN_UP = "nobody waits for it any more"


async def asked(
    client: ChatClient, body: Mapping[str, Any], spending: Spending, rng: random.Random
) -> str:
    """The text of the model's answer, as :meth:`ChatClient.ask`, which raises the same.

    A thread asks, since the client blocks. It is a daemon, so that no run waits for it to end; when
    this is cancelled it makes no further request.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()
    given_up = threading.Event()

    def work() -> None:
        try:
            text = client.ask(
                body,
                refused=lambda: _GIVEN_UP if given_up.is_set() else spending.refused(),
                used=spending.take,
                rng=rng,
                sleep=given_up.wait,
            )
        except Exception as error:  # noqa: BLE001  raised where it is waited for
            _settle(loop, answer, error)
        else:
            _settle(loop, answer, text)

    threading.Thread(target=work, daemon=True, name="judge").start()
    try:
        return await answer
    finally:
        given_up.set()


def _settle(
    loop: asyncio.AbstractEventLoop, answer: asyncio.Future[str], made: str | Exception
) -> None:
    def settle() -> None:
        if answer.done():  # it was cancelled
            return
        if isinstance(made, Exception):
            answer.set_exception(made)
        else:
            answer.set_result(made)

    try:
        loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the loop is closed: nobody waits
        return
