"""Events for the recorder on their way in: one by one while there are few, several to a body where they pile up."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from m3 import topology
from m3.bus import Bus
from m3.errors import BusError
from m3.tasks import background

#: Longest body that several events share, in bytes: to the recorder and from it.
MAX_BODY = 256 * 1024
#: Publishes that may be unconfirmed at a time; what is handed in meanwhile goes together in the next.
UNCONFIRMED = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Parcel:
    """One caller's events, encoded, and what tells the caller that the broker has them."""

    body: bytes
    confirmed: asyncio.Future[None]


class Batcher:
    """Publishes to the recorder. Bodies leave in the order in which they were handed in, at once while fewer than
    ``UNCONFIRMED`` are under way, so no timer ever holds one up."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: deque[_Parcel] = deque()  # of callers that wait themselves, so there are no more than of those
        self._arrived = asyncio.Event()
        self._next = asyncio.Lock()  # held by the one publisher that waits for parcels

    @classmethod
    @asynccontextmanager
    async def open(cls, service: str, bus: Bus) -> AsyncIterator["Batcher"]:
        batcher = cls(bus)
        async with AsyncExitStack() as stack:
            for number in range(1, UNCONFIRMED + 1):
                await stack.enter_async_context(background(f"{service} publisher {number}", batcher._publish()))
            yield batcher

    async def publish(self, body: bytes) -> None:
        """Returns when the broker has the body, which may have travelled with others' and shares their fate; a caller
        that is cancelled harms nobody else. Raises BusError."""
        parcel = _Parcel(body, asyncio.get_running_loop().create_future())
        self._waiting.append(parcel)
        self._arrived.set()
        await parcel.confirmed

    async def _publish(self) -> None:
        while True:
            async with self._next:
                while not (parcels := self._pop()):
                    self._arrived.clear()
                    await self._arrived.wait()
            try:
                await self._bus.publish(topology.accepted(), _joined(parcel.body for parcel in parcels))
            except BusError as error:
                for parcel in parcels:
                    if not parcel.confirmed.done():
                        parcel.confirmed.set_exception(error)
            else:
                for parcel in parcels:
                    if not parcel.confirmed.done():
                        parcel.confirmed.set_result(None)

    def _pop(self) -> list[_Parcel]:
        """What waits, as far as one body carries it, but for parcels whose callers have gone."""
        popped: list[_Parcel] = []
        size = 0
        while self._waiting:
            parcel = self._waiting[0]
            if not parcel.confirmed.done():
                size += len(parcel.body)
                if popped and size > MAX_BODY:
                    break
                popped.append(parcel)
            self._waiting.popleft()
        return popped


def _joined(bodies: Iterable[bytes]) -> bytes:
    """One JSON array of all that is in several."""
    return b"[" + b",".join(body[1:-1] for body in bodies) + b"]"
