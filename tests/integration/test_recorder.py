"""From the recorder's queue into the table, and the announcements after the commit."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import get_args
from uuid import UUID

import pytest

from m3 import topology
from m3.bus import Bus, Delivery, Subscription
from m3.errors import BusFull, BusUnavailable, StoreUnavailable
from m3.events import (
    AnyEvent,
    CancelAsked,
    Incoming,
    Message,
    MessageAccepted,
    MessageRecorded,
    MessageSettled,
    MessagesPassedOver,
    PassedOverFate,
    ReplyGrew,
    RetryAsked,
    ThreadSummarised,
    TurnEnded,
    TurnFailed,
    TurnStarted,
    decode,
    encode,
    reply_id,
)
from m3.store import Record, Store
from m3.topology import AGENT_API, AGENT_USER, CHAT_OUT, DEAD, Route
from services.recorder import recorder
from tests.support.until import DEADLINE, until


def said(content: str, thread_id: str = "t", origin: str = "nobody") -> MessageAccepted:
    return MessageAccepted(thread_id=thread_id, source="user", content=content, interface="http_api", origin=origin)


def recording(bus: Bus, store: Store, grace: float = DEADLINE) -> AbstractAsyncContextManager[None]:
    return recorder(bus, store, grace=grace)


async def hand_in(bus: Bus, *events: AnyEvent) -> None:
    await bus.publish(topology.accepted(), encode(events))


async def recorded(subscription: Subscription, count: int) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(DEADLINE):
        while len(messages) < count:
            for body in await subscription.take(100):
                messages += [event.message for event in decode(body) if isinstance(event, MessageRecorded)]
    return messages


async def told(subscription: Subscription, count: int) -> list[AnyEvent]:
    events: list[AnyEvent] = []
    async with asyncio.timeout(DEADLINE):
        while len(events) < count:
            events += [event for body in await subscription.take(100) for event in decode(body)]
    return events


@pytest.fixture
async def listener(bus: Bus) -> AsyncIterator[Subscription]:
    async with bus.subscribe("listener") as listener:
        await listener.bind(CHAT_OUT, topology.every_lane("t"))
        yield listener


async def test_a_message_is_in_the_table_before_it_is_announced(bus: Bus, store: Store, listener: Subscription) -> None:
    async with recording(bus, store):
        await hand_in(bus, said("hello"))
        (announced,) = await recorded(listener, 1)
        assert await store.message(announced.message_id) == announced
        assert announced.seq == 1


async def test_the_process_that_accepted_a_message_is_told_its_number(bus: Bus, store: Store) -> None:
    async with recording(bus, store), bus.subscribe("gateway") as mine:
        await until(lambda: bus.connected)
        await hand_in(bus, said("hello", origin=mine.name))
        (told,) = await recorded(mine, 1)
        assert (told.seq, told.content) == (1, "hello")


async def test_what_piles_up_is_one_announcement_a_thread_and_lane(
    bus: Bus, store: Store, listener: Subscription
) -> None:
    for number in range(50):
        await hand_in(bus, said(str(number)))
    async with recording(bus, store):
        async with asyncio.timeout(DEADLINE):
            bodies: list[bytes] = []
            while sum(len(decode(body)) for body in bodies) < 50:
                bodies += await listener.take(100)
    assert len(bodies) < 10  # how many batches is the bus's pace; fifty would be one each
    contents = [
        event.message.content for body in bodies for event in decode(body) if isinstance(event, MessageRecorded)
    ]
    assert contents == [str(number) for number in range(50)]


async def test_what_a_recorder_that_died_had_recorded_is_announced_by_the_next(
    bus: Bus, store: Store, listener: Subscription
) -> None:
    event = said("hello")
    await hand_in(bus, event)
    async with bus.consume(topology.RECORDER, prefetch=1) as dying:
        await dying.take(1)
        await store.record([event])
    async with recording(bus, store):
        (announced,) = await recorded(listener, 1)
        assert announced.seq == 1
        assert await store.head("t") == 1


async def test_a_message_that_is_said_again_is_told_to_who_says_it_and_not_announced_again(
    bus: Bus, store: Store, listener: Subscription
) -> None:
    event = said("hello")
    await store.record([event])
    async with recording(bus, store), bus.subscribe("gateway") as mine:
        await until(lambda: bus.connected)
        await hand_in(bus, event.model_copy(update={"origin": mine.name}))
        assert [message.seq for message in await recorded(mine, 1)] == [1]
        await hand_in(bus, said("the next"))
        assert [message.seq for message in await recorded(listener, 1)] == [2]


async def test_what_may_have_been_recorded_when_the_database_went_away_is_announced(
    bus: Bus, store: Store, listener: Subscription
) -> None:
    class Unsure(Store):
        tries = 0

        async def record(self, events: Sequence[Incoming]) -> Record:
            record = await super().record(events)
            self.tries += 1
            if self.tries == 1:
                raise StoreUnavailable("gone in the moment of the commit")
            return record

    async with recording(bus, Unsure(store._pool, store._url)):
        await hand_in(bus, said("hello"))
        assert [message.seq for message in await recorded(listener, 1)] == [1]


_TURN, _REPLY, _SAID = UUID(int=1), UUID(int=2), said("not recorded yet")

#: What no service hands in.
STRAY: list[AnyEvent] = [
    TurnStarted(thread_id="t", turn_id=_TURN, reply_id=_REPLY, in_reply_to=(_SAID.message_id,)),
    ReplyGrew(thread_id="t", turn_id=_TURN, reply_id=_REPLY, index=0, text="said"),
    TurnEnded(thread_id="t", turn_id=_TURN, reply_id=_REPLY, outcome="answered"),
    CancelAsked(thread_id="t"),
]


@pytest.mark.parametrize("stray", STRAY, ids=lambda event: event.type)
async def test_what_is_not_for_the_table_goes_to_the_dead_letters_with_all_that_came_with_it(
    bus: Bus, store: Store, stray: AnyEvent
) -> None:
    await hand_in(bus, _SAID, stray)
    await hand_in(bus, said("after"))
    async with recording(bus, store), bus.consume(DEAD, prefetch=10) as dead:
        await until(lambda: _head_is(store, 1))
        refused = await _take_one(dead)
        assert (refused.body, refused.reason) == (
            encode([_SAID, stray]),
            f"{stray.type} does not belong in the recorder's queue",
        )
    assert [message.content for message in await store.latest("t", 10)] == ["after"]


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b"{}",
        b'[{"type": "message_invented"}]',
        encode([said("x").model_copy(update={"thread_id": "too.many.dots"})]),
        b"[" * 100_000,
    ],
    ids=["not json", "no list", "unknown type", "bad thread", "nested"],
)
async def test_what_cannot_be_read_goes_to_the_dead_letters_and_the_rest_goes_on(
    bus: Bus, store: Store, body: bytes
) -> None:
    await bus.publish(topology.accepted(), body)
    await hand_in(bus, said("after"))
    async with recording(bus, store), bus.consume(DEAD, prefetch=10) as dead:
        await until(lambda: _head_is(store, 1))
        refused = await _take_one(dead)
        assert (refused.body, bool(refused.reason)) == (body, True)


async def test_what_the_database_refuses_goes_to_the_dead_letters_and_the_rest_of_its_batch_does_not(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = said("x" * 10).model_copy(update={"origin": "\x00"})  # nothing checks an origin but the database
    await hand_in(bus, said("before"))
    await hand_in(bus, poison)
    await hand_in(bus, said("after"))
    async with recording(bus, store), bus.consume(DEAD, prefetch=10) as dead:
        await until(lambda: _head_is(store, 2))
        refused = await _take_one(dead)
        assert refused.body == encode([poison])
        assert refused.reason.startswith("The database refuses this")
    assert [message.content for message in await store.latest("t", 10)] == ["before", "after"]


async def test_what_the_database_refuses_of_a_body_of_many_costs_only_itself(
    bus: Bus, store: Store, listener: Subscription
) -> None:
    poison = [said(text).model_copy(update={"origin": "\x00"}) for text in ("one", "other")]
    good = [said(str(number)) for number in range(6)]
    await hand_in(bus, *good[:3], poison[0], *good[3:5], poison[1], good[5])
    async with recording(bus, store), bus.consume(DEAD, prefetch=10) as dead:
        refused = [await _take_one(dead), await _take_one(dead)]
        assert [delivery.body for delivery in refused] == [encode([event]) for event in poison]
        assert all(delivery.reason.startswith("The database refuses this") for delivery in refused)
        assert [message.content for message in await recorded(listener, 6)] == [str(number) for number in range(6)]
        await until(lambda: _head_is(store, 6))


async def test_what_cannot_be_set_aside_comes_again_with_its_body(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = said("x").model_copy(update={"origin": "\x00"})
    await hand_in(bus, said("good"), poison)
    publish = bus.publish
    over = asyncio.Event()

    async def full(route: Route, body: bytes) -> None:
        if route == topology.accepted():
            over.set()
            raise BusFull("full")
        await publish(route, body)

    monkeypatch.setattr(bus, "publish", full)
    async with recording(bus, store):
        await over.wait()
    monkeypatch.setattr(bus, "publish", publish)
    async with recording(bus, store), bus.consume(DEAD, prefetch=10) as dead:
        assert (await _take_one(dead)).body == encode([poison])
        assert [message.content for message in await store.latest("t", 10)] == ["good"]


async def test_a_transaction_has_so_many_events_and_no_more(
    bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    class Counting(Store):
        async def record(self, events: Sequence[Incoming]) -> Record:
            sizes.append(len(events))
            return await super().record(events)

    monkeypatch.setattr("services.recorder.recording.EVENTS_AT_ONCE", 10)
    for size in (4, 4, 4, 12, 1, 9, 1):
        await hand_in(bus, *(said("x") for _ in range(size)))
    async with recording(bus, Counting(store._pool, store._url)):
        await until(lambda: _head_is(store, 35))
    assert max(sizes) == 12
    assert sorted(sizes)[-2] <= 10


async def test_what_was_fetched_is_read_when_its_transaction_comes(
    memory_bus: Bus, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    read_before = []

    def counting(body: bytes) -> list[AnyEvent]:
        nonlocal read
        read += 1
        return decode(body)

    class Counting(Store):
        async def record(self, events: Sequence[Incoming]) -> Record:
            read_before.append(read)
            return await super().record(events)

    monkeypatch.setattr("services.recorder.recording.decode", counting)
    monkeypatch.setattr("services.recorder.recording.EVENTS_AT_ONCE", 10)
    for _ in range(4):
        await hand_in(memory_bus, *(said("x") for _ in range(10)))
    async with recording(memory_bus, Counting(store._pool, store._url)):
        await until(lambda: _head_is(store, 40))
    assert read_before == [2, 3, 4, 4]  # the one that did not fit any more told so by being read


async def _head_is(store: Store, number: int) -> bool:
    return await store.head("t") == number


async def _take_one(consumer: object) -> Delivery:
    async with asyncio.timeout(DEADLINE):
        taken: list[Delivery] = await consumer.take(1)  # type: ignore[attr-defined]  # either bus's
    return taken[0]


async def test_a_batch_of_long_messages_is_announced_in_parts_that_a_broker_takes(
    bus: Bus, store: Store, listener: Subscription
) -> None:
    for number in range(200):
        await hand_in(bus, said(f"{number}".ljust(16 * 1024, "x")))
    async with recording(bus, store), asyncio.timeout(DEADLINE):
        bodies: list[bytes] = []
        while sum(len(decode(body)) for body in bodies) < 200:
            bodies += await listener.take(100)
    assert max(len(body) for body in bodies) <= 256 * 1024
    announced = [event.message.seq for body in bodies for event in decode(body) if isinstance(event, MessageRecorded)]
    assert announced == list(range(1, 201))


async def test_recorders_that_die_again_and_again_lose_no_message(bus: Bus, store: Store) -> None:
    """As with a supervisor that starts them while the database will not let them work."""

    class Broken(Store):
        async def record(self, events: Sequence[Incoming]) -> Record:
            raise ZeroDivisionError

    for number in range(20):
        await hand_in(bus, said(str(number)))
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            async with recording(bus, Broken(store._pool, store._url)), asyncio.timeout(DEADLINE):
                await asyncio.Event().wait()
    async with recording(bus, store):
        await until(lambda: _head_is(store, 20))


class _Flaky(Store):
    """A store whose first commands fail, as while a database is restarted."""

    failures = 2

    async def record(self, events: Sequence[Incoming]) -> Record:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        return await super().record(events)


async def test_a_batch_waits_for_a_database_that_is_away(
    bus: Bus, store: Store, listener: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.recorder.recording.RETRY_INTERVAL", 0.01)
    async with recording(bus, _Flaky(store._pool, store._url)):
        await hand_in(bus, said("hello"))
        (announced,) = await recorded(listener, 1)
        assert announced.seq == 1


async def test_an_announcement_is_repeated_until_the_broker_has_it_and_only_then_the_message_is_acked(
    bus: Bus, store: Store, listener: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.recorder.recording.RETRY_INTERVAL", 0.01)
    failures = iter([BusUnavailable("away"), BusUnavailable("away")])
    publish = bus.publish

    async def flaky(route: Route, body: bytes) -> None:
        if route.exchange == CHAT_OUT.name and (error := next(failures, None)):
            raise error
        await publish(route, body)

    monkeypatch.setattr(bus, "publish", flaky)
    async with recording(bus, store), bus.consume(AGENT_USER, prefetch=10) as agents:
        await hand_in(bus, said("hello"))
        assert [message.seq for message in await recorded(listener, 1)] == [1]
        assert (await _take_one(agents)).key == "user.t"


async def test_a_failure_is_told_to_the_listeners_of_its_thread(bus: Bus, store: Store, listener: Subscription) -> None:
    event = said("hello")
    async with recording(bus, store):
        await hand_in(bus, event)
        await recorded(listener, 1)
        failure = TurnFailed(thread_id="t", message_ids=(event.message_id,), reason="No model.", origin="nobody")
        await hand_in(bus, failure)
        async with asyncio.timeout(DEADLINE):
            (news,) = [event for body in await listener.take(100) for event in decode(body)]
        assert isinstance(news, MessageSettled)
        assert news.message == await store.message(event.message_id)
        assert (news.message.fate, news.message.reason) == ("failed", "No model.")


@pytest.mark.parametrize("fate", get_args(PassedOverFate))
async def test_what_is_passed_over_is_told_to_who_said_it_to_the_agent_and_to_the_threads_listeners(
    bus: Bus, store: Store, listener: Subscription, fate: PassedOverFate
) -> None:
    async with recording(bus, store), bus.subscribe("gateway") as gateway, bus.subscribe("agent") as agent:
        await until(lambda: bus.connected)
        events = [said(str(number), origin=gateway.name) for number in range(3)]
        await hand_in(bus, *events)
        await told(gateway, 3)
        await told(listener, 3)
        ids = tuple(event.message_id for event in events)
        await hand_in(
            bus, MessagesPassedOver(thread_id="t", message_ids=ids, fate=fate, reason="Why.", origin=agent.name)
        )
        news = await told(listener, 3)
        assert news == await told(gateway, 3)
        assert news == [MessageSettled(message=message) for message in await store.latest("t", 10)]
        settled = [event.message for event in news if isinstance(event, MessageSettled)]
        assert [(message.seq, message.rev, message.fate) for message in settled] == [
            (1, 4, fate),
            (2, 5, fate),
            (3, 6, fate),
        ]
        assert await told(agent, 1) == news[:1]  # one stands for all


@pytest.mark.parametrize("lane", ["user", "api"])
async def test_a_message_that_is_asked_for_again_is_told_to_its_thread_and_knocks_for_an_agent_of_its_lane(
    bus: Bus, store: Store, listener: Subscription, lane: str
) -> None:
    event = said("hello").model_copy(update={"source": lane})
    await store.record([event])
    await store.record(
        [TurnFailed(thread_id="t", message_ids=(event.message_id,), reason="No model.", origin="nobody")]
    )
    async with (
        recording(bus, store),
        bus.subscribe("gateway") as gateway,
        bus.consume(AGENT_USER if lane == "user" else AGENT_API, prefetch=10) as agents,
    ):
        await until(lambda: bus.connected)
        await hand_in(bus, RetryAsked(thread_id="t", message_id=event.message_id, origin=gateway.name))
        waiting = await store_has(store, event.message_id, "pending")
        assert waiting.rev == 3
        assert await told(listener, 1) == [MessageSettled(message=waiting)]
        assert await told(gateway, 1) == [MessageSettled(message=waiting)]
        knock = await _take_one(agents)
        assert (knock.key, decode(knock.body)) == (f"{lane}.t", [])


async def store_has(store: Store, message_id: UUID, fate: str) -> Message:
    found: list[Message] = []

    async def has() -> bool:
        message = await store.message(message_id)
        found[:] = [message] if message is not None and message.fate == fate else []
        return bool(found)

    await until(has)
    return found[0]


async def test_a_merged_message_is_told_with_the_reply_that_it_shares(
    bus: Bus, store: Store, listener: Subscription
) -> None:
    one, two = said("hello"), said("hello")
    reply = said("reply").model_copy(
        update={
            "source": "assistant",
            "message_id": reply_id(one.message_id),
            "in_reply_to": (one.message_id,),
        }
    )
    await store.record([one, two, reply])
    merging = MessagesPassedOver(
        thread_id="t",
        message_ids=(two.message_id,),
        fate="merged",
        reason="It was said before.",
        origin="nobody",
        reply_id=reply.message_id,
    )
    async with recording(bus, store):
        await hand_in(bus, merging)
        (news,) = await told(listener, 1)
    assert isinstance(news, MessageSettled)
    assert (news.message.fate, news.message.reply_id, news.message.reply_seq, news.number) == (
        "merged",
        reply.message_id,
        3,
        4,
    )


async def test_a_summary_is_kept_and_told_to_nobody(bus: Bus, store: Store, listener: Subscription) -> None:
    async with recording(bus, store):
        await hand_in(bus, said("hello"), ThreadSummarised(thread_id="t", until=1, text="A greeting."))
        assert [event.type for event in await told(listener, 1)] == ["message_recorded"]
        assert await store.summary("t") == "A greeting."
        await hand_in(bus, said("again"))
        assert [event.type for event in await told(listener, 1)] == ["message_recorded"]


async def test_what_names_no_message_stops_no_recorder(bus: Bus, store: Store) -> None:
    async with recording(bus, store):
        await hand_in(bus, TurnFailed(thread_id="t", message_ids=(), reason="No model.", origin="nobody"))
        await hand_in(bus, said("after"))
        await until(lambda: _head_is(store, 1))


# ---- Recorders that come and go


class _Slow(Store):
    """A store that is about to write its first batch for as long as a test wants."""

    def __init__(self, like: Store) -> None:
        super().__init__(like._pool, like._url)
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()

    async def record(self, events: Sequence[Incoming]) -> Record:
        self.asked.set()
        await self.answers.wait()
        return await super().record(events)


async def test_what_was_fetched_before_a_stop_is_announced_and_the_rest_goes_to_another_recorder(
    bus: Bus, store: Store, listener: Subscription
) -> None:
    slow, over = _Slow(store), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(_record_until(over, recording(bus, slow)))
        await hand_in(bus, said("fetched"))
        await slow.asked.wait()
        over.set()
        await hand_in(bus, said("after"))
        slow.answers.set()
        await leaving
    assert await store.head("t") >= 1
    async with recording(bus, store):
        await hand_in(bus, said("last"))
        announced = await recorded(listener, 3)
    assert [message.content for message in announced] == ["fetched", "after", "last"]  # none twice


async def test_a_stop_while_the_database_is_away_ends_within_its_grace_and_loses_nothing(
    bus: Bus, store: Store, listener: Subscription
) -> None:
    slow, over = _Slow(store), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(_record_until(over, recording(bus, slow, grace=0.1)))
        await hand_in(bus, said("hello"))
        await slow.asked.wait()
        over.set()
        await asyncio.wait_for(leaving, DEADLINE)
        assert await store.head("t") == 0
        async with recording(bus, store):
            assert [message.seq for message in await recorded(listener, 1)] == [1]


async def test_what_a_recorder_committed_and_could_not_announce_is_announced_by_another(
    bus: Bus, store: Store, listener: Subscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the stop with a broker away, which must end within its grace."""
    publish = bus.publish

    async def away(route: Route, body: bytes) -> None:
        if route.exchange == CHAT_OUT.name:
            await asyncio.Event().wait()
        await publish(route, body)

    over = asyncio.Event()
    monkeypatch.setattr(bus, "publish", away)
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(_record_until(over, recording(bus, store, grace=0.1)))
        await hand_in(bus, said("hello"))
        await until(lambda: _head_is(store, 1))
        over.set()
        await asyncio.wait_for(leaving, DEADLINE)
    monkeypatch.setattr(bus, "publish", publish)
    async with recording(bus, store):
        assert [message.seq for message in await recorded(listener, 1)] == [1]
        assert await store.head("t") == 1


async def _record_until(over: asyncio.Event, recorder: AbstractAsyncContextManager[None]) -> None:
    async with recorder:
        await over.wait()
