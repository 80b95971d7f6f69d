"""Waiting for a condition, never for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable

#: Seconds after which a test gives up waiting. Generous, since the machine may be busy; a pass never waits for it.
DEADLINE = 20.0


async def until(
    condition: Callable[[], bool | Awaitable[bool]], *, within: float = DEADLINE, every: float = 0.01
) -> None:
    """Return as soon as the condition holds. Raises TimeoutError after so many seconds. ``every``: seconds between
    looks, more of them where a look costs others something."""
    async with asyncio.timeout(within):
        while True:
            held = condition()
            if not isinstance(held, bool):
                held = await held
            if held:
                return
            await asyncio.sleep(every)


def until_blocking(condition: Callable[[], bool], *, within: float = DEADLINE) -> None:
    """As ``until``, where no event loop runs."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)
