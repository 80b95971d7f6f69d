"""The one door in: how a process hands a message to the recorder and hears what became of it.

What comes back over the bus is news that may be lost, so whoever waits looks into the table now and then.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from m3 import topology
from m3.batching import MAX_BODY, Batcher
from m3.bus import Bus, Subscription
from m3.errors import (
    BusError,
    BusUnavailable,
    Interrupted,
    KeyReused,
    M3Error,
    MessageTooLong,
    NotRecorded,
    NotRetryable,
    StoreUnavailable,
    ThreadFlooded,
    UndecodableEvents,
    UnknownMessage,
)
from m3.events import (
    CancelAsked,
    Incoming,
    Message,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    RetryAsked,
    decode,
    encode,
    parted,
)
from m3.settings import Settings
from m3.store import Store
from m3.tasks import background

#: Most messages that one request or one frame may bring.
MAX_BATCH = 500
#: Seconds without news after which a waiter looks into the table.
LOOK_INTERVAL = 2.0
#: Notices taken from the bus at a time.
NOTICES_AT_ONCE = 1_000

_FLOODED = "Too many messages of programs wait in the thread; try again later."

log = structlog.get_logger(__name__)


class Watch:
    """What is known about one message so far."""

    def __init__(self, message_id: UUID, store: Store) -> None:
        self._message_id = message_id
        self._store = store
        self._news = asyncio.Event()
        self._message: Message | None = None
        self._reply: Message | None = None
        self._doubted = False
        self._given_up = False

    def learn(self, message: Message, reply: Message | None = None) -> None:
        """A doubled notice takes nothing back: only a later change does, and an answer has no number of its own."""
        known = self._message
        if known is None or message.rev > known.rev or (message.rev == known.rev and known.fate == "pending"):
            self._message = message
        self._reply = reply or self._reply
        self._news.set()

    def doubt(self) -> None:
        """Look into the table now: it has more than was told here."""
        self._doubted = True
        self._news.set()

    def give_up(self) -> None:
        """Let whoever waits for news run into its TimeoutError now."""
        self._given_up = True
        self._news.set()

    async def recorded(self, within: float | None) -> Message:
        """The message with its number. Raises TimeoutError after so many seconds; None: the caller sees to that."""
        async with asyncio.timeout(within):
            while self._message is None:
                await self._look()
            return self._message

    async def settled(self, within: float | None) -> Message:
        """The message with its fate. Raises TimeoutError after so many seconds; None where the caller sees to that."""
        async with asyncio.timeout(within):
            while self._message is None or self._message.fate == "pending":
                await self._look()
            return self._message

    async def changed(self, since: Message, within: float) -> Message:
        """The message once it is not any more what it was. Raises TimeoutError after so many seconds."""
        self.learn(since)
        async with asyncio.timeout(within):
            while self._message is None or (self._message.rev, self._message.fate) == (since.rev, since.fate):
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
        if not self._doubted:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_INTERVAL):
                    await self._news.wait()
                    return
        self._doubted = False
        with suppress(StoreUnavailable):
            if found := await self._store.message(self._message_id):
                self.learn(found)


class BatchWatch:
    """What is recorded so far of several messages: ``messages``, by their ids."""

    def __init__(self, store: Store) -> None:
        self.messages: dict[UUID, Message] = {}
        self._store = store
        self._news = asyncio.Event()
        self._given_up = False

    def learn(self, message: Message, reply: Message | None = None) -> None:  # noqa: ARG002  # as Watch does
        self.messages[message.message_id] = message
        self._news.set()

    def give_up(self) -> None:
        """Let whoever waits for news run into its TimeoutError now."""
        self._given_up = True
        self._news.set()

    async def recorded(self, message_ids: AbstractSet[UUID]) -> None:
        """Return when these are; in silence the table tells. Waits for ever, or raises TimeoutError when given up."""
        while missing := message_ids - self.messages.keys():
            if self._given_up:
                raise TimeoutError
            self._news.clear()
            try:
                async with asyncio.timeout(LOOK_INTERVAL):
                    await self._news.wait()
            except TimeoutError:
                with suppress(StoreUnavailable):
                    self.messages |= await self._store.messages(missing)


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that came through the door. ``before``: how many messages of programs waited for the agent in its
    thread then; not counted for a person's."""

    message: Message
    watch: Watch
    before: int | None = None


class _Count:
    """What a look at a thread found that began at ``looked``."""

    def __init__(self) -> None:
        self.looking = asyncio.Lock()
        self.looked = -math.inf
        self.waiting = 0


class Door:
    """Hands messages in under this process's own origin."""

    def __init__(self, bus: Bus, batcher: Batcher, store: Store, subscription: Subscription) -> None:
        self._bus = bus
        self._batcher = batcher
        self._store = store
        self._subscription = subscription
        self._watches: dict[UUID, list[Watch | BatchWatch]] = {}
        self._counts: WeakValueDictionary[str, _Count] = WeakValueDictionary()  # of those who ask just now
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def open(cls, service: str, bus: Bus, store: Store) -> AsyncIterator["Door"]:
        async with bus.subscribe(service) as subscription, Batcher.open(service, bus) as batcher:
            door = cls(bus, batcher, store, subscription)
            async with background(f"{service} notices", door._hear_notices()):
                yield door

    @property
    def origin(self) -> str:
        """Where the recorder tells this process what became of its messages."""
        return self._subscription.name

    @asynccontextmanager
    async def taken(self, said: MessageAccepted, settings: Settings) -> AsyncIterator[Taken]:
        """Hand in what somebody outside said and see it recorded; what becomes of it can be watched inside the block.
        In a flooded thread what was recorded before is found all the same.

        Raises MessageTooLong, ThreadFlooded, KeyReused, NotRecorded, StoreUnavailable, or a BusError where nothing was
        kept.
        """
        if error := _too_long(said, settings):
            raise error
        with self.watch(said.message_id) as watch:
            try:
                async with asyncio.timeout(settings.record_timeout):
                    taken = await self._take(said, watch, settings)
            except (TimeoutError, BusUnavailable) as error:
                raise NotRecorded(said.message_id) from error
            if reused := _reused(said, taken.message):
                raise reused
            yield taken

    async def take_all(self, said: Sequence[MessageAccepted], settings: Settings) -> list[Message | M3Error]:
        """Hand in several messages of one thread and see them recorded: each as it is then, or why it was not taken, in
        order. The rules are those of ``taken``; a flooded thread takes as many as there is room for. Once the bus
        refuses some of them, what follows is not handed in.

        Raises StoreUnavailable, or a BusError, where nothing of them was kept.
        """
        asked = [message for message in said if not _too_long(message, settings)]
        watch = BatchWatch(self._store)
        refused: dict[UUID, M3Error] = {}
        with self._hearing(watch, {message.message_id for message in asked}), suppress(TimeoutError):
            async with asyncio.timeout(settings.record_timeout):
                refused |= await self._flooded(asked, watch, settings.api_bound)
                needless = refused.keys() | watch.messages.keys()
                wanted = [message for message in asked if message.message_id not in needless]
                refused |= await self._hand_in_all(wanted, watch)
                await watch.recorded({message.message_id for message in wanted} - refused.keys())

        def outcome(message: MessageAccepted) -> Message | M3Error:
            if error := _too_long(message, settings):
                return error
            recorded = watch.messages.get(message.message_id)
            if recorded is None:
                return refused.get(message.message_id) or NotRecorded(message.message_id)
            return _reused(message, recorded) or recorded

        return [outcome(message) for message in said]

    @asynccontextmanager
    async def found(self, said: MessageAccepted) -> AsyncIterator[Taken]:
        """As ``taken``, for who comes back to a message that was recorded before: nothing is handed in.

        Raises UnknownMessage, KeyReused or StoreUnavailable.
        """
        with self.watch(said.message_id) as watch:
            message = await self._recorded(said.message_id)
            if reused := _reused(said, message):
                raise reused
            watch.learn(message)
            yield Taken(message, watch)

    async def retry(self, message_id: UUID, settings: Settings) -> Message:
        """Ask for another turn for the message; returns it as it is then, or at once where it waits for one anyway.

        Raises UnknownMessage, NotRetryable, NotRecorded, StoreUnavailable, or a BusError where nothing was kept.
        """
        with self.watch(message_id) as watch:
            message = await self._recorded(message_id)
            if message.fate == "pending":
                return message
            if message.fate not in {"failed", "cancelled"}:
                raise NotRetryable("Only a message that failed or was cancelled can be retried.")
            within = settings.record_timeout
            asked = RetryAsked(thread_id=message.thread_id, message_id=message_id, origin=self.origin, rev=message.rev)
            try:
                async with asyncio.timeout(within):
                    await self.hand_in(asked)
                    return await watch.changed(message, within)
            except (TimeoutError, BusUnavailable) as error:
                raise NotRecorded(message_id) from error

    async def ask_to_cancel(self, thread_id: str) -> None:
        """Ask whoever is at the thread to stop its turn. Raises BusError."""
        await self._bus.publish(topology.asked_to_cancel(thread_id), encode([CancelAsked(thread_id=thread_id)]))

    async def hand_in(self, event: Incoming) -> None:
        """Returns when the broker has it; it is not recorded yet. It may share a body, and the fate of that, with what
        others hand in. Raises BusError."""
        await self._batcher.publish(encode([event]))

    @contextmanager
    def watch(self, message_id: UUID) -> Iterator[Watch]:
        """Hear what becomes of a message; to be entered before it is handed in."""
        watch = Watch(message_id, self._store)
        with self._hearing(watch, {message_id}):
            yield watch

    @contextmanager
    def _hearing(self, watch: Watch | BatchWatch, message_ids: AbstractSet[UUID]) -> Iterator[None]:
        if self._closing:
            watch.give_up()
        for message_id in message_ids:
            self._watches.setdefault(message_id, []).append(watch)
        try:
            yield
        finally:
            for message_id in message_ids:
                watches = self._watches[message_id]
                watches.remove(watch)
                if not watches:
                    del self._watches[message_id]

    def stop_waiting(self) -> None:
        """Let everybody who waits for news go with what is known: this process is about to end."""
        self._closing = True
        for watches in self._watches.values():
            for watch in watches:
                watch.give_up()

    async def _take(self, said: MessageAccepted, watch: Watch, settings: Settings) -> Taken:
        try:
            before = await self._waiting(said, settings.api_bound)
        except ThreadFlooded:
            known = await self._store.message(said.message_id)  # it needs no room
            if known is None:
                raise
            watch.learn(known)
            return Taken(known, watch)
        await self.hand_in(said)
        return Taken(await watch.recorded(None), watch, before)

    async def _waiting(self, said: MessageAccepted, bound: int) -> int | None:
        """How many messages of programs wait before a program's. Raises ThreadFlooded where there is no room for it."""
        if said.source != "api":
            return None
        waiting = await self._waiting_count(said.thread_id, bound)
        if waiting >= bound:
            raise ThreadFlooded(_FLOODED)
        return waiting

    async def _waiting_count(self, thread_id: str, bound: int) -> int:
        """How many messages of programs wait in the thread, up to the bound, at some moment from now on: those who ask
        while one looks share the next look."""
        now = asyncio.get_running_loop().time
        asked = now()
        count = self._counts.setdefault(thread_id, _Count())
        async with count.looking:
            if count.looked < asked:
                looked = now()
                count.waiting = await self._store.waiting_count(thread_id, "api", bound)
                count.looked = looked
            return count.waiting

    async def _flooded(self, said: Sequence[MessageAccepted], watch: BatchWatch, bound: int) -> dict[UUID, M3Error]:
        """Which of a thread's messages there is no room for. What is recorded already needs none, and is learnt."""
        ids = list(dict.fromkeys(message.message_id for message in said if message.source == "api"))
        if not ids:
            return {}
        room = bound - await self._waiting_count(said[0].thread_id, bound)
        if len(ids) <= room:
            return {}
        watch.messages |= await self._store.messages(ids)
        new = [message_id for message_id in ids if message_id not in watch.messages]
        error: M3Error = ThreadFlooded(_FLOODED)
        return dict.fromkeys(new[room:], error)

    async def _hand_in_all(self, said: Sequence[MessageAccepted], watch: BatchWatch) -> dict[UUID, M3Error]:
        """One body after the other, so that nothing gets past what the bus refuses; returns what was not handed in.
        Raises the BusError where nothing is kept at all."""
        parcels = parted(said, MAX_BODY)
        for number, (body, _) in enumerate(parcels):
            try:
                await self._batcher.publish(body)
            except BusError as error:
                uncertain = isinstance(error, BusUnavailable)  # it may have arrived, and is not recorded as yet
                if number == 0 and not uncertain and not watch.messages:
                    raise
                left = parcels[number + uncertain :]
                return {message.message_id: error for _, messages in left for message in messages}
        return {}

    async def _recorded(self, message_id: UUID) -> Message:
        message = await self._store.message(message_id)
        if message is None:
            raise UnknownMessage("There is no such message.")
        return message

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


def _too_long(said: MessageAccepted, settings: Settings) -> MessageTooLong | None:
    limit = settings.message_limit
    if len(said.content.encode()) <= limit:
        return None
    return MessageTooLong(f"message: must be at most {limit} bytes of UTF-8.")


def _reused(said: MessageAccepted, message: Message) -> KeyReused | None:
    return None if said.became(message) else KeyReused("The key was used before, for another message.")
