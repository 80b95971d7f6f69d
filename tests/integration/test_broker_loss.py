"""What services see when the connection to RabbitMQ breaks, and when it comes back."""

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest
from yarl import URL

from m3 import topology
from m3.bus import Bus, open_bus
from m3.errors import BusUnavailable, Interrupted
from m3.topology import CHAT_OUT, RECORDER
from tests.support.proxy import Proxy, proxy
from tests.support.until import DEADLINE, until


@pytest.fixture
async def line(broker_url: str) -> AsyncIterator[Proxy]:
    """The line between a bus and its broker."""
    async with proxy(URL(broker_url).port or 5672) as line:
        yield line


@pytest.fixture
async def bus(broker_url: str, line: Proxy) -> AsyncIterator[Bus]:
    url = URL(broker_url).with_host("127.0.0.1").with_port(line.port)
    async with open_bus(str(url)) as bus:
        await until(lambda: bus.connected)
        yield bus


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


async def test_a_publish_waits_for_a_broker_that_returns_soon(bus: Bus, line: Proxy) -> None:
    line.cut()
    await until(lambda: not bus.connected)
    await bus.publish(topology.accepted(), b"a")


async def test_a_publish_gives_up_on_a_broker_that_stays_away(
    bus: Bus, line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3.bus.rabbit.PUBLISH_TIMEOUT", 0.3)
    line.refuse(refusing=True)
    line.cut()
    await until(lambda: not bus.connected)
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


async def test_a_queue_deleted_while_in_use_is_made_again(bus: Bus, broker_url: str) -> None:
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
            await channel.queue_delete(RECORDER.name)
        await until(lambda: not bus.connected)
        await until(lambda: bus.connected)
        await bus.publish(topology.accepted(), b"a")
        async with asyncio.timeout(DEADLINE):
            assert [delivery.body for delivery in await consumer.take(10)] == [b"a"]


async def test_a_bus_opens_before_its_broker_and_connects_when_it_comes(broker_url: str, line: Proxy) -> None:
    line.refuse(refusing=True)
    async with (
        open_bus(str(URL(broker_url).with_host("127.0.0.1").with_port(line.port))) as bus,
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


async def test_a_line_that_falls_silent_is_given_up_and_made_anew(
    broker_url: str, line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for an answer on it gets an error or nothing, and never a cancellation."""
    monkeypatch.setattr("m3.bus.rabbit.HEARTBEAT", 1)
    async with (
        open_bus(str(URL(broker_url).with_host("127.0.0.1").with_port(line.port))) as bus,
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
