"""Hears what breaks turns off: somebody who cancels, and new messages of threads that are to be interrupted. And who
asks to be told a turn from its start."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import get_args

import structlog

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import Interrupted, UndecodableEvents
from m3.events import CancelAsked, Message, MessageRecorded, OutsideSource, RetellingAsked, decode
from m3.tasks import background
from services.agent.turn import Turns

#: What is taken from the bus at a time.
AT_ONCE = 1_000

_LANES: tuple[OutsideSource, ...] = get_args(OutsideSource)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Nearness:
    """A thread that is listened to: the newest message of each lane, and who may break its turn off."""

    newest: dict[OutsideSource, int] = field(default_factory=lambda: {"user": 0, "api": 0})
    lanes: Collection[OutsideSource] = ()
    after: int = 0
    until: float = 0.0

    @property
    def interrupts(self) -> bool:
        in_time = asyncio.get_running_loop().time() < self.until
        return in_time and any(self.newest[lane] > self.after for lane in self.lanes)


class Ear:
    def __init__(self, subscription: Subscription, turns: Turns) -> None:
        self._subscription = subscription
        self._turns = turns
        self._near: dict[str, _Nearness] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, bus: Bus, turns: Turns) -> AsyncIterator["Ear"]:
        """Those who ask for a turn are heard through a queue of their own: after an outage all ask at once, and a queue
        that is full drops what came first."""
        async with bus.subscribe("agent.control") as subscription, bus.subscribe("agent.retellings") as retellings:
            for key in topology.EVERY_CANCELLATION:
                await subscription.bind(topology.CHAT_CONTROL, key)
            for key in topology.EVERY_RETELLING:
                await retellings.bind(topology.CHAT_CONTROL, key)
            ear = cls(subscription, turns)
            async with (
                background("agent control", ear._hear_control(subscription)),
                background("agent retellings", ear._hear_retellings(retellings)),
            ):
                yield ear

    @asynccontextmanager
    async def near(self, thread_id: str) -> AsyncIterator[None]:
        """Hear what is said in the thread from here on."""
        self._near[thread_id] = _Nearness()
        try:
            for lane in _LANES:
                await self._subscription.bind(topology.CHAT_OUT, topology.announced(lane, thread_id).key)
            yield
        finally:
            del self._near[thread_id]
            for lane in _LANES:
                await self._subscription.unbind(topology.CHAT_OUT, topology.announced(lane, thread_id).key)

    @contextmanager
    def interrupting(
        self, thread_id: str, lanes: Collection[OutsideSource], *, after: int, within: float
    ) -> Iterator[Callable[[], bool]]:
        """Break off the thread's turn inside the block when a message of the lanes comes in with a number beyond
        ``after``, within so many seconds; yields what tells whether one came before the turn began."""
        nearness = self._near.get(thread_id)
        if nearness is None:  # nothing interrupts there
            yield lambda: False
            return
        nearness.lanes, nearness.after = lanes, after
        nearness.until = asyncio.get_running_loop().time() + within
        try:
            yield lambda: nearness.interrupts
        finally:
            nearness.lanes = ()

    async def _hear_control(self, subscription: Subscription) -> None:
        while True:
            with suppress(Interrupted):  # whoever cancelled in vain sees the turn go on, and cancels again
                for body in await subscription.take(AT_ONCE):
                    self._hear(body)

    async def _hear_retellings(self, subscription: Subscription) -> None:
        """Who asked in vain does not ask again; and what was told meanwhile may be lost too."""
        while True:
            try:
                for body in await subscription.take(AT_ONCE):
                    self._hear(body)
            except Interrupted:
                self._turns.retell_all()

    def _hear(self, body: bytes) -> None:
        try:
            events = decode(body)
        except UndecodableEvents as error:
            log.warning("news not understood", reason=str(error))
            return
        for event in events:
            if isinstance(event, CancelAsked):
                self._turns.stop(event.thread_id, "cancelled")
            elif isinstance(event, RetellingAsked):
                self._turns.retell(event.thread_id, event.origin)
            elif isinstance(event, MessageRecorded):
                self._hear_message(event.message)

    def _hear_message(self, message: Message) -> None:
        nearness = self._near.get(message.thread_id)
        if nearness is not None and message.source != "assistant":
            nearness.newest[message.source] = max(nearness.newest[message.source], message.seq)
            if nearness.interrupts:
                self._turns.stop(message.thread_id, "interrupted")
