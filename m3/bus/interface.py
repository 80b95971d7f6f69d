"""What a bus promises, whichever one it is.

**At least once.** What was published to a route that must arrive, and whose ``publish`` returned, is delivered to a
consumer of each bound queue until one acks or rejects it, or until it has come back too often (below), or somebody
deletes the queue. It may be delivered more than once, so handlers must not mind.

**In order.** One consumer gets the messages of a queue in the order in which they came in; a redelivery comes out of
order.

**Settling.** ``ack`` after the work is committed. ``reject`` sends a message to the dead-letter queue. What is
neither acked nor rejected when the consumer closes, its process dies or its connection breaks goes to another
consumer; having come back more than ``delivery_limit`` times it goes to the dead-letter queue, unless that one is full.
What was fetched and never taken has come back too.

**Bounds.** A shared queue refuses what is beyond its limits, in messages or in bytes; RabbitMQ lets a few more in
before it notices.

**Subscriptions are news.** A private queue lives as long as its process is connected. When the connection was away,
or more than ``PRIVATE_MAX_LENGTH`` messages or ``PRIVATE_MAX_BYTES`` wait, some are lost: the table has them.

**It mends itself.** Connections, queues that somebody deleted, bindings and consumers come back without a caller's
doing; what a deleted queue held is lost.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from m3.topology import Exchange, Queue, Route

#: As many characters of a reason are kept: it travels in a header, which must fit into one frame.
MAX_REASON = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Delivery:
    """One message handed to a consumer. ``receipt`` is the bus's own; ``reason`` says why it is a dead letter."""

    key: str
    body: bytes
    redelivered: bool
    receipt: object
    reason: str = ""


@dataclass(frozen=True, slots=True)
class QueueState:
    """A shared queue of a broker. ``refusal`` is what the broker says where it does not let us declare it as we do."""

    waiting: int
    consumers: int
    refusal: str = ""


class Consumer(Protocol):
    """Takes messages from a shared queue, never more unsettled ones at a time than its prefetch."""

    def stop(self) -> None:
        """Fetch no more. What was fetched can still be taken and settled; once none of it waits ``take`` returns
        nothing. What is published from then on is another consumer's, but for what was on its way."""

    async def take(self, at_most: int) -> list[Delivery]:
        """Wait for a message, then return what is there, oldest first, up to ``at_most``."""

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these. Where the connection broke since they were taken this does nothing: they come again."""

    async def reject(self, delivery: Delivery, reason: str) -> None:
        """Send this one to the dead-letter queue, with the reason, a sentence for a person.

        Where the connection broke or the dead-letter queue refuses it this does nothing: it comes again, which may
        take as long as this consumer lives.
        """


class Subscription(Protocol):
    """A private queue of this process; nothing in it needs settling."""

    @property
    def name(self) -> str:
        """The queue's name just now. It changes when the connection is made anew."""

    async def take(self, at_most: int) -> list[bytes]:
        """Wait for a message, then return the bodies that are there, oldest first, up to ``at_most``.

        Raises Interrupted, once each time, after the queue was lost and is back with all its bindings, or where this
        process did not keep up and messages were dropped.
        """

    async def bind(self, exchange: Exchange, key: str) -> None:
        """Hear what matches ``key`` from now on. While the broker is away the binding is kept for its return, after
        which ``take`` raises Interrupted."""

    async def unbind(self, exchange: Exchange, key: str) -> None:
        """Hear it no more."""


class Bus(Protocol):
    """Carries bodies between services."""

    @property
    def connected(self) -> bool:
        """Whether a publish can be tried just now."""

    async def publish(self, route: Route, body: bytes) -> None:
        """Returns when the broker has taken the body, or where the route is not confirmed, when it was sent. Routes of
        one process that are confirmed keep their order, and so do those that are not.

        Raises BusFull or Unroutable, and then nothing was kept by the queue that refused, or BusUnavailable, and then
        it may or may not have arrived.
        """

    def consume(self, queue: Queue, *, prefetch: int) -> AbstractAsyncContextManager[Consumer]:
        """Take from a shared queue while inside the block."""

    def subscribe(self, name: str) -> AbstractAsyncContextManager[Subscription]:
        """Have a private queue, whose name begins with ``name``, while inside the block."""
