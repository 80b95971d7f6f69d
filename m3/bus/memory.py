"""The bus inside one process. It carries the same bytes, redelivers, dead-letters and bounds its queues as RabbitMQ."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import product

from uuid_utils.compat import uuid7

from m3.bus.interface import Delivery
from m3.errors import BusFull, Unroutable
from m3.topology import CHAT_DEAD, PRIVATE_MAX_LENGTH, QUEUES, Exchange, Queue, Route


@dataclass(slots=True, eq=False)
class _Item:
    key: str
    body: bytes
    returns: int = 0


class _Mailbox:
    """The messages that wait in one queue."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self.items: deque[_Item] = deque()
        self.changed = asyncio.Event()

    async def change(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    def pop(self, at_most: int) -> list[_Item]:
        return [self.items.popleft() for _ in range(min(at_most, len(self.items)))]


class MemoryBus:
    connected = True

    def __init__(self) -> None:
        self._mailboxes: dict[str, _Mailbox] = {}
        self._private: set[str] = set()
        self._bindings: dict[tuple[str, str], set[str]] = {}
        for queue in QUEUES:
            self._mailboxes[queue.name] = _Mailbox(queue.max_length)
            self.bind(queue.name, queue.exchange, queue.binding)

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["MemoryBus"]:
        yield cls()

    async def publish(self, route: Route, body: bytes) -> None:
        refused = []
        arrived = False
        for name in self._bound(route.exchange, route.key):
            mailbox = self._mailboxes[name]
            if len(mailbox.items) >= mailbox.max_length:
                if name not in self._private:
                    refused.append(name)
                    continue
                mailbox.items.popleft()
            mailbox.items.append(_Item(route.key, body))
            mailbox.changed.set()
            arrived = True
        if refused:
            raise BusFull(f"The queue {refused[0]} is at its limit of {self._mailboxes[refused[0]].max_length}.")
        if route.must_arrive and not arrived:
            raise Unroutable(f"No queue takes {route.key!r} from {route.exchange!r}.")

    @asynccontextmanager
    async def consume(self, queue: Queue, *, prefetch: int) -> AsyncIterator["MemoryConsumer"]:
        consumer = MemoryConsumer(self, queue, self._mailboxes[queue.name], prefetch)
        try:
            yield consumer
        finally:
            await consumer.hand_back()

    @asynccontextmanager
    async def subscribe(self, name: str) -> AsyncIterator["MemorySubscription"]:
        private = f"{name}.{uuid7()}"
        self._private.add(private)
        mailbox = self._mailboxes[private] = _Mailbox(PRIVATE_MAX_LENGTH)
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

    async def bury(self, item: _Item) -> None:
        with suppress(BusFull):  # RabbitMQ too drops what a full dead-letter queue refuses
            await self.publish(Route(CHAT_DEAD.name, "", must_arrive=False), item.body)

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

    async def take(self, at_most: int) -> list[Delivery]:
        while not (taken := self._mailbox.pop(min(at_most, self._prefetch - len(self._unsettled)))):
            await self._mailbox.change()
        self._unsettled.update(dict.fromkeys(taken))
        return [Delivery(item.key, item.body, redelivered=item.returns > 0, receipt=item) for item in taken]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._settle(delivery)

    async def reject(self, delivery: Delivery) -> None:
        if item := self._settle(delivery):
            await self._bus.bury(item)

    async def hand_back(self) -> None:
        """Return what is unsettled to the head of the queue, in its old order."""
        limit = self._queue.delivery_limit
        for item in reversed(self._unsettled):
            item.returns += 1
            if limit is not None and item.returns > limit:
                await self._bus.bury(item)
            else:
                self._mailbox.items.appendleft(item)
        self._unsettled.clear()
        self._mailbox.changed.set()

    def _settle(self, delivery: Delivery) -> _Item | None:
        item = delivery.receipt
        if not isinstance(item, _Item) or item not in self._unsettled:
            return None
        del self._unsettled[item]
        self._mailbox.changed.set()
        return item


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
