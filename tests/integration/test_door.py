"""Handing a message in and hearing what became of it, also when the news of it is lost."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import count

import pytest
from uuid_utils.compat import uuid7

from m3 import topology
from m3.batching import MAX_BODY
from m3.bus import Bus, open_bus
from m3.door import Door
from m3.errors import (
    BusError,
    BusFull,
    BusUnavailable,
    KeyReused,
    M3Error,
    MessageTooLong,
    NotRecorded,
    ThreadFlooded,
)
from m3.events import Message, MessageAccepted, OutsideSource, keyed_id, reply_id
from m3.settings import Settings
from m3.store import Store
from m3.topology import QUEUES, RECORDER, Route
from services.recorder import recorder
from tests.support.until import DEADLINE

SETTINGS = Settings()


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


def said(origin: str) -> MessageAccepted:
    return MessageAccepted(thread_id="t", source="user", content="hello", interface="http_api", origin=origin)


def answer(event: MessageAccepted | Message) -> MessageAccepted:
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


async def test_many_who_hand_in_at_once_share_bodies_and_all_hear(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), Door.open("gateway", bus, store) as door:

        async def take(number: int) -> int:
            async with door.taken(message(door, str(number)), SETTINGS) as taken:
                return taken.message.seq

        assert sorted(await asyncio.gather(*(take(number) for number in range(300)))) == list(range(1, 301))


def message(door: Door, content: str, source: OutsideSource = "user", key: str | None = None) -> MessageAccepted:
    return MessageAccepted(
        message_id=keyed_id("test", key) if key else uuid7(),
        thread_id="t",
        source=source,
        content=content,
        interface="http_api",
        origin=door.origin,
    )


def told(outcomes: Sequence[Message | M3Error]) -> list[int | type[M3Error]]:
    """Of each message its number, or the kind of its error."""
    return [outcome.seq if isinstance(outcome, Message) else type(outcome) for outcome in outcomes]


async def test_several_messages_are_recorded_in_order_each_with_its_number(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), Door.open("gateway", bus, store) as door:
        messages = [message(door, f"{number}".ljust(2_000, "x")) for number in range(500)]  # in several bodies
        outcomes = await door.take_all(messages, SETTINGS)
        assert told(outcomes) == list(range(1, 501))
        assert [known.message_id for known in await store.latest("t", 500)] == [each.message_id for each in messages]


async def test_what_cannot_be_taken_is_told_and_the_others_are_taken(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), Door.open("gateway", bus, store) as door:
        await door.take_all([message(door, "before", key="a")], SETTINGS)
        outcomes = await door.take_all(
            [
                message(door, "before", key="a"),
                message(door, "another", key="a"),
                message(door, "x" * (SETTINGS.message_limit + 1)),
                message(door, "one", key="b"),
                message(door, "one", key="b"),
                message(door, "two", key="b"),
            ],
            SETTINGS,
        )
        assert told(outcomes) == [1, KeyReused, MessageTooLong, 2, 2, KeyReused]
        assert await store.head("t") == 2


async def test_nothing_is_nothing(memory: Bus, store: Store) -> None:
    async with Door.open("gateway", memory, store) as door:
        assert await door.take_all([], SETTINGS) == []


async def test_a_thread_that_floods_takes_what_it_has_room_for_and_finds_what_it_has(memory: Bus, store: Store) -> None:
    settings = SETTINGS.model_copy(update={"api_bound": 3})
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, store) as door:
        first = [message(door, key, "api", key) for key in "ab"]
        assert told(await door.take_all(first, settings)) == [1, 2]
        more = [*first, message(door, "c", "api", "c"), message(door, "d", "api"), message(door, "e")]
        assert told(await door.take_all(more, settings)) == [1, 2, 3, ThreadFlooded, 4]
        other = message(door, "another", "api", "a")
        assert told(await door.take_all([*more[:4], other], settings)) == [1, 2, 3, ThreadFlooded, KeyReused]
        assert await store.head("t") == 4


async def test_a_batch_whose_news_is_lost_is_found_in_the_table(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3.door.LOOK_INTERVAL", 0.05)
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, store) as door:
        messages = [said("a queue that is gone") for _ in range(3)]
        assert told(await door.take_all(messages, SETTINGS)) == [1, 2, 3]


async def test_a_batch_that_is_not_recorded_in_time_is_told_so_and_may_be_recorded_later(
    memory: Bus, store: Store
) -> None:
    async with Door.open("gateway", memory, store) as door:  # and no recorder
        messages = [message(door, "a"), message(door, "b")]
        outcomes = await door.take_all(messages, SETTINGS.model_copy(update={"record_timeout": 0.05}))
        assert [outcome.message_id for outcome in outcomes if isinstance(outcome, NotRecorded)] == [
            each.message_id for each in messages
        ]
        async with recorder(memory, store, grace=1):
            assert told(await door.take_all(messages, SETTINGS)) == [1, 2]


async def test_a_batch_of_which_the_bus_keeps_nothing_raises_its_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tuple(replace(queue, max_length=0) if queue is RECORDER else queue for queue in QUEUES)
    monkeypatch.setattr("m3.bus.memory.QUEUES", full)
    async with open_bus("memory://") as bus, Door.open("gateway", bus, store) as door:
        with pytest.raises(BusFull):
            await door.take_all([message(door, "a")], SETTINGS)


@pytest.mark.parametrize("error", [BusFull("full"), BusUnavailable("away")], ids=lambda error: type(error).__name__)
async def test_nothing_gets_past_what_the_bus_refused(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch, error: BusError
) -> None:
    """Of three bodies the second is refused: its messages and those of the third are told so."""
    publish, bodies = memory.publish, count(1)

    async def refusing(route: Route, body: bytes) -> None:
        if route == topology.accepted() and next(bodies) == 2:
            raise error
        await publish(route, body)

    monkeypatch.setattr(memory, "publish", refusing)
    settings = SETTINGS.model_copy(update={"message_limit": MAX_BODY, "record_timeout": 0.5})
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, store) as door:
        outcomes = await door.take_all([message(door, each.ljust(200_000, "x")) for each in "abc"], settings)
        second = BusFull if isinstance(error, BusFull) else NotRecorded  # it may have arrived
        assert told(outcomes) == [1, second, type(error)]
        assert await store.head("t") == 1


async def test_programs_that_speak_at_once_share_looks_at_what_waits(memory: Bus, store: Store) -> None:
    looks = count()

    class Counting(Store):
        async def waiting_count(self, thread_id: str, source: OutsideSource, at_most: int) -> int:
            next(looks)
            return await super().waiting_count(thread_id, source, at_most)

    counting = Counting(store._pool, store._url)
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, counting) as door:

        async def take(number: int) -> int | None:
            async with door.taken(message(door, str(number), "api"), SETTINGS) as taken:
                return taken.before

        assert await take(0) == 0
        assert set(await asyncio.gather(*(take(number) for number in range(50)))) == {1}
        assert await take(51) == 51
        assert next(looks) <= 4


@pytest.mark.parametrize("batch", [1, 7, 500])
async def test_programs_that_speak_at_once_fill_the_room_that_there_is_and_no_more(
    memory: Bus, store: Store, batch: int
) -> None:
    settings = SETTINGS.model_copy(update={"api_bound": 40})
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, store) as door:

        async def one() -> int:
            try:
                async with door.taken(message(door, "a", "api"), settings):
                    return 1
            except ThreadFlooded:
                return 0

        async def some() -> int:
            outcomes = await door.take_all([message(door, "a", "api") for _ in range(batch)], settings)
            assert {type(outcome) for outcome in outcomes} <= {Message, ThreadFlooded}
            return sum(isinstance(outcome, Message) for outcome in outcomes)

        assert sum(await asyncio.gather(*(one() if batch == 1 else some() for _ in range(64)))) == 40
        assert await store.waiting_count("t", "api", 100) == 40
        await store.record([answer(each) for each in await store.latest("t", 10)])
        assert sum(await asyncio.gather(*(one() if batch == 1 else some() for _ in range(64)))) == 10


async def test_what_was_let_in_and_never_recorded_is_forgotten(memory: Bus, store: Store) -> None:
    settings = SETTINGS.model_copy(update={"api_bound": 1, "record_timeout": 0.05})
    async with Door.open("gateway", memory, store) as door:  # and no recorder
        for _ in range(2):
            with pytest.raises(NotRecorded):
                async with door.taken(message(door, "a", "api"), settings):
                    pass
            (outcome,) = await door.take_all([message(door, "a", "api")], settings)
            assert isinstance(outcome, NotRecorded)


async def test_who_stops_looking_at_what_waits_leaves_that_to_the_next(memory: Bus, store: Store) -> None:
    begun = asyncio.Event()

    class Stuck(Store):
        async def waiting_count(self, thread_id: str, source: OutsideSource, at_most: int) -> int:
            if begun.is_set():
                return await super().waiting_count(thread_id, source, at_most)
            begun.set()
            return await asyncio.Event().wait()

    stuck = Stuck(store._pool, store._url)
    async with recorder(memory, store, grace=1), Door.open("gateway", memory, stuck) as door:
        takes = [asyncio.create_task(door.take_all([message(door, each, "api")], SETTINGS)) for each in "ab"]
        await begun.wait()
        takes[0].cancel()
        assert told(await takes[1]) == [1]
