"""From the recorder queue into the table, and from the table to whoever listens.

While one transaction runs, the next batch gathers: batches grow with the load and need no timer.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from logging import DEBUG
from time import perf_counter, time_ns
from typing import get_args
from uuid import UUID

import structlog
from structlog.contextvars import bound_contextvars

from m3 import metrics, topology, tracing
from m3.batching import MAX_BODY
from m3.bus import Bus, Consumer, Delivery
from m3.errors import BusError, BusFull, StoreUnavailable, UndecodableEvents, Unstorable
from m3.events import (
    AnyEvent,
    Incoming,
    Lane,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    MessagesPassedOver,
    RetryAsked,
    TurnFailed,
    decode,
    encode,
    encode_within,
)
from m3.store import Record, Store
from m3.tasks import background
from m3.topology import Route

#: Most events written in one transaction, unless one body alone has more.
EVENTS_AT_ONCE = 1_000
#: Most bodies that are fetched and not settled: under load each has many events, up to MAX_BODY bytes of them.
PREFETCH = 200
#: Seconds between attempts while the database or the broker is away.
RETRY_INTERVAL = 0.5

log = structlog.get_logger(__name__)


@asynccontextmanager
async def recorder(bus: Bus, store: Store, *, grace: float) -> AsyncIterator[None]:
    """Record while inside the block. Leaving it sees to what was fetched, as far as ``grace`` seconds allow; the rest
    goes to another recorder."""
    async with (
        bus.consume(topology.RECORDER, prefetch=PREFETCH) as consumer,
        background("recorder", _Recorder(bus, store, consumer).run(), stop=consumer.stop, grace=grace),
    ):
        yield


@dataclass(frozen=True, slots=True)
class _Letter:
    """A body that could be read."""

    delivery: Delivery
    events: Sequence[Incoming]


class _Recorder:
    def __init__(self, bus: Bus, store: Store, consumer: Consumer) -> None:
        self._bus = bus
        self._store = store
        self._consumer = consumer

    async def run(self) -> None:
        # Half of what is fetched, so that the next batch gathers while one is written.
        while deliveries := await self._consumer.take(PREFETCH // 2):
            async for letters in self._batches(deliveries):
                await self._record(letters)

    async def _batches(self, deliveries: Sequence[Delivery]) -> AsyncIterator[list[_Letter]]:
        """As many at a time as one transaction takes. They are read only then: read all at once, long bodies would hold
        up this process and fill its memory."""
        batch: list[_Letter] = []
        size = 0
        for delivery in deliveries:
            try:
                letter = _Letter(delivery, _incoming(delivery.body))
            except UndecodableEvents as error:
                await self._reject(delivery, str(error))
                continue
            size += len(letter.events)
            if batch and size > EVENTS_AT_ONCE:
                yield batch
                batch, size = [], len(letter.events)
            batch.append(letter)
        if batch:
            yield batch

    async def _record(self, letters: Sequence[_Letter]) -> None:
        """Write the batch, announce it, and only then ack it: whoever dies in between leaves it to another."""
        events = [event for letter in letters for event in letter.events]
        unannounced = {  # by a recorder that may have died before it announced them
            event.message_id
            for letter in letters
            if letter.delivery.redelivered
            for event in letter.events
            if isinstance(event, MessageAccepted)
        }
        refused = await self._write(events, unannounced)
        spoilt = [letter for letter in letters if refused.keys() & letter.events] if refused else []
        await self._consumer.ack([letter.delivery for letter in letters if letter not in spoilt])
        for letter in spoilt:
            await self._refuse(letter, refused)

    async def _refuse(self, letter: _Letter, refused: Mapping[Incoming, str]) -> None:
        """To the dead letters. What came with others is handed in anew to come back by itself, or would take them
        along; if that fails the whole body comes again."""
        if len(letter.events) == 1:
            (event,) = letter.events
            with bound_contextvars(**(tracing.ids(event) if isinstance(event, MessageAccepted) else {})):
                await self._reject(letter.delivery, refused[event])
            return
        try:
            for event in letter.events:
                if event in refused:
                    await self._bus.publish(topology.accepted(), encode([event]))
        except BusError as error:
            log.warning("refused message not handed in anew", reason=str(error))
        else:
            await self._consumer.ack([letter.delivery])

    async def _reject(self, delivery: Delivery, reason: str) -> None:
        log.error("message refused", reason=reason)
        await self._consumer.reject(delivery, reason)

    async def _write(self, events: Sequence[Incoming], unannounced: AbstractSet[UUID]) -> dict[Incoming, str]:
        """Write and announce them, in parts where the database refuses some; returns those, and why."""
        try:
            record, doubtful = await self._commit(events)
        except Unstorable as error:
            if len(events) == 1:
                return {events[0]: str(error)}
            middle = len(events) // 2
            return await self._write(events[:middle], unannounced) | await self._write(events[middle:], unannounced)
        # Whoever says the same message again is told, and nobody else: it was announced when it was recorded.
        known = frozenset() if doubtful else record.known
        _count(events, record, known)
        announced = known - unannounced
        committed = time_ns()
        announcements = _announcements(events, record, announced)
        async with asyncio.TaskGroup() as group:
            for route, news in announcements.items():
                group.create_task(self._announce(route, news), name=f"announce {route.exchange} {route.key}")
        _follow(events, record, announced, committed)
        return {}

    async def _commit(self, incoming: Sequence[Incoming]) -> tuple[Record, bool]:
        """Keep at it while the database is away: handing the batch back would count as a failed delivery. Also tells
        whether a try before may have been carried out."""
        doubtful = False
        while True:
            began = perf_counter()
            try:
                record = await self._store.record(incoming)
                metrics.TRANSACTION_SECONDS.observe(perf_counter() - began)
                metrics.BATCH_EVENTS.observe(len(incoming))
                return record, doubtful
            except StoreUnavailable as error:
                log.warning("database away", reason=str(error))
                doubtful = True
                await asyncio.sleep(RETRY_INTERVAL)

    async def _announce(self, route: Route, events: Sequence[AnyEvent]) -> None:
        """In parts: RabbitMQ 4 takes at most 16 MiB, which a batch of long messages would pass, and a pusher's socket
        has a buffer that one announcement must not fill."""
        for body in encode_within(events, MAX_BODY):
            await self._publish(route, body)

    async def _publish(self, route: Route, body: bytes) -> None:
        while True:
            try:
                await self._bus.publish(route, body)
                return
            except BusFull as error:  # the agents are far behind, and will find it in the table by themselves
                log.warning("announcement refused", reason=str(error))
                return
            except BusError as error:
                log.warning("announcement not confirmed", reason=str(error))
                await asyncio.sleep(RETRY_INTERVAL)


def _follow(incoming: Sequence[Incoming], record: Record, announced: Collection[UUID], committed: int) -> None:
    """Tell of each message that it was recorded, which took it from its acceptance until that time in nanoseconds; and
    of fates, to the log alone."""
    if not tracing.followed(log):
        return
    accepted = {event.message_id: event.accepted_at for event in incoming if isinstance(event, MessageAccepted)}
    new = [message for message_id, message in record.messages.items() if message_id not in announced]
    for message in new:
        tracing.passed("record", message, topology.accepted(), accepted[message.message_id], until=committed)
    if log.is_enabled_for(DEBUG):
        for message in new:
            log.debug("message recorded", **tracing.ids(message), seq=message.seq)
        for _, message in record.settled:
            log.debug("message settled", **tracing.ids(message), fate=message.fate)


def _incoming(body: bytes) -> list[Incoming]:
    events: list[Incoming] = []
    for event in decode(body):
        if not isinstance(event, Incoming):
            raise UndecodableEvents(f"{event.type} does not belong in the recorder's queue")
        events.append(event)
    return events


_record_lags = {lane: metrics.RECORD_LAG.labels(lane) for lane in get_args(Lane)}


def _count(incoming: Sequence[Incoming], record: Record, known: AbstractSet[UUID]) -> None:
    new = [message for message_id, message in record.messages.items() if message_id not in known]
    for lane, number in Counter(message.source for message in new).items():
        metrics.RECORDED.labels(lane).inc(number)
    for (lane, fate), number in Counter((message.source, message.fate) for message in record.changed).items():
        metrics.FATES.labels(lane, fate).inc(number)
    accepted = {event.message_id: event.accepted_at for event in incoming if isinstance(event, MessageAccepted)}
    for message in new:
        if since := accepted[message.message_id]:
            _record_lags[message.source].observe(metrics.age(since))


def _announcements(
    incoming: Sequence[Incoming], record: Record, announced: Collection[UUID] = ()
) -> dict[Route, list[AnyEvent]]:
    """Who is told what: each thread's listeners of its messages, by lane and in the order of numbers, but for those
    ``announced`` before, and of changed fates, which have numbers too; the agents, of what is to have another turn; and
    each origin."""
    bodies: dict[Route, list[AnyEvent]] = defaultdict(list)
    accepted = [event for event in incoming if isinstance(event, MessageAccepted)]
    news = {
        message_id: MessageRecorded.model_construct(message=message) for message_id, message in record.messages.items()
    }
    for message_id, message in record.messages.items():  # ordered by thread and number
        if message_id not in announced:
            bodies[topology.announced(message.source, message.thread_id)].append(news[message_id])
    for message_id, origin in dict.fromkeys((event.message_id, event.origin) for event in accepted):
        bodies[topology.told(origin)].append(news[message_id])
    askers = _askers(incoming)
    for origin, message in record.settled:
        reply = record.messages.get(message.reply_id) if message.reply_id else None
        bodies[topology.told(origin)].append(MessageSettled(message=message, reply=reply))
        for asker in askers[message.message_id] - {origin}:
            bodies[topology.told(asker)].append(MessageSettled(message=message))
        if message.fate != "answered" and message.rev != message.seq:  # or it has no number to be told with
            bodies[topology.changed(message.thread_id)].append(MessageSettled(message=message))
        if message.fate == "pending" and message.source != "assistant":
            bodies[topology.knocked(message.source, message.thread_id)] += ()
    return bodies


def _askers(incoming: Sequence[Incoming]) -> dict[UUID, set[str]]:
    """Who is to hear that a message got the fate that it asked for. Of several messages the first stands for all, since
    they get it together."""
    askers: dict[UUID, set[str]] = defaultdict(set)
    for event in incoming:
        if isinstance(event, MessageAccepted):
            asked_for = event.in_reply_to
        elif isinstance(event, TurnFailed | MessagesPassedOver):
            asked_for = event.message_ids
        elif isinstance(event, RetryAsked):
            asked_for = (event.message_id,)
        else:
            continue
        for message_id in asked_for[:1]:
            askers[message_id].add(event.origin)
    return askers
