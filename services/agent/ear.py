"""Hears what breaks turns off: somebody who cancels, and new messages of threads that are to be interrupted."""

from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import Interrupted, UndecodableEvents
from m3.events import CancelAsked, MessageRecorded, OutsideSource, decode
from m3.tasks import background
from services.agent.turn import Turns

#: What is taken from the bus at a time.
AT_ONCE = 1_000

log = structlog.get_logger(__name__)


class Ear:
    def __init__(self, subscription: Subscription, turns: Turns) -> None:
        self._subscription = subscription
        self._turns = turns
        self._awaited: dict[str, tuple[Collection[OutsideSource], int]] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, bus: Bus, turns: Turns) -> AsyncIterator["Ear"]:
        async with bus.subscribe("agent.control") as subscription:
            await subscription.bind(topology.CHAT_CONTROL, topology.EVERY_CANCELLATION)
            ear = cls(subscription, turns)
            async with background("agent control", ear._hear_all()):
                yield ear

    @asynccontextmanager
    async def near(self, thread_id: str) -> AsyncIterator[None]:
        """Hear what is said in the thread from here on."""
        for lane in ("user", "api"):
            await self._subscription.bind(topology.CHAT_OUT, f"{lane}.{thread_id}")
        try:
            yield
        finally:
            for lane in ("user", "api"):
                await self._subscription.unbind(topology.CHAT_OUT, f"{lane}.{thread_id}")

    @contextmanager
    def interrupting(self, thread_id: str, lanes: Collection[OutsideSource], after: int) -> Iterator[None]:
        """Break off the thread's turn inside the block when a message of the lanes comes in with a number beyond
        ``after``; to be entered ``near`` the thread."""
        self._awaited[thread_id] = lanes, after
        try:
            yield
        finally:
            del self._awaited[thread_id]

    async def _hear_all(self) -> None:
        while True:
            with suppress(Interrupted):  # whoever cancelled in vain sees the turn go on, and cancels again
                for body in await self._subscription.take(AT_ONCE):
                    self._hear(body)

    def _hear(self, body: bytes) -> None:
        try:
            events = decode(body)
        except UndecodableEvents as error:
            log.warning("news not understood", reason=str(error))
            return
        for event in events:
            if isinstance(event, CancelAsked):
                self._turns.stop(event.thread_id, "cancelled")
            elif isinstance(event, MessageRecorded):
                lanes, after = self._awaited.get(event.message.thread_id, ((), 0))
                if event.message.source in lanes and event.message.seq > after:
                    self._turns.stop(event.message.thread_id, "interrupted")
