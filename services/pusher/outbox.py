"""What waits to be written to one socket, within a bound."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from services.pusher.close_codes import SLOW, Close

#: Seconds that writing one frame may take.
WRITE_TIMEOUT = 10.0


class Closed(Exception):
    """The socket is to be closed, for the reason in ``why``."""

    def __init__(self, why: Close) -> None:
        super().__init__(why.reason)
        self.why = why


class Outbox:
    """``limit``: most that may wait, in characters. ``all_events``: whether the socket asked for more than messages."""

    def __init__(self, limit: int, *, all_events: bool = False) -> None:
        self.all_events = all_events
        self._limit = limit
        self._frames: deque[str] = deque()
        self._waiting = 0
        self._why: Close | None = None
        self._muted = False
        self._filled = asyncio.Event()
        self._written = asyncio.Event()

    def put(self, frame: str) -> None:
        """Never waits: a slow socket costs itself its connection, not the others their latency. One frame
        alone may always wait, however long."""
        if self._waiting and self._waiting + len(frame) > self._limit:
            self.close(SLOW)  # the frame is lost
        elif not self._muted:
            self._waiting += len(frame)
            self._frames.append(frame)
            self._filled.set()

    def mute(self) -> None:
        """Drop what waits and take nothing more: nobody is there to read it."""
        self._muted = True
        self._frames.clear()
        self._waiting = 0
        self._written.set()

    def close(self, why: Close) -> None:
        """Have the socket closed. What still waits is not written."""
        self._why = self._why or why
        self._filled.set()

    async def empty(self) -> None:
        """Wait until all was written. The writer's deadline is the deadline of this."""
        while self._waiting:
            self._written.clear()
            await self._written.wait()

    async def write(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what comes in, for ever. Raises Closed."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._frames and not self._why:
                frame = self._frames.popleft()
                try:
                    async with asyncio.timeout(WRITE_TIMEOUT):
                        await send(frame)
                except TimeoutError as error:
                    raise Closed(SLOW) from error
                if not self._muted:
                    self._waiting -= len(frame)
                self._written.set()
            if self._why:
                raise Closed(self._why)
