"""The one door in: how a process hands a message to the recorder and hears what became of it.

What comes back over the bus is news that may be lost, so whoever waits looks into the table now and then.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from logging import DEBUG
from time import perf_counter
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from m3 import metrics, topology, tracing
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


class _Programs:
    """The messages of programs that wait in one thread, as far as one door knows: those that its last look into the
    table ``found``, which began at ``looked``, and those that it let in and that may not be among them."""

    def __init__(self) -> None:
        self.looking = asyncio.Lock()
        self.looked = -math.inf
        self.found = 0
        self.none_under_way = asyncio.Event()
        self.none_under_way.set()
        self._let_in = 0  # in all, and of these what was recorded or given up by now, and when the look began
        self._done = 0
        self._done_then = 0

    def room(self, bound: int) -> int:
        """For so many more there is room, at the least."""
        return max(0, bound - self.found - (self._let_in - self._done_then))

    async def look(self, count: Callable[[], Awaitable[int]]) -> None:
        looked, done = asyncio.get_running_loop().time(), self._done
        self.found = await count()
        self.looked, self._done_then = looked, done

    @contextmanager
    def let_in(self, number: int) -> Iterator[None]:
        """So many, which are under way inside the block, and recorded or given up after it."""
        self._let_in += number
        self.none_under_way.clear()
        try:
            yield
        finally:
            self._done += number
            if self._done == self._let_in:
                self.none_under_way.set()


class Door:
    """Hands messages in under this process's own origin."""

    def __init__(self, bus: Bus, batcher: Batcher, store: Store, subscription: Subscription) -> None:
        self._bus = bus
        self._batcher = batcher
        self._store = store
        self._subscription = subscription
        self._watches: dict[UUID, list[Watch | BatchWatch]] = {}
        self._programs: WeakValueDictionary[str, _Programs] = WeakValueDictionary()  # of threads that are asked for
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
        with self.watch(said.message_id) as watch:
            with _counted([said]) as outcomes:
                taken = await self._take_in_time(said, watch, settings)
                outcomes.append(taken.message)
            yield taken

    async def take_all(self, said: Sequence[MessageAccepted], settings: Settings) -> list[Message | M3Error]:
        """Hand in several messages of one thread and see them recorded: each as it is then, or why it was not taken, in
        order. The rules are those of ``taken``; a flooded thread takes as many as there is room for. Once the bus
        refuses some of them, what follows is not handed in.

        Raises StoreUnavailable, or a BusError, where nothing of them was kept.
        """
        with _counted(said) as outcomes:
            outcomes.extend(await self._take_all(said, settings))
        return outcomes

    async def _take_all(self, said: Sequence[MessageAccepted], settings: Settings) -> list[Message | M3Error]:
        asked = [message for message in said if not _too_long(message, settings)]
        watch = BatchWatch(self._store)
        refused: dict[UUID, M3Error] = {}
        with self._hearing(watch, {message.message_id for message in asked}), suppress(TimeoutError):
            async with (
                asyncio.timeout(settings.record_timeout),
                self._let_in(asked, watch, settings.api_bound) as flooded,
            ):
                refused |= flooded
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
    async def found(self, said: MessageAccepted, *, own: bool) -> AsyncIterator[Taken]:
        """As ``taken``, for who comes back to a message that was recorded before: nothing is handed in. ``own``: it
        must be of the same author.

        Raises UnknownMessage, KeyReused or StoreUnavailable.
        """
        with self.watch(said.message_id) as watch:
            message = await self._store.message(said.message_id)
            if message is None or (own and not _by_the_same(said, message)):
                raise UnknownMessage("There is no such message.")
            if reused := _reused(said, message):
                raise reused
            watch.learn(message)
            yield Taken(message, watch)

    async def retry(self, message: Message, settings: Settings) -> Message:
        """Ask for another turn for the message; returns it as it is then, or at once where it waits for one anyway.

        Raises NotRetryable, NotRecorded, or a BusError where nothing was kept.
        """
        if message.fate == "pending":
            return message
        if message.fate not in {"failed", "cancelled"}:
            raise NotRetryable("Only a message that failed or was cancelled can be retried.")
        message_id, within = message.message_id, settings.record_timeout
        asked = RetryAsked(thread_id=message.thread_id, message_id=message_id, origin=self.origin, rev=message.rev)
        with self.watch(message_id) as watch:
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
        _log_accepted(event)
        await self._batcher.publish(encode(await self._store.content.sealed([event])))

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

    async def _take_in_time(self, said: MessageAccepted, watch: Watch, settings: Settings) -> Taken:
        if error := _too_long(said, settings):
            raise error
        try:
            async with asyncio.timeout(settings.record_timeout):
                taken = await self._take(said, watch, settings)
        except (TimeoutError, BusUnavailable) as error:
            raise NotRecorded(said.message_id) from error
        if reused := _reused(said, taken.message):
            raise reused
        return taken

    async def _take(self, said: MessageAccepted, watch: Watch, settings: Settings) -> Taken:
        if said.source != "api":
            await self.hand_in(said)
            return Taken(await watch.recorded(None), watch)
        programs = await self._look(said.thread_id, 1, settings.api_bound)
        if not programs.room(settings.api_bound):
            known = await self._store.message(said.message_id)  # it needs no room
            if known is None:
                raise ThreadFlooded(_FLOODED)
            watch.learn(known)
            return Taken(known, watch)
        before = programs.found
        with programs.let_in(1):
            await self.hand_in(said)
            return Taken(await watch.recorded(None), watch, before)

    @asynccontextmanager
    async def _let_in(
        self, said: Sequence[MessageAccepted], watch: BatchWatch, bound: int
    ) -> AsyncIterator[dict[UUID, M3Error]]:
        """Let in a thread's messages, inside the block, but for those of programs that there is no room for, which are
        told. What is recorded already needs none, and is learnt."""
        ids = list(dict.fromkeys(message.message_id for message in said if message.source == "api"))
        if not ids:
            yield {}
            return
        programs = await self._look(said[0].thread_id, len(ids), bound)
        if len(ids) > programs.room(bound):
            watch.messages |= await self._store.messages(ids)
            ids = [message_id for message_id in ids if message_id not in watch.messages]
        room = programs.room(bound)
        with programs.let_in(len(ids[:room])):
            yield dict.fromkeys(ids[room:], ThreadFlooded(_FLOODED))

    async def _look(self, thread_id: str, wanted: int, bound: int) -> _Programs:
        """What waits of programs in the thread, up to the bound, at some moment from now on: those who ask while one
        looks share the next look, and what it leaves room for.

        Near the bound what this door let in is seen recorded first, so that nothing is counted twice. It knows nothing
        of what other doors let in at the same moment, which may pass the bound.
        """
        asked = asyncio.get_running_loop().time()
        count = partial(self._store.waiting_count, thread_id, "api", bound)
        programs = self._programs.setdefault(thread_id, _Programs())
        async with programs.looking:
            if programs.looked < asked:
                await programs.look(count)
            if programs.room(bound) < wanted and not programs.none_under_way.is_set():
                await programs.none_under_way.wait()
                await programs.look(count)
        return programs

    async def _hand_in_all(self, said: Sequence[MessageAccepted], watch: BatchWatch) -> dict[UUID, M3Error]:
        """One body after the other, so that nothing gets past what the bus refuses; returns what was not handed in.
        Raises the BusError where nothing is kept at all."""
        _log_accepted(*said)
        parcels = parted(await self._store.content.sealed(said), MAX_BODY)
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

    async def _hear_notices(self) -> None:
        while True:
            with suppress(Interrupted):  # whoever waits looks into the table soon anyway
                for body in await self._subscription.take(NOTICES_AT_ONCE):
                    self._hear(body)

    def _hear(self, body: bytes) -> None:
        try:
            told = [event for event in decode(body) if isinstance(event, MessageRecorded | MessageSettled)]
        except UndecodableEvents as error:
            log.warning("notice not understood", reason=str(error))
            return
        watched = [event for event in told if event.message.message_id in self._watches]
        events = self._store.content.opened_now(watched)
        if events is None:  # who sealed a message has its key at hand; a reply may be sealed where that is not yet
            for event in watched:
                for watch in self._watches[event.message.message_id]:
                    if isinstance(watch, Watch):
                        watch.doubt()
            return
        for event in events:
            reply = event.reply if isinstance(event, MessageSettled) else None
            for watch in self._watches.get(event.message.message_id, ()):
                watch.learn(event.message, reply)


_messages = cache(metrics.MESSAGES.labels)
_record_wait = cache(metrics.RECORD_WAIT.labels)


@contextmanager
def _counted(said: Sequence[MessageAccepted]) -> Iterator[list[Message | M3Error]]:
    """Count what becomes of messages that came together: what the block puts into the list for each, or raises."""
    began = perf_counter()
    outcomes: list[Message | M3Error] = []
    try:
        yield outcomes
    except M3Error as error:
        outcomes = [error] * len(said)
        raise
    finally:
        if any(isinstance(outcome, Message) for outcome in outcomes):
            _record_wait(said[0].interface).observe(perf_counter() - began)
        codes = ("recorded" if isinstance(outcome, Message) else outcome.code for outcome in outcomes)
        kinds = Counter((one.source, one.interface, code) for one, code in zip(said, codes, strict=False))
        for kind, number in kinds.items():
            _messages(*kind).inc(number)


def _log_accepted(*events: Incoming) -> None:
    if log.is_enabled_for(DEBUG):
        for event in events:
            if isinstance(event, MessageAccepted):
                log.debug("message accepted", **tracing.ids(event), source=event.source)


def _too_long(said: MessageAccepted, settings: Settings) -> MessageTooLong | None:
    limit = settings.message_limit
    if len(said.content.encode()) <= limit:
        return None
    return MessageTooLong(f"message: must be at most {limit} bytes of UTF-8.")


def _by_the_same(said: MessageAccepted, message: Message) -> bool:
    return (said.thread_id, said.source, said.author) == (message.thread_id, message.source, message.author)


def _reused(said: MessageAccepted, message: Message) -> KeyReused | None:
    return None if said.became(message) else KeyReused("The key was used before, for another message.")
