"""What only the bus inside one process does, or what only there can be told for sure."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from m3 import topology
from m3.bus import Consumer
from m3.bus.memory import MemoryBus
from m3.errors import BusFull
from m3.topology import AGENT_USER, CHAT_OUT, DEAD, QUEUES, RECORDER
from tests.support.until import DEADLINE


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    async with MemoryBus.open() as bus:
        yield bus


async def accept(bus: MemoryBus, *bodies: bytes) -> None:
    for body in bodies:
        await bus.publish(topology.accepted(), body)


async def bodies(consumer: Consumer, at_most: int) -> list[bytes]:
    async with asyncio.timeout(DEADLINE):
        return [delivery.body for delivery in await consumer.take(at_most)]


async def test_a_private_queue_that_overflows_drops_the_oldest(bus: MemoryBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m3.bus.memory.PRIVATE_MAX_LENGTH", 3)
    monkeypatch.setattr("m3.bus.memory.PRIVATE_MAX_BYTES", 5)
    async with bus.subscribe("pusher") as subscription:
        for number in range(5):
            await bus.publish(topology.told(subscription.name), str(number).encode())
        assert await subscription.take(10) == [b"2", b"3", b"4"]
        for body in (b"1", b"22", b"333", b"4"):
            await bus.publish(topology.told(subscription.name), body)
        assert await subscription.take(10) == [b"333", b"4"]
        for body in (b"1", b"longer than the queue"):
            await bus.publish(topology.told(subscription.name), body)
        await bus.publish(topology.told(subscription.name), b"last")
        assert await subscription.take(10) == [b"last"]


async def test_what_is_taken_and_handed_back_weighs_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = tuple(replace(queue, max_bytes=4) if queue is RECORDER else queue for queue in QUEUES)
    monkeypatch.setattr("m3.bus.memory.QUEUES", queues)
    async with MemoryBus.open() as bus:
        await accept(bus, b"12", b"34")
        async with bus.consume(RECORDER, prefetch=10) as consumer:
            await consumer.ack((await consumer.take(2))[:1])
        with pytest.raises(BusFull):
            await accept(bus, b"567")
        await accept(bus, b"56")
        with pytest.raises(BusFull):
            await accept(bus, b"7")


async def test_a_full_shared_queue_keeps_the_news_from_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = tuple(replace(queue, max_length=1) if queue is AGENT_USER else queue for queue in QUEUES)
    monkeypatch.setattr("m3.bus.memory.QUEUES", queues)
    async with MemoryBus.open() as bus, bus.subscribe("pusher") as subscription:
        await subscription.bind(CHAT_OUT, topology.every_lane("t"))
        await bus.publish(topology.announced("user", "t"), b"1")
        with pytest.raises(BusFull, match=r"agent\.user is at its limit of 1 messages or \d+ bytes\."):
            await bus.publish(topology.announced("user", "t"), b"2")
        assert await subscription.take(10) == [b"1", b"2"]


async def test_what_is_handed_back_comes_first_and_in_its_old_order(bus: MemoryBus) -> None:
    await accept(bus, b"0", b"1", b"2", b"3", b"4")
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        held = await consumer.take(4)
        await consumer.ack(held[1:2])
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        again = await consumer.take(10)
    assert [(d.body, d.redelivered) for d in again] == [(b"0", True), (b"2", True), (b"3", True), (b"4", False)]


async def test_a_consumer_that_waits_gets_what_another_hands_back(bus: MemoryBus) -> None:
    async with bus.consume(RECORDER, prefetch=1) as patient:
        async with bus.consume(RECORDER, prefetch=1) as hasty:
            await accept(bus, b"0")
            await bodies(hasty, 1)
            waiting = asyncio.create_task(bodies(patient, 1))
            await asyncio.sleep(0)  # it finds nothing and waits
        assert await waiting == [b"0"]


async def test_a_take_that_is_cancelled_takes_nothing(bus: MemoryBus) -> None:
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        waiting = asyncio.create_task(consumer.take(1))
        await asyncio.sleep(0)  # it finds nothing and waits
        await accept(bus, b"0")
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert await bodies(consumer, 1) == [b"0"]


async def test_settling_after_the_consumer_has_closed_does_nothing(bus: MemoryBus) -> None:
    await accept(bus, b"0")
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        held = await consumer.take(1)
    await consumer.ack(held)
    await consumer.reject(held[0], "late")
    async with bus.consume(RECORDER, prefetch=10) as consumer:
        assert await bodies(consumer, 10) == [b"0"]


async def test_a_full_dead_letter_queue_drops_what_was_delivered_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = (replace(RECORDER, delivery_limit=0), replace(DEAD, max_length=1))
    monkeypatch.setattr("m3.bus.memory.QUEUES", queues)
    async with MemoryBus.open() as bus, bus.consume(DEAD, prefetch=10) as dead:
        await accept(bus, b"dropped", b"kept")
        async with bus.consume(queues[0], prefetch=10) as consumer:
            await consumer.take(2)
        assert await bodies(dead, 10) == [b"kept"]


async def test_a_dead_letter_is_handed_back_as_often_as_it_takes(bus: MemoryBus) -> None:
    await accept(bus, b"0")
    async with bus.consume(RECORDER, prefetch=1) as consumer:
        await consumer.reject((await consumer.take(1))[0], "bad")
    for _ in range(20):
        async with bus.consume(DEAD, prefetch=1) as dead:
            assert await bodies(dead, 1) == [b"0"]


async def test_a_subscription_leaves_nothing_behind(bus: MemoryBus) -> None:
    def held() -> tuple[set[str], set[tuple[str, str]]]:
        return set(bus._mailboxes), set(bus._bindings)

    before = held()
    async with bus.subscribe("pusher") as one, bus.subscribe("pusher") as other:
        for subscription in (one, other):
            await subscription.bind(CHAT_OUT, topology.every_lane("t"))
        assert held() != before
    assert held() == before


async def test_two_rooms_in_one_process_do_not_hear_each_other(bus: MemoryBus) -> None:
    async with MemoryBus.open() as another, another.consume(RECORDER, prefetch=10) as consumer:
        await accept(bus, b"elsewhere")
        await accept(another, b"here")
        assert await bodies(consumer, 10) == [b"here"]
