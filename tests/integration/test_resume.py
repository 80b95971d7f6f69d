"""Sockets that come back with the last number they saw: no gap, no repeat, in order."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, NoReturn

import asyncpg
import pytest
from websockets.exceptions import InvalidStatus

from m3.bus import Bus, open_bus
from m3.events import Message, MessageAccepted, MessageSettled, TurnFailed, encode, reply_id
from m3.store import Store
from m3.tasks import background
from m3.topology import accepted, changed
from services.recorder import recorder
from tests.support.client import Socket, socket
from tests.support.pushing import announce, record, running_pusher
from tests.support.until import until


@pytest.fixture
async def memory() -> AsyncIterator[Bus]:
    async with open_bus("memory://") as bus:
        yield bus


async def numbers(listener: Socket, count: int) -> list[int]:
    return [frame["seq"] for frame in await listener.messages(count)]


async def answer(store: Store, message: Message) -> Message:
    event = MessageAccepted(
        message_id=reply_id(message.message_id),
        thread_id=message.thread_id,
        source="assistant",
        content="reply",
        interface="http_api",
        origin="nobody",
        in_reply_to=(message.message_id,),
    )
    return (await store.record([event])).messages[event.message_id]


async def fail(store: Store, message: Message) -> Message:
    turn = TurnFailed(thread_id="t", message_ids=(message.message_id,), reason="No model.", origin="nobody")
    ((_, failed),) = (await store.record([turn])).settled
    return failed


async def test_a_socket_gets_what_came_after_its_number_and_then_what_comes(memory: Bus, store: Store) -> None:
    await record(store, "one", "two", "three")
    async with running_pusher(memory, store) as (address, _), socket(address, "t", after=1) as listener:
        assert (await listener.next())["type"] == "connected"
        assert await numbers(listener, 2) == [2, 3]
        await announce(memory, *await record(store, "four"))
        assert await numbers(listener, 1) == [4]
        assert await listener.hears_nothing()


async def test_a_socket_that_has_seen_all_gets_only_what_comes(memory: Bus, store: Store) -> None:
    await record(store, "one", "two")
    async with running_pusher(memory, store) as (address, _), socket(address, "t", after=2) as listener:
        await listener.next("connected")
        assert await listener.hears_nothing()
        await announce(memory, *await record(store, "three"))
        assert await numbers(listener, 1) == [3]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 7])
async def test_what_was_missed_comes_in_pages_of_the_table(
    memory: Bus, store: Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("services.pusher.replay.PAGE", 2)
    if size:
        await record(store, *(str(number) for number in range(size)))
    async with running_pusher(memory, store) as (address, _), socket(address, "t", after=0) as listener:
        await listener.next("connected")
        assert await numbers(listener, size) == list(range(1, size + 1))
        await announce(memory, *await record(store, "live"))
        assert await numbers(listener, 1) == [size + 1]


async def test_what_was_missed_may_be_far_more_than_a_sockets_buffer_holds(memory: Bus, store: Store) -> None:
    for _ in range(20):
        await record(store, *["x" * 16 * 1024] * 50)
    async with (
        running_pusher(memory, store, socket_buffer=128 * 1024) as (address, _),
        socket(address, "t", after=0) as listener,
    ):
        await listener.next("connected")
        assert await numbers(listener, 1_000) == list(range(1, 1_001))


async def test_sockets_that_come_back_under_load_miss_nothing_on_any_pusher(bus: Bus, store: Store) -> None:
    """Each reads a little, goes, and comes back at the other pusher with the last number it saw."""
    total = 150
    async with (
        recorder(bus, store, grace=1),
        running_pusher(bus, store, linger=0) as (one, _),
        running_pusher(bus, store, linger=0) as (other, _),
        socket(one, "t") as talker,
    ):
        await talker.next("connected")

        async def talk() -> None:
            for number in range(total):
                await talker.say(str(number))

        async def flap(patience: int) -> list[int]:
            seen: list[int] = []
            addresses = [one, other]
            while len(seen) < total:
                async with socket(addresses[len(seen) % 2], "t", after=seen[-1] if seen else 0) as listener:
                    await listener.next("connected")
                    seen += await numbers(listener, min(patience, total - len(seen)))
            return seen

        _, *all_seen = await asyncio.gather(talk(), *(flap(patience) for patience in (1, 2, 5, 17, 100)))
        assert all(seen == list(range(1, total + 1)) for seen in all_seen)


async def test_a_number_beyond_the_head_is_answered_with_reset(memory: Bus, store: Store) -> None:
    await record(store, "one", "two")
    async with running_pusher(memory, store) as (address, _), socket(address, "t", after=3) as listener:
        await listener.next("connected")
        assert await listener.next() == {"type": "reset", "thread_id": "t", "head": 2}
        await announce(memory, *await record(store, "three"))
        assert await numbers(listener, 1) == [3]


async def test_a_number_that_this_pusher_has_not_heard_of_yet_is_no_reset(memory: Bus, store: Store) -> None:
    """The socket saw it at another pusher."""
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as early:
        await early.next("connected")
        await record(store, "one", "two")  # with no announcement
        async with socket(address, "t", after=1) as listener:
            await listener.next("connected")
            await announce(memory, *await record(store, "three"))
            assert await numbers(listener, 2) == [2, 3]
        assert await numbers(early, 3) == [1, 2, 3]


async def test_sockets_of_a_table_that_was_taken_back_come_again_and_are_told_to_reset(
    memory: Bus, store: Store, database_url: str
) -> None:
    """As by a restored backup."""
    await record(store, "one", "two", "three")
    async with running_pusher(memory, store) as (address, _):
        async with socket(address, "t", after=0) as listener:
            await listener.next("connected")
            assert await numbers(listener, 3) == [1, 2, 3]
            connection = await asyncpg.connect(database_url)
            await connection.execute("DELETE FROM dialogue WHERE seq > 1; UPDATE threads SET head = 1")
            await connection.close()
            await announce(memory, *await record(store, "another two"))
            assert await listener.closed() == 4002
        async with socket(address, "t", after=3) as listener:
            await listener.next("connected")
            assert await listener.next() == {"type": "reset", "thread_id": "t", "head": 2}
            await announce(memory, *await record(store, "another three"))
            assert [frame["content"] for frame in await listener.messages(1)] == ["another three"]


async def test_a_pusher_that_was_not_told_of_a_table_taken_back_finds_out_by_who_comes_back(
    memory: Bus, store: Store, database_url: str
) -> None:
    await record(store, "one", "two", "three")
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as early:
        await early.next("connected")
        connection = await asyncpg.connect(database_url)
        await connection.execute("DELETE FROM dialogue WHERE seq > 1; UPDATE threads SET head = 1")
        await connection.close()
        async with socket(address, "t", after=3) as listener:
            await listener.next("connected")
            assert await listener.next() == {"type": "reset", "thread_id": "t", "head": 1}
            assert await early.closed() == 4002
            await announce(memory, *await record(store, "another two"))
            assert await numbers(listener, 1) == [2]


async def test_nothing_that_a_reset_covers_follows_it(memory: Bus, store: Store) -> None:
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as early:
        await early.next("connected")
        await record(store, "one", "two")  # with no announcement
        async with socket(address, "t", after=9) as listener:
            await listener.next("connected")
            assert await listener.next() == {"type": "reset", "thread_id": "t", "head": 2}
            await announce(memory, *await record(store, "three"))
            assert await numbers(listener, 1) == [3]
        assert await numbers(early, 3) == [1, 2, 3]


async def test_who_comes_back_has_the_whole_gap_filled_for_all(memory: Bus, store: Store) -> None:
    """Also what is beyond the first page, with no announcement to follow."""
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as early:
        await early.next("connected")
        await record(store, *(str(number) for number in range(120)))
        async with socket(address, "t", after=10) as listener:
            await listener.next("connected")
            assert await numbers(listener, 110) == list(range(11, 121))
            assert await numbers(early, 120) == list(range(1, 121))


async def test_rows_that_somebody_took_out_of_the_table_are_not_waited_for(
    memory: Bus, store: Store, database_url: str
) -> None:
    async with running_pusher(memory, store) as (address, _), socket(address, "t") as early:
        await early.next("connected")
        await record(store, *(str(number) for number in range(10)))
        connection = await asyncpg.connect(database_url)
        await connection.execute("DELETE FROM dialogue WHERE seq > 8")
        await connection.close()
        async with socket(address, "t", after=10) as listener:
            await listener.next("connected")
            await announce(memory, *await record(store, "eleven"))
            assert await numbers(listener, 1) == [11]
        assert await numbers(early, 9) == [*range(1, 9), 11]


async def test_a_message_longer_than_a_sockets_buffer_is_pushed_live_and_later(memory: Bus, store: Store) -> None:
    long = '"' * 100_000  # twice as long in JSON
    async with running_pusher(memory, store, socket_buffer=64 * 1024) as (address, _), socket(address, "t") as live:
        await live.next("connected")
        await announce(memory, *await record(store, long))
        assert await numbers(live, 1) == [1]
        await record(store, long, "three")
        async with socket(address, "t", after=0, events="all") as later:
            await later.next("connected")
            assert await numbers(later, 3) == [1, 2, 3]


async def test_the_query_does_not_name_the_thread(memory: Bus, store: Store) -> None:
    async with (
        recorder(memory, store, grace=1),
        running_pusher(memory, store) as (address, hub),
        socket(address, "t?thread_id=foreign") as talker,
    ):
        assert (await talker.next("connected"))["thread_id"] == "t"
        await talker.say("hello")
        assert (await store.head("t"), await store.head("foreign")) == (1, 0)
        for wrong in ("x" * 300, "%23", "%00"):
            with pytest.raises(InvalidStatus):
                async with socket(address, f"{wrong}?thread_id=t"):
                    pass
        assert list(hub._threads) == ["t"]


async def test_a_socket_that_says_much_while_nobody_records_lives_and_is_refused_in_order(
    memory: Bus, store: Store
) -> None:
    """Its answers to pings come between and behind what it says."""
    async with (
        running_pusher(memory, store, ping_interval=1, record_timeout=0.1) as (address, _),
        socket(address, "t") as talker,
    ):
        await talker.next("connected")
        for number in range(600):
            await talker.send(json.dumps({"type": "message", "message": str(number), "client_id": str(number)}))
        errors = [await talker.next("error") for _ in range(600)]
        assert [error["client_id"] for error in errors] == [str(number) for number in range(600)]
        assert {error["code"] for error in errors} == {"not_recorded", "not_handed_in"}
        assert await talker.hears_nothing()


async def test_what_a_socket_says_before_it_goes_is_taken(memory: Bus, store: Store) -> None:
    async with recorder(memory, store, grace=1), running_pusher(memory, store) as (address, _):
        async with socket(address, "t") as talker:
            for number in range(20):
                await talker.send(json.dumps({"type": "message", "message": str(number)}))
        await until(lambda: _head_is(store, 20))
        async with socket(address, "t") as talker:
            await talker.next("connected")
            for number in range(20):
                await talker.send(json.dumps({"type": "message", "message": str(number)}))
        await until(lambda: _head_is(store, 40))


async def _head_is(store: Store, number: int) -> bool:
    return await store.head("t") == number


async def test_a_socket_that_answers_no_ping_gives_up_its_seat(memory: Bus, store: Store) -> None:
    """Also where it has not read what it was sent."""
    async with (
        running_pusher(memory, store, ping_interval=0.2) as (address, hub),
        socket(address, "t") as silent,
    ):
        await silent.next("connected")
        silent._connection.transport.pause_reading()
        await announce(memory, *await record(store, *["x" * 16_000] * 10))
        await until(lambda: not hub._threads["t"].members)


async def test_fates_go_to_sockets_that_asked_for_all_events_live_and_later(memory: Bus, store: Store) -> None:
    async with (
        running_pusher(memory, store) as (address, _),
        socket(address, "t", events="all") as live,
        socket(address, "t") as plain,
    ):
        await live.next("connected")
        await plain.next("connected")
        one, two = await record(store, "one", "two")
        await announce(memory, one, two)
        failed = await fail(store, one)
        await memory.publish(changed("t"), encode([MessageSettled(message=failed)]))
        await announce(memory, await answer(store, two))
        await announce(memory, *await record(store, "five"))

        async with socket(address, "t", after=0, events="all") as later, socket(address, "t", after=0) as plain_later:
            await later.next("connected")
            await plain_later.next("connected")
            for listener in (live, later):
                told = [_in_short(await listener.next()) for _ in range(6)]
                assert told == [
                    ("new_message", 1, "one"),
                    ("new_message", 2, "two"),
                    ("fate", 3, "failed", "No model.", str(one.message_id)),
                    ("fate", None, "answered", 4, str(two.message_id)),
                    ("new_message", 4, "reply"),
                    ("new_message", 5, "five"),
                ]
            for listener in (plain, plain_later):
                assert await numbers(listener, 4) == [1, 2, 4, 5]
                assert await listener.hears_nothing()


def _in_short(frame: dict[str, Any]) -> tuple[object, ...]:
    if frame["type"] == "fate":
        why = frame["reason"] if frame["fate"] == "failed" else frame["reply_seq"]
        return "fate", frame.get("number"), frame["fate"], why, frame["message_id"]
    return frame["type"], frame["seq"], frame["content"]


async def test_a_failure_is_pushed_as_it_happens(bus: Bus, store: Store) -> None:
    async with (
        recorder(bus, store, grace=1),
        running_pusher(bus, store) as (address, _),
        socket(address, "t", events="all") as listener,
    ):
        said = await listener.say("one")
        (message,) = await store.latest("t", 1)
        turn = TurnFailed(thread_id="t", message_ids=(message.message_id,), reason="No model.", origin="nobody")
        await bus.publish(accepted(), encode([turn]))
        fate = await listener.next("fate")
        assert (fate["message_id"], fate["number"], fate["reason"]) == (said["message_id"], 2, "No model.")


async def test_a_message_said_again_with_its_client_id_is_taken_once(bus: Bus, store: Store) -> None:
    async with recorder(bus, store, grace=1), running_pusher(bus, store) as (address, _):
        async with socket(address, "t", client="me") as talker:
            first = await talker.say("hello", client_id="1")
            assert first["client_id"] == "1"
            assert await talker.say("hello", client_id="1") == first
        async with socket(address, "t", client="me") as talker:  # as after a connection that was lost
            assert await talker.say("hello", client_id="1") == first
            await talker.send(json.dumps({"type": "message", "message": "another", "client_id": "1"}))
            error = await talker.next("error")
            assert (error["code"], error["client_id"]) == ("key_reused", "1")
        async with socket(address, "t", client="you") as talker:
            assert (await talker.say("another", client_id="1"))["seq"] == 2
        assert await store.head("t") == 2


async def test_a_thread_may_have_so_many_sockets_and_no_more(memory: Bus, store: Store) -> None:
    async with (
        running_pusher(memory, store, sockets_per_thread=2) as (address, hub),
        socket(address, "t") as one,
        socket(address, "other") as elsewhere,
    ):
        await one.next("connected")
        await elsewhere.next("connected")
        async with socket(address, "t") as two:
            await two.next("connected")
            async with socket(address, "t") as three:
                assert await three.closed() == 4001
        await until(lambda: hub._threads["t"].members == 1)
        async with socket(address, "t") as again:
            await again.next("connected")


@pytest.mark.parametrize(
    "query", [{"after": -1}, {"after": "x"}, {"after": 2**63}, {"events": "some"}, {"client": ""}, {"client": "a\n"}]
)
async def test_a_socket_opened_with_a_wrong_query_is_refused(
    memory: Bus, store: Store, query: dict[str, str | int]
) -> None:
    async with running_pusher(memory, store) as (address, _):
        with pytest.raises(InvalidStatus) as refused:
            async with socket(address, "t", **query):
                pass
        assert refused.value.response.status_code == 422
        assert json.loads(refused.value.response.body or b"")["code"] == "invalid_request"


async def test_a_crowd_that_comes_back_to_a_busy_thread_goes_live(memory: Bus, store: Store) -> None:
    await record(store, *(str(number) for number in range(50)))
    async with (
        recorder(memory, store, grace=1),
        running_pusher(memory, store) as (address, hub),
        socket(address, "t") as talker,
        AsyncExitStack() as stack,
    ):

        async def talk() -> NoReturn:
            while True:
                await talker.say("busy")

        async with background("talking", talk()):
            crowd = [await stack.enter_async_context(socket(address, "t", after=10)) for _ in range(100)]
            await until(lambda: len(hub._threads["t"].audience) == 101)
        head = await store.head("t")
        for one in crowd:
            assert await numbers(one, head - 10) == [*range(11, head + 1)]


async def test_a_socket_that_goes_while_it_catches_up_leaves_nothing_behind(memory: Bus, store: Store) -> None:
    """Also where nobody records what it said, for which it still waits."""
    await record(store, *(str(number) for number in range(50)))
    async with running_pusher(memory, store, record_timeout=1000) as (address, hub):
        async with socket(address, "t", after=0) as talker:
            await talker.send(json.dumps({"type": "message", "message": "to whom?"}))
            await talker.next("connected")
        await until(lambda: not hub._threads["t"].members)
        assert not hub._threads["t"].audience
