"""The bus over RabbitMQ, and the only importer of aio_pika.

Each consumer and subscription has a channel of its own, since an error on a channel ends all that runs on it. When
anything of a link breaks, all of it is made anew: simpler than mending parts, and the topology and bindings are
declared again on the way.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import islice
from time import time
from typing import Any, TypeVar

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractQueue
from aio_pika.exceptions import (
    AMQPError,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from aiormq.abc import DeliveredMessage
from uuid_utils.compat import uuid7

from m3 import metrics
from m3.bus.counting import publishing, waited
from m3.bus.interface import MAX_REASON, Delivery, QueueState
from m3.errors import BusError, BusFull, BusUnavailable, Interrupted, Unreached, Unroutable
from m3.tasks import background
from m3.topology import (
    CHAT_DEAD,
    EXCHANGES,
    PRIVATE_MAX_BYTES,
    PRIVATE_MAX_LENGTH,
    QUEUES,
    Exchange,
    Queue,
    Route,
)

#: Seconds that connecting, declaring and any other command may take.
COMMAND_TIMEOUT = 10.0
#: Seconds that the end of a consumer, a subscription or a connection may take, where the broker does not answer.
CLOSE_TIMEOUT = 1.0
#: Seconds between attempts to connect.
RECONNECT_INTERVAL = 0.5
#: Seconds after which the topology is declared again.
REDECLARE_INTERVAL = 30.0
#: Seconds before a queue that is gone is made again. Made at once, RabbitMQ 3.10 may not tell its consumers that theirs
#: was deleted, and gives them what the new one gets without their ever seeing it.
MOURNING = 1.0
#: Seconds without any confirmation, while publishes are given up, after which a link is.
STUCK = 8.0

#: The headers of what we dead-letter ourselves.
REASON = "m3-reason"
QUEUE = "m3-queue"
#: The header that says when a message was published, in milliseconds since the epoch: AMQP's own has only seconds.
PUBLISHED = "timestamp_in_ms"

#: What aio-pika raises when a connection or channel is gone. ChannelInvalidStateError is a RuntimeError.
_BROKEN = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError)

T = TypeVar("T")

log = structlog.get_logger(__name__)


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _in_time(command: Awaitable[T], timeout: float = COMMAND_TIMEOUT) -> T:  # noqa: ASYNC109  # passed on
    """With a deadline of ours: aiormq's own ``timeout`` swallows a cancellation now and then."""
    async with asyncio.timeout(timeout):
        return await command


@contextmanager
def _heard() -> Iterator[None]:
    """Around commands to the broker: aio-pika raises a bare CancelledError for a connection that fell silent, and a
    bare Exception for a channel that closed meanwhile. Both are a broken connection."""
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    try:
        yield
    except asyncio.CancelledError as error:
        if task.cancelling() > cancelled:
            raise
        raise ConnectionError("the connection fell silent") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        raise ConnectionError("the channel closed") from error


@asynccontextmanager
async def _connection(url: str, heartbeat: int) -> AsyncIterator[AbstractConnection]:
    try:
        connection = await _in_time(aio_pika.connect(url, heartbeat=heartbeat))
    except StopAsyncIteration as error:  # aiormq's, of a peer that hangs up without a word
        raise ConnectionError("the broker hung up") from error
    try:
        yield connection
    finally:
        with suppress(*_BROKEN), _heard():
            await _in_time(connection.close(), CLOSE_TIMEOUT)


class _Link:
    """Two connections, from their making to the first thing that breaks.

    One publishes, the other does all else: a broker that is short of memory or disk reads nothing more from whoever
    publishes, and the acks that would relieve it must get through.
    """

    def __init__(self, publishing: AbstractConnection, consuming: AbstractConnection) -> None:
        self.lost = asyncio.Event()
        self._publishing = publishing
        self._consuming = consuming
        self._channels: list[AbstractChannel] = []  # aio-pika itself keeps only weak references
        self._exchanges: dict[tuple[str, bool], AbstractExchange] = {}  # by name, and whether publishes are confirmed
        assert publishing.transport is not None  # it is, from being connected to being closed
        self._unblocked = publishing.transport.ready
        self._declaring = asyncio.Lock()
        self._declared = 0
        self._unconsumed: set[str] = set()  # the queues that nobody consumed when they were declared last
        self._stuck_since: float | None = None  # the first publish that was given up after the last that was confirmed
        for connection in (publishing, consuming):
            connection.close_callbacks.add(self._lose)

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, heartbeat: int) -> AsyncIterator["_Link"]:
        async with _connection(url, heartbeat) as publishing, _connection(url, heartbeat) as consuming:
            link = cls(publishing, consuming)
            await _in_time(link._prepare())
            yield link

    async def channel(self) -> AbstractChannel:
        return await self._new_channel(self._consuming.channel(publisher_confirms=False))

    async def _new_channel(self, channel: AbstractChannel) -> AbstractChannel:
        try:
            await channel.initialize()
        except RuntimeError as error:  # aiormq's bare one for a connection that has just closed
            raise ConnectionError(str(error)) from error
        self._channels.append(channel)
        channel.close_callbacks.add(self._lose)
        underlay: Any = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(self._lose)  # the broker cancels consumers of a deleted queue
        return channel

    async def close_channel(self, channel: AbstractChannel) -> None:
        """Give back what is unsettled on the channel, without losing the link."""
        self._channels.remove(channel)
        if not channel.is_closed:
            channel.close_callbacks.discard(self._lose)
            await channel.close()

    async def last(self, consumed: Callable[[], set[str]]) -> None:
        """Return when the link is lost. The topology is declared again now and then: nobody is told when somebody
        deletes a queue that nobody consumes, such as the dead letters'. A queue of those that we consume that has no
        consumer was deleted and made again before the broker could tell us."""
        while not self.lost.is_set():
            try:
                async with asyncio.timeout(REDECLARE_INTERVAL):
                    await self.lost.wait()
            except TimeoutError:
                ours = consumed()
                await _in_time(self._declare())
                if ours & consumed() & self._unconsumed:
                    self._lose()

    async def publish(self, route: Route, body: bytes, headers: dict[str, str]) -> None:
        declared = self._declared
        try:
            await self._send(route, body, headers)
        except PublishError:
            # Somebody deleted the queue. Who consumes from it learns that from the broker, who only publishes, here.
            await asyncio.sleep(MOURNING)
            async with self._declaring:
                if self._declared == declared:  # no other publish did it meanwhile
                    await self._declare()
            await self._send(route, body, headers)

    async def _send(self, route: Route, body: bytes, headers: dict[str, str]) -> None:
        mode = aio_pika.DeliveryMode.PERSISTENT if route.must_arrive else aio_pika.DeliveryMode.NOT_PERSISTENT
        message = aio_pika.Message(
            body,
            content_type="application/json",
            delivery_mode=mode,
            headers={PUBLISHED: int(time() * 1000), **headers},
        )
        await self._unblocked()  # what is sent while the broker blocks us is given up here and arrives there, later
        exchange = self._exchanges[route.exchange, route.confirmed]
        try:
            await exchange.publish(message, route.key, mandatory=route.must_arrive)
        except asyncio.CancelledError:  # by the publisher's deadline
            self._stuck_since = self._stuck_since or _now()
            if _now() - self._stuck_since > STUCK:
                self._lose()
            raise
        if route.confirmed:
            self._stuck_since = None

    async def _prepare(self) -> None:
        self._topology = await self.channel()
        await self._declare()
        for confirmed in (True, False):
            channel = self._publishing.channel(publisher_confirms=confirmed, on_return_raises=confirmed)
            await self._new_channel(channel)
            self._exchanges["", confirmed] = channel.default_exchange
            for exchange in EXCHANGES:
                self._exchanges[exchange.name, confirmed] = await channel.get_exchange(exchange.name, ensure=False)

    async def _declare(self) -> None:
        for exchange in EXCHANGES:
            await self._topology.declare_exchange(exchange.name, aio_pika.ExchangeType(exchange.kind), durable=True)
        for queue in QUEUES:
            declared = await self._topology.declare_queue(queue.name, durable=True, arguments=_arguments(queue))
            for key in queue.bindings:
                await declared.bind(queue.exchange.name, key)
            if declared.declaration_result.consumer_count:
                self._unconsumed.discard(queue.name)
            else:
                self._unconsumed.add(queue.name)
        self._declared += 1

    def _lose(self, *_: Any) -> None:
        self.lost.set()


def _arguments(queue: Queue) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-max-length": queue.max_length,
        "x-max-length-bytes": queue.max_bytes,
        "x-overflow": "reject-publish",
    }
    if queue.delivery_limit is not None:
        arguments["x-delivery-limit"] = queue.delivery_limit
    if queue.dead_letters:
        arguments["x-dead-letter-exchange"] = CHAT_DEAD.name
    return arguments


async def _consume(
    channel: AbstractChannel,
    queue: AbstractQueue,
    hear: Callable[[DeliveredMessage], Coroutine[Any, Any, None]],
    *,
    no_ack: bool,
) -> str:
    """Have the queue's messages from the layer under aio-pika, which has a task and an object of its own for each.
    Returns the consumer's tag."""
    underlay = await channel.get_underlay_channel()
    consuming = await _in_time(underlay.basic_consume(queue.name, hear, no_ack=no_ack))
    assert consuming.consumer_tag is not None  # the broker always tells it
    return consuming.consumer_tag


class _Attachment:
    """What lives on a link, in a channel of its own, and moves to the next link when that one is lost."""

    def __init__(self) -> None:
        self._link: _Link | None = None
        self._channel: AbstractChannel | None = None
        self._commands: set[asyncio.Task[None]] = set()

    async def attach(self, link: _Link) -> None:
        with _heard():
            channel = await _in_time(link.channel())
            self._link, self._channel = link, channel
            await self._start(channel)

    async def detach(self) -> None:
        if self._commands and self._link:
            _, late = await asyncio.wait(self._commands, timeout=CLOSE_TIMEOUT)
            if late:
                self._link.lost.set()
        if self._link and self._channel and not self._link.lost.is_set():
            async with self._or_lose(self._link):
                await _in_time(self._link.close_channel(self._channel), CLOSE_TIMEOUT)

    async def _start(self, channel: AbstractChannel) -> None:
        raise NotImplementedError

    def _command(self, name: str, command: Awaitable[object]) -> asyncio.Task[None]:
        """Carry it out, or lose the link, in a task of its own: aiormq closes the channel, and so ends the link, where
        whoever waits for a command is cancelled."""

        link = self._link  # that the command is meant for; there may be another by the time that it fails

        async def carry_out() -> None:
            async with self._or_lose(link):
                await command

        task = asyncio.create_task(carry_out(), name=name)
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        return task

    @asynccontextmanager
    async def _or_lose(self, link: _Link | None) -> AsyncIterator[None]:
        """Around what must reach the broker: as long as the link lives, what got lost would never be made good."""
        sent = False
        try:
            with suppress(*_BROKEN), _heard():
                async with asyncio.timeout(COMMAND_TIMEOUT):
                    yield
                    sent = True
        finally:
            if link and not sent:
                link.lost.set()


class RabbitBus:
    def __init__(self, url: str, publish_timeout: float, heartbeat: int) -> None:
        self._url = url
        self._publish_timeout = publish_timeout
        self._heartbeat = heartbeat
        self._link: _Link | None = None
        self._linked = asyncio.Event()
        self._attachments: list[_Attachment] = []
        self._attaching = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, publish_timeout: float, heartbeat: int) -> AsyncIterator["RabbitBus"]:
        """Does not wait for the broker, so that services start in any order."""
        bus = cls(url, publish_timeout, heartbeat)
        async with background("rabbitmq connection", bus._stay_connected()):
            yield bus

    @property
    def connected(self) -> bool:
        return self._link is not None

    async def publish(self, route: Route, body: bytes) -> None:
        await self._publish(route, body, {})

    async def _publish(self, route: Route, body: bytes, headers: dict[str, str]) -> None:
        with publishing(route):
            await self._publish_in_time(route, body, headers)

    async def _publish_in_time(self, route: Route, body: bytes, headers: dict[str, str]) -> None:
        try:
            with _heard():
                async with asyncio.timeout(self._publish_timeout):
                    while (link := self._link) is None:
                        await self._linked.wait()
                    await link.publish(route, body, headers)
        except PublishError as error:
            raise Unroutable(f"No queue takes {route.key!r} from {route.exchange!r}.") from error
        except DeliveryError as error:
            raise BusFull("A queue of the broker is at its limit.") from error
        except _BROKEN as error:
            raise BusUnavailable("The broker did not confirm in time.") from error

    @asynccontextmanager
    async def consume(self, queue: Queue, *, prefetch: int) -> AsyncIterator["RabbitConsumer"]:
        consumer = RabbitConsumer(queue, prefetch, self._publish)
        async with self._attached(consumer):
            yield consumer

    @asynccontextmanager
    async def subscribe(self, name: str) -> AsyncIterator["RabbitSubscription"]:
        subscription = RabbitSubscription(name)
        async with self._attached(subscription):
            yield subscription

    @asynccontextmanager
    async def _attached(self, attachment: _Attachment) -> AsyncIterator[None]:
        try:
            async with self._attaching:
                self._attachments.append(attachment)
                if link := self._link:
                    try:
                        await attachment.attach(link)
                    except _BROKEN as error:
                        log.warning("broker lost", reason=str(error) or type(error).__name__)
                        link.lost.set()  # the next link attaches it
            yield
        finally:
            with suppress(ValueError):  # where it was cancelled before it came in
                self._attachments.remove(attachment)
            await attachment.detach()

    def _consumed(self) -> set[str]:
        consumers = (each for each in self._attachments if isinstance(each, RabbitConsumer))
        return {consumer.queue.name for consumer in consumers if consumer.fetching}

    async def _stay_connected(self) -> None:
        told = ""
        while True:
            linked = False
            try:
                with _heard():
                    async with _Link.open(self._url, self._heartbeat) as link:
                        async with self._attaching:
                            for attachment in tuple(self._attachments):  # some may leave meanwhile
                                await attachment.attach(link)
                            self._link = link
                            self._linked.set()
                        linked = True
                        metrics.BROKER_CONNECTED.set(1)
                        log.info("broker connected")
                        told = ""
                        try:
                            await link.last(self._consumed)
                        finally:  # before it is closed, which may take a while
                            self._link = None
                            self._linked.clear()
                            metrics.BROKER_CONNECTED.set(0)
                        log.warning("broker lost")
            except _BROKEN as error:
                reason = str(error) or type(error).__name__
                if reason != told:  # once, and not at every attempt
                    log.warning("broker away", reason=reason)
                told = reason
            if linked:
                metrics.BROKER_LOSSES.inc()
            await asyncio.sleep(RECONNECT_INTERVAL)


class RabbitConsumer(_Attachment):
    def __init__(
        self, queue: Queue, prefetch: int, publish: Callable[[Route, bytes, dict[str, str]], Coroutine[Any, Any, None]]
    ) -> None:
        super().__init__()
        self.queue = queue
        self._prefetch = prefetch
        self._publish = publish
        self._fetching: tuple[AbstractQueue, str] | None = None  # and the consumer's tag
        self._changing = asyncio.Lock()  # whether it fetches
        self._stopping: asyncio.Task[None] | None = None
        self._waiting: deque[Delivery] = deque()  # at most `prefetch`, which the broker sees to
        self._arrived = asyncio.Event()
        self._unsettled: dict[int, DeliveredMessage] = {}

    async def _start(self, channel: AbstractChannel) -> None:
        self._waiting.clear()  # these come again on the new link
        self._unsettled.clear()
        async with self._changing:
            self._fetching = None
            if self._stopping is None:
                await _in_time(channel.set_qos(self._prefetch))
                queue = await channel.get_queue(self.queue.name, ensure=False)
                tag = await _consume(channel, queue, partial(self._hear, channel), no_ack=False)
                self._fetching = queue, tag

    @property
    def fetching(self) -> bool:
        return self._fetching is not None and self._stopping is None

    def stop(self) -> None:
        if self._stopping is None:
            self._stopping = self._command(f"stop consuming {self.queue.name}", self._stop())
            self._arrived.set()

    async def _stop(self) -> None:
        async with self._changing:
            if self._fetching:
                queue, tag = self._fetching
                await queue.cancel(tag)

    async def _stopped(self) -> None:
        if self._stopping:
            await asyncio.shield(self._stopping)

    async def take(self, at_most: int) -> list[Delivery]:
        while not self._waiting and self._stopping is None:
            self._arrived.clear()
            await self._arrived.wait()
        await self._stopped()
        taken = [self._waiting.popleft() for _ in range(min(at_most, len(self._waiting)))]
        waited(self.queue, (then for one in taken if not one.redelivered and (then := _published(one))))
        return taken

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        await self._stopped()  # or the room that an ack makes would be filled
        messages = dict(known for delivery in deliveries if (known := self._known(delivery)))
        if not messages:
            return
        all_before = set(islice(self._unsettled, len(messages))) == messages.keys()  # no older one stays unsettled
        for tag in messages:
            del self._unsettled[tag]
        async with self._or_lose(self._link):
            if all_before:
                last = max(messages)
                await messages[last].channel.basic_ack(last, multiple=True)
            else:
                for tag, message in messages.items():
                    await message.channel.basic_ack(tag)

    async def reject(self, delivery: Delivery, reason: str) -> None:
        if self._known(delivery):
            route = Route(CHAT_DEAD.name, delivery.key, must_arrive=True)
            try:
                await self._publish(route, delivery.body, {REASON: reason[:MAX_REASON], QUEUE: self.queue.name})
            except BusError as error:
                # Left unsettled it comes again in the end. A basic.reject would keep no reason, and the broker drops
                # what a full dead-letter queue refuses.
                log.warning("dead letter not handed in", reason=str(error))
            else:
                metrics.DEAD_LETTERS.labels(self.queue.name).inc()
                await self.ack([delivery])

    async def _hear(self, channel: AbstractChannel, message: DeliveredMessage) -> None:
        if channel is not self._channel:
            return  # a straggler of a lost link
        self._unsettled[_tag(message)] = message
        redelivered = bool(message.redelivered)
        self._waiting.append(
            Delivery(message.routing_key or "", message.body, redelivered, receipt=message, reason=_reason(message))
        )
        self._arrived.set()

    def _known(self, delivery: Delivery) -> tuple[int, DeliveredMessage] | None:
        """The message, with its tag, unless it was settled or the link that brought it was lost."""
        message = delivery.receipt
        assert isinstance(message, DeliveredMessage)
        tag = _tag(message)
        return (tag, message) if self._unsettled.get(tag) is message else None


def _tag(message: DeliveredMessage) -> int:
    assert message.delivery_tag is not None  # only messages of basic.get lack it
    return message.delivery_tag


def _reason(message: DeliveredMessage) -> str:
    """Why it is a dead letter: what the broker says, which comes after what we said, or what we said."""
    headers: Any = message.header.properties.headers or {}
    deaths = headers.get("x-death")
    if not deaths:
        return str(headers.get(REASON, ""))
    death = deaths[0]  # the latest
    why = "delivered too often" if death["reason"] == "delivery_limit" else death["reason"]
    return f"{why} from {death['queue']}"


def _published(delivery: Delivery) -> float | None:
    """When, in seconds since the epoch; an older service does not say."""
    message = delivery.receipt
    assert isinstance(message, DeliveredMessage)
    headers: Any = message.header.properties.headers or {}
    told = headers.get(PUBLISHED)
    return told / 1000 if isinstance(told, int) else None


class RabbitSubscription(_Attachment):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._prefix = name
        self._queue: AbstractQueue | None = None
        self._bindings: set[tuple[str, str]] = set()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()
        self._interrupted = False
        self._named = False  # whether the broker may know the name
        self.name = self._new_name()

    async def _start(self, channel: AbstractChannel) -> None:
        missed = self._named or bool(self._bindings)
        if self._named:
            # A new name: the broker may not have noticed yet that the old queue's connection is gone.
            self.name = self._new_name()
        self._named = True
        self._queue = None  # what is bound before the new one is there is bound with the others
        limits: dict[str, Any] = {
            "x-max-length": PRIVATE_MAX_LENGTH,
            "x-max-length-bytes": PRIVATE_MAX_BYTES,
            "x-overflow": "drop-head",
        }
        self._queue = await _in_time(
            channel.declare_queue(self.name, exclusive=True, auto_delete=True, arguments=limits)
        )
        for exchange, key in tuple(self._bindings):  # what is bound meanwhile, bind() sees to
            await _in_time(self._queue.bind(exchange, key))
        await _consume(channel, self._queue, self._hear, no_ack=True)
        if missed:  # told only now, when nothing is missed any more
            self._interrupted = True
            self._arrived.set()

    async def take(self, at_most: int) -> list[bytes]:
        while not self._waiting and not self._interrupted:
            self._arrived.clear()
            await self._arrived.wait()
        if self._interrupted:
            self._interrupted = False
            raise Interrupted("Something may have been missed; look in the table for it.")
        return [self._pop() for _ in range(min(at_most, len(self._waiting)))]

    async def bind(self, exchange: Exchange, key: str) -> None:
        self._bindings.add((exchange.name, key))
        if self._queue is not None:
            # A broken link is made anew, with the binding, and take() tells.
            try:
                await asyncio.shield(self._command(f"bind {key}", self._queue.bind(exchange.name, key)))
            except Exception:
                self._bindings.discard((exchange.name, key))  # one that cannot be made would spoil every link
                raise

    async def unbind(self, exchange: Exchange, key: str) -> None:
        self._bindings.discard((exchange.name, key))
        if self._queue is not None:
            await asyncio.shield(self._command(f"unbind {key}", self._queue.unbind(exchange.name, key)))

    async def _hear(self, message: DeliveredMessage) -> None:
        self._waiting.append(message.body)
        self._waiting_bytes += len(message.body)
        while len(self._waiting) > PRIVATE_MAX_LENGTH or self._waiting_bytes > PRIVATE_MAX_BYTES:
            self._pop()
            self._interrupted = True
        self._arrived.set()

    def _pop(self) -> bytes:
        body = self._waiting.popleft()
        self._waiting_bytes -= len(body)
        return body

    def _new_name(self) -> str:
        return f"{self._prefix}.{uuid7()}"


# ---- Looking at a broker from outside

#: Seconds that each look at a broker may take.
LOOK_TIMEOUT = 5.0
#: Seconds in which a message must have gone round.
ROUND_TIMEOUT = 2.0


class RabbitLook:
    """A look at a broker, which leaves it as it is. Every method raises Unreached."""

    def __init__(self, url: str, connection: AbstractConnection) -> None:
        self._url = url
        self._connection = connection
        properties: Any = getattr(connection.transport, "connection", None)
        told = {name: str(value) for name, value in properties.server_properties.items()}
        self.product = told.get("product", "unknown")
        self.version = told.get("version", "unknown")

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["RabbitLook"]:
        async with AsyncExitStack() as stack:
            async with _looking():
                connection = await stack.enter_async_context(_connection(url, heartbeat=10))
            yield cls(url, connection)

    async def round_trip(self) -> float | None:
        """Seconds that a message takes to a queue of our own and back, or None where the broker takes none, since it is
        short of memory or disk."""
        # A connection of its own: a broker that is short reads nothing more from it.
        async with _looking(), _connection(self._url, heartbeat=10) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(f"look.{uuid7()}", exclusive=True, auto_delete=True)
            begun = _now()
            try:
                async with asyncio.timeout(ROUND_TIMEOUT):
                    await channel.default_exchange.publish(aio_pika.Message(b""), queue.name)
                    await queue.get(no_ack=True)
            except TimeoutError:
                if await _is_blocked(connection):
                    return None
                raise
            return _now() - begun

    async def queue(self, queue: Queue) -> QueueState | None:
        """None where it is not there."""
        arguments = _arguments(queue)
        async with _looking():
            try:
                async with self._connection.channel() as channel:
                    found = await channel.declare_queue(queue.name, passive=True)
            except ChannelNotFoundEntity:
                return None
            waiting, consumers = found.declaration_result.message_count, found.declaration_result.consumer_count
            refusal = await self._refusal(lambda c: c.declare_queue(queue.name, durable=True, arguments=arguments))
            return QueueState(waiting or 0, consumers or 0, refusal)

    async def exchange(self, exchange: Exchange) -> str | None:
        """What the broker says where it does not let us declare it as we do, and None where it is not there."""
        kind = aio_pika.ExchangeType(exchange.kind)
        async with _looking():
            try:
                async with self._connection.channel() as channel:
                    await channel.declare_exchange(exchange.name, kind, passive=True)
            except ChannelNotFoundEntity:
                return None
            return await self._refusal(lambda c: c.declare_exchange(exchange.name, kind, durable=True))

    async def _refusal(self, declare: Callable[[AbstractChannel], Awaitable[object]]) -> str:
        try:
            async with self._connection.channel() as channel:
                await declare(channel)
        except ChannelClosed as error:
            return str(error)
        return ""


@asynccontextmanager
async def _looking() -> AsyncIterator[None]:
    """Around a look: what goes wrong, as Unreached."""
    try:
        with _heard():
            async with asyncio.timeout(LOOK_TIMEOUT):
                yield
    except ProbableAuthenticationError as error:
        raise Unreached("It refuses the user or the password.", "key") from error
    except InvalidFrameError as error:  # it closes the connection where others open theirs
        raise Unreached("It takes the password, and refuses the virtual host.", "place") from error
    except ChannelClosed as error:
        raise Unreached(f"It refuses: {error}.", "other") from error
    except _BROKEN as error:
        raise Unreached.because_of(error) from error


async def _is_blocked(connection: AbstractConnection) -> bool:
    assert connection.transport is not None
    try:
        await _in_time(connection.transport.ready(), 0.1)
    except TimeoutError:
        return True
    return False
