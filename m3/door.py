"""The one door in: how a process hands a message to the recorder and hears what became of it.

What comes back over the bus is news that may be lost, so whoever waits looks into the table now and then.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from uuid import UUID

import structlog

from m3 import topology
from m3.bus import Bus, Subscription
from m3.errors import (
    BusUnavailable,
    Interrupted,
    KeyReused,
    MessageTooLong,
    NotRecorded,
    StoreUnavailable,
    UndecodableEvents,
)
from m3.events import Incoming, Message, MessageAccepted, MessageRecorded, MessageSettled, decode, encode
from m3.store import Store
from m3.tasks import background

#: Seconds without news after which a waiter looks into the table.
LOOK_INTERVAL = 2.0
#: Notices taken from the bus at a time.
NOTICES_AT_ONCE = 1_000

log = structlog.get_logger(__name__)


class Watch:
    """What is known about one message so far."""

    def __init__(self, message_id: UUID, store: Store) -> None:
        self._message_id = message_id
        self._store = store
        self._news = asyncio.Event()
        self._message: Message | None = None
        self._reply: Message | None = None
        self._given_up = False

    def learn(self, message: Message, reply: Message | None = None) -> None:
        if self._message is None or self._message.fate == "pending":  # a doubled notice takes nothing back
            self._message = message
        self._reply = reply or self._reply
        self._news.set()

    def give_up(self) -> None:
        """Let whoever waits for news run into its TimeoutError now."""
        self._given_up = True
        self._news.set()

    async def recorded(self, within: float) -> Message:
        """The message with its number. Raises TimeoutError after so many seconds."""
        async with asyncio.timeout(within):
            while self._message is None:
                await self._look()
            return self._message

    async def settled(self, within: float) -> Message:
        """The message with its fate. Raises TimeoutError after so many seconds."""
        async with asyncio.timeout(within):
            while self._message is None or self._message.fate == "pending":
                await self._look()
            return self._message

    async def reply(self) -> Message | None:
        """The message's reply, if it has one by now."""
        if self._reply is None and self._message is not None and self._message.reply_id is not None:
            self._reply = await self._store.message(self._message.reply_id)
        return self._reply

    async def _look(self) -> None:
        """Wait for news, and after a while of silence ask the table."""
        if self._given_up:
            raise TimeoutError
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_INTERVAL):
                await self._news.wait()
                return
        with suppress(StoreUnavailable):
            if found := await self._store.message(self._message_id):
                self.learn(found)


class Door:
    """Hands messages in under this process's own origin."""

    def __init__(self, bus: Bus, store: Store, subscription: Subscription) -> None:
        self._bus = bus
        self._store = store
        self._subscription = subscription
        self._watches: dict[UUID, list[Watch]] = {}
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(cls, service: str, bus: Bus, store: Store) -> AsyncIterator["Door"]:
        async with bus.subscribe(service) as subscription:
            door = cls(bus, store, subscription)
            async with background(f"{service} notices", door._hear_notices()):
                yield door

    @property
    def origin(self) -> str:
        """Where the recorder tells this process what became of its messages."""
        return self._subscription.name

    @asynccontextmanager
    async def taken(self, said: MessageAccepted, *, limit: int, within: float) -> AsyncIterator[tuple[Message, Watch]]:
        """Hand in what somebody outside said and see it recorded; what becomes of it can be watched inside the block.

        ``limit``: its longest text in bytes of UTF-8; ``within``: seconds until it must be recorded.
        Raises MessageTooLong, KeyReused, NotRecorded, or a BusError where nothing was kept.
        """
        if len(said.content.encode()) > limit:
            raise MessageTooLong(f"message: must be at most {limit} bytes of UTF-8.")
        with self.watch(said.message_id) as watch:
            try:
                async with asyncio.timeout(within):
                    await self.hand_in(said)
                    message = await watch.recorded(within)
            except (TimeoutError, BusUnavailable) as error:
                raise NotRecorded(said.message_id) from error
            if not said.became(message):
                raise KeyReused("The key was used before, for another message.")
            yield message, watch

    async def hand_in(self, event: Incoming) -> None:
        """Returns when the broker has it; it is not recorded yet. Raises BusError."""
        await self._bus.publish(topology.accepted(), encode([event]))

    @contextmanager
    def watch(self, message_id: UUID) -> Iterator[Watch]:
        """Hear what becomes of a message; to be entered before it is handed in."""
        watch = Watch(message_id, self._store)
        if self._closing:
            watch.give_up()
        watches = self._watches.setdefault(message_id, [])
        watches.append(watch)
        try:
            yield watch
        finally:
            watches.remove(watch)
            if not watches:
                del self._watches[message_id]

    def stop_waiting(self) -> None:
        """Let everybody who waits for news go with what is known: this process is about to end."""
        self._closing = True
        for watches in self._watches.values():
            for watch in watches:
                watch.give_up()

    async def _hear_notices(self) -> None:
        while True:
            with suppress(Interrupted):  # whoever waits looks into the table soon anyway
                for body in await self._subscription.take(NOTICES_AT_ONCE):
                    self._hear(body)

    def _hear(self, body: bytes) -> None:
        try:
            events = decode(body)
        except UndecodableEvents as error:
            log.warning("notice not understood", reason=str(error))
            return
        for event in events:
            if isinstance(event, MessageRecorded | MessageSettled):
                reply = event.reply if isinstance(event, MessageSettled) else None
                for watch in self._watches.get(event.message.message_id, ()):
                    watch.learn(event.message, reply)
