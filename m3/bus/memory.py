"""The bus inside one process. It carries the same bytes, redelivers, dead-letters and bounds its queues as RabbitMQ."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import product
from time import time

from uuid_utils.compat import uuid7

from m3 import metrics
from m3.bus.counting import publishing, waited
from m3.bus.interface import MAX_REASON, Delivery
from m3.errors import BusFull, Unroutable
from m3.topology import CHAT_DEAD, PRIVATE_MAX_BYTES, PRIVATE_MAX_LENGTH, QUEUES, Exchange, Queue, Route


@dataclass(slots=True, eq=False)
class _Item:
    key: str
    body: bytes
    reason: str
    returns: int = 0
    published: float = field(default_factory=time)  # in seconds since the epoch


class _Mailbox:
    """The messages that wait in one queue."""

    def __init__(self, max_length: int, max_bytes: int) -> None:
        self.limits = f"{max_length} messages or {max_bytes} bytes"
        self.changed = asyncio.Event()
        self._max_length = max_length
        self._max_bytes = max_bytes
        self._items: deque[_Item] = deque()
        self._bytes = 0

    async def change(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    def has_room(self, item: _Item) -> bool:
        return len(self._items) < self._max_length and self._bytes + len(item.body) <= self._max_bytes

    def append(self, item: _Item) -> None:
        self._items.append(item)
        self._bytes += len(item.body)
        self.changed.set()

    def push_back(self, item: _Item) -> None:
        self._items.appendleft(item)
        self._bytes += len(item.body)

    def pop(self, at_most: int) -> list[_Item]:
        popped = [self._items.popleft() for _ in range(min(at_most, len(self._items)))]
        self._bytes -= sum(len(item.body) for item in popped)
        return popped


class MemoryBus:
    connected = True

    def __init__(self) -> None:
        self._mailboxes: dict[str, _Mailbox] = {}
        self._private: set[str] = set()
        self._bindings: dict[tuple[str, str], set[str]] = {}
        for queue in QUEUES:
            self._mailboxes[queue.name] = _Mailbox(queue.max_length, queue.max_bytes)
            for key in queue.bindings:
                self.bind(queue.name, queue.exchange, key)

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["MemoryBus"]:
        metrics.BROKER_CONNECTED.set(1)
        try:
            yield cls()
        finally:
            metrics.BROKER_CONNECTED.set(0)

    async def publish(self, route: Route, body: bytes) -> None:
        with publishing(route):
            names = self._bound(route.exchange, route.key)
            if route.must_arrive and not names:
                raise Unroutable(f"No queue takes {route.key!r} from {route.exchange!r}.")
            self._put(names, _Item(route.key, body, reason=""))

    @asynccontextmanager
    async def consume(self, queue: Queue, *, prefetch: int) -> AsyncIterator["MemoryConsumer"]:
        consumer = MemoryConsumer(self, queue, self._mailboxes[queue.name], prefetch)
        try:
            yield consumer
        finally:
            consumer.hand_back()

    @asynccontextmanager
    async def subscribe(self, name: str) -> AsyncIterator["MemorySubscription"]:
        private = f"{name}.{uuid7()}"
        self._private.add(private)
        mailbox = self._mailboxes[private] = _Mailbox(PRIVATE_MAX_LENGTH, PRIVATE_MAX_BYTES)
        try:
            yield MemorySubscription(self, private, mailbox)
        finally:
            self._private.remove(private)
            del self._mailboxes[private]
            for key in [key for key, names in self._bindings.items() if private in names]:
                self.unbind(private, *key)

    def bind(self, queue: str, exchange: Exchange, key: str) -> None:
        self._bindings.setdefault((exchange.name, key), set()).add(queue)

    def unbind(self, queue: str, exchange: str, key: str) -> None:
        names = self._bindings.get((exchange, key), set())
        names.discard(queue)
        if not names:
            self._bindings.pop((exchange, key), None)

    def bury(self, item: _Item, reason: str) -> None:
        self._put(self._bound(CHAT_DEAD.name, ""), replace(item, reason=reason, returns=0))

    def _put(self, names: set[str], item: _Item) -> None:
        refused = []
        for name in names:
            mailbox = self._mailboxes[name]
            if name in self._private:
                while not mailbox.has_room(item) and mailbox.pop(1):
                    pass
            if mailbox.has_room(item):
                mailbox.append(replace(item))
            elif name not in self._private:
                refused.append(f"The queue {name} is at its limit of {mailbox.limits}.")
        if refused:
            raise BusFull(refused[0])

    def _bound(self, exchange: str, key: str) -> set[str]:
        if not exchange:
            return {key} & self._mailboxes.keys()
        return set().union(*(self._bindings.get((exchange, pattern), ()) for pattern in _patterns(key)))


def _patterns(key: str) -> Iterator[str]:
    """Every binding key that matches: each word either itself or ``*``."""
    return (".".join(words) for words in product(*((word, "*") for word in key.split("."))))


class MemoryConsumer:
    def __init__(self, bus: MemoryBus, queue: Queue, mailbox: _Mailbox, prefetch: int) -> None:
        self._bus = bus
        self._queue = queue
        self._mailbox = mailbox
        self._prefetch = prefetch
        self._unsettled: dict[_Item, None] = {}
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True
        self._mailbox.changed.set()

    async def take(self, at_most: int) -> list[Delivery]:
        while True:
            if self._stopped:
                return []
            if taken := self._mailbox.pop(min(at_most, self._prefetch - len(self._unsettled))):
                break
            await self._mailbox.change()
        self._unsettled.update(dict.fromkeys(taken))
        waited(self._queue, (item.published for item in taken if not item.returns))
        return [Delivery(item.key, item.body, item.returns > 0, receipt=item, reason=item.reason) for item in taken]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._settle(delivery)

    async def reject(self, delivery: Delivery, reason: str) -> None:
        item = delivery.receipt
        if isinstance(item, _Item) and item in self._unsettled:
            with suppress(BusFull):  # then it stays unsettled, and comes again
                self._bus.bury(item, reason[:MAX_REASON])
                self._settle(delivery)
                metrics.DEAD_LETTERS.labels(self._queue.name).inc()

    def hand_back(self) -> None:
        """Return what is unsettled to the head of the queue, in its old order."""
        limit = self._queue.delivery_limit
        for item in reversed(self._unsettled):
            item.returns += 1
            if limit is not None and item.returns > limit:
                with suppress(BusFull):  # RabbitMQ too drops here what a full dead-letter queue refuses
                    self._bus.bury(item, f"delivered too often from {self._queue.name}")
            else:
                self._mailbox.push_back(item)
        self._unsettled.clear()
        self._mailbox.changed.set()

    def _settle(self, delivery: Delivery) -> None:
        item = delivery.receipt
        if isinstance(item, _Item) and item in self._unsettled:
            del self._unsettled[item]
            self._mailbox.changed.set()


class MemorySubscription:
    def __init__(self, bus: MemoryBus, name: str, mailbox: _Mailbox) -> None:
        self._bus = bus
        self._mailbox = mailbox
        self.name = name

    async def take(self, at_most: int) -> list[bytes]:
        while not (taken := self._mailbox.pop(at_most)):
            await self._mailbox.change()
        return [item.body for item in taken]

    async def bind(self, exchange: Exchange, key: str) -> None:
        self._bus.bind(self.name, exchange, key)

    async def unbind(self, exchange: Exchange, key: str) -> None:
        self._bus.unbind(self.name, exchange.name, key)
