"""What services see when the connection to RabbitMQ breaks, and when it comes back."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import aio_pika
import pytest
from yarl import URL

from m3 import topology
from m3.bus import Bus, open_bus
from m3.bus.rabbit import RabbitBus, RabbitSubscription
from m3.errors import BusUnavailable, Interrupted
from m3.topology import AGENT_API, CHAT_OUT, DEAD, RECORDER, Queue, Route
from tests.support.broker import PrivateNode
from tests.support.counting import Since, counted
from tests.support.proxy import Proxy, proxy
from tests.support.until import DEADLINE, until


@pytest.fixture(autouse=True)
async def nothing_dies_unseen() -> AsyncIterator[None]:
    """No task and no callback ends with an error that nobody hears of."""
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    yield
    gc.collect()
    assert not seen


@pytest.fixture
async def line(broker_url: str) -> AsyncIterator[Proxy]:
    """The line between a bus and its broker."""
    async with proxy(URL(broker_url).port or 5672) as line:
        yield line


@pytest.fixture
def url(broker_url: str, line: Proxy) -> str:
    """The broker at the end of the line."""
    return str(URL(broker_url).with_host("127.0.0.1").with_port(line.port))


@pytest.fixture
async def bus(url: str) -> AsyncIterator[Bus]:
    async with open_bus(url) as bus:
        await until(lambda: bus.connected)
        yield bus


async def delete(broker_url: str, queue: str) -> None:
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        await channel.queue_delete(queue)


async def lose_and_regain(bus: Bus, line: Proxy) -> None:
    line.cut()
    await until(lambda: not bus.connected)
    await until(lambda: bus.connected)


async def test_a_consumer_goes_on_and_gets_again_what_it_had_not_acked(bus: Bus, line: Proxy) -> None:
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        await bus.publish(topology.accepted(), b"a")
        async with asyncio.timeout(DEADLINE):
            (lost,) = await consumer.take(10)
            await lose_and_regain(bus, line)
            (again,) = await consumer.take(10)
            assert (again.body, again.redelivered) == (b"a", True)
            await consumer.ack([lost])  # of a link that is gone: does nothing
            await bus.publish(topology.accepted(), b"b")
            assert [delivery.body for delivery in await consumer.take(10)] == [b"b"]


async def test_a_broker_that_is_lost_counts(bus: Bus, line: Proxy) -> None:
    since = Since()
    assert counted("m3_broker_connected") == 1
    line.refuse(refusing=True)
    line.cut()
    await until(lambda: not bus.connected)
    assert counted("m3_broker_connected") == 0
    await until(lambda: since.counted("m3_broker_losses_total") == 1)
    line.refuse(refusing=False)
    await until(lambda: bus.connected)
    assert counted("m3_broker_connected") == 1
    assert since.counted("m3_broker_losses_total") == 1


async def test_a_subscription_says_that_it_may_have_missed_something_and_keeps_its_bindings(
    bus: Bus, line: Proxy
) -> None:
    async with bus.subscribe("pusher") as subscription:
        await subscription.bind(CHAT_OUT, topology.every_lane("t"))
        name = subscription.name
        await lose_and_regain(bus, line)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(Interrupted):
                await subscription.take(10)
            assert subscription.name != name
            await bus.publish(topology.announced("assistant", "t"), b"after")
            assert await subscription.take(10) == [b"after"]


async def test_a_binding_asked_for_while_the_broker_is_away_is_made_when_it_returns(bus: Bus, line: Proxy) -> None:
    async with bus.subscribe("pusher") as subscription:
        line.refuse(refusing=True)
        line.cut()
        await until(lambda: not bus.connected)
        await subscription.bind(CHAT_OUT, topology.every_lane("t"))
        line.refuse(refusing=False)
        await until(lambda: bus.connected)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(Interrupted):
                await subscription.take(10)
            await bus.publish(topology.announced("assistant", "t"), b"after")
            assert await subscription.take(10) == [b"after"]


async def test_once_told_that_something_was_missed_nothing_more_is(bus: Bus, line: Proxy) -> None:
    """However many bindings there are to make again."""
    threads = [f"t{number}" for number in range(300)]
    async with bus.subscribe("pusher") as subscription:
        for thread in threads:
            await subscription.bind(CHAT_OUT, topology.every_lane(thread))
        line.cut()
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(Interrupted):
                await subscription.take(10)
            for thread in threads:
                await bus.publish(topology.announced("assistant", thread), thread.encode())
            heard: list[bytes] = []
            while len(heard) < len(threads):
                heard += await subscription.take(1000)
        assert heard == [thread.encode() for thread in threads]


async def test_a_thread_can_be_bound_while_the_others_are_bound_again(bus: Bus, line: Proxy) -> None:
    async with bus.subscribe("pusher") as subscription:
        for number in range(200):
            await subscription.bind(CHAT_OUT, topology.every_lane(f"t{number}"))
        line.cut()
        await until(lambda: not bus.connected)
        for number in range(200, 500):
            await subscription.bind(CHAT_OUT, topology.every_lane(f"t{number}"))
            await asyncio.sleep(0.005)  # spread over the time that it takes to connect and bind again
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(Interrupted):
                await subscription.take(10)
            await bus.publish(topology.announced("assistant", "t499"), b"last")
            assert await subscription.take(10) == [b"last"]


async def test_whoever_leaves_while_a_thread_is_bound_disturbs_nobody(bus: Bus) -> None:
    async with bus.subscribe("pusher") as subscription, bus.consume(RECORDER, prefetch=10) as consumer:
        await bus.publish(topology.accepted(), b"a")
        held = await consumer.take(10)
        for steps in range(20):  # wherever the command has got to
            for change in (subscription.bind, subscription.unbind):
                changing = asyncio.create_task(change(CHAT_OUT, topology.every_lane("t")))
                for _ in range(steps):
                    await asyncio.sleep(0)
                done = changing.done()
                changing.cancel()
                await asyncio.wait([changing])
                assert changing.cancelled() or done
        await subscription.bind(CHAT_OUT, topology.every_lane("t"))
        await consumer.ack(held)
        await bus.publish(topology.announced("assistant", "t"), b"news")
        async with asyncio.timeout(DEADLINE):
            assert await subscription.take(10) == [b"news"]  # and is not Interrupted


async def test_a_publish_waits_for_a_broker_that_returns_soon(bus: Bus, line: Proxy) -> None:
    line.cut()
    await until(lambda: not bus.connected)
    await bus.publish(topology.accepted(), b"a")


async def test_a_publish_gives_up_on_a_broker_that_stays_away(url: str, line: Proxy) -> None:
    line.refuse(refusing=True)
    async with open_bus(url, publish_timeout=0.3) as bus:
        with pytest.raises(BusUnavailable):
            await bus.publish(topology.accepted(), b"a")


async def test_publishes_in_flight_when_the_line_is_cut_end_with_an_error_or_arrive(bus: Bus, line: Proxy) -> None:
    async def publish(number: int) -> int | None:
        try:
            await bus.publish(topology.accepted(), str(number).encode())
        except BusUnavailable:
            return None
        return number

    tasks = [asyncio.create_task(publish(number)) for number in range(200)]
    await until(lambda: sum(task.done() for task in tasks) > 20)
    line.cut()
    confirmed = {number for task in tasks if (number := await task) is not None}
    arrived: set[int] = set()
    async with bus.consume(RECORDER, prefetch=500) as consumer, asyncio.timeout(DEADLINE):
        while not confirmed <= arrived:
            arrived |= {int(delivery.body) for delivery in await consumer.take(500)}


async def test_a_stopped_consumer_fetches_nothing_on_the_next_connection_either(bus: Bus, line: Proxy) -> None:
    async with bus.consume(RECORDER, prefetch=10) as consumer, asyncio.timeout(DEADLINE):
        await bus.publish(topology.accepted(), b"a")
        held = await consumer.take(10)
        consumer.stop()
        await lose_and_regain(bus, line)
        assert await consumer.take(10) == []
        await consumer.ack(held)  # of a link that is gone: does nothing
        async with bus.consume(RECORDER, prefetch=10) as another:
            assert [delivery.body for delivery in await another.take(10)] == [b"a"]


async def test_a_consumer_can_be_stopped_while_the_broker_is_away(bus: Bus, line: Proxy) -> None:
    async with bus.consume(RECORDER, prefetch=10) as consumer, asyncio.timeout(DEADLINE):
        line.refuse(refusing=True)
        line.cut()
        await until(lambda: not bus.connected)
        waiting = asyncio.create_task(consumer.take(10))
        await asyncio.sleep(0)  # it finds nothing and waits
        consumer.stop()
        assert await waiting == []
        line.refuse(refusing=False)
        await bus.publish(topology.accepted(), b"a")
        assert await consumer.take(10) == []


async def test_a_letter_that_cannot_be_buried_while_the_broker_is_away_comes_again(url: str, line: Proxy) -> None:
    async with (
        open_bus(url, publish_timeout=0.3) as bus,
        bus.consume(RECORDER, prefetch=10) as consumer,
        asyncio.timeout(DEADLINE),
    ):
        await until(lambda: bus.connected)
        await bus.publish(topology.accepted(), b"a")
        (delivery,) = await consumer.take(10)
        line.stall(stalling=True)
        await consumer.reject(delivery, "bad")
        line.stall(stalling=False)  # perhaps it is buried after all
        await lose_and_regain(bus, line)
        (again,) = await consumer.take(10)
        assert (again.body, again.redelivered) == (b"a", True)


@pytest.mark.parametrize("bound", ["PRIVATE_MAX_LENGTH", "PRIVATE_MAX_BYTES"])
async def test_a_process_that_does_not_keep_up_drops_the_oldest_and_says_so(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(f"m3.bus.rabbit.{bound}", 3)
    async with bus.subscribe("pusher") as subscription, asyncio.timeout(DEADLINE):
        assert isinstance(subscription, RabbitSubscription)
        for number in range(5):
            await bus.publish(topology.told(subscription.name), str(number).encode())
        await until(lambda: [*subscription._waiting] == [b"2", b"3", b"4"])
        with pytest.raises(Interrupted):
            await subscription.take(10)
        assert await subscription.take(10) == [b"2", b"3", b"4"]
        await bus.publish(topology.told(subscription.name), b"5")
        assert await subscription.take(10) == [b"5"]


async def test_a_queue_deleted_while_in_use_is_made_again(bus: Bus, broker_url: str) -> None:
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        await delete(broker_url, RECORDER.name)
        await until(lambda: not bus.connected)
        await until(lambda: bus.connected)
        await bus.publish(topology.accepted(), b"a")
        async with asyncio.timeout(DEADLINE):
            assert [delivery.body for delivery in await consumer.take(10)] == [b"a"]


@pytest.mark.parametrize("queue", [RECORDER, AGENT_API, DEAD], ids=lambda queue: queue.name)
async def test_a_process_that_only_publishes_makes_a_deleted_queue_again_and_loses_nothing(
    bus: Bus, broker_url: str, queue: Queue
) -> None:
    await delete(broker_url, queue.name)
    route = Route(queue.exchange.name, queue.bindings[0].replace("*", "t"), must_arrive=True)
    await asyncio.gather(*(bus.publish(route, str(number).encode()) for number in range(50)))
    async with bus.consume(queue, prefetch=100) as consumer, asyncio.timeout(DEADLINE):
        arrived: set[int] = set()
        while arrived != set(range(50)):
            arrived |= {int(delivery.body) for delivery in await consumer.take(100)}


async def test_a_queue_that_nobody_consumes_is_made_again(
    bus: Bus, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3.bus.rabbit.REDECLARE_INTERVAL", 0.2)
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        await until(lambda: bus.connected)
        await channel.queue_delete(DEAD.name)

    async def is_there() -> bool:
        async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
            try:
                await channel.declare_queue(DEAD.name, passive=True)
            except aio_pika.exceptions.ChannelClosed:
                return False
            return True

    async with open_bus(broker_url, publish_timeout=4, heartbeat=10):
        await until(is_there)


async def test_a_consumer_that_the_broker_has_forgotten_consumes_again(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its queue was deleted and made again at once."""
    monkeypatch.setattr("m3.bus.rabbit.REDECLARE_INTERVAL", 0.2)
    async with open_bus(broker_url, publish_timeout=4, heartbeat=10) as bus:
        await until(lambda: bus.connected)
        async with bus.consume(RECORDER, prefetch=10) as consumer, asyncio.timeout(DEADLINE):
            queue, tag = consumer._fetching  # type: ignore[attr-defined]  # there is no other way to be forgotten
            await queue.cancel(tag)
            await bus.publish(topology.accepted(), b"a")
            assert [delivery.body for delivery in await consumer.take(10)] == [b"a"]


async def test_a_broker_that_confirms_nothing_is_given_up(
    broker_url: str, line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before a heartbeat tells."""
    monkeypatch.setattr("m3.bus.rabbit.STUCK", 0.5)
    url = URL(broker_url).with_host("127.0.0.1").with_port(line.port)
    async with open_bus(str(url), publish_timeout=0.2, heartbeat=600) as bus:
        await until(lambda: bus.connected)
        line.stall(stalling=True)

        async def is_given_up() -> bool:
            with suppress(BusUnavailable):
                await bus.publish(topology.accepted(), b"a")
            return not bus.connected

        await until(is_given_up)
        line.stall(stalling=False)
        await until(lambda: bus.connected)
        await bus.publish(topology.accepted(), b"b")


async def test_a_deleted_exchange_is_made_again(bus: Bus, broker_url: str) -> None:
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        await channel.exchange_delete(RECORDER.exchange.name)

    async def arrives() -> bool:
        try:
            await bus.publish(topology.accepted(), b"a")
        except BusUnavailable:
            return False
        return True

    await until(arrives)


async def test_a_bus_opens_before_its_broker_and_connects_when_it_comes(url: str, line: Proxy) -> None:
    line.refuse(refusing=True)
    async with (
        open_bus(url) as bus,
        bus.consume(RECORDER, prefetch=10) as consumer,
        bus.subscribe("gateway") as subscription,
    ):
        assert not bus.connected
        line.refuse(refusing=False)
        await bus.publish(topology.accepted(), b"a")
        await bus.publish(topology.told(subscription.name), b"told")
        async with asyncio.timeout(DEADLINE):
            assert [delivery.body for delivery in await consumer.take(10)] == [b"a"]
            assert await subscription.take(10) == [b"told"]


async def test_a_line_that_falls_silent_is_given_up_and_made_anew(url: str, line: Proxy) -> None:
    """Whoever waits for an answer on it gets an error or nothing, and never a cancellation."""
    async with (
        open_bus(url, heartbeat=1) as bus,
        bus.subscribe("pusher") as subscription,
    ):
        await until(lambda: bus.connected)
        await subscription.bind(CHAT_OUT, topology.every_lane("t"))
        line.stall(stalling=True)
        unbinding = asyncio.create_task(subscription.unbind(CHAT_OUT, topology.every_lane("t")))
        with pytest.raises(BusUnavailable):
            await bus.publish(topology.accepted(), b"a")
        await until(lambda: not bus.connected)
        await unbinding
        line.stall(stalling=False)
        await until(lambda: bus.connected)
        await bus.publish(topology.accepted(), b"b")


async def test_whoever_gives_up_consuming_before_it_began_leaves_nothing_behind(bus: Bus) -> None:
    async def consume() -> None:
        async with bus.consume(RECORDER, prefetch=10):
            await asyncio.Event().wait()

    assert isinstance(bus, RabbitBus)
    for steps in range(30):  # wherever it has got to
        consuming = asyncio.create_task(consume())
        for _ in range(steps):
            await asyncio.sleep(0)
        consuming.cancel()
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait([consuming])
        assert consuming.cancelled()
        assert not bus._attachments


async def test_a_peer_that_hangs_up_without_a_word_is_tried_again(line: Proxy, url: str) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        writer.close()

    asked = asyncio.Event()
    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_bus(str(URL(url).with_port(port)), publish_timeout=0.1) as bus, asyncio.timeout(DEADLINE):
            for _ in range(2):
                asked.clear()
                await asked.wait()
            with pytest.raises(BusUnavailable):
                await bus.publish(topology.accepted(), b"a")


async def test_a_line_that_falls_silent_while_it_is_made_is_given_up(
    url: str, line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3.bus.rabbit.COMMAND_TIMEOUT", 0.5)
    for after in (0.0, 0.005, 0.01, 0.02, 0.04, 0.08):  # while it connects, declares, or starts to consume
        async with open_bus(url) as bus, bus.consume(RECORDER, prefetch=10), bus.subscribe("pusher"):
            await asyncio.sleep(after)
            line.stall(stalling=True)
            await asyncio.sleep(1)
            line.stall(stalling=False)
            await until(lambda: bus.connected)
            await bus.publish(topology.accepted(), b"a")


async def test_acks_and_stops_on_a_line_that_has_fallen_silent_end_and_what_they_meant_comes_again(
    url: str, line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3.bus.rabbit.COMMAND_TIMEOUT", 0.5)
    async with open_bus(url) as bus, bus.consume(RECORDER, prefetch=10) as consumer, asyncio.timeout(DEADLINE):
        await bus.publish(topology.accepted(), b"a")
        held = await consumer.take(10)
        line.stall(stalling=True)
        consumer.stop()
        await consumer.ack(held)
        await consumer.take(10)
        line.stall(stalling=False)
        await until(lambda: bus.connected)
        assert await consumer.take(10) == []


async def test_while_the_broker_is_short_of_memory_publishes_give_up_and_acks_get_through(node: PrivateNode) -> None:
    async def starve(watermark: str) -> None:
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", *watermark.split())

    async def publish() -> bool:
        """Each body once; whether it was confirmed."""
        tried.append(str(len(tried)).encode())
        try:
            await bus.publish(topology.accepted(), tried[-1])
        except BusUnavailable:
            return False
        confirmed.append(tried[-1])
        return True

    async def refused() -> bool:
        return not await publish()

    tried: list[bytes] = []
    confirmed: list[bytes] = []
    async with (
        open_bus(node.url, publish_timeout=0.5, heartbeat=1) as bus,
        bus.consume(RECORDER, prefetch=1) as consumer,
    ):
        await until(lambda: bus.connected)
        for _ in range(2):
            assert await publish()
        arrived = []
        async with asyncio.timeout(DEADLINE):
            held = await consumer.take(1)
            arrived += [delivery.body for delivery in held]
        try:
            await starve("absolute 1")
            await until(refused)
            for _ in range(3):
                assert await refused()
            await consumer.ack(held)
            async with asyncio.timeout(DEADLINE):  # the next comes only to whoever has acked
                held = await consumer.take(1)
                arrived += [delivery.body for delivery in held]
            # Whoever comes now can consume too.
            async with open_bus(node.url, publish_timeout=0.5) as another, another.consume(RECORDER, prefetch=1):
                await until(lambda: another.connected)
        finally:
            await starve("0.4")
        await until(publish)
        async with asyncio.timeout(DEADLINE):
            while not set(confirmed) <= set(arrived):
                await consumer.ack(held)
                held = await consumer.take(1)
                arrived += [delivery.body for delivery in held]
        assert len(arrived) == len(set(arrived))
        assert len(arrived) <= len(confirmed) + 1  # at most one was on its way when the broker blocked us


async def test_connections_that_the_broker_closes_are_made_anew(node: PrivateNode) -> None:
    async with open_bus(node.url) as bus, bus.consume(RECORDER, prefetch=100) as consumer:

        async def published(number: int) -> bool:
            try:
                await bus.publish(topology.accepted(), str(number).encode())
            except BusUnavailable:
                return False
            return True

        await until(lambda: bus.connected)
        closing = asyncio.create_task(asyncio.to_thread(node.ctl, "close_all_connections", "trouble"))
        number = 0
        arrived: set[int] = set()
        while not closing.done():
            number += 1
            await until(partial(published, number))
            async with asyncio.timeout(DEADLINE):
                while number not in arrived:
                    deliveries = await consumer.take(100)
                    arrived |= {int(delivery.body) for delivery in deliveries}
                    await consumer.ack(deliveries)
        await closing
