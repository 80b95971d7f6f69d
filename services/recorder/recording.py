"""From the recorder queue into the table, and from the table to whoever listens.

While one transaction runs, the next batch gathers: batches grow with the load and need no timer.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import structlog

from m3 import topology
from m3.bus import Bus, Consumer, Delivery
from m3.errors import BusError, BusFull, StoreUnavailable, UndecodableEvents, Unstorable
from m3.events import (
    AnyEvent,
    Incoming,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    MessagesPassedOver,
    RetryAsked,
    TurnFailed,
    decode,
    encode_within,
)
from m3.store import Record, Store
from m3.tasks import background
from m3.topology import Route

#: Most deliveries written in one transaction.
BATCH = 500
#: Longest announcement, in bytes. RabbitMQ 4 takes at most 16 MiB, which a batch of long messages would pass, and a
#: pusher's socket has a buffer that one announcement must not fill.
MAX_BODY = 256 * 1024
#: Seconds between attempts while the database or the broker is away.
RETRY_INTERVAL = 0.5

log = structlog.get_logger(__name__)


@asynccontextmanager
async def recorder(bus: Bus, store: Store, *, grace: float) -> AsyncIterator[None]:
    """Record while inside the block. Leaving it sees to what was fetched, as far as ``grace`` seconds allow; the rest
    goes to another recorder."""
    # Twice the batch, so that the next one gathers while one is written.
    async with (
        bus.consume(topology.RECORDER, prefetch=2 * BATCH) as consumer,
        background("recorder", _Recorder(bus, store, consumer).run(), stop=consumer.stop, grace=grace),
    ):
        yield


class _Recorder:
    def __init__(self, bus: Bus, store: Store, consumer: Consumer) -> None:
        self._bus = bus
        self._store = store
        self._consumer = consumer

    async def run(self) -> None:
        while deliveries := await self._consumer.take(BATCH):
            await self._record(deliveries)

    async def _record(self, deliveries: Sequence[Delivery]) -> None:
        """Write the batch, announce it, and only then ack it: whoever dies in between leaves it to another."""
        readable: list[Delivery] = []
        incoming: list[Incoming] = []
        unannounced: set[UUID] = set()
        for delivery in deliveries:
            try:
                events = _incoming(delivery.body)
            except UndecodableEvents as error:
                log.error("message refused", reason=str(error))
                await self._consumer.reject(delivery, str(error))
                continue
            readable.append(delivery)
            incoming += events
            if delivery.redelivered:  # by a recorder that may have died before it announced them
                unannounced |= {event.message_id for event in events if isinstance(event, MessageAccepted)}
        if not readable:
            return
        try:
            record, doubtful = await self._write(incoming)
        except Unstorable as error:
            if len(readable) > 1:  # find the one that spoils the batch
                for delivery in readable:
                    await self._record([delivery])
                return
            log.error("message refused", reason=str(error))
            await self._consumer.reject(readable[0], str(error))
            return
        # Whoever says the same message again is told, and nobody else: it was announced when it was recorded.
        announced = frozenset() if doubtful else record.known - unannounced
        announcements = _announcements(incoming, record, announced)
        async with asyncio.TaskGroup() as group:
            for route, news in announcements.items():
                group.create_task(self._announce(route, news), name=f"announce {route.exchange} {route.key}")
        await self._consumer.ack(readable)

    async def _write(self, incoming: Sequence[Incoming]) -> tuple[Record, bool]:
        """Keep at it while the database is away: handing the batch back would count as a failed delivery. Also tells
        whether a try before may have been carried out."""
        doubtful = False
        while True:
            try:
                return await self._store.record(incoming), doubtful
            except StoreUnavailable as error:
                log.warning("database away", reason=str(error))
                doubtful = True
                await asyncio.sleep(RETRY_INTERVAL)

    async def _announce(self, route: Route, events: Sequence[AnyEvent]) -> None:
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


def _incoming(body: bytes) -> list[Incoming]:
    events: list[Incoming] = []
    for event in decode(body):
        if not isinstance(event, Incoming):
            raise UndecodableEvents(f"{event.type} does not belong in the recorder's queue")
        events.append(event)
    return events


def _announcements(
    incoming: Sequence[Incoming], record: Record, announced: Collection[UUID] = ()
) -> dict[Route, list[AnyEvent]]:
    """Who is told what: each thread's listeners of its messages, by lane and in the order of numbers, but for those
    ``announced`` before, and of changed fates, which have numbers too; the agents, of what is to have another turn; and
    each origin."""
    bodies: dict[Route, list[AnyEvent]] = defaultdict(list)
    accepted = [event for event in incoming if isinstance(event, MessageAccepted)]
    for message in record.messages.values():  # ordered by thread and number
        if message.message_id in announced:
            continue
        bodies[topology.announced(message.source, message.thread_id)].append(MessageRecorded(message=message))
    for message_id, origin in dict.fromkeys((event.message_id, event.origin) for event in accepted):
        bodies[topology.told(origin)].append(MessageRecorded(message=record.messages[message_id]))
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
