"""Room for so many turns side by side: people's come before programs', and after some of people's one of programs'."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from m3.events import OutsideSource


class Places:
    """``in_a_row``: how many places people get, while programs wait, before programs get one."""

    def __init__(self, count: int, in_a_row: int) -> None:
        self._free = count
        self._in_a_row = in_a_row
        self._for_people = 0  # given in a row while programs waited
        self._waiting: dict[OutsideSource, deque[asyncio.Future[None]]] = {"user": deque(), "api": deque()}
        self._open = False

    @property
    def full(self) -> bool:
        return self._free <= 0

    def wanted(self, lane: OutsideSource) -> bool:
        """Whether somebody of the lane waits for a place."""
        return bool(self._waiting[lane])

    def open(self) -> None:
        """Let everybody in from now on: nobody who comes in begins anything any more."""
        self._open = True
        while lane := self._next():
            self._let_in(lane)

    @asynccontextmanager
    async def taken(self, lane: OutsideSource) -> AsyncIterator[None]:
        """Wait for a place, and have it inside the block."""
        await self._take(lane)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, lane: OutsideSource) -> None:
        if self._open or (self._free > 0 and not self._next()):
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._give_back()
            else:
                self._waiting[lane].remove(place)
            raise

    def _give_back(self) -> None:
        self._free += 1
        if self._free > 0 and (lane := self._next()):
            self._let_in(lane)

    def _let_in(self, lane: OutsideSource) -> None:
        self._free -= 1
        self._for_people = self._for_people + 1 if lane == "user" and self.wanted("api") else 0
        self._waiting[lane].popleft().set_result(None)

    def _next(self) -> OutsideSource | None:
        """Whose turn it is among those who wait."""
        if self.wanted("user") and not (self.wanted("api") and self._for_people >= self._in_a_row):
            return "user"
        return "api" if self.wanted("api") else None
