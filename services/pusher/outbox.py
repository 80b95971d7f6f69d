"""What waits to be written to one socket, within a bound."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

#: Most that may wait for one socket, in characters.
MAX_WAITING = 1024 * 1024
#: Seconds that writing one frame may take.
WRITE_TIMEOUT = 10.0


class TooSlow(Exception):
    """The socket does not keep up."""


class Outbox:
    def __init__(self) -> None:
        self._frames: deque[str] = deque()
        self._waiting = 0
        self._overflowed = False
        self._filled = asyncio.Event()

    def put(self, frame: str) -> None:
        """Never waits: a slow socket costs itself its connection, not the others their latency."""
        if self._waiting + len(frame) > MAX_WAITING:
            self._overflowed = True  # the frame is lost, so the socket is about to be closed
        else:
            self._waiting += len(frame)
            self._frames.append(frame)
        self._filled.set()

    async def write(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what comes in, for ever. Raises TooSlow when a bound is passed."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._frames and not self._overflowed:
                frame = self._frames.popleft()
                try:
                    async with asyncio.timeout(WRITE_TIMEOUT):
                        await send(frame)
                except TimeoutError as error:
                    raise TooSlow from error
                self._waiting -= len(frame)
            if self._overflowed:
                raise TooSlow
