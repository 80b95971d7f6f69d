"""How events on their way to the recorder come to share a body."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from m3.batching import MAX_BODY, UNCONFIRMED, Batcher
from m3.bus.memory import MemoryBus
from m3.errors import BusFull
from m3.events import MessageAccepted, decode, encode
from m3.topology import Route
from tests.support.until import until


class SlowBus(MemoryBus):
    """Confirms a publish when it is told to, or refuses it."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[tuple[bytes, asyncio.Future[None]]] = []

    async def publish(self, route: Route, body: bytes) -> None:
        confirmation = asyncio.get_running_loop().create_future()
        self.published.append((body, confirmation))
        await confirmation

    def contents(self) -> list[list[str]]:
        return [
            [event.content for event in decode(body) if isinstance(event, MessageAccepted)]
            for body, _ in self.published
        ]

    def confirm(self) -> None:
        for _, confirmation in self.published:
            if not confirmation.done():
                confirmation.set_result(None)


@pytest.fixture
def bus() -> SlowBus:
    return SlowBus()


@pytest.fixture
async def batcher(bus: SlowBus) -> AsyncIterator[Batcher]:
    async with Batcher.open("test", bus) as batcher:
        yield batcher


def said(content: str) -> MessageAccepted:
    return MessageAccepted(thread_id="t", source="user", content=content, interface="http_api", origin="nobody")


def hand_in(batcher: Batcher, content: str) -> asyncio.Task[None]:
    return asyncio.create_task(batcher.publish(encode([said(content)])), name=content)


async def fill(batcher: Batcher, bus: SlowBus) -> list[asyncio.Task[None]]:
    """Have as many publishes under way as there may be."""
    tasks = []
    for number in range(UNCONFIRMED):
        tasks.append(hand_in(batcher, f"first {number}"))
        expected = len(bus.published) + 1
        await until(lambda: len(bus.published) == expected)  # noqa: B023  # it is awaited here
    return tasks


async def test_a_lone_event_goes_out_at_once_and_waits_for_no_other(bus: SlowBus, batcher: Batcher) -> None:
    await fill(batcher, bus)
    assert bus.contents() == [[f"first {number}"] for number in range(UNCONFIRMED)]


async def test_what_is_handed_in_at_once_goes_together_in_its_order(bus: SlowBus, batcher: Batcher) -> None:
    tasks = [hand_in(batcher, str(number)) for number in range(10)]
    await until(lambda: bool(bus.published))
    assert bus.contents() == [[str(number) for number in range(10)]]
    bus.confirm()
    await asyncio.gather(*tasks)


async def test_what_comes_while_enough_is_unconfirmed_goes_together_in_the_next_body(
    bus: SlowBus, batcher: Batcher
) -> None:
    await fill(batcher, bus)
    tasks = []
    for number in range(3):
        tasks.append(hand_in(batcher, str(number)))
        await asyncio.sleep(0)
    assert len(bus.published) == UNCONFIRMED
    bus.confirm()
    await until(lambda: len(bus.published) == UNCONFIRMED + 1)
    assert bus.contents()[-1] == ["0", "1", "2"]
    assert not any(task.done() for task in tasks)
    bus.confirm()
    await asyncio.gather(*tasks)


async def test_what_one_body_does_not_hold_follows_in_the_next(bus: SlowBus, batcher: Batcher) -> None:
    for number in range(3):
        hand_in(batcher, f"{number}".ljust(MAX_BODY // 2, "x"))
    await until(lambda: len(bus.published) == 3)
    assert [content[:1] for body in bus.contents() for content in body] == ["0", "1", "2"]


async def test_a_refusal_is_everybodys_in_the_body(bus: SlowBus, batcher: Batcher) -> None:
    tasks = [hand_in(batcher, str(number)) for number in range(2)]
    await until(lambda: bool(bus.published))
    bus.published[0][1].set_exception(BusFull("full"))
    assert [type(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == [BusFull, BusFull]
    again = hand_in(batcher, "again")
    await until(lambda: len(bus.published) == 2)
    bus.confirm()
    await again


async def test_who_goes_away_harms_nobody_else_and_is_not_sent_any_more(bus: SlowBus, batcher: Batcher) -> None:
    leaving, staying = hand_in(batcher, "sent"), hand_in(batcher, "sent too")
    await until(lambda: bool(bus.published))
    leaving.cancel()
    bus.confirm()
    await staying
    before = await fill(batcher, bus)
    leaving, staying = hand_in(batcher, "not sent yet"), hand_in(batcher, "nor this")
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    bus.confirm()
    await until(lambda: bus.contents()[-1] == ["nor this"])
    bus.confirm()
    await asyncio.gather(staying, *before)
