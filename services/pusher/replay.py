"""What the sockets of a thread that came back have missed, read and built once for all of them.

They come back together, as after the death of a pusher, while the thread goes on. What goes out meanwhile is kept here,
so that what each still has to read from the table has an end.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from m3.events import ThreadEvent
from services.pusher.built import Built, built
from services.pusher.close_codes import Close, Closed

#: Numbers read from the table at a time.
PAGE = 200
#: Pages that are kept.
PAGES = 4
#: Bytes that are kept of what goes out; the table has what does not fit.
KEPT = 64 * 1024

#: Reads what happened in the thread after a number and up to another, in order. Raises StoreUnavailable.
Read = Callable[[int, int], Awaitable[Sequence[ThreadEvent]]]


class Replay:
    """``start``: everything after this number is kept here, and everything up to it is in the table."""

    def __init__(self, start: int, read: Read) -> None:
        self.start = start
        self.readers = 0
        self._read = read
        self._reading = asyncio.Lock()
        self._pages: dict[tuple[int, int], list[Built]] = {}
        self._live: deque[Built] = deque()
        self._size = 0
        self._why: Close | None = None

    def add(self, told: Built) -> None:
        """Keep what goes out now."""
        self._live.append(told)
        self._size += len(told.for_watchers)
        while self._size > KEPT:
            oldest = self._live.popleft()
            self._size -= len(oldest.for_watchers)
            self.start = oldest.number

    def close(self, why: Close) -> None:
        """Whoever catches up is to be closed: what was kept does not hold any more."""
        self._why = why

    async def page(self, after: int) -> list[Built]:
        """Some of what follows the number, up to the start at most; empty where there is nothing. Raises
        StoreUnavailable and Closed."""
        while after < (start := self.start):
            first = after - after % PAGE  # those who come back together have seen about as much
            last = min(first + PAGE, start)
            async with self._reading:
                page = self._pages.get((first, last))
                if page is None:
                    page = [built(event) for event in await self._read(first, last)]
                    self._pages[first, last] = page
                    if len(self._pages) > PAGES:
                        del self._pages[next(iter(self._pages))]
            self._check()
            if new := [told for told in page if told.number > after]:
                return new
            after = last
        return []

    def rest(self, after: int) -> list[Built]:
        """What went out since the start, as far as it follows the number. Raises Closed."""
        self._check()
        return [told for told in self._live if told.number > after]

    def _check(self) -> None:
        if self._why is not None:
            raise Closed(self._why)
