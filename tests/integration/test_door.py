"""Handing a message in and hearing what became of it, also when the news of it is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from m3 import topology
from m3.bus import Bus, open_bus
from m3.door import Door
from m3.events import MessageAccepted, reply_id
from m3.store import Store
from services.recorder import recorder
from tests.support.until import DEADLINE


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


def said(origin: str) -> MessageAccepted:
    return MessageAccepted(thread_id="t", source="user", content="hello", interface="http_api", origin=origin)


def answer(event: MessageAccepted) -> MessageAccepted:
    return MessageAccepted(
        message_id=reply_id(event.message_id),
        thread_id=event.thread_id,
        source="assistant",
        content="reply",
        interface="http_api",
        origin="nobody",
        in_reply_to=(event.message_id,),
    )


async def test_who_hands_in_hears_the_number_and_then_the_reply(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), Door.open("gateway", bus, store) as door:
        event = said(door.origin)
        with door.watch(event.message_id) as watch:
            await door.hand_in(event)
            assert (await watch.recorded(DEADLINE)).seq == 1
            assert await watch.reply() is None
            await door.hand_in(answer(event))
            assert (await watch.settled(DEADLINE)).fate == "answered"
            reply = await watch.reply()
            assert reply is not None
            assert (reply.seq, reply.content) == (2, "reply")


async def test_several_watchers_of_one_message_all_hear(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, store) as door:
        event = said(door.origin)
        with door.watch(event.message_id) as one, door.watch(event.message_id) as other:
            await door.hand_in(event)
            assert await one.recorded(DEADLINE) == await other.recorded(DEADLINE)


async def test_where_the_news_is_lost_the_table_tells(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3.door.LOOK_INTERVAL", 0.05)
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, store) as door:
        event = said("a queue that is gone")
        with door.watch(event.message_id) as watch:
            await door.hand_in(event)
            assert (await watch.recorded(DEADLINE)).seq == 1
            await door.hand_in(answer(event))
            assert (await watch.settled(DEADLINE)).fate == "answered"
            reply = await watch.reply()
            assert reply is not None
            assert reply.content == "reply"


async def test_a_doubled_notice_takes_nothing_back(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, store) as door:
        event = said(door.origin)
        with door.watch(event.message_id) as watch:
            await door.hand_in(event)
            await door.hand_in(answer(event))
            settled = await watch.settled(DEADLINE)
            await door.hand_in(event)  # announced again, and this time with its fate
            with door.watch(event.message_id) as later:
                await door.hand_in(event)
                assert await later.recorded(DEADLINE) == settled
            assert await watch.recorded(DEADLINE) == settled


async def test_only_a_later_change_takes_a_fate_back(memory: Bus, store: Store) -> None:
    event = said("nobody")
    recorded = (await store.record([event])).messages[event.message_id]
    failed = recorded.model_copy(update={"rev": 2, "fate": "failed"})
    retried = recorded.model_copy(update={"rev": 3})
    async with Door.open("gateway", memory, store) as door:
        with door.watch(event.message_id) as watch:
            for news, known in ((failed, failed), (recorded, failed), (retried, retried), (failed, retried)):
                watch.learn(news)
                assert await watch.recorded(DEADLINE) == known


async def test_who_doubts_looks_into_the_table_at_once(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3.door.LOOK_INTERVAL", 1000)
    event = said("nobody")
    async with Door.open("gateway", memory, store) as door:
        with door.watch(event.message_id) as watch:
            recorded = asyncio.create_task(watch.recorded(DEADLINE))
            await asyncio.sleep(0)
            await store.record([event])
            watch.doubt()
            assert (await recorded).seq == 1


async def test_waiting_ends_at_the_deadline(memory: Bus, store: Store) -> None:
    async with Door.open("gateway", memory, store) as door:  # and no recorder
        event = said(door.origin)
        with door.watch(event.message_id) as watch:
            await door.hand_in(event)
            with pytest.raises(TimeoutError):
                await watch.recorded(0.05)


async def test_a_notice_that_cannot_be_read_is_passed_over(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, store) as door:
        await memory.publish(topology.told(door.origin), b"not json")
        event = said(door.origin)
        with door.watch(event.message_id) as watch:
            await door.hand_in(event)
            async with asyncio.timeout(DEADLINE):
                assert (await watch.recorded(DEADLINE)).seq == 1
